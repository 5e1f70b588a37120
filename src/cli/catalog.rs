//! `deploy catalog`: the models, or one of them with its MIG places drawn.

use crate::catalog::{Catalog, Model, draw};
use crate::content::Content;
use crate::error::Problems;
use crate::report;
use crate::report::exit::Exit;
use crate::report::line::{Kind, Line};

use super::Failure;
use super::args::{CatalogArgs, CatalogVerb, Format};

/// Prints what was asked for.
///
/// # Errors
/// What is wrong with the models files, or that no model (or several) is called so.
pub fn run(args: &CatalogArgs) -> Result<Exit, Failure> {
    if let Some(CatalogVerb::Fit(args)) = &args.verb {
        return super::fit::run(args);
    }
    let (content, problems) = Content::find(args.project.as_deref(), &[]);
    if problems.has_errors() {
        return Err(problems.into());
    }
    let catalog = Catalog::load(&content)?;
    let name = args.model.as_deref();
    match args.output.output {
        Format::Human => report::data(&text(&catalog, name)?),
        Format::Json => report::json_answer(lines(&catalog, name)?),
    }
    Ok(Exit::Done)
}

/// What people are shown: a table, or the details of one model.
///
/// # Errors
/// No model is called so, or several are.
pub fn text(catalog: &Catalog, model: Option<&str>) -> Result<String, Problems> {
    Ok(match model {
        Some(name) => draw::details(catalog.resolve(name)?, draw::USUAL_WIDTH),
        None => {
            let models: Vec<&Model> = catalog.models().iter().collect();
            draw::table(&models)
        }
    })
}

/// The same as JSON: a line a model.
///
/// # Errors
/// No model is called so, or several are.
fn lines(catalog: &Catalog, model: Option<&str>) -> Result<Vec<Line>, Problems> {
    let line = |model: &Model| Line::new(Kind::GpuModel, serde_json::json!(model));
    Ok(match model {
        Some(name) => vec![line(catalog.resolve(name)?)],
        None => catalog.models().iter().map(line).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::load(&Content::shipped()).expect("the shipped files are right")
    }

    #[test]
    fn the_table_has_a_line_for_each_model() {
        let catalog = catalog();
        let text = text(&catalog, None).expect("all models");
        assert_eq!(text.lines().count(), 1 + catalog.models().len());
        assert!(text.contains("H200-141GB"));
    }

    #[test]
    fn json_is_the_models_as_they_are() {
        let catalog = catalog();
        let model = |line: &Line| -> Model {
            serde_json::from_value(line.value().clone()).expect("a model")
        };
        let one = lines(&catalog, Some("h200")).expect("one model");
        assert_eq!(Some(&model(&one[0])), catalog.by_key("H200-141GB"));
        let all = lines(&catalog, None).expect("all models");
        let all: Vec<Model> = all.iter().map(model).collect();
        assert_eq!(all, catalog.models());
    }

    #[test]
    fn an_ambiguous_name_asks_to_choose() {
        let problems = text(&catalog(), Some("A100")).expect_err("two of them");
        assert!(
            problems.to_string().contains("A100-40GB, A100-80GB"),
            "{problems}"
        );
    }
}

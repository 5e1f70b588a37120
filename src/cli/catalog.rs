//! `deploy catalog`: the models, or one of them with its MIG places drawn.

use crate::catalog::{Catalog, Model, draw};
use crate::content::Content;
use crate::error::Problems;
use crate::report;
use crate::report::exit::Exit;

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
    report::data(&print(&catalog, args.model.as_deref(), args.output.output)?);
    Ok(Exit::Done)
}

/// What `deploy catalog [MODEL]` prints: a table, the details of one model, or JSON: an array
/// of all models, or the one.
///
/// # Errors
/// No model is called so, or several are.
pub fn print(catalog: &Catalog, model: Option<&str>, format: Format) -> Result<String, Problems> {
    let model = model.map(|name| catalog.resolve(name)).transpose()?;
    Ok(match (format, model) {
        (Format::Human, Some(model)) => draw::details(model, draw::USUAL_WIDTH),
        (Format::Human, None) => {
            let models: Vec<&Model> = catalog.models().iter().collect();
            draw::table(&models)
        }
        (Format::Json, Some(model)) => json(model),
        (Format::Json, None) => json(&catalog.models()),
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // Models hold only texts and numbers, so this cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
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
        let text = print(&catalog, None, Format::Human).expect("all models");
        assert_eq!(text.lines().count(), 1 + catalog.models().len());
        assert!(text.contains("H200-141GB"));
    }

    #[test]
    fn json_is_the_models_as_they_are() {
        let catalog = catalog();
        let text = print(&catalog, Some("h200"), Format::Json).expect("one model");
        let model: Model = serde_json::from_str(&text).expect("a model");
        assert_eq!(Some(&model), catalog.by_key("H200-141GB"));
        let text = print(&catalog, None, Format::Json).expect("all models");
        let all: Vec<Model> = serde_json::from_str(&text).expect("models");
        assert_eq!(all, catalog.models());
    }

    #[test]
    fn an_ambiguous_name_asks_to_choose() {
        let problems = print(&catalog(), Some("A100"), Format::Human).expect_err("two of them");
        assert!(
            problems.to_string().contains("A100-40GB, A100-80GB"),
            "{problems}"
        );
    }
}

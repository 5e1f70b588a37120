//! `template`: a rendered file.

use serde_json::json;

use super::context::Context;
use super::path::{self, WantedFile};
use super::{Args, Done, Kind, Module, Param};
use crate::content::Folder;
use crate::error::{Diagnostic, nearest};
use crate::playbook::lacking;
use crate::render::{self, Rendered};

/// Ansible's `template`.
pub(super) static TEMPLATE: Module = Module {
    name: "template",
    params: &[
        Param::new("src", Kind::Text).required(),
        Param::new("dest", Kind::Path).required(),
        Param::new("mode", Kind::Mode),
        Param::new("owner", Kind::Text),
        Param::new("group", Kind::Text),
    ],
    free_form: None,
    open: false,
    plan,
};

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let name = args.required("src");
    let Some(found) = ctx.project.template(&name) else {
        return Err(missing(&name, args, ctx).into());
    };
    let source = found
        .source()
        .map_err(|message| args.problem("src", message))?;
    let text = render::template(&source, ctx.scope)?;
    let dest = destination(args, &name);
    let wanted = WantedFile {
        path: dest.clone(),
        content: text.into_bytes(),
        secret: false,
        own: false,
    };
    let step = path::file(wanted, args, ctx)?;
    let mut done = Done::default();
    done.values.insert("dest".to_owned(), json!(dest));
    done.steps.extend(step);
    Ok(done)
}

/// A destination that ends in `/` is a directory; the file keeps its name there.
pub(super) fn destination(args: &Args, source: &str) -> String {
    let dest = args.required("dest");
    if dest.ends_with('/') {
        let name = source.rsplit('/').next().unwrap_or(source);
        format!("{dest}{}", name.strip_suffix(".j2").unwrap_or(name))
    } else {
        dest
    }
}

fn missing(name: &str, args: &Args, ctx: &Context<'_>) -> Diagnostic {
    let content = ctx.project.content();
    if ctx.project.is_of_record() {
        return lacking(name).at(&ctx.task.origin);
    }
    let problem = args.problem("src", format!("there is no template `{name}`"));
    match nearest(name, content.names(Folder::Templates)) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => {
            problem.hint("it is looked for in `templates/` beside the playbook and in the project")
        }
    }
}

//! `copy`: a file with given content.

use serde_json::json;

use super::context::Context;
use super::path::{self, WantedFile};
use super::template::destination;
use super::{Args, Done, Kind, Module, Param};
use crate::playbook::lacking;
use crate::render::Rendered;
use crate::value::Value;

/// Ansible's `copy`.
pub(super) static COPY: Module = Module {
    name: "copy",
    params: &[
        Param::new("dest", Kind::Path).required(),
        Param::new("content", Kind::Any),
        Param::new("src", Kind::Text),
        Param::new("mode", Kind::Mode),
        Param::new("owner", Kind::Text),
        Param::new("group", Kind::Text),
    ],
    free_form: None,
    open: false,
    plan,
};

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let (content, source) = match (args.node("content"), args.text("src")) {
        (Some(_), Some(_)) => {
            return Err(args
                .problem("src", "`copy` has `content` or `src`, not both")
                .into());
        }
        (Some(node), None) => {
            let text = match &node.value {
                Value::Seq(_) | Value::Map(_) => node.to_json().to_string(),
                Value::Null => String::new(),
                _ => args.required("content"),
            };
            (text.into_bytes(), String::new())
        }
        (None, Some(name)) => match ctx.project.file(&name) {
            Some(found) => (found.bytes.to_vec(), name),
            None if ctx.project.is_of_record() => {
                return Err(lacking(&name).at(&ctx.task.origin).into());
            }
            None => {
                let problem = args.problem("src", format!("there is no file `{name}`"));
                let hint = "it is looked for in `files/` beside the playbook; directories cannot be copied";
                return Err(problem.hint(hint).into());
            }
        },
        (None, None) => {
            return Err(args
                .problem("dest", "`copy` needs `content` or `src`")
                .into());
        }
    };
    let dest = destination(args, &source);
    let wanted = WantedFile {
        path: dest.clone(),
        content,
        secret: false,
        own: false,
    };
    let step = path::file(wanted, args, ctx)?;
    let mut done = Done::default();
    done.values.insert("dest".to_owned(), json!(dest));
    done.steps.extend(step);
    Ok(done)
}

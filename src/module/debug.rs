//! `debug` says something with the plan; `meta` is carried out by the plan itself.

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::render::{self, Rendered};
use crate::value::{Node, Value};

/// Ansible's `debug`.
pub(super) static DEBUG: Module = Module {
    name: "debug",
    params: &[
        Param::new("msg", Kind::Any),
        Param::new("var", Kind::Conditions),
    ],
    free_form: None,
    open: false,
    plan,
};

/// Ansible's `meta`, as far as a plan has a use for it.
pub(super) static META: Module = Module {
    name: "meta",
    params: &[Param::new("action", Kind::Word(&["flush_handlers", "noop"])).required()],
    free_form: Some("action"),
    open: false,
    plan: |_, _| Ok(Done::default()),
};

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let text = match (args.node("msg"), args.node("var")) {
        (Some(message), _) => text(message),
        (None, Some(var)) => {
            let Some(name) = var.as_str() else {
                return Err(args
                    .problem("var", "`var` is the name of a variable")
                    .into());
            };
            let template = Node::new(Value::Str(format!("{{{{ {name} }}}}")), var.origin.clone());
            format!("{name} = {}", text(&render::node(&template, ctx.scope)?))
        }
        (None, None) => {
            return Err(Diagnostic::error("`debug` needs `msg` or `var`")
                .at(&args.origin)
                .into());
        }
    };
    let text = if ctx.task.no_log {
        format!("`{}` is not shown (`no_log`)", ctx.task.name)
    } else {
        text
    };
    Ok(Done {
        notes: vec![text],
        ..Done::default()
    })
}

fn text(node: &Node) -> String {
    match &node.value {
        Value::Str(text) => text.clone(),
        _ => node.to_json().to_string(),
    }
}

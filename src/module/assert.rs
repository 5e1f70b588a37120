//! `assert` and `fail`: what must be so before anything is changed.

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::render::{self, Rendered};
use crate::value::{Node, Value};

/// Ansible's `assert`.
pub(super) static ASSERT: Module = Module {
    name: "assert",
    params: &[
        Param::new("that", Kind::Conditions).required(),
        Param::new("fail_msg", Kind::Any).or(&["msg"]),
        Param::new("success_msg", Kind::Any),
        Param::new("quiet", Kind::Bool),
    ],
    free_form: None,
    open: false,
    plan: check,
};

/// Ansible's `fail`.
pub(super) static FAIL: Module = Module {
    name: "fail",
    params: &[Param::new("msg", Kind::Any)],
    free_form: None,
    open: false,
    plan: fail,
};

fn check(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let Some(that) = args.node("that") else {
        return Ok(Done::default());
    };
    let conditions = that.as_seq().unwrap_or(std::slice::from_ref(that));
    for condition in conditions {
        if render::condition(condition, ctx.scope)? {
            continue;
        }
        let written = match &condition.value {
            Value::Str(text) => text.clone(),
            _ => "this condition".to_owned(),
        };
        let message = args
            .node("fail_msg")
            .filter(|_| !ctx.task.no_log)
            .map_or_else(|| format!("`{written}` does not hold"), joined);
        let problem = Diagnostic::error(message).at(&condition.origin);
        return Err(problem
            .hint(format!("asserted by task `{}`", ctx.task.name))
            .into());
    }
    let mut done = Done::default();
    if let Some(message) = args.node("success_msg").filter(|_| !ctx.task.no_log) {
        done.notes.push(joined(message));
    }
    Ok(done)
}

fn fail(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let message = args
        .node("msg")
        .filter(|_| !ctx.task.no_log)
        .map(joined)
        .unwrap_or_else(|| format!("task `{}` fails as it was told to", ctx.task.name));
    Err(Diagnostic::error(message).at(&ctx.task.origin).into())
}

/// A message may be written as a list of lines.
fn joined(node: &Node) -> String {
    match &node.value {
        Value::Seq(lines) => {
            let lines: Vec<String> = lines.iter().map(joined).collect();
            lines.join("; ")
        }
        Value::Str(text) => text.clone(),
        _ => node.to_json().to_string(),
    }
}

//! `set_fact`: variables for what follows.

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::render::{Binding, Rendered};

/// Ansible's `set_fact`.
pub(super) static SET_FACT: Module = Module {
    name: "set_fact",
    params: &[Param::new("cacheable", Kind::Bool)],
    free_form: None,
    open: true,
    plan,
};

fn plan(args: &Args, _: &mut Context<'_>) -> Rendered<Done> {
    let facts = args
        .iter()
        .filter(|(name, _)| *name != "cacheable")
        .map(|(name, node)| (name.to_owned(), Binding::Known(node.to_json())));
    Ok(Done {
        facts: facts.collect(),
        ..Done::default()
    })
}

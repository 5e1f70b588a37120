//! Before and after as people read them: data for `report`, no colours, no printing.

use crate::step::{Class, StepId};
use crate::value::HostName;

/// What one step changes, ready to be shown. All text is already printable:
/// control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// The step.
    pub id: StepId,
    /// What it does, in a few words.
    pub title: String,
    /// How careful to be.
    pub class: Class,
    /// What differs, line by line; empty for an action.
    pub lines: Vec<Line>,
}

/// One line of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// What it is.
    pub kind: LineKind,
    /// Its text, without a newline, with the `+`, `-` or blank before it where a
    /// unified diff has one.
    pub text: String,
}

/// What a line of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// Stands before and after.
    Context,
    /// Only afterwards.
    Added,
    /// Only before.
    Removed,
    /// `@@ … @@`, file names.
    Heading,
    /// Something to know that is neither.
    Info,
}

/// Hosts whose plans look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The hosts, in the order of the inventory.
    pub hosts: Vec<HostName>,
    /// What is changed on each of them.
    pub blocks: Vec<Block>,
    /// Sentences of the plan.
    pub notes: Vec<String>,
    /// Files of the user's project that replaced shipped ones.
    pub overridden: Vec<String>,
}

/// The plans as blocks, with the hosts whose plans look the same together, in the
/// order of their first host.
#[must_use]
pub fn group(plans: &[(HostName, &crate::plan::HostPlan)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (host, plan) in plans {
        let blocks = blocks(plan);
        let same = groups.iter_mut().find(|group| {
            group.blocks == blocks
                && group.notes == plan.notes
                && group.overridden == plan.overridden
        });
        match same {
            Some(group) => group.hosts.push(host.clone()),
            None => groups.push(Group {
                hosts: vec![host.clone()],
                blocks,
                notes: plan.notes.clone(),
                overridden: plan.overridden.clone(),
            }),
        }
    }
    groups
}

/// What each step of a plan changes.
#[must_use]
pub fn blocks(plan: &crate::plan::HostPlan) -> Vec<Block> {
    plan.steps
        .iter()
        .map(|step| Block {
            id: step.id.clone(),
            title: step.title.clone(),
            class: step.class,
            lines: Vec::new(),
        })
        .collect()
}

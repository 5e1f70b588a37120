//! Objects that another platform wants in a cluster: put there, read back, recorded and taken
//! back as this platform does it with its own.

use serde_json::Value as Json;

use crate::platform::{Host, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};

use super::tool::{Name, Tool, answered};
use super::{kept, object};

/// What is wanted.
#[derive(Debug)]
pub(in crate::platform) struct Set<'a> {
    /// Path of a configuration of kubectl on the host; its own where it is empty.
    pub(in crate::platform) kubeconfig: &'a str,
    /// The objects, in the order in which they are made.
    pub(in crate::platform) objects: &'a [Json],
    /// The record of them on the host.
    pub(in crate::platform) record: &'static str,
    /// Kinds of which an object is never deleted, because what it holds could not be brought
    /// back: the plan says how a person does it.
    pub(in crate::platform) never_deleted: &'static [&'static str],
}

/// What makes the cluster so; what the record has and is no longer wanted goes.
///
/// # Errors
/// Halts while something was not read, and on what the cluster does not take.
pub(in crate::platform) fn wishes(set: &Set<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let kept = kept::read(set.record, host)?;
    let tool = match (&kept, set.objects) {
        (Some(kept), []) => kept.tool.clone(),
        _ => Tool {
            kubeconfig: set.kubeconfig.to_owned(),
            context: String::new(),
        },
    };
    let (old, gone) = kept::gone(kept.as_ref(), &tool, set.objects);
    for manifest in set.objects {
        object::expect(&tool, manifest, false, host);
    }
    let is_kept = |manifest: &Json| {
        let mut kinds = set.never_deleted.iter();
        kinds.any(|kind| manifest["kind"] == *kind)
    };
    let mut wishes = Vec::new();
    let mut left = Vec::new();
    for manifest in &gone {
        let name = Name::of(manifest);
        if !is_kept(manifest) {
            let planned = object::gone(&old, manifest, host)?;
            wishes.extend(planned.step.map(|step| Wish::Step(Box::new(step))));
        } else if answered(host, &old.live(&name), &name.label())?.is_some() {
            let [resource, namespace, own] = name.words();
            wishes.push(Wish::Note(format!(
                "{} is no longer wanted and stays, for its data would go with it: `kubectl delete {resource} {own} --namespace {namespace}` deletes it",
                name.label()
            )));
            left.push(manifest.clone());
        }
    }
    for manifest in set.objects {
        let mut planned = object::planned(&tool, manifest, false, host)?;
        wishes.extend(planned.notes.into_iter().map(Wish::Note));
        if is_kept(manifest)
            && planned.is_new
            && let Some(step) = &mut planned.step
        {
            // Undone within its run, but not by a rollback later.
            let label = Name::of(manifest).label();
            step.idle = Script::one(Command::new("kube_keeps").arg(label));
        }
        wishes.extend(planned.step.map(|step| Wish::Step(Box::new(step))));
    }
    let all: Vec<Json> = set.objects.iter().cloned().chain(left).collect();
    wishes.extend(kept::record(set.record, &tool, &all, kept.as_ref()));
    Ok(wishes)
}

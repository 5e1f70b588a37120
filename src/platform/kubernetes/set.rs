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

/// The cluster as `deploy doctor` asks it.
#[derive(Debug)]
pub(in crate::platform) struct Cluster(Tool);

impl Cluster {
    /// By a path of a configuration on the host; kubectl's own where it is empty.
    pub(in crate::platform) fn new(kubeconfig: &str) -> Self {
        Self(Tool {
            kubeconfig: kubeconfig.to_owned(),
            context: String::new(),
        })
    }

    /// A call as a person would type it.
    pub(in crate::platform) fn typed(&self, words: &[&str]) -> String {
        self.0.typed(words)
    }

    /// Has an object read that will be asked for.
    pub(in crate::platform) fn expect(&self, object: &Json, host: &mut dyn Host) {
        host.expect(self.0.live(&Name::of(object)));
    }

    /// An object as it is; nothing where there is none, or the cluster knows no such kind.
    ///
    /// # Errors
    /// Halts while it was not read, and where kubectl does not answer.
    pub(in crate::platform) fn live(
        &self,
        object: &Json,
        host: &mut dyn Host,
    ) -> Rendered<Option<Json>> {
        let name = Name::of(object);
        let read = self.0.live(&name);
        let said = host.ask(&read)?;
        let unknown =
            String::from_utf8_lossy(&said.stderr).contains("doesn't have a resource type");
        match !said.success() && unknown {
            true => Ok(None),
            false => answered(host, &read, &name.label()),
        }
    }

    /// Has the nodes read.
    pub(in crate::platform) fn expect_nodes(&self, host: &mut dyn Host) {
        host.expect(self.0.nodes());
    }

    /// All nodes.
    ///
    /// # Errors
    /// As `live`.
    pub(in crate::platform) fn nodes(&self, host: &mut dyn Host) -> Rendered<Json> {
        Ok(answered(host, &self.0.nodes(), "nodes")?.unwrap_or_default())
    }
}

/// How messages call an object.
pub(in crate::platform) fn label(object: &Json) -> String {
    Name::of(object).label()
}

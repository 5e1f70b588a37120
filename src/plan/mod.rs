//! From a playbook, variables and facts to the ordered steps that differ.
//!
//! `check` finds what is wrong with the user's files before any host is connected
//! to. `host` plans one host: it walks the tasks over what was read so far, and
//! either the plan is complete or it says what else to read, all of it at once.
//! Everything here is pure: the same input gives the same plan.

mod applied;
mod check;
mod guard;
mod order;
mod owed;
mod replay;
mod secrets;
mod walk;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::Problems;
use crate::facts::HostFacts;
pub use crate::module::{Landing, ReadCache};
use crate::playbook::{Playbook, Project, Tags};
use crate::render::{self, Binding, Layer, Scope};
use crate::step::{Step, StepId};
use crate::strategy::Share;
use crate::transport::Read;
use crate::value::{HostName, Loaded, Vars};

pub use applied::{Applied, AppliedKey, Used};
pub use check::{Checked, check};
pub use guard::{Confirm, Guard, GuardKind, RECONNECT_S};
pub use owed::reads;
pub use replay::{LastApplied, Replay, facts_at_rest};

/// The steps of one host that differ, in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Steps; empty if the host is as wanted.
    pub steps: Vec<Step>,
    /// Sentences that belong to the plan: why a strategy was chosen, what is only a hint.
    pub notes: Vec<String>,
    /// Files of the user's project that replaced shipped ones.
    pub overridden: Vec<String>,
    /// The desired state, as it is recorded on the host after the run.
    pub desired: Json,
    /// What undoes the run unless it ends well; none if nothing is changed.
    pub guard: Option<Guard>,
    /// Handlers that run in this plan, so that a run that cannot be undone wholly
    /// leaves word of those that it owes.
    pub handlers: Vec<PlannedHandler>,
    /// What is recorded on the host for drift; none where a plan is only shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Box<Applied>>,
}

/// A handler that runs in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedHandler {
    /// Its name.
    pub name: String,
    /// The steps whose change it answers to; empty if an earlier run owed it.
    pub notified_by: Vec<StepId>,
    /// Its own steps.
    pub steps: Vec<StepId>,
}

/// A host and its variables, before any facts.
#[derive(Debug, Clone, Copy)]
pub struct HostInput<'a> {
    /// The playbook.
    pub playbook: &'a Playbook,
    /// The plays that are for this host, by their place in the playbook.
    pub plays: &'a [usize],
    /// The host.
    pub host: &'a HostName,
    /// The inventory's variables of the host, as they were written.
    pub vars: &'a Vars,
    /// `--extra-vars`.
    pub extra: &'a Vars,
    /// The variable `groups`, the same for all hosts.
    pub groups: Option<&'a Json>,
}

/// All that a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The host and what is written of it.
    pub host: HostInput<'a>,
    /// What discovery saw.
    pub facts: &'a HostFacts,
    /// What models can do.
    pub catalog: &'a Catalog,
    /// Files that the playbook names.
    pub project: &'a Project,
    /// Which tasks are wanted.
    pub tags: &'a Tags,
    /// `--allow-reboot`: leave to restart the host where the plan needs it. The other
    /// way to give leave is `containers_gpu_state_management.reboot_required: true`.
    /// Without either nothing is planned that would wait half done for a reboot.
    pub allow_reboot: bool,
    /// What the host gets of the totals of its group, where it shares some.
    pub share: Option<&'a Share>,
}

/// A plan, or what it still needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    /// Everything is known.
    Complete(Box<Complete>),
    /// These must be read first; then plan again. One more round of reads is rarely
    /// needed, and every round asks for something new.
    Needs(Vec<Read>),
}

/// A plan and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Complete {
    /// The plan.
    pub plan: HostPlan,
    /// What was looked at. Left on the host by `transport::remember`, it is there in
    /// the first batch of the next run.
    pub reads: Vec<Read>,
    /// The files that the playbook wants there, whether they are so already or not.
    pub files: Vec<Landing>,
    /// What of the user's it is made of.
    pub used: Used,
}

impl Complete {
    /// Whether the plan asked what stands at a path.
    #[must_use]
    pub fn looked_at(&self, path: &str) -> bool {
        let asks = |read: &Read| matches!(read, Read::State { path: other, .. } if other == path);
        self.reads.iter().any(asks) || self.files.iter().any(|file| file.path == path)
    }
}

/// Plans one host.
///
/// # Errors
/// Everything that keeps the host from being changed: what cannot be rendered, what
/// was asserted, what the cards cannot do. Nothing was changed then.
pub fn host(input: &PlanInput<'_>, cache: &ReadCache) -> Result<Planned, Problems> {
    walk::walk(input, cache)
}

/// What is wanted of a host's GPUs, with the variables of the play that slices them.
/// For discovery and for checks before any connection.
#[must_use]
pub fn desired(input: &HostInput<'_>, project: &Project) -> Loaded<Desired> {
    let slices = |play: &&usize| {
        let play = input.playbook.plays.get(**play);
        play.is_some_and(|play| {
            play.tasks
                .iter()
                .any(|task| task.module.starts_with("gpu_"))
        })
    };
    let play = input.plays.iter().find(slices).or(input.plays.first());
    let scope = scope(input, play.copied());
    let names: Vec<&str> = scope
        .names()
        .filter(|name| crate::desired::is_variable(name))
        .collect();
    let (vars, mut problems) = render::some_vars(&scope, names);
    if problems.has_errors() {
        // What could not be rendered is missing, and would be told a second time.
        let (desired, _) = crate::desired::read(&vars, &|name, at| project.document(name, at));
        return (desired, problems);
    }
    let (desired, found) = crate::desired::read(&vars, &|name, at| project.document(name, at));
    problems.extend(found);
    (desired, problems)
}

/// The variables that a play starts with.
#[must_use]
pub fn scope(input: &HostInput<'_>, play: Option<usize>) -> Scope {
    let mut scope = Scope::default()
        .with(
            Layer::Magic,
            "ansible_managed",
            Binding::Known(Json::from("Written by deploy; changes are overwritten.")),
        )
        .with(
            Layer::Magic,
            "omit",
            Binding::Known(Json::from(crate::module::OMIT)),
        )
        .with_vars(Layer::Host, input.vars)
        .with_vars(Layer::Extra, input.extra);
    if let Some(groups) = input.groups {
        scope.set(Layer::Magic, "groups", Binding::Known(groups.clone()));
    }
    match play.and_then(|play| input.playbook.plays.get(play)) {
        Some(play) => scope.with_vars(Layer::Play, &play.vars),
        None => scope,
    }
}

#[cfg(test)]
mod tests;

//! Undoing a run on request: which one, what it would change, and doing it.
//!
//! The work is done on the host by the run's own undo scripts, under the lock and
//! in the run's own journal, exactly as after a failed step.

use tokio::sync::mpsc::UnboundedSender;

use super::journal::What;
use super::manifest::ManifestStep;
use super::runs::{HostRuns, RunRecord, Status};
use super::talk::{Talk, Verb};
use super::{Connect, HostResult, RunId, ending};
use crate::event::{Event, Outcome};
use crate::plan::HostPlan;
use crate::step::{Change, Class, Step};
use crate::transport::Session;
use crate::value::HostName;

/// What to do if the host is no longer as the run left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Change nothing and say what moved.
    Refuse,
    /// Bring back what was before the run, whatever came after it.
    UndoAnyway,
}

/// Why there is nothing to roll back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The run to undo: the wanted one, or else one that was interrupted or could not
/// be undone, or else the one that was applied last. Nothing if none was wanted by name
/// and none is applied.
///
/// # Errors
/// There is no such run, or nothing of it to undo, or somebody is at it.
pub fn pick<'a>(
    runs: &'a HostRuns,
    wanted: Option<&RunId>,
) -> Result<Option<&'a RunRecord>, Refusal> {
    let refuse = |message: String, hint: &str| {
        Err(Refusal {
            message,
            hint: Some(hint.to_owned()),
        })
    };
    let Some(wanted) = wanted else {
        let stuck = runs
            .runs
            .iter()
            .find(|run| run.status.is_open() && run.status != Status::InProgress);
        let last = || {
            let current = runs.current.as_ref()?;
            runs.runs
                .iter()
                .find(|run| run.manifest.run == current.as_str() && run.status == Status::Done)
        };
        let newest = || runs.runs.iter().find(|run| run.status == Status::Done);
        // What an undo could not bring back is tried again before anything older is undone.
        let half = || {
            let newest = runs.runs.iter().find(|run| run.status.can_be_undone());
            newest.filter(|run| run.status == Status::UndoFailed)
        };
        return match stuck.or_else(half).or_else(last).or_else(newest) {
            Some(run) => Ok(Some(run)),
            None => match runs.runs.iter().find(|run| run.status.is_open()) {
                Some(run) => Err(at_work(run)),
                None => Ok(None),
            },
        };
    };
    let found = runs
        .runs
        .iter()
        .find(|run| run.manifest.run == wanted.as_str());
    match found {
        None => refuse(
            format!("run {wanted} is not on this host"),
            "`deploy runs` lists the runs that are kept",
        ),
        Some(run) if run.status == Status::InProgress => Err(at_work(run)),
        Some(run) if !run.status.can_be_undone() => refuse(
            format!("there is nothing to undo: run {wanted} is {}", run.status),
            "`deploy runs` lists what is applied",
        ),
        Some(run) => Ok(Some(run)),
    }
}

/// Why a run is not undone while its host is at it.
fn at_work(run: &RunRecord) -> Refusal {
    let id = &run.manifest.run;
    Refusal {
        message: format!("run {id} is {}: the host is at it now", run.status),
        hint: Some(format!(
            "wait for its end, or `deploy runs unlock {id}` ends it now and undoes it"
        )),
    }
}

/// Whether its journal is needed to know what there is to undo: of a run that did not
/// come to its end some steps were never begun.
#[must_use]
pub fn needs_journal(status: &Status) -> bool {
    !matches!(status, Status::Done | Status::Unconfirmed { .. })
}

/// Whether there is something of this step to undo.
fn stands(record: &RunRecord, step: &ManifestStep) -> bool {
    if !needs_journal(&record.status) {
        return true;
    }
    let last = record.journal.iter().rev().find(|entry| {
        entry.step == step.directory && matches!(entry.what, What::Apply | What::Undone)
    });
    last.is_some_and(|entry| entry.what == What::Apply)
}

/// What undoing a run changes, for the diff: its steps in reverse, before and
/// after exchanged. Steps that were never begun, or are undone already, are left out.
#[must_use]
pub fn reverse(record: &RunRecord) -> HostPlan {
    let mut plan = HostPlan::default();
    let steps = record.manifest.steps.iter().rev();
    for step in steps.filter(|step| stands(record, step)) {
        let Some(change) = exchanged(&step.change) else {
            continue;
        };
        if step.class == Class::OneWay {
            plan.notes
                .push(format!("`{}` cannot be undone", step.title));
            continue;
        }
        plan.steps.push(Step {
            title: format!("undo: {}", step.title),
            change,
            ..step.shown()
        });
    }
    plan
}

fn exchanged(change: &Change) -> Option<Change> {
    Some(match change.clone() {
        Change::Path {
            path,
            before,
            after,
        } => Change::Path {
            path,
            before: after,
            after: before,
        },
        Change::Layout {
            subject,
            grid,
            before,
            after,
        } => Change::Layout {
            subject,
            grid,
            before: after,
            after: before,
        },
        Change::Setting {
            subject,
            name,
            before,
            after,
        } => Change::Setting {
            subject,
            name,
            before: after,
            after: before,
        },
        Change::Action { what } => Change::Action {
            what: format!("undo: {what}"),
        },
        Change::Reboot { .. } | Change::Check { .. } => return None,
    })
}

/// Undoes the run on the host. `who` is who asks for it and from where.
pub async fn undo<'s>(
    mut session: Box<dyn Session + 's>,
    connect: &'s dyn Connect,
    record: &RunRecord,
    who: &str,
    moved: Moved,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> HostResult {
    let Some(run) = record.id() else {
        let chain = vec!["the run's id on the host is none of ours".to_owned()];
        return HostResult::bad(Outcome::Failed, chain, None);
    };
    let verb = match moved {
        Moved::Refuse => Verb::Undo,
        Moved::UndoAnyway => Verb::UndoAnyway,
    };
    let mut talk = Talk::new(connect, &record.manifest, run, host, events, who);
    let heard = talk.ask(session.as_mut(), verb).await;
    let heard = talk.until_the_end(Some(session), heard, false).await;
    ending::of_undo(&talk, &heard)
}

//! Undoing a run on request: which one, what it would change, and doing it.
//!
//! The work is done on the host by the run's own undo scripts, under the lock and
//! in the run's own journal, exactly as after a failed step.

use tokio::sync::mpsc::UnboundedSender;

use super::manifest::Manifest;
use super::runs::{HostRuns, RunRecord, Status};
use super::upload::{JOURNAL_LIMIT, follow_script, one_line};
use super::{Ended, HostResult, RunId, failure, follow, heard_to_the_end, interrupted, patience};
use crate::event::{Event, Outcome};
use crate::plan::HostPlan;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step};
use crate::transport::{Exec, Session};
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
/// be undone, or else the one that was applied last.
///
/// # Errors
/// There is no such run, or nothing of it to undo.
pub fn pick<'a>(runs: &'a HostRuns, wanted: Option<&RunId>) -> Result<&'a RunRecord, Refusal> {
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
            .find(|run| run.status == Status::Interrupted);
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
            Some(run) => Ok(run),
            None => refuse(
                "no run is applied on this host".to_owned(),
                "`deploy runs` lists what there was",
            ),
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
        Some(run) if !run.status.can_be_undone() => refuse(
            format!("there is nothing to undo: run {wanted} is {}", run.status),
            "`deploy runs` lists what is applied",
        ),
        Some(run) => Ok(run),
    }
}

/// What undoing a run changes, for the diff: its steps in reverse, before and
/// after exchanged. The steps have no scripts; the host has its own.
#[must_use]
pub fn reverse(manifest: &Manifest) -> HostPlan {
    let mut plan = HostPlan::default();
    for step in manifest.steps.iter().rev() {
        let Some(change) = exchanged(&step.change) else {
            continue;
        };
        if step.class == Class::OneWay {
            plan.notes
                .push(format!("`{}` cannot be undone", step.title));
            continue;
        }
        plan.steps.push(Step {
            id: step.id.clone(),
            task: step.task.clone(),
            title: format!("undo: {}", step.title),
            class: step.class,
            change,
            check: Script::default(),
            snapshot: Script::default(),
            apply: Script::default(),
            verify: Script::default(),
            undo: Script::default(),
            idle: Script::default(),
            payload: Vec::new(),
            timeout_s: step.timeout_s,
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
        Change::MigMode { gpu, before, after } => Change::MigMode {
            gpu,
            before: after,
            after: before,
        },
        Change::MigLayout {
            gpu,
            grid,
            before,
            after,
        } => Change::MigLayout {
            gpu,
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
pub async fn undo(
    session: &mut dyn Session,
    record: &RunRecord,
    who: &str,
    moved: Moved,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> HostResult {
    let manifest = &record.manifest;
    let Some(run) = record.id() else {
        let chain = vec!["the run's id on the host is none of ours".to_owned()];
        return HostResult::bad(Outcome::Failed, chain, None);
    };
    let verb = match moved {
        Moved::Refuse => "undo",
        Moved::UndoAnyway => "undo-anyway",
    };
    let exec = Exec {
        command: Command::new("sh")
            .arg("-c")
            .arg(follow_script())
            .arg("deploy")
            .path(run.directory())
            .arg(verb)
            .arg(one_line(who)),
        stdin: Vec::new(),
        timeout: patience(manifest.steps.iter().map(|step| step.timeout_s)),
        limit: JOURNAL_LIMIT,
    };
    let ended = follow(session, &exec, manifest, host, events).await;
    result(&ended, manifest)
}

fn result(ended: &Ended, manifest: &Manifest) -> HostResult {
    let run = &manifest.run;
    if let Err(result) = heard_to_the_end(ended, run) {
        return result;
    }
    let follower = &ended.follower;
    match (follower.code(), follower.status()) {
        (0, "rolled-back") => HostResult::well(Outcome::Changed),
        (75, _) => HostResult::bad(
            Outcome::Failed,
            vec![
                "another run holds the host's lock".to_owned(),
                follower.said(),
            ],
            Some("nothing was changed; try again when it has ended".to_owned()),
        ),
        (77, _) => HostResult::bad(
            Outcome::Failed,
            vec![
                "what the undo would take away is in use".to_owned(),
                follower.said(),
            ],
            Some("nothing was changed; stop what uses it, then roll back again".to_owned()),
        ),
        (76, "done") => HostResult::bad(
            Outcome::Failed,
            vec![
                format!("the host is no longer as run {run} left it"),
                follower.said(),
            ],
            Some("nothing was changed; `--anyway` undoes the run all the same".to_owned()),
        ),
        (76, _) => HostResult::bad(Outcome::Failed, vec![follower.said()], None),
        (_, "undo-failed") => failure(
            follower,
            manifest,
            Outcome::Stuck,
            format!(
                "`deploy runs show {run}` explains the run from its journal; what was before is kept in {}/runs/{run}/snapshot",
                super::STATE_DIR
            ),
        ),
        (_, "undoing" | "running") => interrupted(run),
        (_, status) => HostResult::bad(
            Outcome::Failed,
            vec![
                format!("run {run} was not undone, its status is `{status}`"),
                follower.said(),
            ],
            None,
        ),
    }
}

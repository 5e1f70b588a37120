//! `deploy rollback`: finds the run to undo on one host and what that changes.
//!
//! The verb shows the plan like any other, asks, and then calls
//! `apply::rollback::undo` with the record.

use crate::apply::RunId;
use crate::apply::rollback::{self, Moved};
use crate::apply::runs::{self, RunRecord, Status};
use crate::error::Diagnostic;
use crate::event::HostProblem;
use crate::plan::HostPlan;
use crate::transport::Probe;

/// What is to be undone on a host.
#[derive(Debug, Clone)]
pub struct Undo {
    /// The run, for `apply::rollback::undo`.
    pub record: RunRecord,
    /// What undoing it changes, for the diff.
    pub plan: HostPlan,
}

/// Reads the host's runs and picks the wanted one, or else the last that was
/// applied; nothing if the host keeps no such run. One round trip; changes nothing.
///
/// # Errors
/// The host's runs cannot be read, there is no such run, or nothing of it to undo.
pub async fn find(
    probe: &mut dyn Probe,
    wanted: Option<&RunId>,
    moved: Moved,
) -> Result<Option<Undo>, HostProblem> {
    let failed = |message: String, hint: Option<String>| HostProblem::Failed {
        step: None,
        chain: vec![message],
        hint,
    };
    let found = runs::read(probe, wanted)
        .await
        .map_err(|error| failed(error.to_string(), None))?;
    // A host that took no part in a run has nothing to undo, and that is fine.
    let undone = |run: &RunRecord| run.status == Status::RolledBack;
    if found.runs.is_empty() || (wanted.is_none() && found.runs.iter().all(undone)) {
        return Ok(None);
    }
    let record =
        rollback::pick(&found, wanted).map_err(|refusal| failed(refusal.message, refusal.hint))?;
    let mut plan = rollback::reverse(&record.manifest);
    plan.notes.insert(
        0,
        format!("undoes run {} ({})", record.manifest.run, record.status),
    );
    if moved == Moved::UndoAnyway {
        plan.notes.push(
            "what was changed since that run is lost where it had changed the same".to_owned(),
        );
    }
    Ok(Some(Undo {
        record: record.clone(),
        plan,
    }))
}

/// What to say if no host has anything to undo: a run that was asked for by name
/// and is nowhere is an error.
#[must_use]
pub fn nothing(wanted: Option<&RunId>) -> Diagnostic {
    match wanted {
        Some(id) => Diagnostic::error(format!("no host keeps a run `{id}`"))
            .hint("`deploy runs` lists those that are kept"),
        None => Diagnostic::warning("there is nothing to undo: no run is applied")
            .hint("`deploy runs` lists what there was"),
    }
}

/// A run id as the user wrote it.
///
/// # Errors
/// It cannot be one.
pub fn run_id(text: &str) -> Result<RunId, Diagnostic> {
    RunId::parse(text).ok_or_else(|| {
        Diagnostic::error(format!("`{text}` is no run id"))
            .hint("`deploy runs` lists them: 20261122T210000Z-3f9a1c")
    })
}

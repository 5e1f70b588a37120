//! `--resume RUN`: what a run that was begun earlier means for each of its hosts.
//!
//! Where it is done nothing is left to do; where it is in progress it is followed, and
//! where it waits for its confirmation it is confirmed; all other hosts are planned
//! and applied anew.

use std::sync::Arc;

use crate::apply::RunId;
use crate::apply::manifest::{Manifest, ManifestStep};
use crate::apply::runs::{self, RunRecord, Status};
use crate::cli::hosts::Hosts;
use crate::cli::{fleet_verbs, reach};
use crate::error::Diagnostic;
use crate::event::HostProblem;
use crate::fleet;
use crate::plan::HostPlan;
use crate::transport::Probe;
use crate::value::HostName;

/// What the run means for a host.
#[derive(Debug)]
pub enum Standing {
    /// It is applied there.
    Done,
    /// It goes on, or waits for its confirmation.
    Open(Box<RunRecord>),
    /// It is not there, or came to nothing there.
    Anew,
}

/// How the run stands on a host.
///
/// # Errors
/// The host's runs cannot be read.
pub async fn standing(probe: &mut dyn Probe, run: &RunId) -> Result<Standing, HostProblem> {
    let found = runs::read(probe, Some(run))
        .await
        .map_err(|error| reach::failed(error.to_string()))?;
    Ok(match found.runs.into_iter().next() {
        Some(record) => of(record),
        None => Standing::Anew,
    })
}

fn of(record: RunRecord) -> Standing {
    match record.status {
        Status::Done => Standing::Done,
        Status::InProgress | Status::Rebooting | Status::Unconfirmed { .. } => {
            Standing::Open(Box::new(record))
        }
        // An interrupted one is undone by its guard, and keeps the host until then.
        _ => Standing::Anew,
    }
}

/// Makes sure that the run is on one of the hosts: an id that was mistyped would apply
/// everything anew.
///
/// # Errors
/// No host that could be read keeps it.
pub async fn known(
    hosts: &Arc<Hosts>,
    all: &[HostName],
    forks: usize,
    run: &RunId,
) -> Result<(), Diagnostic> {
    let (mut known, mut silent) = (false, 0);
    fleet::each(
        all.to_vec(),
        forks,
        |host| {
            let (hosts, run) = (Arc::clone(hosts), run.clone());
            async move {
                let mut session = reach::connect(&hosts, &host).await.ok()?;
                let found = runs::read(session.as_mut(), Some(&run)).await;
                session.close().await;
                Some(!found.ok()?.runs.is_empty())
            }
        },
        |_, keeps| match keeps.flatten() {
            Some(keeps) => known |= keeps,
            // Where the run is elsewhere, it is told when this host is planned.
            None => silent += 1,
        },
    )
    .await;
    match (known, silent) {
        (true, _) => Ok(()),
        (false, 0) => Err(fleet_verbs::no_such_run(run)),
        (false, silent) => Err(Diagnostic::error(format!(
            "no host that could be asked keeps a run `{run}`, and {silent} could not be asked"
        ))
        .hint("`deploy runs` lists those that are kept, and says which hosts do not answer")),
    }
}

/// What going on with the run means, to be shown and agreed to: its own steps.
#[must_use]
pub fn plan(record: &RunRecord) -> HostPlan {
    let Manifest {
        run,
        steps,
        guard,
        overridden,
        ..
    } = &record.manifest;
    let what = match record.status {
        Status::Unconfirmed { .. } => "confirms",
        _ => "follows",
    };
    HostPlan {
        steps: steps.iter().map(ManifestStep::shown).collect(),
        notes: vec![format!("{what} run {run} ({})", record.status)],
        overridden: overridden.clone(),
        guard: *guard,
        ..HostPlan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::runs::record;

    #[test]
    fn only_what_is_open_is_gone_on_with_and_what_came_to_nothing_is_made_anew() {
        let standing = |status| of(record(status, ""));
        assert!(matches!(standing(Status::Done), Standing::Done));
        for open in [
            Status::InProgress,
            Status::Rebooting,
            Status::Unconfirmed { undo_at: None },
        ] {
            assert!(matches!(standing(open), Standing::Open(_)));
        }
        for closed in [
            Status::Undone,
            Status::RolledBack,
            Status::NotBegun,
            Status::Stale,
            Status::Failed,
            Status::Interrupted,
            Status::UndoFailed,
        ] {
            assert!(matches!(standing(closed), Standing::Anew));
        }
    }

    #[test]
    fn what_is_gone_on_with_is_shown_as_it_was_planned() {
        let plan = plan(&record(Status::Unconfirmed { undo_at: None }, ""));
        assert_eq!(plan.steps[1].title, "write /etc/b");
        assert_eq!(
            plan.notes,
            ["confirms run 20261122T210000Z-000001 (unconfirmed)"]
        );
    }
}

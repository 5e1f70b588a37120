//! A host on which a run is still open, before it is planned: one that nobody is at any
//! more is undone first, if the user has agreed to changes; another one keeps us out.

use crate::apply::RunId;
use crate::apply::runs::{self, RunRecord, Status};
use crate::apply::standing::{self, Settled};
use crate::catalog::Catalog;
use crate::cli::flow::{Consent, Events};
use crate::cli::hosts::Hosts;
use crate::cli::reach::{self, Again, Reached};
use crate::event::{Event, HostProblem, Outcome};
use crate::transport::{Read, Reply};
use crate::value::HostName;

/// Gives back the host as it can be planned. In check mode nothing is undone: what is
/// found is planned, and that it may not last is said. Where the user is still to be
/// asked nothing is undone either, and a host in between is not planned.
///
/// # Errors
/// How the host ended, and why: another run has it, or could not be undone.
pub(super) async fn settle(
    hosts: &Hosts,
    host: &HostName,
    catalog: &Catalog,
    mut reached: Reached,
    consent: Consent,
    events: &Events,
) -> Result<Reached, (Outcome, HostProblem)> {
    let open = reached
        .answers
        .iter()
        .find_map(|(read, reply)| standing::open_run(read, reply));
    let Some(run) = open else {
        return Ok(reached);
    };
    let note = |text: String| {
        let _ = events.send(Event::Note {
            host: Some(host.clone()),
            text,
        });
    };
    if consent == Consent::Never {
        note(still_open(&run));
        return Ok(reached);
    }
    let failed = |problem| (Outcome::Failed, problem);
    let found = runs::read(reached.session.as_mut(), Some(&run))
        .await
        .map_err(|error| failed(reach::failed(error.to_string())))?;
    if consent == Consent::Asked {
        reached.session.close().await;
        return match found.runs.into_iter().find(|run| run.status.is_open()) {
            Some(record) => Err((Outcome::Locked, open_here(&record))),
            // It has just ended.
            None => reach::reach(hosts, host, catalog)
                .await
                .map_err(|problem| (Outcome::Unreachable, problem)),
        };
    }
    let again = Again::new(hosts, host);
    let who = reach::who_from();
    let session = reached.session.as_mut();
    match standing::settle(session, &again, &found, &run, &who, host, events).await {
        Settled::Clear => Ok(reached),
        Settled::Undone(run) => {
            note(format!(
                "run {run} was interrupted and nobody was left to undo it: it is undone now"
            ));
            reached.session.close().await;
            // What was read of the host is no longer true.
            reach::reach(hosts, host, catalog)
                .await
                .map_err(|problem| (Outcome::Unreachable, problem))
        }
        Settled::Open(result) => {
            reached.session.close().await;
            let problem = result
                .problem
                .unwrap_or_else(|| reach::failed(format!("run {run} is open on this host")));
            Err((result.outcome, problem))
        }
    }
}

/// Says of a host that is only looked at that what is found may not last, if a run is open there.
pub(super) fn tell_open(host: &HostName, answers: &[(Read, Reply)], events: &Events) {
    let mut open = answers.iter();
    if let Some(run) = open.find_map(|(read, reply)| standing::open_run(read, reply)) {
        let _ = events.send(Event::Note {
            host: Some(host.clone()),
            text: still_open(&run),
        });
    }
}

fn still_open(run: &RunId) -> String {
    format!(
        "note: run {run} is still open on this host; `deploy runs show {run}` tells how it stands"
    )
}

/// Whose run is open on a host, and what to do about it.
fn open_here(record: &RunRecord) -> HostProblem {
    let run = &record.manifest.run;
    let hint = match record.status {
        Status::Interrupted => format!("`deploy runs undo {run}` undoes what it had begun"),
        Status::Unconfirmed { .. } => {
            format!("`deploy runs confirm {run}` keeps it, `deploy runs undo {run}` undoes it now")
        }
        _ => {
            format!("try again when it has ended; `deploy runs unlock {run}` undoes one that hangs")
        }
    };
    HostProblem::Failed {
        step: None,
        chain: vec![
            "another run has this host".to_owned(),
            format!("{}: {}", record.manifest.owner(), record.status),
        ],
        hint: Some(hint),
    }
}

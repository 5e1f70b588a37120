//! What the end of a run on a host means, in words: the outcome, why, and what to do.

use super::HostResult;
use super::journal::What;
use super::status::HostStatus;
use super::talk::{Heard, IN_USE, LOCKED, REFUSED, Talk};
use super::{RunId, STATE_DIR};
use crate::event::Outcome;
use crate::plan::Confirm;
use crate::text::{moment, span};

/// How an apply ended.
pub(super) fn of_apply(talk: &Talk<'_>, heard: &Heard) -> HostResult {
    let run = &talk.run;
    let show = format!("`deploy runs show {run}` explains the run from its journal");
    let (code, status, said) = match heard {
        Heard::Lost { received, error } => return lost(talk, *received, error),
        Heard::Refused { said } => return bad(Outcome::Stuck, said.clone(), Some(show)),
        Heard::End { code, status, said } => (*code, status, said),
    };
    let nothing = "nothing was changed".to_owned();
    match status {
        HostStatus::Done => HostResult::well(Outcome::Changed),
        HostStatus::Undone | HostStatus::RolledBack => failure(talk, Outcome::RolledBack, show),
        HostStatus::Stale => failure(
            talk,
            Outcome::Stale,
            "nothing was changed; plan again".to_owned(),
        ),
        HostStatus::Failed => failure(talk, Outcome::Failed, nothing),
        HostStatus::UndoFailed => failure(talk, Outcome::Stuck, mend(talk)),
        HostStatus::Uploaded => not_begun(code, said),
        // Its journal was heard before: it is no upload that did not arrive.
        HostStatus::Absent if talk.lines > 0 => bad(
            Outcome::Stuck,
            format!(
                "run {run} was begun on this host, and now there is no such run: another machine answers, or somebody has removed it"
            ),
            Some(format!(
                "look whether this is the same machine; the run is kept in {STATE_DIR}/runs/{run}"
            )),
        ),
        HostStatus::Absent => bad(
            Outcome::Failed,
            "the connection was lost before all of the run had arrived".to_owned(),
            Some(nothing),
        ),
        HostStatus::Unconfirmed => unconfirmed(talk, said),
        HostStatus::Running | HostStatus::Undoing | HostStatus::Rebooting => {
            interrupted(talk, status, said)
        }
        HostStatus::Preparing => bad(
            Outcome::Failed,
            "the runner was ended from outside before it changed anything".to_owned(),
            None,
        ),
        other => HostResult::bad(
            Outcome::Stuck,
            vec![
                format!("the run's status on the host is `{other}`"),
                said.clone(),
            ],
            Some(show),
        ),
    }
}

/// How an undo on request ended.
pub(super) fn of_undo(talk: &Talk<'_>, heard: &Heard) -> HostResult {
    let run = &talk.run;
    let (code, status, said) = match heard {
        Heard::Lost { received, error } => return lost(talk, *received, error),
        Heard::Refused { said } => return bad(Outcome::Failed, said.clone(), None),
        Heard::End { code, status, said } => (*code, status, said),
    };
    let refused = |why: String, hint: &str| {
        HostResult::bad(
            Outcome::Failed,
            vec![why, said.clone()],
            Some(hint.to_owned()),
        )
    };
    match (code, status) {
        (_, HostStatus::RolledBack | HostStatus::Undone) => HostResult::well(Outcome::Changed),
        (LOCKED, _) => locked(said),
        (IN_USE, _) => refused(
            "what the undo would take away is in use".to_owned(),
            "nothing was changed; stop what uses it, then roll back again",
        ),
        (REFUSED, HostStatus::Done) => refused(
            format!("the host is no longer as run {run} left it"),
            "nothing was changed; `--anyway` undoes the run all the same",
        ),
        (REFUSED, _) => HostResult::bad(Outcome::Failed, vec![said.clone()], None),
        (_, HostStatus::UndoFailed) => failure(talk, Outcome::Stuck, mend(talk)),
        (_, HostStatus::Undoing | HostStatus::Running | HostStatus::Rebooting) => {
            interrupted(talk, status, said)
        }
        (_, HostStatus::Unconfirmed) => unconfirmed(talk, said),
        (_, status) => HostResult::bad(
            Outcome::Failed,
            vec![
                format!("run {run} was not undone, its status is `{status}`"),
                said.clone(),
            ],
            None,
        ),
    }
}

fn bad(outcome: Outcome, why: String, hint: Option<String>) -> HostResult {
    HostResult::bad(outcome, vec![why], hint)
}

/// The host could not be reached again.
fn lost(talk: &Talk<'_>, received: bool, error: &str) -> HostResult {
    let run = &talk.run;
    let error = error.to_owned();
    let show = format!("`deploy runs show {run}` tells how it ended, once the host is back");
    if !received && talk.lines == 0 {
        return HostResult::bad(
            Outcome::Stuck,
            vec![
                format!(
                    "run {run} was being sent: the host has begun it only if all of it arrived"
                ),
                error,
            ],
            Some(show),
        );
    }
    let confirm = talk.manifest.guard.map(|guard| guard.confirm);
    if confirm == Some(Confirm::NewConnection) {
        let mut result = unconfirmed(talk, "");
        if let Some(crate::event::HostProblem::Failed { chain, .. }) = &mut result.problem {
            chain.push(error);
        }
        return result;
    }
    HostResult::bad(
        Outcome::Stuck,
        vec![
            format!("run {run} goes on without us: the host finishes it, or undoes it by itself"),
            error,
        ],
        Some(show),
    )
}

fn unconfirmed(talk: &Talk<'_>, said: &str) -> HostResult {
    let run = &talk.run;
    let mut chain = vec![match (talk.undo_at, talk.manifest.guard) {
        (Some(time), _) if time < jiff::Timestamp::now() => format!(
            "run {run} was not confirmed: the host was to undo it at {}, and has not answered since",
            moment(time)
        ),
        (Some(time), _) => format!(
            "run {run} is not confirmed: the host undoes it at {}",
            moment(time)
        ),
        (None, Some(guard)) => format!(
            "run {run} is not confirmed: the host undoes it {} after its last step",
            span(guard.window_s.into())
        ),
        (None, None) => format!("run {run} is not confirmed: the host undoes it by itself"),
    }];
    if !said.is_empty() {
        chain.push(said.to_owned());
    }
    if talk
        .undo_at
        .is_some_and(|time| time < jiff::Timestamp::now())
    {
        let hint = format!("`deploy runs show {run}` tells how it stands, once the host answers");
        return HostResult::bad(Outcome::Unconfirmed, chain, Some(hint));
    }
    HostResult::bad(
        Outcome::Unconfirmed,
        chain,
        Some(format!(
            "`deploy runs confirm {run}` keeps it, `deploy runs undo {run}` undoes it now, `deploy runs extend {run} --by 10m` gives more time"
        )),
    )
}

/// Nobody is at it, or whoever is has not ended in time.
fn interrupted(talk: &Talk<'_>, status: &HostStatus, said: &str) -> HostResult {
    let run = &talk.run;
    let mut chain = vec![format!(
        "run {run} has not come to an end, its status on the host is `{status}`; the host may be between before and after"
    )];
    if !said.is_empty() {
        chain.push(said.to_owned());
    }
    HostResult::bad(
        Outcome::Stuck,
        chain,
        Some(format!(
            "its guard undoes it if it can; `deploy runs show {run}` tells, `deploy runs undo {run}` undoes what it had begun"
        )),
    )
}

/// The lock was taken, or the runner did not start.
fn not_begun(code: u8, said: &str) -> HostResult {
    match code {
        LOCKED => locked(said),
        REFUSED => bad(Outcome::Failed, said.to_owned(), None),
        _ => HostResult::bad(
            Outcome::Failed,
            vec!["the runner did not start".to_owned(), said.to_owned()],
            Some("nothing was changed".to_owned()),
        ),
    }
}

pub(super) fn locked(said: &str) -> HostResult {
    HostResult::bad(
        Outcome::Locked,
        vec!["another run has this host".to_owned(), said.to_owned()],
        Some(match owning_run(said) {
            Some(run) => format!(
                "try again when it has ended; `deploy runs show {run}` tells how it stands, `deploy runs unlock {run}` ends and undoes one that hangs"
            ),
            None => "try again when it has ended; `deploy runs` tells how it stands".to_owned(),
        }),
    )
}

/// The run that an owner's text names: `run ID by …`, `guard of run ID: …`.
fn owning_run(said: &str) -> Option<RunId> {
    let mut words = said.split_whitespace();
    words.find(|word| *word == "run")?;
    RunId::parse(words.next()?.trim_end_matches(':'))
}

/// Which commands on the host would do what the undo could not, and where all is kept.
fn mend(talk: &Talk<'_>) -> String {
    let run = &talk.run;
    let directory = format!("{STATE_DIR}/runs/{run}");
    let mut steps: Vec<&str> = talk
        .failures
        .iter()
        .filter(|entry| entry.what == What::UndoFailed)
        .map(|entry| entry.step.as_str())
        .collect();
    steps.dedup();
    let mut commands: Vec<String> = Vec::new();
    for step in steps {
        let command = format!("sh {directory}/steps/{step}/undo");
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let commands = match commands.is_empty() {
        true => String::new(),
        false => format!(
            "; step by step as root on the host: {}",
            commands.join("; ")
        ),
    };
    format!(
        "mend what is named above, then `deploy runs undo {run}` tries all of it again{commands}; what was before is kept in {directory}/snapshot"
    )
}

/// The first failure of the journal, and after it every undo that failed.
fn failure(talk: &Talk<'_>, outcome: Outcome, hint: String) -> HostResult {
    let mut chain = Vec::new();
    let mut step = None;
    for entry in &talk.failures {
        chain.push(talk.manifest.sentence(entry));
        if step.is_none() {
            step = talk.manifest.step_id(&entry.step);
        }
    }
    if chain.is_empty() {
        chain.push("it failed without a word".to_owned());
    }
    HostResult::bad_step(outcome, step, chain, Some(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_to_unlock_names_the_run_that_has_the_host() {
        for (said, run) in [
            (
                "run r-1 by ada from desk since 2026-11-22 21:00:00 UTC",
                "r-1",
            ),
            ("guard of run r-2: it was not confirmed in time", "r-2"),
            ("confirmation of run r-3: bob from desk", "r-3"),
        ] {
            let Some(crate::event::HostProblem::Failed { hint, .. }) = locked(said).problem else {
                panic!("there is a problem");
            };
            let hint = hint.expect("a hint");
            assert!(
                hint.contains(&format!("`deploy runs unlock {run}`")),
                "{hint}"
            );
        }
        assert_eq!(owning_run("somebody"), None);
        assert_eq!(owning_run("run"), None);
    }
}

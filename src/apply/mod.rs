//! Carries plans out on hosts: one transaction a host, with undo.
//!
//! The controller writes a run directory (`upload`) and starts the runner in it;
//! from then on the host acts by itself (`host/runner.sh`) and the controller
//! only follows the journal (`journal`). `manifest` is what a run says of itself,
//! `runs` reads what hosts keep, `rollback` undoes. This room computes no desired
//! state and knows nothing of GPUs: it is given steps.

pub mod journal;
pub mod manifest;
pub mod rollback;
pub mod runs;
mod upload;

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Event, HostProblem, Outcome, StepOutcome};
use crate::plan::HostPlan;
use crate::step::{Change, StepId};
use crate::transport::{Exec, Session, TransportError};
use crate::value::HostName;
use journal::{Entry, Follower, What};
use manifest::Manifest;

/// Where a host keeps its runs, its lock and what was last applied.
pub const STATE_DIR: &str = "/var/lib/deploy";

/// The name of one apply on all its hosts: letters, digits and dashes, and in
/// the order of the time at which they were made, `20261122T210500Z-3f9a1c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// The id of a run that starts at `now`; `chance` keeps two of one second apart.
    #[must_use]
    pub fn new(now: jiff::Timestamp, chance: u32) -> Self {
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{time}-{:06x}", chance & 0xff_ffff))
    }

    /// Takes an id that a user or a host wrote. It becomes part of a path, so
    /// nothing but letters, digits and inner dashes is one; at most 64 of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let fits = (1..=64).contains(&text.len()) && !text.starts_with('-');
        (fits && text.chars().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The id as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The run directory, without the host's root prefix.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("{STATE_DIR}/runs/{}", self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run is called and what goes with it, given by the caller so that the
/// same plan makes the same run directory.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The host, for events and the manifest.
    pub host: HostName,
    /// The run; the same on all hosts.
    pub run: RunId,
    /// Who runs it, such as `ada`.
    pub who: String,
    /// From where, such as a host's name.
    pub from: String,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// Functions that the steps' scripts call besides the ones of `host/lib.sh`.
    pub host_library: String,
    /// What `Read::Remembered` is to be answered from after this run.
    pub remembered: Vec<u8>,
}

/// How a host's apply or rollback ended.
#[derive(Debug, Clone)]
pub struct HostResult {
    /// In a word.
    pub outcome: Outcome,
    /// Why, if it did not go well.
    pub problem: Option<HostProblem>,
}

impl HostResult {
    fn well(outcome: Outcome) -> Self {
        Self {
            outcome,
            problem: None,
        }
    }

    fn bad(outcome: Outcome, chain: Vec<String>, hint: Option<String>) -> Self {
        Self::bad_step(outcome, None, chain, hint)
    }

    fn bad_step(
        outcome: Outcome,
        step: Option<StepId>,
        chain: Vec<String>,
        hint: Option<String>,
    ) -> Self {
        Self {
            outcome,
            problem: Some(HostProblem::Failed { step, chain, hint }),
        }
    }
}

/// Whether a plan changes anything: checks alone do not.
#[must_use]
pub fn changes_something(plan: &HostPlan) -> bool {
    plan.steps
        .iter()
        .any(|step| !matches!(step.change, Change::Check { .. }))
}

/// Carries the plan out and tells each step. A plan that changes nothing does
/// not touch the host at all. Costs one round trip besides the bytes.
pub async fn run(
    session: &mut dyn Session,
    plan: &HostPlan,
    context: &RunContext,
    events: &UnboundedSender<Event>,
) -> HostResult {
    if !changes_something(plan) {
        return HostResult::well(Outcome::Ok);
    }
    let manifest = Manifest::of(plan, context);
    let exec = upload::exec(plan, &manifest, context);
    let ended = follow(session, &exec, &manifest, &context.host, events).await;
    apply_result(&ended, &manifest)
}

/// What was heard of a run until it ended or the connection did.
struct Ended {
    follower: Follower,
    /// Absent if the connection was lost first.
    output: Result<crate::transport::Output, TransportError>,
}

async fn follow(
    session: &mut dyn Session,
    exec: &Exec,
    manifest: &Manifest,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> Ended {
    let mut follower = Follower::default();
    let output = session
        .exec(exec, &mut |bytes| {
            for entry in follower.push(bytes) {
                if let Some(event) = event_of(&entry, manifest, host) {
                    // Nobody listens any more only when the program is about to end.
                    let _ = events.send(event);
                }
            }
        })
        .await;
    Ended { follower, output }
}

fn event_of(entry: &Entry, manifest: &Manifest, host: &HostName) -> Option<Event> {
    let step = manifest.step_id(&entry.step)?;
    let host = host.clone();
    let outcome = match entry.what {
        What::Apply | What::Undo => return Some(Event::StepStart { host, step }),
        What::Done => StepOutcome::Changed,
        What::CheckFailed | What::SnapshotFailed | What::ApplyFailed | What::VerifyFailed => {
            StepOutcome::Failed
        }
        What::Undone => StepOutcome::Undone,
        What::UndoFailed => StepOutcome::UndoFailed,
        What::Start | What::RecordFailed | What::End | What::Other => return None,
    };
    Some(Event::StepEnd {
        host,
        step,
        outcome,
        message: entry.detail.clone(),
    })
}

/// How long the host may take for the whole plan: each step's limit for apply,
/// and for check, snapshot, verify, undo and its check again the patience that
/// `runner.sh` has with them (a minute or the step's limit, whichever is more),
/// each with the 15 s that it takes to end what hangs.
fn patience(limits: impl Iterator<Item = u32>) -> Duration {
    let seconds = limits
        .map(|limit| u64::from(limit) + 5 * u64::from(limit.max(60)) + 6 * 15)
        .sum::<u64>();
    Duration::from_secs(seconds + 120)
}

fn apply_result(ended: &Ended, manifest: &Manifest) -> HostResult {
    let run = &manifest.run;
    let show = format!("`deploy runs show {run}` explains the run from its journal");
    if let Err(result) = heard_to_the_end(ended, run) {
        return result;
    }
    let follower = &ended.follower;
    match follower.status() {
        "done" => HostResult::well(Outcome::Changed),
        "undone" => failure(follower, manifest, Outcome::RolledBack, show),
        "stale" => failure(
            follower,
            manifest,
            Outcome::Failed,
            "nothing was changed; plan again".to_owned(),
        ),
        "failed" => failure(
            follower,
            manifest,
            Outcome::Failed,
            "nothing was changed".to_owned(),
        ),
        "undo-failed" => failure(follower, manifest, Outcome::Stuck, show),
        "uploaded" => not_begun(follower),
        "running" | "undoing" => interrupted(run),
        "preparing" => HostResult::bad(
            Outcome::Failed,
            vec!["the runner was ended from outside before it changed anything".to_owned()],
            None,
        ),
        other => HostResult::bad(
            Outcome::Stuck,
            vec![
                format!("the run's status on the host is `{other}`"),
                follower.said(),
            ],
            Some(show),
        ),
    }
}

/// Fails where the end was not heard: the connection or the receiver broke off.
fn heard_to_the_end(ended: &Ended, run: &str) -> Result<(), HostResult> {
    let received = ended.follower.received();
    match &ended.output {
        _ if ended.follower.ended() => Ok(()),
        Err(error) => Err(HostResult::bad(
            Outcome::Stuck,
            vec![
                if received {
                    format!(
                        "run {run} goes on without us: the host finishes it, or undoes it by itself"
                    )
                } else {
                    format!(
                        "run {run} was being sent: the host has begun it only if all of it arrived"
                    )
                },
                error.to_string(),
            ],
            Some(format!("`deploy runs show {run}` tells how it ended")),
        )),
        Ok(output) if received => Err(HostResult::bad(
            Outcome::Stuck,
            vec![
                format!("the end of run {run} was not heard"),
                journal::bounded(&output.stderr),
            ],
            Some(format!("`deploy runs show {run}` tells how it ended")),
        )),
        Ok(output) => Err(HostResult::bad(
            Outcome::Failed,
            vec![
                "the run could not be put on the host".to_owned(),
                journal::bounded(&output.stderr),
            ],
            Some("nothing was changed".to_owned()),
        )),
    }
}

fn interrupted(run: &str) -> HostResult {
    HostResult::bad(
        Outcome::Stuck,
        vec![format!(
            "the runner of run {run} was ended from outside; the host may be between before and after"
        )],
        Some(format!(
            "`deploy rollback --run {run}` undoes what it had begun"
        )),
    )
}

/// The lock was taken, or an earlier run stands in the way.
fn not_begun(follower: &Follower) -> HostResult {
    let said = follower.said();
    match follower.code() {
        75 => HostResult::bad(
            Outcome::Failed,
            vec!["another run holds the host's lock".to_owned(), said],
            Some("nothing was changed; try again when it has ended".to_owned()),
        ),
        76 => HostResult::bad(
            Outcome::Failed,
            vec![said],
            Some(
                "nothing was changed; `deploy rollback --run ID` undoes the earlier run".to_owned(),
            ),
        ),
        _ => HostResult::bad(
            Outcome::Failed,
            vec!["the runner did not start".to_owned(), said],
            Some("nothing was changed".to_owned()),
        ),
    }
}

/// The first failure of the journal, and after it every undo that failed.
fn failure(follower: &Follower, manifest: &Manifest, outcome: Outcome, hint: String) -> HostResult {
    let mut chain = Vec::new();
    let mut step = None;
    for entry in follower.failures() {
        let id = manifest.step_id(&entry.step);
        chain.push(manifest.sentence(entry));
        if step.is_none() {
            step = id;
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
    fn run_ids_sort_by_time_and_are_safe_in_a_path() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a time");
        let early = RunId::new(at("2026-11-22T09:59:59Z"), 0xffff_ffff);
        let late = RunId::new(at("2026-11-22T10:00:00Z"), 1);
        assert_eq!(late.as_str(), "20261122T100000Z-000001");
        assert!(early < late);
        assert_eq!(RunId::parse(late.as_str()), Some(late));
        for wrong in ["", "..", "a/b", "-x", "a b", "a\n", &"x".repeat(65)] {
            assert_eq!(RunId::parse(wrong), None, "{wrong:?}");
        }
    }
}

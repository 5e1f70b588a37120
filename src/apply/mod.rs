//! Carries plans out on hosts: one transaction a host, with undo.
//!
//! The controller writes a run directory (`upload`) and starts the runner in it;
//! from then on the host acts by itself: `host/runner.sh` works, and `host/guard.sh`
//! undoes what is neither ended nor confirmed in time. The controller only follows the
//! journal (`journal`), over as many connections as it takes (`talk`), and says what the
//! end means (`ending`). `manifest` is what a run says of itself, `runs` reads what hosts
//! keep, `standing` deals with a run that is already there, `rollback` undoes. This room
//! computes no desired state and knows nothing of GPUs: it is given steps.

mod ending;
pub mod journal;
pub mod manifest;
pub mod recorded;
pub mod rollback;
pub mod runs;
mod scripts;
pub mod standing;
pub mod status;
mod talk;
mod upload;

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::step::{Step, StepId};
use crate::transport::{Boxed, Session, Unreachable};
use crate::value::HostName;
use manifest::Manifest;
use status::HostStatus;
use talk::{Heard, Talk};

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
    /// What it is for.
    pub purpose: manifest::Purpose,
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

/// All scripts that a run leaves on a host, one behind the other: steps that were made for
/// others must not be carried out with these.
#[must_use]
pub fn scripts_of(host_library: &str) -> String {
    let scripts = scripts::kept(host_library).into_iter();
    scripts
        .map(|(path, text)| format!("{path}\n{text}"))
        .collect()
}

/// Whether a plan changes anything: checks alone do not.
#[must_use]
pub fn changes_something(plan: &HostPlan) -> bool {
    plan.steps.iter().any(Step::is_change)
}

/// Opens another connection to the same host.
pub trait Connect: Send + Sync {
    /// A session over a new TCP connection, authenticated anew.
    fn connect(&self) -> Boxed<'_, Result<Box<dyn Session + '_>, Unreachable>>;
}

/// Carries the plan out, tells each step, and confirms the run where that is needed. A
/// plan that changes nothing does not touch the host at all. Costs one round trip
/// besides the bytes, and where a step is disruptive a new connection.
pub async fn run<'s>(
    mut session: Box<dyn Session + 's>,
    connect: &'s dyn Connect,
    plan: &HostPlan,
    context: &RunContext,
    events: &UnboundedSender<Event>,
) -> HostResult {
    if !changes_something(plan) {
        session.close().await;
        return HostResult::well(Outcome::Ok);
    }
    let manifest = Manifest::of(plan, context);
    let who = upload::one_line(&format!("{} from {}", context.who, context.from));
    let run = context.run.clone();
    let mut talk = Talk::new(connect, &manifest, run, &context.host, events, &who);
    loop {
        let exec = upload::exec(plan, &manifest, context, talk.sent);
        let heard = talk.hear(session.as_mut(), &exec, 0).await;
        if let Some(result) = not_uploaded(&heard) {
            session.close().await;
            return result;
        }
        let heard = talk.until_the_end(Some(session), heard, true).await;
        // A connection that was idle while somebody thought may be gone: what has not
        // arrived is sent once more. The host checks again that it is as planned.
        // Where it was heard before, it is another machine that does not know of it.
        if heard.status() == Some(&HostStatus::Absent)
            && talk.lines == 0
            && talk.sent == 1
            && let Ok(again) = connect.connect().await
        {
            talk.sent += 1;
            session = again;
            continue;
        }
        return ending::of_apply(&talk, &heard);
    }
}

/// The receiver itself has refused the upload, on a connection that is well.
fn not_uploaded(heard: &Heard) -> Option<HostResult> {
    let Heard::Refused { said } = heard else {
        return None;
    };
    Some(HostResult::bad(
        Outcome::Failed,
        vec![
            "the run could not be put on the host".to_owned(),
            said.clone(),
        ],
        Some(format!(
            "nothing was changed; {STATE_DIR} must have room and be writable"
        )),
    ))
}

/// How long the host may take for the whole plan: each step's limit for apply,
/// and for check, snapshot, verify, undo and its check again the patience that
/// `runner.sh` has with them (a minute or the step's limit, whichever is more),
/// each with the 15 s that it takes to end what hangs; and a
/// minute each to arm the guard, to disarm it, and to disarm the guard of an old run.
fn patience(limits: impl Iterator<Item = u32>) -> Duration {
    let seconds = limits
        .map(|limit| u64::from(limit) + 5 * u64::from(limit.max(60)) + 6 * 15)
        .sum::<u64>();
    Duration::from_secs(seconds + 180)
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

//! `deploy drift --remediate`: what drifted is put back, under the rules of `gpu_drift`.
//!
//! It goes the way of every changing verb. What was mended before is read from the runs that
//! the host keeps: their manifests say which of them were remediations.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::apply::manifest::Purpose;
use crate::apply::runs::{RunRecord, Status};
use crate::apply::{self, HostResult, RunContext, RunId};
use crate::cli::args::{MendTo, PlayArgs};
use crate::cli::drift::{Inspected, Terms, Watch, tell};
use crate::cli::flow::{self, Batches, Consent, Events, Planned, Verb};
use crate::cli::interrupt::Interrupts;
use crate::cli::play::left_alone;
use crate::cli::reach::{self, Reached};
use crate::cli::record::Record;
use crate::cli::settle::settle;
use crate::drift::{self, Finding, Mending};
use crate::event::{HostProblem, Outcome};
use crate::plan::{HostPlan, facts_at_rest};
use crate::platform;
use crate::report::Reporter;
use crate::report::exit::Exit;
use crate::step::{Step, StepId};
use crate::strategy;
use crate::transport::{self, Probe, Read, Session};
use crate::value::HostName;

/// Why a host is not touched outside of its windows.
const NO_WINDOW: &str = "no window of `gpu_drift` is open now";

/// Why nothing goes back to what an earlier version recorded.
const OLDER: &str = "what was last applied was recorded by an earlier version of deploy: `--to wanted` mends towards what is wanted, and `deploy run` records it anew";

/// For how long what was mended is counted, hours. A thing that drifts once a week does not
/// come back each time.
const COUNTED_HOURS: i64 = 24;

/// Mends the selected hosts.
pub(super) async fn run(
    watch: Watch<Reached>,
    to: MendTo,
    consent: Consent,
    args: &PlayArgs,
    (record, reporter): (&Record, Reporter),
    interrupts: &Interrupts,
) -> Exit {
    let hosts = watch.job.settings.hosts.clone();
    let at_once = hosts.iter().map(|host| watch.rules(host).most_hosts).min();
    let forks = at_once.unwrap_or(1).min(args.connection.forks.into());
    let started = Timestamp::now();
    let verb = Mend {
        watch,
        to,
        consent,
        allow_reboot: args.allow_reboot,
        run: record.run_id(),
        started,
        who: reach::who(),
        from: reach::from(),
        library: strategy::host_library() + &platform::host_library(),
        failed: OnceLock::new(),
    };
    let forks = usize::try_from(forks).unwrap_or(1).max(1);
    let batches = hosts.chunks(forks).map(<[HostName]>::to_vec).collect();
    let batches = Batches {
        batches,
        ..Batches::all(hosts, forks)
    };
    let reporter = reporter.calling_changed("mended");
    let reporter = match to {
        MendTo::Applied => reporter.leaving_pending(),
        MendTo::Wanted => reporter,
    };
    flow::run(verb, batches, consent, reporter, interrupts).await
}

struct Mend {
    watch: Watch<Reached>,
    to: MendTo,
    consent: Consent,
    allow_reboot: bool,
    run: RunId,
    started: Timestamp,
    who: String,
    from: String,
    library: String,
    /// The host that failed first; no further one is begun then.
    failed: OnceLock<HostName>,
}

/// A host with something to mend, and its open connection.
struct Work {
    session: Box<dyn Session>,
    /// What the next run should read early.
    reads: Vec<Read>,
}

/// What there is to do on a host.
enum Found {
    /// This.
    Work(Arc<HostPlan>, Work),
    /// Something drifted, and is left for this reason.
    Held(String),
    /// Nothing.
    Nothing,
}

impl Verb for Mend {
    type Work = Work;

    const QUESTION: &'static str = "Mend the drift on";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Work> {
        match self.find(host, events).await {
            Ok(Found::Work(plan, work)) => Planned::Ready { plan, work },
            Ok(Found::Nothing) => Planned::AsWanted,
            // It is still not as it was applied.
            Ok(Found::Held(why)) => Planned::Ended(Outcome::Skipped, HostProblem::NotBegun(why)),
            Err((outcome, problem)) => Planned::Ended(outcome, problem),
        }
    }

    async fn carry_out(
        &self,
        host: &HostName,
        plan: &HostPlan,
        work: Work,
        events: &Events,
    ) -> HostResult {
        if let Some(why) = self.too_late(host) {
            work.session.close().await;
            return HostResult {
                outcome: Outcome::Skipped,
                problem: Some(HostProblem::NotBegun(why)),
            };
        }
        let again = reach::Again::new(&self.watch.hosts, host);
        let context = RunContext {
            host: host.clone(),
            run: self.run.clone(),
            who: self.who.clone(),
            from: self.from.clone(),
            started: self.started,
            purpose: Purpose::Remediation,
            host_library: self.library.clone(),
            remembered: transport::remember(&work.reads),
        };
        let result = apply::run(work.session, &again, plan, &context, events).await;
        // What could not be reached or is in other hands says nothing of the next host.
        if matches!(
            result.outcome,
            Outcome::Failed | Outcome::RolledBack | Outcome::Stuck | Outcome::Unconfirmed
        ) {
            self.failed.get_or_init(|| host.clone());
        }
        result
    }

    fn left(&self, _host: &HostName, plan: &HostPlan) -> HostProblem {
        left_alone(&self.run, plan.guard.as_ref())
    }
}

impl Mend {
    /// What there is to mend on a host.
    async fn find(
        &self,
        host: &HostName,
        events: &Events,
    ) -> Result<Found, (Outcome, HostProblem)> {
        let reached = self
            .watch
            .reach(host)
            .await
            .map_err(|problem| (Outcome::Unreachable, problem))?;
        let catalog = &self.watch.job.settings.catalog;
        let reached = settle(
            &self.watch.hosts,
            host,
            catalog,
            reached,
            self.consent,
            events,
        )
        .await?;
        let mut session = reached.session;
        let rest = facts_at_rest(&reached.facts);
        let looked_at = Terms {
            facts: &rest,
            allow_reboot: true,
        };
        // Who uses a card, and leave for a restart, matter to what is carried out.
        let in_earnest = Terms {
            facts: &reached.facts,
            allow_reboot: self.allow_reboot,
        };
        let probe = session.as_mut();
        let found = self
            .watch
            .inspect(host, probe, reached.answers, looked_at, events)
            .await;
        let mut found = match found {
            Ok(found) => found,
            Err(problem) => {
                session.close().await;
                return Err((Outcome::Failed, problem));
            }
        };
        if found.problem.is_some() {
            for finding in &mut found.findings {
                finding.held = Some("what is wanted here cannot be planned".to_owned());
            }
        }
        self.hold_older(&mut found);
        self.hold_lost(&mut found);
        self.hold_all(host, &mut found);
        let probe = session.as_mut();
        let ready = self.plan_of(host, probe, &mut found, in_earnest).await;
        let mut held = found.findings.iter().filter(|finding| finding.is_drifted());
        let held = held.find_map(|finding| finding.held.clone());
        if !found.findings.is_empty() {
            tell(host, found.last.as_ref(), found.findings, events);
        }
        let ready = match (ready, found.problem.take()) {
            (Ok(ready), None) => ready,
            (Err(problem), _) | (Ok(_), Some(problem)) => {
                session.close().await;
                return Err((Outcome::Failed, problem));
            }
        };
        let Some((plan, reads)) = ready else {
            session.close().await;
            return Ok(held.map_or(Found::Nothing, Found::Held));
        };
        Ok(Found::Work(Arc::new(plan), Work { session, reads }))
    }

    /// Holds everything back where all that is known of what was last applied is the record of
    /// an earlier version: a run since may have left another state, and its own record under a
    /// name that this one does not look for.
    fn hold_older(&self, found: &mut Inspected) {
        if self.to != MendTo::Applied || !found.is_older {
            return;
        }
        for finding in &mut found.findings {
            finding.held = Some(OLDER.to_owned());
        }
    }

    /// Holds back files whose content as it was last applied nobody has any more.
    fn hold_lost(&self, found: &mut Inspected) {
        let (MendTo::Applied, Some(back)) = (self.to, &found.back) else {
            return;
        };
        for finding in &mut found.findings {
            let of_step = |step: &&Step| step.id == finding.step;
            let step = back.plan.steps.iter().find(of_step);
            if step.is_some_and(Step::is_lost) {
                finding.held = Some(
                    "its content as it was last applied is not recorded: `--to wanted` writes what is wanted"
                        .to_owned(),
                );
            }
        }
    }

    /// Holds everything back where the host may not be touched now.
    fn hold_all(&self, host: &HostName, found: &mut Inspected) {
        let rules = self.watch.rules(host);
        let drifted = found.findings.iter().filter(|finding| finding.is_drifted());
        let count = drifted.count();
        let most = usize::try_from(rules.most_drift).unwrap_or(usize::MAX);
        let why = if !rules.may_mend(Timestamp::now()) {
            NO_WINDOW.to_owned()
        } else if count > most {
            format!(
                "it needs a person: {count} things drifted on this host, more than `most_drift: {most}`"
            )
        } else {
            return;
        };
        for finding in &mut found.findings {
            finding.held.get_or_insert_with(|| why.clone());
        }
    }

    /// The plan that mends what may be mended, and what the next run should read early.
    /// Where that cannot be told apart from the rest, all is held back.
    async fn plan_of(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        found: &mut Inspected,
        terms: Terms<'_>,
    ) -> Result<Option<(HostPlan, Vec<Read>)>, HostProblem> {
        let counts: fn(&Finding) -> bool = match self.to {
            MendTo::Applied => Finding::is_drifted,
            MendTo::Wanted => |finding| finding.is_drifted() || finding.is_pending(),
        };
        let free = |finding: &Finding| counts(finding) && finding.held.is_none();
        if !found.findings.iter().any(free) {
            return Ok(None);
        }
        let way = self.watch.in_earnest(host, probe, found, self.to, terms);
        let Some(way) = way.await? else {
            return Ok(None);
        };
        let at_rest = match (self.to, &found.back) {
            (MendTo::Applied, Some(back)) => &back.plan,
            (MendTo::Applied, None) => return Ok(None),
            (MendTo::Wanted, _) => match &found.wanted {
                Some(wanted) => &wanted.plan,
                None => return Ok(None),
            },
        };
        let mut plan = match drift::mending(way.plan, at_rest, &found.findings, counts) {
            Mending::Whole(plan) | Mending::Part(plan) => plan,
            Mending::Held(why) => {
                for finding in found.findings.iter_mut().filter(|finding| free(finding)) {
                    finding.held = Some(why.clone());
                }
                return Ok(None);
            }
        };
        let towards = match self.to {
            MendTo::Applied => "what was last applied",
            MendTo::Wanted => "what is wanted",
        };
        plan.notes
            .insert(0, format!("remediation: towards {towards}"));
        Ok(Some((plan, way.reads)))
    }

    /// Why a host that is planned is not begun after all.
    fn too_late(&self, host: &HostName) -> Option<String> {
        if let Some(first) = self.failed.get() {
            return Some(format!(
                "{first} failed while it was mended, and no further host is begun"
            ));
        }
        let open = self.watch.rules(host).may_mend(Timestamp::now());
        (!open).then(|| NO_WINDOW.to_owned())
    }
}

/// When mending a step was begun before, of the runs that a host keeps (newest first), whether
/// or not it came to a good end. What was applied otherwise since begins the count anew:
/// somebody has looked at the host.
pub(super) fn mended(kept: &[RunRecord], step: &StepId, now: Timestamp) -> Vec<Timestamp> {
    let since = now.as_second() - COUNTED_HOURS * 3600;
    let is_remediation = |run: &RunRecord| run.manifest.purpose == Purpose::Remediation;
    kept.iter()
        .take_while(|run| is_remediation(run) || run.status != Status::Done)
        .filter(|run| is_remediation(run) && has_begun(&run.status))
        .filter(|run| run.manifest.steps.iter().any(|made| made.id == *step))
        .map(|run| run.manifest.started)
        .filter(|at| at.as_second() >= since)
        .collect()
}

/// Whether a run got as far as its first change.
fn has_begun(status: &Status) -> bool {
    match status {
        Status::NotBegun | Status::Stale | Status::Failed | Status::Other(_) => false,
        Status::InProgress
        | Status::Interrupted
        | Status::Rebooting
        | Status::Unconfirmed { .. }
        | Status::Done
        | Status::Undone
        | Status::UndoFailed
        | Status::RolledBack => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::runs::record;

    #[test]
    fn each_begun_remediation_of_drift_counts_however_it_ended() {
        let run = |status: Status, purpose: Purpose| {
            let mut run = record(status, "");
            run.manifest.purpose = purpose;
            run
        };
        let now = record(Status::Done, "").manifest.started;
        let count = |kept: &[RunRecord]| mended(kept, &StepId("a".to_owned()), now).len();
        let begun = [
            Status::Done,
            Status::Undone,
            Status::UndoFailed,
            Status::RolledBack,
            Status::Interrupted,
        ]
        .map(|status| run(status, Purpose::Remediation));
        assert_eq!(count(&begun), 5);
        let not_begun = [Status::NotBegun, Status::Stale, Status::Failed]
            .map(|status| run(status, Purpose::Remediation));
        assert_eq!(count(&not_begun), 0);
        // What somebody applied in between begins the count anew; what was undone does not.
        let mut kept = begun.to_vec();
        kept.insert(1, run(Status::Undone, Purpose::Applying));
        assert_eq!(count(&kept), 5);
        kept.insert(1, run(Status::Done, Purpose::Applying));
        assert_eq!(count(&kept), 1);
    }
}

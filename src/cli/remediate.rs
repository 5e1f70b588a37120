//! `deploy drift --remediate`: what drifted is put back, under the rules of `gpu_drift`.
//!
//! It goes the way of every changing verb. What was mended before is read from the runs that
//! the host keeps: their notes say which of them were remediations.

use std::sync::Arc;

use jiff::Timestamp;

use crate::apply::runs::{RunRecord, Status};
use crate::apply::{self, HostResult, RunContext, RunId};
use crate::cli::args::{MendTo, PlayArgs};
use crate::cli::drift::{Inspected, Terms, Watch, tell};
use crate::cli::flow::{self, Batches, Consent, Events, Planned, Verb};
use crate::cli::interrupt::Interrupts;
use crate::cli::play::{chance, left_alone};
use crate::cli::reach;
use crate::cli::settle::settle;
use crate::drift::{self, Finding};
use crate::event::{HostProblem, Outcome};
use crate::plan::{Complete, HostPlan, facts_at_rest};
use crate::platform;
use crate::report::Reporter;
use crate::report::exit::Exit;
use crate::step::StepId;
use crate::strategy;
use crate::transport::{self, Read, Session};
use crate::value::HostName;

/// What the notes of a remediation begin with.
const REMEDIATION: &str = "remediation:";

/// For how long what was mended is counted, hours. A thing that drifts once a week does not
/// come back each time.
const COUNTED_HOURS: i64 = 24;

/// Mends the selected hosts.
pub(super) async fn run(
    watch: Watch,
    to: MendTo,
    consent: Consent,
    args: &PlayArgs,
    reporter: Reporter,
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
        run: RunId::new(started, chance()),
        started,
        who: reach::who(),
        from: reach::from(),
        library: strategy::host_library() + &platform::host_library(),
    };
    let batches = Batches::all(hosts, usize::try_from(forks).unwrap_or(1));
    flow::run(
        verb,
        batches,
        consent,
        reporter.calling_changed("mended"),
        interrupts,
    )
    .await
}

struct Mend {
    watch: Watch,
    to: MendTo,
    consent: Consent,
    allow_reboot: bool,
    run: RunId,
    started: Timestamp,
    who: String,
    from: String,
    library: String,
}

/// A host with something to mend, and its open connection.
struct Work {
    session: Box<dyn Session>,
    /// What the next run should read early.
    reads: Vec<Read>,
}

impl Verb for Mend {
    type Work = Work;

    const QUESTION: &'static str = "Mend the drift on";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Work> {
        match self.find(host, events).await {
            Ok(Some((plan, work))) => Planned::Ready {
                plan: Arc::new(plan),
                work,
            },
            Ok(None) => Planned::AsWanted,
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
        let again = reach::Again::new(&self.watch.hosts, host);
        let context = RunContext {
            host: host.clone(),
            run: self.run.clone(),
            who: self.who.clone(),
            from: self.from.clone(),
            started: self.started,
            host_library: self.library.clone(),
            remembered: transport::remember(&work.reads),
        };
        apply::run(work.session, &again, plan, &context, events).await
    }

    fn left(&self, _host: &HostName, plan: &HostPlan) -> HostProblem {
        left_alone(&self.run, plan.guard.as_ref())
    }
}

impl Mend {
    /// What there is to mend on a host; none if there is nothing that may be mended now.
    async fn find(
        &self,
        host: &HostName,
        events: &Events,
    ) -> Result<Option<(HostPlan, Work)>, (Outcome, HostProblem)> {
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
        // Who uses a card, and leave for a restart, matter to what is carried out.
        let in_earnest = Terms {
            facts: &reached.facts,
            allow_reboot: self.allow_reboot,
        };
        let looked_at = Terms {
            facts: &rest,
            allow_reboot: true,
        };
        let (to_wanted, back) = match self.to {
            MendTo::Applied => (looked_at, in_earnest),
            MendTo::Wanted => (in_earnest, looked_at),
        };
        let probe = session.as_mut();
        let found = self
            .watch
            .inspect(host, probe, reached.answers, to_wanted, back, events)
            .await;
        let mut found = match found {
            Ok(found) => found,
            Err(problem) => {
                session.close().await;
                return Err((Outcome::Failed, problem));
            }
        };
        self.hold_all(host, &mut found);
        let ready = self.plan_of(&found);
        if !found.findings.is_empty() {
            tell(host, found.last.as_ref(), found.findings, events);
        }
        let Some((plan, reads)) = ready else {
            session.close().await;
            return Ok(None);
        };
        Ok(Some((plan, Work { session, reads })))
    }

    /// Holds everything back where the host may not be touched now.
    fn hold_all(&self, host: &HostName, found: &mut Inspected) {
        let rules = self.watch.rules(host);
        let drifted = found.findings.iter().filter(|finding| finding.is_drifted());
        let count = drifted.count();
        let most = usize::try_from(rules.most_drift).unwrap_or(usize::MAX);
        let why = if !rules.may_mend(self.started) {
            "no window of `gpu_drift` is open now".to_owned()
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
    fn plan_of(&self, found: &Inspected) -> Option<(HostPlan, Vec<Read>)> {
        let (way, counts): (&Complete, fn(&Finding) -> bool) = match self.to {
            MendTo::Applied => (found.back.as_ref()?, Finding::is_drifted),
            MendTo::Wanted => (&found.wanted, |finding| {
                finding.is_drifted() || finding.is_pending()
            }),
        };
        let free = |finding: &Finding| counts(finding) && finding.held.is_none();
        if !found.findings.iter().any(free) {
            return None;
        }
        let mut plan = drift::mending(way.plan.clone(), &found.findings, counts);
        let towards = match self.to {
            MendTo::Applied => "what was last applied",
            MendTo::Wanted => "what is wanted",
        };
        plan.notes
            .insert(0, format!("{REMEDIATION} towards {towards}"));
        Some((plan, way.reads.clone()))
    }
}

/// When a step was mended before, of the runs that a host keeps (newest first). What was
/// applied otherwise since begins the count anew: somebody has looked at the host.
pub(super) fn mended(kept: &[RunRecord], step: &StepId, now: Timestamp) -> Vec<Timestamp> {
    let since = now.as_second() - COUNTED_HOURS * 3600;
    kept.iter()
        .filter(|run| run.status == Status::Done)
        .take_while(|run| is_remediation(run))
        .filter(|run| run.manifest.steps.iter().any(|made| made.id == *step))
        .map(|run| run.manifest.started)
        .filter(|at| at.as_second() >= since)
        .collect()
}

fn is_remediation(run: &RunRecord) -> bool {
    let mut notes = run.manifest.notes.iter();
    notes.any(|note| note.starts_with(REMEDIATION))
}

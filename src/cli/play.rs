//! `deploy gpu` and `deploy run`: a playbook on the selected hosts, as the one way of
//! `flow` goes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::apply::manifest::Purpose;
use crate::apply::runs::RunRecord;
use crate::apply::{self, HostResult, RunContext, RunId, standing};
use crate::cli::args::{PlanFormat, PlayArgs};
use crate::cli::fleet_verbs::{self, plan_reporter};
use crate::cli::flow::{self, Consent, Events, Planned, Verb};
use crate::cli::group_request::Shares;
use crate::cli::hosts::Hosts;
use crate::cli::interrupt::Interrupts;
use crate::cli::job::{Job, Which};
use crate::cli::plan_file::keep::Keeping;
use crate::cli::reach::{self, Reached, Way};
use crate::cli::record::Record;
use crate::cli::resume::{self, Standing};
use crate::cli::settle::settle;
use crate::cli::{Failure, rollback, slices};
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::{Applied, Confirm, Guard, HostPlan};
use crate::platform;
use crate::report::exit::Exit;
use crate::report::review::Review;
use crate::strategy;
use crate::text::span;
use crate::transport::{self, Read, Reply, Session};
use crate::value::HostName;

/// Runs a playbook.
///
/// # Errors
/// Every finding before the first connection.
pub(super) async fn run(
    which: &Which,
    args: &PlayArgs,
    interrupts: &Interrupts,
    record: &Record,
) -> Result<Exit, Failure> {
    let resume = args
        .resume
        .as_deref()
        .map(fleet_verbs::run_id)
        .transpose()?;
    let consent = Consent::of(args.check, args.yes);
    if matches!(args.output.output, PlanFormat::Markdown | PlanFormat::Html) && !args.check {
        let message = "a page shows a plan and applies none";
        let hint = "pass --check with `--output markdown` and `--output html`";
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    let reporter = plan_reporter(&args.output, consent.check_mode(), consent.plans());
    let mut reporter = record.hears(reporter);
    let job = match Job::load(which, args) {
        Ok(job) => Arc::new(job),
        Err(Failure::Problems(found)) => return Ok(reporter.refuse(&found)),
        Err(other) => return Err(other),
    };
    let prepared = match job.prepare(which, args, Problems::default()).await {
        Ok(prepared) => prepared,
        Err(found) => return Ok(reporter.refuse(&found)),
    };
    let hosts = Arc::clone(&prepared.hosts);
    let forks = args.connection.forks.into();
    if let Some(run) = &resume
        && let Err(found) = resume::known(&hosts, &job.settings.hosts, forks, run).await
    {
        return Ok(reporter.refuse(&found.into()));
    }
    let batches = job.batches(args);
    reporter = reporter.reviewing(Review::of_hosts(&job.settings.hosts));
    let soon = batches.batches.first().into_iter().flatten();
    let shares = prepared.shares(soon, &mut reporter).await;
    let started = jiff::Timestamp::now();
    let run = record.run_id();
    reporter = reporter.of_run(run.as_str());
    let keeping = match &args.out {
        None => None,
        Some(file) => match Keeping::start(file, which, args, &job, &batches, &run) {
            Ok(keeping) => Some(keeping),
            Err(found) => return Ok(reporter.refuse(&found)),
        },
    };

    let verb = Apply {
        job,
        hosts,
        run,
        resume,
        shares,
        followed: Mutex::default(),
        started,
        who: reach::who(),
        from: reach::from(),
        library: strategy::host_library() + &platform::host_library(),
        consent,
        keeping,
    };
    Ok(flow::run(verb, batches, consent, reporter, interrupts).await)
}

/// `deploy gpu` and `deploy run`, ready to be done on hosts.
struct Apply {
    job: Arc<Job>,
    hosts: Arc<Hosts>,
    run: RunId,
    /// An earlier run that is gone on with.
    resume: Option<RunId>,
    /// What hosts get of the totals of their groups.
    shares: Shares,
    /// Hosts on which that run itself was followed or confirmed, and no new one made.
    followed: Mutex<HashSet<HostName>>,
    started: jiff::Timestamp,
    who: String,
    from: String,
    library: String,
    consent: Consent,
    /// The plan that is saved.
    keeping: Option<Keeping>,
}

impl Apply {
    fn followed(&self) -> MutexGuard<'_, HashSet<HostName>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both, as a host's journal says it.
    fn who_from(&self) -> String {
        format!("{} from {}", self.who, self.from)
    }

    /// What tells which record of what was last applied a host has; nothing where none may be
    /// put there.
    fn records(&self) -> Vec<Read> {
        match self.consent {
            Consent::Given => apply::recorded::reads(&self.job.applied_key()).to_vec(),
            Consent::Never | Consent::Asked => Vec::new(),
        }
    }

    /// The answers to `records`, where they were asked already.
    fn recorded(&self, answers: &[(Read, Reply)]) -> Option<Vec<Reply>> {
        let known = self.records().into_iter().map(|record| {
            let mut answers = answers.iter();
            answers.find_map(|(read, reply)| (*read == record).then(|| reply.clone()))
        });
        known.collect()
    }

    /// Has a host on which there is nothing to change remember what it is like from now on; says
    /// why it could not.
    async fn record(
        &self,
        session: &mut dyn Session,
        host: &HostName,
        applied: Option<&Applied>,
        known: Option<Vec<Reply>>,
    ) -> Option<String> {
        let applied = applied.filter(|_| self.consent == Consent::Given)?;
        let answers = match known {
            Some(answers) => answers,
            None => match session.batch(&self.records()).await {
                Ok(answers) => answers,
                Err(error) => return Some(error.to_string()),
            },
        };
        if apply::recorded::is_there(applied, &answers) {
            return None;
        }
        let context = self.context(host, &[]);
        apply::recorded::put(session, applied, &context).await.err()
    }

    /// Who does what, for a host's records.
    fn context(&self, host: &HostName, reads: &[Read]) -> RunContext {
        RunContext {
            host: host.clone(),
            run: self.run.clone(),
            who: self.who.clone(),
            from: self.from.clone(),
            started: self.started,
            purpose: Purpose::Applying,
            host_library: self.library.clone(),
            remembered: transport::remember(reads),
        }
    }

    /// The run that is made on a host, or gone on with.
    fn run_of(&self, host: &HostName) -> &RunId {
        match &self.resume {
            Some(run) if self.followed().contains(host) => run,
            _ => &self.run,
        }
    }
}

impl Verb for Apply {
    type Work = Work;

    const QUESTION: &'static str = "Apply these changes to";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Work> {
        let planned = plan_host(self, host, events).await;
        match &self.keeping {
            Some(keeping) => keep(keeping, host, planned).await,
            None => planned,
        }
    }

    fn checked(&self) -> Result<Option<String>, Diagnostic> {
        self.keeping.as_ref().map(Keeping::finish).transpose()
    }

    async fn carry_out(
        &self,
        host: &HostName,
        plan: &HostPlan,
        work: Work,
        events: &Events,
    ) -> HostResult {
        let again = reach::Again::new(&self.hosts, host);
        let (session, reads) = match work {
            Work::Apply { session, reads } => (session, reads),
            Work::GoOn { session, record } => {
                self.followed().insert(host.clone());
                let who = self.who_from();
                return standing::resume(session, &again, &record, &who, host, events).await;
            }
        };
        let context = self.context(host, &reads);
        let mut result = apply::run(session, &again, plan, &context, events).await;
        if result.outcome == Outcome::Stale {
            // It was planned a moment ago: what came between is a failure like any other.
            result.outcome = Outcome::Failed;
        }
        result
    }

    async fn take_back(&self, host: &HostName, first: &HostName, events: &Events) -> HostResult {
        let who = self.who_from();
        rollback::take_back(&self.hosts, host, self.run_of(host), &who, first, events).await
    }

    fn left(&self, host: &HostName, plan: &HostPlan) -> HostProblem {
        left_alone(self.run_of(host), plan.guard.as_ref())
    }
}

/// Keeps what planning a host came to, for a saved plan.
async fn keep(keeping: &Keeping, host: &HostName, planned: Planned<Work>) -> Planned<Work> {
    match planned {
        Planned::Ready {
            plan,
            work: Work::Apply { mut session, reads },
        } => match keeping.planned(host, &plan, &reads, session.as_mut()).await {
            Ok(()) => Planned::Ready {
                plan,
                work: Work::Apply { session, reads },
            },
            Err(problem) => {
                session.close().await;
                keeping.ended(host, Outcome::Failed, Some(&problem));
                Planned::Ended(Outcome::Failed, problem)
            }
        },
        Planned::AsWanted => {
            keeping.ended(host, Outcome::Ok, None);
            Planned::AsWanted
        }
        Planned::Ended(outcome, problem) => {
            keeping.ended(host, outcome, Some(&problem));
            Planned::Ended(outcome, problem)
        }
        // `--resume` and `--out` exclude each other.
        other @ Planned::Ready { .. } => other,
    }
}

/// What becomes of a host that goes on with a run that nobody follows any more.
pub(super) fn left_alone(run: &RunId, guard: Option<&Guard>) -> HostProblem {
    let alone = "what has arrived there goes on without us: the host";
    let (what, hint) = match guard {
        Some(Guard {
            confirm: Confirm::NewConnection,
            window_s,
            ..
        }) => (
            format!(
                "{alone} finishes run {run} and undoes it again unless it is confirmed within {} of its last step",
                span((*window_s).into())
            ),
            format!(
                "`deploy runs confirm {run}` keeps it, `--resume {run}` goes on with the whole run"
            ),
        ),
        _ => (
            format!("{alone} finishes run {run} by itself, or undoes it"),
            format!(
                "`deploy runs show {run}` tells how it ended, `--resume {run}` goes on with the whole run"
            ),
        ),
    };
    HostProblem::Failed {
        step: None,
        chain: vec![what],
        hint: Some(hint),
    }
}

/// A planned host with its open connection.
enum Work {
    /// To be changed.
    Apply {
        session: Box<dyn Session>,
        /// What the next run should read early.
        reads: Vec<Read>,
    },
    /// An earlier run is gone on with.
    GoOn {
        session: Box<dyn Session>,
        record: Box<RunRecord>,
    },
}

async fn plan_host(apply: &Apply, host: &HostName, events: &Events) -> Planned<Work> {
    let job = &apply.job;
    let reached = match apply.shares.take(host) {
        Some(reached) => reached,
        None => Reached::open(&apply.hosts, host, &job.settings.catalog, &apply.records()).await,
    };
    let mut reached = match reached {
        Ok(reached) => reached,
        Err(problem) => return Planned::Ended(Outcome::Unreachable, problem),
    };
    if let Some(run) = &apply.resume {
        match resume::standing(reached.session.as_mut(), run).await {
            Ok(Standing::Anew) => {}
            Ok(Standing::Done) => {
                reached.session.close().await;
                return Planned::AsWanted;
            }
            Ok(Standing::Open(record)) => {
                return Planned::Ready {
                    plan: Arc::new(resume::plan(&record)),
                    work: Work::GoOn {
                        session: reached.session,
                        record,
                    },
                };
            }
            Err(problem) => {
                reached.session.close().await;
                return Planned::Ended(Outcome::Failed, problem);
            }
        }
    }
    let share = match apply.shares.of(host) {
        Ok(share) => share,
        Err(problems) => {
            reached.session.close().await;
            return Planned::Ended(Outcome::Failed, HostProblem::Refused(problems));
        }
    };
    let reached = match settle(
        &apply.hosts,
        host,
        &job.settings.catalog,
        reached,
        apply.consent,
        events,
    )
    .await
    {
        Ok(reached) => reached,
        Err((outcome, problem)) => return Planned::Ended(outcome, problem),
    };
    let _ = events.send(Event::Facts {
        host: host.clone(),
        facts: Arc::clone(&reached.facts),
    });
    let wanted = (apply.hosts.desired.get(host), share);
    slices::tell(host, &reached.facts, wanted, &job.settings.catalog, events);
    if let Some(keeping) = &apply.keeping {
        let wanted = apply.hosts.desired.get(host);
        let discovery = wanted.map(|wanted| wanted.discovery.clone());
        let discovery = discovery.unwrap_or_default();
        keeping.seen(host, discovery, &reached.facts);
    }
    let look = apply.consent != Consent::Given;
    let recorded = apply.recorded(&reached.answers);
    match job.plan(host, reached, look, share).await {
        Ok((mut session, found)) if !apply::changes_something(&found.plan) => {
            let record = found.plan.applied.as_deref();
            if let Some(why) = apply.record(session.as_mut(), host, record, recorded).await {
                let _ = events.send(Event::Note {
                    host: Some(host.clone()),
                    text: format!("note: what was last applied could not be recorded: {why}"),
                });
            }
            session.close().await;
            // With no step to show, its notes are all that a plan has to say.
            let notes = if found.plan.steps.is_empty() {
                found.plan.notes
            } else {
                Vec::new()
            };
            for note in notes {
                let _ = events.send(Event::Note {
                    host: Some(host.clone()),
                    text: format!("note: {note}"),
                });
            }
            Planned::AsWanted
        }
        Ok((session, found)) => Planned::Ready {
            plan: Arc::new(found.plan),
            work: Work::Apply {
                session,
                reads: found.reads,
            },
        },
        Err((problem, with_leave)) => {
            if let Some(plan) = with_leave {
                let (host, told) = (host.clone(), Arc::clone(&plan));
                let _ = events.send(Event::Planned {
                    host: host.clone(),
                    plan: told,
                });
                let _ = events.send(Event::Plans(vec![(host, plan)]));
            }
            Planned::Ended(Outcome::Failed, problem)
        }
    }
}

/// A number that another run of the same second will hardly have.
pub(super) fn chance() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::GuardKind;

    #[test]
    fn a_host_that_is_left_finishes_or_undoes_by_what_guards_it() {
        let run = RunId::parse("r1").expect("an id");
        let said = |confirm| {
            let guard = Guard {
                kind: GuardKind::Timer,
                confirm,
                window_s: 90,
            };
            match left_alone(&run, Some(&guard)) {
                HostProblem::Failed { chain, .. } => chain.join(": "),
                other => panic!("{other:?}"),
            }
        };
        assert!(said(Confirm::Host).ends_with("the host finishes run r1 by itself, or undoes it"));
        assert!(
            said(Confirm::NewConnection)
                .ends_with("undoes it again unless it is confirmed within 1m 30s of its last step")
        );
    }
}

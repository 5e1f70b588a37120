//! `deploy runs confirm|extend|unlock ID`: what can be asked of a run that is on its
//! hosts already. (`deploy runs undo` is `rollback` with the run named.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::apply::runs::{RunRecord, Status};
use crate::apply::{self, HostResult, RunId, rollback, standing};
use crate::cli::args::{ExtendArgs, Format, RunsArgs, UnlockArgs};
use crate::cli::fleet_verbs::{self, reporter, run_id};
use crate::cli::flow::{self, Batches, Consent, Events, Planned, Verb};
use crate::cli::hosts::Hosts;
use crate::cli::interrupt::Interrupts;
use crate::cli::{Failure, reach, runs};
use crate::error::Problems;
use crate::event::{Event, HostProblem, Outcome};
use crate::fleet;
use crate::plan::{self, HostPlan};
use crate::report::exit::{CheckMode, Exit};
use crate::report::{self, Plans};
use crate::text::{moment, span};
use crate::transport::Session;
use crate::value::HostName;

/// A run as one of its hosts keeps it, and the connection over which it was read.
type Found = (Box<dyn Session>, RunRecord);

/// What is said of a host that took no part in the run.
fn no_part(run: &RunId) -> String {
    format!("keeps no run {run}: nothing to do")
}

/// Reads the run on a host; nothing if the host keeps no such run. The connection is
/// closed where it is not given back.
async fn find(
    hosts: &Hosts,
    host: &HostName,
    run: &RunId,
) -> Result<Option<Found>, (Outcome, HostProblem)> {
    let mut session = reach::connect(hosts, host)
        .await
        .map_err(|problem| (Outcome::Unreachable, problem))?;
    let found = match apply::runs::read(session.as_mut(), Some(run)).await {
        Ok(found) => found.runs.into_iter().next(),
        Err(error) => {
            session.close().await;
            return Err((Outcome::Failed, reach::failed(error.to_string())));
        }
    };
    match found {
        Some(record) => Ok(Some((session, record))),
        None => {
            session.close().await;
            Ok(None)
        }
    }
}

/// What both verbs of a run on its hosts need.
struct Asked {
    hosts: Arc<Hosts>,
    run: RunId,
    who: String,
    /// Hosts that keep the run, or that could not say so.
    concerned: AtomicUsize,
}

impl Asked {
    fn new(hosts: Arc<Hosts>, run: RunId) -> Self {
        Self {
            hosts,
            run,
            who: reach::who_from(),
            concerned: AtomicUsize::new(0),
        }
    }

    /// The run on a host, and what `plan_of` says of it. Where there is nothing to do,
    /// why is told.
    async fn plan(
        &self,
        host: &HostName,
        events: &Events,
        plan_of: impl FnOnce(&RunRecord) -> Wanted,
    ) -> Planned<Found> {
        let note = |text: String| {
            let _ = events.send(Event::Note {
                host: Some(host.clone()),
                text,
            });
        };
        let found = find(&self.hosts, host, &self.run).await;
        if !matches!(found, Ok(None)) {
            self.concerned.fetch_add(1, Ordering::Relaxed);
        }
        let (session, record) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                note(no_part(&self.run));
                return Planned::AsWanted;
            }
            Err((outcome, problem)) => return Planned::Ended(outcome, problem),
        };
        let why = match plan_of(&record) {
            Wanted::Do(plan) => {
                return Planned::Ready {
                    plan: Arc::new(plan),
                    work: (session, record),
                };
            }
            Wanted::IsSo(what) => Err(what),
            Wanted::Impossible(hint) => Ok(hint),
        };
        session.close().await;
        match why {
            Err(what) => {
                note(format!("run {} is {}: {what}", self.run, record.status));
                Planned::AsWanted
            }
            Ok(hint) => Planned::Ended(
                Outcome::Failed,
                HostProblem::Failed {
                    step: None,
                    chain: vec![format!("run {} is {}", self.run, record.status)],
                    hint: Some(hint),
                },
            ),
        }
    }

    fn missed(&self) -> Problems {
        match self.concerned.load(Ordering::Relaxed) {
            0 => fleet_verbs::no_such_run(&self.run).into(),
            _ => Problems::default(),
        }
    }

    /// What becomes of a host that nobody waits for.
    fn left(&self) -> HostProblem {
        HostProblem::Failed {
            step: None,
            chain: vec!["the host goes on by itself".to_owned()],
            hint: Some(format!(
                "`deploy runs show {}` tells how it stands",
                self.run
            )),
        }
    }
}

/// What a run's status means for the verb.
enum Wanted {
    Do(HostPlan),
    /// It is so already; what that means, in a few words.
    IsSo(&'static str),
    /// It cannot be; what to do instead.
    Impossible(String),
}

/// Runs `deploy runs confirm`.
///
/// # Errors
/// Findings in the files and variables.
pub async fn confirm(id: &str, args: &RunsArgs, interrupts: &Interrupts) -> Result<Exit, Failure> {
    let run = run_id(id)?;
    let (settings, hosts) = fleet_verbs::ready(&args.hosts, &args.connection, None).await?;
    let batches = Batches::all(settings.hosts.clone(), args.connection.forks.into());
    let reporter = reporter(&args.output, CheckMode::Off, Plans::AsTheyCome)
        .calling_changed("confirmed")
        .calling_failed(AS_IT_WAS);
    let verb = Confirm(Asked::new(hosts, run));
    Ok(flow::run(verb, batches, Consent::Given, reporter, interrupts).await)
}

struct Confirm(Asked);

impl Verb for Confirm {
    type Work = Found;

    const QUESTION: &'static str = "Confirm this run on";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Found> {
        self.0
            .plan(host, events, |record| confirmable(record, &self.0.run))
            .await
    }

    async fn carry_out(
        &self,
        host: &HostName,
        _plan: &HostPlan,
        (session, record): Found,
        events: &Events,
    ) -> HostResult {
        let again = reach::Again::new(&self.0.hosts, host);
        standing::confirm(session, &again, &record, &self.0.who, host, events).await
    }

    fn left(&self, _host: &HostName, _plan: &HostPlan) -> HostProblem {
        self.0.left()
    }

    fn missed(&self) -> Problems {
        self.0.missed()
    }
}

/// Whether a run can be confirmed. What it changes was shown when it was applied.
fn confirmable(record: &RunRecord, run: &RunId) -> Wanted {
    match record.status {
        Status::Unconfirmed { .. } => Wanted::Do(HostPlan::default()),
        Status::Done => Wanted::IsSo("there is nothing to confirm"),
        Status::InProgress | Status::Rebooting => Wanted::Impossible(format!(
            "there is nothing to confirm yet: `--resume {run}` follows it and confirms it"
        )),
        _ => Wanted::Impossible("there is nothing to confirm; apply it anew".to_owned()),
    }
}

/// Runs `deploy runs unlock`.
///
/// # Errors
/// Findings in the files and variables.
pub async fn unlock(id: &str, args: &UnlockArgs, interrupts: &Interrupts) -> Result<Exit, Failure> {
    let run = run_id(id)?;
    let of = &args.of;
    let (settings, hosts) = fleet_verbs::ready(&of.hosts, &of.connection, None).await?;
    let batches = Batches::all(settings.hosts.clone(), of.connection.forks.into());
    let consent = Consent::of(args.check, args.yes);
    let reporter = reporter(&of.output, consent.check_mode(), consent.plans())
        .calling_changed("undone")
        .calling_failed(AS_IT_WAS);
    let verb = Unlock(Asked::new(hosts, run));
    Ok(flow::run(verb, batches, consent, reporter, interrupts).await)
}

struct Unlock(Asked);

impl Verb for Unlock {
    type Work = Found;

    const QUESTION: &'static str = "End this run and undo it on";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Found> {
        self.0.plan(host, events, unlockable).await
    }

    async fn carry_out(
        &self,
        host: &HostName,
        _plan: &HostPlan,
        (session, record): Found,
        events: &Events,
    ) -> HostResult {
        let again = reach::Again::new(&self.0.hosts, host);
        standing::unlock(session, &again, &record, &self.0.who, host, events).await
    }

    fn left(&self, _host: &HostName, _plan: &HostPlan) -> HostProblem {
        self.0.left()
    }

    fn missed(&self) -> Problems {
        self.0.missed()
    }
}

/// Whether a run keeps others out of its host, and what undoing it changes.
fn unlockable(record: &RunRecord) -> Wanted {
    if record.status.is_open() {
        let mut plan = rollback::reverse(record);
        plan.notes.insert(
            0,
            format!(
                "ends run {} ({}) of {} from {}, and undoes what it had begun",
                record.manifest.run, record.status, record.manifest.who, record.manifest.from
            ),
        );
        if record.status == Status::InProgress {
            plan.notes
                .push("what it begins until then is undone as well".to_owned());
        }
        return Wanted::Do(plan);
    }
    match record.status.can_be_undone() {
        true => Wanted::Impossible(format!(
            "it keeps nobody out; `deploy runs undo {}` undoes it",
            record.manifest.run
        )),
        false => Wanted::IsSo("it keeps nobody out, and there is nothing to undo"),
    }
}

/// Runs `deploy runs extend`.
///
/// # Errors
/// Findings in the files and variables, or no host that has the run.
pub async fn extend(id: &str, args: &ExtendArgs) -> Result<Exit, Failure> {
    let run = run_id(id)?;
    let of = &args.of;
    let (settings, hosts) = fleet_verbs::ready(&of.hosts, &of.connection, None).await?;
    let format = of.output.output;
    let mut reporter =
        reporter(&of.output, CheckMode::Off, Plans::Together).calling_failed(AS_IT_WAS);
    let (mut ends, mut kept) = (Vec::new(), false);
    fleet::each(
        settings.hosts.clone(),
        of.connection.forks.into(),
        |host| {
            let (hosts, run, by) = (Arc::clone(&hosts), run.clone(), args.by);
            async move { extended(&hosts, &host, &run, by).await }
        },
        |host, extended| {
            kept |= !matches!(extended, Some(Ok(None)));
            let (outcome, problem) = match extended {
                Some(Ok(Some((at, found)))) => {
                    match format {
                        Format::Human => report::data(&format!(
                            "{host}: {}\n",
                            moved_deadline(&run, at, found.runs.first(), args.by)
                        )),
                        Format::Json => report::json_lines(&runs::objects(&host, &found)),
                    }
                    (Outcome::Ok, None)
                }
                Some(Ok(None)) => {
                    reporter.event(&Event::Note {
                        host: Some(host.clone()),
                        text: no_part(&run),
                    });
                    (Outcome::Ok, None)
                }
                Some(Err((outcome, problem))) => (outcome, Some(problem)),
                None => (Outcome::Failed, Some(flow::broke_off())),
            };
            ends.push((host, outcome, problem));
        },
    )
    .await;
    if !kept {
        return Err(fleet_verbs::no_such_run(&run).into());
    }
    for (host, outcome, problem) in ends {
        reporter.event(&Event::HostEnd {
            host,
            outcome,
            problem,
        });
    }
    Ok(reporter.finish())
}

/// What the moved deadline of a run means.
fn moved_deadline(
    run: &RunId,
    at: jiff::Timestamp,
    record: Option<&RunRecord>,
    by: Duration,
) -> String {
    let at = moment(at);
    let at_work = match record.map(|record| &record.status) {
        Some(Status::InProgress) => {
            "is at work. The guard lets it work until {at}, which is what the limits of all its steps come to and the time that was added; what is not at its end then is ended and undone"
        }
        Some(Status::Rebooting) => {
            "waits for the restart. The guard undoes it at {at} unless the host is back by then"
        }
        _ => return format!("run {run} is undone at {at} unless it is confirmed"),
    };
    let mut text = format!("run {run} {}", at_work.replace("{at}", &at));
    let guard = record.and_then(|record| record.manifest.guard);
    if guard.is_some_and(|guard| guard.confirm == plan::Confirm::NewConnection) {
        text += &format!(
            ". Once its last step is made there are {} more to confirm it, too",
            span(by.as_secs())
        );
    }
    text
}

/// What a failure means here: neither has it changed the host nor the run.
const AS_IT_WAS: &str = "the run is left as it was";

/// When the host now undoes the run, and how the run stands; nothing if the host keeps
/// no such run.
async fn extended(
    hosts: &Hosts,
    host: &HostName,
    run: &RunId,
    by: Duration,
) -> Result<Option<(jiff::Timestamp, apply::runs::HostRuns)>, (Outcome, HostProblem)> {
    let Some((mut session, record)) = find(hosts, host, run).await? else {
        return Ok(None);
    };
    if !record.status.is_open() {
        session.close().await;
        let problem = HostProblem::Failed {
            step: None,
            chain: vec![format!(
                "run {run} is {}: its guard waits for nothing",
                record.status
            )],
            hint: Some(format!("`deploy runs show {run}` tells how it ended")),
        };
        return Err((Outcome::Failed, problem));
    }
    let told = match standing::extend(session.as_mut(), run, by).await {
        Ok(at) => apply::runs::read(session.as_mut(), Some(run))
            .await
            .map(|found| Some((at, found)))
            .map_err(|error| (Outcome::Failed, reach::failed(error.to_string()))),
        Err(problem) => Err((Outcome::Failed, problem)),
    };
    session.close().await;
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::runs::record;

    #[test]
    fn only_what_waits_for_it_is_confirmed() {
        let run = RunId::parse("r1").expect("an id");
        let wanted = |status| confirmable(&record(status, ""), &run);
        assert!(matches!(
            wanted(Status::Unconfirmed { undo_at: None }),
            Wanted::Do(_)
        ));
        assert!(matches!(wanted(Status::Done), Wanted::IsSo(_)));
        for early in [Status::InProgress, Status::Rebooting] {
            let Wanted::Impossible(hint) = wanted(early) else {
                panic!("it cannot be confirmed yet");
            };
            assert!(hint.contains("--resume r1"), "{hint}");
        }
        for late in [Status::Undone, Status::RolledBack, Status::Interrupted] {
            assert!(matches!(wanted(late), Wanted::Impossible(_)));
        }
    }

    #[test]
    fn only_what_keeps_others_out_is_unlocked() {
        let wanted = |status| unlockable(&record(status, ""));
        for open in [
            Status::InProgress,
            Status::Interrupted,
            Status::Rebooting,
            Status::Unconfirmed { undo_at: None },
        ] {
            let Wanted::Do(plan) = wanted(open) else {
                panic!("it keeps others out");
            };
            assert!(plan.notes[0].starts_with("ends run "), "{:?}", plan.notes);
        }
        assert!(matches!(wanted(Status::Done), Wanted::Impossible(_)));
        assert!(matches!(wanted(Status::Undone), Wanted::IsSo(_)));
    }
}

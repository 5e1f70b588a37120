//! The way that every changing verb goes: plan each host, show it, ask, carry out.
//!
//! With `--yes` a host is carried out as soon as its own plan is there, so that a
//! slow host delays no other. Where a person has to say yes, all plans are shown
//! first. What planning and carrying out mean, the verb says.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::apply::HostResult;
use crate::cli::prompt;
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem, Outcome};
use crate::fleet;
use crate::plan::HostPlan;
use crate::report::exit::{CheckMode, Exit};
use crate::report::{Plans, Reporter};
use crate::value::HostName;

/// Whether and when changes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// `--check`: never.
    Never,
    /// `--yes`: at once.
    Given,
    /// After the question.
    Asked,
}

impl Consent {
    /// What the flags say; `--check` wins.
    #[must_use]
    pub fn of(check: bool, yes: bool) -> Self {
        match (check, yes) {
            (true, _) => Self::Never,
            (false, true) => Self::Given,
            (false, false) => Self::Asked,
        }
    }

    /// For the exit code.
    #[must_use]
    pub fn check_mode(self) -> CheckMode {
        match self {
            Self::Never => CheckMode::On,
            Self::Given | Self::Asked => CheckMode::Off,
        }
    }

    /// When plans are to be shown.
    #[must_use]
    pub fn plans(self) -> Plans {
        match self {
            Self::Given => Plans::AsTheyCome,
            Self::Never | Self::Asked => Plans::Together,
        }
    }
}

/// What planning a host came to.
pub enum Planned<W> {
    /// There is something to do; `W` is what carrying out needs.
    Ready {
        /// What would change.
        plan: Arc<HostPlan>,
        /// The open connection and the like.
        work: W,
    },
    /// The host is as wanted.
    AsWanted,
    /// Planning ended badly; nothing was changed.
    Ended(Outcome, HostProblem),
}

/// Hosts in batches, one after the other, and how many may fail.
#[derive(Debug, Clone)]
pub struct Batches {
    /// The batches, in order.
    pub batches: Vec<Vec<HostName>>,
    /// How many at a time within a batch.
    pub forks: usize,
    /// Percentage of all hosts of which more may not fail, if there is a limit.
    pub max_fail_percentage: Option<f64>,
}

/// Goes the whole way. What `missed` finds once all hosts are planned is told
/// before the sums; an error among it means that what was asked for is nowhere.
pub async fn run<W, P, PF, C, CF>(
    hosts: Batches,
    consent: Consent,
    reporter: Reporter,
    question: &str,
    plan: P,
    carry_out: C,
    missed: impl Fn() -> Problems,
) -> Exit
where
    W: Send + 'static,
    P: Fn(HostName, UnboundedSender<Event>) -> PF + Clone + Send + 'static,
    PF: Future<Output = Planned<W>> + Send + 'static,
    C: Fn(HostName, Arc<HostPlan>, W, UnboundedSender<Event>) -> CF + Clone + Send + 'static,
    CF: Future<Output = HostResult> + Send + 'static,
{
    let count = hosts.batches.iter().map(Vec::len).sum();
    let telling = Telling::start(reporter.expecting(count));
    if consent == Consent::Given {
        at_once(hosts, &telling.events, plan, carry_out).await;
        return telling.end(missed()).await;
    }
    let events = telling.events.clone();

    let all: Vec<HostName> = hosts.batches.iter().flatten().cloned().collect();
    let mut failures = Failures::new(&hosts);
    let mut ready = HashMap::new();
    {
        let (plan, sender) = (plan, events.clone());
        fleet::each(
            all.clone(),
            hosts.forks,
            move |host| plan(host, sender.clone()),
            |host, planned| match planned {
                Some(Planned::Ready { plan, work }) => {
                    let _ = events.send(Event::Planned {
                        host: host.clone(),
                        plan: Arc::clone(&plan),
                    });
                    ready.insert(host, (plan, work));
                }
                Some(Planned::AsWanted) => end(&events, host, Outcome::Ok, None),
                Some(Planned::Ended(outcome, problem)) => {
                    failures.count(outcome);
                    end(&events, host, outcome, Some(problem));
                }
                None => {
                    failures.count(Outcome::Failed);
                    end(&events, host, Outcome::Failed, Some(broke_off()));
                }
            },
        )
        .await;
    }
    let plans: Vec<(HostName, Arc<HostPlan>)> = all
        .iter()
        .filter_map(|host| {
            ready
                .get(host)
                .map(|(plan, _)| (host.clone(), Arc::clone(plan)))
        })
        .collect();
    let _ = events.send(Event::Plans(plans.clone()));

    if consent == Consent::Never {
        for (host, _) in plans {
            end(&events, host, Outcome::Changed, None);
        }
        drop(events);
        return telling.end(missed()).await;
    }
    drop(events);
    // The question comes only when all that it is about was printed.
    let Some(reporter) = telling.stop().await else {
        return Exit::PersonNeeded;
    };
    let refused = match plans.is_empty() {
        true => None,
        false => ask(question, plans.len()).err(),
    };
    let telling = Telling::start(reporter.expecting(plans.len()));
    let events = telling.events.clone();
    if let Some(why) = refused {
        if let Some(finding) = why {
            let _ = events.send(Event::Diagnostics(finding.into()));
        }
        for (host, _) in plans {
            end(&events, host, Outcome::Skipped, None);
        }
        drop(events);
        return match telling.stop().await {
            Some(reporter) => reporter.finish_refused(),
            None => Exit::PersonNeeded,
        };
    }
    for batch in hosts.batches {
        let batch: Vec<HostName> = batch
            .into_iter()
            .filter(|host| ready.contains_key(host))
            .collect();
        if failures.too_many() {
            for host in batch {
                end(&events, host, Outcome::Skipped, None);
            }
            continue;
        }
        let works: HashMap<HostName, _> = batch
            .iter()
            .filter_map(|host| ready.remove(host).map(|work| (host.clone(), work)))
            .collect();
        let works = std::sync::Mutex::new(works);
        let (carry_out, sender) = (carry_out.clone(), events.clone());
        fleet::each(
            batch,
            hosts.forks,
            |host| {
                let work = works.lock().ok().and_then(|mut works| works.remove(&host));
                let (carry_out, sender) = (carry_out.clone(), sender.clone());
                async move {
                    match work {
                        Some((plan, work)) => Some(carry_out(host, plan, work, sender).await),
                        None => None,
                    }
                }
            },
            |host, result| {
                let (outcome, problem) = match result.flatten() {
                    Some(result) => (result.outcome, result.problem),
                    None => (Outcome::Stuck, Some(broke_off())),
                };
                failures.count(outcome);
                end(&events, host, outcome, problem);
            },
        )
        .await;
    }
    drop(events);
    telling.end(missed()).await
}

/// A reporter at work on a channel.
struct Telling {
    events: UnboundedSender<Event>,
    teller: tokio::task::JoinHandle<Reporter>,
}

impl Telling {
    fn start(mut reporter: Reporter) -> Self {
        let (events, mut heard) = unbounded_channel::<Event>();
        let teller = tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                reporter.event(&event);
            }
            reporter
        });
        Self { events, teller }
    }

    /// Waits until all was told. Everybody else must have let go of the channel.
    async fn stop(self) -> Option<Reporter> {
        drop(self.events);
        self.teller.await.ok()
    }

    /// The same, with the sums; an error among the findings is no good end.
    async fn end(self, missed: Problems) -> Exit {
        let refused = missed.has_errors();
        if !missed.0.is_empty() {
            let _ = self.events.send(Event::Diagnostics(missed));
        }
        match self.stop().await {
            Some(reporter) if refused => reporter.finish_refused(),
            Some(reporter) => reporter.finish(),
            None => Exit::PersonNeeded,
        }
    }
}

/// Plans and carries out host by host.
async fn at_once<W, P, PF, C, CF>(
    hosts: Batches,
    events: &UnboundedSender<Event>,
    plan: P,
    carry_out: C,
) where
    W: Send + 'static,
    P: Fn(HostName, UnboundedSender<Event>) -> PF + Clone + Send + 'static,
    PF: Future<Output = Planned<W>> + Send + 'static,
    C: Fn(HostName, Arc<HostPlan>, W, UnboundedSender<Event>) -> CF + Clone + Send + 'static,
    CF: Future<Output = HostResult> + Send + 'static,
{
    let mut failures = Failures::new(&hosts);
    for batch in hosts.batches {
        if failures.too_many() {
            for host in batch {
                end(events, host, Outcome::Skipped, None);
            }
            continue;
        }
        fleet::each(
            batch,
            hosts.forks,
            |host| {
                let (plan, carry_out, events) = (plan.clone(), carry_out.clone(), events.clone());
                async move {
                    match plan(host.clone(), events.clone()).await {
                        Planned::AsWanted => (Outcome::Ok, None),
                        Planned::Ended(outcome, problem) => (outcome, Some(problem)),
                        Planned::Ready { plan, work } => {
                            let _ = events.send(Event::Planned {
                                host: host.clone(),
                                plan: Arc::clone(&plan),
                            });
                            let result = carry_out(host, plan, work, events).await;
                            (result.outcome, result.problem)
                        }
                    }
                }
            },
            |host, result| {
                let (outcome, problem) = result.unwrap_or((Outcome::Stuck, Some(broke_off())));
                failures.count(outcome);
                end(events, host, outcome, problem);
            },
        )
        .await;
    }
}

/// Counts failed hosts against the limit; an unreachable host is a failed one.
struct Failures {
    failed: usize,
    all: usize,
    limit: Option<f64>,
}

impl Failures {
    fn new(hosts: &Batches) -> Self {
        Self {
            failed: 0,
            all: hosts.batches.iter().map(Vec::len).sum(),
            limit: hosts.max_fail_percentage,
        }
    }

    fn count(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Ok | Outcome::Changed | Outcome::Skipped) {
            self.failed += 1;
        }
    }

    fn too_many(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.failed as f64 * 100.0 > limit * self.all as f64)
    }
}

/// Asks; a refusal has a finding where nobody could be asked.
fn ask(question: &str, count: usize) -> Result<(), Option<Diagnostic>> {
    let hosts = match count {
        1 => "1 host".to_owned(),
        count => format!("{count} hosts"),
    };
    if !prompt::somebody_there() {
        let finding = Diagnostic::error("nothing was changed: nobody is there to be asked");
        return Err(Some(finding.hint(
            "pass --yes to apply without asking, or --check to only look",
        )));
    }
    match prompt::yes(&format!("{question} {hosts}?")) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(None),
    }
}

fn end(
    events: &UnboundedSender<Event>,
    host: HostName,
    outcome: Outcome,
    problem: Option<HostProblem>,
) {
    let _ = events.send(Event::HostEnd {
        host,
        outcome,
        problem,
    });
}

fn broke_off() -> HostProblem {
    HostProblem::Failed {
        step: None,
        chain: vec!["the work on this host broke off; this is a defect of deploy".to_owned()],
        hint: Some("`deploy runs` shows whether a run was begun there".to_owned()),
    }
}

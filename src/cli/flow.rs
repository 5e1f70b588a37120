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

impl Batches {
    /// All hosts, in order.
    fn each(&self) -> impl Iterator<Item = &HostName> {
        self.batches.iter().flatten()
    }

    /// How many hosts.
    fn count(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }
}

/// Where work tells what happens.
pub type Events = UnboundedSender<Event>;

/// What a verb does on each host.
pub trait Verb: Send + Sync + 'static {
    /// What carrying out needs: the open connection and the like.
    type Work: Send + 'static;

    /// What is asked before anything is carried out; the number of hosts follows.
    const QUESTION: &'static str;

    /// Finds out what there is to do on a host; changes nothing.
    fn plan(
        &self,
        host: &HostName,
        events: &Events,
    ) -> impl Future<Output = Planned<Self::Work>> + Send;

    /// Does it.
    fn carry_out(
        &self,
        host: &HostName,
        plan: &HostPlan,
        work: Self::Work,
        events: &Events,
    ) -> impl Future<Output = HostResult> + Send;

    /// What is found once all hosts are planned, told before the sums; an error among
    /// it means that what was asked for is nowhere.
    fn missed(&self) -> Problems {
        Problems::default()
    }
}

/// What there is to do on a host: its plan, and what carrying it out needs.
type Ready<W> = (Arc<HostPlan>, W);

/// Goes the whole way.
pub async fn run<V: Verb>(
    verb: V,
    mut hosts: Batches,
    consent: Consent,
    reporter: Reporter,
) -> Exit {
    let verb = Arc::new(verb);
    let mut failures = Failures::new(&hosts);
    let mut ahead = HashMap::new();
    let mut telling = Telling::start(reporter.expecting(hosts.count()));
    if consent != Consent::Given {
        ahead = plan_all(&verb, &hosts, &mut failures, &telling.events).await;
        let plans: Vec<(HostName, Arc<HostPlan>)> = hosts
            .each()
            .filter_map(|host| Some((host.clone(), Arc::clone(&ahead.get(host)?.0))))
            .collect();
        let _ = telling.events.send(Event::Plans(plans.clone()));
        if consent == Consent::Never {
            for (host, _) in plans {
                end(&telling.events, host, Outcome::Changed, None);
            }
            return telling.end(verb.missed()).await;
        }
        // The question comes only when all that it is about was printed.
        let Some(reporter) = telling.stop().await else {
            return Exit::PersonNeeded;
        };
        let refused = match plans.is_empty() {
            true => None,
            false => ask(V::QUESTION, plans.len()).err(),
        };
        telling = Telling::start(reporter.expecting(plans.len()));
        if let Some(why) = refused {
            if let Some(finding) = why {
                let _ = telling.events.send(Event::Diagnostics(finding.into()));
            }
            for (host, _) in plans {
                end(&telling.events, host, Outcome::Skipped, None);
            }
            return match telling.stop().await {
                Some(reporter) => reporter.finish_refused(),
                None => Exit::PersonNeeded,
            };
        }
        for batch in &mut hosts.batches {
            batch.retain(|host| ahead.contains_key(host));
        }
    }
    carry_out(&verb, hosts, ahead, &mut failures, &telling.events).await;
    telling.end(verb.missed()).await
}

/// Plans all hosts, and ends those on which there is nothing to do.
async fn plan_all<V: Verb>(
    verb: &Arc<V>,
    hosts: &Batches,
    failures: &mut Failures,
    events: &Events,
) -> HashMap<HostName, Ready<V::Work>> {
    let mut ready = HashMap::new();
    fleet::each(
        hosts.each().cloned().collect(),
        hosts.forks,
        |host| {
            let (verb, events) = (Arc::clone(verb), events.clone());
            async move { planned(verb.as_ref(), &host, &events).await }
        },
        |host, planned| match planned {
            Some(Ok(found)) => {
                ready.insert(host, found);
            }
            Some(Err((outcome, problem))) => {
                failures.count(outcome);
                end(events, host, outcome, problem);
            }
            None => {
                failures.count(Outcome::Failed);
                end(events, host, Outcome::Failed, Some(broke_off()));
            }
        },
    )
    .await;
    ready
}

/// Carries out batch after batch; a host that was not planned ahead is planned first.
async fn carry_out<V: Verb>(
    verb: &Arc<V>,
    hosts: Batches,
    mut ahead: HashMap<HostName, Ready<V::Work>>,
    failures: &mut Failures,
    events: &Events,
) {
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
                let (verb, events) = (Arc::clone(verb), events.clone());
                let ready = ahead.remove(&host);
                async move {
                    let found = match ready {
                        Some(ready) => Ok(ready),
                        None => planned(verb.as_ref(), &host, &events).await,
                    };
                    match found {
                        Ok((plan, work)) => {
                            let result = verb.carry_out(&host, &plan, work, &events).await;
                            (result.outcome, result.problem)
                        }
                        Err(ended) => ended,
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

/// Plans one host and tells the plan, or how the host ended without one.
async fn planned<V: Verb>(
    verb: &V,
    host: &HostName,
    events: &Events,
) -> Result<Ready<V::Work>, (Outcome, Option<HostProblem>)> {
    match verb.plan(host, events).await {
        Planned::AsWanted => Err((Outcome::Ok, None)),
        Planned::Ended(outcome, problem) => Err((outcome, Some(problem))),
        Planned::Ready { plan, work } => {
            let _ = events.send(Event::Planned {
                host: host.clone(),
                plan: Arc::clone(&plan),
            });
            Ok((plan, work))
        }
    }
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
            all: hosts.count(),
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

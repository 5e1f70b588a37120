//! The way that every changing verb goes: plan each host, show it, ask, carry out.
//!
//! With `--yes` a host is carried out as soon as its own plan is there, so that a
//! slow host delays no other. Where a person has to say yes, all plans are shown
//! first. What planning and carrying out mean, the verb says.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::apply::HostResult;
use crate::cli::args::OnFailure;
use crate::cli::gate::{self, Gate, Limits};
use crate::cli::interrupt::{Attention, Interrupts};
use crate::cli::prompt;
use crate::cli::telling::{Telling, end, note, skip};
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

/// Hosts in batches, one after the other, and what failures mean.
#[derive(Debug, Clone)]
pub struct Batches {
    /// The batches, in order.
    pub batches: Vec<Vec<HostName>>,
    /// How many at a time within a batch.
    pub forks: usize,
    /// When hosts are no longer begun.
    pub limits: Limits,
}

impl Batches {
    /// All hosts at once; whatever happens to one, the others go on.
    #[must_use]
    pub fn all(hosts: Vec<HostName>, forks: usize) -> Self {
        Self {
            batches: vec![hosts],
            forks,
            limits: Limits {
                max_fail_percentage: None,
                on_failure: OnFailure::RollbackHost,
            },
        }
    }

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

    /// Takes back what was carried out on a host, because `first` failed. Verbs that
    /// have no `--on-failure` are never asked to.
    fn take_back(
        &self,
        _host: &HostName,
        _first: &HostName,
        _events: &Events,
    ) -> impl Future<Output = HostResult> + Send {
        std::future::ready(HostResult {
            outcome: Outcome::Stuck,
            problem: Some(broke_off()),
        })
    }

    /// What becomes of a host at work that nobody waits for.
    fn left(&self, host: &HostName, plan: &HostPlan) -> HostProblem;

    /// Does what is left to do in check mode once all hosts are planned, such as to save the
    /// plans, and says so.
    ///
    /// # Errors
    /// It could not be done.
    fn checked(&self) -> Result<Option<String>, Diagnostic> {
        Ok(None)
    }

    /// What is found once all hosts are planned, told before the sums; an error among
    /// it means that what was asked for is nowhere.
    fn missed(&self) -> Problems {
        Problems::default()
    }
}

/// What there is to do on a host: its plan, and what carrying it out needs.
type Ready<W> = (Arc<HostPlan>, W);

/// How a host ended.
type End = (Outcome, Option<HostProblem>);

/// Goes the whole way.
pub async fn run<V: Verb>(
    verb: V,
    mut hosts: Batches,
    consent: Consent,
    reporter: Reporter,
    interrupts: &Interrupts,
) -> Exit {
    let verb = Arc::new(verb);
    let gate = Arc::new(Gate::new(hosts.each().cloned().collect(), hosts.limits));
    let mut attention = interrupts.attend();
    let mut ahead = HashMap::new();
    let mut telling = Telling::start(reporter.expecting(hosts.count()));
    if consent != Consent::Given {
        let planned = tokio::select! {
            planned = plan_all(&verb, &hosts, &gate, &telling.events) => Some(planned),
            () = attention.next() => None,
        };
        let Some(planned) = planned else {
            return telling.leave(verb.as_ref(), &gate).await;
        };
        ahead = planned;
        let plans: Vec<(HostName, Arc<HostPlan>)> = hosts
            .each()
            .filter_map(|host| Some((host.clone(), Arc::clone(&ahead.get(host)?.0))))
            .collect();
        let _ = telling.events.send(Event::Plans(plans.clone()));
        if consent == Consent::Never {
            for (host, _) in plans {
                end(&gate, &telling.events, host, Outcome::Changed, None);
            }
            let mut missed = verb.missed();
            match verb.checked() {
                Ok(said) => said
                    .into_iter()
                    .for_each(|said| note(&telling.events, said)),
                Err(problem) => missed.push(problem),
            }
            return telling.end(missed).await;
        }
        // The question comes only when all that it is about was printed.
        let Some(reporter) = telling.stop().await else {
            return Exit::PersonNeeded;
        };
        let agreed = match plans.is_empty() || gate.closed().is_some() {
            true => Answer::Yes,
            false => ask(V::QUESTION, plans.len(), &mut attention).await,
        };
        telling = Telling::start(reporter.expecting(plans.len()));
        let why = match agreed {
            Answer::Yes => None,
            Answer::Interrupted => return telling.leave(verb.as_ref(), &gate).await,
            Answer::No => Some("the answer was not `yes`"),
            Answer::Nobody(finding) => {
                let _ = telling.events.send(Event::Diagnostics(finding.into()));
                Some("nobody was there to be asked")
            }
        };
        if let Some(why) = why {
            for (host, _) in plans {
                skip(&gate, &telling.events, host, why.to_owned());
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
    let events = telling.events.clone();
    let work = carry_out(&verb, hosts, ahead, &gate, &events);
    let finished = attended(work, &gate, &mut attention, &events).await;
    drop(events);
    match finished {
        Finished::Undisturbed => telling.end(verb.missed()).await,
        Finished::Interrupted => telling.interrupted().end(verb.missed()).await,
        Finished::Left => telling.leave(verb.as_ref(), &gate).await,
    }
}

/// How hosts were carried out.
enum Finished {
    /// To the end.
    Undisturbed,
    /// The user stopped it; what was begun is finished.
    Interrupted,
    /// The user did not wait for what was begun.
    Left,
}

/// Does the work and answers the user's signals: the first closes the gate, the
/// second leaves what is at work to itself.
async fn attended(
    work: impl Future<Output = ()>,
    gate: &Gate,
    attention: &mut Attention,
    events: &Events,
) -> Finished {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        () = &mut work => return Finished::Undisturbed,
        () = attention.next() => {}
    }
    let running = match gate.interrupt() {
        0 => "no further host is begun".to_owned(),
        1 => "no further host is begun; 1 host is at work and is waited for; interrupt again to leave it to its guard".to_owned(),
        count => format!("no further host is begun; {count} hosts are at work and are waited for; interrupt again to leave them to their guards"),
    };
    note(events, format!("interrupted: {running}"));
    tokio::select! {
        () = &mut work => Finished::Interrupted,
        () = attention.next() => Finished::Left,
    }
}

/// Plans all hosts, and ends those on which there is nothing to do.
async fn plan_all<V: Verb>(
    verb: &Arc<V>,
    hosts: &Batches,
    gate: &Gate,
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
            Some(Err((outcome, problem))) => end(gate, events, host, outcome, problem),
            None => end(gate, events, host, Outcome::Failed, Some(broke_off())),
        },
    )
    .await;
    ready
}

/// Carries out batch after batch, and takes it back where that is wanted.
async fn carry_out<V: Verb>(
    verb: &Arc<V>,
    hosts: Batches,
    mut ahead: HashMap<HostName, Ready<V::Work>>,
    gate: &Arc<Gate>,
    events: &Events,
) {
    for batch in hosts.batches {
        fleet::each(
            batch,
            hosts.forks,
            |host| {
                let (verb, gate, events) = (Arc::clone(verb), Arc::clone(gate), events.clone());
                let ready = ahead.remove(&host);
                async move {
                    let (outcome, problem) = one(verb.as_ref(), &host, ready, &gate, &events).await;
                    // In the same step as the work's end: whoever leaves now has all ends.
                    end(&gate, &events, host, outcome, problem);
                }
            },
            |host, result| {
                if result.is_none() {
                    end(gate, events, host, Outcome::Stuck, Some(broke_off()));
                }
            },
        )
        .await;
    }
    if let Some((first, changed)) = gate.to_take_back() {
        take_back(verb, &first, changed, hosts.forks, gate, events).await;
    }
}

/// Carries out one host; if it was not planned ahead it is planned first.
async fn one<V: Verb>(
    verb: &V,
    host: &HostName,
    ready: Option<Ready<V::Work>>,
    gate: &Gate,
    events: &Events,
) -> End {
    if let Some(why) = gate.closed() {
        return (Outcome::Skipped, Some(HostProblem::NotBegun(why)));
    }
    let found = match ready {
        Some(ready) => Ok(ready),
        // Planning changes nothing, so nothing is lost when it is broken off.
        None => tokio::select! {
            found = planned(verb, host, events) => found,
            () = gate.interrupted() => Err((
                Outcome::Skipped,
                Some(HostProblem::NotBegun(gate::INTERRUPTED.to_owned())),
            )),
        },
    };
    let (plan, work) = match found {
        Ok(ready) => ready,
        Err(ended) => return ended,
    };
    if let Err(why) = gate.begin(host, &plan) {
        return (Outcome::Skipped, Some(HostProblem::NotBegun(why)));
    }
    let result = verb.carry_out(host, &plan, work, events).await;
    (result.outcome, result.problem)
}

/// Takes the changes of this run back on the hosts that have them.
async fn take_back<V: Verb>(
    verb: &Arc<V>,
    first: &HostName,
    changed: Vec<HostName>,
    forks: usize,
    gate: &Arc<Gate>,
    events: &Events,
) {
    if changed.is_empty() {
        return;
    }
    let names: Vec<&str> = changed.iter().map(HostName::as_str).collect();
    note(
        events,
        format!("{first} failed: rolling back {}", names.join(", ")),
    );
    fleet::each(
        changed,
        forks,
        |host| {
            let (verb, gate, events) = (Arc::clone(verb), Arc::clone(gate), events.clone());
            let first = first.clone();
            async move {
                gate.begin_again(&host, &Arc::default());
                let result = verb.take_back(&host, &first, &events).await;
                end(&gate, &events, host, result.outcome, result.problem);
            }
        },
        |host, result| {
            if result.is_none() {
                end(gate, events, host, Outcome::Stuck, Some(broke_off()));
            }
        },
    )
    .await;
}

/// Plans one host and tells the plan, or how the host ended without one.
async fn planned<V: Verb>(
    verb: &V,
    host: &HostName,
    events: &Events,
) -> Result<Ready<V::Work>, End> {
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

/// What a person said.
enum Answer {
    Yes,
    No,
    /// Nobody could be asked.
    Nobody(Diagnostic),
    Interrupted,
}

/// Asks, and goes on listening for signals meanwhile.
async fn ask(question: &str, count: usize, attention: &mut Attention) -> Answer {
    let hosts = match count {
        1 => "1 host".to_owned(),
        count => format!("{count} hosts"),
    };
    if !prompt::somebody_there() {
        let finding = Diagnostic::error("nothing was changed: nobody is there to be asked");
        return Answer::Nobody(
            finding.hint("pass --yes to apply without asking, or --check to only look"),
        );
    }
    let question = format!("{question} {hosts}?");
    let answer = tokio::task::spawn_blocking(move || prompt::yes(&question));
    tokio::select! {
        answer = answer => match answer {
            Ok(Ok(true)) => Answer::Yes,
            Ok(_) | Err(_) => Answer::No,
        },
        () = attention.next() => Answer::Interrupted,
    }
}

/// What is said of a host whose work has ended without a result.
pub(super) fn broke_off() -> HostProblem {
    HostProblem::Failed {
        step: None,
        chain: vec!["the work on this host broke off; this is a defect of deploy".to_owned()],
        hint: Some("`deploy runs` shows whether a run was begun there".to_owned()),
    }
}

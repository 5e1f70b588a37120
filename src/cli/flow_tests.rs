//! The way of a verb, with a verb that touches no host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::args::OnFailure;
use super::flow::{self, Batches, Consent, Events, Planned, Verb};
use super::gate::Limits;
use super::interrupt::Interrupts;
use super::reach::failed;
use crate::apply::HostResult;
use crate::event::{HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::report::exit::Exit;
use crate::report::{Plans, Reporter};
use crate::value::HostName;

/// What was done on which host, in the order in which it ended.
type Log = Arc<Mutex<Vec<String>>>;

/// A verb that ends as it is told to; hosts that nothing is said of are changed.
#[derive(Default)]
struct Fake {
    log: Log,
    /// How hosts end when they are carried out.
    ends: HashMap<&'static str, Outcome>,
    /// How hosts end when they are taken back.
    back: HashMap<&'static str, Outcome>,
    /// Planning this one waits until `h1` was carried out.
    slow: Option<&'static str>,
    fast: Arc<Notify>,
    /// Carrying this one out breaks off.
    breaks: Option<&'static str>,
    /// At work here, the user interrupts so many times, and then waits for ever if this
    /// was more than once.
    interrupt: Option<(&'static str, tokio::sync::watch::Sender<u32>, u32)>,
}

impl Fake {
    fn did(&self, what: &str, host: &HostName) {
        let mut log = self.log.lock().expect("not poisoned");
        log.push(format!("{what} {host}"));
    }
}

fn result(outcome: Outcome) -> HostResult {
    HostResult {
        outcome,
        problem: None,
    }
}

impl Verb for Fake {
    type Work = ();

    const QUESTION: &'static str = "Do this on";

    async fn plan(&self, host: &HostName, _events: &Events) -> Planned<()> {
        if self.slow == Some(host.as_str()) {
            self.fast.notified().await;
        }
        self.did("plan", host);
        Planned::Ready {
            plan: Arc::default(),
            work: (),
        }
    }

    async fn carry_out(
        &self,
        host: &HostName,
        _plan: &HostPlan,
        (): (),
        _events: &Events,
    ) -> HostResult {
        assert!(self.breaks != Some(host.as_str()), "on purpose");
        if let Some((at, signals, times)) = &self.interrupt
            && *at == host.as_str()
        {
            signals.send_modify(|count| *count += *times);
            if *times > 1 {
                std::future::pending::<()>().await;
            }
        }
        self.did("do", host);
        if host.as_str() == "h1" {
            self.fast.notify_one();
        }
        result(
            self.ends
                .get(host.as_str())
                .copied()
                .unwrap_or(Outcome::Changed),
        )
    }

    async fn take_back(&self, host: &HostName, first: &HostName, _events: &Events) -> HostResult {
        self.did(&format!("because of {first} take back"), host);
        result(
            self.back
                .get(host.as_str())
                .copied()
                .unwrap_or(Outcome::RolledBack),
        )
    }

    fn left(&self, _host: &HostName, _plan: &HostPlan) -> HostProblem {
        failed("it goes on by itself".to_owned())
    }
}

/// Three hosts, one after the other.
fn serial(on_failure: OnFailure) -> Batches {
    Batches {
        batches: ["h0", "h1", "h2"]
            .map(|name| vec![HostName::from(name)])
            .into(),
        forks: 4,
        limits: Limits {
            max_fail_percentage: None,
            on_failure,
        },
    }
}

async fn run(verb: Fake, hosts: Batches, consent: Consent) -> (Vec<String>, Exit) {
    run_with(verb, hosts, consent, &Interrupts::by_hand().0).await
}

async fn run_with(
    verb: Fake,
    hosts: Batches,
    consent: Consent,
    interrupts: &Interrupts,
) -> (Vec<String>, Exit) {
    let log = Arc::clone(&verb.log);
    let reporter = Reporter::human(consent.check_mode(), Plans::Together, false);
    let exit = flow::run(verb, hosts, consent, reporter, interrupts).await;
    let log = log.lock().expect("not poisoned").clone();
    (log, exit)
}

#[tokio::test]
async fn a_host_that_is_planned_slowly_holds_up_no_other() {
    let verb = Fake {
        slow: Some("h0"),
        ..Fake::default()
    };
    let hosts = ["h0", "h1"].map(HostName::from).into();
    let (log, exit) = run(verb, Batches::all(hosts, 2), Consent::Given).await;
    // It would wait for ever if all plans came first.
    assert_eq!(log, ["plan h1", "do h1", "plan h0", "do h0"]);
    assert_eq!(exit, Exit::Done);
}

#[tokio::test]
async fn check_mode_carries_nothing_out() {
    let (log, exit) = run(
        Fake::default(),
        serial(OnFailure::RollbackHost),
        Consent::Never,
    )
    .await;
    assert!(log.iter().all(|done| done.starts_with("plan")), "{log:?}");
    assert_eq!((log.len(), exit), (3, Exit::ChangesFound));
}

#[tokio::test]
async fn work_that_breaks_off_needs_a_person_and_holds_up_no_other() {
    let verb = Fake {
        breaks: Some("h0"),
        ..Fake::default()
    };
    let (log, exit) = run(verb, serial(OnFailure::RollbackHost), Consent::Given).await;
    assert_eq!(log, ["plan h0", "plan h1", "do h1", "plan h2", "do h2"]);
    assert_eq!(exit, Exit::PersonNeeded);
}

#[tokio::test]
async fn a_run_is_taken_back_where_it_made_changes_and_nowhere_else() {
    for (back, exit) in [
        (Outcome::RolledBack, Exit::SomeFailed),
        (Outcome::Stuck, Exit::PersonNeeded),
    ] {
        let verb = Fake {
            ends: [("h1", Outcome::Failed)].into(),
            back: [("h0", back)].into(),
            ..Fake::default()
        };
        let (log, ended) = run(verb, serial(OnFailure::RollbackRun), Consent::Given).await;
        assert_eq!(
            log,
            [
                "plan h0",
                "do h0",
                "plan h1",
                "do h1",
                "because of h1 take back h0"
            ]
        );
        assert_eq!(ended, exit);
    }
}

#[tokio::test]
async fn one_interrupt_finishes_what_is_at_work_and_two_do_not_wait_for_it() {
    for (times, done) in [(1, &["plan h0", "do h0"][..]), (2, &["plan h0"])] {
        let (interrupts, signals) = Interrupts::by_hand();
        let verb = Fake {
            interrupt: Some(("h0", signals, times)),
            ..Fake::default()
        };
        let hosts = serial(OnFailure::RollbackHost);
        let (log, exit) = run_with(verb, hosts, Consent::Given, &interrupts).await;
        assert_eq!(log, done);
        assert_eq!(exit, Exit::Interrupted);
    }
}

#[tokio::test]
async fn an_interrupted_run_of_which_a_host_needs_a_person_says_so() {
    let (interrupts, signals) = Interrupts::by_hand();
    let verb = Fake {
        interrupt: Some(("h0", signals, 1)),
        ends: [("h0", Outcome::Unconfirmed)].into(),
        ..Fake::default()
    };
    let hosts = serial(OnFailure::RollbackHost);
    let (_, exit) = run_with(verb, hosts, Consent::Given, &interrupts).await;
    assert_eq!(exit, Exit::PersonNeeded);
}

//! A reporter at work on a channel, and the sentences that `flow` hands to it.

use tokio::sync::mpsc::unbounded_channel;

use crate::cli::flow::{Events, Verb};
use crate::cli::gate::{self, Gate};
use crate::error::Problems;
use crate::event::{Event, HostProblem, Outcome};
use crate::report::Reporter;
use crate::report::exit::Exit;
use crate::value::HostName;

/// A reporter at work on a channel.
pub(super) struct Telling {
    pub(super) events: Events,
    teller: tokio::task::JoinHandle<Reporter>,
    interrupted: bool,
}

impl Telling {
    pub(super) fn start(mut reporter: Reporter) -> Self {
        let (events, mut heard) = unbounded_channel::<Event>();
        let teller = tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                reporter.event(&event);
            }
            reporter
        });
        Self {
            events,
            teller,
            interrupted: false,
        }
    }

    /// Waits until all was told. Everybody else must have let go of the channel.
    pub(super) async fn stop(self) -> Option<Reporter> {
        drop(self.events);
        let reporter = self.teller.await.ok()?;
        Some(match self.interrupted {
            true => reporter.interrupted(),
            false => reporter,
        })
    }

    /// The same, but the user interrupted.
    pub(super) fn interrupted(mut self) -> Self {
        self.interrupted = true;
        self
    }

    /// The user leaves now: tells what becomes of the hosts that have not ended.
    pub(super) async fn leave<V: Verb>(self, verb: &V, gate: &Gate) -> Exit {
        let left = gate.unfinished();
        for (host, plan) in left.at_work {
            let problem = verb.left(&host, &plan);
            end(gate, &self.events, host, Outcome::Left, Some(problem));
        }
        for host in left.not_begun {
            skip(gate, &self.events, host, gate::INTERRUPTED.to_owned());
        }
        match self.interrupted().stop().await {
            Some(reporter) => reporter.finish(),
            None => Exit::PersonNeeded,
        }
    }

    /// The same, with the sums; an error among the findings is no good end.
    pub(super) async fn end(self, missed: Problems) -> Exit {
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

pub(super) fn note(events: &Events, text: String) {
    let _ = events.send(Event::Note { host: None, text });
}

pub(super) fn skip(gate: &Gate, events: &Events, host: HostName, why: String) {
    let problem = HostProblem::NotBegun(why);
    end(gate, events, host, Outcome::Skipped, Some(problem));
}

pub(super) fn end(
    gate: &Gate,
    events: &Events,
    host: HostName,
    outcome: Outcome,
    problem: Option<HostProblem>,
) {
    gate.end(&host, outcome);
    let _ = events.send(Event::HostEnd {
        host,
        outcome,
        problem,
    });
}

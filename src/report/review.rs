//! One look at hosts as data for a page: who would be changed and how, who is as wanted, who
//! could not be looked at. Filled by the events of a check, or from a saved plan; `markdown`
//! and `html` draw it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diff::{self, Group};
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::report::diagnostic::{self, Style};
use crate::saved::{Card, cards};
use crate::value::HostName;

/// What a page tells.
#[derive(Debug, Clone, Default)]
pub struct Review {
    /// Where the plan comes from, in a sentence; empty for one that is not saved.
    pub source: String,
    /// The hosts, in the inventory's order as far as it is known.
    pub hosts: Vec<ReviewedHost>,
    /// Findings that kept all hosts from being looked at, as they are told to people.
    pub findings: String,
    places: HashMap<HostName, usize>,
}

/// One host of a page.
#[derive(Debug, Clone)]
pub struct ReviewedHost {
    /// Its name.
    pub name: HostName,
    /// How it ended; none as long as it has not.
    pub outcome: Option<Outcome>,
    /// Why it did not go well; empty if it did.
    pub problem: String,
    /// What would be changed.
    pub plan: Option<Arc<HostPlan>>,
    /// Its cards as they are.
    pub cards: Vec<Card>,
}

/// How a host stands, in the words of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It would be changed.
    Changed,
    /// It could not be planned, or another run has it.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// It was not looked at.
    Skipped,
    /// It is as wanted.
    AsWanted,
}

impl Standing {
    /// All of them, those first that need a look.
    pub const ALL: [Self; 5] = [
        Self::Changed,
        Self::Failed,
        Self::Unreachable,
        Self::Skipped,
        Self::AsWanted,
    ];

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Changed => "would be changed",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Skipped => "skipped",
            Self::AsWanted => "ok",
        }
    }

    /// In one word, for names of classes.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::AsWanted => "ok",
            other => other.words(),
        }
    }
}

impl ReviewedHost {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.outcome {
            Some(Outcome::Changed) => Standing::Changed,
            Some(Outcome::Ok) => Standing::AsWanted,
            Some(Outcome::Unreachable) => Standing::Unreachable,
            Some(Outcome::Skipped | Outcome::Left) | None => Standing::Skipped,
            Some(_) => Standing::Failed,
        }
    }
}

impl Review {
    /// A page of these hosts, in this order.
    #[must_use]
    pub fn of_hosts<'a>(hosts: impl IntoIterator<Item = &'a HostName>) -> Self {
        let mut review = Self::default();
        for host in hosts {
            review.host(host);
        }
        review
    }

    /// A host, which is added if it was not named before.
    pub fn host(&mut self, name: &HostName) -> &mut ReviewedHost {
        let next = self.hosts.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.hosts.push(ReviewedHost {
                name: name.clone(),
                outcome: None,
                problem: String::new(),
                plan: None,
                cards: Vec::new(),
            });
        }
        &mut self.hosts[place]
    }

    /// Takes in what an event tells.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Facts { host, facts } => self.host(host).cards = cards(facts),
            Event::Planned { host, plan } => self.host(host).plan = Some(Arc::clone(plan)),
            Event::HostEnd {
                host,
                outcome,
                problem,
            } => {
                let told = problem.as_ref().map(words).unwrap_or_default();
                let host = self.host(host);
                host.outcome = Some(*outcome);
                host.problem = told;
            }
            Event::Plans(_)
            | Event::Drift { .. }
            | Event::Slices { .. }
            | Event::StepStart { .. }
            | Event::StepEnd { .. }
            | Event::Diagnostics(_)
            | Event::Note { .. } => {}
        }
    }

    /// Hosts of one standing.
    pub fn of(&self, standing: Standing) -> impl Iterator<Item = &ReviewedHost> {
        let hosts = self.hosts.iter();
        hosts.filter(move |host| host.standing() == standing)
    }

    /// What would be changed, hosts with equal changes together.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let plans: Vec<(HostName, &HostPlan)> = self
            .hosts
            .iter()
            .filter_map(|host| Some((host.name.clone(), host.plan.as_deref()?)))
            .filter(|(_, plan)| !plan.steps.is_empty() || !plan.notes.is_empty())
            .collect();
        diff::group(&plans)
    }

    /// The page's heading.
    #[must_use]
    pub fn heading(&self) -> String {
        if !self.findings.is_empty() {
            return "nothing could be planned".to_owned();
        }
        let changed = self.of(Standing::Changed).count();
        match (changed, self.hosts.len()) {
            (0, 0) => "no host was looked at".to_owned(),
            (0, _) => "no host would be changed".to_owned(),
            (changed, 1) => format!("{changed} host would be changed"),
            (changed, all) => format!("{changed} of {all} hosts would be changed"),
        }
    }
}

/// Why a host did not go well.
pub(super) fn words(problem: &HostProblem) -> String {
    let (text, hint) = match problem {
        HostProblem::NotBegun(why) => (why.clone(), None),
        HostProblem::Unreachable(why) => (why.to_string(), why.hint.clone()),
        HostProblem::Refused(found) => (diagnostic::render(found, Style::Plain), None),
        HostProblem::Failed { chain, hint, .. } => (chain.join(": "), hint.clone()),
    };
    match hint {
        Some(hint) => format!("{}\nhint: {hint}", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

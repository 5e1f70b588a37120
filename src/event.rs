//! What work says while it runs: data only.
//!
//! Everything that happens to a host is told on a channel of `Event`s; `report`
//! is the only listener that prints. Events carry text from hosts as it came;
//! `report` escapes it.

use std::sync::Arc;

use crate::drift::Finding;
use crate::error::Problems;
use crate::facts::HostFacts;
use crate::plan::HostPlan;
use crate::step::{Slice, StepId};
use crate::transport::Unreachable;
pub use crate::value::HostName;

/// How a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing was to be done.
    Ok,
    /// Changes were found (check mode) or made and read back.
    Changed,
    /// Something went wrong before any change, or what was changed was undone.
    Failed,
    /// What was changed was undone after a failure.
    RolledBack,
    /// No shell of ours could be started there.
    Unreachable,
    /// An undo failed, or it is not known how the run ended: a person is needed.
    Stuck,
    /// Applied, but not confirmed: the host undoes it at a time that is told.
    Unconfirmed,
    /// Another run has the host; nothing was changed.
    Locked,
    /// The host is no longer as it was when the plan was made; nothing was changed.
    Stale,
    /// Not begun, because the run was stopped.
    Skipped,
    /// Begun and not waited for, because the user left: the host finishes or undoes it.
    Left,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// Made and read back.
    Changed,
    /// Failed; what follows is its undo.
    Failed,
    /// Undone.
    Undone,
    /// The undo failed.
    UndoFailed,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A host was connected to and read.
    Facts {
        /// The host.
        host: HostName,
        /// What was seen.
        facts: Arc<HostFacts>,
    },
    /// How the cards of a host are sliced before it is changed, and how they are to be.
    Slices {
        /// The host.
        host: HostName,
        /// Its cards.
        cards: Arc<Vec<CardSlices>>,
    },
    /// A host's plan is made.
    Planned {
        /// The host.
        host: HostName,
        /// Its plan; empty if nothing is to be done.
        plan: Arc<HostPlan>,
    },
    /// All plans are made that will be, in the inventory's order; each was told
    /// by `Planned` already.
    Plans(Vec<(HostName, Arc<HostPlan>)>),
    /// What differs on a host from what was last applied there, and from what is wanted.
    Drift {
        /// The host.
        host: HostName,
        /// The run that was applied last, if there was one.
        last: Option<String>,
        /// What differs; empty if nothing does.
        findings: Arc<Vec<Finding>>,
    },
    /// A step begins.
    StepStart {
        /// The host.
        host: HostName,
        /// The step.
        step: StepId,
    },
    /// A step ended.
    StepEnd {
        /// The host.
        host: HostName,
        /// The step.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// What the host said; empty unless it failed.
        message: String,
    },
    /// A host is done.
    HostEnd {
        /// The host.
        host: HostName,
        /// How.
        outcome: Outcome,
        /// Why, if it did not go well.
        problem: Option<HostProblem>,
    },
    /// A finding about the user's files.
    Diagnostics(Problems),
    /// A sentence for the user.
    Note {
        /// The host that it is about, if any.
        host: Option<HostName>,
        /// The sentence.
        text: String,
    },
}

/// How a card is sliced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardSlices {
    /// What it is called in plans.
    pub name: String,
    /// Its key in the catalog, or its ids.
    pub model: String,
    /// How it stands, in a few words.
    pub state: String,
    /// Units of the grid that its instances lie on.
    pub grid: Option<u32>,
    /// The instances that are there.
    pub slices: Vec<Slice>,
    /// How it is to be sliced, where that is managed.
    pub technology: Option<&'static str>,
    /// Whether something differs from what is wanted; none where it could not be compared.
    pub differs: Option<bool>,
    /// Slices of any technology, by kind.
    pub counts: Vec<SliceCount>,
}

/// Slices of one kind on one card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceCount {
    /// What makes them.
    pub technology: &'static str,
    /// What they are called.
    pub profile: String,
    /// How many there should be, where that is managed and known.
    pub wanted: Option<u32>,
    /// How many there are.
    pub found: u32,
}

/// Why a host did not go well.
#[derive(Debug, Clone)]
pub enum HostProblem {
    /// It was not begun, because others failed or the user stopped; why, in a sentence.
    NotBegun(String),
    /// It could not be reached.
    Unreachable(Unreachable),
    /// Planning found something: refusals, template errors, failed assertions.
    Refused(Problems),
    /// A step, the connection or the host's tools failed.
    Failed {
        /// The step, if one had begun.
        step: Option<StepId>,
        /// What happened, outermost first.
        chain: Vec<String>,
        /// What to do.
        hint: Option<String>,
    },
}

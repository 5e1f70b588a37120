//! What differs on a host, three ways: as it is found, as it was last applied, as it is wanted.
//!
//! `Drifted` is what somebody changed on the host since, `pending` what is newly wanted; a
//! thing can be both. Two plans over the same reads say so: one made of what was recorded
//! when something was last applied, one of what is written today. Pure: no host is asked
//! here, and nothing is changed.

mod lines;
mod rules;
mod variable;

use crate::plan::HostPlan;
use crate::step::{Change, Class, Step, StepId};

pub use lines::{LineFinding, Side};
pub use rules::{Ignored, Rules, Window};
pub use variable::{VARIABLE, read as rules};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The step that would mend it, by which it is known; with its host an address.
    pub step: StepId,
    /// What that step does, in a few words.
    pub title: String,
    /// How careful to be.
    pub class: Class,
    /// From found to last applied; none if it is as it was applied, or nothing ever was.
    pub drift: Option<Change>,
    /// From found to wanted, where that is something else than what was last applied.
    pub pending: Option<Change>,
    /// The lines of a file that differ.
    pub lines: Vec<LineFinding>,
    /// The rule that says that it does not count, and why.
    pub ignored: Option<String>,
    /// Who may have changed it, as far as the host can tell.
    pub who: Vec<String>,
    /// How often it was mended before, and came back each time.
    pub mended: u32,
    /// Whether it came back too often to be mended once more without a person.
    pub flapping: bool,
    /// Why it is not mended now, in a few words.
    pub held: Option<String>,
}

impl Finding {
    /// Whether somebody changed it on the host, and that counts.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.drift.is_some() && self.ignored.is_none()
    }

    /// Whether something else is wanted than was last applied, and that counts.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some() && self.ignored.is_none()
    }

    /// In a word or two.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (&self.drift, &self.pending) {
            _ if self.ignored.is_some() => "ignored",
            (Some(_), _) if self.flapping => "flapping",
            (Some(_), Some(_)) => "drifted and pending",
            (Some(_), None) => "drifted",
            (None, _) => "pending",
        }
    }

    /// The change that is shown: back to what was applied, or else to what is wanted.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        self.drift.as_ref().or(self.pending.as_ref())
    }
}

/// What differs, in the order of the plans. `applied` is the plan that leads back to what was
/// last applied, if anything was; `wanted` the one that leads to what is wanted today.
///
/// What is done rather than set (a command, a restart) follows from something that is set,
/// and is no difference of its own. What is as wanted is none either, even if something else
/// was applied last: there is nothing to do about it.
#[must_use]
pub fn compare(applied: Option<&HostPlan>, wanted: &HostPlan) -> Vec<Finding> {
    let back = applied.map_or(&[][..], |plan| &plan.steps);
    let mut found: Vec<Finding> = back
        .iter()
        .filter(|step| is_state(&step.change))
        .filter_map(|step| {
            let now = wanted.steps.iter().find(|other| other.id == step.id)?;
            let pending = (!same_end(&step.change, &now.change)).then(|| now.change.clone());
            Some(finding(step, Some(step.change.clone()), pending))
        })
        .collect();
    for step in &wanted.steps {
        let known = back.iter().any(|other| other.id == step.id);
        if is_state(&step.change) && !known {
            found.push(finding(step, None, Some(step.change.clone())));
        }
    }
    found
}

/// A plan without what has no finding that counts, is ignored or is held back: what it leaves
/// stays as it is found.
#[must_use]
pub fn mending(
    mut plan: HostPlan,
    findings: &[Finding],
    counts: impl Fn(&Finding) -> bool,
) -> HostPlan {
    let mended = |step: &Step| {
        let of_step = |finding: &&Finding| finding.step == step.id;
        let finding = findings.iter().find(of_step);
        finding.is_some_and(|finding| counts(finding) && finding.held.is_none())
    };
    plan.steps
        .retain(|step| !is_state(&step.change) || mended(step));
    plan
}

fn finding(step: &Step, drift: Option<Change>, pending: Option<Change>) -> Finding {
    Finding {
        step: step.id.clone(),
        title: step.title.clone(),
        class: step.class,
        lines: lines::of(drift.as_ref(), pending.as_ref()),
        drift,
        pending,
        ignored: None,
        who: Vec::new(),
        mended: 0,
        flapping: false,
        held: None,
    }
}

/// Whether a change is of something that stands, so that it can differ.
fn is_state(change: &Change) -> bool {
    matches!(
        change,
        Change::Path { .. } | Change::Layout { .. } | Change::Setting { .. }
    )
}

/// Whether two changes lead to the same.
fn same_end(one: &Change, other: &Change) -> bool {
    match (one, other) {
        (Change::Path { after, .. }, Change::Path { after: also, .. }) => after == also,
        (Change::Layout { after, .. }, Change::Layout { after: also, .. }) => after == also,
        (Change::Setting { after, .. }, Change::Setting { after: also, .. }) => after == also,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests;

//! What differs on a host, three ways: as it is found, as it was last applied, as it is wanted.
//!
//! `Drifted` is what somebody changed on the host since, `pending` what is newly wanted; a
//! thing can be both. Two plans over the same reads say so: one made of what was recorded
//! when something was last applied, one of what is written today. Pure: no host is asked
//! here, and nothing is changed.

mod lines;
mod managed;
mod rules;
mod variable;

use managed::Managed;

use crate::plan::{Complete, HostPlan};
use crate::step::{Change, Class, PathLook, Phase, Step, StepId};
use crate::text::printable_line;

pub use lines::{LineFinding, Side};
pub use rules::{Ignored, Rules, Window};
pub use variable::{VARIABLE, read as rules};

/// What is said of a host on which there is nothing to go back to.
pub const NOTHING_APPLIED: &str = "nothing was applied here by this playbook yet: all is pending";

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
    /// How often mending it was begun before; it came back each time, or could not be mended.
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
/// last applied, if anything was; `wanted` the one that leads to what is wanted today, if that
/// could be planned.
///
/// What is done rather than set (a command, a restart) follows from something that is set,
/// and is no difference of its own. What is as wanted is none either, even if something else
/// was applied last: there is nothing to do about it. But of what is wanted no longer, that it
/// was changed since it was applied is told.
#[must_use]
pub fn compare(applied: Option<&HostPlan>, wanted: Option<&Complete>) -> Vec<Finding> {
    let back = applied.map_or(&[][..], |plan| &plan.steps);
    let newly = wanted.map_or(&[][..], |wanted| &wanted.plan.steps);
    // Only a step that is not planned today asks for it.
    let managed = wanted.filter(|_| !back.is_empty()).map(Managed::of);
    let mut found: Vec<Finding> = back
        .iter()
        .filter(|step| is_state(&step.change))
        .filter_map(|step| {
            let pending = match newly.iter().find(|other| other.id == step.id) {
                Some(now) if same_end(&step.change, &now.change) => None,
                Some(now) => Some(now.change.clone()),
                None if managed.as_ref().is_some_and(|asked| asked.has(step)) => return None,
                None => None,
            };
            Some(finding(step, Some(step.change.clone()), pending))
        })
        .collect();
    for step in newly {
        let known = back.iter().any(|other| other.id == step.id);
        if is_state(&step.change) && !known {
            found.push(finding(step, None, Some(step.change.clone())));
        }
    }
    found
}

/// Says of the finding about a file what stands in its place, which only a person takes away.
pub fn stands_instead(findings: &mut [Finding], path: &str, instead: &PathLook) {
    for finding in findings {
        let mut is_it = false;
        for change in [&mut finding.drift, &mut finding.pending] {
            if let Some(Change::Path {
                path: own, before, ..
            }) = change
                && own == path
            {
                *before = instead.clone();
                is_it = true;
            }
        }
        if is_it {
            finding.held = Some(format!(
                "it needs a person: a folder stands at {}, and what is in it would be lost",
                printable_line(path, LONGEST_TITLE)
            ));
        }
    }
}

/// Longest title that a reason quotes, in characters.
const LONGEST_TITLE: usize = 120;

/// What is carried out of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Mending {
    /// All of it.
    Whole(HostPlan),
    /// Not all: what is ignored, held back or not asked for stays as it is found. What is
    /// recorded as last applied stays as it is too, for this is less than it says.
    Part(HostPlan),
    /// Nothing, for the reason given: what would be left out cannot be told apart.
    Held(String),
}

/// What is carried out of `plan`, which was made with leave and usage as they are now, where
/// `at_rest` is the plan that the findings are of.
///
/// A command, a restart, a drain or a unit that is stopped meanwhile belongs to the whole plan:
/// which change asked for it is not known here, and it may carry the looks that keep a card in
/// use from being touched. So a plan that has one is carried out whole or not at all.
#[must_use]
pub fn mending(
    mut plan: HostPlan,
    at_rest: &HostPlan,
    findings: &[Finding],
    counts: impl Fn(&Finding) -> bool,
) -> Mending {
    let mended = |step: &Step| {
        let of_step = |finding: &&Finding| finding.step == step.id;
        let finding = findings.iter().find(of_step);
        finding.is_some_and(|finding| counts(finding) && finding.held.is_none())
    };
    let left_out = |step: &&Step| is_state(&step.change) && !mended(step);
    let Some(left) = at_rest.steps.iter().find(left_out) else {
        return Mending::Whole(plan);
    };
    let companion = |step: &&Step| is_companion(step, at_rest);
    let belongs = match (plan.steps.iter().find(companion), plan.handlers.first()) {
        (Some(step), _) => &step.title,
        (None, Some(handler)) => &handler.name,
        (None, None) => {
            let stays = |step: &Step| !is_state(&step.change) || mended(step);
            plan.steps.retain(stays);
            plan.applied = None;
            return Mending::Part(plan);
        }
    };
    Mending::Held(format!(
        "it needs a person: what is to be mended cannot be told apart from {}, which is left as it is, for `{}` may belong to both",
        printable_line(&left.id.to_string(), LONGEST_TITLE),
        printable_line(belongs, LONGEST_TITLE)
    ))
}

/// Whether a step belongs to others rather than to a finding of its own.
fn is_companion(step: &Step, at_rest: &HostPlan) -> bool {
    if matches!(step.change, Change::Check { .. }) {
        return false;
    }
    let found = |other: &Step| other.id == step.id && same_end(&other.change, &step.change);
    !is_state(&step.change)
        || matches!(step.phase, Phase::Drain | Phase::Undrain)
        || !at_rest.steps.iter().any(found)
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

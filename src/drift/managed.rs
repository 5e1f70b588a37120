//! Whether a plan has anything to say of a thing that it does not change: whether it found it as
//! wanted, or did not ask for it at all.
//!
//! A plan says what it looked at, in its reads, its files and the slices that it wants. Of a
//! path that is exact. Of anything else it is told by the names in the step's address, in doubt
//! for the plan: what it may have found as wanted is not called drift.

use serde_json::json;

use crate::plan::Complete;
use crate::step::{Change, Step};

/// Whether a plan that has no step of this address asked for the thing.
pub(super) fn by(plan: &Complete, step: &Step) -> bool {
    if let Change::Path { path, .. } = &step.change {
        return plan.looked_at(path);
    }
    let text = json!([plan.reads, plan.plan.desired]).to_string();
    let words: Vec<&str> = step.id.0.split(':').collect();
    let names = match words.as_slice() {
        [_, names @ ..] if !names.is_empty() => names,
        _ => words.as_slice(),
    };
    let subject = names.split_last().map(|(_, subject)| subject.join(":"));
    let has = |word: &str| word.is_empty() || word == "-" || text.contains(word);
    subject.is_some_and(|subject| !subject.is_empty() && text.contains(&subject))
        || names.iter().all(|name| has(name))
}

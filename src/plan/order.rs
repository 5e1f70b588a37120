//! The order of steps, and what one step's undo owes to another.

use crate::shell::{Command, Word};
use crate::step::{Change, Class, Step, StepId};

/// Tasks' order, with what cannot be undone after everything else. A plan that
/// changes nothing checks nothing: what it would check was just read.
pub(super) fn order(steps: Vec<Step>) -> Vec<Step> {
    let changes = |step: &Step| !matches!(step.change, Change::Check { .. });
    if !steps.iter().any(changes) {
        return Vec::new();
    }
    let (one_way, mut ordered): (Vec<Step>, Vec<Step>) = steps
        .into_iter()
        .partition(|step| step.class == Class::OneWay);
    ordered.extend(one_way);
    ordered
}

/// What a reader should know of the steps as a whole.
pub(super) fn notes(steps: &[Step]) -> Option<String> {
    let names: Vec<&str> = steps
        .iter()
        .filter(|step| step.class == Class::OneWay)
        .map(|step| step.title.as_str())
        .collect();
    (!names.is_empty()).then(|| format!("cannot be undone once made: {}", names.join("; ")))
}

/// A handler restarts a unit because files changed. When those are put back, it must
/// be restarted once more, and only after the last of them; the first step that
/// notified is undone last, so it does that. `from` is where the handler's steps begin.
pub(super) fn undo_again(steps: &mut [Step], from: usize, first: &StepId) {
    let mut again = Vec::new();
    for step in steps.iter_mut().skip(from) {
        let Some(last) = step.apply.0.last() else {
            continue;
        };
        let is_systemctl =
            matches!(last.words.first(), Some(Word::Text(word)) if word == "systemctl");
        if !is_systemctl || !matches!(step.change, Change::Action { .. }) {
            continue;
        }
        let mark = format!("snapshot/done-{}", crate::module::key(&step.id));
        let mut call = Command::new("if_marked").run_path(&mark);
        call.words.extend(last.words.iter().cloned());
        again.push(call);
        step.apply
            .0
            .insert(0, Command::new("touch").run_path(&mark));
    }
    if let Some(notifier) = steps.iter_mut().find(|step| step.id == *first) {
        notifier.undo.0.extend(again);
    }
}

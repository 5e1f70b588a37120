//! The order of steps, the one reboot among them, and what one step's undo owes
//! to another.

use crate::shell::{Command, Word};
use crate::step::{Change, Class, Step, StepId};

/// Begin of the ids of what belongs to a reboot: waits and tests.
const OF_REBOOT: &str = "reboot:";
/// A wait that comes right before the reboot, not after it.
const BEFORE_REBOOT: &str = "reboot:wait-before";
/// Begin of the ids of what a reboot takes away again, or of what looks at that.
const RUNTIME: [&str; 6] = [
    "mig:",
    "timeslice:",
    "sriov:",
    "gpu:undrain",
    "gpu:validation",
    "gpu:health",
];

/// Tasks' order, with what cannot be undone after everything else, and with at most
/// one reboot. A plan that changes nothing checks nothing: what it would check was
/// just read. Also what to say of it.
///
/// Several reboots become one, in the place of the last: all that any of them was to
/// put in force is there by then. What was planned to come after the first because a
/// reboot takes it away again moves behind it, as do waits and tests. What cannot be
/// undone stays on its side of the reboot.
pub(super) fn order(mut steps: Vec<Step>) -> (Vec<Step>, Vec<String>) {
    let changes = |step: &Step| !matches!(step.change, Change::Check { .. });
    if !steps.iter().any(changes) {
        return (Vec::new(), Vec::new());
    }
    let Some(first) = steps.iter().position(is_reboot) else {
        let (one_way, mut ordered) = split(steps, is_one_way);
        ordered.extend(one_way);
        let notes = one_way_note(&ordered).into_iter().collect();
        return (ordered, notes);
    };
    let last = steps.iter().rposition(is_reboot).unwrap_or(first);
    let mut after = steps.split_off(last);
    let between = steps.split_off(first);
    let (mut reboots, between) = split(between, is_reboot);
    let (bound, between) = split(between, comes_after);
    steps.extend(between);
    let own = after.remove(0);
    reboots.push(own);
    let (waits, steps) = split(steps, |step| step.id.0.starts_with(BEFORE_REBOOT));
    let (later_waits, after) = split(after, |step| step.id.0.starts_with(BEFORE_REBOOT));
    let (own_after, after) = split(after, |step| step.id.0.starts_with(OF_REBOOT));
    let (own_bound, bound) = split(bound, |step| step.id.0.starts_with(OF_REBOOT));
    let (one_way_before, mut ordered) = split(steps, is_one_way);
    let stays: Vec<String> = one_way_before
        .iter()
        .map(|step| format!("`{}`", step.title))
        .collect();
    ordered.extend(one_way_before);
    ordered.extend(waits);
    ordered.extend(later_waits);
    let tasks = reboots.len();
    ordered.extend(merged(reboots));
    ordered.extend(own_bound);
    ordered.extend(own_after);
    let (one_way_after, after) = split(bound.into_iter().chain(after).collect(), is_one_way);
    ordered.extend(after);
    ordered.extend(one_way_after);
    let mut said: Vec<String> = one_way_note(&ordered).into_iter().collect();
    if !stays.is_empty() {
        said.push(format!(
            "made before the reboot, so that it stays if something fails afterwards: {}",
            stays.join(", ")
        ));
    }
    if tasks > 1 {
        said.push(
            "several tasks ask for a reboot: there is one, in the place of the last".to_owned(),
        );
    }
    (ordered, said)
}

fn split(steps: Vec<Step>, to_left: impl Fn(&Step) -> bool) -> (Vec<Step>, Vec<Step>) {
    steps.into_iter().partition(|step| to_left(step))
}

fn is_one_way(step: &Step) -> bool {
    step.class == Class::OneWay
}

fn is_reboot(step: &Step) -> bool {
    matches!(step.change, Change::Reboot { .. })
}

/// Whether a step behind the first reboot must stay behind the one that is made.
fn comes_after(step: &Step) -> bool {
    let begins = |start: &str| step.id.0.starts_with(start);
    (step.id.0.starts_with(OF_REBOOT) && !step.id.0.starts_with(BEFORE_REBOOT))
        || RUNTIME.iter().any(|start| begins(start))
}

/// One reboot for all reasons, with the longest of the times.
fn merged(reboots: Vec<Step>) -> Option<Step> {
    let mut all = reboots.into_iter();
    let mut one = all.next()?;
    for other in all {
        let (Change::Reboot { why }, Change::Reboot { why: more }) =
            (&mut one.change, other.change)
        else {
            continue;
        };
        for reason in more {
            if !why.contains(&reason) {
                why.push(reason);
            }
        }
        for call in other.check.0 {
            if !one.check.0.contains(&call) {
                one.check.0.push(call);
            }
        }
        one.timeout_s = one.timeout_s.max(other.timeout_s);
    }
    Some(one)
}

/// Which steps cannot be undone once they are made, if there are any.
fn one_way_note(steps: &[Step]) -> Option<String> {
    let names: Vec<&str> = steps
        .iter()
        .filter(|step| is_one_way(step))
        .map(|step| step.title.as_str())
        .collect();
    (!names.is_empty()).then(|| format!("cannot be undone once made: {}", names.join("; ")))
}

/// A handler restarts a unit because files changed. When those are put back, it must
/// be restarted once more, and only after the last of them; of the steps that notified
/// the first that can be undone is undone last, so it does that. `from` is where the
/// handler's steps begin.
pub(super) fn undo_again(steps: &mut [Step], from: usize, notified_by: &[StepId]) {
    let notifier = steps
        .iter()
        .take(from)
        .position(|step| notified_by.contains(&step.id) && !is_one_way(step));
    let Some(notifier) = notifier else {
        return;
    };
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
    if let Some(notifier) = steps.get_mut(notifier) {
        notifier.undo.0.extend(again);
    }
}

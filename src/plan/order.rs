//! The order of steps, the one reboot among them, and what one step's undo owes
//! to another.

use crate::shell::Command;
use crate::step::{Change, Class, Phase, Step, StepId};

/// Tasks' order, with what cannot be undone after everything else, and with at most
/// one reboot. A plan that changes nothing checks nothing: what it would check was
/// just read. Also what to say of it.
///
/// Several reboots become one, in the place of the last: all that any of them was to
/// put in force is there by then. What was planned to come after the first because a
/// reboot takes it away again moves behind it, as do waits and tests. What cannot be
/// undone stays on its side of the reboot.
pub(super) fn order(mut steps: Vec<Step>) -> (Vec<Step>, Vec<String>) {
    if !steps.iter().any(Step::is_change) {
        return (Vec::new(), Vec::new());
    }
    let Some(first) = steps.iter().position(Step::is_reboot) else {
        let (one_way, mut ordered) = split(steps, is_one_way);
        ordered.extend(one_way);
        let notes = one_way_note(&ordered).into_iter().collect();
        return (ordered, notes);
    };
    let last = steps.iter().rposition(Step::is_reboot).unwrap_or(first);
    let mut after = steps.split_off(last);
    let between = steps.split_off(first);
    let (mut reboots, between) = split(between, Step::is_reboot);
    let (bound, between) = split(between, |step| step.phase.is_after_reboot());
    steps.extend(between);
    let own = after.remove(0);
    reboots.push(own);
    let (waits, steps) = split(steps, |step| step.phase == Phase::BeforeReboot);
    let (later_waits, after) = split(after, |step| step.phase == Phase::BeforeReboot);
    let (own_after, after) = split(after, |step| step.phase == Phase::AfterReboot);
    let (own_bound, bound) = split(bound, |step| step.phase == Phase::AfterReboot);
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
        if step.again.is_empty() {
            continue;
        }
        let mark = format!("snapshot/done-{}", step.id.key());
        again.extend(step.again.0.iter().map(|repeated| {
            let mut call = Command::new("if_marked").run_path(&mark);
            call.words.extend(repeated.words.iter().cloned());
            call
        }));
        step.apply
            .0
            .insert(0, Command::new("touch").run_path(&mark));
    }
    if let Some(notifier) = steps.get_mut(notifier) {
        notifier.undo.0.extend(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, phase: Phase) -> Step {
        let change = match phase {
            Phase::Reboot => Change::Reboot { why: Vec::new() },
            _ => Change::Action {
                what: id.to_owned(),
            },
        };
        Step {
            phase,
            ..Step::new(StepId(id.to_owned()), "t", id.to_owned(), change)
        }
    }

    #[test]
    fn the_phase_of_a_step_gives_its_side_of_the_reboot_and_its_id_does_not() {
        let steps = vec![
            step("mig:a file of that name", Phase::InPlace),
            step("a reboot", Phase::Reboot),
            step("driver:reload", Phase::Runtime),
            step("reboot:no wait", Phase::InPlace),
            step("cmdline:iommu", Phase::Prepare),
            step("look", Phase::Check),
            step("pause", Phase::AfterReboot),
            step("another", Phase::Reboot),
            step("late", Phase::InPlace),
            step("breath", Phase::BeforeReboot),
        ];
        let (ordered, _) = order(steps);
        let ids: Vec<&str> = ordered.iter().map(|step| step.id.0.as_str()).collect();
        assert_eq!(
            ids,
            [
                "mig:a file of that name",
                "reboot:no wait",
                "cmdline:iommu",
                "breath",
                "a reboot",
                "pause",
                "driver:reload",
                "look",
                "late",
            ]
        );
    }
}

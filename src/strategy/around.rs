//! What stands around the steps of a host's cards, whatever their technology: their
//! order, what follows all of them, and the user's drain and undrain commands.
//!
//! It knows steps by their phase, class and scripts only, so that a new technology
//! needs no word here.

use crate::desired::StateManagement;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::usage;

/// Seconds that the user's drain or undrain command may take.
const TIMEOUT_S: u32 = 600;

/// The call of a step that changes what containers see of a card: the container device
/// specification does not follow by itself.
pub(super) fn cdi_refresh() -> Script {
    Script::one(Command::new("cdi_refresh"))
}

/// All steps of a host's cards in the order of their phases, with what belongs around them.
pub(super) fn arranged(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(|step| step.phase);
    follow(&mut steps);
    steps
}

/// Puts what steps are followed by into the scripts: once after the last of those that
/// name it, and once after the last of them was undone, which is the first that was made.
fn follow(steps: &mut [Step]) {
    let mut calls: Vec<Command> = Vec::new();
    for call in steps.iter().flat_map(|step| &step.followed_by.0) {
        if !calls.contains(call) {
            calls.push(call.clone());
        }
    }
    for call in calls {
        let names = |step: &&mut Step| step.followed_by.0.contains(&call);
        if let Some(first) = steps.iter_mut().find(names) {
            first.undo.0.push(call.clone());
        }
        if let Some(last) = steps.iter_mut().rev().find(names) {
            last.apply.0.push(call.clone());
        }
    }
    for step in steps {
        step.followed_by = Script::default();
    }
}

/// Where the user gave a drain command, work is taken off before the first disruptive step
/// and let back after the last. Whether a card is idle can then be told only in between.
pub(super) fn drain(steps: &mut Vec<Step>, state: &StateManagement) {
    if steps.iter().all(|step| step.class == Class::Safe) {
        return;
    }
    let before_reboot = look_again_when_drained(steps);
    let drain = command(&state.drain_command.value);
    let undrain = command(&state.undrain_command.value);
    let mut off = users_step("gpu:drain", "drain the host", Phase::Drain);
    off.apply.clone_from(&drain);
    off.apply.0.extend(before_reboot);
    off.undo.clone_from(&undrain);
    steps.push(off);
    if !undrain.is_empty() {
        let mut back = users_step("gpu:undrain", "undrain the host", Phase::Undrain);
        back.apply = undrain;
        back.undo = drain;
        steps.push(back);
    }
    steps.sort_by_key(|step| step.phase);
}

/// Moves the question whether a card is idle from before the first change to right before the
/// step's own. Gives back what a reboot asks, which has no script of its own: what it ends must
/// be gone once all is drained.
pub(super) fn look_again_when_drained(steps: &mut [Step]) -> Vec<Command> {
    let mut before_reboot = Vec::new();
    for step in steps {
        let (idle, check): (Vec<_>, Vec<_>) =
            step.check.0.drain(..).partition(usage::is_idle_check);
        step.check.0 = check;
        if step.is_reboot() {
            before_reboot.extend(idle);
        } else {
            step.apply.0.splice(0..0, idle);
        }
    }
    before_reboot
}

fn command(words: &[String]) -> Script {
    match words.split_first() {
        Some((program, arguments)) => Script::one(Command::new(program).args(arguments)),
        None => Script::default(),
    }
}

fn users_step(id: &str, title: &str, phase: Phase) -> Step {
    let change = Change::Action {
        what: title.to_owned(),
    };
    Step {
        class: Class::Disruptive,
        phase,
        timeout_s: TIMEOUT_S,
        ..Step::new(StepId(id.to_owned()), usage::TASK, title.to_owned(), change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, phase: Phase, followed_by: &[&str]) -> Step {
        let what = String::new();
        Step {
            phase,
            apply: Script::one(Command::new("do").arg(id)),
            undo: Script::one(Command::new("undo").arg(id)),
            followed_by: Script(followed_by.iter().copied().map(Command::new).collect()),
            ..Step::new(
                StepId(id.to_owned()),
                "t",
                id.to_owned(),
                Change::Action { what },
            )
        }
    }

    fn calls(script: &Script) -> Vec<String> {
        script.0.iter().map(Command::display).collect()
    }

    #[test]
    fn what_a_boot_takes_away_comes_behind_what_readies_it_and_before_what_lasts() {
        let mut steps = vec![
            step("file", Phase::InPlace, &[]),
            step("slice 0", Phase::Runtime, &[]),
            step("back", Phase::Undrain, &[]),
            step("slice 1", Phase::Runtime, &[]),
            step("boot", Phase::Reboot, &[]),
            step("mode", Phase::Prepare, &[]),
            step("off", Phase::Drain, &[]),
        ];
        steps = arranged(steps);
        let ids: Vec<&str> = steps.iter().map(|step| step.id.0.as_str()).collect();
        assert_eq!(
            ids,
            ["off", "mode", "boot", "slice 0", "slice 1", "file", "back"]
        );
    }

    #[test]
    fn what_follows_is_called_once_after_all_that_name_it_and_after_their_undo() {
        let mut steps = vec![
            step("a", Phase::Runtime, &["refresh"]),
            step("b", Phase::Runtime, &["refresh", "reload"]),
            step("c", Phase::Runtime, &[]),
        ];
        steps = arranged(steps);
        assert_eq!(calls(&steps[0].apply), ["do a"]);
        assert_eq!(calls(&steps[0].undo), ["undo a", "refresh"]);
        assert_eq!(calls(&steps[1].apply), ["do b", "refresh", "reload"]);
        assert_eq!(calls(&steps[1].undo), ["undo b", "reload"]);
        assert_eq!(calls(&steps[2].apply), ["do c"]);
        assert!(steps.iter().all(|step| step.followed_by.is_empty()));
    }
}

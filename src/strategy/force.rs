//! `apply_strategy: force`: units that hold a card are stopped before it is changed and
//! started again afterwards, each as a step that the plan shows.
//!
//! Only services are stopped: what stands in a container or was started by hand has nobody
//! who would start it again, and is refused as without `force`.

use std::collections::BTreeMap;

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::{around, usage};

/// Seconds that a service may take to stop or to start; systemd's own default is 90.
const TIMEOUT_S: u32 = 180;

/// Services that hold cards which are to be changed, with the cards' labels.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<String, Vec<String>>);

impl Held {
    /// Takes in who holds a card.
    pub(super) fn add(&mut self, gpu: &Gpu, problems: &mut Problems) {
        let Fact::Known(holders) = &gpu.holders else {
            return usage::refuse_if_used(gpu, problems);
        };
        for holder in holders.iter().filter(|holder| usage::is_user(holder)) {
            let service = holder
                .unit
                .known()
                .filter(|unit| unit.ends_with(".service"));
            match (service, holder.container.known()) {
                (Some(unit), None) => {
                    let cards = self.0.entry(unit.clone()).or_default();
                    if !cards.contains(&gpu.label()) {
                        cards.push(gpu.label());
                    }
                }
                _ => problems.push(
                    Diagnostic::error(format!(
                        "{} is in use by {}; it is not touched",
                        gpu.label(),
                        usage::describe(gpu, holder)
                    ))
                    .hint("`apply_strategy: force` stops services alone, because it starts them again; stop this yourself, or give `drain_command`"),
                ),
            }
        }
    }

    /// Puts the stops before `steps` and the starts behind them.
    pub(super) fn put_around(self, steps: &mut Vec<Step>) {
        if self.0.is_empty() || steps.iter().all(|step| !step.is_change()) {
            return;
        }
        // Before the first change and before a rollback nobody else may hold the cards; once
        // the services have stopped, nobody at all.
        let but: Vec<String> = self.0.keys().cloned().collect();
        let mut others: Vec<Command> = Vec::new();
        for call in steps.iter().flat_map(|step| &step.check.0) {
            let call = usage::but_for(call, &but);
            if usage::is_idle_check(&call) && !others.contains(&call) {
                others.push(call);
            }
        }
        let before_reboot = around::look_again_when_drained(steps);
        for step in &mut *steps {
            for call in &mut step.idle.0 {
                *call = usage::but_for(call, &but);
            }
        }
        let last = self.0.len().saturating_sub(1);
        for (number, (unit, cards)) in self.0.into_iter().enumerate() {
            let mut stop = unit_step(&unit, "stop", &cards, Phase::Drain);
            if number == 0 {
                stop.check.0.append(&mut others);
            }
            if number == last {
                stop.apply.0.extend(before_reboot.iter().cloned());
            }
            steps.push(stop);
            steps.push(unit_step(&unit, "start", &cards, Phase::Undrain));
        }
        steps.sort_by_key(|step| step.phase);
    }
}

fn unit_step(unit: &str, verb: &str, cards: &[String], phase: Phase) -> Step {
    let (before, after, title) = match phase {
        Phase::Drain => (
            "active",
            "inactive",
            format!("stop {unit}, which uses {}", cards.join(", ")),
        ),
        _ => ("inactive", "active", format!("start {unit} again")),
    };
    let change = Change::Setting {
        subject: format!("unit {unit}"),
        name: "state".to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let id = StepId(format!("gpu:force:{verb}:{unit}"));
    let key = id.key();
    let undone = if verb == "stop" { "start" } else { "stop" };
    let mut step = Step {
        class: Class::Disruptive,
        phase,
        timeout_s: TIMEOUT_S,
        apply: Script::one(Command::new("systemctl").args([verb, "--", unit])),
        verify: Script::one(Command::new("unit_is").arg(unit).arg(after)),
        undo: Script::one(Command::new("systemctl").args([undone, "--", unit])),
        ..Step::new(id, usage::TASK, title, change)
    };
    if phase == Phase::Drain {
        // The start has no snapshot of its own: what was before it is what the stop made.
        step.check = Script::one(Command::new("unit_is").arg(unit).arg(before));
        step.snapshot = Script::one(Command::new("unit_snapshot").arg(&key).arg(unit));
        step.undo = Script::one(Command::new("unit_restore").arg(&key).arg(unit));
    }
    step
}

//! Who uses a card, and the refusal to touch it then.

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Holder};
use crate::shell::Command;
use crate::step::Step;

/// The task that steps belong to until the playbook's own name is put there.
pub(super) const TASK: &str = "slice the GPUs";

/// nvidia-persistenced holds every card and is no user of it. The kernel cuts names at 15 bytes.
const NO_USER: &str = "nvidia-persiste";

/// The call that succeeds while nobody uses the card.
pub(super) fn idle_check(gpu: &Gpu) -> Command {
    Command::new("gpu_idle").arg(gpu.pci.to_string())
}

/// Whether a call is one of `idle_check`.
pub(super) fn is_idle_check(command: &Command) -> bool {
    let program = crate::shell::Word::Text("gpu_idle".to_owned());
    command.words.first() == Some(&program)
}

/// Whether a step must not be made while the card is in use.
pub(super) fn needs_idle(step: &Step) -> bool {
    step.check.0.iter().any(is_idle_check)
}

/// Adds a finding if somebody uses the card, or if that could not be found out.
pub(super) fn refuse_if_used(gpu: &Gpu, problems: &mut Problems) {
    let holders = match &gpu.holders {
        Fact::Known(holders) => holders,
        Fact::Absent => return,
        Fact::Unknown(reason) => {
            problems.push(Diagnostic::error(format!(
                "who uses {} could not be found out, so it is not touched: {reason}",
                gpu.label()
            )));
            return;
        }
    };
    let named: Vec<String> = holders
        .iter()
        .filter(|holder| !holder.command.starts_with(NO_USER))
        .map(describe)
        .collect();
    if named.is_empty() {
        return;
    }
    problems.push(
        Diagnostic::error(format!(
            "{} is in use by {}; it is not touched",
            gpu.label(),
            named.join(", ")
        ))
        .hint("stop what uses it, or give `containers_gpu_state_management.drain_command`"),
    );
}

fn describe(holder: &Holder) -> String {
    let mut text = format!("pid {} ({}", holder.pid, holder.command);
    if let Some(unit) = holder.unit.known() {
        text.push_str(", unit ");
        text.push_str(unit);
    }
    if let Some(container) = holder.container.known() {
        text.push_str(", container ");
        text.push_str(container);
    }
    text.push(')');
    text
}

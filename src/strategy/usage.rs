//! Who uses a card, and the refusal to touch it then.

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Holder};
use crate::shell::Command;
use crate::step::Step;

/// The task that steps belong to until the playbook's own name is put there.
pub(super) const TASK: &str = "slice the GPUs";

/// nvidia-persistenced holds every card and is no user of it. The kernel cuts names at 15 bytes.
const NO_USER: &str = "nvidia-persiste";

/// MPS daemons of ours are no users either: whoever uses the card through one has it open too.
const MPS: (&str, &str) = ("nvidia-cuda-mps", "deploy-mps-");

/// The call that succeeds while nobody uses the card.
pub(super) fn idle_check(gpu: &Gpu) -> Command {
    Command::new("gpu_idle").arg(gpu.pci.to_string())
}

/// Whether a call succeeds only while nobody uses something: a card, or one of its vGPUs.
pub(super) fn is_idle_check(command: &Command) -> bool {
    ["gpu_idle", "mig_idle", "vgpu_free"]
        .iter()
        .any(|function| calls(command, function))
}

/// The same call, to which these services do not count as users.
pub(super) fn but_for(call: &Command, services: &[String]) -> Command {
    match calls(call, "gpu_idle") || calls(call, "mig_idle") {
        true => call.clone().args(services.iter().map(String::as_str)),
        // A vGPU is held by virtual machines, which no service here starts again.
        false => call.clone(),
    }
}

/// Whether a step must not be made while anybody uses the card.
pub(super) fn needs_idle(step: &Step) -> bool {
    let mut calls_of = step.check.0.iter();
    calls_of.any(|command| calls(command, "gpu_idle") || calls(command, "mig_idle"))
}

/// Whether a step must not be made while anybody uses any part of the card.
pub(super) fn needs_whole_card(step: &Step) -> bool {
    let mut calls_of = step.check.0.iter();
    calls_of.any(|command| calls(command, "gpu_idle"))
}

fn calls(command: &Command, function: &str) -> bool {
    let program = crate::shell::Word::Text(function.to_owned());
    command.words.first() == Some(&program)
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
        .filter(|holder| is_user(holder))
        .map(|holder| describe(gpu, holder))
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
        .hint("stop what uses it, or give `drain_command` or, for services, `apply_strategy: force` in `containers_gpu_state_management`"),
    );
}

/// Whether a process that holds a card is a user of it.
pub(super) fn is_user(holder: &Holder) -> bool {
    let (command, unit) = MPS;
    let is_of = |name: &String| name.starts_with(unit);
    let is_ours = holder.command.starts_with(command) && holder.unit.known().is_some_and(is_of);
    !holder.command.starts_with(NO_USER) && !is_ours
}

/// Whether somebody uses the card; none where that cannot be told.
#[must_use]
pub fn in_use(gpu: &Gpu) -> Option<bool> {
    let holders = gpu.holders.known()?;
    Some(holders.iter().any(is_user))
}

/// Whether somebody has this GPU instance of the card open.
pub(super) fn uses_instance(gpu: &Gpu, gi_id: u32) -> bool {
    let holders = gpu.holders.known().map_or(&[][..], Vec::as_slice);
    let mut users = holders.iter().filter(|holder| is_user(holder));
    users.any(|holder| holder.instances.contains(&gi_id))
}

pub(super) fn describe(gpu: &Gpu, holder: &Holder) -> String {
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
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    let instances = mig.and_then(|mig| mig.instances.known());
    let held = instances
        .into_iter()
        .flatten()
        .filter(|instance| holder.instances.contains(&instance.gi_id));
    for instance in held {
        text.push_str(&format!(" on {}", instance.profile));
        let compute = instance.compute.known().map_or(&[][..], Vec::as_slice);
        let uuids: Vec<&str> = compute
            .iter()
            .filter_map(|ci| ci.uuid.known())
            .map(String::as_str)
            .collect();
        if !uuids.is_empty() {
            text.push_str(&format!(" ({})", uuids.join(", ")));
        }
    }
    text
}

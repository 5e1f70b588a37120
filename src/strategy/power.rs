//! What a reboot of the host means for slices.
//!
//! Some changes take effect only at a boot, and a boot takes away most of what was
//! set. So steps are planned either for the host as it is, or for a host that has just
//! booted: then what the hardware forgets is made again, also where it is as wanted now.

use crate::facts::{Gpu, HostFacts};
use crate::shell::Script;
use crate::step::{Change, Class, Phase, Step, StepId};

use super::usage;

/// How leave for a reboot is given; the hint of every finding that misses it.
pub const HOW_TO_ALLOW: &str = "give leave with `--allow-reboot`, or with `containers_gpu_state_management: {reboot_required: true}`; the plan then restarts the host once and goes on by itself";

/// Seconds within which a host must be up again, where nobody says another time:
/// Ansible's default.
pub const REBOOT_TIMEOUT_S: u32 = 600;

/// What steps may know of reboots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Boot {
    /// Whether there is leave to restart the host.
    pub allowed: bool,
    /// Whether an earlier step of the plan restarts it.
    pub before: bool,
}

/// When a card's steps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// On the host as it was seen.
    Now,
    /// After a reboot, which takes instances, virtual functions and time slices away.
    AfterBoot,
}

/// The step that restarts a host. Its id is the same wherever it comes from, as there
/// is one in a plan.
#[must_use]
pub fn reboot_step(task: &str, why: Vec<String>, timeout_s: u32) -> Step {
    let id = StepId("reboot".to_owned());
    let title = "restart the host".to_owned();
    Step {
        class: Class::Disruptive,
        phase: Phase::Reboot,
        timeout_s,
        ..Step::new(id, task, title, Change::Reboot { why })
    }
}

/// The reboot that slices need: refused while anybody uses any card of the host, since
/// it ends all of that.
pub(super) fn reboot_for(why: Vec<String>, facts: &HostFacts) -> Step {
    let mut step = reboot_step(usage::TASK, why, REBOOT_TIMEOUT_S);
    step.check = Script(facts.gpus.iter().map(usage::idle_check).collect());
    step
}

/// Whether the card keeps MIG mode over a reboot, and changes it only by a reset or a
/// reboot: Ampere, compute capability 8.x. None where that is not known.
pub(super) fn keeps_mode(gpu: &Gpu) -> Option<bool> {
    let capability = gpu.nvidia.known()?.compute_capability.known()?;
    Some(*capability < 90)
}

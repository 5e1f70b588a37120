//! What the daemons have in common that learn of the cards by the vendor's tool: Docker and
//! containerd. Which tool, and what it writes, they know themselves.

use sha2::{Digest, Sha256};

use crate::desired::{Desired, Located};
use crate::error::Problems;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::text::hex;
use crate::transport::PathState;

/// `gpu_docker`, `gpu_containerd`.
pub(super) struct Wanted {
    /// `default_runtime`: whether containers get the vendor's runtime without asking.
    pub(super) default_runtime: Located<bool>,
    /// `restart`: whether the daemon is restarted, without which it does not read its files.
    pub(super) restart: Located<bool>,
}

/// Reads the block of a daemon.
pub(super) fn read(desired: &Desired, variable: &'static str, problems: &mut Problems) -> Wanted {
    let mut block = super::block(desired, variable, problems);
    let wanted = Wanted {
        default_runtime: block.flag("default_runtime", false),
        restart: block.flag("restart", true),
    };
    block.finish();
    wanted
}

/// The hash of a file that was looked at; of nothing where nothing stands there. None of what
/// is no file.
pub(super) fn sum_of(state: &PathState) -> Option<String> {
    match state {
        PathState::File { sha256, .. } => Some(sha256.clone()),
        PathState::Absent => Some(sha256("")),
        _ => None,
    }
}

/// That a file is still as it was looked at. Only its hash goes into scripts and saved plans:
/// it may hold the credentials of a registry or of a proxy.
pub(super) fn as_it_was(path: &str, sum: Option<&str>) -> Script {
    Script::one(match sum {
        Some(sum) => Command::new("docker_file_is").path(path).arg(sum),
        None => Command::new("true"),
    })
}

/// The hash of a text, as `sum_of` has it.
pub(super) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Has it read its files; `what` becomes of its containers.
pub(super) fn restart(unit: &str, what: &str) -> Step {
    let what = format!("restart {unit}: {what}");
    let change = Change::Action { what: what.clone() };
    let name = unit.strip_suffix(".service").unwrap_or(unit);
    let mut step = Step::new(StepId(format!("{name}:restart")), "", what, change);
    step.class = Class::Disruptive;
    step.check = Script::one(Command::new("unit_is").args([unit, "active"]));
    step.apply = Script::one(Command::new("systemctl").args(["restart", "--", unit]));
    step.verify = Script::one(Command::new("unit_is").args([unit, "active"]));
    // The undo of its files restarts it.
    step.undo = Script::one(Command::new("true"));
    step.timeout_s = 180;
    step
}

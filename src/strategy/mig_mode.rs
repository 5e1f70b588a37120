//! MIG mode of a card, as steps: at once, by a reset, or by a reboot.
//!
//! Ampere keeps the mode over a reboot and changes it only by a reset or a reboot;
//! Hopper and later change it at once and forget it at every boot.

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, MigMode, MigState, NvidiaGpu};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::around;
use super::power::{HOW_TO_ALLOW, When};
use super::usage;

/// Seconds that a change of the mode, with a reset, may take.
const TIMEOUT_S: u32 = 300;

/// What the mode is called in plans.
const SETTING: &str = "MIG mode";

/// A card's mode as it is and as it is wanted.
pub(super) struct Mode<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) nvidia: &'a NvidiaGpu,
    pub(super) mig: &'a MigState,
    pub(super) wanted: MigMode,
    /// Whether a change waits for a reset and outlives a reboot (Ampere).
    pub(super) keeps: bool,
    /// Whether a reset may be tried where a change stays pending.
    pub(super) may_reset: bool,
}

impl Mode<'_> {
    fn can_reset(&self) -> bool {
        self.gpu.reset == Fact::Known(true)
    }

    fn is_pending(&self) -> bool {
        self.mig.current != self.wanted && self.mig.pending == self.wanted
    }

    /// Whether only a reboot brings the mode about; why, in a sentence.
    pub(super) fn waits_for_reboot(&self) -> Option<String> {
        if self.mig.current == self.wanted || !self.waits() {
            return None;
        }
        let label = self.gpu.label();
        let now = name(self.mig.current).to_lowercase();
        let then = name(self.wanted).to_lowercase();
        Some(match self.is_pending() {
            true => format!(
                "MIG mode of {label} is {now} and has been waiting for a reset or a reboot to be {then}"
            ),
            false => format!("MIG mode of {label} is {now} and can be {then} only after a reboot"),
        })
    }

    fn waits(&self) -> bool {
        match self.is_pending() {
            true => !self.can_reset(),
            false => self.keeps && matches!(self.gpu.reset, Fact::Known(false) | Fact::Absent),
        }
    }

    /// The step that brings the mode about; none if it is so.
    ///
    /// # Errors
    /// Only a reboot brings it about, and none comes before.
    pub(super) fn step(&self, when: When) -> Result<Option<Step>, Problems> {
        match when {
            When::Now => self.now(),
            When::AfterBoot if self.keeps => {
                Ok((self.mig.current != self.wanted).then(|| self.in_force()))
            }
            // It is forgotten at every boot.
            When::AfterBoot if self.wanted == MigMode::Enabled => Ok(Some(self.switch())),
            When::AfterBoot => Ok((!self.is_so()).then(|| self.switch())),
        }
    }

    /// The step that has the coming reboot bring the mode about, or keep it.
    pub(super) fn before_boot(&self) -> Option<Step> {
        (self.keeps && self.mig.pending != self.wanted).then(|| self.prepare())
    }

    fn is_so(&self) -> bool {
        self.mig.current == self.wanted && self.mig.pending == self.wanted
    }

    fn now(&self) -> Result<Option<Step>, Problems> {
        if self.is_so() {
            return Ok(None);
        }
        if self.mig.current == self.wanted || !self.waits() {
            return Ok(Some(self.switch()));
        }
        let label = self.gpu.label();
        let (message, hint) = match self.is_pending() {
            true => (
                format!(
                    "{label}: MIG mode is {} and becomes {} at the next reset; it cannot be sliced before",
                    name(self.mig.current).to_lowercase(),
                    name(self.mig.pending).to_lowercase(),
                ),
                format!(
                    "the host already waits for a reboot, as the kernel offers no reset of this card: restart it and run again, or {HOW_TO_ALLOW}"
                ),
            ),
            false => (
                format!(
                    "{label}: MIG mode can be {}d only by a reboot, as the kernel offers no reset of this card; there is no leave for a reboot, so nothing is changed",
                    self.verb()
                ),
                HOW_TO_ALLOW.to_owned(),
            ),
        };
        Err(Diagnostic::error(message).hint(hint).into())
    }

    fn verb(&self) -> &'static str {
        match self.wanted {
            MigMode::Enabled => "enable",
            MigMode::Disabled => "disable",
        }
    }

    fn switch(&self) -> Step {
        let label = self.gpu.label();
        let reset = self.can_reset() && (self.may_reset || self.is_pending());
        let verb = self.verb();
        let title = match (self.mig.current == self.wanted, self.is_pending()) {
            (true, _) if self.is_so() => {
                format!("{verb} MIG mode on {label} again, which forgets it at a reboot")
            }
            (true, _) => format!("keep MIG mode {verb}d on {label}, where a change is pending"),
            (false, true) => format!("reset {label}, where MIG mode waits to be {verb}d"),
            (false, false) if self.keeps && reset => format!(
                "{verb} MIG mode on {label}, with a reset of the card if the driver needs it (nvidia-persistenced stops meanwhile)"
            ),
            (false, false) => format!("{verb} MIG mode on {label}"),
        };
        let mut step = self.bare(format!("mig:{}:mode", self.gpu.pci), title);
        step.apply = Script::one(self.call("mig_mode", self.wanted, reset));
        step.verify = Script::one(self.is(self.wanted, self.wanted));
        step.undo = Script::one(self.call("mig_mode_back", self.mig.current, reset));
        if reset {
            // A reset stops the persistence daemon for a moment. Whoever is killed in that
            // moment leaves it so.
            let kept = format!("snapshot/persistenced-{}", self.gpu.pci);
            let daemon = |function: &str| Command::new(function).run_path(&kept);
            step.snapshot = Script::one(daemon("mig_daemon_save"));
            step.undo = step.undo.then(daemon("mig_daemon_restore"));
        }
        step
    }

    fn prepare(&self) -> Step {
        let label = self.gpu.label();
        let verb = self.verb();
        let title = match self.mig.current == self.wanted {
            true => format!("keep MIG mode {verb}d on {label}, where a change is pending"),
            false => format!("have the reboot {verb} MIG mode on {label}"),
        };
        let mut step = self.bare(format!("mig-pending:{}:mode", self.gpu.pci), title);
        step.phase = Phase::Prepare;
        step.apply = Script::one(self.call("mig_mode_prepare", self.wanted, false));
        step.verify = Script::one(self.pends());
        step.undo = Script::one(self.call("mig_mode_back", self.mig.current, false));
        step
    }

    fn in_force(&self) -> Step {
        let label = self.gpu.label();
        let what = format!("MIG mode of {label} is {}d by the reboot", self.verb());
        let mut step = self.bare(
            format!("mig:{}:in-force", self.gpu.pci),
            format!("check that {what}"),
        );
        step.class = Class::Safe;
        step.change = Change::Check { what };
        step.check = Script::default();
        step.idle = Script::default();
        step.followed_by = Script::default();
        step.verify = Script::one(self.is(self.wanted, self.wanted));
        step
    }

    fn bare(&self, id: String, title: String) -> Step {
        let change = Change::Setting {
            subject: self.gpu.label(),
            name: SETTING.to_owned(),
            before: self.mig.current.to_string(),
            after: self.wanted.to_string(),
        };
        Step {
            class: Class::Disruptive,
            phase: Phase::Runtime,
            check: Script::one(self.is(self.mig.current, self.mig.pending))
                .then(usage::idle_check(self.gpu)),
            idle: Script::one(usage::idle_check(self.gpu)),
            followed_by: around::cdi_refresh(),
            timeout_s: TIMEOUT_S,
            ..Step::new(StepId(id), usage::TASK, title, change)
        }
    }

    fn call(&self, function: &str, mode: MigMode, reset: bool) -> Command {
        let number = match mode {
            MigMode::Enabled => "1",
            MigMode::Disabled => "0",
        };
        let command = Command::new(function).arg(&self.nvidia.uuid.0).arg(number);
        match reset {
            true => command.arg("reset"),
            false => command,
        }
    }

    fn is(&self, current: MigMode, pending: MigMode) -> Command {
        Command::new("mig_mode_is")
            .arg(&self.nvidia.uuid.0)
            .arg(name(current))
            .arg(name(pending))
    }

    fn pends(&self) -> Command {
        Command::new("mig_mode_pends")
            .arg(&self.nvidia.uuid.0)
            .arg(name(self.wanted))
    }
}

fn name(mode: MigMode) -> &'static str {
    match mode {
        MigMode::Enabled => "Enabled",
        MigMode::Disabled => "Disabled",
    }
}

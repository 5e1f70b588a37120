//! What guards a run: how long the host waits before it undoes it by itself.
//!
//! Computed from the plan alone, so that it can be shown before anything is done.
//! What the guard does, `apply` knows.

use serde::{Deserialize, Serialize};

use crate::facts::{HostFacts, Init};
use crate::step::{Change, Class, Step};

/// Seconds for a new connection after the last step: a few tries of TCP, key
/// exchange and authentication, with the default limit of 10 s for each stage.
pub const RECONNECT_S: u32 = 60;

/// What watches over a run on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// What it is made of.
    pub kind: GuardKind,
    /// Who says that the run went well.
    pub confirm: Confirm,
    /// Seconds after the last step (or after the end of a boot) within which the run
    /// must be confirmed: as long as the slowest step may take, and a new connection.
    pub window_s: u32,
}

/// What a guard is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardKind {
    /// A timer of systemd, and a unit that undoes the run at the next boot.
    Timer,
    /// A process of its own. Weaker: it does not outlive a reboot.
    Process,
}

/// Who says that a run went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirm {
    /// The host itself, once all was read back: nothing that was done could cut it off.
    Host,
    /// Whoever started it, through a new TCP connection and authentication.
    NewConnection,
}

impl Guard {
    /// The guard of these steps; none if they change nothing.
    #[must_use]
    pub fn of(steps: &[Step], facts: &HostFacts) -> Option<Self> {
        if !steps
            .iter()
            .any(|step| !matches!(step.change, Change::Check { .. }))
        {
            return None;
        }
        // A reboot has a limit of its own; the window counts from the end of the boot.
        let slowest = steps
            .iter()
            .filter(|step| !is_reboot(step))
            .map(|step| step.timeout_s)
            .max()
            .unwrap_or(0);
        // A command of the user's that cannot be undone may do anything, too.
        let cuts = |step: &Step| step.class != Class::Safe || is_reboot(step);
        Some(Self {
            kind: match facts.init {
                Init::Systemd => GuardKind::Timer,
                Init::Other(_) => GuardKind::Process,
            },
            confirm: match steps.iter().any(cuts) {
                true => Confirm::NewConnection,
                false => Confirm::Host,
            },
            window_s: slowest.saturating_add(RECONNECT_S),
        })
    }
}

fn is_reboot(step: &Step) -> bool {
    matches!(step.change, Change::Reboot { .. })
}

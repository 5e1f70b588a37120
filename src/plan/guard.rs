//! What guards a run: how long the host waits before it undoes it by itself.
//!
//! Computed from the plan alone, so that it can be shown before anything is done.
//! What the guard does, `apply` knows.

use serde::{Deserialize, Serialize};

use crate::facts::{HostFacts, Init};
use crate::step::{Class, Step};

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
        if !steps.iter().any(Step::is_change) {
            return None;
        }
        // A reboot has a limit of its own; the window counts from the end of the boot.
        let slowest = steps
            .iter()
            .filter(|step| !step.is_reboot())
            .map(|step| step.timeout_s)
            .max()
            .unwrap_or(0);
        // A command of the user's that cannot be undone may do anything, too.
        let cuts = |step: &Step| step.class != Class::Safe || step.is_reboot();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Change, StepId};

    fn host(init: Init) -> HostFacts {
        HostFacts {
            init,
            ..HostFacts::default()
        }
    }

    fn step(class: Class, change: Change, timeout_s: u32) -> Step {
        Step {
            class,
            timeout_s,
            ..Step::new(StepId(format!("{change:?}")), "", String::new(), change)
        }
    }

    fn action(class: Class, timeout_s: u32) -> Step {
        let what = "something".to_owned();
        step(class, Change::Action { what }, timeout_s)
    }

    fn check(timeout_s: u32) -> Step {
        let what = "all is well".to_owned();
        step(Class::Safe, Change::Check { what }, timeout_s)
    }

    fn reboot(timeout_s: u32) -> Step {
        step(
            Class::Disruptive,
            Change::Reboot { why: Vec::new() },
            timeout_s,
        )
    }

    fn guard(steps: &[Step]) -> Option<Guard> {
        Guard::of(steps, &host(Init::Systemd))
    }

    #[test]
    fn what_changes_nothing_needs_no_guard() {
        assert_eq!(guard(&[]), None);
        assert_eq!(guard(&[check(60)]), None);
    }

    #[test]
    fn the_window_outlasts_the_slowest_step_and_a_new_connection() {
        let steps = [
            action(Class::Safe, 60),
            action(Class::Safe, 300),
            check(120),
        ];
        let found = guard(&steps).expect("a guard");
        assert_eq!(found.window_s, 300 + RECONNECT_S);
        assert_eq!(found.confirm, Confirm::Host);
        let forever = guard(&[action(Class::Safe, u32::MAX)]).expect("a guard");
        assert_eq!(forever.window_s, u32::MAX);
    }

    #[test]
    fn a_reboot_has_its_own_limit_and_the_window_counts_from_the_end_of_the_boot() {
        let found = guard(&[action(Class::Safe, 60), reboot(3600)]).expect("a guard");
        assert_eq!(found.window_s, 60 + RECONNECT_S);
        assert_eq!(found.confirm, Confirm::NewConnection);
        assert_eq!(
            guard(&[reboot(3600)]).map(|g| g.window_s),
            Some(RECONNECT_S)
        );
    }

    #[test]
    fn what_may_cut_the_connection_is_confirmed_through_a_new_one() {
        for class in [Class::Disruptive, Class::OneWay] {
            let steps = [action(Class::Safe, 60), action(class, 60)];
            let found = guard(&steps).expect("a guard");
            assert_eq!(found.confirm, Confirm::NewConnection, "{class:?}");
        }
    }

    #[test]
    fn without_systemd_the_guard_is_a_process() {
        let other = host(Init::Other("busybox".to_owned()));
        let kind = Guard::of(&[action(Class::Safe, 1)], &other).map(|guard| guard.kind);
        assert_eq!(kind, Some(GuardKind::Process));
    }
}

//! The one table of exit codes.

use crate::event::Outcome;

/// How the whole command ended. The numbers stand here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing to do, or everything done.
    Done,
    /// Something was wrong before any host was changed.
    Refused,
    /// Check mode found changes.
    ChangesFound,
    /// Hosts failed; what they had changed was undone.
    SomeFailed,
    /// Hosts could not be reached, none failed.
    SomeUnreachable,
    /// An undo failed, or an end is not known: a person is needed.
    PersonNeeded,
    /// The command line was wrong.
    Usage,
    /// The user interrupted.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::ChangesFound => 2,
            Self::SomeFailed => 3,
            Self::SomeUnreachable => 4,
            Self::PersonNeeded => 5,
            Self::Usage => 64,
            Self::Interrupted => 130,
        }
    }

    /// What several hosts' ends come to: a stuck host weighs most, then one that was
    /// left, then a failed one, then an unreachable one, then one that another run has,
    /// or that is not as planned, then a found change. Of the last two kinds a host counts
    /// as failed where others were changed: then it is no error before any change.
    #[must_use]
    pub fn of(outcomes: impl IntoIterator<Item = Outcome>, check: CheckMode) -> Self {
        let outcomes: Vec<Outcome> = outcomes.into_iter().collect();
        let changed = check == CheckMode::Off && outcomes.contains(&Outcome::Changed);
        let mut exit = Self::Done;
        for outcome in outcomes {
            let this = match outcome {
                Outcome::Ok | Outcome::Skipped => Self::Done,
                Outcome::Changed if check == CheckMode::On => Self::ChangesFound,
                Outcome::Changed => Self::Done,
                Outcome::Failed | Outcome::RolledBack => Self::SomeFailed,
                Outcome::Unreachable => Self::SomeUnreachable,
                Outcome::Stuck | Outcome::Unconfirmed => Self::PersonNeeded,
                Outcome::Locked | Outcome::Stale if changed => Self::SomeFailed,
                Outcome::Locked | Outcome::Stale => Self::Refused,
                Outcome::Left => Self::Interrupted,
            };
            if this.weight() > exit.weight() {
                exit = this;
            }
        }
        exit
    }

    /// The same where the user interrupted: only that a person is needed weighs more.
    #[must_use]
    pub fn interrupted(self) -> Self {
        match self {
            Self::PersonNeeded => self,
            _ => Self::Interrupted,
        }
    }

    fn weight(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::ChangesFound => 1,
            Self::Refused => 2,
            Self::SomeUnreachable => 3,
            Self::SomeFailed => 4,
            Self::Interrupted => 5,
            Self::PersonNeeded | Self::Usage => 6,
        }
    }
}

/// Whether hosts are only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckMode {
    /// Nothing is changed; found changes end with their own code.
    On,
    /// Changes are made.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_ends_weigh_stuck_then_failed_then_unreachable() {
        use Outcome::{Changed, Failed, Ok, Stuck, Unreachable};
        let of = |outcomes: &[Outcome]| Exit::of(outcomes.iter().copied(), CheckMode::Off).code();
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[Ok, Changed]), 0);
        assert_eq!(of(&[Ok, Unreachable]), 4);
        assert_eq!(of(&[Failed, Unreachable]), 3);
        assert_eq!(of(&[Failed, Stuck, Unreachable]), 5);
    }

    #[test]
    fn what_nobody_confirmed_needs_a_person() {
        use Outcome::{Failed, Left, Unconfirmed};
        let of = |outcomes: &[Outcome]| Exit::of(outcomes.iter().copied(), CheckMode::Off).code();
        assert_eq!(of(&[Unconfirmed]), 5);
        assert_eq!(of(&[Failed, Left, Unconfirmed]), 5);
        assert_eq!(of(&[Failed, Left]), 130);
    }

    #[test]
    fn a_host_that_another_run_has_is_an_error_before_any_change_only_if_there_was_none() {
        use Outcome::{Changed, Failed, Locked, Ok, Stale, Unreachable};
        let of = |outcomes: &[Outcome]| Exit::of(outcomes.iter().copied(), CheckMode::Off).code();
        assert_eq!(of(&[Locked]), 1);
        assert_eq!(of(&[Ok, Locked]), 1);
        assert_eq!(of(&[Changed, Locked]), 3);
        assert_eq!(of(&[Changed, Locked, Unreachable]), 3);
        assert_eq!(of(&[Locked, Unreachable]), 4);
        assert_eq!(of(&[Locked, Failed]), 3);
        assert_eq!(of(&[Stale, Ok]), 1);
        assert_eq!(of(&[Stale, Changed]), 3);
    }

    #[test]
    fn an_interrupted_run_ends_as_such_unless_a_person_is_needed() {
        assert_eq!(Exit::Done.interrupted().code(), 130);
        assert_eq!(Exit::SomeFailed.interrupted().code(), 130);
        assert_eq!(Exit::PersonNeeded.interrupted().code(), 5);
    }

    #[test]
    fn changes_count_only_in_check_mode() {
        assert_eq!(Exit::of([Outcome::Changed], CheckMode::On).code(), 2);
        assert_eq!(
            Exit::of([Outcome::Changed, Outcome::Unreachable], CheckMode::On).code(),
            4
        );
    }
}

//! The word in which a host says how a run stands.
//!
//! `host/runner.sh` says what each means and which follows which. What it means for
//! people, together with the lock, is `runs::Status`.

use std::fmt;

/// A word of the file `status` of a run directory, or of `host/attach.sh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStatus {
    /// Nothing was begun.
    Uploaded,
    /// Nothing was changed yet.
    Preparing,
    /// Steps are being made.
    Running,
    /// The host restarts, and goes on at boot.
    Rebooting,
    /// All is made, and is undone in time unless it is confirmed.
    Unconfirmed,
    /// Steps are being undone.
    Undoing,
    /// Applied and read back.
    Done,
    /// Not kept, and all is as before.
    Undone,
    /// Some of it could not be undone.
    UndoFailed,
    /// Undone on request.
    RolledBack,
    /// The host was not as planned; nothing was changed.
    Stale,
    /// Nothing could be changed.
    Failed,
    /// There is no such run on the host.
    Absent,
    /// A word that this version does not know.
    Other(String),
}

impl HostStatus {
    /// Whether the run is neither kept nor undone, so that the host takes no other.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Running | Self::Rebooting | Self::Unconfirmed | Self::Undoing
        )
    }

    fn word(&self) -> &str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::Unconfirmed => "unconfirmed",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::UndoFailed => "undo-failed",
            Self::RolledBack => "rolled-back",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Other(word) => word,
        }
    }
}

/// All words that are known, for reading.
const KNOWN: [HostStatus; 13] = [
    HostStatus::Uploaded,
    HostStatus::Preparing,
    HostStatus::Running,
    HostStatus::Rebooting,
    HostStatus::Unconfirmed,
    HostStatus::Undoing,
    HostStatus::Done,
    HostStatus::Undone,
    HostStatus::UndoFailed,
    HostStatus::RolledBack,
    HostStatus::Stale,
    HostStatus::Failed,
    HostStatus::Absent,
];

impl From<&str> for HostStatus {
    fn from(word: &str) -> Self {
        let known = KNOWN.into_iter().find(|status| status.word() == word);
        known.unwrap_or_else(|| Self::Other(word.to_owned()))
    }
}

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's scripts keep others out for the same words.
    #[test]
    fn the_words_that_are_open_are_the_hosts() {
        let script = include_str!("host/lib/status.sh");
        let (_, open) = script.split_once("is_open() {").expect("it is there");
        let words = open.lines().nth(2).expect("a list");
        let (words, _) = words.split_once(')').expect("a pattern");
        let words: Vec<&str> = words.split('|').map(str::trim).collect();
        for status in &KNOWN {
            assert_eq!(status.is_open(), words.contains(&status.word()), "{status}");
        }
        assert_eq!(words.len(), 4);
    }

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for status in KNOWN {
            assert_eq!(HostStatus::from(status.to_string().as_str()), status);
        }
        assert_eq!(HostStatus::from("x").to_string(), "x");
    }
}

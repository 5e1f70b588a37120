//! Reads the journal that the runner writes, whole or as it grows.
//!
//! A line is `TIME EVENT STEP DETAIL`. The text comes from a host: it is bounded
//! here and escaped by `report`; a line that is no entry is kept as `What::Other`.

use std::borrow::Cow;

use serde::Serialize;

/// Most bytes of one line that are kept; the runner writes at most half of it.
const LINE_LIMIT: usize = 16 * 1024;

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, by the host's clock, in RFC 3339.
    pub time: String,
    /// What.
    pub what: What,
    /// The step's folder, or `-`.
    pub step: String,
    /// What the host said.
    pub detail: String,
}

impl Entry {
    /// When an unconfirmed run is undone, by the host's clock.
    #[must_use]
    pub fn undo_at(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(self.detail.trim().parse().ok()?).ok()
    }
}

/// What an entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The runner has the lock; the detail says who and what for.
    Start,
    /// The host was not as planned; nothing was changed.
    CheckFailed,
    /// What is there could not be kept; nothing was changed.
    SnapshotFailed,
    /// A step begins.
    Apply,
    /// A step was made and read back.
    Done,
    /// A step went well; the detail is what a person should know of it all the same.
    Told,
    /// A step failed.
    ApplyFailed,
    /// A step said that it was made, but it is not there.
    VerifyFailed,
    /// The undo of a step begins.
    Undo,
    /// A step was undone.
    Undone,
    /// A step could not be undone, or is not as before.
    UndoFailed,
    /// A step that cannot be undone stays as it is; the detail says how far it came.
    Kept,
    /// All steps were made, but what was applied could not be recorded.
    RecordFailed,
    /// The guard is set; the detail says what it is.
    Armed,
    /// The guard could not be set; nothing was changed.
    ArmFailed,
    /// All steps were made; the detail is when they are undone unless they are
    /// confirmed, in seconds since 1970.
    Unconfirmed,
    /// Everything is read back once more, through a new connection.
    Confirming,
    /// The guard takes over; the detail says why.
    Guard,
    /// The run is over, but its guard could not be taken away. It does nothing any more.
    DisarmFailed,
    /// The end, with the status.
    End,
    /// A word that this version does not know.
    Other,
}

impl What {
    fn parse(word: &str) -> Self {
        match word {
            "start" => Self::Start,
            "check-failed" => Self::CheckFailed,
            "snapshot-failed" => Self::SnapshotFailed,
            "apply" => Self::Apply,
            "done" => Self::Done,
            "told" => Self::Told,
            "apply-failed" => Self::ApplyFailed,
            "verify-failed" => Self::VerifyFailed,
            "undo" => Self::Undo,
            "undone" => Self::Undone,
            "undo-failed" => Self::UndoFailed,
            "kept" => Self::Kept,
            "record-failed" => Self::RecordFailed,
            "armed" => Self::Armed,
            "arm-failed" => Self::ArmFailed,
            "unconfirmed" => Self::Unconfirmed,
            "confirming" => Self::Confirming,
            "guard" => Self::Guard,
            "disarm-failed" => Self::DisarmFailed,
            "end" => Self::End,
            _ => Self::Other,
        }
    }

    /// Whether something went wrong.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::CheckFailed
                | Self::SnapshotFailed
                | Self::ApplyFailed
                | Self::VerifyFailed
                | Self::UndoFailed
                | Self::Kept
                | Self::RecordFailed
                | Self::ArmFailed
                | Self::Guard
        )
    }
}

/// All entries of a journal.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(entry)
        .collect()
}

fn entry(line: &[u8]) -> Entry {
    let line = String::from_utf8_lossy(&line[..line.len().min(LINE_LIMIT)]);
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (time, what, step, detail) = (word(), word(), word(), word());
    Entry {
        time,
        what: What::parse(&what),
        step,
        detail: unescape(&detail),
    }
}

/// `\n` and `\\` as `runner.sh` writes them.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    plain
}

/// A host's words for a message: no more than 2 KiB, without the newline at the end.
pub(super) fn bounded(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(2048);
    let text: Cow<'_, str> = String::from_utf8_lossy(&bytes[from..]);
    text.trim_end().to_owned()
}

/// Hears what `follow.sh` and `attach.sh` print: `received LINES`, where so many lines
/// of the journal are not printed, the journal, `end CODE STATUS`, and what the runner said.
#[derive(Debug, Default)]
pub(super) struct Follower {
    rest: Vec<u8>,
    received: bool,
    /// Lines of the journal so far, those that were not printed included.
    lines: usize,
    /// Lines that were heard before, on another connection.
    known: usize,
    end: Option<(u8, String)>,
    said: Vec<u8>,
}

impl Follower {
    /// One that passes over the first lines of the journal: they were heard already.
    pub(super) fn after(lines: usize) -> Self {
        Self {
            known: lines,
            ..Self::default()
        }
    }

    /// How many lines the journal has, as far as is known.
    pub(super) fn lines(&self) -> usize {
        self.lines.max(self.known)
    }

    /// Takes the next bytes, however they were cut, and gives the entries that
    /// they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest[from..from + length].to_vec();
            from += length + 1;
            entries.extend(self.line(&line));
        }
        self.rest.drain(..from);
        if self.end.is_some() {
            self.said.append(&mut self.rest);
        }
        if self.rest.len() > LINE_LIMIT {
            // No line of ours is as long; the rest of it is dropped up to here.
            self.rest.truncate(LINE_LIMIT);
        }
        self.said.truncate(LINE_LIMIT);
        entries
    }

    fn line(&mut self, line: &[u8]) -> Option<Entry> {
        if self.end.is_some() {
            self.said.extend_from_slice(line);
            self.said.push(b'\n');
            return None;
        }
        let text = String::from_utf8_lossy(line);
        if text.is_empty() {
            return None;
        }
        if !self.received {
            if let Some(lines) = text.strip_prefix("received") {
                self.received = true;
                self.lines = lines.trim().parse().unwrap_or(0);
            }
            return None;
        }
        if let Some(end) = text.strip_prefix("end ") {
            let (code, status) = end.split_once(' ').unwrap_or((end, ""));
            self.end = Some((code.parse().unwrap_or(255), status.to_owned()));
            return None;
        }
        self.lines += 1;
        if self.lines <= self.known {
            return None;
        }
        Some(entry(line))
    }

    /// Whether the host has all of the run and acts by itself.
    pub(super) fn received(&self) -> bool {
        self.received
    }

    /// Whether the runner's end was heard.
    pub(super) fn ended(&self) -> bool {
        self.end.is_some()
    }

    /// The run's status at the end, empty before it.
    pub(super) fn status(&self) -> &str {
        self.end.as_ref().map_or("", |(_, status)| status)
    }

    /// The runner's exit status; 255 before the end.
    pub(super) fn code(&self) -> u8 {
        self.end.as_ref().map_or(255, |(code, _)| *code)
    }

    /// What the runner said besides its journal.
    pub(super) fn said(&self) -> String {
        bounded(&self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: &str = "received\n\
        2026-11-22T21:00:00Z start - run r by ada\n\
        2026-11-22T21:00:01Z apply 001-a \n\
        2026-11-22T21:00:02Z apply-failed 001-a no \\\\ room\\nat all\n\
        2026-11-22T21:00:02Z undone 001-a \n\
        end 0 undone\nlast words\n";

    #[test]
    fn a_journal_is_heard_the_same_however_it_is_cut() {
        for size in 1..HEARD.len() {
            let mut follower = Follower::default();
            let mut entries = Vec::new();
            for piece in HEARD.as_bytes().chunks(size) {
                entries.extend(follower.push(piece));
            }
            assert_eq!(entries.len(), 4);
            assert_eq!(entries[2].what, What::ApplyFailed);
            assert_eq!(entries[2].detail, "no \\ room\nat all");
            assert_eq!(follower.status(), "undone");
            assert_eq!(follower.code(), 0);
            assert_eq!(follower.said(), "last words");
        }
    }

    #[test]
    fn garbage_is_bounded_and_no_entry() {
        let mut follower = Follower::default();
        assert_eq!(follower.push(&[b'x'; 100_000]), []);
        assert_eq!(follower.push(b"\n\xff\xfe\n"), []);
        assert!(!follower.received());
        assert!(follower.rest.len() <= LINE_LIMIT);
        assert_eq!(parse(b"\xff\xff x\n\n")[0].what, What::Other);
    }
}

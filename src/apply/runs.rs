//! What a host keeps of its runs, read in one batch.
//!
//! `host/list.sh` prints it and describes the form. Reading changes nothing.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::journal::{self, Entry};
use super::manifest::Manifest;
use super::status::HostStatus;
use super::{RunId, STATE_DIR, scripts};
use crate::shell::Command;
use crate::text::moment;
use crate::transport::{Probe, Read, Reply, TransportError};

/// Most bytes that are read of a host's runs: ten manifests with the texts of
/// their diffs, and one journal.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The runs of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRuns {
    /// Who holds the lock now, if somebody does.
    pub lock: Option<String>,
    /// Whether nothing can be written to the host's own folder now: a run that is open
    /// there is undone only when that is possible again.
    pub read_only: bool,
    /// The run that was recorded as last applied.
    pub current: Option<RunId>,
    /// Runs, newest first.
    pub runs: Vec<RunRecord>,
}

/// One run as its host keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// What it was.
    pub manifest: Manifest,
    /// How it stands.
    pub status: Status,
    /// Its journal; read only where this run was asked for.
    pub journal: Vec<Entry>,
}

impl RunRecord {
    /// The run's id, if it is one.
    #[must_use]
    pub fn id(&self) -> Option<RunId> {
        RunId::parse(&self.manifest.run)
    }
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The runner is at it.
    InProgress,
    /// The runner was ended from outside, and the host may be in between.
    Interrupted,
    /// The host restarts, and goes on with the run afterwards.
    Rebooting,
    /// Applied; the host undoes it unless it is confirmed.
    Unconfirmed {
        /// When, by the host's clock.
        undo_at: Option<jiff::Timestamp>,
    },
    /// Ended before anything was changed.
    NotBegun,
    /// The host was not as planned; nothing was changed.
    Stale,
    /// Nothing could be changed.
    Failed,
    /// Applied and read back.
    Done,
    /// Failed, and all is as before.
    Undone,
    /// Some of it could not be undone.
    UndoFailed,
    /// Undone on request.
    RolledBack,
    /// A word that this version does not know.
    Other(String),
}

impl Status {
    fn parse(word: &str, locked: bool) -> Self {
        let (word, undo_at) = word.split_once('@').unwrap_or((word, ""));
        match (HostStatus::from(word), locked) {
            (HostStatus::Rebooting, _) => Self::Rebooting,
            (HostStatus::Unconfirmed, _) => Self::Unconfirmed {
                undo_at: undo_at
                    .parse()
                    .ok()
                    .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
            },
            (HostStatus::Running | HostStatus::Undoing | HostStatus::Preparing, true) => {
                Self::InProgress
            }
            (HostStatus::Running | HostStatus::Undoing, false) => Self::Interrupted,
            (HostStatus::Preparing, false) | (HostStatus::Uploaded, _) => Self::NotBegun,
            (HostStatus::Stale, _) => Self::Stale,
            (HostStatus::Failed, _) => Self::Failed,
            (HostStatus::Done, _) => Self::Done,
            (HostStatus::Undone, _) => Self::Undone,
            (HostStatus::UndoFailed, _) => Self::UndoFailed,
            (HostStatus::RolledBack, _) => Self::RolledBack,
            (other @ (HostStatus::Absent | HostStatus::Other(_)), _) => {
                Self::Other(other.to_string())
            }
        }
    }

    /// The status that a journal's last line names.
    #[must_use]
    pub fn ended(word: &str) -> Self {
        Self::parse(word, false)
    }

    /// Whether there is something to undo.
    #[must_use]
    pub fn can_be_undone(&self) -> bool {
        matches!(
            self,
            Self::Done
                | Self::Interrupted
                | Self::UndoFailed
                | Self::Rebooting
                | Self::Unconfirmed { .. }
        )
    }

    /// Whether the run is neither kept nor undone, so that the host takes no other.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Self::InProgress | Self::Interrupted | Self::Rebooting | Self::Unconfirmed { .. }
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Unconfirmed { undo_at: Some(at) } = self {
            return write!(f, "unconfirmed, undone at {}", moment(*at));
        }
        f.write_str(self.word())
    }
}

impl Status {
    /// The status in a word or two, without the time that belongs to it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Rebooting => "waiting for the restart",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::InProgress => "in progress",
            Self::Interrupted => "interrupted",
            Self::NotBegun => "not begun",
            Self::Stale => "stale plan",
            Self::Failed => "failed",
            Self::Done => "applied",
            Self::Undone => "undone",
            Self::UndoFailed => "undo failed",
            Self::RolledBack => "rolled back",
            Self::Other(word) => word,
        }
    }
}

/// Why a host's runs could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunsError {
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What the host answered is not what our script prints.
    #[error("the host's list of runs cannot be read: {0}")]
    Damaged(String),
}

/// Reads the runs of a host, or only one, with its journal. One round trip.
///
/// # Errors
/// The connection, or an answer that is not in our form.
pub async fn read(probe: &mut dyn Probe, only: Option<&RunId>) -> Result<HostRuns, RunsError> {
    let replies = probe.batch(&[request(only)]).await?;
    match replies.first() {
        Some(Reply::Command(output)) if output.success() && !output.truncated => {
            parse(&output.stdout)
        }
        Some(Reply::Command(output)) => Err(RunsError::Damaged(journal::bounded(&output.stderr))),
        _ => Err(RunsError::Damaged("no answer".to_owned())),
    }
}

fn request(only: Option<&RunId>) -> Read {
    let mut command = Command::new("sh")
        .arg("-c")
        .arg(scripts::list())
        .arg("deploy")
        .path(STATE_DIR);
    if let Some(run) = only {
        command = command.arg(run.as_str());
    }
    Read::Command {
        command,
        timeout: Duration::from_secs(60),
        limit: LIMIT,
    }
}

fn parse(bytes: &[u8]) -> Result<HostRuns, RunsError> {
    let mut reader = Reader(bytes);
    let mut found = HostRuns {
        lock: None,
        read_only: false,
        current: None,
        runs: Vec::new(),
    };
    while let Some(line) = reader.line()? {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        match words[..] {
            ["lock", "free"] => {}
            ["read-only"] => found.read_only = true,
            ["lock", "held", ..] => {
                found.lock = Some(
                    line.strip_prefix("lock held ")
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            ["current", size] => {
                let record: Option<serde_json::Value> =
                    serde_json::from_slice(reader.bytes(size)?).ok();
                found.current =
                    record.and_then(|record| RunId::parse(record.get("run")?.as_str()?));
            }
            ["run", id, status, manifest, journal] => {
                let manifest = reader.bytes(manifest)?;
                let journal = journal::parse(reader.bytes(journal)?);
                let status = Status::parse(status, found.lock.is_some());
                // One that is damaged does not hide the others.
                let (manifest, status) = match serde_json::from_slice::<Manifest>(manifest) {
                    Ok(manifest) if manifest.run == id => (manifest, status),
                    _ => (
                        Manifest::unreadable(id),
                        Status::Other(format!("{status}, its manifest is damaged")),
                    ),
                };
                found.runs.push(RunRecord {
                    status,
                    manifest,
                    journal,
                });
            }
            _ => return Err(RunsError::Damaged(line.chars().take(200).collect())),
        }
    }
    Ok(found)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn line(&mut self) -> Result<Option<&'a str>, RunsError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let damaged = || RunsError::Damaged("it is cut".to_owned());
        let end = self
            .0
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(damaged)?;
        let line = std::str::from_utf8(&self.0[..end]).map_err(|_| damaged())?;
        self.0 = &self.0[end + 1..];
        Ok(Some(line))
    }

    fn bytes(&mut self, size: &str) -> Result<&'a [u8], RunsError> {
        size.parse()
            .ok()
            .and_then(|size| self.0.split_at_checked(size))
            .map(|(bytes, rest)| {
                self.0 = rest;
                bytes
            })
            .ok_or_else(|| RunsError::Damaged("it is cut".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_without_runs_has_none() {
        let runs = parse(b"").expect("nothing is fine");
        assert_eq!(runs.runs, []);
        let runs = parse(b"lock held run x by a from b\ncurrent 0\n").expect("it is in form");
        assert_eq!(runs.lock.as_deref(), Some("run x by a from b"));
        assert_eq!(runs.current, None);
    }

    #[test]
    fn the_lock_tells_a_run_in_progress_from_an_interrupted_one() {
        assert_eq!(Status::parse("running", true), Status::InProgress);
        assert_eq!(Status::parse("running", false), Status::Interrupted);
        assert_eq!(Status::parse("preparing", false), Status::NotBegun);
    }

    proptest! {
        #[test]
        fn no_answer_of_a_host_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in "(run|current|lock)[ 0-9a-z]{0,40}\n.{0,40}") {
            let _ = parse(&bytes);
            let _ = parse(tail.as_bytes());
        }
    }
}

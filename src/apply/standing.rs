//! Runs that are on a host already: going on with one, confirming it, giving it more
//! time, ending it.
//!
//! Each is done by the run's own runner under the host's lock; whoever comes too late is
//! told so by the host.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::runs::{HostRuns, RunRecord, Status};
use super::status::HostStatus;
use super::talk::{Heard, LOCKED, REFUSED, Talk, Verb};
use super::{Connect, HostResult, RunId, STATE_DIR, ending, journal};
use crate::event::{Event, HostProblem, Outcome};
use crate::shell::Command;
use crate::transport::{Exec, FileReply, Read, Reply, Session};
use crate::value::HostName;

/// Goes on with a run that somebody has started: hears it to its end, and confirms it
/// through a new connection where it waits for that.
pub async fn resume<'s>(
    session: Box<dyn Session + 's>,
    connect: &'s dyn Connect,
    record: &RunRecord,
    who: &str,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> HostResult {
    let Some(run) = record.id() else {
        return no_id();
    };
    let heard = Heard::End {
        code: 0,
        status: match &record.status {
            Status::Unconfirmed { .. } => HostStatus::Unconfirmed,
            _ => HostStatus::Running,
        },
        said: String::new(),
    };
    let mut talk = Talk::new(connect, &record.manifest, run, host, events, who);
    let heard = talk.until_the_end(Some(session), heard, true).await;
    ending::of_apply(&talk, &heard)
}

/// Keeps a run that waits for it. The connection counts as the new one that a
/// confirmation needs: whoever asks was not there when the run was made.
pub async fn confirm<'s>(
    mut session: Box<dyn Session + 's>,
    connect: &'s dyn Connect,
    record: &RunRecord,
    who: &str,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> HostResult {
    let Some(run) = record.id() else {
        return no_id();
    };
    let mut talk = Talk::new(connect, &record.manifest, run, host, events, who);
    let heard = talk.ask(session.as_mut(), Verb::Confirm).await;
    let heard = talk.until_the_end(Some(session), heard, false).await;
    match &heard {
        Heard::End {
            code: REFUSED,
            status,
            said,
        } => HostResult::bad(
            if *status == HostStatus::Done {
                Outcome::Ok
            } else {
                Outcome::Failed
            },
            vec![said.clone()],
            None,
        ),
        Heard::End {
            code: LOCKED, said, ..
        } => ending::locked(said),
        _ => ending::of_apply(&talk, &heard),
    }
}

/// Ends what is left of a run that hangs or was killed, and undoes it. Another run's
/// lock is left alone.
pub async fn unlock<'s>(
    mut session: Box<dyn Session + 's>,
    connect: &'s dyn Connect,
    record: &RunRecord,
    who: &str,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> HostResult {
    let Some(run) = record.id() else {
        return no_id();
    };
    let mut talk = Talk::new(connect, &record.manifest, run, host, events, who);
    let heard = talk.ask(session.as_mut(), Verb::Unlock).await;
    let heard = talk.until_the_end(Some(session), heard, false).await;
    ending::of_undo(&talk, &heard)
}

/// Has the guard of a run wait longer, and says until when.
///
/// # Errors
/// The run waits for nothing, or the host could not be asked.
pub async fn extend(
    session: &mut dyn Session,
    run: &RunId,
    by: Duration,
) -> Result<jiff::Timestamp, HostProblem> {
    let problem = |message: String| HostProblem::Failed {
        step: None,
        chain: vec![message],
        hint: Some(format!("`deploy runs show {run}` tells how it stands")),
    };
    let exec = Exec {
        command: Command::new("sh")
            .path(format!("{}/runner.sh", run.directory()))
            .arg("extend")
            .arg(by.as_secs().to_string()),
        stdin: Vec::new(),
        timeout: Duration::from_secs(60),
        limit: 16 * 1024,
    };
    let output = session
        .exec(&exec, &mut |_| {})
        .await
        .map_err(|error| problem(error.to_string()))?;
    let said = journal::bounded(&output.stdout);
    let at = said
        .strip_prefix("undo-at ")
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    match at {
        Some(at) => Ok(at),
        None if said.is_empty() => Err(problem(journal::bounded(&output.stderr))),
        None => Err(problem(said)),
    }
}

/// Where a host says that a run is open on it: the run's id and who owns it.
fn open_path() -> String {
    format!("{STATE_DIR}/open")
}

/// What to read first of all, for `open_run`.
#[must_use]
pub fn open_read() -> Read {
    Read::File {
        path: open_path(),
        limit: 4096,
    }
}

/// The run that is open on the host, from the answer to `open_read`.
#[must_use]
pub fn open_run(read: &Read, reply: &Reply) -> Option<RunId> {
    let (Read::File { path, .. }, Reply::File(FileReply::Content { bytes, .. })) = (read, reply)
    else {
        return None;
    };
    let text = String::from_utf8_lossy(bytes);
    let id = text.split_whitespace().next()?;
    (*path == open_path()).then(|| RunId::parse(id)).flatten()
}

/// How a host stands before it is planned.
#[derive(Debug)]
pub enum Settled {
    /// No run is open there.
    Clear,
    /// A run that nobody was at any more was open, and was undone: what was read of the
    /// host before is no longer true.
    Undone(RunId),
    /// A run is open; the host is not ours now.
    Open(HostResult),
}

/// Sees to it that a host on which `run` is said to be open is not planned in between:
/// one that nobody is at any more, and that no guard is left to undo, is undone now.
pub async fn settle<'s>(
    session: &'s mut (dyn Session + 's),
    connect: &'s dyn Connect,
    runs: &HostRuns,
    run: &RunId,
    who: &str,
    host: &HostName,
    events: &UnboundedSender<Event>,
) -> Settled {
    let named = |record: &&RunRecord| record.id().as_ref() == Some(run);
    let Some(record) = runs.runs.iter().find(named) else {
        return Settled::Clear;
    };
    let mut talk = Talk::new(connect, &record.manifest, run.clone(), host, events, who);
    // Of a closed run it takes away what still says that it is open.
    let heard = talk.ask(session, Verb::Expire).await;
    match heard.status() {
        Some(status) if status.is_open() => {
            let owner = record.manifest.owner();
            Settled::Open(ending::locked(&format!("{owner}: {}", record.status)))
        }
        Some(HostStatus::UndoFailed) | None if record.status.is_open() => {
            Settled::Open(ending::of_undo(&talk, &heard))
        }
        _ if record.status.is_open() => Settled::Undone(run.clone()),
        _ => Settled::Clear,
    }
}

fn no_id() -> HostResult {
    let chain = vec!["the run's id on the host is none of ours".to_owned()];
    HostResult::bad(Outcome::Failed, chain, None)
}

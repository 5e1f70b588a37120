//! The record of what was last applied, where a run had nothing to change: then there is no run
//! directory to bring it along, and yet the host is as it was wanted from now on.
//!
//! A host says in a small file which record it has, so that one that has the right one is asked
//! for nothing more.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{RunContext, STATE_DIR, journal, scripts, upload};
use crate::plan::{Applied, AppliedKey};
use crate::shell::Command;
use crate::text::hex;
use crate::transport::{Exec, FileReply, PathState, Read, Reply, Session};

/// How `record.sh` ends where somebody else is at work.
const AT_WORK: i32 = 75;

/// What of a host tells which record it has.
#[must_use]
pub fn reads(key: &AppliedKey) -> [Read; 2] {
    [
        Read::File {
            path: format!("{STATE_DIR}/{}", key.sums_name()),
            limit: 256,
        },
        Read::State {
            path: format!("{STATE_DIR}/{}", key.file_name()),
            unless: None,
            limit: 0,
        },
    ]
}

/// The sums of a record: of what was planned from, and of the file.
pub(super) fn sums(applied: &Applied, file: &str) -> String {
    let planned = serde_json::to_string(&applied.record).unwrap_or_default();
    let sum = |text: &str| hex(&Sha256::digest(text.as_bytes()));
    format!("{} {}", sum(&planned), sum(file))
}

/// Whether the host has this record already, by the answers to `reads`.
#[must_use]
pub fn is_there(applied: &Applied, answers: &[Reply]) -> bool {
    let [
        Reply::File(FileReply::Content { bytes, .. }),
        Reply::State(PathState::File { sha256, .. }),
    ] = answers
    else {
        return false;
    };
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split_whitespace();
    let planned = sums(applied, "");
    let planned = planned.split_whitespace().next();
    words.next() == planned && words.next() == Some(sha256)
}

/// Puts the record there. Where somebody else is at work on the host nothing is done.
///
/// # Errors
/// Why it could not be put there.
pub async fn put(
    session: &mut dyn Session,
    applied: &Applied,
    context: &RunContext,
) -> Result<(), String> {
    let file = upload::last_applied(&applied.record, None, context);
    let file = serde_json::to_string(&file).map_err(|error| error.to_string())?;
    let exec = Exec {
        command: Command::new("sh")
            .arg("-c")
            .arg(scripts::record())
            .arg("deploy")
            .path(STATE_DIR)
            .arg(applied.key.file_name())
            .arg(file.len().to_string())
            .arg(applied.key.sums_name())
            .arg(sums(applied, &file)),
        stdin: file.into_bytes(),
        timeout: Duration::from_secs(60),
        limit: 16 * 1024,
    };
    let output = session.exec(&exec, &mut |_| {}).await;
    let output = output.map_err(|error| error.to_string())?;
    match output.success() || output.status == AT_WORK {
        true => Ok(()),
        false => Err(journal::bounded(&output.stderr)),
    }
}

//! What is said on the wire: reads into calls of the loop's functions, and the
//! loop's frames back into replies.
//!
//! Pure. `loop.sh` is the other half; a change of one is a change of both and
//! of `VERSION`. All files of a batch go into one call, all states into one,
//! so that the host starts `head`, `stat` and `sha256sum` once.

use std::fmt::Write as _;
use std::time::Duration;

use super::Read;
use crate::shell::{self, Command};

/// Which calls and frames are spoken; `loop.sh` says the same as `d_version`.
/// Remembered reads of another version are not answered.
const VERSION: u32 = 1;

/// Where the host keeps the reads of the last run (below the root prefix).
pub const REMEMBERED: &str = "/var/lib/deploy/remembered";

/// Most bytes of standard error that are kept of one call.
pub(crate) const STDERR_LIMIT: usize = 64 << 10;

/// Paths in one `head`, `stat` or `sha256sum`; far below the system's limit on
/// arguments (2 MiB) with the longest paths (4 KiB) in mind.
const PATHS_PER_CALL: usize = 400;

/// One call of a function of the loop, and which reads it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Files {
        reads: Vec<usize>,
    },
    States {
        reads: Vec<usize>,
    },
    Glob {
        read: usize,
    },
    Run {
        read: usize,
    },
    /// Several commands under one time limit.
    Group {
        reads: Vec<usize>,
    },
    Remembered {
        reads: Vec<usize>,
    },
}

/// A batch as shell text for the loop, with what is needed to read the answer.
#[derive(Debug)]
pub(crate) struct Request {
    /// Text for the loop to evaluate.
    pub(crate) text: String,
    /// When the host must have answered, at the latest.
    pub(crate) patience: Duration,
    /// More bytes than this cannot be an answer to it.
    pub(crate) bytes: u64,
    pub(crate) calls: Vec<Call>,
}

/// What the loop told when it started, and the prefix it was given.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    /// A spelling of `/` that stands before each path in headers.
    pub(crate) noise: String,
    /// Root prefix; empty on real hosts.
    pub(crate) root: String,
}

/// Why a path cannot be asked for; nothing is sent then.
pub(crate) fn unspeakable(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("the path is not absolute");
    }
    if path.contains(['\n', '\0']) {
        return Some("the path holds a line feed or NUL");
    }
    None
}

/// Whole seconds, at least one: what every `timeout` understands.
pub(crate) fn seconds(limit: Duration) -> u64 {
    let whole = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    whole.max(1)
}

/// How the commands of a batch are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// In one shell under one time limit: the fewest programs on the host.
    Together,
    /// Each under its own time limit.
    Alone,
}

/// A shell takes 128 KiB in one argument; groups stay far below.
const GROUP_TEXT: usize = 48 << 10;

/// The reads as one request.
pub(crate) fn request(reads: &[Read], grouping: Grouping) -> Request {
    let mut files: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut states = Vec::new();
    let mut others = Vec::new();
    let mut commands = Vec::new();
    let mut remembered = Vec::new();
    let mut patience = Duration::from_secs(60);
    let mut bytes: u64 = 4 << 20;
    for (index, read) in reads.iter().enumerate() {
        bytes = bytes.saturating_add(8 << 10);
        match read {
            Read::File { path, limit } => {
                if unspeakable(path).is_some() {
                    continue;
                }
                bytes = bytes.saturating_add(*limit);
                match files
                    .iter_mut()
                    .find(|(l, r)| l == limit && r.len() < PATHS_PER_CALL)
                {
                    Some((_, reads)) => reads.push(index),
                    None => files.push((*limit, vec![index])),
                }
            }
            Read::State { path, limit, .. } => {
                if unspeakable(path).is_none() {
                    bytes = bytes.saturating_add(*limit);
                    states.push(index);
                }
            }
            Read::Glob { .. } => {
                bytes = bytes.saturating_add(16 << 20);
                others.push(Call::Glob { read: index });
            }
            Read::Command { timeout, limit, .. } => {
                patience = patience.saturating_add(Duration::from_secs(seconds(*timeout)));
                bytes = bytes.saturating_add(*limit).saturating_add(1 << 20);
                commands.push(index);
            }
            Read::Remembered => {
                patience = patience.saturating_add(Duration::from_secs(600));
                bytes = bytes.saturating_add(256 << 20);
                remembered.push(index);
            }
        }
    }
    let mut calls: Vec<Call> = files
        .into_iter()
        .map(|(_, reads)| Call::Files { reads })
        .collect();
    calls.extend(states.chunks(PATHS_PER_CALL).map(|reads| Call::States {
        reads: reads.to_vec(),
    }));
    calls.append(&mut others);
    match grouping {
        Grouping::Together => calls.extend(groups(&commands, reads)),
        Grouping::Alone => calls.extend(commands.iter().map(|read| Call::Run { read: *read })),
    }
    // Last, because how many frames it answers with is not known beforehand.
    if !remembered.is_empty() {
        calls.push(Call::Remembered { reads: remembered });
    }
    let mut text = String::new();
    for call in &calls {
        write_call(&mut text, call, reads);
    }
    Request {
        text,
        patience,
        bytes,
        calls,
    }
}

/// Commands in groups; one that would be alone in its group needs none.
fn groups(commands: &[usize], reads: &[Read]) -> Vec<Call> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in commands {
        let Read::Command { command, .. } = &reads[*index] else {
            continue;
        };
        let length = command.to_sh().len();
        match groups.last_mut() {
            Some((sum, group)) if *sum + length < GROUP_TEXT => {
                *sum += length;
                group.push(*index);
            }
            _ => groups.push((length, vec![*index])),
        }
    }
    let groups = groups.into_iter().map(|(_, group)| group);
    groups
        .map(|group| match group.as_slice() {
            [read] => Call::Run { read: *read },
            _ => Call::Group { reads: group },
        })
        .collect()
}

fn write_call(text: &mut String, call: &Call, reads: &[Read]) {
    match call {
        Call::Files { reads: indices } => {
            let limit = indices.iter().find_map(|index| match &reads[*index] {
                Read::File { limit, .. } => Some(*limit),
                _ => None,
            });
            let mut command =
                Command::new("d_files").arg(limit.unwrap_or(0).saturating_add(1).to_string());
            for index in indices {
                if let Read::File { path, .. } = &reads[*index] {
                    command = command.path(path);
                }
            }
            write_with_noise(text, &command);
        }
        Call::States { reads: indices } => {
            let mut command = Command::new("d_states");
            for index in indices {
                if let Read::State {
                    path,
                    unless,
                    limit,
                } = &reads[*index]
                {
                    command = command.arg(limit.to_string());
                    command = command.arg(unless.as_deref().unwrap_or("-")).path(path);
                }
            }
            write_with_noise(text, &command);
        }
        Call::Glob { read } => {
            if let Read::Glob { pattern } = &reads[*read] {
                let _ = writeln!(
                    text,
                    "set +f\nd_glob \"$R\"{}\nset -f",
                    shell::pattern(pattern)
                );
            }
        }
        Call::Run { read } => {
            if let Read::Command {
                command,
                timeout,
                limit,
            } = &reads[*read]
            {
                let limit = limit.saturating_add(1);
                let _ = writeln!(
                    text,
                    "d_run {} {limit} {}",
                    seconds(*timeout),
                    command.to_sh()
                );
            }
        }
        Call::Group { reads: indices } => write_group(text, indices, reads),
        Call::Remembered { .. } => {
            let folder = REMEMBERED
                .rsplit_once('/')
                .map_or("/", |(folder, _)| folder);
            let command = Command::new("d_remembered").path(REMEMBERED).path(folder);
            let _ = writeln!(text, "{}", command.to_sh());
        }
    }
}

/// A group has the longest limit of its commands. Where one hangs, or all
/// together are slower than that, the rest is asked for again, each alone.
fn write_group(text: &mut String, indices: &[usize], reads: &[Read]) {
    let (mut longest, mut bytes) = (0, 0_u64);
    let mut body = String::new();
    for index in indices {
        if let Read::Command {
            command,
            timeout,
            limit,
        } = &reads[*index]
        {
            longest = seconds(*timeout).max(longest);
            // Room for the end line as well.
            bytes = bytes.saturating_add(*limit).saturating_add(128);
            let _ = writeln!(body, "{}\nd_r", command.to_sh());
        }
    }
    let command = Command::new("d_group")
        .arg(longest.to_string())
        .arg(bytes.to_string())
        .arg(body);
    let _ = writeln!(text, "{}", command.to_sh());
}

/// Paths of this call are spelt with the noise, so that headers carry it.
fn write_with_noise(text: &mut String, command: &Command) {
    let _ = writeln!(text, "R=$d_noise$d_root\n{}\nR=$d_root", command.to_sh());
}

/// A command with input, as one line for the loop. The line is read with
/// `read -r`, which takes not a byte more (busybox `head` would), so that the
/// input can follow at once.
pub(crate) fn exec_line(command: &Command, timeout: Duration, input: usize) -> String {
    let words = command.to_sh().replace('\n', "'\"$d_nl\"'");
    format!("x d_exec {} {input} {words}\n", seconds(timeout))
}

/// The content of the file that `Read::Remembered` is answered from: the reads
/// as the loop's calls, and in JSON for the controller of a later run. It must
/// be owned by root and writable by nobody else, as it is evaluated there.
#[must_use]
pub fn remember(reads: &[Read]) -> Vec<u8> {
    let reads: Vec<Read> = reads
        .iter()
        .filter(|read| **read != Read::Remembered)
        .cloned()
        .collect();
    let json = serde_json::to_string(&reads).unwrap_or_else(|_| "[]".to_owned());
    let note = Command::new("d_note").arg(json).to_sh();
    let calls = request(&reads, Grouping::Together).text;
    let text = format!(
        "# What deploy looks at when it comes again; evaluated by its own shell only.\n\
         [ \"$d_version\" = {VERSION} ] || return 0\n{note}\n{calls}"
    );
    text.into_bytes()
}

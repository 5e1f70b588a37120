//! The one seam to the world: reading from a host, and changing it.
//!
//! `Probe` can only read, in batches: one request, one answer, however many
//! reads. `Session` can change as well; only `apply` is given one. Both sit on
//! one connection and one long-lived `sh` a host. This room knows how to reach
//! a host and nothing of GPUs, plans or files' meaning.

mod arguments;
mod auth;
mod context;
mod frames;
mod keys;
pub mod known_hosts;
mod launch;
pub mod local;
#[cfg(test)]
mod loop_tests;
mod names;
mod replies;
mod shell_session;
mod ssh;
pub mod ssh_config;
mod ssh_settings;
mod stream;
mod target;
mod verify;
mod wire;

pub use context::Context;
pub use keys::{NoPrompt, Prompt};
pub use ssh_settings::{AgentChoice, Family};
pub use target::{Connection, ConnectionFlags, Endpoint, Identity, Target};
pub use wire::{REMEMBERED, remember};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shell::Command;

/// A future that a trait object can return.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One thing to be read from a host. Paths are absolute and go under the
/// host's root prefix. Equal reads have equal answers within one plan, so a
/// `Read` is its own key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Read {
    /// The content of a file, pseudo files of `/proc` and `/sys` included.
    File {
        /// Absolute path.
        path: String,
        /// Most bytes to return.
        limit: u64,
    },
    /// What stands at a path: kind, mode, owner, hash, and the content if its
    /// hash is not the one expected.
    State {
        /// Absolute path. A symbolic link is not followed.
        path: String,
        /// SHA-256 in lower-case hexadecimal; content is left out if it matches.
        unless: Option<String>,
        /// Most bytes of content to return; larger files come without content.
        limit: u64,
    },
    /// The paths that a shell pattern matches, sorted.
    Glob {
        /// Absolute pattern with `*`, `?` and `[…]`.
        pattern: String,
    },
    /// The output of a command that changes nothing.
    Command {
        /// What to run.
        command: Command,
        /// When to end it.
        timeout: Duration,
        /// Most bytes of standard output to return; standard error is cut at 64 KiB.
        limit: u64,
    },
    /// The reads that the last run left on the host (`/var/lib/deploy/remembered`),
    /// answered as if they had been asked now: so a later run that changes nothing
    /// needs one batch. Nothing is answered if there is no such file, or if
    /// somebody else than the host's administrator could have written it.
    Remembered,
}

/// The answer to one `Read`, of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `Read::File`.
    File(FileReply),
    /// To `Read::State`.
    State(PathState),
    /// To `Read::Glob`: paths without the root prefix.
    Glob(Vec<String>),
    /// To `Read::Command`.
    Command(Output),
    /// To `Read::Remembered`: the reads with their answers.
    Remembered(Vec<(Read, Reply)>),
}

/// What reading a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileReply {
    /// The bytes, and whether the limit cut them.
    Content {
        /// Content.
        bytes: Vec<u8>,
        /// Whether there was more.
        truncated: bool,
    },
    /// Nothing stands at the path.
    Absent,
    /// Something stands there that could not be read; why, in the system's words.
    Unreadable(String),
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Permission bits, such as `0o644`.
        mode: u32,
        /// Owner's name, or number where it has no name.
        owner: String,
        /// Group's name, or number.
        group: String,
        /// Bytes.
        size: u64,
        /// SHA-256 of the content, lower-case hexadecimal.
        sha256: String,
        /// The content, if asked for and not left out.
        content: Option<Vec<u8>>,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owner's name or number.
        owner: String,
        /// Group's name or number.
        group: String,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written.
        target: String,
    },
    /// A device, socket or pipe; what it is in a word.
    Other(String),
    /// It could not be looked at; why.
    Unreadable(String),
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Exit status; 128 + n for a signal, as the shell reports it.
    pub status: i32,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Standard output, at most the limit.
    pub stdout: Vec<u8>,
    /// Standard error, at most 64 KiB.
    pub stderr: Vec<u8>,
    /// Whether standard output was cut at the limit.
    pub truncated: bool,
}

impl Output {
    /// Whether it ended by itself with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0 && !self.timed_out
    }

    /// Standard output as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// One change to be made on a host, or one program that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// What to run.
    pub command: Command,
    /// Its standard input. Secrets travel here and nowhere else.
    pub stdin: Vec<u8>,
    /// When to end it.
    pub timeout: Duration,
    /// Most bytes of standard output to keep.
    pub limit: u64,
}

/// Why a connected host stopped answering.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The connection is gone; what runs on the host goes on without us.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer within {} s while {what}", .limit.as_secs())]
    Timeout {
        /// What was being done.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The host's shell answered something that is not our protocol.
    #[error("the host's shell answered with something else: {0}")]
    Protocol(String),
}

/// Why a host could not be reached, or our shell not be started on it. Each is
/// the outcome `unreachable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Unreachable {
    /// Which of the reasons.
    pub reason: UnreachableReason,
    /// What happened, in a sentence.
    pub message: String,
    /// What to do, if that is known.
    pub hint: Option<String>,
}

/// The reasons for which a host counts as unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnreachableReason {
    /// The name has no address, or nobody listens.
    Down,
    /// A stage took too long.
    Timeout,
    /// The host's key is not known.
    UnknownHostKey,
    /// The host's key is another than the known one, or revoked.
    ChangedHostKey,
    /// No key or password was accepted.
    Authentication,
    /// `sudo` refused.
    Become,
    /// A jump host on the way failed.
    Jump,
    /// There is no shell there that can run our loop.
    Shell,
}

impl std::fmt::Display for UnreachableReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Timeout => "timeout",
            Self::UnknownHostKey => "unknown host key",
            Self::ChangedHostKey => "host key changed",
            Self::Authentication => "authentication",
            Self::Become => "sudo",
            Self::Jump => "jump host",
            Self::Shell => "shell",
        })
    }
}

/// Reads from one host.
pub trait Probe: Send {
    /// Answers all reads in one round trip; the replies are in the order of the
    /// reads and of the same kinds.
    fn batch<'a>(&'a mut self, reads: &'a [Read]) -> Boxed<'a, Result<Vec<Reply>, TransportError>>;
}

/// Reads from and changes one host.
pub trait Session: Probe {
    /// Runs a command with the given input. `on_output` sees standard output
    /// as it comes, in pieces of any size.
    fn exec<'a>(
        &'a mut self,
        exec: &'a Exec,
        on_output: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Boxed<'a, Result<Output, TransportError>>;

    /// Ends the connection in an orderly way.
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}

/// A host whose shell runs our loop, and what it answered to the first batch.
pub struct Connected {
    /// For everything that follows.
    pub session: Box<dyn Session>,
    /// The replies to the first reads, in their order.
    pub first: Vec<Reply>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// A host that can only be looked at, and what it answered to the first batch.
pub struct Seen {
    /// For everything that follows.
    pub probe: Box<dyn Probe>,
    /// The replies to the first reads, in their order.
    pub first: Vec<Reply>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// `connect` for who only looks: what comes of it can change nothing, by its type.
///
/// # Errors
/// As `connect`.
pub async fn look(target: &Target, context: &Context, first: &[Read]) -> Result<Seen, Unreachable> {
    let Connected { session, first } = connect(target, context, first).await?;
    Ok(Seen {
        probe: session,
        first,
    })
}

/// Reaches a host, starts our shell there and answers the first reads, all in
/// as few round trips as there can be.
///
/// # Errors
/// Why the host could not be reached, or our shell not be started on it.
pub async fn connect(
    target: &Target,
    context: &Context,
    first: &[Read],
) -> Result<Connected, Unreachable> {
    match &target.connection {
        Connection::Local => local::open_as(&target.who, &target.root, first, "sh").await,
        Connection::Ssh(endpoint) => ssh::connect(target, endpoint, context, first).await,
        Connection::Sim => Err(Unreachable {
            reason: UnreachableReason::Down,
            message: format!("the simulated fleet of `{}` was not started", target.host),
            hint: None,
        }),
    }
}

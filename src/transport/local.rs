//! The same loop as a child process on this machine: `ansible_connection: local`,
//! and hosts that live in a folder, for tests.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufWriter};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::launch::{As, Launch, start, unreachable};
use super::shell_session::{Incoming, Link, Piece};
use super::{Boxed, Connected, Read, Unreachable, UnreachableReason, wire};

/// How long a local shell may take to greet; longer only on a stuck machine.
const START: Duration = Duration::from_secs(30);

/// A shell on this machine in which every path lies below `root` (empty for
/// the machine itself), with the answers to `first`.
///
/// # Errors
/// If no `sh` can be started.
pub async fn open(root: &Path, first: &[Read]) -> Result<Connected, Unreachable> {
    open_as(&As::Login, &root.to_string_lossy(), first, "sh").await
}

pub(crate) async fn open_as(
    who: &As,
    root: &str,
    first: &[Read],
    shell: &str,
) -> Result<Connected, Unreachable> {
    let request = wire::request(first, wire::Grouping::Together);
    let launch = Launch::new(who, root.trim_end_matches('/'), &request);
    let mut words = shell.split(' ');
    let mut command = Command::new(words.next().unwrap_or("sh"));
    command.args(words).arg("-c").arg(&launch.line);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A process group of its own: Ctrl-C at the terminal reaches us, not it.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        unreachable(
            UnreachableReason::Shell,
            format!("`{shell}` cannot be started: {error}"),
            None,
        )
    })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(unreachable(
            UnreachableReason::Shell,
            "the shell has no pipes",
            None,
        ));
    };
    let incoming = Pipes {
        out: Some(stdout),
        err: Some(stderr),
        buffers: Box::new(([0; 32 << 10], [0; 8 << 10])),
    };
    let link = Link {
        incoming: Box::new(incoming),
        outgoing: Box::new(BufWriter::new(stdin)),
        close: Box::new(move || Box::pin(end(child))),
    };
    let (session, first) = start(link, &launch, START, first, &request).await?;
    Ok(Connected {
        session: Box::new(session),
        first,
    })
}

/// The loop's input is closed by now, which ends it; what does not end is killed.
async fn end(mut child: Child) {
    if tokio::time::timeout(Duration::from_secs(2), child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}

struct Pipes {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    buffers: Box<([u8; 32 << 10], [u8; 8 << 10])>,
}

impl Incoming for Pipes {
    fn next(&mut self) -> Boxed<'_, Piece> {
        Box::pin(async move {
            loop {
                let Self { out, err, buffers } = self;
                let (from_out, from_err) = &mut **buffers;
                tokio::select! {
                    read = read(out, from_out), if out.is_some() => match read {
                        Some(length) => return Piece::Out(from_out[..length].to_vec()),
                        None => *out = None,
                    },
                    read = read(err, from_err), if err.is_some() => match read {
                        Some(length) => return Piece::Err(from_err[..length].to_vec()),
                        None => *err = None,
                    },
                    else => return Piece::End("ended".to_owned(), None),
                }
            }
        })
    }
}

async fn read(pipe: &mut Option<impl AsyncReadExt + Unpin>, buffer: &mut [u8]) -> Option<usize> {
    match pipe.as_mut()?.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(length),
    }
}

//! Starting the loop on a host: the line that the login shell runs, `sudo` in
//! front of it, and what to make of a shell that does not become ours.
//!
//! A password goes to `sudo`'s standard input, only when it asks, and nowhere
//! else.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::frames::{Splitter, find_from};
use super::shell_session::{Link, Piece, ShellSession};
use super::wire::{self, Dialect};
use super::{Read, Reply, TransportError, Unreachable, UnreachableReason};
use crate::secret::Secret;
use crate::shell;

/// Most bytes before our first frame: banners, messages of the day, what a
/// start-up file of the login shell says.
const NOISE_LIMIT: usize = 256 << 10;

/// How the loop is started on a host.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What the login shell is asked to run.
    pub(crate) line: String,
    /// Precedes the loop's greeting.
    token: String,
    /// What `sudo` asks with, and the answer.
    password: Option<(String, Secret)>,
    /// Whether the first batch is in the line.
    rides: bool,
    root: String,
}

/// Above this length of the whole line the first batch follows on standard
/// input; far below the 128 KiB that one argument may have.
const RIDE_LIMIT: usize = 32 << 10;

/// The loop without comments and indentation.
fn loop_text() -> String {
    let lines = include_str!("loop.sh").lines().map(str::trim_start);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    lines.join("\n")
}

/// 128 bits that nobody can guess, in hexadecimal. The standard library keys
/// its hash maps with the system's randomness; a hash of nothing shows it.
pub(crate) fn token() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// Whose shell the loop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum As {
    /// The one who logs in.
    Login,
    /// Another user, through `sudo`.
    Sudo {
        /// Which user.
        user: String,
        /// The program; `sudo` if the user does not say otherwise.
        program: String,
        /// What to answer when it asks.
        password: Option<Secret>,
    },
}

impl Launch {
    /// The line that starts the loop. `first` rides in it if that fits.
    pub(crate) fn new(who: &As, root: &str, first: &wire::Request) -> Self {
        let token = token();
        let body = loop_text();
        let rides = body.len() + first.text.len() < RIDE_LIMIT;
        let text = if rides { first.text.as_str() } else { "" };
        let mut words: Vec<String> = ["sh", "-c", &body, "deploy", &token, root, text]
            .map(str::to_owned)
            .into();
        let mut secret = None;
        if let As::Sudo {
            user,
            program,
            password,
        } = who
        {
            let mut sudo = vec![program.clone(), "-H".to_owned()];
            match password {
                None => sudo.push("-n".to_owned()),
                Some(password) => {
                    let prompt = format!("[deploy {}]", self::token());
                    sudo.extend(["-S".to_owned(), "-p".to_owned(), prompt.clone()]);
                    secret = Some((prompt, password.clone()));
                }
            }
            sudo.extend(["-u".to_owned(), user.clone(), "--".to_owned()]);
            sudo.append(&mut words);
            words = sudo;
        }
        let quoted: Vec<String> = words
            .iter()
            .map(|word| shell::quote_for_login(word))
            .collect();
        Self {
            line: format!("exec {}", quoted.join(" ")),
            token,
            password: secret,
            rides,
            root: root.to_owned(),
        }
    }
}

/// Says of a shell that did not become ours why it did not.
fn refused(
    launch: &Launch,
    ended: Option<&str>,
    status: Option<u32>,
    out: &[u8],
    err: &[u8],
) -> Unreachable {
    let said = [err, out].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let said = said
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default();
    // A prompt is ours, not the host's.
    let said = match &launch.password {
        Some((prompt, _)) => said.replace(prompt.as_str(), ""),
        None => said,
    };
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let tail: String = lines[lines.len().saturating_sub(3)..]
        .join("; ")
        .chars()
        .take(400)
        .collect();
    let tail: String = tail
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if let Some((message, hint)) = sudo_said(&said, launch.password.is_some()) {
        return unreachable(UnreachableReason::Become, message, Some(hint));
    }
    let status = status.map_or(String::new(), |status| format!(" with status {status}"));
    let ended = ended.map_or("gave no greeting".to_owned(), |why| {
        format!("{why}{status}")
    });
    let message = match tail.as_str() {
        "" => format!("the shell {ended} before it greeted us"),
        tail => format!("the shell {ended} before it greeted us; it said `{tail}`"),
    };
    let hint = "the login must lead to a POSIX `sh`: look for a forced command, a restricted shell or `nologin`";
    unreachable(UnreachableReason::Shell, message, Some(hint.to_owned()))
}

pub(crate) fn unreachable(
    reason: UnreachableReason,
    message: impl Into<String>,
    hint: Option<String>,
) -> Unreachable {
    Unreachable {
        reason,
        message: message.into(),
        hint,
    }
}

/// What `sudo` meant, if it was `sudo` that spoke.
fn sudo_said(said: &str, asked: bool) -> Option<(String, String)> {
    let has = |text: &str| said.contains(text);
    let (message, hint) = if has("must have a tty") {
        (
            "sudo wants a terminal",
            "remove `requiretty` from the host's sudoers for this user",
        )
    } else if has("is not in the sudoers file")
        || has("is not allowed to execute")
        || has("may not run sudo")
    {
        (
            "sudo does not allow this user to run our shell",
            "allow it in the host's sudoers, or set `ansible_become: false`",
        )
    } else if has("incorrect password attempt") || (asked && has("Sorry, try again")) {
        (
            "sudo did not accept the password",
            "check `ansible_become_password` or pass `-K`",
        )
    } else if has("a password is required")
        || has("no password was provided")
        || has("interactive authentication is required")
    {
        (
            "sudo wants a password",
            "set `ansible_become_password` or pass `-K`, or allow NOPASSWD in the host's sudoers",
        )
    } else if has("sudo") && (has("not found") || has("No such file") || has("Unknown command")) {
        (
            "there is no sudo on the host",
            "install it, log in as root, or set `ansible_become: false`",
        )
    } else if has("sudo: unknown user") {
        (
            "sudo does not know the user to become",
            "check `ansible_become_user`",
        )
    } else if said
        .lines()
        .any(|line| line.starts_with("sudo: ") && !line.contains("unable to resolve host"))
    {
        let line = said
            .lines()
            .find(|line| line.starts_with("sudo: "))
            .unwrap_or_default();
        let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        return Some((line, "see `sudo -l` on the host".to_owned()));
    } else {
        return None;
    };
    Some((message.to_owned(), hint.to_owned()))
}

/// Waits for the loop's greeting, answers `sudo` on the way, and takes the
/// answer to the first batch.
pub(crate) async fn start(
    link: Link,
    launch: &Launch,
    patience: Duration,
    first: &[Read],
    request: &wire::Request,
) -> Result<(ShellSession, Vec<Reply>), Unreachable> {
    let mut starting = Starting {
        link,
        out: Vec::new(),
        err: Vec::new(),
        answered: false,
    };
    let greeting = tokio::time::timeout(patience, starting.greeting(launch)).await;
    let (name, noise) = match greeting {
        Ok(result) => result?,
        Err(_) => {
            let seconds = patience.as_secs();
            let (reason, what) = match launch.line.starts_with("exec 'sh'") {
                false => (UnreachableReason::Become, "sudo"),
                true => (UnreachableReason::Timeout, "the shell"),
            };
            let refusal = refused(launch, None, None, &starting.out, &starting.err);
            let message = match refusal.reason {
                UnreachableReason::Become => refusal.message,
                _ => format!("{what} did not start our loop within {seconds} s"),
            };
            let hint = match refusal.reason {
                UnreachableReason::Become => refusal.hint,
                _ => Some(
                    "the host takes commands and does not answer: it hangs or is overloaded, or the login does not lead to a POSIX `sh`"
                        .to_owned(),
                ),
            };
            return Err(unreachable(reason, message, hint));
        }
    };
    let mut session = ShellSession {
        out: Splitter::new(&name),
        err: Splitter::new(&name),
        dialect: Dialect {
            noise,
            root: launch.root.clone(),
        },
        link: starting.link,
        broken: None,
    };
    session.out.push(&starting.out);
    session.err.push(&starting.err);
    let answer = match launch.rides && !request.text.is_empty() {
        true => session.receive(request).await,
        false => session.ask(request).await,
    };
    let replies = match answer {
        Ok(answer) => session.replies(first, request, answer).await,
        Err(error) => Err(error),
    };
    match replies {
        Ok(replies) => Ok((session, replies)),
        Err(error) => {
            let reason = match &error {
                TransportError::Timeout { .. } => UnreachableReason::Timeout,
                TransportError::Lost(_) => UnreachableReason::Down,
                TransportError::Protocol(_) => UnreachableReason::Shell,
            };
            Err(unreachable(
                reason,
                format!("while it was looked at: {error}"),
                Some("nothing was changed; the host or the network on the way to it ended the connection: try again".to_owned())
                    .filter(|_| reason == UnreachableReason::Down),
            ))
        }
    }
}

/// A link on which the loop has not greeted yet.
struct Starting {
    link: Link,
    out: Vec<u8>,
    err: Vec<u8>,
    answered: bool,
}

impl Starting {
    /// The name of frames and the noise of headers; what came after the
    /// greeting stays in `out` and `err`.
    async fn greeting(&mut self, launch: &Launch) -> Result<(String, String), Unreachable> {
        let mark = format!("\n@@{} hello ", launch.token).into_bytes();
        loop {
            let piece = self.link.incoming.next().await;
            match piece {
                Piece::Out(bytes) => self.out.extend_from_slice(&bytes),
                Piece::Err(bytes) => {
                    self.err.extend_from_slice(&bytes);
                    self.prompted(launch).await?;
                }
                Piece::End(why, status) => {
                    return Err(refused(launch, Some(&why), status, &self.out, &self.err));
                }
            }
            if let Some(at) = find_from(&self.out, &mark, 0) {
                let start = at + mark.len();
                if let Some(length) = self.out[start..].iter().position(|byte| *byte == b'\n') {
                    let line =
                        String::from_utf8_lossy(&self.out[start..start + length]).into_owned();
                    self.out.drain(..start + length + 1);
                    let (name, noise) = line.split_once(' ').unwrap_or((&line, ""));
                    return Ok((name.to_owned(), noise.to_owned()));
                }
            }
            if self.out.len() + self.err.len() > NOISE_LIMIT {
                return Err(refused(
                    launch,
                    Some("was still talking"),
                    None,
                    &self.out,
                    &self.err,
                ));
            }
        }
    }

    async fn prompted(&mut self, launch: &Launch) -> Result<(), Unreachable> {
        let Some((prompt, password)) = &launch.password else {
            return Ok(());
        };
        let Some(at) = find_from(&self.err, prompt.as_bytes(), 0) else {
            return Ok(());
        };
        if self.answered {
            let message = "sudo did not accept the password";
            let hint = "check `ansible_become_password` or pass `-K`";
            return Err(unreachable(
                UnreachableReason::Become,
                message,
                Some(hint.to_owned()),
            ));
        }
        self.answered = true;
        self.err.drain(..at + prompt.len());
        let mut line = zeroize::Zeroizing::new(password.reveal().as_bytes().to_vec());
        line.push(b'\n');
        let outgoing = &mut self.link.outgoing;
        // A failure here shows as the end of the link, with what was said on the way.
        let _ = outgoing.write_all(&line).await;
        let _ = outgoing.flush().await;
        Ok(())
    }
}

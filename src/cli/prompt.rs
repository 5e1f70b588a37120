//! Questions to the person at the terminal.
//!
//! Asked on standard error, answered on standard input; only if both are a
//! terminal. A password is read without echo.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::report;
use crate::secret::Secret;
use crate::transport::Prompt;

/// Whether somebody is there to answer.
#[must_use]
pub fn somebody_there() -> bool {
    io::stdin().is_terminal() && report::talk_is_terminal()
}

/// Asks, and tells whether the answer was the word `yes` and nothing else.
///
/// # Errors
/// The terminal could not be read.
pub fn yes(question: &str) -> io::Result<bool> {
    report::ask(&format!("{question}\nOnly `yes` is accepted: "));
    Ok(line()?.trim() == "yes")
}

/// How the terminal was before a password was asked for; it is shared with whoever
/// ends the program meanwhile.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Gives the terminal its echo back if a question for a password took it.
pub fn restore_terminal() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs none.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Asks for a password; nothing is echoed.
///
/// # Errors
/// There is no terminal, or it could not be read.
pub fn password(question: &str) -> io::Result<Secret> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(io::Error::other(
            "a password is asked for, and standard input is no terminal",
        ));
    }
    report::ask(&format!("{question}: "));
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    quiet.local_modes.remove(LocalModes::ECHO);
    quiet.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    let answer = line();
    restore_terminal();
    Ok(Secret::new(answer?.trim_end_matches(['\r', '\n'])))
}

/// The person at the terminal, for passphrases of keys.
#[derive(Debug, Clone, Copy)]
pub struct Terminal;

impl Prompt for Terminal {
    fn passphrase(&self, key: &Path) -> Option<Secret> {
        if !somebody_there() {
            return None;
        }
        password(&format!("passphrase of {}", key.display())).ok()
    }
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

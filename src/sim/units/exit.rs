//! How processes end, and the names of signals, in systemd's words.

use rustix::process::{Signal, WaitStatus};
use serde::{Deserialize, Serialize};

/// Signals that leave a core.
const CORE_SIGNALS: [i32; 8] = [3, 4, 5, 6, 7, 8, 11, 31];

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::sim) enum Exit {
    /// By itself, with a status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// By a signal that leaves a core.
    Dumped(i32),
}

/// What waiting for a process has told.
pub(super) fn of_wait(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Exit::Exited(status),
        (None, Some(signal)) if CORE_SIGNALS.contains(&signal) => Exit::Dumped(signal),
        (None, signal) => Exit::Killed(signal.unwrap_or(0)),
    }
}

/// `Result=` of a service whose process ended so, if that is no good end.
pub(super) fn result_of(exit: Exit) -> &'static str {
    match exit {
        Exit::Exited(_) => "exit-code",
        Exit::Killed(_) => "signal",
        Exit::Dumped(_) => "core-dump",
    }
}

/// `exited`, `killed` or `dumped`.
pub(in crate::sim) fn exit_code(exit: Exit) -> &'static str {
    match exit {
        Exit::Exited(_) => "exited",
        Exit::Killed(_) => "killed",
        Exit::Dumped(_) => "dumped",
    }
}

/// The status, or the name of the signal.
pub(in crate::sim) fn exit_status(exit: Exit) -> String {
    match exit {
        Exit::Exited(status) => status.to_string(),
        Exit::Killed(number) | Exit::Dumped(number) => signal_name(number),
    }
}

/// The status that a process ended with by itself.
pub(in crate::sim) fn status_of(exit: Exit) -> Option<i32> {
    match exit {
        Exit::Exited(status) => Some(status),
        Exit::Killed(_) | Exit::Dumped(_) => None,
    }
}

/// Status or signal with its name, as `9/KILL`.
pub(in crate::sim) fn exit_words(exit: Exit) -> String {
    let (number, name) = match exit {
        Exit::Exited(status) => {
            let name = match status {
                0 => "SUCCESS",
                1 => "FAILURE",
                2 => "INVALIDARGUMENT",
                3 => "NOTIMPLEMENTED",
                4 => "NOPERMISSION",
                5 => "NOTINSTALLED",
                6 => "NOTCONFIGURED",
                7 => "NOTRUNNING",
                203 => "EXEC",
                _ => "n/a",
            };
            (status, name.to_owned())
        }
        Exit::Killed(number) | Exit::Dumped(number) => (number, signal_name(number)),
    };
    format!("{number}/{name}")
}

const SIGNALS: [(Signal, &str); 14] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::ILL, "ILL"),
    (Signal::ABORT, "ABRT"),
    (Signal::KILL, "KILL"),
    (Signal::USR1, "USR1"),
    (Signal::SEGV, "SEGV"),
    (Signal::USR2, "USR2"),
    (Signal::PIPE, "PIPE"),
    (Signal::ALARM, "ALRM"),
    (Signal::TERM, "TERM"),
    (Signal::CONT, "CONT"),
    (Signal::STOP, "STOP"),
];

/// A signal's name without `SIG`, else its number.
pub(in crate::sim) fn signal_name(number: i32) -> String {
    let known = SIGNALS.iter().find(|signal| signal.0.as_raw() == number);
    known.map_or_else(|| number.to_string(), |signal| signal.1.to_owned())
}

/// A signal by name, with or without `SIG`, or by number.
pub(in crate::sim) fn signal_named(name: &str) -> Option<Signal> {
    let plain = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS
        .iter()
        .find(|signal| signal.1 == plain || signal.0.as_raw().to_string() == plain)
        .map(|signal| signal.0)
}

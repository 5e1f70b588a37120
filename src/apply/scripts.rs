//! The scripts that run on hosts, and the form in which they travel.
//!
//! `runner.sh` and `guard.sh` stand in the run directory, with what they share in `lib/`,
//! a file for each thing it holds. The others are not kept on the host: they ride in the
//! request that starts them, with the parts of `lib/` that they call before them.

const RECEIVE: &str = include_str!("host/receive.sh");
const FOLLOW: &str = include_str!("host/follow.sh");
const ATTACH: &str = include_str!("host/attach.sh");
const RECORD: &str = include_str!("host/record.sh");
const LIST: &str = include_str!("host/list.sh");
const LIBRARY: &str = include_str!("host/lib.sh");
const RUNNER: &str = include_str!("host/runner.sh");
const GUARD: &str = include_str!("host/guard.sh");

const DEADLINE: &str = include_str!("host/lib/deadline.sh");
const FLUSH: &str = include_str!("host/lib/flush.sh");
const LOCK: &str = include_str!("host/lib/lock.sh");
const PROCESS: &str = include_str!("host/lib/process.sh");
const STATUS: &str = include_str!("host/lib/status.sh");

/// What `runner.sh` and `guard.sh` source, by the name that it has in `lib/`.
const PARTS: [(&str, &str); 11] = [
    ("confirm.sh", include_str!("host/lib/confirm.sh")),
    ("deadline.sh", DEADLINE),
    ("expire.sh", include_str!("host/lib/expire.sh")),
    ("journal.sh", include_str!("host/lib/journal.sh")),
    ("limits.sh", include_str!("host/lib/limits.sh")),
    ("lock.sh", LOCK),
    ("process.sh", PROCESS),
    ("record.sh", include_str!("host/lib/record.sh")),
    ("status.sh", STATUS),
    ("steps.sh", include_str!("host/lib/steps.sh")),
    ("undo.sh", include_str!("host/lib/undo.sh")),
];

/// The scripts of a run directory: the path of each in it, and its text. What the steps
/// call, `lib.sh`, also has the functions of `library`.
pub(super) fn kept(library: &str) -> Vec<(String, String)> {
    let mut scripts = vec![
        ("runner.sh".to_owned(), compact(RUNNER)),
        ("guard.sh".to_owned(), compact(GUARD)),
        (
            "lib.sh".to_owned(),
            format!("{}{library}", joined(&[FLUSH, LIBRARY])),
        ),
    ];
    for (name, script) in PARTS {
        scripts.push((format!("lib/{name}"), compact(script)));
    }
    scripts
}

/// Makes a run directory, starts the runner in it and follows it.
pub(super) fn receive() -> String {
    joined(&[FLUSH, RECEIVE]) + &follow()
}

/// Puts a record of what was last applied.
pub(super) fn record() -> String {
    joined(&[FLUSH, RECORD])
}

/// Starts the runner of a run directory and follows it.
pub(super) fn follow() -> String {
    joined(&[PROCESS, STATUS, FOLLOW])
}

/// Follows a run that somebody else started.
pub(super) fn attach() -> String {
    joined(&[PROCESS, STATUS, ATTACH])
}

/// Lists the runs of a host.
pub(super) fn list() -> String {
    joined(&[PROCESS, STATUS, DEADLINE, LOCK, LIST])
}

fn joined(scripts: &[&str]) -> String {
    scripts.iter().map(|script| compact(script)).collect()
}

/// A script without comment lines and indentation, except for the comment that it
/// begins with: bytes are round trips on a slow link. None of ours has a line
/// within a quoted text that looks like a comment.
fn compact(script: &str) -> String {
    let mut text = String::with_capacity(script.len());
    let mut code = false;
    for line in script.lines() {
        let line = line.trim_start();
        code |= !line.starts_with('#');
        if code && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn functions(script: &str) -> BTreeSet<&str> {
        script
            .lines()
            .filter_map(|line| line.split_once("() "))
            .map(|(name, _)| name)
            .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect()
    }

    /// Scripts of steps are sourced into the runner: a name that both have would be the
    /// wrong function for one of them.
    #[test]
    fn no_function_of_the_runner_hides_one_of_the_libraries() {
        let strategies = crate::strategy::host_library();
        let (library, strategies) = (functions(LIBRARY), functions(&strategies));
        assert!(library.contains("keep") && strategies.contains("mig_layout"));
        let parts = PARTS.map(|(_, script)| script);
        for script in [RUNNER, GUARD].iter().chain(&parts) {
            let own = functions(script);
            assert!(!own.is_empty());
            let both: Vec<_> = own
                .iter()
                .filter(|name| library.contains(*name) || strategies.contains(*name))
                .collect();
            assert_eq!(both, [] as [&&str; 0]);
        }
        // The guard sources only some of them, and none with a name that it has.
        let mut seen = BTreeSet::new();
        for script in [RUNNER].iter().chain(&parts) {
            let twice: Vec<_> = functions(script)
                .into_iter()
                .filter(|name| !seen.insert(*name))
                .collect();
            assert_eq!(twice, [] as [&str; 0]);
        }
        assert_eq!(library.intersection(&strategies).count(), 0);
    }

    /// What the host's shell is given with the request stays small: no script of the run
    /// directory rides there.
    #[test]
    fn what_rides_in_a_request_is_small() {
        for script in [receive(), follow(), attach(), list()] {
            assert!(script.len() < 8 * 1024, "{} bytes", script.len());
        }
    }
}

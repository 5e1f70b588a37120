//! Processes of the real machine that play those of a simulated one: whether
//! they live, what they started, and the clock they share.

use std::collections::{HashMap, HashSet};
use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::sim::machine::Host;

/// A process that is not mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sim) struct Process {
    pid: u32,
    start: u64,
}

struct Stat {
    state: char,
    parent: u32,
    flags: u64,
    start: u64,
}

/// In `flags` of `/proc/PID/stat`: a thread of the kernel (`PF_KTHREAD`, linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; nothing behind it does.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        flags: fields.get(6)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process with this number now, if there is one.
    pub(in crate::sim) fn of(pid: u32) -> Option<Self> {
        let start = stat(pid)?.start;
        Some(Self { pid, start })
    }

    /// This process.
    pub(in crate::sim) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Its number.
    pub(in crate::sim) fn pid(self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    pub(in crate::sim) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.state != 'Z')
    }
}

/// Microseconds since the real machine was booted.
pub(in crate::sim) fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|text| text.parse().ok());
    micros(seconds.unwrap_or(0.0))
}

/// Seconds as microseconds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative and huge values become the ends of the range"
)]
pub(super) fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// All processes: number to parent.
fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let stat = stat(pid).filter(|stat| stat.state != 'Z')?;
            Some((pid, stat.parent))
        })
        .collect()
}

/// What belongs to the unit that `keeper` keeps: all that descends from it, for
/// what loses its parent is given to the keeper. Where another keeper begins,
/// another unit does.
pub(super) fn members(keeper: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![keeper];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = parents.iter().filter(|(_, of)| **of == parent);
        found.extend(
            children
                .map(|(pid, _)| *pid)
                .filter(|pid| !is_keeper(*pid) && *pid != keeper),
        );
    }
    found.remove(0);
    found
}

/// The same, seen from outside.
pub(in crate::sim) fn members_of(keeper: Process) -> Vec<u32> {
    if keeper.is_alive() {
        members(keeper.pid)
    } else {
        Vec::new()
    }
}

fn is_keeper(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).next() == Some(super::KEEPER_NAME.as_bytes())
}

/// Sends a signal; a process that is gone is none of our concern.
pub(in crate::sim) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends every process of a machine at once, but for this one. They are known by
/// their environment, which names the machine's folder, and what descends from
/// them by its parents.
pub(in crate::sim) fn end_all(host: &Host) {
    let mark = [
        crate::sim::tools::ROOT_VARIABLE.as_bytes(),
        b"=",
        host.root().as_os_str().as_encoded_bytes(),
    ]
    .concat();
    // All are stopped before the first is ended: where power is lost nobody sees another
    // one's end. One that was just starting another is seen with the next look.
    let mut stopped = HashSet::new();
    for _ in 0..100 {
        match look(&mark, &stopped) {
            Look::Doomed(doomed) => {
                for pid in doomed {
                    signal(pid, Signal::STOP);
                    stopped.insert(pid);
                }
            }
            Look::Unclear => std::thread::sleep(std::time::Duration::from_millis(5)),
            Look::Nobody => break,
        }
    }
    for pid in stopped {
        signal(pid, Signal::KILL);
    }
}

/// Who belongs to a machine.
enum Look {
    /// These, and maybe more.
    Doomed(Vec<u32>),
    /// Nobody that can be seen to, but somebody whose environment is not there: its
    /// program is just being started, or has ended.
    Unclear,
    /// Nobody.
    Nobody,
}

/// Looks for processes with this word in their environment, and what descends from them,
/// but for those that are `known`.
fn look(mark: &[u8], known: &HashSet<u32>) -> Look {
    let own = std::process::id();
    let parents = parents();
    let mut unclear = false;
    let mut doomed: Vec<u32> = Vec::new();
    for pid in parents.keys().copied().filter(|pid| *pid != own) {
        match fs::read(format!("/proc/{pid}/environ")) {
            Ok(environment) if environment.is_empty() => unclear |= has_no_program(pid),
            Ok(environment) => {
                if environment
                    .split(|byte| *byte == 0)
                    .any(|word| word == mark)
                {
                    doomed.push(pid);
                }
            }
            // Processes of other users cannot be read, and are not the machine's.
            Err(_) => {}
        }
    }
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        next += 1;
        for (pid, of) in &parents {
            if *of == parent && *pid != own && !doomed.contains(pid) {
                doomed.push(*pid);
            }
        }
    }
    doomed.retain(|pid| !known.contains(pid));
    match (doomed.is_empty(), unclear) {
        (false, _) => Look::Doomed(doomed),
        (true, true) => Look::Unclear,
        (true, false) => Look::Nobody,
    }
}

/// Whether a process has no words of its own now. A kernel gives it its environment last
/// when a program is started, after its words.
fn has_no_program(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.is_empty()
        && stat(pid).is_some_and(|stat| stat.state != 'Z' && stat.flags & KERNEL_THREAD == 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::sim::tools::ROOT_VARIABLE;

    fn of_machine(root: &std::path::Path) -> Vec<u32> {
        let mark = format!("{ROOT_VARIABLE}={}", root.display()).into_bytes();
        let is_marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|word| word == mark)
        };
        parents().into_keys().filter(is_marked).collect()
    }

    #[test]
    fn whoever_is_just_being_started_is_ended_as_well() {
        for round in 0..12 {
            let folder = tempfile::tempdir().expect("a folder");
            let mut starters: Vec<_> = (0..3)
                .map(|_| {
                    Command::new("sh")
                        .args([
                            "-c",
                            "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 30 & done; wait",
                        ])
                        .env(ROOT_VARIABLE, folder.path())
                        .stdin(Stdio::null())
                        .spawn()
                        .expect("a shell")
                })
                .collect();
            std::thread::sleep(Duration::from_millis(1 + round));
            end_all(&Host::new(folder.path()));
            for starter in &mut starters {
                starter.wait().expect("our child");
            }
            // Those that were signalled take a moment.
            let mut left = of_machine(folder.path());
            for _ in 0..100 {
                if left.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
                left = of_machine(folder.path());
            }
            for pid in &left {
                signal(*pid, Signal::KILL);
            }
            assert_eq!(left, Vec::<u32>::new(), "round {round}");
        }
    }
}

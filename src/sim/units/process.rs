//! Processes of the real machine that play those of a simulated one: whether
//! they live, what they started, and the clock they share.

use std::collections::HashMap;
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
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; nothing behind it does.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
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
    let own = std::process::id();
    // One that was just starting another is seen with the next look.
    for _ in 0..20 {
        let parents = parents();
        let mut doomed: Vec<u32> = parents
            .keys()
            .copied()
            .filter(|pid| {
                // Processes of other users cannot be read, and are not the machine's.
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                *pid != own
                    && environment
                        .split(|byte| *byte == 0)
                        .any(|variable| variable == mark)
            })
            .collect();
        let mut next = 0;
        while let Some(parent) = doomed.get(next).copied() {
            next += 1;
            for (pid, of) in &parents {
                if *of == parent && *pid != own && !doomed.contains(pid) {
                    doomed.push(*pid);
                }
            }
        }
        if doomed.is_empty() {
            return;
        }
        for pid in doomed {
            signal(pid, Signal::KILL);
        }
    }
}

//! What can happen to a run, and how the test makes it happen.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::lab::{Controller, Slot, mount, run};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The program says that it failed.
    Fails,
    /// The program does not come back.
    Hangs,
    /// `kill -9` of the runner; what it had started goes on.
    KillRunner,
    /// `kill -9` of the runner and of all that it had started.
    KillRun,
    /// `kill -9` of the controller.
    KillController,
    /// The TCP connection ends; a new one can be made.
    Cut,
    /// The TCP connection ends, and new ones are refused until the host is at rest.
    Away,
    /// `/var/lib/deploy` has no room.
    FullVar,
    /// The file system of the changed files has no room.
    FullEtc,
    /// `/var/lib/deploy` cannot be written.
    ReadOnlyVar,
    /// The file system of the changed files cannot be written.
    ReadOnlyEtc,
    /// The host is restarted in an orderly way: its units are told to stop.
    Restart,
    /// The host loses power and boots again: nothing on it is told before.
    PowerLoss,
}

/// All of them.
pub(super) const FAULTS: [Fault; 13] = [
    Fault::Fails,
    Fault::Hangs,
    Fault::KillRunner,
    Fault::KillRun,
    Fault::KillController,
    Fault::Cut,
    Fault::Away,
    Fault::FullVar,
    Fault::FullEtc,
    Fault::ReadOnlyVar,
    Fault::ReadOnlyEtc,
    Fault::Restart,
    Fault::PowerLoss,
];

/// When it happens, seen from the call that it is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// The program has not begun.
    Before,
    /// The program is at work, or has just ended.
    During,
    /// The program has ended; who called it does not know yet.
    After,
}

/// All of them.
pub(super) const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fails => "step-fails",
            Self::Hangs => "step-hangs",
            Self::KillRunner => "kill-runner",
            Self::KillRun => "kill-run",
            Self::KillController => "kill-controller",
            Self::Cut => "cut",
            Self::Away => "cut-for-long",
            Self::FullVar => "full-var",
            Self::FullEtc => "full-etc",
            Self::ReadOnlyVar => "read-only-var",
            Self::ReadOnlyEtc => "read-only-etc",
            Self::Restart => "restart",
            Self::PowerLoss => "power-loss",
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        })
    }
}

impl Fault {
    /// What the wrapper does by itself, if it does not only wait for the test.
    pub(super) fn deed(self, moment: Moment) -> String {
        match self {
            Self::Fails => "fail".to_owned(),
            Self::Hangs => "hang".to_owned(),
            _ => moment.to_string(),
        }
    }

    /// Whether the moment makes a difference.
    pub(super) fn has_moments(self) -> bool {
        !matches!(self, Self::Fails | Self::Hangs)
    }

    /// Whether the host boots anew.
    pub(super) fn boots(self) -> bool {
        matches!(self, Self::Restart | Self::PowerLoss)
    }

    /// Whether it lasts until it is mended.
    pub(super) fn lasts(self) -> bool {
        matches!(
            self,
            Self::Away | Self::FullVar | Self::FullEtc | Self::ReadOnlyVar | Self::ReadOnlyEtc
        )
    }

    /// Makes it happen. The call that it is aimed at waits in process `caller`.
    pub(super) fn commit(self, slot: &Slot, controller: &mut Controller, caller: Option<i32>) {
        match self {
            Self::Fails | Self::Hangs => {}
            Self::KillRunner => kill(&[runner_of(caller.expect("it waits"))]),
            Self::KillRun => {
                let runner = runner_of(caller.expect("it waits"));
                kill(&with_children(runner));
            }
            Self::KillController => controller.kill(),
            Self::Cut => slot.relay.cut(),
            Self::Away => {
                slot.relay.let_through(false);
                slot.relay.cut();
            }
            Self::FullVar => fill(&slot.root.join("var/lib/deploy")),
            Self::FullEtc => fill(&slot.root.join("etc")),
            Self::ReadOnlyVar => read_only(&slot.root.join("var/lib/deploy")),
            Self::ReadOnlyEtc => read_only(&slot.root.join("etc")),
            Self::Restart => boot(slot, &deploy::sim::Fault::Reboot),
            Self::PowerLoss => boot(slot, &deploy::sim::Fault::PowerLoss),
        }
    }

    /// Takes it back, as a person would who mends the host.
    pub(super) fn mend(self, slot: &Slot) {
        let unmount = |folder: &str| {
            run(Command::new("umount").arg("-l").arg(slot.root.join(folder)));
        };
        match self {
            Self::Away => slot.relay.let_through(true),
            Self::FullVar => empty(&slot.root.join("var/lib/deploy")),
            Self::FullEtc => empty(&slot.root.join("etc")),
            Self::ReadOnlyVar => unmount("var/lib/deploy"),
            Self::ReadOnlyEtc => unmount("etc"),
            _ => {}
        }
    }
}

fn boot(slot: &Slot, how: &deploy::sim::Fault) {
    deploy::sim::break_host(&slot.root, how).expect("the host boots");
}

const FILLER: &str = ".filler";

/// Takes all the room of a file system.
fn fill(folder: &Path) {
    let mut file = fs::File::create(folder.join(FILLER)).expect("it can be written yet");
    for size in [65536, 4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

fn empty(folder: &Path) {
    fs::remove_file(folder.join(FILLER)).expect("it was filled");
}

/// A read-only mount over a folder: a real remount is refused while files are open to
/// be written.
fn read_only(folder: &Path) {
    mount(&["--bind", &folder.display().to_string()], folder);
    mount(&["-o", "remount,bind,ro"], folder);
}

/// The process that carries the run out, seen from a program that it called: the
/// outermost that executes a script of the run directory. Whoever receives the
/// upload, before there is one.
fn runner_of(caller: i32) -> i32 {
    let mut found = parent(caller).unwrap_or(caller);
    let mut process = Some(caller);
    while let Some(this) = process {
        let words = fs::read(format!("/proc/{this}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let is_ours = |word: &str| {
            word.contains("/var/lib/deploy/runs/")
                && ["/runner.sh", "/guard.sh"]
                    .iter()
                    .any(|end| word.ends_with(end))
        };
        let starts_it = words
            .split('\0')
            .next()
            .is_some_and(|word| word.ends_with("systemd-run"));
        if words.split('\0').any(is_ours) && !starts_it {
            found = this;
        }
        process = parent(this);
    }
    found
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
    parent.parse().ok().filter(|parent| *parent > 1)
}

fn with_children(process: i32) -> Vec<i32> {
    let mut found = vec![process];
    let mut next = 0;
    while next < found.len() {
        for entry in fs::read_dir("/proc").expect("Linux").flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && !found.contains(&pid)
                && parent(pid) == Some(found[next])
            {
                found.push(pid);
            }
        }
        next += 1;
    }
    found
}

pub(super) fn kill(processes: &[i32]) {
    for process in processes {
        if let Some(process) = Pid::from_raw(*process) {
            // One that has ended by itself is as well.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

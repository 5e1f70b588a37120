//! Going down and coming up: the orderly end of all units, what a boot starts
//! and in which order, and whether the machine takes connections meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::sim::machine::{Host, replace};
use crate::sim::tools;

use super::files::{self, words_of};
use super::job::{self, Order};
use super::process::{self, Process, uptime};
use super::state::{self, Record, State, Units};
use super::{Duty, Pace, spawn_keeper};

/// The unit that takes connections.
pub(super) const SSH: &str = "ssh.service";

/// Targets that a boot reaches, so that what they want is started.
const REACHED: [&str; 12] = [
    "sysinit.target",
    "local-fs.target",
    "remote-fs.target",
    "basic.target",
    "sockets.target",
    "timers.target",
    "paths.target",
    "network.target",
    "network-online.target",
    "multi-user.target",
    "graphical.target",
    "default.target",
];

/// Where a machine is between off and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Phase {
    /// All that a boot starts was started.
    Up,
    /// Its units are being stopped.
    GoingDown,
    /// Units are being started.
    Booting,
}

/// Where the machine is.
pub(in crate::sim) fn phase(host: &Host) -> Phase {
    let alive = |name: &str| marked(host, name).is_some_and(Process::is_alive);
    if alive("going-down") {
        Phase::GoingDown
    } else if alive("booting") {
        Phase::Booting
    } else {
        Phase::Up
    }
}

/// Whether new starts are refused.
pub(in crate::sim) fn is_going_down(host: &Host) -> bool {
    phase(host) == Phase::GoingDown
}

/// When the machine was booted, in microseconds of the real one's uptime.
pub(super) fn booted_at(host: &Host) -> u64 {
    let text = fs::read_to_string(host.private("booted-at")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whether the machine's SSH server takes connections.
pub(in crate::sim) fn takes_connections(host: &Host) -> bool {
    !host.private("refuses-ssh").exists()
}

pub(super) fn refuse_connections(host: &Host) -> io::Result<()> {
    fs::write(host.private("refuses-ssh"), "")
}

pub(super) fn accept_connections(host: &Host) -> io::Result<()> {
    remove(host, "refuses-ssh")
}

fn remove(host: &Host, marker: &str) -> io::Result<()> {
    match fs::remove_file(host.private(marker)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn mark(host: &Host, marker: &str, process: Option<Process>) -> io::Result<()> {
    replace(&host.private(marker), &serde_json::to_vec(&process)?)
}

/// Asks for a reboot; it goes on without the caller, which is ended by it.
pub(in crate::sim) fn request(host: &Host, duty: Duty) -> io::Result<()> {
    if is_going_down(host) {
        return Ok(());
    }
    refuse_connections(host)?;
    // The mark has one writer at a time, and the machine is never seen up in between: the
    // caller's mark stands until the keeper's replaces it.
    mark(host, "going-down", Process::own())?;
    let mut keeper = spawn_keeper(host, duty, "")?;
    let mine = Process::own();
    let mut pace = Pace::default();
    while marked(host, "going-down") == mine {
        if let Some(status) = keeper.try_wait()? {
            return Err(io::Error::other(format!(
                "the simulated reboot ended before it began: {status}"
            )));
        }
        pace.rest();
    }
    Ok(())
}

fn marked(host: &Host, marker: &str) -> Option<Process> {
    let text = fs::read(host.private(marker)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Waits until a boot that was asked for is over.
///
/// # Errors
/// If it is not over after ten minutes: a unit that a boot starts may have much to do, and
/// so may the machine that plays this one.
pub(in crate::sim) fn wait(host: &Host) -> io::Result<()> {
    let deadline = uptime() + 600_000_000;
    while phase(host) != Phase::Up {
        if uptime() > deadline {
            return Err(io::Error::other("the simulated host does not boot"));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Stops all units, each within its own time, and boots anew.
pub(super) fn reboot(host: &Host) -> io::Result<()> {
    mark(host, "going-down", Process::own())?;
    refuse_connections(host)?;
    let up: Vec<String> = {
        let units = Units::open(host)?;
        let up = units.all().iter().filter(|(_, record)| {
            record.keeper.is_some() || (record.is_up() && record.sub == "exited")
        });
        up.map(|(unit, _)| unit.clone()).collect()
    };
    for unit in &up {
        job::stop(host, unit)?;
    }
    for unit in &up {
        job::wait_until_down(host, unit)?;
    }
    come_up(host)
}

/// Boots anew without telling anybody.
pub(super) fn power_loss(host: &Host) -> io::Result<()> {
    mark(host, "going-down", Process::own())?;
    refuse_connections(host)?;
    come_up(host)
}

fn come_up(host: &Host) -> io::Result<()> {
    process::end_all(host);
    state::forget(host)?;
    tools::boot_hardware(host)?;
    fs::write(host.private("booted-at"), uptime().to_string())?;
    mark(host, "booting", Process::own())?;
    remove(host, "going-down")?;
    if host.path("/run/systemd/system").exists() {
        start_enabled(host)?;
    } else {
        accept_connections(host)?;
    }
    remove(host, "booting")
}

/// Marks what runs on a machine that was just made.
pub(in crate::sim) fn first_boot(host: &Host) -> io::Result<()> {
    state::forget(host)?;
    accept_connections(host)?;
    fs::write(host.private("booted-at"), uptime().to_string())?;
    if !host.path("/run/systemd/system").exists() {
        return Ok(());
    }
    let mut units = Units::open(host)?;
    for unit in enabled(host) {
        units.change(&unit, |record| record.active = State::Active)?;
    }
    Ok(())
}

/// What a boot starts: the targets and the units that are linked into them.
fn enabled(host: &Host) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for target in REACHED {
        for kind in ["wants", "requires"] {
            let folder = host.path(format!("/etc/systemd/system/{target}.{kind}"));
            let Ok(links) = fs::read_dir(folder) else {
                continue;
            };
            all.insert(target.to_owned());
            let names = links.filter_map(|link| Some(link.ok()?.file_name()));
            all.extend(
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    // A link to a unit that is gone starts nothing.
                    .filter(|unit| {
                        files::find(host, unit).is_some() && !files::is_masked(host, unit)
                    }),
            );
        }
    }
    all.extend(files::generated(host));
    all
}

/// Whether one unit comes after another one at boot.
fn comes_after(host: &Host, unit: &str, other: &str) -> bool {
    let settings = files::settings(host, unit);
    if job::comes_after(host, unit, &settings, other) {
        return true;
    }
    // A target is reached after what it wants, unless that comes after it.
    let others = files::settings(host, other);
    let wants = ["wants", "requires"].iter().any(|kind| {
        let link = host.path(format!("/etc/systemd/system/{unit}.{kind}/{other}"));
        fs::symlink_metadata(link).is_ok()
    });
    unit.ends_with(".target")
        && wants
        && job::has_default_dependencies(&others)
        && !words_of(&others, "Unit", "After")
            .iter()
            .any(|word| word == unit)
}

/// Takes units out of circles, as systemd deletes a job that waits for itself.
fn break_circles(host: &Host, mut units: BTreeSet<String>) -> BTreeSet<String> {
    let mut settled = BTreeSet::new();
    while !units.is_empty() {
        let ready = units.iter().find(|unit| {
            !units
                .iter()
                .any(|other| other != *unit && comes_after(host, unit, other))
        });
        match ready.cloned() {
            Some(unit) => {
                units.remove(&unit);
                settled.insert(unit);
            }
            None => {
                let victim = units.iter().find(|unit| !unit.ends_with(".target"));
                let Some(victim) = victim.or(units.first()).cloned() else {
                    break;
                };
                units.remove(&victim);
            }
        }
    }
    settled
}

/// Starts what is enabled, all at once but for the order that units ask for.
fn start_enabled(host: &Host) -> io::Result<()> {
    let all = break_circles(host, enabled(host));
    let (mut played, kept): (Vec<String>, Vec<String>) = all
        .into_iter()
        .partition(|unit| job::plays_only(host, unit));
    {
        let mut units = Units::open(host)?;
        let queued = Record {
            starting: true,
            ordered: true,
            keeper: Process::own(),
            ..Record::default()
        };
        for unit in played.iter().chain(&kept) {
            units.change(unit, |record| record.clone_from(&queued))?;
        }
        for unit in &kept {
            job::enqueue(&mut units, host, unit, Order::Kept, &[], Duty::Service)?;
        }
    }
    let mut pace = Pace::default();
    loop {
        let mut units = Units::open(host)?;
        let mut ready = Vec::new();
        for unit in &played {
            let waits = units.all().iter().any(|(other, record)| {
                other != unit && record.starting && comes_after(host, unit, other)
            });
            if !waits {
                ready.push(unit.clone());
            }
        }
        for unit in ready {
            played.retain(|other| *other != unit);
            job::play_active(&mut units, host, &unit)?;
        }
        if !units.all().values().any(|record| record.starting) || !super::exists(host) {
            return Ok(());
        }
        drop(units);
        pace.rest();
    }
}

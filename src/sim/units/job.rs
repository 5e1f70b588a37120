//! Starting and stopping units on request: what is refused, what waits for its
//! turn, and how a client waits for the outcome.

use std::fs;
use std::io;

use crate::sim::host::write_holders;
use crate::sim::machine::Host;

use super::files::{self, Settings, words_of};
use super::process::{Process, uptime};
use super::service::invocation;
use super::state::{self, Record, State, Units, stop_request};
use super::{Duty, Pace, boot, exists, spawn_keeper};

/// Whether a start heeds the order of units: `--job-mode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Order {
    /// It waits for jobs of units that come before.
    Kept,
    /// `ignore-dependencies`.
    Ignored,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Answer {
    /// It is taken on, or done already.
    Accepted,
    /// There is no such unit.
    NotFound,
    /// The unit is masked.
    Masked,
    /// The machine goes down.
    GoingDown,
}

/// Asks for a unit to be started, with these variables for its processes.
pub(in crate::sim) fn start(
    host: &Host,
    unit: &str,
    order: Order,
    environment: &[(String, String)],
) -> io::Result<Answer> {
    request(host, unit, order, environment, false)
}

/// The same for a client that may wait for the outcome.
pub(in crate::sim) fn start_watched(
    host: &Host,
    unit: &str,
    order: Order,
    watched: bool,
) -> io::Result<Answer> {
    request(host, unit, order, &[], watched)
}

fn request(
    host: &Host,
    unit: &str,
    order: Order,
    environment: &[(String, String)],
    watched: bool,
) -> io::Result<Answer> {
    let mut pace = Pace::default();
    loop {
        let mut units = Units::open(host)?;
        if files::is_masked(host, unit) {
            return Ok(Answer::Masked);
        }
        if files::find(host, unit).is_none() {
            return Ok(Answer::NotFound);
        }
        if boot::is_going_down(host) {
            return Ok(Answer::GoingDown);
        }
        let record = units.get(unit);
        if record.starting && order == Order::Ignored {
            // Two jobs for one unit become one, which waits only if both would.
            units.change(unit, |record| record.ordered = false)?;
        }
        if record.starting || record.active == State::Active {
            if watched {
                watch_in(&mut units, unit)?;
            }
            return Ok(Answer::Accepted);
        }
        if record.is_up() {
            // It is being stopped; the start comes after that.
            drop(units);
            pace.rest();
            continue;
        }
        enqueue(&mut units, host, unit, order, environment, Duty::Service)?;
        if watched {
            watch_in(&mut units, unit)?;
        }
        return Ok(Answer::Accepted);
    }
}

/// Puts the start of a unit that is down into the queue.
pub(in crate::sim) fn enqueue(
    units: &mut Units<'_>,
    host: &Host,
    unit: &str,
    order: Order,
    environment: &[(String, String)],
    duty: Duty,
) -> io::Result<()> {
    if plays_only(host, unit) {
        return play_active(units, host, unit);
    }
    let duty = if unit.ends_with(".timer") {
        Duty::Timer
    } else {
        duty
    };
    let _ = fs::remove_file(stop_request(host, unit));
    let invocation = invocation(unit);
    units.change(unit, |record| {
        *record = Record {
            active: record.active,
            sub: record.sub.clone(),
            result: record.result.clone(),
            watchers: record.watchers.clone(),
            inactive_enter: record.inactive_enter,
            last_trigger: record.last_trigger,
            starting: true,
            ordered: order == Order::Kept,
            keeper: Process::own(),
            invocation,
            environment: environment.to_vec(),
            ..Record::default()
        };
    })?;
    let keeper = spawn_keeper(host, duty, unit)?;
    // It waits for the lock, so it finds itself named.
    units.change(unit, |record| record.keeper = Process::of(keeper.id()))
}

/// Whether a unit has no processes of its own here.
pub(super) fn plays_only(host: &Host, unit: &str) -> bool {
    let kept = unit.ends_with(".service") || unit.ends_with(".timer");
    !kept || files::is_shipped(host, unit)
}

pub(super) fn play_active(units: &mut Units<'_>, host: &Host, unit: &str) -> io::Result<()> {
    units.change(unit, |record| {
        *record = Record {
            active: State::Active,
            active_enter: uptime(),
            inactive_exit: uptime(),
            invocation: invocation(unit),
            ..Record::default()
        };
    })?;
    if unit == boot::SSH {
        boot::accept_connections(host)?;
    }
    // A unit that uses a card opens it again.
    host.update(|machine| {
        let holders: Vec<_> = machine
            .spec
            .in_use
            .iter()
            .filter(|holder| holder.unit.as_deref() == Some(unit))
            .cloned()
            .collect();
        for holder in holders {
            if !machine.holders.contains(&holder) {
                machine.holders.push(holder);
            }
        }
        write_holders(host, machine)
    })
}

fn play_inactive(units: &mut Units<'_>, host: &Host, unit: &str) -> io::Result<()> {
    units.change(unit, |record| {
        record.active = State::Inactive;
        record.inactive_enter = uptime();
    })?;
    if unit == boot::SSH {
        boot::refuse_connections(host)?;
    }
    host.update(|machine| {
        machine
            .holders
            .retain(|holder| holder.unit.as_deref() != Some(unit));
        write_holders(host, machine)
    })
}

/// Watches a unit, so that what became of it can be read once it ended.
pub(in crate::sim) fn watch_in(units: &mut Units<'_>, unit: &str) -> io::Result<()> {
    units.change(unit, |record| record.watchers.extend(Process::own()))
}

/// Waits until a start is over, and gives the unit's record then.
pub(in crate::sim) fn wait_until_started(host: &Host, unit: &str) -> io::Result<Record> {
    wait_until(host, unit, |record| !record.starting)
}

/// Waits until a unit is down, and gives its record then.
pub(in crate::sim) fn wait_until_down(host: &Host, unit: &str) -> io::Result<Record> {
    wait_until(host, unit, |record| {
        !record.starting && !record.is_up() && !record.is_kept()
    })
}

fn wait_until(host: &Host, unit: &str, is_reached: impl Fn(&Record) -> bool) -> io::Result<Record> {
    let mut pace = Pace::default();
    loop {
        // A look at the one record; all of them only when there is something to see.
        let record = state::peek(host, unit);
        if is_reached(&record) || !record.is_kept() {
            let mut units = Units::open(host)?;
            let record = units.get(unit);
            if !is_reached(&record) {
                drop(units);
                pace.rest();
                continue;
            }
            let own = Process::own();
            if record.watchers.iter().any(|watcher| Some(*watcher) == own) {
                units.change(unit, |record| {
                    record.watchers.retain(|watcher| Some(*watcher) != own);
                })?;
                units.sweep()?;
            }
            return Ok(record);
        }
        pace.rest();
    }
}

/// Asks for a unit to be stopped; false if it is not loaded.
pub(in crate::sim) fn stop(host: &Host, unit: &str) -> io::Result<bool> {
    let mut units = Units::open(host)?;
    if !units.is_loaded(unit) {
        return Ok(false);
    }
    let record = units.get(unit);
    if !record.is_up() && !record.starting {
        return Ok(true);
    }
    if record.keeper.is_some() {
        fs::write(stop_request(host, unit), "")?;
    } else if plays_only(host, unit) {
        play_inactive(&mut units, host, unit)?;
    } else {
        let keeper = spawn_keeper(host, Duty::End, unit)?;
        units.change(unit, |record| {
            record.active = State::Deactivating;
            "stop".clone_into(&mut record.sub);
            record.keeper = Process::of(keeper.id());
        })?;
    }
    Ok(true)
}

/// In a keeper: waits until no unit that comes before is still to be started.
/// False if the start was called off meanwhile.
pub(super) fn wait_for_turn(host: &Host, unit: &str) -> io::Result<bool> {
    let settings = files::settings(host, unit);
    let request = stop_request(host, unit);
    let mut pace = Pace::default();
    loop {
        if !exists(host) || request.exists() {
            return Ok(false);
        }
        let units = Units::open(host)?;
        let waits = units.get(unit).ordered
            && units.all().iter().any(|(other, record)| {
                other != unit && record.starting && comes_after(host, unit, &settings, other)
            });
        drop(units);
        if !waits {
            return Ok(true);
        }
        pace.rest();
    }
}

/// Whether a unit comes after another one, as either of them says or as all
/// services come after the basic targets.
pub(super) fn comes_after(host: &Host, unit: &str, settings: &Settings, other: &str) -> bool {
    let others = files::settings(host, other);
    words_of(settings, "Unit", "After")
        .iter()
        .any(|word| word == other)
        || words_of(&others, "Unit", "Before")
            .iter()
            .any(|word| word == unit)
        || (unit.ends_with(".service")
            && ["sysinit.target", "basic.target"].contains(&other)
            && has_default_dependencies(settings))
}

/// `DefaultDependencies=`.
pub(super) fn has_default_dependencies(settings: &Settings) -> bool {
    let word = files::one(settings, "Unit", "DefaultDependencies");
    !matches!(word.as_deref(), Some("no" | "false" | "0" | "off"))
}

/// Whether a condition speaks against the start.
pub(super) fn is_unwanted(host: &Host, settings: &Settings) -> bool {
    let paths = settings.get(&("Unit".to_owned(), "ConditionPathExists".to_owned()));
    paths.into_iter().flatten().any(|path| {
        let (path, wanted) = match path.strip_prefix('!') {
            Some(path) => (path, false),
            None => (path.as_str(), true),
        };
        // A file may name the machine's own path or, as what runs on it sees it, ours.
        let path = match std::path::Path::new(path).starts_with(host.root()) {
            true => path.into(),
            false => host.path(path),
        };
        path.exists() != wanted
    })
}

/// In a keeper: a start that is not wanted is done, and nothing changed.
pub(super) fn skip(host: &Host, unit: &str) -> io::Result<()> {
    end_of_start(host, unit, false)
}

/// In a keeper: a start that was called off before its turn.
pub(super) fn give_up(host: &Host, unit: &str) -> io::Result<()> {
    end_of_start(host, unit, true)
}

fn end_of_start(host: &Host, unit: &str, failed: bool) -> io::Result<()> {
    if !exists(host) {
        return Ok(());
    }
    let mut units = Units::open(host)?;
    let _ = fs::remove_file(stop_request(host, unit));
    units.change(unit, |record| {
        record.starting = false;
        record.start_failed = failed;
        record.keeper = None;
    })?;
    units.sweep()
}

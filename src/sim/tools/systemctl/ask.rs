//! What `systemctl` tells of units without changing any.

use std::io;

use crate::sim::machine::Host;
use crate::sim::units::boot::{self, Phase};
use crate::sim::units::exit::{Exit, exit_code, exit_status, status_of};
use crate::sim::units::files::{self, find, is_masked, is_transient, one, settings};
use crate::sim::units::process::uptime;
use crate::sim::units::span;
use crate::sim::units::state::{Record, State, Units};

use super::{Outcome, each, enable};

/// `is-active`, `is-failed` and `is-enabled`.
pub(super) fn question(
    host: &Host,
    verb: &str,
    units: &[String],
    quiet: bool,
) -> io::Result<Outcome> {
    let mut text = String::new();
    let mut stderr = String::new();
    let (mut good, mut loaded) = (false, false);
    let known = Units::open(host)?;
    for unit in units {
        if verb == "is-enabled" {
            match enable::state(host, unit) {
                Some(state) => {
                    good |= ["enabled", "static", "transient"].contains(&state);
                    text.push_str(&format!("{state}\n"));
                }
                None => stderr.push_str(&format!(
                    "Failed to get unit file state for {unit}: No such file or directory\n"
                )),
            }
            continue;
        }
        let state = known.get(unit).active;
        loaded |= known.is_loaded(unit);
        good |= match verb {
            "is-active" => state == State::Active,
            _ => state == State::Failed,
        };
        text.push_str(&format!("{}\n", state.word()));
    }
    let status = match (verb, good) {
        (_, true) => 0,
        ("is-enabled", false) => 1,
        // No such unit at all.
        (_, false) if !loaded => 4,
        ("is-active", false) => 3,
        _ => 1,
    };
    Ok(Outcome {
        stdout: if quiet { Vec::new() } else { text.into_bytes() },
        stderr: stderr.into_bytes(),
        status,
    })
}

fn load_state(host: &Host, known: &Units<'_>, unit: &str) -> &'static str {
    if is_masked(host, unit) {
        "masked"
    } else if known.is_loaded(unit) {
        "loaded"
    } else {
        "not-found"
    }
}

fn description(host: &Host, unit: &str) -> String {
    one(&settings(host, unit), "Unit", "Description")
        .map_or_else(|| unit.to_owned(), |text| text.replace("%%", "%"))
}

fn shown_path(host: &Host, unit: &str) -> Option<String> {
    let path = find(host, unit)?;
    let own = path.strip_prefix(host.root()).unwrap_or(&path);
    Some(format!("/{}", own.display()))
}

/// `show`.
pub(super) fn show(
    host: &Host,
    units: &[String],
    properties: &[&str],
    value_only: bool,
) -> io::Result<Outcome> {
    let known = Units::open(host)?;
    let mut blocks = Vec::new();
    for unit in units {
        let mut text = String::new();
        for (name, value) in properties_of(host, &known, unit) {
            if properties.is_empty() || properties.contains(&name) {
                text.push_str(&if value_only {
                    format!("{value}\n")
                } else {
                    format!("{name}={value}\n")
                });
            }
        }
        blocks.push(text);
    }
    Ok(Outcome::out(blocks.join("\n"), 0))
}

fn properties_of(host: &Host, known: &Units<'_>, unit: &str) -> Vec<(&'static str, String)> {
    let record = known.get(unit);
    let settings = settings(host, unit);
    let text = |text: &str| text.to_owned();
    let set = |section: &str, key: &str| one(&settings, section, key).unwrap_or_default();
    let mut all = Vec::new();
    if unit.ends_with(".timer") {
        let next = match record.next_elapse {
            Some(time) => span::show(time),
            None => text("infinity"),
        };
        all.extend([
            ("Unit", files::unit_of_timer(host, unit)),
            ("NextElapseUSecMonotonic", next),
            ("LastTriggerUSecMonotonic", span::show(record.last_trigger)),
        ]);
    }
    if unit.ends_with(".service") {
        let (code, status) = match record.exit {
            None => (0, 0),
            Some(Exit::Exited(status)) => (1, status),
            Some(Exit::Killed(signal)) => (2, signal),
            Some(Exit::Dumped(signal)) => (3, signal),
        };
        let or = |value: String, default: &str| match value.is_empty() {
            true => default.to_owned(),
            false => value,
        };
        all.extend([
            ("Type", or(set("Service", "Type"), "simple")),
            (
                "TimeoutStopUSec",
                or(set("Service", "TimeoutStopSec"), "1min 30s"),
            ),
            ("MainPID", record.main.unwrap_or(0).to_string()),
            ("ExecMainCode", code.to_string()),
            ("ExecMainStatus", status.to_string()),
            (
                "RemainAfterExit",
                or(set("Service", "RemainAfterExit"), "no"),
            ),
            ("KillMode", or(set("Service", "KillMode"), "control-group")),
        ]);
    }
    let control_group = match record.is_up() {
        true => format!("/system.slice/{unit}"),
        false => String::new(),
    };
    let yes_no = |yes: bool| text(if yes { "yes" } else { "no" });
    let stamp = |time: u64| time.to_string();
    all.extend([
        ("Result", text(record.result())),
        ("ControlGroup", control_group),
        ("Id", text(unit)),
        ("Names", text(unit)),
        ("OnFailure", set("Unit", "OnFailure")),
        ("Description", description(host, unit)),
        ("LoadState", text(load_state(host, known, unit))),
        ("ActiveState", text(record.active.word())),
        ("SubState", text(record.sub(unit))),
        ("FragmentPath", shown_path(host, unit).unwrap_or_default()),
        (
            "UnitFileState",
            text(enable::state(host, unit).unwrap_or_default()),
        ),
        (
            "InactiveExitTimestampMonotonic",
            stamp(record.inactive_exit),
        ),
        ("ActiveEnterTimestampMonotonic", stamp(record.active_enter)),
        (
            "InactiveEnterTimestampMonotonic",
            stamp(record.inactive_enter),
        ),
        ("NeedDaemonReload", text("no")),
        ("Transient", yes_no(is_transient(host, unit))),
        ("InvocationID", record.invocation.clone()),
        (
            "CollectMode",
            match set("Unit", "CollectMode").as_str() {
                "" => text("inactive"),
                mode => text(mode),
            },
        ),
    ]);
    all
}

/// `status`.
pub(super) fn status(host: &Host, units: &[String]) -> io::Result<Outcome> {
    let known = Units::open(host)?;
    each(units, |unit| {
        let path = shown_path(host, unit);
        if path.is_none() && !known.is_loaded(unit) {
            return Ok(Outcome::err(
                format!("Unit {unit} could not be found.\n"),
                4,
            ));
        }
        let record = known.get(unit);
        let up = record.active == State::Active;
        let state = enable::state(host, unit).unwrap_or("bad");
        let mut text = format!(
            "{} {unit} - {}\n     Loaded: loaded ({}; {state})\n",
            if record.active == State::Failed {
                "×"
            } else if up {
                "●"
            } else {
                "○"
            },
            description(host, unit),
            path.unwrap_or_default(),
        );
        let detail = match record.active {
            State::Failed => format!(" (Result: {})", record.result()),
            _ => format!(" ({})", record.sub(unit)),
        };
        text.push_str(&format!("     Active: {}{detail}\n", record.active.word()));
        if let Some(exit) = record.exit {
            let kind = match status_of(exit) {
                Some(_) => "status",
                None => "signal",
            };
            text.push_str(&format!(
                "   Main PID: (code={}, {kind}={})\n",
                exit_code(exit),
                exit_status(exit)
            ));
        } else if let Some(main) = record.main {
            text.push_str(&format!("   Main PID: {main}\n"));
        }
        Ok(Outcome::out(text, if record.is_up() && up { 0 } else { 3 }))
    })
}

/// How a list is to be printed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listing {
    /// `--no-legend`
    pub(super) no_legend: bool,
    /// `--plain`
    pub(super) plain: bool,
    /// `--all`
    pub(super) all: bool,
    /// `--failed`, `--state=failed`
    pub(super) failed: bool,
}

/// Whether a pattern with one star means this unit.
pub(super) fn matches(pattern: &str, unit: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == unit,
        Some((start, end)) => {
            unit.len() + 1 >= pattern.len() && unit.starts_with(start) && unit.ends_with(end)
        }
    }
}

fn is_asked(patterns: &[String], unit: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, unit))
}

/// Lines with columns as wide as their widest word.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let lines = rows.iter().map(|row| {
        let cells = row.iter().enumerate();
        let line: Vec<String> = cells
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        line.join(" ").trim_end().to_owned()
    });
    lines.collect()
}

/// `list-units`.
pub(super) fn list_units(
    host: &Host,
    patterns: &[String],
    listing: Listing,
) -> io::Result<Outcome> {
    let known = Units::open(host)?;
    let chosen: Vec<(&String, &Record)> = known
        .all()
        .iter()
        .filter(|(unit, record)| {
            is_asked(patterns, unit)
                && match listing.failed {
                    true => record.active == State::Failed,
                    false => listing.all || record.active != State::Inactive,
                }
        })
        .collect();
    let mut rows = Vec::new();
    if !listing.no_legend {
        rows.push(
            ["UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    for (unit, record) in &chosen {
        rows.push(vec![
            (*unit).clone(),
            load_state(host, &known, unit).to_owned(),
            record.active.word().to_owned(),
            record.sub(unit).to_owned(),
            description(host, unit),
        ]);
    }
    let mut text = String::new();
    for (number, line) in columns(&rows).iter().enumerate() {
        let header = number == 0 && !listing.no_legend;
        let failed = !header
            && chosen
                .get(number - usize::from(!listing.no_legend))
                .is_some_and(|(_, record)| record.active == State::Failed);
        if !listing.plain {
            text.push_str(if failed { "● " } else { "  " });
        }
        text.push_str(&format!("{line}\n"));
    }
    if !listing.no_legend {
        text.push_str(&format!("\n{} loaded units listed.\n", chosen.len()));
    }
    Ok(Outcome::out(text, 0))
}

/// `list-timers`.
pub(super) fn list_timers(
    host: &Host,
    patterns: &[String],
    listing: Listing,
) -> io::Result<Outcome> {
    let known = Units::open(host)?;
    let now = uptime();
    let timers = known.all().iter().filter(|(unit, record)| {
        unit.ends_with(".timer") && is_asked(patterns, unit) && (record.is_up() || listing.all)
    });
    let mut rows = Vec::new();
    if !listing.no_legend {
        rows.push(
            ["NEXT", "LEFT", "LAST", "PASSED", "UNIT", "ACTIVATES"]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    let mut count = 0;
    for (unit, record) in timers {
        count += 1;
        let (next, left) = match record.next_elapse {
            Some(time) => (
                wall_clock(time, now),
                span::show(time.saturating_sub(now) / 1000 * 1000),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (last, passed) = match record.last_trigger {
            0 => ("-".to_owned(), "-".to_owned()),
            time => (
                wall_clock(time, now),
                format!("{} ago", span::show(now.saturating_sub(time) / 1000 * 1000)),
            ),
        };
        rows.push(vec![
            next,
            left,
            last,
            passed,
            unit.clone(),
            files::unit_of_timer(host, unit),
        ]);
    }
    let mut text = columns(&rows).join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    if !listing.no_legend {
        text.push_str(&format!("\n{count} timers listed.\n"));
    }
    Ok(Outcome::out(text, 0))
}

/// A moment of the uptime as a date.
fn wall_clock(time: u64, now: u64) -> String {
    let difference = i64::try_from(time).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(0);
    let moment = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::from_micros(difference))
        .unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%a %Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `is-system-running`.
pub(super) fn is_system_running(host: &Host, wait: bool) -> io::Result<Outcome> {
    if wait {
        boot::wait(host)?;
    }
    let word = match boot::phase(host) {
        Phase::GoingDown => "stopping",
        Phase::Booting => "starting",
        Phase::Up => {
            let known = Units::open(host)?;
            let failed = |record: &Record| record.active == State::Failed;
            match known.all().values().any(failed) {
                true => "degraded",
                false => "running",
            }
        }
    };
    Ok(Outcome::out(
        format!("{word}\n"),
        i32::from(word != "running"),
    ))
}

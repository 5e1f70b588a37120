//! `systemctl` over the units of the machine: its verbs and their words.
//!
//! Texts and statuses are those of systemd 257. What the verbs do stands in
//! `units`; questions are answered in `ask`, links are made in `enable`.

mod ask;
mod enable;

use std::fs;
use std::io;

use crate::sim::machine::Host;
use crate::sim::units::files::{self, canonical, find};
use crate::sim::units::job::{self, Answer, Order};
use crate::sim::units::process::{members_of, signal};
use crate::sim::units::state::{Record, State, Units};
use crate::sim::units::{boot, exit};

use super::{Call, Outcome, power};

/// What tools of systemd say where it does not run.
pub(super) const NO_SYSTEMD: &str = "System has not been booted with systemd as init system (PID 1). Can't operate.\n\
     Failed to connect to bus: Host is down\n";

/// The options that mean something here.
#[derive(Debug, Default)]
struct Options<'a> {
    now: bool,
    quiet: bool,
    wait: bool,
    no_block: bool,
    value_only: bool,
    ignore_order: bool,
    signal: &'a str,
    main_only: bool,
    properties: Vec<&'a str>,
    listing: ask::Listing,
}

/// Options whose value may be the next word.
const WITH_VALUE: [&str; 14] = [
    "-p",
    "--property",
    "-s",
    "--signal",
    "--kill-whom",
    "--job-mode",
    "-t",
    "--type",
    "--state",
    "-n",
    "--lines",
    "-o",
    "--output",
    "-P",
];

impl<'a> Options<'a> {
    fn read(args: &'a [String]) -> (Self, Vec<&'a str>) {
        let mut options = Self::default();
        let mut words = Vec::new();
        let mut rest = args.iter().map(String::as_str);
        while let Some(arg) = rest.next() {
            if arg == "--" {
                words.extend(rest);
                break;
            }
            if !arg.starts_with('-') {
                words.push(arg);
                continue;
            }
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) if arg.starts_with("--") => (name, value),
                _ if WITH_VALUE.contains(&arg) => (arg, rest.next().unwrap_or_default()),
                _ if !arg.starts_with("--") && arg.len() > 2 && arg.is_char_boundary(2) => {
                    arg.split_at(2)
                }
                _ => (arg, ""),
            };
            options.set(name, value);
        }
        (options, words)
    }

    fn set(&mut self, name: &str, value: &'a str) {
        match name {
            "--now" => self.now = true,
            "-q" | "--quiet" => self.quiet = true,
            "--wait" => self.wait = true,
            "--no-block" => self.no_block = true,
            "--value" => self.value_only = true,
            "-p" | "--property" => self.properties.extend(value.split(',')),
            "-P" => {
                self.properties.extend(value.split(','));
                self.value_only = true;
            }
            "-s" | "--signal" => self.signal = value,
            "--kill-whom" => self.main_only = value == "main",
            "--job-mode" => self.ignore_order = value == "ignore-dependencies",
            "--no-legend" | "--legend" => self.listing.no_legend = true,
            "--plain" => self.listing.plain = true,
            "-a" | "--all" => self.listing.all = true,
            "--failed" => self.listing.failed = true,
            "--state" => self.listing.failed |= value == "failed",
            _ => {}
        }
    }

    fn order(&self) -> Order {
        if self.ignore_order {
            Order::Ignored
        } else {
            Order::Kept
        }
    }
}

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let host = call.host;
    let (options, words) = Options::read(call.args);
    let (verb, units) = match words.split_first() {
        Some((verb, units)) => (*verb, units),
        None if call.has("--version") => {
            return Ok(Outcome::out("systemd 257 (257.13-1~deb13u1)\n", 0));
        }
        None => ("list-units", &[][..]),
    };
    if !host.path("/run/systemd/system").exists() {
        return Ok(match verb {
            "is-system-running" => Outcome::out("offline\n", 1),
            _ => Outcome::err(NO_SYSTEMD, 1),
        });
    }
    let lists = verb.starts_with("list-");
    let mut named = Vec::new();
    for unit in units {
        if unit.contains('*') && !lists {
            // A pattern stands for units in memory, and may stand for none.
            let known = Units::open(host)?;
            let matching = known.all().keys().filter(|name| ask::matches(unit, name));
            named.extend(matching.cloned());
        } else {
            named.push(canonical(host, &full_name(unit)));
        }
    }
    let units = named;
    match verb {
        "daemon-reload" | "daemon-reexec" => Ok(Outcome::silent()),
        "reset-failed" => reset_failed(host, &units),
        "is-system-running" => ask::is_system_running(host, options.wait),
        "reboot" => power::request(call),
        "enable" | "reenable" | "disable" => {
            let on = verb != "disable";
            let outcome = each(&units, |unit| enable::switch(host, unit, on))?;
            if !options.now || outcome.status != 0 {
                return Ok(outcome);
            }
            let then = if on {
                start(host, &units, &options)?
            } else {
                stop(host, &units, &options)?
            };
            Ok(joined(outcome, then))
        }
        "mask" | "unmask" => each(&units, |unit| enable::mask(host, unit, verb == "mask")),
        "start" => start(host, &units, &options),
        "stop" => stop(host, &units, &options),
        "restart" | "try-restart" | "reload-or-restart" | "reload" => {
            restart(host, &units, &options, verb)
        }
        "kill" => kill(host, &units, &options),
        "is-active" | "is-failed" | "is-enabled" => {
            ask::question(host, verb, &units, options.quiet)
        }
        "show" => ask::show(host, &units, &options.properties, options.value_only),
        "status" => ask::status(host, &units),
        "cat" => each(&units, |unit| cat(host, unit)),
        "list-units" => ask::list_units(host, &units, options.listing),
        "list-timers" => ask::list_timers(host, &units, options.listing),
        "list-jobs" => list_jobs(host),
        "list-unit-files" => each(&units, |unit| {
            let state = enable::state(host, unit).unwrap_or_default();
            Ok(Outcome::out(format!("{unit} {state}\n"), 0))
        }),
        other => Ok(Outcome::err(
            format!("Unknown command verb '{other}'.\n"),
            1,
        )),
    }
}

/// A unit's name with its kind.
pub(super) fn full_name(unit: &str) -> String {
    const KINDS: [&str; 8] = [
        ".service", ".timer", ".target", ".path", ".socket", ".mount", ".slice", ".scope",
    ];
    if KINDS.iter().any(|kind| unit.ends_with(kind)) || unit.contains('*') {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

fn joined(mut all: Outcome, one: Outcome) -> Outcome {
    all.stdout.extend(one.stdout);
    all.stderr.extend(one.stderr);
    if one.status != 0 {
        all.status = one.status;
    }
    all
}

fn each(
    units: &[String],
    mut action: impl FnMut(&String) -> io::Result<Outcome>,
) -> io::Result<Outcome> {
    let mut all = Outcome::default();
    for unit in units {
        all = joined(all, action(unit)?);
    }
    Ok(all)
}

/// What is said to a start while the machine goes down.
pub(super) fn refused_when_going_down(host: &Host, unit: &str) -> Option<Outcome> {
    boot::is_going_down(host).then(|| {
        Outcome::err(
            format!(
                "Failed to start {unit}: Transaction for {unit}/start is destructive \
                 (reboot.target has 'start' job queued, but 'stop' is included in transaction).\n\
                 See system logs and 'systemctl status {unit}' for details.\n"
            ),
            1,
        )
    })
}

/// What is said of a start that failed.
pub(super) fn job_failed(unit: &str, record: &Record) -> Outcome {
    let why = match record.result() {
        "exit-code" => " because the control process exited with error code",
        "timeout" => " because a timeout was exceeded",
        "signal" => " because a fatal signal was delivered to the control process",
        "core-dump" => {
            " because a fatal signal was delivered causing the control process to dump core"
        }
        "resources" => " because of unavailable resources or another system error",
        _ => return Outcome::err(format!("Job for {unit} canceled.\n"), 1),
    };
    Outcome::err(
        format!(
            "Job for {unit} failed{why}.\n\
             See \"systemctl status {unit}\" and \"journalctl -xeu {unit}\" for details.\n"
        ),
        1,
    )
}

/// Starts units, all at once, and waits for them unless told not to.
fn start(host: &Host, units: &[String], options: &Options<'_>) -> io::Result<Outcome> {
    let asked = each(units, |unit| {
        Ok(
            match job::start_watched(host, unit, options.order(), !options.no_block)? {
                Answer::Accepted => Outcome::silent(),
                Answer::NotFound => Outcome::err(
                    format!("Failed to start {unit}: Unit {unit} not found.\n"),
                    5,
                ),
                Answer::Masked => Outcome::err(
                    format!("Failed to start {unit}: Unit {unit} is masked.\n"),
                    1,
                ),
                Answer::GoingDown => refused_when_going_down(host, unit).unwrap_or_default(),
            },
        )
    })?;
    if options.no_block || asked.status != 0 {
        return Ok(asked);
    }
    each(units, |unit| {
        let record = job::wait_until_started(host, unit)?;
        if record.start_failed {
            return Ok(job_failed(unit, &record));
        }
        if options.wait {
            let record = job::wait_until_down(host, unit)?;
            return Ok(Outcome {
                status: i32::from(record.active == State::Failed),
                ..Outcome::default()
            });
        }
        Ok(Outcome::silent())
    })
}

fn stop(host: &Host, units: &[String], options: &Options<'_>) -> io::Result<Outcome> {
    let asked = each(units, |unit| {
        Ok(match job::stop(host, unit)? {
            true => Outcome::silent(),
            false => Outcome::err(
                format!("Failed to stop {unit}: Unit {unit} not loaded.\n"),
                5,
            ),
        })
    })?;
    if !options.no_block {
        for unit in units {
            job::wait_until_down(host, unit)?;
        }
    }
    Ok(asked)
}

fn restart(
    host: &Host,
    units: &[String],
    options: &Options<'_>,
    verb: &str,
) -> io::Result<Outcome> {
    each(units, |unit| {
        let record = Units::open(host)?.get(unit);
        if verb == "try-restart" && !record.is_up() {
            return Ok(Outcome::silent());
        }
        if verb == "reload" && !record.is_up() {
            return Ok(Outcome::err(
                format!("{unit} is not active, cannot reload.\n"),
                1,
            ));
        }
        // The file is kept meanwhile, for a transient unit would go with its end.
        let transient = files::is_transient(host, unit)
            .then(|| find(host, unit))
            .flatten();
        let text = match &transient {
            Some(path) => fs::read(path)?,
            None => Vec::new(),
        };
        let one = std::slice::from_ref(unit);
        if record.is_up() {
            stop(host, one, options)?;
        }
        if let Some(path) = transient {
            fs::write(path, text)?;
        }
        start(host, one, options)
    })
}

fn reset_failed(host: &Host, units: &[String]) -> io::Result<Outcome> {
    let mut known = Units::open(host)?;
    let chosen: Vec<String> = match units.is_empty() {
        true => known.all().keys().cloned().collect(),
        false => units.to_vec(),
    };
    let mut outcome = Outcome::silent();
    for unit in chosen {
        if !known.is_loaded(&unit) {
            let text =
                format!("Failed to reset failed state of unit {unit}: Unit {unit} not loaded.\n");
            outcome = joined(outcome, Outcome::err(text, 1));
        } else if known.get(&unit).active == State::Failed {
            known.change(&unit, |record| {
                record.active = State::Inactive;
                record.sub.clear();
                record.result.clear();
            })?;
        }
    }
    known.sweep()?;
    Ok(outcome)
}

fn kill(host: &Host, units: &[String], options: &Options<'_>) -> io::Result<Outcome> {
    let name = if options.signal.is_empty() {
        "TERM"
    } else {
        options.signal
    };
    let Some(number) = exit::signal_named(name) else {
        let text = format!("Failed to parse signal string \"{name}\".\n");
        return Ok(Outcome::err(text, 1));
    };
    let known = Units::open(host)?;
    each(units, |unit| {
        if !known.is_loaded(unit) {
            return Ok(Outcome::err(
                format!("Failed to kill unit {unit}: Unit {unit} not loaded.\n"),
                1,
            ));
        }
        let record = known.get(unit);
        let doomed = match options.main_only {
            true => record.main.into_iter().collect(),
            false => record.keeper.map(members_of).unwrap_or_default(),
        };
        for pid in doomed {
            signal(pid, number);
        }
        Ok(Outcome::silent())
    })
}

fn cat(host: &Host, unit: &str) -> io::Result<Outcome> {
    let Some(path) = find(host, unit) else {
        return Ok(Outcome::err(format!("No files found for {unit}.\n"), 1));
    };
    let own = path.strip_prefix(host.root()).unwrap_or(&path);
    let mut text = format!("# /{}\n", own.display()).into_bytes();
    text.extend(fs::read(&path)?);
    Ok(Outcome::out(text, 0))
}

fn list_jobs(host: &Host) -> io::Result<Outcome> {
    let known = Units::open(host)?;
    let jobs = known.all().iter().filter(|(_, record)| record.starting);
    let lines: Vec<String> = jobs
        .enumerate()
        .map(|(number, (unit, record))| {
            let state = if record.is_up() { "running" } else { "waiting" };
            format!("{} {unit} start {state}\n", number + 1)
        })
        .collect();
    if lines.is_empty() {
        return Ok(Outcome::out("No jobs running.\n", 0));
    }
    Ok(Outcome::out(lines.concat(), 0))
}

//! `systemd-run`: transient services and timers.
//!
//! Texts and statuses are those of systemd 257. Scopes, sockets, paths and
//! terminals are refused, for there is nothing here that plays them.

mod options;

use std::fs;
use std::io::{self, Write};

use crate::sim::machine::Host;
use crate::sim::units::job::{self, Order};
use crate::sim::units::state::{Record, State, Units};
use crate::sim::units::{Duty, exit, files, line, program, span};

use super::{Call, Outcome};
use options::{Options, Refused};

/// First line of a transient unit's file.
const HEADER: &str =
    "# This is a transient unit file, created programmatically via the systemd API. Do not edit.\n";

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let options = match options::read(call.args, |name| std::env::var(name).ok()) {
        Ok(options) => options,
        Err(Refused::Version) => return Ok(Outcome::out(options::VERSION, 0)),
        Err(Refused::Text(text)) => return Ok(Outcome::err(format!("{text}\n"), 1)),
    };
    let host = call.host;
    if !host.path("/run/systemd/system").exists() {
        return Ok(Outcome::err(super::systemctl::NO_SYSTEMD, 1));
    }
    let Some(command) = resolve(host, &options.command) else {
        let program = options.command.first().map_or("", String::as_str);
        return Ok(Outcome::err(
            format!("Failed to find executable {program}: No such file or directory\n"),
            1,
        ));
    };
    if options.is_timer() {
        start_timer(host, &options, &command)
    } else {
        start_service(host, &options, &command)
    }
}

/// The command with the path of its program, as the machine has it.
fn resolve(host: &Host, command: &[String]) -> Option<Vec<String>> {
    let mut words = command.to_vec();
    if let Some(first) = words.first_mut() {
        let found = program::find(host, first)?;
        *first = match found.strip_prefix(host.root()) {
            Ok(own) => format!("/{}", own.display()),
            Err(_) => found.display().to_string(),
        };
    }
    Some(words)
}

fn description(options: &Options, command: &[String]) -> String {
    options.description.clone().unwrap_or_else(|| {
        let words: Vec<String> = command.iter().map(|word| shell_word(word)).collect();
        format!("[systemd-run] {}", words.join(" "))
    })
}

/// A word as systemd shows command lines: in double quotes where it needs any.
fn shell_word(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/.-_=:,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for letter in word.chars() {
        if "\"\\$`".contains(letter) {
            text.push('\\');
        }
        text.push(if letter == '\n' { ' ' } else { letter });
    }
    text + "\""
}

fn service_text(options: &Options, command: &[String]) -> String {
    let mut text = format!(
        "{HEADER}[Unit]\nDescription={}\n",
        description(options, command).replace('%', "%%")
    );
    for (key, value) in &options.unit_properties {
        text.push_str(&format!("{key}={value}\n"));
    }
    text.push_str("\n[Service]\n");
    for (key, value) in &options.service_properties {
        text.push_str(&format!("{key}={value}\n"));
    }
    for assignment in &options.environment {
        text.push_str(&format!("Environment={}\n", line::quote(assignment)));
    }
    let words: Vec<String> = command.iter().map(|word| line::quote(word)).collect();
    text.push_str(&format!("ExecStart=\nExecStart={}\n", words.join(" ")));
    text
}

fn timer_text(options: &Options, command: &[String], service: &str) -> String {
    let mut text = format!("{HEADER}[Unit]\n");
    if !command.is_empty() || options.description.is_some() {
        let shown = description(options, command).replace('%', "%%");
        text.push_str(&format!("Description={shown}\n"));
    }
    if options.collect {
        text.push_str("CollectMode=inactive-or-failed\n");
    }
    text.push_str("\n[Timer]\n");
    for (key, value) in &options.timer_properties {
        text.push_str(&format!("{key}={value}\n"));
    }
    text.push_str(&format!("RemainAfterElapse=no\nUnit={service}\n"));
    text
}

fn taken(kind: &str, unit: &str) -> Outcome {
    Outcome::err(
        format!(
            "Failed to start transient {kind} unit: Unit {unit} was already loaded or has a fragment file.\n"
        ),
        1,
    )
}

fn write_unit(host: &Host, unit: &str, text: &str) -> io::Result<()> {
    host.write(&format!("{}/{unit}", files::TRANSIENT), text)
}

/// Puts the start of a new unit into the queue, or takes its file back.
fn enqueue(units: &mut Units<'_>, host: &Host, unit: &str, duty: Duty) -> io::Result<()> {
    let queued = job::enqueue(units, host, unit, Order::Kept, &[], duty);
    if queued.is_err() {
        let _ = fs::remove_file(host.path(format!("{}/{unit}", files::TRANSIENT)));
    }
    queued
}

fn start_service(host: &Host, options: &Options, command: &[String]) -> io::Result<Outcome> {
    let unit = options.unit_name(".service");
    if !unit.ends_with(".service") {
        return Ok(Outcome::err(
            "Failed to start transient service unit: Cannot set property ExecStart, or unknown property.\n",
            1,
        ));
    }
    let duty = if options.pipe {
        Duty::Piped
    } else {
        Duty::Service
    };
    {
        let mut units = Units::open(host)?;
        if units.is_loaded(&unit) {
            return Ok(taken("service", &unit));
        }
        if let Some(refused) = super::systemctl::refused_when_going_down(host, &unit) {
            return Ok(refused);
        }
        write_unit(host, &unit, &service_text(options, command))?;
        enqueue(&mut units, host, &unit, duty)?;
        if options.waits() || !options.no_block {
            job::watch_in(&mut units, &unit)?;
        }
    }
    let mut stderr = io::stderr();
    if options.waits() && !options.quiet {
        let _ = writeln!(stderr, "Running as unit: {unit}");
    }
    if options.waits() {
        let record = job::wait_until_down(host, &unit)?;
        let text = if options.quiet {
            String::new()
        } else {
            summary(&record)
        };
        return Ok(Outcome::err(text, exit_status(&record)));
    }
    if !options.no_block {
        let record = job::wait_until_started(host, &unit)?;
        if record.start_failed {
            return Ok(super::systemctl::job_failed(&unit, &record));
        }
        if !options.quiet {
            let id = &record.invocation;
            return Ok(Outcome::err(
                format!("Running as unit: {unit}; invocation ID: {id}\n"),
                0,
            ));
        }
    } else if !options.quiet {
        return Ok(Outcome::err(format!("Running as unit: {unit}\n"), 0));
    }
    Ok(Outcome::silent())
}

fn start_timer(host: &Host, options: &Options, command: &[String]) -> io::Result<Outcome> {
    let name = options.unit_name(".service");
    let stem = name
        .rsplit_once('.')
        .map_or(name.as_str(), |(stem, _)| stem);
    let (timer, service) = (format!("{stem}.timer"), format!("{stem}.service"));
    {
        let mut units = Units::open(host)?;
        if units.is_loaded(&timer) {
            return Ok(taken("timer", &timer));
        }
        if !command.is_empty() {
            if units.is_loaded(&service) {
                return Ok(taken("timer", &service));
            }
        } else if !units.is_loaded(&service) {
            return Ok(Outcome::err(
                "Job failed. See \"journalctl -xe\" for details.\n",
                1,
            ));
        }
        if let Some(refused) = super::systemctl::refused_when_going_down(host, &timer) {
            return Ok(refused);
        }
        if !command.is_empty() {
            write_unit(host, &service, &service_text(options, command))?;
        }
        write_unit(host, &timer, &timer_text(options, command, &service))?;
        enqueue(&mut units, host, &timer, Duty::Timer)?;
        if !options.no_block {
            job::watch_in(&mut units, &timer)?;
        }
    }
    if !options.no_block {
        job::wait_until_started(host, &timer)?;
    }
    if options.quiet {
        return Ok(Outcome::silent());
    }
    let mut text = format!("Running timer as unit: {timer}\n");
    if !command.is_empty() {
        text.push_str(&format!("Will run service as unit: {service}\n"));
    }
    Ok(Outcome::err(text, 0))
}

/// What `--wait` tells of a service that ended.
fn summary(record: &Record) -> String {
    let mut text = format!("Finished with result: {}\n", record.result());
    if let Some(ended) = record.exit {
        text.push_str(&format!(
            "Main processes terminated with: code={}, status={}\n",
            exit::exit_code(ended),
            exit::exit_words(ended)
        ));
    }
    let runtime = record.inactive_enter.saturating_sub(record.inactive_exit);
    text.push_str(&format!(
        "Service runtime: {}\n",
        span::show(runtime / 1000 * 1000)
    ));
    text
}

/// The status that `--wait` passes on.
fn exit_status(record: &Record) -> i32 {
    match record.result() {
        "success" if record.active != State::Failed => 0,
        "exit-code" => match record.exit {
            Some(ended) => exit::status_of(ended).unwrap_or(1),
            None => 1,
        },
        "signal" | "core-dump" => 255,
        _ => 1,
    }
}

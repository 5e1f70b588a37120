//! `systemctl` over unit files of the machine: enabling, starting oneshot and
//! long-running services, and the questions that scripts ask.

mod files;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sim::host::write_holders;
use crate::sim::machine::Host;

use super::{Call, Outcome, power};
use files::{Settings, find, install_links, is_masked, one, settings, split, words_of};

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    if !call.host.path("/run/systemd/system").exists() {
        return Ok(Outcome::err(
            "System has not been booted with systemd as init system (PID 1). Can't operate.\n\
             Failed to connect to bus: Host is down\n",
            1,
        ));
    }
    let mut words: Vec<&str> = Vec::new();
    let mut now = false;
    let mut quiet = false;
    let mut value_only = false;
    let mut properties = Vec::new();
    let mut rest = call.args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        match arg {
            "--now" => now = true,
            "-q" | "--quiet" => quiet = true,
            "--value" => value_only = true,
            "-p" | "--property" => properties.extend(rest.next().unwrap_or_default().split(',')),
            _ if arg.starts_with("--property=") => {
                properties.extend(arg["--property=".len()..].split(','));
            }
            _ if arg.starts_with("-p") => properties.extend(arg[2..].split(',')),
            _ if arg.starts_with('-') => {}
            _ => words.push(arg),
        }
    }
    let Some((verb, units)) = words.split_first() else {
        return Ok(Outcome::silent());
    };
    let units: Vec<String> = units.iter().map(|unit| full_name(unit)).collect();
    let host = call.host;
    match *verb {
        "daemon-reload" | "daemon-reexec" | "reset-failed" => Ok(Outcome::silent()),
        "is-system-running" => Ok(Outcome::out("running\n", 0)),
        "reboot" => {
            power::boot(host)?;
            Ok(Outcome::silent())
        }
        "enable" | "reenable" | "disable" => {
            let outcome = each(&units, |unit| switch(host, unit, *verb != "disable"))?;
            if now && outcome.status == 0 {
                return each(&units, |unit| {
                    if *verb == "disable" {
                        stop(host, unit)
                    } else {
                        start(host, unit)
                    }
                });
            }
            Ok(outcome)
        }
        "mask" | "unmask" => each(&units, |unit| mask(host, unit, *verb == "mask")),
        "start" => each(&units, |unit| start(host, unit)),
        "stop" => each(&units, |unit| stop(host, unit)),
        "restart" | "reload-or-restart" | "try-restart" | "reload" => each(&units, |unit| {
            if *verb == "try-restart" && !host.load()?.active_units.contains(unit) {
                return Ok(Outcome::silent());
            }
            let stopped = stop(host, unit)?;
            if stopped.status == 0 {
                start(host, unit)
            } else {
                Ok(stopped)
            }
        }),
        "is-active" | "is-failed" | "is-enabled" => question(host, verb, &units, quiet),
        "show" => show(host, &units, &properties, value_only),
        "status" => status(host, &units),
        "cat" => each(&units, |unit| match find(host, unit) {
            Some(path) => Ok(Outcome::out(fs::read(path)?, 0)),
            None => Ok(Outcome::err(format!("No files found for {unit}.\n"), 1)),
        }),
        "list-units" | "list-unit-files" => list(host),
        other => Ok(Outcome::err(format!("Unknown command verb {other}.\n"), 1)),
    }
}

fn full_name(unit: &str) -> String {
    const KINDS: [&str; 6] = [
        ".service", ".timer", ".target", ".path", ".socket", ".mount",
    ];
    if KINDS.iter().any(|kind| unit.ends_with(kind)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

fn each(
    units: &[String],
    mut action: impl FnMut(&String) -> io::Result<Outcome>,
) -> io::Result<Outcome> {
    let mut all = Outcome::default();
    for unit in units {
        let one = action(unit)?;
        all.stdout.extend(one.stdout);
        all.stderr.extend(one.stderr);
        if one.status != 0 {
            all.status = one.status;
        }
    }
    Ok(all)
}

fn switch(host: &Host, unit: &str, on: bool) -> io::Result<Outcome> {
    let Some(file) = find(host, unit) else {
        // Disabling what is gone still takes its links away.
        let text = format!(
            "Failed to {} unit: Unit file {unit} does not exist.\n",
            if on { "enable" } else { "disable" }
        );
        return Ok(Outcome::err(text, 1));
    };
    if on && is_masked(host, unit) {
        return Ok(Outcome::err(
            format!("Failed to enable unit: Unit file {unit} is masked.\n"),
            1,
        ));
    }
    let links = install_links(host, unit);
    if on && links.is_empty() {
        return Ok(Outcome::err(
            "The unit files have no installation config (WantedBy=, RequiredBy=, UpheldBy=,\nAlso=, or Alias= settings in the [Install] section).\n",
            0,
        ));
    }
    let shown = |path: &Path| {
        format!(
            "/{}",
            path.strip_prefix(host.root()).unwrap_or(path).display()
        )
    };
    let mut text = String::new();
    for link in links {
        let exists = fs::symlink_metadata(&link).is_ok();
        if on && !exists {
            fs::create_dir_all(link.parent().unwrap_or(host.root()))?;
            std::os::unix::fs::symlink(shown(&file), &link)?;
            text.push_str(&format!(
                "Created symlink {} → {}.\n",
                shown(&link),
                shown(&file)
            ));
        } else if !on && exists {
            fs::remove_file(&link)?;
            text.push_str(&format!("Removed \"{}\".\n", shown(&link)));
        }
    }
    Ok(Outcome::err(text, 0))
}

fn mask(host: &Host, unit: &str, on: bool) -> io::Result<Outcome> {
    let path = host.path(format!("/etc/systemd/system/{unit}"));
    if on && !is_masked(host, unit) {
        if path.exists() {
            return Ok(Outcome::err(
                format!("Failed to mask unit: File /etc/systemd/system/{unit} already exists.\n"),
                1,
            ));
        }
        std::os::unix::fs::symlink("/dev/null", path)?;
    } else if !on && is_masked(host, unit) {
        fs::remove_file(path)?;
    }
    Ok(Outcome::silent())
}

fn not_found(verb: &str, unit: &str) -> Outcome {
    let status = 5;
    Outcome::err(
        format!("Failed to {verb} {unit}: Unit {unit} not found.\n"),
        status,
    )
}

fn start(host: &Host, unit: &str) -> io::Result<Outcome> {
    if is_masked(host, unit) {
        return Ok(Outcome::err(
            format!("Failed to start {unit}: Unit {unit} is masked.\n"),
            1,
        ));
    }
    if find(host, unit).is_none() {
        return Ok(not_found("start", unit));
    }
    if host.load()?.active_units.contains(&unit.to_owned()) {
        return Ok(Outcome::silent());
    }
    let settings = settings(host, unit);
    let condition = settings.get(&("Unit".to_owned(), "ConditionPathExists".to_owned()));
    let unmet = condition
        .into_iter()
        .flatten()
        .any(|path| match path.strip_prefix('!') {
            Some(path) => host.path(path).exists(),
            None => !host.path(path).exists(),
        });
    if unmet {
        return Ok(Outcome::silent());
    }
    let oneshot = one(&settings, "Service", "Type").as_deref() == Some("oneshot");
    let mut failed = false;
    if oneshot {
        for key in ["ExecStartPre", "ExecStart", "ExecStartPost"] {
            let lines = settings.get(&("Service".to_owned(), key.to_owned()));
            for line in lines.into_iter().flatten() {
                if !run_line(host, &settings, unit, line)? {
                    failed = true;
                    break;
                }
            }
            if failed {
                break;
            }
        }
    }
    let remains = !oneshot
        || matches!(
            one(&settings, "Service", "RemainAfterExit").as_deref(),
            Some("yes" | "true" | "1" | "on")
        );
    host.update(|machine| {
        machine.failed_units.retain(|other| other != unit);
        machine.active_units.retain(|other| other != unit);
        if failed {
            machine.failed_units.push(unit.to_owned());
        } else if remains {
            machine.active_units.push(unit.to_owned());
        }
        // A unit that uses a card opens it again.
        let holders: Vec<_> = machine
            .spec
            .in_use
            .iter()
            .filter(|holder| holder.unit.as_deref() == Some(unit))
            .cloned()
            .collect();
        for holder in holders.into_iter().filter(|_| !failed) {
            if !machine.holders.contains(&holder) {
                machine.holders.push(holder);
            }
        }
        write_holders(host, machine)
    })?;
    if failed {
        return Ok(Outcome::err(
            format!(
                "Job for {unit} failed because the control process exited with error code.\n\
                 See \"systemctl status {unit}\" and \"journalctl -xeu {unit}\" for details.\n"
            ),
            1,
        ));
    }
    Ok(Outcome::silent())
}

/// Runs one `Exec…=` line; whether it went well.
fn run_line(host: &Host, settings: &Settings, unit: &str, line: &str) -> io::Result<bool> {
    let forgiving = line.starts_with('-');
    let mut words = split(line.trim_start_matches(['-', '@', '+', '!', ':'])).into_iter();
    let Some(program) = words.next() else {
        return Ok(true);
    };
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(host.path("/var/log/units.log"))?;
    let mut command = Command::new(program_of(host, &program));
    command
        .args(words.map(|word| argument_of(host, &word)))
        .current_dir(host.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .env_clear()
        .envs(crate::sim::confine::environment(host.root()));
    for assignment in settings
        .get(&("Service".to_owned(), "Environment".to_owned()))
        .into_iter()
        .flatten()
    {
        for word in split(assignment) {
            if let Some((name, value)) = word.split_once('=') {
                command.env(name, value);
            }
        }
    }
    command.env(
        "INVOCATION_ID",
        crate::sim::machine::uuid(unit).replace('-', ""),
    );
    match command.status() {
        Ok(status) => Ok(status.success() || forgiving),
        Err(error) => {
            host.write(
                "/var/log/units-error.log",
                format!("{unit}: {line}: {error}\n"),
            )?;
            Ok(forgiving)
        }
    }
}

/// The machine's own file if it has one at that path, else the program of that name.
fn program_of(host: &Host, program: &str) -> PathBuf {
    let own = host.path(program);
    if program.starts_with('/') && own.exists() {
        return own;
    }
    PathBuf::from(Path::new(program).file_name().unwrap_or_default())
}

/// Absolute paths that exist on the machine are its own.
fn argument_of(host: &Host, word: &str) -> String {
    let own = host.path(word);
    if word.starts_with('/') && own.exists() {
        own.display().to_string()
    } else {
        word.to_owned()
    }
}

fn stop(host: &Host, unit: &str) -> io::Result<Outcome> {
    let machine = host.load()?;
    let active = machine.active_units.contains(&unit.to_owned());
    if !active && find(host, unit).is_none() {
        return Ok(not_found("stop", unit));
    }
    if active {
        let settings = settings(host, unit);
        for line in settings
            .get(&("Service".to_owned(), "ExecStop".to_owned()))
            .into_iter()
            .flatten()
        {
            run_line(host, &settings, unit, line)?;
        }
    }
    host.update(|machine| {
        machine.active_units.retain(|other| other != unit);
        machine
            .holders
            .retain(|holder| holder.unit.as_deref() != Some(unit));
        write_holders(host, machine)
    })?;
    Ok(Outcome::silent())
}

fn enabled_state(host: &Host, unit: &str) -> Option<&'static str> {
    if is_masked(host, unit) {
        return Some("masked");
    }
    let file = find(host, unit)?;
    let links = install_links(host, unit);
    if links.iter().any(|link| fs::symlink_metadata(link).is_ok()) {
        return Some("enabled");
    }
    let shipped = file.starts_with(host.path("/usr/lib/systemd/system"));
    Some(match links.is_empty() {
        true => "static",
        // What the distribution brought runs; it was enabled when it was installed.
        false if shipped && !file_was_disabled(host, unit) => "enabled",
        false => "disabled",
    })
}

fn file_was_disabled(host: &Host, unit: &str) -> bool {
    !host
        .load()
        .is_ok_and(|machine| machine.active_units.contains(&unit.to_owned()))
}

fn active_state(host: &Host, unit: &str) -> io::Result<&'static str> {
    let machine = host.load()?;
    let is = |list: &[String]| list.iter().any(|other| other == unit);
    Ok(if is(&machine.active_units) {
        "active"
    } else if is(&machine.failed_units) {
        "failed"
    } else {
        "inactive"
    })
}

fn question(host: &Host, verb: &str, units: &[String], quiet: bool) -> io::Result<Outcome> {
    let mut text = String::new();
    let mut good = false;
    let mut stderr = String::new();
    for unit in units {
        match verb {
            "is-enabled" => match enabled_state(host, unit) {
                Some(state) => {
                    good |= ["enabled", "static"].contains(&state);
                    text.push_str(&format!("{state}\n"));
                }
                None => {
                    stderr.push_str(&format!(
                        "Failed to get unit file state for {unit}: No such file or directory\n"
                    ));
                }
            },
            _ => {
                let state = active_state(host, unit)?;
                good |= state
                    == if verb == "is-active" {
                        "active"
                    } else {
                        "failed"
                    };
                text.push_str(&format!("{state}\n"));
            }
        }
    }
    let status = match (verb, good) {
        (_, true) => 0,
        ("is-active", false) => 3,
        _ => 1,
    };
    Ok(Outcome {
        stdout: if quiet { Vec::new() } else { text.into_bytes() },
        stderr: stderr.into_bytes(),
        status,
    })
}

fn show(
    host: &Host,
    units: &[String],
    properties: &[&str],
    value_only: bool,
) -> io::Result<Outcome> {
    let mut text = String::new();
    for unit in units {
        let file = find(host, unit);
        let active = active_state(host, unit)?;
        let shown = file.as_ref().map(|path| {
            format!(
                "/{}",
                path.strip_prefix(host.root()).unwrap_or(path).display()
            )
        });
        let all = [
            ("Id", unit.clone()),
            (
                "LoadState",
                if is_masked(host, unit) {
                    "masked"
                } else if file.is_some() {
                    "loaded"
                } else {
                    "not-found"
                }
                .to_owned(),
            ),
            ("ActiveState", active.to_owned()),
            (
                "SubState",
                match active {
                    "active" => "exited",
                    "failed" => "failed",
                    _ => "dead",
                }
                .to_owned(),
            ),
            (
                "UnitFileState",
                enabled_state(host, unit).unwrap_or_default().to_owned(),
            ),
            ("FragmentPath", shown.unwrap_or_default()),
            ("NeedDaemonReload", "no".to_owned()),
            (
                "Result",
                if active == "failed" {
                    "exit-code"
                } else {
                    "success"
                }
                .to_owned(),
            ),
            ("MainPID", "0".to_owned()),
        ];
        for (name, value) in all {
            if properties.is_empty() || properties.contains(&name) {
                text.push_str(&if value_only {
                    format!("{value}\n")
                } else {
                    format!("{name}={value}\n")
                });
            }
        }
    }
    Ok(Outcome::out(text, 0))
}

fn status(host: &Host, units: &[String]) -> io::Result<Outcome> {
    each(units, |unit| {
        if find(host, unit).is_none() {
            return Ok(Outcome::err(
                format!("Unit {unit} could not be found.\n"),
                4,
            ));
        }
        let state = active_state(host, unit)?;
        let text = format!("● {unit}\n     Loaded: loaded\n     Active: {state}\n");
        Ok(Outcome::out(text, if state == "active" { 0 } else { 3 }))
    })
}

fn list(host: &Host) -> io::Result<Outcome> {
    let machine = host.load()?;
    let lines: Vec<String> = machine
        .active_units
        .iter()
        .map(|unit| format!("{unit} loaded active running\n"))
        .collect();
    Ok(Outcome::out(lines.concat(), 0))
}

/// Whether a unit that was running comes back with a boot by itself: what the
/// distribution brought does, our own only when enabled.
pub(super) fn starts_by_itself(host: &Host, unit: &str) -> bool {
    find(host, unit).is_some_and(|path| path.starts_with(host.path("/usr/lib/systemd/system")))
}

/// Starts the units that are enabled, each after those it names in `After=` and
/// after those that name it in `Before=`.
pub(super) fn start_enabled(host: &Host) -> io::Result<()> {
    let mut waiting: Vec<String> = Vec::new();
    if let Ok(folders) = fs::read_dir(host.path("/etc/systemd/system")) {
        for folder in folders
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".wants"))
        {
            for link in fs::read_dir(folder.path())?.filter_map(Result::ok) {
                let name = link.file_name().to_string_lossy().into_owned();
                if !waiting.contains(&name) {
                    waiting.push(name);
                }
            }
        }
    }
    waiting.sort();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|unit| {
            let after = words_of(&settings(host, unit), "Unit", "After");
            !waiting.iter().any(|other| {
                other != unit
                    && (after.contains(other)
                        || words_of(&settings(host, other), "Unit", "Before").contains(unit))
            })
        });
        // Units that wait for each other: systemd breaks the circle too.
        let unit = waiting.remove(ready.unwrap_or(0));
        start(host, &unit)?;
    }
    Ok(())
}

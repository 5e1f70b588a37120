//! The keeper of a service: starts its processes, waits for their end or for a
//! request to stop, ends what is left of them, and says how it went.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;

use rustix::process::{Signal, WaitOptions};

use crate::sim::machine::{Host, uuid};
use crate::sim::tools;

use super::exit::{Exit, exit_code, exit_status, of_wait, result_of, signal_named};
use super::files::{self, Settings};
use super::process::{Process, members, signal, uptime};
use super::program::{self, Program, Streams};
use super::state::{State, Units, stop_request};
use super::{Duty, Pace, job, span};

/// `DefaultTimeoutStopSec=` and `DefaultTimeoutStartSec=`.
const DEFAULT_TIMEOUT: u64 = 90_000_000;
/// Signals that end a service well unless it is a oneshot one: HUP, INT, PIPE, TERM.
const CLEAN_SIGNALS: [i32; 4] = [1, 2, 13, 15];

struct Service<'a> {
    host: &'a Host,
    unit: &'a str,
    settings: Settings,
    oneshot: bool,
    variables: BTreeMap<String, OsString>,
    /// `Result=` so far; the first thing that goes wrong counts.
    result: String,
}

/// Why waiting for a process ended.
enum Waited {
    Ended(Exit),
    Stop,
    TimedOut,
}

/// Starts a service and keeps it until it ended.
pub(super) fn keep(host: &Host, unit: &str, duty: Duty) -> io::Result<()> {
    if !job::wait_for_turn(host, unit)? {
        return job::give_up(host, unit);
    }
    let mut service = Service::load(host, unit)?;
    if job::is_unwanted(host, &service.settings) {
        return job::skip(host, unit);
    }
    service.begin()?;
    let streams = match duty {
        Duty::Piped => Streams::Inherited,
        _ => Streams::Journal,
    };
    if !service.run_all("ExecStartPre", "start-pre")? {
        return service.finish_start_failed();
    }
    if service.oneshot {
        return service.keep_oneshot(streams);
    }
    let Some(main) = service.spawn_main(streams)? else {
        return service.finish_start_failed();
    };
    if !service.run_all("ExecStartPost", "start-post")? {
        return service.finish_start_failed();
    }
    service.change(|record| {
        record.active = State::Active;
        "running".clone_into(&mut record.sub);
        record.active_enter = uptime();
        record.starting = false;
    })?;
    if duty == Duty::Piped {
        // The streams are the service's alone: become ourselves again without them.
        let main = main.to_string();
        return Err(super::keeper(host, Duty::Watch, &[unit, &main])?.exec());
    }
    service.watch(main)
}

/// Goes on with a service that `keep` has started in this process.
pub(super) fn watch(host: &Host, unit: &str, main: u32) -> io::Result<()> {
    Service::load(host, unit)?.watch(main)
}

/// Ends all that is left of a unit whose keeper cannot go on.
pub(super) fn abandon() {
    let mut pace = Pace::default();
    loop {
        let left = members(std::process::id());
        if left.is_empty() {
            return;
        }
        for pid in left {
            signal(pid, Signal::KILL);
        }
        let _ = rustix::process::wait(WaitOptions::NOHANG);
        pace.rest();
    }
}

/// Stops a service that remains active without processes.
pub(super) fn end(host: &Host, unit: &str) -> io::Result<()> {
    let mut service = Service::load(host, unit)?;
    service.stop()?;
    service.finish()
}

impl<'a> Service<'a> {
    fn load(host: &'a Host, unit: &'a str) -> io::Result<Self> {
        let settings = files::settings(host, unit);
        let mut more = Vec::new();
        {
            let units = Units::open(host)?;
            let record = units.get(unit);
            more.push(("INVOCATION_ID".to_owned(), record.invocation));
            more.extend(record.environment);
        }
        more.push((
            "SYSTEMD_EXEC_PID".to_owned(),
            std::process::id().to_string(),
        ));
        let oneshot = files::one(&settings, "Service", "Type").as_deref() == Some("oneshot");
        Ok(Self {
            variables: program::variables(host, unit, &settings, &more),
            host,
            unit,
            settings,
            oneshot,
            result: String::new(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut super::state::Record)) -> io::Result<()> {
        Units::open(self.host)?.change(self.unit, change)
    }

    fn lines(&self, key: &str) -> Vec<String> {
        let lines = self.settings.get(&("Service".to_owned(), key.to_owned()));
        lines.cloned().unwrap_or_default()
    }

    fn word(&self, key: &str) -> String {
        files::one(&self.settings, "Service", key).unwrap_or_default()
    }

    fn is_on(&self, key: &str) -> bool {
        ["yes", "true", "1", "on", "y", "t"].contains(&self.word(key).as_str())
    }

    /// A time limit; the first key that is set counts.
    fn limit(&self, keys: &[&str], default: u64) -> u64 {
        keys.iter()
            .find_map(|key| span::parse(&self.word(key)))
            .map_or(default, |limit| if limit == 0 { u64::MAX } else { limit })
    }

    fn begin(&self) -> io::Result<()> {
        self.change(|record| {
            record.active = State::Activating;
            "start".clone_into(&mut record.sub);
            record.result.clear();
            record.exit = None;
            record.inactive_exit = uptime();
        })
    }

    /// Runs the programs of a key one after another; whether all went well.
    fn run_all(&mut self, key: &str, sub: &str) -> io::Result<bool> {
        let limit = if self.oneshot {
            u64::MAX
        } else {
            DEFAULT_TIMEOUT
        };
        let limit = self.limit(&["TimeoutStartSec", "TimeoutSec"], limit);
        self.run_lines(key, sub, limit, Streams::Journal)
    }

    fn run_lines(
        &mut self,
        key: &str,
        sub: &str,
        limit: u64,
        streams: Streams,
    ) -> io::Result<bool> {
        for line in self.lines(key) {
            let Some(program) = Program::new(self.host, self.unit, &line, &self.variables) else {
                continue;
            };
            let child = self.spawn(&program, streams)?;
            let main = key == "ExecStart";
            self.change(|record| {
                sub.clone_into(&mut record.sub);
                record.main = main.then_some(child);
            })?;
            let waited = self.wait(child, limit)?;
            if let (true, Waited::Ended(exit)) = (main, &waited) {
                self.change(|record| {
                    record.exit = Some(*exit);
                    record.main = None;
                })?;
            }
            match waited {
                Waited::Ended(exit) if self.is_clean(exit, true) || program.forgiving => {}
                Waited::Ended(exit) => {
                    self.fail(result_of(exit));
                    return Ok(false);
                }
                Waited::Stop => return Ok(false),
                Waited::TimedOut => {
                    self.fail("timeout");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn fail(&mut self, result: &str) {
        if self.result.is_empty() {
            result.clone_into(&mut self.result);
        }
    }

    fn spawn(&self, program: &Program, streams: Streams) -> io::Result<u32> {
        let folder = files::one(&self.settings, "Service", "WorkingDirectory");
        let folder = folder.as_deref();
        let child = program.spawn(self.host, &self.variables, self.unit, folder, streams)?;
        Ok(child.id())
    }

    fn spawn_main(&mut self, streams: Streams) -> io::Result<Option<u32>> {
        let lines = self.lines("ExecStart");
        let program = lines
            .last()
            .and_then(|line| Program::new(self.host, self.unit, line, &self.variables));
        let Some(program) = program else {
            self.fail("resources");
            return Ok(None);
        };
        let child = self.spawn(&program, streams)?;
        self.change(|record| record.main = Some(child))?;
        if let Some(name) = files::one(&self.settings, "Container", "ContainerName") {
            // podman tells when its container runs; one that does not start ends.
            let mut pace = Pace::default();
            while !tools::container_runs(self.host, &name)
                && Process::of(child).is_some_and(Process::is_alive)
            {
                pace.rest();
            }
        }
        if self.word("Type") == "forking" {
            // It is up once it went to the background.
            let limit = self.limit(&["TimeoutStartSec", "TimeoutSec"], DEFAULT_TIMEOUT);
            match self.wait(child, limit)? {
                Waited::Ended(exit) if self.is_clean(exit, true) => {}
                Waited::Ended(exit) => {
                    self.fail(result_of(exit));
                    return Ok(None);
                }
                Waited::Stop => return Ok(None),
                Waited::TimedOut => {
                    self.fail("timeout");
                    return Ok(None);
                }
            }
            let left = members(std::process::id());
            let main = left.first().copied();
            self.change(|record| record.main = main)?;
            return Ok(Some(main.unwrap_or(child)));
        }
        Ok(Some(child))
    }

    fn keep_oneshot(&mut self, streams: Streams) -> io::Result<()> {
        let limit = self.limit(&["TimeoutStartSec", "TimeoutSec"], u64::MAX);
        if !self.run_lines("ExecStart", "start", limit, streams)? {
            return self.finish_start_failed();
        }
        if !self.run_all("ExecStartPost", "start-post")? {
            return self.finish_start_failed();
        }
        if !self.is_on("RemainAfterExit") {
            self.end_members()?;
            return self.finish();
        }
        self.remain()
    }

    /// Stays active without a keeper, for there is nothing left to keep.
    fn remain(&self) -> io::Result<()> {
        let unit = self.unit;
        let mut units = Units::open(self.host)?;
        units.change(unit, |record| {
            record.active = State::Active;
            "exited".clone_into(&mut record.sub);
            record.active_enter = uptime();
            record.starting = false;
            record.main = None;
            record.keeper = None;
        })
    }

    fn watch(&mut self, main: u32) -> io::Result<()> {
        let limit = self.limit(&["RuntimeMaxSec"], u64::MAX);
        match self.wait(main, limit)? {
            Waited::Ended(exit) => {
                self.change(|record| {
                    record.exit = Some(exit);
                    record.main = None;
                })?;
                let clean = self.is_clean(exit, self.oneshot);
                if !clean {
                    self.fail(result_of(exit));
                }
                if clean && self.is_on("RemainAfterExit") {
                    return self.remain();
                }
                self.stop()?;
            }
            Waited::Stop => self.stop()?,
            Waited::TimedOut => {
                self.fail("timeout");
                self.stop()?;
            }
        }
        self.finish()
    }

    fn finish_start_failed(&mut self) -> io::Result<()> {
        self.stop_members("stop-sigterm")?;
        self.change(|record| record.start_failed = true)?;
        self.finish()
    }

    /// `ExecStop=`, then the end of all processes.
    fn stop(&mut self) -> io::Result<()> {
        if !self.lines("ExecStop").is_empty() {
            self.change(|record| {
                record.active = State::Deactivating;
                "stop".clone_into(&mut record.sub);
            })?;
            let limit = self.stop_limit();
            // A request to stop is being met: it must not end this as well.
            let _ = std::fs::remove_file(stop_request(self.host, self.unit));
            self.run_lines("ExecStop", "stop", limit, Streams::Journal)?;
        }
        self.stop_members("stop-sigterm")
    }

    fn stop_limit(&self) -> u64 {
        self.limit(&["TimeoutStopSec", "TimeoutSec"], DEFAULT_TIMEOUT)
    }

    fn stop_members(&mut self, sub: &str) -> io::Result<()> {
        if !members(std::process::id()).is_empty() {
            self.change(|record| {
                record.active = State::Deactivating;
                sub.clone_into(&mut record.sub);
            })?;
        }
        self.end_members()
    }

    /// Ends what is left of the unit, as `KillMode=` says.
    fn end_members(&mut self) -> io::Result<()> {
        let own = std::process::id();
        let main = Units::open(self.host)?.get(self.unit).main;
        let mode = self.word("KillMode");
        let chosen = |pid: u32| match mode.as_str() {
            "none" => false,
            "process" => Some(pid) == main,
            _ => true,
        };
        let polite = signal_named(&self.word("KillSignal")).unwrap_or(Signal::TERM);
        let left = |chosen: &dyn Fn(u32) -> bool| -> Vec<u32> {
            members(own)
                .into_iter()
                .filter(|pid| chosen(*pid))
                .collect()
        };
        for pid in left(&chosen) {
            let others_at_once = mode == "mixed" && Some(pid) != main;
            signal(pid, if others_at_once { Signal::KILL } else { polite });
            signal(pid, Signal::CONT);
        }
        let deadline = uptime().saturating_add(self.stop_limit());
        let mut pace = Pace::default();
        loop {
            if let Some(exit) = main.and_then(reap) {
                self.change(|record| {
                    record.exit = Some(exit);
                    record.main = None;
                })?;
                if !self.is_clean(exit, self.oneshot) && uptime() < deadline {
                    self.fail(result_of(exit));
                }
            }
            let left = left(&chosen);
            if left.is_empty() {
                break;
            }
            if !super::exists(self.host) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            if uptime() >= deadline {
                self.fail("timeout");
                for pid in left {
                    signal(pid, Signal::KILL);
                }
            }
            pace.rest();
        }
        Ok(())
    }

    /// Writes down how it ended and starts what was to start then.
    fn finish(&mut self) -> io::Result<()> {
        tools::forget_ended_sockets(self.host)?;
        let failed = !self.result.is_empty();
        let (mut exit, mut invocation) = (None, String::new());
        {
            let mut units = Units::open(self.host)?;
            let _ = std::fs::remove_file(stop_request(self.host, self.unit));
            units.change(self.unit, |record| {
                record.active = if failed {
                    State::Failed
                } else {
                    State::Inactive
                };
                record.sub.clear();
                record.result.clone_from(&self.result);
                record.starting = false;
                record.main = None;
                record.keeper = None;
                record.inactive_enter = uptime();
                record.environment.clear();
                exit = record.exit;
                invocation.clone_from(&record.invocation);
            })?;
        }
        let key = if failed { "OnFailure" } else { "OnSuccess" };
        let monitor = [
            ("MONITOR_UNIT", self.unit.to_owned()),
            ("MONITOR_INVOCATION_ID", invocation),
            (
                "MONITOR_SERVICE_RESULT",
                if failed {
                    self.result.clone()
                } else {
                    "success".to_owned()
                },
            ),
            ("MONITOR_EXIT_CODE", exit.map_or("", exit_code).to_owned()),
            (
                "MONITOR_EXIT_STATUS",
                exit.map(exit_status).unwrap_or_default(),
            ),
        ];
        let monitor = monitor.map(|(name, value)| (name.to_owned(), value));
        for other in files::words_of(&self.settings, "Unit", key) {
            // One that cannot be started is a line in the journal of a real machine.
            let _ = job::start(self.host, &other, job::Order::Kept, &monitor)?;
        }
        Units::open(self.host)?.sweep()
    }

    fn is_clean(&self, exit: Exit, only_statuses: bool) -> bool {
        let more = files::words_of(&self.settings, "Service", "SuccessExitStatus");
        match exit {
            Exit::Exited(0) => true,
            Exit::Exited(status) => more.contains(&status.to_string()),
            Exit::Killed(number) | Exit::Dumped(number) => {
                !only_statuses && CLEAN_SIGNALS.contains(&number)
                    || more.iter().any(|word| {
                        signal_named(word).is_some_and(|signal| signal.as_raw() == number)
                    })
            }
        }
    }

    /// Waits for the end of one of our processes, and reaps the others.
    fn wait(&self, pid: u32, limit: u64) -> io::Result<Waited> {
        let deadline = uptime().saturating_add(limit);
        let request = stop_request(self.host, self.unit);
        let mut pace = Pace::default();
        loop {
            if let Some(exit) = reap(pid) {
                return Ok(Waited::Ended(exit));
            }
            if !super::exists(self.host) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            if request.exists() {
                return Ok(Waited::Stop);
            }
            if limit != u64::MAX && uptime() >= deadline {
                return Ok(Waited::TimedOut);
            }
            pace.rest();
        }
    }
}

/// Reaps all that ended; how `pid` did, if it was among them. A process that is
/// not our child and gone has ended well.
fn reap(pid: u32) -> Option<Exit> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) => {
                if u32::try_from(ended.as_raw_nonzero().get()) != Ok(pid) {
                    continue;
                }
                return Some(of_wait(status));
            }
            Ok(None) => return None,
            Err(_) => {
                return Process::of(pid).is_none().then_some(Exit::Exited(0));
            }
        }
    }
}

/// An id for one start of a unit.
pub(super) fn invocation(unit: &str) -> String {
    uuid(&format!("{unit} {} {}", uptime(), std::process::id())).replace('-', "")
}

//! What a machine's service manager remembers of its units while it runs: one
//! record a unit in a folder that the machine does not see.
//!
//! There is no process that plays the manager. Each unit that runs has a keeper
//! (`service`, `timer`), and whoever asks reads the records under one lock. A
//! record that nothing needs any longer is dropped by the next one who looks,
//! and a transient unit's file with it, which is when systemd unloads a unit.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::sim::machine::{Host, replace};

use super::exit::Exit;
use super::files;
use super::process::{self, Process};

/// `ActiveState=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::sim) enum State {
    /// Not running.
    #[default]
    Inactive,
    /// Its start goes on.
    Activating,
    /// Running, or done and remaining.
    Active,
    /// Its end goes on.
    Deactivating,
    /// It ended badly.
    Failed,
}

impl State {
    /// As systemd prints it.
    pub(in crate::sim) fn word(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Deactivating => "deactivating",
            Self::Failed => "failed",
        }
    }
}

/// What is known of one unit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::sim) struct Record {
    /// `ActiveState=`.
    pub(in crate::sim) active: State,
    /// `SubState=`, where it is not the plain one of `active`.
    pub(in crate::sim) sub: String,
    /// `Result=`; empty is `success`.
    pub(in crate::sim) result: String,
    /// Whether a start is queued or under way.
    pub(in crate::sim) starting: bool,
    /// Whether the queued start heeds `After=` and `Before=`.
    pub(in crate::sim) ordered: bool,
    /// Whether the last start failed.
    pub(in crate::sim) start_failed: bool,
    /// Who keeps the unit.
    pub(in crate::sim) keeper: Option<Process>,
    /// The main process.
    pub(in crate::sim) main: Option<u32>,
    /// How the main process ended.
    pub(in crate::sim) exit: Option<Exit>,
    /// `InvocationID=`.
    pub(in crate::sim) invocation: String,
    /// Clients that wait for the unit, for which it stays loaded.
    pub(in crate::sim) watchers: Vec<Process>,
    /// Variables of this start: why it was triggered.
    pub(in crate::sim) environment: Vec<(String, String)>,
    /// When it became active, in microseconds of the uptime.
    pub(in crate::sim) active_enter: u64,
    /// When it last stopped being inactive.
    pub(in crate::sim) inactive_exit: u64,
    /// When it last became inactive or failed.
    pub(in crate::sim) inactive_enter: u64,
    /// When a timer elapses next.
    pub(in crate::sim) next_elapse: Option<u64>,
    /// When a timer elapsed last.
    pub(in crate::sim) last_trigger: u64,
}

impl Record {
    /// `SubState=` of a unit of this name.
    pub(in crate::sim) fn sub(&self, unit: &str) -> &str {
        let plain = match self.active {
            _ if !self.sub.is_empty() => return &self.sub,
            State::Active if unit.ends_with(".service") => "running",
            State::Active if unit.ends_with(".timer") => "waiting",
            other => other.word(),
        };
        if plain == "inactive" { "dead" } else { plain }
    }

    /// `Result=`.
    pub(in crate::sim) fn result(&self) -> &str {
        if self.result.is_empty() {
            "success"
        } else {
            &self.result
        }
    }

    /// Whether somebody keeps it.
    pub(in crate::sim) fn is_kept(&self) -> bool {
        self.keeper.is_some_and(Process::is_alive)
    }

    /// Whether it is running, starting or stopping.
    pub(in crate::sim) fn is_up(&self) -> bool {
        !matches!(self.active, State::Inactive | State::Failed)
    }
}

/// All records of a machine, under the lock while this lives.
#[derive(Debug)]
pub(in crate::sim) struct Units<'a> {
    host: &'a Host,
    records: BTreeMap<String, Record>,
    _lock: File,
}

fn folder(host: &Host) -> PathBuf {
    host.private("units")
}

fn record_path(host: &Host, unit: &str) -> PathBuf {
    folder(host).join(format!("{unit}.json"))
}

/// The file by which a unit's keeper is told to stop it.
pub(super) fn stop_request(host: &Host, unit: &str) -> PathBuf {
    folder(host).join(format!("{unit}.stop"))
}

/// The record of one unit as it stands, without the lock.
pub(in crate::sim) fn peek(host: &Host, unit: &str) -> Record {
    let text = fs::read(record_path(host, unit)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

impl<'a> Units<'a> {
    /// Takes the lock, reads the records and drops those that nothing needs.
    pub(in crate::sim) fn open(host: &'a Host) -> io::Result<Self> {
        let folder = folder(host);
        // Only that one: what is left of a machine that is gone must not come back.
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = File::options()
            .create(true)
            .append(true)
            .open(host.private("units.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(unit) = name.strip_suffix(".json") {
                let text = fs::read(folder.join(&name))?;
                let record = serde_json::from_slice(&text).map_err(io::Error::other)?;
                records.insert(unit.to_owned(), record);
            }
        }
        let mut units = Self {
            host,
            records,
            _lock: lock,
        };
        units.sweep()?;
        Ok(units)
    }

    /// The record of a unit; that of an inactive one if there is none.
    pub(in crate::sim) fn get(&self, unit: &str) -> Record {
        self.records.get(unit).cloned().unwrap_or_default()
    }

    /// All records by name.
    pub(in crate::sim) fn all(&self) -> &BTreeMap<String, Record> {
        &self.records
    }

    /// Whether a unit is in memory or has a file.
    pub(in crate::sim) fn is_loaded(&self, unit: &str) -> bool {
        self.records.contains_key(unit) || files::find(self.host, unit).is_some()
    }

    /// Changes a record, making it if there is none.
    pub(in crate::sim) fn change(
        &mut self,
        unit: &str,
        change: impl FnOnce(&mut Record),
    ) -> io::Result<()> {
        let record = self.records.entry(unit.to_owned()).or_default();
        change(record);
        let text = serde_json::to_vec(record)?;
        replace(&record_path(self.host, unit), &text)
    }

    /// Drops what nothing needs.
    pub(in crate::sim) fn sweep(&mut self) -> io::Result<()> {
        // A keeper that was killed from outside leaves a unit that failed.
        let orphans: Vec<String> = self
            .records
            .iter()
            .filter(|(_, record)| record.keeper.is_some() && !record.is_kept())
            .map(|(unit, _)| unit.clone())
            .collect();
        for unit in orphans {
            self.change(&unit, |record| {
                record.keeper = None;
                record.main = None;
                if record.is_up() || record.starting {
                    record.active = State::Failed;
                    "failed".clone_into(&mut record.sub);
                    "resources".clone_into(&mut record.result);
                    record.starting = false;
                    record.inactive_enter = process::uptime();
                }
            })?;
        }
        // Timers first: what only they refer to goes with them.
        for timers in [true, false] {
            let unneeded: Vec<String> = self
                .records
                .iter()
                .filter(|(unit, record)| {
                    unit.ends_with(".timer") == timers && !self.is_needed(unit, record)
                })
                .map(|(unit, _)| unit.clone())
                .collect();
            for unit in unneeded {
                self.records.remove(&unit);
                remove(&record_path(self.host, &unit))?;
                remove(&stop_request(self.host, &unit))?;
            }
        }
        self.sweep_files()
    }

    fn is_needed(&self, unit: &str, record: &Record) -> bool {
        if record.is_up() || record.starting || record.keeper.is_some() {
            return true;
        }
        if record.watchers.iter().copied().any(Process::is_alive) {
            return true;
        }
        if self.trigger_of(unit) {
            return true;
        }
        if record.active != State::Failed {
            return false;
        }
        let settings = files::settings(self.host, unit);
        let collect = files::one(&settings, "Unit", "CollectMode");
        // What a unit's failure has started still refers to it.
        collect.as_deref() != Some("inactive-or-failed")
            || files::words_of(&settings, "Unit", "OnFailure")
                .iter()
                .any(|other| {
                    self.records.get(other).is_some_and(Record::is_up) || self.trigger_of(other)
                })
    }

    /// Whether a timer that is loaded starts this unit.
    fn trigger_of(&self, unit: &str) -> bool {
        self.records.iter().any(|(timer, record)| {
            timer.ends_with(".timer")
                && (record.is_up() || record.starting)
                && files::unit_of_timer(self.host, timer) == unit
        })
    }

    /// Takes away the files of transient units that are no longer loaded.
    fn sweep_files(&self) -> io::Result<()> {
        let folder = self.host.path(files::TRANSIENT);
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(());
        };
        for entry in entries {
            let unit = entry?.file_name().to_string_lossy().into_owned();
            if !self.records.contains_key(&unit) && !self.trigger_of(&unit) {
                remove(&folder.join(&unit))?;
            }
        }
        Ok(())
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Forgets all units, as a machine that goes down does.
pub(in crate::sim) fn forget(host: &Host) -> io::Result<()> {
    match fs::remove_dir_all(folder(host)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

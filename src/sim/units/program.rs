//! From an `Exec…=` line to a process: where its program stands on the machine,
//! in which environment it runs, and the few lines between fork and exec.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::sim::confine::environment;
use crate::sim::machine::Host;

use super::files::{self, Settings};
use super::line;

/// The name under which this binary turns into the program of a service.
pub(in crate::sim) const PROGRAM_NAME: &str = "deploy-sim-program";

/// Environment variable that tells a program's stand-in which unit it belongs to.
pub(in crate::sim) const UNIT_VARIABLE: &str = "DEPLOY_SIM_UNIT";

/// What a shell of the machine has and a service has not.
const ONLY_IN_SHELLS: [&str; 3] = ["HOME", "LOGNAME", "SHELL"];

/// Where the standard streams of a service go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// Nothing to read; what is written goes to the journal.
    Journal,
    /// Those of the keeper.
    Inherited,
}

/// One `Exec…=` line, taken apart.
#[derive(Debug)]
pub(super) struct Program {
    words: Vec<String>,
    /// `-`: a bad end is none.
    pub(super) forgiving: bool,
}

/// The environment of a unit's processes.
pub(super) fn variables(
    host: &Host,
    unit: &str,
    settings: &Settings,
    more: &[(String, String)],
) -> BTreeMap<String, OsString> {
    let mut all: BTreeMap<String, OsString> = environment(host.root())
        .into_iter()
        .filter(|(name, _)| !ONLY_IN_SHELLS.contains(name))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let lines = settings.get(&("Service".to_owned(), "Environment".to_owned()));
    for assignment in lines.into_iter().flatten() {
        for word in line::split(assignment) {
            let word = expand_specifiers(host, unit, word);
            if let Some((name, value)) = word.split_once('=') {
                all.insert(name.to_owned(), value.into());
            }
        }
    }
    for (name, value) in more {
        all.insert(name.clone(), value.into());
    }
    all.insert(UNIT_VARIABLE.to_owned(), unit.into());
    all
}

fn expand_specifiers(host: &Host, unit: &str, word: String) -> String {
    if files::is_transient(host, unit) {
        return word;
    }
    line::specifiers(&word, unit, &host.read("/proc/sys/kernel/hostname"))
}

impl Program {
    /// Takes a line apart; nothing if there is no program in it.
    pub(super) fn new(
        host: &Host,
        unit: &str,
        line: &str,
        variables: &BTreeMap<String, OsString>,
    ) -> Option<Self> {
        let prefix = line
            .find(|letter| !"-@+!:|".contains(letter))
            .unwrap_or(line.len());
        let (marks, rest) = line.split_at(prefix);
        let mut words: Vec<String> = line::split(rest)
            .into_iter()
            .map(|word| expand_specifiers(host, unit, word))
            .collect();
        if !marks.contains(':') {
            words = line::variables(words, |name| {
                Some(variables.get(name)?.to_string_lossy().into_owned())
            });
        }
        if marks.contains('@') && words.len() > 1 {
            words.remove(1);
        }
        // Words of a transient unit are what somebody's shell had put in; those of
        // a file name the machine's own paths.
        if !files::is_transient(host, unit) {
            for word in words.iter_mut().skip(1) {
                let own = host.path(word.as_str());
                if word.starts_with('/') && own.exists() {
                    *word = own.display().to_string();
                }
            }
        }
        (!words.is_empty()).then_some(Self {
            words,
            forgiving: marks.contains('-'),
        })
    }

    /// Starts it in a session of its own.
    pub(super) fn spawn(
        &self,
        host: &Host,
        variables: &BTreeMap<String, OsString>,
        unit: &str,
        folder: Option<&str>,
        streams: Streams,
    ) -> io::Result<Child> {
        let binary = fs::read_link(host.path("/usr/bin/systemctl"))?;
        let mut command = Command::new(binary);
        command
            .arg0(PROGRAM_NAME)
            .arg(host.root())
            .args(&self.words)
            .env_clear()
            .envs(variables)
            .current_dir(host.root());
        if let Some(folder) = folder {
            let own = host.path(folder);
            command.current_dir(if own.is_dir() {
                own
            } else {
                PathBuf::from(folder)
            });
        }
        if streams == Streams::Journal {
            fs::create_dir_all(host.private("journal"))?;
            let log = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(journal(host, unit))?;
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
        }
        command.spawn()
    }
}

/// What a unit's processes have written, in all boots.
pub(in crate::sim) fn journal(host: &Host, unit: &str) -> PathBuf {
    host.private("journal").join(unit)
}

/// Finds a program as the machine's shell would: its own files before those of
/// the machine that simulates it.
pub(in crate::sim) fn find(host: &Host, program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 > 0)
    };
    if program.contains('/') {
        let own = host.path(program);
        let places = [own, PathBuf::from(program)];
        return places.into_iter().find(|path| runs(path));
    }
    let path = environment(host.root())
        .into_iter()
        .find(|(name, _)| *name == "PATH")?
        .1;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| runs(path))
}

/// Turns into the program of a service: `ROOT PROGRAM WORD…`. Gives back a
/// status only if that did not work: systemd's 203, `EXEC`.
pub(in crate::sim) fn become_program(args: &[OsString]) -> i32 {
    let mut stderr = io::stderr();
    let (Some(root), Some(program)) = (args.first(), args.get(1)) else {
        let _ = writeln!(stderr, "usage: {PROGRAM_NAME} ROOT PROGRAM [WORD…]");
        return 64;
    };
    let host = Host::new(root);
    // Fails where we lead a session already, which is as good.
    let _ = rustix::process::setsid();
    let Some(path) = find(&host, &program.to_string_lossy()) else {
        let name = Path::new(program).display();
        let _ = writeln!(
            stderr,
            "Failed to locate executable {name}: No such file or directory"
        );
        return 203;
    };
    // Services ignore SIGPIPE; one that meets a full disk is told by an error.
    let mut ignored = "trap '' PIPE; exec \"$@\"";
    if let Some(limit) = crate::sim::fault::file_size_limit(host.root()) {
        ignored = "trap '' PIPE XFSZ; exec \"$@\"";
        let _ = crate::sim::fault::limit_file_size(limit);
    }
    let error = Command::new("/bin/sh")
        .args(["-c", ignored, "sh"])
        .arg(path)
        .args(&args[2..])
        .exec();
    let _ = writeln!(stderr, "cannot start /bin/sh: {error}");
    203
}

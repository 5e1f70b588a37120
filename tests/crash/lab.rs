//! Where the simulated half of the matrix runs: namespaces of its own, a served
//! fleet, a relay before each host, and a prepared machine that is copied into the
//! host's folder for each case.
//!
//! Hosts are told apart by folder only: all are copies of one machine, so that one
//! look says what each must be.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::look::{self, Look};
use super::relay::Relay;

/// Names, in the process that runs in the namespaces, a file that it makes as a proof.
const INSIDE: &str = "DEPLOY_CRASH_INSIDE";
/// Bytes of the host's `/etc` and of its `/var/lib/deploy`, each a file system of its own.
const SMALL: &str = "size=4m";
/// The folders that are file systems of their own.
pub(super) const MOUNTS: [&str; 2] = ["etc", "var/lib/deploy"];

/// Whether this process has mounts and processes of its own. If it has not, the test of
/// this name is run again in one that has, and its end is ours.
pub(super) fn inside(test: &str) -> bool {
    if let Some(proof) = std::env::var_os(INSIDE) {
        fs::write(proof, "").expect("the folder of whoever started us");
        return true;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A name that no test has would run none, and end well.
    let proof = folder.path().join("begun");
    let mut process = Command::new("unshare");
    // Whoever is not root becomes it in a user namespace.
    let root = rustix::process::geteuid().is_root();
    process
        .arg(if root { "-m" } else { "-rm" })
        .args(["-p", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        // A shell as the first process: it reaps whom nobody waits for.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(std::env::current_exe().expect("our own path"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, &proof);
    let status = process
        .status()
        .expect("unshare starts; tests/run installs util-linux");
    assert!(status.success(), "the cases above failed");
    assert!(proof.exists(), "no test is called `{test}`");
    false
}

/// The fleet and all that is shared by its hosts.
pub(super) struct Lab {
    dir: tempfile::TempDir,
    server: Child,
    addr: SocketAddr,
    /// What guards runs on its hosts.
    pub(super) kind: Kind,
    /// Hosts that cases run on, one at a time each.
    pub(super) slots: Vec<Slot>,
    /// What the host is before the run.
    pub(super) before: Look,
}

/// One host of the fleet.
pub(super) struct Slot {
    name: String,
    /// Its folder.
    pub(super) root: PathBuf,
    /// The way to it.
    pub(super) relay: Relay,
    lab: PathBuf,
}

/// What is wanted of the host: first, and by the run of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What the prepared machine has.
    First,
    /// What the run makes of it.
    Second,
}

/// What guards a run on the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Timers and units of systemd.
    Systemd,
    /// A process, where there is no systemd.
    Process,
}

/// The machine that every host is a copy of.
fn machine(kind: Kind) -> String {
    format!(
        "sim:
      systemd: {}
      driver: \"590.48.01\"
      gpus: [{{product: H100-80GB, count: 2}}, L40S, Flex-170]",
        kind == Kind::Systemd
    )
}

impl Wanted {
    fn vars(self) -> &'static str {
        match self {
            Self::First => {
                "containers_gpu_slicing:
      enabled: true
      strategy: mig
      mig: {enabled: true, profiles: [3g.40gb, 3g.40gb]}
      gpus:
        - {match: {index: 1}, strategy: none}
        - {match: {model: L40S}, strategy: time-slicing, time_slicing: {enabled: true, slice_duration: long}}
        - {match: {vendor: intel}, strategy: none}"
            }
            Self::Second => {
                "containers_gpu_slicing:
      enabled: true
      strategy: mig
      mig: {enabled: true, profiles: [4g.40gb, 1g.10gb, 1g.10gb]}
      gpus:
        - {match: {index: 1}, mig: {enabled: true, profiles: [7g.80gb]}}
        - {match: {model: L40S}, strategy: time-slicing, time_slicing: {enabled: true, slice_duration: short}}
        - {match: {vendor: intel}, strategy: sriov, sriov: {enabled: true, vf_count: 3}}"
            }
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::First => "first.yml",
            Self::Second => "second.yml",
        }
    }
}

impl Lab {
    /// Starts a fleet of `slots` hosts of a kind, all of them as wanted first.
    pub(super) fn start(kind: Kind, slots: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        // In memory: thousands of flushes are waited for.
        mount(&["-t", "tmpfs", "-o", "mode=755", "none"], dir.path());
        let state = dir.path().join("fleet");
        let names: Vec<String> = (0..slots).map(|n| format!("slot{n:02}")).collect();
        let mut inventory = "all:\n  hosts:\n".to_owned();
        for name in &names {
            inventory.push_str(&format!("    {name}:\n"));
        }
        inventory.push_str(&format!(
            "  vars:\n    ansible_connection: sim\n    {}\n",
            machine(kind)
        ));
        fs::create_dir_all(dir.path().join("home")).expect("a folder");
        fs::write(dir.path().join("fleet.yml"), inventory).expect("a file");
        let mut server = plain(dir.path())
            .args(["sim", "serve", "--port", "0", "-i"])
            .arg(dir.path().join("fleet.yml"))
            .arg("--state-dir")
            .arg(&state)
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let mut said = BufReader::new(server.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.trim_start().starts_with("ssh -F") {
            line.clear();
            let size = said.read_line(&mut line).expect("text");
            assert!(size > 0, "the fleet did not start");
        }
        // Nobody may find its pipe closed.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let config = fs::read_to_string(state.join("ssh_config")).expect("it is served");
        let port = config
            .lines()
            .find_map(|line| line.trim().strip_prefix("Port "))
            .and_then(|port| port.parse::<u16>().ok())
            .expect("a port");
        let config = format!(
            "Host *\n  HostKeyAlias deploy-sim\n  UserKnownHostsFile {0}/known_hosts\n  \
             GlobalKnownHostsFile none\n  IdentitiesOnly yes\n  IdentityFile {0}/client_key\n",
            state.display()
        );
        fs::write(dir.path().join("ssh_config"), config).expect("a file");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut lab = Self {
            dir,
            server,
            addr,
            kind,
            slots: Vec::new(),
            before: Look::new(),
        };
        for name in names {
            let slot = lab.slot(&name, &state);
            lab.slots.push(slot);
        }
        lab.prepare();
        lab
    }

    fn slot(&self, name: &str, state: &Path) -> Slot {
        let relay = Relay::start(self.addr);
        let root = state.join("hosts").join(name);
        for wanted in [Wanted::First, Wanted::Second] {
            let text = format!(
                "all:\n  hosts:\n    node:\n  vars:\n    ansible_host: 127.0.0.1\n    \
                 ansible_port: {}\n    ansible_user: {name}\n    deploy_root: {}\n    {}\n",
                relay.addr.port(),
                root.display(),
                wanted.vars()
            );
            let folder = self.dir.path().join(name);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(wanted.file()), text).expect("a file");
        }
        Slot {
            name: name.to_owned(),
            root,
            relay,
            lab: self.dir.path().to_owned(),
        }
    }

    /// Makes the machine that is copied, on the first slot.
    fn prepare(&mut self) {
        let first = &self.slots[0];
        let done = first.deploy(Wanted::First, &["--yes"]).wait();
        assert_eq!(done.0, Some(0), "the machine is prepared: {}", done.1);
        if self.kind == Kind::Systemd {
            // As a boot leaves it: a case may have one, and then units are started by it.
            deploy::sim::break_host(&first.root, &deploy::sim::Fault::Reboot)
                .expect("the host boots");
        }
        let template = self.dir.path().join("template");
        run(Command::new("cp").arg("-a").arg(&first.root).arg(&template));
        for slot in &self.slots {
            for folder in MOUNTS {
                let folder = slot.root.join(folder);
                fs::create_dir_all(&folder).expect("a folder");
                mount(&["-t", "tmpfs", "-o", SMALL, "none"], &folder);
            }
            slot.reset();
        }
        self.before = look::look(&self.slots[0].root);
        for slot in &self.slots[1..] {
            let found = look::look(&slot.root);
            assert_eq!(
                look::differences(&self.before, &found),
                Vec::<String>::new(),
                "copies are the same"
            );
        }
    }
}

impl Lab {
    /// Whether the server still is there: whoever sends a signal to a number of his own
    /// choice hits it or this test, the only other processes in the namespace.
    pub(super) fn is_whole(&mut self) -> bool {
        matches!(self.server.try_wait(), Ok(None))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for slot in &self.slots {
            for folder in MOUNTS {
                let _ = Command::new("umount")
                    .arg("-l")
                    .arg(slot.root.join(folder))
                    .status();
            }
        }
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}

/// The exit code of a controller, none if a signal ended it, and all that it said.
pub(super) type Ended = (Option<i32>, String);

/// A controller at work.
pub(super) struct Controller {
    child: Child,
    out: std::thread::JoinHandle<String>,
    err: std::thread::JoinHandle<String>,
}

impl Controller {
    /// Whether it has ended.
    pub(super) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Ends it without a word of warning.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("our child");
    }

    /// The same as `wait`, for no longer than that.
    ///
    /// # Errors
    /// It did not end.
    pub(super) fn end_within(mut self, limit: std::time::Duration) -> Result<Ended, String> {
        let start = std::time::Instant::now();
        while !self.ended() {
            if start.elapsed() > limit {
                self.kill();
                let (_, said) = self.wait();
                return Err(format!("the controller does not end; it said:\n{said}"));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(self.wait())
    }

    /// Its exit code, none if a signal ended it, and all that it said.
    pub(super) fn wait(mut self) -> Ended {
        let status = self.child.wait().expect("our child");
        let (out, err) = (self.out.join(), self.err.join());
        let ended = crate::harness::Ended::new(
            status.code().unwrap_or(-1),
            out.expect("text"),
            err.expect("text"),
        );
        (status.code(), ended.out + &ended.err)
    }
}

impl Slot {
    /// Starts a verb of `deploy` on this host.
    pub(super) fn start(&self, verb: &[&str], wanted: Wanted, more: &[&str]) -> Controller {
        let mut child = plain(&self.lab)
            .args(verb)
            .arg("-i")
            .arg(self.lab.join(&self.name).join(wanted.file()))
            .arg("-F")
            .arg(self.lab.join("ssh_config"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let out = child.stdout.take().expect("a pipe");
        let err = child.stderr.take().expect("a pipe");
        Controller {
            child,
            out: std::thread::spawn(move || all_of(out)),
            err: std::thread::spawn(move || all_of(err)),
        }
    }

    /// Starts `deploy gpu` on this host.
    pub(super) fn deploy(&self, wanted: Wanted, more: &[&str]) -> Controller {
        self.start(&["gpu"], wanted, more)
    }

    /// Makes the host a fresh copy of the prepared machine.
    pub(super) fn reset(&self) {
        self.relay.let_through(true);
        self.clear_away();
        let template = self.lab.join("template");
        // Mounts stay, and the lock that the simulator may hold.
        let folders: [(&str, &[&str]); 6] = [
            ("", &["etc", "var", ".sim"]),
            (".sim", &["lock"]),
            ("etc", &[]),
            ("var", &["lib"]),
            ("var/lib", &["deploy"]),
            ("var/lib/deploy", &[]),
        ];
        for (folder, kept) in folders {
            empty(&self.root.join(folder), kept);
        }
        run(Command::new("cp").arg("-aT").arg(&template).arg(&self.root));
        fs::create_dir(self.crash("")).expect("it was emptied");
    }

    /// Ends and unmounts what a case that failed has left.
    fn clear_away(&self) {
        for (process, _) in self.processes() {
            super::fault::kill(&[process]);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("Linux");
        for folder in MOUNTS.map(|folder| self.root.join(folder).display().to_string()) {
            let here = |line: &&str| line.split(' ').nth(1) == Some(&folder);
            for _ in 1..mounts.lines().filter(here).count() {
                run(Command::new("umount").arg("-l").arg(&folder));
            }
        }
    }

    /// A file of the test's own on the host.
    pub(super) fn crash(&self, name: &str) -> PathBuf {
        self.root.join("crash").join(name)
    }

    /// Puts the wrapper before these programs.
    pub(super) fn wrap<'a>(&self, programs: impl IntoIterator<Item = &'a str>) {
        let folder = self.root.join("usr/local/sbin");
        fs::create_dir_all(&folder).expect("a folder");
        for program in programs {
            let path = folder.join(program);
            fs::write(&path, include_str!("wrapper.sh")).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(path, mode).expect("our file");
        }
    }

    /// Lets a call fail whenever it is made.
    pub(super) fn let_fail(&self, pattern: Option<&str>) {
        let Some(pattern) = pattern else { return };
        let program = pattern.split(' ').next().unwrap_or_default();
        self.wrap([program]);
        let text = format!("fails='{}'\n", quoted(pattern));
        fs::write(self.crash("fails"), text).expect("our folder");
    }

    /// Makes long naps on the host a twentieth as long, so that limits are over sooner.
    pub(super) fn lapse_time(&self) {
        let text = "#!/bin/sh\ncase $1 in\n[1-9][0-9]*) exec /bin/sleep \"$(($1 / 20)).$(($1 % 20 / 2))\" ;;\n*) exec /bin/sleep \"$1\" ;;\nesac\n";
        let path = self.root.join("usr/local/sbin/sleep");
        fs::write(&path, text).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).expect("our file");
    }

    /// Takes the wrappers away.
    pub(super) fn unwrap_all(&self) {
        empty(&self.root.join("usr/local/sbin"), &[]);
    }

    /// Processes of this host: the environment tells.
    pub(super) fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("DEPLOY_SIM_ROOT={}", self.root.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("Linux").flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
            {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                found.push((pid, words));
            }
        }
        found
    }

    /// What of guards still stands on the host: boot units, by name.
    pub(super) fn guards(&self) -> Vec<String> {
        fs::read_dir(self.root.join("etc/systemd/system"))
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default()
            .iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("deploy-boot-"))
            .collect()
    }

    /// The runs that the host keeps, the newest first, and their status.
    pub(super) fn runs(&self) -> Vec<(String, String)> {
        let folder = self.root.join("var/lib/deploy/runs");
        let mut runs: Vec<(String, String)> = fs::read_dir(folder)
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default()
            .iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| !id.starts_with('.'))
            .map(|id| {
                let path = self.root.join("var/lib/deploy/runs").join(&id);
                let status = fs::read_to_string(path.join("status")).unwrap_or_default();
                (id, status.trim().to_owned())
            })
            .collect();
        runs.sort_by(|one, other| other.0.cmp(&one.0));
        runs
    }
}

impl Slot {
    /// What a run tells of itself.
    pub(super) fn journal(&self, run: &str) -> String {
        let runs = self.root.join("var/lib/deploy/runs");
        fs::read_to_string(runs.join(run).join("journal")).unwrap_or_default()
    }

    /// Lets the time pass that runs of one of these statuses have.
    pub(super) fn pass_deadline(&self, statuses: &[&str]) {
        for (run, status) in self.runs() {
            let path = self.root.join("var/lib/deploy/runs").join(run);
            if statuses.contains(&status.as_str())
                && let Ok(text) = fs::read_to_string(path.join("deadline"))
                && let Some((boot, _)) = text.split_once(' ')
            {
                let new = path.join("deadline.test");
                fs::write(&new, format!("{boot} 1\n")).expect("our folder");
                fs::rename(new, path.join("deadline")).expect("our folder");
            }
        }
    }
}

/// What stands between single quotes in a shell.
pub(super) fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

fn all_of(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What came before an error counts.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `deploy` with a home of its own and no terminal.
fn plain(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deploy"));
    command
        .env("HOME", home.join("home"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("DEPLOY_HISTORY", home.join("history"))
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("DEPLOY_SIM_STATE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Removes what is in a folder, but for some names.
fn empty(folder: &Path, kept: &[&str]) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if kept.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).expect("a folder of the host");
        } else {
            fs::remove_file(entry.path()).expect("a file of the host");
        }
    }
}

/// Mounts; a file that is just being written keeps it busy for a moment.
pub(super) fn mount(options: &[&str], at: &Path) {
    for _ in 0..600 {
        let output = Command::new("mount").args(options).arg(at).output();
        if output.is_ok_and(|output| output.status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    run(Command::new("mount").args(options).arg(at));
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! One case on one host: a fault at a call, and what must be true afterwards.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Ended, ended};
use crate::hosts::{Disk, Hosts, Kind, State, fixture};

/// No host needs that long; whoever does hangs.
const OVERALL: Duration = Duration::from_secs(600);

/// Programs with a wrapper before them: what changes cards, files and units, what
/// flushes, and what starts the guard.
const WRAPPED: [&str; 7] = [
    "sync",
    "mv",
    "rm",
    "nvidia-smi",
    "tee",
    "systemctl",
    "systemd-run",
];

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The program says that it failed.
    Fails,
    /// `kill -9` of the runner; what it had started goes on.
    KillRunner,
    /// `kill -9` of the controller.
    KillController,
    /// The connection ends; a new one can be made.
    Cut,
    /// The host is off the network until it is at rest.
    Away,
    /// `/var` has no room.
    FullVar,
    /// The file system of the changed files has no room.
    FullRoot,
    /// `/var/lib/deploy` cannot be written.
    ReadOnlyVar,
    /// `/etc` cannot be written.
    ReadOnlyEtc,
    /// The host loses its power and boots again.
    PowerCut,
    /// Somebody restarts the host.
    Reboot,
}

/// All of them.
pub(super) const FAULTS: [Fault; 11] = [
    Fault::Fails,
    Fault::KillRunner,
    Fault::KillController,
    Fault::Cut,
    Fault::Away,
    Fault::FullVar,
    Fault::FullRoot,
    Fault::ReadOnlyVar,
    Fault::ReadOnlyEtc,
    Fault::PowerCut,
    Fault::Reboot,
];

impl Fault {
    /// A guard without systemd does not outlive a restart, and its plan says so.
    pub(super) fn happens_to(self, kind: Kind) -> bool {
        kind == Kind::Systemd || !matches!(self, Self::PowerCut | Self::Reboot)
    }

    /// Whether it lasts until it is mended.
    fn lasts(self) -> bool {
        matches!(
            self,
            Self::Away | Self::FullVar | Self::FullRoot | Self::ReadOnlyVar | Self::ReadOnlyEtc
        )
    }
}

/// A fault at a call of a program.
#[derive(Debug, Clone)]
pub(super) struct Case {
    fault: Fault,
    /// The how-manieth call of the run, from 1.
    call: usize,
    before: bool,
    /// What was called there in a run that nothing happened to.
    named: String,
}

impl Case {
    pub(super) fn new(fault: Fault, call: usize, before: bool, calls: &[Call]) -> Self {
        let named: String = calls[call - 1].words.chars().take(90).collect();
        Self {
            fault,
            call,
            before,
            named: named.replace('\n', " "),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = if self.before { "before" } else { "after" };
        let (fault, call, named) = (self.fault, self.call, &self.named);
        write!(f, "{fault:?} {moment} call {call} ({named})")
    }
}

/// A host, and what it is before and after the run.
pub(super) struct Slot<'a> {
    hosts: &'a Hosts,
    name: String,
    before: State,
    after: State,
    /// The calls of a run that nothing happened to.
    pub(super) calls: Vec<Call>,
}

/// A call of a program.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The step that the run was at, or what it did besides its steps.
    pub(super) stage: String,
    /// Program and words.
    pub(super) words: String,
}

impl<'a> Slot<'a> {
    /// Learns what a run does to the host.
    pub(super) fn new(hosts: &'a Hosts, name: String) -> Self {
        let mut slot = Self {
            before: hosts.state(&name),
            after: hosts.state(&name),
            calls: Vec::new(),
            hosts,
            name,
        };
        slot.prepare("0 none");
        slot.before = slot.look();
        let run = ended(slot.deploy(&["--yes"]).wait_with_output().expect("ours"));
        assert_eq!(run.code, 0, "{}", run.all());
        slot.after = slot.look();
        assert_ne!(slot.after.cards, slot.before.cards);
        let log = fs::read(slot.crash("log")).expect("the wrapper's");
        let log = String::from_utf8_lossy(&log).into_owned();
        let call = |line: &str| {
            let (stage, words) = line.split_once('\u{1f}').expect("the wrapper's line");
            Call {
                stage: stage.to_owned(),
                words: words.to_owned(),
            }
        };
        slot.calls = log.split_terminator('\u{1e}').map(call).collect();
        assert!(slot.calls.len() > 40, "too few calls were counted: {log}");
        slot
    }

    /// What the host is. Whether the boot unit has run tells only whether it was booted
    /// since that was installed.
    fn look(&self) -> State {
        let mut state = self.hosts.state(&self.name);
        let others = |line: &&str| !line.starts_with("deploy-gpu.service active");
        let lines = state.units.lines().filter(others);
        state.units = lines.map(|line| format!("{line}\n")).collect();
        state
    }

    /// Gives the host its wrappers and what a run finds there, and says what is to happen.
    fn prepare(&self, case: &str) {
        let root = self.hosts.root(&self.name);
        let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_crash/wrapper.sh");
        for program in WRAPPED {
            fs::copy(wrapper, root.join("usr/local/sbin").join(program)).expect("a file");
        }
        let files = "mkdir -m 755 /etc/crash && cd /etc/crash && echo old >replaced.conf && \
                     chmod 4711 replaced.conf && chown 33:33 replaced.conf && ln -s old link && \
                     echo still here >gone.conf && chmod 600 gone.conf";
        self.hosts.on(&self.name, files).expect(0);
        fs::create_dir(self.crash("")).expect("a folder of the host's");
        fs::write(self.crash("case"), format!("{case}\n")).expect("a file");
    }

    /// Takes the wrappers out of the way.
    fn let_go(&self) {
        for name in ["case", "log"] {
            // Gone already where the host lost its cards' folder with a fault of ours.
            let _ = fs::remove_file(self.crash(name));
        }
    }

    fn crash(&self, name: &str) -> PathBuf {
        self.hosts.machine(&self.name).join("crash").join(name)
    }

    fn deploy(&self, flags: &[&str]) -> Child {
        let playbook = fixture().join("playbooks/crash.yml");
        let playbook = playbook.to_str().expect("a plain path");
        let mut words = vec!["run", playbook, "-l", &self.name];
        words.extend(flags);
        let mut command = self.hosts.deploy_command(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("deploy starts")
    }

    /// Runs a case on a host that is made anew for it.
    pub(super) fn run(&self, case: &Case) -> Result<(), String> {
        self.hosts.renew(&self.name);
        let deed = match (case.fault, case.before) {
            (Fault::Fails, _) => "fail",
            (_, true) => "before",
            (_, false) => "after",
        };
        self.prepare(&format!("{} {deed}", case.call));
        let fresh = self.look();
        if fresh != self.before {
            return Err(format!("not fresh: {:?}", fresh.differing(&self.before)));
        }
        let mut controller = self.deploy(&["--yes"]);
        self.until_reached(&mut controller)?;
        self.commit(case.fault, &mut controller);
        fs::write(self.crash("go"), "").expect("a file");
        if case.fault == Fault::Away {
            self.at_rest()?;
            self.hosts.plug(&self.name);
        } else if case.fault.lasts() {
            // What cannot be written is neither done nor undone before it is mended.
            self.until_idle(&mut controller)?;
            self.mend(case.fault);
        }
        let ended = self.end_of(controller)?;
        self.let_go();
        let judged = self
            .at_rest()
            .and_then(|()| self.undo_what_failed(case.fault))
            .and_then(|()| self.judge(case.fault, &ended));
        judged.map_err(|problem| format!("{problem}\n{}\n{}", ended.all(), self.journals()))
    }

    fn commit(&self, fault: Fault, controller: &mut Child) {
        let (hosts, name) = (self.hosts, &*self.name);
        match fault {
            Fault::Fails => {}
            Fault::KillRunner => {
                // There is none yet while the run is received.
                hosts.on(name, "pkill -KILL -f '[r]unner.sh run'");
            }
            Fault::KillController => controller.kill().expect("our child"),
            Fault::Cut => hosts.cut(name),
            Fault::Away => hosts.unplug(name),
            Fault::FullVar => hosts.fill(name, Disk::Var, 0),
            Fault::FullRoot => hosts.fill(name, Disk::Root, 0),
            Fault::ReadOnlyVar => hosts.read_only(name, "/var/lib/deploy"),
            Fault::ReadOnlyEtc => hosts.read_only(name, "/etc"),
            Fault::PowerCut => {
                hosts.power_cut(name);
                // The wrapper of what follows must not stop again.
                self.let_go();
                hosts.boot(name);
            }
            Fault::Reboot => {
                let boot = hosts.boot_id(name);
                self.let_go();
                hosts.on(name, "systemctl reboot");
                hosts.wait_for_reboot(name, &boot);
            }
        }
    }

    /// Takes it back, as a person would who mends the host.
    fn mend(&self, fault: Fault) {
        let (hosts, name) = (self.hosts, &*self.name);
        match fault {
            Fault::FullVar => hosts.free(name, Disk::Var),
            Fault::FullRoot => hosts.free(name, Disk::Root),
            Fault::ReadOnlyVar => hosts.read_write(name, "/var/lib/deploy"),
            Fault::ReadOnlyEtc => hosts.read_write(name, "/etc"),
            _ => {}
        }
    }

    fn until_reached(&self, controller: &mut Child) -> Result<(), String> {
        let start = Instant::now();
        while !self.crash("reached").exists() {
            if controller.try_wait().expect("our child").is_some() {
                return Err("the call was not reached before the run ended".to_owned());
            }
            if start.elapsed() > OVERALL {
                return Err("neither the call nor the end was reached".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the controller ends, or the host does nothing more for the run.
    fn until_idle(&self, controller: &mut Child) -> Result<(), String> {
        let start = Instant::now();
        while controller.try_wait().expect("our child").is_none() {
            let busy = self.hosts.on(&self.name, "pgrep -f '/[r]unner.sh'").out;
            if busy.is_empty() {
                return Ok(());
            }
            if start.elapsed() > OVERALL {
                return Err(format!("processes {busy} do not end"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The controller's end; it may wait for a host that is to be confirmed by nobody.
    fn end_of(&self, mut controller: Child) -> Result<Ended, String> {
        let start = Instant::now();
        while controller.try_wait().expect("our child").is_none() {
            if start.elapsed() > OVERALL {
                controller.kill().expect("our child");
                return Err(format!("the controller does not end\n{}", self.journals()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(ended(controller.wait_with_output().expect("our child")))
    }

    /// Ids and status of the runs on the host.
    fn runs(&self) -> Vec<(PathBuf, String)> {
        let runs = self.hosts.root(&self.name).join("var/lib/deploy/runs");
        let runs = fs::read_dir(runs).into_iter().flatten().flatten();
        runs.map(|run| {
            let status = fs::read_to_string(run.path().join("status")).unwrap_or_default();
            (run.path(), status.trim().to_owned())
        })
        .collect()
    }

    /// Waits until no run is open and nobody is at work. Who is not confirmed by anybody
    /// waits for a deadline, which is then moved to now.
    fn at_rest(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let is_open = |status: &str| {
                let open = [
                    "preparing",
                    "running",
                    "rebooting",
                    "unconfirmed",
                    "undoing",
                ];
                open.contains(&status)
            };
            let open: Vec<(PathBuf, String)> = self
                .runs()
                .into_iter()
                .filter(|(_, status)| is_open(status))
                .collect();
            let busy = "pgrep -af '/[r]unner.sh|/[g]uard.sh'; \
                        systemctl list-units --plain --no-legend 'deploy-guard-*' 2>/dev/null";
            let busy = self.hosts.on(&self.name, busy).out;
            if open.is_empty() && busy.trim().is_empty() {
                return Ok(());
            }
            if !busy.contains("runner.sh") {
                for (run, _) in open.iter().filter(|(_, status)| status == "unconfirmed") {
                    let deadline = fs::read_to_string(run.join("deadline")).unwrap_or_default();
                    let boot = deadline.split(' ').next().unwrap_or_default();
                    // Refused where the fault is that nothing can be written.
                    let _ = fs::write(run.join("deadline"), format!("{boot} 1\n"));
                }
            }
            if start.elapsed() > OVERALL {
                let (open, journals) = (format!("{open:?}"), self.journals());
                return Err(format!(
                    "no rest: runs {open}, processes {busy}\n{journals}"
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What could not be undone while the fault was there is undone now that it is
    /// mended, by the command that the run itself names.
    fn undo_what_failed(&self, fault: Fault) -> Result<(), String> {
        let runs = self.runs().into_iter();
        for (run, _) in runs.filter(|(_, status)| status == "undo-failed") {
            if !fault.lasts() {
                return Err("an undo failed".to_owned());
            }
            let id = run.file_name().expect("a run id").to_string_lossy();
            let undone = self
                .hosts
                .deploy(&["runs", "undo", &id, "--yes", "-l", &self.name]);
            if undone.code != 0 {
                return Err(format!("`deploy runs undo` fails: {}", undone.all()));
            }
        }
        self.at_rest()
    }

    fn judge(&self, fault: Fault, ended: &Ended) -> Result<(), String> {
        let found = self.look();
        let (before, after) = (found.differing(&self.before), found.differing(&self.after));
        if !before.is_empty() && !after.is_empty() {
            return Err(format!(
                "the host is between\n-- to before: {before:#?}\n-- to after: {after:#?}"
            ));
        }
        let is_after = after.is_empty();
        let agrees = match ended.code {
            0 => is_after,
            1 | 3 | 4 => !is_after,
            5 => fault.lasts(),
            _ => fault == Fault::KillController,
        };
        if !agrees {
            return Err(format!("is after: {is_after}, which the exit does not say"));
        }
        let next = crate::harness::ended(self.deploy(&["--yes"]).wait_with_output().expect("ours"));
        if next.code != 0 {
            return Err(format!("the next run fails: {}", next.all()));
        }
        self.at_rest()?;
        let left = self.look().differing(&self.after);
        if !left.is_empty() {
            return Err(format!("the next run left something else: {left:#?}"));
        }
        Ok(())
    }

    /// What the runs on the host tell of themselves.
    fn journals(&self) -> String {
        let tell = |(run, status): (PathBuf, String)| {
            let journal = fs::read_to_string(run.join("journal")).unwrap_or_default();
            format!("{}: {status}\n{journal}", run.display())
        };
        self.runs().into_iter().map(tell).collect()
    }
}

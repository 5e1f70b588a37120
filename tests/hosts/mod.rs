//! Real hosts for tests: started, broken and taken down by `hosts.sh`, reached with
//! `ssh` and with `deploy` from their own network.
//!
//! Their GPUs are simulated (`inside/sim-hardware`); sshd, systemd, file systems,
//! processes and reboots are real. Every host gets the cards of the group `crash` in
//! `tests/fixtures/crash`. A set is taken down when it is dropped, and by the next test
//! process if this one was killed.

pub(crate) mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value as Json, json};

use crate::harness::{Ended, Scratch, Seen, ended, ran, tree_but, tree_without_times};

/// What a host is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// OpenSSH and a POSIX userland, no systemd.
    Overlay,
    /// systemd as process 1, with real reboots.
    Systemd,
}

/// The disks of a host, which can be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Everything but `/var`.
    Root,
    /// `/var`, where runs are kept.
    Var,
}

/// What a host is, for comparing: not when it became so, and not its logs and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Files with modes, owners and content, by path without the first `/`.
    pub(crate) files: BTreeMap<PathBuf, Seen>,
    /// Modes, slices with placements and time slices of NVIDIA's cards, in their order.
    pub(crate) cards: Json,
    /// The PCI bus as sysfs shows it: virtual functions, bound drivers, autoprobe.
    pub(crate) bus: BTreeMap<PathBuf, Seen>,
    /// Units of `deploy`, and sshd's, that run or have failed; empty without systemd.
    pub(crate) units: String,
}

impl State {
    /// The names of what differs, for messages of failed tests.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let paths = |a, b| crate::harness::differing(a, b);
        let mut names: Vec<String> = paths(&self.files, &other.files)
            .into_iter()
            .chain(paths(&self.bus, &other.bus))
            .map(|path| path.display().to_string())
            .collect();
        if self.cards != other.cards {
            names.push(format!("{} not {}", self.cards, other.cards));
        }
        if self.units != other.units {
            names.push(format!("{}not {}", self.units, other.units));
        }
        names
    }
}

/// Whether hosts can be started here. Where they cannot, the test fails, unless the
/// environment allows that it does not run (`DEPLOY_TESTS_WITHOUT=root`).
pub(crate) fn available() -> bool {
    let root = crate::ssh_private::root();
    if !root {
        tell("did not run: the test hosts take root");
    }
    root
}

/// A set of running hosts, `h1` and so on.
pub(crate) struct Hosts {
    prefix: String,
    /// What the hosts are made of.
    pub(crate) kind: Kind,
    /// A folder for the test's own files, and the home of the commands.
    pub(crate) scratch: Scratch,
}

/// Files and folders that make up a host's configuration.
const LOOKED_AT: [&str; 6] = ["etc", "opt", "root", "srv", "usr/local", "var/lib"];
/// What changes there by itself, or is `deploy`'s own memory.
const LEFT_OUT: [&str; 7] = [
    // The simulator's program, and what no apply is about: large.
    "usr/local/libexec/deploy-sim",
    "var/lib/apt",
    "var/lib/dpkg",
    "root/.cache",
    // What podman keeps, which tests ask podman for.
    "var/lib/containers",
    "var/lib/deploy",
    "var/lib/systemd",
];

impl Hosts {
    /// Starts hosts without systemd, `delay_ms` away from the caller in each direction.
    pub(crate) fn overlay(count: usize, delay_ms: u32) -> Self {
        Self::up(Kind::Overlay, count, delay_ms)
    }

    /// Starts hosts with systemd.
    pub(crate) fn systemd(count: usize) -> Self {
        Self::up(Kind::Systemd, count, 0)
    }

    /// Starts one host with systemd and the cards of this description (`sim`, in YAML's
    /// flow form).
    pub(crate) fn systemd_with(sim: &str) -> Self {
        Self::up_with(Kind::Systemd, 1, 0, Some(sim), None)
    }

    /// Starts one host with systemd, podman and an image to load, and the cards of this
    /// description.
    pub(crate) fn podman(sim: &str) -> Self {
        Self::up_with(Kind::Systemd, 1, 0, Some(sim), Some("podman"))
    }

    /// Starts one host with systemd and the Incus daemon, and the cards of this description.
    pub(crate) fn incus(sim: &str) -> Self {
        Self::up_with(Kind::Systemd, 1, 0, Some(sim), Some("incus"))
    }

    /// Starts hosts and waits until all of them answer.
    pub(crate) fn up(kind: Kind, count: usize, delay_ms: u32) -> Self {
        Self::up_with(kind, count, delay_ms, None, None)
    }

    fn up_with(
        kind: Kind,
        count: usize,
        delay_ms: u32,
        sim: Option<&str>,
        with: Option<&str>,
    ) -> Self {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(|| {
            script(&["sweep"]).expect(0);
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hosts = Self {
            prefix: format!("dt{}-{number}", std::process::id()),
            kind,
            scratch: Scratch::new(),
        };
        let machines = hosts.machines(count, sim);
        hosts.write_inventory(count);
        let (word, count) = (kind.word(), count.to_string());
        let (delay, owner) = (delay_ms.to_string(), std::process::id().to_string());
        let machines = machines.to_str().expect("a plain path");
        let binary = env!("CARGO_BIN_EXE_deploy");
        let mut words = vec!["up", &hosts.prefix, word, &count, machines, binary];
        words.extend(["--delay", &delay, "--owner", &owner]);
        words.extend(with.iter().flat_map(|with| ["--with", with]));
        let ended = script(&words);
        assert_eq!(ended.code, 0, "the test hosts start: {}", ended.all());
        hosts
    }

    /// Has the simulator make the machines whose cards the hosts get.
    fn machines(&self, count: usize, sim: Option<&str>) -> PathBuf {
        let sim = sim.map_or_else(String::new, |sim| format!(", sim: {sim}"));
        let folder = self.scratch.path().join("machines");
        let lines: String = (1..=count)
            .map(|n| format!("    h{n}: {{ansible_connection: sim{sim}}}\n"))
            .collect();
        let seed = self
            .scratch
            .write("seed/hosts.yml", &format!("crash:\n  hosts:\n{lines}"));
        share_variables(seed.parent().expect("a folder"));
        let mut command = self.scratch.command(env!("CARGO_BIN_EXE_deploy"));
        command.env("DEPLOY_SIM_STATE", &folder);
        command.args(["discover", "-i"]).arg(seed);
        ran(&mut command).expect(0);
        folder
    }

    fn write_inventory(&self, count: usize) {
        let text = format!("crash:\n  hosts:\n    h[1:{count}]:\n");
        self.scratch.write("inventory/hosts.yml", &text);
        share_variables(&self.inventory());
    }

    /// The folder of the inventory: these hosts in the group `crash`. A test may write
    /// `host_vars/` and more `group_vars/` there.
    pub(crate) fn inventory(&self) -> PathBuf {
        self.scratch.path().join("inventory")
    }

    /// The place of something of the set's in this machine's file system.
    pub(crate) fn folder(&self) -> PathBuf {
        Path::new("/run/deploy-test-hosts").join(&self.prefix)
    }

    /// A program of this machine that is to run in the hosts' network: its process is
    /// the program itself, so that killing it kills no wrapper.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.scratch.command("nsenter");
        command
            .arg(format!("--net=/run/netns/{}-ctl", self.prefix))
            .args(["--", program]);
        command
    }

    /// `deploy WORDS… -i INVENTORY`, over SSH in the hosts' network.
    pub(crate) fn deploy_command(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_deploy"));
        command
            .args(words)
            .arg("-i")
            .arg(self.inventory())
            .arg("-F")
            .arg(self.folder().join("ssh_config"));
        command
    }

    /// Runs it to its end.
    pub(crate) fn deploy(&self, words: &[&str]) -> Ended {
        ran(&mut self.deploy_command(words))
    }

    /// Runs shell text on a host over plain `ssh`.
    pub(crate) fn ssh(&self, host: &str, text: &str) -> Ended {
        let mut command = self.ssh_command(host, text);
        ended(command.output().expect("ssh starts"))
    }

    /// The same, to be started by the caller.
    pub(crate) fn ssh_command(&self, host: &str, text: &str) -> Command {
        let mut command = self.command("ssh");
        command
            .args(["-o", "ConnectTimeout=3", "-F"])
            .arg(self.folder().join("ssh_config"))
            .args([host, text]);
        command
    }

    /// Runs shell text on a host without SSH: also where sshd or the network is gone.
    pub(crate) fn on(&self, host: &str, text: &str) -> Ended {
        self.verb("enter", host, &["sh", "-c", text])
    }

    /// Ends everything on a host at once, as a power cut does. Its disks stay.
    pub(crate) fn power_cut(&self, host: &str) {
        self.verb("power-cut", host, &[]).expect(0);
    }

    /// Boots a host after a power cut, and waits until it answers.
    pub(crate) fn boot(&self, host: &str) {
        self.verb("boot", host, &[]).expect(0);
    }

    /// Boots a host as it first was: fresh disks and cards, the same keys.
    pub(crate) fn renew(&self, host: &str) {
        self.verb("renew", host, &[]).expect(0);
    }

    /// Waits until a host answers with another boot id than `before`.
    pub(crate) fn wait_for_reboot(&self, host: &str, before: &str) {
        for _ in 0..600 {
            let now = self.ssh(host, "cat /proc/sys/kernel/random/boot_id");
            if now.code == 0 && now.out.trim() != before.trim() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{host} has not rebooted in a minute");
    }

    /// The host's boot id.
    pub(crate) fn boot_id(&self, host: &str) -> String {
        let ended = self.on(host, "cat /proc/sys/kernel/random/boot_id");
        ended.expect(0).out.trim().to_owned()
    }

    /// Fills a disk until only `free_kib` KiB are free.
    pub(crate) fn fill(&self, host: &str, disk: Disk, free_kib: u32) {
        self.verb("fill", host, &[disk.word(), &free_kib.to_string()])
            .expect(0);
    }

    /// Undoes `fill`.
    pub(crate) fn free(&self, host: &str, disk: Disk) {
        self.verb("free", host, &[disk.word()]).expect(0);
    }

    /// From now on nothing can be opened for writing below a folder other than `/`.
    pub(crate) fn read_only(&self, host: &str, folder: &str) {
        self.verb("read-only", host, &[folder]).expect(0);
    }

    /// Undoes `read_only`.
    pub(crate) fn read_write(&self, host: &str, folder: &str) {
        self.verb("read-write", host, &[folder]).expect(0);
    }

    /// Ends all SSH connections to a host; what runs there goes on.
    pub(crate) fn cut(&self, host: &str) {
        self.verb("cut", host, &[]).expect(0);
    }

    /// Cuts a host off the network; neither side is told.
    pub(crate) fn unplug(&self, host: &str) {
        self.verb("unplug", host, &[]).expect(0);
    }

    /// Undoes `unplug`.
    pub(crate) fn plug(&self, host: &str) {
        self.verb("plug", host, &[]).expect(0);
    }

    fn verb(&self, verb: &str, host: &str, rest: &[&str]) -> Ended {
        let mut words = vec![verb, &self.prefix, host];
        words.extend(rest);
        script(&words)
    }

    /// The folder of a host's simulated machine, as this machine sees it.
    pub(crate) fn machine(&self, host: &str) -> PathBuf {
        self.folder().join(host).join("sim")
    }

    /// The root of a running host, as this machine sees it.
    pub(crate) fn root(&self, host: &str) -> PathBuf {
        let pid = self.verb("pid", host, &[]).expect(0).out;
        Path::new("/proc").join(pid.trim()).join("root")
    }

    /// What a host is now.
    pub(crate) fn state(&self, host: &str) -> State {
        let root = self.root(host);
        let mut files = BTreeMap::new();
        for folder in LOOKED_AT {
            let left_out = |path: &Path| LEFT_OUT.iter().any(|out| path == root.join(out));
            for (path, seen) in tree_but(&root.join(folder), &left_out) {
                files.insert(Path::new(folder).join(path), seen.without_time());
            }
        }
        let text = fs::read(self.machine(host).join(".sim/state.json")).expect("a machine");
        let machine: Json = serde_json::from_slice(&text).expect("it is JSON");
        let units = match self.kind {
            Kind::Overlay => String::new(),
            Kind::Systemd => {
                let list = "systemctl list-units --plain --no-legend 'deploy-*' 'ssh*' | \
                            awk '{ print $1, $3, $4 }'";
                self.on(host, list).expect(0).out
            }
        };
        State {
            files,
            cards: cards(&machine),
            bus: tree_without_times(&self.machine(host).join("sys")),
            units,
        }
    }
}

/// What of the machine's cards an apply changes; instances by their places, since their
/// numbers are the driver's to give.
fn cards(machine: &Json) -> Json {
    let card = |gpu: &Json| {
        let mut instances: Vec<String> = gpu["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|gi| {
                let compute: Vec<String> = gi["compute"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|ci| format!("{}@{}", ci["slices"], ci["start"]))
                    .collect();
                let (profile, start, size) = (&gi["profile"], &gi["start"], &gi["size"]);
                format!("{profile}:{start}:{size}/{}", compute.join("+"))
            })
            .collect();
        instances.sort();
        json!({
            "pci": gpu["pci"],
            "mig": [gpu["mig"], gpu["mig_pending"]],
            "instances": instances,
            "timeslice": gpu["timeslice"],
            "persistence": gpu["persistence"],
            "compute_mode": gpu["compute_mode"],
        })
    };
    machine["gpus"]
        .as_array()
        .into_iter()
        .flatten()
        .map(card)
        .collect()
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // A failed test may be looked at; the next test process takes the hosts down.
        if std::thread::panicking() && std::env::var_os("DEPLOY_TEST_KEEP").is_some() {
            tell(&format!("kept: {}", self.folder().display()));
            return;
        }
        let ended = script(&["down", &self.prefix]);
        if !std::thread::panicking() {
            assert_eq!(ended.code, 0, "the test hosts go away: {}", ended.all());
        }
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Systemd => "systemd",
        }
    }
}

impl Disk {
    fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Var => "var",
        }
    }
}

/// The fixtures of the crash tests.
pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/crash")
}

/// Copies the variables of the group `crash` beside an inventory.
fn share_variables(inventory: &Path) {
    let folder = inventory.join("group_vars");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(
        fixture().join("group_vars/crash.yml"),
        folder.join("crash.yml"),
    )
    .expect("a file");
}

/// Tells the terminal even where the test's own output is kept back.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Runs `hosts.sh`.
pub(crate) fn script(words: &[&str]) -> Ended {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/hosts.sh");
    let mut command = Command::new(path);
    command.args(words).stdin(Stdio::null());
    ended(command.output().expect("bash starts"))
}

//! A real machine for tests: an emulated one with a kernel, a PCI bus, drivers and a boot
//! loader of its own, started and taken down by `machine.sh`.
//!
//! What is on its bus is written in `machine.sh`. No card there is a GPU, so the project of
//! its inventory has a models file that says that they are (`GPUS`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::{available, tell};
use crate::harness::{Ended, Scratch, ended, ran};

/// The card with 7 virtual functions: `igb` with `igbvf`.
pub(crate) const NIC: &str = "0000:01:00.0";
/// The card with 4 virtual functions: `nvme`.
pub(crate) const NVME: &str = "0000:02:00.0";

/// The machine's cards as the catalog is to know them.
const GPUS: &str = "\
vendor: intel
models:
  Test-Net:
    name: QEMU's Intel 82576 in the place of a GPU
    pci_class: 0x02
    device_ids: [{device: 0x10c9, name: 82576 Gigabit}]
    technologies: [sriov, passthrough, none]
    max_vfs: 7
  Test-Disk:
    name: QEMU's NVMe controller in the place of a GPU
    pci_class: 0x01
    device_ids: [{device: 0x5845, name: NVM Express}]
    technologies: [sriov, passthrough, none]
    max_vfs: 4
";

/// How often, in tenths of a second, is looked whether the machine has come back: seven
/// minutes, for a boot that takes the emulator 20 s where nothing else runs.
const PATIENCE: u32 = 7 * 60 * 10;

/// A running machine. Only one runs at a time: it takes two processors as it is.
pub(crate) struct Machine {
    prefix: String,
    folder: PathBuf,
    /// A folder for the test's own files, and the home of the commands.
    pub(crate) scratch: Scratch,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots one with the disk as it is built; none where machines cannot run, which the
    /// environment has to allow (`DEPLOY_TESTS_WITHOUT=machine`, or `root`).
    pub(crate) fn boot() -> Option<Self> {
        static SWEPT: Once = Once::new();
        static ALONE: Mutex<()> = Mutex::new(());
        let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
        if without.split(',').any(|part| part == "machine") {
            tell("did not run: the test machine, which DEPLOY_TESTS_WITHOUT leaves out");
            return None;
        }
        if !available() {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        SWEPT.call_once(|| {
            script(&["sweep"]).expect(0);
        });
        let owner = std::process::id().to_string();
        let prefix = format!("dm{owner}");
        let up = script(&["up", &prefix, "--owner", &owner]);
        assert_eq!(up.code, 0, "the test machine starts: {}", up.all());
        let folder = script(&["folder", &prefix]).expect(0).out;
        let scratch = Scratch::new();
        scratch.write("project/vars/test_gpu_models.yml", GPUS);
        scratch.write("project/inventory/hosts.yml", "all: {hosts: {machine: }}\n");
        let machine = Self {
            prefix,
            folder: PathBuf::from(folder.trim()),
            scratch,
            _alone: alone,
        };
        machine.boot_is_over();
        Some(machine)
    }

    /// Writes the machine's variables, in the place of what they were.
    pub(crate) fn variables(&self, text: &str) {
        let file = "project/inventory/host_vars/machine.yml";
        self.scratch.write(file, text);
    }

    /// A program of this machine that is to run where the other can be reached.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.scratch.command("nsenter");
        command
            .arg(format!("--net=/run/netns/{}-ctl", self.prefix))
            .args(["--", program]);
        command
    }

    /// `deploy WORDS… -i INVENTORY`, over SSH to the machine.
    pub(crate) fn deploy_command(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_deploy"));
        command
            .args(words)
            .arg("-i")
            .arg(self.scratch.path().join("project/inventory"))
            .arg("--project")
            .arg(self.scratch.path().join("project"))
            .arg("-F")
            .arg(self.folder.join("ssh_config"));
        command
    }

    /// Runs it to its end.
    pub(crate) fn deploy(&self, words: &[&str]) -> Ended {
        ran(&mut self.deploy_command(words))
    }

    /// Runs shell text on the machine over plain `ssh`. The machine is slow where others
    /// compute, too: its sshd has time for its first word.
    pub(crate) fn ssh(&self, text: &str) -> Ended {
        let mut command = self.command("ssh");
        command
            .args(["-o", "ConnectTimeout=180", "-F"])
            .arg(self.folder.join("ssh_config"))
            .args(["machine", text]);
        ended(command.output().expect("ssh starts"))
    }

    /// The standard output of shell text that succeeds, without blanks around it.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        self.ssh(text).expect(0).out.trim().to_owned()
    }

    /// The machine's boot id.
    pub(crate) fn boot_id(&self) -> String {
        self.says("cat /proc/sys/kernel/random/boot_id")
    }

    /// Restarts it as a person would, and waits until all its units are up.
    pub(crate) fn reboot_wait(&self) {
        let before = self.boot_id();
        self.ssh("systemctl reboot");
        self.wait_for_boot(&before);
    }

    /// Resets it at once, as a loss of power does: what it had not flushed is lost. Waits
    /// until all its units are up again.
    pub(crate) fn power_cut_wait(&self) {
        let before = self.boot_id();
        self.power_cut();
        self.wait_for_boot(&before);
    }

    /// Resets it at once. It boots by itself.
    pub(crate) fn power_cut(&self) {
        script(&["power-cut", &self.prefix]).expect(0);
    }

    /// Waits until all units of a boot are up, and udev has loaded the drivers.
    fn boot_is_over(&self) {
        self.ssh("systemctl is-system-running --wait; udevadm settle");
    }

    /// Waits until the machine has another boot id than `before`, and its boot is over.
    #[track_caller]
    pub(crate) fn wait_for_boot(&self, before: &str) {
        for _ in 0..PATIENCE {
            let now = self.ssh("cat /proc/sys/kernel/random/boot_id");
            if now.code == 0 && now.out.trim() != before {
                self.boot_is_over();
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let console = std::fs::read(self.folder.join("console")).unwrap_or_default();
        let end = &console[console.len().saturating_sub(2000)..];
        let end = String::from_utf8_lossy(end);
        panic!("the machine has not come back; its console: {end}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test may be looked at; the next test process takes the machine down.
        if std::thread::panicking() && std::env::var_os("DEPLOY_TEST_KEEP").is_some() {
            tell(&format!("kept: {}", self.folder.display()));
            return;
        }
        let ended = script(&["down", &self.prefix]);
        if !std::thread::panicking() {
            assert_eq!(ended.code, 0, "the test machine goes away: {}", ended.all());
        }
    }
}

/// Runs `machine.sh`.
fn script(words: &[&str]) -> Ended {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/machine.sh");
    let mut command = Command::new(path);
    command.args(words).stdin(Stdio::null());
    ended(command.output().expect("bash starts"))
}

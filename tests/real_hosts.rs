//! Whole commands against real hosts (`tests/hosts`): OpenSSH, file systems, processes
//! and systemd are real, the GPUs are simulated.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::ended;
use crate::hosts::{self, Disk, Hosts, available};

/// What a host says of its slices: MIG devices, the time slice, virtual functions.
const SLICES: &str = "nvidia-smi -L; nvidia-smi compute-policy -l; \
    cat /sys/bus/pci/devices/*/sriov_numvfs; lspci -n";

fn applied(hosts: &Hosts, steps: u32) {
    let before = hosts.state("h1");
    hosts
        .deploy(&["gpu", "--yes"])
        .expect(0)
        .says(&format!("h1: changed, {steps} steps"));
    let after = hosts.state("h1");
    assert_ne!(after.cards, before.cards);
    assert_ne!(after.bus, before.bus);
    let slices = hosts.ssh("h1", SLICES).expect(0);
    assert_eq!(slices.out.matches("  MIG ").count(), 3, "{}", slices.out);
    hosts
        .deploy(&["gpu", "--yes"])
        .expect(0)
        .says("ok=1 changed=0");
    assert_eq!(hosts.state("h1").differing(&after), [""; 0]);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
}

#[test]
fn a_host_without_systemd_is_sliced_left_alone_and_brought_back() {
    if !available() {
        return;
    }
    let hosts = Hosts::overlay(1, 0);
    applied(&hosts, 13);
    faults(&hosts);
    // sshd is there while a file is not, so that a step can stop it and an undo bring it back.
    hosts.on("h1", ": >/etc/ssh/off").expect(0);
    while hosts.ssh("h1", "true").code == 0 {}
    hosts.on("h1", "rm /etc/ssh/off").expect(0);
    while hosts.ssh("h1", "true").code != 0 {}
    let worn = hosts.state("h1");
    hosts.renew("h1");
    let new = hosts.state("h1").differing(&worn);
    assert_eq!(new, [""; 0], "all that was done here was undone");
}

#[test]
fn a_host_with_systemd_is_too_and_its_slices_outlive_a_reboot() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(1);
    applied(&hosts, 15);
    hosts.deploy(&["gpu", "--yes"]).expect(0);
    let before = hosts.state("h1");
    let slices = hosts.ssh("h1", SLICES).expect(0).out;
    let boot = hosts.boot_id("h1");
    hosts.ssh("h1", "systemctl reboot");
    hosts.wait_for_reboot("h1", &boot);
    hosts
        .ssh("h1", "systemctl is-system-running --wait")
        .expect(0);
    assert_eq!(hosts.ssh("h1", SLICES).expect(0).out, slices);
    let mut after = hosts.state("h1");
    assert!(after.units.contains("deploy-gpu.service active exited\n"));
    after.units.clone_from(&before.units);
    assert_eq!(after.differing(&before), [""; 0]);
    hosts.deploy(&["gpu", "--check"]).expect(0);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    faults(&hosts);
}

#[test]
fn a_card_that_a_real_process_has_open_is_not_touched() {
    if !available() {
        return;
    }
    let hosts = Hosts::overlay(1, 0);
    let start = "setsid sleep 1000 >/dev/null 2>&1 </dev/nvidia0 & echo $!";
    let pid = hosts.on("h1", start).expect(0).out;
    let before = hosts.state("h1");
    let refused = hosts.deploy(&["gpu", "--yes"]).expect(3);
    let refused = refused.says("GPU 0").says("sleep").says(pid.trim());
    assert!(refused.out.contains("failed=1"), "{}", refused.all());
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
    hosts.on("h1", &format!("kill {pid}")).expect(0);
    hosts.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
}

#[test]
fn several_hosts_far_away_are_changed_at_once() {
    if !available() {
        return;
    }
    let hosts = Hosts::overlay(3, 50);
    let first = hosts.deploy(&["gpu", "--yes"]).expect(0);
    first.says("hosts=3 ok=0 changed=3");
    let lists: Vec<String> = ["h1", "h2", "h3"]
        .map(|host| hosts.on(host, "nvidia-smi -L").expect(0).out)
        .into();
    for (n, list) in lists.iter().enumerate() {
        assert_eq!(list.matches("  MIG ").count(), 3, "{list}");
        assert!(!lists[..n].contains(list), "each host has cards of its own");
    }
    let second = hosts.deploy(&["gpu", "--yes"]).expect(0);
    second.says("hosts=3 ok=3 changed=0");
}

#[test]
fn what_a_killed_test_leaves_behind_is_taken_down() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(2);
    let other = Hosts::overlay(1, 20);
    let marks = [&hosts, &other].map(|hosts| {
        let folder = hosts.folder();
        // As if started by a process that is gone: no process has number 0.
        fs::write(folder.join("owner"), "0 0\n").expect("our file");
        (folder, hosts.root("h1"))
    });
    let kept = Hosts::overlay(1, 0);
    hosts::script(&["sweep"]).expect(0).says("left over");
    for (folder, root) in marks {
        let name = folder.file_name().expect("a name").to_string_lossy();
        assert!(!folder.exists() && !root.exists(), "{name}");
        let read = |path: &str| fs::read_to_string(path).expect("Linux has it");
        assert!(!read("/proc/self/mountinfo").contains(&*name));
        let spaces = fs::read_dir("/run/netns").expect("ip made it").flatten();
        let left = spaces.filter(|space| space.file_name().to_string_lossy().starts_with(&*name));
        assert_eq!(left.count(), 0);
        for process in fs::read_dir("/proc").expect("Linux has it").flatten() {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&words).contains(&*name));
        }
    }
    kept.ssh("h1", "true").expect(0);
}

#[test]
fn the_scripts_of_the_hosts_are_clean_shell() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts");
    let mut command = Command::new("shellcheck");
    command.arg("-x").current_dir(&folder);
    command.args([
        "hosts.sh",
        "boot.sh",
        "rootfs.sh",
        "kubectl.sh",
        "machine.sh",
        "machine-image.sh",
        "inside/init",
        "inside/tee",
    ]);
    command.args([
        "inside/sim-hardware",
        "inside/vendor-tool",
        "../real_crash/wrapper.sh",
    ]);
    let ended = ended(
        command
            .output()
            .expect("shellcheck starts; tests/run installs it"),
    );
    ended.expect(0);
}

/// The harness itself: what it breaks is broken as it would be on a host, and mended again.
fn faults(hosts: &Hosts) {
    let write = |path: &str| hosts.on("h1", &format!("date >{path} && sync {path} && rm {path}"));
    let before = hosts.state("h1");

    hosts.fill("h1", Disk::Var, 0);
    write("/var/lib/x")
        .expect(1)
        .says("No space left on device");
    write("/etc/x").expect(0);
    hosts.free("h1", Disk::Var);
    hosts.on("h1", "rm /var/lib/x").expect(0);
    hosts.fill("h1", Disk::Root, 4);
    write("/etc/x").expect(0);
    let large = hosts.on("h1", "head -c 8192 /dev/zero >/etc/x");
    large.says("No space left on device");
    hosts.free("h1", Disk::Root);
    hosts.on("h1", "rm /etc/x").expect(0);

    hosts.read_only("h1", "/etc");
    write("/etc/x").expect(2).says("Read-only file system");
    write("/var/lib/x").expect(0);
    hosts.read_write("h1", "/etc");
    write("/etc/x").expect(0);

    // A connection that is cut tells its client, and spares what it had started.
    let mut waiting = hosts.ssh_command("h1", "sleep 1000; echo too late");
    let waiting = waiting.stdout(Stdio::piped()).spawn().expect("ssh starts");
    while hosts
        .on("h1", "pgrep -x sleep -a")
        .out
        .matches("1000")
        .count()
        == 0
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    hosts.cut("h1");
    let cut = waiting.wait_with_output().expect("ssh ends");
    assert_eq!((cut.status.code(), &*cut.stdout), (Some(255), &b""[..]));
    hosts.on("h1", "pkill -x sleep").expect(0);
    hosts.unplug("h1");
    assert_eq!(hosts.ssh("h1", "true").code, 255);
    hosts.on("h1", "hostname").expect(0).says("h1");
    hosts.plug("h1");
    hosts.ssh("h1", "true").expect(0);

    // Hardware forgets what it is to forget; disks do not.
    let make = "nvidia-smi -i 0 -mig 1; nvidia-smi mig -cgi 9 -C";
    let made = hosts.ssh("h1", make);
    made.says("Successfully created GPU instance");
    let functions = "tee /sys/bus/pci/devices/0000:4b:00.0/sriov_numvfs";
    hosts.on("h1", &format!("echo 2 | {functions}")).expect(0);
    let more = hosts.on("h1", &format!("echo 3 | {functions}")).expect(1);
    more.says("Device or resource busy");
    assert_ne!(hosts.state("h1").differing(&before), [""; 0]);
    let hold = "setsid sleep 1000 >/dev/null 2>&1 </dev/nvidia0 & echo kept >/var/lib/kept";
    hosts.ssh("h1", hold).expect(0);
    let boot = hosts.boot_id("h1");
    hosts.power_cut("h1");
    assert_eq!(hosts.on("h1", "true").code, 1);
    hosts.boot("h1");
    assert_ne!(hosts.boot_id("h1"), boot);
    let kept = hosts.on("h1", "cat /var/lib/kept && rm /var/lib/kept");
    kept.expect(0).says("kept");
    let holders = hosts.on("h1", "ls -l /proc/[0-9]*/fd | grep -c /dev/nvidia0");
    assert_eq!(holders.out.trim(), "0");
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
}

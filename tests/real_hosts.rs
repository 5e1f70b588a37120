//! Whole commands against real hosts (`tests/hosts`): OpenSSH, file systems, processes
//! and systemd are real, the GPUs are simulated.

use crate::hosts::{Disk, Hosts};

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
    let hosts = Hosts::overlay(1, 0);
    applied(&hosts, 13);
    faults(&hosts);
}

#[test]
fn a_host_with_systemd_is_too_and_its_slices_outlive_a_reboot() {
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

/// The harness itself: what it breaks is broken as it would be on a host, and mended again.
fn faults(hosts: &Hosts) {
    let write =
        |path: &str| hosts.ssh("h1", &format!("echo x >{path} && sync {path} && rm {path}"));
    let before = hosts.state("h1");

    hosts.fill("h1", Disk::Var, 0);
    write("/var/lib/x")
        .expect(1)
        .says("No space left on device");
    write("/etc/x").expect(0);
    hosts.free("h1", Disk::Var);
    hosts.ssh("h1", "rm /var/lib/x").expect(0);
    hosts.fill("h1", Disk::Root, 4);
    write("/etc/x").expect(0);
    hosts
        .ssh("h1", "head -c 8192 /dev/zero >/etc/x")
        .says("No space left on device");
    hosts.free("h1", Disk::Root);
    hosts.ssh("h1", "rm /etc/x").expect(0);

    hosts.read_only("h1", "/etc");
    write("/etc/x").expect(1).says("Read-only file system");
    write("/var/lib/x").expect(0);
    hosts.read_write("h1", "/etc");
    write("/etc/x").expect(0);

    hosts.unplug("h1");
    assert_eq!(hosts.ssh("h1", "true").code, 255);
    hosts.on("h1", "hostname").expect(0).says("h1");
    hosts.plug("h1");
    hosts.ssh("h1", "true").expect(0);

    hosts
        .ssh(
            "h1",
            "nvidia-smi -i 1 -mig 0; nvidia-smi -i 0 -mig 1; nvidia-smi mig -cgi 9 -C",
        )
        .says("Successfully created GPU instance");
    hosts
        .ssh(
            "h1",
            "echo 2 | tee /sys/bus/pci/devices/0000:4b:00.0/sriov_numvfs",
        )
        .expect(0);
    hosts
        .ssh(
            "h1",
            "echo 3 | tee /sys/bus/pci/devices/0000:4b:00.0/sriov_numvfs",
        )
        .expect(1)
        .says("Device or resource busy");
    assert_ne!(hosts.state("h1").differing(&before), [""; 0]);
    hosts
        .ssh(
            "h1",
            "setsid sleep 1000 >/dev/null 2>&1 </dev/nvidia0 & echo kept >/var/lib/kept",
        )
        .expect(0);
    let boot = hosts.boot_id("h1");
    hosts.power_cut("h1");
    assert_eq!(hosts.on("h1", "true").code, 1);
    hosts.boot("h1");
    assert_ne!(hosts.boot_id("h1"), boot);
    hosts
        .ssh("h1", "cat /var/lib/kept && rm /var/lib/kept")
        .says("kept");
    let holders = hosts.on("h1", "ls -l /proc/[0-9]*/fd | grep -c /dev/nvidia0");
    assert_eq!(holders.out.trim(), "0");
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
}

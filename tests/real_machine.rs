//! Slicing on a real kernel: real PCI devices with virtual functions, their drivers, udev, GRUB
//! and reboots, on the machine of `hosts/machine.rs`. It has no GPU; the catalog of its
//! project says that its cards are some.
//!
//! A boot takes long, so that one machine serves several checks, each of which begins
//! where the last one ended.

use crate::hosts::machine::{Machine, NIC, NVME};

/// What sysfs says of a card's virtual functions: how many, whether drivers are bound to new
/// ones, and the driver of each that there is.
fn functions(machine: &Machine, pci: &str) -> String {
    // Drivers of new functions are loaded by udev, in its own time.
    machine.says(&format!(
        "udevadm settle; cd /sys/bus/pci/devices/{pci}; \
         echo $(cat sriov_numvfs sriov_drivers_autoprobe) \
         $(for vf in virtfn*; do [ ! -e $vf ] || basename $(readlink $vf/driver || echo none); done)"
    ))
}

/// Wants so much of the network card, and nothing of the disk.
fn want(machine: &Machine, strategy: &str) {
    machine.variables(&format!(
        "containers_gpu_slicing:
  enabled: true
  strategy: none
  gpus:
    - match: {{pci: '{NIC}'}}
      {strategy}
"
    ));
}

fn sriov(vf_count: u32, more: &str) -> String {
    format!("strategy: sriov\n      sriov: {{enabled: true, vf_count: {vf_count}{more}}}")
}

#[test]
fn virtual_functions_of_a_real_kernel() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    made_and_nothing_more_to_do(&machine);
    made_again_by_the_boot_unit(&machine);
    changed_by_way_of_none_and_rolled_back(&machine);
    a_loss_of_power_in_between_leaves_what_was_before(&machine);
    none_where_no_driver_makes_them(&machine);
}

fn made_and_nothing_more_to_do(machine: &Machine) {
    want(machine, &sriov(4, ""));
    machine
        .deploy(&["discover"])
        .expect(0)
        .says("Test-Net")
        .says("Test-Disk");
    machine.deploy(&["gpu", "--check"]).expect(2);
    assert_eq!(functions(machine, NIC), "0 1");

    machine.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(functions(machine, NIC), "4 1 igbvf igbvf igbvf igbvf");
    assert_eq!(functions(machine, NVME), "0 1");
    let again = machine.deploy(&["gpu", "--yes", "--output", "json"]);
    again.expect(0).says("\"changed\":0");
}

fn made_again_by_the_boot_unit(machine: &Machine) {
    machine.reboot_wait();
    assert_eq!(
        machine.says("systemctl is-active deploy-gpu.service; systemctl --failed --no-legend"),
        "active"
    );
    assert_eq!(functions(machine, NIC), "4 1 igbvf igbvf igbvf igbvf");
    machine.deploy(&["gpu", "--check"]).expect(0);
}

fn changed_by_way_of_none_and_rolled_back(machine: &Machine) {
    // What the kernel says to one who goes straight from 4 to 7.
    let straight = format!("echo 7 >/sys/bus/pci/devices/{NIC}/sriov_numvfs");
    machine.ssh(&straight).says("Device or resource busy");

    want(machine, &sriov(7, ", drivers_autoprobe: false"));
    machine.deploy(&["gpu", "--yes"]).expect(0);
    let none = "7 0 none none none none none none none";
    assert_eq!(functions(machine, NIC), none);

    machine.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(functions(machine, NIC), "4 1 igbvf igbvf igbvf igbvf");
}

/// The machine itself pulls the plug, when there are no functions for a moment.
fn a_loss_of_power_in_between_leaves_what_was_before(machine: &Machine) {
    want(machine, &sriov(7, ""));
    let plug = format!(
        "cat >/root/plug <<'X'
while read -r now </sys/bus/pci/devices/{NIC}/sriov_numvfs; do
    [ $now != 0 ] || echo b >/proc/sysrq-trigger
done
X
sync
systemd-run --quiet sh /root/plug"
    );
    machine.says(&plug);
    let before = machine.boot_id();
    let cut = machine.deploy(&["gpu", "--yes"]);
    assert!([3, 4, 5].contains(&cut.code), "{}", cut.all());
    machine.wait_for_boot(&before);
    assert_eq!(functions(machine, NIC), "4 1 igbvf igbvf igbvf igbvf");
    let runs = machine.deploy(&["runs"]).expect(0);
    assert!(!runs.out.contains("running"), "{}", runs.all());

    machine.deploy(&["gpu", "--yes"]).expect(0);
    let all = "7 1 igbvf igbvf igbvf igbvf igbvf igbvf igbvf";
    assert_eq!(functions(machine, NIC), all);
    // A run that is over is on the disk.
    machine.power_cut_wait();
    assert_eq!(functions(machine, NIC), all);
    machine.deploy(&["gpu", "--check"]).expect(0);
}

fn none_where_no_driver_makes_them(machine: &Machine) {
    want(machine, "strategy: none");
    machine.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(functions(machine, NIC), "0 1");
    machine.says(&format!(
        "echo {NIC} >/sys/bus/pci/devices/{NIC}/driver/unbind"
    ));
    want(machine, &sriov(2, ""));
    let refused = machine.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("no kernel driver is bound to it");
}

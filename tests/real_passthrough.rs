//! The kernel's command line and cards for virtual machines on a real kernel: GRUB, an Intel
//! IOMMU and vfio-pci, on the machine of `hosts/machine.rs`.

use crate::hosts::machine::{Machine, NIC, NVME};

/// The drivers of both cards, as the kernel says.
fn drivers(machine: &Machine) -> String {
    machine.says(&format!(
        "udevadm settle; for pci in {NIC} {NVME}; do \
         basename $(readlink /sys/bus/pci/devices/$pci/driver || echo none); done | xargs"
    ))
}

fn want(machine: &Machine, nic: &str, disk: &str) {
    machine.variables(&format!(
        "containers_gpu_slicing:
  enabled: true
  strategy: none
  gpus:
    - match: {{pci: '{NIC}'}}
      strategy: {nic}
    - match: {{pci: '{NVME}'}}
      strategy: {disk}
"
    ));
}

#[test]
fn cards_are_handed_over_on_a_real_kernel() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    the_command_line_is_told_to_grub_and_taken_back(&machine);
    the_iommu_is_switched_on_by_the_way(&machine);
    another_card_goes_and_comes_back(&machine);
    all_come_back(&machine);
}

fn the_command_line_is_told_to_grub_and_taken_back(machine: &Machine) {
    want(machine, "none", "none");
    let play = machine.scratch.write(
        "play.yml",
        "- hosts: all\n  tasks:\n    - kernel_cmdline: {present: [iommu=pt], absent: [quiet]}\n",
    );
    let play = play.display().to_string();
    // Without the kernel's path: the machine's first configuration was not made by update-grub.
    let next = || {
        machine.says(
            "sed -n 's/^[[:space:]]*linux[[:space:]]*[^[:space:]]*//p' /boot/grub/grub.cfg | head -n 1",
        )
    };
    let before = next();
    machine
        .deploy(&["run", &play, "--yes"])
        .expect(0)
        .says("only after a restart");
    assert!(next().contains("iommu=pt"), "{}", next());
    assert!(!machine.says("cat /proc/cmdline").contains("iommu=pt"));
    machine.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(next(), before);
    assert_eq!(
        machine.says("ls /etc/default/grub.d/60-deploy.cfg 2>/dev/null || echo none"),
        "none"
    );
}

fn the_iommu_is_switched_on_by_the_way(machine: &Machine) {
    assert_eq!(drivers(machine), "igb nvme");
    assert_eq!(machine.says("ls /sys/class/iommu"), "");
    want(machine, "passthrough", "none");
    machine
        .deploy(&["gpu", "--yes"])
        .expect(3)
        .says("the IOMMU is off")
        .says("--allow-reboot");
    let boot = machine.boot_id();
    machine
        .deploy(&["gpu", "--yes", "--allow-reboot"])
        .expect(0);
    assert_ne!(machine.boot_id(), boot);
    assert!(
        machine
            .says("cat /proc/cmdline")
            .contains(" intel_iommu=on")
    );
    assert_eq!(drivers(machine), "vfio-pci nvme");
    let again = machine.deploy(&["gpu", "--yes", "--output", "json"]);
    again.expect(0).says("\"changed\":0");
    // The driver made the group's node: a virtual machine could take it.
    let group = machine.says(&format!(
        "basename $(readlink /sys/bus/pci/devices/{NIC}/iommu_group)"
    ));
    machine.says(&format!("test -c /dev/vfio/{group}"));

    machine.reboot_wait();
    assert_eq!(drivers(machine), "vfio-pci nvme");
    machine.deploy(&["gpu", "--check"]).expect(0);
}

fn another_card_goes_and_comes_back(machine: &Machine) {
    want(machine, "passthrough", "passthrough");
    machine.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(drivers(machine), "vfio-pci vfio-pci");
    machine.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(drivers(machine), "vfio-pci nvme");
}

fn all_come_back(machine: &Machine) {
    want(machine, "none", "none");
    machine.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(drivers(machine), "igb nvme");
    machine.reboot_wait();
    assert_eq!(drivers(machine), "igb nvme");
    machine.deploy(&["gpu", "--check"]).expect(0);
}

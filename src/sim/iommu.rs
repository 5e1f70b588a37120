//! The IOMMU of a machine: whether the kernel uses one, the groups of its functions, and the
//! drivers that the kernel picks for them.
//!
//! The firmware offers it by an ACPI table. Intel's is used if it is there and the kernel was
//! booted with `intel_iommu=on`; AMD's if it is there. Written from the domain notes on passthrough and the
//! kernel's `driver_override` (Documentation/ABI/testing/sysfs-bus-pci).

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::fault;
use super::host::device_directory;
use super::machine::{Host, Machine};
use super::spec::Cpu;

/// A disk controller that every machine has: what a fault puts into a card's group.
const DISK: &str = "0000:05:00.0";

/// What the bus knows of a function, whatever it is bound to.
#[derive(Debug)]
pub(super) struct Slot {
    /// IOMMU group.
    pub(super) group: u32,
    /// The driver that the kernel picks.
    pub(super) driver: Option<String>,
}

/// Remembers a function that was put into the machine.
pub(super) fn remember(
    host: &Host,
    address: &str,
    group: u32,
    driver: Option<&str>,
) -> io::Result<()> {
    fs::create_dir_all(host.private("bus"))?;
    let text = format!("{group} {}\n", driver.unwrap_or("-"));
    fs::write(host.private(&format!("bus/{address}")), text)?;
    if is_on(host) {
        join(host, address, group)?;
    }
    Ok(())
}

/// Forgets one that is gone.
pub(super) fn forget(host: &Host, address: &str) {
    // One of a recording was never remembered.
    let _ = fs::remove_file(host.private(&format!("bus/{address}")));
}

/// What is remembered of a function.
pub(super) fn slot(host: &Host, address: &str) -> Option<Slot> {
    let text = fs::read_to_string(host.private(&format!("bus/{address}"))).ok()?;
    let (group, driver) = text.trim().split_once(' ')?;
    Some(Slot {
        group: group.parse().ok()?,
        driver: (driver != "-").then(|| driver.to_owned()),
    })
}

/// All that are remembered.
pub(super) fn functions(host: &Host) -> Vec<String> {
    let Ok(entries) = fs::read_dir(host.private("bus")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Whether the kernel uses an IOMMU.
pub(super) fn is_on(host: &Host) -> bool {
    fs::read_dir(host.path("/sys/class/iommu")).is_ok_and(|mut units| units.next().is_some())
}

/// Brings groups to what firmware and command line say. A recorded machine keeps its own.
pub(super) fn set_up(host: &Host, machine: &Machine) -> io::Result<()> {
    if machine.spec.umockdev.is_some() {
        return Ok(());
    }
    let faults = fault::faults(host);
    let asked = host
        .read("/proc/cmdline")
        .split_whitespace()
        .any(|word| word == "intel_iommu=on");
    let (on, unit) = match machine.spec.cpu {
        Cpu::Intel => (asked, "dmar0"),
        Cpu::Amd => (true, "ivhd0"),
    };
    match fs::remove_dir_all(host.path("/sys/class/iommu")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(host.path("/sys/class/iommu"))?,
    }
    fs::create_dir_all(host.path("/sys/kernel/iommu_groups"))?;
    let on = on && !faults.no_iommu;
    firmware(host, machine, !faults.no_iommu)?;
    if on {
        fs::create_dir_all(host.path(format!("/sys/class/iommu/{unit}")))?;
    }
    for address in functions(host) {
        leave(host, &address)?;
        let Some(slot) = slot(host, &address).filter(|_| on) else {
            continue;
        };
        let group = match faults.shared_group {
            Some(shared) if address == DISK => shared,
            _ => slot.group,
        };
        join(host, &address, group)?;
    }
    Ok(())
}

/// The ACPI tables that the kernel shows, as far as they tell of IOMMUs.
fn firmware(host: &Host, machine: &Machine, offers: bool) -> io::Result<()> {
    let table = match machine.spec.cpu {
        Cpu::Intel => "DMAR",
        Cpu::Amd => "IVRS",
    };
    host.write("/sys/firmware/acpi/tables/FACP", "")?;
    let path = format!("/sys/firmware/acpi/tables/{table}");
    match offers {
        true => host.write(&path, ""),
        false => match fs::remove_file(host.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Takes a function out of its group, and the group away with its last member. Mediated
/// devices have groups of their own.
fn leave(host: &Host, address: &str) -> io::Result<()> {
    let Some(group) = group_of(host, address) else {
        return Ok(());
    };
    let own = format!("{}/iommu_group", device_directory(address));
    fs::remove_file(host.path(own))?;
    let folder = host.path(format!("/sys/kernel/iommu_groups/{group}"));
    fs::remove_file(folder.join("devices").join(address))?;
    if fs::read_dir(folder.join("devices"))?.next().is_none() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn join(host: &Host, address: &str, group: u32) -> io::Result<()> {
    let own = host.path(format!("{}/iommu_group", device_directory(address)));
    symlink(format!("../../../kernel/iommu_groups/{group}"), own)?;
    let members = host.path(format!("/sys/kernel/iommu_groups/{group}/devices"));
    fs::create_dir_all(&members)?;
    let target = format!("../../../../devices/pci{}/{address}", &address[..7]);
    symlink(target, members.join(address))
}

/// The group that a function is in now.
pub(super) fn group_of(host: &Host, address: &str) -> Option<u32> {
    let link = host.path(format!("{}/iommu_group", device_directory(address)));
    link.read_link().ok()?.file_name()?.to_str()?.parse().ok()
}

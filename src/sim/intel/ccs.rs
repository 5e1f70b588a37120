//! `ccs_mode`: how many compute engines share the compute slices of a tile.
//!
//! Rules of xe's `xe_gt_ccs_mode.c` and of the i915 from outside of Linux.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use super::{Card, Driver, nodes, number, unsigned};
use crate::facts::PciAddress;
use crate::sim::host::device_directory;
use crate::sim::machine::Host;

pub(super) fn make(host: &Host, card: &Card, driver: Driver, address: &str) -> io::Result<()> {
    let base = match driver {
        Driver::Xe => device_directory(address),
        Driver::I915 => nodes::card_folder(host, address).unwrap_or_default(),
    };
    for tile in 0..card.tiles {
        let unit = match driver {
            Driver::Xe => format!("{base}/tile{tile}/gt0"),
            Driver::I915 => format!("{base}/gt/gt{tile}"),
        };
        fs::create_dir_all(host.path(&unit))?;
        // A tile with one engine has neither file.
        if card.slices > 1 {
            host.write(&format!("{unit}/num_cslices"), format!("{}\n", card.slices))?;
            host.write(&format!("{unit}/ccs_mode"), "1\n")?;
        }
    }
    Ok(())
}

pub(super) fn write(host: &Host, path: &str, text: &str) -> io::Result<()> {
    let is_address = |part: &&str| part.len() == 12 && part.parse::<PciAddress>().is_ok();
    let Some(address) = path.split('/').rfind(is_address) else {
        return Err(Errno::NODEV.into());
    };
    let folder = path.trim_end_matches("/ccs_mode");
    if !host.path(path).exists() {
        return Err(Errno::NOENT.into());
    }
    let directory = device_directory(address);
    // xe runs as a physical function from its start, whether it has virtual ones or not.
    let virtual_one = host.path(format!("{directory}/physfn")).exists();
    let physical_one = host.path(format!("{directory}/sriov_admin")).exists()
        || host
            .path(format!("/sys/kernel/debug/dri/{address}/gt0/pf"))
            .exists();
    if virtual_one || physical_one {
        return Err(Errno::OPNOTSUPP.into());
    }
    let wanted = unsigned(text)?;
    let slices = number(host, &format!("{folder}/num_cslices"));
    if wanted == 0 || wanted > slices || !slices.is_multiple_of(wanted) {
        return Err(Errno::INVAL.into());
    }
    if wanted == number(host, path) {
        return Ok(());
    }
    let in_use = number(host, &format!("{directory}/sriov_numvfs")) > 0;
    if in_use || is_open(host, address)? {
        return Err(Errno::BUSY.into());
    }
    host.write(path, format!("{wanted}\n"))
}

/// Whether a process has one of the card's nodes open.
fn is_open(host: &Host, address: &str) -> io::Result<bool> {
    let machine = host.load()?;
    let nodes = fs::read_dir(host.path(format!("{}/drm", device_directory(address))))?;
    let nodes: Vec<String> = nodes
        .flatten()
        .map(|entry| format!("/dev/dri/{}", entry.file_name().to_string_lossy()))
        .collect();
    let mut held = machine
        .holders
        .iter()
        .filter_map(|holder| holder.node.as_ref());
    Ok(held.any(|node| nodes.contains(node)))
}

/// All cards of the machine, as a boot leaves them.
pub(super) fn boot(host: &Host) -> io::Result<()> {
    let Ok(devices) = fs::read_dir(host.path("/sys/bus/pci/devices")) else {
        return Ok(());
    };
    for device in devices.flatten() {
        let name = device.file_name();
        let Ok(address) = std::str::from_utf8(name.as_bytes()) else {
            continue;
        };
        let card = nodes::card_folder(host, address);
        for tile in 0..8 {
            for unit in [
                format!("{}/tile{tile}/gt0", device_directory(address)),
                format!("{}/gt/gt{tile}", card.as_deref().unwrap_or("/none")),
            ] {
                let mode = format!("{unit}/ccs_mode");
                if host.path(&mode).exists() {
                    host.write(&mode, "1\n")?;
                }
            }
        }
    }
    Ok(())
}

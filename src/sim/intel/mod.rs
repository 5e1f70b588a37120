//! Intel's kernel drivers, as far as they show in sysfs and debugfs: device nodes, compute
//! engines, and the files that take the shares of virtual functions.
//!
//! Written from the kernel's ABI document for xe, the sources of both drivers and those of
//! `xpu-smi`, which writes the same files. The files hold the state themselves; a write to one
//! of them comes here, as does the news that virtual functions came or went.

mod cards;
mod ccs;
mod i915;
mod nodes;
mod tool;
mod xe;

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::host::device_directory;
use super::machine::{Host, Machine};

pub(super) use cards::{Card, by_device};
pub(super) use nodes::remove as remove_nodes;
pub(super) use tool::{share_by_tool, shares};

/// What all virtual functions of a tile can have beside memory: bytes of the driver's address
/// space and doorbells as the profiles of `xpu-smi` divide them, and contexts.
const GGTT: u64 = 4_026_531_840;
const DOORBELLS: u64 = 240;
const CONTEXTS: u64 = 65_536 - 1024;

/// Which kernel driver has a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    Xe,
    I915,
}

/// The driver that has the function at `address`, if it is one of Intel's.
pub(super) fn driver_of(host: &Host, address: &str) -> Option<Driver> {
    let link = host.path(format!("{}/driver", device_directory(address)));
    match link.read_link().ok()?.file_name()?.to_str()? {
        "xe" => Some(Driver::Xe),
        "i915" => Some(Driver::I915),
        _ => None,
    }
}

/// The card at an address, by the id that it shows.
pub(super) fn card_at(host: &Host, address: &str) -> Option<&'static Card> {
    let id = host.read(&format!("{}/device", device_directory(address)));
    by_device(u16::from_str_radix(id.strip_prefix("0x")?, 16).ok()?)
}

/// Makes what the driver shows of a card. `functions` is `sriov_totalvfs`; 0 for a card that is
/// no physical function.
pub(super) fn make(
    host: &Host,
    machine: &Machine,
    address: &str,
    functions: u32,
) -> io::Result<()> {
    let (Some(card), Some(driver)) = (card_at(host, address), driver_of(host, address)) else {
        return Ok(());
    };
    nodes::add(host, address)?;
    ccs::make(host, card, driver, address)?;
    if functions == 0 {
        return Ok(());
    }
    match driver {
        Driver::Xe => xe::make(host, card, &machine.spec.kernel, address, functions),
        Driver::I915 => i915::make(host, card, address, functions),
    }
}

/// What a driver shows of a function that it has got: nodes, and what i915 keeps below these,
/// which went when it lost the function.
pub(super) fn taken(host: &Host, address: &str) -> io::Result<()> {
    nodes::add(host, address)?;
    let (Some(card), Some(Driver::I915)) = (card_at(host, address), driver_of(host, address))
    else {
        return Ok(());
    };
    match host.load()?.functions.get(address) {
        Some(function) if !i915::is_made(host, address) => {
            ccs::make(host, card, Driver::I915, address)?;
            i915::make(host, card, address, function.total_vfs)
        }
        _ => Ok(()),
    }
}

/// What the driver does when `count` virtual functions were made; each of them has its place
/// and its driver already.
pub(super) fn enabled(host: &Host, address: &str, count: u32) -> io::Result<()> {
    let Some(card) = card_at(host, address) else {
        return Ok(());
    };
    match driver_of(host, address) {
        Some(Driver::Xe) => xe::enabled(host, card, address, count),
        Some(Driver::I915) => i915::enabled(host, card, address, count),
        None => Ok(()),
    }
}

/// What it does when `count` virtual functions were taken away.
pub(super) fn disabled(host: &Host, address: &str, count: u32) -> io::Result<()> {
    let Some(card) = card_at(host, address) else {
        return Ok(());
    };
    match driver_of(host, address) {
        Some(Driver::Xe) => xe::disabled(host, address),
        Some(Driver::I915) => i915::disabled(host, card, address, count),
        None => Ok(()),
    }
}

/// What a boot makes of all cards: nothing is kept anywhere. The functions are gone already.
pub(super) fn boot(host: &Host, machine: &Machine) -> io::Result<()> {
    for (address, function) in &machine.functions {
        let (Some(card), Some(driver)) = (card_at(host, address), driver_of(host, address)) else {
            continue;
        };
        match driver {
            Driver::Xe => xe::reset(host, address)?,
            Driver::I915 => i915::reset(host, card, address, function.total_vfs)?,
        }
    }
    ccs::boot(host)
}

/// A write to one of the drivers' files; nothing if it is none of theirs.
pub(super) fn write(host: &Host, path: &Path, text: &str) -> Option<io::Result<()>> {
    let path = path
        .strip_prefix(std::fs::canonicalize(host.root()).ok()?)
        .ok()?;
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let whole = format!("/{}", parts.join("/"));
    match &parts[..] {
        [.., gt, "ccs_mode"] if gt.starts_with("gt") => Some(ccs::write(host, &whole, text)),
        [.., address, "sriov_admin", function, "profile", name] => {
            Some(xe::write(host, address, function, name, text))
        }
        [.., address, "sriov_admin", ".bulk_profile", name] => {
            Some(xe::write_bulk(host, address, name, text))
        }
        ["sys", "kernel", "debug", "dri", address, gt, function, name] => {
            Some(xe::write_debugfs(host, address, gt, function, name, text))
        }
        [.., address, "drm", _, "iov", function, gt, name] => Some(i915::write(
            host,
            address,
            &format!("{function}/{gt}"),
            name,
            text,
        )),
        [.., address, "drm", _, "iov", "pf", name] => {
            Some(i915::write(host, address, "pf", name, text))
        }
        [.., address, "drm", _, "iov", "pf", gt, "policies", name] => {
            let folder = format!("pf/{gt}/policies");
            Some(i915::write(host, address, &folder, name, text))
        }
        _ => None,
    }
}

/// An unsigned number as the kernel takes it, without a unit.
fn unsigned(text: &str) -> io::Result<u64> {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_ascii_digit()) {
        return Err(Errno::INVAL.into());
    }
    digits.parse().map_err(|_| Errno::RANGE.into())
}

/// A file that holds a number.
fn number(host: &Host, path: &str) -> u64 {
    host.read(path).parse().unwrap_or(0)
}

/// Every `path` below which there is a function `vfN`, from the first on.
fn functions(host: &Host, folder: &str) -> impl Iterator<Item = (u32, String)> {
    let host = host.clone();
    let folder = folder.to_owned();
    (1..)
        .map(move |number| (number, format!("{folder}/vf{number}")))
        .take_while(move |(_, path)| host.path(path).exists())
}

/// Where virtual function `number`, from 1, is: `../../../…` for the `device` link of its folder.
fn function_link(host: &Host, address: &str, number: u32) -> Option<String> {
    let link = host.path(format!(
        "{}/virtfn{}",
        device_directory(address),
        number - 1
    ));
    let target = link.read_link().ok()?;
    let other = target.file_name()?.to_str()?;
    Some(format!("/sys/bus/pci/devices/{other}"))
}

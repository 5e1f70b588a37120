//! Shares of virtual functions under the i915 from outside of Linux: `drm/cardN/iov/`.
//!
//! The Flex cards have one unit, `gt`, the Max cards one for each tile, `gt0` and `gt1`. The
//! driver divides the card evenly when functions are enabled while `auto_provisioning` is on.
//! A quota that is written switches it off, and stays when the functions go: whoever wrote it
//! has to take it back.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::{CONTEXTS, Card, DOORBELLS, GGTT, function_link, functions, nodes, number, unsigned};
use crate::sim::host::device_directory;
use crate::sim::machine::Host;

/// Memory is given in pages of this size.
const PAGE: u64 = 64 << 10;

const QUOTAS: [&str; 4] = [
    "lmem_quota",
    "ggtt_quota",
    "contexts_quota",
    "doorbells_quota",
];
const TIMES: [&str; 2] = ["exec_quantum_ms", "preempt_timeout_us"];

/// The folder; the card has its nodes already.
fn base(host: &Host, address: &str) -> String {
    let card = nodes::card_folder(host, address).unwrap_or_default();
    format!("{card}/iov")
}

/// Whether the driver has made it.
pub(super) fn is_made(host: &Host, address: &str) -> bool {
    host.path(base(host, address)).exists()
}

/// Names of the units.
pub(super) fn units(card: &Card) -> Vec<String> {
    // The Max cards are those with engines of their own for each tile.
    match card.device >> 8 {
        0x0b => (0..card.tiles).map(|tile| format!("gt{tile}")).collect(),
        _ => vec!["gt".to_owned()],
    }
}

pub(super) fn make(host: &Host, card: &Card, address: &str, count: u32) -> io::Result<()> {
    let base = base(host, address);
    let file = |name: String, text: &str| host.write(&format!("{base}/{name}"), text);
    let parent = base.trim_end_matches("/iov");
    host.write(&format!("{parent}/prelim_uapi_version"), "2.0\n")?;
    file("pf/auto_provisioning".to_owned(), "1\n")?;
    symlink("../../../..", host.path(format!("{base}/pf/device")))?;
    for unit in units(card) {
        for name in TIMES {
            file(format!("pf/{unit}/{name}"), "0\n")?;
        }
        for name in ["engine_reset", "sched_if_idle"] {
            file(format!("pf/{unit}/policies/{name}"), "0\n")?;
        }
        for number in 1..=count {
            for name in QUOTAS.iter().chain(&TIMES) {
                file(format!("vf{number}/{unit}/{name}"), "0\n")?;
            }
        }
    }
    host.write(
        &format!("{}/uevent", device_directory(address)),
        format!("DRIVER=i915\nPCI_SLOT_NAME={address}\n"),
    )?;
    left(host, card, &base)
}

/// Writes what is left for further functions.
fn left(host: &Host, card: &Card, base: &str) -> io::Result<()> {
    for unit in units(card) {
        for (name, all) in [
            ("lmem", card.memory),
            ("ggtt", GGTT),
            ("contexts", CONTEXTS),
            ("doorbells", DOORBELLS),
        ] {
            let given = sum(host, base, &unit, &format!("{name}_quota"), 0);
            let free = all.saturating_sub(given);
            let path = format!("{base}/pf/{unit}/available/{name}_free");
            host.write(&path, format!("{free}\n"))?;
        }
    }
    Ok(())
}

fn sum(host: &Host, base: &str, unit: &str, name: &str, without: u32) -> u64 {
    functions(host, base)
        .filter(|(function, _)| *function != without)
        .map(|(_, folder)| number(host, &format!("{folder}/{unit}/{name}")))
        .sum()
}

/// Which units a function lies on: all of them if it is the only one, else one.
pub(super) fn units_of(card: &Card, function: u32, count: u32) -> Vec<String> {
    let units = units(card);
    let many = u32::try_from(units.len()).unwrap_or(1);
    if count == 1 || many == 1 {
        return units;
    }
    units
        .into_iter()
        .enumerate()
        .filter(|(unit, _)| u32::try_from(*unit).ok() == Some(function % many))
        .map(|(_, name)| name)
        .collect()
}

pub(super) fn enabled(host: &Host, card: &Card, address: &str, count: u32) -> io::Result<()> {
    let base = base(host, address);
    if host.read(&format!("{base}/pf/auto_provisioning")) == "1" {
        let tiles = u64::from(card.tiles.min(count));
        let each = u64::from(count).div_ceil(tiles);
        for function in 1..=count {
            for unit in units_of(card, function, count) {
                let share = |all: u64, page: u64| all / each / page * page;
                for (name, value) in [
                    ("lmem_quota", share(card.memory, PAGE)),
                    ("ggtt_quota", share(GGTT, 4096)),
                    ("contexts_quota", share(CONTEXTS, 1).min(1024)),
                    ("doorbells_quota", share(DOORBELLS, 1)),
                ] {
                    host.write(
                        &format!("{base}/vf{function}/{unit}/{name}"),
                        format!("{value}\n"),
                    )?;
                }
            }
        }
    }
    for function in 1..=count {
        if let Some(target) = function_link(host, address, function) {
            let name = target.rsplit('/').next().unwrap_or_default();
            symlink(
                format!("../../../../../{name}"),
                host.path(format!("{base}/vf{function}/device")),
            )?;
        }
    }
    left(host, card, &base)
}

pub(super) fn disabled(host: &Host, card: &Card, address: &str, count: u32) -> io::Result<()> {
    let base = base(host, address);
    let auto = host.read(&format!("{base}/pf/auto_provisioning")) == "1";
    for function in 1..=count {
        let link = host.path(format!("{base}/vf{function}/device"));
        if link.is_symlink() {
            fs::remove_file(link)?;
        }
        if auto {
            for unit in units(card) {
                for name in QUOTAS {
                    host.write(&format!("{base}/vf{function}/{unit}/{name}"), "0\n")?;
                }
            }
        }
    }
    left(host, card, &base)
}

/// As the driver makes it when it is loaded.
pub(super) fn reset(host: &Host, card: &Card, address: &str, count: u32) -> io::Result<()> {
    let base = base(host, address);
    host.write(&format!("{base}/pf/auto_provisioning"), "1\n")?;
    for unit in units(card) {
        for name in TIMES {
            host.write(&format!("{base}/pf/{unit}/{name}"), "0\n")?;
        }
        host.write(&format!("{base}/pf/{unit}/policies/sched_if_idle"), "0\n")?;
        for function in 1..=count {
            for name in QUOTAS.iter().chain(&TIMES) {
                host.write(&format!("{base}/vf{function}/{unit}/{name}"), "0\n")?;
            }
        }
    }
    left(host, card, &base)
}

pub(super) fn write(
    host: &Host,
    address: &str,
    folder: &str,
    name: &str,
    text: &str,
) -> io::Result<()> {
    let base = base(host, address);
    let path = format!("{base}/{folder}/{name}");
    let Some(card) = super::card_at(host, address) else {
        return Err(Errno::NODEV.into());
    };
    if !host.path(&path).exists() {
        return Err(Errno::NOENT.into());
    }
    let value = unsigned(text)?;
    match name {
        "auto_provisioning" | "sched_if_idle" | "engine_reset" => {
            if value > 1 {
                return Err(Errno::INVAL.into());
            }
            // It can only be switched on where nothing is given by hand.
            let given = units(card).iter().any(|unit| {
                QUOTAS
                    .iter()
                    .any(|name| sum(host, &base, unit, name, 0) > 0)
            });
            let enabled = number(host, &format!("{}/sriov_numvfs", device_directory(address))) > 0;
            if name == "auto_provisioning" && value == 1 && given && !enabled {
                return Err(Errno::STALE.into());
            }
            host.write(&path, format!("{value}\n"))
        }
        "exec_quantum_ms" | "preempt_timeout_us" => host.write(&path, format!("{value}\n")),
        quota if QUOTAS.contains(&quota) => {
            let (function, unit) = folder.split_once('/').unwrap_or((folder, "gt"));
            let own = function.trim_start_matches("vf").parse().unwrap_or(0);
            let (all, page) = match quota {
                "lmem_quota" => (card.memory, PAGE),
                "ggtt_quota" => (GGTT, 4096),
                "contexts_quota" => (CONTEXTS, 1),
                _ => (DOORBELLS, 1),
            };
            let value = value.div_ceil(page).saturating_mul(page);
            if sum(host, &base, unit, quota, own).saturating_add(value) > all {
                return Err(Errno::NOSPC.into());
            }
            host.write(&format!("{base}/pf/auto_provisioning"), "0\n")?;
            host.write(&path, format!("{value}\n"))?;
            left(host, card, &base)
        }
        _ => Err(Errno::ACCESS.into()),
    }
}

/// The device memory of a function over all units, in bytes.
pub(super) fn memory(host: &Host, card: &Card, address: &str, function: u32) -> u64 {
    let base = base(host, address);
    let units = units(card).into_iter();
    units
        .map(|unit| number(host, &format!("{base}/vf{function}/{unit}/lmem_quota")))
        .sum()
}

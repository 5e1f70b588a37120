//! What `gim` does: virtual functions from the module's option when it is loaded, and from its
//! own `amd-smi` while it runs. It has no callback for `sriov_numvfs`.

use std::fs;
use std::io;

use crate::sim::fault::{AmdFault, faults};
use crate::sim::machine::{Host, Machine};
use crate::sim::tools::put_num_vfs;

/// The options of a module in `/etc/modprobe.d`, and those given to `modprobe`.
pub(in crate::sim) fn options(host: &Host, module: &str, given: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut files: Vec<_> = fs::read_dir(host.path("/etc/modprobe.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|name| name == "conf"))
        .collect();
    files.sort();
    for path in files {
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("options") && words.next() == Some(module) {
                found.extend(words.map(str::to_owned));
            }
        }
    }
    found.extend(given.iter().cloned());
    found
}

/// The virtual functions that `vf_num=N0,N1,…` asks for; one a card without it. A number that
/// the present modes do not allow gives one.
pub(in crate::sim) fn set_functions(
    host: &Host,
    machine: &mut Machine,
    options: &[String],
) -> io::Result<()> {
    let list = options
        .iter()
        .rev()
        .find_map(|option| option.strip_prefix("vf_num="));
    let wanted: Vec<u32> = list
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(|count| count.parse().ok())
        .collect();
    host.write(
        "/sys/module/gim/parameters/vf_num",
        format!("{}\n", list.unwrap_or("0")),
    )?;
    let cards: Vec<(String, u32)> = machine
        .amd
        .cards
        .iter()
        .enumerate()
        .map(|(index, card)| {
            let count = wanted.get(index).copied().filter(|count| *count > 0);
            let most = allowed(host, card.functions());
            let count = count.filter(|count| most.contains(count));
            (
                card.pci.clone(),
                count.unwrap_or(u32::from(!most.is_empty())),
            )
        })
        .collect();
    for (pci, count) in cards {
        put(host, machine, &pci, count)?;
    }
    Ok(())
}

/// Makes or unmakes the functions of a card that can have any.
pub(in crate::sim) fn put(host: &Host, machine: &Machine, pci: &str, count: u32) -> io::Result<()> {
    match machine.functions.get(pci) {
        Some(function) => put_num_vfs(host, function, pci, count),
        None => Ok(()),
    }
}

/// The numbers that the firmware allows of those that the mode does.
fn allowed(host: &Host, functions: &[u32]) -> Vec<u32> {
    let one_only = faults(host).amd.contains(&AmdFault::OneFunction);
    let fits = |count: &&u32| !one_only || **count == 1;
    functions.iter().filter(fits).copied().collect()
}

/// Sets modes and the number of virtual functions as GIM's `amd-smi set` does; the error is the
/// library's status word.
pub(in crate::sim) fn set_modes(
    host: &Host,
    machine: &mut Machine,
    pci: &str,
    change: Change<'_>,
) -> Result<(), &'static str> {
    if machine.amd_in_use() || faults(host).amd.contains(&AmdFault::Busy) {
        return Err("AMDSMI_STATUS_BUSY");
    }
    let Some(card) = machine.amd_card(pci).cloned() else {
        return Err("AMDSMI_STATUS_NOT_FOUND");
    };
    match change {
        Change::Functions(count) => {
            let allowed = allowed(host, card.functions());
            if count != 0 && !allowed.contains(&count) {
                return Err("AMDSMI_STATUS_INVAL");
            }
            put(host, machine, pci, count).map_err(|_| "AMDSMI_STATUS_IO")
        }
        Change::Compute(index) => {
            let mode = card.kind().modes.get(index).ok_or("AMDSMI_STATUS_INVAL")?;
            if !mode.memory.contains(&card.memory.as_str()) {
                return Err("AMDSMI_STATUS_SETTING_UNAVAILABLE");
            }
            for card in machine.amd.cards.iter_mut().filter(|card| card.pci == pci) {
                card.compute = mode.name.to_owned();
            }
            Ok(())
        }
        Change::Memory(wanted) => {
            if !card.available_memory().contains(&wanted) {
                return Err("AMDSMI_STATUS_INVAL");
            }
            if faults(host).amd.contains(&AmdFault::MemoryRefused) {
                return Err("AMDSMI_STATUS_IO");
            }
            let hive = card.hive();
            let cards = machine.amd.cards.iter_mut();
            for card in cards.filter(|card| card.hive() == hive) {
                card.memory = wanted.to_owned();
                if !card.available_compute().contains(&card.compute.as_str()) {
                    card.compute = card.compute_after_load().to_owned();
                }
            }
            Ok(())
        }
    }
}

/// What `amd-smi set` is told.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) enum Change<'a> {
    /// `--num-vf`
    Functions(u32),
    /// `--accelerator-partition`: the number of a profile.
    Compute(usize),
    /// `--memory-partition`
    Memory(&'a str),
}

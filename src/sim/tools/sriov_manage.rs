//! `/usr/lib/nvidia/sriov-manage`, the script of NVIDIA's vGPU host driver: the only way to
//! the virtual functions of its cards.
//!
//! Its messages are those that public guides quote; what it refuses is in the domain notes.

use std::io;

use crate::facts::PciAddress;
use crate::sim::fault;
use crate::sim::host::device_directory;
use crate::sim::machine::{Host, Machine};
use crate::sim::vgpu;

use super::{Call, Outcome, sysfs};

const USAGE: &str = "Usage: /usr/lib/nvidia/sriov-manage <-e|-d> <ssss:bb:dd.f | ALL>\n";

/// Runs the script.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let [switch, address] = call.args else {
        return Ok(Outcome::err(USAGE, 1));
    };
    let on = match switch.as_str() {
        "-e" => true,
        "-d" => false,
        _ => return Ok(Outcome::err(USAGE, 1)),
    };
    let host = call.host;
    host.update(|machine| {
        let cards: Vec<usize> = (0..machine.gpus.len())
            .filter(|index| {
                let gpu = &machine.gpus[*index];
                address == "ALL" || address.parse::<PciAddress>() == gpu.pci.parse()
            })
            .collect();
        if cards.is_empty() {
            return Ok(Outcome::err(format!("No such device: {address}\n"), 1));
        }
        let mut outcome = Outcome::default();
        for card in cards {
            let status = one(host, machine, card, on, &mut outcome.stdout)?;
            outcome.status = outcome.status.max(status);
        }
        vgpu::show(host, machine)?;
        Ok(outcome)
    })
}

fn one(
    host: &Host,
    machine: &mut Machine,
    card: usize,
    on: bool,
    said: &mut Vec<u8>,
) -> io::Result<i32> {
    let mut say = |text: String| said.extend_from_slice(format!("{text}\n").as_bytes());
    let pci = machine.gpus[card].pci.clone();
    let Some(function) = machine.functions.get(&pci).cloned() else {
        say(format!("GPU at {pci} does not support SR-IOV."));
        return Ok(1);
    };
    let now = host.read(&format!("{}/sriov_numvfs", device_directory(&pci)));
    let enabled = now != "0";
    if on == enabled {
        if on {
            say(format!("GPU at {pci} already has VFs enabled."));
        }
        return Ok(0);
    }
    // Whoever has the card open keeps the lock; another tool keeps it for a moment.
    let held = machine.holders_of(card).next().is_some();
    if held || fault::unbind_lock_is_busy(host)? {
        say(format!("Cannot obtain unbindLock for {pci}"));
        return Ok(1);
    }
    if on {
        say(format!("Enabling VFs on {pci}"));
        machine.gpus[card].heterogeneous = false;
        sysfs::put_num_vfs(host, &function, &pci, function.total_vfs)?;
        return Ok(0);
    }
    say(format!("Disabling VFs on {pci}"));
    if vgpu::clear(host, machine, card).is_err() {
        say(format!(
            "Failed to disable VFs on {pci}: Device or resource busy"
        ));
        return Ok(1);
    }
    sysfs::put_num_vfs(host, &function, &pci, 0)?;
    Ok(0)
}

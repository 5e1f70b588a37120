//! ROCm's `amd-smi`, in the shapes of the captures (ROCm 6.4 to 7).

use std::fmt::Write as _;
use std::io;

use rustix::io::Errno;
use serde_json::{Value as Json, json};

use super::{Device, card_uuid, devices};
use crate::sim::amd::{Loaded, load, loaded, set_compute, set_memory, unload};
use crate::sim::fault::{AmdFault, faults};
use crate::sim::machine::Machine;
use crate::sim::tools::{Call, Outcome};

pub(super) fn run(call: &Call<'_>, machine: &Machine) -> io::Result<Outcome> {
    let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
    if words.first() == Some(&"version") {
        let rocm = &machine.spec.amd.rocm;
        return Ok(Outcome::out(
            format!(
                "AMDSMI Tool: 25.2.0+f4ad5ee | AMDSMI Library version: 25.3.0 | ROCm version: {rocm} | amdgpu version: N/A | amd_hsmp version: N/A\n"
            ),
            0,
        ));
    }
    if loaded(call.host) != Loaded::Amdgpu {
        // It ends well with the driver missing.
        return Ok(Outcome::out(
            "ERROR:root:Unable to detect any GPU devices, check amdgpu version and module status (sudo modprobe amdgpu)\n",
            0,
        ));
    }
    match words.first() {
        Some(&"list") => Ok(list(call, machine)),
        Some(&"static") => Ok(fixed(call, machine)),
        Some(&"partition") => Ok(partition(call, machine)),
        Some(&"set") => set(call, machine),
        _ => Ok(Outcome::err("usage: amd-smi [-h]  ...\n", 2)),
    }
}

fn list(call: &Call<'_>, machine: &Machine) -> Outcome {
    let rows = devices(machine);
    if call.has("--json") {
        let rows: Vec<Json> = rows
            .iter()
            .enumerate()
            .map(|(gpu, device)| {
                json!({
                    "gpu": gpu,
                    "bdf": device.bdf(),
                    "uuid": card_uuid(machine, device.card, "00ff"),
                    "kfd_id": kfd_id(device),
                    "node_id": gpu + 2,
                    "partition_id": device.partition,
                })
            })
            .collect();
        return Outcome::out(pretty(&Json::Array(rows)), 0);
    }
    let mut text = String::new();
    for (gpu, device) in rows.iter().enumerate() {
        let _ = write!(
            text,
            "GPU: {gpu}\n    BDF: {}\n    UUID: {}\n    KFD_ID: {}\n    NODE_ID: {}\n    PARTITION_ID: {}\n",
            device.bdf(),
            card_uuid(machine, device.card, "00ff"),
            kfd_id(device),
            gpu + 2,
            device.partition,
        );
        if call.has("-e") {
            let _ = write!(
                text,
                "    RENDER: renderD{}\n    CARD: card{}\n    HSA_ID: {}\n    HIP_ID: {gpu}\n",
                device.render,
                device.render - 128,
                gpu + 2,
            );
        }
        text.push('\n');
    }
    Outcome::out(text, 0)
}

fn kfd_id(device: &Device<'_>) -> u32 {
    18_000 + device.render
}

fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default() + "\n"
}

/// The modes as the tool prints them: none of a card that has one form only.
fn modes<'d>(device: &'d Device<'_>) -> (&'d str, &'d str) {
    match device.card.mode() {
        Some(mode) => (mode.name, &device.card.memory),
        None => ("N/A", "N/A"),
    }
}

fn fixed(call: &Call<'_>, machine: &Machine) -> Outcome {
    let rows = devices(machine);
    if call.has("--json") {
        let rows: Vec<Json> = rows
            .iter()
            .enumerate()
            .map(|(gpu, device)| {
                let (compute, memory) = modes(device);
                json!({
                    "gpu": gpu,
                    "asic": {"market_name": device.card.kind().market, "vendor_id": "0x1002"},
                    "bus": {"bdf": device.bdf()},
                    "driver": {"name": "amdgpu"},
                    "partition": {
                        "compute_partition": compute,
                        "memory_partition": memory,
                        "partition_id": device.partition,
                    },
                    "vram": {"size": {"value": device.card.kind().memory_mib, "unit": "MB"}},
                })
            })
            .collect();
        // Newer versions put the array below a name.
        let old = machine.spec.amd.rocm.starts_with('6');
        let json = match old {
            true => Json::Array(rows),
            false => json!({ "gpu_data": rows }),
        };
        return Outcome::out(pretty(&json), 0);
    }
    let mut text = String::new();
    for (gpu, device) in rows.iter().enumerate() {
        let (compute, memory) = modes(device);
        let _ = write!(
            text,
            "GPU: {gpu}\n    PARTITION:\n        COMPUTE_PARTITION: {compute}\n        MEMORY_PARTITION: {memory}\n        PARTITION_ID: {}\n\n",
            device.partition,
        );
    }
    Outcome::out(text, 0)
}

fn partition(call: &Call<'_>, machine: &Machine) -> Outcome {
    let rows = devices(machine);
    let profile = |device: &Device<'_>| {
        let modes = device.card.kind().modes.iter();
        let at = modes
            .take_while(|mode| mode.name != device.card.compute)
            .count();
        match device.card.mode() {
            Some(_) => at.to_string(),
            None => "N/A".to_owned(),
        }
    };
    if call.has("--accelerator") || call.has("-a") {
        return accelerator(call, machine);
    }
    if call.has("--json") {
        let rows: Vec<Json> = rows
            .iter()
            .enumerate()
            .map(|(gpu, device)| {
                let (compute, memory) = modes(device);
                json!({
                    "gpu_id": gpu,
                    "memory": memory,
                    "accelerator_type": compute,
                    "accelerator_profile_index": profile(device),
                    "partition_id": device.partition,
                })
            })
            .collect();
        return Outcome::out(pretty(&json!({ "current_partition": rows })), 0);
    }
    let mut text = "CURRENT_PARTITION:\nGPU_ID  MEMORY  ACCELERATOR_TYPE  ACCELERATOR_PROFILE_INDEX  PARTITION_ID\n".to_owned();
    for (gpu, device) in rows.iter().enumerate() {
        let (compute, memory) = modes(device);
        let _ = writeln!(
            text,
            "{gpu:<8}{memory:<8}{compute:<18}{:<27}{}",
            profile(device),
            device.partition
        );
    }
    Outcome::out(text, 0)
}

fn accelerator(call: &Call<'_>, machine: &Machine) -> Outcome {
    let mut text = "\nACCELERATOR_PARTITION_PROFILES:\n".to_owned();
    let header = "GPU_ID  PROFILE_INDEX  MEMORY_PARTITION_CAPS  ACCELERATOR_TYPE  PARTITION_ID     NUM_PARTITIONS  NUM_RESOURCES  RESOURCE_INDEX  RESOURCE_TYPE  RESOURCE_INSTANCES  RESOURCES_SHARED  \n";
    if faults(call.host).amd.contains(&AmdFault::NotRoot) {
        text.push_str(
            "\n***************************************************************************\n\
             ** WARNING:                                                              **\n\
             ** ACCELERATOR_PARTITION_PROFILES requires sudo/root permissions to run. **\n\
             ** Please run the command with sudo permissions to get accurate results. **\n\
             ***************************************************************************\n\n",
        );
        text.push_str(header);
        for _ in devices(machine) {
            text.push_str("N/A     N/A            N/A                    N/A               0                N/A             N/A            N/A             N/A            N/A                 N/A\n");
        }
        return Outcome::out(text, 0);
    }
    text.push_str(header);
    for (gpu, device) in devices(machine).iter().enumerate() {
        for (index, mode) in device.card.kind().modes.iter().enumerate() {
            let first = match index {
                0 => gpu.to_string(),
                _ => String::new(),
            };
            let current = mode.name == device.card.compute;
            let name = match current {
                true => format!("{}*", mode.name),
                false => mode.name.to_owned(),
            };
            let id = match current {
                true => device.partition.to_string(),
                false => "N/A".to_owned(),
            };
            let _ = writeln!(
                text,
                "{first:<8}{index:<15}{:<23}{name:<18}{id:<17}{:<16}1              {index:<16}XCC            {:<20}1                 ",
                mode.memory.join(","),
                mode.partitions,
                device.card.kind().xcc / mode.partitions,
            );
        }
    }
    Outcome::out(text, 0)
}

/// `set -C MODE|INDEX` and `set -M MODE`, of one device (`-g N`) or of all.
fn set(call: &Call<'_>, machine: &Machine) -> io::Result<Outcome> {
    let value = |names: [&str; 2]| {
        let mut args = call.args.iter();
        args.find(|arg| names.contains(&arg.as_str()))?;
        args.next().map(String::as_str)
    };
    let only = value(["-g", "--gpu"]).and_then(|gpu| gpu.parse::<usize>().ok());
    let rows = devices(machine);
    let mut cards: Vec<(usize, String)> = Vec::new();
    for (gpu, device) in rows.iter().enumerate() {
        let chosen = only.is_none_or(|only| only == gpu);
        if chosen && cards.iter().all(|(_, pci)| *pci != device.card.pci) {
            cards.push((gpu, device.card.pci.clone()));
        }
    }
    if let Some(wanted) = value(["-C", "--compute-partition"]) {
        let index = wanted.parse::<usize>();
        // Python 3.13 splits the choices of this version into letters.
        let splits = machine.spec.amd.rocm == "6.4.3" && machine.spec.os == "debian-13";
        if splits && index.is_err() {
            return Ok(Outcome::err(argparse(wanted), 2));
        }
        return set_all_compute(call, &cards, wanted, index.ok());
    }
    match value(["-M", "--memory-partition"]) {
        Some(wanted) => set_all_memory(call, machine, &cards, wanted),
        None => Ok(Outcome::err(
            "amd-smi set: error: one of the arguments is required\n",
            2,
        )),
    }
}

fn argparse(wanted: &str) -> String {
    format!(
        "usage: amd-smi set [-h] [-g GPU [GPU ...]] [-f % | -l LEVEL | -P SETPROFILE | -d SCLKMAX |\n                   \
         -C <ACCELERATOR_TYPE> or <PROFILE_INDEX> | -M PARTITION | -o WATTS |\n                   \
         -p POLICY_ID | -x POLICY_ID | -c CLK_TYPE [FREQ_LEVELS ...] |\n                   \
         -L CLK_TYPE LIM_TYPE VALUE | -R STATUS] [--json | --csv] [--file FILE]\n                   [--loglevel LEVEL]\n\
         amd-smi set: error: argument -C/--compute-partition: invalid choice: '{wanted}' (choose from S, P, X, ,,  , D, P, X, ,,  , Q, P, X, ,,  , C, P, X, ,,  , 0, ,,  , 1, ,,  , 2, ,,  , 3)\n"
    )
}

fn refused(code: &str, gpu: usize, pci: &str, wanted: &str, error: &str) -> Outcome {
    Outcome::err(
        format!(
            "amdsmi.amdsmi_exception.AmdSmiLibraryException: Error code:\n{code}\n\n\
             The above exception was the direct cause of the following exception:\n\n\
             {error}: Unable to set accelerator partition to {wanted} on GPU ID: {gpu} BDF:{pci}\n"
        ),
        1,
    )
}

fn set_all_compute(
    call: &Call<'_>,
    cards: &[(usize, String)],
    wanted: &str,
    index: Option<usize>,
) -> io::Result<Outcome> {
    let mut text = String::new();
    for (gpu, pci) in cards {
        let done = call.host.update(|machine| {
            let modes = machine
                .amd_card(pci)
                .map_or(&[][..], |card| card.kind().modes);
            let index = index.or_else(|| modes.iter().position(|mode| mode.name == wanted));
            let mode = index
                .and_then(|index| modes.get(index))
                .map_or("", |mode| mode.name);
            let result = set_compute(call.host, machine, pci, mode);
            Ok((mode.to_owned(), index.unwrap_or(0), result))
        })?;
        let (mode, index, result) = done;
        match result.map_err(|error| Errno::from_io_error(&error)) {
            Ok(()) => {
                let _ = write!(
                    text,
                    "GPU: {gpu}\n    ACCELERATOR_PARTITION: Successfully set accelerator partition to {mode} (profile #{index})\n\n"
                );
            }
            Err(Some(Errno::BUSY)) => {
                return Ok(refused(
                    "30 | AMDSMI_STATUS_BUSY - Device busy",
                    *gpu,
                    pci,
                    wanted,
                    "ValueError",
                ));
            }
            Err(Some(Errno::ACCESS)) => {
                return Ok(Outcome::err(
                    "amdsmi.amdsmi_exception.AmdSmiLibraryException: Error code:\n10 | AMDSMI_STATUS_NO_PERM - Permission Denied\n\n\
                     The above exception was the direct cause of the following exception:\n\nPermissionError: Command requires elevation\n",
                    1,
                ));
            }
            Err(_) => {
                let mut outcome = refused(
                    "        55 | AMDSMI_STATUS_SETTING_UNAVAILABLE - Setting is not available",
                    *gpu,
                    pci,
                    wanted,
                    "ValueError: [AMDSMI_STATUS_SETTING_UNAVAILABLE]",
                );
                outcome.stdout = format!(
                    "Attempted to set accelerator partition to {wanted} (profile #{index} on GPU ID: {gpu} BDF:{pci}\n\n\
                     [AMDSMI_STATUS_SETTING_UNAVAILABLE] Please check amd-smi partition --memory --accelerator for available profiles.\n\
                     Users may need to switch memory partition to another mode in order to enable the desired accelerator partition.\n\n"
                )
                .into_bytes();
                return Ok(outcome);
            }
        }
    }
    Ok(Outcome::out(text, 0))
}

/// Version 6.4 reloads the driver by itself; later ones leave that to the user.
fn set_all_memory(
    call: &Call<'_>,
    machine: &Machine,
    cards: &[(usize, String)],
    wanted: &str,
) -> io::Result<Outcome> {
    let reloads = machine.spec.amd.rocm.starts_with('6');
    let mut text = String::new();
    call.host.update(|machine| {
        for (gpu, pci) in cards {
            set_memory(call.host, machine, pci, wanted)?;
            let _ = write!(
                text,
                "GPU: {gpu}\n  MEMORY_PARTITION: Successfully set memory partition to {wanted}\n\n"
            );
        }
        if reloads {
            unload(call.host, machine, "amdgpu")?;
            load(call.host, machine, "amdgpu")?;
        }
        Ok(())
    })?;
    Ok(Outcome::out(text, 0))
}

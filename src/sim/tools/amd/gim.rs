//! GIM's `amd-smi`. Its return codes are negative, so that a shell sees them modulo 256; status
//! words of its library that no capture shows are named as in AMD's headers.

use std::fmt::Write as _;
use std::fs;
use std::io;

use serde_json::json;

use super::card_uuid;
use crate::sim::amd::{Card, Change, Loaded, loaded, set_modes};
use crate::sim::fault::{AmdFault, faults};
use crate::sim::host::device_directory;
use crate::sim::machine::Machine;
use crate::sim::tools::{Call, Outcome};

pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    if faults(call.host).amd.contains(&AmdFault::NotRoot) {
        let text = "Permission denied. This action requires elevated privileges.\n";
        return Ok(Outcome::out(text, status(-11)));
    }
    let machine = call.host.load()?;
    let word = call.args.first().map_or("", String::as_str);
    if word != "version" && loaded(call.host) != Loaded::Gim {
        let text = "SMI-LIB has returned error -1010 - AMDSMI_STATUS_DRIVER_NOT_LOADED\n";
        return Ok(Outcome::out(text, status(-1010)));
    }
    let cards: Vec<(usize, &Card)> = match only(call) {
        None => machine.amd.cards.iter().enumerate().collect(),
        Some(name) => {
            let found = machine
                .amd
                .cards
                .iter()
                .enumerate()
                .find(|(gpu, card)| card.pci == name || gpu.to_string() == name);
            let Some(found) = found else {
                let text = format!(
                    "Device {name} cannot be found on the system. Run 'help' for more info.\n"
                );
                return Ok(Outcome::out(text, status(-3)));
            };
            vec![found]
        }
    };
    match word {
        "version" => Ok(Outcome::out(
            "VERSION:\n    TOOL_NAME: AMD SMI tool\n    TOOL_VERSION: 29.0.0\n    LIB_VERSION: 35.0.0\n",
            0,
        )),
        "list" | "discovery" => Ok(list(call, &machine, &cards)),
        "static" => Ok(fixed(call, &machine, &cards)),
        "partition" => Ok(partition(call, &cards)),
        "set" => set(call, &cards),
        other => Ok(Outcome::out(
            format!("Command {other} is invalid. Run 'help' for more info.\n"),
            status(-1),
        )),
    }
}

/// What a shell sees of the tool's negative status.
fn status(code: i32) -> i32 {
    code & 0xff
}

/// The value of `--NAME=VALUE` or `--NAME VALUE`.
fn value<'c>(call: &'c Call<'_>, name: &str) -> Option<&'c str> {
    let mut args = call.args.iter();
    while let Some(arg) = args.next() {
        if let Some(rest) = arg.strip_prefix(name) {
            return match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => args.next().map(String::as_str),
                None => continue,
            };
        }
    }
    None
}

fn only<'c>(call: &'c Call<'_>) -> Option<&'c str> {
    value(call, "--gpu")
}

/// Addresses of a card's virtual functions.
fn functions(call: &Call<'_>, card: &Card) -> Vec<String> {
    let directory = device_directory(&card.pci);
    (0..)
        .map_while(|number| {
            let link = call.host.path(format!("{directory}/virtfn{number}"));
            let target = fs::read_link(link).ok()?;
            Some(target.file_name()?.to_str()?.to_owned())
        })
        .collect()
}

fn list(call: &Call<'_>, machine: &Machine, cards: &[(usize, &Card)]) -> Outcome {
    let vf_uuid = |card: &Card, number: usize| card_uuid(machine, card, &format!("67{number:02x}"));
    if call.has("--json") {
        let rows: Vec<_> = cards
            .iter()
            .map(|(gpu, card)| {
                let functions = functions(call, card).into_iter().enumerate();
                let vfs: Vec<_> = functions
                    .map(|(vf, bdf)| json!({"vf": vf, "bdf": bdf, "uuid": vf_uuid(card, vf)}))
                    .collect();
                json!({"gpu": gpu, "bdf": card.pci, "uuid": card_uuid(machine, card, "67ff"), "vfs": vfs})
            })
            .collect();
        return Outcome::out(
            serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n",
            0,
        );
    }
    let mut text = String::new();
    for (gpu, card) in cards {
        let _ = write!(
            text,
            "GPU: {gpu}\n    BDF: {}\n    UUID: {}\n",
            card.pci,
            card_uuid(machine, card, "67ff")
        );
        for (vf, bdf) in functions(call, card).iter().enumerate() {
            let _ = write!(
                text,
                "    VF: {vf}\n        BDF: {bdf}\n        UUID: {}\n",
                vf_uuid(card, vf)
            );
        }
    }
    Outcome::out(text, 0)
}

fn fixed(call: &Call<'_>, machine: &Machine, cards: &[(usize, &Card)]) -> Outcome {
    let all = !call
        .args
        .iter()
        .any(|arg| arg.starts_with("--") && !arg.starts_with("--gpu"));
    let mut text = String::new();
    for (gpu, card) in cards {
        let _ = writeln!(text, "GPU {gpu}:");
        let device = crate::sim::product::bare_card(&card.kind).map_or(0, |kind| kind.device);
        if all {
            let _ = write!(
                text,
                "    ASIC:\n        MARKET_NAME: {}\n        VENDOR_ID: 0x1002\n        DEVICE_ID: 0x{device:04X}\n    BUS:\n        BDF: {}\n",
                card.kind().market.trim_start_matches("AMD Instinct "),
                card.pci,
            );
        }
        if all || call.has("--num-vf") {
            let one_only = faults(call.host).amd.contains(&AmdFault::OneFunction);
            let counts = card.kind().modes.iter().flat_map(|mode| mode.functions);
            let counts = counts.chain(card.kind().plain_functions).copied();
            let most = counts.max().unwrap_or(0);
            let supported = if one_only { most.min(1) } else { most };
            let _ = write!(
                text,
                "    NUM_VF:\n        NUM_VF_SUPPORTED: {supported}\n        NUM_VF_ENABLED: {}\n",
                functions(call, card).len(),
            );
        }
        if all {
            let _ = write!(
                text,
                "    VRAM:\n        TYPE: HBM3\n        SIZE: {} MB\n",
                card.kind().memory_mib
            );
        }
    }
    let _ = machine;
    Outcome::out(text, 0)
}

fn partition(call: &Call<'_>, cards: &[(usize, &Card)]) -> Outcome {
    if call.has("--json") || call.has("--csv") {
        let text = "Parameter --json is not supported on the system. Run 'help' for more info.\n";
        return Outcome::out(text, status(-8));
    }
    let mut text = String::new();
    if call.has("--global") {
        text.push_str("GLOBAL_PARTITION_CONFIG:\nGPU  ACCELERATOR_TYPE  SUPPORTED_VF_MODE  MEMORY_PARTITION_CAPS\n");
        for (gpu, card) in cards {
            for (index, mode) in card.kind().modes.iter().enumerate() {
                let number = if index == 0 {
                    gpu.to_string()
                } else {
                    String::new()
                };
                let counts: Vec<String> = mode.functions.iter().map(u32::to_string).collect();
                let counts = if counts.is_empty() {
                    "N/A".to_owned()
                } else {
                    counts.join(",")
                };
                let _ = writeln!(
                    text,
                    "{number:<9}{:<18}{counts:<19}{}",
                    mode.name,
                    mode.memory.join(",")
                );
            }
        }
        text.push('\n');
        return Outcome::out(text, 0);
    }
    for (gpu, card) in cards {
        let (compute, memory) = match card.mode() {
            Some(mode) => (mode.name, card.memory.as_str()),
            None => ("N/A", "N/A"),
        };
        let _ = write!(
            text,
            "GPU: {gpu}\n    PARTITION:\n        ACCELERATOR_PARTITION: {compute}\n        MEMORY_PARTITION: {memory}\n        PARTITION_ID: 0\n"
        );
    }
    Outcome::out(text, 0)
}

fn set(call: &Call<'_>, cards: &[(usize, &Card)]) -> io::Result<Outcome> {
    let functions = value(call, "--num-vf");
    let compute = value(call, "--accelerator-partition");
    let memory = value(call, "--memory-partition");
    let change = match (functions, compute, memory) {
        (Some(count), ..) => count.parse().ok().map(Change::Functions),
        (_, Some(index), _) => index.parse().ok().map(Change::Compute),
        (_, _, Some(mode)) => Some(Change::Memory(mode)),
        _ => {
            let text = "Command set requires a target argument. Run 'help' for more info.\n";
            return Ok(Outcome::out(text, status(-9)));
        }
    };
    let Some(change) = change else {
        let text = "Value is not of valid type or format. Run 'help' for more info.\n";
        return Ok(Outcome::out(text, status(-5)));
    };
    let mut text = String::new();
    for (gpu, card) in cards {
        let done = call
            .host
            .update(|machine| Ok(set_modes(call.host, machine, &card.pci, change)))?;
        if let Err(word) = done {
            let _ = writeln!(text, "SMI-LIB has returned error -1002 - {word}");
            return Ok(Outcome::out(text, status(-1002)));
        }
        let _ = match change {
            Change::Functions(count) => write!(
                text,
                "GPU: {gpu}\n    NUM_VF_ENABLED: Successfully set enabled VFs to {count}\n"
            ),
            Change::Compute(index) => write!(
                text,
                "GPU: {gpu}\n    ACCELERATOR_PARTITION: Successfully set accelerator partition to profile {index}\n"
            ),
            Change::Memory(mode) => write!(
                text,
                "GPU: {gpu}\n    MEMORY_PARTITION: Successfully set memory partition to {mode}\n"
            ),
        };
    }
    Ok(Outcome::out(text, 0))
}

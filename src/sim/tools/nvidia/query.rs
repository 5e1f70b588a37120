//! `--query-gpu` and `--query-compute-apps`.
//!
//! `data/query-gpu.tsv` holds all fields of 590.48.01 with unit, the value of an
//! H100, the value of an L40S and the older name, as captured; what belongs to a
//! machine's state stands in its place.

use crate::sim::machine::{Gpu, Machine};

use super::list::gpu_name;
use super::mode::COMPUTE_MODES;
use super::{Answer, code};

const FIELDS: &str = include_str!("../../data/query-gpu.tsv");

struct Field {
    name: &'static str,
    unit: &'static str,
    with_mig: &'static str,
    without_mig: &'static str,
    other_name: &'static str,
}

fn fields() -> impl Iterator<Item = Field> {
    FIELDS.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        Some(Field {
            name: columns.next()?,
            unit: columns.next()?,
            with_mig: columns.next()?,
            without_mig: columns.next()?,
            other_name: columns.next()?,
        })
    })
}

fn field(name: &str) -> Option<Field> {
    fields().find(|field| {
        field.name == name || (!field.other_name.is_empty() && field.other_name == name)
    })
}

struct Format {
    header: bool,
    units: bool,
}

fn format_of(text: &str) -> Option<Format> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let known = words
        .iter()
        .all(|word| ["csv", "noheader", "nounits"].contains(word));
    (known && words.contains(&"csv")).then(|| Format {
        header: !words.contains(&"noheader"),
        units: !words.contains(&"nounits"),
    })
}

fn no_format() -> Answer {
    Answer::new(
        "\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help.\n\n",
        code::INVALID_ARGUMENT,
    )
}

/// `--query-gpu=…`. One unknown field ends the whole query.
pub(super) fn gpus(machine: &Machine, selected: &[usize], list: &str, format: &str) -> Answer {
    let Some(format) = format_of(format) else {
        return no_format();
    };
    let mut wanted = Vec::new();
    for name in list.split(',').map(str::trim) {
        match field(name).filter(|field| known_to(machine.branch(), field.name)) {
            // The head shows the name as it was typed.
            Some(field) => wanted.push((name, field)),
            None => {
                let text = format!("Field \"{name}\" is not a valid field to query.\n\n");
                return Answer::new(text, code::INVALID_ARGUMENT);
            }
        }
    }
    let mut answer = Answer::default();
    if format.header {
        let head: Vec<String> = wanted
            .iter()
            .map(|(name, field)| titled(name, field.unit))
            .collect();
        answer.line(head.join(", "));
    }
    for &index in selected {
        let values: Vec<String> = wanted
            .iter()
            .map(|(_, field)| {
                let value = worded(machine.branch(), value(machine, index, field));
                let unit = format!(" {}", field.unit);
                match value.strip_suffix(&unit) {
                    Some(bare) if !format.units && !field.unit.is_empty() => bare.to_owned(),
                    _ => value,
                }
            })
            .collect();
        answer.line(values.join(", "));
    }
    answer
}

/// What is not there, in the words of the branch.
fn worded(branch: u32, value: String) -> String {
    match value.as_str() {
        "[N/A]" | "N/A" if branch < 470 => "[Not Supported]".to_owned(),
        _ => value,
    }
}

fn titled(name: &str, unit: &str) -> String {
    // The head carries the unit also with `nounits`.
    if unit.is_empty() {
        name.to_owned()
    } else {
        format!("{name} [{unit}]")
    }
}

/// Fields that came with a later branch than the oldest that are played.
fn known_to(branch: u32, name: &str) -> bool {
    match name {
        "gpu_recovery_action" | "addressing_mode" => branch >= 535,
        _ if name.starts_with("fabric.") => branch >= 525,
        "compute_cap" => branch >= 510,
        _ if name.starts_with("platform.") || name.starts_with("power_smoothing.") => branch >= 570,
        _ => true,
    }
}

fn value(machine: &Machine, index: usize, field: &Field) -> String {
    let gpu = &machine.gpus[index];
    let Some(product) = machine.product(gpu) else {
        return "[N/A]".to_owned();
    };
    let captured = if product.has_mig() {
        field.with_mig
    } else {
        field.without_mig
    };
    let enabled = |on: bool| if on { "Enabled" } else { "Disabled" }.to_owned();
    let mig_mode = |on: bool| {
        if machine.mode_unreadable && product.has_mig() {
            "[Unknown Error]".to_owned()
        } else if product.has_mig() {
            enabled(on)
        } else {
            "[N/A]".to_owned()
        }
    };
    let address = gpu.pci.as_str();
    match field.name {
        "timestamp" => jiff::Zoned::now()
            .strftime("%Y/%m/%d %H:%M:%S%.3f")
            .to_string(),
        "driver_version" => machine.spec.driver.clone().unwrap_or_default(),
        "count" => machine.gpus.len().to_string(),
        "name" => gpu_name(machine, gpu),
        "serial" => gpu.serial.clone(),
        "uuid" => gpu.uuid.clone(),
        "pci.bus_id" => gpu.bus_id(),
        "pci.domain" => format!("0x{}", address[..4].to_uppercase()),
        "pci.bus" => format!("0x{}", address[5..7].to_uppercase()),
        "pci.device" => format!("0x{}", address[8..10].to_uppercase()),
        "pci.device_id" => device_id(gpu, machine),
        "pci.sub_device_id" => product.subsystem.clone(),
        "index" => index.to_string(),
        "display_mode" if machine.branch() < 580 => "Disabled".to_owned(),
        "persistence_mode" => enabled(gpu.persistence),
        "vbios_version" => product.vbios.clone(),
        "memory.total" => format!("{} MiB", product.memory_mib),
        "memory.used" => format!("{} MiB", used_mib(gpu)),
        "memory.free" => format!("{} MiB", free_mib(machine, gpu)),
        "compute_mode" => COMPUTE_MODES[usize::from(gpu.compute_mode.min(3))].to_owned(),
        "compute_cap" => product.compute_cap.clone(),
        "mig.mode.current" => mig_mode(gpu.mig),
        "mig.mode.pending" => mig_mode(gpu.mig_pending),
        "power.limit" | "enforced.power.limit" | "power.default_limit" | "power.max_limit" => {
            format!("{}.00 W", product.power_w)
        }
        name if name.starts_with("utilization.") => {
            if gpu.mig {
                "[N/A]".to_owned()
            } else {
                "0 %".to_owned()
            }
        }
        name if name.starts_with("gsp.mode.") && machine.branch() < 510 => "[N/A]".to_owned(),
        name if name.starts_with("inforom.")
            && product.name != "NVIDIA H100 80GB HBM3"
            && name.ends_with("img") =>
        {
            "G500.0200.00.04".to_owned()
        }
        _ => captured.to_owned(),
    }
}

/// `pci.device_id`: device, then vendor.
pub(super) fn device_id(gpu: &Gpu, machine: &Machine) -> String {
    let product = machine.product(gpu);
    let id = product
        .and_then(|product| product.device_ids.first())
        .map_or("0x0000", String::as_str);
    format!("0x{}10DE", id.trim_start_matches("0x").to_uppercase())
}

/// Memory of the whole card that is in use: 59 MiB with four instances on a
/// captured H100, nothing without.
pub(super) fn used_mib(gpu: &Gpu) -> u64 {
    if gpu.instances.is_empty() {
        0
    } else {
        gpu.instances
            .iter()
            .map(|instance| instance_used(instance.size))
            .sum()
    }
}

/// Memory in use of an instance of some units of the grid.
pub(super) fn instance_used(size: u32) -> u64 {
    match size {
        1 => 9,
        2 => 17,
        4 => 26,
        size => u64::from(size) * 7,
    }
}

/// The BAR1 aperture: the next power of two above the memory.
pub(super) fn bar1_mib(product: &crate::sim::product::Product) -> u64 {
    product.memory_mib.next_power_of_two()
}

/// Memory of the whole card that is free; 479 MiB are the driver's.
pub(super) fn free_mib(machine: &Machine, gpu: &Gpu) -> u64 {
    let total = machine.product(gpu).map_or(0, |product| product.memory_mib);
    total
        .saturating_sub(reserved_mib(machine, gpu))
        .saturating_sub(used_mib(gpu))
        .saturating_add(1)
}

/// Memory that the driver keeps.
pub(super) fn reserved_mib(machine: &Machine, gpu: &Gpu) -> u64 {
    if machine
        .product(gpu)
        .is_some_and(crate::sim::product::Product::has_mig)
    {
        479
    } else {
        609
    }
}

/// `--query-compute-apps=…`: programs with a CUDA context, and nobody else who
/// has the card open.
pub(super) fn apps(machine: &Machine, selected: &[usize], list: &str, format: &str) -> Answer {
    let Some(format) = format_of(format) else {
        return no_format();
    };
    const KNOWN: [(&str, &str, &str); 10] = [
        ("timestamp", "timestamp", ""),
        ("gpu_name", "gpu_name", ""),
        ("gpu_bus_id", "gpu_bus_id", ""),
        ("gpu_serial", "gpu_serial", ""),
        ("gpu_uuid", "gpu_uuid", ""),
        ("pid", "pid", ""),
        ("process_name", "process_name", ""),
        ("name", "process_name", ""),
        ("used_gpu_memory", "used_gpu_memory", "MiB"),
        ("used_memory", "used_gpu_memory", "MiB"),
    ];
    let mut wanted = Vec::new();
    for name in list.split(',').map(str::trim) {
        match KNOWN.iter().find(|known| known.0 == name) {
            Some(known) => wanted.push(known),
            None => {
                let text = format!("Field \"{name}\" is not a valid field to query.\n\n");
                return Answer::new(text, code::INVALID_ARGUMENT);
            }
        }
    }
    let mut answer = Answer::default();
    if format.header {
        let head: Vec<String> = wanted
            .iter()
            .map(|(_, title, unit)| titled(title, unit))
            .collect();
        answer.line(head.join(", "));
    }
    for &index in selected {
        let gpu = &machine.gpus[index];
        for holder in machine.holders_of(index).filter(|holder| holder.compute) {
            let values: Vec<String> = wanted
                .iter()
                .map(|(_, title, _)| match *title {
                    "timestamp" => jiff::Zoned::now()
                        .strftime("%Y/%m/%d %H:%M:%S%.3f")
                        .to_string(),
                    "gpu_name" => gpu_name(machine, gpu),
                    "gpu_bus_id" => gpu.bus_id(),
                    "gpu_serial" => gpu.serial.clone(),
                    "gpu_uuid" => gpu.uuid.clone(),
                    "pid" => holder.pid.to_string(),
                    "process_name" => holder.command.clone(),
                    _ if format.units => "512 MiB".to_owned(),
                    _ => "512".to_owned(),
                })
                .collect();
            answer.line(values.join(", "));
        }
    }
    answer
}

/// `--help-query-gpu`: the names, without the prose.
pub(super) fn help() -> String {
    let mut text =
        "List of valid properties to query for the switch \"--query-gpu\":\n\n".to_owned();
    for field in fields() {
        text.push_str(&format!("\"{}\"", field.name));
        if !field.other_name.is_empty() {
            text.push_str(&format!(" or \"{}\"", field.other_name));
        }
        text.push_str("\n\n");
    }
    text
}

//! `nvidia-smi vgpu`, and what `-q` says of virtualization.

use crate::sim::machine::{Gpu, Machine};
use crate::sim::spec::VgpuSide;
use crate::sim::vgpu::{self, Model};

use super::{Answer, code, invalid_combination, select};

/// `nvidia-smi vgpu …`
pub(super) fn run(machine: &mut Machine, args: &[&str]) -> Answer {
    let mut id = None;
    let mut supported = false;
    let mut verbose = false;
    let mut mode = None;
    let mut rest = args.iter().copied();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        match name {
            "-s" | "--supported" => supported = true,
            "-v" | "--verbose" => verbose = true,
            "-i" | "--id" => id = inline.or_else(|| rest.next()),
            "-shm" | "--set-vgpu-heterogeneous-mode" => mode = inline.or_else(|| rest.next()),
            _ => return invalid_combination(),
        }
    }
    let selected = match select(machine, id) {
        Ok(selected) => selected,
        Err(answer) => return answer,
    };
    let able: Vec<usize> = selected
        .into_iter()
        .filter(|index| vgpu::model(machine, &machine.gpus[*index]).is_some())
        .collect();
    if able.is_empty() {
        return Answer::new("No supported devices in vGPU mode\n", code::NOT_FOUND);
    }
    match (supported, mode) {
        (true, None) => types(machine, &able, verbose),
        (false, Some(word @ ("0" | "1"))) => heterogeneous(machine, &able, word == "1"),
        _ => invalid_combination(),
    }
}

fn types(machine: &Machine, cards: &[usize], verbose: bool) -> Answer {
    let mut answer = Answer::default();
    for index in cards {
        let gpu = &machine.gpus[*index];
        answer.line(format!("GPU {}", gpu.bus_id()));
        for kind in vgpu::kinds(gpu) {
            if !verbose {
                answer.line(format!("    {}", kind.name));
                continue;
            }
            let shown = |value: Option<u32>| value.map_or("N/A".to_owned(), |v| v.to_string());
            answer.line(format!("    {:<37} : {:#x}", "vGPU Type ID", kind.id));
            for (name, value) in [
                ("Name", kind.name.clone()),
                ("Class", kind.class.clone()),
                ("GPU Instance Profile ID", shown(kind.gi_profile)),
                ("Max Instances", kind.max.to_string()),
                ("Max Instances Per VM", "1".to_owned()),
                ("Max Instances Per GI", shown(kind.max_per_gi)),
                ("FB Memory", format!("{} MiB", kind.framebuffer_mib)),
            ] {
                answer.line(format!("        {name:<33} : {value}"));
            }
        }
    }
    answer
}

/// Only between `sriov-manage -e` and the first vGPU, on drivers that have the mode.
fn heterogeneous(machine: &mut Machine, cards: &[usize], on: bool) -> Answer {
    let mut answer = Answer::default();
    for index in cards {
        let gpu = &machine.gpus[*index];
        let bus = gpu.bus_id();
        let failed =
            |why: &str| format!("Failed to set vGPU heterogeneous mode for GPU {bus}: {why}");
        if !has_mode(machine, gpu) {
            answer.line(failed("Not Supported"));
            answer.fail(code::NOT_SUPPORTED);
        } else if !gpu.vgpus.is_empty() && gpu.heterogeneous != on {
            answer.line(failed("In use by another client"));
            answer.fail(IN_USE);
        } else {
            machine.gpus[*index].heterogeneous = on;
            let word = if on { "Enabled" } else { "Disabled" };
            answer.line(format!("{word} vGPU heterogeneous mode for GPU {bus}."));
        }
    }
    answer
}

/// NVML's number for a card in use, which this command ends with.
const IN_USE: i32 = 19;

fn has_mode(machine: &Machine, gpu: &Gpu) -> bool {
    vgpu::model(machine, gpu) == Some(Model::VendorVfio)
}

/// `Virtualization Mode`, `Host VGPU Mode` and `vGPU Heterogeneous Mode` of `-q`.
pub(super) fn modes(machine: &Machine, gpu: &Gpu) -> [&'static str; 3] {
    if machine.spec.vgpu == Some(VgpuSide::Guest) {
        return ["VGPU", "N/A", "N/A"];
    }
    if vgpu::model(machine, gpu).is_none() {
        return ["Pass-Through", "N/A", "N/A"];
    }
    let host = match machine.functions.contains_key(&gpu.pci) {
        true => "SR-IOV",
        false => "Non SR-IOV",
    };
    let mode = match (has_mode(machine, gpu), gpu.heterogeneous) {
        (false, _) => "N/A",
        (true, true) => "Enabled",
        (true, false) => "Disabled",
    };
    ["Host VGPU", host, mode]
}

/// The lines of `-q` on the licence; nothing outside of virtual machines.
pub(super) fn license(machine: &Machine, gpu: &Gpu) -> String {
    if machine.spec.vgpu != Some(VgpuSide::Guest) {
        return String::new();
    }
    let name = gpu.name.as_deref().unwrap_or_default();
    let product = match name.chars().last() {
        Some('B') => "NVIDIA Virtual PC",
        Some('A') => "NVIDIA Virtual Applications",
        Some('C') => "NVIDIA Virtual Compute Server",
        _ => "NVIDIA RTX Virtual Workstation",
    };
    let status = match machine.licensed {
        true => "Licensed (Expiry: 2027-3-19 7:29:4 GMT)",
        false => "Unlicensed (Unrestricted)",
    };
    let line = |name: &str, value: &str| format!("        {name:<46} : {value}\n");
    format!(
        "    vGPU Software Licensed Product\n{}{}",
        line("Product Name", product),
        line("License Status", status)
    )
}

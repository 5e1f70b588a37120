//! `nvidia-smi -L`, `--version`, `-h` and `nvlink -s`.

use crate::sim::machine::{ComputeInstance, Gpu, GpuInstance, Machine};
use crate::sim::product::{Product, Profile};

use super::{Answer, code};

/// A MIG device: what stands in `-L` below its card.
#[derive(Debug)]
pub(super) struct Device<'m> {
    pub(super) index: usize,
    pub(super) instance: &'m GpuInstance,
    pub(super) compute: &'m ComputeInstance,
    pub(super) profile: &'m Profile,
}

/// The MIG devices of a card: by GPU instance id, then compute instance id.
pub(super) fn devices<'m>(gpu: &'m Gpu, product: &'m Product) -> Vec<Device<'m>> {
    let mut instances: Vec<&GpuInstance> = gpu.instances.iter().collect();
    instances.sort_by_key(|instance| instance.id);
    let mut devices = Vec::new();
    for instance in instances {
        let Some(profile) = product.profile_by_id(instance.profile) else {
            continue;
        };
        for compute in &instance.compute {
            devices.push(Device {
                index: devices.len(),
                instance,
                compute,
                profile,
            });
        }
    }
    devices
}

/// `3g.40gb`, or `1c.3g.40gb` for a part of it.
pub(super) fn device_name(profile: &Profile, compute: &ComputeInstance) -> String {
    if compute.slices == profile.compute {
        profile.name.clone()
    } else {
        format!("{}c.{}", compute.slices, profile.name)
    }
}

/// The name of a card; drivers before 470 leave the maker out.
pub(super) fn gpu_name(machine: &Machine, gpu: &Gpu) -> String {
    let name = gpu
        .name
        .clone()
        .or_else(|| machine.product(gpu).map(|product| product.name.clone()));
    let name = name.unwrap_or_default();
    match name.strip_prefix("NVIDIA ") {
        Some(short) if machine.branch() < 470 => short.to_owned(),
        _ => name,
    }
}

/// `-L`.
pub(super) fn print(machine: &Machine, selected: &[usize]) -> String {
    let mut text = String::new();
    for &index in selected {
        let gpu = &machine.gpus[index];
        text.push_str(&format!(
            "GPU {index}: {} (UUID: {})\n",
            gpu_name(machine, gpu),
            gpu.uuid
        ));
        let Some(product) = machine.product(gpu) else {
            continue;
        };
        for device in devices(gpu, product) {
            let name = device_name(device.profile, device.compute);
            let (instance, compute) = (device.instance.id, device.compute.id);
            text.push_str(&if machine.branch() < 470 {
                let uuid = format!("MIG-{}/{instance}/{compute}", gpu.uuid);
                format!("  MIG {name} Device {}: (UUID: {uuid})\n", device.index)
            } else {
                let uuid = gpu.mig_uuid(instance, compute);
                format!(
                    "  MIG {name:<12}Device {:>2}: (UUID: {uuid})\n",
                    device.index
                )
            });
        }
    }
    text
}

/// `--version`.
pub(super) fn version(machine: &Machine) -> String {
    let driver = machine.spec.driver.as_deref().unwrap_or_default();
    let nvml: Vec<&str> = driver.split('.').take(2).collect();
    format!(
        "NVIDIA-SMI version  : {driver}\nNVML version        : {}\nDRIVER version      : {driver}\nCUDA Version        : {}\n",
        nvml.join("."),
        cuda(machine.branch())
    )
}

/// The CUDA version of a driver branch.
pub(super) fn cuda(branch: u32) -> &'static str {
    match branch {
        ..455 => "11.0",
        455..460 => "11.1",
        460..465 => "11.2",
        465..470 => "11.3",
        470..495 => "11.4",
        495..510 => "11.5",
        510..515 => "11.6",
        515..520 => "11.7",
        520..525 => "11.8",
        525..530 => "12.0",
        530..535 => "12.1",
        535..545 => "12.2",
        545..550 => "12.3",
        550..555 => "12.4",
        555..560 => "12.5",
        560..565 => "12.6",
        565..570 => "12.7",
        570..575 => "12.8",
        575..580 => "12.9",
        580..590 => "13.0",
        590..595 => "13.1",
        _ => "13.2",
    }
}

/// The start of `-h`.
pub(super) fn help(machine: &Machine) -> String {
    let driver = machine.spec.driver.as_deref().unwrap_or_default();
    format!(
        "NVIDIA System Management Interface -- v{driver}\n\n\
         NVSMI provides monitoring information for Tesla and select Quadro devices.\n\
         This is the stand-in of a simulated host: -L, -q, -q -x, --query-gpu, --query-compute-apps,\n\
         -mig, -pm, -c, -r, mig, compute-policy and the plain table.\n"
    )
}

/// `nvlink -s`: refused on cards in MIG mode, no links elsewhere.
pub(super) fn nvlink(machine: &Machine, args: &[&str]) -> Answer {
    if !args.contains(&"-s") && !args.contains(&"--status") {
        return Answer::new(
            "Invalid combination of input arguments. Please run 'nvidia-smi nvlink -h' for help.\n\n",
            code::INVALID_ARGUMENT,
        );
    }
    let mut answer = Answer::default();
    for (index, gpu) in machine.gpus.iter().enumerate() {
        answer.line(format!(
            "GPU {index}: {} (UUID: {})",
            gpu_name(machine, gpu),
            gpu.uuid
        ));
        if gpu.mig {
            answer.line("\t Nvlink queries are not supported for Devices in MIG mode");
        }
    }
    answer
}

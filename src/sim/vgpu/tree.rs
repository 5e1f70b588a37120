//! What sysfs shows of vGPUs: the interface of each function, and the mediated devices.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Kind, Model, can_carry, kinds, model, parents};
use crate::sim::host::device_directory;
use crate::sim::machine::{Gpu, Host, Machine};

/// Brings sysfs to what the machine is.
pub(in crate::sim) fn show(host: &Host, machine: &Machine) -> io::Result<()> {
    if machine.spec.vgpu.is_none() {
        return Ok(());
    }
    sweep(host, machine)?;
    for gpu in &machine.gpus {
        let Some(model) = model(machine, gpu) else {
            continue;
        };
        for parent in parents(host, machine, gpu) {
            match model {
                Model::Mdev => mdev_parent(host, machine, gpu, &parent)?,
                Model::VendorVfio => vendor_parent(host, machine, gpu, &parent)?,
            }
        }
        for vgpu in &gpu.vgpus {
            if let (Some(uuid), Some(group)) = (&vgpu.uuid, vgpu.group) {
                mediated(host, &vgpu.parent, uuid, vgpu.kind, group)?;
            }
        }
    }
    Ok(())
}

/// Takes away what belongs to mediated devices and functions that are gone.
fn sweep(host: &Host, machine: &Machine) -> io::Result<()> {
    let exists = |uuid: &str| {
        let mut vgpus = machine.gpus.iter().flat_map(|gpu| &gpu.vgpus);
        vgpus.any(|vgpu| vgpu.uuid.as_deref() == Some(uuid))
    };
    for name in names(&host.path("/sys/bus/mdev/devices"))? {
        if exists(&name) {
            continue;
        }
        let link = host.path(format!("/sys/bus/mdev/devices/{name}"));
        if let Ok(directory) = fs::canonicalize(&link) {
            if let Some(group) = directory.join("iommu_group").read_link()?.file_name() {
                let group = host.path("/sys/kernel/iommu_groups").join(group);
                fs::remove_dir_all(group)?;
            }
            fs::remove_dir_all(directory)?;
        }
        fs::remove_file(link)?;
    }
    for name in names(&host.path("/sys/class/mdev_bus"))? {
        let link = host.path(format!("/sys/class/mdev_bus/{name}"));
        if !link.exists() {
            fs::remove_file(link)?;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into());
    entries.map(name).collect()
}

fn mdev_parent(host: &Host, machine: &Machine, gpu: &Gpu, parent: &str) -> io::Result<()> {
    let directory = device_directory(parent);
    let bus = &parent[..7];
    link(
        host,
        &format!("/sys/class/mdev_bus/{parent}"),
        &format!("../../devices/pci{bus}/{parent}"),
    )?;
    for kind in kinds(gpu) {
        let folder = format!("{directory}/mdev_supported_types/nvidia-{}", kind.id);
        if !host.path(&folder).exists() {
            let file = |name: &str, text: String| host.write(&format!("{folder}/{name}"), text);
            file("name", format!("{}\n", kind.name))?;
            file("description", description(kind))?;
            file("device_api", "vfio-pci\n".to_owned())?;
            file("create", String::new())?;
        }
        let free = match can_carry(machine, gpu, parent, kind) {
            // A virtual function carries one; a card what is left of it.
            true if parent != gpu.pci => 1,
            true => kind.max - u32::try_from(gpu.vgpus.len()).unwrap_or(0).min(kind.max),
            false => 0,
        };
        host.write(
            &format!("{folder}/available_instances"),
            format!("{free}\n"),
        )?;
    }
    Ok(())
}

/// As the captures of an A2 have it.
fn description(kind: &Kind) -> String {
    let (heads, frames, resolution) = match kind.name.chars().last() {
        Some('B') => (4, 45, "5120x2880"),
        Some('C') => (1, 60, "4096x2400"),
        _ => (4, 60, "7680x4320"),
    };
    format!(
        "num_heads={heads}, frl_config={frames}, framebuffer={}M, max_resolution={resolution}, max_instance={}\n",
        kind.framebuffer_mib, kind.max
    )
}

fn vendor_parent(host: &Host, machine: &Machine, gpu: &Gpu, parent: &str) -> io::Result<()> {
    let folder = format!("{}/nvidia", device_directory(parent));
    let file = |name: &str, text: String| host.write(&format!("{folder}/{name}"), text);
    let current = gpu.vgpus.iter().find(|vgpu| vgpu.parent == parent);
    // Some drivers print a heading and some do not; later ones were seen without.
    let mut list = match machine.branch() < 570 {
        true => "ID    : vGPU Name\n".to_owned(),
        false => String::new(),
    };
    for kind in kinds(gpu)
        .iter()
        .filter(|kind| can_carry(machine, gpu, parent, kind))
    {
        list.push_str(&format!("{:<5} : {}\n", kind.id, kind.name));
    }
    file("creatable_vgpu_types", list)?;
    file(
        "current_vgpu_type",
        format!("{}\n", current.map_or(0, |vgpu| vgpu.kind)),
    )?;
    for name in [
        "gpu_instance_id",
        "placement_id",
        "vgpu_params",
        "warm_update",
    ] {
        if !host.path(format!("{folder}/{name}")).exists() {
            file(name, "\n".to_owned())?;
        }
    }
    Ok(())
}

fn mediated(host: &Host, parent: &str, uuid: &str, kind: u32, group: u32) -> io::Result<()> {
    let bus = &parent[..7];
    let directory = format!("{}/{uuid}", device_directory(parent));
    if host.path(&directory).exists() {
        return Ok(());
    }
    host.write(&format!("{directory}/nvidia/vm_name"), "\n")?;
    host.write(&format!("{directory}/nvidia/vgpu_params"), "\n")?;
    host.write(&format!("{directory}/remove"), "")?;
    link(
        host,
        &format!("{directory}/mdev_type"),
        &format!("../mdev_supported_types/nvidia-{kind}"),
    )?;
    link(
        host,
        &format!("{directory}/iommu_group"),
        &format!("../../../../kernel/iommu_groups/{group}"),
    )?;
    link(
        host,
        &format!("/sys/kernel/iommu_groups/{group}/devices/{uuid}"),
        &format!("../../../../devices/pci{bus}/{parent}/{uuid}"),
    )?;
    link(
        host,
        &format!("/sys/bus/mdev/devices/{uuid}"),
        &format!("../../../devices/pci{bus}/{parent}/{uuid}"),
    )
}

fn link(host: &Host, path: &str, target: &str) -> io::Result<()> {
    let path = host.path(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match symlink(target, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

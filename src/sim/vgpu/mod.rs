//! vGPU on a simulated host: which types a card offers, what can be made now, and
//! what making and removing one does.
//!
//! `tree` shows it in sysfs, `attribute` answers writes to it. The types are those of
//! captures (`data/vgpu_types.json`; values that no capture shows are marked `estimated`).

use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::host::device_directory;
use super::machine::{Gpu, Host, Machine};
use super::spec::VgpuSide;

mod attribute;
mod tree;

pub(super) use attribute::write;
pub(super) use tree::show;

/// A type of vGPU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Kind {
    /// Number of `nvidia-742`, and what `current_vgpu_type` takes.
    pub(super) id: u32,
    /// Full name.
    pub(super) name: String,
    /// `Quadro`, `NVS` or `Compute`.
    pub(super) class: String,
    /// Framebuffer in MiB.
    pub(super) framebuffer_mib: u64,
    /// Most of them on an empty card.
    pub(super) max: u32,
    /// Profile of the GPU instances that it lives in.
    pub(super) gi_profile: Option<u32>,
    /// Most of them in one GPU instance.
    pub(super) max_per_gi: Option<u32>,
    /// Whether no capture shows all of it.
    #[serde(default)]
    #[allow(
        dead_code,
        reason = "says where a number is from, for readers of the file"
    )]
    pub(super) estimated: bool,
}

/// A vGPU that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// The function that carries it.
    pub(super) parent: String,
    /// Id of its type.
    pub(super) kind: u32,
    /// Its UUID, where it is a mediated device.
    pub(super) uuid: Option<String>,
    /// IOMMU group of a mediated device.
    pub(super) group: Option<u32>,
}

/// How vGPUs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// `mdev_supported_types`.
    Mdev,
    /// `nvidia/current_vgpu_type`.
    VendorVfio,
}

static KINDS: LazyLock<BTreeMap<String, Vec<Kind>>> = LazyLock::new(|| {
    // The file is part of the binary; a test reads it.
    serde_json::from_str(include_str!("../data/vgpu_types.json")).unwrap_or_default()
});

/// The types that a card's host driver knows.
pub(super) fn kinds(gpu: &Gpu) -> &'static [Kind] {
    KINDS.get(&gpu.product).map_or(&[], Vec::as_slice)
}

fn kind(gpu: &Gpu, id: u32) -> Option<&'static Kind> {
    kinds(gpu).iter().find(|kind| kind.id == id)
}

/// How vGPUs are made on the card; none where the host driver is not installed or knows no
/// type for it. Ada and later have no mediated devices from vGPU 17 (R550) on, earlier cards
/// lose them with R580 on Linux 6.8.
pub(super) fn model(machine: &Machine, gpu: &Gpu) -> Option<Model> {
    if machine.spec.vgpu != Some(VgpuSide::Host) || kinds(gpu).is_empty() {
        return None;
    }
    let architecture = machine.product(gpu)?.architecture.as_str();
    let early = ["Pascal", "Volta", "Turing", "Ampere"].contains(&architecture);
    let mut numbers = machine.spec.kernel.split(['.', '-']);
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    let without_mdev = (number(), number()) >= (Some(6), Some(8)) && machine.branch() >= 580;
    match early {
        true if without_mdev => Some(Model::VendorVfio),
        true => Some(Model::Mdev),
        false if machine.branch() >= 550 => Some(Model::VendorVfio),
        false => Some(Model::Mdev),
    }
}

/// The functions that can carry a vGPU: virtual ones, or the card itself where it has none.
pub(super) fn parents(host: &Host, machine: &Machine, gpu: &Gpu) -> Vec<String> {
    if !machine.functions.contains_key(&gpu.pci) {
        return vec![gpu.pci.clone()];
    }
    let directory = device_directory(&gpu.pci);
    (0..)
        .map_while(|number| {
            let link = host.path(format!("{directory}/virtfn{number}"));
            let target = link.read_link().ok()?;
            Some(target.file_name()?.to_str()?.to_owned())
        })
        .collect()
}

/// Whether one more of a type can be made on the card.
pub(super) fn has_room(machine: &Machine, gpu: &Gpu, kind: &Kind) -> bool {
    let of_kind = |id: u32| gpu.vgpus.iter().filter(|vgpu| vgpu.kind == id).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let limit = machine
        .functions
        .get(&gpu.pci)
        .map_or(u32::MAX, |f| f.total_vfs);
    if number(gpu.vgpus.len()) >= limit {
        return false;
    }
    if let Some(profile) = kind.gi_profile {
        let instances = gpu.instances.iter().filter(|gi| gi.profile == profile);
        let places = number(instances.count()) * kind.max_per_gi.unwrap_or(1);
        let others = kinds(gpu)
            .iter()
            .filter(|other| other.gi_profile == Some(profile));
        return gpu.mig && number(others.map(|other| of_kind(other.id)).sum()) < places;
    }
    if gpu.mig || number(of_kind(kind.id)) >= kind.max {
        return false;
    }
    let sizes = gpu
        .vgpus
        .iter()
        .filter_map(|vgpu| self::kind(gpu, vgpu.kind));
    let sizes: Vec<u64> = sizes.map(|kind| kind.framebuffer_mib).collect();
    let alike = sizes.iter().all(|size| *size == kind.framebuffer_mib);
    let whole = kinds(gpu).iter().map(|kind| kind.framebuffer_mib).max();
    let used: u64 = sizes.iter().sum();
    (alike || gpu.heterogeneous) && used + kind.framebuffer_mib <= whole.unwrap_or(0)
}

/// Whether a GPU instance cannot go because vGPUs live in all of its profile.
pub(super) fn fill(gpu: &Gpu, instance: u32) -> bool {
    let profile = |id: u32| {
        gpu.instances
            .iter()
            .find(|gi| gi.id == id)
            .map(|gi| gi.profile)
    };
    let Some(profile) = profile(instance) else {
        return false;
    };
    let inhabitants = gpu.vgpus.iter().filter_map(|vgpu| kind(gpu, vgpu.kind));
    let inhabitants: Vec<&Kind> = inhabitants
        .filter(|kind| kind.gi_profile == Some(profile))
        .collect();
    let room = inhabitants
        .iter()
        .filter_map(|kind| kind.max_per_gi)
        .min()
        .unwrap_or(1);
    let others = gpu
        .instances
        .iter()
        .filter(|gi| gi.profile == profile)
        .count()
        - 1;
    inhabitants.len() > others * room as usize
}

/// Whether a type can be made on this function now.
fn can_carry(machine: &Machine, gpu: &Gpu, parent: &str, kind: &Kind) -> bool {
    let taken = gpu.vgpus.iter().any(|vgpu| vgpu.parent == parent);
    // A card without virtual functions carries all of its vGPUs itself.
    (!taken || parent == gpu.pci) && has_room(machine, gpu, kind)
}

/// The card that a function belongs to.
fn card_of(host: &Host, machine: &Machine, function: &str) -> Option<usize> {
    machine
        .gpus
        .iter()
        .position(|gpu| parents(host, machine, gpu).iter().any(|p| p == function))
}

/// Whether a virtual machine runs on a vGPU.
fn is_used(host: &Host, machine: &Machine, vgpu: &Device) -> bool {
    let node = node(host, vgpu);
    machine.holders.iter().any(|holder| holder.node == node)
}

/// The device node of a vGPU.
pub(super) fn node(host: &Host, vgpu: &Device) -> Option<String> {
    let group = vgpu.group.map(|group| group.to_string()).or_else(|| {
        let link = host.path(format!("{}/iommu_group", device_directory(&vgpu.parent)));
        Some(link.read_link().ok()?.file_name()?.to_str()?.to_owned())
    })?;
    Some(format!("/dev/vfio/{group}"))
}

/// Makes a vGPU. The kernel documents no errno for these; ours are of the same kind.
fn create(
    host: &Host,
    machine: &mut Machine,
    parent: &str,
    id: u32,
    uuid: Option<&str>,
) -> io::Result<()> {
    let Some(index) = card_of(host, machine, parent) else {
        return Err(Errno::NODEV.into());
    };
    let all = || machine.gpus.iter().flat_map(|gpu| &gpu.vgpus);
    if uuid.is_some() && all().any(|vgpu| vgpu.uuid.as_deref() == uuid) {
        return Err(Errno::EXIST.into());
    }
    let group = uuid.map(|_| all().filter_map(|vgpu| vgpu.group).max().unwrap_or(8999) + 1);
    let gpu = &machine.gpus[index];
    let Some(kind) = kind(gpu, id) else {
        return Err(Errno::INVAL.into());
    };
    if !can_carry(machine, gpu, parent, kind) {
        return Err(Errno::NOSPC.into());
    }
    machine.gpus[index].vgpus.push(Device {
        parent: parent.to_owned(),
        kind: id,
        uuid: uuid.map(str::to_owned),
        group,
    });
    Ok(())
}

/// Takes vGPUs away, which nobody may use.
fn remove(host: &Host, machine: &mut Machine, chosen: impl Fn(&Device) -> bool) -> io::Result<()> {
    let mut chosen_all = machine.gpus.iter().flat_map(|gpu| &gpu.vgpus);
    if chosen_all.any(|vgpu| chosen(vgpu) && is_used(host, machine, vgpu)) {
        return Err(Errno::BUSY.into());
    }
    for gpu in &mut machine.gpus {
        gpu.vgpus.retain(|vgpu| !chosen(vgpu));
    }
    Ok(())
}

/// Takes all vGPUs of a card away, as their virtual functions go.
pub(super) fn clear(host: &Host, machine: &mut Machine, card: usize) -> io::Result<()> {
    let functions = parents(host, machine, &machine.gpus[card]);
    remove(host, machine, |vgpu| functions.contains(&vgpu.parent))?;
    machine.gpus[card].heterogeneous = false;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::product::PRODUCTS;

    #[test]
    fn the_table_of_types_reads_and_its_cards_exist() {
        assert!(KINDS.len() > 3);
        for (key, kinds) in KINDS.iter() {
            let product = &PRODUCTS[key];
            for kind in kinds {
                let of_card = |id| product.profile_by_id(id).is_some();
                assert!(kind.gi_profile.is_none_or(of_card), "{key} {}", kind.name);
                assert!(
                    kind.max > 0 && kind.framebuffer_mib > 0,
                    "{key} {}",
                    kind.name
                );
            }
        }
    }
}

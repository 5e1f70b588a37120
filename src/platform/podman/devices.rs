//! What a host's cards offer to containers once its slices are as wanted, and who gets what.
//!
//! A device has the name under which the container device interface (CDI) knows it, which
//! depends on nothing that is counted anew at a boot. A MIG device's UUID is not known before
//! the device is made: such a name is looked up on the host when the run gets there.

use std::collections::BTreeMap;

use crate::catalog::Technology;
use crate::desired::{DevicePlugin, DeviceRef, Located, index_of};
use crate::error::{Diagnostic, Problems};
use crate::facts::{AmdDriver, Fact, Gpu, GpuInstance, PciAddress, Vendor};
use crate::platform::View;
use crate::strategy::{CardCensus, census};

use super::wanted::{Container, PodmanWanted, SliceAsk, Which};

/// Something that a container can be given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Device {
    pub(super) vendor: Vendor,
    /// The card that it is, or that it is a part of.
    pub(super) card: PciAddress,
    /// The card as messages call it.
    pub(super) label: String,
    pub(super) part: Part,
    /// Whether hardware keeps it apart from what others get of the card.
    pub(super) name: Name,
    /// How many containers may have it at once: more than one where its time is shared.
    pub(super) shares: u32,
}

/// What of a card.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// All of it.
    Card,
    /// A MIG device of this profile.
    Mig(String),
    /// A compute partition.
    Partition(u32),
    /// A virtual function, counted from 1.
    Function(u32),
}

/// The name in its CDI kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Name {
    Fixed(String),
    /// The MIG device that is the `ordinal`th of its profile on the card, counted from 1 in the
    /// driver's order; `now` is its UUID where it is there already and stays.
    Mig {
        card: String,
        profile: String,
        ordinal: u32,
        now: Option<String>,
    },
}

impl Device {
    /// The CDI kind.
    pub(super) fn kind(&self) -> String {
        format!("{}.com/gpu", self.vendor)
    }

    /// What it is, in words.
    pub(super) fn what(&self) -> String {
        match &self.part {
            Part::Card => self.label.clone(),
            Part::Mig(profile) => format!("MIG device {profile} of {}", self.label),
            Part::Partition(number) => format!("partition {number} of {}", self.label),
            Part::Function(number) => format!("virtual function {number} of {}", self.label),
        }
    }
}

/// What a host's cards offer, by address, and why some offer nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Offer {
    pub(super) devices: Vec<Device>,
    pub(super) without: Vec<String>,
    /// Cards whose slices this plan changes.
    pub(super) pending: Vec<PciAddress>,
}

/// Looks at the cards as they will be.
pub(super) fn offered(view: &View<'_>) -> Offer {
    let mut offer = Offer::default();
    for card in census(view.decisions, view.facts) {
        let Some(gpu) = view.facts.gpus.iter().find(|gpu| gpu.pci == card.pci) else {
            continue;
        };
        // Nothing that could not be compared stays as it is for sure.
        if card.technology.is_some() && card.drifted != Some(false) {
            offer.pending.push(gpu.pci);
        }
        match of_card(gpu, &card, offer.pending.contains(&gpu.pci), view) {
            Ok(mut devices) => offer.devices.append(&mut devices),
            Err(why) => offer.without.push(format!("{}: {why}", gpu.label())),
        }
    }
    offer
}

fn of_card(
    gpu: &Gpu,
    card: &CardCensus,
    pending: bool,
    view: &View<'_>,
) -> Result<Vec<Device>, String> {
    if card.technology == Some(Technology::Passthrough)
        || (card.technology.is_none() && gpu.driver.known().is_some_and(|name| name == "vfio-pci"))
    {
        return Err("it goes to virtual machines".to_owned());
    }
    let slices: Vec<(Technology, &str, u32)> = card
        .rows
        .iter()
        .map(|row| {
            (
                row.technology,
                &*row.profile,
                row.wanted.unwrap_or(row.found),
            )
        })
        .filter(|(_, _, count)| *count > 0)
        .collect();
    match gpu.vendor {
        Vendor::Nvidia => of_nvidia(gpu, &slices, pending, view),
        Vendor::Amd => of_amd(gpu, &slices),
        Vendor::Intel => of_intel(gpu, &slices),
    }
}

fn of_nvidia(
    gpu: &Gpu,
    slices: &[(Technology, &str, u32)],
    pending: bool,
    view: &View<'_>,
) -> Result<Vec<Device>, String> {
    let nvidia = match &gpu.nvidia {
        Fact::Known(nvidia) => nvidia,
        Fact::Absent => return Err("NVIDIA's driver does not have it".to_owned()),
        Fact::Unknown(why) => return Err(why.clone()),
    };
    let uuid = nvidia.uuid.0.clone();
    let found = nvidia
        .mig
        .known()
        .and_then(|mig| mig.instances.known())
        .map_or(&[][..], Vec::as_slice);
    let mut devices = Vec::new();
    for (_, profile, count) in slices.iter().filter(|(of, _, _)| *of == Technology::Mig) {
        let uuids = mig_uuids(found, profile);
        for ordinal in 1..=*count {
            let now = uuids.get(ordinal as usize - 1).cloned();
            devices.push(Device {
                name: Name::Mig {
                    card: uuid.clone(),
                    profile: (*profile).to_owned(),
                    ordinal,
                    now: now.filter(|_| !pending),
                },
                ..device(gpu, Part::Mig((*profile).to_owned()), String::new())
            });
        }
    }
    if !devices.is_empty() {
        return Ok(devices);
    }
    if slices
        .iter()
        .any(|(of, _, _)| [Technology::Sriov, Technology::Vgpu].contains(of))
    {
        return Err("its slices are for virtual machines".to_owned());
    }
    let mut whole = device(gpu, Part::Card, uuid);
    whole.shares = shares(gpu, view);
    Ok(vec![whole])
}

/// UUIDs of the MIG devices of a profile in the driver's order, which is that of the ids.
fn mig_uuids(instances: &[GpuInstance], profile: &str) -> Vec<String> {
    let mut found: Vec<(u32, u32, String)> = Vec::new();
    for instance in instances {
        for compute in instance.compute.known().into_iter().flatten() {
            if compute.profile == profile
                && let Some(uuid) = compute.uuid.known()
            {
                found.push((instance.gi_id, compute.ci_id, uuid.clone()));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, uuid)| uuid).collect()
}

/// As many containers as the variables divide its time or its processes for.
fn shares(gpu: &Gpu, view: &View<'_>) -> u32 {
    let technology = view
        .decisions
        .iter()
        .find(|decision| decision.pci == gpu.pci)
        .map(|decision| decision.technology);
    match technology {
        Some(Technology::TimeSlicing | Technology::Mps) => u32::MAX,
        _ => 1,
    }
}

fn of_amd(gpu: &Gpu, slices: &[(Technology, &str, u32)]) -> Result<Vec<Device>, String> {
    let amd = match &gpu.amd {
        Fact::Known(amd) if amd.driver == AmdDriver::Amdgpu => amd,
        Fact::Known(_) => return Err("its functions are for virtual machines".to_owned()),
        Fact::Absent => return Err("no driver for containers has it".to_owned()),
        Fact::Unknown(why) => return Err(why.clone()),
    };
    if amd.partitions.known().is_some_and(Vec::is_empty) {
        return Err("the compute driver (/dev/kfd) does not list it".to_owned());
    }
    let count: u32 = slices
        .iter()
        .filter(|(of, _, _)| *of == Technology::Partition)
        .map(|(_, _, count)| count)
        .sum();
    let found = amd.partitions.known().map_or(1, Vec::len);
    let count = match (count, u32::try_from(found)) {
        (0, Ok(found)) => found,
        (count, _) => count,
    };
    if count <= 1 {
        return Ok(vec![device(gpu, Part::Card, gpu.pci.to_string())]);
    }
    let part = |number: u32| {
        let name = format!("{}-p{number}", gpu.pci);
        device(gpu, Part::Partition(number), name)
    };
    Ok((0..count).map(part).collect())
}

fn of_intel(gpu: &Gpu, slices: &[(Technology, &str, u32)]) -> Result<Vec<Device>, String> {
    if let Fact::Unknown(why) = &gpu.intel {
        return Err(why.clone());
    }
    let functions: u32 = slices
        .iter()
        .filter(|(of, _, _)| *of == Technology::Sriov)
        .map(|(_, _, count)| count)
        .sum();
    if functions == 0 {
        return match gpu.intel.known() {
            Some(intel) if !intel.render_nodes.is_empty() => {
                Ok(vec![device(gpu, Part::Card, gpu.pci.to_string())])
            }
            _ => Err("it has no render node".to_owned()),
        };
    }
    // Those that its own driver has on this host; others went to virtual machines.
    let own = |number: u32| {
        let drivers = gpu.sriov.known().map(|sriov| &sriov.vfs);
        let driver = drivers.and_then(|vfs| vfs.get(number as usize - 1));
        driver.is_none_or(|(_, driver)| driver.known().is_none_or(|name| name != "vfio-pci"))
    };
    let function = |number: u32| {
        let name = format!("{}-vf{number}", gpu.pci);
        device(gpu, Part::Function(number), name)
    };
    let found: Vec<Device> = (1..=functions)
        .filter(|number| own(*number))
        .map(function)
        .collect();
    match found.is_empty() {
        true => Err("all its functions went to virtual machines".to_owned()),
        false => Ok(found),
    }
}

fn device(gpu: &Gpu, part: Part, name: String) -> Device {
    Device {
        vendor: gpu.vendor,
        card: gpu.pci,
        label: gpu.label(),
        part,
        name: Name::Fixed(name),
        shares: 1,
    }
}

/// The devices of each container, in the order of `containers`.
///
/// # Errors
/// Names each container that asks for what is not there, and what there is.
pub(super) fn shared_out(
    wanted: &PodmanWanted,
    offer: &Offer,
    view: &View<'_>,
) -> Result<Vec<Vec<Device>>, Problems> {
    let mut problems = Problems::default();
    let mut left: Vec<u32> = offer.devices.iter().map(|device| device.shares).collect();
    let mut given: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    // Who names a device must not find it taken by who takes any.
    let rank = |ask: &SliceAsk| match ask.which {
        Which::Card(_) | Which::Profile(_, Some(_)) => 0,
        Which::Profile(_, None) => 1,
        Which::Any => 2,
    };
    for turn in 0..3 {
        for (number, container) in wanted.containers.iter().enumerate() {
            for ask in container.gpu.iter().filter(|ask| rank(ask) == turn) {
                let got = given.entry(number).or_default();
                if let Err(problem) = take(ask, container, offer, view, &mut left, got) {
                    problems.push(problem);
                }
            }
        }
    }
    let devices = (0..wanted.containers.len()).map(|number| {
        let got = given.get(&number).map_or(&[][..], Vec::as_slice);
        got.iter()
            .map(|place| offer.devices[*place].clone())
            .collect()
    });
    problems.or(devices.collect())
}

fn take(
    ask: &SliceAsk,
    container: &Container,
    offer: &Offer,
    view: &View<'_>,
    left: &mut [u32],
    got: &mut Vec<usize>,
) -> Result<(), Diagnostic> {
    let meant: Vec<usize> = (0..offer.devices.len())
        .filter(|place| is_meant(ask, &offer.devices[*place], view))
        .collect();
    let shared = view.desired.policy.value == crate::desired::GpuPolicy::Shared;
    for taken in 0..ask.count.value {
        let free = |place: &&usize| !got.contains(place) && left[**place] > 0;
        // With `gpu_policy: shared`, who asks for a whole card may be given one twice.
        let again = |place: &&usize| {
            shared && !got.contains(place) && offer.devices[**place].part == Part::Card
        };
        let Some(place) = meant.iter().find(free).or_else(|| meant.iter().find(again)) else {
            return Err(missing(ask, taken, &meant, container, offer));
        };
        left[*place] = left[*place].saturating_sub(1);
        got.push(*place);
    }
    Ok(())
}

fn is_meant(ask: &SliceAsk, device: &Device, view: &View<'_>) -> bool {
    let plugin = &view.desired.integration.device_plugin;
    let of_plugin = !plugin.is_written()
        || match plugin.value {
            DevicePlugin::Nvidia => device.vendor == Vendor::Nvidia,
            DevicePlugin::Amd => device.vendor == Vendor::Amd,
            DevicePlugin::Intel => device.vendor == Vendor::Intel,
        };
    match &ask.which {
        Which::Any => of_plugin,
        Which::Card(card) => is_of(device, card, view),
        Which::Profile(profile, card) => {
            matches!(&device.part, Part::Mig(name) if *name == profile.value)
                && card.as_ref().is_none_or(|card| is_of(device, card, view))
        }
    }
}

fn is_of(device: &Device, card: &Located<DeviceRef>, view: &View<'_>) -> bool {
    let gpus = &view.facts.gpus;
    let Some(place) = gpus.iter().position(|gpu| gpu.pci == device.card) else {
        return false;
    };
    card.value.names(&gpus[place], index_of(gpus, place))
}

/// What is not there, and what there is.
fn missing(
    ask: &SliceAsk,
    taken: u32,
    meant: &[usize],
    container: &Container,
    offer: &Offer,
) -> Diagnostic {
    let what = match &ask.which {
        Which::Any => "a slice or card".to_owned(),
        Which::Card(card) => format!("GPU {}", card.value),
        Which::Profile(profile, None) => format!("a MIG device {}", profile.value),
        Which::Profile(profile, Some(card)) => {
            format!("a MIG device {} of GPU {}", profile.value, card.value)
        }
    };
    let name = &container.name.value;
    let message = match (meant.len(), taken) {
        (0, _) => format!("container `{name}` asks for {what}, which this host will not have"),
        (all, _) => format!(
            "container `{name}` asks for {} of {what}, and {taken} of {all} are left for it",
            ask.count.value
        ),
    };
    let problem = Diagnostic::error(message).hint(there_is(offer));
    match &ask.origin {
        Some(origin) => problem.at(origin),
        None => problem,
    }
}

/// What containers can be given here, in a sentence.
pub(super) fn there_is(offer: &Offer) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for device in &offer.devices {
        let kind = match &device.part {
            Part::Card => device.label.clone(),
            Part::Mig(profile) => format!("MIG device {profile} of {}", device.label),
            Part::Partition(_) => format!("partition of {}", device.label),
            Part::Function(_) => format!("virtual function of {}", device.label),
        };
        *counts.entry(kind).or_default() += 1;
    }
    let listed: Vec<String> = counts
        .iter()
        .map(|(kind, count)| match count {
            1 => kind.clone(),
            _ => format!("{count} × {kind}"),
        })
        .collect();
    let mut text = match listed.is_empty() {
        true => "containers can be given nothing here".to_owned(),
        false => format!("there is {}", listed.join(", ")),
    };
    for why in &offer.without {
        text.push_str("; not ");
        text.push_str(why);
    }
    text
}

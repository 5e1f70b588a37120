//! Container device specifications: NVIDIA's by its own tool, AMD's and Intel's by the shell
//! functions of `strategy/cdi_spec.sh`, which write them again at boot and after each change
//! of the slices.

use std::collections::BTreeSet;

use crate::error::Diagnostic;
use crate::facts::Vendor;
use crate::platform::Wish;
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Step, StepId};

use super::devices::{Device, Name, Offer};
use super::look::Seen;

/// Where NVIDIA's tool writes where it has no unit for it.
pub(super) const NVIDIA_FILE: &str = "/etc/cdi/nvidia.yaml";
/// Where we write the specification of a vendor's cards that has no tool for it.
pub(super) fn own_file(vendor: Vendor) -> String {
    format!("/etc/cdi/deploy-{vendor}.json")
}

/// The tool's unit.
pub(super) const NVIDIA_UNIT: &str = "nvidia-cdi-refresh.service";

/// What makes the specifications name these devices.
pub(super) fn wishes(devices: &[&Device], offer: &Offer, seen: &Seen) -> Rendered<Vec<Wish>> {
    let mut wishes = Vec::new();
    let of = |vendor: Vendor| -> Vec<&Device> {
        let mine = devices.iter().filter(|device| device.vendor == vendor);
        mine.copied().collect()
    };
    let nvidia = of(Vendor::Nvidia);
    if !nvidia.is_empty() {
        wishes.extend(of_slices(&nvidia, offer, seen)?);
    }
    for vendor in [Vendor::Amd, Vendor::Intel] {
        let mine = of(vendor);
        if mine.is_empty() {
            continue;
        }
        if vendor == Vendor::Amd && seen.programs.contains("amd-ctk") {
            let text = "amd-ctk is installed: what it says in /etc/cdi/amd.json stays as it is; containers of `gpu_podman` take names that do not change with the cards' order";
            wishes.push(Wish::Note(text.to_owned()));
        }
        wishes.extend(by_us(vendor, &mine, offer, seen)?);
    }
    if !wishes.is_empty() {
        wishes.insert(0, super::folder("/etc/cdi"));
    }
    Ok(wishes)
}

/// What a vendor's specification lacks of what these devices are called, where their cards are
/// sliced as they should be.
pub(super) fn lacking(
    vendor: Vendor,
    devices: &[&Device],
    offer: &Offer,
    seen: &Seen,
) -> Rendered<Option<String>> {
    let wishes = match vendor {
        Vendor::Nvidia => of_slices(devices, offer, seen)?.is_some(),
        Vendor::Amd | Vendor::Intel => !by_us(vendor, devices, offer, seen)?.is_empty(),
    };
    let is_missing = match vendor {
        Vendor::Nvidia => seen.nvidia_names.is_empty(),
        Vendor::Amd | Vendor::Intel => seen.spec(vendor) == "absent",
    };
    let state = match is_missing {
        true => "is missing",
        false => "is stale: it does not name what the cards are now",
    };
    Ok(wishes.then(|| format!("the CDI specification of {vendor}'s cards {state}")))
}

fn by_us(vendor: Vendor, devices: &[&Device], offer: &Offer, seen: &Seen) -> Rendered<Vec<Wish>> {
    let pending = devices
        .iter()
        .any(|device| offer.pending.contains(&device.card));
    let names: BTreeSet<&str> = devices
        .iter()
        .filter_map(|device| match &device.name {
            Name::Fixed(name) => Some(name.as_str()),
            Name::Mig { .. } => None,
        })
        .collect();
    let has_nodes = |name: &&str| {
        let key = (vendor.to_string(), (*name).to_owned());
        seen.nodes.contains_key(&key)
    };
    if !pending && let Some(name) = names.iter().find(|name| !has_nodes(name)) {
        let message =
            format!("{vendor}'s {name} has no node below /dev/dri that a container could be given");
        let hint = "see that its driver is loaded: `ls /dev/dri`";
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    let state = seen.spec(vendor);
    if state == "same" && !pending {
        return Ok(Vec::new());
    }
    let path = own_file(vendor);
    let id = StepId(format!("cdi:{vendor}"));
    let change = Change::Setting {
        subject: format!("CDI specification {path}"),
        name: "devices".to_owned(),
        before: match state {
            "absent" => "none".to_owned(),
            "same" => "as the cards are now".to_owned(),
            _ => "other nodes than the cards have".to_owned(),
        },
        after: listed(names.iter().copied()),
    };
    let title = format!("write the device nodes of {vendor}'s cards to {path}");
    let key = id.key();
    let mut step = Step::new(id, "", title, change);
    step.snapshot = Script::one(Command::new("path_snapshot").arg(&key).path(&path));
    step.apply = Script::one(Command::new("cdi_write").arg(vendor.to_string()));
    let mut verify = Command::new("podman_cdi_names").arg(vendor.to_string());
    verify = verify.args(names);
    step.verify = Script::one(verify);
    step.undo = Script::one(Command::new("path_restore").arg(&key).path(&path));
    Ok(vec![Wish::Step(Box::new(step))])
}

fn of_slices(devices: &[&Device], offer: &Offer, seen: &Seen) -> Rendered<Option<Wish>> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut pending = false;
    for device in devices {
        pending |= offer.pending.contains(&device.card);
        match &device.name {
            Name::Fixed(name) => names.insert(format!("{}={name}", device.kind())),
            Name::Mig { now: Some(now), .. } => names.insert(format!("{}={now}", device.kind())),
            Name::Mig { now: None, .. } => false,
        };
    }
    by_nvidia(names.into_iter(), pending, seen)
}

/// What makes NVIDIA's specification have these names; `pending` where slices change before.
pub(super) fn by_nvidia(
    names: impl Iterator<Item = String>,
    pending: bool,
    seen: &Seen,
) -> Rendered<Option<Wish>> {
    let names: BTreeSet<String> = names.collect();
    if !seen.programs.contains("nvidia-ctk") {
        let message = "NVIDIA's container toolkit (nvidia-ctk) is not installed, and nothing else says which files of its driver a container needs";
        let hint = "install the package nvidia-container-toolkit";
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    if !pending && names.is_subset(&seen.nvidia_names) {
        return Ok(None);
    }
    let id = StepId("cdi:nvidia".to_owned());
    let key = id.key();
    let change = Change::Setting {
        subject: "CDI specification of nvidia.com/gpu".to_owned(),
        name: "devices".to_owned(),
        before: match seen.nvidia_names.len() {
            0 => "none".to_owned(),
            _ => listed(seen.nvidia_names.iter().map(String::as_str)),
        },
        after: match pending {
            true => "all of the new slices".to_owned(),
            false => listed(names.iter().map(String::as_str)),
        },
    };
    let title = "have nvidia-ctk write what containers need of NVIDIA's cards".to_owned();
    let mut step = Step::new(id, "", title, change);
    if seen.refresh_unit {
        step.apply = Script::one(Command::new("systemctl").args(["restart", "--", NVIDIA_UNIT]));
        // It writes below /run what the cards are at that time: the slices' own undo has it
        // write that again.
        step.undo = Script::one(Command::new("systemctl").args(["restart", "--", NVIDIA_UNIT]));
    } else {
        step.snapshot = Script::one(Command::new("path_snapshot").arg(&key).path(NVIDIA_FILE));
        step.apply = Script::one(Command::new("podman_cdi_nvidia").path(NVIDIA_FILE));
        step.undo = Script::one(Command::new("path_restore").arg(&key).path(NVIDIA_FILE));
    }
    step.verify = Script::one(Command::new("podman_cdi_nvidia_names").args(names));
    step.timeout_s = 120;
    Ok(Some(Wish::Step(Box::new(step))))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let names: Vec<&str> = names.collect();
    match names.len() {
        0..=MOST => names.join(", "),
        more => format!("{} and {} more", names[..MOST].join(", "), more - MOST),
    }
}

//! `deploy discover --mig-parted`: the layouts that hosts have, as a configuration file of
//! mig-parted with one configuration a host, under the host's name.
//!
//! NVIDIA's tool, and `mig.mig_parted` here, bring the same layouts back from it. What such a
//! file cannot say, or what could not be read, leaves the host out, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::facts::{Fact, Gpu, HostFacts, MigMode, MigState, NvidiaGpu, Vendor};

/// What one entry says: cards of one device id with the same layout.
struct Entry {
    device_id: u16,
    indexes: Vec<u32>,
    layout: Layout,
}

/// Profiles and how many of each; none with the mode off.
type Layout = Option<BTreeMap<String, u32>>;

/// The whole file.
pub(super) fn file(configs: &[(String, String)]) -> String {
    let mut text = String::from("version: v1\nmig-configs:\n");
    for (host, config) in configs {
        let _ = writeln!(text, "  {}:", key(host));
        text.push_str(config);
    }
    if configs.is_empty() {
        text = "version: v1\nmig-configs: {}\n".to_owned();
    }
    text
}

/// The entries of one host's configuration; nothing for a host without a card of NVIDIA's, with
/// which mig-parted has nothing to do.
///
/// # Errors
/// Says why there is none.
pub(super) fn config(facts: &HostFacts) -> Result<Option<String>, String> {
    let cards: Vec<&Gpu> = facts
        .gpus
        .iter()
        .filter(|gpu| gpu.vendor == Vendor::Nvidia)
        .collect();
    if cards.is_empty() {
        return Ok(None);
    }
    let mut entries: Vec<Entry> = Vec::new();
    for gpu in &cards {
        let (nvidia, layout) = layout(gpu)?;
        let same = |entry: &&mut Entry| entry.device_id == gpu.device_id && entry.layout == layout;
        match entries.iter_mut().find(same) {
            Some(entry) => entry.indexes.push(nvidia.index),
            None => entries.push(Entry {
                device_id: gpu.device_id,
                indexes: vec![nvidia.index],
                layout,
            }),
        }
    }
    let models: BTreeSet<u16> = cards.iter().map(|gpu| gpu.device_id).collect();
    let mut text = String::new();
    for entry in &mut entries {
        entry.indexes.sort_unstable();
        let of_model = cards.iter().filter(|gpu| gpu.device_id == entry.device_id);
        let devices = match of_model.count() == entry.indexes.len() {
            true => "all".to_owned(),
            false => format!("{:?}", entry.indexes),
        };
        let mut lines = vec![format!("devices: {devices}")];
        if models.len() > 1 {
            // NVIDIA's PCI vendor id stands behind the device's, as NVML gives them.
            lines.insert(
                0,
                format!("device-filter: \"0x{:04X}10DE\"", entry.device_id),
            );
        }
        lines.push(format!("mig-enabled: {}", entry.layout.is_some()));
        match &entry.layout {
            Some(layout) if !layout.is_empty() => {
                lines.push("mig-devices:".to_owned());
                let each = layout.iter();
                lines
                    .extend(each.map(|(profile, count)| format!("  {}: {count}", quoted(profile))));
            }
            _ => lines.push("mig-devices: {}".to_owned()),
        }
        for (number, line) in lines.iter().enumerate() {
            let lead = if number == 0 { "    - " } else { "      " };
            let _ = writeln!(text, "{lead}{line}");
        }
    }
    Ok(Some(text))
}

fn layout(gpu: &Gpu) -> Result<(&NvidiaGpu, Layout), String> {
    let label = gpu.label();
    let nvidia = match &gpu.nvidia {
        Fact::Known(nvidia) => nvidia,
        Fact::Unknown(why) => return Err(format!("{label} cannot be asked: {why}")),
        Fact::Absent => return Err(format!("{label} is not listed by `nvidia-smi`")),
    };
    match &nvidia.mig {
        Fact::Known(mig) if mig.current == MigMode::Enabled => {
            devices(mig, &label).map(|devices| (nvidia, Some(devices)))
        }
        Fact::Known(_) | Fact::Absent => Ok((nvidia, None)),
        Fact::Unknown(why) => Err(format!("the MIG state of {label} cannot be read: {why}")),
    }
}

fn devices(mig: &MigState, label: &str) -> Result<BTreeMap<String, u32>, String> {
    let mut devices = BTreeMap::new();
    let instances = match &mig.instances {
        Fact::Known(instances) => instances,
        Fact::Absent => return Ok(devices),
        Fact::Unknown(why) => {
            return Err(format!(
                "the MIG instances of {label} cannot be read: {why}"
            ));
        }
    };
    for instance in instances {
        let compute = match &instance.compute {
            Fact::Known(compute) if !compute.is_empty() => compute,
            Fact::Unknown(why) => {
                return Err(format!(
                    "the compute instances of {label} cannot be read: {why}"
                ));
            }
            _ => {
                return Err(format!(
                    "GPU instance {} of {label} has no compute instance, which mig-parted cannot say",
                    instance.gi_id
                ));
            }
        };
        for part in compute {
            *devices.entry(part.profile.clone()).or_default() += 1;
        }
    }
    Ok(devices)
}

/// A host's name as a key of YAML: plain where nothing else could be meant.
fn key(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.contains(['-', '.', '_'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    match is_plain {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// JSON's strings are YAML's, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

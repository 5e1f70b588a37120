//! Reads a models file and checks every value in it, with positions.
//!
//! A models file is written by people, ours or the user's, so nothing in it is trusted: unknown
//! keys, ids that two models share, and MIG geometry that cannot be are all found here, together.
//! What follows may then rely on it: placements lie inside the grid, and as many instances of a
//! profile fit as it says.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Diagnostic, Origin, Problems};
use crate::facts::{Placement, Vendor};
use crate::value::{Map, Node, Value};

use super::fields::Fields;
use super::model::{
    Architecture, DeviceId, MigModel, Model, PartitionModel, ProfileSpec, Technology,
};

/// The most memory or compute slices that a card may have; real ones have at most 12.
const MOST_SLICES: u32 = 64;
/// The words of `confidence`.
const CONFIDENCE: [&str; 3] = ["real-capture", "derived", "mock-or-config-only"];

/// A model and where it was written, for findings that concern two of them.
pub(super) struct Read {
    pub(super) model: Model,
    pub(super) key: Origin,
    /// Origins of `model.device_ids`, in their order.
    pub(super) ids: Vec<Origin>,
}

/// All models of one file.
pub(super) fn models(file: &Node, problems: &mut Problems) -> Vec<Read> {
    let Some(mut top) = Fields::of(file, "a models file", problems) else {
        return Vec::new();
    };
    let vendor = top.required_word("vendor", vendor_of, &["nvidia", "amd", "intel"]);
    let models = top.required_map("models");
    top.finish(&["vendor", "models"]);
    let (Some(vendor), Some(models)) = (vendor, models) else {
        return Vec::new();
    };
    models
        .iter()
        .filter_map(|(key, entry)| {
            let read = model(key, &entry.node, vendor, problems)?;
            Some(Read {
                key: entry.key.clone(),
                ..read
            })
        })
        .collect()
}

fn vendor_of(word: &str) -> Option<Vendor> {
    match word {
        "nvidia" => Some(Vendor::Nvidia),
        "amd" => Some(Vendor::Amd),
        "intel" => Some(Vendor::Intel),
        _ => None,
    }
}

fn architecture_of(word: &str) -> Option<Architecture> {
    Some(match word {
        "ampere" => Architecture::Ampere,
        "hopper" => Architecture::Hopper,
        "blackwell" => Architecture::Blackwell,
        "ada" => Architecture::Ada,
        "turing" => Architecture::Turing,
        "volta" => Architecture::Volta,
        "pascal" => Architecture::Pascal,
        "other" => Architecture::Other,
        _ => return None,
    })
}

fn model(key: &str, node: &Node, vendor: Vendor, problems: &mut Problems) -> Option<Read> {
    let mut fields = Fields::of(node, "a model", problems)?;
    let name = fields.required_text("name");
    let aliases = fields.texts("aliases");
    let architecture = fields
        .optional_word(
            "architecture",
            architecture_of,
            &[
                "ampere",
                "hopper",
                "blackwell",
                "ada",
                "turing",
                "volta",
                "pascal",
                "other",
            ],
        )
        .unwrap_or(Architecture::Other);
    let memory_mib = fields.optional_number("memory_mib", 1..=1 << 30);
    let device_ids = fields.required_list("device_ids");
    let pci_class = fields.optional_number("pci_class", 0..=0xff);
    let technologies = fields.required_list("technologies");
    let mig = fields.optional_node("mig");
    let max_vfs = fields.optional_number("max_vfs", 1..=1024);
    let vf_counts = fields.numbers("vf_counts", 1..=1024);
    let vf_modes = fields.optional_node("vf_modes");
    let vf_memory_mib = fields.optional_number("vf_memory_mib", 1..=1 << 30);
    let vf_device_ids = fields.optional_list("vf_device_ids");
    let partitions = fields.optional_node("partitions");
    let vgpu_types = fields.texts("vgpu_types");
    let notes = fields.texts("notes");
    fields.finish(&[
        "name",
        "aliases",
        "architecture",
        "memory_mib",
        "device_ids",
        "pci_class",
        "technologies",
        "mig",
        "max_vfs",
        "vf_counts",
        "vf_modes",
        "vf_memory_mib",
        "vf_device_ids",
        "partitions",
        "vgpu_types",
        "notes",
    ]);

    let mut devices = Vec::new();
    let mut ids = Vec::new();
    for (device, origin) in device_ids
        .iter()
        .filter_map(|node| device_id(node, problems))
    {
        devices.push(device);
        ids.push(origin);
    }
    let vf_device_ids = vf_device_ids
        .iter()
        .filter_map(|node| pci_id(node, problems))
        .collect();
    let technologies = technology_list(technologies, problems);
    let mig = mig.and_then(|node| Some((node, mig_model(node, memory_mib, problems)?)));
    let partitions = partitions.and_then(|node| Some((node, partition_model(node, problems)?)));

    let mut belongs = |technology: Technology, key: &str, node: Option<&Node>| {
        if let Some(node) = node
            && !technologies.contains(&technology)
        {
            problems.push(
                Diagnostic::error(format!(
                    "`{key}` stands here, but `{technology}` is not in `technologies`"
                ))
                .at(&node.origin),
            );
        }
    };
    belongs(Technology::Mig, "mig", mig.as_ref().map(|m| m.0));
    belongs(
        Technology::Partition,
        "partitions",
        partitions.as_ref().map(|p| p.0),
    );
    belongs(Technology::Sriov, "max_vfs", field(node, "max_vfs"));
    belongs(Technology::Vgpu, "vgpu_types", field(node, "vgpu_types"));
    belongs(Technology::Sriov, "vf_counts", field(node, "vf_counts"));
    belongs(Technology::Sriov, "vf_modes", vf_modes);
    belongs(
        Technology::Sriov,
        "vf_memory_mib",
        field(node, "vf_memory_mib"),
    );
    let mut wants = |technology: Technology, key: &str, there: bool| {
        if technologies.contains(&technology) && !there {
            problems.push(
                Diagnostic::error(format!("a model with `{technology}` needs `{key}`"))
                    .at(&node.origin),
            );
        }
    };
    wants(Technology::Mig, "mig", field(node, "mig").is_some());
    wants(
        Technology::Partition,
        "partitions",
        field(node, "partitions").is_some(),
    );
    if let Some((at, _)) = &mig
        && !matches!(
            architecture,
            Architecture::Ampere | Architecture::Hopper | Architecture::Blackwell
        )
    {
        problems.push(
            Diagnostic::error(
                "a model with `mig` needs `architecture: ampere`, `hopper` or `blackwell`",
            )
            .at(&at.origin)
            .hint("it decides how the MIG mode is changed"),
        );
    }
    if let (Some(most), Some(counts)) = (max_vfs, field(node, "vf_counts"))
        && vf_counts.iter().any(|count| u64::from(*count) > most)
    {
        problems.push(
            Diagnostic::error(format!("a count is above `max_vfs`, which is {most}"))
                .at(&counts.origin),
        );
    }

    let model = Model {
        key: key.to_owned(),
        vendor,
        name: name?,
        aliases,
        architecture,
        device_ids: devices,
        pci_class: pci_class.and_then(|class| u8::try_from(class).ok()),
        memory_mib,
        technologies,
        mig: mig.map(|(_, mig)| mig),
        max_vfs: max_vfs.and_then(|most| u32::try_from(most).ok()),
        vf_counts,
        vf_modes: vf_modes
            .map(|node| mode_of_counts(node, problems))
            .unwrap_or_default(),
        vf_memory_mib,
        vf_device_ids,
        vgpu_types,
        partitions: partitions.map(|(_, partitions)| partitions),
        notes,
    };
    Some(Read {
        model,
        key: node.origin.clone(),
        ids,
    })
}

fn field<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.as_map()
        .and_then(|map: &Map| map.get(key))
        .map(|entry| &entry.node)
}

fn device_id(node: &Node, problems: &mut Problems) -> Option<(DeviceId, Origin)> {
    let mut fields = Fields::of(node, "a device id", problems)?;
    let device = fields.required_node("device");
    let name = fields.optional_text("name").unwrap_or_default();
    fields.finish(&["device", "name"]);
    let device = device?;
    let id = pci_id(device, problems)?;
    Some((DeviceId { device: id, name }, device.origin.clone()))
}

/// A PCI id. `2330` without `0x` would be read as a decimal number and name another card, so it
/// is refused.
fn pci_id(node: &Node, problems: &mut Problems) -> Option<u16> {
    let text = match &node.value {
        Value::Str(text) => text.as_str(),
        Value::Int(_) => &node.origin.source.text[node.origin.span.clone()],
        _ => "",
    };
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or("");
    let id = match digits.len() {
        1..=4 => u16::from_str_radix(digits, 16).ok(),
        _ => None,
    };
    if id.is_none() {
        problems.push(
            Diagnostic::error("a PCI id is four hexadecimal digits after `0x`, such as `0x2330`")
                .at(&node.origin),
        );
    }
    id
}

fn technology_list(nodes: &[Node], problems: &mut Problems) -> Vec<Technology> {
    let mut found = Vec::new();
    for node in nodes {
        let word = node.as_str().unwrap_or_default();
        let known = Technology::ALL.map(Technology::name);
        match Technology::ALL.into_iter().find(|t| t.name() == word) {
            Some(technology) if found.contains(&technology) => {
                let message = format!("`{technology}` stands here twice");
                problems.push(Diagnostic::error(message).at(&node.origin));
            }
            Some(technology) => found.push(technology),
            None if node.as_str().is_none() => {
                let message = format!("a technology is a word, this is {}", node.kind());
                problems.push(Diagnostic::error(message).at(&node.origin));
            }
            None => problems.push(
                Diagnostic::error(format!("unknown technology `{word}`"))
                    .at(&node.origin)
                    .did_you_mean(word, known),
            ),
        }
    }
    found
}

/// `{8: CPX/NPS4}`
fn mode_of_counts(node: &Node, problems: &mut Problems) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    let Some(map) = node.as_map() else {
        let message = "`vf_modes` is a mapping of numbers to modes such as `{8: CPX/NPS4}`";
        problems.push(Diagnostic::error(message).at(&node.origin));
        return found;
    };
    for (key, entry) in map {
        let mode = entry.node.as_str().filter(|mode| mode.contains('/'));
        match (key.parse(), mode) {
            (Ok(count), Some(mode)) => {
                found.insert(count, mode.to_owned());
            }
            _ => problems.push(
                Diagnostic::error(format!(
                    "`{key}` is no number of virtual functions with a mode"
                ))
                .at(&entry.key)
                .hint("such as `8: CPX/NPS4`"),
            ),
        }
    }
    found
}

fn partition_model(node: &Node, problems: &mut Problems) -> Option<PartitionModel> {
    let mut fields = Fields::of(node, "`partitions`", problems)?;
    let partitions = PartitionModel {
        compute: fields.texts("compute"),
        memory: fields.texts("memory"),
        combinations: fields.texts("combinations"),
    };
    fields.finish(&["compute", "memory", "combinations"]);
    for combination in &partitions.combinations {
        let known = combination
            .split_once('/')
            .is_some_and(|(compute, memory)| {
                partitions.compute.iter().any(|c| c == compute)
                    && (partitions.memory.is_empty()
                        || partitions.memory.iter().any(|m| m == memory))
            });
        if !known {
            problems.push(
                Diagnostic::error(format!(
                    "`{combination}` is no pair of a mode in `compute` and one in `memory`"
                ))
                .at(&field(node, "combinations").unwrap_or(node).origin),
            );
        }
    }
    Some(partitions)
}

fn mig_model(node: &Node, memory_mib: Option<u64>, problems: &mut Problems) -> Option<MigModel> {
    let slices = 1..=u64::from(MOST_SLICES);
    let mut fields = Fields::of(node, "`mig`", problems)?;
    let compute_slices = fields.required_number("compute_slices", slices.clone());
    let memory_slices = fields.optional_number("memory_slices", slices);
    let profiles = fields.required_list("profiles");
    fields.finish(&["compute_slices", "memory_slices", "profiles"]);
    let card = Card {
        compute: small(compute_slices?),
        grid: memory_slices.map(small),
        memory_mib,
    };
    let mut found: Vec<ProfileSpec> = Vec::new();
    for node in profiles {
        let Some(spec) = profile(node, &card, problems) else {
            continue;
        };
        if found.iter().any(|other| other.name == spec.name) {
            let message = format!("profile `{}` stands here twice", spec.name);
            problems.push(Diagnostic::error(message).at(&node.origin));
        }
        if spec.id.is_some()
            && let Some(other) = found.iter().find(|other| other.id == spec.id)
        {
            let message = format!("profile `{}` has the same id", other.name);
            problems.push(Diagnostic::error(message).at(&node.origin));
        }
        found.push(spec);
    }
    Some(MigModel {
        memory_slices: card.grid,
        compute_slices: card.compute,
        profiles: found,
    })
}

/// What the card as a whole has, to hold profiles against.
struct Card {
    compute: u32,
    grid: Option<u32>,
    memory_mib: Option<u64>,
}

fn profile(node: &Node, card: &Card, problems: &mut Problems) -> Option<ProfileSpec> {
    let slices = 1..=u64::from(MOST_SLICES);
    let mut fields = Fields::of(node, "a profile", problems)?;
    let name = fields.required_text("name");
    let aliases = fields.texts("aliases");
    let id = fields.optional_number("id", 0..=1023);
    let compute = fields.required_number("compute_slices", slices.clone());
    let size = fields.optional_number("memory_slices", slices.clone());
    let max = fields.required_number("max", slices);
    let starts = fields.numbers("starts", 0..=u64::from(MOST_SLICES));
    let memory_mib = fields.optional_number("memory_mib", 1..=1 << 30);
    let sm = fields.optional_number("sm", 1..=4096);
    let confidence = fields.optional_word(
        "confidence",
        |word| CONFIDENCE.contains(&word).then(|| word.to_owned()),
        &CONFIDENCE,
    );
    fields.finish(&[
        "name",
        "aliases",
        "id",
        "compute_slices",
        "memory_slices",
        "max",
        "starts",
        "memory_mib",
        "sm",
        "confidence",
    ]);
    let (name, compute, max) = (name?, small(compute?), small(max?));
    let size = size.map(small);

    let mut wrong = |key: &str, message: String| {
        let at = field(node, key).unwrap_or(node);
        problems.push(Diagnostic::error(format!("profile `{name}`: {message}")).at(&at.origin));
    };
    match compute_in_name(&name) {
        None => wrong(
            "name",
            "a profile's name has the form `3g.40gb` or `1g.10gb+me`".to_owned(),
        ),
        Some(named) if named != compute => wrong(
            "compute_slices",
            format!("the name says {named} compute slices, this says {compute}"),
        ),
        Some(_) => {}
    }
    if compute > card.compute {
        let has = card.compute;
        wrong("compute_slices", format!("the card has only {has}"));
    }
    if memory_mib > card.memory_mib && card.memory_mib.is_some() {
        wrong("memory_mib", "more than the card has".to_owned());
    }
    let placements = match (card.grid, size) {
        (None, None) if starts.is_empty() => Vec::new(),
        (None, _) => {
            let message = "the card's `memory_slices` are not given, so no place on it can be";
            wrong("starts", message.to_owned());
            Vec::new()
        }
        (Some(_), None) => {
            wrong("memory_slices", "`memory_slices` is missing".to_owned());
            Vec::new()
        }
        (Some(grid), Some(size)) => {
            if starts.is_empty() {
                wrong("starts", "`starts` is missing".to_owned());
            }
            if let Some(start) = starts.iter().find(|start| **start + size > grid) {
                let message = format!("{size} slices from {start} on leave the grid of {grid}");
                wrong("starts", message);
            }
            let sorted: BTreeSet<u32> = starts.iter().copied().collect();
            if !sorted.iter().eq(starts.iter()) {
                wrong(
                    "starts",
                    "write each start once, in rising order".to_owned(),
                );
            }
            let fit = disjoint(&sorted, size).min(card.compute / compute.max(1));
            if max > fit && fit > 0 {
                let message = format!("{max} do not fit: there is room for {fit}");
                wrong("max", message);
            }
            let place = |start| Placement { start, size };
            sorted.into_iter().map(place).collect()
        }
    };
    Some(ProfileSpec {
        name,
        aliases,
        id: id.map(small),
        compute_slices: compute,
        memory_slices: size,
        memory_mib,
        max,
        placements,
        sm: sm.map(small),
        confidence: confidence.unwrap_or_else(|| "mock-or-config-only".to_owned()),
    })
}

/// How many places of one size can be taken at once; from left to right is best for equal sizes.
fn disjoint(starts: &BTreeSet<u32>, size: u32) -> u32 {
    let mut free_from = 0;
    let mut count = 0;
    for &start in starts {
        if start >= free_from {
            count += 1;
            free_from = start + size;
        }
    }
    count
}

/// The `3` of `3g.40gb`.
fn compute_in_name(name: &str) -> Option<u32> {
    let (slices, rest) = name.split_once("g.")?;
    let memory = rest.split(['+', '-']).next()?;
    memory.strip_suffix("gb")?.parse::<u32>().ok()?;
    slices.parse().ok()
}

/// A number that `Fields` has already held to a range far below the limit.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

//! mig-parted's configuration files (NVIDIA/mig-parted, version v1), as they are.
//!
//! `mig.mig_parted` names a file and one of its configurations. The variable is read like every
//! other; the file is asked for through `Documents`, because this room reads none, and becomes
//! `PartedEntry`s. The whole file is checked, as NVIDIA's tool does, so that a mistake is found
//! before its configuration is chosen. Whether a card can do it, `strategy` finds out.

use crate::error::{Diagnostic, Origin, Problems, nearest};
use crate::facts::{Gpu, Vendor};
use crate::value::{Entry, Loaded, Node, Value};

use super::block::{Block, Located, as_count, wrong_kind};
use super::compute::ComputeSplit;
use super::slicing::{MOST_INSTANCES, MigWanted, Slicing};

/// Gives the YAML document that a variable names, or says why it cannot be read. The origin is
/// that of the name: relative names begin where it was written.
pub type Documents<'a> = dyn Fn(&str, &Origin) -> Loaded<Option<Node>> + 'a;

/// `mig.mig_parted`.
#[derive(Debug, Clone, PartialEq)]
pub struct MigParted {
    /// `file`.
    pub file: Located<String>,
    /// `config`: which of the file's configurations.
    pub config: Located<String>,
    /// What that configuration says; empty where it could not be read.
    pub entries: Vec<PartedEntry>,
}

/// One entry of a configuration: what some cards are to be.
#[derive(Debug, Clone, PartialEq)]
pub struct PartedEntry {
    /// `devices`: indexes as NVIDIA's driver counts; none for `all`.
    pub devices: Option<Vec<u32>>,
    /// `device-filter`: PCI device ids of NVIDIA's, such as `0x20B2`; empty for every model.
    pub filter: Vec<u16>,
    /// `mig-enabled`.
    pub enabled: bool,
    /// `mig-devices`, one a GPU instance.
    pub profiles: Vec<Located<String>>,
    /// GPU instances that are split into smaller compute instances (`1c.3g.40gb`).
    pub splits: Vec<ComputeSplit>,
    /// Where it stands.
    pub origin: Origin,
}

impl PartedEntry {
    fn is_for(&self, gpu: &Gpu, index: usize) -> bool {
        let is_named = |devices: &Vec<u32>| devices.iter().any(|named| *named as usize == index);
        gpu.vendor == Vendor::Nvidia
            && self.devices.as_ref().is_none_or(is_named)
            && (self.filter.is_empty() || self.filter.contains(&gpu.device_id))
    }

    fn same_layout(&self, other: &Self) -> bool {
        let names = |entry: &Self| {
            let mut names: Vec<String> = entry.profiles.iter().map(|p| p.value.clone()).collect();
            names.sort();
            names
        };
        let splits = |entry: &Self| {
            let each = entry.splits.iter();
            let mut splits: Vec<_> = each
                .map(|split| (split.profile.value.clone(), split.slices.clone()))
                .collect();
            splits.sort();
            splits
        };
        self.enabled == other.enabled
            && names(self) == names(other)
            && splits(self) == splits(other)
    }

    /// The same as a user would write it below `mig`; `above` is where the file was named.
    #[must_use]
    pub fn as_wanted(&self, above: &MigWanted) -> MigWanted {
        MigWanted {
            listed: self.profiles.clone(),
            compute_instances: self.splits.clone(),
            mig_parted: None,
            ..above.clone()
        }
    }
}

impl MigParted {
    /// What the configuration says of a card of this index; nothing if no entry is for it.
    ///
    /// # Errors
    /// Two entries are for it and differ: mig-parted would make one after the other, and find
    /// neither when it asserts them.
    pub fn entry_for(&self, gpu: &Gpu, index: usize) -> Result<Option<&PartedEntry>, Diagnostic> {
        let mut found = self.entries.iter().filter(|entry| entry.is_for(gpu, index));
        let Some(first) = found.next() else {
            return Ok(None);
        };
        match found.find(|entry| !entry.same_layout(first)) {
            None => Ok(Some(first)),
            Some(other) => {
                let message = format!(
                    "two entries of `{}` are for {} and contradict each other",
                    self.config.value,
                    gpu.label()
                );
                Err(Diagnostic::error(message)
                    .at(&other.origin)
                    .related(&first.origin, "the other one")
                    .hint("keep them apart by `devices` or `device-filter`"))
            }
        }
    }
}

/// Reads the variable.
pub(super) fn read(parent: &mut Block<'_, '_>) -> Option<MigParted> {
    let node = parent.node("mig_parted")?;
    let path = parent.path_of("mig_parted");
    let mut block = Block::new(&path, Some(node), parent.problems);
    let found = MigParted {
        file: block.text("file", ""),
        config: block.text("config", ""),
        entries: Vec::new(),
    };
    let lacks = match (found.file.value.is_empty(), found.config.value.is_empty()) {
        (true, _) => Some(("file", "the path of a configuration file of mig-parted")),
        (_, true) => Some(("config", "the name of one of its configurations")),
        _ => None,
    };
    if let (Some((key, what)), true) = (lacks, node.as_map().is_some()) {
        let missing = Diagnostic::error(format!("`{path}` needs `{key}`, {what}"));
        block.problems.push(missing.at(&node.origin));
    }
    block.finish();
    Some(found)
}

/// A layout stands in the file or in the variables, not in both.
pub(super) fn check_alone(mig: &MigWanted, problems: &mut Problems) {
    let Some(parted) = &mig.mig_parted else {
        return;
    };
    let others = [
        ("profiles", mig.listed.first().map(|first| &first.origin)),
        (
            "gpu_instance_count",
            Some(&mig.gpu_instance_count.origin).filter(|_| mig.gpu_instance_count.value != 1),
        ),
        (
            "compute_instance_count",
            Some(&mig.compute_instance_count.origin)
                .filter(|_| mig.compute_instance_count.value != 1),
        ),
        (
            "compute_instances",
            mig.compute_instances
                .first()
                .map(|split| &split.profile.origin),
        ),
    ];
    for (name, written) in others {
        let Some(Some(at)) = written else { continue };
        let message = format!("`mig.mig_parted` and `mig.{name}` contradict each other");
        let diagnostic = Diagnostic::error(message)
            .related(at, "the other one")
            .hint("the layout stands in the file of mig-parted, or here");
        problems.push(parted.file.blame(diagnostic));
    }
}

/// Reads the files that the variables name.
pub(super) fn resolve(slicing: &mut Slicing, documents: &Documents<'_>, problems: &mut Problems) {
    // Entries that take the block over from above would read it, and blame it, once more.
    let mut known: Vec<MigParted> = Vec::new();
    let entries = slicing.gpus.iter_mut().map(|entry| &mut entry.wanted);
    for wanted in std::iter::once(&mut slicing.default).chain(entries) {
        let Some(parted) = &mut wanted.mig.mig_parted else {
            continue;
        };
        let same = |other: &&MigParted| other.file == parted.file && other.config == parted.config;
        if let Some(other) = known.iter().find(same) {
            parted.entries.clone_from(&other.entries);
            continue;
        }
        load(parted, documents, problems);
        known.push(parted.clone());
    }
}

fn load(parted: &mut MigParted, documents: &Documents<'_>, problems: &mut Problems) {
    let (Some(at), Some(_)) = (&parted.file.origin, &parted.config.origin) else {
        return;
    };
    let (document, found) = documents(&parted.file.value, at);
    let sound = !found.has_errors();
    problems.extend(found);
    let Some(document) = document else {
        if sound {
            let message = format!("`{}` is empty", parted.file.value);
            problems.push(parted.file.blame(Diagnostic::error(message)));
        }
        return;
    };
    let configs = read_file(&document, problems);
    match configs
        .iter()
        .find(|(name, _)| *name == parted.config.value)
    {
        Some((_, entries)) => parted.entries.clone_from(entries),
        None if configs.is_empty() => {}
        None => problems.push(no_such_config(parted, &configs)),
    }
}

fn no_such_config(parted: &MigParted, configs: &[(String, Vec<PartedEntry>)]) -> Diagnostic {
    let wanted = &parted.config.value;
    let names = || configs.iter().map(|(name, _)| name.as_str());
    let listed = names().collect::<Vec<_>>().join(", ");
    let hint = match nearest(wanted, names()) {
        Some(near) => format!("did you mean `{near}`? It has {listed}"),
        None => format!("it has {listed}"),
    };
    let message = format!("`{}` has no configuration `{wanted}`", parted.file.value);
    parted.config.blame(Diagnostic::error(message).hint(hint))
}

/// All configurations of a file, in its order.
fn read_file(document: &Node, problems: &mut Problems) -> Vec<(String, Vec<PartedEntry>)> {
    let kind = document.as_map().and_then(|map| map.get("kind"));
    if let Some(Entry { key, .. }) = kind {
        let message = "this is an object of Kubernetes, not a configuration file of mig-parted";
        let hint = "give what stands in its `data`, as a file";
        problems.push(Diagnostic::error(message).at(key).hint(hint));
        return Vec::new();
    }
    let mut block = Block::new("", Some(document), problems);
    let version = block.node("version");
    let configs = block.node("mig-configs");
    match version.map(|node| (node.as_str(), node)) {
        Some((Some("v1"), _)) => {}
        Some((_, node)) => {
            let diagnostic = wrong_kind("version", "`v1`, the only one there is", node);
            block.problems.push(diagnostic);
        }
        None => {
            let missing = Diagnostic::error("the file has no `version: v1`");
            block.problems.push(missing.at(&document.origin));
        }
    }
    block.finish();
    let Some(node) = configs else {
        let missing = Diagnostic::error("the file has no `mig-configs`");
        problems.push(missing.at(&document.origin));
        return Vec::new();
    };
    let Some(map) = node.as_map() else {
        let wanted = "a mapping of names to configurations";
        problems.push(wrong_kind("mig-configs", wanted, node));
        return Vec::new();
    };
    let each = map.iter();
    each.map(|(name, entry)| (name.clone(), read_config(name, &entry.node, problems)))
        .collect()
}

fn read_config(name: &str, node: &Node, problems: &mut Problems) -> Vec<PartedEntry> {
    let path = format!("mig-configs.{name}");
    let items = node.as_seq().filter(|items| !items.is_empty());
    let Some(items) = items else {
        let wanted = "a list of at least one entry with `devices` and `mig-enabled`";
        problems.push(wrong_kind(&path, wanted, node));
        return Vec::new();
    };
    let each = items.iter().enumerate();
    each.filter_map(|(index, item)| read_entry(&format!("{path}[{index}]"), item, problems))
        .collect()
}

fn read_entry(path: &str, item: &Node, problems: &mut Problems) -> Option<PartedEntry> {
    if item.as_map().is_none() {
        problems.push(wrong_kind(path, "a mapping", item));
        return None;
    }
    let mut block = Block::new(path, Some(item), problems);
    let filter = block.node("device-filter");
    let devices = block.node("devices");
    let enabled = block.node("mig-enabled");
    let layout = block.node("mig-devices");
    for (key, found) in [("devices", devices), ("mig-enabled", enabled)] {
        if found.is_none() {
            let missing = Diagnostic::error(format!("`{path}` has no `{key}`"));
            block.problems.push(missing.at(&item.origin));
        }
    }
    block.finish();
    let is_on = enabled.and_then(|node| match node.value {
        Value::Bool(on) => Some(on),
        _ => {
            let path = format!("{path}.mig-enabled");
            problems.push(wrong_kind(&path, "`true` or `false`", node));
            None
        }
    });
    let (profiles, splits) = match layout {
        Some(node) => read_devices(&format!("{path}.mig-devices"), node, problems),
        None => (Vec::new(), Vec::new()),
    };
    match (is_on, layout) {
        (Some(true), None) => {
            let missing = format!("`{path}` has no `mig-devices`, which `mig-enabled: true` needs");
            let hint = "`mig-devices: {}` is MIG mode without any instance";
            problems.push(Diagnostic::error(missing).at(&item.origin).hint(hint));
        }
        (Some(false), Some(node)) if !profiles.is_empty() => {
            let message = format!("`{path}` has `mig-devices` and `mig-enabled: false`");
            problems.push(Diagnostic::error(message).at(&node.origin));
        }
        _ => {}
    }
    Some(PartedEntry {
        devices: devices.and_then(|node| read_indexes(&format!("{path}.devices"), node, problems)),
        filter: filter.map_or_else(Vec::new, |node| {
            read_filter(&format!("{path}.device-filter"), node, problems)
        }),
        enabled: is_on?,
        profiles,
        splits,
        origin: item.origin.clone(),
    })
}

/// The indexes; none for `all`.
fn read_indexes(path: &str, node: &Node, problems: &mut Problems) -> Option<Vec<u32>> {
    if node.as_str() == Some("all") {
        return None;
    }
    let whole = |item: &Node| match item.value {
        Value::Int(_) => as_count(item),
        _ => None,
    };
    let indexes = node
        .as_seq()
        .and_then(|items| items.iter().map(whole).collect::<Option<Vec<u32>>>());
    if indexes.is_none() {
        let wanted = "`all` or a list of indexes such as `[0, 1]`";
        problems.push(wrong_kind(path, wanted, node));
    }
    // Nothing rather than all, should anybody go on with it.
    Some(indexes.unwrap_or_default())
}

fn read_filter(path: &str, node: &Node, problems: &mut Problems) -> Vec<u16> {
    let items = match &node.value {
        Value::Seq(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut ids = Vec::new();
    for item in items {
        match device_id(item) {
            Some(id) => ids.push(id),
            None => {
                let wanted =
                    "a PCI device id of NVIDIA's such as `\"0x20B210DE\"`, or a list of them";
                problems.push(wrong_kind(path, wanted, item));
            }
        }
    }
    ids
}

/// `0x20B2` of `"0x20B210DE"`: device before vendor, as NVML gives it. Cards of other vendors
/// cannot be meant.
fn device_id(node: &Node) -> Option<u16> {
    const NVIDIA: u32 = 0x10de;
    let number = match &node.value {
        Value::Str(text) => {
            let digits = text.strip_prefix("0x").or(text.strip_prefix("0X"))?;
            u32::from_str_radix(digits, 16).ok()?
        }
        // Without quotes YAML makes a number of it.
        Value::Int(number) => u32::try_from(*number).ok()?,
        _ => return None,
    };
    (number & 0xffff == NVIDIA)
        .then(|| u16::try_from(number >> 16).ok())
        .flatten()
}

/// `mig-devices`: names of profiles with how many there are to be of each.
fn read_devices(
    path: &str,
    node: &Node,
    problems: &mut Problems,
) -> (Vec<Located<String>>, Vec<ComputeSplit>) {
    let Some(map) = node.as_map() else {
        let wanted = "a mapping of profiles to counts such as `{\"1g.10gb\": 7}`";
        problems.push(wrong_kind(path, wanted, node));
        return (Vec::new(), Vec::new());
    };
    let mut whole: Vec<(Located<String>, u32)> = Vec::new();
    let mut parts: Vec<(Located<String>, Vec<u32>)> = Vec::new();
    for (name, entry) in map {
        let count = as_count(&entry.node).filter(|count| *count <= MOST_INSTANCES);
        let Some(count) = count else {
            let wanted = format!("a whole number from 0 to {MOST_INSTANCES}");
            problems.push(wrong_kind(&format!("{path}.{name}"), &wanted, &entry.node));
            continue;
        };
        let Some((split, profile)) = profile_of(name) else {
            let message = format!("`{name}` is not a MIG profile");
            let hint = "one looks like `1g.10gb`, `1g.10gb+me` or `1c.3g.40gb`";
            problems.push(Diagnostic::error(message).at(&entry.key).hint(hint));
            continue;
        };
        let profile = Located {
            value: profile.to_owned(),
            origin: Some(entry.key.clone()),
        };
        let same = |other: &Located<String>| other.value == profile.value;
        match split {
            None => whole.push((profile, count)),
            Some(slices) => {
                let each = std::iter::repeat_n(slices, count as usize);
                match parts.iter_mut().find(|(other, _)| same(other)) {
                    Some((_, found)) => found.extend(each),
                    None => parts.push((profile, each.collect())),
                }
            }
        }
    }
    parts.retain(|(_, slices)| !slices.is_empty());
    let mut splits = Vec::new();
    for (profile, slices) in parts {
        let mixed = whole.iter().any(|(other, _)| other.value == profile.value);
        match packed(&profile.value, slices).filter(|_| !mixed) {
            Some((instances, slices)) => {
                whole.push((profile.clone(), instances));
                splits.push(ComputeSplit { profile, slices });
            }
            None => {
                let message = format!(
                    "these compute instances would split GPU instances of {} in different ways",
                    profile.value
                );
                let hint = "give as many that all GPU instances of a profile are split alike";
                problems.push(profile.blame(Diagnostic::error(message).hint(hint)));
            }
        }
    }
    let each = whole.into_iter();
    let profiles = each.flat_map(|(name, count)| std::iter::repeat_n(name, count as usize));
    (profiles.collect(), splits)
}

/// The compute slices of a name such as `1c.3g.40gb`, if it is of less than the GPU instance,
/// and the GPU instance's profile; nothing for what is no profile.
fn profile_of(name: &str) -> Option<(Option<u32>, &str)> {
    let (compute, profile) = match name.split_once("c.") {
        Some((count, rest)) => (Some(count.parse::<u32>().ok()?), rest),
        None => (None, name),
    };
    let (slices, rest) = profile.split_once("g.")?;
    let slices: u32 = slices.parse().ok()?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ending = rest[digits..].strip_prefix("gb")?;
    let known = ["", "+me", "+gfx", "+me.all", "-me"];
    if digits == 0 || !known.contains(&ending) {
        return None;
    }
    match compute {
        Some(count) if count == 0 || count > slices => None,
        Some(count) if count < slices => Some((Some(count), profile)),
        _ => Some((None, profile)),
    }
}

/// Compute instances laid into as few GPU instances as hold them, the largest first; nothing if
/// these would then differ.
fn packed(profile: &str, mut slices: Vec<u32>) -> Option<(u32, Vec<u32>)> {
    let room: u32 = profile.split_once("g.")?.0.parse().ok()?;
    slices.sort_unstable_by(|a, b| b.cmp(a));
    let mut instances: Vec<Vec<u32>> = Vec::new();
    for slice in slices {
        let has_room = |instance: &&mut Vec<u32>| instance.iter().sum::<u32>() + slice <= room;
        match instances.iter_mut().find(has_room) {
            Some(instance) => instance.push(slice),
            None => instances.push(vec![slice]),
        }
    }
    let first = instances.first()?.clone();
    let alike = instances.iter().all(|instance| *instance == first);
    let count = u32::try_from(instances.len()).ok()?;
    alike.then_some((count, first))
}

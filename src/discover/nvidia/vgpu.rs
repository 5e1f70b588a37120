//! vGPU: what `vgpu.sh` found in sysfs, `nvidia-smi vgpu -s -v`, and the virtualization
//! and licence lines of `nvidia-smi -q`.

use std::collections::BTreeMap;

use crate::facts::{
    Fact, HostModel, License, PciAddress, Vgpu, VgpuGuest, VgpuHost, VgpuInstance, VgpuType,
};

/// What sysfs shows of vGPUs on all cards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Functions that can carry a vGPU.
    pub parents: Vec<Parent>,
    /// Mediated devices.
    pub mdevs: Vec<Mdev>,
    /// `FeatureType` of the licence daemon's settings.
    pub feature_type: Fact<u32>,
    /// `ServerAddress` of these settings.
    pub license_server: Fact<String>,
    /// SHA-256 of each client configuration token.
    pub tokens: Vec<String>,
}

/// A function that can carry a vGPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its address.
    pub pci: PciAddress,
    /// How a vGPU is made on it.
    pub model: HostModel,
    /// Id of the type that it carries, where the function itself says so; 0 for none.
    pub current: Fact<u32>,
    /// The types it lists. Of a vendor's own interface, only those that can be made now.
    pub types: Vec<VgpuType>,
}

/// A mediated device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mdev {
    /// Its UUID.
    pub uuid: String,
    /// The function that carries it.
    pub parent: PciAddress,
    /// Id of its type.
    pub type_id: Option<u32>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The virtual machine that runs on it.
    pub vm: Option<String>,
}

/// Reads the lines of `vgpu.sh`.
#[must_use]
pub fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    let mut types: Vec<VgpuType> = Vec::new();
    let mut vms: BTreeMap<&str, &str> = BTreeMap::new();
    let mut list: Vec<&str> = Vec::new();
    for line in text.lines() {
        if matches!(line, "types" | "creatable") {
            list.clear();
        } else if let Some(rest) = line.strip_prefix("parent ") {
            if !list.is_empty() {
                types = mdev_types(&list.join("\n"));
                types.extend(creatable(&list.join("\n")));
                list.clear();
            }
            tree.parents.extend(parent(rest, &types));
        } else if let Some((uuid, vm)) = line.strip_prefix("vm ").and_then(|l| l.split_once(' ')) {
            vms.insert(uuid, vm);
        } else if let Some((name, value)) = line
            .strip_prefix("setting ")
            .and_then(|l| l.split_once(' '))
        {
            let value = value.trim();
            match name {
                "FeatureType" => tree.feature_type = cell(value, value),
                "ServerAddress" if !value.is_empty() => {
                    tree.license_server = Fact::Known(value.to_owned());
                }
                _ => {}
            }
        } else if let Some(hash) = token_hash(line) {
            tree.tokens.push(hash.to_owned());
        } else if !line.contains(" -> ") {
            list.push(line);
        }
    }
    tree.mdevs = mdevs(text);
    for mdev in &mut tree.mdevs {
        mdev.vm = vms.get(mdev.uuid.as_str()).map(|vm| (*vm).to_owned());
    }
    tree
}

/// A line of `sha256sum`.
fn token_hash(line: &str) -> Option<&str> {
    let (hash, _) = line.split_once("  ")?;
    (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hash)
}

fn parent(text: &str, types: &[VgpuType]) -> Option<Parent> {
    let mut words = text.split(' ');
    let pci = words.next()?.parse().ok()?;
    let (model, current) = match words.next()? {
        "mdev" => (HostModel::Mdev, Fact::Absent),
        "vfio" => {
            let word = words.next()?;
            let current = match current_type(word) {
                Some(id) => Fact::Known(id),
                None => Fact::Unknown(format!("current_vgpu_type of {pci} could not be read")),
            };
            (HostModel::VendorVfio, current)
        }
        _ => return None,
    };
    Some(Parent {
        pci,
        model,
        current,
        types: types.to_vec(),
    })
}

/// The content of `current_vgpu_type`: an id, 0 for none.
#[must_use]
pub fn current_type(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// Lines `nvidia-742/name:NVIDIA A2-1B` and `nvidia-742/description:…`, as `grep .` prints
/// the files below `mdev_supported_types`.
#[must_use]
pub fn mdev_types(text: &str) -> Vec<VgpuType> {
    let mut found: BTreeMap<u32, VgpuType> = BTreeMap::new();
    for line in text.lines() {
        let Some((id, attribute, value)) = attribute(line) else {
            continue;
        };
        let entry = found.entry(id).or_insert_with(|| VgpuType {
            id,
            name: String::new(),
            framebuffer_mib: Fact::Absent,
            max_instances: Fact::Absent,
            gi_profile: Fact::Absent,
            max_per_gi: Fact::Absent,
        });
        match attribute {
            "name" => value.clone_into(&mut entry.name),
            "description" => {
                (entry.framebuffer_mib, entry.max_instances) = description(value);
            }
            _ => {}
        }
    }
    found.into_values().filter(|t| !t.name.is_empty()).collect()
}

/// Lines `nvidia-742/available_instances:0`.
#[must_use]
pub fn available(text: &str) -> BTreeMap<u32, u32> {
    let rows = text.lines().filter_map(|line| {
        let (id, name, value) = attribute(line)?;
        (name == "available_instances").then_some((id, value.trim().parse().ok()?))
    });
    rows.collect()
}

fn attribute(line: &str) -> Option<(u32, &str, &str)> {
    let (path, value) = line.split_once(':')?;
    let (directory, name) = path.rsplit_once('/')?;
    let id = directory
        .rsplit('/')
        .next()?
        .strip_prefix("nvidia-")?
        .parse()
        .ok()?;
    Some((id, name, value))
}

/// Framebuffer in MiB and most instances of `num_heads=4, …, framebuffer=1024M, …,
/// max_instance=16`.
#[must_use]
pub fn description(text: &str) -> (Fact<u64>, Fact<u32>) {
    let value = |name: &str| {
        text.split(',')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let framebuffer = value("framebuffer").and_then(|v| v.strip_suffix('M')?.parse().ok());
    let most = value("max_instance").and_then(|v| v.parse().ok());
    (Fact::from_option(framebuffer), Fact::from_option(most))
}

/// The lines of `creatable_vgpu_types`, with or without the heading.
#[must_use]
pub fn creatable(text: &str) -> Vec<VgpuType> {
    let row = |line: &str| {
        let (id, name) = line.split_once(':')?;
        let name = name.trim();
        (!name.is_empty()).then_some(VgpuType {
            id: id.trim().parse().ok()?,
            name: name.to_owned(),
            framebuffer_mib: Fact::Absent,
            max_instances: Fact::Absent,
            gi_profile: Fact::Absent,
            max_per_gi: Fact::Absent,
        })
    };
    text.lines().filter_map(row).collect()
}

/// The mediated devices in a listing of `/sys/bus/mdev/devices`, with the links of each
/// where they were listed too.
#[must_use]
pub fn mdevs(text: &str) -> Vec<Mdev> {
    let mut found: BTreeMap<&str, Mdev> = BTreeMap::new();
    let mut links: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in text.lines() {
        let Some((left, target)) = line.rsplit_once(" -> ") else {
            continue;
        };
        let path = left.rsplit(' ').next().unwrap_or(left);
        let mut names = path.rsplit('/');
        let (Some(name), above) = (names.next(), names.next()) else {
            continue;
        };
        if is_uuid(name) {
            let parent = target.rsplit('/').nth(1).and_then(|pci| pci.parse().ok());
            if let Some(parent) = parent {
                found.insert(
                    name,
                    Mdev {
                        uuid: name.to_owned(),
                        parent,
                        type_id: None,
                        group: None,
                        vm: None,
                    },
                );
            }
        } else if let Some(uuid) = above.filter(|above| is_uuid(above)) {
            links.insert((uuid, name), target.rsplit('/').next().unwrap_or(target));
        }
    }
    for (uuid, mdev) in &mut found {
        let link = |name| links.get(&(*uuid, name)).copied();
        mdev.type_id = link("mdev_type").and_then(|t| t.strip_prefix("nvidia-")?.parse().ok());
        mdev.group = link("iommu_group").and_then(|group| group.parse().ok());
    }
    found.into_values().collect()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.chars().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// The types of each card in `nvidia-smi vgpu -s -v`.
#[must_use]
pub fn types(text: &str) -> Vec<(PciAddress, Vec<VgpuType>)> {
    let mut cards: Vec<(PciAddress, Vec<VgpuType>)> = Vec::new();
    for line in text.lines() {
        if let Some(pci) = card_heading(line) {
            cards.push((pci, Vec::new()));
            continue;
        }
        let (Some((_, types)), Some((key, value))) = (cards.last_mut(), pair(line)) else {
            continue;
        };
        if key == "vGPU Type ID" {
            if let Some(id) = hexadecimal(value) {
                types.push(VgpuType {
                    id,
                    name: String::new(),
                    framebuffer_mib: Fact::Absent,
                    max_instances: Fact::Absent,
                    gi_profile: Fact::Absent,
                    max_per_gi: Fact::Absent,
                });
            }
            continue;
        }
        let Some(last) = types.last_mut() else {
            continue;
        };
        match key {
            "Name" => value.clone_into(&mut last.name),
            "GPU Instance Profile ID" => last.gi_profile = cell(value, value),
            "Max Instances" => last.max_instances = cell(value, value),
            "Max Instances Per GI" => last.max_per_gi = cell(value, value),
            "FB Memory" => last.framebuffer_mib = cell(value, value.trim_end_matches(" MiB")),
            _ => {}
        }
    }
    for (_, types) in &mut cards {
        types.retain(|t| !t.name.is_empty());
    }
    cards
}

/// A number, or absent for `N/A`.
fn cell<T: std::str::FromStr>(value: &str, number: &str) -> Fact<T> {
    if super::not_there(value) {
        return Fact::Absent;
    }
    match number.parse() {
        Ok(number) => Fact::Known(number),
        Err(_) => {
            let shown: String = value.chars().take(60).collect();
            Fact::Unknown(format!("nvidia-smi prints `{shown}`"))
        }
    }
}

fn hexadecimal(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What `nvidia-smi -q` says of a card's part in virtualization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtualization {
    /// The card.
    pub pci: PciAddress,
    /// `Virtualization Mode`, such as `Host VGPU`, `VGPU`, `Pass-Through`, `None`.
    pub mode: Option<String>,
    /// `Host VGPU Mode`: whether it is `SR-IOV`.
    pub sriov: Fact<bool>,
    /// `vGPU Heterogeneous Mode`.
    pub heterogeneous: Fact<bool>,
    /// The licensed product.
    pub product: Fact<String>,
    /// `License Status`.
    pub license: Fact<License>,
}

/// The virtualization lines of each card in `nvidia-smi -q`.
#[must_use]
pub fn virtualization(text: &str) -> Vec<Virtualization> {
    let mut cards: Vec<Virtualization> = Vec::new();
    let mut licensed = false;
    for line in text.lines() {
        if let Some(pci) = card_heading(line) {
            licensed = false;
            cards.push(Virtualization {
                pci,
                mode: None,
                sriov: Fact::Absent,
                heterogeneous: Fact::Absent,
                product: Fact::Absent,
                license: Fact::Absent,
            });
            continue;
        }
        let Some(card) = cards.last_mut() else {
            continue;
        };
        let Some((key, value)) = pair(line) else {
            licensed = line.trim() == "vGPU Software Licensed Product";
            continue;
        };
        match key {
            "Virtualization Mode" => card.mode = Some(value.to_owned()),
            "Host VGPU Mode" => {
                card.sriov = match value {
                    "SR-IOV" => Fact::Known(true),
                    "Non SR-IOV" => Fact::Known(false),
                    _ => Fact::Absent,
                }
            }
            "vGPU Heterogeneous Mode" => {
                card.heterogeneous = Fact::from_option(super::switch(value));
            }
            "Product Name" if licensed => card.product = Fact::Known(value.to_owned()),
            "License Status" if licensed => card.license = license(value),
            _ => {}
        }
    }
    cards
}

/// `Licensed (Expiry: 2025-3-19 7:29:4 GMT)`, `Unlicensed (Restricted)`.
fn license(text: &str) -> Fact<License> {
    let (word, rest) = text.split_once(" (").unwrap_or((text, ""));
    let more = rest.strip_suffix(')').map(str::to_owned);
    match word {
        "Licensed" => {
            Fact::Known(License::Licensed(more.map(|more| {
                more.strip_prefix("Expiry: ").unwrap_or(&more).to_owned()
            })))
        }
        "Unlicensed" => Fact::Known(License::Unlicensed(more)),
        _ if super::not_there(text) => Fact::Absent,
        _ => {
            let shown: String = text.chars().take(60).collect();
            Fact::Unknown(format!("nvidia-smi prints `{shown}`"))
        }
    }
}

fn card_heading(line: &str) -> Option<PciAddress> {
    line.strip_prefix("GPU ")?.trim().parse().ok()
}

fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" : ")?;
    Some((key.trim(), value.trim()))
}

/// What is known of one card's part in vGPU. `functions` are its virtual functions; `said`
/// and `listed` what the tool says of it.
#[must_use]
pub fn card(
    pci: PciAddress,
    functions: &[PciAddress],
    tree: &Tree,
    said: Option<&Virtualization>,
    listed: Fact<Vec<VgpuType>>,
) -> Fact<Vgpu> {
    let mode = said.and_then(|said| said.mode.as_deref());
    if let (Some("VGPU"), Some(said)) = (mode, said) {
        return Fact::Known(Vgpu::Guest(VgpuGuest {
            product: said.product.clone(),
            license: said.license.clone(),
            feature_type: tree.feature_type.clone(),
            license_server: tree.license_server.clone(),
            tokens: Fact::Known(tree.tokens.clone()),
        }));
    }
    let is_ours = |other: &PciAddress| *other == pci || functions.contains(other);
    let parents: Vec<&Parent> = tree.parents.iter().filter(|p| is_ours(&p.pci)).collect();
    let mdevs: Vec<&Mdev> = tree.mdevs.iter().filter(|m| is_ours(&m.parent)).collect();
    let is_listed = matches!(&listed, Fact::Known(types) if !types.is_empty());
    if parents.is_empty() && mdevs.is_empty() && !is_listed && mode != Some("Host VGPU") {
        return Fact::Absent;
    }
    let of_mdev = !mdevs.is_empty() || parents.iter().any(|p| p.model == HostModel::Mdev);
    let model = match (of_mdev, parents.is_empty()) {
        (true, _) => Fact::Known(HostModel::Mdev),
        (false, false) => Fact::Known(HostModel::VendorVfio),
        (false, true) => Fact::Absent,
    };
    Fact::Known(Vgpu::Host(VgpuHost {
        model,
        sriov_mode: said.map_or(Fact::Absent, |said| said.sriov.clone()),
        heterogeneous: said.map_or(Fact::Absent, |said| said.heterogeneous.clone()),
        types: offered(&parents, listed),
        existing: existing(&parents, &mdevs),
    }))
}

/// What the tool lists; else what the functions list.
fn offered(parents: &[&Parent], listed: Fact<Vec<VgpuType>>) -> Fact<Vec<VgpuType>> {
    if matches!(&listed, Fact::Known(types) if !types.is_empty()) {
        return listed;
    }
    let mut types: BTreeMap<u32, VgpuType> = BTreeMap::new();
    for parent in parents {
        types.extend(parent.types.iter().map(|t| (t.id, t.clone())));
    }
    match (types.is_empty(), listed) {
        (false, _) => Fact::Known(types.into_values().collect()),
        (true, Fact::Unknown(why)) => Fact::Unknown(why),
        (true, _) => Fact::Unknown("nothing on the host lists the types of vGPU".to_owned()),
    }
}

fn existing(parents: &[&Parent], mdevs: &[&Mdev]) -> Fact<Vec<VgpuInstance>> {
    let mut found = Vec::new();
    for mdev in mdevs {
        let Some(type_id) = mdev.type_id else {
            return Fact::Unknown(format!("the type of {} could not be read", mdev.uuid));
        };
        found.push(VgpuInstance {
            parent: mdev.parent,
            type_id,
            uuid: Fact::Known(mdev.uuid.clone()),
            vm: Fact::from_option(mdev.vm.clone()),
        });
    }
    for parent in parents {
        match &parent.current {
            Fact::Known(0) | Fact::Absent => {}
            Fact::Known(type_id) => found.push(VgpuInstance {
                parent: parent.pci,
                type_id: *type_id,
                uuid: Fact::Absent,
                vm: Fact::Unknown("the driver does not name it".to_owned()),
            }),
            Fact::Unknown(why) => return Fact::Unknown(why.clone()),
        }
    }
    found.sort_by(|one, other| (one.parent, &one.type_id).cmp(&(other.parent, &other.type_id)));
    Fact::Known(found)
}

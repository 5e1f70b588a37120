//! `gpu_incus`: the profiles and instances that a user wants, typed.
//!
//! They come from the block itself and from the `infra.yml` that it names (`infra`). What is
//! wrong with a device is said by `device`; here stand names, kinds and what goes with what.
//! The host is not known here.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::desired::{Block, Desired, GpuPolicy, Located};
use crate::error::{Diagnostic, Origin, Problems};
use crate::platform::GpuInstance;
use crate::value::{Map, Node};

use super::device::{self, Device, Keys, Kind, Program};
use super::infra;

/// The variable.
pub(super) const VARIABLE: &str = "gpu_incus";

/// The project of what names none.
const PROJECT: &str = "default";

/// Devices by name.
pub(super) type Devices = IndexMap<String, Device>;

/// What a user wants of a host's daemon.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The program.
    pub(super) program: Program,
    /// Profiles, in the order in which they are written.
    pub(super) profiles: Vec<Profile>,
    /// Instances, in that order.
    pub(super) instances: Vec<Instance>,
}

/// A profile.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) project: String,
    pub(super) name: String,
    /// How messages call it: the path of its variable.
    pub(super) path: String,
    /// Only given to a profile that is made.
    pub(super) description: String,
    pub(super) config: Keys,
    pub(super) devices: Devices,
}

/// A container or virtual machine.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) project: String,
    pub(super) name: String,
    /// How messages call it: the path of its variable.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Where `gpu: true` is written, if it is.
    pub(super) flag: Option<Origin>,
    /// Profiles that it is to have beside those that it has.
    pub(super) profiles: Vec<Located<String>>,
    pub(super) config: Keys,
    pub(super) devices: Devices,
    /// What it is made from where it is not there.
    pub(super) image: Option<Located<String>>,
    /// What its file says of the policy.
    pub(super) policy: Option<GpuPolicy>,
    pub(super) origin: Origin,
}

impl Wanted {
    /// Reads the block and says what is wrong with it.
    pub(super) fn read(desired: &Desired, problems: &mut Problems) -> Self {
        let mut block = super::super::block(desired, VARIABLE, problems);
        let program = block.word(
            "program",
            Program::Incus,
            &[("incus", Program::Incus), ("lxc", Program::Lxc)],
        );
        let project = block.text("project", PROJECT);
        check_name(&project, "project", is_project, block.problems);
        let mut wanted = Self {
            program: program.value,
            ..Self::default()
        };
        for (name, path, node) in entries(&mut block, "profiles") {
            let profile = read_profile(name, &path, &project.value, node, block.problems);
            wanted.profiles.extend(profile);
        }
        for (name, path, node) in entries(&mut block, "instances") {
            let instance = read_instance(name, &path, &project.value, node, block.problems);
            wanted.instances.extend(instance);
        }
        if let Some(node) = block.node("infra") {
            infra::read(node, &mut wanted, block.problems);
        }
        block.finish();
        wanted.once(problems);
        for instance in &mut wanted.instances {
            let profiles = &wanted.profiles;
            if let Some(origin) = &instance.flag
                && gpus_of(profiles, instance).is_empty()
                && !instance.devices.contains_key("gpu")
            {
                let device = Device::whole_card(origin);
                instance.devices.insert("gpu".to_owned(), device);
            }
        }
        wanted.check(problems);
        wanted
    }

    /// A profile or instance that is written twice would be two wishes for one thing.
    fn once(&mut self, problems: &mut Problems) {
        // The block itself is read first, so that it overrules a file.
        let mut seen: HashSet<(String, String)> = HashSet::new();
        self.profiles
            .retain(|profile| seen.insert((profile.project.clone(), profile.name.clone())));
        let mut seen: IndexMap<(String, String), Origin> = IndexMap::new();
        self.instances.retain(|instance| {
            let key = (instance.project.clone(), instance.name.clone());
            match seen.insert(key, instance.origin.clone()) {
                None => true,
                Some(other) => {
                    let (name, project) = (&instance.name, &instance.project);
                    let message =
                        format!("instance `{name}` of project `{project}` is written twice");
                    let problem = Diagnostic::error(message).at(&instance.origin);
                    problems.push(problem.related(&other, "here, too"));
                    false
                }
            }
        });
    }

    fn check(&self, problems: &mut Problems) {
        let program = self.program;
        for profile in &self.profiles {
            for (name, device) in &profile.devices {
                let path = format!("{}.devices.{name}", profile.path);
                device.check(&path, program, problems);
            }
        }
        for instance in &self.instances {
            for (name, device) in &instance.devices {
                let path = format!("{}.devices.{name}", instance.path);
                device.check(&path, program, problems);
            }
            let config = self.config_of(instance);
            let owner = format!("`{}`", instance.name);
            for (path, device) in self.gpus_of(instance) {
                device.check_for(&path, &owner, instance.kind, &config, problems);
            }
        }
    }

    /// A profile that is written here, for an instance of `project`.
    fn profile<'a>(profiles: &'a [Profile], project: &str, name: &str) -> Option<&'a Profile> {
        let mut found = profiles.iter().filter(|profile| profile.name == name);
        found.find(|profile| profile.project == project)
    }

    /// The settings that an instance has in the end, as far as they are written here.
    pub(super) fn config_of(&self, instance: &Instance) -> Keys {
        let mut config = Keys::new();
        for name in &instance.profiles {
            if let Some(profile) = Self::profile(&self.profiles, &instance.project, &name.value) {
                config.extend(profile.config.clone());
            }
        }
        config.extend(instance.config.clone());
        config
    }

    /// The GPU devices that an instance has in the end, each with the path of its variable.
    pub(super) fn gpus_of<'a>(&'a self, instance: &'a Instance) -> Vec<(String, &'a Device)> {
        gpus_of(&self.profiles, instance)
    }
}

/// A later profile's device, and the instance's own, takes the place of one of the same name.
pub(super) fn gpus_of<'a>(
    profiles: &'a [Profile],
    instance: &'a Instance,
) -> Vec<(String, &'a Device)> {
    let mut devices: IndexMap<&str, (String, &Device)> = IndexMap::new();
    let mut take = |path: &str, found: &'a Devices| {
        for (name, device) in found {
            devices.insert(name, (format!("{path}.devices.{name}"), device));
        }
    };
    for name in &instance.profiles {
        if let Some(profile) = Wanted::profile(profiles, &instance.project, &name.value) {
            take(&profile.path, &profile.devices);
        }
    }
    take(&instance.path, &instance.devices);
    let found = devices.into_values();
    found.filter(|(_, device)| device.is_gpu()).collect()
}

impl Wanted {
    /// The instances that get a GPU, for `gpu_policy`.
    pub(super) fn gpu_instances(&self) -> Vec<GpuInstance> {
        let mut found = Vec::new();
        for instance in &self.instances {
            let gpus = self.gpus_of(instance);
            let Some(origin) = instance
                .flag
                .as_ref()
                .or(gpus.first().map(|(_, device)| &device.origin))
            else {
                continue;
            };
            let types = || gpus.iter().map(|(_, device)| device.gpu_type());
            let is_isolated = !gpus.is_empty()
                && types().all(|found| found.is_some_and(device::GpuType::is_isolated));
            // Where it stands: the device may be that of a profile that several share.
            let origin = instance.flag.as_ref().map_or(&instance.origin, |_| origin);
            let mig = gpus.iter().filter_map(|(_, device)| device.mig_ask());
            let mig = mig.collect();
            found.push(GpuInstance {
                name: instance.name.clone(),
                origin: origin.clone(),
                is_isolated,
                policy: instance.policy,
                mig,
            });
        }
        found
    }
}

/// The entries of a mapping of mappings: name, path, node.
fn entries<'v>(block: &mut Block<'v, '_>, key: &'static str) -> Vec<(&'v str, String, &'v Node)> {
    let Some(node) = block.node(key) else {
        return Vec::new();
    };
    let path = block.path_of(key);
    let Some(map) = mapping(&path, node, block.problems) else {
        return Vec::new();
    };
    map.iter()
        .map(|(name, entry)| (name.as_str(), format!("{path}.{name}"), &entry.node))
        .collect()
}

/// The mapping that must stand there.
pub(super) fn mapping<'v>(path: &str, node: &'v Node, problems: &mut Problems) -> Option<&'v Map> {
    let map = node.as_map();
    if map.is_none() {
        let message = format!("`{path}` must be a mapping, not {}", node.kind());
        problems.push(Diagnostic::error(message).at(&node.origin));
    }
    map
}

/// The devices of a profile or an instance.
pub(super) fn devices(path: &str, node: Option<&Node>, problems: &mut Problems) -> Devices {
    let path = format!("{path}.devices");
    let mut devices = Devices::new();
    let map = node.and_then(|node| mapping(&path, node, problems));
    for (name, entry) in map.into_iter().flatten() {
        let path = format!("{path}.{name}");
        let place = device::written(name, &entry.key);
        check_name(&place, &path, is_word, problems);
        if let Some(device) = Device::read(&path, &entry.node, problems) {
            devices.insert(name.clone(), device);
        }
    }
    devices
}

/// The settings of a profile or an instance.
pub(super) fn config(path: &str, node: Option<&Node>, problems: &mut Problems) -> Keys {
    let path = format!("{path}.config");
    let map = node.and_then(|node| mapping(&path, node, problems));
    let keys = map.map(|map| device::texts(&path, map, problems));
    let keys = keys.unwrap_or_default();
    for (key, text) in &keys {
        let reserved = ["volatile.", super::marks::KEY];
        if reserved.iter().any(|prefix| key.starts_with(prefix)) {
            let message = format!("`{path}.{key}` is not for users");
            problems.push(text.blame(Diagnostic::error(message)));
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !key.contains('.') || !key.chars().all(fine) {
            let message = format!("`{path}` has a key `{key}`, which is no setting of Incus");
            problems.push(text.blame(Diagnostic::error(message)));
        }
    }
    keys
}

fn read_profile(
    name: &str,
    path: &str,
    project: &str,
    node: &Node,
    problems: &mut Problems,
) -> Option<Profile> {
    let place = device::written(name, &node.origin);
    if !check_name(&place, path, is_word, problems) {
        return None;
    }
    let mut block = Block::new(path, Some(node), problems);
    let project = block.text("project", project);
    check_name(&project, "project", is_project, block.problems);
    let description = block.text("description", "");
    let found = Profile {
        project: project.value,
        name: name.to_owned(),
        path: path.to_owned(),
        description: description.value,
        config: config(path, block.node("config"), block.problems),
        devices: devices(path, block.node("devices"), block.problems),
    };
    block.finish();
    Some(found)
}

/// The words for kinds: anklume's, and the daemon's own.
pub(super) const KINDS: [(&str, Kind); 4] = [
    ("container", Kind::Container),
    ("lxc", Kind::Container),
    ("vm", Kind::Vm),
    ("virtual-machine", Kind::Vm),
];

fn read_instance(
    name: &str,
    path: &str,
    project: &str,
    node: &Node,
    problems: &mut Problems,
) -> Option<Instance> {
    let place = device::written(name, &node.origin);
    if !check_name(&place, path, is_host_name, problems) {
        return None;
    }
    let mut block = Block::new(path, Some(node), problems);
    let kind = block.word("type", Kind::Container, &KINDS);
    let project = block.text("project", project);
    check_name(&project, "project", is_project, block.problems);
    let flag = block.flag("gpu", false);
    let profiles = block.texts("profiles").value;
    for profile in &profiles {
        check_name(profile, "profile", is_word, block.problems);
    }
    let image = block.text("image", "");
    let found = Instance {
        project: project.value,
        name: name.to_owned(),
        path: path.to_owned(),
        kind: kind.value,
        flag: flag.origin.filter(|_| flag.value),
        profiles,
        config: config(path, block.node("config"), block.problems),
        devices: devices(path, block.node("devices"), block.problems),
        image: (!image.value.is_empty()).then_some(image),
        policy: None,
        origin: node.origin.clone(),
    };
    if let Some(image) = &found.image {
        check_name(image, "image", is_image, block.problems);
    }
    block.finish();
    Some(found)
}

/// Whether a name is one, and else says so.
pub(super) fn check_name(
    name: &Located<String>,
    what: &str,
    is_right: fn(&str) -> bool,
    problems: &mut Problems,
) -> bool {
    let text = &name.value;
    let right = is_right(text);
    if !right {
        let what = match what.contains('.') {
            true => format!("`{what}`"),
            false => format!("{what} `{text}`"),
        };
        let message = format!("{what} is no name that Incus takes");
        let hint = "letters, digits and `-`, beginning with a letter; names of projects, profiles and devices may have `.`, `_` and digits anywhere";
        problems.push(name.blame(Diagnostic::error(message)).hint(hint));
    }
    right
}

/// Names that mean themselves on a command line and in an address.
pub(super) fn is_word(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fine)
}

pub(super) fn is_project(text: &str) -> bool {
    is_word(text) && !text.contains('_')
}

/// An instance's name is its host name.
pub(super) fn is_host_name(text: &str) -> bool {
    is_word(text)
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && !text.contains(['.', '_'])
}

/// `images:debian/13`, `debian/13`, a fingerprint.
fn is_image(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-/:+".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fine)
}

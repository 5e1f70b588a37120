//! anklume's `infra.yml` as a source of profiles and instances: `domains` are projects,
//! `machines` are instances.
//!
//! Only what is about GPUs is taken: profiles with what they have, machines with their `type`,
//! `gpu`, `profiles`, `config` and `devices`, and `global.gpu_policy`. Addresses, subnets, roles
//! and all other keys are anklume's own business and are read without complaint. anklume makes
//! projects and instances; what it has not made yet is an error that says so.

use crate::desired::{GpuPolicy, Located};
use crate::error::{Diagnostic, Problems, nearest};
use crate::value::{Map, Node, Value};

use super::device::{self, Kind};
use super::wanted::{
    Instance, KINDS, Profile, Wanted, check_name, config, devices, gpus_of, is_host_name,
    is_project, is_word, mapping,
};

const POLICIES: [(&str, GpuPolicy); 2] = [
    ("exclusive", GpuPolicy::Exclusive),
    ("shared", GpuPolicy::Shared),
];

/// Adds what the file says.
pub(super) fn read(node: &Node, wanted: &mut Wanted, problems: &mut Problems) {
    if node.as_str().is_some() {
        let message = "`gpu_incus.infra` is no path that is read";
        let hint = "write it in the inventory, without a template: a path counts from the folder of the file in which it stands";
        problems.push(Diagnostic::error(message).at(&node.origin).hint(hint));
        return;
    }
    let Some(map) = mapping("infra", node, problems) else {
        return;
    };
    let policy = read_policy(map, problems);
    let Some(domains) = get(map, "domains") else {
        let message = "there is no `domains` in this infra.yml";
        problems.push(Diagnostic::error(message).at(&node.origin));
        return;
    };
    for (domain, entry) in mapping("domains", domains, problems).into_iter().flatten() {
        let path = format!("domains.{domain}");
        let place = device::written(domain, &entry.key);
        if !check_name(&place, &path, is_project, problems) {
            continue;
        }
        let Some(map) = mapping(&path, &entry.node, problems) else {
            continue;
        };
        // A domain that is switched off is none.
        if get(map, "enabled").is_some_and(|node| node.value == Value::Bool(false)) {
            continue;
        }
        read_profiles(domain, &path, map, wanted, problems);
        read_machines(domain, &path, map, policy, wanted, problems);
    }
}

fn read_policy(map: &Map, problems: &mut Problems) -> Option<GpuPolicy> {
    let global = mapping("global", get(map, "global")?, problems)?;
    let node = get(global, "gpu_policy")?;
    let text = node.as_str().unwrap_or_default();
    let known = POLICIES.iter().find(|(word, _)| *word == text);
    if known.is_none() {
        let message = match node.as_str() {
            Some(text) => format!("`global.gpu_policy` has no value `{text}`"),
            None => format!("`global.gpu_policy` must be a word, not {}", node.kind()),
        };
        let words = "`exclusive`, `shared`";
        let hint = match nearest(text, POLICIES.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `{near}`? It is one of {words}"),
            None => format!("it is one of {words}"),
        };
        problems.push(Diagnostic::error(message).at(&node.origin).hint(hint));
    }
    known.map(|(_, policy)| *policy)
}

fn read_profiles(
    domain: &str,
    path: &str,
    map: &Map,
    wanted: &mut Wanted,
    problems: &mut Problems,
) {
    let path = format!("{path}.profiles");
    let profiles = get(map, "profiles").and_then(|node| mapping(&path, node, problems));
    for (name, entry) in profiles.into_iter().flatten() {
        let path = format!("{path}.{name}");
        let place = device::written(name, &entry.key);
        let right = check_name(&place, &path, is_word, problems);
        let Some(map) = mapping(&path, &entry.node, problems).filter(|_| right) else {
            continue;
        };
        let profile = Profile {
            project: domain.to_owned(),
            name: name.clone(),
            path: path.clone(),
            description: get(map, "description")
                .and_then(Node::as_str)
                .unwrap_or_default()
                .to_owned(),
            config: config(&path, get(map, "config"), problems),
            devices: devices(&path, get(map, "devices"), problems),
        };
        // Others are no business of ours but for what a GPU device needs beside it.
        let is_about_gpus = profile.devices.values().any(device::Device::is_gpu)
            || profile.config.keys().any(|key| key.starts_with("nvidia."));
        if is_about_gpus {
            wanted.profiles.push(profile);
        }
    }
}

fn read_machines(
    domain: &str,
    path: &str,
    map: &Map,
    policy: Option<GpuPolicy>,
    wanted: &mut Wanted,
    problems: &mut Problems,
) {
    let path = format!("{path}.machines");
    let machines = get(map, "machines").and_then(|node| mapping(&path, node, problems));
    for (name, entry) in machines.into_iter().flatten() {
        let path = format!("{path}.{name}");
        let place = device::written(name, &entry.key);
        let right = check_name(&place, &path, is_host_name, problems);
        let Some(map) = mapping(&path, &entry.node, problems).filter(|_| right) else {
            continue;
        };
        let flag = get(map, "gpu").filter(|node| match &node.value {
            Value::Bool(on) => *on,
            _ => {
                let kind = node.kind();
                let message = format!("`{path}.gpu` must be `true` or `false`, not {kind}");
                problems.push(Diagnostic::error(message).at(&node.origin));
                false
            }
        });
        let instance = Instance {
            project: domain.to_owned(),
            name: name.clone(),
            path: path.clone(),
            kind: read_kind(&path, map, problems),
            flag: flag.map(|node| node.origin.clone()),
            profiles: read_names(&path, map, problems),
            config: config(&path, get(map, "config"), problems),
            devices: devices(&path, get(map, "devices"), problems),
            image: None,
            policy,
            origin: entry.key.clone(),
        };
        // The others are no business of ours, and anklume gives them what they need.
        if instance.flag.is_some() || !gpus_of(&wanted.profiles, &instance).is_empty() {
            wanted.instances.push(instance);
        }
    }
}

fn read_kind(path: &str, map: &Map, problems: &mut Problems) -> Kind {
    let Some(node) = get(map, "type") else {
        return Kind::Container;
    };
    let text = node.as_str().unwrap_or_default();
    let known = KINDS.iter().find(|(word, _)| *word == text);
    if known.is_none() {
        let message = format!("`{path}.type` must be `lxc` or `vm`, not `{text}`");
        problems.push(Diagnostic::error(message).at(&node.origin));
    }
    known.map_or(Kind::Container, |(_, kind)| *kind)
}

fn read_names(path: &str, map: &Map, problems: &mut Problems) -> Vec<Located<String>> {
    let Some(node) = get(map, "profiles") else {
        return Vec::new();
    };
    let items = node.as_seq().unwrap_or_default();
    let mut names = Vec::new();
    let mut wrong = node.as_seq().is_none();
    for item in items {
        match item.as_str() {
            Some(text) => {
                let name = device::written(text, &item.origin);
                if check_name(&name, "profile", is_word, problems) {
                    names.push(name);
                }
            }
            None => wrong = true,
        }
    }
    if wrong {
        let message = format!("`{path}.profiles` must be a list of names");
        problems.push(Diagnostic::error(message).at(&node.origin));
    }
    names
}

/// What stands behind a key; nothing counts as not written.
fn get<'a>(map: &'a Map, key: &str) -> Option<&'a Node> {
    let node = &map.get(key)?.node;
    (node.value != Value::Null).then_some(node)
}

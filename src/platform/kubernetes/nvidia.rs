//! The part of `gpu_kubernetes` that is for NVIDIA's operator and its device plugin, typed and
//! checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::desired::{Block, Located};
use crate::error::{Diagnostic, Problems};
use crate::platform::names::{is_name, is_object_name};
use crate::value::{Node, Value};

use super::wanted::{name, not_a_label};

/// `operator`: NVIDIA's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operator {
    /// `namespace`.
    pub(super) namespace: String,
    /// `policy`: name of the `ClusterPolicy`.
    pub(super) policy: String,
    /// `daemonset`: name of the device plugin's.
    pub(super) daemonset: String,
    /// `mig_strategy`.
    pub(super) mig_strategy: Option<Located<MigStrategy>>,
    /// `mig_configs`: the content of the MIG manager's own ConfigMap, and its name.
    pub(super) mig_configs: Option<(String, Json)>,
    /// `time_slicing`.
    pub(super) time_slicing: Option<TimeSlicing>,
}

/// How MIG devices are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigStrategy {
    /// Not at all.
    None,
    /// All as `nvidia.com/gpu`; they are of one kind.
    Single,
    /// Each kind as a resource of its own.
    Mixed,
}

impl MigStrategy {
    pub(super) const WORDS: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("single", Self::Single),
        ("mixed", Self::Mixed),
    ];

    /// The operator's word.
    pub(super) fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, strategy)| *strategy == self);
        found.map_or("none", |(word, _)| word)
    }
}

/// `time_slicing`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TimeSlicing {
    /// `name` of the ConfigMap.
    pub(super) name: String,
    /// `default`: the configuration of nodes that ask for none by name.
    pub(super) default: String,
    /// `configs` by name.
    pub(super) configs: BTreeMap<String, Sharing>,
}

/// One configuration of the device plugin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sharing {
    /// `resources`: how many copies of each.
    pub(super) resources: Vec<(String, u32)>,
    /// `rename_by_default`.
    pub(super) renamed: bool,
    /// `fail_requests_greater_than_one`.
    pub(super) one_each: bool,
}

impl Sharing {
    /// The configuration as the plugin reads it.
    pub(super) fn document(&self, strategy: MigStrategy) -> Json {
        let resources: Vec<Json> = self
            .resources
            .iter()
            .map(|(name, replicas)| json!({ "name": name, "replicas": replicas }))
            .collect();
        let mut document = json!({ "version": "v1", "flags": { "migStrategy": strategy.word() } });
        if !resources.is_empty() {
            document["sharing"]["timeSlicing"] = json!({
                "renameByDefault": self.renamed,
                "failRequestsGreaterThanOne": self.one_each,
                "resources": resources,
            });
        }
        document
    }
}

/// Reads it.
pub(super) fn operator(mut block: Block<'_, '_>) -> Operator {
    let namespace = name(&mut block, "namespace", "gpu-operator", is_name);
    let policy = name(&mut block, "policy", "cluster-policy", is_object_name);
    let daemonset = "nvidia-device-plugin-daemonset";
    let daemonset = name(&mut block, "daemonset", daemonset, is_object_name);
    let mig_strategy = block.node("mig_strategy").map(|_| ());
    let mig_strategy =
        mig_strategy.map(|()| block.word("mig_strategy", MigStrategy::None, &MigStrategy::WORDS));
    let map = "custom-mig-config";
    let map = name(&mut block, "mig_config_map", map, is_object_name);
    let configs = block.node("mig_configs");
    let path = block.path_of("mig_configs");
    let mig_configs = configs.map(|node| {
        mig_entries(node, &path, block.problems);
        (map, node.to_json())
    });
    let slicing = block.node("time_slicing").is_some();
    let time_slicing = slicing.then(|| time_slicing(block.child("time_slicing")));
    block.finish();
    Operator {
        namespace,
        policy,
        daemonset,
        mig_strategy,
        mig_configs,
        time_slicing,
    }
}

/// The form of mig-parted's `mig-configs`: a list of entries for each name.
fn mig_entries(node: &Node, path: &str, problems: &mut Problems) {
    let Some(map) = node.as_map() else {
        let message = format!(
            "`{path}` must be a mapping of names to lists, not {}",
            node.kind()
        );
        problems.push(Diagnostic::error(message).at(&node.origin));
        return;
    };
    for (name, entry) in map {
        if let Some(why) = not_a_label(name) {
            let message = format!("`{path}.{name}`: {why}");
            problems.push(Diagnostic::error(message).at(&entry.key));
        }
        let Some(items) = entry.node.as_seq() else {
            let message = format!("`{path}.{name}` must be a list, not {}", entry.node.kind());
            problems.push(Diagnostic::error(message).at(&entry.node.origin));
            continue;
        };
        for item in items {
            let mut block = Block::new(&format!("{path}.{name}"), Some(item), problems);
            let devices = block.node("devices");
            block.node("device-filter");
            let enabled = block.flag("mig-enabled", true);
            let profiles = block.node("mig-devices");
            if devices.is_none() {
                let message = format!("`{path}.{name}` has an entry without `devices`");
                block.problems.push(
                    Diagnostic::error(message)
                        .at(&item.origin)
                        .hint("`devices: all`, or a list of indexes"),
                );
            }
            let count = profiles
                .and_then(Node::as_map)
                .map_or(0, indexmap::IndexMap::len);
            if !enabled.value && count > 0 {
                let message =
                    format!("`{path}.{name}` has `mig-devices` where `mig-enabled` is false");
                block
                    .problems
                    .push(enabled.blame(Diagnostic::error(message)));
            }
            block.finish();
        }
    }
}

fn time_slicing(mut block: Block<'_, '_>) -> TimeSlicing {
    let name = block.text("name", "time-slicing-config-all").value;
    let default = block.text("default", "any");
    let mut configs = BTreeMap::new();
    let node = block.node("configs");
    let path = block.path_of("configs");
    for (name, entry) in node.and_then(Node::as_map).into_iter().flatten() {
        let path = format!("{path}.{name}");
        if let Some(why) = not_a_label(name) {
            let message = format!("`{path}`: {why}");
            block
                .problems
                .push(Diagnostic::error(message).at(&entry.key));
        }
        configs.insert(name.clone(), sharing(&path, &entry.node, block.problems));
    }
    if !configs.contains_key(&default.value) {
        let message = format!("`{path}` has no `{}`, which is the default", default.value);
        let problem = default.blame(Diagnostic::error(message));
        block
            .problems
            .push(problem.did_you_mean(&default.value, configs.keys().map(String::as_str)));
    }
    block.finish();
    TimeSlicing {
        name,
        default: default.value,
        configs,
    }
}

/// Reads one configuration of the device plugin.
pub(super) fn sharing(path: &str, node: &Node, problems: &mut Problems) -> Sharing {
    let mut block = Block::new(path, Some(node), problems);
    let replicas = block.count_if_written("replicas", 2, 1024);
    let renamed = block.flag("rename_by_default", false).value;
    let one_each = block.flag("fail_requests_greater_than_one", false).value;
    let listed = block.node("resources");
    let mut resources: Vec<(String, u32)> = Vec::new();
    if let Some(replicas) = &replicas {
        resources.push(("nvidia.com/gpu".to_owned(), replicas.value));
    }
    for (name, entry) in listed.and_then(Node::as_map).into_iter().flatten() {
        if !name.starts_with("nvidia.com/") {
            let message =
                format!("`{path}.resources` has `{name}`, which is no resource of NVIDIA's");
            let hint =
                "such as `nvidia.com/gpu` or, with `mig_strategy: mixed`, `nvidia.com/mig-1g.10gb`";
            block
                .problems
                .push(Diagnostic::error(message).at(&entry.key).hint(hint));
        }
        match entry.node.value {
            Value::Int(count @ 2..=1024) => {
                resources.push((name.clone(), u32::try_from(count).unwrap_or(2)));
            }
            _ => {
                let message =
                    format!("`{path}.resources.{name}` must be a number of copies from 2 to 1024");
                let hint = "a resource that is not to be shared is left out";
                block
                    .problems
                    .push(Diagnostic::error(message).at(&entry.node.origin).hint(hint));
            }
        }
    }
    block.finish();
    Sharing {
        resources,
        renamed,
        one_each,
    }
}

impl Operator {
    /// The kinds of slices in one of `mig_configs`.
    pub(super) fn kinds_of(&self, config: &str) -> Vec<String> {
        let Some((_, configs)) = &self.mig_configs else {
            return Vec::new();
        };
        let mut kinds = Vec::new();
        for entry in configs[config].as_array().into_iter().flatten() {
            for kind in entry["mig-devices"]
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
            {
                if !kinds.contains(kind) {
                    kinds.push(kind.clone());
                }
            }
        }
        kinds
    }

    /// How MIG devices are offered, as far as we know.
    pub(super) fn strategy(&self) -> MigStrategy {
        self.mig_strategy
            .as_ref()
            .map_or(MigStrategy::None, |strategy| strategy.value)
    }
}

//! `gpu_kubernetes`: what a cluster is to have, as the user wrote it, typed and checked.
//!
//! What can be told from the variables alone is told here, with positions. What the cluster
//! has, `object` and `operator` find out.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::desired::{Block, Desired, Located};
use crate::error::{Diagnostic, Problems};
use crate::platform;
use crate::value::{Node, Value};

use super::tool::Tool;

/// The variable.
pub(super) const VARIABLE: &str = "gpu_kubernetes";

/// `gpu_kubernetes`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// `kubeconfig` and `context`.
    pub(super) tool: Tool,
    /// `take_over`: whether fields are taken that others set.
    pub(super) take_over: bool,
    /// `wait_s`: seconds that the operator has for a change.
    pub(super) wait_s: u32,
    /// `operator`.
    pub(super) operator: Operator,
    /// `nodes`, by name.
    pub(super) nodes: Vec<NodeWanted>,
    /// `quotas`.
    pub(super) quotas: Vec<Quota>,
}

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
    const WORDS: [(&'static str, Self); 3] = [
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

/// An entry of `nodes`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeWanted {
    /// Its name.
    pub(super) name: String,
    /// `mig_config`.
    pub(super) mig_config: Option<Located<String>>,
    /// `device_plugin_config`.
    pub(super) plugin_config: Option<Located<String>>,
    /// `drain`: whether pods are moved away where cards change.
    pub(super) drain: bool,
}

/// An entry of `quotas`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quota {
    /// `namespace`.
    pub(super) namespace: String,
    /// `name`.
    pub(super) name: String,
    /// `hard`.
    pub(super) hard: Map<String, Json>,
}

/// Reads the block.
pub(super) fn read(desired: &Desired, problems: &mut Problems) -> Wanted {
    let mut block = platform::block(desired, VARIABLE, problems);
    let tool = Tool {
        kubeconfig: path(&mut block, "kubeconfig"),
        context: block.text("context", "").value,
    };
    let take_over = block.flag("take_over", false).value;
    let wait_s = block.count("wait_s", 600, 5, 7200).value;
    let operator = operator(block.child("operator"));
    let nodes = nodes(&mut block);
    let quotas = quotas(&mut block);
    block.finish();
    let wanted = Wanted {
        tool,
        take_over,
        wait_s,
        operator,
        nodes,
        quotas,
    };
    check(&wanted, problems);
    wanted
}

fn path(block: &mut Block<'_, '_>, key: &'static str) -> String {
    let found = block.text(key, "");
    if !found.value.is_empty() && !found.value.starts_with('/') {
        let message = format!(
            "`{}` must be an absolute path on the host",
            block.path_of(key)
        );
        block.problems.push(found.blame(Diagnostic::error(message)));
    }
    found.value
}

fn operator(mut block: Block<'_, '_>) -> Operator {
    let namespace = block.text("namespace", "gpu-operator").value;
    let policy = block.text("policy", "cluster-policy").value;
    let daemonset = block
        .text("daemonset", "nvidia-device-plugin-daemonset")
        .value;
    let mig_strategy = block.node("mig_strategy").map(|_| ());
    let mig_strategy =
        mig_strategy.map(|()| block.word("mig_strategy", MigStrategy::None, &MigStrategy::WORDS));
    let map = block.text("mig_config_map", "custom-mig-config").value;
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

fn sharing(path: &str, node: &Node, problems: &mut Problems) -> Sharing {
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

fn nodes(block: &mut Block<'_, '_>) -> Vec<NodeWanted> {
    let Some(node) = block.node("nodes") else {
        return Vec::new();
    };
    let path = block.path_of("nodes");
    let Some(map) = node.as_map() else {
        let message = format!("`{path}` must be a mapping of names, not {}", node.kind());
        block
            .problems
            .push(Diagnostic::error(message).at(&node.origin));
        return Vec::new();
    };
    let mut nodes = Vec::new();
    for (name, entry) in map {
        let mut block = Block::new(&format!("{path}.{name}"), Some(&entry.node), block.problems);
        nodes.push(NodeWanted {
            name: name.clone(),
            mig_config: label(&mut block, "mig_config"),
            plugin_config: label(&mut block, "device_plugin_config"),
            drain: block.flag("drain", false).value,
        });
        block.finish();
    }
    nodes
}

/// The value of a label; nothing where it is not written.
fn label(block: &mut Block<'_, '_>, key: &'static str) -> Option<Located<String>> {
    block.node(key)?;
    let found = block.text(key, "");
    if let Some(why) = not_a_label(&found.value) {
        let message = format!("`{}`: {why}", block.path_of(key));
        block.problems.push(found.blame(Diagnostic::error(message)));
    }
    Some(found)
}

/// What is wrong with a text as value of a label.
fn not_a_label(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edges = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fine = text.len() <= 63
        && text.chars().all(plain)
        && edges(text.chars().next())
        && edges(text.chars().last());
    (!fine).then(|| {
        format!("`{text}` cannot be the value of a label: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends")
    })
}

fn quotas(block: &mut Block<'_, '_>) -> Vec<Quota> {
    let Some(node) = block.node("quotas") else {
        return Vec::new();
    };
    let path = block.path_of("quotas");
    let Some(items) = node.as_seq() else {
        let message = format!("`{path}` must be a list, not {}", node.kind());
        block
            .problems
            .push(Diagnostic::error(message).at(&node.origin));
        return Vec::new();
    };
    let mut quotas = Vec::new();
    for item in items {
        let mut block = Block::new(&path, Some(item), block.problems);
        let namespace = block.text("namespace", "").value;
        let name = block.text("name", "compute-resources").value;
        let mut hard = Map::new();
        if namespace.is_empty() {
            let message = format!("an entry of `{path}` has no `namespace`");
            block
                .problems
                .push(Diagnostic::error(message).at(&item.origin));
        }
        for (resource, entry) in block
            .node("hard")
            .and_then(Node::as_map)
            .into_iter()
            .flatten()
        {
            let quantity = match &entry.node.value {
                Value::Int(count) if *count >= 0 => Some(count.to_string()),
                Value::Str(text) => Some(text.clone()),
                _ => None,
            };
            if resource.contains('/') && !resource.starts_with("requests.") {
                let message =
                    format!("`{path}`: a quota of {resource} is named `requests.{resource}`");
                let hint = "for GPUs requests and limits are equal, and a quota counts requests";
                block
                    .problems
                    .push(Diagnostic::error(message).at(&entry.key).hint(hint));
            }
            match quantity {
                // Quantities are texts in the API.
                Some(quantity) => {
                    hard.insert(resource.clone(), json!(quantity));
                }
                None => {
                    let message =
                        format!("`{path}`: `{resource}` must be a number that is not negative");
                    block
                        .problems
                        .push(Diagnostic::error(message).at(&entry.node.origin));
                }
            }
        }
        block.finish();
        quotas.push(Quota {
            namespace,
            name,
            hard,
        });
    }
    quotas
}

/// What does not fit together.
fn check(wanted: &Wanted, problems: &mut Problems) {
    let operator = &wanted.operator;
    for node in &wanted.nodes {
        if let (Some(config), Some(slicing)) = (&node.plugin_config, &operator.time_slicing)
            && !slicing.configs.contains_key(&config.value)
        {
            let message = format!(
                "`time_slicing` has no configuration `{}`, which node {} asks for",
                config.value, node.name
            );
            let known = slicing.configs.keys().map(String::as_str);
            problems.push(
                config
                    .blame(Diagnostic::error(message))
                    .did_you_mean(&config.value, known),
            );
        }
        if let (Some(config), Some((_, configs))) = (&node.mig_config, &operator.mig_configs)
            && configs.get(&config.value).is_none()
        {
            let message = format!(
                "`mig_configs` has no `{}`, which node {} asks for",
                config.value, node.name
            );
            let known = configs.as_object().into_iter().flat_map(Map::keys);
            let problem = config.blame(Diagnostic::error(message));
            problems.push(problem.did_you_mean(&config.value, known.map(String::as_str)));
        }
        // The plugin gives up where slices of several kinds are to look alike.
        if let (Some(config), Some(strategy)) = (&node.mig_config, &operator.mig_strategy)
            && strategy.value == MigStrategy::Single
            && operator.kinds_of(&config.value).len() > 1
        {
            let message = format!(
                "`mig_strategy: single` offers slices of one kind, and `{}` of node {} has {}",
                config.value,
                node.name,
                operator.kinds_of(&config.value).join(", ")
            );
            problems.push(
                config
                    .blame(Diagnostic::error(message))
                    .hint("`mig_strategy: mixed` offers each kind by its own name"),
            );
        }
    }
    let mixed = operator
        .mig_strategy
        .as_ref()
        .map(|strategy| strategy.value)
        == Some(MigStrategy::Mixed);
    for (name, sharing) in operator
        .time_slicing
        .iter()
        .flat_map(|slicing| &slicing.configs)
    {
        let slice = sharing
            .resources
            .iter()
            .find(|(resource, _)| resource.starts_with("nvidia.com/mig-"));
        if let (Some((resource, _)), false) = (slice, mixed) {
            let message = format!(
                "`time_slicing.configs.{name}` shares {resource}, which there is only with `mig_strategy: mixed`"
            );
            problems.push(Diagnostic::error(message));
        }
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

//! `gpu_kubernetes`: what a cluster is to have, as the user wrote it, typed and checked.
//!
//! What can be told from the variables alone is told here, with positions. What the cluster
//! has, `object` and `operator` find out.

use serde_json::{Map, Value as Json, json};

use crate::desired::{Block, Desired, DevicePlugin, Located};
use crate::error::{Diagnostic, Problems};
use crate::platform;
use crate::platform::names::{is_name, is_object_name};
use crate::value::{Node, Value};

use super::amd::{self, ConfigManager};
use super::nvidia::{self, MigStrategy, Operator, sharing};
use super::plugin::{Naming, Plugin};
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
    /// `drain`: whether pods are moved away where cards change, on nodes that do not say.
    pub(super) drain: bool,
    /// `wait_s`: seconds that the operator has for a change.
    pub(super) wait_s: u32,
    /// `operator`.
    pub(super) operator: Operator,
    /// `nodes`, by name.
    pub(super) nodes: Vec<NodeWanted>,
    /// `quotas`.
    pub(super) quotas: Vec<Quota>,
    /// `test_pod`.
    pub(super) test_pod: Option<TestPod>,
    /// `amd_config_manager`.
    pub(super) config_manager: Option<ConfigManager>,
    /// `plugin`, where no operator brings one.
    pub(super) plugin: Option<Plugin>,
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
    /// `amd_profile`.
    pub(super) amd_profile: Option<Located<String>>,
    /// `drain`: whether pods are moved away where cards change.
    pub(super) drain: bool,
}

/// `test_pod`: a workload that shows that GPUs compute, once all is done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TestPod {
    /// `namespace`.
    pub(super) namespace: String,
    /// `image`.
    pub(super) image: String,
    /// `resource` of which it gets one.
    pub(super) resource: String,
}

/// NVIDIA's sample.
const VECTORADD: &str = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0";

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

impl Wanted {
    /// Whether pods of a node are moved away where its cards change, which it need not have an
    /// entry for: one that had is given up.
    pub(super) fn drains(&self, node: &str) -> bool {
        let found = self.nodes.iter().find(|wanted| wanted.name == node);
        found.map_or(self.drain, |wanted| wanted.drain)
    }
}

/// Reads the block.
pub(super) fn read(desired: &Desired, problems: &mut Problems) -> Wanted {
    let mut block = platform::block(desired, VARIABLE, problems);
    let tool = Tool {
        kubeconfig: path(&mut block, "kubeconfig"),
        context: block.text("context", "").value,
    };
    let take_over = block.flag("take_over", false).value;
    let drain = block.flag("drain", false).value;
    let wait_s = block.count("wait_s", 600, 5, 7200).value;
    let operator = nvidia::operator(block.child("operator"));
    let nodes = nodes(&mut block, drain);
    let quotas = quotas(&mut block);
    let test_pod = block.node("test_pod").is_some();
    let test_pod = test_pod.then(|| test_pod_of(block.child("test_pod")));
    let manager = block.node("amd_config_manager").is_some();
    let config_manager = manager.then(|| amd::read(block.child("amd_config_manager")));
    let vendor = desired.integration.device_plugin.value;
    let plugin = block.node("plugin").is_some();
    let plugin = plugin.then(|| plugin_of(block.child("plugin"), vendor));
    block.finish();
    let wanted = Wanted {
        tool,
        take_over,
        drain,
        wait_s,
        operator,
        nodes,
        quotas,
        test_pod,
        config_manager,
        plugin,
    };
    check(&wanted, problems);
    wanted
}

/// A name of an object, or of a namespace, as the API server takes it.
pub(super) fn name(
    block: &mut Block<'_, '_>,
    key: &'static str,
    default: &str,
    fits: fn(&str) -> bool,
) -> String {
    let found = block.text(key, default);
    // One that has to be written and is not, is told by who reads it.
    let is_missing = found.value.is_empty() && !found.is_written();
    if !fits(&found.value) && !is_missing {
        let message = format!(
            "`{}`: `{}` is no name that Kubernetes takes",
            block.path_of(key),
            found.value
        );
        let problem = Diagnostic::error(message).hint(NAMES);
        block.problems.push(found.blame(problem));
    }
    found.value
}

/// What names look like.
const NAMES: &str = "lower-case letters, digits and `-`, a letter or digit at both ends, at most 63; where it is no namespace, parts of that kind with `.` between them";

fn test_pod_of(mut block: Block<'_, '_>) -> TestPod {
    let test = TestPod {
        namespace: name(&mut block, "namespace", "default", is_name),
        image: block.text("image", VECTORADD).value,
        resource: block.text("resource", "nvidia.com/gpu").value,
    };
    block.finish();
    test
}

fn plugin_of(mut block: Block<'_, '_>, vendor: DevicePlugin) -> Plugin {
    let namespace = name(&mut block, "namespace", "kube-system", is_name);
    let image = block.text("image", "").value;
    let mut selector = Map::new();
    for (name, entry) in block
        .node("node_selector")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
    {
        match entry.node.as_str() {
            Some(text) => {
                selector.insert(name.clone(), json!(text));
            }
            None => {
                let message = format!(
                    "the label `{name}` must be a string, not {}",
                    entry.node.kind()
                );
                let hint = "with quotes where it looks like something else: `\"true\"`";
                block
                    .problems
                    .push(Diagnostic::error(message).at(&entry.node.origin).hint(hint));
            }
        }
    }
    let path = block.path_of("sharing");
    let sharing = block
        .node("sharing")
        .map(|node| sharing(&path, node, block.problems));
    let mig_strategy = block.word("mig_strategy", MigStrategy::None, &MigStrategy::WORDS);
    let words = [("single", Naming::Single), ("mixed", Naming::Mixed)];
    let naming = block.word("naming", Naming::Single, &words);
    let shared = block.count_if_written("shared_devices", 1, 1024);
    // What another vendor's plugin knows would be missed in silence.
    let of = |key: &str, written: bool, whose: DevicePlugin, name: &str| {
        (written && vendor != whose).then(|| {
            format!("`{key}` is {name}'s, and `containers_gpu_container_integration.device_plugin` says another plugin")
        })
    };
    let misplaced = [
        of("sharing", sharing.is_some(), DevicePlugin::Nvidia, "NVIDIA"),
        of(
            "mig_strategy",
            mig_strategy.is_written(),
            DevicePlugin::Nvidia,
            "NVIDIA",
        ),
        of("naming", naming.is_written(), DevicePlugin::Amd, "AMD"),
        of(
            "shared_devices",
            shared.is_some(),
            DevicePlugin::Intel,
            "Intel",
        ),
    ];
    for message in misplaced.into_iter().flatten() {
        let problem = Diagnostic::error(message);
        let problem = match &block.origin {
            Some(origin) => problem.at(origin),
            None => problem,
        };
        block.problems.push(problem);
    }
    block.finish();
    Plugin {
        vendor,
        namespace,
        image,
        selector,
        sharing,
        mig_strategy: mig_strategy.value,
        naming,
        shared,
    }
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

fn nodes(block: &mut Block<'_, '_>, drains: bool) -> Vec<NodeWanted> {
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
        if !is_object_name(name) {
            let message = format!("`{path}`: `{name}` is no name of a node");
            let hint = "as `kubectl get nodes` shows it";
            block
                .problems
                .push(Diagnostic::error(message).at(&entry.key).hint(hint));
        }
        let mut block = Block::new(&format!("{path}.{name}"), Some(&entry.node), block.problems);
        nodes.push(NodeWanted {
            name: name.clone(),
            mig_config: label(&mut block, "mig_config"),
            plugin_config: label(&mut block, "device_plugin_config"),
            amd_profile: label(&mut block, "amd_profile"),
            drain: block.flag("drain", drains).value,
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
pub(super) fn not_a_label(text: &str) -> Option<String> {
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
        let namespace = name(&mut block, "namespace", "", is_name);
        let name = name(&mut block, "name", "compute-resources", is_object_name);
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
        if let (Some(profile), Some(manager)) = (&node.amd_profile, &wanted.config_manager)
            && !manager.profiles.contains_key(&profile.value)
        {
            let message = format!(
                "`amd_config_manager.profiles` has no `{}`, which node {} asks for",
                profile.value, node.name
            );
            let known = manager.profiles.keys().map(String::as_str);
            let problem = profile.blame(Diagnostic::error(message));
            problems.push(problem.did_you_mean(&profile.value, known));
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

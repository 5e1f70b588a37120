//! What runs in the cluster: NVIDIA's operator with its MIG manager, feature discovery and
//! device plugin, the controller of daemon sets, and a scheduler for pods.
//!
//! Time is counted in requests, so that what a client sees does not depend on how fast it is.
//! Written from the documentation of the operator: `nvidia.com/mig.config.state` goes from
//! `pending` to `success` or `failed`, the deploy labels are `paused-for-mig-change` meanwhile,
//! and the plugin reads its configuration when its daemon set rolls out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::admission::{demand, quantity};
use super::cluster::{Cluster, text};
use super::dcm::{self, AmdCards};
use super::fields::{self, Writer};
use super::kinds::{self, Kind};
use super::{exec, mig};

/// Requests that a change of MIG configuration takes.
const PATIENCE: u32 = 3;

/// The label that says which configuration a node is to have, and the one that says how far
/// it is.
const CONFIG: &str = "nvidia.com/mig.config";
const STATE: &str = "nvidia.com/mig.config.state";
const DEPLOY: [&str; 3] = [
    "nvidia.com/gpu.deploy.device-plugin",
    "nvidia.com/gpu.deploy.gpu-feature-discovery",
    "nvidia.com/gpu.deploy.dcgm-exporter",
];

/// What goes wrong with the operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorFault {
    /// Nothing.
    #[default]
    None,
    /// A change of MIG configuration stays pending for ever.
    Stuck,
    /// A change of MIG configuration fails.
    Failed,
    /// The plugin takes no notice of a configuration.
    PluginDeaf,
}

/// What the controllers remember.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Operator {
    nodes: BTreeMap<String, Cards>,
    /// Generations of policy and daemon set that the plugin was rolled out for.
    rolled: (u64, u64),
    /// Its configurations, and the default among them.
    plugin: BTreeMap<String, String>,
    default: String,
    namespace: String,
    /// Nodes with AMD's cards.
    #[serde(default)]
    pub(super) amd: BTreeMap<String, AmdCards>,
    ran: BTreeMap<String, u32>,
}

/// The cards of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cards {
    /// Product as the driver names it.
    pub(super) product: String,
    pub(super) memory: u64,
    pub(super) count: u64,
    /// Profiles that the card has: how many of each at most, and the units that one takes.
    pub(super) profiles: BTreeMap<String, (u64, u64)>,
    /// Units of a card.
    pub(super) units: u64,
    /// Configuration in force.
    pub(super) config: String,
    /// MIG devices by profile, of all cards.
    pub(super) devices: BTreeMap<String, u64>,
    /// Configuration on its way, and for how many requests more.
    pub(super) next: Option<(String, u32)>,
}

impl Operator {
    /// A node with cards joins.
    pub(super) fn join(&mut self, node: &str, cards: Cards) {
        "all-disabled".clone_into(&mut self.nodes.entry(node.to_owned()).or_insert(cards).config);
    }

    /// The cards of a node.
    pub(super) fn cards(&self, node: &str) -> Option<&Cards> {
        self.nodes.get(node)
    }
}

/// The names of the nodes with cards.
pub(super) fn nodes(operator: &Operator) -> impl Iterator<Item = &String> {
    operator.nodes.keys()
}

fn kind(group: &str, plural: &str) -> &'static Kind {
    kinds::find(group, plural).unwrap_or(&kinds::KINDS[0])
}

/// One moment passes.
pub(super) fn tick(cluster: &mut Cluster, fault: OperatorFault) {
    exec::pods_of_sets(cluster);
    roll_out(cluster, fault);
    let names: Vec<String> = cluster.operator.nodes.keys().cloned().collect();
    for name in names {
        manage_mig(cluster, &name, fault);
        show(cluster, &name);
    }
    dcm::tick(cluster);
    schedule(cluster);
    count_quotas(cluster);
}

/// Puts an object as a controller writes it.
pub(super) fn write(
    cluster: &mut Cluster,
    kind: &Kind,
    before: &Json,
    mut after: Json,
    manager: &str,
) {
    let writer = Writer {
        manager: manager.to_owned(),
        api_version: kind.api_version(),
        now: super::cluster::now(),
    };
    if *before != after {
        fields::track(Some(before), &mut after, &writer);
        cluster.put(kind, after);
    }
}

/// The daemon set and the plugin behind it.
fn roll_out(cluster: &mut Cluster, fault: OperatorFault) {
    let sets = kind("apps", "daemonsets");
    let nodes = u64::try_from(cluster.operator.nodes.len()).unwrap_or(0);
    let all: Vec<Json> = cluster.list(sets, "").into_iter().cloned().collect();
    for set in all {
        let mut after = set.clone();
        after["status"] = json!({
            "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": nodes,
            "currentNumberScheduled": nodes, "updatedNumberScheduled": nodes,
            "numberReady": nodes, "numberAvailable": nodes, "numberMisscheduled": 0,
        });
        if set != after {
            cluster.put(sets, after);
        }
    }
    let policies = cluster.list(kind("nvidia.com", "clusterpolicies"), "");
    let Some(policy) = policies.first() else {
        return;
    };
    let generation = |object: &Json| object["metadata"]["generation"].as_u64().unwrap_or(0);
    let namespace = cluster.operator.namespace.clone();
    let set = cluster.get(sets, &namespace, "nvidia-device-plugin-daemonset");
    let now = (generation(policy), set.map_or(0, generation));
    if cluster.operator.rolled == now || fault == OperatorFault::PluginDeaf {
        return;
    }
    let name = text(policy, "/spec/devicePlugin/config/name").to_owned();
    let default = text(policy, "/spec/devicePlugin/config/default").to_owned();
    let map = cluster.get(kind("", "configmaps"), &namespace, &name);
    let data = map.and_then(|map| map["data"].as_object()).cloned();
    let data = data.into_iter().flatten();
    let texts = data.map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()));
    cluster.operator.plugin = texts.collect();
    cluster.operator.default = default;
    cluster.operator.rolled = now;
}

/// The MIG manager.
fn manage_mig(cluster: &mut Cluster, name: &str, fault: OperatorFault) {
    let nodes = kind("", "nodes");
    let Some(node) = cluster.get(nodes, "", name).cloned() else {
        return;
    };
    let Some(cards) = cluster.operator.nodes.get(name).cloned() else {
        return;
    };
    let label = |label: &str| node["metadata"]["labels"][label].as_str().unwrap_or("");
    let wanted = label(CONFIG).to_owned();
    let mut after = node.clone();
    if wanted.is_empty() && !cards.profiles.is_empty() {
        // The operator gives a node that lost the label its default.
        let policies = cluster.list(kind("nvidia.com", "clusterpolicies"), "");
        let default = policies
            .first()
            .map_or("", |policy| text(policy, "/spec/migManager/config/default"));
        after["metadata"]["labels"][CONFIG] = json!(default);
        return write(cluster, nodes, &node, after, "gpu-operator");
    }
    let labels = &mut after["metadata"]["labels"];
    let mut cards_after = cards.clone();
    match &cards.next {
        _ if cards.profiles.is_empty() || wanted.is_empty() => {}
        Some((config, _)) if *config == wanted && fault == OperatorFault::Stuck => {}
        Some((config, 0)) if *config == wanted => {
            let busy = busy(cluster, name);
            let found = mig::devices(cluster, &wanted, &cards).filter(|_| !busy);
            cards_after.next = None;
            cards_after.config.clone_from(&wanted);
            labels[STATE] = json!("failed");
            if let Some(devices) = found.filter(|_| fault != OperatorFault::Failed) {
                cards_after.devices = devices;
                labels[STATE] = json!("success");
            }
            for deploy in DEPLOY {
                labels[deploy] = json!("true");
            }
        }
        Some((config, left)) if *config == wanted => {
            cards_after.next = Some((wanted, left - 1));
        }
        None if cards.config == wanted => {}
        _ => {
            cards_after.next = Some((wanted, PATIENCE));
            labels[STATE] = json!("pending");
            for deploy in DEPLOY {
                labels[deploy] = json!("paused-for-mig-change");
            }
        }
    }
    cluster.operator.nodes.insert(name.to_owned(), cards_after);
    write(cluster, nodes, &node, after, "nvidia-mig-manager");
}

/// Whether pods on a node have cards or slices of it.
fn busy(cluster: &Cluster, node: &str) -> bool {
    let pods = cluster.list(kind("", "pods"), "");
    pods.iter().any(|pod| {
        text(pod, "/spec/nodeName") == node
            && text(pod, "/status/phase") == "Running"
            && resources(pod).any(|name| name.starts_with("nvidia.com/"))
    })
}

fn resources(pod: &Json) -> impl Iterator<Item = &String> {
    let containers = pod.pointer("/spec/containers").and_then(Json::as_array);
    containers.into_iter().flatten().flat_map(|container| {
        let limits = container["resources"]["limits"].as_object();
        limits.into_iter().flat_map(Map::keys)
    })
}

/// How the plugin on a node shares each resource: copies, renamed or not, by MPS or not.
fn sharing(cluster: &Cluster, node: &Json) -> BTreeMap<String, (u64, bool)> {
    let key = text(node, "/metadata/labels/nvidia.com~1device-plugin.config");
    let operator = &cluster.operator;
    let key = if key.is_empty() {
        &operator.default
    } else {
        key
    };
    let config = operator.plugin.get(key).map_or("", String::as_str);
    let config: Json = serde_yaml::from_str(config).unwrap_or_default();
    let slicing = &config["sharing"]["timeSlicing"];
    let renamed = slicing["renameByDefault"].as_bool() == Some(true);
    let list = slicing["resources"].as_array().into_iter().flatten();
    list.map(|entry| {
        let name = entry["name"].as_str().unwrap_or_default().to_owned();
        (name, (quantity(&entry["replicas"]), renamed))
    })
    .collect()
}

/// Feature discovery's labels and the plugin's resources.
fn show(cluster: &mut Cluster, name: &str) {
    let nodes = kind("", "nodes");
    let Some(node) = cluster.get(nodes, "", name).cloned() else {
        return;
    };
    let Some(cards) = cluster.operator.nodes.get(name).cloned() else {
        return;
    };
    // Both are paused while the cards change.
    if cards.next.is_some() {
        return;
    }
    let policies = cluster.list(kind("nvidia.com", "clusterpolicies"), "");
    let strategy = policies
        .first()
        .map_or("single", |policy| text(policy, "/spec/mig/strategy"));
    let strategy = if strategy.is_empty() {
        "single"
    } else {
        strategy
    };
    let sharing = sharing(cluster, &node);
    let plain: String = cards
        .product
        .split_whitespace()
        .map(|word| {
            let fits = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
            word.chars().filter(fits).collect::<String>()
        })
        .collect::<Vec<_>>()
        .join("-");
    let shown = |resource: &str| sharing.get(resource).copied().unwrap_or((1, false));
    let mut after = node.clone();
    let mut allocatable = Map::new();
    let labels = &mut after["metadata"]["labels"];
    if let Some(labels) = labels.as_object_mut() {
        labels.retain(|label, _| {
            !label.starts_with("nvidia.com/mig-") && !label.starts_with("nvidia.com/gpu.slices")
        });
    }
    let mut offer = |resource: &str, count: u64| {
        let (copies, renamed) = shown(resource);
        let name = if renamed {
            format!("{resource}.shared")
        } else {
            resource.to_owned()
        };
        allocatable.insert(name, json!((count * copies.max(1)).to_string()));
        let suffix = if copies > 1 && !renamed {
            "-SHARED"
        } else {
            ""
        };
        (copies.max(1), suffix)
    };
    labels["nvidia.com/mig.strategy"] = json!(strategy);
    labels["nvidia.com/gpu.memory"] = json!(cards.memory.to_string());
    labels["nvidia.com/gpu.sharing-strategy"] = json!("none");
    let set = |labels: &mut Json, count: u64, copies: u64, product: String| {
        labels["nvidia.com/gpu.count"] = json!(count.to_string());
        labels["nvidia.com/gpu.replicas"] = json!(copies.to_string());
        labels["nvidia.com/gpu.product"] = json!(product);
        if copies > 1 {
            labels["nvidia.com/gpu.sharing-strategy"] = json!("time-slicing");
        }
    };
    let total: u64 = cards.devices.values().sum();
    match (strategy, cards.devices.len()) {
        ("mixed", 1..) => {
            set(labels, cards.count, 0, plain.clone());
            for (profile, count) in &cards.devices {
                let profile = profile.replace('+', ".");
                let (copies, suffix) = offer(&format!("nvidia.com/mig-{profile}"), *count);
                let label = |part: &str| format!("nvidia.com/mig-{profile}.{part}");
                labels[label("count")] = json!(count.to_string());
                labels[label("replicas")] = json!(copies.to_string());
                labels[label("product")] = json!(format!("{plain}-MIG-{profile}{suffix}"));
            }
        }
        ("single", 1) => {
            let profile = cards.devices.keys().next().cloned().unwrap_or_default();
            let (copies, suffix) = offer("nvidia.com/gpu", total);
            let product = format!("{plain}-MIG-{}{suffix}", profile.replace('+', "."));
            set(labels, total, copies, product);
        }
        // Slices of several kinds are more than `single` can show: the plugin gives up.
        ("single", 2..) => {
            offer("nvidia.com/gpu", 0);
            set(labels, 0, 0, format!("{plain}-MIG-INVALID"));
        }
        _ => {
            let (copies, suffix) = offer("nvidia.com/gpu", cards.count);
            set(labels, cards.count, copies, format!("{plain}{suffix}"));
        }
    }
    let base = [("cpu", "64"), ("memory", "527903644Ki"), ("pods", "110")];
    for (name, value) in base {
        allocatable.insert(name.to_owned(), json!(value));
    }
    after["status"]["capacity"] = Json::Object(allocatable.clone());
    after["status"]["allocatable"] = Json::Object(allocatable);
    write(cluster, nodes, &node, after, "gpu-feature-discovery");
}

/// Pods find a node, run, and those that are to end do so.
fn schedule(cluster: &mut Cluster) {
    let pods = kind("", "pods");
    let all: Vec<Json> = cluster.list(pods, "").into_iter().cloned().collect();
    for pod in all {
        let mut after = pod.clone();
        let id = text(&pod, "/metadata/uid").to_owned();
        match text(&pod, "/status/phase") {
            "Pending" | "" => match place(cluster, &pod) {
                Some(node) => {
                    after["spec"]["nodeName"] = json!(node);
                    after["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
                }
                None => {
                    let why = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu." }]);
                    after["status"] = json!({ "phase": "Pending", "conditions": why });
                }
            },
            "Running" if !matches!(text(&pod, "/spec/restartPolicy"), "" | "Always") => {
                let ran = cluster.operator.ran.entry(id).or_insert(0);
                *ran += 1;
                if *ran > PATIENCE {
                    let passes = is_sample(&pod);
                    let phase = if passes { "Succeeded" } else { "Failed" };
                    after["status"] = json!({ "phase": phase });
                }
            }
            _ => {}
        }
        if pod != after {
            cluster.put(pods, after);
        }
    }
}

fn is_sample(pod: &Json) -> bool {
    let images = pod.pointer("/spec/containers").and_then(Json::as_array);
    let mut images = images
        .into_iter()
        .flatten()
        .map(|container| text(container, "/image"));
    images.any(|image| image.contains("vectoradd") || image.contains("cuda-sample"))
}

/// A node that has room for a pod.
fn place(cluster: &Cluster, pod: &Json) -> Option<String> {
    let named = text(pod, "/spec/nodeName");
    let pods = cluster.list(kind("", "pods"), "");
    cluster
        .list(kind("", "nodes"), "")
        .into_iter()
        .find_map(|node| {
            let name = text(node, "/metadata/name");
            let fits = |resource: &String| {
                let offered = quantity(&node["status"]["allocatable"][resource]);
                let taken = pods.iter().filter(|other| {
                    text(other, "/spec/nodeName") == name
                        && text(other, "/status/phase") == "Running"
                });
                let taken: u64 = taken.map(|other| demand(other, resource)).sum();
                taken + demand(pod, resource) <= offered
            };
            let selector = pod["spec"]["nodeSelector"].as_object();
            let is_meant = selector.into_iter().flatten().all(|(label, value)| {
                node["metadata"]["labels"][label] == *value
                    || label == "kubernetes.io/hostname" && value == name
            });
            let open = named == name || named.is_empty() && node["spec"]["unschedulable"] != true;
            let needs = resources(pod).filter(|resource| resource.contains('/'));
            let has_room = { needs }.all(fits);
            (open && is_meant && has_room).then(|| name.to_owned())
        })
}

/// What a pod wrote.
pub(super) fn log(cluster: &Cluster, namespace: &str, name: &str) -> String {
    let pod = cluster.get(kind("", "pods"), namespace, name);
    let phase = pod.map_or("", |pod| text(pod, "/status/phase"));
    match phase {
        "Succeeded" => "[Vector addition of 50000 elements]\nCopy input data from the host memory to the CUDA device\nCUDA kernel launch with 196 blocks of 256 threads\nCopy output data from the CUDA device to the host memory\nTest PASSED\nDone\n".to_owned(),
        "Failed" => "[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code no CUDA-capable device is detected)!\n".to_owned(),
        _ => String::new(),
    }
}

fn count_quotas(cluster: &mut Cluster) {
    let quotas = kind("", "resourcequotas");
    let all: Vec<Json> = cluster.list(quotas, "").into_iter().cloned().collect();
    for quota in all {
        let namespace = text(&quota, "/metadata/namespace");
        let pods = cluster.list(kind("", "pods"), namespace);
        let hard = quota["spec"]["hard"].clone();
        let mut used = Map::new();
        for name in hard.as_object().into_iter().flat_map(Map::keys) {
            let resource = name.trim_start_matches("requests.");
            let running = pods
                .iter()
                .filter(|pod| text(pod, "/status/phase") == "Running");
            let sum: u64 = running.map(|pod| demand(pod, resource)).sum();
            used.insert(name.clone(), json!(sum.to_string()));
        }
        let mut after = quota.clone();
        after["status"] = json!({ "hard": hard, "used": used });
        if quota != after {
            cluster.put(quotas, after);
        }
    }
}

/// The namespace of the operator.
pub(super) fn set_namespace(operator: &mut Operator, namespace: &str) {
    namespace.clone_into(&mut operator.namespace);
}

//! What keeps pods from their GPUs, each with the command that mends it: what a person looks at
//! by hand (labels of nodes, the operator's daemon sets, what nodes offer, quotas, pods that
//! wait), looked through by a program.

use serde_json::{Value as Json, json};

use crate::platform::Host;
use crate::platform::doctor::{Finding, SET_UP};
use crate::render::{Halt, Rendered};
use crate::transport::Read;

use super::manifests::{self, MIG_CONFIG};
use super::plugin::Plugin;
use super::tool::{Name, answered};
use super::wanted::{NodeWanted, Quota, Wanted};
use super::{amd, pods};

/// The daemon set that brings the container toolkit to nodes.
const TOOLKIT: &str = "nvidia-container-toolkit-daemonset";
/// The one that slices cards.
const MIG_MANAGER: &str = "nvidia-mig-manager";
/// What the operator's labels say while the MIG manager is at work, and where it gave up.
const PAUSED: &str = "paused-for-mig-change";
/// Most pods of which a finding tells.
const MOST_PODS: usize = 8;

/// Looks at everything that the block names.
pub(super) fn examine(wanted: &Wanted, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
    let mut asked = Asked {
        wanted,
        host,
        pending: false,
    };
    let mut found = Vec::new();
    asked.of_operator(&mut found)?;
    asked.of_plugin(&mut found)?;
    asked.of_objects(&mut found)?;
    asked.of_nodes(&mut found)?;
    asked.of_quotas(&mut found)?;
    asked.of_waiting(&mut found)?;
    match asked.pending {
        true => Err(Halt::Pending),
        false => Ok(found),
    }
}

struct Asked<'a, 'h> {
    wanted: &'a Wanted,
    host: &'h mut dyn Host,
    pending: bool,
}

impl Asked<'_, '_> {
    fn answer(&mut self, read: &Read, what: &str) -> Rendered<Option<Json>> {
        match answered(self.host, read, what) {
            // Others are asked in the same round.
            Err(Halt::Pending) => {
                self.pending = true;
                Ok(None)
            }
            other => other,
        }
    }

    fn live(&mut self, object: &Json) -> Rendered<Option<Json>> {
        let name = Name::of(object);
        self.answer(&self.wanted.tool.live(&name), &name.label())
    }

    /// NVIDIA's operator, where the block asks something of it.
    fn of_operator(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        let operator = &self.wanted.operator;
        let of_nodes =
            |node: &NodeWanted| node.mig_config.is_some() || node.plugin_config.is_some();
        let is_asked = operator.mig_strategy.is_some()
            || operator.mig_configs.is_some()
            || operator.time_slicing.is_some()
            || self.wanted.nodes.iter().any(of_nodes);
        if !is_asked {
            return Ok(());
        }
        let policy = json!({
            "apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy",
            "metadata": { "name": operator.policy },
        });
        let live = self.live(&policy)?;
        if !self.pending {
            found.extend(of_policy(self.wanted, live.as_ref()));
        }
        for name in [operator.daemonset.as_str(), TOOLKIT] {
            let set = daemon_set(&operator.namespace, name);
            let live = self.live(&set)?;
            if !self.pending {
                found.extend(of_set(
                    self.wanted,
                    &operator.namespace,
                    name,
                    live.as_ref(),
                ));
            }
        }
        Ok(())
    }

    /// The plain device plugin.
    fn of_plugin(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        let Some(plugin) = &self.wanted.plugin else {
            return Ok(());
        };
        let live = self.live(&daemon_set(&plugin.namespace, plugin.name()))?;
        if !self.pending {
            let all = of_set(self.wanted, &plugin.namespace, plugin.name(), live.as_ref());
            found.extend(all);
        }
        Ok(())
    }

    /// What says how cards are sliced and shared.
    fn of_objects(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        for manifest in manifests::all(self.wanted) {
            if !["ConfigMap", "ClusterPolicy", "DeviceConfig"].contains(&kind(&manifest)) {
                continue;
            }
            let live = self.live(&manifest)?;
            if !self.pending {
                found.extend(differing(&manifest, live.as_ref(), self.wanted));
            }
        }
        Ok(())
    }

    fn of_nodes(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        for node in &self.wanted.nodes {
            let name = json!({ "kind": "Node", "metadata": { "name": node.name } });
            let live = self.live(&name)?;
            let what = format!("pods on node {}", node.name);
            let users = self.answer(&self.wanted.tool.pods_on(&node.name), &what)?;
            if !self.pending {
                let users = pods::with_gpus(users.as_ref());
                found.extend(of_node(self.wanted, node, live.as_ref(), &users));
            }
        }
        Ok(())
    }

    fn of_quotas(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        for quota in &self.wanted.quotas {
            let live = self.live(&manifests::quota(quota))?;
            if !self.pending {
                found.extend(of_quota(self.wanted, quota, live.as_ref()));
            }
        }
        Ok(())
    }

    fn of_waiting(&mut self, found: &mut Vec<Finding>) -> Rendered<()> {
        let waiting = self.answer(&self.wanted.tool.waiting_pods(), "pods that wait")?;
        if !self.pending {
            found.extend(of_waiting(self.wanted, waiting.as_ref()));
        }
        Ok(())
    }
}

fn kind(manifest: &Json) -> &str {
    manifest["kind"].as_str().unwrap_or_default()
}

fn daemon_set(namespace: &str, name: &str) -> Json {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": name, "namespace": namespace },
    })
}

fn of_policy(wanted: &Wanted, live: Option<&Json>) -> Option<Finding> {
    let name = &wanted.operator.policy;
    let Some(live) = live else {
        let what = format!(
            "the cluster has no ClusterPolicy {name}: NVIDIA's operator is not installed, or has another one"
        );
        let mend = wanted.tool.typed(&["get", "clusterpolicies.nvidia.com"]);
        return Some(Finding::new(what, mend));
    };
    let state = live["status"]["state"].as_str().unwrap_or("ready");
    (state != "ready").then(|| {
        let what = format!("NVIDIA's operator says that it is {state} (ClusterPolicy {name})");
        let pods = ["get", "pods", "--namespace", &wanted.operator.namespace];
        Finding::new(what, wanted.tool.typed(&pods))
    })
}

/// An object that is not there, or has not what it is to have.
fn differing(manifest: &Json, live: Option<&Json>, wanted: &Wanted) -> Option<Finding> {
    let label = Name::of(manifest).label();
    let Some(live) = live else {
        // What is said of a policy that is not there says enough.
        let is_policy = kind(manifest) == "ClusterPolicy";
        return (!is_policy).then(|| Finding::new(format!("there is no {label}"), SET_UP));
    };
    let (path, now) = first_difference(manifest, live, "")?;
    let what = format!("{path} of {label} is {now}, not what the variables ask for");
    let Some(slicing) = &wanted.operator.time_slicing else {
        return Some(Finding::new(what, SET_UP));
    };
    // The seed's own way, which a person knows.
    let patch = json!({ "spec": { "devicePlugin": {
        "config": { "name": slicing.name, "default": slicing.default }
    } } });
    let mend = match (kind(manifest), path.starts_with("spec.devicePlugin")) {
        ("ClusterPolicy", true) => wanted.tool.typed(&[
            "patch",
            "clusterpolicies.nvidia.com",
            &wanted.operator.policy,
            "--type",
            "merge",
            "-p",
            &patch.to_string(),
        ]),
        _ => SET_UP.to_owned(),
    };
    Some(Finding::new(what, mend))
}

/// The first field of a manifest that an object has not, and what it has there. Lists are
/// compared as a whole.
fn first_difference(manifest: &Json, live: &Json, path: &str) -> Option<(String, String)> {
    let Some(fields) = manifest.as_object() else {
        let shown = match live {
            Json::Null => "not set".to_owned(),
            Json::String(text) if text.contains('\n') => "another text".to_owned(),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        return (manifest != live).then(|| (path.to_owned(), shown));
    };
    let is_name = |key: &str| path.is_empty() && ["apiVersion", "kind"].contains(&key);
    let mut fields = fields.iter().filter(|(key, _)| !is_name(key));
    fields.find_map(|(key, value)| {
        let below = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        first_difference(value, &live[key.as_str()], &below)
    })
}

/// A daemon set that is not there, or not on all of its nodes.
fn of_set(wanted: &Wanted, namespace: &str, name: &str, live: Option<&Json>) -> Option<Finding> {
    let typed = |words: &[&str]| wanted.tool.typed(words);
    let Some(live) = live else {
        let what =
            format!("there is no daemonset {namespace}/{name}, without which nodes offer no GPU");
        let mend = match wanted.plugin.is_some() {
            true => SET_UP.to_owned(),
            false => typed(&["get", "daemonsets", "--all-namespaces"]),
        };
        return Some(Finding::new(what, mend));
    };
    let number = |field: &str| live["status"][field].as_u64();
    let desired = number("desiredNumberScheduled")?;
    let set = format!("daemonset/{name}");
    if desired == 0 {
        let what = format!(
            "{set} of namespace {namespace} runs on no node: none has the labels that it looks for"
        );
        let mend = typed(&["get", "nodes", "--show-labels"]);
        return Some(Finding::new(what, mend));
    }
    let ready = number("numberReady").unwrap_or(0);
    (ready < desired).then(|| {
        let what = format!("{set} of namespace {namespace} is ready on {ready} of {desired} nodes");
        Finding::new(what, restart(wanted, namespace, name))
    })
}

/// One node, and the pods with GPUs on it.
fn of_node(
    wanted: &Wanted,
    node: &NodeWanted,
    live: Option<&Json>,
    users: &[String],
) -> Vec<Finding> {
    let name = node.name.as_str();
    let typed = |words: &[&str]| wanted.tool.typed(words);
    let Some(live) = live else {
        let what = format!("the cluster has no node {name}");
        return vec![Finding::new(what, typed(&["get", "nodes"]))];
    };
    let mut found = Vec::new();
    let conditions = live["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    if let Some(ready) = ready.filter(|ready| ready["status"] != "True") {
        let why = ready["message"].as_str().unwrap_or("it does not say why");
        let what = format!("node {name} is not ready: {why}");
        let mend = format!(
            "{}; on the node: systemctl restart kubelet",
            typed(&["describe", "node", name])
        );
        found.push(Finding::new(what, mend));
    }
    if live["spec"]["unschedulable"] == true {
        let what = format!("node {name} is closed: no pod is placed on it");
        found.push(Finding::new(what, typed(&["uncordon", name])));
    }
    let labels = &live["metadata"]["labels"];
    if let Some(manifest) = manifests::node(node)
        && let Some((path, now)) = first_difference(&manifest["metadata"]["labels"], labels, "")
    {
        let what =
            format!("the label {path} of node {name} is {now}, not what the variables ask for");
        found.push(Finding::new(what, SET_UP));
        return found;
    }
    let before = found.len();
    if node.mig_config.is_some() {
        found.extend(of_mig(wanted, node, labels, users));
    }
    if node.amd_profile.is_some() {
        found.extend(of_amd(wanted, name, labels));
    }
    // Until its cards are sliced nobody knows what the node is to offer.
    if found.len() == before {
        found.extend(of_offer(wanted, node, live));
    }
    found
}

/// How far the MIG manager is.
fn of_mig(wanted: &Wanted, node: &NodeWanted, labels: &Json, users: &[String]) -> Option<Finding> {
    let name = node.name.as_str();
    let namespace = wanted.operator.namespace.as_str();
    let typed = |words: &[&str]| wanted.tool.typed(words);
    let state = labels[format!("{MIG_CONFIG}.state").as_str()].as_str();
    if state == Some("success") {
        return None;
    }
    let set = format!("daemonset/{MIG_MANAGER}");
    let again = restart(wanted, namespace, MIG_MANAGER);
    let config = node.mig_config.as_ref().map_or("", |config| &*config.value);
    let said = match state {
        Some("failed") => format!("the MIG manager could not slice node {name} as {config}"),
        Some(other) => {
            format!("the MIG manager is not done with node {name}: its state is {other}")
        }
        None => format!("the MIG manager says nothing of node {name}"),
    };
    if !users.is_empty() {
        let what = format!("{said}; its cards are in use by {}", users.join(", "));
        let drain = typed(&[
            "drain",
            name,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
        ]);
        let open = typed(&["uncordon", name]);
        return Some(Finding::new(what, format!("{drain} && {again} && {open}")));
    }
    let paused: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| *value == PAUSED)
        .map(|(label, _)| label.clone())
        .collect();
    let log = typed(&["logs", "--namespace", namespace, &set, "--tail=50"]);
    Some(match paused.is_empty() {
        true => Finding::new(said, format!("{log}; {again}")),
        false => {
            let what = format!("{said}, and has left paused: {}", paused.join(", "));
            let open: Vec<String> = paused.iter().map(|label| format!("{label}=true")).collect();
            let mut words = vec!["label", "node", name, "--overwrite"];
            words.extend(open.iter().map(String::as_str));
            Finding::new(what, format!("{again}; {}", typed(&words)))
        }
    })
}

/// How far AMD's config manager is.
fn of_amd(wanted: &Wanted, name: &str, labels: &Json) -> Option<Finding> {
    let state = labels[format!("{}-state", amd::PROFILE).as_str()].as_str();
    if state == Some("success") {
        return None;
    }
    let said = state.unwrap_or("nothing");
    let what = format!("AMD's config manager says {said} of the partitions of node {name}");
    let node = format!("involvedObject.name={name}");
    let events = [
        "get",
        "events",
        "--all-namespaces",
        "--field-selector",
        &node,
    ];
    Some(Finding::new(what, wanted.tool.typed(&events)))
}

/// What the node offers, against its own labels and the variables.
fn of_offer(wanted: &Wanted, node: &NodeWanted, live: &Json) -> Vec<Finding> {
    if node.mig_config.is_none() && wanted.operator.time_slicing.is_none() {
        let plugin = wanted.plugin.as_ref();
        return plugin
            .and_then(|plugin| none_of(wanted, plugin, node, live))
            .into_iter()
            .collect();
    }
    let Some((replicas, renamed, kinds)) = manifests::offer(wanted, node) else {
        return Vec::new();
    };
    let count = |resource: &str, replicas: Option<u64>, renamed: bool| {
        counted(wanted, node, live, resource, replicas, renamed)
    };
    if kinds.is_empty() {
        let replicas = u64::from(replicas);
        let found = count("nvidia.com/gpu", Some(replicas), renamed && replicas > 1);
        return found.into_iter().collect();
    }
    let slices = kinds
        .iter()
        .map(|kind| format!("nvidia.com/mig-{}", kind.replace('+', ".")));
    slices
        .filter_map(|slice| count(&slice, None, false))
        .collect()
}

/// How the daemon set of the operator's device plugin is started anew.
fn restart_plugin(wanted: &Wanted) -> String {
    let operator = &wanted.operator;
    restart(wanted, &operator.namespace, &operator.daemonset)
}

fn restart(wanted: &Wanted, namespace: &str, name: &str) -> String {
    let set = format!("daemonset/{name}");
    let words = ["rollout", "restart", "--namespace", namespace, &set];
    wanted.tool.typed(&words)
}

/// A node that offers nothing of what the plain device plugin brings.
fn none_of(wanted: &Wanted, plugin: &Plugin, node: &NodeWanted, live: &Json) -> Option<Finding> {
    let resources = live["status"]["allocatable"].as_object();
    let mut offered = resources.into_iter().flatten();
    let domain = plugin.domain();
    let is_one = |(resource, count): (&String, &Json)| {
        resource.starts_with(domain) && quantity(count).is_some_and(|count| count > 0)
    };
    (!offered.any(is_one)).then(|| {
        let what = format!(
            "node {} offers nothing of {domain}: its device plugin does not run there, or sees no card",
            node.name
        );
        let mend = restart(wanted, &plugin.namespace, plugin.name());
        Finding::new(what, mend)
    })
}

/// A resource that feature discovery counts: the node offers count times replicas of it, as many
/// replicas as the variables ask for, and the product says that it is shared.
fn counted(
    wanted: &Wanted,
    node: &NodeWanted,
    live: &Json,
    resource: &str,
    replicas: Option<u64>,
    renamed: bool,
) -> Option<Finding> {
    let name = &node.name;
    let shown = match renamed {
        true => format!("{resource}.shared"),
        false => resource.to_owned(),
    };
    let has = quantity(&live["status"]["allocatable"][shown.as_str()]).unwrap_or(0);
    let restart = restart_plugin(wanted);
    if has == 0 {
        let what = format!(
            "node {name} offers no {shown}: its device plugin does not run there, or sees no card"
        );
        return Some(Finding::new(what, restart));
    }
    let label = |part: &str| &live["metadata"]["labels"][format!("{resource}.{part}").as_str()];
    let (Some(count), Some(copies)) = (quantity(label("count")), quantity(label("replicas")))
    else {
        let what = format!(
            "node {name} lacks the labels {resource}.count and {resource}.replicas: GPU feature discovery does not run there"
        );
        return Some(Finding::new(what, restart));
    };
    if let Some(replicas) = replicas.filter(|replicas| *replicas != copies) {
        let what = format!(
            "{resource}.replicas of node {name} is {copies}, and the variables ask for {replicas}: the device plugin has not read its configuration"
        );
        return Some(Finding::new(what, restart));
    }
    if has != count.saturating_mul(copies) {
        let what = format!("node {name} offers {has} of {shown}, and not {count} times {copies}");
        return Some(Finding::new(what, restart));
    }
    let product = label("product").as_str().unwrap_or_default();
    let is_shared = product.ends_with("-SHARED");
    let is_to_be = replicas.is_some_and(|replicas| replicas > 1) && !renamed;
    (replicas.is_some() && is_shared != is_to_be).then(|| {
        let what = format!("{resource}.product of node {name} is {product}, which does not show how the card is shared");
        Finding::new(what, restart)
    })
}

fn quantity(value: &Json) -> Option<u64> {
    match value {
        Json::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

/// A quota that is not there, or has nothing left.
fn of_quota(wanted: &Wanted, quota: &Quota, live: Option<&Json>) -> Vec<Finding> {
    if let Some(finding) = differing(&manifests::quota(quota), live, wanted) {
        return vec![finding];
    }
    let used = |resource: &str| live.map(|live| &live["status"]["used"][resource]);
    let (namespace, name) = (quota.namespace.as_str(), quota.name.as_str());
    let is_gpu = |(resource, _): &(&String, &Json)| resource.contains('/');
    let limits = quota.hard.iter().filter(is_gpu);
    let spent = limits.filter_map(|(resource, hard)| {
        let hard = quantity(hard)?;
        let used = quantity(used(resource)?)?;
        (used >= hard).then(|| {
            let what = format!("the quota {name} of namespace {namespace} has nothing left: {used} of {hard} {resource} are in use, and further pods are refused");
            let mend = wanted.tool.typed(&["get", "pods", "--namespace", namespace]);
            Finding::new(what, format!("{mend}; end some of them, or raise `quotas`"))
        })
    });
    spent.collect()
}

/// Pods with GPUs that find no place.
fn of_waiting(wanted: &Wanted, waiting: Option<&Json>) -> Vec<Finding> {
    let items = waiting.and_then(|waiting| waiting["items"].as_array());
    let waiting = items.into_iter().flatten().filter(|pod| pods::has_gpu(pod));
    let told = waiting.filter_map(|pod| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let placed = conditions.find(|condition| condition["type"] == "PodScheduled")?;
        let why = (placed["status"] == "False").then(|| placed["message"].as_str())?;
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let what = format!(
            "pod {} has no place: {}",
            pods::label(pod),
            why.unwrap_or("the scheduler does not say why")
        );
        let describe = [
            "describe",
            "pod",
            text("name"),
            "--namespace",
            text("namespace"),
        ];
        Some(Finding::new(what, wanted.tool.typed(&describe)))
    });
    told.take(MOST_PODS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Origin, Problems};
    use crate::value::Node;

    fn wanted(block: &Json) -> Wanted {
        let origin = Origin::whole("vars.yml", "");
        let vars = Node::from_json(&json!({ "gpu_kubernetes": block }), &origin);
        let map = vars.as_map().cloned().unwrap_or_default();
        let vars = map.into_iter().map(|(name, entry)| (name, entry.node));
        let (desired, _) = crate::desired::read(&vars.collect(), &|_, _| Default::default());
        let mut problems = Problems::default();
        let wanted = super::super::wanted::read(&desired, &mut problems);
        assert!(!problems.has_errors(), "{problems:?}");
        wanted
    }

    fn shared(renamed: bool) -> Wanted {
        wanted(&json!({
            "operator": { "time_slicing": { "configs": { "any": { "replicas": 4, "rename_by_default": renamed } } } },
            "nodes": { "gpu-1": {} },
        }))
    }

    fn node(labels: &Json, offers: &Json) -> Json {
        json!({
            "metadata": { "labels": labels },
            "status": { "allocatable": offers, "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    }

    fn found(wanted: &Wanted, live: &Json) -> Vec<String> {
        let all = of_node(wanted, &wanted.nodes[0], Some(live), &[]);
        all.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn what_a_node_offers_is_counted_as_a_person_would() {
        let labels = |replicas: &str, product: &str| json!({ "nvidia.com/gpu.count": "7", "nvidia.com/gpu.replicas": replicas, "nvidia.com/gpu.product": product });
        let plain = shared(false);
        let says = |labels: &Json, offers: Json, text: &str| {
            let all = found(&plain, &node(labels, &offers));
            match text {
                "" => assert_eq!(all, Vec::<String>::new()),
                text => assert!(all.len() == 1 && all[0].contains(text), "`{text}`: {all:?}"),
            }
        };
        let good = labels("4", "H100-SHARED");
        says(&good, json!({ "nvidia.com/gpu": "28" }), "");
        says(
            &good,
            json!({ "nvidia.com/gpu": "7" }),
            "offers 7 of nvidia.com/gpu, and not 7 times 4",
        );
        says(&good, json!({}), "offers no nvidia.com/gpu");
        says(
            &labels("1", "H100"),
            json!({ "nvidia.com/gpu": "7" }),
            "is 1, and the variables ask for 4",
        );
        says(
            &labels("4", "H100"),
            json!({ "nvidia.com/gpu": "28" }),
            "does not show how the card is shared",
        );
        says(
            &json!({}),
            json!({ "nvidia.com/gpu": "28" }),
            "lacks the labels",
        );
        // With another name the product stays as it is.
        let live = node(
            &labels("4", "H100"),
            &json!({ "nvidia.com/gpu.shared": "28" }),
        );
        assert_eq!(found(&shared(true), &live), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_is_missing_or_not_ready_is_told_with_what_the_kubelet_says() {
        let plain = shared(false);
        let none = of_node(&plain, &plain.nodes[0], None, &[]);
        assert_eq!(none[0].mend, "kubectl get nodes");
        let mut live = node(
            &json!({ "nvidia.com/gpu.count": "1", "nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "H100-SHARED" }),
            &json!({ "nvidia.com/gpu": "4" }),
        );
        live["status"]["conditions"] = json!([
            { "type": "MemoryPressure", "status": "False" },
            { "type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status." },
        ]);
        let all = of_node(&plain, &plain.nodes[0], Some(&live), &[]);
        assert_eq!(all.len(), 1);
        assert!(
            all[0]
                .what
                .ends_with("is not ready: Kubelet stopped posting node status.")
        );
        assert!(all[0].mend.contains("systemctl restart kubelet"));
    }

    #[test]
    fn daemon_sets_must_be_ready_on_all_their_nodes() {
        let plain = shared(false);
        let of = |desired: u64, ready: u64| {
            let status =
                json!({ "status": { "desiredNumberScheduled": desired, "numberReady": ready } });
            of_set(&plain, "gpu-operator", "plugin", Some(&status)).map(|finding| finding.what)
        };
        assert_eq!(of(2, 2), None);
        assert!(of(2, 1).is_some_and(|what| what.contains("ready on 1 of 2 nodes")));
        assert!(of(0, 0).is_some_and(|what| what.contains("runs on no node")));
        assert!(of_set(&plain, "n", "plugin", None).is_some());
    }

    #[test]
    fn a_plain_plugin_has_to_bring_something() {
        let plugin = wanted(&json!({ "plugin": {}, "nodes": { "gpu-1": {} } }));
        let offers = |offers: Json| found(&plugin, &node(&json!({}), &offers));
        assert_eq!(
            offers(json!({ "nvidia.com/gpu": "1" })),
            Vec::<String>::new()
        );
        for none in [json!({ "cpu": "64" }), json!({ "nvidia.com/gpu": "0" })] {
            assert!(offers(none)[0].contains("offers nothing of nvidia.com/"));
        }
    }
}

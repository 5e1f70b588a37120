//! The objects of the cluster as they are wanted, of each only the fields that we set.

use serde_json::{Map, Value as Json, json};

use crate::yaml::emit::{Layout, to_yaml_by};

use super::Manifests;
use super::amd;
use super::nvidia::MigStrategy;
use super::plugin;
use super::wanted::{NodeWanted, Quota, Wanted};

/// The label that the MIG manager answers to, and the one that the device plugin does.
pub(super) const MIG_CONFIG: &str = "nvidia.com/mig.config";
const PLUGIN_CONFIG: &str = "nvidia.com/device-plugin.config";

/// All of them, in the order in which they are applied: what is read before what names it.
pub(super) fn all(wanted: &Wanted) -> Manifests {
    let mut all = config_maps(wanted);
    all.extend(policy(wanted));
    all.extend(amd::manifests(wanted));
    all.extend(plugin::manifests(wanted));
    all.extend(wanted.nodes.iter().filter_map(node));
    all.extend(wanted.quotas.iter().map(quota));
    all
}

/// A quota of a namespace.
pub(super) fn quota(quota: &Quota) -> Json {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": quota.name, "namespace": quota.namespace },
        "spec": { "hard": quota.hard },
    })
}

pub(super) fn config_map(namespace: &str, name: &str, data: &Map<String, Json>) -> Json {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace }, "data": data,
    })
}

fn config_maps(wanted: &Wanted) -> Manifests {
    let operator = &wanted.operator;
    let mut maps = Vec::new();
    if let Some((name, configs)) = &operator.mig_configs {
        let document = json!({ "version": "v1", "mig-configs": configs });
        // The manager looks at no other key.
        let data = [("config.yaml".to_owned(), json!(yaml(&document)))];
        maps.push(config_map(
            &operator.namespace,
            name,
            &data.into_iter().collect(),
        ));
    }
    if let Some(slicing) = &operator.time_slicing {
        let strategy = operator.strategy();
        let configs = slicing.configs.iter();
        let data =
            configs.map(|(name, sharing)| (name.clone(), json!(yaml(&sharing.document(strategy)))));
        maps.push(config_map(
            &operator.namespace,
            &slicing.name,
            &data.collect(),
        ));
    }
    maps
}

pub(super) fn yaml(document: &Json) -> String {
    to_yaml_by(document, Layout::Nice, 2)
}

fn policy(wanted: &Wanted) -> Option<Json> {
    let operator = &wanted.operator;
    let mut spec = json!({});
    if let Some(strategy) = &operator.mig_strategy {
        spec["mig"]["strategy"] = json!(strategy.value.word());
    }
    if let Some((name, _)) = &operator.mig_configs {
        spec["migManager"]["config"]["name"] = json!(name);
    }
    if let Some(slicing) = &operator.time_slicing {
        spec["devicePlugin"]["config"] =
            json!({ "name": slicing.name, "default": slicing.default });
    }
    let has_fields = spec.as_object().is_some_and(|spec| !spec.is_empty());
    has_fields.then(|| {
        json!({
            "apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy",
            "metadata": { "name": operator.policy }, "spec": spec,
        })
    })
}

/// A node's labels; nothing where it is to have none of ours.
pub(super) fn node(node: &NodeWanted) -> Option<Json> {
    let mut labels = Map::new();
    if let Some(config) = &node.mig_config {
        labels.insert(MIG_CONFIG.to_owned(), json!(config.value));
    }
    if let Some(config) = &node.plugin_config {
        labels.insert(PLUGIN_CONFIG.to_owned(), json!(config.value));
    }
    if let Some(profile) = &node.amd_profile {
        labels.insert(amd::PROFILE.to_owned(), json!(profile.value));
    }
    (!labels.is_empty()).then(|| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": node.name, "labels": labels },
        })
    })
}

/// What a node is to offer once all is done, as far as the variables say: how often each card
/// or slice is offered, and the kinds of slices where each has a name of its own. Nothing where
/// only the operator knows the kinds.
pub(super) fn offer(wanted: &Wanted, node: &NodeWanted) -> Option<(u32, bool, Vec<String>)> {
    let operator = &wanted.operator;
    let slicing = operator.time_slicing.as_ref();
    let config = slicing.and_then(|slicing| {
        let name = node
            .plugin_config
            .as_ref()
            .map_or(&slicing.default, |config| &config.value);
        slicing.configs.get(name)
    });
    let kinds = match (&node.mig_config, operator.strategy()) {
        (Some(config), MigStrategy::Mixed) => {
            let kinds = operator.kinds_of(&config.value);
            if kinds.is_empty() && config.value != "all-disabled" {
                return None;
            }
            kinds
        }
        _ => Vec::new(),
    };
    let shared = config.and_then(|config| {
        let of_cards = |(name, _): &&(String, u32)| name == "nvidia.com/gpu";
        config.resources.iter().find(of_cards)
    });
    let renamed = config.is_some_and(|config| config.renamed);
    Some((shared.map_or(1, |(_, replicas)| *replicas), renamed, kinds))
}

//! A cluster as it is after NVIDIA's operator was installed, or without it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::cluster::{Cluster, now};
use super::dcm::AmdCards;
use super::fields::{self, Writer};
use super::kinds;
use super::operator::{self, Cards};
use crate::sim::machine::Machine;

/// Fills an empty cluster.
pub(super) fn fill(cluster: &mut Cluster, machine: &Machine) {
    let Some(spec) = &machine.spec.kubernetes else {
        return;
    };
    let put = |cluster: &mut Cluster, group: &str, plural: &str, by: &str, mut object: Json| {
        let Some(kind) = kinds::find(group, plural) else {
            return;
        };
        let writer = Writer {
            manager: by.to_owned(),
            api_version: kind.api_version(),
            now: now(),
        };
        fields::track(None, &mut object, &writer);
        cluster.put(kind, object);
    };
    for name in ["default", "kube-system", "gpu-operator", &spec.operator] {
        if !name.is_empty() {
            let namespace =
                json!({ "metadata": { "name": name }, "status": { "phase": "Active" } });
            put(cluster, "", "namespaces", "kube-apiserver", namespace);
        }
    }
    for node in &spec.nodes {
        let product = crate::sim::product::PRODUCTS.get(&node.product);
        let mut labels =
            json!({ "kubernetes.io/hostname": node.name, "kubernetes.io/arch": "amd64" });
        if !spec.operator.is_empty()
            && let Some(product) = product
        {
            labels["nvidia.com/gpu.present"] = json!("true");
            labels["nvidia.com/mig.capable"] = json!(product.has_mig().to_string());
            if product.has_mig() {
                labels["nvidia.com/mig.config"] = json!("all-disabled");
                labels["nvidia.com/mig.config.state"] = json!("success");
            }
            let profiles = product.profiles.iter();
            let profiles = profiles.map(|profile| {
                let most = (u64::from(profile.max), u64::from(profile.size));
                (profile.name.clone(), most)
            });
            let cards = Cards {
                product: product.name.clone(),
                memory: product.memory_mib,
                count: u64::from(node.count),
                profiles: profiles.collect::<BTreeMap<_, _>>(),
                units: u64::from(product.slices),
                ..Cards::default()
            };
            cluster.operator.join(&node.name, cards);
        }
        if node.product.starts_with("MI") {
            labels["feature.node.kubernetes.io/amd-gpu"] = json!("true");
            let cards = AmdCards {
                count: u64::from(node.count),
                ..AmdCards::default()
            };
            cluster.operator.amd.insert(node.name.clone(), cards);
        }
        let object = json!({
            "metadata": { "name": node.name, "labels": labels },
            "spec": {},
            "status": { "conditions": [{ "type": "Ready", "status": "True" }], "allocatable": { "cpu": "64", "pods": "110" } },
        });
        put(cluster, "", "nodes", "gpu-operator", object);
    }
    if !cluster.operator.amd.is_empty() {
        let namespace = json!({ "metadata": { "name": "kube-amd-gpu" } });
        put(cluster, "", "namespaces", "helm", namespace);
        let config = json!({
            "metadata": { "name": "default", "namespace": "kube-amd-gpu" },
            "spec": { "devicePlugin": { "enableNodeLabeller": true }, "configManager": { "enable": false } },
        });
        put(cluster, "amd.com", "deviceconfigs", "helm", config);
    }
    if spec.operator.is_empty() {
        return;
    }
    operator::set_namespace(&mut cluster.operator, &spec.operator);
    let policy = json!({
        "metadata": { "name": "cluster-policy" },
        "spec": {
            "mig": { "strategy": "single" },
            "migManager": { "enabled": true, "config": { "default": "all-disabled", "name": "default-mig-parted-config" } },
            "devicePlugin": { "enabled": true },
            "driver": { "enabled": true },
        },
        "status": { "state": "ready" },
    });
    put(cluster, "nvidia.com", "clusterpolicies", "helm", policy);
    for name in [
        "nvidia-device-plugin-daemonset",
        "nvidia-container-toolkit-daemonset",
    ] {
        let set = json!({
            "metadata": { "name": name, "namespace": spec.operator },
            "spec": {
                "selector": { "matchLabels": { "app": name } },
                "updateStrategy": { "type": "RollingUpdate" },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": { "containers": [{ "name": name, "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.0" }] },
                },
            },
        });
        put(cluster, "apps", "daemonsets", "gpu-operator", set);
    }
}

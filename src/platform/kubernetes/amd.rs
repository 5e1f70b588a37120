//! AMD's device config manager: profiles of partitions in a ConfigMap, one chosen by a label of
//! each node.
//!
//! The manager does nothing on a node without its taint, which also moves everything else
//! away; it says by another label how it went, and leaves what it said before in place until
//! then.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::desired::Block;
use crate::error::Diagnostic;
use crate::platform::names::{is_name, is_object_name};
use crate::value::{Node, Value};

use super::Manifests;
use super::wanted::{NodeWanted, Wanted, name, not_a_label};

/// The label that the manager answers to.
pub(super) const PROFILE: &str = "dcm.amd.com/gpu-config-profile";

/// `amd_config_manager`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConfigManager {
    /// `namespace` of AMD's operator.
    namespace: String,
    /// `config_map`.
    config_map: String,
    /// `device_config`: name of the `DeviceConfig`.
    device_config: String,
    /// `profiles`, by name, as the manager reads them.
    pub(super) profiles: BTreeMap<String, Json>,
    /// `services`: units of systemd that hold cards and that the manager stops meanwhile.
    services: Vec<String>,
}

/// Reads it.
pub(super) fn read(mut block: Block<'_, '_>) -> ConfigManager {
    let namespace = name(&mut block, "namespace", "kube-amd-gpu", is_name);
    let map = "config-manager-config";
    let config_map = name(&mut block, "config_map", map, is_object_name);
    let device_config = name(&mut block, "device_config", "default", is_object_name);
    let services = block.texts("services").value.into_iter();
    let services = services.map(|service| service.value).collect();
    let mut profiles = BTreeMap::new();
    let path = block.path_of("profiles");
    let listed = block.node("profiles").and_then(Node::as_map);
    for (name, entry) in listed.into_iter().flatten() {
        let path = format!("{path}.{name}");
        if let Some(why) = not_a_label(name) {
            let message = format!("`{path}`: {why}");
            block
                .problems
                .push(Diagnostic::error(message).at(&entry.key));
        }
        let items = entry.node.as_seq();
        if items.is_none() {
            let message = format!("`{path}` must be a list, not {}", entry.node.kind());
            block
                .problems
                .push(Diagnostic::error(message).at(&entry.node.origin));
        }
        let mut parts = Vec::new();
        let mut skipped = Vec::new();
        for item in items.unwrap_or_default() {
            let mut one = Block::new(&path, Some(item), block.problems);
            // The manager knows no others.
            let compute = one.word("compute", "SPX", &[("SPX", "SPX"), ("CPX", "CPX")]);
            let memory = one.word("memory", "NPS1", &[("NPS1", "NPS1"), ("NPS4", "NPS4")]);
            let gpus = one.count("gpus", 8, 1, 64);
            if compute.value == "SPX" && memory.value == "NPS4" {
                let message = format!(
                    "`{path}`: NPS4 needs CPX: there are no more memory partitions than compute partitions"
                );
                one.problems.push(memory.blame(Diagnostic::error(message)));
            }
            for id in one
                .node("skip")
                .and_then(Node::as_seq)
                .into_iter()
                .flatten()
            {
                match id.value {
                    Value::Int(id @ 0..=63) => skipped.push(id),
                    _ => one.problems.push(
                        Diagnostic::error(format!("`{path}.skip` is a list of indexes of GPUs"))
                            .at(&id.origin),
                    ),
                }
            }
            one.finish();
            parts.push(json!({
                "computePartition": compute.value, "memoryPartition": memory.value,
                "numGPUsAssigned": gpus.value,
            }));
        }
        profiles.insert(
            name.clone(),
            json!({ "skippedGPUs": { "ids": skipped }, "profiles": parts }),
        );
    }
    block.finish();
    ConfigManager {
        namespace,
        config_map,
        device_config,
        profiles,
        services,
    }
}

/// Its objects.
pub(super) fn manifests(wanted: &Wanted) -> Manifests {
    let Some(manager) = &wanted.config_manager else {
        return Vec::new();
    };
    let mut config = json!({ "gpu-config-profiles": manager.profiles });
    if !manager.services.is_empty() {
        config["gpuClientSystemdServices"] = json!({ "names": manager.services });
    }
    let text = format!("{config:#}\n");
    let data = [("config.json".to_owned(), json!(text))];
    let data = data.into_iter().collect();
    vec![
        super::manifests::config_map(&manager.namespace, &manager.config_map, &data),
        json!({
            "apiVersion": "amd.com/v1alpha1", "kind": "DeviceConfig",
            "metadata": { "name": manager.device_config, "namespace": manager.namespace },
            "spec": { "configManager": { "enable": true, "config": { "name": manager.config_map } } },
        }),
    ]
}

/// What users should know.
pub(super) fn notes(wanted: &Wanted) -> Vec<String> {
    let mut all = wanted.nodes.iter();
    let any = all.any(|node: &NodeWanted| node.amd_profile.is_some());
    let note = "AMD's config manager changes partitions only on a node with the taint amd-dcm=up:NoExecute, which ends every pod there that does not tolerate it; it is there while a profile changes";
    any.then(|| note.to_owned()).into_iter().collect()
}

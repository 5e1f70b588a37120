//! AMD's device config manager and device plugin on the nodes with AMD's cards.
//!
//! The manager works only on a node with its taint, and says by a label how it went; the label
//! stays until the next change.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::admission::quantity;
use super::cluster::{Cluster, text};
use super::kinds;
use super::operator::write;

const PROFILE: &str = "dcm.amd.com/gpu-config-profile";
const STATE: &str = "dcm.amd.com/gpu-config-profile-state";

/// The cards of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct AmdCards {
    pub(super) count: u64,
    /// The profile that was last tried.
    pub(super) tried: String,
    /// Devices of all cards.
    pub(super) devices: u64,
}

/// One moment passes.
pub(super) fn tick(cluster: &mut Cluster) {
    let Some(nodes) = kinds::find("", "nodes") else {
        return;
    };
    let names: Vec<String> = cluster.operator.amd.keys().cloned().collect();
    for name in names {
        let (Some(node), Some(cards)) = (
            cluster.get(nodes, "", &name).cloned(),
            cluster.operator.amd.get(&name).cloned(),
        ) else {
            continue;
        };
        let mut cards_after = cards.clone();
        let mut after = node.clone();
        let wanted = node["metadata"]["labels"][PROFILE].as_str().unwrap_or("");
        let state = node["metadata"]["labels"][STATE].as_str().unwrap_or("");
        if wanted.is_empty() {
            cards_after.tried.clear();
        } else if let Some(config) = config(cluster)
            && (wanted != cards.tried || state.is_empty())
        {
            wanted.clone_into(&mut cards_after.tried);
            let devices = is_tainted(&node).then(|| devices(&config, wanted, cards.count));
            let done = devices.flatten();
            after["metadata"]["labels"][STATE] = match done {
                Some(_) => json!("success"),
                None => json!("failure"),
            };
            cards_after.devices = done.unwrap_or(cards.devices);
        }
        let offered = match cards_after.devices {
            0 => cards.count,
            devices => devices,
        };
        after["status"]["allocatable"]["amd.com/gpu"] = json!(offered.to_string());
        after["status"]["capacity"]["amd.com/gpu"] = json!(offered.to_string());
        cluster.operator.amd.insert(name, cards_after);
        write(cluster, nodes, &node, after, "device-config-manager");
    }
}

fn is_tainted(node: &Json) -> bool {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut taints = taints.filter(|taint| taint["effect"] == "NoExecute");
    taints.any(|taint| taint["key"] == "amd-dcm" && taint["value"] == "up")
}

/// What the manager reads, where AMD's operator runs it.
fn config(cluster: &Cluster) -> Option<Json> {
    let configs = cluster.list(kinds::find("amd.com", "deviceconfigs")?, "");
    let manager = &configs.first()?["spec"]["configManager"];
    if manager["enable"] != true {
        return None;
    }
    let name = text(manager, "/config/name");
    let maps = cluster.list(kinds::find("", "configmaps")?, "");
    let map = maps
        .into_iter()
        .find(|map| text(map, "/metadata/name") == name)?;
    serde_json::from_str(map["data"]["config.json"].as_str()?).ok()
}

/// How many devices a profile makes; nothing where it does not fit the cards.
fn devices(config: &Json, wanted: &str, count: u64) -> Option<u64> {
    let profile = config["gpu-config-profiles"].get(wanted)?;
    let skipped = profile["skippedGPUs"]["ids"].as_array().map_or(0, Vec::len);
    let mut cards = u64::try_from(skipped).ok()?;
    let mut devices = cards;
    for part in profile["profiles"].as_array()? {
        let assigned = quantity(&part["numGPUsAssigned"]);
        cards += assigned;
        devices += assigned
            * if part["computePartition"] == "CPX" {
                8
            } else {
                1
            };
    }
    (cards == count).then_some(devices)
}

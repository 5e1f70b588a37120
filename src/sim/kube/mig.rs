//! MIG configurations by name, as NVIDIA's MIG manager reads them from its ConfigMap.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::admission::quantity;
use super::cluster::{Cluster, text};
use super::kinds;
use super::operator::Cards;

/// The MIG devices that a configuration makes on all cards of a node; nothing if it has no such
/// configuration or the cards cannot do it.
pub(super) fn devices(
    cluster: &Cluster,
    wanted: &str,
    cards: &Cards,
) -> Option<BTreeMap<String, u64>> {
    if let Some(found) = custom(cluster, wanted) {
        return of_entries(&found, cards);
    }
    let each =
        |profile: &str, count: u64| BTreeMap::from([(profile.to_owned(), count * cards.count)]);
    match wanted {
        "all-disabled" | "all-enabled" => Some(BTreeMap::new()),
        _ => {
            let profile = wanted.strip_prefix("all-")?;
            Some(each(profile, cards.profiles.get(profile)?.0))
        }
    }
}

/// The entries of a configuration in the ConfigMap that the policy names.
fn custom(cluster: &Cluster, wanted: &str) -> Option<Json> {
    let policies = cluster.list(kinds::find("nvidia.com", "clusterpolicies")?, "");
    let name = text(policies.first()?, "/spec/migManager/config/name").to_owned();
    let maps = cluster.list(kinds::find("", "configmaps")?, "");
    let map = maps
        .into_iter()
        .find(|map| text(map, "/metadata/name") == name)?;
    let document: Json = serde_yaml::from_str(map["data"]["config.yaml"].as_str()?).ok()?;
    document["mig-configs"].get(wanted).cloned()
}

fn of_entries(entries: &Json, cards: &Cards) -> Option<BTreeMap<String, u64>> {
    let mut devices = BTreeMap::new();
    for entry in entries.as_array()? {
        let count = match &entry["devices"] {
            Json::Array(list) => u64::try_from(list.len()).ok()?,
            _ => cards.count,
        };
        let mut units = 0;
        for (profile, number) in entry["mig-devices"].as_object().into_iter().flatten() {
            let (most, size) = cards.profiles.get(profile)?;
            let number = quantity(number);
            if number > *most {
                return None;
            }
            units += number * size;
            *devices.entry(profile.clone()).or_insert(0) += number * count;
        }
        if units > cards.units {
            return None;
        }
    }
    Some(devices)
}

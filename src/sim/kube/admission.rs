//! What an API server refuses to store, and the defaults it fills in.

use serde_json::{Value as Json, json};

use super::api::{Answer, failure};
use super::cluster::{Cluster, text};
use super::kinds::{self, Kind};

/// Why an object cannot be stored; nothing if it can.
pub(super) fn refusal(
    cluster: &Cluster,
    kind: &Kind,
    before: Option<&Json>,
    object: &Json,
) -> Option<Answer> {
    let namespace = text(object, "/metadata/namespace");
    if kind.namespaced
        && kinds::find("", "namespaces")
            .is_some_and(|kind| cluster.get(kind, "", namespace).is_none())
    {
        let message = format!("namespaces {namespace:?} not found");
        return Some(failure(404, "NotFound", &message));
    }
    if let Some(why) = bad_label(object) {
        return Some(invalid(kind, object, &why));
    }
    if kind.kind == "Pod" && before.is_none() {
        if let Some(why) = unequal(object) {
            return Some(invalid(kind, object, &why));
        }
        return over_quota(cluster, object);
    }
    None
}

fn invalid(kind: &Kind, object: &Json, why: &str) -> Answer {
    let name = text(object, "/metadata/name");
    let group = match kind.group {
        "" => String::new(),
        group => format!(".{group}"),
    };
    let message = format!("{}{group} {name:?} is invalid: {why}", kind.kind);
    failure(422, "Invalid", &message)
}

/// Label values are at most 63 characters of `[A-Za-z0-9_.-]`.
fn bad_label(object: &Json) -> Option<String> {
    let labels = object.pointer("/metadata/labels")?.as_object()?;
    labels.values().find_map(|value| {
        let value = value.as_str().unwrap_or_default();
        if value.len() > 63 {
            return Some(format!("metadata.labels: Invalid value: {value:?}: must be no more than 63 bytes"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let edges = value.trim_matches(|c: char| "-_.".contains(c)).len() == value.len();
        (!edges || !value.chars().all(plain)).then(|| {
            format!("metadata.labels: Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
        })
    })
}

/// Extended resources have requests that equal limits, and limits.
fn unequal(pod: &Json) -> Option<String> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    for (index, container) in containers.iter().enumerate() {
        let part = |name: &str| {
            container["resources"][name]
                .as_object()
                .cloned()
                .unwrap_or_default()
        };
        let (requests, limits) = (part("requests"), part("limits"));
        for (name, wanted) in requests.iter().filter(|(name, _)| name.contains('/')) {
            let at = format!("spec.containers[{index}].resources");
            match limits.get(name) {
                None => {
                    return Some(format!(
                        "{at}.limits: Required value: Limit must be set for non overcommitable resources"
                    ));
                }
                Some(limit) if quantity(limit) != quantity(wanted) => {
                    return Some(format!(
                        "{at}.requests: Invalid value: {:?}: must be equal to {name} limit of {}",
                        plain(wanted),
                        plain(limit)
                    ));
                }
                Some(_) => {}
            }
        }
    }
    None
}

fn plain(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A whole number, also as text.
pub(super) fn quantity(value: &Json) -> u64 {
    plain(value).parse().unwrap_or(0)
}

/// How many of a resource a pod takes.
pub(super) fn demand(pod: &Json, resource: &str) -> u64 {
    let containers = pod.pointer("/spec/containers").and_then(Json::as_array);
    containers
        .into_iter()
        .flatten()
        .map(|container| quantity(&container["resources"]["limits"][resource]))
        .sum()
}

fn is_over(pod: &Json) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn over_quota(cluster: &Cluster, pod: &Json) -> Option<Answer> {
    let namespace = text(pod, "/metadata/namespace");
    let quotas = cluster.list(kinds::find("", "resourcequotas")?, namespace);
    let pods = cluster.list(kinds::find("", "pods")?, namespace);
    for quota in quotas {
        for (name, hard) in quota["spec"]["hard"].as_object().into_iter().flatten() {
            let Some(resource) = name.strip_prefix("requests.") else {
                continue;
            };
            let running = pods.iter().filter(|pod| !is_over(pod));
            let used: u64 = running.map(|pod| demand(pod, resource)).sum();
            let asked = demand(pod, resource);
            let limit = quantity(hard);
            if asked > 0 && used + asked > limit {
                let message = format!(
                    "pods {:?} is forbidden: exceeded quota: {}, requested: {name}={asked}, used: {name}={used}, limited: {name}={limit}",
                    text(pod, "/metadata/name"),
                    text(quota, "/metadata/name"),
                );
                return Some(failure(403, "Forbidden", &message));
            }
        }
    }
    None
}

/// The object with what the API server adds.
pub(super) fn with_defaults(kind: &Kind, mut object: Json) -> Json {
    match kind.kind {
        "Pod" => {
            if let Some(Json::Array(containers)) = object.pointer_mut("/spec/containers") {
                for container in containers {
                    let limits = container["resources"]["limits"].clone();
                    if let Json::Object(limits) = limits {
                        for (name, value) in limits {
                            // Quantities are texts, and limits are requests too.
                            let value = json!(plain(&value));
                            container["resources"]["limits"][&name] = value.clone();
                            if container["resources"]["requests"][&name].is_null() {
                                container["resources"]["requests"][&name] = value;
                            } else {
                                let wanted = plain(&container["resources"]["requests"][&name]);
                                container["resources"]["requests"][&name] = json!(wanted);
                            }
                        }
                    }
                }
            }
            if text(&object, "/status/phase").is_empty() {
                object["status"] = json!({ "phase": "Pending" });
            }
        }
        "ResourceQuota" => {
            if let Some(Json::Object(hard)) = object.pointer_mut("/spec/hard") {
                for value in hard.values_mut() {
                    *value = json!(plain(value));
                }
            }
        }
        _ => {}
    }
    object
}

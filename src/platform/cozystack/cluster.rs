//! `Kubernetes` of Cozystack (`apps.cozystack.io/v1alpha1`): clusters of a tenant, with groups
//! of nodes that have GPUs; and pods that use them.

use serde_json::{Map, Value as Json, json};

use crate::catalog::Catalog;
use crate::desired::Block;
use crate::value::{Node, Value};

use super::advice::{self, Facts};
use super::values::{self, checked, is_resource, is_size, is_text};
use super::{API, Object, gpus};

/// The kind of a cluster's manifest.
pub(super) const KIND: &str = "Kubernetes";

/// The kind of a pod.
pub(super) const POD: &str = "Pod";

/// Fields that go into a cluster's manifest as they are written; the table of its fields checks
/// them.
const AS_WRITTEN: [&str; 5] = ["addons", "controlPlane", "host", "storageClass", "version"];

/// Reads one; nothing if a finding stands against it.
pub(super) fn read(node: &Node, catalog: &Catalog, block: &mut Block<'_, '_>) -> Option<Object> {
    let path = format!("{}[]", block.path_of("clusters"));
    let mut own = Block::new(&path, Some(node), block.problems);
    let before = own.problems.0.len();
    let name = values::name(&mut own, "a cluster");
    let groups = own.node("nodeGroups");
    if groups.is_none() {
        values::missing(&mut own, "nodeGroups", "a cluster");
    }
    let mut spec = Map::new();
    let mut node_groups = Map::new();
    let mut all = Object::default();
    for (group, entry) in groups.and_then(Node::as_map).into_iter().flatten() {
        if !values::is_name(group) {
            let message = format!("`{group}` is not a name that Kubernetes takes");
            let hint = "lower-case letters, digits and `-`, at most 63";
            own.problems.push(
                crate::error::Diagnostic::error(message)
                    .at(&entry.key)
                    .hint(hint),
            );
        }
        if let Some(read) = node_group(group, &entry.node, catalog, &mut own) {
            node_groups.insert(group.clone(), read.manifest);
            all.advice.extend(read.advice);
            all.resources.extend(read.resources);
        }
    }
    spec.insert("nodeGroups".to_owned(), Json::Object(node_groups));
    for key in AS_WRITTEN {
        if let Some(node) = own.node(key) {
            spec.insert(key.to_owned(), node.to_json());
        }
    }
    own.finish();
    if block.problems.0.len() > before {
        return None;
    }
    all.manifest = json!({
        "apiVersion": API,
        "kind": KIND,
        "metadata": { "name": name? },
        "spec": spec,
    });
    Some(all)
}

fn node_group(
    name: &str,
    node: &Node,
    catalog: &Catalog,
    block: &mut Block<'_, '_>,
) -> Option<Object> {
    let what = format!("node group `{name}`");
    let path = block.path_of("nodeGroups");
    let mut own = Block::new(&format!("{path}.{name}"), Some(node), block.problems);
    let mut group = Map::new();
    let mut put = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            group.insert(key.to_owned(), value);
        }
    };
    let least = checked(&mut own, "minReplicas", "a whole number", is_count);
    let most = checked(&mut own, "maxReplicas", "a whole number", is_count);
    if let (Some(least), Some(most)) = (
        least.as_ref().and_then(Json::as_i64),
        most.as_ref().and_then(Json::as_i64),
    ) && least > most
    {
        let message = format!("{what}: `minReplicas` is above `maxReplicas`");
        values::blame(
            own.problems,
            node,
            message,
            "the group scales between the two",
        );
    }
    put("minReplicas", least);
    put("maxReplicas", most);
    let instance_type = gpus::instance_type(&mut own, &what);
    put("instanceType", instance_type.map(Node::to_json));
    put(
        "ephemeralStorage",
        checked(
            &mut own,
            "ephemeralStorage",
            "a size such as `20Gi`",
            is_size,
        ),
    );
    put(
        "roles",
        checked(&mut own, "roles", "a list of words", are_texts),
    );
    put("resources", own.node("resources").map(Node::to_json));
    let gpus = gpus::read(&mut own, &what);
    put("gpus", gpus.as_ref().map(|gpus| gpus.json.clone()));
    let known = instance_type.and_then(|node| gpus::known(node, catalog, &mut own));
    if let (Some(gpus), Some(known)) = (&gpus, known) {
        gpus::count_fits(gpus, known, catalog.instance_types(), &mut own);
    }
    own.finish();
    let gpus = gpus?;
    let facts = Facts {
        what: &what,
        purpose: None,
        gpus: gpus.count,
        instance_type: known,
        unknown_type: instance_type
            .filter(|_| known.is_none())
            .and_then(Node::as_str),
        system_disk: None,
        disks: None,
        network: None,
    };
    Some(Object {
        manifest: Json::Object(group),
        advice: advice::of(&facts),
        resources: gpus.names,
    })
}

/// Reads a pod that uses GPUs; nothing if a finding stands against it.
pub(super) fn pod(node: &Node, block: &mut Block<'_, '_>) -> Option<Object> {
    let path = format!("{}[]", block.path_of("pods"));
    let mut own = Block::new(&path, Some(node), block.problems);
    let before = own.problems.0.len();
    let name = values::name(&mut own, "a pod");
    let containers = own.node("containers");
    if containers.is_none() {
        values::missing(&mut own, "containers", "a pod");
    }
    let mut list = Vec::new();
    let mut resources = Vec::new();
    for item in containers.and_then(Node::as_seq).unwrap_or_default() {
        if let Some((container, names)) = container(item, &path, &mut own) {
            list.push(container);
            resources.extend(names);
        }
    }
    own.finish();
    if block.problems.0.len() > before {
        return None;
    }
    Some(Object {
        manifest: json!({
            "apiVersion": "v1",
            "kind": POD,
            "metadata": { "name": name? },
            "spec": { "containers": list },
        }),
        advice: Vec::new(),
        resources,
    })
}

/// A container with its GPUs as limits: Kubernetes takes requests from them, which for GPUs must
/// be the same.
fn container(node: &Node, path: &str, block: &mut Block<'_, '_>) -> Option<(Json, Vec<String>)> {
    let mut own = Block::new(&format!("{path}.containers[]"), Some(node), block.problems);
    let name = values::name(&mut own, "a container");
    let image = checked(&mut own, "image", "a string", is_text);
    if image.is_none() && own.node("image").is_none() {
        values::missing(&mut own, "image", "a container");
    }
    let gpus = own.node("gpus");
    if gpus.is_none() {
        values::missing(&mut own, "gpus", "a container");
    }
    let mut limits = Map::new();
    if let Some(node) = gpus {
        let map = node.as_map();
        if map.is_none_or(indexmap::IndexMap::is_empty) {
            let message = format!("`{path}.containers[].gpus` must be numbers by resource");
            values::blame(own.problems, node, message, "such as `{nvidia.com/gpu: 1}`");
        }
        for (resource, entry) in map.into_iter().flatten() {
            if is_resource(resource) && is_count(&entry.node.value) {
                limits.insert(resource.clone(), entry.node.to_json());
            } else {
                let message = format!("`{resource}` is not a resource with a whole number");
                values::blame(
                    own.problems,
                    &entry.node,
                    message,
                    "such as `nvidia.com/gpu: 1`",
                );
            }
        }
    }
    own.finish();
    let names = limits.keys().cloned().collect();
    let container = json!({ "name": name?, "image": image?, "resources": { "limits": limits } });
    Some((container, names))
}

fn is_count(value: &Value) -> bool {
    matches!(value, Value::Int(count) if (0..=100_000).contains(count))
}

fn are_texts(value: &Value) -> bool {
    matches!(value, Value::Seq(items) if items.iter().all(|item| item.as_str().is_some()))
}

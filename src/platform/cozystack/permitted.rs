//! `permittedHostDevices`: which devices KubeVirt may hand over to virtual machines, part of the
//! one `KubeVirt` object of a cluster. Keys have KubeVirt's names.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::desired::Block;
use crate::value::{Node, Value};

use super::Object;
use super::values::{self, checked, is_flag, is_resource, is_text};

/// Where Cozystack keeps KubeVirt's object.
pub(super) const NAMESPACE: &str = "cozy-kubevirt";

/// Reads it; nothing if it is not written, or a finding stands against it.
pub(super) fn read(block: &mut Block<'_, '_>, namespace: &str) -> Option<Object> {
    let node = block.node("permittedHostDevices")?;
    let path = block.path_of("permittedHostDevices");
    let mut own = Block::new(&path, Some(node), block.problems);
    let before = own.problems.0.len();
    let mut resources = BTreeSet::new();
    let mut lists = Map::new();
    for (key, selector, fits, example) in [
        (
            "pciHostDevices",
            "pciVendorSelector",
            is_selector as fn(&Value) -> bool,
            "`10DE:26B9`",
        ),
        (
            "mediatedDevices",
            "mdevNameSelector",
            is_text,
            "`GRID T4-1Q`",
        ),
    ] {
        let Some(node) = own.node(key) else {
            continue;
        };
        let items = node.as_seq().unwrap_or_default();
        if items.is_empty() {
            let message = format!("`{path}.{key}` must be a list of devices");
            let hint = format!("each has `{selector}` and `resourceName`");
            values::blame(own.problems, node, message, &hint);
        }
        let mut devices = Vec::new();
        for item in items {
            let mut one = Block::new(&format!("{path}.{key}[]"), Some(item), own.problems);
            let mut device = Map::new();
            required(&mut one, selector, example, fits, &mut device);
            required(
                &mut one,
                "resourceName",
                "`nvidia.com/AD102GL_L40S`",
                names_resource,
                &mut device,
            );
            if let Some(outside) = checked(
                &mut one,
                "externalResourceProvider",
                "`true` or `false`",
                is_flag,
            ) {
                device.insert("externalResourceProvider".to_owned(), outside);
            }
            one.finish();
            if let Some(name) = device.get("resourceName").and_then(Json::as_str) {
                resources.insert(name.to_owned());
            }
            devices.push(Json::Object(device));
        }
        lists.insert(key.to_owned(), Json::Array(devices));
    }
    own.finish();
    if block.problems.0.len() > before {
        return None;
    }
    Some(Object {
        manifest: json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "KubeVirt",
            "metadata": { "name": "kubevirt", "namespace": namespace },
            "spec": { "configuration": { "permittedHostDevices": lists } },
        }),
        advice: Vec::new(),
        resources: resources.into_iter().collect(),
    })
}

/// KubeVirt's object, by which it is asked for.
pub(super) fn object(namespace: &str) -> Json {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": { "name": "kubevirt", "namespace": namespace },
    })
}

/// Whether KubeVirt, as it is, may hand over a resource.
pub(super) fn permits(live: &Json, resource: &str) -> bool {
    let lists = &live["spec"]["configuration"]["permittedHostDevices"];
    let lists = ["pciHostDevices", "mediatedDevices", "usb"].map(|list| lists[list].as_array());
    let mut devices = lists.into_iter().flatten().flatten();
    devices.any(|device| device["resourceName"] == resource)
}

/// Says which of a machine's GPUs are not among those that may be handed over.
pub(super) fn advise(permitted: &Object, machine: &mut Object) {
    let missing: BTreeSet<&String> = (machine.resources.iter())
        .filter(|name| !permitted.resources.contains(name))
        .collect();
    let name = machine.manifest["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    let said: Vec<String> = missing
        .into_iter()
        .map(|gpu| format!("virtual machine `{name}`: {gpu} is not in `permittedHostDevices`, so that it does not start until the cluster permits it"))
        .collect();
    machine.advice.extend(said);
}

fn required(
    block: &mut Block<'_, '_>,
    key: &'static str,
    example: &str,
    fits: fn(&Value) -> bool,
    device: &mut Map<String, Json>,
) {
    let value: Option<&Node> = block.node(key);
    match value {
        Some(node) if fits(&node.value) => {
            device.insert(key.to_owned(), node.to_json());
        }
        Some(node) => {
            let message = format!("`{}` is not written right", block.path_of(key));
            values::blame(block.problems, node, message, &format!("such as {example}"));
        }
        None => values::missing(block, key, "a device"),
    }
}

/// Vendor and device id, four hexadecimal digits each.
fn is_selector(value: &Value) -> bool {
    let Value::Str(text) = value else {
        return false;
    };
    let is_id = |part: &str| part.len() == 4 && part.chars().all(|c| c.is_ascii_hexdigit());
    text.split_once(':')
        .is_some_and(|(vendor, device)| is_id(vendor) && is_id(device))
}

fn names_resource(value: &Value) -> bool {
    matches!(value, Value::Str(text) if is_resource(text))
}

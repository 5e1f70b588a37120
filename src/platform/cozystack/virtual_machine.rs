//! `VirtualMachine` of Cozystack (`apps.cozystack.io/v1alpha1`) with GPUs, as the reference of
//! Hikube describes it. Keys have the reference's names and land in the manifest as written.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::catalog::Catalog;
use crate::desired::Block;
use crate::value::{Node, Value};

use super::advice::{self, Facts};
use super::values::{self, checked, is_flag, is_size, is_text, texts_by_name};
use super::{API, Object, cloud_init, gpus};

/// The kind of its manifest.
pub(super) const KIND: &str = "VirtualMachine";

/// Fields that go into the manifest as they are written; the table of its fields checks them.
const AS_WRITTEN: [&str; 4] = ["cloudInitSeed", "externalMethod", "resources", "sshKeys"];

/// Reads one; nothing if a finding stands against it.
pub(super) fn read(node: &Node, catalog: &Catalog, block: &mut Block<'_, '_>) -> Option<Object> {
    let path = format!("{}[]", block.path_of("virtual_machines"));
    let mut own = Block::new(&path, Some(node), block.problems);
    let before = own.problems.0.len();
    let name = values::name(&mut own, "a virtual machine");
    let what = match &name {
        Some(name) => format!("virtual machine `{name}`"),
        None => "a virtual machine".to_owned(),
    };
    let purpose = advice::purpose(&mut own);
    let monitoring = own.flag("monitoring", false).value;
    let labels = checked(&mut own, "labels", "texts by name", texts_by_name);
    let annotations = checked(&mut own, "annotations", "texts by name", texts_by_name);

    let mut spec = Map::new();
    let mut put = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            spec.insert(key.to_owned(), value);
        }
    };
    put(
        "running",
        checked(&mut own, "running", "`true` or `false`", is_flag),
    );
    put(
        "instanceProfile",
        checked(&mut own, "instanceProfile", "a string", is_text),
    );
    let instance_type = gpus::instance_type(&mut own, &what);
    put("instanceType", instance_type.map(Node::to_json));
    let gpus = gpus::read(&mut own, &what);
    put("gpus", gpus.as_ref().map(|gpus| gpus.json.clone()));
    let known = instance_type.and_then(|node| gpus::known(node, catalog, &mut own));
    if let (Some(gpus), Some(known)) = (&gpus, known) {
        gpus::count_fits(gpus, known, catalog.instance_types(), &mut own);
    }
    let system_disk = own
        .node("systemDisk")
        .and_then(|node| disk(node, "systemDisk", &mut own));
    put("systemDisk", system_disk.clone());
    let disks = additional_disks(&mut own);
    put("additionalDisks", disks.clone());
    let external = checked(&mut own, "external", "`true` or `false`", is_flag);
    put("external", external.clone());
    let ports = checked(
        &mut own,
        "externalPorts",
        "a list of ports from 1 to 65535",
        are_ports,
    );
    if ports.is_some() && external != Some(json!(true)) {
        let message = format!("{what} has `externalPorts`, and `external` is not true");
        if let Some(node) = own.node("externalPorts") {
            values::blame(
                own.problems,
                node,
                message,
                "write `external: true`, or leave the ports out",
            );
        }
    }
    put("externalPorts", ports);
    put(
        "cloudInit",
        cloud_init::read(&mut own, monitoring).map(Json::String),
    );
    let network = own.node("network").and_then(|node| network(node, &mut own));
    put("network", network.clone());
    for key in AS_WRITTEN {
        put(key, own.node(key).map(Node::to_json));
    }
    own.finish();
    if block.problems.0.len() > before {
        return None;
    }
    let name = name?;
    let mut metadata = json!({ "name": name });
    if let Some(labels) = labels {
        metadata["labels"] = labels;
    }
    let annotations = with_scraping(annotations, monitoring);
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    let gpus = gpus?;
    let facts = Facts {
        what: &what,
        purpose,
        gpus: gpus.count,
        instance_type: known,
        unknown_type: instance_type
            .filter(|_| known.is_none())
            .and_then(Node::as_str),
        system_disk: system_disk.as_ref(),
        disks: disks.as_ref(),
        network: network.as_ref(),
    };
    Some(Object {
        manifest: json!({
            "apiVersion": API,
            "kind": KIND,
            "metadata": metadata,
            "spec": spec,
        }),
        advice: advice::of(&facts),
        resources: gpus.names,
    })
}

/// What Prometheus reads to find the exporter of a machine's metrics, on DCGM's port.
fn with_scraping(annotations: Option<Json>, monitoring: bool) -> Option<Json> {
    if !monitoring {
        return annotations;
    }
    let mut all = json!({
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9400",
        "prometheus.io/path": "/metrics",
    });
    if let (Some(Json::Object(own)), Json::Object(all)) = (annotations, &mut all) {
        all.extend(own);
    }
    Some(all)
}

/// A disk: `size`, and `storageClass` and `name` where they are.
fn disk(node: &Node, key: &str, block: &mut Block<'_, '_>) -> Option<Json> {
    let path = block.path_of(key);
    let mut own = Block::new(&path, Some(node), block.problems);
    let mut disk = Map::new();
    if let Some(name) = checked(
        &mut own,
        "name",
        "a name of lower-case letters, digits and `-`",
        is_disk_name,
    ) {
        disk.insert("name".to_owned(), name);
    }
    let size = checked(&mut own, "size", "a size such as `200Gi`", is_size);
    // Cozystack's own names; Hikube's is `size`.
    let is_system = key == "systemDisk";
    for key in ["image", "storage"].into_iter().filter(|_| is_system) {
        if let Some(node) = own.node(key) {
            disk.insert(key.to_owned(), node.to_json());
        }
    }
    match size {
        Some(size) => {
            disk.insert("size".to_owned(), size);
        }
        None if disk.contains_key("storage") => {}
        // A wrong one is told already.
        None if own.node("size").is_some() => {}
        None => values::missing(&mut own, "size", &format!("`{path}`")),
    }
    if let Some(class) = checked(&mut own, "storageClass", "a string", is_text) {
        disk.insert("storageClass".to_owned(), class);
    }
    own.finish();
    Some(Json::Object(disk))
}

fn is_disk_name(value: &Value) -> bool {
    matches!(value, Value::Str(text) if values::is_name(text))
}

fn additional_disks(block: &mut Block<'_, '_>) -> Option<Json> {
    let node = block.node("additionalDisks")?;
    let path = block.path_of("additionalDisks");
    let Some(items) = node.as_seq() else {
        values::blame(
            block.problems,
            node,
            format!("`{path}` must be a list of disks"),
            "each has a `name` and a `size`",
        );
        return None;
    };
    let mut names = BTreeSet::new();
    let mut disks = Vec::new();
    for item in items {
        let Some(disk) = disk(item, "additionalDisks[]", block) else {
            continue;
        };
        match disk["name"].as_str() {
            Some(name) if names.insert(name.to_owned()) => {}
            Some(name) => {
                let message = format!("two disks of `{path}` are called `{name}`");
                values::blame(
                    block.problems,
                    item,
                    message,
                    "each needs a name of its own",
                );
            }
            None => {
                let message = format!("each of `{path}` needs `name`");
                values::blame(block.problems, item, message, "such as `datasets`");
            }
        }
        disks.push(disk);
    }
    Some(Json::Array(disks))
}

fn are_ports(value: &Value) -> bool {
    let is_port =
        |node: &Node| matches!(node.value, Value::Int(port) if (1..=65535).contains(&port));
    matches!(value, Value::Seq(items) if !items.is_empty() && items.iter().all(is_port))
}

/// `network.interfaces`: each with a name and either `bridge` or `multus`.
fn network(node: &Node, block: &mut Block<'_, '_>) -> Option<Json> {
    let path = block.path_of("network");
    let mut own = Block::new(&path, Some(node), block.problems);
    let interfaces = own.node("interfaces");
    let items = interfaces.and_then(Node::as_seq).unwrap_or_default();
    if items.is_empty() {
        let message = format!("`{path}` needs `interfaces`, a list");
        values::blame(
            own.problems,
            interfaces.unwrap_or(node),
            message,
            "such as `- {name: default, bridge: {}}`",
        );
    }
    for item in items {
        let mut one = Block::new(&format!("{path}.interfaces[]"), Some(item), own.problems);
        values::name(&mut one, "an interface");
        let bridge = one.node("bridge");
        let multus = one.node("multus");
        if bridge.is_some() == multus.is_some() {
            let message = "an interface has either `bridge` or `multus`".to_owned();
            values::blame(
                one.problems,
                item,
                message,
                "`bridge: {}`, or `multus: {networkName: …}`",
            );
        }
        if let Some(multus) = multus {
            let mut inner = Block::new(
                &format!("{path}.interfaces[].multus"),
                Some(multus),
                one.problems,
            );
            if checked(&mut inner, "networkName", "a string", is_text).is_none() {
                values::missing(&mut inner, "networkName", "`multus`");
            }
            inner.finish();
        }
        one.finish();
    }
    own.finish();
    Some(node.to_json())
}

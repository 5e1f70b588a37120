//! The `kubernetes` part of the `sim:` variable.

use std::path::PathBuf;

use super::{ClusterSpec, NodeSpec};
use crate::sim::spec::{Reader, get};
use crate::value::{Node, Value};

const KEYS: [&str; 3] = ["kubectl", "nodes", "operator"];
const NODE_KEYS: [&str; 2] = ["product", "count"];

/// Reads it: `nodes` by name, each a product or a mapping of `product` and `count`; `operator`
/// is the namespace of NVIDIA's operator, or `false`.
pub(in crate::sim) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<ClusterSpec> {
    let map = reader.map(node, "kubernetes", &KEYS)?;
    let mut spec = ClusterSpec {
        kubectl: None,
        nodes: Vec::new(),
        operator: "gpu-operator".to_owned(),
    };
    if let Some(node) = get(map, "kubectl") {
        spec.kubectl = reader.text(node).map(PathBuf::from);
    }
    if let Some(node) = get(map, "operator") {
        spec.operator = match &node.value {
            Value::Bool(false) => String::new(),
            Value::Bool(true) => spec.operator,
            _ => reader.text(node)?,
        };
    }
    let nodes = get(map, "nodes").and_then(Node::as_map);
    for (name, entry) in nodes.into_iter().flatten() {
        let mut count = 1;
        let product = match &entry.node.value {
            Value::Map(_) => {
                let map = reader.map(&entry.node, "a node", &NODE_KEYS)?;
                match get(map, "count").map(|node| (&node.value, node)) {
                    Some((Value::Int(number @ 1..=64), _)) => {
                        count = u32::try_from(*number).unwrap_or(1);
                    }
                    Some((_, node)) => reader.error("`count` must be 1 to 64", &node.origin),
                    None => {}
                }
                get(map, "product").cloned()
            }
            _ => Some(entry.node.clone()),
        };
        let Some(product) = product else {
            reader.error("`product` is missing", &entry.node.origin);
            continue;
        };
        let key = reader.text(&product)?;
        spec.nodes.push(NodeSpec {
            name: name.clone(),
            product: reader.product(&key, &product.origin)?,
            count,
        });
    }
    Some(spec)
}

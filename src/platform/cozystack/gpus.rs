//! `gpus` of a virtual machine or of a group of nodes, and whether their number is the one that
//! goes with the instance type.

use serde_json::{Value as Json, json};

use crate::catalog::{Catalog, InstanceType};
use crate::desired::Block;
use crate::error::{Diagnostic, nearest};
use crate::value::Node;

use super::values::{self, is_resource};

/// GPUs of one machine, with where they are written.
#[derive(Debug)]
pub(super) struct Gpus<'v> {
    /// As the manifest has them.
    pub(super) json: Json,
    /// Their number.
    pub(super) count: u32,
    /// Their resources' names.
    pub(super) names: Vec<String>,
    node: &'v Node,
}

/// Reads `gpus`, which must be there and hold one at least.
pub(super) fn read<'v>(block: &mut Block<'v, '_>, what: &str) -> Option<Gpus<'v>> {
    let Some(node) = block.node("gpus") else {
        values::missing(block, "gpus", what);
        return None;
    };
    let path = block.path_of("gpus");
    let items = node.as_seq().unwrap_or_default();
    if items.is_empty() {
        let message = format!("`{path}` must be a list of at least one GPU");
        let hint = "such as `- name: nvidia.com/AD102GL_L40S`";
        values::blame(block.problems, node, message, hint);
        return None;
    }
    let mut names = Vec::new();
    let mut list = Vec::new();
    for item in items {
        let mut one = Block::new(&format!("{path}[]"), Some(item), block.problems);
        let name = one.node("name");
        let device = values::checked(&mut one, "deviceName", "a string", values::is_text);
        match name {
            None => values::missing(&mut one, "name", "a GPU"),
            Some(node) => match node.as_str().filter(|text| is_resource(text)) {
                Some(text) => {
                    names.push(text.to_owned());
                    let mut gpu = json!({ "name": text });
                    if let Some(device) = device {
                        gpu["deviceName"] = device;
                    }
                    list.push(gpu);
                }
                None => {
                    let message = format!("`{path}[].name` is not the name of a resource");
                    let hint = "a vendor's domain and a name, as nodes offer it: `nvidia.com/AD102GL_L40S`; `kubectl get nodes -o yaml` shows them below `allocatable`";
                    values::blame(one.problems, node, message, hint);
                }
            },
        }
        one.finish();
    }
    (names.len() == items.len()).then(|| Gpus {
        json: Json::Array(list),
        count: u32::try_from(names.len()).unwrap_or(u32::MAX),
        names,
        node,
    })
}

/// Reads `instanceType`, which must be there.
pub(super) fn instance_type<'v>(block: &mut Block<'v, '_>, what: &str) -> Option<&'v Node> {
    let Some(node) = block.node("instanceType") else {
        values::missing(block, "instanceType", what);
        return None;
    };
    if node.as_str().is_some_and(|text| !text.is_empty()) {
        return Some(node);
    }
    let message = format!("`{}` must be a string", block.path_of("instanceType"));
    block
        .problems
        .push(Diagnostic::error(message).at(&node.origin));
    None
}

/// What the catalog knows of an instance type. A type of one of its series (`g1.`) that it does
/// not know is a finding; one of another series, such as `u1.xlarge`, is left to the cluster.
pub(super) fn known<'c>(
    node: &Node,
    catalog: &'c Catalog,
    block: &mut Block<'_, '_>,
) -> Option<&'c InstanceType> {
    let name = node.as_str()?;
    let types = catalog.instance_types();
    if let Some(found) = types.iter().find(|known| known.name == name) {
        return Some(found);
    }
    let series = |name: &str| name.split_once('.').map(|(series, _)| series.to_owned());
    let of_series: Vec<&str> = (types.iter().map(|known| known.name.as_str()))
        .filter(|known| series(known) == series(name))
        .collect();
    if !of_series.is_empty() {
        let listed = of_series.join("`, `");
        let hint = match nearest(name, of_series.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? There are `{listed}`"),
            None => format!("there are `{listed}`"),
        };
        let message = format!("there is no instance type `{name}`");
        values::blame(block.problems, node, message, &hint);
    }
    None
}

/// Tells it where the number of GPUs is not the instance type's.
pub(super) fn count_fits(
    gpus: &Gpus<'_>,
    known: &InstanceType,
    all: &[InstanceType],
    block: &mut Block<'_, '_>,
) {
    let Some(offered) = known.gpus.filter(|offered| *offered != gpus.count) else {
        return;
    };
    let counted = |count: u32| match count {
        1 => "1 GPU".to_owned(),
        many => format!("{many} GPUs"),
    };
    let others: Vec<&str> = (all.iter())
        .filter(|other| other.gpus == Some(gpus.count))
        .map(|other| other.name.as_str())
        .collect();
    let hint = match others.as_slice() {
        [] => format!("list {} for it", counted(offered)),
        some => format!(
            "list {} for it, or take one with {}: `{}`",
            counted(offered),
            counted(gpus.count),
            some.join("`, `")
        ),
    };
    let message = format!(
        "instance type `{}` has {}, and `gpus` lists {}",
        known.name,
        counted(offered),
        gpus.count
    );
    values::blame(block.problems, gpus.node, message, &hint);
}

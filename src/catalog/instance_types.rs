//! Instance types of virtual machines: what a machine of each has.
//!
//! Reads the files in `vars/` whose names end in `_instance_types.yml`, which are written by
//! people; every finding comes with its position. What a type is good for, `platform` says.

use std::collections::BTreeMap;

use crate::error::{Diagnostic, Origin, Problems};
use crate::value::Node;

use super::fields::Fields;

/// More than any machine has, of anything.
const MOST: u64 = 1 << 20;

/// What a virtual machine of one type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name, such as `g1.large`.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in GiB.
    pub memory_gib: u32,
    /// GPUs; none where the type leaves the number open.
    pub gpus: Option<u32>,
}

/// All types of one file, after those of the files before it.
pub(super) fn read(
    file: &Node,
    types: &mut BTreeMap<String, (InstanceType, Origin)>,
    problems: &mut Problems,
) {
    let Some(mut top) = Fields::of(file, "a file of instance types", problems) else {
        return;
    };
    let entries = top.required_map("instance_types");
    top.finish(&["instance_types"]);
    for (name, entry) in entries.into_iter().flatten() {
        let Some(read) = instance_type(name, &entry.node, problems) else {
            continue;
        };
        if let Some((_, first)) = types.get(name) {
            problems.push(
                Diagnostic::error(format!("there are two instance types `{name}`"))
                    .at(&entry.key)
                    .related(first, "the first one"),
            );
            continue;
        }
        types.insert(name.clone(), (read, entry.key.clone()));
    }
}

fn instance_type(name: &str, node: &Node, problems: &mut Problems) -> Option<InstanceType> {
    let mut fields = Fields::of(node, "an instance type", problems)?;
    let vcpus = fields.required_number("vcpus", 1..=MOST);
    let memory = fields.required_number("memory_gib", 1..=MOST);
    let gpus = fields.optional_number("gpus", 1..=MOST);
    fields.finish(&["vcpus", "memory_gib", "gpus"]);
    Some(InstanceType {
        name: name.to_owned(),
        vcpus: u32::try_from(vcpus?).ok()?,
        memory_gib: u32::try_from(memory?).ok()?,
        gpus: gpus.and_then(|gpus| u32::try_from(gpus).ok()),
    })
}

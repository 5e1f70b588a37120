//! `rocm`: which devices processes are told of. Hints, without isolation.

use crate::error::{Diagnostic, Origin};

use super::block::{Block, Located, wrong_kind};

/// `rocm`.
#[derive(Debug, Clone, PartialEq)]
pub struct RocmWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `masks`: each is an environment file, and a drop-in for each of its units.
    pub masks: Vec<RocmMask>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// An entry of `masks`.
#[derive(Debug, Clone, PartialEq)]
pub struct RocmMask {
    /// `name`: of the environment file; letters, digits, `-` and `_`.
    pub name: Located<String>,
    /// `devices`: numbers of ROCm, which counts partitions.
    pub devices: Vec<u32>,
    /// `units`: services of systemd that are told of these devices only.
    pub units: Vec<Located<String>>,
}

pub(super) fn read(parent: &mut Block<'_, '_>) -> RocmWanted {
    let mut block = parent.child("rocm");
    let origin = block.origin.clone();
    let enabled = block.flag("enabled", false);
    let mut masks: Vec<RocmMask> = Vec::new();
    if let Some(node) = block.node("masks") {
        let path = block.path_of("masks");
        match node.as_seq() {
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    let mut entry =
                        Block::new(&format!("{path}[{index}]"), Some(item), block.problems);
                    let mask = read_mask(&mut entry);
                    entry.finish();
                    let twice = masks
                        .iter()
                        .any(|other| other.name.value == mask.name.value);
                    if twice {
                        let message = format!("two masks are called `{}`", mask.name.value);
                        let diagnostic = mask.name.blame(Diagnostic::error(message));
                        block.problems.push(diagnostic);
                    }
                    masks.push(mask);
                }
            }
            None => {
                let wanted = "a list of masks with `name`, `devices` and `units`";
                block.problems.push(wrong_kind(&path, wanted, node));
            }
        }
    }
    block.finish();
    RocmWanted {
        enabled,
        masks,
        origin,
    }
}

fn read_mask(entry: &mut Block<'_, '_>) -> RocmMask {
    let name = entry.text("name", "");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.value.is_empty() || !name.value.chars().all(plain) {
        let diagnostic = Diagnostic::error(format!(
            "`{}` is no name for an environment file",
            name.value
        ))
        .hint("give letters, digits, `-` and `_`");
        let diagnostic = match (&name.origin, &entry.origin) {
            (None, Some(origin)) => diagnostic.at(origin),
            _ => name.blame(diagnostic),
        };
        entry.problems.push(diagnostic);
    }
    let mut devices = Vec::new();
    if let Some(node) = entry.node("devices") {
        let path = entry.path_of("devices");
        let wanted = "a list of device numbers such as `[0, 1]`";
        match node.as_seq() {
            Some(items) if !items.is_empty() => {
                for item in items {
                    match super::block::as_count(item) {
                        Some(number) => devices.push(number),
                        None => entry.problems.push(wrong_kind(&path, wanted, item)),
                    }
                }
            }
            _ => entry.problems.push(wrong_kind(&path, wanted, node)),
        }
    } else {
        let message = format!("mask `{}` names no `devices`", name.value);
        entry.problems.push(name.blame(Diagnostic::error(message)));
    }
    let units = entry.texts("units").value;
    for unit in &units {
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let name = unit.value.strip_suffix(".service").unwrap_or_default();
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("`{}` is no service of systemd", unit.value);
            let hint = "give its full name, such as `training.service`";
            let diagnostic = unit.blame(Diagnostic::error(message).hint(hint));
            entry.problems.push(diagnostic);
        }
    }
    RocmMask {
        name,
        devices,
        units,
    }
}

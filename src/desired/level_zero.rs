//! `level_zero`: masks and modes that processes are told through their environment.
//!
//! A partition is a name for a mask: which devices, or which tiles of them, a process that takes
//! its environment from the partition's file sees. The seed's form, a list of masks, names them
//! by their place.

use std::fmt;

use crate::error::{Diagnostic, Origin};
use crate::value::{Node, Value};

use super::block::{Block, Located, wrong_kind};

/// `level_zero`.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelZeroWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `partitions`.
    pub partitions: Vec<LevelZeroPartition>,
    /// `hierarchy`: how the devices of the masks are counted; by the masks themselves if not given.
    pub hierarchy: Option<Located<Hierarchy>>,
    /// `ccs_mode`: how many compute engines each tile is to have; left alone if not given.
    pub ccs_mode: Option<Located<u32>>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// An entry of `partitions`.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelZeroPartition {
    /// `name`: also the name of its file.
    pub name: Located<String>,
    /// `mask`, as `ZE_AFFINITY_MASK` takes it: `0`, `0.1`, `0.0,1.0`.
    pub mask: Located<String>,
    /// `ccs`, as `ZEX_NUMBER_OF_CCS` takes it: `2`, or `0:4,1:1`.
    pub ccs: Option<Located<String>>,
    /// `units`: systemd services that take their environment from it.
    pub units: Vec<Located<String>>,
}

/// `hierarchy`, as `ZE_FLAT_DEVICE_HIERARCHY` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// Each tile is a device: masks are numbers of tiles, over all cards.
    Flat,
    /// Each card is a device: masks are `CARD` or `CARD.TILE`.
    Composite,
    /// As flat, and a card is told from its tiles.
    Combined,
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "FLAT",
            Self::Composite => "COMPOSITE",
            Self::Combined => "COMBINED",
        })
    }
}

pub(super) fn read(parent: &mut Block<'_, '_>) -> LevelZeroWanted {
    let mut block = parent.child("level_zero");
    let origin = block.origin.clone();
    let enabled = block.flag("enabled", false);
    let hierarchy = block.word(
        "hierarchy",
        Hierarchy::Flat,
        &[
            ("flat", Hierarchy::Flat),
            ("composite", Hierarchy::Composite),
            ("combined", Hierarchy::Combined),
        ],
    );
    let ccs_mode = block
        .node("ccs_mode")
        .is_some()
        .then(|| block.count("ccs_mode", 1, 1, 64));
    let wanted = LevelZeroWanted {
        enabled,
        partitions: read_partitions(&mut block),
        hierarchy: hierarchy.is_written().then_some(hierarchy),
        ccs_mode,
        origin,
    };
    check(&wanted, &mut block);
    block.finish();
    wanted
}

fn read_partitions(block: &mut Block<'_, '_>) -> Vec<LevelZeroPartition> {
    let Some(node) = block.node("partitions") else {
        return Vec::new();
    };
    let path = block.path_of("partitions");
    let Some(items) = node.as_seq() else {
        let diagnostic = wrong_kind(&path, "a list of masks, or of entries with `mask`", node);
        block.problems.push(diagnostic);
        return Vec::new();
    };
    let mut partitions = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let unnamed = format!("p{index}");
        let partition = match &item.value {
            Value::Map(_) => read_entry(block, &format!("{path}[{index}]"), item, &unnamed),
            _ => text_of(item).map(|mask| LevelZeroPartition {
                name: Located {
                    value: unnamed,
                    origin: Some(item.origin.clone()),
                },
                mask: Located {
                    value: mask,
                    origin: Some(item.origin.clone()),
                },
                ccs: None,
                units: Vec::new(),
            }),
        };
        match partition {
            Some(partition) => partitions.push(partition),
            None => {
                let each = format!("each entry of `{path}`");
                let wanted = "a mask such as `\"0.1\"`, or a mapping with `mask`";
                block.problems.push(wrong_kind(&each, wanted, item));
            }
        }
    }
    partitions
}

/// A mask of one device is a number in YAML, and `0.1` another kind of number.
fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        _ if node.as_str().is_some() => node.as_str().map(str::to_owned),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn read_entry(
    parent: &mut Block<'_, '_>,
    path: &str,
    item: &Node,
    unnamed: &str,
) -> Option<LevelZeroPartition> {
    let mut block = Block::new(path, Some(item), parent.problems);
    let text = |block: &mut Block<'_, '_>, key: &'static str| {
        let node = block.node(key)?;
        let value = text_of(node);
        if value.is_none() {
            let path = block.path_of(key);
            block.problems.push(wrong_kind(&path, "a string", node));
        }
        Some(Located {
            value: value?,
            origin: Some(node.origin.clone()),
        })
    };
    let mask = text(&mut block, "mask");
    let ccs = text(&mut block, "ccs");
    let name = block.text("name", unnamed);
    let units = block.texts("units").value;
    block.finish();
    Some(LevelZeroPartition {
        name,
        mask: mask?,
        ccs,
        units,
    })
}

fn check(wanted: &LevelZeroWanted, block: &mut Block<'_, '_>) {
    let mut names: Vec<&str> = Vec::new();
    let mut units: Vec<&str> = Vec::new();
    for partition in &wanted.partitions {
        let mut push = |at: &Located<String>, message: String, hint: &str| {
            let diagnostic = Diagnostic::error(message).hint(hint);
            block.problems.push(at.blame(diagnostic));
        };
        let name = &partition.name;
        if !is_name(&name.value) {
            let message = format!("`{}` is no name for a partition", name.value);
            push(
                name,
                message,
                "letters, digits, `-` and `_`, as it names a file",
            );
        } else if names.contains(&name.value.as_str()) {
            push(
                name,
                format!("two partitions are named `{}`", name.value),
                "give each its own `name`",
            );
        }
        names.push(&name.value);
        let mask = &partition.mask;
        if !is_mask(&mask.value) {
            let message = format!("`{}` is no mask", mask.value);
            push(
                mask,
                message,
                "numbers of devices, or of their tiles, such as `0`, `0.1` or `0.0,1.0`; in quotes",
            );
        } else if mask.value.contains('.')
            && let Some(hierarchy) = &wanted.hierarchy
            && hierarchy.value != Hierarchy::Composite
        {
            let message = format!(
                "`{}` names a tile of a card, and the hierarchy is flat",
                mask.value
            );
            push(
                mask,
                message,
                "count tiles over all cards, or set `hierarchy: composite`",
            );
        }
        if let Some(ccs) = &partition.ccs
            && !is_ccs(&ccs.value)
        {
            let message = format!("`{}` is no number of compute engines", ccs.value);
            push(
                ccs,
                message,
                "1, 2 or 4 for all, such as `2`, or for each device, such as `0:4,1:1`",
            );
        }
        for unit in &partition.units {
            if !is_service(&unit.value) {
                let message = format!("`{}` is no systemd service", unit.value);
                push(unit, message, "such as `ollama.service`");
            } else if units.contains(&unit.value.as_str()) {
                let message = format!("{} is in two partitions", unit.value);
                push(unit, message, "a service has one environment");
            }
            units.push(&unit.value);
        }
    }
}

fn is_name(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && text.len() <= 64 && !text.starts_with('-') && text.chars().all(fine)
}

fn is_service(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    let stem = text.strip_suffix(".service").unwrap_or_default();
    !stem.is_empty() && !stem.starts_with(['.', '-']) && text.len() <= 200 && stem.chars().all(fine)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.chars().all(|c| c.is_ascii_digit())
}

fn is_mask(text: &str) -> bool {
    text.split(',').all(|device| match device.split_once('.') {
        Some((card, tile)) => is_number(card) && is_number(tile),
        None => is_number(device),
    })
}

fn is_ccs(text: &str) -> bool {
    let engines = |text: &str| matches!(text, "1" | "2" | "4");
    engines(text)
        || text.split(',').all(|pair| {
            pair.split_once(':')
                .is_some_and(|(device, count)| is_number(device) && engines(count))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_engines_are_told_from_other_words() {
        for mask in ["0", "12", "0.1", "0.0,1.0", "0,2"] {
            assert!(is_mask(mask), "{mask}");
        }
        for mask in ["", "a", "0.", ".1", "0,,1", "0.1.2", "-1", "0 1", "1000"] {
            assert!(!is_mask(mask), "{mask}");
        }
        assert!(is_ccs("2") && is_ccs("0:4,1:1"));
        assert!(!is_ccs("3") && !is_ccs("0:3") && !is_ccs("0:4,") && !is_ccs(""));
        assert!(
            is_service("ollama.service") && !is_service("ollama") && !is_service("../x.service")
        );
    }
}

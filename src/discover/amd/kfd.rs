//! The devices of AMD's compute driver, as `/sys/class/kfd/kfd/topology` lists them.
//!
//! A partition is a node of its own: same card, another render node. The low three bits of
//! `location_id` count the partitions of a card that has some, and are the PCI function of
//! one that has none.

use std::collections::BTreeMap;

use crate::facts::{AmdPartition, Fact, PciAddress};

/// A node with compute units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Number of the node.
    pub number: u32,
    /// Where it is; the function may be a partition's number instead.
    pub place: PciAddress,
    /// PCI device id.
    pub device: u16,
    /// N of `/dev/dri/renderDN`; 0 where there is none.
    pub render_minor: u32,
    /// XGMI hive; 0 for none.
    pub hive: u64,
    /// Accelerator complex dies; kernels before 6.6 do not say.
    pub xcc: Option<u32>,
}

/// The node that a `properties` file describes; none if it is a processor.
#[must_use]
pub fn node(number: u32, properties: &str) -> Option<Node> {
    let values: BTreeMap<&str, &str> = properties
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .collect();
    let value = |name: &str| values.get(name).map(|text| text.trim());
    let number_of = |name: &str| value(name)?.parse::<u64>().ok();
    if number_of("simd_count")? == 0 {
        return None;
    }
    let location = number_of("location_id")?;
    let byte = |value: u64| u8::try_from(value & 0xff).unwrap_or(0);
    Some(Node {
        number,
        place: PciAddress {
            domain: u32::try_from(number_of("domain").unwrap_or(0)).ok()?,
            bus: byte(location >> 8),
            device: byte(location >> 3 & 0x1f),
            function: byte(location & 7),
        },
        device: u16::try_from(number_of("device_id")?).ok()?,
        render_minor: u32::try_from(number_of("drm_render_minor").unwrap_or(0)).ok()?,
        hive: number_of("hive_id").unwrap_or(0),
        xcc: number_of("num_xcc").and_then(|xcc| u32::try_from(xcc).ok()),
    })
}

/// The nodes in `nodes/N/properties:NAME VALUE` lines, as `grep` prints them.
#[must_use]
pub fn nodes(lines: &[&str]) -> Vec<Node> {
    let mut files: BTreeMap<u32, String> = BTreeMap::new();
    for line in lines {
        let Some((path, rest)) = line.split_once("/properties:") else {
            continue;
        };
        let number = path.rsplit('/').next().and_then(|n| n.parse().ok());
        if let Some(number) = number {
            let text = files.entry(number).or_default();
            text.push_str(rest);
            text.push('\n');
        }
    }
    files
        .iter()
        .filter_map(|(number, text)| node(*number, text))
        .collect()
}

/// The nodes that belong to a card, in the order of their partitions.
#[must_use]
pub fn of_card(nodes: &[Node], card: PciAddress) -> Vec<(u32, &Node)> {
    let same = |node: &&Node| {
        PciAddress {
            function: 0,
            ..node.place
        } == card
    };
    let exact = nodes.iter().find(|node| node.place == card);
    let mut found: Vec<(u32, &Node)> = match exact {
        Some(node) if card.function != 0 => vec![(0, node)],
        _ => nodes
            .iter()
            .filter(same)
            .map(|node| (u32::from(node.place.function), node))
            .collect(),
    };
    found.sort_by_key(|(id, _)| *id);
    found
}

/// The same as facts.
#[must_use]
pub fn partitions(nodes: &[(u32, &Node)]) -> Vec<AmdPartition> {
    let partition = |(id, node): &(u32, &Node)| AmdPartition {
        id: *id,
        render_minor: Fact::from_option((node.render_minor > 0).then_some(node.render_minor)),
        xcc: Fact::from_option(node.xcc),
    };
    nodes.iter().map(partition).collect()
}

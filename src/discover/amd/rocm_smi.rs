//! `rocm-smi`, for hosts that have nothing newer. Its concise table cannot be had as JSON, so
//! values are asked for by name.

use serde_json::Value as Json;

use crate::facts::PciAddress;

use super::smi::Parted;
use super::text::{rows, said};

/// A row of `--showhw`. All partitions of a card have its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number for the tool, which counts partitions.
    pub gpu: u32,
    /// Node of the compute driver.
    pub node: u32,
    /// PCI device id.
    pub device: u16,
    /// Address of the card.
    pub bdf: PciAddress,
    /// Number of the partition.
    pub partition: u32,
}

/// `rocm-smi --showhw`.
#[must_use]
pub fn hardware(text: &str) -> Vec<Row> {
    let row = |words: &Vec<&str>| {
        let [gpu, node, device, .., bdf, partition] = words[..] else {
            return None;
        };
        Some(Row {
            gpu: gpu.parse().ok()?,
            node: node.parse().ok()?,
            device: u16::from_str_radix(device.strip_prefix("0x")?, 16).ok()?,
            bdf: bdf.parse().ok()?,
            partition: partition.parse().ok()?,
        })
    };
    rows(text, "GPU").iter().filter_map(row).collect()
}

/// A row of the concise table: the number, the PCI device id, and `Partitions`.
#[must_use]
pub fn concise(text: &str) -> Vec<(u16, Parted)> {
    let mut found = Vec::new();
    for words in text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
    {
        // `0  1  0x73bf,  34495  43.0°C  6.0W  N/A, N/A, 0  …`
        let [gpu, _, device, _, _, _, memory, compute, id, ..] = words[..] else {
            continue;
        };
        let device = device
            .trim_end_matches(',')
            .strip_prefix("0x")
            .and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let (Ok(gpu), Some(device)) = (gpu.parse(), device) else {
            continue;
        };
        let mode = |word: &str| said(word.trim_end_matches(',')).map(str::to_owned);
        let parted = Parted {
            gpu,
            compute: mode(compute),
            memory: mode(memory),
            ids: id.parse().into_iter().collect(),
            ..Parted::default()
        };
        found.push((device, parted));
    }
    found
}

/// The values that were asked for by name, with `--json`: an object a card (`card0`).
#[must_use]
pub fn named(text: &str, name: &str) -> Vec<(u32, String)> {
    let Ok(Json::Object(cards)) = serde_json::from_str::<Json>(text) else {
        return Vec::new();
    };
    let value = |(card, values): (&String, &Json)| {
        let number = card.strip_prefix("card")?.parse().ok()?;
        let value = said(values.get(name)?.as_str()?)?;
        Some((number, value.to_owned()))
    };
    cards.iter().filter_map(value).collect()
}

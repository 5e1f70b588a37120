//! What `xpu-smi` prints: its version, and the cards that it lists, as JSON (1.x) or as a table
//! (1.x and 2.x, and `xpumcli`, which prints the same).

use serde_json::Value as Json;

use crate::facts::PciAddress;

/// A card of the tool's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The tool's number.
    pub device_id: u32,
    /// Product name.
    pub name: String,
    /// Its place.
    pub pci: PciAddress,
    /// UUID; version 2 calls it `SOC UUID`.
    pub uuid: Option<String>,
}

/// `xpu-smi -v`: the first `Version:`, which is the program's own.
#[must_use]
pub fn version(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let version = line.trim().strip_prefix("Version:")?.trim();
        (!version.is_empty()).then(|| version.chars().take(60).collect())
    })
}

/// `xpu-smi discovery`, with `-j` or without; nothing where it is neither.
#[must_use]
pub fn discovery(text: &str) -> Vec<Listed> {
    match text.find('{') {
        Some(start) if text.contains("\"device_list\"") => json(&text[start..]),
        _ => table(text),
    }
}

fn json(text: &str) -> Vec<Listed> {
    // Messages may follow the object.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Json>();
    let Some(Ok(value)) = values.next() else {
        return Vec::new();
    };
    let devices = value["device_list"].as_array();
    let device = |device: &Json| {
        let text = |key: &str| device[key].as_str().map(str::to_owned);
        Some(Listed {
            device_id: u32::try_from(device["device_id"].as_u64()?).ok()?,
            name: text("device_name")?,
            pci: text("pci_bdf_address")?.parse().ok()?,
            uuid: text("uuid"),
        })
    };
    devices.into_iter().flatten().filter_map(device).collect()
}

/// Rows `| 0 | Device Name: … |`; the first column is empty where a row goes on.
fn table(text: &str) -> Vec<Listed> {
    let mut blocks: Vec<(u32, Vec<(&str, &str)>)> = Vec::new();
    for line in text.lines() {
        let mut cells = line.trim().trim_matches('|').splitn(2, '|');
        let (Some(number), Some(said)) = (cells.next(), cells.next()) else {
            continue;
        };
        if let Ok(number) = number.trim().parse() {
            blocks.push((number, Vec::new()));
        }
        if let (Some((_, block)), Some((key, value))) = (blocks.last_mut(), said.split_once(':')) {
            block.push((key.trim(), value.trim()));
        }
    }
    let card = |(device_id, block): &(u32, Vec<(&str, &str)>)| {
        let value = |name: &str| block.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        Some(Listed {
            device_id: *device_id,
            name: value("Device Name")?.to_owned(),
            pci: value("PCI BDF Address")?.parse().ok()?,
            uuid: value("UUID").or(value("SOC UUID")).map(str::to_owned),
        })
    };
    blocks.iter().filter_map(card).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_list() {
        assert_eq!(discovery("{\n    \"error\": \"device not found\"\n}\n"), []);
        assert_eq!(discovery("{\"device_list\": [{\"device_id\": 0"), []);
        assert_eq!(
            version("xpu-smi: error while loading shared libraries"),
            None
        );
    }

    #[test]
    fn both_forms_of_the_version_are_read() {
        let first = "CLI:\n    Version: 1.2.31.20240308\n    Build ID: 00000000\n\nService:\n    Version: 9\n";
        assert_eq!(version(first).as_deref(), Some("1.2.31.20240308"));
        let second = "CLI:\n  Version: 2.0.0.20250225\n  Build ID: 8389eee7\n";
        assert_eq!(version(second).as_deref(), Some("2.0.0.20250225"));
    }
}

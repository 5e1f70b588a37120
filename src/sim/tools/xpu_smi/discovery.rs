//! `xpu-smi discovery`: the list as a table, as JSON, as CSV, and the details of one card.

use std::io;

use serde_json::{Map, Value as Json, json};

use super::table::{split_line, split_rule};
use super::{Device, Outcome, devices, has, is_second, named, option, refuse};
use crate::sim::machine::Host;

/// Columns of the cell that holds the device's number.
const FIRST: usize = 11;

pub(super) fn run(host: &Host, version: &str, args: &[&str]) -> io::Result<Outcome> {
    let devices = devices(host)?;
    if let Some(columns) = option(args, &["--dump"]) {
        return Ok(dump(&devices, columns));
    }
    let json = has(args, &["-j", "--json"]);
    let one = option(args, &["-d", "--device"]);
    let Some(name) = one else {
        return Ok(Outcome::out(
            if json {
                list_json(&devices)
            } else {
                list(&devices, version)
            },
            0,
        ));
    };
    let Some(device) = named(&devices, name) else {
        return Ok(if json {
            Outcome::out(
                "{\n    \"error\": \"device not found\",\n    \"errno\": 22\n}\n",
                22,
            )
        } else {
            refuse("device not found")
        });
    };
    Ok(Outcome::out(details(host, device, version), 0))
}

/// `00000000-0000-0003-0000-0000e20b8086`: bus, and the ids.
pub(super) fn uuid(device: &Device, version: &str) -> String {
    let id = format!("{:04x}8086", device.card.device);
    let bus = &device.address[5..7];
    if is_second(version) {
        format!("00000000-0000-00{bus}-0000-0000{id}")
    } else {
        format!("00000000-0000-0000-00{bus}-{id:0>12}")
    }
}

/// Version 1 did not know names.
fn name(device: &Device, version: &str) -> String {
    if is_second(version) {
        device.card.name.to_owned()
    } else {
        format!("Intel(R) Graphics [0x{:04x}]", device.card.device)
    }
}

fn function_type(device: &Device) -> &'static str {
    if device.is_virtual {
        "virtual"
    } else {
        "physical"
    }
}

fn list(devices: &[Device], version: &str) -> String {
    let mut text = split_rule(FIRST);
    text.push_str(&split_line(FIRST, "Device ID", "Device Information"));
    text.push_str(&split_rule(FIRST));
    for device in devices {
        let rows = [
            format!("Device Name: {}", name(device, version)),
            "Vendor Name: Intel(R) Corporation".to_owned(),
            format!(
                "{}: {}",
                if is_second(version) {
                    "SOC UUID"
                } else {
                    "UUID"
                },
                uuid(device, version)
            ),
            format!("PCI BDF Address: {}", device.address),
            format!("Function Type: {}", function_type(device)),
        ];
        for (at, row) in rows.iter().enumerate() {
            let id = if at == 0 {
                device.id.to_string()
            } else {
                String::new()
            };
            text.push_str(&split_line(FIRST, &id, row));
        }
        text.push_str(&split_rule(FIRST));
    }
    text
}

fn list_json(devices: &[Device]) -> String {
    let rows: Vec<Json> = devices
        .iter()
        .map(|device| {
            let mut row = Map::new();
            row.insert("device_id".to_owned(), json!(device.id));
            row.insert("device_name".to_owned(), json!(name(device, "1")));
            row.insert("device_type".to_owned(), json!("GPU"));
            row.insert("pci_bdf_address".to_owned(), json!(device.address));
            // No leading zeros.
            row.insert(
                "pci_device_id".to_owned(),
                json!(format!("{:#x}", device.card.device)),
            );
            row.insert("uuid".to_owned(), json!(uuid(device, "1")));
            row.insert("vendor_name".to_owned(), json!("Intel(R) Corporation"));
            Json::Object(row)
        })
        .collect();
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, form);
    // A value that we made ourselves can be written.
    let _ = serde::Serialize::serialize(&json!({ "device_list": rows }), &mut writer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

/// `--dump 1,2,3,6`: id, name, vendor, clock.
fn dump(devices: &[Device], columns: &str) -> Outcome {
    let mut heads = Vec::new();
    let mut wanted = Vec::new();
    for column in columns.split(',') {
        heads.push(match column {
            "1" => "Device ID",
            "2" => "Device Name",
            "3" => "Vendor Name",
            "4" => "UUID",
            "6" => "Core Clock Rate",
            _ => return refuse("invalid dump property"),
        });
        wanted.push(column);
    }
    let mut text = format!("{}\n", heads.join(","));
    for device in devices {
        let cells: Vec<String> = wanted
            .iter()
            .map(|column| match *column {
                "1" => device.id.to_string(),
                "2" => format!("\"{}\"", name(device, "1")),
                "3" => "\"Intel(R) Corporation\"".to_owned(),
                "4" => format!("\"{}\"", uuid(device, "1")),
                _ => "\"2050 MHz\"".to_owned(),
            })
            .collect();
        text.push_str(&format!("{}\n", cells.join(",")));
    }
    Outcome::out(text, 0)
}

/// The rows of one card that tell what it is; clocks and firmware are left out.
fn details(host: &Host, device: &Device, version: &str) -> String {
    #[expect(clippy::cast_precision_loss, reason = "memory sizes are below 2^53")]
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let card = device.card;
    let memory = card.memory * u64::from(card.tiles);
    let second = is_second(version);
    let mut blocks = vec![vec![
        "Device Type: GPU".to_owned(),
        format!("Device Name: {}", name(device, version)),
    ]];
    if second {
        blocks[0].push("Device State: normal".to_owned());
        blocks[0].push(format!("PCI Device ID: 0x{:04x}", card.device));
    }
    blocks[0].push("Vendor Name: Intel(R) Corporation".to_owned());
    let word = if second { "SOC UUID" } else { "UUID" };
    blocks[0].push(format!("{word}: {}", uuid(device, version)));
    blocks[0].push("Serial Number: unknown".to_owned());
    blocks.push(vec![format!(
        "Kernel Version: {}",
        host.read("/proc/sys/kernel/osrelease")
    )]);
    blocks.push(vec![
        format!("PCI BDF Address: {}", device.address),
        format!("Function Type: {}", function_type(device)),
    ]);
    blocks.push(vec![format!("Memory Physical Size: {}", mib(memory))]);
    blocks.push(vec![
        format!("Number of EUs: {}", card.units),
        format!("Number of Tiles: {}", card.tiles),
    ]);
    let mut text = split_rule(FIRST);
    text.push_str(&split_line(FIRST, "Device ID", "Device Information"));
    text.push_str(&split_rule(FIRST));
    let mut id = device.id.to_string();
    for (at, block) in blocks.iter().enumerate() {
        if at > 0 {
            text.push_str(&split_line(FIRST, "", ""));
        }
        for row in block {
            text.push_str(&split_line(FIRST, &id, row));
            id.clear();
        }
    }
    text.push_str(&split_rule(FIRST));
    text
}

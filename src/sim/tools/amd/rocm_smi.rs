//! `rocm-smi`: the hardware table, the concise one, and values asked for by name.

use std::fmt::Write as _;
use std::io;

use serde_json::{Map, Value as Json, json};

use super::devices;
use crate::sim::amd::{Loaded, loaded};
use crate::sim::machine::Machine;
use crate::sim::tools::{Call, Outcome};

pub(super) fn run(call: &Call<'_>, machine: &Machine) -> io::Result<Outcome> {
    if loaded(call.host) != Loaded::Amdgpu {
        // It ends well with the driver missing.
        return Ok(Outcome::out(
            "ERROR:root:Driver not initialized (amdgpu not found in modules)\n",
            0,
        ));
    }
    let rows = devices(machine);
    let device_id = crate::sim::product::bare_card;
    let ends = |title: &str, body: String| {
        Outcome::out(
            format!(
                "========================================= ROCm System Management Interface =========================================\n{title}\n{body}\
                 =============================================== End of ROCm SMI Log ================================================\n"
            ),
            0,
        )
    };
    let mut text = String::new();
    if call.has("--showbus") {
        for (gpu, device) in rows.iter().enumerate() {
            let _ = writeln!(
                text,
                "GPU[{gpu}]\t\t: PCI Bus: {}",
                device.card.pci.to_uppercase()
            );
        }
        return Ok(ends(
            "=========================================== PCI Bus ID ===========================================",
            text,
        ));
    }
    if call.has("--showhw") {
        text.push_str("GPU  NODE  DID     GUID   GFX VER  GFX RAS  SDMA RAS  UMC RAS   VBIOS  BUS           PARTITION ID  \n");
        for (gpu, device) in rows.iter().enumerate() {
            let id = device_id(&device.card.kind).map_or(0, |kind| kind.device);
            let _ = writeln!(
                text,
                "{gpu:<5}{:<6}0x{id:04x}  {:<7}gfx942   ENABLED  ENABLED   DISABLED  N/A    {}  {}",
                gpu + 2,
                18_000 + device.render,
                device.card.pci,
                device.partition
            );
        }
        return Ok(ends(
            "====================================== Concise Hardware Info =======================================",
            text,
        ));
    }
    if call.has("--json") {
        let names = [
            ("--showcomputepartition", "Compute Partition"),
            ("--showmemorypartition", "Memory Partition"),
        ];
        if !names.iter().any(|(option, _)| call.has(option)) {
            let text = "ERROR: Cannot print JSON/CSV output for concise output\n";
            return Ok(Outcome::out(text, 0));
        }
        let mut cards = Map::new();
        for (gpu, device) in rows.iter().enumerate() {
            let known = device.card.mode().is_some();
            let said = |value: &str| {
                if known {
                    value.to_owned()
                } else {
                    "N/A".to_owned()
                }
            };
            let mut values = Map::new();
            for (option, name) in names.iter().filter(|(option, _)| call.has(option)) {
                let value = match *option {
                    "--showcomputepartition" => said(&device.card.compute),
                    _ => said(&device.card.memory),
                };
                values.insert((*name).to_owned(), json!(value));
            }
            cards.insert(format!("card{gpu}"), Json::Object(values));
        }
        return Ok(Outcome::out(Json::Object(cards).to_string() + "\n", 0));
    }
    text.push_str(
        "Device  Node  IDs              Temp    Power  Partitions          SCLK  MCLK   Fan    Perf    PwrCap  VRAM%  GPU%\n              \
         (DID,     GUID)  (Edge)  (Avg)  (Mem, Compute, ID)\n",
    );
    for (gpu, device) in rows.iter().enumerate() {
        let id = device_id(&device.card.kind).map_or(0, |kind| kind.device);
        let (compute, memory) = match device.card.mode() {
            Some(mode) => (mode.name, device.card.memory.as_str()),
            None => ("N/A", "N/A"),
        };
        let _ = writeln!(
            text,
            "{gpu:<8}{:<6}0x{id:04x},   {:<6}  43.0°C  140.0W   {memory}, {compute}, {}        132Mhz  900Mhz  0%     auto    750.0W  0%     0%",
            gpu + 2,
            18_000 + device.render,
            device.partition
        );
    }
    Ok(ends(
        "=================================================== Concise Info ===================================================",
        text,
    ))
}

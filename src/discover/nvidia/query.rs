//! `nvidia-smi --query-gpu=… --format=csv`: one line a card.

use std::collections::BTreeMap;

use crate::facts::{Fact, GpuUuid, MigMode, PciAddress};

use super::{not_there, switch};

/// The fields in the order in which `nvidia.sh` asks for them; the last were added last, and
/// older drivers are asked without.
pub const FIELDS: [&str; 13] = [
    "index",
    "mig.mode.current",
    "mig.mode.pending",
    "uuid",
    "name",
    "pci.bus_id",
    "pci.device_id",
    "pci.sub_device_id",
    "driver_version",
    "memory.total",
    "persistence_mode",
    "compute_mode",
    "compute_cap",
];

/// One card.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `index`
    pub index: u32,
    /// `uuid`
    pub uuid: GpuUuid,
    /// `name`
    pub name: String,
    /// `pci.bus_id`
    pub pci: PciAddress,
    /// `pci.device_id`: the device's half.
    pub device_id: Option<u16>,
    /// `pci.sub_device_id`: vendor and device.
    pub subsystem: Option<(u16, u16)>,
    /// `driver_version`
    pub driver: Option<String>,
    /// `memory.total` in MiB.
    pub memory_mib: Fact<u64>,
    /// `persistence_mode`
    pub persistence: Fact<bool>,
    /// `compute_mode`
    pub compute_mode: Fact<String>,
    /// `compute_cap` times ten.
    pub compute_capability: Fact<u32>,
    /// `mig.mode.current` and `mig.mode.pending`; absent for `[N/A]`.
    pub mig: Fact<(MigMode, MigMode)>,
}

/// The cells of each line that has as many as there are `fields`, by field. A header line is
/// one of them if it was asked for.
#[must_use]
pub fn cells<'t, 'f>(text: &'t str, fields: &[&'f str]) -> Vec<BTreeMap<&'f str, &'t str>> {
    text.lines()
        .map(|line| line.split(',').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == fields.len())
        .map(|cells| fields.iter().copied().zip(cells).collect())
        .collect()
}

/// The names of the fields in a header line, without their units (`memory.total [MiB]`).
#[must_use]
pub fn header(line: &str) -> Vec<&str> {
    line.split(',')
        .map(|cell| cell.split('[').next().unwrap_or(cell).trim())
        .collect()
}

/// The cards in the answer to `nvidia.sh`'s query; which fields were asked for is seen by their
/// number. Lines that are no card (messages) are passed over.
#[must_use]
pub fn rows(text: &str) -> Vec<Row> {
    let full = FIELDS.as_slice();
    let without_compute_cap = &FIELDS[..12];
    let mut without_mig = FIELDS[..12].to_vec();
    without_mig.drain(1..3);
    for fields in [full, without_compute_cap, without_mig.as_slice()] {
        let found: Vec<Row> = cells(text, fields).iter().filter_map(row).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// One card from its cells, whichever were asked for; `index`, `uuid`, `name` and
/// `pci.bus_id` must be among them.
#[must_use]
pub fn row(cells: &BTreeMap<&str, &str>) -> Option<Row> {
    let cell = |name: &str| cells.get(name).copied();
    let uuid = cell("uuid").filter(|uuid| uuid.starts_with("GPU-"))?;
    Some(Row {
        index: cell("index")?.parse().ok()?,
        uuid: GpuUuid(uuid.to_owned()),
        name: cell("name")?.to_owned(),
        pci: cell("pci.bus_id")?.parse().ok()?,
        device_id: cell("pci.device_id")
            .and_then(pair)
            .map(|(device, _)| device),
        subsystem: cell("pci.sub_device_id")
            .and_then(pair)
            .map(|(device, vendor)| (vendor, device)),
        driver: cell("driver_version")
            .filter(|version| !version.is_empty() && !not_there(version))
            .map(str::to_owned),
        memory_mib: asked(cells, "memory.total", |text| {
            text.trim_end_matches(" MiB").parse().ok()
        }),
        persistence: asked(cells, "persistence_mode", switch),
        compute_mode: asked(cells, "compute_mode", |text| Some(text.to_owned())),
        compute_capability: asked(cells, "compute_cap", tenfold),
        // Drivers before R450 have neither the fields nor MIG.
        mig: match (cell("mig.mode.current"), cell("mig.mode.pending")) {
            (Some(current), Some(pending)) => modes(current, pending),
            _ => Fact::Absent,
        },
    })
}

/// The MIG modes in the words of `mig.mode.current` and `mig.mode.pending`.
#[must_use]
pub fn modes(current: &str, pending: &str) -> Fact<(MigMode, MigMode)> {
    let mode = |text| fact(text, switch).map(mode_of);
    match (mode(current), mode(pending)) {
        (Fact::Known(current), Fact::Known(pending)) => Fact::Known((current, pending)),
        (Fact::Absent, _) | (_, Fact::Absent) => Fact::Absent,
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why),
    }
}

fn mode_of(on: bool) -> MigMode {
    if on {
        MigMode::Enabled
    } else {
        MigMode::Disabled
    }
}

/// A cell's fact; unknown if the field was not asked for, as of drivers that lack it.
fn asked<T>(cells: &BTreeMap<&str, &str>, name: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T> {
    match cells.get(name) {
        Some(text) => fact(text, read),
        None => Fact::Unknown(format!("this driver cannot be asked for {name}")),
    }
}

fn fact<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T> {
    if not_there(text) {
        return Fact::Absent;
    }
    match read(text) {
        Some(value) => Fact::Known(value),
        None => Fact::Unknown(format!("nvidia-smi says `{}`", short(text))),
    }
}

/// A host's text for a message: its first characters.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// `0x233010DE` is device 2330 of vendor 10de; the XML has it without `0x`.
fn pair(text: &str) -> Option<(u16, u16)> {
    let digits = text.trim_start_matches("0x");
    let both = u32::from_str_radix(digits, 16).ok()?;
    let device = u16::try_from(both >> 16).ok()?;
    let vendor = u16::try_from(both & 0xffff).ok()?;
    (both != 0).then_some((device, vendor))
}

/// `9.0` is 90.
fn tenfold(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 1000 && minor < 10).then_some(major * 10 + minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_with_mig_is_read() {
        let text = "0, Enabled, Enabled, GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, NVIDIA A30, \
                    00000000:0B:00.0, 0x20B710DE, 0x153210DE, 535.183.01, 24576, Disabled, Default, 8.0\n";
        let found = rows(text);
        assert_eq!(found.len(), 1);
        let row = &found[0];
        assert_eq!(row.pci.to_string(), "0000:0b:00.0");
        assert_eq!(row.device_id, Some(0x20b7));
        assert_eq!(row.subsystem, Some((0x10de, 0x1532)));
        assert_eq!(row.memory_mib, Fact::Known(24576));
        assert_eq!(row.persistence, Fact::Known(false));
        assert_eq!(row.compute_capability, Fact::Known(80));
        assert_eq!(row.mig, Fact::Known((MigMode::Enabled, MigMode::Enabled)));
    }

    #[test]
    fn older_drivers_answer_fewer_fields() {
        let old = "0, GPU-ef1b2c9b-38d8-2090-2bd1-f567a3eb42a6, Tesla P100-PCIE-16GB, \
                   00000000:05:00.0, 0x15F810DE, 0x118F10DE, 418.87.00, 16280, Enabled, Default\n";
        let row = &rows(old)[0];
        assert_eq!(row.mig, Fact::Absent);
        assert!(row.compute_capability.unknown().is_some());
        let r450 = "0, [N/A], [N/A], GPU-ef1b2c9b-38d8-2090-2bd1-f567a3eb42a6, Tesla P100-PCIE-16GB, \
                    00000000:05:00.0, 0x15F810DE, 0x118F10DE, 450.80.02, 16280, Enabled, Default\n";
        assert_eq!(rows(r450)[0].mig, Fact::Absent);
    }

    #[test]
    fn messages_between_cards_are_passed_over() {
        let text = "WARNING: infoROM is corrupted at gpu 0000:05:00.0\n\
                    Unable to determine the device handle for GPU0000:06:00.0: Unknown Error\n";
        assert!(rows(text).is_empty());
    }

    #[test]
    fn a_card_that_does_not_answer_has_unknowns_and_no_zeros() {
        let text = "0, [Unknown Error], [Unknown Error], GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, \
                    NVIDIA A30, 00000000:0B:00.0, 0x20B710DE, 0x153210DE, 535.183.01, \
                    [Unknown Error], [GPU is lost], Default, 8.0\n";
        let row = &rows(text)[0];
        assert!(row.mig.unknown().is_some());
        assert!(row.memory_mib.unknown().is_some());
        assert!(row.persistence.unknown().is_some());
    }
}

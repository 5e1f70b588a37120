//! AMD's command line tools: two different programs called `amd-smi`, and `rocm-smi`.
//!
//! Which `amd-smi` is installed goes with the driver, as the packages do: ROCm's with
//! `amdgpu`, GIM's with `gim`.

mod gim;
mod rocm;
mod rocm_smi;

use std::io;

use super::{Call, Outcome};
use crate::sim::amd::Card;
use crate::sim::machine::{Machine, uuid};

/// `amd-smi`
pub(super) fn amd_smi(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    if machine.amd.cards.is_empty() {
        return Ok(missing(call));
    }
    match machine.spec.amd.driver.as_str() {
        "gim" => gim::run(call),
        _ => rocm::run(call, &machine),
    }
}

/// `rocm-smi`
pub(super) fn rocm_smi(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    if machine.amd.cards.is_empty() || machine.spec.amd.driver == "gim" {
        return Ok(missing(call));
    }
    rocm_smi::run(call, &machine)
}

/// As a shell says it of a program that is not installed.
fn missing(call: &Call<'_>) -> Outcome {
    Outcome::err(format!("sh: {}: not found\n", call.name), 127)
}

/// A device that tools count: a card, or a partition of one.
struct Device<'m> {
    card: &'m Card,
    partition: u32,
    render: u32,
}

impl Device<'_> {
    /// The address with the partition's number as its function.
    fn bdf(&self) -> String {
        let (place, _) = self
            .card
            .pci
            .rsplit_once('.')
            .unwrap_or((&self.card.pci, ""));
        format!("{place}.{}", self.partition)
    }
}

/// All devices in the order of cards and partitions.
fn devices(machine: &Machine) -> Vec<Device<'_>> {
    let mut found = Vec::new();
    let mut first = 0;
    for card in &machine.amd.cards {
        for partition in 0..card.partitions() {
            if first + partition < machine.amd.render_nodes {
                found.push(Device {
                    card,
                    partition,
                    render: 128 + first + partition,
                });
            }
        }
        first += card.most_partitions();
    }
    found
}

/// A UUID as AMD's tools print it: beginning and device id, then the serial number.
fn card_uuid(machine: &Machine, card: &Card, begin: &str) -> String {
    let seed = uuid(&format!("{} {}", machine.name, card.pci));
    let device = crate::sim::product::bare_card(&card.kind).map_or(0, |kind| kind.device);
    format!(
        "{begin}{device:04x}-0000-1000-80{}-{}",
        &seed[9..11],
        &seed[24..]
    )
}

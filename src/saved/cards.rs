//! The cards of a host as a page draws them: slices on their grid, or a few words.

use serde::{Deserialize, Serialize};

use crate::facts::{Fact, Gpu, HostFacts, MigMode, MigState};
use crate::step::Slice;

/// One card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What it is called in plans: `GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3)`.
    pub name: String,
    /// Key of the catalog's model, or its PCI ids.
    pub model: String,
    /// Units of the grid that its slices lie on; none where it has no such slices.
    pub grid: Option<u32>,
    /// Its slices.
    pub slices: Vec<Slice>,
    /// How it stands, in a few words: `3 MIG instances`, `4 virtual functions`, `whole`.
    pub state: String,
}

/// The cards of a host as discovery saw them.
#[must_use]
pub fn cards(facts: &HostFacts) -> Vec<Card> {
    facts.gpus.iter().map(card).collect()
}

fn card(gpu: &Gpu) -> Card {
    let slices = slices(gpu).unwrap_or_default();
    let model = gpu.model.known();
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    let vendor_and_id = || format!("{} {:04x}", gpu.vendor, gpu.device_id);
    Card {
        name: gpu.label(),
        model: model.cloned().unwrap_or_else(vendor_and_id),
        grid: mig.and_then(grid),
        state: state(gpu, slices.len()),
        slices,
    }
}

/// Units of the grid, as far as the places go that the host's driver lists.
fn grid(mig: &MigState) -> Option<u32> {
    let profiles = mig.profiles.known()?.iter();
    let places = profiles.filter_map(|profile| profile.placements.known());
    let ends = places
        .flatten()
        .map(|place| place.start.saturating_add(place.size));
    ends.max()
}

fn state(gpu: &Gpu, slices: usize) -> String {
    let functions = match &gpu.sriov {
        Fact::Known(sriov) => sriov.num_vfs,
        Fact::Absent | Fact::Unknown(_) => 0,
    };
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    match (mig.map(|mig| mig.current), functions) {
        (Some(MigMode::Enabled), _) if slices == 1 => "1 MIG instance".to_owned(),
        (Some(MigMode::Enabled), _) => format!("{slices} MIG instances"),
        (_, 0) => match gpu.amd.known().and_then(|amd| amd.compute.known()) {
            Some(mode) => format!("partitioned as {}", mode.current),
            None => "whole".to_owned(),
        },
        (_, 1) => "1 virtual function".to_owned(),
        (_, count) => format!("{count} virtual functions"),
    }
}

/// The MIG instances of a card, by place; none where they are not known.
pub(super) fn slices(gpu: &Gpu) -> Option<Vec<Slice>> {
    let mig = gpu.nvidia.known()?.mig.known()?;
    if mig.current == MigMode::Disabled {
        return Some(Vec::new());
    }
    let mut slices: Vec<Slice> = Vec::new();
    for instance in mig.instances.known()? {
        let compute = instance.compute.known().map_or(&[][..], Vec::as_slice);
        let compute = compute.iter().map(|part| part.profile.clone()).collect();
        slices.push(Slice {
            placement: instance.placement,
            profile: instance.profile.clone(),
            compute,
        });
    }
    slices.sort();
    Some(slices)
}

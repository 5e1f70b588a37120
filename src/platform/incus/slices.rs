//! Which MIG device a `gputype: mig` that names a profile is given.
//!
//! MIG devices of one profile are counted by their UUIDs, from 0: these stay the same when the
//! slices are made again at boot. Devices without `mig.index` take the next that no other took.
//! Where the slices of a card change in the same plan, the UUID is read on the host afterwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu};
use crate::strategy::{CardCensus, census};

use super::super::View;
use super::device::{Device, GpuType, INDEX, PROFILE};
use super::seen::Texts;

/// Gives out the host's MIG devices.
pub(super) struct Slices<'a> {
    view: &'a View<'a>,
    cards: Vec<CardCensus>,
    taken: BTreeMap<(String, String), BTreeSet<usize>>,
}

/// A device as it is to stand at the daemon.
pub(super) struct Resolved {
    pub(super) texts: Texts,
    /// Whether a word in it is filled on the host.
    pub(super) is_open: bool,
}

impl<'a> Slices<'a> {
    pub(super) fn new(view: &'a View<'a>) -> Self {
        Self {
            view,
            cards: census(view.decisions, view.facts),
            taken: BTreeMap::new(),
        }
    }

    /// The device with a MIG device in the place of a profile, and with a card's address as the
    /// daemon writes it.
    pub(super) fn resolve(&mut self, device: &Device, problems: &mut Problems) -> Resolved {
        let mut texts = Texts::new();
        for (key, text) in &device.keys {
            let is_ours = device.is_gpu() && [PROFILE, INDEX].contains(&key.as_str());
            if !text.value.is_empty() && !is_ours {
                texts.insert(key.clone(), text.value.clone());
            }
        }
        if !device.is_gpu() {
            return Resolved {
                texts,
                is_open: false,
            };
        }
        if let Some(pci) = device.pci() {
            texts.insert("pci".to_owned(), pci.to_string());
        }
        let mut is_open = false;
        if device.gpu_type() == Some(GpuType::Mig)
            && let Some(profile) = device.get(PROFILE)
        {
            match self.mig(device, profile) {
                Ok(uuid) => {
                    is_open = uuid.contains('@');
                    texts.insert("mig.uuid".to_owned(), uuid);
                }
                Err(problem) => problems.push(problem.at(device.place(PROFILE))),
            }
        }
        Resolved { texts, is_open }
    }

    fn mig(&mut self, device: &Device, profile: &str) -> Result<String, Diagnostic> {
        let pci = device.pci();
        let cards: Vec<&Gpu> = (self.view.facts.gpus.iter())
            .filter(|gpu| gpu.nvidia.known().is_some() && pci.is_none_or(|pci| gpu.pci == pci))
            .collect();
        let place = pci.map_or("*".to_owned(), |pci| pci.to_string());
        let taken = self.taken.entry((place, profile.to_owned())).or_default();
        let number = match device.get(INDEX).and_then(|text| text.parse().ok()) {
            Some(number) => number,
            None => (0..).find(|number| !taken.contains(number)).unwrap_or(0),
        };
        taken.insert(number);
        let changes = |gpu: &&Gpu| {
            let card = self.cards.iter().find(|card| card.pci == gpu.pci);
            card.is_some_and(|card| card.technology.is_some() && card.drifted != Some(false))
        };
        if cards.iter().any(changes) {
            return self.later(&cards, profile, number, pci.is_some());
        }
        let mut found: Vec<&str> = cards.iter().flat_map(|gpu| devices(gpu, profile)).collect();
        found.sort_unstable();
        found.get(number).map(|uuid| (*uuid).to_owned()).ok_or_else(|| {
            let have = found.len();
            Diagnostic::error(format!(
                "there is no MIG device {profile} number {number} on the host, which has {have} of this profile"
            ))
            .hint("`containers_gpu_slicing` makes them: one entry a slice under `mig.profiles`")
        })
    }

    /// A word that the host fills, if the slices will be there.
    fn later(
        &self,
        cards: &[&Gpu],
        profile: &str,
        number: usize,
        on_one: bool,
    ) -> Result<String, Diagnostic> {
        let is_one = |pci| cards.iter().any(|gpu| gpu.pci == pci);
        let rows = (self.cards.iter())
            .filter(|card| is_one(card.pci))
            .flat_map(|card| &card.rows);
        // A slice that is cut further is counted under the name of the whole.
        let whole = profile.split_once("c.").map_or(profile, |(_, whole)| whole);
        let count: u32 = rows
            .filter(|row| row.profile == profile || row.profile == whole)
            .map(|row| row.wanted.unwrap_or(row.found))
            .sum();
        if whole == profile && number >= count as usize {
            return Err(Diagnostic::error(format!(
                "there will be no MIG device {profile} number {number} on the host, which is to have {count} of this profile"
            ))
            .hint("`containers_gpu_slicing` makes them: one entry a slice under `mig.profiles`"));
        }
        let card = match (on_one, cards) {
            (true, [gpu]) => match gpu.nvidia.known() {
                Some(nvidia) => nvidia.uuid.0.as_str(),
                None => "*",
            },
            _ => "*",
        };
        Ok(format!("@MIG/{card}/{profile}/{number}@"))
    }
}

/// The UUIDs of a card's MIG devices of a profile.
fn devices<'a>(gpu: &'a Gpu, profile: &'a str) -> impl Iterator<Item = &'a str> {
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    let instances = mig.and_then(|mig| mig.instances.known());
    let compute = instances.into_iter().flatten().flat_map(|instance| {
        let found = instance.compute.known().into_iter().flatten();
        found.map(move |compute| (instance, compute))
    });
    compute.filter_map(move |(instance, compute)| {
        let is_it = compute.profile == profile
            || (compute.profile == instance.profile && instance.profile == profile);
        match (&compute.uuid, is_it) {
            (Fact::Known(uuid), true) => Some(uuid.as_str()),
            _ => None,
        }
    })
}

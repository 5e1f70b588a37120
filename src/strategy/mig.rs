//! `strategy: mig`: which instances each card gets, and where.
//!
//! Profile names are looked up in the host's own listing first; a name that the
//! catalog has for this model counts as the profile of the same id there, since
//! names move with drivers and ids do not.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::catalog::{Architecture, Model, Technology};
use crate::desired::{ComputeSplit, Desired, Isolation, Located, MigWanted, Wanted};
use crate::error::{Diagnostic, Problems, nearest};
use crate::facts::{Fact, Gpu, GpuInstance, MigState, Vendor};
use crate::step::Step;

use super::advice;
use super::geometry::{Geometry, bare};
use super::mig_steps::{Instance, Sliced};
use super::parted::{self, Layout};
use super::power::When;
use super::solver::{Placed, Solution, place, place_beside};
use super::spread;
use super::tenants::{Served, Tenants};
use super::{Ask, Decision, KeptFile, Slices, Strategy, mps, usage};

pub(super) use super::mig_steps::{removal, removal_before_boot, removal_needs_boot};

pub(super) struct Mig;

impl Strategy for Mig {
    fn technology(&self) -> Technology {
        Technology::Mig
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Nvidia
    }

    fn check(
        &self,
        wanted: &Wanted,
        desired: &Desired,
        models: &[&Model],
        problems: &mut Problems,
    ) {
        super::offline::check_mig(wanted, desired, models, problems);
    }

    fn decide(&self, asks: &[Ask<'_>], desired: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        let mut cards = Vec::new();
        for ask in asks {
            let card = match parted::layout(ask) {
                Ok(Layout::Whole(note)) => {
                    let mut decision = ask.decision(Technology::Mig, Unused);
                    decision.notes.push(note);
                    decisions.push(decision);
                    continue;
                }
                Ok(Layout::Written) => Card::read(ask, Cow::Borrowed(&ask.wanted.mig)),
                Ok(Layout::Said(mig)) => Card::read(ask, Cow::Owned(*mig)),
                Err(found) => Err(found),
            };
            match card {
                Ok(card) => cards.push(card),
                Err(found) => problems.push(found),
            }
        }
        let request = &desired.slicing.request;
        let (shared, own): (Vec<Card<'_>>, Vec<Card<'_>>) = cards
            .into_iter()
            .partition(|card| card.ask.is_default && !request.is_empty());
        for card in &own {
            match card.profiles().and_then(|profiles| card.solve(&profiles)) {
                Ok((solution, notes)) => {
                    decisions.extend(card.decision(&solution, notes, &mut problems));
                }
                Err(found) => problems.extend(found),
            }
        }
        // A card that could not be read would make the totals look too small.
        if !shared.is_empty() && !problems.has_errors() {
            let pool: Vec<spread::Card<'_>> = shared.iter().map(Card::in_pool).collect();
            match spread::spread(&pool, request, "this host") {
                Ok(solutions) => {
                    for (card, solution) in shared.iter().zip(&solutions) {
                        decisions.extend(card.decision(solution, Vec::new(), &mut problems));
                    }
                }
                Err(diagnostic) => problems.push(diagnostic),
            }
        }
        problems.or(decisions)
    }

    fn means(&self, ask: &Ask<'_>) -> bool {
        parted::means(ask)
    }

    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Hardware)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<Served, String> {
        super::tenants::by_mig(tenants)
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("mig.conf")
    }

    fn files(&self, cards: &[Json]) -> Vec<KeptFile> {
        let mut files = vec![
            KeptFile::beside_the_script("mig.conf", "mig_config.j2"),
            KeptFile::beside_the_script("time_slicing.yaml", "time_slicing_config.j2"),
        ];
        if cards.iter().any(|card| card["mps"].is_object()) {
            files.push(mps::kept_file());
        }
        files
    }

    fn library(&self) -> &'static str {
        include_str!("mig.sh")
    }

    fn found(&self, gpu: &Gpu) -> Vec<Slices> {
        super::mig_steps::found(gpu)
    }

    fn removal(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        removal(gpu, when)
    }

    fn steps_library(&self) -> &'static str {
        include_str!("mig_undo.sh")
    }
}

/// GPU instances of these profiles, one for each id, as another technology needs them.
pub(super) fn layout_of(ask: &Ask<'_>, profiles: &[u32]) -> Result<Sliced, Problems> {
    let card = Card::read(ask, Cow::Borrowed(&ask.wanted.mig))?;
    let label = ask.gpu.label();
    let mut indexes = Vec::new();
    for id in profiles {
        let Some(index) = card.geometry.find_id(*id) else {
            let message = format!("{label} has no GPU instance profile {id}");
            return Err(Diagnostic::error(message).into());
        };
        indexes.push(index);
    }
    match place(&card.geometry, &indexes, &card.existing) {
        Some(solution) => Ok(card.sliced(&solution, None)),
        None => {
            let message = format!(
                "{} do not fit on {label}",
                advice::spell(&card.geometry, &indexes)
            );
            Err(Diagnostic::error(message).into())
        }
    }
}

/// The finding for a card that no NVIDIA driver answers for.
pub(super) fn unseen(gpu: &Gpu) -> Diagnostic {
    let label = gpu.label();
    match (&gpu.nvidia, gpu.driver.known()) {
        (Fact::Unknown(reason), _) => {
            Diagnostic::error(format!("{label} cannot be asked: {reason}"))
        }
        (_, Some(driver)) if driver != "nvidia" => {
            Diagnostic::error(format!("{label} is bound to the driver `{driver}`, not to NVIDIA's"))
                .hint("slicing needs NVIDIA's driver on the host; a card passed to a virtual machine cannot be sliced")
        }
        _ => Diagnostic::error(format!("{label}: `nvidia-smi` does not list it"))
            .hint("install NVIDIA's driver, or check that it works with `nvidia-smi -L`"),
    }
}

/// One card that is to be sliced, with what can be placed on it.
pub(super) struct Card<'a> {
    ask: Ask<'a>,
    /// Its layout, whoever said it.
    mig: Cow<'a, MigWanted>,
    geometry: Geometry,
    existing: Vec<Placed>,
    /// Those of them that somebody uses.
    busy: Vec<Placed>,
}

impl<'a> Card<'a> {
    pub(super) fn read(ask: &Ask<'a>, layout: Cow<'a, MigWanted>) -> Result<Self, Diagnostic> {
        let gpu = ask.gpu;
        let label = gpu.label();
        let nvidia = gpu.nvidia.known().ok_or_else(|| unseen(gpu))?;
        let mig = match &nvidia.mig {
            Fact::Known(mig) => mig,
            Fact::Absent => {
                let has = ask.model.map(|model| {
                    let able = super::offline::able_without(&model.technologies, Technology::Mig);
                    format!(
                        "{} can do {able}; MIG may need another driver, vBIOS or display mode",
                        model.key
                    )
                });
                let diagnostic = Diagnostic::error(format!("{label} offers no MIG"));
                let hint = has.unwrap_or_else(|| "use `time-slicing`".to_owned());
                return Err(ask.wanted.strategy.blame(diagnostic.hint(hint)));
            }
            Fact::Unknown(reason) => {
                return Err(Diagnostic::error(format!(
                    "the MIG state of {label} cannot be read: {reason}"
                )));
            }
        };
        let geometry = Geometry::of_host(&nvidia.name, mig, ask.model).ok_or_else(|| {
            Diagnostic::error(format!(
                "{label}: neither the driver nor the catalog says which profiles it has and where they may lie"
            ))
            .hint("switch MIG mode on by `nvidia-smi -mig 1`, so that the driver lists them")
        })?;
        let all = |_: &GpuInstance| true;
        let used = |instance: &GpuInstance| usage::uses_instance(gpu, instance.gi_id);
        let busy = existing(&geometry, mig, &used);
        let existing = existing(&geometry, mig, &all);
        Ok(Self {
            ask: *ask,
            mig: layout,
            geometry,
            existing,
            busy,
        })
    }

    /// The card as one of those that share totals.
    pub(super) fn in_pool(&self) -> spread::Card<'_> {
        spread::Card {
            geometry: &self.geometry,
            existing: &self.existing,
            busy: &self.busy,
        }
    }

    /// The wanted profiles as indexes, with what the user should know of them.
    fn profiles(&self) -> Result<(Vec<usize>, Vec<String>), Problems> {
        let wanted = &self.mig;
        if self.ask.picked.is_some_and(|pick| pick.fill) {
            return Ok((fill(&self.geometry), Vec::new()));
        }
        let mut problems = Problems::default();
        let mut notes = Vec::new();
        let mut profiles = Vec::new();
        for name in wanted.profiles() {
            match self.find(name, &mut notes) {
                Ok(index) => profiles.push(index),
                // The list may be repeated; a wrong name is reported once.
                Err(found) if !problems.0.contains(&found) => problems.push(found),
                Err(_) => {}
            }
        }
        if profiles.is_empty() && !self.may_be_empty() && !problems.has_errors() {
            problems.push(nothing_asked(self.ask.wanted));
        }
        problems.or((profiles, notes))
    }

    fn find(&self, name: &Located<String>, notes: &mut Vec<String>) -> Result<usize, Diagnostic> {
        if let Some(index) = self.geometry.find(&name.value) {
            return Ok(index);
        }
        let catalog = self.ask.model.and_then(Geometry::of_model);
        let by_id = catalog.and_then(|catalog| {
            let row = catalog.find(&name.value)?;
            self.geometry.find_id(catalog.profiles.get(row)?.id)
        });
        if let Some(index) = by_id {
            let note = format!(
                "{}: the driver calls {} {}",
                self.ask.gpu.label(),
                bare(&name.value),
                self.geometry.profiles[index].name
            );
            if !notes.contains(&note) {
                notes.push(note);
            }
            return Ok(index);
        }
        Err(name.blame(no_such_profile(
            &name.value,
            &self.geometry,
            &self.ask.gpu.label(),
        )))
    }

    /// Whether the mode may be on without any instance: `mig-devices: {}` of mig-parted.
    fn may_be_empty(&self) -> bool {
        self.ask.wanted.mig.mig_parted.is_some()
    }

    /// The memory of a MIG device is the limit that its clients have anyway.
    fn mps(&self) -> Option<mps::Settings> {
        let wanted = &self.ask.wanted.mps;
        wanted
            .enabled
            .value
            .then(|| mps::Settings::of(wanted, None))
    }

    fn solve(
        &self,
        (profiles, notes): &(Vec<usize>, Vec<String>),
    ) -> Result<(Solution, Vec<String>), Problems> {
        let mut counts = vec![0; self.geometry.profiles.len()];
        for profile in profiles {
            counts[*profile] += 1;
        }
        match place_beside(&self.geometry, &counts, &self.existing, &self.busy) {
            Some(solution) => Ok((solution, notes.clone())),
            None => {
                Err(does_not_fit(&self.geometry, profiles, &self.mig, &self.ask.gpu.label()).into())
            }
        }
    }

    /// Split into compute instances as `wanted` says; whole without it.
    fn sliced(&self, solution: &Solution, wanted: Option<&MigWanted>) -> Sliced {
        let instances = solution.placed.iter().map(|placed| {
            let profile = &self.geometry.profiles[placed.profile];
            Instance {
                id: profile.id,
                name: profile.name.clone(),
                placement: placed.placement(&self.geometry),
                parts: wanted.map_or_else(Vec::new, |wanted| {
                    parts_of(&self.geometry, placed.profile, wanted)
                }),
            }
        });
        let architecture = self.ask.model.map(|model| model.architecture);
        let capability = self
            .ask
            .gpu
            .nvidia
            .known()
            .and_then(|nvidia| nvidia.compute_capability.known());
        Sliced {
            grid: self.geometry.grid,
            instances: instances.collect(),
            waits_for_reset: match architecture {
                Some(architecture) => architecture == Architecture::Ampere,
                None => capability.is_some_and(|capability| *capability < 90),
            },
            mps: None,
        }
    }

    fn decision(
        &self,
        solution: &Solution,
        notes: Vec<String>,
        problems: &mut Problems,
    ) -> Option<Decision> {
        let wanted = &self.mig;
        let kinds = solution.placed.iter().map(|placed| placed.profile);
        if let Some(found) = check_parts(&self.geometry, kinds, wanted) {
            problems.push(found);
            return None;
        }
        if solution.placed.is_empty() && !self.may_be_empty() {
            let mut decision = self.ask.decision(Technology::Mig, Unused);
            decision
                .notes
                .push("it gets nothing of the request and stays whole".to_owned());
            return Some(decision);
        }
        let target = Sliced {
            mps: self.mps(),
            ..self.sliced(solution, Some(wanted))
        };
        let mut decision = self.ask.decision(Technology::Mig, target);
        decision.notes.extend(notes);
        if solution.placed.is_empty() {
            let note = "MIG mode is on without any instance, so that nothing runs on it; NVIDIA's device plugin for Kubernetes fails on such a card";
            decision.notes.push(note.to_owned());
        }
        if self.mps().is_some() {
            decision.notes.extend(mps::notes("UUID of the MIG device"));
        }
        if solution.kept > 0 && (solution.kept as usize) < solution.placed.len() {
            // The driver numbers instances as they come, and the UUIDs follow the numbers.
            decision.notes.push(format!(
                "{} of {} MIG instances stay as they are; at the next boot all are made in one go, which may give other UUIDs",
                solution.kept,
                solution.placed.len()
            ));
        }
        Some(decision)
    }
}

/// A card that the request leaves whole.
#[derive(Debug)]
struct Unused;

impl super::Target for Unused {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        removal(gpu, when)
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        removal_needs_boot(gpu)
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        removal_before_boot(gpu)
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        Some(Vec::new())
    }

    fn vars(&self, _: &Gpu) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// The instances for which `is_meant` holds.
fn existing(
    geometry: &Geometry,
    mig: &MigState,
    is_meant: &dyn Fn(&GpuInstance) -> bool,
) -> Vec<Placed> {
    let instances = mig.instances.known().map_or(&[][..], Vec::as_slice);
    let meant = instances.iter().filter(|instance| is_meant(instance));
    let placed = meant.filter_map(|instance| {
        Some(Placed {
            profile: geometry.find_id(instance.profile_id)?,
            start: instance.placement.start,
        })
    });
    placed.collect()
}

/// As many of the smallest plain profile as fit.
fn fill(geometry: &Geometry) -> Vec<usize> {
    let smallest = (0..geometry.profiles.len()).min_by_key(|index| {
        let profile = &geometry.profiles[*index];
        (
            profile.size,
            profile.compute,
            std::cmp::Reverse(profile.max),
            profile.id,
        )
    });
    smallest.map_or_else(Vec::new, |smallest| {
        vec![smallest; advice::most_of(geometry, smallest) as usize]
    })
}

/// The finding for `strategy: mig` without any profile.
pub(super) fn nothing_asked(wanted: &Wanted) -> Diagnostic {
    wanted.strategy.blame(
        Diagnostic::error("`strategy: mig` needs `mig.profiles`, `mig.mig_parted` or `request`")
            .hint("such as `mig: {profiles: [3g.40gb, 2g.20gb, 1g.10gb]}`; `deploy catalog` lists what each model has"),
    )
}

/// The finding for a name that the card does not list.
pub(super) fn no_such_profile(name: &str, geometry: &Geometry, whose: &str) -> Diagnostic {
    let names: Vec<&str> = geometry.profiles.iter().map(|p| p.name.as_str()).collect();
    let listed = names.join(", ");
    let hint = match nearest(bare(name), names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? It has {listed}"),
        None => format!("it has {listed}"),
    };
    Diagnostic::error(format!("{whose} has no profile `{}`", bare(name))).hint(hint)
}

/// The finding for profiles of which each exists, but not all together.
pub(super) fn does_not_fit(
    geometry: &Geometry,
    profiles: &[usize],
    wanted: &MigWanted,
    whose: &str,
) -> Diagnostic {
    let spelled = advice::spell(geometry, profiles);
    let mut hints = Vec::new();
    if let [only, rest @ ..] = profiles
        && rest.iter().all(|other| other == only)
    {
        let name = &geometry.profiles[*only].name;
        hints.push(format!(
            "at most {} × {name}",
            advice::most_of(geometry, *only)
        ));
    }
    hints.extend(advice::nearest_layout(geometry, profiles));
    let diagnostic = Diagnostic::error(format!("{spelled} cannot be placed on {whose}"));
    let diagnostic = match hints.is_empty() {
        true => diagnostic,
        false => diagnostic.hint(format!("what fits: {}", hints.join("; "))),
    };
    match wanted.listed.first() {
        Some(first) => first.blame(diagnostic),
        None => diagnostic,
    }
}

/// The line of `compute_instances` that is for a profile.
fn split_of<'w>(
    geometry: &Geometry,
    profile: usize,
    wanted: &'w MigWanted,
) -> Option<&'w ComputeSplit> {
    let mut splits = wanted.compute_instances.iter();
    splits.find(|split| geometry.find(&split.profile.value) == Some(profile))
}

/// Compute slices of each compute instance of a profile; none where one takes all.
fn parts_of(geometry: &Geometry, profile: usize, wanted: &MigWanted) -> Vec<u32> {
    if let Some(split) = split_of(geometry, profile, wanted) {
        return split.slices.clone();
    }
    match wanted.compute_instance_count.value {
        0 | 1 => Vec::new(),
        parts => vec![geometry.profiles[profile].compute / parts; parts as usize],
    }
}

/// A finding if a profile cannot be split into the compute instances that are wanted.
pub(super) fn check_parts(
    geometry: &Geometry,
    profiles: impl Iterator<Item = usize>,
    wanted: &MigWanted,
) -> Option<Diagnostic> {
    let parts = &wanted.compute_instance_count;
    let mut profiles: Vec<usize> = profiles.collect();
    profiles.sort_unstable();
    profiles.dedup();
    for index in &profiles {
        let profile = &geometry.profiles[*index];
        if let Some(split) = split_of(geometry, *index, wanted)
            && split.slices.iter().sum::<u32>() > profile.compute
        {
            let sum: u32 = split.slices.iter().sum();
            let message = format!(
                "`compute_instances` gives {} {sum} compute slices, and it has {}",
                profile.name, profile.compute
            );
            return Some(split.profile.blame(Diagnostic::error(message)));
        }
    }
    profiles.retain(|index| split_of(geometry, *index, wanted).is_none());
    let divides =
        |parts: u32, index: &usize| geometry.profiles[*index].compute.is_multiple_of(parts);
    let wrong = profiles.iter().find(|index| !divides(parts.value, index))?;
    let profile = &geometry.profiles[*wrong];
    let legal: Vec<String> = (1..=geometry.compute)
        .filter(|parts| profiles.iter().all(|index| divides(*parts, index)))
        .map(|parts| parts.to_string())
        .collect();
    Some(
        parts.blame(
            Diagnostic::error(format!(
                "`compute_instance_count: {}` does not divide the {} compute slices of {}",
                parts.value, profile.compute, profile.name
            ))
            .hint(format!(
                "all of these profiles can be split into {}",
                legal.join(" or ")
            )),
        ),
    )
}

//! What can be placed on one card: its grid, its profiles and their legal places.
//!
//! A geometry comes from the host's own listing where there is one, because
//! names and sometimes profiles move with driver and board, and from the
//! catalog otherwise. Pure data and name lookup; `solver` places.

use crate::catalog::Model;
use crate::facts::{MigProfile, MigState};

/// One card's possibilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The model's name in messages.
    pub(crate) model: String,
    /// Units of the placement grid; at most 32.
    pub(crate) grid: u32,
    /// Compute slices in all.
    pub(crate) compute: u32,
    /// What can be created, in the order of the listing.
    pub(crate) profiles: Vec<Profile>,
}

/// One kind of GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Profile id.
    pub(crate) id: u32,
    /// Name, such as `3g.40gb`.
    pub(crate) name: String,
    /// Names that other branches of the driver have for it; only the catalog knows them.
    pub(crate) aliases: Vec<String>,
    /// Compute slices.
    pub(crate) compute: u32,
    /// Grid units.
    pub(crate) size: u32,
    /// Legal first units, ascending.
    pub(crate) starts: Vec<u32>,
    /// Most of this kind on one card.
    pub(crate) max: u32,
    /// What it takes of the media engines.
    pub(crate) media: Media,
}

/// A profile's claim on the card's media engines, which its name's ending tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// No ending (or `+gfx`): its share of decoders, if the card gives shares.
    Share,
    /// `+me`: the engines of which a card has one set.
    Set,
    /// `+me.all`: every media engine of the card.
    All,
    /// `-me`: none.
    Nothing,
}

impl Media {
    fn of(name: &str) -> Self {
        if name.ends_with("+me.all") {
            Self::All
        } else if name.ends_with("+me") {
            Self::Set
        } else if name.ends_with("-me") {
            Self::Nothing
        } else {
            Self::Share
        }
    }
}

/// Compute slices, which a profile's name begins with: `3` of `3g.40gb`.
pub(crate) fn compute_of(name: &str) -> Option<u32> {
    let (number, _) = name.split_once("g.")?;
    number.parse().ok()
}

impl Geometry {
    /// The catalog's geometry; none for a model without MIG or without published placements.
    pub(crate) fn of_model(model: &Model) -> Option<Self> {
        let mig = model.mig.as_ref()?;
        let profiles: Vec<Profile> = mig
            .profiles
            .iter()
            .filter_map(|spec| {
                let mut starts: Vec<u32> = spec.placements.iter().map(|p| p.start).collect();
                starts.sort_unstable();
                Some(Profile {
                    id: spec.id?,
                    name: spec.name.clone(),
                    aliases: spec.aliases.clone(),
                    compute: spec.compute_slices,
                    size: spec.placements.first()?.size,
                    starts,
                    max: spec.max,
                    media: Media::of(&spec.name),
                })
            })
            .collect();
        Self::checked(
            model.key.clone(),
            mig.memory_slices?,
            mig.compute_slices,
            profiles,
        )
    }

    /// The geometry that the host lists, with what it does not say (the placements on a
    /// driver that lists none, the compute total) from the catalog's row of the same id.
    pub(crate) fn of_host(name: &str, mig: &MigState, model: Option<&Model>) -> Option<Self> {
        let known = model.and_then(Self::of_model);
        let listed = match mig.profiles.known() {
            Some(listed) if !listed.is_empty() => listed,
            _ => return known,
        };
        let profiles: Vec<Profile> = listed
            .iter()
            .filter_map(|profile| from_listing(profile, known.as_ref()))
            .collect();
        let end = |profile: &Profile| {
            profile
                .starts
                .last()
                .map_or(0, |start| start.saturating_add(profile.size))
        };
        let grid = profiles.iter().map(end).max()?;
        let compute = profiles.iter().map(|profile| profile.compute).max()?;
        let compute = known.as_ref().map_or(compute, |known| known.compute);
        let grid = known.as_ref().map_or(grid, |known| known.grid.max(grid));
        Self::checked(name.to_owned(), grid, compute, profiles)
    }

    fn checked(model: String, grid: u32, compute: u32, profiles: Vec<Profile>) -> Option<Self> {
        let fits = |profile: &Profile| {
            profile.size > 0
                && profile
                    .starts
                    .iter()
                    .all(|start| start.saturating_add(profile.size) <= grid)
        };
        (!profiles.is_empty() && (1..=32).contains(&grid) && profiles.iter().all(fits)).then_some(
            Self {
                model,
                grid,
                compute,
                profiles,
            },
        )
    }

    /// The profile with this name; `MIG ` before it and letter case do not matter, and
    /// a number is a profile id, as `nvidia-smi` takes it.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let name = bare(name);
        if let Some(index) = self
            .profiles
            .iter()
            .position(|profile| profile.name.eq_ignore_ascii_case(name))
        {
            return Some(index);
        }
        let also = |profile: &Profile| {
            let mut aliases = profile.aliases.iter();
            aliases.any(|alias| alias.eq_ignore_ascii_case(name))
        };
        if let Some(index) = self.profiles.iter().position(also) {
            return Some(index);
        }
        let id: u32 = name.parse().ok()?;
        self.profiles.iter().position(|profile| profile.id == id)
    }

    /// The profile with this id.
    pub(crate) fn find_id(&self, id: u32) -> Option<usize> {
        self.profiles.iter().position(|profile| profile.id == id)
    }
}

/// A profile's name as the listing prints it, without `MIG `.
pub(crate) fn bare(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix("MIG ").unwrap_or(name).trim()
}

fn from_listing(profile: &MigProfile, known: Option<&Geometry>) -> Option<Profile> {
    let row = known.and_then(|known| known.profiles.iter().find(|row| row.id == profile.id));
    let (size, starts) = match profile.placements.known().map(Vec::as_slice) {
        Some([first, rest @ ..]) => {
            let mut starts: Vec<u32> = rest.iter().map(|place| place.start).collect();
            starts.push(first.start);
            starts.sort_unstable();
            starts.dedup();
            (first.size, starts)
        }
        _ => (row?.size, row?.starts.clone()),
    };
    Some(Profile {
        id: profile.id,
        name: profile.name.clone(),
        aliases: Vec::new(),
        compute: compute_of(&profile.name).or(row.map(|row| row.compute))?,
        size,
        starts,
        max: profile.total,
        media: Media::of(&profile.name),
    })
}

//! Where the instances of one card go: exact search over its placement grid.
//!
//! A layout is legal when no two instances share a grid unit, the compute slices
//! do not exceed the card's, no kind exceeds its own maximum, and the media
//! engines suffice: at most one instance takes the set of which there is one
//! (`+me`, `+me.all`), and beside one that takes them all (`+me.all`) there are
//! only such as take none (`-me`). The search finds a layout whenever there is
//! one; among all of them it takes the one that keeps most of the instances that
//! exist, and of those the one whose instances, largest first, lie highest: that
//! is where the driver puts them too, and it leaves room for a large one at 0.

use crate::facts::Placement;

use super::geometry::{Geometry, Media};

/// An instance at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Placed {
    /// Index into `Geometry::profiles`.
    pub(crate) profile: usize,
    /// First grid unit.
    pub(crate) start: u32,
}

impl Placed {
    /// The units it takes.
    pub(crate) fn placement(self, geometry: &Geometry) -> Placement {
        Placement {
            start: self.start,
            size: geometry.profiles[self.profile].size,
        }
    }
}

/// A layout, and how many of the existing instances it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Solution {
    /// Largest first, then by start: the order in which they are created.
    pub(crate) placed: Vec<Placed>,
    /// Instances that stay as they are.
    pub(crate) kept: u32,
}

/// A layout of `wanted` (indexes into the geometry's profiles, in any order), or
/// none if no legal one exists.
pub(crate) fn place(
    geometry: &Geometry,
    wanted: &[usize],
    existing: &[Placed],
) -> Option<Solution> {
    let mut counts = vec![0; geometry.profiles.len()];
    for profile in wanted {
        *counts.get_mut(*profile)? += 1;
    }
    place_beside(geometry, &counts, existing, &[])
}

/// The same with the wanted number of each profile.
pub(crate) fn place_counts(
    geometry: &Geometry,
    counts: &[u32],
    existing: &[Placed],
) -> Option<Solution> {
    place_beside(geometry, counts, existing, &[])
}

/// The same where some of the existing instances are in use: no number of free ones that stay
/// makes up for one of these that does not.
pub(crate) fn place_beside(
    geometry: &Geometry,
    counts: &[u32],
    existing: &[Placed],
    busy: &[Placed],
) -> Option<Solution> {
    if !totals_fit(geometry, counts) {
        return None;
    }
    let mut kinds: Vec<usize> = (0..counts.len()).filter(|kind| counts[*kind] > 0).collect();
    kinds.sort_by_key(|kind| {
        let profile = &geometry.profiles[*kind];
        (
            std::cmp::Reverse((profile.size, profile.compute)),
            profile.id,
        )
    });
    let left = kinds.iter().map(|kind| counts[*kind]).sum();
    let mut search = Search {
        geometry,
        counts,
        kinds: &kinds,
        existing,
        busy,
        stack: Vec::new(),
        best: None,
        budget: BUDGET,
    };
    search.descend(0, counts_of(counts, &kinds, 0), None, 0, 0, left);
    let (_, solution) = search.best?;
    Some(solution)
}

fn counts_of(counts: &[u32], kinds: &[usize], at: usize) -> u32 {
    kinds.get(at).map_or(0, |kind| counts[*kind])
}

/// The rules that do not depend on places.
fn totals_fit(geometry: &Geometry, counts: &[u32]) -> bool {
    let of = |media: Media| -> u32 {
        let rows = geometry.profiles.iter().zip(counts);
        rows.filter(|(profile, _)| profile.media == media)
            .map(|(_, count)| *count)
            .sum()
    };
    let rows = || geometry.profiles.iter().zip(counts.iter().copied());
    let units: u64 = rows().map(|(p, n)| u64::from(p.size) * u64::from(n)).sum();
    let compute: u64 = rows()
        .map(|(p, n)| u64::from(p.compute) * u64::from(n))
        .sum();
    units <= u64::from(geometry.grid)
        && compute <= u64::from(geometry.compute)
        && rows().all(|(profile, count)| count <= profile.max)
        && of(Media::Set) + of(Media::All) <= 1
        && (of(Media::All) == 0 || of(Media::Share) == 0)
}

/// Steps after which a search ends with what it has. No real card needs a
/// hundredth of it (a test holds that); it bounds what a made-up listing can cost.
const BUDGET: u32 = 1_000_000;

struct Search<'a> {
    geometry: &'a Geometry,
    counts: &'a [u32],
    kinds: &'a [usize],
    existing: &'a [Placed],
    busy: &'a [Placed],
    stack: Vec<Placed>,
    best: Option<(u32, Solution)>,
    budget: u32,
}

/// What an instance in use weighs against free ones, of which no card has so many.
const BUSY: u32 = 64;

impl Search<'_> {
    /// What it is worth that this instance stays.
    fn worth(&self, placed: &Placed) -> u32 {
        match (self.busy.contains(placed), self.existing.contains(placed)) {
            (true, _) => BUSY,
            (false, true) => 1,
            (false, false) => 0,
        }
    }

    /// The most that one instance can be worth.
    fn most(&self) -> u32 {
        if self.busy.is_empty() { 1 } else { BUSY }
    }

    /// Places the rest of the kind at `at` (`of_kind` of it, below `below`), then the next
    /// kinds; `taken` are the units in use, `kept` what those that stay are worth, `left` all
    /// instances still to be placed.
    fn descend(
        &mut self,
        at: usize,
        of_kind: u32,
        below: Option<u32>,
        taken: u32,
        kept: u32,
        left: u32,
    ) {
        // Later finds are no better than this bound; earlier ones win a tie.
        if self
            .best
            .as_ref()
            .is_some_and(|(best, _)| kept + left * self.most() <= *best)
        {
            return;
        }
        let Some(budget) = self.budget.checked_sub(1) else {
            return;
        };
        self.budget = budget;
        let Some(kind) = self.kinds.get(at).copied() else {
            let mut placed = self.stack.clone();
            let key = |p: &Placed| {
                let profile = &self.geometry.profiles[p.profile];
                (
                    std::cmp::Reverse((profile.size, profile.compute)),
                    profile.id,
                    p.start,
                )
            };
            placed.sort_by_key(key);
            let stay = placed.iter().filter(|p| self.existing.contains(p));
            let stay = u32::try_from(stay.count()).unwrap_or(u32::MAX);
            self.best = Some((kept, Solution { placed, kept: stay }));
            return;
        };
        if of_kind == 0 {
            let next = counts_of(self.counts, self.kinds, at + 1);
            self.descend(at + 1, next, None, taken, kept, left);
            return;
        }
        let profile = &self.geometry.profiles[kind];
        for start in profile.starts.iter().rev().copied() {
            // Equal instances are placed in descending order only: one of each permutation.
            if below.is_some_and(|below| start >= below) {
                continue;
            }
            let units = mask(start, profile.size);
            if taken & units != 0 {
                continue;
            }
            let placed = Placed {
                profile: kind,
                start,
            };
            let kept = kept + self.worth(&placed);
            self.stack.push(placed);
            self.descend(at, of_kind - 1, Some(start), taken | units, kept, left - 1);
            self.stack.pop();
        }
    }
}

/// The units `start .. start + size` as bits; `Geometry` keeps them below 32.
fn mask(start: u32, size: u32) -> u32 {
    let ones = u32::MAX.checked_shr(32 - size.min(32)).unwrap_or(0);
    ones.checked_shl(start).unwrap_or(0)
}

#[cfg(test)]
mod tests;

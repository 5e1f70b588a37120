//! What would fit where something does not: for the hints of refusals.

use super::geometry::{Geometry, Media};
use super::solver::{place, place_counts};

/// The layout that comes nearest to `wanted`, spelled; none if nothing of it fits.
pub(super) fn nearest_layout(geometry: &Geometry, wanted: &[usize]) -> Option<String> {
    let chosen = nearest_profiles(geometry, wanted);
    (!chosen.is_empty()).then(|| spell(geometry, &chosen))
}

/// The profiles that come nearest to `wanted`: large instances first, each that does not
/// fit beside those before it replaced by the largest smaller plain one that does, or
/// left out.
pub(super) fn nearest_profiles(geometry: &Geometry, wanted: &[usize]) -> Vec<usize> {
    let mut wanted = wanted.to_vec();
    let size = |index: &usize| {
        let profile = &geometry.profiles[*index];
        (profile.size, profile.compute)
    };
    wanted.sort_by_key(|index| (std::cmp::Reverse(size(index)), *index));
    let mut plain: Vec<usize> = (0..geometry.profiles.len())
        .filter(|index| {
            let profile = &geometry.profiles[*index];
            profile.media == Media::Share && !profile.name.contains('+')
        })
        .collect();
    plain.sort_by_key(|index| std::cmp::Reverse(size(index)));
    let mut chosen: Vec<usize> = Vec::new();
    for index in wanted {
        let smaller = plain.iter().copied().filter(|other| {
            let (units, compute) = size(other);
            let (most_units, most_compute) = size(&index);
            units <= most_units && compute <= most_compute && *other != index
        });
        let found = std::iter::once(index).chain(smaller).find(|candidate| {
            chosen.push(*candidate);
            let fits = place(geometry, &chosen, &[]).is_some();
            chosen.pop();
            fits
        });
        chosen.extend(found);
    }
    chosen
}

/// `2 × 1g.10gb + 3g.40gb`, in the given order.
pub(super) fn spell(geometry: &Geometry, profiles: &[usize]) -> String {
    let mut terms: Vec<(usize, u32)> = Vec::new();
    for index in profiles {
        match terms.iter_mut().find(|(other, _)| other == index) {
            Some((_, count)) => *count += 1,
            None => terms.push((*index, 1)),
        }
    }
    let terms: Vec<String> = terms
        .into_iter()
        .map(|(index, count)| times(count, &geometry.profiles[index].name))
        .collect();
    terms.join(" + ")
}

/// `3g.40gb` or `2 × 1g.10gb`.
pub(super) fn times(count: u32, name: &str) -> String {
    match count {
        1 => name.to_owned(),
        _ => format!("{count} × {name}"),
    }
}

/// How many of one profile fit on an empty card.
pub(super) fn most_of(geometry: &Geometry, profile: usize) -> u32 {
    let mut counts = vec![0; geometry.profiles.len()];
    loop {
        counts[profile] += 1;
        if counts[profile] > geometry.grid || place_counts(geometry, &counts, &[]).is_none() {
            return counts[profile] - 1;
        }
    }
}

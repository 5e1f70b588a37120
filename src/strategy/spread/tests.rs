//! The search over several cards against an oracle that tries everything.

use proptest::prelude::*;

use crate::desired::Located;

use super::super::geometry::{Media, Profile};
use super::*;

/// A card of the size of A30: small enough to try everything.
fn geometry() -> Geometry {
    let profile = |id, name: &str, size, starts: &[u32], max| Profile {
        id,
        name: name.to_owned(),
        aliases: Vec::new(),
        compute: size,
        size,
        starts: starts.to_vec(),
        max,
        media: Media::Share,
    };
    Geometry {
        model: "A30-24GB".to_owned(),
        grid: 4,
        compute: 4,
        profiles: vec![
            profile(14, "1g.6gb", 1, &[0, 1, 2, 3], 4),
            profile(5, "2g.12gb", 2, &[0, 2], 2),
            profile(0, "4g.24gb", 4, &[0], 1),
        ],
    }
}

fn request(counts: &[u32]) -> Vec<Request> {
    let names = ["1g.6gb", "2g.12gb", "4g.24gb"];
    let lines = names.iter().zip(counts);
    lines
        .map(|(name, count)| Request {
            profile: Located {
                value: (*name).to_owned(),
                origin: None,
            },
            count: *count,
        })
        .collect()
}

/// All layouts of one card, each as the set of instances.
fn layouts(geometry: &Geometry) -> Vec<Vec<Placed>> {
    let mut all = vec![Vec::new()];
    for (profile, row) in geometry.profiles.iter().enumerate() {
        for start in &row.starts {
            let placed = Placed {
                profile,
                start: *start,
            };
            let free = |layout: &&Vec<Placed>| {
                layout.iter().all(|other: &Placed| {
                    let size = geometry.profiles[other.profile].size;
                    other.start + size <= *start || start + row.size <= other.start
                })
            };
            let more: Vec<Vec<Placed>> = all
                .iter()
                .filter(free)
                .map(|layout| layout.iter().copied().chain([placed]).collect())
                .collect();
            all.extend(more);
        }
    }
    all
}

/// The most instances that can be kept, by trying every layout on every card.
fn oracle(all: &[Vec<Placed>], existing: &[Vec<Placed>], left: &[u32]) -> Option<u32> {
    let Some((card, rest)) = existing.split_first() else {
        return left.iter().all(|count| *count == 0).then_some(0);
    };
    all.iter()
        .filter_map(|layout| {
            let mut counts = [0; 3];
            for placed in layout {
                counts[placed.profile] += 1;
            }
            let left = minus(left, &counts)?;
            let kept = layout.iter().filter(|placed| card.contains(placed)).count();
            Some(oracle(all, rest, &left)? + u32::try_from(kept).ok()?)
        })
        .max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_request_that_fits_is_spread_with_as_much_kept_as_can(
        counts in prop::collection::vec(0_u32..6, 3),
        now in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let geometry = geometry();
        let all = layouts(&geometry);
        let existing: Vec<Vec<Placed>> = now.iter().map(|index| index.get(&all).clone()).collect();
        let cards: Vec<Card<'_>> = existing
            .iter()
            .map(|existing| Card { geometry: &geometry, existing, busy: &[] })
            .collect();
        let best = oracle(&all, &existing, &counts);
        let found = spread(&cards, &request(&counts), "this host");
        prop_assert_eq!(found.is_ok(), best.is_some());
        if let Ok(solutions) = found {
            let mut totals = vec![0; 3];
            for placed in solutions.iter().flat_map(|solution| &solution.placed) {
                totals[placed.profile] += 1;
            }
            prop_assert_eq!(totals, counts);
            prop_assert_eq!(Some(solutions.iter().map(|solution| solution.kept).sum()), best);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn few_cards_are_opened_and_nothing_is_missed(
        counts in prop::collection::vec(0_u32..6, 3),
        now in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let geometry = geometry();
        let all = layouts(&geometry);
        let existing: Vec<Vec<Placed>> = now.iter().map(|index| index.get(&all).clone()).collect();
        let cards: Vec<Card<'_>> = existing
            .iter()
            .map(|existing| Card { geometry: &geometry, existing, busy: &[] })
            .collect();
        let options = all_options(&cards, &request(&counts));
        let best = oracle(&all, &existing, &counts);
        let found = few::search(&options, &counts);
        prop_assert_eq!(found.is_some(), best.is_some());
        if let Some(found) = found {
            let chosen: Vec<&Layout> = found.iter().zip(&options).map(|(at, all)| &all[*at]).collect();
            for (kind, count) in counts.iter().enumerate() {
                prop_assert_eq!(chosen.iter().map(|layout| layout.counts[kind]).sum::<u32>(), *count);
            }
            let kept = chosen.iter().map(|layout| layout.score.kept).sum::<u32>();
            prop_assert_eq!(Some(kept), best);
        }
    }
}

/// The cards of a large group, as they are after a request was met.
fn many(found: &[Solution]) -> Vec<Vec<Placed>> {
    found
        .iter()
        .map(|solution| solution.placed.clone())
        .collect()
}

#[test]
fn hundreds_of_cards_are_filled_and_a_small_change_moves_nothing() {
    let geometry = geometry();
    let spread_over = |existing: &[Vec<Placed>], counts: &[u32]| {
        let cards: Vec<Card<'_>> = existing
            .iter()
            .map(|existing| Card {
                geometry: &geometry,
                existing,
                busy: &[],
            })
            .collect();
        spread(&cards, &request(counts), "the group").expect("it fits")
    };
    let kept = |found: &[Solution]| found.iter().map(|solution| solution.kept).sum::<u32>();
    let first = spread_over(&vec![Vec::new(); 300], &[700, 150, 20]);
    assert_eq!(many(&first).concat().len(), 870);
    let again = spread_over(&many(&first), &[700, 150, 20]);
    assert_eq!(kept(&again), 870, "what is there stays");
    let more = spread_over(&many(&first), &[703, 149, 20]);
    assert_eq!(kept(&more), 869, "one goes, and nobody else moves");
}

#[test]
fn cards_that_hold_what_is_wanted_are_not_touched() {
    let geometry = geometry();
    let half = vec![Placed {
        profile: 1,
        start: 0,
    }];
    let cards = [
        Card {
            geometry: &geometry,
            existing: &[],
            busy: &[],
        },
        Card {
            geometry: &geometry,
            existing: &half,
            busy: &[],
        },
        Card {
            geometry: &geometry,
            existing: &[],
            busy: &[],
        },
    ];
    let found = spread(&cards, &request(&[0, 1, 0]), "this host").expect("it fits");
    let sizes: Vec<usize> = found.iter().map(|solution| solution.placed.len()).collect();
    assert_eq!(sizes, [0, 1, 0]);
    assert_eq!(found[1].placed, half);
}

#[test]
fn sixteen_large_cards_are_within_the_budget() {
    let geometry = geometry();
    let cards: Vec<Card<'_>> = (0..16)
        .map(|_| Card {
            geometry: &geometry,
            existing: &[],
            busy: &[],
        })
        .collect();
    let found =
        spread(&cards, &request(&[24, 10, 5]), "this host").expect("24 + 20 + 20 = 64 units of 64");
    assert_eq!(
        found
            .iter()
            .map(|solution| solution.placed.len())
            .sum::<usize>(),
        39
    );
    let refused =
        spread(&cards, &request(&[25, 10, 5]), "this host").expect_err("one unit too many");
    let hint = refused.hint.expect("what fits");
    assert!(
        hint.contains("24 × 1g.6gb, or 9 × 2g.12gb, or 4 × 4g.24gb"),
        "{hint}"
    );
}

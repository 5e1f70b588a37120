//! Which MIG layouts hold what tenants need: `deploy catalog fit`.
//!
//! Needs are memory sizes with counts; the answer is profiles for each of them and
//! the fewest cards that hold all, best first. Pure: it looks at the catalog alone,
//! so that it can be asked before there is a host. What a host's own driver lists may
//! differ a little, and wins when it comes to planning.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::geometry::{Geometry, Media};
use super::solver::place_counts;
use crate::catalog::Model;
use crate::error::Diagnostic;
use crate::facts::Placement;

/// So many tenants that each need at least so much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How many.
    pub count: u32,
    /// Bytes for each of them.
    pub bytes: u64,
}

/// Layouts for all needs, on as few cards as these profiles allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// How many of each profile, largest first.
    pub profiles: Vec<(String, u32)>,
    /// One layout for each card.
    pub cards: Vec<Vec<FitInstance>>,
    /// Memory in MiB that instances have beyond what their tenants need.
    pub beyond_mib: u64,
    /// Memory in MiB that is in no instance: spare, or out of reach.
    pub free_mib: u64,
    /// Compute slices in no instance, of all cards together.
    pub free_compute: u32,
    /// Compute slices of all cards together.
    pub compute: u32,
}

/// An instance at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FitInstance {
    /// Name of its profile.
    pub profile: String,
    /// Where it lies.
    pub placement: Placement,
}

/// More tenants than one question is about; keeps the search small.
const MOST_TENANTS: u32 = 256;

/// Profiles that are tried for one need: the smallest that hold it. Larger ones waste more.
const MOST_CANDIDATES: usize = 3;

/// Ways to give tenants their profiles that are looked at; with many tenants only the smallest
/// profiles are tried, so that the answer comes at once.
const MOST_WAYS: u64 = 100;

/// States of a search; beyond it each card takes as many instances as it can.
const BUDGET: usize = 500;

const MIB: u64 = 1 << 20;

/// A profile that tenants can be given.
struct Offer {
    /// Index into the geometry's profiles.
    profile: usize,
    memory_mib: u64,
}

/// The layouts of `model` that hold all `needs`, best first: fewest cards, then the least memory
/// beyond what is needed, then the most compute in use. Never empty.
///
/// # Errors
/// Says what the card has, where it has no MIG, or nothing as large as is needed.
pub fn fit(model: &Model, needs: &[Need]) -> Result<Vec<Fit>, Diagnostic> {
    let geometry = Geometry::of_model(model).ok_or_else(|| no_geometry(model))?;
    let tenants: u64 = needs.iter().map(|need| u64::from(need.count)).sum();
    if tenants == 0 || tenants > u64::from(MOST_TENANTS) {
        return Err(
            Diagnostic::error(format!("{tenants} tenants are asked for"))
                .hint(format!("ask for 1 to {MOST_TENANTS}")),
        );
    }
    let offers = offers(model, &geometry);
    let mut choices = Vec::new();
    for need in needs.iter().filter(|need| need.count > 0) {
        let enough = |offer: &&Offer| offer.memory_mib * MIB >= need.bytes;
        let found: Vec<&Offer> = offers.iter().filter(enough).take(MOST_CANDIDATES).collect();
        if found.is_empty() {
            return Err(too_large(model, &geometry, &offers, *need));
        }
        choices.push((*need, found));
    }
    narrow(&mut choices);
    let mut chosen = Vec::new();
    assignments(&choices, &mut Chosen::new(&geometry), &mut chosen);
    let parts = parts(&geometry, &offers);
    let board = board_mib(model, &offers);
    let mut fits: Vec<Fit> = chosen
        .into_iter()
        .filter_map(|(counts, beyond)| lay_out(&geometry, &parts, &counts, beyond, &offers, board))
        .collect();
    fits.sort_by_key(|fit| {
        (
            fit.cards.len(),
            fit.beyond_mib,
            fit.free_compute,
            fit.profiles.clone(),
        )
    });
    Ok(fits)
}

/// Leaves the largest candidates of the largest needs out until the ways can be looked at.
fn narrow(choices: &mut [(Need, Vec<&Offer>)]) {
    let ways = |(need, offers): &(Need, Vec<&Offer>)| -> u64 {
        // Multisets of `count` tenants over at most three candidates.
        let count = u64::from(need.count);
        match offers.len() {
            0 | 1 => 1,
            2 => count + 1,
            _ => (count + 1) * (count + 2) / 2,
        }
    };
    loop {
        let all = choices.iter().map(ways);
        if all.fold(1, u64::saturating_mul) <= MOST_WAYS {
            return;
        }
        let Some((_, offers)) = choices.iter_mut().max_by_key(|choice| ways(choice)) else {
            return;
        };
        offers.pop();
    }
}

fn no_geometry(model: &Model) -> Diagnostic {
    match &model.mig {
        Some(_) => Diagnostic::error(format!(
            "nobody published where MIG instances of {} may lie",
            model.key
        ))
        .hint("`deploy discover` shows them on a host with this card"),
        None => Diagnostic::error(format!("{} has no MIG", model.key)).hint(format!(
            "it has {}",
            super::offline::listed(&model.technologies)
        )),
    }
}

fn too_large(model: &Model, geometry: &Geometry, offers: &[Offer], need: Need) -> Diagnostic {
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1_u32 << 30));
    let asked = format!("no MIG instance of {} has {}", model.key, gib(need.bytes));
    let diagnostic = Diagnostic::error(asked);
    match offers.last() {
        Some(largest) => diagnostic.hint(format!(
            "the largest, {}, has {}",
            geometry.profiles[largest.profile].name,
            gib(largest.memory_mib * MIB)
        )),
        None => diagnostic.hint("the memory of its instances is not known"),
    }
}

/// What tenants can be given: profiles without special engines, smallest first.
fn offers(model: &Model, geometry: &Geometry) -> Vec<Offer> {
    let rows = model.mig.as_ref().map_or(&[][..], |mig| &mig.profiles);
    let mut offers: Vec<Offer> = geometry
        .profiles
        .iter()
        .enumerate()
        .filter(|(_, profile)| profile.media == Media::Share && !profile.name.contains('+'))
        .filter_map(|(index, profile)| {
            let row = rows.iter().find(|row| row.id == Some(profile.id))?;
            Some(Offer {
                profile: index,
                memory_mib: row.memory_mib?,
            })
        })
        .collect();
    offers.sort_by_key(|offer| (offer.memory_mib, geometry.profiles[offer.profile].compute));
    offers
}

/// What instances can have of a card's memory, in MiB: the largest instance has all of it.
fn board_mib(model: &Model, offers: &[Offer]) -> u64 {
    let largest = offers.last().map(|offer| offer.memory_mib);
    largest.or(model.memory_mib).unwrap_or(0)
}

/// How many of each profile, by index, while needs are given one profile after the other.
struct Chosen {
    counts: Vec<u32>,
    beyond_bytes: u64,
}

impl Chosen {
    fn new(geometry: &Geometry) -> Self {
        Self {
            counts: vec![0; geometry.profiles.len()],
            beyond_bytes: 0,
        }
    }
}

/// Every way to give the tenants one of their candidates, with the bytes beyond what is needed.
fn assignments(
    choices: &[(Need, Vec<&Offer>)],
    so_far: &mut Chosen,
    found: &mut Vec<(Vec<u32>, u64)>,
) {
    let Some(((need, offers), rest)) = choices.split_first() else {
        // Several ways may give the same profiles; what they waste is the same then.
        if found.iter().all(|(counts, _)| *counts != so_far.counts) {
            found.push((so_far.counts.clone(), so_far.beyond_bytes));
        }
        return;
    };
    let Some((offer, others)) = offers.split_first() else {
        return;
    };
    let least = if others.is_empty() { need.count } else { 0 };
    for count in (least..=need.count).rev() {
        let beyond = u64::from(count) * (offer.memory_mib * MIB - need.bytes);
        so_far.counts[offer.profile] += count;
        so_far.beyond_bytes += beyond;
        let left = Need {
            count: need.count - count,
            ..*need
        };
        if left.count == 0 {
            assignments(rest, so_far, found);
        } else {
            let mut next = vec![(left, others.to_vec())];
            next.extend(rest.iter().cloned());
            assignments(&next, so_far, found);
        }
        so_far.counts[offer.profile] -= count;
        so_far.beyond_bytes -= beyond;
    }
}

/// All that one card can hold of the offers, as counts by profile index.
fn parts(geometry: &Geometry, offers: &[Offer]) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    let mut counts = vec![0; geometry.profiles.len()];
    extend(geometry, offers, &mut counts, &mut found);
    found
}

fn extend(geometry: &Geometry, offers: &[Offer], counts: &mut Vec<u32>, found: &mut Vec<Vec<u32>>) {
    if place_counts(geometry, counts, &[]).is_none() {
        return;
    }
    let Some((offer, rest)) = offers.split_first() else {
        if counts.iter().any(|count| *count > 0) {
            found.push(counts.clone());
        }
        return;
    };
    for count in 0..=geometry.grid {
        counts[offer.profile] = count;
        if place_counts(geometry, counts, &[]).is_none() {
            break;
        }
        extend(geometry, rest, counts, found);
    }
    counts[offer.profile] = 0;
}

/// Fewest cards for what is left, and the part that the first of them takes.
type Memory = HashMap<Vec<u32>, (u32, usize)>;

fn minus(left: &[u32], part: &[u32]) -> Option<Vec<u32>> {
    let pairs = left.iter().zip(part);
    pairs.map(|(left, part)| left.checked_sub(*part)).collect()
}

/// None if the search became too large.
fn fewest(parts: &[Vec<u32>], left: &[u32], memory: &mut Memory) -> Option<u32> {
    if left.iter().all(|count| *count == 0) {
        return Some(0);
    }
    if let Some((cards, _)) = memory.get(left) {
        return Some(*cards);
    }
    if memory.len() >= BUDGET {
        return None;
    }
    let mut best: Option<(u32, usize)> = None;
    let held: Vec<(usize, Vec<u32>)> = parts
        .iter()
        .enumerate()
        .filter_map(|(index, part)| Some((index, minus(left, part)?)))
        .collect();
    for (index, rest) in &held {
        // A part to which something could be added is never better than with it.
        let more = held
            .iter()
            .any(|(other, _)| other != index && minus(&parts[*other], &parts[*index]).is_some());
        if more {
            continue;
        }
        let cards = 1 + fewest(parts, rest, memory)?;
        if best.is_none_or(|(fewest, _)| cards < fewest) {
            best = Some((cards, *index));
        }
    }
    let best = best?;
    memory.insert(left.to_vec(), best);
    Some(best.0)
}

/// What each card takes.
fn pack(parts: &[Vec<u32>], counts: &[u32]) -> Option<Vec<usize>> {
    let mut memory = Memory::new();
    let exact = fewest(parts, counts, &mut memory).is_some();
    let mut left = counts.to_vec();
    let mut cards = Vec::new();
    while left.iter().any(|count| *count > 0) {
        let index = if exact {
            memory.get(&left)?.1
        } else {
            let fits = parts.iter().enumerate();
            let fits = fits.filter(|(_, part)| minus(&left, part).is_some());
            fits.max_by_key(|(index, part)| (part.iter().sum::<u32>(), Reverse(*index)))?
                .0
        };
        left = minus(&left, &parts[index])?;
        cards.push(index);
    }
    Some(cards)
}

fn lay_out(
    geometry: &Geometry,
    parts: &[Vec<u32>],
    counts: &[u32],
    beyond_bytes: u64,
    offers: &[Offer],
    board_mib: u64,
) -> Option<Fit> {
    let packed = pack(parts, counts)?;
    let mut cards = Vec::new();
    for index in &packed {
        let solution = place_counts(geometry, &parts[*index], &[])?;
        let instances = solution.placed.iter().map(|placed| FitInstance {
            profile: geometry.profiles[placed.profile].name.clone(),
            placement: placed.placement(geometry),
        });
        cards.push(instances.collect::<Vec<_>>());
    }
    let number = u32::try_from(packed.len()).ok()?;
    let compute = geometry.compute * number;
    let used = geometry.profiles.iter().zip(counts);
    let used: u32 = used.map(|(profile, count)| profile.compute * count).sum();
    let given: u64 = offers
        .iter()
        .map(|offer| offer.memory_mib * u64::from(counts[offer.profile]))
        .sum();
    let mut profiles: BTreeMap<Reverse<(u32, u32)>, (String, u32)> = BTreeMap::new();
    for (profile, count) in geometry.profiles.iter().zip(counts) {
        if *count > 0 {
            let key = Reverse((profile.size, profile.compute));
            profiles.insert(key, (profile.name.clone(), *count));
        }
    }
    Some(Fit {
        profiles: profiles.into_values().collect(),
        cards,
        beyond_mib: beyond_bytes / MIB,
        free_mib: (board_mib * u64::from(number)).saturating_sub(given),
        free_compute: compute.saturating_sub(used),
        compute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::content::Content;

    const GB: u64 = 1_000_000_000;

    fn asked(model: &str, needs: &[(u32, u64)]) -> Result<Vec<Fit>, Diagnostic> {
        let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
        let needs: Vec<Need> = needs
            .iter()
            .map(|(count, gb)| Need {
                count: *count,
                bytes: gb * GB,
            })
            .collect();
        fit(catalog.resolve(model).expect("a model"), &needs)
    }

    fn names(fit: &Fit) -> Vec<(&str, u32)> {
        let rows = fit.profiles.iter();
        rows.map(|(name, count)| (name.as_str(), *count)).collect()
    }

    #[test]
    fn one_card_is_filled_before_a_second_is_used() {
        let fits = asked("H100-80GB", &[(4, 9), (1, 35)]).expect("layouts");
        let best = &fits[0];
        assert_eq!(best.cards.len(), 1, "{best:?}");
        assert_eq!(names(best), [("3g.40gb", 1), ("1g.10gb", 4)]);
        // A 4g.40gb would leave room for three small ones only.
        let more: Vec<_> = fits.iter().map(|fit| fit.cards.len()).collect();
        assert!(more.windows(2).all(|pair| pair[0] <= pair[1]), "{more:?}");
    }

    #[test]
    fn what_one_card_cannot_hold_takes_two_and_every_tenant_has_an_instance() {
        let fits = asked("H100-80GB", &[(6, 9), (1, 35)]).expect("layouts");
        for fit in &fits {
            let placed: usize = fit.cards.iter().map(Vec::len).sum();
            assert_eq!(placed, 7, "{fit:?}");
        }
        assert_eq!(fits[0].cards.len(), 2, "{:?}", fits[0]);
        // The larger compute share costs no memory, so it comes first.
        assert_eq!(names(&fits[0]), [("4g.40gb", 1), ("1g.10gb", 6)]);
    }

    #[test]
    fn a_card_without_mig_says_what_it_has_and_a_tenant_that_is_too_large_what_is_there() {
        let error = asked("L40S", &[(2, 10)]).expect_err("no MIG");
        assert!(error.to_string().contains("time-slicing"), "{error}");
        let error = asked("A30", &[(1, 40)]).expect_err("too large");
        assert!(error.to_string().contains("4g.24gb"), "{error}");
    }

    #[test]
    fn a_question_about_a_whole_rack_is_answered_too() {
        let fits = asked("H200-141GB", &[(100, 60), (90, 17), (66, 16)]).expect("layouts");
        let placed: usize = fits[0].cards.iter().map(Vec::len).sum();
        assert_eq!(placed, 256);
    }

    #[test]
    fn placements_of_every_answer_are_legal_for_all_models() {
        let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
        let mut seen = 0;
        for model in catalog.models() {
            let Some(geometry) = Geometry::of_model(model) else {
                continue;
            };
            let needs = [
                Need {
                    count: 3,
                    bytes: GB,
                },
                Need {
                    count: 1,
                    bytes: 20 * GB,
                },
            ];
            let Ok(fits) = fit(model, &needs) else {
                continue;
            };
            for card in fits.iter().flat_map(|fit| &fit.cards) {
                seen += 1;
                let mut taken = 0_u32;
                for instance in card {
                    let index = geometry.find(&instance.profile).expect("a profile");
                    assert!(
                        geometry.profiles[index]
                            .starts
                            .contains(&instance.placement.start)
                    );
                    let units =
                        ((1_u64 << instance.placement.size) - 1) << instance.placement.start;
                    let units = u32::try_from(units).expect("a small grid");
                    assert_eq!(taken & units, 0, "{}: {card:?}", model.key);
                    taken |= units;
                }
            }
        }
        assert!(seen > 20, "{seen}");
    }
}

//! `request`: totals over all cards of a host, spread exactly.
//!
//! The search goes over the cards one by one and remembers, for what is left of
//! the request, the best that the rest of the cards can do. Best is: most
//! instances in use kept, then most kept, then fewest cards changed, then fewest cards used; ties go to
//! the earlier layout, so that the same host always gets the same answer.

use std::collections::HashMap;

use crate::desired::Request;
use crate::error::{Diagnostic, nearest};

use super::advice;
use super::geometry::Geometry;
use super::solver::{Placed, Solution, place_beside};

/// A card of the pool.
pub(super) struct Card<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) existing: &'a [Placed],
    /// Those of them that are in use.
    pub(super) busy: &'a [Placed],
}

/// More states than any sensible request has; a search beyond it takes the largest-first answer.
const BUDGET: usize = 400_000;

/// One layout of a card: how many of each requested profile, and where.
struct Layout {
    counts: Vec<u32>,
    solution: Solution,
    score: Score,
}

/// Higher is better: instances in use kept, instances kept, cards not changed, cards not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    busy: u32,
    kept: u32,
    unchanged: u32,
    unused: u32,
}

impl std::ops::Add for Score {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            busy: self.busy + other.busy,
            kept: self.kept + other.kept,
            unchanged: self.unchanged + other.unchanged,
            unused: self.unused + other.unused,
        }
    }
}

/// A layout for each card so that all of them together are the request.
pub(super) fn spread(cards: &[Card<'_>], request: &[Request]) -> Result<Vec<Solution>, Diagnostic> {
    for line in request {
        if line.count > 0
            && cards
                .iter()
                .all(|card| card.geometry.find(&line.profile.value).is_none())
        {
            return Err(line.profile.blame(unknown(cards, &line.profile.value)));
        }
    }
    let wanted: Vec<u32> = request.iter().map(|line| line.count).collect();
    let options: Vec<Vec<Layout>> = cards.iter().map(|card| options(card, request)).collect();
    if let Some(found) = search(&options, &wanted) {
        let chosen = found.into_iter().zip(&options);
        return Ok(chosen
            .map(|(index, options)| options[index].solution.clone())
            .collect());
    }
    Err(too_much(&options, request, &wanted))
}

fn unknown(cards: &[Card<'_>], name: &str) -> Diagnostic {
    let mut names: Vec<&str> = Vec::new();
    for profile in cards.iter().flat_map(|card| &card.geometry.profiles) {
        if !names.contains(&profile.name.as_str()) {
            names.push(&profile.name);
        }
    }
    let diagnostic = Diagnostic::error(format!("no card of this host has a profile `{name}`"));
    let listed = names.join(", ");
    match nearest(name, names.iter().copied()) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`? There are {listed}")),
        None => diagnostic.hint(format!("there are {listed}")),
    }
}

/// Every layout of one card that has nothing but requested profiles, best first.
fn options(card: &Card<'_>, request: &[Request]) -> Vec<Layout> {
    let kinds: Vec<Option<usize>> = request
        .iter()
        .map(|line| card.geometry.find(&line.profile.value))
        .collect();
    let mut found = Vec::new();
    let mut counts = vec![0; request.len()];
    extend(card, request, &kinds, 0, &mut counts, &mut found);
    found.sort_by_key(|option| std::cmp::Reverse(option.score));
    found
}

fn extend(
    card: &Card<'_>,
    request: &[Request],
    kinds: &[Option<usize>],
    at: usize,
    counts: &mut Vec<u32>,
    found: &mut Vec<Layout>,
) {
    let mut profiles = vec![0; card.geometry.profiles.len()];
    for (kind, count) in kinds.iter().zip(counts.iter()) {
        if let Some(kind) = kind {
            profiles[*kind] += count;
        }
    }
    // With fewer instances everything that fits still fits, so nothing is missed by stopping here.
    let Some(solution) = place_beside(card.geometry, &profiles, card.existing, card.busy) else {
        return;
    };
    if at == kinds.len() {
        let same = solution.kept as usize == card.existing.len()
            && solution.placed.len() == card.existing.len();
        let busy = solution.placed.iter().filter(|p| card.busy.contains(p));
        let score = Score {
            busy: u32::try_from(busy.count()).unwrap_or(u32::MAX),
            kept: solution.kept,
            unchanged: u32::from(same),
            unused: u32::from(solution.placed.is_empty()),
        };
        found.push(Layout {
            counts: counts.clone(),
            solution,
            score,
        });
        return;
    }
    let most = if kinds[at].is_some() {
        request[at].count.min(card.geometry.grid)
    } else {
        0
    };
    for count in 0..=most {
        counts[at] = count;
        let before = found.len();
        extend(card, request, kinds, at + 1, counts, found);
        if found.len() == before {
            break;
        }
    }
    counts[at] = 0;
}

/// The index of an option for each card, or none if the request does not fit.
fn search(options: &[Vec<Layout>], wanted: &[u32]) -> Option<Vec<usize>> {
    let mut memory = Memory::new();
    if !memory_limit_reached(options, wanted, &mut memory) {
        return walk(options, wanted, &memory);
    }
    largest_first(options, wanted)
}

/// Best score from a card on for what is left, with the option that gives it.
type Memory = HashMap<(usize, Vec<u32>), Option<(Score, usize)>>;

fn memory_limit_reached(options: &[Vec<Layout>], wanted: &[u32], memory: &mut Memory) -> bool {
    best(options, 0, wanted, memory).is_err()
}

struct OverBudget;

fn best(
    options: &[Vec<Layout>],
    at: usize,
    left: &[u32],
    memory: &mut Memory,
) -> Result<Option<Score>, OverBudget> {
    let Some(here) = options.get(at) else {
        return Ok(left.iter().all(|count| *count == 0).then(Score::default));
    };
    let key = (at, left.to_vec());
    if let Some(known) = memory.get(&key) {
        return Ok(known.map(|(score, _)| score));
    }
    if memory.len() >= BUDGET {
        return Err(OverBudget);
    }
    let mut found: Option<(Score, usize)> = None;
    if can_hold(&options[at..], left) {
        for (index, option) in here.iter().enumerate() {
            let Some(rest) = minus(left, &option.counts) else {
                continue;
            };
            let Some(score) = best(options, at + 1, &rest, memory)? else {
                continue;
            };
            let score = score + option.score;
            if found.is_none_or(|(best, _)| score > best) {
                found = Some((score, index));
            }
        }
    }
    memory.insert(key, found);
    Ok(found.map(|(score, _)| score))
}

/// Whether each profile alone could be held by these cards: a quick no.
fn can_hold(options: &[Vec<Layout>], left: &[u32]) -> bool {
    left.iter().enumerate().all(|(kind, count)| {
        let most = |card: &Vec<Layout>| card.iter().map(|o| o.counts[kind]).max().unwrap_or(0);
        options.iter().map(most).sum::<u32>() >= *count
    })
}

fn minus(left: &[u32], taken: &[u32]) -> Option<Vec<u32>> {
    left.iter()
        .zip(taken)
        .map(|(left, taken)| left.checked_sub(*taken))
        .collect()
}

fn walk(options: &[Vec<Layout>], wanted: &[u32], memory: &Memory) -> Option<Vec<usize>> {
    let mut left = wanted.to_vec();
    let mut chosen = Vec::new();
    for (at, here) in options.iter().enumerate() {
        let (_, index) = (*memory.get(&(at, left.clone()))?)?;
        left = minus(&left, &here[index].counts)?;
        chosen.push(index);
    }
    left.iter().all(|count| *count == 0).then_some(chosen)
}

/// Card by card the option that takes most of what is left; no proof if it fails.
fn largest_first(options: &[Vec<Layout>], wanted: &[u32]) -> Option<Vec<usize>> {
    let mut left = wanted.to_vec();
    let mut chosen = Vec::new();
    for here in options {
        let fits = here
            .iter()
            .enumerate()
            .filter(|(_, o)| minus(&left, &o.counts).is_some());
        let units = |o: &Layout| o.solution.placed.len();
        let (index, option) = fits.max_by_key(|(index, o)| {
            (
                o.score.busy,
                o.score.kept,
                units(o),
                std::cmp::Reverse(*index),
            )
        })?;
        left = minus(&left, &option.counts)?;
        chosen.push(index);
    }
    left.iter().all(|count| *count == 0).then_some(chosen)
}

/// What is too much, and how many would fit.
fn too_much(options: &[Vec<Layout>], request: &[Request], wanted: &[u32]) -> Diagnostic {
    let spelled: Vec<String> = request
        .iter()
        .filter(|line| line.count > 0)
        .map(|line| advice::times(line.count, &line.profile.value))
        .collect();
    let cards = match options.len() {
        1 => "the one card".to_owned(),
        count => format!("the {count} cards"),
    };
    let mut hints = Vec::new();
    for (kind, line) in request.iter().enumerate() {
        // The most of this one with the others as they are.
        let most = (0..line.count).rev().find(|count| {
            let mut fewer = wanted.to_vec();
            fewer[kind] = *count;
            search(options, &fewer).is_some()
        });
        if let Some(most) = most {
            hints.push(format!("{most} × {}", line.profile.value));
        }
    }
    let diagnostic = Diagnostic::error(format!(
        "{} do not fit on {cards} of this host",
        spelled.join(" + ")
    ));
    let diagnostic = match (hints.is_empty(), request.len()) {
        (true, _) => diagnostic.hint("no single line can be lowered far enough; lower several"),
        (false, 1) => diagnostic.hint(format!("at most {} fit", hints.join(""))),
        (false, _) => diagnostic.hint(format!(
            "with the other lines as they are, at most {} fit",
            hints.join(", or ")
        )),
    };
    match request.iter().find(|line| line.count > 0) {
        Some(line) => line.profile.blame(diagnostic),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests;

//! `request`: totals over all cards of a host or of a group of hosts, spread exactly.
//!
//! The search goes over the cards one by one and remembers, for what is left of
//! the request, the best that the rest of the cards can do. Best is: most
//! instances in use kept, then most kept, then fewest cards changed, then fewest cards used; ties go to
//! the earlier layout, so that the same host always gets the same answer. Where that is too
//! much to go through, as for hundreds of cards, `few` leaves most of them as they are.

mod few;

use std::collections::HashMap;
use std::sync::Arc;

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

/// More states than any sensible request of a host has; beyond it only few cards are opened.
const BUDGET: usize = 400_000;

/// One layout of a card: how many of each requested profile, and where.
struct Layout {
    counts: Vec<u32>,
    solution: Solution,
    score: Score,
    /// Grid units that it takes.
    units: u32,
}

/// The layouts of a card, best first. Cards that are alike share theirs.
type Options = Arc<Vec<Layout>>;

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

/// A layout for each card so that all of them together are the request. `place` is what has
/// the cards, as messages call it: `this host`.
pub(super) fn spread(
    cards: &[Card<'_>],
    request: &[Request],
    place: &str,
) -> Result<Vec<Solution>, Diagnostic> {
    for line in request {
        if line.count > 0
            && cards
                .iter()
                .all(|card| card.geometry.find(&line.profile.value).is_none())
        {
            return Err(line
                .profile
                .blame(unknown(cards, &line.profile.value, place)));
        }
    }
    let wanted: Vec<u32> = request.iter().map(|line| line.count).collect();
    let options = all_options(cards, request);
    match search(&options, &wanted) {
        Search::Found(found) => {
            let chosen = found.into_iter().zip(&options);
            let solutions = chosen.map(|(index, options)| options[index].solution.clone());
            Ok(solutions.collect())
        }
        Search::Impossible => Err(too_much(&options, request, &wanted, place)),
        Search::NotFound => Err(not_found(&options, request, place)),
    }
}

/// Every layout of each card.
fn all_options(cards: &[Card<'_>], request: &[Request]) -> Vec<Options> {
    let mut found: Vec<Options> = Vec::with_capacity(cards.len());
    for (at, card) in cards.iter().enumerate() {
        let alike = cards[..at].iter().position(|other| {
            other.geometry == card.geometry
                && other.existing == card.existing
                && other.busy == card.busy
        });
        found.push(match alike {
            Some(other) => Arc::clone(&found[other]),
            None => Arc::new(options(card, request)),
        });
    }
    found
}

fn unknown(cards: &[Card<'_>], name: &str, place: &str) -> Diagnostic {
    let mut names: Vec<&str> = Vec::new();
    for profile in cards.iter().flat_map(|card| &card.geometry.profiles) {
        if !names.contains(&profile.name.as_str()) {
            names.push(&profile.name);
        }
    }
    let diagnostic = Diagnostic::error(format!("no card of {place} has a profile `{name}`"));
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
        let size = |placed: &Placed| card.geometry.profiles[placed.profile].size;
        found.push(Layout {
            counts: counts.clone(),
            units: solution.placed.iter().map(size).sum(),
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

/// How a search ended.
#[derive(Debug)]
enum Search {
    /// The index of an option for each card.
    Found(Vec<usize>),
    /// The request does not fit: everything was tried.
    Impossible,
    /// Not everything could be tried.
    NotFound,
}

fn search(options: &[Options], wanted: &[u32]) -> Search {
    if !can_hold(options, wanted) {
        return Search::Impossible;
    }
    match exactly(options, wanted) {
        Ok(Some(found)) => Search::Found(found),
        Ok(None) => Search::Impossible,
        Err(OverBudget) => few::search(options, wanted).map_or(Search::NotFound, Search::Found),
    }
}

/// The best answer, or none where the request does not fit.
fn exactly(options: &[Options], wanted: &[u32]) -> Result<Option<Vec<usize>>, OverBudget> {
    // What is left takes at most so many values at each card; a search that is sure to be
    // given up is not begun.
    let values = wanted.iter().map(|count| *count as usize + 1);
    let values = values.fold(1_usize, usize::saturating_mul);
    if values.saturating_mul(options.len()) > BUDGET.saturating_mul(8) {
        return Err(OverBudget);
    }
    let mut memory = Memory::new();
    best(options, 0, wanted, &mut memory)?;
    Ok(walk(options, wanted, &memory))
}

/// Best score from a card on for what is left, with the option that gives it.
type Memory = HashMap<(usize, Vec<u32>), Option<(Score, usize)>>;

/// The search has more states than there is room for.
#[derive(Debug)]
struct OverBudget;

fn best(
    options: &[Options],
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
fn can_hold(options: &[Options], left: &[u32]) -> bool {
    left.iter().enumerate().all(|(kind, count)| {
        let most = |card: &Options| card.iter().map(|o| o.counts[kind]).max().unwrap_or(0);
        options.iter().map(most).sum::<u32>() >= *count
    })
}

fn minus(left: &[u32], taken: &[u32]) -> Option<Vec<u32>> {
    left.iter()
        .zip(taken)
        .map(|(left, taken)| left.checked_sub(*taken))
        .collect()
}

fn walk(options: &[Options], wanted: &[u32], memory: &Memory) -> Option<Vec<usize>> {
    let mut left = wanted.to_vec();
    let mut chosen = Vec::new();
    for (at, here) in options.iter().enumerate() {
        let (_, index) = (*memory.get(&(at, left.clone()))?)?;
        left = minus(&left, &here[index].counts)?;
        chosen.push(index);
    }
    left.iter().all(|count| *count == 0).then_some(chosen)
}

fn spelled(request: &[Request]) -> String {
    let lines = request.iter().filter(|line| line.count > 0);
    let lines: Vec<String> = lines
        .map(|line| advice::times(line.count, &line.profile.value))
        .collect();
    lines.join(" + ")
}

fn cards_of(options: &[Options], place: &str) -> String {
    match options.len() {
        1 => format!("the one card of {place}"),
        count => format!("the {count} cards of {place}"),
    }
}

fn blame_first(request: &[Request], diagnostic: Diagnostic) -> Diagnostic {
    match request.iter().find(|line| line.count > 0) {
        Some(line) => line.profile.blame(diagnostic),
        None => diagnostic,
    }
}

/// What is too much, and how many would fit.
fn too_much(options: &[Options], request: &[Request], wanted: &[u32], place: &str) -> Diagnostic {
    let mut hints = Vec::new();
    for (kind, line) in request.iter().enumerate() {
        // The most of this one with the others as they are; where so many fit, fewer fit too.
        let fits = |count: u32| {
            let mut fewer = wanted.to_vec();
            fewer[kind] = count;
            matches!(search(options, &fewer), Search::Found(_))
        };
        let (mut least, mut most) = (0, line.count);
        if line.count == 0 || !fits(0) {
            continue;
        }
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            match fits(middle) {
                true => least = middle,
                false => most = middle,
            }
        }
        hints.push(format!("{least} × {}", line.profile.value));
    }
    let diagnostic = Diagnostic::error(format!(
        "{} do not fit on {}",
        spelled(request),
        cards_of(options, place)
    ));
    let diagnostic = match (hints.is_empty(), request.len()) {
        (true, _) => diagnostic.hint("no single line can be lowered far enough; lower several"),
        (false, 1) => diagnostic.hint(format!("at most {} fit", hints.join(""))),
        (false, _) => diagnostic.hint(format!(
            "with the other lines as they are, at most {} fit",
            hints.join(", or ")
        )),
    };
    blame_first(request, diagnostic)
}

/// What may be too much: a search through so many cards cannot try everything.
fn not_found(options: &[Options], request: &[Request], place: &str) -> Diagnostic {
    let message = format!(
        "no way was found to place {} on {}",
        spelled(request),
        cards_of(options, place)
    );
    let hint = "ask for fewer, or give smaller groups their own totals: so many cards cannot be searched through";
    blame_first(request, Diagnostic::error(message).hint(hint))
}

#[cfg(test)]
mod tests;

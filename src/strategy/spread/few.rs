//! Totals over more cards than an exact search gets through.
//!
//! Cards whose instances are all asked for stay as they are; the others, and as few more as
//! are needed, are opened and searched exactly. The fewer are opened, the fewer instances
//! can move, so that a small change of the request moves few. Where even the open cards are
//! too many, they are filled one after the other.

use super::{Options, exactly, minus};

/// Opening more cards than these only to keep more instances is not worth the time.
const MANY: usize = 16;

/// The index of an option for each card, or none if none was found.
pub(super) fn search(options: &[Options], wanted: &[u32]) -> Option<Vec<usize>> {
    let as_it_is: Vec<Option<usize>> = options
        .iter()
        .map(|here| here.iter().position(|option| option.score.unchanged == 1))
        .collect();
    let order = order(options, &as_it_is, wanted);
    let must = as_it_is.iter().filter(|same| same.is_none()).count();
    let mut best: Option<(u32, Vec<usize>)> = None;
    let mut more = 0;
    loop {
        let count = (must + more).min(options.len());
        let (open, closed) = order.split_at(count);
        if let Some(found) = with_open(options, &as_it_is, wanted, open, closed) {
            let kept = found.iter().zip(options);
            let kept = kept.map(|(index, here)| here[*index].score.kept).sum();
            if best.as_ref().is_none_or(|(most, _)| kept > *most) {
                best = Some((kept, found));
            }
        }
        let enough = match &best {
            Some((kept, _)) => more >= MANY || *kept >= could_stay(options, wanted),
            None => false,
        };
        if enough || count == options.len() {
            return best.map(|(_, found)| found);
        }
        more = (more * 2).max(1);
    }
}

/// No answer keeps more instances than these: of each profile those that are there, and no
/// more than are wanted.
fn could_stay(options: &[Options], wanted: &[u32]) -> u32 {
    let most = |kind: usize| -> u32 {
        let there = options.iter().map(|here| {
            let kept = here
                .iter()
                .filter(|option| option.score.kept as usize == option.solution.placed.len());
            kept.map(|option| option.counts[kind]).max().unwrap_or(0)
        });
        there.sum()
    };
    let kinds = wanted.iter().enumerate();
    kinds.map(|(kind, count)| most(kind).min(*count)).sum()
}

/// The cards in the order in which they are opened: first those that cannot stay as they are,
/// then those on which most of what is missing has room beside what is there, or most of what
/// is too much can go.
fn order(options: &[Options], as_it_is: &[Option<usize>], wanted: &[u32]) -> Vec<usize> {
    let there = |kind: usize| -> u32 {
        let cards = options.iter().zip(as_it_is);
        let counts = cards.filter_map(|(here, same)| Some(here[(*same)?].counts[kind]));
        counts.sum()
    };
    let there: Vec<u32> = (0..wanted.len()).map(there).collect();
    let use_of = |card: usize| -> u32 {
        let Some(same) = as_it_is[card] else {
            return u32::MAX;
        };
        let same = &options[card][same];
        let gain = options[card].iter().filter(|option| {
            option.score.busy == same.score.busy && option.score.kept <= same.score.kept
        });
        let gain = gain.map(|option| {
            let kinds = wanted.iter().zip(&there).enumerate();
            let each = kinds.map(|(kind, (wanted, there))| {
                let (now, then) = (same.counts[kind], option.counts[kind]);
                match wanted > there {
                    // Only beside all that is there now.
                    true if option.score.kept < same.score.kept => 0,
                    true => then.saturating_sub(now).min(wanted - there),
                    false => now.saturating_sub(then).min(there - wanted),
                }
            });
            each.sum::<u32>()
        });
        gain.max().unwrap_or(0)
    };
    let mut cards: Vec<(u32, usize)> = (0..options.len())
        .map(|card| (use_of(card), card))
        .collect();
    cards.sort_by_key(|(use_of, card)| (std::cmp::Reverse(*use_of), *card));
    cards.into_iter().map(|(_, card)| card).collect()
}

/// An answer in which the closed cards stay as they are.
fn with_open(
    options: &[Options],
    as_it_is: &[Option<usize>],
    wanted: &[u32],
    open: &[usize],
    closed: &[usize],
) -> Option<Vec<usize>> {
    let mut found = vec![0; options.len()];
    let mut left = wanted.to_vec();
    for card in closed {
        let same = as_it_is[*card]?;
        left = minus(&left, &options[*card][same].counts)?;
        found[*card] = same;
    }
    let of_open: Vec<Options> = open.iter().map(|card| options[*card].clone()).collect();
    let chosen = match exactly(&of_open, &left) {
        Ok(chosen) => chosen?,
        Err(_) => {
            filled(&of_open, &left, By::Units).or_else(|| filled(&of_open, &left, By::Count))?
        }
    };
    for (card, index) in open.iter().zip(chosen) {
        found[*card] = index;
    }
    Some(found)
}

/// What a card is filled with first.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The layout that takes most of the card.
    Units,
    /// That with most instances.
    Count,
}

/// Card by card, of what is left, the layout that keeps most and then takes most. Cards with
/// most to keep come first, so that no other takes what they have. No proof if it fails.
fn filled(options: &[Options], wanted: &[u32], by: By) -> Option<Vec<usize>> {
    let mut left = wanted.to_vec();
    let mut chosen = vec![0; options.len()];
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by_key(|card| {
        let kept = options[*card].iter().map(|option| option.score.kept).max();
        std::cmp::Reverse(kept)
    });
    for card in order {
        let fits = options[card]
            .iter()
            .enumerate()
            .filter(|(_, option)| minus(&left, &option.counts).is_some());
        let (index, option) = fits.max_by_key(|(index, option)| {
            let taken = match by {
                By::Units => option.units as usize,
                By::Count => option.solution.placed.len(),
            };
            let score = option.score;
            (score.busy, score.kept, taken, std::cmp::Reverse(*index))
        })?;
        left = minus(&left, &option.counts)?;
        chosen[card] = index;
    }
    left.iter().all(|count| *count == 0).then_some(chosen)
}

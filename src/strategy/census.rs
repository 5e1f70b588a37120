//! How many slices each card of a host is to have and has, by technology and profile.
//!
//! What counts as a slice, each technology says: a GPU instance, a virtual function. What
//! only a program on the host shares out, such as turns on a card, is no slice that could
//! be counted there, and is left out.

use std::collections::BTreeMap;

use crate::catalog::Technology;
use crate::facts::{Gpu, HostFacts, PciAddress};

use super::power::When;
use super::{Decision, STRATEGIES};

/// So many slices of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// What they are called, such as `1g.10gb` or `vf`.
    pub profile: String,
    /// How many.
    pub count: u32,
    /// How many of them somebody uses; none where that cannot be told.
    pub in_use: Option<u32>,
}

/// A kind of slices on one card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What makes them.
    pub technology: Technology,
    /// What they are called.
    pub profile: String,
    /// How many there should be; none where the card's slices are not managed, or the
    /// technology cannot say.
    pub wanted: Option<u32>,
    /// How many there are.
    pub found: u32,
    /// How many somebody uses; none where that cannot be told.
    pub in_use: Option<u32>,
}

/// One card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its address.
    pub pci: PciAddress,
    /// How it is to be sliced; none where it is not managed.
    pub technology: Option<Technology>,
    /// Whether something about its slices differs from what is wanted; none where it is not
    /// managed, or could not be compared.
    pub drifted: Option<bool>,
    /// Its slices, by technology and profile.
    pub rows: Vec<Row>,
}

/// Counts the slices of all cards of a host.
#[must_use]
pub fn census(decisions: &[Decision], facts: &HostFacts) -> Vec<Card> {
    let cards = facts.gpus.iter();
    cards
        .map(|gpu| {
            let decision = decisions.iter().find(|decision| decision.pci == gpu.pci);
            card(gpu, decision)
        })
        .collect()
}

fn card(gpu: &Gpu, decision: Option<&Decision>) -> Card {
    let wanted = decision.map(|decision| (decision.technology, decision.target.slices()));
    let mut rows: BTreeMap<(Technology, String), Row> = BTreeMap::new();
    // What the card is to have besides what is wanted by name.
    let none_of = |technology: Technology| match &wanted {
        None => None,
        Some((decided, None)) if *decided == technology => None,
        Some(_) => Some(0),
    };
    let mut row = |technology: Technology, profile: String, change: &dyn Fn(&mut Row)| {
        let key = (technology, profile.clone());
        change(rows.entry(key).or_insert(Row {
            technology,
            profile,
            wanted: none_of(technology),
            found: 0,
            in_use: Some(0),
        }));
    };
    for strategy in STRATEGIES {
        for slices in strategy.found(gpu) {
            row(strategy.technology(), slices.profile, &|row| {
                row.found += slices.count;
                row.in_use = row.in_use.zip(slices.in_use).map(|(a, b)| a + b);
            });
        }
    }
    if let Some((technology, Some(slices))) = &wanted {
        for slices in slices {
            row(*technology, slices.profile.clone(), &|row| {
                row.wanted = Some(row.wanted.unwrap_or(0) + slices.count);
            });
        }
    }
    Card {
        pci: gpu.pci,
        technology: decision.map(|decision| decision.technology),
        drifted: decision.and_then(|decision| {
            let steps = decision.target.steps(gpu, When::Now).ok()?;
            Some(!steps.is_empty())
        }),
        rows: rows.into_values().collect(),
    }
}

//! Tells of the cards of a host how they are sliced and how they are to be.

use std::sync::Arc;

use crate::catalog::{Catalog, Technology};
use crate::cli::flow::Events;
use crate::desired::Desired;
use crate::event::{CardSlices, Event, SliceCount};
use crate::facts::HostFacts;
use crate::saved;
use crate::strategy::{self, Share};
use crate::value::HostName;

/// Tells it; nothing of a host without cards. What is wanted is left out where it could not be
/// worked out: planning says why.
pub(super) fn tell(
    host: &HostName,
    facts: &HostFacts,
    (desired, share): (Option<&Arc<Desired>>, Option<&Share>),
    catalog: &Catalog,
    events: &Events,
) {
    if facts.gpus.is_empty() {
        return;
    }
    let decisions = desired.and_then(|desired| {
        let mut desired = Desired::clone(desired);
        if let Some(share) = share {
            desired.slicing.request.clone_from(&share.request);
        }
        strategy::decide(&desired, facts, catalog).ok()
    });
    let known = decisions.is_some();
    let census = strategy::census(&decisions.unwrap_or_default(), facts);
    let cards = saved::cards(facts).into_iter().zip(census);
    let cards = cards.map(|(card, census)| CardSlices {
        name: card.name,
        model: card.model,
        state: card.state,
        grid: card.grid,
        slices: card.slices,
        technology: census.technology.map(Technology::name),
        differs: census.drifted,
        counts: census
            .rows
            .into_iter()
            .map(|row| SliceCount {
                technology: row.technology.name(),
                profile: row.profile,
                wanted: row.wanted.filter(|_| known),
                found: row.found,
            })
            .collect(),
    });
    let _ = events.send(Event::Slices {
        host: host.clone(),
        cards: Arc::new(cards.collect()),
    });
}

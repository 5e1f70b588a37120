//! `request_group`: the share of each host in totals that are for a whole group.
//!
//! All cards of all hosts are one pool, which `spread` fills so that as much as can stays
//! where it is. A host's share are its own totals; it spreads them over its cards as it does
//! with a request of its own, so that host and group never answer differently.

use crate::catalog::{Catalog, Technology};
use crate::desired::{Desired, Located, Request};
use crate::error::{Diagnostic, Problems};
use crate::facts::HostFacts;
use std::borrow::Cow;

use super::mig::Card;
use super::{Lack, advice, asks, lacks, picks, spread, strategy_of};

/// A host of a group.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name.
    pub host: &'a str,
    /// What is wanted of it.
    pub desired: &'a Desired,
    /// What was seen.
    pub facts: &'a HostFacts,
}

/// What a host has of the totals of its group.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Its own totals, a line for each line of the group's.
    pub request: Vec<Request>,
    /// Instances that it has already and keeps.
    pub kept: u32,
    /// Instances that it has now.
    pub now: u32,
    /// What the host's plan says of it.
    pub note: Option<String>,
}

impl Share {
    /// Whether the host has just this now.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.kept == self.total() && self.now == self.kept
    }

    fn total(&self) -> u32 {
        self.request.iter().map(|line| line.count).sum()
    }

    /// The totals and what of them stays, such as `4 × 1g.10gb (2 of 4 are there)`.
    #[must_use]
    pub fn spelled(&self) -> String {
        let lines = self.request.iter().filter(|line| line.count > 0);
        let lines: Vec<String> = lines
            .map(|line| advice::times(line.count, &line.profile.value))
            .collect();
        match (lines.is_empty(), self.total(), self.kept) {
            (true, _, _) => "nothing".to_owned(),
            (false, total, kept) if kept == total => {
                format!("{}, which it has already", lines.join(" + "))
            }
            (false, _, 0) => lines.join(" + "),
            (false, total, kept) => {
                format!("{} ({kept} of {total} stay as they are)", lines.join(" + "))
            }
        }
    }
}

/// The share of each host, in the order in which they are given.
///
/// # Errors
/// The totals do not fit, or a card of a host cannot be asked what it has.
pub fn share(
    group: &Located<String>,
    members: &[Member<'_>],
    catalog: &Catalog,
) -> Result<Vec<Share>, Problems> {
    let Some(first) = members.first() else {
        return Ok(Vec::new());
    };
    let request = &first.desired.slicing.request;
    let mut problems = Problems::default();
    let picked: Vec<_> = members
        .iter()
        .map(|member| {
            let (picks, found) = picks(member.desired, member.facts, catalog);
            problems.extend(of_host(member.host, found));
            picks
        })
        .collect();
    // Each card with the place of its host among the members.
    let mut cards: Vec<(usize, Card<'_>)> = Vec::new();
    for (place, (member, picks)) in members.iter().zip(&picked).enumerate() {
        match of_member(member, picks, catalog) {
            Ok(found) => cards.extend(found.into_iter().map(|card| (place, card))),
            Err(found) => problems.extend(of_host(member.host, found)),
        }
    }
    // A card that could not be read would make the totals look too small.
    if problems.has_errors() {
        return Err(problems);
    }
    if cards.is_empty() {
        let message = format!(
            "no card of group `{}` takes part in its `request`",
            group.value
        );
        let hint = "the cards that no entry of `gpus` matches share it, as far as they have MIG";
        return Err(group.blame(Diagnostic::error(message).hint(hint)).into());
    }
    let pool: Vec<spread::Card<'_>> = cards.iter().map(|(_, card)| card.in_pool()).collect();
    let solutions = spread::spread(&pool, request, &format!("group `{}`", group.value))?;
    let mut shares: Vec<Share> = members
        .iter()
        .map(|_| Share {
            request: nothing_of(request),
            kept: 0,
            now: 0,
            note: None,
        })
        .collect();
    for ((place, _), (card, solution)) in cards.iter().zip(pool.iter().zip(&solutions)) {
        let share = &mut shares[*place];
        share.kept += solution.kept;
        share.now += u32::try_from(card.existing.len()).unwrap_or(u32::MAX);
        for placed in &solution.placed {
            let line = share
                .request
                .iter_mut()
                .find(|line| card.geometry.find(&line.profile.value) == Some(placed.profile));
            if let Some(line) = line {
                line.count += 1;
            }
        }
    }
    Ok(shares)
}

fn nothing_of(request: &[Request]) -> Vec<Request> {
    let lines = request.iter().cloned();
    lines.map(|line| Request { count: 0, ..line }).collect()
}

/// The cards of a host that share the totals.
fn of_member<'a>(
    member: &Member<'a>,
    picks: &'a [Option<super::auto::Pick>],
    catalog: &'a Catalog,
) -> Result<Vec<Card<'a>>, Problems> {
    let mut problems = Problems::default();
    let mut cards = Vec::new();
    let Some(mig) = strategy_of(Technology::Mig) else {
        return Ok(cards);
    };
    for (technology, ask) in asks(member.desired, member.facts, catalog, picks) {
        if technology != Technology::Mig || !ask.is_default {
            continue;
        }
        match lacks(mig, &ask, member.facts) {
            Lack::Nothing => match Card::read(&ask, Cow::Borrowed(&ask.wanted.mig)) {
                Ok(card) => cards.push(card),
                Err(found) => problems.push(found),
            },
            Lack::NotMeant => {}
            Lack::Refused(found) => problems.push(found),
        }
    }
    problems.or(cards)
}

/// The findings with the host's name before them: the others of the group are told them too.
fn of_host(host: &str, problems: Problems) -> Problems {
    let named = problems.0.into_iter().map(|problem| Diagnostic {
        message: format!("{host}: {}", problem.message),
        ..problem
    });
    Problems(named.collect())
}

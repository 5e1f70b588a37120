//! `request`: totals of profiles instead of a list for each card, for a host or for all
//! hosts of a group.
//!
//! Which hosts a group has is not known here; whoever knows the inventory finds that out.

use crate::catalog::Technology;
use crate::error::Diagnostic;

use super::block::{Block, Located, as_count, wrong_kind};
use super::slicing::{Choice, MOST_INSTANCES, Wanted};

/// One line of `request`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Profile name.
    pub profile: Located<String>,
    /// How many on the whole host, or on all hosts of `request_group`.
    pub count: u32,
}

/// Most instances of one line that go over a group: as many hosts as a fleet has, with as
/// many as a host can have.
const MOST_OF_GROUP: u32 = 1_000_000;

/// The totals, which are those of `group` where one is given.
pub(super) fn read(block: &mut Block<'_, '_>, group: Option<&Located<String>>) -> Vec<Request> {
    let Some(node) = block.node("request") else {
        if let Some(group) = group {
            let diagnostic = Diagnostic::error("`request_group` without `request` spreads nothing")
                .hint("give the totals of the group: `request: {1g.10gb: 40, 3g.40gb: 8}`");
            block.problems.push(group.blame(diagnostic));
        }
        return Vec::new();
    };
    let path = block.path_of("request");
    let Some(map) = node.as_map() else {
        let diagnostic = wrong_kind(&path, "a mapping of profiles to counts", node);
        block.problems.push(diagnostic);
        return Vec::new();
    };
    let most = match group {
        Some(_) => MOST_OF_GROUP,
        None => MOST_INSTANCES,
    };
    let mut requests = Vec::new();
    for (profile, entry) in map {
        let count = as_count(&entry.node).filter(|count| *count <= most);
        let Some(count) = count else {
            let wanted = format!("a whole number from 0 to {most}");
            let diagnostic = wrong_kind(&format!("{path}.{profile}"), &wanted, &entry.node);
            block.problems.push(diagnostic);
            continue;
        };
        requests.push(Request {
            profile: Located {
                value: profile.clone(),
                origin: Some(entry.key.clone()),
            },
            count,
        });
    }
    requests
}

/// `request_group`; an empty text is none.
pub(super) fn read_group(block: &mut Block<'_, '_>) -> Option<Located<String>> {
    Some(block.text("request_group", "")).filter(|group| !group.value.is_empty())
}

pub(super) fn check(block: &mut Block<'_, '_>, default: &Wanted, request: &[Request]) {
    let Some(first) = request.first() else { return };
    if default.auto.origin.is_some() {
        let diagnostic = Diagnostic::error("`request` and `auto` contradict each other")
            .hint("give totals for the host, or what the tenants of each card need");
        block.problems.push(first.profile.blame(diagnostic));
    }
    if let Choice::Use(chosen) = default.strategy.value
        && chosen != Technology::Mig
    {
        let diagnostic = Diagnostic::error(format!("`request` contradicts `strategy: {chosen}`"))
            .hint("totals of MIG profiles need `strategy: mig` (or `auto`)");
        block.problems.push(first.profile.blame(diagnostic));
    }
    if let Some((name, layout)) = default.mig.layout() {
        let message = format!("`request` and `mig.{name}` contradict each other");
        let mut diagnostic =
            Diagnostic::error(message).hint("give totals for the host, or profiles for each card");
        if let Some(origin) = &layout.origin {
            diagnostic = diagnostic.related(origin, "the profiles stand here");
        }
        block.problems.push(first.profile.blame(diagnostic));
    } else if default.mig.gpu_instance_count.is_written()
        && default.mig.gpu_instance_count.value != 1
    {
        let diagnostic =
            Diagnostic::error("`request` and `mig.gpu_instance_count` contradict each other")
                .hint("the counts stand in `request` itself");
        block.problems.push(first.profile.blame(diagnostic));
    }
}

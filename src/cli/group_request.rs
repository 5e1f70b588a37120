//! `request_group`: totals for all hosts of a group need to be spread before any of its
//! hosts can be planned, so all of them are looked at first.
//!
//! Here is found out which hosts have a share in what, and what was seen of them; `strategy`
//! spreads. Hosts that `--limit` leaves out are looked at as well, since the share of the
//! others depends on what they have; nothing is changed there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Catalog;
use crate::cli::hosts::Hosts;
use crate::cli::reach::{Reached, Way};
use crate::cli::settings::once;
use crate::desired::{Desired, Located, Request};
use crate::error::{Diagnostic, Problems};
use crate::event::HostProblem;
use crate::facts::HostFacts;
use crate::fleet;
use crate::inventory::Inventory;
use crate::strategy::{self, Member, Share};
use crate::value::HostName;

/// What is wanted of each host.
pub(super) type Wanted = HashMap<HostName, Arc<Desired>>;

/// A group with the hosts that share its totals, in the inventory's order.
#[derive(Debug)]
struct Pool {
    group: Located<String>,
    hosts: Vec<HostName>,
    /// Those of them that the command does nothing on.
    left_out: HashSet<HostName>,
}

/// The groups whose totals the selected hosts share.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: Vec<Pool>,
    /// Hosts that have a share and were not selected, with what is wanted of them.
    pub(super) beside: Wanted,
}

/// What the group of each host gives it.
pub(super) struct Shares<C = Reached> {
    of: HashMap<HostName, Result<Share, Problems>>,
    reached: Mutex<HashMap<HostName, Result<C, HostProblem>>>,
    /// Which host gets what, where that is not what it has.
    pub(super) notes: Vec<String>,
}

impl<C> Default for Shares<C> {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            reached: Mutex::default(),
            notes: Vec::new(),
        }
    }
}

/// The group whose totals a host shares, if it does.
fn group_of(desired: &Desired) -> Option<&Located<String>> {
    let slicing = &desired.slicing;
    slicing
        .request_group
        .as_ref()
        .filter(|_| slicing.enabled.value)
}

fn totals(request: &[Request]) -> Vec<(&str, u32)> {
    let lines = request.iter();
    lines
        .map(|line| (line.profile.value.as_str(), line.count))
        .collect()
}

/// Finds the groups. `wanted_of` says what is wanted of a host that was not selected; none if
/// no play is for it.
///
/// # Errors
/// A group that is not there, a host that is not in it, totals that contradict each other,
/// variables of any host of the group that cannot be read.
pub(super) fn find(
    inventory: &Inventory,
    selected: &Wanted,
    wanted_of: impl Fn(&HostName) -> Result<Option<Desired>, Problems>,
) -> Result<Pools, Problems> {
    let mut problems = Problems::default();
    let mut found = Pools::default();
    for host in inventory.hosts() {
        let Some(group) = selected.get(host).and_then(|desired| group_of(desired)) else {
            continue;
        };
        if found
            .pools
            .iter()
            .any(|pool| pool.group.value == group.value && pool.hosts.contains(host))
        {
            continue;
        }
        let members: Vec<&HostName> = inventory.hosts_of(&group.value).collect();
        if members.is_empty() && !inventory.groups().any(|name| name == group.value) {
            let message = format!("there is no group `{}`", group.value);
            let diagnostic =
                Diagnostic::error(message).did_you_mean(&group.value, inventory.groups());
            problems.push(group.blame(diagnostic));
            continue;
        }
        if !members.contains(&host) {
            let message = format!("`{host}` is not in the group `{}`", group.value);
            let hint = "the totals of a group are for its own hosts; write them in its group_vars";
            problems.push(group.blame(Diagnostic::error(message).hint(hint)));
            continue;
        }
        let pool = match pool(inventory, group, selected, &wanted_of, &mut found.beside) {
            Ok(pool) => pool,
            Err(wrong) => {
                problems.extend(wrong);
                continue;
            }
        };
        match disagreement(&pool, selected, &found.beside) {
            Some(diagnostic) => problems.push(diagnostic),
            None => found.pools.push(pool),
        }
    }
    once(problems).or(found)
}

/// All hosts of the group that share its totals, selected or not.
fn pool(
    inventory: &Inventory,
    group: &Located<String>,
    selected: &Wanted,
    wanted_of: &impl Fn(&HostName) -> Result<Option<Desired>, Problems>,
    beside: &mut Wanted,
) -> Result<Pool, Problems> {
    let members: HashSet<&HostName> = inventory.hosts_of(&group.value).collect();
    let mut pool = Pool {
        group: group.clone(),
        hosts: Vec::new(),
        left_out: HashSet::new(),
    };
    let shares = |desired: &Desired| group_of(desired).is_some_and(|of| of.value == group.value);
    for host in inventory.hosts().filter(|host| members.contains(host)) {
        if let Some(desired) = selected.get(host) {
            if shares(desired) {
                pool.hosts.push(host.clone());
            }
            continue;
        }
        if let Some(desired) = wanted_of(host)?.filter(shares) {
            pool.hosts.push(host.clone());
            pool.left_out.insert(host.clone());
            beside.insert(host.clone(), Arc::new(desired));
        }
    }
    Ok(pool)
}

/// Hosts that name one group must want the same of it.
fn disagreement(pool: &Pool, selected: &Wanted, beside: &Wanted) -> Option<Diagnostic> {
    let wanted = |host: &HostName| selected.get(host).or_else(|| beside.get(host));
    let first = pool.hosts.first()?;
    let request = &wanted(first)?.slicing.request;
    let other = pool.hosts.iter().find(|host| {
        wanted(host).is_some_and(|desired| totals(&desired.slicing.request) != totals(request))
    })?;
    let message = format!(
        "`{first}` and `{other}` want different totals of the group `{}`",
        pool.group.value
    );
    let hint = "write `request` and `request_group` once, in the group's own variables";
    let theirs = &wanted(other)?.slicing.request;
    let mut diagnostic = Diagnostic::error(message).hint(hint);
    if let Some(origin) = theirs.first().and_then(|line| line.profile.origin.as_ref()) {
        diagnostic = diagnostic.related(origin, format!("these are the totals of `{other}`"));
    }
    Some(match request.first() {
        Some(line) => line.profile.blame(diagnostic),
        None => pool.group.blame(diagnostic),
    })
}

/// What was seen of the hosts that share something, or why nothing was, in a part of a
/// sentence.
pub(super) type Seen = HashMap<HostName, Result<Arc<HostFacts>, String>>;

impl Pools {
    /// The hosts that have to be looked at.
    pub(super) fn hosts(&self) -> Vec<HostName> {
        let all = self.pools.iter().flat_map(|pool| &pool.hosts);
        all.cloned().collect()
    }

    /// Spreads the totals of all groups.
    pub(super) fn shares<C>(&self, wanted: &Wanted, seen: &Seen, catalog: &Catalog) -> Shares<C> {
        let mut shares = Shares::default();
        for pool in &self.pools {
            match pool.shares(wanted, seen, catalog) {
                Ok(found) => {
                    shares.notes.extend(pool.note(&found));
                    let told = pool.told(found);
                    shares
                        .of
                        .extend(told.map(|(host, share)| (host, Ok(share))));
                }
                Err(problems) => {
                    for host in &pool.hosts {
                        shares.of.insert(host.clone(), Err(problems.clone()));
                    }
                }
            }
        }
        shares
    }

    /// Looks at all hosts that share something. The connections to `soon` are kept for their
    /// plans, those to others closed.
    pub(super) async fn gather<C: Way>(
        &self,
        hosts: &Arc<Hosts>,
        catalog: &Arc<Catalog>,
        forks: usize,
        soon: &HashSet<HostName>,
    ) -> Shares<C> {
        let mut seen = Seen::new();
        let mut reached = HashMap::new();
        fleet::each(
            self.hosts(),
            forks,
            |host| {
                let (hosts, catalog) = (Arc::clone(hosts), Arc::clone(catalog));
                let keep = soon.contains(&host);
                async move {
                    let reached = C::open(&hosts, &host, &catalog, &[]).await?;
                    let facts = Arc::clone(reached.facts());
                    if keep {
                        return Ok((facts, Some(reached)));
                    }
                    reached.leave().await;
                    Ok((facts, None))
                }
            },
            |host, found| match found {
                Some(Ok((facts, kept))) => {
                    seen.insert(host.clone(), Ok(facts));
                    reached.extend(kept.map(|kept| (host, Ok(kept))));
                }
                Some(Err(problem)) => {
                    seen.insert(host.clone(), Err(why(&problem)));
                    if soon.contains(&host) {
                        reached.insert(host, Err(problem));
                    }
                }
                None => {
                    seen.insert(host, Err("looking at it broke off".to_owned()));
                }
            },
        )
        .await;
        let shares = self.shares(&hosts.desired, &seen, catalog);
        Shares {
            reached: Mutex::new(reached),
            ..shares
        }
    }
}

fn why(problem: &HostProblem) -> String {
    match problem {
        HostProblem::Unreachable(unreachable) => format!("it is unreachable: {unreachable}"),
        HostProblem::Failed { chain, .. } => chain.join(": "),
        HostProblem::Refused(problems) => problems.to_string(),
        HostProblem::NotBegun(why) => why.clone(),
    }
}

impl Pool {
    fn shares(
        &self,
        wanted: &Wanted,
        seen: &Seen,
        catalog: &Catalog,
    ) -> Result<Vec<Share>, Problems> {
        let mut members = Vec::new();
        let mut unseen = Vec::new();
        for host in &self.hosts {
            match (wanted.get(host), seen.get(host)) {
                (Some(desired), Some(Ok(facts))) => members.push(Member {
                    host: host.as_str(),
                    desired,
                    facts,
                }),
                (_, Some(Err(why))) => unseen.push(format!("{host} ({why})")),
                _ => unseen.push(format!("{host} (it was not looked at)")),
            }
        }
        if unseen.is_empty() {
            return strategy::share(&self.group, &members, catalog);
        }
        let message = format!(
            "the `request` of group `{}` cannot be spread: what slices these of its hosts have now is not known: {}",
            self.group.value,
            unseen.join(", ")
        );
        let hint = "bring them back and run again; or give a host of its own variables `containers_gpu_slicing: {enabled: false}`, or take it out of the group, and the others get its share";
        Err(self
            .group
            .blame(Diagnostic::error(message).hint(hint))
            .into())
    }

    /// Which host gets what, if any of them does not have just that.
    fn note(&self, shares: &[Share]) -> Option<String> {
        let changes = self.hosts.iter().zip(shares);
        let changes = changes.filter(|(_, share)| !share.is_there());
        let lines: Vec<String> = changes
            .map(|(host, share)| {
                let left_out = match self.left_out.contains(host) {
                    true => ", and is left out by --limit",
                    false => "",
                };
                format!("  {host} gets {}{left_out}", share.spelled())
            })
            .collect();
        if lines.is_empty() {
            return None;
        }
        let settled = match self.hosts.len() - lines.len() {
            0 => String::new(),
            1 => "\n  1 host stays as it is".to_owned(),
            count => format!("\n  {count} hosts stay as they are"),
        };
        Some(format!(
            "request of group `{}`, where most can stay as it is:\n{}{settled}",
            self.group.value,
            lines.join("\n")
        ))
    }

    /// Each host's share, with what its plan says of it.
    fn told(&self, shares: Vec<Share>) -> impl Iterator<Item = (HostName, Share)> + use<> {
        let group = self.group.value.clone();
        let later: Vec<&str> = (self.hosts.iter().zip(&shares))
            .filter(|(host, share)| self.left_out.contains(*host) && !share.is_there())
            .map(|(host, _)| host.as_str())
            .collect();
        let count = match self.hosts.len() {
            1 => "its one host".to_owned(),
            count => format!("its {count} hosts"),
        };
        let ends = match later.is_empty() {
            true => String::new(),
            false => format!(
                "; the group has its totals only when {} {} applied too, which --limit leaves out",
                later.join(", "),
                if later.len() == 1 { "is" } else { "are" }
            ),
        };
        let told = self.hosts.clone().into_iter().zip(shares);
        told.map(move |(host, mut share)| {
            if !share.is_there() {
                share.note = Some(format!(
                    "group `{group}` spreads its request over {count} so that most can stay as it is, and this host gets {}{ends}",
                    share.spelled()
                ));
            }
            (host, share)
        })
    }
}

impl<C> Shares<C> {
    /// The share of a host; none if it shares nothing.
    ///
    /// # Errors
    /// What keeps the totals of its group from being spread.
    pub(super) fn of(&self, host: &HostName) -> Result<Option<&Share>, Problems> {
        match self.of.get(host) {
            None => Ok(None),
            Some(Ok(share)) => Ok(Some(share)),
            Some(Err(problems)) => Err(problems.clone()),
        }
    }

    /// The connection to a host that was looked at, once.
    pub(super) fn take(&self, host: &HostName) -> Option<Result<C, HostProblem>> {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.remove(host)
    }
}

//! Hosts and groups while sources are read, and the rules that put them in order.
//!
//! Follows ansible-core's `inventory/data.py` and `group.py`: `all` and
//! `ungrouped` always exist, a top group becomes a child of `all`, a host of
//! another group leaves `ungrouped`, a group that contains itself is an error.
//! Hosts and groups are numbers here; nothing is ever removed, so that they stay.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::source::From;
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{Node, Value, Vars};

/// Number of a host in the order in which hosts were first mentioned.
pub(super) type HostId = usize;
/// Number of a group in the order in which groups were first mentioned.
pub(super) type GroupId = usize;

/// The group that holds every host.
pub(super) const ALL: GroupId = 0;
/// The group of hosts that are in no other one.
pub(super) const UNGROUPED: GroupId = 1;

/// A host as the sources tell of it.
#[derive(Debug)]
pub(super) struct RawHost {
    pub(super) vars: Vars,
    pub(super) from: Arc<From>,
    pub(super) origin: Origin,
    pub(super) groups: Vec<GroupId>,
}

/// A group as the sources tell of it.
#[derive(Debug)]
pub(super) struct RawGroup {
    pub(super) vars: Vars,
    pub(super) priority: i64,
    pub(super) hosts: IndexSet<HostId>,
    pub(super) children: IndexSet<GroupId>,
    pub(super) parents: Vec<GroupId>,
    pub(super) origin: Option<Origin>,
}

/// All hosts and groups.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) hosts: IndexMap<Arc<str>, RawHost>,
    pub(super) groups: IndexMap<Arc<str>, RawGroup>,
}

impl Graph {
    pub(super) fn new() -> Self {
        let mut graph = Self {
            hosts: IndexMap::new(),
            groups: IndexMap::new(),
        };
        graph.group("all", None);
        graph.group("ungrouped", None);
        graph.link(ALL, UNGROUPED);
        graph
    }

    /// The group of that name, made if it is new.
    pub(super) fn group(&mut self, name: &str, origin: Option<&Origin>) -> GroupId {
        if let Some(id) = self.groups.get_index_of(name) {
            let known = &mut self.groups[id].origin;
            if known.is_none() {
                *known = origin.cloned();
            }
            return id;
        }
        let group = RawGroup {
            vars: Vars::new(),
            priority: 1,
            hosts: IndexSet::new(),
            children: IndexSet::new(),
            parents: Vec::new(),
            origin: origin.cloned(),
        };
        self.groups.insert_full(Arc::from(name), group).0
    }

    /// Puts a host into a group; it is made if it is new, and only then the
    /// port of its key counts, as in Ansible.
    pub(super) fn host(
        &mut self,
        name: &str,
        port: Option<u32>,
        group: GroupId,
        from: &Arc<From>,
        origin: &Origin,
    ) -> HostId {
        let id = self.hosts.get_index_of(name).unwrap_or_else(|| {
            let mut vars = Vars::new();
            if let Some(port) = port {
                let port = Node::new(Value::Int(i64::from(port)), origin.clone());
                vars.insert("ansible_port".to_owned(), port);
            }
            let host = RawHost {
                vars,
                from: Arc::clone(from),
                origin: origin.clone(),
                groups: Vec::new(),
            };
            self.hosts.insert_full(Arc::from(name), host).0
        });
        if self.groups[group].hosts.insert(id) {
            self.hosts[id].groups.push(group);
        }
        id
    }

    /// Makes `child` a child of `parent`.
    pub(super) fn child(
        &mut self,
        parent: GroupId,
        child: GroupId,
        origin: &Origin,
    ) -> Result<(), Diagnostic> {
        if parent == child || self.ancestors(parent).contains(&child) {
            let problem = Diagnostic::error(format!(
                "the group `{}` cannot be a child of `{}`, because it contains it",
                self.group_name(child),
                self.group_name(parent)
            ));
            return Err(problem.at(origin));
        }
        self.link(parent, child);
        Ok(())
    }

    fn link(&mut self, parent: GroupId, child: GroupId) {
        if self.groups[parent].children.insert(child) {
            self.groups[child].parents.push(parent);
        }
    }

    /// Sets a variable of a group. `ansible_group_priority` is no variable but
    /// the group's place among its equals.
    pub(super) fn set_group_var(
        &mut self,
        id: GroupId,
        name: &str,
        node: Node,
    ) -> Result<(), Diagnostic> {
        if name != "ansible_group_priority" {
            self.groups[id].vars.insert(name.to_owned(), node);
            return Ok(());
        }
        match priority(&node) {
            Some(priority) => {
                self.groups[id].priority = priority;
                Ok(())
            }
            None => {
                let problem = format!(
                    "`ansible_group_priority` is an integer, and this is {}",
                    node.kind()
                );
                Err(Diagnostic::error(problem).at(&node.origin))
            }
        }
    }

    /// Sets a variable of a host. Where a group has the host's name, Ansible
    /// gives the variable to the group; inventories rely on either.
    pub(super) fn set_host_var(
        &mut self,
        id: HostId,
        name: &str,
        node: Node,
    ) -> Result<(), Diagnostic> {
        let host = self.hosts.get_index(id).map(|(host, _)| Arc::clone(host));
        match host.and_then(|host| self.groups.get_index_of(&*host)) {
            Some(group) => self.set_group_var(group, name, node),
            None => {
                self.hosts[id].vars.insert(name.to_owned(), node);
                Ok(())
            }
        }
    }

    /// Applies the rules that hold once everything was read.
    pub(super) fn reconcile(&mut self) -> Problems {
        let tops: Vec<GroupId> = (0..self.groups.len())
            .filter(|id| *id != ALL && self.groups[*id].parents.is_empty())
            .collect();
        for id in tops {
            self.link(ALL, id);
        }
        for id in 0..self.hosts.len() {
            let mut all: HashSet<GroupId> = HashSet::new();
            for group in &self.hosts[id].groups {
                all.insert(*group);
                all.extend(self.ancestors(*group));
            }
            let elsewhere = all.iter().any(|group| *group != ALL && *group != UNGROUPED);
            if elsewhere {
                self.groups[UNGROUPED].hosts.shift_remove(&id);
                self.hosts[id].groups.retain(|group| *group != UNGROUPED);
            } else if self.groups[UNGROUPED].hosts.insert(id) {
                self.hosts[id].groups.push(UNGROUPED);
            }
        }
        self.clashes()
    }

    fn clashes(&self) -> Problems {
        let mut problems = Problems::default();
        for (name, host) in &self.hosts {
            if let Some(group) = self.groups.get(name) {
                let problem =
                    Diagnostic::warning(format!("`{name}` is the name of a host and of a group"))
                        .at(&host.origin);
                problems.push(match &group.origin {
                    Some(origin) => problem.related(origin, "the group"),
                    None => problem,
                });
            }
        }
        problems
    }

    /// All groups above `id`, each once.
    pub(super) fn ancestors(&self, id: GroupId) -> IndexSet<GroupId> {
        let mut found: IndexSet<GroupId> = self.groups[id].parents.iter().copied().collect();
        let mut at = 0;
        while let Some(next) = found.get_index(at).copied() {
            found.extend(self.groups[next].parents.iter().copied());
            at += 1;
        }
        found
    }

    /// The longest way from `all` to each group.
    pub(super) fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.groups.len()];
        let mut missing: Vec<usize> = self
            .groups
            .values()
            .map(|group| group.parents.len())
            .collect();
        let mut ready: Vec<GroupId> = (0..missing.len()).filter(|id| missing[*id] == 0).collect();
        while let Some(id) = ready.pop() {
            for child in &self.groups[id].children {
                depths[*child] = depths[*child].max(depths[id] + 1);
                missing[*child] -= 1;
                if missing[*child] == 0 {
                    ready.push(*child);
                }
            }
        }
        depths
    }

    fn group_name(&self, id: GroupId) -> &str {
        self.groups.get_index(id).map_or("", |(name, _)| name)
    }
}

// As Python's int(): texts of digits count, fractions are cut off.
fn priority(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Int(number) => Some(*number),
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Str(text) => text.trim().parse().ok(),
        #[expect(clippy::cast_possible_truncation, reason = "as Python's int() does")]
        Value::Float(number) if number.is_finite() => Some(*number as i64),
        _ => None,
    }
}

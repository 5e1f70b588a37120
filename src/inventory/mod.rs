//! Ansible inventories: hosts, groups, variables, and where each value came from.
//!
//! `load` reads all sources and reports all that is wrong with them at once;
//! what it returns is pure data. Variables are merged when a host is asked for:
//! hosts that are in the same groups share what the groups give them. This room
//! knows nothing of connections, playbooks or GPUs.

mod extra_vars;
mod graph;
mod named_files;
mod pattern;
mod range;
pub mod shard;
mod source;
mod var_files;
mod vars;
mod yaml_source;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use indexmap::{IndexMap, IndexSet};

use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{HostName, Loaded, Vars};
use graph::{ALL, Graph, GroupId, HostId};
use var_files::{Kind, VarFiles};

pub use extra_vars::parse as parse_extra_vars;
pub use vars::{Layer, Level};

/// Names that mean this machine, even if no inventory has them.
pub const LOCALHOST: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// All hosts and groups with their variables.
#[derive(Debug)]
pub struct Inventory {
    hosts: IndexMap<HostName, Host>,
    groups: IndexMap<Arc<str>, Group>,
    sets: Vec<GroupSet>,
    extra: Arc<Vars>,
    // The hosts in the order in which plays take them.
    order: Vec<HostId>,
    groups_var: OnceLock<Arc<serde_json::Value>>,
}

/// A host of the inventory.
#[derive(Debug)]
struct Host {
    origin: Origin,
    from: Arc<source::From>,
    set: usize,
    inline: Arc<Vars>,
    // From `host_vars/`, beside the inventories and then beside the playbook.
    files: Vec<Arc<Vars>>,
}

/// A group of the inventory.
#[derive(Debug)]
struct Group {
    depth: usize,
    priority: i64,
    hosts: Vec<HostId>,
    children: Vec<GroupId>,
    inline: Arc<Vars>,
    // From `group_vars/` beside each source, by the source's number.
    inventory_files: Vec<(usize, Arc<Vars>)>,
    playbook_files: Vec<Arc<Vars>>,
    members: OnceLock<Vec<HostId>>,
}

/// A set of groups that some hosts share, without `all`, weakest first.
#[derive(Debug)]
struct GroupSet {
    groups: Vec<GroupId>,
    merged: OnceLock<Arc<Vars>>,
}

/// Reads all sources in order, the variable files beside them and beside the
/// playbook, and the extra variables.
#[must_use]
pub fn load(
    sources: &[PathBuf],
    playbook_dir: Option<&Path>,
    extra: &[String],
) -> Loaded<Inventory> {
    let mut problems = Problems::default();
    let mut graph = Graph::new();
    for path in sources {
        source::read(path, &mut graph, &mut problems);
    }
    problems.extend(graph.reconcile());
    let (extra, found) = extra_vars::parse(extra);
    problems.extend(found);
    let mut inventory = Inventory::from_graph(graph, extra);
    problems.extend(inventory.read_var_files(sources, playbook_dir));
    problems.extend(inventory.read_named_files());
    if inventory.hosts.is_empty() && !problems.has_errors() {
        let shown: Vec<String> = sources
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        problems.push(Diagnostic::warning(format!(
            "there is no host in {}",
            shown.join(", ")
        )));
    }
    (inventory, problems)
}

impl Inventory {
    fn from_graph(graph: Graph, extra: Vars) -> Self {
        let depths = graph.depths();
        let above: Vec<IndexSet<GroupId>> = (0..graph.groups.len())
            .map(|id| graph.ancestors(id))
            .collect();
        let groups: IndexMap<Arc<str>, Group> = graph
            .groups
            .into_iter()
            .zip(depths)
            .map(|((name, raw), depth)| {
                let group = Group {
                    depth,
                    priority: raw.priority,
                    hosts: raw.hosts.into_iter().collect(),
                    children: raw.children.into_iter().collect(),
                    inline: Arc::new(raw.vars),
                    inventory_files: Vec::new(),
                    playbook_files: Vec::new(),
                    members: OnceLock::new(),
                };
                (name, group)
            })
            .collect();
        let mut sets = GroupSets::new();
        let hosts = graph
            .hosts
            .into_iter()
            .map(|(name, raw)| {
                let host = Host {
                    set: sets.of(&raw.groups, &above, &groups),
                    origin: raw.origin,
                    from: raw.from,
                    inline: Arc::new(raw.vars),
                    files: Vec::new(),
                };
                (HostName(name), host)
            })
            .collect();
        let mut inventory = Self {
            hosts,
            groups,
            sets: sets.sets,
            extra: Arc::new(extra),
            order: Vec::new(),
            groups_var: OnceLock::new(),
        };
        inventory.order = inventory.members(ALL).to_vec();
        inventory
    }

    fn read_var_files(&mut self, sources: &[PathBuf], playbook_dir: Option<&Path>) -> Problems {
        let mut problems = Problems::default();
        let mut files = VarFiles::default();
        let dirs: Vec<(usize, PathBuf)> = sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source::host_list(source).is_none() && source.exists())
            .map(|(index, source)| (index, directory_of(source)))
            .collect();
        for (name, group) in &mut self.groups {
            for (index, dir) in &dirs {
                let found = files.find(dir, Kind::Group, name, &mut problems);
                group
                    .inventory_files
                    .extend(found.into_iter().map(|vars| (*index, vars)));
            }
            if let Some(dir) = playbook_dir {
                group.playbook_files = files.find(dir, Kind::Group, name, &mut problems);
            }
        }
        for (name, host) in &mut self.hosts {
            for dir in dirs
                .iter()
                .map(|(_, dir)| dir.as_path())
                .chain(playbook_dir)
            {
                host.files
                    .extend(files.find(dir, Kind::Host, name.as_str(), &mut problems));
            }
        }
        let groups: Vec<&str> = self.groups.keys().map(|name| &**name).collect();
        let hosts: Vec<&str> = self.hosts.keys().map(HostName::as_str).collect();
        problems.extend(files.doubts(&groups, &hosts));
        problems
    }

    /// All hosts, in the order in which a play on `all` takes them.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.order
            .iter()
            .filter_map(|id| self.hosts.get_index(*id))
            .map(|(name, _)| name)
    }

    /// The extra variables, which beat all others.
    #[must_use]
    pub fn extra(&self) -> &Vars {
        &self.extra
    }

    /// How many hosts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is no host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether the inventory has that host.
    #[must_use]
    pub fn contains(&self, host: &HostName) -> bool {
        self.hosts.contains_key(host)
    }

    /// Where the host is first mentioned.
    #[must_use]
    pub fn origin_of(&self, host: &HostName) -> Option<&Origin> {
        self.hosts.get(host).map(|host| &host.origin)
    }

    /// The names of all groups, in the order in which they are first mentioned.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|name| &**name)
    }

    /// The groups right below a group, in written order; nothing for an unknown one.
    pub fn children_of(&self, group: &str) -> impl Iterator<Item = &str> {
        let children = self
            .groups
            .get(group)
            .map_or(&[][..], |group| &group.children);
        children
            .iter()
            .filter_map(|id| self.groups.get_index(*id))
            .map(|(name, _)| &**name)
    }

    /// The hosts that a group itself names, without those of the groups below it.
    pub fn own_hosts_of(&self, group: &str) -> impl Iterator<Item = &HostName> {
        let hosts = self.groups.get(group).map_or(&[][..], |group| &group.hosts);
        hosts
            .iter()
            .filter_map(|id| self.hosts.get_index(*id))
            .map(|(name, _)| name)
    }

    /// All hosts of a group and of the groups below it; nothing for an unknown one.
    pub fn hosts_of(&self, group: &str) -> impl Iterator<Item = &HostName> {
        let members = self
            .groups
            .get_index_of(group)
            .map_or(&[][..], |id| self.members(id));
        members
            .iter()
            .filter_map(|id| self.hosts.get_index(*id))
            .map(|(name, _)| name)
    }

    /// The names of all groups that hold the host, sorted, without `all`.
    #[must_use]
    pub fn groups_of(&self, host: &HostName) -> Vec<&str> {
        let set = self.hosts.get(host).map_or(0, |host| host.set);
        let mut names: Vec<&str> = self.sets[set]
            .groups
            .iter()
            .map(|id| self.group_name(*id))
            .collect();
        names.sort_unstable();
        names
    }

    /// The magic variable `groups`: each group with the names of all its hosts.
    /// It is the same for every host, and large, so it is no part of `vars_of`.
    #[must_use]
    pub fn groups_var(&self) -> Arc<serde_json::Value> {
        let made = self.groups_var.get_or_init(|| {
            let all = (0..self.groups.len()).map(|id| {
                let hosts = self
                    .members(id)
                    .iter()
                    .filter_map(|id| self.hosts.get_index(*id));
                let names = hosts.map(|(name, _)| name.as_str().into()).collect();
                (
                    self.group_name(id).to_owned(),
                    serde_json::Value::Array(names),
                )
            });
            Arc::new(serde_json::Value::Object(all.collect()))
        });
        Arc::clone(made)
    }

    fn group_name(&self, id: GroupId) -> &str {
        self.groups.get_index(id).map_or("", |(name, _)| name)
    }

    // The hosts of a group: its own, then those of the groups below, level by level.
    fn members(&self, id: GroupId) -> &[HostId] {
        self.groups[id].members.get_or_init(|| {
            let mut groups: IndexSet<GroupId> = IndexSet::from([id]);
            let mut at = 0;
            while let Some(next) = groups.get_index(at).copied() {
                groups.extend(self.groups[next].children.iter().copied());
                at += 1;
            }
            let hosts: IndexSet<HostId> = groups
                .iter()
                .flat_map(|group| self.groups[*group].hosts.iter().copied())
                .collect();
            hosts.into_iter().collect()
        })
    }
}

// The directory whose `group_vars/` belong to a source.
fn directory_of(source: &Path) -> PathBuf {
    if source.is_dir() {
        return source.to_path_buf();
    }
    source.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The sets of groups that occur; the first one has no group.
struct GroupSets {
    sets: Vec<GroupSet>,
    known: HashMap<Vec<GroupId>, usize>,
}

impl GroupSets {
    fn new() -> Self {
        let mut sets = Self {
            sets: Vec::new(),
            known: HashMap::new(),
        };
        sets.intern(Vec::new());
        sets
    }

    // The set of a host that is named by `direct`: they and all above them, in
    // the order in which their variables are merged.
    fn of(
        &mut self,
        direct: &[GroupId],
        above: &[IndexSet<GroupId>],
        groups: &IndexMap<Arc<str>, Group>,
    ) -> usize {
        let all: IndexSet<GroupId> = direct
            .iter()
            .flat_map(|id| std::iter::once(*id).chain(above[*id].iter().copied()))
            .filter(|id| *id != ALL)
            .collect();
        let mut ids: Vec<GroupId> = all.into_iter().collect();
        ids.sort_by_key(|id| {
            groups
                .get_index(*id)
                .map(|(name, group)| (group.depth, group.priority, Arc::clone(name)))
        });
        self.intern(ids)
    }

    fn intern(&mut self, ids: Vec<GroupId>) -> usize {
        if let Some(at) = self.known.get(&ids) {
            return *at;
        }
        let at = self.sets.len();
        self.sets.push(GroupSet {
            groups: ids.clone(),
            merged: OnceLock::new(),
        });
        self.known.insert(ids, at);
        at
    }
}

//! Which variable wins, and what it won over.
//!
//! The order is ansible-core's `VARIABLE_PRECEDENCE`: what the sources give to
//! `all`, then to other groups; then `group_vars/` of `all` beside the
//! inventory and beside the playbook, then those of other groups; then the host
//! itself, its `host_vars/`, the extra variables, and the magic ones. A value
//! replaces the weaker one whole, mappings and lists too.

use std::fmt;
use std::sync::Arc;

use super::graph::ALL;
use super::{Host, Inventory, LOCALHOST, range};
use crate::error::Origin;
use crate::value::{HostName, Node, Value, Vars};

/// Who gives a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// `vars:` of a group in an inventory.
    Group(Arc<str>),
    /// `group_vars/` beside an inventory.
    InventoryGroupVars(Arc<str>),
    /// `group_vars/` beside the playbook.
    PlaybookGroupVars(Arc<str>),
    /// The host's entry in an inventory.
    Host,
    /// `host_vars/`.
    HostVars,
    /// `--extra-vars`.
    Extra,
    /// Made by the tool itself: `inventory_hostname` and its like.
    Magic,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "group {group}"),
            Self::InventoryGroupVars(group) => write!(f, "group_vars of {group}"),
            Self::PlaybookGroupVars(group) => write!(f, "playbook group_vars of {group}"),
            Self::Host => f.write_str("host"),
            Self::HostVars => f.write_str("host_vars"),
            Self::Extra => f.write_str("extra vars"),
            Self::Magic => f.write_str("magic"),
        }
    }
}

/// The variables that one giver gives.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Who gives them.
    pub level: Level,
    /// The variables.
    pub vars: Arc<Vars>,
}

impl Inventory {
    /// The variables of a host, merged: those of its groups, its own, the extra
    /// ones, and the magic ones but `groups` (see `groups_var`). An unknown name
    /// has the variables of `all`; `localhost` is also connected to locally.
    #[must_use]
    pub fn vars_of(&self, host: &HostName) -> Vars {
        let set = self.hosts.get(host).map_or(0, |host| host.set);
        let shared = self.sets[set].merged.get_or_init(|| {
            let mut merged = Vars::new();
            for layer in self.group_layers(set) {
                overlay(&mut merged, &layer.vars);
            }
            Arc::new(merged)
        });
        let mut vars = Vars::clone(shared);
        for layer in self.host_layers(host) {
            overlay(&mut vars, &layer.vars);
        }
        vars
    }

    /// All givers of variables of a host, the weakest first. What `vars_of`
    /// says of a variable is what the last layer that has it says.
    #[must_use]
    pub fn layers_of(&self, host: &HostName) -> Vec<Layer> {
        let set = self.hosts.get(host).map_or(0, |host| host.set);
        let mut layers = self.group_layers(set);
        layers.extend(self.host_layers(host));
        layers
    }

    /// The variables of a group itself: of its entries and of its `group_vars/`
    /// beside the inventory and beside the playbook.
    #[must_use]
    pub fn group_vars(&self, group: &str) -> Vars {
        let mut vars = Vars::new();
        let Some(id) = self.groups.get_index_of(group) else {
            return vars;
        };
        let found = &self.groups[id];
        overlay(&mut vars, &found.inline);
        let files = found.inventory_files.iter().map(|(_, vars)| vars);
        for file in files.chain(&found.playbook_files) {
            overlay(&mut vars, file);
        }
        vars
    }

    /// The place of a group among those of its depth; 1 unless it is set.
    #[must_use]
    pub fn group_priority(&self, group: &str) -> i64 {
        self.groups.get(group).map_or(1, |group| group.priority)
    }

    fn group_layers(&self, set: usize) -> Vec<Layer> {
        let groups = &self.sets[set].groups;
        let name = |id: usize| {
            self.groups
                .get_index(id)
                .map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name))
        };
        let mut layers = Vec::new();
        let mut add = |level: Level, vars: &Arc<Vars>| {
            if !vars.is_empty() {
                let vars = Arc::clone(vars);
                layers.push(Layer { level, vars });
            }
        };
        for id in std::iter::once(&ALL).chain(groups) {
            add(Level::Group(name(*id)), &self.groups[*id].inline);
        }
        // Source by source, and in a source group by group: a later source's
        // weak group beats an earlier one's strong group.
        for ids in [&[ALL][..], groups] {
            let sources = ids.iter().flat_map(|id| {
                self.groups[*id]
                    .inventory_files
                    .iter()
                    .map(|(source, _)| *source)
            });
            for source in sources.collect::<std::collections::BTreeSet<usize>>() {
                for id in ids {
                    for (_, vars) in self.groups[*id]
                        .inventory_files
                        .iter()
                        .filter(|(at, _)| *at == source)
                    {
                        add(Level::InventoryGroupVars(name(*id)), vars);
                    }
                }
            }
            for id in ids {
                for vars in &self.groups[*id].playbook_files {
                    add(Level::PlaybookGroupVars(name(*id)), vars);
                }
            }
        }
        layers
    }

    fn host_layers(&self, name: &HostName) -> Vec<Layer> {
        let extra = Layer {
            level: Level::Extra,
            vars: Arc::clone(&self.extra),
        };
        let Some(host) = self.hosts.get(name) else {
            return vec![self.implicit(name), extra, self.magic(name, None)];
        };
        let inline = Layer {
            level: Level::Host,
            vars: Arc::clone(&host.inline),
        };
        let files = host.files.iter().map(|vars| Layer {
            level: Level::HostVars,
            vars: Arc::clone(vars),
        });
        std::iter::once(inline)
            .chain(files)
            .chain([extra, self.magic(name, Some(host))])
            .filter(|layer| !layer.vars.is_empty())
            .collect()
    }

    // What a host that no inventory mentions is given.
    fn implicit(&self, name: &HostName) -> Layer {
        let mut vars = Vars::new();
        if LOCALHOST.contains(&name.as_str()) {
            let origin = Origin::whole("localhost", "");
            let local = Node::new(Value::Str("local".to_owned()), origin);
            vars.insert("ansible_connection".to_owned(), local);
        }
        Layer {
            level: Level::Host,
            vars: Arc::new(vars),
        }
    }

    fn magic(&self, name: &HostName, host: Option<&Host>) -> Layer {
        let origin = host.map_or_else(
            || Origin::whole(name.as_str(), ""),
            |host| host.origin.clone(),
        );
        let text = |text: &str| Node::new(Value::Str(text.to_owned()), origin.clone());
        let groups = self.groups_of(name).into_iter().map(&text).collect();
        let mut vars = Vars::new();
        vars.insert("inventory_hostname".to_owned(), text(name.as_str()));
        vars.insert(
            "inventory_hostname_short".to_owned(),
            text(short(name.as_str())),
        );
        vars.insert(
            "group_names".to_owned(),
            Node::new(Value::Seq(groups), origin.clone()),
        );
        if let Some(host) = host {
            vars.insert(
                "inventory_file".to_owned(),
                text(&host.from.file.to_string_lossy()),
            );
            vars.insert(
                "inventory_dir".to_owned(),
                text(&host.from.dir.to_string_lossy()),
            );
        }
        Layer {
            level: Level::Magic,
            vars: Arc::new(vars),
        }
    }
}

fn short(name: &str) -> &str {
    if range::is_ip(name) {
        return name;
    }
    name.split('.').next().unwrap_or(name)
}

fn overlay(onto: &mut Vars, vars: &Vars) {
    for (name, node) in vars {
        onto.insert(name.clone(), node.clone());
    }
}

//! `deploy inventory list|graph|host`: what the inventory says, and where.
//!
//! The JSON of `list` and the tree of `graph` are those of `ansible-inventory`;
//! the rest adds what it does not tell: which file and line a value comes from,
//! and which values it won over. Pure: text or JSON out of a loaded inventory.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use crate::inventory::{Inventory, Layer, Level};
use crate::text::{printable, printable_line};
use crate::value::{HostName, Node, Tag, Value, Vars};

/// Names that `ansible-inventory` never shows: ansible-core's `INTERNAL_STATIC_VARS`.
const INTERNAL: [&str; 33] = [
    "ansible_async_path",
    "ansible_collection_name",
    "ansible_config_file",
    "ansible_dependent_role_names",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_forks",
    "ansible_inventory_sources",
    "ansible_limit",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_role_names",
    "ansible_playbook_python",
    "ansible_role_name",
    "ansible_role_names",
    "ansible_run_tags",
    "ansible_skip_tags",
    "ansible_verbosity",
    "ansible_version",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "play_hosts",
    "playbook_dir",
    "role_name",
    "role_names",
    "role_path",
    "role_uuid",
];

/// Longest value that is shown in a line of text, in characters.
const MAX_SHOWN: usize = 400;

/// Whether a graph shows variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphVars {
    /// Groups and hosts only.
    Hidden,
    /// Each with its variables.
    Shown,
}

/// What `ansible-inventory --list` prints, less the name of its encoder.
#[must_use]
pub fn list_json(inventory: &Inventory, selected: &[HostName]) -> Json {
    let chosen: HashSet<&HostName> = selected.iter().collect();
    let mut hostvars = Map::new();
    for host in selected {
        let vars = shown_vars(inventory, host);
        if !vars.is_empty() {
            hostvars.insert(host.to_string(), vars_json(&vars));
        }
    }
    let mut list = Map::new();
    list.insert(
        "_meta".to_owned(),
        json!({ "hostvars": sorted(Json::Object(hostvars)) }),
    );
    let mut groups: Vec<&str> = inventory.groups().collect();
    groups.sort_unstable();
    for group in groups {
        let mut entry = Map::new();
        let children: Vec<&str> = inventory.children_of(group).collect();
        if !children.is_empty() {
            entry.insert("children".to_owned(), json!(children));
        }
        let hosts: Vec<&str> = inventory
            .own_hosts_of(group)
            .filter(|host| chosen.contains(host))
            .map(HostName::as_str)
            .collect();
        if group != "all" && !hosts.is_empty() {
            entry.insert("hosts".to_owned(), json!(hosts));
        }
        if !entry.is_empty() {
            list.insert(group.to_owned(), Json::Object(entry));
        }
    }
    Json::Object(list)
}

/// The selected hosts as a table: name, groups, address.
#[must_use]
pub fn list_text(inventory: &Inventory, selected: &[HostName]) -> String {
    let mut rows = vec![["HOST".to_owned(), "GROUPS".to_owned(), "ADDRESS".to_owned()]];
    for host in selected {
        let groups: Vec<String> = inventory
            .groups_of(host)
            .into_iter()
            .map(|group| printable_line(group, MAX_SHOWN))
            .collect();
        let vars = inventory.vars_of(host);
        rows.push([
            printable_line(host.as_str(), MAX_SHOWN),
            groups.join(", "),
            address(host, &vars),
        ]);
    }
    table(&rows)
}

// Where the host would be reached, as far as the inventory tells. Of several
// names Ansible takes the last.
fn address(host: &HostName, vars: &Vars) -> String {
    let text = |names: [&str; 2]| {
        names
            .iter()
            .rev()
            .find_map(|name| vars.get(*name))
            .map(shown)
    };
    match text(["ansible_connection", "ansible_connection"]).as_deref() {
        Some("local") => return "local".to_owned(),
        Some("sim") => return "simulated".to_owned(),
        _ => {}
    }
    let name = text(["ansible_host", "ansible_ssh_host"]);
    let name = name.unwrap_or_else(|| printable_line(host.as_str(), MAX_SHOWN));
    match text(["ansible_port", "ansible_ssh_port"]) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

/// The tree that `ansible-inventory --graph GROUP` prints; nothing for an unknown group.
#[must_use]
pub fn graph(inventory: &Inventory, group: &str, vars: GraphVars) -> Option<String> {
    enum Item<'a> {
        Group(&'a str, usize),
        Host(&'a HostName, usize),
        Vars(Vec<String>, usize),
    }
    let start = inventory.groups().find(|name| *name == group)?;
    let mut lines = Vec::new();
    // A stack of what is still to be written, the next on top.
    let mut items = vec![Item::Group(start, 0)];
    while let Some(item) = items.pop() {
        match item {
            Item::Group(name, depth) => {
                lines.push(branch(
                    &format!("@{}:", printable_line(name, MAX_SHOWN)),
                    depth,
                ));
                let depth = depth + 1;
                if vars == GraphVars::Shown {
                    items.push(Item::Vars(var_lines(&group_vars(inventory, name)), depth));
                }
                let from = items.len();
                items.extend(
                    inventory
                        .children_of(name)
                        .map(|child| Item::Group(child, depth)),
                );
                if name != "all" {
                    items.extend(
                        inventory
                            .own_hosts_of(name)
                            .map(|host| Item::Host(host, depth)),
                    );
                }
                items[from..].reverse();
            }
            Item::Host(host, depth) => {
                lines.push(branch(&printable_line(host.as_str(), MAX_SHOWN), depth));
                if vars == GraphVars::Shown {
                    items.push(Item::Vars(
                        var_lines(&shown_vars(inventory, host)),
                        depth + 1,
                    ));
                }
            }
            Item::Vars(vars, depth) => lines.extend(vars.iter().map(|line| branch(line, depth))),
        }
    }
    lines.push(String::new());
    Some(lines.join("\n"))
}

fn branch(text: &str, depth: usize) -> String {
    if depth == 0 {
        return text.to_owned();
    }
    format!("{}--{text}", "  |".repeat(depth))
}

fn group_vars(inventory: &Inventory, group: &str) -> Vars {
    let mut vars = inventory.group_vars(group);
    vars.retain(|name, _| !INTERNAL.contains(&name.as_str()));
    let priority = inventory.group_priority(group);
    if priority != 1 {
        let origin = crate::error::Origin::whole(group, "");
        vars.insert(
            "ansible_group_priority".to_owned(),
            Node::new(Value::Int(priority), origin),
        );
    }
    vars
}

fn var_lines(vars: &Vars) -> Vec<String> {
    let mut names: Vec<(&String, &Node)> = vars.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    names
        .into_iter()
        .map(|(name, node)| {
            printable(
                &format!("{{{name} = {}}}", python(node, Quotes::Bare)),
                4000,
            )
        })
        .collect()
}

/// The variables of a host as `ansible-inventory --host` prints them; `_meta`
/// adds its groups and where each variable comes from.
#[must_use]
pub fn host_json(inventory: &Inventory, host: &HostName) -> Json {
    let vars = shown_vars(inventory, host);
    let layers = inventory.layers_of(host);
    let mut origins = Map::new();
    for name in vars.keys() {
        let mut givers = givers(&layers, name).map(|(level, node)| {
            json!({
                "from": level.to_string(),
                "path": node.origin.path().display().to_string(),
                "line": node.origin.line,
                "column": node.origin.column,
            })
        });
        let mut winner = givers.next().unwrap_or(Json::Null);
        let others: Vec<Json> = givers.collect();
        if let (Json::Object(winner), false) = (&mut winner, others.is_empty()) {
            winner.insert("overrides".to_owned(), Json::Array(others));
        }
        origins.insert(name.clone(), winner);
    }
    let mut object = vars_json(&vars);
    if let Json::Object(object) = &mut object {
        let meta = json!({ "groups": inventory.groups_of(host), "origins": sorted(Json::Object(origins)) });
        object.insert("_meta".to_owned(), meta);
    }
    object
}

/// One host for people: each variable with its place, and below it the values
/// that it won over.
#[must_use]
pub fn host_text(inventory: &Inventory, host: &HostName) -> String {
    let layers = inventory.layers_of(host);
    let vars = shown_vars(inventory, host);
    let mut names: Vec<&String> = vars.keys().collect();
    names.sort_unstable();
    let mut rows = Vec::new();
    for name in names {
        for (index, (level, node)) in givers(&layers, name).enumerate() {
            let value = if is_password(name) {
                "***".to_owned()
            } else {
                shown(node)
            };
            let place = printable_line(&format!("{} ({level})", node.origin), MAX_SHOWN);
            rows.push(if index == 0 {
                [printable_line(name, MAX_SHOWN), value, place]
            } else {
                ["  instead of".to_owned(), value, place]
            });
        }
    }
    let groups = inventory.groups_of(host).join(", ");
    let place = inventory
        .origin_of(host)
        .map(|origin| format!(", first named at {origin}"));
    let head = format!("{host}: in {groups}{}", place.unwrap_or_default());
    format!("{}\n{}", printable_line(&head, 4000), table(&rows))
}

// All that gives a variable, the one that counts first.
fn givers<'a>(layers: &'a [Layer], name: &'a str) -> impl Iterator<Item = (&'a Level, &'a Node)> {
    layers
        .iter()
        .rev()
        .filter_map(move |layer| layer.vars.get(name).map(|node| (&layer.level, node)))
}

fn shown_vars(inventory: &Inventory, host: &HostName) -> Vars {
    let mut vars = inventory.vars_of(host);
    vars.retain(|name, _| !INTERNAL.contains(&name.as_str()));
    vars
}

fn vars_json(vars: &Vars) -> Json {
    sorted(Json::Object(
        vars.iter()
            .map(|(name, node)| (name.clone(), node.to_json()))
            .collect(),
    ))
}

// `ansible-inventory` sorts the keys at every level.
fn sorted(json: Json) -> Json {
    match json {
        Json::Object(map) => {
            let mut entries: Vec<(String, Json)> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn is_password(name: &str) -> bool {
    ["_password", "_pass", "_passphrase", "_secret", "_token"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Str(text) if !text.is_empty() => printable_line(text, MAX_SHOWN),
        Value::Tagged(Tag::Vault, _) => "(encrypted)".to_owned(),
        Value::Tagged(Tag::Unsafe, text) => printable_line(text, MAX_SHOWN),
        _ => printable_line(&node.to_json().to_string(), MAX_SHOWN),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    // As Python's str(): a text is itself.
    Bare,
    // As Python's repr().
    Quoted,
}

// A value as Python prints it, which is how `--graph --vars` shows it.
fn python(node: &Node, quotes: Quotes) -> String {
    match &node.value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => crate::yaml::emit::python_float(*number),
        Value::Tagged(Tag::Vault, _) => "(encrypted)".to_owned(),
        Value::Str(text) | Value::Tagged(Tag::Unsafe, text) => match quotes {
            Quotes::Bare => text.clone(),
            Quotes::Quoted => python_string(text),
        },
        Value::Seq(nodes) => {
            let items: Vec<String> = nodes
                .iter()
                .map(|node| python(node, Quotes::Quoted))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(key, entry)| {
                    format!(
                        "{}: {}",
                        python_string(key),
                        python(&entry.node, Quotes::Quoted)
                    )
                })
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut written = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            '\r' => written.push_str("\\r"),
            '\\' => written.push_str("\\\\"),
            c if c == quote => {
                written.push('\\');
                written.push(c);
            }
            c => written.push(c),
        }
    }
    written.push(quote);
    written
}

// Columns of equal width, the last one as it is.
fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        // One long value must not push the places of all others out of sight.
        widths.filter(|width| *width <= 60).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [a, b, c] in rows {
        let line = format!("{a:<first$}  {b:<second$}  {c}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

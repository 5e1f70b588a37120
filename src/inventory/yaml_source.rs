//! An inventory file in Ansible's YAML form: groups with `hosts`, `vars` and
//! `children`.
//!
//! Ansible skips what it does not understand with a warning; here that is an
//! error with its place, because a skipped host is a host that is not managed.

use std::sync::Arc;

use super::graph::{Graph, GroupId};
use super::range;
use super::source::From;
use crate::error::{Diagnostic, Origin, Problems, nearest};
use crate::value::{Entry, Map, Node, Value};
use crate::yaml;

const SECTIONS: [&str; 3] = ["hosts", "vars", "children"];

/// Reads a whole file into the graph.
pub(super) fn read(root: &Node, from: &Arc<From>, graph: &mut Graph, problems: &mut Problems) {
    let Some(map) = root.as_map() else {
        let problem = format!(
            "an inventory is a mapping of groups, and this is {}",
            root.kind()
        );
        problems.push(Diagnostic::error(problem).at(&root.origin));
        return;
    };
    if let Some(plugin) = map
        .get("plugin")
        .filter(|entry| entry.node.as_str().is_some())
    {
        let path = root.origin.path().display();
        let problem =
            Diagnostic::error("this configures an inventory plugin, and those are not run yet")
                .at(&plugin.key);
        let hint = format!(
            "`ansible-inventory -i {path} --list --yaml` writes what it finds as YAML, which is read"
        );
        problems.push(problem.hint(hint));
        return;
    }
    let mut reader = Reader {
        from,
        graph,
        problems,
    };
    for (name, entry) in map {
        reader.group(name, entry);
    }
}

struct Reader<'a> {
    from: &'a Arc<From>,
    graph: &'a mut Graph,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn group(&mut self, name: &str, entry: &Entry) -> Option<GroupId> {
        if name.is_empty() || !yaml::key_is_text(&entry.key) {
            self.name_is_no_text("group", name, &entry.key);
            return None;
        }
        if !matches!(entry.node.value, Value::Null | Value::Map(_)) {
            let problem = format!(
                "the group `{name}` is a mapping with `hosts`, `vars` or `children`, and this is {}",
                entry.node.kind()
            );
            self.error(&entry.node.origin, problem);
            return None;
        }
        let id = self.graph.group(name, Some(&entry.key));
        for (key, section) in entry.node.as_map().into_iter().flatten() {
            match key.as_str() {
                "hosts" => self.each(name, key, section, |reader, host, entry| {
                    reader.host(host, entry, id);
                }),
                "vars" => self.each(name, key, section, |reader, var, entry| {
                    reader.check_variable_name(var, &entry.key);
                    let set = reader.graph.set_group_var(id, var, entry.node.clone());
                    reader.problems.0.extend(set.err());
                }),
                "children" => self.each(name, key, section, |reader, child, entry| {
                    if let Some(child) = reader.group(child, entry) {
                        let linked = reader.graph.child(id, child, &entry.key);
                        reader.problems.0.extend(linked.err());
                    }
                }),
                _ => self.unknown_section(name, key, section),
            }
        }
        Some(id)
    }

    // The entries of a section; a lone text stands for one entry without value.
    fn each(
        &mut self,
        group: &str,
        section: &str,
        entry: &Entry,
        mut act: impl FnMut(&mut Self, &str, &Entry),
    ) {
        match &entry.node.value {
            Value::Null => {}
            Value::Map(map) => {
                for (name, entry) in map {
                    act(self, name, entry);
                }
            }
            Value::Str(name) if section != "vars" => {
                let origin = &entry.node.origin;
                let single = Entry {
                    key: origin.clone(),
                    node: Node::new(Value::Null, origin.clone()),
                };
                act(self, name, &single);
            }
            _ => {
                let problem = format!(
                    "`{section}` of the group `{group}` is a mapping, and this is {}",
                    entry.node.kind()
                );
                let problem = Diagnostic::error(problem).at(&entry.node.origin);
                self.problems.push(match (&entry.node.value, section) {
                    (Value::Seq(_), "hosts" | "children") => {
                        problem.hint("write each name as a key: `name:` instead of `- name`")
                    }
                    _ => problem,
                });
            }
        }
    }

    fn host(&mut self, key: &str, entry: &Entry, group: GroupId) {
        if key.is_empty() || !yaml::key_is_text(&entry.key) {
            self.name_is_no_text("host", key, &entry.key);
            return;
        }
        let empty = Map::new();
        let vars = match &entry.node.value {
            Value::Null => &empty,
            Value::Map(vars) => vars,
            _ => {
                let problem = format!(
                    "the variables of the host `{key}` are a mapping, and this is {}",
                    entry.node.kind()
                );
                self.error(&entry.node.origin, problem);
                return;
            }
        };
        let expanded = match range::expand(key) {
            Ok(expanded) => expanded,
            Err(error) => {
                self.error(&entry.key, error);
                return;
            }
        };
        for (var, entry) in vars {
            self.check_variable_name(var, &entry.key);
        }
        for name in &expanded.names {
            let id = self
                .graph
                .host(name, expanded.port, group, self.from, &entry.key);
            for (var, entry) in vars {
                let set = self.graph.set_host_var(id, var, entry.node.clone());
                self.problems.0.extend(set.err());
            }
        }
    }

    fn unknown_section(&mut self, group: &str, key: &str, entry: &Entry) {
        let problem = format!(
            "`{key}` cannot stand in the group `{group}`, only `hosts`, `vars` and `children` can"
        );
        let problem = Diagnostic::error(problem).at(&entry.key);
        let hint = match (nearest(key, SECTIONS), &entry.node.value) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Value::Null) => {
                "a host stands under `hosts:`, a group under `children:`".to_owned()
            }
            (None, Value::Map(map)) if map.keys().any(|key| SECTIONS.contains(&key.as_str())) => {
                "a group in a group stands under `children:`".to_owned()
            }
            (None, Value::Map(_)) => {
                "a host stands under `hosts:`, a variable under `vars:`".to_owned()
            }
            (None, _) => "a variable stands under `vars:`".to_owned(),
        };
        self.problems.push(problem.hint(hint));
    }

    fn check_variable_name(&mut self, name: &str, at: &Origin) {
        let valid = name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty();
        if !valid {
            let problem = Diagnostic::warning(format!(
                "`{name}` is no name of a variable, so that templates cannot use it"
            ))
            .at(at);
            self.problems
                .push(problem.hint("letters, digits and `_` make a name"));
        }
    }

    fn name_is_no_text(&mut self, what: &str, name: &str, at: &Origin) {
        let problem = Diagnostic::error(format!(
            "the name of a {what} is a string, and `{name}` is none"
        ))
        .at(at);
        self.problems.push(problem.hint("quote it"));
    }

    fn error(&mut self, at: &Origin, message: String) {
        self.problems.push(Diagnostic::error(message).at(at));
    }
}

//! Keys of variables that name a YAML file: what stands in the file takes the name's place, with
//! its own positions.
//!
//! A relative path counts from the folder of the file in which it is written, and from the
//! working directory in `--extra-vars`. A name that is a template stays as it is, since
//! templates are rendered later. What the files mean is not known here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Inventory, source};
use crate::error::{Diagnostic, Problems};
use crate::value::{Node, Value, Vars};
use crate::yaml;

/// Variable, and the key in its mapping.
const KEYS: [(&str, &str); 1] = [("gpu_incus", "infra")];

impl Inventory {
    /// Reads them in wherever variables are written. Each file is read once.
    pub(super) fn read_named_files(&mut self) -> Problems {
        let mut reader = Reader::default();
        for group in self.groups.values_mut() {
            reader.fill(&mut group.inline);
            let inventory = group.inventory_files.iter_mut().map(|(_, vars)| vars);
            for vars in inventory.chain(&mut group.playbook_files) {
                reader.fill(vars);
            }
        }
        for host in self.hosts.values_mut() {
            reader.fill(&mut host.inline);
            for vars in &mut host.files {
                reader.fill(vars);
            }
        }
        reader.fill(&mut self.extra);
        reader.problems
    }
}

#[derive(Default)]
struct Reader {
    read: HashMap<PathBuf, Option<Node>>,
    problems: Problems,
}

impl Reader {
    fn fill(&mut self, vars: &mut Arc<Vars>) {
        for (variable, key) in KEYS {
            let Some(path) = vars.get(variable).and_then(|node| named(node, key)) else {
                continue;
            };
            let Some(node) = self.file(&path, vars, variable, key) else {
                continue;
            };
            let vars = Arc::make_mut(vars);
            if let Some(Value::Map(map)) = vars.get_mut(variable).map(|node| &mut node.value)
                && let Some(entry) = map.get_mut(key)
            {
                entry.node = node;
            }
        }
    }

    fn file(&mut self, path: &Path, vars: &Vars, variable: &str, key: &str) -> Option<Node> {
        if let Some(found) = self.read.get(path) {
            return found.clone();
        }
        let mut problems = Problems::default();
        let node = source::read_text(path, &mut problems).and_then(|text| {
            let (node, found) = yaml::load(path, &text);
            problems.extend(found);
            node
        });
        let place = vars.get(variable).and_then(|node| entry(node, key));
        for problem in problems.0 {
            // That a file cannot be read is told where it is named.
            self.problems.push(match (&problem.origin, place) {
                (None, Some(place)) => problem.at(&place.origin),
                _ => problem,
            });
        }
        if node.is_none()
            && !self.problems.has_errors()
            && let Some(place) = place
        {
            let message = format!("`{}` is empty", path.display());
            self.problems
                .push(Diagnostic::error(message).at(&place.origin));
        }
        self.read.insert(path.to_owned(), node.clone());
        node
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.as_map()?.get(key).map(|entry| &entry.node)
}

/// The path that stands behind a key.
fn named(node: &Node, key: &str) -> Option<PathBuf> {
    let node = entry(node, key)?;
    let text = node.as_str()?;
    if text.is_empty() || text.contains("{{") {
        return None;
    }
    let beside = node.origin.path().parent().unwrap_or(Path::new(""));
    Some(beside.join(text))
}

#[cfg(test)]
mod tests {
    use crate::inventory::load;
    use crate::value::HostName;
    use std::fs;

    #[test]
    fn a_file_that_is_named_stands_where_its_name_stood_with_its_own_positions() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("group_vars")).expect("a folder");
        fs::write(at("hosts.yml"), "g:\n  hosts:\n    a:\n    b:\n").expect("a file");
        fs::write(at("infra.yml"), "\ndomains:\n  x: 1\n").expect("a file");
        let vars = "gpu_incus:\n  infra: ../infra.yml\n";
        fs::write(at("group_vars/g.yml"), vars).expect("a file");
        let (inventory, problems) = load(&[at("hosts.yml")], None, &[]);
        assert!(!problems.has_errors(), "{problems:?}");
        for host in ["a", "b"] {
            let vars = inventory.vars_of(&HostName::from(host));
            let infra = &vars["gpu_incus"].as_map().expect("one")["infra"].node;
            let domains = &infra.as_map().expect("a mapping")["domains"];
            let place = domains.key.to_string();
            assert!(place.ends_with("infra.yml:2:1"), "{place}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told_where_it_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = folder.path().join("hosts.yml");
        let text = "all:\n  vars:\n    gpu_incus:\n      infra: none.yml\n  hosts:\n    a:\n";
        fs::write(&hosts, text).expect("a file");
        let (_, problems) = load(&[hosts], None, &[]);
        let said = problems.0[0].to_string();
        assert!(said.contains("hosts.yml:4:14"), "{said}");
        assert!(said.contains("none.yml"), "{said}");
    }
}

//! `group_vars/` and `host_vars/` beside an inventory or a playbook.
//!
//! Ansible looks for a file or directory of the bare name first, then for
//! `.yml`, `.yaml` and `.json`, and takes the first that exists. A directory is
//! read in the order of its names. Each of the two folders is listed once, so
//! that twenty thousand hosts cost no system call each.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source;
use crate::error::{Diagnostic, Problems, nearest};
use crate::value::{Value, Vars};
use crate::yaml;

/// What may follow a name, in the order in which it is tried.
const ENDINGS: [&str; 4] = ["", ".yml", ".yaml", ".json"];

/// Directories in directories, at most: an end to links that lead back.
const MAX_DIRECTORIES: usize = 16;

/// Whose variables are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Group,
    Host,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Group => "group_vars",
            Self::Host => "host_vars",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Host => "host",
        }
    }
}

/// All folders that were looked into.
#[derive(Default)]
pub(super) struct VarFiles {
    folders: HashMap<(PathBuf, Kind), Folder>,
    read: HashMap<PathBuf, Arc<Vars>>,
}

#[derive(Default)]
struct Folder {
    path: PathBuf,
    names: BTreeSet<String>,
}

impl VarFiles {
    /// The variables of `name` from the folder in `dir`, weakest first.
    pub(super) fn find(
        &mut self,
        dir: &Path,
        kind: Kind,
        name: &str,
        problems: &mut Problems,
    ) -> Vec<Arc<Vars>> {
        // Such names are paths (chroots), and would lead out of the folder.
        if name.contains('/') || name.starts_with('.') {
            return Vec::new();
        }
        let key = (dir.to_path_buf(), kind);
        if !self.folders.contains_key(&key) {
            self.folders.insert(key.clone(), open(dir, kind, problems));
        }
        let Some(folder) = self
            .folders
            .get(&key)
            .filter(|folder| !folder.names.is_empty())
        else {
            return Vec::new();
        };
        let found = ENDINGS.iter().map(|ending| format!("{name}{ending}"));
        let Some(first) = found.into_iter().find(|file| folder.names.contains(file)) else {
            return Vec::new();
        };
        let path = folder.path.join(first);
        let mut files = Vec::new();
        if path.is_dir() {
            files_below(&path, 0, &mut files, problems);
        } else {
            files.push(path);
        }
        files
            .iter()
            .filter_map(|file| self.read_file(file, problems))
            .collect()
    }

    fn read_file(&mut self, path: &Path, problems: &mut Problems) -> Option<Arc<Vars>> {
        if let Some(vars) = self.read.get(path) {
            return Some(Arc::clone(vars));
        }
        let vars = Arc::new(read_vars(path, problems)?);
        self.read.insert(path.to_path_buf(), Arc::clone(&vars));
        Some(vars)
    }

    /// Warnings about files that nothing reads though they nearly have the name
    /// of a group or host, or that another ending hides.
    pub(super) fn doubts<'a>(&self, groups: &[&'a str], hosts: &[&'a str]) -> Problems {
        let mut folders: Vec<_> = self.folders.iter().collect();
        folders.sort_by(|(a, _), (b, _)| (&a.0, a.1.folder()).cmp(&(&b.0, b.1.folder())));
        let mut problems = Problems::default();
        for ((_, kind), folder) in folders {
            let known = match kind {
                Kind::Group => groups,
                Kind::Host => hosts,
            };
            doubts_in(folder, *kind, known, &mut problems);
        }
        problems
    }
}

// Comparing every file with every name is not worth it beyond this.
const MAX_COMPARISONS: usize = 200_000;

fn doubts_in(folder: &Folder, kind: Kind, known: &[&str], problems: &mut Problems) {
    let names: std::collections::HashSet<&str> = known.iter().copied().collect();
    let mut comparisons = 0;
    for file in &folder.names {
        let (stem, ending) = split_ending(file);
        let shown = folder.path.join(file);
        let shown = shown.display();
        if names.contains(stem) {
            let hides = ENDINGS
                .iter()
                .take_while(|earlier| **earlier != ending)
                .find(|earlier| folder.names.contains(&format!("{stem}{earlier}")));
            if let Some(earlier) = hides {
                let problem =
                    format!("`{shown}` is not read, because `{stem}{earlier}` stands beside it");
                problems.push(Diagnostic::warning(problem));
            }
            continue;
        }
        comparisons += known.len();
        if comparisons > MAX_COMPARISONS || file.starts_with('.') || file.ends_with('~') {
            continue;
        }
        let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
        // `web1` for `web2` is another host, not a slip of the pen.
        let near =
            nearest(stem, known.iter().copied()).filter(|near| letters(near) != letters(stem));
        if let Some(near) = near {
            let problem = format!(
                "`{shown}` is not read, because no {} has this name",
                kind.word()
            );
            problems.push(Diagnostic::warning(problem).hint(format!("did you mean `{near}`?")));
        }
    }
}

fn split_ending(file: &str) -> (&str, &str) {
    ENDINGS[1..]
        .iter()
        .find_map(|ending| file.strip_suffix(ending).map(|stem| (stem, *ending)))
        .unwrap_or((file, ""))
}

fn open(dir: &Path, kind: Kind, problems: &mut Problems) -> Folder {
    let path = dir.join(kind.folder());
    if !path.exists() {
        return Folder::default();
    }
    match source::list(&path) {
        Ok(names) => Folder {
            path,
            names: names.into_iter().collect(),
        },
        Err(error) => {
            let problem = format!(
                "`{}` cannot be read as a directory: {error}",
                path.display()
            );
            problems.push(Diagnostic::error(problem));
            Folder::default()
        }
    }
}

fn files_below(path: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Problems) {
    let names = match source::list(path) {
        Ok(names) if depth <= MAX_DIRECTORIES => names,
        Ok(_) => {
            let problem = format!(
                "`{}` is nested more than {MAX_DIRECTORIES} directories deep",
                path.display()
            );
            problems.push(Diagnostic::error(problem));
            return;
        }
        Err(error) => {
            let problem = format!("`{}` cannot be read: {error}", path.display());
            problems.push(Diagnostic::error(problem).of_file(&error));
            return;
        }
    };
    for name in names {
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let entry = path.join(&name);
        let has_ending = name.contains('.');
        if entry.is_dir() {
            if !has_ending {
                files_below(&entry, depth + 1, files, problems);
            }
        } else if !has_ending || !split_ending(&name).1.is_empty() {
            files.push(entry);
        }
    }
}

/// The variables of one file; nothing for an empty one.
pub(super) fn read_vars(path: &Path, problems: &mut Problems) -> Option<Vars> {
    let text = source::read_text(path, problems)?;
    let (node, found) = yaml::load(path, &text);
    problems.extend(found);
    let node = node?;
    match node.value {
        Value::Map(map) => Some(
            map.into_iter()
                .map(|(name, entry)| (name, entry.node))
                .collect(),
        ),
        Value::Null => None,
        _ => {
            let problem = format!(
                "a file of variables is a mapping, and this is {}",
                node.kind()
            );
            problems.push(Diagnostic::error(problem).at(&node.origin));
            None
        }
    }
}

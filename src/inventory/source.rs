//! What `-i` names: files, directories of files, and lists of hosts.
//!
//! Decides what kind of source a path is, in Ansible's order, and hands its
//! content to the reader of that kind. Kinds that are not read yet are errors
//! that say what to use instead; a new kind is one more arm of `read_file`.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::graph::{Graph, UNGROUPED};
use super::{range, yaml_source};
use crate::error::{Diagnostic, Origin, Problems};
use crate::yaml;

/// Endings that a directory source leaves out: ansible-core's `REJECT_EXTS` and
/// `INVENTORY_IGNORE_EXTS`.
const IGNORED_ENDINGS: [&str; 12] = [
    ".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry",
];

/// Names that a directory source leaves out, besides hidden ones.
const IGNORED_NAMES: [&str; 3] = ["group_vars", "host_vars", "vars_plugins"];

/// Directories in directories, at most: an end to links that lead back.
const MAX_DIRECTORIES: usize = 16;

/// Where a host was first mentioned, for the magic variables.
#[derive(Debug)]
pub(super) struct From {
    /// Absolute path of the file, or the list of hosts as given.
    pub(super) file: PathBuf,
    /// The directory it lies in.
    pub(super) dir: PathBuf,
}

/// Reads one `-i` into the graph.
pub(super) fn read(source: &Path, graph: &mut Graph, problems: &mut Problems) {
    if source.is_dir() {
        return read_directory(source, 0, graph, problems);
    }
    if source.exists() {
        return read_file(source, graph, problems);
    }
    match host_list(source) {
        Some(list) => read_host_list(list, graph),
        None => {
            let shown = source.display();
            let problem = Diagnostic::error(format!("the inventory `{shown}` does not exist"));
            let hint = format!("a list of hosts ends with a comma: `{shown},`");
            let is_name = source.components().count() == 1 && source.extension().is_none();
            problems.push(if is_name { problem.hint(hint) } else { problem });
        }
    }
}

/// The text of a source that is a list of hosts: it has a comma and is no path.
pub(super) fn host_list(source: &Path) -> Option<&str> {
    source
        .to_str()
        .filter(|text| text.contains(',') && !source.exists())
}

fn read_host_list(list: &str, graph: &mut Graph) {
    let origin = Origin::whole("--inventory", list);
    let from = Arc::new(From {
        file: PathBuf::from(list),
        dir: absolute(Path::new(".")),
    });
    let mut at = 0;
    for part in list.split(',') {
        let name = part.trim();
        let start = at + (part.len() - part.trim_start().len());
        at += part.len() + 1;
        if name.is_empty() {
            continue;
        }
        let origin = Origin::new(&origin.source, start..start + name.len());
        let (host, port) = match range::parse_address(name) {
            Some((host, port)) if !host.contains('[') => (host, port),
            _ => (name, None),
        };
        // Ansible leaves a host that an earlier source knows as it is.
        if !graph.hosts.contains_key(host) {
            graph.host(host, port, UNGROUPED, &from, &origin);
        }
    }
}

fn read_directory(path: &Path, depth: usize, graph: &mut Graph, problems: &mut Problems) {
    if depth > MAX_DIRECTORIES {
        let problem = format!(
            "{} is nested more than {MAX_DIRECTORIES} directories deep",
            path.display()
        );
        problems.push(Diagnostic::error(problem));
        return;
    }
    let names = match list(path) {
        Ok(names) => names,
        Err(error) => {
            problems.push(unreadable(path, &error));
            return;
        }
    };
    for name in names.iter().filter(|name| !is_ignored(name)) {
        let entry = path.join(name);
        if entry.is_dir() {
            read_directory(&entry, depth + 1, graph, problems);
        } else {
            read_file(&entry, graph, problems);
        }
    }
}

/// The names in a directory, sorted by their bytes.
pub(super) fn list(path: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // A name that is no UTF-8 can be no name of a host, a group or a YAML file of ours.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_ignored(name: &str) -> bool {
    name.starts_with('.')
        || IGNORED_NAMES.contains(&name)
        || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn read_file(path: &Path, graph: &mut Graph, problems: &mut Problems) {
    let Some(text) = read_text(path, problems) else {
        return;
    };
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    let kind = match extension.as_deref() {
        Some("yml" | "yaml" | "json") => Kind::Yaml,
        Some("toml") => Kind::Toml,
        Some(_) if text.starts_with("#!") || is_executable(path) => Kind::Script,
        Some(_) => Kind::Ini,
        None if text.starts_with("#!") || is_executable(path) => Kind::Script,
        None if looks_like_ini(&text) => Kind::Ini,
        None => Kind::Yaml,
    };
    let shown = path.display();
    let converts =
        format!("`ansible-inventory -i {shown} --list --yaml` writes it as YAML, which is read");
    let problem = match kind {
        Kind::Yaml => return read_yaml(path, &text, graph, problems),
        Kind::Ini => Diagnostic::error(format!(
            "`{shown}` is an INI inventory, and those are not read yet"
        )),
        Kind::Toml => Diagnostic::error(format!(
            "`{shown}` is a TOML inventory, and those are not read yet"
        )),
        Kind::Script => Diagnostic::error(format!(
            "`{shown}` is an inventory script, and those are not run yet"
        )),
    };
    problems.push(problem.hint(converts));
}

enum Kind {
    Yaml,
    Ini,
    Toml,
    Script,
}

fn read_yaml(path: &Path, text: &str, graph: &mut Graph, problems: &mut Problems) {
    let (node, found) = yaml::load(path, text);
    let failed = found.has_errors();
    problems.extend(found);
    match node {
        Some(node) => {
            let file = absolute(path);
            let dir = file
                .parent()
                .map_or_else(|| file.clone(), Path::to_path_buf);
            let from = Arc::new(From { file, dir });
            yaml_source::read(&node, &from, graph, problems);
        }
        None if failed => {}
        None => {
            let problem = format!("the inventory `{}` is empty", path.display());
            problems.push(Diagnostic::warning(problem));
        }
    }
}

/// What a file holds, one byte more than may be read at most: pipes and devices do not say how
/// much comes, and some never end.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = yaml::MAX_BYTES as u64 + 1;
    std::fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file; what is wrong with reading it is among the problems.
pub(super) fn read_text(path: &Path, problems: &mut Problems) -> Option<String> {
    let bytes = match read_bounded(path) {
        Ok(bytes) if bytes.len() > yaml::MAX_BYTES => {
            let problem = format!(
                "`{}` is too large: at most {} bytes are read",
                path.display(),
                yaml::MAX_BYTES
            );
            problems.push(Diagnostic::error(problem));
            return None;
        }
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(unreadable(path, &error));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with("$ANSIBLE_VAULT;") => {
            let problem = format!(
                "`{}` is encrypted, and vaults are not opened yet",
                path.display()
            );
            let hint = format!(
                "`ansible-vault decrypt {}`, or leave the file out",
                path.display()
            );
            problems.push(Diagnostic::error(problem).hint(hint));
            None
        }
        Ok(text) => Some(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let origin = Origin::whole(path, String::from_utf8_lossy(error.as_bytes()));
            let origin = Origin::new(&origin.source, at..at);
            problems.push(Diagnostic::error("this byte is no UTF-8").at(&origin));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::error(format!("`{}` cannot be read: {error}", path.display())).of_file(error)
}

// Only for names without an ending, which Ansible tries as YAML first: a section
// header, or lines of hosts with `key=value` and no YAML mapping among them.
fn looks_like_ini(text: &str) -> bool {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .peekable();
    if lines
        .peek()
        .is_none_or(|first| first.starts_with(['{', '-', '%']))
    {
        return false;
    }
    let mut mapping = false;
    for line in lines {
        if line.starts_with('[') && line.contains(']') {
            return true;
        }
        mapping |= line.ends_with(':') || line.contains(": ");
    }
    !mapping
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    false
}

/// The path from the root, without `.` and `..`, links not followed: what
/// Ansible puts into `inventory_file` and `inventory_dir`.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut clean = PathBuf::new();
    for part in full.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

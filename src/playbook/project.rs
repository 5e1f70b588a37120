//! The files that a playbook names: beside it, in the user's project, or shipped.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::{Content, Shipped};
use crate::error::{Diagnostic, Origin, Source};
use crate::value::{Loaded, Node};
use crate::yaml;

use super::Files;

/// Larger files are not put onto hosts.
const LARGEST: u64 = 16 << 20;

/// A file that a task names.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it stands.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Arc<Vec<u8>>,
}

impl Found {
    /// As a text, for templates.
    ///
    /// # Errors
    /// Says that it is no UTF-8.
    pub fn source(&self) -> Result<Arc<Source>, String> {
        match String::from_utf8(self.bytes.to_vec()) {
            Ok(text) => Ok(Arc::new(Source {
                path: self.path.clone(),
                text,
            })),
            Err(_) => Err(format!("`{}` is no UTF-8 text", self.path.display())),
        }
    }
}

/// Where files are looked for. Each is read once, so that all hosts get the same.
#[derive(Debug)]
pub struct Project {
    content: Content,
    folder: Option<PathBuf>,
    read: Mutex<HashMap<PathBuf, Option<Found>>>,
    /// Those of them that were read as YAML.
    documents: Mutex<HashMap<PathBuf, Loaded<Option<Node>>>>,
}

impl Project {
    /// Files of a playbook that stands in `folder`; a shipped one stands in none.
    #[must_use]
    pub fn new(content: Content, folder: Option<PathBuf>) -> Self {
        Self {
            content,
            folder,
            read: Mutex::default(),
            documents: Mutex::default(),
        }
    }

    /// The shipped files with those of the user's project before them.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// A template: in `templates/` beside the playbook, beside it, in the project, shipped.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<Found> {
        self.beside("templates", name)
            .or_else(|| self.content.template(name).map(from_shipped))
    }

    /// A file for `copy`: in `files/` beside the playbook, or beside it.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Found> {
        self.beside("files", name)
    }

    /// The YAML document that a variable names: beside the file that has the variable (and
    /// beside the `group_vars` or `host_vars` that it lies in), in the project's `files/`, or in
    /// the project.
    #[must_use]
    pub fn document(&self, name: &str, at: &Origin) -> Loaded<Option<Node>> {
        let folders = self.folders_of(at);
        let paths = folders.iter().map(|folder| folder.join(name));
        let Some(found) = paths.clone().find_map(|path| self.read(&path)) else {
            let mut tried: Vec<String> = Vec::new();
            for path in paths {
                let path = format!("`{}`", path.display());
                if !tried.contains(&path) {
                    tried.push(path);
                }
            }
            let missing = Diagnostic::error(format!("there is no file `{name}` that can be read"))
                .at(at)
                .hint(format!("it was looked for as {}", tried.join(", ")));
            return (None, missing.into());
        };
        let mut documents = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = documents.get(&found.path) {
            return document.clone();
        }
        let document = match found.source() {
            Ok(source) => yaml::load(&source.path, &source.text),
            Err(message) => (None, Diagnostic::error(message).at(at).into()),
        };
        documents.insert(found.path, document.clone());
        document
    }

    fn folders_of(&self, at: &Origin) -> Vec<PathBuf> {
        let beside = at.path().parent().unwrap_or(Path::new("")).to_owned();
        let mut folders = vec![beside.clone()];
        let is_vars = |folder: &&Path| {
            let name = folder.file_name().and_then(|name| name.to_str());
            matches!(name, Some("group_vars" | "host_vars"))
        };
        let vars = beside.ancestors().find(is_vars);
        folders.extend(vars.and_then(Path::parent).map(Path::to_owned));
        if let Some(project) = self.content.project() {
            folders.push(project.join("files"));
            folders.push(project.to_owned());
        }
        folders
    }

    fn beside(&self, folder: &str, name: &str) -> Option<Found> {
        let path = Path::new(name);
        if path.is_absolute() {
            return self.read(path);
        }
        let base = self.folder.as_ref()?;
        self.read(&base.join(folder).join(name))
            .or_else(|| self.read(&base.join(name)))
    }

    fn read(&self, path: &Path) -> Option<Found> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = read.get(path) {
            return found.clone();
        }
        let small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST);
        let found = small
            .then(|| fs::read(path).ok())
            .flatten()
            .map(|bytes| Found {
                path: path.to_owned(),
                bytes: Arc::new(bytes),
            });
        read.insert(path.to_owned(), found.clone());
        found
    }
}

fn from_shipped(shipped: Shipped) -> Found {
    Found {
        path: shipped.path,
        bytes: Arc::new(shipped.text.into_bytes()),
    }
}

impl Files for Project {
    fn vars_file(&self, name: &str) -> Option<(PathBuf, String)> {
        if let Some(found) = self.beside("vars", name) {
            let text = String::from_utf8_lossy(&found.bytes).into_owned();
            return Some((found.path, text));
        }
        let name = name.strip_prefix("../").unwrap_or(name);
        let name = name.strip_prefix("vars/").unwrap_or(name);
        let shipped = self.content.vars_file(name)?;
        Some((shipped.path, shipped.text))
    }
}

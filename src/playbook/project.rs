//! The files that a playbook names: beside it, in the user's project, or shipped.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::{Content, Shipped};
use crate::error::Source;

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
}

impl Project {
    /// Files of a playbook that stands in `folder`; a shipped one stands in none.
    #[must_use]
    pub fn new(content: Content, folder: Option<PathBuf>) -> Self {
        Self {
            content,
            folder,
            read: Mutex::default(),
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

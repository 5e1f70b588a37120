//! The files that a playbook names: beside it, in the user's project, or shipped.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::content::{Content, Shipped};
use crate::error::{Diagnostic, Origin, Source};
use crate::text::hex;
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

/// Where files are looked for. Each is read once, so that all hosts get the same; clones share
/// what was read.
#[derive(Debug, Clone)]
pub struct Project {
    content: Content,
    folder: Option<PathBuf>,
    read: Arc<Mutex<HashMap<PathBuf, Option<Found>>>>,
    /// Those of them that were read as YAML.
    documents: Arc<Mutex<HashMap<PathBuf, Loaded<Option<Node>>>>>,
    /// Where it is noted what was used, and whether its text may be kept.
    notes: Option<(Arc<Mutex<UsedFiles>>, Keep)>,
    /// Where a host's record is planned from: the only files that there are then.
    before: Option<Arc<Before>>,
    /// Files of the host as an earlier plan left them.
    left: Arc<BTreeMap<String, LeftFile>>,
    /// What tells the playbook from others of its file name.
    called: Option<String>,
}

/// The files of a host's record, and what the same host uses today. The record is the host's
/// word: it may name any file here, and gets none that the host does not get anyway.
#[derive(Debug)]
struct Before {
    then: UsedFiles,
    today: UsedFiles,
}

/// Files that were used, by what they were used as, their name, and where that stood.
pub type UsedFiles = BTreeMap<(FileKind, String, String), UsedFile>;

/// What a file of the project is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A template.
    Template,
    /// A file that goes onto the host as it is.
    File,
    /// A YAML document that a variable names.
    Document,
}

/// A file as it was when it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedFile {
    /// Where it stood.
    pub path: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its text; none if it is no text, large, or must not be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A file of a host as a plan left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftFile {
    /// Permission bits, in octal.
    pub mode: String,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// The content; none if it is no text, large, or must not be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl LeftFile {
    /// The permission bits as a number.
    #[must_use]
    pub fn bits(&self) -> Option<u32> {
        u32::from_str_radix(&self.mode, 8).ok()
    }
}

/// Whether texts may be kept for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Texts,
    Hashes,
}

/// Longer texts are not kept, bytes.
const LONGEST_KEPT: usize = 64 * 1024;

/// A content that may be kept: a text that is not large.
#[must_use]
pub fn kept_text(bytes: &[u8]) -> Option<String> {
    let small = bytes.len() <= LONGEST_KEPT;
    let text = small.then(|| std::str::from_utf8(bytes).ok()).flatten()?;
    Some(text.to_owned())
}

impl Project {
    /// Files of a playbook that stands in `folder`; a shipped one stands in none.
    #[must_use]
    pub fn new(content: Content, folder: Option<PathBuf>) -> Self {
        Self {
            content,
            folder,
            read: Arc::default(),
            documents: Arc::default(),
            notes: None,
            before: None,
            left: Arc::default(),
            called: None,
        }
    }

    /// The same project, whose playbook is called so.
    #[must_use]
    pub fn calling(self, called: Option<String>) -> Self {
        Self { called, ..self }
    }

    /// What tells the playbook from another of the same file name, wherever either lies: none
    /// for one that goes by its name alone.
    #[must_use]
    pub fn called(&self) -> Option<&str> {
        self.called.as_deref()
    }

    /// Only the files that a host's record has the texts of, and those of `today`, which the
    /// same host uses today, that still are as the record says; and what was left there.
    #[must_use]
    pub fn as_before(
        &self,
        then: UsedFiles,
        today: UsedFiles,
        left: BTreeMap<String, LeftFile>,
    ) -> Self {
        Self {
            before: Some(Arc::new(Before { then, today })),
            left: Arc::new(left),
            documents: Arc::default(),
            notes: None,
            ..self.clone()
        }
    }

    /// The same files, which note in `used` what is used of them.
    #[must_use]
    pub fn noting(&self, used: &Arc<Mutex<UsedFiles>>) -> Self {
        Self {
            notes: Some((Arc::clone(used), Keep::Texts)),
            ..self.clone()
        }
    }

    /// The same, for what must not be shown: their texts are not kept.
    #[must_use]
    pub fn hiding(&self) -> Self {
        let notes = self.notes.as_ref();
        Self {
            notes: notes.map(|(used, _)| (Arc::clone(used), Keep::Hashes)),
            ..self.clone()
        }
    }

    /// What an earlier plan left at this path of the host, where that counts.
    #[must_use]
    pub fn left_at(&self, path: &str) -> Option<&LeftFile> {
        self.left.get(path)
    }

    /// Whether a host's record is planned from, so that a file can be lacking there.
    #[must_use]
    pub fn is_of_record(&self) -> bool {
        self.before.is_some()
    }

    /// A file out of the record where there is one, else from the disk.
    fn look_for(
        &self,
        kind: FileKind,
        name: &str,
        at: &str,
        find: impl FnOnce() -> Option<Found>,
    ) -> Option<Found> {
        let Some(before) = &self.before else {
            return find();
        };
        let key = (kind, name.to_owned(), at.to_owned());
        let file = before.then.get(&key)?;
        if let Some(text) = &file.text {
            return Some(Found {
                path: PathBuf::from(&file.path),
                bytes: Arc::new(text.clone().into_bytes()),
            });
        }
        let same = before.today.get(&key)?.sha256 == file.sha256;
        let found = same.then(find).flatten()?;
        // It may have been changed since today's plan was made.
        (hex(&Sha256::digest(found.bytes.as_slice())) == file.sha256).then_some(found)
    }

    fn note(&self, kind: FileKind, name: &str, at: &str, found: &Found) {
        let Some((used, keep)) = &self.notes else {
            return;
        };
        let key = (kind, name.to_owned(), at.to_owned());
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match keep {
            Keep::Texts if used.get(&key).is_some() => return,
            Keep::Texts => kept_text(&found.bytes),
            Keep::Hashes => None,
        };
        let file = UsedFile {
            path: found.path.display().to_string(),
            sha256: hex(&Sha256::digest(found.bytes.as_slice())),
            text,
        };
        used.insert(key, file);
    }

    fn used(
        &self,
        kind: FileKind,
        name: &str,
        find: impl FnOnce() -> Option<Found>,
    ) -> Option<Found> {
        let found = self.look_for(kind, name, "", find)?;
        self.note(kind, name, "", &found);
        Some(found)
    }

    /// The shipped files with those of the user's project before them.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// A template: in `templates/` beside the playbook, beside it, in the project, shipped.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<Found> {
        self.used(FileKind::Template, name, || {
            self.beside("templates", name)
                .or_else(|| self.content.template(name).map(from_shipped))
        })
    }

    /// A file for `copy`: in `files/` beside the playbook, or beside it.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Found> {
        self.used(FileKind::File, name, || self.beside("files", name))
    }

    /// The YAML document that a variable names: beside the file that has the variable (and
    /// beside the `group_vars` or `host_vars` that it lies in), in the project's `files/`, or in
    /// the project.
    #[must_use]
    pub fn document(&self, name: &str, at: &Origin) -> Loaded<Option<Node>> {
        let folders = self.folders_of(at);
        let paths = folders.iter().map(|folder| folder.join(name));
        let place = at.path().display().to_string();
        let found = self.look_for(FileKind::Document, name, &place, || {
            paths.clone().find_map(|path| self.read(&path))
        });
        let Some(found) = found else {
            if self.is_of_record() {
                return (None, lacking(name).at(at).into());
            }
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
        self.note(FileKind::Document, name, &place, &found);
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

/// Says that a host's record does not have a file.
#[must_use]
pub fn lacking(name: &str) -> Diagnostic {
    Diagnostic::error(format!(
        "the host's record of what was last applied lacks the file `{name}`"
    ))
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

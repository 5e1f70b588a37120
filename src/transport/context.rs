//! What the connections of one run share: decrypted keys, `known_hosts` files,
//! and connections to jump hosts, of which each is made once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::{Keys, NoPrompt, Prompt};
use super::known_hosts::{self, KeyName, KnownHosts};
use super::launch::unreachable;
use super::ssh::Client;
use super::{Unreachable, UnreachableReason};

/// A jump host's connection, or why there is none; the lock is held while it is made.
pub(crate) type Bastion = Arc<tokio::sync::Mutex<Option<Result<Arc<Client>, Unreachable>>>>;

/// Shared by all `connect` calls of a run.
pub struct Context {
    pub(crate) keys: Keys,
    known: Mutex<HashMap<PathBuf, Arc<KnownHosts>>>,
    bastions: Mutex<HashMap<String, Bastion>>,
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Arc::new(NoPrompt))
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// A context in which passphrases are asked for with `prompt`.
    #[must_use]
    pub fn new(prompt: Arc<dyn Prompt>) -> Self {
        Self {
            keys: Keys::new(prompt),
            known: Mutex::default(),
            bastions: Mutex::default(),
        }
    }

    /// The files, each read once.
    pub(crate) fn known_hosts(
        &self,
        paths: &[PathBuf],
    ) -> Result<Vec<Arc<KnownHosts>>, Unreachable> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            if let Some(file) = known.get(path) {
                files.push(Arc::clone(file));
                continue;
            }
            let file = KnownHosts::load(path).map_err(|error| {
                let message = format!("`{}` cannot be read: {error}", path.display());
                let hint =
                    "without it nobody can tell whether a key is right or was revoked".to_owned();
                unreachable(UnreachableReason::UnknownHostKey, message, Some(hint))
            })?;
            let file = Arc::new(file);
            known.insert(path.clone(), Arc::clone(&file));
            files.push(file);
        }
        Ok(files)
    }

    /// Writes a new host's key down; the file is read anew when it is next needed.
    pub(crate) fn remember_host(
        &self,
        path: &Path,
        name: &KeyName,
        key: &[u8],
    ) -> std::io::Result<()> {
        let written = known_hosts::append(path, name, key);
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(path);
        written
    }

    pub(crate) fn bastion(&self, way: &str) -> Bastion {
        let mut bastions = self.bastions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bastions.entry(way.to_owned()).or_default())
    }
}

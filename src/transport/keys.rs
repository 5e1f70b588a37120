//! Private keys from files: each is read and decrypted once, for all hosts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey};
use tokio::sync::{Mutex, OnceCell};

use crate::secret::Secret;

/// Asks the user for a passphrase. Called from a thread that may block, one
/// question at a time.
pub trait Prompt: Send + Sync {
    /// The passphrase of a key file; `None` if the user is not there or gives none.
    fn passphrase(&self, key: &Path) -> Option<Secret>;
}

/// Nobody is there to be asked.
#[derive(Debug, Clone, Copy)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn passphrase(&self, _key: &Path) -> Option<Secret> {
        None
    }
}

/// A key, or in a sentence why there is none.
pub(crate) type Loaded = Result<Arc<PrivateKey>, String>;

/// Keys that were loaded, by path; loading goes on once however many hosts wait.
pub(crate) struct Keys {
    prompt: Arc<dyn Prompt>,
    files: Mutex<HashMap<PathBuf, Arc<OnceCell<Loaded>>>>,
    /// Held while the user is asked.
    asking: Arc<std::sync::Mutex<()>>,
}

impl Keys {
    pub(crate) fn new(prompt: Arc<dyn Prompt>) -> Self {
        Self {
            prompt,
            files: Mutex::default(),
            asking: Arc::default(),
        }
    }

    /// Whether the user is being asked for a passphrase.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking.try_lock().is_err()
    }

    /// The key of a file, decrypted if the user gives the passphrase.
    pub(crate) async fn load(&self, path: &Path) -> Loaded {
        let cell = Arc::clone(self.files.lock().await.entry(path.to_owned()).or_default());
        let load = || async {
            let (path, prompt, asking) = (
                path.to_owned(),
                Arc::clone(&self.prompt),
                Arc::clone(&self.asking),
            );
            // Decrypting takes up to half a second of CPU (bcrypt).
            let loading =
                tokio::task::spawn_blocking(move || load(&path, prompt.as_ref(), &asking));
            loading
                .await
                .unwrap_or_else(|_| Err("loading it was interrupted".to_owned()))
        };
        cell.get_or_init(load).await.clone()
    }
}

/// The public half of a key file, without its passphrase: from `FILE.pub`, or
/// from the file itself in OpenSSH's format, which holds it in the open.
pub(crate) fn public_half(path: &Path) -> Option<PublicKey> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    if let Ok(text) = std::fs::read_to_string(name)
        && let Ok(key) = PublicKey::from_openssh(text.trim())
    {
        return Some(key);
    }
    let text = std::fs::read_to_string(path).ok()?;
    if let Ok(key) = PublicKey::from_openssh(text.trim()) {
        // `IdentityFile` may name a public key whose private half an agent holds.
        return Some(key);
    }
    PrivateKey::from_openssh(text.trim())
        .ok()
        .map(|key| key.public_key().clone())
}

fn load(path: &Path, prompt: &dyn Prompt, asking: &std::sync::Mutex<()>) -> Loaded {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) => return Err(format!("`{}` cannot be read: {error}", path.display())),
    };
    let convert = format!("convert it with `ssh-keygen -p -f {}`", path.display());
    if let Some(why) = unsupported(&text) {
        return Err(format!("`{}` is {why}; {convert}", path.display()));
    }
    let encrypted = match russh::keys::decode_secret_key(&text, None) {
        Ok(key) if !key.is_encrypted() => return Ok(Arc::new(key)),
        Ok(_) | Err(russh::keys::Error::KeyIsEncrypted) => true,
        Err(_) => text.contains("ENCRYPTED"),
    };
    if !encrypted {
        return Err(format!(
            "`{}` is no private key that can be read; {convert}",
            path.display()
        ));
    }
    let _one = asking
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // As `ssh` does: three tries.
    for _ in 0..3 {
        let Some(passphrase) = prompt.passphrase(path) else {
            return Err(format!(
                "`{}` needs a passphrase; load it into an agent with `ssh-add`",
                path.display()
            ));
        };
        if let Ok(key) = russh::keys::decode_secret_key(&text, Some(passphrase.reveal())) {
            return Ok(Arc::new(key));
        }
    }
    Err(format!("the passphrase of `{}` is wrong", path.display()))
}

/// Formats whose failure would otherwise read like line noise.
fn unsupported(text: &str) -> Option<&'static str> {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    if let Some(cipher) = line("DEK-Info:")
        && !cipher.contains("AES-128-CBC")
    {
        return Some("encrypted with a cipher of old PEM files that is not supported");
    }
    if line("DEK-Info:").is_some() && text.contains("BEGIN EC PRIVATE KEY") {
        return Some("an encrypted EC key in the old PEM format, which is not supported");
    }
    if text.contains("BEGIN DSA PRIVATE KEY") {
        return Some("a DSA key, which servers no longer accept");
    }
    None
}

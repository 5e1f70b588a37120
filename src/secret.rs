//! The one place that can show a secret.
//!
//! A `Secret` prints as `***` in every form. It is revealed only where it goes
//! to the host: on the standard input of `sudo`, in an authentication message,
//! or in a file's payload. Vault decryption comes here with its own issue.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A text that must not be seen.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself. Callers hand it to the wire and drop it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Secret {
    /// The bytes of a file's payload, which goes to the host in the run directory and is shown
    /// nowhere.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        self.reveal().as_bytes().to_vec()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}

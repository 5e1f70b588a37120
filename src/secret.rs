//! The one place that can show a secret.
//!
//! A `Secret` prints as `***` in every form. It is revealed only where it goes
//! to the host: on the standard input of `sudo`, in an authentication message,
//! or in a file's payload. Vault decryption comes here with its own issue.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha512;

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

    /// What a file has in the place of a password, in hexadecimal: PBKDF2 (RFC 8018) by
    /// HMAC-SHA-512, 64 bytes long, which is one block of it.
    #[must_use]
    pub fn pbkdf2_sha512(&self, salt: &str, rounds: u32) -> String {
        let mac = |text: &[u8]| -> Option<[u8; 64]> {
            let mut mac = Hmac::<Sha512>::new_from_slice(self.reveal().as_bytes()).ok()?;
            mac.update(text);
            Some(mac.finalize().into_bytes().into())
        };
        let first = [salt.as_bytes(), &1_u32.to_be_bytes()].concat();
        // A key of any length will do.
        let mut block = mac(&first).unwrap_or([0; 64]);
        let mut sum = block;
        for _ in 1..rounds {
            block = mac(&block).unwrap_or([0; 64]);
            for (whole, part) in sum.iter_mut().zip(block) {
                *whole ^= part;
            }
        }
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn a_password_is_derived_as_others_derive_it() {
        // hashlib.pbkdf2_hmac('sha512', b'password', b'salt', 1) and 2.
        let derived = |rounds| Secret::new("password").pbkdf2_sha512("salt", rounds);
        assert!(derived(1).starts_with("867f70cf1ade02cff3752599a3a53dc4"));
        assert!(derived(2).starts_with("e1d9c16aa681708a45f5c7c4e215ceb6"));
        assert_eq!(derived(2).len(), 128);
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}

//! Whether a host's key is right, and what we offer in a handshake.
//!
//! What is trusted is decided here, by `known_hosts`; russh has checked the
//! signature by then.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, HashAlg, PublicKeyOrCertificate};
use russh::{Preferred, SshId};

use super::known_hosts::{self, HostKeyPolicy, KnownHosts, Verdict};
use super::launch::unreachable;
use super::target::Endpoint;
use super::{Unreachable, UnreachableReason};

/// Our side of the handshake: decides whether a host's key is right.
pub(crate) struct Verifier {
    pub(crate) endpoint: Endpoint,
    pub(crate) files: Vec<Arc<KnownHosts>>,
    pub(crate) refusal: Refusal,
    pub(crate) new_key: NewKey,
}

/// Why the key was refused; russh's own error only says that it was.
pub(crate) type Refusal = Arc<Mutex<Option<Unreachable>>>;

/// A key to be written down once the handshake has shown that the host holds it.
pub(crate) type NewKey = Arc<Mutex<Option<Vec<u8>>>>;

impl client::Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let judged = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => match key.to_bytes() {
                Ok(bytes) => self.judge(&bytes),
                Err(_) => Err(unreachable(
                    UnreachableReason::UnknownHostKey,
                    "the host's key cannot be read",
                    None,
                )),
            },
            PublicKeyOrCertificate::Certificate(certificate) => self.judge_certificate(certificate),
        };
        let trusted = judged.is_ok();
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = judged.err();
        Ok(trusted)
    }
}

impl Verifier {
    fn judge(&self, key: &[u8]) -> Result<(), Unreachable> {
        let Endpoint { name, key_name, .. } = &self.endpoint;
        let shown = format!(
            "{} {}",
            known_hosts::key_type(key),
            known_hosts::fingerprint(key)
        );
        if let Some(pinned) = &self.endpoint.pinned {
            let right = pinned.to_bytes().is_ok_and(|pinned| pinned == key);
            let message =
                format!("`{name}` showed the key {shown}, which is not the one it was given");
            return if right {
                Ok(())
            } else {
                Err(unreachable(
                    UnreachableReason::ChangedHostKey,
                    message,
                    None,
                ))
            };
        }
        let place = |known: &known_hosts::Known| format!("{}:{}", known.path.display(), known.line);
        match known_hosts::verdict(&self.files, key_name, key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked(known) => {
                let message = format!(
                    "the key of `{name}` ({shown}) was revoked ({})",
                    place(&known)
                );
                Err(unreachable(
                    UnreachableReason::ChangedHostKey,
                    message,
                    None,
                ))
            }
            Verdict::Changed(known) => {
                let old = known_hosts::fingerprint(&known.key);
                let message = format!(
                    "`{name}` showed the key {shown}, but {old} is known ({})",
                    place(&known)
                );
                let hint = format!(
                    "somebody may be listening, or the host was installed anew; if you know that it was, `ssh-keygen -R '{key_name}' -f {}`",
                    known.path.display()
                );
                Err(unreachable(
                    UnreachableReason::ChangedHostKey,
                    message,
                    Some(hint),
                ))
            }
            Verdict::OtherType(known) => {
                let old = format!(
                    "{} {}",
                    known_hosts::key_type(&known.key),
                    known_hosts::fingerprint(&known.key)
                );
                let message = format!(
                    "`{name}` showed the key {shown}, but is known by {old} ({})",
                    place(&known)
                );
                let hint = "verify the fingerprint on the host and add the key to `known_hosts`"
                    .to_owned();
                Err(unreachable(
                    UnreachableReason::UnknownHostKey,
                    message,
                    Some(hint),
                ))
            }
            Verdict::New if self.endpoint.policy == HostKeyPolicy::AcceptNew => {
                *self.new_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.to_vec());
                Ok(())
            }
            Verdict::New => {
                let message = format!("the key of `{name}` as `{key_name}` is not known: {shown}");
                let port = self.endpoint.port;
                let hint = format!(
                    "verify the fingerprint and add it (`ssh-keyscan -p {port} {}`), or pass `--accept-new-host-keys`",
                    self.endpoint.address
                );
                Err(unreachable(
                    UnreachableReason::UnknownHostKey,
                    message,
                    Some(hint),
                ))
            }
        }
    }

    /// A host certificate: russh's `validate` looks at authority, signature and
    /// dates only, so the rest is looked at here.
    fn judge_certificate(&self, certificate: &russh::keys::Certificate) -> Result<(), Unreachable> {
        let Endpoint { name, key_name, .. } = &self.endpoint;
        let refuse = |why: &str| {
            let message = format!("the certificate that `{name}` showed {why}");
            Err(unreachable(
                UnreachableReason::UnknownHostKey,
                message,
                None,
            ))
        };
        let blob = |key: &russh::keys::ssh_key::public::KeyData| {
            russh::keys::PublicKey::from(key.clone())
                .to_bytes()
                .unwrap_or_default()
        };
        let authority = blob(certificate.signature_key());
        for key in [blob(certificate.public_key()), authority.clone()] {
            if let Verdict::Revoked(_) = known_hosts::verdict(&self.files, key_name, &key) {
                return refuse("holds a revoked key, or is signed by one");
            }
        }
        if !known_hosts::authorities(&self.files, key_name).contains(&authority) {
            return refuse("is signed by no `@cert-authority` of `known_hosts`");
        }
        let trusted = certificate.signature_key().fingerprint(HashAlg::Sha256);
        if certificate.validate(&[trusted]).is_err() {
            return refuse("has a wrong signature, or is not valid now");
        }
        if certificate.cert_type() != CertType::Host {
            return refuse("is a user's, not a host's");
        }
        if certificate.critical_options().iter().next().is_some() {
            return refuse("has a critical option that is not known");
        }
        let principals = certificate.valid_principals().iter().map(String::as_str);
        match known_hosts::matches_list(
            principals.filter(|principal| !principal.starts_with('!')),
            key_name.host(),
        ) {
            true => Ok(()),
            false => refuse("is not for this name"),
        }
    }
}

pub(crate) fn config(endpoint: &Endpoint, files: &[Arc<KnownHosts>]) -> client::Config {
    let mut known = known_hosts::known_types(files, &endpoint.key_name);
    if let Some(pinned) = &endpoint.pinned {
        known = vec![pinned.algorithm().to_string()];
    }
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.iter().any(|name| name == "ssh-rsa"),
        other => known.iter().any(|name| *name == other.to_string()),
    };
    // Without RSA by SHA-1, which is broken.
    let mut keys: Vec<Algorithm> = Preferred::DEFAULT
        .key
        .iter()
        .filter(|key| **key != Algorithm::Rsa { hash: None })
        .cloned()
        .collect();
    keys.sort_by_key(|key| !is_known(key));
    let certified = match known_hosts::authorities(files, &endpoint.key_name).is_empty() {
        true => Vec::new(),
        false => keys.clone(),
    };
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-deploy_",
            env!("CARGO_PKG_VERSION")
        ))),
        keepalive_interval: (!endpoint.keepalive.is_zero()).then_some(endpoint.keepalive),
        keepalive_max: endpoint.keepalive_max,
        // russh's own lists otherwise: an own list of key exchanges would have
        // to name the extensions that make the exchange strict.
        preferred: Preferred {
            key: Cow::Owned(keys),
            host_key_certificates: Cow::Owned(certified),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        ..client::Config::default()
    }
}

//! Logging in: keys from files and from an agent, then passwords.
//!
//! A key that the user named comes first, as every refused key counts to the
//! server's `MaxAuthTries` (6); then the other keys of the agent, then OpenSSH's
//! default files.

use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::{AgentClient, AgentStream};
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};

use super::keys::{Keys, public_half};
use super::launch::unreachable;
use super::ssh_settings::AgentChoice;
use super::target::{Endpoint, Identity};
use super::verify::Verifier;
use super::{Unreachable, UnreachableReason};

type Agent = AgentClient<Box<dyn AgentStream + Send + Unpin>>;

/// What came of one try.
enum Try {
    In,
    Refused(MethodSet),
    /// Not tried; why.
    Skipped(String),
}

/// Collects what was tried, for the message of a failure.
struct Attempt<'a> {
    handle: &'a mut Handle<Verifier>,
    endpoint: &'a Endpoint,
    /// What the server still takes; `None` before its first answer.
    methods: Option<MethodSet>,
    tried: Vec<String>,
    skipped: Vec<String>,
}

/// Logs in.
///
/// # Errors
/// `Authentication` with what was tried, or `Down` if the connection was lost meanwhile.
pub(crate) async fn log_in(
    handle: &mut Handle<Verifier>,
    endpoint: &Endpoint,
    keys: &Keys,
) -> Result<(), Unreachable> {
    let mut attempt = Attempt {
        handle,
        endpoint,
        methods: None,
        tried: Vec::new(),
        skipped: Vec::new(),
    };
    let mut agent = agent(endpoint, &mut attempt.skipped).await;
    let mut held = match &mut agent {
        Some(agent) => agent.request_identities().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let (named, default): (Vec<&Identity>, Vec<&Identity>) = endpoint
        .identities
        .iter()
        .partition(|identity| !matches!(identity, Identity::Default(_)));
    if attempt
        .identities(&named, &mut agent, &mut held, keys)
        .await?
    {
        return Ok(());
    }
    if let Some(agent) = agent.as_mut().filter(|_| !endpoint.identities_only) {
        for identity in std::mem::take(&mut held) {
            let name = format!("{} from the agent", identity_name(&identity));
            if attempt.with_agent(&name, identity, agent).await? {
                return Ok(());
            }
        }
    }
    if attempt
        .identities(&default, &mut agent, &mut held, keys)
        .await?
        || attempt.passwords().await?
    {
        return Ok(());
    }
    Err(attempt.failure())
}

async fn agent(endpoint: &Endpoint, skipped: &mut Vec<String>) -> Option<Agent> {
    let socket = match &endpoint.agent {
        AgentChoice::None => return None,
        AgentChoice::Socket(path) => path.clone(),
        AgentChoice::Environment => std::env::var_os("SSH_AUTH_SOCK")
            .filter(|path| !path.is_empty())?
            .into(),
    };
    match AgentClient::connect_uds(&socket).await {
        Ok(agent) => Some(agent.dynamic()),
        Err(error) => {
            skipped.push(format!(
                "the agent at `{}` does not answer: {error}",
                socket.display()
            ));
            None
        }
    }
}

fn identity_key(identity: &AgentIdentity) -> Option<&PublicKey> {
    match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    }
}

fn identity_name(identity: &AgentIdentity) -> String {
    let (AgentIdentity::PublicKey { comment, .. } | AgentIdentity::Certificate { comment, .. }) =
        identity;
    match comment.as_str() {
        "" => "a key".to_owned(),
        comment => format!("`{}`", comment.escape_debug()),
    }
}

impl Attempt<'_> {
    /// Tries keys of files, each through the agent if that holds it.
    async fn identities(
        &mut self,
        identities: &[&Identity],
        agent: &mut Option<Agent>,
        held: &mut Vec<AgentIdentity>,
        keys: &Keys,
    ) -> Result<bool, Unreachable> {
        for identity in identities {
            let (path, must) = match identity {
                Identity::Key(key) => {
                    if self.with_key("the given key", Arc::clone(key)).await? {
                        return Ok(true);
                    }
                    continue;
                }
                Identity::File(path) => (path, true),
                Identity::Default(path) => (path, false),
            };
            let name = format!("`{}`", path.display());
            let public = public_half(path);
            if !path.exists() && public.is_none() {
                if must {
                    self.skipped.push(format!("{name} does not exist"));
                }
                continue;
            }
            let same = |identity: &AgentIdentity| {
                let key = public.as_ref().zip(identity_key(identity));
                key.is_some_and(|(ours, theirs)| ours.key_data() == theirs.key_data())
            };
            if let (Some(agent), Some(at)) = (agent.as_mut(), held.iter().position(same)) {
                let identity = held.remove(at);
                if self
                    .with_agent(&format!("{name} from the agent"), identity, agent)
                    .await?
                {
                    return Ok(true);
                }
                continue;
            }
            let key = match keys.load(path).await {
                Ok(key) => key,
                Err(why) => {
                    self.skipped.push(why);
                    continue;
                }
            };
            for certificate in self.certificates(path, key.public_key()) {
                let user = self.endpoint.user.clone();
                let result = self
                    .handle
                    .authenticate_openssh_cert(user, Arc::clone(&key), certificate)
                    .await;
                if self.outcome(
                    &format!("the certificate of {name}"),
                    result.map_err(|error| error.to_string()),
                )? {
                    return Ok(true);
                }
            }
            if self.with_key(&name, key).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The certificates for a key: those named, and `FILE-cert.pub`.
    fn certificates(&self, path: &std::path::Path, key: &PublicKey) -> Vec<Certificate> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-cert.pub");
        let files = self
            .endpoint
            .certificates
            .iter()
            .cloned()
            .chain([beside.into()]);
        files
            .filter_map(|file: std::path::PathBuf| {
                Certificate::from_openssh(std::fs::read_to_string(file).ok()?.trim()).ok()
            })
            .filter(|certificate| certificate.public_key() == key.key_data())
            .collect()
    }

    /// The hash to sign with, for RSA keys: never SHA-1.
    async fn hash(&self, key: &PublicKey) -> Result<Option<HashAlg>, &'static str> {
        if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(Some(hash)),
            Ok(Some(None)) => Err("the server takes RSA keys with SHA-1 only, which is broken"),
            Ok(None) | Err(_) => Ok(Some(HashAlg::Sha512)),
        }
    }

    async fn with_key(
        &mut self,
        name: &str,
        key: Arc<russh::keys::PrivateKey>,
    ) -> Result<bool, Unreachable> {
        let hash = match self.hash(key.public_key()).await {
            Ok(hash) => hash,
            Err(why) => return self.note(name, Try::Skipped(format!("{name}: {why}"))),
        };
        let user = self.endpoint.user.clone();
        let result = self
            .handle
            .authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash))
            .await;
        self.outcome(name, result.map_err(|error| error.to_string()))
    }

    async fn with_agent(
        &mut self,
        name: &str,
        identity: AgentIdentity,
        agent: &mut Agent,
    ) -> Result<bool, Unreachable> {
        let user = self.endpoint.user.clone();
        let result = match identity {
            AgentIdentity::PublicKey { key, .. } => match self.hash(&key).await {
                Ok(hash) => {
                    self.handle
                        .authenticate_publickey_with(user, key, hash, agent)
                        .await
                }
                Err(why) => return self.note(name, Try::Skipped(format!("{name}: {why}"))),
            },
            AgentIdentity::Certificate { certificate, .. } => {
                let rsa = matches!(certificate.algorithm(), Algorithm::Rsa { .. });
                let hash = rsa.then_some(HashAlg::Sha512);
                self.handle
                    .authenticate_certificate_with(user, certificate, hash, agent)
                    .await
            }
        };
        match result {
            // An agent that will not sign costs only this key.
            Err(russh::AgentAuthError::Key(error)) => self.note(
                name,
                Try::Skipped(format!("{name}: the agent did not sign: {error}")),
            ),
            result => self.outcome(name, result.map_err(|error| error.to_string())),
        }
    }

    async fn passwords(&mut self) -> Result<bool, Unreachable> {
        let Some(password) = self.endpoint.password.clone() else {
            return Ok(false);
        };
        let user = self.endpoint.user.clone();
        let takes = |attempt: &Self, kind: MethodKind| {
            attempt
                .methods
                .as_ref()
                .is_none_or(|methods| methods.contains(&kind))
        };
        if takes(self, MethodKind::Password) {
            let result = self
                .handle
                .authenticate_password(user.clone(), password.reveal())
                .await;
            if self.outcome("the password", result.map_err(|error| error.to_string()))? {
                return Ok(true);
            }
        }
        if !takes(self, MethodKind::KeyboardInteractive) {
            return Ok(false);
        }
        let mut response = self
            .handle
            .authenticate_keyboard_interactive_start(user, None)
            .await;
        // A server may send any number of rounds; a password is answered once.
        let mut given = false;
        for _ in 0..10 {
            response = match response {
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. })
                    if prompts.is_empty() =>
                {
                    self.handle
                        .authenticate_keyboard_interactive_respond(Vec::new())
                        .await
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. })
                    if !given && prompts.iter().all(|prompt| !prompt.echo) =>
                {
                    given = true;
                    let answers = prompts
                        .iter()
                        .map(|_| password.reveal().to_owned())
                        .collect();
                    self.handle
                        .authenticate_keyboard_interactive_respond(answers)
                        .await
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { .. }) => {
                    return self.note(
                        "",
                        Try::Skipped("the server asks for more than a password".to_owned()),
                    );
                }
                Ok(KeyboardInteractiveAuthResponse::Success) => return self.note("", Try::In),
                Ok(KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods, ..
                }) => {
                    return self.note(
                        "the password (keyboard-interactive)",
                        Try::Refused(remaining_methods),
                    );
                }
                Err(error) => return Err(self.lost(&error.to_string())),
            };
        }
        Ok(false)
    }

    fn outcome(
        &mut self,
        name: &str,
        result: Result<AuthResult, String>,
    ) -> Result<bool, Unreachable> {
        match result {
            Ok(AuthResult::Success) => self.note(name, Try::In),
            // russh tells of a lost connection like this, and not as an error.
            Ok(AuthResult::Failure {
                remaining_methods, ..
            }) if remaining_methods.is_empty() && self.handle.is_closed() => {
                Err(self.lost("the server closed it"))
            }
            Ok(AuthResult::Failure {
                remaining_methods, ..
            }) => self.note(name, Try::Refused(remaining_methods)),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn note(&mut self, name: &str, came: Try) -> Result<bool, Unreachable> {
        match came {
            Try::In => return Ok(true),
            Try::Refused(methods) => {
                self.methods = Some(methods);
                self.tried.push(name.to_owned());
            }
            Try::Skipped(why) => self.skipped.push(why),
        }
        Ok(false)
    }

    fn lost(&self, why: &str) -> Unreachable {
        let refused = match self.tried.len() {
            0 => String::new(),
            _ => format!(", after it had refused {}", self.tried.join(", ")),
        };
        let message = format!(
            "the connection to `{}` was lost while logging in: {why}{refused}",
            self.endpoint.name
        );
        let hint = (self.tried.len() > 2)
            .then(|| "servers end the connection after some refused keys: name the right one and set `IdentitiesOnly yes`".to_owned());
        let reason = if self.tried.len() > 2 {
            UnreachableReason::Authentication
        } else {
            UnreachableReason::Down
        };
        unreachable(reason, message, hint)
    }

    fn failure(&self) -> Unreachable {
        let Endpoint { user, name, .. } = self.endpoint;
        let mut message = match self.tried.as_slice() {
            [] => format!("there is no key or password to log in to `{name}` as `{user}`"),
            tried => format!("`{name}` did not let `{user}` in with {}", tried.join(", ")),
        };
        if !self.skipped.is_empty() {
            message.push_str(&format!(" (not tried: {})", self.skipped.join("; ")));
        }
        let methods: Vec<String> = self
            .methods
            .iter()
            .flat_map(|methods| methods.iter())
            .map(|kind| <&'static str>::from(kind).to_owned())
            .collect();
        if !methods.is_empty() {
            message.push_str(&format!("; it takes {}", methods.join(", ")));
        }
        let hint = "set `ansible_user` and `ansible_ssh_private_key_file`, load the key with `ssh-add`, or pass `-k` for a password";
        unreachable(
            UnreachableReason::Authentication,
            message,
            Some(hint.to_owned()),
        )
    }
}

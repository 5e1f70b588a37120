//! A session over SSH: one TCP connection, one channel, the loop on it.
//!
//! Every stage has its time limit. What is trusted is decided here by
//! `known_hosts`; russh has checked the signature by then.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, HashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect, Preferred, SshId};

use super::auth;
use super::context::Context;
use super::known_hosts::{self, HostKeyPolicy, KnownHosts, Verdict};
use super::shell_session::{Incoming, Launch, Link, Piece, start, unreachable};
use super::ssh_config::Family;
use super::stream::{Heard, Stream};
use super::target::{Endpoint, Target};
use super::{Boxed, Connected, Read, Unreachable, UnreachableReason, wire};

/// Tries while a server resets connections before it has said who it is: it
/// does so when too many log in at once (`MaxStartups`).
const TRIES: u32 = 7;

/// First pause between tries; doubled each time, and varied so that many
/// clients do not come back together.
const PAUSE: Duration = Duration::from_millis(100);

/// An authenticated connection. What it goes through is kept alive with it.
pub(crate) struct Client {
    pub(crate) handle: Handle<Verifier>,
    _through: Option<Arc<Client>>,
}

/// Our side of the handshake: decides whether a host's key is right.
pub(crate) struct Verifier {
    endpoint: Endpoint,
    files: Vec<Arc<KnownHosts>>,
    refusal: Refusal,
    new_key: NewKey,
}

/// Why the key was refused; russh's own error only says that it was.
type Refusal = Arc<Mutex<Option<Unreachable>>>;

/// A key to be written down once the handshake has shown that the host holds it.
type NewKey = Arc<Mutex<Option<Vec<u8>>>>;

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

/// Connects, logs in, starts the loop, and answers the first reads.
pub(crate) async fn connect(
    target: &Target,
    endpoint: &Endpoint,
    context: &Context,
    first: &[Read],
) -> Result<Connected, Unreachable> {
    let client = dial(endpoint, context).await?;
    let request = wire::request(first, wire::Grouping::Together);
    let launch = Launch::new(&target.who, &target.root, &request);
    let channel = stage(
        endpoint,
        "opening a channel",
        client.handle.channel_open_session(),
    )
    .await?;
    let channel = channel.map_err(|error| {
        let message = format!("`{}` opens no channel: {error}", endpoint.name);
        unreachable(
            UnreachableReason::Shell,
            message,
            Some("look at `MaxSessions` and forced commands in its sshd_config".to_owned()),
        )
    })?;
    let asked = stage(
        endpoint,
        "asking for a shell",
        channel.exec(true, launch.line.as_bytes()),
    )
    .await?;
    asked.map_err(|error| {
        unreachable(
            UnreachableReason::Down,
            format!("the connection was lost: {error}"),
            None,
        )
    })?;
    let (incoming, outgoing) = channel.split();
    let link = Link {
        incoming: Box::new(Channel {
            half: incoming,
            status: None,
            why: None,
        }),
        outgoing: Box::new(outgoing.make_writer()),
        close: Box::new(move || Box::pin(end(client))),
    };
    let (session, first) = start(link, &launch, endpoint.timeout, first, &request).await?;
    Ok(Connected {
        session: Box::new(session),
        first,
    })
}

async fn end(client: Client) {
    let goodbye = client
        .handle
        .disconnect(Disconnect::ByApplication, "done", "en");
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

struct Channel {
    half: russh::ChannelReadHalf,
    status: Option<u32>,
    why: Option<String>,
}

impl Incoming for Channel {
    fn next(&mut self) -> Boxed<'_, Piece> {
        Box::pin(async move {
            loop {
                match self.half.wait().await {
                    Some(ChannelMsg::Data { data }) => return Piece::Out(data.to_vec()),
                    Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                        return Piece::Err(data.to_vec());
                    }
                    Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                        self.why = Some(format!("was killed ({signal_name:?})"));
                    }
                    Some(ChannelMsg::Failure) => {
                        self.why = Some("was refused by the server".to_owned());
                    }
                    // Not at `Eof`: the exit status may come after it.
                    Some(ChannelMsg::Close) => {
                        let why = self.why.take().unwrap_or_else(|| "ended".to_owned());
                        return Piece::End(why, self.status);
                    }
                    Some(_) => {}
                    None => {
                        let lost = || match self.status {
                            Some(_) => "ended".to_owned(),
                            None => "lost its connection".to_owned(),
                        };
                        return Piece::End(self.why.take().unwrap_or_else(lost), self.status);
                    }
                }
            }
        })
    }
}

/// A connection to an endpoint, through its jump hosts, logged in.
pub(crate) fn dial<'a>(
    endpoint: &'a Endpoint,
    context: &'a Context,
) -> Boxed<'a, Result<Client, Unreachable>> {
    Box::pin(async move {
        let through = match endpoint.jumps.as_slice() {
            [] => None,
            jumps => Some(bastion(jumps, context).await?),
        };
        let mut pause = PAUSE;
        let mut tried = 1;
        let mut handle = loop {
            match handshake(endpoint, context, through.as_deref()).await {
                Ok(handle) => break handle,
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::BeforeBanner(error)) if tried >= TRIES => return Err(error),
                Err(Failed::BeforeBanner(_)) => {
                    tokio::time::sleep(pause.mul_f64(0.5 + random())).await;
                    pause *= 2;
                    tried += 1;
                }
            }
        };
        // Each host key question was answered; logging in may ask the user.
        let login = auth::log_in(&mut handle, endpoint, &context.keys);
        stage(endpoint, "logging in", login).await??;
        Ok(Client {
            handle,
            _through: through,
        })
    })
}

/// A number from 0 to 1.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX)
}

/// The connection to the last of some jump hosts, shared by all hosts behind it.
async fn bastion(jumps: &[Endpoint], context: &Context) -> Result<Arc<Client>, Unreachable> {
    let Some((last, before)) = jumps.split_last() else {
        return Err(unreachable(
            UnreachableReason::Jump,
            "there is no jump host",
            None,
        ));
    };
    let way: Vec<String> = jumps
        .iter()
        .map(|hop| format!("{}@{}:{}", hop.user, hop.address, hop.port))
        .collect();
    let slot = context.bastion(&way.join(","));
    let mut slot = slot.lock().await;
    match slot.as_ref() {
        Some(Ok(client)) if !client.handle.is_closed() => return Ok(Arc::clone(client)),
        // One host's wait is enough to know that it is down.
        Some(Err(error)) => return Err(error.clone()),
        _ => {}
    }
    let mut endpoint = last.clone();
    endpoint.jumps = before.to_vec();
    let result = match dial(&endpoint, context).await {
        Ok(client) => Ok(Arc::new(client)),
        Err(error) if error.reason == UnreachableReason::Jump => Err(error),
        Err(error) => {
            let message = format!("jump host `{}`: {error}", last.name);
            Err(unreachable(UnreachableReason::Jump, message, error.hint))
        }
    };
    *slot = Some(result.clone());
    result
}

/// Why a handshake failed, and whether another try may help.
enum Failed {
    BeforeBanner(Unreachable),
    Final(Unreachable),
}

async fn handshake(
    endpoint: &Endpoint,
    context: &Context,
    through: Option<&Client>,
) -> Result<Handle<Verifier>, Failed> {
    let files = context
        .known_hosts(&endpoint.known_hosts)
        .map_err(Failed::Final)?;
    let heard = Heard::default();
    let stream = open(endpoint, through, heard.clone())
        .await
        .map_err(Failed::Final)?;
    let (refusal, new_key) = (Refusal::default(), NewKey::default());
    let config = Arc::new(config(endpoint, &files));
    let verifier = Verifier {
        endpoint: endpoint.clone(),
        files,
        refusal: Arc::clone(&refusal),
        new_key: Arc::clone(&new_key),
    };
    let exchange = client::connect_stream(config, stream, verifier);
    let result =
        stage(endpoint, "exchanging keys", exchange)
            .await
            .map_err(|timeout| match heard.ssh() {
                true => Failed::Final(timeout),
                false => {
                    let message = format!(
                        "`{}` accepted the connection and said nothing for {} s",
                        endpoint.name,
                        endpoint.timeout.as_secs()
                    );
                    Failed::Final(unreachable(UnreachableReason::Timeout, message, None))
                }
            })?;
    let handle = match result {
        Ok(handle) => handle,
        Err(error) => return Err(failed(endpoint, &error, &refusal, &heard)),
    };
    let key = new_key
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let (Some(key), Some(path)) = (key, endpoint.known_hosts.first()) {
        context
            .remember_host(path, &endpoint.key_name, &key)
            .map_err(|error| {
                let message = format!(
                    "the new key of `{}` cannot be written to `{}`: {error}",
                    endpoint.name,
                    path.display()
                );
                Failed::Final(unreachable(
                    UnreachableReason::UnknownHostKey,
                    message,
                    None,
                ))
            })?;
    }
    Ok(handle)
}

fn failed(endpoint: &Endpoint, error: &russh::Error, refusal: &Refusal, heard: &Heard) -> Failed {
    if let Some(refusal) = refusal
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        return Failed::Final(refusal);
    }
    let name = &endpoint.name;
    if !heard.ssh() {
        let said = heard.text();
        let said = if said.is_empty() {
            String::new()
        } else {
            format!("; it said `{said}`")
        };
        let message = format!("`{name}` closed the connection before it said who it is{said}");
        let hint = "if many log in there at once, look at `MaxStartups` and `PerSourcePenalties` in its sshd_config";
        let error = unreachable(UnreachableReason::Down, message, Some(hint.to_owned()));
        return match heard.text().starts_with("HTTP/") {
            true => Failed::Final(error),
            false => Failed::BeforeBanner(error),
        };
    }
    let message = match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let theirs: Vec<String> = theirs
                .iter()
                .map(|name| name.escape_debug().to_string())
                .collect();
            format!(
                "`{name}` and we have no {kind:?} algorithm in common; it has {}",
                theirs.join(", ")
            )
        }
        error => format!("the handshake with `{name}` failed: {error}"),
    };
    Failed::Final(unreachable(UnreachableReason::Down, message, None))
}

/// A byte stream to the endpoint: TCP, or a channel through a jump host.
async fn open(
    endpoint: &Endpoint,
    through: Option<&Client>,
    heard: Heard,
) -> Result<Stream, Unreachable> {
    let Some(jump) = through else {
        return tcp(endpoint, heard).await;
    };
    let port = u32::from(endpoint.port);
    let opening =
        jump.handle
            .channel_open_direct_tcpip(endpoint.address.clone(), port, "127.0.0.1", 0);
    let channel = stage(endpoint, "connecting through the jump host", opening).await?;
    let channel = channel.map_err(|error| {
        let message = format!(
            "the jump host does not connect to `{}`: {error}",
            endpoint.name
        );
        unreachable(
            UnreachableReason::Jump,
            message,
            Some("look at `AllowTcpForwarding` there, and whether the host is up".to_owned()),
        )
    })?;
    Ok(Stream::through(channel.into_stream(), heard))
}

async fn tcp(endpoint: &Endpoint, heard: Heard) -> Result<Stream, Unreachable> {
    let Endpoint {
        name,
        address,
        port,
        ..
    } = endpoint;
    let looked_up = stage(
        endpoint,
        "looking up its address",
        tokio::net::lookup_host((address.as_str(), *port)),
    )
    .await?;
    let all = looked_up.map_err(|error| {
        unreachable(
            UnreachableReason::Down,
            format!("the address of `{name}` (`{address}`) was not found: {error}"),
            None,
        )
    })?;
    let fits = |address: &SocketAddr| match endpoint.family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    let mut worst = unreachable(
        UnreachableReason::Down,
        format!("`{name}` has no address of the wanted family"),
        None,
    );
    for address in all.filter(fits) {
        match stage(
            endpoint,
            "connecting",
            tokio::net::TcpStream::connect(address),
        )
        .await
        {
            Ok(Ok(stream)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("{name}: nodelay: {error}");
                }
                return Ok(Stream::tcp(stream, heard));
            }
            Ok(Err(error)) => {
                let message = format!("no connection to `{name}` ({address}): {error}");
                worst = unreachable(UnreachableReason::Down, message, None);
            }
            Err(timeout) => worst = timeout,
        }
    }
    Err(worst)
}

/// One stage within the endpoint's time limit.
async fn stage<T>(
    endpoint: &Endpoint,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, Unreachable> {
    tokio::time::timeout(endpoint.timeout, work)
        .await
        .map_err(|_| {
            let message = format!(
                "`{}` did not answer within {} s while {what}",
                endpoint.name,
                endpoint.timeout.as_secs()
            );
            unreachable(UnreachableReason::Timeout, message, None)
        })
}

fn config(endpoint: &Endpoint, files: &[Arc<KnownHosts>]) -> client::Config {
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

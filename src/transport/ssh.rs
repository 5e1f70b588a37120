//! A session over SSH: one TCP connection, one channel, the loop on it.
//!
//! Every stage has its time limit. Jump hosts are connections like any other,
//! shared by all hosts behind them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::{ChannelMsg, Disconnect};

use super::auth;
use super::context::Context;
use super::launch::{Launch, start, unreachable};
use super::shell_session::{Incoming, Link, Piece};
use super::ssh_settings::Family;
use super::stream::{Heard, Stream};
use super::target::{Endpoint, Target};
use super::verify::{NewKey, Refusal, Verifier, config};
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
        let is_asking = || context.keys.is_asking();
        unhurried(
            &endpoint.name,
            endpoint.timeout,
            "logging in",
            login,
            is_asking,
        )
        .await??;
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
                    let hint = "something listens there that is no SSH server, or one that hangs: look at `ansible_port` and at the host";
                    Failed::Final(unreachable(
                        UnreachableReason::Timeout,
                        message,
                        Some(hint.to_owned()),
                    ))
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
                // Without it the connection is slower, not broken.
                let _ = stream.set_nodelay(true);
                return Ok(Stream::tcp(stream, heard));
            }
            Ok(Err(error)) => {
                let message = format!("no connection to `{name}` ({address}): {error}");
                let hint =
                    "see that the host is up and that `ansible_host` and `ansible_port` are right";
                worst = unreachable(UnreachableReason::Down, message, Some(hint.to_owned()));
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
    unhurried(&endpoint.name, endpoint.timeout, what, work, || false).await
}

/// The same, but time in which a person is thinking does not count: a limit that
/// passes while `is_asking` begins anew.
async fn unhurried<T>(
    name: &str,
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
    is_asking: impl Fn() -> bool,
) -> Result<T, Unreachable> {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(limit, &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) if is_asking() => {}
            Err(_) => break,
        }
    }
    let message = format!(
        "`{name}` did not answer within {} s while {what}",
        limit.as_secs()
    );
    let hint = "`-T SECONDS` waits longer; see whether `ssh` itself gets through";
    Err(unreachable(
        UnreachableReason::Timeout,
        message,
        Some(hint.to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_a_person_is_asked_does_not_count() {
        let limit = Duration::from_secs(10);
        let rounds = Cell::new(0);
        let asking = || {
            rounds.set(rounds.get() + 1);
            rounds.get() <= 3
        };
        let work = tokio::time::sleep(Duration::from_secs(35));
        let ended = unhurried("h", limit, "logging in", work, asking).await;
        assert!(
            ended.is_ok(),
            "three limits passed while somebody was asked"
        );

        let work = tokio::time::sleep(Duration::from_secs(11));
        let ended = unhurried("h", limit, "logging in", work, || false).await;
        let error = ended.expect_err("the limit passed");
        assert_eq!(error.reason, UnreachableReason::Timeout);
    }
}

//! The bare floor that `tests/bench.sh` measures against: for each host one
//! russh connection, one key, one exec of a given script, and out again.
//!
//! Usage: `floor KEY PORT USER SCRIPT_FILE CONCURRENCY ADDRESS...`
//!
//! It does no more than any SSH tool must do, with the same library and the same
//! probes as `deploy`: what `deploy` takes over this is its own cost. Host keys
//! are accepted unseen; this program is for hosts on loopback only.

use std::process::ExitCode;
use std::sync::Arc;

use russh::client;
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use russh::{ChannelMsg, Preferred};
use tokio::sync::Semaphore;

struct AnyKey;

impl client::Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [key, port, user, script, concurrency, hosts @ ..] = args.as_slice() else {
        return ExitCode::from(64);
    };
    let (Ok(port), Ok(concurrency)) = (port.parse::<u16>(), concurrency.parse::<usize>()) else {
        return ExitCode::from(64);
    };
    let key = Arc::new(load_secret_key(key, None).expect("the key file is readable"));
    let script = Arc::new(std::fs::read_to_string(script).expect("the script is readable"));
    let config = Arc::new(client::Config {
        nodelay: true,
        preferred: Preferred::default(),
        ..client::Config::default()
    });
    let permits = Arc::new(Semaphore::new(concurrency));
    let jobs: Vec<_> = hosts
        .iter()
        .map(|host| {
            let (key, script, config) = (key.clone(), script.clone(), config.clone());
            let (permits, host, user) = (permits.clone(), host.clone(), user.clone());
            tokio::spawn(async move {
                let _permit = permits.acquire_owned().await;
                one(&host, port, &user, key, &script, config).await
            })
        })
        .collect();
    let mut failed = 0;
    for job in jobs {
        match job.await {
            Ok(Ok(bytes)) if bytes > 0 => {}
            _ => failed += 1,
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn one(
    host: &str,
    port: u16,
    user: &str,
    key: Arc<russh::keys::PrivateKey>,
    script: &str,
    config: Arc<client::Config>,
) -> Result<usize, russh::Error> {
    let mut handle = client::connect(config, (host, port), AnyKey).await?;
    let key = PrivateKeyWithHashAlg::new(key, None);
    if !handle.authenticate_publickey(user, key).await?.success() {
        return Err(russh::Error::NotAuthenticated);
    }
    let mut channel = handle.channel_open_session().await?;
    channel.exec(true, script).await?;
    // What the script is part of would wait for more.
    channel.eof().await?;
    let mut bytes = 0;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            bytes += data.len();
        }
    }
    handle
        .disconnect(russh::Disconnect::ByApplication, "", "")
        .await?;
    Ok(bytes)
}

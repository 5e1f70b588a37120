//! The way out: an HTTP request, or a program. Both end within the channel's time, and what is
//! said of a failure names neither a secret nor an address that could be one.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::config::{Road, road};
use super::{Channel, SecretHeader, Url, Way};
use crate::secret::Secret;

/// Most bytes of a file with a secret.
const MOST_SECRET: u64 = 64 << 10;

/// How often a program is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends a message, within the channel's time and within `most`.
///
/// # Errors
/// Says why it did not get there.
pub fn send(channel: &Channel, message: &str, most: Duration) -> Result<(), String> {
    let time = Duration::from_secs(channel.timeout_s.into()).min(most);
    match &channel.way {
        Way::Webhook {
            url,
            headers,
            secret,
        } => post(url, headers, secret.as_ref(), message, time),
        Way::Command(argv) => run(argv, message, time),
    }
}

fn post(
    url: &Url,
    headers: &[(String, String)],
    secret: Option<&SecretHeader>,
    message: &str,
    time: Duration,
) -> Result<(), String> {
    let url = match url {
        Url::Written(url) => Secret::new(url.clone()),
        Url::InFile(file) => read(file)?,
    };
    let Some(road) = road(url.reveal()) else {
        return Err("its address is no https:// or http:// one".to_owned());
    };
    if secret.is_some() && road == Road::Open {
        return Err("a secret goes over https:// only, except to this machine".to_owned());
    }
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let proxy = match road == Road::Here {
        // What stays on this machine goes through no other.
        true => None,
        false => ureq::Proxy::try_from_env(),
    };
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(time))
        // Whoever is told is named in the file, and nobody else gets the secret.
        .max_redirects(0)
        .proxy(proxy)
        .user_agent(concat!("deploy/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build()
        .new_agent();
    let mut request = agent.post(url.reveal());
    let has_type = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !has_type {
        request = request.header("Content-Type", "application/json; charset=utf-8");
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(own) = secret {
        let value = read(&own.file)?;
        request = request.header(&own.header, format!("{}{}", own.prefix, value.reveal()));
    }
    match request.send(message) {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("the answer was {}", answer.status())),
        Err(error) => Err(reason(&error)),
    }
}

/// Why a request failed, without its address.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the answer was {code}"),
        ureq::Error::Timeout(_) => "it took too long".to_owned(),
        ureq::Error::HostNotFound => "its host has no address".to_owned(),
        ureq::Error::ConnectionFailed => "nobody answers there".to_owned(),
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            "its address or a header cannot be used".to_owned()
        }
        _ => "the request failed".to_owned(),
    }
}

/// The first line of a file.
fn read(file: &Path) -> Result<Secret, String> {
    let cannot = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let opened = std::fs::File::open(file).map_err(cannot)?;
    let mut text = String::new();
    opened
        .take(MOST_SECRET)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(format!("{} is empty", file.display())),
    }
}

fn run(argv: &[String], message: &str, time: Duration) -> Result<(), String> {
    let Some((program, words)) = argv.split_first() else {
        return Err("it names no program".to_owned());
    };
    let end = Instant::now() + time;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // With what it starts, so that all of it can be ended.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        let message = message.to_owned();
        // A program that reads nothing holds up nobody; the pipe ends with it.
        std::thread::spawn(move || {
            let _ = input.write_all(message.as_bytes());
        });
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("`{program}` ended with {status}")),
            Ok(None) if Instant::now() < end => std::thread::sleep(PAUSE),
            Ok(None) => {
                let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                if let Some(id) = id {
                    let _ = kill_process_group(id, Signal::KILL);
                }
                let _ = child.wait();
                return Err(format!("`{program}` took longer than {}s", time.as_secs()));
            }
            Err(error) => return Err(format!("`{program}` is lost: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_goes_where_others_can_read_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("url");
        let secret = SecretHeader {
            header: "Authorization".to_owned(),
            prefix: String::new(),
            file: folder.path().join("no-such-secret"),
        };
        let post = |url: &str, secret| {
            std::fs::write(&file, url).expect("ours");
            let url = Url::InFile(file.clone());
            post(&url, &[], secret, "", Duration::from_secs(5)).expect_err("it is not sent")
        };
        for url in [
            "http://192.0.2.1/x",
            "HTTP://192.0.2.1/x",
            "Http://a@192.0.2.1/",
        ] {
            let why = post(url, Some(&secret));
            assert!(why.contains("https:// only"), "{url}: {why}");
        }
        for url in ["ftp://127.0.0.1/", "127.0.0.1:80", "/x", "x y"] {
            assert!(post(url, None).contains("no https://"), "{url}");
        }
        // These may have it: only then it is looked for.
        for url in ["https://192.0.2.1/x", "http://127.0.0.1:1/"] {
            let why = post(url, Some(&secret));
            assert!(why.contains("no-such-secret"), "{url}: {why}");
        }
    }

    #[test]
    fn a_program_gets_the_message_and_its_end_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("got").display().to_string();
        let run = |script: &str, seconds| {
            let argv = ["sh", "-c", script, "sh", &file].map(str::to_owned);
            run(&argv, "hello\n", Duration::from_secs(seconds))
        };
        assert_eq!(run("cat >\"$1\"", 10), Ok(()));
        assert_eq!(std::fs::read_to_string(&file).expect("it"), "hello\n");
        assert!(
            run("exit 3", 10)
                .expect_err("it failed")
                .contains("exit status: 3")
        );
        // With what it has started: nobody holds the file open afterwards.
        let late = run("sleep 60 & sleep 60", 0).expect_err("too long");
        assert!(late.contains("took longer"), "{late}");
        let argv = ["/no/such/program".to_owned()];
        assert!(super::run(&argv, "", Duration::from_secs(1)).is_err());
    }
}

//! Exporters of metrics, the containers that podman runs them in, and `curl`, by which their
//! ports are asked.
//!
//! Written from the vendors' documentation: dcgm-exporter serves on 9400 or `--address`, AMD's
//! on `ServerPort` of its configuration, XPU Manager's web service by gunicorn on `--bind`, where
//! a user is asked for whom `rest.conf` beside it names unless `XPUM_EXPORTER_NO_AUTH` is 1.
//! No port is opened (`sockets`).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::sim::machine::{Host, replace};
use crate::sim::spec::ContainerTool;
use crate::sim::units::UNIT_VARIABLE;
use crate::sim::units::files;
use crate::sim::units::process::Process;

use super::{Call, Outcome, sockets};

/// Where XPU Manager's web service looks for who may read.
const REST_CONF: &str = "/usr/lib/xpum/rest/conf/rest.conf";

/// What an exporter reads of its surroundings.
struct Surroundings<'a> {
    variables: &'a dyn Fn(&str) -> Option<String>,
    /// A path of its own as one of the machine.
    path: &'a dyn Fn(&str) -> String,
}

/// `dcgm-exporter`.
pub(super) fn dcgm(call: &Call<'_>) -> io::Result<Outcome> {
    let listens = option(call.args, &["--address", "-a"]).unwrap_or(":9400".to_owned());
    if let Some(file) = option(call.args, &["--collectors", "-f"])
        && !PathBuf::from(&file).exists()
    {
        return Ok(Outcome::err(
            format!("could not open {file}: no such file or directory\n"),
            1,
        ));
    }
    serve(call.host, &listens, "DCGM_FI_DEV_SM_CLOCK", None)
}

/// `amd-metrics-exporter`.
pub(super) fn amd(call: &Call<'_>) -> io::Result<Outcome> {
    let file = option(call.args, &["-amd-metrics-config"]);
    let text = file
        .and_then(|file| fs::read(file).ok())
        .unwrap_or_default();
    let found: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let port = found["ServerPort"].as_u64().unwrap_or(5000);
    serve(call.host, &format!(":{port}"), "gpu_nodes_total", None)
}

/// `gunicorn`, of XPU Manager's web service.
pub(super) fn gunicorn(call: &Call<'_>) -> io::Result<Outcome> {
    let host = call.host;
    let unit = std::env::var(UNIT_VARIABLE).unwrap_or_default();
    let settings = files::settings(host, &unit);
    let binds = files::words_of(&settings, "Service", "BindReadOnlyPaths");
    let path = |wanted: &str| bound(&binds, wanted);
    let around = Surroundings {
        variables: &|name| std::env::var(name).ok(),
        path: &path,
    };
    let listens = option(call.args, &["--bind", "-b"]).unwrap_or("127.0.0.1:8000".to_owned());
    web_service(host, &listens, &around)
}

fn web_service(host: &Host, listens: &str, around: &Surroundings<'_>) -> io::Result<Outcome> {
    let reader = match (around.variables)("XPUM_EXPORTER_NO_AUTH").as_deref() {
        Some("1") => None,
        _ => match reader(&host.read(&(around.path)(REST_CONF))) {
            Some(reader) => Some(reader),
            None => {
                let text = "No rest.conf found, must run rest_config.py first!\n";
                return Ok(Outcome::err(text, 1));
            }
        },
    };
    serve(host, listens, "xpum_engine_ratio", reader)
}

/// What `rest.conf` says, as Python's configparser reads it.
fn reader(text: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(name, _)| name.trim() == key)?;
        Some(value.trim().to_owned())
    };
    (text.lines().any(|line| line == "[default]")).then_some(())?;
    Some(format!(
        "{} {} {}",
        value("username")?,
        value("salt")?,
        value("password")?
    ))
}

/// The source of a bind mount `SOURCE:TARGET…`, or the path itself.
fn bound(binds: &[String], wanted: &str) -> String {
    let mut pairs = binds.iter().filter_map(|bind| bind.split_once(':'));
    let found = pairs.find(|(_, rest)| rest.split(':').next() == Some(wanted));
    found.map_or(wanted, |(source, _)| source).to_owned()
}

/// The value of an option, `--name VALUE` or `--name=VALUE`.
fn option(args: &[String], names: &[&str]) -> Option<String> {
    all_of(args, names).pop()
}

fn all_of(args: &[String], names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (place, arg) in args.iter().enumerate() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if arg.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        if names.contains(&name) {
            found.extend(value.or_else(|| args.get(place + 1).cloned()));
        }
    }
    found
}

fn port_of(listens: &str) -> &str {
    listens.rsplit(':').next().unwrap_or(listens)
}

/// Serves until it is ended or the machine is gone.
fn serve(host: &Host, listens: &str, metric: &str, reader: Option<String>) -> io::Result<Outcome> {
    let port = port_of(listens);
    let metrics = format!(
        "# HELP {metric} Of a simulated card.\n# TYPE {metric} gauge\n{metric}{{gpu=\"0\"}} 1\n"
    );
    if !sockets::listen(host, port, metrics, reader)? {
        let text = format!("listen tcp {listens}: bind: address already in use\n");
        return Ok(Outcome::err(text, 1));
    }
    stay(host)
}

fn stay(host: &Host) -> io::Result<Outcome> {
    while host.private("state.json").exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Outcome::silent())
}

/// `curl`: asks the machine's own ports.
pub(super) fn curl(call: &Call<'_>) -> io::Result<Outcome> {
    let url = call.args.iter().find_map(|arg| arg.strip_prefix("http://"));
    let Some((authority, path)) = url.and_then(|url| url.split_once('/')) else {
        return Ok(Outcome::err(
            "curl: (3) URL rejected: this stand-in asks http://ADDRESS:PORT/PATH\n",
            3,
        ));
    };
    let port = port_of(authority);
    let (body, code) = match sockets::served(call.host, port) {
        None => {
            let mut refused = Outcome::err(
                format!(
                    "curl: (7) Failed to connect to {authority}: Could not connect to server\n"
                ),
                7,
            );
            refused.stdout = written_out(call, "000").into_bytes();
            return Ok(refused);
        }
        Some(served) if path == "metrics" => match served.reader {
            Some(reader) if !is_reader(call, &reader) => ("Unauthorized Access".to_owned(), "401"),
            _ => (served.metrics, "200"),
        },
        Some(_) => ("404 page not found\n".to_owned(), "404"),
    };
    Ok(Outcome::out(body + &written_out(call, code), 0))
}

fn written_out(call: &Call<'_>, code: &str) -> String {
    let format = option(call.args, &["-w", "--write-out"]).unwrap_or_default();
    format.replace("%{http_code}", code).replace("\\n", "\n")
}

/// Whether `-u USER:PASSWORD` or a header names who may read.
fn is_reader(call: &Call<'_>, reader: &str) -> bool {
    let header = option(call.args, &["-H"]).and_then(|header| {
        let coded = header.strip_prefix("Authorization: Basic ")?.to_owned();
        let plain = base64::engine::general_purpose::STANDARD
            .decode(coded)
            .ok()?;
        String::from_utf8(plain).ok()
    });
    let said = option(call.args, &["-u", "--user"]).or(header);
    let words: Vec<&str> = reader.split(' ').collect();
    match (
        said.as_deref().and_then(|said| said.split_once(':')),
        &words[..],
    ) {
        (Some((user, password)), [username, salt, hash]) => {
            user == *username && Secret::new(password).pbkdf2_sha512(salt, 10_000) == *hash
        }
        _ => false,
    }
}

/// A container that podman runs.
#[derive(Debug, Serialize, Deserialize)]
struct Container {
    process: Option<Process>,
}

/// `podman run` of an image in the foreground, as a unit of Quadlet's calls it. Images that are
/// no exporters stay and do nothing.
pub(super) fn run_container(call: &Call<'_>) -> io::Result<Outcome> {
    let host = call.host;
    let name = option(call.args, &["--name"]).unwrap_or_default();
    for device in all_of(call.args, &["--device"]) {
        let text = if device.starts_with('/') && !host.path(&device).exists() {
            format!("Error: stat {device}: no such file or directory\n")
        } else if !device.starts_with('/') && !is_specified(host, &device) {
            format!("Error: setting up CDI devices: unresolvable CDI devices {device}\n")
        } else {
            continue;
        };
        return Ok(Outcome::err(text, 126));
    }
    let own = Container {
        process: Process::own(),
    };
    let file = host.private(&format!("container-{name}"));
    replace(&file, &serde_json::to_vec(&own)?)?;
    let published = option(call.args, &["--publish", "-p"]).unwrap_or_default();
    let outside = published
        .rsplit_once(':')
        .map_or("", |(outside, _)| outside);
    let image = call.args.last().map_or("", String::as_str);
    let volumes = all_of(call.args, &["--volume", "-v"]);
    let variables = all_of(call.args, &["--env", "-e"]);
    let is = |of: &str| image.contains(of);
    if is("/dcgm-exporter:") {
        serve(host, outside, "DCGM_FI_DEV_SM_CLOCK", None)
    } else if is("/device-metrics-exporter:") {
        serve(host, outside, "gpu_nodes_total", None)
    } else if is("/xpumanager:") {
        let value = |name: &str| {
            let mut pairs = variables.iter().filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let around = Surroundings {
            variables: &value,
            path: &|wanted| bound(&volumes, wanted),
        };
        web_service(host, outside, &around)
    } else {
        stay(host)
    }
}

fn is_specified(host: &Host, device: &str) -> bool {
    let Some((kind, name)) = device.split_once('=') else {
        return false;
    };
    ["/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"]
        .iter()
        .any(|path| {
            let text = host.read(path);
            let names = |line: &str| {
                line.trim().trim_start_matches("- ") == format!("name: {name}")
                    || line.contains(&format!("name: \"{name}\""))
            };
            text.contains(&format!("kind: {kind}")) && text.lines().any(names)
        })
}

/// `podman container inspect --format {{.State.Status}}`.
pub(super) fn inspect(call: &Call<'_>) -> io::Result<Outcome> {
    let name = call.args.last().map_or("", String::as_str);
    if runs(call.host, name) {
        return Ok(Outcome::out("running\n", 0));
    }
    Ok(Outcome::err(
        format!("Error: no such container {name}\n"),
        125,
    ))
}

/// Whether a container of this name runs; Quadlet's are removed when they end.
pub(in crate::sim) fn runs(host: &Host, name: &str) -> bool {
    let text = fs::read(host.private(&format!("container-{name}"))).unwrap_or_default();
    let found: Option<Container> = serde_json::from_slice(&text).ok();
    found
        .and_then(|found| found.process)
        .is_some_and(Process::is_alive)
}

/// Whether podman makes units of this machine's files.
pub(in crate::sim) fn has_quadlet(host: &Host) -> bool {
    host.load().is_ok_and(|machine| {
        machine
            .spec
            .container_tools
            .contains(&ContainerTool::Podman)
    })
}

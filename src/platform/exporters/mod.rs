//! Exporters of metrics for Prometheus: NVIDIA's, AMD's and Intel's, each as a container that
//! podman runs or as a unit of the program that is installed.
//!
//! They get no slices and belong to no word of `gpu_platform`. Nothing is installed here but
//! units, their files and, with a container, its image. What is ours is told by its name.

mod kinds;
mod wanted;

use serde_json::{Value as Json, json};

use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Init, Vendor};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Phase, Step, StepId};
use crate::transport::{PathState, Read};

use super::podman::{self, Apart};
use super::{Host, PlatformFile, View, Wish};
use kinds::{KINDS, Kind};
use wanted::{Login, Run, Wanted};

/// Rounds of PBKDF2 that XPU Manager reckons with.
const ROUNDS: u32 = 10_000;

/// Where what they read is.
const FOLDER: &str = "/etc/deploy/exporters";

/// What XPU Manager's package has for gunicorn.
const WEB_SERVICE: &str = "/usr/lib/xpum/rest";

/// Where XPU Manager looks for who may read.
const REST_CONF: &str = "/usr/lib/xpum/rest/conf/rest.conf";

/// What can be seen to be wrong with `gpu_exporters` without a host.
pub(super) fn check(desired: &Desired, _: &Catalog, problems: &mut Problems) {
    wanted::read(desired, problems);
}

/// Shell functions of its steps.
pub(super) fn library() -> &'static str {
    include_str!("exporters.sh")
}

/// What is to be there, and what no longer.
pub(super) fn wishes(view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let all = read(view)?;
    for kind in &KINDS {
        let paths = [kind.container_file(), kind.unit_file()];
        let more = kind.configuration().map(str::to_owned);
        for path in paths.into_iter().chain(more) {
            host.expect(Read::State {
                path,
                unless: Some(String::new()),
                limit: 256 * 1024,
            });
        }
    }
    let runs = running(host)?;
    let mut wishes = Vec::new();
    let mut containers = Vec::new();
    for one in &all {
        let kind = one.kind;
        let cards = view.facts.gpus.iter().any(|gpu| gpu.vendor == kind.vendor);
        let wanted = one.enabled.value && cards;
        if one.enabled.value && !cards {
            let note = format!("{} is not set up: this host has no card of its", kind.title);
            wishes.push(Wish::Note(note));
        }
        let run = wanted.then_some(one.run.value);
        if run != Some(Run::Container) {
            wishes.extend(gone(kind, Run::Container, &runs, host)?);
        }
        if run != Some(Run::Unit) {
            wishes.extend(gone(kind, Run::Unit, &runs, host)?);
        }
        let reads = match run {
            Some(run) => configured(one, run, &runs, host, &mut wishes)?,
            None => Vec::new(),
        };
        match run {
            Some(Run::Container) => containers.push(container(one, reads)),
            Some(Run::Unit) => wishes.extend(unit(one, &reads, &runs, view, host)?),
            None => {}
        }
        if reads_nothing(one, run)
            && let Some(path) = kind.configuration()
        {
            wishes.push(absent(path));
        }
    }
    if !containers.is_empty() {
        wishes.extend(podman::apart(&containers, view, host)?);
    }
    wishes.push(Wish::Module {
        name: "gpu_unused_folder",
        params: json!({ "path": FOLDER }),
    });
    Ok(wishes)
}

/// Whether each that is wanted runs and gives metrics.
pub(super) fn health(view: &View<'_>, _: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let all = read(view)?;
    let on = all.iter().filter(|one| {
        let mut gpus = view.facts.gpus.iter();
        one.enabled.value && gpus.any(|gpu| gpu.vendor == one.kind.vendor)
    });
    Ok(on.map(|one| Wish::Step(Box::new(answers(one)))).collect())
}

fn read(view: &View<'_>) -> Rendered<Vec<Wanted>> {
    let mut problems = Problems::default();
    let wanted = wanted::read(view.desired, &mut problems);
    super::sound(wanted, problems)
}

/// Vendors whose exporter is to run in a container, whether or not the host has their cards.
pub(super) fn in_containers(desired: &Desired) -> Vec<Vendor> {
    let all = wanted::read(desired, &mut Problems::default());
    let runs = |one: &&Wanted| one.enabled.value && one.run.value == Run::Container;
    all.iter().filter(runs).map(|one| one.kind.vendor).collect()
}

/// Which of our units run.
fn running(host: &mut dyn Host) -> Rendered<Vec<String>> {
    let units = KINDS.iter().flat_map(|kind| [service(kind), kind.unit()]);
    // Without systemd none runs.
    let look = "for u; do case $(systemctl is-active -- \"$u\" 2>/dev/null) in \
                active | activating | reloading) echo \"$u\" ;; esac; done; exit 0";
    let output = host.ask(&Read::Command {
        command: Command::new("sh").args(["-c", look, "sh"]).args(units),
        timeout: std::time::Duration::from_secs(60),
        limit: 64 * 1024,
    })?;
    if !output.success() || output.truncated {
        let message = "which exporters run cannot be told: `systemctl is-active` did not answer";
        return Err(Diagnostic::error(message).into());
    }
    Ok(output.text().lines().map(str::to_owned).collect())
}

fn service(kind: &Kind) -> String {
    format!("{}.service", kind.container())
}

fn name_of(kind: &Kind, run: Run) -> String {
    match run {
        Run::Container => service(kind),
        Run::Unit => kind.unit(),
    }
}

fn absent(path: &str) -> Wish {
    Wish::Module {
        name: "file",
        params: json!({ "path": path, "state": "absent" }),
    }
}

/// What takes one form of an exporter away, as far as it is there.
fn gone(kind: &Kind, form: Run, runs: &[String], host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let name = name_of(kind, form);
    let path = match form {
        Run::Container => kind.container_file(),
        Run::Unit => kind.unit_file(),
    };
    if host.look(&path)? == PathState::Absent {
        return Ok(Vec::new());
    }
    let mut wishes = Vec::new();
    if form == Run::Unit {
        // Its link must not stay behind its file.
        wishes.push(Wish::Module {
            name: "systemd",
            params: json!({ "name": name, "enabled": false }),
        });
    }
    let runs = runs.contains(&name);
    wishes.extend(podman::without(&name, &[path], runs));
    Ok(wishes)
}

/// Whether nothing reads an exporter's configuration any more.
fn reads_nothing(one: &Wanted, run: Option<Run>) -> bool {
    match (one.kind.key, run) {
        ("amd", Some(Run::Unit)) => false,
        ("intel", Some(_)) => one.login.is_none(),
        _ => true,
    }
}

/// Writes what an exporter reads, and gives back which files those are.
fn configured(
    one: &Wanted,
    run: Run,
    runs: &[String],
    host: &mut dyn Host,
    wishes: &mut Vec<Wish>,
) -> Rendered<Vec<String>> {
    let unit = name_of(one.kind, run);
    let runs = runs.contains(&unit);
    let Some(path) = one
        .kind
        .configuration()
        .filter(|_| !reads_nothing(one, Some(run)))
    else {
        return Ok(Vec::new());
    };
    wishes.push(podman::folder(FOLDER));
    let file = |template: &'static str, mode: &'static str, vars: Json| PlatformFile {
        template,
        dest: path.to_owned(),
        mode,
        owner: None,
        vars,
    };
    match &one.login {
        Some(login) => {
            let note = format!(
                "{} asks for a user and password, and both go over the network as they are: it has no TLS here",
                one.kind.title
            );
            wishes.push(Wish::Note(note));
            let vars = login_vars(login, host)?;
            let file = file("exporter_rest_conf.j2", "0600", vars);
            wishes.push(podman::file_of(&unit, file, true, runs));
        }
        None => {
            let vars = json!({ "port": one.port.value });
            let file = file("exporter_amd_config.j2", "0644", vars);
            wishes.push(podman::file_of(&unit, file, false, runs));
        }
    }
    Ok(vec![path.to_owned()])
}

/// The one user, with what is reckoned from the password. The salt is the host's own and the
/// same each time, so that a password that stays makes the file stay.
fn login_vars(login: &Login, host: &mut dyn Host) -> Rendered<Json> {
    use sha2::{Digest, Sha256};
    let own = match host.look("/etc/machine-id")? {
        PathState::File {
            content: Some(content),
            ..
        } => content,
        _ => Vec::new(),
    };
    let digest = Sha256::new()
        .chain_update(b"gpu_exporters")
        .chain_update(login.username.as_bytes())
        .chain_update(own)
        .finalize();
    let salt: String = digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(json!({
        "username": login.username,
        "password": login.password.pbkdf2_sha512(&salt, ROUNDS),
        "salt": salt,
    }))
}

/// As an entry of `gpu_podman.containers`.
fn container(one: &Wanted, reads: Vec<String>) -> Apart {
    let kind = one.kind;
    let port = match one.address {
        Some(std::net::IpAddr::V6(address)) => {
            format!("[{address}]:{}:{}", one.port.value, kind.port)
        }
        Some(address) => format!("{address}:{}:{}", one.port.value, kind.port),
        None => format!("{}:{}", one.port.value, kind.port),
    };
    let mut entry = json!({
        "name": kind.container(),
        "image": one.image.value,
        "pull": one.pull.value,
        "ports": [port],
        "privileged": one.privileged.value,
        // The vendors' images write beside their programs.
        "read_only": kind.key == "intel",
    });
    if one.profiling.value && !one.privileged.value {
        entry["capabilities"] = json!([kind.profiling]);
    }
    match kind.key {
        "dcgm" => {
            if let Some(file) = &one.collectors {
                entry["volumes"] = json!([format!("{0}:{0}:ro", file.value)]);
                entry["environment"] = json!({ "DCGM_EXPORTER_COLLECTORS": file.value });
            } else if one.profiling.value {
                let file = "/etc/dcgm-exporter/dcp-metrics-included.csv";
                entry["environment"] = json!({ "DCGM_EXPORTER_COLLECTORS": file });
            }
        }
        "intel" => {
            entry["tmpfs"] = json!(["/tmp"]);
            entry["environment"] = json!(
                intel_environment(one)
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
            );
            if let Some(file) = reads.first() {
                entry["volumes"] = json!([format!("{file}:{REST_CONF}:ro")]);
            }
        }
        _ => {}
    }
    Apart {
        entry,
        devices: kind.devices.iter().map(|name| (*name).to_owned()).collect(),
        reads,
    }
}

/// Metrics alone, without the interface by which XPU Manager changes cards.
fn intel_environment(one: &Wanted) -> Vec<(String, Json)> {
    let mut names = vec!["XPUM_REST_NO_TLS", "XPUM_EXPORTER_ONLY"];
    if one.login.is_none() {
        names.push("XPUM_EXPORTER_NO_AUTH");
    }
    let one = |name: &str| (name.to_owned(), json!("1"));
    names.into_iter().map(one).collect()
}

/// The unit of a program that is installed.
fn unit(
    one: &Wanted,
    reads: &[String],
    runs: &[String],
    view: &View<'_>,
    host: &mut dyn Host,
) -> Rendered<Vec<Wish>> {
    let kind = one.kind;
    if let Init::Other(init) = &view.facts.init {
        let message = format!(
            "this host does not run systemd but {init}, and {} is a unit of it here",
            kind.title
        );
        return Err(Diagnostic::error(message).into());
    }
    let mut needed = vec![one.binary.value.as_str()];
    if kind.key == "intel" {
        needed.push(WEB_SERVICE);
    }
    for path in needed {
        if host.look(path)? != PathState::Absent {
            continue;
        }
        let message = format!(
            "{} is not installed on this host: there is no {path}",
            kind.title
        );
        let hint = format!(
            "install {}, say where it is (`binary`), or have it run as a container (`run: container`)",
            kind.package
        );
        let problem = Diagnostic::error(message).hint(hint);
        return Err(one.run.blame(problem).into());
    }
    let listen = match one.address {
        Some(std::net::IpAddr::V6(address)) => format!("[{address}]:{}", one.port.value),
        Some(address) => format!("{address}:{}", one.port.value),
        None if kind.key == "intel" => format!("0.0.0.0:{}", one.port.value),
        None => format!(":{}", one.port.value),
    };
    let binary = &one.binary.value;
    let mut folder = None;
    let mut binds: Vec<String> = Vec::new();
    let mut environment: Vec<String> = Vec::new();
    let command = match kind.key {
        "dcgm" => {
            let profiling = "/etc/dcgm-exporter/dcp-metrics-included.csv";
            let collectors = match (&one.collectors, one.profiling.value) {
                (Some(file), _) => Some(file.value.as_str()),
                (None, true) => Some(profiling),
                (None, false) => None,
            };
            let collectors = collectors.map(|file| format!(" --collectors {file}"));
            format!(
                "{binary} --address {listen}{}",
                collectors.unwrap_or_default()
            )
        }
        "amd" => format!("{binary} -amd-metrics-config {}", reads.join(" ")),
        _ => {
            folder = Some(WEB_SERVICE);
            environment = intel_environment(one)
                .into_iter()
                .map(|(name, _)| format!("{name}=1"))
                .collect();
            binds.extend(reads.iter().map(|file| format!("{file}:{REST_CONF}")));
            format!(
                "{binary} --bind {listen} --worker-class gthread --threads 4 --workers 1 xpum_rest_main:main()"
            )
        }
    };
    let vars = json!({
        "title": kind.title,
        "after": kind.after,
        "command": command,
        "capabilities": if one.profiling.value { kind.profiling } else { "" },
        "environment": environment,
        "folder": folder,
        "binds": binds,
    });
    let name = kind.unit();
    let file = PlatformFile {
        template: "exporter_unit.j2",
        dest: kind.unit_file(),
        mode: "0644",
        owner: None,
        vars,
    };
    let mut wishes = Vec::new();
    if one.profiling.value {
        let note = format!("unit {name} has the capability {}", kind.profiling);
        wishes.push(Wish::Note(note));
    }
    if one.address.is_some() && kind.key == "amd" {
        let note = format!(
            "{} has no `address`: as a unit it listens on all",
            kind.title
        );
        wishes.push(Wish::Note(note));
    }
    let mut steps = podman::root_unit(&name, file, reads, runs.contains(&name));
    let start = steps.pop();
    wishes.append(&mut steps);
    wishes.push(Wish::Module {
        name: "systemd",
        params: json!({ "name": name, "enabled": true, "daemon_reload": true }),
    });
    wishes.extend(start);
    Ok(wishes)
}

/// Looks whether an exporter runs and its port gives metrics, or asks who wants them.
fn answers(one: &Wanted) -> Step {
    let kind = one.kind;
    let name = name_of(kind, one.run.value);
    let what = format!(
        "{} runs, and port {} answers /metrics",
        kind.title, one.port.value
    );
    let change = Change::Check { what: what.clone() };
    let id = StepId(format!("exporter:{}:health", kind.key));
    let mut step = Step::new(id, "", format!("check that {what}"), change);
    step.phase = Phase::Check;
    let address = match one.address {
        // As a unit, AMD's listens on all.
        Some(address) if !address.is_unspecified() => match address {
            std::net::IpAddr::V6(address) => format!("[{address}]"),
            std::net::IpAddr::V4(address) => address.to_string(),
        },
        _ => "127.0.0.1".to_owned(),
    };
    let who = if one.login.is_some() { "asks" } else { "open" };
    let call = Command::new("exporter_answers").args([
        name,
        address,
        one.port.value.to_string(),
        who.to_owned(),
        one.wait_s.value.to_string(),
    ]);
    step.verify = Script::one(call);
    step.timeout_s = one.wait_s.value + 60;
    step
}

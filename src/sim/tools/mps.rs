//! `nvidia-cuda-mps-control`: the control daemon of NVIDIA's Multi-Process Service and the
//! program that talks to it.
//!
//! Commands, their defaults and units are those of NVIDIA's documentation of MPS (legacy
//! interface); the answers are those that public logs show: `25.0` for a percentage, whole
//! GiB for limits from one GiB on (driver 595.91.07), `Cannot find MPS control daemon process`
//! with status 1 where none answers, sockets that stay behind when a daemon is killed.
//!
//! A daemon is a process of the machine that belongs to whoever started it, so that it ends
//! with its unit. What it was told stands in a file beside its sockets that no real one has.
//! No CUDA program runs here: servers come by `start_server` alone.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sim::host;
use crate::sim::machine::{Host, replace};
use crate::sim::spec::{FIRST_PID, HolderSpec};
use crate::sim::units::process::Process;

use super::{Call, Outcome};

pub(super) const NAME: &str = "nvidia-cuda-mps-control";

/// The option by which this binary becomes the daemon itself.
const STAY: &str = "--stay";

/// Where pipes and logs go if the environment does not say it.
const PIPES: (&str, &str) = ("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps");
const LOGS: (&str, &str) = ("CUDA_MPS_LOG_DIRECTORY", "/var/log/nvidia-mps");

/// What a daemon makes in its directory.
const SOCKETS: [&str; 4] = ["control", "control_lock", "control_privileged", "log"];

/// Longest path of a socket: `sun_path` without its end.
const LONGEST: usize = 107;

/// One daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Daemon {
    process: Option<Process>,
    pid: u32,
    /// `CUDA_VISIBLE_DEVICES` of the daemon; all cards if it was not set.
    device: Option<String>,
    percentage: f64,
    /// Limits in MiB by device.
    limits: BTreeMap<String, u64>,
    /// Servers by pid.
    servers: Vec<u32>,
}

fn folder(host: &Host, (variable, default): (&str, &str)) -> PathBuf {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.starts_with(host.root()) => path,
        Some(path) => host.path(path.to_string_lossy()),
        None => host.path(default),
    }
}

fn record(pipes: &Path) -> PathBuf {
    pipes.join(".simulated")
}

fn load(pipes: &Path) -> Option<Daemon> {
    serde_json::from_slice(&std::fs::read(record(pipes)).ok()?).ok()
}

fn save(pipes: &Path, daemon: &Daemon) -> io::Result<()> {
    replace(&record(pipes), &serde_json::to_vec(daemon)?)
}

fn answering(pipes: &Path) -> Option<Daemon> {
    load(pipes).filter(|daemon| daemon.process.is_some_and(Process::is_alive))
}

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let host = call.host;
    if !host
        .load()
        .is_ok_and(|machine| machine.spec.driver.is_some())
    {
        return Ok(Outcome::err(format!("sh: 1: {NAME}: not found\n"), 127));
    }
    let pipes = folder(host, PIPES);
    match call.args.first().map(String::as_str) {
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            talk(host, &pipes, &text)
        }
        Some("-d") => start(host, &pipes),
        Some(STAY) => stay(host, &pipes),
        Some("-f") => start(host, &pipes).and_then(|started| match started.status {
            0 => stay(host, &pipes),
            _ => Ok(started),
        }),
        Some(other) => Ok(Outcome::err(
            format!("{NAME}: invalid option -- '{other}'\n"),
            1,
        )),
    }
}

/// `-d`: starts the daemon and leaves it behind.
fn start(host: &Host, pipes: &Path) -> io::Result<Outcome> {
    let unknown = unknown_device(host)?;
    let _lock = host.lock()?;
    if answering(pipes).is_some() {
        let text = "An instance of this daemon is already running\n";
        return Ok(Outcome::out(text, 1));
    }
    // As the machine itself would see the path.
    let own = Path::new("/").join(pipes.strip_prefix(host.root()).unwrap_or(pipes));
    if own.join(SOCKETS[2]).as_os_str().len() > LONGEST {
        return Ok(Outcome::out(NONE, 1));
    }
    std::fs::create_dir_all(pipes)?;
    let logs = folder(host, LOGS);
    std::fs::create_dir_all(&logs)?;
    if let Some(device) = unknown {
        // It starts, and ends when it looks for its devices.
        std::fs::write(
            logs.join("control.log"),
            format!("Failed to find device {device}\n"),
        )?;
        return Ok(Outcome::silent());
    }
    for socket in SOCKETS {
        std::fs::write(pipes.join(socket), "")?;
    }
    let binary = std::fs::read_link(host.path("/usr/bin/systemctl"))?;
    let child = Command::new(binary)
        .arg0(NAME)
        .arg(STAY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = child.id();
    let daemon = Daemon {
        process: Process::of(pid),
        pid,
        device: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        percentage: 100.0,
        ..Daemon::default()
    };
    save(pipes, &daemon)?;
    std::fs::write(pipes.join(format!("{NAME}.pid")), format!("{pid}\n"))?;
    std::fs::write(logs.join("control.log"), "Start\n")?;
    Ok(Outcome::silent())
}

/// A device of `CUDA_VISIBLE_DEVICES` that is not on the machine.
fn unknown_device(host: &Host) -> io::Result<Option<String>> {
    let machine = host.load()?;
    let known = |name: &str| {
        machine.gpus.iter().enumerate().any(|(index, gpu)| {
            let is_slice = gpu.instances.iter().any(|instance| {
                let mut compute = instance.compute.iter();
                compute.any(|ci| {
                    let old = format!("MIG-{}/{}/{}", gpu.uuid, instance.id, ci.id);
                    name == gpu.mig_uuid(instance.id, ci.id) || name == old
                })
            });
            // A card in MIG mode can be used by its slices alone.
            is_slice || (!gpu.mig && (name == gpu.uuid || name.parse() == Ok(index)))
        })
    };
    let devices = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let mut devices = devices.split(',').filter(|name| !name.is_empty());
    Ok(devices.find(|name| !known(name)).map(str::to_owned))
}

/// Is the daemon, until it is told to end or its directory is gone.
fn stay(host: &Host, pipes: &Path) -> io::Result<Outcome> {
    let own = std::process::id();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let unit = host.private("state.json").exists();
        // The record is written once we are there.
        let told = load(pipes).is_some_and(|daemon| daemon.process.is_none());
        let replaced = load(pipes).is_some_and(|daemon| {
            daemon.pid != own && daemon.process.is_some_and(Process::is_alive)
        });
        if !unit || told || replaced || !pipes.exists() {
            return Ok(Outcome::silent());
        }
    }
}

const NONE: &str = "Cannot find MPS control daemon process\n";

fn talk(host: &Host, pipes: &Path, text: &str) -> io::Result<Outcome> {
    let mut said = String::new();
    for line in text.lines() {
        let _lock = host.lock()?;
        let Some(mut daemon) = answering(pipes) else {
            return Ok(Outcome::out(said + NONE, 1));
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            ["get_server_list"] => {
                for server in &daemon.servers {
                    said.push_str(&format!("{server}\n"));
                }
            }
            ["get_client_list", _] | ["get_device_client_list", ..] => {}
            ["ps"] => {
                said.push_str(
                    "PID       ID    SERVER    DEVICE             NAMESPACE    COMMAND\n",
                );
            }
            ["get_default_active_thread_percentage"] => {
                said.push_str(&format!("{:.1}\n", daemon.percentage));
            }
            ["set_default_active_thread_percentage", value] => match value.parse::<f64>() {
                Ok(value) if value > 0.0 && value <= 100.0 => daemon.percentage = value,
                _ => said.push_str("Failed to set the active thread percentage\n"),
            },
            ["set_default_device_pinned_mem_limit", device, value] => match mib(value) {
                Some(limit) => {
                    daemon.limits.insert(device.to_owned(), limit);
                }
                None => said.push_str("Failed to set the device pinned memory limit\n"),
            },
            ["get_default_device_pinned_mem_limit", device] => {
                said.push_str(&shown(daemon.limits.get(device).copied().unwrap_or(0)));
            }
            ["start_server", "-uid", _] => {
                let server = serve(host, daemon.device.as_deref())?;
                daemon.servers.push(server);
            }
            ["quit"] | ["quit", "-t", _] => {
                let servers = std::mem::take(&mut daemon.servers);
                leave(host, &servers)?;
                daemon.process = None;
            }
            _ => said.push_str(&format!("Unknown command: {line}\n")),
        }
        save(pipes, &daemon)?;
    }
    Ok(Outcome::out(said, 0))
}

/// MiB of `900M` or `8G`.
fn mib(value: &str) -> Option<u64> {
    match value.split_at_checked(value.len().checked_sub(1)?)? {
        (number, "M") => number.parse().ok(),
        (number, "G") => number.parse::<u64>().ok()?.checked_mul(1024),
        _ => None,
    }
}

fn shown(mib: u64) -> String {
    match mib / 1024 {
        0 => format!("{mib}M\n"),
        gib => format!("{gib}G\n"),
    }
}

/// A server, which has its card open from then on. The lock is held.
fn serve(host: &Host, device: Option<&str>) -> io::Result<u32> {
    let mut machine = host.load()?;
    let card = machine.gpus.iter().position(|gpu| {
        let slices = gpu.instances.iter().flat_map(|instance| {
            let mut compute = Vec::new();
            for ci in &instance.compute {
                compute.push(gpu.mig_uuid(instance.id, ci.id));
            }
            compute
        });
        device.is_none_or(|device| device == gpu.uuid || slices.into_iter().any(|s| s == device))
    });
    let pids = machine.holders.iter().map(|holder| holder.pid + 1);
    let pid = pids.max().unwrap_or(FIRST_PID);
    machine.holders.push(HolderSpec {
        gpu: card.and_then(|card| u32::try_from(card).ok()).unwrap_or(0),
        pid,
        command: "nvidia-cuda-mps-server".chars().take(15).collect(),
        unit: device.map(|device| format!("deploy-mps-{}.service", device.replace('/', "_"))),
        compute: true,
        node: None,
    });
    write(host, &machine)?;
    Ok(pid)
}

fn leave(host: &Host, servers: &[u32]) -> io::Result<()> {
    let mut machine = host.load()?;
    machine
        .holders
        .retain(|holder| !servers.contains(&holder.pid));
    write(host, &machine)
}

fn write(host: &Host, machine: &crate::sim::machine::Machine) -> io::Result<()> {
    host::write_holders(host, machine)?;
    replace(
        &host.private("state.json"),
        &serde_json::to_vec_pretty(machine)?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shown_as_public_logs_show_them() {
        assert_eq!(shown(mib("1044M").expect("a limit")), "1G\n");
        assert_eq!(shown(mib("900M").expect("a limit")), "900M\n");
        assert_eq!(shown(mib("8G").expect("a limit")), "8G\n");
        assert_eq!(mib("8"), None);
        assert_eq!(mib("1.5G"), None);
    }
}

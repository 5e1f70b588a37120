//! A cluster behind a simulated host's `kubectl`: an API server for the kinds of objects that
//! GPUs need, and the operators that answer to them.
//!
//! The host's `kubectl` is the real one, started with an API server beside it that lives as
//! long as the call; what the cluster holds stands in a file of the host. So there is nothing to
//! start or to stop, and each call sees what the last one left. A person's `kubectl` and ours
//! are served alike.

mod admission;
mod api;
mod cluster;
mod dcm;
mod exec;
mod fields;
mod http;
mod kinds;
mod mig;
mod operator;
mod patch;
mod server;
mod setup;
pub(super) mod spec;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::machine::{Host, Machine};

pub use operator::OperatorFault;

/// The part of the `sim:` variable that says which cluster a host's `kubectl` reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClusterSpec {
    /// The `kubectl` that is run, where it is not the first on the path.
    pub(super) kubectl: Option<PathBuf>,
    /// Nodes with the key of their product and how many cards they have.
    pub(super) nodes: Vec<NodeSpec>,
    /// The namespace of NVIDIA's operator; empty where there is none.
    pub(super) operator: String,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeSpec {
    /// Its name.
    pub(super) name: String,
    /// Key of the product of its cards.
    pub(super) product: String,
    /// How many cards.
    pub(super) count: u32,
}

/// What a host with such a cluster has from the start.
pub(super) fn set_up(host: &Host, machine: &Machine) -> io::Result<()> {
    if machine.spec.kubernetes.is_some() {
        host.write("/etc/kubernetes/admin.conf", KUBECONFIG)?;
    }
    Ok(())
}

/// The server is given by an option.
const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster: {server: 'http://127.0.0.1:6443'}
users:
- name: kubernetes-admin
  user: {token: simulated}
contexts:
- name: kubernetes-admin@kubernetes
  context: {cluster: kubernetes, user: kubernetes-admin}
current-context: kubernetes-admin@kubernetes
";

/// Runs `kubectl` with the arguments, and gives back its exit status.
pub(super) fn run(host: &Host, spec: &ClusterSpec, args: &[String]) -> io::Result<i32> {
    let Some(kubectl) = find(host, spec) else {
        let message = "the simulated cluster is spoken to by the real kubectl: install it, or name it by `kubectl` in `sim: {kubernetes: …}`";
        return Err(io::Error::other(message));
    };
    let machine = host.load()?;
    let server = server::start(host.clone(), move |cluster| setup::fill(cluster, &machine))?;
    let private = host.private(&format!("kubectl-{}", std::process::id()));
    fs::create_dir_all(&private)?;
    let config = private.join("config");
    fs::write(&config, KUBECONFIG)?;
    let named = named_config(args).or_else(|| std::env::var("KUBECONFIG").ok());
    let mut command = Command::new(kubectl);
    // One that is named and not there is kubectl's to complain of.
    match named.filter(|named| !Path::new(named).exists()) {
        Some(_) => &mut command,
        None => command.env("KUBECONFIG", &config),
    };
    command.arg(format!("--server=http://{server}"));
    command.arg("--cache-dir").arg(private.join("cache"));
    let status = command.args(without_config(args)).status();
    let _ = fs::remove_dir_all(&private);
    Ok(status?.code().unwrap_or(1))
}

fn named_config(args: &[String]) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--kubeconfig" {
            return args.next().cloned();
        }
        if let Some(path) = arg.strip_prefix("--kubeconfig=") {
            return Some(path.to_owned());
        }
    }
    None
}

/// The arguments, without a configuration that exists: it says which server.
fn without_config(args: &[String]) -> Vec<String> {
    let is_there = named_config(args).is_some_and(|named| Path::new(&named).exists());
    let mut kept = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if is_there && arg == "--kubeconfig" {
            args.next();
        } else if !is_there || !arg.starts_with("--kubeconfig=") {
            kept.push(arg.clone());
        }
    }
    kept
}

/// The real `kubectl`: the one that is named, or the first outside the host.
fn find(host: &Host, spec: &ClusterSpec) -> Option<PathBuf> {
    if let Some(named) = &spec.kubectl {
        return Some(named.clone());
    }
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).filter(|folder| !folder.starts_with(host.root()));
    folders
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.is_file())
}

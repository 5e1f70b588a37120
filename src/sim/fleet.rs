//! Starts the server of a simulated fleet and tells how each host is reached.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use sha2::{Digest, Sha256};

use crate::error::{Diagnostic, Problems};
use crate::value::{HostName, Vars};

use super::confine::{Confinement, confinement};
use super::host;
use super::machine::Host;
use super::server::{Server, SimulatedHost};
use super::spec;

/// Where and with what a fleet runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of keys and hosts; see `default_state_dir`.
    pub state_dir: PathBuf,
    /// The binary that the hosts' tools link to: this one.
    pub binary: PathBuf,
    /// Address to listen on; port 0 takes any that is free.
    pub listen: SocketAddr,
}

impl Options {
    /// A fleet in `state_dir` with tools of the running binary, on any port.
    ///
    /// # Errors
    /// If the path of the running binary cannot be found.
    pub fn new(state_dir: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            state_dir: state_dir.into(),
            binary: std::env::current_exe()?,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        })
    }
}

/// How a simulated host is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where the server listens; the same for all hosts.
    pub addr: SocketAddr,
    /// User to log in as; it is what names the host.
    pub user: String,
    /// File with the private key.
    pub private_key: PathBuf,
    /// The key that the server shows.
    pub host_public_key: PublicKey,
    /// The host's folder: its root prefix.
    pub root: PathBuf,
}

/// A running fleet. It ends when this is dropped; the hosts' folders stay.
#[derive(Debug)]
pub struct Fleet {
    addr: SocketAddr,
    private_key: PathBuf,
    host_public_key: PublicKey,
    state_dir: PathBuf,
    roots: BTreeMap<String, PathBuf>,
    confinement: Confinement,
    task: tokio::task::JoinHandle<()>,
}

impl Fleet {
    /// Starts the server for hosts with their variables. Hosts that are not
    /// simulated are passed over. A host's folder is made when it is first used.
    ///
    /// # Errors
    /// Everything that is wrong in `sim:` variables, or that the state folder or
    /// the port cannot be had.
    pub async fn start(hosts: &[(HostName, Vars)], options: &Options) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut simulated = BTreeMap::new();
        for (name, vars) in hosts.iter().filter(|(_, vars)| spec::is_simulated(vars)) {
            let (spec, found) = spec::read(vars);
            problems.extend(found);
            let root = root_of(&options.state_dir, name);
            let host = SimulatedHost::new(name.as_str(), spec, root);
            simulated.insert(name.as_str().to_owned(), Arc::new(host));
        }
        problems = match problems.has_errors() {
            true => return Err(problems),
            false => Problems::default(),
        };
        let state = |error: io::Error| {
            let text = format!(
                "the simulated fleet's folder {} cannot be used: {error}",
                options.state_dir.display()
            );
            Problems::from(
                Diagnostic::error(text).hint("pass another with --state-dir or DEPLOY_SIM_STATE"),
            )
        };
        private_dir(&options.state_dir).map_err(state)?;
        let host_key = key(&options.state_dir.join("host_key")).map_err(state)?;
        let private_key = options.state_dir.join("client_key");
        let client_key = key(&private_key).map_err(state)?;
        let listener = tokio::net::TcpListener::bind(options.listen)
            .await
            .and_then(|listener| {
                let addr = listener.local_addr()?;
                Ok((listener, addr))
            });
        let (listener, addr) = match listener {
            Ok(pair) => pair,
            Err(error) => {
                let text = format!(
                    "the simulated fleet cannot listen on {}: {error}",
                    options.listen
                );
                problems.push(Diagnostic::error(text));
                return Err(problems);
            }
        };
        let roots = simulated
            .iter()
            .map(|(name, host)| (name.clone(), host.root().to_owned()))
            .collect();
        let host_public_key = host_key.public_key().clone();
        let server = Server::new(
            simulated,
            client_key.public_key().clone(),
            host_key,
            options.binary.clone(),
        );
        Ok(Self {
            addr,
            private_key,
            host_public_key,
            state_dir: options.state_dir.clone(),
            roots,
            confinement: confinement(),
            task: tokio::spawn(server.run(listener)),
        })
    }

    /// How a host is reached; nothing if it is not one of the simulated ones.
    #[must_use]
    pub fn endpoint(&self, host: &HostName) -> Option<Endpoint> {
        Some(Endpoint {
            addr: self.addr,
            user: host.as_str().to_owned(),
            private_key: self.private_key.clone(),
            host_public_key: self.host_public_key.clone(),
            root: self.roots.get(host.as_str())?.clone(),
        })
    }

    /// Where the server listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until the server ends, which it does not by itself.
    pub async fn wait(mut self) {
        // An error is a panic or an abort of the server's: then there is nothing to wait for.
        let _ = (&mut self.task).await;
    }

    /// Whether what runs on the hosts can write nowhere else.
    #[must_use]
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Writes an `ssh_config` and a `known_hosts` with which plain `ssh -F FILE HOST`
    /// reaches every host, and gives back the path of the first.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn write_ssh_config(&self) -> io::Result<PathBuf> {
        let state_dir = &self.state_dir;
        let known_hosts = state_dir.join("known_hosts");
        let public = self
            .host_public_key
            .to_openssh()
            .map_err(io::Error::other)?;
        fs::write(&known_hosts, format!("deploy-sim {public}\n"))?;
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let mut text = String::from("# Written by `deploy sim serve`; valid while it runs.\n");
        for name in self.roots.keys() {
            text.push_str(&format!("Host {name}\n    User {name}\n"));
        }
        text.push_str(&format!(
            "Host *\n    HostName {}\n    Port {}\n    HostKeyAlias deploy-sim\n    IdentityFile {}\n    IdentitiesOnly yes\n    \
             UserKnownHostsFile {}\n    GlobalKnownHostsFile none\n    LogLevel ERROR\n",
            self.addr.ip(),
            self.addr.port(),
            quoted(&self.private_key),
            quoted(&known_hosts),
        ));
        let path = state_dir.join("ssh_config");
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A host's folder. Names that are no plain file names are written in hexadecimal.
#[must_use]
pub fn root_of(state_dir: &Path, name: &HostName) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let mut file = String::new();
    for byte in name.as_str().bytes() {
        if plain(byte) && !(file.is_empty() && byte == b'.') {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02x}"));
        }
    }
    state_dir.join("hosts").join(file)
}

/// Makes the folder of one simulated host, if it is not there, and gives it back.
///
/// # Errors
/// What is wrong in the `sim:` variable, or that the folder cannot be made.
pub fn make(name: &HostName, vars: &Vars, options: &Options) -> Result<PathBuf, Problems> {
    let (spec, problems) = spec::read(vars);
    let spec = problems.or(spec)?;
    let root = root_of(&options.state_dir, name);
    let made = private_dir(&options.state_dir)
        .and_then(|()| host::ensure(&Host::new(&root), name.as_str(), &spec, &options.binary));
    made.map_err(|error| Diagnostic::error(format!("simulated host {name}: {error}")))?;
    Ok(root)
}

/// Where the state of an inventory's simulated fleet is kept: `DEPLOY_SIM_STATE`,
/// or a folder of the inventory's own in the user's state folder.
#[must_use]
pub fn default_state_dir(inventory: &[PathBuf]) -> PathBuf {
    if let Some(path) = std::env::var_os("DEPLOY_SIM_STATE").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .filter(|path| Path::new(path).is_absolute())
        .map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = base.or_else(home).unwrap_or_else(std::env::temp_dir);
    let mut hash = Sha256::new();
    for source in inventory {
        let real = fs::canonicalize(source).unwrap_or_else(|_| source.clone());
        hash.update(real.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    let hex: String = hash.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    base.join("deploy/sim").join(hex)
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path.join("hosts"))
}

/// The key in a file, made if there is none. Two that start at once agree: the
/// file is linked into place complete, and only once.
fn key(path: &Path) -> io::Result<PrivateKey> {
    if !path.exists() {
        let mut rng = russh::keys::key::safe_rng();
        let new = PrivateKey::random(&mut rng, Algorithm::Ed25519).map_err(io::Error::other)?;
        let text = new.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let part = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        let linked = fs::hard_link(&part, path);
        fs::remove_file(&part)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    PrivateKey::from_openssh(fs::read(path)?).map_err(io::Error::other)
}

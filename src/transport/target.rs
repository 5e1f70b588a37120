//! Where and as whom a host is reached: connection variables, flags and the
//! user's `ssh_config`, with Ansible's precedence, as one `Target`.
//!
//! An inventory variable wins over the command line, which wins over
//! `ssh_config`. Variables must have been rendered; a template left in one is
//! an error. Nothing is connected here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::arguments::split_hop;
use super::known_hosts::{HostKeyPolicy, KeyName};
use super::launch::As;
use super::names;
use super::ssh_config::{self, Setting, SshConfig};
use super::ssh_settings::{self, AgentChoice, Family, HostSettings};
use crate::error::{Diagnostic, Problems};
use crate::secret::Secret;
use crate::value::HostName;
use crate::value::{Node, Tag, Value, Vars};

/// Ansible's default for `ansible_ssh_timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// With three unanswered ones a dead connection is noticed within a minute.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Hops that one host may need; more is a circle.
const MOST_HOPS: usize = 8;

/// What the command line says of connections. Cheap to clone; clones share the
/// configuration files they have read.
#[derive(Debug, Clone, Default)]
pub struct ConnectionFlags {
    /// `-u`.
    pub user: Option<String>,
    /// `-b`.
    pub escalate: bool,
    /// `--become-user`.
    pub escalate_user: Option<String>,
    /// From `-K`.
    pub become_password: Option<Secret>,
    /// From `-k`.
    pub password: Option<Secret>,
    /// `--private-key`.
    pub private_key: Option<PathBuf>,
    /// `-T`, for every stage of a connection.
    pub timeout: Option<Duration>,
    /// `--accept-new-host-keys`; wins over everything, as it is the user's word for this run.
    pub host_key_policy: Option<HostKeyPolicy>,
    /// In place of the user's and the system's `ssh_config`; `none` for no file.
    pub ssh_config: Option<PathBuf>,
    /// In place of the `known_hosts` files.
    pub known_hosts: Option<PathBuf>,
    /// The `ssh_config` files that were read so far.
    pub configs: Configs,
}

/// Configuration files that were read, by path; the empty path is the user's.
#[derive(Debug, Clone, Default)]
pub struct Configs(Arc<Mutex<HashMap<PathBuf, Arc<SshConfig>>>>);

impl ConnectionFlags {
    fn config(&self, path: Option<&Path>) -> Arc<SshConfig> {
        let path = path.or(self.ssh_config.as_deref()).unwrap_or(Path::new(""));
        let mut configs = self
            .configs
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let read = || match path.as_os_str().is_empty() {
            true => Arc::new(SshConfig::of_user()),
            false => Arc::new(SshConfig::of_file(path)),
        };
        Arc::clone(configs.entry(path.to_owned()).or_insert_with(read))
    }
}

/// How a host is reached.
#[derive(Debug, Clone)]
pub enum Connection {
    /// This machine.
    Local,
    /// A host of the simulated fleet; whoever starts the fleet puts an SSH
    /// endpoint in its place with `Target::for_endpoint`.
    Sim,
    /// Over SSH.
    Ssh(Box<Endpoint>),
}

/// One SSH server and how to log in there.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// As the user calls it, for messages.
    pub name: String,
    /// Name or address to connect to.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// Name of its key in `known_hosts`.
    pub key_name: KeyName,
    /// Private keys to try, in order.
    pub identities: Vec<Identity>,
    /// Certificates for them.
    pub certificates: Vec<PathBuf>,
    /// Whether keys of the agent that are not among `identities` are left alone.
    pub identities_only: bool,
    /// Which agent.
    pub agent: AgentChoice,
    /// For password logins.
    pub password: Option<Secret>,
    /// Files to look its key up in; a new one is written to the first.
    pub known_hosts: Vec<PathBuf>,
    /// What to do if its key is not known.
    pub policy: HostKeyPolicy,
    /// The limit of each stage.
    pub timeout: Duration,
    /// Silence after which the server is asked whether it lives; zero for never.
    pub keepalive: Duration,
    /// Unanswered questions after which the connection is given up.
    pub keepalive_max: usize,
    /// Which addresses to try.
    pub family: Family,
    /// Servers on the way, the nearest first.
    pub jumps: Vec<Endpoint>,
    /// The only key that is right, for servers of our own.
    pub pinned: Option<russh::keys::PublicKey>,
}

/// A private key to log in with.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A file that the user named: one that is not there is told of.
    File(PathBuf),
    /// One of OpenSSH's default files; mostly not there.
    Default(PathBuf),
    /// A key in memory.
    Key(Arc<russh::keys::PrivateKey>),
}

/// A host and how it is reached.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in the inventory.
    pub host: HostName,
    /// How.
    pub connection: Connection,
    /// Folder below which all its paths lie; empty on real hosts.
    pub root: String,
    /// As whom our shell runs.
    pub(crate) who: As,
    /// What the user should hear before: settings that mean less than they say.
    pub warnings: Problems,
}

/// Names of one variable, the strongest first.
type Names = &'static [&'static str];
const HOST: Names = &["ansible_ssh_host", "ansible_host"];
const PORT: Names = &["ansible_ssh_port", "ansible_port"];
const USER: Names = &["ansible_ssh_user", "ansible_user"];
const PASSWORD: Names = &[
    "ansible_ssh_password",
    "ansible_ssh_pass",
    "ansible_password",
];
const KEY_FILE: Names = &["ansible_ssh_private_key_file", "ansible_private_key_file"];
const CONNECT_TIMEOUT: Names = &["ansible_ssh_timeout", "ansible_timeout"];
const BECOME_USER: Names = &["ansible_sudo_user", "ansible_become_user"];
const BECOME_PASSWORD: Names = &[
    "ansible_sudo_pass",
    "ansible_become_pass",
    "ansible_become_password",
];
const BECOME_EXE: Names = &["ansible_sudo_exe", "ansible_become_exe"];

impl Target {
    /// The target of a host with these variables.
    ///
    /// # Errors
    /// Everything that is wrong with its variables, and with the lines of
    /// `ssh_config` that apply to it.
    pub fn from_vars(
        host: &HostName,
        vars: &Vars,
        flags: &ConnectionFlags,
    ) -> Result<Self, Problems> {
        let mut reader = Reader {
            vars,
            problems: names::mistyped(vars),
        };
        let root = reader.root();
        let who = reader.who(flags);
        let connection = reader.connection(host, flags);
        let mut target = Self {
            host: host.clone(),
            connection,
            root,
            who,
            warnings: Problems::default(),
        };
        // Whoever logs in as the wanted user needs no `sudo`, which may not even be there.
        let already = match (&target.connection, &target.who) {
            (Connection::Ssh(endpoint), As::Sudo { user, .. }) => endpoint.user == *user,
            (Connection::Local, As::Sudo { user, .. }) => {
                user == "root" && rustix::process::geteuid().is_root()
            }
            _ => false,
        };
        if already {
            target.who = As::Login;
        }
        let warnings = reader
            .problems
            .0
            .iter()
            .filter(|problem| problem.severity == crate::error::Severity::Warning);
        target.warnings = Problems(warnings.cloned().collect());
        reader.problems.or(target)
    }

    /// A target for an SSH server whose keys are known beforehand, such as one
    /// of the simulated fleet. `private_key` is in OpenSSH's format,
    /// `host_public_key` as in a `.pub` file.
    ///
    /// # Errors
    /// If one of the keys cannot be read.
    pub fn for_endpoint(
        host: &HostName,
        address: SocketAddr,
        user: &str,
        private_key: &str,
        host_public_key: &str,
        root: &Path,
    ) -> Result<Self, Problems> {
        let wrong = |what: &str| {
            Problems::from(Diagnostic::error(format!(
                "the {what} of `{host}` cannot be read"
            )))
        };
        let key =
            russh::keys::PrivateKey::from_openssh(private_key).map_err(|_| wrong("private key"))?;
        let pinned =
            russh::keys::PublicKey::from_openssh(host_public_key).map_err(|_| wrong("host key"))?;
        let address_text = address.ip().to_string();
        let endpoint = Endpoint {
            name: host.to_string(),
            key_name: KeyName::new(&address_text, address.port(), None),
            address: address_text,
            port: address.port(),
            user: user.to_owned(),
            identities: vec![Identity::Key(Arc::new(key))],
            certificates: Vec::new(),
            identities_only: true,
            agent: AgentChoice::None,
            password: None,
            known_hosts: Vec::new(),
            policy: HostKeyPolicy::Strict,
            timeout: TIMEOUT,
            keepalive: KEEPALIVE,
            keepalive_max: 3,
            family: Family::Any,
            jumps: Vec::new(),
            pinned: Some(pinned),
        };
        Ok(Self {
            host: host.clone(),
            connection: Connection::Ssh(Box::new(endpoint)),
            root: root.to_string_lossy().trim_end_matches('/').to_owned(),
            who: As::Login,
            warnings: Problems::default(),
        })
    }

    /// Runs the shell through `sudo` even where the login is that user's; for
    /// tests, which may run as root.
    #[doc(hidden)]
    pub fn force_sudo(&mut self, user: &str, program: &str, password: Option<Secret>) {
        self.who = As::Sudo {
            user: user.to_owned(),
            program: program.to_owned(),
            password,
        };
    }
}

/// Reads variables and collects what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) vars: &'a Vars,
    pub(crate) problems: Problems,
}

impl Reader<'_> {
    /// A variable as text, if it is set.
    fn text(&mut self, names: Names) -> Option<(String, &Node)> {
        let (name, node) = names
            .iter()
            .find_map(|name| self.vars.get(*name).map(|node| (*name, node)))?;
        let wrong = match &node.value {
            Value::Null => return None,
            Value::Str(text) if text.contains("{{") || text.contains("{%") => {
                format!("`{name}` is still a template")
            }
            Value::Str(text) | Value::Tagged(Tag::Unsafe, text) => {
                return Some((text.clone(), node));
            }
            Value::Int(number) => return Some((number.to_string(), node)),
            Value::Bool(value) => return Some((value.to_string(), node)),
            _ => format!("`{name}` must be a string, not {}", node.kind()),
        };
        self.problems
            .push(Diagnostic::error(wrong).at(&node.origin));
        None
    }

    fn plain(&mut self, names: Names) -> Option<String> {
        self.text(names).map(|(text, _)| text)
    }

    fn flag(&mut self, names: Names) -> Option<bool> {
        let (text, node) = self.text(names)?;
        let origin = node.origin.clone();
        let value = ssh_settings::yes(&text.to_lowercase());
        if value.is_none() {
            let message = format!(
                "`{}` must be a boolean, not `{text}`",
                names.last().unwrap_or(&"")
            );
            self.problems.push(Diagnostic::error(message).at(&origin));
        }
        value
    }

    fn root(&mut self) -> String {
        let Some((root, node)) = self.text(&["deploy_root"]) else {
            return String::new();
        };
        let origin = node.origin.clone();
        if !root.starts_with('/') || root.contains('\n') {
            let message = format!("`deploy_root` must be an absolute path, not `{root}`");
            self.problems.push(Diagnostic::error(message).at(&origin));
        }
        root.trim_end_matches('/').to_owned()
    }

    fn who(&mut self, flags: &ConnectionFlags) -> As {
        let wanted = self.flag(&["ansible_become"]).unwrap_or(flags.escalate);
        let method = self
            .text(&["ansible_become_method"])
            .map(|(text, node)| (text, node.origin.clone()));
        let user = self
            .plain(BECOME_USER)
            .or_else(|| flags.escalate_user.clone());
        let program = self.plain(BECOME_EXE).unwrap_or_else(|| "sudo".to_owned());
        let password = self
            .plain(BECOME_PASSWORD)
            .map(Secret::new)
            .or_else(|| flags.become_password.clone());
        if !wanted {
            return As::Login;
        }
        if let Some((method, origin)) =
            method.filter(|(method, _)| !matches!(method.as_str(), "sudo" | "ansible.builtin.sudo"))
        {
            let message = format!("`ansible_become_method: {method}` is not supported");
            self.problems.push(
                Diagnostic::error(message)
                    .at(&origin)
                    .hint("only `sudo` is; log in as root otherwise"),
            );
        }
        As::Sudo {
            user: user.unwrap_or_else(|| "root".to_owned()),
            program,
            password,
        }
    }

    fn connection(&mut self, host: &HostName, flags: &ConnectionFlags) -> Connection {
        let kind = self
            .text(&["ansible_connection"])
            .map(|(text, node)| (text, node.origin.clone()));
        let (kind, origin) = match kind {
            Some((kind, origin)) => (kind, Some(origin)),
            None => ("ssh".to_owned(), None),
        };
        match kind.strip_prefix("ansible.builtin.").unwrap_or(&kind) {
            "ssh" | "smart" | "paramiko" | "paramiko_ssh" => self.ssh(host, flags),
            "local" => Connection::Local,
            "sim" => Connection::Sim,
            other => {
                let known = ["ssh", "local", "sim"];
                let message = format!("`ansible_connection: {other}` is not supported");
                let mut diagnostic =
                    Diagnostic::error(message).hint("there are `ssh`, `local` and `sim`");
                if let Some(name) = crate::error::nearest(other, known) {
                    diagnostic = diagnostic.hint(format!("did you mean `{name}`?"));
                }
                if let Some(origin) = &origin {
                    diagnostic = diagnostic.at(origin);
                }
                self.problems.push(diagnostic);
                Connection::Local
            }
        }
    }

    fn setting(&mut self, keyword: &str, names: Names) -> Option<Setting> {
        let (text, node) = self.text(names)?;
        Some(Setting {
            keyword: keyword.to_owned(),
            words: vec![text],
            origin: Some(node.origin.clone()),
        })
    }

    fn ssh(&mut self, host: &HostName, flags: &ConnectionFlags) -> Connection {
        let mut front = Vec::new();
        let mut file = None;
        self.arguments("ansible_ssh_args", &mut front, &mut file);
        front.extend(self.setting("port", PORT));
        front.extend(self.setting("user", USER));
        front.extend(self.setting("identityfile", KEY_FILE));
        front.extend(self.setting("connecttimeout", CONNECT_TIMEOUT));
        self.arguments("ansible_ssh_common_args", &mut front, &mut file);
        self.arguments("ansible_ssh_extra_args", &mut front, &mut file);
        let checking = self.flag(&["ansible_host_key_checking", "ansible_ssh_host_key_checking"]);
        let flag = |keyword: &str, word: String| Setting {
            keyword: keyword.to_owned(),
            words: vec![word],
            origin: None,
        };
        if checking == Some(false) {
            front.push(flag("stricthostkeychecking", "accept-new".to_owned()));
        }
        front.extend(flags.user.clone().map(|user| flag("user", user)));
        front.extend(
            flags
                .private_key
                .as_ref()
                .map(|key| flag("identityfile", key.to_string_lossy().into_owned())),
        );
        front.extend(
            flags
                .timeout
                .map(|limit| flag("connecttimeout", limit.as_secs().max(1).to_string())),
        );
        for setting in &front {
            let off = matches!(
                setting
                    .words
                    .first()
                    .map(|word| word.to_lowercase())
                    .as_deref(),
                Some("no" | "off" | "false")
            );
            if setting.keyword == "stricthostkeychecking" && off {
                let message = "`StrictHostKeyChecking=no` is taken as `accept-new`: a changed key is still refused";
                let mut warning = Diagnostic::warning(message);
                warning.origin.clone_from(&setting.origin);
                self.problems.push(warning);
            }
        }
        let name = self.plain(HOST).unwrap_or_else(|| host.to_string());
        let password = self
            .plain(PASSWORD)
            .map(Secret::new)
            .or_else(|| flags.password.clone());
        for (name, why) in [
            (
                "ansible_ssh_pkcs11_provider",
                "smart cards are reached through an agent: `ssh-add -s`",
            ),
            ("ansible_ssh_executable", "no `ssh` is run"),
        ] {
            if let Some(node) = self.vars.get(name).filter(|node| node.value != Value::Null) {
                self.problems.push(
                    Diagnostic::error(format!("`{name}` is not supported"))
                        .at(&node.origin)
                        .hint(why),
                );
            }
        }
        let config = flags.config(file.as_deref());
        let (settings, problems) = config.settings(&name, &front);
        self.problems.extend(problems);
        let jumps = match &settings.proxy_jump {
            Some(jumps) => self.jumps(jumps, flags, &config, 0),
            None => Vec::new(),
        };
        let mut endpoint = endpoint(&name, settings, flags);
        endpoint.password = password;
        endpoint.jumps = jumps;
        Connection::Ssh(Box::new(endpoint))
    }

    /// The servers of a `ProxyJump` list, those before the first included.
    fn jumps(
        &mut self,
        list: &str,
        flags: &ConnectionFlags,
        config: &SshConfig,
        depth: usize,
    ) -> Vec<Endpoint> {
        let mut hops = Vec::new();
        for (index, hop) in list.split(',').map(str::trim).enumerate() {
            let Some((user, name, port)) = split_hop(hop) else {
                self.problems.push(Diagnostic::error(format!(
                    "`{hop}` is no jump host: `[user@]host[:port]`"
                )));
                continue;
            };
            let flag = |keyword: &str, word: &str| Setting {
                keyword: keyword.to_owned(),
                words: vec![word.to_owned()],
                origin: None,
            };
            let mut front = Vec::new();
            front.extend(user.map(|user| flag("user", user)));
            front.extend(port.map(|port| flag("port", port)));
            // Only the way to the first is looked up; the others are reached from it.
            if index > 0 {
                front.push(flag("proxyjump", "none"));
            }
            let (settings, problems) = config.settings(name, &front);
            self.problems.extend(problems);
            if let Some(before) = &settings.proxy_jump {
                if depth >= MOST_HOPS {
                    self.problems.push(Diagnostic::error(format!(
                        "the jump hosts of `{name}` go round in a circle"
                    )));
                    return hops;
                }
                hops.extend(self.jumps(before, flags, config, depth + 1));
            }
            hops.push(endpoint(name, settings, flags));
        }
        hops
    }
}

fn endpoint(name: &str, settings: HostSettings, flags: &ConnectionFlags) -> Endpoint {
    let port = settings.port.unwrap_or(22);
    let folder = ssh_config::home().join(".ssh");
    let identities = match settings.identity_files.is_empty() {
        false => settings
            .identity_files
            .into_iter()
            .map(Identity::File)
            .collect(),
        true => [
            "id_rsa",
            "id_ecdsa",
            "id_ecdsa_sk",
            "id_ed25519",
            "id_ed25519_sk",
        ]
        .iter()
        .map(|name| Identity::Default(folder.join(name)))
        .collect(),
    };
    let known_hosts = match &flags.known_hosts {
        Some(path) => vec![path.clone()],
        None => {
            let user = settings
                .user_known_hosts
                .unwrap_or_else(|| vec![folder.join("known_hosts"), folder.join("known_hosts2")]);
            let global = settings.global_known_hosts.unwrap_or_else(|| {
                vec![
                    "/etc/ssh/ssh_known_hosts".into(),
                    "/etc/ssh/ssh_known_hosts2".into(),
                ]
            });
            user.into_iter().chain(global).collect()
        }
    };
    Endpoint {
        name: name.to_owned(),
        key_name: KeyName::new(&settings.hostname, port, settings.host_key_alias.as_deref()),
        address: settings.hostname,
        port,
        user: settings.user.unwrap_or_else(ssh_config::local_user),
        identities,
        certificates: settings.certificate_files,
        identities_only: settings.identities_only,
        agent: settings.agent,
        password: None,
        known_hosts,
        policy: flags
            .host_key_policy
            .or(settings.policy)
            .unwrap_or_default(),
        timeout: settings.connect_timeout.unwrap_or(TIMEOUT),
        keepalive: settings.alive_interval.unwrap_or(KEEPALIVE),
        keepalive_max: settings.alive_count.unwrap_or(3),
        family: settings.family,
        jumps: Vec::new(),
        pinned: None,
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;

//! How the selected hosts are reached and what is wanted of each, found out before
//! the first connection. Starts the simulated fleet where hosts are simulated.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::ConnectionArgs;
use crate::cli::job::Which;
use crate::cli::prompt;
use crate::cli::settings::{Settings, once, take};
use crate::desired::{self, Desired};
use crate::error::{Diagnostic, Problems};
use crate::playbook::Project;
use crate::render::{self, Layer, Scope};
use crate::report;
use crate::sim;
use crate::transport::known_hosts::HostKeyPolicy;
use crate::transport::{Connection, ConnectionFlags, Context, Target};
use crate::value::{HostName, Vars};

/// Hosts ready to be connected to.
pub struct Hosts {
    /// How each is reached.
    pub targets: HashMap<HostName, Arc<Target>>,
    /// What is wanted of each.
    pub desired: HashMap<HostName, Arc<Desired>>,
    /// What connections share: keys, bastions, known hosts.
    pub context: Arc<Context>,
    // Ends when dropped, so it is kept as long as its hosts are needed.
    fleet: Option<sim::Fleet>,
}

/// What is known of the hosts before anything is started.
pub struct Prepared {
    targets: HashMap<HostName, Arc<Target>>,
    simulated: Vec<(HostName, Vars)>,
    desired: HashMap<HostName, Arc<Desired>>,
}

impl Hosts {
    /// Whether the playbook may run here: where simulated hosts cannot be kept in
    /// their folders, only what is shipped does.
    ///
    /// # Errors
    /// It is another playbook.
    pub fn may_run(&self, which: &Which) -> Result<(), Problems> {
        let confined = match &self.fleet {
            Some(fleet) => fleet.confinement(),
            None => return Ok(()),
        };
        match (confined, which) {
            (sim::Confinement::Unavailable(why), Which::File(_)) => Err(Diagnostic::error(
                "simulated hosts run shipped playbooks only on this machine",
            )
            .hint(format!(
                "writes cannot be kept in the hosts' folders here: {why}"
            ))
            .into()),
            _ => Ok(()),
        }
    }
}

/// Variables that the program itself reads; others are for playbooks.
fn is_ours(name: &str) -> bool {
    name.starts_with("ansible_")
        || desired::is_variable(name)
        || matches!(name, "deploy_root" | "sim")
}

/// Those of a host's variables that mean something to us, rendered as far as they go.
fn own_vars(settings: &Settings, host: &HostName) -> (Vars, Problems) {
    let vars = settings.inventory.vars_of(host);
    let names: Vec<&str> = vars
        .keys()
        .map(String::as_str)
        .filter(|name| is_ours(name))
        .collect();
    let scope = Scope::default().with_vars(Layer::Host, &vars);
    render::some_vars(&scope, names)
}

/// What a host's own variables want of its GPUs, whatever a playbook adds.
///
/// # Errors
/// What is wrong with them.
pub fn wanted(settings: &Settings, host: &HostName) -> Result<Desired, Problems> {
    let (vars, mut problems) = own_vars(settings, host);
    let project = Project::new((*settings.content).clone(), None);
    let (desired, found) = desired::read(&vars, &|name, at| project.document(name, at));
    problems.extend(found);
    problems.or(desired)
}

/// Reads what the hosts' variables say of connections and GPUs. `beside` are hosts that are
/// only looked at.
///
/// # Errors
/// Everything that is wrong with any of them, each finding once.
pub fn prepare(
    settings: &Settings,
    beside: &HashMap<HostName, Arc<Desired>>,
    args: &ConnectionArgs,
) -> Result<Prepared, Problems> {
    let flags = flags(args)?;
    let mut problems = Problems::default();
    let project = Project::new((*settings.content).clone(), None);
    let mut targets = HashMap::new();
    let mut wanted = HashMap::new();
    let mut simulated: Vec<(HostName, Vars)> = Vec::new();
    for host in settings.hosts.iter().chain(beside.keys()) {
        let (vars, found) = own_vars(settings, host);
        problems.extend(found);
        let (desired, found) = desired::read(&vars, &|name, at| project.document(name, at));
        problems.extend(found);
        wanted.insert(host.clone(), Arc::new(desired));
        let Some(target) = take(Target::from_vars(host, &vars, &flags), &mut problems) else {
            continue;
        };
        problems.extend(target.warnings.clone());
        if matches!(target.connection, Connection::Sim) {
            simulated.push((host.clone(), vars));
        } else {
            targets.insert(host.clone(), Arc::new(target));
        }
    }
    let problems = once(problems);
    if problems.has_errors() {
        return Err(problems);
    }
    report::problems(&problems);
    Ok(Prepared {
        targets,
        simulated,
        desired: wanted,
    })
}

impl Prepared {
    /// Starts the simulated fleet, if a host is simulated; from here on hosts can be reached.
    ///
    /// # Errors
    /// What is wrong with the simulated hosts, or that their server cannot start.
    pub async fn start(mut self, inventories: &[PathBuf]) -> Result<Hosts, Problems> {
        let fleet = match self.simulated.is_empty() {
            true => None,
            false => Some(start_fleet(&self.simulated, inventories, &mut self.targets).await?),
        };
        Ok(Hosts {
            targets: self.targets,
            desired: self.desired,
            context: Arc::new(Context::new(Arc::new(prompt::Terminal))),
            fleet,
        })
    }
}

fn flags(args: &ConnectionArgs) -> Result<ConnectionFlags, Problems> {
    let ask = |wanted: bool, question: &str| {
        if !wanted {
            return Ok(None);
        }
        prompt::password(question)
            .map(Some)
            .map_err(|error| Problems::from(Diagnostic::error(error.to_string())))
    };
    Ok(ConnectionFlags {
        user: args.user.clone(),
        escalate: args.r#become,
        password: ask(args.ask_pass, "SSH password")?,
        become_password: ask(args.ask_become_pass, "sudo password")?,
        private_key: args.private_key.clone(),
        timeout: args
            .timeout
            .map(|seconds| Duration::from_secs(seconds.into())),
        host_key_policy: args
            .accept_new_host_keys
            .then_some(HostKeyPolicy::AcceptNew),
        ssh_config: args.ssh_config.clone(),
        ..ConnectionFlags::default()
    })
}

async fn start_fleet(
    simulated: &[(HostName, Vars)],
    inventories: &[PathBuf],
    targets: &mut HashMap<HostName, Arc<Target>>,
) -> Result<sim::Fleet, Problems> {
    let wrong = |text: String| Problems::from(Diagnostic::error(text));
    let options = sim::Options::new(sim::default_state_dir(inventories))
        .map_err(|error| wrong(format!("the simulated fleet cannot start: {error}")))?;
    let fleet = sim::Fleet::start(simulated, &options).await?;
    if let sim::Confinement::Unavailable(why) = fleet.confinement() {
        report::talk(&format!(
            "warning: writes of simulated hosts are not confined to their folders here: {why}\n"
        ));
    }
    for (host, _) in simulated {
        let endpoint = fleet
            .endpoint(host)
            .ok_or_else(|| wrong(format!("the simulated fleet has no `{host}`")))?;
        let key = std::fs::read_to_string(&endpoint.private_key)
            .map_err(|error| wrong(format!("the simulated fleet's key: {error}")))?;
        let public = endpoint
            .host_public_key
            .to_openssh()
            .map_err(|error| wrong(format!("the simulated fleet's host key: {error}")))?;
        let target = Target::for_endpoint(
            host,
            endpoint.addr,
            &endpoint.user,
            &key,
            &public,
            &endpoint.root,
        )?;
        targets.insert(host.clone(), Arc::new(target));
    }
    Ok(fleet)
}

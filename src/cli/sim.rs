//! `deploy sim`: keeps a simulated fleet running, breaks it, mends it, resets it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::error::Diagnostic;
use crate::inventory;
use crate::sim::{self, AmdFault, Confinement, Fault, Fleet, NvidiaFault, OperatorFault, Options};
use crate::value::{HostName, Vars};

use super::Failure;
use super::args::HostArgs;

/// `deploy sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: SimVerb,
}

/// Where the fleet's state is.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// Folder of the simulated hosts; else one of the inventory's own in the user's state folder
    #[arg(long, value_name = "DIR", env = "DEPLOY_SIM_STATE")]
    pub state_dir: Option<PathBuf>,
}

/// What `deploy sim` does.
#[derive(Debug, Subcommand)]
pub enum SimVerb {
    /// Serve the hosts over SSH until interrupted, for plain ssh and other tools
    Serve {
        /// Which fleet.
        #[command(flatten)]
        fleet: FleetArgs,
        /// Port on the loopback address; 0 takes any that is free
        #[arg(long, default_value_t = 2200)]
        port: u16,
    },
    /// Make hosts as new: all that was changed on them is gone
    Reset {
        /// Only these hosts, as a pattern; else all
        hosts: Option<String>,
        /// Which fleet.
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// Break something on hosts, to see what happens then
    Break {
        /// The hosts, as a pattern: a name, a group, a glob
        hosts: String,
        /// What goes wrong.
        #[command(subcommand)]
        fault: FaultArgs,
        /// Which fleet.
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// Take back what was broken; what was changed on the hosts stays
    Mend {
        /// Only these hosts, as a pattern; else all
        hosts: Option<String>,
        /// Which fleet.
        #[command(flatten)]
        fleet: FleetArgs,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, Subcommand)]
pub enum FaultArgs {
    /// A process has an NVIDIA GPU, or a device node, open
    InUse {
        /// Index of the GPU
        #[arg(long, default_value_t = 0)]
        gpu: u32,
        /// Name of the process
        #[arg(long, default_value = "python3")]
        command: String,
        /// systemd unit that it belongs to
        #[arg(long)]
        unit: Option<String>,
        /// Device node that is open instead, such as /dev/dri/renderD128
        #[arg(long, conflicts_with = "gpu")]
        node: Option<String>,
    },
    /// Virtual functions cannot be made or unmade: the kernel says that it is busy
    NumvfsBusy,
    /// Drivers know nothing of `sriov_numvfs`
    NoVfCallback,
    /// Drivers make at most so many virtual functions, whatever they are asked for
    VfsAtMost {
        /// How many
        count: u32,
    },
    /// The firmware offers no IOMMU
    NoIommu,
    /// The disk controller is in the IOMMU group of a card
    SharedGroup {
        /// PCI address of the card, such as 0000:17:00.0
        pci: String,
    },
    /// GPU resets are refused as if the cards were in use
    ResetRefused,
    /// GPU resets are not supported, as in a virtual machine
    ResetUnsupported,
    /// MIG mode of an Ampere GPU waits for a reset
    Pending {
        /// Index of the GPU
        #[arg(long, default_value_t = 0)]
        gpu: u32,
    },
    /// `sriov-manage` of NVIDIA's vGPU driver does not get its lock
    UnbindLockBusy {
        /// How many calls of it fail
        #[arg(default_value_t = 2)]
        calls: u32,
    },
    /// A virtual machine runs on a vGPU
    VgpuInUse {
        /// Index of the GPU
        #[arg(long, default_value_t = 0)]
        gpu: u32,
        /// Which of its vGPUs, in the order in which they were made
        #[arg(long, default_value_t = 0)]
        vgpu: u32,
    },
    /// No licence is given to virtual machines with vGPUs
    LicenseRefused,
    /// AMD's driver or firmware refuses something
    Amd {
        /// What
        what: AmdWord,
    },
    /// NVIDIA's operator in the cluster that the host's kubectl reaches goes wrong
    GpuOperator {
        /// How
        what: OperatorWord,
    },
    /// NVIDIA's driver or tool does something that users report
    Nvidia {
        /// What
        what: NvidiaWord,
        /// How often, where it ends by itself
        #[arg(default_value_t = 1)]
        times: u32,
    },
    /// Every connection ends after so many bytes from the host
    CutAfter {
        /// Bytes
        bytes: u64,
    },
    /// No file can grow beyond so many bytes
    DiskFull {
        /// Bytes
        #[arg(default_value_t = 0)]
        bytes: u64,
    },
    /// Everything takes longer
    Slow {
        /// Milliseconds
        ms: u64,
    },
    /// Commands are accepted and never answered
    Hang,
    /// The host reboots now, in an orderly way
    Reboot,
    /// The host loses power and boots again
    Power,
}

/// What AMD's driver or firmware refuses.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AmdWord {
    /// Changes, as busy; whoever uses the card is not to be seen
    Busy,
    /// To remove the kernel module
    ReloadBlocked,
    /// To change the memory mode at the next load of the driver
    MemoryRefused,
    /// A compute mode, which it takes without effect
    ComputeIgnored,
    /// More than one virtual function
    OneFunction,
    /// Everything that needs root
    NotRoot,
}

/// What goes wrong with NVIDIA's operator.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OperatorWord {
    /// A change of MIG configuration stays pending for ever
    Stuck,
    /// A change of MIG configuration fails
    Failed,
    /// The device plugin takes no notice of its configuration
    PluginDeaf,
}

impl OperatorWord {
    fn fault(self) -> OperatorFault {
        match self {
            Self::Stuck => OperatorFault::Stuck,
            Self::Failed => OperatorFault::Failed,
            Self::PluginDeaf => OperatorFault::PluginDeaf,
        }
    }
}

impl AmdWord {
    fn fault(self) -> AmdFault {
        match self {
            Self::Busy => AmdFault::Busy,
            Self::ReloadBlocked => AmdFault::ReloadBlocked,
            Self::MemoryRefused => AmdFault::MemoryRefused,
            Self::ComputeIgnored => AmdFault::ComputeIgnored,
            Self::OneFunction => AmdFault::OneFunction,
            Self::NotRoot => AmdFault::NotRoot,
        }
    }
}

/// What NVIDIA's driver or tool does that users report.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NvidiaWord {
    /// `nvidia_drm` is loaded with modeset=1 and holds every GPU
    Drm,
    /// A call that makes several GPU instances finds no room behind the first, so often
    NoRoom,
    /// A change is reported as done and has no effect, so often
    Ignored,
    /// Profiles have other names under the same ids
    Renamed,
    /// MIG is not on offer, as with an older vBIOS or with displays on
    NoMig,
    /// Rights are missing
    NotRoot,
    /// MIG mode and profiles cannot be read
    UnknownError,
    /// The CDI specification cannot be written anew
    CdiStale,
}

impl NvidiaWord {
    fn fault(self, times: u32) -> NvidiaFault {
        match self {
            Self::Drm => NvidiaFault::Drm,
            Self::NoRoom => NvidiaFault::NoRoom(times),
            Self::Ignored => NvidiaFault::Ignored(times),
            Self::Renamed => NvidiaFault::Renamed,
            Self::NoMig => NvidiaFault::NoMig,
            Self::NotRoot => NvidiaFault::NotRoot,
            Self::UnknownError => NvidiaFault::UnknownError,
            Self::CdiStale => NvidiaFault::CdiStale,
        }
    }
}

impl FaultArgs {
    fn fault(&self) -> Fault {
        match self {
            Self::InUse {
                gpu,
                command,
                unit,
                node,
            } => match node {
                Some(node) => Fault::NodeInUse {
                    node: node.clone(),
                    command: command.clone(),
                    unit: unit.clone(),
                },
                None => Fault::InUse {
                    gpu: *gpu,
                    command: command.clone(),
                    unit: unit.clone(),
                },
            },
            Self::NumvfsBusy => Fault::NumvfsBusy,
            Self::NoVfCallback => Fault::NoVfCallback,
            Self::VfsAtMost { count } => Fault::VfsAtMost(*count),
            Self::NoIommu => Fault::NoIommu,
            Self::SharedGroup { pci } => Fault::SharedGroup { pci: pci.clone() },
            Self::ResetRefused => Fault::ResetRefused,
            Self::ResetUnsupported => Fault::ResetUnsupported,
            Self::Pending { gpu } => Fault::Pending { gpu: *gpu },
            Self::UnbindLockBusy { calls } => Fault::UnbindLockBusy(*calls),
            Self::VgpuInUse { gpu, vgpu } => Fault::VgpuInUse {
                gpu: *gpu,
                vgpu: *vgpu,
            },
            Self::LicenseRefused => Fault::LicenseRefused,
            Self::Nvidia { what, times } => Fault::Nvidia(what.fault(*times)),
            Self::Amd { what } => Fault::Amd(what.fault()),
            Self::GpuOperator { what } => Fault::GpuOperator(what.fault()),
            Self::CutAfter { bytes } => Fault::CutAfter(*bytes),
            Self::DiskFull { bytes } => Fault::DiskFull(*bytes),
            Self::Slow { ms } => Fault::Slow(Duration::from_millis(*ms)),
            Self::Hang => Fault::Hang,
            Self::Reboot => Fault::Reboot,
            Self::Power => Fault::PowerLoss,
        }
    }
}

/// Runs the verb. `say` is given what is to be told, before the end where the
/// verb goes on.
///
/// # Errors
/// What is wrong in the inventory, or why a host's folder cannot be used.
pub async fn run(args: &SimArgs, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Failure> {
    match &args.verb {
        SimVerb::Serve { fleet, port } => serve(fleet, *port, say).await,
        SimVerb::Reset { hosts, fleet } => {
            let (hosts, options) = simulated(fleet, hosts.as_deref())?;
            for (name, _) in &hosts {
                sim::reset(&sim::root_of(&options.state_dir, name))
                    .map_err(|error| on(name, &error))?;
            }
            say(&format!("{} as new\n", count(hosts.len())));
            Ok(())
        }
        SimVerb::Break {
            hosts,
            fault,
            fleet,
        } => {
            let (hosts, options) = simulated(fleet, Some(hosts))?;
            for (name, vars) in &hosts {
                let root = sim::make(name, vars, &options)?;
                sim::break_host(&root, &fault.fault()).map_err(|error| on(name, &error))?;
                say(&match fault {
                    FaultArgs::Reboot | FaultArgs::Power => format!("{name} has rebooted\n"),
                    _ => format!("{name} is broken; `deploy sim mend {name}` mends it\n"),
                });
            }
            Ok(())
        }
        SimVerb::Mend { hosts, fleet } => {
            let (hosts, options) = simulated(fleet, hosts.as_deref())?;
            for (name, _) in &hosts {
                let root = sim::root_of(&options.state_dir, name);
                if root.exists() {
                    sim::mend(&root).map_err(|error| on(name, &error))?;
                }
            }
            say(&format!("{} mended\n", count(hosts.len())));
            Ok(())
        }
    }
}

fn count(hosts: usize) -> String {
    if hosts == 1 {
        "1 host".to_owned()
    } else {
        format!("{hosts} hosts")
    }
}

fn on(host: &HostName, error: &std::io::Error) -> Failure {
    Diagnostic::error(format!("simulated host {host}: {error}")).into()
}

type Hosts = Vec<(HostName, Vars)>;

/// The simulated hosts that are meant, by a pattern and `--limit`, and where their fleet
/// lives.
fn simulated(args: &FleetArgs, pattern: Option<&str>) -> Result<(Hosts, Options), Failure> {
    let (inventory, problems) =
        inventory::load(&args.hosts.inventory, None, &args.hosts.extra_vars);
    if problems.has_errors() {
        return Err(problems.into());
    }
    let selected = inventory.select(pattern.unwrap_or("all"), args.hosts.limit.as_deref())?;
    let hosts: Hosts = selected
        .into_iter()
        .map(|host| {
            let vars = inventory.vars_of(&host);
            (host, vars)
        })
        .filter(|(_, vars)| sim::is_simulated(vars))
        .collect();
    if hosts.is_empty() {
        let none = Diagnostic::error("none of these hosts is simulated");
        return Err(none
            .hint("`ansible_connection: sim` makes a host a simulated one")
            .into());
    }
    let state_dir = match &args.state_dir {
        Some(folder) => folder.clone(),
        None => sim::default_state_dir(&args.hosts.inventory),
    };
    let options = Options::new(state_dir).map_err(anyhow::Error::from)?;
    Ok((hosts, options))
}

async fn serve(
    args: &FleetArgs,
    port: u16,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Failure> {
    let (hosts, mut options) = simulated(args, None)?;
    options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let fleet = Fleet::start(&hosts, &options).await?;
    let config = fleet.write_ssh_config().map_err(anyhow::Error::from)?;
    let mut text = String::new();
    if let Confinement::Unavailable(reason) = fleet.confinement() {
        text.push_str(&format!(
            "warning: what runs on these hosts could write outside their folders: {reason}\n"
        ));
    }
    text.push_str(&format!(
        "{} on {}; end with Ctrl-C\n",
        count(hosts.len()),
        fleet.addr()
    ));
    for (host, _) in &hosts {
        text.push_str(&format!(
            "  ssh -F {} {host}\n",
            crate::shell::quote(&config.display().to_string())
        ));
    }
    say(&text);
    fleet.wait().await;
    Ok(())
}

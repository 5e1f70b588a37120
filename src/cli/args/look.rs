//! The verbs that look at hosts: `discover`, `doctor`, `drift` (which mends too, where it is
//! told to), `render`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::{ConnectionArgs, HostArgs, KeepArgs, OutputArgs, RunOutputArgs};
use crate::cli::complete;

/// `deploy discover`.
#[derive(Debug, Args)]
pub struct DiscoverArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Print slices wanted, found, free and in use as Prometheus text instead; with =FILE
    /// write it there in one go, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub metrics: Option<Option<PathBuf>>,
    /// Print the MIG layouts of the hosts as a configuration file of mig-parted instead, a
    /// configuration a host; with =FILE write it there in one go
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with = "metrics"
    )]
    pub mig_parted: Option<Option<PathBuf>>,
}

/// `deploy doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `deploy drift`.
#[derive(Debug, Args)]
pub struct DriftArgs {
    /// The playbook that was applied; else playbooks/gpu.yml
    pub playbook: Option<PathBuf>,
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: RunOutputArgs,
    /// What is kept of it.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// What was applied with these tags
    #[arg(short = 't', long, value_delimiter = ',', value_name = "TAGS", add = ArgValueCompleter::new(complete::tags))]
    pub tags: Vec<String>,
    /// What was applied without these tags
    #[arg(long, value_delimiter = ',', value_name = "TAGS", add = ArgValueCompleter::new(complete::tags))]
    pub skip_tags: Vec<String>,
    /// Mend what drifted: put back what was last applied, and leave what is pending
    #[arg(long)]
    pub remediate: bool,
    /// What to mend towards
    #[arg(long, value_enum, default_value_t = MendTo::Applied, value_name = "WHAT", requires = "remediate")]
    pub to: MendTo,
    /// Mend without asking
    #[arg(long, requires = "remediate")]
    pub yes: bool,
    /// Restart hosts where that is needed to mend them
    #[arg(long, requires = "remediate")]
    pub allow_reboot: bool,
}

/// What drift is mended towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MendTo {
    /// What was last applied.
    Applied,
    /// What is wanted today, pending changes included.
    Wanted,
}

/// `deploy render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The host
    #[arg(long, value_name = "HOST", add = ArgValueCompleter::new(complete::hosts))]
    pub host: String,
    /// Only this template; else all files that the playbook makes
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// The playbook; playbooks/gpu.yml if not given
    #[arg(long, value_name = "PLAYBOOK")]
    pub playbook: Option<PathBuf>,
}

/// `deploy init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to; files that are there are kept
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

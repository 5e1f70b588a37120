//! The verbs that plan and apply: `gpu`, `run`, `apply`, `plan`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::{ConnectionArgs, HostArgs, KeepArgs, PlanOutputArgs, RunOutputArgs};
use crate::cli::complete;

/// `deploy gpu`.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: PlanOutputArgs,
    /// What is kept of it.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Only tasks with these tags
    #[arg(short = 't', long, value_delimiter = ',', value_name = "TAGS", add = ArgValueCompleter::new(complete::tags))]
    pub tags: Vec<String>,
    /// All but tasks with these tags
    #[arg(long, value_delimiter = ',', value_name = "TAGS", add = ArgValueCompleter::new(complete::tags))]
    pub skip_tags: Vec<String>,
    /// Change nothing; exit 2 if something would be changed
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Save the plan for `deploy apply`; with --check only
    #[arg(
        long,
        value_name = "FILE",
        requires = "check",
        conflicts_with = "resume"
    )]
    pub out: Option<PathBuf>,
    /// Show the content of changed files (the default; kept for Ansible's habit)
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Apply without asking
    #[arg(long)]
    pub yes: bool,
    /// Restart hosts where a change needs it, as `reboot_required: true` does for a host
    #[arg(long)]
    pub allow_reboot: bool,
    /// Go on with this run: hosts on which it is done are left alone, one in progress is
    /// followed, an unconfirmed one is confirmed, all others are applied anew
    #[arg(long, value_name = "RUN", add = ArgValueCompleter::new(complete::runs))]
    pub resume: Option<String>,
    /// What a host that fails means for the others; it undoes its own changes in any case
    #[arg(long, value_enum, default_value_t = OnFailure::RollbackHost, value_name = "WHAT")]
    pub on_failure: OnFailure,
}

/// `deploy run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The playbook
    pub playbook: PathBuf,
    /// As for `deploy gpu`.
    #[command(flatten)]
    pub play: PlayArgs,
}

/// `deploy apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The plan, as `--check --out FILE` has written it
    pub file: PathBuf,
    /// Where the inventory lies now; else where it lay when the plan was made
    #[arg(short = 'i', long = "inventory", value_name = "INVENTORY")]
    pub inventory: Vec<PathBuf>,
    /// Only these of the plan's hosts: names, groups, globs, `&` and `!`
    #[arg(short = 'l', long, value_name = "PATTERN", add = ArgValueCompleter::new(complete::patterns))]
    pub limit: Option<String>,
    /// Variables that the plan does not hold, because they were given on the command line
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// How hosts are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: RunOutputArgs,
    /// What is kept of it.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Change nothing; exit 2 if the plan still holds and would change something
    #[arg(short = 'C', long)]
    pub check: bool,
    /// For scripts that always say so: a saved plan is applied without a question anyway
    #[arg(long)]
    pub yes: bool,
    /// What a host that fails means for the others; it undoes its own changes in any case
    #[arg(long, value_enum, default_value_t = OnFailure::RollbackHost, value_name = "WHAT")]
    pub on_failure: OnFailure,
}

/// `deploy plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: PlanVerb,
}

/// What `deploy plan` does.
#[derive(Debug, Subcommand)]
pub enum PlanVerb {
    /// Print a saved plan
    Show(PlanShowArgs),
}

/// `deploy plan show`.
#[derive(Debug, Args)]
pub struct PlanShowArgs {
    /// The plan, as `--check --out FILE` has written it
    pub file: PathBuf,
    /// How output looks.
    #[command(flatten)]
    pub output: PlanOutputArgs,
}

/// What a host that fails means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// No further host is begun after the first failure.
    Stop,
    /// The others go on, up to max_fail_percentage.
    RollbackHost,
    /// No further host is begun, and those that this run has changed are rolled back.
    RollbackRun,
}

impl OnFailure {
    /// The word of the flag.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::RollbackHost => "rollback-host",
            Self::RollbackRun => "rollback-run",
        }
    }
}

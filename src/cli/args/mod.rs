//! The command line as users type it, a file a family of verbs. Flags carry Ansible's names
//! where Ansible has them. Nothing is decided here; `settings` does that.

mod files;
mod history;
mod look;
mod play;
mod runs;
mod shared;

pub use files::{
    CatalogArgs, CatalogVerb, ContentArgs, ContentVerb, FitArgs, InventoryVerb, InventoryVerbArgs,
    SchemaArgs,
};
pub use history::{HistoryArgs, HistoryVerb, HistoryVerbArgs, ReportArgs};
pub use look::{DiscoverArgs, DoctorArgs, DriftArgs, InitArgs, MendTo, RenderArgs};
pub use play::{ApplyArgs, OnFailure, PlanArgs, PlanShowArgs, PlanVerb, PlayArgs, RunArgs};
pub use runs::{ExtendArgs, RollbackArgs, RunsArgs, RunsVerb, RunsVerbArgs, UndoArgs, UnlockArgs};
pub use shared::{
    ConnectionArgs, Format, HostArgs, KeepArgs, OutputArgs, PlanFormat, PlanOutputArgs, RunFormat,
    RunOutputArgs,
};

use clap::{Parser, Subcommand};

/// Slices the GPUs of a fleet over SSH.
#[derive(Debug, Parser)]
#[command(
    name = "deploy",
    version,
    about = "Slices the GPUs of a fleet over SSH: an Ansible inventory in, sliced GPUs out",
    after_help = "\
Exit codes:
  0   nothing to do, or all applied
  1   error before any host was changed; another run has the host; a saved plan no longer holds
  2   changes found (--check), or drift
  3   some hosts failed and were rolled back
  4   some hosts unreachable, none failed
  5   an undo failed, an end is not known or a run is unconfirmed: a person is needed
  64  wrong usage
  130 interrupted",
    disable_help_subcommand = true,
    propagate_version = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Slice GPUs as the inventory says: runs playbooks/gpu.yml
    Gpu(PlayArgs),
    /// Run any playbook
    Run(RunArgs),
    /// Show what is there: facts of hosts and GPUs
    Discover(DiscoverArgs),
    /// Make a project for hosts that are there, with the layout that they have now
    Init(InitArgs),
    /// Look for what keeps workloads from their GPUs, and say what mends it
    Doctor(DoctorArgs),
    /// Apply a saved plan: exactly that, or nothing where a host has moved since
    Apply(ApplyArgs),
    /// Look at a saved plan
    Plan(PlanArgs),
    /// Look for what differs from what was last applied, and from what is wanted
    Drift(DriftArgs),
    /// Undo a run, with its diff shown first
    Rollback(RollbackArgs),
    /// Show what was applied, when and by whom
    Runs(RunsVerbArgs),
    /// Show what was done from this machine: the runs, and what each of them told
    History(HistoryVerbArgs),
    /// Show the fleet over time, from the history: hosts, cards, drift, runs
    Report(ReportArgs),
    /// Print one file as it would land on a host
    Render(RenderArgs),
    /// Show hosts, groups and variables, as ansible-inventory does
    Inventory(InventoryVerbArgs),
    /// Show GPU models, their MIG profiles and placements
    Catalog(CatalogArgs),
    /// Print what systemd, cron or Kubernetes need to look for drift again and again
    Schedule(super::schedule::ScheduleArgs),
    /// Print the JSON Schemas of the lines of `--output json`
    Schema(SchemaArgs),
    /// The simulated fleet: hosts that need no hardware
    Sim(super::sim::SimArgs),
    /// The shipped playbooks, templates and model files
    Content(ContentArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

impl Verb {
    /// The form of the output that was asked for, where there is a choice.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        let output = match self {
            Self::Gpu(args) => return Some(args.output.output.plain()),
            Self::Run(args) => return Some(args.play.output.output.plain()),
            Self::Discover(args) => &args.output,
            Self::Doctor(args) => &args.output,
            Self::Apply(args) => return Some(args.output.output.plain()),
            Self::Plan(args) => match &args.verb {
                PlanVerb::Show(args) => return Some(args.output.output.plain()),
            },
            Self::Drift(args) => return Some(args.output.output.plain()),
            Self::Rollback(args) => &args.output,
            Self::Runs(args) => match &args.verb {
                None => &args.list.output,
                Some(RunsVerb::Show { args, .. } | RunsVerb::Confirm { args, .. }) => &args.output,
                Some(RunsVerb::Undo { args, .. }) => &args.of.output,
                Some(RunsVerb::Extend { args, .. }) => &args.of.output,
                Some(RunsVerb::Unlock { args, .. }) => &args.of.output,
            },
            Self::History(args) => match &args.verb {
                None => &args.list.output,
                Some(HistoryVerb::List(args) | HistoryVerb::Show { args, .. }) => &args.output,
            },
            Self::Inventory(args) => match &args.verb {
                InventoryVerb::List { output, .. } | InventoryVerb::Host { output, .. } => output,
                InventoryVerb::Graph { .. } => return None,
            },
            Self::Catalog(args) => &args.output,
            Self::Render(_)
            | Self::Report(_)
            | Self::Schedule(_)
            | Self::Schema(_)
            | Self::Sim(_)
            | Self::Init(_)
            | Self::Content(_)
            | Self::Completions { .. }
            | Self::Man => return None,
        };
        Some(output.output)
    }

    /// Whether a document for a build server was asked for, which is due whatever happens.
    #[must_use]
    pub fn wants_junit(&self) -> bool {
        match self {
            Self::Gpu(args) => args.output.output == PlanFormat::Junit,
            Self::Run(args) => args.play.output.output == PlanFormat::Junit,
            Self::Apply(args) => args.output.output == RunFormat::Junit,
            Self::Drift(args) => args.output.output == RunFormat::Junit,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}

//! The command line as users type it. Flags carry Ansible's names where Ansible
//! has them. Nothing is decided here; `settings` does that.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::inventory::shard::Shard;

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
    /// Print one file as it would land on a host
    Render(RenderArgs),
    /// Show hosts, groups and variables, as ansible-inventory does
    Inventory(InventoryVerbArgs),
    /// Show GPU models, their MIG profiles and placements
    Catalog(CatalogArgs),
    /// Print what systemd, cron or Kubernetes need to look for drift again and again
    Schedule(super::schedule::ScheduleArgs),
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
            Self::Apply(args) => &args.output,
            Self::Plan(args) => match &args.verb {
                PlanVerb::Show(args) => return Some(args.output.output.plain()),
            },
            Self::Drift(args) => &args.output,
            Self::Rollback(args) => &args.output,
            Self::Runs(args) => match &args.verb {
                None => &args.list.output,
                Some(RunsVerb::Show { args, .. } | RunsVerb::Confirm { args, .. }) => &args.output,
                Some(RunsVerb::Undo { args, .. }) => &args.of.output,
                Some(RunsVerb::Extend { args, .. }) => &args.of.output,
                Some(RunsVerb::Unlock { args, .. }) => &args.of.output,
            },
            Self::Inventory(args) => match &args.verb {
                InventoryVerb::List { output, .. } | InventoryVerb::Host { output, .. } => output,
                InventoryVerb::Graph { .. } => return None,
            },
            Self::Catalog(args) => &args.output,
            Self::Render(_)
            | Self::Schedule(_)
            | Self::Sim(_)
            | Self::Content(_)
            | Self::Completions { .. }
            | Self::Man => return None,
        };
        Some(output.output)
    }
}

/// Which hosts, and with which variables.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Inventory file, directory or `host,` list; may be given several times
    #[arg(
        short = 'i',
        long = "inventory",
        value_name = "INVENTORY",
        required = true
    )]
    pub inventory: Vec<PathBuf>,
    /// Only these hosts: names, groups, globs, `&` and `!`
    #[arg(short = 'l', long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Of these only a stable share, for controllers that work side by side; K from 0
    #[arg(long, value_name = "K/N")]
    pub shard: Option<Shard>,
    /// Variables that beat all others: key=value, YAML, JSON or @FILE
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// Folder with the user's own playbooks/, templates/ and vars/; else the
    /// nearest one above the inventory that has a playbooks/
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
}

/// How hosts are reached.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// How many hosts at a time
    #[arg(short = 'f', long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub forks: u16,
    /// Log in as this user (the inventory's ansible_user wins)
    #[arg(short = 'u', long = "user", value_name = "USER")]
    pub user: Option<String>,
    /// Become root by sudo
    #[arg(short = 'b', long = "become")]
    pub r#become: bool,
    /// Ask for the sudo password
    #[arg(short = 'K', long)]
    pub ask_become_pass: bool,
    /// Ask for the login password
    #[arg(short = 'k', long)]
    pub ask_pass: bool,
    /// Log in with this key
    #[arg(long, visible_alias = "key-file", value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Seconds for each stage of connecting
    #[arg(short = 'T', long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub timeout: Option<u16>,
    /// Accept and remember the keys of hosts that are not known yet (a changed key is never accepted)
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// Read this file instead of ~/.ssh/config
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
}

/// How output looks.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Human, value_name = "FORM")]
    pub output: Format,
    /// Say more: also what is as wanted; twice for what the transport does
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// How the output of a verb looks that shows plans.
#[derive(Debug, Args)]
pub struct PlanOutputArgs {
    /// Form of the output; markdown and html show a plan, so they go with --check
    #[arg(long, value_enum, default_value_t = PlanFormat::Human, value_name = "FORM")]
    pub output: PlanFormat,
    /// Say more: also what is as wanted; twice for what the transport does
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Most bytes of markdown: what does not fit is left out and said to be
    #[arg(long, value_name = "BYTES", default_value_t = crate::report::markdown::USUAL_SIZE)]
    pub max_size: usize,
}

impl PlanOutputArgs {
    /// For people, as if nothing was said.
    #[must_use]
    pub fn human() -> Self {
        Self {
            output: PlanFormat::Human,
            verbose: 0,
            max_size: crate::report::markdown::USUAL_SIZE,
        }
    }
}

/// Form of the output of a verb that shows plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// For a merge request.
    Markdown,
    /// A page for a browser that needs nothing else.
    Html,
}

impl PlanFormat {
    /// The form in which anything but a plan is told.
    #[must_use]
    pub fn plain(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Human | Self::Markdown | Self::Html => Format::Human,
        }
    }
}

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
    /// Only tasks with these tags
    #[arg(short = 't', long, value_delimiter = ',', value_name = "TAGS")]
    pub tags: Vec<String>,
    /// All but tasks with these tags
    #[arg(long, value_delimiter = ',', value_name = "TAGS")]
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
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// What a host that fails means for the others; it undoes its own changes in any case
    #[arg(long, value_enum, default_value_t = OnFailure::RollbackHost, value_name = "WHAT")]
    pub on_failure: OnFailure,
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
    #[arg(short = 'l', long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Variables that the plan does not hold, because they were given on the command line
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// How hosts are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Change nothing; exit 2 if the plan still holds and would change something
    #[arg(short = 'C', long)]
    pub check: bool,
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

/// `deploy run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The playbook
    pub playbook: PathBuf,
    /// As for `deploy gpu`.
    #[command(flatten)]
    pub play: PlayArgs,
}

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
    pub output: OutputArgs,
    /// What was applied with these tags
    #[arg(short = 't', long, value_delimiter = ',', value_name = "TAGS")]
    pub tags: Vec<String>,
    /// What was applied without these tags
    #[arg(long, value_delimiter = ',', value_name = "TAGS")]
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

/// `deploy rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Which hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How they are reached.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which run; else the last one that was applied
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Undo even if the host is no longer as the run left it
    #[arg(long)]
    pub anyway: bool,
    /// Show only; exit 2 if there is something to undo
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Undo without asking
    #[arg(long)]
    pub yes: bool,
}

/// `deploy runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RunsVerbArgs {
    /// What to do; else the runs are listed.
    #[command(subcommand)]
    pub verb: Option<RunsVerb>,
    /// For the list.
    #[command(flatten)]
    pub list: RunsArgs,
}

/// What `deploy runs` does besides listing.
#[derive(Debug, Subcommand)]
pub enum RunsVerb {
    /// Explain one run from its journal
    Show {
        /// The run
        id: String,
        /// Which hosts, and how to reach them.
        #[command(flatten)]
        args: RunsArgs,
    },
    /// Keep a run that waits for it; the host repeats its checks first
    Confirm {
        /// The run
        id: String,
        /// Which hosts, and how to reach them.
        #[command(flatten)]
        args: RunsArgs,
    },
    /// Undo a run, with its diff shown first: `deploy rollback --run ID`
    Undo {
        /// The run
        id: String,
        /// Which hosts, and how it is undone.
        #[command(flatten)]
        args: UndoArgs,
    },
    /// Give a run more time to be confirmed, and print when it is undone
    Extend {
        /// The run
        id: String,
        /// Which hosts, and by how much.
        #[command(flatten)]
        args: ExtendArgs,
    },
    /// End a run that hangs or was killed and keeps others out, and undo it
    Unlock {
        /// The run
        id: String,
        /// Which hosts, and how to reach them.
        #[command(flatten)]
        args: UnlockArgs,
    },
}

/// `deploy runs undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// Which hosts.
    #[command(flatten)]
    pub of: RunsArgs,
    /// Undo even if the host is no longer as the run left it
    #[arg(long)]
    pub anyway: bool,
    /// Show only; exit 2 if there is something to undo
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Undo without asking
    #[arg(long)]
    pub yes: bool,
}

impl UndoArgs {
    /// The same as `deploy rollback --run ID`.
    #[must_use]
    pub fn rollback(self, id: String) -> RollbackArgs {
        RollbackArgs {
            hosts: self.of.hosts,
            connection: self.of.connection,
            output: self.of.output,
            run: Some(id),
            anyway: self.anyway,
            check: self.check,
            yes: self.yes,
        }
    }
}

/// `deploy runs extend`.
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// Which hosts.
    #[command(flatten)]
    pub of: RunsArgs,
    /// How much more time, such as 90s, 10m or 1h; at most a day
    #[arg(long, value_name = "TIME", value_parser = more_time)]
    pub by: std::time::Duration,
}

/// `deploy runs unlock`.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Which hosts.
    #[command(flatten)]
    pub of: RunsArgs,
    /// Show only; exit 2 if there is something to undo
    #[arg(short = 'C', long)]
    pub check: bool,
    /// End and undo it without asking
    #[arg(long)]
    pub yes: bool,
}

/// The longest time that a guard is given at once.
const LONGEST_EXTENSION: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A span of time as people write it: `90s`, `10m`, `1h`, `1h 30m`.
fn more_time(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is no time such as 90s, 10m or 1h");
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let span = std::time::Duration::try_from(span).map_err(|_| wrong())?;
    if span.as_secs() == 0 {
        return Err("it must be at least a second".to_owned());
    }
    if span > LONGEST_EXTENSION {
        return Err("it must be at most a day".to_owned());
    }
    Ok(std::time::Duration::from_secs(span.as_secs()))
}

/// Which hosts' runs.
#[derive(Debug, Args)]
pub struct RunsArgs {
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
    #[arg(long, value_name = "HOST")]
    pub host: String,
    /// Only this template; else all files that the playbook makes
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// The playbook; playbooks/gpu.yml if not given
    #[arg(long, value_name = "PLAYBOOK")]
    pub playbook: Option<PathBuf>,
}

/// `deploy inventory`.
#[derive(Debug, Args)]
pub struct InventoryVerbArgs {
    /// What to show.
    #[command(subcommand)]
    pub verb: InventoryVerb,
}

/// What `deploy inventory` shows.
#[derive(Debug, Subcommand)]
pub enum InventoryVerb {
    /// All hosts with their variables; as JSON what `ansible-inventory --list` prints
    List {
        /// Which hosts.
        #[command(flatten)]
        hosts: HostArgs,
        /// How output looks.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Groups as a tree
    Graph {
        /// From this group down
        #[arg(default_value = "all")]
        group: String,
        /// Which hosts.
        #[command(flatten)]
        hosts: HostArgs,
        /// With variables
        #[arg(long)]
        vars: bool,
    },
    /// One host: each variable, and which file and line it comes from
    Host {
        /// The host
        name: String,
        /// Which hosts.
        #[command(flatten)]
        hosts: HostArgs,
        /// How output looks.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `deploy catalog`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CatalogArgs {
    /// Something else than to show models.
    #[command(subcommand)]
    pub verb: Option<CatalogVerb>,
    /// One model, such as `H100-80GB` or `A30`; else all
    pub model: Option<String>,
    /// Folder with the user's own vars/
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `deploy catalog` can do beside showing models.
#[derive(Debug, Subcommand)]
pub enum CatalogVerb {
    /// Which MIG layouts hold what tenants need, on how many cards
    Fit(FitArgs),
}

/// `deploy catalog fit`.
#[derive(Debug, Args)]
pub struct FitArgs {
    /// Model of the card, such as `H100-80GB`
    #[arg(long, value_name = "MODEL")]
    pub gpu: String,
    /// What tenants need, as COUNTxMEMORY, such as `6x9GB,1x35GB`; GB, GiB, MB and MiB are known
    #[arg(long, value_name = "LIST")]
    pub need: String,
    /// How many layouts to show, at most
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub most: usize,
    /// Folder with the user's own vars/
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `deploy content`.
#[derive(Debug, Args)]
pub struct ContentArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ContentVerb,
}

/// What `deploy content` does.
#[derive(Debug, Subcommand)]
pub enum ContentVerb {
    /// List the shipped files
    List,
    /// Write the shipped files into a folder; files that are there are kept
    Export {
        /// Where to
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_is_written_as_people_do() {
        let seconds = |text| more_time(text).map(|span| span.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        assert_eq!(seconds("24h"), Ok(86_400));
        for wrong in [
            "",
            "10",
            "-5m",
            "5m ago",
            "0s",
            "500ms",
            "25h",
            "x",
            "99999999999999999999h",
        ] {
            assert!(more_time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}

//! Flags that many verbs have: which hosts, how they are reached, how output looks.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::cli::complete;
use crate::inventory::shard::Shard;
use crate::schedule::Every;

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
    #[arg(short = 'l', long, value_name = "PATTERN", add = ArgValueCompleter::new(complete::patterns))]
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

/// What is kept of a run, and told of it to others than those who look on.
#[derive(Debug, Clone, Default, Args)]
pub struct KeepArgs {
    /// Where the runs of this machine are kept, or `none`; else $DEPLOY_HISTORY, the state folder
    /// of the service, or ~/.local/state/deploy/history
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// This run is one of a schedule, such as 15m, 1h, daily: says so if runs before it are missing
    #[arg(long, value_name = "SPAN")]
    pub every: Option<Every>,
    /// Write what a monitoring system wants to know of the run to this file when it has ended,
    /// for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
    /// Tell others what the run found, by the webhooks and commands that this file names
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
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
    /// XML for build servers: a test suite a host, a test case a step.
    Junit,
}

impl PlanFormat {
    /// The form in which anything but a plan is told.
    #[must_use]
    pub fn plain(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Human | Self::Markdown | Self::Html | Self::Junit => Format::Human,
        }
    }
}

/// How the output of a verb looks that makes a run or looks for drift.
#[derive(Debug, Args)]
pub struct RunOutputArgs {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = RunFormat::Human, value_name = "FORM")]
    pub output: RunFormat,
    /// Say more: also what is as wanted; twice for what the transport does
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Form of the output of a verb that makes a run or looks for drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// XML for build servers: a test suite a host, a test case a step.
    Junit,
}

impl RunFormat {
    /// The form in which anything but the run is told.
    #[must_use]
    pub fn plain(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Human | Self::Junit => Format::Human,
        }
    }
}

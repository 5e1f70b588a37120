//! The verbs that need no host: `inventory`, `catalog`, `content`, `schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::{HostArgs, OutputArgs};
use crate::cli::complete;

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
        #[arg(default_value = "all", add = ArgValueCompleter::new(complete::groups))]
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
        #[arg(add = ArgValueCompleter::new(complete::hosts))]
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

/// `deploy schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The `type` of the line; without it they are listed
    #[arg(value_name = "TYPE")]
    pub kind: Option<String>,
    /// One schema for any line
    #[arg(long, conflicts_with = "kind")]
    pub all: bool,
}

//! The verb for what was done from this machine: `history`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// `deploy history`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HistoryVerbArgs {
    /// What to show; else the runs are listed.
    #[command(subcommand)]
    pub verb: Option<HistoryVerb>,
    /// For the list.
    #[command(flatten)]
    pub list: HistoryArgs,
}

/// What `deploy history` shows.
#[derive(Debug, Subcommand)]
pub enum HistoryVerb {
    /// List the runs, the newest first
    List(HistoryArgs),
    /// Tell one run again
    Show {
        /// The run, as the list has it
        id: String,
        /// Where it is kept, and how it looks.
        #[command(flatten)]
        args: HistoryArgs,
    },
}

/// Which history.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Where the runs are kept; else where they are kept if nothing is said
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// Only what happened to this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// How output looks.
    #[command(flatten)]
    pub output: OutputArgs,
}

//! The verbs for what was done from this machine: `history`, `report`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::OutputArgs;
use crate::cli::complete;
use crate::cli::report_page;

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
        #[arg(add = ArgValueCompleter::new(complete::runs))]
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

/// `deploy report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A page for a browser that needs nothing else
    #[arg(long, required = true)]
    pub html: bool,
    /// Write it to this file; else it is printed
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How far back, such as 12h, 30d, 2w
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = report_page::since)]
    pub since: jiff::SignedDuration,
    /// Where the runs are kept; else where they are kept if nothing is said
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
}

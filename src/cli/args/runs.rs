//! The verbs for what was applied: `runs` and `rollback`.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use super::{ConnectionArgs, HostArgs, KeepArgs, OutputArgs};
use crate::cli::complete;

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
    /// What is kept of it.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Which run; else the last one that was applied
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::runs))]
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
        #[arg(add = ArgValueCompleter::new(complete::runs))]
        id: String,
        /// Which hosts, and how to reach them.
        #[command(flatten)]
        args: RunsArgs,
    },
    /// Keep a run that waits for it; the host repeats its checks first
    Confirm {
        /// The run
        #[arg(add = ArgValueCompleter::new(complete::runs))]
        id: String,
        /// Which hosts, and how to reach them.
        #[command(flatten)]
        args: RunsArgs,
    },
    /// Undo a run, with its diff shown first: `deploy rollback --run ID`
    Undo {
        /// The run
        #[arg(add = ArgValueCompleter::new(complete::runs))]
        id: String,
        /// Which hosts, and how it is undone.
        #[command(flatten)]
        args: UndoArgs,
    },
    /// Give a run more time to be confirmed, and print when it is undone
    Extend {
        /// The run
        #[arg(add = ArgValueCompleter::new(complete::runs))]
        id: String,
        /// Which hosts, and by how much.
        #[command(flatten)]
        args: ExtendArgs,
    },
    /// End a run that hangs or was killed and keeps others out, and undo it
    Unlock {
        /// The run
        #[arg(add = ArgValueCompleter::new(complete::runs))]
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
            keep: KeepArgs::default(),
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
}

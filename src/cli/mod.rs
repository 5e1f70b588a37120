//! The command line: settings in, exit code out.
//!
//! `args` is what users type, `settings` what it comes to once the files are read,
//! `hosts` and `reach` how hosts are connected to, `job` what a playbook's hosts share.
//! `flow` is the way that every changing verb goes: `gate` knows whether another host is
//! begun, `interrupt` hears Ctrl-C, `telling` hands events to the reporter. Then one file
//! a verb.

pub mod args;
mod asked;
mod blame;
pub mod catalog;
mod complete;
pub mod content;
pub mod discover;
pub mod doctor;
mod drift;
mod fit;
pub mod fleet_verbs;
pub mod flow;
#[cfg(test)]
mod flow_tests;
pub mod gate;
mod group_request;
mod history;
pub mod hosts;
mod init;
pub mod interrupt;
pub mod inventory;
pub mod job;
mod metrics;
mod mig_parted;
mod notifying;
pub mod plan_file;
pub mod play;
pub mod prompt;
pub mod reach;
mod record;
mod remediate;
pub mod render;
mod report_page;
pub mod resume;
pub mod rollback;
pub mod runs;
mod schedule;
mod schema;
pub mod settings;
mod settle;
pub mod sim;
mod slices;
pub mod standing;
mod telling;

use clap::{CommandFactory, Parser};

use crate::error::{Diagnostic, Problems};
use crate::report::exit::{CheckMode, Exit};
use crate::report::{self, Reporter};
use crate::value::HostName;
use args::{Cli, Format, InventoryVerb, PlanVerb, RunsVerb, Verb};
use interrupt::Interrupts;
use inventory::GraphVars;
use job::Which;
use record::Record;

/// Why a verb ended early; nothing was changed by it.
#[derive(Debug)]
pub enum Failure {
    /// Findings about the user's files or variables.
    Problems(Problems),
    /// Anything else, with its chain of causes.
    Other(anyhow::Error),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Problems(diagnostic.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Reads the arguments, runs the verb, and gives the process's exit code.
#[must_use]
pub fn main() -> u8 {
    if complete::answered() {
        return Exit::Done.code();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let exit = if usage.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Help goes to standard output, a wrong usage to standard error.
            let _ = usage.print();
            if exit == Exit::Usage && asks_for_json(std::env::args_os().skip(1)) {
                // As the text says it, without its frame.
                let text = usage.to_string();
                let first = text.split("\n\n").next().unwrap_or_default();
                let message = first.trim().trim_start_matches("error: ");
                report::json_end(&Diagnostic::error(message).into(), exit);
            }
            return exit.code();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            report::error(
                &[
                    "the runtime could not be started".to_owned(),
                    error.to_string(),
                ],
                None,
            );
            return Exit::Refused.code();
        }
    };
    let exit = runtime.block_on(attended(cli.verb));
    // A host that does not answer must not hold up the end.
    runtime.shutdown_background();
    exit.code()
}

/// Whether the words of a command line that cannot be read ask for JSON.
fn asks_for_json(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<_> = words.collect();
    let alone = words.iter().any(|word| word == "--output=json");
    alone
        || words
            .windows(2)
            .any(|two| two[0] == "--output" && two[1] == "json")
}

/// Runs the verb; a signal that it does not attend to ends it.
async fn attended(verb: Verb) -> Exit {
    let format = verb.format();
    let mut interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            let chain = [
                "signals cannot be listened for".to_owned(),
                error.to_string(),
            ];
            report::error(&chain, None);
            return Exit::Refused;
        }
    };
    let record = Record::begin(&verb);
    // A task of its own, so that a verb that waits for a person holds up no signal.
    let work = tokio::spawn({
        let (interrupts, record) = (interrupts.clone(), record.clone());
        async move { dispatch(verb, &interrupts, &record).await }
    });
    let exit = tokio::select! {
        exit = work => match exit {
            Ok(exit) => exit,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Exit::PersonNeeded,
            },
        },
        () = interrupts.unattended() => {
            prompt::restore_terminal();
            report::talk("\ninterrupted\n");
            if format == Some(Format::Json) {
                report::json_end(&Problems::default(), Exit::Interrupted);
            }
            Exit::Interrupted
        }
    };
    // Whoever is told of it may not answer: a signal, the second one of those who have
    // interrupted the run, ends that, too.
    let closing = tokio::task::spawn_blocking(move || record.close(exit));
    tokio::select! {
        _ = closing => {}
        () = interrupts.unattended() => {}
    }
    exit
}

async fn dispatch(verb: Verb, interrupts: &Interrupts, record: &Record) -> Exit {
    let (format, wants_junit) = (verb.format(), verb.wants_junit());
    let done = match record.refusal() {
        Some(problems) => Err(Failure::Problems(problems)),
        None => run(verb, interrupts, record).await,
    };
    let failure = match done {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    match &failure {
        Failure::Problems(problems) => record.refused(problems, Exit::Refused),
        Failure::Other(error) => {
            let problem = Diagnostic::error(format!("{error:#}"));
            record.refused(&problem.into(), Exit::Refused);
        }
    }
    if wants_junit {
        let problems = match failure {
            Failure::Problems(problems) => problems,
            Failure::Other(error) => Diagnostic::error(format!("{error:#}")).into(),
        };
        return Reporter::junit(CheckMode::On).refuse(&problems);
    }
    match (failure, format) {
        (Failure::Problems(problems), Some(Format::Json)) => {
            report::json_end(&problems, Exit::Refused);
        }
        (Failure::Problems(problems), _) => report::problems(&problems),
        (Failure::Other(error), Some(Format::Json)) => {
            let problem = Diagnostic::error(format!("{error:#}"));
            report::json_end(&problem.into(), Exit::Refused);
        }
        (Failure::Other(error), _) => {
            let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
            report::error(&chain, None);
        }
    }
    Exit::Refused
}

async fn run(verb: Verb, interrupts: &Interrupts, record: &Record) -> Result<Exit, Failure> {
    match verb {
        Verb::Completions { shell } => {
            report::data(&complete::script(shell));
            Ok(Exit::Done)
        }
        Verb::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(anyhow::Error::from)?;
            report::data(&String::from_utf8_lossy(&page));
            Ok(Exit::Done)
        }
        Verb::Schema(args) => schema::run(&args),
        Verb::Schedule(args) => schedule::run(&args),
        Verb::Sim(args) => {
            sim::run(&args, &mut report::data).await?;
            Ok(Exit::Done)
        }
        Verb::Inventory(args) => inventory_verb(&args.verb),
        Verb::Catalog(args) => catalog::run(&args),
        Verb::Content(args) => content::run(&args.verb),
        Verb::Gpu(args) => play::run(&Which::Named("gpu.yml"), &args, interrupts, record).await,
        Verb::Run(args) => {
            play::run(&Which::File(args.playbook), &args.play, interrupts, record).await
        }
        Verb::Discover(args) => fleet_verbs::discover(&args).await,
        Verb::Init(args) => init::run(&args).await,
        Verb::Doctor(args) => doctor::run(&args).await,
        Verb::Apply(args) => plan_file::apply::run(&args, interrupts, record).await,
        Verb::Plan(args) => match args.verb {
            PlanVerb::Show(args) => plan_file::show::run(&args),
        },
        Verb::Drift(args) => drift::run(args, interrupts, record).await,
        Verb::Rollback(args) => rollback::run(&args, interrupts, record).await,
        Verb::Runs(args) => match args.verb {
            None => fleet_verbs::runs(&args.list, None).await,
            Some(RunsVerb::Show { id, args }) => fleet_verbs::runs(&args, Some(&id)).await,
            Some(RunsVerb::Confirm { id, args }) => standing::confirm(&id, &args, interrupts).await,
            Some(RunsVerb::Undo { id, args }) => {
                rollback::run(&args.rollback(id), interrupts, record).await
            }
            Some(RunsVerb::Extend { id, args }) => standing::extend(&id, &args).await,
            Some(RunsVerb::Unlock { id, args }) => standing::unlock(&id, &args, interrupts).await,
        },
        Verb::History(args) => history::run(&args),
        Verb::Report(args) => report_page::run(&args),
        Verb::Render(args) => render::run(args).await,
    }
}

fn inventory_verb(verb: &InventoryVerb) -> Result<Exit, Failure> {
    let text = match verb {
        InventoryVerb::List { hosts, output } => {
            let settings = settings::load(hosts, None)?;
            match output.output {
                Format::Human => inventory::list_text(&settings.inventory, &settings.hosts),
                Format::Json => pretty(&inventory::list_json(&settings.inventory, &settings.hosts)),
            }
        }
        InventoryVerb::Graph { group, hosts, vars } => {
            let settings = settings::load(hosts, None)?;
            let vars = if *vars {
                GraphVars::Shown
            } else {
                GraphVars::Hidden
            };
            inventory::graph(&settings.inventory, group, vars).ok_or_else(|| {
                Diagnostic::error(format!("there is no group `{group}`"))
                    .did_you_mean(group, settings.inventory.groups())
                    .or_hint("`deploy inventory graph` shows all groups")
            })?
        }
        InventoryVerb::Host {
            name,
            hosts,
            output,
        } => {
            let settings = settings::load(hosts, None)?;
            let host = HostName::from(name);
            if !settings.inventory.contains(&host) {
                let known = settings.inventory.hosts().map(HostName::as_str);
                return Err(Diagnostic::error(format!("there is no host `{name}`"))
                    .did_you_mean(name, known)
                    .or_hint("`deploy inventory list` shows all hosts")
                    .into());
            }
            match output.output {
                Format::Human => inventory::host_text(&settings.inventory, &host),
                Format::Json => pretty(&inventory::host_json(&settings.inventory, &host)),
            }
        }
    };
    report::data(&text);
    Ok(Exit::Done)
}

fn pretty(json: &serde_json::Value) -> String {
    format!("{json:#}\n")
}

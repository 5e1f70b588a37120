//! `deploy render`: files as they would land on one host. Nothing is changed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::cli::Failure;
use crate::cli::args::{KeepArgs, OnFailure, PlanOutputArgs, PlayArgs, RenderArgs};
use crate::cli::hosts;
use crate::cli::job::{Job, Which};
use crate::cli::reach::reach;
use crate::error::{Diagnostic, nearest};
use crate::event::HostProblem;
use crate::inventory;
use crate::plan::Landing;
use crate::report;
use crate::report::exit::Exit;
use crate::text::printable_line;
use crate::value::HostName;

/// Runs `deploy render`.
///
/// # Errors
/// Findings in the files and variables, a host that cannot be reached, and a
/// template that the playbook does not use there.
pub async fn run(args: RenderArgs) -> Result<Exit, Failure> {
    let host = HostName::from(&args.host);
    let which = match args.playbook {
        Some(path) => Which::File(path),
        None => Which::Named("gpu.yml"),
    };
    let mut play = PlayArgs {
        hosts: args.hosts,
        connection: args.connection,
        output: PlanOutputArgs::human(),
        keep: KeepArgs::default(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
        check: true,
        out: None,
        diff: false,
        yes: false,
        // Nothing is changed, and a file is wanted whatever waits for a reboot.
        allow_reboot: true,
        resume: None,
        on_failure: OnFailure::RollbackHost,
    };
    // A group or a pattern selects hosts as well, but one is wanted.
    let (inventory, found) = inventory::load(&play.hosts.inventory, None, &[]);
    if !found.has_errors() && !inventory.contains(&host) {
        let known = inventory.hosts().map(HostName::as_str);
        return Err(Diagnostic::error(format!("there is no host `{host}`"))
            .did_you_mean(&args.host, known)
            .or_hint("--host takes the name of one host; `deploy inventory list` shows them")
            .into());
    }
    play.hosts.limit = Some(args.host);
    let job = Job::load(&which, &play)?;
    let desired = job.check()?;
    let mut connection = play.connection;
    connection.r#become |= job.wants_become();
    let pools = job.pools(&desired)?;
    let prepared = hosts::prepare(&job.settings, &pools.beside, &connection)?;
    let mut hosts = prepared.start(&play.hosts.inventory).await?;
    hosts.desired = desired;
    hosts.desired.extend(pools.beside.clone());
    let hosts = Arc::new(hosts);
    let soon = HashSet::from([host.clone()]);
    let forks = connection.forks.into();
    let shares = pools
        .gather(&hosts, &job.settings.catalog, forks, &soon)
        .await;
    let planned = async {
        let reached = match shares.take(&host) {
            Some(reached) => reached?,
            None => reach(&hosts, &host, &job.settings.catalog).await?,
        };
        let share = shares.of(&host).map_err(HostProblem::Refused)?;
        job.plan(&host, reached, false, share)
            .await
            .map_err(|(problem, _)| problem)
    };
    let (session, found) = planned.await.map_err(|problem| failure(&host, problem))?;
    session.close().await;
    match args.template {
        None => report::data(&all(&found.files)),
        Some(name) => report::data(&one(&name, &found.files)?),
    }
    Ok(Exit::Done)
}

fn failure(host: &HostName, problem: HostProblem) -> Failure {
    match problem {
        HostProblem::Unreachable(unreachable) => {
            let finding = Diagnostic::error(format!("{host} is unreachable: {unreachable}"));
            match unreachable.hint {
                Some(hint) => finding.hint(hint).into(),
                None => finding.into(),
            }
        }
        HostProblem::Refused(problems) => Failure::Problems(problems),
        HostProblem::NotBegun(why) => Diagnostic::error(format!("{host}: {why}")).into(),
        HostProblem::Failed { chain, .. } => {
            Diagnostic::error(format!("{host}: {}", chain.join(": "))).into()
        }
    }
}

/// One file and nothing else, so that it can be piped on.
fn one(name: &str, files: &[Landing]) -> Result<String, Failure> {
    let of_name = |file: &&Landing| file.source == name || file.path == name;
    let Some(file) = files.iter().find(of_name) else {
        let known = files.iter().map(|file| file.source.as_str());
        let message = format!("the playbook makes nothing from `{name}` on this host");
        let finding = Diagnostic::error(message);
        return Err(match nearest(name, known.clone()) {
            Some(near) => finding.hint(format!("did you mean `{near}`?")),
            None => {
                let known: Vec<&str> = known.filter(|name| !name.is_empty()).collect();
                finding.hint(match known.is_empty() {
                    true => {
                        "it makes no file there: nothing that takes one is asked for".to_owned()
                    }
                    false => format!("it makes files from {}", known.join(", ")),
                })
            }
        }
        .into());
    };
    if file.secret {
        return Err(Diagnostic::error(format!(
            "{} is secret (`no_log`) and is not shown",
            file.path
        ))
        .into());
    }
    Ok(String::from_utf8_lossy(&file.content).into_owned())
}

fn all(files: &[Landing]) -> String {
    let mut text = String::new();
    for file in files {
        let _ = writeln!(text, "==> {} <==", file.path);
        if file.secret {
            let _ = writeln!(text, "(secret, {} bytes)", file.content.len());
            continue;
        }
        for line in String::from_utf8_lossy(&file.content).lines() {
            let _ = writeln!(text, "{}", printable_line(line, 4000));
        }
        text.push('\n');
    }
    text
}

//! The verbs that only look at hosts: `discover` and `runs`. What they print is made
//! by `discover` and `runs` beside this file.

use std::collections::HashMap;
use std::sync::Arc;

use crate::apply::runs::HostRuns;
use crate::apply::{self, RunId};
use crate::cli::args::{
    ConnectionArgs, DiscoverArgs, Format, HostArgs, OutputArgs, PlanFormat, PlanOutputArgs,
    RunFormat, RunOutputArgs, RunsArgs,
};
use crate::cli::group_request::{self, Shares};
use crate::cli::hosts::{self, Hosts};
use crate::cli::reach::{self, reach};
use crate::cli::settings::{self, Settings};
use crate::cli::{Failure, discover, metrics, mig_parted, runs};
use crate::desired::Desired;
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem, Outcome};
use crate::facts::HostFacts;
use crate::fleet;
use crate::report::exit::{CheckMode, Exit};
use crate::report::{self, PageForm, Plans, Reporter};
use crate::strategy;
use crate::value::HostName;

/// A reporter of the form that the flags ask for.
#[must_use]
pub fn reporter(output: &OutputArgs, check: CheckMode, plans: Plans) -> Reporter {
    match output.output {
        Format::Human => Reporter::human(check, plans, output.verbose > 0),
        Format::Json => Reporter::json(check),
    }
}

/// A reporter of the form that the flags of a verb ask for that shows plans.
#[must_use]
pub fn plan_reporter(output: &PlanOutputArgs, check: CheckMode, plans: Plans) -> Reporter {
    match output.output {
        PlanFormat::Human => Reporter::human(check, plans, output.verbose > 0),
        PlanFormat::Json => Reporter::json(check),
        PlanFormat::Markdown => Reporter::page(PageForm::Markdown(output.max_size), check),
        PlanFormat::Html => Reporter::page(PageForm::Html, check),
        PlanFormat::Junit => Reporter::junit(check),
    }
}

/// A reporter of the form that the flags of a verb ask for that makes a run or looks for
/// drift.
#[must_use]
pub fn run_reporter(output: &RunOutputArgs, check: CheckMode, plans: Plans) -> Reporter {
    match output.output {
        RunFormat::Human => Reporter::human(check, plans, output.verbose > 0),
        RunFormat::Json => Reporter::json(check),
        RunFormat::Junit => Reporter::junit(check),
    }
}

/// Everything that can be known before the first connection.
///
/// # Errors
/// Every finding in the files and variables.
pub async fn ready(
    hosts: &HostArgs,
    connection: &ConnectionArgs,
    playbook: Option<&std::path::Path>,
) -> Result<(Settings, Arc<Hosts>), Failure> {
    let settings = settings::load(hosts, playbook)?;
    let ready = hosts::prepare(&settings, &HashMap::new(), connection)?
        .start(&hosts.inventory)
        .await?;
    Ok((settings, Arc::new(ready)))
}

/// Runs `deploy discover`.
///
/// # Errors
/// Findings in the files and variables.
pub async fn discover(args: &DiscoverArgs) -> Result<Exit, Failure> {
    let forms = [
        ("--metrics", args.metrics.is_some()),
        ("--mig-parted", args.mig_parted.is_some()),
    ];
    if let (Some((form, _)), Format::Json) = (
        forms.into_iter().find(|(_, given)| *given),
        args.output.output,
    ) {
        let message = format!("`{form}` and `--output json` are two forms of output");
        return Err(Diagnostic::error(message).hint("give one of them").into());
    }
    let (settings, hosts) = ready(&args.hosts, &args.connection, None).await?;
    if args.metrics.is_some() {
        check_wanted(&settings, &hosts)?;
    }
    let mut reporter = reporter(&args.output, CheckMode::Off, Plans::Together);
    let mut seen: Vec<(HostName, Arc<HostFacts>)> = Vec::new();
    let order = settings.hosts.clone();
    let catalog = Arc::clone(&settings.catalog);
    let mut ends = Vec::new();
    fleet::each(
        settings.hosts.clone(),
        args.connection.forks.into(),
        |host| {
            let (hosts, catalog) = (Arc::clone(&hosts), Arc::clone(&catalog));
            async move {
                let reached = reach(&hosts, &host, &catalog).await?;
                reached.session.close().await;
                Ok(reached.facts)
            }
        },
        |host, facts| match facts {
            Some(Ok(facts)) => seen.push((host, facts)),
            Some(Err(problem)) => ends.push((host, Outcome::Unreachable, Some(problem))),
            None => ends.push((host, Outcome::Failed, None)),
        },
    )
    .await;
    seen.sort_by_key(|(host, _)| order.iter().position(|name| name == host));
    if let Some(file) = &args.metrics {
        ends.extend(tell_metrics(&settings, &hosts, &seen, file.as_deref())?);
        return Ok(tell_ends(reporter.beside_data(), ends, Format::Human));
    }
    if let Some(file) = &args.mig_parted {
        ends.extend(tell_layouts(seen, file.as_deref())?);
        return Ok(tell_ends(reporter.beside_data(), ends, Format::Human));
    }
    if args.output.output == Format::Human {
        let rows: Vec<(&str, &HostFacts)> = seen
            .iter()
            .map(|(host, facts)| (host.as_str(), facts.as_ref()))
            .collect();
        report::data(&discover::table(&rows, &settings.catalog, report::width()));
    }
    for (host, facts) in seen {
        if args.output.output == Format::Json {
            let host = host.clone();
            reporter.event(&Event::Facts { host, facts });
        }
        ends.push((host, Outcome::Ok, None));
    }
    Ok(tell_ends(reporter, ends, args.output.output))
}

/// What can be seen to be wrong with what is wanted before the first connection, as before
/// a plan.
fn check_wanted(settings: &Settings, hosts: &Hosts) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for host in &settings.hosts {
        if let Some(desired) = hosts.desired.get(host) {
            problems.extend(strategy::check_offline(desired, &settings.catalog));
        }
    }
    let warnings = settings::tell_warnings(settings::once(problems))?;
    report::problems(&warnings);
    Ok(())
}

/// Prints the metrics, or writes them to a file, and gives how the hosts ended that were
/// reached.
fn tell_metrics(
    settings: &Settings,
    hosts: &Hosts,
    seen: &[(HostName, Arc<HostFacts>)],
    file: Option<&std::path::Path>,
) -> Result<Vec<(HostName, Outcome, Option<HostProblem>)>, Failure> {
    let mut ends = Vec::new();
    let mut rows = Vec::new();
    let shares = shares(settings, hosts, seen)?;
    for host in &settings.hosts {
        let facts = seen.iter().find(|(name, _)| name == host);
        let (Some((_, facts)), Some(desired)) = (facts, hosts.desired.get(host)) else {
            rows.push((host.as_str(), metrics::Host::Down));
            continue;
        };
        let counted = shares.of(host).and_then(|share| {
            let mut desired = Desired::clone(desired);
            if let Some(share) = share {
                desired.slicing.request.clone_from(&share.request);
            }
            let decisions = strategy::decide(&desired, facts, &settings.catalog)?;
            Ok(strategy::census(&decisions, facts))
        });
        let (counts, problem) = match counted {
            Ok(counts) => (Some(counts), None),
            Err(found) => (None, Some(HostProblem::Refused(found))),
        };
        let outcome = match problem {
            None => Outcome::Ok,
            Some(_) => Outcome::Failed,
        };
        ends.push((host.clone(), outcome, problem));
        rows.push((host.as_str(), metrics::Host::Up(facts, counts)));
    }
    let text = metrics::text(&rows);
    match file {
        Some(file) => metrics::write(file, &text)?,
        None => report::data(&text),
    }
    Ok(ends)
}

/// What hosts get of the totals of their groups, as far as all of a group were looked at.
fn shares(
    settings: &Settings,
    hosts: &Hosts,
    seen: &[(HostName, Arc<HostFacts>)],
) -> Result<Shares, Problems> {
    let pools = group_request::find(&settings.inventory, &hosts.desired, |host| {
        hosts::wanted(settings, host).map(Some)
    })?;
    let mut wanted = hosts.desired.clone();
    wanted.extend(pools.beside.clone());
    let seen = seen
        .iter()
        .map(|(host, facts)| (host.clone(), Ok(Arc::clone(facts))))
        .collect();
    Ok(pools.shares(&wanted, &seen, &settings.catalog))
}

/// Prints the hosts' layouts for mig-parted, or writes them to a file, and gives how the hosts
/// ended.
fn tell_layouts(
    seen: Vec<(HostName, Arc<HostFacts>)>,
    file: Option<&std::path::Path>,
) -> Result<Vec<(HostName, Outcome, Option<HostProblem>)>, Failure> {
    let mut ends = Vec::new();
    let mut configs = Vec::new();
    let mut left_out = Vec::new();
    for (host, facts) in seen {
        match mig_parted::config(&facts) {
            Ok(config) => {
                match config {
                    Some(config) => configs.push((host.as_str().to_owned(), config)),
                    None => left_out.push(host.as_str().to_owned()),
                }
                ends.push((host, Outcome::Ok, None));
            }
            Err(why) => ends.push((host, Outcome::Failed, Some(reach::failed(why)))),
        }
    }
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        let message = format!("no card of NVIDIA's, so that the file says nothing of it: {names}");
        report::problems(&Diagnostic::warning(message).into());
    }
    let text = mig_parted::file(&configs);
    match file {
        Some(file) => metrics::write(file, &text)?,
        None => report::data(&text),
    }
    Ok(ends)
}

/// Runs `deploy runs` and `deploy runs show`.
///
/// # Errors
/// Findings in the files and variables, or no host that has the run.
pub async fn runs(args: &RunsArgs, only: Option<&str>) -> Result<Exit, Failure> {
    let only = only.map(run_id).transpose()?;
    let (settings, hosts) = ready(&args.hosts, &args.connection, None).await?;
    let order = settings.hosts.clone();
    let mut found: Vec<(HostName, HostRuns)> = Vec::new();
    let mut ends = Vec::new();
    fleet::each(
        settings.hosts.clone(),
        args.connection.forks.into(),
        |host| {
            let (hosts, only) = (Arc::clone(&hosts), only.clone());
            async move {
                let mut session = reach::connect(&hosts, &host).await?;
                let runs = apply::runs::read(session.as_mut(), only.as_ref()).await;
                session.close().await;
                Ok::<_, HostProblem>(runs.map_err(|error| error.to_string()))
            }
        },
        |host, runs| match runs {
            Some(Ok(Ok(runs))) => found.push((host, runs)),
            Some(Ok(Err(message))) => {
                ends.push((host, Outcome::Failed, Some(reach::failed(message))));
            }
            Some(Err(problem)) => ends.push((host, Outcome::Unreachable, Some(problem))),
            None => ends.push((host, Outcome::Failed, None)),
        },
    )
    .await;
    found.sort_by_key(|(host, _)| order.iter().position(|name| name == host));
    let reporter = reporter(&args.output, CheckMode::Off, Plans::Together);
    let mut shown = 0;
    if (args.output.output, &only) == (Format::Human, &None) {
        report::data(&runs::list_text(&found));
    }
    for (host, runs) in &found {
        shown += runs.runs.len();
        match (args.output.output, &only) {
            (Format::Json, _) => report::json_lines(&runs::objects(host, runs)),
            (Format::Human, None) => {}
            (Format::Human, Some(_)) => {
                for run in &runs.runs {
                    report::data(&runs::show_text(host, run));
                }
            }
        }
    }
    if let (Some(id), 0, true) = (&only, shown, ends.is_empty()) {
        return Err(no_such_run(id).into());
    }
    ends.extend(found.into_iter().map(|(host, _)| (host, Outcome::Ok, None)));
    Ok(tell_ends(reporter, ends, args.output.output))
}

/// Tells how hosts ended that were only read; people hear of it only if something went wrong.
pub(super) fn tell_ends(
    mut reporter: Reporter,
    ends: Vec<(HostName, Outcome, Option<HostProblem>)>,
    format: Format,
) -> Exit {
    let all_well = ends.iter().all(|(_, outcome, _)| *outcome == Outcome::Ok);
    if all_well && format == Format::Human {
        return Exit::Done;
    }
    for (host, outcome, problem) in ends {
        reporter.event(&Event::HostEnd {
            host,
            outcome,
            problem,
        });
    }
    reporter.finish()
}

/// A run that was asked for by name and is nowhere.
#[must_use]
pub fn no_such_run(run: &RunId) -> Diagnostic {
    Diagnostic::error(format!("no host keeps a run `{run}`"))
        .hint("`deploy runs` lists those that are kept")
}

/// A run id as the user wrote it.
///
/// # Errors
/// It cannot be one.
pub fn run_id(text: &str) -> Result<RunId, Failure> {
    RunId::parse(text).ok_or_else(|| {
        Diagnostic::error(format!("`{text}` is not the id of a run"))
            .hint("`deploy runs` lists them; one looks like 20261122T210500Z-3f9a1c")
            .into()
    })
}

//! `deploy doctor`: looks at each host for what keeps workloads from their GPUs. It changes
//! nothing: all that it has of a host is a `Probe`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use indexmap::IndexSet;
use serde_json::json;

use crate::catalog::Catalog;
use crate::cli::Failure;
use crate::cli::args::{DoctorArgs, Format};
use crate::cli::fleet_verbs::{ready, reporter, tell_ends};
use crate::cli::hosts::Hosts;
use crate::cli::reach::{self, Reached, reach};
use crate::desired::Desired;
use crate::error::Problems;
use crate::event::{HostProblem, Outcome};
use crate::facts::HostFacts;
use crate::fleet;
use crate::module::ReadCache;
use crate::platform::{self, Examined, Finding, Host, View};
use crate::render::{Halt, Rendered};
use crate::report::exit::{CheckMode, Exit};
use crate::report::line::{Kind, Line};
use crate::report::{self, Plans};
use crate::strategy;
use crate::text::printable_line;
use crate::transport::{Output, PathState, Probe, Read};
use crate::value::HostName;

/// How often a host is asked for more before it is given up.
const MOST_ROUNDS: usize = 8;

/// Most bytes of a file's content that a look brings back.
const MOST_CONTENT: u64 = 1 << 20;

/// Most characters of one line about a host.
const LINE: usize = 1000;

/// Runs `deploy doctor`.
///
/// # Errors
/// Findings in the files and variables.
pub async fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let (settings, hosts) = ready(&args.hosts, &args.connection, None).await?;
    let mut problems = Problems::default();
    for host in &settings.hosts {
        if let Some(desired) = hosts.desired.get(host) {
            problems.extend(platform::check_offline(desired, &settings.catalog));
        }
    }
    let problems = crate::cli::settings::once(problems);
    if problems.has_errors() {
        return Err(problems.into());
    }
    let mut found: HashMap<HostName, Examined> = HashMap::new();
    let mut ends = Vec::new();
    let catalog = Arc::clone(&settings.catalog);
    fleet::each(
        settings.hosts.clone(),
        args.connection.forks.into(),
        |host| {
            let (hosts, catalog) = (Arc::clone(&hosts), Arc::clone(&catalog));
            async move { examine(&hosts, &host, &catalog).await }
        },
        |host, result| match result {
            Some(Ok(examined)) => {
                found.insert(host, examined);
            }
            Some(Err(problem)) => ends.push((host, outcome_of(&problem), Some(problem))),
            None => ends.push((host, Outcome::Failed, None)),
        },
    )
    .await;
    let reporter = reporter(&args.output, CheckMode::On, Plans::Together);
    for host in &settings.hosts {
        let Some(examined) = found.get(host) else {
            continue;
        };
        let outcome = match examined.findings.is_empty() {
            true => Outcome::Ok,
            false => Outcome::Changed,
        };
        ends.push((host.clone(), outcome, None));
        match args.output.output {
            Format::Human => report::data(&text(host, examined)),
            Format::Json => report::json_lines(&objects(host, &examined.findings)),
        }
    }
    let reporter = reporter.calling_found("has faults");
    Ok(tell_ends(reporter, ends, args.output.output))
}

fn outcome_of(problem: &HostProblem) -> Outcome {
    match problem {
        HostProblem::Unreachable(_) => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

fn text(host: &HostName, examined: &Examined) -> String {
    let looked_at = examined.looked_at.join(", ");
    if examined.findings.is_empty() {
        return format!("{host}: nothing is wrong; looked at: {looked_at}\n");
    }
    let mut text = format!("{host}\n");
    for finding in &examined.findings {
        let (what, mend) = (
            printable_line(&finding.what, LINE),
            printable_line(&finding.mend, LINE),
        );
        let _ = writeln!(text, "  ! {what}\n    mend: {mend}");
    }
    text
}

fn objects(host: &HostName, findings: &[Finding]) -> Vec<Line> {
    let object = |finding: &Finding| {
        let body = json!({
            "severity": "error",
            "host": host.as_str(),
            "message": finding.what,
            "hint": finding.mend,
        });
        Line::new(Kind::Diagnostic, body)
    };
    findings.iter().map(object).collect()
}

async fn examine(
    hosts: &Hosts,
    host: &HostName,
    catalog: &Catalog,
) -> Result<Examined, HostProblem> {
    let Reached {
        mut session,
        facts,
        answers,
    } = reach(hosts, host, catalog).await?;
    let mut cache = ReadCache::default();
    let (reads, replies): (Vec<Read>, Vec<_>) = answers.into_iter().unzip();
    // What the host remembers of an earlier run was asked anew now.
    cache.add(&reads, replies);
    let found = match hosts.desired.get(host) {
        Some(desired) => rounds(session.as_mut(), &mut cache, desired, &facts, catalog).await,
        None => Ok(Examined::default()),
    };
    session.close().await;
    found
}

async fn rounds(
    session: &mut (impl Probe + ?Sized),
    cache: &mut ReadCache,
    desired: &Desired,
    facts: &HostFacts,
    catalog: &Catalog,
) -> Result<Examined, HostProblem> {
    let (decisions, undecided) = match strategy::decide(desired, facts, catalog) {
        Ok(decisions) => (decisions, Problems::default()),
        Err(undecided) => (Vec::new(), undecided),
    };
    let view = View {
        desired,
        facts,
        decisions: &decisions,
        catalog,
    };
    for _ in 0..MOST_ROUNDS {
        let mut asker = Asker {
            cache,
            missing: IndexSet::new(),
        };
        let result = platform::examine(&view, &undecided, &mut asker);
        let missing: Vec<Read> = asker.missing.into_iter().collect();
        match result {
            Ok(found) => return Ok(found),
            Err(Halt::Problem(problem)) => {
                return Err(HostProblem::Refused((*problem).into()));
            }
            Err(Halt::Pending) => match session.batch(&missing).await {
                Ok(replies) => cache.add(&missing, replies),
                Err(error) => return Err(reach::failed(error.to_string())),
            },
        }
    }
    let message = "the doctor asks the host for more again and again; this is a defect of deploy";
    Err(reach::failed(message.to_owned()))
}

/// The host as it was read so far.
struct Asker<'a> {
    cache: &'a ReadCache,
    missing: IndexSet<Read>,
}

impl Asker<'_> {
    fn answer<T>(&mut self, read: Read, found: Option<T>) -> Rendered<T> {
        found.ok_or_else(|| {
            self.missing.insert(read);
            Halt::Pending
        })
    }
}

impl Host for Asker<'_> {
    fn ask(&mut self, read: &Read) -> Rendered<Output> {
        let found = self.cache.output(read).cloned();
        self.answer(read.clone(), found)
    }

    fn look(&mut self, path: &str) -> Rendered<PathState> {
        let read = Read::State {
            path: path.to_owned(),
            unless: None,
            limit: MOST_CONTENT,
        };
        let found = self.cache.state(path).cloned();
        self.answer(read, found)
    }

    fn glob(&mut self, pattern: &str) -> Rendered<Vec<String>> {
        let read = Read::Glob {
            pattern: pattern.to_owned(),
        };
        let found = self.cache.glob(&read).map(<[String]>::to_vec);
        self.answer(read, found)
    }

    fn expect(&mut self, read: Read) {
        if !self.cache.has(&read) {
            self.missing.insert(read);
        }
    }
}

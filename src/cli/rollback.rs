//! `deploy rollback`: finds the run to undo on each host and what that changes, shows
//! it like any other plan, asks, and has the host undo it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::apply::rollback::{self, Moved};
use crate::apply::runs::{self, RunRecord};
use crate::apply::{HostResult, RunId};
use crate::cli::args::RollbackArgs;
use crate::cli::fleet_verbs::{self, reporter};
use crate::cli::flow::{self, Batches, Consent, Events, Planned, Verb};
use crate::cli::hosts::Hosts;
use crate::cli::interrupt::Interrupts;
use crate::cli::record::Record;
use crate::cli::{Failure, reach};
use crate::error::{Diagnostic, Problems};
use crate::event::{HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::report::exit::Exit;
use crate::transport::{Probe, Session};
use crate::value::HostName;

/// What is to be undone on a host.
#[derive(Debug, Clone)]
struct Undo {
    /// The run, for `apply::rollback::undo`.
    record: RunRecord,
    /// What undoing it changes, for the diff.
    plan: HostPlan,
}

/// Reads the host's runs and picks the wanted one, or else the last that was
/// applied; nothing if the host keeps no such run. One round trip, two if a run is found
/// that did not come to its end; changes nothing.
///
/// # Errors
/// The host's runs cannot be read, there is no such run, or nothing of it to undo.
async fn find(
    probe: &mut dyn Probe,
    wanted: Option<&RunId>,
    moved: Moved,
) -> Result<Option<Undo>, HostProblem> {
    let failed = |message: String, hint: Option<String>| HostProblem::Failed {
        step: None,
        chain: vec![message],
        hint,
    };
    let mut found = runs::read(probe, wanted)
        .await
        .map_err(|error| failed(error.to_string(), None))?;
    // A host that took no part in a run has nothing to undo, and that is fine.
    if found.runs.is_empty() {
        return Ok(None);
    }
    let refused = |refusal: rollback::Refusal| failed(refusal.message, refusal.hint);
    let Some(mut record) = rollback::pick(&found, wanted).map_err(refused)? else {
        return Ok(None);
    };
    if rollback::needs_journal(&record.status)
        && record.journal.is_empty()
        && let Some(run) = record.id()
    {
        found = runs::read(probe, Some(&run))
            .await
            .map_err(|error| failed(error.to_string(), None))?;
        let Some(again) = rollback::pick(&found, Some(&run)).map_err(refused)? else {
            return Ok(None);
        };
        record = again;
    }
    let mut plan = rollback::reverse(record);
    plan.notes.insert(
        0,
        format!("undoes run {} ({})", record.manifest.run, record.status),
    );
    if moved == Moved::UndoAnyway {
        plan.notes.push(
            "what was changed since that run is lost where it had changed the same".to_owned(),
        );
    }
    Ok(Some(Undo {
        record: record.clone(),
        plan,
    }))
}

/// What to say if no host has anything to undo: a run that was asked for by name
/// and is nowhere is an error.
fn nothing(wanted: Option<&RunId>) -> Diagnostic {
    match wanted {
        Some(id) => fleet_verbs::no_such_run(id),
        None => Diagnostic::warning("there is nothing to undo: no run is applied")
            .hint("`deploy runs` lists what there was"),
    }
}

/// Runs `deploy rollback`.
///
/// # Errors
/// Findings in the files and variables.
pub(super) async fn run(
    args: &RollbackArgs,
    interrupts: &Interrupts,
    record: &Record,
) -> Result<Exit, Failure> {
    let wanted = args.run.as_deref().map(fleet_verbs::run_id).transpose()?;
    let (settings, hosts) = fleet_verbs::ready(&args.hosts, &args.connection, None).await?;
    let consent = Consent::of(args.check, args.yes);
    let verb = Rollback {
        hosts,
        wanted,
        moved: match args.anyway {
            true => Moved::UndoAnyway,
            false => Moved::Refuse,
        },
        who: reach::who_from(),
        concerned: AtomicUsize::new(0),
    };
    let batches = Batches::all(settings.hosts.clone(), args.connection.forks.into());
    let reporter = reporter(&args.output, consent.check_mode(), consent.plans())
        .calling_changed("undone")
        .calling_failed("nothing was undone");
    let reporter = record.hears(reporter);
    Ok(flow::run(verb, batches, consent, reporter, interrupts).await)
}

/// Undoes a run of which this host was part, because `first` failed in it
/// (`--on-failure rollback-run`).
pub async fn take_back(
    hosts: &Hosts,
    host: &HostName,
    run: &RunId,
    who: &str,
    first: &HostName,
    events: &Events,
) -> HostResult {
    let still = |problem: HostProblem| HostResult {
        outcome: Outcome::Stuck,
        problem: Some(still_changed(problem, first, run)),
    };
    let mut session = match reach::connect(hosts, host).await {
        Ok(session) => session,
        Err(problem) => return still(problem),
    };
    let undo = match find(session.as_mut(), Some(run), Moved::Refuse).await {
        Ok(Some(undo)) => undo,
        Ok(None) => return still(reach::failed(format!("the host keeps no run {run}"))),
        Err(problem) => return still(problem),
    };
    let again = reach::Again::new(hosts, host);
    let result = rollback::undo(
        session,
        &again,
        &undo.record,
        who,
        Moved::Refuse,
        host,
        events,
    );
    match result.await {
        HostResult {
            outcome: Outcome::Changed,
            ..
        } => HostResult {
            outcome: Outcome::RolledBack,
            problem: Some(reach::failed(format!(
                "this host was changed, and {first} failed"
            ))),
        },
        HostResult {
            problem: Some(problem),
            ..
        } => still(problem),
        HostResult { .. } => still(reach::failed("the undo failed without a word".to_owned())),
    }
}

/// What is said of a host that stays changed although others failed.
fn still_changed(problem: HostProblem, first: &HostName, run: &RunId) -> HostProblem {
    let mut chain = vec![format!(
        "{first} failed, and this host could not be rolled back"
    )];
    match problem {
        HostProblem::Failed { chain: why, .. } => chain.extend(why),
        HostProblem::Unreachable(why) => chain.push(why.to_string()),
        HostProblem::NotBegun(why) => chain.push(why),
        HostProblem::Refused(found) => {
            chain.extend(found.0.into_iter().map(|finding| finding.message));
        }
    }
    HostProblem::Failed {
        step: None,
        chain,
        hint: Some(format!("`deploy runs undo {run}` tries it again")),
    }
}

/// The verb, ready to be done on hosts.
struct Rollback {
    hosts: Arc<Hosts>,
    wanted: Option<RunId>,
    moved: Moved,
    who: String,
    /// Hosts that have something to undo, or that could not say so.
    concerned: AtomicUsize,
}

impl Rollback {
    async fn find(&self, host: &HostName) -> Planned<Work> {
        let mut session = match reach::connect(&self.hosts, host).await {
            Ok(session) => session,
            Err(problem) => return Planned::Ended(Outcome::Unreachable, problem),
        };
        match find(session.as_mut(), self.wanted.as_ref(), self.moved).await {
            Ok(Some(undo)) => Planned::Ready {
                plan: Arc::new(undo.plan),
                work: (session, undo.record),
            },
            Ok(None) => Planned::AsWanted,
            Err(problem) => Planned::Ended(Outcome::Failed, problem),
        }
    }
}

/// The open connection and the run to undo.
type Work = (Box<dyn Session>, RunRecord);

impl Verb for Rollback {
    type Work = Work;

    const QUESTION: &'static str = "Undo this on";

    async fn plan(&self, host: &HostName, _events: &Events) -> Planned<Work> {
        let planned = self.find(host).await;
        if !matches!(planned, Planned::AsWanted) {
            self.concerned.fetch_add(1, Ordering::Relaxed);
        }
        planned
    }

    async fn carry_out(
        &self,
        host: &HostName,
        _plan: &HostPlan,
        (session, record): Work,
        events: &Events,
    ) -> HostResult {
        rollback::undo(
            session,
            &reach::Again::new(&self.hosts, host),
            &record,
            &self.who,
            self.moved,
            host,
            events,
        )
        .await
    }

    fn left(&self, _host: &HostName, _plan: &HostPlan) -> HostProblem {
        HostProblem::Failed {
            step: None,
            chain: vec!["the host goes on with the undo by itself".to_owned()],
            hint: Some("`deploy runs` tells how it ended".to_owned()),
        }
    }

    fn missed(&self) -> Problems {
        match self.concerned.load(Ordering::Relaxed) {
            0 => nothing(self.wanted.as_ref()).into(),
            _ => Problems::default(),
        }
    }
}

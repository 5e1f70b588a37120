//! `deploy apply FILE`: exactly the saved steps on each host that is still as it was when
//! they were planned, and nothing on any other.
//!
//! The inventory is loaded again for the way to the hosts only. Where steps hold secrets,
//! which no file has, the playbook is loaded as well and the host planned anew, and what
//! comes of it must be what was planned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{disk, keep};
use crate::apply::manifest::Purpose;
use crate::apply::runs::{self, RunRecord, Status};
use crate::apply::{self, HostResult, RunContext, RunId};
use crate::catalog::Catalog;
use crate::cli::args::{ApplyArgs, ConnectionArgs, HostArgs, KeepArgs, PlanOutputArgs, PlayArgs};
use crate::cli::fleet_verbs::run_reporter;
use crate::cli::flow::{self, Batches, Consent, Events, Planned, Verb};
use crate::cli::gate::Limits;
use crate::cli::group_request::Shares;
use crate::cli::hosts::{self, Hosts};
use crate::cli::interrupt::Interrupts;
use crate::cli::job::{Job, Which};
use crate::cli::play::left_alone;
use crate::cli::reach::{self, Reached, reach};
use crate::cli::record::Record;
use crate::cli::settings::{self, Settings};
use crate::cli::settle::settle;
use crate::cli::{Failure, rollback};
use crate::desired::Desired;
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::platform;
use crate::report::exit::Exit;
use crate::saved::{End, Resealed, SavedPlan, SavedPlaybook, Source, Tool, Work, moved, reads};
use crate::strategy;
use crate::text::moment;
use crate::transport::{self, PathState, Reply, Session};
use crate::value::{HostName, Vars};

/// Runs `deploy apply`.
///
/// # Errors
/// What is wrong with the file, and every finding before the first connection.
pub(in crate::cli) async fn run(
    args: &ApplyArgs,
    interrupts: &Interrupts,
    record: &Record,
) -> Result<Exit, Failure> {
    let (plan, made_by) = disk::read(&args.file)?;
    same_tool(&made_by)?;
    let run = RunId::parse(&plan.id)
        .ok_or_else(|| Diagnostic::error("the plan's id cannot be that of a run"))?;
    let consent = Consent::of(args.check, true);
    let connection = connection(args, &plan.source);
    let host_args = host_args(args, &plan.source, args.limit.clone())?;
    let mut settings = settings::load(&host_args, playbook_file(&plan.source))?;
    let without = without_plan(&plan, &settings);
    let batches = selected(&plan, &mut settings)?;
    let sealed = settings.hosts.iter().any(|host| {
        let work = plan.host(host.as_str()).and_then(|host| host.work.as_ref());
        work.is_some_and(Work::is_sealed)
    });
    withheld_given(args, &plan, sealed)?;

    let reporter = run_reporter(&args.output, consent.check_mode(), consent.plans());
    let mut reporter = record.hears(reporter).of_run(run.as_str());
    if !without.0.is_empty() {
        reporter.event(&Event::Diagnostics(without));
    }
    let (secrets, mut wanted) = match sealed {
        true => {
            let (secrets, wanted) = Secrets::load(args, &plan)?;
            (Some(secrets), wanted)
        }
        false => (None, HashMap::new()),
    };
    let beside = wanted
        .iter()
        .filter(|(host, _)| !settings.hosts.contains(host))
        .map(|(host, wanted)| (host.clone(), Arc::clone(wanted)))
        .collect();
    let prepared = hosts::prepare(&settings, &beside, &connection)?;
    let mut hosts = prepared.start(&host_args.inventory).await?;
    hosts.desired.extend(wanted.drain());
    // Cards are found in the way in which they were found for the plan.
    for host in &settings.hosts {
        if let (Some(desired), Some(work)) = (hosts.desired.get_mut(host), work_of(&plan, host)) {
            Arc::make_mut(desired).discovery = work.discovery.clone();
        }
    }
    hosts.may_run(&which(&plan.source))?;
    let hosts = Arc::new(hosts);
    let batches = Batches {
        batches,
        forks: connection.forks.into(),
        limits: Limits {
            max_fail_percentage: plan.max_fail_percentage,
            on_failure: args.on_failure,
        },
    };
    let secrets = match secrets {
        Some(secrets) => Some(secrets.gather(&hosts, &batches).await),
        None => None,
    };
    let verb = Apply {
        plan,
        hosts,
        catalog: Arc::clone(&settings.catalog),
        selected: settings.hosts.len(),
        extra: settings.inventory.extra().clone(),
        secrets,
        run,
        started: jiff::Timestamp::now(),
        who: reach::who(),
        from: reach::from(),
        library: strategy::host_library() + &platform::host_library(),
        consent,
        applied: Mutex::default(),
    };
    Ok(flow::run(verb, batches, consent, reporter, interrupts).await)
}

/// Whether this build may carry the plan out.
fn same_tool(made_by: &Tool) -> Result<(), Diagnostic> {
    let this = super::tool();
    if *made_by == this {
        return Ok(());
    }
    let message = match made_by.version == this.version {
        true => format!(
            "the plan was made by another build of deploy {} ({}, this is {})",
            this.version, made_by.build, this.build
        ),
        false => format!(
            "the plan was made by deploy {}, this is {}",
            made_by.version, this.version
        ),
    };
    let hint = "apply it with the same deploy, or make the plan again";
    Err(Diagnostic::error(message).hint(hint))
}

fn work_of<'a>(plan: &'a SavedPlan, host: &HostName) -> Option<&'a Work> {
    plan.host(host.as_str())?.work.as_ref()
}

fn which(source: &Source) -> Which {
    match &source.playbook {
        // Only one playbook is named; another name would be a file's.
        SavedPlaybook::Named(_) => Which::Named("gpu.yml"),
        SavedPlaybook::File(file) => Which::File(file.clone()),
    }
}

/// Variables may stand beside the playbook.
fn playbook_file(source: &Source) -> Option<&Path> {
    match &source.playbook {
        SavedPlaybook::Named(_) => None,
        SavedPlaybook::File(file) => Some(file),
    }
}

/// How hosts are reached: as now given, else as it was for the plan.
fn connection(args: &ApplyArgs, source: &Source) -> ConnectionArgs {
    let mut connection = args.connection.clone();
    connection.r#become |= source.r#become;
    connection.user = connection.user.or_else(|| source.user.clone());
    connection.private_key = connection
        .private_key
        .or_else(|| source.private_key.clone());
    connection.ssh_config = connection.ssh_config.or_else(|| source.ssh_config.clone());
    connection
}

fn host_args(
    args: &ApplyArgs,
    source: &Source,
    limit: Option<String>,
) -> Result<HostArgs, Diagnostic> {
    let inventory = match args.inventory.is_empty() {
        true => &source.inventory,
        false => &args.inventory,
    };
    let is_list = |path: &Path| path.to_string_lossy().contains(',');
    if let Some(gone) = inventory
        .iter()
        .find(|path| !path.exists() && !is_list(path))
    {
        let message = format!("the inventory {} is not there", gone.display());
        let hint = "`-i` says where the inventory of the plan lies now";
        return Err(Diagnostic::error(message).hint(hint));
    }
    let files = source.extra_files.iter();
    let files = files.map(|file| format!("@{}", file.display()));
    Ok(HostArgs {
        inventory: inventory.clone(),
        limit,
        shard: None,
        extra_vars: files.chain(args.extra_vars.iter().cloned()).collect(),
        project: source.project.clone(),
    })
}

/// The batches of the plan's hosts on which something is done, as far as they are wanted
/// now; `settings` keeps only these.
fn selected(plan: &SavedPlan, settings: &mut Settings) -> Result<Vec<Vec<HostName>>, Problems> {
    let mut problems = Problems::default();
    let mut batches = Vec::new();
    for batch in plan.to_do() {
        let mut hosts = Vec::new();
        for host in batch.iter().map(HostName::from) {
            if !settings.inventory.contains(&host) {
                let message = format!("the plan is for `{host}`, and no such host is there now");
                let hint = "`-i` gives the inventory of the plan; another one needs a new plan";
                problems.push(Diagnostic::error(message).hint(hint));
            } else if settings.hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if !hosts.is_empty() {
            batches.push(hosts);
        }
    }
    settings.hosts = batches.iter().flatten().cloned().collect();
    problems.or(batches)
}

/// Names the selected hosts that the plan has nothing for, because they could not be planned.
fn without_plan(plan: &SavedPlan, settings: &Settings) -> Problems {
    let mut problems = Problems::default();
    for (end, why) in [
        (End::Unreachable, "unreachable"),
        (End::Failed, "not planned"),
    ] {
        let ended = plan.hosts.iter().filter(|host| host.end == end);
        let names: Vec<&str> = ended
            .map(|host| host.name.as_str())
            .filter(|name| settings.hosts.contains(&HostName::from(*name)))
            .collect();
        let message = match names.len() {
            0 => continue,
            1 => format!("1 host is not in the plan, for it was {why} when it was made"),
            many => {
                format!("{many} hosts are not in the plan, for they were {why} when it was made")
            }
        };
        let warning = Diagnostic::warning(format!("{message}: {}", names.join(", ")));
        problems.push(warning.hint("make another plan for them once they are well"));
    }
    problems
}

/// Variables that were given on the command line when the plan was made, and are needed
/// now: for the way to the hosts, or because a secret is made of them.
fn withheld_given(args: &ApplyArgs, plan: &SavedPlan, sealed: bool) -> Result<(), Problems> {
    let given = keep::withheld(&args.extra_vars, &plan.key);
    let is_for_connections =
        |name: &str| name.starts_with("ansible_") || matches!(name, "deploy_root" | "sim");
    let mut problems = Problems::default();
    for (name, hash) in &plan.source.withheld {
        let problem = match given.get(name) {
            Some(now) if now == hash => continue,
            Some(_) => format!("`{name}` had another value when the plan was made"),
            None if sealed || is_for_connections(name) => {
                format!("the plan was made with `-e {name}=…`, whose value it does not hold")
            }
            None => continue,
        };
        let hint = format!("give `-e {name}=…` again as it was, or make the plan again");
        problems.push(Diagnostic::error(problem).hint(hint));
    }
    for name in given.keys() {
        if !plan.source.withheld.contains_key(name) && !is_for_connections(name) {
            let problem = format!("`{name}` was not given when the plan was made");
            let hint = "a plan is applied as it was made; other variables need a new plan";
            problems.push(Diagnostic::error(problem).hint(hint));
        }
    }
    problems.or(())
}

/// What is needed to make secrets again.
struct Secrets {
    job: Arc<Job>,
    pools: crate::cli::group_request::Pools,
}

/// The same, once the shares of groups are known.
struct Ready {
    job: Arc<Job>,
    shares: Shares,
}

impl Secrets {
    /// Loads the playbook as it was loaded for the plan. Gives also what is wanted of the
    /// hosts that it looks at.
    fn load(
        args: &ApplyArgs,
        plan: &SavedPlan,
    ) -> Result<(Self, HashMap<HostName, Arc<Desired>>), Failure> {
        let source = &plan.source;
        let play = PlayArgs {
            hosts: host_args(args, source, source.limit.clone())?,
            connection: args.connection.clone(),
            output: PlanOutputArgs::human(),
            keep: KeepArgs::default(),
            tags: source.tags.clone(),
            skip_tags: source.skip_tags.clone(),
            check: false,
            out: None,
            diff: false,
            yes: true,
            allow_reboot: source.allow_reboot,
            resume: None,
            on_failure: args.on_failure,
        };
        let job = Arc::new(Job::load(&which(source), &play)?);
        let mut desired = job.check()?;
        let pools = job.pools(&desired)?;
        desired.extend(pools.beside.clone());
        Ok((Self { job, pools }, desired))
    }

    async fn gather(self, hosts: &Arc<Hosts>, batches: &Batches) -> Ready {
        let catalog = &self.job.settings.catalog;
        let soon: HashSet<HostName> = batches.batches.iter().flatten().cloned().collect();
        let shares = self
            .pools
            .gather(hosts, catalog, batches.forks, &soon)
            .await;
        Ready {
            job: self.job,
            shares,
        }
    }
}

/// The verb, ready to be done on hosts.
struct Apply {
    plan: SavedPlan,
    hosts: Arc<Hosts>,
    catalog: Arc<Catalog>,
    selected: usize,
    /// Extra variables as they are given now.
    extra: Vars,
    secrets: Option<Ready>,
    run: RunId,
    started: jiff::Timestamp,
    who: String,
    from: String,
    library: String,
    consent: Consent,
    /// Hosts on which the plan was applied before.
    applied: Mutex<HashSet<HostName>>,
}

/// How a host that cannot be applied to ends.
type Ended = (Outcome, HostProblem);

impl Apply {
    /// Whether the plan was at work on this host before.
    fn earlier(
        &self,
        host: &HostName,
        record: &RunRecord,
        events: &Events,
    ) -> Planned<Box<dyn Session>> {
        let run = &self.run;
        let manifest = &record.manifest;
        let when = format!(
            "{} by {} from {}",
            moment(manifest.started),
            manifest.who,
            manifest.from
        );
        match &record.status {
            Status::Done => {
                let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
                applied.insert(host.clone());
                let _ = events.send(Event::Note {
                    host: Some(host.clone()),
                    text: format!("this plan was applied here at {when}"),
                });
                Planned::AsWanted
            }
            open if open.is_open() => Planned::Ended(
                Outcome::Locked,
                HostProblem::Failed {
                    step: None,
                    chain: vec![
                        format!("this plan was begun here at {when}"),
                        format!("its run is {open}"),
                    ],
                    hint: Some(format!(
                        "`deploy runs show {run}` tells how it stands, `deploy runs confirm {run}` keeps it, `deploy runs undo {run}` undoes it"
                    )),
                },
            ),
            closed => Planned::Ended(
                Outcome::Stale,
                HostProblem::Failed {
                    step: None,
                    chain: vec![format!(
                        "this plan was tried here at {when}, and its run is {closed}: a host takes a plan once"
                    )],
                    hint: Some(format!(
                        "`deploy runs show {run}` explains the run; make the plan again"
                    )),
                },
            ),
        }
    }

    async fn reach(&self, host: &HostName) -> Result<Reached, Ended> {
        let kept = self
            .secrets
            .as_ref()
            .and_then(|ready| ready.shares.take(host));
        let reached = match kept {
            Some(reached) => reached,
            None => reach(&self.hosts, host, &self.catalog).await,
        };
        reached.map_err(|problem| (Outcome::Unreachable, problem))
    }

    /// Compares the host with what was planned for; the connection is closed where it
    /// does not hold.
    async fn compared(&self, mut reached: Reached, work: &Work) -> Result<Reached, Ended> {
        let found = match self.differences(&mut reached, work).await {
            Ok(found) if found.is_empty() => return Ok(reached),
            Ok(found) => (Outcome::Stale, stale(&found)),
            Err(message) => (Outcome::Failed, reach::failed(message)),
        };
        reached.session.close().await;
        Err(found)
    }

    async fn differences(&self, reached: &mut Reached, work: &Work) -> Result<Vec<String>, String> {
        let session = reached.session.as_mut();
        let found = runs::read(session, Some(&self.run)).await;
        let last_run = found.map_err(|error| error.to_string())?.current;
        let reads = reads(work);
        let replies = match reads.is_empty() {
            true => Vec::new(),
            false => session
                .batch(&reads)
                .await
                .map_err(|error| error.to_string())?,
        };
        let states: BTreeMap<String, PathState> = reads
            .into_iter()
            .zip(replies)
            .filter_map(|pair| match pair {
                (transport::Read::State { path, .. }, Reply::State(state)) => Some((path, state)),
                _ => None,
            })
            .collect();
        let last_run = last_run.as_ref().map(RunId::as_str);
        Ok(moved(work, &reached.facts, &states, last_run))
    }

    /// The plan with its secrets, which are made again from the host as it is now.
    async fn filled(
        &self,
        host: &HostName,
        reached: Reached,
        work: &Work,
    ) -> Result<(Box<dyn Session>, HostPlan), Ended> {
        let Some(ready) = self.secrets.as_ref().filter(|_| work.is_sealed()) else {
            return Ok((reached.session, work.plan.clone()));
        };
        let refused = |problem| (Outcome::Failed, problem);
        let share = match ready.shares.of(host) {
            Ok(share) => share,
            Err(problems) => {
                reached.session.close().await;
                return Err(refused(HostProblem::Refused(problems)));
            }
        };
        let (session, now) = ready
            .job
            .plan(host, reached, false, share)
            .await
            .map_err(|(problem, _)| refused(problem))?;
        match work.filled(&now.plan, &self.plan.key) {
            Resealed::Same(plan) => Ok((session, *plan)),
            Resealed::Differs(found) => {
                session.close().await;
                Err((Outcome::Stale, stale(&found)))
            }
        }
    }

    async fn one(
        &self,
        host: &HostName,
        events: &Events,
    ) -> Result<Planned<Box<dyn Session>>, Ended> {
        let Some(work) = work_of(&self.plan, host) else {
            return Ok(Planned::AsWanted);
        };
        let mut reached = self.reach(host).await?;
        let found = runs::read(reached.session.as_mut(), Some(&self.run)).await;
        let earlier = match found {
            Ok(found) => found.runs.into_iter().next(),
            Err(error) => {
                reached.session.close().await;
                return Err((Outcome::Failed, reach::failed(error.to_string())));
            }
        };
        if let Some(record) = earlier {
            reached.session.close().await;
            return Ok(self.earlier(host, &record, events));
        }
        let consent = self.consent;
        let reached = settle(&self.hosts, host, &self.catalog, reached, consent, events).await?;
        let reached = self.compared(reached, work).await?;
        let (session, mut plan) = self.filled(host, reached, work).await?;
        Work::record_extra(&mut plan, &self.extra, &self.plan.key);
        plan.notes.push(format!(
            "from the plan that {} made on {} at {}",
            self.plan.who,
            self.plan.from,
            moment(self.plan.created)
        ));
        Ok(Planned::Ready {
            plan: Arc::new(plan),
            work: session,
        })
    }
}

/// What is said of a host that is not as planned: each difference in a line of its own.
fn stale(found: &[String]) -> HostProblem {
    HostProblem::Failed {
        step: None,
        chain: vec![found.join("\n")],
        hint: Some("make the plan again: `deploy gpu --check --out FILE`".to_owned()),
    }
}

impl Verb for Apply {
    type Work = Box<dyn Session>;

    const QUESTION: &'static str = "Apply this plan to";

    async fn plan(&self, host: &HostName, events: &Events) -> Planned<Box<dyn Session>> {
        match self.one(host, events).await {
            Ok(planned) => planned,
            Err((outcome, problem)) => Planned::Ended(outcome, problem),
        }
    }

    async fn carry_out(
        &self,
        host: &HostName,
        plan: &HostPlan,
        session: Box<dyn Session>,
        events: &Events,
    ) -> HostResult {
        let reads = work_of(&self.plan, host).map(|work| work.reads.as_slice());
        let context = RunContext {
            host: host.clone(),
            run: self.run.clone(),
            who: self.who.clone(),
            from: self.from.clone(),
            started: self.started,
            purpose: Purpose::Applying,
            host_library: self.library.clone(),
            remembered: transport::remember(reads.unwrap_or_default()),
        };
        let again = reach::Again::new(&self.hosts, host);
        apply::run(session, &again, plan, &context, events).await
    }

    async fn take_back(&self, host: &HostName, first: &HostName, events: &Events) -> HostResult {
        let who = format!("{} from {}", self.who, self.from);
        rollback::take_back(&self.hosts, host, &self.run, &who, first, events).await
    }

    fn left(&self, _host: &HostName, plan: &HostPlan) -> HostProblem {
        left_alone(&self.run, plan.guard.as_ref())
    }

    fn missed(&self) -> Problems {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        match (applied.len(), self.selected) {
            (0, _) => Problems::default(),
            (applied, selected) if applied == selected => {
                Diagnostic::error("this plan was applied already, on all of its hosts")
                    .hint("a host takes a plan once; make the plan again")
                    .into()
            }
            _ => Problems::default(),
        }
    }
}

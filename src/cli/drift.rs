//! `deploy drift`: what differs on hosts from what was last applied, and from what is wanted.
//!
//! Looking is done over a connection that can only read, by its type. Mending is another
//! verb, in `remediate`; both find out the same here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::apply::{RunId, STATE_DIR, runs};
use crate::cli::args::{DriftArgs, KeepArgs, MendTo, OnFailure, PlanOutputArgs, PlayArgs};
use crate::cli::fleet_verbs::run_reporter;
use crate::cli::flow::{Consent, Events};
use crate::cli::group_request::Shares;
use crate::cli::hosts::Hosts;
use crate::cli::interrupt::Interrupts;
use crate::cli::job::{Job, Which, rounds};
use crate::cli::reach::{self, Looked, Way};
use crate::cli::record::Record;
use crate::cli::settings::once;
use crate::cli::settle::tell_open;
use crate::cli::telling::Telling;
use crate::cli::{Failure, blame, remediate, slices};
use crate::drift::{self, Finding, Rules};
use crate::error::Problems;
use crate::event::{Event, HostProblem, Outcome};
use crate::facts::HostFacts;
use crate::fleet;
use crate::module::ReadCache;
use crate::plan::{self, AppliedKey, Complete, HostPlan, LastApplied, PlanInput, Used};
use crate::render;
use crate::report::Reporter;
use crate::report::exit::Exit;
use crate::step::PathLook;
use crate::transport::{FileReply, PathState, Probe, Read, Reply};
use crate::value::HostName;

/// Most bytes of a host's record that are read.
const MOST_RECORD: u64 = 4 << 20;

/// Everything that all hosts share. `C` is what a host is reached by.
pub(super) struct Watch<C> {
    pub(super) job: Job,
    pub(super) hosts: Arc<Hosts>,
    pub(super) shares: Shares<C>,
    /// Where hosts keep what was last applied, and where they did before.
    records: Vec<Read>,
    rules: HashMap<HostName, Rules>,
}

/// On which terms a plan is made.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) facts: &'a HostFacts,
    pub(super) allow_reboot: bool,
}

/// What was found out of one host.
pub(super) struct Inspected {
    /// The run that was applied last.
    pub(super) last: Option<LastApplied>,
    /// Whether that was recorded by an earlier version, under a name that another playbook or
    /// a later run need not share: good to be told, and not to be gone back to.
    pub(super) is_older: bool,
    /// What differs, rules applied.
    pub(super) findings: Vec<Finding>,
    /// The way back to what was last applied, as it is looked at.
    pub(super) back: Option<Complete>,
    /// The way to what is wanted, as it is looked at.
    pub(super) wanted: Option<Complete>,
    /// Why there is none.
    pub(super) problem: Option<HostProblem>,
    /// What was read of the host.
    cache: ReadCache,
}

/// Runs `deploy drift`.
///
/// # Errors
/// Every finding before the first connection.
pub(super) async fn run(
    args: DriftArgs,
    interrupts: &Interrupts,
    record: &Record,
) -> Result<Exit, Failure> {
    let consent = match args.remediate {
        true => Consent::of(false, args.yes),
        false => Consent::Never,
    };
    let reporter = run_reporter(&args.output, consent.check_mode(), consent.plans());
    let mut reporter = record.hears(reporter).of_run(record.run_id().as_str());
    let which = match &args.playbook {
        Some(path) => Which::File(path.clone()),
        None => Which::Named("gpu.yml"),
    };
    let (remediate, to) = (args.remediate, args.to);
    let play = play_args(args);
    // Only who mends gets a connection that can change a host.
    let ended = match remediate {
        true => match Watch::prepare(&which, &play, &mut reporter).await {
            Ok(watch) => {
                let told = (record, reporter);
                return Ok(remediate::run(watch, to, consent, &play, told, interrupts).await);
            }
            Err(failure) => failure,
        },
        false => match Watch::prepare(&which, &play, &mut reporter).await {
            Ok(watch) => return Ok(look(watch, play.connection.forks.into(), reporter).await),
            Err(failure) => failure,
        },
    };
    match ended {
        Failure::Problems(found) => Ok(reporter.refuse(&found)),
        other => Err(other),
    }
}

fn play_args(args: DriftArgs) -> PlayArgs {
    PlayArgs {
        hosts: args.hosts,
        connection: args.connection,
        output: PlanOutputArgs::human(),
        keep: KeepArgs::default(),
        tags: args.tags,
        skip_tags: args.skip_tags,
        check: !args.remediate,
        diff: false,
        yes: args.yes,
        out: None,
        allow_reboot: args.allow_reboot,
        resume: None,
        on_failure: OnFailure::RollbackHost,
    }
}

impl<C: Way> Watch<C> {
    /// Everything that can be known before the first connection, and the looks at hosts that
    /// share something with others.
    async fn prepare(
        which: &Which,
        args: &PlayArgs,
        reporter: &mut Reporter,
    ) -> Result<Self, Failure> {
        let job = Job::load(which, args)?;
        let (rules, found) = rules_of(&job);
        let prepared = job.prepare(which, args, found).await?;
        let shares = prepared.shares(&job.settings.hosts, reporter).await;
        let hosts = prepared.hosts;
        let record = |key: AppliedKey| Read::File {
            path: format!("{STATE_DIR}/{}", key.file_name()),
            limit: MOST_RECORD,
        };
        let older = job.older_key().map(record);
        let records = [Some(record(job.applied_key())), older];
        let records = records.into_iter().flatten().collect();
        Ok(Self {
            job,
            hosts,
            shares,
            records,
            rules,
        })
    }

    /// Connects, with the record in the first batch.
    pub(super) async fn reach(&self, host: &HostName) -> Result<C, HostProblem> {
        if let Some(reached) = self.shares.take(host) {
            return reached;
        }
        let catalog = &self.job.settings.catalog;
        C::open(&self.hosts, host, catalog, &self.records).await
    }

    /// The rules of a host.
    pub(super) fn rules(&self, host: &HostName) -> Rules {
        self.rules.get(host).cloned().unwrap_or_default()
    }

    /// Finds out what differs on a host, on the terms on which it is looked at.
    pub(super) async fn inspect(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        answers: Vec<(Read, Reply)>,
        terms: Terms<'_>,
        events: &Events,
    ) -> Result<Inspected, HostProblem> {
        let share = self.shares.of(host).map_err(HostProblem::Refused)?;
        let wanted = (self.hosts.desired.get(host), share);
        slices::tell(
            host,
            terms.facts,
            wanted,
            &self.job.settings.catalog,
            events,
        );
        let (last, is_older) = self.last_applied(probe, &answers).await?;
        let mut cache = ReadCache::default();
        let (reads, replies): (Vec<Read>, Vec<_>) = answers.into_iter().unzip();
        cache.add(&reads, replies);
        if let Some(why) = last.as_ref().and_then(LastApplied::lacks) {
            let _ = events.send(Event::Note {
                host: Some(host.clone()),
                text: format!("what was last applied is not recorded: {why}"),
            });
        }
        let recorded = last.as_ref().filter(|last| last.lacks().is_none());
        let mut ways = self
            .both_ways(host, probe, &mut cache, recorded, terms)
            .await;
        let mut in_the_way = Vec::new();
        if let (Err(_), _) | (_, Some(Err(_))) = &ways
            && let Some(last) = recorded
        {
            in_the_way = folders(last, probe, &mut cache).await?;
            if !in_the_way.is_empty() {
                ways = self
                    .both_ways(host, probe, &mut cache, recorded, terms)
                    .await;
            }
        }
        let (wanted, back) = ways;
        let back = back.transpose()?;
        let (wanted, problem) = match wanted {
            Ok(wanted) => (Some(wanted), None),
            // What somebody changed can be told all the same.
            Err(problem) if back.is_some() => (None, Some(problem)),
            Err(problem) => return Err(problem),
        };
        let mut findings = drift::compare(back.as_ref().map(|back| &back.plan), wanted.as_ref());
        for (path, look) in in_the_way {
            drift::stands_instead(&mut findings, &path, &look);
        }
        let now = Timestamp::now();
        let warnings = self.rules(host).ignore(host, &mut findings, now);
        if !warnings.is_empty() {
            let _ = events.send(Event::Diagnostics(Problems(warnings)));
        }
        if findings.iter().any(Finding::is_drifted) {
            self.look_closer(host, probe, &mut findings, now).await?;
        }
        Ok(Inspected {
            last,
            is_older,
            findings,
            back,
            wanted,
            problem,
            cache,
        })
    }

    /// Plans the way to what is wanted, and the one back to what was last applied, if that is
    /// recorded.
    async fn both_ways(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        cache: &mut ReadCache,
        last: Option<&LastApplied>,
        terms: Terms<'_>,
    ) -> (
        Result<Complete, HostProblem>,
        Option<Result<Complete, HostProblem>>,
    ) {
        let wanted = self.to_wanted(host, probe, cache, terms).await;
        let Some(last) = last else {
            return (wanted, None);
        };
        // Without a plan of today's nothing of the user's is known to be used.
        let nothing = Used::default();
        let used = wanted.as_ref().map_or(&nothing, |wanted| &wanted.used);
        let back = self.back(host, probe, cache, (last, used), terms).await;
        (wanted, Some(back))
    }

    /// Plans anew, on the terms on which it is carried out; none where nothing was applied to
    /// go back to.
    pub(super) async fn in_earnest(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        found: &mut Inspected,
        to: MendTo,
        terms: Terms<'_>,
    ) -> Result<Option<Complete>, HostProblem> {
        let cache = &mut found.cache;
        let plan = match (to, &found.last, &found.wanted) {
            (MendTo::Wanted, ..) => self.to_wanted(host, probe, cache, terms).await?,
            (MendTo::Applied, Some(last), Some(wanted)) if found.back.is_some() => {
                let from = (last, &wanted.used);
                self.back(host, probe, cache, from, terms).await?
            }
            (MendTo::Applied, ..) => return Ok(None),
        };
        Ok(Some(plan))
    }

    /// Plans the way to what is wanted.
    async fn to_wanted(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        cache: &mut ReadCache,
        terms: Terms<'_>,
    ) -> Result<Complete, HostProblem> {
        let vars = self.job.settings.inventory.vars_of(host);
        let today = PlanInput {
            host: self.job.input(host, &vars),
            facts: terms.facts,
            catalog: &self.job.settings.catalog,
            project: &self.job.project,
            tags: &self.job.tags,
            allow_reboot: terms.allow_reboot,
            share: self.shares.of(host).map_err(HostProblem::Refused)?,
        };
        rounds(&today, cache, probe).await
    }

    /// Plans the way back to what was last applied; with what today's plan is made of.
    async fn back(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        cache: &mut ReadCache,
        (last, used): (&LastApplied, &Used),
        terms: Terms<'_>,
    ) -> Result<Complete, HostProblem> {
        let vars = self.job.settings.inventory.vars_of(host);
        let (catalog, tags) = (&*self.job.settings.catalog, &self.job.tags);
        let replay = last
            .replay(&self.job.input(host, &vars), used, &self.job.project)
            .map_err(HostProblem::Refused)?;
        let then = replay.input(host, terms.facts, catalog, tags, terms.allow_reboot);
        let back = rounds(&then, cache, probe).await;
        back.map_err(|problem| cannot_replay(last, problem))
    }

    /// What is asked only where something drifted: how often it was mended before, and who may
    /// have changed it.
    async fn look_closer(
        &self,
        host: &HostName,
        probe: &mut dyn Probe,
        findings: &mut [Finding],
        now: Timestamp,
    ) -> Result<(), HostProblem> {
        let kept = runs::read(probe, None).await;
        let kept = kept.map_err(|error| reach::failed(error.to_string()))?;
        let rules = self.rules(host);
        for finding in findings.iter_mut().filter(|finding| finding.is_drifted()) {
            let mended = remediate::mended(&kept.runs, &finding.step, now);
            rules.hold_back(finding, &mended, now);
        }
        let asked = blame::ask(probe, findings).await;
        asked.map_err(|error| reach::failed(error.to_string()))
    }

    /// What was last applied, and whether it is the record of an earlier version.
    async fn last_applied(
        &self,
        probe: &mut dyn Probe,
        answers: &[(Read, Reply)],
    ) -> Result<(Option<LastApplied>, bool), HostProblem> {
        let known = self.records.iter().map(|record| {
            let mut answers = answers.iter();
            answers.find_map(|(read, reply)| (read == record).then(|| reply.clone()))
        });
        let replies: Vec<Reply> = match known.collect() {
            Some(replies) => replies,
            None => {
                let asked = probe.batch(&self.records).await;
                asked.map_err(|error| reach::failed(error.to_string()))?
            }
        };
        let playbook = self.job.playbook.plays.first();
        for (number, reply) in replies.into_iter().enumerate() {
            let Some(bytes) = recorded(reply)? else {
                continue;
            };
            let last = LastApplied::parse(&bytes).map_err(unreadable)?;
            let is_older = number > 0;
            // What an earlier version recorded may be of another playbook of that name.
            let of_this = playbook.is_none_or(|play| last.may_be_of(play.origin.path()));
            if !is_older || of_this {
                return Ok((Some(last), is_older));
            }
        }
        Ok((None, false))
    }
}

/// The bytes of a host's record, if there is one.
fn recorded(reply: Reply) -> Result<Option<Vec<u8>>, HostProblem> {
    match reply {
        Reply::File(FileReply::Content {
            truncated: true, ..
        }) => Err(unreadable(format!("it is longer than {MOST_RECORD} bytes"))),
        Reply::File(FileReply::Content { bytes, .. }) => Ok(Some(bytes)),
        Reply::File(FileReply::Absent) => Ok(None),
        Reply::File(FileReply::Unreadable(why)) => Err(unreadable(why)),
        _ => Err(unreadable("the host answered something else".to_owned())),
    }
}

fn unreadable(why: String) -> HostProblem {
    HostProblem::Failed {
        step: None,
        chain: vec!["what was last applied here cannot be read".to_owned(), why],
        hint: Some("the next run that changes something writes it anew".to_owned()),
    }
}

/// The recorded files in whose place a folder stands: nothing plans to take one away. They are
/// taken as if nothing stood there; what does is given back.
async fn folders(
    last: &LastApplied,
    probe: &mut dyn Probe,
    cache: &mut ReadCache,
) -> Result<Vec<(String, PathLook)>, HostProblem> {
    let unknown = last.files.keys().filter(|path| cache.state(path).is_none());
    let reads: Vec<Read> = unknown
        .map(|path| Read::State {
            path: path.clone(),
            unless: None,
            limit: 0,
        })
        .collect();
    if !reads.is_empty() {
        let asked = probe.batch(&reads).await;
        let replies = asked.map_err(|error| reach::failed(error.to_string()))?;
        cache.add(&reads, replies);
    }
    let mut found = Vec::new();
    for path in last.files.keys() {
        if let Some(PathState::Directory { mode, owner, group }) = cache.state(path) {
            let look = PathLook::Directory {
                mode: *mode,
                owner: owner.clone(),
                group: group.clone(),
            };
            found.push((path.clone(), look));
        }
    }
    for (path, _) in &found {
        cache.clear(path);
    }
    Ok(found)
}

fn cannot_replay(last: &LastApplied, problem: HostProblem) -> HostProblem {
    let why = match problem {
        HostProblem::Refused(problems) => problems.to_string(),
        HostProblem::Failed { chain, .. } => chain.join(": "),
        other => return other,
    };
    HostProblem::Failed {
        step: None,
        chain: vec![
            format!("what run {} applied cannot be planned again", last.run),
            why,
        ],
        hint: None,
    }
}

/// The rules of each host, from its variables and those of the first play.
fn rules_of(job: &Job) -> (HashMap<HostName, Rules>, Problems) {
    let mut problems = Problems::default();
    let mut rules = HashMap::new();
    for host in &job.settings.hosts {
        let vars = job.settings.inventory.vars_of(host);
        let input = job.input(host, &vars);
        let scope = plan::scope(&input, input.plays.first().copied());
        let (vars, found) = render::some_vars(&scope, [drift::VARIABLE]);
        problems.extend(found);
        let (own, found) = drift::rules(&vars);
        problems.extend(found);
        rules.insert(host.clone(), own);
    }
    (rules, once(problems))
}

/// Looks at all hosts, and tells what differs.
async fn look(watch: Watch<Looked>, forks: usize, reporter: Reporter) -> Exit {
    let watch = Arc::new(watch);
    let order = watch.job.settings.hosts.clone();
    let telling = Telling::start(reporter.expecting(order.len()));
    let mut found: HashMap<HostName, Inspected> = HashMap::new();
    let events = telling.events.clone();
    fleet::each(
        order.clone(),
        forks,
        |host| {
            let (watch, events) = (Arc::clone(&watch), events.clone());
            async move { one(&watch, &host, &events).await }
        },
        |host, inspected| {
            let (outcome, problem) = match inspected {
                Some(Ok(inspected)) if inspected.findings.is_empty() => match inspected.problem {
                    None => (Outcome::Ok, None),
                    Some(problem) => (Outcome::Failed, Some(problem)),
                },
                Some(Ok(inspected)) => {
                    found.insert(host, inspected);
                    return;
                }
                Some(Err((outcome, problem))) => (outcome, Some(problem)),
                None => (Outcome::Failed, Some(super::flow::broke_off())),
            };
            let _ = events.send(Event::HostEnd {
                host,
                outcome,
                problem,
            });
        },
    )
    .await;
    let shown: Vec<(HostName, Arc<HostPlan>)> = order
        .iter()
        .filter_map(|host| Some((host.clone(), Arc::new(shown(found.get(host)?)))))
        .collect();
    let _ = events.send(Event::Plans(shown));
    for host in order {
        let Some(inspected) = found.remove(&host) else {
            continue;
        };
        let counts = |finding: &Finding| finding.is_drifted() || finding.is_pending();
        let outcome = match (&inspected.problem, inspected.findings.iter().any(counts)) {
            (Some(_), _) => Outcome::Failed,
            (None, true) => Outcome::Changed,
            (None, false) => Outcome::Ok,
        };
        tell(&host, inspected.last.as_ref(), inspected.findings, &events);
        let _ = events.send(Event::HostEnd {
            host,
            outcome,
            problem: inspected.problem,
        });
    }
    drop(events);
    telling.end(Problems::default()).await
}

/// Tells what differs on a host.
pub(super) fn tell(
    host: &HostName,
    last: Option<&LastApplied>,
    findings: Vec<Finding>,
    events: &Events,
) {
    let _ = events.send(Event::Drift {
        host: host.clone(),
        // The host's own word: what is no run's id is not told as one.
        last: last
            .and_then(|last| RunId::parse(&last.run))
            .map(|run| run.to_string()),
        findings: Arc::new(findings),
    });
}

async fn one(
    watch: &Watch<Looked>,
    host: &HostName,
    events: &Events,
) -> Result<Inspected, (Outcome, HostProblem)> {
    let mut looked = watch
        .reach(host)
        .await
        .map_err(|problem| (Outcome::Unreachable, problem))?;
    tell_open(host, &looked.answers, events);
    let facts = plan::facts_at_rest(&looked.facts);
    let terms = Terms {
        facts: &facts,
        allow_reboot: true,
    };
    let (probe, answers) = (looked.probe.as_mut(), looked.answers);
    watch
        .inspect(host, probe, answers, terms, events)
        .await
        .map_err(|problem| (Outcome::Failed, problem))
}

/// What differs as a plan that is only shown: each thing once, with the word for it.
pub(super) fn shown(inspected: &Inspected) -> HostPlan {
    let steps = inspected
        .findings
        .iter()
        .filter_map(|finding| {
            let title = format!("{}: {}", finding.word(), finding.title);
            let change = finding.change()?.clone();
            let step = crate::step::Step::new(finding.step.clone(), "", title, change);
            Some(crate::step::Step {
                class: finding.class,
                ..step
            })
        })
        .collect();
    let mut notes = Vec::new();
    if inspected.last.is_none() {
        notes.push(drift::NOTHING_APPLIED.to_owned());
    }
    HostPlan {
        steps,
        notes,
        ..HostPlan::default()
    }
}

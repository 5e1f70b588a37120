//! `--check --out FILE`: collects what each host's planning came to, and writes it when all
//! are done.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk;
use crate::apply::{RunId, runs};
use crate::cli::args::PlayArgs;
use crate::cli::flow::Batches;
use crate::cli::job::{Job, Which};
use crate::cli::reach;
use crate::desired::Discovery;
use crate::error::{Diagnostic, Problems};
use crate::event::{HostProblem, Outcome};
use crate::facts::HostFacts;
use crate::inventory::parse_extra_vars;
use crate::plan::HostPlan;
use crate::saved::{
    Bound, Card, End, Key, SavedHost, SavedPlan, SavedPlaybook, Source, Work, cards, write,
};
use crate::transport::{Read, Session};
use crate::value::HostName;

/// A plan in the making.
pub(in crate::cli) struct Keeping {
    file: PathBuf,
    /// All but the hosts.
    head: SavedPlan,
    hosts: Mutex<HashMap<HostName, Kept>>,
}

/// What is known of a host so far.
#[derive(Default)]
struct Kept {
    cards: Vec<Card>,
    bound: Option<(Discovery, Bound)>,
    end: Option<(End, Vec<String>)>,
    work: Option<Work>,
}

impl Keeping {
    /// Finds out whether the file can be written, and remembers what is planned.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in crate::cli) fn start(
        file: &Path,
        which: &Which,
        args: &PlayArgs,
        job: &Job,
        batches: &Batches,
        run: &RunId,
    ) -> Result<Self, Problems> {
        disk::check(file)?;
        let key = key()?;
        let batch = |hosts: &Vec<HostName>| hosts.iter().map(ToString::to_string).collect();
        let head = SavedPlan {
            id: run.to_string(),
            created: jiff::Timestamp::now(),
            who: reach::who(),
            from: reach::from(),
            source: source(which, args, job, &key),
            key,
            batches: batches.batches.iter().map(batch).collect(),
            max_fail_percentage: batches.limits.max_fail_percentage,
            hosts: Vec::new(),
        };
        Ok(Self {
            file: file.to_owned(),
            head,
            hosts: Mutex::default(),
        })
    }

    // What a panic elsewhere left is whole: every change here is one step.
    fn hosts(&self) -> MutexGuard<'_, HashMap<HostName, Kept>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host was looked at.
    pub(in crate::cli) fn seen(&self, host: &HostName, discovery: Discovery, facts: &HostFacts) {
        let mut hosts = self.hosts();
        let kept = hosts.entry(host.clone()).or_default();
        kept.cards = cards(facts);
        kept.bound = Some((discovery, Bound::of(facts, None)));
    }

    /// A host would be changed. Asks it which run was last applied there: one round trip.
    ///
    /// # Errors
    /// It could not be asked.
    pub(in crate::cli) async fn planned(
        &self,
        host: &HostName,
        plan: &HostPlan,
        reads: &[Read],
        session: &mut dyn Session,
    ) -> Result<(), HostProblem> {
        let run = RunId::parse(&self.head.id);
        let found = runs::read(session, run.as_ref())
            .await
            .map_err(|error| reach::failed(error.to_string()))?;
        let mut hosts = self.hosts();
        let kept = hosts.entry(host.clone()).or_default();
        let (discovery, mut bound) = kept.bound.take().unwrap_or_default();
        bound.last_run = found.current.map(|run| run.to_string());
        let work = Work::new(discovery, bound, plan, reads.to_vec(), &self.head.key);
        kept.work = Some(work);
        kept.end = Some((End::Changed, Vec::new()));
        Ok(())
    }

    /// A host ended without a plan.
    pub(in crate::cli) fn ended(
        &self,
        host: &HostName,
        outcome: Outcome,
        problem: Option<&HostProblem>,
    ) {
        let end = match outcome {
            Outcome::Ok => End::Ok,
            Outcome::Unreachable => End::Unreachable,
            _ => End::Failed,
        };
        let mut hosts = self.hosts();
        let kept = hosts.entry(host.clone()).or_default();
        kept.end = Some((end, problem.map(sentences).unwrap_or_default()));
    }

    /// Writes the file and says so.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::cli) fn finish(&self) -> Result<String, Diagnostic> {
        let mut plan = self.head.clone();
        let mut hosts = std::mem::take(&mut *self.hosts());
        for name in plan.batches.iter().flatten() {
            let kept = hosts.remove(&HostName::from(name)).unwrap_or_default();
            let broke_off = || {
                (
                    End::Failed,
                    vec!["the work on this host broke off".to_owned()],
                )
            };
            let (end, problem) = kept.end.unwrap_or_else(broke_off);
            plan.hosts.push(SavedHost {
                name: name.clone(),
                end,
                problem,
                cards: kept.cards,
                work: kept.work,
            });
        }
        disk::write(&self.file, &write(&plan, &super::tool()))?;
        let count = plan.hosts.iter().filter(|host| host.work.is_some()).count();
        let file = self.file.display();
        Ok(match count {
            0 => format!("the plan is saved in {file}; there is nothing to apply"),
            1 => format!("the plan is saved in {file}; `deploy apply {file}` applies it to 1 host"),
            _ => format!(
                "the plan is saved in {file}; `deploy apply {file}` applies it to {count} hosts"
            ),
        })
    }
}

/// Why a host did not go well, outermost first.
fn sentences(problem: &HostProblem) -> Vec<String> {
    match problem {
        HostProblem::NotBegun(why) => vec![why.clone()],
        HostProblem::Unreachable(why) => vec![why.to_string()],
        HostProblem::Refused(found) => {
            let found = found.0.iter();
            vec![
                found
                    .map(|finding| finding.message.as_str())
                    .collect::<Vec<_>>()
                    .join("\n"),
            ]
        }
        HostProblem::Failed { chain, .. } => chain.clone(),
    }
}

fn source(which: &Which, args: &PlayArgs, job: &Job, key: &Key) -> Source {
    let (files, given): (Vec<&String>, Vec<&String>) = args
        .hosts
        .extra_vars
        .iter()
        .partition(|given| given.starts_with('@'));
    let given: Vec<String> = given.into_iter().cloned().collect();
    let path = |path: &PathBuf| whole(path);
    Source {
        playbook: match which {
            Which::Named(name) => SavedPlaybook::Named((*name).to_owned()),
            Which::File(file) => SavedPlaybook::File(whole(file)),
        },
        inventory: args.hosts.inventory.iter().map(path).collect(),
        project: args.hosts.project.as_ref().map(path),
        limit: args.hosts.limit.clone(),
        tags: args.tags.clone(),
        skip_tags: args.skip_tags.clone(),
        allow_reboot: args.allow_reboot,
        extra_files: files
            .into_iter()
            .map(|file| whole(Path::new(&file[1..])))
            .collect(),
        withheld: withheld(&given, key),
        user: args.connection.user.clone(),
        r#become: args.connection.r#become || job.wants_become(),
        private_key: args.connection.private_key.as_ref().map(path),
        ssh_config: args.connection.ssh_config.as_ref().map(path),
    }
}

/// The variables of a command line, each with the keyed hash of its value.
pub(super) fn withheld(given: &[String], key: &Key) -> BTreeMap<String, String> {
    // What is wrong with them was told when the inventory was read.
    let (vars, _) = parse_extra_vars(given);
    vars.iter()
        .map(|(name, node)| (name.clone(), key.hash(name, &node.to_json().to_string())))
        .collect()
}

/// A path that means the same elsewhere; lists of hosts such as `a,b,` are no path.
fn whole(path: &Path) -> PathBuf {
    match path.to_string_lossy().contains(',') && !path.exists() {
        true => path.to_owned(),
        false => absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn key() -> Result<Key, Diagnostic> {
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| Diagnostic::error(format!("there are no random bytes: {error}")))?;
    Ok(Key::new(&random))
}

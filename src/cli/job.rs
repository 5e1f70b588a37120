//! What all hosts of a playbook share, and the planning of one of them.
//!
//! Everything that can be seen to be wrong is found here before the first connection;
//! what a host then needs is planned from one batch of reads, seldom two or three.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::cli::Failure;
use crate::cli::args::PlayArgs;
use crate::cli::flow::Batches;
use crate::cli::gate::Limits;
use crate::cli::group_request::{self, Pools, Shares, Wanted};
use crate::cli::hosts::{self, Hosts};
use crate::cli::reach::{self, Reached, Way};
use crate::cli::settings::{self, Settings, once, take};
use crate::content::{self, Content};
use crate::desired::Desired;
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem};
use crate::module::{self, ReadCache};
use crate::plan::{self, AppliedKey, Complete, HostInput, HostPlan, PlanInput};
use crate::platform;
use crate::playbook::{self, Batch, Playbook, Project, Tags};
use crate::report::{self, Reporter};
use crate::strategy::Share;
use crate::transport::{Probe, Read, Session};
use crate::value::{HostName, Vars};

/// How often a host is asked for more before its plan is given up.
const MOST_ROUNDS: usize = 8;

/// What all hosts of a playbook share.
pub struct Job {
    /// Inventory, hosts, content, models.
    pub settings: Settings,
    /// The playbook.
    pub playbook: Playbook,
    /// Files that it names.
    pub project: Project,
    /// Which tasks are wanted.
    pub tags: Tags,
    /// Whether hosts may be restarted.
    pub(super) allow_reboot: bool,
    groups: Arc<Json>,
    extra: Vars,
    plays: HashMap<HostName, Vec<usize>>,
    /// The same without `--limit`.
    all_plays: HashMap<HostName, Vec<usize>>,
}

/// Which playbook.
#[derive(Debug, Clone)]
pub enum Which {
    /// A shipped one, or the user's file of that name in `playbooks/`.
    Named(&'static str),
    /// A file.
    File(PathBuf),
}

impl Job {
    /// Reads the playbook and everything around it.
    ///
    /// # Errors
    /// Every finding in any of the files.
    pub fn load(which: &Which, args: &PlayArgs) -> Result<Self, Failure> {
        let path = match which {
            Which::Named(_) => None,
            Which::File(path) => Some(path.as_path()),
        };
        let settings = settings::load(&args.hosts, path);
        let (settings, mut problems) = match settings {
            Ok(settings) => (settings, Problems::default()),
            // The playbook's own findings are told together with these.
            Err(found) => {
                let (content, _) = crate::content::Content::find(
                    args.hosts.project.as_deref(),
                    &args.hosts.inventory,
                );
                let mut problems = found;
                problems.extend(read(which, &content).err().unwrap_or_default());
                return Err(once(problems).into());
            }
        };
        let (playbook, project) = read(which, &settings.content)?;
        let limit = args.hosts.limit.as_deref();
        let plays = plays_of(&settings, &playbook, limit, &mut problems);
        let all_plays = match limit {
            Some(_) => plays_of(&settings, &playbook, None, &mut Problems::default()),
            None => HashMap::new(),
        };
        let tags = Tags {
            only: args.tags.clone(),
            skip: args.skip_tags.clone(),
        };
        problems.extend(tags.unknown(&playbook));
        if problems.has_errors() {
            return Err(problems.into());
        }
        let mut settings = settings;
        settings.hosts.retain(|host| plays.contains_key(host));
        Ok(Self {
            groups: settings.inventory.groups_var(),
            extra: settings.inventory.extra().clone(),
            tags,
            allow_reboot: args.allow_reboot,
            settings,
            playbook,
            project,
            plays,
            all_plays,
        })
    }

    /// Everything of a host that planning needs before its facts.
    pub(super) fn input<'a>(&'a self, host: &'a HostName, vars: &'a Vars) -> HostInput<'a> {
        HostInput {
            playbook: &self.playbook,
            plays: self.plays.get(host).map(Vec::as_slice).unwrap_or_default(),
            host,
            vars,
            extra: &self.extra,
            groups: Some(&self.groups),
        }
    }

    /// The groups whose totals hosts share, of whom `desired` is wanted.
    ///
    /// # Errors
    /// As `group_request::find`.
    pub(super) fn pools(&self, desired: &Wanted) -> Result<Pools, Problems> {
        group_request::find(&self.settings.inventory, desired, |host| {
            let vars = self.settings.inventory.vars_of(host);
            let Some(plays) = self.all_plays.get(host) else {
                return Ok(None);
            };
            let input = HostInput {
                plays,
                ..self.input(host, &vars)
            };
            let (desired, problems) = plan::desired(&input, &self.project);
            problems.or(Some(desired))
        })
    }

    /// Everything that can be known before the first connection, and the way to the hosts.
    /// `found` is what was found of their variables besides.
    ///
    /// # Errors
    /// Every finding, all at once.
    pub(super) async fn prepare(
        &self,
        which: &Which,
        args: &PlayArgs,
        found: Problems,
    ) -> Result<Prepared, Problems> {
        let mut connection = args.connection.clone();
        connection.r#become |= self.wants_become();
        let checked = self.check().and_then(|desired| found.or(desired));
        let checked = checked.and_then(|desired| Ok((self.pools(&desired)?, desired)));
        let nobody = HashMap::new();
        let beside = checked.as_ref().map_or(&nobody, |(pools, _)| &pools.beside);
        let prepared = hosts::prepare(&self.settings, beside, &connection);
        let ((pools, desired), prepared) = match (checked, prepared) {
            (Ok(checked), Ok(prepared)) => (checked, prepared),
            (checked, prepared) => {
                let mut found = checked.err().unwrap_or_default();
                found.extend(prepared.err().unwrap_or_default());
                return Err(once(found));
            }
        };
        let mut hosts = prepared.start(&args.hosts.inventory).await?;
        hosts.desired = desired;
        hosts.desired.extend(pools.beside.clone());
        hosts.may_run(which)?;
        Ok(Prepared {
            hosts: Arc::new(hosts),
            pools,
            catalog: Arc::clone(&self.settings.catalog),
            forks: connection.forks.into(),
        })
    }

    /// Checks the playbook for all hosts, offline.
    pub(super) fn check(&self) -> Result<HashMap<HostName, Arc<Desired>>, Problems> {
        let hosts = &self.settings.hosts;
        let vars: Vec<Vars> = hosts
            .iter()
            .map(|host| self.settings.inventory.vars_of(host))
            .collect();
        let inputs: Vec<HostInput<'_>> = hosts
            .iter()
            .zip(&vars)
            .map(|(host, vars)| self.input(host, vars))
            .collect();
        let checked = plan::check(
            &self.playbook,
            &inputs,
            &self.project,
            &self.settings.catalog,
        );
        let desired: HashMap<HostName, Arc<Desired>> = hosts
            .iter()
            .cloned()
            .zip(checked.desired.into_iter().map(Arc::new))
            .collect();
        let mut problems = checked.problems;
        if !problems.has_errors() {
            problems.extend(self.check_fleet(&desired));
        }
        let warnings = settings::tell_warnings(problems)?;
        report::problems(&warnings);
        Ok(desired)
    }

    /// What holds over all hosts of the inventory, those that `--limit` leaves out included:
    /// how many instances get a GPU.
    fn check_fleet(&self, selected: &HashMap<HostName, Arc<Desired>>) -> Problems {
        let tasks = self.playbook.plays.iter().flat_map(|play| &play.tasks);
        let is_platform = |task: &playbook::Task| task.module == "gpu_platform";
        if !tasks.into_iter().any(is_platform) {
            return Problems::default();
        }
        let unread = platform::unread_blocks(selected.values().map(AsRef::as_ref));
        let counts = selected.values().any(|desired| platform::is_any(desired));
        if !counts && unread.0.is_empty() {
            return Problems::default();
        }
        let inventory = &self.settings.inventory;
        let others: Vec<(&HostName, Desired)> = inventory
            .hosts()
            .filter(|host| !selected.contains_key(*host))
            .map(|host| {
                let vars = inventory.vars_of(host);
                // What is wrong with a host that is left alone is not told now.
                (
                    host,
                    plan::desired(&self.input(host, &vars), &self.project).0,
                )
            })
            .collect();
        let others = others.iter().map(|(host, desired)| (*host, desired));
        let in_order = inventory.hosts().filter_map(|host| {
            let desired = selected.get(host)?;
            Some((host, desired.as_ref()))
        });
        let all: Vec<(&HostName, &Desired)> = in_order.chain(others).collect();
        // One that another host of the inventory reads is a group's.
        let mut problems = platform::unread_blocks(all.iter().map(|(_, desired)| *desired));
        problems.0.retain(|found| unread.0.contains(found));
        if counts {
            problems.extend(platform::check_fleet(all));
        }
        problems
    }

    /// Which record of a host is this job's.
    pub(super) fn applied_key(&self) -> AppliedKey {
        AppliedKey::of(&self.playbook, &self.tags, self.project.called())
    }

    /// Under which key earlier versions kept it, if that is another one.
    pub(super) fn older_key(&self) -> Option<AppliedKey> {
        let older = AppliedKey::of(&self.playbook, &self.tags, None);
        (older != self.applied_key()).then_some(older)
    }

    /// Plans one host, in as many rounds of reads as that takes. The connection is
    /// closed where there is no plan. `look` is whether the plan is only to be looked at,
    /// or will be before anything is done: then one that lacks nothing but the leave for a
    /// reboot is told as well.
    pub(super) async fn plan(
        &self,
        host: &HostName,
        reached: Reached,
        look: bool,
        share: Option<&Share>,
    ) -> Result<(Box<dyn Session>, Complete), (HostProblem, Option<Arc<HostPlan>>)> {
        let Reached {
            mut session,
            facts,
            answers,
        } = reached;
        let mut cache = ReadCache::default();
        let (reads, replies): (Vec<Read>, Vec<_>) = answers.into_iter().unzip();
        cache.add(&reads, replies);
        let vars = self.settings.inventory.vars_of(host);
        let mut input = PlanInput {
            host: self.input(host, &vars),
            facts: &facts,
            catalog: &self.settings.catalog,
            project: &self.project,
            tags: &self.tags,
            allow_reboot: self.allow_reboot,
            share,
        };
        let problem = match rounds(&input, &mut cache, session.as_mut()).await {
            Ok(found) => return Ok((session, found)),
            Err(problem) => problem,
        };
        let mut with_leave = None;
        if look && !input.allow_reboot && matches!(problem, HostProblem::Refused(_)) {
            input.allow_reboot = true;
            if let Ok(found) = rounds(&input, &mut cache, session.as_mut()).await {
                let mut plan = found.plan;
                let note = "this is the plan with leave for a reboot; without it nothing is done";
                plan.notes.insert(0, note.to_owned());
                with_leave = Some(Arc::new(plan));
            }
        }
        session.close().await;
        Err((problem, with_leave))
    }

    /// Whether any task asks to be root.
    pub(super) fn wants_become(&self) -> bool {
        self.playbook.plays.iter().any(playbook::Play::wants_become)
    }

    /// The hosts in the batches of the first play that has `serial`.
    pub(super) fn batches(&self, args: &PlayArgs) -> Batches {
        let hosts = &self.settings.hosts;
        let serial = self
            .playbook
            .plays
            .iter()
            .map(|play| play.serial.as_slice())
            .find(|serial| !serial.is_empty());
        let limits = self
            .playbook
            .plays
            .iter()
            .filter_map(|play| play.max_fail_percentage);
        Batches {
            batches: cut(hosts, serial.unwrap_or_default()),
            forks: args.connection.forks.into(),
            limits: Limits {
                max_fail_percentage: limits.reduce(f64::min),
                on_failure: args.on_failure,
            },
        }
    }
}

/// A playbook's hosts as they can be reached, and the groups whose totals some of them share.
pub(super) struct Prepared {
    pub(super) hosts: Arc<Hosts>,
    pools: Pools,
    catalog: Arc<Catalog>,
    forks: usize,
}

impl Prepared {
    /// Looks at the hosts that share something with others, and says what each gets. The
    /// connections to `soon` are kept for their plans.
    pub(super) async fn shares<'a, C: Way>(
        &self,
        soon: impl IntoIterator<Item = &'a HostName>,
        reporter: &mut Reporter,
    ) -> Shares<C> {
        let soon = soon.into_iter().cloned().collect();
        let gathered = self
            .pools
            .gather(&self.hosts, &self.catalog, self.forks, &soon);
        let shares = gathered.await;
        for note in &shares.notes {
            reporter.event(&Event::Note {
                host: None,
                text: note.clone(),
            });
        }
        shares
    }
}

/// Of each host the plays that are for it.
fn plays_of(
    settings: &Settings,
    playbook: &Playbook,
    limit: Option<&str>,
    problems: &mut Problems,
) -> HashMap<HostName, Vec<usize>> {
    let mut plays: HashMap<HostName, Vec<usize>> = HashMap::new();
    for (number, play) in playbook.plays.iter().enumerate() {
        let selected = settings
            .inventory
            .select(&play.hosts, limit)
            .map_err(|found| at(found, &play.hosts_origin));
        for host in take(selected, problems).unwrap_or_default() {
            plays.entry(host).or_default().push(number);
        }
    }
    plays
}

/// Plans with what is known, and reads what is missing, until there is a plan.
pub(super) async fn rounds(
    input: &PlanInput<'_>,
    cache: &mut ReadCache,
    probe: &mut dyn Probe,
) -> Result<Complete, HostProblem> {
    for _ in 0..MOST_ROUNDS {
        match plan::host(input, cache) {
            Ok(plan::Planned::Complete(found)) => return Ok(*found),
            Ok(plan::Planned::Needs(needs)) => match probe.batch(&needs).await {
                Ok(replies) => cache.add(&needs, replies),
                Err(error) => return Err(reach::failed(error.to_string())),
            },
            Err(problems) => return Err(HostProblem::Refused(problems)),
        }
    }
    let message = "the plan asks the host for more again and again; this is a defect of deploy";
    Err(reach::failed(message.to_owned()))
}

/// Hosts in batches; the last number repeats.
fn cut(hosts: &[HostName], serial: &[Batch]) -> Vec<Vec<HostName>> {
    let mut rest = hosts;
    let mut batches = Vec::new();
    let mut numbers = serial.iter();
    let mut current = numbers.next();
    while !rest.is_empty() {
        let size = match current {
            None | Some(Batch::Hosts(0)) => rest.len(),
            Some(Batch::Hosts(count)) => *count as usize,
            Some(Batch::Percent(percent)) => (hosts.len() * *percent as usize / 100).max(1),
        };
        let (batch, left) = rest.split_at(size.min(rest.len()));
        batches.push(batch.to_vec());
        rest = left;
        current = numbers.next().or(current);
    }
    batches
}

fn read(which: &Which, content: &Content) -> Result<(Playbook, Project), Problems> {
    let (path, text, folder) = match which {
        Which::Named(name) => {
            let shipped = content
                .playbook(name)
                .ok_or_else(|| Diagnostic::error(format!("there is no playbook `{name}`")))?;
            let folder = shipped
                .path
                .is_file()
                .then(|| shipped.path.parent().map(Path::to_owned));
            (shipped.path, shipped.text, folder.flatten())
        }
        Which::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Diagnostic::error(format!(
                    "the playbook {} cannot be read: {error}",
                    path.display()
                ))
                .of_file(&error)
            })?;
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            (path.clone(), text, Some(folder))
        }
    };
    let called = match which {
        Which::Named(_) => None,
        Which::File(path) => called(path, content.project()),
    };
    let project = Project::new(content.clone(), folder).calling(called);
    let (playbook, found) = playbook::load(&path, &text, &module::names(), &project);
    let warnings = settings::tell_warnings(found)?;
    report::problems(&warnings);
    Ok((playbook, project))
}

/// What a playbook of the user's is called: its path below its project, so that it is the same
/// wherever and under whatever name that was checked out or copied to. One that stands in no
/// project goes by its own folder and name.
fn called(path: &Path, project: Option<&Path>) -> Option<String> {
    let name = path.file_name()?;
    let own = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let own = std::fs::canonicalize(own).ok()?;
    let given = project.and_then(|project| std::fs::canonicalize(project).ok());
    let given = given.filter(|project| own.starts_with(project));
    let root = given.or_else(|| content::project_above(&own));
    let root = root.as_deref().or(own.parent()).unwrap_or(&own);
    let below = own.strip_prefix(root).unwrap_or(&own);
    Some(below.join(name).to_string_lossy().into_owned())
}

/// Findings about a pattern, at the place of the play that has it.
fn at(problems: Problems, origin: &crate::error::Origin) -> Problems {
    Problems(
        problems
            .0
            .into_iter()
            .map(|found| found.at(origin))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(count: usize, serial: &[Batch]) -> Vec<usize> {
        let hosts: Vec<HostName> = (0..count)
            .map(|n| HostName::from(format!("h{n}")))
            .collect();
        cut(&hosts, serial).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_playbook_is_called_by_its_place_in_its_project_and_by_nothing_above() {
        let scratch = tempfile::tempdir().expect("a folder");
        let put = |path: &str| {
            let path = scratch.path().join(path);
            let folder = path.parent().expect("it has one");
            std::fs::create_dir_all(folder).expect("a folder");
            std::fs::write(&path, "").expect("a file");
            path
        };
        put("fleet/.git/HEAD");
        let name = |path: &Path, project: Option<&Path>| called(path, project).expect("a name");
        for copy in ["fleet", "home/fleet-b", "etc/deploy/..2026/x"] {
            let inner = put(&format!("{copy}/playbooks/x.yml"));
            assert_eq!(name(&inner, None), "playbooks/x.yml");
            let way = inner
                .parent()
                .expect("its folder")
                .join("../playbooks/x.yml");
            assert_eq!(name(&way, None), "playbooks/x.yml");
            let beside = put(&format!("{copy}/lab/site.yml"));
            assert_eq!(name(&beside, None), "lab/site.yml");
            assert_eq!(name(&put(&format!("{copy}/site.yml")), None), "site.yml");
        }
        // The project that is in force counts, where the playbook stands in it.
        let root = scratch.path().join("fleet");
        let inner = put("fleet/sub/playbooks/y.yml");
        assert_eq!(name(&inner, Some(&root)), "sub/playbooks/y.yml");
        let outer = put("lone/z.yml");
        assert_eq!(name(&outer, Some(&root)), "lone/z.yml");
    }

    #[test]
    fn serial_cuts_hosts_and_its_last_number_repeats() {
        assert_eq!(sizes(5, &[]), [5]);
        assert_eq!(sizes(7, &[Batch::Hosts(1), Batch::Hosts(3)]), [1, 3, 3]);
        assert_eq!(sizes(10, &[Batch::Percent(30)]), [3, 3, 3, 1]);
        assert_eq!(sizes(3, &[Batch::Percent(10)]), [1, 1, 1]);
        assert_eq!(sizes(3, &[Batch::Hosts(0)]), [3]);
        assert_eq!(sizes(0, &[Batch::Hosts(2)]), [] as [usize; 0]);
    }
}

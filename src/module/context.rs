//! What a module sees of the world while it plans: the host as it was read, with
//! the changes of the steps before it laid over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indexmap::IndexSet;

use super::ReadCache;
use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::{Diagnostic, Origin, Problems};
use crate::facts::HostFacts;
use crate::playbook::{Project, Task};
use crate::render::{Halt, Rendered, Scope};
use crate::shell::{Command, Script};
use crate::step::StepId;
use crate::strategy::{Decision, KernelArguments, Share};
use crate::transport::{Output, PathState, Read};

/// Content of larger files is not shown, so it is not asked for.
const MOST_CONTENT: u64 = 256 * 1024;

/// What the steps so far will have changed.
#[derive(Debug, Default)]
pub struct World {
    /// What will stand at a path.
    pub paths: BTreeMap<String, PathState>,
    /// Units that will be enabled or not, and active or not.
    pub units: BTreeMap<String, (bool, bool)>,
    /// Ids of steps.
    pub ids: BTreeSet<StepId>,
    /// Set once a step of this plan restarts the host: what runs, what is mounted and
    /// what the hardware forgets is not known from then on.
    pub rebooted: bool,
    /// Units, and modules as `/sys/module/NAME`, that a step after the restart brings to a
    /// known state.
    pub since_boot: BTreeSet<String>,
    /// What tasks want on the kernel's command line.
    pub kernel_arguments: KernelArguments,
}

impl World {
    /// Whether what was seen or planned of a unit or of `/sys/module/NAME` still holds
    /// when the next step is made: nobody knows it of what a reboot starts.
    pub(super) fn is_sure(&self, subject: &str) -> bool {
        !self.rebooted || self.since_boot.contains(subject)
    }
}

/// What the modules for GPUs tell one another within a plan.
#[derive(Debug, Default)]
pub struct Gpus {
    /// What is wanted, once `gpu_strategy` read it.
    pub desired: Option<Desired>,
    /// What was decided.
    pub decisions: Vec<Decision>,
    /// Read-backs of the slicing steps of this plan, by card.
    pub verify: BTreeMap<String, Script>,
}

/// A file as a task wants it, whether it is so already or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// The template or file that it is made from; empty for a given content.
    pub source: String,
    /// Where it goes on the host.
    pub path: String,
    /// What will stand there.
    pub content: Vec<u8>,
    /// Whether it must not be shown.
    pub secret: bool,
    /// Whether the content is the host's own: only mode and owner are wanted.
    pub own: bool,
}

/// A module's view.
#[derive(Debug)]
pub struct Context<'a> {
    /// The task.
    pub task: &'a Task,
    /// Whether it is a handler, which was notified because something changed.
    pub in_handler: bool,
    /// The variables that the task sees.
    pub scope: &'a Scope,
    /// What discovery saw.
    pub facts: &'a HostFacts,
    /// What models can do.
    pub catalog: &'a Catalog,
    /// Files that the playbook names.
    pub project: &'a Project,
    /// `--allow-reboot`.
    pub allow_reboot: bool,
    /// What the host gets of the totals of its group, where it shares some.
    pub share: Option<&'a Share>,
    /// What was read.
    pub cache: &'a ReadCache,
    /// What the steps so far will have changed.
    pub world: &'a mut World,
    /// What the modules for GPUs share.
    pub gpus: &'a mut Gpus,
    /// What is still to be read.
    pub missing: &'a mut IndexSet<Read>,
    /// Files that are wanted.
    pub landings: &'a mut Vec<Landing>,
    /// What was looked at, for the next run to have it read early.
    pub used: &'a mut IndexSet<Read>,
}

/// What stands at a path.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) state: PathState,
    /// Whether an earlier step of this plan puts it there.
    pub(super) planned: bool,
}

impl Context<'_> {
    /// What stands at a path; content comes with a file whose hash is not `unless`.
    pub(super) fn look(&mut self, path: &str, unless: Option<&str>) -> Rendered<Seen> {
        if let Some(state) = self.world.paths.get(path) {
            return Ok(Seen {
                state: state.clone(),
                planned: true,
            });
        }
        if self.world.rebooted && is_volatile(path) {
            let message =
                format!("what stands at {path} after the reboot is not known while planning");
            let problem = Diagnostic::error(message).at(&self.task.origin);
            let hint = "nothing below /run, /tmp, /dev, /proc and /sys outlives a reboot; let something at boot make it, such as a file in /etc/tmpfiles.d";
            return Err(problem.hint(hint).into());
        }
        self.look_now(path, unless)
    }

    /// The same of what stands there before any reboot of this plan.
    pub(super) fn look_now(&mut self, path: &str, unless: Option<&str>) -> Rendered<Seen> {
        let read = Read::State {
            path: path.to_owned(),
            unless: unless.map(str::to_owned),
            limit: MOST_CONTENT,
        };
        self.used.insert(read.clone());
        let Some(state) = self.cache.state(path) else {
            self.missing.insert(read);
            return Err(Halt::Pending);
        };
        if let PathState::File {
            sha256,
            content: None,
            size,
            ..
        } = state
            && let Some(wanted) = unless
            && sha256 != wanted
            && *size <= MOST_CONTENT
            && !self.cache.has(&read)
        {
            // Remembered under another hash: its content is wanted for the diff.
            self.missing.insert(read);
            return Err(Halt::Pending);
        }
        Ok(Seen {
            state: state.clone(),
            planned: false,
        })
    }

    /// Asks for what will be needed if the answer to another question is so or so;
    /// saves a round trip and costs little.
    pub(super) fn expect(&mut self, read: Read) {
        let known = match &read {
            Read::State { path, .. } => {
                self.cache.state(path).is_some() || self.world.paths.contains_key(path)
            }
            other => self.cache.has(other),
        };
        if !known {
            self.missing.insert(read);
        }
    }

    /// What a command that changes nothing says.
    pub(super) fn ask(&mut self, read: &Read) -> Rendered<Output> {
        self.used.insert(read.clone());
        match self.cache.output(read) {
            Some(output) => Ok(output.clone()),
            None => {
                self.missing.insert(read.clone());
                Err(Halt::Pending)
            }
        }
    }

    /// What a pattern matches on the host, as it is now.
    pub(super) fn glob(&mut self, pattern: &str) -> Rendered<Vec<String>> {
        let read = Read::Glob {
            pattern: pattern.to_owned(),
        };
        self.used.insert(read.clone());
        match self.cache.glob(&read) {
            Some(paths) => Ok(paths.to_vec()),
            None => {
                self.missing.insert(read);
                Err(Halt::Pending)
            }
        }
    }

    /// User and group of our shell on the host: whom new files belong to.
    pub(super) fn whoami(&mut self) -> Rendered<(String, String)> {
        let read = whoami();
        let Some(output) = self.cache.output(&read) else {
            self.missing.insert(read);
            return Err(Halt::Pending);
        };
        let text = output.text();
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(user), Some(group)) if output.success() => {
                Ok((user.to_owned(), group.to_owned()))
            }
            _ => Err(
                Diagnostic::error("the host does not say as whom we are logged in (`id`)")
                    .at(&self.task.origin)
                    .into(),
            ),
        }
    }

    /// Whether the host may be restarted: by the command line or by its variables.
    pub(super) fn may_reboot(&mut self) -> Rendered<bool> {
        Ok(self.allow_reboot || self.desired()?.state.reboot_required.value)
    }

    /// An id that no other step has.
    pub(super) fn id(&mut self, text: String) -> StepId {
        let mut id = StepId(text.clone());
        let mut number = 2;
        while !self.world.ids.insert(id.clone()) {
            id = StepId(format!("{text}#{number}"));
            number += 1;
        }
        id
    }

    /// What is wanted of the host's GPUs, from the variables that this task sees.
    pub(super) fn desired(&mut self) -> Rendered<Desired> {
        if let Some(desired) = &self.gpus.desired {
            return Ok(desired.clone());
        }
        let names: Vec<&str> = self
            .scope
            .names()
            .filter(|name| crate::desired::is_variable(name))
            .collect();
        let (vars, problems) = crate::render::some_vars(self.scope, names);
        first_error(problems)?;
        let documents = |name: &str, at: &Origin| self.project.document(name, at);
        let (mut desired, problems) = crate::desired::read(&vars, &documents);
        first_error(problems)?;
        self.take_share(&mut desired)?;
        self.gpus.desired = Some(desired.clone());
        Ok(desired)
    }

    /// The totals of a group are no host's own; its share of them is.
    fn take_share(&self, desired: &mut Desired) -> Rendered<()> {
        let slicing = &mut desired.slicing;
        let Some(group) = slicing.request_group.take() else {
            return Ok(());
        };
        if !slicing.enabled.value {
            return Ok(());
        }
        let Some(share) = self.share else {
            let message = format!(
                "what this host gets of the `request` of group `{}` is not known",
                group.value
            );
            let hint = "`containers_gpu_slicing` must be known before the first task: no task and no fact may set it";
            return Err(group.blame(Diagnostic::error(message).hint(hint)).into());
        };
        slicing.request.clone_from(&share.request);
        Ok(())
    }
}

/// Whether a path lies where a boot begins anew.
fn is_volatile(path: &str) -> bool {
    ["/run", "/var/run", "/tmp", "/dev", "/proc", "/sys"]
        .iter()
        .any(|folder| {
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

/// The first error of a collection halts; its like were told before connecting.
pub(super) fn first_error(problems: Problems) -> Rendered<()> {
    let error = problems
        .0
        .into_iter()
        .find(|problem| problem.severity == crate::error::Severity::Error);
    error.map_or(Ok(()), |problem| Err(problem.into()))
}

pub(super) fn whoami() -> Read {
    Read::Command {
        command: Command::new("sh").arg("-c").arg("id -un; id -gn"),
        timeout: Duration::from_secs(10),
        limit: 1024,
    }
}

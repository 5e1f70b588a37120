//! What a run says of itself: who, when, which steps, and what each changes.
//!
//! Written once into the run directory as `manifest.json`, and read again to list
//! runs and to show the diff of a rollback. It holds no content of files besides
//! what the plan's diff shows; secrets are in `payload/` only.

use serde::{Deserialize, Serialize};

use super::RunContext;
use super::journal::{Entry, What};
use crate::plan::{Guard, HostPlan};
use crate::step::{Change, Class, Step, StepId};
use crate::text::moment;

/// The form of `manifest.json`; raised when a field changes its meaning.
const VERSION: u32 = 1;

/// A run on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of the file.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The host's name in the inventory.
    pub host: String,
    /// Who started it.
    pub who: String,
    /// From where.
    pub from: String,
    /// When, by the controller's clock.
    pub started: jiff::Timestamp,
    /// Steps in the order in which they are made.
    pub steps: Vec<ManifestStep>,
    /// What undoes it unless it ends well; absent in what earlier versions wrote.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// What it was for; absent in what earlier versions wrote.
    #[serde(default)]
    pub purpose: Purpose,
    /// The plan's notes.
    pub notes: Vec<String>,
    /// Files of the user's project that replaced shipped ones.
    pub overridden: Vec<String>,
}

/// What a run is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Somebody asked for what it applies.
    #[default]
    Applying,
    /// It mends drift.
    Remediation,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestStep {
    /// Its folder in `steps/`: `003-file-etc-motd`.
    pub directory: String,
    /// Its stable id.
    pub id: StepId,
    /// Name of the task that asked for it.
    pub task: String,
    /// What it does.
    pub title: String,
    /// How careful to be.
    pub class: Class,
    /// What differs.
    pub change: Change,
    /// Its limit in seconds.
    pub timeout_s: u32,
}

impl ManifestStep {
    /// Whether it changes nothing, but looks whether something is so.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        matches!(self.change, Change::Check { .. })
    }

    /// Whether the host restarts for it.
    #[must_use]
    pub fn restarts(&self) -> bool {
        matches!(self.change, Change::Reboot { .. })
    }

    /// The step as it is shown: without scripts, for the host has its own.
    #[must_use]
    pub fn shown(&self) -> Step {
        let (id, title, change) = (self.id.clone(), self.title.clone(), self.change.clone());
        Step {
            class: self.class,
            timeout_s: self.timeout_s,
            ..Step::new(id, &self.task, title, change)
        }
    }
}

impl Manifest {
    pub(super) fn of(plan: &HostPlan, context: &RunContext) -> Self {
        // Folders are walked in the order of their names.
        let width = plan.steps.len().to_string().len().max(3);
        let steps = plan
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| ManifestStep {
                directory: format!("{:0width$}-{}", index + 1, file_name(&step.id.0)),
                id: step.id.clone(),
                task: step.task.clone(),
                title: step.title.clone(),
                class: step.class,
                change: step.change.clone(),
                timeout_s: step.timeout_s,
            });
        Self {
            version: VERSION,
            run: context.run.to_string(),
            host: context.host.to_string(),
            who: context.who.clone(),
            from: context.from.clone(),
            started: context.started,
            steps: steps.collect(),
            guard: plan.guard,
            purpose: context.purpose,
            notes: plan.notes.clone(),
            overridden: plan.overridden.clone(),
        }
    }

    /// What stands in for a manifest that cannot be read: the run and nothing of it.
    pub(super) fn unreadable(run: &str) -> Self {
        Self {
            version: VERSION,
            run: run.to_owned(),
            host: String::new(),
            who: "?".to_owned(),
            from: "?".to_owned(),
            started: jiff::Timestamp::UNIX_EPOCH,
            steps: Vec::new(),
            guard: None,
            purpose: Purpose::default(),
            notes: Vec::new(),
            overridden: Vec::new(),
        }
    }

    /// Which run this is and whose, for those who find it on a host.
    #[must_use]
    pub fn owner(&self) -> String {
        format!(
            "run {} by {} from {} since {}",
            self.run,
            self.who,
            self.from,
            moment(self.started)
        )
    }

    /// The step whose folder has this name.
    #[must_use]
    pub fn step(&self, directory: &str) -> Option<&ManifestStep> {
        self.steps.iter().find(|step| step.directory == directory)
    }

    pub(super) fn step_id(&self, directory: &str) -> Option<StepId> {
        self.step(directory).map(|step| step.id.clone())
    }

    /// Whether a later step changes what the step at `index` changes, so that it
    /// no longer stands when the run is over.
    pub(super) fn superseded(&self, index: usize) -> bool {
        let Some(subject) = self.steps.get(index).and_then(|step| subject(&step.change)) else {
            return false;
        };
        self.steps[index + 1..]
            .iter()
            .any(|later| self::subject(&later.change) == Some(subject))
    }

    /// A journal entry as a sentence.
    #[must_use]
    pub fn sentence(&self, entry: &Entry) -> String {
        let step = self.step(&entry.step);
        let title = match step {
            Some(step) => format!("`{}`", step.title),
            None => "the run".to_owned(),
        };
        let what = match entry.what {
            What::Done if step.is_some_and(ManifestStep::only_looks) => "passed",
            What::VerifyFailed if step.is_some_and(ManifestStep::only_looks) => "failed",
            What::Done if step.is_some_and(ManifestStep::restarts) => "took place",
            What::CheckFailed => "is no longer as planned or not possible now",
            What::SnapshotFailed => "could not be kept for the undo",
            What::Told => "is made, and said",
            What::ApplyFailed => "failed",
            What::VerifyFailed => "did not take effect",
            What::UndoFailed => "could not be undone",
            What::Kept => "cannot be undone",
            What::RecordFailed => "could not be recorded",
            What::Armed => "is guarded",
            What::ArmFailed => "could not be guarded",
            What::Unconfirmed => "waits to be confirmed",
            What::Confirming => "is being confirmed",
            What::Guard => "was taken back by the host's guard",
            What::DisarmFailed => "ended, but its guard could not be taken away",
            What::Apply => "begins",
            What::Done => "was made and read back",
            What::Undo => "is being undone",
            What::Undone => "was undone",
            What::Start => "starts",
            What::End => "ended",
            What::Other => "said something that is not known here",
        };
        if let (What::Unconfirmed, Some(at)) = (entry.what, entry.undo_at()) {
            return format!("{title} {what}, or is undone at {}", moment(at));
        }
        if entry.detail.is_empty() {
            format!("{title} {what}")
        } else {
            format!("{title} {what}: {}", entry.detail)
        }
    }
}

/// What a change is about, if two steps can be about the same.
fn subject(change: &Change) -> Option<(&str, &str)> {
    match change {
        Change::Path { path, .. } => Some(("path", path)),
        Change::Layout { subject, .. } => Some((subject, "layout")),
        Change::Setting { subject, name, .. } => Some((subject, name)),
        Change::Action { .. } | Change::Reboot { .. } | Change::Check { .. } => None,
    }
}

/// A step's id as part of a file name: what is no letter, digit, dot or dash
/// becomes a dash; at most 60 bytes. The number before it keeps names apart.
fn file_name(id: &str) -> String {
    let mut name = String::new();
    for c in id.chars().take(60) {
        let plain = c.is_ascii_alphanumeric() || c == '.';
        match (plain, name.ends_with('-')) {
            (true, _) => name.push(c),
            (false, false) => name.push('-'),
            (false, true) => {}
        }
    }
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_after_its_step_and_safe() {
        assert_eq!(file_name("file:/etc/a b/ü.conf"), "file-etc-a-b-.conf");
        assert_eq!(file_name("../../x\n"), "..-..-x");
        assert_eq!(file_name(&"y".repeat(300)).len(), 60);
    }
}

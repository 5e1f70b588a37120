//! The smallest unit of change, as pure data.
//!
//! A step says what differs (`Change`), how to check that the host is still as
//! planned, how to make the change, how to read it back, and how to undo it.
//! Modules and strategies make steps, `plan` orders them, `diff` shows them,
//! `apply` writes them into a run directory. A step knows neither its host nor
//! how it is carried out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Placement;
use crate::shell::Script;

/// A stable name such as `mig:0000:17:00.0:layout` or `file:/etc/deploy/mig.conf`:
/// the same change of the same thing has the same id in every run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(pub String);

impl StepId {
    /// The id as the name of the step's snapshot: safe for a file name, and unlike any other.
    #[must_use]
    pub fn key(&self) -> String {
        use sha2::{Digest, Sha256};
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = self.0.chars().take(60).map(safe).collect();
        let hash = Sha256::digest(self.0.as_bytes());
        format!("{name}-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a step may do to what runs on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing that runs is touched.
    Safe,
    /// May stop what runs or cut the connection; can be undone.
    Disruptive,
    /// Cannot be undone; comes after everything else was verified.
    OneWay,
}

/// What a step is for, as far as its place in a plan depends on it. Whoever makes the
/// step says so; nobody reads it out of an id.
///
/// The steps of one task for GPUs are put in this order. Steps of different tasks keep
/// the tasks' order, but around a reboot: a plan has at most one, and some phases are
/// bound to a side of it. What cannot be undone comes after everything else on its side.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Takes work off the host: a drain command, a unit that stops.
    Drain,
    /// Readies what the next boot puts in force: a pending mode, the kernel's command
    /// line, options of a driver. Stays before the reboot.
    Prepare,
    /// A wait right before the reboot.
    BeforeReboot,
    /// Restarts the host.
    Reboot,
    /// A wait or a test right behind the reboot.
    AfterReboot,
    /// Makes what a boot takes away again: instances, virtual functions, time slices, a
    /// driver that is bound or loaded anew. Behind the reboot.
    Runtime,
    /// Anything else, such as what lasts: a file, a unit, a command.
    #[default]
    InPlace,
    /// Looks at what `Runtime` made. Behind the reboot.
    Check,
    /// Lets work back. Behind the reboot.
    Undrain,
}

impl Phase {
    /// Whether a boot would take away what the step does, so that it belongs behind the
    /// reboot of its plan.
    #[must_use]
    pub fn is_after_reboot(self) -> bool {
        match self {
            Self::AfterReboot | Self::Runtime | Self::Check | Self::Undrain => true,
            Self::Drain | Self::Prepare | Self::BeforeReboot | Self::Reboot | Self::InPlace => {
                false
            }
        }
    }
}

/// One step of one host's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Stable id, unique in the plan.
    pub id: StepId,
    /// Name of the task that asked for it.
    pub task: String,
    /// What it does, in a few words: `create 4 MIG instances on GPU 0`.
    pub title: String,
    /// How careful to be.
    pub class: Class,
    /// What it is for, which gives it its place in the plan.
    #[serde(default)]
    pub phase: Phase,
    /// What differs.
    pub change: Change,
    /// Succeeds only while the host is as it was when the plan was made, and,
    /// where a GPU is concerned, while nobody holds it. Runs before the first change.
    pub check: Script,
    /// Puts what stands there now into the run directory's `snapshot/`.
    pub snapshot: Script,
    /// Makes the change.
    pub apply: Script,
    /// Reads the change back from the host; fails if it is not there.
    pub verify: Script,
    /// Brings back exactly what was before, from wherever the step stopped;
    /// harmless when run twice. Empty only for `Class::OneWay`.
    pub undo: Script,
    /// Succeeds while nobody uses what `undo` takes away, and says who does otherwise. A
    /// rollback asks this of all steps before it changes anything.
    pub idle: Script,
    /// What is called once for all steps of a task that name the same: after the last of
    /// them that is made, and after the last that is undone. Empty once it stands there.
    #[serde(default, skip_serializing_if = "Script::is_empty")]
    pub followed_by: Script,
    /// What a handler does again once the change that it answers to was put back, such as
    /// to restart a unit.
    #[serde(default, skip_serializing_if = "Script::is_empty")]
    pub again: Script,
    /// Files that the scripts need, written to the run directory's `payload/`.
    pub payload: Vec<Payload>,
    /// Whether scripts or payload hold what must stand nowhere but on the host, such as the
    /// content of a file whose task has `no_log`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// After how many seconds `apply` counts as hung.
    pub timeout_s: u32,
}

impl Step {
    /// Seconds that a step may take where its maker says nothing else.
    pub const TIMEOUT_S: u32 = 60;

    /// Whether it is known that a path differs from what it should be, but not how to make it
    /// so: of its content only the hash was kept.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let Change::Path { after, .. } = &self.change else {
            return false;
        };
        matches!(after, PathLook::File { .. }) && self.apply.is_empty()
    }

    /// A step that touches nothing that runs, in its task's place, and does nothing yet.
    #[must_use]
    pub fn new(id: StepId, task: &str, title: String, change: Change) -> Self {
        Self {
            id,
            task: task.to_owned(),
            title,
            class: Class::Safe,
            phase: Phase::InPlace,
            change,
            check: Script::default(),
            snapshot: Script::default(),
            apply: Script::default(),
            verify: Script::default(),
            undo: Script::default(),
            idle: Script::default(),
            followed_by: Script::default(),
            again: Script::default(),
            payload: Vec::new(),
            secret: false,
            timeout_s: Self::TIMEOUT_S,
        }
    }

    /// Whether it changes the host; else it only looks at it.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.change.is_change()
    }

    /// Whether it restarts the host.
    #[must_use]
    pub fn is_reboot(&self) -> bool {
        self.change.is_reboot()
    }
}

/// A file that travels with the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// Name below `payload/`; unique in the plan.
    pub name: String,
    /// Content.
    #[serde(with = "bytes_as_base64")]
    pub content: Vec<u8>,
}

/// What differs, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A path and what stands there.
    Path {
        /// Absolute path on the host.
        path: String,
        /// Now.
        before: PathLook,
        /// Afterwards.
        after: PathLook,
    },
    /// Slices that have a place each, which are drawn.
    Layout {
        /// What is sliced, such as `GPU 0 (…)`.
        subject: String,
        /// Units of the placement grid.
        grid: u32,
        /// Now.
        before: Vec<Slice>,
        /// Afterwards; slices that also stand in `before` are not touched.
        after: Vec<Slice>,
    },
    /// A setting with a short value: a mode, number of virtual functions, unit state.
    Setting {
        /// What it is a setting of, such as `GPU 0 (…)` or `unit deploy-gpu.service`.
        subject: String,
        /// The setting's name.
        name: String,
        /// Now.
        before: String,
        /// Afterwards.
        after: String,
    },
    /// Something that is done rather than set: a command, a restart.
    Action {
        /// What is done.
        what: String,
    },
    /// The host restarts. Such a step has no script but, at most, a `check`: the runner
    /// saves its state, restarts the host and goes on with the next step afterwards.
    Reboot {
        /// What asks for it, such as `MIG mode of GPU 0 is pending`.
        why: Vec<String>,
    },
    /// Nothing is changed: only `verify` runs, after the changes before it.
    Check {
        /// What is checked.
        what: String,
    },
}

impl Change {
    /// Whether the host is changed; else it is only looked at.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Check { .. })
    }

    /// Whether the host restarts.
    #[must_use]
    pub fn is_reboot(&self) -> bool {
        matches!(self, Self::Reboot { .. })
    }
}

/// What stands at a path, for diffs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PathLook {
    /// Nothing.
    Absent,
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Owner.
        owner: String,
        /// Group.
        group: String,
        /// SHA-256 of the content.
        sha256: String,
        /// Bytes.
        size: u64,
        /// The content, if it is UTF-8 text, not too large and no secret.
        text: Option<String>,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owner.
        owner: String,
        /// Group.
        group: String,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
}

/// One MIG instance in a drawn layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slice {
    /// Where it lies.
    pub placement: Placement,
    /// Profile name, such as `3g.40gb`.
    pub profile: String,
    /// Compute instances in it, by profile (`1c.3g.40gb`); one of the full size if there is one entry
    /// equal to `profile`; empty where none exists.
    pub compute: Vec<String>,
}

mod bytes_as_base64 {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

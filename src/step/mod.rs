//! The smallest unit of change, as pure data.
//!
//! A step says what differs (`Change`), how to check that the host is still as
//! planned, how to make the change, how to read it back, and how to undo it.
//! Modules and strategies make steps, `plan` orders them, `diff` shows them,
//! `apply` writes them into a run directory. A step knows neither its host nor
//! how it is carried out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{MigMode, Placement};
use crate::shell::Script;

/// A stable name such as `mig:0000:17:00.0:layout` or `file:/etc/deploy/mig.conf`:
/// the same change of the same thing has the same id in every run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(pub String);

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
    /// Files that the scripts need, written to the run directory's `payload/`.
    pub payload: Vec<Payload>,
    /// After how many seconds `apply` counts as hung.
    pub timeout_s: u32,
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
    /// MIG mode of a card.
    MigMode {
        /// The card, as `Gpu::label` prints it.
        gpu: String,
        /// Now.
        before: MigMode,
        /// Afterwards.
        after: MigMode,
    },
    /// MIG instances of a card.
    MigLayout {
        /// The card, as `Gpu::label` prints it.
        gpu: String,
        /// Units of the placement grid.
        grid: u32,
        /// Now.
        before: Vec<Slice>,
        /// Afterwards; slices that also stand in `before` are not touched.
        after: Vec<Slice>,
    },
    /// A setting with a short value: number of virtual functions, time slice, unit state.
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

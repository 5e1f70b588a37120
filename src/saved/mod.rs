//! Saved plans: what `--check --out FILE` writes and `deploy apply FILE` does.
//!
//! `mod` holds the data, `format` the one JSON document that they stand in, `seal` keeps
//! secrets out of it, `moved` finds what a host has of the plan's "before" no longer.
//! Pure: no files, no connections, no printing; `cli::plan_file` has these.

mod cards;
mod format;
mod moved;
mod seal;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::desired::Discovery;
use crate::facts::HostFacts;
use crate::plan::HostPlan;
use crate::step::StepId;
use crate::transport::Read;

pub use cards::{Card, cards};
pub use format::{Damage, Tool, parse, write};
pub use moved::{moved, reads};
pub use seal::{Key, Resealed};

/// The plans of all hosts of one `--check`, and how they came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// Its id, which is that of the run when it is applied: so a host takes it once.
    pub id: String,
    /// When it was made, by the controller's clock.
    pub created: jiff::Timestamp,
    /// Who made it.
    pub who: String,
    /// Where.
    pub from: String,
    /// What it was made of.
    pub source: Source,
    /// What secrets are hashed with.
    pub key: Key,
    /// Hosts in the batches of `serial`, all of those that were looked at.
    pub batches: Vec<Vec<String>>,
    /// `max_fail_percentage` of the playbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fail_percentage: Option<f64>,
    /// The hosts, in the inventory's order.
    pub hosts: Vec<SavedHost>,
}

/// What a plan was made of, so that it can be loaded again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The playbook.
    pub playbook: SavedPlaybook,
    /// `-i`; paths are absolute.
    pub inventory: Vec<PathBuf>,
    /// `--project`; absolute.
    pub project: Option<PathBuf>,
    /// `--limit`.
    pub limit: Option<String>,
    /// `--tags`.
    pub tags: Vec<String>,
    /// `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// `--allow-reboot`.
    pub allow_reboot: bool,
    /// Files of `-e @FILE`; absolute.
    pub extra_files: Vec<PathBuf>,
    /// Variables whose values were on the command line. Such a value may be a password, so
    /// that only its hash stands here, by name.
    pub withheld: BTreeMap<String, String>,
    /// `--user`.
    pub user: Option<String>,
    /// Whether all of it is done as root: `--become`, or because the playbook asks for it.
    pub r#become: bool,
    /// `--private-key`; absolute.
    pub private_key: Option<PathBuf>,
    /// `--ssh-config`; absolute.
    pub ssh_config: Option<PathBuf>,
}

/// Which playbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SavedPlaybook {
    /// A shipped one, such as `gpu.yml`, or the user's file of that name in `playbooks/`.
    Named(String),
    /// A file; absolute.
    File(PathBuf),
}

impl Default for SavedPlaybook {
    fn default() -> Self {
        Self::Named("gpu.yml".to_owned())
    }
}

/// How planning a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It would be changed.
    Changed,
    /// It is as wanted.
    Ok,
    /// It could not be planned.
    Failed,
    /// It could not be reached.
    Unreachable,
}

/// One host of a saved plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedHost {
    /// Its name in the inventory.
    pub name: String,
    /// How planning ended.
    pub end: End,
    /// Why, if it did not go well; outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problem: Vec<String>,
    /// Its cards as they were seen; empty if it was not reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Card>,
    /// What is done there, and what that holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// What is done on a host, and the state of the host that this was planned for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// How its cards were found, so that they are found in the same way again.
    pub discovery: Discovery,
    /// The machine as it was.
    pub bound: Bound,
    /// The plan; steps with secrets have no scripts and no payload here.
    pub plan: HostPlan,
    /// Keyed hashes of those steps as they are carried out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seals: BTreeMap<StepId, String>,
    /// What the next run should read early.
    pub reads: Vec<Read>,
}

/// What of a machine must be the same when a plan is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// `/proc/sys/kernel/random/boot_id`; none where it could not be read.
    pub boot_id: Option<String>,
    /// Versions of drivers and the drivers of the cards, by what they are called in messages.
    pub drivers: BTreeMap<String, String>,
    /// The run that was last applied there, of whatever playbook.
    pub last_run: Option<String>,
}

impl Bound {
    /// The machine as discovery saw it.
    #[must_use]
    pub fn of(facts: &HostFacts, last_run: Option<String>) -> Self {
        let mut drivers = BTreeMap::new();
        if let Some(version) = facts.nvidia_driver.known() {
            drivers.insert("the NVIDIA driver".to_owned(), version.clone());
        }
        if let Some(release) = facts.kernel.known() {
            drivers.insert("the kernel".to_owned(), release.clone());
        }
        for gpu in &facts.gpus {
            if let Some(driver) = gpu.driver.known() {
                drivers.insert(format!("the driver of {}", gpu.pci), driver.clone());
            }
        }
        Self {
            boot_id: facts.boot_id.known().cloned(),
            drivers,
            last_run,
        }
    }
}

impl SavedPlan {
    /// A host of the plan.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&SavedHost> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Hosts on which something is done, in the batches in which it is.
    #[must_use]
    pub fn to_do(&self) -> Vec<Vec<String>> {
        let works = |name: &&String| self.host(name).is_some_and(|host| host.work.is_some());
        let batches = self.batches.iter();
        batches
            .map(|batch| batch.iter().filter(works).cloned().collect::<Vec<_>>())
            .filter(|batch| !batch.is_empty())
            .collect()
    }
}

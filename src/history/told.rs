//! What others were told, so that it is told once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What one was told, by kind and address.
pub type Told = BTreeMap<String, Memory>;

/// When something was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Since when it is known.
    pub since: Timestamp,
    /// When it was told last.
    pub told: Timestamp,
    /// When it was last known to stand, or not known to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
    /// The host; empty where it is about runs.
    pub host: String,
    /// What was told.
    pub text: String,
}

impl Memory {
    /// When somebody last had to do with it.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.seen.map_or(self.told, |seen| seen.max(self.told))
    }
}

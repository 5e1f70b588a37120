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
    /// The host; empty where it is about runs.
    pub host: String,
    /// What was told.
    pub text: String,
}

//! From a playbook, variables and facts to the ordered steps that differ.

use serde::{Deserialize, Serialize};

use crate::step::Step;

/// The steps of one host that differ, in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Steps; empty if the host is as wanted.
    pub steps: Vec<Step>,
    /// Sentences that belong to the plan: why a strategy was chosen, what is only a hint.
    pub notes: Vec<String>,
    /// Files of the user's project that replaced shipped ones.
    pub overridden: Vec<String>,
    /// The desired state, as it is recorded on the host after the run.
    pub desired: serde_json::Value,
}

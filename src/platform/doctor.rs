//! `deploy doctor`: what keeps workloads from their slices, each with the command that mends it.
//!
//! It only looks: through `Host`, which cannot change anything. What is wrong with a host
//! whatever its platform stands here; each platform adds what it knows of in its own file
//! (`Platform::doctor`).

use crate::error::Diagnostic;
use crate::facts::Fact;
use crate::render::Rendered;

use super::{Host, View, wanted};

/// One thing that is wrong on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in a sentence.
    pub what: String,
    /// The command that mends it, to be typed on the host.
    pub mend: String,
}

impl Finding {
    /// A finding.
    pub(super) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: mend.into(),
        }
    }
}

impl From<Diagnostic> for Finding {
    /// What keeps a plan from being made is found by looking, too.
    fn from(diagnostic: Diagnostic) -> Self {
        let hint = diagnostic.hint.unwrap_or_default();
        Self::new(diagnostic.message, hint)
    }
}

/// Everything that is found on a host.
///
/// # Errors
/// Halts while something was not read, and where nothing can be looked at.
pub fn examine(view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
    let mut found = drivers(view);
    for platform in wanted(view.desired).unwrap_or_default().unwrap_or_default() {
        found.extend(platform.doctor(view, host)?);
    }
    Ok(found)
}

/// Cards whose driver does not answer: nobody on the host can use them.
fn drivers(view: &View<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for gpu in &view.facts.gpus {
        let Fact::Unknown(why) = &gpu.nvidia else {
            continue;
        };
        let (what, mend) = match why.contains("mismatch") {
            true => (
                format!("the host's driver and its libraries are of different versions: {why}"),
                "systemctl reboot",
            ),
            false => (
                format!("the driver of {} does not answer: {why}", gpu.label()),
                "nvidia-smi; journalctl -k -g NVRM",
            ),
        };
        let finding = Finding::new(what, mend);
        if !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

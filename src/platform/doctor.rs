//! `deploy doctor`: what keeps workloads from their slices, each with the command that mends it.
//!
//! It only looks: through `Host`, which cannot change anything. What is wrong with a host's cards
//! whatever its platform is `cards`'s matter; each platform adds what it knows of in its own file
//! (`Platform::doctor`).

use crate::error::{Diagnostic, Problems};
use crate::render::{Halt, Rendered};

use super::{Host, Platform, View, cards, wanted};

/// The command that makes a host as its variables say, which mends whatever differs from them.
pub(super) const SET_UP: &str = "deploy gpu";

/// One thing that is wrong on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in a sentence.
    pub what: String,
    /// The command that mends it, to be typed on the host; `deploy` itself where it is called.
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
        let hint = diagnostic.hint;
        let mend = hint.unwrap_or_else(|| format!("{SET_UP} --check --diff shows what there is"));
        Self::new(diagnostic.message, mend)
    }
}

/// What was looked at on a host, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// What was looked at, in words: what is not here may be broken in silence.
    pub looked_at: Vec<&'static str>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Looks at a host. `undecided` is what the variables ask for of its cards that cannot be.
///
/// # Errors
/// Halts while something was not read. What cannot be looked at is a finding.
pub fn examine(view: &View<'_>, undecided: &Problems, host: &mut dyn Host) -> Rendered<Examined> {
    let mut examined = Examined {
        looked_at: vec!["the cards and their drivers"],
        findings: cards::findings(view, undecided),
    };
    let mut is_pending = false;
    for platform in wanted(view.desired).unwrap_or_default().unwrap_or_default() {
        match platform.doctor(view, host) {
            Ok(findings) => {
                examined.looked_at.push(Platform::name(platform));
                examined.findings.extend(findings);
            }
            // The others are asked all the same, in the same round.
            Err(Halt::Pending) => is_pending = true,
            Err(Halt::Problem(problem)) => examined.findings.push(Finding::from(*problem)),
        }
    }
    match is_pending {
        true => Err(Halt::Pending),
        false => Ok(examined),
    }
}

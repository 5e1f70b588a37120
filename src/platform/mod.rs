//! Where slices end up: what runs the containers and virtual machines that use them.
//!
//! A platform is one file here that implements `Platform`, its shell functions beside it, its
//! templates, and a line in `PLATFORMS`. It reads its own block of variables, says before any
//! connection what is wrong with it, and turns it into wishes: files, modules with parameters,
//! steps by the platform's own tool. Pure: what it must know of a host it asks for through
//! `Host`, and is called again with the answer. Which modules there are, how a wish becomes a
//! step and in which order plans are carried out, it does not know.

mod blocks;
mod cards;
mod containerd;
mod cozystack;
mod daemon;
mod docker;
mod doctor;
mod exporters;
mod incus;
mod kubernetes;
mod names;
mod podman;
mod policy;

use std::fmt::Debug;

use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::desired::{Block, Desired};
use crate::error::{Diagnostic, Problems, Severity, nearest};
use crate::facts::HostFacts;
use crate::render::Rendered;
use crate::shell::Script;
use crate::step::Step;
use crate::strategy::Decision;
use crate::transport::{Output, PathState, Read};
use crate::value::{Node, Value};

pub use blocks::unread_blocks;
pub use doctor::{Examined, Finding, examine};
pub use policy::{AskedCard, GpuInstance, MigAsk, check_fleet};

/// The platforms that this version sets up, in the order in which that is done.
static PLATFORMS: &[&dyn Platform] = &[
    &podman::Podman,
    &docker::Docker,
    &containerd::Containerd,
    &incus::Incus,
    &kubernetes::Kubernetes,
    &cozystack::Cozystack,
    &cozystack::kubevirt::KubeVirt,
];

/// The variable that says which platforms a host has.
const VARIABLE: &str = "gpu_platform";

/// The word for a host that is managed and has none.
const NONE: &str = "none";

/// One platform.
pub trait Platform: Debug + Sync {
    /// Its word in `gpu_platform`.
    fn name(&self) -> &'static str;

    /// The variable with its block, one of `desired::PLATFORM_VARIABLES`.
    fn variable(&self) -> &'static str;

    /// Whether there is nothing to do for it without its block.
    fn needs_block(&self, _: &Desired) -> bool {
        true
    }

    /// Reads its block (`Desired::platforms`), and says what can be seen to be wrong without a
    /// host.
    fn check(&self, desired: &Desired, catalog: &Catalog, problems: &mut Problems);

    /// The instances that get a GPU by its block, for `gpu_policy`.
    fn gpu_instances(&self, _: &Desired) -> Vec<GpuInstance> {
        Vec::new()
    }

    /// What is to be on a host that has the platform.
    ///
    /// # Errors
    /// Halts while something that it asked for was not read, and on what cannot be done there.
    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>>;

    /// What is to go from a host that has the platform no longer, as far as we put it there.
    ///
    /// # Errors
    /// As `wishes`.
    fn removal(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>>;

    /// Looks, after all changes, whether what runs there can use its slices. Only wishes that
    /// change nothing.
    ///
    /// # Errors
    /// As `wishes`.
    fn health(&self, _: &View<'_>, _: &mut dyn Host) -> Rendered<Vec<Wish>> {
        Ok(Vec::new())
    }

    /// Looks for what keeps workloads from their slices, for `deploy doctor`.
    ///
    /// # Errors
    /// As `wishes`.
    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>>;

    /// Shell functions that its steps call; each begins with its name.
    fn library(&self) -> &'static str {
        ""
    }
}

/// What a platform sees of a host's plan.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The variables.
    pub desired: &'a Desired,
    /// What discovery saw, before this plan changes anything.
    pub facts: &'a HostFacts,
    /// What is to become of each card; empty where slices are not managed.
    pub decisions: &'a [Decision],
    /// What models can do.
    pub catalog: &'a Catalog,
}

/// The host as a platform may ask it: as it was read, with what earlier steps of the plan will
/// have changed at paths. Each halts with `Pending` while it was not read yet.
pub trait Host {
    /// What a command that changes nothing says.
    ///
    /// # Errors
    /// Halts while it was not read.
    fn ask(&mut self, read: &Read) -> Rendered<Output>;

    /// What stands at a path; its content too, if it is not large.
    ///
    /// # Errors
    /// Halts while it was not read.
    fn look(&mut self, path: &str) -> Rendered<PathState>;

    /// What a pattern matches now.
    ///
    /// # Errors
    /// Halts while it was not read.
    fn glob(&mut self, pattern: &str) -> Rendered<Vec<String>>;

    /// Has something read that will be asked for later, to save a round trip.
    fn expect(&mut self, read: Read);
}

/// One thing that is to be so on a host. Where it is so already, nothing is done.
#[derive(Debug)]
pub enum Wish {
    /// A file made from a template.
    File(Box<PlatformFile>),
    /// A file, and what is called once its undo has put back what stood there, so that who
    /// reads it reads it again.
    FileThen {
        /// The file.
        file: Box<PlatformFile>,
        /// Whether it must not be shown.
        secret: bool,
        /// Calls behind its undo.
        undone: Script,
    },
    /// What a module does: `file`, `copy`, `systemd`, `modprobe`, … with its parameters.
    Module {
        /// Its short name.
        name: &'static str,
        /// Its parameters, as a task of a playbook would have them.
        params: Json,
    },
    /// A change by the platform's own tool; only where something differs.
    Step(Box<Step>),
    /// A step that is made only where this plan changes what stands at one of these paths, such
    /// as a restart.
    IfChanged {
        /// The paths.
        paths: Vec<String>,
        /// The step.
        step: Box<Step>,
    },
    /// A sentence for the plan.
    Note(String),
}

/// A file made from a template.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformFile {
    /// Template, such as `podman_container.j2`.
    pub template: &'static str,
    /// Where it goes, absolute.
    pub dest: String,
    /// Mode in octal, such as `0644`.
    pub mode: &'static str,
    /// User and group whom it belongs to, where not those of our shell.
    pub owner: Option<(String, String)>,
    /// What the template sees as `item`.
    pub vars: Json,
}

/// Which platforms a host is to have, each with the place where that is written. Nothing where
/// `gpu_platform` is not defined: then none is managed.
///
/// # Errors
/// Words that are no platform.
pub fn wanted(desired: &Desired) -> Result<Option<Vec<&'static dyn Platform>>, Problems> {
    let Some(node) = desired.platforms.get(VARIABLE) else {
        return Ok(None);
    };
    let mut problems = Problems::default();
    let words: Vec<&Node> = match &node.value {
        Value::Null => return Ok(None),
        Value::Seq(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut found: Vec<&'static dyn Platform> = Vec::new();
    let mut none = None;
    for word in &words {
        match word.as_str() {
            Some(NONE) => none = Some(*word),
            Some(name) => match PLATFORMS.iter().find(|platform| platform.name() == name) {
                Some(platform) => found.push(*platform),
                None => problems.push(unknown(name, word)),
            },
            None => {
                let message = format!("`{VARIABLE}` must be a word or a list of words");
                problems.push(Diagnostic::error(message).at(&word.origin));
            }
        }
    }
    if let Some(word) = none.filter(|_| words.len() > 1) {
        let message = format!("`{NONE}` stands in `{VARIABLE}` beside others");
        problems.push(Diagnostic::error(message).at(&word.origin));
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let place = |platform: &&dyn Platform| {
        let same = |other: &&dyn Platform| other.name() == platform.name();
        PLATFORMS.iter().position(same)
    };
    found.sort_by_key(place);
    found.dedup_by_key(|platform| platform.name());
    Ok(Some(found))
}

fn unknown(name: &str, word: &Node) -> Diagnostic {
    let names = || {
        PLATFORMS
            .iter()
            .map(|platform| platform.name())
            .chain([NONE])
    };
    let listed = names().collect::<Vec<_>>().join("`, `");
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`? It is one of `{listed}`"),
        None => format!("it is one of `{listed}`"),
    };
    Diagnostic::error(format!("`{VARIABLE}` has no value `{name}`"))
        .at(&word.origin)
        .hint(hint)
}

/// The platforms that a host is not to have, so that what we put there goes; none where
/// `gpu_platform` is not defined.
#[must_use]
pub fn unwanted(wanted: Option<&[&'static dyn Platform]>) -> Vec<&'static dyn Platform> {
    let Some(wanted) = wanted else {
        return Vec::new();
    };
    let is_wanted = |name: &str| wanted.iter().any(|other| other.name() == name);
    let platforms = PLATFORMS.iter().copied();
    platforms
        .filter(|platform| !is_wanted(platform.name()))
        .collect()
}

/// Whether a host is to have any platform.
#[must_use]
pub fn is_any(desired: &Desired) -> bool {
    wanted(desired).is_ok_and(|wanted| wanted.is_some_and(|wanted| !wanted.is_empty()))
}

/// What can be seen to be wrong with a host's variables for platforms before any connection.
#[must_use]
pub fn check_offline(desired: &Desired, catalog: &Catalog) -> Problems {
    let mut problems = Problems::default();
    exporters::check(desired, catalog, &mut problems);
    let wanted = match wanted(desired) {
        Ok(wanted) => wanted.unwrap_or_default(),
        Err(more) => {
            problems.extend(more);
            return problems;
        }
    };
    // A block for a platform that the host has not is none of its: it may be a group's.
    for platform in wanted {
        blocks::missing_block(platform, desired, &mut problems);
        platform.check(desired, catalog, &mut problems);
    }
    problems
}

/// Which exporters of metrics are to be on a host, and which no longer (`gpu_exporters`).
///
/// # Errors
/// As `Platform::wishes`.
pub fn exporters(view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    exporters::wishes(view, host)
}

/// Looks whether they give metrics.
///
/// # Errors
/// As `Platform::wishes`.
pub fn exporters_health(view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    exporters::health(view, host)
}

/// The block of a platform, to be read key by key.
pub fn block<'v, 'p>(
    desired: &'v Desired,
    variable: &str,
    problems: &'p mut Problems,
) -> Block<'v, 'p> {
    Block::new(variable, desired.platforms.get(variable), problems)
}

/// What was read of a block, unless an error stands against it. Most are told before any
/// connection; what facts and templates gave is read while planning.
fn sound<T>(read: T, problems: Problems) -> Rendered<T> {
    let mut all = problems.0.into_iter();
    let error = all.find(|problem| problem.severity == Severity::Error);
    error.map_or(Ok(read), |problem| Err(problem.into()))
}

/// Halts where there are errors: the first tells of the others too, with what helps against each.
fn halted(problems: Problems) -> Rendered<()> {
    let errors = problems.0.into_iter();
    let mut errors = errors.filter(|problem| problem.severity == Severity::Error);
    let Some(mut first) = errors.next() else {
        return Ok(());
    };
    for other in errors {
        first.message = format!("{}; and {}", first.message, other.message);
        match (&mut first.hint, other.hint) {
            (Some(hint), Some(more)) if !hint.contains(&more) => {
                *hint = format!("{hint}; {more}");
            }
            (hint @ None, Some(more)) => *hint = Some(more),
            _ => {}
        }
        if let Some(origin) = &other.origin {
            first = first.related(origin, "this, too");
        }
    }
    Err(first.into())
}

/// Shell functions for the steps of all platforms.
#[must_use]
pub fn host_library() -> String {
    PLATFORMS
        .iter()
        .map(|platform| platform.library())
        .chain([exporters::library()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::PLATFORM_VARIABLES;
    use crate::error::Origin;
    use serde_json::json;

    /// What the variables of a host are read as.
    fn desired(vars: &Json) -> (Desired, Problems) {
        let origin = Origin::whole("vars.yml", vars.to_string());
        let node = Node::from_json(vars, &origin);
        let map = node.as_map().cloned().expect("a mapping");
        let vars = map.into_iter().map(|(name, entry)| (name, entry.node));
        crate::desired::read(&vars.collect(), &|_, _| Default::default())
    }

    #[test]
    fn each_platform_has_its_own_word_and_block() {
        for (place, platform) in PLATFORMS.iter().enumerate() {
            assert!(PLATFORM_VARIABLES.contains(&platform.variable()));
            for other in &PLATFORMS[..place] {
                assert_ne!(platform.name(), other.name());
                assert_ne!(platform.variable(), other.variable());
            }
        }
    }

    #[test]
    fn a_word_that_is_no_platform_is_told_with_those_there_are() {
        let (desired, _) = desired(&json!({ "gpu_platform": ["mainframe"] }));
        let problems = check_offline(&desired, &Catalog::default());
        assert_eq!(problems.0.len(), 1);
        assert!(problems.0[0].message.contains("`mainframe`"));
        let hint = problems.0[0].hint.as_deref().unwrap_or_default();
        assert!(hint.contains("`none`"), "{hint}");
    }

    #[test]
    fn none_stands_alone() {
        let (desired, _) = desired(&json!({ "gpu_platform": ["none", "none"] }));
        assert!(check_offline(&desired, &Catalog::default()).has_errors());
    }

    #[test]
    fn without_the_variable_nothing_is_managed() {
        let (desired, _) = desired(&json!({ "other": 1 }));
        assert!(wanted(&desired).expect("fine").is_none());
        assert!(unwanted(None).is_empty());
    }

    #[test]
    fn a_variable_that_is_nearly_one_of_these_is_told() {
        let (_, problems) = desired(&json!({ "gpu_platfrom": "podman" }));
        assert!(problems.has_errors());
    }
}

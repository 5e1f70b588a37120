//! Plans a host again from what was recorded when something was last applied there.
//!
//! Variables that nobody looked at then are taken as they are written today, so that a host
//! in another state may ask for more; so are those that the record does not hold because
//! they must not be shown.
//!
//! The record is the host's own word, and whoever is root there writes what he likes into
//! it. So planning from it sees no file and no secret that today's plan of the same host does
//! not use, and nothing that connections are made with.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value as Json;

use super::applied::{Inputs, NOT_KEPT, Used, WrittenVar, holds_secret};
use super::secrets::is_secret_name;
use super::{HostInput, PlanInput};
use crate::catalog::Catalog;
use crate::desired::{Located, Request};
use crate::error::{Origin, Problems};
use crate::facts::HostFacts;
use crate::playbook::{self, Files, LeftFile, Playbook, Project, Tags};
use crate::strategy::Share;
use crate::value::{Entry, HostName, Node, Tag, Value, Vars};

/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// What was last applied to a host, as the host keeps it.
#[derive(Debug, Clone, Deserialize)]
pub struct LastApplied {
    version: u32,
    /// The version of the program.
    pub tool: String,
    /// The run.
    pub run: String,
    /// Who applied it.
    pub who: String,
    /// From where.
    pub from: String,
    /// When the run was started.
    pub started: jiff::Timestamp,
    inputs: Inputs,
    /// The files as they were left.
    pub files: BTreeMap<String, LeftFile>,
}

impl LastApplied {
    /// Reads the record of a host.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let found: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if found.version != VERSION {
            return Err(format!(
                "it has form {}, and this program reads form {VERSION}",
                found.version
            ));
        }
        Ok(found)
    }

    /// Why it holds nothing that could be planned from, where that is so.
    #[must_use]
    pub fn lacks(&self) -> Option<&str> {
        self.inputs.lacks.as_deref()
    }

    /// Whether it may be of the playbook at this path, as far as the names of file and folder
    /// tell.
    #[must_use]
    pub fn may_be_of(&self, playbook: &Path) -> bool {
        let then = Path::new(&self.inputs.playbook.path);
        let folder = |path: &Path| path.parent().and_then(Path::file_name).map(OsStr::to_owned);
        let same_folder = match (folder(then), folder(playbook)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        then.file_name() == playbook.file_name() && same_folder
    }

    /// What planning from it needs. `today` is the same host as it is written today, and
    /// `used` what its plan of today is made of.
    ///
    /// # Errors
    /// The playbook cannot be read by this version of the program.
    pub fn replay(
        &self,
        today: &HostInput<'_>,
        used: &Used,
        project: &Project,
    ) -> Result<Replay, Problems> {
        let inputs = &self.inputs;
        let modules = crate::module::names();
        let path = Path::new(&inputs.playbook.path);
        let (playbook, found) = playbook::load(path, &inputs.playbook.text, &modules, &NoFiles);
        let mut playbook = found.or(playbook)?;
        for (number, play) in playbook.plays.iter_mut().enumerate() {
            let now = today.playbook.plays.get(number).map(|play| &play.vars);
            if let Some(then) = inputs.of_plays.get(&number) {
                // What the play itself says stands in its own text, unless it was asked for.
                let mut vars = now.map(|vars| may_see(vars, used)).unwrap_or_default();
                vars.extend(std::mem::take(&mut play.vars));
                play.vars = self.vars(then, &vars);
            }
        }
        let before = inputs
            .files
            .iter()
            .map(|(kind, name, at, file)| ((*kind, name.clone(), at.clone()), file.clone()))
            .collect();
        Ok(Replay {
            playbook,
            plays: inputs.plays.clone(),
            vars: self.vars(&inputs.host, &may_see(today.vars, used)),
            extra: self.vars(&inputs.extra, &may_see(today.extra, used)),
            groups: inputs.groups.clone().or_else(|| today.groups.cloned()),
            share: inputs.share.as_ref().map(|lines| share(lines)),
            project: project.as_before(before, used.files.clone(), self.files.clone()),
        })
    }

    /// Today's variables, but for those that were asked for then.
    fn vars(&self, then: &BTreeMap<String, WrittenVar>, today: &Vars) -> Vars {
        let mut vars = today.clone();
        vars.retain(|name, _| !self.inputs.asked.contains(name));
        for (name, written) in then {
            let origin = Origin::whole(&written.at, String::new());
            let node = Node::from_json(&written.value, &origin);
            vars.insert(name.clone(), restored(node, today.get(name)));
        }
        vars
    }
}

/// The variables of today that planning from a record sees.
fn may_see(vars: &Vars, used: &Used) -> Vars {
    let mut vars = vars.clone();
    vars.retain(|name, node| {
        let connects = name.starts_with("ansible_") && is_secret_name(name);
        !connects && (used.vars.contains(name) || !holds_secret(name, node))
    });
    vars
}

/// All that a host was planned from before.
#[derive(Debug)]
pub struct Replay {
    playbook: Playbook,
    plays: Vec<usize>,
    vars: Vars,
    extra: Vars,
    groups: Option<Json>,
    share: Option<Share>,
    project: Project,
}

impl Replay {
    /// The input of its plan. Nothing is asked for leave, since it is only looked at.
    #[must_use]
    pub fn input<'a>(
        &'a self,
        host: &'a HostName,
        facts: &'a HostFacts,
        catalog: &'a Catalog,
        tags: &'a Tags,
        allow_reboot: bool,
    ) -> PlanInput<'a> {
        PlanInput {
            host: HostInput {
                playbook: &self.playbook,
                plays: &self.plays,
                host,
                vars: &self.vars,
                extra: &self.extra,
                groups: self.groups.as_ref(),
            },
            facts,
            catalog,
            project: &self.project,
            tags,
            allow_reboot,
            share: self.share.as_ref(),
        }
    }
}

/// Files of variables are not read again: what was asked for of them is in the record.
struct NoFiles;

impl Files for NoFiles {
    fn vars_file(&self, name: &str) -> Option<(PathBuf, String)> {
        Some((PathBuf::from(name), "{}\n".to_owned()))
    }
}

/// A value out of the record as it was written: with its tags, and with today's value where
/// the record does not hold it.
fn restored(node: Node, today: Option<&Node>) -> Node {
    let Node { value, origin } = node;
    let value = match value {
        Value::Map(map) => {
            if map.contains_key(NOT_KEPT) {
                return today.cloned().unwrap_or(Node::new(Value::Null, origin));
            }
            let only = (map.len() == 1)
                .then(|| map.get("__ansible_unsafe"))
                .flatten();
            if let Some(text) = only.and_then(|entry| entry.node.as_str()) {
                return Node::new(Value::Tagged(Tag::Unsafe, text.into()), origin);
            }
            let inner = today.and_then(Node::as_map);
            let restored: IndexMap<String, Entry> = map
                .into_iter()
                .map(|(key, entry)| {
                    let now = inner.and_then(|map| map.get(&key)).map(|entry| &entry.node);
                    let node = restored(entry.node, now);
                    (key, Entry { node, ..entry })
                })
                .collect();
            Value::Map(restored)
        }
        Value::Seq(nodes) => {
            let inner = today.and_then(Node::as_seq).unwrap_or_default();
            let nodes = nodes.into_iter().enumerate();
            Value::Seq(
                nodes
                    .map(|(index, node)| restored(node, inner.get(index)))
                    .collect(),
            )
        }
        other => other,
    };
    Node::new(value, origin)
}

fn share(lines: &[(String, u32)]) -> Share {
    Share {
        request: lines
            .iter()
            .map(|(profile, count)| Request {
                profile: Located::default_of(profile.clone()),
                count: *count,
            })
            .collect(),
        kept: 0,
        now: 0,
        note: None,
    }
}

/// Facts under which a plan is made only to be looked at: whoever uses a card keeps nobody
/// from looking.
#[must_use]
pub fn facts_at_rest(facts: &HostFacts) -> Arc<HostFacts> {
    let mut facts = facts.clone();
    for gpu in &mut facts.gpus {
        gpu.holders = crate::facts::Fact::Known(Vec::new());
    }
    Arc::new(facts)
}

//! What a host is told of the plan besides its steps, so that a later look can tell what
//! somebody changed there from what is newly wanted: what was planned from, and the files as the
//! plan leaves them.
//!
//! There is one record for each playbook and selection of its tasks, for each has its own
//! idea of the host. Only what planning has looked at is in it, nothing of connections, and
//! nothing that must not be shown. `replay` plans from it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::PlanInput;
use crate::module::{Landing, ReadCache, World};
use crate::playbook::{FileKind, LeftFile, Playbook, Tags, UsedFile, UsedFiles, kept_text};
use crate::text::hex;
use crate::transport::PathState;
use crate::value::{Node, Tag, Value, Vars};

/// Which record: a name that is safe in a path, made of the playbook's name and of the tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppliedKey(String);

impl AppliedKey {
    /// The record of a playbook with these tags. Where it lies does not matter: it may be
    /// applied from one machine and watched from another.
    #[must_use]
    pub fn of(playbook: &Playbook, tags: &Tags) -> Self {
        let path = playbook.plays.first().map(|play| play.origin.path());
        let name = path.and_then(Path::file_stem).unwrap_or_default();
        let name = name.to_string_lossy();
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        let whole = json!([name, sorted(&tags.only), sorted(&tags.skip)]).to_string();
        let sum = hex(&Sha256::digest(whole.as_bytes()));
        let safe: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        Self(format!("{safe}-{}", &sum[..8]))
    }

    /// The file of the record, in the state directory of a host and in a run's.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("applied-{}.json", self.0)
    }
}

impl TryFrom<String> for AppliedKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Ok(Self(text));
        }
        Err("the name of a record is 1 to 64 letters, digits and dashes".to_owned())
    }
}

impl From<AppliedKey> for String {
    fn from(key: AppliedKey) -> Self {
        key.0
    }
}

/// What is recorded of a plan, but for when and by whom it was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Which record it is.
    pub key: AppliedKey,
    /// What was planned from, and the files as they are left.
    pub record: Map<String, Json>,
}

/// What planning has noted for the record.
pub(super) struct Noted<'a> {
    pub(super) landings: &'a [Landing],
    pub(super) world: &'a World,
    pub(super) cache: &'a ReadCache,
    /// Variables that were asked for, and those that tasks with `no_log` asked for.
    pub(super) asked: BTreeSet<String>,
    pub(super) hidden: BTreeSet<String>,
    pub(super) files: &'a Mutex<UsedFiles>,
}

/// The record of a plan that was made of `input`.
pub(super) fn of(input: &PlanInput<'_>, noted: &Noted<'_>) -> Applied {
    let whole = Inputs::of(input, noted);
    let mut record = Map::new();
    for (name, part) in [
        ("inputs", serde_json::to_value(whole)),
        ("files", serde_json::to_value(files(noted))),
    ] {
        // Our own types have text keys only, so that writing them cannot fail.
        record.insert(name.to_owned(), part.unwrap_or_default());
    }
    Applied {
        key: AppliedKey::of(input.host.playbook, input.tags),
        record,
    }
}

/// The files as the plan leaves them, but for those of which it wants no content.
fn files(noted: &Noted<'_>) -> BTreeMap<String, LeftFile> {
    let mut left = BTreeMap::new();
    for landing in noted.landings.iter().filter(|landing| !landing.own) {
        let planned = noted.world.paths.get(&landing.path);
        let state = planned.or_else(|| noted.cache.state(&landing.path));
        let Some(PathState::File {
            mode,
            owner,
            group,
            sha256,
            ..
        }) = state
        else {
            continue;
        };
        let file = LeftFile {
            mode: format!("{mode:04o}"),
            owner: owner.clone(),
            group: group.clone(),
            sha256: sha256.clone(),
            text: match landing.secret {
                true => None,
                false => kept_text(&landing.content),
            },
        };
        left.insert(landing.path.clone(), file);
    }
    left
}

/// What a plan was made of, as far as it looked at it. Nothing of connections, and nothing
/// that must not be shown: of that, what is written today counts when it is planned again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Inputs {
    pub(super) playbook: WrittenText,
    /// The plays that were for the host, by their place.
    pub(super) plays: Vec<usize>,
    /// Variables of the inventory.
    pub(super) host: BTreeMap<String, WrittenVar>,
    /// Extra variables.
    pub(super) extra: BTreeMap<String, WrittenVar>,
    /// Variables of each play, by its place.
    pub(super) of_plays: BTreeMap<usize, BTreeMap<String, WrittenVar>>,
    /// Names that were asked for; one that is in none of the above had no value.
    pub(super) asked: BTreeSet<String>,
    /// The variable `groups`, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<Json>,
    /// The host's part of the totals of its group: profiles and how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<Vec<(String, u32)>>,
    pub(super) files: Vec<(FileKind, String, String, UsedFile)>,
}

/// A text and where it stood.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenText {
    pub(super) path: String,
    pub(super) text: String,
}

/// A variable as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenVar {
    /// The file.
    pub(super) at: String,
    pub(super) value: Json,
}

impl Inputs {
    fn of(input: &PlanInput<'_>, noted: &Noted<'_>) -> Self {
        let host = &input.host;
        let shown = |name: &&String| !noted.hidden.contains(*name) && !is_secret_name(name);
        let asked: BTreeSet<String> = noted.asked.iter().filter(shown).cloned().collect();
        let of = |vars: &Vars| -> BTreeMap<String, WrittenVar> {
            asked
                .iter()
                .filter_map(|name| Some((name.clone(), written(vars.get(name)?)?)))
                .collect()
        };
        let plays = host.playbook.plays.iter().enumerate();
        let source = host.playbook.plays.first().map(|play| &play.origin.source);
        let used = noted.files.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            playbook: source.map_or_else(WrittenText::default, |source| WrittenText {
                path: source.path.display().to_string(),
                text: source.text.clone(),
            }),
            plays: host.plays.to_vec(),
            host: of(host.vars),
            extra: of(host.extra),
            of_plays: plays
                .filter(|(number, _)| host.plays.contains(number))
                .map(|(number, play)| (number, of(&play.vars)))
                .collect(),
            groups: asked
                .contains("groups")
                .then(|| host.groups.cloned())
                .flatten(),
            share: input.share.map(|share| {
                let lines = share.request.iter();
                lines
                    .map(|line| (line.profile.value.clone(), line.count))
                    .collect()
            }),
            files: used
                .iter()
                .map(|((kind, name, at), file)| (*kind, name.clone(), at.clone(), file.clone()))
                .collect(),
            asked,
        }
    }
}

/// The form of a variable in the record; none of one that is encrypted.
fn written(node: &Node) -> Option<WrittenVar> {
    if matches!(node.value, Value::Tagged(Tag::Vault, _)) {
        return None;
    }
    Some(WrittenVar {
        at: node.origin.path().display().to_string(),
        value: without_secrets(node.to_json()),
    })
}

/// Stands in the record for a value that is not kept.
pub(super) const NOT_KEPT: &str = "__deploy_not_kept";

fn without_secrets(json: Json) -> Json {
    match json {
        Json::Object(map) => Json::Object(
            map.into_iter()
                .map(|(key, value)| {
                    let keep = !is_secret_name(&key) && key != "__ansible_vault";
                    let value = match keep {
                        true => without_secrets(value),
                        false => json!({ NOT_KEPT: true }),
                    };
                    (key, value)
                })
                .collect(),
        ),
        Json::Array(items) => items.into_iter().map(without_secrets).collect(),
        other => other,
    }
}

/// Whether a name says that what stands behind it is nobody's business.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "private_key",
        "ssh_key",
        "credential",
    ];
    name.ends_with("_pass") || words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_safe_in_a_path_and_knows_the_tags() {
        let playbook = Playbook { plays: Vec::new() };
        let tags = |only: &[&str]| Tags {
            only: only.iter().map(|tag| (*tag).to_owned()).collect(),
            skip: Vec::new(),
        };
        let one = AppliedKey::of(&playbook, &tags(&["b", "a"]));
        assert_eq!(one, AppliedKey::of(&playbook, &tags(&["a", "b", "a"])));
        assert_ne!(one, AppliedKey::of(&playbook, &tags(&["a"])));
        for wrong in ["", "../x", "a b", "a/b", "a.json"] {
            AppliedKey::try_from(wrong.to_owned()).expect_err(wrong);
        }
        let text = String::from(one.clone());
        assert_eq!(AppliedKey::try_from(text), Ok(one));
    }
}

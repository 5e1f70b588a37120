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
use super::secrets::{self, is_secret_name};
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
    /// The record of a playbook with these tags. Where on a machine its project lies does not
    /// matter, for it may be applied from one and watched from another: but two of one name
    /// are told apart by `Project::called`, which is their place in the project.
    #[must_use]
    pub fn of(playbook: &Playbook, tags: &Tags, called: Option<&str>) -> Self {
        let path = playbook.plays.first().map(|play| play.origin.path());
        let stem = path.and_then(Path::file_stem).unwrap_or_default();
        let stem = stem.to_string_lossy();
        let name = called.unwrap_or(&stem);
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        let whole = json!([name, sorted(&tags.only), sorted(&tags.skip)]).to_string();
        let sum = hex(&Sha256::digest(whole.as_bytes()));
        let safe: String = stem
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

    /// The file beside it that tells which record it is.
    #[must_use]
    pub fn sums_name(&self) -> String {
        format!("applied-{}.sum", self.0)
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

/// What of the user's a plan is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    /// Variables that were asked for.
    pub vars: BTreeSet<String>,
    /// Files.
    pub files: UsedFiles,
}

impl Applied {
    /// Takes the values of extra variables out, since a password may be given as one. `hash`
    /// of a name and a value stands in their place.
    pub fn withhold(&mut self, hash: impl Fn(&str, &str) -> String) {
        for (name, var) in self.extra() {
            let sum = hash(name, &var["value"].to_string());
            var["value"] = json!({ NOT_KEPT: sum });
        }
    }

    /// Puts them in again, where the same values were given again.
    pub fn fill_in(&mut self, extra: &Vars, hash: impl Fn(&str, &str) -> String) {
        for (name, var) in self.extra() {
            let given = extra.get(name).and_then(written);
            let same =
                |given: &WrittenVar| var["value"][NOT_KEPT] == hash(name, &given.value.to_string());
            var["value"] = match given.filter(same) {
                Some(given) => given.value,
                None => json!({ NOT_KEPT: true }),
            };
        }
    }

    fn extra(&mut self) -> impl Iterator<Item = (&String, &mut Json)> {
        let inputs = self.record.get_mut("inputs");
        let extra = inputs.and_then(|inputs| inputs.get_mut("extra"));
        let vars = extra.and_then(Json::as_object_mut);
        // Each of ours is a mapping; another would have no value to take out.
        vars.into_iter()
            .flatten()
            .filter(|(_, var)| var.is_object())
    }
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
    let record = match secrets::literal(input.host.playbook) {
        Some(why) => lacking(why),
        None => bounded(Inputs::of(input, noted), files(noted), MOST_RECORD),
    };
    Applied {
        key: AppliedKey::of(input.host.playbook, input.tags, input.project.called()),
        record,
    }
}

fn record(inputs: &Inputs, files: &BTreeMap<String, LeftFile>) -> Map<String, Json> {
    let parts = [
        ("inputs", serde_json::to_value(inputs)),
        ("files", serde_json::to_value(files)),
    ];
    // Our own types have text keys only, so that writing them cannot fail.
    parts
        .into_iter()
        .map(|(name, part)| (name.to_owned(), part.unwrap_or_default()))
        .collect()
}

/// A record that says only why it holds nothing, in the place of an older one.
fn lacking(why: String) -> Map<String, Json> {
    let inputs = Inputs {
        lacks: Some(why),
        ..Inputs::default()
    };
    record(&inputs, &BTreeMap::new())
}

/// The record in at most so many bytes: texts of files are left out, the largest first.
fn bounded(
    mut inputs: Inputs,
    mut files: BTreeMap<String, LeftFile>,
    most: usize,
) -> Map<String, Json> {
    loop {
        let whole = record(&inputs, &files);
        let size = serde_json::to_string(&whole).map_or(usize::MAX, |text| text.len());
        if size <= most {
            return whole;
        }
        let used = inputs.files.iter_mut().map(|(.., file)| &mut file.text);
        let left = files.values_mut().map(|file| &mut file.text);
        let mut texts: Vec<&mut Option<String>> =
            used.chain(left).filter(|text| text.is_some()).collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.as_ref().map_or(0, String::len)));
        if texts.is_empty() {
            return lacking(format!("what is planned from is longer than {most} bytes"));
        }
        // As many as it takes, since what is saved is about their length.
        let mut over = size - most;
        for text in texts {
            let len = text.take().map_or(0, |text| text.len());
            over = over.saturating_sub(len.max(1));
            if over == 0 {
                break;
            }
        }
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

/// Most bytes of a record.
const MOST_RECORD: usize = 1 << 20;

/// What a plan was made of, as far as it looked at it. Nothing of connections, and nothing
/// that must not be shown: of that, what is written today counts when it is planned again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Inputs {
    pub(super) playbook: WrittenText,
    /// Why nothing of all this is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lacks: Option<String>,
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
        // Extra variables beat the inventory's, which has them among its own.
        let mut own = of(host.vars);
        own.retain(|name, _| !host.extra.contains_key(name));
        let plays = host.playbook.plays.iter().enumerate();
        let source = host.playbook.plays.first().map(|play| &play.origin.source);
        let used = noted.files.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            playbook: source.map_or_else(WrittenText::default, |source| WrittenText {
                path: source.path.display().to_string(),
                text: source.text.clone(),
            }),
            lacks: None,
            plays: host.plays.to_vec(),
            host: own,
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

/// Whether a variable is a secret by its name, or holds one.
pub(super) fn holds_secret(name: &str, node: &Node) -> bool {
    let json = node.to_json();
    is_secret_name(name) || without_secrets(json.clone()) != json
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
        let one = AppliedKey::of(&playbook, &tags(&["b", "a"]), None);
        assert_eq!(
            one,
            AppliedKey::of(&playbook, &tags(&["a", "b", "a"]), None)
        );
        assert_ne!(one, AppliedKey::of(&playbook, &tags(&["a"]), None));
        let (fleet, lab) = (Some("fleet/site.yml"), Some("lab/site.yml"));
        let of = |called| AppliedKey::of(&playbook, &tags(&[]), called);
        assert_ne!(of(fleet), of(lab));
        assert_ne!(of(fleet), of(None));
        for wrong in ["", "../x", "a b", "a/b", "a.json"] {
            AppliedKey::try_from(wrong.to_owned()).expect_err(wrong);
        }
        let text = String::from(one.clone());
        assert_eq!(AppliedKey::try_from(text), Ok(one));
    }

    #[test]
    fn a_record_that_is_too_long_loses_its_longest_texts_and_then_all() {
        let left = |size: usize| LeftFile {
            mode: "0644".to_owned(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            sha256: "0".to_owned(),
            text: Some("x".repeat(size)),
        };
        let used = UsedFile {
            path: "t.j2".to_owned(),
            sha256: "0".to_owned(),
            text: Some("y".repeat(5000)),
        };
        let inputs = Inputs {
            files: vec![(FileKind::Template, "t".to_owned(), String::new(), used)],
            ..Inputs::default()
        };
        let files: BTreeMap<String, LeftFile> = [("/a", 100), ("/b", 9000), ("/c", 3000)]
            .map(|(path, size)| (path.to_owned(), left(size)))
            .into();
        let whole = record(&inputs, &files);
        assert_eq!(bounded(inputs.clone(), files.clone(), 1 << 20), whole);
        let short = bounded(inputs.clone(), files.clone(), 5000);
        assert!(serde_json::to_string(&short).expect("JSON").len() <= 5000);
        assert_eq!(short["files"]["/b"]["sha256"], "0");
        for (path, kept) in [("/a", true), ("/b", false), ("/c", true)] {
            assert_eq!(short["files"][path].get("text").is_some(), kept, "{path}");
        }
        assert!(short["inputs"]["files"][0][3].get("text").is_none());
        let none = bounded(inputs, files, 100);
        let why = none["inputs"]["lacks"].as_str().expect("a reason");
        assert!(why.contains("longer than 100 bytes"), "{why}");
    }
}

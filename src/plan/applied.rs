//! What a host is told of the plan besides its steps, so that a later look can tell what
//! somebody changed there from what is newly wanted: the files as the plan leaves them.
//!
//! There is one record for each playbook and selection of its tasks, for each has its own
//! idea of the host. It is made of what was planned, holds nothing of connections, and no
//! text that must not be shown.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::PlanInput;
use crate::module::{Landing, ReadCache, World};
use crate::playbook::{Playbook, Tags};
use crate::text::hex;
use crate::transport::PathState;

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

/// The record of a plan that was made of `input`.
pub(super) fn of(
    input: &PlanInput<'_>,
    landings: &[Landing],
    world: &World,
    cache: &ReadCache,
) -> Applied {
    let files: Map<String, Json> = landings
        .iter()
        .filter_map(|landing| {
            let planned = world.paths.get(&landing.path);
            let left = planned.or_else(|| cache.state(&landing.path))?;
            Some((landing.path.clone(), look(left)?))
        })
        .collect();
    let mut record = Map::new();
    record.insert("files".to_owned(), Json::Object(files));
    Applied {
        key: AppliedKey::of(input.host.playbook, input.tags),
        record,
    }
}

fn look(state: &PathState) -> Option<Json> {
    let PathState::File {
        mode,
        owner,
        group,
        size,
        sha256,
        ..
    } = state
    else {
        return None;
    };
    Some(json!({
        "mode": format!("{mode:04o}"),
        "owner": owner,
        "group": group,
        "size": size,
        "sha256": sha256,
    }))
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

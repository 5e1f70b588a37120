//! What the cluster holds, and the file it stands in.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::kinds::Kind;
use super::operator::Operator;
use crate::sim::machine::{Host, replace, uuid};

/// The cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cluster {
    revision: u64,
    /// By group, plural, namespace and name.
    objects: BTreeMap<String, Json>,
    /// What the controllers remember.
    #[serde(default)]
    pub(super) operator: Operator,
}

/// Where an object stands.
pub(super) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}/{}/{namespace}/{name}", kind.group, kind.plural)
}

/// A text somewhere in an object; empty if it is not there.
pub(super) fn text<'a>(object: &'a Json, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or("")
}

impl Cluster {
    /// Reads it; a cluster of which nothing is written yet is empty.
    pub(super) fn load(host: &Host) -> io::Result<Self> {
        match fs::read(host.private("kubernetes.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it. The host's lock must be held.
    pub(super) fn save(&self, host: &Host) -> io::Result<()> {
        replace(&host.private("kubernetes.json"), &serde_json::to_vec(self)?)
    }

    /// Counts writes.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether nothing was ever written.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Json> {
        self.objects.get(&key(kind, namespace, name))
    }

    /// All objects of a kind, of one namespace if that is not empty.
    pub(super) fn list(&self, kind: &Kind, namespace: &str) -> Vec<&Json> {
        let prefix = format!("{}/{}/", kind.group, kind.plural);
        let all = self.objects.iter();
        all.filter(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(|object| {
                namespace.is_empty() || text(object, "/metadata/namespace") == namespace
            })
            .collect()
    }

    /// Writes an object unless it is so already, and gives back what stands there then.
    pub(super) fn put(&mut self, kind: &Kind, object: Json) -> Json {
        let (object, is_new) = self.prepared(kind, object);
        if is_new {
            self.revision += 1;
            let namespace = text(&object, "/metadata/namespace");
            let place = key(kind, namespace, text(&object, "/metadata/name"));
            self.objects.insert(place, object.clone());
        }
        object
    }

    /// The object as it would be written, and whether it differs from what stands there.
    pub(super) fn prepared(&self, kind: &Kind, mut object: Json) -> (Json, bool) {
        let namespace = text(&object, "/metadata/namespace").to_owned();
        let name = text(&object, "/metadata/name").to_owned();
        let before = self.get(kind, &namespace, &name);
        if before == Some(&object) {
            return (object, false);
        }
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        let changed = before.is_none_or(|before| before["spec"] != object["spec"]);
        let generation = before.map_or(0, |before| {
            before["metadata"]["generation"].as_u64().unwrap_or(1)
        });
        let place = key(kind, &namespace, &name);
        let meta = &mut object["metadata"];
        match before {
            Some(before) => {
                for field in ["uid", "creationTimestamp"] {
                    meta[field] = before["metadata"][field].clone();
                }
            }
            None => {
                meta["uid"] = json!(uuid(&format!("{place} {}", self.revision)));
                meta["creationTimestamp"] = json!(now());
            }
        }
        meta["generation"] = json!(generation + u64::from(changed));
        meta["resourceVersion"] = json!((self.revision + 1).to_string());
        (object, true)
    }

    pub(super) fn delete(&mut self, kind: &Kind, namespace: &str, name: &str) -> Option<Json> {
        let gone = self.objects.remove(&key(kind, namespace, name))?;
        self.revision += 1;
        Some(gone)
    }
}

/// The time as objects write it.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

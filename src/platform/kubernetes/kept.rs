//! Which objects have fields of ours, in a record on the host, so that those of which none are
//! wanted any longer can be given back.

use serde_json::{Value as Json, json};

use crate::error::Diagnostic;
use crate::platform::{Host, PlatformFile, Wish};
use crate::render::Rendered;
use crate::transport::PathState;

use super::Manifests;
use super::owned;
use super::tool::{Name, Tool};

/// Where the record of this platform stands.
pub(super) const PATH: &str = "/etc/deploy/kubernetes/objects.json";

/// The record.
#[derive(Debug)]
pub(super) struct Kept {
    /// The cluster.
    pub(super) tool: Tool,
    /// Kind and name of each object.
    objects: Manifests,
}

impl Kept {
    /// Manifests without fields for those objects that are not wanted any longer.
    pub(super) fn without(&self, wanted: &[Json]) -> Manifests {
        let is_wanted = |object: &Json| {
            wanted
                .iter()
                .any(|other| Name::of(other) == Name::of(object))
        };
        let gone = self.objects.iter().filter(|object| !is_wanted(object));
        gone.cloned().collect()
    }
}

/// Where those objects are that are no longer wanted, and manifests without fields for them. All
/// of what another cluster has is no longer wanted there.
pub(super) fn gone(kept: Option<&Kept>, tool: &Tool, wanted: &[Json]) -> (Tool, Manifests) {
    let Some(kept) = kept else {
        return (tool.clone(), Manifests::new());
    };
    let moved = kept.tool != *tool;
    let wanted = if moved { &[] } else { wanted };
    (kept.tool.clone(), kept.without(wanted))
}

/// What the last run left. A record that cannot be read is not taken for one that names nothing.
pub(super) fn read(path: &str, host: &mut dyn Host) -> Rendered<Option<Kept>> {
    let content = match host.look(path)? {
        PathState::Absent => return Ok(None),
        PathState::File {
            content: Some(content),
            ..
        } => content,
        _ => return Err(unread(path).into()),
    };
    match parse(&String::from_utf8_lossy(&content)) {
        Some(kept) => Ok(Some(kept)),
        None => Err(unread(path).into()),
    }
}

fn unread(path: &str) -> Diagnostic {
    Diagnostic::error(format!("{path} cannot be read, which says what deploy has put into the cluster"))
        .hint("bring it back from a copy; or remove it, and with `kubectl` the objects that have fields of the manager `deploy`")
}

fn parse(text: &str) -> Option<Kept> {
    let record: Json = serde_json::from_str(text).ok()?;
    let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let is_named = |object: &&Json| {
        let name = Name::of(object);
        !name.resource.is_empty() && !name.name.is_empty()
    };
    let objects = record["objects"].as_array()?.iter().filter(is_named);
    Some(Kept {
        tool: Tool {
            kubeconfig: word("kubeconfig"),
            context: word("context"),
        },
        objects: objects.map(owned::identity).collect(),
    })
}

/// The record as it is to be.
pub(super) fn record(
    path: &str,
    tool: &Tool,
    objects: &[Json],
    before: Option<&Kept>,
) -> Vec<Wish> {
    if objects.is_empty() {
        let params = json!({ "path": path, "state": "absent" });
        let gone = Wish::Module {
            name: "file",
            params,
        };
        return before.map(|_| gone).into_iter().collect();
    }
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    let params = json!({ "path": folder, "state": "directory", "mode": "0755" });
    let names: Vec<Json> = objects.iter().map(owned::identity).collect();
    let file = PlatformFile {
        template: "kubernetes_objects.j2",
        dest: path.to_owned(),
        mode: "0644",
        owner: None,
        vars: json!({ "kubeconfig": tool.kubeconfig, "context": tool.context, "objects": names }),
    };
    vec![
        Wish::Module {
            name: "file",
            params,
        },
        Wish::File(Box::new(file)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_not_wanted_any_longer_is_found() {
        let text = r#"{"kubeconfig": "/k", "context": "", "objects": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}}, {"kind": ""}]}"#;
        let kept = parse(text).expect("a record");
        let wanted = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "b" } });
        let gone = kept.without(&[wanted]);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0]["metadata"]["name"], "a");
    }
}

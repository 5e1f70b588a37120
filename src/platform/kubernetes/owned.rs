//! Which fields of an object are whose, as its `managedFields` say, and what stands there.
//!
//! Only what server-side apply with our name needs: the fields of a manifest, the part of an
//! object that we own, and what somebody else would lose.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

/// Our name as field manager.
pub(super) const MANAGER: &str = "deploy";

/// One step into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A field of a map.
    Field(String),
    /// The item of a list that has this in that field.
    Item(String, String),
}

/// The field below `spec` with the user data of a virtual machine.
const USER_DATA: &str = "cloudInit";

/// Where a value stands.
pub(super) type Path = Vec<Part>;

/// Whether lists of an object are told apart item by item: only kinds of Kubernetes itself, since
/// the schemas of the others that we apply say so of none.
fn has_keys(manifest: &Json) -> bool {
    let version = manifest["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    !group.contains('.')
}

/// By which field the items of a list are told apart; other lists are one value.
fn item_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

/// The values that a manifest sets, each with its path; not what names the object.
pub(super) fn leaves(manifest: &Json) -> Vec<Path> {
    let mut found = Vec::new();
    collect(manifest, has_keys(manifest), &mut Vec::new(), &mut found);
    found.retain(|path| !is_identity(path));
    found
}

fn is_identity(path: &Path) -> bool {
    let field = |part: Option<&Part>, names: &[&str]| matches!(part, Some(Part::Field(name)) if names.contains(&name.as_str()));
    field(path.first(), &["apiVersion", "kind"])
        || field(path.first(), &["metadata"]) && field(path.get(1), &["name", "namespace"])
}

fn collect(value: &Json, keyed: bool, path: &mut Path, found: &mut Vec<Path>) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (name, inner) in map {
                path.push(Part::Field(name.clone()));
                collect(inner, keyed, path, found);
                path.pop();
            }
        }
        Json::Array(items) => {
            let key = match path.last() {
                Some(Part::Field(list)) if keyed => item_key(list),
                _ => None,
            };
            let Some(key) = key.filter(|_| !items.is_empty()) else {
                found.push(path.clone());
                return;
            };
            for item in items {
                let name = item[key].as_str().unwrap_or_default();
                path.push(Part::Item(key.to_owned(), name.to_owned()));
                collect(item, keyed, path, found);
                path.pop();
            }
        }
        _ => found.push(path.clone()),
    }
}

/// What stands at a path.
pub(super) fn at<'a>(object: &'a Json, path: &[Part]) -> Option<&'a Json> {
    let mut at = object;
    for part in path {
        at = match part {
            Part::Field(name) => at.get(name)?,
            Part::Item(key, value) => at
                .as_array()?
                .iter()
                .find(|item| item[key].as_str() == Some(value))?,
        };
    }
    Some(at)
}

/// Whether what stands there may hold passwords and keys: the user data of a virtual machine.
/// It is in no argument of a process and in no plan.
pub(super) fn is_private(path: &[Part]) -> bool {
    matches!(path, [Part::Field(spec), Part::Field(name)] if spec == "spec" && name == USER_DATA)
}

/// A manifest without what is private.
pub(super) fn public(manifest: &Json) -> Json {
    let mut public = manifest.clone();
    if let Some(spec) = public.get_mut("spec").and_then(Json::as_object_mut) {
        spec.shift_remove(USER_DATA);
    }
    public
}

/// What an object will be, with what is private as a manifest has it: the server was not told.
pub(super) fn with_private(mut after: Json, manifest: &Json) -> Json {
    let private = manifest.get("spec").and_then(|spec| spec.get(USER_DATA));
    let spec = after.get_mut("spec").and_then(Json::as_object_mut);
    if let (Some(private), Some(spec)) = (private, spec) {
        spec.insert(USER_DATA.to_owned(), private.clone());
    }
    after
}

/// The path as people write it.
pub(super) fn spelled(path: &[Part]) -> String {
    let parts: Vec<String> = path
        .iter()
        .map(|part| match part {
            Part::Field(name) => format!(".{name}"),
            Part::Item(_, value) => format!("[{value}]"),
        })
        .collect();
    let text = parts.concat();
    let short = ["metadata.labels.", "metadata.annotations.", "data."];
    let text = text.trim_start_matches('.');
    let found = short.iter().find_map(|prefix| text.strip_prefix(prefix));
    found.unwrap_or(text).to_owned()
}

/// The path for kubectl's `-o jsonpath`.
fn jsonpath(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Field(name) => {
                text.push('.');
                for c in name.chars() {
                    if "\\.,[]$@{}".contains(c) || c.is_whitespace() {
                        text.push('\\');
                    }
                    text.push(c);
                }
            }
            Part::Item(key, value) => text.push_str(&format!("[?(@.{key}=={value:?})]")),
        }
    }
    text
}

/// A `-o jsonpath` that prints the values at these paths, a line for each.
pub(super) fn template(paths: &[Path]) -> String {
    let each = paths
        .iter()
        .map(|path| format!("{{\"\\n#\"}}{{{}}}", jsonpath(path)));
    each.chain(["{\"\\n#\"}".to_owned()]).collect()
}

/// What kubectl prints with that template.
pub(super) fn printed(object: Option<&Json>, paths: &[Path]) -> String {
    let Some(object) = object else {
        return String::new();
    };
    let value = |path: &Path| at(object, path).map_or_else(String::new, plain);
    let each = paths.iter().map(|path| format!("\n#{}", value(path)));
    each.chain(["\n#".to_owned()]).collect()
}

/// A value as kubectl prints it: texts bare, lists and maps as Go's JSON.
fn plain(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Array(_) | Json::Object(_) => sorted(value)
            .to_string()
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026"),
        other => other.to_string(),
    }
}

fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let map: BTreeMap<&String, Json> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            json!(map)
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The fields that `managedFields` gives to somebody.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    is_apply: bool,
    fields: Json,
}

impl Owner {
    fn is_us(&self) -> bool {
        self.name == MANAGER && self.is_apply
    }

    fn has(&self, path: &[Part]) -> bool {
        let mut at = &self.fields;
        for part in path {
            let found = match part {
                Part::Field(name) => at.get(format!("f:{name}")),
                Part::Item(key, value) => at.get(format!("k:{}", json!({ key: value }))),
            };
            match found {
                Some(found) => at = found,
                None => return false,
            }
        }
        true
    }
}

/// Who owns something of an object; not those who write its status.
pub(super) fn owners(object: &Json) -> Vec<Owner> {
    let list = object.pointer("/metadata/managedFields");
    let list = list.and_then(Json::as_array).into_iter().flatten();
    list.filter(|entry| entry["subresource"].as_str().is_none_or(str::is_empty))
        .map(|entry| Owner {
            name: entry["manager"].as_str().unwrap_or_default().to_owned(),
            is_apply: entry["operation"] == "Apply",
            fields: entry["fieldsV1"].clone(),
        })
        .collect()
}

/// Whether nobody else has put anything into an object.
pub(super) fn is_only_ours(object: &Json) -> bool {
    let owners = owners(object);
    !owners.is_empty() && owners.iter().all(Owner::is_us)
}

/// The part of an object that we applied: a manifest that applies it again. Without fields
/// where we own none.
pub(super) fn ours(object: &Json) -> Json {
    let mut manifest = identity(object);
    for owner in owners(object).iter().filter(|owner| owner.is_us()) {
        if let Json::Object(part) = picked(object, &owner.fields) {
            lay_over(&mut manifest, &Json::Object(part));
        }
    }
    manifest
}

/// Kind and name.
pub(super) fn identity(object: &Json) -> Json {
    let mut meta = Map::new();
    for field in ["name", "namespace"] {
        if let Some(value) = object["metadata"].get(field) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": meta })
}

fn picked(value: &Json, fields: &Json) -> Json {
    let Some(fields) = fields
        .as_object()
        .filter(|fields| fields.keys().any(|key| key != "."))
    else {
        return value.clone();
    };
    match value {
        Json::Object(map) => {
            let wanted = map.iter().filter_map(|(name, inner)| {
                let fields = fields.get(&format!("f:{name}"))?;
                Some((name.clone(), picked(inner, fields)))
            });
            Json::Object(wanted.collect())
        }
        Json::Array(items) => {
            let wanted = items.iter().filter_map(|item| {
                fields.iter().find_map(|(key, fields)| {
                    let key: Json = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
                    let mut key = key.as_object()?.iter();
                    key.all(|(name, value)| item.get(name) == Some(value))
                        .then(|| {
                            let mut part = picked(item, fields);
                            for name in ["name", "mountPath"] {
                                if let (Some(value), true) =
                                    (item.get(name), part.get(name).is_none())
                                {
                                    part[name] = value.clone();
                                }
                            }
                            part
                        })
                })
            });
            Json::Array(wanted.collect())
        }
        other => other.clone(),
    }
}

fn lay_over(into: &mut Json, from: &Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(name) {
                    Some(old) => lay_over(old, value),
                    None => {
                        into.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Whether we applied exactly these fields.
pub(super) fn is_ours(object: &Json, manifest: &Json) -> bool {
    let have: BTreeSet<Path> = leaves(&ours(object)).into_iter().collect();
    let want: BTreeSet<Path> = leaves(manifest).into_iter().collect();
    have == want
}

/// What others set to something else than the manifest: the path, and whose it is.
pub(super) fn contested(object: &Json, manifest: &Json) -> Vec<(Path, String)> {
    let owners = owners(object);
    let differs = |path: &Path| at(object, path) != at(manifest, path);
    let owner = |path: &Path| {
        let mut others = owners.iter().filter(|owner| !owner.is_us());
        others
            .find(|owner| owner.has(path))
            .map(|owner| owner.name.clone())
    };
    let paths = leaves(manifest).into_iter().filter(differs);
    paths
        .filter_map(|path| owner(&path).map(|owner| (path, owner)))
        .collect()
}

/// A patch that sets what stands at these paths now; of maps only, as lists have no merge.
pub(super) fn patch(object: &Json, paths: &[Path]) -> Json {
    let mut patch = json!({});
    for path in paths {
        let mut one = at(object, path).cloned().unwrap_or_default();
        for part in path.iter().rev() {
            if let Part::Field(name) = part {
                one = json!({ name: one });
            }
        }
        lay_over(&mut patch, &one);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Json {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "gpu-1",
                "labels": { "nvidia.com/mig.config": "all-disabled", "own": "1", "foreign": "x" },
                "managedFields": [
                    { "manager": "gpu-operator", "operation": "Update", "fieldsV1": { "f:metadata": { "f:labels": { "f:nvidia.com/mig.config": {}, "f:foreign": {} } } } },
                    { "manager": "deploy", "operation": "Apply", "fieldsV1": { "f:metadata": { "f:labels": { "f:own": {} } } } },
                ],
            },
        })
    }

    fn labels(labels: &Json) -> Json {
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "gpu-1", "labels": labels } })
    }

    #[test]
    fn only_our_part_is_taken_from_an_object() {
        assert_eq!(ours(&node()), labels(&json!({ "own": "1" })));
        assert!(is_ours(&node(), &labels(&json!({ "own": "2" }))));
        assert!(!is_ours(&node(), &labels(&json!({ "foreign": "x" }))));
    }

    #[test]
    fn what_somebody_else_set_otherwise_is_named_with_its_owner() {
        let wanted =
            labels(&json!({ "nvidia.com/mig.config": "all-1g.10gb", "foreign": "x", "own": "2" }));
        let found = contested(&node(), &wanted);
        assert_eq!(found.len(), 1);
        assert_eq!(spelled(&found[0].0), "nvidia.com/mig.config");
        assert_eq!(found[0].1, "gpu-operator");
        let back = patch(&node(), &[found[0].0.clone()]);
        assert_eq!(
            back,
            json!({ "metadata": { "labels": { "nvidia.com/mig.config": "all-disabled" } } })
        );
    }

    #[test]
    fn paths_are_written_as_kubectl_reads_them() {
        let paths = leaves(&labels(&json!({ "nvidia.com/mig.config": "a" })));
        assert_eq!(
            template(&paths),
            r#"{"\n#"}{.metadata.labels.nvidia\.com/mig\.config}{"\n#"}"#
        );
        assert_eq!(printed(Some(&node()), &paths), "\n#all-disabled\n#");
        assert_eq!(printed(None, &paths), "");
    }

    #[test]
    fn lists_and_maps_are_printed_as_go_does() {
        let object = json!({ "a": ["x<y", 1], "b": {}, "c": true });
        let paths = leaves(&object);
        assert_eq!(
            printed(Some(&object), &paths),
            "\n#[\"x\\u003cy\",1]\n#{}\n#true\n#"
        );
    }
}

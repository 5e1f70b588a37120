//! Which fields of an object each writer owns, and server-side apply on top of that.
//!
//! Follows the rules of Kubernetes' structured merge: maps are merged key by key, lists of
//! things with a name item by item, other lists are one value. `managedFields` has the
//! official form, so that any client can read it.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

/// One step into an object: `f:name` for a field, `k:{…}` for an item of a list.
pub(super) type Path = Vec<String>;

/// The fields that somebody owns.
pub(super) type Fields = BTreeSet<Path>;

/// By which field the items of a list are told apart, where they are.
pub(super) fn item_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "conditions" => Some("type"),
        _ => None,
    }
}

/// Whether lists of an object are merged item by item: what its schema says of them, which only
/// the kinds of Kubernetes itself have here.
fn has_keys(object: &Json) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    !group.contains('.')
}

fn item_step(key: &str, item: &Json) -> Option<String> {
    Some(format!("k:{}", json!({ key: item.get(key)? })))
}

/// The fields that an object sets.
pub(super) fn of(object: &Json) -> Fields {
    let mut fields = Fields::new();
    collect(object, has_keys(object), &mut Vec::new(), &mut fields);
    fields.retain(|path| !is_identity(path));
    fields
}

/// What everybody writes and nobody owns.
fn is_identity(path: &[String]) -> bool {
    const META: [&str; 8] = [
        "f:name",
        "f:namespace",
        "f:managedFields",
        "f:resourceVersion",
        "f:uid",
        "f:creationTimestamp",
        "f:generation",
        "f:selfLink",
    ];
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    match words[..] {
        ["f:apiVersion" | "f:kind"] | ["f:status", ..] => true,
        ["f:metadata", field, ..] => META.contains(&field),
        _ => false,
    }
}

fn collect(value: &Json, keyed: bool, path: &mut Path, fields: &mut Fields) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (name, inner) in map {
                path.push(format!("f:{name}"));
                collect(inner, keyed, path, fields);
                path.pop();
            }
        }
        Json::Array(items) => {
            let list = path.last().and_then(|step| step.strip_prefix("f:"));
            let list = list.filter(|_| keyed);
            let steps: Option<Vec<String>> = list.and_then(item_key).and_then(|key| {
                let steps = items.iter().map(|item| item_step(key, item));
                steps.collect()
            });
            let Some(steps) = steps.filter(|steps| !steps.is_empty()) else {
                fields.insert(path.clone());
                return;
            };
            for (step, item) in steps.into_iter().zip(items) {
                path.push(step);
                fields.insert(path.clone());
                collect(item, keyed, path, fields);
                path.pop();
            }
        }
        _ => {
            fields.insert(path.clone());
        }
    }
}

/// What stands at a path.
pub(super) fn get<'a>(object: &'a Json, path: &[String]) -> Option<&'a Json> {
    let mut at = object;
    for step in path {
        at = match step.strip_prefix("f:") {
            Some(field) => at.get(field)?,
            None => item(at, step)?,
        };
    }
    Some(at)
}

fn item<'a>(list: &'a Json, step: &str) -> Option<&'a Json> {
    let wanted: Json = serde_json::from_str(step.strip_prefix("k:")?).ok()?;
    let (key, value) = wanted.as_object()?.iter().next()?;
    list.as_array()?
        .iter()
        .find(|item| item.get(key) == Some(value))
}

/// Removes what stands at a path, and maps that this leaves empty.
pub(super) fn remove(object: &mut Json, path: &[String]) {
    let Some((step, rest)) = path.split_first() else {
        return;
    };
    if let Some(field) = step.strip_prefix("f:") {
        let Some(map) = object.as_object_mut() else {
            return;
        };
        if rest.is_empty() {
            map.remove(field);
            return;
        }
        let Some(inner) = map.get_mut(field) else {
            return;
        };
        remove(inner, rest);
        let empty = match inner {
            Json::Object(map) => map.is_empty(),
            Json::Array(items) => items.is_empty(),
            _ => false,
        };
        if empty && field != "metadata" {
            map.remove(field);
        }
        return;
    }
    let found = item(object, step).cloned();
    let Some(items) = object.as_array_mut() else {
        return;
    };
    let Some(place) = items.iter().position(|item| Some(item) == found.as_ref()) else {
        return;
    };
    if rest.is_empty() {
        items.remove(place);
    } else {
        remove(&mut items[place], rest);
    }
}

/// Lays one object over another.
pub(super) fn merge(into: &mut Json, from: &Json) {
    let keyed = has_keys(from);
    merge_by(into, from, keyed);
}

fn merge_by(into: &mut Json, from: &Json, keyed: bool) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(name) {
                    Some(Json::Array(old)) if keyed && item_key(name).is_some() => {
                        merge_items(old, value, item_key(name).unwrap_or_default());
                    }
                    Some(old) => merge_by(old, value, keyed),
                    None => {
                        into.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn merge_items(old: &mut Vec<Json>, new: &Json, key: &str) {
    for item in new.as_array().into_iter().flatten() {
        match old.iter_mut().find(|other| other.get(key) == item.get(key)) {
            Some(other) => merge_by(other, item, true),
            None => old.push(item.clone()),
        }
    }
}

/// Whether a path ends in the field by which its item is told apart.
fn names_its_item(path: &[String]) -> bool {
    let [.., list, item, field] = path else {
        return false;
    };
    let key = list.strip_prefix("f:").and_then(item_key);
    item.starts_with("k:") && key.is_some() && field.strip_prefix("f:") == key
}

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: String,
    pub(super) api_version: String,
    time: String,
    pub(super) fields: Fields,
}

/// Reads `managedFields`.
pub(super) fn entries(object: &Json) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields");
    let list = list.and_then(Json::as_array).into_iter().flatten();
    let text = |entry: &Json, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    list.map(|entry| {
        let mut fields = Fields::new();
        unfold(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
        Entry {
            manager: text(entry, "manager"),
            operation: text(entry, "operation"),
            api_version: text(entry, "apiVersion"),
            time: text(entry, "time"),
            fields,
        }
    })
    .collect()
}

fn unfold(tree: &Json, path: &mut Path, fields: &mut Fields) {
    let Some(map) = tree.as_object() else { return };
    if map.is_empty() && !path.is_empty() {
        fields.insert(path.clone());
    }
    for (step, inner) in map {
        if step == "." {
            fields.insert(path.clone());
            continue;
        }
        path.push(step.clone());
        unfold(inner, path, fields);
        path.pop();
    }
}

fn fold(fields: &Fields) -> Json {
    let mut tree = Json::Object(Map::new());
    for path in fields {
        let is_item = path.last().is_some_and(|step| step.starts_with("k:"));
        let dot = is_item.then(|| ".".to_owned());
        let mut at = &mut tree;
        for step in path.iter().chain(&dot) {
            // Everything in the tree is a map.
            at = &mut at[step.as_str()];
            if at.is_null() {
                *at = json!({});
            }
        }
    }
    tree
}

/// Writes `managedFields`; who owns nothing is not in it.
pub(super) fn put_entries(object: &mut Json, entries: &[Entry]) {
    let list: Vec<Json> = entries
        .iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            json!({
                "manager": entry.manager,
                "operation": entry.operation,
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fold(&entry.fields),
            })
        })
        .collect();
    if let Some(meta) = object["metadata"].as_object_mut() {
        match list.is_empty() {
            true => meta.remove("managedFields"),
            false => meta.insert("managedFields".to_owned(), Json::Array(list)),
        };
    }
}

/// Who writes, and when.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) now: String,
}

/// A field that somebody else set to another value.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) with: String,
    pub(super) field: String,
}

/// The path as messages of the API server write it.
fn spelled(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.strip_prefix("f:") {
            Some(field) => format!(".{field}"),
            None => format!(
                "[{}]",
                step.trim_start_matches("k:").trim_matches(['{', '}'])
            ),
        })
        .collect()
}

/// Server-side apply of `config` over `live`; an object that is not there yet is `None`.
pub(super) fn apply(
    live: Option<&Json>,
    config: &Json,
    writer: &Writer,
    force: bool,
) -> Result<Json, Vec<Conflict>> {
    let mut config = config.clone();
    if let Some(meta) = config["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    let wanted = of(&config);
    let mut object = live.cloned().unwrap_or_else(|| json!({ "metadata": {} }));
    let mut owners = entries(&object);
    let is_ours = |entry: &Entry| entry.manager == writer.manager && entry.operation == "Apply";
    let differs = |path: &Path| get(&object, path) != get(&config, path);
    let mut conflicts = Vec::new();
    let mut taken = Fields::new();
    for path in wanted.iter().filter(|path| differs(path)) {
        // An item of a list is taken as a whole only by its fields.
        if path.last().is_some_and(|step| step.starts_with("k:")) {
            continue;
        }
        for entry in owners.iter().filter(|entry| !is_ours(entry)) {
            if !entry.fields.contains(path) {
                continue;
            }
            let using = match entry.operation.as_str() {
                "Apply" => String::new(),
                _ => format!(" using {}", entry.api_version),
            };
            conflicts.push(Conflict {
                with: format!("{:?}{using}", entry.manager),
                field: spelled(path),
            });
            taken.insert(path.clone());
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    let had = owners.iter().find(|entry| is_ours(entry));
    let had = had.map(|entry| entry.fields.clone()).unwrap_or_default();
    let others = |path: &Path| {
        let mut others = owners.iter().filter(|entry| !is_ours(entry));
        others.any(|entry| entry.fields.iter().any(|field| field.starts_with(path)))
    };
    let gone: Vec<Path> = had
        .difference(&wanted)
        .filter(|path| !others(path))
        .cloned()
        .collect();
    merge(&mut object, &config);
    // An item goes with all that is in it, and never loses what it is told apart by.
    for path in gone.iter().filter(|path| !names_its_item(path)) {
        remove(&mut object, path);
    }
    for entry in owners.iter_mut().filter(|entry| !is_ours(entry)) {
        entry.fields.retain(|path| !taken.contains(path));
    }
    let unchanged = wanted == had;
    let mut ours = Entry {
        manager: writer.manager.clone(),
        operation: "Apply".to_owned(),
        api_version: writer.api_version.clone(),
        time: writer.now.clone(),
        fields: wanted,
    };
    match owners.iter_mut().find(|entry| is_ours(entry)) {
        Some(entry) => {
            if unchanged {
                ours.time.clone_from(&entry.time);
            }
            *entry = ours;
        }
        None => owners.push(ours),
    }
    put_entries(&mut object, &owners);
    Ok(object)
}

/// Notes who owns what after somebody changed `before` into `after` in any other way.
pub(super) fn track(before: Option<&Json>, after: &mut Json, writer: &Writer) {
    let had = before.map(of).unwrap_or_default();
    let has = of(after);
    let changed: Fields = has
        .iter()
        .filter(|path| before.and_then(|before| get(before, path)) != get(after, path))
        .filter(|path| {
            !path.last().is_some_and(|step| step.starts_with("k:")) || !had.contains(*path)
        })
        .cloned()
        .collect();
    let mut owners = before.map(entries).unwrap_or_default();
    for entry in &mut owners {
        entry.fields.retain(|path| {
            !changed.contains(path) && (has.contains(path) || get(after, path).is_some())
        });
    }
    let is_ours = |entry: &Entry| entry.manager == writer.manager && entry.operation == "Update";
    if !changed.is_empty() {
        match owners.iter_mut().find(|entry| is_ours(entry)) {
            Some(entry) => {
                entry.fields.extend(changed);
                entry.time.clone_from(&writer.now);
            }
            None => owners.push(Entry {
                manager: writer.manager.clone(),
                operation: "Update".to_owned(),
                api_version: writer.api_version.clone(),
                time: writer.now.clone(),
                fields: changed,
            }),
        }
    }
    put_entries(after, &owners);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str) -> Writer {
        Writer {
            manager: manager.to_owned(),
            api_version: "v1".to_owned(),
            now: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn labels(labels: &Json) -> Json {
        json!({ "metadata": { "name": "n", "labels": labels } })
    }

    #[test]
    fn what_somebody_else_set_is_a_conflict_unless_forced_and_goes_with_its_last_owner() {
        let mut node = labels(&json!({ "a": "1", "b": "1" }));
        track(None, &mut node, &writer("kubectl-label"));
        let wanted = labels(&json!({ "a": "2", "c": "1" }));
        let conflicts = apply(Some(&node), &wanted, &writer("deploy"), false).expect_err("one");
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].field, ".metadata.labels.a");
        assert_eq!(conflicts[0].with, "\"kubectl-label\" using v1");
        let taken = apply(Some(&node), &wanted, &writer("deploy"), true).expect("forced");
        let again = apply(Some(&taken), &wanted, &writer("deploy"), false).expect("ours now");
        assert_eq!(again, taken);
        let left = apply(Some(&taken), &labels(&json!({})), &writer("deploy"), false);
        let left = left.expect("nothing against it");
        assert_eq!(left["metadata"]["labels"], json!({ "b": "1" }));
    }

    #[test]
    fn a_shared_field_stays_when_one_of_its_owners_leaves() {
        let mut node = labels(&json!({ "a": "1" }));
        track(None, &mut node, &writer("other"));
        let both = apply(Some(&node), &node, &writer("deploy"), false).expect("same value");
        assert_eq!(entries(&both).len(), 2);
        let left = apply(Some(&both), &labels(&json!({})), &writer("deploy"), false);
        assert_eq!(
            left.expect("fine")["metadata"]["labels"],
            json!({ "a": "1" })
        );
    }

    #[test]
    fn items_of_a_list_are_told_apart_by_name() {
        let pod = |containers: Json| json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } });
        let mut object = pod(json!([{ "name": "a", "image": "1" }]));
        track(None, &mut object, &writer("other"));
        let wanted = pod(json!([{ "name": "b", "image": "2" }]));
        let both = apply(Some(&object), &wanted, &writer("deploy"), false).expect("no conflict");
        assert_eq!(both["spec"]["containers"].as_array().map(Vec::len), Some(2));
        let left = apply(
            Some(&both),
            &json!({ "spec": {} }),
            &writer("deploy"),
            false,
        );
        assert_eq!(left.expect("no conflict")["spec"], object["spec"]);
    }
}

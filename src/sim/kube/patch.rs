//! The ways to patch an object: merge (RFC 7396), JSON patch (RFC 6902) and Kubernetes'
//! strategic merge.

use serde_json::{Value as Json, json};

use super::fields::item_key;

/// RFC 7396.
pub(super) fn merge(into: &mut Json, patch: &Json) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        let Some(map) = into.as_object_mut() else {
            return;
        };
        match value {
            Json::Null => {
                map.remove(name);
            }
            value => merge(map.entry(name.clone()).or_insert(Json::Null), value),
        }
    }
}

/// As RFC 7396, but lists of named things are merged by name.
pub(super) fn strategic(into: &mut Json, patch: &Json) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        let Some(map) = into.as_object_mut() else {
            return;
        };
        match (value, item_key(name)) {
            (Json::Null, _) => {
                map.remove(name);
            }
            (Json::Array(items), Some(key)) => {
                let list = map.entry(name.clone()).or_insert_with(|| json!([]));
                for item in items {
                    one(list, item, key);
                }
            }
            _ if name.starts_with('$') => {}
            _ => strategic(map.entry(name.clone()).or_insert(Json::Null), value),
        }
    }
}

fn one(list: &mut Json, item: &Json, key: &str) {
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let place = list
        .iter()
        .position(|other| other.get(key) == item.get(key));
    match (place, item.get("$patch").and_then(Json::as_str)) {
        (Some(place), Some("delete")) => {
            list.remove(place);
        }
        (None, Some("delete")) => {}
        (Some(place), _) => strategic(&mut list[place], item),
        (None, _) => list.push(item.clone()),
    }
}

/// RFC 6902; in case of failure what the API server says.
pub(super) fn json_patch(into: &mut Json, patch: &Json) -> Result<(), String> {
    for operation in patch.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or_default();
        let word = operation["op"].as_str().unwrap_or_default();
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        let last = last.replace("~1", "/").replace("~0", "~");
        let missing = || {
            format!(
                "the server rejected our request due to an error in our request: {word} operation does not apply: doc is missing path: {path:?}"
            )
        };
        let at = into.pointer_mut(above).ok_or_else(missing)?;
        let value = operation["value"].clone();
        match at {
            Json::Object(map) => match word {
                "add" => {
                    map.insert(last, value);
                }
                "replace" if map.contains_key(&last) => {
                    map.insert(last, value);
                }
                "remove" if map.contains_key(&last) => {
                    map.remove(&last);
                }
                "test" if map.get(&last) == Some(&value) => {}
                _ => return Err(missing()),
            },
            Json::Array(list) => {
                let place = last.parse().unwrap_or(list.len());
                match word {
                    "add" if place <= list.len() => list.insert(place, value),
                    "replace" if place < list.len() => list[place] = value,
                    "remove" if place < list.len() => {
                        list.remove(place);
                    }
                    "test" if list.get(place) == Some(&value) => {}
                    _ => return Err(missing()),
                }
            }
            _ => return Err(missing()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_removes_and_maps_are_merged() {
        let mut object = json!({ "a": { "b": 1, "c": 2 } });
        merge(&mut object, &json!({ "a": { "b": null, "d": 3 } }));
        assert_eq!(object, json!({ "a": { "c": 2, "d": 3 } }));
    }

    #[test]
    fn a_json_patch_of_what_is_not_there_is_refused() {
        let mut object = json!({ "spec": {} });
        let patch = json!([{ "op": "replace", "path": "/spec/mig/strategy", "value": "mixed" }]);
        assert!(json_patch(&mut object, &patch).is_err());
        let patch = json!([{ "op": "add", "path": "/spec/mig", "value": { "strategy": "mixed" } }]);
        json_patch(&mut object, &patch).expect("added");
        assert_eq!(object["spec"]["mig"]["strategy"], "mixed");
    }

    #[test]
    fn a_strategic_merge_finds_items_by_name() {
        let mut object = json!({ "containers": [{ "name": "a", "image": "1" }] });
        strategic(
            &mut object,
            &json!({ "containers": [{ "name": "a", "tty": true }] }),
        );
        assert_eq!(object["containers"][0]["image"], "1");
        assert_eq!(object["containers"][0]["tty"], true);
    }
}

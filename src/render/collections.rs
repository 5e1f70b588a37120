//! Ansible's filters and tests on lists, mappings and serialized data.

use std::collections::HashSet;

use minijinja::value::{Kwargs, Rest, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::Value as Json;

use crate::yaml::emit::{Layout, to_yaml_by};

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("to_json", to_json);
    env.add_filter("tojson", to_json);
    env.add_filter("to_nice_json", to_nice_json);
    env.add_filter("to_yaml", to_yaml);
    env.add_filter("to_nice_yaml", to_nice_yaml);
    env.add_filter("from_json", from_json);
    env.add_filter("from_yaml", from_yaml);
    env.add_filter("combine", combine);
    env.add_filter("dict2items", dict2items);
    env.add_filter("items2dict", items2dict);
    env.add_filter("flatten", flatten);
    env.add_filter("union", union);
    env.add_filter("intersect", intersect);
    env.add_filter("difference", difference);
    env.add_filter("symmetric_difference", symmetric_difference);
    env.add_test("subset", |a: Value, b: Value| contains_all(&b, &a));
    env.add_test("issubset", |a: Value, b: Value| contains_all(&b, &a));
    env.add_test("superset", |a: Value, b: Value| contains_all(&a, &b));
    env.add_test("issuperset", |a: Value, b: Value| contains_all(&a, &b));
    env.add_test("contains", |list: Value, item: Value| {
        Ok::<_, Error>(items(&list)?.contains(&item))
    });
    env.add_test("any", |list: Value| {
        Ok::<_, Error>(items(&list)?.iter().any(Value::is_true))
    });
    env.add_test("all", |list: Value| {
        Ok::<_, Error>(items(&list)?.iter().all(Value::is_true))
    });
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn json(value: &Value) -> Result<Json, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    serde_json::to_value(value).map_err(|error| wrong(format!("cannot be written out: {error}")))
}

/// The items of a list; texts and mappings are none.
fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.checked().collect(),
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        _ => Err(wrong("this wants a list")),
    }
}

fn sorted(value: Json) -> Json {
    match value {
        Json::Object(map) => {
            let mut entries: Vec<(String, Json)> = map
                .into_iter()
                .map(|(key, item)| (key, sorted(item)))
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(entries.into_iter().collect())
        }
        Json::Array(list) => Json::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// As Python's `json.dumps`: `, ` and `: ` between, other than ASCII escaped.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?;
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(true);
    options.assert_all_used()?;
    let value = json(&value)?;
    let value = if sort { sorted(value) } else { value };
    dump(&value, indent, ascii)
}

fn to_nice_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(true);
    let indent = options.get::<Option<usize>>("indent")?.unwrap_or(4);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(true);
    options.assert_all_used()?;
    let value = json(&value)?;
    let value = if sort { sorted(value) } else { value };
    dump(&value, Some(indent), ascii)
}

fn dump(value: &Json, indent: Option<usize>, ascii: bool) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(16));
            let form = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut bytes, form,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, Python,
        )),
    };
    written.map_err(|error| wrong(format!("cannot be written as JSON: {error}")))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !ascii || text.is_ascii() {
        return Ok(text);
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(escaped)
}

/// Python's separators.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn to_yaml(value: Value, options: Kwargs) -> Result<String, Error> {
    yaml(&value, Layout::Terse, 2, &options)
}

fn to_nice_yaml(value: Value, options: Kwargs) -> Result<String, Error> {
    yaml(&value, Layout::Nice, 4, &options)
}

fn yaml(value: &Value, layout: Layout, step: u8, options: &Kwargs) -> Result<String, Error> {
    let step = options.get::<Option<u8>>("indent")?.unwrap_or(step);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(true);
    options.assert_all_used()?;
    if !sorted {
        return Err(wrong(
            "keys are always sorted in YAML here; leave `sort_keys` out",
        ));
    }
    Ok(to_yaml_by(&json(value)?, layout, step))
}

fn from_json(text: String) -> Result<Value, Error> {
    let value: Json =
        serde_json::from_str(&text).map_err(|error| wrong(format!("from_json: {error}")))?;
    Ok(Value::from(Serde(value)))
}

fn from_yaml(text: String) -> Result<Value, Error> {
    let (node, problems) = crate::yaml::load(std::path::Path::new("from_yaml"), &text);
    if let Some(problem) = problems.0.first().filter(|_| problems.has_errors()) {
        return Err(wrong(format!("from_yaml: {}", problem.message)));
    }
    Ok(node.map_or(Value::from(()), |node| Value::from(Serde(node.to_json()))))
}

/// Later mappings beat earlier ones; with `recursive` below the first level, too.
fn combine(first: Value, others: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let recursive = options.get::<Option<bool>>("recursive")?.unwrap_or(false);
    let lists = options
        .get::<Option<String>>("list_merge")?
        .unwrap_or_else(|| "replace".to_owned());
    options.assert_all_used()?;
    let mut merged = json(&first)?;
    for other in others.iter() {
        let parts = match other.kind() {
            ValueKind::Seq => items(other)?,
            _ => vec![other.clone()],
        };
        for part in &parts {
            merge(&mut merged, json(part)?, recursive, &lists)?;
        }
    }
    Ok(Value::from(Serde(merged)))
}

fn merge(into: &mut Json, from: Json, recursive: bool, lists: &str) -> Result<(), Error> {
    let (Json::Object(into), Json::Object(from)) = (into, from) else {
        return Err(wrong("combine wants mappings"));
    };
    for (key, item) in from {
        match (into.get_mut(&key), item) {
            (Some(old @ Json::Object(_)), item @ Json::Object(_)) if recursive => {
                merge(old, item, recursive, lists)?;
            }
            (Some(Json::Array(old)), Json::Array(new)) => match lists {
                "replace" => *old = new,
                "keep" => {}
                "append" => old.extend(new),
                "prepend" => {
                    let tail = std::mem::replace(old, new);
                    old.extend(tail);
                }
                "append_rp" => {
                    old.retain(|item| !new.contains(item));
                    old.extend(new);
                }
                "prepend_rp" => {
                    let tail = std::mem::take(old);
                    *old = new;
                    for item in tail {
                        if !old.contains(&item) {
                            old.push(item);
                        }
                    }
                }
                _ => return Err(wrong(format!("combine: there is no list_merge `{lists}`"))),
            },
            (_, item) => {
                into.insert(key, item);
            }
        }
    }
    Ok(())
}

fn dict2items(map: Value, options: Kwargs) -> Result<Value, Error> {
    let key_name = options.get::<Option<String>>("key_name")?;
    let value_name = options.get::<Option<String>>("value_name")?;
    options.assert_all_used()?;
    let key_name = key_name.unwrap_or_else(|| "key".to_owned());
    let value_name = value_name.unwrap_or_else(|| "value".to_owned());
    if map.kind() != ValueKind::Map {
        return Err(wrong("dict2items wants a mapping"));
    }
    let mut list = Vec::new();
    for key in map.try_iter()? {
        let item = map.get_item(&key)?;
        list.push(Value::from_pairs([
            (key_name.clone(), key),
            (value_name.clone(), item),
        ]));
    }
    Ok(Value::from(list))
}

fn items2dict(list: Value, options: Kwargs) -> Result<Value, Error> {
    let key_name = options.get::<Option<String>>("key_name")?;
    let value_name = options.get::<Option<String>>("value_name")?;
    options.assert_all_used()?;
    let key_name = key_name.unwrap_or_else(|| "key".to_owned());
    let value_name = value_name.unwrap_or_else(|| "value".to_owned());
    let mut pairs = Vec::new();
    for item in items(&list)? {
        let (key, value) = (item.get_attr(&key_name)?, item.get_attr(&value_name)?);
        if key.is_undefined() || value.is_undefined() {
            return Err(wrong(format!(
                "items2dict: each item needs `{key_name}` and `{value_name}`"
            )));
        }
        pairs.push((key, value));
    }
    Ok(Value::from_pairs(pairs))
}

fn flatten(list: Value, options: Kwargs) -> Result<Value, Error> {
    let levels = options.get::<Option<usize>>("levels")?;
    let skip_nulls = options.get::<Option<bool>>("skip_nulls")?.unwrap_or(true);
    options.assert_all_used()?;
    let mut flat = Vec::new();
    flatten_into(&mut flat, items(&list)?, levels.unwrap_or(64), skip_nulls)?;
    Ok(Value::from(flat))
}

fn flatten_into(
    flat: &mut Vec<Value>,
    list: Vec<Value>,
    levels: usize,
    skip_nulls: bool,
) -> Result<(), Error> {
    for item in list {
        if item.kind() == ValueKind::Seq && levels > 0 {
            flatten_into(flat, items(&item)?, levels - 1, skip_nulls)?;
        } else if !(skip_nulls && item.is_none()) {
            flat.push(item);
        }
    }
    Ok(())
}

/// Each item once, in order. Items that cannot be hashed alike are compared as JSON.
fn once(list: Vec<Value>) -> Result<Vec<Value>, Error> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in list {
        if seen.insert(json(&item)?.to_string()) {
            kept.push(item);
        }
    }
    Ok(kept)
}

fn union(a: Value, b: Value) -> Result<Value, Error> {
    let mut all = items(&a)?;
    all.extend(items(&b)?);
    Ok(Value::from(once(all)?))
}

fn intersect(a: Value, b: Value) -> Result<Value, Error> {
    let b = items(&b)?;
    let common = items(&a)?.into_iter().filter(|item| b.contains(item));
    Ok(Value::from(once(common.collect())?))
}

fn difference(a: Value, b: Value) -> Result<Value, Error> {
    let b = items(&b)?;
    let rest = items(&a)?.into_iter().filter(|item| !b.contains(item));
    Ok(Value::from(once(rest.collect())?))
}

fn symmetric_difference(a: Value, b: Value) -> Result<Value, Error> {
    let (a, b) = (items(&a)?, items(&b)?);
    let mut rest: Vec<Value> = a.iter().filter(|item| !b.contains(item)).cloned().collect();
    rest.extend(b.iter().filter(|item| !a.contains(item)).cloned());
    Ok(Value::from(once(rest)?))
}

fn contains_all(whole: &Value, part: &Value) -> Result<bool, Error> {
    let whole = items(whole)?;
    Ok(items(part)?.iter().all(|item| whole.contains(item)))
}

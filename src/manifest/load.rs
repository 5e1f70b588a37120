//! Reads a file of tables and checks it, with positions: a project may bring its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Diagnostic, Origin, Problems, Severity};
use crate::value::{Map, Node, Value};

use super::Kind;
use super::shape::{Field, Scalar, Shape};

/// The keys of a file.
const KEYS: [&str; 5] = ["source", "unknown", "partial", "objects", "types"];

/// The key of a list of words, for words that no shape could be told from.
const ONE_OF: &str = "one_of";

/// How deep a type may name others before it holds a field: one that only names itself holds
/// nothing.
const LONGEST_CHAIN: usize = 8;

/// All tables of one file, after those of the files before it.
pub(super) fn tables(file: &Node, kinds: &mut BTreeMap<String, Kind>, problems: &mut Problems) {
    let Some(top) = file.as_map() else {
        wrong(problems, &file.origin, "a file of tables is a mapping");
        return;
    };
    for (key, entry) in top {
        if !KEYS.contains(&key.as_str()) {
            let message = format!("unknown key `{key}` in a file of tables");
            let told = Diagnostic::error(message).at(&entry.key);
            problems.push(told.did_you_mean(key, KEYS));
        }
    }
    let node = |key: &str| top.get(key).map(|entry| &entry.node);
    let source = node("source").and_then(Node::as_str).unwrap_or_default();
    if source.is_empty() {
        wrong(problems, &file.origin, "a file of tables needs `source`");
    }
    let unknown = match node("unknown").map(|node| (node.as_str(), node)) {
        None | Some((Some("error"), _)) => Severity::Error,
        Some((Some("warning"), _)) => Severity::Warning,
        Some((_, node)) => {
            wrong(problems, &node.origin, "`unknown` is `error` or `warning`");
            Severity::Error
        }
    };
    let mut types = BTreeMap::new();
    for (name, entry) in node("types").and_then(Node::as_map).into_iter().flatten() {
        if !is_type_name(name) {
            let message = format!("a type begins with a capital letter, and `{name}` does not");
            wrong(problems, &entry.key, &message);
        }
        types.insert(name.clone(), shape(&entry.node, problems));
    }
    let mut own = Vec::new();
    for (name, entry) in node("objects").and_then(Node::as_map).into_iter().flatten() {
        own.push((name, shape(&entry.node, problems), &entry.key));
    }
    if own.is_empty() {
        wrong(problems, &file.origin, "a file of tables needs `objects`");
    }
    for (name, shape) in &types {
        known(shape, &types, &file.origin, problems);
        if !ends(shape, &types) {
            let message = format!("the type `{name}` names nothing but types");
            wrong(problems, &file.origin, &message);
        }
    }
    for (_, shape, at) in &own {
        known(shape, &types, at, problems);
    }
    let partial = node("partial").and_then(Node::as_seq).unwrap_or_default();
    let types = Arc::new(types);
    for (name, shape, at) in own {
        if kinds.contains_key(name) {
            let message = format!("there are two tables of `{name}`");
            wrong(problems, at, &message);
        }
        let kind = Kind {
            shape,
            types: Arc::clone(&types),
            source: source.to_owned(),
            unknown,
            is_partial: partial.iter().any(|node| node.as_str() == Some(name)),
        };
        kinds.insert(name.clone(), kind);
    }
    for node in partial {
        if node.as_str().is_none_or(|name| !kinds.contains_key(name)) {
            let message = "`partial` names a kind that has no table";
            wrong(problems, &node.origin, message);
        }
    }
}

fn wrong(problems: &mut Problems, at: &Origin, message: &str) {
    problems.push(Diagnostic::error(message).at(at));
}

fn is_type_name(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|c| c.is_ascii_uppercase()) && letters.all(char::is_alphanumeric)
}

fn shape(node: &Node, problems: &mut Problems) -> Shape {
    match &node.value {
        Value::Str(text) => written(text, node, problems),
        Value::Map(map) => match map.get(ONE_OF) {
            Some(entry) if map.len() == 1 => words(&entry.node, problems),
            _ => fields(map, problems),
        },
        _ => {
            let message = format!(
                "a shape is a word or a mapping of fields, not {}",
                node.kind()
            );
            wrong(problems, &node.origin, &message);
            Shape::Any
        }
    }
}

fn words(node: &Node, problems: &mut Problems) -> Shape {
    let mut all = Vec::new();
    for item in node.as_seq().unwrap_or_default() {
        match item.as_str() {
            Some(word) => all.push(word.to_owned()),
            None => wrong(problems, &item.origin, "a word is a string"),
        }
    }
    if all.is_empty() {
        wrong(problems, &node.origin, "`one_of` needs a list of words");
    }
    Shape::OneOf(all)
}

fn fields(map: &Map, problems: &mut Problems) -> Shape {
    let mut all = BTreeMap::new();
    for (key, entry) in map {
        let name = key.strip_suffix('!');
        let field = Field {
            shape: shape(&entry.node, problems),
            is_required: name.is_some(),
        };
        let name = name.unwrap_or(key).to_owned();
        if all.insert(name, field).is_some() {
            let message = format!("the field `{key}` stands here twice");
            wrong(problems, &entry.key, &message);
        }
    }
    Shape::Fields(all)
}

/// A shape in one word.
fn written(text: &str, node: &Node, problems: &mut Problems) -> Shape {
    let within = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(inner) = within('[', ']') {
        return Shape::List(Box::new(written(inner, node, problems)));
    }
    if let Some(inner) = within('{', '}') {
        return Shape::Names(Box::new(written(inner, node, problems)));
    }
    if text == "any" {
        return Shape::Any;
    }
    if let Some(range) = text.strip_prefix("int")
        && let Some((least, most)) = bounds(range)
    {
        return Shape::Int(least, most);
    }
    if text.contains('|') {
        return Shape::OneOf(text.split('|').map(str::to_owned).collect());
    }
    if let Some(scalar) = Scalar::of(text) {
        return Shape::Scalar(scalar);
    }
    if is_type_name(text) {
        return Shape::Named(text.to_owned());
    }
    let told = Diagnostic::error(format!("`{text}` is no shape")).at(&node.origin);
    problems.push(told.did_you_mean(text, Scalar::words().chain(["any", "int"])));
    Shape::Any
}

/// What stands behind `int`: nothing, ` 1..`, or ` 1..65535`.
fn bounds(range: &str) -> Option<(i64, i64)> {
    if range.is_empty() {
        return Some((i64::MIN, i64::MAX));
    }
    let (least, most) = range.strip_prefix(' ')?.split_once("..")?;
    let most = match most {
        "" => i64::MAX,
        written => written.parse().ok()?,
    };
    let least = least.parse().ok()?;
    (least <= most).then_some((least, most))
}

/// Tells each type that a shape names and that is not there.
fn known(shape: &Shape, types: &BTreeMap<String, Shape>, at: &Origin, problems: &mut Problems) {
    match shape {
        Shape::List(inner) | Shape::Names(inner) => known(inner, types, at, problems),
        Shape::Fields(fields) => {
            for field in fields.values() {
                known(&field.shape, types, at, problems);
            }
        }
        Shape::Named(name) if !types.contains_key(name) => {
            let told = Diagnostic::error(format!("there is no type `{name}`")).at(at);
            problems.push(told.did_you_mean(name, types.keys().map(String::as_str)));
        }
        _ => {}
    }
}

/// Whether a chain of names comes to a shape.
fn ends(shape: &Shape, types: &BTreeMap<String, Shape>) -> bool {
    let mut shape = shape;
    for _ in 0..LONGEST_CHAIN {
        match shape {
            Shape::Named(name) => match types.get(name) {
                Some(next) => shape = next,
                // Told already.
                None => return true,
            },
            _ => return true,
        }
    }
    false
}

//! The engine's errors in our form: the place in the user's file, the name of
//! what is undefined, and what it could have been called. Values of variables
//! never come into a message.

use std::ops::Range;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::{Binding, Scope, env};
use crate::error::{Diagnostic, Origin, nearest};
use crate::value::{Node, Value as Written};

/// What an error of the template `text`, which stands at `origin`, means.
pub(super) fn explain(error: &Error, text: &str, origin: &Origin, scope: &Scope) -> Diagnostic {
    let range = error.range().filter(|range| range.end <= text.len());
    let detail = error.detail().unwrap_or_default();
    let named = detail
        .split_once("` is undefined")
        .and_then(|(before, _)| before.rsplit_once('`'))
        .map(|(_, name)| name);
    let place = match (named, range) {
        // The engine points at the whole statement; the name is nearer.
        (Some(name), Some(range)) => within(text, &range, name).unwrap_or(range),
        (None, Some(range)) => range,
        (Some(name), None) => within(text, &(0..text.len()), name).unwrap_or(0..text.len()),
        (None, None) => 0..text.len(),
    };
    let at = locate(origin, text, place);
    let diagnostic = match (error.kind(), named) {
        (ErrorKind::UndefinedError, Some(name)) => undefined(name, scope),
        (ErrorKind::UndefinedError, None) => Diagnostic::error("a value is undefined"),
        (ErrorKind::SyntaxError, _) => Diagnostic::error(format!("template syntax: {detail}")),
        (ErrorKind::UnknownFilter, _) => unknown("filter", detail, env::FILTERS),
        (ErrorKind::UnknownTest, _) => unknown("test", detail, &[]),
        (ErrorKind::UnknownFunction, _) => unknown_function(detail),
        (ErrorKind::OutOfFuel, _) => Diagnostic::error("the template does not come to an end"),
        (ErrorKind::TemplateNotFound, _) => {
            Diagnostic::error("templates cannot include or extend others yet")
        }
        (kind, _) if detail.is_empty() => Diagnostic::error(format!("{kind}")),
        (_, _) => Diagnostic::error(detail.to_owned()),
    };
    diagnostic.at(&at)
}

fn undefined(name: &str, scope: &Scope) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("`{name}` is undefined"));
    let Some((parent, field)) = name.rsplit_once('.') else {
        return diagnostic.did_you_mean(name, scope.names());
    };
    let known = fields(parent, scope);
    match nearest(field, known.iter().map(String::as_str)) {
        Some(near) => diagnostic.hint(format!("did you mean `{parent}.{near}`?")),
        None if known.is_empty() => diagnostic,
        None => diagnostic.hint(format!("`{parent}` has {}", list(&known))),
    }
}

/// The keys of a mapping that a dotted name leads to, as far as that can be told
/// without rendering.
fn fields(path: &str, scope: &Scope) -> Vec<String> {
    let mut parts = path.split('.');
    let Some(binding) = parts.next().and_then(|name| scope.get(name)) else {
        return Vec::new();
    };
    match binding {
        Binding::Written(node) => {
            let mut node: &Node = node;
            for part in parts {
                match node.as_map().and_then(|map| map.get(part)) {
                    Some(entry) => node = &entry.node,
                    None => return Vec::new(),
                }
            }
            match &node.value {
                Written::Map(map) => map.keys().cloned().collect(),
                _ => Vec::new(),
            }
        }
        Binding::Known(json) | Binding::Result { known: json, .. } => {
            let mut json = json;
            for part in parts {
                match json.get(part) {
                    Some(inner) => json = inner,
                    None => return Vec::new(),
                }
            }
            json.as_object()
                .map(|map| map.keys().cloned().collect())
                .unwrap_or_default()
        }
        Binding::Pending => Vec::new(),
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(8)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

/// Functions by which Ansible asks its plugins.
const PLUGINS: [&str; 3] = ["lookup", "query", "q"];

fn unknown_function(detail: &str) -> Diagnostic {
    let known = ["range", "dict"];
    let found = unknown("function", detail, &known);
    let name = unknown_name(detail);
    // A misspelt one would be no better off with the right name.
    let is_plugin = PLUGINS.contains(&name) || nearest(name, PLUGINS) == Some("lookup");
    if is_plugin && nearest(name, known).is_none() {
        let hint = "Ansible's `lookup` and its plugins are not available here: write the value into a variable, or give it by `-e`";
        return found.hint(hint);
    }
    found
}

/// What is unknown: the engine says `filter foo is unknown`, and of functions `foo is unknown`.
fn unknown_name(detail: &str) -> &str {
    let before = detail
        .split_once(" is unknown")
        .map_or(detail, |(before, _)| before);
    before.rsplit(' ').next().unwrap_or_default()
}

fn unknown(what: &str, detail: &str, known: &[&str]) -> Diagnostic {
    let name = unknown_name(detail);
    Diagnostic::error(format!("there is no {what} `{name}`"))
        .did_you_mean(name, known.iter().copied())
}

/// The place of `name` within `range` of `text`.
fn within(text: &str, range: &Range<usize>, name: &str) -> Option<Range<usize>> {
    let part = text.get(range.clone())?;
    let at = word(part, name)?;
    Some(range.start + at..range.start + at + name.len())
}

/// Where `name` stands as a word of its own.
pub(super) fn word(text: &str, name: &str) -> Option<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|c| part_of_name(c) || c == '.') && !after.is_some_and(part_of_name)
    })
}

/// Where `range` of a template stands in the user's file. The text of a YAML
/// scalar is not always what stands there (quotes, folding, indentation), so it is
/// looked for: as a whole first, then by its line, else the scalar is shown.
pub(super) fn locate(origin: &Origin, text: &str, range: Range<usize>) -> Origin {
    let written = &origin.source.text[origin.span.clone()];
    if let Some(at) = written.find(text) {
        let start = origin.span.start + at;
        return Origin::new(&origin.source, start + range.start..start + range.end);
    }
    let (Some(before), Some(part)) = (text.get(..range.start), text.get(range.clone())) else {
        return origin.clone();
    };
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let same: Vec<usize> = written
        .match_indices(line.trim())
        .map(|(at, _)| at)
        .collect();
    if let [at] = same[..]
        && !line.trim().is_empty()
        && let Some(offset) = written[at..].find(part)
    {
        let start = origin.span.start + at + offset;
        return Origin::new(&origin.source, start..start + part.len());
    }
    origin.clone()
}

/// What kind of value it is, in the words of an error message.
pub(super) fn kind_in_words(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => "nothing",
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a mapping",
        _ => "something else",
    }
}

//! Holds an object against the table of its kind.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::{Severity, nearest};
use crate::text;

use super::Kind;
use super::shape::{Field, Shape, is_int};

/// One step of the way to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Item(usize),
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The field; of one that is missing, the field itself.
    pub path: Vec<Part>,
    /// What is wrong, with the field's path in it.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Whether the object is not to be sent.
    pub severity: Severity,
}

/// The most findings of one object: those behind them repeat them.
const MOST: usize = 50;

/// Deeper than any object is, and than the way of a type into itself is followed.
const DEEPEST: usize = 64;

/// Most characters of a value in a message.
const LONGEST_VALUE: usize = 60;

/// All that is wrong with an object.
pub(super) fn object(kind: &Kind, object: &Json) -> Vec<Wrong> {
    let mut walk = Walk {
        kind,
        path: Vec::new(),
        found: Vec::new(),
    };
    match (&kind.shape, object) {
        (Shape::Fields(fields), Json::Object(_)) => {
            walk.fields(fields, object, &["apiVersion", "kind"]);
        }
        _ => walk.value(&kind.shape, object),
    }
    walk.found
}

/// A path as people write it: `spec.gpus[0].name`.
#[must_use]
pub fn spelled(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Item(number) => text += &format!("[{number}]"),
            Part::Key(key) if key.contains(['.', '/', '[']) => text += &format!("[\"{key}\"]"),
            Part::Key(key) if text.is_empty() => text += key,
            Part::Key(key) => text += &format!(".{key}"),
        }
    }
    text
}

struct Walk<'a> {
    kind: &'a Kind,
    path: Vec<Part>,
    found: Vec<Wrong>,
}

impl Walk<'_> {
    fn push(&mut self, message: String, hint: Option<String>, severity: Severity) {
        if self.found.len() < MOST {
            self.found.push(Wrong {
                path: self.path.clone(),
                message,
                hint,
                severity,
            });
        }
    }

    fn within(&mut self, part: Part, then: impl FnOnce(&mut Self)) {
        if self.path.len() < DEEPEST {
            self.path.push(part);
            then(self);
            self.path.pop();
        }
    }

    fn value(&mut self, shape: &Shape, value: &Json) {
        // The API takes null for a field that is not there.
        if value.is_null() {
            return;
        }
        match shape {
            Shape::Any => {}
            Shape::Named(name) => {
                if let Some(shape) = self.kind.types.get(name) {
                    self.value(shape, value);
                }
            }
            Shape::Scalar(scalar) if scalar.fits(value) => {}
            Shape::Scalar(scalar) => self.must_be(scalar.wanted(), value),
            Shape::Int(least, most) => match value.as_i64().or(value.as_u64().map(|_| i64::MAX)) {
                Some(number) if (*least..=*most).contains(&number) => {}
                _ => self.must_be(&counted(*least, *most), value),
            },
            Shape::OneOf(words) => self.word(words, value),
            Shape::List(inner) => match value.as_array() {
                Some(items) => {
                    for (number, item) in items.iter().enumerate() {
                        self.within(Part::Item(number), |walk| walk.value(inner, item));
                    }
                }
                None => self.must_be("a list", value),
            },
            Shape::Names(inner) => match value.as_object() {
                Some(map) => {
                    for (name, item) in map {
                        let part = Part::Key(name.clone());
                        self.within(part, |walk| walk.value(inner, item));
                    }
                }
                None => self.must_be("a mapping", value),
            },
            Shape::Fields(fields) => self.fields(fields, value, &[]),
        }
    }

    fn fields(&mut self, fields: &BTreeMap<String, Field>, value: &Json, besides: &[&str]) {
        let Some(map) = value.as_object() else {
            self.must_be("a mapping", value);
            return;
        };
        for (name, item) in map {
            let part = Part::Key(name.clone());
            match fields.get(name) {
                Some(field) => self.within(part, |walk| walk.value(&field.shape, item)),
                None if besides.contains(&name.as_str()) => {}
                None => self.within(part, |walk| walk.unknown(name, fields)),
            }
        }
        for (name, field) in fields {
            let is_there = map.get(name).is_some_and(|item| !item.is_null());
            if field.is_required && !is_there && !self.kind.is_partial {
                self.within(Part::Key(name.clone()), |walk| {
                    let message = format!("`{}` is missing", spelled(&walk.path));
                    walk.push(message, None, Severity::Error);
                });
            }
        }
    }

    fn unknown(&mut self, name: &str, fields: &BTreeMap<String, Field>) {
        let near = nearest(name, fields.keys().map(String::as_str));
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        let source = &self.kind.source;
        let message = format!("{source}: there is no field `{}`", spelled(&self.path));
        self.push(message, hint, self.kind.unknown);
    }

    fn word(&mut self, words: &[String], value: &Json) {
        let Some(text) = value.as_str() else {
            self.must_be("a string", value);
            return;
        };
        if words.iter().any(|word| word == text) {
            return;
        }
        let listed = words.iter().filter(|word| !word.is_empty());
        let listed = listed.map(String::as_str).collect::<Vec<_>>().join("`, `");
        let near = nearest(text, words.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`? It is one of `{listed}`"),
            None => format!("it is one of `{listed}`"),
        };
        let message = format!("`{}` cannot be {}", spelled(&self.path), shown(value));
        self.push(message, Some(hint), Severity::Error);
    }

    fn must_be(&mut self, wanted: &str, value: &Json) {
        let path = spelled(&self.path);
        let message = format!("`{path}` must be {wanted}, not {}", shown(value));
        self.push(message, None, Severity::Error);
    }
}

fn counted(least: i64, most: i64) -> String {
    match (least, most) {
        (i64::MIN, i64::MAX) => "a whole number".to_owned(),
        (least, i64::MAX) => format!("a whole number of at least {least}"),
        (least, most) => format!("a whole number from {least} to {most}"),
    }
}

/// A value in a message: what kind it is, and a scalar itself.
fn shown(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        Json::Bool(flag) => format!("`{flag}`"),
        Json::Number(number) if is_int(value) => format!("the number {number}"),
        Json::Number(number) => format!("the fraction {number}"),
        Json::String(written) => format!(
            "the string `{}`",
            text::printable_line(written, LONGEST_VALUE)
        ),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a mapping".to_owned(),
    }
}

//! Whether an object is one that its API server takes, found out without the server.
//!
//! `shape` knows what a field may hold, `load` reads the tables of fields (`vars/*_manifests.yml`)
//! and checks them, `check` holds an object against its table, `place` finds where the user wrote
//! what is wrong. Which objects are made, and of what, is not known here.

mod check;
mod load;
mod place;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::content::{Content, Folder};
use crate::error::{Diagnostic, Problems, Severity};
use crate::value::Node;

pub use check::{Part, Wrong, spelled};
use shape::Shape;

/// How the names of files with tables end; a project may replace the shipped ones.
const TABLES_FILE: &str = "_manifests.yml";

/// The tables of all kinds of objects.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    kinds: BTreeMap<String, Kind>,
}

/// The table of one kind.
#[derive(Debug, Clone)]
struct Kind {
    /// What it is.
    shape: Shape,
    /// The types that it names.
    types: Arc<BTreeMap<String, Shape>>,
    /// Whose facts these are.
    source: String,
    /// What an unknown field is.
    unknown: Severity,
    /// Whether only some of its fields are sent, so that none is missed.
    is_partial: bool,
}

impl Tables {
    /// Reads and checks all files with tables.
    ///
    /// # Errors
    /// Every finding in any of the files, with positions.
    pub fn load(content: &Content) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut tables = Self::default();
        for name in content.names(Folder::Vars) {
            if !name.ends_with(TABLES_FILE) {
                continue;
            }
            let Some(file) = content.vars_file(name) else {
                continue;
            };
            let (node, found) = crate::yaml::load(&file.path, &file.text);
            problems.extend(found);
            if let Some(node) = node {
                load::tables(&node, &mut tables.kinds, &mut problems);
            }
        }
        problems.or(tables)
    }

    /// Whether there is a table for the kind of an object.
    #[must_use]
    pub fn know(&self, object: &Json) -> bool {
        self.kinds.contains_key(&kind_of(object))
    }

    /// All that is wrong with an object. Of a kind without a table that alone.
    #[must_use]
    pub fn check(&self, object: &Json) -> Vec<Wrong> {
        let key = kind_of(object);
        match self.kinds.get(&key) {
            Some(kind) => check::object(kind, object),
            None => vec![Wrong {
                path: Vec::new(),
                message: format!("there is no table of the fields of `{key}`"),
                hint: None,
                severity: Severity::Error,
            }],
        }
    }

    /// Tells what is wrong with an object, each where it was written: `at` is what the object
    /// was made of.
    pub fn tell(&self, object: &Json, at: Option<&Node>, problems: &mut Problems) {
        for wrong in self.check(object) {
            let told = Diagnostic {
                severity: wrong.severity,
                ..Diagnostic::error(format!("{}: {}", label(object), wrong.message))
            };
            let told = match &wrong.hint {
                Some(hint) => told.hint(hint),
                None => told,
            };
            problems.push(match at {
                Some(node) => told.at(place::of(node, &wrong.path)),
                None => told,
            });
        }
    }
}

/// How messages call an object.
fn label(object: &Json) -> String {
    let kind = object["kind"].as_str().unwrap_or("an object");
    match object["metadata"]["name"].as_str() {
        Some(name) => format!("{kind} `{name}`"),
        None => kind.to_owned(),
    }
}

/// The name of an object's table: `apps/v1/DaemonSet`.
fn kind_of(object: &Json) -> String {
    let word = |key: &str| object[key].as_str().unwrap_or("?");
    format!("{}/{}", word("apiVersion"), word("kind"))
}

#[cfg(test)]
mod tests;

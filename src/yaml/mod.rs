//! YAML 1.1 as `PyYAML` reads it, with positions.
//!
//! Owns the way from a text to `value::Node`: scalars, merge keys, tags,
//! aliases, duplicate keys, and the wording of what is wrong. It knows nothing
//! of inventories or playbooks and reads no files. `emit` is the way back, in
//! `PyYAML`'s layout.

pub mod emit;
mod place;
mod scalar;
mod tree;
mod wording;

use std::path::Path;
use std::sync::Arc;

use crate::error::{Diagnostic, Origin, Source};
use crate::value::{Loaded, Node};

/// Longest text that is read, in bytes. Twenty thousand hosts are 2 MB.
pub const MAX_BYTES: usize = 32 << 20;

/// Deepest nesting of lists and mappings that is read.
pub const MAX_DEPTH: usize = 100;

/// Most nodes that aliases and merge keys of one text may copy: enough for 20,000
/// hosts that merge the same 50 defaults, and an end to "billion laughs" texts.
pub const MAX_COPIED_NODES: usize = 1_000_000;

/// Reads one document. Nothing is returned for an empty text and for one with
/// an error; the problems tell which.
#[must_use]
pub fn load(path: &Path, text: &str) -> Loaded<Option<Node>> {
    // A byte order mark is no part of the text, neither for positions nor for snippets.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        let problem = Diagnostic::error(format!(
            "{} is too large: {} bytes, and at most {MAX_BYTES} are read",
            path.display(),
            text.len()
        ));
        return (None, problem.into());
    }
    let source = Arc::new(Source {
        path: path.to_path_buf(),
        text: text.to_owned(),
    });
    load_source(&source)
}

/// Reads one document of a text that is already shared.
#[must_use]
pub fn load_source(source: &Arc<Source>) -> Loaded<Option<Node>> {
    // The scanner takes it for the end of the text.
    if let Some(at) = source.text.find('\0') {
        let problem = Diagnostic::error("this is a NUL character, which no text of YAML can have")
            .at(&Origin::new(source, at..at + 1))
            .hint("in double quotes `\\0` stands for it; a file full of them was damaged, or is in UTF-16");
        return (None, problem.into());
    }
    let rules = if is_json(&source.text) {
        scalar::Rules::Json
    } else {
        scalar::Rules::Yaml
    };
    let (node, problems) = tree::read(source, rules);
    if problems.has_errors() {
        return (None, problems);
    }
    (node, problems)
}

/// Whether the key that stands at `key` was written as a text: `1:` and `yes:`
/// were not, `"1":` and `web1:` were.
#[must_use]
pub fn key_is_text(key: &Origin) -> bool {
    let written = key.source.text.get(key.span.clone()).unwrap_or_default();
    written.starts_with(['"', '\'']) || matches!(scalar::resolve(written), scalar::Scalar::Str)
}

// Ansible tries JSON first and YAML after it; the two differ in numbers such as `1e3`.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

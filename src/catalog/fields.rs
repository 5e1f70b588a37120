//! Typed reading of one mapping, key by key, collecting every finding.
//!
//! Owns the wording of "missing", "wrong kind" and "unknown key" for models files; knows
//! nothing of models.

use std::ops::RangeInclusive;

use crate::error::{Diagnostic, Problems};
use crate::value::{Map, Node, Value};

/// A mapping that is being read.
pub(super) struct Fields<'a, 'p> {
    what: &'a str,
    node: &'a Node,
    map: &'a Map,
    problems: &'p mut Problems,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// The mapping `node`, called `what` in messages; a finding if it is none.
    pub(super) fn of(node: &'a Node, what: &'a str, problems: &'p mut Problems) -> Option<Self> {
        let Some(map) = node.as_map() else {
            let message = format!("{what} is a mapping, this is {}", node.kind());
            problems.push(Diagnostic::error(message).at(&node.origin));
            return None;
        };
        Some(Self {
            what,
            node,
            map,
            problems,
        })
    }

    /// Reports every key that is not `known`.
    pub(super) fn finish(self, known: &[&str]) {
        for (key, entry) in self.map {
            if !known.contains(&key.as_str()) {
                self.problems.push(
                    Diagnostic::error(format!("unknown key `{key}` in {}", self.what))
                        .at(&entry.key)
                        .did_you_mean(key, known.iter().copied()),
                );
            }
        }
    }

    pub(super) fn optional_node(&mut self, key: &str) -> Option<&'a Node> {
        self.map
            .get(key)
            .map(|entry| &entry.node)
            .filter(|node| node.value != Value::Null)
    }

    pub(super) fn required_node(&mut self, key: &str) -> Option<&'a Node> {
        let found = self.optional_node(key);
        if found.is_none() {
            let message = format!("{} needs `{key}`", self.what);
            self.problems
                .push(Diagnostic::error(message).at(&self.node.origin));
        }
        found
    }

    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        let node = self.optional_node(key)?;
        self.text(key, node)
    }

    pub(super) fn required_text(&mut self, key: &str) -> Option<String> {
        let node = self.required_node(key)?;
        self.text(key, node)
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let nodes = self.optional_list(key);
        nodes
            .iter()
            .filter_map(|node| self.text(key, node))
            .collect()
    }

    pub(super) fn optional_number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.optional_node(key)?;
        self.number(key, node, &range)
    }

    pub(super) fn required_number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.required_node(key)?;
        self.number(key, node, &range)
    }

    pub(super) fn numbers(&mut self, key: &str, range: RangeInclusive<u64>) -> Vec<u32> {
        let nodes = self.optional_list(key);
        nodes
            .iter()
            .filter_map(|node| self.number(key, node, &range))
            .filter_map(|number| u32::try_from(number).ok())
            .collect()
    }

    pub(super) fn optional_list(&mut self, key: &str) -> &'a [Node] {
        match self.optional_node(key) {
            Some(node) => self.list(key, node),
            None => &[],
        }
    }

    /// A list with at least one entry.
    pub(super) fn required_list(&mut self, key: &str) -> &'a [Node] {
        let Some(node) = self.required_node(key) else {
            return &[];
        };
        if node.as_seq().is_some_and(<[Node]>::is_empty) {
            let message = format!("`{key}` must not be empty");
            self.problems
                .push(Diagnostic::error(message).at(&node.origin));
        }
        self.list(key, node)
    }

    pub(super) fn required_map(&mut self, key: &str) -> Option<&'a Map> {
        let node = self.required_node(key)?;
        let map = node.as_map();
        if map.is_none() {
            self.wrong_kind(key, node, "a mapping");
        }
        map
    }

    pub(super) fn optional_word<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Option<T>,
        known: &[&str],
    ) -> Option<T> {
        let node = self.optional_node(key)?;
        self.word(key, node, read, known)
    }

    pub(super) fn required_word<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Option<T>,
        known: &[&str],
    ) -> Option<T> {
        let node = self.required_node(key)?;
        self.word(key, node, read, known)
    }

    fn word<T>(
        &mut self,
        key: &str,
        node: &Node,
        read: impl Fn(&str) -> Option<T>,
        known: &[&str],
    ) -> Option<T> {
        let text = self.text(key, node)?;
        let found = read(&text);
        if found.is_none() {
            self.problems.push(
                Diagnostic::error(format!(
                    "`{key}` is `{text}`, but must be one of {}",
                    known.join(", ")
                ))
                .at(&node.origin)
                .did_you_mean(&text, known.iter().copied()),
            );
        }
        found
    }

    fn list(&mut self, key: &str, node: &'a Node) -> &'a [Node] {
        node.as_seq().unwrap_or_else(|| {
            self.wrong_kind(key, node, "a list");
            &[]
        })
    }

    fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match node.as_str() {
            Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
            Some(_) => {
                let message = format!("`{key}` must not be empty");
                self.problems
                    .push(Diagnostic::error(message).at(&node.origin));
                None
            }
            None => {
                self.wrong_kind(key, node, "a string");
                None
            }
        }
    }

    fn number(&mut self, key: &str, node: &Node, range: &RangeInclusive<u64>) -> Option<u64> {
        let Value::Int(number) = node.value else {
            self.wrong_kind(key, node, "an integer");
            return None;
        };
        let found = u64::try_from(number).ok().filter(|n| range.contains(n));
        if found.is_none() {
            let (least, most) = (range.start(), range.end());
            let message = format!("`{key}` is {number}, but must lie between {least} and {most}");
            self.problems
                .push(Diagnostic::error(message).at(&node.origin));
        }
        found
    }

    fn wrong_kind(&mut self, key: &str, node: &Node, wanted: &str) {
        let message = format!("`{key}` must be {wanted}, this is {}", node.kind());
        self.problems
            .push(Diagnostic::error(message).at(&node.origin));
    }
}

//! A value that a user wrote, with the place it came from.
//!
//! Inventory variables, playbooks and catalog files are all trees of `Node`.
//! `yaml` makes them; everybody reads them. Keys keep their order and their own
//! origins, so that an unknown key can be pointed at.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Origin, Problems};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// A value as Ansible (YAML 1.1 through `PyYAML`) would see it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// An integer, also from octal, hexadecimal, binary and sexagesimal forms.
    Int(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// A text.
    Str(String),
    /// A text with a tag that must not be treated as a plain one (`!vault`, `!unsafe`).
    Tagged(Tag, String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping; keys are texts (other scalars are written out as `PyYAML` would print them).
    Map(Map),
}

/// The tags that Ansible gives a meaning to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `!vault`: an encrypted text.
    Vault,
    /// `!unsafe`: a text that is never rendered as a template.
    Unsafe,
}

/// A mapping in written order; each entry knows where its key stands.
pub type Map = IndexMap<String, Entry>;

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key was written.
    pub key: Origin,
    /// What stands behind it.
    pub node: Node,
}

/// The variables of a host after merging; each node's origin tells which file won.
pub type Vars = IndexMap<String, Node>;

impl Node {
    /// A node made of a value.
    #[must_use]
    pub fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// The text, if it is a plain one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The mapping, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// What kind of value it is, in the words of an error message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Tagged(Tag::Vault, _) => "an encrypted string",
            Value::Tagged(Tag::Unsafe, _) => "an unsafe string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The value as JSON, positions left out. Tagged texts take the form that
    /// `ansible-inventory --list` gives them.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value as Json, json};
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => json!(value),
            Value::Int(value) => json!(value),
            Value::Float(value) => json!(value),
            Value::Str(text) => json!(text),
            Value::Tagged(Tag::Vault, text) => json!({ "__ansible_vault": text }),
            Value::Tagged(Tag::Unsafe, text) => json!({ "__ansible_unsafe": text }),
            Value::Seq(nodes) => Json::Array(nodes.iter().map(Node::to_json).collect()),
            Value::Map(map) => Json::Object(
                map.iter()
                    .map(|(key, entry)| (key.clone(), entry.node.to_json()))
                    .collect(),
            ),
        }
    }

    /// A tree from JSON in which every node has the same origin; for values that
    /// were computed (facts, results, rendered expressions).
    #[must_use]
    pub fn from_json(json: &serde_json::Value, origin: &Origin) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => number
                .as_i64()
                .map(Value::Int)
                .or_else(|| number.as_f64().map(Value::Float))
                .unwrap_or(Value::Null),
            Json::String(text) => Value::Str(text.clone()),
            Json::Array(items) => Value::Seq(
                items
                    .iter()
                    .map(|item| Self::from_json(item, origin))
                    .collect(),
            ),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, item)| {
                        let entry = Entry {
                            key: origin.clone(),
                            node: Self::from_json(item, origin),
                        };
                        (key.clone(), entry)
                    })
                    .collect(),
            ),
        };
        Self::new(value, origin.clone())
    }
}

/// What a loader gives back: as much as could be read, and all that was found.
pub type Loaded<T> = (T, Problems);

/// An inventory name of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(pub Arc<str>);

impl HostName {
    /// The name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for HostName {
    fn from(name: T) -> Self {
        Self(Arc::from(name.as_ref()))
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

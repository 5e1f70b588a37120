//! Reading one mapping of a user's variables, key by key.
//!
//! A `Block` remembers which keys were asked for, so that those nobody asked
//! for are reported with the nearest right name. It collects findings and never
//! stops at the first. It does not know what the keys mean.

use crate::error::{Diagnostic, Origin, Problems};
use crate::facts::PciAddress;
use crate::secret::Secret;
use crate::value::{Map, Node, Value};

use super::DeviceRef;

/// A value and where it was written; nowhere for a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands; absent for a default.
    pub origin: Option<Origin>,
}

impl<T> Located<T> {
    /// A value that nobody wrote.
    #[must_use]
    pub fn default_of(value: T) -> Self {
        Self {
            value,
            origin: None,
        }
    }

    /// A value where it stands.
    #[must_use]
    pub fn written(value: T, node: &Node) -> Self {
        Self {
            value,
            origin: Some(node.origin.clone()),
        }
    }

    /// Whether the user wrote it.
    pub fn is_written(&self) -> bool {
        self.origin.is_some()
    }

    /// The finding, at the place where the value was written.
    pub fn blame(&self, diagnostic: Diagnostic) -> Diagnostic {
        match &self.origin {
            Some(origin) => diagnostic.at(origin),
            None => diagnostic,
        }
    }
}

/// One mapping, its name in messages, and the keys that were asked for.
#[derive(Debug)]
pub struct Block<'v, 'p> {
    path: String,
    map: Option<&'v Map>,
    /// Where the mapping itself stands.
    pub origin: Option<Origin>,
    known: Vec<&'static str>,
    /// Where findings go.
    pub problems: &'p mut Problems,
}

impl<'v, 'p> Block<'v, 'p> {
    /// The mapping `node`, called `path` in messages. No node, or an empty one, is an empty mapping.
    pub fn new(path: &str, node: Option<&'v Node>, problems: &'p mut Problems) -> Self {
        let mut map = None;
        match node.map(|node| (&node.value, node)) {
            Some((Value::Map(found), _)) => map = Some(found),
            None | Some((Value::Null, _)) => {}
            Some((_, node)) => problems.push(wrong_kind(path, "a mapping", node)),
        }
        Self {
            path: path.to_owned(),
            map,
            origin: node.map(|node| node.origin.clone()),
            known: Vec::new(),
            problems,
        }
    }

    /// The name of a key in messages.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The node behind `key`; an explicit `null` counts as not written.
    pub fn node(&mut self, key: &'static str) -> Option<&'v Node> {
        self.known.push(key);
        let node = &self.map?.get(key)?.node;
        (node.value != Value::Null).then_some(node)
    }

    /// The mapping behind `key`.
    pub fn child(&mut self, key: &'static str) -> Block<'v, '_> {
        let node = self.node(key);
        let path = self.path_of(key);
        Block::new(&path, node, self.problems)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        default: T,
        read: impl FnOnce(&Node) -> Option<T>,
    ) -> Located<T> {
        let Some(node) = self.node(key) else {
            return Located::default_of(default);
        };
        match read(node) {
            Some(value) => Located::written(value, node),
            None => {
                let path = self.path_of(key);
                self.problems.push(wrong_kind(&path, wanted, node));
                Located::written(default, node)
            }
        }
    }

    /// A boolean; the words that Ansible takes for one are taken too, because
    /// `-e key=value` and templates give strings.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Located<bool> {
        self.read(key, "`true` or `false`", default, as_flag)
    }

    /// A boolean that has no default.
    pub fn flag_if_written(&mut self, key: &'static str) -> Option<Located<bool>> {
        self.node(key)?;
        Some(self.flag(key, false))
    }

    /// A whole number that has no default.
    pub fn count_if_written(
        &mut self,
        key: &'static str,
        least: u32,
        most: u32,
    ) -> Option<Located<u32>> {
        self.node(key)?;
        Some(self.count(key, least, least, most))
    }

    /// A text that must not be seen; an empty one is none.
    pub fn secret(&mut self, key: &'static str) -> Option<Located<Secret>> {
        let node = self.node(key)?;
        match node.as_str() {
            Some("") => None,
            Some(text) => Some(Located::written(Secret::new(text), node)),
            None => {
                // The value itself must not stand in a message.
                let path = self.path_of(key);
                let wrong = format!("`{path}` must be a string, not {}", node.kind());
                self.problems
                    .push(Diagnostic::error(wrong).at(&node.origin));
                None
            }
        }
    }

    /// A whole number within `least..=most`.
    pub fn count(
        &mut self,
        key: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> Located<u32> {
        let wanted = format!("a whole number from {least} to {most}");
        self.read(key, &wanted, default, |node| {
            as_count(node).filter(|count| (least..=most).contains(count))
        })
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, default: &str) -> Located<String> {
        self.read(key, "a string", default.to_owned(), |node| {
            node.as_str().map(str::to_owned)
        })
    }

    /// One word of a closed list.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> Located<T> {
        let Some(node) = self.node(key) else {
            return Located::default_of(default);
        };
        let names = || words.iter().map(|(name, _)| *name);
        let found = node
            .as_str()
            .and_then(|text| words.iter().find(|(name, _)| *name == text));
        if let Some((_, value)) = found {
            return Located::written(*value, node);
        }
        let path = self.path_of(key);
        let listed = names().collect::<Vec<_>>().join("`, `");
        let diagnostic = match node.as_str() {
            Some(text) => Diagnostic::error(format!("`{path}` has no value `{text}`"))
                .at(&node.origin)
                .hint(match crate::error::nearest(text, names()) {
                    Some(name) => format!("did you mean `{name}`? It is one of `{listed}`"),
                    None => format!("it is one of `{listed}`"),
                }),
            None => wrong_kind(&path, &format!("one of `{listed}`"), node),
        };
        self.problems.push(diagnostic);
        Located::written(default, node)
    }

    /// A list of texts, each with its place.
    pub fn texts(&mut self, key: &'static str) -> Located<Vec<Located<String>>> {
        let Some(node) = self.node(key) else {
            return Located::default_of(Vec::new());
        };
        let path = self.path_of(key);
        let mut texts = Vec::new();
        match node.as_seq() {
            Some(items) => {
                for item in items {
                    match item.as_str() {
                        Some(text) => texts.push(Located::written(text.to_owned(), item)),
                        None => {
                            let each = format!("each entry of `{path}`");
                            self.problems.push(wrong_kind(&each, "a string", item));
                        }
                    }
                }
            }
            None => self
                .problems
                .push(wrong_kind(&path, "a list of strings", node)),
        }
        Located::written(texts, node)
    }

    /// A list of cards: PCI addresses, UUIDs or indexes.
    pub fn devices(&mut self, key: &'static str) -> Located<Vec<Located<DeviceRef>>> {
        let Some(node) = self.node(key) else {
            return Located::default_of(Vec::new());
        };
        let path = self.path_of(key);
        let mut devices = Vec::new();
        match node.as_seq() {
            Some(items) => {
                for item in items {
                    match as_device(item) {
                        Some(device) => devices.push(Located::written(device, item)),
                        None => {
                            let each = format!("each entry of `{path}`");
                            self.problems.push(wrong_kind(&each, DEVICE_FORMS, item));
                        }
                    }
                }
            }
            None => self.problems.push(wrong_kind(&path, "a list", node)),
        }
        Located::written(devices, node)
    }

    /// One card; an empty text is none.
    pub fn device(&mut self, key: &'static str) -> Option<Located<DeviceRef>> {
        let node = self.node(key)?;
        if node.as_str() == Some("") {
            return None;
        }
        let device = as_device(node);
        if device.is_none() {
            let path = self.path_of(key);
            self.problems.push(wrong_kind(&path, DEVICE_FORMS, node));
        }
        device.map(|device| Located::written(device, node))
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let Some(map) = self.map else { return };
        for (key, entry) in map {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let unknown = if self.path.is_empty() {
                Diagnostic::error(format!("unknown key `{key}`"))
            } else {
                Diagnostic::error(format!("unknown key `{key}` in `{}`", self.path))
            };
            let listed = || format!("known keys: `{}`", self.known.join("`, `"));
            let hint = match crate::error::nearest(key, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => listed(),
            };
            self.problems.push(unknown.at(&entry.key).hint(hint));
        }
    }
}

const DEVICE_FORMS: &str =
    "a PCI address such as `0000:17:00.0`, a UUID such as `GPU-…` or an index";

/// What is wrong with a value of another kind than wanted.
pub(super) fn wrong_kind(path: &str, wanted: &str, node: &Node) -> Diagnostic {
    let found = match &node.value {
        Value::Str(text) => format!("`{text}`"),
        Value::Int(value) => format!("`{value}`"),
        Value::Float(value) => format!("`{value}`"),
        Value::Bool(value) => format!("`{value}`"),
        _ => node.kind().to_owned(),
    };
    let path = match path {
        "" => "this file".to_owned(),
        path if path.contains('`') => path.to_owned(),
        path => format!("`{path}`"),
    };
    Diagnostic::error(format!("{path} must be {wanted}, not {found}")).at(&node.origin)
}

fn as_flag(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Bool(value) => Some(*value),
        Value::Str(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number that is not negative, also from a text of digits.
pub(super) fn as_count(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Int(value) => u32::try_from(*value).ok(),
        Value::Str(text) => text.parse().ok(),
        _ => None,
    }
}

fn as_device(node: &Node) -> Option<DeviceRef> {
    if let Some(index) = as_count(node) {
        return Some(DeviceRef::Index(index));
    }
    let text = node.as_str()?;
    if text.starts_with("GPU-") {
        return Some(DeviceRef::Uuid(text.to_owned()));
    }
    text.parse::<PciAddress>().ok().map(DeviceRef::Pci)
}

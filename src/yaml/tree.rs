//! From parser events to one tree of nodes.
//!
//! Does what `PyYAML`'s composer and constructor do: anchors and aliases, merge
//! keys, tags, keys that are no texts. The parser is pulled, never called
//! recursively, so that a text can be no deeper than `MAX_DEPTH`.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag as ParsedTag};

use super::place::Places;
use super::scalar::{self, Rules, Scalar};
use super::{MAX_COPIED_NODES, MAX_DEPTH, wording};
use crate::error::{Diagnostic, Origin, Problems, Source};
use crate::value::{Entry, Loaded, Map, Node, Tag, Value};

/// The one document of `source`, and all that is wrong with it.
pub(super) fn read(source: &Arc<Source>, rules: Rules) -> Loaded<Option<Node>> {
    let mut builder = Builder {
        places: Places::new(source),
        rules,
        open: Vec::new(),
        anchors: HashMap::new(),
        copied: 0,
        documents: 0,
        root: None,
        problems: Problems::default(),
    };
    let mut parser = Parser::new_from_str(&source.text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if builder.event(event, span).is_err() {
                    break;
                }
            }
            Err(error) => {
                let at = builder.places.point(*error.marker());
                builder.problems.push(wording::syntax(error.info(), &at));
                break;
            }
        }
    }
    (builder.root, builder.problems)
}

/// The text cannot be read any further; why is among the problems.
struct Stop;

struct Builder {
    places: Places,
    rules: Rules,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    documents: usize,
    root: Option<Node>,
    problems: Problems,
}

/// A list or mapping that is not yet closed.
struct Open {
    start: Span,
    anchor: usize,
    tag: Meaning,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map {
        map: Map,
        // Mappings of merge keys, the weakest first.
        merged: Vec<Map>,
        key: Option<Key>,
    },
}

enum Key {
    Text(String, Origin),
    Merge(Origin),
    // Something that can be no key; said already.
    Bad,
}

/// A finished node, or what can only be a key.
enum Built {
    Node(Node),
    Merge(Origin),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    // No tag, or `!`: plain scalars are resolved.
    Open,
    // A tag that is not known, said already: a text, whatever it looks like.
    Text,
    Unsafe,
    Vault,
    Core(Core),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    Str,
    Int,
    Float,
    Bool,
    Null,
    Timestamp,
    Seq,
    Map,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let at = self.places.point(span.start);
                    let problem =
                        Diagnostic::error("a second document begins here, and one is expected")
                            .at(&at);
                    self.problems
                        .push(problem.hint("put each document into a file of its own"));
                    return Err(Stop);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let origin = self.places.origin(span);
                let tag = self.meaning(tag.as_deref(), &origin);
                let built = self.scalar(&text, style, tag, origin);
                self.attach(built, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Content::Seq(Vec::new()), anchor, tag.as_deref(), span)?;
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map {
                    map: Map::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(content, anchor, tag.as_deref(), span)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            Event::Alias(id) => {
                let node = self.alias(id, span)?;
                self.attach(Built::Node(node), 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<&ParsedTag>,
        start: Span,
    ) -> Result<(), Stop> {
        let at = self.places.point(start.start);
        if self.open.len() >= MAX_DEPTH {
            self.too_deep(&at);
            return Err(Stop);
        }
        let tag = self.meaning(tag, &at);
        self.open.push(Open {
            start,
            anchor,
            tag,
            content,
        });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let mut origin = self.places.origin(Span::new(open.start.start, end.end));
        // The end of a block is only seen on the line after it.
        let written = &origin.source.text[origin.span.clone()];
        origin.span.end = origin.span.start + written.trim_end().len();
        let value = match open.content {
            Content::Seq(nodes) => Value::Seq(nodes),
            Content::Map { map, merged, .. } => Value::Map(merge(merged, map)),
        };
        let mut node = Node::new(value, origin);
        self.check_collection_tag(open.tag, &mut node);
        self.attach(Built::Node(node), open.anchor)
    }

    fn check_collection_tag(&mut self, tag: Meaning, node: &mut Node) {
        let fits = match tag {
            Meaning::Open | Meaning::Text => true,
            Meaning::Unsafe => {
                make_unsafe(node);
                true
            }
            Meaning::Core(core) => match node.value {
                Value::Seq(_) => core == Core::Seq,
                _ => core == Core::Map,
            },
            Meaning::Vault => false,
        };
        if !fits {
            let problem = Diagnostic::error(format!("{} cannot have this tag", node.kind()));
            self.problems.push(problem.at(&node.origin));
        }
    }

    fn meaning(&mut self, tag: Option<&ParsedTag>, at: &Origin) -> Meaning {
        let Some(tag) = tag else {
            return Meaning::Open;
        };
        let name = format!("{}{}", tag.handle, tag.suffix);
        let core = match name.strip_prefix("tag:yaml.org,2002:") {
            None => match name.as_str() {
                "!" => return Meaning::Open,
                "!unsafe" => return Meaning::Unsafe,
                "!vault" | "!vault-encrypted" => return Meaning::Vault,
                _ => None,
            },
            Some("str" | "python/unicode") => Some(Core::Str),
            Some("int") => Some(Core::Int),
            Some("float") => Some(Core::Float),
            Some("bool") => Some(Core::Bool),
            Some("null") => Some(Core::Null),
            Some("timestamp") => Some(Core::Timestamp),
            Some("seq") => Some(Core::Seq),
            Some("map" | "python/dict") => Some(Core::Map),
            Some(_) => None,
        };
        if let Some(core) = core {
            return Meaning::Core(core);
        }
        let shown = name.replace("tag:yaml.org,2002:", "!!");
        let problem = Diagnostic::error(format!("the tag `{shown}` is not known")).at(at);
        self.problems.push(problem.did_you_mean(
            &shown,
            ["!vault", "!unsafe", "!!str", "!!int", "!!float", "!!bool"],
        ));
        Meaning::Text
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Meaning, origin: Origin) -> Built {
        let plain = style == ScalarStyle::Plain;
        let value = match tag {
            Meaning::Open if plain => match scalar::resolve_by(self.rules, text) {
                Scalar::Merge => return Built::Merge(origin),
                found => self.resolved(found, text, &origin),
            },
            Meaning::Open | Meaning::Text | Meaning::Core(Core::Str) => {
                Value::Str(without_made_up_newline(text, style, &origin).to_owned())
            }
            // Ansible resolves what stands behind these two tags even if it is quoted.
            Meaning::Unsafe => match scalar::resolve_by(self.rules, text) {
                Scalar::Str | Scalar::Merge => Value::Tagged(Tag::Unsafe, text.to_owned()),
                found => self.resolved(found, text, &origin),
            },
            Meaning::Vault => {
                let text = without_made_up_newline(text, style, &origin);
                Value::Tagged(Tag::Vault, text.to_owned())
            }
            Meaning::Core(core) => self.forced(core, text, &origin),
        };
        Built::Node(Node::new(value, origin))
    }

    fn resolved(&mut self, found: Scalar, text: &str, origin: &Origin) -> Value {
        match found {
            Scalar::Value(value) => value,
            Scalar::Str | Scalar::Merge => Value::Str(text.to_owned()),
            Scalar::Time(time) => Value::Str(time),
            Scalar::Huge(digits) => {
                let problem = Diagnostic::warning(format!(
                    "`{text}` is too large for an integer and is taken as a string"
                ));
                self.problems.push(problem.at(origin).hint("quote it"));
                Value::Str(digits)
            }
            Scalar::NoTime => {
                let problem = Diagnostic::error(format!("`{text}` looks like a date and is none"));
                self.problems.push(
                    problem
                        .at(origin)
                        .hint("quote it if it is meant as a string"),
                );
                Value::Str(text.to_owned())
            }
        }
    }

    fn forced(&mut self, core: Core, text: &str, origin: &Origin) -> Value {
        let found = scalar::resolve(text);
        match (core, found) {
            (Core::Int, Scalar::Value(value @ Value::Int(_)))
            | (Core::Float, Scalar::Value(value @ Value::Float(_)))
            | (Core::Bool, Scalar::Value(value @ Value::Bool(_)))
            | (Core::Null, Scalar::Value(value @ Value::Null)) => value,
            #[expect(clippy::cast_precision_loss, reason = "as Python's float() does")]
            (Core::Float, Scalar::Value(Value::Int(number))) => Value::Float(number as f64),
            (Core::Timestamp, Scalar::Time(time)) => Value::Str(time),
            (Core::Null, _) => Value::Null,
            (core, _) => {
                let wanted = match core {
                    Core::Int => "an integer",
                    Core::Float => "a number",
                    Core::Bool => "a boolean",
                    Core::Timestamp => "a date",
                    Core::Seq => "a list",
                    Core::Map => "a mapping",
                    Core::Str | Core::Null => "a string",
                };
                let problem =
                    Diagnostic::error(format!("`{text}` is not {wanted}, as its tag says"));
                self.problems.push(problem.at(origin));
                Value::Null
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Stop> {
        let at = self.places.origin(span);
        let Some(node) = self.anchors.get(&id) else {
            let problem = Diagnostic::error("an alias cannot refer to what it stands in");
            self.problems.push(problem.at(&at));
            return Err(Stop);
        };
        let (count, depth) = extent(node);
        if self.open.len() + depth > MAX_DEPTH {
            self.too_deep(&at);
            return Err(Stop);
        }
        let node = node.clone();
        self.copy(count, &at)?;
        Ok(node)
    }

    fn copy(&mut self, count: usize, at: &Origin) -> Result<(), Stop> {
        self.copied += count;
        if self.copied <= MAX_COPIED_NODES {
            return Ok(());
        }
        let problem = Diagnostic::error(format!(
            "the aliases of this file expand to more than {MAX_COPIED_NODES} values"
        ));
        self.problems.push(problem.at(at));
        Err(Stop)
    }

    fn too_deep(&mut self, at: &Origin) {
        let problem = Diagnostic::error(format!(
            "lists and mappings are nested more than {MAX_DEPTH} deep"
        ));
        self.problems.push(problem.at(at));
    }

    fn attach(&mut self, built: Built, anchor: usize) -> Result<(), Stop> {
        if anchor > 0
            && let Built::Node(node) = &built
        {
            let (count, _) = extent(node);
            let (node, at) = (node.clone(), node.origin.clone());
            // A scalar's second copy is no way to a bomb, a collection's is.
            self.copy(count - 1, &at)?;
            self.anchors.insert(anchor, node);
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node_of(built));
            return Ok(());
        };
        match &mut open.content {
            Content::Seq(nodes) => nodes.push(node_of(built)),
            Content::Map { map, merged, key } => match key.take() {
                None => {
                    let (made, problem) = key_of(built);
                    *key = Some(made);
                    self.problems.0.extend(problem);
                }
                Some(Key::Text(text, at)) => {
                    let problem = insert(map, text, at, node_of(built));
                    self.problems.0.extend(problem);
                }
                Some(Key::Merge(at)) => match mergeable(node_of(built)) {
                    Ok(maps) => merged.extend(maps),
                    Err(kind) => {
                        let problem = Diagnostic::error(format!(
                            "`<<` merges a mapping or a list of mappings, and this is {kind}"
                        ));
                        self.problems.push(problem.at(&at));
                    }
                },
                Some(Key::Bad) => {}
            },
        }
        Ok(())
    }
}

// The parser ends a block scalar with a newline even where the text ends
// without one; libyaml does not.
fn without_made_up_newline<'a>(text: &'a str, style: ScalarStyle, origin: &Origin) -> &'a str {
    let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
    let whole = &origin.source.text;
    let last_line = whole.rsplit('\n').next().unwrap_or_default();
    if block && !last_line.trim().is_empty() && whole[origin.span.end..].trim().is_empty() {
        return text.strip_suffix('\n').unwrap_or(text);
    }
    text
}

fn node_of(built: Built) -> Node {
    match built {
        Built::Node(node) => node,
        Built::Merge(origin) => Node::new(Value::Str("<<".to_owned()), origin),
    }
}

fn key_of(built: Built) -> (Key, Option<Diagnostic>) {
    let node = match built {
        Built::Merge(origin) => return (Key::Merge(origin), None),
        Built::Node(node) => node,
    };
    let text = match node.value {
        Value::Str(text) | Value::Tagged(Tag::Unsafe, text) => text,
        // As JSON, and so `ansible-inventory`, writes keys that are no texts.
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => super::emit::python_float(value),
        Value::Tagged(Tag::Vault, _) => {
            let problem = Diagnostic::error("an encrypted string cannot be a key").at(&node.origin);
            return (Key::Bad, Some(problem));
        }
        Value::Seq(_) | Value::Map(_) => return (Key::Bad, Some(bad_key(&node))),
    };
    (Key::Text(text, node.origin), None)
}

fn bad_key(node: &Node) -> Diagnostic {
    let Origin { source, span, .. } = &node.origin;
    let (before, written) = source.text.split_at(span.start);
    // `{{ x }}` is a mapping whose key is a mapping; the user means the outer one.
    if before.ends_with('{') && written.starts_with('{') {
        let at = Origin::new(source, span.start - 1..span.end);
        return Diagnostic::error("a template is no value by itself, and this reads as a mapping")
            .at(&at)
            .hint("a value that begins with `{{` must be quoted: \"{{ … }}\"");
    }
    Diagnostic::error(format!("{} cannot be a key", node.kind())).at(&node.origin)
}

fn insert(map: &mut Map, text: String, at: Origin, node: Node) -> Option<Diagnostic> {
    let problem = map.get(&text).map(|first| {
        Diagnostic::warning(format!(
            "the key `{text}` is written twice, and the last one counts"
        ))
        .at(&at)
        .related(&first.key, "first written here")
    });
    map.insert(text, Entry { key: at, node });
    problem
}

// The mappings behind a merge key, the weakest first: in a list the first wins.
fn mergeable(node: Node) -> Result<Vec<Map>, &'static str> {
    match node.value {
        Value::Map(map) => Ok(vec![map]),
        Value::Seq(nodes) => {
            let mut maps = Vec::new();
            for node in nodes.into_iter().rev() {
                match node.value {
                    Value::Map(map) => maps.push(map),
                    _ => return Err("a list with something else in it"),
                }
            }
            Ok(maps)
        }
        _ => Err(node.kind()),
    }
}

fn merge(merged: Vec<Map>, own: Map) -> Map {
    if merged.is_empty() {
        return own;
    }
    let mut all = Map::new();
    for map in merged.into_iter().chain([own]) {
        all.extend(map);
    }
    all
}

fn make_unsafe(node: &mut Node) {
    match &mut node.value {
        Value::Str(text) => node.value = Value::Tagged(Tag::Unsafe, std::mem::take(text)),
        Value::Seq(nodes) => nodes.iter_mut().for_each(make_unsafe),
        Value::Map(map) => map
            .values_mut()
            .for_each(|entry| make_unsafe(&mut entry.node)),
        _ => {}
    }
}

// How many nodes there are, and how deep they are nested.
fn extent(node: &Node) -> (usize, usize) {
    let inner = |nodes: &mut dyn Iterator<Item = &Node>| {
        nodes.fold((1, 0), |(count, depth), node| {
            let (more, deeper) = extent(node);
            (count + more, depth.max(deeper))
        })
    };
    match &node.value {
        Value::Seq(nodes) => {
            let (count, depth) = inner(&mut nodes.iter());
            (count, depth + 1)
        }
        Value::Map(map) => {
            let (count, depth) = inner(&mut map.values().map(|entry| &entry.node));
            (count, depth + 1)
        }
        _ => (1, 0),
    }
}

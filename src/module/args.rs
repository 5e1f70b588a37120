//! The rendered parameters of one task, checked against the module's schema.

use indexmap::IndexMap;

use super::{Kind, Module, mode, schema};
use crate::error::{Diagnostic, Origin};
use crate::playbook::Task;
use crate::render::{self, Rendered, Scope};
use crate::value::{Entry, Map, Node, Value};

/// A parameter with this value counts as not given, as in Ansible.
pub const OMIT: &str = "__omit_place_holder__deploy";

/// Rendered parameters, by their first name.
#[derive(Debug)]
pub struct Args {
    given: IndexMap<String, Node>,
    /// Where the module's name stands, for findings about what is not given.
    pub origin: Origin,
}

impl Args {
    /// Renders the parameters of a task and checks what came out.
    ///
    /// # Errors
    /// Halts on what cannot be rendered, and on values of a wrong kind.
    pub fn render(module: &Module, task: &Task, scope: &Scope) -> Rendered<Self> {
        let mut given = IndexMap::new();
        let mut take = |key: &str, node: &Node| -> Rendered<()> {
            let param = module.params.iter().find(|param| param.is(key));
            if param.is_some_and(|param| param.kind == Kind::Conditions) {
                given.insert(key.to_owned(), node.clone());
                return Ok(());
            }
            let node = render::node(node, scope)?;
            if node.as_str() == Some(OMIT) {
                return Ok(());
            }
            let name = match param {
                Some(param) => {
                    if let Some(problem) = schema::check_value(param, &node.as_final()) {
                        return Err(problem.into());
                    }
                    param.name
                }
                None => key,
            };
            given.insert(name.to_owned(), node);
            Ok(())
        };
        match (&task.args.value, module.free_form) {
            (Value::Map(map), _) => {
                for (key, entry) in map {
                    take(key, &entry.node)?;
                }
            }
            (Value::Str(_), Some(name)) => take(name, &task.args)?,
            _ => {}
        }
        let args = Self {
            given,
            origin: task.module_origin.clone(),
        };
        for param in module.params.iter().filter(|param| param.required) {
            if !args.given.contains_key(param.name) {
                return Err(
                    Diagnostic::error(format!("`{}` needs `{}`", module.name, param.name))
                        .at(&args.origin)
                        .into(),
                );
            }
        }
        Ok(args)
    }

    /// Parameters that are final: nothing in them is a template, and their schema holds.
    #[must_use]
    pub fn from_node(params: &Node, origin: &Origin) -> Self {
        let map = params.as_map().cloned().unwrap_or_default();
        let given = map.into_iter().map(|(name, entry)| (name, entry.node));
        Self {
            given: given.collect(),
            origin: origin.clone(),
        }
    }

    /// A parameter as it came out.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.given.get(name)
    }

    /// All parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.given.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        text_of(self.given.get(name)?)
    }

    /// A required text; the schema has seen to it that it is there.
    #[must_use]
    pub fn required(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    /// A path without a slash at its end.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let trimmed = text.trim_end_matches('/');
        Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
    }

    /// True or false.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match &self.given.get(name)?.value {
            Value::Bool(value) => Some(*value),
            Value::Str(text) => schema::bool_of(text),
            _ => None,
        }
    }

    /// A list of texts; one text is a list of one.
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let node = self.given.get(name)?;
        Some(match &node.value {
            Value::Seq(items) => items.iter().filter_map(text_of).collect(),
            _ => text_of(node).into_iter().collect(),
        })
    }

    /// Permissions, where `now` are those that are there.
    ///
    /// # Errors
    /// A mode that is not understood.
    pub fn mode(&self, name: &str, now: u32, directory: bool) -> Rendered<Option<u32>> {
        let Some(node) = self.given.get(name) else {
            return Ok(None);
        };
        let mode = match &node.value {
            Value::Int(bits) => mode::from_int(*bits),
            Value::Str(text) if text == "preserve" => Err(Diagnostic::error(
                "mode `preserve` is not there; write the mode",
            )),
            Value::Str(text) => mode::apply(text, now, directory),
            _ => return Ok(None),
        };
        Ok(Some(mode.map_err(|problem| problem.at(&node.origin))?))
    }

    /// A finding about a parameter.
    #[must_use]
    pub fn problem(&self, name: &str, message: impl Into<String>) -> Diagnostic {
        let at = self
            .given
            .get(name)
            .map_or(&self.origin, |node| &node.origin);
        Diagnostic::error(message).at(at)
    }
}

fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        _ => None,
    }
}

impl Node {
    /// The same value with its texts marked as final, so that `{{` in the outcome of a
    /// template is not taken for one.
    fn as_final(&self) -> Node {
        let value = match &self.value {
            Value::Str(text) => Value::Str(text.replace(['{', '}'], "_")),
            Value::Seq(items) => Value::Seq(items.iter().map(Node::as_final).collect()),
            Value::Map(map) => Value::Map(
                map.iter()
                    .map(|(key, entry)| {
                        let entry = Entry {
                            key: entry.key.clone(),
                            node: entry.node.as_final(),
                        };
                        (key.clone(), entry)
                    })
                    .collect::<Map>(),
            ),
            other => other.clone(),
        };
        Node::new(value, self.origin.clone())
    }
}

//! Variables as the template engine sees them: each is rendered when it is
//! looked at, and what goes wrong on the way is kept with its place.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

use super::{Binding, Halt, Rendered, Scope, env, explain};
use crate::error::{Diagnostic, Origin};
use crate::value::{Entry, Node, Tag, Value as Written};

/// Most bytes that one template may make; far above any configuration file.
const MOST_OUTPUT: usize = 16 << 20;
/// Variables that use one another may be nested this deep.
const MOST_DEPTH: usize = 64;

/// What went wrong in one evaluation. Kept apart from the engine's error because
/// `default()` and `is defined` swallow those, and because only we know places.
enum Failure {
    Pending,
    /// Something is undefined; `default()` may still save it.
    Undefined(Diagnostic),
    Problem(Diagnostic),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Pending => Halt::Pending,
            Failure::Undefined(diagnostic) | Failure::Problem(diagnostic) => diagnostic.into(),
        }
    }
}

#[derive(Default)]
struct Trace {
    /// Strings that are being rendered now, outermost first.
    stack: Vec<(String, Origin)>,
    pending: bool,
    /// The first thing that no `default()` may hide.
    problem: Option<Diagnostic>,
    /// The first thing that was undefined inside a variable.
    undefined: Option<Diagnostic>,
    /// Strings that were rendered already, by their place: what is used often is
    /// rendered once, and a tower of variables costs no more than its height.
    done: HashMap<(usize, usize, String), Value>,
}

/// The engine's view of a scope; one for each evaluation.
pub(super) struct Lookup {
    scope: Scope,
    trace: Mutex<Trace>,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Lookup {
    pub(super) fn new(scope: &Scope) -> Arc<Self> {
        Arc::new(Self {
            scope: scope.clone(),
            trace: Mutex::default(),
        })
    }

    pub(super) fn render_file(self: &Arc<Self>, text: &str, origin: &Origin) -> Rendered<String> {
        Ok(self.render_text(text, origin)?)
    }

    pub(super) fn evaluate(self: &Arc<Self>, text: &str, origin: &Origin) -> Rendered<Value> {
        Ok(self.expression(text, origin)?)
    }

    /// All templates in a tree rendered; each node keeps its place.
    pub(super) fn resolve(self: &Arc<Self>, node: &Node) -> Rendered<Node> {
        Ok(self.resolve_at(node, "")?)
    }

    fn resolve_at(self: &Arc<Self>, node: &Node, label: &str) -> Result<Node, Failure> {
        let value = match &node.value {
            Written::Seq(nodes) => Written::Seq(
                nodes
                    .iter()
                    .enumerate()
                    .map(|(index, node)| self.resolve_at(node, &format!("{label}[{index}]")))
                    .collect::<Result<_, _>>()?,
            ),
            Written::Map(map) => Written::Map(
                map.iter()
                    .map(|(key, entry)| {
                        let node = self.resolve_at(&entry.node, &join(label, key))?;
                        let key_origin = entry.key.clone();
                        Ok((
                            key.clone(),
                            Entry {
                                key: key_origin,
                                node,
                            },
                        ))
                    })
                    .collect::<Result<_, Failure>>()?,
            ),
            Written::Str(text) if is_template(text) => {
                let value = self.string(text, label, &node.origin)?;
                let json = self.to_json(&value, &node.origin)?;
                return Ok(Node::from_json(&json, &node.origin));
            }
            Written::Tagged(Tag::Unsafe, text) => Written::Str(text.clone()),
            Written::Tagged(Tag::Vault, _) => return Err(Failure::Problem(encrypted(node))),
            _ => return Ok(node.clone()),
        };
        Ok(Node::new(value, node.origin.clone()))
    }

    fn to_json(self: &Arc<Self>, value: &Value, origin: &Origin) -> Result<Json, Failure> {
        let json = serde_json::to_value(value);
        // A lazy value inside may have failed while it was written out.
        self.settle()?;
        json.map_err(|error| {
            Failure::Problem(
                Diagnostic::error(format!("the value cannot be written out: {error}")).at(origin),
            )
        })
    }

    /// A string with templates in it: a value of any type if it is one expression.
    fn string(
        self: &Arc<Self>,
        text: &str,
        label: &str,
        origin: &Origin,
    ) -> Result<Value, Failure> {
        let place = (
            Arc::as_ptr(&origin.source) as usize,
            origin.span.start,
            label.to_owned(),
        );
        if let Some(value) = self.trace().done.get(&place) {
            return Ok(value.clone());
        }
        self.enter(label, origin)?;
        let result = match lone_expression(text) {
            Some(expression) => self.expression(expression, origin),
            None => self.render_text(text, origin).map(Value::from),
        };
        let mut trace = self.trace();
        trace.stack.pop();
        if let (Ok(value), false) = (&result, label.is_empty()) {
            trace.done.insert(place, value.clone());
        }
        result
    }

    fn enter(&self, label: &str, origin: &Origin) -> Result<(), Failure> {
        let mut trace = self.trace();
        let again = trace
            .stack
            .iter()
            .position(|(name, at)| name == label && at == origin && !label.is_empty());
        if again.is_some() || trace.stack.len() >= MOST_DEPTH {
            let first = again.unwrap_or(0);
            let mut circle: Vec<&str> = trace.stack[first..]
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            circle.push(label);
            let message = if again.is_some() {
                format!(
                    "variable `{label}` is made from itself: {}",
                    circle.join(" -> ")
                )
            } else {
                format!("variables use one another more than {MOST_DEPTH} deep")
            };
            return Err(Failure::Problem(Diagnostic::error(message).at(origin)));
        }
        trace.stack.push((label.to_owned(), origin.clone()));
        Ok(())
    }

    fn expression(self: &Arc<Self>, text: &str, origin: &Origin) -> Result<Value, Failure> {
        let outer = self.trace().undefined.take();
        let result = env::shared()
            .compile_expression(text)
            .and_then(|expression| expression.eval(self.root()));
        let settled = match result {
            Ok(value) if value.kind() == ValueKind::Invalid => {
                Err(self.failure(&Error::from(ErrorKind::InvalidOperation), text, origin))
            }
            Ok(value) if value.is_undefined() => {
                let error = if self.trace().undefined.is_some() {
                    Error::from(ErrorKind::UndefinedError)
                } else {
                    let detail = format!("`{}` is undefined", text.trim());
                    Error::new(ErrorKind::UndefinedError, detail)
                };
                Err(self.failure(&error, text, origin))
            }
            Ok(value) => self.settle().map(|()| value),
            Err(error) => Err(self.failure(&error, text, origin)),
        };
        self.trace().undefined = outer;
        settled
    }

    fn render_text(self: &Arc<Self>, text: &str, origin: &Origin) -> Result<String, Failure> {
        let outer = self.trace().undefined.take();
        let mut output = Bounded::default();
        let result = env::shared()
            .template_from_str(text)
            .and_then(|template| template.render_captured_to(self.root(), &mut output));
        let settled = match result {
            Ok(_) => self.settle(),
            Err(_) if output.full => Err(Failure::Problem(
                Diagnostic::error(format!(
                    "the template makes more than {} MiB",
                    MOST_OUTPUT >> 20
                ))
                .at(origin),
            )),
            Err(error) => Err(self.failure(&error, text, origin)),
        };
        self.trace().undefined = outer;
        settled?;
        Ok(String::from_utf8_lossy(&output.bytes).into_owned())
    }

    /// Whether an evaluation that seems to have gone well really has: waiting, or a
    /// problem inside a variable, may have been swallowed.
    fn settle(&self) -> Result<(), Failure> {
        let trace = self.trace();
        if trace.pending {
            return Err(Failure::Pending);
        }
        match &trace.problem {
            Some(problem) => Err(Failure::Problem(problem.clone())),
            None => Ok(()),
        }
    }

    /// Why an evaluation failed: waiting beats a problem, a problem inside a
    /// variable beats the engine's view of it.
    fn failure(&self, error: &Error, text: &str, origin: &Origin) -> Failure {
        if let Err(failure) = self.settle() {
            return failure;
        }
        if error.kind() != ErrorKind::UndefinedError {
            return Failure::Problem(explain::explain(error, text, origin, &self.scope));
        }
        // The engine knows the name, unless the value came undefined out of a variable.
        let named = error.detail().is_some_and(|detail| detail.contains('`'));
        let inner = self.trace().undefined.take().filter(|_| !named);
        Failure::Undefined(
            inner.unwrap_or_else(|| explain::explain(error, text, origin, &self.scope)),
        )
    }

    fn root(self: &Arc<Self>) -> Value {
        Value::from_dyn_object(Arc::clone(self))
    }

    /// A written value as the engine sees it, not yet rendered below the surface.
    fn look(self: &Arc<Self>, node: &Node, label: &str) -> Value {
        match &node.value {
            Written::Str(text) if is_template(text) => {
                match self.string(text, label, &node.origin) {
                    Ok(value) => value,
                    Err(failure) => self.fail(failure),
                }
            }
            Written::Tagged(Tag::Vault, _) => self.fail(Failure::Problem(encrypted(node))),
            Written::Seq(_) | Written::Map(_) if has_template(node) => Value::from_object(Lazy {
                node: node.clone(),
                label: label.to_owned(),
                lookup: Arc::clone(self),
            }),
            _ => plain(node),
        }
    }

    /// Keeps a failure for the end of the evaluation, and gives the engine a value
    /// that it will stumble over, or that `default()` can replace.
    fn fail(&self, failure: Failure) -> Value {
        let mut trace = self.trace();
        match failure {
            Failure::Pending => trace.pending = true,
            Failure::Undefined(diagnostic) => {
                trace.undefined.get_or_insert(diagnostic);
                return Value::UNDEFINED;
            }
            Failure::Problem(diagnostic) => {
                trace.problem.get_or_insert(diagnostic);
            }
        }
        unavailable()
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Lookup {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let binding = self.scope.get(name)?;
        // After a failure the engine looks at all variables once more, for a report
        // that nobody will see.
        if self.settle().is_err() {
            return Some(unavailable());
        }
        match binding {
            Binding::Written(node) => Some(self.look(node, name)),
            Binding::Known(json) => Some(Value::from(minijinja::value::Serde(json))),
            Binding::Result { known, later, task } => Some(Value::from_object(TaskResult {
                known: Value::from(minijinja::value::Serde(known)),
                later: later.clone(),
                name: name.to_owned(),
                task: task.clone(),
                lookup: Arc::clone(self),
            })),
            Binding::Pending => Some(self.fail(Failure::Pending)),
        }
    }
}

/// A list or mapping with templates somewhere in it.
#[derive(Debug)]
struct Lazy {
    node: Node,
    label: String,
    lookup: Arc<Lookup>,
}

impl Object for Lazy {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.node.value {
            Written::Seq(_) => ObjectRepr::Seq,
            _ => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let (node, label) = match &self.node.value {
            Written::Seq(nodes) => {
                let index = key.as_usize()?;
                (nodes.get(index)?, format!("{}[{index}]", self.label))
            }
            Written::Map(map) => {
                let key = key.as_str()?;
                (&map.get(key)?.node, join(&self.label, key))
            }
            _ => return None,
        };
        Some(self.lookup.look(node, &label))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.node.value {
            Written::Seq(nodes) => Enumerator::Seq(nodes.len()),
            Written::Map(map) => {
                Enumerator::Values(map.keys().map(|key| Value::from(key.as_str())).collect())
            }
            _ => Enumerator::Empty,
        }
    }
}

/// What a task registered, some of which only its run will tell.
#[derive(Debug)]
struct TaskResult {
    known: Value,
    later: Vec<&'static str>,
    name: String,
    task: String,
    lookup: Arc<Lookup>,
}

impl Object for TaskResult {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let field = key.as_str()?;
        if self.later.contains(&field) {
            let at = self.lookup.trace().stack.last().map(|(_, at)| at.clone());
            let mut problem = Diagnostic::error(format!(
                "`{}.{field}` is known only after task `{}` has run, but the plan is made before",
                self.name, self.task
            ))
            .hint(
                "if that command changes nothing, say so with `changed_when: false` and \
                 `check_mode: false`: it is then run while planning",
            );
            problem.origin = at;
            return Some(self.lookup.fail(Failure::Problem(problem)));
        }
        self.known
            .get_item(key)
            .ok()
            .filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.known.try_iter() {
            Ok(keys) => Enumerator::Values(keys.collect()),
            Err(_) => Enumerator::Empty,
        }
    }
}

/// Takes what a template makes, up to a limit.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MOST_OUTPUT {
            self.full = true;
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a template stands anywhere in a value (or something else that must be
/// looked at, such as an encrypted text).
#[must_use]
pub fn has_template(node: &Node) -> bool {
    match &node.value {
        Written::Str(text) => is_template(text),
        Written::Tagged(..) => true,
        Written::Seq(nodes) => nodes.iter().any(has_template),
        Written::Map(map) => map.values().any(|entry| has_template(&entry.node)),
        _ => false,
    }
}

pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// The expression of a string that is `{{ expression }}` and nothing else.
pub(super) fn lone_expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    // `{{ a }}{{ b }}` has the same ends; what is between them is no expression.
    if inner.contains("}}") || inner.contains("{{") {
        env::shared().compile_expression(inner).ok()?;
    }
    Some(inner)
}

/// A value that the engine stumbles over.
fn unavailable() -> Value {
    Value::from(Error::new(ErrorKind::InvalidOperation, "not available"))
}

fn plain(node: &Node) -> Value {
    match &node.value {
        Written::Tagged(Tag::Unsafe, text) => Value::from(text.as_str()),
        _ => Value::from(minijinja::value::Serde(node.to_json())),
    }
}

fn join(label: &str, key: &str) -> String {
    if label.is_empty() {
        key.to_owned()
    } else {
        format!("{label}.{key}")
    }
}

fn encrypted(node: &Node) -> Diagnostic {
    Diagnostic::error("this value is encrypted with Ansible Vault, which cannot be opened yet")
        .at(&node.origin)
        .hint("keep it out of what this playbook uses, or write it in plain text for now")
}

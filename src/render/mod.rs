//! Templates and expressions with Ansible's settings and Ansible's rules for
//! variables.
//!
//! A `Scope` holds the variables that a task sees. Strings in them are templates
//! and are rendered when somebody looks at them, so that a variable may use one
//! that is defined later. What is no template stays what it is: facts, results of
//! modules, `!unsafe` texts. Rendering is pure; a value that is not there yet
//! (because the host was not asked) halts it in an orderly way, so that a plan can
//! find out in one pass what else to ask.
//!
//! This room knows neither hosts nor tasks.

mod collections;
mod env;
mod explain;
mod lookup;
mod names;
mod scope;
mod text;

use std::sync::Arc;

use minijinja::value::ValueKind;

use crate::error::{Diagnostic, Origin, Problems, Source};
use crate::value::{Node, Value, Vars};

use lookup::Lookup;
pub use lookup::has_template;
pub use names::{Form, Use, uses};
pub use scope::{Asked, Binding, Layer, Scope};

/// Why there is no value.
#[derive(Debug, Clone, PartialEq)]
pub enum Halt {
    /// It depends on something that the host was not asked yet.
    Pending,
    /// It cannot be had; what is wrong.
    Problem(Box<Diagnostic>),
}

impl From<Diagnostic> for Halt {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Problem(Box::new(diagnostic))
    }
}

/// A value, or why there is none.
pub type Rendered<T> = Result<T, Halt>;

/// A template file with all variables filled in. `\r\n` becomes `\n`, as Python's
/// reading in text mode has it.
///
/// # Errors
/// Halts on anything undefined, on errors of syntax, and on loops without end.
pub fn template(source: &Arc<Source>, scope: &Scope) -> Rendered<String> {
    let source = if source.text.contains("\r\n") {
        Arc::new(Source {
            path: source.path.clone(),
            text: source.text.replace("\r\n", "\n"),
        })
    } else {
        Arc::clone(source)
    };
    let origin = Origin::new(&source, 0..source.text.len());
    Lookup::new(scope).render_file(&source.text, &origin)
}

/// A value with all templates in it rendered, at any depth; what was written
/// keeps its place. A string that is one expression and nothing else keeps the
/// type of its value. The result is final: it must not come into a scope as
/// something written, or it would be rendered twice.
///
/// # Errors
/// Halts as `template` does.
pub fn node(node: &Node, scope: &Scope) -> Rendered<Node> {
    Lookup::new(scope).resolve(node)
}

/// Whether a condition holds: a boolean, a string that is an expression, or a list
/// of those, all of which must hold. The first that does not hold ends it, so that
/// a later one may rely on it.
///
/// # Errors
/// Halts as `template` does, and on a result that is no boolean.
pub fn condition(node: &Node, scope: &Scope) -> Rendered<bool> {
    match &node.value {
        Value::Bool(value) => Ok(*value),
        Value::Seq(nodes) => {
            for node in nodes {
                if !condition(node, scope)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Value::Str(text) => {
            // The delimiters are not needed here, but many write them.
            let text = lookup::lone_expression(text.trim()).unwrap_or(text);
            let value = Lookup::new(scope).evaluate(text, &node.origin)?;
            if value.kind() == ValueKind::Bool {
                return Ok(value.is_true());
            }
            let what = explain::kind_in_words(&value);
            Err(Diagnostic::error(format!(
                "the condition `{text}` gives {what}, neither true nor false"
            ))
            .at(&node.origin)
            .hint("compare it with something, or add `| bool` or `| length > 0`")
            .into())
        }
        _ => Err(Diagnostic::error(format!(
            "a condition is an expression, a boolean or a list of them, not {}",
            node.kind()
        ))
        .at(&node.origin)
        .into()),
    }
}

/// The variables of a host with all templates in them rendered. One that cannot
/// be rendered is left out and its problem is told; the others stay.
#[must_use]
pub fn vars(vars: &Vars) -> (Vars, Problems) {
    let scope = Scope::default().with_vars(Layer::Host, vars);
    let names: Vec<&str> = vars.keys().map(String::as_str).collect();
    some_vars(&scope, names)
}

/// Some of the variables in a scope, rendered; the rest is not looked at, so that
/// a caller who wants a few keys does not fail on an unrelated one. One that still
/// waits for the host is left out.
#[must_use]
pub fn some_vars<'a>(scope: &Scope, names: impl IntoIterator<Item = &'a str>) -> (Vars, Problems) {
    let mut problems = Problems::default();
    let mut rendered = Vars::new();
    for name in names {
        let Some(written) = scope.written(name) else {
            continue;
        };
        match node(written, scope) {
            Ok(node) => {
                rendered.insert(name.to_owned(), node);
            }
            Err(Halt::Problem(problem)) => problems.push(*problem),
            Err(Halt::Pending) => {}
        }
    }
    (rendered, problems)
}

#[cfg(test)]
mod tests;

//! Which variables a template uses, found without rendering it, so that a typo
//! is told before any host is connected to.

use std::collections::HashSet;
use std::sync::OnceLock;

use regex::Regex;

use super::{Rendered, Scope, env, explain, lookup};
use crate::error::{Diagnostic, Origin};

/// A variable that a template uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// Its name.
    pub name: String,
    /// Where it is used first.
    pub at: Origin,
    /// Whether the text asks somewhere if it is defined, or has a default for it:
    /// then it may be undefined.
    pub guarded: bool,
}

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With `{{ … }}` and `{% … %}`.
    Template,
    /// As an expression (`when`), with or without delimiters.
    Expression,
}

/// The variables that a text uses and does not set itself, by place.
///
/// # Errors
/// Errors of syntax and filters that do not exist.
pub fn uses(text: &str, origin: &Origin, form: Form) -> Rendered<Vec<Use>> {
    let env = env::shared();
    let explained = |error: &minijinja::Error, text: &str| {
        explain::explain(error, text, origin, &Scope::default())
    };
    let names: HashSet<String> = match form {
        Form::Template => env
            .template_from_str(text)
            .map_err(|error| explained(&error, text))?
            .undeclared_variables(false),
        Form::Expression => {
            let inner = lookup::lone_expression(text.trim()).unwrap_or(text);
            env.compile_expression(inner)
                .map_err(|error| explained(&error, inner))?
                .undeclared_variables(false)
        }
    };
    filters_exist(text, origin, form)?;
    let mut found: Vec<Use> = names
        .into_iter()
        .filter(|name| env.globals().all(|(global, _)| global != name))
        .map(|name| {
            let start = explain::word(text, &name).unwrap_or(0);
            let end = (start + name.len()).min(text.len());
            Use {
                at: explain::locate(origin, text, start..end),
                guarded: guarded(text, &name),
                name,
            }
        })
        .collect();
    found.sort_by_key(|used| (used.at.span.start, used.name.clone()));
    Ok(found)
}

fn guarded(text: &str, name: &str) -> bool {
    let pattern = format!(
        r"\b{}\b[\w.\[\]'\x22]*\s*(\)\s*)*(\|\s*(default|d)\b|is\s+(not\s+)?(un)?defined\b)",
        regex::escape(name)
    );
    Regex::new(&pattern).is_ok_and(|guard| guard.is_match(text))
}

/// The engine finds out about filters only when it meets them.
fn filters_exist(text: &str, origin: &Origin, form: Form) -> Result<(), Diagnostic> {
    static FILTER: OnceLock<Option<Regex>> = OnceLock::new();
    let Some(filter) = FILTER.get_or_init(|| Regex::new(r"\|\s*([A-Za-z_]\w*)").ok()) else {
        return Ok(());
    };
    if text.contains("raw") {
        return Ok(());
    }
    let code = only_code(text, form);
    for found in filter.captures_iter(&code) {
        let Some(name) = found.get(1) else { continue };
        if !known_filter(name.as_str()) {
            return Err(
                Diagnostic::error(format!("there is no filter `{}`", name.as_str()))
                    .at(&explain::locate(origin, text, name.range()))
                    .did_you_mean(name.as_str(), env::FILTERS.iter().copied()),
            );
        }
    }
    Ok(())
}

fn known_filter(name: &str) -> bool {
    let more = [
        "attr", "chain", "e", "escape", "lines", "safe", "tojson", "wordwrap",
    ];
    env::FILTERS.contains(&name) || more.contains(&name)
}

/// The text with everything blanked that is no code: what is outside of the
/// delimiters, comments, and string literals. Offsets stay.
fn only_code(text: &str, form: Form) -> String {
    let mut code = String::with_capacity(text.len());
    let mut inside = form == Form::Expression;
    let mut literal: Option<char> = None;
    let mut escaped = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let width = c.len_utf8();
        if let Some(quote) = literal {
            if c == quote && !escaped {
                literal = None;
            }
            escaped = c == '\\' && !escaped;
        } else if !inside && (rest.starts_with("{{") || rest.starts_with("{%")) {
            inside = true;
        } else if inside && (rest.starts_with("}}") || rest.starts_with("%}")) {
            inside = form == Form::Expression;
        } else if inside && (c == '\'' || c == '"') {
            literal = Some(c);
        } else if inside {
            code.push(c);
            rest = &rest[width..];
            continue;
        }
        code.extend(std::iter::repeat_n(' ', width));
        rest = &rest[width..];
    }
    code
}

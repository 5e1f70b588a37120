//! The template engine, set up as Ansible sets up Jinja2.

use std::sync::OnceLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, escape_formatter};

use super::{collections, text};

/// Instructions that one template may take; a loop over a few thousand GPUs takes
/// a hundredth of it, one without end takes it in well under a second.
const FUEL: u64 = 1_000_000;

/// The one environment: it holds no templates, so that all hosts can share it.
pub(super) fn shared() -> &'static Environment<'static> {
    static SHARED: OnceLock<Environment<'static>> = OnceLock::new();
    SHARED.get_or_init(build)
}

fn build() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .keep_trailing_newline(true)
        .build();
    // Only wrong delimiters can fail, and these are the default ones.
    if let Ok(syntax) = syntax {
        env.set_syntax(syntax);
    }
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    // Else a template called `mig.yaml.j2` would come out with quoted strings.
    env.set_auto_escape_callback(|_| AutoEscape::None);
    // Names of undefined variables are in messages only in debug mode. The rest of
    // what it collects (values!) must never be shown.
    env.set_debug(true);
    env.set_fuel(Some(FUEL));
    env.set_formatter(|output, state, value| {
        // Ansible writes nothing for null where Python would write `None`.
        let nothing = Value::from("");
        let shown = if value.kind() == ValueKind::None {
            &nothing
        } else {
            value
        };
        escape_formatter(output, state, shown)
    });
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    // They print the values of all variables.
    env.remove_global("debug");
    env.remove_filter("pprint");
    text::register(&mut env);
    collections::register(&mut env);
    env
}

/// Filters by name, for advice when one is not known.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "b64decode",
    "b64encode",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "combine",
    "comment",
    "count",
    "d",
    "default",
    "dict2items",
    "dictsort",
    "difference",
    "dirname",
    "first",
    "flatten",
    "float",
    "format",
    "from_json",
    "from_yaml",
    "groupby",
    "hash",
    "indent",
    "int",
    "intersect",
    "items",
    "items2dict",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "mandatory",
    "map",
    "max",
    "min",
    "quote",
    "regex_findall",
    "regex_replace",
    "regex_search",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "splitext",
    "string",
    "sum",
    "symmetric_difference",
    "ternary",
    "title",
    "to_json",
    "to_nice_json",
    "to_nice_yaml",
    "to_yaml",
    "trim",
    "type_debug",
    "union",
    "unique",
    "upper",
    "zip",
];

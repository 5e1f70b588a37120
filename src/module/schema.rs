//! What parameters a module takes, and what a task gives it that is wrong.

use super::{Module, mode};
use crate::error::{Diagnostic, Problems};
use crate::playbook::Task;
use crate::render;
use crate::value::{Map, Node, Value};

/// A parameter of a module.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Other names that Ansible has for it.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string; numbers are taken as such.
    Text,
    /// An absolute path on the host.
    Path,
    /// True or false, in any of Ansible's spellings.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// File permissions: `'0644'`, `0644`, `u=rw,g=r`.
    Mode,
    /// A list of strings, or one.
    Texts,
    /// Anything.
    Any,
    /// Conditions; the module renders them itself.
    Conditions,
}

impl Param {
    /// A parameter that may be left out.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            aliases: &[],
            kind,
            required: false,
        }
    }

    /// The same, which must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The same, with other names.
    #[must_use]
    pub const fn or(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Whether it is called so.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// Parameters of Ansible's modules that are not there, and what is instead.
const LACKING: &[(&str, &str, &str)] = &[
    (
        "template",
        "validate",
        "add an `assert` or a `command` that checks it",
    ),
    (
        "template",
        "backup",
        "every change keeps a snapshot; see `deploy rollback`",
    ),
    (
        "copy",
        "backup",
        "every change keeps a snapshot; see `deploy rollback`",
    ),
    (
        "copy",
        "validate",
        "add an `assert` or a `command` that checks it",
    ),
    (
        "copy",
        "remote_src",
        "use `command` with `cp` and `creates`",
    ),
    ("copy", "directory_mode", "make the directory with `file`"),
    ("file", "recurse", "name each path"),
    ("command", "stdin", "write a file with `copy` and read it"),
    ("command", "chdir_only", "use `chdir`"),
    ("systemd", "scope", "only system units are managed"),
    ("systemd", "no_block", "a step waits for its unit"),
    ("systemd", "masked", "mask the unit with `command` for now"),
    (
        "reboot",
        "reboot_command",
        "the host is restarted by `systemctl reboot`",
    ),
    (
        "reboot",
        "boot_time_command",
        "the kernel's own boot id tells that it restarted",
    ),
    (
        "reboot",
        "connect_timeout",
        "set `ConnectTimeout` for the connection",
    ),
    (
        "reboot",
        "search_paths",
        "the host is restarted by `systemctl reboot`",
    ),
    ("debug", "verbosity", "notes are always shown"),
];

pub(super) fn check(module: &Module, task: &Task) -> Problems {
    let mut problems = Problems::default();
    match &task.args.value {
        Value::Map(map) => check_map(module, task, map, &mut problems),
        Value::Null => check_map(module, task, &Map::new(), &mut problems),
        Value::Str(_) if module.free_form.is_some() => {}
        Value::Str(text) => problems.push(
            Diagnostic::error(format!(
                "the parameters of `{}` are a mapping here, not the text `{text}`",
                module.name
            ))
            .at(&task.args.origin)
            .hint("write each as `key: value` below the module"),
        ),
        _ => problems.push(
            Diagnostic::error(format!(
                "the parameters of `{}` are a mapping, not {}",
                module.name,
                task.args.kind()
            ))
            .at(&task.args.origin),
        ),
    }
    problems
}

fn check_map(module: &Module, task: &Task, map: &Map, problems: &mut Problems) {
    for (key, entry) in map {
        match module.params.iter().find(|param| param.is(key)) {
            Some(param) => {
                if let Some(problem) = check_value(param, &entry.node) {
                    problems.push(problem);
                }
            }
            None if module.open => {}
            None => {
                let problem =
                    Diagnostic::error(format!("`{}` has no parameter `{key}`", module.name))
                        .at(&entry.key);
                let lacking = LACKING
                    .iter()
                    .find(|(of, name, _)| *of == module.name && name == key);
                problems.push(match lacking {
                    Some((_, _, instead)) => problem.hint(*instead),
                    None => problem.did_you_mean(key, module.params.iter().map(|param| param.name)),
                });
            }
        }
    }
    for param in module.params.iter().filter(|param| param.required) {
        if !map.keys().any(|key| param.is(key)) {
            problems.push(
                Diagnostic::error(format!("`{}` needs `{}`", module.name, param.name))
                    .at(&task.module_origin),
            );
        }
    }
}

/// What is wrong with a value; nothing can be told of templates.
pub(super) fn check_value(param: &Param, node: &Node) -> Option<Diagnostic> {
    if render::has_template(node) && param.kind != Kind::Conditions {
        return None;
    }
    let wanted = match (param.kind, &node.value) {
        (Kind::Any | Kind::Conditions, _) => return None,
        (Kind::Text, Value::Str(_) | Value::Int(_) | Value::Float(_)) => return None,
        (Kind::Text, _) => "a string".to_owned(),
        (Kind::Path, Value::Str(path)) if path.starts_with('/') => return check_path(path, node),
        (Kind::Path, _) => "an absolute path".to_owned(),
        (Kind::Bool, Value::Bool(_)) => return None,
        (Kind::Bool, Value::Str(text)) if bool_of(text).is_some() => return None,
        (Kind::Bool, _) => "true or false".to_owned(),
        (Kind::Word(words), value) => {
            let text = match value {
                Value::Str(text) => text.as_str(),
                _ => "",
            };
            if words.contains(&text) {
                return None;
            }
            return Some(
                Diagnostic::error(format!("`{}` is one of {}", param.name, words.join(", ")))
                    .at(&node.origin)
                    .did_you_mean(text, words.iter().copied()),
            );
        }
        (Kind::Mode, Value::Int(_) | Value::Str(_)) => {
            let text = match &node.value {
                Value::Int(bits) => match mode::from_int(*bits) {
                    Ok(_) => return None,
                    Err(problem) => return Some(problem.at(&node.origin)),
                },
                Value::Str(text) => text,
                _ => return None,
            };
            return mode::apply(text, 0, false)
                .err()
                .map(|problem| problem.at(&node.origin));
        }
        (Kind::Mode, _) => "a file mode such as '0644'".to_owned(),
        (Kind::Texts, Value::Str(_) | Value::Int(_) | Value::Float(_)) => return None,
        (Kind::Texts, Value::Seq(items)) => {
            let wrong = items.iter().find(|item| {
                !matches!(item.value, Value::Str(_) | Value::Int(_) | Value::Float(_))
            });
            return wrong.map(|item| {
                Diagnostic::error(format!(
                    "`{}` is a list of strings, but here is {}",
                    param.name,
                    item.kind()
                ))
                .at(&item.origin)
            });
        }
        (Kind::Texts, _) => "a string or a list of strings".to_owned(),
    };
    Some(
        Diagnostic::error(format!("`{}` is {wanted}, not {}", param.name, node.kind()))
            .at(&node.origin),
    )
}

/// Paths go into scripts and under a root prefix; `..` could leave it.
fn check_path(path: &str, node: &Node) -> Option<Diagnostic> {
    let message = if path.split('/').any(|part| part == "..") {
        "a path on the host cannot have `..` in it"
    } else if path.contains('\0') || path.contains('\n') {
        "a path on the host cannot have a line end in it"
    } else {
        return None;
    };
    Some(Diagnostic::error(message).at(&node.origin))
}

/// True and false in Ansible's spellings.
pub(super) fn bool_of(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "yes" | "on" | "1" | "true" | "y" | "t" => Some(true),
        "no" | "off" | "0" | "false" | "n" | "f" => Some(false),
        _ => None,
    }
}

//! `secrets` of a container: names in podman's own store, so that what they hold stands in no
//! variable, no unit and no plan of ours. Who fills the store is not known here.

use crate::desired::{Block, Located};
use crate::error::Diagnostic;
use crate::value::Value;

use super::wanted::Container;

/// Parts of names of variables that mostly hold something secret.
const TELLING: [&str; 5] = ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "API_KEY"];

/// An entry of `secrets`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SecretRef {
    /// `name`: in podman's store.
    pub(super) name: Located<String>,
    /// `env`: the variable that holds it; a file below `/run/secrets` where it is not written.
    pub(super) env: Option<Located<String>>,
}

impl SecretRef {
    /// The value for `Secret=`.
    pub(super) fn line(&self) -> String {
        match &self.env {
            Some(env) => format!("{},type=env,target={}", self.name.value, env.value),
            None => self.name.value.clone(),
        }
    }
}

/// `secrets`: each a name, or a mapping of `name` and `env`.
pub(super) fn read(block: &mut Block<'_, '_>) -> Vec<SecretRef> {
    let path = block.path_of("secrets");
    let items = match block
        .node("secrets")
        .map(|node| (&node.value, &node.origin))
    {
        None => return Vec::new(),
        Some((Value::Seq(items), _)) => items,
        Some((_, origin)) => {
            let message = format!("`{path}` must be a list of names in podman's store");
            block.problems.push(Diagnostic::error(message).at(origin));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let entry = match &item.value {
            Value::Str(name) => SecretRef {
                name: Located::written(name.clone(), item),
                env: None,
            },
            _ => {
                let path = format!("{path}[{index}]");
                let mut block = Block::new(&path, Some(item), block.problems);
                let name = block.text("name", "");
                let env = block.text("env", "");
                block.finish();
                let env = (!env.value.is_empty()).then_some(env);
                SecretRef { name, env }
            }
        };
        check(&entry, block);
        found.push(entry);
    }
    found
}

fn check(entry: &SecretRef, block: &mut Block<'_, '_>) {
    let is_name = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || more.contains(c))
            && text.len() <= 253
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || more.contains(c))
    };
    if !is_name(&entry.name.value, "-.") {
        let message = format!(
            "`{}` is no name of a secret in podman's store",
            entry.name.value
        );
        let hint = "a name begins with a letter or digit and is made of letters, digits, `-`, `_` and `.`; `podman secret create NAME FILE` puts one there";
        let problem = entry.name.blame(Diagnostic::error(message).hint(hint));
        block.problems.push(problem);
    }
    if let Some(env) = &entry.env
        && (!is_name(&env.value, "_") || env.value.starts_with(|c: char| c.is_ascii_digit()))
    {
        let message = format!("`{}` is no name of a variable", env.value);
        block.problems.push(env.blame(Diagnostic::error(message)));
    }
}

/// Variables of a container that everybody on the host can read, and that look as if nobody
/// should.
pub(super) fn in_the_open(container: &Container) -> Option<String> {
    let telling = |name: &str| {
        let name = name.to_ascii_uppercase();
        TELLING.iter().any(|part| name.contains(part))
    };
    let names: Vec<&str> = (container.environment.iter())
        .filter(|(name, value)| telling(name) && !value.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "has {} in its unit, where everybody on the host can read it; `secrets` takes it from podman's store",
            names.join(", ")
        )
    })
}

//! What must not be recorded of a playbook: names that say that a secret stands behind them,
//! and secrets that are written in its own text.

use crate::playbook::{Play, Playbook, Task};
use crate::value::{Node, Tag, Value, Vars};

/// Parameters of a task with `no_log` that say where something goes, not what it is.
const PLACES: &[&str] = &[
    "dest", "path", "src", "mode", "owner", "group", "state", "name", "creates", "removes", "chdir",
];

/// Whether a name says that what stands behind it is nobody's business.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let anywhere = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "apikey",
        "api_key",
        "access_key",
        "encryption_key",
        "license_key",
        "private_key",
        "signing_key",
        "ssh_key",
        "authorization",
    ];
    // Alone these begin harmless words, such as `author`.
    let words = ["auth", "pass", "passcode", "pwd"];
    let dashed = name.replace('-', "_");
    anywhere.iter().any(|part| dashed.contains(part))
        || dashed.split(['_', '.']).any(|word| words.contains(&word))
}

/// Why the text of a playbook must not be recorded: the first secret that is written in it.
pub(super) fn literal(playbook: &Playbook) -> Option<String> {
    playbook.plays.iter().find_map(of_play)
}

fn of_play(play: &Play) -> Option<String> {
    let path = play.origin.path();
    // Variables of `vars_files` stand in other texts.
    let own = |node: &Node| node.origin.path() == path;
    let var = play
        .vars
        .iter()
        .find(|(name, node)| own(node) && named(name, node))
        .map(|(name, _)| name);
    if let Some(name) = var {
        let why = format!("the value of the variable `{name}` is written in the playbook");
        return Some(why);
    }
    let mut tasks = play.tasks.iter().chain(&play.handlers);
    let task = tasks.find(|task| of_task(task))?;
    Some(format!(
        "what must not be shown of the task `{}` is written in the playbook",
        task.name
    ))
}

fn of_task(task: &Task) -> bool {
    let any = |vars: &Vars, test: fn(&str, &Node) -> bool| {
        vars.iter().any(|(name, node)| test(name, node))
    };
    if any(&task.vars, named) || named("", &task.args) {
        return true;
    }
    if !task.no_log {
        return false;
    }
    let args = match &task.args.value {
        Value::Map(map) => map
            .iter()
            .any(|(name, entry)| !PLACES.contains(&name.as_str()) && is_literal(&entry.node)),
        _ => is_literal(&task.args),
    };
    let looped = task.r#loop.as_ref();
    args || any(&task.vars, |_, node| is_literal(node))
        || looped.is_some_and(|looped| is_literal(&looped.items))
}

/// Whether a secret's name has a value behind it, here or further in.
fn named(name: &str, node: &Node) -> bool {
    if is_secret_name(name) {
        return is_literal(node);
    }
    match &node.value {
        Value::Map(map) => map.iter().any(|(name, entry)| named(name, &entry.node)),
        Value::Seq(nodes) => nodes.iter().any(|node| named("", node)),
        _ => false,
    }
}

/// Whether it is a value itself, and not only the name of one.
fn is_literal(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Tagged(Tag::Vault, _) => false,
        Value::Str(text) => is_literal_text(text),
        Value::Seq(nodes) => nodes.iter().any(is_literal),
        Value::Map(map) => map.values().any(|entry| is_literal(&entry.node)),
        _ => true,
    }
}

/// Whether there is more in a text than templates without texts of their own.
fn is_literal_text(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = rest[at..].find("}}") else {
            return true;
        };
        let inside = rest[at..at + end].replace("''", "").replace("\"\"", "");
        if !rest[..at].trim().is_empty() || inside.contains(['\'', '"']) {
            return true;
        }
        rest = &rest[at + end + 2..];
    }
    !rest.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::content::Content;
    use crate::playbook::Project;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "db_password",
            "api_key",
            "apikey",
            "aws_access_key",
            "license_key",
            "private_key",
            "pwd",
            "db_pwd",
            "PASSWD",
            "auth",
            "registry_auth",
            "credential",
            "credentials",
            "ansible_become_pass",
            "ansible_ssh_pass",
            "api-key",
            "hf_token",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["author", "key", "passthrough", "path", "keys", "compass_x"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    fn why(text: &str) -> Option<String> {
        let project = Project::new(Content::shipped(), None);
        let text = format!("- hosts: all\n{text}");
        let names = crate::module::names();
        let (playbook, found) = crate::playbook::load(Path::new("p.yml"), &text, &names, &project);
        assert!(!found.has_errors(), "{found}");
        literal(&playbook)
    }

    #[test]
    fn secrets_in_the_text_of_a_playbook_are_found() {
        for text in [
            "  vars: {api_key: hush}\n",
            "  vars: {db: {pwd: 1234}}\n",
            "  tasks:\n    - copy: {content: hush, dest: /x}\n      no_log: true\n",
            "  tasks:\n    - command: login hush\n      no_log: true\n",
            "  tasks:\n    - copy: {content: \"{{ x | default('hush') }}\", dest: /x}\n      no_log: true\n",
            "  tasks:\n    - copy: {content: \"{{ y }}\", dest: /x}\n      vars: {y: hush}\n      no_log: true\n",
            "  tasks:\n    - copy: {content: \"{{ item }}\", dest: /x}\n      loop: [hush]\n      no_log: true\n",
        ] {
            assert!(why(text).is_some_and(|why| !why.contains("hush")), "{text}");
        }
        for text in [
            "  vars: {colour: red, api_key: \"{{ other }}\"}\n",
            "  tasks:\n    - copy: {content: hello, dest: /x}\n",
            "  tasks:\n    - copy: {content: \"{{ x }}{{ y }}\\n\", dest: /x, mode: '0600'}\n      no_log: true\n",
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }
}

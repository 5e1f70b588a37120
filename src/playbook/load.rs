//! From YAML to plays and tasks.

use std::path::{Path, PathBuf};

use super::keywords::{self, instead};
use super::{Batch, Loop, Play, Playbook, Task};
use crate::error::{Diagnostic, Origin, Problems, nearest};
use crate::value::{Entry, Loaded, Map, Node, Value, Vars};

/// Where files come from that a playbook names; keeps this room from reading disks.
pub trait Files {
    /// The text of a file of variables, and what to call it in messages.
    fn vars_file(&self, name: &str) -> Option<(PathBuf, String)>;
}

/// Reads a playbook. `modules` are the names that a task may use. What can be
/// used of it comes back even where something is wrong.
#[must_use]
pub fn load(path: &Path, text: &str, modules: &[&str], files: &dyn Files) -> Loaded<Playbook> {
    let (node, mut problems) = crate::yaml::load(path, text);
    let mut playbook = Playbook { plays: Vec::new() };
    let Some(node) = node else {
        if !problems.has_errors() {
            let origin = Origin::whole(path, text);
            problems.push(Diagnostic::error("the playbook is empty").at(&origin));
        }
        return (playbook, problems);
    };
    let Some(plays) = node.as_seq() else {
        let found = format!("a playbook is a list of plays, not {}", node.kind());
        problems.push(
            Diagnostic::error(found)
                .at(&node.origin)
                .hint("begin each play with `- `"),
        );
        return (playbook, problems);
    };
    let mut loader = Loader {
        modules,
        files,
        problems: &mut problems,
    };
    for play in plays {
        if let Some(play) = loader.play(play) {
            playbook.plays.push(play);
        }
    }
    (playbook, problems)
}

struct Loader<'a> {
    modules: &'a [&'a str],
    files: &'a dyn Files,
    problems: &'a mut Problems,
}

impl Loader<'_> {
    fn play(&mut self, node: &Node) -> Option<Play> {
        let Some(map) = node.as_map() else {
            self.wrong(node, "a play", "a mapping");
            return None;
        };
        for (key, entry) in map {
            if keywords::PLAY.contains(&key.as_str()) {
                continue;
            }
            let problem = Diagnostic::error(format!("`{key}` is no word of a play")).at(&entry.key);
            self.problems
                .push(match instead(keywords::LACKING_IN_PLAY, key) {
                    Some(instead) => Diagnostic::error(format!("plays cannot have `{key}` here"))
                        .at(&entry.key)
                        .hint(instead),
                    None if self.modules.contains(&short(key)) => {
                        problem.hint("tasks stand in a play's `tasks`")
                    }
                    None => problem.did_you_mean(key, keywords::PLAY.iter().copied()),
                });
        }
        let (hosts, hosts_origin) = match map.get("hosts") {
            Some(entry) => (self.hosts(&entry.node), entry.node.origin.clone()),
            None => {
                let problem = Diagnostic::error("the play does not say for which `hosts` it is");
                self.problems.push(problem.at(&node.origin));
                (String::new(), node.origin.clone())
            }
        };
        if let Some(entry) = map.get("gather_facts") {
            // Facts are always gathered, in one batch; the word is accepted for habit.
            self.bool(&entry.node, "gather_facts");
        }
        self.become_user(map);
        let tags = self.texts(map, "tags");
        let mut vars = self.vars_files(map);
        vars.extend(self.vars(map));
        let tasks = self.tasks(map, "tasks", &tags);
        let handlers = self.tasks(map, "handlers", &tags);
        self.notified(&tasks, &handlers);
        Some(Play {
            name: self.text(map, "name").unwrap_or_else(|| hosts.clone()),
            origin: node.origin.clone(),
            hosts,
            hosts_origin,
            serial: self.serial(map),
            max_fail_percentage: self.percentage(map),
            vars,
            r#become: map
                .get("become")
                .and_then(|entry| self.bool(&entry.node, "become")),
            tags,
            tasks,
            handlers,
        })
    }

    fn hosts(&mut self, node: &Node) -> String {
        match &node.value {
            Value::Str(text) => text.clone(),
            Value::Seq(nodes) => {
                let names: Vec<&str> = nodes.iter().filter_map(Node::as_str).collect();
                if names.len() != nodes.len() {
                    self.wrong(node, "`hosts`", "a pattern or a list of patterns");
                }
                names.join(",")
            }
            _ => {
                self.wrong(node, "`hosts`", "a pattern or a list of patterns");
                String::new()
            }
        }
    }

    fn serial(&mut self, map: &Map) -> Vec<Batch> {
        let Some(entry) = map.get("serial") else {
            return Vec::new();
        };
        let nodes = match &entry.node.value {
            Value::Seq(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        let mut batches = Vec::new();
        for node in nodes {
            let batch = match &node.value {
                Value::Int(count) => u32::try_from(*count).ok().map(Batch::Hosts),
                Value::Str(text) => match text.trim().strip_suffix('%') {
                    Some(number) => number.trim().parse().ok().map(Batch::Percent),
                    None => text.trim().parse().ok().map(Batch::Hosts),
                },
                _ => None,
            };
            match batch {
                Some(Batch::Hosts(0) | Batch::Percent(0)) | None => {
                    self.wrong(
                        node,
                        "`serial`",
                        "a number of hosts, or a percentage such as `30%`",
                    );
                }
                Some(Batch::Percent(part)) if part > 100 => {
                    self.wrong(node, "`serial`", "at most `100%`");
                }
                Some(batch) => batches.push(batch),
            }
        }
        batches
    }

    fn percentage(&mut self, map: &Map) -> Option<f64> {
        let node = &map.get("max_fail_percentage")?.node;
        let number = match &node.value {
            Value::Int(number) => i32::try_from(*number).ok().map(f64::from),
            Value::Float(number) => Some(*number),
            Value::Str(text) => text.trim().trim_end_matches('%').parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        if number.is_none() {
            self.wrong(node, "`max_fail_percentage`", "a number from 0 to 100");
        }
        number
    }

    fn become_user(&mut self, map: &Map) {
        if let Some(entry) = map.get("become_user")
            && entry.node.as_str() != Some("root")
        {
            self.problems.push(
                Diagnostic::error("one can only become `root` here")
                    .at(&entry.node.origin)
                    .hint("leave `become_user` out"),
            );
        }
    }

    fn vars(&mut self, map: &Map) -> Vars {
        let Some(entry) = map.get("vars") else {
            return Vars::new();
        };
        match &entry.node.value {
            Value::Map(vars) => {
                for (name, entry) in vars {
                    self.is_name(name, &entry.key, "variable");
                }
                vars.iter()
                    .map(|(name, entry)| (name.clone(), entry.node.clone()))
                    .collect()
            }
            Value::Null => Vars::new(),
            _ => {
                self.wrong(&entry.node, "`vars`", "a mapping");
                Vars::new()
            }
        }
    }

    fn vars_files(&mut self, map: &Map) -> Vars {
        let mut vars = Vars::new();
        let Some(entry) = map.get("vars_files") else {
            return vars;
        };
        let nodes = match &entry.node.value {
            Value::Seq(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        for node in nodes {
            let Some(name) = node.as_str() else {
                self.wrong(node, "`vars_files`", "a list of file names");
                continue;
            };
            if crate::render::has_template(node) {
                self.problems.push(
                    Diagnostic::error(
                        "`vars_files` cannot be templates: they are read before any host is known",
                    )
                    .at(&node.origin),
                );
                continue;
            }
            let Some((path, text)) = self.files.vars_file(name) else {
                self.problems
                    .push(Diagnostic::error(format!("there is no file `{name}`")).at(&node.origin));
                continue;
            };
            let (content, problems) = crate::yaml::load(&path, &text);
            self.problems.extend(problems);
            match content.map(|node| (node.value, node.origin)) {
                Some((Value::Map(map), _)) => {
                    vars.extend(map.into_iter().map(|(name, entry)| (name, entry.node)));
                }
                Some((_, origin)) => self
                    .problems
                    .push(Diagnostic::error("a file of variables is a mapping").at(&origin)),
                None => {}
            }
        }
        vars
    }

    fn tasks(&mut self, map: &Map, word: &str, tags: &[String]) -> Vec<Task> {
        let Some(entry) = map.get(word) else {
            return Vec::new();
        };
        match &entry.node.value {
            Value::Seq(nodes) => nodes
                .iter()
                .filter_map(|node| self.task(node, tags))
                .collect(),
            Value::Null => Vec::new(),
            _ => {
                self.wrong(&entry.node, &format!("`{word}`"), "a list of tasks");
                Vec::new()
            }
        }
    }

    fn task(&mut self, node: &Node, play_tags: &[String]) -> Option<Task> {
        let Some(map) = node.as_map() else {
            self.wrong(node, "a task", "a mapping");
            return None;
        };
        let (module, module_origin, args) = self.module(node, map)?;
        self.become_user(map);
        let mut tags = play_tags.to_vec();
        tags.extend(self.texts(map, "tags"));
        let r#become = map
            .get("become")
            .and_then(|entry| self.bool(&entry.node, "become"));
        if let (Some(false), Some(entry)) = (r#become, map.get("become")) {
            self.problems.push(
                Diagnostic::warning(
                    "`become: false` at a task has no effect: there is one shell a host",
                )
                .at(&entry.node.origin),
            );
        }
        let register = self.text(map, "register");
        if let (Some(name), Some(entry)) = (&register, map.get("register")) {
            self.is_name(name, &entry.node.origin, "variable");
        }
        Some(Task {
            name: self.text(map, "name").unwrap_or_else(|| module.clone()),
            origin: node.origin.clone(),
            module,
            module_origin,
            args,
            when: map.get("when").map(|entry| entry.node.clone()),
            r#loop: self.r#loop(map),
            register,
            tags,
            notify: self.located_texts(map, "notify"),
            listen: self.texts(map, "listen"),
            r#become,
            vars: self.vars(map),
            no_log: map
                .get("no_log")
                .and_then(|entry| self.bool(&entry.node, "no_log"))
                .unwrap_or(false),
            check_mode: map
                .get("check_mode")
                .and_then(|entry| self.bool(&entry.node, "check_mode")),
            changed_when: map.get("changed_when").map(|entry| entry.node.clone()),
            failed_when: map.get("failed_when").map(|entry| entry.node.clone()),
        })
    }

    /// The one key of a task that is no word of it.
    fn module(&mut self, node: &Node, map: &Map) -> Option<(String, Origin, Node)> {
        let mut found: Vec<(&String, &Entry)> = Vec::new();
        let mut complained = false;
        for (key, entry) in map {
            if keywords::TASK.contains(&key.as_str()) {
                continue;
            }
            if self.modules.contains(&short(key)) {
                found.push((key, entry));
                continue;
            }
            complained = true;
            self.unknown_in_task(key, entry);
        }
        match found[..] {
            [(key, entry)] => {
                let name = short(key).to_owned();
                Some((name, entry.key.clone(), entry.node.clone()))
            }
            [] => {
                if !complained {
                    self.problems
                        .push(Diagnostic::error("the task has no module").at(&node.origin));
                }
                None
            }
            [(first, one), (second, two), ..] => {
                self.problems.push(
                    Diagnostic::error(format!(
                        "a task has one module, not `{first}` and `{second}`"
                    ))
                    .at(&two.key)
                    .related(&one.key, "the first one"),
                );
                None
            }
        }
    }

    fn unknown_in_task(&mut self, key: &str, entry: &Entry) {
        let name = short(key);
        let problem = if let Some(instead) = instead(keywords::LACKING_IN_TASK, key) {
            Diagnostic::error(format!("tasks cannot have `{key}` here")).hint(instead)
        } else if let Some(instead) = instead(keywords::LACKING_MODULES, name) {
            Diagnostic::error(format!("there is no module `{key}` here")).hint(instead)
        } else {
            let known = keywords::TASK.iter().chain(self.modules).copied();
            let problem =
                Diagnostic::error(format!("`{key}` is neither a module nor a word of a task"));
            match nearest(name, known) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("modules are {}", self.modules.join(", "))),
            }
        };
        self.problems.push(problem.at(&entry.key));
    }

    fn r#loop(&mut self, map: &Map) -> Option<Loop> {
        let control = map.get("loop_control");
        let items = match (map.get("loop"), control) {
            (Some(entry), _) => entry.node.clone(),
            (None, Some(control)) => {
                let problem = Diagnostic::error("`loop_control` without `loop`");
                self.problems.push(problem.at(&control.key));
                return None;
            }
            (None, None) => return None,
        };
        let mut made = Loop {
            items,
            variable: "item".to_owned(),
            index: None,
        };
        if !matches!(made.items.value, Value::Seq(_) | Value::Str(_)) {
            let node = made.items.clone();
            self.wrong(&node, "`loop`", "a list, or an expression that gives one");
        }
        let Some(control) = control else {
            return Some(made);
        };
        let Some(words) = control.node.as_map() else {
            self.wrong(&control.node, "`loop_control`", "a mapping");
            return Some(made);
        };
        for (word, entry) in words {
            let text = entry.node.as_str().map(str::to_owned);
            match (word.as_str(), text) {
                ("loop_var", Some(name)) => {
                    self.is_name(&name, &entry.node.origin, "variable");
                    made.variable = name;
                }
                ("index_var", Some(name)) => {
                    self.is_name(&name, &entry.node.origin, "variable");
                    made.index = Some(name);
                }
                // Items are shown by what changes, not by a label.
                ("label", _) => {}
                ("loop_var" | "index_var", None) => {
                    self.wrong(&entry.node, &format!("`{word}`"), "a name");
                }
                _ => self.problems.push(
                    Diagnostic::error(format!("`{word}` is no word of `loop_control`"))
                        .at(&entry.key)
                        .did_you_mean(word, ["loop_var", "index_var", "label"]),
                ),
            }
        }
        Some(made)
    }

    /// Every name in `notify` is that of a handler.
    fn notified(&mut self, tasks: &[Task], handlers: &[Task]) {
        for (name, origin) in tasks.iter().chain(handlers).flat_map(|task| &task.notify) {
            if name.contains("{{") || handlers.iter().any(|handler| handler.answers_to(name)) {
                continue;
            }
            let known = handlers
                .iter()
                .flat_map(|handler| std::iter::once(&handler.name).chain(&handler.listen))
                .map(String::as_str);
            let problem = Diagnostic::error(format!("there is no handler `{name}` in this play"));
            self.problems
                .push(problem.at(origin).did_you_mean(name, known));
        }
    }

    fn text(&mut self, map: &Map, word: &str) -> Option<String> {
        let node = &map.get(word)?.node;
        match &node.value {
            Value::Str(text) => Some(text.clone()),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => Some(node.to_json().to_string()),
            _ => {
                self.wrong(node, &format!("`{word}`"), "a string");
                None
            }
        }
    }

    fn texts(&mut self, map: &Map, word: &str) -> Vec<String> {
        let located = self.located_texts(map, word);
        located
            .into_iter()
            .flat_map(|(text, _)| {
                let parts = text.split(',').map(|part| part.trim().to_owned());
                // Tags may be written with commas between, as on the command line.
                parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
            })
            .collect()
    }

    fn located_texts(&mut self, map: &Map, word: &str) -> Vec<(String, Origin)> {
        let Some(entry) = map.get(word) else {
            return Vec::new();
        };
        let nodes = match &entry.node.value {
            Value::Seq(nodes) => nodes.as_slice(),
            Value::Null => &[],
            _ => std::slice::from_ref(&entry.node),
        };
        let mut texts = Vec::new();
        for node in nodes {
            match &node.value {
                Value::Str(text) => texts.push((text.clone(), node.origin.clone())),
                Value::Int(number) => texts.push((number.to_string(), node.origin.clone())),
                _ => self.wrong(node, &format!("`{word}`"), "a string or a list of strings"),
            }
        }
        texts
    }

    fn bool(&mut self, node: &Node, word: &str) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong(node, &format!("`{word}`"), "true or false");
                None
            }
        }
    }

    fn is_name(&mut self, name: &str, origin: &Origin, what: &str) {
        let first = name
            .chars()
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            self.problems.push(
                Diagnostic::error(format!("`{name}` cannot be the name of a {what}"))
                    .at(origin)
                    .hint("names are letters, digits and `_`, and begin with a letter"),
            );
        }
    }

    fn wrong(&mut self, node: &Node, what: &str, wanted: &str) {
        let message = format!("{what} is {wanted}, not {}", node.kind());
        self.problems
            .push(Diagnostic::error(message).at(&node.origin));
    }
}

/// The name without the collection of Ansible's own modules.
fn short(name: &str) -> &str {
    name.strip_prefix("ansible.builtin.")
        .or_else(|| name.strip_prefix("ansible.legacy."))
        .unwrap_or(name)
}

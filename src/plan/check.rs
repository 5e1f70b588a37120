//! What can be seen to be wrong with playbook, templates and variables before any
//! host is connected to.
//!
//! Two ways together: every text is looked through for names that nobody defines,
//! whatever the conditions say; and for every host, each task that will surely be
//! done is rendered as far as it does not depend on facts.

use std::collections::HashSet;

use super::{HostInput, desired, scope};
use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::{Diagnostic, Origin, Problems, Severity, nearest};
use crate::module::{self, Args};
use crate::platform;
use crate::playbook::{Playbook, Project, Task};
use crate::render::{self, Binding, Form, Halt, Layer, Scope, Use};
use crate::strategy;
use crate::value::{Node, Value};

/// Names that the program itself gives, for which no variable stands in the inventory.
const MAGIC: [&str; 5] = ["ansible_managed", "omit", "groups", "item", "hostvars"];

/// What `check` found.
#[derive(Debug)]
pub struct Checked {
    /// What is wanted of each host's GPUs, in the order of the hosts.
    pub desired: Vec<Desired>,
    /// All findings, each once.
    pub problems: Problems,
}

/// Checks a playbook with everything that it uses, for all its hosts.
#[must_use]
pub fn check(
    playbook: &Playbook,
    hosts: &[HostInput<'_>],
    project: &Project,
    catalog: &Catalog,
) -> Checked {
    let mut found = Findings::default();
    for task in tasks(playbook) {
        found.extend(module::check(task));
    }
    let known = known_names(playbook, hosts);
    for task in tasks(playbook) {
        for used in uses_of(task, project, &mut found) {
            undefined(&used, task, &known, &mut found);
        }
    }
    let slices = tasks(playbook).any(|task| task.module == "gpu_strategy");
    let mut wanted = Vec::with_capacity(hosts.len());
    for host in hosts {
        let (desired, problems) = desired(host, project);
        let sound = !problems.has_errors();
        found.extend(problems);
        if sound && slices {
            found.extend(strategy::check_offline(&desired, catalog));
            found.extend(platform::check_offline(&desired, catalog));
        }
        wanted.push(desired);
        for number in host.plays {
            check_play(host, *number, project, &mut found);
        }
    }
    Checked {
        desired: wanted,
        problems: found.problems,
    }
}

/// Findings, each once: many hosts have the same ones.
#[derive(Default)]
struct Findings {
    problems: Problems,
    seen: HashSet<(String, Option<(usize, usize)>)>,
}

impl Findings {
    fn push(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.origin.as_ref().map(|origin| {
            (
                std::sync::Arc::as_ptr(&origin.source) as usize,
                origin.span.start,
            )
        });
        // One finding a place: a second way of looking says the same in other words.
        let key = match place {
            Some(_) if diagnostic.severity == Severity::Error => (String::new(), place),
            _ => (diagnostic.message.clone(), place),
        };
        if self.seen.insert(key) {
            self.problems.push(diagnostic);
        }
    }

    fn extend(&mut self, problems: Problems) {
        for problem in problems.0 {
            self.push(problem);
        }
    }
}

fn tasks(playbook: &Playbook) -> impl Iterator<Item = &Task> {
    playbook
        .plays
        .iter()
        .flat_map(|play| play.tasks.iter().chain(&play.handlers))
}

/// All names that any host or any task defines.
fn known_names(playbook: &Playbook, hosts: &[HostInput<'_>]) -> HashSet<String> {
    let mut known: HashSet<String> = MAGIC.iter().map(|name| (*name).to_owned()).collect();
    known.extend(module::variables());
    for host in hosts {
        for name in host.vars.keys().chain(host.extra.keys()) {
            if !known.contains(name) {
                known.insert(name.clone());
            }
        }
    }
    for play in &playbook.plays {
        known.extend(play.vars.keys().cloned());
    }
    for task in tasks(playbook) {
        known.extend(task.vars.keys().cloned());
        known.extend(task.register.iter().cloned());
        if let Some(wanted) = &task.r#loop {
            known.insert(wanted.variable.clone());
            known.extend(wanted.index.iter().cloned());
        }
        if task.module == "set_fact" {
            let keys = task.params().into_iter().flat_map(|params| params.keys());
            known.extend(keys.cloned());
        }
    }
    known
}

/// The variables that a task uses: in its words, parameters and template.
fn uses_of(task: &Task, project: &Project, found: &mut Findings) -> Vec<Use> {
    let mut uses = Vec::new();
    let params = task.params();
    let conditions = ["that", "var"];
    for condition in [&task.when, &task.changed_when, &task.failed_when]
        .into_iter()
        .flatten()
    {
        texts(condition, Form::Expression, &mut uses, found);
    }
    match params {
        Some(params) => {
            for (key, entry) in params {
                let form = match task.module.as_str() {
                    "assert" | "debug" if conditions.contains(&key.as_str()) => Form::Expression,
                    _ => Form::Template,
                };
                texts(&entry.node, form, &mut uses, found);
            }
        }
        None => texts(&task.args, Form::Template, &mut uses, found),
    }
    for node in task.vars.values() {
        texts(node, Form::Template, &mut uses, found);
    }
    if let Some(wanted) = &task.r#loop {
        texts(&wanted.items, Form::Template, &mut uses, found);
    }
    if task.module == "template"
        && let Some(node) = params
            .and_then(|params| params.get("src"))
            .map(|entry| &entry.node)
        && let Some(name) = node.as_str()
        && !render::has_template(node)
    {
        uses.extend(template_uses(name, node, project, found));
    }
    uses
}

fn template_uses(name: &str, node: &Node, project: &Project, found: &mut Findings) -> Vec<Use> {
    let Some(file) = project.template(name) else {
        let known = project.content().names(crate::content::Folder::Templates);
        found.push(
            Diagnostic::error(format!("there is no template `{name}`"))
                .at(&node.origin)
                .did_you_mean(name, known),
        );
        return Vec::new();
    };
    let source = match file.source() {
        Ok(source) => source,
        Err(message) => {
            found.push(Diagnostic::error(message).at(&node.origin));
            return Vec::new();
        }
    };
    let origin = Origin::new(&source, 0..source.text.len());
    match render::uses(&source.text, &origin, Form::Template) {
        Ok(uses) => uses,
        Err(Halt::Problem(problem)) => {
            found.push(*problem);
            Vec::new()
        }
        Err(Halt::Pending) => Vec::new(),
    }
}

fn texts(node: &Node, form: Form, uses: &mut Vec<Use>, found: &mut Findings) {
    match &node.value {
        Value::Str(text) if form == Form::Expression || render::has_template(node) => {
            match render::uses(text, &node.origin, form) {
                Ok(more) => uses.extend(more),
                Err(Halt::Problem(problem)) => found.push(*problem),
                Err(Halt::Pending) => {}
            }
        }
        Value::Seq(nodes) => nodes.iter().for_each(|node| texts(node, form, uses, found)),
        Value::Map(map) => map
            .values()
            .for_each(|entry| texts(&entry.node, form, uses, found)),
        _ => {}
    }
}

/// A name that nobody defines is an error, unless the text or the task's condition
/// asks whether it is defined.
fn undefined(used: &Use, task: &Task, known: &HashSet<String>, found: &mut Findings) {
    if used.guarded || known.contains(&used.name) {
        return;
    }
    let asked = task
        .when
        .as_ref()
        .is_some_and(|when| asks_for(when, &used.name));
    if asked {
        return;
    }
    let near = nearest(&used.name, known.iter().map(String::as_str));
    let problem = Diagnostic::error(format!("`{}` is undefined", used.name)).at(&used.at);
    found.push(match near {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("no host, play or task defines it"),
    });
}

fn asks_for(when: &Node, name: &str) -> bool {
    match &when.value {
        Value::Str(text) => text.contains(name) && text.contains("defined"),
        Value::Seq(nodes) => nodes.iter().any(|node| asks_for(node, name)),
        _ => false,
    }
}

/// Renders, for one host, what will surely be done.
fn check_play(host: &HostInput<'_>, number: usize, project: &Project, found: &mut Findings) {
    let Some(play) = host.playbook.plays.get(number) else {
        return;
    };
    let mut scope = scope(host, Some(number));
    // What facts and tasks will set waits; nothing is said of what depends on it.
    for name in module::variables() {
        scope.set(Layer::Set, name, Binding::Pending);
    }
    for task in tasks(host.playbook) {
        if let Some(name) = &task.register {
            scope.set(Layer::Set, name.clone(), Binding::Pending);
        }
        if task.module == "set_fact" {
            for name in task.params().into_iter().flat_map(|params| params.keys()) {
                scope.set(Layer::Set, name.clone(), Binding::Pending);
            }
        }
    }
    for task in &play.tasks {
        match check_task(task, &scope, project) {
            Err(Halt::Problem(problem)) => found.push(*problem),
            Ok(()) | Err(Halt::Pending) => {}
        }
    }
}

fn check_task(task: &Task, scope: &Scope, project: &Project) -> render::Rendered<()> {
    let Some(module) = module::find(&task.module) else {
        return Ok(());
    };
    let mut scope = scope.clone().with_vars(Layer::Task, &task.vars);
    if let Some(wanted) = &task.r#loop {
        let list = match (render::node(&wanted.items, &scope), &task.when) {
            (Ok(list), _) => list,
            (Err(_), Some(when)) if render::condition(when, &scope) == Ok(false) => return Ok(()),
            (Err(halt), _) => return Err(halt),
        };
        let Some(first) = list.as_seq().and_then(<[Node]>::first) else {
            return Ok(());
        };
        // One item stands for all; the others differ in values, seldom in names.
        scope.set(
            Layer::Loop,
            wanted.variable.clone(),
            Binding::Known(first.to_json()),
        );
        if let Some(index) = &wanted.index {
            scope.set(Layer::Loop, index.clone(), Binding::Known(0.into()));
        }
    }
    if let Some(when) = &task.when
        && !render::condition(when, &scope)?
    {
        return Ok(());
    }
    let args = Args::render(module, task, &scope)?;
    if task.module == "template"
        && let Some(file) = args.text("src").and_then(|name| project.template(&name))
        && let Ok(source) = file.source()
    {
        render::template(&source, &scope)?;
    }
    Ok(())
}

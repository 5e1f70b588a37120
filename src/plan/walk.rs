//! One host's way through the plays: conditions, loops, results, handlers.
//!
//! A task that waits for something that was not read yet is passed over, and what
//! depends on it too, so that one pass finds as much to read as it can.

use std::sync::{Arc, Mutex, PoisonError};

use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value as Json, json};

use super::{
    Complete, Guard, HostPlan, PlanInput, Planned, PlannedHandler, Used, applied, order, owed,
    scope,
};
use crate::error::{Diagnostic, Problems};
use crate::module::{self, Args, Context, Done, Gpus, Landing, ReadCache, World};
use crate::playbook::{Play, Project, Task, UsedFiles};
use crate::render::{self, Asked, Binding, Halt, Layer, Rendered, Scope};
use crate::step::{Step, StepId};
use crate::strategy;
use crate::transport::Read;
use crate::value::{Node, Value};

/// Rounds of handlers that notify handlers.
const MOST_ROUNDS: usize = 16;
/// Most items of one loop.
const MOST_ITEMS: usize = 10_000;

pub(super) fn walk(input: &PlanInput<'_>, cache: &ReadCache) -> Result<Planned, Problems> {
    let files = Arc::default();
    let project = input.project.noting(&files);
    let mut walk = Walk {
        input,
        cache,
        scope: Scope::default(),
        kept: IndexMap::new(),
        notified: IndexMap::new(),
        owed: IndexSet::new(),
        handlers: Vec::new(),
        world: World::default(),
        gpus: Gpus::default(),
        missing: IndexSet::new(),
        used: IndexSet::new(),
        landings: Vec::new(),
        steps: Vec::new(),
        notes: IndexSet::new(),
        problems: Problems::default(),
        pending: false,
        asked: Asked::default(),
        hidden: Asked::default(),
        files: Arc::clone(&files),
        hiding: project.hiding(),
        project,
    };
    let (owed, note) = owed::names(cache);
    walk.notes.extend(note);
    walk.notes
        .extend(input.share.and_then(|share| share.note.clone()));
    walk.owed.extend(owed);
    for number in input.host.plays {
        let Some(play) = input.host.playbook.plays.get(*number) else {
            continue;
        };
        walk.scope = scope(&input.host, Some(*number)).noting(&walk.asked);
        for (name, binding) in &walk.kept {
            walk.scope.set(Layer::Set, name.clone(), binding.clone());
        }
        walk.gpus.desired = None;
        if walk.play(play).is_err() {
            break;
        }
    }
    walk.finish()
}

/// Nothing after this may be planned.
struct Stop;

struct Walk<'a> {
    input: &'a PlanInput<'a>,
    cache: &'a ReadCache,
    scope: Scope,
    /// What tasks have set; it outlives its play.
    kept: IndexMap<String, Binding>,
    /// Handlers' names, with the steps that notified; none if an earlier run owed them.
    notified: IndexMap<String, Vec<StepId>>,
    /// Handlers that an earlier run owed and no play had yet.
    owed: IndexSet<String>,
    /// Handlers that run.
    handlers: Vec<PlannedHandler>,
    world: World,
    gpus: Gpus,
    missing: IndexSet<Read>,
    used: IndexSet<Read>,
    landings: Vec<Landing>,
    steps: Vec<Step>,
    notes: IndexSet<String>,
    problems: Problems,
    /// Whether something was passed over.
    pending: bool,
    /// Variables that were asked for, and those of them whose use must not be shown.
    asked: Asked,
    hidden: Asked,
    /// Files of the project that were used.
    files: Arc<Mutex<UsedFiles>>,
    /// The project as tasks see it, and as those see it that show nothing.
    project: Project,
    hiding: Project,
}

impl Walk<'_> {
    fn play(&mut self, play: &Play) -> Result<(), Stop> {
        let has = |name: &String| play.handlers.iter().any(|task| task.answers_to(name));
        for name in std::mem::take(&mut self.owed) {
            if has(&name) {
                self.notified.entry(name).or_default();
            } else {
                self.owed.insert(name);
            }
        }
        for task in &play.tasks {
            if !self.input.tags.allow(&task.tags) {
                continue;
            }
            if task.module == "meta" {
                if self.wants_flush(task) {
                    self.handlers(play)?;
                }
                continue;
            }
            self.task(task, false)?;
        }
        self.handlers(play)
    }

    fn wants_flush(&mut self, task: &Task) -> bool {
        let flush = task.args.as_str() == Some("flush_handlers")
            || task.params().is_some_and(|params| {
                params
                    .values()
                    .any(|entry| entry.node.as_str() == Some("flush_handlers"))
            });
        let holds = task
            .when
            .as_ref()
            .is_none_or(|when| matches!(render::condition(when, &self.scope), Ok(true)));
        flush && holds
    }

    /// Handlers run in the order in which they are written, each once a round.
    fn handlers(&mut self, play: &Play) -> Result<(), Stop> {
        for _ in 0..MOST_ROUNDS {
            let notified = std::mem::take(&mut self.notified);
            if notified.is_empty() {
                return Ok(());
            }
            for handler in &play.handlers {
                self.handler(handler, &notified)?;
            }
        }
        let answers = |task: &&Task| self.notified.keys().any(|name| task.answers_to(name));
        let again: Vec<&Task> = play.handlers.iter().filter(answers).collect();
        if let Some(first) = again.first() {
            let names: Vec<String> = again
                .iter()
                .map(|task| format!("`{}`", task.name))
                .collect();
            let problem = Diagnostic::error(format!(
                "handlers notify one another without end: {}",
                names.join(", ")
            ));
            self.problems.push(problem.at(&first.origin));
        }
        self.notified.clear();
        Ok(())
    }

    fn handler(
        &mut self,
        handler: &Task,
        notified: &IndexMap<String, Vec<StepId>>,
    ) -> Result<(), Stop> {
        let mut by: IndexSet<StepId> = IndexSet::new();
        let (mut asked, mut owed) = (false, false);
        for (name, steps) in notified {
            if handler.answers_to(name) {
                asked = true;
                owed |= steps.is_empty();
                by.extend(steps.iter().cloned());
            }
        }
        if !asked {
            return Ok(());
        }
        let before = self.steps.len();
        self.task(handler, true)?;
        let by: Vec<StepId> = by.into_iter().collect();
        order::undo_again(&mut self.steps, before, &by);
        let own: Vec<StepId> = self.steps[before..]
            .iter()
            .map(|step| step.id.clone())
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        if owed {
            self.notes.insert(owed::runs(&handler.name));
        }
        match self
            .handlers
            .iter_mut()
            .find(|planned| planned.name == handler.name)
        {
            Some(planned) => {
                planned.notified_by.extend(by);
                planned.steps.extend(own);
            }
            None => self.handlers.push(PlannedHandler {
                name: handler.name.clone(),
                notified_by: by,
                steps: own,
            }),
        }
        Ok(())
    }

    fn task(&mut self, task: &Task, in_handler: bool) -> Result<(), Stop> {
        let scope = match task.no_log {
            true => self.scope.clone().noting(&self.hidden),
            false => self.scope.clone(),
        };
        let scope = scope.with_vars(Layer::Task, &task.vars);
        let before = self.steps.len();
        let outcome = match &task.r#loop {
            None => self.once(task, &scope, in_handler).map(Outcome::binding),
            Some(_) => self.each(task, &scope, in_handler),
        };
        match outcome {
            Ok(Registered { binding, changed }) => {
                if let Some(name) = &task.register {
                    self.keep(name.clone(), binding);
                }
                if changed {
                    let by: Vec<StepId> = self.steps[before..]
                        .iter()
                        .filter(|step| step.is_change())
                        .map(|step| step.id.clone())
                        .collect();
                    self.notify(task, &scope, &by);
                }
                Ok(())
            }
            Err(halt) => self.halted(task, halt),
        }
    }

    fn halted(&mut self, task: &Task, halt: Halt) -> Result<(), Stop> {
        if let Some(name) = &task.register {
            self.keep(name.clone(), Binding::Pending);
        }
        if task.module.starts_with("gpu_") {
            // What comes after would only say that their variables are undefined.
            for name in module::variables() {
                self.keep(name, Binding::Pending);
            }
        }
        match halt {
            Halt::Pending => self.pending = true,
            Halt::Problem(problem) => {
                self.problems.push(*problem);
                if task.module == "assert" || task.module == "fail" {
                    return Err(Stop);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, name: String, binding: Binding) {
        self.scope.set(Layer::Set, name.clone(), binding.clone());
        self.kept.insert(name, binding);
    }

    fn notify(&mut self, task: &Task, scope: &Scope, by: &[StepId]) {
        for (name, origin) in &task.notify {
            let node = Node::new(Value::Str(name.clone()), origin.clone());
            let name = match render::node(&node, scope) {
                Ok(node) => node.as_str().map_or_else(|| name.clone(), str::to_owned),
                Err(Halt::Pending) => continue,
                Err(Halt::Problem(problem)) => {
                    self.problems.push(*problem);
                    continue;
                }
            };
            self.notified
                .entry(name)
                .or_default()
                .extend(by.iter().cloned());
        }
    }

    fn once(&mut self, task: &Task, scope: &Scope, in_handler: bool) -> Rendered<Outcome> {
        if let Some(when) = &task.when
            && !render::condition(when, scope)?
        {
            return Ok(Outcome::Skipped);
        }
        let Some(module) = module::find(&task.module) else {
            let message = format!("there is no module `{}`", task.module);
            return Err(Diagnostic::error(message).at(&task.module_origin).into());
        };
        let args = Args::render(module, task, scope)?;
        let mut context = Context {
            task,
            in_handler,
            scope,
            facts: self.input.facts,
            catalog: self.input.catalog,
            project: match task.no_log {
                true => &self.hiding,
                false => &self.project,
            },
            allow_reboot: self.input.allow_reboot,
            share: self.input.share,
            cache: self.cache,
            world: &mut self.world,
            gpus: &mut self.gpus,
            missing: &mut self.missing,
            used: &mut self.used,
            landings: &mut self.landings,
        };
        let mut done = (module.plan)(&args, &mut context)?;
        let changed = done.is_changed();
        for step in &mut done.steps {
            step.secret |= task.no_log;
        }
        self.steps.append(&mut done.steps);
        self.notes.extend(done.notes.drain(..));
        for (name, binding) in std::mem::take(&mut done.facts) {
            self.keep(name, binding);
        }
        Ok(Outcome::Done {
            task: task.name.clone(),
            done: Box::new(done),
            changed,
        })
    }

    fn each(&mut self, task: &Task, scope: &Scope, in_handler: bool) -> Rendered<Registered> {
        let Some(wanted) = &task.r#loop else {
            return self.once(task, scope, in_handler).map(Outcome::binding);
        };
        let list = match render::node(&wanted.items, scope) {
            Ok(list) => list,
            // As in Ansible: a list that is not there does not matter to a task
            // that is not done.
            Err(halt) => match &task.when {
                Some(when) if render::condition(when, scope) == Ok(false) => {
                    return Ok(Outcome::Skipped.binding());
                }
                _ => return Err(halt),
            },
        };
        let Some(items) = list.as_seq() else {
            return Err(Diagnostic::error(format!(
                "`loop` wants a list, but this is {}",
                list.kind()
            ))
            .at(&wanted.items.origin)
            .into());
        };
        if items.len() > MOST_ITEMS {
            let message = format!("`loop` has more than {MOST_ITEMS} items");
            return Err(Diagnostic::error(message).at(&wanted.items.origin).into());
        }
        let mut results = Vec::new();
        let (mut changed, mut later, mut all_skipped) = (false, false, true);
        let mut halted = None;
        for (index, item) in items.iter().enumerate() {
            let item = item.to_json();
            let mut scope = scope.clone().with(
                Layer::Loop,
                wanted.variable.clone(),
                Binding::Known(item.clone()),
            );
            if let Some(name) = &wanted.index {
                scope.set(Layer::Loop, name.clone(), Binding::Known(json!(index)));
            }
            // What an earlier item has set is seen by the next one.
            for (name, binding) in &self.kept {
                scope.set(Layer::Set, name.clone(), binding.clone());
            }
            let outcome = match self.once(task, &scope, in_handler) {
                Ok(outcome) => outcome,
                Err(Halt::Pending) => {
                    halted.get_or_insert(Halt::Pending);
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            all_skipped &= matches!(outcome, Outcome::Skipped);
            let registered = outcome.binding();
            changed |= registered.changed;
            let mut result = match registered.binding {
                Binding::Known(Json::Object(map)) => map,
                Binding::Result {
                    known: Json::Object(map),
                    ..
                } => {
                    later = true;
                    map
                }
                _ => Map::new(),
            };
            result.insert(wanted.variable.clone(), item);
            results.push(Json::Object(result));
        }
        if let Some(halt) = halted {
            return Err(halt);
        }
        let mut known = Map::new();
        known.insert("changed".to_owned(), json!(changed));
        known.insert("failed".to_owned(), json!(false));
        known.insert("skipped".to_owned(), json!(all_skipped));
        let binding = if later {
            Binding::Result {
                known: Json::Object(known),
                later: vec!["results"],
                task: task.name.clone(),
            }
        } else {
            known.insert("results".to_owned(), Json::Array(results));
            Binding::Known(Json::Object(known))
        };
        Ok(Registered { binding, changed })
    }

    fn finish(self) -> Result<Planned, Problems> {
        if !self.missing.is_empty() {
            return Ok(Planned::Needs(self.missing.into_iter().collect()));
        }
        let mut problems = self.problems;
        if self.pending && !problems.has_errors() {
            // Cannot happen: what waits has said for what.
            problems.push(Diagnostic::error(
                "the plan waits for something that nobody asks for",
            ));
        }
        let (steps, said) = order::order(self.steps);
        let mut notes: Vec<String> = self.notes.into_iter().collect();
        notes.extend(self.owed.iter().map(|name| owed::unknown(name)));
        notes.extend(said);
        let guard = Guard::of(&steps, self.input.facts);
        let (asked, hidden) = (self.asked.names(), self.hidden.names());
        let used = Used {
            vars: asked.union(&hidden).cloned().collect(),
            files: self
                .files
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        };
        let plan = HostPlan {
            guard,
            handlers: if steps.is_empty() {
                Vec::new()
            } else {
                self.handlers
            },
            steps,
            notes,
            overridden: self
                .input
                .project
                .content()
                .overridden()
                .into_iter()
                .map(|path| path.display().to_string())
                .collect(),
            desired: recorded(self.input, &self.gpus, &self.used),
            applied: Some(Box::new(applied::of(
                self.input,
                &applied::Noted {
                    landings: &self.landings,
                    world: &self.world,
                    cache: self.cache,
                    asked,
                    hidden,
                    files: &self.files,
                },
            ))),
        };
        problems.or(Planned::Complete(Box::new(Complete {
            plan,
            reads: self.used.into_iter().collect(),
            files: self.landings,
            used,
        })))
    }
}

/// What the host is told of its desired state: slices, and files by hash.
fn recorded(input: &PlanInput<'_>, gpus: &Gpus, used: &IndexSet<Read>) -> Json {
    let mut slices = strategy::template_vars(&gpus.decisions, input.facts);
    if let Some(Json::Object(slices)) = slices.get_mut("gpu_slices") {
        slices.remove("library");
    }
    let files: Map<String, Json> = used
        .iter()
        .filter_map(|read| match read {
            Read::State {
                path,
                unless: Some(sum),
                ..
            } if !sum.is_empty() => Some((path.clone(), json!(sum))),
            _ => None,
        })
        .collect();
    json!({ "slices": slices.get("gpu_slices"), "files": files })
}

enum Outcome {
    Skipped,
    Done {
        task: String,
        done: Box<Done>,
        changed: bool,
    },
}

/// What `register` keeps.
struct Registered {
    binding: Binding,
    changed: bool,
}

impl Outcome {
    fn binding(self) -> Registered {
        match self {
            Self::Skipped => Registered {
                binding: Binding::Known(
                    json!({ "changed": false, "skipped": true, "failed": false }),
                ),
                changed: false,
            },
            Self::Done {
                task,
                done,
                changed,
            } => {
                let mut known = done.values;
                known.insert("changed".to_owned(), json!(changed));
                known.insert("skipped".to_owned(), json!(false));
                known.insert("failed".to_owned(), json!(false));
                let known = Json::Object(known);
                let binding = if done.later.is_empty() {
                    Binding::Known(known)
                } else {
                    Binding::Result {
                        known,
                        later: done.later,
                        task,
                    }
                };
                Registered { binding, changed }
            }
        }
    }
}

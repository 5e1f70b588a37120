//! What a task can do: one file a module.
//!
//! A module has a schema, against which the parameters of every task are checked
//! when the playbook is loaded, and a pure function that plans: from rendered
//! parameters and what was read from the host to the steps that differ. What was
//! not read yet it asks for, and is called again. Modules know no order of tasks,
//! no conditions and no handlers; `plan` does.
//!
//! A new module is a file and a line in `MODULES`.

mod args;
mod assert;
mod command;
mod context;
mod copy;
mod debug;
mod file;
mod gpu;
mod kernel_cmdline;
mod mode;
mod modprobe;
mod path;
mod platform;
mod reads;
mod reboot;
mod schema;
mod set_fact;
mod systemd;
mod template;

use serde_json::{Map, Value as Json};

use crate::error::Problems;
use crate::playbook::Task;
use crate::render::{Binding, Rendered};
use crate::step::Step;

pub use args::{Args, OMIT};
pub use context::{Context, Gpus, Landing, World};
#[cfg(test)]
pub(crate) use path::sha256;
pub use reads::ReadCache;
pub use schema::{Kind, Param};

/// Names of the variables that modules set without being asked by `register`.
#[must_use]
pub fn variables() -> Vec<String> {
    gpu::variables()
}

/// A module: its schema and what it plans.
#[derive(Debug)]
pub struct Module {
    /// Short name, such as `template`.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// The parameter that a text behind the module's name stands for.
    pub free_form: Option<&'static str>,
    /// Whether it takes other keys than its parameters, as `set_fact` does.
    pub open: bool,
    /// From parameters to steps.
    pub plan: fn(&Args, &mut Context<'_>) -> Rendered<Done>,
}

/// What a module planned.
#[derive(Debug, Default)]
pub struct Done {
    /// Steps that differ, in order; none if all is as wanted.
    pub steps: Vec<Step>,
    /// What the task registers, besides `changed`.
    pub values: Map<String, Json>,
    /// Names in the registered result that only the run will tell.
    pub later: Vec<&'static str>,
    /// Variables that the task sets for what follows.
    pub facts: Vec<(String, Binding)>,
    /// Sentences for the plan.
    pub notes: Vec<String>,
    /// Set where the module knows that something changed though it has no steps.
    pub changed: Option<bool>,
}

impl Done {
    /// Whether something differs. Checks are no change.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
            .unwrap_or_else(|| self.steps.iter().any(Step::is_change))
    }
}

/// All modules.
pub static MODULES: &[&Module] = &[
    &gpu::DISCOVERY,
    &gpu::STRATEGY,
    &gpu::SLICING,
    &gpu::VALIDATION,
    &gpu::HEALTH,
    &platform::PLATFORM,
    &platform::HEALTH,
    &platform::EXPORTERS,
    &platform::EXPORTERS_HEALTH,
    &template::TEMPLATE,
    &copy::COPY,
    &file::FILE,
    &file::UNUSED_FOLDER,
    &command::COMMAND,
    &systemd::SYSTEMD,
    &systemd::SYSTEMD_SERVICE,
    &modprobe::MODPROBE,
    &kernel_cmdline::KERNEL_CMDLINE,
    &reboot::REBOOT,
    &assert::ASSERT,
    &assert::FAIL,
    &set_fact::SET_FACT,
    &debug::DEBUG,
    &debug::META,
];

/// The names of all modules.
#[must_use]
pub fn names() -> Vec<&'static str> {
    MODULES.iter().map(|module| module.name).collect()
}

/// A module by its short name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|module| module.name == name).copied()
}

/// What is wrong with the parameters of a task, as far as that can be told before
/// they are rendered.
#[must_use]
pub fn check(task: &Task) -> Problems {
    match find(&task.module) {
        Some(module) => schema::check(module, task),
        None => Problems::default(),
    }
}

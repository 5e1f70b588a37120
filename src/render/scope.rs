//! The variables that a task sees, in Ansible's order of precedence.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::value::{Node, Vars};

/// Where a variable comes from; the later beats the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// What the program knows: `ansible_managed`, names of the play's hosts.
    Magic,
    /// The inventory's variables of the host, already merged.
    Host,
    /// `vars` and `vars_files` of the play.
    Play,
    /// `vars` of the task.
    Task,
    /// `set_fact`, `register`, discovery.
    Set,
    /// The loop's variable.
    Loop,
    /// `--extra-vars`.
    Extra,
}

const LAYERS: usize = Layer::Extra as usize + 1;

/// What stands behind a name.
#[derive(Debug, Clone)]
pub enum Binding {
    /// The user wrote it; strings in it are templates.
    Written(Node),
    /// It was computed or seen; strings in it are just strings.
    Known(Json),
    /// The result of a task of which some is known only when it has run.
    Result {
        /// What is known.
        known: Json,
        /// Names that will be known only after the run.
        later: Vec<&'static str>,
        /// The task's name.
        task: String,
    },
    /// It depends on something that the host was not asked yet.
    Pending,
}

/// The names that were asked for, whether there is such a variable or not; shared by all
/// clones.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<Mutex<BTreeSet<String>>>);

impl Asked {
    /// The names so far.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
}

/// Variables in layers. Cloning is cheap: layers are shared.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    layers: [Arc<IndexMap<String, Binding>>; LAYERS],
    asked: Option<Asked>,
}

impl Scope {
    /// The same scope with a layer's written variables added; names that the layer
    /// already has are replaced.
    #[must_use]
    pub fn with_vars(mut self, layer: Layer, vars: &Vars) -> Self {
        if !vars.is_empty() {
            let bindings = Arc::make_mut(&mut self.layers[layer as usize]);
            for (name, node) in vars {
                bindings.insert(name.clone(), Binding::Written(node.clone()));
            }
        }
        self
    }

    /// The same scope with one more name.
    #[must_use]
    pub fn with(mut self, layer: Layer, name: impl Into<String>, binding: Binding) -> Self {
        self.set(layer, name, binding);
        self
    }

    /// The same scope with an empty layer.
    #[must_use]
    pub fn without(mut self, layer: Layer) -> Self {
        self.layers[layer as usize] = Arc::default();
        self
    }

    /// The same scope, which tells `asked` the names that are looked up in it.
    #[must_use]
    pub fn noting(mut self, asked: &Asked) -> Self {
        self.asked = Some(asked.clone());
        self
    }

    /// Adds a name to a layer, or replaces it.
    pub fn set(&mut self, layer: Layer, name: impl Into<String>, binding: Binding) {
        Arc::make_mut(&mut self.layers[layer as usize]).insert(name.into(), binding);
    }

    /// What stands behind a name, by precedence.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Binding> {
        if let Some(asked) = &self.asked {
            asked.note(name);
        }
        self.layers.iter().rev().find_map(|layer| layer.get(name))
    }

    /// What the user wrote behind a name, unless something computed beats it.
    #[must_use]
    pub fn written(&self, name: &str) -> Option<&Node> {
        match self.get(name)? {
            Binding::Written(node) => Some(node),
            _ => None,
        }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers
            .iter()
            .flat_map(|layer| layer.keys().map(String::as_str))
    }
}

//! Models of GPUs: what each can do, by PCI id and by name.
//!
//! `load` reads and checks the files in `vars/` whose names end in `_gpu_models.yml`, `model`
//! says what a model is, `draw` draws MIG layouts, `instance_types` knows what virtual machines
//! of a type have; of manifests there are the tables of `manifest`. This room knows no host: what a host's own
//! driver reports wins over it.

pub mod draw;
mod fields;
mod instance_types;
mod load;
pub mod model;

use std::collections::BTreeMap;

use crate::content::{Content, Folder};
use crate::error::{Diagnostic, Problems};
use crate::facts::Vendor;
use crate::manifest::Tables;

pub use instance_types::InstanceType;
pub use model::{Architecture, DeviceId, MigModel, Model, PartitionModel, ProfileSpec, Technology};

/// How the names of models files end; a project may add its own beside the shipped ones.
const MODELS_FILE: &str = "_gpu_models.yml";

/// The same of files with instance types of virtual machines.
const TYPES_FILE: &str = "_instance_types.yml";

/// Words that do not tell models apart.
const VENDOR_WORDS: [&str; 4] = ["nvidia", "amd", "intel", "tesla"];

/// All models, in the order of the files.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    models: Vec<Model>,
    by_id: BTreeMap<(Vendor, u16), usize>,
    instance_types: Vec<InstanceType>,
    manifests: Tables,
}

impl Catalog {
    /// Reads and checks all models files.
    ///
    /// # Errors
    /// Returns every finding in any of the files, with positions.
    pub fn load(content: &Content) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut read = Vec::new();
        let mut types = BTreeMap::new();
        for name in content.names(Folder::Vars) {
            if !name.ends_with(MODELS_FILE) && !name.ends_with(TYPES_FILE) {
                continue;
            }
            let Some(file) = content.vars_file(name) else {
                continue;
            };
            let (node, found) = crate::yaml::load(&file.path, &file.text);
            problems.extend(found);
            match node {
                Some(node) if name.ends_with(TYPES_FILE) => {
                    instance_types::read(&node, &mut types, &mut problems);
                }
                Some(node) => read.extend(load::models(&node, &mut problems)),
                None => {}
            }
        }
        // The files come by name; people look for NVIDIA's cards first.
        read.sort_by_key(|entry| entry.model.vendor);
        let mut catalog = Self {
            instance_types: types.into_values().map(|(read, _)| read).collect(),
            manifests: match Tables::load(content) {
                Ok(tables) => tables,
                Err(found) => {
                    problems.extend(found);
                    Tables::default()
                }
            },
            ..Self::default()
        };
        let mut keys = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for entry in read {
            let model = entry.model;
            if let Some(first) = keys.insert(model.key.to_lowercase(), entry.key.clone()) {
                problems.push(
                    Diagnostic::error(format!("there are two models `{}`", model.key))
                        .at(&entry.key)
                        .related(&first, "the first one"),
                );
            }
            for (device, at) in model.device_ids.iter().zip(entry.ids) {
                let id = (model.vendor, device.device);
                if let Some(first) = ids.insert(id, at.clone()) {
                    problems.push(
                        Diagnostic::error(format!(
                            "PCI device id {:#06x} is given twice",
                            device.device
                        ))
                        .at(&at)
                        .related(&first, "the first one")
                        .hint("an id belongs to one model only"),
                    );
                }
                catalog.by_id.insert(id, catalog.models.len());
            }
            catalog.models.push(model);
        }
        problems.or(catalog)
    }

    /// All models.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The instance types of virtual machines, by name.
    #[must_use]
    pub fn instance_types(&self) -> &[InstanceType] {
        &self.instance_types
    }

    /// What objects of a cluster may hold.
    #[must_use]
    pub fn manifests(&self) -> &Tables {
        &self.manifests
    }

    /// The model with a PCI device id.
    #[must_use]
    pub fn by_pci(&self, vendor: Vendor, device: u16) -> Option<&Model> {
        let index = *self.by_id.get(&(vendor, device))?;
        self.models.get(index)
    }

    /// The model with exactly this key, as facts carry it.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.key == key)
    }

    /// The models that a person may mean: the one with this key or product name if there is
    /// one, or else all that have every word of it (`H100`, `A100 80GB`). None means that no
    /// model is called so, several that the name is ambiguous.
    #[must_use]
    pub fn by_name(&self, text: &str) -> Vec<&Model> {
        let wanted = text.trim().to_lowercase();
        let exactly = |names: fn(&Model) -> Vec<&str>| -> Vec<&Model> {
            self.models
                .iter()
                .filter(|model| names(model).iter().any(|n| n.to_lowercase() == wanted))
                .collect()
        };
        let found = exactly(|model| vec![&model.key]);
        if !found.is_empty() {
            return found;
        }
        let found = exactly(product_names);
        if !found.is_empty() {
            return found;
        }
        let wanted: Vec<String> = words(&wanted)
            .into_iter()
            .filter(|word| !VENDOR_WORDS.contains(&word.as_str()))
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        self.models
            .iter()
            .filter(|model| {
                let mut has = words(&model.key);
                has.extend(product_names(model).into_iter().flat_map(words));
                has.extend(model.device_ids.iter().flat_map(|id| words(&id.name)));
                wanted.iter().all(|word| has.contains(word))
            })
            .collect()
    }

    /// The one model that a person means.
    ///
    /// # Errors
    /// Says which names there are, or between which to choose.
    pub fn resolve(&self, text: &str) -> Result<&Model, Diagnostic> {
        let found = self.by_name(text);
        match found[..] {
            [model] => Ok(model),
            [] => Err(self.unknown(text)),
            _ => {
                let keys: Vec<&str> = found.iter().map(|model| model.key.as_str()).collect();
                Err(
                    Diagnostic::error(format!("`{text}` may mean several models"))
                        .hint(format!("choose one of {}", keys.join(", "))),
                )
            }
        }
    }

    /// What to say of a name that no model has: models that begin with it, the nearest one, or
    /// where to look.
    fn unknown(&self, text: &str) -> Diagnostic {
        let finding = Diagnostic::error(format!("no model is called `{text}`"));
        let wanted = text.trim().to_lowercase();
        let keys = || self.models.iter().map(|model| model.key.as_str());
        let beginning: Vec<&str> = keys()
            .filter(|key| !wanted.is_empty() && key.to_lowercase().starts_with(&wanted))
            .collect();
        if !beginning.is_empty() {
            return finding.hint(format!("there are {}", beginning.join(", ")));
        }
        let finding = finding.did_you_mean(text, keys());
        if finding.hint.is_some() {
            return finding;
        }
        finding.hint("`deploy catalog` lists all models")
    }
}

fn product_names(model: &Model) -> Vec<&str> {
    let mut names = vec![model.name.as_str()];
    names.extend(model.aliases.iter().map(String::as_str));
    names
}

/// The words of a name: `NVIDIA A100-SXM4-80GB` has four.
fn words(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests;

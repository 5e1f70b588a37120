//! Cozystack, as Hikube offers it: virtual machines with GPUs, clusters whose nodes have GPUs,
//! pods that use them, and which devices KubeVirt may hand over. Objects of the cluster, put
//! there with `kubectl` on the host that carries the block `gpu_cozystack`.
//!
//! `kubevirt` is a platform of its own beside it: KubeVirt's machines where there is no Cozystack,
//! with what both have in common.
//!
//! Each kind of object has a file that reads it from the variables, checks it and makes its
//! manifest. Each manifest is held against the tables of `manifest` before any connection, and
//! nothing is sent that the cluster has not accepted in a dry run.

mod advice;
mod cloud_init;
mod cluster;
mod doctor;
mod gpus;
pub(super) mod kubevirt;
mod permitted;
mod values;
mod virtual_machine;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::desired::{Block, Desired};
use crate::error::{Diagnostic, Problems};
use crate::render::Rendered;
use crate::value::Node;

use super::kubernetes::set::{self, Set};
use super::{Finding, Host, Platform, View, Wish};

/// The group and version of Cozystack's objects.
const API: &str = "apps.cozystack.io/v1alpha1";

/// The variable with the block.
const VARIABLE: &str = "gpu_cozystack";

/// What we last put into the cluster from this host.
const RECORD: &str = "/etc/deploy/cozystack/objects.json";

/// Kinds that hold data which nobody could bring back.
const NEVER_DELETED: &[&str] = &[virtual_machine::KIND, cluster::KIND];

/// The platform.
#[derive(Debug)]
pub(super) struct Cozystack;

impl Platform for Cozystack {
    fn name(&self) -> &'static str {
        "cozystack"
    }

    fn variable(&self) -> &'static str {
        VARIABLE
    }

    fn check(&self, desired: &Desired, catalog: &Catalog, problems: &mut Problems) {
        read(desired, catalog, problems);
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let mut problems = Problems::default();
        let settings = read(view.desired, view.catalog, &mut problems);
        wishes_of(super::sound(settings, problems)?, RECORD, host)
    }

    fn removal(&self, _: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        put("", &[], RECORD, host)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        let mut problems = Problems::default();
        let settings = read(view.desired, view.catalog, &mut problems);
        doctor::examine(&super::sound(settings, problems)?, host)
    }
}

/// Makes the cluster of a block so.
fn wishes_of(settings: Settings, record: &'static str, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let advice = settings.objects.iter().flat_map(|object| &object.advice);
    let mut wishes: Vec<Wish> = advice.cloned().map(Wish::Note).collect();
    let kubeconfig = settings.kubeconfig.unwrap_or_default();
    let objects = settings.objects.into_iter().map(|object| object.manifest);
    wishes.extend(put(
        &kubeconfig,
        &objects.collect::<Vec<_>>(),
        record,
        host,
    )?);
    Ok(wishes)
}

fn put(
    kubeconfig: &str,
    objects: &[Json],
    record: &'static str,
    host: &mut dyn Host,
) -> Rendered<Vec<Wish>> {
    let set = Set {
        kubeconfig,
        objects,
        record,
        never_deleted: NEVER_DELETED,
    };
    set::wishes(&set, host)
}

/// An object that is wanted in the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
struct Object {
    /// As it is applied.
    manifest: Json,
    /// Sentences for the plan.
    advice: Vec<String>,
    /// Names of the resources that it asks for.
    resources: Vec<String>,
}

/// What the block says.
#[derive(Debug, Default)]
struct Settings {
    /// Where `kubectl` finds the cluster; its own choice if none is given.
    kubeconfig: Option<String>,
    objects: Vec<Object>,
    /// Where KubeVirt's own object lies.
    virt_namespace: String,
}

/// Reads the block. What is wrong is in `problems`; such objects are left out.
fn read(desired: &Desired, catalog: &Catalog, problems: &mut Problems) -> Settings {
    let mut block = super::block(desired, VARIABLE, problems);
    let kubeconfig = path(&mut block, "kubeconfig");
    let namespace = namespace(&mut block, "namespace", "tenant-ml");
    let mut objects = Vec::new();
    for node in list(&mut block, "virtual_machines") {
        objects.extend(virtual_machine::read(node, catalog, &mut block));
    }
    for node in list(&mut block, "clusters") {
        objects.extend(cluster::read(node, catalog, &mut block));
    }
    for node in list(&mut block, "pods") {
        objects.extend(cluster::pod(node, &mut block));
    }
    unique(&objects, &mut block);
    let permitted = permitted::read(&mut block, permitted::NAMESPACE);
    block.finish();
    let objects = in_order(objects, permitted, namespace.as_deref());
    conform(&objects, VARIABLE, desired, catalog, problems);
    Settings {
        kubeconfig,
        objects,
        virt_namespace: permitted::NAMESPACE.to_owned(),
    }
}

/// Tells what is wrong with manifests, where it stands in the block that they were made of.
fn conform(
    objects: &[Object],
    variable: &str,
    desired: &Desired,
    catalog: &Catalog,
    problems: &mut Problems,
) {
    let block = desired.platforms.get(variable);
    for object in objects {
        let entry = block.map(|block| entry_of(block, &object.manifest).unwrap_or(block));
        catalog.manifests().tell(&object.manifest, entry, problems);
    }
}

/// The entry of a block that a manifest was made of.
fn entry_of<'v>(block: &'v Node, manifest: &Json) -> Option<&'v Node> {
    let list = match manifest["kind"].as_str()? {
        virtual_machine::KIND => "virtual_machines",
        cluster::KIND => "clusters",
        cluster::POD => "pods",
        _ => return None,
    };
    let entries = block.as_map()?.get(list)?.node.as_seq()?;
    let name = manifest["metadata"]["name"].as_str()?;
    let called = |entry: &&Node| {
        let own = entry.as_map().and_then(|map| map.get("name"));
        own.is_some_and(|own| own.node.as_str() == Some(name))
    };
    entries.iter().find(called)
}

/// What may be handed over before the machines that ask for it, and all in their namespace.
fn in_order(
    mut objects: Vec<Object>,
    permitted: Option<Object>,
    namespace: Option<&str>,
) -> Vec<Object> {
    if let Some(permitted) = permitted {
        let machines = objects.iter_mut();
        for object in machines.filter(|object| object.manifest["kind"] == virtual_machine::KIND) {
            permitted::advise(&permitted, object);
        }
        objects.insert(0, permitted);
    }
    if let Some(namespace) = namespace {
        for object in &mut objects {
            let metadata = &mut object.manifest["metadata"];
            if metadata.get("namespace").is_none() {
                metadata["namespace"] = Json::from(namespace);
            }
        }
    }
    objects
}

/// A key with the name of a namespace.
fn namespace(block: &mut Block<'_, '_>, key: &'static str, example: &str) -> Option<String> {
    let node = block.node(key)?;
    match node.as_str() {
        Some(text) if values::is_name(text) => Some(text.to_owned()),
        _ => {
            let path = block.path_of(key);
            let message = format!("`{path}` is not a name that Kubernetes takes");
            let hint = format!("a namespace, such as `{example}`");
            values::blame(block.problems, node, message, &hint);
            None
        }
    }
}

/// Tells it where two objects of a kind have one name: each would undo the other.
fn unique(objects: &[Object], block: &mut Block<'_, '_>) {
    let mut seen = BTreeSet::new();
    for object in objects {
        let text = |pointer: &str| {
            let found = object.manifest.pointer(pointer).and_then(Json::as_str);
            found.unwrap_or_default().to_owned()
        };
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        if !seen.insert((kind.clone(), name.clone())) {
            let found = Diagnostic::error(format!("there are two of {kind} `{name}`"));
            let found = match &block.origin {
                Some(origin) => found.at(origin),
                None => found,
            };
            block
                .problems
                .push(found.hint("each needs a name of its own"));
        }
    }
}

fn list<'v>(block: &mut Block<'v, '_>, key: &'static str) -> &'v [Node] {
    let Some(node) = block.node(key) else {
        return &[];
    };
    if let Some(items) = node.as_seq() {
        return items;
    }
    let message = format!("`{}` must be a list", block.path_of(key));
    values::blame(
        block.problems,
        node,
        message,
        "each entry begins with `- name:`",
    );
    &[]
}

fn path(block: &mut Block<'_, '_>, key: &'static str) -> Option<String> {
    let node = block.node(key)?;
    match node.as_str().filter(|path| path.starts_with('/')) {
        Some(path) => Some(path.to_owned()),
        None => {
            let message = format!(
                "`{}` must be an absolute path on the host",
                block.path_of(key)
            );
            values::blame(
                block.problems,
                node,
                message,
                "such as `/etc/kubernetes/admin.conf`",
            );
            None
        }
    }
}

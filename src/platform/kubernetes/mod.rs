//! Kubernetes: nodes whose cards an operator slices and shares, through `kubectl` on a host.
//!
//! `wanted` reads the variables, `manifests` turns them into objects of which only our fields
//! are given, `object` compares and applies them on the server under our own name, so that
//! drift and undo see these fields alone. `operator` waits for NVIDIA's operator and reads back
//! what it made of them; `pods` are those that have GPUs.

mod amd;
mod doctor;
mod kept;
mod manifests;
mod nvidia;
mod object;
mod operator;
mod owned;
mod plugin;
mod pods;
pub(super) mod set;
mod tool;
mod wanted;

use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::Problems;
use crate::render::Rendered;
use crate::step::Step;
use crate::value::Node;

use super::{Finding, Host, Platform, View, Wish};
use tool::Tool;
use wanted::Wanted;

/// The platform.
#[derive(Debug)]
pub(super) struct Kubernetes;

impl Platform for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn variable(&self) -> &'static str {
        wanted::VARIABLE
    }

    fn check(&self, desired: &Desired, catalog: &Catalog, problems: &mut Problems) {
        checked(desired, catalog, problems);
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        let kept = kept::read(kept::PATH, host)?;
        let objects = manifests::all(&wanted);
        let (old, gone) = kept::gone(kept.as_ref(), &wanted.tool, &objects);
        for manifest in &gone {
            object::expect(&old, manifest, wanted.take_over, host);
        }
        for manifest in &objects {
            object::expect(&wanted.tool, manifest, wanted.take_over, host);
        }
        let mut wishes = operator::notes(&wanted);
        let mut changed = Vec::new();
        let mut emptied = Emptied::default();
        // First what is to go: a field that moves to another object is free then. But what
        // another names goes after that has stopped to.
        let (last, first): (Manifests, Manifests) = gone
            .into_iter()
            .partition(|manifest| manifest["kind"] == "ConfigMap");
        for manifest in &first {
            changed.extend(given_up(&wanted, &old, manifest, &mut emptied, host)?);
        }
        for manifest in &objects {
            let mut planned = object::planned(&wanted.tool, manifest, wanted.take_over, host)?;
            wishes.extend(planned.notes.drain(..).map(Wish::Note));
            changed.extend(planned.step);
        }
        for manifest in &last {
            changed.extend(given_up(&wanted, &old, manifest, &mut emptied, host)?);
        }
        let changed = operator::around(&wanted, changed, host)?;
        wishes.extend(emptied.around(changed));
        wishes.extend(kept::record(
            kept::PATH,
            &wanted.tool,
            &objects,
            kept.as_ref(),
        ));
        Ok(wishes)
    }

    fn removal(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let Some(kept) = kept::read(kept::PATH, host)? else {
            return Ok(Vec::new());
        };
        // Of the block, where it still is there, only what may be done to nodes.
        let wanted = wanted::read(view.desired, &mut Problems::default());
        let mut steps = Vec::new();
        let mut emptied = Emptied::default();
        // What was made last names what was made first.
        for manifest in kept.without(&[]).iter().rev() {
            let gone = given_up(&wanted, &kept.tool, manifest, &mut emptied, host)?;
            steps.extend(gone.map(|step| Wish::Step(Box::new(step))));
        }
        let mut wishes = emptied.around(steps);
        wishes.extend(kept::record(kept::PATH, &kept.tool, &[], Some(&kept)));
        Ok(wishes)
    }

    fn health(&self, view: &View<'_>, _: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        let mut wishes = operator::checks(&wanted);
        wishes.extend(pods::tests(&wanted));
        Ok(wishes)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        doctor::examine(&read(view)?, host)
    }

    fn library(&self) -> &'static str {
        include_str!("kubernetes.sh")
    }
}

/// What empties nodes that are given up, and what opens them again.
#[derive(Debug, Default)]
struct Emptied {
    drains: Vec<Step>,
    opens: Vec<Step>,
}

impl Emptied {
    /// Before and after what is done to them.
    fn around(self, steps: Vec<Wish>) -> Vec<Wish> {
        let wish = |step: Step| Wish::Step(Box::new(step));
        let drains = self.drains.into_iter().map(wish);
        let opens = self.opens.into_iter().map(wish);
        drains.chain(steps).chain(opens).collect()
    }
}

/// Gives up what we set in an object. A label by which a node's cards are sliced is given up
/// only where nobody uses them, or once the node was drained where it may be: the operator
/// slices them anew then.
fn given_up(
    wanted: &Wanted,
    tool: &Tool,
    manifest: &Json,
    emptied: &mut Emptied,
    host: &mut dyn Host,
) -> Rendered<Option<Step>> {
    let Some(mut step) = object::gone(tool, manifest, host)?.step else {
        return Ok(None);
    };
    if operator::slices(&step)
        && let (Some("Node"), Some(node)) = (
            manifest["kind"].as_str(),
            manifest["metadata"]["name"].as_str(),
        )
    {
        if wanted.drains(node) {
            let (drain, open) = pods::drain(tool, wanted.wait_s, node, host)?;
            emptied.drains.push(drain);
            emptied.opens.push(open);
            operator::given_up_idle(tool, node, wanted.wait_s, &mut step);
        } else {
            let hint = "end these pods first, since the operator slices the cards anew once the label is not ours; or let them be moved by `drain: true` in `gpu_kubernetes`, for all nodes or for an entry without labels";
            pods::refuse_use(tool, node, hint, host)?;
            operator::careful(tool, node, &mut step);
        }
    }
    Ok(Some(step))
}

/// The block; that it is right was seen before connecting, but for what templates gave.
fn read(view: &View<'_>) -> Rendered<Wanted> {
    let mut problems = Problems::default();
    let wanted = checked(view.desired, view.catalog, &mut problems);
    super::sound(wanted, problems)
}

/// The block, and its manifests held against the tables of their fields.
fn checked(desired: &Desired, catalog: &Catalog, problems: &mut Problems) -> Wanted {
    let before = problems.0.len();
    let wanted = wanted::read(desired, problems);
    // Of a block that is wrong the manifests only say again what is.
    if problems.0.len() == before {
        let block = desired.platforms.get(wanted::VARIABLE);
        let mut all = manifests::all(&wanted);
        all.extend(pods::manifests(&wanted));
        for manifest in &all {
            let entry = block.map(|block| entry_of(block, manifest).unwrap_or(block));
            catalog.manifests().tell(manifest, entry, problems);
        }
    }
    wanted
}

/// The part of the block that a manifest was made of.
fn entry_of<'v>(block: &'v Node, manifest: &Json) -> Option<&'v Node> {
    let of = |node: &'v Node, key: &str| Some(&node.as_map()?.get(key)?.node);
    let name = manifest["metadata"]["name"].as_str()?;
    match manifest["kind"].as_str()? {
        "Node" => of(of(block, "nodes")?, name),
        "ResourceQuota" => {
            let space = manifest["metadata"]["namespace"].as_str();
            let mut entries = of(block, "quotas")?.as_seq()?.iter();
            entries.find(|entry| of(entry, "namespace").and_then(Node::as_str) == space)
        }
        "DaemonSet" => of(block, "plugin"),
        "Pod" => of(block, "test_pod"),
        "DeviceConfig" => of(block, "amd_config_manager"),
        "ClusterPolicy" => of(block, "operator"),
        _ => None,
    }
}

/// A list of manifests.
type Manifests = Vec<Json>;

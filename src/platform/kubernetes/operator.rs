//! What NVIDIA's operator makes of our fields: waiting for it, restarting the device plugin,
//! reading back what nodes offer.

use crate::error::Diagnostic;
use crate::platform::{Host, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::manifests;
use super::tool::{Tool, answered};
use super::wanted::{NodeWanted, Wanted};

/// What users should know.
pub(super) fn notes(wanted: &Wanted) -> Vec<Wish> {
    let mut notes = Vec::new();
    if wanted.operator.time_slicing.is_some() {
        notes.push("time-slicing isolates neither memory nor faults: one pod can take the memory of the others on its card".to_owned());
    }
    notes.into_iter().map(Wish::Note).collect()
}

/// Puts around the steps what they need: a node that nobody uses before its cards change, the
/// MIG manager's answer after it, a restarted device plugin after a change of its configuration.
pub(super) fn around(
    wanted: &Wanted,
    changed: Vec<Step>,
    host: &mut dyn Host,
) -> Rendered<Vec<Wish>> {
    let operator = &wanted.operator;
    let restarting = |step: &Step| {
        operator.time_slicing.as_ref().is_some_and(|slicing| {
            let map = format!(
                "kubernetes:configmap:{}:{}",
                operator.namespace, slicing.name
            );
            let policy = format!(
                "kubernetes:clusterpolicy.v1.nvidia.com:-:{}",
                operator.policy
            );
            [map, policy].contains(&step.id.0)
        })
    };
    let mut changed = changed;
    // Once, after the last of them that is made and after the last that is undone.
    if let Some(first) = changed.iter_mut().find(|step| restarting(step)) {
        first.undo.0.push(restart(wanted));
    }
    if let Some(last) = changed.iter_mut().rev().find(|step| restarting(step)) {
        last.apply.0.push(restart(wanted));
        last.timeout_s += wanted.wait_s;
    }
    let mut wishes = Vec::new();
    for mut step in changed {
        let node = wanted.nodes.iter().find(|node| step.id == node_id(node));
        if let Some(node) = node.filter(|_| touches_cards(&step)) {
            in_use(wanted, node, host)?;
            slice(wanted, node, &mut step);
        }
        wishes.push(Wish::Step(Box::new(step)));
    }
    Ok(wishes)
}

fn node_id(node: &NodeWanted) -> StepId {
    StepId(format!("kubernetes:node:-:{}", node.name))
}

/// Whether a node's step changes the MIG configuration.
fn touches_cards(step: &Step) -> bool {
    match &step.change {
        Change::Setting { name, after, .. } => {
            name == manifests::MIG_CONFIG || after.contains(manifests::MIG_CONFIG)
        }
        _ => false,
    }
}

/// Refuses where pods on the node have GPUs, already while planning.
fn in_use(wanted: &Wanted, node: &NodeWanted, host: &mut dyn Host) -> Rendered<()> {
    if node.drain {
        return Ok(());
    }
    let what = format!("pods on node {}", node.name);
    let pods = answered(host, &wanted.tool.pods_on(&node.name), &what)?;
    let items = pods.as_ref().and_then(|pods| pods["items"].as_array());
    let users: Vec<String> = items
        .into_iter()
        .flatten()
        .filter(|pod| has_gpu(pod))
        .map(|pod| {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
            format!("{}/{}", text("namespace"), text("name"))
        })
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    let message = format!("node {} is in use by {}", node.name, users.join(", "));
    Err(Diagnostic::error(message)
        .hint("MIG changes only on a card without work: end these pods, or let them be moved by `drain: true` of the node")
        .into())
}

fn has_gpu(pod: &serde_json::Value) -> bool {
    let containers = pod
        .pointer("/spec/containers")
        .and_then(|list| list.as_array());
    let mut containers = containers.into_iter().flatten();
    containers.any(|container| {
        let limits = container["resources"]["limits"].as_object();
        let gpus = ["nvidia.com/", "amd.com/", "gpu.intel.com/"];
        let mut names = limits.into_iter().flat_map(serde_json::Map::keys);
        names.any(|name| gpus.iter().any(|gpu| name.starts_with(gpu)))
    })
}

fn on(tool: &Tool, function: &str, node: &NodeWanted) -> Command {
    tool.call(function).arg(&node.name)
}

/// The step of a node's label changes its cards.
fn slice(wanted: &Wanted, node: &NodeWanted, step: &mut Step) {
    let tool = &wanted.tool;
    let idle = on(tool, "kube_idle", node);
    let wait = on(tool, "kube_mig_wait", node).arg(wanted.wait_s.to_string());
    step.class = Class::Disruptive;
    step.title = format!("slice the cards of node {}", node.name);
    if !node.drain {
        step.check = step.check.clone().then(idle.clone());
    }
    step.apply.0.insert(0, idle.clone());
    step.apply.0.push(wait.clone());
    step.verify = step.verify.clone().then(on(tool, "kube_mig_is", node));
    step.undo = step.undo.clone().then(wait);
    step.idle = Script::one(idle);
    step.timeout_s = wanted.wait_s + 90;
}

fn restart(wanted: &Wanted) -> Command {
    let operator = &wanted.operator;
    let call = wanted.tool.call("kube_restart").arg(&operator.namespace);
    call.arg(&operator.daemonset).arg(wanted.wait_s.to_string())
}

/// That each node offers what it is to.
pub(super) fn checks(wanted: &Wanted) -> Vec<Wish> {
    let managed =
        |node: &&NodeWanted| node.mig_config.is_some() || wanted.operator.time_slicing.is_some();
    let nodes = wanted.nodes.iter().filter(managed);
    nodes
        .filter_map(|node| {
            let (replicas, renamed, kinds) = manifests::offer(wanted, node)?;
            let what = format!("node {} offers what was configured", node.name);
            let change = Change::Check { what: what.clone() };
            let id = StepId(format!("kubernetes:offer:{}", node.name));
            let suffix = if renamed { "renamed" } else { "shared" };
            let call = on(&wanted.tool, "kube_offers", node)
                .arg(wanted.wait_s.to_string())
                .arg(replicas.to_string())
                .arg(suffix)
                .args(kinds.iter().map(|kind| kind.replace('+', ".")));
            let step = Step {
                phase: Phase::Check,
                verify: Script::one(call),
                timeout_s: wanted.wait_s + 30,
                ..Step::new(id, "", format!("check that {what}"), change)
            };
            Some(Wish::Step(Box::new(step)))
        })
        .collect()
}

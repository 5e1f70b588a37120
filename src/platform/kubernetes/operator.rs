//! What NVIDIA's operator makes of our fields: waiting for it, restarting the device plugin,
//! reading back what nodes offer.

use crate::platform::{Host, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::amd;
use super::manifests;
use super::pods;
use super::tool::Tool;
use super::wanted::{NodeWanted, Wanted};

/// What users should know.
pub(super) fn notes(wanted: &Wanted) -> Vec<Wish> {
    let mut notes = Vec::new();
    if wanted.operator.time_slicing.is_some() {
        notes.push("time-slicing isolates neither memory nor faults: one pod can take the memory of the others on its card".to_owned());
    }
    let shared = wanted
        .plugin
        .as_ref()
        .and_then(|plugin| plugin.shared.as_ref());
    if shared.is_some_and(|shared| shared.value > 1) {
        notes.push(
            "shared_devices only lets more containers have a device: it isolates nothing"
                .to_owned(),
        );
    }
    notes.extend(amd::notes(wanted));
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
    let mut before = Vec::new();
    let mut steps = Vec::new();
    let mut after = Vec::new();
    for mut step in changed {
        // One without labels of ours is given up, with steps of its own.
        let has_labels = |node: &&NodeWanted| manifests::node(node).is_some();
        let mut nodes = wanted.nodes.iter().filter(has_labels);
        let node = nodes.find(|node| step.id == node_id(node));
        let mig = touches(&step, manifests::MIG_CONFIG);
        let partitions = touches(&step, amd::PROFILE);
        if let Some(node) = node.filter(|_| mig || partitions) {
            sliced(wanted, node, &mut step);
            if mig {
                slice(wanted, node, &mut step);
            } else {
                partition(wanted, node, &mut step);
            }
            if node.drain {
                let (drain, open) = pods::drain(&wanted.tool, wanted.wait_s, &node.name, host)?;
                before.push(drain);
                after.push(open);
            } else {
                let hint = "MIG changes only on a card without work: end these pods, or let them be moved by `drain: true` of the node";
                pods::refuse_use(&wanted.tool, &node.name, hint, host)?;
            }
        }
        if let Some(plugin) = &wanted.plugin
            && step.id.0
                == format!(
                    "kubernetes:daemonset.v1.apps:{}:{}",
                    plugin.namespace,
                    plugin.name()
                )
        {
            let call = wanted.tool.call("kube_rolled_out").arg(&plugin.namespace);
            let call = call.arg(plugin.name()).arg(wanted.wait_s.to_string());
            step.apply.0.push(call);
            step.timeout_s += wanted.wait_s;
        }
        steps.push(step);
    }
    let all = before.into_iter().chain(steps).chain(after);
    Ok(all.map(|step| Wish::Step(Box::new(step))).collect())
}

fn node_id(node: &NodeWanted) -> StepId {
    StepId(format!("kubernetes:node:-:{}", node.name))
}

/// Whether a node's step changes this label.
fn touches(step: &Step, label: &str) -> bool {
    match &step.change {
        Change::Setting {
            name,
            before,
            after,
            ..
        } => name == label || after.contains(label) || before.contains(label),
        _ => false,
    }
}

/// Whether a node's step changes what its cards are sliced by.
pub(super) fn slices(step: &Step) -> bool {
    touches(step, manifests::MIG_CONFIG) || touches(step, amd::PROFILE)
}

/// A step that only an idle node takes.
pub(super) fn careful(tool: &Tool, node: &str, step: &mut Step) {
    let idle = tool.call("kube_idle").arg(node);
    step.class = Class::Disruptive;
    step.check = step.check.clone().then(idle.clone());
    step.apply.0.insert(0, idle.clone());
    step.idle = Script::one(idle);
}

/// A step that gives up the label by which the cards of a drained node were sliced, and waits
/// until what the operator makes of that is over.
pub(super) fn given_up_idle(tool: &Tool, node: &str, wait_s: u32, step: &mut Step) {
    let before = step.check.clone();
    careful(tool, node, step);
    // It is idle once it was drained.
    step.check = before;
    step.timeout_s = wait_s + 90;
    if touches(step, manifests::MIG_CONFIG) {
        let wait = tool.call("kube_mig_wait").arg(node);
        let wait = wait.arg(wait_s.to_string());
        step.apply.0.push(wait.clone());
        step.undo.0.push(wait);
    }
}

fn on(tool: &Tool, function: &str, node: &NodeWanted) -> Command {
    tool.call(function).arg(&node.name)
}

/// The step of a node's label changes its cards.
fn sliced(wanted: &Wanted, node: &NodeWanted, step: &mut Step) {
    let before = step.check.clone();
    careful(&wanted.tool, &node.name, step);
    if node.drain {
        // It is idle once it was drained.
        step.check = before;
    }
    step.title = format!("slice the cards of node {}", node.name);
    step.timeout_s = wanted.wait_s + 90;
}

/// NVIDIA's MIG manager does it.
fn slice(wanted: &Wanted, node: &NodeWanted, step: &mut Step) {
    let wait = on(&wanted.tool, "kube_mig_wait", node).arg(wanted.wait_s.to_string());
    step.apply.0.push(wait.clone());
    step.verify.0.push(on(&wanted.tool, "kube_mig_is", node));
    step.undo.0.push(wait);
}

/// AMD's config manager does it.
fn partition(wanted: &Wanted, node: &NodeWanted, step: &mut Step) {
    let begin = on(&wanted.tool, "kube_dcm_begin", node);
    let end = on(&wanted.tool, "kube_dcm_end", node).arg(wanted.wait_s.to_string());
    step.apply.0.insert(1, begin.clone());
    step.apply.0.push(end.clone());
    step.undo.0.insert(0, begin);
    step.undo.0.push(end);
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

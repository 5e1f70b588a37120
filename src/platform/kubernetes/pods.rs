//! Pods that have GPUs: who they are, how they are moved away before cards change, and the one
//! that shows that a GPU computes.

use serde_json::{Value as Json, json};

use crate::error::Diagnostic;
use crate::platform::{Host, Wish};
use crate::render::Rendered;
use crate::shell::Script;
use crate::step::{Change, Class, Payload, Phase, Step, StepId};

use super::tool::{Name, Tool, answered};
use super::wanted::{NodeWanted, TestPod, Wanted};

/// Prefixes of resources that are GPUs.
const GPUS: [&str; 3] = ["nvidia.com/", "amd.com/", "gpu.intel.com/"];

/// The name of the test's pod on a node; what a node may be called, a pod may be.
fn pod_name(node: &NodeWanted) -> String {
    format!("deploy-gpu-test-{}", node.name)
}

/// Refuses where pods on the node have GPUs, already while planning.
pub(super) fn refuse_use(tool: &Tool, node: &str, hint: &str, host: &mut dyn Host) -> Rendered<()> {
    let what = format!("pods on node {node}");
    let pods = answered(host, &tool.pods_on(node), &what)?;
    let users = with_gpus(pods.as_ref());
    if users.is_empty() {
        return Ok(());
    }
    let message = format!("node {node} is in use by {}", users.join(", "));
    Err(Diagnostic::error(message).hint(hint).into())
}

/// Those of a list of pods that have GPUs, as `NAMESPACE/NAME`.
pub(super) fn with_gpus(pods: Option<&Json>) -> Vec<String> {
    let items = pods.and_then(|pods| pods["items"].as_array());
    let users = items.into_iter().flatten().filter(|pod| has_gpu(pod));
    users.map(label).collect()
}

/// How messages call a pod.
pub(super) fn label(pod: &Json) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Whether one of its containers has GPUs.
pub(super) fn has_gpu(pod: &Json) -> bool {
    let containers = pod.pointer("/spec/containers").and_then(Json::as_array);
    let mut containers = containers.into_iter().flatten();
    containers.any(|container| {
        let limits = container["resources"]["limits"].as_object();
        let mut names = limits.into_iter().flat_map(serde_json::Map::keys);
        names.any(|name| GPUS.iter().any(|gpu| name.starts_with(gpu)))
    })
}

/// The steps that empty a node and open it again. One that somebody has closed already stays
/// closed: who closed it opens it too.
pub(super) fn drain(
    tool: &Tool,
    wait_s: u32,
    node: &str,
    host: &mut dyn Host,
) -> Rendered<(Step, Step)> {
    let name = Name::of(&json!({ "kind": "Node", "metadata": { "name": node } }));
    let live = answered(host, &tool.live(&name), &name.label())?;
    let is_closed = live.is_some_and(|live| live["spec"]["unschedulable"] == true);
    let call = |function: &str| tool.call(function).arg(node);
    let seconds = wait_s.to_string();
    let step = |what: &str, before: &str, after: &str| {
        let change = Change::Setting {
            subject: format!("node {node}"),
            name: "pods".to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let id = StepId(format!("kubernetes:{what}:{node}"));
        let mut step = Step::new(id, "", format!("{what} node {node}"), change);
        step.class = Class::Disruptive;
        step.timeout_s = wait_s + 60;
        step
    };
    let mut drain = step("drain", "may be placed here", "moved to other nodes");
    drain.apply = Script::one(call("kube_drain").arg(&seconds));
    drain.verify = Script::one(call("kube_is_open").arg("no"));
    let mut open = step("uncordon", "moved to other nodes", "may be placed here");
    if is_closed {
        // Whoever closed it opens it.
        drain.check = Script::one(call("kube_is_open").arg("no"));
        drain.undo = drain.check.clone();
        return Ok((drain, never(open)));
    }
    drain.check = Script::one(call("kube_is_open").arg("yes"));
    drain.undo = Script::one(call("kube_open").arg("yes"));
    open.apply = Script::one(call("kube_open").arg("yes"));
    open.verify = Script::one(call("kube_is_open").arg("yes"));
    open.undo = Script::one(call("kube_open").arg("no"));
    Ok((drain, open))
}

/// A look in place of a change.
fn never(step: Step) -> Step {
    let what = "a node that was closed before stays closed".to_owned();
    Step {
        title: what.clone(),
        class: Class::Safe,
        change: Change::Check { what },
        ..step
    }
}

/// The pod that adds two vectors on a GPU.
fn manifest(test: &TestPod, node: &NodeWanted) -> Json {
    let amount = json!({ test.resource.as_str(): "1" });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod_name(node), "namespace": test.namespace, "labels": { "app.kubernetes.io/managed-by": "deploy" } },
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": { "kubernetes.io/hostname": node.name },
            "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
            "containers": [{
                "name": "vectoradd", "image": test.image,
                // Of GPUs a pod must say limits, and request as many.
                "resources": { "requests": amount, "limits": amount },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

/// The test's pods.
pub(super) fn manifests(wanted: &Wanted) -> Vec<Json> {
    let test = wanted.test_pod.iter();
    test.flat_map(|test| wanted.nodes.iter().map(|node| manifest(test, node)))
        .collect()
}

/// Runs the test's pod on each node; it is deleted afterwards, whatever it says.
pub(super) fn tests(wanted: &Wanted) -> Vec<Wish> {
    let Some(test) = &wanted.test_pod else {
        return Vec::new();
    };
    let each = wanted.nodes.iter().map(|node| {
        let what = format!("a pod on node {} computes on {}", node.name, test.resource);
        let change = Change::Check { what: what.clone() };
        let id = StepId(format!("kubernetes:test:{}", node.name));
        let payload = Payload {
            name: format!("kubernetes-test-{}", id.key()),
            content: format!("{}\n", manifest(test, node)).into_bytes(),
        };
        let call = wanted.tool.call("kube_test_pod");
        let call = call.arg(&test.namespace).arg(pod_name(node));
        let call = call.arg(wanted.wait_s.to_string());
        let verify = Script::one(call.run_path(format!("payload/{}", payload.name)));
        let step = Step {
            phase: Phase::Check,
            verify,
            payload: vec![payload],
            timeout_s: wanted.wait_s + 120,
            ..Step::new(id, "", format!("check that {what}"), change)
        };
        Wish::Step(Box::new(step))
    });
    each.collect()
}

#[cfg(test)]
mod tests_of_pods {
    use super::*;

    #[test]
    fn pods_with_gpus_of_any_vendor_are_seen() {
        let pod = |resource: &str| json!({ "spec": { "containers": [{}, { "resources": { "limits": { resource: "1" } } }] } });
        assert!(has_gpu(&pod("nvidia.com/mig-1g.10gb")));
        assert!(has_gpu(&pod("gpu.intel.com/xe")));
        assert!(has_gpu(&pod("amd.com/gpu")));
        assert!(!has_gpu(&pod("memory")));
    }

    #[test]
    fn the_test_requests_what_it_is_limited_to() {
        let test = TestPod {
            namespace: "default".to_owned(),
            image: "i".to_owned(),
            resource: "nvidia.com/gpu".to_owned(),
        };
        let node = NodeWanted {
            name: "gpu-1".to_owned(),
            mig_config: None,
            plugin_config: None,
            amd_profile: None,
            drain: false,
        };
        let resources = &manifest(&test, &node)["spec"]["containers"][0]["resources"];
        assert_eq!(resources["requests"], resources["limits"]);
    }
}

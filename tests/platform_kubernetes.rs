//! Kubernetes, from the inventory to the objects of a cluster: a real kubectl against a
//! simulated API server and operator. What a person would ask by hand is asked over plain ssh.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use crate::harness::Ended;
use crate::technology::Bench;

/// Debian's kubectl, fetched once.
fn kubectl() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/kubectl.sh");
        let output = Command::new(script).output().expect("bash starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no kubectl: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// A host with kubectl and a cluster of one node with one H100.
fn cluster() -> Bench {
    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    crate::technology::bench(&sim)
}

/// Makes this `gpu_kubernetes`; taking over and a short wait are added.
fn want(bench: &Bench, block: &Json) {
    let mut block = block.clone();
    block["kubeconfig"] = json!("/etc/kubernetes/admin.conf");
    if block["wait_s"].is_null() {
        block["wait_s"] = json!(60);
    }
    bench.vars(&json!({ "gpu_platform": "kubernetes", "gpu_kubernetes": block }));
}

#[track_caller]
fn apply(bench: &Bench, block: &Json) -> Ended {
    want(bench, block);
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1")
}

/// What a label of the node says.
#[track_caller]
fn label(bench: &Bench, name: &str) -> String {
    let name = name.replace('.', "\\.");
    bench.ssh(&format!(
        "kubectl get node gpu-1 -o jsonpath='{{.metadata.labels.{name}}}'"
    ))
}

/// How many of a resource the node offers.
#[track_caller]
fn allocatable(bench: &Bench, name: &str) -> String {
    let name = name.replace('.', "\\.");
    bench.ssh(&format!(
        "kubectl get node gpu-1 -o jsonpath='{{.status.allocatable.{name}}}'"
    ))
}

fn sliced(config: &str) -> Json {
    json!({ "take_over": true, "nodes": { "gpu-1": { "mig_config": config } } })
}

#[test]
fn a_nodes_label_slices_its_card_and_a_rollback_brings_the_old_one_back() {
    let bench = cluster();
    // The operator has set the label: it is not taken without being asked.
    let mut careful = sliced("all-1g.10gb");
    careful["take_over"] = json!(false);
    want(&bench, &careful);
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    let refused = refused.says("nvidia.com/mig.config is all-disabled, set by gpu-operator");
    refused.says("take_over: true");
    bench.ssh("kubectl label node gpu-1 by-hand=stays");

    let applied = apply(&bench, &sliced("all-1g.10gb"));
    let applied = applied.says("- nvidia.com/mig.config: all-disabled");
    applied.says("nvidia.com/mig.config is taken over from gpu-operator");
    assert_eq!(label(&bench, "nvidia.com/mig.config.state"), "success");
    assert_eq!(label(&bench, "nvidia.com/gpu.count"), "7");
    let product = label(&bench, "nvidia.com/gpu.product");
    assert_eq!(product, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "7");
    bench.settled();

    // Another change, and back to the first.
    apply(&bench, &sliced("all-3g.40gb"));
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "2");
    bench.rolled_back();
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "7");
    assert_eq!(label(&bench, "by-hand"), "stays");
}

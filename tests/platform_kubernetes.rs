//! Kubernetes, from the inventory to the objects of a cluster: a real kubectl against a
//! simulated API server and operator. What a person would ask by hand is asked over plain ssh.
//!
//! Lines of the seeds that are shown here: 2.1 to 2.8, 1.5.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use crate::harness::Ended;
use crate::technology::Bench;

/// Debian's kubectl, fetched once.
pub(super) fn kubectl() -> &'static str {
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

#[test]
fn a_label_that_was_taken_over_is_given_up_and_a_node_is_not_made_by_its_name() {
    let bench = cluster();
    apply(&bench, &sliced("all-1g.10gb"));
    let block = json!({ "kubeconfig": "/etc/kubernetes/admin.conf" });
    bench.vars(&json!({ "gpu_platform": "none", "gpu_kubernetes": block }));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    bench.settled();
    // A rollback of that takes it over once more.
    bench.rolled_back();
    assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-1g.10gb");

    want(
        &bench,
        &json!({ "take_over": true, "nodes": { "gpu-9": { "mig_config": "all-1g.10gb" } } }),
    );
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("the cluster has no node gpu-9");
    let nodes = bench.ssh("kubectl get nodes -o name");
    assert_eq!(nodes.trim(), "node/gpu-1");
}

#[test]
fn a_nodes_label_is_given_up_only_where_nobody_uses_its_cards() {
    let bench = cluster();
    apply(&bench, &sliced("all-1g.10gb"));
    pod(&bench, "train", Some("ReplicaSet"));
    let refused = |bench: &Bench| {
        let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
        let refused = refused.says("node gpu-1 is in use by default/train");
        refused.says("end these pods first");
        assert_eq!(label(bench, "nvidia.com/mig.config"), "all-1g.10gb");
    };
    // The node's entry goes, and the whole platform.
    want(&bench, &json!({ "take_over": true, "nodes": {} }));
    refused(&bench);
    bench.vars(&json!({ "gpu_platform": "none" }));
    refused(&bench);
    bench.ssh("kubectl delete pod train -n default");
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    bench.settled();
}

#[test]
fn a_node_that_may_be_drained_is_drained_then_given_up_then_opened() {
    let closed = "kubectl get node gpu-1 -o jsonpath='{.spec.unschedulable}'";
    let ours = "kubectl get node gpu-1 --show-managed-fields -o jsonpath='{.metadata.managedFields[*].manager}'";
    let entry = json!({ "take_over": true, "nodes": { "gpu-1": { "drain": true } } });
    let all = json!({ "take_over": true, "drain": true, "nodes": {} });
    let platform = json!({ "take_over": true, "drain": true });
    for (block, named) in [
        (entry, "kubernetes"),
        (all, "kubernetes"),
        (platform, "none"),
    ] {
        let bench = cluster();
        apply(&bench, &sliced("all-1g.10gb"));
        pod(&bench, "train", Some("ReplicaSet"));
        want(&bench, &block);
        if named == "none" {
            bench.vars(&json!({ "gpu_platform": "none", "gpu_kubernetes": block }));
        }
        let applied = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
        let places = [
            "~ drain node gpu-1",
            "nvidia.com/mig.config",
            "~ uncordon node gpu-1",
        ];
        let places = places.map(|words| applied.out.find(words).expect(words));
        assert!(places.is_sorted(), "{}", applied.all());
        // The pod was moved, the label is the operator's, which was done when the node opened.
        assert_eq!(bench.ssh("kubectl get pods -n default -o name"), "");
        assert_ne!(bench.ssh(closed), "true");
        assert!(!bench.ssh(ours).contains("deploy"));
        assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-disabled");
        assert_eq!(label(&bench, "nvidia.com/mig.config.state"), "success");
        bench.settled();

        if named == "none" {
            continue;
        }
        // The undo of that is ours again, with the node open.
        bench.rolled_back();
        assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-1g.10gb");
        assert_eq!(label(&bench, "nvidia.com/mig.config.state"), "success");
        assert_ne!(bench.ssh(closed), "true");
    }
}

#[test]
fn what_nobody_would_start_again_keeps_its_node() {
    let bench = cluster();
    apply(&bench, &sliced("all-1g.10gb"));
    pod(&bench, "notebook", None);
    want(
        &bench,
        &json!({ "take_over": true, "drain": true, "nodes": {} }),
    );
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("default/notebook").says("rolled back");
    assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-1g.10gb");
    let closed = bench.ssh("kubectl get node gpu-1 -o jsonpath='{.spec.unschedulable}'");
    assert_ne!(closed, "true");
}

#[test]
fn a_config_map_goes_once_the_policy_no_longer_names_it() {
    let bench = cluster();
    apply(&bench, &shared(4));
    let order = |said: &Ended| {
        let at = |text: &str| {
            said.out
                .find(text)
                .unwrap_or_else(|| panic!("`{text}` in {}", said.all()))
        };
        assert!(
            at("clusterpolicy cluster-policy")
                < at("configmap gpu-operator/time-slicing-config-all"),
            "{}",
            said.all()
        );
    };
    want(
        &bench,
        &json!({ "take_over": true, "operator": { "mig_strategy": "single" }, "nodes": { "gpu-1": {} } }),
    );
    order(&bench.deploy(&["gpu", "--check"]).expect(2));
    bench.vars(&json!({ "gpu_platform": "none" }));
    order(&bench.deploy(&["gpu", "--check"]).expect(2));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    bench.settled();
}

#[test]
fn names_that_no_api_server_takes_are_told_before_connecting() {
    let bench = cluster();
    want(
        &bench,
        &json!({
            "operator": { "namespace": "GPU", "policy": "a b", "time_slicing": { "configs": { "any": { "replicas": 2 } } } },
            "nodes": { "gpu_1": {} },
            "quotas": [{ "namespace": "a.b", "name": "", "hard": { "requests.nvidia.com/gpu": 1 } }],
            "test_pod": { "namespace": "-x" },
        }),
    );
    let refused = bench.deploy(&["gpu", "--check"]).expect(1);
    for text in [
        "`gpu_kubernetes.operator.namespace`: `GPU` is no name",
        "`gpu_kubernetes.operator.policy`: `a b` is no name",
        "`gpu_1` is no name of a node",
        "`gpu_kubernetes.quotas.namespace`: `a.b` is no name",
        "`gpu_kubernetes.quotas.name`: `` is no name",
        "`gpu_kubernetes.test_pod.namespace`: `-x` is no name",
    ] {
        assert!(refused.err.contains(text), "`{text}`: {}", refused.all());
    }
}

/// What a person's five commands show of the node and its cards.
struct ByHand {
    labels: String,
    cards: String,
    slices: String,
    offered: String,
    state: String,
}

fn by_hand(bench: &Bench) -> ByHand {
    let exec = "kubectl -n gpu-operator exec ds/nvidia-container-toolkit-daemonset -- chroot /run/nvidia/driver";
    ByHand {
        labels: bench.ssh("kubectl get node gpu-1 --show-labels"),
        cards: bench.ssh(&format!("{exec} nvidia-smi")),
        slices: bench.ssh(&format!("{exec} nvidia-smi mig -L")),
        offered: bench.ssh("kubectl describe node gpu-1"),
        state: bench.ssh("kubectl get node gpu-1 -L nvidia.com/mig.config.state --no-headers"),
    }
}

/// 40, 20, 10 and 10 GB of one H100.
fn mixed() -> Json {
    let devices = json!({ "3g.40gb": 1, "2g.20gb": 1, "1g.10gb": 2 });
    json!({
        "take_over": true,
        "operator": {
            "mig_strategy": "mixed",
            "mig_configs": { "fine": [{ "devices": "all", "mig-enabled": true, "mig-devices": devices }] },
        },
        "nodes": { "gpu-1": { "mig_config": "fine" } },
    })
}

#[test]
fn slices_of_several_kinds_come_from_a_config_map_of_our_own() {
    let bench = cluster();
    let mut careful = mixed();
    careful["take_over"] = json!(false);
    want(&bench, &careful);
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("spec.mig.strategy is single, set by helm");

    apply(&bench, &mixed());
    assert_eq!(allocatable(&bench, "nvidia.com/mig-3g.40gb"), "1");
    assert_eq!(allocatable(&bench, "nvidia.com/mig-2g.20gb"), "1");
    assert_eq!(allocatable(&bench, "nvidia.com/mig-1g.10gb"), "2");
    assert_eq!(label(&bench, "nvidia.com/mig-1g.10gb.count"), "2");
    let shown = by_hand(&bench);
    assert!(shown.labels.contains("nvidia.com/mig.strategy=mixed"));
    assert!(shown.cards.contains("NVIDIA H100 80GB HBM3"));
    assert_eq!(shown.slices.matches("MIG 1g.10gb").count(), 2);
    assert_eq!(shown.slices.matches("Device").count(), 4);
    assert!(shown.offered.contains("nvidia.com/mig-2g.20gb:  1"));
    assert!(shown.state.contains("success"));
    bench.settled();

    bench.rolled_back();
    let maps = bench.ssh("kubectl get configmaps -n gpu-operator -o name");
    assert_eq!(maps, "", "the ConfigMap was not there before");
    let policy = bench.ssh("kubectl get clusterpolicy cluster-policy -o jsonpath='{.spec.mig.strategy} {.spec.migManager.config.name}'");
    assert_eq!(policy, "single default-mig-parted-config");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "1");
    // The fields are their owners' again, so helm's next upgrade meets no conflict.
    let owners = bench.ssh("kubectl get clusterpolicy cluster-policy -o jsonpath='{.metadata.managedFields[*].manager}' --show-managed-fields");
    assert_eq!(owners, "helm");
}

fn shared(replicas: u32) -> Json {
    json!({
        "operator": { "time_slicing": { "configs": { "any": { "replicas": replicas } } } },
        "nodes": { "gpu-1": {} },
    })
}

#[test]
fn time_slices_are_counted_and_what_others_put_there_stays() {
    let bench = cluster();
    apply(&bench, &shared(4)).says("time-slicing isolates neither memory nor faults");
    let counted = |replicas: &str| {
        assert_eq!(label(&bench, "nvidia.com/gpu.count"), "1");
        assert_eq!(label(&bench, "nvidia.com/gpu.replicas"), replicas);
        let product = label(&bench, "nvidia.com/gpu.product");
        assert_eq!(product, "NVIDIA-H100-80GB-HBM3-SHARED");
        assert_eq!(allocatable(&bench, "nvidia.com/gpu"), replicas);
    };
    counted("4");
    assert!(by_hand(&bench).offered.contains("nvidia.com/gpu:  4"));
    bench.settled();

    // By hand: a key of the map and a field of the policy that are not ours.
    bench.ssh("kubectl patch configmap time-slicing-config-all -n gpu-operator --type merge -p '{\"data\": {\"theirs\": \"version: v1\"}}'");
    bench.settled();
    // The plugin reads a changed map only when it is started again.
    let changed = apply(&bench, &shared(8));
    changed.says("any: replicas: 4").says("any: replicas: 8");
    counted("8");
    bench.rolled_back();
    counted("4");

    // No longer wanted: our fields go, theirs stay.
    bench.vars(&json!({ "gpu_platform": "none" }));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    let data = bench
        .ssh("kubectl get configmap time-slicing-config-all -n gpu-operator -o jsonpath='{.data}'");
    assert_eq!(data, "{\"theirs\":\"version: v1\"}");
    let plugin =
        bench.ssh("kubectl get clusterpolicy cluster-policy -o jsonpath='{.spec.devicePlugin}'");
    assert_eq!(plugin, "{\"enabled\":true}");
    bench.settled();
}

#[test]
fn slices_are_shared_in_time_too() {
    let bench = cluster();
    let mut both = shared(4);
    both["take_over"] = json!(true);
    both["nodes"]["gpu-1"]["mig_config"] = json!("all-1g.10gb");
    apply(&bench, &both);
    assert_eq!(label(&bench, "nvidia.com/gpu.count"), "7");
    assert_eq!(label(&bench, "nvidia.com/gpu.replicas"), "4");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "28");
    let product = label(&bench, "nvidia.com/gpu.product");
    assert_eq!(product, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED");
    bench.settled();
}

#[test]
fn a_plugin_that_takes_no_notice_is_found_out_and_the_change_undone() {
    let bench = cluster();
    let mut block = shared(4);
    block["wait_s"] = json!(5);
    want(&bench, &block);
    bench.broken(&["gpu-operator", "plugin-deaf"]);
    let ended = bench.deploy(&["gpu", "--yes"]).expect(3);
    ended.says("expected 4 replicas");
    let maps = bench.ssh("kubectl get configmaps -n gpu-operator -o name");
    assert_eq!(maps, "");
}

#[test]
fn an_operator_that_fails_or_hangs_is_told_and_the_label_goes_back() {
    let bench = cluster();
    // A configuration that there is none of.
    want(&bench, &sliced("all-9g.99gb"));
    let ended = bench.deploy(&["gpu", "--yes"]).expect(3);
    ended.says("the MIG manager says failed");
    assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-disabled");
    assert_eq!(label(&bench, "nvidia.com/mig.config.state"), "success");

    // One that never answers leaves a person with work: what the cards are, nobody knows.
    bench.broken(&["gpu-operator", "stuck"]);
    let mut block = sliced("all-1g.10gb");
    block["wait_s"] = json!(5);
    want(&bench, &block);
    let ended = bench.deploy(&["gpu", "--yes"]).expect(5);
    let ended = ended.says("still says pending after 5 s");
    ended.says("it left paused: nvidia.com/gpu.deploy");
    assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-disabled");
    bench.mended();
    bench.rolled_back();
    assert_eq!(label(&bench, "nvidia.com/mig.config.state"), "success");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "1");
}

/// Starts a pod with one GPU by hand; `owner` is what would start it again elsewhere.
fn pod(bench: &Bench, name: &str, owner: Option<&str>) {
    let owner = owner.map(|kind| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "1", "controller": true }]));
    let gpu = json!({ "nvidia.com/gpu": 1 });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "ownerReferences": owner },
        "spec": { "containers": [{ "name": "c", "image": "train", "resources": { "requests": gpu, "limits": gpu } }] },
    });
    bench.ssh(&format!("printf '%s' '{pod}' | kubectl apply -f -"));
    bench.ssh(&format!(
        "kubectl wait --for=jsonpath='{{.status.phase}}'=Running pod/{name} --timeout=20s"
    ));
}

#[test]
fn cards_with_work_are_left_alone_unless_the_node_may_be_drained() {
    let bench = cluster();
    want(&bench, &sliced("all-1g.10gb"));
    pod(&bench, "train", Some("ReplicaSet"));
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused
        .says("node gpu-1 is in use by default/train")
        .says("drain: true");
    assert_eq!(label(&bench, "nvidia.com/mig.config"), "all-disabled");

    let mut drained = sliced("all-1g.10gb");
    drained["nodes"]["gpu-1"]["drain"] = json!(true);
    apply(&bench, &drained)
        .says("drain node gpu-1")
        .says("uncordon node gpu-1");
    assert_eq!(bench.ssh("kubectl get pods -n default -o name"), "");
    let closed = bench.ssh("kubectl get node gpu-1 -o jsonpath='{.spec.unschedulable}'");
    assert_ne!(closed, "true");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "7");
    bench.settled();

    // A pod that nobody would start again is not deleted, and the node is opened again.
    pod(&bench, "notebook", None);
    drained["nodes"]["gpu-1"]["mig_config"] = json!("all-2g.20gb");
    want(&bench, &drained);
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("default/notebook");
    assert_eq!(
        bench.ssh("kubectl get pods -n default -o name"),
        "pod/notebook\n"
    );
    let closed = bench.ssh("kubectl get node gpu-1 -o jsonpath='{.spec.unschedulable}'");
    assert_ne!(closed, "true");
    // The rollback would take its slice away.
    let refused = bench.deploy(&["rollback", "--yes"]);
    assert_ne!(refused.code, 0);
    refused.says("default/notebook");
}

#[test]
fn a_quota_counts_gpus_and_a_sample_computes() {
    let bench = cluster();
    let mut block = shared(8);
    block["quotas"] = json!([{ "namespace": "default", "hard": { "requests.nvidia.com/gpu": 4 } }]);
    block["test_pod"] = json!({});
    apply(&bench, &block).says("a pod on node gpu-1 computes on nvidia.com/gpu");
    let hard = bench.ssh("kubectl get resourcequota compute-resources -o jsonpath='{.spec.hard}'");
    assert_eq!(hard, "{\"requests.nvidia.com/gpu\":\"4\"}");
    assert_eq!(
        bench.ssh("kubectl get pods -n default -o name"),
        "",
        "the sample is deleted"
    );
    bench.settled();
    for name in ["a", "b", "c", "d"] {
        pod(&bench, name, None);
    }
    let gpu = json!({ "nvidia.com/gpu": 1 });
    let more = |requests: &Json, limits: &Json| {
        let resources = json!({ "requests": requests, "limits": limits });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "e" }, "spec": { "containers": [{ "name": "c", "image": "train", "resources": resources }] } });
        bench
            .over_ssh(&format!("printf '%s' '{pod}' | kubectl create -f -"))
            .expect(1)
    };
    more(&gpu, &gpu).says("exceeded quota: compute-resources");
    more(&gpu, &json!({ "nvidia.com/gpu": 2 })).says("must be equal to nvidia.com/gpu limit");
    more(&gpu, &json!({})).says("Limit must be set");

    // A sample that does not compute undoes what came before it.
    let mut broken = shared(16);
    broken["test_pod"] = json!({ "image": "registry.example/broken:1" });
    want(&bench, &broken);
    let ended = bench.deploy(&["gpu", "--yes"]).expect(3);
    ended.says("no CUDA-capable device is detected");
    assert_eq!(allocatable(&bench, "nvidia.com/gpu"), "8");
}

#[test]
fn plugins_of_all_vendors_are_set_up_where_no_operator_is() {
    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" }, "operator": false } });
    let bench = crate::technology::bench(&sim);
    let plugin = |vendor: &str, plugin: Json| {
        bench.vars(&json!({
            "gpu_platform": "kubernetes",
            "containers_gpu_container_integration": { "device_plugin": vendor },
            "gpu_kubernetes": { "kubeconfig": "/etc/kubernetes/admin.conf", "wait_s": 60, "plugin": plugin },
        }));
        bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
        bench.settled();
        bench.ssh("kubectl get daemonsets -n kube-system -o name")
    };
    let sharing = |replicas: u32| json!({ "sharing": { "replicas": replicas }, "node_selector": { "gpu": "nvidia" } });
    let sets = plugin("nvidia", sharing(4));
    assert_eq!(sets, "daemonset.apps/nvidia-device-plugin-daemonset\n");
    let config = || {
        bench.ssh("kubectl get configmap nvidia-device-plugin-daemonset-config -n kube-system -o jsonpath='{.data.config\\.yaml}'")
    };
    assert!(config().contains("replicas: 4"));
    plugin("nvidia", sharing(2));
    assert!(config().contains("replicas: 2"));
    bench.rolled_back();
    assert!(config().contains("replicas: 4"));

    let sets = plugin("amd", json!({ "naming": "mixed" }));
    assert_eq!(sets, "daemonset.apps/amdgpu-device-plugin-daemonset\n");
    let args = "-o jsonpath='{.spec.template.spec.containers[0].args}' -n kube-system";
    let args = |name: &str| bench.ssh(&format!("kubectl get daemonset {name} {args}"));
    assert!(args("amdgpu-device-plugin-daemonset").contains("-resource_naming_strategy=mixed"));
    let sets = plugin("intel", json!({ "shared_devices": 3 }));
    assert_eq!(sets, "daemonset.apps/intel-gpu-plugin\n");
    assert!(args("intel-gpu-plugin").contains("-shared-dev-num=3"));
    let privileged = bench.ssh("kubectl get daemonset intel-gpu-plugin -n kube-system -o jsonpath='{.spec.template.spec.containers[0].securityContext}'");
    assert!(privileged.contains("\"allowPrivilegeEscalation\":false"));
    bench.vars(&json!({ "gpu_platform": "none" }));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(
        bench.ssh("kubectl get daemonsets,configmaps -n kube-system -o name"),
        ""
    );
}

#[test]
fn what_does_not_fit_together_is_told_before_connecting() {
    let bench = cluster();
    let told = |block: &Json, text: &str| {
        want(&bench, block);
        bench.deploy(&["gpu", "--check"]).expect(1).says(text);
    };
    told(&json!({ "tak_over": true }), "unknown key `tak_over`");
    let mut single = mixed();
    single["operator"]["mig_strategy"] = json!("single");
    told(&single, "`mig_strategy: single` offers slices of one kind");
    let mut other = mixed();
    other["nodes"]["gpu-1"]["mig_config"] = json!("fien");
    told(&other, "did you mean `fine`");
    told(&sliced("no blanks"), "cannot be the value of a label");
    told(&shared(1), "from 2 to 1024");
    let mig = json!({ "operator": { "time_slicing": { "configs": { "any": { "resources": { "nvidia.com/mig-1g.10gb": 2 } } } } } });
    told(&mig, "only with `mig_strategy: mixed`");
    told(
        &json!({ "plugin": { "naming": "mixed" } }),
        "`naming` is AMD's",
    );
    let quota = json!({ "quotas": [{ "namespace": "a", "hard": { "nvidia.com/gpu": 4 } }] });
    told(&quota, "is named `requests.nvidia.com/gpu`");
    let quota = json!({ "quotas": [{ "namespace": "a", "hard": { "pods": "many" } }] });
    told(&quota, "`spec.hard.pods` must be a quantity");
    let plugin = json!({ "plugin": { "node_selector": { "gpu": "no blanks" } } });
    told(
        &plugin,
        "`spec.template.spec.nodeSelector.gpu` must be at most 63 letters",
    );
}

#[test]
fn amds_config_manager_cuts_the_cards_of_a_node_under_its_taint() {
    let node = json!({ "product": "MI300X", "count": 8 });
    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": node }, "operator": false } });
    let bench = crate::technology::bench(&sim);
    let block = |profile: &str, gpus: u32| {
        let part = |compute: &str, memory: &str, gpus: u32| json!([{ "compute": compute, "memory": memory, "gpus": gpus }]);
        json!({
            "take_over": true,
            "amd_config_manager": { "services": ["gpuagent"], "profiles": {
                "cpx": part("CPX", "NPS4", gpus), "spx": part("SPX", "NPS1", 8),
            } },
            "nodes": { "gpu-1": { "amd_profile": profile } },
        })
    };
    let taints = || bench.ssh("kubectl get node gpu-1 -o jsonpath='{.spec.taints}'");
    apply(&bench, &block("cpx", 8)).says("amd-dcm=up:NoExecute");
    assert_eq!(allocatable(&bench, "amd.com/gpu"), "64");
    assert_eq!(
        label(&bench, "dcm.amd.com/gpu-config-profile-state"),
        "success"
    );
    assert!(!taints().contains("amd-dcm"));
    bench.settled();
    apply(&bench, &block("spx", 8));
    assert_eq!(allocatable(&bench, "amd.com/gpu"), "8");
    bench.rolled_back();
    assert_eq!(allocatable(&bench, "amd.com/gpu"), "64");

    // A profile that leaves cards out fails, and the old one comes back.
    let mut seven = block("seven", 8);
    seven["amd_config_manager"]["profiles"]["seven"] = json!([{ "compute": "SPX", "gpus": 7 }]);
    want(&bench, &seven);
    let ended = bench.deploy(&["gpu", "--yes"]).expect(3);
    ended.says("says failure for the profile seven");
    assert_eq!(label(&bench, "dcm.amd.com/gpu-config-profile"), "cpx");
    assert_eq!(allocatable(&bench, "amd.com/gpu"), "64");
    assert!(!taints().contains("amd-dcm"));

    let mut wrong = block("cpx", 8);
    wrong["amd_config_manager"]["profiles"]["cpx"][0]["compute"] = json!("SPX");
    want(&bench, &wrong);
    bench
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("NPS4 needs CPX");
}

#[test]
fn the_shell_functions_are_clean() {
    let output = Command::new("shellcheck")
        .args(["-s", "sh", "src/platform/kubernetes/kubernetes.sh"])
        .output()
        .expect("shellcheck starts; tests/run installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

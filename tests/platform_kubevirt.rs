//! KubeVirt without Cozystack, from the inventory to the objects of a cluster: a real kubectl
//! against a simulated API server, which takes any fields of custom objects. What a person would
//! ask by hand is asked over plain ssh.

use serde_json::{Value as Json, json};

use crate::technology::Bench;

fn cluster() -> Bench {
    let kubectl = crate::platform_kubernetes::kubectl();
    let sim = json!({ "kubernetes": { "kubectl": kubectl, "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = crate::technology::bench(&sim);
    want(&bench, &json!({}));
    // What an installation of KubeVirt brings along.
    for object in [
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kubevirt"}}"#,
        r#"{"apiVersion":"kubevirt.io/v1","kind":"KubeVirt","metadata":{"name":"kubevirt","namespace":"kubevirt"},"spec":{"configuration":{"developerConfiguration":{"featureGates":["GPU","HostDevices"]}}}}"#,
    ] {
        bench.ssh(&format!(
            "echo '{object}' | kubectl apply --server-side --field-manager=helm -f -"
        ));
    }
    bench
}

fn want(bench: &Bench, block: &Json) {
    let mut block = block.clone();
    block["kubeconfig"] = json!("/etc/kubernetes/admin.conf");
    block["namespace"] = json!("default");
    bench.vars(&json!({ "gpu_platform": "kubevirt", "gpu_kubevirt": block }));
}

fn block(gpus: usize) -> Json {
    let gpu =
        |number: usize| json!({ "name": format!("gpu{number}"), "deviceName": "nvidia.com/A100" });
    json!({
        "virtual_machines": [{
            "name": "trainer", "cores": 16, "memory": "64Gi", "image": "quay.io/containerdisks/ubuntu:24.04",
            "gpus": (1..=gpus).map(gpu).collect::<Vec<_>>(), "userDataSecret": "trainer-user-data",
        }],
        "permittedHostDevices": { "pciHostDevices": [
            { "pciVendorSelector": "10DE:20B5", "resourceName": "nvidia.com/A100", "externalResourceProvider": true },
        ] },
    })
}

fn of_machine(bench: &Bench, path: &str) -> String {
    bench.ssh(&format!(
        "kubectl get virtualmachine.v1.kubevirt.io trainer -n default -o jsonpath='{{{path}}}'"
    ))
}

#[test]
fn a_machine_gets_gpus_that_are_permitted_changes_and_goes_back() {
    let bench = cluster();
    want(&bench, &block(1));
    let made = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    made.says("feature gates `GPU` and `HostDevices`");
    let devices = ".spec.template.spec.domain.devices.gpus[*].deviceName";
    assert_eq!(of_machine(&bench, devices), "nvidia.com/A100");
    assert_eq!(of_machine(&bench, ".spec.runStrategy"), "Always");
    let secret = ".spec.template.spec.volumes[1].cloudInitNoCloud.secretRef.name";
    assert_eq!(of_machine(&bench, secret), "trainer-user-data");
    let virt = "kubectl get kubevirt.v1.kubevirt.io kubevirt -n kubevirt -o jsonpath='{.spec.configuration.permittedHostDevices.pciHostDevices[0].resourceName} {.spec.configuration.developerConfiguration.featureGates}'";
    assert_eq!(bench.ssh(virt), "nvidia.com/A100 [\"GPU\",\"HostDevices\"]");
    bench.settled();

    want(&bench, &block(2));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    assert_eq!(
        of_machine(&bench, devices),
        "nvidia.com/A100 nvidia.com/A100"
    );
    bench.settled();
    bench.rolled_back();
    assert_eq!(of_machine(&bench, devices), "nvidia.com/A100");

    // It is not deleted with its entry, and what may be handed over goes.
    want(&bench, &json!({}));
    let kept = bench.deploy(&["gpu", "--yes"]).expect(0);
    kept.says("virtualmachine default/trainer is no longer wanted and stays");
    assert_eq!(of_machine(&bench, ".spec.runStrategy"), "Always");
    assert_eq!(bench.ssh(virt), " [\"GPU\",\"HostDevices\"]");
}

#[test]
fn the_doctor_says_why_a_machine_does_not_run() {
    let bench = cluster();
    want(&bench, &block(1));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    let found = bench.deploy(&["doctor"]).expect(2);
    let found =
        found.says("no node offers nvidia.com/A100, which virtualmachine default/trainer asks for");
    found.says("virtualmachine default/trainer does not run");
    bench.ssh(r#"kubectl patch virtualmachine.v1.kubevirt.io trainer -n default --type merge -p '{"status":{"printableStatus":"Running"}}'"#);
    let found = bench.deploy(&["doctor"]).expect(2);
    assert!(!found.out.contains("does not run"), "{}", found.all());
    bench.ssh(r#"kubectl patch kubevirt.v1.kubevirt.io kubevirt -n kubevirt --type merge -p '{"spec":{"configuration":{"permittedHostDevices":null}}}'"#);
    let found = bench.deploy(&["doctor"]).expect(2);
    let found = found.says("nvidia.com/A100 of virtualmachine default/trainer is not among the devices that KubeVirt may hand over");
    found.says("add it to `permittedHostDevices`");
}

#[test]
fn what_is_wrong_is_told_before_connecting() {
    let bench = cluster();
    let mut wrong = block(1);
    wrong["virtual_machines"][0]["gpus"][0]["deviceName"] = json!("A100");
    wrong["virtual_machines"][0]["memori"] = json!("64Gi");
    want(&bench, &wrong);
    let refused = bench.deploy(&["gpu", "--check"]).expect(1);
    let refused = refused.says("must be the name of a resource, such as `nvidia.com/A100`");
    refused
        .says("unknown key `memori`")
        .says("did you mean `memory`?");
}

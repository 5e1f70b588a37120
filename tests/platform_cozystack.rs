//! Cozystack, from the inventory to the objects of a cluster: a real kubectl against a simulated
//! API server, which takes any fields of custom objects. What a person would ask by hand is
//! asked over plain ssh.

use serde_json::{Value as Json, json};

use crate::technology::Bench;

/// A host with kubectl and a cluster that has Cozystack's kinds.
fn cluster() -> Bench {
    let kubectl = crate::platform_kubernetes::kubectl();
    let sim = json!({ "kubernetes": { "kubectl": kubectl, "nodes": { "gpu-1": "H100-80GB" } } });
    crate::technology::bench(&sim)
}

fn want(bench: &Bench, block: &Json) {
    let mut block = block.clone();
    block["kubeconfig"] = json!("/etc/kubernetes/admin.conf");
    block["namespace"] = json!("default");
    bench.vars(&json!({ "gpu_platform": "cozystack", "gpu_cozystack": block }));
}

fn machine(gpus: usize, instance_type: &str) -> Json {
    let gpu = json!({ "name": "nvidia.com/A100" });
    json!({
        "name": "trainer",
        "running": true,
        "instanceProfile": "ubuntu",
        "instanceType": instance_type,
        "gpus": vec![gpu; gpus],
        "systemDisk": { "size": "200Gi", "storageClass": "replicated" },
        "cloudInit": { "driver": 535 },
    })
}

/// What the cluster has of the machine, at a path.
fn of_machine(bench: &Bench, path: &str) -> String {
    bench.ssh(&format!(
        "kubectl get virtualmachine.v1alpha1.apps.cozystack.io trainer -n default -o jsonpath='{{{path}}}'"
    ))
}

#[test]
fn a_virtual_machine_comes_changes_and_goes_back_and_is_never_deleted_unasked() {
    let bench = cluster();
    want(&bench, &json!({}));
    // What Cozystack brings along.
    for object in [
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"cozy-kubevirt"}}"#,
        r#"{"apiVersion":"kubevirt.io/v1","kind":"KubeVirt","metadata":{"name":"kubevirt","namespace":"cozy-kubevirt"},"spec":{"configuration":{"evictionStrategy":"LiveMigrate"}}}"#,
    ] {
        bench.ssh(&format!(
            "echo '{object}' | kubectl apply --server-side --field-manager=helm -f -"
        ));
    }
    let permitted = json!({ "pciHostDevices": [
        { "pciVendorSelector": "10DE:20B5", "resourceName": "nvidia.com/A100", "externalResourceProvider": true },
    ]});
    let block = |machine: &Json| json!({ "virtual_machines": [machine], "permittedHostDevices": permitted });

    want(&bench, &block(&machine(1, "g1.large")));
    bench
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("make virtualmachine");
    let made = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    // What a machine is told at its first boot may hold passwords.
    assert!(!made.out.contains("nvidia-driver"), "{}", made.out);
    assert_eq!(of_machine(&bench, ".spec.instanceType"), "g1.large");
    let kept = bench.deploy(&["rollback", "--yes"]).expect(3);
    kept.says("its disks would go with it");
    assert_eq!(of_machine(&bench, ".spec.instanceType"), "g1.large");
    assert_eq!(of_machine(&bench, ".spec.gpus[*].name"), "nvidia.com/A100");
    assert!(of_machine(&bench, ".spec.cloudInit").contains("nvidia-driver-535"));
    let devices = bench.ssh(
        "kubectl get kubevirt.v1.kubevirt.io kubevirt -n cozy-kubevirt -o jsonpath='{.spec.configuration.permittedHostDevices.pciHostDevices[0].resourceName}'",
    );
    assert_eq!(devices, "nvidia.com/A100");
    let others = "kubectl get kubevirt.v1.kubevirt.io kubevirt -n cozy-kubevirt -o jsonpath='{.spec.configuration.evictionStrategy}'";
    assert_eq!(bench.ssh(others), "LiveMigrate");
    bench.settled();

    // Two GPUs take another type, and the plan says what it thinks of the processors.
    want(&bench, &block(&machine(2, "g1.large")));
    let refused = bench.deploy(&["gpu", "--yes"]).expect(1);
    refused.says("instance type `g1.large` has 1 GPU, and `gpus` lists 2");
    want(&bench, &block(&machine(2, "g2.xlarge")));
    let changed = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    changed.says("g2.xlarge has 32 vCPU a GPU; 8 to 16 suit most work");
    assert_eq!(
        of_machine(&bench, ".spec.gpus[*].name"),
        "nvidia.com/A100 nvidia.com/A100"
    );
    bench.rolled_back();
    assert_eq!(of_machine(&bench, ".spec.instanceType"), "g1.large");

    // A machine that is no longer wanted keeps its disks until a person says otherwise.
    want(&bench, &json!({ "permittedHostDevices": permitted }));
    let kept = bench.deploy(&["gpu", "--yes"]).expect(0);
    kept.says("virtualmachine default/trainer is no longer wanted and stays");
    assert_eq!(of_machine(&bench, ".spec.instanceType"), "g1.large");
}

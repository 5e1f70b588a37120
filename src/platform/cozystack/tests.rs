//! Variables become the manifests of Hikube's pages, and what is
//! missing or does not fit is told where it stands.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::content::Content;
use crate::error::Origin;

const MACHINES: &str = include_str!("../../../tests/fixtures/cozystack/virtual_machines.yaml");
const OVERVIEW: &str = include_str!("../../../tests/fixtures/cozystack/overview.yaml");
const CLOUD_INIT: &str = include_str!("../../../tests/fixtures/cozystack/cloud_init.yaml");

fn documents(text: &str) -> Vec<Json> {
    let documents = serde_yaml::Deserializer::from_str(text);
    documents
        .map(|document| Json::deserialize(document).expect("a manifest"))
        .collect()
}

fn settings(block: &Json) -> (Settings, Problems) {
    let vars = json!({ "gpu_cozystack": block });
    let origin = Origin::whole("vars.yml", vars.to_string());
    let node = Node::from_json(&vars, &origin);
    let map = node.as_map().cloned().expect("a mapping");
    let vars = map.into_iter().map(|(name, entry)| (name, entry.node));
    let (desired, found) = crate::desired::read(&vars.collect(), &|_, _| Default::default());
    assert_eq!(found.0, []);
    let catalog = Catalog::load(&Content::shipped()).expect("the shipped catalog is right");
    let mut problems = Problems::default();
    let settings = read(&desired, &catalog, &mut problems);
    (settings, problems)
}

fn objects(block: &Json) -> Vec<Object> {
    let (settings, problems) = settings(block);
    assert_eq!(problems.0, []);
    settings.objects
}

/// The variables that a person would write for a manifest.
fn variables(manifest: &Json) -> Json {
    let mut vars = json!({ "name": manifest["metadata"]["name"] });
    let spec = manifest["spec"].as_object().expect("a spec");
    for (key, value) in spec {
        vars[key] = value.clone();
    }
    vars
}

fn messages(problems: &Problems) -> Vec<String> {
    let told = |found: &crate::error::Diagnostic| {
        let hint = found.hint.clone().unwrap_or_default();
        format!("{} ({hint})", found.message)
    };
    problems.0.iter().map(told).collect()
}

fn machine() -> Json {
    variables(&documents(MACHINES)[0])
}

#[test]
fn each_virtual_machine_of_the_reference_comes_out_of_variables() {
    let manifests = documents(MACHINES);
    assert_eq!(manifests.len(), 6);
    let machines: Vec<Json> = manifests.iter().map(variables).collect();
    let made = objects(&json!({ "virtual_machines": machines }));
    let made: Vec<Json> = made.into_iter().map(|object| object.manifest).collect();
    assert_eq!(made, manifests);
}

#[test]
fn each_manifest_of_the_overview_comes_out_of_variables() {
    let manifests = documents(OVERVIEW);
    let made = objects(&json!({
        "virtual_machines": [variables(&manifests[0])],
        "clusters": [variables(&manifests[1])],
        "pods": [{ "name": "gpu-pod", "containers": [{
            "name": "gpu-app",
            "image": "nvidia/cuda:12.0-runtime-ubuntu20.04",
            "gpus": { "nvidia.com/gpu": 1 },
        }]}],
    }));
    let made: Vec<Json> = made.into_iter().map(|object| object.manifest).collect();
    assert_eq!(made, manifests);
}

#[test]
fn a_required_key_that_is_missing_is_named() {
    for (key, wanted) in [
        ("name", "a virtual machine needs `name`"),
        ("gpus", "virtual machine `example-gpu-vm` needs `gpus`"),
        (
            "instanceType",
            "virtual machine `example-gpu-vm` needs `instanceType`",
        ),
    ] {
        let mut vars = machine();
        vars.as_object_mut().expect("a mapping").shift_remove(key);
        let (settings, problems) = settings(&json!({ "virtual_machines": [vars] }));
        assert!(settings.objects.is_empty());
        assert!(messages(&problems)[0].starts_with(wanted), "{problems:?}");
    }
    let mut vars = machine();
    vars["gpus"] = json!([{ "deviceName": "gpu1" }]);
    let (_, problems) = settings(&json!({ "virtual_machines": [vars] }));
    assert!(messages(&problems)[0].starts_with("a GPU needs `name`"));
    let mut vars = machine();
    vars["systemDisk"] = json!({ "storageClass": "replicated" });
    let (_, problems) = settings(&json!({ "virtual_machines": [vars] }));
    assert!(
        messages(&problems)[0].contains("needs `size`"),
        "{problems:?}"
    );
}

#[test]
fn the_number_of_gpus_is_that_of_the_instance_type() {
    let counts = [
        ("g1.medium", 1),
        ("g1.4xlarge", 1),
        ("g2.large", 2),
        ("g4.8xlarge", 4),
        ("g8.2xlarge", 8),
    ];
    for (name, right) in counts {
        for count in [1_u32, 2, 4, 8] {
            let mut vars = machine();
            vars["instanceType"] = json!(name);
            let gpu = json!({ "name": "nvidia.com/H100" });
            vars["gpus"] = (0..count).map(|_| gpu.clone()).collect();
            let (_, problems) = settings(&json!({ "virtual_machines": [vars] }));
            assert_eq!(problems.has_errors(), count != right, "{name} {count}");
        }
    }
    let mut vars = machine();
    vars["gpus"] = json!([{ "name": "nvidia.com/H100" }, { "name": "nvidia.com/H100" }]);
    let (_, problems) = settings(&json!({ "virtual_machines": [vars] }));
    assert_eq!(
        messages(&problems),
        [
            "instance type `g1.xlarge` has 1 GPU, and `gpus` lists 2 (list 1 GPU for it, or take one with 2 GPUs: `g2.2xlarge`, `g2.4xlarge`, `g2.large`, `g2.xlarge`)"
        ]
    );
}

#[test]
fn what_does_not_fit_is_told_where_it_stands() {
    let wrong = [
        (
            "instanceType",
            json!("g1.xlarg"),
            "did you mean `g1.xlarge`?",
        ),
        (
            "gpus",
            json!([{ "name": "L40S" }]),
            "not the name of a resource",
        ),
        ("externalPorts", json!([70_000]), "ports from 1 to 65535"),
        ("externalPorts", json!([8000]), "`external` is not true"),
        (
            "cloudInit",
            json!("runcmd: [ls]\n"),
            "first line is `#cloud-config`",
        ),
        (
            "cloudInit",
            json!("#cloud-config\nruncmd: [ls\n"),
            "is no YAML",
        ),
        (
            "systemDisk",
            json!({ "size": "200GB" }),
            "a size such as `200Gi`",
        ),
        (
            "additionalDisks",
            json!([{ "size": "1Gi" }]),
            "needs `name`",
        ),
        (
            "additionalDisks",
            json!([{ "name": "a", "size": "1Gi" }, { "name": "a", "size": "1Gi" }]),
            "are called `a`",
        ),
        (
            "network",
            json!({ "interfaces": [{ "name": "x" }] }),
            "either `bridge` or `multus`",
        ),
        (
            "instancetype",
            json!("g1.large"),
            "did you mean `instanceType`?",
        ),
        ("name", json!("Example_VM"), "not one that Kubernetes takes"),
    ];
    for (key, value, wanted) in wrong {
        let mut vars = machine();
        vars[key] = value;
        let (settings, problems) = settings(&json!({ "virtual_machines": [vars] }));
        assert!(settings.objects.is_empty(), "{key}");
        let told = messages(&problems).join("\n");
        assert!(told.contains(wanted), "{key}: {told}");
        assert!(problems.0.iter().all(|found| found.origin.is_some()));
    }
}

#[test]
fn software_is_installed_as_the_reference_does_it() {
    let mut vars = machine();
    vars["cloudInit"] = json!({
        "driver": 535,
        "docker": true,
        "users": [{
            "name": "gpu-user",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
            "groups": ["docker"],
            "ssh_authorized_keys": ["ssh-rsa AAAAB3NzaC1yc2E..."],
        }],
    });
    let made = objects(&json!({ "virtual_machines": [vars] }));
    let text = made[0].manifest["spec"]["cloudInit"]
        .as_str()
        .expect("a text");
    assert!(text.starts_with("#cloud-config\n"));
    let made: Json = serde_yaml::from_str(text).expect("YAML");
    let reference: Json = serde_yaml::from_str(CLOUD_INIT).expect("YAML");
    assert_eq!(made, reference);
}

#[test]
fn monitoring_adds_the_exporter_and_what_finds_it() {
    let mut vars = machine();
    vars["monitoring"] = json!(true);
    vars["cloudInit"] = json!({ "driver": 535, "docker": true });
    let made = objects(&json!({ "virtual_machines": [vars] }));
    let manifest = &made[0].manifest;
    assert_eq!(
        manifest["metadata"]["annotations"],
        json!({
            "prometheus.io/scrape": "true",
            "prometheus.io/port": "9400",
            "prometheus.io/path": "/metrics",
        })
    );
    let text = manifest["spec"]["cloudInit"].as_str().expect("a text");
    assert!(text.contains("dcgm-exporter"));
}

#[test]
fn good_practice_is_advised_and_not_enforced() {
    let mut vars = machine();
    vars["use"] = json!("training");
    vars["instanceType"] = json!("g1.medium");
    vars["systemDisk"] = json!({ "size": "200Gi", "storageClass": "local" });
    let made = objects(&json!({ "virtual_machines": [vars] }));
    let advice = made[0].advice.join("\n");
    for wanted in [
        "32 GiB of memory a GPU; at least 64",
        "its system disk is on local storage",
        "no disk with `storageClass: local`",
    ] {
        assert!(advice.contains(wanted), "{advice}");
    }
    let quad = variables(&documents(MACHINES)[2]);
    let made = objects(&json!({ "virtual_machines": [quad] }));
    assert!(made[0].advice.join("\n").contains("32 vCPU a GPU; 8 to 16"));
    let mut fine = machine();
    fine["instanceType"] = json!("g1.large");
    assert_eq!(
        objects(&json!({ "virtual_machines": [fine] }))[0].advice,
        [] as [&str; 0]
    );
}

#[test]
fn devices_that_may_be_handed_over_come_first_and_others_are_named() {
    let made = objects(&json!({
        "namespace": "tenant-ml",
        "virtual_machines": [machine()],
        "permittedHostDevices": { "pciHostDevices": [{
            "pciVendorSelector": "10DE:20B5",
            "resourceName": "nvidia.com/A100",
            "externalResourceProvider": true,
        }]},
    }));
    assert_eq!(made[0].manifest["kind"], "KubeVirt");
    assert_eq!(made[0].manifest["metadata"]["namespace"], "cozy-kubevirt");
    assert_eq!(made[1].manifest["metadata"]["namespace"], "tenant-ml");
    assert!(
        made[1]
            .advice
            .join("\n")
            .contains("nvidia.com/L40S is not in")
    );
    let (_, problems) = settings(&json!({
        "permittedHostDevices": { "pciHostDevices": [{ "pciVendorSelector": "10DE" }] },
    }));
    assert_eq!(problems.0.len(), 2);
}

#[test]
fn two_objects_of_one_name_and_types_that_nobody_knows_are_told() {
    let twice = settings(&json!({ "virtual_machines": [machine(), machine()] }));
    assert!(messages(&twice.1)[0].contains("two of VirtualMachine `example-gpu-vm`"));
    let mut other = machine();
    other["instanceType"] = json!("u1.xlarge");
    let made = objects(&json!({ "virtual_machines": [other] }));
    assert!(
        made[0]
            .advice
            .join("\n")
            .contains("`u1.xlarge` is not in the catalog")
    );
}

#[test]
fn a_manifest_is_held_against_its_table_before_anything_is_sent() {
    let told = |block: &Json| {
        let (_, problems) = settings(block);
        assert!(problems.0.iter().all(|found| found.origin.is_some()));
        messages(&problems).join("\n")
    };
    let mut vars = machine();
    vars["instanceProfile"] = json!("ubunto");
    vars["resources"] = json!({ "cpu": "many" });
    vars["sshKeys"] = json!("ssh-ed25519 AAAA");
    let all = told(&json!({ "virtual_machines": [vars] }));
    for part in [
        "VirtualMachine `example-gpu-vm`: `spec.instanceProfile` cannot be the string `ubunto` (did you mean `ubuntu`?",
        "`spec.resources.cpu` must be a quantity such as `200Gi`, not the string `many`",
        "`spec.sshKeys` must be a list, not the string",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let gpus = json!([{ "name": "nvidia.com/L40S" }]);
    let group =
        json!({ "instanceType": "u1.xlarge", "gpus": gpus, "resources": { "memory": true } });
    let all = told(&json!({ "clusters": [
        { "name": "ml", "version": "v1.20", "controlPlane": { "replicas": "3" }, "nodeGroups": { "gpu": group } },
    ] }));
    for part in [
        "Kubernetes `ml`: `spec.version` cannot be the string `v1.20`",
        "`spec.controlPlane.replicas` must be a whole number of at least 1, not the string `3`",
        "`spec.nodeGroups.gpu.resources.memory` must be a quantity",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
}

#[test]
fn fields_of_cozystack_itself_go_into_the_manifests_as_they_are() {
    let mut vars = machine();
    vars["systemDisk"] = json!({ "image": "ubuntu", "storage": "50Gi" });
    vars["sshKeys"] = json!(["ssh-ed25519 AAAA"]);
    vars["externalMethod"] = json!("WholeIP");
    let group = json!({ "instanceType": "u1.xlarge", "gpus": [{ "name": "nvidia.com/L40S" }] });
    let addons = json!({ "gpuOperator": { "enabled": true } });
    let made = objects(&json!({
        "virtual_machines": [vars],
        "clusters": [{ "name": "ml", "version": "v1.33", "addons": addons, "nodeGroups": { "gpu": group } }],
    }));
    assert_eq!(made[0].manifest["spec"]["systemDisk"], vars["systemDisk"]);
    assert_eq!(made[0].manifest["spec"]["sshKeys"], vars["sshKeys"]);
    assert_eq!(made[1].manifest["spec"]["addons"], addons);
    // What only this Cozystack may have is said, and sent.
    let (settings, problems) = settings(&json!({ "clusters": [
        { "name": "ml", "addons": { "own": {} }, "nodeGroups": { "gpu": group } },
    ] }));
    assert_eq!(settings.objects.len(), 1);
    assert!(!problems.has_errors());
    assert!(
        messages(&problems)[0].contains("there is no field `spec.addons.own`"),
        "{problems:?}"
    );
}

//! Every kind of manifest that is sent or printed, held against schemas that others made of the
//! APIs (`oracles.sh` fetches them), and broken ones, which they and our tables refuse alike.
//! Of Cozystack there is no such thing in a registry: its tables have tests of their own.

mod typescript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use deploy::content::Content;
use deploy::error::Severity;
use deploy::manifest::{Tables, spelled};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::harness::Scratch;
use crate::platform_kubernetes::kubectl;
use crate::technology::Bench;
use typescript::Types;

/// The folder with the schemas, fetched once.
fn oracles() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles.sh");
        let output = Command::new(script).output().expect("bash starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no schemas to test by: {said}");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| Tables::load(&Content::shipped()).expect("the shipped tables are right"))
}

/// What the strict schemas of Kubernetes have against each of some manifests; empty for a good
/// one.
fn against_kubernetes(manifests: &[Json]) -> Vec<String> {
    let scratch = Scratch::new();
    let script = scratch.write(
        "check.py",
        "import json, sys, kubernetes_validate as k\n\
         said = []\n\
         for manifest in json.load(open(sys.argv[1])):\n\
         \x20   try:\n\
         \x20       k.validate(manifest, '1.37', strict=True)\n\
         \x20       said.append('')\n\
         \x20   except k.ValidationError as error:\n\
         \x20       said.append('.'.join(map(str, error.path)) + ': ' + error.message)\n\
         print(json.dumps(said))\n",
    );
    let input = scratch.write("manifests.json", &json!(manifests).to_string());
    let mut python = Command::new(oracles().join("venv/bin/python"));
    let output = python.arg(script).arg(input).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubernetes-validate: {said}");
    let said: Vec<String> = serde_json::from_slice(&output.stdout).expect("a list of texts");
    assert_eq!(said.len(), manifests.len());
    said
}

/// The same of the types of KubeVirt.
fn against_kubevirt(manifest: &Json) -> Vec<String> {
    static TYPES: OnceLock<Types> = OnceLock::new();
    let types = TYPES.get_or_init(|| {
        let text = fs::read_to_string(oracles().join("kubevirt.d.ts")).expect("it was fetched");
        Types::read(&text)
    });
    let kind = manifest["kind"].as_str().expect("a kind");
    types.check(&format!("V1{kind}"), manifest)
}

/// What our tables have against a manifest, with what is only warned of.
fn against_ours(manifest: &Json) -> Vec<String> {
    let found = tables().check(manifest);
    found.into_iter().map(|wrong| wrong.message).collect()
}

/// What the runs so far have sent to a cluster, each kind's last at the end.
fn sent(bench: &Bench) -> Vec<Json> {
    let runs = bench.root().join("var/lib/deploy/runs");
    let mut sent = Vec::new();
    for run in fs::read_dir(runs).expect("there was a run").flatten() {
        for file in fs::read_dir(run.path().join("payload"))
            .expect("payload")
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("kubernetes-test-") || name.ends_with("-wanted") {
                let text = fs::read_to_string(file.path()).expect("a manifest");
                sent.push(serde_json::from_str(&text).expect("JSON"));
            }
        }
    }
    sent
}

fn kinds(manifests: &[Json]) -> Vec<&str> {
    let mut kinds: Vec<&str> = manifests
        .iter()
        .filter_map(|m| m["kind"].as_str())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// A change that makes a good manifest wrong: where, and to what; null takes it out.
type Breakage = (&'static str, Json);

fn broken(manifest: &Json, (pointer, value): &Breakage) -> Json {
    let mut broken = manifest.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a path");
    let parent = broken.pointer_mut(parent).expect("the path is there");
    match (parent, value) {
        (Json::Object(map), Json::Null) => {
            map.shift_remove(key).expect("the field is there");
        }
        (Json::Object(map), value) => {
            map.insert(key.to_owned(), value.clone());
        }
        (parent, value) => {
            *parent.pointer_mut(&format!("/{key}")).expect("an item") = value.clone();
        }
    }
    broken
}

fn breakages(kind: &str) -> Vec<Breakage> {
    let container = |field: &str| -> &'static str {
        Box::leak(format!("/spec/template/spec/containers/0/{field}").into_boxed_str())
    };
    match kind {
        "ConfigMap" => vec![
            ("/data/n", json!(1)),
            ("/immutable", json!("yes")),
            ("/dat", json!({})),
            ("/metadata/name", json!(["x"])),
        ],
        "ResourceQuota" => vec![
            ("/spec/hard", json!([])),
            ("/spec/hard/pods", json!(true)),
            ("/spec/scope", json!([])),
        ],
        "Node" => vec![
            ("/metadata/labels/gpu", json!(true)),
            ("/metadata/lables", json!({})),
        ],
        "DaemonSet" => vec![
            ("/spec/selector", Json::Null),
            ("/spec/template", Json::Null),
            ("/spec/minReadySeconds", json!("10")),
            ("/spec/template/spec/containers", Json::Null),
            (
                "/spec/template/spec/tolerations/0/tolerationSeconds",
                json!("1"),
            ),
            (container("name"), Json::Null),
            (container("images"), json!("x")),
            (container("args"), json!("x")),
            (
                container("securityContext"),
                json!({ "readonlyRootFilesystem": true }),
            ),
        ],
        "Pod" => vec![
            ("/spec/containers", json!({})),
            ("/spec/containers/0/resources/limits", json!(["1"])),
            ("/spec/nodeSelector", json!({ "gpu": 1 })),
            ("/spec/restartpolicy", json!("Never")),
        ],
        "CronJob" => vec![
            ("/spec/schedule", Json::Null),
            ("/spec/jobTemplate", Json::Null),
            ("/spec/suspended", json!(true)),
            ("/spec/jobTemplate/spec/completions", json!("2")),
            (
                "/spec/jobTemplate/spec/template/spec/volumes/0/name",
                Json::Null,
            ),
            (
                "/spec/jobTemplate/spec/template/spec/volumes/0/secret",
                json!({ "name": "x" }),
            ),
            (
                "/spec/jobTemplate/spec/template/spec/volumes/0/configMap",
                json!({ "nam": "x" }),
            ),
        ],
        "VirtualMachine" => vec![
            ("/spec/template", Json::Null),
            ("/spec/template/spec/domain", Json::Null),
            ("/spec/template/spec/domain/cpu/cores", json!("16")),
            ("/spec/template/spec/domain/cpu/cors", json!(1)),
            ("/spec/template/spec/domain/devices/gpus/0/name", Json::Null),
            (
                "/spec/template/spec/domain/devices/gpus/0/device",
                json!("x"),
            ),
            ("/spec/template/spec/networks/0/name", Json::Null),
            (
                "/spec/template/spec/volumes/0/containerDisk/image",
                Json::Null,
            ),
            (
                "/spec/template/spec/volumes/0/containerDisk/imagePullPolicy",
                json!("Often"),
            ),
            ("/spec/running", json!("yes")),
        ],
        other => panic!("no broken {other}"),
    }
}

/// Both take the manifest, and both refuse it however it is broken.
fn both_agree(manifest: &Json, oracle: impl Fn(&[Json]) -> Vec<String>) {
    let kind = manifest["kind"].as_str().expect("a kind");
    let breakages = breakages(kind);
    let mut all = vec![manifest.clone()];
    all.extend(breakages.iter().map(|breakage| broken(manifest, breakage)));
    let theirs = oracle(&all);
    let ours: Vec<Vec<String>> = all.iter().map(against_ours).collect();
    assert_eq!(theirs[0], "", "{manifest:#}");
    assert_eq!(ours[0], Vec::<String>::new(), "{manifest:#}");
    for ((pointer, value), (theirs, ours)) in breakages.iter().zip(theirs.iter().zip(&ours).skip(1))
    {
        assert_ne!(theirs, "", "{kind} with {pointer}: {value}");
        assert!(!ours.is_empty(), "{kind} with {pointer}: {value}: {theirs}");
    }
}

#[test]
fn objects_of_kubernetes_are_what_its_schemas_take() {
    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = crate::technology::bench(&sim);
    let want = |block: Json| {
        let mut block = block;
        block["kubeconfig"] = json!("/etc/kubernetes/admin.conf");
        block["wait_s"] = json!(60);
        block["take_over"] = json!(true);
        bench.vars(&json!({ "gpu_platform": "kubernetes", "gpu_kubernetes": block }));
        bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    };
    let slicing =
        json!({ "name": "slicing", "default": "any", "configs": { "any": { "replicas": 4 } } });
    want(json!({
        "operator": { "time_slicing": slicing, "mig_strategy": "mixed" },
        "nodes": { "gpu-1": { "mig_config": "all-1g.10gb", "device_plugin_config": "any" } },
        "quotas": [{ "namespace": "default", "hard": { "requests.nvidia.com/gpu": 4, "requests.memory": "64Gi" } }],
    }));
    let mut all = sent(&bench);

    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" }, "operator": false } });
    let bench = crate::technology::bench(&sim);
    for vendor in ["nvidia", "amd", "intel"] {
        bench.vars(&json!({
            "gpu_platform": "kubernetes",
            "containers_gpu_container_integration": { "device_plugin": vendor },
            "gpu_kubernetes": {
                "kubeconfig": "/etc/kubernetes/admin.conf", "wait_s": 60,
                "plugin": { "node_selector": { "gpu": "yes" } },
            },
        }));
        bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    }
    all.extend(sent(&bench));

    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = crate::technology::bench(&sim);
    bench.vars(&json!({ "gpu_platform": "kubernetes", "gpu_kubernetes": {
        "kubeconfig": "/etc/kubernetes/admin.conf", "wait_s": 60, "test_pod": {}, "take_over": true,
        "nodes": { "gpu-1": { "mig_config": "all-disabled" } },
    }}));
    bench
        .deploy(&["gpu", "--yes"])
        .expect(0)
        .says("computes on nvidia.com/gpu");
    all.extend(sent(&bench));

    let made = kinds(&all);
    assert_eq!(
        made,
        [
            "ClusterPolicy",
            "ConfigMap",
            "DaemonSet",
            "Node",
            "Pod",
            "ResourceQuota"
        ]
    );
    for manifest in &all {
        assert_eq!(against_ours(manifest), Vec::<String>::new(), "{manifest:#}");
    }
    // The operators' kinds are not Kubernetes' own.
    all.retain(|manifest| manifest["kind"] != "ClusterPolicy");
    let theirs = against_kubernetes(&all);
    for (manifest, said) in all.iter().zip(&theirs) {
        assert_eq!(said, "", "{manifest:#}");
    }
    for kind in ["ConfigMap", "DaemonSet", "Node", "Pod", "ResourceQuota"] {
        let manifest = all.iter().find(|manifest| manifest["kind"] == kind);
        both_agree(manifest.expect("it was sent"), against_kubernetes);
    }
}

#[test]
fn objects_of_kubevirt_are_what_its_types_take() {
    let sim = json!({ "kubernetes": { "kubectl": kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = crate::technology::bench(&sim);
    let machine = |name: &str, more: &Json| {
        let mut machine =
            json!({ "name": name, "gpus": [{ "name": "gpu1", "deviceName": "nvidia.com/A100" }] });
        for (key, value) in more.as_object().expect("a mapping") {
            machine[key] = value.clone();
        }
        machine
    };
    let disk = json!({ "cores": 16, "memory": "64Gi", "image": "quay.io/containerdisks/ubuntu:24.04", "userDataSecret": "trainer-user-data",
        "hostDevices": [{ "name": "nic1", "deviceName": "intel.com/x710" }] });
    let claim = json!({ "instancetype": "u1.large", "preference": "ubuntu", "claim": "other-system", "running": false, "labels": { "team": "ml" } });
    bench.vars(&json!({ "gpu_platform": "kubevirt", "gpu_kubevirt": {
        "kubeconfig": "/etc/kubernetes/admin.conf", "namespace": "default", "kubevirt_namespace": "default",
        "virtual_machines": [machine("trainer", &disk), machine("other", &claim)],
        "permittedHostDevices": {
            "pciHostDevices": [{ "pciVendorSelector": "10DE:20B5", "resourceName": "nvidia.com/A100", "externalResourceProvider": true }],
            "mediatedDevices": [{ "mdevNameSelector": "GRID T4-1Q", "resourceName": "nvidia.com/GRID_T4-1Q" }],
        },
    }}));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    let all = sent(&bench);
    assert_eq!(kinds(&all), ["KubeVirt", "VirtualMachine"]);
    for manifest in &all {
        assert_eq!(against_ours(manifest), Vec::<String>::new(), "{manifest:#}");
        assert_eq!(
            against_kubevirt(manifest),
            Vec::<String>::new(),
            "{manifest:#}"
        );
    }
    let trainer = all
        .iter()
        .find(|manifest| manifest["metadata"]["name"] == "trainer");
    both_agree(trainer.expect("it was sent"), |all| {
        let each = all
            .iter()
            .map(|manifest| against_kubevirt(manifest).join("; "));
        each.collect()
    });
    let virt = all.iter().find(|manifest| manifest["kind"] == "KubeVirt");
    let list = "/spec/configuration/permittedHostDevices/pciHostDevices";
    let breakage = (
        list,
        json!([{ "pciVendorSelector": 4318, "resourceNam": "x" }]),
    );
    let wrong = broken(virt.expect("it was sent"), &breakage);
    assert!(!against_kubevirt(&wrong).is_empty());
    assert!(!against_ours(&wrong).is_empty());
}

#[test]
fn the_scheduled_job_is_what_kubernetes_schemas_take() {
    let scratch = Scratch::new();
    let file = scratch.write("fleet.yml", "all:\n  hosts:\n    n1:\n");
    let file = file.to_str().expect("a plain path");
    for more in [vec!["--shards", "4"], vec!["--in-image"]] {
        let mut command = scratch.command(env!("CARGO_BIN_EXE_deploy"));
        command
            .args(["schedule", "kubernetes", "--image", "deploy:1", "-i", file])
            .args(&more);
        let printed = crate::harness::ended(command.output().expect("deploy starts")).expect(0);
        let manifest = Json::deserialize(serde_yaml::Deserializer::from_str(&printed.out));
        let manifest = manifest.expect("one document");
        both_agree(&manifest, against_kubernetes);
    }
}

#[test]
fn a_word_that_the_schemas_leave_open_is_none_of_ours() {
    let pod = |field: &str, value: &str| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c", "image": "i" }] },
        });
        pod["spec"][field] = json!(value);
        pod
    };
    let all = [pod("restartPolicy", "Never"), pod("dnsPolicy", "Default")];
    assert_eq!(against_kubernetes(&all), ["", ""]);
    assert_eq!(against_ours(&all[0]), Vec::<String>::new());
    let wrong = tables().check(&pod("restartPolicy", "Nevr"));
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].severity, Severity::Error);
    assert_eq!(spelled(&wrong[0].path), "spec.restartPolicy");
}

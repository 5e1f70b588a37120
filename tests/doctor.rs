//! `deploy doctor` against what the seeds' sections on troubleshooting, verification and errors
//! name: each line with the fault that is brought about and the test in which the doctor finds it
//! and says the command that mends it. Where that command can be typed on a simulated host, the
//! test types it.

use serde_json::{Value as Json, json};

use crate::failures::is_a_test;
use crate::harness::Ended;
use crate::technology::{Bench, bench, want};

/// Requirement, what the seed says, the fault, and the test.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const LINES: &[Row] = &[
    // Seed 000: prerequisites, verification and troubleshooting.
    ("0.10", "nvidia-smi is not found in the container", "the program is taken out of a container",
        "platform_incus::profiles_and_instances_of_the_real_daemon"),
    ("0.10", "the driver's version in the container must be the host's", "nvidia-smi of another version",
        "platform_incus::profiles_and_instances_of_the_real_daemon"),
    ("0.10", "the GPU does not appear in the container: its device (`incus config show`)", "the instance loses its device",
        "platform_incus_infra::the_doctor_tells_a_card_that_is_not_alone_and_an_iommu_that_is_off"),
    ("0.10", "the GPU does not appear in the container: its profile (`incus profile show`)", "the device is taken out of the profile",
        "platform_incus::profiles_and_instances_of_the_real_daemon"),
    ("0.10", "access is lost after a restart of the container", "the node is gone within a running container",
        "platform_incus::profiles_and_instances_of_the_real_daemon"),
    ("0.7", "the IOMMU must be on", "the firmware offers none",
        "platform_incus_infra::the_doctor_tells_a_card_that_is_not_alone_and_an_iommu_that_is_off"),
    ("0.7", "the GPU must be alone in its IOMMU group", "a network card in the group",
        "platform_incus_infra::the_doctor_tells_a_card_that_is_not_alone_and_an_iommu_that_is_off"),
    ("0.9", "whether there is a GPU at all", "a driver that is not loaded",
        "doctor::a_driver_that_is_not_loaded_is_found_and_loaded"),
    // Seed 002: configuration and verification.
    ("2.2", "no work on the card, else the configuration does not change", "a pod with a GPU while the manager is to slice",
        "doctor::a_manager_that_gives_up_is_told_with_who_is_in_its_way"),
    ("2.3", "the labels of the node", "somebody sets another label",
        "doctor::what_somebody_else_changed_is_found_and_put_back"),
    ("2.4", "the ConfigMap of time-slicing", "somebody deletes it",
        "doctor::what_somebody_else_changed_is_found_and_put_back"),
    ("2.4", "the ClusterPolicy names it", "somebody takes the name out",
        "doctor::what_somebody_else_changed_is_found_and_put_back"),
    ("2.4", "the device plugin is restarted", "the plugin has not read a changed configuration",
        "doctor::a_plugin_that_has_not_read_its_configuration_is_started_anew"),
    ("2.5", "gpu.count, gpu.replicas, gpu.product with -SHARED, nvidia.com/gpu", "labels and offers that do not fit",
        "src/platform/kubernetes/doctor.rs::what_a_node_offers_is_counted_as_a_person_would"),
    ("2.6", "nvidia-smi within the toolkit's daemon set", "the daemon set is deleted",
        "doctor::a_daemon_set_that_is_gone_is_told"),
    ("2.6", "nvidia-smi mig -L", "the manager fails or hangs",
        "doctor::a_manager_that_gives_up_is_told_with_who_is_in_its_way"),
    ("2.7", "a pod that is to compute", "it asks for more than nodes have",
        "doctor::pods_without_a_place_and_quotas_that_are_used_up_are_told"),
    ("2.8", "a ResourceQuota bounds what a namespace asks for", "all of it is in use",
        "doctor::pods_without_a_place_and_quotas_that_are_used_up_are_told"),
    // Seeds 001 and 003: machines and pods on Cozystack.
    ("3.1", "the machine runs", "it is stopped, finds no place, or was not made",
        "src/platform/cozystack/doctor.rs::a_machine_that_does_not_run_says_why"),
    ("3.1", "gpus[].name is a device of the cluster", "it is not permitted, or no node offers it",
        "src/platform/cozystack/doctor.rs::a_gpu_must_be_permitted_and_offered"),
    ("1.1", "machines and pods with GPUs are there", "nothing was made yet",
        "doctor::what_cozystack_lacks_is_told"),
    // Seed 004: errors and recovery, integration, security.
    ("4.21", "a change of mode takes a reset or a restart", "an Ampere card whose mode is pending",
        "doctor::a_pending_mode_is_found_and_a_reset_brings_it_about"),
    ("4.22", "the card does not have the profile", "a profile of another model",
        "doctor::what_no_card_can_be_is_told"),
    ("4.23", "what is there conflicts with what is wanted", "slices by hand, and work on the card",
        "doctor::other_slices_than_the_variables_ask_for_are_told"),
    ("4.24", "the GPU does not answer", "the driver is not loaded, of two versions, or the card is lost",
        "src/platform/cards.rs::each_reason_of_a_silent_driver_has_its_command"),
    ("4.26", "Quadlet's unit", "its file is gone, or it does not run",
        "doctor::podman_without_its_parts_is_told_part_by_part"),
    ("4.26", "limits by control groups of version 2", "the host has no controllers",
        "doctor::podman_without_its_parts_is_told_part_by_part"),
    ("4.27", "device nodes", "nodes that are not there",
        "doctor::podman_without_its_parts_is_told_part_by_part"),
    ("4.27", "kernel modules", "the driver is not loaded",
        "doctor::a_driver_that_is_not_loaded_is_found_and_loaded"),
    ("4.26", "devices by their CDI names", "a specification that is missing or stale",
        "src/platform/podman/doctor.rs::each_thing_that_a_host_lacks_has_its_command"),
    ("4.28", "rootless containers", "no linger, no group, no numbers, no systemd of the user",
        "src/platform/podman/doctor.rs::each_thing_that_a_host_lacks_has_its_command"),
    ("4.28", "SELinux", "its boolean is off",
        "src/platform/podman/doctor.rs::each_thing_that_a_host_lacks_has_its_command"),
    ("3.5", "nvidia-ctk runtime configure --runtime=docker, and a restart", "the daemon's file is taken away",
        "doctor::a_docker_that_does_not_know_the_cards_is_told"),
];

#[test]
fn every_line_of_the_seeds_has_its_fault_and_its_test() {
    let mut seen = std::collections::BTreeSet::new();
    for (requirement, line, fault, test) in LINES {
        assert!(!fault.is_empty());
        assert!(seen.insert((requirement, line)), "{line} stands here twice");
        is_a_test(test);
    }
}

/// What the doctor finds, each with its command.
#[track_caller]
fn findings(bench: &Bench) -> Vec<(String, String)> {
    let ended = bench.deploy(&["doctor"]);
    let of = |mark: &str| -> Vec<String> {
        let lines = ended.out.lines();
        lines
            .filter_map(|line| line.strip_prefix(mark).map(str::to_owned))
            .collect()
    };
    let (what, mend) = (of("  ! "), of("    mend: "));
    assert_eq!(what.len(), mend.len(), "{}", ended.all());
    assert_eq!(
        ended.code,
        if what.is_empty() { 0 } else { 2 },
        "{}",
        ended.all()
    );
    what.into_iter().zip(mend).collect()
}

/// That it finds exactly this; gives the command.
#[track_caller]
fn finds(bench: &Bench, text: &str) -> String {
    let found = findings(bench);
    let [(what, mend)] = &found[..] else {
        panic!("one finding with `{text}`: {found:?}");
    };
    assert!(what.contains(text), "`{text}`: {what}");
    mend.clone()
}

/// Types the command on the host, whose files lie in a folder of this machine.
#[track_caller]
fn typed(bench: &Bench, mend: &str) {
    bench.ssh(&mend.replace("/etc/kubernetes/", "\"$R\"/etc/kubernetes/"));
}

#[track_caller]
fn well(bench: &Bench) -> Ended {
    bench
        .deploy(&["doctor"])
        .expect(0)
        .says("node1: nothing is wrong")
}

const OFF: &str = "containers_gpu_slicing";

fn unsliced(sim: &Json, mut vars: Json) -> Bench {
    let bench = bench(sim);
    vars[OFF] = json!({ "enabled": false });
    bench.vars(&vars);
    bench
}

#[test]
fn what_was_not_looked_at_is_not_called_well() {
    let bench = unsliced(&json!({ "gpus": ["L40S"] }), json!({}));
    let said = well(&bench).says("looked at: the cards and their drivers");
    assert!(!said.out.contains("podman"), "{}", said.all());
    bench.vars(&json!({ "gpu_platform": ["incus", "docker"] }));
    let found = findings(&bench);
    assert!(
        found
            .iter()
            .any(|(what, _)| what.contains("Docker is not installed")),
        "{found:?}"
    );
    assert!(found.len() >= 2, "one platform hides no other: {found:?}");
}

#[test]
fn a_driver_that_is_not_loaded_is_found_and_loaded() {
    let bench = unsliced(
        &json!({ "gpus": [{ "product": "L40S", "count": 2 }] }),
        json!({}),
    );
    well(&bench);
    bench.ssh("for m in nvidia_uvm nvidia_drm nvidia_modeset nvidia; do modprobe -r $m; done");
    let mend = finds(&bench, "NVIDIA's driver is not loaded");
    assert_eq!(mend, "modprobe nvidia");
    typed(&bench, &mend);
    well(&bench);
}

#[test]
fn a_pending_mode_is_found_and_a_reset_brings_it_about() {
    let bench = unsliced(&json!({ "gpus": ["A100-80GB"] }), json!({}));
    well(&bench);
    bench.broken(&["pending"]);
    let mend = finds(&bench, "is disabled and will be enabled only after a reset");
    assert_eq!(mend, "nvidia-smi --gpu-reset -i 0000:17:00.0");
    typed(&bench, &mend);
    well(&bench);
    bench.broken(&["pending"]);
    bench.broken(&["in-use", "--command", "train.py"]);
    assert_eq!(
        finds(&bench, "it is in use by train.py"),
        "systemctl reboot"
    );
}

#[test]
fn what_no_card_can_be_is_told() {
    let bench = bench(&json!({ "gpus": ["L40S"] }));
    want(
        &bench,
        json!({ "strategy": "mig", "mig": { "profiles": ["1g.10gb"] } }),
    );
    let found = findings(&bench);
    assert!(
        found
            .iter()
            .any(|(what, _)| what.contains("L40S") && what.contains("mig")),
        "{found:?}"
    );
}

#[test]
fn other_slices_than_the_variables_ask_for_are_told() {
    let bench = bench(&json!({ "gpus": ["H100-80GB"] }));
    want(
        &bench,
        json!({ "strategy": "mig", "mig": { "profiles": ["3g.40gb", "3g.40gb"] } }),
    );
    let mend = finds(&bench, "are not those that the variables ask for");
    assert_eq!(mend, "deploy gpu");
    bench.deploy(&["gpu", "--yes"]).expect(0);
    well(&bench);
    bench.ssh("nvidia-smi mig -dci && nvidia-smi mig -dgi");
    assert_eq!(
        finds(&bench, "are not those that the variables ask for"),
        "deploy gpu"
    );
    bench.broken(&["in-use", "--command", "train.py"]);
    let mend = finds(&bench, "in use by train.py");
    assert_eq!(mend, "end that work, then deploy gpu");
}

/// A host with kubectl and a cluster of one node with one H100.
fn cluster(block: &Json) -> Bench {
    let sim = json!({ "kubernetes": { "kubectl": crate::platform_kubernetes::kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = bench(&sim);
    let mut block = block.clone();
    block["kubeconfig"] = json!("/etc/kubernetes/admin.conf");
    block["wait_s"] = json!(30);
    block["take_over"] = json!(true);
    bench.vars(&json!({ "gpu_platform": "kubernetes", "gpu_kubernetes": block }));
    bench
}

fn shared() -> Json {
    json!({
        "operator": { "time_slicing": { "configs": { "any": { "replicas": 4 } } } },
        "nodes": { "gpu-1": { "mig_config": "all-1g.10gb" } },
    })
}

const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";

#[test]
fn what_somebody_else_changed_is_found_and_put_back() {
    let bench = cluster(&shared());
    bench.deploy(&["gpu", "--yes"]).expect(0);
    well(&bench).says("kubernetes");

    bench.ssh("kubectl cordon gpu-1");
    let mend = finds(&bench, "node gpu-1 is closed");
    assert_eq!(mend, format!("{KUBECTL} uncordon gpu-1"));
    typed(&bench, &mend);
    well(&bench);

    bench.ssh("kubectl label node gpu-1 nvidia.com/mig.config=all-disabled --overwrite");
    let found = findings(&bench);
    assert!(
        found[0]
            .0
            .contains("the label nvidia.com/mig.config of node gpu-1 is all-disabled"),
        "{found:?}"
    );
    assert_eq!(found[0].1, "deploy gpu");
    bench.deploy(&["gpu", "--yes"]).expect(0);
    well(&bench);

    // The seed's own command.
    let none = r#"{"spec":{"devicePlugin":{"config":null}}}"#;
    bench.ssh(&format!(
        "kubectl patch clusterpolicies.nvidia.com cluster-policy --type merge -p '{none}'"
    ));
    let found = findings(&bench);
    let (_, mend) = &found[0];
    assert!(
        found[0]
            .0
            .contains("of clusterpolicy cluster-policy is not set"),
        "{found:?}"
    );
    let patch = format!("{KUBECTL} patch clusterpolicies.nvidia.com cluster-policy");
    assert!(mend.starts_with(&patch), "{mend}");
    typed(&bench, mend);
    well(&bench);

    bench.ssh("kubectl delete configmap time-slicing-config-all -n gpu-operator");
    let found = findings(&bench);
    assert!(
        found.iter().any(|(what, mend)| what
            == "there is no configmap gpu-operator/time-slicing-config-all"
            && mend == "deploy gpu"),
        "{found:?}"
    );
}

#[test]
fn a_plugin_that_has_not_read_its_configuration_is_started_anew() {
    let bench = cluster(&shared());
    bench.deploy(&["gpu", "--yes"]).expect(0);
    // Another configuration under the name, and a plugin that is told of it; then the right one,
    // of which it is not.
    let map = |replicas: u32| {
        let text = json!({ "version": "v1", "sharing": { "timeSlicing": { "resources": [{ "name": "nvidia.com/gpu", "replicas": replicas }] } } });
        json!({ "data": { "any": text.to_string() } })
    };
    let patch = |map: &Json| {
        format!(
            "kubectl patch configmap time-slicing-config-all -n gpu-operator --type merge -p '{map}'"
        )
    };
    let before = bench.ssh(
        "kubectl get configmap time-slicing-config-all -n gpu-operator -o jsonpath='{.data.any}'",
    );
    bench.ssh(&patch(&map(2)));
    bench.ssh("kubectl rollout restart -n gpu-operator daemonset/nvidia-device-plugin-daemonset");
    bench.ssh(&patch(&json!({ "data": { "any": before } })));
    let mend = finds(
        &bench,
        "nvidia.com/gpu.replicas of node gpu-1 is 2, and the variables ask for 4",
    );
    let restart = format!(
        "{KUBECTL} rollout restart --namespace gpu-operator daemonset/nvidia-device-plugin-daemonset"
    );
    assert_eq!(mend, restart);
    typed(&bench, &mend);
    well(&bench);
}

#[test]
fn a_manager_that_gives_up_is_told_with_who_is_in_its_way() {
    let bench = cluster(&json!({ "nodes": { "gpu-1": { "mig_config": "all-1g.10gb" } } }));
    bench.broken(&["gpu-operator", "stuck"]);
    bench.ssh("kubectl label node gpu-1 nvidia.com/mig.config=all-1g.10gb --overwrite");
    let mend = finds(
        &bench,
        "is not done with node gpu-1: its state is pending, and has left paused: nvidia.com/gpu.deploy.",
    );
    assert!(
        mend.contains("rollout restart --namespace gpu-operator daemonset/nvidia-mig-manager"),
        "{mend}"
    );
    assert!(
        mend.contains("nvidia.com/gpu.deploy.device-plugin=true"),
        "{mend}"
    );
    bench.mended();
    // A pod that has the card.
    let bench = cluster(&json!({ "nodes": { "gpu-1": { "mig_config": "all-1g.10gb" } } }));
    pod(&bench, "train", 1, "Running");
    bench.ssh("kubectl label node gpu-1 nvidia.com/mig.config=all-1g.10gb --overwrite; for i in 1 2 3 4 5 6; do kubectl get nodes >/dev/null; done");
    let mend = finds(
        &bench,
        "could not slice node gpu-1 as all-1g.10gb; its cards are in use by default/train",
    );
    assert!(
        mend.starts_with(&format!("{KUBECTL} drain gpu-1")),
        "{mend}"
    );
}

/// Makes a pod by hand that asks for so many GPUs, and waits until it says this.
fn pod(bench: &Bench, name: &str, gpus: u32, phase: &str) {
    let gpu = json!({ "nvidia.com/gpu": gpus });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "train", "resources": { "requests": gpu, "limits": gpu } }] },
    });
    bench.ssh(&format!("printf '%s' '{pod}' | kubectl apply -f -"));
    bench.ssh(&format!(
        "kubectl wait --for=jsonpath='{{.status.phase}}'={phase} pod/{name} --timeout=20s"
    ));
}

#[test]
fn a_daemon_set_that_is_gone_is_told() {
    let bench = cluster(&shared());
    bench.deploy(&["gpu", "--yes"]).expect(0);
    bench.ssh("kubectl delete daemonset nvidia-container-toolkit-daemonset -n gpu-operator");
    let mend = finds(
        &bench,
        "there is no daemonset gpu-operator/nvidia-container-toolkit-daemonset",
    );
    assert_eq!(mend, format!("{KUBECTL} get daemonsets --all-namespaces"));
}

#[test]
fn pods_without_a_place_and_quotas_that_are_used_up_are_told() {
    let bench = cluster(&json!({
        "nodes": { "gpu-1": {} },
        "quotas": [{ "namespace": "default", "hard": { "requests.nvidia.com/gpu": 1 } }],
    }));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    well(&bench);
    pod(&bench, "train", 1, "Running");
    let mend = finds(
        &bench,
        "the quota compute-resources of namespace default has nothing left: 1 of 1 requests.nvidia.com/gpu",
    );
    assert!(
        mend.starts_with(&format!("{KUBECTL} get pods --namespace default")),
        "{mend}"
    );
    bench.ssh("kubectl delete resourcequota compute-resources -n default");
    pod(&bench, "more", 1, "Pending");
    let found = findings(&bench);
    let (_, mend) = found
        .iter()
        .find(|(what, _)| what.contains("pod default/more has no place: 0/1 nodes"))
        .expect("it is found");
    assert_eq!(
        *mend,
        format!("{KUBECTL} describe pod more --namespace default")
    );
}

#[test]
fn a_kubectl_that_does_not_answer_is_a_finding() {
    let bench = unsliced(
        &json!({}),
        json!({ "gpu_platform": "kubernetes", "gpu_kubernetes": { "nodes": { "gpu-1": {} } } }),
    );
    let mend = finds(&bench, "kubectl");
    assert!(mend.contains("has kubectl"), "{mend}");
}

#[test]
fn what_cozystack_lacks_is_told() {
    let sim = json!({ "kubernetes": { "kubectl": crate::platform_kubernetes::kubectl(), "nodes": { "gpu-1": "H100-80GB" } } });
    let bench = bench(&sim);
    let machine = json!({ "name": "trainer", "instanceType": "g1.large", "gpus": [{ "name": "nvidia.com/A100" }] });
    let block = json!({ "kubeconfig": "/etc/kubernetes/admin.conf", "namespace": "default", "virtual_machines": [machine] });
    bench.vars(&json!({ "gpu_platform": "cozystack", "gpu_cozystack": block }));
    let found = findings(&bench);
    let has = |text: &str| found.iter().any(|(what, _)| what.contains(text));
    assert!(
        has("there is no virtualmachine default/trainer"),
        "{found:?}"
    );
    assert!(has("no node offers nvidia.com/A100"), "{found:?}");
    bench.deploy(&["gpu", "--yes"]).expect(0);
    let made = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachine","metadata":{"name":"virtual-machine-trainer","namespace":"default"},"status":{"printableStatus":"Stopped"}}"#;
    bench.ssh(&format!(
        "printf '%s' '{made}' | kubectl apply --server-side -f -"
    ));
    let found = findings(&bench);
    let stopped = found
        .iter()
        .find(|(what, _)| what.contains("virtualmachine default/trainer does not run: Stopped"));
    let (_, mend) = stopped.unwrap_or_else(|| panic!("{found:?}"));
    assert!(
        mend.contains("patch virtualmachines.kubevirt.io/virtual-machine-trainer"),
        "{mend}"
    );
}

#[test]
fn a_docker_that_does_not_know_the_cards_is_told() {
    let sim = json!({ "gpus": ["L40S"], "container_tools": ["docker", "nvidia-ctk"] });
    let bench = unsliced(&sim, json!({ "gpu_platform": "docker" }));
    let mend = finds(
        &bench,
        "/etc/docker/daemon.json does not tell Docker of the cards",
    );
    assert!(
        mend.starts_with("nvidia-ctk runtime configure --runtime=docker --cdi.enabled"),
        "{mend}"
    );
    assert!(
        mend.ends_with("&& systemctl restart docker.service"),
        "{mend}"
    );
    bench.deploy(&["gpu", "--yes"]).expect(0);
    let mend = finds(&bench, "Docker does not run");
    assert_eq!(mend, "systemctl start docker.service");
}

#[test]
fn podman_without_its_parts_is_told_part_by_part() {
    let containers = json!([{ "name": "work", "image": "localhost/busybox:1", "gpu": "any" }]);
    let vars = json!({ "gpu_platform": "podman", "gpu_podman": { "containers": containers } });
    let bench = unsliced(&json!({ "gpus": ["L40S"] }), vars.clone());
    assert_eq!(
        finds(&bench, "podman is not installed"),
        "install the package podman"
    );
    let sim = json!({ "gpus": ["L40S"], "container_tools": ["podman", "nvidia-ctk"] });
    let bench = unsliced(&sim, vars);
    let found = findings(&bench);
    let mend = |text: &str| {
        let one = found.iter().find(|(what, _)| what.contains(text));
        one.unwrap_or_else(|| panic!("`{text}`: {found:?}"))
            .1
            .clone()
    };
    assert_eq!(
        mend("/etc/containers/systemd/work.container, of which work.service is made"),
        "deploy gpu"
    );
    assert_eq!(
        mend("the CDI specification of nvidia's cards is missing"),
        "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    );
    bench.ssh(
        "nvidia-ctk cdi generate --output=\"$R/etc/cdi/nvidia.yaml\"; rm -f \"$R/dev/nvidia-uvm\"",
    );
    let found = findings(&bench);
    let nodes = found
        .iter()
        .find(|(what, _)| what.contains("there is no /dev/nvidia-uvm"));
    assert_eq!(nodes.expect("it is found").1, "nvidia-modprobe -c 0 -u");
    let limited = json!([{ "name": "work", "image": "localhost/busybox:1", "gpu": "any", "resource_limits": { "memory_gb": 1 } }]);
    bench.vars(&json!({ OFF: { "enabled": false }, "gpu_platform": "podman", "gpu_podman": { "containers": limited } }));
    bench.ssh("rm -f \"$R/sys/fs/cgroup/cgroup.controllers\"");
    let found = findings(&bench);
    let groups = found
        .iter()
        .find(|(what, _)| what.contains("this host has no control groups of version 2"));
    let (_, mend) = groups.unwrap_or_else(|| panic!("{found:?}"));
    assert!(mend.contains("systemd.unified_cgroup_hierarchy"), "{mend}");
}

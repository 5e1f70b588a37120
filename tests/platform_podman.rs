//! Podman as a platform, on simulated hosts by whole commands: what is refused and where, and
//! what would be written for the cards of each vendor.
//!
//! A simulated host has podman's name and version and runs no container: that units start, see
//! their device and nothing else, and go again, real hosts show (`real_podman`).

use serde_json::json;

use crate::harness::{Ended, Scratch};
use crate::technology::bench;

/// A host with podman and two cards of Intel's.
const INTEL: &str = "{gpus: [{product: Flex-170, count: 2}], container_tools: [podman]}";
const NVIDIA: &str = "{gpus: [H100-80GB, L40S], container_tools: [podman, nvidia-ctk]}";

/// `deploy gpu --check --diff` for one simulated host with these variables.
fn plan(sim: &str, variables: &str) -> Ended {
    let scratch = Scratch::new();
    let inventory = "all:\n  hosts: {node1: }\n  vars: {ansible_connection: sim}\n";
    scratch.write("inv/hosts.yml", inventory);
    let text = format!("sim: {sim}\ngpu_platform: podman\n{variables}");
    scratch.write("inv/group_vars/all.yml", &text);
    let inventory = scratch.path().join("inv").display().to_string();
    scratch.deploy(&["gpu", "--check", "--diff", "-i", &inventory])
}

/// The same with one container that has these keys, in YAML's flow form.
fn plan_one(sim: &str, keys: &str) -> Ended {
    let container = format!("{{name: work, image: localhost/busybox:1, {keys}}}");
    plan(sim, &format!("gpu_podman: {{containers: [{container}]}}\n"))
}

#[test]
fn what_the_variables_alone_show_to_be_wrong_is_told_at_once_with_places() {
    let refused = plan(
        INTEL,
        "containers_gpu_container_integration: {runtime: runc}
gpu_podman:
  pods:
    - {name: team, user: ann, network: host}
  containers:
    - name: one
      image: busybox
      gpus: 1
    - name: one
      image: localhost/busybox:1
      gpu: {index: 0, pci: '0000:17:00.0'}
    - name: two
      image: localhost/busybox:1
      user: ann
      gpu: any
      pod: team
      ports: ['80:80']
    - name: three
      image: localhost/busybox:1
      pod: teem
    - name: -four
      image: localhost/busybox:1
      user_namespace: keep-id
      environment: {'A B': 1}
      secrets: ['a,type=env', {name: fine, env: 'A B'}]
",
    )
    .expect(1);
    for text in [
        "`busybox` names no registry",
        "unknown key `gpus` in `gpu_podman.containers[0]`",
        "did you mean `gpu`?",
        "`one` stands in `gpu_podman` twice",
        "names a card twice",
        "container `two` of user `ann` needs `runtime: crun`",
        "`ports` of container `two` is its pod's matter",
        "there is no pod `teem`",
        "`-four` is no name for a unit",
        "container `-four` of root has no user to keep",
        "`A B` cannot be set in a unit",
        "`a,type=env` is no name of a secret in podman's store",
        "`A B` is no name of a variable",
        "group_vars/all.yml:9:14",
    ] {
        assert!(
            refused.err.contains(text),
            "`{text}` is missing in {}",
            refused.all()
        );
    }
}

#[test]
fn a_slice_that_no_card_will_have_is_refused_before_connecting() {
    let variables = |profile: &str| {
        format!(
            "containers_gpu_slicing: {{enabled: true, strategy: mig, mig: {{enabled: true, profiles: [3g.40gb, 1g.10gb]}}, \
             gpus: [{{match: {{model: L40S}}, strategy: none}}]}}
gpu_podman:
  containers:
    - {{name: work, image: localhost/busybox:1, gpu: {{profile: {profile}}}}}
"
        )
    };
    plan(NVIDIA, &variables("2g.20gb"))
        .expect(1)
        .says("container `work` asks for a MIG device 2g.20gb, which no card will have")
        .says("`containers_gpu_slicing` makes `1g.10gb`, `3g.40gb`");
    plan(NVIDIA, &variables("3g.40gb")).expect(2);
}

#[test]
fn what_the_host_has_not_is_told_with_what_there_is() {
    plan_one("{gpus: [Flex-170]}", "gpu: any")
        .expect(3)
        .says("podman is not installed on this host");
    // All that the host lacks at once.
    plan_one(
        "{gpus: [Flex-170]}",
        "gpu: {index: 7}, apparmor: tight, user: nobody-is-called-so",
    )
    .expect(3)
    .says("podman is not installed on this host")
    .says("this host has no AppArmor")
    .says("there is no user `nobody-is-called-so` on this host")
    .says("asks for GPU 7, which this host will not have");
    plan_one(INTEL, "gpu: {index: 7}")
        .expect(3)
        .says("container `work` asks for GPU 7, which this host will not have")
        .says("there is GPU");
    plan_one(INTEL, "gpu: 3")
        .expect(3)
        .says("asks for 3 of a slice or card, and 2 of 2 are left for it");
    plan_one(INTEL, "user: nobody-is-called-so")
        .expect(3)
        .says("there is no user `nobody-is-called-so` on this host");
    plan_one(INTEL, "apparmor: tight")
        .expect(3)
        .says("this host has no AppArmor");
    plan_one("{gpus: [L40S], container_tools: [podman]}", "gpu: any")
        .expect(3)
        .says("NVIDIA's container toolkit (nvidia-ctk) is not installed");
    let systemd = "{systemd: false, gpus: [Flex-170], container_tools: [podman]}";
    plan_one(systemd, "gpu: any")
        .expect(3)
        .says("does not run systemd");
}

#[test]
fn a_whole_card_goes_to_one_container_unless_the_policy_shares_it() {
    let two = "gpu_podman:
  containers:
    - {name: one, image: localhost/busybox:1, gpu: {index: 0}}
    - {name: two, image: localhost/busybox:1, gpu: {index: 0}}
";
    plan(INTEL, two)
        .expect(1)
        .says("GPU policy is 'exclusive' but 2 instances have GPU access: one, two");
    plan(INTEL, &format!("gpu_policy: shared\n{two}")).expect(2);
}

#[test]
fn cards_have_names_by_their_place_and_parts_by_their_number() {
    let intel = plan_one(INTEL, "gpu: {index: 1}").expect(2);
    intel.says("intel.com/gpu=0000:");
    let sliced = "containers_gpu_slicing: {enabled: true, strategy: sriov, sriov: {enabled: true, vf_count: 2}}
gpu_podman: {containers: [{name: work, image: localhost/busybox:1, gpu: 2}]}
";
    let functions = plan("{gpus: [Flex-170], container_tools: [podman]}", sliced).expect(2);
    let functions = functions.says("+AddDevice=intel.com/gpu=0000:17:00.0-vf1");
    functions.says("+AddDevice=intel.com/gpu=0000:17:00.0-vf2");
    let parts = "containers_gpu_slicing: {enabled: true, strategy: partition, partition: {enabled: true, compute: CPX}}
gpu_podman: {containers: [{name: work, image: localhost/busybox:1, gpu: {index: 0, count: 2}}]}
";
    let parts = plan("{gpus: [MI300X], container_tools: [podman]}", parts).expect(2);
    let parts = parts.says("+AddDevice=amd.com/gpu=0000:").says("-p0\n");
    parts.says("-p1\n");
}

#[test]
fn a_mig_device_is_named_by_the_uuid_that_it_will_have() {
    let variables = "containers_gpu_slicing: {enabled: true, strategy: mig, mig: {enabled: true, profiles: [3g.40gb, 1g.10gb]}, \
                     gpus: [{match: {model: L40S}, strategy: none}]}
gpu_podman:
  containers:
    - {name: small, image: localhost/busybox:1, gpu: {profile: 1g.10gb}}
    - {name: whole, image: localhost/busybox:1, gpu: {index: 1}}
";
    let shown = plan(NVIDIA, variables).expect(2);
    let shown = shown
        .says("+AddDevice=nvidia.com/gpu=${GPU_1}")
        .says("+EnvironmentFile=/etc/deploy/podman/small.env")
        .says("MIG device 1g.10gb of GPU 0")
        .says("have nvidia-ctk write what containers need of NVIDIA's cards");
    assert!(
        shown.out.contains("+AddDevice=nvidia.com/gpu=GPU-"),
        "{}",
        shown.all()
    );
}

#[test]
fn nothing_is_allowed_that_was_not_asked_for_and_what_was_is_named() {
    let plain = plan_one(INTEL, "gpu: any").expect(2);
    for line in [
        "+DropCapability=all",
        "+NoNewPrivileges=true",
        "+ReadOnly=true",
    ] {
        assert!(plain.out.contains(line), "{line}: {}", plain.all());
    }
    for word in ["privileged", "AddCapability", "Network="] {
        assert!(!plain.out.contains(word), "{word}: {}", plain.all());
    }
    let asked = "gpu: any, capabilities: [CAP_SYS_NICE], read_only: false, network: host, new_privileges: true";
    let asked = plan_one(INTEL, asked).expect(2);
    asked
        .says("+AddCapability=CAP_SYS_NICE")
        .says("+ReadOnly=false")
        .says("container work has the capabilities CAP_SYS_NICE; may gain privileges")
        .says("can change its image's files; is in the host's network");
    let all = plan_one(INTEL, "gpu: any, privileged: true").expect(2);
    let all = all
        .says("+PodmanArgs=--privileged")
        .says("container work is privileged: all devices and all rights of the host's root");
    assert!(!all.out.contains("DropCapability"), "{}", all.all());
}

#[test]
fn limits_are_those_that_were_written_and_a_containers_own_come_first() {
    let none = plan_one(INTEL, "gpu: any").expect(2);
    assert!(!none.out.contains("--memory"), "{}", none.all());
    let variables = "containers_gpu_container_integration: {runtime: runc, resource_limits: {memory_gb: 8, compute_units: 4, gpu_instances: 2}}
gpu_podman:
  containers:
    - {name: work, image: localhost/busybox:1, gpu: any, resource_limits: {memory_gb: 1.5, pids: 100}}
";
    let shown = plan(INTEL, variables).expect(2);
    let shown = shown
        .says("+PodmanArgs=--memory=1610612736\n")
        .says("+PodmanArgs=--cpus=4\n")
        .says("+PidsLimit=100\n")
        .says("+GlobalArgs=--runtime=runc\n");
    // Slices where nothing else is said: gpu_instances.
    assert_eq!(
        shown.out.matches("+AddDevice=").count(),
        2,
        "{}",
        shown.all()
    );
}

#[test]
fn blocks_and_platforms_without_each_other_are_warned_of() {
    let block = "gpu_docker: {restart: false}\n";
    let warned = plan(
        INTEL,
        &format!("{block}gpu_podman: {{containers: [{{name: work, image: ''}}]}}\n"),
    );
    let warned = warned
        .expect(1)
        .says("`gpu_podman.containers[0].image` is empty");
    assert!(!warned.err.contains("is missing"), "{}", warned.all());
    let warned = plan(INTEL, block).expect(0);
    let warned = warned.says("`gpu_docker` has no effect: no host that has it names `docker`");
    warned.says("`gpu_platform` names `podman`, and there is no `gpu_podman`");
}

/// What a run changes of this host: its files and SELinux's boolean.
const ALL: &str = "getsebool container_use_devices; cd \"$R\"/ && find etc | sort";

#[test]
fn what_was_set_for_containers_goes_with_the_last_of_them_and_not_before() {
    let sim = json!({
        "gpus": [{"product": "L40S", "count": 2}], "selinux": true,
        "container_tools": ["podman", "nvidia-ctk", "docker"],
    });
    let bench = bench(&sim);
    let want = |platforms: &[&str], containers: &[&str]| {
        let container =
            |name: &&str| json!({"name": name, "image": "localhost/busybox:1", "gpu": "any"});
        bench.vars(&json!({
            "gpu_policy": "shared",
            "gpu_platform": platforms,
            "gpu_podman": {"containers": containers.iter().map(container).collect::<Vec<_>>()},
        }));
    };
    let applied = || {
        let applied = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
        bench.settled();
        applied
    };
    want(&["podman"], &[]);
    bench.settled();
    let before = bench.ssh(ALL);
    assert!(
        before.contains("container_use_devices --> off\n"),
        "{before}"
    );
    assert!(!before.contains("etc/cdi"), "{before}");

    want(&["podman"], &["one", "two"]);
    applied();
    let with = bench.ssh(ALL);
    for text in [
        "container_use_devices --> on\n",
        "etc/cdi/nvidia.yaml\n",
        "etc/deploy/podman/units\n",
    ] {
        assert!(with.contains(text), "{with}");
    }
    bench.rolled_back();
    assert_eq!(bench.ssh(ALL), before);

    // One of two goes, and what the other needs stays.
    applied();
    want(&["podman"], &["two"]);
    applied();
    let still = bench.ssh(ALL);
    assert_eq!(
        still,
        with.replace("etc/containers/systemd/one.container\n", "")
    );
    want(&["podman"], &[]);
    applied().says("let no container use device nodes any more");
    assert_eq!(bench.ssh(ALL), before);
    bench.rolled_back();
    assert_eq!(bench.ssh(ALL), still);

    // The platform goes, and Docker, which reads the same specification, does not.
    want(&["podman", "docker"], &["two"]);
    applied();
    want(&["docker"], &[]);
    applied();
    assert!(bench.ssh(ALL).contains("etc/cdi/nvidia.yaml\n"));
    want(&["none"], &[]);
    applied();
    let after = bench.ssh(ALL);
    let left: Vec<&str> = after
        .lines()
        .filter(|line| !before.contains(line))
        .collect();
    assert_eq!(left, ["etc/docker", "etc/docker/daemon.json"]);
}

#[test]
fn what_was_so_before_the_containers_stays_without_them() {
    let sim = json!({
        "gpus": ["L40S"], "selinux": true, "container_tools": ["podman", "nvidia-ctk"],
    });
    let bench = bench(&sim);
    let want = |containers: serde_json::Value| {
        bench.vars(&json!({"gpu_platform": "podman", "gpu_podman": {"containers": containers}}));
    };
    want(json!([]));
    bench.settled();
    bench.ssh("setsebool -P container_use_devices on; mkdir -p \"$R\"/etc/cdi; nvidia-ctk cdi generate --output=\"$R\"/etc/cdi/nvidia.yaml");
    let before = bench.ssh(ALL);
    want(json!([{"name": "one", "image": "localhost/busybox:1", "gpu": "any"}]));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    want(json!([]));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    assert_eq!(bench.ssh(ALL), before);
}

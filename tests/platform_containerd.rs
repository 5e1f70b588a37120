//! containerd as a platform, on simulated hosts by whole commands: told of the cards by the
//! vendor's tool, read back by `containerd config dump`, and its file put back byte by byte.

use serde_json::json;

use crate::technology::{Bench, bench};

const FILE: &str = "/etc/containerd/config.toml";

/// A file as a person wrote it: what the tool makes of it has neither comments nor this order.
const WRITTEN: &str = "# by hand\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:3.10\"\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true # cgroups\n";

fn host() -> Bench {
    bench(&json!({ "gpus": ["L40S"], "container_tools": ["containerd", "nvidia-ctk"] }))
}

fn want(bench: &Bench, block: serde_json::Value) {
    bench.vars(&json!({ "gpu_platform": "containerd", "gpu_containerd": block }));
}

fn written(bench: &Bench) {
    bench.ssh(&format!(
        "mkdir -p \"$R\"/etc/containerd; printf '%s' '{WRITTEN}' >\"$R\"{FILE}; systemctl restart containerd"
    ));
    assert_eq!(bench.file(FILE), WRITTEN);
}

#[test]
fn containerd_is_told_by_the_vendors_tool_and_its_file_comes_back() {
    let bench = host();
    bench.vars(&json!({ "other": 1 }));
    written(&bench);
    want(&bench, json!({ "default_runtime": true }));
    let started = "systemctl show -p ActiveEnterTimestampMonotonic --value containerd";
    let before = bench.ssh(started);
    let shown = bench.deploy(&["gpu", "--check"]).expect(2);
    shown
        .says("have nvidia-ctk tell containerd of the cards")
        .says("runc (default)");
    assert_eq!(bench.file(FILE), WRITTEN);

    let applied = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    applied.says("restart containerd.service");
    let dump = bench.ssh("containerd config dump");
    for line in [
        "containerd.runtimes.nvidia.options]\n            BinaryName = \"/usr/bin/nvidia-container-runtime\"",
        "default_runtime_name = \"nvidia\"",
        "enable_cdi = true",
        "sandbox_image = \"registry.k8s.io/pause:3.10\"",
    ] {
        assert!(dump.contains(line), "{line}\n{dump}");
    }
    let after = bench.ssh(started);
    assert_ne!(after, before);
    bench.settled();
    bench.reboot();
    bench.settled();

    let after = bench.ssh(started);
    bench.rolled_back();
    assert_eq!(bench.file(FILE), WRITTEN);
    assert_ne!(bench.ssh(started), after);
    assert_eq!(bench.ssh("systemctl is-active containerd"), "active\n");
}

#[test]
fn what_the_file_holds_is_in_no_saved_plan() {
    let bench = host();
    bench.vars(&json!({ "other": 1 }));
    let auth = "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.lan\".auth]\npassword = \"s3cr3t\"\n";
    // With a comment that is longer than what is read of files.
    bench.ssh(&format!(
        "mkdir -p \"$R\"/etc/containerd; {{ printf '%s' '{WRITTEN}{auth}'; printf '# %01500000d\\n' 0; }} >\"$R\"{FILE}"
    ));
    want(&bench, json!({}));
    let plan = bench.beside("plan.json", "");
    std::fs::remove_file(&plan).expect("our file");
    let plan = plan.display().to_string();
    bench.deploy(&["gpu", "--check", "--out", &plan]).expect(2);
    let text = std::fs::read_to_string(&plan).expect("a plan");
    assert!(text.contains("containerd:config.toml") && !text.contains("s3cr3t"));
    // What somebody writes meanwhile is seen all the same.
    let file = "\"$R\"/etc/containerd/config.toml";
    bench.ssh(&format!("cp -p {file} \"$R\"/kept; echo '# more' >>{file}"));
    bench.deploy(&["apply", &plan, "--yes"]).expect(1);
    bench.ssh(&format!("cp -p \"$R\"/kept {file}"));
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    assert!(bench.file(FILE).contains("s3cr3t"));
}

#[test]
fn without_a_file_there_is_none_again_and_a_restart_can_wait() {
    let bench = host();
    want(&bench, json!({ "restart": false }));
    let applied = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    let applied = applied.says("containerd is not restarted (`restart: false`)");
    assert!(!applied.out.contains("restart containerd.service"));
    assert!(bench.has(FILE));
    bench.settled();
    bench.rolled_back();
    assert!(!bench.has("/etc/containerd"));
}

#[test]
fn a_tool_that_writes_a_file_of_its_own_is_undone_too() {
    let bench = host();
    want(&bench, json!({ "restart": false }));
    // As from 1.18 on: the tool's own file, which the main one imports. What it would say there,
    // the stand-in's containerd does not read, so that reading it back fails.
    let tool = "case $* in *configure*) mkdir -p \"$R\"/etc/containerd/conf.d; echo version = 2 \
                >\"$R\"/etc/containerd/conf.d/99-nvidia.toml ;; esac";
    bench.deploy(&["gpu", "--check"]).expect(2);
    bench.ssh(&format!(
        "printf '%s\\n' '#!/bin/sh' '{tool}' >\"$R\"/usr/local/bin/nvidia-ctk; chmod 755 \"$R\"/usr/local/bin/nvidia-ctk"
    ));
    let failed = bench.deploy(&["gpu", "--yes"]).expect(3);
    failed
        .says("containerd config dump: does not say what the tool was to write")
        .says("rolled back");
    assert!(!bench.has("/etc/containerd"));
}

#[test]
fn what_stands_against_it_is_told() {
    let refused = |sim: serde_json::Value, vars: serde_json::Value, code: i32| {
        let bench = bench(&sim);
        let mut vars = vars;
        vars["gpu_platform"] = json!("containerd");
        bench.vars(&vars);
        bench.deploy(&["gpu", "--check"]).expect(code)
    };
    refused(
        json!({"gpus": ["L40S"], "container_tools": ["nvidia-ctk"]}),
        json!({}),
        3,
    )
    .says("containerd is not installed on this host");
    refused(
        json!({"gpus": ["L40S"], "container_tools": ["containerd"]}),
        json!({}),
        3,
    )
    .says("nvidia-ctk is not installed on this host");
    let amd = json!({"containers_gpu_container_integration": {"device_plugin": "amd"}, "gpu_containerd": {"default": 1}});
    refused(
        json!({"gpus": ["MI300X"], "container_tools": ["containerd"]}),
        amd,
        1,
    )
    .says("AMD's amd-ctk configures Docker and not containerd")
    .says("unknown key `default` in `gpu_containerd`");
    let bench = host();
    want(&bench, json!({}));
    bench.ssh(&format!(
        "mkdir -p \"$R\"/etc/containerd; echo nonsense >\"$R\"{FILE}"
    ));
    bench
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("containerd cannot read its own configuration");
}

#[test]
fn a_containerd_that_does_not_know_the_cards_is_told_by_the_doctor() {
    let bench = host();
    want(&bench, json!({}));
    let said = bench.deploy(&["doctor"]);
    said.says("containerd is not told of the cards")
        .says("nvidia-ctk runtime configure --runtime=containerd --cdi.enabled");
    bench.deploy(&["gpu", "--yes"]).expect(0);
    bench.ssh("systemctl stop containerd");
    bench
        .deploy(&["doctor"])
        .says("containerd does not run")
        .says("systemctl start containerd.service");
}

/// Its files say it, and the daemon that runs has not read them: somebody else called the tool.
#[test]
fn a_daemon_that_has_not_read_its_files_is_restarted_or_told_of() {
    let bench = host();
    want(&bench, json!({}));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    bench.settled();
    let written = |when: &str| bench.ssh(&format!("touch -d '{when}' \"$R\"{FILE}"));
    written("1 hour");
    bench
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("restart containerd.service");
    bench
        .deploy(&["doctor"])
        .says("containerd has not read its files since they were written");
    want(&bench, json!({ "restart": false }));
    bench
        .deploy(&["gpu", "--check"])
        .expect(0)
        .says("containerd is not restarted (`restart: false`)");
    written("1 hour ago");
    let quiet = bench.deploy(&["gpu", "--check"]).expect(0);
    assert!(!quiet.all().contains("is not restarted"), "{}", quiet.all());
}

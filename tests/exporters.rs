//! Exporters of metrics on simulated hosts by whole commands: set up as containers and as units,
//! asked for their metrics over plain ssh, started at boot, changed, taken back and taken away;
//! and what is wrong before and after connecting.

use serde_json::{Value as Json, json};

use crate::harness::Ended;
use crate::technology::{Bench, bench};

/// What `curl` says of `/metrics` on a port of the host.
fn asked(bench: &Bench, port: u16) -> String {
    let ended = bench.over_ssh(&format!("curl -s http://127.0.0.1:{port}/metrics"));
    ended.out
}

/// Makes these the exporters, and nothing else of the host ours.
fn want(bench: &Bench, exporters: &Json) {
    bench.vars(&json!({ "gpu_exporters": exporters }));
}

#[track_caller]
fn apply(bench: &Bench, exporters: &Json) -> Ended {
    want(bench, exporters);
    let applied = bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    bench.settled();
    applied
}

/// One of each vendor: the exporter, a host with its card, its port, a metric, the unit that
/// runs its container.
const VENDORS: [(&str, &str, u16, &str); 3] = [
    ("dcgm", "H100-80GB", 9400, "DCGM_FI_DEV_SM_CLOCK"),
    ("amd", "MI300X", 5000, "gpu_nodes_total"),
    ("intel", "Flex-170", 29999, "xpum_engine_ratio"),
];

#[test]
fn each_vendors_exporter_runs_as_a_container_and_goes_again() {
    for (key, card, port, metric) in VENDORS {
        let bench = bench(&json!({"gpus": [card], "container_tools": ["podman", "nvidia-ctk"]}));
        let unit = format!("deploy-{key}-exporter.service");
        let file = format!("/etc/containers/systemd/deploy-{key}-exporter.container");
        let on = json!({ key: { "enabled": true } });
        let applied = apply(&bench, &on);
        let applied = applied.says(&format!("port {port} answers /metrics"));
        assert!(!applied.out.contains("privileged"), "{}", applied.all());
        let text = bench.file(&file);
        assert!(text.contains("DropCapability=all\n"), "{text}");
        assert!(!text.contains("AddCapability"), "{text}");
        assert!(asked(&bench, port).contains(metric), "{key}");

        bench.reboot();
        assert!(asked(&bench, port).contains(metric), "{key} after a boot");
        bench.settled();

        // Another port: restarted, and put back by a rollback.
        let moved = json!({ key: { "enabled": true, "port": port + 1 } });
        apply(&bench, &moved).says(&format!("restart unit {unit}"));
        assert!(asked(&bench, port + 1).contains(metric));
        assert_eq!(asked(&bench, port), "");
        bench.rolled_back();
        assert!(asked(&bench, port).contains(metric), "{key} rolled back");
        assert_eq!(bench.file(&file), text);

        let off = json!({ key: { "enabled": false } });
        apply(&bench, &off);
        assert_eq!(asked(&bench, port), "");
        assert!(!bench.has(&file), "{key}");
        let state = bench.over_ssh(&format!("systemctl is-active {unit}"));
        assert_eq!(state.out, "inactive\n");
        bench.rolled_back();
        assert!(asked(&bench, port).contains(metric), "{key} is back");
    }
}

#[test]
fn each_vendors_exporter_runs_as_a_unit_of_what_is_installed() {
    for (key, card, port, metric) in VENDORS {
        let bench = bench(&json!({"gpus": [card], "exporters": [key]}));
        let unit = format!("deploy-{key}-exporter-host.service");
        let file = format!("/etc/systemd/system/{unit}");
        let on = |port: u16| json!({ key: { "enabled": true, "run": "unit", "port": port } });
        apply(&bench, &on(port));
        assert!(asked(&bench, port).contains(metric), "{key}");
        let text = bench.file(&file);
        assert!(text.contains("CapabilityBoundingSet=\n"), "{text}");
        bench.reboot();
        assert!(asked(&bench, port).contains(metric), "{key} after a boot");
        bench.settled();
        apply(&bench, &on(port + 1)).says(&format!("restart unit {unit}"));
        assert!(asked(&bench, port + 1).contains(metric));
        bench.rolled_back();
        assert!(asked(&bench, port).contains(metric), "{key} rolled back");
        // The key need not even be there.
        apply(&bench, &json!({}));
        assert_eq!(asked(&bench, port), "");
        assert!(!bench.has(&file) && !bench.has("/etc/deploy/exporters"));
        let links = bench.ssh("ls \"$R\"/etc/systemd/system/multi-user.target.wants");
        assert!(!links.contains("exporter"), "{links}");
        bench.rolled_back();
        assert!(asked(&bench, port).contains(metric), "{key} is back");
        bench.reboot();
        assert!(asked(&bench, port).contains(metric), "{key} is enabled");
    }
}

#[test]
fn a_program_that_is_not_installed_is_refused_with_what_to_do() {
    let bench = bench(&json!({"gpus": ["H100-80GB"]}));
    want(&bench, &json!({"dcgm": {"enabled": true, "run": "unit"}}));
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    let refused = refused
        .says("there is no /usr/bin/dcgm-exporter")
        .says("install datacenter-gpu-manager-exporter");
    refused.says("`run: container`");
    want(&bench, &json!({"dcgm": {"enabled": true}}));
    let refused = bench.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("podman is not installed on this host");
    assert_eq!(asked(&bench, 9400), "");
}

#[test]
fn a_container_becomes_a_unit_on_the_same_port() {
    let bench = bench(&json!({
        "gpus": ["H100-80GB"], "container_tools": ["podman", "nvidia-ctk"], "exporters": ["dcgm"],
    }));
    apply(&bench, &json!({"dcgm": {"enabled": true}}));
    apply(&bench, &json!({"dcgm": {"enabled": true, "run": "unit"}}));
    assert!(!bench.has("/etc/containers/systemd/deploy-dcgm-exporter.container"));
    assert!(asked(&bench, 9400).contains("DCGM_FI_DEV_SM_CLOCK"));
    bench.rolled_back();
    assert!(!bench.has("/etc/systemd/system/deploy-dcgm-exporter-host.service"));
    assert!(asked(&bench, 9400).contains("DCGM_FI_DEV_SM_CLOCK"));
    let state = bench.ssh("systemctl is-active deploy-dcgm-exporter.service");
    assert_eq!(state, "active\n");
}

#[test]
fn rights_are_those_that_were_asked_for_and_are_named() {
    let bench = bench(&json!({
        "gpus": ["H100-80GB", "MI300X"], "container_tools": ["podman", "nvidia-ctk"],
    }));
    let asked_for = json!({
        "dcgm": {"enabled": true, "profiling": true},
        "amd": {"enabled": true, "privileged": true},
    });
    apply(&bench, &asked_for)
        .says("container deploy-dcgm-exporter has the capabilities CAP_SYS_ADMIN")
        .says("container deploy-amd-exporter is privileged");
    let text = bench.file("/etc/containers/systemd/deploy-dcgm-exporter.container");
    assert!(text.contains("AddCapability=CAP_SYS_ADMIN\n"), "{text}");
    assert!(text.contains("dcp-metrics-included.csv"), "{text}");
}

#[test]
fn an_exporter_that_gives_no_metrics_is_found_out_and_taken_back() {
    let bench = bench(&json!({"gpus": ["MI300X"], "container_tools": ["podman"]}));
    let image = "localhost/something-else:1";
    want(
        &bench,
        &json!({"amd": {"enabled": true, "image": image, "wait_s": 3}}),
    );
    let failed = bench.deploy(&["gpu", "--yes"]).expect(3);
    failed
        .says("port 5000 does not give /metrics after 3 s: nothing answers there")
        .says("rolled back");
    assert!(!bench.has("/etc/containers/systemd/deploy-amd-exporter.container"));
    let state = bench.over_ssh("systemctl is-active deploy-amd-exporter.service");
    assert_eq!(state.out, "inactive\n");
}

#[test]
fn a_port_that_somebody_else_has_is_theirs() {
    let bench = bench(&json!({"gpus": ["H100-80GB"], "exporters": ["dcgm"]}));
    want(&bench, &json!({}));
    bench.deploy(&["gpu", "--yes"]).expect(0);
    let unit = "[Service]\\nExecStart=/usr/bin/dcgm-exporter\\n";
    bench.ssh(&format!(
        "printf '{unit}' >\"$R\"/etc/systemd/system/theirs.service; systemctl start theirs"
    ));
    assert!(asked(&bench, 9400).contains("DCGM"));
    want(
        &bench,
        &json!({"dcgm": {"enabled": true, "run": "unit", "wait_s": 3}}),
    );
    let failed = bench.deploy(&["gpu", "--yes"]).expect(3);
    failed.says("rolled back");
    // Who has the port is seen by its socket, and the kernel's table forgets it with its end.
    let sockets = "grep -c ' 0A ' \"$R\"/proc/net/tcp; ls -d \"$R\"/proc/[0-9]*/fd | wc -l";
    assert_eq!(bench.ssh(sockets), "1\n1\n");
    assert_eq!(bench.ssh("systemctl is-active theirs"), "active\n");
    assert!(asked(&bench, 9400).contains("DCGM"));
    let ended = bench.ssh(&format!("systemctl stop theirs; {sockets}"));
    assert_eq!(ended, "0\n0\n");
}

#[test]
fn a_password_stands_in_no_plan_and_no_argument_and_is_asked_for() {
    let secret = "correct-horse-battery";
    for (run, sim) in [
        (
            "container",
            json!({"gpus": ["Flex-170"], "container_tools": ["podman"]}),
        ),
        (
            "unit",
            json!({"gpus": ["Flex-170"], "exporters": ["intel"]}),
        ),
    ] {
        let bench = bench(&sim);
        let on = |password: &str| json!({"intel": {"enabled": true, "run": run, "username": "scraper", "password": password}});
        want(&bench, &on(secret));
        let shown = bench.deploy(&["gpu", "--check", "--diff"]).expect(2);
        let conf = "/etc/deploy/exporters/rest.conf";
        let shown = shown.says(conf).says("asks for a user and password");
        let hidden = ["password =", "salt =", secret];
        for word in hidden {
            assert!(!shown.all().contains(word), "{word}: {}", shown.all());
        }
        apply(&bench, &on(secret));
        let text = bench.file(conf);
        assert!(
            text.contains("username = scraper\n") && !text.contains(secret),
            "{text}"
        );
        let mode = bench.ssh(&format!("stat -c %a \"$R{conf}\""));
        assert_eq!(mode, "600\n");
        // It stands nowhere on the host, whatever is kept there.
        let found = bench.over_ssh(&format!(
            "grep -rl {secret} \"$R\"/etc \"$R\"/var \"$R\"/.sim/journal"
        ));
        assert_eq!(found.out, "", "{}", found.all());
        assert_eq!(asked(&bench, 29999), "Unauthorized Access");
        let mine = bench.ssh(&format!(
            "curl -s -u scraper:{secret} http://127.0.0.1:29999/metrics"
        ));
        assert!(mine.contains("xpum_engine_ratio"), "{mine}");

        apply(&bench, &on("another-one"));
        let theirs = bench.ssh(&format!(
            "curl -s -u scraper:{secret} http://127.0.0.1:29999/metrics"
        ));
        assert_eq!(theirs, "Unauthorized Access");
        bench.rolled_back();
        let mine = bench.ssh(&format!(
            "curl -s -u scraper:{secret} http://127.0.0.1:29999/metrics"
        ));
        assert!(mine.contains("xpum_engine_ratio"), "{mine}");
        // Without one, everybody may read, and the file goes.
        apply(&bench, &json!({"intel": {"enabled": true, "run": run}}));
        assert!(!bench.has("/etc/deploy/exporters"));
        assert!(asked(&bench, 29999).contains("xpum_engine_ratio"));
    }
}

#[test]
fn a_host_without_the_vendors_cards_is_left_alone() {
    let bench = bench(&json!({"gpus": ["Flex-170"], "container_tools": ["podman"]}));
    want(&bench, &json!({"dcgm": {"enabled": true}}));
    let ended = bench.deploy(&["gpu", "--yes"]).expect(0);
    ended.says("changed=0");
    assert!(!bench.has("/etc/containers/systemd/deploy-dcgm-exporter.container"));
}

#[test]
fn what_the_variables_alone_show_to_be_wrong_is_told_at_once_with_places() {
    let bench = bench(&json!({"gpus": ["H100-80GB"]}));
    want(
        &bench,
        &json!({
            "dcgn": {"enabled": true},
            "dcgm": {"enabled": true, "image": "dcgm-exporter", "port": 70000, "run": "daemon", "collectors": "counters.csv"},
            "amd": {"enabled": "perhaps", "address": "everywhere", "password": "x"},
            "intel": {"enabled": true, "username": "a b", "binary": "gunicorn", "run": "unit", "privileged": true, "port": 9400},
        }),
    );
    let refused = bench.deploy(&["gpu", "--yes"]).expect(1);
    for text in [
        "unknown key `dcgn` in `gpu_exporters`",
        "did you mean `dcgm`?",
        "`dcgm-exporter` names no registry",
        "`gpu_exporters.dcgm.port` must be a whole number from 1 to 65535, not `70000`",
        "`gpu_exporters.dcgm.run` has no value `daemon`",
        "it is one of `container`, `unit`",
        "`gpu_exporters.dcgm.collectors` must be an absolute path",
        "`gpu_exporters.amd.enabled` must be `true` or `false`",
        "`gpu_exporters.amd.address` must be an IP address of the host, not `everywhere`",
        "unknown key `password` in `gpu_exporters.amd`",
        "`gpu_exporters.intel.username` must be made of letters",
        "`gpu_exporters.intel.binary` must be an absolute path",
        "`gpu_exporters.intel.privileged` is for `run: container`",
        "`gpu_exporters.dcgm` and `gpu_exporters.intel` both listen on port 9400",
        "hosts.yml:6:",
    ] {
        assert!(
            refused.err.contains(text),
            "`{text}` is missing in {}",
            refused.all()
        );
    }
    assert!(!bench.was_reached());
    want(&bench, &json!({}));
    let text = json!({ "gpu_exporter": {"dcgm": {"enabled": true}} });
    bench.vars(&text);
    let refused = bench.deploy(&["gpu", "--yes"]).expect(1);
    refused.says("did you mean `gpu_exporters`?");
}

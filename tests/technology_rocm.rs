//! ROCm's masks, on simulated hosts by whole commands: environment files and drop-ins for units,
//! said to be hints, changed and taken away again.

use serde_json::{Value as Json, json};

use crate::technology::{apply, bench, want};

const TRAINING: &str = "/etc/deploy/gpu/rocm/training.env";
const SERVING: &str = "/etc/deploy/gpu/rocm/serving.env";
const DROP_IN: &str = "/etc/systemd/system/vllm.service.d/50-deploy-rocm.conf";

fn masks() -> Json {
    json!({"strategy": "rocm", "rocm": {"masks": [
        {"name": "training", "devices": [0]},
        {"name": "serving", "devices": [1], "units": ["vllm.service"]},
    ]}})
}

#[test]
fn masks_are_files_for_containers_and_units_and_are_said_to_be_hints() {
    let host = bench(&json!({"gpus": [{"product": "MI250", "count": 2}]}));
    want(&host, masks());
    host.deploy(&["gpu", "--check"])
        .expect(2)
        .says("ROCm masks are hints");
    apply(&host);
    assert!(
        host.file(TRAINING).ends_with("ROCR_VISIBLE_DEVICES=0\n"),
        "{}",
        host.file(TRAINING)
    );
    assert!(host.file(SERVING).ends_with("ROCR_VISIBLE_DEVICES=1\n"));
    let drop_in = host.file(DROP_IN);
    assert!(
        drop_in.contains(&format!("[Service]\nEnvironmentFile=-{SERVING}\n")),
        "{drop_in}"
    );
    // No card is cut up by it.
    let listed = host.ssh("amd-smi list -e");
    assert_eq!(listed.matches("RENDER: renderD").count(), 2);
    host.settled();
    host.broken(&["reboot"]);
    host.settled();

    // Another mask: the old one's file and drop-in go.
    want(
        &host,
        json!({"strategy": "rocm", "rocm": {"masks": [{"name": "training", "devices": [0, 1]}]}}),
    );
    apply(&host);
    assert!(host.file(TRAINING).ends_with("ROCR_VISIBLE_DEVICES=0,1\n"));
    assert_eq!(
        (host.file(SERVING), host.file(DROP_IN)),
        (String::new(), String::new())
    );
    host.rolled_back();
    assert!(host.file(TRAINING).ends_with("ROCR_VISIBLE_DEVICES=0\n"));
    assert_eq!(host.file(DROP_IN), drop_in);
    want(&host, json!({"strategy": "none"}));
    apply(&host);
    assert_eq!(
        (host.file(TRAINING), host.file(DROP_IN)),
        (String::new(), String::new())
    );
    let folder = TRAINING.strip_suffix("/training.env").expect("a folder");
    assert!(!host.has(folder), "it goes with the last file");
    host.settled();
    host.rolled_back();
    assert!(host.file(TRAINING).ends_with("ROCR_VISIBLE_DEVICES=0\n"));
    // What somebody else put there is not ours to remove.
    host.ssh(&format!("echo theirs | tee \"$R{folder}/.theirs\""));
    apply(&host);
    assert_eq!(host.file(&format!("{folder}/.theirs")), "theirs\n");
    assert_eq!(host.file(TRAINING), "");
    host.settled();
}

#[test]
fn devices_are_counted_over_partitions() {
    let host = bench(&json!({"gpus": ["MI300X"]}));
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "DPX"}}),
    );
    apply(&host);
    want(&host, masks());
    apply(&host);
    // The card keeps its partitions, as a mask says nothing of them.
    let cut_up = || host.ssh("amd-smi partition --current").contains("DPX");
    assert!(cut_up());
    host.reboot();
    assert!(
        cut_up(),
        "masks name devices that are there after a boot too"
    );
    host.settled();
    want(
        &host,
        json!({"strategy": "rocm", "rocm": {"masks": [{"name": "a", "devices": [2]}]}}),
    );
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("mask `a` names device 2, and this host has 2");
}

#[test]
fn what_is_no_mask_is_refused_before_any_connection() {
    for (rocm, said) in [
        (json!({}), "names no `rocm.masks`"),
        (
            json!({"masks": [{"name": "a/b", "devices": [0]}]}),
            "`a/b` is no name for an environment file",
        ),
        (
            json!({"masks": [{"name": "a"}]}),
            "mask `a` names no `devices`",
        ),
        (
            json!({"masks": [{"name": "a", "devices": ["x"]}]}),
            "a list of device numbers",
        ),
        (
            json!({"masks": [{"name": "a", "devices": [0]}, {"name": "a", "devices": [0]}]}),
            "two masks are called `a`",
        ),
        (
            json!({"masks": [{"name": "a", "devices": [0], "units": ["vllm"]}]}),
            "`vllm` is no service of systemd",
        ),
        (
            json!({"masks": [{"name": "a", "devices": [0], "unit": ["b.service"]}]}),
            "units",
        ),
    ] {
        let host = bench(&json!({"gpus": ["MI300X"]}));
        want(&host, json!({"strategy": "rocm", "rocm": rocm}));
        host.deploy(&["gpu", "--yes"]).expect(1).says(said);
    }
}

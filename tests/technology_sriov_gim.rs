//! Virtual functions under AMD's host driver `gim`, on simulated hosts by whole commands: applied,
//! read back by its own `amd-smi`, restored after a reboot, changed, rolled back; and what a card,
//! its firmware or its driver refuses.

use serde_json::{Value as Json, json};

use crate::technology::{Bench, apply, bench, want};

const OPTIONS: &str = "/etc/modprobe.d/deploy-gim.conf";

fn under_gim(cards: Json) -> Bench {
    bench(&json!({"gpus": [cards], "amd": {"driver": "gim"}}))
}

fn functions(count: u32) -> Json {
    json!({"strategy": "sriov", "sriov": {"vf_count": count}})
}

/// What gim's tool says: each card's number of functions, and its modes.
fn state(host: &Bench) -> (Vec<String>, Vec<String>) {
    let values = |text: String, names: &[&str]| {
        let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        let found = lines.filter(|(name, _)| names.contains(name));
        found.map(|(_, value)| value.to_owned()).collect()
    };
    (
        values(host.ssh("amd-smi static --num-vf"), &["NUM_VF_ENABLED"]),
        values(
            host.ssh("amd-smi partition --current"),
            &["ACCELERATOR_PARTITION", "MEMORY_PARTITION"],
        ),
    )
}

#[test]
fn eight_functions_come_with_their_modes_and_stay_over_a_reboot() {
    let host = under_gim(json!({"product": "MI300X", "count": 2}));
    want(&host, functions(8));
    apply(&host).says("8 in CPX/NPS4");
    let served = &host;
    let made = state(served);
    assert_eq!(made.0, ["8", "8"]);
    assert_eq!(made.1, ["CPX", "NPS4", "CPX", "NPS4"]);
    let listed = served.ssh("amd-smi list");
    assert_eq!(listed.matches("VF: ").count(), 16);
    let bus = served.ssh("lspci -nn -d 1002:74b5");
    assert_eq!(bus.lines().count(), 16, "{bus}");
    assert!(
        host.file(OPTIONS).contains("options gim vf_num=8,8\n"),
        "{}",
        host.file(OPTIONS)
    );
    host.settled();
    host.broken(&["reboot"]);
    let served = &host;
    assert_eq!(state(served), made);
    assert_eq!(served.ssh("amd-smi list"), listed);
    host.settled();

    want(&host, functions(1));
    apply(&host);
    assert_eq!(state(served).0, ["1", "1"]);
    host.rolled_back();
    assert_eq!(state(served), made);
    assert_eq!(served.ssh("amd-smi list"), listed);

    // None is what the driver makes by itself.
    want(&host, json!({"strategy": "none"}));
    apply(&host);
    assert_eq!(state(served).0, ["1", "1"]);
    assert_eq!(host.file(OPTIONS), "");
    host.settled();
}

#[test]
fn a_card_without_modes_takes_any_number_up_to_its_most() {
    let host = under_gim(json!("V710"));
    want(&host, functions(5));
    apply(&host);
    let served = &host;
    assert_eq!(state(served).0, ["5"]);
    host.broken(&["power"]);
    assert_eq!(state(&host).0, ["5"]);
    host.settled();
}

#[test]
fn sysfs_and_the_other_amd_smi_are_no_way_there() {
    let host = under_gim(json!("MI300X"));
    want(&host, functions(8));
    let served = &host;
    let wrote =
        served.over_ssh("echo 8 | tee $DEPLOY_SIM_ROOT/sys/bus/pci/drivers/gim/*:*/sriov_numvfs");
    assert!(
        wrote.err.contains("No such file or directory"),
        "{}",
        wrote.all()
    );
    assert!(served.over_ssh("amd-smi partition --current --json").code != 0);
    // Under amdgpu there is no way at all, and the message says what there is.
    let bare = bench(&json!({"gpus": ["MI300X"]}));
    want(&bare, functions(8));
    bare.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("made by the host driver `gim`")
        .says("strategy: partition");
}

#[test]
fn what_a_card_does_not_have_names_what_it_has() {
    for (card, count, said, hint) in [
        (
            "MI250",
            1,
            "MI250 has no sriov",
            "rocm, passthrough and none",
        ),
        (
            "MI300A",
            1,
            "MI300A has no sriov",
            "partition, rocm, passthrough and none",
        ),
        ("MI300X", 9, "`vf_count` is 9", "MI300X has at most 8"),
    ] {
        let host = under_gim(json!(card));
        want(
            &host,
            json!({"strategy": "none", "gpus": [
            {"match": {"model": card}, "strategy": "sriov", "sriov": {"vf_count": count}}]}),
        );
        host.deploy(&["gpu", "--yes"])
            .expect(1)
            .says(said)
            .says(hint);
    }
    for (card, count, said, hint) in [
        ("MI300X", 4, "MI300X has no 4 virtual functions", "1 or 8"),
        ("MI210", 2, "MI210", "1"),
    ] {
        let host = under_gim(json!(card));
        want(&host, functions(count));
        host.deploy(&["gpu", "--yes"])
            .expect(3)
            .says(said)
            .says(hint);
    }
}

#[test]
fn firmware_with_one_function_refuses_more() {
    let host = under_gim(json!("MI300X"));
    want(&host, functions(8));
    host.broken(&["amd", "one-function"]);
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("its firmware allows 1 virtual functions, not 8")
        .says("firmware bundle");
    host.mended();
    apply(&host);
}

#[test]
fn a_function_in_use_is_not_taken_away() {
    let host = under_gim(json!("MI300X"));
    want(&host, functions(8));
    apply(&host);
    let served = &host;
    // A virtual machine gets a function by way of vfio-pci.
    served.ssh(
        "modprobe vfio-pci; cd $DEPLOY_SIM_ROOT/sys/bus/pci; vf=$(basename $(readlink drivers/gim/*:*/virtfn0)); \
         echo vfio-pci | tee devices/$vf/driver_override; echo $vf | tee drivers_probe",
    );
    let made = state(served);
    host.broken(&[
        "in-use",
        "--command",
        "qemu-system-x86",
        "--unit",
        "vm.service",
    ]);
    want(&host, functions(1));
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("in use by pid")
        .says("qemu-system-x86");
    assert_eq!(state(&host), made);
}

/// A fault that ends a run: what it says, and that nothing is left of the run.
fn ends_as_before(fault: &str, said: &[&str]) {
    let host = under_gim(json!({"product": "MI300X", "count": 2}));
    want(&host, functions(1));
    host.deploy(&["gpu", "--yes"]).expect(0);
    let before = state(&host);
    host.broken(&["amd", fault]);
    want(&host, functions(8));
    let mut ended = host.deploy(&["gpu", "--yes"]).expect(3);
    for word in said {
        ended = ended.says(word);
    }
    host.mended();
    assert_eq!(state(&host), before, "{fault}");
    apply(&host);
    host.settled();
}

#[test]
fn what_the_tool_refuses_is_said_in_its_words_and_undone() {
    ends_as_before("busy", &["AMDSMI_STATUS_BUSY"]);
    ends_as_before("memory-refused", &["AMDSMI_STATUS_IO"]);
}

#[test]
fn without_roots_rights_the_tool_tells_nothing_and_nothing_is_changed() {
    ends_as_before("not-root", &["elevated privileges"]);
}

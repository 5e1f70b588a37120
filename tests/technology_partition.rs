//! AMD's compute and memory partitions, on simulated hosts by whole commands: applied, read
//! back by the kernel's topology and by both of AMD's tools, restored after a reboot, changed,
//! rolled back; and all that can go wrong on the way.

use serde_json::{Value as Json, json};

use crate::technology::{Bench, apply, bench, want};

fn cpx_nps4() -> Json {
    json!({"strategy": "partition", "partition": {"compute": "CPX", "memory": "NPS4"}})
}

fn two_cards() -> Bench {
    bench(&json!({"gpus": [{"product": "MI300X", "count": 2}]}))
}

/// Modes of all cards as sysfs has them, and the render nodes that the topology lists.
fn state(host: &Bench) -> (Vec<String>, Vec<String>) {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    let modes = host.ssh("cat $DEPLOY_SIM_ROOT/sys/bus/pci/drivers/amdgpu/*:*/current_*_partition");
    let minors = host.ssh(
        "cat $DEPLOY_SIM_ROOT/sys/class/kfd/kfd/topology/nodes/*/properties | sed -n 's/^drm_render_minor //p' | grep -v '^0$' | sort -n",
    );
    (lines(modes), lines(minors))
}

fn count(text: &str, word: &str) -> usize {
    text.matches(word).count()
}

#[test]
fn a_hive_goes_to_cpx_and_nps4_and_back_and_stays_over_a_reboot() {
    let host = two_cards();
    want(&host, cpx_nps4());
    apply(&host)
        .says("set the memory mode of 2 GPUs")
        .says("load amdgpu anew")
        .says("CPX (8 devices)");
    let served = &host;
    let made = state(served);
    assert_eq!(made.0, ["CPX", "NPS4", "CPX", "NPS4"]);
    assert_eq!(made.1.len(), 16);
    assert_eq!(made.1[8], "136");
    let listed = served.ssh("amd-smi list -e");
    assert_eq!(count(&listed, "RENDER: renderD"), 16);
    let current = served.ssh("amd-smi partition --current");
    assert_eq!(count(&current, "NPS4    CPX"), 16);
    assert_eq!(count(&served.ssh("rocm-smi --showhw"), "gfx942"), 16);
    host.settled();

    // A boot takes all of it away, and the boot unit brings it back, the same nodes again.
    host.broken(&["reboot"]);
    let served = &host;
    assert_eq!(state(served), made);
    host.settled();

    // Another layout, without memory: that stays, and the driver is not loaded anew.
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "QPX"}}),
    );
    let ended = apply(&host);
    assert!(!ended.out.contains("load amdgpu anew"), "{}", ended.all());
    assert_eq!(state(served).0, ["QPX", "NPS4", "QPX", "NPS4"]);
    host.rolled_back();
    assert_eq!(state(served), made);

    // And none: memory first, as SPX is not offered with NPS4.
    want(&host, json!({"strategy": "none"}));
    apply(&host);
    assert_eq!(state(served).0, ["SPX", "NPS1", "SPX", "NPS1"]);
    host.settled();
    host.rolled_back();
    assert_eq!(state(served), made);
}

#[test]
fn a_compute_mode_alone_changes_one_card_and_leaves_the_other() {
    let host = bench(&json!({"gpus": ["MI300X", "MI300A"]}));
    want(
        &host,
        json!({"strategy": "none", "gpus": [
        {"match": {"model": "MI300A"}, "strategy": "partition", "partition": {"compute": "TPX"}}]}),
    );
    apply(&host).says("TPX (3 devices)");
    let served = &host;
    assert_eq!(state(served).0, ["SPX", "NPS1", "TPX", "NPS1"]);
    host.settled();
    host.broken(&["power"]);
    let served = &host;
    assert_eq!(state(served).0, ["SPX", "NPS1", "TPX", "NPS1"]);
}

#[test]
fn what_no_card_can_is_refused_before_any_connection_with_what_it_can() {
    for (cards, slicing, said, hint) in [
        (
            "MI300X",
            json!({"compute": "TPX"}),
            "MI300X has no compute mode TPX",
            "SPX, DPX, QPX, CPX",
        ),
        (
            "MI300A",
            json!({"compute": "CPX", "memory": "NPS4"}),
            "MI300A has no memory mode NPS4",
            "NPS1",
        ),
        (
            "MI300X",
            json!({"compute": "SPX", "memory": "NPS4"}),
            "SPX and NPS4 do not go together",
            "memory partitions",
        ),
        (
            "MI250",
            json!({"compute": "CPX"}),
            "MI250 has no partition",
            "rocm, passthrough and none",
        ),
    ] {
        let host = bench(&json!({"gpus": [cards]}));
        want(
            &host,
            json!({"strategy": "none", "gpus": [
            {"match": {"model": cards}, "strategy": "partition", "partition": slicing}]}),
        );
        host.deploy(&["gpu", "--yes"])
            .expect(1)
            .says(said)
            .says(hint);
    }
    let host = bench(&json!({"gpus": ["MI300X"]}));
    want(&host, json!({"strategy": "partition"}));
    host.deploy(&["gpu", "--yes"])
        .expect(1)
        .says("partition.compute");
}

#[test]
fn what_the_host_does_not_offer_now_is_refused_with_what_it_offers() {
    // DPX goes with NPS1 only, and NPS2 is in AMD's tables but not in this firmware.
    let host = two_cards();
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "CPX", "memory": "NPS2"}}),
    );
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("does not offer memory mode NPS2")
        .says("NPS1, NPS4");
    want(&host, cpx_nps4());
    apply(&host);
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "DPX"}}),
    );
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("does not offer compute mode DPX with memory mode NPS4")
        .says("QPX, CPX");
}

#[test]
fn cards_of_a_hive_have_one_memory_mode() {
    let host = two_cards();
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "CPX", "memory": "NPS4"}, "gpus": [
        {"match": {"index": 1}, "strategy": "partition", "partition": {"compute": "CPX", "memory": "NPS1"}}]}),
    );
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("in one XGMI hive")
        .says("the same `partition.memory`");
    // One that is not meant would change too.
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "CPX", "memory": "NPS4"}, "gpus": [
        {"match": {"index": 1}, "strategy": "rocm", "rocm": {"masks": [{"name": "a", "devices": [0]}]}}]}),
    );
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("would change its memory mode too");
    assert_eq!(state(&host).0, ["SPX", "NPS1", "SPX", "NPS1"]);
}

#[test]
fn a_card_in_use_is_not_touched() {
    let host = two_cards();
    want(&host, cpx_nps4());
    host.broken(&[
        "in-use",
        "--gpu",
        "1",
        "--command",
        "vllm",
        "--unit",
        "vllm.service",
    ]);
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("in use by pid")
        .says("unit vllm.service");
    let served = &host;
    assert_eq!(state(served).0, ["SPX", "NPS1", "SPX", "NPS1"]);
    // The kernel says the same to whoever writes by hand.
    let wrote = served.over_ssh(
        "echo CPX | tee $DEPLOY_SIM_ROOT/sys/bus/pci/drivers/amdgpu/*:*/current_compute_partition",
    );
    assert!(
        wrote.err.contains("Device or resource busy"),
        "{}",
        wrote.all()
    );
    let set = served.over_ssh("amd-smi set --gpu all -C CPX");
    assert!(set.err.contains("30 | AMDSMI_STATUS_BUSY"), "{}", set.all());
}

/// A fault that ends a run: what it says, and that nothing is left of the run.
fn ends_as_before(fault: &str, slicing: Json, said: &[&str]) {
    let host = two_cards();
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "DPX"}}),
    );
    apply(&host);
    let before = state(&host);
    host.broken(&["amd", fault]);
    want(&host, slicing);
    let mut ended = host.deploy(&["gpu", "--yes"]).expect(3);
    for word in said {
        ended = ended.says(word);
    }
    assert_eq!(state(&host), before, "{fault}");
    // Mended, the same run ends well.
    host.mended();
    apply(&host);
    host.settled();
}

#[test]
fn a_driver_that_is_busy_for_no_visible_reason_changes_nothing() {
    let qpx = json!({"strategy": "partition", "partition": {"compute": "QPX"}});
    ends_as_before("busy", qpx, &["Device or resource busy", "/dev/kfd open"]);
}

#[test]
fn a_mode_that_is_taken_without_effect_is_a_failure() {
    let qpx = json!({"strategy": "partition", "partition": {"compute": "QPX"}});
    ends_as_before(
        "compute-ignored",
        qpx,
        &["the compute mode is DPX, expected QPX"],
    );
}

#[test]
fn a_reload_that_users_block_is_undone() {
    ends_as_before(
        "reload-blocked",
        cpx_nps4(),
        &["amdgpu cannot be removed", "gpuagent"],
    );
}

#[test]
fn a_memory_mode_that_the_firmware_refuses_is_undone() {
    ends_as_before("memory-refused", cpx_nps4(), &["the firmware refused NPS4"]);
}

#[test]
fn without_roots_rights_nothing_is_changed() {
    let qpx = json!({"strategy": "partition", "partition": {"compute": "QPX"}});
    ends_as_before("not-root", qpx, &["Permission denied"]);
    let host = two_cards();
    want(&host, json!({"strategy": "none"}));
    host.broken(&["amd", "not-root"]);
    let served = &host;
    // The tool ends well, with nothing to say.
    let said = served.ssh("amd-smi partition --accelerator");
    assert!(said.contains("requires sudo/root permissions"), "{said}");
}

#[test]
fn sixty_four_partitions_want_a_render_node_each() {
    let host = bench(&json!({"gpus": [{"product": "MI300X", "count": 8}]}));
    let cpx = json!({"strategy": "partition", "partition": {"compute": "CPX"}});
    want(&host, cpx);
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("64 render nodes in all")
        .says("modprobe -r ast");
    let served = &host;
    assert_eq!(state(served).1.len(), 8);
    // Whoever does it by hand gets 63.
    let all = "for f in $DEPLOY_SIM_ROOT/sys/bus/pci/drivers/amdgpu/*:*/current_compute_partition; do echo CPX | tee $f; done";
    served.ssh(all);
    assert_eq!(state(served).1.len(), 63);
    served.ssh(&all.replace("CPX", "SPX"));
    served.ssh("modprobe -r ast && modprobe -r amdgpu && modprobe amdgpu");
    apply(&host);
    assert_eq!(state(served).1.len(), 64);
}

#[test]
fn the_tools_argument_bug_is_in_nobodys_way() {
    let host = bench(&json!({
        "gpus": ["MI300X"], "os": "debian-13", "amd": {"rocm": "6.4.3"},
    }));
    want(
        &host,
        json!({"strategy": "partition", "partition": {"compute": "DPX"}}),
    );
    let served = &host;
    let said = served.over_ssh("amd-smi set -C DPX");
    assert!(
        said.code == 2
            && said
                .err
                .contains("invalid choice: 'DPX' (choose from S, P, X"),
        "{}",
        said.all()
    );
    apply(&host);
    assert_eq!(state(served).0, ["DPX", "NPS1"]);
}

#[test]
fn a_lost_mode_comes_back_with_the_next_run() {
    let host = two_cards();
    want(&host, cpx_nps4());
    apply(&host);
    let served = &host;
    let made = state(served);
    served.ssh("modprobe -r amdgpu && modprobe amdgpu");
    assert_ne!(state(served), made);
    apply(&host);
    assert_eq!(state(served), made);
}

#[test]
fn auto_cuts_a_card_into_as_many_devices_as_there_are_tenants() {
    let host = bench(&json!({"gpus": ["MI300X"]}));
    let auto = |need: Json| json!({"strategy": "auto", "auto": need});
    want(&host, auto(json!({"tenants": 3, "memory_each": "40GB"})));
    apply(&host).says(
        "`auto` picked partition: 4 partitions of 48.00 GiB (QPX) give 3 tenants a device each",
    );
    assert_eq!(state(&host).1.len(), 4);
    host.settled();
    want(&host, auto(json!({"isolation": "hardware", "tenants": 3})));
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("nothing gives GPU")
        .says("MI300X has ");
    want(&host, auto(json!({"tenants": 9})));
    host.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("partition (it has at most 8 partitions)");
}

//! What users of NVIDIA's cards report to go wrong, and the test that shows what `deploy` says
//! then and that nothing was lost. The list is numbered as the reports were collected; a report
//! without a row, a cause that cannot be brought about or a test that is not there fails.

use crate::failures::{self, Cause::Fault, Cause::Host, Cause::Written, Row};
use crate::technology::Bench;

#[rustfmt::skip]
const FAILURES: &[Row] = &[
    (1, "in use by another client on a change of mode or a reset",
        Fault(&["in-use", "--command", "train.py"]),
        &["cli::a_gpu_in_use_is_not_touched_and_its_holder_is_named", "cli::force_stops_a_service_that_holds_the_card_and_starts_it_again"]),
    (1, "the driver holds the card although nobody is to be seen",
        Fault(&["reset-refused"]),
        &["strategy_sim::a_pending_mode_is_put_in_force_by_a_reset_or_refused"]),
    (2, "nvidia_drm with modeset=1 blocks the reset",
        Fault(&["nvidia", "drm"]),
        &["nvidia_failures::displays_that_hold_the_card_are_named"]),
    (3, "the mode of an A100 stays pending",
        Fault(&["pending"]),
        &["strategy_sim::a_pending_mode_is_put_in_force_by_a_reset_or_refused"]),
    (4, "no reset in a virtual machine that was handed the card",
        Fault(&["reset-unsupported"]),
        &["cli::a_mode_that_no_reset_brings_about_says_what_to_do_next", "strategy_power::a_mode_that_no_reset_changes_gets_a_reboot_and_another_one_undoes_it"]),
    (5, "the layout is gone after a reboot",
        Fault(&["reboot"]),
        &["technology_mig::h100_goes_from_layout_to_layout_and_back", "technology_mig::a100_goes_from_layout_to_layout_and_back"]),
    (6, "insufficient resources half-way, or by what was left over",
        Fault(&["nvidia", "no-room"]),
        &["nvidia_failures::a_driver_that_finds_no_room_half_way_leaves_the_old_layout", "nvidia_failures::what_somebody_else_made_is_replaced_and_comes_back"]),
    (7, "applied with success, and nothing was made",
        Fault(&["nvidia", "ignored"]),
        &["nvidia_failures::success_without_effect_is_noticed", "technology_time_slicing::a_time_slice_without_effect_is_noticed_and_taken_back"]),
    (8, "other names with another driver or board",
        Fault(&["nvidia", "renamed"]),
        &["nvidia_failures::published_names_are_found_under_the_drivers_own"]),
    (9, "the device plugin fails on MIG without instances",
        Written("`mig-devices: {}`"),
        &["technology_mig_parted::the_mode_is_on_without_instances_where_the_file_says_so"]),
    (10, "mig-manager is stuck, its labels stay",
        Fault(&["gpu-operator", "stuck"]),
        &["platform_kubernetes::an_operator_that_fails_or_hangs_is_told_and_the_label_goes_back"]),
    (11, "the CDI specification is stale after slicing",
        Fault(&["nvidia", "cdi-stale"]),
        &["nvidia_failures::slices_stay_where_the_cdi_specification_cannot_be_written"]),
    (12, "insufficient permissions",
        Fault(&["nvidia", "not-root"]),
        &["nvidia_failures::without_rights_nothing_is_taken_for_an_empty_card"]),
    (13, "time-slicing does not take effect in Kubernetes",
        Fault(&["gpu-operator", "plugin-deaf"]),
        &["platform_kubernetes::a_plugin_that_takes_no_notice_is_found_out_and_the_change_undone", "platform_kubernetes::time_slices_are_counted_and_what_others_put_there_stays"]),
    (14, "sharing options in the wrong place, or a number that is refused",
        Written("`replicas`, `max_instance_count: 1`"),
        &["technology_time_slicing::what_cannot_be_had_is_told_before_connecting", "technology_time_slicing::each_card_may_have_its_own_turns_and_all_have_one_number"]),
    (15, "time-slicing isolates no memory",
        Written("`strategy: time-slicing`"),
        &["technology_time_slicing::cards_are_shared_in_turns_and_everything_brings_that_back", "strategy::time_slicing_says_that_it_isolates_nothing"]),
    (16, "an RTX PRO 6000 offers no MIG",
        Fault(&["nvidia", "no-mig"]),
        &["nvidia_failures::a_card_that_lacks_what_mig_needs_is_told_so"]),
    (17, "the kubelet is restarted on a fresh node",
        Fault(&["in-use", "--command", "kubelet", "--unit", "kubelet.service"]),
        &["nvidia_failures::the_kubelet_is_not_stopped_unasked"]),
    (18, "a configuration for a part of the cards",
        Written("a configuration of mig-parted with one entry for two cards"),
        &["technology_mig_parted::a_card_without_an_entry_and_one_with_two_are_refused"]),
    (19, "CDI names that rootless Podman cannot resolve",
        Written("`user` of a container of `gpu_podman`"),
        &["real_podman::containers_of_a_user_are_rootless_and_share_a_pod", "platform_podman::cards_have_names_by_their_place_and_parts_by_their_number"]),
    (20, "UUIDs of MIG devices in the old form",
        Host("driver: 460.106.00"),
        &["nvidia_drivers::drivers_before_470_are_read_and_sliced", "captures::every_capture_is_parsed_into_what_it_shows"]),
    // Boards with NVSwitches.
    (3, "an Ampere card of a board with NVSwitches is reset while the fabric manager does not run",
        Host("nvswitch: true"),
        &["nvidia_failures::a_reset_needs_the_fabric_manager_on_a_board_with_nvswitches"]),
    (5, "NVLink does not come back after MIG mode was switched off",
        Host("nvswitch: true"),
        &["nvidia_failures::the_fabric_manager_runs_again_after_mig_mode_is_off"]),
    (12, "the driver answers with an unknown error",
        Fault(&["nvidia", "unknown-error"]),
        &["nvidia_drivers::cells_without_a_value_are_told_apart"]),
];

#[test]
fn every_report_has_its_cause_and_its_test() {
    failures::hold(FAILURES, 20, "gpus: [{product: A100-80GB}]");
}

/// `nvidia-smi -L` over plain ssh.
fn listed(bench: &Bench) -> String {
    bench.ssh("nvidia-smi -L")
}

fn modes(bench: &Bench) -> String {
    let fields = "mig.mode.current,mig.mode.pending";
    bench.ssh(&format!(
        "nvidia-smi --query-gpu={fields} --format=csv,noheader"
    ))
}

const HALVES: &str = "strategy: mig, mig: {profiles: [3g.40gb, 3g.40gb]}";
const FOUR: &str = "strategy: mig, mig: {profiles: [3g.40gb, 2g.20gb, 1g.10gb, 1g.10gb]}";

#[test]
fn displays_that_hold_the_card_are_named() {
    for card in ["A100-80GB", "H100-80GB"] {
        let Some(bench) = Bench::new(&format!("{{gpus: [{card}], driver: 580.65.06}}")) else {
            return;
        };
        bench.want(HALVES);
        bench.deploy(&["discover"]).expect(0);
        bench.broken(&["nvidia", "drm"]);
        bench
            .refused(HALVES)
            .says("nvidia_drm is loaded with modeset=1")
            .says("modprobe -r nvidia_drm")
            .says("rolled back");
        assert_eq!(modes(&bench), "Disabled, Disabled\n");
        // As the message says.
        bench.ssh("modprobe -r nvidia_drm");
        bench.apply(HALVES);
        assert_eq!(listed(&bench).matches("MIG 3g.40gb").count(), 2);
    }
}

#[test]
fn a_driver_that_finds_no_room_half_way_leaves_the_old_layout() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    bench.apply(HALVES);
    let before = listed(&bench);
    bench.broken(&["nvidia", "no-room"]);
    bench
        .refused(FOUR)
        .says("Insufficient Resources")
        .says("rolled back");
    assert_eq!(listed(&bench), before, "the same UUIDs");
    bench.apply(FOUR);
    bench.settled();
}

#[test]
fn what_somebody_else_made_is_replaced_and_comes_back() {
    let Some(bench) = Bench::new("{gpus: [{product: H100-80GB, mig: true}], driver: 590.48.01}")
    else {
        return;
    };
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.ssh("nvidia-smi mig -i 0 -cgi 19,14,19 -C");
    let before = listed(&bench);
    assert_eq!(before.matches("MIG ").count(), 3, "{before}");
    bench.apply(HALVES);
    assert_eq!(listed(&bench).matches("MIG 3g.40gb").count(), 2);
    bench.rolled_back();
    assert_eq!(listed(&bench), before, "the same UUIDs");
}

#[test]
fn success_without_effect_is_noticed() {
    // The mode.
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "ignored"]);
    bench
        .refused(HALVES)
        .says("MIG mode is Disabled (after a reset Disabled), expected Enabled")
        .says("rolled back");
    assert_eq!(modes(&bench), "Disabled, Disabled\n");
    // The instances.
    let bench = Bench::new("{gpus: [{product: H100-80GB, mig: true}], driver: 590.48.01}")
        .expect("ssh is there");
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "ignored"]);
    bench
        .refused(HALVES)
        .says("the MIG layout is []")
        .says("rolled back");
    assert_eq!(listed(&bench).matches("MIG ").count(), 0);
    bench.apply(HALVES);
    bench.settled();
}

#[test]
fn published_names_are_found_under_the_drivers_own() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 610.43.03}") else {
        return;
    };
    bench.want(FOUR);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "renamed"]);
    bench.apply(FOUR).says("the driver calls 3g.40gb 3g.41gb");
    let list = listed(&bench);
    assert!(
        list.contains("MIG 3g.41gb") && !list.contains("40gb"),
        "{list}"
    );
    bench.settled();
    // The driver's own names are as good.
    bench.want("strategy: mig, mig: {profiles: [3g.41gb, 2g.21gb, 1g.11gb, 1g.11gb]}");
    bench
        .deploy(&["gpu", "--yes"])
        .expect(1)
        .says("no model has a profile `3g.41gb`");
    bench.reboot();
    assert_eq!(listed(&bench), list, "the same UUIDs");
}

#[test]
fn slices_stay_where_the_cdi_specification_cannot_be_written() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "cdi-stale"]);
    bench
        .apply(HALVES)
        .says("nvidia-cdi-refresh.service could not be restarted; the CDI specification is stale");
    assert_eq!(listed(&bench).matches("MIG 3g.40gb").count(), 2);
    bench.settled();
}

#[test]
fn without_rights_nothing_is_taken_for_an_empty_card() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    bench.apply(HALVES);
    let before = listed(&bench);
    bench.broken(&["nvidia", "not-root"]);
    bench.refused(FOUR).says("permission");
    bench.mended();
    assert_eq!(listed(&bench), before);
    // A card that has its mode still to be switched.
    let bench = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}").expect("ssh is there");
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "not-root"]);
    bench.refused(HALVES).says("Insufficient Permissions");
    assert_eq!(modes(&bench), "Disabled, Disabled\n");
}

#[test]
fn a_card_that_lacks_what_mig_needs_is_told_so() {
    let Some(bench) = Bench::new("{gpus: [RTX-PRO-6000-96GB], driver: 580.65.06}") else {
        return;
    };
    let halves = "strategy: mig, mig: {profiles: [2g.48gb, 2g.48gb]}";
    bench.want(halves);
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["nvidia", "no-mig"]);
    bench
        .refused(halves)
        .says("offers no MIG")
        .says("MIG may need another driver, vBIOS or display mode");
    // What it can do all the same.
    bench.apply("strategy: time-slicing, time_slicing: {slice_duration: short}");
    bench.mended();
    bench.apply(halves);
    bench.settled();
}

#[test]
fn the_kubelet_is_not_stopped_unasked() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    // It runs, and has no card open: nobody asks after it, whatever is forced.
    let kubelet = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n";
    bench.want(HALVES);
    bench.deploy(&["discover"]).expect(0);
    bench.ssh(&format!(
        "printf '{kubelet}' >\"$R\"/etc/systemd/system/kubelet.service; systemctl start kubelet"
    ));
    let since = "systemctl show -p ActiveEnterTimestampMonotonic kubelet.service";
    let before = bench.ssh(since);
    bench
        .deploy(&["gpu", "--yes", "-e", FORCE])
        .expect(0)
        .says("changed=1");
    assert_eq!(
        bench.ssh(since),
        before,
        "it was neither stopped nor started"
    );
    // It has the card open: without leave nothing is touched.
    bench.broken(&[
        "in-use",
        "--command",
        "kubelet",
        "--unit",
        "kubelet.service",
    ]);
    bench.refused(FOUR).says("unit kubelet.service");
    assert_eq!(bench.ssh(since), before);
}

const FORCE: &str = r#"{"containers_gpu_state_management": {"apply_strategy": "force"}}"#;

const HGX_A100: &str =
    "{gpus: [{product: A100-80GB, count: 2}], nvswitch: true, driver: 535.183.01}";

#[test]
fn a_reset_needs_the_fabric_manager_on_a_board_with_nvswitches() {
    let Some(bench) = Bench::new(HGX_A100) else {
        return;
    };
    let first = "gpus: [{match: {index: 0}, strategy: mig, mig: {profiles: [3g.40gb, 3g.40gb]}}]";
    bench.want(first);
    bench.deploy(&["discover"]).expect(0);
    bench.ssh("systemctl stop nvidia-fabricmanager");
    bench
        .refused(first)
        .says("nvidia-fabricmanager.service does not run")
        .says("rolled back");
    assert_eq!(modes(&bench), "Disabled, Disabled\nDisabled, Disabled\n");
    bench.ssh("systemctl start nvidia-fabricmanager");
    bench.apply(first);
    assert_eq!(modes(&bench), "Enabled, Enabled\nDisabled, Disabled\n");
    bench.settled();
}

#[test]
fn the_fabric_manager_runs_again_after_mig_mode_is_off() {
    let sim = "{gpus: [{product: B200-180GB, count: 2}], nvswitch: true, driver: 590.48.01}";
    let Some(bench) = Bench::new(sim) else {
        return;
    };
    bench.apply("strategy: mig, mig: {profiles: [3g.90gb]}");
    bench.ssh("systemctl stop nvidia-fabricmanager");
    bench.apply("strategy: none");
    let state = bench.ssh("systemctl is-active nvidia-fabricmanager");
    assert_eq!(state, "active\n");
    assert_eq!(modes(&bench), "Disabled, Disabled\nDisabled, Disabled\n");
}

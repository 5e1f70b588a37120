//! What goes wrong with AMD's and Intel's cards, virtual functions, vGPUs and passthrough, in the
//! order of the list that the simulated hosts were written from, and the test that shows what
//! `deploy` says then and that nothing was lost.

use crate::failures::{self, Cause::Fault, Cause::Host, Cause::Written, Row};
use crate::technology::Bench;

#[rustfmt::skip]
const FAILURES: &[Row] = &[
    (1, "sriov_numvfs answers EBUSY",
        Fault(&["numvfs-busy"]),
        &["technology_sriov_intel::a_write_that_the_kernel_refuses_loses_nothing"]),
    (2, "ENOENT: the driver knows nothing of virtual functions",
        Fault(&["no-vf-callback"]),
        &["technology_sriov_intel::a_write_that_the_kernel_refuses_loses_nothing"]),
    (3, "fewer virtual functions than asked for, reported as success",
        Fault(&["vfs-at-most", "2"]),
        &["technology_sriov_intel::a_write_that_the_kernel_refuses_loses_nothing"]),
    (3, "firmware under gim that allows one virtual function",
        Fault(&["amd", "one-function"]),
        &["technology_sriov_gim::firmware_with_one_function_refuses_more"]),
    (4, "users block the reload of amdgpu",
        Fault(&["amd", "reload-blocked"]),
        &["technology_partition::a_reload_that_users_block_is_undone"]),
    (4, "the card is busy, whoever uses it is not to be seen",
        Fault(&["amd", "busy"]),
        &["technology_partition::a_driver_that_is_busy_for_no_visible_reason_changes_nothing", "technology_sriov_gim::what_the_tool_refuses_is_said_in_its_words_and_undone"]),
    (5, "the firmware refuses a memory mode",
        Fault(&["amd", "memory-refused"]),
        &["technology_partition::a_memory_mode_that_the_firmware_refuses_is_undone"]),
    (5, "a compute mode is taken without effect",
        Fault(&["amd", "compute-ignored"]),
        &["technology_partition::a_mode_that_is_taken_without_effect_is_a_failure"]),
    (6, "somebody else holds the lock of sriov-manage",
        Fault(&["unbind-lock-busy", "2"]),
        &["technology_vgpu::the_drivers_lock_is_waited_for_and_its_lack_undoes_nothing_more"]),
    (7, "a virtual machine has a virtual function",
        Fault(&["in-use", "--node", "/dev/vfio/40", "--command", "qemu-system-x86"]),
        &["technology_sriov_intel::a_function_in_use_keeps_all_of_the_card_as_it_is", "technology_sriov_gim::a_function_in_use_is_not_taken_away"]),
    (7, "a virtual machine has a vGPU",
        Written("`sim break vgpu-in-use` on a vGPU that was made"),
        &["technology_vgpu::mediated_devices_keep_their_uuids_and_the_busy_one_is_not_touched"]),
    (8, "the state of all cards is lost with the boot",
        Fault(&["power"]),
        &["technology_partition::a_compute_mode_alone_changes_one_card_and_leaves_the_other", "technology_sriov_gim::a_card_without_modes_takes_any_number_up_to_its_most",
          "technology_sriov_intel::an_arc_pro_has_functions_with_shares_and_everything_brings_them_back"]),
    (8, "the state at boot cannot be brought back",
        Fault(&["numvfs-busy"]),
        &["amd_intel_failures::slices_that_a_boot_cannot_bring_back_are_told_and_come_with_the_next_run"]),
    (9, "the firmware offers no IOMMU",
        Fault(&["no-iommu"]),
        &["technology_passthrough::what_must_stay_on_the_host_is_named_and_nothing_is_touched", "technology_sriov_intel::functions_for_virtual_machines_need_an_iommu"]),
    (9, "the IOMMU is off",
        Host("cmdline: quiet"),
        &["technology_passthrough::an_iommu_that_is_off_takes_a_restart_with_leave"]),
    (10, "the IOMMU group holds what must stay",
        Fault(&["shared-group", "0000:17:00.0"]),
        &["technology_passthrough::what_must_stay_on_the_host_is_named_and_nothing_is_touched"]),
    (11, "63 of 64 render nodes: the driver ast has one",
        Host("kernel: 6.8.0-85-generic"),
        &["technology_partition::sixty_four_partitions_want_a_render_node_each"]),
];

#[test]
fn every_case_has_its_cause_and_its_test() {
    failures::hold(FAILURES, 11, "gpus: [{product: A100-80GB}]");
}

#[test]
fn slices_that_a_boot_cannot_bring_back_are_told_and_come_with_the_next_run() {
    let Some(bench) = Bench::new("{gpus: [Arc-Pro-B60], kernel: 7.0.2-generic}") else {
        return;
    };
    let pf = "$R/sys/bus/pci/devices/0000:17:00.0";
    let three = "strategy: sriov, sriov: {vf_count: 3}";
    bench.apply(three);
    bench.broken(&["numvfs-busy"]);
    bench.reboot();
    assert_eq!(bench.ssh(&format!("cat {pf}/sriov_numvfs")), "0\n");
    let unit = bench.over_ssh("systemctl is-failed deploy-gpu.service");
    assert_eq!(unit.out, "failed\n", "{}", unit.all());
    let said = bench.ssh("journalctl -q --no-pager -u deploy-gpu.service");
    assert!(
        said.contains("sriov_numvfs: Device or resource busy"),
        "{said}"
    );
    // What is wanted still stands there, and a run says what is missing without losing it.
    let kept = bench.file("/etc/deploy/gpu/sriov.conf");
    assert!(kept.contains("sriov 0000:17:00.0 3"), "{kept}");
    bench.deploy(&["gpu", "--check"]).expect(2);
    bench
        .refused(three)
        .says("sriov_numvfs: Device or resource busy");
    assert_eq!(bench.file("/etc/deploy/gpu/sriov.conf"), kept);
    bench.mended();
    bench.apply(three);
    assert_eq!(bench.ssh(&format!("cat {pf}/sriov_numvfs")), "3\n");
    bench.settled();
}

//! SR-IOV on Intel's cards, from the inventory to the vendor's own tool: applied, read back,
//! settled, booted, changed and rolled back; and each way in which it fails.

use crate::technology::Bench;

/// The card, as a shell of the host reaches it.
const PF: &str = "$R/sys/bus/pci/devices/0000:17:00.0";

/// A host with an Arc Pro B60 under a kernel that takes all shares.
fn arc(more: &str) -> Option<Bench> {
    Bench::new(&format!(
        "{{gpus: [Arc-Pro-B60], kernel: 7.0.2-generic{more}}}"
    ))
}

/// Memory of the virtual functions as `xpu-smi` lists them.
fn listed(bench: &Bench) -> Vec<String> {
    let text = bench.ssh("xpu-smi vgpu -d 0 -l");
    let blocks = text.split("Function Type: virtual").skip(1);
    let memory = |block: &str| {
        let line = block.split("Memory Physical Size: ").nth(1);
        let size = line.and_then(|line| line.split(" MiB").next());
        size.expect("a size").to_owned()
    };
    blocks.map(memory).collect()
}

fn sriov(keys: &str) -> String {
    format!("strategy: sriov, sriov: {{{keys}}}")
}

#[test]
fn an_arc_pro_has_functions_with_shares_and_everything_brings_them_back() {
    let Some(bench) = arc("") else { return };
    let four = sriov(
        "vf_count: 4, vram_quota_mib: 4096, exec_quantum_ms: 20, preempt_timeout_us: 20000, \
         sched_priority: normal, drivers_autoprobe: false",
    );
    bench
        .apply(&four)
        .says("4 virtual functions of 4096 MiB, turns of 20 ms");
    let as_wanted = |bench: &Bench| {
        assert_eq!(listed(bench), ["4096.00"; 4]);
        let seen = bench.ssh(&format!(
            "cat {PF}/sriov_admin/vf4/profile/exec_quantum_ms {PF}/sriov_admin/vf4/profile/preempt_timeout_us \
             {PF}/sriov_admin/vf1/profile/sched_priority"
        ));
        assert_eq!(
            seen.split_whitespace().collect::<Vec<_>>()[..5],
            ["20", "20000", "low", "[normal]", "high"]
        );
        assert!(
            !bench.has("/sys/bus/pci/devices/0000:17:00.0/virtfn0/driver"),
            "for instances that take free functions"
        );
    };
    as_wanted(&bench);
    bench.settled();

    bench.reboot();
    as_wanted(&bench);
    bench.settled();

    bench.apply(&sriov(
        "vf_count: 2, vram_quota_mib: 8192, drivers_autoprobe: false",
    ));
    assert_eq!(listed(&bench), ["8192.00"; 2]);
    bench.deploy(&["rollback", "--yes"]).expect(0);
    as_wanted(&bench);

    bench.apply("strategy: none");
    assert_eq!(listed(&bench), [""; 0]);
    assert!(!bench.has("/etc/deploy/gpu/sriov.conf"));
}

#[test]
fn turns_change_while_functions_are_in_use_and_memory_does_not() {
    let Some(bench) = arc("") else { return };
    bench.apply(&sriov(
        "vf_count: 2, vram_quota_mib: 4096, exec_quantum_ms: 20",
    ));
    // The functions are bound to xe and have nodes of their own.
    bench.broken(&[
        "in-use",
        "--node",
        "/dev/dri/renderD129",
        "--command",
        "qemu-system-x86",
    ]);
    bench
        .apply(&sriov(
            "vf_count: 2, vram_quota_mib: 4096, exec_quantum_ms: 40",
        ))
        .says("set the 2 virtual functions");
    assert_eq!(
        bench.ssh(&format!("cat {PF}/sriov_admin/vf2/profile/exec_quantum_ms")),
        "40\n"
    );
    let refused = bench.refused(&sriov(
        "vf_count: 2, vram_quota_mib: 8192, exec_quantum_ms: 40",
    ));
    refused.says("in use by pid").says("qemu-system-x86");
    assert_eq!(listed(&bench), ["4096.00"; 2]);
    assert_eq!(
        bench.ssh(&format!("cat {PF}/sriov_admin/vf2/profile/exec_quantum_ms")),
        "40\n"
    );
}

#[test]
fn equal_slices_write_nothing_but_the_number() {
    for sim in [
        "{gpus: [Flex-170]}",
        "{gpus: [Arc-Pro-B60], kernel: 7.0.2}",
        "{gpus: [Arc-Pro-B70], kernel: 6.17.9}",
    ] {
        let Some(bench) = Bench::new(sim) else { return };
        bench
            .apply(&sriov("vf_count: 3"))
            .says("divides the card evenly");
        let shares = listed(&bench);
        assert_eq!(shares.len(), 3);
        assert!(
            shares
                .iter()
                .all(|share| *share == shares[0] && share != "0.00"),
            "{shares:?}"
        );
        bench.settled();
        bench.reboot();
        assert_eq!(listed(&bench), shares);
        bench.settled();
        if sim.contains("Flex") {
            let auto = bench.ssh(&format!("cat {PF}/drm/card*/iov/pf/auto_provisioning"));
            assert_eq!(auto, "1\n");
        }
    }
}

#[test]
fn a_flex_takes_quotas_and_gives_them_back() {
    let Some(bench) = Bench::new("{gpus: [Flex-170]}") else {
        return;
    };
    let iov = format!("{PF}/drm/card*/iov");
    bench.apply(&sriov(
        "vf_count: 2, vram_quota_mib: 4096, exec_quantum_ms: 16",
    ));
    let as_wanted = |bench: &Bench| {
        assert_eq!(listed(bench), ["4096.00"; 2]);
        let seen = bench.ssh(&format!(
            "cd {iov} && cat pf/auto_provisioning vf2/gt/exec_quantum_ms vf2/gt/contexts_quota vf2/gt/doorbells_quota vf2/gt/ggtt_quota"
        ));
        // As the vendor's profile for two functions has them.
        assert_eq!(seen, "0\n16\n1024\n120\n2013265920\n");
    };
    as_wanted(&bench);
    bench.settled();
    bench.reboot();
    as_wanted(&bench);

    bench.apply(&sriov("vf_count: 3"));
    assert_eq!(bench.ssh(&format!("cat {iov}/pf/auto_provisioning")), "1\n");
    assert_eq!(listed(&bench).len(), 3);
    bench.deploy(&["rollback", "--yes"]).expect(0);
    as_wanted(&bench);

    bench.apply("strategy: none");
    let left = bench.ssh(&format!(
        "cd {iov} && cat pf/auto_provisioning vf1/gt/lmem_quota"
    ));
    assert_eq!(left, "1\n0\n");
}

#[test]
fn a_max_spreads_functions_over_its_tiles() {
    let Some(bench) = Bench::new("{gpus: [Max-1550]}") else {
        return;
    };
    bench.apply(&sriov("vf_count: 4, vram_quota_mib: 8192"));
    let quotas = bench.ssh(&format!("cd {PF}/drm/card*/iov && cat vf1/gt0/lmem_quota vf1/gt1/lmem_quota vf2/gt0/lmem_quota vf2/gt1/lmem_quota"));
    assert_eq!(
        quotas, "0\n8589934592\n8589934592\n0\n",
        "each on one tile, in turn"
    );
    assert_eq!(listed(&bench), ["8192.00"; 4]);
    bench.settled();
    bench.reboot();
    assert_eq!(listed(&bench), ["8192.00"; 4]);
    bench.apply(&sriov("vf_count: 1, vram_quota_mib: 8192"));
    let quotas = bench.ssh(&format!(
        "cd {PF}/drm/card*/iov && cat vf1/gt0/lmem_quota vf1/gt1/lmem_quota"
    ));
    assert_eq!(quotas, "4294967296\n4294967296\n", "a single one on both");
    bench
        .refused(&sriov("vf_count: 3"))
        .says("Max-1550 has no 3 virtual functions")
        .says("1, 2, 4");
    bench
        .refused(&sriov("vf_count: 2, sched_priority: normal"))
        .says("`iov` of this driver takes no `sched_priority`");
}

#[test]
fn an_older_kernel_takes_shares_by_debugfs_and_6_19_takes_no_memory() {
    let Some(bench) = Bench::new("{gpus: [Arc-Pro-B50], kernel: 6.17.9}") else {
        return;
    };
    bench
        .apply(&sriov("vf_count: 2, vram_quota_mib: 2048"))
        .says("by debugfs only");
    assert_eq!(listed(&bench), ["2048.00"; 2]);
    bench.settled();
    bench.reboot();
    assert_eq!(listed(&bench), ["2048.00"; 2]);
    let Some(bench) = Bench::new("{gpus: [Arc-Pro-B50], kernel: 6.19.1}") else {
        return;
    };
    bench
        .refused(&sriov("vf_count: 2, vram_quota_mib: 2048"))
        .says("`sriov_admin` of this driver takes no `vram_quota_mib`")
        .says("since Linux 7.0");
}

#[test]
fn what_no_card_can_do_is_said_with_what_it_can() {
    let Some(bench) = Bench::new("{gpus: [Arc-B580]}") else {
        return;
    };
    bench
        .refused(&sriov("vf_count: 2"))
        .says("Arc-B580) has no sriov")
        .says("it has level-zero, passthrough and none");
    let offline = |slicing: &str| {
        bench.want(slicing);
        bench.deploy(&["gpu", "--yes"]).expect(1)
    };
    offline("strategy: none, gpus: [{match: {model: Arc-B580}, strategy: sriov}]")
        .says("Arc-B580 has no sriov");
    offline("strategy: none, gpus: [{match: {model: Arc-Pro-B70}, strategy: sriov, sriov: {vf_count: 13}}]")
        .says("Arc-Pro-B70 has at most 12");
    offline("strategy: none, gpus: [{match: {model: Arc-Pro-B50}, strategy: sriov, sriov: {vf_count: 4, vram_quota_mib: 8192}}]")
        .says("need 32768 MiB")
        .says("Arc-Pro-B50 has 16128 MiB for them, 4032 MiB each");
    let Some(bench) = Bench::new("{gpus: [MI300X]}") else {
        return;
    };
    bench.refused(&sriov("vf_count: 1, exec_quantum_ms: 5"));
}

#[test]
fn a_driver_without_its_firmware_says_what_is_missing() {
    let Some(bench) = Bench::new("{gpus: [{product: Arc-Pro-B60, guc: false}], kernel: 7.0.2}")
    else {
        return;
    };
    bench
        .refused(&sriov("vf_count: 2"))
        .says("`sriov_totalvfs` is 0")
        .says("GuC");
    let Some(bench) = Bench::new("{gpus: [{product: Flex-170, guc: false}]}") else {
        return;
    };
    bench
        .refused(&sriov("vf_count: 2"))
        .says("i915 of Linux itself makes no virtual functions");
}

/// The functions and their shares, and all that deploy keeps.
fn everything(bench: &Bench) -> String {
    bench.ssh(&format!(
        "cd {PF} && cat sriov_numvfs sriov_drivers_autoprobe && ls -d virtfn* 2>/dev/null; \
         cat sriov_admin/vf?/profile/* 2>/dev/null; cat $R/etc/deploy/gpu/*.conf 2>/dev/null; true"
    ))
}

#[test]
fn a_write_that_the_kernel_refuses_loses_nothing() {
    for (fault, said) in [
        (&["numvfs-busy"][..], "sriov_numvfs did not take"),
        (&["no-vf-callback"], "sriov_numvfs did not take"),
        (&["vfs-at-most", "2"], "expected 4"),
    ] {
        let Some(bench) = arc("") else { return };
        bench.apply(&sriov("vf_count: 1, vram_quota_mib: 1024"));
        let before = everything(&bench);
        bench.broken(fault);
        let refused = bench.refused(&sriov("vf_count: 4, vram_quota_mib: 2048"));
        refused.says(said);
        assert_eq!(everything(&bench), before, "{fault:?}");
    }
}

#[test]
fn a_function_in_use_keeps_all_of_the_card_as_it_is() {
    let Some(bench) = arc("") else { return };
    bench.apply(&sriov("vf_count: 2"));
    bench.ssh(&format!(
        "modprobe vfio_pci; echo vfio-pci | tee {PF}/virtfn1/driver_override; echo 0000:17:00.2 | tee {PF}/virtfn1/driver/unbind; \
         echo 0000:17:00.2 | tee $R/sys/bus/pci/drivers_probe"
    ));
    let group = bench.ssh(&format!("basename $(readlink {PF}/virtfn1/iommu_group)"));
    let node = format!("/dev/vfio/{}", group.trim());
    let vm = [
        "in-use",
        "--node",
        &node,
        "--command",
        "qemu-system-x86",
        "--unit",
        "vm-7.service",
    ];
    bench.broken(&vm);
    let before = everything(&bench);
    bench
        .refused(&sriov("vf_count: 4"))
        .says("qemu-system-x86")
        .says("vm-7.service");
    assert_eq!(everything(&bench), before);
}

#[test]
fn functions_that_somebody_else_made_are_replaced() {
    let Some(bench) = Bench::new("{gpus: [Flex-170]}") else {
        return;
    };
    bench.want("strategy: none");
    bench.deploy(&["discover"]).expect(0);
    bench.ssh("xpu-smi vgpu -d 0 -c -n 3 --lmem 1000");
    // The vendor's tool refuses on such a card.
    let theirs = bench.ssh("xpu-smi vgpu -d 0 -c -n 2 --lmem 1000; true");
    assert!(theirs.contains("dirty PF"), "{theirs}");
    bench.apply(&sriov("vf_count: 2, vram_quota_mib: 2048"));
    assert_eq!(listed(&bench), ["2048.00"; 2]);
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(listed(&bench), ["1000.00"; 3]);
}

#[test]
fn a_processor_of_another_maker_does_not_matter() {
    let Some(bench) = arc(", processor: amd") else {
        return;
    };
    bench.apply(&sriov("vf_count: 2"));
    let checked = bench.ssh("xpu-smi vgpu --precheck");
    assert!(
        checked.contains("No VMX flag"),
        "the vendor's check fails here: {checked}"
    );
    assert_eq!(listed(&bench).len(), 2);
}

#[test]
fn functions_for_virtual_machines_are_bound_now_and_at_boot() {
    let Some(bench) = arc("") else { return };
    let drivers = |bench: &Bench| {
        let shown = bench.ssh("lspci -nnk -d 8086:");
        let mut drivers: Vec<String> = shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Kernel driver in use: "))
            .map(str::to_owned)
            .collect();
        drivers.sort();
        drivers.join(" ")
    };
    bench
        .apply(&sriov("vf_count: 3, driver: vfio-pci"))
        .says("bind the virtual functions of GPU")
        .says("they are for virtual machines");
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci vfio-pci xe");
    bench.settled();
    bench.reboot();
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci vfio-pci xe");
    bench.settled();

    bench.apply(&sriov("vf_count: 2, driver: vfio-pci"));
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci xe");
    bench.settled();
    bench.rolled_back();
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci vfio-pci xe");
    bench.settled_for(&sriov("vf_count: 3, driver: vfio-pci"));

    // One that a machine has stays, and so do the others.
    let one = bench.ssh(&format!(
        "basename \"$(readlink {PF}/virtfn1)\"; basename \"$(readlink {PF}/virtfn1/iommu_group)\""
    ));
    let group = one.lines().nth(1).expect("a group").to_owned();
    let node = format!("/dev/vfio/{group}");
    bench.broken(&["in-use", "--node", &node, "--command", "qemu-system-x86"]);
    bench.refused("strategy: none").says("qemu-system-x86");
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci vfio-pci xe");
    bench.mended();
    bench.apply("strategy: none");
    assert_eq!(drivers(&bench), "xe");
    bench.settled();
    bench.rolled_back();
    assert_eq!(drivers(&bench), "vfio-pci vfio-pci vfio-pci xe");

    bench
        .refused(&sriov(
            "vf_count: 3, driver: vfio-pci, drivers_autoprobe: true",
        ))
        .says("contradict each other");
}

#[test]
fn functions_for_virtual_machines_need_an_iommu() {
    let Some(bench) = arc("") else { return };
    bench.want("strategy: none");
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&["no-iommu"]);
    bench
        .refused(&sriov("vf_count: 3, driver: vfio-pci"))
        .says("the IOMMU is off");
}

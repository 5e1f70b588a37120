//! Level Zero: masks as environment for containers and units, and the compute engines of tiles.

use crate::technology::Bench;

/// The card, as a shell of the host reaches it.
const PF: &str = "$R/sys/bus/pci/devices/0000:17:00.0";
const FOLDER: &str = "/etc/deploy/gpu/level_zero";
const DROP_IN: &str = "/etc/systemd/system/ollama.service.d/50-deploy-level-zero.conf";

fn level_zero(keys: &str) -> String {
    format!("strategy: level-zero, level_zero: {{{keys}}}")
}

fn engines(bench: &Bench) -> String {
    let text = bench.ssh(&format!(
        "cat {PF}/drm/card*/gt/gt*/ccs_mode {PF}/tile*/gt*/ccs_mode 2>/dev/null; true"
    ));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn masks_and_engines_are_set_and_everything_brings_them_back() {
    let Some(bench) = Bench::new("{gpus: [Max-1550]}") else {
        return;
    };
    let halves = level_zero(
        "ccs_mode: 4, partitions: [{name: left, mask: '0.0', units: [ollama.service]}, \
         {name: right, mask: '0.1', ccs: '0:2'}]",
    );
    bench
        .apply(&halves)
        .says("4 compute engines")
        .says("hints: they isolate nothing");
    let as_wanted = |bench: &Bench| {
        assert_eq!(engines(bench), "4 4");
        let left = bench.ssh(&format!("grep -v '^#' $R{FOLDER}/left.env"));
        assert_eq!(
            left,
            "ZE_FLAT_DEVICE_HIERARCHY=COMPOSITE\nZE_AFFINITY_MASK=0.0\n"
        );
        let right = bench.ssh(&format!("grep -v '^#' $R{FOLDER}/right.env"));
        assert!(
            right.ends_with("ZE_AFFINITY_MASK=0.1\nZEX_NUMBER_OF_CCS=0:2\n"),
            "{right}"
        );
        assert!(
            bench
                .file(DROP_IN)
                .ends_with(&format!("[Service]\nEnvironmentFile={FOLDER}/left.env\n"))
        );
    };
    as_wanted(&bench);
    bench.settled();
    bench.reboot();
    as_wanted(&bench);
    bench.settled();

    bench.apply(&level_zero(
        "ccs_mode: 2, partitions: [{name: all, mask: '0'}]",
    ));
    assert_eq!(engines(&bench), "2 2");
    assert!(
        bench
            .file(&format!("{FOLDER}/all.env"))
            .contains("ZE_FLAT_DEVICE_HIERARCHY=FLAT")
    );
    assert!(!bench.has(&format!("{FOLDER}/left.env")) && !bench.has(DROP_IN));
    bench.deploy(&["rollback", "--yes"]).expect(0);
    as_wanted(&bench);

    bench.apply("strategy: none");
    assert_eq!(engines(&bench), "1 1");
    assert!(!bench.has(FOLDER) && !bench.has(DROP_IN));
}

#[test]
fn the_seeds_form_is_a_list_of_masks() {
    let Some(bench) = Bench::new("{gpus: [{product: Flex-170, count: 2}]}") else {
        return;
    };
    bench
        .apply("strategy: level-zero, level_zero: {enabled: true, partitions: []}")
        .says("nothing is set");
    bench.apply(&level_zero("enabled: true, partitions: ['0', 1]"));
    assert!(
        bench
            .file(&format!("{FOLDER}/p0.env"))
            .ends_with("ZE_AFFINITY_MASK=0\n")
    );
    assert!(
        bench
            .file(&format!("{FOLDER}/p1.env"))
            .ends_with("ZE_AFFINITY_MASK=1\n")
    );
    bench.settled();
    bench
        .refused(&level_zero("partitions: ['0', '2']"))
        .says("names `2`, which is not there")
        .says("this host has 2 tiles");
    bench
        .refused(&level_zero("partitions: ['1.1']"))
        .says("card 1 has 1 tiles");
}

#[test]
fn mistakes_in_masks_are_found_before_any_connection() {
    let Some(bench) = Bench::new("{gpus: [Flex-170]}") else {
        return;
    };
    for (keys, said) in [
        ("partitions: ['0;1']", "`0;1` is no mask"),
        (
            "hierarchy: flat, partitions: ['0.1']",
            "the hierarchy is flat",
        ),
        (
            "partitions: [{name: a/b, mask: '0'}]",
            "no name for a partition",
        ),
        (
            "partitions: [{name: a, mask: '0'}, {name: a, mask: '0'}]",
            "two partitions are named `a`",
        ),
        (
            "partitions: [{mask: '0', ccs: '3'}]",
            "no number of compute engines",
        ),
        (
            "partitions: [{mask: '0', units: [ollama]}]",
            "no systemd service",
        ),
        ("partitions: [{name: a}]", "or a mapping with `mask`"),
    ] {
        bench.want(&level_zero(keys));
        bench
            .deploy(&["gpu", "--yes"])
            .expect(1)
            .says(said)
            .says("hosts.yml:");
    }
}

#[test]
fn a_card_in_use_keeps_its_engines_and_its_holder_is_named() {
    let Some(bench) = Bench::new("{gpus: [Max-1550]}") else {
        return;
    };
    bench.want("strategy: none");
    bench.deploy(&["discover"]).expect(0);
    bench.broken(&[
        "in-use",
        "--node",
        "/dev/dri/renderD128",
        "--command",
        "ollama",
        "--unit",
        "ollama.service",
    ]);
    bench
        .refused(&level_zero("ccs_mode: 4"))
        .says("in use by pid")
        .says("ollama.service");
    assert_eq!(engines(&bench), "1 1");
    // The driver says the same to anybody who asks it.
    let theirs = bench.ssh(&format!(
        "echo 4 | tee {PF}/drm/card*/gt/gt0/ccs_mode 2>&1; true"
    ));
    assert!(theirs.contains("Device or resource busy"), "{theirs}");
}

#[test]
fn engines_that_a_card_cannot_have_are_refused_with_those_it_can() {
    let Some(bench) = Bench::new("{gpus: [Arc-A770], kernel: 7.0.2}") else {
        return;
    };
    bench
        .refused(&level_zero("ccs_mode: 3"))
        .says("`ccs_mode` 3 does not divide its 4 compute slices")
        .says("it can be 1, 2, 4");
    bench.apply(&level_zero("ccs_mode: 2"));
    assert_eq!(engines(&bench), "2");
    let theirs = bench.ssh(&format!("echo 3 | tee {PF}/tile0/gt0/ccs_mode 2>&1; true"));
    assert!(theirs.contains("Invalid argument"), "{theirs}");

    let Some(bench) = Bench::new("{gpus: [Arc-Pro-B60], kernel: 7.0.2}") else {
        return;
    };
    bench
        .refused(&level_zero("ccs_mode: 2"))
        .says("while xe runs as an SR-IOV physical function")
        .says("strategy: sriov");
}

#[test]
fn virtual_functions_go_before_a_card_is_masked() {
    let Some(bench) = Bench::new("{gpus: [Max-1100]}") else {
        return;
    };
    bench.apply("strategy: sriov, sriov: {vf_count: 2, vram_quota_mib: 2048}");
    bench.apply(&level_zero("ccs_mode: 4, partitions: ['0']"));
    assert_eq!(engines(&bench), "4");
    assert_eq!(bench.ssh(&format!("cat {PF}/sriov_numvfs")), "0\n");
    assert!(!bench.has("/etc/deploy/gpu/sriov.conf"));
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(engines(&bench), "1");
    assert_eq!(bench.ssh(&format!("cat {PF}/sriov_numvfs")), "2\n");

    // And the engines go before there are functions again.
    bench.apply(&level_zero("ccs_mode: 4"));
    bench.apply("strategy: sriov, sriov: {vf_count: 3}");
    assert_eq!(engines(&bench), "1");
    assert_eq!(bench.ssh(&format!("cat {PF}/sriov_numvfs")), "3\n");
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(engines(&bench), "4");
}

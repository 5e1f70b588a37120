//! MIG, from the inventory to the vendor's own tool: applied, read back, settled, booted with the
//! same UUIDs, changed and rolled back.

use crate::technology::Bench;

/// `nvidia-smi -L` over plain ssh.
fn listed(bench: &Bench) -> String {
    bench.ssh("nvidia-smi -L")
}

/// The names of the MIG devices. A long one leaves no blank before the next column.
fn names(list: &str) -> Vec<&str> {
    let devices = list
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("MIG "));
    devices
        .filter_map(|line| line.split("Device").next().map(str::trim))
        .collect()
}

/// From one layout to another and back, with a reboot in between.
fn goes_round(sim: &str, first: (&str, &[&str]), second: (&str, &[&str])) {
    let Some(bench) = Bench::new(sim) else { return };
    bench.apply(&format!("strategy: mig, mig: {{{}}}", first.0));
    let list = listed(&bench);
    let mut have = names(&list);
    have.sort_unstable();
    assert_eq!(have, first.1, "{list}");
    bench.settled();
    bench.reboot();
    assert_eq!(listed(&bench), list, "the same UUIDs after a reboot");
    bench.settled();

    bench.apply(&format!("strategy: mig, mig: {{{}}}", second.0));
    let other = listed(&bench);
    let mut have = names(&other);
    have.sort_unstable();
    assert_eq!(have, second.1, "{other}");
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(listed(&bench), list, "the same UUIDs after a rollback");
}

#[test]
fn compute_instances_of_unequal_size() {
    goes_round(
        "{gpus: [H200-141GB], driver: 590.48.01}",
        (
            "profiles: [3g.71gb, 2g.35gb, 1g.18gb], compute_instances: {3g.71gb: [2c, 1c]}",
            &["1c.3g.71gb", "1g.18gb", "2c.3g.71gb", "2g.35gb"],
        ),
        (
            "profiles: [3g.71gb, 2g.35gb, 1g.18gb], compute_instances: {3g.71gb: [1c, 1c]}",
            &["1c.3g.71gb", "1c.3g.71gb", "1g.18gb", "2g.35gb"],
        ),
    );
}

#[test]
fn a100_goes_from_layout_to_layout_and_back() {
    goes_round(
        "{gpus: [A100-40GB], driver: 535.183.01}",
        (
            "profiles: [3g.20gb, 2g.10gb, 1g.5gb, 1g.5gb]",
            &["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"],
        ),
        ("profiles: [7g.40gb]", &["7g.40gb"]),
    );
}

#[test]
fn a30_goes_from_layout_to_layout_and_back() {
    goes_round(
        "{gpus: [A30-24GB], driver: 535.183.01}",
        (
            "profiles: [2g.12gb, 1g.6gb, 1g.6gb]",
            &["1g.6gb", "1g.6gb", "2g.12gb"],
        ),
        ("profiles: [4g.24gb]", &["4g.24gb"]),
    );
}

#[test]
fn h100_goes_from_layout_to_layout_and_back() {
    goes_round(
        "{gpus: [H100-80GB], driver: 590.48.01}",
        (
            "profiles: [1g.10gb], gpu_instance_count: 7",
            &["1g.10gb"; 7],
        ),
        (
            "profiles: [4g.40gb, 2g.20gb, 1g.10gb+me]",
            &["1g.10gb+me", "2g.20gb", "4g.40gb"],
        ),
    );
}

#[test]
fn gh200_and_b200_go_from_layout_to_layout_and_back() {
    goes_round(
        "{gpus: [GH200-144GB], driver: 590.48.01}",
        (
            "profiles: [3g.72gb, 2g.36gb, 2g.36gb]",
            &["2g.36gb", "2g.36gb", "3g.72gb"],
        ),
        ("profiles: [7g.144gb]", &["7g.144gb"]),
    );
    goes_round(
        "{gpus: [B200-180GB], driver: 590.48.01}",
        ("profiles: [4g.90gb, 3g.90gb]", &["3g.90gb", "4g.90gb"]),
        (
            "profiles: [1g.45gb], gpu_instance_count: 4",
            &["1g.45gb"; 4],
        ),
    );
}

#[test]
fn rtx_pro_6000_has_graphics_and_media_instances() {
    goes_round(
        "{gpus: [RTX-PRO-6000-96GB], driver: 595.80}",
        (
            "profiles: [2g.48gb+gfx, 1g.24gb+me, 1g.24gb]",
            &["1g.24gb", "1g.24gb+me", "2g.48gb+gfx"],
        ),
        (
            "profiles: [1g.24gb-me, 1g.24gb+me.all]",
            &["1g.24gb+me.all", "1g.24gb-me"],
        ),
    );
}

#[test]
fn more_compute_slices_than_there_are_is_said_before_anything_is_done() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB]}") else {
        return;
    };
    bench.want("strategy: mig, mig: {profiles: [3g.40gb], compute_instances: {3g.40gb: [2c, 2c]}}");
    bench
        .deploy(&["gpu", "--yes"])
        .expect(1)
        .says("`compute_instances` gives 3g.40gb 4 compute slices, and it has 3");
}

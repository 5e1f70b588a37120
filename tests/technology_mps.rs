//! MPS, from the inventory to the control program: applied, read back, settled, booted, changed
//! and rolled back, on whole cards and on MIG devices; and each way in which it fails.

use crate::technology::Bench;

/// What the control daemon of a device answers to a command, over plain ssh.
fn control(bench: &Bench, device: &str, command: &str) -> String {
    let said = bench.ssh(&format!(
        "echo {command} | CUDA_MPS_PIPE_DIRECTORY=/run/deploy/mps/{device} nvidia-cuda-mps-control"
    ));
    said.trim_end().to_owned()
}

const PERCENTAGE: &str = "get_default_active_thread_percentage";
const LIMIT: &str = "get_default_device_pinned_mem_limit 0";

/// The UUIDs of the cards or, with `MIG `, of the MIG devices.
fn uuids(bench: &Bench, of: &str) -> Vec<String> {
    let text = bench.ssh("nvidia-smi -L");
    let lines = text
        .lines()
        .filter(|line| line.trim_start().starts_with(of));
    let uuid = |line: &str| {
        let uuid = line.split("UUID: ").nth(1).expect("a UUID");
        uuid.trim_end_matches(')').to_owned()
    };
    lines.map(uuid).collect()
}

fn compute_mode(bench: &Bench) -> String {
    bench.ssh("nvidia-smi --query-gpu=compute_mode --format=csv,noheader")
}

fn mps(keys: &str) -> String {
    format!("strategy: mps, mps: {{{keys}}}")
}

#[test]
fn a_whole_card_is_shared_by_clients_and_everything_brings_that_back() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01}") else {
        return;
    };
    bench
        .apply(&mps("active_thread_percentage: 25, memory_limit: 9000M"))
        .says("start MPS on GPU 0")
        .says("MPS isolates no faults");
    let card = &uuids(&bench, "GPU ")[0];
    let as_wanted = || {
        assert_eq!(control(&bench, card, PERCENTAGE), "25.0");
        // The driver tells whole GiB.
        assert_eq!(control(&bench, card, LIMIT), "8G");
        assert_eq!(compute_mode(&bench), "Exclusive_Process\n");
    };
    as_wanted();
    bench.settled();

    bench.reboot();
    as_wanted();
    bench.settled();

    // Each of ten clients gets its tenth.
    bench.apply(&mps("max_clients: 10"));
    assert_eq!(control(&bench, card, PERCENTAGE), "10.0");
    assert_eq!(control(&bench, card, LIMIT), "4G");
    bench.settled();
    bench.deploy(&["rollback", "--yes"]).expect(0);
    as_wanted();

    bench.apply("strategy: none").says("end MPS on GPU 0");
    assert!(!bench.has(&format!("/run/deploy/mps/{card}")));
    assert!(!bench.has("/etc/deploy/gpu/mps.conf"));
    assert_eq!(compute_mode(&bench), "Default\n");
    bench.settled();
}

#[test]
fn each_mig_device_has_a_daemon_of_its_own() {
    let Some(bench) = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}") else {
        return;
    };
    let slices = |profiles: &str, percentage: u32| {
        format!(
            "strategy: mig, mig: {{profiles: [{profiles}]}}, \
             mps: {{enabled: true, active_thread_percentage: {percentage}}}"
        )
    };
    bench.apply(&slices("3g.40gb, 3g.40gb", 50));
    let devices = uuids(&bench, "MIG ");
    assert_eq!(devices.len(), 2);
    let as_wanted = || {
        assert_eq!(uuids(&bench, "MIG "), devices);
        for device in &devices {
            assert_eq!(control(&bench, device, PERCENTAGE), "50.0");
        }
        // A card in MIG mode takes no other.
        assert_eq!(compute_mode(&bench), "Default\n");
    };
    as_wanted();
    bench.settled();
    bench.reboot();
    as_wanted();
    bench.settled();

    // A server of the daemon holds its device: the daemon goes before the layout does.
    control(&bench, &devices[0], "start_server -uid 0");
    bench.apply(&slices("7g.80gb", 20));
    let whole = uuids(&bench, "MIG ");
    assert_eq!(control(&bench, &whole[0], PERCENTAGE), "20.0");
    assert!(!bench.has(&format!("/run/deploy/mps/{}", devices[0])));
    bench.deploy(&["rollback", "--yes"]).expect(0);
    as_wanted();

    // From MIG devices to the whole card, and back.
    bench.apply(&mps("active_thread_percentage: 30"));
    let card = &uuids(&bench, "GPU ")[0];
    assert_eq!(control(&bench, card, PERCENTAGE), "30.0");
    assert_eq!(compute_mode(&bench), "Exclusive_Process\n");
    bench.settled();
    bench.apply(&slices("3g.40gb, 3g.40gb", 50));
    as_wanted();
}

#[test]
fn a_daemon_with_clients_is_not_touched() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01}") else {
        return;
    };
    bench.apply(&mps("active_thread_percentage: 25"));
    let card = &uuids(&bench, "GPU ")[0];
    // The server alone is no user: whoever uses the card through it has it open too.
    control(&bench, card, "start_server -uid 0");
    bench.apply(&mps("active_thread_percentage: 40"));
    assert_eq!(control(&bench, card, PERCENTAGE), "40.0");

    bench.broken(&["in-use", "--command", "python3", "--unit", "train.service"]);
    bench
        .refused(&mps("active_thread_percentage: 50"))
        .says("is in use by pid")
        .says("python3, unit train.service");
    bench.refused("strategy: none").says("train.service");
    assert_eq!(control(&bench, card, PERCENTAGE), "40.0");
    assert_eq!(compute_mode(&bench), "Exclusive_Process\n");
}

#[test]
fn a_daemon_that_died_is_started_again() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01}") else {
        return;
    };
    bench.apply(&mps("active_thread_percentage: 25"));
    let card = &uuids(&bench, "GPU ")[0];
    bench.ssh(&format!(
        "systemctl kill --signal=KILL deploy-mps-{card}.service"
    ));
    // Its sockets are still there, and say nothing.
    assert!(bench.has(&format!("/run/deploy/mps/{card}/control")));
    bench.deploy(&["gpu", "--check"]).expect(2).says("MPS: off");
    bench.deploy(&["gpu", "--yes"]).expect(0).says("start MPS");
    assert_eq!(control(&bench, card, PERCENTAGE), "25.0");
    bench.settled();
}

#[test]
fn settings_that_somebody_changed_are_put_back() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01}") else {
        return;
    };
    bench.apply(&mps("active_thread_percentage: 25, memory_limit: 4G"));
    let card = &uuids(&bench, "GPU ")[0];
    control(&bench, card, "set_default_active_thread_percentage 90");
    bench
        .deploy(&["gpu", "--yes", "--diff"])
        .expect(0)
        .says("90 % of the threads");
    assert_eq!(control(&bench, card, PERCENTAGE), "25.0");
    control(&bench, card, "set_default_device_pinned_mem_limit 0 7G");
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    assert_eq!(control(&bench, card, LIMIT), "4G");
    bench.settled();
}

#[test]
fn what_cannot_be_is_said_before_anything_is_done() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01}") else {
        return;
    };
    let wrong = |slicing: &str| {
        bench.want(slicing);
        bench.deploy(&["gpu", "--yes"]).expect(1)
    };
    wrong(&mps("active_thread_percentage: 0")).says("a whole number from 1 to 100");
    wrong(&mps("memory_limit: 8")).says("`8G` or `512M`");
    wrong(&mps("max_clients: 49")).says("from 2 to 48");
    wrong("strategy: time-slicing, mps: {enabled: true}").says("contradicts `mps.enabled: true`");
    wrong("strategy: mps, gpus: [{match: {vendor: amd}, strategy: mps}]").says("has mps");
    bench
        .refused(&mps("memory_limit: 64G"))
        .says("`mps.memory_limit` is 65536 MiB");
    assert!(!bench.has("/run/deploy/mps"));
}

#[test]
fn hosts_without_systemd_have_daemons_too() {
    let Some(bench) = Bench::new("{gpus: [L40S], driver: 590.48.01, systemd: false}") else {
        return;
    };
    bench.apply(&mps("active_thread_percentage: 25"));
    let card = &uuids(&bench, "GPU ")[0];
    assert_eq!(control(&bench, card, PERCENTAGE), "25.0");
    bench.settled();
    bench.apply("strategy: none");
    assert!(!bench.has(&format!("/run/deploy/mps/{card}")));
}

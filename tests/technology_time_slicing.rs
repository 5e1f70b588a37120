//! Time-slicing, from the inventory to the vendor's own tool: applied, read back, settled, booted,
//! changed and rolled back; and each way in which it fails.

use crate::technology::Bench;

const TWO_L40S: &str = "{gpus: [{product: L40S, count: 2}], driver: 590.48.01}";

fn turns(keys: &str) -> String {
    format!("strategy: time-slicing, time_slicing: {{{keys}}}")
}

/// The time slice of each card in the vendor's own words, over plain ssh.
fn slices(bench: &Bench) -> Vec<String> {
    let said = bench.ssh("nvidia-smi compute-policy -l");
    let rows = said.lines().filter(|line| line.contains("Timeslice"));
    let last = |line: &str| {
        let words = line.trim_end_matches('|').split_whitespace();
        words.last().unwrap_or_default().to_owned()
    };
    rows.map(last).collect()
}

/// How many containers may share a card, as the device plugin reads it.
fn replicas(bench: &Bench) -> Option<String> {
    let file = bench.file("/etc/deploy/gpu/time_slicing.yaml");
    let line = file
        .lines()
        .find_map(|line| line.trim().strip_prefix("replicas: "));
    line.map(str::to_owned)
}

#[test]
fn cards_are_shared_in_turns_and_everything_brings_that_back() {
    let Some(bench) = Bench::new(TWO_L40S) else {
        return;
    };
    bench
        .apply(&turns("slice_duration: short, max_instance_count: 4"))
        .says("set the time slice of GPU 0")
        .says("time-slicing isolates neither memory nor faults");
    let as_wanted = || {
        assert_eq!(slices(&bench), ["Short", "Short"]);
        assert_eq!(replicas(&bench).as_deref(), Some("4"));
    };
    as_wanted();
    bench.settled();

    bench.reboot();
    as_wanted();
    bench.settled();
    bench.broken(&["power"]);
    as_wanted();
    bench.settled();

    bench
        .apply(&turns("slice_duration: 5ms, max_instance_count: 10"))
        .says("the driver knows no time slice of 5 ms, only short, medium and long; medium is set");
    assert_eq!(slices(&bench), ["Medium", "Medium"]);
    assert_eq!(replicas(&bench).as_deref(), Some("10"));
    bench.settled();
    bench.rolled_back();
    as_wanted();

    bench.apply("strategy: none");
    assert_eq!(slices(&bench), ["Default", "Default"]);
    assert!(!bench.has("/etc/deploy/gpu/time_slicing.conf"));
    bench.settled();
}

#[test]
fn a_card_goes_from_mig_to_turns_and_back_by_rollback() {
    let Some(bench) = Bench::new("{gpus: [A100-80GB], driver: 535.183.01}") else {
        return;
    };
    bench.apply("strategy: mig, mig: {profiles: [3g.40gb, 3g.40gb]}");
    let list = bench.ssh("nvidia-smi -L");
    bench.apply(&turns("slice_duration: long"));
    assert_eq!(slices(&bench), ["Long"]);
    assert!(!bench.ssh("nvidia-smi -L").contains("MIG"));
    bench.settled();
    bench.rolled_back();
    assert_eq!(bench.ssh("nvidia-smi -L"), list, "the same UUIDs");
    assert_eq!(slices(&bench), ["Default"]);
}

/// Cards of one host may take turns of different length, but not be shared by different numbers.
#[test]
fn each_card_may_have_its_own_turns_and_all_have_one_number() {
    let Some(bench) = Bench::new(TWO_L40S) else {
        return;
    };
    let each = |second: &str| {
        format!(
            "{}, gpus: [{{match: {{index: 1}}, strategy: time-slicing, time_slicing: {{{second}}}}}]",
            turns("slice_duration: short, max_instance_count: 4")
        )
    };
    bench.apply(&each("slice_duration: long, max_instance_count: 4"));
    assert_eq!(slices(&bench), ["Short", "Long"]);
    bench.settled();
    bench
        .refused(&each("slice_duration: long, max_instance_count: 8"))
        .says("the device plugin has one number for all cards of a host");
    assert_eq!(slices(&bench), ["Short", "Long"], "nothing was changed");
}

#[test]
fn a_time_slice_without_effect_is_noticed_and_taken_back() {
    let Some(bench) = Bench::new(TWO_L40S) else {
        return;
    };
    bench.apply(&turns("slice_duration: medium"));
    bench.broken(&["nvidia", "ignored"]);
    bench
        .refused(&turns("slice_duration: short"))
        .says("the time slice is Medium, expected Short")
        .says("rolled back");
    assert_eq!(slices(&bench), ["Medium", "Medium"]);
}

/// What the device plugin would refuse, or the driver cannot do, is told before connecting.
#[test]
fn what_cannot_be_had_is_told_before_connecting() {
    let Some(bench) = Bench::new(TWO_L40S) else {
        return;
    };
    for (keys, said) in [
        ("max_instance_count: 1", "from 2 to"),
        (
            "share_policy: weighted",
            "the driver gives every process the same turns",
        ),
        (
            "slice_duration: 100",
            "a time with its unit such as `100ms`",
        ),
        ("replicas: 4", "unknown key `replicas`"),
    ] {
        bench.want(&turns(keys));
        bench.deploy(&["gpu", "--yes"]).expect(1).says(said);
    }
    assert!(!bench.was_reached());
}

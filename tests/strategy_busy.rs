//! Changing a MIG layout of which some instances are in use: those stay where both layouts
//! have them, and whoever is in the way is named.

use std::fs;

use deploy::facts::{Fact, Gpu};
use deploy::step::Class;
use serde_json::json;

use crate::strategy::{calls, card, held, host, planned, refused, sliced, slicing, titles};
use crate::technology::Bench;

/// Somebody works on the instances with these ids.
fn working(gpu: Gpu, instances: &[u32]) -> Gpu {
    let mut gpu = held(gpu, "python3");
    if let Fact::Known(holders) = &mut gpu.holders {
        holders[0].instances = instances.to_vec();
    }
    gpu
}

#[test]
fn of_equal_instances_the_one_in_use_stays() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["1g.10gb", "3g.40gb"]}}));
    let layout = [
        ("1g.10gb", 0),
        ("1g.10gb", 1),
        ("1g.10gb", 2),
        ("1g.10gb", 3),
    ];
    for busy in [1_u32, 2, 3, 4] {
        let gpu = working(sliced(card(0, "H100-80GB"), &layout), &[busy]);
        let steps = planned(&desired, &host(vec![gpu]));
        assert_eq!(steps.len(), 1, "{:?}", titles(&steps));
        assert_eq!(steps[0].class, Class::Disruptive);
        let kept = format!("19:{}:1/full", busy - 1);
        assert_eq!(
            calls(&steps[0].apply)[0],
            format!("mig_ensure GPU-0 9:4:4/full {kept}")
        );
        // The host is asked for those that go, not for the one that stays.
        let asked = &calls(&steps[0].check)[1];
        assert!(
            asked.starts_with("mig_idle 0000:10:00.0 GPU-0 '19:") && !asked.contains(&kept),
            "{asked}"
        );
    }
}

#[test]
fn an_instance_in_use_that_must_go_is_named_with_who_must_move() {
    let mut gpu = sliced(card(0, "H100-80GB"), &[("3g.40gb", 4), ("1g.10gb", 0)]);
    let state = crate::strategy::mig(&mut gpu);
    if let Fact::Known(instances) = &mut state.instances
        && let Fact::Known(compute) = &mut instances[0].compute
    {
        compute[0].uuid = Fact::Known("MIG-1".to_owned());
    }
    let wish = slicing(json!({"strategy": "mig", "mig": {"profiles": ["4g.40gb", "1g.10gb"]}}));
    let said = refused(&wish, &host(vec![working(gpu.clone(), &[1])]));
    assert!(
        said.contains(
            "is in use by pid 4711 (python3, unit train.service) on 3g.40gb (MIG-1); it is not touched"
        ),
        "{said}"
    );
    // Whoever has the card as a whole may use any of it.
    let said = refused(&wish, &host(vec![working(gpu.clone(), &[])]));
    assert!(
        said.contains("unit train.service); it is not touched"),
        "{said}"
    );
    // A change of mode takes everything.
    let none = slicing(json!({"strategy": "none"}));
    assert!(refused(&none, &host(vec![working(gpu, &[2])])).contains("on 1g.10gb"));
}

#[test]
fn totals_of_a_host_are_spread_around_what_is_in_use() {
    let request = slicing(json!({"strategy": "mig", "request": {"1g.10gb": 1}}));
    let free = sliced(card(0, "H100-80GB"), &[("1g.10gb", 0)]);
    let busy = working(sliced(card(1, "H100-80GB"), &[("1g.10gb", 3)]), &[1]);
    let steps = planned(&request, &host(vec![free, busy]));
    assert!(
        steps.iter().all(|step| step.title.contains("GPU 0 ")),
        "{:?}",
        titles(&steps)
    );
}

/// The node of an instance of the host's first card, by its id.
fn node(bench: &Bench, gi: &str) -> String {
    let path = format!("proc/driver/nvidia/capabilities/gpu0/mig/gi{gi}/access");
    let text = fs::read_to_string(bench.root().join(path)).expect("the instance exists");
    let minor = text.lines().next().and_then(|line| line.split(": ").nth(1));
    format!("/dev/nvidia-caps/nvidia-cap{}", minor.expect("a number"))
}

/// Id of the GPU instance at a place of the first card, as `-lgi` prints it.
fn instance_at(bench: &Bench, place: &str) -> String {
    let listed = bench.ssh("nvidia-smi mig -i 0 -lgi");
    let line = listed.lines().find(|line| line.contains(place));
    let line = line.unwrap_or_else(|| panic!("no instance at {place}: {listed}"));
    let mut words: Vec<&str> = line
        .split_whitespace()
        .filter(|word| *word != "|")
        .collect();
    words.pop();
    words.pop().expect("an id").to_owned()
}

#[test]
fn on_a_host_a_busy_instance_stays_and_one_in_the_way_stops_the_change() {
    let Some(bench) = Bench::new("{gpus: [{product: H100-80GB}]}") else {
        return;
    };
    bench.apply("strategy: mig, mig: {profiles: [3g.40gb, 1g.10gb, 1g.10gb, 1g.10gb]}");
    let busy = instance_at(&bench, "1:1");
    bench.broken(&[
        "in-use",
        "--node",
        &node(&bench, &busy),
        "--command",
        "python3",
        "--unit",
        "train.service",
    ]);
    let uuids = |bench: &Bench| -> Vec<String> {
        let listed = bench.ssh("nvidia-smi -L");
        let lines = listed.lines().filter(|line| line.contains("MIG "));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    let before = uuids(&bench);

    // Both layouts have a 1g.10gb: the busy one is it, and the free ones make room.
    bench.apply("strategy: mig, mig: {profiles: [3g.40gb, 2g.20gb, 1g.10gb]}");
    bench.settled();
    assert_eq!(instance_at(&bench, "1:1"), busy);
    let after = uuids(&bench);
    let uuid = |line: &String| line.split("UUID: ").nth(1).map(str::to_owned);
    let known: Vec<_> = before.iter().filter_map(uuid).collect();
    let stayed = after
        .iter()
        .filter_map(uuid)
        .filter(|uuid| known.contains(uuid));
    assert_eq!(stayed.count(), 2, "{before:?} {after:?}");

    // Undone, it still stays; and a layout without it is refused, with nothing lost.
    let said = bench.refused("strategy: mig, mig: {profiles: [7g.80gb]}");
    let said = said.says("unit train.service) on 1g.10gb (MIG-");
    said.says("it is not touched");
    assert_eq!(uuids(&bench), after);
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(instance_at(&bench, "1:1"), busy);
}

//! Strategies and the loss of power, on simulated hosts: an undo brings back what a boot took
//! away, a mode that only a reboot changes gets one, and a step's check notices whatever
//! moved behind the planner's back.

use std::collections::BTreeSet;

use deploy::desired::{self, Desired};
use deploy::error::Origin;
use deploy::facts::{Fact, Gpu, HostFacts, MigMode};
use deploy::shell::{Command, Script};
use deploy::sim::{Fault, break_host};
use deploy::step::{Change, Step};
use deploy::strategy::{self, Boot};
use deploy::transport::Session;
use deploy::value::Node;
use serde_json::{Value as Json, json};

use crate::strategy_sim::{Machine, carry_out, run, slicing, state, well};

/// What the cards are, down to the UUIDs of their MIG devices.
fn exact(facts: &HostFacts) -> (Vec<Json>, Vec<String>) {
    let devices = |gpu: &Gpu| -> Vec<String> {
        let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
        let instances = mig.and_then(|mig| mig.instances.known().cloned());
        let rows = instances.unwrap_or_default();
        let mut rows: Vec<String> = rows.iter().map(|gi| format!("{gi:?}")).collect();
        rows.sort();
        rows
    };
    (state(facts), facts.gpus.iter().flat_map(devices).collect())
}

fn is_mode(change: &Change) -> bool {
    matches!(change, Change::Setting { name, .. } if name == "MIG mode")
}

async fn look(machine: &Machine) -> (Box<dyn Session>, HostFacts) {
    machine.look().await
}

fn boot(machine: &Machine) {
    break_host(&machine.root(), &Fault::Reboot).expect("the host boots");
}

/// From a first to a second layout, stopped after each number of steps by a loss of power,
/// and undone.
async fn power_fails_after_each_step(sim: Json, first: Json, second: Json) {
    let machine = Machine::new(sim).await;
    let (mut session, facts) = look(&machine).await;
    let start = machine.plan(&slicing(first), &facts);
    carry_out(&mut session, &start).await;
    let wanted = slicing(second);
    let (_, before) = look(&machine).await;
    let count = machine.plan(&wanted, &before).len();
    assert!(count > 0, "{before:?}");
    for made in 0..=count {
        let (mut session, now) = look(&machine).await;
        assert_eq!(exact(&now), exact(&before), "before {made} of {count}");
        let steps = machine.plan(&wanted, &now);
        for step in &steps {
            well(&mut session, "check", &step.check).await;
            well(&mut session, "snapshot", &keeping(&step.snapshot)).await;
        }
        for step in steps.iter().take(made) {
            well(&mut session, "apply", &step.apply).await;
        }
        drop(session);
        boot(&machine);
        let (mut session, _) = look(&machine).await;
        // The steps that were not begun are not undone; but one more may have been.
        for step in steps.iter().take((made + 1).min(count)).rev() {
            let undo = kept(&step.undo);
            well(&mut session, "undo", &undo).await;
            well(&mut session, "undo twice", &undo).await;
        }
        if made < count {
            // What no step touched is as the boot left it, and is not this run's.
            for step in &start {
                well(&mut session, "bring back", &step.apply).await;
            }
        }
        for step in &steps {
            well(&mut session, "check after the undo", &step.check).await;
        }
        let (_, undone) = look(&machine).await;
        assert_eq!(exact(&undone), exact(&before), "after {made} of {count}");
    }
}

/// The run directory of these tests lies in `/tmp`, which a boot empties; the real one does not.
fn keeping(snapshot: &Script) -> Script {
    snapshot.clone().then(
        Command::new("sh")
            .args(["-c", "rm -rf \"$1\" && cp -R \"$2\" \"$1\"", "sh"])
            .path("/var/kept")
            .path("/tmp/run/snapshot"),
    )
}

fn kept(undo: &Script) -> Script {
    let mut script = Script::one(
        Command::new("sh")
            .args(["-c", "cp -R \"$1\"/. \"$2\"", "sh"])
            .path("/var/kept")
            .path("/tmp/run/snapshot"),
    );
    script.0.extend(undo.0.iter().cloned());
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_after_a_loss_of_power_brings_hopper_back_to_the_uuid() {
    let balanced = json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]}});
    let sim = json!({"gpus": ["H100-80GB"], "driver": "590.48.01"});
    for second in [
        json!({"strategy": "mig", "mig": {"profiles": ["1g.10gb"], "gpu_instance_count": 7}}),
        json!({"strategy": "none"}),
        json!({"strategy": "time-slicing", "time_slicing": {"slice_duration": "long"}}),
    ] {
        power_fails_after_each_step(sim.clone(), balanced.clone(), second).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_after_a_loss_of_power_brings_ampere_turns_and_functions_back() {
    power_fails_after_each_step(
        json!({"gpus": ["A100-40GB"], "driver": "535.183.01"}),
        json!({"strategy": "mig", "mig": {"profiles": ["3g.20gb", "1g.5gb", "1g.5gb"]}}),
        json!({"strategy": "none"}),
    )
    .await;
    power_fails_after_each_step(
        json!({"gpus": ["L40S"], "driver": "590.48.01"}),
        json!({"strategy": "time-slicing", "time_slicing": {"slice_duration": "long"}}),
        json!({"strategy": "time-slicing", "time_slicing": {"slice_duration": "short"}}),
    )
    .await;
    power_fails_after_each_step(
        json!({"gpus": ["Flex-170"]}),
        json!({"strategy": "sriov", "sriov": {"vf_count": 4, "drivers_autoprobe": false}}),
        json!({"strategy": "sriov", "sriov": {"vf_count": 2}}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_after_a_loss_of_power_brings_shares_of_functions_back() {
    let shares = json!({"strategy": "sriov", "sriov": {
        "vf_count": 2, "vram_quota_mib": 4096, "exec_quantum_ms": 16, "preempt_timeout_us": 32000}});
    power_fails_after_each_step(
        json!({"gpus": ["Flex-170"]}),
        shares.clone(),
        json!({"strategy": "sriov", "sriov": {"vf_count": 3}}),
    )
    .await;
    power_fails_after_each_step(
        json!({"gpus": ["Arc-Pro-B60"], "kernel": "7.0.2"}),
        json!({"strategy": "sriov", "sriov": {"vf_count": 4, "sched_priority": "normal"}}),
        shares,
    )
    .await;
    power_fails_after_each_step(
        json!({"gpus": ["Max-1550"]}),
        json!({"strategy": "level-zero", "level_zero": {"ccs_mode": 4}}),
        json!({"strategy": "level-zero", "level_zero": {"ccs_mode": 2, "partitions": ["0.1"]}}),
    )
    .await;
}

fn allowed(facts: &HostFacts, machine: &Machine, wanted: &Desired) -> Vec<Step> {
    let decisions = strategy::decide(wanted, facts, &machine.catalog).expect("decided");
    let boot = Boot {
        allowed: true,
        before: false,
    };
    let steps = strategy::steps(&decisions, facts, wanted, boot);
    steps.unwrap_or_else(|problems| panic!("{problems}"))
}

fn mode_of(facts: &HostFacts) -> (MigMode, MigMode) {
    match &facts.gpus[0].nvidia {
        Fact::Known(nvidia) => {
            let mig = nvidia.mig.known().expect("MIG");
            (mig.current, mig.pending)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_no_reset_changes_gets_a_reboot_and_another_one_undoes_it() {
    // As in a virtual machine.
    let card = json!({"product": "A100-40GB", "reset": "unsupported"});
    let machine = Machine::new(json!({"gpus": [card], "driver": "535.183.01"})).await;
    let wanted = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.20gb"]}}));
    let (mut session, before) = look(&machine).await;
    let decisions = strategy::decide(&wanted, &before, &machine.catalog).expect("decided");
    let refused = strategy::steps(&decisions, &before, &wanted, Boot::default());
    let refused = refused.expect_err("no leave").to_string();
    assert!(refused.contains("--allow-reboot"), "{refused}");

    let steps = allowed(&before, &machine, &wanted);
    let at = steps
        .iter()
        .position(|step| matches!(step.change, Change::Reboot { .. }))
        .expect("a reboot");
    let (prepare, after) = (&steps[..at], &steps[at + 1..]);
    for step in &steps {
        well(&mut session, "check", &step.check).await;
        well(&mut session, "snapshot", &keeping(&step.snapshot)).await;
    }
    // Undone before the reboot, nothing is left.
    carry_out(&mut session, prepare).await;
    let (_, now) = look(&machine).await;
    assert_eq!(mode_of(&now), (MigMode::Disabled, MigMode::Enabled));
    well(&mut session, "undo", &prepare[0].undo).await;
    let (_, now) = look(&machine).await;
    assert_eq!(exact(&now), exact(&before));
    assert_eq!(mode_of(&now), (MigMode::Disabled, MigMode::Disabled));

    // Made, restarted, gone on with: all is as wanted, and each step still reads back.
    carry_out(&mut session, prepare).await;
    drop(session);
    boot(&machine);
    let (mut session, _) = look(&machine).await;
    for step in after {
        well(&mut session, "apply", &step.apply).await;
        well(&mut session, "verify", &step.verify).await;
    }
    for step in &steps {
        well(&mut session, "verify again", &step.verify).await;
    }
    let (_, now) = look(&machine).await;
    assert_eq!(allowed(&now, &machine, &wanted), []);

    // Undone after the reboot, the instances go, the mode is set back, and one more reboot
    // is owed: the undo fails and says so.
    for step in after.iter().rev().filter(|step| !step.undo.is_empty()) {
        well(&mut session, "undo", &kept(&step.undo)).await;
    }
    for _ in 0..2 {
        let output = run(&mut session, &prepare[0].undo).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.success() && said.contains("becomes Disabled at the next reboot"),
            "{said}"
        );
    }
    drop(session);
    boot(&machine);
    let (mut session, _) = look(&machine).await;
    well(&mut session, "undo", &prepare[0].undo).await;
    let (_, now) = look(&machine).await;
    assert_eq!(exact(&now), exact(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_only_a_reboot_takes_away_comes_back_with_its_layout() {
    let card = json!({"product": "A100-40GB", "reset": "unsupported", "mig": true});
    let machine = Machine::new(json!({"gpus": [card], "driver": "535.183.01"})).await;
    let (mut session, facts) = look(&machine).await;
    let sliced = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.20gb", "1g.5gb"]}}));
    carry_out(&mut session, &machine.plan(&sliced, &facts)).await;
    let (_, before) = look(&machine).await;
    let wanted =
        slicing(json!({"strategy": "time-slicing", "time_slicing": {"slice_duration": "long"}}));
    let steps = allowed(&before, &machine, &wanted);
    let titles: Vec<&str> = steps.iter().map(|step| step.title.as_str()).collect();
    let at = steps
        .iter()
        .position(|step| matches!(step.change, Change::Reboot { .. }))
        .expect("a reboot");
    assert_eq!((at, steps.len()), (2, 5), "{titles:?}");
    for step in &steps {
        well(&mut session, "check", &step.check).await;
        well(&mut session, "snapshot", &keeping(&step.snapshot)).await;
    }
    // Undone before the reboot, all is as before down to the UUIDs.
    carry_out(&mut session, &steps[..at]).await;
    for step in steps[..at].iter().rev() {
        well(&mut session, "undo", &kept(&step.undo)).await;
    }
    let (_, now) = look(&machine).await;
    assert_eq!(exact(&now), exact(&before));

    carry_out(&mut session, &steps[..at]).await;
    drop(session);
    boot(&machine);
    let (mut session, _) = look(&machine).await;
    for step in &steps[at + 1..] {
        well(&mut session, "apply", &step.apply).await;
        well(&mut session, "verify", &step.verify).await;
    }
    let (_, now) = look(&machine).await;
    assert_eq!(allowed(&now, &machine, &wanted), []);

    // Undone after it: the time slice at once, mode and layout say what they wait for.
    let undoable: Vec<&Step> = steps.iter().filter(|step| !step.undo.is_empty()).collect();
    for step in undoable.iter().rev() {
        let output = run(&mut session, &kept(&step.undo)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let waits = is_mode(&step.change) || matches!(step.change, Change::Layout { .. });
        assert_eq!(output.success(), !waits, "{}: {said}", step.title);
        if waits {
            assert!(
                said.contains("becomes Enabled at the next reboot: restart the host"),
                "{}: {said}",
                step.title
            );
        }
        if matches!(step.change, Change::Layout { .. }) {
            assert!(
                said.contains("cannot be made again while MIG mode is off: 9:4:4/full"),
                "{said}"
            );
        }
    }
    drop(session);
    boot(&machine);
    let (mut session, _) = look(&machine).await;
    for step in undoable.iter().rev() {
        well(&mut session, "undo", &kept(&step.undo)).await;
    }
    let (_, now) = look(&machine).await;
    assert_eq!(exact(&now), exact(&before));
}

fn with_state(slicing: Json, state: Json) -> Desired {
    let vars = json!({
        "containers_gpu_slicing": slicing,
        "containers_gpu_state_management": state,
    });
    let origin = Origin::whole("vars.yml", vars.to_string());
    let node = Node::from_json(&vars, &origin);
    let map = node.as_map().expect("a mapping");
    let vars = map
        .iter()
        .map(|(name, entry)| (name.clone(), entry.node.clone()))
        .collect();
    let (desired, problems) = desired::read(&vars, &|_, _| Default::default());
    assert_eq!(problems.0, []);
    desired
}

/// A change of a card behind the planner's back, and a word that the check must say.
fn meddle(step: &Step, facts: &HostFacts) -> (Script, &'static str) {
    let uuid = |pci: &str| {
        let gpu = facts.gpus.iter().find(|gpu| gpu.pci.to_string() == pci);
        let nvidia = gpu.and_then(|gpu| gpu.nvidia.known());
        nvidia.map_or_else(String::new, |nvidia| nvidia.uuid.0.clone())
    };
    let id = &step.id.0;
    let pci: String = id.split(':').skip(1).take(3).collect::<Vec<_>>().join(":");
    let call =
        |words: &[&str]| Script::one(Command::new(words[0]).args(words[1..].iter().copied()));
    match &step.change {
        change if is_mode(change) => (call(&["mig_mode", &uuid(&pci), "1"]), "MIG mode is"),
        Change::Layout { .. } => (
            call(&["mig_mode", &uuid(&pci), "1"])
                .then(Command::new("mig_ensure").args([uuid(&pci).as_str(), "14:4:2/full"])),
            "the MIG layout is",
        ),
        Change::Setting { name, .. } if name == "time slice" => (
            call(&["timeslice_set", &uuid(&pci), "Medium"]),
            "the time slice is Medium",
        ),
        Change::Setting { name, .. } if name == "virtual functions" => {
            (call(&["sriov_set", &pci, "2", "-"]), "virtual functions")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_notices_what_moved_since_the_plan() {
    let sim = json!({
        "gpus": ["H100-80GB", "H100-80GB", "L40S", "Flex-170"], "driver": "590.48.01",
    });
    let first = json!({"strategy": "none", "gpus": [
        {"match": {"index": 1}, "strategy": "mig", "mig": {"profiles": ["3g.40gb"]}}]});
    let second = json!({"enabled": true, "strategy": "none", "gpus": [
        {"match": {"index": 0}, "strategy": "mig", "mig": {"profiles": ["3g.40gb"]}},
        {"match": {"index": 1}, "strategy": "mig", "mig": {"profiles": ["7g.80gb"]}},
        {"match": {"model": "L40S"}, "strategy": "time-slicing", "time_slicing": {"slice_duration": "long"}},
        {"match": {"vendor": "intel"}, "strategy": "sriov", "sriov": {"vf_count": 4}}]});
    let mut kinds = BTreeSet::new();
    let mut number = 0;
    loop {
        // Each on a machine of its own: what one meddles with must not help another.
        let machine = Machine::new(sim.clone()).await;
        let (mut session, facts) = look(&machine).await;
        let start = machine.plan(&slicing(first.clone()), &facts);
        carry_out(&mut session, &start).await;
        let (_, facts) = look(&machine).await;
        let steps = machine.plan(&with_state(second.clone(), json!({})), &facts);
        let Some(step) = steps.get(number) else {
            assert!(number >= 5, "{number}");
            break;
        };
        for step in &steps {
            well(&mut session, "check", &step.check).await;
        }
        let (script, said) = meddle(step, &facts);
        kinds.insert(said);
        well(&mut session, "meddle", &script).await;
        let output = run(&mut session, &step.check).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.success() && told.contains(said) && told.contains("GPU"),
            "{}: {told}",
            step.id
        );
        number += 1;
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

//! `strategy: auto` by what tenants need: which technology each card gets, and why.

use deploy::facts::{Fact, Gpu};
use deploy::strategy::{self, Decision};
use serde_json::{Value as Json, json};

use crate::strategy::{card, catalog, host, intel, mig, planned, refused, slicing, titles};

/// A card whose driver lists the memory that the catalog knows its profiles by.
fn listed(key: &str) -> Gpu {
    let mut gpu = card(0, key);
    let catalog = catalog();
    let rows = &catalog
        .by_key(key)
        .expect("a model")
        .mig
        .as_ref()
        .expect("it has MIG")
        .profiles;
    if let Fact::Known(profiles) = &mut mig(&mut gpu).profiles {
        for profile in profiles {
            let row = rows.iter().find(|row| row.id == Some(profile.id));
            let mib = row
                .expect("of the catalog")
                .memory_mib
                .expect("it is known");
            profile.memory_centi_gib = u32::try_from(mib * 100 / 1024).expect("a card's memory");
        }
    }
    gpu
}

fn auto(need: Json) -> deploy::desired::Desired {
    slicing(json!({"strategy": "auto", "auto": need}))
}

fn decided(need: Json, gpu: Gpu) -> Decision {
    let decisions = strategy::decide(&auto(need), &host(vec![gpu]), &catalog());
    let mut decisions = decisions.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(decisions.len(), 1);
    decisions.remove(0)
}

#[test]
fn memory_for_each_tenant_picks_the_smallest_profile_that_holds_it() {
    let need = json!({"isolation": "hardware", "tenants": 4, "memory_each": "9GB"});
    let decision = decided(need.clone(), listed("H100-80GB"));
    assert_eq!(decision.technology.name(), "mig");
    assert!(
        decision
            .why
            .starts_with("`auto` picked mig: 4 × 1g.10gb of ")
            && decision.why.ends_with("keep 4 tenants apart in hardware"),
        "{}",
        decision.why
    );
    assert_eq!(decision.notes[0], decision.why);
    let steps = planned(&auto(need), &host(vec![listed("H100-80GB")]));
    assert!(
        titles(&steps)[1].starts_with("create 4 MIG instances"),
        "{:?}",
        titles(&steps)
    );
}

#[test]
fn tenants_alone_get_the_largest_profile_of_which_there_are_enough() {
    let decision = decided(json!({"tenants": 2}), listed("H100-80GB"));
    assert!(decision.why.contains("2 × 3g.40gb"), "{}", decision.why);
    let decision = decided(json!({"tenants": 1}), listed("H100-80GB"));
    assert!(decision.why.contains("1 × 7g.80gb"), "{}", decision.why);
    let decision = decided(json!({"memory_each": "9GB"}), listed("H100-80GB"));
    assert!(decision.why.contains("7 × 1g.10gb"), "{}", decision.why);
}

#[test]
fn software_serves_where_hardware_cannot_and_the_plan_says_why() {
    let decision = decided(json!({"tenants": 3}), card(0, "L40S"));
    assert_eq!(decision.technology.name(), "time-slicing");
    assert!(
        decision
            .why
            .contains("3 tenants take turns on the whole card; not mig (L40S does not have it)"),
        "{}",
        decision.why
    );
    let gpu = host(vec![card(0, "L40S")]);
    let decision = strategy::decide(&auto(json!({"tenants": 3})), &gpu, &catalog());
    let decision = decision.expect("decided").remove(0);
    assert_eq!(decision.target.vars(&gpu.gpus[0])["replicas"], 3);
    // More than the card can isolate.
    let decision = decided(json!({"tenants": 9}), listed("H100-80GB"));
    assert!(
        decision
            .why
            .contains("not mig (at most 7 × 1g.10gb fit on it)"),
        "{}",
        decision.why
    );
}

#[test]
fn virtual_functions_serve_cards_that_have_them() {
    let decision = decided(json!({"isolation": "hardware", "tenants": 3}), intel(7, 0));
    assert_eq!(decision.technology.name(), "sriov");
    assert!(
        decision
            .why
            .ends_with("3 virtual functions keep 3 tenants apart in hardware"),
        "{}",
        decision.why
    );
    let desired = auto(json!({"isolation": "hardware", "tenants": 9}));
    let said = refused(&desired, &host(vec![intel(7, 0)]));
    assert!(
        said.contains("sriov (it has at most 7 virtual functions)"),
        "{said}"
    );
}

#[test]
fn what_nothing_can_give_names_what_the_card_can_do() {
    let said = |need: Json, gpu: Gpu| refused(&auto(need), &host(vec![gpu]));
    let hardware = said(
        json!({"isolation": "hardware", "tenants": 2}),
        card(0, "L40S"),
    );
    assert!(
        hardware.contains("what `auto` asks for, which is 2 tenants, isolated in hardware")
            && hardware.contains("L40S has ")
            && hardware.contains("time-slicing"),
        "{hardware}"
    );
    let large = said(
        json!({"isolation": "hardware", "tenants": 1, "memory_each": "200GB"}),
        listed("H100-80GB"),
    );
    assert!(
        large.contains("its largest instance, 7g.80gb, has "),
        "{large}"
    );
    let turns = said(
        json!({"isolation": "software", "tenants": 2, "memory_each": "60GB"}),
        listed("H100-80GB"),
    );
    assert!(turns.contains("time-slicing (the card has "), "{turns}");
}

#[test]
fn memory_for_each_is_bounded_by_mps_where_no_hardware_does_it() {
    let need = json!({"isolation": "software", "tenants": 3, "memory_each": "9GiB"});
    let decision = decided(need.clone(), card(0, "L40S"));
    assert_eq!(decision.technology.name(), "mps");
    assert!(
        decision
            .why
            .starts_with("`auto` picked mps: MPS bounds each of 3 tenants to 9.00 GiB of memory"),
        "{}",
        decision.why
    );
    assert!(
        decision
            .notes
            .iter()
            .any(|note| note.contains("isolates no faults")),
        "{:?}",
        decision.notes
    );
    let gpu = card(0, "L40S");
    assert_eq!(decision.target.vars(&gpu)["mps"]["memory_mib"], 9216);
    // Never for isolation.
    let hardware = json!({"isolation": "hardware", "tenants": 3, "memory_each": "9GiB"});
    let said = refused(&auto(hardware), &host(vec![card(0, "L40S")]));
    assert!(!said.contains("mps ("), "{said}");
    // Without memory to bound there is nothing that turns do not give.
    let turns = decided(
        json!({"isolation": "software", "tenants": 3}),
        card(0, "L40S"),
    );
    assert_eq!(turns.technology.name(), "time-slicing");
    assert!(
        turns
            .why
            .contains("not mps (it bounds the memory of each tenant"),
        "{}",
        turns.why
    );
}

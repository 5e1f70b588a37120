//! From variables and facts to decisions, refusals and steps, with the shipped catalog.

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::{self, Desired};
use deploy::error::{Origin, Problems};
use deploy::facts::{
    ComputeInstance, Fact, Gpu, GpuInstance, GpuUuid, Holder, HostFacts, MigMode, MigProfile,
    MigState, NvidiaGpu, Placement, Sriov, Vendor,
};
use deploy::step::{Change, Class, Step};
use deploy::strategy;
use deploy::value::Node;
use serde_json::{Value as Json, json};

pub(super) fn catalog() -> Catalog {
    Catalog::load(&Content::shipped()).expect("the shipped catalog is right")
}

fn wanted(vars: &Json) -> Desired {
    let origin = Origin::whole("vars.yml", vars.to_string());
    let node = Node::from_json(vars, &origin);
    let map = node.as_map().expect("a mapping");
    let vars = map
        .iter()
        .map(|(name, entry)| (name.clone(), entry.node.clone()))
        .collect();
    let (desired, problems) = desired::read(&vars, &|_, _| Default::default());
    assert_eq!(problems.0, []);
    desired
}

pub(super) fn slicing(mut slicing: Json) -> Desired {
    slicing["enabled"] = json!(true);
    wanted(&json!({ "containers_gpu_slicing": slicing }))
}

/// A card of the catalog's model, idle, with MIG off and nothing on it.
pub(super) fn card(index: u8, key: &str) -> Gpu {
    let catalog = catalog();
    let model = catalog.by_key(key).expect("a model of the catalog");
    let mig = model.mig.as_ref().map(|mig| MigState {
        current: MigMode::Disabled,
        pending: MigMode::Disabled,
        profiles: Fact::Known(
            mig.profiles
                .iter()
                .map(|profile| MigProfile {
                    id: profile.id.expect("an id"),
                    name: profile.name.clone(),
                    free: 0,
                    total: profile.max,
                    memory_centi_gib: 975,
                    sm: profile.sm.unwrap_or(16),
                    placements: Fact::Known(profile.placements.clone()),
                })
                .collect(),
        ),
        instances: Fact::Known(Vec::new()),
    });
    let nvidia = NvidiaGpu {
        index: u32::from(index),
        uuid: GpuUuid(format!("GPU-{index}")),
        name: model.name.clone(),
        memory_mib: Fact::from_option(model.memory_mib),
        compute_capability: Fact::Absent,
        persistence: Fact::Known(true),
        compute_mode: Fact::Known("Default".to_owned()),
        timeslice: Fact::Known("Default".to_owned()),
        mps: Fact::Absent,
        mig: Fact::from_option(mig),
    };
    Gpu {
        pci: format!("0000:{:02x}:00.0", 16 + index)
            .parse()
            .expect("an address"),
        vendor: model.vendor,
        device_id: model.device_ids[0].device,
        subsystem: Fact::Absent,
        class: 0x03_0200,
        model: Fact::Known(key.to_owned()),
        driver: Fact::Known("nvidia".to_owned()),
        iommu_group: Fact::Absent,
        numa_node: Fact::Absent,
        reset: Fact::Known(true),
        sriov: Fact::Absent,
        nvidia: if model.vendor == Vendor::Nvidia {
            Fact::Known(nvidia)
        } else {
            Fact::Absent
        },
        intel: Fact::Absent,
        vgpu: Fact::Absent,
        amd: Fact::Absent,
        holders: Fact::Known(Vec::new()),
    }
}

pub(super) fn mig(gpu: &mut Gpu) -> &mut MigState {
    let Fact::Known(nvidia) = &mut gpu.nvidia else {
        panic!("an NVIDIA card");
    };
    let Fact::Known(mig) = &mut nvidia.mig else {
        panic!("a card with MIG");
    };
    mig
}

/// The same card in MIG mode with instances of (profile name, start).
pub(super) fn sliced(mut gpu: Gpu, instances: &[(&str, u32)]) -> Gpu {
    let state = mig(&mut gpu);
    state.current = MigMode::Enabled;
    state.pending = MigMode::Enabled;
    let profiles = state.profiles.known().expect("listed").clone();
    let instances = instances.iter().zip(1..).map(|((name, start), gi_id)| {
        let profile = profiles
            .iter()
            .find(|profile| profile.name == *name)
            .expect("a profile");
        let places = profile.placements.known().expect("placements");
        GpuInstance {
            gi_id,
            profile_id: profile.id,
            profile: profile.name.clone(),
            placement: Placement {
                start: *start,
                size: places[0].size,
            },
            compute: Fact::Known(vec![ComputeInstance {
                ci_id: 0,
                profile_id: 0,
                profile: profile.name.clone(),
                uuid: Fact::Absent,
            }]),
        }
    });
    state.instances = Fact::Known(instances.collect());
    gpu
}

pub(super) fn host(gpus: Vec<Gpu>) -> HostFacts {
    HostFacts {
        gpus,
        ..HostFacts::default()
    }
}

pub(super) fn held(mut gpu: Gpu, command: &str) -> Gpu {
    gpu.holders = Fact::Known(vec![Holder {
        instances: Vec::new(),
        pid: 4711,
        command: command.to_owned(),
        unit: Fact::Known("train.service".to_owned()),
        container: Fact::Absent,
    }]);
    gpu
}

fn plan(desired: &Desired, facts: &HostFacts) -> Result<Vec<Step>, Problems> {
    let decisions = strategy::decide(desired, facts, &catalog())?;
    strategy::steps(&decisions, facts, desired, strategy::Boot::default())
}

pub(super) fn planned(desired: &Desired, facts: &HostFacts) -> Vec<Step> {
    plan(desired, facts).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(super) fn refused(desired: &Desired, facts: &HostFacts) -> String {
    match plan(desired, facts) {
        Ok(steps) => panic!("planned {:?}", titles(&steps)),
        Err(problems) => problems.to_string().replace("vars.yml:1:1: ", ""),
    }
}

fn offline(slicing_vars: Json) -> String {
    let problems = strategy::check_offline(&slicing(slicing_vars), &catalog());
    problems.to_string().replace("vars.yml:1:1: ", "")
}

pub(super) fn titles(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| step.title.as_str()).collect()
}

pub(super) fn calls(script: &deploy::shell::Script) -> Vec<String> {
    script.0.iter().map(deploy::shell::Command::to_sh).collect()
}

const BALANCED: [&str; 4] = ["1g.10gb", "3g.40gb", "1g.10gb", "2g.20gb"];

#[test]
fn what_no_card_can_do_is_refused_offline_with_what_would_fit() {
    let mig = |profiles: Json| offline(json!({"strategy": "mig", "mig": {"profiles": profiles}}));
    let said = mig(json!(["4g.80gb"]));
    assert!(
        said.starts_with("no model has a profile `4g.80gb` (there is 4g."),
        "{said}"
    );
    assert!(said.contains("4g.40gb (A100-80GB)"), "{said}");
    assert!(said.contains("7g.80gb (A100-80GB)"), "{said}");
    let said = mig(json!(["4g.40gb", "4g.40gb"]));
    assert_eq!(
        said,
        "2 × 4g.40gb cannot be placed on A100-80GB or H100-80GB (what fits: at most 1 × 4g.40gb; 4g.40gb + 3g.40gb)"
    );
    // Nobody published where these may lie: only the host can tell.
    assert_eq!(mig(json!(["1g.12gb-me", "2g.24gb-me"])), "");
    let said = mig(json!(["1g.5gb", "1g.6gb"]));
    assert!(
        said.starts_with("no model has all of these profiles"),
        "{said}"
    );
    assert_eq!(mig(json!(BALANCED)), "");
    // `+me` is one set of engines.
    let said = mig(json!(["1g.6gb+me", "2g.12gb+me"]));
    assert!(said.contains("what fits: 2g.12gb+me + 1g.6gb"), "{said}");
    let said = offline(
        json!({"strategy": "mig", "mig": {"profiles": ["1g.10gb"], "gpu_instance_count": 8}}),
    );
    assert!(said.starts_with("8 × 1g.10gb cannot be placed"), "{said}");
    assert!(said.contains("at most 7 × 1g.10gb"), "{said}");
    let said = offline(json!({"strategy": "mig", "request": {"9g.1gb": 3}}));
    assert!(
        said.starts_with("no model has a profile `9g.1gb`"),
        "{said}"
    );
    let per_card = json!({"strategy": "mig", "gpus": [
        {"match": {"index": 0}, "mig": {"profiles": ["1g.6gb"]}}]});
    assert_eq!(offline(per_card), "");
    assert!(
        offline(json!({"strategy": "mig"})).starts_with("`strategy: mig` needs `mig.profiles`")
    );
}

#[test]
fn a_match_narrows_what_is_checked_offline() {
    let entry = |model: &str, profile: &str| {
        offline(json!({"strategy": "none", "gpus": [
            {"match": {"model": model}, "strategy": "mig", "mig": {"profiles": [profile]}},
        ]}))
    };
    assert_eq!(entry("A30", "1g.6gb"), "");
    let said = entry("A30", "1g.5gb");
    assert!(
        said.starts_with("A30-24GB has no profile `1g.5gb` (it has 1g.6gb"),
        "{said}"
    );
    let said = entry("L40S", "1g.5gb");
    assert!(
        said.starts_with("L40S has no mig (L40S has time-slicing"),
        "{said}"
    );
    let said = entry("H1000", "1g.5gb");
    assert!(said.contains("no model is called `H1000`"), "{said}");
}

#[test]
fn what_nothing_can_carry_out_is_said_offline() {
    let said =
        offline(json!({"strategy": "time-slicing", "time_slicing": {"share_policy": "weighted"}}));
    assert!(
        said.starts_with("`share_policy: weighted` cannot be had"),
        "{said}"
    );
}

#[test]
fn compute_instances_must_divide_and_the_legal_numbers_are_named() {
    let split = |profiles: Json, count: u32| {
        offline(
            json!({"strategy": "mig", "mig": {"profiles": profiles, "compute_instance_count": count}}),
        )
    };
    assert_eq!(split(json!(["3g.40gb"]), 3), "");
    assert_eq!(
        split(json!(["4g.40gb"]), 3),
        "`compute_instance_count: 3` does not divide the 4 compute slices of 4g.40gb (all of these profiles can be split into 1 or 2 or 4)"
    );
    let desired = slicing(
        json!({"strategy": "mig", "mig": {"profiles": ["4g.40gb"], "compute_instance_count": 2}}),
    );
    let steps = planned(&desired, &host(vec![card(0, "H100-80GB")]));
    assert_eq!(
        calls(&steps[1].apply)[0],
        "mig_ensure GPU-0 '5:0:4/2c,2c'".replace('\'', "")
    );
}

#[test]
fn an_empty_card_gets_its_mode_and_then_its_layout() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": BALANCED}}));
    let steps = planned(&desired, &host(vec![card(0, "H100-80GB")]));
    assert_eq!(
        titles(&steps),
        [
            "enable MIG mode on GPU 0 (0000:10:00.0, NVIDIA H100 80GB HBM3)",
            "create 4 MIG instances on GPU 0 (0000:10:00.0, NVIDIA H100 80GB HBM3)",
        ]
    );
    assert_eq!(steps[0].class, Class::Disruptive);
    assert_eq!(steps[1].class, Class::Safe);
    assert_eq!(
        calls(&steps[0].check),
        [
            "mig_mode_is GPU-0 Disabled Disabled",
            "gpu_idle 0000:10:00.0"
        ]
    );
    assert_eq!(calls(&steps[0].apply), ["mig_mode GPU-0 1"]);
    assert_eq!(
        calls(&steps[0].undo),
        ["mig_mode_back GPU-0 0", "cdi_refresh"]
    );
    let words = "9:4:4/full 14:2:2/full 19:0:1/full 19:1:1/full";
    assert_eq!(calls(&steps[1].check), ["mig_is GPU-0"]);
    assert_eq!(
        calls(&steps[1].snapshot),
        ["mig_save GPU-0 \"$RUN\"/snapshot/mig-0000:10:00.0"]
    );
    assert_eq!(
        calls(&steps[1].apply),
        [
            format!("mig_ensure GPU-0 {words}"),
            "cdi_refresh".to_owned()
        ]
    );
    assert_eq!(calls(&steps[1].verify), [format!("mig_is GPU-0 {words}")]);
    let Change::Layout {
        grid,
        before,
        after,
        ..
    } = &steps[1].change
    else {
        panic!("a layout");
    };
    assert_eq!((*grid, before.len(), after.len()), (8, 0, 4));
}

#[test]
fn a_card_as_wanted_gives_no_steps() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": BALANCED}}));
    let layout = [("3g.40gb", 0), ("2g.20gb", 4), ("1g.10gb", 6)];
    let facts = host(vec![sliced(card(0, "H100-80GB"), &layout)]);
    // Three of the four exist where the solver would not have put them, but they can stay...
    let three =
        slicing(json!({"strategy": "mig", "mig": {"profiles": ["2g.20gb", "1g.10gb", "3g.40gb"]}}));
    assert_eq!(planned(&three, &facts), []);
    // ...the fourth cannot come where they lie, so the fewest move.
    let steps = planned(&desired, &facts);
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].class, Class::Disruptive);
    let again = host(vec![sliced(
        card(0, "H100-80GB"),
        &[
            ("3g.40gb", 4),
            ("2g.20gb", 2),
            ("1g.10gb", 0),
            ("1g.10gb", 1),
        ],
    )]);
    assert_eq!(planned(&desired, &again), []);
}

#[test]
fn only_what_must_go_makes_a_layout_disruptive() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb", "1g.10gb"]}}));
    let facts = host(vec![held(
        sliced(card(0, "H100-80GB"), &[("3g.40gb", 4)]),
        "python3",
    )]);
    let steps = planned(&desired, &facts);
    assert_eq!(
        steps[0].class,
        Class::Safe,
        "the card may be in use: nothing of it goes"
    );
    assert_eq!(
        calls(&steps[0].apply)[0],
        "mig_ensure GPU-0 9:4:4/full 19:3:1/full"
    );
}

#[test]
fn a_card_in_use_is_not_touched_and_its_holder_is_named() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["7g.80gb"]}}));
    let facts = host(vec![held(card(0, "H100-80GB"), "python3")]);
    let said = refused(&desired, &facts);
    assert!(
        said.starts_with("GPU 0 (0000:10:00.0, NVIDIA H100 80GB HBM3) is in use by pid 4711 (python3, unit train.service); it is not touched"),
        "{said}"
    );
    let facts = host(vec![held(card(0, "H100-80GB"), "nvidia-persiste")]);
    assert_eq!(planned(&desired, &facts).len(), 2);
    let mut unknown = card(0, "H100-80GB");
    unknown.holders = Fact::Unknown("no /proc".to_owned());
    assert!(refused(&desired, &host(vec![unknown])).contains("could not be found out"));
}

#[test]
fn a_drain_command_frees_the_card_first() {
    let mut vars = json!({
        "containers_gpu_slicing": {"enabled": true, "strategy": "mig", "mig": {"profiles": ["7g.80gb"]}},
    });
    vars["containers_gpu_state_management"] =
        json!({"drain_command": ["drain", "me"], "undrain_command": "undrain me"});
    let facts = host(vec![held(card(0, "H100-80GB"), "python3")]);
    let steps = planned(&wanted(&vars), &facts);
    let ids: Vec<&str> = steps.iter().map(|step| step.id.0.as_str()).collect();
    assert_eq!(
        ids,
        [
            "gpu:drain",
            "mig:0000:10:00.0:mode",
            "mig:0000:10:00.0:layout",
            "gpu:undrain"
        ]
    );
    assert_eq!(calls(&steps[0].apply), ["drain me"]);
    assert_eq!(calls(&steps[0].undo), ["sh -c 'undrain me'"]);
    assert_eq!(calls(&steps[1].apply)[0], "gpu_idle 0000:10:00.0");
    assert_eq!(
        calls(&steps[1].check),
        ["mig_mode_is GPU-0 Disabled Disabled"]
    );
}

#[test]
fn a_reboot_comes_after_the_drain_and_before_the_undrain() {
    let vars = json!({
        "containers_gpu_slicing": {"enabled": true, "strategy": "mig", "mig": {"profiles": ["1g.5gb"]}},
        "containers_gpu_state_management": {
            "drain_command": ["drain", "me"], "undrain_command": ["undrain", "me"]},
    });
    let mut waiting = card(0, "A100-40GB");
    waiting.reset = Fact::Known(false);
    // Both are in use now; the drain has to end that.
    let facts = host(vec![
        held(waiting, "python3"),
        held(card(1, "L40S"), "python3"),
    ]);
    let vars = {
        let mut vars = vars;
        vars["containers_gpu_slicing"]["gpus"] =
            json!([{"match": {"model": "L40S"}, "strategy": "none"}]);
        wanted(&vars)
    };
    let decisions = strategy::decide(&vars, &facts, &catalog()).expect("decided");
    let boot = strategy::Boot {
        allowed: true,
        before: false,
    };
    let steps = strategy::steps(&decisions, &facts, &vars, boot).expect("planned");
    let ids: Vec<&str> = steps.iter().map(|step| step.id.0.as_str()).collect();
    assert_eq!(
        ids,
        [
            "gpu:drain",
            "mig-pending:0000:10:00.0:mode",
            "reboot",
            "mig:0000:10:00.0:in-force",
            "mig:0000:10:00.0:layout",
            "gpu:undrain"
        ]
    );
    // The reboot ends what runs on any card: nobody may be left once all is drained.
    assert_eq!(
        calls(&steps[0].apply),
        ["drain me", "gpu_idle 0000:10:00.0", "gpu_idle 0000:11:00.0"]
    );
    assert!(steps[2].check.is_empty() && steps[2].apply.is_empty());
    assert_eq!(calls(&steps[5].undo), ["drain me"]);
}

#[test]
fn ampere_may_need_a_reset_and_a_pending_mode_is_its_own_state() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["1g.5gb"]}}));
    let steps = planned(&desired, &host(vec![card(0, "A100-40GB")]));
    assert_eq!(calls(&steps[0].apply), ["mig_mode GPU-0 1 reset"]);
    assert!(
        steps[0].title.contains("with a reset of the card"),
        "{}",
        steps[0].title
    );
    let mut waiting = card(0, "A100-40GB");
    mig(&mut waiting).pending = MigMode::Enabled;
    let steps = planned(&desired, &host(vec![waiting.clone()]));
    assert!(
        steps[0].title.starts_with("reset GPU 0"),
        "{}",
        steps[0].title
    );
    assert_eq!(
        calls(&steps[0].check)[0],
        "mig_mode_is GPU-0 Disabled Enabled"
    );
    waiting.reset = Fact::Absent;
    let said = refused(&desired, &host(vec![waiting]));
    assert!(
        said.contains("MIG mode is disabled and becomes enabled at the next reset"),
        "{said}"
    );
    assert!(
        said.contains("already waits for a reboot") && said.contains("--allow-reboot"),
        "{said}"
    );
}

#[test]
fn names_of_the_catalog_are_found_by_id_where_the_driver_has_others() {
    let mut gpu = card(0, "GB300-278GB");
    let Fact::Known(profiles) = &mut mig(&mut gpu).profiles else {
        panic!("listed");
    };
    for profile in profiles {
        profile.name = profile.name.replace("139gb", "126gb");
    }
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.139gb"]}}));
    let decisions =
        strategy::decide(&desired, &host(vec![gpu.clone()]), &catalog()).expect("decided");
    let note = "GPU 0 (0000:10:00.0, NVIDIA GB300): the driver calls 3g.139gb 3g.126gb";
    assert!(
        decisions[0].notes.iter().any(|n| n == note),
        "{:?}",
        decisions[0].notes
    );
    let said = refused(
        &slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.9gb"]}})),
        &host(vec![gpu]),
    );
    assert!(said.contains("has no profile `3g.9gb`"), "{said}");
}

#[test]
fn a_request_is_spread_over_the_cards_and_keeps_what_exists() {
    let desired = slicing(json!({"strategy": "mig", "request": {"1g.10gb": 10, "3g.40gb": 3}}));
    let facts = host(vec![
        card(0, "H100-80GB"),
        sliced(card(1, "H100-80GB"), &[("3g.40gb", 4), ("3g.40gb", 0)]),
        card(2, "H100-80GB"),
    ]);
    let decisions = strategy::decide(&desired, &facts, &catalog()).expect("it fits");
    let vars = strategy::template_vars(&decisions, &facts);
    let cards = vars["gpu_slices"]["mig"].as_array().expect("cards");
    let profiles: Vec<&str> = cards
        .iter()
        .flat_map(|card| card["profiles"].as_array().expect("profiles"))
        .filter_map(Json::as_str)
        .collect();
    let count = |name: &str| profiles.iter().filter(|profile| **profile == name).count();
    assert_eq!(
        (count("1g.10gb"), count("3g.40gb"), profiles.len()),
        (10, 3, 13)
    );
    let steps = planned(&desired, &facts);
    assert!(
        steps.iter().all(|step| !step.id.0.contains("0000:11:00.0")),
        "{:?}",
        titles(&steps)
    );
    // A 3g leaves room for four 1g on each card.
    let said = refused(
        &slicing(json!({"strategy": "mig", "request": {"1g.10gb": 16, "3g.40gb": 3}})),
        &facts,
    );
    assert!(
        said.starts_with("16 × 1g.10gb + 3 × 3g.40gb do not fit on the 3 cards"),
        "{said}"
    );
    assert!(
        said.contains("at most 12 × 1g.10gb, or 1 × 3g.40gb fit"),
        "{said}"
    );
    let said = refused(
        &slicing(json!({"strategy": "mig", "request": {"7g.80gb": 4}})),
        &facts,
    );
    assert!(said.contains("at most 3 × 7g.80gb fit"), "{said}");
}

#[test]
fn auto_takes_what_the_card_has() {
    let desired = slicing(
        json!({"strategy": "auto", "mig": {"enabled": true, "profiles": ["3g.40gb"]},
        "time_slicing": {"enabled": true, "max_instance_count": 4}}),
    );
    let facts = host(vec![
        card(0, "H100-80GB"),
        card(1, "L40S"),
        card(2, "A30-24GB"),
    ]);
    let decisions = strategy::decide(&desired, &facts, &catalog()).expect("decided");
    let said: Vec<String> = decisions
        .iter()
        .map(|d| format!("{}: {}", d.technology, d.why))
        .collect();
    assert_eq!(
        said,
        [
            "mig: `auto` picked mig: the variables ask for MIG and the card has it",
            "time-slicing: `auto` picked time-slicing: the card does not have what is asked of MIG, and time-slicing is asked for too",
            "time-slicing: `auto` picked time-slicing: the card does not have what is asked of MIG, and time-slicing is asked for too",
        ]
    );
    let nothing_asked = slicing(json!({"strategy": "auto"}));
    let facts = host(vec![card(0, "A30-24GB"), card(1, "L40S")]);
    let steps = planned(&nothing_asked, &facts);
    assert!(
        titles(&steps)[1].starts_with("create 4 MIG instances"),
        "{:?}",
        titles(&steps)
    );
    assert!(
        titles(&steps)[2].contains("to long"),
        "{:?}",
        titles(&steps)
    );
}

#[test]
fn time_slicing_says_that_it_isolates_nothing() {
    let desired =
        slicing(json!({"strategy": "time-slicing", "time_slicing": {"slice_duration": "1ms"}}));
    let facts = host(vec![card(0, "L40S")]);
    let decisions = strategy::decide(&desired, &facts, &catalog()).expect("decided");
    assert!(decisions[0].notes[0].contains("isolates neither memory nor faults"));
    assert!(
        decisions[0].notes[1].contains("no time slice of 1 ms"),
        "{:?}",
        decisions[0].notes
    );
    // The default's number is nobody's wish, so nothing is said of it.
    let unasked = slicing(json!({"strategy": "time-slicing"}));
    let decisions = strategy::decide(&unasked, &facts, &catalog()).expect("decided");
    assert_eq!(decisions[0].notes.len(), 1, "{:?}", decisions[0].notes);
    let steps = planned(&desired, &facts);
    assert_eq!(calls(&steps[0].apply), ["timeslice_set GPU-0 Short"]);
    assert_eq!(calls(&steps[0].undo), ["timeslice_set GPU-0 Default"]);
    // What is not read back is said to be so.
    let mut silent = card(0, "L40S");
    if let Fact::Known(nvidia) = &mut silent.nvidia {
        nvidia.timeslice = Fact::Unknown("no word of it".to_owned());
    }
    let decisions = strategy::decide(&desired, &host(vec![silent]), &catalog()).expect("decided");
    assert!(
        decisions[0].notes[2].contains("nothing can be read back"),
        "{:?}",
        decisions[0].notes
    );
    // MIG goes first where a card had it.
    let facts = host(vec![sliced(card(0, "H100-80GB"), &[("3g.40gb", 4)])]);
    let ids: Vec<String> = planned(&desired, &facts)
        .into_iter()
        .map(|step| step.id.0)
        .collect();
    assert_eq!(
        ids,
        [
            "mig:0000:10:00.0:layout",
            "mig:0000:10:00.0:mode",
            "timeslice:0000:10:00.0"
        ]
    );
    let two = slicing(json!({"strategy": "time-slicing", "gpus": [
        {"match": {"index": 0}, "time_slicing": {"max_instance_count": 3}}]}));
    let said = refused(&two, &host(vec![card(0, "L40S"), card(1, "L40S")]));
    assert!(
        said.contains("`max_instance_count` is 3 for") && said.contains("and 8 for"),
        "{said}"
    );
}

#[test]
fn a_model_without_the_technology_is_refused_with_what_it_has() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["1g.10gb"]}}));
    let said = refused(&desired, &host(vec![card(0, "L40S")]));
    assert!(
        said.starts_with("GPU 0 (0000:10:00.0, NVIDIA L40S) has no mig (it has time-slicing"),
        "{said}"
    );
    let desired = slicing(json!({"strategy": "sriov"}));
    let said = refused(&desired, &host(vec![card(0, "A30-24GB")]));
    assert!(
        said.contains("has no sriov") || said.contains("refuses `sriov_numvfs`"),
        "{said}"
    );
}

#[test]
fn none_takes_everything_away_and_skip_only_reports() {
    let desired = slicing(json!({"strategy": "none"}));
    let mut gpu = sliced(card(0, "A100-40GB"), &[("3g.20gb", 4), ("1g.5gb", 0)]);
    if let Fact::Known(nvidia) = &mut gpu.nvidia {
        nvidia.timeslice = Fact::Known("Long".to_owned());
    }
    let facts = host(vec![gpu]);
    let steps = planned(&desired, &facts);
    let applied: Vec<String> = steps
        .iter()
        .map(|step| calls(&step.apply)[0].clone())
        .collect();
    assert_eq!(
        applied,
        [
            "timeslice_set GPU-0 Default",
            "mig_ensure GPU-0",
            "mig_mode GPU-0 0 reset"
        ]
    );
    assert_eq!(planned(&desired, &host(vec![card(0, "A100-40GB")])), []);
    let skip = wanted(&json!({
        "containers_gpu_slicing": {"enabled": true, "strategy": "none"},
        "containers_gpu_state_management": {"apply_strategy": "skip"},
    }));
    assert_eq!(planned(&skip, &facts), []);
    let decisions = strategy::decide(&skip, &facts, &catalog()).expect("decided");
    assert_eq!(decisions[0].notes.len(), 3);
    assert!(
        decisions[0].notes[1]
            .starts_with("not done, because `apply_strategy` is `skip`: destroy 2")
    );
    // Not managed: nothing at all.
    let off = wanted(
        &json!({"containers_gpu_slicing": {"strategy": "mig", "mig": {"profiles": ["1g.5gb"]}}}),
    );
    assert_eq!(planned(&off, &facts), []);
}

pub(super) fn intel(total: u32, now: u32) -> Gpu {
    let catalog = catalog();
    let model = catalog
        .models()
        .iter()
        .find(|model| {
            model.vendor == Vendor::Intel
                && model
                    .technologies
                    .contains(&deploy::catalog::Technology::Sriov)
                && model.vf_counts.is_empty()
        })
        .expect("an Intel model with SR-IOV");
    let mut gpu = card(0, &model.key);
    gpu.sriov = Fact::Known(Sriov {
        total_vfs: total,
        num_vfs: now,
        drivers_autoprobe: Fact::Known(true),
        vfs: Vec::new(),
    });
    gpu
}

#[test]
fn virtual_functions_are_set_only_where_sysfs_does_it() {
    let desired =
        slicing(json!({"strategy": "sriov", "sriov": {"vf_count": 4, "drivers_autoprobe": false}}));
    let steps = planned(&desired, &host(vec![intel(7, 2)]));
    assert_eq!(steps[0].class, Class::Disruptive);
    assert_eq!(
        calls(&steps[0].check),
        ["sriov_is 0000:10:00.0 2 1", "sriov_unused 0000:10:00.0"]
    );
    assert_eq!(calls(&steps[0].apply), ["sriov_set 0000:10:00.0 4 0"]);
    assert_eq!(
        calls(&steps[0].undo),
        ["sriov_restore 0000:10:00.0 \"$RUN\"/snapshot/sriov-0000:10:00.0"]
    );
    let plain = slicing(json!({"strategy": "sriov", "sriov": {"vf_count": 4}}));
    assert_eq!(planned(&plain, &host(vec![intel(7, 4)])), []);
    assert_eq!(
        planned(&plain, &host(vec![intel(7, 0)]))[0].class,
        Class::Safe
    );
    let said = refused(&plain, &host(vec![intel(3, 0)]));
    assert!(said.contains("allows 3 virtual functions, not 4"), "{said}");
    let elsewhere = slicing(json!({"strategy": "sriov", "sriov": {"pf_device": "0000:99:00.0"}}));
    let said = refused(&elsewhere, &host(vec![intel(7, 0)]));
    assert!(said.contains("no card is `0000:99:00.0`"), "{said}");
}

#[test]
fn cards_of_another_vendor_are_left_alone_by_the_values_above_gpus() {
    let desired = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb"]}}));
    let facts = host(vec![intel(7, 0), card(1, "H100-80GB")]);
    let decisions = strategy::decide(&desired, &facts, &catalog()).expect("decided");
    assert_eq!(decisions.len(), 1);
    assert!(refused(&desired, &host(vec![intel(7, 0)])).contains("has no mig"));
    let by_hand = slicing(json!({"strategy": "none", "gpus": [
        {"match": {"vendor": "intel"}, "strategy": "mig", "mig": {"profiles": ["3g.40gb"]}}]}));
    assert!(refused(&by_hand, &facts).contains("has no mig"));
}

proptest::proptest! {
    /// Whatever a host says of its instances and profiles, there is an answer.
    #[test]
    fn no_numbers_of_a_host_panic(
        numbers in proptest::collection::vec(
            proptest::prop_oneof![0_u32..12, proptest::num::u32::ANY, u32::MAX - 4..=u32::MAX],
            10..40,
        ),
        strategy in proptest::sample::select(&["mig", "none", "auto"]),
        enabled in proptest::bool::ANY,
    ) {
        let mut gpu = card(0, "H100-80GB");
        let state = mig(&mut gpu);
        state.current = if enabled { MigMode::Enabled } else { MigMode::Disabled };
        let mut next = numbers.iter().copied().cycle();
        let mut number = || next.next().unwrap_or_default();
        let Fact::Known(profiles) = &mut state.profiles else { panic!("listed") };
        for profile in profiles.iter_mut().step_by(2) {
            profile.total = number();
            let places = (0..2).map(|_| Placement { start: number(), size: number() });
            profile.placements = Fact::Known(places.collect());
        }
        let instances = (0..3).map(|_| GpuInstance {
            gi_id: number(),
            profile_id: number(),
            profile: format!("{}g.{}gb", number(), number()),
            placement: Placement { start: number(), size: number() },
            compute: Fact::Known(Vec::new()),
        });
        state.instances = Fact::Known(instances.collect());
        let mut wanted = json!({"strategy": strategy});
        if strategy == "mig" {
            wanted["mig"] = json!({"profiles": ["1g.10gb"]});
        }
        let desired = slicing(wanted);
        if let Ok(steps) = plan(&desired, &host(vec![gpu])) {
            let plan = deploy::plan::HostPlan { steps, ..Default::default() };
            assert_eq!(deploy::diff::blocks(&plan).len(), plan.steps.len());
        }
    }
}

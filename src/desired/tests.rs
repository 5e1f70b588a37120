//! Tests of reading the desired state.

use super::*;
use crate::catalog::Technology;
use crate::error::Origin;
use crate::value::Node;

fn vars(json: serde_json::Value) -> Vars {
    let origin = Origin::whole("vars.yml", json.to_string());
    let node = Node::from_json(&json, &origin);
    node.as_map()
        .expect("variables are a mapping")
        .iter()
        .map(|(name, entry)| (name.clone(), entry.node.clone()))
        .collect()
}

/// Reads variables that name no files.
fn read_alone(vars: &Vars) -> Loaded<Desired> {
    read(vars, &|name, _| panic!("{name} is read"))
}

fn messages(json: serde_json::Value) -> Vec<String> {
    let (_, problems) = read_alone(&vars(json));
    problems
        .0
        .into_iter()
        .map(|problem| match problem.hint {
            Some(hint) => format!("{} ({hint})", problem.message),
            None => problem.message,
        })
        .collect()
}

#[test]
fn nothing_said_gives_the_seeds_defaults() {
    let (desired, problems) = read_alone(&Vars::new());
    assert_eq!(problems.0, []);
    assert_eq!(desired.discovery, Discovery::default());
    assert!(!desired.slicing.enabled.value);
    let wanted = &desired.slicing.default;
    assert_eq!(wanted.strategy.value, Choice::Use(Technology::None));
    assert_eq!(wanted.mig.gpu_instance_count.value, 1);
    assert_eq!(wanted.mig.compute_instance_count.value, 1);
    assert_eq!(wanted.time_slicing.max_instance_count.value, 8);
    assert_eq!(
        wanted.time_slicing.slice_duration.value,
        SliceDuration::Micros(100_000)
    );
    assert_eq!(wanted.sriov.vf_count.value, 4);
    assert_eq!(desired.integration.runtime.value, ContainerRuntime::Crun);
    assert!((desired.integration.resource_limits.memory_gb.value - 8.0).abs() < f64::EPSILON);
    assert_eq!(desired.state.apply_strategy.value, ApplyStrategy::Auto);
    assert!(desired.state.validation.value && desired.state.health_check.value);
    assert_eq!(desired.policy.value, GpuPolicy::Exclusive);
}

/// Requirements 4.9 to 4.17: the seed's own blocks, word for word.
#[test]
fn the_seeds_keys_and_defaults_are_all_accepted() {
    let (desired, problems) = read_alone(&vars(serde_json::json!({
        "containers_gpu_discovery": {"method": "auto", "devices": [], "vendor_detection": "lspci"},
        "containers_gpu_slicing": {
            "enabled": false, "strategy": "none",
            "mig": {"enabled": false, "profiles": [], "gpu_instance_count": 1, "compute_instance_count": 1},
            "time_slicing": {"enabled": false, "max_instance_count": 8, "slice_duration": "100ms", "share_policy": "equal"},
            "sriov": {"enabled": false, "vf_count": 4, "pf_device": "", "vf_devices": []},
            "vgpu": {"enabled": false, "profile": "", "license_server": ""},
            "level_zero": {"enabled": false, "partitions": []},
        },
        "containers_gpu_container_integration": {
            "runtime": "crun", "device_plugin": "nvidia",
            "resource_limits": {"memory_gb": 8, "compute_units": 4, "gpu_instances": 1},
        },
        "containers_gpu_state_management": {
            "apply_strategy": "auto", "reboot_required": false, "validation": true, "health_check": true,
        },
        "gpu_policy": "shared",
    })));
    assert_eq!(problems.0, []);
    assert_eq!(desired.policy.value, GpuPolicy::Shared);
}

#[test]
fn unknown_keys_name_the_nearest_one_and_all_are_reported() {
    assert_eq!(
        messages(serde_json::json!({
            "containers_gpu_slcing": {},
            "containers_gpu_slicing": {"startegy": "mig", "mig": {"profilse": []}},
            "containers_gpu_state_management": {"aply_strategy": "auto"},
        })),
        [
            "unknown variable `containers_gpu_slcing` (did you mean `containers_gpu_slicing`?)",
            "unknown key `profilse` in `containers_gpu_slicing.mig` (did you mean `profiles`?)",
            "unknown key `startegy` in `containers_gpu_slicing` (did you mean `strategy`?)",
            "unknown key `aply_strategy` in `containers_gpu_state_management` (did you mean `apply_strategy`?)",
        ]
    );
}

#[test]
fn values_of_a_wrong_kind_say_what_is_wanted() {
    assert_eq!(
        messages(serde_json::json!({
            "containers_gpu_slicing": {
                "enabled": "perhaps",
                "strategy": "migg",
                "mig": {"profiles": "1g.5gb", "gpu_instance_count": 0},
                "time_slicing": {"slice_duration": 100, "max_instance_count": 1},
                "request": ["1g.5gb"],
            },
            "gpu_policy": "none",
        })),
        [
            "`containers_gpu_slicing.enabled` must be `true` or `false`, not `perhaps`",
            "`containers_gpu_slicing.strategy` has no value `migg` (did you mean `mig`? It is one of `mig`, `time-slicing`, `mps`, `sriov`, `vgpu`, `partition`, `level-zero`, `rocm`, `passthrough`, `none`, `auto`)",
            "`containers_gpu_slicing.mig.profiles` must be a list of strings, not `1g.5gb`",
            "`containers_gpu_slicing.mig.gpu_instance_count` must be a whole number from 1 to 1024, not `0`",
            "`containers_gpu_slicing.time_slicing.max_instance_count` must be a whole number from 2 to 1024, not `1`",
            "`containers_gpu_slicing.time_slicing.slice_duration` must be a time with its unit such as `100ms`, or one of `default`, `short`, `medium`, `long`, not `100`",
            "`containers_gpu_slicing.request` must be a mapping of profiles to counts, not a list",
            "`gpu_policy` has no value `none` (it is one of `exclusive`, `shared`)",
        ]
    );
}

fn slicing_messages(slicing: serde_json::Value) -> Vec<String> {
    messages(serde_json::json!({ "containers_gpu_slicing": slicing }))
}

#[test]
fn a_block_switched_against_the_strategy_is_a_contradiction() {
    let both = slicing_messages(serde_json::json!({
        "enabled": true, "strategy": "time-slicing",
        "mig": {"enabled": true}, "time_slicing": {"enabled": false},
    }));
    assert_eq!(
        both,
        [
            "`strategy: time-slicing` contradicts `mig.enabled: true` (set `strategy: mig`, or `mig.enabled: false`)",
            "`strategy: time-slicing` contradicts `time_slicing.enabled: false` (set `time_slicing.enabled: true`, or remove it: the strategy implies it)",
        ]
    );
    let unsaid = slicing_messages(serde_json::json!({"enabled": true, "mig": {"enabled": true}}));
    assert!(
        unsaid[0].contains("which is `none` where none is given"),
        "{unsaid:?}"
    );
    // Not managed, and `auto`: nothing contradicts.
    let off = serde_json::json!({"enabled": false, "strategy": "none", "mig": {"enabled": true}});
    assert_eq!(slicing_messages(off), [""; 0]);
    let auto = serde_json::json!({"enabled": true, "strategy": "auto",
        "mig": {"enabled": true, "profiles": ["1g.5gb"]}, "time_slicing": {"enabled": true}});
    assert_eq!(slicing_messages(auto), [""; 0]);
}

#[test]
fn request_contradicts_profiles_and_other_strategies() {
    let found = slicing_messages(serde_json::json!({
        "enabled": true, "strategy": "mig", "mig": {"profiles": ["1g.5gb"]}, "request": {"1g.5gb": 3},
    }));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("`request` and `mig.profiles` contradict"),
        "{found:?}"
    );
    let found = slicing_messages(serde_json::json!({
        "enabled": true, "strategy": "sriov", "request": {"1g.5gb": 3},
    }));
    assert!(
        found[0].starts_with("`request` contradicts `strategy: sriov`"),
        "{found:?}"
    );
}

#[test]
fn an_entry_takes_what_it_does_not_say_from_above() {
    let (desired, problems) = read_alone(&vars(serde_json::json!({"containers_gpu_slicing": {
        "enabled": true, "strategy": "mig",
        "mig": {"profiles": ["1g.10gb"], "gpu_instance_count": 7},
        "gpus": [
            {"match": {"index": 0}, "strategy": "time-slicing", "time_slicing": {"max_instance_count": 4}},
            {"match": {"model": "A30"}, "mig": {"profiles": ["1g.6gb"]}},
        ],
    }})));
    assert_eq!(problems.0, []);
    let [first, second] = &desired.slicing.gpus[..] else {
        panic!("two entries were written");
    };
    assert_eq!(
        first.wanted.strategy.value,
        Choice::Use(Technology::TimeSlicing)
    );
    assert_eq!(first.wanted.mig.profiles().count(), 7);
    assert_eq!(second.wanted.strategy.value, Choice::Use(Technology::Mig));
    let names: Vec<_> = second
        .wanted
        .mig
        .profiles()
        .map(|name| &name.value)
        .collect();
    assert_eq!(names, ["1g.6gb"]);
}

#[test]
fn an_entry_must_say_which_cards_it_is_for() {
    let found =
        slicing_messages(serde_json::json!({"gpus": [{"strategy": "mig"}, {"match": {"pci": 3}}]}));
    assert_eq!(
        found,
        [
            "the entry says with no `match` which cards it is for (give `match: {index: 0}`, or `pci`, `uuid`, `model`, `vendor`)",
            "`3` is no value for `match.pci`",
        ]
    );
}

#[test]
fn manual_discovery_needs_devices_and_devices_need_it() {
    let found = messages(serde_json::json!({"containers_gpu_discovery": {"method": "manual"}}));
    assert!(found[0].contains("`devices` names no card"), "{found:?}");
    let found = messages(serde_json::json!({"containers_gpu_discovery": {"devices": ["17:00.0"]}}));
    assert!(found[0].contains("`method: manual` only"), "{found:?}");
    let (desired, problems) = read_alone(&vars(serde_json::json!({
        "containers_gpu_discovery": {"method": "manual", "devices": ["17:00.0", "GPU-1-2", 3]},
    })));
    assert_eq!(problems.0, []);
    assert_eq!(desired.discovery.devices, ["0000:17:00.0", "GPU-1-2", "3"]);
}

#[test]
fn strings_from_the_command_line_and_from_templates_are_read() {
    let (desired, problems) = read_alone(&vars(serde_json::json!({"containers_gpu_slicing": {
        "enabled": "yes", "strategy": "time-slicing",
        "time_slicing": {"max_instance_count": "4", "slice_duration": "short"},
    }})));
    assert_eq!(problems.0, []);
    assert!(desired.slicing.enabled.value);
    assert_eq!(
        desired
            .slicing
            .default
            .time_slicing
            .max_instance_count
            .value,
        4
    );
    assert_eq!(
        desired.slicing.default.time_slicing.slice_duration.value,
        SliceDuration::Level(1)
    );
}

#[test]
fn what_tenants_need_is_for_auto_alone() {
    let said = |slicing| slicing_messages(slicing).join("\n");
    let need = serde_json::json!({"isolation": "hardware", "tenants": 4, "memory_each": "9 GiB"});
    let right = serde_json::json!({"enabled": true, "strategy": "auto", "auto": need});
    assert_eq!(said(right), "");
    assert_eq!(
        said(serde_json::json!({"enabled": true, "strategy": "auto",
            "auto": {"isolation": "hardwre", "tenant": 4, "memory_each": 9}})),
        "`containers_gpu_slicing.auto.isolation` has no value `hardwre` (did you mean `hardware`? It is one of `any`, `hardware`, `software`)\n\
         `containers_gpu_slicing.auto.memory_each` must be a memory size with its unit such as `9GB`; GB, GiB, MB and MiB are known, not `9`\n\
         unknown key `tenant` in `containers_gpu_slicing.auto` (did you mean `tenants`?)"
    );
    assert_eq!(
        said(
            serde_json::json!({"enabled": true, "strategy": "mig", "auto": need,
            "mig": {"profiles": ["1g.10gb"]}})
        ),
        "`auto` is read by `strategy: auto` only, and the strategy is `mig` (set `strategy: auto`, or leave the block out)\n\
         `auto` and `mig.profiles` contradict each other (say what tenants need, or which profiles there are to be)"
    );
    assert_eq!(
        said(
            serde_json::json!({"enabled": true, "strategy": "auto", "auto": need,
            "request": {"1g.10gb": 3}})
        ),
        "`request` and `auto` contradict each other (give totals for the host, or what the tenants of each card need)"
    );
}

//! A GPU that nobody sells, from its data to its slices: a model in the user's own `vars/` and
//! a description for the simulator, and no program text.

use std::fs;

use serde_json::json;

use crate::technology::Bench;

/// What a user adds to a copy of the shipped file.
const MODEL: &str = "
  X1-48GB:
    name: NVIDIA X1
    architecture: hopper
    memory_mib: 49152
    device_ids:
      - {device: 0x2ffe, name: \"GX100 [X1]\"}
    technologies: [mig, time-slicing, passthrough, none]
    mig:
      compute_slices: 3
      memory_slices: 6
      profiles:
        - {name: 1g.16gb, id: 31, compute_slices: 1, memory_slices: 2, max: 3, starts: [0, 2, 4], memory_mib: 16000, sm: 20, confidence: mock-or-config-only}
        - {name: 2g.32gb, id: 32, compute_slices: 2, memory_slices: 4, max: 1, starts: [0, 2], memory_mib: 32000, sm: 40, confidence: mock-or-config-only}
        - {name: 3g.48gb, id: 33, compute_slices: 3, memory_slices: 6, max: 1, starts: [0], memory_mib: 48000, sm: 60, confidence: mock-or-config-only}
";

/// The same card as the simulator plays it.
fn product() -> String {
    let profile = |name: &str, id: u32, compute: u32, max: u32, starts: &[u32]| {
        json!({
            "name": name, "id": id, "compute": compute, "size": compute * 2, "max": max,
            "starts": starts, "memory_mib": compute * 16000, "sm": compute * 20,
            "engines": [compute, compute, 0, 0, 0],
        })
    };
    json!({"X1-48GB": {
        "name": "NVIDIA X1", "architecture": "Hopper", "compute_cap": "9.0",
        "device_ids": ["0x2ffe"], "subsystem": "0x000110DE", "memory_mib": 49152,
        "power_w": 300, "vbios": "99.00.01.00.01", "slices": 6, "compute": 3,
        "pci_names": ["GX100 [X1]"], "vga": false, "total_vfs": 0,
        "profiles": [
            profile("1g.16gb", 31, 1, 3, &[0, 2, 4]),
            profile("2g.32gb", 32, 2, 1, &[0, 2]),
            profile("3g.48gb", 33, 3, 1, &[0]),
        ],
    }})
    .to_string()
}

fn project() -> Bench {
    let bench = Bench::new("{products: x1.json, gpus: [X1-48GB], driver: 590.48.01}");
    let bench = bench.expect("ssh is installed");
    let shipped = fs::read_to_string("vars/nvidia_gpu_models.yml").expect("the shipped file");
    bench.write("vars/nvidia_gpu_models.yml", &(shipped + MODEL));
    bench.write("playbooks/README", "Makes this folder a project.\n");
    bench.write("inv/x1.json", &product());
    bench
}

#[test]
fn a_model_is_data() {
    let bench = project();
    bench
        .apply("strategy: mig, mig: {profiles: [2g.32gb, 1g.16gb]}")
        .says("vars/nvidia_gpu_models.yml");
    let list = bench.ssh("nvidia-smi -L");
    assert!(list.contains("NVIDIA X1"), "{list}");
    assert!(list.contains("MIG 2g.32gb"), "{list}");
    assert!(list.contains("MIG 1g.16gb"), "{list}");
    bench.settled();
    bench.reboot();
    assert_eq!(bench.ssh("nvidia-smi -L"), list, "the same UUIDs");
    bench.settled();

    bench.apply("strategy: auto, auto: {isolation: hardware, tenants: 3, memory_each: 15GB}");
    assert_eq!(bench.ssh("nvidia-smi -L").matches("MIG 1g.16gb").count(), 3);
    bench.rolled_back();
    assert_eq!(bench.ssh("nvidia-smi -L"), list);
    bench.apply("strategy: none");
    assert!(!bench.ssh("nvidia-smi -L").contains("MIG"));
}

#[test]
fn its_data_refuse_what_it_cannot_do_before_any_connection() {
    let bench = project();
    for (slicing, said) in [
        (
            "strategy: none, gpus: [{match: {model: X1-48GB}, strategy: mig, mig: {profiles: [2g.32gb, 2g.32gb]}}]",
            "2 × 2g.32gb cannot be placed on X1-48GB",
        ),
        (
            "strategy: none, gpus: [{match: {model: X1-48GB}, strategy: mig, mig: {profiles: [1g.10gb]}}]",
            "X1-48GB has no profile `1g.10gb`",
        ),
        (
            "strategy: none, gpus: [{match: {model: X1-48GB}, strategy: vgpu, vgpu: {profile: X1-8Q}}]",
            "X1-48GB has no vgpu",
        ),
    ] {
        bench.want(slicing);
        bench.deploy(&["gpu", "--yes"]).expect(1).says(said);
    }
}

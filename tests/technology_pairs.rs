//! From each technology that a card has to each other one directly, read back by the vendor's
//! tools, and back: what one made, another does not find.

use std::collections::BTreeMap;

use crate::technology::Bench;

/// A technology, and how it is asked for.
type Kind = (&'static str, &'static str);

const NONE: Kind = ("none", "strategy: none");
const PASSTHROUGH: Kind = ("passthrough", "strategy: passthrough");
const TURNS: Kind = (
    "time-slicing",
    "strategy: time-slicing, time_slicing: {max_instance_count: 4, slice_duration: long}",
);
const MPS: Kind = ("mps", "strategy: mps, mps: {active_thread_percentage: 25}");

/// What a user of the host sees of the card: `of_card`, then the driver that has it, and what
/// comes back at boot.
fn look(bench: &Bench, of_card: &str) -> String {
    bench.ssh(&format!(
        "{{ {of_card}; lspci -nnk | grep -A9 -e 'VGA compatible' -e '3D controller' -e 'Display controller' \
         -e 'Processing accelerators' | grep 'Kernel driver'; (cd \"$R/etc/deploy/gpu\" && find . -type f | sort); }} 2>/dev/null; true"
    ))
}

/// The same without what is made anew each time.
fn plain(seen: &str) -> String {
    let mut parts = seen.split("MIG-");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("MIG-…");
        text.push_str(part.get(36..).unwrap_or_default());
    }
    text
}

/// Goes all ways. `stays` are pairs of which the second leaves what the first made, on purpose.
fn each_way(sim: &str, of_card: &str, kinds: &[Kind], stays: &[(&str, &str)]) {
    let bench = Bench::new(sim).expect("ssh is installed");
    let look = || look(&bench, of_card);
    // What each makes of a card that has no slices.
    let mut alone: BTreeMap<&str, String> = BTreeMap::new();
    bench.apply(NONE.1);
    let whole = look();
    for (name, slicing) in kinds {
        bench.apply(slicing);
        alone.insert(name, plain(&look()));
        if *name != "none" {
            assert_ne!(alone[name], plain(&whole), "{name} shows");
        }
        bench.apply(NONE.1);
        assert_eq!(look(), whole, "{name} goes");
    }
    for (from, slicing) in kinds {
        bench.apply(slicing);
        let before = look();
        assert_eq!(plain(&before), alone[from], "{from}");
        for (to, slicing) in kinds.iter().filter(|(to, _)| to != from) {
            if *from == "passthrough" && *to != "none" {
                // Only its own driver tells what the card is.
                bench
                    .refused(slicing)
                    .says("apply `strategy: none` first, which takes it back, and then this");
                assert_eq!(look(), before, "{from} to {to} is refused");
                continue;
            }
            bench.apply(slicing);
            if !stays.contains(&(*from, *to)) {
                assert_eq!(plain(&look()), alone[to], "{from} to {to}");
            }
            bench.settled();
            bench.rolled_back();
            assert_eq!(look(), before, "back from {to} to {from}");
        }
        bench.apply(NONE.1);
    }
}

const NVIDIA: &str = "nvidia-smi -L; nvidia-smi --query-gpu=mig.mode.current,compute_mode --format=csv,noheader; \
    nvidia-smi compute-policy -l; for device in \"$R\"/run/deploy/mps/*-*; do basename \"$device\"; done; \
    cat \"$R\"/sys/bus/pci/devices/*/virtfn*/nvidia/current_vgpu_type | sort | uniq -c; \
    ls \"$R/sys/bus/mdev/devices\" | wc -l; cat \"$R\"/sys/bus/pci/devices/*/sriov_numvfs";

#[test]
fn on_a_host_of_containers_with_nvidia() {
    let mig = ("mig", "strategy: mig, mig: {profiles: [3g.40gb, 1g.10gb]}");
    let kinds = [NONE, mig, TURNS, MPS, PASSTHROUGH];
    let sim = "{gpus: [H100-80GB], driver: 590.48.01}";
    each_way(sim, NVIDIA, &kinds, &[]);
}

#[test]
fn on_a_host_of_virtual_machines_with_nvidia() {
    let mig = ("mig", "strategy: mig, mig: {profiles: [3g.71gb, 1g.18gb]}");
    let vgpu = (
        "vgpu",
        "strategy: vgpu, vgpu: {profile: H200X-1-18C, count: 3}",
    );
    let sim = "{vgpu: host, driver: \"570.133.10\", gpus: [{product: H200-141GB, pci: [\"0000:41:00.0\"]}]}";
    each_way(sim, NVIDIA, &[NONE, mig, vgpu, TURNS, PASSTHROUGH], &[]);
}

#[test]
fn on_a_host_of_mediated_devices() {
    let vgpu = ("vgpu", "strategy: vgpu, vgpu: {profile: A2-4Q, count: 2}");
    let sim = "{vgpu: host, driver: \"535.183.04\", os: debian-12, gpus: [{product: A2, pci: [\"0000:08:00.0\"]}]}";
    each_way(sim, NVIDIA, &[NONE, vgpu, TURNS, PASSTHROUGH], &[]);
}

#[test]
fn on_a_host_with_amd() {
    let partition = (
        "partition",
        "strategy: partition, partition: {compute: CPX, memory: NPS4}",
    );
    let rocm = (
        "rocm",
        "strategy: rocm, rocm: {masks: [{name: training, devices: [0]}]}",
    );
    let seen = "amd-smi partition --current; cat \"$R\"/sys/bus/pci/drivers/amdgpu/*:*/current_*_partition; \
        cat \"$R/etc/deploy/gpu/rocm/training.env\"";
    let kinds = [NONE, partition, rocm, PASSTHROUGH];
    each_way("{gpus: [MI300X]}", seen, &kinds, &[("partition", "rocm")]);
}

#[test]
fn under_the_sriov_host_driver_of_amd() {
    let sriov = ("sriov", "strategy: sriov, sriov: {vf_count: 8}");
    let seen = "amd-smi static --num-vf; amd-smi partition --current; cat \"$R/etc/modprobe.d/deploy-gim.conf\"";
    let sim = "{gpus: [MI300X], amd: {driver: gim}}";
    each_way(sim, seen, &[NONE, sriov, PASSTHROUGH], &[]);
}

#[test]
fn on_a_host_with_intel() {
    let sriov = ("sriov", "strategy: sriov, sriov: {vf_count: 2}");
    let hints = (
        "level-zero",
        "strategy: level-zero, level_zero: {ccs_mode: 4, partitions: [{name: left, mask: '0.0'}]}",
    );
    let seen = "cat \"$R\"/sys/bus/pci/devices/*/sriov_numvfs \"$R\"/sys/bus/pci/devices/*/drm/card*/gt/gt*/ccs_mode; \
        xpu-smi discovery | grep -c 'Device Name'; cat \"$R/etc/deploy/gpu/level_zero/left.env\"";
    let kinds = [NONE, sriov, hints, PASSTHROUGH];
    each_way("{gpus: [Max-1550]}", seen, &kinds, &[]);
}

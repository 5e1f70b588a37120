//! anklume's `infra.yml`, the policy and the prerequisites of virtual machines: what is told
//! before any connection, and what a plan on a simulated host says. The daemon's lists there
//! are those of a real one, recorded; nothing is applied to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Ended, Scratch};
use crate::technology::folder_of_the_host;

/// A host with an inventory of its own, and an infra.yml beside the inventory's folder.
struct Fleet {
    scratch: Scratch,
    sim: &'static str,
}

impl Fleet {
    fn new(sim: &'static str) -> Self {
        let scratch = Scratch::new();
        Self { scratch, sim }
    }

    fn deploy(&self, args: &[&str]) -> Ended {
        let inventory = self.scratch.path().join("inv/hosts.yml");
        let inventory = inventory.display().to_string();
        let mut words = args.to_vec();
        words.extend(["-i", inventory.as_str()]);
        self.scratch.deploy(&words)
    }

    /// Variables of all hosts, which are `node1` and, if there are two, `node2`.
    fn want(&self, hosts: usize, vars: &str) {
        let names: String = (1..=hosts).map(|n| format!("    node{n}:\n")).collect();
        let text = format!(
            "all:\n  hosts:\n{names}  vars:\n    ansible_connection: sim\n    sim: {}\n    gpu_platform: incus\n{}",
            self.sim,
            indented(vars)
        );
        self.scratch.write("inv/hosts.yml", &text);
    }

    /// Names this infra.yml.
    fn infra(&self, hosts: usize, text: &str) {
        self.scratch.write("infra.yml", text);
        self.want(hosts, "gpu_incus: {infra: ../infra.yml}");
    }

    /// Gives the host a client that answers as a real daemon did: these instances, in project
    /// `work`, with a profile `default`.
    fn daemon(&self, instances: &str) {
        self.deploy(&["discover"]).expect(0);
        let text = CLIENT.replace("@INSTANCES@", instances);
        let path = folder_of_the_host(&self.scratch).join("usr/local/bin/incus");
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// The client's `query` of the lists, as Incus 6.0.4 answers.
const CLIENT: &str = r#"#!/bin/sh
case $2 in
local:/1.0/projects*) echo '[{"config": {"features.profiles": "true"}, "name": "default"}, {"config": {"features.profiles": "true"}, "name": "work"}]' ;;
local:/1.0/profiles*) echo '[{"config": {}, "description": "", "devices": {}, "name": "default", "project": "work", "used_by": []}]' ;;
local:/1.0/instances*) echo '[@INSTANCES@]' ;;
*) exit 1 ;;
esac
"#;

/// A stopped virtual machine, as the daemon lists it.
const DESKTOP: &str = r#"{"architecture": "x86_64", "config": {}, "devices": {}, "expanded_config": {}, "expanded_devices": {}, "name": "desktop", "profiles": ["default"], "project": "work", "status": "Stopped", "type": "virtual-machine"}"#;

/// The seed's own first example.
const SEED: &str = "\
global:
  addressing:
    base_octet: 10
    zone_base: 100
  # gpu_policy: exclusive

domains:
  homelab:
    subnet_id: 3
    profiles:
      nvidia-compute:
        devices:
          gpu:
            type: gpu
            gputype: physical
    machines:
      homelab-llm:
        type: lxc
        gpu: true
        profiles: [default, nvidia-compute]
        roles: [base_system, ollama_server]
";

/// The same with a second machine that has the GPU.
fn seed_with(second: &str, policy: Option<&str>) -> String {
    let text = match policy {
        Some(policy) => SEED.replace(
            "  # gpu_policy: exclusive",
            &format!("  gpu_policy: {policy}"),
        ),
        None => SEED.to_owned(),
    };
    format!("{text}  work:\n    subnet_id: 4\n    machines:\n{second}")
}

const BOTH: &str = "      work-gpu:\n        type: lxc\n        gpu: true\n";
const PLAIN: &str = "      work-gpu:\n        type: lxc\n        ip: 10.100.4.1\n";

/// Requirements 0.1 to 0.5 with the whole command; nothing is connected to where it is wrong.
#[test]
fn the_policy_over_the_domains_of_an_infra_yml() {
    let fleet = Fleet::new("{gpus: [L40S]}");
    fleet.infra(1, &seed_with(BOTH, None));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("GPU policy is 'exclusive' but 2 instances have GPU access: homelab-llm, work-gpu")
        .says("global.gpu_policy")
        .says("infra.yml:27:14");
    fleet.infra(1, &seed_with(BOTH, Some("exclusive")));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("GPU policy is 'exclusive'");
    fleet.infra(1, &seed_with(BOTH, Some("sharde")));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("`global.gpu_policy` has no value `sharde`")
        .says("did you mean `shared`?")
        .says("infra.yml:5:15");
    // Two hosts that have the same machines have them twice.
    fleet.infra(2, &seed_with(PLAIN, None));
    fleet
        .deploy(&["gpu", "--check", "--limit", "node1"])
        .expect(1)
        .says("homelab-llm on node1, homelab-llm on node2");
    // The variable overrules the file.
    fleet
        .scratch
        .write("infra.yml", &seed_with(BOTH, Some("shared")));
    fleet.want(1, "gpu_incus: {infra: ../infra.yml}\ngpu_policy: exclusive");
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("GPU policy is 'exclusive'");
    // Shared warns and goes on, to a host that has no Incus.
    fleet.infra(1, &seed_with(BOTH, Some("shared")));
    let went_on = fleet.deploy(&["gpu", "--check"]).expect(3);
    let went_on = went_on
        .says("GPU policy is 'shared': 2 instances share GPU access (homelab-llm, work-gpu)");
    went_on
        .says("no VRAM isolation on consumer GPUs")
        .says("there is no program `incus` on the host");
    // One is well.
    fleet.infra(1, &seed_with(PLAIN, None));
    let one = fleet.deploy(&["gpu", "--check"]).expect(3);
    assert!(!one.all().contains("GPU policy"), "{}", one.all());
}

#[test]
fn what_is_wrong_in_an_infra_yml_is_told_with_its_place_before_connecting() {
    let fleet = Fleet::new("{gpus: [L40S]}");
    let wrong = SEED
        .replace("gputype: physical", "gputype: pysical")
        .replace("type: lxc", "type: docker")
        .replace("[default, nvidia-compute]", "default");
    fleet.infra(1, &wrong);
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("infra.yml:15:22")
        .says("did you mean `physical`?")
        .says("infra.yml:18:15")
        .says("must be `lxc` or `vm`, not `docker`")
        .says("infra.yml:20:19")
        .says("must be a list of names");
    fleet.want(1, "gpu_incus: {infra: ../nowhere.yml}");
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("nowhere.yml");
    fleet.want(1, "gpu_incus: {profils: {}}");
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("unknown key `profils` in `gpu_incus`")
        .says("did you mean `profiles`?");
    fleet.want(
        1,
        "gpu_incus:\n  instances:\n    a: {profiles: [p]}\n    v: {type: vm, profiles: [p]}\n  profiles:\n    p: {devices: {gpu: {type: gpu, gputype: mig, mig.gi: 1, mig.ci: 0}}}",
    );
    fleet
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("`a` has a MIG device and not `nvidia.runtime`")
        .says("`v` is a virtual machine, and `gpu_incus.profiles.p.devices.gpu` is `gputype: mig`");
}

/// Requirements 0.7 and 0.8.
#[test]
fn a_virtual_machine_gets_a_card_of_its_own_or_hears_why_not() {
    let vm = |device: &str, more: &str| {
        format!(
            "gpu_incus:\n  project: work\n  instances:\n    desktop:\n      type: vm\n      config: {{limits.cpu: 4, limits.memory: 8GiB, {more}}}\n      devices: {{gpu: {{type: gpu, {device}}}}}"
        )
    };
    let card = "pci: '0000:17:00.0'";
    let fleet = Fleet::new("{gpus: [{product: H100-80GB, count: 2}]}");
    fleet.want(1, &vm(card, "security.secureboot: false"));
    fleet.daemon(DESKTOP);
    fleet
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("give Incus instance desktop (project work) the device gpu")
        .says("set security.secureboot of Incus instance desktop")
        .says("set limits.memory of Incus instance desktop")
        .says("vfio-pci")
        .says("needs a driver of its own in the guest");
    fleet.want(1, &vm(card, "limits.disk.priority: 1"));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("boots securely");
    fleet.want(1, &(vm(card, "a.b: c") + "\ngpu_policy: shared"));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("`gpu_policy: shared` means nothing for the virtual machine desktop");
    fleet.want(1, &vm("vendorid: 10de", "a.b: c"));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("is to get one GPU, and its device means 2 of the host");
    fleet.want(1, &vm("pci: '0000:99:00.0'", "a.b: c"));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("no GPU of the host is what `desktop` is to get");
    fleet.want(1, &vm("gputype: sriov", "a.b: c"));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("there is no virtual function without a driver for `desktop`");
    let sliced = "\ncontainers_gpu_slicing: {enabled: true, strategy: mig, mig: {enabled: true, profiles: [1g.10gb]}}";
    fleet.want(1, &(vm(card, "a.b: c") + sliced));
    fleet
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("is to be sliced by mig, and the virtual machine `desktop` is to get all of it");
}

#[test]
fn the_doctor_tells_a_card_that_is_not_alone_and_an_iommu_that_is_off() {
    let fleet = Fleet::new("{gpus: [{product: H100-80GB, iommu_group: 12}]}");
    let vars = "gpu_incus:\n  project: work\n  instances:\n    desktop:\n      type: vm\n      devices: {gpu: {type: gpu, pci: '0000:17:00.0'}}";
    fleet.want(1, vars);
    fleet.daemon(DESKTOP);
    fleet
        .deploy(&["doctor"])
        .expect(2)
        .says("is not alone in its IOMMU group")
        .says("0000:09:00.0 (network card")
        .says("driverctl set-override 0000:09:00.0 vfio-pci")
        .says("lacks the device gpu")
        .says("mend: incus config device add desktop gpu gpu pci=0000:17:00.0 --project work");
    let inventory = fleet.scratch.path().join("inv/hosts.yml");
    let inventory = inventory.display().to_string();
    let broken = ["sim", "break", "-i", &inventory, "node1", "no-iommu"];
    fleet.scratch.deploy(&broken).expect(0);
    fleet
        .deploy(&["doctor"])
        .expect(2)
        .says("the IOMMU is off on the host");
}

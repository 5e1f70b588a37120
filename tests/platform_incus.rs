//! Profiles and instances of the real Incus daemon of Debian, on a host with systemd whose
//! cards are simulated: the kernel, the daemon, its containers and their device nodes are real.
//! What is there afterwards is read with the daemon's own client over plain SSH.
//!
//! Virtual machines need a KVM that runs stock kernels, which a test host has not: theirs are
//! refused or planned here, and the daemon takes their profiles.

use std::fs;

use crate::harness::Ended;
use crate::hosts::{Hosts, available};

const CARDS: &str = "{os: debian-13, driver: '590.48.01', gpus: [H100-80GB, L40S]}";

/// The H100 and the L40S of the host.
const H100: &str = "0000:17:00.0";
const L40S: &str = "0000:31:00.0";

/// Makes a pool, a project, and an image of busybox with a `nvidia-smi` in it that says whether
/// it sees a card's node; then empty and running containers.
const PREPARE: &str = r#"set -e
incus storage create default dir </dev/null
incus profile device add default root disk path=/ pool=default
incus project create homelab -c features.profiles=true -c features.images=false </dev/null
incus profile device add default root disk path=/ pool=default --project homelab
mkdir -p /tmp/img/rootfs/bin /tmp/img/rootfs/sbin /tmp/img/rootfs/etc /tmp/img/rootfs/dev \
    /tmp/img/rootfs/proc /tmp/img/rootfs/sys /tmp/img/rootfs/tmp /tmp/img/rootfs/usr/bin
cd /tmp/img
cp /bin/busybox rootfs/bin/
for name in sh ls cat sleep init test; do ln -s /bin/busybox rootfs/bin/$name; done
ln -s /bin/busybox rootfs/sbin/init
printf '::sysinit:/bin/true\n::respawn:/bin/sleep 100000\n' >rootfs/etc/inittab
printf 'architecture: x86_64\ncreation_date: 1700000000\n' >metadata.yaml
printf '#!/bin/sh\nls /dev/nvidia[0-9]* && echo GPU 0 || { echo no devices were found >&2; exit 6; }\n' >rootfs/usr/bin/nvidia-smi
chmod 755 rootfs/usr/bin/nvidia-smi
tar -cf /tmp/img.tar metadata.yaml rootfs
incus image import /tmp/img.tar --alias busybox
rm -rf /tmp/img /tmp/img.tar
"#;

struct Incus {
    hosts: Hosts,
}

impl Incus {
    fn start() -> Option<Self> {
        if !available() {
            return None;
        }
        let hosts = Hosts::incus(CARDS);
        hosts.on("h1", PREPARE).expect(0);
        Some(Self { hosts })
    }

    /// The variables of the host; slices are not managed unless these say so.
    fn want(&self, vars: &str) {
        let slicing = match vars.contains("containers_gpu_slicing") {
            true => "",
            false => "containers_gpu_slicing: {enabled: false}\n",
        };
        let folder = self.hosts.inventory().join("host_vars");
        fs::create_dir_all(&folder).expect("a folder");
        let text = format!("gpu_platform: incus\n{slicing}{vars}");
        fs::write(folder.join("h1.yml"), text).expect("a file");
    }

    fn apply(&self) -> Ended {
        self.hosts.deploy(&["gpu", "--yes", "--diff"])
    }

    /// Applies, and again, which must find nothing to do.
    fn applied(&self) -> Ended {
        let ended = self.apply().expect(0);
        self.hosts
            .deploy(&["gpu", "--check"])
            .expect(0)
            .says("changed=0");
        ended
    }

    /// What the daemon's client says, over plain SSH.
    fn incus(&self, words: &str) -> String {
        let ended = self.hosts.ssh("h1", &format!("incus {words} </dev/null"));
        ended.expect(0).out
    }

    /// All that the daemon has.
    fn everything(&self) -> String {
        self.incus("query '/1.0/profiles?recursion=1&all-projects=true'")
            + &self.incus("query '/1.0/instances?recursion=1&all-projects=true'")
    }
}

#[test]
fn profiles_and_instances_of_the_real_daemon() {
    let Some(incus) = Incus::start() else { return };
    profiles_of_each_type(&incus);
    a_device_goes_to_an_instance_and_what_others_made_stays(&incus);
    a_running_container_sees_its_card(&incus);
}

/// Every `gputype`, made, unchanged the second time, changed, and rolled back.
fn profiles_of_each_type(incus: &Incus) {
    let before = incus.everything();
    let uuid = "MIG-11111111-2222-3333-4444-555555555555";
    let profiles = |pci: &str| {
        format!(
            "gpu_incus:
  project: homelab
  profiles:
    nvidia-compute:
      devices: {{gpu: {{type: gpu, gputype: physical, pci: {pci}}}}}
    gpu-passthrough:
      config: {{security.secureboot: false}}
      devices: {{gpu: {{type: gpu, pci: '0000:31:00.0'}}}}
    vgpu:
      devices: {{gpu: {{type: gpu, gputype: mdev, mdev: nvidia-712}}}}
    slice:
      config: {{nvidia.runtime: true}}
      devices: {{gpu: {{type: gpu, gputype: mig, mig.uuid: {uuid}}}}}
    vf:
      devices: {{gpu: {{type: gpu, gputype: sriov, pci: 0000:31:00.0}}}}
"
        )
    };
    incus.want(&profiles(H100));
    incus
        .applied()
        .says("make Incus profile nvidia-compute (project homelab)");
    let show = |name: &str| incus.incus(&format!("profile show {name} --project homelab"));
    for (name, lines) in [
        (
            "nvidia-compute",
            vec!["gputype: physical", "pci: 0000:17:00.0"],
        ),
        (
            "gpu-passthrough",
            vec!["security.secureboot: \"false\"", "pci: 0000:31:00.0"],
        ),
        ("vgpu", vec!["gputype: mdev", "mdev: nvidia-712"]),
        (
            "slice",
            vec!["gputype: mig", uuid, "nvidia.runtime: \"true\""],
        ),
        ("vf", vec!["gputype: sriov", "pci: 0000:31:00.0"]),
    ] {
        let text = show(name).replace("\"0000:", "0000:").replace(".0\"", ".0");
        for line in lines {
            assert!(text.contains(line), "{name} lacks `{line}`:\n{text}");
        }
    }
    // What somebody else set by hand stays, when we change what is ours and when it goes.
    incus.incus("profile set nvidia-compute user.theirs=1 limits.cpu=3 --project homelab");
    incus.incus("profile device add nvidia-compute extra none --project homelab");
    incus.want(&profiles(L40S));
    incus
        .applied()
        .says("change the device gpu of Incus profile nvidia-compute");
    let changed = show("nvidia-compute");
    for line in ["user.theirs", "limits.cpu", "extra:", L40S] {
        assert!(changed.contains(line), "{changed}");
    }
    incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    let back = show("nvidia-compute");
    for line in ["user.theirs", "limits.cpu", "extra:", H100] {
        assert!(back.contains(line), "{back}");
    }
    incus.incus("profile unset nvidia-compute user.theirs --project homelab");
    incus.incus("profile unset nvidia-compute limits.cpu --project homelab");
    incus.incus("profile device remove nvidia-compute extra --project homelab");
    incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(incus.everything(), before);
}

fn a_device_goes_to_an_instance_and_what_others_made_stays(incus: &Incus) {
    incus.incus("create --empty llm --project homelab -c user.theirs=1");
    incus.incus("create --empty other --project homelab");
    let before = incus.everything();
    let with = |instances: &str| {
        incus.want(&format!(
            "gpu_incus:
  project: homelab
  profiles:
    nvidia-compute:
      devices: {{gpu: {{type: gpu, gputype: physical, pci: {H100}}}}}
  instances:
{instances}"
        ));
    };
    with(
        "    llm: {type: lxc, gpu: true, profiles: [default, nvidia-compute], config: {limits.cpu: 2}}\n",
    );
    incus.applied();
    let show =
        |name: &str| incus.incus(&format!("config show {name} --project homelab --expanded"));
    let llm = show("llm");
    for line in [
        "- nvidia-compute",
        "gputype: physical",
        "limits.cpu: \"2\"",
        "user.theirs",
    ] {
        assert!(llm.contains(line), "{llm}");
    }
    // The card moves to another: taken from the one before the other has it.
    with("    other: {gpu: true, profiles: [nvidia-compute]}\n");
    incus.applied();
    assert!(!show("llm").contains("nvidia-compute"));
    assert!(!show("llm").contains("limits.cpu"));
    assert!(show("llm").contains("user.theirs"));
    assert!(show("other").contains("gputype: physical"));
    // Directly, without a profile.
    with("    other: {gpu: true}\n");
    incus.applied();
    let other = incus.incus("config device show other --project homelab");
    assert!(other.contains("gputype: physical"), "{other}");
    // No platform any more: all that is ours goes, the instances stay.
    let folder = incus.hosts.inventory().join("host_vars/h1.yml");
    let text = "gpu_platform: none\ncontainers_gpu_slicing: {enabled: false}\n";
    fs::write(folder, text).expect("a file");
    incus.applied();
    assert_eq!(incus.everything(), before);
}

fn a_running_container_sees_its_card(incus: &Incus) {
    incus.incus("create busybox runs --project homelab");
    incus.incus("start runs --project homelab");
    incus.want(&format!(
        "gpu_incus:
  project: homelab
  instances:
    runs: {{devices: {{gpu: {{type: gpu, pci: '{H100}'}}}}}}
"
    ));
    incus
        .applied()
        .says("a GPU answers in Incus instance runs (project homelab)");
    // The seed's own command. What it prints, the client loses now and then when its input is
    // empty; its status it tells.
    incus.incus("exec runs --project homelab -- nvidia-smi");
    let there = |node: &str| {
        let words = format!("incus exec runs --project homelab -- test -e {node} </dev/null");
        incus.hosts.ssh("h1", &words).code == 0
    };
    assert!(there("/dev/nvidia0"));
    assert!(!there("/dev/nvidia1"), "only the card that it was given");
    // In use: it is not taken away, nor rolled back, while the container runs.
    incus.want("gpu_incus: {project: homelab}\n");
    let refused = incus.apply().expect(3);
    refused
        .says("instance `runs` is running")
        .says("incus stop runs");
    incus
        .hosts
        .deploy(&["rollback", "--yes"])
        .says("incus stop runs --project homelab");
    assert!(
        incus
            .incus("config device show runs --project homelab")
            .contains("gpu")
    );
    incus.incus("stop -f runs --project homelab");
    incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    let left = incus.incus("config device show runs --project homelab");
    assert_eq!(left.trim(), "{}");
}

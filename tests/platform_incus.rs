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

/// Makes a pool, a project, and an image of busybox with an init that ends when it is asked to,
/// and a `nvidia-smi` that says whether it sees a card's node.
const PREPARE: &str = r#"set -e
incus storage create default dir </dev/null
incus profile device add default root disk path=/ pool=default
incus project create homelab -c features.profiles=true -c features.images=false </dev/null
incus profile device add default root disk path=/ pool=default --project homelab
mkdir -p /tmp/img/rootfs/bin /tmp/img/rootfs/sbin /tmp/img/rootfs/etc /tmp/img/rootfs/dev \
    /tmp/img/rootfs/proc /tmp/img/rootfs/sys /tmp/img/rootfs/tmp /tmp/img/rootfs/usr/bin
cd /tmp/img
cp /bin/busybox rootfs/bin/
for name in sh ls cat rm sleep test umount; do ln -s /bin/busybox rootfs/bin/$name; done
printf '#!/bin/sh\ntrap "exit 0" PWR TERM\nwhile :; do sleep 100 & wait $!; done\n' >rootfs/sbin/init
chmod 755 rootfs/sbin/init
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
    an_instance_is_made_from_its_image_and_the_client_leaves_nothing(&incus);
    what_the_daemon_refuses_is_undone_as_a_whole(&incus);
    what_a_guest_is_told_is_in_no_argument_and_no_plan(&incus);
    an_undo_starts_the_daemon_that_it_needs(&incus);
    a_running_container_sees_its_card(&incus);
    the_doctor_finds_each_fault_and_its_command_mends_it(&incus);
    mig_devices_are_given_out_by_profile(&incus);
    what_a_virtual_machine_lacks_is_told(&incus);
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

fn an_instance_is_made_from_its_image_and_the_client_leaves_nothing(incus: &Incus) {
    let before = incus.everything();
    incus.want(
        "gpu_incus:
  project: homelab
  instances:
    made: {image: busybox, gpu: true, profiles: [default], config: {limits.cpu: 1}}
",
    );
    let homes = "rm -rf /root/.config; [ ! -e /root/.config ]";
    incus.hosts.ssh("h1", homes).expect(0);
    incus.applied();
    // Neither a look nor a change makes the client's folder in the home.
    incus.hosts.ssh("h1", "[ ! -e /root/.config ]").expect(0);
    let made = incus.incus("config show made --project homelab");
    for line in ["gputype: physical", "limits.cpu: \"1\"", "- default"] {
        assert!(made.contains(line), "{made}");
    }
    incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(incus.everything(), before);
    incus.want(
        "gpu_incus: {project: homelab, instances: {made: {gpu: true}}}
",
    );
    let refused = incus.apply().expect(3);
    refused.says("there is no instance `made` in project `homelab` on the host");
    incus.want("gpu_incus: {project: nowhere, instances: {made: {gpu: true}}}\n");
    let refused = incus.apply().expect(3);
    refused.says("incus project create nowhere");
}

/// cloud-init's data and variables of processes, on a new profile, a new instance and one that
/// is there; every process that the client was started as is looked at.
fn what_a_guest_is_told_is_in_no_argument_and_no_plan(incus: &Incus) {
    let before = incus.everything();
    let spy = "mkdir -p /usr/local/bin && mv /usr/bin/incus /usr/bin/incus.real && \
        printf '#!/bin/sh\\nprintf \"%%s\\\\n\" \"$*\" >>/tmp/words\\nexec /usr/bin/incus.real \"$@\"\\n' \
        >/usr/bin/incus && chmod 755 /usr/bin/incus";
    incus.hosts.on("h1", spy).expect(0);
    let want = |password: &str| {
        incus.want(&format!(
            "gpu_incus:
  project: homelab
  profiles:
    told: {{config: {{cloud-init.vendor-data: 'password: {password}-1'}}}}
  instances:
    llm: {{gpu: true, config: {{environment.TOKEN: {password}-2}}}}
    made: {{image: busybox, config: {{user.user-data: \"#cloud-config\\npassword: {password}-3\\n\"}}}}
"
        ));
    };
    for password in ["hunter2", "tiger3"] {
        want(password);
        let plan = incus.hosts.deploy(&["gpu", "--check", "--diff"]).expect(2);
        let plan = plan.says("(not shown)");
        assert!(!plan.all().contains(password), "{}", plan.all());
        let ended = incus.applied();
        assert!(!ended.all().contains(password), "{}", ended.all());
        let has = incus.everything();
        for number in 1..=3 {
            assert!(has.contains(&format!("{password}-{number}")), "{has}");
        }
    }
    for _ in 0..2 {
        incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    }
    assert_eq!(incus.everything(), before);
    let words = incus.hosts.on(
        "h1",
        "mv /usr/bin/incus.real /usr/bin/incus; cat /tmp/words; rm /tmp/words",
    );
    let words = words.expect(0).out;
    assert!(words.contains("environment.TOKEN=-"), "{words}");
    assert!(
        !words.contains("hunter2") && !words.contains("tiger3"),
        "{words}"
    );
}

/// As at a boot that has not come to the daemon yet.
fn an_undo_starts_the_daemon_that_it_needs(incus: &Incus) {
    let before = incus.everything();
    incus.want("gpu_incus: {project: homelab, instances: {llm: {gpu: true}}}\n");
    incus.applied();
    let stop = "systemctl stop incus.socket incus-user.socket incus.service";
    incus.hosts.on("h1", stop).expect(0);
    incus.hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(incus.everything(), before);
}

/// A step that fails in the middle: the daemon does not take the number.
fn what_the_daemon_refuses_is_undone_as_a_whole(incus: &Incus) {
    let before = incus.everything();
    incus.want(&format!(
        "gpu_incus:
  project: homelab
  profiles:
    nvidia-compute:
      devices: {{gpu: {{type: gpu, pci: '{H100}'}}}}
  instances:
    llm: {{gpu: true, profiles: [nvidia-compute], config: {{limits.cpu: banana}}}}
"
    ));
    let failed = incus.apply().expect(3);
    let failed = failed.says("limits.cpu");
    assert!(failed.out.contains("rolled-back=1"), "{}", failed.all());
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

impl Incus {
    /// What the doctor finds: each with the command that mends it.
    fn findings(&self, code: i32) -> Vec<(String, String)> {
        let said = self.hosts.deploy(&["doctor"]).expect(code).out;
        let what = said.lines().filter_map(|line| line.strip_prefix("  ! "));
        let mend = said
            .lines()
            .filter_map(|line| line.strip_prefix("    mend: "));
        what.zip(mend)
            .map(|(what, mend)| (what.to_owned(), mend.to_owned()))
            .collect()
    }

    /// Breaks something, has the doctor find exactly that, and mends it by the doctor's word.
    fn breaks_and_mends(&self, break_it: &str, what: &str, command: &str) {
        self.hosts.ssh("h1", break_it).expect(0);
        let found = self.findings(2);
        let [(said, mend)] = &found[..] else {
            panic!("one finding after `{break_it}`: {found:?}");
        };
        assert!(said.contains(what), "{said}");
        assert_eq!(mend, command);
        self.hosts
            .ssh("h1", &format!("{mend} </dev/null"))
            .expect(0);
        assert_eq!(self.findings(0), []);
    }
}

/// The troubleshooting of the seed (requirement 0.10), each fault made on the real daemon.
fn the_doctor_finds_each_fault_and_its_command_mends_it(incus: &Incus) {
    incus.want(&format!(
        "gpu_incus:
  project: homelab
  profiles:
    nvidia-compute:
      devices: {{gpu: {{type: gpu, gputype: physical, pci: '{H100}'}}}}
  instances:
    runs: {{type: lxc, profiles: [default, nvidia-compute]}}
"
    ));
    incus.applied();
    incus.incus("start runs --project homelab");
    let well = incus.hosts.deploy(&["doctor"]).expect(0);
    well.says("h1: nothing is wrong");
    let before = incus.everything();
    incus.breaks_and_mends(
        "incus profile device remove nvidia-compute gpu --project homelab",
        "the profile nvidia-compute of project homelab lacks the device gpu",
        "incus profile device add nvidia-compute gpu gpu gputype=physical pci=0000:17:00.0 --project homelab",
    );
    incus.breaks_and_mends(
        "incus profile remove runs nvidia-compute --project homelab",
        "the instance runs (project homelab) lacks the profile nvidia-compute",
        "incus profile add runs nvidia-compute --project homelab",
    );
    incus.breaks_and_mends(
        "incus exec runs --project homelab -- umount /dev/nvidia0 </dev/null; \
         incus exec runs --project homelab -- rm -f /dev/nvidia0 </dev/null",
        "has a GPU device and sees no GPU, as after a restart that lost it",
        "incus restart runs --project homelab",
    );
    let after = incus.everything();
    assert_eq!(without_volatile(&after), without_volatile(&before));
    // These two take NVIDIA's libraries to mend, which the image has not.
    let break_it = |script: &str| {
        let text = format!(
            "printf '%s' '{script}' | incus file push - runs/usr/bin/nvidia-smi --mode 0755 --project homelab"
        );
        incus.hosts.ssh("h1", &text).expect(0);
    };
    break_it(
        "#!/bin/sh\necho Failed to initialize NVML: Driver/library version mismatch; exit 18\n",
    );
    let found = incus.findings(2);
    assert!(
        found[0].0.contains("of another version than the host"),
        "{found:?}"
    );
    assert!(found[0].0.contains("590.48.01"), "{found:?}");
    let runtime = "incus config set runs nvidia.runtime=true --project homelab; incus restart runs --project homelab";
    assert_eq!(found[0].1, runtime);
    incus.incus("exec runs --project homelab -- rm /usr/bin/nvidia-smi");
    let found = incus.findings(2);
    assert!(
        found[0]
            .0
            .contains("there is no nvidia-smi in the instance runs"),
        "{found:?}"
    );
    assert_eq!(found[0].1, runtime);
    incus.incus("stop -f runs --project homelab");
    incus.incus("delete runs --project homelab");
    let found = incus.findings(2);
    assert!(
        found[0].0.contains("there is no instance runs"),
        "{found:?}"
    );
    assert_eq!(found[0].1, "incus create IMAGE runs --project homelab");
    let json = incus
        .hosts
        .deploy(&["doctor", "--output", "json"])
        .expect(2)
        .out;
    assert!(
        json.contains("\"type\":\"diagnostic\"") && json.contains("there is no instance"),
        "{json}"
    );
    assert!(
        json.trim_end().ends_with('}') && json.contains("\"exit\":2"),
        "{json}"
    );
    incus.want("gpu_incus: {project: homelab}\n");
    incus.applied();
}

/// The daemon's own notes differ after each start.
fn without_volatile(json: &str) -> Vec<&str> {
    let own = ["\"volatile.", "\"last_used_at\"", "\"status"];
    json.lines()
        .filter(|line| !own.iter().any(|word| line.trim_start().starts_with(word)))
        .collect()
}

/// Slices that the same run makes, and slices that are there.
fn mig_devices_are_given_out_by_profile(incus: &Incus) {
    incus.incus("create --empty one --project homelab");
    incus.incus("create --empty two --project homelab");
    let want = |profiles: &str, second: &str| {
        incus.want(&format!(
            "containers_gpu_slicing:
  enabled: true
  strategy: none
  gpus:
    - match: {{model: H100-80GB}}
      strategy: mig
      mig: {{enabled: true, profiles: [{profiles}]}}
gpu_incus:
  project: homelab
  instances:
    one:
      config: {{nvidia.runtime: true}}
      devices: {{gpu: {{type: gpu, gputype: mig, mig.profile: 1g.10gb}}}}
    two:
      config: {{nvidia.runtime: true}}
      devices: {{gpu: {{type: gpu, gputype: mig, mig.profile: {second}, pci: {H100}}}}}
"
        ));
    };
    let has = |name: &str| {
        let words = format!("config device get {name} gpu mig.uuid --project homelab");
        incus.incus(&words).trim().to_owned()
    };
    want("3g.40gb, 1g.10gb, 1g.10gb", "1g.10gb, mig.index: 1");
    let refused = incus.apply().expect(3);
    refused.says("there is no `nvidia-container-cli` on the host");
    // Where the daemon looks for it, which no container of this test runs.
    let stub = "printf '#!/bin/sh\\n' >/usr/bin/nvidia-container-cli; chmod 755 /usr/bin/nvidia-container-cli";
    incus.hosts.ssh("h1", stub).expect(0);
    incus.applied();
    let listed = incus.hosts.ssh("h1", "nvidia-smi -L").expect(0).out;
    let uuid = |line: &str| {
        let (_, uuid) = line.split_once("UUID: ")?;
        Some(uuid.trim_end_matches(')').to_owned())
    };
    let small = listed.lines().filter(|line| line.contains("MIG 1g.10gb"));
    let mut small: Vec<String> = small.filter_map(uuid).collect();
    small.sort();
    assert_eq!(
        [has("one"), has("two")],
        [small[0].clone(), small[1].clone()]
    );
    // Others, of slices that are there.
    want("3g.40gb, 1g.10gb, 1g.10gb", "3g.40gb");
    incus.applied();
    let big = listed.lines().find(|line| line.contains("MIG 3g.40gb"));
    assert_eq!(has("two"), uuid(big.expect("one")).expect("a UUID"));
    // More than there will be.
    want("1g.10gb", "1g.10gb, mig.index: 1");
    let refused = incus.apply().expect(3);
    refused.says("there will be no MIG device 1g.10gb number 1");
    want("3g.40gb, 1g.10gb, 1g.10gb", "2g.20gb");
    let refused = incus.apply().expect(3);
    refused.says("there is no MIG device 2g.20gb number 0");
}

/// The test host's kernel has no IOMMU.
fn what_a_virtual_machine_lacks_is_told(incus: &Incus) {
    incus.want(&format!(
        "gpu_incus:
  project: homelab
  instances:
    desktop:
      type: vm
      config: {{security.secureboot: false}}
      devices: {{gpu: {{type: gpu, pci: {L40S}}}}}
"
    ));
    let refused = incus.apply().expect(3);
    refused
        .says("the IOMMU is off on the host")
        .says("intel_iommu=on");
    let found = incus.findings(2);
    let said = |what: &str, mend: &str| {
        found
            .iter()
            .any(|(found, by)| found.contains(what) && by.contains(mend))
    };
    assert!(said("the IOMMU is off", "update-grub"), "{found:?}");
    assert!(
        said("vfio-pci is not loaded", "modprobe vfio-pci"),
        "{found:?}"
    );
}

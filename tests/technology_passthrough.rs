//! Whole cards for virtual machines, and the kernel's command line, on simulated hosts: applied,
//! read back by lspci over plain ssh, left alone, restarted, changed, rolled back, refused.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::harness::{Ended, Scratch, ended};

/// A simulated host in an inventory of its own.
struct Lab {
    scratch: Scratch,
    inventory: String,
}

impl Lab {
    fn new(sim: &str, slicing: &str) -> Self {
        let scratch = Scratch::new();
        let mut lab = Self {
            scratch,
            inventory: String::new(),
        };
        lab.wants(sim, slicing);
        lab
    }

    fn wants(&mut self, sim: &str, slicing: &str) {
        let text = format!(
            "all:\n  hosts:\n    vm1:\n      ansible_connection: sim\n      sim: {sim}\n      \
             containers_gpu_slicing: {{enabled: true, {slicing}}}\n"
        );
        self.inventory = self.scratch.write("hosts.yml", &text).display().to_string();
    }

    fn deploy(&self, words: &[&str]) -> Ended {
        let mut all = words.to_vec();
        all.extend(["-i", &self.inventory]);
        self.scratch.deploy(&all)
    }

    /// Slices, and expects that nothing is left to do then.
    fn settles(&self, more: &[&str]) -> Ended {
        let mut words = vec!["gpu", "--yes"];
        words.extend(more);
        let first = self.deploy(&words).expect(0).says("changed=1 failed=0");
        self.deploy(&words).expect(0).says("changed=0 failed=0");
        first
    }

    fn breaks(&self, fault: &[&str]) {
        let mut words = vec!["sim", "break", "-i", &self.inventory, "vm1"];
        words.extend(fault);
        self.scratch.deploy(&words).expect(0);
    }

    fn root(&self) -> PathBuf {
        crate::technology::folder_of_the_host(&self.scratch)
    }

    fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }

    /// The drivers of functions, as the bus shows them without any tool.
    fn drivers(&self) -> String {
        let bus = self.root().join("sys/bus/pci/devices");
        let mut found: Vec<String> = fs::read_dir(bus)
            .expect("a bus")
            .filter_map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name()?.to_str()?.to_owned();
                let driver = fs::read_link(path.join("driver")).ok();
                let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
                let slot = name.strip_prefix("0000:")?;
                (slot.starts_with("17") || slot.starts_with("31"))
                    .then(|| format!("{slot} {}", driver.unwrap_or_default()))
            })
            .collect();
        found.sort();
        found.join(", ")
    }

    /// What commands say over plain ssh.
    fn over_ssh(&self, commands: &[&str]) -> Vec<Ended> {
        assert!(crate::ssh::have("ssh"), "tests/run installs it");
        let mut served = self
            .scratch
            .command(env!("CARGO_BIN_EXE_deploy"))
            .args(["sim", "serve", "-i", &self.inventory, "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let said = BufReader::new(served.stdout.take().expect("a pipe"));
        let line = said
            .lines()
            .map_while(Result::ok)
            .find(|line| line.trim_start().starts_with("ssh -F"))
            .expect("it says how to reach the host");
        let words: Vec<&str> = line.split_whitespace().collect();
        let answers = commands
            .iter()
            .map(|command| {
                let mut ssh = self.scratch.command(words[0]);
                ssh.args(&words[1..]).arg(command);
                ended(ssh.output().expect("ssh starts"))
            })
            .collect();
        let _ = served.kill();
        let _ = served.wait();
        answers
    }

    /// `lspci -nnk` over plain ssh: address and driver of NVIDIA's functions.
    fn lspci(&self) -> String {
        let shown = self.over_ssh(&["lspci -nnk -d 10de:"]).remove(0).expect(0);
        let mut found = Vec::new();
        let mut address = "";
        for line in shown.out.lines() {
            match line.trim_start().strip_prefix("Kernel driver in use: ") {
                Some(driver) => found.push(format!("{address} {driver}")),
                None if !line.starts_with('\t') => {
                    address = line.split(' ').next().unwrap_or_default();
                }
                None => {}
            }
        }
        found.join(", ")
    }
}

const TWO: &str =
    "{gpus: [{product: H100-80GB, functions: [audio, usb, ucsi]}, {product: H100-80GB}]}";
const FIRST: &str = "strategy: none, gpus: [{match: {index: 0}, strategy: passthrough}]";
const BOUND: &str =
    "17:00.0 vfio-pci, 17:00.1 vfio-pci, 17:00.2 vfio-pci, 17:00.3 vfio-pci, 31:00.0 nvidia";
const FREE: &str =
    "17:00.0 nvidia, 17:00.1 snd_hda_intel, 17:00.2 xhci_hcd, 17:00.3 nvidia-gpu, 31:00.0 nvidia";

#[test]
fn a_card_goes_with_its_functions_stays_over_a_restart_and_comes_back() {
    let mut lab = Lab::new(TWO, FIRST);
    lab.settles(&[])
        .says("goes with it: 0000:17:00.1 (audio)")
        .says("the host and its containers no longer see it");
    assert_eq!(lab.lspci(), BOUND);
    let listed = lab.over_ssh(&[
        "nvidia-smi -L",
        "cat \"$R\"/sys/bus/pci/devices/0000:17:00.0/driver_override",
    ]);
    assert_eq!(listed[0].out.lines().count(), 1, "{}", listed[0].all());
    assert_eq!(listed[1].out.trim(), "vfio-pci");

    lab.breaks(&["reboot"]);
    assert_eq!(lab.lspci(), BOUND);
    // The card that is left is number 0 for its driver now; `index: 0` still means the first.
    lab.deploy(&["gpu", "--yes"])
        .expect(0)
        .says("changed=0 failed=0");

    // Another layout, and back.
    lab.wants(TWO, "strategy: passthrough");
    lab.settles(&[]);
    assert_eq!(
        lab.drivers(),
        BOUND.replace("31:00.0 nvidia", "31:00.0 vfio-pci")
    );
    lab.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(lab.drivers(), BOUND);

    lab.wants(TWO, "strategy: none");
    lab.settles(&[]).says("take GPU 0000:17:00.0");
    assert_eq!(lab.lspci(), FREE);
    assert_eq!(lab.file("etc/deploy/gpu/passthrough.conf"), None);
    assert_eq!(lab.file("etc/modules-load.d/deploy-passthrough.conf"), None);
    lab.breaks(&["reboot"]);
    assert_eq!(lab.drivers(), FREE);
}

#[test]
fn an_iommu_that_is_off_takes_a_restart_with_leave() {
    let sim = "{gpus: [H100-80GB], cmdline: \"BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet\"}";
    let lab = Lab::new(sim, "strategy: passthrough");
    lab.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("the IOMMU is off")
        .says("intel_iommu=on")
        .says("--allow-reboot");
    assert_eq!(lab.drivers(), "17:00.0 nvidia");
    assert_eq!(lab.file("etc/default/grub.d/60-deploy.cfg"), None);

    lab.settles(&["--allow-reboot"])
        .says("restart the host")
        .says("# present: intel_iommu=on");
    assert_eq!(lab.drivers(), "17:00.0 vfio-pci");
    let running = lab.file("proc/cmdline").expect("it is there");
    assert!(running.contains(" intel_iommu=on"), "{running}");
    lab.breaks(&["reboot"]);
    assert_eq!(lab.drivers(), "17:00.0 vfio-pci");

    lab.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(lab.drivers(), "17:00.0 nvidia");
    assert_eq!(lab.file("etc/default/grub.d/60-deploy.cfg"), None);
    let next = lab.file("boot/grub/grub.cfg").expect("it is there");
    assert!(!next.contains("intel_iommu"), "{next}");
}

#[test]
fn the_kernels_arguments_go_with_the_last_card_if_they_came_with_the_first() {
    for (loader, os, file) in [
        ("grub", "debian-13", "boot/grub/grub.cfg"),
        ("grubby", "rocky-9", "boot/loader/entries"),
        ("systemd-boot", "debian-13", "etc/kernel/cmdline"),
        ("proxmox", "debian-13", "etc/kernel/cmdline"),
    ] {
        let sim = format!(
            "{{gpus: [{{product: H100-80GB, count: 2}}], os: {os}, boot_loader: {loader}, cmdline: \"root=/dev/sda1 ro quiet iommu=off\"}}"
        );
        let mut lab = Lab::new(&sim, "strategy: passthrough");
        // What the next boot gives to the kernel.
        let next = |lab: &Lab| {
            let path = lab.root().join(file);
            if path.is_file() {
                return fs::read_to_string(path).expect("readable");
            }
            let entries = fs::read_dir(path).expect("entries");
            let entry = entries.flatten().next().expect("an entry").path();
            fs::read_to_string(entry).expect("readable")
        };
        lab.deploy(&["discover"]).expect(0);
        let before = next(&lab);
        lab.settles(&["--allow-reboot"]);
        assert!(next(&lab).contains("intel_iommu=on"), "{loader}");
        assert!(!next(&lab).contains(" iommu=off"), "{loader}");
        let kept = lab
            .file("etc/deploy/gpu/passthrough.conf")
            .expect("it is there");
        assert!(kept.contains("came with it: +intel_iommu=on -"), "{kept}");

        // One card is still with a virtual machine.
        lab.wants(
            &sim,
            "strategy: none, gpus: [{match: {index: 1}, strategy: passthrough}]",
        );
        lab.settles(&[]);
        assert!(next(&lab).contains("intel_iommu=on"), "{loader}");
        lab.wants(&sim, "strategy: none");
        lab.settles(&[]).says("have the next boot ");
        assert_eq!(next(&lab), before, "{loader}");
        assert_eq!(lab.file("etc/default/grub.d/60-deploy.cfg"), None);
        lab.deploy(&["rollback", "--yes"]).expect(0);
        assert!(next(&lab).contains("intel_iommu=on"), "{loader}");
    }
    // Somebody else has put it there.
    let sim = "{gpus: [H100-80GB], cmdline: \"root=/dev/sda1 ro intel_iommu=on\"}";
    let mut lab = Lab::new(sim, "strategy: passthrough");
    lab.settles(&[]);
    lab.wants(sim, "strategy: none");
    lab.settles(&[]);
    let next = lab.file("boot/grub/grub.cfg").expect("it is there");
    assert!(next.contains("intel_iommu=on"), "{next}");
}

#[test]
fn what_must_stay_on_the_host_is_named_and_nothing_is_touched() {
    let refused = |sim: &str, slicing: &str, fault: &[&str], words: &[&str]| {
        let lab = Lab::new(sim, slicing);
        if !fault.is_empty() {
            lab.breaks(fault);
        }
        let mut said = lab.deploy(&["gpu", "--yes", "--allow-reboot"]).expect(3);
        for word in words {
            said = said.says(word);
        }
        assert!(!lab.drivers().contains("vfio-pci"), "{}", lab.drivers());
        assert_eq!(lab.file("etc/deploy/gpu/passthrough.conf"), None);
    };
    let disk = "shares IOMMU group 40 with 0000:05:00.0 (disk controller 144d:a80a, driver nvme), which must stay on the host";
    refused(
        "{gpus: [H100-80GB]}",
        "strategy: passthrough",
        &["shared-group", "0000:17:00.0"],
        &[disk],
    );
    refused(
        "{gpus: [{product: H100-80GB, iommu_group: 12}]}",
        "strategy: passthrough",
        &[],
        &["0000:09:00.0 (network card", "driver mlx5_core"],
    );
    let together = "{gpus: [{product: H100-80GB, count: 2, iommu_group: 40}]}";
    refused(
        together,
        FIRST,
        &[],
        &[
            "0000:31:00.0 (GPU 10de:2330, driver nvidia)",
            "give that GPU `strategy: passthrough` as well",
        ],
    );
    refused(
        "{gpus: [H100-80GB]}",
        "strategy: passthrough",
        &["no-iommu"],
        &["the IOMMU is off", "VT-d"],
    );
    refused(
        "{gpus: [H100-80GB], processor: amd}",
        "strategy: passthrough",
        &["no-iommu"],
        &["the IOMMU is off", "AMD-Vi", "without any argument"],
    );
    refused(
        "{gpus: [H100-80GB]}",
        "strategy: passthrough",
        &["in-use", "--gpu", "0", "--command", "train"],
        &["is in use by pid", "train"],
    );
    // A whole group may go.
    let lab = Lab::new(together, "strategy: passthrough");
    lab.settles(&[]);
    assert_eq!(lab.drivers(), "17:00.0 vfio-pci, 31:00.0 vfio-pci");
    lab.breaks(&["reboot"]);
    assert_eq!(lab.drivers(), "17:00.0 vfio-pci, 31:00.0 vfio-pci");
}

#[test]
fn a_card_that_a_virtual_machine_has_is_not_taken_back() {
    let sim = "{gpus: [H100-80GB]}";
    let mut lab = Lab::new(sim, "strategy: passthrough");
    lab.settles(&[]);
    lab.breaks(&[
        "in-use",
        "--node",
        "/dev/vfio/40",
        "--command",
        "qemu-system-x86",
    ]);
    lab.wants(sim, "strategy: none");
    lab.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("qemu-system-x86");
    lab.deploy(&["rollback", "--yes"]).says("qemu-system-x86");
    assert_eq!(lab.drivers(), "17:00.0 vfio-pci");
    lab.wants(sim, "strategy: mig, mig: {profiles: [1g.10gb]}");
    lab.deploy(&["gpu", "--yes"])
        .expect(3)
        .says("is handed over to virtual machines")
        .says("apply `strategy: none` first");
}

#[test]
fn slices_go_before_the_card_does_and_a_rollback_brings_them_back() {
    let sim = "{gpus: [H100-80GB]}";
    let mut lab = Lab::new(sim, "strategy: mig, mig: {profiles: [3g.40gb, 1g.10gb]}");
    lab.settles(&[]);
    let before = lab.over_ssh(&["nvidia-smi -L"]).remove(0).expect(0).out;
    assert_eq!(before.matches("MIG ").count(), 2, "{before}");
    lab.wants(sim, "strategy: passthrough");
    lab.settles(&[]);
    assert_eq!(lab.lspci(), "17:00.0 vfio-pci");
    lab.deploy(&["rollback", "--yes"]).expect(0);
    let after = lab.over_ssh(&["nvidia-smi -L"]).remove(0).expect(0).out;
    assert_eq!(before, after);
}

#[test]
fn a_card_that_tells_no_uuid_any_more_is_not_matched_by_it() {
    let lab = Lab::new(
        "{gpus: [H100-80GB]}",
        "strategy: none, gpus: [{match: {uuid: GPU-1}, strategy: passthrough}]",
    );
    lab.deploy(&["gpu", "--yes"])
        .expect(1)
        .says("tells no UUID any more")
        .says("match it by its address");
}

/// NVIDIA's driver waits for whoever has the card open; so does the simulated kernel.
#[test]
fn taking_a_card_from_its_driver_hangs_while_somebody_holds_it() {
    let lab = Lab::new("{gpus: [H100-80GB]}", "strategy: none");
    lab.deploy(&["discover"]).expect(0);
    lab.breaks(&["in-use", "--gpu", "0"]);
    let unbind = "echo 0000:17:00.0 | timeout 1 tee \"$R\"/sys/bus/pci/drivers/nvidia/unbind";
    let said = lab.over_ssh(&[unbind]).remove(0);
    assert_eq!(said.code, 124, "{}", said.all());
    assert_eq!(lab.drivers(), "17:00.0 nvidia");
    // A function's driver is the kernel's choice or the one that is named, and no other.
    let said = lab.over_ssh(&[
        "echo 0000:05:00.0 | tee \"$R\"/sys/bus/pci/drivers/nvme/unbind",
        "echo 0000:05:00.0 | tee \"$R\"/sys/bus/pci/drivers/nvidia/bind",
        "echo 0000:05:00.0 | tee \"$R\"/sys/bus/pci/drivers_probe",
    ]);
    assert_eq!((said[0].code, said[1].code, said[2].code), (0, 1, 0));
    assert!(said[1].err.contains("No such device"), "{}", said[1].all());
}

#[test]
fn each_boot_loader_is_told_and_its_next_boot_has_the_arguments() {
    for (loader, os, place) in [
        ("grub", "debian-13", "etc/default/grub.d/60-deploy.cfg"),
        ("grubby", "rocky-9", "boot/loader/entries"),
        ("systemd-boot", "debian-13", "etc/kernel/cmdline"),
        ("proxmox", "debian-13", "etc/kernel/cmdline"),
    ] {
        let sim = format!(
            "{{os: {os}, boot_loader: {loader}, cmdline: \"root=/dev/sda1 ro quiet mitigations=off\"}}"
        );
        let lab = Lab::new(&sim, "strategy: none");
        let play = lab.scratch.write(
            "play.yml",
            "- hosts: all\n  tasks:\n    - kernel_cmdline: {present: [iommu=pt, hugepages=16], absent: [mitigations], initramfs: true}\n",
        );
        let play = play.display().to_string();
        let run = |more: &[&str]| {
            let mut words = vec!["run", play.as_str(), "--yes"];
            words.extend(more);
            lab.deploy(&words)
        };
        let running = || lab.file("proc/cmdline").expect("it is there");
        lab.deploy(&["discover"]).expect(0);
        let booted = running();
        let before = crate::harness::tree_without_times(&lab.root().join("boot"));
        // Without leave the next boot is prepared, and that it waits is said each time.
        let waits = "which it has only after a restart; nothing restarts it without leave";
        run(&[]).expect(0).says("changed=1 failed=0").says(waits);
        assert!(lab.root().join(place).exists(), "{loader}");
        run(&[]).expect(0).says("changed=0 failed=0").says(waits);
        assert_eq!(running(), booted, "{loader}");
        lab.deploy(&["rollback", "--yes"]).expect(0);
        let mut after = crate::harness::tree_without_times(&lab.root().join("boot"));
        // The initramfs is made anew on the way back, and there was none.
        after.retain(|path, _| !path.display().to_string().starts_with("init"));
        assert_eq!(
            crate::harness::differing(&before, &after),
            Vec::<PathBuf>::new(),
            "{loader}"
        );

        // With leave it is in force at the end.
        run(&["--allow-reboot"]).expect(0).says("restart the host");
        let line = running();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(
            words.contains(&"iommu=pt") && words.contains(&"hugepages=16"),
            "{loader}: {line}"
        );
        assert!(
            words.contains(&"quiet") && !line.contains("mitigations"),
            "{loader}: {line}"
        );
        run(&["--allow-reboot"])
            .expect(0)
            .says("changed=0 failed=0");
    }
}

#[test]
fn arguments_that_no_kernel_takes_are_found_before_anything_is_connected() {
    let lab = Lab::new("{}", "strategy: none");
    for (args, said) in [
        ("{present: ['a b']}", "`a b` is no argument for a kernel"),
        ("{}", "needs `present` or `absent`"),
        (
            "{present: [quiet], absent: [quiet]}",
            "is to be present and absent",
        ),
    ] {
        let text = format!("- hosts: all\n  tasks:\n    - kernel_cmdline: {args}\n");
        let play = lab.scratch.write("play.yml", &text).display().to_string();
        let ended = lab.deploy(&["run", &play, "--yes"]);
        assert_ne!(ended.code, 0);
        ended.says(said);
    }
}

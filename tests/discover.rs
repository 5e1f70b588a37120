//! Discovery through its real scripts, on hosts that are folders: the scripts run in `sh`,
//! `dash`, `bash` and `busybox sh`, with a stand-in `nvidia-smi` that prints captures.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::{Discovery, DiscoveryMethod, VendorDetection};
use deploy::discover;
use deploy::facts::{Fact, HostFacts, Init, MigMode, Vendor};
use deploy::shell::Word;
use deploy::transport::{Output, Read, Reply};

/// A host: a folder with `sys`, `proc`, `etc`, and a `bin` that comes first on its PATH.
pub(super) struct Host(tempfile::TempDir);

impl Host {
    pub(super) fn new() -> Self {
        let host = Self(tempfile::tempdir().expect("a temporary folder"));
        for folder in [
            "sys/bus/pci/devices",
            "proc",
            "etc",
            "bin",
            "run/systemd/system",
        ] {
            fs::create_dir_all(host.0.path().join(folder)).expect("a folder");
        }
        // Only these may be found: a real nvidia-smi of this machine must not be.
        for program in ["cat", "ls", "sed", "touch", "uname"] {
            symlink(which(program), host.0.path().join("bin").join(program)).expect("a link");
        }
        host.file("proc/sys/kernel/arch", "x86_64\n");
        host.file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
        host.file(
            "proc/sys/kernel/random/boot_id",
            "c528388b-46e9-4d2a-b0d5-4400fdc4450b\n",
        );
        host.file("proc/cmdline", "quiet intel_iommu=on\n");
        host.file(
            "proc/modules",
            "nvidia_drm 1 0 - Live 0x0\nnvidia 1 1 nvidia_drm, Live 0x0\next4 1 1 - Live 0x0\n",
        );
        host.file(
            "etc/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        );
        host
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        symlink(target, path).expect("a link");
    }

    /// The same where a link is already.
    pub(super) fn relink(&self, path: &str, target: &str) {
        fs::remove_file(self.0.path().join(path)).expect("it was there");
        self.link(path, target);
    }

    /// A PCI device with the attributes that all have.
    pub(super) fn pci(
        &self,
        address: &str,
        vendor: &str,
        device: &str,
        class: &str,
        driver: Option<&str>,
    ) {
        let folder = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{folder}/vendor"), &format!("{vendor}\n"));
        self.file(&format!("{folder}/device"), &format!("{device}\n"));
        self.file(&format!("{folder}/class"), &format!("{class}\n"));
        self.file(
            &format!("{folder}/subsystem_vendor"),
            &format!("{vendor}\n"),
        );
        self.file(&format!("{folder}/subsystem_device"), "0x16c1\n");
        self.file(&format!("{folder}/numa_node"), "1\n");
        self.file(&format!("{folder}/reset"), "");
        self.link(
            &format!("{folder}/iommu_group"),
            "../../../../kernel/iommu_groups/38",
        );
        if let Some(driver) = driver {
            self.link(
                &format!("{folder}/driver"),
                &format!("../../../../bus/pci/drivers/{driver}"),
            );
        }
    }

    /// A process that has device nodes open.
    fn process(&self, pid: u32, comm: &str, cgroup: &str, nodes: &[&str]) {
        self.file(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.file(&format!("proc/{pid}/cgroup"), &format!("{cgroup}\n"));
        for (fd, node) in nodes.iter().enumerate() {
            self.link(&format!("proc/{pid}/fd/{fd}"), node);
        }
    }

    /// A program that answers by the words it is called with: `words) cat <<'X'`.
    pub(super) fn program(&self, name: &str, cases: &str) {
        self.file(
            &format!("bin/{name}"),
            &format!("#!/bin/sh\ncase \"$*\" in\n{cases}\n*) echo \"unexpected: $*\" >&2; exit 2 ;;\nesac\n"),
        );
        let path = self.0.path().join("bin").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// The device tree that umockdev recorded, as `/sys` would show it.
    pub(super) fn umockdev(&self, record: &str) {
        let mut device = "";
        for line in record.lines() {
            let Some((kind, value)) = line.split_once(": ") else {
                continue;
            };
            match kind {
                "P" => {
                    device = value;
                    let address = device.rsplit('/').next().expect("a name");
                    self.link(
                        &format!("sys/bus/pci/devices/{address}"),
                        &format!("../../..{device}"),
                    );
                }
                "A" => {
                    let (name, text) = value.split_once('=').expect("an attribute");
                    self.file(&format!("sys{device}/{name}"), &text.replace("\\n", "\n"));
                }
                "L" => {
                    let (name, target) = value.split_once('=').expect("a link");
                    self.link(&format!("sys{device}/{name}"), target);
                }
                _ => {}
            }
        }
    }

    pub(super) fn discover(&self, shell: &[&str], discovery: &Discovery) -> HostFacts {
        self.discover_by(&shipped(), shell, discovery)
    }

    fn discover_by(&self, catalog: &Catalog, shell: &[&str], discovery: &Discovery) -> HostFacts {
        let reads = discover::reads(discovery, catalog);
        let replies: Vec<Reply> = reads.iter().map(|read| self.answer(shell, read)).collect();
        discover::facts(&reads, &replies, catalog, discovery)
    }

    fn answer(&self, shell: &[&str], read: &Read) -> Reply {
        let Read::Command { command, .. } = read else {
            panic!("discovery asks by commands only");
        };
        let words: Vec<&str> = command
            .words
            .iter()
            .map(|word| match word {
                Word::Text(text) => text.as_str(),
                other => panic!("a word that is no text: {other:?}"),
            })
            .collect();
        let mut words = words.as_slice();
        let mut program: Vec<&str> = Vec::new();
        if words[0] == "sh" {
            program.extend(shell);
            words = &words[1..];
        }
        program.extend(words);
        let bin = self.0.path().join("bin");
        let own = bin.join(program[0]);
        let shell = shell.contains(&program[0]) || program[0] == "sh";
        let output = Command::new(if shell { which(program[0]) } else { own })
            .args(&program[1..])
            .env("R", self.0.path())
            .env("PATH", &bin)
            .env("LC_ALL", "C")
            .output();
        Reply::Command(match output {
            Ok(output) => Output {
                status: output.status.code().unwrap_or(-1),
                stdout: output.stdout,
                stderr: output.stderr,
                ..Output::default()
            },
            // What a shell says of a program that is not there.
            Err(_) => Output {
                status: 127,
                ..Output::default()
            },
        })
    }
}

/// Where this machine has a program.
fn which(program: &str) -> PathBuf {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("these tests need `{program}`"))
}

fn capture(name: &str) -> String {
    fs::read_to_string(format!("tests/fixtures/captures/nvidia/{name}")).expect("the capture")
}

fn shipped() -> Catalog {
    Catalog::load(&Content::shipped()).expect("the shipped files are right")
}

pub(super) fn auto() -> Discovery {
    Discovery::default()
}

/// An A30 with three instances, as the captures of driver 535.183.01 show it; a P40 that is
/// passed through; a BMC's display; a Flex with virtual functions.
fn mixed_host() -> Host {
    let host = Host::new();
    host.pci(
        "0000:0b:00.0",
        "0x10de",
        "0x20b7",
        "0x030200",
        Some("nvidia"),
    );
    host.file("sys/bus/pci/devices/0000:0b:00.0/drm/card1/dev", "226:1\n");
    host.pci(
        "0000:04:00.0",
        "0x10de",
        "0x1b38",
        "0x030200",
        Some("vfio-pci"),
    );
    host.pci("0000:02:00.0", "0x1a03", "0x2000", "0x030000", Some("ast"));
    host.pci("0000:03:00.0", "0x8086", "0x56c0", "0x038000", Some("i915"));
    host.pci("0000:03:00.1", "0x8086", "0x56c0", "0x038000", None);
    let pf = "sys/bus/pci/devices/0000:03:00.0";
    host.file(&format!("{pf}/sriov_totalvfs"), "31\n");
    host.file(&format!("{pf}/sriov_numvfs"), "1\n");
    host.file(&format!("{pf}/sriov_drivers_autoprobe"), "0\n");
    host.link(&format!("{pf}/virtfn0"), "../0000:03:00.1");
    host.link("sys/bus/pci/devices/0000:03:00.1/physfn", "../0000:03:00.0");
    host.pci(
        "0000:81:00.0",
        "0x1002",
        "0x74a1",
        "0x120000",
        Some("amdgpu"),
    );
    // The driver's minor number is not nvidia-smi's index here.
    host.file(
        "proc/driver/nvidia/gpus/0000:0b:00.0/information",
        "Model: \t\t NVIDIA A30\nIRQ:   \t\t 90\nDevice Minor: \t 3\n",
    );
    host.process(1, "systemd", "0::/init.scope", &["/dev/null"]);
    host.process(
        700,
        "nvidia-persiste",
        "0::/system.slice/nvidia-persistenced.service",
        &["/dev/null", "/dev/nvidia3", "/dev/nvidiactl"],
    );
    host.process(
        900,
        "qemu-system-x86",
        "0::/machine.slice/vm.scope",
        &["/dev/vfio/38"],
    );
    let lgi = "\
+-------------------------------------------------------+
| GPU instances:                                        |
|   0  MIG 1g.6gb          14        3          0:1     |
|   0  MIG 1g.6gb          14        4          1:1     |
|   0  MIG 2g.12gb          5        2          2:2     |
+-------------------------------------------------------+";
    let lci = "\
| Compute instances:                                                 |
|   0      3       MIG 1g.6gb           0         0          0:1     |
|   0      4       MIG 1g.6gb           0         0          0:1     |
|   0      2       MIG 2g.12gb          1         0          0:2     |";
    let list = "\
GPU 0: NVIDIA A30 (UUID: GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd)
  MIG 2g.12gb     Device  0: (UUID: MIG-1b8509c0-e60d-502d-8263-d434867998aa)
  MIG 1g.6gb      Device  1: (UUID: MIG-41b9eab5-8d48-5c52-9f07-82bc59af3901)
  MIG 1g.6gb      Device  2: (UUID: MIG-55dcd9bd-e6b1-549a-bcb4-0b0496bfee9c)";
    let query = "0, Enabled, Enabled, GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, NVIDIA A30, \
                 00000000:0B:00.0, 0x20B710DE, 0x153210DE, 535.183.01, 24576, Disabled, Default, 8.0";
    host.program(
        "nvidia-smi",
        &format!(
            "--query-gpu=*) cat <<'X'\n{query}\nX\n;;\n\
             'mig -lgip') cat <<'X'\n{}X\n;;\n\
             'mig -lgipp') cat <<'X'\n{}X\n;;\n\
             'mig -lgi') cat <<'X'\n{lgi}\nX\n;;\n\
             'mig -lci') cat <<'X'\n{lci}\nX\n;;\n\
             -L) cat <<'X'\n{list}\nX\n;;\n\
             'compute-policy -l') echo 'GPU 0: Timeslice: Default' ;;",
            capture("a30-24gb_535.183.01_mig-lgip.txt"),
            capture("a30-24gb_535.183.01_mig-lgipp.txt"),
        ),
    );
    host
}

#[test]
fn a_mixed_host_is_known_in_every_shell() {
    let host = mixed_host();
    let first = host.discover(&["sh"], &auto());
    for shell in [&["dash"][..], &["bash"], &["busybox", "sh"]] {
        assert_eq!(host.discover(shell, &auto()), first, "{shell:?}");
    }
    assert_eq!(first.notes, Vec::<String>::new());
    assert_eq!(first.kernel, Fact::Known("6.1.0-18-amd64".to_owned()));
    assert_eq!(first.init, Init::Systemd);
    assert_eq!(
        first.cmdline,
        Fact::Known("quiet intel_iommu=on".to_owned())
    );
    assert_eq!(first.nvidia_driver, Fact::Known("535.183.01".to_owned()));
    assert_eq!(
        first.modules.known().expect("a list"),
        &["nvidia_drm", "nvidia"]
    );
    let cards: Vec<(String, Vendor, Option<String>)> = first
        .gpus
        .iter()
        .map(|gpu| (gpu.pci.to_string(), gpu.vendor, gpu.model.known().cloned()))
        .collect();
    let card = |pci: &str, vendor, model: &str| (pci.to_owned(), vendor, Some(model.to_owned()));
    assert_eq!(
        cards,
        [
            card("0000:03:00.0", Vendor::Intel, "Flex-170"),
            card("0000:04:00.0", Vendor::Nvidia, "P40"),
            card("0000:0b:00.0", Vendor::Nvidia, "A30-24GB"),
            card("0000:81:00.0", Vendor::Amd, "MI300X"),
        ]
    );
}

#[test]
fn an_a30s_layout_is_known_with_places_and_uuids() {
    let facts = mixed_host().discover(&["sh"], &auto());
    let gpu = facts.gpus.iter().find(|gpu| gpu.device_id == 0x20b7);
    let gpu = gpu.expect("the A30");
    assert_eq!(gpu.numa_node, Fact::Known(1));
    assert_eq!(gpu.iommu_group, Fact::Known(38));
    assert_eq!(gpu.reset, Fact::Known(true));
    assert_eq!(gpu.sriov, Fact::Absent);
    let nvidia = gpu.nvidia.known().expect("nvidia-smi answered");
    assert_eq!(nvidia.timeslice, Fact::Known("Default".to_owned()));
    let mig = nvidia.mig.known().expect("it has MIG");
    assert_eq!(
        (mig.current, mig.pending),
        (MigMode::Enabled, MigMode::Enabled)
    );
    let profiles = mig.profiles.known().expect("they are listed");
    assert_eq!(profiles.len(), 5);
    assert_eq!(profiles[2].placements.known().map(Vec::len), Some(2));
    let instances = mig.instances.known().expect("they are listed");
    let shown: Vec<String> = instances
        .iter()
        .map(|gi| {
            let compute = gi.compute.known().expect("they are listed");
            let uuid = compute[0].uuid.known().expect("it is listed");
            format!(
                "{} {}@{} {}",
                gi.gi_id,
                gi.profile,
                gi.placement.start,
                &uuid[..8]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "2 2g.12gb@2 MIG-1b85",
            "3 1g.6gb@0 MIG-41b9",
            "4 1g.6gb@1 MIG-55dc"
        ]
    );
}

#[test]
fn holders_are_found_by_open_nodes_of_each_kind() {
    let facts = mixed_host().discover(&["sh"], &auto());
    let holders = |device: u16| -> Vec<String> {
        let gpu = facts.gpus.iter().find(|gpu| gpu.device_id == device);
        let holders = &gpu.expect("the card").holders;
        holders
            .known()
            .expect("everybody was looked at")
            .iter()
            .map(|holder| holder.command.clone())
            .collect()
    };
    // All cards of this host share an IOMMU group, so the virtual machine holds them all.
    assert_eq!(holders(0x20b7), ["nvidia-persiste", "qemu-system-x86"]);
    assert_eq!(holders(0x1b38), ["qemu-system-x86"]);
}

#[test]
fn a_card_on_another_driver_is_unknown_to_nvidia_smi_and_says_so() {
    let facts = mixed_host().discover(&["sh"], &auto());
    let p40 = facts.gpus.iter().find(|gpu| gpu.device_id == 0x1b38);
    assert_eq!(
        p40.expect("the P40").nvidia.unknown(),
        Some("it is bound to vfio-pci, so nvidia-smi does not see it")
    );
}

#[test]
fn a_host_without_nvidia_smi_does_not_say_that_there_is_no_mig() {
    let host = mixed_host();
    fs::remove_file(host.0.path().join("bin/nvidia-smi")).expect("it was there");
    let facts = host.discover(&["sh"], &auto());
    let a30 = facts.gpus.iter().find(|gpu| gpu.device_id == 0x20b7);
    assert_eq!(
        a30.expect("the A30").nvidia.unknown(),
        Some("nvidia-smi is not installed")
    );
    assert_eq!(
        facts.notes,
        ["there is an NVIDIA card, but nvidia-smi is not installed"]
    );
}

#[test]
fn a_driver_that_is_not_loaded_is_named_with_what_to_do() {
    let host = mixed_host();
    host.program(
        "nvidia-smi",
        "*) echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. \
         Make sure that the latest NVIDIA driver is installed and running.\"; exit 9 ;;",
    );
    let facts = host.discover(&["sh"], &auto());
    let a30 = facts.gpus.iter().find(|gpu| gpu.device_id == 0x20b7);
    let why = a30.expect("the A30").nvidia.unknown().expect("unknown");
    assert_eq!(why, "nvidia-smi: the NVIDIA driver is not loaded");
    assert!(
        facts.notes[0].contains("modprobe nvidia"),
        "{:?}",
        facts.notes
    );
}

#[test]
fn an_old_driver_is_asked_with_fewer_fields() {
    let host = mixed_host();
    let row = "0, [N/A], [N/A], GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, NVIDIA A30, 00000000:0B:00.0, \
               0x20B710DE, 0x153210DE, 450.80.02, 24576, Disabled, Default";
    host.program(
        "nvidia-smi",
        &format!(
            "*compute_cap*) echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2 ;;\n\
             --query-gpu=*) echo '{row}' ;;\n\
             'compute-policy -l') echo 'Invalid combination of input arguments.'; exit 2 ;;"
        ),
    );
    let facts = host.discover(&["sh"], &auto());
    let a30 = facts.gpus.iter().find(|gpu| gpu.device_id == 0x20b7);
    let nvidia = a30.expect("the A30").nvidia.known().expect("it answered");
    assert_eq!(nvidia.mig, Fact::Absent);
    assert!(nvidia.compute_capability.unknown().is_some());
    assert!(nvidia.timeslice.unknown().is_some());
    assert_eq!(facts.nvidia_driver, Fact::Known("450.80.02".to_owned()));
}

#[test]
fn listing_instances_without_permission_is_not_an_empty_card() {
    let host = mixed_host();
    let row = "0, Enabled, Enabled, GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, NVIDIA A30, 00000000:0B:00.0, \
               0x20B710DE, 0x153210DE, 535.183.01, 24576, Disabled, Default, 8.0";
    host.program(
        "nvidia-smi",
        &format!(
            "--query-gpu=*) echo '{row}' ;;\n\
             'mig -lgi') cat <<'X'\n{}X\nexit 4 ;;\n\
             *) exit 4 ;;",
            capture("err_insufficient-permissions_lgi.txt")
        ),
    );
    let facts = host.discover(&["sh"], &auto());
    let a30 = facts.gpus.iter().find(|gpu| gpu.device_id == 0x20b7);
    let nvidia = a30.expect("the A30").nvidia.known().expect("it answered");
    let mig = nvidia.mig.known().expect("it has MIG");
    assert_eq!(
        mig.instances.unknown(),
        Some("nvidia-smi: insufficient permissions")
    );
    assert!(mig.profiles.unknown().is_some());
}

#[test]
fn nothing_of_nvidia_is_started_where_there_is_no_card() {
    let host = Host::new();
    host.pci("0000:02:00.0", "0x1a03", "0x2000", "0x030000", Some("ast"));
    host.program("nvidia-smi", "*) touch \"$R/started\" ;;");
    let facts = host.discover(&["sh"], &auto());
    assert!(facts.gpus.is_empty() && facts.notes.is_empty());
    assert!(!host.0.path().join("started").exists());
    assert_eq!(facts.nvidia_driver, Fact::Absent);
}

#[test]
fn manual_discovery_keeps_only_what_was_named() {
    let host = mixed_host();
    let discovery = Discovery {
        method: DiscoveryMethod::Manual,
        devices: ["0", "0000:81:00.0", "00000000:0B:00.0", "GPU-nowhere", "7"]
            .map(str::to_owned)
            .to_vec(),
        ..Discovery::default()
    };
    let facts = host.discover(&["sh"], &discovery);
    let found: Vec<String> = facts.gpus.iter().map(|gpu| gpu.pci.to_string()).collect();
    assert_eq!(found, ["0000:0b:00.0", "0000:81:00.0"]);
    assert_eq!(facts.notes.len(), 2);
    assert!(facts.notes[0].contains("`GPU-nowhere`"));
}

#[test]
fn vendor_detection_is_the_word_of_that_tool_alone() {
    let host = mixed_host();
    host.program(
        "rocm-smi",
        "--showbus) echo 'GPU[0]\t\t: PCI Bus: 0000:81:00.0' ;;",
    );
    host.program(
        "intel_gpu_top",
        "-L) echo 'card0  Intel Dg2  pci:vendor=8086,device=56C0,card=0' ;;",
    );
    let found = |vendor_detection| -> Vec<Vendor> {
        let discovery = Discovery {
            vendor_detection,
            ..Discovery::default()
        };
        let facts = host.discover(&["sh"], &discovery);
        assert_eq!(facts.notes, Vec::<String>::new());
        facts.gpus.iter().map(|gpu| gpu.vendor).collect()
    };
    assert_eq!(found(VendorDetection::NvidiaSmi), [Vendor::Nvidia]);
    assert_eq!(found(VendorDetection::RocmSmi), [Vendor::Amd]);
    assert_eq!(found(VendorDetection::IntelGpuTools), [Vendor::Intel]);

    fs::remove_file(host.0.path().join("bin/rocm-smi")).expect("it was there");
    let discovery = Discovery {
        vendor_detection: VendorDetection::RocmSmi,
        ..Discovery::default()
    };
    let facts = host.discover(&["sh"], &discovery);
    assert!(facts.gpus.is_empty());
    assert_eq!(
        facts.notes,
        ["vendor_detection is rocm-smi, which is not installed"]
    );
}

#[test]
fn a_card_of_another_class_is_found_where_the_catalog_says_so() {
    let host = Host::new();
    for (address, vendor, device, class) in [
        ("0000:01:00.0", "0x8086", "0x10c9", "0x020000"),
        // Neither the id, nor the class, nor the vendor alone make it one.
        ("0000:02:00.0", "0x8086", "0x10ca", "0x020000"),
        ("0000:03:00.0", "0x8086", "0x10c9", "0x010802"),
        ("0000:04:00.0", "0x1002", "0x10c9", "0x020000"),
        ("0000:05:00.0", "0x8086", "0x0953", "0x010802"),
        ("0000:06:00.0", "0x8086", "0x56c0", "0x038000"),
    ] {
        host.pci(address, vendor, device, class, None);
    }
    let project = tempfile::tempdir().expect("a folder");
    let file = project.path().join("vars/other_gpu_models.yml");
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let models = "vendor: intel
models:
  Net: {name: A network card, pci_class: 0x02, device_ids: [{device: 0x10c9}], technologies: [sriov]}
  Disk: {name: A disk, pci_class: 0x01, device_ids: [{device: 0x0953}], technologies: [sriov]}
";
    fs::write(file, models).expect("a file");
    let (content, problems) = Content::find(Some(project.path()), &[]);
    assert!(!problems.has_errors());
    let catalog = Catalog::load(&content).expect("the models are right");
    for shell in [&["sh"][..], &["dash"], &["bash"], &["busybox", "sh"]] {
        let facts = host.discover_by(&catalog, shell, &auto());
        let found: Vec<String> = facts.gpus.iter().map(deploy::facts::Gpu::label).collect();
        assert_eq!(
            found,
            [
                "GPU 0000:01:00.0 (intel Net)",
                "GPU 0000:05:00.0 (intel Disk)",
                "GPU 0000:06:00.0 (intel Flex-170)"
            ]
        );
        let facts = host.discover(shell, &auto());
        assert_eq!(facts.gpus.len(), 1, "the shipped models name none");
    }
}

#[test]
fn the_scripts_fit_into_the_first_request() {
    let size: usize = discover::reads(&auto(), &shipped())
        .iter()
        .map(|read| match read {
            Read::Command { command, .. } => command.to_sh().len(),
            _ => 0,
        })
        .sum();
    // The request that starts the session is kept below 32 KiB, and others add to it.
    assert!(size < 14 * 1024, "{size} bytes");
}

#[test]
fn a_recorded_host_with_sixteen_virtual_functions_is_one_card() {
    let host = Host::new();
    let record =
        fs::read_to_string("tests/fixtures/captures/vgpu/a2-vgpu-host-pf-vfs-mdevs.umockdev");
    host.umockdev(&record.expect("the capture"));
    let facts = host.discover(&["sh"], &auto());
    assert_eq!(
        facts.gpus.len(),
        1,
        "virtual functions are no cards of their own"
    );
    let gpu = &facts.gpus[0];
    assert_eq!(gpu.pci.to_string(), "0000:08:00.0");
    assert_eq!(gpu.model, Fact::Known("A2".to_owned()));
    assert_eq!(gpu.subsystem, Fact::Known((0x10de, 0x157e)));
    assert_eq!(gpu.driver, Fact::Known("nvidia".to_owned()));
    assert_eq!(gpu.iommu_group, Fact::Known(38));
    assert_eq!(gpu.numa_node, Fact::Known(0));
    let sriov = gpu.sriov.known().expect("it has SR-IOV");
    assert_eq!((sriov.total_vfs, sriov.num_vfs), (16, 16));
    assert_eq!(sriov.drivers_autoprobe, Fact::Known(true));
    assert_eq!(sriov.vfs.len(), 16);
    assert_eq!(sriov.vfs[0].0.to_string(), "0000:08:00.4");
    assert_eq!(sriov.vfs[0].1, Fact::Known("nvidia".to_owned()));
}

#[test]
fn facts_are_a_table_with_layouts_and_reasons() {
    let host = mixed_host();
    let facts = host.discover(&["sh"], &auto());
    let empty = Host::new().discover(&["sh"], &auto());
    fs::remove_file(host.0.path().join("bin/nvidia-smi")).expect("it was there");
    let without = host.discover(&["sh"], &auto());
    let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
    let hosts = [("gpu01", &facts), ("gpu02", &empty), ("gpu03", &without)];
    insta::assert_snapshot!(deploy::cli::discover::table(&hosts, &catalog, 100));
}

#[test]
fn a_card_that_the_bus_hides_is_still_found_by_the_tool() {
    let host = mixed_host();
    fs::remove_dir_all(host.0.path().join("sys/bus/pci/devices")).expect("it was there");
    fs::create_dir(host.0.path().join("sys/bus/pci/devices")).expect("a folder");
    host.file("dev/nvidiactl", "");
    let facts = host.discover(&["sh"], &auto());
    let [gpu] = &facts.gpus[..] else {
        panic!("{:?}", facts.gpus);
    };
    assert_eq!(gpu.model, Fact::Known("A30-24GB".to_owned()));
    assert!(gpu.sriov.unknown().is_some() && gpu.reset.unknown().is_some());
    assert_eq!(gpu.holders.known().map(Vec::len), Some(1));

    fs::remove_dir_all(host.0.path().join("sys")).expect("it was there");
    let facts = host.discover(&["sh"], &auto());
    assert_eq!(facts.gpus.len(), 1);
}

//! Every capture of the PCI bus and the IOMMU is replayed here as a host and discovered, or
//! stands on the list with the reason why not. A new file without an entry fails.

use std::collections::BTreeSet;
use std::fs;

use deploy::facts::{BootLoader, CpuVendor, Fact, HostFacts, PciAddress};

use crate::discover::{Host, auto};

const FOLDER: &str = "tests/fixtures/captures/pci";

/// What is in a capture.
enum Is {
    /// A device that umockdev recorded: a card, with its IOMMU group and functions.
    Card(u32, usize),
    /// One that is no card.
    NoCard,
    /// Links below `/sys/kernel/iommu_groups`.
    Groups,
    /// Not read; why.
    Not(&'static str),
}

use Is::{Card, Groups, NoCard, Not};

const LSPCI: &str = "sysfs has the same ids; lspci is asked for nothing";
const DMESG: &str = "the kernel's messages are not read: /sys/class/iommu says what is in use";

#[rustfmt::skip]
const CAPTURES: &[(&str, Is)] = &[
    ("INDEX.md", Not("says where the captures are from")),
    ("dmesg-amd-vi.iommu-groups.txt", Not(DMESG)),
    ("dmesg-amd-vi.unknown-option-on.txt", Not(DMESG)),
    ("etc-default-grub.centos7-intel_iommu.txt", Not("what the next boot gives to the kernel is read from what was made of this file")),
    ("iommu-groups-paths.txt", Groups),
    ("lspci-mmnn.rtx4000sff-host.txt", Not(LSPCI)),
    ("lspci-mmnnn.mixed-lines.txt", Not(LSPCI)),
    ("lspci-nn.tesla-p40.txt", Not(LSPCI)),
    ("lspci-nnk.tesla-p40-vfio.txt", Not(LSPCI)),
    ("lspci-nnv.tesla-t4.txt", Not(LSPCI)),
    ("sysfs-pf-attrs.nvidia-a2-sriov16.umockdev", Card(38, 16)),
    ("sysfs-rootport-attrs.umockdev", NoCard),
    ("sysfs-vf-attrs.nvidia-a2.umockdev", NoCard),
];

fn text(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a readable capture")
}

fn pci(text: &str) -> PciAddress {
    text.parse().expect("an address")
}

fn discovered(host: &Host) -> HostFacts {
    let mut all = Vec::new();
    for shell in [&["sh"][..], &["dash"], &["bash"], &["busybox", "sh"]] {
        all.push(host.discover(shell, &auto()));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    all.remove(0)
}

#[test]
fn every_capture_is_on_the_list() {
    let listed: BTreeSet<String> = CAPTURES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let there: BTreeSet<String> = fs::read_dir(FOLDER)
        .expect("the folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(there, listed);
}

#[test]
fn every_capture_says_what_it_says() {
    for (name, is) in CAPTURES {
        let host = Host::new();
        match is {
            Card(group, functions) => {
                host.umockdev(&text(name));
                let facts = discovered(&host);
                assert_eq!(facts.gpus.len(), 1, "{name}");
                let card = &facts.gpus[0];
                assert_eq!(card.iommu_group, Fact::Known(*group), "{name}");
                let sriov = card.sriov.known().expect("it has SR-IOV");
                assert_eq!(sriov.vfs.len(), *functions, "{name}");
                let own = facts.passthrough.function(card.pci).expect("it is there");
                assert_eq!(own.driver, Fact::Known("nvidia".to_owned()), "{name}");
                assert_eq!(own.driver_override, Fact::Absent, "{name}");
            }
            NoCard => {
                host.umockdev(&text(name));
                let facts = discovered(&host);
                assert!(facts.gpus.is_empty(), "{name}: {:?}", facts.gpus);
            }
            Groups => groups(&host, &text(name)),
            Not(why) => assert!(!why.is_empty()),
        }
    }
}

/// The capture names members of two groups and not what they are; the first of each pair of
/// functions behind a bridge is taken for a card here.
fn groups(host: &Host, text: &str) {
    for line in text.lines() {
        let (group, address) = line
            .strip_prefix("/sys/kernel/iommu_groups/")
            .and_then(|rest| rest.split_once("/devices/"))
            .expect("a link below a group");
        let class = match address {
            bridge if bridge.starts_with("0000:00:1c") => "0x060400",
            "0000:06:00.0" => "0x030200",
            _ => "0x0b4000",
        };
        host.pci(address, "0x10de", "0x1eb8", class, None);
        let folder = format!("sys/bus/pci/devices/{address}");
        host.relink(
            &format!("{folder}/iommu_group"),
            &format!("../../../../kernel/iommu_groups/{group}"),
        );
        host.link(
            &format!("sys/kernel/iommu_groups/{group}/devices/{address}"),
            &format!("../../../../bus/pci/devices/{address}"),
        );
    }
    let facts = discovered(host);
    let card = pci("0000:06:00.0");
    assert_eq!(facts.gpus.len(), 1);
    let told: Vec<PciAddress> = facts.passthrough.functions.iter().map(|f| f.pci).collect();
    let group = [
        "0000:00:1c.0",
        "0000:00:1c.5",
        "0000:05:00.0",
        "0000:06:00.0",
    ]
    .map(pci);
    assert_eq!(told, group, "its whole group, and no other");
    let beside: Vec<PciAddress> = facts.passthrough.beside(card).map(|f| f.pci).collect();
    assert_eq!(beside, [pci("0000:05:00.0")], "bridges do not count");
    assert_eq!(facts.passthrough.companions(card).count(), 0);
}

#[test]
fn the_iommu_and_the_way_to_the_kernels_arguments_are_discovered() {
    let host = Host::new();
    assert_eq!(discovered(&host).passthrough.is_on(), Some(false));
    host.link("sys/class/iommu/dmar0", "../../devices/virtual/iommu/dmar0");
    host.file(
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\n",
    );
    host.file("usr/sbin/update-grub", "");
    host.file("usr/sbin/update-initramfs", "");
    host.file(
        "boot/grub/grub.cfg",
        "menuentry 'Debian' {\n\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro quiet intel_iommu=on\n}\n\
         \tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro single intel_iommu=on\n",
    );
    let facts = discovered(&host);
    let boot = &facts.kernel_boot;
    assert_eq!(facts.passthrough.is_on(), Some(true));
    assert_eq!(boot.loader, Fact::Known(BootLoader::Grub));
    assert_eq!(boot.cpu, Fact::Known(CpuVendor::Intel));
    let next = boot.next.known().expect("what the next boot gives");
    assert_eq!(next.join(" "), "root=UUID=1 ro quiet intel_iommu=on");
    // Red Hat's tool wins over what is only a file of its package.
    host.file("usr/sbin/grubby", "");
    host.file(
        "boot/loader/entries/a.conf",
        "title Rocky\noptions root=/dev/vda1 ro $kernelopts\n",
    );
    host.file("boot/grub2/grubenv", "# GRUB\nkernelopts=iommu=pt quiet\n");
    let boot = discovered(&host).kernel_boot;
    assert_eq!(boot.loader, Fact::Known(BootLoader::Grubby));
    let next = boot.next.known().expect("what the next boot gives");
    assert_eq!(next.join(" "), "root=/dev/vda1 ro iommu=pt quiet");
}

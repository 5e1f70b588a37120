//! Every capture of Intel's tools and hosts is parsed here into facts, or stands on the list with
//! the reason why not. A new file without an entry fails.
//!
//! What discovery asks a host by sysfs and not by a tool is replayed: the capture is turned into
//! the files of a host, and discovery must find there what the capture shows.

use std::fs;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::Discovery;
use deploy::discover::intel::xpu_smi;
use deploy::facts::{Fact, Gpu, IntelDriver, Vendor};

use crate::discover::Host;

const FOLDER: &str = "tests/fixtures/captures/intel";

enum Is {
    /// `discovery` in one of its forms: the card's number, place, name, and whether a UUID stands there.
    Listed(&'static [(u32, &'static str, &'static str, bool)]),
    /// Turned into a host's files by the test of this name.
    Replayed(&'static str),
    /// The simulated `xpu-smi` prints exactly this (`sim::tools::xpu_smi`).
    Simulated,
    /// Compared with the catalog by a test below, or by one of the catalog's own.
    Catalog,
    /// Not for any parser; why.
    Not(&'static str),
}

use Is::{Catalog as Table, Listed, Not, Replayed, Simulated};

#[rustfmt::skip]
const CAPTURES: &[(&str, Is)] = &[
    ("INDEX.md", Not("says where the captures are from")),
    ("models.json", Table),
    ("xpu-smi-vgpu.conf.v1.3", Table),
    ("xpu-smi-vgpu.conf.v2", Table),

    ("xpu-smi-discovery.v1.json", Listed(&[(0, "0000:4d:00.0", "Intel(R) Graphics [0x020a]", true)])),
    ("xpu-smi-discovery.v1.txt", Listed(&[(0, "0000:4d:00.0", "Intel(R) Graphics [0x020a]", true)])),
    ("xpu-smi-discovery-d0.v1.txt", Listed(&[(0, "0000:4d:00.0", "Intel(R) Graphics [0x020a]", true)])),
    ("xpu-smi-discovery-d0.v2.b580.txt", Listed(&[(0, "0000:03:00.0", "Intel(R) Arc(TM) B580 Graphics", true)])),
    ("xpumcli-discovery-d0.flex170.txt", Listed(&[(0, "0000:4d:00.0", "Intel(R) Graphics [0x56c0]", true)])),

    ("find-sriov_numvfs.arc-pro-b60.txt", Replayed("an_arc_pro_behind_its_switch_is_one_card_with_two_functions")),
    ("ls-iommu_group-devices.arc-pro-b60.txt", Replayed("an_arc_pro_behind_its_switch_is_one_card_with_two_functions")),
    ("lspci-nnk-grep.arc-pro-b60-2vfs.txt", Replayed("an_arc_pro_behind_its_switch_is_one_card_with_two_functions")),
    ("lspci-nn.arc-pro-b60-host.txt", Replayed("a_hosts_cards_are_found_and_other_devices_are_none")),
    ("ls-dev-dri-by-path.txt", Replayed("a_hosts_cards_are_found_and_other_devices_are_none")),
    ("lspci-nnk.igpu-vfs-vfio.txt", Replayed("functions_that_virtual_machines_have_are_no_cards")),

    ("xpu-smi-vgpu-create-4.v1.txt", Simulated),
    ("xpu-smi-vgpu-list.v1.txt", Simulated),
    ("xpu-smi-vgpu-precheck.fail.v1.txt", Simulated),
    ("xpu-smi-vgpu-help.v1.txt", Simulated),
    ("xpu-smi-vgpu-remove.v1.txt", Simulated),
    ("xpu-smi-discovery-dump.v1.csv", Simulated),

    ("xpu-smi-default.v2.b580.txt", Not("a table to look at; discovery lists the same cards with their numbers, and holders come from /proc")),
    ("xpu-smi-ps.v1.txt", Not("who uses a card is found by open device nodes, which names processes that use no memory too")),
    ("xpu-smi-topology-d0.v1.txt", Not("the switches above a card have no part in slicing")),
    ("xpu-smi-vgpu-addkernelparam.v1.txt", Not("the kernel's command line is a step of its own, with an undo, and never left to the tool")),
    ("udev-60-vgpu.rules.arc-pro-b60", Not("a configuration of its author; it matches every card of the id, and can come before the driver")),
];

fn text(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a readable capture")
}

#[test]
fn every_capture_has_an_entry() {
    crate::captures::each_has_an_entry(FOLDER, CAPTURES.iter().map(|(name, _)| *name));
}

#[test]
fn every_capture_is_what_its_entry_says() {
    let own = fs::read_to_string("tests/captures_intel.rs").expect("this file");
    let simulated = fs::read_to_string("src/sim/tools/xpu_smi/golden.rs").expect("the tests");
    let mut looked_at = 0;
    for (name, is) in CAPTURES {
        match is {
            Listed(expected) => {
                let found: Vec<_> = xpu_smi::discovery(&text(name))
                    .into_iter()
                    .map(|c| (c.device_id, c.pci.to_string(), c.name, c.uuid.is_some()))
                    .collect();
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(id, pci, name, uuid)| {
                        (*id, (*pci).to_owned(), (*name).to_owned(), *uuid)
                    })
                    .collect();
                assert_eq!(found, expected, "{name}");
                looked_at += 1;
            }
            Replayed(test) => assert!(own.contains(&format!("fn {test}()")), "{name}"),
            Simulated => assert!(simulated.contains(name), "{name}"),
            Table => {}
            Not(why) => assert!(why.len() > 20, "{name}"),
        }
    }
    assert_eq!(looked_at, 5);
}

#[test]
fn no_parser_panics_on_any_truncation_of_a_capture() {
    for (name, _) in CAPTURES {
        let text = text(name);
        for at in (0..text.len()).step_by((text.len() / 40) | 1) {
            let cut = String::from_utf8_lossy(&text.as_bytes()[..at]);
            let _ = xpu_smi::discovery(&cut);
            let _ = xpu_smi::version(&cut);
            let _ = deploy::discover::intel::sysfs::parse(&cut);
        }
    }
}

/// `NAME=56c0N4,56c2DEF` of xpu-smi's profiles, with the number of functions (none for DEF)
/// and their memory in bytes.
fn profiles(file: &str) -> Vec<(u16, Option<u32>, u64)> {
    let text = text(file);
    let mut names: Vec<(u16, Option<u32>)> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(list) = line.strip_prefix("NAME=") {
            names = list
                .split(',')
                .map(|name| {
                    let (id, count) = name.split_at(4);
                    let id = u16::from_str_radix(id, 16).expect("an id");
                    (
                        id,
                        count.strip_prefix('N').map(|n| n.parse().expect("a count")),
                    )
                })
                .collect();
        } else if let Some(bytes) = line.strip_prefix("VF_LMEM=") {
            let bytes: u64 = bytes.parse().expect("bytes");
            found.extend(names.iter().map(|(id, count)| (*id, *count, bytes)));
        }
    }
    found
}

#[test]
fn the_catalog_agrees_with_the_profiles_that_xpu_smi_brings() {
    let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
    let mut compared = 0;
    for file in ["xpu-smi-vgpu.conf.v1.3", "xpu-smi-vgpu.conf.v2"] {
        for (id, count, bytes) in profiles(file) {
            let model = catalog.by_pci(Vendor::Intel, id).expect("the id is known");
            let most = model.vf_memory_mib.expect("its memory is known");
            let whole = bytes * u64::from(count.unwrap_or(1)) / (1 << 20);
            assert!(
                whole <= most,
                "{file}: {id:04x} {count:?}: {whole} of {most}"
            );
            if count.is_none() {
                assert_eq!(whole, most, "{file}: {id:04x}");
            }
            if let Some(count) = count {
                assert!(model.max_vfs.is_none_or(|most| count <= most), "{id:04x}");
                assert!(
                    model.vf_counts.is_empty() || model.vf_counts.contains(&count),
                    "{id:04x}: {count}"
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn the_catalog_has_the_limits_of_the_table() {
    let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
    let table: serde_json::Value = serde_json::from_str(&text("models.json")).expect("JSON");
    let rows = table["models"].as_array().expect("models");
    assert_eq!(rows.len(), 16);
    for row in rows {
        for id in row["pf_ids"].as_array().expect("ids") {
            let id = u16::from_str_radix(id.as_str().expect("an id"), 16).expect("an id");
            let model = catalog.by_pci(Vendor::Intel, id).expect("the id is known");
            let expected = row["max_vfs"].as_u64().filter(|most| *most > 0);
            assert_eq!(model.max_vfs.map(u64::from), expected, "{id:04x}");
        }
    }
}

/// A line of `lspci -nn`: address, class, device id, and the driver where `-k` told one.
fn lspci(name: &str) -> Vec<(String, u32, u16)> {
    let rows = text(name);
    let rows = rows.lines().map(|line| {
        let (address, rest) = line.split_once(' ').expect("an address");
        let bracket = |at: usize| {
            let text = rest.split('[').nth(at).expect("a bracket");
            text.split(']').next().expect("its end").to_owned()
        };
        let class = u32::from_str_radix(&bracket(1), 16).expect("a class") << 8;
        let ids = rest.rsplit("[8086:").next().expect("an id");
        let device = u16::from_str_radix(&ids[..4], 16).expect("an id");
        (format!("0000:{address}"), class, device)
    });
    rows.collect()
}

fn function(host: &Host, folder: &str, class: u32, device: u16, driver: Option<&str>) {
    host.file(&format!("{folder}/vendor"), "0x8086\n");
    host.file(&format!("{folder}/device"), &format!("{device:#06x}\n"));
    host.file(&format!("{folder}/class"), &format!("{class:#08x}\n"));
    if let Some(driver) = driver {
        host.link(
            &format!("{folder}/driver"),
            &format!("../../../bus/pci/drivers/{driver}"),
        );
    }
}

fn found(host: &Host) -> Vec<Gpu> {
    host.discover(&["sh"], &Discovery::default()).gpus
}

#[test]
fn an_arc_pro_behind_its_switch_is_one_card_with_two_functions() {
    let host = Host::new();
    let path = text("find-sriov_numvfs.arc-pro-b60.txt");
    let folder = path.trim().strip_suffix("/sriov_numvfs").expect("the file");
    let above = folder.rsplit_once('/').expect("a switch").0;
    let rows = lspci("lspci-nnk-grep.arc-pro-b60-2vfs.txt");
    assert_eq!(rows.len(), 3);
    for (number, (address, class, device)) in rows.iter().enumerate() {
        let real = format!("{above}/{address}");
        function(&host, &real[1..], *class, *device, Some("xe"));
        host.link(
            &format!("sys/bus/pci/devices/{address}"),
            &format!("../../..{}", &real["/sys".len()..]),
        );
        if number > 0 {
            host.link(
                &format!("{}/virtfn{}", &folder[1..], number - 1),
                &format!("../{address}"),
            );
            host.link(&format!("{}/physfn", &real[1..]), "../0000:04:00.0");
        }
    }
    for (name, value) in [
        ("sriov_totalvfs", "24\n"),
        ("sriov_numvfs", "2\n"),
        ("sriov_drivers_autoprobe", "1\n"),
    ] {
        host.file(&format!("{}/{name}", &folder[1..]), value);
    }
    let group = text("ls-iommu_group-devices.arc-pro-b60.txt");
    let links: Vec<&str> = group.lines().filter(|line| line.contains(" -> ")).collect();
    assert!(
        links.len() == 1 && links[0].ends_with(&folder["/sys".len()..]),
        "alone in its group: {group}"
    );
    host.link(
        &format!("{}/iommu_group", &folder[1..]),
        "../../../../../kernel/iommu_groups/19",
    );

    let gpus = found(&host);
    let [gpu] = &gpus[..] else {
        panic!("{gpus:?}");
    };
    assert_eq!(gpu.model, Fact::Known("Arc-Pro-B60".to_owned()));
    assert_eq!(gpu.iommu_group, Fact::Known(19));
    let sriov = gpu.sriov.known().expect("SR-IOV");
    let functions: Vec<String> = sriov.vfs.iter().map(|(pci, _)| pci.to_string()).collect();
    assert_eq!(functions, ["0000:04:00.1", "0000:04:00.2"]);
    assert_eq!((sriov.total_vfs, sriov.num_vfs), (24, 2));
    let intel = gpu.intel.known().expect("xe has it");
    assert_eq!(
        (intel.driver, &intel.provisioning),
        (IntelDriver::Xe, &Fact::Absent)
    );
}

#[test]
fn a_hosts_cards_are_found_and_other_devices_are_none() {
    let host = Host::new();
    for (address, class, device) in lspci("lspci-nn.arc-pro-b60-host.txt") {
        let folder = format!("sys/bus/pci/devices/{address}");
        function(&host, &folder, class, device, Some("xe"));
    }
    let nodes = text("ls-dev-dri-by-path.txt");
    let mut made = 0;
    for line in nodes.lines() {
        let (link, node) = line.rsplit_once(" -> ../").expect("a link");
        let (_, address) = link.rsplit_once(" pci-").expect("an address");
        let address = address.rsplit_once('-').expect("a kind").0;
        host.file(
            &format!("sys/bus/pci/devices/{address}/drm/{node}/dev"),
            "226:0\n",
        );
        made += 1;
    }
    assert_eq!(made, 2);
    let gpus = found(&host);
    let models: Vec<_> = gpus.iter().filter_map(|gpu| gpu.model.known()).collect();
    assert_eq!(models, ["iGPU-Meteor-Lake", "Arc-Pro-B60"]);
    let nodes: Vec<_> = gpus
        .iter()
        .map(|gpu| gpu.intel.known().expect("xe has it").render_nodes.clone())
        .collect();
    assert_eq!(nodes, [vec!["renderD128".to_owned()], Vec::new()]);
}

#[test]
fn functions_that_virtual_machines_have_are_no_cards() {
    let host = Host::new();
    let capture = text("lspci-nnk.igpu-vfs-vfio.txt");
    let mut functions: Vec<(String, Option<String>)> = Vec::new();
    for line in capture.lines() {
        if let Some((_, driver)) = line.split_once("Kernel driver in use: ") {
            functions.last_mut().expect("a device").1 = Some(driver.to_owned());
        } else if let Some((address, _)) = line.split_once(' ') {
            functions.push((format!("0000:{address}"), None));
        }
    }
    assert_eq!(functions.len(), 3);
    for (number, (address, driver)) in functions.iter().enumerate() {
        let folder = format!("sys/bus/pci/devices/{address}");
        function(&host, &folder, 0x03_0000, 0xa7a0, driver.as_deref());
        if number > 0 {
            host.link(&format!("{folder}/physfn"), "../0000:00:02.0");
            let link = format!("sys/bus/pci/devices/0000:00:02.0/virtfn{}", number - 1);
            host.link(&link, &format!("../{address}"));
        }
    }
    let card = "sys/bus/pci/devices/0000:00:02.0";
    for (name, value) in [
        ("sriov_totalvfs", "7\n"),
        ("sriov_numvfs", "2\n"),
        ("drm/card1/prelim_iov/pf/auto_provisioning", "1\n"),
        ("drm/card1/prelim_iov/pf/gt0/exec_quantum_ms", "0\n"),
        ("drm/card1/prelim_iov/vf1/gt0/exec_quantum_ms", "25\n"),
        (
            "drm/card1/prelim_iov/vf1/gt0/preempt_timeout_us",
            "500000\n",
        ),
        ("drm/card1/prelim_iov/vf2/gt0/exec_quantum_ms", "0\n"),
        ("drm/card1/prelim_iov/vf2/gt0/preempt_timeout_us", "0\n"),
        ("drm/card1/prelim_iov/vf3/gt0/exec_quantum_ms", "0\n"),
        ("drm/card1/prelim_iov/vf3/gt0/preempt_timeout_us", "0\n"),
    ] {
        host.file(&format!("{card}/{name}"), value);
    }
    let gpus = found(&host);
    let [gpu] = &gpus[..] else {
        panic!("{gpus:?}");
    };
    let sriov = gpu.sriov.known().expect("SR-IOV");
    let drivers: Vec<_> = sriov.vfs.iter().filter_map(|(_, d)| d.known()).collect();
    assert_eq!(drivers, ["vfio-pci", "vfio-pci"]);
    let intel = gpu.intel.known().expect("i915 has it");
    assert_eq!(intel.driver, IntelDriver::I915Prelim);
    let shares = intel.provisioning.known().expect("a physical function");
    assert_eq!(shares.takes, ["exec_quantum_ms", "preempt_timeout_us"]);
    let numbers: Vec<u32> = shares.vfs.iter().map(|vf| vf.number).collect();
    assert_eq!(numbers, [1, 2], "the third is not there and has nothing");
    assert_eq!(shares.vfs[0].exec_quantum_ms, Fact::Known(25));
    assert_eq!(shares.vfs[0].vram_quota, Fact::Absent);
}

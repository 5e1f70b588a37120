//! Every capture of AMD's tools and sysfs is parsed here into what it shows, or stands on the
//! list with the reason why not. A new file without an entry fails.

use std::fs;

use deploy::discover::amd::fault::AmdFault;
use deploy::discover::amd::{Answers, kfd, rocm_smi, smi, text};
use deploy::facts::{AmdToolKind, Fact, PciAddress};
use proptest::prelude::*;

const FOLDER: &str = "tests/fixtures/captures/amd";

/// What is in a capture.
enum Is {
    /// Held against what it shows.
    Parsed(fn(&str)),
    /// A refusal, or a success that looks like one.
    Fault(AmdFault),
    /// Not for these parsers; why.
    Not(&'static str),
}

use Is::{Fault, Not, Parsed};

const TABLE: &str =
    "the summary for people; the same is asked of the kernel, or of the tool by name";
const LSPCI: &str = "lspci; the bus is read from sysfs";

#[rustfmt::skip]
const CAPTURES: &[(&str, Is)] = &[
    ("INDEX.md", Not("says where the captures are from")),
    ("models.json", Not("the table behind vars/amd_gpu_models.yml; the catalog's tests compare them")),
    ("amd-ctk-cdi-list.txt", Not("the container toolkit's list, for the container platforms")),
    ("dcm-config.json", Not("a configuration of AMD's Device Config Manager, which is no tool of ours on the host")),
    ("amd-smi-default.mi300a.rocm7.14.txt", Not(TABLE)),
    ("amd-smi-monitor.cpx-nps4.mi300x.rocm7.14.txt", Not("load and temperatures have no part in slicing")),
    ("amd-smi-static-vbios.mi300x.txt", Not("the firmware's name decides nothing: one for virtual functions runs on bare metal too")),
    ("lspci-nnk.mi300x-gim-pf-and-vf.txt", Not(LSPCI)),
    ("lspci-nnk.mi300x-pf-vfio.txt", Not(LSPCI)),
    ("lspci-nnkk.guest-mi300x-vf.txt", Not(LSPCI)),
    ("amd-smi-set-compute-partition-CPX.mi300x.txt", Not("the report of a change; changes are made through sysfs and read back there")),
    ("gim-amd-smi-set-num-vf.txt", Not("the report of a change; the number is read back")),

    ("amd-smi-list-e.cpx.mi300x.txt", Parsed(list_with_nodes)),
    ("amd-smi-list.strix-halo.json", Parsed(list_json)),
    ("amd-smi-partition-accelerator.dpx.mi300x.rocm6.4.3.txt", Parsed(profiles)),
    ("amd-smi-partition-accelerator.noroot.txt", Fault(AmdFault::NoPermission)),
    ("amd-smi-partition-current.cpx.rocm6.4.0.txt", Parsed(current_old)),
    ("amd-smi-partition-current.cpx.rocm6.4.1.txt", Parsed(current_new)),
    ("amd-smi-partition.unsupported-gpus.txt", Parsed(unsupported)),
    ("amd-smi-rocm-smi-compat.mi300a.rocm7.14.txt", Parsed(compat)),
    ("amd-smi-set-memory-partition-NPS4.mi300x.txt", Fault(AmdFault::TooManyFiles)),
    ("amd-smi-static-partition.cpx-nps4.mi300x.txt", Parsed(sixty_four)),
    ("amd-smi-static-partition.oneline.txt", Parsed(one)),
    ("amd-smi-static.strix-halo.json", Parsed(static_json)),
    ("amd-smi-version.rocm6.4.txt", Parsed(version_rocm)),
    ("err-amd-smi-set-C-parser-bug.rocm6.4.3.txt", Fault(AmdFault::ChoiceBug)),
    ("err-amd-smi-set-device-busy.txt", Fault(AmdFault::Busy)),
    ("err-amd-smi-set-no-perm.txt", Fault(AmdFault::NoPermission)),
    ("err-amd-smi-set-setting-unavailable-nps4.txt", Fault(AmdFault::SettingUnavailable)),
    ("gim-amd-smi-discovery.txt", Parsed(gim_discovery)),
    ("gim-amd-smi-list.mi300x-1vf.csv", Parsed(gim_list)),
    ("gim-amd-smi-list.mi300x-1vf.json", Parsed(gim_list)),
    ("gim-amd-smi-list.mi300x-1vf.txt", Parsed(gim_list)),
    ("gim-amd-smi-partition-current.txt", Parsed(gim_current)),
    ("gim-amd-smi-partition-global.mi300x.txt", Parsed(gim_global)),
    ("gim-amd-smi-static.mi300x-1vf.txt", Parsed(gim_static)),
    ("gim-amd-smi-version.txt", Parsed(version_gim)),
    ("kfd-topology-node-properties.mi210.txt", Parsed(|text| node(text, "0000:63:00.0", 0x740f, 128))),
    ("kfd-topology-node-properties.mi308.txt", Parsed(|text| node(text, "0000:0a:00.0", 0x74a2, 128))),
    ("kfd-topology-node0-properties.mi300x-cpx.txt", Parsed(|text| assert_eq!(kfd::node(0, text), None))),
    ("kfd-topology-node2-properties.mi300x-cpx.txt", Parsed(|text| node(text, "0000:05:00.0", 0x74a1, 128))),
    ("kfd-topology-node3-properties.mi300x-cpx.txt", Parsed(|text| node(text, "0000:05:00.1", 0x74a1, 129))),
    ("kfd-topology-node9-properties.mi300x-cpx.txt", Parsed(|text| node(text, "0000:05:00.7", 0x74a1, 135))),
    ("kfd-topology-node10-properties.mi300x-cpx.txt", Parsed(|text| node(text, "0000:27:00.0", 0x74a1, 136))),
    ("rocm-smi-concise.radeon.txt", Parsed(concise)),
    ("rocm-smi-json.mi300x-vf-guest.json", Parsed(named)),
    ("rocm-smi-showhw.tpx.mi300a.txt", Parsed(hardware)),
    ("sysfs-available-partitions.mi300x.txt", Parsed(available)),
];

fn pci(text: &str) -> PciAddress {
    text.parse().expect("an address")
}

fn list_with_nodes(text: &str) {
    let listed = smi::listed(text);
    let found: Vec<_> = listed
        .iter()
        .map(|row| (row.bdf.to_string(), row.partition, row.render_minor))
        .collect();
    let wanted = [
        ("0000:0c:00.0".to_owned(), Some(0), Some(128)),
        ("0000:0c:00.1".to_owned(), Some(1), Some(129)),
    ];
    assert_eq!(found, wanted);
}

fn list_json(text: &str) {
    let listed = smi::listed(text);
    assert_eq!((listed.len(), listed[0].bdf), (1, pci("0000:c4:00.0")));
    assert_eq!((listed[0].gpu, listed[0].partition), (0, Some(0)));
}

fn profiles(text: &str) {
    let found = smi::profiles(text);
    assert_eq!(found.len(), 8);
    let modes: Vec<&str> = found.iter().map(|row| row.mode.as_str()).collect();
    assert_eq!(&modes[..4], ["SPX", "DPX", "QPX", "CPX"]);
    let current: Vec<&str> = found
        .iter()
        .filter(|row| row.current)
        .map(|row| row.mode.as_str())
        .collect();
    assert_eq!(current, ["DPX", "DPX"]);
    assert_eq!(found[3].memory, ["NPS1", "NPS4"]);
    assert_eq!((found[7].gpu, found[7].index), (1, 3));
}

fn current_old(text: &str) {
    let found = smi::parted(text);
    assert_eq!(found.len(), 11);
    assert_eq!(found[0].ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(found[1].ids, Vec::<u32>::new());
    assert!(
        found
            .iter()
            .all(|row| row.compute.as_deref() == Some("CPX"))
    );
}

fn current_new(text: &str) {
    let found = smi::parted(text);
    let ids: Vec<u32> = found.iter().flat_map(|row| row.ids.clone()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2]);
    assert_eq!(found[8].memory.as_deref(), Some("NPS1"));
}

fn unsupported(text: &str) {
    let found = smi::parted(text);
    assert_eq!(found.len(), 4);
    assert!(
        found
            .iter()
            .all(|row| row.compute.is_none() && row.memory.as_deref() == Some("NPS1"))
    );
    assert_eq!(smi::profiles(text), []);
}

fn compat(text: &str) {
    let found = rocm_smi::concise(text);
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|(device, row)| {
        *device == 0x74a0
            && row.compute.as_deref() == Some("SPX")
            && row.memory.as_deref() == Some("NPS1")
    }));
}

fn sixty_four(text: &str) {
    let found = smi::parted(text);
    assert_eq!(found.len(), 64);
    assert_eq!((found[63].gpu, &found[63].ids[..]), (63, &[7][..]));
    assert!(
        found
            .iter()
            .all(|row| row.memory.as_deref() == Some("NPS4"))
    );
}

fn one(text: &str) {
    let found = smi::parted(text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].compute.as_deref(), Some("CPX"));
}

fn static_json(text: &str) {
    let found = smi::parted(text);
    // Newer versions put the array below a name.
    assert_eq!(smi::parted(&format!("{{\"gpu_data\": {text}}}")), found);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].bdf, found[0].memory_mib),
        (Some(pci("0000:c4:00.0")), Some(32768))
    );
    assert_eq!((&found[0].compute, &found[0].memory), (&None, &None));
}

fn version_rocm(text: &str) {
    let tool = smi::version(text).expect("a version");
    assert_eq!(
        (tool.kind, tool.version.as_str()),
        (AmdToolKind::RocmAmdSmi, "25.2.0+f4ad5ee")
    );
}

fn version_gim(text: &str) {
    let tool = smi::version(text).expect("a version");
    assert_eq!(
        (tool.kind, tool.version.as_str()),
        (AmdToolKind::GimAmdSmi, "29.0.0")
    );
}

fn gim_discovery(text: &str) {
    let listed = smi::listed(text);
    assert_eq!(
        (listed[0].bdf, &listed[0].vfs[..]),
        (pci("0000:83:00.0"), &[pci("0000:83:02.0")][..])
    );
}

fn gim_list(text: &str) {
    let listed = smi::listed(text);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].bdf, &listed[0].vfs[..]),
        (pci("0000:0c:00.0"), &[pci("0000:0c:02.0")][..])
    );
}

fn gim_current(text: &str) {
    let found = smi::parted(text);
    assert_eq!(
        (found[0].compute.as_deref(), found[0].memory.as_deref()),
        (Some("SPX"), Some("NPS1"))
    );
}

fn gim_global(text: &str) {
    let found = smi::global(text);
    assert_eq!(found.len(), 32);
    let (gpu, mode) = &found[31];
    assert_eq!((*gpu, mode.compute.as_str()), (7, "CPX"));
    assert_eq!(
        (&mode.vf_counts[..], &mode.memory[..]),
        (
            &[1, 2, 4, 8][..],
            &["NPS1".to_owned(), "NPS4".to_owned()][..]
        )
    );
}

fn gim_static(text: &str) {
    assert_eq!(smi::vf_counts(text), [(0, Some(1), Some(1))]);
    let found = smi::parted(text);
    assert_eq!(
        (found[0].bdf, found[0].memory_mib),
        (Some(pci("0000:0c:00.0")), Some(196_592))
    );
}

fn node(text: &str, place: &str, device: u16, minor: u32) {
    let node = kfd::node(1, text).expect("a node with compute units");
    assert_eq!(
        (node.place, node.device, node.render_minor),
        (pci(place), device, minor)
    );
    assert_eq!(node.xcc, Some(1));
    assert!(node.hive > 0);
}

fn concise(text: &str) {
    let found = rocm_smi::concise(text);
    let devices: Vec<u16> = found.iter().map(|(device, _)| *device).collect();
    assert_eq!(devices, [0x73bf, 0x73a3]);
    assert!(
        found
            .iter()
            .all(|(_, row)| row.compute.is_none() && row.memory.is_none())
    );
}

fn named(text: &str) {
    let found = rocm_smi::named(text, "GPU Memory Allocated (VRAM%)");
    assert_eq!(found, [(0, "87".to_owned())]);
    assert_eq!(rocm_smi::named(text, "Compute Partition"), []);
}

fn hardware(text: &str) {
    let found = rocm_smi::hardware(text);
    assert_eq!(found.len(), 12);
    let last = &found[11];
    assert_eq!(
        (last.bdf, last.partition, last.device),
        (pci("0003:01:00.0"), 2, 0x74a0)
    );
}

fn available(capture: &str) {
    let modes: Vec<Vec<String>> = capture
        .lines()
        .filter(|line| line.contains(", "))
        .map(text::list)
        .collect();
    assert_eq!(
        modes,
        [
            vec!["SPX", "DPX", "QPX", "CPX"],
            vec!["NPS1", "NPS4", "NPS8"]
        ]
    );
}

fn capture(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a readable capture")
}

#[test]
fn every_capture_has_an_entry() {
    crate::captures::each_has_an_entry(FOLDER, CAPTURES.iter().map(|(name, _)| *name));
}

#[test]
fn every_capture_is_parsed_into_what_it_shows() {
    for (name, is) in CAPTURES {
        match is {
            Parsed(check) => check(&capture(name)),
            Fault(fault) => assert_eq!(AmdFault::in_text(&capture(name)), Some(*fault)),
            Not(why) => assert!(!why.is_empty()),
        }
    }
}

#[test]
fn the_topology_of_a_partitioned_card_is_its_partitions() {
    let mut lines = String::from(
        "card 0000:05:00.0\ncurrent_compute_partition CPX\navailable_compute_partition SPX, DPX, QPX, CPX\n\
         current_memory_partition NPS4\navailable_memory_partition ?\nmem_info_vram_total 206141652992\nkfd\n",
    );
    for number in [0, 2, 3, 9, 10] {
        let text = capture(&format!(
            "kfd-topology-node{number}-properties.mi300x-cpx.txt"
        ));
        for line in text.lines() {
            lines.push_str(&format!(
                "/sys/class/kfd/kfd/topology/nodes/{number}/properties:{line}\n"
            ));
        }
    }
    let answers = Answers::parse(&lines, None);
    let card = answers.card(pci("0000:05:00.0"), &Fact::Known("amdgpu".to_owned()));
    let amd = card.known().expect("a card");
    let minors: Vec<_> = amd
        .partitions
        .known()
        .expect("partitions")
        .iter()
        .map(|partition| (partition.id, partition.render_minor.clone()))
        .collect();
    assert_eq!(
        minors,
        [
            (0, Fact::Known(128)),
            (1, Fact::Known(129)),
            (7, Fact::Known(135))
        ]
    );
    assert_eq!(
        (amd.compute_mode(), amd.memory_mode()),
        (Some("CPX"), Some("NPS4"))
    );
    let memory = amd.memory.known().expect("a mode");
    assert_eq!(
        memory.available.unknown(),
        Some("available_memory_partition could not be read")
    );
    assert_eq!(amd.memory_mib, Fact::Known(196_592));
    assert_eq!(amd.hive, Fact::Known(15_188_982_192_727_901_047));
    // Another driver has none of it.
    let other = answers.card(pci("0000:05:00.0"), &Fact::Known("vfio-pci".to_owned()));
    assert_eq!(
        other.unknown(),
        Some("it is bound to vfio-pci, not to amdgpu or gim")
    );
}

#[test]
fn functions_are_told_by_the_amd_smi_of_gim_and_not_by_that_of_rocm() {
    let answers = |version: &str| {
        let mut text = "card 0000:0c:00.0\n".to_owned();
        for (name, file) in [
            ("version", version),
            ("list", "gim-amd-smi-list.mi300x-1vf.json"),
            ("current", "gim-amd-smi-partition-current.txt"),
            ("global", "gim-amd-smi-partition-global.mi300x.txt"),
            ("static", "gim-amd-smi-static.mi300x-1vf.txt"),
        ] {
            text.push_str(&format!("== {name} 0\n{}\n", capture(file)));
        }
        Answers::parse(&text, None)
    };
    let gim = Fact::Known("gim".to_owned());
    let card = answers("gim-amd-smi-version.txt").card(pci("0000:0c:00.0"), &gim);
    let amd = card.known().expect("a card");
    let state = amd.gim.known().expect("functions");
    assert_eq!(
        (&state.enabled, &state.supported),
        (&Fact::Known(1), &Fact::Known(1))
    );
    assert_eq!(state.vfs, [pci("0000:0c:02.0")]);
    assert_eq!(state.modes.known().map(Vec::len), Some(4));
    assert_eq!(amd.compute_mode(), Some("SPX"));
    let offered = &amd.compute.known().expect("a mode").available;
    assert_eq!(offered.known().map(Vec::len), Some(4));

    let card = answers("amd-smi-version.rocm6.4.txt").card(pci("0000:0c:00.0"), &gim);
    let why = card
        .known()
        .expect("a card")
        .gim
        .unknown()
        .map(str::to_owned);
    assert_eq!(
        why.as_deref(),
        Some("the amd-smi that is found is ROCm's, not the one that comes with gim")
    );
}

#[test]
fn a_host_with_rocm_smi_alone_tells_its_partitions() {
    let text = format!(
        "card 0000:01:00.0\n== hardware 0\n{}\n== modes 0\n{}\n",
        capture("rocm-smi-showhw.tpx.mi300a.txt"),
        r#"{"card0": {"Compute Partition": "TPX", "Memory Partition": "NPS1"}}"#,
    );
    let card =
        Answers::parse(&text, None).card(pci("0000:01:00.0"), &Fact::Known("amdgpu".to_owned()));
    let amd = card.known().expect("a card");
    assert_eq!(
        (amd.compute_mode(), amd.memory_mode()),
        (Some("TPX"), Some("NPS1"))
    );
    assert_eq!(amd.partitions.known().map(Vec::len), Some(3));
    assert_eq!(
        amd.tool.known().map(|tool| tool.kind),
        Some(AmdToolKind::RocmSmi)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_answer_makes_a_parser_panic(text in "\\PC{0,200}", lines in "(GPU: ?[0-9]?|VF: 0|[A-Z_]{1,8}:? ?[0-9a-f:.]{0,8}|\n| {0,6}){0,40}") {
        for answer in [text, lines] {
            let _ = (smi::listed(&answer), smi::parted(&answer), smi::profiles(&answer), smi::global(&answer));
            let _ = (smi::version(&answer), smi::vf_counts(&answer), rocm_smi::hardware(&answer), rocm_smi::concise(&answer));
            let _ = kfd::node(0, &answer);
            let _ = Answers::parse(&answer, None);
        }
    }
}

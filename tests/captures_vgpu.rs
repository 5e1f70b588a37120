//! Every capture of a vGPU host or guest is parsed here into facts, or stands on the list with
//! the reason why not. A new file without an entry fails.

use std::collections::BTreeSet;
use std::fs;

use deploy::discover::nvidia::table::TableMig;
use deploy::discover::nvidia::{list, table, vgpu};
use deploy::facts::{Fact, License, VgpuType};
use proptest::prelude::*;

const FOLDER: &str = "tests/fixtures/captures/vgpu";

/// What is in a capture, as the parsers must see it.
enum Is {
    /// `creatable_vgpu_types`: how many, and the first as `id name`.
    Creatable(usize, &'static str),
    /// `current_vgpu_type`.
    Current(u32),
    /// `grep .` of names below `mdev_supported_types`: how many, and the first.
    Names(usize, &'static str),
    /// `grep .` of `available_instances`: the types of which one can be made.
    Available(&'static [u32]),
    /// The files of one type: framebuffer in MiB and most instances.
    Type(u64, u32),
    /// `ls -l` of `/sys/bus/mdev/devices`: UUID and parent.
    Mdevs(&'static [(&'static str, &'static str)]),
    /// What a virtual function has in `nvidia/`.
    Interface,
    /// `vgpu -s -v`: each type as `id short framebuffer most profile`.
    Types(&'static [&'static str]),
    /// `-q`: mode, whether it is SR-IOV, the licensed product, the licence.
    Long(
        &'static str,
        Option<bool>,
        Option<&'static str>,
        Option<&'static str>,
    ),
    /// `-L`: cards.
    List(usize),
    /// The plain table: cards without MIG.
    Table(usize),
    /// Replayed as a host by another test.
    Replayed,
    /// Not for these parsers; why.
    Not(&'static str),
}

use Is::{
    Available, Creatable, Current, Interface, List, Long, Mdevs, Names, Not, Replayed, Table, Type,
    Types,
};

#[rustfmt::skip]
const CAPTURES: &[(&str, Is)] = &[
    ("INDEX.md", Not("says where the captures are from")),
    ("a2-vgpu-host-pf-vfs-mdevs.umockdev", Replayed),
    ("creatable_vgpu_types.h200.txt", Creatable(2, "1428 NVIDIA H200X-141C")),
    ("creatable_vgpu_types.l40s.txt", Creatable(23, "1145 NVIDIA L40S-1B")),
    ("current_vgpu_type.none.txt", Current(0)),
    ("ls-sys-bus-mdev-devices.m10.txt", Mdevs(&[("aa618089-8b16-4d01-a136-25a0f3c73123", "0000:06:00.0")])),
    ("ls-vf-nvidia-dir.txt", Interface),
    ("lspci.a16.txt", Not("sysfs has the ids; lspci is asked for names only, and these have none")),
    ("mdev_supported_types-available.a2-vf.txt", Available(&[746, 751, 754])),
    ("mdev_supported_types-names.a2-vf.txt", Names(15, "742 A2-1B")),
    ("mdev_supported_types-nvidia-742.a2-vf.txt", Type(1024, 16)),
    ("mdev_supported_types-nvidia-746.a2-vf.txt", Type(4096, 4)),
    ("mdev_supported_types-nvidia-754.a2-vf.txt", Type(4096, 4)),
    ("nvidia-smi-L.a16.txt", List(4)),
    ("nvidia-smi-q.a16-host-sriov.cut.txt", Long("Host VGPU", Some(true), None, None)),
    ("nvidia-smi-q.guest-v100d-8c-licensed.cut.txt", Long("VGPU", None, Some("NVIDIA Virtual Compute Server"), Some("2025-3-19 7:29:4 GMT"))),
    ("nvidia-smi-vgpu-s-v.rtx-pro-6000.cut.txt", Types(&[
        "1518 DC-2B 2048 32 -", "1521 DC-4Q 4096 24 -", "1540 DC-48Q 49152 2 -", "1546 DC-1-2Q 2048 48 19",
    ])),
    ("nvidia-smi.a16-vgpu-host-2vms.txt", Table(4)),
    ("uevent.a2-vf.txt", Not("says what the files beside it say, which are read")),
];

fn text(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a readable capture")
}

#[test]
fn every_vgpu_capture_has_an_entry() {
    crate::captures::each_has_an_entry(FOLDER, CAPTURES.iter().map(|(name, _)| *name));
}

#[test]
fn every_vgpu_capture_is_parsed_into_what_it_shows() {
    let mut wrong = Vec::new();
    for (name, expected) in CAPTURES {
        if let Err(found) = check(&text(name), expected) {
            wrong.push(format!("{name}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("found {found:?}, expected {wanted:?}"))
}

fn check(text: &str, expected: &Is) -> Result<(), String> {
    let first = |found: &[VgpuType]| {
        let kind = found.first();
        kind.map(|kind| format!("{} {}", kind.id, kind.name))
    };
    match expected {
        Creatable(count, wanted) => {
            let found = vgpu::creatable(text);
            same(
                (found.len(), first(&found)),
                (*count, Some((*wanted).to_owned())),
            )
        }
        Current(id) => same(vgpu::current_type(text), Some(*id)),
        Names(count, wanted) => {
            let found = vgpu::mdev_types(text);
            let kind = found
                .first()
                .map(|kind| format!("{} {}", kind.id, kind.short()));
            same((found.len(), kind), (*count, Some((*wanted).to_owned())))
        }
        Available(ids) => {
            let found = vgpu::available(text);
            let free = found.iter().filter(|(_, free)| **free > 0);
            same(free.map(|(id, _)| *id).collect(), ids.to_vec())
        }
        Type(framebuffer, most) => {
            let line = text.lines().find(|line| line.contains("framebuffer="));
            same(
                vgpu::description(line.unwrap_or_default()),
                (Fact::Known(*framebuffer), Fact::Known(*most)),
            )
        }
        Mdevs(wanted) => {
            let found = vgpu::mdevs(text);
            let found: Vec<(String, String)> = found
                .iter()
                .map(|mdev| (mdev.uuid.clone(), mdev.parent.to_string()))
                .collect();
            let wanted = wanted
                .iter()
                .map(|(u, p)| ((*u).to_owned(), (*p).to_owned()));
            same(found, wanted.collect())
        }
        Interface => {
            // What the script of discovery looks for is there.
            let files: BTreeSet<&str> = text.split_whitespace().collect();
            let script = include_str!("../src/discover/nvidia/vgpu.sh");
            let asked = ["current_vgpu_type", "creatable_vgpu_types"];
            same(
                asked.map(|file| files.contains(file) && script.contains(file)),
                [true, true],
            )
        }
        Types(wanted) => {
            let found = vgpu::types(text);
            let [(pci, types)] = &found[..] else {
                return Err(format!("{} cards", found.len()));
            };
            let number = |fact: &Fact<u32>| fact.known().map_or("-".to_owned(), u32::to_string);
            let shown = types.iter().map(|kind| {
                let framebuffer = kind.framebuffer_mib.known().copied().unwrap_or_default();
                let (most, profile) = (number(&kind.max_instances), number(&kind.gi_profile));
                format!(
                    "{} {} {framebuffer} {most} {profile}",
                    kind.id,
                    kind.short()
                )
            });
            same(pci.to_string(), "0000:8c:00.0".to_owned())?;
            same(
                shown.collect::<Vec<_>>(),
                wanted.iter().map(|row| (*row).to_owned()).collect(),
            )
        }
        Long(mode, sriov, product, expiry) => {
            let found = vgpu::virtualization(text);
            let [card] = &found[..] else {
                return Err(format!("{} cards", found.len()));
            };
            let expiry = expiry.map(|until| License::Licensed(Some(until.to_owned())));
            same(
                (
                    card.mode.as_deref(),
                    card.sriov.known().copied(),
                    card.product.known().map(String::as_str),
                    card.license.known().cloned(),
                ),
                (Some(*mode), *sriov, *product, expiry),
            )
        }
        List(cards) => same(list::parse(text).len(), *cards),
        Table(cards) => {
            let found = table::parse(text);
            let none = found.cards.iter().filter(|card| card.mig == TableMig::None);
            same(none.count(), *cards)
        }
        Replayed => same(text.starts_with("P: /devices/"), true),
        Not(why) => same(why.len() > 10, true),
    }
}

fn all_parsers(text: &str) {
    let _ = vgpu::tree(text);
    let _ = vgpu::creatable(text);
    let _ = vgpu::current_type(text);
    let _ = vgpu::mdev_types(text);
    let _ = vgpu::available(text);
    let _ = vgpu::description(text);
    let _ = vgpu::mdevs(text);
    let _ = vgpu::types(text);
    let _ = vgpu::virtualization(text);
}

#[test]
fn no_vgpu_parser_panics_on_any_truncation_of_a_capture() {
    for (name, _) in CAPTURES {
        let text = text(name);
        let step = (text.len() / 20) | 1;
        for at in (0..text.len()).step_by(step) {
            all_parsers(&String::from_utf8_lossy(&text.as_bytes()[..at]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_vgpu_parser_panics_on_familiar_words(words in proptest::collection::vec(
        prop::sample::select(vec![
            "\n", " ", ":", " : ", " -> ", "/", "types\n", "creatable\n", "parent 0000:08:00.4 ", "vfio ", "mdev\n",
            "nvidia-742", "/name:", "/description:", "framebuffer=", "1024M", "max_instance=", "99999999999999999999",
            "f715f63c-0d00-4007-9c5a-b07b0c6c05de", "mdev_type", "iommu_group", "vm ", "GPU 00000000:8C:00.0\n",
            "vGPU Type ID : 0x", "Name : A", "Max Instances : ", "N/A", "License Status : Licensed (", ")", "é", "-1",
            "vGPU Software Licensed Product\n", "Virtualization Mode : VGPU\n",
        ]), 0..60)) {
        all_parsers(&words.concat());
    }
}

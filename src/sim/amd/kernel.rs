//! What `amdgpu` shows and does: partition attributes, the compute driver's topology, device
//! nodes, and what becomes of the cards when the module goes and comes.

use std::fs;
use std::io;

use rustix::io::Errno;

use super::{AmdState, Card, RENDER_NODES};
use crate::sim::fault::{AmdFault, faults};
use crate::sim::host::{bind, device_directory};
use crate::sim::machine::{Host, Machine};

/// Which of AMD's drivers is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Loaded {
    Amdgpu,
    Gim,
    Neither,
}

const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";

/// Attributes of a card that come with the driver.
const ATTRIBUTES: [&str; 5] = [
    "current_compute_partition",
    "available_compute_partition",
    "current_memory_partition",
    "available_memory_partition",
    "mem_info_vram_total",
];

/// The driver that `/proc/modules` shows.
pub(in crate::sim) fn loaded(host: &Host) -> Loaded {
    let modules = host.read("/proc/modules");
    let has = |name: &str| {
        modules
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    match (has("gim"), has("amdgpu")) {
        (true, _) => Loaded::Gim,
        (_, true) => Loaded::Amdgpu,
        _ => Loaded::Neither,
    }
}

fn driver_of(host: &Host, pci: &str) -> Option<String> {
    let link = host.path(format!("{}/driver", device_directory(pci)));
    Some(link.read_link().ok()?.file_name()?.to_str()?.to_owned())
}

/// The module has been loaded: it takes the cards that no other driver has.
pub(in crate::sim) fn load(host: &Host, machine: &mut Machine, driver: &str) -> io::Result<()> {
    let modules = host.read("/proc/modules");
    let other = modules.lines().any(|line| line.starts_with("ast "));
    machine.amd.render_nodes = RENDER_NODES - u32::from(other);
    for card in &machine.amd.cards {
        let directory = device_directory(&card.pci);
        let wanted = host.read(&format!("{directory}/driver_override"));
        let ours = wanted == "(null)" || wanted == driver;
        if driver_of(host, &card.pci).is_none() && ours {
            bind(host, &card.pci, driver)?;
        }
    }
    show(host, machine)
}

/// The module is removed. A memory mode that was asked for is set up for the next load.
pub(in crate::sim) fn unload(host: &Host, machine: &mut Machine, driver: &str) -> io::Result<()> {
    let refused = faults(host).amd.contains(&AmdFault::MemoryRefused);
    for card in &mut machine.amd.cards {
        if driver_of(host, &card.pci).as_deref() != Some(driver) {
            continue;
        }
        fs::remove_file(host.path(format!("{}/driver", device_directory(&card.pci))))?;
        fs::remove_file(host.path(format!("/sys/bus/pci/drivers/{driver}/{}", card.pci)))?;
        if let Some(wanted) = card.request.take().filter(|_| !refused) {
            card.memory = wanted;
        }
        // What was set does not outlive the driver.
        card.compute = card.compute_after_load().to_owned();
    }
    show(host, machine)
}

/// What a boot makes of the cards: all partitions are gone.
pub(in crate::sim) fn power_cycle(host: &Host, machine: &mut Machine) -> io::Result<()> {
    for card in &mut machine.amd.cards {
        *card = Card::new(&card.kind, &card.pci);
        if let Some(driver) = driver_of(host, &card.pci) {
            fs::remove_file(host.path(format!("{}/driver", device_directory(&card.pci))))?;
            fs::remove_file(host.path(format!("/sys/bus/pci/drivers/{driver}/{}", card.pci)))?;
        }
    }
    Ok(())
}

/// Brings sysfs, the topology and the device nodes to what the cards are.
pub(in crate::sim) fn show(host: &Host, machine: &mut Machine) -> io::Result<()> {
    let Machine { amd, .. } = machine;
    if amd.cards.is_empty() {
        return Ok(());
    }
    for path in amd.shown.drain(..) {
        let path = host.path(path);
        match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    let mut node = 2;
    let mut first = 0;
    for card in &amd.cards.clone() {
        let directory = device_directory(&card.pci);
        for name in ATTRIBUTES.iter().chain(&["drm", "xgmi_hive_info"]) {
            let path = host.path(format!("{directory}/{name}"));
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else if path.exists() {
                fs::remove_file(path)?;
            }
        }
        if driver_of(host, &card.pci).as_deref() == Some("amdgpu") {
            attributes(host, card)?;
            node = devices(host, amd, card, first, node)?;
            first += card.most_partitions();
        }
    }
    if node > 2 {
        let mut made = |path: &str, content: &str| {
            amd.shown.push(path.to_owned());
            host.write(path, content)
        };
        made("/dev/kfd", "")?;
        for number in 0..2 {
            amd.shown.push(format!("{NODES}/{number}"));
            let text = "cpu_cores_count 96\nsimd_count 0\nlocation_id 0\ndomain 0\ndrm_render_minor 0\nhive_id 0\n";
            host.write(&format!("{NODES}/{number}/properties"), text)?;
        }
    }
    Ok(())
}

fn attributes(host: &Host, card: &Card) -> io::Result<()> {
    let directory = device_directory(&card.pci);
    let file = |name: &str, content: String| host.write(&format!("{directory}/{name}"), content);
    let bytes = card.kind().memory_mib << 20;
    file("mem_info_vram_total", format!("{bytes}\n"))?;
    if card.kind().modes.is_empty() {
        return Ok(());
    }
    file("current_compute_partition", format!("{}\n", card.compute))?;
    let available = card.available_compute().join(", ");
    file("available_compute_partition", format!("{available}\n"))?;
    file("current_memory_partition", format!("{}\n", card.memory))?;
    let available = card.available_memory().join(", ");
    file("available_memory_partition", format!("{available}\n"))?;
    file("xgmi_hive_info/xgmi_hive_id", format!("{}\n", card.hive()))
}

/// Device nodes and nodes of the topology for each partition. A card keeps eight render nodes
/// for its partitions, or as many as it can have, so that the first of each stays the same.
fn devices(
    host: &Host,
    amd: &mut AmdState,
    card: &Card,
    first: u32,
    mut node: u32,
) -> io::Result<u32> {
    let kind = card.kind();
    let directory = device_directory(&card.pci);
    let (bus, device) = (&card.pci[5..7], &card.pci[8..10]);
    let hex = |text: &str| u32::from_str_radix(text, 16).unwrap_or(0);
    let location = hex(bus) << 8 | hex(device) << 3;
    for partition in 0..card.partitions() {
        let minor = first + partition;
        if minor >= amd.render_nodes {
            continue;
        }
        let render = 128 + minor;
        let path = format!("/dev/dri/renderD{render}");
        host.write(&path, "")?;
        amd.shown.push(path);
        if partition == 0 {
            host.write(
                &format!("{directory}/drm/renderD{render}/dev"),
                format!("226:{render}\n"),
            )?;
            host.write(
                &format!("{directory}/drm/card{}/dev", minor + 1),
                format!("226:{}\n", minor + 1),
            )?;
            let path = format!("/dev/dri/card{}", minor + 1);
            host.write(&path, "")?;
            amd.shown.push(path);
        } else {
            let path = format!("/sys/devices/platform/amdgpu_xcp_{minor}");
            host.write(
                &format!("{path}/drm/renderD{render}/dev"),
                format!("226:{render}\n"),
            )?;
            amd.shown.push(path);
        }
        let xcc = kind.xcc / card.partitions();
        let text = format!(
            "cpu_cores_count 0\nsimd_count {}\nmem_banks_count 1\ngfx_target_version 90402\nvendor_id 4098\n\
             device_id {}\nlocation_id {}\ndomain 0\ndrm_render_minor {render}\nhive_id {}\nunique_id {}\nnum_xcc {xcc}\n",
            152 * xcc,
            hex(host
                .read(&format!("{directory}/device"))
                .trim_start_matches("0x")),
            location + partition,
            card.hive(),
            598_046_273_873_802_902 + u64::from(first),
        );
        host.write(&format!("{NODES}/{node}/properties"), text)?;
        amd.shown.push(format!("{NODES}/{node}"));
        node += 1;
    }
    Ok(node)
}

/// A write to `current_compute_partition`: the word that it begins with counts, in any case.
pub(in crate::sim) fn set_compute(
    host: &Host,
    machine: &mut Machine,
    pci: &str,
    text: &str,
) -> io::Result<()> {
    let broken = faults(host).amd;
    if broken.contains(&AmdFault::NotRoot) {
        return Err(Errno::ACCESS.into());
    }
    let card = machine.amd_card(pci).ok_or(Errno::NOENT)?;
    let known = ["SPX", "DPX", "TPX", "QPX", "CPX"];
    let wanted = begins_with(text, &known).ok_or(Errno::INVAL)?;
    if !card.available_compute().contains(&wanted) {
        return Err(Errno::INVAL.into());
    }
    if card.compute == wanted {
        return Ok(());
    }
    if machine.amd_in_use() || broken.contains(&AmdFault::Busy) {
        return Err(Errno::BUSY.into());
    }
    if broken.contains(&AmdFault::ComputeIgnored) {
        return Ok(());
    }
    for card in machine.amd.cards.iter_mut().filter(|card| card.pci == pci) {
        card.compute = wanted.to_owned();
    }
    show(host, machine)
}

/// A write to `current_memory_partition`: a request for the whole hive, for the next load. One
/// for the mode in force is skipped, and takes no earlier request back.
pub(in crate::sim) fn set_memory(
    host: &Host,
    machine: &mut Machine,
    pci: &str,
    text: &str,
) -> io::Result<()> {
    if faults(host).amd.contains(&AmdFault::NotRoot) {
        return Err(Errno::ACCESS.into());
    }
    let card = machine.amd_card(pci).ok_or(Errno::NOENT)?.clone();
    let wanted = begins_with(text, &["NPS1", "NPS2", "NPS3", "NPS4", "NPS8"]);
    let wanted = wanted.ok_or(Errno::INVAL)?;
    if !card.available_memory().contains(&wanted) {
        return Err(Errno::INVAL.into());
    }
    if card.memory == wanted {
        return Ok(());
    }
    let hive = card.hive();
    for other in machine
        .amd
        .cards
        .iter_mut()
        .filter(|other| other.hive() == hive)
    {
        other.request = Some(wanted.to_owned());
    }
    Ok(())
}

fn begins_with<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let text = text.to_uppercase();
    words.iter().find(|word| text.starts_with(**word)).copied()
}

//! From one batch of reads to facts.
//!
//! `reads` asks everything at once, by a few constant scripts that start as few programs as
//! they can; `facts` turns the answers into what is known. Both are pure. One file a script, and
//! a folder a vendor for what its drivers and tools say. Only this room and `catalog` know vendor ids.

pub mod amd;
pub mod holders;
pub mod host;
pub mod intel;
pub mod kernel_boot;
pub mod nvidia;
pub mod pci;

mod select;

use std::time::Duration;

use crate::catalog::Catalog;
use crate::desired::{Discovery, VendorDetection};
use crate::facts::{Fact, Gpu, HostFacts, NvidiaGpu, Passthrough, PciAddress, Vendor};
use crate::shell::Command;
use crate::transport::{Output, Read, Reply};

use holders::Scan;
use host::Machine;
use nvidia::answers::Answers;
use nvidia::query::Row;
use nvidia::vgpu::{Mdev, Tree};
use pci::PciCard;

/// How long a script may take that reads files only.
const QUICK: Duration = Duration::from_secs(30);
/// How long `nvidia-smi` may take for all questions: without the persistence daemon it
/// initialises every card anew for each of them.
const SLOW: Duration = Duration::from_secs(180);
/// Most bytes of a script's answer; a host with 16 cards and full layouts stays below 200 KiB.
const LIMIT: u64 = 1 << 20;

/// PCI classes, without subclass: display controller and processing accelerator.
const DISPLAY: u32 = 0x03;

fn script(text: &str, timeout: Duration) -> Read {
    Read::Command {
        command: Command::new("sh").arg("-c").arg(compact(text)),
        timeout,
        limit: LIMIT,
    }
}

/// A script without comments and indentation: it travels to every host, in the first request.
/// Our scripts have no here-documents and no strings over several lines that this would change.
fn compact(script: &str) -> String {
    script
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .fold(String::with_capacity(script.len()), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
}

fn host_read() -> Read {
    let text = concat!(include_str!("kernel_boot.sh"), include_str!("host.sh"));
    script(text, QUICK)
}

/// Besides the classes of GPUs it looks at devices that the catalog names together with another
/// class.
fn pci_read(catalog: &Catalog) -> Read {
    let mut command = Command::new("sh")
        .arg("-c")
        .arg(compact(include_str!("pci.sh")));
    let mut others = catalog.models().iter().flat_map(|model| {
        let class = model.pci_class.into_iter();
        class.flat_map(|class| {
            let (vendor, devices) = (vendor_id(model.vendor), &model.device_ids);
            devices
                .iter()
                .map(move |id| format!("{class:#04x}:{vendor:#06x}:{:#06x}", id.device))
        })
    });
    if let Some(first) = others.next() {
        command = command.arg("pci").arg(first).args(others);
    }
    Read::Command {
        command,
        timeout: QUICK,
        limit: LIMIT,
    }
}

fn nvidia_read() -> Read {
    let text = concat!(include_str!("nvidia/vgpu.sh"), include_str!("nvidia.sh"));
    script(text, SLOW)
}

fn intel_read() -> Read {
    script(include_str!("intel.sh"), SLOW)
}

fn amd_read() -> Read {
    script(include_str!("amd.sh"), SLOW)
}

fn holders_read() -> Read {
    script(include_str!("holders.sh"), QUICK)
}

/// The tool of another vendor that says which cards there are.
fn detection_read(detection: VendorDetection) -> Option<Read> {
    let command = match detection {
        VendorDetection::Lspci | VendorDetection::NvidiaSmi => return None,
        VendorDetection::RocmSmi => Command::new("rocm-smi").arg("--showbus"),
        VendorDetection::IntelGpuTools => Command::new("intel_gpu_top").arg("-L"),
    };
    Some(Read::Command {
        command,
        timeout: QUICK,
        limit: LIMIT,
    })
}

/// All that discovery asks of a host, in one batch. Who holds the cards is asked last, so that
/// our own tools are not among them.
#[must_use]
pub fn reads(discovery: &Discovery, catalog: &Catalog) -> Vec<Read> {
    let mut reads = vec![
        host_read(),
        pci_read(catalog),
        nvidia_read(),
        amd_read(),
        intel_read(),
    ];
    reads.extend(detection_read(discovery.vendor_detection));
    reads.push(holders_read());
    reads
}

/// What the answers say. `reads` and `replies` may hold others' reads as well; what is missing
/// among them is unknown.
#[must_use]
pub fn facts(
    reads: &[Read],
    replies: &[Reply],
    catalog: &Catalog,
    discovery: &Discovery,
) -> HostFacts {
    let answer = |wanted: &Read| -> Result<&Output, String> {
        let at = reads.iter().position(|read| read == wanted);
        match at.and_then(|at| replies.get(at)) {
            Some(Reply::Command(output)) => Ok(output),
            _ => Err("the host was not asked".to_owned()),
        }
    };
    let (machine, boot) = match answer(&host_read()).and_then(whole) {
        Ok(text) => (host::parse(&text), kernel_boot::parse(&text)),
        Err(why) => (Machine::unknown(&why), kernel_boot::Told::unknown(&why)),
    };
    let mut notes = Vec::new();
    let (cards, functions) = match answer(&pci_read(catalog)).and_then(whole) {
        Ok(text) => (pci::parse(&text), pci::functions(&text)),
        Err(why) => {
            notes.push(format!("the PCI bus could not be searched: {why}"));
            (None, Vec::new())
        }
    };
    let answers = match answer(&nvidia_read()) {
        // What came before the end is used; what is missing says why.
        Ok(output) => Answers::parse(&output.text(), whole(output).err()),
        Err(why) => Answers::parse("", Some(why)),
    };
    let intel = match answer(&intel_read()) {
        Ok(output) => intel::Answers::parse(&output.text(), whole(output).err()),
        Err(why) => intel::Answers::parse("", Some(why)),
    };
    let amd = match answer(&amd_read()) {
        Ok(output) => amd::Answers::parse(&output.text(), whole(output).err()),
        Err(why) => amd::Answers::parse("", Some(why)),
    };
    let scan = match answer(&holders_read()).and_then(whole) {
        Ok(text) => holders::parse(&text),
        Err(_) => Scan::default(),
    };
    let rows = answers.rows();
    let told = Told {
        rows: &rows,
        nvidia: &answers,
        vgpu: answers.vgpu_tree(),
        intel: &intel,
        amd: &amd,
        scan: &scan,
        catalog,
    };
    let mut gpus = gpus(cards, &told);
    let detected = detection_read(discovery.vendor_detection).map(|read| answer(&read));
    select::detected(
        &mut gpus,
        discovery.vendor_detection,
        detected,
        &answers,
        &mut notes,
    );
    select::named(&mut gpus, discovery, &mut notes);
    remarks(&gpus, &answers, &machine, &mut notes);
    let driver = rows.iter().find_map(|row| row.driver.clone());
    HostFacts {
        kernel: machine.kernel,
        arch: machine.arch,
        os: machine.os,
        boot_id: machine.boot_id,
        init: machine.init,
        cmdline: machine.cmdline,
        nvidia_driver: driver.map_or(machine.nvidia_driver, Fact::Known),
        modules: machine.modules,
        kept_files: machine.kept_files,
        passthrough: Passthrough {
            iommus: boot.iommus,
            functions,
            kept: boot.kept,
            kernel_words: boot.kernel_words,
        },
        kernel_boot: boot.boot,
        gpus,
        notes,
    }
}

/// The text of an answer that is whole, or why it is not.
fn whole(output: &Output) -> Result<String, String> {
    if output.timed_out {
        return Err("it took too long".to_owned());
    }
    if output.truncated {
        return Err("the answer was too long".to_owned());
    }
    if output.status != 0 {
        let said: String = String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or("no message")
            .chars()
            .take(120)
            .collect();
        return Err(format!("it ended with status {}: {said}", output.status));
    }
    Ok(output.text())
}

/// What the scripts told besides the bus.
struct Told<'a> {
    rows: &'a [Row],
    nvidia: &'a Answers,
    vgpu: Result<Tree, String>,
    intel: &'a intel::Answers,
    amd: &'a amd::Answers,
    scan: &'a Scan,
    catalog: &'a Catalog,
}

fn gpus(cards: Option<Vec<PciCard>>, told: &Told<'_>) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = cards
        .unwrap_or_default()
        .iter()
        // A virtual function is listed with its physical one; in a virtual machine it has none
        // and is a card.
        .filter(|card| card.physfn.is_none())
        .filter_map(|card| gpu(card, told))
        .collect();
    // Containers and some virtual machines show no bus, or not all of it, but the tool answers.
    let hidden: Vec<&Row> = told
        .rows
        .iter()
        .filter(|row| gpus.iter().all(|gpu| gpu.pci != row.pci))
        .collect();
    gpus.extend(hidden.into_iter().map(|row| off_bus(row, told)));
    gpus.sort_by_key(|gpu| gpu.pci);
    gpus
}

fn vendor_id(vendor: Vendor) -> u16 {
    match vendor {
        Vendor::Nvidia => 0x10de,
        Vendor::Amd => 0x1002,
        Vendor::Intel => 0x8086,
    }
}

fn vendor(id: u16) -> Option<Vendor> {
    let all = [Vendor::Nvidia, Vendor::Amd, Vendor::Intel];
    all.into_iter().find(|vendor| vendor_id(*vendor) == id)
}

fn gpu(card: &PciCard, told: &Told<'_>) -> Option<Gpu> {
    let vendor = vendor(card.vendor)?;
    let row = told.rows.iter().find(|row| row.pci == card.pci);
    let nvidia = match (vendor, row) {
        (Vendor::Nvidia, Some(row)) => Fact::Known(told.nvidia.card(row)),
        (Vendor::Nvidia, None) => Fact::Unknown(match &card.driver {
            Fact::Known(driver) if driver != "nvidia" => {
                format!("it is bound to {driver}, so nvidia-smi does not see it")
            }
            _ => told.nvidia.why_no_row(),
        }),
        _ => Fact::Absent,
    };
    let mut nodes: Vec<String> = card
        .nodes
        .iter()
        .map(|node| {
            let folder = if node.starts_with("vfio") {
                "vfio/devices"
            } else {
                "dri"
            };
            format!("/dev/{folder}/{node}")
        })
        .collect();
    nodes.extend(
        card.vf_groups
            .iter()
            .chain(card.iommu_group.known())
            .map(|group| format!("/dev/vfio/{group}")),
    );
    let functions: Vec<PciAddress> = card.sriov.known().map_or_else(Vec::new, |sriov| {
        sriov.vfs.iter().map(|(address, _)| *address).collect()
    });
    let vgpu = match vendor {
        Vendor::Nvidia => told.nvidia.vgpu(card.pci, &functions, &told.vgpu),
        Vendor::Amd | Vendor::Intel => Fact::Absent,
    };
    if let Ok(tree) = &told.vgpu {
        let ours = |mdev: &&Mdev| mdev.parent == card.pci || functions.contains(&mdev.parent);
        let groups = tree.mdevs.iter().filter(ours).filter_map(|mdev| mdev.group);
        nodes.extend(groups.map(|group| format!("/dev/vfio/{group}")));
    }
    let amd = match vendor {
        Vendor::Amd => told.amd.card(card.pci, &card.driver),
        Vendor::Nvidia | Vendor::Intel => Fact::Absent,
    };
    if vendor == Vendor::Amd && card.driver.known().is_some_and(|d| d == "amdgpu") {
        nodes.push("/dev/kfd".to_owned());
    }
    // Those of partitions are no PCI functions, so that the bus does not show their nodes.
    let partitions = amd.known().and_then(|amd| amd.partitions.known());
    for minor in partitions
        .into_iter()
        .flatten()
        .filter_map(|partition| partition.render_minor.known())
    {
        let node = format!("/dev/dri/renderD{minor}");
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    Some(Gpu {
        pci: card.pci,
        vendor,
        device_id: card.device,
        subsystem: card.subsystem.clone(),
        class: card.class,
        model: model(told.catalog, vendor, card.device),
        driver: card.driver.clone(),
        iommu_group: card.iommu_group.clone(),
        numa_node: card.numa_node.clone(),
        reset: Fact::Known(card.reset),
        sriov: card.sriov.clone(),
        holders: held(told.scan, card.pci, nvidia.known(), nodes),
        nvidia,
        intel: match vendor {
            Vendor::Intel => told.intel.card(card),
            Vendor::Nvidia | Vendor::Amd => Fact::Absent,
        },
        amd,
        vgpu,
    })
}

/// A card that `nvidia-smi` lists and the PCI bus does not show.
fn off_bus(row: &Row, told: &Told<'_>) -> Gpu {
    fn unknown<T>() -> Fact<T> {
        Fact::Unknown("the PCI bus does not show the card".to_owned())
    }
    let device_id = row.device_id.unwrap_or_default();
    let nvidia = told.nvidia.card(row);
    Gpu {
        pci: row.pci,
        vendor: Vendor::Nvidia,
        device_id,
        subsystem: Fact::from_option(row.subsystem),
        class: DISPLAY << 16,
        model: model(told.catalog, Vendor::Nvidia, device_id),
        driver: Fact::Known("nvidia".to_owned()),
        iommu_group: unknown(),
        numa_node: unknown(),
        reset: unknown(),
        sriov: unknown(),
        holders: held(told.scan, row.pci, Some(&nvidia), Vec::new()),
        nvidia: Fact::Known(nvidia),
        intel: Fact::Absent,
        amd: Fact::Absent,
        vgpu: told.nvidia.vgpu(row.pci, &[], &told.vgpu),
    }
}

fn model(catalog: &Catalog, vendor: Vendor, device: u16) -> Fact<String> {
    Fact::from_option(
        catalog
            .by_pci(vendor, device)
            .map(|model| model.key.clone()),
    )
}

/// Who has the card's device nodes open. `/dev/nvidiactl` and `/dev/nvidia-uvm` belong to no
/// card: whoever uses a card has its own node open too.
fn held(
    scan: &Scan,
    pci: crate::facts::PciAddress,
    nvidia: Option<&NvidiaGpu>,
    mut nodes: Vec<String>,
) -> Fact<Vec<crate::facts::Holder>> {
    let minor = match (scan.minors.get(&pci), nvidia) {
        (Some(minor), _) => Some(*minor),
        // Where the driver tells no minor numbers at all they are the indices, as they mostly are.
        (None, Some(nvidia)) if scan.minors.is_empty() => Some(nvidia.index),
        _ => None,
    };
    nodes.extend(minor.map(|minor| format!("/dev/nvidia{minor}")));
    scan.holders_of(&nodes, minor)
}

/// What the user should hear of.
fn remarks(gpus: &[Gpu], answers: &Answers, machine: &Machine, notes: &mut Vec<String>) {
    let nvidia = gpus.iter().any(|gpu| gpu.vendor == Vendor::Nvidia);
    if nvidia && answers.tool_missing() {
        notes.push("there is an NVIDIA card, but nvidia-smi is not installed".to_owned());
    }
    if let Some(fault) = answers.fault().filter(|_| nvidia) {
        notes.push(format!("nvidia-smi: {fault} ({})", fault.hint()));
    }
    let loaded = |name: &str| {
        let modules = machine.modules.known();
        modules.is_some_and(|modules| modules.iter().any(|module| module == name))
    };
    if nvidia && loaded("nouveau") {
        notes.push("nouveau is loaded: NVIDIA's driver cannot take its cards".to_owned());
    }
    for gpu in gpus {
        if gpu.model == Fact::Absent {
            notes.push(format!(
                "{} {} device {:#06x} is in no models file; an entry in vars/{}_gpu_models.yml adds it",
                gpu.pci, gpu.vendor, gpu.device_id, gpu.vendor
            ));
        }
        if let Some(mig) = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known())
            && mig.current != mig.pending
        {
            notes.push(format!(
                "{}: a change of MIG mode is pending; it takes a reset or a reboot",
                gpu.label()
            ));
        }
    }
}

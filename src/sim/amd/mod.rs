//! AMD's cards of a simulated machine: what each kind can be, and what it is now.
//!
//! `kernel` plays the drivers: sysfs, the compute driver's topology, device nodes. What is
//! written here comes from captures and AMD's documents and not from the catalog, so that a
//! mistake there shows.

mod gim;
mod kernel;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

pub(super) use gim::{Change, options, put, set_functions, set_modes};
pub(super) use kernel::{Loaded, load, loaded, power_cycle, set_compute, set_memory, show, unload};

/// Render nodes that the DRM subsystem has in all: minors 128 to 191.
const RENDER_NODES: u32 = 64;

/// A kind of card, beside its place in the PCI database.
#[derive(Debug)]
pub(super) struct Kind {
    /// Key of its `BareCard`.
    pub(super) key: &'static str,
    /// Name as AMD's tools print it.
    pub(super) market: &'static str,
    /// Accelerator complex dies.
    pub(super) xcc: u32,
    /// Board memory in MiB.
    pub(super) memory_mib: u64,
    /// Compute modes: name, partitions, memory modes that go with it, numbers of virtual
    /// functions under GIM. Empty where the card cannot be partitioned.
    pub(super) modes: &'static [Mode],
    /// Numbers of virtual functions under GIM of a card that cannot be partitioned.
    pub(super) plain_functions: &'static [u32],
}

/// A compute mode.
#[derive(Debug)]
pub(super) struct Mode {
    pub(super) name: &'static str,
    pub(super) partitions: u32,
    pub(super) memory: &'static [&'static str],
    pub(super) functions: &'static [u32],
}

const fn mode(
    name: &'static str,
    partitions: u32,
    memory: &'static [&'static str],
    functions: &'static [u32],
) -> Mode {
    Mode {
        name,
        partitions,
        memory,
        functions,
    }
}

const ONE: &[&str] = &["NPS1"];
const ONE_FOUR: &[&str] = &["NPS1", "NPS4"];
const ONE_TWO: &[&str] = &["NPS1", "NPS2"];

/// As amd-smi of ROCm 6.4.3 printed it on MI300X.
const MI300X: &[Mode] = &[
    mode("SPX", 1, ONE, &[1]),
    mode("DPX", 2, ONE, &[2]),
    mode("QPX", 4, ONE_FOUR, &[4]),
    mode("CPX", 8, ONE_FOUR, &[1, 2, 4, 8]),
];
const MI350X: &[Mode] = &[
    mode("SPX", 1, ONE, &[1]),
    mode("DPX", 2, ONE_TWO, &[2]),
    mode("QPX", 4, ONE_TWO, &[]),
    mode("CPX", 8, ONE_TWO, &[8]),
];
const MI300A: &[Mode] = &[
    mode("SPX", 1, ONE, &[]),
    mode("TPX", 3, ONE, &[]),
    mode("CPX", 6, ONE, &[]),
];

/// All kinds that can be simulated.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        key: "MI100",
        market: "AMD Instinct MI100",
        xcc: 1,
        memory_mib: 32_752,
        modes: &[],
        plain_functions: &[],
    },
    Kind {
        key: "MI210",
        market: "AMD Instinct MI210",
        xcc: 1,
        memory_mib: 65_520,
        modes: &[],
        plain_functions: &[1],
    },
    Kind {
        key: "MI250",
        market: "AMD Instinct MI250X / MI250",
        xcc: 1,
        memory_mib: 65_520,
        modes: &[],
        plain_functions: &[],
    },
    Kind {
        key: "MI300A",
        market: "AMD Instinct MI300A",
        xcc: 6,
        memory_mib: 128_000,
        modes: MI300A,
        plain_functions: &[],
    },
    Kind {
        key: "MI300X",
        market: "AMD Instinct MI300X",
        xcc: 8,
        memory_mib: 196_592,
        modes: MI300X,
        plain_functions: &[],
    },
    Kind {
        key: "MI355X",
        market: "AMD Instinct MI355X",
        xcc: 8,
        memory_mib: 294_896,
        modes: MI350X,
        plain_functions: &[],
    },
    Kind {
        key: "V710",
        market: "AMD Radeon PRO V710",
        xcc: 1,
        memory_mib: 28_656,
        modes: &[],
        plain_functions: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    },
];

/// How the `sim:` variable describes AMD's side of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AmdSpec {
    /// Kernel driver that takes the cards: `amdgpu` or `gim`.
    pub(super) driver: String,
    /// Version of ROCm, whose `amd-smi` is installed under `amdgpu`.
    pub(super) rocm: String,
}

impl Default for AmdSpec {
    fn default() -> Self {
        Self {
            driver: "amdgpu".to_owned(),
            rocm: "7.0.2".to_owned(),
        }
    }
}

/// What AMD's cards of a machine are now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct AmdState {
    /// In the order of their PCI addresses.
    pub(super) cards: Vec<Card>,
    /// Files and folders that the drivers show now, outside of the cards' own folders.
    pub(super) shown: Vec<String>,
    /// Render nodes that were left when the driver was loaded.
    pub(super) render_nodes: u32,
}

/// One card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Card {
    /// Key of its kind.
    pub(super) kind: String,
    /// PCI address as sysfs has it.
    pub(super) pci: String,
    /// Compute mode in force.
    pub(super) compute: String,
    /// Memory mode in force.
    pub(super) memory: String,
    /// Memory mode that takes effect when the driver is loaded next. It is the hive's, so it is
    /// the same for all cards of a kind.
    pub(super) request: Option<String>,
}

impl Card {
    pub(super) fn new(kind: &str, pci: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            pci: pci.to_owned(),
            compute: "SPX".to_owned(),
            memory: "NPS1".to_owned(),
            request: None,
        }
    }

    pub(super) fn kind(&self) -> &'static Kind {
        KINDS
            .iter()
            .find(|kind| kind.key == self.kind)
            .unwrap_or(&KINDS[0])
    }

    /// The compute mode in force; none of a card that has one form only.
    pub(super) fn mode(&self) -> Option<&'static Mode> {
        self.kind()
            .modes
            .iter()
            .find(|mode| mode.name == self.compute)
    }

    /// How many devices the card shows.
    pub(super) fn partitions(&self) -> u32 {
        self.mode().map_or(1, |mode| mode.partitions)
    }

    /// Most devices that it can show; so many render nodes are its own.
    pub(super) fn most_partitions(&self) -> u32 {
        let modes = self.kind().modes.iter();
        modes.map(|mode| mode.partitions).max().unwrap_or(1)
    }

    /// Compute modes that go with the memory mode in force.
    pub(super) fn available_compute(&self) -> Vec<&'static str> {
        let fits = |mode: &&Mode| mode.memory.contains(&self.memory.as_str());
        let modes = self.kind().modes.iter().filter(fits);
        modes.map(|mode| mode.name).collect()
    }

    /// Memory modes that go with any compute mode.
    pub(super) fn available_memory(&self) -> Vec<&'static str> {
        let modes = self.kind().modes.iter();
        let mut names: Vec<&str> = modes.flat_map(|mode| mode.memory).copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The compute mode that the driver takes when it is loaded: the coarsest that the memory
    /// mode allows.
    pub(super) fn compute_after_load(&self) -> &'static str {
        let partitions = self.memory.trim_start_matches("NPS").parse().unwrap_or(1);
        let fits = |mode: &&Mode| {
            mode.partitions >= partitions && mode.memory.contains(&self.memory.as_str())
        };
        self.kind()
            .modes
            .iter()
            .find(fits)
            .map_or("SPX", |mode| mode.name)
    }

    /// The hive's number in sysfs; cards of a kind on one board are one.
    pub(super) fn hive(&self) -> u64 {
        match self.kind().modes {
            [] => 0,
            _ => 15_188_982_192_727_901_000 + u64::from(self.kind().xcc),
        }
    }

    /// Numbers of virtual functions that GIM takes in the present modes.
    pub(super) fn functions(&self) -> &'static [u32] {
        match self.mode() {
            Some(mode) => mode.functions,
            None => self.kind().plain_functions,
        }
    }
}

/// The device node that a user of a card opens beside `/dev/kfd`, or beside nothing: of one
/// that hands out functions, the group of the first.
pub(super) fn node_of(host: &super::machine::Host, machine: &Machine, index: usize) -> String {
    let before: u32 = machine.amd.cards[..index]
        .iter()
        .map(Card::most_partitions)
        .sum();
    let pci = &machine.amd.cards[index].pci;
    let vf = super::host::device_directory(pci) + "/virtfn0/iommu_group";
    match host.path(vf).read_link() {
        Ok(group) => match group.file_name().and_then(|name| name.to_str()) {
            Some(group) => format!("/dev/vfio/{group}"),
            None => "/dev/vfio/0".to_owned(),
        },
        Err(_) => format!("/dev/dri/renderD{}", 128 + before),
    }
}

impl Machine {
    /// The AMD card with an address.
    pub(super) fn amd_card(&self, pci: &str) -> Option<&Card> {
        self.amd.cards.iter().find(|card| card.pci == pci)
    }

    /// Whether anybody has one of AMD's cards, or a virtual function of one, open. The compute
    /// driver refuses changes while it has any process at all.
    pub(super) fn amd_in_use(&self) -> bool {
        let first = self.gpus.len();
        self.holders.iter().any(|holder| match &holder.node {
            Some(node) => node.starts_with("/dev/vfio/") || self.amd.shown.contains(node),
            None => holder.gpu as usize >= first,
        })
    }
}

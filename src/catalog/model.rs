//! What a model of GPU can do, as the files in `vars/` say.
//!
//! Plain data. `load` checks it, `mod` finds a model by PCI id or name. What a
//! host's own driver reports wins over it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{Placement, Vendor};

/// A way to slice a card, or to hand it out. Ansible's and the vendors' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Technology {
    /// NVIDIA Multi-Instance GPU.
    Mig,
    /// Processes share the card in turns.
    TimeSlicing,
    /// NVIDIA Multi-Process Service.
    Mps,
    /// PCI virtual functions.
    Sriov,
    /// NVIDIA vGPU.
    Vgpu,
    /// AMD compute and memory partitions.
    Partition,
    /// Intel Level Zero masks; hints without isolation.
    LevelZero,
    /// ROCm masks for containers; hints without isolation.
    Rocm,
    /// The whole card for one virtual machine.
    Passthrough,
    /// Managed and unsliced.
    None,
}

impl Technology {
    /// All of them, in the order of the documentation.
    pub const ALL: [Technology; 10] = [
        Self::Mig,
        Self::TimeSlicing,
        Self::Mps,
        Self::Sriov,
        Self::Vgpu,
        Self::Partition,
        Self::LevelZero,
        Self::Rocm,
        Self::Passthrough,
        Self::None,
    ];

    /// The word users write.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mig => "mig",
            Self::TimeSlicing => "time-slicing",
            Self::Mps => "mps",
            Self::Sriov => "sriov",
            Self::Vgpu => "vgpu",
            Self::Partition => "partition",
            Self::LevelZero => "level-zero",
            Self::Rocm => "rocm",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Technology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a card changes its MIG mode (NVIDIA page, section 0.1 and 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// GA100: the mode is pending until a reset, and survives a reboot.
    Ampere,
    /// GH100: the mode changes at once, and is gone after a reboot.
    Hopper,
    /// GB100, GB202: as Hopper.
    Blackwell,
    /// AD10x: no MIG.
    Ada,
    /// TU10x: no MIG.
    Turing,
    /// GV100: no MIG.
    Volta,
    /// GP10x: no MIG.
    Pascal,
    /// Another vendor's or an older one; its name stands in `Model::notes`.
    Other,
}

/// One product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Key in the file, such as `H100-80GB`.
    pub key: String,
    /// Who makes it.
    pub vendor: Vendor,
    /// Name as the vendor's tool prints it.
    pub name: String,
    /// Further names of the same product.
    pub aliases: Vec<String>,
    /// Generation.
    pub architecture: Architecture,
    /// PCI device ids, with what pci.ids calls each.
    pub device_ids: Vec<DeviceId>,
    /// PCI base class, for a product whose class is neither that of display controllers (0x03)
    /// nor of processing accelerators (0x12); discovery would not look at it otherwise.
    pub pci_class: Option<u8>,
    /// Board memory in MiB, if known.
    pub memory_mib: Option<u64>,
    /// What it can do; never empty.
    pub technologies: Vec<Technology>,
    /// Its MIG geometry, if it has MIG.
    pub mig: Option<MigModel>,
    /// Most virtual functions, if it has SR-IOV and the number is known; the host's
    /// `sriov_totalvfs` wins over it.
    pub max_vfs: Option<u32>,
    /// The only numbers of virtual functions on offer; empty where every number up to the
    /// maximum is.
    pub vf_counts: Vec<u32>,
    /// Most device memory of all virtual functions together, in MiB, if known.
    pub vf_memory_mib: Option<u64>,
    /// Compute and memory mode that a number of virtual functions needs, such as 8: `CPX/NPS4`.
    pub vf_modes: BTreeMap<u32, String>,
    /// PCI device ids of the virtual functions, where they differ from the card's own.
    pub vf_device_ids: Vec<u16>,
    /// Names of its vGPU types; empty where not all are known. The host's own list wins.
    pub vgpu_types: Vec<String>,
    /// AMD compute and memory partitions, if it has them.
    pub partitions: Option<PartitionModel>,
    /// Sentences that a user should know.
    pub notes: Vec<String>,
}

/// A PCI device id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceId {
    /// Such as `0x2330`.
    pub device: u16,
    /// What it is called; may be empty.
    pub name: String,
}

/// Compute and memory partitions of a product, in the vendor's words (`CPX`, `NPS4`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionModel {
    /// Compute partition modes.
    pub compute: Vec<String>,
    /// Memory partition modes; empty where they are not known.
    pub memory: Vec<String>,
    /// Pairs that the vendor validated, such as `CPX/NPS4`.
    pub combinations: Vec<String>,
}

/// MIG geometry of a product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigModel {
    /// Units of the placement grid: 8 on the big cards, 4 on A30, 12 on RTX PRO 6000;
    /// none where nobody published the placements.
    pub memory_slices: Option<u32>,
    /// Compute slices in all.
    pub compute_slices: u32,
    /// What can be created.
    pub profiles: Vec<ProfileSpec>,
}

/// A GPU instance profile of a product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileSpec {
    /// Name, such as `3g.40gb`.
    pub name: String,
    /// Names that other branches of the driver have for it.
    pub aliases: Vec<String>,
    /// Profile id, such as 9; unknown for products that nobody published a listing of.
    pub id: Option<u32>,
    /// Compute slices.
    pub compute_slices: u32,
    /// Grid units that it takes, if known.
    pub memory_slices: Option<u32>,
    /// Memory in MiB, if known.
    pub memory_mib: Option<u64>,
    /// How many fit on an empty card.
    pub max: u32,
    /// Legal places; empty where nobody published them.
    pub placements: Vec<Placement>,
    /// Streaming multiprocessors, if known.
    pub sm: Option<u32>,
    /// How sure this row is: a capture of real hardware, derived from its family, or documentation only.
    pub confidence: String,
}

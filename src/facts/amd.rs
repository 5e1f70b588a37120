//! What an AMD card is beyond its place on the bus: who drives it, how it is cut up.

use serde::{Deserialize, Serialize};

use super::{Fact, PciAddress};

/// What AMD's drivers and tools say of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmdGpu {
    /// Which of AMD's kernel drivers has it.
    pub driver: AmdDriver,
    /// Compute partitioning (`SPX` to `CPX`); absent if the card has none.
    pub compute: Fact<PartitionMode>,
    /// Memory partitioning (`NPS1` to `NPS8`); absent if the card has none.
    pub memory: Fact<PartitionMode>,
    /// The devices that processes see, in the order of their partition ids: one, or one for
    /// each compute partition. Only under `amdgpu`.
    pub partitions: Fact<Vec<AmdPartition>>,
    /// The XGMI hive; memory partitioning is changed for all cards of one together.
    pub hive: Fact<u64>,
    /// Board memory in MiB.
    pub memory_mib: Fact<u64>,
    /// Virtual functions under `gim`; absent under other drivers.
    pub gim: Fact<GimState>,
    /// The tool called `amd-smi` (or `rocm-smi`) that answers on the host.
    pub tool: Fact<AmdTool>,
}

/// A kernel driver of AMD's. A host has one of them: it is a machine that computes itself, or one
/// that hands virtual functions out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AmdDriver {
    /// `amdgpu`: the card is used by this host and its containers.
    Amdgpu,
    /// `gim`: the card is cut into virtual functions for virtual machines.
    Gim,
}

/// A partition mode and what can be set instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMode {
    /// In force, in the driver's word.
    pub current: String,
    /// What the driver takes now; changes with the firmware and with the other mode.
    pub available: Fact<Vec<String>>,
}

/// A device that a process or a container can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmdPartition {
    /// Its number within the card.
    pub id: u32,
    /// N of `/dev/dri/renderDN`; absent if the kernel had no render node left for it.
    pub render_minor: Fact<u32>,
    /// Accelerator complex dies in it.
    pub xcc: Fact<u32>,
}

/// A card under AMD's host driver for virtual functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GimState {
    /// Virtual functions that exist, as the tool says it.
    pub enabled: Fact<u32>,
    /// Most that the firmware allows.
    pub supported: Fact<u32>,
    /// Numbers of virtual functions by compute mode, with the memory modes of each.
    pub modes: Fact<Vec<GimMode>>,
    /// The card's number for the tool, and the virtual functions that it lists.
    pub index: Fact<u32>,
    /// Addresses of the virtual functions that the tool lists.
    pub vfs: Vec<PciAddress>,
}

/// A row of GIM's global partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GimMode {
    /// Compute mode.
    pub compute: String,
    /// Numbers of virtual functions that it allows.
    pub vf_counts: Vec<u32>,
    /// Memory modes that it allows.
    pub memory: Vec<String>,
}

/// A command line tool of AMD's. Two different programs are called `amd-smi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmdTool {
    /// Which program.
    pub kind: AmdToolKind,
    /// Its version, as it prints it.
    pub version: String,
}

/// Which of AMD's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmdToolKind {
    /// `amd-smi` of ROCm, for `amdgpu`.
    RocmAmdSmi,
    /// `amd-smi` of GIM, for `gim`.
    GimAmdSmi,
    /// `rocm-smi`, the older one.
    RocmSmi,
}

impl AmdGpu {
    /// The compute mode in force.
    #[must_use]
    pub fn compute_mode(&self) -> Option<&str> {
        Some(self.compute.known()?.current.as_str())
    }

    /// The memory mode in force.
    #[must_use]
    pub fn memory_mode(&self) -> Option<&str> {
        Some(self.memory.known()?.current.as_str())
    }
}

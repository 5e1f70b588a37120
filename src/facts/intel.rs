//! What only Intel's cards have: tiles, compute engines that share them, and the files in
//! which the kernel takes a virtual function's share.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Fact;

/// What sysfs and `xpu-smi` say of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelGpu {
    /// The kernel driver that has it.
    pub driver: IntelDriver,
    /// Tiles; the i915 of Linux itself does not tell.
    pub tiles: Fact<u32>,
    /// Graphics units, by tile and number.
    pub gts: Vec<IntelGt>,
    /// Where shares of virtual functions are set, and what is set; absent if the driver is no
    /// physical function or has no such files.
    pub provisioning: Fact<Provisioning>,
    /// Render nodes, such as `renderD128`.
    pub render_nodes: Vec<String>,
    /// What `xpu-smi` calls it; absent where the tool is not installed or does not list it.
    pub tool: Fact<XpuSmi>,
}

/// A kernel driver for Intel's cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntelDriver {
    /// `xe`.
    Xe,
    /// `i915` of Linux itself, which has no virtual functions.
    I915,
    /// `i915` from outside of Linux, for the Flex and Max cards; some of it is ported to others.
    I915Prelim,
}

impl fmt::Display for IntelDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xe => "xe",
            Self::I915 => "i915",
            Self::I915Prelim => "i915 (out of tree)",
        })
    }
}

/// One graphics unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelGt {
    /// Its tile; i915 counts units only, and a unit's number stands here too.
    pub tile: u32,
    /// Its number.
    pub gt: u32,
    /// `ccs_mode`: how many compute engines share its compute slices; absent if it has one only.
    pub ccs_mode: Fact<u32>,
    /// `num_cslices`: how many compute slices it has.
    pub num_cslices: Fact<u32>,
}

/// Where a driver takes the shares of virtual functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvisioningInterface {
    /// `sriov_admin/` of xe, since Linux 6.19.
    SriovAdmin,
    /// `iov/` of i915, below the card's `drm/cardN/`.
    Iov,
    /// `prelim_iov/`, the same under the name that Intel's own packages use.
    PrelimIov,
    /// debugfs of xe before 6.19.
    Debugfs,
}

impl fmt::Display for ProvisioningInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SriovAdmin => "sriov_admin",
            Self::Iov => "iov",
            Self::PrelimIov => "prelim_iov",
            Self::Debugfs => "debugfs",
        })
    }
}

/// Shares of virtual functions, as they are set now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// Where they are set.
    pub interface: ProvisioningInterface,
    /// Whether the driver divides the card by itself (`pf/auto_provisioning` of i915); absent
    /// where there is no such switch.
    pub auto: Fact<bool>,
    /// What a virtual function can be given there, by the names of `VfShare`.
    pub takes: Vec<String>,
    /// The virtual functions that exist, and others for which something is set.
    pub vfs: Vec<VfShare>,
}

/// The share of one virtual function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfShare {
    /// Its number, from 1: `vf1` is `virtfn0`.
    pub number: u32,
    /// Device memory in bytes, over all tiles; 0 for none.
    pub vram_quota: Fact<u64>,
    /// Longest turn in milliseconds; 0 for no limit.
    pub exec_quantum_ms: Fact<u64>,
    /// How long it may take to give way, in microseconds; 0 for no limit.
    pub preempt_timeout_us: Fact<u64>,
    /// `low`, `normal` or `high`.
    pub sched_priority: Fact<String>,
}

/// A card as `xpu-smi discovery` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XpuSmi {
    /// Version of the tool, such as `1.2.22.20231025`.
    pub version: Fact<String>,
    /// The number by which the tool knows the card.
    pub device_id: u32,
    /// Product name.
    pub name: String,
    /// UUID; made of the PCI ids and place, and so the same for equal cards of other hosts.
    pub uuid: Fact<String>,
}

//! What discovery saw on a host: pure data, three-valued.
//!
//! `Fact` keeps "it is not there" apart from "we could not look": no default
//! ever hides a failed probe. `host` holds the machine, `gpu` the cards, a file
//! a vendor what only its cards have, and `vgpu` what NVIDIA's vGPU software shows
//! of them; `passthrough` holds the IOMMU and its groups, `kernel_boot` the boot loader. This room knows no vendor tool and no wire; `discover` fills it.

pub mod amd;
pub mod gpu;
pub mod host;
pub mod intel;
pub mod kernel_boot;
pub mod passthrough;
pub mod vgpu;

use serde::{Deserialize, Serialize};

pub use amd::{
    AmdDriver, AmdGpu, AmdPartition, AmdTool, AmdToolKind, GimMode, GimState, PartitionMode,
};
pub use gpu::{
    ComputeInstance, Gpu, GpuInstance, GpuUuid, Holder, MigMode, MigProfile, MigState, MpsDaemon,
    NvidiaGpu, PciAddress, Placement, Sriov, Vendor,
};
pub use host::{HostFacts, Init, Os};
pub use intel::{
    IntelDriver, IntelGpu, IntelGt, Provisioning, ProvisioningInterface, VfShare, XpuSmi,
};
pub use kernel_boot::{BootLoader, CpuVendor, Initramfs, IommuTable, KernelBoot};
pub use passthrough::{Passthrough, PciFunction};
pub use vgpu::{HostModel, License, Vgpu, VgpuGuest, VgpuHost, VgpuInstance, VgpuType};

/// Something that was looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// It was seen.
    Known(T),
    /// It was looked for and is not there (or the card has no such thing).
    #[default]
    Absent,
    /// It could not be looked for; why.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, if it was seen.
    pub fn known(&self) -> Option<&T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Absent | Fact::Unknown(_) => None,
        }
    }

    /// Why it is not known, if that is so.
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Fact::Unknown(reason) => Some(reason),
            Fact::Known(_) | Fact::Absent => None,
        }
    }

    /// `Known` for `Some`, `Absent` for `None`.
    pub fn from_option(value: Option<T>) -> Self {
        value.map_or(Fact::Absent, Fact::Known)
    }

    /// The same with the value changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Known(value) => Fact::Known(change(value)),
            Fact::Absent => Fact::Absent,
            Fact::Unknown(reason) => Fact::Unknown(reason),
        }
    }
}

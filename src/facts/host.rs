//! The machine around the cards.

use serde::{Deserialize, Serialize};

use super::{Fact, Gpu, KernelBoot, Passthrough};

/// Everything that one discovery batch told of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Kernel release, as `uname -r` prints it.
    pub kernel: Fact<String>,
    /// Machine architecture, as `uname -m` prints it.
    pub arch: Fact<String>,
    /// Distribution, from `/etc/os-release`.
    pub os: Fact<Os>,
    /// `/proc/sys/kernel/random/boot_id`; another after each boot.
    pub boot_id: Fact<String>,
    /// What runs as process 1.
    pub init: Init,
    /// `/proc/cmdline`.
    pub cmdline: Fact<String>,
    /// Version of the NVIDIA driver that answers, such as `590.48.01`.
    pub nvidia_driver: Fact<String>,
    /// Loaded kernel modules that matter here (`nvidia`, `nvidia_drm`, `vfio_pci`, …).
    pub modules: Fact<Vec<String>>,
    /// Files below `/etc/deploy/gpu`, where technologies keep what the boot script reads.
    #[serde(default)]
    pub kept_files: Fact<Vec<String>>,
    /// The IOMMU and what shares slots and groups with the cards.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// How the kernel is booted.
    #[serde(default)]
    pub kernel_boot: KernelBoot,
    /// All display controllers and processing accelerators, by PCI address.
    pub gpus: Vec<Gpu>,
    /// What discovery noticed and the user should hear, in sentences.
    pub notes: Vec<String>,
}

/// A distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`; empty where there is none.
    pub version: String,
    /// `PRETTY_NAME`.
    pub name: String,
}

/// The init system, as far as we treat them differently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `systemd` runs (`/run/systemd/system` exists).
    #[default]
    Systemd,
    /// Something else, by name if it is known.
    Other(String),
}

//! One card: its place on the bus, and what its vendor's tool said of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AmdGpu, Fact, IntelGpu, Vgpu};

/// A PCI address, printed as sysfs writes it: `0000:17:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PciAddress {
    /// Domain; `nvidia-smi` writes it with eight digits, sysfs with four.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device (slot).
    pub device: u8,
    /// Function.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for PciAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for PciAddress {
    type Err = String;

    /// Reads `0000:17:00.0`, `00000000:17:00.0` and `17:00.0`, in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts: Vec<&str> = text.split(':').collect();
            if parts.len() == 2 {
                parts.insert(0, "0");
            }
            let [domain, bus, slot] = parts[..] else {
                return None;
            };
            let (device, function) = slot.split_once('.')?;
            Some(Self {
                domain: u32::from_str_radix(domain, 16).ok()?,
                bus: u8::from_str_radix(bus, 16).ok()?,
                device: u8::from_str_radix(device, 16).ok()?,
                function: u8::from_str_radix(function, 16).ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is not a PCI address such as 0000:17:00.0"))
    }
}

/// A card's UUID as `nvidia-smi` prints it: `GPU-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuUuid(pub String);

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who made the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// PCI vendor 10de.
    Nvidia,
    /// PCI vendor 1002.
    Amd,
    /// PCI vendor 8086.
    Intel,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
            Self::Intel => "intel",
        })
    }
}

/// One card (a physical function; virtual functions are listed in `sriov`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Where it is plugged in.
    pub pci: PciAddress,
    /// Who made it.
    pub vendor: Vendor,
    /// PCI device id, such as `0x2330`.
    pub device_id: u16,
    /// PCI subsystem vendor and device id.
    pub subsystem: Fact<(u16, u16)>,
    /// PCI class with subclass and interface, such as `0x030200`.
    pub class: u32,
    /// Key of the catalog's model, such as `H100-80GB`; absent if no model has its id.
    pub model: Fact<String>,
    /// Kernel driver bound to it.
    pub driver: Fact<String>,
    /// IOMMU group.
    pub iommu_group: Fact<u32>,
    /// NUMA node; absent where the kernel says -1.
    pub numa_node: Fact<u32>,
    /// Whether the kernel offers a function reset (`reset` in sysfs).
    pub reset: Fact<bool>,
    /// SR-IOV attributes; absent if the card has none.
    pub sriov: Fact<Sriov>,
    /// What NVIDIA's tool says; absent for other vendors.
    pub nvidia: Fact<NvidiaGpu>,
    /// What only Intel's drivers say; absent for other vendors, and for a card that none of
    /// Intel's drivers has.
    pub intel: Fact<IntelGpu>,
    /// What NVIDIA's vGPU software shows; absent where it is not installed.
    #[serde(default = "not_recorded")]
    pub vgpu: Fact<Vgpu>,
    /// What AMD's drivers and tools say; absent for other vendors.
    pub amd: Fact<AmdGpu>,
    /// Who has the card's device nodes open; empty if nobody.
    pub holders: Fact<Vec<Holder>>,
}

/// Facts that were saved before a field existed have none of it.
fn not_recorded<T>() -> Fact<T> {
    Fact::Absent
}

impl Gpu {
    /// How the card is called in messages: `GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3)`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.nvidia.known() {
            Some(nvidia) => format!("GPU {} ({}, {})", nvidia.index, self.pci, nvidia.name),
            None => match self.model.known() {
                Some(model) => format!("GPU {} ({} {model})", self.pci, self.vendor),
                None => format!("GPU {} ({} {:04x})", self.pci, self.vendor, self.device_id),
            },
        }
    }
}

/// SR-IOV as the kernel's sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sriov {
    /// `sriov_totalvfs`.
    pub total_vfs: u32,
    /// `sriov_numvfs`.
    pub num_vfs: u32,
    /// `sriov_drivers_autoprobe`; kernels before 4.12 lack it.
    pub drivers_autoprobe: Fact<bool>,
    /// The virtual functions that exist, in the order of `virtfnN`, each with its driver.
    pub vfs: Vec<(PciAddress, Fact<String>)>,
}

/// What `nvidia-smi` says of a card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NvidiaGpu {
    /// Index of this boot; may change when cards come and go.
    pub index: u32,
    /// UUID; stays with the card.
    pub uuid: GpuUuid,
    /// Product name.
    pub name: String,
    /// Board memory in MiB.
    pub memory_mib: Fact<u64>,
    /// Compute capability times ten: 80 is Ampere GA100, 90 Hopper, 100 Blackwell.
    pub compute_capability: Fact<u32>,
    /// Persistence mode.
    pub persistence: Fact<bool>,
    /// Compute mode, in the tool's word (`Default`, `Exclusive_Process`, …).
    pub compute_mode: Fact<String>,
    /// Time slice of the compute policy, in the tool's word (`Default`, `Short`, …).
    pub timeslice: Fact<String>,
    /// MPS daemons that deploy has started on the card and that answer, by device.
    #[serde(default = "not_recorded")]
    pub mps: Fact<Vec<MpsDaemon>>,
    /// MIG; absent if the card has none (`[N/A]`).
    pub mig: Fact<MigState>,
}

/// A control daemon of NVIDIA's Multi-Process Service, with what it gives each client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MpsDaemon {
    /// UUID of the card or of the MIG device that it serves.
    pub device: String,
    /// Share of the multiprocessors, 1 to 100.
    pub active_thread_percentage: u32,
    /// Device memory in MiB; no limit if none.
    pub memory_limit_mib: Option<u64>,
}

/// MIG mode, profiles on offer and instances that exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigState {
    /// The mode in force.
    pub current: MigMode,
    /// The mode after the next reset or reboot.
    pub pending: MigMode,
    /// What the driver offers (`-lgip`, `-lgipp`); some drivers list only with the mode on.
    pub profiles: Fact<Vec<MigProfile>>,
    /// What exists, by GPU instance id.
    pub instances: Fact<Vec<GpuInstance>>,
}

/// MIG mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigMode {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

impl fmt::Display for MigMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        })
    }
}

/// A GPU instance profile as the host's driver lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigProfile {
    /// Profile id, such as 19; stable over drivers where names are not.
    pub id: u32,
    /// Name without the `MIG ` before it, such as `1g.10gb+me`.
    pub name: String,
    /// How many more can be created now.
    pub free: u32,
    /// How many fit on an empty card.
    pub total: u32,
    /// Memory in GiB times 100, as shown (`9.75` is 975).
    pub memory_centi_gib: u32,
    /// Streaming multiprocessors.
    pub sm: u32,
    /// Legal places (`-lgipp`).
    pub placements: Fact<Vec<Placement>>,
}

/// Memory slices `start .. start + size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// First slice.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// Its id, from the driver's pools.
    pub gi_id: u32,
    /// Its profile's id.
    pub profile_id: u32,
    /// Its profile's name, such as `3g.40gb`.
    pub profile: String,
    /// Where it lies.
    pub placement: Placement,
    /// Its compute instances, by id; unknown if they could not be listed.
    pub compute: Fact<Vec<ComputeInstance>>,
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeInstance {
    /// Its id within the GPU instance.
    pub ci_id: u32,
    /// Its profile's id.
    pub profile_id: u32,
    /// Its profile's name, such as `1c.3g.40gb`.
    pub profile: String,
    /// The MIG device's UUID (`MIG-…`).
    pub uuid: Fact<String>,
}

/// A process that has a card's device node open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id on the host.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub command: String,
    /// Its systemd unit, from its control group.
    pub unit: Fact<String>,
    /// Its container id, from its control group.
    pub container: Fact<String>,
    /// The GPU instances of the card that it has open, by id, where it has only these; empty
    /// for one that has the card as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_read_in_all_forms_that_tools_print() {
        for text in ["0000:C1:00.0", "00000000:C1:00.0", "c1:00.0"] {
            let address: PciAddress = text.parse().expect("a legal address");
            assert_eq!(address.to_string(), "0000:c1:00.0");
        }
        assert!("c1:00".parse::<PciAddress>().is_err());
        assert!("x".parse::<PciAddress>().is_err());
    }
}

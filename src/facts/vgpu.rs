//! What NVIDIA's vGPU software shows of one card: on a host the types on offer and
//! the vGPUs that exist, in a virtual machine the licence.

use serde::{Deserialize, Serialize};

use super::{Fact, PciAddress};

/// Which side of vGPU the card is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vgpu {
    /// The vGPU host driver has it.
    Host(VgpuHost),
    /// It is itself a vGPU: we are in a virtual machine.
    Guest(VgpuGuest),
}

impl Vgpu {
    /// The host's side, if it is that.
    #[must_use]
    pub fn host(&self) -> Option<&VgpuHost> {
        match self {
            Self::Host(host) => Some(host),
            Self::Guest(_) => None,
        }
    }

    /// The guest's side, if it is that.
    #[must_use]
    pub fn guest(&self) -> Option<&VgpuGuest> {
        match self {
            Self::Guest(guest) => Some(guest),
            Self::Host(_) => None,
        }
    }
}

/// A card under the vGPU host driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuHost {
    /// How vGPUs are made; absent while there is nothing to tell it by: a card with SR-IOV
    /// shows it only once its virtual functions exist.
    pub model: Fact<HostModel>,
    /// `Host VGPU Mode` of `nvidia-smi -q`: whether vGPUs live on virtual functions; absent
    /// for `N/A`.
    pub sriov_mode: Fact<bool>,
    /// Whether vGPUs of different framebuffer may share the card; absent where the driver
    /// has no such mode.
    pub heterogeneous: Fact<bool>,
    /// The types on offer.
    pub types: Fact<Vec<VgpuType>>,
    /// The vGPUs that exist, in the order of their parents.
    pub existing: Fact<Vec<VgpuInstance>>,
}

/// How vGPUs are made (domain page, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostModel {
    /// Mediated devices: a UUID is written below `mdev_supported_types`. Pascal to Ampere.
    Mdev,
    /// The type's id is written to a virtual function's `nvidia/current_vgpu_type`. Ada and
    /// later with vGPU 17, and Ampere on kernels without mediated devices.
    VendorVfio,
}

/// A type on offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuType {
    /// Its id: 742 of `nvidia-742` and `0x2e6`.
    pub id: u32,
    /// Its name as the driver prints it, such as `NVIDIA A2-4Q`.
    pub name: String,
    /// Framebuffer in MiB.
    pub framebuffer_mib: Fact<u64>,
    /// Most of them on an otherwise empty card.
    pub max_instances: Fact<u32>,
    /// Id of the GPU instance profile that it lives in; absent for types that share a card in
    /// turns.
    pub gi_profile: Fact<u32>,
    /// Most of them in one GPU instance; absent as `gi_profile`.
    pub max_per_gi: Fact<u32>,
}

impl VgpuType {
    /// The name that users write: the last word, `A2-4Q`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.name.rsplit(' ').next().unwrap_or(&self.name)
    }
}

/// A vGPU that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuInstance {
    /// The function that carries it: a virtual one, or the card itself before Ampere.
    pub parent: PciAddress,
    /// Id of its type.
    pub type_id: u32,
    /// UUID of its mediated device; absent where there are none.
    pub uuid: Fact<String>,
    /// The virtual machine that runs on it, in the driver's word; absent if none does.
    pub vm: Fact<String>,
}

/// A vGPU seen from its virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuGuest {
    /// The product that the licence is for, such as `NVIDIA RTX Virtual Workstation`.
    pub product: Fact<String>,
    /// The licence.
    pub license: Fact<License>,
    /// `FeatureType` of the licence daemon's settings; absent if they have none.
    pub feature_type: Fact<u32>,
    /// `ServerAddress` of these settings.
    pub license_server: Fact<String>,
    /// SHA-256 of each client configuration token that is there.
    pub tokens: Fact<Vec<String>>,
}

/// `License Status` of `nvidia-smi -q`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum License {
    /// There is one; until when, as the tool prints it, if it says so.
    Licensed(Option<String>),
    /// There is none; what the tool adds, such as `Restricted`.
    Unlicensed(Option<String>),
}

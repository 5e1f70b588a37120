//! What the user wants of a host's GPUs, typed and checked.
//!
//! `read` turns the variables `containers_gpu_discovery`,
//! `containers_gpu_slicing`, `containers_gpu_container_integration`,
//! `containers_gpu_state_management` and `gpu_policy` into `Desired`, or says
//! with positions what is wrong with them. Templates in the variables must have
//! been rendered before. This room knows neither GPU models nor hosts: whether a
//! card can do what is wanted, `strategy` finds out.

mod auto;
mod block;
mod compute;
pub mod discovery;
mod level_zero;
mod mig_parted;
mod mps;
mod partition;
mod request;
mod rocm;
mod slicing;
mod state;
mod vf_share;
mod vgpu;

use crate::error::{Diagnostic, Problems};
use crate::facts::{Gpu, PciAddress, Vendor};
use crate::value::{Loaded, Vars};

pub use auto::{AutoWanted, Isolation};
pub use block::{Block, Located};
pub use compute::ComputeSplit;
pub use discovery::{Discovery, DiscoveryMethod, VendorDetection};
pub use level_zero::{Hierarchy, LevelZeroPartition, LevelZeroWanted};
pub use mig_parted::{Documents, MigParted, PartedEntry};
pub use mps::MpsWanted;
pub use partition::PartitionWanted;
pub use request::Request;
pub use rocm::{RocmMask, RocmWanted};
pub use slicing::{
    Choice, GpuEntry, Match, MigWanted, SharePolicy, SliceDuration, Slicing, SriovWanted,
    TimeSlicingWanted, Wanted,
};
pub use state::{
    ApplyStrategy, ContainerRuntime, DevicePlugin, GpuPolicy, Integration, ResourceLimits,
    StateManagement,
};
pub use vf_share::{SchedPriority, VfShareWanted};
pub use vgpu::VgpuWanted;

/// Everything that is wanted of a host's GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// `containers_gpu_discovery`.
    pub discovery: Discovery,
    /// `containers_gpu_slicing`.
    pub slicing: Slicing,
    /// `containers_gpu_container_integration`.
    pub integration: Integration,
    /// `containers_gpu_state_management`.
    pub state: StateManagement,
    /// `gpu_policy`.
    pub policy: Located<GpuPolicy>,
    /// What `PLATFORM_VARIABLES` say, as it was written: `platform` knows what it means.
    pub platforms: Vars,
}

/// How a user names one card.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceRef {
    /// By its place on the bus.
    Pci(PciAddress),
    /// By the UUID that the vendor's tool prints.
    Uuid(String),
    /// By index: the vendor tool's, or the place among the host's cards by PCI address.
    Index(u32),
}

impl std::fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pci(address) => write!(f, "{address}"),
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

impl DeviceRef {
    /// Whether it names this card, which is the one of that index (`index_of`).
    #[must_use]
    pub fn names(&self, gpu: &Gpu, index: usize) -> bool {
        let nvidia = gpu.nvidia.known();
        match self {
            Self::Pci(address) => gpu.pci == *address,
            Self::Uuid(uuid) => {
                nvidia.is_some_and(|nvidia| nvidia.uuid.0.eq_ignore_ascii_case(uuid))
            }
            Self::Index(wanted) => index == *wanted as usize,
        }
    }
}

/// The index of the card at `position` among a host's cards by PCI address. The vendor tool's
/// counts where it sees all of the vendor's cards; it numbers those anew that it is left with
/// when one of them goes to a virtual machine, which must not make another card meant.
#[must_use]
pub fn index_of(gpus: &[Gpu], position: usize) -> usize {
    let Some(gpu) = gpus.get(position) else {
        return position;
    };
    let of_vendor = || gpus.iter().filter(|other| other.vendor == gpu.vendor);
    match gpu.nvidia.known() {
        Some(nvidia) if of_vendor().all(|other| other.nvidia.known().is_some()) => {
            nvidia.index as usize
        }
        _ if gpu.vendor == Vendor::Nvidia => {
            of_vendor().filter(|other| other.pci < gpu.pci).count()
        }
        _ => position,
    }
}

/// The variables that are read here.
const VARIABLES: [&str; 6] = [
    "containers_gpu_discovery",
    "containers_gpu_slicing",
    "containers_gpu_container_integration",
    "containers_gpu_state_management",
    "gpu_policy",
    // What it means, `drift` knows.
    "gpu_drift",
];

/// The variables of which the room `platform` knows the meaning: which platforms get the
/// slices, a block for each, and exporters of metrics. A test there holds them against its list.
pub const PLATFORM_VARIABLES: &[&str] = &[
    "gpu_platform",
    "gpu_podman",
    "gpu_docker",
    "gpu_containerd",
    "gpu_incus",
    "gpu_kubernetes",
    "gpu_cozystack",
    "gpu_exporters",
    "gpu_kubevirt",
];

/// Whether a variable is read here, or is so near to one that it may be meant for it.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    name.starts_with("containers_gpu") || VARIABLES.contains(&name) || {
        name.starts_with("gpu_")
            && crate::error::nearest(name, PLATFORM_VARIABLES.iter().copied()).is_some()
    }
}

/// Reads the variables of one host, and through `documents` the files that they name. What is
/// wrong is in the findings; the value then holds defaults in those places and must not be
/// acted on.
#[must_use]
pub fn read(vars: &Vars, documents: &Documents<'_>) -> Loaded<Desired> {
    let mut problems = Problems::default();
    let mut platforms = Vars::new();
    let known = || {
        VARIABLES
            .into_iter()
            .chain(PLATFORM_VARIABLES.iter().copied())
    };
    for (name, node) in vars {
        if PLATFORM_VARIABLES.contains(&name.as_str()) {
            platforms.insert(name.clone(), node.clone());
            continue;
        }
        if !is_variable(name) || VARIABLES.contains(&name.as_str()) {
            continue;
        }
        // Other variables are the user's own; only what looks like ours is wrong.
        if let Some(near) = crate::error::nearest(name, known()) {
            problems.push(
                Diagnostic::error(format!("unknown variable `{name}`"))
                    .at(&node.origin)
                    .hint(format!("did you mean `{near}`?")),
            );
        }
    }
    let mut desired = Desired {
        discovery: discovery::read(vars, &mut problems),
        slicing: slicing::read(vars.get("containers_gpu_slicing"), &mut problems),
        integration: state::read_integration(vars, &mut problems),
        state: state::read_state(vars, &mut problems),
        policy: state::read_policy(vars, &mut problems),
        platforms,
    };
    if desired.slicing.enabled.value {
        mig_parted::resolve(&mut desired.slicing, documents, &mut problems);
    }
    (desired, problems)
}

#[cfg(test)]
mod tests;

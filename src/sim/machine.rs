//! What a simulated machine remembers, and the file it stands in.
//!
//! `Host` is a machine's folder. Its state is one JSON file under a lock, as
//! the kernel's state is one under its own: tools that run at the same time see
//! each other's changes whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::amd::AmdState;
use super::product::Product;
use super::spec::{HolderSpec, MachineSpec, Reset};
use super::vgpu;

/// Everything that is not a plain file of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Inventory name.
    pub(super) name: String,
    /// What it was made from; another one makes another machine.
    pub(super) spec: MachineSpec,
    /// How often it was booted.
    pub(super) boots: u32,
    /// NVIDIA's cards in the order of their PCI addresses.
    pub(super) gpus: Vec<Gpu>,
    /// The products of these cards, so that a tool reads one file.
    pub(super) products: BTreeMap<String, Product>,
    /// Physical functions with virtual ones, by PCI address.
    pub(super) functions: BTreeMap<String, Function>,
    /// Modules of the drivers that a recording shows.
    #[serde(default)]
    pub(super) drivers: Vec<String>,
    /// Whether a virtual machine has its vGPU licence.
    #[serde(default)]
    pub(super) licensed: bool,
    /// AMD's cards.
    #[serde(default)]
    pub(super) amd: AmdState,
    /// Who has cards open now.
    pub(super) holders: Vec<HolderSpec>,
    /// What of NVIDIA's driver holds every card, whoever is to be seen: found out at each call.
    #[serde(skip)]
    pub(super) held_by_driver: bool,
    /// Whether the cards of a board with NVSwitches can only be reset all together: found out at
    /// each call.
    #[serde(skip)]
    pub(super) resets_all: bool,
    /// Whether the driver cannot tell the MIG mode: found out at each call.
    #[serde(skip)]
    pub(super) mode_unreadable: bool,
}

/// One NVIDIA card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Gpu {
    /// Key of its product.
    pub(super) product: String,
    /// Name, where it is another than the product's.
    pub(super) name: Option<String>,
    /// PCI address as sysfs has it.
    pub(super) pci: String,
    /// UUID.
    pub(super) uuid: String,
    /// Serial number.
    pub(super) serial: String,
    /// MIG mode in force.
    pub(super) mig: bool,
    /// MIG mode after the next reset.
    pub(super) mig_pending: bool,
    /// Persistence mode.
    pub(super) persistence: bool,
    /// Compute mode, 0 to 3.
    pub(super) compute_mode: u8,
    /// Time slice, 0 to 3.
    pub(super) timeslice: u8,
    /// What a reset does.
    pub(super) reset: Reset,
    /// GPU instances by id.
    pub(super) instances: Vec<GpuInstance>,
    /// vGPUs.
    #[serde(default)]
    pub(super) vgpus: Vec<vgpu::Device>,
    /// Whether vGPUs of different framebuffer may share the card.
    #[serde(default)]
    pub(super) heterogeneous: bool,
}

/// A GPU instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GpuInstance {
    /// Id.
    pub(super) id: u32,
    /// Profile id.
    pub(super) profile: u32,
    /// First unit of the grid.
    pub(super) start: u32,
    /// Units of the grid.
    pub(super) size: u32,
    /// Compute instances by id.
    pub(super) compute: Vec<ComputeInstance>,
}

/// A compute instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ComputeInstance {
    /// Id.
    pub(super) id: u32,
    /// Compute slices.
    pub(super) slices: u32,
    /// First compute slice in the GPU instance.
    pub(super) start: u32,
}

/// A physical function that can have virtual ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Function {
    /// `sriov_totalvfs`.
    pub(super) total_vfs: u32,
    /// Distance of the first virtual function from the physical one.
    pub(super) offset: u32,
    /// PCI vendor id.
    pub(super) vendor: u16,
    /// PCI device id of a virtual function.
    pub(super) vf_device: u16,
    /// PCI class of a virtual function.
    pub(super) class: u32,
    /// Driver that takes virtual functions.
    pub(super) driver: String,
    /// Whether the driver can be told through sysfs.
    pub(super) configurable: bool,
    /// Virtual functions that are in use, so that they cannot be taken away.
    pub(super) busy: bool,
}

impl Machine {
    /// The product of a card.
    pub(super) fn product(&self, gpu: &Gpu) -> Option<&Product> {
        self.products.get(&gpu.product)
    }

    /// The driver's branch: the first number of its version; 0 without a driver.
    pub(super) fn branch(&self) -> u32 {
        let version = self.spec.driver.as_deref().unwrap_or("0");
        version
            .split('.')
            .next()
            .and_then(|part| part.parse().ok())
            .unwrap_or(0)
    }

    /// Whether somebody or something has the card of an index open.
    pub(super) fn is_held(&self, gpu: usize) -> bool {
        self.held_by_driver || self.holders_of(gpu).next().is_some()
    }

    /// Who has the card of an index open.
    pub(super) fn holders_of(&self, gpu: usize) -> impl Iterator<Item = &HolderSpec> {
        self.holders
            .iter()
            .filter(move |holder| holder.node.is_none() && holder.gpu as usize == gpu)
    }
}

impl Gpu {
    /// The PCI address as `nvidia-smi` prints it: eight digits of domain, upper case.
    pub(super) fn bus_id(&self) -> String {
        format!("0000{}", self.pci.to_uppercase())
    }

    /// UUID of a MIG device: RFC 4122 version 5 of card, GPU instance and compute
    /// instance, so that the same ids give the same UUID again.
    pub(super) fn mig_uuid(&self, instance: u32, compute: u32) -> String {
        format!(
            "MIG-{}",
            uuid(&format!("{}/{instance}/{compute}", self.uuid))
        )
    }
}

/// A version 5 UUID of a name, in a name space of our own.
pub(super) fn uuid(name: &str) -> String {
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&Sha1::digest(format!("deploy simulated fleet {name}"))[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A machine's folder.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// The machine that lives in `root`.
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a path of the machine.
    pub(super) fn path(&self, path: impl AsRef<str>) -> PathBuf {
        self.root.join(path.as_ref().trim_start_matches('/'))
    }

    /// The folder of what the machine itself must not see.
    pub(super) fn private(&self, name: &str) -> PathBuf {
        self.root.join(".sim").join(name)
    }

    /// Takes the lock; it is held until the value is dropped.
    pub(super) fn lock(&self) -> io::Result<Lock> {
        fs::create_dir_all(self.private(""))?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.private("lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Lock { _file: file })
    }

    /// The state; an error of kind `NotFound` if the machine was not made yet.
    pub(super) fn load(&self) -> io::Result<Machine> {
        let text = fs::read(self.private("state.json"))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    /// Replaces the state. The lock must be held.
    pub(super) fn save(&self, machine: &Machine, _lock: &Lock) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(machine)?;
        replace(&self.private("state.json"), &text)
    }

    /// Changes the state under the lock. What `change` gives back is passed on;
    /// nothing is written if it fails.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Machine) -> io::Result<T>,
    ) -> io::Result<T> {
        let lock = self.lock()?;
        let mut machine = self.load()?;
        let result = change(&mut machine)?;
        self.save(&machine, &lock)?;
        Ok(result)
    }

    /// Writes a file of the machine, with the directories above it.
    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.path(path);
        match fs::write(&path, content.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                fs::write(&path, content.as_ref())
            }
            other => other,
        }
    }

    /// Reads a file of the machine without the line end; empty if it is not there.
    pub(super) fn read(&self, path: &str) -> String {
        let text = fs::read_to_string(self.path(path)).unwrap_or_default();
        text.trim_end().to_owned()
    }
}

/// The lock on a machine's state.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Replaces a file in one step. Two that do so at the same time do not meet: the last one
/// wins, whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("new-{}-{number}", std::process::id()));
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_5_and_repeat() {
        let one = uuid("GPU-a/1/0");
        assert_eq!(one, uuid("GPU-a/1/0"));
        assert_ne!(one, uuid("GPU-a/2/0"));
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "5");
        assert!("89ab".contains(&one[19..20]));
    }

    #[test]
    fn a_file_that_many_replace_at_once_is_whole_and_nobody_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for text in ["one", "two", "three", "four"] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..200 {
                        replace(path, text.as_bytes()).expect("replaced");
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).expect("there");
        assert!(["one", "two", "three", "four"].contains(&text.as_str()));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}

//! What goes wrong on purpose on a simulated host.
//!
//! Faults stand in a file of the host, so that a running server sees what
//! another process breaks.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::host;
use super::iommu;
pub use super::kube::OperatorFault;
use super::machine::{Host, Machine, replace};
use super::spec::{FIRST_PID, HolderSpec, Reset};
use super::tools;
use super::units::{boot, process};
use super::vgpu;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Somebody has an NVIDIA card open.
    InUse {
        /// Index of the card.
        gpu: u32,
        /// Process name.
        command: String,
        /// systemd unit.
        unit: Option<String>,
    },
    /// Somebody has a device node open, such as `/dev/dri/renderD128` or `/dev/vfio/17`.
    NodeInUse {
        /// The node.
        node: String,
        /// Process name.
        command: String,
        /// systemd unit.
        unit: Option<String>,
    },
    /// Every write to `sriov_numvfs` is answered by EBUSY.
    NumvfsBusy,
    /// The driver knows nothing of `sriov_numvfs`: ENOENT.
    NoVfCallback,
    /// Drivers make at most so many virtual functions and report success.
    VfsAtMost(u32),
    /// The firmware offers no IOMMU, whatever the kernel is told.
    NoIommu,
    /// The disk controller is in the IOMMU group of the function at this address.
    SharedGroup {
        /// The address.
        pci: String,
    },
    /// Resets of all NVIDIA cards are refused.
    ResetRefused,
    /// Resets are not supported, as in a virtual machine; MIG mode of Ampere cards stays pending.
    ResetUnsupported,
    /// MIG mode of an Ampere card is to change with the next reset or reboot.
    Pending {
        /// Index of the card.
        gpu: u32,
    },
    /// Somebody else holds the lock that `sriov-manage` needs, for so many of its calls.
    UnbindLockBusy(u32),
    /// A virtual machine runs on a vGPU.
    VgpuInUse {
        /// Index of the card.
        gpu: u32,
        /// Which of its vGPUs, in the order in which they were made.
        vgpu: u32,
    },
    /// No licence is given to virtual machines with vGPUs.
    LicenseRefused,
    /// AMD's driver or firmware refuses something.
    Amd(AmdFault),
    /// NVIDIA's operator in the cluster that the host's `kubectl` reaches goes wrong.
    GpuOperator(OperatorFault),
    /// NVIDIA's driver or tool does something that users report.
    Nvidia(NvidiaFault),
    /// The connection ends after so many bytes to the client, counted from its log-in.
    CutAfter(u64),
    /// No file can grow beyond so many bytes: what a full disk comes nearest to
    /// without privileges. The error is `File too large`.
    DiskFull(u64),
    /// Every command and every piece of output comes later.
    Slow(Duration),
    /// Commands are accepted and never answered.
    Hang,
    /// The host reboots in an orderly way, and every connection to it ends.
    Reboot,
    /// The host loses power and boots again: nothing on it is told before.
    PowerLoss,
}

/// What AMD's driver or firmware refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmdFault {
    /// Changes are refused as busy, whoever uses the card is not to be seen.
    Busy,
    /// The module cannot be removed, and nobody who uses it is to be seen.
    ReloadBlocked,
    /// The firmware keeps the memory mode at the next load of the driver.
    MemoryRefused,
    /// A compute mode is taken without effect.
    ComputeIgnored,
    /// The firmware allows one virtual function only.
    OneFunction,
    /// Root's rights are missing.
    NotRoot,
}

/// What NVIDIA's driver or tool does that users report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvidiaFault {
    /// `nvidia_drm` is loaded with `modeset=1`, which holds every card though no process does.
    Drm,
    /// So many calls that make GPU instances find no room behind the first one.
    NoRoom(u32),
    /// So many changes are reported as done and have no effect.
    Ignored(u32),
    /// Profiles have other names than those that are published, under the same ids.
    Renamed,
    /// MIG is not on offer, as on a card with an older vBIOS or with displays on.
    NoMig,
    /// Root's rights, or those to the MIG capabilities, are missing.
    NotRoot,
    /// The MIG mode and the profiles cannot be read: `[Unknown Error]`.
    UnknownError,
    /// The container device specification cannot be written anew.
    CdiStale,
}

/// NVIDIA's faults, as they stand in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NvidiaFaults {
    /// Whether `nvidia_drm` holds the cards as long as it is loaded.
    pub(super) drm: bool,
    /// Calls that find no room.
    pub(super) no_room: u32,
    /// Changes without effect.
    pub(super) ignored: u32,
    /// Whether profiles have other names.
    pub(super) renamed: bool,
    /// Whether MIG is not on offer.
    pub(super) no_mig: bool,
    /// Whether rights are missing.
    pub(super) not_root: bool,
    /// Whether mode and profiles cannot be read.
    pub(super) unknown_error: bool,
}

/// Faults that the server and the shell look up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Faults {
    /// Bytes after which a connection is cut.
    pub(super) cut_after: Option<u64>,
    /// Most bytes of a file.
    pub(super) disk_full: Option<u64>,
    /// Delay in milliseconds.
    pub(super) slow_ms: Option<u64>,
    /// Whether commands hang.
    pub(super) hang: bool,
    /// Whether writes to `sriov_numvfs` are refused as busy.
    pub(super) numvfs_busy: bool,
    /// Whether drivers do not take `sriov_numvfs`.
    pub(super) no_vf_callback: bool,
    /// Most virtual functions that a driver makes.
    pub(super) vfs_at_most: Option<u32>,
    /// Whether the firmware offers no IOMMU.
    pub(super) no_iommu: bool,
    /// IOMMU group that the disk controller is in.
    pub(super) shared_group: Option<u32>,
    /// Calls of `sriov-manage` that do not get their lock.
    pub(super) unbind_lock_busy: u32,
    /// Whether no licence is given.
    pub(super) license_refused: bool,
    /// What AMD's driver or firmware refuses.
    pub(super) amd: BTreeSet<AmdFault>,
    /// What goes wrong with NVIDIA's operator.
    pub(super) gpu_operator: OperatorFault,
    /// What NVIDIA's driver or tool does.
    pub(super) nvidia: NvidiaFaults,
}

/// The faults of a host; none if there is no file or it cannot be read.
pub(super) fn faults(host: &Host) -> Faults {
    let text = fs::read(host.private("faults.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn set(host: &Host, change: impl FnOnce(&mut Faults)) -> io::Result<()> {
    let _lock = host.lock()?;
    let mut faults = faults(host);
    change(&mut faults);
    replace(&host.private("faults.json"), &serde_json::to_vec(&faults)?)
}

/// Whether this call of `sriov-manage` does not get its lock. The host's lock is held.
pub(super) fn unbind_lock_is_busy(host: &Host) -> io::Result<bool> {
    let mut faults = faults(host);
    if faults.unbind_lock_busy == 0 {
        return Ok(false);
    }
    faults.unbind_lock_busy -= 1;
    replace(&host.private("faults.json"), &serde_json::to_vec(&faults)?)?;
    Ok(true)
}

/// Uses up one of NVIDIA's faults that are counted. The host's lock is held.
pub(super) fn use_up(
    host: &Host,
    count: impl FnOnce(&mut NvidiaFaults) -> &mut u32,
) -> io::Result<bool> {
    let mut faults = faults(host);
    let left = count(&mut faults.nvidia);
    if *left == 0 {
        return Ok(false);
    }
    *left -= 1;
    replace(&host.private("faults.json"), &serde_json::to_vec(&faults)?)?;
    Ok(true)
}

/// A unit of the container toolkit that cannot do its work.
const CDI_STALE: &str = "[Unit]\nDescription=Refresh NVIDIA CDI specification file\n\n\
     [Service]\nType=oneshot\nExecStart=/bin/false\n";

fn break_nvidia(host: &Host, fault: NvidiaFault) -> io::Result<()> {
    match fault {
        NvidiaFault::Drm => {
            tools::load_module(host, "nvidia_drm")?;
            host.write("/sys/module/nvidia_drm/parameters/modeset", "Y\n")?;
        }
        NvidiaFault::CdiStale => {
            // What lies in /usr/lib only plays its part.
            let unit = "/etc/systemd/system/nvidia-cdi-refresh.service";
            return host.write(unit, CDI_STALE);
        }
        _ => {}
    }
    set(host, |faults| {
        let nvidia = &mut faults.nvidia;
        match fault {
            NvidiaFault::Drm => nvidia.drm = true,
            NvidiaFault::NoRoom(calls) => nvidia.no_room = calls,
            NvidiaFault::Ignored(calls) => nvidia.ignored = calls,
            NvidiaFault::Renamed => nvidia.renamed = true,
            NvidiaFault::NoMig => nvidia.no_mig = true,
            NvidiaFault::NotRoot => nvidia.not_root = true,
            NvidiaFault::UnknownError => nvidia.unknown_error = true,
            NvidiaFault::CdiStale => {}
        }
    })
}

/// A virtual machine on one of a card's vGPUs.
fn occupy(host: &Host, gpu: u32, number: u32) -> io::Result<()> {
    host.update(|machine| {
        check_card(machine.gpus.len(), gpu)?;
        let vgpus = &machine.gpus[gpu as usize].vgpus;
        let Some(vgpu) = vgpus.get(number as usize) else {
            let text = format!(
                "the card has {} vGPUs, so there is no {number}",
                vgpus.len()
            );
            return Err(io::Error::other(text));
        };
        let node = vgpu::node(host, vgpu);
        hold(host, machine, gpu, node.as_deref(), "qemu-system-x86", None)
    })
}

/// The limit of a full disk.
pub(super) fn file_size_limit(root: &Path) -> Option<u64> {
    faults(&Host::new(root)).disk_full
}

/// Limits the size of files for this process and what it starts. Only the soft
/// limit, so that the tools can keep the machine's own state all the same.
pub(super) fn limit_file_size(limit: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Fsize);
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: Some(limit),
            maximum: before.maximum,
        },
    )?;
    Ok(())
}

/// Lifts the limit for a tool that writes the machine's state.
pub(super) fn lift_file_size_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Fsize);
    if before.current != before.maximum {
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: before.maximum,
                maximum: before.maximum,
            },
        )?;
    }
    Ok(())
}

/// Breaks the host in `root`, which must have been made.
///
/// # Errors
/// If the host's folder cannot be read or written, or has no such card.
pub fn break_host(root: &Path, fault: &Fault) -> io::Result<()> {
    let host = Host::new(root);
    match fault {
        Fault::InUse { gpu, command, unit } => host.update(|machine| {
            check_card(machine.gpus.len() + machine.amd.cards.len(), *gpu)?;
            hold(&host, machine, *gpu, None, command, unit.as_deref())
        }),
        Fault::NodeInUse {
            node,
            command,
            unit,
        } => host.update(|machine| {
            // The nodes of vfio are made when somebody opens them.
            if !node.starts_with("/dev/vfio/") && !host.path(node).exists() {
                return Err(io::Error::other(format!("the host has no {node}")));
            }
            hold(
                &host,
                machine,
                0,
                Some(node.as_str()),
                command,
                unit.as_deref(),
            )
        }),
        Fault::NumvfsBusy => set(&host, |faults| faults.numvfs_busy = true),
        Fault::NoVfCallback => set(&host, |faults| faults.no_vf_callback = true),
        Fault::VfsAtMost(most) => set(&host, |faults| faults.vfs_at_most = Some(*most)),
        Fault::NoIommu => {
            set(&host, |faults| faults.no_iommu = true)?;
            host.update(|machine| iommu::set_up(&host, machine))
        }
        Fault::SharedGroup { pci } => {
            let Some(slot) = iommu::slot(&host, pci) else {
                return Err(io::Error::other(format!("there is no PCI function {pci}")));
            };
            set(&host, |faults| faults.shared_group = Some(slot.group))?;
            host.update(|machine| iommu::set_up(&host, machine))
        }
        Fault::ResetRefused | Fault::ResetUnsupported => host.update(|machine| {
            for gpu in &mut machine.gpus {
                gpu.reset = if *fault == Fault::ResetRefused {
                    Reset::Refused
                } else {
                    Reset::Unsupported
                };
            }
            Ok(())
        }),
        Fault::Pending { gpu } => host.update(|machine| {
            check_card(machine.gpus.len(), *gpu)?;
            let card = &machine.gpus[*gpu as usize];
            if !machine
                .product(card)
                .is_some_and(|product| product.has_mig() && product.mode_is_sticky())
            {
                return Err(io::Error::other(
                    "only MIG mode of Ampere cards (A30, A100, A800) can be pending; later ones change it at once",
                ));
            }
            let card = &mut machine.gpus[*gpu as usize];
            card.mig_pending = !card.mig;
            Ok(())
        }),
        Fault::UnbindLockBusy(calls) => set(&host, |faults| faults.unbind_lock_busy = *calls),
        Fault::VgpuInUse { gpu, vgpu } => occupy(&host, *gpu, *vgpu),
        Fault::LicenseRefused => set(&host, |faults| faults.license_refused = true),
        Fault::Nvidia(fault) => break_nvidia(&host, *fault),
        Fault::Amd(fault) => set(&host, |faults| {
            faults.amd.insert(*fault);
        }),
        Fault::GpuOperator(fault) => set(&host, |faults| faults.gpu_operator = *fault),
        Fault::CutAfter(bytes) => set(&host, |faults| faults.cut_after = Some(*bytes)),
        Fault::DiskFull(bytes) => set(&host, |faults| faults.disk_full = Some(*bytes)),
        Fault::Slow(delay) => {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            set(&host, |faults| faults.slow_ms = Some(millis))
        }
        Fault::Hang => set(&host, |faults| faults.hang = true),
        Fault::Reboot => reboot(&host, "exec reboot"),
        Fault::PowerLoss => reboot(&host, "exec reboot -ff"),
    }
}

/// Adds a process that has a card, or a node, open.
fn hold(
    host: &Host,
    machine: &mut Machine,
    gpu: u32,
    node: Option<&str>,
    command: &str,
    unit: Option<&str>,
) -> io::Result<()> {
    let pids = machine.holders.iter().map(|holder| holder.pid + 1);
    machine.holders.push(HolderSpec {
        gpu,
        pid: pids.max().unwrap_or(FIRST_PID),
        command: command.to_owned(),
        unit: unit.map(str::to_owned),
        compute: node.is_none(),
        node: node.map(str::to_owned),
    });
    host::write_holders(host, machine)
}

/// Reboots by the host's own tool, so that its units run confined, and waits until
/// it is up again.
fn reboot(host: &Host, command: &str) -> io::Result<()> {
    let binary = fs::read_link(host.path("/usr/bin/reboot"))?;
    let mut shell = std::process::Command::new(binary);
    std::os::unix::process::CommandExt::arg0(&mut shell, super::confine::SHELL_NAME);
    let output = shell.arg(host.root()).arg(command).output()?;
    // The reboot may have ended the tool that asked for it.
    if output.status.code().is_some_and(|code| code != 0) {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    boot::wait(host)
}

fn check_card(cards: usize, gpu: u32) -> io::Result<()> {
    if (gpu as usize) < cards {
        return Ok(());
    }
    Err(io::Error::other(match cards {
        0 => "the host has no NVIDIA card".to_owned(),
        1 => format!("there is no card {gpu}: the host has one NVIDIA card, which is 0"),
        cards => format!(
            "there is no card {gpu}: the host's NVIDIA cards are 0 to {}",
            cards - 1
        ),
    }))
}

/// Mends what was broken; state that was changed meanwhile stays.
///
/// # Errors
/// If the host's folder cannot be written.
pub fn mend(root: &Path) -> io::Result<()> {
    let host = Host::new(root);
    set(&host, |faults| *faults = Faults::default())?;
    host.update(|machine| {
        iommu::set_up(&host, machine)?;
        machine.holders.clone_from(&machine.spec.in_use);
        for gpu in &mut machine.gpus {
            let card = machine
                .spec
                .gpus
                .iter()
                .find(|card| card.product == gpu.product);
            gpu.reset = card.map_or(Reset::Works, |card| card.reset);
        }
        host::write_holders(&host, machine)
    })
}

/// Takes the host in `root` back to a fresh one: it is made again at its next use.
///
/// # Errors
/// If the host's folder cannot be removed.
pub fn reset(root: &Path) -> io::Result<()> {
    let host = Host::new(root);
    if !root.exists() {
        return Ok(());
    }
    process::end_all(&host);
    let _lock = host.lock()?;
    host::wipe(&host)
}

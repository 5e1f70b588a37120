//! How the host boots its kernel: what has to be changed so that the next boot has another
//! command line.

use serde::{Deserialize, Serialize};

use super::Fact;

/// The boot loader, what it will hand to the kernel, and what builds the initramfs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBoot {
    /// What writes the boot loader's configuration; absent if it is none that we know.
    pub loader: Fact<BootLoader>,
    /// Arguments that the next boot of the default entry gives to the kernel, as far as the
    /// boot loader's own files tell.
    pub next: Fact<Vec<String>>,
    /// Our file in `/etc/default/grub.d`, if it is there.
    pub drop_in: Fact<String>,
    /// What builds the initramfs.
    pub initramfs: Fact<Initramfs>,
    /// `vendor_id` of the first processor.
    pub cpu: Fact<CpuVendor>,
    /// The table by which the firmware offers an IOMMU; absent if it offers none.
    pub iommu_table: Fact<IommuTable>,
}

/// An ACPI table about IOMMUs, which the kernel shows in `/sys/firmware/acpi/tables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IommuTable {
    /// `DMAR`: Intel VT-d.
    Dmar,
    /// `IVRS`: AMD-Vi.
    Ivrs,
}

/// What is called to change the kernel's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootLoader {
    /// GRUB as Debian and Ubuntu have it: `/etc/default/grub.d` and `update-grub`.
    Grub,
    /// `grubby`, as Red Hat and Fedora have it.
    Grubby,
    /// systemd-boot: `/etc/kernel/cmdline` and `kernel-install`.
    KernelInstall,
    /// Proxmox: `/etc/kernel/cmdline` and `proxmox-boot-tool`.
    Proxmox,
}

/// What builds the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// initramfs-tools.
    UpdateInitramfs,
    /// dracut.
    Dracut,
    /// mkinitcpio.
    Mkinitcpio,
}

/// Who made the processor, as far as it matters to the IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuVendor {
    /// Needs `intel_iommu=on`, unless the kernel was built to use its IOMMU anyway.
    Intel,
    /// Uses its IOMMU if the firmware offers one; there is no argument for that.
    Amd,
    /// Another one.
    Other,
}

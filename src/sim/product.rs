//! What is known of the cards that can be simulated.
//!
//! NVIDIA's come from captures of real hosts (`data/products.json`; values that
//! no capture shows are named in `estimated`). It is deliberately not the
//! catalog: a mistake there must show against the simulator.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// One NVIDIA product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Product {
    /// Name as `nvidia-smi` prints it.
    pub(super) name: String,
    /// Architecture as `nvidia-smi -q` prints it.
    pub(super) architecture: String,
    /// Compute capability, `9.0`.
    pub(super) compute_cap: String,
    /// PCI device ids, the usual one first.
    pub(super) device_ids: Vec<String>,
    /// `pci.sub_device_id` as `nvidia-smi` prints it: device, then vendor.
    pub(super) subsystem: String,
    /// Board memory in MiB.
    pub(super) memory_mib: u64,
    /// Power limit in watts.
    pub(super) power_w: u32,
    /// Video BIOS version.
    pub(super) vbios: String,
    /// Units of the MIG placement grid; 0 if the card has no MIG.
    pub(super) slices: u32,
    /// Compute slices of the whole card.
    pub(super) compute: u32,
    /// Names in the PCI database, in the order of `device_ids`.
    pub(super) pci_names: Vec<String>,
    /// Whether it is a graphics card (class 0300) rather than a 3D controller (0302).
    pub(super) vga: bool,
    /// `sriov_totalvfs`; 0 where there is no such file. The driver of bare metal
    /// refuses to enable any: that is the vGPU host driver's business.
    pub(super) total_vfs: u32,
    /// Profiles with values that no capture shows.
    #[serde(default)]
    pub(super) estimated: Vec<String>,
    /// GPU instance profiles in the order in which they are listed.
    pub(super) profiles: Vec<Profile>,
}

/// One GPU instance profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    /// Name, `3g.40gb`.
    pub(super) name: String,
    /// Number that `-cgi` takes.
    pub(super) id: u32,
    /// Compute slices.
    pub(super) compute: u32,
    /// Units of the grid.
    pub(super) size: u32,
    /// Most instances on one card.
    pub(super) max: u32,
    /// Legal first units.
    pub(super) starts: Vec<u32>,
    /// Memory in MiB.
    pub(super) memory_mib: u64,
    /// Streaming multiprocessors.
    pub(super) sm: u32,
    /// Copy engines, decoders, encoders, JPEG engines, optical flow engines.
    pub(super) engines: [u32; 5],
}

impl Product {
    /// Whether it has MIG.
    pub(super) fn has_mig(&self) -> bool {
        self.slices > 0
    }

    /// Whether MIG mode is kept in the InfoROM, needs a reset to take effect and
    /// survives a reboot: the GA100 family.
    pub(super) fn mode_is_sticky(&self) -> bool {
        self.architecture == "Ampere"
    }

    /// Memory of an instance in GiB as `-lgip` shows it, two digits.
    pub(super) fn gib(memory_mib: u64) -> String {
        let mib = u32::try_from(memory_mib).unwrap_or(u32::MAX);
        format!("{:.2}", f64::from(mib) / 1024.0)
    }

    /// The profile that a name (`3g.40gb`, `MIG 3g.40gb`) or an id means.
    pub(super) fn profile(&self, text: &str) -> Option<&Profile> {
        let name = text.strip_prefix("MIG ").unwrap_or(text);
        match name.parse::<u32>() {
            Ok(id) => self.profiles.iter().find(|profile| profile.id == id),
            Err(_) => self.profiles.iter().find(|profile| profile.name == name),
        }
    }

    /// The profile with an id.
    pub(super) fn profile_by_id(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }
}

/// NVIDIA products by key.
pub(super) static PRODUCTS: LazyLock<BTreeMap<String, Product>> = LazyLock::new(|| {
    // The file is part of the binary; a test reads it.
    serde_json::from_str(include_str!("data/products.json")).unwrap_or_default()
});

/// Further products that a user describes, in the form of `data/products.json`.
pub(super) fn read(text: &str) -> Result<BTreeMap<String, Product>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// A card that is simulated by its place in sysfs alone.
#[derive(Debug)]
pub(super) struct BareCard {
    /// Key in `sim: {gpus: [{product: …}]}`.
    pub(super) key: &'static str,
    /// Name as the PCI database has it.
    pub(super) name: &'static str,
    /// PCI vendor id.
    pub(super) vendor: u16,
    /// PCI device id.
    pub(super) device: u16,
    /// PCI class.
    pub(super) class: u32,
    /// Kernel driver.
    pub(super) driver: &'static str,
    /// `sriov_totalvfs`; 0 for none.
    pub(super) total_vfs: u32,
    /// PCI device id of a virtual function.
    pub(super) vf_device: u16,
    /// Whether the driver can be told through `sriov_numvfs`. AMD's host driver cannot.
    pub(super) configurable: bool,
}

/// Cards of other vendors.
pub(super) const BARE_CARDS: &[BareCard] = &[
    BareCard {
        key: "Flex-170",
        name: "DG2 [Data Center GPU Flex 170]",
        vendor: 0x8086,
        device: 0x56c0,
        class: 0x03_80_00,
        driver: "i915",
        total_vfs: 31,
        vf_device: 0x56c0,
        configurable: true,
    },
    BareCard {
        key: "Flex-140",
        name: "DG2 [Data Center GPU Flex 140]",
        vendor: 0x8086,
        device: 0x56c1,
        class: 0x03_80_00,
        driver: "i915",
        total_vfs: 31,
        vf_device: 0x56c1,
        configurable: true,
    },
    BareCard {
        key: "Max-1550",
        name: "Ponte Vecchio XT (2 Tile) [Data Center GPU Max 1550]",
        vendor: 0x8086,
        device: 0x0bd5,
        class: 0x03_80_00,
        driver: "i915",
        total_vfs: 62,
        vf_device: 0x0bd5,
        configurable: true,
    },
    BareCard {
        key: "Max-1100",
        name: "Ponte Vecchio XT (1 Tile) [Data Center GPU Max 1100]",
        vendor: 0x8086,
        device: 0x0bda,
        class: 0x03_80_00,
        driver: "i915",
        total_vfs: 63,
        vf_device: 0x0bda,
        configurable: true,
    },
    BareCard {
        key: "Arc-Pro-B60",
        name: "Battlemage G21 [Intel Graphics]",
        vendor: 0x8086,
        device: 0xe211,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 24,
        vf_device: 0xe211,
        configurable: true,
    },
    BareCard {
        key: "Arc-Pro-B50",
        name: "Battlemage G21 [Intel Graphics]",
        vendor: 0x8086,
        device: 0xe212,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 24,
        vf_device: 0xe212,
        configurable: true,
    },
    BareCard {
        key: "Arc-Pro-B65",
        name: "Battlemage G31 [Intel Graphics]",
        vendor: 0x8086,
        device: 0xe222,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 24,
        vf_device: 0xe222,
        configurable: true,
    },
    BareCard {
        key: "Arc-Pro-B70",
        name: "Battlemage G31 [Intel Graphics]",
        vendor: 0x8086,
        device: 0xe223,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 12,
        vf_device: 0xe223,
        configurable: true,
    },
    BareCard {
        key: "Arc-B580",
        name: "Battlemage G21 [Arc B580]",
        vendor: 0x8086,
        device: 0xe20b,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 0,
        vf_device: 0xe20b,
        configurable: true,
    },
    BareCard {
        key: "Arc-A770",
        name: "DG2 [Arc A770]",
        vendor: 0x8086,
        device: 0x56a0,
        class: 0x03_00_00,
        driver: "xe",
        total_vfs: 0,
        vf_device: 0x56a0,
        configurable: true,
    },
    BareCard {
        key: "MI100",
        name: "Arcturus GL-XL [Instinct MI100]",
        vendor: 0x1002,
        device: 0x738c,
        class: 0x12_00_00,
        driver: "amdgpu",
        total_vfs: 0,
        vf_device: 0,
        configurable: false,
    },
    BareCard {
        key: "MI210",
        name: "Aldebaran/MI200 [Instinct MI210]",
        vendor: 0x1002,
        device: 0x740f,
        class: 0x03_80_00,
        driver: "amdgpu",
        total_vfs: 1,
        vf_device: 0x7410,
        configurable: false,
    },
    BareCard {
        key: "MI250",
        name: "Aldebaran/MI200 [Instinct MI250X/MI250]",
        vendor: 0x1002,
        device: 0x740c,
        class: 0x03_80_00,
        driver: "amdgpu",
        total_vfs: 0,
        vf_device: 0,
        configurable: false,
    },
    BareCard {
        key: "MI300A",
        name: "Aqua Vanjaram [Instinct MI300A]",
        vendor: 0x1002,
        device: 0x74a0,
        class: 0x12_00_00,
        driver: "amdgpu",
        total_vfs: 0,
        vf_device: 0,
        configurable: false,
    },
    BareCard {
        key: "MI300X",
        name: "Aqua Vanjaram [Instinct MI300X]",
        vendor: 0x1002,
        device: 0x74a1,
        class: 0x12_00_00,
        driver: "amdgpu",
        total_vfs: 8,
        vf_device: 0x74b5,
        configurable: false,
    },
    BareCard {
        key: "MI355X",
        name: "[Instinct MI355X]",
        vendor: 0x1002,
        device: 0x75a3,
        class: 0x12_00_00,
        driver: "amdgpu",
        total_vfs: 8,
        vf_device: 0x75b3,
        configurable: false,
    },
    BareCard {
        key: "V710",
        name: "Navi 32 [Radeon PRO V710]",
        vendor: 0x1002,
        device: 0x7460,
        class: 0x03_80_00,
        driver: "amdgpu",
        total_vfs: 12,
        vf_device: 0x7461,
        configurable: false,
    },
];

/// The bare card with a key.
pub(super) fn bare_card(key: &str) -> Option<&'static BareCard> {
    BARE_CARDS.iter().find(|card| card.key == key)
}

/// All keys, NVIDIA's first.
pub(super) fn keys() -> Vec<&'static str> {
    let nvidia = PRODUCTS.keys().map(String::as_str);
    nvidia
        .chain(BARE_CARDS.iter().map(|card| card.key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_and_every_profile_fits_its_card() {
        assert!(PRODUCTS.len() > 15);
        for (key, product) in PRODUCTS.iter() {
            for profile in &product.profiles {
                assert!(!profile.starts.is_empty(), "{key} {}", profile.name);
                for start in &profile.starts {
                    assert!(
                        start + profile.size <= product.slices,
                        "{key} {}",
                        profile.name
                    );
                }
                assert!(profile.max <= u32::try_from(profile.starts.len()).expect("few"));
                assert!(profile.compute <= product.compute, "{key} {}", profile.name);
            }
        }
    }

    #[test]
    fn memory_is_shown_as_the_captures_show_it() {
        for (mib, shown) in [
            (5952, "5.81"),
            (10880, "10.62"),
            (47488, "46.38"),
            (81152, "79.25"),
        ] {
            assert_eq!(Product::gib(mib), shown);
        }
    }
}

//! What decides whether a card can be handed to a virtual machine: the IOMMU, its groups,
//! and which functions go with a card.

use serde::{Deserialize, Serialize};

use super::{Fact, PciAddress};

/// What the host shows of its IOMMU and of the functions around its cards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passthrough {
    /// Units below `/sys/class/iommu`, such as `dmar0` or `ivhd0`; empty where the kernel
    /// uses none.
    pub iommus: Fact<Vec<String>>,
    /// The cards, what shares a slot or an IOMMU group with them, each once, by address.
    pub functions: Vec<PciFunction>,
    /// What `/etc/deploy/gpu/passthrough.conf` says is handed over at boot: a card, then the
    /// functions that go with it.
    pub kept: Vec<Vec<PciAddress>>,
    /// What it says of the kernel's command line: words that came with the first card that was
    /// handed over, `+` before one that was put there, `-` before one that was taken away.
    #[serde(default)]
    pub kernel_words: Vec<String>,
}

/// A function of a PCI device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Its place.
    pub pci: PciAddress,
    /// Class, subclass and interface, such as `0x040300`.
    pub class: u32,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Kernel driver that it is bound to.
    pub driver: Fact<String>,
    /// The only driver that may take it (`driver_override`); absent if any may.
    pub driver_override: Fact<String>,
    /// IOMMU group; absent without an IOMMU.
    pub iommu_group: Fact<u32>,
    /// Whether it is a virtual function.
    pub is_virtual: bool,
}

/// PCI base class of bridges: what they forward is not theirs, so that they do not count
/// among those that a group hands over.
const BRIDGE: u32 = 0x06;

impl PciFunction {
    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == BRIDGE
    }

    /// Whether it is part of a graphics card beside the GPU itself: sound over its display
    /// outputs, USB and power delivery of its USB-C outlet (classes 0403, 0c03, 0c80).
    #[must_use]
    pub fn goes_along(&self) -> bool {
        matches!(self.class >> 8, 0x0403 | 0x0c03 | 0x0c80) && !self.is_virtual
    }

    /// What it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.class >> 16, self.class >> 8) {
            (0x01, _) => "disk controller",
            (0x02, _) => "network card",
            (0x03, _) | (_, 0x1200) => "GPU",
            (_, 0x0403) => "audio",
            (_, 0x0c03) => "USB controller",
            (0x0c, _) => "serial bus controller",
            _ => "device",
        }
    }

    /// `0000:05:00.0 (disk controller 144d:a80a, driver nvme)`.
    #[must_use]
    pub fn label(&self) -> String {
        let ids = format!("{:04x}:{:04x}", self.vendor, self.device);
        match self.driver.known() {
            Some(driver) => format!("{} ({} {ids}, driver {driver})", self.pci, self.kind()),
            None => format!("{} ({} {ids}, no driver)", self.pci, self.kind()),
        }
    }
}

impl Passthrough {
    /// Whether the kernel uses an IOMMU; none if that is not known.
    #[must_use]
    pub fn is_on(&self) -> Option<bool> {
        self.iommus.known().map(|units| !units.is_empty())
    }

    /// The function at an address.
    #[must_use]
    pub fn function(&self, pci: PciAddress) -> Option<&PciFunction> {
        self.functions.iter().find(|function| function.pci == pci)
    }

    /// What shares a function's IOMMU group, bridges and itself left out.
    pub fn beside(&self, pci: PciAddress) -> impl Iterator<Item = &PciFunction> {
        let group = self
            .function(pci)
            .and_then(|own| own.iommu_group.known().copied());
        self.functions.iter().filter(move |other| {
            group.is_some()
                && other.iommu_group.known().copied() == group
                && other.pci != pci
                && !other.is_bridge()
        })
    }

    /// The audio and USB functions of a card's own slot.
    pub fn companions(&self, pci: PciAddress) -> impl Iterator<Item = &PciFunction> {
        self.functions.iter().filter(move |other| {
            let same = (other.pci.domain, other.pci.bus, other.pci.device)
                == (pci.domain, pci.bus, pci.device);
            same && other.pci != pci && other.goes_along()
        })
    }
}

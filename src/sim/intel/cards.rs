//! What is known of Intel's cards beyond their place in sysfs.
//!
//! Memory and counts come from the profiles of `xpu-smi` and from outputs that were seen; it is
//! deliberately not the catalog.

/// One card, by its PCI device id.
#[derive(Debug)]
pub(in crate::sim) struct Card {
    pub(in crate::sim) device: u16,
    /// Name as the driver for Level Zero gives it.
    pub(in crate::sim) name: &'static str,
    /// Tiles.
    pub(in crate::sim) tiles: u32,
    /// Compute slices of a tile; 1 where there is no `ccs_mode`.
    pub(in crate::sim) slices: u32,
    /// Device memory of a tile that functions can have, in bytes; 0 for an integrated one.
    pub(in crate::sim) memory: u64,
    /// Execution units.
    pub(in crate::sim) units: u32,
    /// Most virtual functions that `xpu-smi` makes.
    pub(in crate::sim) tool_limit: u32,
}

const MIB: u64 = 1 << 20;

/// All that can be simulated.
pub(super) const CARDS: &[Card] = &[
    Card {
        device: 0x56c0,
        name: "Intel(R) Data Center GPU Flex 170",
        tiles: 1,
        slices: 4,
        // What `xpu-smi` shows as left, and four functions of 500 MiB: 16260.97 MiB.
        memory: 17_050_861_568,
        units: 512,
        tool_limit: 31,
    },
    Card {
        device: 0x56c1,
        name: "Intel(R) Data Center GPU Flex 140",
        tiles: 1,
        slices: 1,
        memory: 5760 * MIB,
        units: 128,
        tool_limit: 31,
    },
    Card {
        device: 0x0bd5,
        name: "Intel(R) Data Center GPU Max 1550",
        tiles: 2,
        slices: 4,
        memory: 61_440 * MIB,
        units: 1024,
        tool_limit: 62,
    },
    Card {
        device: 0x0bda,
        name: "Intel(R) Data Center GPU Max 1100",
        tiles: 1,
        slices: 4,
        memory: 45_056 * MIB,
        units: 448,
        tool_limit: 63,
    },
    Card {
        device: 0xe211,
        name: "Intel(R) Arc(TM) Pro B60 Graphics",
        tiles: 1,
        slices: 1,
        memory: 24_192 * MIB,
        units: 160,
        tool_limit: 24,
    },
    Card {
        device: 0xe212,
        name: "Intel(R) Arc(TM) Pro B50 Graphics",
        tiles: 1,
        slices: 1,
        memory: 16_128 * MIB,
        units: 128,
        tool_limit: 24,
    },
    Card {
        device: 0xe222,
        name: "Intel(R) Arc(TM) Pro B65 Graphics",
        tiles: 1,
        slices: 1,
        memory: 31_744 * MIB,
        units: 160,
        tool_limit: 24,
    },
    Card {
        device: 0xe223,
        name: "Intel(R) Arc(TM) Pro B70 Graphics",
        tiles: 1,
        slices: 1,
        memory: 28_392 * MIB,
        units: 256,
        tool_limit: 12,
    },
    Card {
        device: 0xe20b,
        name: "Intel(R) Arc(TM) B580 Graphics",
        tiles: 1,
        slices: 1,
        memory: 12_216 * MIB,
        units: 160,
        tool_limit: 0,
    },
    Card {
        device: 0x56a0,
        name: "Intel(R) Arc(TM) A770 Graphics",
        tiles: 1,
        slices: 4,
        memory: 16_288 * MIB,
        units: 512,
        tool_limit: 0,
    },
];

/// The card with a device id.
pub(in crate::sim) fn by_device(device: u16) -> Option<&'static Card> {
    CARDS.iter().find(|card| card.device == device)
}

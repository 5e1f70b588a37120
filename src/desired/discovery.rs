//! `containers_gpu_discovery`: which cards to manage, and who says what there is.

/// How cards are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// All cards of a host, or only those named.
    pub method: DiscoveryMethod,
    /// With `method: manual`: the cards, each by PCI address, index or UUID.
    pub devices: Vec<String>,
    /// The tool whose word counts for which cards there are.
    pub vendor_detection: VendorDetection,
}

/// `method`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiscoveryMethod {
    /// Every card that is found.
    #[default]
    Auto,
    /// Only the cards in `devices`.
    Manual,
}

/// `vendor_detection`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VendorDetection {
    /// The PCI bus, as `lspci` shows it: cards of all vendors.
    #[default]
    Lspci,
    /// Only cards that `nvidia-smi` lists.
    NvidiaSmi,
    /// Only AMD cards that `rocm-smi` lists.
    RocmSmi,
    /// Only Intel cards that `intel_gpu_top -L` lists.
    IntelGpuTools,
}

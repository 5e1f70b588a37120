//! `containers_gpu_discovery`: which cards to manage, and who says what there is.

use serde::{Deserialize, Serialize};

use crate::error::{Diagnostic, Problems};
use crate::value::Vars;

use super::block::Block;

/// How cards are found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// All cards of a host, or only those named.
    pub method: DiscoveryMethod,
    /// With `method: manual`: the cards, each by PCI address as sysfs writes it, index or
    /// UUID; never empty then.
    pub devices: Vec<String>,
    /// The tool whose word counts for which cards there are.
    pub vendor_detection: VendorDetection,
}

/// `method`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscoveryMethod {
    /// Every card that is found.
    #[default]
    Auto,
    /// Only the cards in `devices`.
    Manual,
}

/// `vendor_detection`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

pub(super) fn read(vars: &Vars, problems: &mut Problems) -> Discovery {
    let name = "containers_gpu_discovery";
    let mut block = Block::new(name, vars.get(name), problems);
    let method = block.word(
        "method",
        DiscoveryMethod::Auto,
        &[
            ("auto", DiscoveryMethod::Auto),
            ("manual", DiscoveryMethod::Manual),
        ],
    );
    let devices = block.devices("devices");
    let vendor_detection = block.word(
        "vendor_detection",
        VendorDetection::Lspci,
        &[
            ("lspci", VendorDetection::Lspci),
            ("nvidia-smi", VendorDetection::NvidiaSmi),
            ("rocm-smi", VendorDetection::RocmSmi),
            ("intel-gpu-tools", VendorDetection::IntelGpuTools),
        ],
    );
    match (method.value, devices.value.is_empty()) {
        (DiscoveryMethod::Manual, true) => block.problems.push(
            method
                .blame(Diagnostic::error(format!(
                    "`{name}.method` is `manual`, but `devices` names no card"
                )))
                .hint("list PCI addresses, UUIDs or indexes under `devices`"),
        ),
        (DiscoveryMethod::Auto, false) => block.problems.push(
            devices
                .blame(Diagnostic::error(format!(
                    "`{name}.devices` is read with `method: manual` only"
                )))
                .hint("set `method: manual`, or remove `devices`"),
        ),
        _ => {}
    }
    block.finish();
    Discovery {
        method: method.value,
        devices: devices
            .value
            .iter()
            .map(|device| device.value.to_string())
            .collect(),
        vendor_detection: vendor_detection.value,
    }
}

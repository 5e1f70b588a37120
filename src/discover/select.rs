//! Which of the cards are to be managed: `vendor_detection`, `method` and `devices`.

use crate::desired::{Discovery, DiscoveryMethod, VendorDetection};
use crate::facts::{Gpu, PciAddress, Vendor};
use crate::transport::Output;

use super::nvidia::answers::Answers;

/// Keeps the cards that the chosen tool knows of.
pub(super) fn detected(
    gpus: &mut Vec<Gpu>,
    detection: VendorDetection,
    tool: Option<Result<&Output, String>>,
    answers: &Answers,
    notes: &mut Vec<String>,
) {
    let tool = match (detection, tool) {
        (VendorDetection::NvidiaSmi, _) => {
            gpus.retain(|gpu| gpu.nvidia.known().is_some());
            if gpus.is_empty() && !answers.no_card() {
                let why = answers.why_no_row();
                notes.push(format!(
                    "vendor_detection is nvidia-smi, but no card was found: {why}"
                ));
            }
            return;
        }
        (_, Some(tool)) => tool,
        (_, None) => return,
    };
    let name = name(detection);
    match tool {
        Ok(output) if output.status != 127 => {
            let text = output.text().to_lowercase();
            gpus.retain(|gpu| listed(gpu, detection, &text));
        }
        Ok(_) => {
            gpus.clear();
            notes.push(format!(
                "vendor_detection is {name}, which is not installed"
            ));
        }
        Err(why) => {
            gpus.clear();
            notes.push(format!("vendor_detection is {name}: {why}"));
        }
    }
}

fn name(detection: VendorDetection) -> &'static str {
    match detection {
        VendorDetection::Lspci => "lspci",
        VendorDetection::NvidiaSmi => "nvidia-smi",
        VendorDetection::RocmSmi => "rocm-smi",
        VendorDetection::IntelGpuTools => "intel-gpu-tools",
    }
}

/// `rocm-smi --showbus` names addresses (`PCI Bus: 0000:85:00.0`), `intel_gpu_top -L` ids
/// (`pci:vendor=8086,device=56C0,card=0`). `text` is in lower case.
fn listed(gpu: &Gpu, detection: VendorDetection, text: &str) -> bool {
    match detection {
        VendorDetection::RocmSmi => {
            gpu.vendor == Vendor::Amd && text.contains(&gpu.pci.to_string())
        }
        VendorDetection::IntelGpuTools => {
            let id = format!("vendor=8086,device={:04x}", gpu.device_id);
            gpu.vendor == Vendor::Intel
                && (text.contains(&gpu.pci.to_string()) || text.contains(&id))
        }
        VendorDetection::Lspci | VendorDetection::NvidiaSmi => true,
    }
}

/// With `method: manual`: keeps the cards in `devices`; each that the host does not have is
/// noted.
pub(super) fn named(gpus: &mut Vec<Gpu>, discovery: &Discovery, notes: &mut Vec<String>) {
    if discovery.method == DiscoveryMethod::Auto {
        return;
    }
    let mut wanted: Vec<PciAddress> = Vec::new();
    for device in &discovery.devices {
        match find(gpus, device) {
            Some(pci) => wanted.push(pci),
            None => notes.push(format!(
                "containers_gpu_discovery.devices names `{device}`, which this host does not have"
            )),
        }
    }
    gpus.retain(|gpu| wanted.contains(&gpu.pci));
}

/// The card with this address, UUID or index. An index is nvidia-smi's where it lists the card,
/// and else the place in the order of addresses.
fn find(gpus: &[Gpu], device: &str) -> Option<PciAddress> {
    let device = device.trim();
    if let Ok(address) = device.parse::<PciAddress>() {
        return gpus.iter().map(|gpu| gpu.pci).find(|pci| *pci == address);
    }
    let nvidia = |matches: &dyn Fn(&crate::facts::NvidiaGpu) -> bool| {
        gpus.iter()
            .find(|gpu| gpu.nvidia.known().is_some_and(matches))
            .map(|gpu| gpu.pci)
    };
    if let Ok(index) = device.parse::<u32>() {
        if gpus.iter().any(|gpu| gpu.nvidia.known().is_some()) {
            return nvidia(&|card| card.index == index);
        }
        let at = usize::try_from(index).ok()?;
        return gpus.get(at).map(|gpu| gpu.pci);
    }
    nvidia(&|card| card.uuid.0.eq_ignore_ascii_case(device))
}

//! The call that succeeds only if a card answers.

use crate::facts::Gpu;
use crate::shell::Command;

/// By its vendor's driver, where that tells a name of the card's own.
pub(super) fn by_driver(gpu: &Gpu) -> Command {
    let Some(nvidia) = gpu.nvidia.known() else {
        return by_bus(gpu);
    };
    Command::new("nvidia_answers")
        .arg(gpu.pci.to_string())
        .arg(&nvidia.uuid.0)
}

/// On the PCI bus: all that can be asked of a card that has no driver here.
pub(super) fn by_bus(gpu: &Gpu) -> Command {
    Command::new("pci_answers").arg(gpu.pci.to_string())
}

//! What the host must have for an instance to get its card: the card itself, and for virtual
//! machines an IOMMU, a group of the card's own and vfio-pci.

use serde_json::json;

use crate::catalog::Technology;
use crate::desired::GpuPolicy;
use crate::error::{Diagnostic, Problems};
use crate::facts::{BootLoader, Gpu, PciFunction};
use crate::platform::{Host, View, Wish};
use crate::render::Rendered;

use super::device::{Device, GpuType, Kind, is_on};
use super::seen;
use super::wanted::{Instance, Wanted};

/// The kernel driver by which a virtual machine gets a card.
const VFIO: &str = "vfio-pci";

/// Says what keeps an instance from its card; wishes what only has to be loaded.
pub(super) fn wishes(wanted: &Wanted, view: &View<'_>, problems: &mut Problems) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let mut needs_vfio = false;
    for instance in &wanted.instances {
        for (_, device) in wanted.gpus_of(instance) {
            let ask = Ask {
                view,
                instance,
                device,
            };
            match (instance.kind, device.gpu_type()) {
                (Kind::Container, Some(GpuType::Physical)) => ask.container(problems, &mut wishes),
                (Kind::Vm, Some(GpuType::Physical)) => {
                    needs_vfio = true;
                    ask.whole_for_vm(wanted, problems, &mut wishes);
                }
                (Kind::Vm, Some(GpuType::Sriov)) => {
                    needs_vfio = true;
                    ask.functions(problems);
                }
                _ => {}
            }
        }
    }
    if needs_vfio {
        wishes.push(Wish::Module {
            name: "modprobe",
            params: json!({"name": VFIO, "state": "present", "persistent": "present"}),
        });
    }
    wishes
}

/// What `nvidia.runtime` takes of the host, where an instance has it and the host has not.
///
/// # Errors
/// Halts while it was not read.
pub(super) fn container_tools(
    wanted: &Wanted,
    host: &mut dyn Host,
) -> Rendered<Option<Diagnostic>> {
    let has_runtime = |instance: &&Instance| is_on(&wanted.config_of(instance), "nvidia.runtime");
    let Some(instance) = wanted.instances.iter().find(has_runtime) else {
        return Ok(None);
    };
    let is_there = host.ask(&seen::is_there("nvidia-container-cli"))?;
    Ok((!is_there.success()).then(|| {
        let message = format!(
            "`{}` has `nvidia.runtime`, and there is no `nvidia-container-cli` on the host",
            instance.name
        );
        let problem = Diagnostic::error(message).at(&instance.origin);
        problem.hint("apt-get install libnvidia-container-tools, from NVIDIA's own packages")
    }))
}

/// One device of one instance.
struct Ask<'a> {
    view: &'a View<'a>,
    instance: &'a Instance,
    device: &'a Device,
}

impl Ask<'_> {
    /// The host's cards that the device means; none if it means them by the number of a DRM
    /// card, which discovery does not read.
    fn cards(&self) -> Option<Vec<&Gpu>> {
        if self.device.get("id").is_some() {
            return None;
        }
        let hex = |key| {
            let text = self.device.get(key)?;
            u16::from_str_radix(text, 16).ok()
        };
        let vendor = hex("vendorid");
        let product = hex("productid");
        let pci = self.device.pci();
        let is_meant = |gpu: &&Gpu| {
            pci.is_none_or(|pci| gpu.pci == pci)
                && product.is_none_or(|id| gpu.device_id == id)
                && vendor.is_none_or(|id| self.vendor_of(gpu).is_none_or(|found| found == id))
        };
        Some(self.view.facts.gpus.iter().filter(is_meant).collect())
    }

    fn vendor_of(&self, gpu: &Gpu) -> Option<u16> {
        let function = self.view.facts.passthrough.function(gpu.pci)?;
        Some(function.vendor)
    }

    fn wrong(&self, message: String, hint: &str, problems: &mut Problems) {
        let problem = Diagnostic::error(message).at(&self.device.origin);
        problems.push(problem.hint(hint));
    }

    /// What a card is sliced as in this plan.
    fn technology(&self, gpu: &Gpu) -> Option<Technology> {
        let mut decisions = self.view.decisions.iter();
        let found = decisions.find(|decision| decision.pci == gpu.pci)?;
        Some(found.technology)
    }

    fn none_there(&self, problems: &mut Problems) {
        let message = format!(
            "no GPU of the host is what `{}` is to get",
            self.instance.name
        );
        let hint = "`deploy discover` shows the host's cards";
        self.wrong(message, hint, problems);
    }

    fn container(&self, problems: &mut Problems, wishes: &mut Vec<Wish>) {
        let Some(cards) = self.cards() else { return };
        if cards.is_empty() {
            return self.none_there(problems);
        }
        let name = &self.instance.name;
        for gpu in &cards {
            let handed = self.technology(gpu) == Some(Technology::Passthrough)
                || (self.technology(gpu).is_none()
                    && gpu.driver.known().is_some_and(|driver| driver == VFIO));
            if handed {
                let label = gpu.label();
                let message = format!(
                    "{label} is handed over to virtual machines, and the container `{name}` is to get it"
                );
                let hint = "a container needs the host's own driver: `strategy: none` for the card takes it back, or name another card with `pci`";
                self.wrong(message, hint, problems);
            }
            if self.technology(gpu) == Some(Technology::Mig) {
                wishes.push(Wish::Note(format!(
                    "{name} gets the whole of {} with all of its MIG devices; `gputype: mig` gives it one of them",
                    gpu.label()
                )));
            }
        }
        if cards.len() > 1 {
            wishes.push(Wish::Note(format!(
                "{name} gets all {} cards of the host, as its device names none; `pci` picks one",
                cards.len()
            )));
        }
    }

    fn whole_for_vm(&self, wanted: &Wanted, problems: &mut Problems, wishes: &mut Vec<Wish>) {
        let name = &self.instance.name;
        if self.view.desired.policy.value == GpuPolicy::Shared {
            wishes.push(Wish::Note(format!(
                "`gpu_policy: shared` means nothing for the virtual machine {name}: a card that is passed through is its alone"
            )));
        }
        let config = wanted.config_of(self.instance);
        let secure = config.get("security.secureboot");
        if secure.is_none_or(|text| text.value != "false") {
            wishes.push(Wish::Note(format!(
                "{name} boots securely, so that it loads only signed drivers; `security.secureboot: \"false\"` under `config` lets it load NVIDIA's own"
            )));
        }
        wishes.push(Wish::Note(format!(
            "the virtual machine {name} needs a driver of its own in the guest"
        )));
        let Some(cards) = self.cards() else { return };
        let gpu = match &cards[..] {
            [] => return self.none_there(problems),
            [gpu] => *gpu,
            more => {
                let message = format!(
                    "the virtual machine `{name}` is to get one GPU, and its device means {} of the host",
                    more.len()
                );
                let hint = "name the card: `pci: \"0000:17:00.0\"`";
                return self.wrong(message, hint, problems);
            }
        };
        let label = gpu.label();
        self.refuse_if_sliced(gpu, &label, problems);
        self.refuse_if_shared(gpu, &label, wanted, problems);
        let around = &self.view.facts.passthrough;
        if around.is_on() == Some(false)
            || (around.is_on().is_some() && gpu.iommu_group.known().is_none())
        {
            let message = format!("the IOMMU is off on the host, and `{name}` is to get {label}");
            let hint = format!(
                "switch it on in the firmware (VT-d, AMD-Vi), and on Intel put intel_iommu=on on the kernel's command line, which `strategy: passthrough` for the card does, too; by hand: {}",
                command_line(self.view.facts.kernel_boot.loader.known().copied())
            );
            return self.wrong(message, &hint, problems);
        }
        let others: Vec<&PciFunction> = around
            .beside(gpu.pci)
            .filter(|other| {
                let own = (other.pci.domain, other.pci.bus, other.pci.device)
                    == (gpu.pci.domain, gpu.pci.bus, gpu.pci.device);
                let driver = other.driver.known().map(String::as_str);
                !own && driver.is_some_and(|driver| driver != VFIO)
            })
            .collect();
        if let Some(first) = others.first() {
            let labels: Vec<String> = others.iter().map(|other| other.label()).collect();
            let message = format!(
                "{label} is not alone in its IOMMU group, and `{name}` is to get it: {}",
                labels.join(", ")
            );
            let hint = format!(
                "all of a group goes to the virtual machine or none: put the card into another slot, or give up the others: driverctl set-override {} {VFIO}",
                first.pci
            );
            self.wrong(message, &hint, problems);
        }
    }

    fn refuse_if_sliced(&self, gpu: &Gpu, label: &str, problems: &mut Problems) {
        let technology = self.technology(gpu);
        let whole = [Technology::None, Technology::Passthrough];
        if let Some(technology) = technology.filter(|found| !whole.contains(found)) {
            let message = format!(
                "{label} is to be sliced by {technology}, and the virtual machine `{}` is to get all of it",
                self.instance.name
            );
            let hint = "`strategy: passthrough` for the card, or `gputype: sriov` or `mdev` for the virtual machine";
            self.wrong(message, hint, problems);
        }
    }

    /// What a virtual machine gets by passthrough is gone for all others.
    fn refuse_if_shared(&self, gpu: &Gpu, label: &str, wanted: &Wanted, problems: &mut Problems) {
        for other in &wanted.instances {
            if std::ptr::eq(other, self.instance) {
                continue;
            }
            let gets = wanted.gpus_of(other).into_iter().any(|(_, device)| {
                let ask = Ask {
                    view: self.view,
                    instance: other,
                    device,
                };
                let cards = ask.cards().unwrap_or_default();
                cards.iter().any(|card| card.pci == gpu.pci)
                    && device.gpu_type() == Some(GpuType::Physical)
            });
            if gets {
                let message = format!(
                    "{label} is to go to the virtual machine `{}` and to `{}`",
                    self.instance.name, other.name
                );
                let hint = "a card that is passed through is one virtual machine's alone, whatever `gpu_policy` says";
                self.wrong(message, hint, problems);
            }
        }
    }

    /// Virtual functions: the daemon takes one that has no driver, and makes none itself.
    fn functions(&self, problems: &mut Problems) {
        let Some(cards) = self.cards() else { return };
        if cards.is_empty() {
            return self.none_there(problems);
        }
        let name = &self.instance.name;
        let has_free = |gpu: &&Gpu| {
            let found = gpu.sriov.known();
            found.is_some_and(|sriov| sriov.vfs.iter().any(|(_, driver)| driver.known().is_none()))
        };
        let made = |gpu: &&Gpu| self.technology(gpu) == Some(Technology::Sriov);
        if cards.iter().any(made) {
            let slicing = &self.view.desired.slicing;
            let entries = slicing.gpus.iter().map(|entry| &entry.wanted);
            let mut autoprobe = entries.chain([&slicing.default]);
            let on = autoprobe.find_map(|wanted| {
                let wanted = wanted.sriov.drivers_autoprobe.as_ref()?;
                Some(wanted.value)
            });
            if on != Some(false) && !cards.iter().any(has_free) {
                let message = format!(
                    "`{name}` takes a virtual function that has no driver, and the kernel gives new ones a driver"
                );
                let hint = "write `drivers_autoprobe: false` under `sriov`";
                self.wrong(message, hint, problems);
            }
        } else if !cards.iter().any(has_free) {
            let message = format!("there is no virtual function without a driver for `{name}`");
            let hint = "`strategy: sriov` with `drivers_autoprobe: false` for the card makes some";
            self.wrong(message, hint, problems);
        }
    }
}

/// How a person puts the argument there.
fn command_line(loader: Option<BootLoader>) -> &'static str {
    match loader {
        Some(BootLoader::Grubby) => "grubby --update-kernel=ALL --args=intel_iommu=on; reboot",
        Some(BootLoader::KernelInstall) => {
            "sed -i 's/$/ intel_iommu=on/' /etc/kernel/cmdline; kernel-install add-all; reboot"
        }
        Some(BootLoader::Proxmox) => {
            "sed -i 's/$/ intel_iommu=on/' /etc/kernel/cmdline; proxmox-boot-tool refresh; reboot"
        }
        Some(BootLoader::Grub) | None => {
            "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX intel_iommu=on\"' >/etc/default/grub.d/iommu.cfg; update-grub; reboot"
        }
    }
}

//! Whether there is an IOMMU, what switches it on, and the way back.
//!
//! The firmware says by an ACPI table which IOMMU it offers; where the kernel shows no such
//! tables the processor's maker decides. Intel's takes an argument of the kernel, AMD's only
//! that none forbids it. What the command line got for it stands in `passthrough.conf`, and is
//! taken back when no card is handed over any more.

use serde_json::Value as Json;

use crate::error::{Diagnostic, Problems};
use crate::facts::{CpuVendor, Fact, Gpu, HostFacts, IommuTable};
use crate::step::Step;
use crate::strategy::cmdline::{KernelArguments, KernelChange, adds, kernel_arguments, taken_back};
use crate::strategy::power::When;
use crate::strategy::{Target, usage};

/// Whether there is an IOMMU to keep a virtual machine in.
#[derive(Debug, Clone)]
pub(super) enum Iommu {
    On,
    /// A restart switches it on, once the boot loader was told.
    AfterBoot(Box<KernelChange>),
    /// Nothing that is done on the host switches it on.
    Off(Diagnostic),
}

/// Which IOMMU the firmware offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Intel,
    Amd,
    /// None, of a machine whose processor would have Intel's, or AMD's.
    Nothing(CpuVendor),
}

fn offer(host: &HostFacts) -> Offer {
    let cpu = host.kernel_boot.cpu.known().copied();
    match &host.kernel_boot.iommu_table {
        Fact::Known(IommuTable::Dmar) => Offer::Intel,
        Fact::Known(IommuTable::Ivrs) => Offer::Amd,
        Fact::Absent => Offer::Nothing(cpu.unwrap_or(CpuVendor::Other)),
        // No ACPI that the kernel shows: the processor tells at least what there could be.
        Fact::Unknown(_) if cpu == Some(CpuVendor::Amd) => Offer::Nothing(CpuVendor::Amd),
        Fact::Unknown(_) => Offer::Intel,
    }
}

fn is_on(host: &HostFacts) -> bool {
    matches!(&host.passthrough.iommus, Fact::Known(units) if !units.is_empty())
}

/// What the kernel must be given, for an IOMMU that is offered.
fn arguments(offer: Offer) -> KernelArguments {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let (present, absent) = match offer {
        Offer::Amd => (words(&[]), words(&["amd_iommu=off", "iommu=off"])),
        Offer::Intel | Offer::Nothing(_) => (
            words(&["intel_iommu=on"]),
            words(&["intel_iommu=off", "iommu=off"]),
        ),
    };
    KernelArguments {
        present,
        absent,
        initramfs: false,
    }
}

pub(super) fn iommu(host: &HostFacts) -> Iommu {
    let off = |message: &str, hint: &str| Iommu::Off(Diagnostic::error(message).hint(hint));
    if let Fact::Unknown(why) = &host.passthrough.iommus {
        return off(why, "the IOMMU's state could not be read");
    }
    if is_on(host) {
        return Iommu::On;
    }
    let offer = offer(host);
    match offer {
        Offer::Nothing(CpuVendor::Amd) => {
            return off(
                "the IOMMU is off: the firmware offers none",
                "switch it on in the firmware's setup (IOMMU or AMD-Vi); Linux uses it then without any argument",
            );
        }
        Offer::Nothing(_) => {
            return off(
                "the IOMMU is off: the firmware offers none (there is no ACPI table DMAR or IVRS)",
                "switch it on in the firmware's setup (VT-d)",
            );
        }
        Offer::Intel | Offer::Amd => {}
    }
    match (
        kernel_arguments(host, &arguments(offer), usage::TASK),
        offer,
    ) {
        (Ok(KernelChange { waits: None, .. }), Offer::Amd) => off(
            "the IOMMU is off although the firmware offers AMD-Vi and no argument of the kernel forbids it",
            "look into the kernel's log for AMD-Vi",
        ),
        (Ok(KernelChange { waits: None, .. }), _) => off(
            "the IOMMU is off although the kernel was booted with intel_iommu=on",
            "switch it on in the firmware's setup (VT-d)",
        ),
        (Ok(change), _) => Iommu::AfterBoot(Box::new(change)),
        (Err(problem), _) => {
            let message = format!("the IOMMU is off, and {}", problem.message);
            Iommu::Off(Diagnostic::error(message).hint(problem.hint.unwrap_or_default()))
        }
    }
}

/// What stands in `passthrough.conf` of the kernel's command line.
pub(super) fn kernel_words(host: &HostFacts) -> Vec<String> {
    let mut words = host.passthrough.kernel_words.clone();
    if let Iommu::AfterBoot(_) = iommu(host) {
        let offer = offer(host);
        for word in adds(host, &arguments(offer)) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    words
}

/// What takes the words back out of the boot loader's files; none if there are none of ours.
pub(super) fn back(host: &HostFacts) -> Option<Back> {
    let words = &host.passthrough.kernel_words;
    let of = |sign: char| {
        let words = words.iter().filter_map(|word| word.strip_prefix(sign));
        words
            .filter(|word| KernelArguments::is_word(word))
            .map(str::to_owned)
            .collect()
    };
    let ours = KernelArguments {
        present: of('+'),
        absent: of('-'),
        initramfs: false,
    };
    if ours.present.is_empty() && ours.absent.is_empty() {
        return None;
    }
    Some(Back(taken_back(host, &ours, usage::TASK)))
}

/// The next boot's command line without what was put there for the cards.
#[derive(Debug)]
pub(super) struct Back(Result<Option<Step>, Diagnostic>);

impl Target for Back {
    fn steps(&self, _: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        match &self.0 {
            Ok(step) => Ok(step.clone().into_iter().collect()),
            Err(diagnostic) => Err(diagnostic.clone().into()),
        }
    }

    fn vars(&self, _: &Gpu) -> Json {
        Json::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootLoader, KernelBoot, Passthrough};

    fn host(table: Fact<IommuTable>, cpu: CpuVendor, running: &str) -> HostFacts {
        let words = running.split_whitespace().map(str::to_owned).collect();
        HostFacts {
            cmdline: Fact::Known(running.to_owned()),
            passthrough: Passthrough {
                iommus: Fact::Known(Vec::new()),
                ..Passthrough::default()
            },
            kernel_boot: KernelBoot {
                loader: Fact::Known(BootLoader::Grub),
                next: Fact::Known(words),
                cpu: Fact::Known(cpu),
                iommu_table: table,
                ..KernelBoot::default()
            },
            ..HostFacts::default()
        }
    }

    fn said(host: &HostFacts) -> String {
        match iommu(host) {
            Iommu::On => "on".to_owned(),
            Iommu::AfterBoot(change) => change.waits.unwrap_or_default(),
            Iommu::Off(why) => format!("off: {why} {}", why.hint.clone().unwrap_or_default()),
        }
    }

    #[test]
    fn the_firmwares_table_says_what_the_kernel_needs_and_the_processor_only_without_one() {
        let dmar = || Fact::Known(IommuTable::Dmar);
        let ivrs = || Fact::Known(IommuTable::Ivrs);
        let unknown = || Fact::Unknown("no ACPI".to_owned());
        // A maker that we do not know, with Intel's table.
        let zhaoxin = said(&host(dmar(), CpuVendor::Other, "ro quiet"));
        assert!(zhaoxin.contains("intel_iommu=on"), "{zhaoxin}");
        let forbidden = said(&host(ivrs(), CpuVendor::Amd, "ro amd_iommu=off"));
        assert!(forbidden.contains("without amd_iommu=off"), "{forbidden}");
        let broken = said(&host(ivrs(), CpuVendor::Amd, "ro"));
        assert!(
            broken.starts_with("off: ") && broken.contains("AMD-Vi"),
            "{broken}"
        );
        // A restart would not help.
        let none = said(&host(Fact::Absent, CpuVendor::Intel, "ro quiet"));
        assert!(none.starts_with("off: ") && none.contains("VT-d"), "{none}");
        let none = said(&host(Fact::Absent, CpuVendor::Amd, "ro quiet"));
        assert!(
            none.starts_with("off: ") && none.contains("AMD-Vi"),
            "{none}"
        );
        let by_maker = said(&host(unknown(), CpuVendor::Intel, "ro quiet"));
        assert!(by_maker.contains("intel_iommu=on"), "{by_maker}");
        let by_maker = said(&host(unknown(), CpuVendor::Amd, "ro quiet"));
        assert!(by_maker.contains("without any argument"), "{by_maker}");
    }

    #[test]
    fn only_what_we_put_there_is_remembered() {
        let dmar = || Fact::Known(IommuTable::Dmar);
        let words = |host: &HostFacts| kernel_words(host).join(" ");
        let fresh = host(dmar(), CpuVendor::Intel, "ro quiet");
        assert_eq!(words(&fresh), "+intel_iommu=on -intel_iommu=off -iommu=off");
        // The next boot has it already: somebody else's.
        let mut theirs = host(dmar(), CpuVendor::Intel, "ro quiet");
        theirs.kernel_boot.next = Fact::Known(vec!["ro".to_owned(), "intel_iommu=on".to_owned()]);
        assert!(!words(&theirs).contains('+'), "{}", words(&theirs));
        // Once it is on, what stands there stays.
        let mut later = host(dmar(), CpuVendor::Intel, "ro intel_iommu=on");
        later.passthrough.iommus = Fact::Known(vec!["dmar0".to_owned()]);
        later.passthrough.kernel_words = vec!["+intel_iommu=on".to_owned()];
        assert_eq!(words(&later), "+intel_iommu=on");
    }
}

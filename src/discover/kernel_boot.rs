//! The IOMMU, the boot loader and the next boot's command line, as `kernel_boot.sh` reports them.

use crate::facts::{BootLoader, CpuVendor, Fact, Initramfs, IommuTable, KernelBoot, PciAddress};

/// What the script told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// How the kernel is booted.
    pub boot: KernelBoot,
    /// Units of the IOMMU.
    pub iommus: Fact<Vec<String>>,
    /// Cards that are handed over at boot, each with what goes along.
    pub kept: Vec<Vec<PciAddress>>,
    /// Words of the kernel's command line that came with them.
    pub kernel_words: Vec<String>,
}

impl Told {
    /// Nothing could be asked; why.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        fn unknown<T>(why: &str) -> Fact<T> {
            Fact::Unknown(why.to_owned())
        }
        Self {
            boot: KernelBoot {
                loader: unknown(why),
                next: unknown(why),
                drop_in: unknown(why),
                initramfs: unknown(why),
                cpu: unknown(why),
                iommu_table: unknown(why),
            },
            iommus: unknown(why),
            kept: Vec::new(),
            kernel_words: Vec::new(),
        }
    }
}

/// Begin of the line of `passthrough.conf` about the kernel's command line.
const KERNEL_WORDS: &str = "# kernel arguments that came with it:";

/// Reads the script's lines.
#[must_use]
pub fn parse(text: &str) -> Told {
    let values = |name: &'static str| {
        text.lines()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
    };
    let word = |name: &'static str| Fact::from_option(values(name).next());
    let loader = match word("loader").known() {
        Some(&"grub") => Fact::Known(BootLoader::Grub),
        Some(&"grubby") => Fact::Known(BootLoader::Grubby),
        Some(&"kernel-install") => Fact::Known(BootLoader::KernelInstall),
        Some(&"proxmox") => Fact::Known(BootLoader::Proxmox),
        _ => Fact::Absent,
    };
    let drop_in: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("drop-in "))
        .collect();
    Told {
        iommus: match text.lines().any(|line| line == "iommus") {
            true => Fact::Known(values("iommu").map(str::to_owned).collect()),
            false => Fact::Unknown("the host did not say whether it has an IOMMU".to_owned()),
        },
        boot: KernelBoot {
            loader,
            next: Fact::from_option(next(text)),
            drop_in: Fact::from_option((!drop_in.is_empty()).then(|| drop_in.join("\n") + "\n")),
            initramfs: match word("initramfs").known() {
                Some(&"update-initramfs") => Fact::Known(Initramfs::UpdateInitramfs),
                Some(&"dracut") => Fact::Known(Initramfs::Dracut),
                Some(&"mkinitcpio") => Fact::Known(Initramfs::Mkinitcpio),
                _ => Fact::Absent,
            },
            cpu: word("cpu").map(|vendor| match vendor {
                "GenuineIntel" => CpuVendor::Intel,
                "AuthenticAMD" | "HygonGenuine" => CpuVendor::Amd,
                _ => CpuVendor::Other,
            }),
            iommu_table: match word("acpi").known() {
                Some(&"DMAR") => Fact::Known(IommuTable::Dmar),
                Some(&"IVRS") => Fact::Known(IommuTable::Ivrs),
                Some(_) => Fact::Absent,
                None => Fact::Unknown("the kernel shows no ACPI tables".to_owned()),
            },
        },
        kernel_words: values("kept-passthrough")
            .filter_map(|line| line.strip_prefix(KERNEL_WORDS))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect(),
        kept: values("kept-passthrough")
            .filter_map(|line| line.strip_prefix("passthrough "))
            .map(|line| line.split_whitespace().take_while(|word| *word != "+"))
            .map(|words| words.filter_map(|word| word.parse().ok()))
            .map(Iterator::collect)
            .filter(|card: &Vec<PciAddress>| !card.is_empty())
            .collect(),
    }
}

/// The arguments that every entry of the boot loader has; none if no entry was seen. An
/// argument that one entry lacks is not there for whoever boots that one.
fn next(text: &str) -> Option<Vec<String>> {
    let kernelopts = text
        .lines()
        .find_map(|line| line.strip_prefix("grubenv kernelopts="))
        .unwrap_or_default();
    let mut common: Option<Vec<String>> = None;
    for line in text.lines() {
        let (skip, arguments) = if let Some(rest) = line.strip_prefix("next-linux ") {
            // The kernel's own path comes first.
            (1, rest)
        } else if let Some(rest) = line.strip_prefix("next-options ") {
            (0, rest)
        } else if let Some(rest) = line.strip_prefix("next-file ") {
            (0, rest)
        } else {
            continue;
        };
        let arguments: Vec<String> = arguments
            .split_whitespace()
            .skip(skip)
            .flat_map(|word| match word {
                "$kernelopts" => kernelopts.split_whitespace().collect(),
                word => vec![word],
            })
            .map(str::to_owned)
            .collect();
        common = Some(match common {
            None => arguments,
            // A file of several lines is one command line.
            Some(before) if line.starts_with("next-file ") => {
                before.into_iter().chain(arguments).collect()
            }
            Some(mut before) => {
                before.retain(|word| arguments.contains(word));
                before
            }
        });
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Fact<Vec<String>> {
        Fact::Known(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn a_host_with_grub_is_read() {
        let told = parse(
            "iommus\niommu dmar0\niommu dmar1\ncpu GenuineIntel\nloader grub\n\
             next-linux /boot/vmlinuz-6.1 root=/dev/sda1 ro quiet iommu=pt\n\
             next-linux /boot/vmlinuz-6.1 root=/dev/sda1 ro single iommu=pt\n\
             drop-in # ours\ndrop-in X=1\ninitramfs update-initramfs\n\
             kept-passthrough # passthrough ADDRESS\nacpi DMAR\n\
             kept-passthrough # kernel arguments that came with it: +intel_iommu=on -iommu=off\n\
             kept-passthrough passthrough 0000:17:00.0 0000:17:00.1 + 0000:31:00.0\n",
        );
        assert_eq!(told.iommus, words("dmar0 dmar1"));
        assert_eq!(told.boot.loader, Fact::Known(BootLoader::Grub));
        assert_eq!(told.boot.next, words("root=/dev/sda1 ro iommu=pt"));
        assert_eq!(told.boot.drop_in, Fact::Known("# ours\nX=1\n".to_owned()));
        assert_eq!(told.boot.initramfs, Fact::Known(Initramfs::UpdateInitramfs));
        assert_eq!(told.boot.cpu, Fact::Known(CpuVendor::Intel));
        assert_eq!((told.kept.len(), told.kept[0].len()), (1, 2));
        assert_eq!(told.kernel_words, ["+intel_iommu=on", "-iommu=off"]);
        assert_eq!(told.boot.iommu_table, Fact::Known(IommuTable::Dmar));
        assert_eq!(told.kept[0][1].to_string(), "0000:17:00.1");
    }

    #[test]
    fn red_hats_entries_may_name_arguments_that_stand_elsewhere() {
        let told = parse(
            "iommus\ncpu AuthenticAMD\nloader grubby\n\
             next-options $kernelopts $tuned_params\ngrubenv kernelopts=root=/dev/vda1 ro iommu=pt\n",
        );
        assert_eq!(told.iommus, Fact::Known(Vec::new()));
        assert_eq!(
            told.boot.next,
            words("root=/dev/vda1 ro iommu=pt $tuned_params")
        );
        assert_eq!(told.boot.cpu, Fact::Known(CpuVendor::Amd));
    }

    #[test]
    fn what_was_not_told_is_not_there() {
        let told = parse("iommus\nloader kernel-install\nnext-file root=x rw\n");
        assert_eq!(told.boot.next, words("root=x rw"));
        assert_eq!(told.boot.drop_in, Fact::Absent);
        assert_eq!(told.boot.cpu, Fact::Absent);
        assert!(told.boot.iommu_table.unknown().is_some());
        let none = parse("iommus\nacpi -\n").boot.iommu_table;
        assert_eq!(none, Fact::Absent);
        let told = parse("");
        assert!(told.iommus.unknown().is_some());
        assert_eq!(told.boot.loader, Fact::Absent);
    }
}

//! The kernel's command line: what a boot loader has to be told so that the next boot has
//! these arguments and not those.
//!
//! Each boot loader has one place for it: a file of ours in `/etc/default/grub.d` where GRUB
//! is Debian's, `grubby` where it is Red Hat's, `/etc/kernel/cmdline` with systemd-boot and
//! Proxmox. Nothing is in force before the host is restarted.

mod back;

use std::fmt::Write as _;

use crate::error::Diagnostic;
use crate::facts::{BootLoader, Fact, HostFacts, Initramfs};
use crate::shell::{Command, Script};
use crate::step::{Change, PathLook, Payload, Phase, Step, StepId};
use crate::text::hex;

pub(super) use back::{adds, taken_back};

/// Our file among those that Debian's `grub-mkconfig` reads after `/etc/default/grub`.
const DROP_IN: &str = "/etc/default/grub.d/60-deploy.cfg";
/// What `kernel-install` and `proxmox-boot-tool` read.
const CMDLINE: &str = "/etc/kernel/cmdline";
/// Names the copies in a run's snapshot and payload.
const KEY: &str = "kernel-cmdline";
/// Seconds that a boot loader's tool may take, over all kernels of a host.
const TIMEOUT_S: u32 = 300;
/// The same where the initramfs of each is built anew.
const INITRAMFS_TIMEOUT_S: u32 = 900;

/// Arguments as they are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelArguments {
    /// `name` or `name=value`: on the command line, in exactly these words.
    pub present: Vec<String>,
    /// Not on it: `name=value` is that word, `name` stands for it with any value.
    pub absent: Vec<String>,
    /// Whether the initramfs is built anew as well.
    pub initramfs: bool,
}

/// What it takes to get there.
#[derive(Debug, Clone, Default)]
pub struct KernelChange {
    /// Tells the boot loader; none if the next boot has it so.
    pub write: Option<Step>,
    /// Why the host has to be restarted; none if the running kernel has it so.
    pub waits: Option<String>,
}

impl KernelArguments {
    /// Whether a word can be an argument: it goes into files that a shell and boot loaders read.
    #[must_use]
    pub fn is_word(text: &str) -> bool {
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-.,:=+/@%".contains(c);
        !text.is_empty() && text.len() <= 256 && !text.starts_with('=') && text.chars().all(legal)
    }

    /// These and others; what one wants there and the other not, the later decides.
    #[must_use]
    pub fn and(&self, later: &Self) -> Self {
        let mut both = Self {
            present: (self.present.iter())
                .filter(|word| !later.absent.iter().any(|not| stands_for(not, word)))
                .cloned()
                .collect(),
            absent: (self.absent.iter())
                .filter(|not| !later.present.iter().any(|word| stands_for(not, word)))
                .cloned()
                .collect(),
            initramfs: self.initramfs || later.initramfs,
        };
        for (all, more) in [
            (&mut both.present, &later.present),
            (&mut both.absent, &later.absent),
        ] {
            for word in more {
                if !all.contains(word) {
                    all.push(word.clone());
                }
            }
        }
        both
    }

    fn holds<'a>(&self, line: impl Iterator<Item = &'a str> + Clone) -> bool {
        let has = |wanted: &String| line.clone().any(|word| word == wanted);
        let lacks = |not: &String| !line.clone().any(|word| stands_for(not, word));
        self.present.iter().all(has) && self.absent.iter().all(lacks)
    }

    /// A command line with these.
    fn applied<'a>(&self, line: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut words: Vec<String> = line
            .filter(|word| !self.absent.iter().any(|not| stands_for(not, word)))
            .map(str::to_owned)
            .collect();
        for word in &self.present {
            if !words.contains(word) {
                words.push(word.clone());
            }
        }
        words
    }

    fn said(&self) -> String {
        let with = self.present.join(" ");
        let without = self.absent.join(" ");
        match (with.is_empty(), without.is_empty()) {
            (false, false) => format!("{with}, without {without}"),
            (false, true) => with,
            (true, _) => format!("without {without}"),
        }
    }
}

/// Whether `not` in a list of what must be absent stands for a word of a command line.
fn stands_for(not: &str, word: &str) -> bool {
    match not.contains('=') {
        true => word == not,
        false => word.split('=').next() == Some(not),
    }
}

/// What has to be done on a host, and whether it has to be restarted.
///
/// # Errors
/// Says why the next boot's command line cannot be changed.
pub fn kernel_arguments(
    facts: &HostFacts,
    wanted: &KernelArguments,
    task: &str,
) -> Result<KernelChange, Diagnostic> {
    let running = match &facts.cmdline {
        Fact::Known(line) => line.as_str(),
        Fact::Absent => "",
        Fact::Unknown(why) => {
            let message = format!("the kernel's command line cannot be read: {why}");
            return Err(Diagnostic::error(message));
        }
    };
    let in_force = wanted.holds(running.split_whitespace());
    let next = facts.kernel_boot.next.known();
    let written = match next {
        Some(words) => wanted.holds(words.iter().map(String::as_str)),
        // Then the next boot has what this one has, as far as anybody can tell.
        None => in_force,
    };
    let mut change = KernelChange {
        write: None,
        waits: (!in_force).then(|| {
            format!(
                "the kernel's command line is to have {}, which it has only after a restart",
                wanted.said()
            )
        }),
    };
    if !written {
        let loader = loader_of(&facts.kernel_boot.loader, wanted)?;
        change.write = Some(write(loader, facts, wanted, running, task)?);
    }
    Ok(change)
}

fn loader_of(
    loader: &Fact<BootLoader>,
    wanted: &KernelArguments,
) -> Result<BootLoader, Diagnostic> {
    let why = match loader {
        Fact::Known(loader) => return Ok(*loader),
        Fact::Absent => "the host has none of update-grub, grubby, kernel-install with its entries, and proxmox-boot-tool".to_owned(),
        Fact::Unknown(why) => why.clone(),
    };
    let message = format!("the kernel's command line cannot be changed: {why}");
    let hint = format!(
        "have its boot loader give {} to the kernel, restart the host, and run again",
        wanted.said()
    );
    Err(Diagnostic::error(message).hint(hint))
}

fn write(
    loader: BootLoader,
    facts: &HostFacts,
    wanted: &KernelArguments,
    running: &str,
    task: &str,
) -> Result<Step, Diagnostic> {
    let boot = &facts.kernel_boot;
    let (name, tool) = match loader {
        BootLoader::Grub => ("grub", "update-grub"),
        BootLoader::Grubby => ("grubby", "grubby"),
        BootLoader::KernelInstall => ("kernel-install", "kernel-install"),
        BootLoader::Proxmox => ("proxmox", "proxmox-boot-tool"),
    };
    let (present, absent) = (wanted.present.join(" "), wanted.absent.join(" "));
    let next: Vec<&str> = match boot.next.known() {
        Some(words) => words.iter().map(String::as_str).collect(),
        None => running
            .split_whitespace()
            .filter(|word| !is_loaders(word))
            .collect(),
    };
    let file = match loader {
        BootLoader::Grub => {
            let before = boot.drop_in.known().cloned();
            let of_file = before.as_deref().map(read_drop_in).unwrap_or_default();
            Some((DROP_IN, before, drop_in(&of_file.and(wanted))))
        }
        BootLoader::KernelInstall | BootLoader::Proxmox => {
            let before = boot.next.known().map(|words| words.join(" ") + "\n");
            let after = wanted.applied(next.iter().copied()).join(" ") + "\n";
            Some((CMDLINE, before, after))
        }
        BootLoader::Grubby => None,
    };
    let id = StepId(KEY.to_owned());
    let title = format!(
        "have the next boot give the kernel {} ({tool})",
        wanted.said()
    );
    let change = match &file {
        Some((path, before, after)) => Change::Path {
            path: (*path).to_owned(),
            before: before.as_deref().map_or(PathLook::Absent, look),
            after: look(after),
        },
        None => Change::Setting {
            subject: "kernel command line".to_owned(),
            name: "arguments of all kernels".to_owned(),
            before: next.join(" "),
            after: wanted.applied(next.iter().copied()).join(" "),
        },
    };
    let mut step = Step {
        phase: Phase::Prepare,
        timeout_s: if wanted.initramfs {
            INITRAMFS_TIMEOUT_S
        } else {
            TIMEOUT_S
        },
        verify: Script::one(Command::new("cmdline_is").args([name, &present, &absent])),
        ..Step::new(id, task, title, change)
    };
    let refresh = Command::new("cmdline_refresh").arg(name);
    match file {
        Some((path, _, after)) => {
            step.snapshot = Script::one(Command::new("path_snapshot").arg(KEY).path(path));
            step.apply = Script::one(Command::new("cmdline_folder").path(path))
                .then(
                    Command::new("put_file")
                        .run_path(format!("payload/{KEY}"))
                        .path(path)
                        .args(["0644", "root", "root"]),
                )
                .then(refresh.clone());
            step.undo = Script::one(Command::new("path_restore").arg(KEY).path(path))
                .then(Command::new("cmdline_no_folder").path(path))
                .then(refresh);
            step.payload = vec![Payload {
                name: KEY.to_owned(),
                content: after.into_bytes(),
            }];
        }
        None => {
            let kept = format!("snapshot/{KEY}");
            step.snapshot = Script::one(Command::new("cmdline_save").run_path(&kept));
            step.apply = Script::one(Command::new("cmdline_grubby").args([&present, &absent]));
            step.undo = Script::one(Command::new("cmdline_restore").run_path(&kept));
        }
    }
    if wanted.initramfs {
        let rebuild = Command::new("cmdline_initramfs").arg(match boot.initramfs {
            Fact::Known(Initramfs::UpdateInitramfs) => "update-initramfs",
            Fact::Known(Initramfs::Dracut) => "dracut",
            Fact::Known(Initramfs::Mkinitcpio) => "mkinitcpio",
            Fact::Absent | Fact::Unknown(_) => {
                let message = "the initramfs cannot be built anew: the host has none of update-initramfs, dracut and mkinitcpio";
                return Err(Diagnostic::error(message).hint("leave `initramfs` out"));
            }
        });
        step.apply.0.push(rebuild.clone());
        step.undo.0.push(rebuild);
    }
    Ok(step)
}

/// Whether the boot loader puts a word on the running command line by itself.
fn is_loaders(word: &str) -> bool {
    word.starts_with("BOOT_IMAGE=") || word.starts_with("initrd=")
}

fn look(text: &str) -> PathLook {
    use sha2::{Digest, Sha256};
    PathLook::File {
        mode: 0o644,
        owner: "root".to_owned(),
        group: "root".to_owned(),
        sha256: hex(&Sha256::digest(text.as_bytes())),
        size: text.len() as u64,
        text: Some(text.to_owned()),
    }
}

const PRESENT: &str = "# present:";
const ABSENT: &str = "# absent:";

/// Our file for GRUB. It is read by a shell, after the user's own, and may take words out of
/// what stands there.
fn drop_in(wanted: &KernelArguments) -> String {
    let mut text = format!(
        "# Arguments for the kernel. Written by deploy; changes are overwritten.\n{PRESENT} {}\n{ABSENT} {}\n",
        wanted.present.join(" "),
        wanted.absent.join(" ")
    );
    let mut out: Vec<String> = wanted
        .present
        .iter()
        .map(|word| format!("'{word}'"))
        .collect();
    for not in &wanted.absent {
        out.push(format!("'{not}'"));
        if !not.contains('=') {
            out.push(format!("'{not}='*"));
        }
    }
    let _ = write!(
        text,
        "deploy_other_words() (\n    set -f\n    for word in $1; do\n        case $word in\n        {}) ;;\n        \
         *) printf '%s ' \"$word\" ;;\n        esac\n    done\n)\n\
         GRUB_CMDLINE_LINUX=\"$(deploy_other_words \"$GRUB_CMDLINE_LINUX\"){}\"\n\
         GRUB_CMDLINE_LINUX_DEFAULT=\"$(deploy_other_words \"$GRUB_CMDLINE_LINUX_DEFAULT\")\"\n",
        out.join(" | "),
        wanted.present.join(" ")
    );
    text
}

/// What an earlier run wanted.
fn read_drop_in(text: &str) -> KernelArguments {
    let words = |prefix: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(prefix));
        line.unwrap_or_default()
            .split_whitespace()
            .filter(|word| KernelArguments::is_word(word))
            .map(str::to_owned)
            .collect()
    };
    KernelArguments {
        present: words(PRESENT),
        absent: words(ABSENT),
        initramfs: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::KernelBoot;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn wanted(present: &str, absent: &str) -> KernelArguments {
        KernelArguments {
            present: words(present),
            absent: words(absent),
            initramfs: false,
        }
    }

    fn host(loader: BootLoader, running: &str, next: &str) -> HostFacts {
        HostFacts {
            cmdline: Fact::Known(running.to_owned()),
            kernel_boot: KernelBoot {
                loader: Fact::Known(loader),
                next: Fact::Known(words(next)),
                ..KernelBoot::default()
            },
            ..HostFacts::default()
        }
    }

    #[test]
    fn what_differs_is_written_and_what_does_not_run_yet_waits() {
        let iommu = wanted("intel_iommu=on", "");
        let change = |running, next| {
            let facts = host(BootLoader::Grub, running, next);
            let change = kernel_arguments(&facts, &iommu, "t").expect("a way");
            (change.write.is_some(), change.waits.is_some())
        };
        assert_eq!(change("ro quiet", "ro quiet"), (true, true));
        assert_eq!(change("ro quiet", "ro intel_iommu=on"), (false, true));
        assert_eq!(
            change("ro intel_iommu=on", "ro intel_iommu=on"),
            (false, false)
        );
        // The next boot would lose it.
        assert_eq!(change("ro intel_iommu=on", "ro"), (true, false));
    }

    #[test]
    fn a_name_stands_for_itself_with_any_value_and_a_word_only_for_itself() {
        let not = wanted("", "iommu quiet=x");
        assert!(!not.holds(["iommu=pt"].into_iter()));
        assert!(!not.holds(["iommu"].into_iter()));
        assert!(not.holds(["intel_iommu=on", "quiet", "iommufd=1"].into_iter()));
    }

    #[test]
    fn grubs_file_keeps_what_an_earlier_run_put_there() {
        let first = drop_in(&wanted("a=1 b", "quiet"));
        let both = read_drop_in(&first).and(&wanted("c quiet", "b"));
        assert_eq!(both, wanted("a=1 c quiet", "b"));
    }

    #[test]
    fn other_loaders_get_one_line_and_none_is_an_error() {
        let facts = host(BootLoader::Proxmox, "x", "root=/dev/sda1 ro iommu=off");
        let change = kernel_arguments(&facts, &wanted("iommu=pt", "iommu=off"), "t");
        let write = change.expect("a way").write.expect("a step");
        assert_eq!(write.payload[0].content, b"root=/dev/sda1 ro iommu=pt\n");
        let mut facts = host(BootLoader::Grub, "x", "x");
        facts.kernel_boot.loader = Fact::Absent;
        let error = kernel_arguments(&facts, &wanted("a", ""), "t").expect_err("no loader");
        assert!(error.to_string().contains("update-grub"), "{error}");
    }

    #[test]
    fn words_that_a_shell_would_take_apart_are_none() {
        for text in [
            "", "a b", "a'", "$x", "a;b", "a*", "=x", "a\nb", "`a`", "a\"b",
        ] {
            assert!(!KernelArguments::is_word(text), "{text:?}");
        }
        for text in [
            "intel_iommu=on",
            "console=ttyS0,115200n8",
            "vfio-pci.ids=10de:1b38",
            "quiet",
        ] {
            assert!(KernelArguments::is_word(text), "{text:?}");
        }
    }
}

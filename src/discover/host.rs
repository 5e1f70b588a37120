//! The machine as `host.sh` reports it.

use crate::facts::{Fact, Init, Os};

/// What one script told of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Kernel release.
    pub kernel: Fact<String>,
    /// Architecture.
    pub arch: Fact<String>,
    /// Distribution.
    pub os: Fact<Os>,
    /// Boot id.
    pub boot_id: Fact<String>,
    /// Process 1.
    pub init: Init,
    /// Kernel command line.
    pub cmdline: Fact<String>,
    /// Version of the loaded NVIDIA kernel driver.
    pub nvidia_driver: Fact<String>,
    /// Loaded modules that matter.
    pub modules: Fact<Vec<String>>,
    /// Files below `/etc/deploy/gpu`.
    pub kept_files: Fact<Vec<String>>,
}

impl Machine {
    /// Nothing could be asked; why.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        fn unknown<T>(why: &str) -> Fact<T> {
            Fact::Unknown(why.to_owned())
        }
        Self {
            kernel: unknown(why),
            arch: unknown(why),
            os: unknown(why),
            boot_id: unknown(why),
            init: Init::Other("unknown".to_owned()),
            cmdline: unknown(why),
            nvidia_driver: unknown(why),
            modules: unknown(why),
            kept_files: unknown(why),
        }
    }
}

/// Reads the script's lines.
#[must_use]
pub fn parse(text: &str) -> Machine {
    let values = |name: &'static str| {
        text.lines()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(|value| value.trim().to_owned())
    };
    let value =
        |name: &'static str| Fact::from_option(values(name).find(|value| !value.is_empty()));
    let os = |key: &str| {
        values("os").find_map(|line| Some(unquote(line.strip_prefix(key)?.strip_prefix('=')?)))
    };
    let init = match value("init") {
        Fact::Known(name) if name == "systemd" => Init::Systemd,
        Fact::Known(name) => Init::Other(name),
        _ => Init::Other("unknown".to_owned()),
    };
    Machine {
        kernel: value("kernel"),
        arch: value("arch"),
        os: Fact::from_option(os("ID").map(|id| Os {
            version: os("VERSION_ID").unwrap_or_default(),
            name: os("PRETTY_NAME").unwrap_or_else(|| id.clone()),
            id,
        })),
        boot_id: value("boot"),
        init,
        cmdline: value("cmdline"),
        nvidia_driver: match value("driver") {
            Fact::Known(line) => Fact::from_option(driver_version(&line)),
            other => other,
        },
        modules: if text.lines().any(|line| line == "modules") {
            Fact::Known(values("module").collect())
        } else {
            // A kernel without loadable modules has no /proc/modules.
            Fact::Absent
        },
        kept_files: if text.lines().any(|line| line == "kept-files") {
            Fact::Known(values("kept-file").collect())
        } else {
            Fact::Unknown("the host did not say which files are kept".to_owned())
        },
    }
}

/// `590.48.01` of `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  590.48.01 …`.
fn driver_version(line: &str) -> Option<String> {
    let version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(version).map(str::to_owned)
}

/// A value of os-release, which is written as in a shell.
fn unquote(text: &str) -> String {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    match (inner('"'), inner('\'')) {
        (Some(text), _) => text
            .replace("\\\"", "\"")
            .replace("\\$", "$")
            .replace("\\`", "`")
            .replace("\\\\", "\\"),
        (_, Some(text)) => text.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read() {
        let machine = parse(
            "kernel 6.1.0-18-amd64\narch x86_64\nboot c528388b-46e9-4d2a-b0d5-4400fdc4450b\n\
             cmdline quiet intel_iommu=on\n\
             driver NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  590.48.01  Release Build  (root@x)\n\
             init systemd\nos PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nos VERSION_ID=\"12\"\nos ID=debian\n\
             modules\nmodule nvidia_drm\nmodule nvidia\nkept-files\nkept-file /etc/deploy/gpu/mig.conf\n",
        );
        assert_eq!(machine.kernel, Fact::Known("6.1.0-18-amd64".to_owned()));
        assert_eq!(machine.init, Init::Systemd);
        assert_eq!(machine.nvidia_driver, Fact::Known("590.48.01".to_owned()));
        let os = machine.os.known().expect("a distribution");
        assert_eq!((os.id.as_str(), os.version.as_str()), ("debian", "12"));
        assert_eq!(os.name, "Debian GNU/Linux 12 (bookworm)");
        let modules = machine.modules.known().expect("a list");
        assert_eq!(modules, &["nvidia_drm", "nvidia"]);
        let kept = machine.kept_files.known().expect("a list");
        assert_eq!(kept, &["/etc/deploy/gpu/mig.conf"]);
    }

    #[test]
    fn a_bare_machine_has_absents() {
        let machine = parse("kernel 6.18.44\narch x86_64\ninit process_api\n");
        assert_eq!(machine.init, Init::Other("process_api".to_owned()));
        assert_eq!(machine.os, Fact::Absent);
        assert_eq!(machine.modules, Fact::Absent);
        assert_eq!(machine.nvidia_driver, Fact::Absent);
    }
}

//! The messages with which AMD's tools refuse, by what they mean, and the advice for each.
//!
//! Exit statuses do not tell them apart: `amd-smi partition --accelerator` without root ends
//! well with `N/A` everywhere, and a change that worked can end in `Too many open files`.

use std::fmt;

/// Why a tool did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AmdFault {
    /// Processes have the card open (`AMDSMI_STATUS_BUSY`).
    Busy,
    /// Only root may.
    NoPermission,
    /// The mode does not go with the other one in force.
    SettingUnavailable,
    /// The command line of amd-smi 6.4 splits its own choices into letters on newer Python.
    ChoiceBug,
    /// The tool ran out of file descriptors after its work.
    TooManyFiles,
    /// The card has no such thing.
    NotSupported,
}

/// Text that a message holds and what it means; the first that fits counts.
const MESSAGES: &[(&str, AmdFault)] = &[
    (
        "AMDSMI_STATUS_SETTING_UNAVAILABLE",
        AmdFault::SettingUnavailable,
    ),
    ("AMDSMI_STATUS_BUSY", AmdFault::Busy),
    ("AMDSMI_STATUS_NO_PERM", AmdFault::NoPermission),
    ("requires sudo/root permissions", AmdFault::NoPermission),
    ("Command requires elevation", AmdFault::NoPermission),
    ("AMDSMI_STATUS_NOT_SUPPORTED", AmdFault::NotSupported),
    ("invalid choice", AmdFault::ChoiceBug),
    ("Too many open files", AmdFault::TooManyFiles),
];

impl AmdFault {
    /// The fault that a message tells of.
    #[must_use]
    pub fn in_text(text: &str) -> Option<Self> {
        let found = MESSAGES.iter().find(|(part, _)| text.contains(part));
        found.map(|(_, fault)| *fault)
    }

    /// What a user can do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Busy => {
                "stop what uses the card; exporters and agents such as amd-metrics-exporter and gpuagent count too"
            }
            Self::NoPermission => "become root",
            Self::SettingUnavailable => {
                "the compute mode does not go with the memory mode in force; change the memory mode first"
            }
            Self::ChoiceBug => {
                "this amd-smi cannot take the name of a mode; the kernel's sysfs or the number of the profile does"
            }
            Self::TooManyFiles => "the change may have worked all the same; read the mode back",
            Self::NotSupported => "the card or its firmware cannot do it",
        }
    }
}

impl fmt::Display for AmdFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the card is in use",
            Self::NoPermission => "permission is missing",
            Self::SettingUnavailable => "the setting is not available in the present mode",
            Self::ChoiceBug => "the tool does not understand its own choices",
            Self::TooManyFiles => "the tool ran out of file descriptors",
            Self::NotSupported => "it is not supported",
        })
    }
}

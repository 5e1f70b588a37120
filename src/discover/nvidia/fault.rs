//! The messages with which `nvidia-smi` refuses, by what they mean.
//!
//! Its exit codes do not tell these apart, and several of them come with status 0, so the text
//! decides. Owns the advice that belongs to each.

use std::fmt;

use crate::facts::PciAddress;

/// Why `nvidia-smi` did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NvidiaFault {
    /// Somebody holds the card.
    InUse,
    /// The mode is to be enabled, and is not yet.
    PendingEnable,
    /// The mode is to be disabled, and is not yet.
    PendingDisable,
    /// The card, or this machine, cannot do it.
    NotSupported,
    /// No room is left for the instance.
    InsufficientResources,
    /// Only root may, or the holder of the MIG capability.
    InsufficientPermissions,
    /// The card does not offer the profile.
    InvalidArgument,
    /// No card answers to the driver.
    NoDevices,
    /// No card has MIG switched on.
    NoMigEnabled,
    /// No card has MIG at all.
    NoMigSupported,
    /// There is no such instance.
    NotFound,
    /// The kernel driver is not loaded.
    DriverNotLoaded,
    /// The library is another version than the kernel driver.
    VersionMismatch,
    /// The query names a field that this driver does not have.
    UnknownField,
    /// The option is not known to this version.
    UnknownOption,
    /// The card no longer answers on the bus.
    Lost,
    /// The driver gave no reason.
    UnknownError,
}

/// Text that a message holds, in lower case, and what it means; the first that fits counts.
const MESSAGES: &[(&str, NvidiaFault)] = &[
    ("pending enable state", NvidiaFault::PendingEnable),
    ("pending disable state", NvidiaFault::PendingDisable),
    ("no mig-enabled devices found", NvidiaFault::NoMigEnabled),
    (
        "no mig-supported devices found",
        NvidiaFault::NoMigSupported,
    ),
    (
        "driver/library version mismatch",
        NvidiaFault::VersionMismatch,
    ),
    (
        "couldn't communicate with the nvidia driver",
        NvidiaFault::DriverNotLoaded,
    ),
    ("driver not loaded", NvidiaFault::DriverNotLoaded),
    ("fallen off the bus", NvidiaFault::Lost),
    ("gpu is lost", NvidiaFault::Lost),
    ("not a valid field", NvidiaFault::UnknownField),
    (
        "invalid combination of input arguments",
        NvidiaFault::UnknownOption,
    ),
    ("is not recognized", NvidiaFault::UnknownOption),
    (
        "insufficient permission",
        NvidiaFault::InsufficientPermissions,
    ),
    ("insufficient resources", NvidiaFault::InsufficientResources),
    ("in use by another", NvidiaFault::InUse),
    (
        "currently being used by one or more other processes",
        NvidiaFault::InUse,
    ),
    ("not supported", NvidiaFault::NotSupported),
    ("invalid argument", NvidiaFault::InvalidArgument),
    ("no devices were found", NvidiaFault::NoDevices),
    ("no devices found", NvidiaFault::NoDevices),
    ("instances found", NvidiaFault::NotFound),
    ("not found", NvidiaFault::NotFound),
    ("unknown error", NvidiaFault::UnknownError),
];

impl NvidiaFault {
    /// The fault in a text, the gravest line's if there are several: a pending mode is told
    /// together with who holds the card.
    #[must_use]
    pub fn in_text(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        MESSAGES
            .iter()
            .find(|(message, _)| text.contains(message))
            .map(|(_, fault)| *fault)
    }

    /// Who is concerned, as far as the text names cards: `GPU 00000000:36:00.0:In use…`.
    #[must_use]
    pub fn cards(text: &str) -> Vec<PciAddress> {
        let mut found: Vec<PciAddress> = text
            .split(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.'))
            .filter_map(|word| word.trim_end_matches([':', '.']).parse().ok())
            .collect();
        found.dedup();
        found
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::InUse => "stop what holds the card; `deploy discover` names it",
            Self::PendingEnable | Self::PendingDisable => {
                "the change takes effect when the card is reset or the host rebooted"
            }
            Self::NotSupported => {
                "the card has no MIG, misses a prerequisite (vBIOS, display mode), or is passed \
                 through to this virtual machine"
            }
            Self::InsufficientResources => {
                "instances that exist take the room, or the order of creation wasted it"
            }
            Self::InsufficientPermissions => "become root (`ansible_become: true`, or -b)",
            Self::InvalidArgument => {
                "the card does not offer this profile; `nvidia-smi mig -lgip` lists what it does"
            }
            Self::NoDevices => {
                "the driver sees no card: bound to another driver, or failed to start"
            }
            Self::NoMigEnabled => "MIG mode is off on all cards",
            Self::NoMigSupported => "no card of this host has MIG in its present state",
            Self::NotFound => "there is no such instance",
            Self::DriverNotLoaded => "load the driver: `modprobe nvidia`",
            Self::VersionMismatch => "the driver was updated: reload the module or reboot",
            Self::UnknownField | Self::UnknownOption => "the driver is too old for this",
            Self::Lost => "the card fell off the bus: reboot, and look at its power and seat",
            Self::UnknownError => "`dmesg` may say more",
        }
    }
}

impl fmt::Display for NvidiaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "in use by another client",
            Self::PendingEnable => "MIG mode is pending enable",
            Self::PendingDisable => "MIG mode is pending disable",
            Self::NotSupported => "not supported",
            Self::InsufficientResources => "insufficient resources",
            Self::InsufficientPermissions => "insufficient permissions",
            Self::InvalidArgument => "invalid argument",
            Self::NoDevices => "no devices were found",
            Self::NoMigEnabled => "no card has MIG switched on",
            Self::NoMigSupported => "no card has MIG",
            Self::NotFound => "not found",
            Self::DriverNotLoaded => "the NVIDIA driver is not loaded",
            Self::VersionMismatch => "driver and library are of different versions",
            Self::UnknownField => "the driver does not know the field",
            Self::UnknownOption => "this nvidia-smi does not know the option",
            Self::Lost => "the card does not answer any more",
            Self::UnknownError => "unknown error",
        })
    }
}

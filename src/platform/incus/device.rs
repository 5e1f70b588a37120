//! What Incus and LXD take as a GPU device: which keys go with which `gputype` and with which
//! kind of instance.
//!
//! The daemon looks at a device of a profile only when an instance that uses it starts, and
//! takes a `gputype` that it does not know for `physical`, which gives away the whole card. So
//! all of its rules are held here first. Sources: `doc/reference/devices_gpu.md` and
//! `internal/server/device/gpu*.go` of Incus 6.0. Profiles, instances and hosts are not known
//! here.

use std::fmt;

use indexmap::IndexMap;

use crate::desired::Located;
use crate::error::{Diagnostic, Origin, Problems, nearest};
use crate::facts::PciAddress;
use crate::platform::{AskedCard, MigAsk};
use crate::value::{Map, Node, Value};

/// Settings by name, as Incus has them: texts.
pub(super) type Keys = IndexMap<String, Located<String>>;

/// The program by which the daemon is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Program {
    /// Incus.
    #[default]
    Incus,
    /// LXD, whose client is called `lxc`.
    Lxc,
}

impl Program {
    /// Its name on the host.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Incus => "incus",
            Self::Lxc => "lxc",
        }
    }

    /// What it belongs to, in messages.
    pub(super) fn product(self) -> &'static str {
        match self {
            Self::Incus => "Incus",
            Self::Lxc => "LXD",
        }
    }
}

/// What kind of instance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shares the host's kernel and driver.
    Container,
    /// Has a kernel and a driver of its own.
    Vm,
}

impl Kind {
    /// In the daemon's own word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "virtual-machine",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "a container",
            Self::Vm => "a virtual machine",
        })
    }
}

/// How a card, or what part of it, gets into an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GpuType {
    /// The whole card.
    Physical,
    /// A mediated device that the daemon makes at each start.
    Mdev,
    /// A MIG device that is there.
    Mig,
    /// A virtual function that has no driver.
    Sriov,
}

const GPU_TYPES: [(&str, GpuType); 4] = [
    ("physical", GpuType::Physical),
    ("mdev", GpuType::Mdev),
    ("mig", GpuType::Mig),
    ("sriov", GpuType::Sriov),
];

impl GpuType {
    /// In the daemon's own word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Mdev => "mdev",
            Self::Mig => "mig",
            Self::Sriov => "sriov",
        }
    }

    /// Whether hardware keeps those apart that get such a thing of one card.
    pub(super) fn is_isolated(self) -> bool {
        matches!(self, Self::Mig | Self::Sriov)
    }

    /// Whether such an instance can have it.
    fn is_for(self, kind: Kind) -> bool {
        match self {
            Self::Physical => true,
            Self::Mig => kind == Kind::Container,
            Self::Mdev | Self::Sriov => kind == Kind::Vm,
        }
    }

    /// Its keys beside `type`, `gputype` and those that pick the card.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Physical => &["uid", "gid", "mode"],
            Self::Mdev => &["mdev"],
            Self::Mig => &["mig.uuid", "mig.gi", "mig.ci", PROFILE, INDEX],
            Self::Sriov => &[],
        }
    }
}

/// Keys that pick the card.
const CARD_KEYS: [&str; 4] = ["id", "pci", "productid", "vendorid"];

/// Our own key of `gputype: mig`: a MIG device of this profile, instead of its UUID.
pub(super) const PROFILE: &str = "mig.profile";

/// Our own key beside `mig.profile`: the how-manieth of these, from 0.
pub(super) const INDEX: &str = "mig.index";

/// A device of a profile or an instance, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Device {
    /// Its keys, `type` among them.
    pub(super) keys: Keys,
    /// Where it is written.
    pub(super) origin: Origin,
}

impl Device {
    /// One that nobody wrote, for `gpu: true`.
    pub(super) fn whole_card(origin: &Origin) -> Self {
        let texts = [("type", "gpu"), ("gputype", "physical")];
        let key = |(key, text): (&str, &str)| (key.to_owned(), written(text, origin));
        Self {
            keys: texts.map(key).into_iter().collect(),
            origin: origin.clone(),
        }
    }

    /// Reads one; what is no mapping of texts is told.
    pub(super) fn read(path: &str, node: &Node, problems: &mut Problems) -> Option<Self> {
        let Some(map) = node.as_map() else {
            let message = format!("`{path}` must be a mapping, not {}", node.kind());
            problems.push(Diagnostic::error(message).at(&node.origin));
            return None;
        };
        Some(Self {
            keys: texts(path, map, problems),
            origin: node.origin.clone(),
        })
    }

    /// What stands behind a key; an empty text counts as not written, as for the daemon.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let text = self.keys.get(key)?.value.as_str();
        (!text.is_empty()).then_some(text)
    }

    /// Whether it is a GPU device.
    pub(super) fn is_gpu(&self) -> bool {
        self.get("type") == Some("gpu")
    }

    /// What of a card it gives; none for another device, and for a word that does not exist.
    pub(super) fn gpu_type(&self) -> Option<GpuType> {
        if !self.is_gpu() {
            return None;
        }
        let word = self.get("gputype").unwrap_or("physical");
        let known = GPU_TYPES.iter().find(|(name, _)| *name == word);
        known.map(|(_, found)| *found)
    }

    /// The card that it names by its address.
    pub(super) fn pci(&self) -> Option<PciAddress> {
        self.get("pci")?.parse().ok()
    }

    /// The MIG device that it is to be given by a profile; who names one by its UUID has picked
    /// it already.
    pub(super) fn mig_ask(&self) -> Option<MigAsk> {
        let is_mig = self.gpu_type() == Some(GpuType::Mig);
        let profile = self.get(PROFILE).filter(|_| is_mig)?;
        let card = self.pci().map(|pci| AskedCard::At(pci.to_string()));
        Some(MigAsk {
            profile: Some(profile.to_owned()),
            card: card.unwrap_or(AskedCard::Every),
        })
    }

    /// Where a key is written, or else the device.
    pub(super) fn place(&self, key: &str) -> &Origin {
        let written = self.keys.get(key).and_then(|text| text.origin.as_ref());
        written.unwrap_or(&self.origin)
    }

    /// The rules that hold wherever it stands. `path` is what messages call it.
    pub(super) fn check(&self, path: &str, program: Program, problems: &mut Problems) {
        if self.get("type").is_none() {
            let message = format!("`{path}` has no `type`");
            let hint = "a GPU is `type: gpu`";
            problems.push(Diagnostic::error(message).at(&self.origin).hint(hint));
            return;
        }
        if !self.is_gpu() {
            return;
        }
        let Some(gpu_type) = self.gpu_type() else {
            self.unknown_type(path, program, problems);
            return;
        };
        self.check_keys(path, gpu_type, problems);
        for (key, text) in &self.keys {
            if text.value.is_empty() {
                continue;
            }
            if let Some(wanted) = wrong_value(key, &text.value, program) {
                let message = format!("`{path}.{key}` must be {wanted}, not `{}`", text.value);
                problems.push(Diagnostic::error(message).at(self.place(key)));
            }
        }
        self.check_together(path, gpu_type, problems);
    }

    fn unknown_type(&self, path: &str, program: Program, problems: &mut Problems) {
        let word = self.get("gputype").unwrap_or_default();
        let names = || GPU_TYPES.iter().map(|(name, _)| *name);
        let listed = names().collect::<Vec<_>>().join("`, `");
        let near = match nearest(word, names()) {
            Some(name) => format!("did you mean `{name}`? "),
            None => String::new(),
        };
        let message = format!("`{path}.gputype` has no value `{word}`");
        let hint = format!(
            "{near}It is one of `{listed}`; {} would take this one for `physical` and give the whole card away",
            program.product()
        );
        problems.push(
            Diagnostic::error(message)
                .at(self.place("gputype"))
                .hint(hint),
        );
    }

    fn check_keys(&self, path: &str, gpu_type: GpuType, problems: &mut Problems) {
        let legal = || {
            let common = ["type", "gputype"].into_iter().chain(CARD_KEYS);
            common.chain(gpu_type.own_keys().iter().copied())
        };
        for key in self.keys.keys() {
            if legal().any(|legal| legal == key) {
                continue;
            }
            let word = gpu_type.word();
            let message =
                format!("`{path}` has a key `{key}`, which `gputype: {word}` does not take");
            let owner = |(name, other): &(&'static str, GpuType)| {
                other.own_keys().contains(&key.as_str()).then_some(*name)
            };
            let hint = match (GPU_TYPES.iter().find_map(owner), nearest(key, legal())) {
                (Some(other), _) => format!("it goes with `gputype: {other}`"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => {
                    let listed = legal().collect::<Vec<_>>().join("`, `");
                    format!("known keys: `{listed}`")
                }
            };
            problems.push(Diagnostic::error(message).at(self.place(key)).hint(hint));
        }
    }

    /// Keys that exclude each other, and those of which one must be there.
    fn check_together(&self, path: &str, gpu_type: GpuType, problems: &mut Problems) {
        let mut exclude = |key: &str, others: &[&str]| {
            if self.get(key).is_none() {
                return;
            }
            for other in others.iter().filter(|other| self.get(other).is_some()) {
                let message =
                    format!("`{path}` has `{other}` beside `{key}`, which exclude each other");
                problems.push(Diagnostic::error(message).at(self.place(other)));
            }
        };
        exclude("pci", &["id", "productid", "vendorid"]);
        exclude("id", &["productid", "vendorid"]);
        match gpu_type {
            GpuType::Mdev if self.get("mdev").is_none() => {
                let message = format!("`{path}` is `gputype: mdev` and has no `mdev`");
                let hint = "name the profile, such as `nvidia-712` or `i915-GVTg_V5_4`; `incus info --resources` lists them";
                problems.push(Diagnostic::error(message).at(&self.origin).hint(hint));
            }
            GpuType::Mig => {
                exclude("mig.uuid", &["mig.gi", "mig.ci", PROFILE]);
                exclude(PROFILE, &["mig.gi", "mig.ci"]);
                let has = |key: &str| self.get(key).is_some();
                let both = has("mig.gi") && has("mig.ci");
                if !has("mig.uuid") && !both && !has(PROFILE) {
                    let message = format!("`{path}` is `gputype: mig` and names no MIG device");
                    let hint = "give `mig.profile` (such as `1g.10gb`), or `mig.uuid`, or both `mig.gi` and `mig.ci`";
                    problems.push(Diagnostic::error(message).at(&self.origin).hint(hint));
                }
                if has(INDEX) && !has(PROFILE) {
                    let message = format!("`{path}` has `{INDEX}` without `{PROFILE}`");
                    problems.push(Diagnostic::error(message).at(self.place(INDEX)));
                }
            }
            _ => {}
        }
    }

    /// The rules that depend on who gets it. `config` is what the instance has in the end,
    /// `owner` what messages call it.
    pub(super) fn check_for(
        &self,
        path: &str,
        owner: &str,
        kind: Kind,
        config: &Keys,
        problems: &mut Problems,
    ) {
        let Some(gpu_type) = self.gpu_type() else {
            return;
        };
        let mut wrong = |message: String, place: &Origin, hint: &str| {
            problems.push(Diagnostic::error(message).at(place).hint(hint));
        };
        let word = gpu_type.word();
        if !gpu_type.is_for(kind) {
            let hint = match gpu_type {
                GpuType::Mig => {
                    "a virtual machine takes `physical`, `mdev` or `sriov`; MIG devices are for containers"
                }
                _ => "a container takes `physical` or `mig`",
            };
            let message = format!("{owner} is {kind}, and `{path}` is `gputype: {word}`");
            wrong(message, self.place("gputype"), hint);
            return;
        }
        if kind == Kind::Vm {
            for key in ["uid", "gid", "mode"] {
                if self.get(key).is_some() {
                    let message = format!("{owner} is {kind}, and `{path}` has a key `{key}`");
                    let hint = "owner and mode of a device node are for containers";
                    wrong(message, self.place(key), hint);
                }
            }
            if is_on(config, "migration.stateful") {
                let message = format!("{owner} has `migration.stateful` and a GPU");
                let hint = "a virtual machine with a GPU cannot be moved while it runs: take `migration.stateful` away";
                wrong(message, &self.origin, hint);
            }
        }
        if gpu_type == GpuType::Mig && !is_on(config, "nvidia.runtime") {
            let message = format!("{owner} has a MIG device and not `nvidia.runtime`");
            let hint = "write `nvidia.runtime: \"true\"` under `config` of the profile or the instance; the container does not start without it";
            wrong(message, &self.origin, hint);
        }
    }
}

/// Whether a setting is on, in the words that the daemon takes for it.
pub(super) fn is_on(config: &Keys, key: &str) -> bool {
    config.get(key).is_some_and(|text| {
        matches!(
            &*text.value.to_ascii_lowercase(),
            "true" | "1" | "yes" | "on"
        )
    })
}

/// A text that stands at `origin`.
pub(super) fn written(text: &str, origin: &Origin) -> Located<String> {
    Located {
        value: text.to_owned(),
        origin: Some(origin.clone()),
    }
}

/// The settings of a mapping, each as a text.
pub(super) fn texts(path: &str, map: &Map, problems: &mut Problems) -> Keys {
    let mut keys = Keys::new();
    for (key, entry) in map {
        match text_of(&entry.node) {
            Some(text) => {
                keys.insert(key.clone(), written(&text, &entry.node.origin));
            }
            None => {
                let kind = entry.node.kind();
                let message =
                    format!("`{path}.{key}` must be a text, a number or a boolean, not {kind}");
                problems.push(Diagnostic::error(message).at(&entry.node.origin));
            }
        }
    }
    keys
}

/// A scalar as it was written: `0660` is no number here, nor is `0000:01:00.0`, which YAML 1.1
/// reads as 60.0.
fn text_of(node: &Node) -> Option<String> {
    let number = match &node.value {
        Value::Str(text) => return Some(text.clone()),
        Value::Bool(value) => return Some(value.to_string()),
        Value::Null => return Some(String::new()),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        _ => return None,
    };
    let raw = node.origin.source.text.get(node.origin.span.clone());
    let is_plain = |text: &&str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "+-._:".contains(c);
        !text.is_empty() && text.chars().all(legal)
    };
    Some(raw.filter(is_plain).map_or(number, str::to_owned))
}

/// What a key's value must be, if it is something else. The daemon's own rules.
fn wrong_value(key: &str, text: &str, program: Program) -> Option<&'static str> {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let (right, wanted) = match key {
        "vendorid" | "productid" => (
            text.len() == 4 && text.chars().all(hex),
            "four lower-case hexadecimal digits, such as `10de`",
        ),
        "pci" => (is_pci(text), "a PCI address such as `0000:17:00.0`"),
        "id" => match program {
            Program::Incus => (
                text.parse::<u32>().is_ok(),
                "the number of a DRM card, such as `0` for /dev/dri/card0",
            ),
            // Its `id` may be a name of the Container Device Interface, too.
            Program::Lxc => (
                text.parse::<u32>().is_ok() || text.contains('='),
                "the number of a DRM card, or a CDI name such as `nvidia.com/gpu=0`",
            ),
        },
        "uid" | "gid" => (text.parse::<u32>().is_ok(), "a number from 0"),
        "mode" => (
            (3..=4).contains(&text.len()) && text.chars().all(|c| ('0'..='7').contains(&c)),
            "three or four octal digits, such as `0660`",
        ),
        "mig.gi" | "mig.ci" => (text.parse::<u8>().is_ok(), "a number from 0 to 255"),
        INDEX => (text.parse::<u8>().is_ok(), "a number from 0 to 255"),
        "mig.uuid" => (
            is_uuid(text.strip_prefix("MIG-").unwrap_or(text)),
            "a UUID such as `MIG-4ba9e3dc-…`, with or without `MIG-`",
        ),
        PROFILE => (
            text.split_once("g.").is_some_and(|(slices, memory)| {
                slices
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b == b'c' || b == b'.')
                    && memory.starts_with(|c: char| c.is_ascii_digit())
                    && memory.contains("gb")
            }),
            "a MIG profile such as `1g.10gb`",
        ),
        _ => return None,
    };
    (!right).then_some(wanted)
}

fn is_pci(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let (domain, rest) = match parts.len() {
        2 => ("0000", &parts[..]),
        3 => (parts[0], &parts[1..]),
        _ => return false,
    };
    let Some((device, function)) = rest[1].split_once('.') else {
        return false;
    };
    hex(domain, 4) && hex(rest[0], 2) && hex(device, 2) && hex(function, 1)
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests;

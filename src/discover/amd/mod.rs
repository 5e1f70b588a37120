//! What `amd.sh` brings, joined to what is known of each card.
//!
//! The kernel comes first: sysfs and the compute driver's topology. A tool is believed where
//! the kernel shows nothing, and for what the SR-IOV host driver tells by its tool alone.

pub mod fault;
pub mod kfd;
pub mod rocm_smi;
pub mod smi;
pub mod text;

use std::collections::BTreeMap;

use crate::facts::{
    AmdDriver, AmdGpu, AmdPartition, AmdTool, AmdToolKind, Fact, GimState, PartitionMode,
    PciAddress,
};

use fault::AmdFault;
use kfd::Node;
use smi::{Listed, Parted};

/// What one call of a tool brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Answer {
    status: i32,
    text: String,
}

/// All that `amd.sh` brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Attributes of sysfs by card.
    attributes: BTreeMap<PciAddress, BTreeMap<String, String>>,
    /// Whether the compute driver shows its topology.
    has_topology: bool,
    nodes: Vec<Node>,
    tools: BTreeMap<String, Answer>,
    /// Why something may be missing.
    cut: Option<String>,
}

impl Answers {
    /// Reads the script's output. `cut` tells why it may not be whole.
    #[must_use]
    pub fn parse(text: &str, cut: Option<String>) -> Self {
        let mut answers = Self {
            cut,
            ..Self::default()
        };
        let mut card: Option<PciAddress> = None;
        let mut tool: Option<String> = None;
        let mut topology = Vec::new();
        for line in text.lines() {
            if let Some((name, status)) = heading(line) {
                let answer = Answer {
                    status,
                    text: String::new(),
                };
                answers.tools.insert(name.to_owned(), answer);
                tool = Some(name.to_owned());
            } else if let Some(name) = &tool {
                if let Some(answer) = answers.tools.get_mut(name) {
                    answer.text.push_str(line);
                    answer.text.push('\n');
                }
            } else if let Some(address) = line.strip_prefix("card ") {
                card = address.parse().ok();
                answers
                    .attributes
                    .extend(card.map(|card| (card, BTreeMap::new())));
            } else if line == "kfd" {
                answers.has_topology = true;
            } else if answers.has_topology {
                topology.push(line);
            } else if let (Some(card), Some((name, value))) = (card, line.split_once(' '))
                && let Some(values) = answers.attributes.get_mut(&card)
            {
                values.insert(name.to_owned(), value.trim().to_owned());
            }
        }
        answers.nodes = kfd::nodes(&topology);
        answers
    }

    /// What is known of a card of AMD's that is bound to `driver`.
    #[must_use]
    pub fn card(&self, pci: PciAddress, driver: &Fact<String>) -> Fact<AmdGpu> {
        let driver = match driver {
            Fact::Known(name) if name == "amdgpu" => AmdDriver::Amdgpu,
            Fact::Known(name) if name == "gim" => AmdDriver::Gim,
            Fact::Known(name) => {
                return Fact::Unknown(format!("it is bound to {name}, not to amdgpu or gim"));
            }
            Fact::Absent => return Fact::Unknown("no kernel driver is bound to it".to_owned()),
            Fact::Unknown(why) => return Fact::Unknown(why.clone()),
        };
        if let Some(why) = &self.cut {
            return Fact::Unknown(why.clone());
        }
        let nodes = kfd::of_card(&self.nodes, pci);
        let parted = self.parted(pci);
        let said = |mode: fn(&Parted) -> Option<String>| parted.iter().find_map(mode);
        Fact::Known(AmdGpu {
            driver,
            compute: self.mode(pci, "compute", said(|row| row.compute.clone())),
            memory: self.mode(pci, "memory", said(|row| row.memory.clone())),
            partitions: match driver {
                AmdDriver::Amdgpu => self.partitions(pci, &nodes),
                AmdDriver::Gim => Fact::Absent,
            },
            hive: self.hive(pci, &nodes),
            memory_mib: match self.attribute(pci, "mem_info_vram_total") {
                Some(bytes) => match bytes.parse::<u64>() {
                    Ok(bytes) => Fact::Known(bytes >> 20),
                    Err(_) => Fact::Unknown("mem_info_vram_total could not be read".to_owned()),
                },
                None => Fact::from_option(parted.iter().find_map(|row| row.memory_mib)),
            },
            gim: match driver {
                AmdDriver::Gim => self.gim(pci),
                AmdDriver::Amdgpu => Fact::Absent,
            },
            tool: self.tool(),
        })
    }

    fn attribute(&self, pci: PciAddress, name: &str) -> Option<&str> {
        Some(self.attributes.get(&pci)?.get(name)?.as_str())
    }

    /// A mode from sysfs, or else what a tool said.
    fn mode(&self, pci: PciAddress, kind: &str, tool: Option<String>) -> Fact<PartitionMode> {
        let name = format!("current_{kind}_partition");
        let available = match self.attribute(pci, &format!("available_{kind}_partition")) {
            None => Fact::Absent,
            Some("?") => Fact::Unknown(format!("available_{kind}_partition could not be read")),
            Some(list) => Fact::Known(text::list(list)),
        };
        match (self.attribute(pci, &name), tool) {
            (Some("?"), _) => Fact::Unknown(format!("{name} could not be read")),
            (Some(mode), _) => Fact::Known(PartitionMode {
                current: mode.to_owned(),
                available,
            }),
            (None, Some(current)) => Fact::Known(PartitionMode {
                current,
                available: self.offered(pci, kind),
            }),
            (None, None) => Fact::Absent,
        }
    }

    /// The modes that GIM's table offers.
    fn offered(&self, pci: PciAddress, kind: &str) -> Fact<Vec<String>> {
        let Some(modes) = self.gim_modes(pci) else {
            return Fact::Absent;
        };
        let mut words: Vec<String> = Vec::new();
        for mode in modes {
            let found = match kind {
                "compute" => vec![mode.compute],
                _ => mode.memory,
            };
            for word in found {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        Fact::Known(words)
    }

    fn hive(&self, pci: PciAddress, nodes: &[(u32, &Node)]) -> Fact<u64> {
        let of_nodes = nodes
            .iter()
            .map(|(_, node)| node.hive)
            .find(|hive| *hive > 0);
        let of_sysfs = self
            .attribute(pci, "xgmi_hive_id")
            .and_then(|id| id.parse().ok())
            .filter(|hive| *hive > 0);
        Fact::from_option(of_nodes.or(of_sysfs))
    }

    fn partitions(&self, pci: PciAddress, nodes: &[(u32, &Node)]) -> Fact<Vec<AmdPartition>> {
        if self.has_topology {
            return match nodes.is_empty() {
                true => Fact::Unknown("the compute driver does not list it".to_owned()),
                false => Fact::Known(kfd::partitions(nodes)),
            };
        }
        let rows = self.listed_partitions(pci);
        match rows.is_empty() {
            false => Fact::Known(rows),
            true => Fact::Unknown(self.why_no_tool()),
        }
    }

    fn listed_partitions(&self, pci: PciAddress) -> Vec<AmdPartition> {
        let whole = |bdf: PciAddress| PciAddress { function: 0, ..bdf } == pci || bdf == pci;
        let partition = |id, render_minor| AmdPartition {
            id,
            render_minor: Fact::from_option(render_minor),
            xcc: Fact::Absent,
        };
        let listed = self.listed();
        let listed = listed.iter().filter(|row| whole(row.bdf));
        let hardware = self
            .text("hardware")
            .map(rocm_smi::hardware)
            .unwrap_or_default();
        let hardware = hardware.iter().filter(|row| row.bdf == pci);
        listed
            .map(|row| partition(row.partition.unwrap_or(0), row.render_minor))
            .chain(hardware.map(|row| partition(row.partition, None)))
            .collect()
    }

    fn listed(&self) -> Vec<Listed> {
        self.text("list").map(smi::listed).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Option<&str> {
        Some(self.tools.get(name)?.text.as_str())
    }

    /// What tools say of the card's modes; rows of its partitions are among them.
    fn parted(&self, pci: PciAddress) -> Vec<Parted> {
        let listed = self.listed();
        let is_card = |bdf: PciAddress| bdf == pci || PciAddress { function: 0, ..bdf } == pci;
        let number_is_card = |gpu: u32| {
            let mut rows = listed.iter();
            rows.any(|row| row.gpu == gpu && is_card(row.bdf))
        };
        let mut found = Vec::new();
        for name in ["static", "current"] {
            let rows = self.text(name).map(smi::parted).unwrap_or_default();
            found.extend(rows.into_iter().filter(|row| match row.bdf {
                Some(bdf) => is_card(bdf),
                None => number_is_card(row.gpu),
            }));
        }
        let hardware = self
            .text("hardware")
            .map(rocm_smi::hardware)
            .unwrap_or_default();
        let modes = self.text("modes").unwrap_or_default();
        for row in hardware.iter().filter(|row| row.bdf == pci) {
            let value = |name: &str| {
                let values = rocm_smi::named(modes, name);
                values
                    .into_iter()
                    .find(|(gpu, _)| *gpu == row.gpu)
                    .map(|(_, value)| value)
            };
            found.push(Parted {
                gpu: row.gpu,
                bdf: Some(pci),
                compute: value("Compute Partition"),
                memory: value("Memory Partition"),
                ids: vec![row.partition],
                memory_mib: None,
            });
        }
        found
    }

    fn gim_card(&self, pci: PciAddress) -> Option<Listed> {
        self.listed().into_iter().find(|row| row.bdf == pci)
    }

    fn gim_modes(&self, pci: PciAddress) -> Option<Vec<crate::facts::GimMode>> {
        let card = self.gim_card(pci)?;
        let modes = smi::global(self.text("global")?);
        let of_card = modes.into_iter().filter(|(gpu, _)| *gpu == card.gpu);
        Some(of_card.map(|(_, mode)| mode).collect())
    }

    fn gim(&self, pci: PciAddress) -> Fact<GimState> {
        match self.tool() {
            Fact::Known(AmdTool {
                kind: AmdToolKind::GimAmdSmi,
                ..
            }) => {}
            Fact::Known(_) => {
                return Fact::Unknown(
                    "the amd-smi that is found is ROCm's, not the one that comes with gim"
                        .to_owned(),
                );
            }
            Fact::Absent => return Fact::Unknown("the amd-smi of gim is not installed".to_owned()),
            Fact::Unknown(why) => return Fact::Unknown(why),
        }
        let Some(card) = self.gim_card(pci) else {
            return Fact::Unknown(self.why("list", "amd-smi does not list it"));
        };
        let counts = self.text("static").map(smi::vf_counts).unwrap_or_default();
        let counts = counts.into_iter().find(|(gpu, ..)| *gpu == card.gpu);
        let count = |value: Option<u32>, name: &str| match value {
            Some(count) => Fact::Known(count),
            None => Fact::Unknown(self.why("static", &format!("amd-smi does not tell {name}"))),
        };
        Fact::Known(GimState {
            enabled: count(counts.and_then(|(_, enabled, _)| enabled), "NUM_VF_ENABLED"),
            supported: count(
                counts.and_then(|(.., supported)| supported),
                "NUM_VF_SUPPORTED",
            ),
            modes: Fact::from_option(self.gim_modes(pci).filter(|modes| !modes.is_empty())),
            index: Fact::Known(card.gpu),
            vfs: card.vfs,
        })
    }

    fn tool(&self) -> Fact<AmdTool> {
        if let Some(answer) = self.tools.get("version") {
            return match smi::version(&answer.text) {
                Some(tool) => Fact::Known(tool),
                None => Fact::Unknown(self.why("version", "`amd-smi version` cannot be read")),
            };
        }
        if self.tools.contains_key("hardware") {
            return Fact::Known(AmdTool {
                kind: AmdToolKind::RocmSmi,
                version: String::new(),
            });
        }
        match self.tools.contains_key("missing") {
            true => Fact::Absent,
            false => {
                Fact::Unknown("the kernel says what is needed, so no tool was asked".to_owned())
            }
        }
    }

    /// Why an answer does not have what was looked for.
    fn why(&self, name: &str, otherwise: &str) -> String {
        let Some(answer) = self.tools.get(name) else {
            return otherwise.to_owned();
        };
        if let Some(fault) = AmdFault::in_text(&answer.text) {
            return format!("amd-smi: {fault} ({})", fault.hint());
        }
        match answer.status {
            0 => otherwise.to_owned(),
            status => {
                let said: String = answer
                    .text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .chars()
                    .take(120)
                    .collect();
                format!("amd-smi ended with status {status}: {said}")
            }
        }
    }

    fn why_no_tool(&self) -> String {
        match self.tools.contains_key("missing") {
            true => "the kernel shows no compute topology, and neither amd-smi nor rocm-smi is installed".to_owned(),
            false => self.why("list", "the kernel shows no compute topology, and no tool lists the card"),
        }
    }
}

/// `== NAME STATUS`
fn heading(line: &str) -> Option<(&str, i32)> {
    let (name, status) = line.strip_prefix("== ")?.split_once(' ')?;
    let known = [
        "version", "list", "current", "global", "static", "hardware", "modes", "missing",
    ];
    Some((known.contains(&name).then_some(name)?, status.parse().ok()?))
}

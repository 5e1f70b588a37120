//! The answers that `nvidia.sh` brings, joined to what is known of each card.

use std::collections::BTreeMap;

use crate::facts::{
    ComputeInstance, Fact, GpuInstance, MigMode, MigProfile, MigState, MpsDaemon, NvidiaGpu,
    PciAddress, Vgpu,
};

use super::fault::NvidiaFault;
use super::list::{self, Listed, MigUuid};
use super::mig;
use super::mps;
use super::policy::{self, Card};
use super::query::{self, Row};
use super::vgpu::{self, Tree};

/// The names of the sections, as `nvidia.sh` prints them.
const SECTIONS: [&str; 13] = [
    "vgpu",
    "nocard",
    "missing",
    "query",
    "vgputypes",
    "long",
    "policy",
    "mps",
    "lgip",
    "lgipp",
    "lgi",
    "lci",
    "list",
];

/// What one section brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Answer {
    status: i32,
    text: String,
}

/// All that `nvidia.sh` brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    sections: BTreeMap<&'static str, Answer>,
    /// Why sections may be missing: the time or the output ran out.
    cut: Option<String>,
}

impl Answers {
    /// Reads the script's output. `cut` tells why it may not be whole.
    #[must_use]
    pub fn parse(text: &str, cut: Option<String>) -> Self {
        let mut sections: BTreeMap<&'static str, Answer> = BTreeMap::new();
        let mut current: Option<&'static str> = None;
        for line in text.lines() {
            if let Some((name, status)) = heading(line) {
                // A query that had to be repeated with fewer fields replaces the first.
                let answer = Answer {
                    status,
                    text: String::new(),
                };
                sections.insert(name, answer);
                current = Some(name);
            } else if let Some(answer) = current.and_then(|name| sections.get_mut(name)) {
                answer.text.push_str(line);
                answer.text.push('\n');
            }
        }
        Self { sections, cut }
    }

    /// Whether there is no `nvidia-smi` on the host.
    #[must_use]
    pub fn tool_missing(&self) -> bool {
        self.sections.contains_key("missing")
    }

    /// Whether there was no card to ask about.
    #[must_use]
    pub fn no_card(&self) -> bool {
        self.sections.contains_key("nocard")
    }

    /// The cards that `nvidia-smi` lists.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.sections
            .get("query")
            .map(|answer| query::rows(&answer.text))
            .unwrap_or_default()
    }

    /// Why a card is not among the rows, as far as the tool says.
    #[must_use]
    pub fn why_no_row(&self) -> String {
        if self.tool_missing() {
            return "nvidia-smi is not installed".to_owned();
        }
        match self.sections.get("query") {
            None => self.why_missing("query"),
            Some(answer) if answer.status == 0 && self.fault().is_none() => {
                "nvidia-smi does not list it".to_owned()
            }
            Some(answer) => explain(answer),
        }
    }

    /// The fault of the query, for its hint.
    #[must_use]
    pub fn fault(&self) -> Option<NvidiaFault> {
        let answer = self.sections.get("query")?;
        // A cell may read `[Not Supported]`; that is no refusal.
        if answer.status == 0 && !query::rows(&answer.text).is_empty() {
            return None;
        }
        NvidiaFault::in_text(&answer.text)
    }

    /// All that is known of the card in `row`.
    #[must_use]
    pub fn card(&self, row: &Row) -> NvidiaGpu {
        let is_this = |card: Card| match card {
            Card::Index(index) => index == row.index,
            Card::Pci(pci) => pci == row.pci,
        };
        let timeslice = match self.rows_of("policy", policy::parse) {
            Ok(found) => match found.into_iter().find(|(card, _)| is_this(*card)) {
                Some((_, word)) => Fact::Known(word),
                None => Fact::Unknown("nvidia-smi does not tell the time slice".to_owned()),
            },
            Err(why) => Fact::Unknown(why),
        };
        NvidiaGpu {
            index: row.index,
            uuid: row.uuid.clone(),
            name: row.name.clone(),
            memory_mib: row.memory_mib.clone(),
            compute_capability: row.compute_capability.clone(),
            persistence: row.persistence.clone(),
            compute_mode: row.compute_mode.clone(),
            timeslice,
            mps: self.mps(row),
            mig: row.mig.clone().map(|(current, pending)| MigState {
                current,
                pending,
                profiles: self.profiles(row.index, current),
                instances: match current {
                    MigMode::Enabled => self.instances(row),
                    MigMode::Disabled => Fact::Known(Vec::new()),
                },
            }),
        }
    }

    /// What sysfs shows of vGPUs, or why it was not seen.
    ///
    /// # Errors
    /// Why it was not looked for.
    pub fn vgpu_tree(&self) -> Result<Tree, String> {
        let answer = self.sections.get("vgpu");
        // It is the first section: whatever follows it shows that it is whole.
        match answer {
            Some(_) if self.sections.len() == 1 && self.cut.is_some() => {
                Err(self.why_missing("vgpu"))
            }
            Some(answer) => Ok(vgpu::tree(&answer.text)),
            None => Err(self.why_missing("vgpu")),
        }
    }

    /// What is known of vGPUs on the card at `pci` with these virtual functions.
    #[must_use]
    pub fn vgpu(
        &self,
        pci: PciAddress,
        functions: &[PciAddress],
        tree: &Result<Tree, String>,
    ) -> Fact<Vgpu> {
        let tree = match tree {
            Ok(tree) => tree,
            Err(why) => return Fact::Unknown(why.clone()),
        };
        let said = match self.sections.get("long") {
            Some(answer) => vgpu::virtualization(&answer.text),
            None => Vec::new(),
        };
        let listed = match self.sections.get("vgputypes") {
            None => Fact::Absent,
            Some(_) => match self.rows_of("vgputypes", vgpu::types) {
                Ok(cards) => {
                    let found = cards.into_iter().find(|(card, _)| *card == pci);
                    Fact::from_option(found.map(|(_, types)| types))
                }
                Err(why) => Fact::Unknown(why),
            },
        };
        let said = said.iter().find(|said| said.pci == pci);
        vgpu::card(pci, functions, tree, said, listed)
    }

    fn profiles(&self, index: u32, mode: MigMode) -> Fact<Vec<MigProfile>> {
        let rows = match self.rows_of("lgip", mig::gpu_instance_profiles) {
            Ok(rows) => rows,
            Err(why) => return Fact::Unknown(why),
        };
        let places = self.rows_of("lgipp", mig::placements);
        let profiles: Vec<MigProfile> = rows
            .into_iter()
            .filter(|row| row.gpu == index)
            .map(|row| MigProfile {
                placements: match &places {
                    Ok(places) => places
                        .iter()
                        .find(|line| line.gpu == index && line.profile_id == row.id)
                        .map_or_else(
                            || Fact::Unknown("nvidia-smi lists no places for it".to_owned()),
                            |line| Fact::Known(line.placements.clone()),
                        ),
                    Err(why) => Fact::Unknown(why.clone()),
                },
                id: row.id,
                name: row.name,
                free: row.free,
                total: row.total,
                memory_centi_gib: row.memory_centi_gib,
                sm: row.sm,
            })
            .collect();
        match (profiles.is_empty(), mode) {
            (true, MigMode::Disabled) => {
                Fact::Unknown("this driver lists profiles only with MIG mode on".to_owned())
            }
            (true, MigMode::Enabled) => {
                Fact::Unknown("nvidia-smi lists no profiles for it".to_owned())
            }
            (false, _) => Fact::Known(profiles),
        }
    }

    fn instances(&self, row: &Row) -> Fact<Vec<GpuInstance>> {
        let found = match self.rows_of("lgi", mig::gpu_instances) {
            Ok(found) => found,
            Err(why) => return Fact::Unknown(why),
        };
        let compute = self.compute_instances(row);
        let mut instances: Vec<GpuInstance> = found
            .into_iter()
            .filter(|found| found.gpu == row.index)
            .map(|found| GpuInstance {
                compute: compute.clone().map(|all| {
                    all.into_iter()
                        .filter(|(gi_id, _)| *gi_id == found.gi_id)
                        .map(|(_, instance)| instance)
                        .collect()
                }),
                gi_id: found.gi_id,
                profile_id: found.profile_id,
                profile: found.name,
                placement: found.placement,
            })
            .collect();
        instances.sort_by_key(|instance| instance.gi_id);
        Fact::Known(instances)
    }

    /// All compute instances of a card, each with its GPU instance, in rising order.
    fn compute_instances(&self, row: &Row) -> Fact<Vec<(u32, ComputeInstance)>> {
        let mut found = match self.rows_of("lci", mig::compute_instances) {
            Ok(found) => found,
            Err(why) => return Fact::Unknown(why),
        };
        found.retain(|instance| instance.gpu == row.index);
        found.sort_by_key(|instance| (instance.gi_id, instance.ci_id));
        let cards = self.rows_of("list", list::parse);
        let listed = cards
            .as_ref()
            .map(|cards| cards.iter().find(|card| card.uuid == row.uuid));
        let all = found.len();
        let instances = found
            .into_iter()
            .enumerate()
            .map(|(position, instance)| {
                let uuid = match &listed {
                    Ok(Some(card)) => uuid_of(card, position, all, &instance),
                    Ok(None) => Fact::Unknown("nvidia-smi -L does not list the card".to_owned()),
                    Err(why) => Fact::Unknown((*why).clone()),
                };
                let compute = ComputeInstance {
                    ci_id: instance.ci_id,
                    profile_id: instance.profile_id,
                    profile: instance.name,
                    uuid,
                };
                (instance.gi_id, compute)
            })
            .collect();
        Fact::Known(instances)
    }

    /// The MPS daemons of a card. The section is missing where there is none.
    fn mps(&self, row: &Row) -> Fact<Vec<MpsDaemon>> {
        match (self.sections.get("mps"), &self.cut) {
            (Some(answer), _) => mps::parse(&answer.text, &row.uuid.0),
            (None, None) => Fact::Known(Vec::new()),
            (None, Some(why)) => Fact::Unknown(why.clone()),
        }
    }

    /// The rows of a section. No rows are an answer only where the tool says so: with status 0,
    /// or by saying that there are none; anything else is the reason why nothing is known.
    fn rows_of<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Vec<T>,
    ) -> Result<Vec<T>, String> {
        let Some(answer) = self.sections.get(name) else {
            return Err(self.why_missing(name));
        };
        let rows = parse(&answer.text);
        let none = matches!(
            NvidiaFault::in_text(&answer.text),
            Some(NvidiaFault::NotFound | NvidiaFault::NoMigEnabled)
        );
        if !rows.is_empty() || none {
            return Ok(rows);
        }
        match NvidiaFault::in_text(&answer.text) {
            None if answer.status == 0 => Ok(rows),
            _ => Err(explain(answer)),
        }
    }

    fn why_missing(&self, name: &str) -> String {
        match &self.cut {
            Some(why) => why.clone(),
            None => format!("nvidia-smi was not asked for it ({name})"),
        }
    }
}

/// The UUID of the compute instance at `position` of `all` on its card. `-L` numbers MIG devices
/// in the order of GPU instance and compute instance; where the two lists do not agree in length
/// and names, nothing is guessed.
fn uuid_of(
    card: &Listed,
    position: usize,
    all: usize,
    row: &mig::ComputeInstanceRow,
) -> Fact<String> {
    let by_path = card.devices.iter().find(|device| {
        matches!(device.uuid, MigUuid::Path { gi_id, ci_id, .. }
            if (gi_id, ci_id) == (row.gi_id, row.ci_id))
    });
    let device = match by_path {
        Some(device) => Some(device),
        None if card.devices.len() == all => card.devices.get(position),
        None => None,
    };
    match device.filter(|device| device.profile == row.name) {
        Some(device) => Fact::Known(device.uuid.text().to_owned()),
        None => Fact::Unknown("nvidia-smi -L lists other MIG devices than -lci".to_owned()),
    }
}

fn heading(line: &str) -> Option<(&'static str, i32)> {
    let (name, status) = line.strip_prefix("== ")?.split_once(' ')?;
    let name = SECTIONS.into_iter().find(|known| *known == name)?;
    Some((name, status.parse().ok()?))
}

/// Why a call failed: the meaning of its message, or its first line.
fn explain(answer: &Answer) -> String {
    if let Some(fault) = NvidiaFault::in_text(&answer.text) {
        return format!("nvidia-smi: {fault}");
    }
    let first: String = answer
        .text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no output")
        .trim()
        .chars()
        .take(120)
        .collect();
    format!("nvidia-smi ended with status {}: {first}", answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "0, Enabled, Enabled, GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd, NVIDIA A30, \
                       00000000:0B:00.0, 0x20B710DE, 0x153210DE, 535.183.01, 24576, Disabled, Default, 8.0";

    fn card(text: &str, cut: Option<&str>) -> NvidiaGpu {
        let answers = Answers::parse(text, cut.map(str::to_owned));
        answers.card(&answers.rows()[0])
    }

    fn mig(card: &NvidiaGpu) -> &MigState {
        card.mig.known().expect("it has MIG")
    }

    #[test]
    fn what_was_cut_off_is_unknown_with_the_reason() {
        let text = format!("== query 0\n{ROW}\n== policy 0\n");
        let card = card(&text, Some("it took too long"));
        assert_eq!(mig(&card).instances.unknown(), Some("it took too long"));
        assert_eq!(mig(&card).profiles.unknown(), Some("it took too long"));
    }

    #[test]
    fn no_instances_are_told_from_an_unreadable_list() {
        let of = |lgi: &str| {
            let text = format!(
                "== query 0\n{ROW}\n== lgi {lgi}\n== lci 6\nNo compute instances found: Not Found\n"
            );
            mig(&card(&text, None)).instances.clone()
        };
        assert_eq!(
            of("6\nNo GPU instances found: Not Found"),
            Fact::Known(Vec::new())
        );
        assert_eq!(of("0"), Fact::Known(Vec::new()));
        let refused = "255\nFailed to display GPU instances: Insufficient Permissions\n\
                       No GPU instances found: Insufficient Permissions";
        assert!(of(refused).unknown().is_some());
        assert!(of("255\nsomething new").unknown().is_some());
    }

    #[test]
    fn uuids_are_not_guessed_where_the_lists_disagree() {
        let text = format!(
            "== query 0\n{ROW}\n== lgi 0\n|   0  MIG 1g.6gb          14        3          0:1     |\n\
             == lci 0\n|   0      3       MIG 1g.6gb           0         0          0:1     |\n\
             == list 0\nGPU 0: NVIDIA A30 (UUID: GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd)\n\
             \x20 MIG 1g.6gb      Device  0: (UUID: MIG-41b9eab5-8d48-5c52-9f07-82bc59af3901)\n"
        );
        let uuid = |text: &str| {
            let card = card(text, None);
            let instances = mig(&card).instances.known().expect("they are listed");
            let compute = instances[0].compute.known().expect("they are listed");
            compute[0].uuid.clone()
        };
        assert!(uuid(&text).known().is_some());
        let more = format!(
            "{text}  MIG 1g.6gb      Device  1: (UUID: MIG-55dcd9bd-e6b1-549a-bcb4-0b0496bfee9c)\n"
        );
        assert!(uuid(&more).unknown().is_some());
        let other = text.replace("MIG 1g.6gb      Device", "MIG 2g.12gb     Device");
        assert!(uuid(&other).unknown().is_some());
    }

    #[test]
    fn a_dead_card_does_not_hide_the_living_ones() {
        let text = format!(
            "== query 255\n{ROW}\nUnable to determine the device handle for GPU0000:06:00.0: GPU is lost.\n"
        );
        let answers = Answers::parse(&text, None);
        assert_eq!(answers.rows().len(), 1);
        assert_eq!(answers.fault(), Some(NvidiaFault::Lost));
        assert!(answers.why_no_row().contains("does not answer any more"));
    }

    #[test]
    fn no_devices_is_said_so_whatever_the_status() {
        for status in [0, 6] {
            let answers =
                Answers::parse(&format!("== query {status}\nNo devices were found\n"), None);
            assert_eq!(answers.why_no_row(), "nvidia-smi: no devices were found");
            assert_eq!(answers.fault(), Some(NvidiaFault::NoDevices));
        }
    }
}

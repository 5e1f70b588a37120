//! The answers that `nvidia.sh` brings, joined to what is known of each card.

use std::collections::BTreeMap;

use crate::facts::{ComputeInstance, Fact, GpuInstance, MigMode, MigProfile, MigState, NvidiaGpu};

use super::fault::NvidiaFault;
use super::list::{self, Listed, MigUuid};
use super::mig;
use super::policy::{self, Card};
use super::query::{self, Row};

/// The names of the sections, as `nvidia.sh` prints them.
const SECTIONS: [&str; 9] = [
    "nocard", "missing", "query", "policy", "lgip", "lgipp", "lgi", "lci", "list",
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
            Some(answer) if answer.status == 0 => "nvidia-smi does not list it".to_owned(),
            Some(answer) => explain(answer),
        }
    }

    /// The fault of the query, for its hint.
    #[must_use]
    pub fn fault(&self) -> Option<NvidiaFault> {
        let answer = self.sections.get("query")?;
        (answer.status != 0)
            .then(|| NvidiaFault::in_text(&answer.text))
            .flatten()
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

//! `strategy: partition`: compute and memory partitions of AMD's cards, through sysfs.
//!
//! A compute mode changes at once. A memory mode is asked for, belongs to a whole XGMI hive
//! and takes effect when the driver is loaded anew, which brings every card of the host to a
//! compute mode of the driver's choice: so it is one step for all cards, before the compute
//! modes. What can be set, the host says (`available_*`); the catalog serves earlier checks.

mod serve;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::catalog::{Model, PartitionModel, Technology};
use crate::desired::{Desired, Isolation, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{AmdDriver, AmdGpu, Fact, Gpu, PciAddress, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::power::When;
use super::tenants::{Served, Tenants};
use super::{Ask, Decision, KeptFile, Slices, Strategy, Target, around, usage};

pub(super) struct Partition;

/// Seconds that a change of a compute mode may take.
const COMPUTE_TIMEOUT_S: u32 = 120;
/// Seconds that a reload of the driver may take: AMD's own tool waits 140.
const MEMORY_TIMEOUT_S: u32 = 300;

impl Strategy for Partition {
    fn technology(&self) -> Technology {
        Technology::Partition
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Amd
    }

    fn check(&self, wanted: &Wanted, _: &Desired, models: &[&Model], problems: &mut Problems) {
        let partition = &wanted.partition;
        if partition.compute.is_none() && partition.memory.is_none() {
            let message =
                "`strategy: partition` says neither `partition.compute` nor `partition.memory`";
            let hint = "give a compute mode such as CPX, and a memory mode such as NPS4 if it is to change";
            let diagnostic = Diagnostic::error(message).hint(hint);
            problems.push(wanted.strategy.blame(diagnostic));
            return;
        }
        if let (Some(compute), Some(memory)) = (&partition.compute, &partition.memory)
            && let Some(most) = fewest(compute.value)
            && pieces(memory.value) > most
        {
            let message = format!(
                "{} and {} do not go together: a card has at most as many memory partitions as compute partitions",
                compute.value, memory.value
            );
            problems.push(memory.blame(Diagnostic::error(message)));
            return;
        }
        let known: Vec<(&Model, &PartitionModel)> = models
            .iter()
            .filter_map(|model| Some((*model, model.partitions.as_ref()?)))
            .collect();
        let kinds = [
            ("compute", partition.compute.as_ref()),
            ("memory", partition.memory.as_ref()),
        ];
        for (kind, value) in kinds {
            let Some(value) = value else { continue };
            let modes = |p: &PartitionModel| match kind {
                "compute" => p.compute.clone(),
                _ => p.memory.clone(),
            };
            // Of a model whose modes nobody published, only the host can tell.
            let able = |(_, p): &(&Model, &PartitionModel)| {
                modes(p).is_empty() || modes(p).iter().any(|mode| mode == value.value)
            };
            if known.is_empty() || known.iter().any(able) {
                continue;
            }
            let (first, partitions) = known[0];
            let message = match known.len() {
                1 => format!("{} has no {kind} mode {}", first.key, value.value),
                _ => format!("none of these cards has a {kind} mode {}", value.value),
            };
            let hint = format!("{} has {}", first.key, modes(partitions).join(", "));
            problems.push(value.blame(Diagnostic::error(message).hint(hint)));
        }
    }

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut wishes = Vec::new();
        for ask in asks {
            match wish(ask) {
                Ok(wish) => wishes.push((ask, wish)),
                Err(diagnostic) => problems.push(diagnostic),
            }
        }
        one_mode_a_hive(&wishes, &mut problems);
        let cards: Vec<(&Gpu, Wish)> = wishes
            .iter()
            .map(|(ask, wish)| (ask.gpu, wish.clone()))
            .collect();
        let targets = targets(&cards);
        let decisions = wishes.iter().zip(targets).map(|((ask, wish), target)| {
            let mut decision = ask.decision(Technology::Partition, target);
            decision.notes.extend(notes(ask, wish));
            decision
        });
        let decisions = decisions.collect();
        problems.or(decisions)
    }

    // Device nodes keep a tenant to its part; a reset takes the whole hive.
    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Software)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<Served, String> {
        serve::by_partitions(tenants)
    }

    fn found(&self, gpu: &Gpu) -> Vec<Slices> {
        let in_use = match usage::in_use(gpu) {
            Some(false) => Some(0),
            Some(true) | None => None,
        };
        let mode = gpu
            .amd
            .known()
            .filter(|amd| amd.driver == AmdDriver::Amdgpu);
        mode.and_then(|amd| counted(amd, amd.compute_mode()?, in_use))
            .into_iter()
            .collect()
    }

    // The memory mode is that of a hive, and what changes it is done for all its cards at once.
    fn unsliced(&self, asks: &[Ask<'_>]) -> Vec<Option<Arc<dyn Target>>> {
        let whole = unsliced(asks).into_iter();
        whole
            .map(|target| Some(Arc::new(target?) as Arc<dyn Target>))
            .collect()
    }

    fn library(&self) -> &'static str {
        include_str!("partition.sh")
    }

    fn steps_library(&self) -> &'static str {
        include_str!("partition_undo.sh")
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some(BOOT_FILE)
    }

    fn files(&self, _: &[Json]) -> Vec<KeptFile> {
        vec![kept_file()]
    }
}

/// The partitions of a card that stays as it is, as the boot file has them; null for a whole one.
pub(super) fn left_alone(gpu: &Gpu) -> Json {
    let modes = gpu
        .amd
        .known()
        .and_then(|amd| Some((amd.compute_mode()?, amd.memory_mode()?)));
    match modes {
        Some(("SPX", "NPS1")) | None => Json::Null,
        Some((compute, memory)) => json!({ "compute": compute, "memory": memory }),
    }
}

/// The boot file, which names partitioned cards and those of other technologies that stay so.
pub(super) fn kept_file() -> KeptFile {
    KeptFile::beside_the_script(BOOT_FILE, "partition_config.j2")
}

const BOOT_FILE: &str = "partition.conf";

/// How many memory partitions a memory mode makes.
fn pieces(memory: &str) -> u32 {
    memory
        .strip_prefix("NPS")
        .and_then(|count| count.parse().ok())
        .unwrap_or(1)
}

/// How many devices a compute mode makes, of those that make the same number on all cards.
fn fewest(compute: &str) -> Option<u32> {
    match compute {
        "SPX" => Some(1),
        "DPX" => Some(2),
        "TPX" => Some(3),
        "QPX" => Some(4),
        _ => None,
    }
}

/// How many devices a card has in a compute mode; CPX makes one of each die.
fn devices(amd: &AmdGpu, compute: &str) -> Option<u32> {
    fewest(compute).or_else(|| {
        let partitions = amd.partitions.known()?;
        let dies = partitions.iter().map(|partition| partition.xcc.known());
        dies.sum::<Option<u32>>().filter(|dies| *dies > 0)
    })
}

/// The partitions of a mode as slices; a whole card is none.
fn counted(amd: &AmdGpu, compute: &str, in_use: Option<u32>) -> Option<Slices> {
    let count = devices(amd, compute).filter(|count| *count > 1)?;
    Some(Slices {
        profile: compute.to_owned(),
        count,
        in_use,
    })
}

/// What one card is to be, in the host's words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    compute: String,
    memory: String,
}

fn wish(ask: &Ask<'_>) -> Result<Wish, Diagnostic> {
    let gpu = ask.gpu;
    let label = gpu.label();
    let wanted = &ask.wanted.partition;
    let refuse = |why: String, hint: &str| {
        let diagnostic = Diagnostic::error(format!("{label}: {why}"));
        Err(ask.wanted.strategy.blame(diagnostic.hint(hint)))
    };
    let amd = match &gpu.amd {
        Fact::Known(amd) => amd,
        Fact::Absent => {
            return refuse(
                "is no card of AMD's".to_owned(),
                "only AMD's cards have partitions",
            );
        }
        Fact::Unknown(why) => {
            return refuse(why.clone(), "partitions belong to the driver `amdgpu`");
        }
    };
    if amd.driver == AmdDriver::Gim {
        return refuse(
            "it is under `gim`, which hands it out as virtual functions".to_owned(),
            "partitions for this host and its containers need the driver `amdgpu`; `strategy: sriov` sets virtual functions",
        );
    }
    let (compute, memory) = match (&amd.compute, &amd.memory) {
        (Fact::Known(compute), Fact::Known(memory)) => (compute, memory),
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => {
            return refuse(why.clone(), "its partitions could not be read");
        }
        _ => {
            return refuse(
                "the driver shows no partition modes".to_owned(),
                "update `amdgpu` and the firmware; MI300 and later have them",
            );
        }
    };
    let target_memory = wanted
        .memory
        .as_ref()
        .map_or(memory.current.as_str(), |word| word.value);
    let target_compute = wanted
        .compute
        .as_ref()
        .map_or(compute.current.as_str(), |word| word.value);
    let offers = |available: &Fact<Vec<String>>, mode: &str| {
        available
            .known()
            .is_none_or(|modes| modes.iter().any(|known| known == mode))
    };
    let listed = |available: &Fact<Vec<String>>| {
        available
            .known()
            .map_or_else(String::new, |modes| modes.join(", "))
    };
    if let Some(word) = &wanted.memory
        && target_memory != memory.current
        && !offers(&memory.available, target_memory)
    {
        let message = format!("{label} does not offer memory mode {target_memory}");
        let hint = format!(
            "its driver and firmware offer {}",
            listed(&memory.available)
        );
        return Err(word.blame(Diagnostic::error(message).hint(hint)));
    }
    // What is offered with another memory mode is only seen once that is in force.
    if let Some(word) = &wanted.compute
        && target_memory == memory.current
        && target_compute != compute.current
        && !offers(&compute.available, target_compute)
    {
        let message = format!(
            "{label} does not offer compute mode {target_compute} with memory mode {}",
            memory.current
        );
        let hint = format!(
            "it offers {}; another memory mode may offer others",
            listed(&compute.available)
        );
        return Err(word.blame(Diagnostic::error(message).hint(hint)));
    }
    Ok(Wish {
        compute: target_compute.to_owned(),
        memory: target_memory.to_owned(),
    })
}

fn hive(gpu: &Gpu) -> Option<u64> {
    gpu.amd.known()?.hive.known().copied()
}

/// A finding for each card that is to be in another memory mode than its hive.
fn one_mode_a_hive(wishes: &[(&Ask<'_>, Wish)], problems: &mut Problems) {
    for (at, (ask, wish)) in wishes.iter().enumerate() {
        let same_hive = |(other, _): &&(&Ask<'_>, Wish)| {
            hive(ask.gpu).is_some() && hive(other.gpu) == hive(ask.gpu)
        };
        let Some((first, other)) = wishes[..at].iter().find(same_hive) else {
            continue;
        };
        if other.memory != wish.memory {
            let message = format!(
                "{} is to be {} and {} {}, and they are in one XGMI hive, whose cards change their memory mode together",
                first.gpu.label(),
                other.memory,
                ask.gpu.label(),
                wish.memory
            );
            let blamed = match &ask.wanted.partition.memory {
                Some(word) => word.blame(Diagnostic::error(message)),
                None => ask.wanted.strategy.blame(Diagnostic::error(message)),
            };
            problems.push(blamed.hint("give all of them the same `partition.memory`"));
        }
    }
}

fn notes(ask: &Ask<'_>, wish: &Wish) -> Vec<String> {
    let mut notes = vec![
        "a container is kept to its partitions by the device nodes it gets (/dev/kfd and its /dev/dri/renderD), not by ROCR_VISIBLE_DEVICES"
            .to_owned(),
    ];
    let pair = format!("{}/{}", wish.compute, wish.memory);
    let validated = ask.model.and_then(|model| model.partitions.as_ref());
    if let Some(model) = validated
        && !model.combinations.is_empty()
        && !model.combinations.contains(&pair)
    {
        notes.push(format!(
            "AMD names {pair} in none of its tables for this card; it names {}",
            model.combinations.join(", ")
        ));
    }
    let now = ask.gpu.amd.known().and_then(AmdGpu::memory_mode);
    if now.is_some_and(|now| now != wish.memory) {
        notes.push(
            "the memory mode changes for the whole hive, and the driver of all of AMD's cards of this host is loaded anew for it: all that uses one of them must have ended"
                .to_owned(),
        );
    }
    notes
}

/// Partitions of one card, and what it does for all cards of the host.
#[derive(Debug)]
pub(super) struct Parted {
    wish: Wish,
    /// All memory modes that change, at the card that comes first; it loads the driver anew.
    reload: Vec<(PciAddress, String)>,
    /// Whether any card of the host loads the driver anew before this one's turn.
    reloaded: bool,
    /// Render nodes that all cards need together.
    nodes: u32,
    /// Its devices, as slices.
    slices: Vec<Slices>,
}

/// Targets of all cards of a host that are partitioned in some way.
fn targets(cards: &[(&Gpu, Wish)]) -> Vec<Parted> {
    let amd = |gpu: &Gpu| gpu.amd.known().cloned();
    let differs: Vec<(PciAddress, String)> = cards
        .iter()
        .filter(|(gpu, wish)| {
            amd(gpu).is_some_and(|amd| amd.memory_mode() != Some(wish.memory.as_str()))
        })
        .map(|(gpu, wish)| (gpu.pci, wish.memory.clone()))
        .collect();
    let nodes = cards
        .iter()
        .filter_map(|(gpu, wish)| devices(gpu.amd.known()?, &wish.compute))
        .sum();
    cards
        .iter()
        .enumerate()
        .map(|(at, (gpu, wish))| Parted {
            slices: (gpu.amd.known())
                .and_then(|amd| counted(amd, &wish.compute, None))
                .into_iter()
                .collect(),
            wish: wish.clone(),
            reload: if at == 0 { differs.clone() } else { Vec::new() },
            reloaded: !differs.is_empty(),
            nodes,
        })
        .collect()
}

/// Whether the driver cuts the card up.
fn is_able(gpu: &Gpu) -> bool {
    gpu.amd.known().is_some_and(|amd| {
        amd.driver == AmdDriver::Amdgpu
            && amd.compute.known().is_some()
            && amd.memory.known().is_some()
    })
}

/// Targets without partitions, for the cards that can have some; in the order of `asks`.
fn unsliced(asks: &[Ask<'_>]) -> Vec<Option<Parted>> {
    let whole = Wish {
        compute: "SPX".to_owned(),
        memory: "NPS1".to_owned(),
    };
    let able = asks.iter().filter(|ask| is_able(ask.gpu));
    let cards: Vec<(&Gpu, Wish)> = able.map(|ask| (ask.gpu, whole.clone())).collect();
    let mut targets = targets(&cards).into_iter();
    let of = |ask: &Ask<'_>| is_able(ask.gpu).then(|| targets.next()).flatten();
    asks.iter().map(of).collect()
}

impl Target for Parted {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let Some(amd) = gpu.amd.known() else {
            return Ok(Vec::new());
        };
        let mut steps = Vec::new();
        // A boot leaves no partitions.
        let whole = self.wish.compute == "SPX" && self.wish.memory == "NPS1";
        let forgotten = when == When::AfterBoot && !whole;
        if !self.reload.is_empty() {
            steps.push(self.memory_step(gpu, amd));
        } else if forgotten && self.wish.memory != "NPS1" {
            let again = Self {
                wish: self.wish.clone(),
                reload: vec![(gpu.pci, self.wish.memory.clone())],
                reloaded: true,
                nodes: self.nodes,
                slices: Vec::new(),
            };
            steps.push(again.memory_step(gpu, amd));
        }
        let differs = amd.compute_mode() != Some(self.wish.compute.as_str());
        if differs || self.reloaded || forgotten {
            steps.push(self.compute_step(gpu, amd));
        }
        Ok(steps)
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        Some(self.slices.clone())
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        json!({
            "pci": gpu.pci.to_string(),
            "name": gpu.label(),
            "compute": self.wish.compute,
            "memory": self.wish.memory,
        })
    }
}

impl Parted {
    /// The step that changes memory modes and loads the driver anew.
    fn memory_step(&self, gpu: &Gpu, amd: &AmdGpu) -> Step {
        let saved = format!("snapshot/partition-memory-{}", gpu.pci);
        let listed: Vec<String> = self.reload.iter().map(|(pci, _)| pci.to_string()).collect();
        let cards = match &listed[..] {
            [one] => format!("GPU {one}"),
            _ => format!("{} GPUs ({})", listed.len(), listed.join(", ")),
        };
        let mut modes: Vec<&str> = self.reload.iter().map(|(_, mode)| mode.as_str()).collect();
        modes.sort_unstable();
        modes.dedup();
        let pairs = self
            .reload
            .iter()
            .flat_map(|(pci, mode)| [pci.to_string(), mode.clone()]);
        let set = Command::new("partition_memory").args(pairs);
        let idle = |pci: &String| Command::new("gpu_idle").arg(pci);
        let mut check = Script(listed.iter().map(idle).collect());
        let before = amd.memory_mode().unwrap_or("unknown").to_owned();
        let is = |pci: &PciAddress, mode: &str| {
            Command::new("partition_is")
                .arg(pci.to_string())
                .arg("-")
                .arg(mode)
        };
        check = check
            .then(is(&gpu.pci, if self.is_in(gpu) { &before } else { "-" }))
            .then(Command::new("partition_whole_hive").args(&listed));
        let verify = Script(
            self.reload
                .iter()
                .map(|(pci, mode)| is(pci, mode))
                .collect(),
        );
        let change = Change::Setting {
            subject: format!("memory of {cards}"),
            name: "memory partitions".to_owned(),
            before,
            after: modes.join(", "),
        };
        let id = StepId("partition:memory".to_owned() + &self.suffix(gpu));
        let title = format!(
            "set the memory mode of {cards} to {} and load amdgpu anew, which ends all use of AMD's cards on this host",
            modes.join(", ")
        );
        Step {
            class: Class::Disruptive,
            phase: Phase::Runtime,
            check,
            snapshot: Script::one(Command::new("partition_save").run_path(&saved)),
            apply: Script::one(set),
            verify,
            undo: Script::one(Command::new("partition_restore").run_path(&saved)),
            idle: Script(listed.iter().map(idle).collect()),
            followed_by: around::cdi_refresh(),
            timeout_s: MEMORY_TIMEOUT_S,
            ..Step::new(id, usage::TASK, title, change)
        }
    }

    fn is_in(&self, gpu: &Gpu) -> bool {
        self.reload.iter().any(|(pci, _)| *pci == gpu.pci)
    }

    /// One step of this kind serves all cards, but for those made again after a boot.
    fn suffix(&self, gpu: &Gpu) -> String {
        match &self.reload[..] {
            [(pci, _)] if *pci == gpu.pci => format!(":{pci}"),
            _ => String::new(),
        }
    }

    fn compute_step(&self, gpu: &Gpu, amd: &AmdGpu) -> Step {
        let pci = gpu.pci.to_string();
        let label = gpu.label();
        let (before, after) = (
            amd.compute_mode().unwrap_or("unknown"),
            self.wish.compute.as_str(),
        );
        let memory = amd.memory_mode().unwrap_or("-");
        let count = devices(amd, after).map_or_else(|| "-".to_owned(), |count| count.to_string());
        let saved = format!("snapshot/partition-{pci}");
        let is = |compute: &str, memory: &str| {
            Command::new("partition_is")
                .arg(&pci)
                .arg(compute)
                .arg(memory)
        };
        let check = Script::one(is(before, memory))
            .then(Command::new("partition_room").arg(self.nodes.to_string()))
            .then(usage::idle_check(gpu));
        let verify = Script::one(is(after, &self.wish.memory))
            .then(Command::new("partition_devices").arg(&pci).arg(&count));
        let title = match before == after {
            true => format!(
                "set the compute mode of {label} to {after} again, which a load of the driver forgets"
            ),
            false => format!("set the compute mode of {label} to {after}"),
        };
        let change = Change::Setting {
            subject: label,
            name: "compute partitions".to_owned(),
            before: spell(amd, before),
            after: spell(amd, after),
        };
        let back = Command::new("partition_restore_one")
            .arg(&pci)
            .run_path(&saved);
        // Where the memory mode is put back by its own step, that brings the rest.
        let back = back.arg(if self.reloaded {
            "with-memory"
        } else {
            "alone"
        });
        Step {
            class: Class::Disruptive,
            phase: Phase::Runtime,
            check,
            snapshot: Script::one(Command::new("partition_save").run_path(&saved)),
            apply: Script::one(Command::new("partition_compute").arg(&pci).arg(after)),
            verify,
            undo: Script::one(back),
            idle: Script::one(usage::idle_check(gpu)),
            followed_by: around::cdi_refresh(),
            timeout_s: COMPUTE_TIMEOUT_S,
            ..Step::new(
                StepId(format!("partition:{pci}:compute")),
                usage::TASK,
                title,
                change,
            )
        }
    }
}

/// `CPX (8 devices)`
fn spell(amd: &AmdGpu, compute: &str) -> String {
    match devices(amd, compute) {
        Some(1) => format!("{compute} (1 device)"),
        Some(count) => format!("{compute} ({count} devices)"),
        None => compute.to_owned(),
    }
}

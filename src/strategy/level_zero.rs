//! `strategy: level-zero`: masks that processes on Intel's cards are told by their environment,
//! and the number of compute engines that share a tile.
//!
//! Nothing of it isolates: a process that does not look at its environment sees the whole card,
//! and memory is shared by all. The masks become files for containers and units; the engines
//! are a setting of the kernel driver.

use serde_json::{Value as Json, json};

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, DiscoveryMethod, Hierarchy, LevelZeroWanted, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, IntelDriver, IntelGpu, IntelGt, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::power::When;
use super::{Ask, Decision, KeptFile, Strategy, Target, files, usage};

pub(super) struct LevelZero;

impl Strategy for LevelZero {
    fn technology(&self) -> Technology {
        Technology::LevelZero
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Intel
    }

    // Whatever can be wrong with masks was found when they were read.
    fn check(&self, _: &Wanted, _: &Desired, _: &[&Model], _: &mut Problems) {}

    fn decide(&self, asks: &[Ask<'_>], desired: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        if let Some((first, rest)) = asks.split_first() {
            check_same(first, rest, &mut problems);
            // Masks count all of Intel's cards; here are only those that are masked.
            let all = desired.slicing.gpus.is_empty()
                && desired.discovery.method == DiscoveryMethod::Auto;
            if all {
                check_masks(asks, &first.wanted.level_zero, &mut problems);
            }
        }
        let mut decisions = Vec::new();
        for ask in asks {
            let wanted = &ask.wanted.level_zero;
            if let Err(diagnostic) = check_engines(ask, wanted) {
                problems.push(diagnostic);
                continue;
            }
            let target = Hints {
                engines: wanted.ccs_mode.as_ref().map(|mode| mode.value),
                partitions: partitions(wanted),
            };
            let mut decision = ask.decision(Technology::LevelZero, target);
            decision.notes.push(
                "Level Zero's masks are hints: they isolate nothing, and a process that does not look at its environment sees the whole card"
                    .to_owned(),
            );
            if wanted.partitions.is_empty() && wanted.ccs_mode.is_none() {
                decision.notes.push(
                    "there are no `partitions` and no `ccs_mode`, so nothing is set".to_owned(),
                );
            }
            if wanted.partitions.iter().any(|partition| {
                partition
                    .ccs
                    .as_ref()
                    .is_some_and(|ccs| !ccs.value.contains(':'))
            }) {
                decision.notes.push(
                    "a `ccs` without device numbers has the process change `ccs_mode` of the whole card, which it must be allowed to write"
                        .to_owned(),
                );
            }
            decisions.push(decision);
        }
        problems.or(decisions)
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("level_zero.conf")
    }

    fn files(&self, cards: &[Json]) -> Vec<KeptFile> {
        let mut kept = vec![KeptFile::beside_the_script(
            "level_zero.conf",
            "level_zero_config.j2",
        )];
        let partitions = cards.first().and_then(|card| card["partitions"].as_array());
        for partition in partitions.into_iter().flatten() {
            let text = |key: &str| partition[key].as_str().unwrap_or_default();
            kept.push(KeptFile {
                template: "level_zero_env.j2",
                dest: text("file").to_owned(),
                mode: "0644",
                vars: partition.clone(),
            });
            for unit in partition["units"].as_array().into_iter().flatten() {
                kept.push(KeptFile {
                    template: "level_zero_unit.j2",
                    dest: format!(
                        "/etc/systemd/system/{}.d/50-deploy-level-zero.conf",
                        unit.as_str().unwrap_or_default()
                    ),
                    mode: "0644",
                    vars: partition.clone(),
                });
            }
        }
        kept
    }

    fn removal(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        Ok(removal(gpu, when).into_iter().collect())
    }

    fn library(&self) -> &'static str {
        include_str!("level_zero.sh")
    }
}

/// Masks count the devices of the whole host, so that there can be one set of them only.
fn check_same(first: &Ask<'_>, rest: &[Ask<'_>], problems: &mut Problems) {
    let wanted = &first.wanted.level_zero;
    let same = |other: &LevelZeroWanted| partitions(other) == partitions(wanted);
    if let Some(other) = rest.iter().find(|ask| !same(&ask.wanted.level_zero)) {
        let message = format!(
            "`partitions` differ for {} and {}",
            first.gpu.label(),
            other.gpu.label()
        );
        let diagnostic = Diagnostic::error(message)
            .hint("masks count the devices of the whole host; write them once, above `gpus`");
        problems.push(other.wanted.strategy.blame(diagnostic));
    }
}

/// How the devices of the masks are counted.
fn hierarchy(wanted: &LevelZeroWanted) -> Hierarchy {
    let dotted = wanted
        .partitions
        .iter()
        .any(|partition| partition.mask.value.contains('.'));
    match &wanted.hierarchy {
        Some(hierarchy) => hierarchy.value,
        None if dotted => Hierarchy::Composite,
        None => Hierarchy::Flat,
    }
}

/// The masks against all of the host's cards, in the order of their addresses; where the tiles
/// of one are not told, nothing can be said of what is beyond.
fn check_masks(asks: &[Ask<'_>], wanted: &LevelZeroWanted, problems: &mut Problems) {
    let tiles: Vec<Option<u32>> = asks
        .iter()
        .map(|ask| {
            ask.gpu
                .intel
                .known()
                .and_then(|intel| intel.tiles.known().copied())
        })
        .collect();
    let flat = hierarchy(wanted) != Hierarchy::Composite;
    let cards = u32::try_from(tiles.len()).unwrap_or(u32::MAX);
    let all: Option<u32> = tiles.iter().copied().sum();
    for partition in &wanted.partitions {
        for device in partition.mask.value.split(',') {
            let (number, tile) = match device.split_once('.') {
                Some((card, tile)) => (card, Some(tile)),
                None => (device, None),
            };
            let Ok(number) = number.parse::<u32>() else {
                continue;
            };
            let (most, what) = match (flat, all) {
                (true, Some(all)) => (all, "tiles"),
                (true, None) => continue,
                (false, _) => (cards, "cards"),
            };
            let tiles_of = usize::try_from(number).ok().and_then(|at| *tiles.get(at)?);
            let beyond = match (tile.and_then(|tile| tile.parse::<u32>().ok()), tiles_of) {
                _ if number >= most => Some(format!("this host has {most} {what}, counted from 0")),
                (Some(tile), Some(tiles)) if tile >= tiles => {
                    Some(format!("card {number} has {tiles} tiles, counted from 0"))
                }
                _ => None,
            };
            if let Some(hint) = beyond {
                let message = format!(
                    "the mask `{}` names `{device}`, which is not there",
                    partition.mask.value
                );
                let diagnostic = Diagnostic::error(message).hint(hint);
                problems.push(partition.mask.blame(diagnostic));
            }
        }
    }
}

/// Units whose compute slices can be shared by several engines.
fn sharing(intel: &IntelGpu) -> impl Iterator<Item = (&IntelGt, u32)> {
    let units = intel.gts.iter();
    units.filter_map(|gt| Some((gt, gt.num_cslices.known().copied().filter(|n| *n > 1)?)))
}

fn check_engines(ask: &Ask<'_>, wanted: &LevelZeroWanted) -> Result<(), Diagnostic> {
    let Some(mode) = &wanted.ccs_mode else {
        return Ok(());
    };
    let label = ask.gpu.label();
    let refuse =
        |message: String, hint: String| Err(mode.blame(Diagnostic::error(message).hint(hint)));
    let intel = match &ask.gpu.intel {
        Fact::Known(intel) => intel,
        Fact::Absent => {
            return refuse(
                format!("{label}: no driver of Intel's has it, so there is no `ccs_mode`"),
                "bind it to xe or i915".to_owned(),
            );
        }
        Fact::Unknown(why) => {
            return refuse(
                format!("{label}: {why}"),
                "`deploy discover` shows more".to_owned(),
            );
        }
    };
    // xe refuses as a physical function, whether there are virtual ones or not.
    let functions = ask.gpu.sriov.known().map_or(0, |sriov| sriov.total_vfs);
    if intel.driver == IntelDriver::Xe && functions > 0 {
        return refuse(
            format!(
                "{label}: `ccs_mode` cannot be changed while xe runs as an SR-IOV physical function"
            ),
            "use `strategy: sriov`, or load xe with `max_vfs=0`".to_owned(),
        );
    }
    let mut slices = None;
    for (_, count) in sharing(intel) {
        slices = Some(count);
        if mode.value > count || count % mode.value != 0 {
            let fits: Vec<String> = (1..=count)
                .filter(|number| count.is_multiple_of(*number))
                .map(|number| number.to_string())
                .collect();
            return refuse(
                format!(
                    "{label}: `ccs_mode` {} does not divide its {count} compute slices",
                    mode.value
                ),
                format!("it can be {}", fits.join(", ")),
            );
        }
    }
    if slices.is_none() && mode.value != 1 {
        return refuse(
            format!("{label} has no `ccs_mode`: there is one compute engine to each tile"),
            "remove `ccs_mode`".to_owned(),
        );
    }
    Ok(())
}

/// What the templates print of each partition.
fn partitions(wanted: &LevelZeroWanted) -> Vec<Json> {
    let hierarchy = hierarchy(wanted).to_string();
    let entry = |partition: &crate::desired::LevelZeroPartition| {
        let units: Vec<&str> = partition
            .units
            .iter()
            .map(|unit| unit.value.as_str())
            .collect();
        json!({
            "name": partition.name.value,
            "file": format!("{}/level_zero/{}.env", files::FOLDER, partition.name.value),
            "mask": partition.mask.value,
            "hierarchy": hierarchy,
            "ccs": partition.ccs.as_ref().map(|ccs| ccs.value.clone()).unwrap_or_default(),
            "units": units,
        })
    };
    wanted.partitions.iter().map(entry).collect()
}

#[derive(Debug)]
struct Hints {
    engines: Option<u32>,
    partitions: Vec<Json>,
}

impl Target for Hints {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let engines = self.engines;
        let step = engines.and_then(|engines| set_engines(gpu, engines, when));
        Ok(step.into_iter().collect())
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        json!({
            "pci": gpu.pci.to_string(),
            "ccs_mode": self.engines.unwrap_or(0),
            "partitions": self.partitions,
        })
    }
}

/// The step back to one engine a tile, where there are more. The driver takes it only while
/// there are no virtual functions; while there are some there is nothing to take back.
fn removal(gpu: &Gpu, when: When) -> Option<Step> {
    if gpu.sriov.known().is_some_and(|sriov| sriov.num_vfs > 0) {
        return None;
    }
    set_engines(gpu, 1, when)
}

fn set_engines(gpu: &Gpu, engines: u32, when: When) -> Option<Step> {
    let intel = gpu.intel.known()?;
    let now: Vec<(&IntelGt, u32)> = sharing(intel)
        .filter_map(|(gt, _)| Some((gt, *gt.ccs_mode.known()?)))
        .collect();
    if now.is_empty() {
        return None;
    }
    // A boot leaves one engine a tile.
    let forgotten = when == When::AfterBoot && engines != 1;
    if now.iter().all(|(_, mode)| *mode == engines) && !forgotten {
        return None;
    }
    let pci = gpu.pci.to_string();
    let call = |function: &str, modes: Vec<u32>| {
        let words = modes.iter().map(u32::to_string);
        Command::new(function).arg(&pci).args(words)
    };
    let wanted = || vec![engines; now.len()];
    let before = || now.iter().map(|(_, mode)| *mode).collect::<Vec<u32>>();
    let said = |modes: Vec<u32>| {
        let mut words: Vec<String> = modes.iter().map(u32::to_string).collect();
        words.dedup();
        words.join(", ")
    };
    let change = Change::Setting {
        subject: gpu.label(),
        name: "compute engines of a tile".to_owned(),
        before: said(before()),
        after: said(wanted()),
    };
    let many = match engines {
        1 => "one compute engine".to_owned(),
        _ => format!("{engines} compute engines"),
    };
    let title = format!("give each tile of {} {many}", gpu.label());
    Some(Step {
        // The driver resets the tile; it refuses while anybody has the card open.
        class: Class::Disruptive,
        phase: Phase::Runtime,
        check: Script::one(call("ccs_is", before())).then(usage::idle_check(gpu)),
        apply: Script::one(call("ccs_set", wanted())),
        verify: Script::one(call("ccs_is", wanted())),
        undo: Script::one(call("ccs_set", before())),
        idle: Script::one(usage::idle_check(gpu)),
        ..Step::new(StepId(format!("ccs:{pci}")), usage::TASK, title, change)
    })
}

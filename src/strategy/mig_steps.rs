//! From a card's MIG state to a wanted one, as steps: mode, then layout.
//!
//! Both directions live here: `Sliced` brings a layout about, `removal` takes all
//! of MIG away. What stays is never destroyed.

use serde_json::{Value as Json, json};

use crate::catalog::Technology;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, GpuInstance, Holder, MigMode, MigState, NvidiaGpu, Placement};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Slice, Step, StepId};

use super::around;
use super::geometry::compute_of;
use super::mig_mode::Mode;
use super::power::{When, keeps_mode};
use super::{Slices, Target, mps, usage};

/// One wanted GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    /// Profile id.
    pub(super) id: u32,
    /// Profile name, as the host lists it.
    pub(super) name: String,
    /// Where it lies.
    pub(super) placement: Placement,
    /// Compute slices of each of its compute instances; empty for one that takes all.
    pub(super) parts: Vec<u32>,
}

impl Instance {
    /// The word that the host's functions take; see the head of `mig.sh`.
    pub(super) fn word(&self) -> String {
        format!(
            "{}/{}",
            place_word(self.id, self.placement),
            self.parts().join(",")
        )
    }

    fn parts(&self) -> Vec<String> {
        match self.parts[..] {
            [] => vec!["full".to_owned()],
            [one] if compute_of(&self.name) == Some(one) => vec!["full".to_owned()],
            _ => self.parts.iter().map(|part| format!("{part}c")).collect(),
        }
    }

    /// The same word for all orders of its compute instances, as `word_of` gives it.
    fn sorted_word(&self) -> String {
        let mut parts = self.parts();
        parts.sort();
        format!(
            "{}/{}",
            place_word(self.id, self.placement),
            parts.join(",")
        )
    }

    fn slice(&self) -> Slice {
        let compute = self.parts().into_iter().map(|part| match part.as_str() {
            "full" => self.name.clone(),
            part => format!("{part}.{}", self.name),
        });
        Slice {
            placement: self.placement,
            profile: self.name.clone(),
            compute: compute.collect(),
        }
    }
}

fn place_word(id: u32, placement: Placement) -> String {
    format!("{id}:{}:{}", placement.start, placement.size)
}

/// The word of an instance that exists; none if its compute instances are not known.
fn word_of(instance: &GpuInstance) -> Option<String> {
    let mut parts: Vec<String> = match &instance.compute {
        Fact::Known(compute) => compute.iter().map(|ci| part_of(&ci.profile)).collect(),
        Fact::Absent => Vec::new(),
        Fact::Unknown(_) => return None,
    };
    parts.sort();
    let place = place_word(instance.profile_id, instance.placement);
    Some(format!("{place}/{}", parts.join(",")))
}

/// `1c` of `1c.3g.40gb`, `full` of `3g.40gb`.
fn part_of(profile: &str) -> String {
    match profile.split_once("c.") {
        Some((count, _)) if !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{count}c")
        }
        _ => "full".to_owned(),
    }
}

fn slice_of(instance: &GpuInstance) -> Slice {
    let compute = instance.compute.known().map_or(&[][..], Vec::as_slice);
    Slice {
        placement: instance.placement,
        profile: instance.profile.clone(),
        compute: compute.iter().map(|ci| ci.profile.clone()).collect(),
    }
}

/// A card in MIG mode with a layout.
#[derive(Debug)]
pub(super) struct Sliced {
    /// Units of the placement grid.
    pub(super) grid: u32,
    /// The instances, in the order in which they are created.
    pub(super) instances: Vec<Instance>,
    /// Whether the mode waits for a reset (Ampere).
    pub(super) waits_for_reset: bool,
    /// What MPS gives each client, if there is to be a daemon on each MIG device.
    pub(super) mps: Option<mps::Settings>,
}

impl Sliced {
    fn mode<'a>(&self, gpu: &'a Gpu) -> Result<Mode<'a>, Problems> {
        let (nvidia, mig) = state(gpu)?;
        Ok(Mode {
            gpu,
            nvidia,
            mig,
            wanted: MigMode::Enabled,
            keeps: self.waits_for_reset,
            may_reset: self.waits_for_reset,
        })
    }
}

impl Target for Sliced {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let (nvidia, mig) = state(gpu)?;
        let mut steps = Vec::new();
        let existing = existing(gpu, mig)?;
        steps.extend(self.mode(gpu)?.step(when)?);
        steps.extend(layout_step(
            gpu,
            nvidia,
            existing,
            self.grid,
            &self.instances,
            when,
        )?);
        // Daemons hold the instances that they serve.
        let (mut all, after) = mps::on_slices(gpu, self.mps, !steps.is_empty(), when)?;
        all.extend(steps);
        all.extend(after);
        Ok(all)
    }

    fn keeps(&self, technology: Technology) -> bool {
        technology == Technology::Mps
    }

    // A step that is about the card as a whole, such as a change of mode, has everybody in its
    // way; the layout only those whose instances go, and whoever has the card as a whole.
    fn in_the_way(&self, gpu: &Gpu, holder: &Holder, steps: &[Step]) -> bool {
        let whole = steps.iter().any(usage::needs_whole_card);
        if whole || holder.instances.is_empty() {
            return true;
        }
        let Ok((_, mig)) = state(gpu) else {
            return true;
        };
        let words: Vec<String> = self.instances.iter().map(Instance::sorted_word).collect();
        let instances = mig.instances.known().map_or(&[][..], Vec::as_slice);
        let stays =
            |instance: &GpuInstance| word_of(instance).is_some_and(|word| words.contains(&word));
        let goes = |gi: &u32| {
            let mut those = instances.iter();
            !those.any(|instance| instance.gi_id == *gi && stays(instance))
        };
        holder.instances.iter().any(goes)
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        self.mode(gpu).ok()?.waits_for_reboot()
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        Ok(self.mode(gpu)?.before_boot().into_iter().collect())
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        let each = self.instances.iter();
        Some(each.map(|instance| one(&instance.name, None)).collect())
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let Some(nvidia) = gpu.nvidia.known() else {
            return Json::Null;
        };
        json!({
            "uuid": nvidia.uuid.0,
            "pci": gpu.pci.to_string(),
            "name": nvidia.name,
            "mps": self.mps.map(mps::Settings::vars),
            "profiles": self.instances.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            "words": self.instances.iter().map(Instance::word).collect::<Vec<_>>(),
        })
    }
}

fn one(profile: &str, in_use: Option<u32>) -> Slices {
    Slices {
        profile: profile.to_owned(),
        count: 1,
        in_use,
    }
}

/// The GPU instances that a card has.
pub(super) fn found(gpu: &Gpu) -> Vec<Slices> {
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    let instances = mig.and_then(|mig| mig.instances.known());
    // Whoever has the card as a whole may use any instance, or none.
    let holders = gpu.holders.known();
    let told = holders.filter(|holders| {
        let mut users = holders.iter().filter(|holder| usage::is_user(holder));
        users.all(|holder| !holder.instances.is_empty())
    });
    let in_use =
        |instance: &GpuInstance| told.map(|_| u32::from(usage::uses_instance(gpu, instance.gi_id)));
    let each = instances.map_or(&[][..], Vec::as_slice).iter();
    each.map(|instance| one(&instance.profile, in_use(instance)))
        .collect()
}

/// The steps that take a card's instances and its MIG mode away; none where there is no MIG.
pub(super) fn removal(gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
    let Some(mode) = off(gpu)? else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    // With the mode that a reboot switches off the instances went before it.
    if when == When::Now || !mode.keeps {
        steps.extend(clear(&mode, when)?);
    }
    steps.extend(mode.step(when)?);
    Ok(steps)
}

/// Why only a reboot takes a card's MIG mode away, if that is so.
pub(super) fn removal_needs_boot(gpu: &Gpu) -> Option<String> {
    off(gpu).ok()??.waits_for_reboot()
}

/// What has to be done of that before a reboot.
pub(super) fn removal_before_boot(gpu: &Gpu) -> Result<Vec<Step>, Problems> {
    let Some(mode) = off(gpu)?.filter(|mode| mode.keeps) else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    steps.extend(clear(&mode, When::Now)?.map(|mut step| {
        // Not `mig:…`: it must stay before the reboot.
        step.id = StepId(format!("mig-pending:{}:layout", gpu.pci));
        step
    }));
    steps.extend(mode.before_boot());
    Ok(steps)
}

/// MIG mode as it is, and off as it is wanted; none where there is no MIG.
fn off(gpu: &Gpu) -> Result<Option<Mode<'_>>, Problems> {
    let Some(nvidia) = gpu.nvidia.known() else {
        return Ok(None);
    };
    let mig = match &nvidia.mig {
        Fact::Known(mig) => mig,
        Fact::Absent => return Ok(None),
        Fact::Unknown(reason) => return Err(unreadable(gpu, reason)),
    };
    Ok(Some(Mode {
        gpu,
        nvidia,
        mig,
        wanted: MigMode::Disabled,
        keeps: keeps_mode(gpu).unwrap_or(false),
        // Hopper and later have no pending mode, so that allowing a reset is harmless there.
        may_reset: true,
    }))
}

fn clear(mode: &Mode<'_>, when: When) -> Result<Option<Step>, Problems> {
    let existing = existing(mode.gpu, mode.mig)?;
    let end = |instance: &GpuInstance| {
        let place = instance.placement;
        place.start.saturating_add(place.size)
    };
    let grid = existing.iter().map(end).max().unwrap_or(1);
    layout_step(mode.gpu, mode.nvidia, existing, grid, &[], when)
}

fn state(gpu: &Gpu) -> Result<(&NvidiaGpu, &MigState), Problems> {
    let Some(nvidia) = gpu.nvidia.known() else {
        return Err(super::mig::unseen(gpu).into());
    };
    match &nvidia.mig {
        Fact::Known(mig) => Ok((nvidia, mig)),
        Fact::Absent => Err(Diagnostic::error(format!("{} has no MIG", gpu.label())).into()),
        Fact::Unknown(reason) => Err(unreadable(gpu, reason)),
    }
}

fn unreadable(gpu: &Gpu, reason: &str) -> Problems {
    let label = gpu.label();
    Diagnostic::error(format!("the MIG state of {label} cannot be read: {reason}")).into()
}

/// What exists; nothing while the mode is off.
fn existing<'a>(gpu: &Gpu, mig: &'a MigState) -> Result<&'a [GpuInstance], Problems> {
    match &mig.instances {
        Fact::Known(instances) => Ok(instances),
        Fact::Absent => Ok(&[]),
        Fact::Unknown(_) if mig.current == MigMode::Disabled => Ok(&[]),
        Fact::Unknown(reason) => Err(unreadable(gpu, reason)),
    }
}

fn layout_step(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    existing: &[GpuInstance],
    grid: u32,
    wanted: &[Instance],
    when: When,
) -> Result<Option<Step>, Problems> {
    let label = gpu.label();
    let mut before = Vec::new();
    for instance in existing {
        match word_of(instance) {
            Some(word) => before.push(word),
            None => {
                let reason = instance.compute.unknown().unwrap_or("no reason given");
                return Err(unreadable(gpu, reason));
            }
        }
    }
    let made: Vec<String> = wanted.iter().map(Instance::word).collect();
    let after: Vec<String> = wanted.iter().map(Instance::sorted_word).collect();
    let mut sorted = (before.clone(), after.clone());
    sorted.0.sort();
    sorted.1.sort();
    let is_so = sorted.0 == sorted.1;
    // No instance outlives a reboot; those that are wanted are made again after it.
    if is_so && (when == When::Now || wanted.is_empty()) {
        return Ok(None);
    }
    // What is not among the wanted goes, or has its compute instances made anew. A GPU
    // instance without compute instances serves nobody.
    let goes = |word: &&String| !after.contains(word);
    let disturbs = before.iter().filter(goes).any(|word| !word.ends_with('/'));
    let destroyed = before.iter().filter(goes).count();
    let created = after.iter().filter(|word| !before.contains(word)).count();
    let title = match (created, destroyed) {
        _ if is_so => format!(
            "make the {} of {label} again, which a reboot takes away",
            instances(wanted.len())
        ),
        (_, 0) => format!("create {} on {label}", instances(created)),
        (0, _) => format!("destroy {} on {label}", instances(destroyed)),
        _ => format!("replace {destroyed} by {} on {label}", instances(created)),
    };
    let uuid = &nvidia.uuid.0;
    let saved = format!("snapshot/mig-{}", gpu.pci);
    let with = |function: &str, words: &[String]| {
        Script::one(Command::new(function).arg(uuid).args(words))
    };
    let file = |function: &str| Script::one(Command::new(function).arg(uuid).run_path(&saved));
    let mut check = with("mig_is", &before);
    if disturbs {
        check = check.then(unused(gpu, uuid, before.iter().filter(goes)));
    }
    let new = after.iter().filter(|word| !before.contains(word));
    let id = StepId(format!("mig:{}:layout", gpu.pci));
    let change = Change::Layout {
        subject: label,
        grid,
        before: sorted_slices(existing.iter().map(slice_of)),
        after: sorted_slices(wanted.iter().map(Instance::slice)),
    };
    Ok(Some(Step {
        class: if disturbs {
            Class::Disruptive
        } else {
            Class::Safe
        },
        phase: Phase::Runtime,
        check,
        snapshot: file("mig_save"),
        apply: with("mig_ensure", &made),
        verify: with("mig_is", &after),
        undo: file("mig_restore"),
        idle: Script::one(unused(gpu, uuid, new)),
        followed_by: around::cdi_refresh(),
        timeout_s: 600,
        ..Step::new(id, usage::TASK, title, change)
    }))
}

/// The call that succeeds while nobody uses the instances at these places.
fn unused<'a>(gpu: &Gpu, uuid: &str, words: impl Iterator<Item = &'a String>) -> Command {
    let words: Vec<&str> = words.map(String::as_str).collect();
    Command::new("mig_idle")
        .arg(gpu.pci.to_string())
        .arg(uuid)
        .arg(words.join(" "))
}

fn instances(count: usize) -> String {
    match count {
        1 => "1 MIG instance".to_owned(),
        _ => format!("{count} MIG instances"),
    }
}

fn sorted_slices(slices: impl Iterator<Item = Slice>) -> Vec<Slice> {
    let mut slices: Vec<Slice> = slices.collect();
    slices.sort();
    slices
}

//! From a card's MIG state to a wanted one, as steps: mode, then layout.
//!
//! Both directions live here: `Sliced` brings a layout about, `removal` takes all
//! of MIG away. What stays is never destroyed.

use serde_json::{Value as Json, json};

use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, GpuInstance, MigMode, MigState, NvidiaGpu, Placement};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Slice, Step, StepId};

use super::geometry::compute_of;
use super::{Target, usage};

/// One wanted GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    /// Profile id.
    pub(super) id: u32,
    /// Profile name, as the host lists it.
    pub(super) name: String,
    /// Where it lies.
    pub(super) placement: Placement,
    /// Into how many equal compute instances it is split.
    pub(super) parts: u32,
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
        match (self.parts, compute_of(&self.name)) {
            (0 | 1, _) | (_, None) => vec!["full".to_owned()],
            (parts, Some(compute)) => {
                vec![format!("{}c", compute / parts); parts as usize]
            }
        }
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
}

impl Target for Sliced {
    fn steps(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        let (nvidia, mig) = state(gpu)?;
        let mut steps = Vec::new();
        let existing = existing(gpu, mig)?;
        steps.extend(mode_step(
            gpu,
            nvidia,
            mig,
            MigMode::Enabled,
            self.waits_for_reset,
        )?);
        steps.extend(layout_step(
            gpu,
            nvidia,
            existing,
            self.grid,
            &self.instances,
        )?);
        Ok(steps)
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let Some(nvidia) = gpu.nvidia.known() else {
            return Json::Null;
        };
        json!({
            "uuid": nvidia.uuid.0,
            "pci": gpu.pci.to_string(),
            "name": nvidia.name,
            "profiles": self.instances.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            "words": self.instances.iter().map(Instance::word).collect::<Vec<_>>(),
        })
    }
}

/// The steps that take a card's instances and its MIG mode away; none where there is no MIG.
pub(super) fn removal(gpu: &Gpu) -> Result<Vec<Step>, Problems> {
    let Some(nvidia) = gpu.nvidia.known() else {
        return Ok(Vec::new());
    };
    let mig = match &nvidia.mig {
        Fact::Known(mig) => mig,
        Fact::Absent => return Ok(Vec::new()),
        Fact::Unknown(reason) => return Err(unreadable(gpu, reason)),
    };
    let existing = existing(gpu, mig)?;
    let end = |instance: &GpuInstance| {
        let place = instance.placement;
        place.start.saturating_add(place.size)
    };
    let grid = existing.iter().map(end).max().unwrap_or(1);
    let mut steps = Vec::new();
    steps.extend(layout_step(gpu, nvidia, existing, grid, &[])?);
    // A mode that differs from the pending one can be told only by the hardware's kind; Hopper
    // and later have no pending mode, so that allowing a reset is harmless there.
    steps.extend(mode_step(gpu, nvidia, mig, MigMode::Disabled, true)?);
    Ok(steps)
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

fn mode_name(mode: MigMode) -> &'static str {
    match mode {
        MigMode::Enabled => "Enabled",
        MigMode::Disabled => "Disabled",
    }
}

fn mode_step(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    mig: &MigState,
    wanted: MigMode,
    waits_for_reset: bool,
) -> Result<Option<Step>, Problems> {
    if mig.current == wanted && mig.pending == wanted {
        return Ok(None);
    }
    let label = gpu.label();
    let can_reset = gpu.reset == Fact::Known(true);
    let is_pending = mig.pending == wanted;
    if is_pending && !can_reset {
        return Err(Diagnostic::error(format!(
            "{label}: MIG mode is {} and becomes {} at the next reset; it cannot be sliced before",
            mode_name(mig.current).to_lowercase(),
            mode_name(mig.pending).to_lowercase(),
        ))
        .hint("the kernel offers no reset of this card: reboot the host, then run again")
        .into());
    }
    let uuid = &nvidia.uuid.0;
    let may_reset = can_reset && (waits_for_reset || is_pending);
    let set = |mode: MigMode| {
        let number = if mode == MigMode::Enabled { "1" } else { "0" };
        let command = Command::new("mig_mode").arg(uuid).arg(number);
        Script::one(if may_reset {
            command.arg("reset")
        } else {
            command
        })
    };
    let is = |current: MigMode, pending: MigMode| {
        Command::new("mig_mode_is")
            .arg(uuid)
            .arg(mode_name(current))
            .arg(mode_name(pending))
    };
    let verb = if wanted == MigMode::Enabled {
        "enable"
    } else {
        "disable"
    };
    let title = match (mig.current == wanted, is_pending) {
        (true, _) => format!("keep MIG mode {verb}d on {label}, where a change is pending"),
        (false, true) => format!("reset {label}, where MIG mode waits to be {verb}d"),
        (false, false) if waits_for_reset && may_reset => {
            format!(
                "{verb} MIG mode on {label}, with a reset of the card if the driver needs it (nvidia-persistenced stops meanwhile)"
            )
        }
        (false, false) => format!("{verb} MIG mode on {label}"),
    };
    Ok(Some(Step {
        id: StepId(format!("mig:{}:mode", gpu.pci)),
        task: usage::TASK.to_owned(),
        title,
        class: Class::Disruptive,
        change: Change::MigMode {
            gpu: label,
            before: mig.current,
            after: wanted,
        },
        check: Script::one(is(mig.current, mig.pending)).then(usage::idle_check(gpu)),
        snapshot: Script::default(),
        apply: set(wanted),
        verify: Script::one(is(wanted, wanted)),
        undo: set(mig.current),
        idle: Script::one(usage::idle_check(gpu)),
        payload: Vec::new(),
        timeout_s: 300,
    }))
}

fn layout_step(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    existing: &[GpuInstance],
    grid: u32,
    wanted: &[Instance],
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
    let after: Vec<String> = wanted.iter().map(Instance::word).collect();
    let mut sorted = (before.clone(), after.clone());
    sorted.0.sort();
    sorted.1.sort();
    if sorted.0 == sorted.1 {
        return Ok(None);
    }
    // What is not among the wanted goes, or has its compute instances made anew. A GPU
    // instance without compute instances serves nobody.
    let goes = |word: &&String| !after.contains(word);
    let disturbs = before.iter().filter(goes).any(|word| !word.ends_with('/'));
    let destroyed = before.iter().filter(goes).count();
    let created = after.iter().filter(|word| !before.contains(word)).count();
    let title = match (created, destroyed) {
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
        check = check.then(usage::idle_check(gpu));
    }
    Ok(Some(Step {
        id: StepId(format!("mig:{}:layout", gpu.pci)),
        task: usage::TASK.to_owned(),
        title,
        class: if disturbs {
            Class::Disruptive
        } else {
            Class::Safe
        },
        change: Change::MigLayout {
            gpu: label,
            grid,
            before: sorted_slices(existing.iter().map(slice_of)),
            after: sorted_slices(wanted.iter().map(Instance::slice)),
        },
        check,
        snapshot: file("mig_save"),
        apply: with("mig_ensure", &after),
        verify: with("mig_is", &after),
        undo: file("mig_restore"),
        idle: Script::one(usage::idle_check(gpu)),
        payload: Vec::new(),
        timeout_s: 600,
    }))
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

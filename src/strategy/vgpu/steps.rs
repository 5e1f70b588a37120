//! From a card's vGPUs as they are to those that are wanted, as steps, and back to none.

use serde_json::{Value as Json, json};

use crate::catalog::Technology;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, VgpuHost};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::layout::{Placed, existing};
use crate::strategy::mig_steps::Sliced;
use crate::strategy::power::When;
use crate::strategy::{Target, mig, usage};

/// A card with vGPUs.
#[derive(Debug)]
pub(super) struct Devices {
    /// Each at its place.
    pub(super) placed: Vec<Placed>,
    /// Names of their types, for people.
    pub(super) names: Vec<String>,
    /// Heterogeneous mode; none where the driver has no such mode.
    pub(super) heterogeneous: Option<bool>,
    /// The GPU instances that they live in.
    pub(super) layout: Option<Sliced>,
}

/// What a card has before any step.
struct Before<'a> {
    gpu: &'a Gpu,
    host: &'a VgpuHost,
    placed: Vec<Placed>,
}

impl<'a> Before<'a> {
    fn of(gpu: &'a Gpu) -> Result<Option<Self>, Problems> {
        let Some(host) = gpu.vgpu.known().and_then(|vgpu| vgpu.host()) else {
            return Ok(None);
        };
        let Some(placed) = existing(gpu, host) else {
            let why = host.existing.unknown().unwrap_or("no reason given");
            let label = gpu.label();
            let message = format!("the vGPUs of {label} cannot be read: {why}");
            return Err(Diagnostic::error(message).into());
        };
        Ok(Some(Self { gpu, host, placed }))
    }

    /// `on`, `off`, or `-` for a card without virtual functions.
    fn functions(&self) -> &'static str {
        match &self.gpu.sriov {
            Fact::Known(sriov) if sriov.num_vfs > 0 => "on",
            Fact::Known(_) => "off",
            Fact::Absent | Fact::Unknown(_) => "-",
        }
    }

    fn mode(&self) -> Option<bool> {
        self.host.heterogeneous.known().copied()
    }

    fn call(&self, function: &str) -> Command {
        Command::new(function).arg(self.gpu.pci.to_string())
    }

    /// Succeeds while the card is as it was seen, and nobody uses what is to go.
    fn check(&self, gone: &[Placed]) -> Script {
        let is = self
            .call("vgpu_is")
            .arg(self.functions())
            .arg(mode_word(self.mode()))
            .args(words(&self.placed));
        let check = Script::one(is);
        match gone.is_empty() {
            true => check,
            false => check.then(self.call("vgpu_free").args(words(gone))),
        }
    }

    fn saved(&self, function: &str) -> Script {
        let file = format!("snapshot/vgpu-{}", self.gpu.pci);
        Script::one(self.call(function).run_path(&file))
    }

    fn names(&self, placed: &[Placed]) -> String {
        let types = self.host.types.known().map_or(&[][..], Vec::as_slice);
        let name = |id: u32| {
            let kind = types.iter().find(|kind| kind.id == id);
            kind.map_or_else(|| format!("type {id}"), |kind| kind.short().to_owned())
        };
        let mut counts: Vec<(String, u32)> = Vec::new();
        for vgpu in placed {
            let name = name(vgpu.type_id);
            match counts.iter_mut().find(|(other, _)| *other == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name, 1)),
            }
        }
        let terms: Vec<String> = counts
            .iter()
            .map(|(name, count)| crate::strategy::advice::times(*count, name))
            .collect();
        match terms.is_empty() {
            true => "none".to_owned(),
            false => terms.join(" + "),
        }
    }

    fn step(&self, id: &str, title: String, after: &[Placed], mode: Option<bool>) -> Step {
        let said = |placed: &[Placed], mode: Option<bool>| match mode {
            Some(true) => format!("{}, heterogeneous", self.names(placed)),
            _ => self.names(placed),
        };
        let change = Change::Setting {
            subject: self.gpu.label(),
            name: "vGPUs".to_owned(),
            before: said(&self.placed, self.mode()),
            after: said(after, mode),
        };
        let id = StepId(format!("vgpu:{}{id}", self.gpu.pci));
        Step {
            phase: Phase::Runtime,
            // Enabling virtual functions waits for the driver's lock.
            timeout_s: 300,
            ..Step::new(id, usage::TASK, title, change)
        }
    }
}

fn words(placed: &[Placed]) -> impl Iterator<Item = String> {
    placed.iter().map(Placed::word)
}

/// `1`, `0`, or `-` for no matter, as the shell functions take it.
fn mode_word(mode: Option<bool>) -> &'static str {
    match mode {
        Some(true) => "1",
        Some(false) => "0",
        None => "-",
    }
}

fn without(all: &[Placed], others: &[Placed]) -> Vec<Placed> {
    let is_other = |vgpu: &&Placed| !others.iter().any(|other| other.is(vgpu));
    all.iter().filter(is_other).cloned().collect()
}

fn vgpus(count: usize) -> String {
    match count {
        1 => "1 vGPU".to_owned(),
        _ => format!("{count} vGPUs"),
    }
}

impl Devices {
    fn instance_steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        match &self.layout {
            Some(layout) => layout.steps(gpu, when),
            None => mig::removal(gpu, when),
        }
    }
}

impl Target for Devices {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let Some(before) = Before::of(gpu)? else {
            return Ok(Vec::new());
        };
        let instances = self.instance_steps(gpu, when)?;
        let changes_mode = before.mode().is_some()
            && self.heterogeneous.is_some()
            && before.mode() != self.heterogeneous;
        // All have to go for another mode; those that are wanted too are made again.
        let gone = match changes_mode {
            true => before.placed.clone(),
            false => without(&before.placed, &self.placed),
        };
        let kept = without(&before.placed, &gone);
        let new = without(&self.placed, &kept);
        let is_so = gone.is_empty() && new.is_empty() && !changes_mode;
        if is_so && when == When::Now {
            return Ok(instances);
        }
        let label = gpu.label();
        let mut steps = Vec::new();
        // GPU instances can go only when nothing lives in them any more.
        let first_away = !instances.is_empty() && !gone.is_empty();
        if first_away {
            let title = format!("take {} off {label}", vgpus(gone.len()));
            steps.push(Step {
                class: Class::Disruptive,
                check: before.check(&gone),
                snapshot: before.saved("vgpu_save"),
                apply: Script::one(
                    before
                        .call("vgpu_set")
                        .arg(mode_word(before.mode()))
                        .args(words(&kept)),
                ),
                verify: Script::one(before.call("vgpu_lacks").args(words(&gone))),
                undo: before.saved("vgpu_restore"),
                ..before.step(":away", title, &kept, before.mode())
            });
        }
        steps.extend(instances);
        let title = match (new.len(), gone.len()) {
            _ if is_so => format!(
                "make the {} of {label} again, which a reboot takes away",
                vgpus(self.placed.len())
            ),
            (0, gone) => format!("take {} off {label}", vgpus(gone)),
            (new, 0) => format!("make {} on {label}", vgpus(new)),
            (new, gone) => format!("replace {gone} by {} on {label}", vgpus(new)),
        };
        let mode = mode_word(self.heterogeneous);
        let enables = before.functions() == "off";
        let mut check = before.check(&gone);
        if enables {
            // The driver lets go of the card for it.
            check = check.then(usage::idle_check(gpu));
        }
        let undo = match first_away {
            // The rest comes back after the GPU instances, by the step before them.
            true => Script::one(
                before
                    .call("vgpu_set")
                    .arg(mode_word(before.mode()))
                    .args(words(&kept)),
            ),
            false => before.saved("vgpu_restore"),
        };
        steps.push(Step {
            class: match enables || !gone.is_empty() {
                true => Class::Disruptive,
                false => Class::Safe,
            },
            check,
            snapshot: before.saved("vgpu_save"),
            apply: Script::one(before.call("vgpu_set").arg(mode).args(words(&self.placed))),
            verify: Script::one(
                before
                    .call("vgpu_is")
                    .arg("-")
                    .arg(mode)
                    .args(words(&self.placed)),
            ),
            undo,
            idle: Script::one(before.call("vgpu_free").args(words(&new))),
            ..before.step("", title, &self.placed, self.heterogeneous)
        });
        Ok(steps)
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        match &self.layout {
            Some(layout) => layout.needs_boot(gpu),
            None => mig::removal_needs_boot(gpu),
        }
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        match &self.layout {
            Some(layout) => layout.before_boot(gpu),
            None => mig::removal_before_boot(gpu),
        }
    }

    fn keeps(&self, technology: Technology) -> bool {
        // GPU instances go when no vGPU that has to go lives in them any more.
        let layout = self.layout.as_ref();
        technology == Technology::Mig || layout.is_some_and(|layout| layout.keeps(technology))
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        json!({
            "pci": gpu.pci.to_string(),
            "name": gpu.nvidia.known().map_or("", |nvidia| nvidia.name.as_str()),
            "profiles": self.names,
            "heterogeneous": mode_word(self.heterogeneous),
            "words": words(&self.placed).collect::<Vec<_>>(),
            "mig": self.layout.as_ref().map(|layout| layout.vars(gpu)),
        })
    }
}

/// The step that takes all vGPUs and their virtual functions away, where there are any.
pub(super) fn removal(gpu: &Gpu) -> Result<Option<Step>, Problems> {
    let Some(before) = Before::of(gpu)? else {
        return Ok(None);
    };
    if before.placed.is_empty() && before.functions() != "on" {
        return Ok(None);
    }
    let title = match before.placed.is_empty() {
        true => format!("take the virtual functions of {} away", gpu.label()),
        false => format!("take {} off {}", vgpus(before.placed.len()), gpu.label()),
    };
    let mut check = before.check(&before.placed);
    if before.functions() == "on" {
        check = check.then(usage::idle_check(gpu));
    }
    Ok(Some(Step {
        class: Class::Disruptive,
        check,
        snapshot: before.saved("vgpu_save"),
        apply: Script::one(before.call("vgpu_off")),
        verify: Script::one(match before.functions() {
            "-" => before.call("vgpu_is").arg("-").arg("-"),
            _ => before.call("vgpu_is").arg("off").arg("-"),
        }),
        undo: before.saved("vgpu_restore"),
        idle: Script::one(usage::idle_check(gpu)),
        ..before.step("", title, &[], None)
    }))
}

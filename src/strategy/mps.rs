//! `strategy: mps`: a control daemon of NVIDIA's Multi-Process Service on a card. The same on
//! each MIG device where `strategy: mig` comes with `mps: {enabled: true}`.
//!
//! A daemon has its own pipes below `/run/deploy/mps`, so that those of several devices do not
//! meet; clients are pointed at them by CUDA_MPS_PIPE_DIRECTORY. A whole card gets the compute
//! mode that NVIDIA documents for it; a card in MIG mode takes no other than the default.

mod serve;

use serde_json::{Value as Json, json};

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Isolation, MpsWanted, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, MpsDaemon, NvidiaGpu, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::power::When;
use super::tenants::{self, Tenants};
use super::{Ask, Decision, KeptFile, Strategy, Target, mig, time_slicing, usage};

pub(super) struct Mps;

/// Where the pipes lie, each in a folder of its device's UUID.
const PIPES: &str = "/run/deploy/mps";

/// The compute mode that lets nobody by the daemon.
const EXCLUSIVE: &str = "Exclusive_Process";

/// The compute mode of a card on which nothing was set.
const DEFAULT: &str = "Default";

/// Seconds in which daemons must be up.
const TIMEOUT_S: u32 = 120;

impl Strategy for Mps {
    fn technology(&self) -> Technology {
        Technology::Mps
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Nvidia
    }

    fn check(&self, _: &Wanted, _: &Desired, _: &[&Model], _: &mut Problems) {}

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        for ask in asks {
            let Some(nvidia) = ask.gpu.nvidia.known() else {
                problems.push(mig::unseen(ask.gpu));
                continue;
            };
            let memory = nvidia.memory_mib.known().copied();
            let settings = Settings::of(&ask.wanted.mps, memory);
            if let (Some(limit), Some(memory), Some(wanted)) = (
                &ask.wanted.mps.memory_limit_mib,
                memory,
                settings.memory_mib,
            ) && wanted > memory
            {
                let message = format!(
                    "{} has {memory} MiB, and `mps.memory_limit` is {wanted} MiB",
                    ask.gpu.label()
                );
                problems.push(limit.blame(Diagnostic::error(message)));
                continue;
            }
            let mut decision = ask.decision(Technology::Mps, Served { settings });
            decision.notes.extend(notes(&nvidia.uuid.0));
            decisions.push(decision);
        }
        problems.or(decisions)
    }

    // Its limits bound tenants, and keep none from another's faults.
    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Software)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<tenants::Served, String> {
        serve::by_limits(tenants)
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some(BOOT_FILE.0)
    }

    fn files(&self, _: &[Json]) -> Vec<KeptFile> {
        vec![kept_file()]
    }

    fn library(&self) -> &'static str {
        include_str!("mps.sh")
    }

    fn removal(&self, gpu: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        removal(gpu)
    }

    // A card whose mode is to change must have no clients, and a daemon is one.
    fn holds_cards(&self) -> bool {
        true
    }
}

const BOOT_FILE: (&str, &str) = ("mps.conf", "mps_config.j2");

/// The boot file, which names cards and cards with MIG devices.
pub(super) fn kept_file() -> KeptFile {
    KeptFile::beside_the_script(BOOT_FILE.0, BOOT_FILE.1)
}

/// What users should know of daemons on `device`.
pub(super) fn notes(device: &str) -> [String; 2] {
    [
        "MPS isolates no faults: a fatal error of one client ends the other clients of its device too; percentage and memory limit bound each client and reserve nothing"
            .to_owned(),
        format!("clients set CUDA_MPS_PIPE_DIRECTORY={PIPES}/{device}"),
    ]
}

/// What a daemon gives each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    percentage: u32,
    memory_mib: Option<u64>,
}

impl Settings {
    /// What is wanted; of `memory_mib`, the device's, each of `max_clients` gets its share where
    /// no limit is given.
    pub(super) fn of(wanted: &MpsWanted, memory_mib: Option<u64>) -> Self {
        let clients = wanted.max_clients.as_ref().map(|clients| clients.value);
        let percentage = wanted.active_thread_percentage.as_ref();
        let limit = wanted.memory_limit_mib.as_ref().map(|limit| limit.value);
        let share = || Some(memory_mib? / u64::from(clients?));
        Self {
            percentage: match (percentage, clients) {
                (Some(percentage), _) => percentage.value,
                (None, Some(clients)) => 100 / clients,
                (None, None) => 100,
            },
            memory_mib: limit.or_else(share),
        }
    }

    /// Percentage and MiB, 0 for no limit: the words of the host's functions.
    fn words(self) -> [String; 2] {
        let memory = self.memory_mib.unwrap_or(0);
        [self.percentage.to_string(), memory.to_string()]
    }

    /// A daemon with these settings, in one word.
    fn word(self, device: &str) -> String {
        let [percentage, memory] = self.words();
        format!("{device}:{percentage}:{memory}")
    }

    pub(super) fn vars(self) -> Json {
        json!({ "percentage": self.percentage, "memory_mib": self.memory_mib.unwrap_or(0) })
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} % of the threads", self.percentage)?;
        match self.memory_mib {
            Some(memory) => write!(f, " and {memory} MiB for each client"),
            None => f.write_str(" for each client"),
        }
    }
}

fn settings_of(daemon: &MpsDaemon) -> Settings {
    Settings {
        percentage: daemon.active_thread_percentage,
        memory_mib: daemon.memory_limit_mib,
    }
}

fn word_of(daemon: &MpsDaemon) -> String {
    settings_of(daemon).word(&daemon.device)
}

/// The daemons that run on a card.
///
/// # Errors
/// They could not be asked.
fn running<'a>(gpu: &Gpu, nvidia: &'a NvidiaGpu) -> Result<&'a [MpsDaemon], Problems> {
    match &nvidia.mps {
        Fact::Known(daemons) => Ok(daemons),
        Fact::Absent => Ok(&[]),
        Fact::Unknown(reason) => Err(Diagnostic::error(format!(
            "which MPS daemons run on {} cannot be told: {reason}",
            gpu.label()
        ))
        .into()),
    }
}

/// A whole card with a daemon.
#[derive(Debug)]
struct Served {
    settings: Settings,
}

impl Target for Served {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let nvidia = gpu.nvidia.known().ok_or_else(|| mig::unseen(gpu))?;
        let daemons = running(gpu, nvidia)?;
        let foreign = daemons.iter().any(|daemon| daemon.device != nvidia.uuid.0);
        let mut steps = Vec::new();
        let mut before = daemons;
        // Daemons on MIG devices keep those from being taken away.
        if foreign {
            steps.extend(stop(gpu, nvidia, daemons));
            before = &[];
        }
        steps.extend(mig::removal(gpu, when)?);
        steps.extend(time_slicing::removal(gpu, when));
        steps.extend(compute_mode(gpu, nvidia, EXCLUSIVE, when)?);
        let wanted = self.settings.word(&nvidia.uuid.0);
        let is_so = matches!(before, [one] if word_of(one) == wanted);
        if !is_so || when == When::AfterBoot {
            let after = self.settings.to_string();
            let make = |word: &str| {
                let call = Command::new(word).arg(&nvidia.uuid.0).arg(&wanted);
                Script::one(call)
            };
            let (apply, verify) = (make("mps_make"), make("mps_are"));
            steps.push(start(gpu, nvidia, (daemons, before), after, apply, verify));
        }
        Ok(steps)
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        mig::removal_needs_boot(gpu)
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        mig::removal_before_boot(gpu)
    }

    // MIG goes once the daemons on its devices have ended.
    fn keeps(&self, technology: Technology) -> bool {
        matches!(technology, Technology::Mig | Technology::TimeSlicing)
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let Some(nvidia) = gpu.nvidia.known() else {
            return Json::Null;
        };
        json!({
            "uuid": nvidia.uuid.0,
            "pci": gpu.pci.to_string(),
            "name": nvidia.name,
            "mps": self.settings.vars(),
        })
    }
}

/// The steps that take daemons off a card, and the compute mode that came with them.
pub(super) fn removal(gpu: &Gpu) -> Result<Vec<Step>, Problems> {
    let Some(nvidia) = gpu.nvidia.known() else {
        return Ok(Vec::new());
    };
    let daemons = running(gpu, nvidia)?;
    let mut steps: Vec<Step> = stop(gpu, nvidia, daemons).into_iter().collect();
    if daemons.iter().any(|daemon| daemon.device == nvidia.uuid.0) {
        steps.extend(compute_mode(gpu, nvidia, DEFAULT, When::Now)?);
    }
    Ok(steps)
}

/// Daemons on the MIG devices of a card, whose instances change or not: what comes before
/// that, and what after.
///
/// # Errors
/// Which daemons run could not be told.
pub(super) fn on_slices(
    gpu: &Gpu,
    wanted: Option<Settings>,
    slices_change: bool,
    when: When,
) -> Result<(Vec<Step>, Option<Step>), Problems> {
    let nvidia = gpu.nvidia.known().ok_or_else(|| mig::unseen(gpu))?;
    let daemons = running(gpu, nvidia)?;
    let on_card = daemons.iter().any(|daemon| daemon.device == nvidia.uuid.0);
    let clear = slices_change || on_card || wanted.is_none();
    let (first, before) = match clear {
        true => (removal(gpu)?, &[][..]),
        false => (Vec::new(), daemons),
    };
    let Some(wanted) = wanted else {
        return Ok((first, None));
    };
    let devices = mig_devices(nvidia);
    let is_so = devices.is_some_and(|devices| {
        let mut have: Vec<String> = before.iter().map(word_of).collect();
        let mut want: Vec<String> = devices.iter().map(|device| wanted.word(device)).collect();
        have.sort();
        want.sort();
        have == want
    });
    if is_so && when == When::Now && !slices_change {
        return Ok((first, None));
    }
    let call = |function: &str| {
        let call = Command::new(function).arg(&nvidia.uuid.0);
        Script::one(call.args(wanted.words()))
    };
    let after = format!("{wanted}, on each MIG device");
    let step = start(
        gpu,
        nvidia,
        (daemons, before),
        after,
        call("mps_fill"),
        call("mps_filled"),
    );
    Ok((first, Some(step)))
}

/// The UUIDs of a card's MIG devices; none if one of them is not known.
fn mig_devices(nvidia: &NvidiaGpu) -> Option<Vec<&str>> {
    let instances = nvidia.mig.known()?.instances.known()?;
    let mut devices = Vec::new();
    for instance in instances {
        for compute in instance.compute.known()? {
            devices.push(compute.uuid.known()?.as_str());
        }
    }
    Some(devices)
}

/// How daemons are called in plans.
fn spelled(daemons: &[MpsDaemon]) -> String {
    match daemons {
        [] => "off".to_owned(),
        [one] => settings_of(one).to_string(),
        [first, rest @ ..] => {
            let settings = settings_of(first);
            match rest.iter().all(|other| settings_of(other) == settings) {
                true => format!("{settings}, on {} MIG devices", daemons.len()),
                false => format!("different on {} MIG devices", daemons.len()),
            }
        }
    }
}

fn stop(gpu: &Gpu, nvidia: &NvidiaGpu, daemons: &[MpsDaemon]) -> Option<Step> {
    if daemons.is_empty() {
        return None;
    }
    let none = |function: &str| Script::one(Command::new(function).arg(&nvidia.uuid.0));
    let title = format!("end MPS on {}", gpu.label());
    let all = (daemons, daemons);
    let mut step = step(gpu, nvidia, "end", title, all, "off".to_owned());
    step.class = Class::Disruptive;
    step.apply = none("mps_make");
    step.verify = none("mps_are");
    Some(step)
}

/// The daemons that were seen, and those of them that are left when a step's turn comes.
type Before<'a> = (&'a [MpsDaemon], &'a [MpsDaemon]);

fn start(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    before: Before<'_>,
    after: String,
    apply: Script,
    verify: Script,
) -> Step {
    let title = match before.1 {
        [] => format!("start MPS on {}", gpu.label()),
        _ => format!("start MPS on {} anew, with other settings", gpu.label()),
    };
    let mut step = step(gpu, nvidia, "daemons", title, before, after);
    if !before.1.is_empty() {
        step.class = Class::Disruptive;
    }
    step.apply = apply;
    step.verify = verify;
    step
}

fn step(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    name: &str,
    title: String,
    (seen, before): Before<'_>,
    after: String,
) -> Step {
    let call = |function: &str, daemons: &[MpsDaemon]| {
        let words: Vec<String> = daemons.iter().map(word_of).collect();
        Command::new(function).arg(&nvidia.uuid.0).args(&words)
    };
    let change = Change::Setting {
        subject: gpu.label(),
        name: "MPS".to_owned(),
        before: spelled(before),
        after,
    };
    Step {
        phase: Phase::Runtime,
        check: Script::one(call("mps_are", seen)).then(usage::idle_check(gpu)),
        undo: Script::one(call("mps_back", before)),
        idle: Script::one(usage::idle_check(gpu)),
        timeout_s: TIMEOUT_S,
        ..Step::new(
            StepId(format!("mps:{}:{name}", gpu.pci)),
            usage::TASK,
            title,
            change,
        )
    }
}

/// The step to a compute mode. A boot brings the default back.
fn compute_mode(
    gpu: &Gpu,
    nvidia: &NvidiaGpu,
    wanted: &'static str,
    when: When,
) -> Result<Option<Step>, Problems> {
    let before = match &nvidia.compute_mode {
        Fact::Known(mode) => mode.as_str(),
        Fact::Absent => return Ok(None),
        Fact::Unknown(reason) => {
            let label = gpu.label();
            let message = format!("the compute mode of {label} cannot be read: {reason}");
            return Err(Diagnostic::error(message).into());
        }
    };
    if before == wanted && (when == When::Now || wanted == DEFAULT) {
        return Ok(None);
    }
    let call = |function: &str, mode: &str| {
        let call = Command::new(function).arg(&nvidia.uuid.0).arg(mode);
        Script::one(call)
    };
    let change = Change::Setting {
        subject: gpu.label(),
        name: "compute mode".to_owned(),
        before: before.to_owned(),
        after: wanted.to_owned(),
    };
    let title = format!("set the compute mode of {} to {wanted}", gpu.label());
    Ok(Some(Step {
        phase: Phase::Runtime,
        check: call("compute_mode_is", before).then(usage::idle_check(gpu)),
        apply: call("compute_mode_set", wanted),
        verify: call("compute_mode_is", wanted),
        undo: call("compute_mode_set", before),
        idle: Script::one(usage::idle_check(gpu)),
        ..Step::new(
            StepId(format!("mps:{}:compute-mode", gpu.pci)),
            usage::TASK,
            title,
            change,
        )
    }))
}

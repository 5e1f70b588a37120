//! `strategy: time-slicing`: several containers take turns on a whole card.
//!
//! On the host only the driver's time slice can be set, in four levels; how
//! many may share a card is a matter of the device plugin's configuration, which
//! a template renders. No memory is isolated.

use serde_json::{Value as Json, json};

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Isolation, SharePolicy, SliceDuration, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Gpu, NvidiaGpu, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Phase, Step, StepId};

use super::power::When;
use super::tenants::{Served, Tenants};
use super::{Ask, Decision, KeptFile, Strategy, Target, mig, usage};

pub(super) struct TimeSlicing;

/// The driver's levels, as `compute-policy -l` spells them and in the order of `--set-timeslice`.
const LEVELS: [&str; 4] = ["Default", "Short", "Medium", "Long"];

/// The level for a wanted duration. The vendor publishes no times for its levels, so the
/// thresholds are ours: up to 2 ms short, up to 20 ms medium, above it long.
fn level(duration: SliceDuration) -> &'static str {
    match duration {
        SliceDuration::Level(level) => LEVELS.get(usize::from(level)).copied().unwrap_or(LEVELS[0]),
        SliceDuration::Micros(..=2_000) => "Short",
        SliceDuration::Micros(..=20_000) => "Medium",
        SliceDuration::Micros(_) => "Long",
    }
}

impl Strategy for TimeSlicing {
    fn technology(&self) -> Technology {
        Technology::TimeSlicing
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Nvidia
    }

    fn check(&self, wanted: &Wanted, _: &Desired, _: &[&Model], problems: &mut Problems) {
        let policy = &wanted.time_slicing.share_policy;
        if policy.value == SharePolicy::Weighted {
            let diagnostic =
                Diagnostic::error("`share_policy: weighted` cannot be had by time-slicing")
                    .hint("the driver gives every process the same turns; use `equal`");
            problems.push(policy.blame(diagnostic));
        }
    }

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let replicas = |ask: &Ask<'_>| ask.wanted.time_slicing.max_instance_count.value;
        if let Some(first) = asks.first()
            && let Some(other) = asks.iter().find(|ask| replicas(ask) != replicas(first))
        {
            let count = &other.wanted.time_slicing.max_instance_count;
            problems.push(
                count.blame(
                    Diagnostic::error(format!(
                        "`max_instance_count` is {} for {} and {} for {}",
                        replicas(first),
                        first.gpu.label(),
                        replicas(other),
                        other.gpu.label()
                    ))
                    .hint("the device plugin has one number for all cards of a host"),
                ),
            );
        }
        let mut decisions = Vec::new();
        for ask in asks {
            let Some(nvidia) = ask.gpu.nvidia.known() else {
                problems.push(mig::unseen(ask.gpu));
                continue;
            };
            let wanted = &ask.wanted.time_slicing;
            let level = level(wanted.slice_duration.value);
            let mut decision = ask.decision(
                Technology::TimeSlicing,
                Shared {
                    level,
                    replicas: replicas(ask),
                },
            );
            decision.notes.push(
                "time-slicing isolates neither memory nor faults: one process can take all memory of the card, and its crash can end the others"
                    .to_owned(),
            );
            // Nobody asked for the default's number.
            if let (SliceDuration::Micros(micros), Some(_)) =
                (wanted.slice_duration.value, &wanted.slice_duration.origin)
            {
                decision.notes.push(format!(
                    "the driver knows no time slice of {}, only short, medium and long; {} is set",
                    spell(micros),
                    level.to_lowercase()
                ));
            }
            if nvidia.timeslice.known().is_none() && level != LEVELS[0] {
                decision.notes.push(
                    "the driver does not tell which time slice is set: it is set in every run, nothing can be read back, and an undo sets the default"
                        .to_owned(),
                );
            }
            decisions.push(decision);
        }
        problems.or(decisions)
    }

    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Software)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<Served, String> {
        super::tenants::by_turns(tenants)
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("time_slicing.conf")
    }

    fn files(&self, _: &[Json]) -> Vec<KeptFile> {
        vec![
            KeptFile::beside_the_script("time_slicing.conf", "time_slicing_policy.j2"),
            KeptFile::beside_the_script("time_slicing.yaml", "time_slicing_config.j2"),
        ]
    }

    fn library(&self) -> &'static str {
        include_str!("time_slicing.sh")
    }

    fn removal(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        Ok(removal(gpu, when).into_iter().collect())
    }
}

fn spell(micros: u64) -> String {
    if micros.is_multiple_of(1_000) {
        format!("{} ms", micros / 1_000)
    } else {
        format!("{micros} µs")
    }
}

#[derive(Debug)]
struct Shared {
    level: &'static str,
    replicas: u32,
}

impl Target for Shared {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let nvidia = gpu.nvidia.known();
        let step = nvidia.and_then(|nvidia| set(gpu, nvidia, self.level, when));
        Ok(step.into_iter().collect())
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        mig::removal_needs_boot(gpu)
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        mig::removal_before_boot(gpu)
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let Some(nvidia) = gpu.nvidia.known() else {
            return Json::Null;
        };
        json!({
            "uuid": nvidia.uuid.0,
            "pci": gpu.pci.to_string(),
            "name": nvidia.name,
            "level": self.level,
            "replicas": self.replicas,
        })
    }
}

/// The step back to the default time slice, where another is known to be set.
pub(super) fn removal(gpu: &Gpu, when: When) -> Option<Step> {
    let nvidia = gpu.nvidia.known()?;
    nvidia.timeslice.known()?;
    set(gpu, nvidia, LEVELS[0], when)
}

fn set(gpu: &Gpu, nvidia: &NvidiaGpu, level: &'static str, when: When) -> Option<Step> {
    let known = nvidia.timeslice.known();
    let now = known
        .and_then(|word| LEVELS.iter().find(|level| level.eq_ignore_ascii_case(word)))
        .copied();
    // A reboot brings the default back.
    let forgotten = when == When::AfterBoot && level != LEVELS[0];
    if (now == Some(level) && !forgotten) || (known.is_none() && level == LEVELS[0]) {
        return None;
    }
    let uuid = &nvidia.uuid.0;
    let call =
        |function: &str, level: &str| Script::one(Command::new(function).arg(uuid).arg(level));
    let before = now.unwrap_or(LEVELS[0]);
    let id = StepId(format!("timeslice:{}", gpu.pci));
    let title = format!(
        "set the time slice of {} to {}",
        gpu.label(),
        level.to_lowercase()
    );
    let change = Change::Setting {
        subject: gpu.label(),
        name: "time slice".to_owned(),
        before: known.map_or_else(|| "unknown".to_owned(), |word| word.to_lowercase()),
        after: level.to_lowercase(),
    };
    Some(Step {
        phase: Phase::Runtime,
        check: call("timeslice_is", before),
        apply: call("timeslice_set", level),
        verify: call("timeslice_is", level),
        undo: call("timeslice_set", before),
        timeout_s: 60,
        ..Step::new(id, usage::TASK, title, change)
    })
}

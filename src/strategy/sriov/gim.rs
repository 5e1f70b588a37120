//! Virtual functions under AMD's host driver `gim`.
//!
//! It does not answer `sriov_numvfs`: it makes its functions when it is loaded, as the module's
//! option `vf_num` says, and while it runs its own `amd-smi` changes their number. How many a
//! card can have goes with its compute and memory mode, which are set the same way.

use serde_json::{Value as Json, json};

use crate::catalog::Technology;
use crate::desired::SriovWanted;
use crate::error::{Diagnostic, Problems};
use crate::facts::{AmdDriver, AmdGpu, Fact, GimMode, GimState, Gpu};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::super::power::When;
use super::super::{Ask, Decision, KeptFile, Slices, Target, usage};
use super::{Backend, check_count};

pub(super) struct Gim;

/// The file with the module's options.
pub(super) const OPTIONS: &str = "/etc/modprobe.d/deploy-gim.conf";

/// Seconds that a change of modes and functions may take.
const TIMEOUT_S: u32 = 180;

/// Begin of the card's line in the boot file.
const BOOT_WORD: &str = "gim";

/// What the driver makes without being told.
const LEAST: u32 = 1;

fn state(gpu: &Gpu) -> Option<(&AmdGpu, &GimState)> {
    let amd = gpu.amd.known()?;
    Some((amd, amd.gim.known()?))
}

impl Backend for Gim {
    fn takes(&self, gpu: &Gpu) -> bool {
        gpu.amd
            .known()
            .is_some_and(|amd| amd.driver == AmdDriver::Gim)
    }

    fn can(&self, gpu: &Gpu) -> bool {
        let supported = state(gpu).and_then(|(_, gim)| gim.supported.known());
        supported.is_some_and(|count| *count > 0)
    }

    // Whoever starts a virtual machine binds them, and unbinds them again.
    fn binds(&self) -> bool {
        false
    }

    fn decide(&self, ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Decision, Diagnostic> {
        let target = functions(ask, wanted)?;
        let mut decision = ask.decision(Technology::Sriov, target);
        decision.notes.push(format!(
            "`gim` makes the functions: {OPTIONS} tells it how many when it is loaded, and its amd-smi sets them now and after a boot"
        ));
        Ok(decision)
    }

    fn removal(&self, gpu: &Gpu) -> Option<Step> {
        let (amd, gim) = state(gpu)?;
        let enabled = *gim.enabled.known()?;
        if enabled <= LEAST {
            return None;
        }
        let least = Functions {
            count: LEAST,
            mode: mode_for(gim, None, LEAST).map(|(index, mode)| Mode::of(index, mode, None)),
            named: Vec::new(),
        };
        Some(least.step(gpu, amd, enabled, When::Now))
    }
}

/// A compute mode with its number for `--accelerator-partition`, and the memory mode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mode {
    index: usize,
    compute: String,
    memory: String,
}

impl Mode {
    fn of(index: usize, mode: &GimMode, memory: Option<&str>) -> Self {
        let first = mode.memory.first().map_or("NPS1", String::as_str);
        Self {
            index,
            compute: mode.compute.clone(),
            memory: memory.unwrap_or(first).to_owned(),
        }
    }
}

/// The mode in which a card has so many functions: the one that the catalog names, or else the
/// coarsest that the driver's table allows.
fn mode_for<'g>(
    gim: &'g GimState,
    named: Option<&str>,
    count: u32,
) -> Option<(usize, &'g GimMode)> {
    let modes = gim.modes.known()?;
    let mut able = modes
        .iter()
        .enumerate()
        .filter(|(_, mode)| mode.vf_counts.contains(&count));
    let is_named = |mode: &GimMode| named.is_none_or(|name| mode.compute == name);
    able.clone()
        .find(|(_, mode)| is_named(mode))
        .or_else(|| able.next())
}

fn functions(ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Functions, Diagnostic> {
    let gpu = ask.gpu;
    let count = wanted.vf_count.value;
    let label = gpu.label();
    check_count(ask, wanted)?;
    let unknown = |why: &str| {
        let diagnostic = Diagnostic::error(format!("{label}: {why}"));
        let hint = "install the amd-smi that comes with gim, which tells and sets the functions";
        ask.wanted.strategy.blame(diagnostic.hint(hint))
    };
    let amd = gpu
        .amd
        .known()
        .ok_or_else(|| unknown("it is not under gim"))?;
    let gim = match &amd.gim {
        Fact::Known(gim) => gim,
        Fact::Unknown(why) => return Err(unknown(why)),
        Fact::Absent => return Err(unknown("gim tells nothing of it")),
    };
    for fact in [&gim.enabled, &gim.supported] {
        if let Some(why) = fact.unknown() {
            return Err(unknown(why));
        }
    }
    if let Some(most) = gim.supported.known()
        && count > *most
    {
        let message = format!("{label}: its firmware allows {most} virtual functions, not {count}");
        let hint =
            "more need a firmware bundle of AMD's that has them; see the release notes of gim";
        return Err(wanted.vf_count.blame(Diagnostic::error(message).hint(hint)));
    }
    // Such as CPX/NPS4.
    let pair = ask.model.and_then(|model| model.vf_modes.get(&count));
    let pair = pair.and_then(|pair| pair.split_once('/'));
    let mode = match &gim.modes {
        Fact::Known(modes) => {
            let found = mode_for(gim, pair.map(|(compute, _)| compute), count);
            let Some((index, mode)) = found else {
                let all: Vec<String> = modes
                    .iter()
                    .flat_map(|mode| {
                        mode.vf_counts
                            .iter()
                            .map(|n| format!("{n} ({})", mode.compute))
                    })
                    .collect();
                let message = format!("{label} has no {count} virtual functions in any mode");
                let hint = format!("it has {}", all.join(", "));
                return Err(wanted.vf_count.blame(Diagnostic::error(message).hint(hint)));
            };
            let memory = pair
                .map(|(_, memory)| memory)
                .filter(|memory| mode.memory.iter().any(|known| known == memory));
            Some(Mode::of(index, mode, memory))
        }
        // A card without modes has one form only.
        Fact::Absent | Fact::Unknown(_) => None,
    };
    let named = wanted
        .vf_devices
        .iter()
        .map(|device| device.value.to_string());
    Ok(Functions {
        count,
        mode,
        named: named.collect(),
    })
}

#[derive(Debug)]
struct Functions {
    count: u32,
    mode: Option<Mode>,
    named: Vec<String>,
}

impl Target for Functions {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let Some((amd, gim)) = state(gpu) else {
            return Ok(Vec::new());
        };
        let Some(enabled) = gim.enabled.known().copied() else {
            return Ok(Vec::new());
        };
        let in_mode = self.mode.as_ref().is_none_or(|mode| {
            amd.compute_mode() == Some(&mode.compute) && amd.memory_mode() == Some(&mode.memory)
        });
        let forgotten = when == When::AfterBoot && self.count != LEAST;
        if enabled == self.count && in_mode && !forgotten {
            return Ok(Vec::new());
        }
        Ok(vec![self.step(gpu, amd, enabled, when)])
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        Some(super::counted(self.count, None))
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let index = state(gpu).and_then(|(_, gim)| gim.index.known().copied());
        let (number, compute, memory) = self.words();
        json!({
            "word": BOOT_WORD,
            "pci": gpu.pci.to_string(),
            "vf_count": self.count,
            "drivers_autoprobe": "-",
            "more": [number, compute, memory],
            "index": index,
        })
    }
}

impl Functions {
    /// Number and name of the compute mode, and the memory mode; `-` for no matter.
    fn words(&self) -> (String, &str, &str) {
        match &self.mode {
            Some(mode) => (mode.index.to_string(), &mode.compute, &mode.memory),
            None => ("-".to_owned(), "-", "-"),
        }
    }

    fn step(&self, gpu: &Gpu, amd: &AmdGpu, enabled: u32, when: When) -> Step {
        let pci = gpu.pci.to_string();
        let (number, compute, memory) = self.words();
        let count = self.count;
        let modes = |compute: Option<&str>, memory: Option<&str>| {
            let words: Vec<&str> = [compute, memory]
                .into_iter()
                .flatten()
                .filter(|w| *w != "-")
                .collect();
            match &words[..] {
                [] => String::new(),
                words => format!(" in {}", words.join("/")),
            }
        };
        let (now_compute, now_memory) = (amd.compute_mode(), amd.memory_mode());
        let saved = format!("snapshot/gim-{pci}");
        let is = |count: u32, compute: &str, memory: &str| {
            Command::new("gim_is")
                .arg(&pci)
                .arg(count.to_string())
                .arg(compute)
                .arg(memory)
        };
        let unused = Command::new("sriov_unused").arg(&pci);
        let mut verify = Script::one(is(count, compute, memory));
        if !self.named.is_empty() {
            verify = verify.then(Command::new("sriov_has").arg(&pci).args(&self.named));
        }
        let after = modes(Some(compute), Some(memory));
        let before = modes(now_compute, now_memory);
        let title = match when == When::AfterBoot && enabled == count {
            true => format!(
                "give {} its {count} virtual functions{after} again, which a reboot takes away",
                gpu.label()
            ),
            false => format!("give {} {count} virtual functions{after}", gpu.label()),
        };
        let change = Change::Setting {
            subject: gpu.label(),
            name: "virtual functions".to_owned(),
            before: format!("{enabled}{before}"),
            after: format!("{count}{after}"),
        };
        let check = is(
            enabled,
            now_compute.unwrap_or("-"),
            now_memory.unwrap_or("-"),
        );
        Step {
            class: Class::Disruptive,
            phase: Phase::Runtime,
            check: Script::one(check).then(unused.clone()),
            snapshot: Script::one(Command::new("gim_save").arg(&pci).run_path(&saved)),
            apply: Script::one(
                Command::new("gim_set")
                    .arg(&pci)
                    .arg(count.to_string())
                    .arg(number)
                    .arg(compute)
                    .arg(memory),
            ),
            verify,
            undo: Script::one(Command::new("gim_restore").arg(&pci).run_path(&saved)),
            idle: Script::one(unused),
            timeout_s: TIMEOUT_S,
            ..Step::new(StepId(format!("sriov:{pci}")), usage::TASK, title, change)
        }
    }
}

/// The module's options, where a card of the host is under the driver.
pub(super) fn options(cards: &[Json]) -> Option<KeptFile> {
    let of_gim: Vec<&Json> = cards
        .iter()
        .filter(|card| card["word"] == BOOT_WORD)
        .collect();
    let index = |card: &&Json| {
        card["index"]
            .as_u64()
            .and_then(|index| usize::try_from(index).ok())
    };
    let last = of_gim.iter().filter_map(index).max()?;
    // The option is a list over all cards. One that is not managed gets what the driver makes
    // without being told.
    let mut counts = vec![u64::from(LEAST); last + 1];
    for card in &of_gim {
        if let (Some(index), Some(count)) = (index(card), card["vf_count"].as_u64()) {
            counts[index] = count;
        }
    }
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    Some(KeptFile {
        template: "gim_options.j2",
        dest: OPTIONS.to_owned(),
        mode: "0644",
        vars: json!({ "vf_num": counts.join(",") }),
    })
}

//! `strategy: passthrough`: the whole card goes to a virtual machine.
//!
//! It is bound to vfio-pci by its address, never by its PCI id, which other cards and its own
//! virtual functions may have as well. What can be handed over is a whole IOMMU group: the
//! card, its audio and USB functions, and nothing that the host works with. A boot takes the
//! binding away, so that the boot script makes it again. An IOMMU that is off is switched on
//! by the kernel's command line and a restart, with leave.

mod iommu;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, HostFacts, PciAddress, PciFunction, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::power::{HOW_TO_ALLOW, When};
use super::{Ask, Decision, KeptFile, Strategy, Target, around, mig, usage};

use iommu::{Iommu, iommu};

/// The driver that holds a device for a virtual machine.
const VFIO: &str = "vfio-pci";
/// Has the module loaded at boot before any unit wants it.
const MODULES_FILE: &str = "/etc/modules-load.d/deploy-passthrough.conf";
/// Seconds that the drivers of a group may take to let go and to take over.
const TIMEOUT_S: u32 = 120;

pub(super) struct Passthrough;

impl Strategy for Passthrough {
    fn technology(&self) -> Technology {
        Technology::Passthrough
    }

    fn is_for(&self, _: Vendor) -> bool {
        true
    }

    // Nothing is asked for but the card itself; the host tells its groups.
    fn check(&self, _: &Wanted, _: &Desired, _: &[&Model], _: &mut Problems) {}

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        let all: BTreeSet<PciAddress> = asks.iter().flat_map(own_functions).collect();
        for ask in asks {
            let functions = own_functions(ask);
            let mut others = BTreeSet::new();
            let found = problems.0.len();
            for member in functions
                .iter()
                .flat_map(|own| ask.host.passthrough.beside(*own))
            {
                if functions.contains(&member.pci) {
                    continue;
                }
                if all.contains(&member.pci) {
                    others.insert(member.pci);
                } else if stays(member) {
                    problems.push(ask.wanted.strategy.blame(must_stay(ask, member)));
                }
            }
            if problems.0.len() > found {
                continue;
            }
            let mut decision = ask.decision(
                Technology::Passthrough,
                HandedOver {
                    others: others.into_iter().collect(),
                    kernel: iommu::kernel_words(ask.host),
                    iommu: iommu(ask.host),
                    bindings: functions.iter().map(|pci| binding(*pci, ask)).collect(),
                    functions: functions.clone(),
                },
            );
            decision.notes.push(
                "the whole card goes to one virtual machine; the host and its containers no longer see it"
                    .to_owned(),
            );
            let along: Vec<String> = functions[1..]
                .iter()
                .filter_map(|pci| ask.host.passthrough.function(*pci))
                .map(|function| format!("{} ({})", function.pci, function.kind()))
                .collect();
            if !along.is_empty() {
                decision
                    .notes
                    .push(format!("goes with it: {}", along.join(", ")));
            }
            decisions.push(decision);
        }
        problems.or(decisions)
    }

    // What the host's kernel was told goes with the last card.
    fn unsliced(&self, asks: &[Ask<'_>]) -> Vec<Option<Arc<dyn Target>>> {
        let mut targets: Vec<Option<Arc<dyn Target>>> = vec![None; asks.len()];
        if let [first, ..] = asks
            && asks.len() == first.host.gpus.len()
            && let Some(back) = iommu::back(first.host)
        {
            targets[0] = Some(Arc::new(back));
        }
        targets
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("passthrough.conf")
    }

    fn files(&self, _: &[Json]) -> Vec<KeptFile> {
        vec![
            KeptFile::beside_the_script("passthrough.conf", "passthrough_config.j2"),
            KeptFile {
                template: "passthrough_modules.j2",
                dest: MODULES_FILE.to_owned(),
                mode: "0644",
                vars: Json::Null,
            },
        ]
    }

    fn own_paths(&self) -> &'static [&'static str] {
        &[MODULES_FILE]
    }

    fn library(&self) -> &'static str {
        include_str!("passthrough.sh")
    }

    fn steps_library(&self) -> &'static str {
        include_str!("steps.sh")
    }
}

/// The card, then its audio and USB functions.
fn own_functions(ask: &Ask<'_>) -> Vec<PciAddress> {
    let pci = ask.gpu.pci;
    let along = ask
        .host
        .passthrough
        .companions(pci)
        .map(|function| function.pci);
    std::iter::once(pci).chain(along).collect()
}

/// Whether the host works with a function. One without a driver, or with one that only keeps
/// others away, is as good as handed over; virtual functions of a card go before it does.
fn stays(function: &PciFunction) -> bool {
    let held = |driver: &String| ![VFIO, "pci-stub"].contains(&driver.as_str());
    let of_a_card = function.is_virtual && matches!(function.class >> 16, 0x03 | 0x12);
    function.driver.known().is_some_and(held) && !of_a_card
}

fn must_stay(ask: &Ask<'_>, member: &PciFunction) -> Diagnostic {
    let group = member.iommu_group.known().copied().unwrap_or_default();
    let message = format!(
        "{} shares IOMMU group {group} with {}, which must stay on the host",
        ask.gpu.label(),
        member.label()
    );
    let hint = match member.kind() {
        "GPU" => {
            "a group is handed over as a whole: give that GPU `strategy: passthrough` as well, or put one of them into another slot"
        }
        _ => {
            "a group is handed over as a whole: put the card into another slot, or switch on ACS in the firmware's setup if it has it"
        }
    };
    Diagnostic::error(message).hint(hint)
}

/// What a function is bound to, as the shell functions say it: driver, override; `-` is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    pci: PciAddress,
    driver: String,
    only: String,
}

impl Binding {
    fn is_handed_over(&self) -> bool {
        self.driver == VFIO && self.only == VFIO
    }

    fn check(&self) -> Command {
        Command::new("passthrough_was")
            .arg(self.pci.to_string())
            .args([&self.driver, &self.only])
    }
}

fn word(fact: &Fact<String>) -> String {
    fact.known().cloned().unwrap_or_else(|| "-".to_owned())
}

fn binding(pci: PciAddress, ask: &Ask<'_>) -> Binding {
    let (driver, only) = match ask.host.passthrough.function(pci) {
        Some(function) => (word(&function.driver), word(&function.driver_override)),
        None => (word(&ask.gpu.driver), "-".to_owned()),
    };
    Binding { pci, driver, only }
}

/// A card that is handed over.
#[derive(Debug)]
struct HandedOver {
    /// The card, then what goes with it.
    functions: Vec<PciAddress>,
    /// Others that are handed over as well and share a group with these.
    others: Vec<PciAddress>,
    /// What the functions are bound to.
    bindings: Vec<Binding>,
    iommu: Iommu,
    /// What the kernel's command line has for it, so that it can be taken back.
    kernel: Vec<String>,
}

impl HandedOver {
    /// The functions, then what may share a group with them.
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.functions.iter().map(ToString::to_string).collect();
        if !self.others.is_empty() {
            words.push("+".to_owned());
            words.extend(self.others.iter().map(ToString::to_string));
        }
        words
    }

    fn bind(&self, gpu: &Gpu, when: When) -> Option<Step> {
        let so = self.bindings.iter().all(Binding::is_handed_over);
        if so && when == When::Now {
            return None;
        }
        let label = gpu.label();
        let title = match so {
            true => format!("bind {label} to {VFIO} again, which a reboot takes away"),
            false => format!("hand {label} over to virtual machines ({VFIO})"),
        };
        let mut step = rebinding(gpu, title, &self.bindings, VFIO);
        step.apply = Script::one(Command::new("passthrough_bind").args(self.words()));
        step.verify = Script::one(Command::new("passthrough_is").args(self.words()));
        Some(step)
    }
}

/// Has a step read back only for as long as the card's own driver has it: what all steps have
/// done is read once more at the end of a run.
fn until_handed_over(gpu: &Gpu, step: &mut Step) {
    for call in &mut step.verify.0 {
        let mut words = Command::new("unless_handed_over").arg(gpu.pci.to_string());
        words.words.append(&mut call.words);
        call.words = words.words;
    }
}

/// A step that takes functions to another driver; what it does is its maker's.
fn rebinding(gpu: &Gpu, title: String, bindings: &[Binding], after: &str) -> Step {
    let pci = gpu.pci;
    let addresses = || bindings.iter().map(|binding| binding.pci.to_string());
    let kept = format!("snapshot/passthrough-{pci}");
    let driver = |binding: &Binding| match binding.driver.as_str() {
        "-" => format!("{} none", binding.pci),
        driver => format!("{} {driver}", binding.pci),
    };
    let change = Change::Setting {
        subject: gpu.label(),
        name: "kernel driver".to_owned(),
        before: bindings.iter().map(driver).collect::<Vec<_>>().join(", "),
        after: addresses()
            .map(|pci| format!("{pci} {after}"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut check = Script::one(usage::idle_check(gpu));
    check.0.extend(bindings.iter().map(Binding::check));
    Step {
        class: Class::Disruptive,
        phase: Phase::Runtime,
        check,
        snapshot: Script::one(
            Command::new("passthrough_save")
                .run_path(&kept)
                .args(addresses()),
        ),
        undo: Script::one(Command::new("passthrough_restore").run_path(&kept)),
        idle: Script::one(Command::new("passthrough_idle").args(addresses())),
        followed_by: match gpu.vendor {
            Vendor::Nvidia => around::cdi_refresh(),
            Vendor::Amd | Vendor::Intel => Script::default(),
        },
        timeout_s: TIMEOUT_S,
        ..Step::new(
            StepId(format!("passthrough:{pci}")),
            usage::TASK,
            title,
            change,
        )
    }
}

impl Target for HandedOver {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let refuse = |diagnostic: &Diagnostic| {
            let message = format!(
                "{} cannot be handed over: {}",
                gpu.label(),
                diagnostic.message
            );
            let hint = diagnostic.hint.clone().unwrap_or_default();
            Err(Diagnostic::error(message).hint(hint).into())
        };
        match (&self.iommu, when) {
            (Iommu::Off(why), _) => return refuse(why),
            (Iommu::AfterBoot(change), When::Now) => {
                let why = change.waits.clone().unwrap_or_default();
                let message = format!("the IOMMU is off; {why}");
                return refuse(&Diagnostic::error(message).hint(HOW_TO_ALLOW));
            }
            _ => {}
        }
        Ok(self.bind(gpu, when).into_iter().collect())
    }

    fn prepare_removal(&self, gpu: &Gpu, steps: &mut [Step]) {
        for step in steps {
            until_handed_over(gpu, step);
        }
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        match &self.iommu {
            Iommu::AfterBoot(change) => change
                .waits
                .as_ref()
                .map(|why| format!("the IOMMU is off; {why}")),
            Iommu::On | Iommu::Off(_) => mig::removal_needs_boot(gpu),
        }
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        let mut steps = mig::removal_before_boot(gpu)?;
        if let Iommu::AfterBoot(change) = &self.iommu {
            steps.extend(change.write.clone());
        }
        Ok(steps)
    }

    fn answers(&self, _: &Gpu) -> Command {
        Command::new("passthrough_is").args(self.words())
    }

    fn asks_driver(&self, _: &Gpu) -> bool {
        false
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        json!({
            "pci": gpu.pci.to_string(),
            "functions": self.functions,
            "others": self.others,
            "kernel": self.kernel,
        })
    }
}

/// What `passthrough.conf` says was handed over with the card: the card, what goes with it.
fn kept<'a>(gpu: &Gpu, host: &'a HostFacts) -> Option<&'a [PciAddress]> {
    let mut kept = host.passthrough.kept.iter();
    kept.find(|card| card.first() == Some(&gpu.pci))
        .map(Vec::as_slice)
}

/// A card that this tool has handed over and that is to come back: what it is bound to.
#[derive(Debug)]
pub(super) struct Return(Vec<Binding>);

/// What brings a card back that an earlier run handed over; what somebody else did is
/// left alone.
pub(super) fn return_of(gpu: &Gpu, host: &HostFacts) -> Option<Return> {
    let functions = kept(gpu, host)?.iter();
    let bound: Vec<Binding> = functions
        .filter_map(|pci| host.passthrough.function(*pci))
        .filter(|function| function.driver_override == Fact::Known(VFIO.to_owned()))
        .map(|function| Binding {
            pci: function.pci,
            driver: word(&function.driver),
            only: word(&function.driver_override),
        })
        .collect();
    (!bound.is_empty()).then_some(Return(bound))
}

impl Return {
    /// The step; none after a boot, which has done it already.
    pub(super) fn step(&self, gpu: &Gpu, when: When) -> Option<Step> {
        if when == When::AfterBoot {
            return None;
        }
        let title = format!("take {} back from virtual machines", gpu.label());
        let mut step = rebinding(gpu, title, &self.0, "its own driver");
        let words = || self.0.iter().map(|binding| binding.pci.to_string());
        step.apply = Script::one(Command::new("passthrough_release").args(words()));
        step.verify = Script::one(Command::new("passthrough_released").args(words()));
        Some(step)
    }
}

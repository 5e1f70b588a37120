//! Virtual functions of Intel's cards under xe and i915: `sriov_numvfs`, and the share that each
//! function gets.
//!
//! The drivers divide a card evenly by themselves, so that nothing but the number is written
//! where nothing else is asked for. What is asked for is written before the functions appear,
//! where the driver in question takes it: `sriov_admin`, `iov` or debugfs.

use serde_json::{Value as Json, json};

use crate::catalog::Technology;
use crate::desired::{Located, SriovWanted, VfShareWanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{
    Fact, Gpu, IntelDriver, IntelGpu, Provisioning, ProvisioningInterface, Sriov, VfShare,
};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::super::power::When;
use super::super::{Ask, Decision, Slices, Target, usage};
use super::{Backend, check_count};

pub(super) struct Intel;

/// Drivers give memory in whole pages; this is the largest of them, in bytes.
const PAGE: u64 = 2 << 20;

impl Backend for Intel {
    fn takes(&self, gpu: &Gpu) -> bool {
        gpu.intel.known().is_some()
    }

    fn can(&self, gpu: &Gpu) -> bool {
        gpu.sriov.known().is_some_and(|sriov| sriov.total_vfs > 0)
    }

    fn takes_shares(&self) -> bool {
        true
    }

    fn decide(&self, ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Decision, Diagnostic> {
        let target = functions(ask, wanted)?;
        let mut decision = ask.decision(Technology::Sriov, target);
        if wanted.share.given().is_empty() {
            decision
                .notes
                .push("the driver divides the card evenly among its virtual functions".to_owned());
        }
        if debugfs(ask.gpu) && !wanted.share.given().is_empty() {
            decision.notes.push(
                "this kernel takes shares by debugfs only, which is no stable interface; Linux 6.19 has `sriov_admin`"
                    .to_owned(),
            );
        }
        Ok(decision)
    }

    fn removal(&self, gpu: &Gpu) -> Option<Step> {
        let sriov = gpu.sriov.known()?;
        if !self.can(gpu) {
            return None;
        }
        let nothing = Functions {
            count: 0,
            autoprobe: None,
            named: Vec::new(),
            share: Share::default(),
        };
        // None outlives a reboot, so that nothing more is to be done after one.
        set(gpu, sriov, &nothing, When::Now)
    }
}

fn debugfs(gpu: &Gpu) -> bool {
    provisioning(gpu).is_some_and(|found| found.interface == ProvisioningInterface::Debugfs)
}

fn provisioning(gpu: &Gpu) -> Option<&Provisioning> {
    gpu.intel.known()?.provisioning.known()
}

fn functions(ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Functions, Diagnostic> {
    let gpu = ask.gpu;
    let refuse = |why: &str, hint: &str| {
        let message = format!("{}: {why}", gpu.label());
        let diagnostic = Diagnostic::error(message).hint(hint);
        Err(ask.wanted.strategy.blame(diagnostic))
    };
    let driver = gpu.intel.known().map(|intel: &IntelGpu| intel.driver);
    let sriov = match &gpu.sriov {
        Fact::Known(sriov) if sriov.total_vfs > 0 => sriov,
        Fact::Unknown(reason) => return refuse(reason, "the SR-IOV attributes could not be read"),
        Fact::Absent | Fact::Known(_) if driver == Some(IntelDriver::I915) => {
            return refuse(
                "the i915 of Linux itself makes no virtual functions",
                "Flex and Max cards need Intel's own i915, Arc Pro cards xe of Linux 6.17 or later",
            );
        }
        Fact::Absent => {
            return refuse(
                "the kernel shows no `sriov_totalvfs`",
                "check SR-IOV in the firmware's setup, and the kernel driver",
            );
        }
        Fact::Known(_) => {
            return refuse(
                "`sriov_totalvfs` is 0: its driver runs without virtual functions",
                "check that the GuC firmware is loaded (`dmesg`), that `max_vfs` of the driver is not 0, and SR-IOV in the firmware's setup",
            );
        }
    };
    let count = wanted.vf_count.value;
    if count > sriov.total_vfs {
        let message = format!(
            "{} allows {} virtual functions, not {count}",
            gpu.label(),
            sriov.total_vfs
        );
        return Err(wanted.vf_count.blame(Diagnostic::error(message)));
    }
    check_count(ask, wanted)?;
    check_share(ask, &wanted.share)?;
    let named = wanted.vf_devices.iter();
    let value = |number: &Option<Located<u32>>| number.as_ref().map(|number| number.value);
    Ok(Functions {
        count,
        autoprobe: super::autoprobe(wanted),
        named: named.map(|device| device.value.to_string()).collect(),
        share: Share {
            memory_mib: value(&wanted.share.vram_quota_mib),
            quantum_ms: value(&wanted.share.exec_quantum_ms),
            timeout_us: value(&wanted.share.preempt_timeout_us),
            priority: wanted
                .share
                .sched_priority
                .as_ref()
                .map(|p| p.value.to_string()),
        },
    })
}

/// A finding if the card's driver does not take what is asked for.
fn check_share(ask: &Ask<'_>, share: &VfShareWanted) -> Result<(), Diagnostic> {
    let given = share.given();
    let Some((first, at)) = given.first() else {
        return Ok(());
    };
    let label = ask.gpu.label();
    let Some(found) = provisioning(ask.gpu) else {
        let message = format!("{label}: this kernel takes no `{first}` for virtual functions");
        let hint = "xe takes shares in `sriov_admin` since Linux 6.19, and by debugfs before, where that is mounted";
        return Err(at.blame(Diagnostic::error(message).hint(hint)));
    };
    for (key, at) in &given {
        let file = key.trim_end_matches("_mib");
        if found.takes.iter().any(|taken| taken == file) {
            continue;
        }
        let message = format!(
            "{label}: `{}` of this driver takes no `{key}`",
            found.interface
        );
        let hint = match (*key, found.interface) {
            ("vram_quota_mib", ProvisioningInterface::SriovAdmin) => {
                "memory can be given since Linux 7.0; without it the driver divides it evenly"
                    .to_owned()
            }
            _ if found.takes.is_empty() => "it takes nothing".to_owned(),
            _ => format!("it takes {}", found.takes.join(", ")),
        };
        return Err(at.blame(Diagnostic::error(message).hint(hint)));
    }
    Ok(())
}

/// What each function gets; what is absent is left to the driver.
#[derive(Debug, Default)]
struct Share {
    memory_mib: Option<u32>,
    quantum_ms: Option<u32>,
    timeout_us: Option<u32>,
    priority: Option<String>,
}

impl Share {
    fn is_empty(&self) -> bool {
        self.words().iter().all(|word| word == "-")
    }

    /// Memory, turn, time to give way and priority, as the shell functions take them.
    fn words(&self) -> [String; 4] {
        let word = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            word(self.memory_mib),
            word(self.quantum_ms),
            word(self.timeout_us),
            self.priority.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }

    /// `8192 MiB, turns of 20 ms` for a plan.
    fn said(&self) -> String {
        let parts = [
            self.memory_mib.map(|mib| format!("{mib} MiB")),
            self.quantum_ms.map(|ms| format!("turns of {ms} ms")),
            self.timeout_us.map(|us| format!("{us} µs to give way")),
            self.priority
                .as_ref()
                .map(|word| format!("priority {word}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }

    /// What the kernel must be told anew, as it is now.
    fn now(&self, found: &VfShare) -> Self {
        fn short(number: &Fact<u64>) -> Option<u32> {
            number
                .known()
                .and_then(|number| u32::try_from(*number).ok())
        }
        let mib = found.vram_quota.known().map(|bytes| bytes >> 20);
        Self {
            memory_mib: self
                .memory_mib
                .and(mib.and_then(|mib| u32::try_from(mib).ok())),
            quantum_ms: self.quantum_ms.and(short(&found.exec_quantum_ms)),
            timeout_us: self.timeout_us.and(short(&found.preempt_timeout_us)),
            priority: self
                .priority
                .as_ref()
                .and(found.sched_priority.known().cloned()),
        }
    }

    /// Whether a function has its memory; drivers round it up to whole pages.
    fn has_memory(&self, found: &VfShare) -> bool {
        self.memory_mib.is_none_or(|mib| {
            let wanted = u64::from(mib) << 20;
            let found = found.vram_quota.known().copied().unwrap_or(0);
            (wanted..wanted + PAGE).contains(&found)
        })
    }

    fn is_met_by(&self, found: &VfShare) -> bool {
        fn same(wanted: Option<u32>, found: &Fact<u64>) -> bool {
            wanted.is_none_or(|wanted| found.known() == Some(&u64::from(wanted)))
        }
        self.has_memory(found)
            && same(self.quantum_ms, &found.exec_quantum_ms)
            && same(self.timeout_us, &found.preempt_timeout_us)
            && self
                .priority
                .as_ref()
                .is_none_or(|wanted| found.sched_priority.known() == Some(wanted))
    }
}

#[derive(Debug)]
struct Functions {
    count: u32,
    autoprobe: Option<bool>,
    named: Vec<String>,
    share: Share,
}

impl Target for Functions {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let Some(sriov) = gpu.sriov.known() else {
            return Ok(Vec::new());
        };
        Ok(set(gpu, sriov, self, when).into_iter().collect())
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        Some(super::counted(self.count, None))
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let share = self.share.words();
        let plain = self.share.is_empty();
        json!({
            "pci": gpu.pci.to_string(),
            "vf_count": self.count,
            "drivers_autoprobe": probe_word(self.autoprobe),
            "word": if plain { "sriov" } else { "intel_sriov" },
            "more": if plain { Vec::new() } else { share.to_vec() },
        })
    }
}

/// `0`, `1`, or `-` for no matter, as the shell functions take it.
fn probe_word(autoprobe: Option<bool>) -> &'static str {
    match autoprobe {
        Some(true) => "1",
        Some(false) => "0",
        None => "-",
    }
}

/// The functions that exist, with their shares.
fn existing<'a>(gpu: &'a Gpu, sriov: &Sriov) -> Vec<&'a VfShare> {
    let found = provisioning(gpu).map_or(&[][..], |found| &found.vfs[..]);
    let exist = found.iter().filter(|share| share.number <= sriov.num_vfs);
    exist.collect()
}

fn set(gpu: &Gpu, sriov: &Sriov, wanted: &Functions, when: When) -> Option<Step> {
    let (count, probe) = (wanted.count, wanted.autoprobe);
    let probe_now = sriov.drivers_autoprobe.known().copied();
    let probe_differs = probe.is_some() && probe != probe_now;
    let shares = existing(gpu, sriov);
    let share_differs = count > 0
        && !wanted.share.is_empty()
        && (shares.len() != count as usize
            || shares.iter().any(|found| !wanted.share.is_met_by(found)));
    // A boot leaves no virtual functions, and has the kernel bind drivers to new ones.
    let forgotten = when == When::AfterBoot && (count != 0 || probe == Some(false));
    if sriov.num_vfs == count && !probe_differs && !share_differs && !forgotten {
        return None;
    }
    // Turns can be changed while functions run; memory and number only without them.
    let stay = sriov.num_vfs == count && shares.iter().all(|found| wanted.share.has_memory(found));
    let pci = gpu.pci.to_string();
    let counted = |function: &str, count: u32, probe: Option<bool>| {
        Command::new(function)
            .arg(&pci)
            .arg(count.to_string())
            .arg(probe_word(probe))
    };
    let saved = format!("snapshot/sriov-{pci}");
    let file = |function: &str| Script::one(Command::new(function).arg(&pci).run_path(&saved));
    let mut check = Script::one(counted("sriov_is", sriov.num_vfs, probe_now));
    if !wanted.share.is_empty() && !shares.is_empty() {
        let words = shares.iter().map(|found| fingerprint(found));
        check = check.then(Command::new("intel_shares_are").arg(&pci).args(words));
    }
    if sriov.num_vfs > 0 && !stay {
        check = check.then(Command::new("sriov_unused").arg(&pci));
    }
    let mut verify = Script::one(counted("sriov_is", count, probe));
    if !wanted.share.is_empty() {
        let given = Command::new("intel_given").arg(&pci).arg(count.to_string());
        verify = verify.then(given.args(wanted.share.words()));
    }
    if !wanted.named.is_empty() {
        verify = verify.then(Command::new("sriov_has").arg(&pci).args(&wanted.named));
    }
    let apply = counted("intel_sriov_set", count, probe).args(wanted.share.words());
    let change = Change::Setting {
        subject: gpu.label(),
        name: "virtual functions".to_owned(),
        before: said(
            sriov.num_vfs,
            probe_now.filter(|_| probe_differs),
            shares.first().map(|found| wanted.share.now(found)).as_ref(),
        ),
        after: said(count, probe.filter(|_| probe_differs), Some(&wanted.share)),
    };
    let id = StepId(format!("sriov:{pci}"));
    let title = title(gpu, sriov, wanted, probe_differs || share_differs);
    Some(Step {
        // New functions touch nothing that runs; others have to go first.
        class: if sriov.num_vfs == 0 || stay {
            Class::Safe
        } else {
            Class::Disruptive
        },
        phase: Phase::Runtime,
        check,
        snapshot: file("intel_sriov_save"),
        apply: Script::one(apply),
        verify,
        undo: file("intel_sriov_restore"),
        idle: Script::one(Command::new("sriov_unused").arg(&pci)),
        timeout_s: 120,
        ..Step::new(id, usage::TASK, title, change)
    })
}

fn title(gpu: &Gpu, sriov: &Sriov, wanted: &Functions, differs: bool) -> String {
    let (label, count) = (gpu.label(), wanted.count);
    let given = match wanted.share.said() {
        share if share.is_empty() => String::new(),
        share => format!(" of {share} each"),
    };
    match (sriov.num_vfs == count, differs) {
        (true, false) => {
            format!("give {label} its {count} virtual functions again, which a reboot takes away")
        }
        (true, true) => format!("set the {count} virtual functions of {label}{given}"),
        (false, _) => format!("give {label} {count} virtual functions{given}"),
    }
}

fn said(count: u32, probe: Option<bool>, share: Option<&Share>) -> String {
    let mut text = count.to_string();
    if count > 0
        && let Some(share) = share.map(Share::said).filter(|share| !share.is_empty())
    {
        text.push_str(&format!(", each {share}"));
    }
    match probe {
        Some(true) => text.push_str(", drivers bound"),
        Some(false) => text.push_str(", no driver bound"),
        None => {}
    }
    text
}

/// `NUMBER:BYTES:TURN:TIMEOUT:PRIORITY`, with `-` for what is not told.
fn fingerprint(found: &VfShare) -> String {
    let word = |number: &Fact<u64>| {
        let known = number.known();
        known.map_or_else(|| "-".to_owned(), u64::to_string)
    };
    format!(
        "{}:{}:{}:{}:{}",
        found.number,
        word(&found.vram_quota),
        word(&found.exec_quantum_ms),
        word(&found.preempt_timeout_us),
        found.sched_priority.known().map_or("-", String::as_str)
    )
}

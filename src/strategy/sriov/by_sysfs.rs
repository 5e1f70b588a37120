//! Virtual functions through the kernel's `sriov_numvfs`.
//!
//! Only drivers that answer that attribute: Intel's.

use serde_json::{Value as Json, json};

use crate::catalog::Technology;
use crate::desired::SriovWanted;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Sriov, Vendor};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::super::power::When;
use super::super::{Ask, Decision, Slices, Target, usage};
use super::{Backend, check_count};

pub(super) struct BySysfs;

impl Backend for BySysfs {
    fn takes(&self, gpu: &Gpu) -> bool {
        gpu.vendor == Vendor::Intel
    }

    fn can(&self, gpu: &Gpu) -> bool {
        gpu.sriov.known().is_some_and(|sriov| sriov.total_vfs > 0)
    }

    fn decide(&self, ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Decision, Diagnostic> {
        let target = functions(ask, wanted)?;
        Ok(ask.decision(Technology::Sriov, target))
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
        };
        // None outlives a reboot, so that nothing more is to be done after one.
        set(gpu, sriov, &nothing, When::Now)
    }
}

fn functions(ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Functions, Diagnostic> {
    let gpu = ask.gpu;
    let blame = |diagnostic| ask.wanted.strategy.blame(diagnostic);
    let refuse = |why: &str, hint: &str| {
        let message = format!("{}: {why}", gpu.label());
        Err(blame(Diagnostic::error(message).hint(hint)))
    };
    let sriov = match &gpu.sriov {
        Fact::Known(sriov) => sriov,
        Fact::Absent => {
            return refuse(
                "the kernel shows no `sriov_totalvfs`",
                "check SR-IOV in the firmware's setup, and the kernel driver",
            );
        }
        Fact::Unknown(reason) => return refuse(reason, "the SR-IOV attributes could not be read"),
    };
    let count = wanted.vf_count.value;
    if count > sriov.total_vfs {
        let diagnostic = Diagnostic::error(format!(
            "{} allows {} virtual functions, not {count}",
            gpu.label(),
            sriov.total_vfs
        ));
        return Err(wanted.vf_count.blame(diagnostic));
    }
    check_count(ask, wanted)?;
    if gpu.driver == Fact::Absent && count != sriov.num_vfs {
        return refuse(
            "no kernel driver is bound to it, so it can have no virtual functions",
            "load its driver, and look into the kernel's log for why it did not bind",
        );
    }
    let named = wanted
        .vf_devices
        .iter()
        .map(|device| device.value.to_string());
    Ok(Functions {
        count,
        autoprobe: super::autoprobe(wanted),
        named: named.collect(),
    })
}

#[derive(Debug)]
struct Functions {
    count: u32,
    autoprobe: Option<bool>,
    named: Vec<String>,
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
        json!({
            "pci": gpu.pci.to_string(),
            "vf_count": self.count,
            "drivers_autoprobe": probe_word(self.autoprobe),
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

fn set(gpu: &Gpu, sriov: &Sriov, wanted: &Functions, when: When) -> Option<Step> {
    let (count, probe) = (wanted.count, wanted.autoprobe);
    let probe_now = sriov.drivers_autoprobe.known().copied();
    let probe_differs = probe.is_some() && probe != probe_now;
    // A boot leaves no virtual functions, and has the kernel bind drivers to new ones.
    let forgotten = when == When::AfterBoot && (count != 0 || probe == Some(false));
    if sriov.num_vfs == count && !probe_differs && !forgotten {
        return None;
    }
    let pci = gpu.pci.to_string();
    let call = |function: &str, count: u32, probe: Option<bool>| {
        Command::new(function)
            .arg(&pci)
            .arg(count.to_string())
            .arg(probe_word(probe))
    };
    let saved = format!("snapshot/sriov-{pci}");
    let file = |function: &str| Script::one(Command::new(function).arg(&pci).run_path(&saved));
    // All that was there is brought back, also by an undo after a loss of power.
    let mut check = Script::one(call("sriov_is", sriov.num_vfs, probe_now));
    if sriov.num_vfs > 0 && sriov.num_vfs != count {
        check = check.then(Command::new("sriov_unused").arg(&pci));
    }
    let mut verify = Script::one(call("sriov_is", count, probe));
    if !wanted.named.is_empty() {
        verify = verify.then(Command::new("sriov_has").arg(&pci).args(&wanted.named));
    }
    let said = |count: u32, probe: Option<bool>| match probe {
        Some(true) => format!("{count}, drivers bound"),
        Some(false) => format!("{count}, no driver bound"),
        None => count.to_string(),
    };
    let id = StepId(format!("sriov:{pci}"));
    let title = match sriov.num_vfs == count && !probe_differs {
        true => format!(
            "give {} its {count} virtual functions again, which a reboot takes away",
            gpu.label()
        ),
        false => format!("give {} {count} virtual functions", gpu.label()),
    };
    let change = Change::Setting {
        subject: gpu.label(),
        name: "virtual functions".to_owned(),
        before: said(sriov.num_vfs, if probe_differs { probe_now } else { None }),
        after: said(count, if probe_differs { probe } else { None }),
    };
    Some(Step {
        // New functions touch nothing that runs; others have to go first.
        class: if sriov.num_vfs == 0 {
            Class::Safe
        } else {
            Class::Disruptive
        },
        phase: Phase::Runtime,
        check,
        snapshot: file("sriov_save"),
        apply: Script::one(call("sriov_set", count, probe)),
        verify,
        undo: file("sriov_restore"),
        idle: Script::one(Command::new("sriov_unused").arg(&pci)),
        timeout_s: 120,
        ..Step::new(id, usage::TASK, title, change)
    })
}

//! Virtual functions that virtual machines get: bound to vfio-pci by their addresses, now and
//! after each boot, whichever way they are made.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::desired::Located;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Holder, Sriov};
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Phase, Step, StepId};

use super::super::power::When;
use super::super::{Ask, Decision, Slices, Target, usage};
use super::backend_of;

/// The driver that holds a function for a virtual machine.
const VFIO: &str = "vfio-pci";

/// The decision with its virtual functions bound.
pub(super) fn bound(
    ask: &Ask<'_>,
    decision: Decision,
    driver: &Located<()>,
) -> Result<Decision, Diagnostic> {
    let label = ask.gpu.label();
    let refuse =
        |message: String, hint: &str| Err(driver.blame(Diagnostic::error(message).hint(hint)));
    if !backend_of(ask.gpu).is_some_and(super::Backend::binds) {
        return refuse(
            format!("{label}: its driver hands its virtual functions out itself"),
            "leave `sriov.driver` out: whoever starts a virtual machine binds them",
        );
    }
    if let Some(probe) = &ask.wanted.sriov.drivers_autoprobe
        && probe.value
    {
        return refuse(
            "`sriov.driver` and `drivers_autoprobe: true` contradict each other".to_owned(),
            "with `driver: vfio-pci` the kernel must not bind its own driver to new functions",
        );
    }
    match &ask.host.passthrough.iommus {
        Fact::Known(units) if units.is_empty() => {
            return refuse(
                format!(
                    "the IOMMU is off, so that virtual functions of {label} cannot go to virtual machines"
                ),
                "have the kernel booted with it, on Intel by `kernel_cmdline: {present: [intel_iommu=on]}` in a playbook",
            );
        }
        Fact::Unknown(why) => {
            return refuse(
                format!("{label}: {why}"),
                "the IOMMU's state could not be read",
            );
        }
        Fact::Known(_) | Fact::Absent => {}
    }
    let target = Bound {
        functions: Arc::clone(&decision.target),
    };
    let mut decision = Decision {
        target: Arc::new(target),
        ..decision
    };
    decision.notes.push(
        "the host and its containers do not see the virtual functions: they are for virtual machines"
            .to_owned(),
    );
    Ok(decision)
}

/// A card whose virtual functions are for virtual machines.
#[derive(Debug)]
struct Bound {
    /// The functions themselves.
    functions: Arc<dyn Target>,
}

impl Target for Bound {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        let mut steps = self.functions.steps(gpu, when)?;
        let Some(sriov) = gpu.sriov.known() else {
            return Ok(steps);
        };
        let held = |(_, driver): &(_, Fact<String>)| driver.known().is_some_and(|d| d == VFIO);
        let is_so = steps.is_empty() && sriov.vfs.iter().all(held);
        if !is_so || when == When::AfterBoot {
            steps.push(bind(gpu, sriov));
        }
        Ok(steps)
    }

    fn in_the_way(&self, gpu: &Gpu, holder: &Holder, steps: &[Step]) -> bool {
        self.functions.in_the_way(gpu, holder, steps)
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        self.functions.slices()
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let mut vars = self.functions.vars(gpu);
        vars["driver"] = Json::from(VFIO);
        vars
    }
}

fn bind(gpu: &Gpu, sriov: &Sriov) -> Step {
    let pci = gpu.pci.to_string();
    let label = gpu.label();
    let call = |function: &str| Command::new(function).arg(&pci);
    let saved = format!("snapshot/vf-drivers-{pci}");
    let file = |function: &str| Script::one(call(function).run_path(&saved));
    let driver =
        |(_, driver): &(_, Fact<String>)| driver.known().map_or("none", String::as_str).to_owned();
    let mut before: Vec<String> = sriov.vfs.iter().map(driver).collect();
    before.dedup();
    let change = Change::Setting {
        // Not the card's own label: what reads that back is the step that makes them.
        subject: format!("virtual functions of {label}"),
        name: "kernel driver".to_owned(),
        before: match before.is_empty() {
            true => "none".to_owned(),
            false => before.join(", "),
        },
        after: VFIO.to_owned(),
    };
    let title = format!("bind the virtual functions of {label} to {VFIO}, for virtual machines");
    Step {
        class: match sriov.vfs.is_empty() {
            true => Class::Safe,
            false => Class::Disruptive,
        },
        phase: Phase::Runtime,
        check: Script::one(call("sriov_unused")),
        snapshot: file("sriov_save"),
        apply: Script::one(call("vf_bind")),
        verify: Script::one(call("vf_bound")),
        undo: file("vf_restore"),
        idle: Script::one(call("sriov_unused")),
        timeout_s: 120,
        ..Step::new(
            StepId(format!("sriov-driver:{pci}")),
            usage::TASK,
            title,
            change,
        )
    }
}

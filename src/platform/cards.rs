//! What is wrong with the cards of a host whatever its platform, for `deploy doctor`: a driver
//! that does not answer, a mode that is not in force yet, slices other than those that the
//! variables ask for, and what the variables ask for that no card can be. What uses the slices,
//! each platform knows.

use crate::error::Problems;
use crate::facts::{Fact, Gpu, Holder, NvidiaGpu, Vendor};
use crate::strategy::census;

use super::View;
use super::doctor::{Finding, SET_UP};

/// Everything that is found. `undecided` is what the variables ask for that cannot be.
pub(super) fn findings(view: &View<'_>, undecided: &Problems) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for gpu in &view.facts.gpus {
        let all = driver(gpu).into_iter().chain(pending(gpu));
        // One driver's fault is that of all its cards.
        for finding in all {
            if !found.contains(&finding) {
                found.push(finding);
            }
        }
    }
    let seen = !found.is_empty();
    found.extend(undecided.0.iter().cloned().map(Finding::from));
    // Of a card whose driver does not answer nobody knows what it is sliced into.
    if !seen {
        found.extend(slices(view));
    }
    found
}

/// A card that no driver answers for: nobody on the host can use it. One that was handed over to
/// virtual machines needs none.
fn driver(gpu: &Gpu) -> Option<Finding> {
    let bound = gpu.driver.known().map(String::as_str);
    if bound == Some("vfio-pci") {
        return None;
    }
    let load = match gpu.vendor {
        Vendor::Nvidia => "modprobe nvidia",
        Vendor::Amd => "modprobe amdgpu",
        Vendor::Intel => "modprobe xe || modprobe i915",
    };
    // Display controllers of boards, which no model is, need none.
    let is_known = gpu.model.known().is_some();
    match (&gpu.nvidia, bound) {
        (Fact::Unknown(_), Some("nouveau")) => Some(Finding::new(
            format!(
                "{} is bound to nouveau, which can neither compute nor slice",
                gpu.label()
            ),
            "modprobe -r nouveau && modprobe nvidia",
        )),
        (Fact::Unknown(why), _) => Some(silent(&gpu.label(), why)),
        (_, None) if is_known && gpu.driver == Fact::Absent => {
            let what = format!("no driver has {}", gpu.label());
            Some(Finding::new(what, load))
        }
        _ => None,
    }
}

/// NVIDIA's tool does not show the card; why, and what helps.
fn silent(label: &str, why: &str) -> Finding {
    // The words of discovery (`NvidiaFault`).
    let has = |text: &str| why.contains(text);
    if has("of different versions") {
        return Finding::new(
            format!("NVIDIA's driver and its libraries do not fit together: {why}"),
            "systemctl reboot",
        );
    }
    if has("driver is not loaded") {
        return Finding::new(
            "NVIDIA's driver is not loaded, so that nobody can use its cards",
            "modprobe nvidia",
        );
    }
    if has("does not answer any more") {
        return Finding::new(
            format!("{label} does not answer on the bus: {why}"),
            "systemctl reboot",
        );
    }
    let mend = match has("is not installed") {
        true => "install NVIDIA's driver with its tools, of which nvidia-smi is one",
        false => "nvidia-smi; journalctl -k -g NVRM",
    };
    Finding::new(
        format!("the driver of {label} does not answer: {why}"),
        mend,
    )
}

/// A MIG mode that waits for a reset or a restart.
fn pending(gpu: &Gpu) -> Option<Finding> {
    let nvidia: &NvidiaGpu = gpu.nvidia.known()?;
    let mig = nvidia
        .mig
        .known()
        .filter(|mig| mig.current != mig.pending)?;
    let what = format!(
        "MIG mode of {} is {} and will be {} only after a reset of the card or a restart",
        gpu.label(),
        mig.current,
        mig.pending
    );
    let holders = gpu.holders.known().map_or(&[][..], Vec::as_slice);
    let (what, mend) = match holders {
        [] => (what, format!("nvidia-smi --gpu-reset -i {}", gpu.pci)),
        some => (
            format!("{what}; it is in use by {}", named(some)),
            "systemctl reboot".to_owned(),
        ),
    };
    Some(Finding::new(what, mend))
}

/// Cards that are sliced otherwise than the variables say.
fn slices(view: &View<'_>) -> Vec<Finding> {
    let cards = census(view.decisions, view.facts).into_iter();
    let wrong = cards.filter(|card| card.technology.is_some() && card.drifted == Some(true));
    let finding = |pci| {
        let gpu = view.facts.gpus.iter().find(|gpu| gpu.pci == pci)?;
        let what = format!(
            "the slices of {} are not those that the variables ask for",
            gpu.label()
        );
        let holders = gpu.holders.known().map_or(&[][..], Vec::as_slice);
        Some(match holders {
            [] => Finding::new(what, SET_UP),
            some => {
                let what = format!("{what}, and it is in use by {}", named(some));
                Finding::new(what, format!("end that work, then {SET_UP}"))
            }
        })
    };
    wrong.filter_map(|card| finding(card.pci)).collect()
}

fn named(holders: &[Holder]) -> String {
    let one = |holder: &Holder| match holder.unit.known() {
        Some(unit) => format!("{} (pid {}, {unit})", holder.command, holder.pid),
        None => format!("{} (pid {})", holder.command, holder.pid),
    };
    holders.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_a_silent_driver_has_its_command() {
        for (why, what, mend) in [
            (
                "nvidia-smi: driver and library are of different versions",
                "do not fit together",
                "systemctl reboot",
            ),
            (
                "nvidia-smi: the NVIDIA driver is not loaded",
                "is not loaded",
                "modprobe nvidia",
            ),
            (
                "nvidia-smi: the card does not answer any more",
                "GPU 0 does not answer on the bus",
                "systemctl reboot",
            ),
            (
                "nvidia-smi is not installed",
                "the driver of GPU 0 does not answer",
                "install NVIDIA's driver",
            ),
            (
                "nvidia-smi ended with status 9",
                "the driver of GPU 0 does not answer",
                "journalctl -k -g NVRM",
            ),
        ] {
            let found = silent("GPU 0", why);
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.mend.contains(mend), "{found:?}");
        }
    }
}

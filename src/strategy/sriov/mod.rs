//! `strategy: sriov`: virtual functions of a card.
//!
//! There is no single way to make them: each kernel driver has its own, and one
//! that is told in another's way says no. So the driver that a card is bound to
//! picks a backend, one file each; what can be asked for without one is refused
//! here, with what there is instead. What a backend does with a card is its own.

mod by_sysfs;
mod for_machines;
mod gim;
mod intel;

use serde_json::Value as Json;

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, DeviceRef, Isolation, SriovWanted, Wanted, index_of};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Gpu, Vendor};
use crate::step::Step;

use super::power::When;
use super::tenants::{Served, Tenants};
use super::{Ask, Decision, KeptFile, Slices, Strategy, usage};

pub(super) struct Sriov;

/// A way to make virtual functions.
trait Backend: Sync {
    /// Whether the card is as it must be for this way.
    fn takes(&self, gpu: &Gpu) -> bool;

    /// Whether the card can have any virtual function now.
    fn can(&self, gpu: &Gpu) -> bool;

    /// Whether it can say what each virtual function gets.
    fn takes_shares(&self) -> bool {
        false
    }

    /// Whether its virtual functions can be bound to a driver here.
    fn binds(&self) -> bool {
        true
    }

    /// What is to become of the card.
    fn decide(&self, ask: &Ask<'_>, wanted: &SriovWanted) -> Result<Decision, Diagnostic>;

    /// The step that takes all virtual functions away, where there are any.
    fn removal(&self, gpu: &Gpu) -> Option<Step>;
}

/// All of them; the first that takes a card has it. A new one is a file and a line here,
/// and a line for its shell functions in `library` and `steps_library`.
static BACKENDS: [&dyn Backend; 3] = [&intel::Intel, &by_sysfs::BySysfs, &gim::Gim];

fn backend_of(gpu: &Gpu) -> Option<&'static dyn Backend> {
    BACKENDS.into_iter().find(|backend| backend.takes(gpu))
}

/// Whether the kernel is to bind drivers to new functions; those that virtual machines get must
/// not have its own first.
fn autoprobe(wanted: &SriovWanted) -> Option<bool> {
    match (&wanted.drivers_autoprobe, &wanted.for_machines) {
        (Some(probe), _) => Some(probe.value),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    }
}

/// So many virtual functions, as they are counted.
fn counted(count: u32, in_use: Option<u32>) -> Vec<Slices> {
    let some = (count > 0).then(|| Slices {
        profile: "vf".to_owned(),
        count,
        in_use,
    });
    some.into_iter().collect()
}

/// Whether the card can have virtual functions as it is.
pub(super) fn can(gpu: &Gpu) -> bool {
    backend_of(gpu).is_some_and(|backend| backend.can(gpu))
}

/// The step that takes all virtual functions away, where there are any.
fn removal(gpu: &Gpu) -> Option<Step> {
    backend_of(gpu)?.removal(gpu)
}

impl Strategy for Sriov {
    fn technology(&self) -> Technology {
        Technology::Sriov
    }

    // All vendors have SR-IOV in name; `decide` says what becomes of each.
    fn is_for(&self, _: Vendor) -> bool {
        true
    }

    fn check(&self, wanted: &Wanted, _: &Desired, models: &[&Model], problems: &mut Problems) {
        check_memory(&wanted.sriov, models, problems);
        let count = &wanted.sriov.vf_count;
        let most = |model: &&&Model| model.max_vfs.unwrap_or(u32::MAX);
        let able = models
            .iter()
            .filter(|model| model.technologies.contains(&Technology::Sriov));
        let Some(largest) = able.max_by_key(most) else {
            return;
        };
        if count.value > most(&largest) {
            problems.push(
                count.blame(
                    Diagnostic::error(format!(
                        "`vf_count` is {}, more than any of these cards has",
                        count.value
                    ))
                    .hint(format!(
                        "{} has at most {}",
                        largest.key,
                        most(&largest)
                    )),
                ),
            );
        }
    }

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        for ask in asks {
            let wanted = &ask.wanted.sriov;
            let named =
                |device: &DeviceRef| device.names(ask.gpu, index_of(&ask.host.gpus, ask.position));
            if wanted
                .pf_device
                .as_ref()
                .is_some_and(|pf| !named(&pf.value))
            {
                continue;
            }
            let decided = match backend_of(ask.gpu) {
                Some(backend) if !backend.takes_shares() => {
                    no_shares(ask, wanted).and_then(|()| backend.decide(ask, wanted))
                }
                Some(backend) => backend.decide(ask, wanted),
                None => Err(no_backend(ask)),
            };
            let decided = decided.and_then(|decision| match &wanted.for_machines {
                Some(driver) => for_machines::bound(ask, decision, driver),
                None => Ok(decision),
            });
            match decided {
                Ok(mut decision) => {
                    decision.notes.push(
                        "virtual functions are isolated by the IOMMU; all of a card are made or unmade together"
                            .to_owned(),
                    );
                    decisions.push(decision);
                }
                Err(diagnostic) => problems.push(diagnostic),
            }
        }
        if decisions.is_empty()
            && !problems.has_errors()
            && let Some(pf) = asks
                .first()
                .and_then(|ask| ask.wanted.sriov.pf_device.as_ref())
        {
            let diagnostic = Diagnostic::error(format!("no card is `{}`", pf.value));
            let cards: Vec<String> = asks.iter().map(|ask| ask.gpu.label()).collect();
            problems.push(pf.blame(diagnostic.hint(format!("there is {}", cards.join(", ")))));
        }
        problems.or(decisions)
    }

    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Hardware)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<Served, String> {
        super::tenants::by_functions(tenants)
    }

    fn found(&self, gpu: &Gpu) -> Vec<Slices> {
        let count = gpu.sriov.known().map_or(0, |sriov| sriov.num_vfs);
        let in_use = match usage::in_use(gpu) {
            Some(false) => Some(0),
            Some(true) | None => None,
        };
        counted(count, in_use)
    }

    fn removal(&self, gpu: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        Ok(removal(gpu).into_iter().collect())
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("sriov.conf")
    }

    fn files(&self, cards: &[Json]) -> Vec<KeptFile> {
        let list = KeptFile::beside_the_script("sriov.conf", "sriov_config.j2");
        std::iter::once(list).chain(gim::options(cards)).collect()
    }

    fn own_paths(&self) -> &'static [&'static str] {
        &[gim::OPTIONS]
    }

    fn library(&self) -> &'static str {
        concat!(
            include_str!("by_sysfs.sh"),
            include_str!("for_machines.sh"),
            include_str!("intel.sh"),
            include_str!("gim.sh")
        )
    }

    fn steps_library(&self) -> &'static str {
        concat!(
            include_str!("by_sysfs_undo.sh"),
            include_str!("for_machines_undo.sh"),
            include_str!("intel_undo.sh"),
            include_str!("gim_undo.sh")
        )
    }
}

/// The finding for a card that no backend takes.
fn no_backend(ask: &Ask<'_>) -> Diagnostic {
    let (why, hint) = match ask.gpu.vendor {
        Vendor::Nvidia => (
            "NVIDIA's driver refuses `sriov_numvfs`; its virtual functions belong to vGPU",
            "use `strategy: vgpu`, or `mig` and `time-slicing` for containers",
        ),
        Vendor::Amd => (
            "AMD's virtual functions are made by the host driver `gim`, which the card is not bound to",
            "install `gim` (gim-dkms) and keep amdgpu from the card (modprobe.blacklist=amdgpu); under amdgpu, `strategy: partition` cuts cards up that have compute partitions",
        ),
        Vendor::Intel => (
            "no driver is bound that makes virtual functions",
            "check the kernel driver",
        ),
    };
    let message = format!("{}: {why}", ask.gpu.label());
    let diagnostic = Diagnostic::error(message).hint(hint);
    ask.wanted.strategy.blame(diagnostic)
}

/// A finding if a share is asked for where functions cannot be given one.
fn no_shares(ask: &Ask<'_>, wanted: &SriovWanted) -> Result<(), Diagnostic> {
    let given = wanted.share.given();
    let Some((first, at)) = given.first() else {
        return Ok(());
    };
    let message = format!("{}: its driver takes no `{first}`", ask.gpu.label());
    let diagnostic = Diagnostic::error(message)
        .hint("only Intel's drivers are told what each virtual function gets; the others divide a card evenly");
    Err(at.blame(diagnostic))
}

/// A finding if functions are to have more memory than any of these cards has for them.
fn check_memory(wanted: &SriovWanted, models: &[&Model], problems: &mut Problems) {
    let Some(each) = &wanted.share.vram_quota_mib else {
        return;
    };
    let all = u64::from(each.value) * u64::from(wanted.vf_count.value);
    let able = models
        .iter()
        .filter(|model| model.technologies.contains(&Technology::Sriov));
    // A card of which it is not known may have enough.
    let most = able.map(|model| (model.vf_memory_mib.unwrap_or(u64::MAX), model));
    if let Some((most, model)) = most.max_by_key(|(most, _)| *most)
        && all > most
    {
        let message = format!(
            "{} virtual functions of {} MiB need {all} MiB, more than any of these cards has",
            wanted.vf_count.value, each.value
        );
        let hint = format!(
            "{} has {most} MiB for them, {} MiB each",
            model.key,
            most / u64::from(wanted.vf_count.value.max(1))
        );
        problems.push(each.blame(Diagnostic::error(message).hint(hint)));
    }
}

/// A finding if the card's model does not offer this number of virtual functions.
fn check_count(ask: &Ask<'_>, wanted: &SriovWanted) -> Result<(), Diagnostic> {
    let count = wanted.vf_count.value;
    let Some(model) = ask.model else {
        return Ok(());
    };
    if model.vf_counts.is_empty() || model.vf_counts.contains(&count) {
        return Ok(());
    }
    let diagnostic = Diagnostic::error(format!("{} has no {count} virtual functions", model.key));
    let hint = format!("it has {}", counts(&model.vf_counts));
    Err(wanted.vf_count.blame(diagnostic.hint(hint)))
}

/// `1, 2 or 8`; of a long list only the ends.
fn counts(all: &[u32]) -> String {
    let words: Vec<String> = all.iter().map(u32::to_string).collect();
    match &words[..] {
        [first, second, third, fourth, _, _, .., last] => {
            format!("{first}, {second}, {third}, {fourth}, … or {last}")
        }
        _ => words.join(" or "),
    }
}

//! `strategy: vgpu`: NVIDIA vGPUs on a host, and their licence in a virtual machine.
//!
//! What a card is decides which of the two is meant: the driver of a host says which types
//! it offers, the one of a virtual machine that the card is a vGPU. Both come from NVIDIA
//! alone; their licence allows nobody else to hand them out, so they are never installed
//! from here.

mod guest;
mod host;
mod layout;
mod serve;
mod steps;

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Isolation, Located, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Vendor, Vgpu};
use crate::step::Step;
use serde_json::Value as Json;

use super::power::When;
use super::tenants::{Served, Tenants};
use super::{Ask, Decision, KeptFile, Strategy, mig};

use steps::removal;

pub(super) struct VgpuDevices;

impl Strategy for VgpuDevices {
    fn technology(&self) -> Technology {
        Technology::Vgpu
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Nvidia
    }

    fn check(&self, wanted: &Wanted, _: &Desired, models: &[&Model], problems: &mut Problems) {
        let vgpu = &wanted.vgpu;
        let mut sizes: Vec<(&Located<String>, Name)> = Vec::new();
        for name in vgpu.named() {
            match Name::read(&name.value) {
                Some(read) => sizes.push((name, read)),
                None => {
                    let hint = "a type is called such as `L40S-8Q`, or `DC-1-24Q` on GPU instances";
                    let wrong = format!("`{}` is no type of vGPU", name.value);
                    problems.push(name.blame(Diagnostic::error(wrong).hint(hint)));
                }
            }
        }
        if vgpu.named().next().is_none() && !vgpu.has_licence() {
            let missing = Diagnostic::error("`strategy: vgpu` needs `vgpu.profile`").hint(
                "name a type such as `profile: L40S-8Q`; in a virtual machine give `license_token`",
            );
            problems.push(wanted.strategy.blame(missing));
        }
        if let Some(found) = differing(&sizes, vgpu.heterogeneous.value) {
            problems.push(found);
        }
        for (name, _) in &sizes {
            problems.0.extend(unlisted(name, models));
        }
    }

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        // A virtual machine has one licence for all of its vGPUs.
        let mut licensed = false;
        for ask in asks {
            let decided = match &ask.gpu.vgpu {
                Fact::Known(Vgpu::Host(facts)) => host::decide(ask, facts),
                Fact::Known(Vgpu::Guest(_)) if licensed => {
                    Ok(ask.decision(Technology::Vgpu, guest::Shared))
                }
                Fact::Known(Vgpu::Guest(facts)) => {
                    licensed = true;
                    guest::decide(ask, facts)
                }
                Fact::Absent if ask.gpu.nvidia.known().is_none() => {
                    Err(mig::unseen(ask.gpu).into())
                }
                Fact::Absent => Err(no_driver(ask).into()),
                Fact::Unknown(why) => Err(Diagnostic::error(format!(
                    "what vGPU shows of {} could not be read: {why}",
                    ask.gpu.label()
                ))
                .into()),
            };
            match decided {
                Ok(decision) => decisions.push(decision),
                Err(found) => problems.extend(found),
            }
        }
        problems.or(decisions)
    }

    // Each virtual machine has memory that no other reaches.
    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation::Hardware)
    }

    fn serve(&self, tenants: &Tenants<'_>) -> Result<Served, String> {
        serve::by_vgpus(tenants)
    }

    fn boot_file(&self) -> Option<&'static str> {
        Some("vgpu.conf")
    }

    fn files(&self, _: &[Json]) -> Vec<KeptFile> {
        vec![KeptFile::beside_the_script("vgpu.conf", "vgpu_config.j2")]
    }

    fn removal(&self, gpu: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        Ok(removal(gpu)?.into_iter().collect())
    }

    fn library(&self) -> &'static str {
        include_str!("vgpu.sh")
    }

    fn steps_library(&self) -> &'static str {
        concat!(include_str!("undo.sh"), include_str!("guest.sh"))
    }
}

fn no_driver(ask: &Ask<'_>) -> Diagnostic {
    let label = ask.gpu.label();
    let missing = format!("{label}: NVIDIA's vGPU driver is not installed");
    ask.wanted.strategy.blame(Diagnostic::error(missing).hint(
        "install the vGPU host driver from NVIDIA's licensing portal, and then run again; its licence allows nobody else to hand it out",
    ))
}

/// What a type's name says: `L40S-8Q`, `DC-1-24Q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    /// Framebuffer in GiB.
    framebuffer: u32,
    /// Whether it lives in a GPU instance.
    on_instance: bool,
}

impl Name {
    fn read(text: &str) -> Option<Self> {
        let short = text.rsplit(' ').next()?;
        let mut parts = short.rsplit('-');
        let size = parts.next()?.strip_suffix(['A', 'B', 'C', 'Q'])?;
        let before = parts.next()?;
        let on_instance = before.bytes().all(|byte| byte.is_ascii_digit());
        let card = if on_instance { parts.next()? } else { before };
        (!card.is_empty() && !before.is_empty()).then_some(Self {
            framebuffer: size.parse().ok().filter(|size| *size > 0)?,
            on_instance,
        })
    }
}

/// A finding if the types cannot be on one card together.
fn differing(names: &[(&Located<String>, Name)], heterogeneous: bool) -> Option<Diagnostic> {
    let (first, one) = names.first()?;
    let (name, other) = names.iter().find(|(_, other)| {
        one.on_instance != other.on_instance
            || (one.framebuffer != other.framebuffer && !one.on_instance && !heterogeneous)
    })?;
    let (message, hint) = if one.on_instance != other.on_instance {
        (
            format!(
                "`{}` and `{}` cannot be on one card",
                first.value, name.value
            ),
            "a card has either GPU instances or vGPUs that share it in turns",
        )
    } else {
        (
            format!(
                "`{}` and `{}` have framebuffers of {} and {} GB, and a card takes vGPUs of one size only",
                first.value, name.value, one.framebuffer, other.framebuffer
            ),
            "give one size, or `heterogeneous: true`, which Ada and later cards have with R550",
        )
    };
    Some(name.blame(Diagnostic::error(message).hint(hint)))
}

/// A finding if the catalog knows the types of all models that may be met, and none has this.
fn unlisted(name: &Located<String>, models: &[&Model]) -> Option<Diagnostic> {
    let known = |model: &&&Model| !model.vgpu_types.is_empty();
    let has = |model: &&&Model| {
        let mut types = model.vgpu_types.iter();
        types.any(|kind| kind.eq_ignore_ascii_case(&name.value))
    };
    if !models.iter().all(|model| known(&model)) || models.iter().any(|model| has(&model)) {
        return None;
    }
    let types = models.iter().flat_map(|model| &model.vgpu_types);
    let types: Vec<&str> = types.map(String::as_str).collect();
    let whose = models
        .first()
        .map_or("no model", |model| model.key.as_str());
    let message = format!("{whose} has no vGPU type `{}`", name.value);
    Some(name.blame(Diagnostic::error(message).hint(layout::offer(&name.value, &types))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_are_taken_apart() {
        let read = |text| Name::read(text).map(|name| (name.framebuffer, name.on_instance));
        assert_eq!(read("L40S-8Q"), Some((8, false)));
        assert_eq!(read("NVIDIA A2-16C"), Some((16, false)));
        assert_eq!(read("DC-1-24Q"), Some((24, true)));
        assert_eq!(read("H200X-1-18C"), Some((18, true)));
        for wrong in [
            "L40S", "L40S-8", "8Q", "-8Q", "1-8Q", "L40S-0Q", "L40S-8X", "",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

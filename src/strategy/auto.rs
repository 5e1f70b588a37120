//! `strategy: auto`: which technology a card gets.
//!
//! What the variables switch on comes first, in the order MIG, SR-IOV, MPS,
//! time-slicing, as far as the card has it: isolation in hardware before
//! sharing in turns. Where nothing is switched on, the card's model decides.
//!
//! Where `auto` says what tenants need, each technology is asked whether it can give
//! that on this card, those that isolate in hardware first.

use crate::catalog::{Catalog, Technology};
use crate::desired::{Desired, Isolation, Wanted};
use crate::error::Diagnostic;
use crate::facts::{Fact, Gpu, MigState, Vendor};

use super::geometry::Geometry;
use super::tenants::Tenants;
use super::{STRATEGIES, parted};

/// A technology and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pick {
    /// Which.
    pub(super) technology: Technology,
    /// Why, in a part of a sentence.
    pub(super) reason: String,
    /// Whether no profiles are asked for, so that the card is filled with its smallest.
    pub(super) fill: bool,
    /// Values that take the place of the user's, where those say what tenants need.
    pub(super) wanted: Option<Wanted>,
}

impl Pick {
    fn new(technology: Technology, reason: impl Into<String>) -> Self {
        Self {
            technology,
            reason: reason.into(),
            fill: false,
            wanted: None,
        }
    }
}

/// Picks for one card.
pub(super) fn pick(
    wanted: &Wanted,
    desired: &Desired,
    is_default: bool,
    (gpu, index): (&Gpu, usize),
    catalog: &Catalog,
) -> Result<Pick, Diagnostic> {
    if wanted.auto.origin.is_some() {
        return by_need(wanted, gpu, catalog);
    }
    let mig = gpu.nvidia.known().and_then(|nvidia| nvidia.mig.known());
    let model = gpu.model.known().and_then(|key| catalog.by_key(key));
    let request = is_default && !desired.slicing.request.is_empty();
    let parted = parted::asks_of(wanted, gpu, index)?;
    let listed = parted.map_or(&wanted.mig.listed, |entry| &entry.profiles);
    let named = !listed.is_empty() || parted.is_some() || request;
    let asks_mig = wanted.mig.enabled.value || named;
    if asks_mig && let Some(mig) = mig {
        let geometry = Geometry::of_host("", mig, model);
        let offers = |name: &str| {
            geometry
                .as_ref()
                .is_some_and(|geometry| geometry.find(name).is_some())
        };
        let known = listed.iter().all(|name| offers(&name.value));
        if known {
            let mut pick = Pick::new(
                Technology::Mig,
                "the variables ask for MIG and the card has it",
            );
            pick.fill = !named;
            return Ok(pick);
        }
    }
    let has_functions = super::sriov::can(gpu);
    if wanted.sriov.enabled.value && has_functions {
        let reason = "the variables ask for SR-IOV and the card has it";
        return Ok(Pick::new(Technology::Sriov, reason));
    }
    if wanted.mps.enabled.value && gpu.vendor == Vendor::Nvidia {
        return Ok(Pick::new(Technology::Mps, "the variables ask for MPS"));
    }
    if wanted.time_slicing.enabled.value && gpu.vendor == Vendor::Nvidia {
        let reason = if asks_mig {
            "the card does not have what is asked of MIG, and time-slicing is asked for too"
        } else {
            "the variables ask for it"
        };
        return Ok(Pick::new(Technology::TimeSlicing, reason));
    }
    let partitions = gpu.amd.known().and_then(|amd| amd.compute.known());
    if wanted.partition.enabled.value && partitions.is_some() {
        let reason = "the variables ask for partitions and the card has them";
        return Ok(Pick::new(Technology::Partition, reason));
    }
    Ok(by_model(gpu, mig, has_functions))
}

fn by_need(wanted: &Wanted, gpu: &Gpu, catalog: &Catalog) -> Result<Pick, Diagnostic> {
    let tenants = Tenants {
        wanted,
        gpu,
        model: gpu.model.known().and_then(|key| catalog.by_key(key)),
    };
    let kinds: &[Isolation] = match wanted.auto.isolation.value {
        Isolation::Hardware => &[Isolation::Hardware],
        Isolation::Software => &[Isolation::Software],
        Isolation::Any => &[Isolation::Hardware, Isolation::Software],
    };
    let mut refused: Vec<String> = Vec::new();
    for kind in kinds {
        for strategy in STRATEGIES {
            if strategy.isolation() != Some(*kind) || !strategy.is_for(gpu.vendor) {
                continue;
            }
            let technology = strategy.technology();
            let model = tenants.model;
            let lacking = model.filter(|model| !model.technologies.contains(&technology));
            let served = match lacking {
                Some(model) => Err(format!("{} does not have it", model.key)),
                None => strategy.serve(&tenants),
            };
            match served {
                Ok(served) => {
                    let mut reason = served.why;
                    if !refused.is_empty() {
                        reason.push_str(&format!("; not {}", refused.join(", not ")));
                    }
                    let mut pick = Pick::new(technology, reason);
                    pick.wanted = Some(served.wanted);
                    return Ok(pick);
                }
                Err(why) => refused.push(format!("{technology} ({why})")),
            }
        }
    }
    Err(cannot(&tenants, &refused))
}

/// Nothing gives the tenants what they need.
fn cannot(tenants: &Tenants<'_>, refused: &[String]) -> Diagnostic {
    let message = format!(
        "nothing gives {} what `auto` asks for, which is {}",
        tenants.gpu.label(),
        tenants.spelled()
    );
    let mut hints: Vec<String> = refused.to_vec();
    if let Some(model) = tenants.model {
        let has = super::offline::listed(&model.technologies);
        hints.push(format!("{} has {has}", model.key));
    }
    let diagnostic = Diagnostic::error(message).hint(hints.join("; "));
    match &tenants.wanted.auto.origin {
        Some(origin) => diagnostic.at(origin),
        None => diagnostic,
    }
}

fn by_model(gpu: &Gpu, mig: Option<&MigState>, has_functions: bool) -> Pick {
    match gpu.vendor {
        Vendor::Nvidia if mig.is_some() => Pick {
            technology: Technology::Mig,
            reason:
                "the card has MIG, and no profiles are asked for: it is filled with its smallest"
                    .to_owned(),
            fill: true,
            wanted: None,
        },
        Vendor::Nvidia if matches!(gpu.nvidia, Fact::Known(_)) => {
            Pick::new(Technology::TimeSlicing, "the card has no MIG")
        }
        _ if has_functions => Pick::new(Technology::Sriov, "the card has virtual functions"),
        _ => Pick::new(
            Technology::None,
            "the card has nothing that this version can slice",
        ),
    }
}

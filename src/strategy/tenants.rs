//! What the tenants of a card need, as `auto` says it, and what each technology makes of it.
//!
//! A technology answers with values as a user would have written them for it, so that what
//! follows does not know that `auto` picked it.

use crate::catalog::Model;
use crate::desired::{Isolation, Located, Wanted};
use crate::error::Origin;
use crate::facts::{Gpu, MigState};

use super::advice;
use super::geometry::{Geometry, Media};

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1 << 20;

/// The tenants of one card.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenants<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) gpu: &'a Gpu,
    pub(super) model: Option<&'a Model>,
}

/// Values by which a technology gives them what they need.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) wanted: Wanted,
    /// Why these, in a part of a sentence.
    pub(super) why: String,
}

impl Tenants<'_> {
    /// How many there are, if it is said.
    pub(super) fn count(&self) -> Option<u32> {
        Some(self.wanted.auto.tenants.as_ref()?.value)
    }

    /// Bytes that each needs, if it is said.
    pub(super) fn bytes(&self) -> Option<u64> {
        Some(self.wanted.auto.memory_each.as_ref()?.value)
    }

    /// What is asked for, such as `4 tenants with 9.00 GiB each, isolated in hardware`.
    pub(super) fn spelled(&self) -> String {
        let mut text = match self.count() {
            Some(1) => "1 tenant".to_owned(),
            Some(count) => format!("{count} tenants"),
            None => "tenants".to_owned(),
        };
        if let Some(bytes) = self.bytes() {
            text.push_str(&format!(" with {} each", gib(bytes)));
        }
        match self.wanted.auto.isolation.value {
            Isolation::Any => {}
            Isolation::Hardware => text.push_str(", isolated in hardware"),
            Isolation::Software => text.push_str(", without isolation in hardware"),
        }
        text
    }

    /// These values instead of the user's; `change` gets the place of what is asked for.
    pub(super) fn serve(
        &self,
        change: impl FnOnce(&mut Wanted, Option<Origin>),
        why: String,
    ) -> Served {
        let mut wanted = self.wanted.clone();
        change(&mut wanted, self.wanted.auto.origin.clone());
        Served { wanted, why }
    }
}

/// `9.00 GiB`.
pub(super) fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1_u32 << 30))
}

/// Whether the user has switched a technology off.
pub(super) fn switched_off(switch: &Located<bool>) -> Result<(), String> {
    match switch.is_written() && !switch.value {
        true => Err("its `enabled` is false".to_owned()),
        false => Ok(()),
    }
}

/// By GPU instances of one profile: the smallest that holds what each needs, or else the
/// largest of which there are enough.
pub(super) fn by_mig(tenants: &Tenants<'_>) -> Result<Served, String> {
    switched_off(&tenants.wanted.mig.enabled)?;
    let nvidia = tenants.gpu.nvidia.known();
    let nvidia = nvidia.ok_or("the driver does not answer for the card")?;
    let mig = nvidia.mig.known();
    let mig = mig.ok_or("the driver offers none on this card")?;
    let geometry = Geometry::of_host(&nvidia.name, mig, tenants.model);
    let geometry = geometry.ok_or("its profiles are not known")?;
    let offers = offers(&geometry, mig, tenants.model);
    let enough: Vec<&(usize, u64)> = match tenants.bytes() {
        Some(bytes) => offers
            .iter()
            .filter(|(_, mib)| mib * MIB >= bytes)
            .collect(),
        None => offers.iter().collect(),
    };
    let Some((smallest, _)) = enough.first() else {
        return Err(match offers.last() {
            Some((largest, mib)) => format!(
                "its largest instance, {}, has {}",
                geometry.profiles[*largest].name,
                gib(mib * MIB)
            ),
            None => "the memory of its instances is not known".to_owned(),
        });
    };
    let most = |profile: usize| advice::most_of(&geometry, profile);
    let chosen = match (tenants.count(), tenants.bytes()) {
        (None, _) => Some((*smallest, most(*smallest))),
        (Some(count), Some(_)) => {
            let first = enough.iter().find(|(profile, _)| most(*profile) >= count);
            first.map(|(profile, _)| (*profile, count))
        }
        (Some(count), None) => {
            let last = enough
                .iter()
                .rev()
                .find(|(profile, _)| most(*profile) >= count);
            last.map(|(profile, _)| (*profile, count))
        }
    };
    let Some((profile, count)) = chosen else {
        let name = &geometry.profiles[*smallest].name;
        return Err(format!("at most {} × {name} fit on it", most(*smallest)));
    };
    let name = geometry.profiles[profile].name.clone();
    let memory = offers.iter().find(|(index, _)| *index == profile);
    let each = memory.map_or_else(String::new, |(_, mib)| format!(" of {}", gib(mib * MIB)));
    let why = format!(
        "{count} × {name}{each} keep {} apart in hardware",
        tenants.spelled_short()
    );
    Ok(tenants.serve(
        |wanted, origin| {
            let one = Located {
                value: name,
                origin,
            };
            wanted.mig.listed = vec![one; count as usize];
            wanted.mig.gpu_instance_count.value = 1;
        },
        why,
    ))
}

impl Tenants<'_> {
    /// How many there are, such as `4 tenants`.
    pub(super) fn spelled_short(&self) -> String {
        match self.count() {
            Some(1) => "1 tenant".to_owned(),
            Some(count) => format!("{count} tenants"),
            None => "tenants".to_owned(),
        }
    }
}

/// Profiles without special engines with their memory in MiB, smallest first. The host's own
/// listing wins over the catalog.
fn offers(geometry: &Geometry, mig: &MigState, model: Option<&Model>) -> Vec<(usize, u64)> {
    let listed = mig.profiles.known().map_or(&[][..], Vec::as_slice);
    let rows = model
        .and_then(|model| model.mig.as_ref())
        .map_or(&[][..], |mig| &mig.profiles);
    let memory = |id: u32| {
        let told = listed.iter().find(|profile| profile.id == id);
        let told = told.map(|profile| u64::from(profile.memory_centi_gib) * 1024 / 100);
        told.or_else(|| rows.iter().find(|row| row.id == Some(id))?.memory_mib)
    };
    let mut offers: Vec<(usize, u64)> = geometry
        .profiles
        .iter()
        .enumerate()
        .filter(|(_, profile)| profile.media == Media::Share && !profile.name.contains('+'))
        .filter_map(|(index, profile)| Some((index, memory(profile.id)?)))
        .collect();
    offers.sort_by_key(|(index, mib)| (*mib, geometry.profiles[*index].compute));
    offers
}

/// By virtual functions: the smallest number on offer that is enough.
pub(super) fn by_functions(tenants: &Tenants<'_>) -> Result<Served, String> {
    switched_off(&tenants.wanted.sriov.enabled)?;
    let sriov = tenants.gpu.sriov.known();
    let total = sriov.map_or(0, |sriov| sriov.total_vfs);
    if total == 0 || !super::sriov::can(tenants.gpu) {
        return Err("it can have no virtual functions as it is".to_owned());
    }
    let wanted = tenants.count();
    let asked = wanted.unwrap_or(tenants.wanted.sriov.vf_count.value);
    let counts = tenants.model.map_or(&[][..], |model| &model.vf_counts);
    let count = match counts {
        [] => Some(asked),
        counts => counts.iter().copied().filter(|count| *count >= asked).min(),
    };
    let count = count.filter(|count| *count <= total);
    let count = count.ok_or_else(|| {
        let most = counts.iter().copied().max().unwrap_or(total).min(total);
        format!("it has at most {most} virtual functions")
    })?;
    if let Some(bytes) = tenants.bytes() {
        let memory = tenants.model.and_then(|model| model.vf_memory_mib);
        let memory = memory.ok_or("how much memory its virtual functions have is not known")?;
        let each = memory * MIB / u64::from(count.max(1));
        if each < bytes {
            return Err(format!(
                "each of {count} virtual functions has {}",
                gib(each)
            ));
        }
    }
    let why = format!(
        "{count} virtual functions keep {} apart in hardware",
        tenants.spelled_short()
    );
    Ok(tenants.serve(
        |wanted, origin| {
            wanted.sriov.vf_count = Located {
                value: count,
                origin,
            };
        },
        why,
    ))
}

/// By turns on the whole card.
pub(super) fn by_turns(tenants: &Tenants<'_>) -> Result<Served, String> {
    let block = &tenants.wanted.time_slicing;
    switched_off(&block.enabled)?;
    let nvidia = tenants.gpu.nvidia.known();
    let nvidia = nvidia.ok_or("the driver does not answer for the card")?;
    let count = tenants.count().unwrap_or(block.max_instance_count.value);
    if count < 2 {
        return Err(
            "one tenant takes turns with nobody; `strategy: none` gives it the whole card"
                .to_owned(),
        );
    }
    if let Some(bytes) = tenants.bytes() {
        let memory = nvidia.memory_mib.known().copied();
        let memory = memory.or_else(|| tenants.model?.memory_mib);
        let memory = memory.ok_or("the card's memory is not known")? * MIB;
        if bytes.saturating_mul(count.into()) > memory {
            return Err(format!("the card has {} in all", gib(memory)));
        }
    }
    let why = format!("{} take turns on the whole card", tenants.spelled_short());
    Ok(tenants.serve(
        |wanted, origin| {
            wanted.time_slicing.max_instance_count = Located {
                value: count,
                origin,
            };
        },
        why,
    ))
}

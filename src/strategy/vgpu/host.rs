//! The host's side: from wanted types to a place for each vGPU.

use crate::catalog::Technology;
use crate::desired::Located;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, HostModel, VgpuHost, VgpuType};

use super::layout::{existing, find, offer, place};
use super::steps::Devices;
use crate::strategy::{Ask, Decision, mig};

/// What is to become of a card of a host.
pub(super) fn decide(ask: &Ask<'_>, host: &VgpuHost) -> Result<Decision, Problems> {
    let gpu = ask.gpu;
    let label = gpu.label();
    let wanted = &ask.wanted.vgpu;
    let nvidia = gpu.nvidia.known().ok_or_else(|| mig::unseen(gpu))?;
    let types = match &host.types {
        Fact::Known(types) => types,
        Fact::Absent => &Vec::new(),
        Fact::Unknown(why) => {
            let message = format!("the vGPU types of {label} are not known: {why}");
            return Err(Diagnostic::error(message).into());
        }
    };
    if wanted.named().next().is_none() {
        let missing = Diagnostic::error(format!("{label}: `vgpu.profile` names no type"))
            .hint(offer("", &shorts(types)));
        return Err(ask.wanted.strategy.blame(missing).into());
    }
    let functions = functions(ask)?;
    let chosen = choose(ask, types, functions)?;
    let heterogeneous = wanted.heterogeneous.value;
    refuse_mixture(ask, host, &chosen)?;
    let Some(existing) = existing(gpu, host) else {
        let why = host.existing.unknown().unwrap_or("no reason given");
        let message = format!("the vGPUs of {label} cannot be read: {why}");
        return Err(Diagnostic::error(message).into());
    };
    let ids: Vec<u32> = chosen.iter().map(|(_, kind)| kind.id).collect();
    let Some(placed) = place(&nvidia.uuid.0, functions, &ids, &existing) else {
        let most = functions.unwrap_or(0);
        let message = format!(
            "{label} has {most} virtual functions, and {} vGPUs are asked for",
            ids.len()
        );
        return Err(blame(ask, Diagnostic::error(message)).into());
    };
    let instances = instances(&chosen);
    let on_instances = !instances.is_empty();
    let layout = match on_instances {
        true => Some(mig::layout_of(ask, &instances)?),
        false => None,
    };
    let names = chosen.iter().map(|(_, kind)| kind.name.clone());
    let mut decision = ask.decision(
        Technology::Vgpu,
        Devices {
            placed,
            names: names.collect(),
            heterogeneous: match (heterogeneous && !on_instances, &host.heterogeneous) {
                (true, _) => Some(true),
                (false, Fact::Known(_)) => Some(false),
                (false, _) => None,
            },
            layout,
        },
    );
    decision.notes.push(match on_instances {
        true => {
            "each vGPU has a GPU instance's hardware, or a share of it where several fit in one"
                .to_owned()
        }
        false => "vGPUs have memory of their own and share the card's engines in turns".to_owned(),
    });
    if nvidia.persistence.known() == Some(&false) && functions.is_some() {
        decision.notes.push(format!(
            "{label}: persistence mode is off; each first use of the card takes longer"
        ));
    }
    Ok(decision)
}

fn shorts(types: &[VgpuType]) -> Vec<&str> {
    types.iter().map(VgpuType::short).collect()
}

/// How many virtual functions the card can have; none where it carries vGPUs itself.
fn functions(ask: &Ask<'_>) -> Result<Option<u32>, Diagnostic> {
    match &ask.gpu.sriov {
        Fact::Known(sriov) if sriov.total_vfs == 0 => Err(ask.wanted.strategy.blame(
            Diagnostic::error(format!("{} allows no virtual function", ask.gpu.label()))
                .hint("switch SR-IOV on in the firmware's setup"),
        )),
        Fact::Known(sriov) => Ok(Some(sriov.total_vfs)),
        Fact::Absent => Ok(None),
        Fact::Unknown(why) => Err(Diagnostic::error(format!(
            "the SR-IOV attributes of {} could not be read: {why}",
            ask.gpu.label()
        ))),
    }
}

/// The wanted types, each with the word that named it.
fn choose<'a>(
    ask: &Ask<'a>,
    types: &'a [VgpuType],
    functions: Option<u32>,
) -> Result<Vec<(&'a Located<String>, &'a VgpuType)>, Problems> {
    let wanted = &ask.wanted.vgpu;
    let mut problems = Problems::default();
    let mut chosen = Vec::new();
    for name in wanted.named() {
        let Some(kind) = find(types, &name.value) else {
            let message = format!("{} offers no vGPU type `{}`", ask.gpu.label(), name.value);
            let found = Diagnostic::error(message).hint(offer(&name.value, &shorts(types)));
            problems.push(name.blame(found));
            continue;
        };
        let most = kind.max_instances.known().copied().unwrap_or(u32::MAX);
        let most = most.min(functions.unwrap_or(u32::MAX));
        let count = match (&wanted.count, wanted.profiles.is_empty()) {
            (_, false) => 1,
            (Some(count), true) => count.value,
            // Nothing says how many there are at most.
            (None, true) if most == u32::MAX => 1,
            (None, true) => most,
        };
        chosen.extend(std::iter::repeat_n((name, kind), count as usize));
    }
    for (name, kind) in &chosen {
        let Some(most) = kind.max_instances.known() else {
            continue;
        };
        let most = (*most).min(functions.unwrap_or(u32::MAX));
        let alike = chosen.iter().filter(|(_, other)| other.id == kind.id);
        let count = alike.count();
        if count > most as usize {
            let message = format!(
                "{} carries at most {most} vGPUs of {}, not {count}",
                ask.gpu.label(),
                kind.short()
            );
            let found = match &wanted.count {
                Some(at) => at.blame(Diagnostic::error(message)),
                None => name.blame(Diagnostic::error(message)),
            };
            if !problems.0.contains(&found) {
                problems.push(found);
            }
        }
    }
    problems.or(chosen)
}

/// Whether the types can be on the card together.
fn refuse_mixture(
    ask: &Ask<'_>,
    host: &VgpuHost,
    chosen: &[(&Located<String>, &VgpuType)],
) -> Result<(), Diagnostic> {
    let label = ask.gpu.label();
    let heterogeneous = &ask.wanted.vgpu.heterogeneous;
    let Some((_, first)) = chosen.first() else {
        return Ok(());
    };
    let on_instance = |kind: &VgpuType| kind.gi_profile.known().is_some();
    if let Some((name, _)) = chosen
        .iter()
        .find(|(_, kind)| on_instance(kind) != on_instance(first))
    {
        let message = format!(
            "{label}: types on GPU instances and types that share the card in turns cannot be on one card"
        );
        return Err(name.blame(Diagnostic::error(message)));
    }
    if on_instance(first) {
        return Ok(());
    }
    let size = |kind: &VgpuType| kind.framebuffer_mib.known().copied();
    if heterogeneous.value {
        if host.model == Fact::Known(HostModel::Mdev) && host.heterogeneous == Fact::Absent {
            let message = format!("{label}: this driver has no heterogeneous mode for it");
            let hint = "Ada and later cards have it with R550; give types of one framebuffer";
            return Err(heterogeneous.blame(Diagnostic::error(message).hint(hint)));
        }
        let whole = host
            .types
            .known()
            .into_iter()
            .flatten()
            .filter_map(size)
            .max();
        let used: u64 = chosen.iter().filter_map(|(_, kind)| size(kind)).sum();
        return match whole {
            Some(whole) if used > whole => Err(blame(
                ask,
                Diagnostic::error(format!(
                    "{label} has {whole} MiB for vGPUs, and {used} MiB are asked for"
                )),
            )),
            _ => Ok(()),
        };
    }
    if let Some((name, kind)) = chosen.iter().find(|(_, kind)| size(kind) != size(first)) {
        let message = format!(
            "{label}: {} and {} have different framebuffers, and the card takes vGPUs of one size only",
            first.short(),
            kind.short()
        );
        let hint = "give one size, or `heterogeneous: true` where the driver has it";
        return Err(name.blame(Diagnostic::error(message).hint(hint)));
    }
    let most = chosen
        .iter()
        .filter_map(|(_, kind)| kind.max_instances.known())
        .max();
    match most {
        Some(most) if chosen.len() > *most as usize => Err(blame(
            ask,
            Diagnostic::error(format!(
                "{label} carries at most {most} vGPUs of this framebuffer, not {}",
                chosen.len()
            )),
        )),
        _ => Ok(()),
    }
}

fn blame(ask: &Ask<'_>, found: Diagnostic) -> Diagnostic {
    match ask.wanted.vgpu.named().next() {
        Some(name) => name.blame(found),
        None => ask.wanted.strategy.blame(found),
    }
}

/// The GPU instance profiles that the types live in, as often as they are needed.
fn instances(chosen: &[(&Located<String>, &VgpuType)]) -> Vec<u32> {
    let mut profiles: Vec<(u32, u32, u32)> = Vec::new();
    for (_, kind) in chosen {
        let Some(profile) = kind.gi_profile.known() else {
            continue;
        };
        let room = kind.max_per_gi.known().copied().unwrap_or(1).max(1);
        match profiles.iter_mut().find(|(other, ..)| other == profile) {
            Some((_, count, least)) => {
                *count += 1;
                *least = (*least).min(room);
            }
            None => profiles.push((*profile, 1, room)),
        }
    }
    profiles
        .into_iter()
        .flat_map(|(profile, count, room)| {
            std::iter::repeat_n(profile, count.div_ceil(room) as usize)
        })
        .collect()
}

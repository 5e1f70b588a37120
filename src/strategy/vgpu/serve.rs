//! What tenants get of a card by vGPU: a virtual machine each, with memory of its own.

use crate::desired::Located;
use crate::facts::VgpuType;
use crate::strategy::tenants::{MIB, Served, Tenants, gib, switched_off};

/// By vGPUs of one type that share the card's engines in turns: the smallest framebuffer that
/// holds what each needs, or else the largest of which there are enough.
pub(super) fn by_vgpus(tenants: &Tenants<'_>) -> Result<Served, String> {
    switched_off(&tenants.wanted.vgpu.enabled)?;
    let host = tenants.gpu.vgpu.known().and_then(|vgpu| vgpu.host());
    let host = host.ok_or("NVIDIA's vGPU host driver is not installed")?;
    let types = host.types.known();
    let types = types.ok_or("its types of vGPU are not known")?;
    let functions = tenants.gpu.sriov.known();
    let functions = functions.map_or(u32::MAX, |sriov| sriov.total_vfs);
    let mut offers: Vec<(u64, u32, &VgpuType)> = of_one_series(types)
        .into_iter()
        .filter(|kind| kind.gi_profile.known().is_none())
        .filter_map(|kind| {
            let most = *kind.max_instances.known()?;
            Some((*kind.framebuffer_mib.known()?, most.min(functions), kind))
        })
        .collect();
    offers.sort_by_key(|(framebuffer, ..)| *framebuffer);
    let holds = |(framebuffer, ..): &&(u64, u32, &VgpuType)| {
        tenants
            .bytes()
            .is_none_or(|bytes| framebuffer * MIB >= bytes)
    };
    let mut enough = offers.iter().filter(holds);
    let Some(smallest) = enough.clone().next() else {
        return Err(match offers.last() {
            Some((framebuffer, _, kind)) => format!(
                "its largest type, {}, has {}",
                kind.short(),
                gib(framebuffer * MIB)
            ),
            None => "the framebuffers of its types are not known".to_owned(),
        });
    };
    let chosen = match (tenants.count(), tenants.bytes()) {
        (None, None) => return Err("neither `tenants` nor `memory_each` is given".to_owned()),
        (None, Some(_)) => Some((smallest, smallest.1)),
        (Some(count), Some(_)) => enough
            .find(|(_, most, _)| *most >= count)
            .map(|o| (o, count)),
        (Some(count), None) => enough
            .rev()
            .find(|(_, most, _)| *most >= count)
            .map(|offer| (offer, count)),
    };
    let Some(((framebuffer, _, kind), count)) = chosen else {
        let (_, most, kind) = smallest;
        return Err(format!("at most {most} × {} fit on it", kind.short()));
    };
    let name = kind.short().to_owned();
    let why = format!(
        "{count} × {name} of {} give {} a virtual machine each, with memory of its own",
        gib(framebuffer * MIB),
        tenants.spelled_short()
    );
    Ok(tenants.serve(
        |wanted, origin| {
            wanted.vgpu.profile = Located {
                value: name,
                origin: origin.clone(),
            };
            wanted.vgpu.count = Some(Located {
                value: count,
                origin,
            });
            wanted.vgpu.profiles = Vec::new();
        },
        why,
    ))
}

/// The types of the series with the fewest limits that the card has: `C` for computing, `Q` for
/// workstations, else all.
fn of_one_series(types: &[VgpuType]) -> Vec<&VgpuType> {
    for series in ['C', 'Q'] {
        let found: Vec<&VgpuType> = types
            .iter()
            .filter(|kind| kind.short().ends_with(series))
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    types.iter().collect()
}

//! What tenants get of a card that is cut up: a device each.

use crate::desired::Located;
use crate::facts::{AmdDriver, AmdGpu};
use crate::strategy::tenants::{MIB, Served, Tenants, gib, switched_off};

use super::devices;

/// Compute modes from few devices to many.
const MODES: [&str; 4] = ["DPX", "TPX", "QPX", "CPX"];

/// By the compute mode with the fewest devices that are enough. The memory mode is left as it
/// is: it is that of a whole hive.
pub(super) fn by_partitions(tenants: &Tenants<'_>) -> Result<Served, String> {
    switched_off(&tenants.wanted.partition.enabled)?;
    let amd = tenants.gpu.amd.known();
    let amd = amd.filter(|amd| amd.driver == AmdDriver::Amdgpu);
    let amd = amd.ok_or("it takes the driver `amdgpu`")?;
    let modes = amd.compute.known();
    let modes = modes.ok_or("the driver shows no partition modes")?;
    let offered = modes.available.known();
    let offered = offered.ok_or("which modes it offers is not known")?;
    let asked = tenants.count().unwrap_or(2);
    if asked < 2 {
        return Err(
            "one tenant needs no partition; `strategy: none` gives it the whole card".to_owned(),
        );
    }
    let mut counted: Vec<(&'static str, u32)> = MODES
        .into_iter()
        .filter(|mode| offered.iter().any(|word| word == mode))
        .filter_map(|mode| Some((mode, devices(amd, mode)?)))
        .collect();
    counted.sort_by_key(|(_, count)| *count);
    let most = counted.last().map_or(1, |(_, count)| *count);
    let enough = counted.into_iter().find(|(_, count)| *count >= asked);
    let Some((mode, count)) = enough else {
        return Err(format!("it has at most {most} partitions"));
    };
    let each = memory_each(amd, tenants, count);
    if let Some(bytes) = tenants.bytes() {
        let each = each.ok_or("the card's memory is not known")?;
        if each < bytes {
            return Err(format!("each of {count} partitions has {}", gib(each)));
        }
    }
    let memory = each.map_or_else(String::new, |each| format!(" of {}", gib(each)));
    let why = format!(
        "{count} partitions{memory} ({mode}) give {} a device each; a fault of one may reset the whole card",
        tenants.spelled_short()
    );
    Ok(tenants.serve(
        |wanted, origin| {
            wanted.partition.compute = Some(Located {
                value: mode,
                origin,
            });
        },
        why,
    ))
}

/// The driver gives each device its part of the memory, whichever the memory mode is.
fn memory_each(amd: &AmdGpu, tenants: &Tenants<'_>, count: u32) -> Option<u64> {
    let known = amd.memory_mib.known().copied();
    let mib = known.or_else(|| tenants.model?.memory_mib)?;
    Some(mib * MIB / u64::from(count.max(1)))
}

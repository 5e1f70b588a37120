//! What tenants get of a card by MPS: a limit on the memory and the threads of each.

use crate::desired::Located;
use crate::strategy::tenants::{MIB, Served, Tenants, gib, switched_off};

/// Clients that one MPS server takes since Volta, says its documentation.
const MOST_CLIENTS: u64 = 48;

/// By limits for each client, where there is something to limit: without, turns serve as well,
/// and under them a fault of one tenant ends no other.
pub(super) fn by_limits(tenants: &Tenants<'_>) -> Result<Served, String> {
    let block = &tenants.wanted.mps;
    switched_off(&block.enabled)?;
    let nvidia = tenants.gpu.nvidia.known();
    let nvidia = nvidia.ok_or("the driver does not answer for the card")?;
    let Some(bytes) = tenants.bytes() else {
        return Err(
            "it bounds the memory of each tenant, and `memory_each` is not given".to_owned(),
        );
    };
    let memory = nvidia.memory_mib.known().copied();
    let memory = memory.or_else(|| tenants.model?.memory_mib);
    let memory = memory.ok_or("the card's memory is not known")? * MIB;
    let fit = memory / bytes.max(1);
    let count = tenants.count().map_or(fit.min(MOST_CLIENTS), u64::from);
    if count < 2 {
        return Err(match fit {
            0 | 1 => format!("the card has {} in all", gib(memory)),
            _ => {
                "one tenant shares with nobody; `strategy: none` gives it the whole card".to_owned()
            }
        });
    }
    if count > MOST_CLIENTS {
        return Err(format!("it takes at most {MOST_CLIENTS} clients"));
    }
    if count > fit {
        return Err(format!("the card has {} in all", gib(memory)));
    }
    let mib = bytes.div_ceil(MIB);
    let clients = u32::try_from(count).unwrap_or(u32::MAX);
    let why = format!(
        "MPS bounds each of {clients} tenants to {} of memory, which turns do not; a fatal fault of one ends the others too",
        gib(mib * MIB)
    );
    Ok(tenants.serve(
        |wanted, origin| {
            wanted.mps.max_clients = Some(Located {
                value: clients,
                origin: origin.clone(),
            });
            wanted.mps.memory_limit_mib = Some(Located { value: mib, origin });
        },
        why,
    ))
}

//! What `xpu-smi` writes into the drivers' files, and what it reads there.

use std::io;

use super::{CONTEXTS, Card, DOORBELLS, Driver, GGTT, card_at, driver_of, function_link, i915, xe};
use crate::sim::machine::Host;

/// Turns and times to give way, of a virtual function and of the physical one: milliseconds
/// and microseconds, by the formulas of its `vgpu_manager.cpp`.
fn schedule(card: &Card, count: u32) -> [(&'static str, u64); 4] {
    let count = u64::from(count.max(1));
    let (quantum, timeout) = if card.device >> 8 == 0x56 {
        let timeout = if count == 1 {
            128_000
        } else {
            (64_000 / count).max(16_000)
        };
        ((32 / count).max(1), timeout)
    } else {
        let turn = 2000 / (count - 1).max(1);
        let quantum = (turn / 2).min(50);
        (quantum, (turn - quantum) * 1000)
    };
    let (pf_quantum, pf_timeout) = if card.device >> 8 == 0x0b {
        (64, 128_000)
    } else {
        (20, 20_000)
    };
    [
        ("exec_quantum_ms", quantum),
        ("preempt_timeout_us", timeout),
        ("exec_quantum_ms", pf_quantum),
        ("preempt_timeout_us", pf_timeout),
    ]
}

/// Writes the shares of `count` virtual functions, each of `memory` bytes; zeros without.
pub(in crate::sim) fn share_by_tool(
    host: &Host,
    address: &str,
    count: u32,
    memory: Option<u64>,
) -> io::Result<()> {
    let (Some(card), Some(driver)) = (card_at(host, address), driver_of(host, address)) else {
        return Ok(());
    };
    let [quantum, timeout, pf_quantum, pf_timeout] = schedule(card, count);
    let clear = memory.is_none();
    let value = |value: u64| {
        if clear {
            "0".to_owned()
        } else {
            value.to_string()
        }
    };
    match driver {
        Driver::Xe => {
            for function in 1..=count {
                let name = format!("vf{function}");
                for (file, number) in [quantum, timeout] {
                    xe::set(host, address, &name, file, &value(number))?;
                }
                let bytes = memory.unwrap_or(0).to_string();
                xe::set(host, address, &name, "vram_quota", &bytes)?;
            }
            Ok(())
        }
        Driver::I915 => {
            for unit in i915::units(card) {
                for (file, number) in [pf_quantum, pf_timeout] {
                    i915::write(host, address, &format!("pf/{unit}"), file, &value(number))?;
                }
            }
            for function in 1..=count {
                let units = i915::units_of(card, function, count);
                let parts = u64::try_from(units.len()).unwrap_or(1);
                let each = u64::from(count).div_ceil(u64::from(card.tiles.min(count)));
                for unit in units {
                    let folder = format!("vf{function}/{unit}");
                    for (file, number) in [
                        quantum,
                        timeout,
                        ("lmem_quota", memory.unwrap_or(0) / parts),
                        ("ggtt_quota", GGTT / each),
                        ("doorbells_quota", DOORBELLS / each),
                        ("contexts_quota", (CONTEXTS / each).min(1024)),
                    ] {
                        i915::write(host, address, &folder, file, &value(number))?;
                    }
                }
            }
            Ok(())
        }
    }
}

/// Address and device memory of each of the first `count` virtual functions.
pub(in crate::sim) fn shares(host: &Host, address: &str, count: u32) -> Vec<(String, u64)> {
    let (Some(card), Some(driver)) = (card_at(host, address), driver_of(host, address)) else {
        return Vec::new();
    };
    let share = |function| {
        let link = function_link(host, address, function)?;
        let bytes = match driver {
            Driver::Xe => xe::memory(host, address, function),
            Driver::I915 => i915::memory(host, card, address, function),
        };
        Some((link.rsplit('/').next()?.to_owned(), bytes))
    };
    (1..=count).filter_map(share).collect()
}

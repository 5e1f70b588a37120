//! `mps`: NVIDIA's Multi-Process Service on a card, or on each MIG device of one.

use crate::error::Origin;

use super::block::{Block, Located, wrong_kind};

/// Clients that one MPS server takes since Volta, says its documentation.
const MOST_CLIENTS: u32 = 48;

/// `mps`.
#[derive(Debug, Clone, PartialEq)]
pub struct MpsWanted {
    /// `enabled`. With `strategy: mig` it asks for a daemon on each MIG device.
    pub enabled: Located<bool>,
    /// `active_thread_percentage`: share of the multiprocessors that a client may use, 1 to 100.
    pub active_thread_percentage: Option<Located<u32>>,
    /// `memory_limit`: device memory that a client may pin, in MiB.
    pub memory_limit_mib: Option<Located<u64>>,
    /// `max_clients`: for how many clients the card is divided, where the two above are not
    /// given.
    pub max_clients: Option<Located<u32>>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

pub(super) fn read(parent: &mut Block<'_, '_>) -> MpsWanted {
    let mut block = parent.child("mps");
    let origin = block.origin.clone();
    let wanted = MpsWanted {
        enabled: block.flag("enabled", false),
        active_thread_percentage: written(block.count("active_thread_percentage", 100, 1, 100)),
        memory_limit_mib: read_memory(&mut block),
        max_clients: written(block.count("max_clients", 2, 2, MOST_CLIENTS)),
        origin,
    };
    block.finish();
    wanted
}

fn written(count: Located<u32>) -> Option<Located<u32>> {
    count.is_written().then_some(count)
}

fn read_memory(block: &mut Block<'_, '_>) -> Option<Located<u64>> {
    let node = block.node("memory_limit")?;
    let value = node.as_str().and_then(parse_memory);
    if value.is_none() {
        let path = block.path_of("memory_limit");
        let wanted = "an amount of memory with its unit such as `8G` or `512M`";
        block.problems.push(wrong_kind(&path, wanted, node));
    }
    Some(Located {
        value: value?,
        origin: Some(node.origin.clone()),
    })
}

/// MiB of `8G` or `512M`, the two units that the control program takes.
fn parse_memory(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let mib = match unit {
        "G" => number.checked_mul(1024)?,
        "M" => number,
        _ => return None,
    };
    // What no card has is a slip of the finger.
    (1..=1 << 24).contains(&mib).then_some(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_the_units_of_the_control_program() {
        assert_eq!(parse_memory("8G"), Some(8192));
        assert_eq!(parse_memory("900M"), Some(900));
        for wrong in [
            "",
            "G",
            "8",
            "0M",
            "8g",
            "1.5G",
            "-1G",
            "99999999999G",
            "8Ｇ",
        ] {
            assert_eq!(parse_memory(wrong), None, "{wrong}");
        }
    }
}

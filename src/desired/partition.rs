//! `partition`: compute and memory partitions of AMD's cards.

use crate::error::Origin;

use super::block::{Block, Located};

/// `partition`.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `compute`: `SPX`, `DPX`, `TPX`, `QPX` or `CPX`; left as it is if not given.
    pub compute: Option<Located<&'static str>>,
    /// `memory`: `NPS1`, `NPS2`, `NPS4` or `NPS8`; left as it is if not given.
    pub memory: Option<Located<&'static str>>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// The kernel's words, which it takes in any case.
const COMPUTE: [(&str, &str); 10] = [
    ("SPX", "SPX"),
    ("DPX", "DPX"),
    ("TPX", "TPX"),
    ("QPX", "QPX"),
    ("CPX", "CPX"),
    ("spx", "SPX"),
    ("dpx", "DPX"),
    ("tpx", "TPX"),
    ("qpx", "QPX"),
    ("cpx", "CPX"),
];
const MEMORY: [(&str, &str); 8] = [
    ("NPS1", "NPS1"),
    ("NPS2", "NPS2"),
    ("NPS4", "NPS4"),
    ("NPS8", "NPS8"),
    ("nps1", "NPS1"),
    ("nps2", "NPS2"),
    ("nps4", "NPS4"),
    ("nps8", "NPS8"),
];

pub(super) fn read(parent: &mut Block<'_, '_>) -> PartitionWanted {
    let mut block = parent.child("partition");
    let origin = block.origin.clone();
    let wanted = PartitionWanted {
        enabled: block.flag("enabled", false),
        compute: Some(block.word("compute", "", &COMPUTE)).filter(Located::is_written),
        memory: Some(block.word("memory", "", &MEMORY)).filter(Located::is_written),
        origin,
    };
    block.finish();
    wanted
}

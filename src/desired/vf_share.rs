//! The share that each virtual function of a card gets: further keys of `sriov`.
//!
//! What is not given, the kernel driver divides evenly. Which driver takes which of them,
//! `strategy` finds out.

use std::fmt;

use super::block::{Block, Located};

/// The keys; absent ones are left to the driver.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VfShareWanted {
    /// `vram_quota_mib`: device memory of each virtual function in MiB.
    pub vram_quota_mib: Option<Located<u32>>,
    /// `exec_quantum_ms`: longest turn of each in milliseconds; 0 for no limit.
    pub exec_quantum_ms: Option<Located<u32>>,
    /// `preempt_timeout_us`: how long each may take to give way, in microseconds; 0 for no limit.
    pub preempt_timeout_us: Option<Located<u32>>,
    /// `sched_priority`.
    pub sched_priority: Option<Located<SchedPriority>>,
}

impl VfShareWanted {
    /// The names of the keys that are given, and where the first of them stands.
    #[must_use]
    pub fn given(&self) -> Vec<(&'static str, Located<()>)> {
        fn at<T>(value: Option<&Located<T>>) -> Option<Located<()>> {
            value.map(|value| Located {
                value: (),
                origin: value.origin.clone(),
            })
        }
        [
            ("vram_quota_mib", at(self.vram_quota_mib.as_ref())),
            ("exec_quantum_ms", at(self.exec_quantum_ms.as_ref())),
            ("preempt_timeout_us", at(self.preempt_timeout_us.as_ref())),
            ("sched_priority", at(self.sched_priority.as_ref())),
        ]
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)))
        .collect()
    }
}

/// `sched_priority`: when a virtual function has its turn. The highest is for the card itself,
/// so that the host stays in command, and no virtual function can have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedPriority {
    /// Only while it has work.
    Low,
    /// Whether it has work or not, so that all get the same time.
    Normal,
}

impl fmt::Display for SchedPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
        })
    }
}

/// Reads the keys where they stand in `sriov`.
pub(super) fn read(block: &mut Block<'_, '_>) -> VfShareWanted {
    let mut number = |key: &'static str, least: u32, most: u32| {
        block.node(key)?;
        Some(block.count(key, least, least, most))
    };
    VfShareWanted {
        // A TiB, which no card has.
        vram_quota_mib: number("vram_quota_mib", 1, 1 << 20),
        exec_quantum_ms: number("exec_quantum_ms", 0, 1_000_000),
        preempt_timeout_us: number("preempt_timeout_us", 0, 1_000_000_000),
        sched_priority: {
            let word = block.word(
                "sched_priority",
                SchedPriority::Low,
                &[
                    ("low", SchedPriority::Low),
                    ("normal", SchedPriority::Normal),
                ],
            );
            word.is_written().then_some(word)
        },
    }
}

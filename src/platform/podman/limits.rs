//! What a container may use of its host: `resource_limits` of
//! `containers_gpu_container_integration`, and what a container says over it.
//!
//! They hold by control groups of version 2. Only what was written is a limit: the defaults
//! that the block has in other places must not end a container that nobody bounded.

use crate::desired::{Block, Integration, Located};
use crate::error::{Diagnostic, Problems};
use crate::value::Value;

use super::wanted::Container;

/// `resource_limits` of a container; what is not written comes from the host's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Limits {
    /// `memory_gb`: GB of the host's memory.
    pub(super) memory_gb: Option<Located<f64>>,
    /// `compute_units`: processors of the host.
    pub(super) compute_units: Option<Located<u32>>,
    /// `gpu_instances`: slices where `gpu` gives no count.
    pub(super) gpu_instances: Option<Located<u32>>,
    /// `pids`: processes and threads.
    pub(super) pids: Option<Located<u32>>,
}

/// The limits that a container has in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    /// Bytes of memory, swap not included.
    pub(super) memory: Option<u64>,
    /// Processors.
    pub(super) processors: Option<u32>,
    /// Processes and threads.
    pub(super) pids: Option<u32>,
}

/// Bytes of a GB as the seed and podman's `g` mean it.
const GB: f64 = 1024.0 * 1024.0 * 1024.0;

/// podman starts no container with less.
const LEAST_MEMORY: f64 = 6.0 * 1024.0 * 1024.0;

pub(super) fn read(parent: &mut Block<'_, '_>) -> Limits {
    let mut block = parent.child("resource_limits");
    let limits = Limits {
        memory_gb: gigabytes(&mut block),
        compute_units: block.count_if_written("compute_units", 1, 100_000),
        gpu_instances: block.count_if_written("gpu_instances", 1, 64),
        pids: block.count_if_written("pids", 1, 4_194_304),
    };
    block.finish();
    limits
}

fn gigabytes(block: &mut Block<'_, '_>) -> Option<Located<f64>> {
    let node = block.node("memory_gb")?;
    let number = match &node.value {
        Value::Int(value) => u32::try_from(*value).ok().map(f64::from),
        Value::Float(value) => Some(*value),
        Value::Str(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite() && (0.0..=1e6).contains(number));
    if number.is_none() {
        let message = format!(
            "`{}` must be a number of GB above 0",
            block.path_of("memory_gb")
        );
        let problem = Diagnostic::error(message).at(&node.origin);
        block.problems.push(problem);
    }
    Some(Located {
        value: number?,
        origin: Some(node.origin.clone()),
    })
}

pub(super) fn check(container: &Container, problems: &mut Problems) {
    if let Some(memory) = &container.limits.memory_gb
        && memory.value * GB < LEAST_MEMORY
    {
        let message = format!(
            "`memory_gb` of container `{}` is less than podman takes (6 MiB)",
            container.name.value
        );
        problems.push(memory.blame(Diagnostic::error(message)));
    }
}

/// What holds for a container: its own limits over those of its host, as far as written.
pub(super) fn bounds(own: &Limits, integration: &Integration) -> Bounds {
    let host = &integration.resource_limits;
    let memory_gb = own
        .memory_gb
        .as_ref()
        .or(Some(&host.memory_gb).filter(|limit| limit.is_written()));
    let processors = own
        .compute_units
        .as_ref()
        .or(Some(&host.compute_units).filter(|limit| limit.is_written()));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million GB"
    )]
    let memory = memory_gb.map(|limit| (limit.value * GB) as u64);
    Bounds {
        memory,
        processors: processors.map(|limit| limit.value),
        pids: own.pids.as_ref().map(|limit| limit.value),
    }
}

impl Bounds {
    /// The control group controllers without which they do not hold.
    pub(super) fn controllers(&self) -> Vec<&'static str> {
        let needed = [
            ("memory", self.memory.is_some()),
            ("cpu", self.processors.is_some()),
            ("pids", self.pids.is_some()),
        ];
        let needed = needed.into_iter().filter(|(_, needed)| *needed);
        needed.map(|(controller, _)| controller).collect()
    }
}

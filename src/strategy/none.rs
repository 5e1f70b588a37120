//! `strategy: none`: managed and unsliced. Takes away what other strategies made.

use serde_json::Value as Json;

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Wanted};
use crate::error::Problems;
use crate::facts::{Gpu, Vendor};
use crate::step::Step;

use super::passthrough::{self, Return};
use super::power::When;
use super::{
    Ask, Decision, Slices, Strategy, Target, level_zero, mig, partition, sriov, time_slicing, vgpu,
};

pub(super) struct NoSlices;

impl Strategy for NoSlices {
    fn technology(&self) -> Technology {
        Technology::None
    }

    fn is_for(&self, _: Vendor) -> bool {
        true
    }

    fn check(&self, _: &Wanted, _: &Desired, _: &[&Model], _: &mut Problems) {}

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let partitions = partition::unsliced(asks);
        let decide = |(ask, partition): (&Ask<'_>, _)| {
            let handed_over = passthrough::return_of(ask.gpu, ask.host);
            let unsliced = Unsliced {
                partition,
                handed_over,
            };
            ask.decision(Technology::None, unsliced)
        };
        Ok(asks.iter().zip(partitions).map(decide).collect())
    }

    fn library(&self) -> &'static str {
        ""
    }
}

#[derive(Debug)]
struct Unsliced {
    /// Without partitions, of a card that can have some.
    partition: Option<partition::Parted>,
    /// Set where the card was handed over to virtual machines.
    handed_over: Option<Return>,
}

/// Takes away whatever slices a card has that a driver forgets when it loses it.
pub(super) fn removals(gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
    // vGPUs may live in GPU instances, so they go first.
    let mut steps: Vec<Step> = vgpu::removal(gpu)?.into_iter().collect();
    steps.extend(mig::removal(gpu, when)?);
    steps.extend(sriov::removal(gpu));
    steps.extend(time_slicing::removal(gpu, when));
    steps.extend(level_zero::removal(gpu, when));
    Ok(steps)
}

impl Target for Unsliced {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        if let Some(back) = &self.handed_over {
            // Its driver has forgotten all else.
            return Ok(back.step(gpu, when).into_iter().collect());
        }
        let mut steps = removals(gpu, when)?;
        if let Some(whole) = &self.partition {
            steps.extend(whole.steps(gpu, when)?);
        }
        Ok(steps)
    }

    fn needs_boot(&self, gpu: &Gpu) -> Option<String> {
        mig::removal_needs_boot(gpu)
    }

    fn before_boot(&self, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
        mig::removal_before_boot(gpu)
    }

    fn slices(&self) -> Option<Vec<Slices>> {
        Some(Vec::new())
    }

    fn asks_driver(&self, _: &Gpu) -> bool {
        self.handed_over.is_none()
    }

    fn vars(&self, _: &Gpu) -> Json {
        Json::Null
    }
}

//! `strategy: none`: managed and unsliced. What other strategies made, they take away; a card
//! that was handed over is taken back.

use serde_json::Value as Json;

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, Wanted};
use crate::error::Problems;
use crate::facts::{Gpu, Vendor};
use crate::step::Step;

use super::passthrough::{self, Return};
use super::power::When;
use super::{Ask, Decision, Slices, Strategy, Target, mig};

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
        let decide = |ask: &Ask<'_>| {
            let handed_over = passthrough::return_of(ask.gpu, ask.host);
            ask.decision(Technology::None, Unsliced { handed_over })
        };
        Ok(asks.iter().map(decide).collect())
    }

    fn library(&self) -> &'static str {
        ""
    }
}

#[derive(Debug)]
struct Unsliced {
    /// Set where the card was handed over to virtual machines.
    handed_over: Option<Return>,
}

impl Target for Unsliced {
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
        // All else is what others made there, and taken away by them.
        let back = self.handed_over.as_ref();
        Ok(back
            .and_then(|back| back.step(gpu, when))
            .into_iter()
            .collect())
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

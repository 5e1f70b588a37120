//! `vgpu`: which vGPUs a host's cards are to carry, and the licence of a virtual machine.

use crate::error::{Diagnostic, Origin};
use crate::secret::Secret;

use super::block::{Block, Located};

/// `vgpu`.
#[derive(Debug, Clone, PartialEq)]
pub struct VgpuWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `profile`: the type of all vGPUs of a card, such as `L40S-8Q`; empty if not given.
    pub profile: Located<String>,
    /// `count`: how many of `profile`; as many as fit if not given.
    pub count: Option<Located<u32>>,
    /// `profiles`: the type of each vGPU of a card, instead of `profile`.
    pub profiles: Vec<Located<String>>,
    /// `heterogeneous`: whether their framebuffers may differ.
    pub heterogeneous: Located<bool>,
    /// `license_server`: address of a licence server that needs no token; in virtual machines.
    pub license_server: Located<String>,
    /// `license_token`: the client configuration token; in virtual machines.
    pub license_token: Option<Located<Secret>>,
    /// `feature_type`: the licensed product in the driver's numbers (1 vGPU, 2 RTX Virtual
    /// Workstation, 4 Virtual Compute Server, 0 none); in virtual machines.
    pub feature_type: Located<u32>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// More than any card has.
const MOST: u32 = 256;

/// Reads the block.
pub(super) fn read(parent: &mut Block<'_, '_>) -> VgpuWanted {
    let mut block = parent.child("vgpu");
    let origin = block.origin.clone();
    let wanted = VgpuWanted {
        enabled: block.flag("enabled", false),
        profile: block.text("profile", ""),
        count: block.count_if_written("count", 1, MOST),
        profiles: block.texts("profiles").value,
        heterogeneous: block.flag("heterogeneous", false),
        license_server: block.text("license_server", ""),
        license_token: block.secret("license_token"),
        feature_type: block.count("feature_type", 1, 0, 4),
        origin,
    };
    if wanted.feature_type.value == 3 {
        let wrong = Diagnostic::error("`vgpu.feature_type` has no value 3")
            .hint("1 is vGPU, 2 RTX Virtual Workstation, 4 Virtual Compute Server, 0 none");
        block.problems.push(wanted.feature_type.blame(wrong));
    }
    if let Some(first) = wanted.profiles.first() {
        let other = match (&wanted.count, wanted.profile.value.is_empty()) {
            (_, false) => Some(("profile", wanted.profile.origin.clone())),
            (Some(count), true) => Some(("count", count.origin.clone())),
            (None, true) => None,
        };
        if let Some((name, at)) = other {
            let mut wrong = Diagnostic::error(format!(
                "`vgpu.profiles` and `vgpu.{name}` contradict each other"
            ))
            .hint("give `profile` with `count`, or one entry of `profiles` for each vGPU");
            if let Some(at) = &at {
                wrong = wrong.related(at, "this one");
            }
            block.problems.push(first.blame(wrong));
        }
    }
    let licence = [
        ("license_server", !wanted.license_server.value.is_empty()),
        ("license_token", wanted.license_token.is_some()),
    ];
    if let [(_, true), (_, true)] = licence {
        let wrong = Diagnostic::error(
            "`vgpu.license_server` and `vgpu.license_token` contradict each other",
        )
        .hint("a token names its own servers");
        block.problems.push(wanted.license_server.blame(wrong));
    }
    block.finish();
    wanted
}

impl VgpuWanted {
    /// Whether a virtual machine's licence is described.
    #[must_use]
    pub fn has_licence(&self) -> bool {
        self.license_token.is_some() || !self.license_server.value.is_empty()
    }

    /// The types that are named, in the order in which they were written.
    pub fn named(&self) -> impl Iterator<Item = &Located<String>> {
        let one = (!self.profile.value.is_empty()).then_some(&self.profile);
        one.into_iter().chain(&self.profiles)
    }
}

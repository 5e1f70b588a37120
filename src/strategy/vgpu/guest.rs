//! The virtual machine's side: its licence.
//!
//! The settings of the licence daemon and the token are files that last, so that nothing
//! is to be done at boot. The token goes to the host as a file's payload and nowhere else:
//! what is compared is its hash.

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::catalog::Technology;
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, License, VgpuGuest};
use crate::secret::Secret;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Payload, Step, StepId};

use crate::strategy::power::When;
use crate::strategy::{Ask, Decision, Target, usage};

/// Where the token waits in the run directory.
const TOKEN: &str = "vgpu-token";

/// What is to become of a card that is a vGPU itself.
pub(super) fn decide(ask: &Ask<'_>, guest: &VgpuGuest) -> Result<Decision, Problems> {
    let wanted = &ask.wanted.vgpu;
    let label = ask.gpu.label();
    if let Some(name) = wanted.named().next() {
        let message = format!("{label} is itself a vGPU, so it carries none");
        let hint = "give the host of this virtual machine `vgpu.profile`, and the virtual machine `vgpu.license_token`";
        return Err(name.blame(Diagnostic::error(message).hint(hint)).into());
    }
    if let Fact::Unknown(why) = &guest.license {
        let message = format!("the licence of {label} cannot be read: {why}");
        return Err(Diagnostic::error(message).into());
    }
    let server = wanted.license_server.value.trim().to_owned();
    if server
        .chars()
        .any(|letter| letter.is_whitespace() || letter.is_control())
    {
        let found = Diagnostic::error("`vgpu.license_server` must be the address of one server");
        return Err(wanted.license_server.blame(found).into());
    }
    Ok(ask.decision(
        Technology::Vgpu,
        Licence {
            feature: wanted.feature_type.value,
            server,
            token: wanted
                .license_token
                .as_ref()
                .map(|token| token.value.clone()),
        },
    ))
}

/// The licence of a virtual machine.
#[derive(Debug)]
struct Licence {
    feature: u32,
    server: String,
    token: Option<Secret>,
}

impl Licence {
    fn hash(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        let digest = Sha256::digest(token.payload());
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn is_so(&self, guest: &VgpuGuest) -> bool {
        let tokens = guest.tokens.known().map_or(&[][..], Vec::as_slice);
        let licensed = matches!(&guest.license, Fact::Known(License::Licensed(_)));
        guest.feature_type.known().copied().unwrap_or(0) == self.feature
            && guest.license_server.known().map_or("", String::as_str) == self.server
            && self.hash().is_none_or(|hash| tokens.contains(&hash))
            && (licensed || self.feature == 0)
    }
}

impl Target for Licence {
    fn steps(&self, gpu: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        let Some(guest) = gpu.vgpu.known().and_then(|vgpu| vgpu.guest()) else {
            return Ok(Vec::new());
        };
        if self.is_so(guest) {
            return Ok(Vec::new());
        }
        let said = |feature: u32, licensed: bool| {
            let word = if licensed { "licensed" } else { "unlicensed" };
            format!("{word}, FeatureType {feature}")
        };
        let licensed = matches!(&guest.license, Fact::Known(License::Licensed(_)));
        let before = guest.feature_type.known().copied().unwrap_or(0);
        let change = Change::Setting {
            subject: "this virtual machine".to_owned(),
            name: "vGPU licence".to_owned(),
            before: said(before, licensed),
            after: said(self.feature, self.feature != 0),
        };
        let hash = self.hash().unwrap_or_else(|| "-".to_owned());
        let settings = |function: &str| {
            Command::new(function)
                .arg(self.feature.to_string())
                .arg(if self.server.is_empty() {
                    "-"
                } else {
                    &self.server
                })
        };
        let file =
            |function: &str| Script::one(Command::new(function).run_path("snapshot/vgpu-licence"));
        let mut verify = Script::one(settings("vgpu_licence_is").arg(&hash));
        if self.feature != 0 {
            verify = verify.then(Command::new("vgpu_licensed"));
        }
        let mut apply = settings("vgpu_licence_set");
        let mut payload = Vec::new();
        if let Some(token) = &self.token {
            apply = apply.run_path(format!("payload/{TOKEN}"));
            payload.push(Payload {
                name: TOKEN.to_owned(),
                content: token.payload(),
            });
        }
        let mut apply = Script::one(apply);
        if self.feature != 0 {
            apply = apply.then(Command::new("vgpu_licensed"));
        }
        let title = match self.feature {
            0 => "give the vGPU licence back",
            _ => "get the vGPU licence",
        };
        let id = StepId("vgpu:licence".to_owned());
        Ok(vec![Step {
            class: Class::Safe,
            check: Script::one(
                Command::new("vgpu_licence_is")
                    .arg(before.to_string())
                    .arg(guest.license_server.known().map_or("-", String::as_str))
                    .arg("-"),
            ),
            snapshot: file("vgpu_licence_save"),
            apply,
            verify,
            undo: file("vgpu_licence_restore"),
            secret: !payload.is_empty(),
            payload,
            timeout_s: 180,
            ..Step::new(id, usage::TASK, title.to_owned(), change)
        }])
    }

    fn vars(&self, _: &Gpu) -> Json {
        Json::Null
    }
}

/// A further vGPU of the same virtual machine, whose licence is that of the first.
#[derive(Debug)]
pub(super) struct Shared;

impl Target for Shared {
    fn steps(&self, _: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        Ok(Vec::new())
    }

    fn vars(&self, _: &Gpu) -> Json {
        Json::Null
    }
}

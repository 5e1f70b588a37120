//! `strategy: rocm`: masks that tell processes which of AMD's devices to use.
//!
//! They are variables of the environment (`ROCR_VISIBLE_DEVICES`), which a process may ignore:
//! hints, without isolation. The host is not changed but for files: one of the environment
//! for each mask, for containers and units, and a drop-in for each unit that is named.

use serde_json::{Map, Value as Json, json};

use crate::catalog::{Model, Technology};
use crate::desired::{Desired, RocmMask, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{AmdDriver, Fact, Gpu, Vendor};
use crate::step::Step;

use super::files::FOLDER;
use super::power::When;
use super::{Ask, Decision, KeptFile, Strategy, Target, partition};

pub(super) struct Rocm;

impl Strategy for Rocm {
    fn technology(&self) -> Technology {
        Technology::Rocm
    }

    fn is_for(&self, vendor: Vendor) -> bool {
        vendor == Vendor::Amd
    }

    fn check(&self, wanted: &Wanted, _: &Desired, _: &[&Model], problems: &mut Problems) {
        if wanted.rocm.masks.is_empty() {
            let diagnostic = Diagnostic::error("`strategy: rocm` names no `rocm.masks`").hint(
                "give entries such as {name: training, devices: [0, 1], units: [training.service]}",
            );
            problems.push(wanted.strategy.blame(diagnostic));
        }
    }

    fn decide(&self, asks: &[Ask<'_>], _: &Desired) -> Result<Vec<Decision>, Problems> {
        let mut problems = Problems::default();
        let mut decisions = Vec::new();
        // Devices are numbered over all cards of the host that are under ROCm.
        let there: Option<u32> = asks.iter().map(|ask| devices(ask.gpu)).sum();
        for ask in asks {
            if let Some(amd) = ask.gpu.amd.known()
                && amd.driver == AmdDriver::Gim
            {
                let message = format!(
                    "{}: under `gim` no process of this host can use it",
                    ask.gpu.label()
                );
                let diagnostic = Diagnostic::error(message).hint("masks need the driver `amdgpu`");
                problems.push(ask.wanted.strategy.blame(diagnostic));
                continue;
            }
            let masks = &ask.wanted.rocm.masks;
            if let Some(there) = there.filter(|_| ask.is_default) {
                for mask in masks {
                    if let Some(device) = mask.devices.iter().find(|device| **device >= there) {
                        let message = format!(
                            "mask `{}` names device {device}, and this host has {there}",
                            mask.name.value
                        );
                        problems.push(mask.name.blame(Diagnostic::error(message)));
                    }
                }
            }
            let mut decision = ask.decision(
                Technology::Rocm,
                Masked {
                    masks: masks.clone(),
                },
            );
            decision.notes.push(
                "ROCm masks are hints: a process that does not heed ROCR_VISIBLE_DEVICES sees all devices, and shares their memory; what keeps a container to a device is which /dev/dri/renderD it is given"
                    .to_owned(),
            );
            decisions.push(decision);
        }
        // All cards carry the same masks; the same finding is enough once.
        problems.0.dedup();
        problems.or(decisions)
    }

    fn library(&self) -> &'static str {
        ""
    }

    fn files(&self, cards: &[Json]) -> Vec<KeptFile> {
        let mut files: Vec<KeptFile> = Vec::new();
        if cards.iter().any(|card| card["partition"].is_object()) {
            files.push(partition::kept_file());
        }
        let masks = cards.iter().filter_map(|card| card["masks"].as_array());
        for mask in masks.flatten() {
            let Some(name) = mask["name"].as_str() else {
                continue;
            };
            let env = format!("{FOLDER}/rocm/{name}.env");
            if files.iter().any(|file| file.dest == env) {
                continue;
            }
            let units = mask["units"].as_array();
            for unit in units.into_iter().flatten().filter_map(Json::as_str) {
                files.push(KeptFile {
                    template: "rocm_dropin.j2",
                    dest: format!("/etc/systemd/system/{unit}.d/50-deploy-rocm.conf"),
                    mode: "0644",
                    vars: json!({ "env": env, "unit": unit }),
                });
            }
            files.push(KeptFile {
                template: "rocm_env.j2",
                dest: env,
                mode: "0644",
                vars: mask.clone(),
            });
        }
        files
    }
}

/// How many devices a card is; unknown where the host does not say.
fn devices(gpu: &Gpu) -> Option<u32> {
    let partitions = match &gpu.amd {
        Fact::Known(amd) => amd.partitions.known()?,
        _ => return None,
    };
    u32::try_from(partitions.len()).ok()
}

#[derive(Debug)]
struct Masked {
    masks: Vec<RocmMask>,
}

impl Target for Masked {
    fn steps(&self, _: &Gpu, _: When) -> Result<Vec<Step>, Problems> {
        Ok(Vec::new())
    }

    // Masks name devices, of which a card has as many as it has partitions: they stay, also over
    // a reboot.
    fn keeps(&self, technology: Technology) -> bool {
        technology == Technology::Partition
    }

    fn vars(&self, gpu: &Gpu) -> Json {
        let mask = |mask: &RocmMask| {
            let devices: Vec<String> = mask.devices.iter().map(u32::to_string).collect();
            let units: Vec<&str> = mask.units.iter().map(|unit| unit.value.as_str()).collect();
            json!({
                "name": mask.name.value,
                "devices": devices.join(","),
                "units": units,
            })
        };
        let mut vars = Map::new();
        vars.insert("pci".to_owned(), json!(gpu.pci.to_string()));
        vars.insert("partition".to_owned(), partition::left_alone(gpu));
        vars.insert("masks".to_owned(), self.masks.iter().map(mask).collect());
        Json::Object(vars)
    }
}

//! `nvidia-gridd`: gets the licence of a virtual machine when its service starts. The daemon
//! that would renew it is not played.

use std::fs;
use std::io;

use crate::sim::fault;
use crate::sim::machine::Host;

use super::{Call, Outcome};

const CONFIGURATION: &str = "/etc/nvidia/gridd.conf";
const TOKENS: &str = "/etc/nvidia/ClientConfigToken";

/// Runs the daemon's start.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let host = call.host;
    let feature = feature(host);
    let licensed = feature != 0 && has_source(host) && !fault::faults(host).license_refused;
    host.update(|machine| {
        machine.licensed = licensed;
        Ok(())
    })?;
    let text = match (feature, licensed) {
        (0, _) => "NVIDIA vGPU is not to be licensed (FeatureType=0)\n",
        (_, true) => "License acquired successfully.\n",
        (_, false) => "Failed to acquire license.\n",
    };
    Ok(Outcome::out(text, 0))
}

/// `FeatureType` of the configuration; 0 where nothing is said.
fn feature(host: &Host) -> u32 {
    setting(host, "FeatureType")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

fn setting(host: &Host, name: &str) -> Option<String> {
    let text = fs::read_to_string(host.path(CONFIGURATION)).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A token, or a licence server of the older kind.
fn has_source(host: &Host) -> bool {
    let entries = fs::read_dir(host.path(TOKENS)).into_iter().flatten();
    let token = entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        name.starts_with("client_configuration_token_")
            && name.ends_with(".tok")
            && !text.trim().is_empty()
    });
    token || setting(host, "ServerAddress").is_some()
}

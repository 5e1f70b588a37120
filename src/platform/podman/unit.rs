//! A container or pod as Quadlet's templates print it: every value as its line takes it.

use serde_json::{Value as Json, json};

use crate::desired::ContainerRuntime;
use crate::platform::View;

use super::devices::{Device, Name};
use super::limits;
use super::wanted::{Container, Pod, UserNamespace};

/// Where Quadlet finds the files of root.
const FOLDER: &str = "/etc/containers/systemd";
/// What deploy keeps of containers, besides.
pub(super) const OWN_FOLDER: &str = "/etc/deploy/podman";
/// Microseconds of a processor in a second, and other numbers, are podman's matter; this is how
/// long it may fetch an image before systemd gives up, in seconds.
pub(super) const START_TIMEOUT_S: u32 = 900;

/// Where a unit belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The user, or `-` for root: as the shell functions take it.
    pub(super) scope: String,
    /// Its number; none for root.
    pub(super) uid: Option<u32>,
}

impl Place {
    pub(super) fn folder(&self) -> String {
        match self.uid {
            None => FOLDER.to_owned(),
            // Root's, so that what a container may do is not for its user to change.
            Some(uid) => format!("{FOLDER}/users/{uid}"),
        }
    }

    pub(super) fn file(&self, name: &str, kind: &str) -> String {
        format!("{}/{name}.{kind}", self.folder())
    }

    /// The file that names its MIG devices.
    pub(super) fn devices_file(&self, name: &str) -> String {
        match self.uid {
            None => format!("{OWN_FOLDER}/{name}.env"),
            Some(uid) => format!("{OWN_FOLDER}/{uid}-{name}.env"),
        }
    }

    /// ` of USER`, or nothing for root.
    pub(super) fn of(&self) -> String {
        match self.uid {
            None => String::new(),
            Some(_) => format!(" of user {}", self.scope),
        }
    }
}

/// What `podman_container.j2` sees as `item`; `more` are names of devices that are no slices.
pub(super) fn container_vars(
    container: &Container,
    devices: &[Device],
    more: &[String],
    place: &Place,
    view: &View<'_>,
) -> Json {
    let bounds = limits::bounds(&container.limits, &view.desired.integration);
    let rootless = place.uid.is_some();
    let runtime = match view.desired.integration.runtime.value {
        ContainerRuntime::Crun => "crun",
        ContainerRuntime::Runc => "runc",
    };
    let mut arguments = Vec::new();
    if let Some(memory) = bounds.memory {
        arguments.push(format!("--memory={memory}"));
        // Else as much again could go to swap.
        arguments.push(format!("--memory-swap={memory}"));
    }
    if let Some(processors) = bounds.processors {
        arguments.push(format!("--cpus={processors}"));
    }
    if container.privileged.value {
        arguments.push("--privileged".to_owned());
    }
    if let Some(profile) = &container.apparmor {
        arguments.push(format!("--security-opt=apparmor={}", plain(&profile.value)));
    }
    let texts = |texts: &[crate::desired::Located<String>]| -> Vec<String> {
        texts.iter().map(|text| plain(&text.value)).collect()
    };
    let what: Vec<String> = devices.iter().map(Device::what).collect();
    let names = [device_names(devices), more.to_vec()].concat();
    let locked = !container.privileged.value;
    json!({
        "name": container.name.value,
        "description": match what.is_empty() {
            true => format!("Container {}", container.name.value),
            false => plain(&format!("Container {} with {}", container.name.value, what.join(", "))),
        },
        "image": plain(&container.image.value),
        "pull": container.pull.value.word(),
        "runtime": runtime,
        "pod": container.pod.as_ref().map(|pod| &pod.value),
        "devices": names,
        "devices_file": has_mig(devices).then(|| place.devices_file(&container.name.value)),
        "keep_groups": rootless && !devices.is_empty(),
        "drop_capabilities": locked,
        "capabilities": texts(&container.capabilities),
        "no_new_privileges": locked && !container.new_privileges.value,
        "read_only": container.read_only.value,
        "tmpfs": texts(&container.tmpfs),
        "volumes": texts(&container.volumes),
        "ports": texts(&container.ports),
        "network": container.network.as_ref().map(|network| plain(&network.value)),
        "user_namespace": match container.user_namespace.value {
            UserNamespace::Default => None,
            UserNamespace::Auto => Some("auto"),
            UserNamespace::KeepId => Some("keep-id"),
        },
        "environment": container.environment.iter()
            .map(|(name, value)| quoted(&format!("{name}={value}")))
            .collect::<Vec<_>>(),
        "secrets": container.secrets.iter()
            .map(super::secrets::SecretRef::line)
            .collect::<Vec<_>>(),
        "command": (!container.command.is_empty())
            .then(|| container.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
        "pids": bounds.pids,
        "arguments": arguments,
        "rootless": rootless,
        "start_timeout": START_TIMEOUT_S,
    })
}

/// What `podman_pod.j2` sees as `item`.
pub(super) fn pod_vars(pod: &Pod, place: &Place) -> Json {
    json!({
        "name": pod.name.value,
        "network": pod.network.as_ref().map(|network| plain(&network.value)),
        "ports": pod.ports.iter().map(|port| plain(&port.value)).collect::<Vec<_>>(),
        "rootless": place.uid.is_some(),
    })
}

pub(super) fn has_mig(devices: &[Device]) -> bool {
    devices
        .iter()
        .any(|device| matches!(device.name, Name::Mig { .. }))
}

/// The names for `AddDevice=`. That of a MIG device stands in the unit's environment, where it
/// is written once the device is there.
fn device_names(devices: &[Device]) -> Vec<String> {
    let mut number = 0;
    let name = |device: &Device| match &device.name {
        Name::Fixed(name) => format!("{}={name}", device.kind()),
        Name::Mig { .. } => {
            number += 1;
            format!("{}=${{GPU_{number}}}", device.kind())
        }
    };
    devices.iter().map(name).collect()
}

/// A value as a line takes it: `%` and `$` mean themselves.
fn plain(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// A word between quotes, with all that means something there.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.to_owned();
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", plain(&escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves() {
        for (word, line) in [
            ("sleep", "sleep"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("say \"x\" \\ $HOME 5%", "\"say \\\"x\\\" \\\\ $$HOME 5%%\""),
        ] {
            assert_eq!(quoted(word), line);
        }
    }
}

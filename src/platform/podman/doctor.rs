//! What keeps containers from their slices, each with the command that mends it: what podman and
//! its host lack, device nodes and specifications, users' rights, units that do not run.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Diagnostic;
use crate::facts::Vendor;
use crate::platform::doctor::{Finding, SET_UP};
use crate::platform::{Host, View};
use crate::render::{Halt, Rendered};
use crate::shell::Command;
use crate::transport::PathState;

use super::devices::{self, Device, Offer};
use super::look::{Seen, User};
use super::wanted::PodmanWanted;
use super::{cdi, kept, place_of, preflight, rootless};

/// Nodes of NVIDIA's driver that belong to no card, and how they are made.
const COMMON_NODES: [&str; 2] = ["/dev/nvidiactl", "/dev/nvidia-uvm"];
const MAKE_NODES: &str = "nvidia-modprobe -c 0 -u";

/// Looks at everything that the block names.
pub(super) fn examine(
    wanted: &PodmanWanted,
    view: &View<'_>,
    host: &mut dyn Host,
) -> Rendered<Vec<Finding>> {
    super::expect(wanted, None, host);
    for node in COMMON_NODES {
        host.expect(super::state_of(node.to_owned()));
    }
    let kept = kept::read(host)?;
    let seen = super::look_at(wanted, &kept, host)?;
    super::expect(wanted, Some(&seen), host);
    let mut found = Vec::new();
    let lacking = preflight::check(wanted, &seen, view).0.into_iter();
    found.extend(lacking.map(Finding::from));
    if seen.podman.is_none() {
        return Ok(found);
    }
    let offer = devices::offered(view);
    let shares = match devices::shared_out(wanted, &offer, view) {
        Ok(shares) => shares,
        Err(problems) => {
            found.extend(problems.0.into_iter().map(Finding::from));
            vec![Vec::new(); wanted.containers.len()]
        }
    };
    let all: Vec<&Device> = shares.iter().flatten().collect();
    for node in COMMON_NODES {
        let state = host.look(node)?;
        found.extend(no_node(&all, node, &state));
    }
    found.extend(names(&all, &offer, &seen)?);
    found.extend(selinux(&all, &seen));
    found.extend(users(wanted, &shares, &seen)?);
    let pods = wanted.pods.iter().map(|pod| (&pod.name, &pod.user, "pod"));
    let containers = wanted.containers.iter();
    let containers = containers.map(|one| (&one.name, &one.user, "container"));
    for (name, user, kind) in pods.chain(containers) {
        // What is wrong with a user is told once.
        let Ok(place) = place_of(user.as_ref(), &seen) else {
            continue;
        };
        let file = place.file(&name.value, kind);
        let unit = match kind {
            "pod" => format!("{}-pod.service", name.value),
            _ => format!("{}.service", name.value),
        };
        match host.look(&file)? {
            PathState::Absent => {
                let what = format!("there is no {file}, of which {unit} is made");
                found.push(Finding::new(what, SET_UP));
            }
            _ if seen.runs(&place.scope, &unit) => {}
            _ => found.push(stopped(&place.scope, &unit)),
        }
    }
    Ok(found)
}

fn no_node(devices: &[&Device], node: &str, state: &PathState) -> Option<Finding> {
    let needed = devices.iter().any(|device| device.vendor == Vendor::Nvidia);
    (needed && *state == PathState::Absent).then(|| {
        let what =
            format!("there is no {node}, which every container with a card of NVIDIA's needs");
        Finding::new(what, MAKE_NODES)
    })
}

/// Specifications that are missing, or do not name what containers are to get.
fn names(devices: &[&Device], offer: &Offer, seen: &Seen) -> Rendered<Vec<Finding>> {
    let mut found = Vec::new();
    for vendor in [Vendor::Nvidia, Vendor::Amd, Vendor::Intel] {
        let mine = devices.iter().filter(|device| device.vendor == vendor);
        // Cards that are not sliced as they should be have other names than they will have.
        let mine: Vec<&Device> = mine
            .filter(|device| !offer.pending.contains(&device.card))
            .copied()
            .collect();
        if mine.is_empty() {
            continue;
        }
        match cdi::lacking(vendor, &mine, offer, seen) {
            Ok(None) => {}
            Ok(Some(what)) => {
                let mend = match (vendor, seen.refresh_unit) {
                    (Vendor::Nvidia, true) => format!("systemctl restart {}", cdi::NVIDIA_UNIT),
                    (Vendor::Nvidia, false) => {
                        format!("nvidia-ctk cdi generate --output={}", cdi::NVIDIA_FILE)
                    }
                    _ => SET_UP.to_owned(),
                };
                found.push(Finding::new(what, mend));
            }
            Err(Halt::Problem(problem)) => found.push(Finding::from(*problem)),
            Err(pending) => return Err(pending),
        }
    }
    Ok(found)
}

fn selinux(devices: &[&Device], seen: &Seen) -> Option<Finding> {
    preflight::selinux_forbids(devices, seen).then(|| {
        let what =
            "SELinux does not let containers use device nodes (container_use_devices is off)";
        Finding::new(what, "setsebool -P container_use_devices on")
    })
}

/// What each user lacks, once.
fn users(wanted: &PodmanWanted, shares: &[Vec<Device>], seen: &Seen) -> Rendered<Vec<Finding>> {
    let mut of: BTreeMap<&str, Vec<&Device>> = BTreeMap::new();
    let mut found = Vec::new();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let pods = wanted.pods.iter().filter_map(|pod| pod.user.as_ref());
    let containers = wanted.containers.iter().filter_map(|one| one.user.as_ref());
    for user in pods.chain(containers) {
        if !told.insert(&user.value) {
            continue;
        }
        match rootless::known(user, seen) {
            Ok(_) => {
                of.insert(&user.value, Vec::new());
            }
            Err(Halt::Problem(problem)) => found.push(user_finding(&user.value, *problem)),
            Err(pending) => return Err(pending),
        }
    }
    for (container, devices) in wanted.containers.iter().zip(shares) {
        let user = container.user.as_ref();
        if let Some(all) = user.and_then(|user| of.get_mut(user.value.as_str())) {
            all.extend(devices);
        }
    }
    for (name, devices) in of {
        if let Some(user) = seen.users.get(name) {
            found.extend(of_user(name, user, &devices, seen));
        }
    }
    Ok(found)
}

fn user_finding(name: &str, problem: Diagnostic) -> Finding {
    match problem.hint {
        Some(_) => Finding::from(problem),
        None => Finding::new(problem.message, format!("useradd --create-home {name}")),
    }
}

fn of_user(name: &str, user: &User, devices: &[&Device], seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let manager = format!("user@{}.service", user.uid);
    for group in rootless::missing_groups(user, devices, seen) {
        let what =
            format!("user {name} is not in the group {group}, which may open the cards' nodes");
        let join = Command::new("usermod").args(["-aG", &group, name]);
        let mend = format!("{} && systemctl restart {manager}", join.display());
        found.push(Finding::new(what, mend));
    }
    let linger = Command::new("loginctl").args(["enable-linger", name]);
    if !user.lingers {
        let what = format!(
            "user {name} does not linger: its containers end with its last login and do not start at boot"
        );
        found.push(Finding::new(what, linger.display()));
    } else if !user.manager {
        let what = format!("the systemd of user {name} does not run");
        found.push(Finding::new(what, format!("systemctl start {manager}")));
    }
    found
}

/// A unit that is there and does not run.
fn stopped(scope: &str, unit: &str) -> Finding {
    if scope == "-" {
        let what = format!("{unit} does not run; `journalctl -u {unit}` says why");
        return Finding::new(what, format!("systemctl restart {unit}"));
    }
    let machine = format!("--machine={scope}@.host");
    let call = Command::new("systemctl").args(["--user", &machine, "restart", unit]);
    let what =
        format!("{unit} of user {scope} does not run; `journalctl --user-unit {unit}` says why");
    Finding::new(what, call.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::PciAddress;
    use crate::platform::podman::devices::{Name, Part};
    use crate::platform::podman::look;

    fn device(vendor: Vendor, name: &str) -> Device {
        let card = PciAddress {
            domain: 0,
            bus: 0x4b,
            device: 0,
            function: 0,
        };
        Device {
            vendor,
            card,
            label: "GPU 0".to_owned(),
            part: Part::Card,
            name: Name::Fixed(name.to_owned()),
            shares: 1,
        }
    }

    /// Commands for a specification, as this host has it.
    fn of_names(device: &Device, lines: &str) -> Vec<(String, String)> {
        let found = names(&[device], &Offer::default(), &look::read(lines)).expect("no wait");
        let pairs = found
            .into_iter()
            .map(|finding| (finding.what, finding.mend));
        pairs.collect()
    }

    #[test]
    fn each_thing_that_a_host_lacks_has_its_command() {
        let nvidia = device(Vendor::Nvidia, "GPU-1");
        let has = |found: &[(String, String)], what: &str, mend: &str| {
            let [(said, by)] = found else {
                panic!("one finding with `{what}`: {found:?}");
            };
            assert!(said.contains(what) && by.contains(mend), "{found:?}");
        };
        assert_eq!(
            of_names(&nvidia, "nvidia-ctk 1.18\ncdi nvidia.com/gpu=GPU-1\n"),
            []
        );
        has(
            &of_names(&nvidia, "nvidia-ctk 1.18\n"),
            "is missing",
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        );
        has(
            &of_names(
                &nvidia,
                "nvidia-ctk 1.18\nrefresh yes\ncdi nvidia.com/gpu=GPU-2\n",
            ),
            "is stale",
            "systemctl restart nvidia-cdi-refresh.service",
        );
        has(
            &of_names(&nvidia, ""),
            "nvidia-ctk",
            "nvidia-container-toolkit",
        );
        let intel = device(Vendor::Intel, "0000:4b:00.0");
        let node = "node intel 0000:4b:00.0 /dev/dri/renderD128\n";
        assert_eq!(of_names(&intel, &format!("spec intel same\n{node}")), []);
        has(
            &of_names(&intel, &format!("spec intel differs\n{node}")),
            "is stale",
            "deploy gpu",
        );
        has(
            &of_names(&intel, &format!("spec intel absent\n{node}")),
            "is missing",
            "deploy gpu",
        );
        has(
            &of_names(&intel, "spec intel same\n"),
            "has no node below /dev/dri",
            "driver is loaded",
        );

        let off = look::read("selinux off\n");
        let boolean = selinux(&[&nvidia], &off).expect("a finding");
        assert_eq!(boolean.mend, "setsebool -P container_use_devices on");
        assert_eq!(selinux(&[&intel], &off), None);
        assert!(no_node(&[&nvidia], "/dev/nvidiactl", &PathState::Absent).is_some());
        assert!(no_node(&[&intel], "/dev/nvidiactl", &PathState::Absent).is_none());
        assert_eq!(
            stopped("worker", "train.service").mend,
            "systemctl --user --machine=worker@.host restart train.service"
        );
    }

    #[test]
    fn a_user_lacks_groups_linger_or_a_systemd() {
        let intel = device(Vendor::Intel, "0000:4b:00.0");
        let host = "node intel 0000:4b:00.0 /dev/dri/renderD128\nmode /dev/dri/renderD128 660 root render\n\
                    user worker 1000 /home/worker\nsubuid worker\nsubgid worker\n";
        let of = |lines: &str| -> Vec<String> {
            let seen = look::read(&format!("{host}{lines}"));
            let found = of_user("worker", &seen.users["worker"], &[&intel], &seen);
            found.into_iter().map(|finding| finding.mend).collect()
        };
        let all = "groups worker worker render\nlinger worker\nmanager worker\n";
        assert_eq!(of(all), Vec::<String>::new());
        assert_eq!(
            of("groups worker worker\n"),
            [
                "usermod -aG render worker && systemctl restart user@1000.service",
                "loginctl enable-linger worker"
            ]
        );
        assert_eq!(
            of("groups worker render\nlinger worker\n"),
            ["systemctl start user@1000.service"]
        );
    }
}

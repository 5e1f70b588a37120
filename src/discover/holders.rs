//! Who has device nodes open, as `holders.sh` reports it.

use std::collections::BTreeMap;

use crate::facts::{Fact, Holder, PciAddress};

/// What the scan of `/proc` told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// Whether it was carried out.
    pub scanned: bool,
    /// How many processes could not be looked at.
    pub unreadable: usize,
    /// Minor number of each NVIDIA card, as its driver says.
    pub minors: BTreeMap<PciAddress, u32>,
    /// Nodes of GPU instances: the card's minor number, the instance's id, the node.
    pub caps: Vec<(u32, u32, String)>,
    /// Processes with the device nodes that they have open.
    pub processes: Vec<(Holder, Vec<String>)>,
}

/// Reads the script's lines.
#[must_use]
pub fn parse(text: &str) -> Scan {
    let mut scan = Scan::default();
    let mut cgroups: Vec<String> = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "scanned" => scan.scanned = true,
            "unreadable" => scan.unreadable += 1,
            "minor" => {
                let mut words = value.split_whitespace();
                if let (Some(Ok(card)), Some(Ok(minor))) = (
                    words.next().map(str::parse::<PciAddress>),
                    words.next().map(str::parse::<u32>),
                ) {
                    scan.minors.insert(card, minor);
                }
            }
            "cap" => scan.caps.extend(cap(value)),
            "process" => {
                finish(&mut scan, &mut cgroups);
                if let Ok(pid) = value.parse() {
                    let holder = Holder {
                        pid,
                        command: String::new(),
                        unit: Fact::Absent,
                        container: Fact::Absent,
                        instances: Vec::new(),
                    };
                    scan.processes.push((holder, Vec::new()));
                }
            }
            "comm" => {
                if let Some((holder, _)) = scan.processes.last_mut() {
                    value.clone_into(&mut holder.command);
                }
            }
            "cgroup" => cgroups.push(value.to_owned()),
            "open" => {
                if let Some((_, nodes)) = scan.processes.last_mut() {
                    let node = value.to_owned();
                    if !nodes.contains(&node) {
                        nodes.push(node);
                    }
                }
            }
            _ => {}
        }
    }
    finish(&mut scan, &mut cgroups);
    scan
}

/// The node of `0/mig/gi1/ci0/access 4`.
fn cap(line: &str) -> Option<(u32, u32, String)> {
    let (path, minor) = line.split_once(' ')?;
    let mut parts = path.split('/');
    let card = parts.next()?.parse().ok()?;
    let instance = parts.nth(1)?.strip_prefix("gi")?.parse().ok()?;
    let minor: u32 = minor.trim().parse().ok()?;
    Some((
        card,
        instance,
        format!("/dev/nvidia-caps/nvidia-cap{minor}"),
    ))
}

/// Gives the process that was read last its unit and container.
fn finish(scan: &mut Scan, cgroups: &mut Vec<String>) {
    if let Some((holder, _)) = scan.processes.last_mut() {
        if cgroups.is_empty() {
            let why = "its control group could not be read".to_owned();
            holder.unit = Fact::Unknown(why.clone());
            holder.container = Fact::Unknown(why);
        } else {
            holder.unit = Fact::from_option(cgroups.iter().find_map(|line| unit(line)));
            holder.container = Fact::from_option(cgroups.iter().find_map(|line| container(line)));
        }
    }
    cgroups.clear();
}

/// The path of `0::/system.slice/x.service` or `1:name=systemd:/…`.
fn path(line: &str) -> &str {
    line.splitn(3, ':').nth(2).unwrap_or("")
}

/// The innermost unit that can be stopped.
fn unit(line: &str) -> Option<String> {
    path(line)
        .rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
        .map(str::to_owned)
}

/// A container's id (64 hexadecimal digits, as Docker, Podman, containerd and CRI-O name their
/// groups), or its name for LXC and Incus (`lxc.payload.NAME`).
fn container(line: &str) -> Option<String> {
    path(line).split('/').rev().find_map(|part| {
        if let Some(name) = part.strip_prefix("lxc.payload.") {
            return Some(name.to_owned());
        }
        let stem = part.strip_suffix(".scope").unwrap_or(part);
        let id = stem.rsplit('-').next().unwrap_or(stem);
        let hex = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
        hex.then(|| id.to_owned())
    })
}

impl Scan {
    /// Those who have one of `nodes` open, or one of a GPU instance of the NVIDIA card with this
    /// minor number. Nobody is only said where everybody was looked at.
    #[must_use]
    pub fn holders_of(&self, nodes: &[String], minor: Option<u32>) -> Fact<Vec<Holder>> {
        let caps = self.caps.iter().filter(|(card, _, _)| Some(*card) == minor);
        let caps: Vec<(u32, &String)> = caps.map(|(_, gi, node)| (*gi, node)).collect();
        if !self.scanned {
            return Fact::Unknown("/proc could not be searched".to_owned());
        }
        let found: Vec<Holder> = self
            .processes
            .iter()
            .filter_map(|(holder, open)| {
                let has = |node: &String| open.contains(node);
                let mut instances: Vec<u32> = caps
                    .iter()
                    .filter(|(_, node)| has(node))
                    .map(|(instance, _)| *instance)
                    .collect();
                instances.sort_unstable();
                instances.dedup();
                (nodes.iter().any(has) || !instances.is_empty()).then(|| Holder {
                    instances,
                    ..holder.clone()
                })
            })
            .collect();
        if found.is_empty() && self.unreadable > 0 {
            return Fact::Unknown(format!(
                "{} processes could not be looked at; become root",
                self.unreadable
            ));
        }
        Fact::Known(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCAN: &str = "\
minor 0000:0b:00.0 \t 1
scanned
process 949665
comm nvidia-persiste
cgroup 0::/system.slice/nvidia-persistenced.service
open /dev/nvidia1
open /dev/nvidia1
open /dev/nvidiactl
process 4242
comm python3
cgroup 0::/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope
open /dev/nvidia0
process 5000
comm X
cgroup 12:devices:/
cgroup 1:name=systemd:/user.slice/user-1000.slice/session-2.scope
open /dev/dri/card0
";

    #[test]
    fn holders_are_named_with_unit_and_container() {
        let scan = parse(SCAN);
        assert_eq!(scan.minors.values().collect::<Vec<_>>(), [&1]);
        let of = |node: &str| {
            let found = scan.holders_of(&[node.to_owned()], None);
            found.known().expect("root looked").clone()
        };
        let persistenced = &of("/dev/nvidia1")[0];
        assert_eq!(persistenced.pid, 949_665);
        assert_eq!(
            persistenced.unit,
            Fact::Known("nvidia-persistenced.service".to_owned())
        );
        assert_eq!(persistenced.container, Fact::Absent);
        let python = &of("/dev/nvidia0")[0];
        let id = python.container.known().expect("it is in a container");
        assert_eq!(id.len(), 64);
        let x = &of("/dev/dri/card0")[0];
        assert_eq!(x.unit, Fact::Known("session-2.scope".to_owned()));
        assert!(of("/dev/nvidia7").is_empty());
    }

    #[test]
    fn whoever_has_the_node_of_an_instance_open_has_that_instance_alone() {
        let text = "\
cap 0/mig/gi1/access \t 12
cap 0/mig/gi1/ci0/access 13
cap 0/mig/gi2/access 21
cap 1/mig/gi2/access 156
cap x/y 3
scanned
process 10
comm one
open /dev/nvidia0
open /dev/nvidia-caps/nvidia-cap12
open /dev/nvidia-caps/nvidia-cap13
process 11
comm whole
open /dev/nvidia0
process 12
comm other
open /dev/nvidia1
open /dev/nvidia-caps/nvidia-cap156
";
        let scan = parse(text);
        assert_eq!(scan.caps.len(), 4);
        let found = scan.holders_of(&["/dev/nvidia0".to_owned()], Some(0));
        let found: Vec<(u32, Vec<u32>)> = found
            .known()
            .expect("root looked")
            .iter()
            .map(|holder| (holder.pid, holder.instances.clone()))
            .collect();
        assert_eq!(found, [(10, vec![1]), (11, Vec::new())]);
    }

    #[test]
    fn nobody_is_not_said_without_having_looked() {
        let scan = parse("unreadable 1\nunreadable 2\nscanned\n");
        assert!(
            scan.holders_of(&["/dev/nvidia0".to_owned()], Some(0))
                .unknown()
                .is_some()
        );
        assert!(parse("noproc\n").holders_of(&[], None).unknown().is_some());
    }

    #[test]
    fn containers_of_all_makers_are_recognised() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for line in [
            format!("0::/docker/{id}"),
            format!("0::/machine.slice/libpod-{id}.scope/container"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("0::/kubepods.slice/crio-{id}.scope"),
        ] {
            assert_eq!(container(&line).as_deref(), Some(id), "{line}");
        }
        assert_eq!(
            container("0::/lxc.payload.web1/system.slice").as_deref(),
            Some("web1")
        );
        assert_eq!(container("0::/system.slice/cron.service"), None);
    }
}

//! `gpu_policy`: how many instances of an inventory may have a whole card, or a share of one
//! that only software keeps apart.
//!
//! Instances of all hosts and of all platforms count together. What an instance has of a card,
//! its platform says. Slices that hardware keeps apart do not count, but one is for one instance:
//! two platforms of a host that give out MIG devices of a kind would each begin with the first.

use crate::desired::{Desired, GpuPolicy};
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::HostName;

/// A container or virtual machine that gets a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuInstance {
    /// Its name, as messages call it.
    pub name: String,
    /// Where that it gets one is written.
    pub origin: Origin,
    /// Whether all that it has of cards is kept apart by hardware: MIG devices, virtual
    /// functions.
    pub is_isolated: bool,
    /// What the file that names it says of the policy, where that is another than the
    /// variable: `global.gpu_policy` of an `infra.yml`.
    pub policy: Option<GpuPolicy>,
    /// The MIG devices that its platform is to give it.
    pub mig: Vec<MigAsk>,
}

/// A MIG device of a kind, which a platform picks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigAsk {
    /// The profile; any where none is named.
    pub profile: Option<String>,
    /// The card.
    pub card: AskedCard,
}

/// Of which card something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedCard {
    /// Of whichever has it.
    Every,
    /// Of that at this PCI address.
    At(String),
    /// Of one by a name that only the host knows.
    Named,
}

impl MigAsk {
    /// Whether one device may be what both are given, as far as the variables tell.
    fn meets(&self, other: &Self) -> bool {
        let card = match (&self.card, &other.card) {
            (AskedCard::Every, _) | (_, AskedCard::Every) => true,
            (AskedCard::At(one), AskedCard::At(two)) => one == two,
            (AskedCard::Named, _) | (_, AskedCard::Named) => false,
        };
        let kind = match (&self.profile, &other.profile) {
            (Some(one), Some(two)) => one == two,
            (None, _) | (_, None) => true,
        };
        card && kind
    }
}

/// Holds the policy over all hosts of an inventory, those included that this run leaves alone.
#[must_use]
pub fn check_fleet<'a>(hosts: impl IntoIterator<Item = (&'a HostName, &'a Desired)>) -> Problems {
    let mut counted: Vec<(&HostName, GpuInstance, GpuPolicy)> = Vec::new();
    let mut problems = Problems::default();
    for (host, desired) in hosts {
        let Ok(Some(wanted)) = super::wanted(desired) else {
            continue;
        };
        let mut given: Vec<(&str, GpuInstance)> = Vec::new();
        for platform in wanted {
            for instance in platform.gpu_instances(desired) {
                problems.extend(given_twice(
                    host,
                    desired,
                    &given,
                    platform.name(),
                    &instance,
                ));
                given.push((platform.name(), instance.clone()));
                if instance.is_isolated {
                    continue;
                }
                let policy = match (&desired.policy, instance.policy) {
                    (written, _) if written.is_written() => written.value,
                    (_, Some(policy)) => policy,
                    (default, None) => default.value,
                };
                counted.push((host, instance, policy));
            }
        }
    }
    problems.extend(too_many(&counted));
    problems
}

/// One MIG device for instances of two platforms of a host: each counts them for itself.
fn given_twice(
    host: &HostName,
    desired: &Desired,
    given: &[(&str, GpuInstance)],
    platform: &str,
    instance: &GpuInstance,
) -> Problems {
    let mut problems = Problems::default();
    for (other_platform, other) in given.iter().filter(|(name, _)| *name != platform) {
        let meets = |ask: &&MigAsk| other.mig.iter().any(|given| given.meets(ask));
        let Some(ask) = instance.mig.iter().find(meets) else {
            continue;
        };
        let what = match &ask.profile {
            Some(profile) => format!("MIG device {profile}"),
            None => "MIG device".to_owned(),
        };
        let message = format!(
            "{} of {other_platform} and {} of {platform} may be given the same {what} on {host}, since each platform counts them for itself",
            other.name, instance.name
        );
        let hint = "give them MIG devices of different profiles or of different cards by `pci`";
        let found = match desired.policy.value {
            GpuPolicy::Shared => Diagnostic::warning(message),
            GpuPolicy::Exclusive => Diagnostic::error(message),
        };
        let found = found.hint(hint).at(&instance.origin);
        problems.push(found.related(&other.origin, "asks for it, too"));
    }
    problems
}

/// More than one that has a whole card, or a share that only software keeps apart.
fn too_many(counted: &[(&HostName, GpuInstance, GpuPolicy)]) -> Problems {
    let [(first, ..), (_, second, _), ..] = counted else {
        return Problems::default();
    };
    let one_host = counted.iter().all(|(host, ..)| host == first);
    let names: Vec<String> = counted
        .iter()
        .map(|(host, instance, _)| match one_host {
            true => instance.name.clone(),
            false => format!("{} on {host}", instance.name),
        })
        .collect();
    let (count, names) = (counted.len(), names.join(", "));
    let is_exclusive = counted
        .iter()
        .any(|(.., policy)| *policy == GpuPolicy::Exclusive);
    let mut found = match is_exclusive {
        true => Diagnostic::error(format!(
            "GPU policy is 'exclusive' but {count} instances have GPU access: {names}"
        ))
        .hint("set `gpu_policy: shared` to allow this (`global.gpu_policy` in an infra.yml), or give them slices that hardware keeps apart, such as MIG devices"),
        false => Diagnostic::warning(format!(
            "GPU policy is 'shared': {count} instances share GPU access ({names})"
        ))
        .hint("no VRAM isolation on consumer GPUs: each can read what the others left in its memory, and a crash of the driver is a crash for all"),
    }
    .at(&second.origin);
    for (_, instance, _) in counted.iter().filter(|(_, other, _)| other != second) {
        found = found.related(&instance.origin, "has GPU access, too");
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Severity;
    use crate::value::{Node, Vars};
    use serde_json::{Value as Json, json};

    fn read(vars: &Json) -> (Desired, Problems) {
        let origin = Origin::whole("vars.yml", vars.to_string());
        let node = Node::from_json(vars, &origin);
        let map = node.as_map().cloned().expect("a mapping");
        let vars: Vars = map
            .into_iter()
            .map(|(name, entry)| (name, entry.node))
            .collect();
        crate::desired::read(&vars, &|_, _| Default::default())
    }

    /// What is said of hosts with these variables: severity and text.
    fn said(hosts: &[(&str, Json)]) -> Vec<(Severity, String)> {
        let hosts: Vec<(HostName, Desired)> = hosts
            .iter()
            .map(|(name, vars)| {
                let (desired, problems) = read(vars);
                assert!(!problems.has_errors(), "{problems:?}");
                (HostName::from(name), desired)
            })
            .collect();
        let found = check_fleet(hosts.iter().map(|(host, desired)| (host, desired)));
        let text = |found: Diagnostic| (found.severity, found.to_string());
        found.0.into_iter().map(text).collect()
    }

    /// Variables of a host with these instances; `x` is what they have.
    fn host(policy: Option<&str>, instances: &[(&str, Json)]) -> Json {
        let instances: serde_json::Map<String, Json> = instances
            .iter()
            .map(|(name, instance)| ((*name).to_owned(), instance.clone()))
            .collect();
        let mut vars = json!({
            "gpu_platform": "incus",
            "gpu_incus": {
                "profiles": {
                    "nvidia-compute": {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}},
                    "slice": {
                        "config": {"nvidia.runtime": "true"},
                        "devices": {"gpu": {"type": "gpu", "gputype": "mig", "mig.profile": "1g.10gb"}},
                    },
                    "vf": {"devices": {"gpu": {"type": "gpu", "gputype": "sriov"}}},
                    "vgpu": {"devices": {"gpu": {"type": "gpu", "gputype": "mdev", "mdev": "nvidia-712"}}},
                    "plain": {"devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}},
                },
                "instances": instances,
            },
        });
        if let Some(policy) = policy {
            vars["gpu_policy"] = json!(policy);
        }
        vars
    }

    fn direct() -> Json {
        json!({"type": "lxc", "gpu": true})
    }

    fn by_profile(profile: &str) -> Json {
        json!({"type": "lxc", "profiles": ["default", profile]})
    }

    fn vm(profile: &str) -> Json {
        json!({"type": "vm", "profiles": [profile]})
    }

    /// Requirements 0.1 to 0.4: the table of the seed, row by row, for what is seen directly,
    /// by a profile, and both.
    #[test]
    fn the_table_of_the_policy() {
        const BOTH: &str = "2 instances have GPU access: homelab-llm, work-gpu";
        const SHARED: &str = "2 instances share GPU access (homelab-llm, work-gpu)";
        let (a, b) = ("homelab-llm", "work-gpu");
        let whole = || [direct(), by_profile("nvidia-compute")];
        for policy in [None, Some("exclusive"), Some("shared")] {
            assert_eq!(said(&[("h", host(policy, &[]))]), []);
            let without = [(a, by_profile("plain")), (b, by_profile("default"))];
            assert_eq!(said(&[("h", host(policy, &without))]), []);
            for one in whole() {
                let instances = [(a, one), (b, by_profile("plain"))];
                assert_eq!(said(&[("h", host(policy, &instances))]), []);
            }
            for one in whole() {
                for other in whole() {
                    let both = [(a, one.clone()), (b, other)];
                    let said = said(&[("h", host(policy, &both))]);
                    let [(severity, text)] = &said[..] else {
                        panic!("{policy:?} {both:?}: {said:?}");
                    };
                    match policy {
                        Some("shared") => {
                            assert_eq!(*severity, Severity::Warning);
                            assert!(text.contains(SHARED), "{text}");
                            assert!(
                                text.contains("no VRAM isolation on consumer GPUs"),
                                "{text}"
                            );
                        }
                        _ => {
                            assert_eq!(*severity, Severity::Error);
                            assert!(text.contains("GPU policy is 'exclusive' but"), "{text}");
                            assert!(text.contains(BOTH), "{text}");
                            assert!(text.contains("`gpu_policy: shared`"), "{text}");
                        }
                    }
                }
            }
        }
        // The last row: an invalid policy is an error by itself, with any number of instances.
        for count in 0..3 {
            let names = [(a, direct()), (b, direct())];
            let (_, problems) = read(&host(Some("sahred"), &names[..count]));
            let text = problems.0.iter().map(ToString::to_string).next();
            let text = text.expect("an error");
            assert!(
                text.contains("`gpu_policy` has no value `sahred`"),
                "{text}"
            );
            assert!(text.contains("did you mean `shared`?"), "{text}");
        }
    }

    #[test]
    fn instances_of_all_hosts_count_together() {
        let one = |name| host(None, &[(name, direct())]);
        let said_of = said(&[("h1", one("a")), ("h2", one("b")), ("h3", host(None, &[]))]);
        assert!(said_of[0].1.contains("a on h1, b on h2"), "{said_of:?}");
        // One that does not share is enough.
        let shared = host(Some("shared"), &[("b", direct())]);
        assert_eq!(
            said(&[("h1", one("a")), ("h2", shared)])[0].0,
            Severity::Error
        );
    }

    #[test]
    fn one_mig_device_is_not_for_two_platforms() {
        let both = |gpu: &Json, profile: &str, policy: &str| {
            let mut vars = host(Some(policy), &[("vm", by_profile("slice"))]);
            vars["gpu_platform"] = json!(["podman", "incus"]);
            let device = &mut vars["gpu_incus"]["profiles"]["slice"]["devices"]["gpu"];
            device["mig.profile"] = json!(profile);
            device["pci"] = json!("0000:17:00.0");
            let container = json!({"name": "work", "image": "localhost/a:1", "gpu": gpu});
            vars["gpu_podman"] = json!({ "containers": [container] });
            vars["containers_gpu_slicing"] = json!({
                "enabled": true, "strategy": "mig",
                "mig": {"enabled": true, "profiles": ["1g.10gb", "1g.10gb", "3g.40gb"]},
            });
            said(&[("h", vars)])
        };
        let profile = json!({"profile": "1g.10gb"});
        for gpu in [
            &profile,
            &json!("any"),
            &json!({"profile": "1g.10gb", "pci": "0000:17:00.0"}),
        ] {
            let told = both(gpu, "1g.10gb", "exclusive");
            let [(Severity::Error, text)] = &told[..] else {
                panic!("{gpu}: {told:?}");
            };
            let words =
                "work of podman and vm of incus may be given the same MIG device 1g.10gb on h";
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(both(&profile, "1g.10gb", "shared")[0].0, Severity::Warning);
        assert_eq!(both(&profile, "3g.40gb", "exclusive"), []);
        let elsewhere = json!({"profile": "1g.10gb", "pci": "0000:65:00.0"});
        assert_eq!(both(&elsewhere, "1g.10gb", "exclusive"), []);
    }

    #[test]
    fn slices_that_hardware_keeps_apart_do_not_count() {
        let isolated = [
            ("a", by_profile("slice")),
            ("b", by_profile("slice")),
            ("c", vm("vf")),
            ("d", vm("vf")),
            ("whole", direct()),
        ];
        assert_eq!(said(&[("h", host(None, &isolated))]), []);
        // A mediated device is a share of the card's time, and `gpu: true` beside a slice is
        // only another word for it.
        let vgpus = [("a", vm("vgpu")), ("b", vm("vgpu"))];
        assert_eq!(said(&[("h", host(None, &vgpus))])[0].0, Severity::Error);
        let mut flagged = by_profile("slice");
        flagged["gpu"] = json!(true);
        let flagged = [("a", flagged), ("whole", direct())];
        assert_eq!(said(&[("h", host(None, &flagged))]), []);
    }
}

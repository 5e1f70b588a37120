//! What stands against a container before anything is done for it, and what the plan says of
//! rights that were asked for.

use crate::catalog::Technology;
use crate::desired::{Choice, ContainerRuntime, Desired, DeviceRef, Wanted};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Init, Vendor};
use crate::platform::{AskedCard, GpuInstance, MigAsk, View, Wish};
use crate::shell::{Command, Script};
use crate::step::{Change, Step, StepId};

use super::devices::Device;
use super::limits;
use super::look::Seen;
use super::wanted::{Container, PodmanWanted, SliceAsk, UserNamespace, Which};

/// The oldest podman whose Quadlet has what the units use, and the oldest with pods.
const OLDEST: (u32, u32) = (4, 6);
const OLDEST_WITH_PODS: (u32, u32) = (5, 0);

/// MIG devices that the variables alone rule out.
pub(super) fn check_offline(wanted: &PodmanWanted, desired: &Desired, problems: &mut Problems) {
    let slicing = &desired.slicing;
    if !slicing.enabled.value {
        return;
    }
    let all: Vec<&Wanted> = slicing
        .gpus
        .iter()
        .map(|entry| &entry.wanted)
        .chain([&slicing.default])
        .collect();
    // Where the tool picks, or totals are given, the profiles are not written anywhere.
    let open = all.iter().any(|wanted| {
        wanted.strategy.value == Choice::Auto
            || (wanted.strategy.value == Choice::Use(Technology::Mig)
                && (wanted.mig.mig_parted.is_some()
                    || wanted.mig.compute_instance_count.value > 1
                    || !wanted.mig.compute_instances.is_empty()))
    });
    if open {
        return;
    }
    let mut made: Vec<&str> = Vec::new();
    for wanted in &all {
        if wanted.strategy.value == Choice::Use(Technology::Mig) {
            made.extend(wanted.mig.listed.iter().map(|profile| &*profile.value));
        }
    }
    made.extend(
        slicing
            .request
            .iter()
            .map(|request| &*request.profile.value),
    );
    made.sort_unstable();
    made.dedup();
    for container in &wanted.containers {
        for ask in &container.gpu {
            let Which::Profile(profile, _) = &ask.which else {
                continue;
            };
            if made.contains(&&*profile.value) {
                continue;
            }
            let message = format!(
                "container `{}` asks for a MIG device {}, which no card will have",
                container.name.value, profile.value
            );
            let hint = match made.is_empty() {
                true => "`containers_gpu_slicing` makes no MIG devices".to_owned(),
                false => format!("`containers_gpu_slicing` makes `{}`", made.join("`, `")),
            };
            problems.push(profile.blame(Diagnostic::error(message).hint(hint)));
        }
    }
}

/// The containers that get something of a card, for `gpu_policy`. MIG devices and virtual
/// functions are kept apart by hardware; what `any` is, the strategies say.
pub(super) fn gpu_instances(wanted: &PodmanWanted, desired: &Desired) -> Vec<GpuInstance> {
    let slicing = &desired.slicing;
    let entries = slicing.gpus.iter().map(|entry| &entry.wanted);
    let all_apart = slicing.enabled.value
        && entries.chain([&slicing.default]).all(|wanted| {
            let apart = [Technology::Mig, Technology::Sriov].map(Choice::Use);
            apart.contains(&wanted.strategy.value)
        });
    let entries = slicing.gpus.iter().map(|entry| &entry.wanted);
    let mut wanteds = entries.chain([&slicing.default]);
    let all_mig = slicing.enabled.value
        && wanteds.all(|wanted| wanted.strategy.value == Choice::Use(Technology::Mig));
    let containers = wanted.containers.iter();
    let instance = |container: &Container| {
        let ask = container.gpu.first()?;
        let is_profile = |ask: &SliceAsk| matches!(ask.which, Which::Profile(..));
        Some(GpuInstance {
            name: container.name.value.clone(),
            origin: ask.origin.clone()?,
            is_isolated: all_apart || container.gpu.iter().all(is_profile),
            policy: None,
            mig: container
                .gpu
                .iter()
                .filter_map(|ask| mig_of(ask, all_mig))
                .collect(),
        })
    };
    containers.filter_map(instance).collect()
}

/// The MIG device that is asked for; what is no profile is one where all cards are cut so.
fn mig_of(ask: &SliceAsk, all_mig: bool) -> Option<MigAsk> {
    let at = |card: &DeviceRef| match card {
        DeviceRef::Pci(pci) => AskedCard::At(pci.to_string()),
        DeviceRef::Uuid(_) | DeviceRef::Index(_) => AskedCard::Named,
    };
    let (profile, card) = match &ask.which {
        Which::Profile(profile, card) => (Some(profile.value.clone()), card.as_ref()),
        Which::Card(card) if all_mig => (None, Some(card)),
        Which::Any if all_mig => (None, None),
        Which::Card(_) | Which::Any => return None,
    };
    let card = card.map_or(AskedCard::Every, |card| at(&card.value));
    Some(MigAsk { profile, card })
}

/// What the host lacks for these containers.
pub(super) fn check(wanted: &PodmanWanted, seen: &Seen, view: &View<'_>) -> Problems {
    let mut problems = Problems::default();
    if let Init::Other(init) = &view.facts.init {
        let message = format!(
            "this host does not run systemd but {init}, and containers are units of it here"
        );
        problems.push(Diagnostic::error(message));
    }
    let mut lacks = |message: &str, hint: &str| {
        problems.push(Diagnostic::error(message).hint(hint));
    };
    let oldest = match wanted.pods.is_empty() {
        true => OLDEST,
        false => OLDEST_WITH_PODS,
    };
    match seen.podman {
        None => lacks(
            "podman is not installed on this host",
            "install the package podman",
        ),
        Some(found) if found < oldest => {
            let message = format!(
                "podman {}.{} is too old: units for what `gpu_podman` asks for take {}.{}",
                found.0, found.1, oldest.0, oldest.1
            );
            lacks(&message, "install a later podman");
        }
        // Without podman it cannot be there.
        Some(_) if !seen.quadlet => lacks(
            "podman's generator of units (Quadlet) is not installed on this host",
            "it is a part of podman, or the package podman-quadlet",
        ),
        Some(_) => {}
    }
    // These come with podman.
    let lacks_program = |name: &str| seen.podman.is_some() && !seen.programs.contains(name);
    if !wanted.pods.is_empty() && lacks_program("catatonit") {
        lacks(
            "catatonit is not installed on this host: podman holds the network of a pod by it",
            "install the package catatonit",
        );
    }
    let runtime = &view.desired.integration.runtime;
    let word = match runtime.value {
        ContainerRuntime::Crun => "crun",
        ContainerRuntime::Runc => "runc",
    };
    if !wanted.containers.is_empty() && lacks_program(word) {
        let message = format!("{word} is not installed on this host");
        let hint =
            "install it, or give another `runtime` in `containers_gpu_container_integration`";
        problems.push(runtime.blame(Diagnostic::error(message).hint(hint)));
    }
    for container in &wanted.containers {
        problems.0.extend(check_limits(container, seen, view));
        problems.0.extend(check_apparmor(container, seen));
    }
    problems
}

fn check_limits(container: &Container, seen: &Seen, view: &View<'_>) -> Option<Diagnostic> {
    let name = &container.name.value;
    let needed = limits::bounds(&container.limits, &view.desired.integration).controllers();
    let given = match &container.user {
        None => seen.controllers.as_ref(),
        Some(user) => {
            // Of a user who is not there nothing can be told.
            let user = super::rootless::found(user, seen).ok()?;
            // Before its systemd runs, what it will be given is not to be seen.
            user.delegated.as_ref().or(seen.controllers.as_ref())
        }
    };
    let lacking: Vec<&str> = needed
        .into_iter()
        .filter(|controller| given.is_none_or(|given| given.iter().all(|have| have != controller)))
        .collect();
    if lacking.is_empty() {
        return None;
    }
    let has = match given {
        None => "no control groups of version 2".to_owned(),
        Some(given) if given.is_empty() => "none".to_owned(),
        Some(given) => given.join(", "),
    };
    let message = format!(
        "the limits of container `{name}` take the control group controllers {}, and {} has {has}",
        lacking.join(", "),
        match &container.user {
            None => "this host".to_owned(),
            Some(user) => format!("user `{}` on this host", user.value),
        }
    );
    let hint = "see `systemd.unified_cgroup_hierarchy` and, for users, `Delegate=` of user@.service; or leave these limits out";
    let problem = Diagnostic::error(message).hint(hint);
    Some(match &container.origin {
        Some(origin) => problem.at(origin),
        None => problem,
    })
}

fn check_apparmor(container: &Container, seen: &Seen) -> Option<Diagnostic> {
    let name = &container.name.value;
    let profile = container.apparmor.as_ref()?;
    let message = match &seen.apparmor {
        None => {
            format!("container `{name}` names an AppArmor profile, and this host has no AppArmor")
        }
        Some(_) if profile.value == "unconfined" => return None,
        Some(profiles) if profiles.contains(&profile.value) => return None,
        Some(_) => format!("AppArmor has no profile `{}` on this host", profile.value),
    };
    Some(profile.blame(Diagnostic::error(message)))
}

/// Rights that containers have because they were asked for.
pub(super) fn notes(wanted: &PodmanWanted) -> Vec<Wish> {
    let mut said = Vec::new();
    for container in &wanted.containers {
        let mut has: Vec<String> = Vec::new();
        if container.privileged.value {
            has.push("is privileged: all devices and all rights of the host's root".to_owned());
        }
        if !container.capabilities.is_empty() {
            let names: Vec<&str> = container.capabilities.iter().map(|c| &*c.value).collect();
            has.push(format!("has the capabilities {}", names.join(", ")));
        }
        if container.new_privileges.value && !container.privileged.value {
            has.push("may gain privileges (no-new-privileges is off)".to_owned());
        }
        if !container.read_only.value {
            has.push("can change its image's files".to_owned());
        }
        if container
            .network
            .as_ref()
            .is_some_and(|network| network.value == "host")
        {
            has.push("is in the host's network".to_owned());
        }
        if container
            .apparmor
            .as_ref()
            .is_some_and(|profile| profile.value == "unconfined")
        {
            has.push("is held by no AppArmor profile".to_owned());
        }
        if container.user.is_none() && container.user_namespace.value == UserNamespace::Default {
            has.push("has the host's user numbers, since root runs it (`user` or `user_namespace: auto` would change that)".to_owned());
        }
        has.extend(super::secrets::in_the_open(container));
        if !has.is_empty() {
            let name = &container.name.value;
            said.push(Wish::Note(format!("container {name} {}", has.join("; "))));
        }
    }
    said
}

/// SELinux's boolean by which containers may use device nodes.
pub(super) const BOOLEAN: &str = "container_use_devices";

/// Whether that boolean is on, where SELinux would keep containers from these devices: it lets
/// them use `/dev/dri` by itself, and other nodes by the boolean.
pub(super) fn boolean(devices: &[&Device], seen: &Seen) -> Option<bool> {
    let others = devices.iter().any(|device| device.vendor != Vendor::Intel);
    seen.selinux_devices.filter(|_| others)
}

/// Whether SELinux keeps containers from these devices.
pub(super) fn selinux_forbids(devices: &[&Device], seen: &Seen) -> bool {
    boolean(devices, seen) == Some(false)
}

/// Turns the boolean on where it is needed.
pub(super) fn selinux(devices: &[&Device], seen: &Seen) -> Option<Wish> {
    let forbids = selinux_forbids(devices, seen);
    forbids.then(|| Wish::Step(Box::new(set_boolean(BOOLEAN, true))))
}

/// Turns it on, or off again.
pub(super) fn set_boolean(name: &str, on: bool) -> Step {
    let (before, after) = if on { ("off", "on") } else { ("on", "off") };
    let change = Change::Setting {
        subject: "SELinux".to_owned(),
        name: name.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let id = StepId(format!("selinux:{name}"));
    let title = match on {
        true => format!("let containers use device nodes (SELinux boolean {name})"),
        false => format!("let no container use device nodes any more (SELinux boolean {name})"),
    };
    let mut step = Step::new(id, "", title, change);
    let set = |value: &str| Script::one(Command::new("setsebool").args(["-P", name, value]));
    let is = |value: &str| Script::one(Command::new("podman_sebool_is").args([name, value]));
    step.check = is(before);
    step.apply = set(after);
    step.verify = is(after);
    step.undo = set(before);
    step.timeout_s = 180;
    step
}

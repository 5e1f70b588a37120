//! What a user needs whose containers are rootless: numbers for the users in them, the groups
//! that may open the cards' nodes, and a systemd of its own that runs without a login.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::desired::Located;
use crate::error::{Diagnostic, Problems};
use crate::facts::Vendor;
use crate::platform::{PlatformFile, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};

use super::devices::{Device, Name};
use super::look::{Seen, User};
use super::wanted::PodmanWanted;

/// What is to be so for a user who runs containers with these devices.
pub(super) fn wishes(
    name: &Located<String>,
    devices: &[&Device],
    seen: &Seen,
) -> Rendered<Vec<Wish>> {
    let user = known(name, seen)?;
    let mut wishes = Vec::new();
    let missing = missing_groups(user, devices, seen);
    for group in &missing {
        wishes.push(Wish::Step(Box::new(join(&name.value, group))));
    }
    if !missing.is_empty() && user.manager {
        wishes.push(Wish::Step(Box::new(renew(&name.value, user.uid))));
    }
    wishes.push(super::folder(&drop_ins(user.uid)));
    wishes.push(Wish::File(Box::new(PlatformFile {
        template: "podman_user_order.j2",
        dest: order_file(user.uid),
        mode: "0644",
        owner: None,
        vars: Json::Null,
    })));
    if !user.lingers || !user.manager {
        wishes.push(Wish::Step(Box::new(linger(&name.value, user))));
    }
    Ok(wishes)
}

/// Where what is added to the unit of a user's systemd lies, and the file that is ours.
pub(super) fn drop_ins(uid: u32) -> String {
    format!("/etc/systemd/system/user@{uid}.service.d")
}

pub(super) fn order_file(uid: u32) -> String {
    format!("{}/60-deploy-podman.conf", drop_ins(uid))
}

/// What stands against users whose containers are wanted, each told once.
pub(super) fn unknown(wanted: &PodmanWanted, seen: &Seen) -> Problems {
    let pods = wanted.pods.iter().filter_map(|pod| pod.user.as_ref());
    let containers = wanted.containers.iter().filter_map(|one| one.user.as_ref());
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut problems = Problems::default();
    for user in pods.chain(containers) {
        if told.insert(&user.value)
            && let Err(problem) = found(user, seen)
        {
            problems.push(problem);
        }
    }
    problems
}

/// The user as the host knows it.
pub(super) fn known<'a>(name: &Located<String>, seen: &'a Seen) -> Rendered<&'a User> {
    Ok(found(name, seen)?)
}

/// The same, or what stands against it.
pub(super) fn found<'a>(name: &Located<String>, seen: &'a Seen) -> Result<&'a User, Diagnostic> {
    let Some(user) = seen.users.get(&name.value) else {
        let message = format!("there is no user `{}` on this host", name.value);
        return Err(name.blame(Diagnostic::error(message)));
    };
    if !user.subuids || !user.subgids {
        let message = format!(
            "user `{}` has no numbers set aside in /etc/subuid and /etc/subgid, so that its containers can have no users",
            name.value
        );
        let hint = format!(
            "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}`, with a range that nobody has",
            name.value
        );
        return Err(name.blame(Diagnostic::error(message).hint(hint)));
    }
    Ok(user)
}

/// Groups that the user is not in and would have to be.
pub(super) fn missing_groups(user: &User, devices: &[&Device], seen: &Seen) -> Vec<String> {
    let groups = groups(devices, seen).into_iter();
    groups
        .filter(|group| !user.groups.contains(group))
        .collect()
}

/// Groups without which nodes of these devices cannot be opened.
pub(super) fn groups(devices: &[&Device], seen: &Seen) -> BTreeSet<String> {
    let mut nodes: BTreeSet<&str> = BTreeSet::new();
    for device in devices {
        if device.vendor == Vendor::Nvidia {
            // Its driver's nodes are open to all, and where they are not, it says for whom.
            continue;
        }
        let key = match &device.name {
            Name::Fixed(name) => (device.vendor.to_string(), name.clone()),
            Name::Mig { .. } => continue,
        };
        match seen.nodes.get(&key) {
            Some(found) => nodes.extend(found.iter().map(String::as_str)),
            // Not there yet: as those that are.
            None => nodes.extend(seen.modes.keys().map(String::as_str)),
        }
    }
    let closed = |node: &&str| match seen.modes.get(*node) {
        Some((mode, group))
            if mode & 0o006 != 0o006 && mode & 0o060 == 0o060 && group != "root" =>
        {
            Some(group.clone())
        }
        _ => None,
    };
    nodes.iter().filter_map(closed).collect()
}

fn join(user: &str, group: &str) -> Step {
    let change = Change::Setting {
        subject: format!("user {user}"),
        name: format!("member of group {group}"),
        before: "no".to_owned(),
        after: "yes".to_owned(),
    };
    let title = format!("let user {user} open the cards' nodes: group {group}");
    let id = StepId(format!("podman:{user}:group:{group}"));
    let mut step = Step::new(id, "", title, change);
    let is = |state: &str| Script::one(Command::new("podman_member_is").args([user, group, state]));
    step.check = is("no");
    step.apply = Script::one(Command::new("usermod").args(["-aG", group, "--", user]));
    step.verify = is("yes");
    step.undo = Script::one(Command::new("podman_leave").args([user, group]));
    step
}

/// Takes a user out of a group that we put it into. What it runs has the group until it ends.
pub(super) fn leave(user: &str, group: &str) -> Step {
    let change = Change::Setting {
        subject: format!("user {user}"),
        name: format!("member of group {group}"),
        before: "yes".to_owned(),
        after: "no".to_owned(),
    };
    let title = format!("take user {user} out of group {group}: no container of it has a card");
    let id = StepId(format!("podman:{user}:group:{group}"));
    let mut step = Step::new(id, "", title, change);
    let is = |state: &str| Script::one(Command::new("podman_member_is").args([user, group, state]));
    step.check = is("yes");
    step.apply = Script::one(Command::new("podman_leave").args([user, group]));
    step.verify = is("no");
    step.undo = Script::one(Command::new("usermod").args(["-aG", group, "--", user]));
    step
}

fn renew(user: &str, uid: u32) -> Step {
    let what = format!(
        "restart the systemd of user {user} with all its units, so that it has the new group"
    );
    let change = Change::Action { what: what.clone() };
    let id = StepId(format!("podman:{user}:renew"));
    let unit = format!("user@{uid}.service");
    let mut step = Step::new(id, "", what, change);
    step.class = Class::Disruptive;
    step.apply = Script::one(Command::new("systemctl").args(["restart", "--", &unit]));
    step.verify = Script::one(Command::new("unit_is").args([unit.as_str(), "active"]));
    step.undo = Script::one(Command::new("systemctl").args(["restart", "--", &unit]));
    step.timeout_s = 180;
    step
}

fn linger(name: &str, user: &User) -> Step {
    let change = Change::Setting {
        subject: format!("user {name}"),
        name: "runs without a login (linger)".to_owned(),
        before: if user.lingers {
            "yes, but does not run"
        } else {
            "no"
        }
        .to_owned(),
        after: "yes".to_owned(),
    };
    let title = format!("have the systemd of user {name} run from boot on");
    let id = StepId(format!("podman:{name}:linger"));
    let uid = user.uid.to_string();
    let mut step = Step::new(id, "", title, change);
    let word = |yes: bool| if yes { "yes" } else { "no" };
    step.apply = Script::one(Command::new("podman_linger").args([name, &uid]));
    step.verify = Script::one(Command::new("podman_lingers").args([name, &uid]));
    let before = [word(user.lingers), word(user.manager)];
    let undo = Command::new("podman_linger_undo").args([name, uid.as_str()]);
    step.undo = Script::one(undo.args(before));
    step.timeout_s = 120;
    step
}

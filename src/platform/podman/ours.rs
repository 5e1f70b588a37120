//! What deploy set on a host for containers, besides their units: so that it goes again when
//! nothing wants it, and what was so before stays. The record of `kept` holds it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::desired::{Desired, Located};
use crate::facts::Vendor;
use crate::platform::{Host, Wish, exporters};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::transport::PathState;

use super::cdi::NVIDIA_FILE;
use super::devices::Device;
use super::look::Seen;
use super::{preflight, rootless};

/// One thing that is so because of us. They are taken away in this order, and put back in the
/// other: a user's systemd has the groups that the user has when it starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// A boolean of SELinux's is on.
    Boolean(String),
    /// A user's systemd runs without a login.
    Linger(String),
    /// A user is in a group.
    Group { user: String, group: String },
    /// There is a file.
    File(String),
    /// There is a folder.
    Folder(String),
}

impl Mark {
    /// As a line of the record.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Boolean(name) => format!("+ boolean {name}"),
            Self::Group { user, group } => format!("+ group {user} {group}"),
            Self::Linger(user) => format!("+ linger {user}"),
            Self::File(path) => format!("+ file {path}"),
            Self::Folder(path) => format!("+ folder {path}"),
        }
    }

    /// Reads what stands behind the `+`. Only what we can have set.
    pub(super) fn parse(words: &[&str]) -> Option<Self> {
        let owned = |word: &&str| (*word).to_owned();
        match words {
            ["boolean", name] if *name == preflight::BOOLEAN => Some(Self::Boolean(owned(name))),
            ["group", user, group] => Some(Self::Group {
                user: owned(user),
                group: owned(group),
            }),
            ["linger", user] => Some(Self::Linger(owned(user))),
            ["file", path] if is_file_of_ours(path) => Some(Self::File(owned(path))),
            ["folder", path] if is_folder_of_ours(path) => Some(Self::Folder(owned(path))),
            _ => None,
        }
    }

    /// The user whom it is about.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::Group { user, .. } | Self::Linger(user) => Some(user),
            Self::Boolean(_) | Self::File(_) | Self::Folder(_) => None,
        }
    }
}

fn is_file_of_ours(path: &str) -> bool {
    let own = |vendor: Vendor| path == super::cdi::own_file(vendor);
    let uid = || {
        let rest = path.strip_prefix("/etc/systemd/system/user@")?;
        rest.split_once('.')?.0.parse::<u32>().ok()
    };
    path == NVIDIA_FILE
        || [Vendor::Amd, Vendor::Intel].into_iter().any(own)
        || uid().is_some_and(|uid| path == rootless::order_file(uid))
}

fn is_folder_of_ours(path: &str) -> bool {
    let below = ["/etc/cdi", "/etc/containers", "/etc/deploy"];
    let below = below.iter().any(|folder| {
        let rest = path.strip_prefix(folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let drop_ins = path.starts_with("/etc/systemd/system/user@") && path.ends_with(".service.d");
    (below || drop_ins) && !path.contains("/../")
}

/// Users whose containers are rootless, each with all devices of theirs.
pub(super) type Users<'a> = BTreeMap<&'a str, (&'a Located<String>, Vec<&'a Device>)>;

/// What containers want to be so, and whether it is so now.
#[derive(Debug, Default)]
pub(super) struct Wants(BTreeMap<Mark, bool>);

impl Wants {
    /// What containers with these devices, of these users, want.
    pub(super) fn of(
        all: &[&Device],
        users: &Users<'_>,
        seen: &Seen,
        host: &mut dyn Host,
    ) -> Rendered<Self> {
        let mut wants = Self::default();
        if let Some(on) = preflight::boolean(all, seen) {
            wants.add(Mark::Boolean(preflight::BOOLEAN.to_owned()), on);
        }
        let has = |vendor: Vendor| all.iter().any(|device| device.vendor == vendor);
        for vendor in [Vendor::Amd, Vendor::Intel] {
            if has(vendor) {
                let is = seen.spec(vendor) != "absent";
                wants.add(Mark::File(super::cdi::own_file(vendor)), is);
            }
        }
        if has(Vendor::Nvidia) && !seen.refresh_unit {
            wants.file(NVIDIA_FILE, host)?;
        }
        for (name, devices) in users.values() {
            let user = rootless::known(name, seen)?;
            for group in rootless::groups(devices, seen) {
                let is = user.groups.contains(&group);
                let user = name.value.clone();
                wants.add(Mark::Group { user, group }, is);
            }
            wants.add(Mark::Linger(name.value.clone()), user.lingers);
            wants.file(&rootless::order_file(user.uid), host)?;
        }
        Ok(wants)
    }

    fn add(&mut self, mark: Mark, is_so: bool) {
        self.0.insert(mark, is_so);
    }

    fn file(&mut self, path: &str, host: &mut dyn Host) -> Rendered<()> {
        let is = host.look(path)? != PathState::Absent;
        self.add(Mark::File(path.to_owned()), is);
        Ok(())
    }

    /// The folders that these wishes make, with all above them that are missing.
    pub(super) fn folders(&mut self, wishes: &[Wish], host: &mut dyn Host) -> Rendered<()> {
        for wish in wishes {
            let Wish::Module {
                name: "file",
                params,
            } = wish
            else {
                continue;
            };
            if params["state"] == "directory"
                && let Some(path) = params["path"].as_str()
            {
                self.folder(path, host)?;
            }
        }
        Ok(())
    }

    /// The folders in which wanted files lie.
    pub(super) fn around_files(&mut self, host: &mut dyn Host) -> Rendered<()> {
        let parent = |mark: &Mark| match mark {
            Mark::File(path) => path.rsplit_once('/').map(|(folder, _)| folder.to_owned()),
            _ => None,
        };
        let folders: BTreeSet<String> = self.0.keys().filter_map(parent).collect();
        for folder in &folders {
            self.folder(folder, host)?;
        }
        Ok(())
    }

    /// A folder, with all above it that are ours to make.
    pub(super) fn folder(&mut self, path: &str, host: &mut dyn Host) -> Rendered<()> {
        let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0);
        let above = ends.map(|(at, _)| &path[..at]);
        for folder in above.chain([path]).filter(|path| is_folder_of_ours(path)) {
            let is = host.look(folder)? != PathState::Absent;
            self.add(Mark::Folder(folder.to_owned()), is);
        }
        Ok(())
    }

    /// What others of this host than containers of `gpu_podman` want, as far as we set it.
    pub(super) fn others(&mut self, ours: &BTreeSet<Mark>, desired: &Desired) {
        let exporters = exporters::in_containers(desired);
        let has = |vendor: Vendor| exporters.contains(&vendor);
        let docker = crate::platform::wanted(desired).is_ok_and(|wanted| {
            let mut all = wanted.iter().flatten();
            all.any(|platform| ["docker", "containerd"].contains(&platform.name()))
        });
        for mark in ours {
            let wanted = match mark {
                Mark::File(path) => path == NVIDIA_FILE && (docker || has(Vendor::Nvidia)),
                Mark::Boolean(_) => has(Vendor::Nvidia) || has(Vendor::Amd),
                Mark::Group { .. } | Mark::Linger(_) | Mark::Folder(_) => false,
            };
            if wanted {
                self.add(mark.clone(), true);
            }
        }
    }

    /// What is ours once all of it is so: what was, and what this run has to set.
    pub(super) fn recorded(&self, ours: &BTreeSet<Mark>) -> BTreeSet<Mark> {
        let all = self.0.iter();
        let set = all.filter(|(mark, is_so)| !**is_so || ours.contains(*mark));
        set.map(|(mark, _)| mark.clone()).collect()
    }

    /// What was ours and nothing wants any more.
    pub(super) fn gone<'m>(&self, ours: &'m BTreeSet<Mark>) -> Vec<&'m Mark> {
        let unwanted = |mark: &&Mark| !self.0.contains_key(*mark);
        ours.iter().filter(unwanted).collect()
    }
}

/// Takes away what is still so.
pub(super) fn removed(gone: &[&Mark], seen: &Seen) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for mark in gone {
        match mark {
            Mark::Boolean(name) if seen.selinux_devices == Some(true) => {
                wishes.push(Wish::Step(Box::new(preflight::set_boolean(name, false))));
            }
            Mark::Group { user, group } => {
                let is = |found: &&super::look::User| found.groups.contains(group);
                if seen.users.get(user).filter(is).is_some() {
                    wishes.push(Wish::Step(Box::new(rootless::leave(user, group))));
                }
            }
            Mark::Linger(name) => {
                if let Some(user) = seen.users.get(name).filter(|user| user.lingers) {
                    wishes.push(Wish::Step(Box::new(unlinger(name, user))));
                }
            }
            Mark::File(path) => wishes.push(Wish::Module {
                name: "file",
                params: json!({ "path": path, "state": "absent" }),
            }),
            // With the record that lies in one of them: `emptied`.
            Mark::Folder(_) | Mark::Boolean(_) => {}
        }
    }
    wishes
}

/// Folders that were made for what is gone go with the last that is in them.
pub(super) fn emptied(gone: &[&Mark]) -> Vec<Wish> {
    let folder = |mark: &&Mark| match mark {
        Mark::Folder(path) => Some(Wish::Module {
            name: "gpu_unused_folder",
            params: json!({ "path": path }),
        }),
        _ => None,
    };
    // Those within others first.
    gone.iter().rev().filter_map(folder).collect()
}

fn unlinger(name: &str, user: &super::look::User) -> Step {
    let change = Change::Setting {
        subject: format!("user {name}"),
        name: "runs without a login (linger)".to_owned(),
        before: "yes".to_owned(),
        after: "no".to_owned(),
    };
    let title = format!("have the systemd of user {name} run only while it is logged in");
    let id = StepId(format!("podman:{name}:linger:off"));
    let uid = user.uid.to_string();
    let mut step = Step::new(id, "", title, change);
    // What else the user runs by it stops too.
    step.class = Class::Disruptive;
    step.check = Script::one(Command::new("podman_linger_is").args([name, "yes"]));
    step.apply = Script::one(Command::new("podman_unlinger").args([name, &uid]));
    step.verify = Script::one(Command::new("podman_linger_is").args([name, "no"]));
    let ran = if user.manager { "yes" } else { "no" };
    step.undo = Script::one(Command::new("podman_unlinger_undo").args([name, &uid, ran]));
    step.timeout_s = 120;
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Mark> {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        Mark::parse(&words)
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_names_only_what_we_set() {
        for line in [
            "+ boolean container_use_devices",
            "+ group worker render",
            "+ linger worker",
            "+ file /etc/cdi/deploy-amd.json",
            "+ file /etc/cdi/nvidia.yaml",
            "+ file /etc/systemd/system/user@1000.service.d/60-deploy-podman.conf",
            "+ folder /etc/cdi",
            "+ folder /etc/containers/systemd/users/1000",
            "+ folder /etc/systemd/system/user@1000.service.d",
        ] {
            let mark = parse(line);
            assert_eq!(mark.map(|mark| mark.line()).as_deref(), Some(line));
        }
        for line in [
            "+ boolean httpd_can_network_connect",
            "+ file /etc/shadow",
            "+ file /etc/cdi/../shadow",
            "+ file /etc/systemd/system/user@1000.service.d/other.conf",
            "+ folder /etc",
            "+ folder /etc/cdi/../ssh",
            "+ linger",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_so_before_is_never_ours() {
        let linger = |name: &str| Mark::Linger(name.to_owned());
        let mut wants = Wants::default();
        wants.add(linger("was-before"), true);
        wants.add(linger("is-new"), false);
        wants.add(linger("is-ours"), true);
        let ours: BTreeSet<Mark> = [linger("is-ours"), linger("is-over")].into();
        let recorded = wants.recorded(&ours);
        assert_eq!(recorded, [linger("is-new"), linger("is-ours")].into());
        assert_eq!(wants.gone(&ours), [&linger("is-over")]);
    }
}

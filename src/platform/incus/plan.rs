//! Compares what is wanted with what the daemon has, object by object.
//!
//! Profiles come first, then what instances lose, then what they gain, then profiles that
//! nobody is to have any more: so a card is never with two instances at once. What runs is not
//! stopped: where a device can only come or go with the instance stopped, the plan says so and
//! ends there.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Diagnostic, Origin, Problems};
use crate::platform::{View, Wish};

use super::device::{GpuType, Keys};
use super::marks::{KEY, Mark, Marks};
use super::seen::{self, Seen, Texts, keys};
use super::slices::{Resolved, Slices};
use super::steps::{Made, Object, Steps};
use super::wanted::{Devices, Instance, Profile, Wanted};

/// What differs, as wishes in order.
///
/// # Errors
/// Everything that keeps it from being done.
pub(super) fn plan(wanted: &Wanted, seen: &Seen, view: &View<'_>) -> Result<Vec<Wish>, Problems> {
    let mut plan = Plan {
        wanted,
        seen,
        slices: Slices::new(view),
        steps: Steps::new(wanted.program),
        problems: Problems::default(),
    };
    for ((project, name), object) in &seen.profiles {
        let marks = object.marks();
        plan.steps.know(&Object::profile(project, name), marks);
    }
    for ((project, name), object) in &seen.instances {
        let marks = object.marks();
        plan.steps.know(&Object::instance(project, name), marks);
    }
    plan.check_projects();
    if plan.problems.has_errors() {
        return Err(plan.problems);
    }
    for profile in &wanted.profiles {
        plan.profile(profile);
    }
    let mut changes: Vec<InstanceChange<'_>> = Vec::new();
    for instance in &wanted.instances {
        changes.extend(plan.instance(instance));
    }
    plan.no_longer_wanted(&mut changes);
    changes.sort_by_key(|change| !change.takes_away);
    for change in &changes {
        plan.change(change);
    }
    plan.unwanted_profiles();
    let wishes = plan.steps.wishes;
    plan.problems.or(wishes)
}

struct Plan<'a> {
    wanted: &'a Wanted,
    seen: &'a Seen,
    slices: Slices<'a>,
    steps: Steps,
    problems: Problems,
}

/// From what an instance has to what it is to have.
struct InstanceChange<'a> {
    object: Object,
    before: &'a seen::Object,
    profiles: Vec<String>,
    /// Settings that differ, with what they are to be; empty for not set.
    config: BTreeMap<String, String>,
    /// Devices that differ; none for not there.
    devices: BTreeMap<String, Option<Texts>>,
    takes_away: bool,
}

impl<'a> Plan<'a> {
    fn check_projects(&mut self) {
        let mut told = BTreeSet::new();
        let profiles = self.wanted.profiles.iter();
        let instances = self.wanted.instances.iter();
        let projects = profiles
            .map(|profile| (&profile.project, &profile.path))
            .chain(instances.map(|instance| (&instance.project, &instance.path)));
        for (project, path) in projects {
            if self.seen.has_project(project) || !told.insert(project) {
                continue;
            }
            let product = self.wanted.program.product();
            let message = format!(
                "{product} has no project `{project}` on the host, which `{path}` is to be in"
            );
            let hint = format!(
                "it has `{}`; a project is made by `{} project create {project}`, or by anklume for its domain",
                self.seen.projects(),
                self.wanted.program.word()
            );
            self.problems.push(Diagnostic::error(message).hint(hint));
        }
    }

    fn profile(&mut self, profile: &Profile) {
        let project = self.seen.profile_project(&profile.project).to_owned();
        let object = Object::profile(&project, &profile.name);
        let (config, devices) = self.resolved(&profile.config, &profile.devices);
        let known = (project.clone(), profile.name.clone());
        let Some(before) = self.seen.profiles.get(&known) else {
            let devices = devices.into_iter();
            let devices = devices.map(|(name, device)| (name, device.texts)).collect();
            let description = match profile.description.as_str() {
                "" => "GPU devices, kept by deploy",
                text => text,
            };
            self.steps
                .make_profile(&object, description, &config, &devices);
            return;
        };
        let marks = before.marks();
        for (key, before, after) in settings(before, &config, &marks) {
            self.steps.config(&object, &key, &before, &after);
        }
        let devices = changes(before, &devices, &marks);
        for (name, after) in devices {
            let before = before.devices.get(&name);
            for (user, running) in self.seen.running_users(&project, &profile.name) {
                // A device of the instance itself hides that of the profile.
                if !running.devices.contains_key(&name) {
                    self.refuse_while_running(user, running, before, after.as_ref(), None);
                }
            }
            self.steps.device(&object, &name, before, after.as_ref());
        }
    }

    fn resolved(
        &mut self,
        config: &Keys,
        devices: &Devices,
    ) -> (Texts, BTreeMap<String, Resolved>) {
        let config = config
            .iter()
            .filter(|(_, text)| !text.value.is_empty())
            .map(|(key, text)| (key.clone(), text.value.clone()))
            .collect();
        let devices = devices
            .iter()
            .map(|(name, device)| {
                (
                    name.clone(),
                    self.slices.resolve(device, &mut self.problems),
                )
            })
            .collect();
        (config, devices)
    }

    fn instance(&mut self, instance: &'a Instance) -> Option<InstanceChange<'a>> {
        let object = Object::instance(&instance.project, &instance.name);
        let (config, devices) = self.resolved(&instance.config, &instance.devices);
        let profiles: Vec<String> = instance
            .profiles
            .iter()
            .map(|name| name.value.clone())
            .collect();
        let missing: Vec<&String> = profiles
            .iter()
            .filter(|name| !self.has_profile(&instance.project, name))
            .collect();
        for name in missing {
            let message = format!(
                "`{}` is to have the profile `{name}`, which is neither on the host nor written here",
                instance.name
            );
            self.problems
                .push(Diagnostic::error(message).at(&instance.origin));
        }
        let known = (instance.project.clone(), instance.name.clone());
        let Some(before) = self.seen.instances.get(&known) else {
            let devices: BTreeMap<String, Texts> = devices
                .into_iter()
                .map(|(name, device)| (name, device.texts))
                .collect();
            match &instance.image {
                Some(image) => self.steps.make_instance(&Made {
                    object: &object,
                    image: &image.value,
                    is_vm: instance.kind == super::device::Kind::Vm,
                    profiles: &profiles,
                    config: &config,
                    devices: &devices,
                }),
                None => self.missing_instance(instance),
            }
            return None;
        };
        if before.kind != instance.kind.word() {
            let message = format!(
                "instance `{}` of project `{}` is {} on the host, and {} here",
                instance.name, instance.project, before.kind, instance.kind
            );
            self.problems
                .push(Diagnostic::error(message).at(&instance.origin));
        }
        let marks = before.marks();
        let mut after: Vec<String> = before
            .profiles
            .iter()
            .filter(|name| profiles.contains(name) || !marks.has(&Mark::Profile((*name).clone())))
            .cloned()
            .collect();
        let takes_away = after.len() < before.profiles.len();
        for name in profiles {
            if !after.contains(&name) {
                after.push(name);
            }
        }
        let devices = changes(before, &devices, &marks);
        for (name, wanted) in &devices {
            let now = before.devices.get(name);
            self.refuse_while_running(
                &instance.name,
                before,
                now,
                wanted.as_ref(),
                Some(&instance.origin),
            );
        }
        self.refuse_profiles_while_running(instance, before, &after);
        Some(InstanceChange {
            takes_away: takes_away || devices.values().any(Option::is_none),
            config: settings(before, &config, &marks)
                .into_iter()
                .map(|(key, _, after)| (key, after))
                .collect(),
            object,
            before,
            profiles: after,
            devices,
        })
    }

    fn has_profile(&self, project: &str, name: &str) -> bool {
        let lies_in = self.seen.profile_project(project);
        let is_it = |profile: &Profile| {
            profile.name == name && self.seen.profile_project(&profile.project) == lies_in
        };
        let known = (lies_in.to_owned(), name.to_owned());
        self.seen.profiles.contains_key(&known) || self.wanted.profiles.iter().any(is_it)
    }

    fn missing_instance(&mut self, instance: &Instance) {
        let (name, project) = (&instance.name, &instance.project);
        let message = format!("there is no instance `{name}` in project `{project}` on the host");
        let hint = match instance.path.starts_with("domains.") {
            true => "anklume makes it: `anklume domain apply`; then run this again",
            false => "give `image`, from which it is then made, or make it first",
        };
        let problem = Diagnostic::error(message).at(&instance.origin).hint(hint);
        self.problems.push(problem);
    }

    /// GPU devices of virtual machines and MIG devices come and go only while the instance is
    /// stopped; and a device that something may be using is not taken away.
    fn refuse_while_running(
        &mut self,
        name: &str,
        instance: &seen::Object,
        before: Option<&Texts>,
        after: Option<&Texts>,
        origin: Option<&Origin>,
    ) {
        let is_gpu = |texts: &&Texts| texts.get("type").is_some_and(|word| word == "gpu");
        let gpus: Vec<&Texts> = [before, after]
            .into_iter()
            .flatten()
            .filter(is_gpu)
            .collect();
        if gpus.is_empty() || !instance.is_up() {
            return;
        }
        let is_mig = |texts: &&Texts| {
            let word = texts.get("gputype").map(String::as_str);
            word == Some(GpuType::Mig.word())
        };
        let why = if instance.kind != "container" {
            "a virtual machine's GPU is changed only while it is stopped"
        } else if before.is_some() {
            "the GPU that it has may be in use"
        } else if gpus.iter().any(is_mig) {
            "a MIG device comes only to a stopped container"
        } else {
            return;
        };
        let message = format!(
            "instance `{name}` is {}: {why}",
            instance.status.to_lowercase()
        );
        let word = self.wanted.program.word();
        let mut problem = Diagnostic::error(message);
        if let Some(origin) = origin {
            problem = problem.at(origin);
        }
        let hint =
            format!("stop it first (`{word} stop {name}`); deploy stops no instance by itself");
        self.problems.push(problem.hint(hint));
    }

    /// The same of the devices that come and go with profiles.
    fn refuse_profiles_while_running(
        &mut self,
        instance: &Instance,
        before: &seen::Object,
        after: &[String],
    ) {
        let lies_in = self.seen.profile_project(&instance.project).to_owned();
        let mut differing: Vec<(Option<Texts>, Option<Texts>)> = Vec::new();
        let had = |name: &String| {
            let known = (lies_in.clone(), name.clone());
            self.seen.profiles.get(&known).map(|found| &found.devices)
        };
        for name in before.profiles.iter().filter(|name| !after.contains(name)) {
            let devices = had(name).into_iter().flat_map(BTreeMap::values);
            differing.extend(devices.map(|texts| (Some(texts.clone()), None)));
        }
        for name in after.iter().filter(|name| !before.profiles.contains(name)) {
            let wanted = self.wanted.profiles.iter();
            let wanted = wanted.filter(|profile| {
                profile.name == *name && self.seen.profile_project(&profile.project) == lies_in
            });
            for device in wanted.flat_map(|profile| profile.devices.values()) {
                let texts = device.keys.iter();
                let texts = texts.map(|(key, text)| (key.clone(), text.value.clone()));
                differing.push((None, Some(texts.collect())));
            }
            let devices = had(name).into_iter().flat_map(BTreeMap::values);
            differing.extend(devices.map(|texts| (None, Some(texts.clone()))));
        }
        let told = self.problems.0.len();
        for (old, new) in differing {
            if self.problems.0.len() > told {
                return;
            }
            let (old, new) = (old.as_ref(), new.as_ref());
            let place = Some(&instance.origin);
            self.refuse_while_running(&instance.name, before, old, new, place);
        }
    }

    /// What is ours of instances that are not written any more. The instance stays.
    fn no_longer_wanted(&mut self, changes: &mut Vec<InstanceChange<'a>>) {
        for ((project, name), before) in &self.seen.instances {
            let object = Object::instance(project, name);
            let marks = before.marks();
            let is_wanted =
                |instance: &Instance| instance.project == *project && instance.name == *name;
            if marks.0.is_empty() || self.wanted.instances.iter().any(is_wanted) {
                continue;
            }
            let devices: BTreeMap<String, Option<Texts>> =
                self::changes(before, &BTreeMap::new(), &marks);
            for name_of in devices.keys() {
                let now = before.devices.get(name_of);
                self.refuse_while_running(name, before, now, None, None);
            }
            let profiles: Vec<String> = before
                .profiles
                .iter()
                .filter(|name| !marks.has(&Mark::Profile((*name).clone())))
                .cloned()
                .collect();
            if marks.has(&Mark::Made) {
                let text = format!(
                    "instance {name} (project {project}), which deploy made, is not written any more; it stays, and only loses what deploy gave it"
                );
                self.steps.wishes.push(Wish::Note(text));
            }
            changes.push(InstanceChange {
                object,
                before,
                profiles,
                config: settings(before, &Texts::new(), &marks)
                    .into_iter()
                    .map(|(key, _, after)| (key, after))
                    .collect(),
                devices,
                takes_away: true,
            });
        }
    }

    fn change(&mut self, change: &InstanceChange<'_>) {
        let before = change.before;
        // What is lost goes first, so that a card that only moves is free.
        let (gone, come): (Vec<_>, Vec<_>) = change
            .devices
            .iter()
            .partition(|(_, after)| after.is_none());
        for (name, after) in gone.into_iter().chain(come) {
            let before = before.devices.get(name);
            self.steps
                .device(&change.object, name, before, after.as_ref());
        }
        for (key, after) in &change.config {
            let before = before.config.get(key).map_or("", String::as_str);
            self.steps.config(&change.object, key, before, after);
        }
        if change.profiles != before.profiles {
            self.steps
                .profiles(&change.object, &before.profiles, &change.profiles);
        }
    }

    /// What is ours of profiles that are not written any more.
    fn unwanted_profiles(&mut self) {
        for ((project, name), before) in &self.seen.profiles {
            let marks = before.marks();
            let is_wanted = |profile: &Profile| {
                profile.name == *name && self.seen.profile_project(&profile.project) == project
            };
            if marks.0.is_empty() || self.wanted.profiles.iter().any(is_wanted) {
                continue;
            }
            let object = Object::profile(project, name);
            let others = self.users_left(project, name);
            let all_ours = before
                .devices
                .keys()
                .all(|name| marks.has(&Mark::Device(name.clone())))
                && before
                    .config
                    .keys()
                    .all(|key| key == KEY || marks.has(&Mark::Config(key.clone())));
            if marks.has(&Mark::Made) && all_ours && others.is_empty() {
                self.steps.delete_profile(&object, before);
                continue;
            }
            if marks.has(&Mark::Made) && !others.is_empty() {
                let text = format!(
                    "profile {name} (project {project}) stays without what deploy put there: {} use it",
                    others.join(", ")
                );
                self.steps.wishes.push(Wish::Note(text));
            }
            for (key, before, after) in settings(before, &Texts::new(), &marks) {
                self.steps.config(&object, &key, &before, &after);
            }
            for (device, after) in changes(before, &BTreeMap::new(), &marks) {
                let now = before.devices.get(&device);
                for (user, running) in self.seen.running_users(project, name) {
                    self.refuse_while_running(user, running, now, after.as_ref(), None);
                }
                self.steps.device(&object, &device, now, after.as_ref());
            }
        }
    }

    /// The instances that will use a profile after the steps.
    fn users_left(&self, project: &str, profile: &str) -> Vec<String> {
        let mut left = Vec::new();
        for ((of, name), instance) in &self.seen.instances {
            let has = instance.profiles.iter().any(|found| found == profile);
            if self.seen.profile_project(of) != project || !has {
                continue;
            }
            let is_ours = instance.marks().has(&Mark::Profile(profile.to_owned()));
            let is_wanted = self.wanted.instances.iter().any(|wanted| {
                wanted.project == *of
                    && wanted.name == *name
                    && wanted.profiles.iter().any(|found| found.value == profile)
            });
            if !is_ours || is_wanted {
                left.push(name.clone());
            }
        }
        left
    }
}

/// Settings that differ: key, what it is and what it is to be, empty for not set. What is ours
/// and not wanted goes.
fn settings(before: &seen::Object, wanted: &Texts, marks: &Marks) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for key in keys(&before.config, wanted) {
        let now = before.config.get(key).map_or("", String::as_str);
        let after = match wanted.get(key) {
            Some(text) => text.as_str(),
            None if key != KEY && marks.has(&Mark::Config(key.clone())) => "",
            None => continue,
        };
        if now != after {
            found.push((key.clone(), now.to_owned(), after.to_owned()));
        }
    }
    found
}

/// Devices that differ, each with what it is to be. What is ours and not wanted goes.
fn changes(
    before: &seen::Object,
    wanted: &BTreeMap<String, Resolved>,
    marks: &Marks,
) -> BTreeMap<String, Option<Texts>> {
    let mut found = BTreeMap::new();
    for name in keys(&before.devices, wanted) {
        let now = before.devices.get(name);
        match wanted.get(name) {
            Some(device) if device.is_open || now != Some(&device.texts) => {
                found.insert(name.clone(), Some(device.texts.clone()));
            }
            None if now.is_some() && marks.has(&Mark::Device(name.clone())) => {
                found.insert(name.clone(), None);
            }
            _ => {}
        }
    }
    found
}

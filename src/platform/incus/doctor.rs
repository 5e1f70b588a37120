//! What keeps an instance from its GPU, each with the command that mends it: the
//! troubleshooting of anklume's guide, looked through by a program.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Problems;
use crate::platform::doctor::Finding;
use crate::platform::{Host, View};
use crate::render::Rendered;
use crate::shell::Command;
use crate::transport::{PathState, Read};

use super::device::{Device, GpuType, Kind, is_on};
use super::prerequisites;
use super::seen::{self, Seen};
use super::wanted::{Instance, Profile, Wanted};

const PROBE: &str = include_str!("doctor.sh");

/// Looks at everything that the block names.
pub(super) fn examine(
    wanted: &Wanted,
    view: &View<'_>,
    host: &mut dyn Host,
) -> Rendered<Vec<Finding>> {
    let seen = Seen::ask(wanted.program, host)?;
    let doctor = Doctor { wanted, seen, view };
    let mut found = Vec::new();
    for profile in &doctor.wanted.profiles {
        doctor.profile(profile, &mut found);
    }
    let has_gpu = |instance: &&Instance| !wanted.gpus_of(instance).is_empty();
    let instances: Vec<&Instance> = wanted.instances.iter().filter(has_gpu).collect();
    for instance in &instances {
        if doctor.is_running_container(instance) {
            host.expect(doctor.probe(instance));
        }
    }
    let module = match instances.iter().any(|instance| instance.kind == Kind::Vm) {
        true => Some(host.look("/sys/module/vfio_pci")?),
        false => None,
    };
    if matches!(module, Some(PathState::Absent)) {
        found.push(Finding::new(
            "the kernel module vfio-pci is not loaded, without which no virtual machine gets a card",
            "modprobe vfio-pci",
        ));
    }
    let mut problems = Problems::default();
    prerequisites::wishes(wanted, view, &mut problems);
    problems
        .0
        .extend(prerequisites::container_tools(wanted, host)?);
    found.extend(problems.0.into_iter().map(Finding::from));
    for instance in instances {
        doctor.instance(instance, host, &mut found)?;
    }
    Ok(found)
}

struct Doctor<'a> {
    wanted: &'a Wanted,
    seen: Seen,
    view: &'a View<'a>,
}

impl Doctor<'_> {
    /// A call of the client, as a person would type it.
    fn call(&self, words: &[&str], project: &str) -> String {
        let call = Command::new(self.wanted.program.word()).args(words.iter().copied());
        call.args(["--project", project]).display()
    }

    /// The command that adds a device.
    fn add(&self, noun: &str, owner: &str, name: &str, device: &Device, project: &str) -> String {
        let mut words = vec![noun, "device", "add", owner, name, "gpu"];
        let keys: Vec<String> = device
            .keys
            .iter()
            .filter(|(key, text)| *key != "type" && !text.value.is_empty())
            .map(|(key, text)| format!("{key}={}", text.value))
            .collect();
        words.extend(keys.iter().map(String::as_str));
        self.call(&words, project)
    }

    fn profile(&self, profile: &Profile, found: &mut Vec<Finding>) {
        let project = self.seen.profile_project(&profile.project);
        let known = (project.to_owned(), profile.name.clone());
        let name = &profile.name;
        let Some(there) = self.seen.profiles.get(&known) else {
            let mut mend = self.call(&["profile", "create", name], project) + " </dev/null";
            for (device, gpu) in profile.devices.iter().filter(|(_, gpu)| gpu.is_gpu()) {
                mend += "; ";
                mend += &self.add("profile", name, device, gpu, project);
            }
            let what = format!("there is no profile {name} in project {project}");
            found.push(Finding::new(what, mend));
            return;
        };
        for (device, wanted) in profile.devices.iter().filter(|(_, gpu)| gpu.is_gpu()) {
            let add = self.add("profile", name, device, wanted, project);
            match there.devices.get(device) {
                None => found.push(Finding::new(
                    format!("the profile {name} of project {project} lacks the device {device}"),
                    add,
                )),
                Some(now) if !is_like(now, wanted) => {
                    let remove = self.call(&["profile", "device", "remove", name, device], project);
                    let what = format!(
                        "the device {device} of the profile {name} (project {project}) is no `gputype: {}`",
                        wanted.gpu_type().map_or("?", GpuType::word)
                    );
                    found.push(Finding::new(what, format!("{remove}; {add}")));
                }
                Some(_) => {}
            }
        }
    }

    fn there(&self, instance: &Instance) -> Option<&seen::Object> {
        let known = (instance.project.clone(), instance.name.clone());
        self.seen.instances.get(&known)
    }

    fn is_running_container(&self, instance: &Instance) -> bool {
        let there = self.there(instance);
        instance.kind == Kind::Container && there.is_some_and(|there| there.status == "Running")
    }

    fn probe(&self, instance: &Instance) -> Read {
        Read::Command {
            command: Command::new("sh").args([
                "-c",
                PROBE,
                "sh",
                self.wanted.program.word(),
                &instance.project,
                &instance.name,
            ]),
            timeout: Duration::from_secs(60),
            limit: 4096,
        }
    }

    fn instance(
        &self,
        instance: &Instance,
        host: &mut dyn Host,
        found: &mut Vec<Finding>,
    ) -> Rendered<()> {
        let (name, project) = (&instance.name, &instance.project);
        let Some(there) = self.there(instance) else {
            let what = format!("there is no instance {name} in project {project}");
            let mend = match (&instance.image, instance.path.starts_with("domains.")) {
                (Some(image), _) => self.call(&["create", &image.value, name], project),
                (None, true) => "anklume domain apply".to_owned(),
                (None, false) => self.call(&["create", "IMAGE", name], project),
            };
            found.push(Finding::new(what, mend));
            return Ok(());
        };
        let attached = self.attached(instance, there, found);
        if !attached || !self.is_running_container(instance) {
            return Ok(());
        }
        let status = host.ask(&self.probe(instance))?.status;
        let restart = self.call(&["restart", name], project);
        let config = self.wanted.config_of(instance);
        let has_runtime = is_on(&config, "nvidia.runtime")
            || there
                .config
                .get("nvidia.runtime")
                .is_some_and(|text| text == "true");
        let version = self.view.facts.nvidia_driver.known();
        let version = version.map_or("of the host's version", String::as_str);
        let runtime = match has_runtime {
            true => format!("install NVIDIA's libraries {version} in the container: {restart}"),
            false => format!(
                "{}; {restart}",
                self.call(&["config", "set", name, "nvidia.runtime=true"], project)
            ),
        };
        let by_hand = self.call(&["exec", name], project) + " -- nvidia-smi";
        let (what, mend) = match status {
            0 => return Ok(()),
            10 => (
                format!(
                    "the instance {name} (project {project}) has a GPU device and sees no GPU, as after a restart that lost it"
                ),
                restart,
            ),
            11 => (
                format!(
                    "there is no nvidia-smi in the instance {name} (project {project}): it lacks the driver's libraries, which must be of the host's version {version}"
                ),
                runtime,
            ),
            12 => (
                format!(
                    "the driver's libraries in the instance {name} (project {project}) are of another version than the host's driver ({version})"
                ),
                runtime,
            ),
            _ => (
                format!("nvidia-smi fails in the instance {name} (project {project})"),
                by_hand,
            ),
        };
        found.push(Finding::new(what, mend));
        Ok(())
    }

    /// Whether the instance has all GPU devices that it is to have.
    fn attached(
        &self,
        instance: &Instance,
        there: &seen::Object,
        found: &mut Vec<Finding>,
    ) -> bool {
        let (name, project) = (&instance.name, &instance.project);
        let before = found.len();
        let profiles: BTreeSet<&String> = there.profiles.iter().collect();
        for profile in &instance.profiles {
            let gives_gpu = self.wanted.profiles.iter().any(|other| {
                other.name == profile.value && other.devices.values().any(Device::is_gpu)
            });
            if gives_gpu && !profiles.contains(&profile.value) {
                let profile = &profile.value;
                found.push(Finding::new(
                    format!("the instance {name} (project {project}) lacks the profile {profile}, which gives it its GPU"),
                    self.call(&["profile", "add", name, profile], project),
                ));
            }
        }
        for (device, wanted) in &instance.devices {
            if wanted.is_gpu() && !there.all_devices.contains_key(device) {
                found.push(Finding::new(
                    format!("the instance {name} (project {project}) lacks the device {device}"),
                    self.add("config", name, device, wanted, project),
                ));
            }
        }
        let sees = |texts: &seen::Texts| texts.get("type").is_some_and(|word| word == "gpu");
        found.len() == before && there.all_devices.values().any(sees)
    }
}

/// Whether a device is of the wanted kind; which card, and which slice of it, may differ.
fn is_like(now: &seen::Texts, wanted: &Device) -> bool {
    let word = now.get("gputype").map_or("physical", String::as_str);
    now.get("type").is_some_and(|word| word == "gpu")
        && wanted
            .gpu_type()
            .is_some_and(|wanted| wanted.word() == word)
}

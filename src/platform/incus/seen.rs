//! What the daemon says that it has: projects, profiles, instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;

use crate::error::Diagnostic;
use crate::platform::Host;
use crate::render::Rendered;
use crate::shell::Command;
use crate::transport::Read;

use super::device::Program;
use super::marks::{KEY, Marks};

/// Longest answer that is read, in bytes: a thousand instances are about 4 MB.
const LIMIT: u64 = 16 << 20;

/// Settings, and those of a device, as the daemon has them.
pub(super) type Texts = BTreeMap<String, String>;

/// All that a daemon has.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Projects; in each whether it has profiles of its own.
    projects: BTreeMap<String, bool>,
    /// By project and name.
    pub(super) profiles: BTreeMap<(String, String), Object>,
    /// By project and name.
    pub(super) instances: BTreeMap<(String, String), Object>,
}

/// A profile or an instance.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    pub(super) config: Texts,
    pub(super) devices: BTreeMap<String, Texts>,
    /// An instance's profiles, in order.
    pub(super) profiles: Vec<String>,
    /// An instance's `container` or `virtual-machine`.
    pub(super) kind: String,
    /// An instance's `Running`, `Stopped`, …
    pub(super) status: String,
    /// What an instance's profiles and it itself give together.
    pub(super) all_devices: BTreeMap<String, Texts>,
    /// A profile's description.
    pub(super) description: String,
}

impl Object {
    /// What of it is ours.
    pub(super) fn marks(&self) -> Marks {
        Marks::read(self.config.get(KEY).map_or("", String::as_str))
    }

    /// Whether an instance does anything.
    pub(super) fn is_up(&self) -> bool {
        !self.status.is_empty() && self.status != "Stopped"
    }
}

impl Seen {
    /// Asks for everything at once.
    ///
    /// # Errors
    /// Halts while it was not read, and where the daemon does not answer.
    pub(super) fn ask(program: Program, host: &mut dyn Host) -> Rendered<Self> {
        let output = host.ask(&read(program))?;
        if !output.success() || output.truncated {
            return Err(unanswered(program, &output).into());
        }
        let answers: Result<Vec<Vec<Json>>, _> =
            serde_json::Deserializer::from_slice(&output.stdout)
                .into_iter()
                .collect();
        let Ok([projects, profiles, instances]) =
            answers.map(<[_; 3]>::try_from).unwrap_or(Err(Vec::new()))
        else {
            let message = format!(
                "`{} query` does not list its objects as JSON",
                program.word()
            );
            return Err(Diagnostic::error(message).into());
        };
        let mut seen = Self::default();
        for project in &projects {
            let own = texts(&project["config"]);
            let own = own
                .get("features.profiles")
                .is_some_and(|own| own == "true");
            seen.projects.insert(text(&project["name"]), own);
        }
        seen.profiles = profiles.iter().map(object).collect();
        seen.instances = instances.iter().map(object).collect();
        Ok(seen)
    }

    /// Whether there is such a project.
    pub(super) fn has_project(&self, project: &str) -> bool {
        self.projects.contains_key(project)
    }

    /// The names of the projects, for messages.
    pub(super) fn projects(&self) -> String {
        let names: Vec<&str> = self.projects.keys().map(String::as_str).collect();
        names.join("`, `")
    }

    /// The project in which the profiles lie that instances of a project use.
    pub(super) fn profile_project<'a>(&self, project: &'a str) -> &'a str {
        match self.projects.get(project) {
            Some(false) => "default",
            _ => project,
        }
    }

    /// The instances that use a profile and do something.
    pub(super) fn running_users(&self, project: &str, profile: &str) -> Vec<(&str, &Object)> {
        let uses = |((of, _), instance): &(&(String, String), &Object)| {
            self.profile_project(of) == project
                && instance.is_up()
                && instance.profiles.iter().any(|name| name == profile)
        };
        let found = self.instances.iter().filter(uses);
        found
            .map(|((_, name), object)| (name.as_str(), object))
            .collect()
    }
}

/// Asks for all lists, one after another.
const LISTS: &str = include_str!("lists.sh");

fn read(program: Program) -> Read {
    Read::Command {
        command: Command::new("sh").args(["-c", LISTS, "sh", program.word()]),
        timeout: Duration::from_secs(60),
        limit: LIMIT,
    }
}

fn unanswered(program: Program, output: &crate::transport::Output) -> Diagnostic {
    let (word, product) = (program.word(), program.product());
    if output.status == 127 {
        let message = format!("there is no program `{word}` on the host");
        return Diagnostic::error(message).hint(format!(
            "install {product}, or name the other program: `gpu_incus.program: incus` or `lxc`"
        ));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = match (output.timed_out, output.truncated) {
        (true, _) => "it did not answer in a minute",
        (_, true) => "its answer is too long",
        _ => said.trim(),
    };
    Diagnostic::error(format!("{product} does not answer: {said}"))
        .hint(format!("`{word} info` on the host shows the same"))
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn texts(json: &Json) -> Texts {
    let map = json.as_object().into_iter().flatten();
    map.map(|(key, value)| (key.clone(), text(value))).collect()
}

fn devices(json: &Json) -> BTreeMap<String, Texts> {
    let map = json.as_object().into_iter().flatten();
    map.map(|(name, device)| (name.clone(), texts(device)))
        .collect()
}

fn list(json: &Json) -> Vec<String> {
    json.as_array().into_iter().flatten().map(text).collect()
}

fn object(json: &Json) -> ((String, String), Object) {
    let project = match json["project"].as_str() {
        Some(project) => project.to_owned(),
        // An older daemon lists those of the default project only, and does not say so.
        None => "default".to_owned(),
    };
    let object = Object {
        config: texts(&json["config"]),
        devices: devices(&json["devices"]),
        profiles: list(&json["profiles"]),
        kind: text(&json["type"]),
        status: text(&json["status"]),
        all_devices: devices(&json["expanded_devices"]),
        description: text(&json["description"]),
    };
    ((project, text(&json["name"])), object)
}

/// Names of both maps.
pub(super) fn keys<'a, A, B>(
    one: &'a BTreeMap<String, A>,
    other: &'a BTreeMap<String, B>,
) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

/// Whether a program is on the host.
pub(super) fn is_there(program: &str) -> Read {
    Read::Command {
        command: Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]),
        timeout: Duration::from_secs(10),
        limit: 4096,
    }
}

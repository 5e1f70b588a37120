//! Unit files: where they stand, what they say, and the links that enable them.
//!
//! They are read anew each time, so that a changed file is in force without
//! `daemon-reload`, which real systemd wants first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sim::machine::Host;
use crate::sim::tools;

/// Where units that were made by `systemd-run` stand.
pub(in crate::sim) const TRANSIENT: &str = "/run/systemd/transient";

/// Where unit files stand, first wins.
const FOLDERS: [&str; 5] = [
    TRANSIENT,
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub(in crate::sim) fn find(host: &Host, unit: &str) -> Option<PathBuf> {
    let template = unit.split_once('@').and_then(|(name, rest)| {
        let kind = rest.rsplit_once('.')?.1;
        Some(format!("{name}@.{kind}"))
    });
    let names = [Some(unit.to_owned()), template];
    names
        .into_iter()
        .flatten()
        .find_map(|name| {
            FOLDERS
                .iter()
                .map(|folder| host.path(format!("{folder}/{name}")))
                .find(|path| path.is_file())
        })
        .or_else(|| quadlet(host, unit))
}

/// Where Quadlet finds containers of root.
const QUADLET: &str = "/etc/containers/systemd";

/// The file of a container, of which podman's generator makes this unit.
fn quadlet(host: &Host, unit: &str) -> Option<PathBuf> {
    let name = unit.strip_suffix(".service")?;
    let path = host.path(format!("{QUADLET}/{name}.container"));
    (path.is_file() && tools::has_quadlet(host)).then_some(path)
}

/// Whether the unit was made by a generator, such as podman's.
pub(in crate::sim) fn is_generated(host: &Host, unit: &str) -> bool {
    find(host, unit).is_some_and(|path| path.starts_with(host.path(QUADLET)))
}

/// The units of Quadlet that a boot starts.
pub(in crate::sim) fn generated(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path(QUADLET))
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Some(format!("{}.service", name.strip_suffix(".container")?))
    });
    names
        .filter(|unit| is_generated(host, unit))
        .filter(|unit| !words_of(&settings(host, unit), "Install", "WantedBy").is_empty())
        .collect()
}

/// What the generator makes of `[Container]`.
fn podman_run(settings: &Settings) -> String {
    let mut words = vec!["/usr/bin/podman run --rm --replace".to_owned()];
    for (key, option) in [
        ("ContainerName", "--name"),
        ("AddDevice", "--device"),
        ("AddCapability", "--cap-add"),
        ("Volume", "--volume"),
        ("PublishPort", "--publish"),
        ("Environment", "--env"),
        ("PodmanArgs", ""),
        ("Image", ""),
        ("Exec", ""),
    ] {
        let values = settings.get(&("Container".to_owned(), key.to_owned()));
        for value in values.into_iter().flatten() {
            // In one word, so that a path in it stays the container's own.
            let equals = if option.is_empty() { "" } else { "=" };
            words.push(format!("{option}{equals}{value}"));
        }
    }
    words.join(" ")
}

/// Whether the unit was made by `systemd-run`.
pub(in crate::sim) fn is_transient(host: &Host, unit: &str) -> bool {
    host.path(format!("{TRANSIENT}/{unit}")).is_file()
}

/// Whether the unit came with the distribution. Its programs are not there, so
/// that it only plays being active.
pub(in crate::sim) fn is_shipped(host: &Host, unit: &str) -> bool {
    find(host, unit).is_some_and(|path| path.starts_with(host.path("/usr/lib/systemd/system")))
}

/// The unit that a name means: an alias is a link to another unit's file.
pub(in crate::sim) fn canonical(host: &Host, unit: &str) -> String {
    let target = FOLDERS
        .iter()
        .find_map(|folder| fs::read_link(host.path(format!("{folder}/{unit}"))).ok());
    match target.as_deref().and_then(Path::file_name) {
        Some(name) if name != "null" => name.to_string_lossy().into_owned(),
        _ => unit.to_owned(),
    }
}

/// The unit that a timer starts.
pub(in crate::sim) fn unit_of_timer(host: &Host, timer: &str) -> String {
    one(&settings(host, timer), "Timer", "Unit").unwrap_or_else(|| {
        let name = timer.strip_suffix(".timer").unwrap_or(timer);
        format!("{name}.service")
    })
}

pub(in crate::sim) fn is_masked(host: &Host, unit: &str) -> bool {
    let path = host.path(format!("/etc/systemd/system/{unit}"));
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// A unit file's settings: section and key to values, in order.
pub(in crate::sim) type Settings = BTreeMap<(String, String), Vec<String>>;

pub(in crate::sim) fn settings(host: &Host, unit: &str) -> Settings {
    let mut settings = Settings::new();
    let mut files: Vec<PathBuf> = find(host, unit).into_iter().collect();
    for folder in FOLDERS {
        if let Ok(entries) = fs::read_dir(host.path(format!("{folder}/{unit}.d"))) {
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    for file in files {
        let text = fs::read_to_string(file)
            .unwrap_or_default()
            .replace("\\\n", " ");
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = name.to_owned();
            } else if let Some((key, value)) = line
                .split_once('=')
                .filter(|_| !line.starts_with(['#', ';']))
            {
                let values = settings
                    .entry((section.clone(), key.trim().to_owned()))
                    .or_default();
                // An empty value takes back what was said before.
                if value.trim().is_empty() {
                    values.clear();
                } else {
                    values.push(value.trim().to_owned());
                }
            }
        }
    }
    if settings.keys().any(|(section, _)| section == "Container") {
        let run = podman_run(&settings);
        settings.insert(("Service".to_owned(), "ExecStart".to_owned()), vec![run]);
    }
    settings
}

pub(in crate::sim) fn words_of(settings: &Settings, section: &str, key: &str) -> Vec<String> {
    let values = settings.get(&(section.to_owned(), key.to_owned()));
    values
        .into_iter()
        .flatten()
        .flat_map(|value| value.split_whitespace())
        .map(str::to_owned)
        .collect()
}

pub(in crate::sim) fn one(settings: &Settings, section: &str, key: &str) -> Option<String> {
    settings
        .get(&(section.to_owned(), key.to_owned()))?
        .last()
        .cloned()
}

pub(in crate::sim) fn install_links(host: &Host, unit: &str) -> Vec<PathBuf> {
    let settings = settings(host, unit);
    let wanted = words_of(&settings, "Install", "WantedBy")
        .into_iter()
        .map(|target| format!("{target}.wants"));
    let required = words_of(&settings, "Install", "RequiredBy")
        .into_iter()
        .map(|target| format!("{target}.requires"));
    wanted
        .chain(required)
        .map(|folder| host.path(format!("/etc/systemd/system/{folder}/{unit}")))
        .collect()
}

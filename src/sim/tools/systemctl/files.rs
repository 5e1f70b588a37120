//! Unit files: where they stand, what they say, and the links that enable them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sim::machine::Host;

/// Where unit files stand, first wins.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub(super) fn find(host: &Host, unit: &str) -> Option<PathBuf> {
    let template = unit.split_once('@').and_then(|(name, rest)| {
        let kind = rest.rsplit_once('.')?.1;
        Some(format!("{name}@.{kind}"))
    });
    let names = [Some(unit.to_owned()), template];
    names.into_iter().flatten().find_map(|name| {
        FOLDERS
            .iter()
            .map(|folder| host.path(format!("{folder}/{name}")))
            .find(|path| path.is_file())
    })
}

pub(super) fn is_masked(host: &Host, unit: &str) -> bool {
    let path = host.path(format!("/etc/systemd/system/{unit}"));
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// A unit file's settings: section and key to values, in order.
pub(super) type Settings = BTreeMap<(String, String), Vec<String>>;

pub(super) fn settings(host: &Host, unit: &str) -> Settings {
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
    settings
}

pub(super) fn words_of(settings: &Settings, section: &str, key: &str) -> Vec<String> {
    let values = settings.get(&(section.to_owned(), key.to_owned()));
    values
        .into_iter()
        .flatten()
        .flat_map(|value| value.split_whitespace())
        .map(str::to_owned)
        .collect()
}

pub(super) fn one(settings: &Settings, section: &str, key: &str) -> Option<String> {
    settings
        .get(&(section.to_owned(), key.to_owned()))?
        .last()
        .cloned()
}

pub(super) fn install_links(host: &Host, unit: &str) -> Vec<PathBuf> {
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

/// Words as systemd splits them: blanks, quotes, `%%` and `$$`.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if open == letter => quote = None,
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
        .into_iter()
        .map(|word| word.replace("%%", "%").replace("$$", "$"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_systemd_splits_them() {
        assert_eq!(
            split(r#"/bin/sh -c "echo 'a  b'" x"#),
            ["/bin/sh", "-c", "echo 'a  b'", "x"]
        );
        assert_eq!(split("a 100%%"), ["a", "100%"]);
    }
}

//! The files that technologies keep on a host, so that slices come back after a reboot.
//!
//! Which they are, each strategy says; the playbook writes them and removes the rest. What a
//! file says is its template's matter.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::STRATEGIES;
use crate::catalog::Technology;
use crate::facts::HostFacts;

/// Where the boot script and all that it reads lies.
pub(super) const FOLDER: &str = "/etc/deploy/gpu";

/// The script itself, which the playbook writes.
const SCRIPT: &str = "gpu_slices.sh";

/// A file that a technology keeps on a host while it slices a card there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptFile {
    /// Template, such as `mig_config.j2`.
    pub template: &'static str,
    /// Where it goes, absolute.
    pub dest: String,
    /// Mode in octal, such as `0644`.
    pub mode: &'static str,
    /// What the template sees as `item.vars`, beside `gpu_slices`.
    pub vars: Json,
}

impl KeptFile {
    /// A file that all may read, below `/etc/deploy/gpu`, with nothing of its own to print.
    pub(super) fn beside_the_script(name: &str, template: &'static str) -> Self {
        Self {
            template,
            dest: format!("{FOLDER}/{name}"),
            mode: "0644",
            vars: Json::Null,
        }
    }
}

/// The name under which templates find a technology's cards.
pub(super) fn list_name(technology: Technology) -> String {
    technology.name().replace('-', "_")
}

/// What the boot script reads, in the order of the strategies.
pub(super) fn boot_files() -> Vec<&'static str> {
    let files = STRATEGIES.into_iter();
    files.filter_map(super::Strategy::boot_file).collect()
}

/// All files that are to be there (`{state: present, dest, folder, template, mode, vars}`) or not to be
/// there any more (`{state: absent, dest}`), and folders that held such files alone
/// (`{state: unused, dest}`). `lists` holds the cards of each technology.
pub(super) fn kept(lists: &Map<String, Json>, facts: &HostFacts) -> Json {
    let mut present: Vec<KeptFile> = Vec::new();
    for strategy in STRATEGIES {
        let cards = lists.get(&list_name(strategy.technology()));
        let cards = cards
            .and_then(Json::as_array)
            .map_or(&[][..], Vec::as_slice);
        if cards.is_empty() {
            continue;
        }
        for file in strategy.files(cards) {
            // Two technologies may share a file, which then speaks of both.
            if present.iter().all(|other| other.dest != file.dest) {
                present.push(file);
            }
        }
    }
    let wanted: BTreeSet<&str> = present.iter().map(|file| file.dest.as_str()).collect();
    let known = facts.kept_files.known().map_or(&[][..], Vec::as_slice);
    let script = format!("{FOLDER}/{SCRIPT}");
    let own = STRATEGIES.into_iter().flat_map(super::Strategy::own_paths);
    let boot = boot_files();
    let absent: BTreeSet<String> = (own.map(|path| (*path).to_owned()))
        .chain(boot.iter().map(|name| format!("{FOLDER}/{name}")))
        .chain(known.iter().cloned())
        .filter(|path| !wanted.contains(path.as_str()) && *path != script)
        .collect();
    let unused: BTreeSet<&str> = (known.iter())
        .filter(|path| absent.contains(*path))
        .map(|path| folder_of(path))
        .filter(|folder| folder.starts_with(&format!("{FOLDER}/")))
        .filter(|folder| wanted.iter().all(|path| folder_of(path) != *folder))
        .collect();
    let unused = unused
        .iter()
        .map(|dest| json!({ "state": "unused", "dest": dest }));
    let present = present.iter().map(|file| {
        json!({
            "state": "present",
            "dest": file.dest,
            "folder": folder_of(&file.dest),
            "template": file.template,
            "mode": file.mode,
            "vars": file.vars,
        })
    });
    let absent = absent
        .iter()
        .map(|dest| json!({ "state": "absent", "dest": dest }));
    present.chain(absent).chain(unused).collect()
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fact;

    fn state<'a>(files: &'a Json, dest: &str) -> Option<&'a str> {
        let mut files = files.as_array().expect("a list").iter();
        files.find(|file| file["dest"] == dest)?["state"].as_str()
    }

    #[test]
    fn what_no_card_needs_any_more_is_removed_and_the_script_is_not() {
        let mut lists = Map::new();
        lists.insert("mig".to_owned(), json!([{ "uuid": "GPU-1" }]));
        lists.insert("sriov".to_owned(), json!([]));
        let facts = HostFacts {
            kept_files: Fact::Known(vec![
                "/etc/deploy/gpu/gpu_slices.sh".to_owned(),
                "/etc/deploy/gpu/mig.conf".to_owned(),
                "/etc/deploy/gpu/left/over.env".to_owned(),
            ]),
            ..HostFacts::default()
        };
        let files = kept(&lists, &facts);
        let of = |name: &str| state(&files, &format!("{FOLDER}/{name}"));
        assert_eq!(of("mig.conf"), Some("present"));
        assert_eq!(of("sriov.conf"), Some("absent"));
        assert_eq!(of("left/over.env"), Some("absent"));
        assert_eq!(of("left"), Some("unused"));
        assert_eq!(state(&files, FOLDER), None);
        assert_eq!(of("gpu_slices.sh"), None);
    }

    #[test]
    fn each_boot_file_is_one_that_its_strategy_keeps() {
        for strategy in STRATEGIES {
            let Some(name) = strategy.boot_file() else {
                continue;
            };
            let files = strategy.files(&[json!({})]);
            let dest = format!("{FOLDER}/{name}");
            assert!(files.iter().any(|file| file.dest == dest), "{name}");
        }
    }
}

//! What a shell proposes behind a word: hosts and groups of the inventories that the command
//! line names, tags of its playbook, runs of this machine's history; all else clap knows.
//!
//! The script of `deploy completions` has the shell ask by `DEPLOY_COMPLETE=SHELL deploy --
//! WORDS…`. For the answer only files are read: nothing is connected to, nothing is run, and
//! what cannot be read, or not soon, proposes nothing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{EnvCompleter, Shells};
use serde_json::Value as Json;

use super::args::Cli;
use super::record;
use crate::content::Content;
use crate::history::Store;
use crate::inventory;
use crate::report;
use crate::yaml;

/// By this variable a shell asks; its value is the shell's name.
const ASKS: &str = "DEPLOY_COMPLETE";

/// Longest time for reading files: a shell waits for it at each key.
const PATIENCE: Duration = Duration::from_millis(1500);

/// By this variable whoever would rather wait says for how many seconds.
const WAITS: &str = "DEPLOY_COMPLETE_SECONDS";

/// Most bytes of a playbook that is looked at for tags.
const MOST_PLAYBOOK: u64 = 1 << 20;

/// The script that a shell is to load.
pub(super) fn script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    if let Some(completer) = shells.completer(&shell.to_string()) {
        // It is written to memory, which takes everything.
        let _ = completer.write_registration(ASKS, "deploy", "deploy", "deploy", &mut script);
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// Answers a shell if one asks.
pub(super) fn answered() -> bool {
    let Some(shell) = std::env::var_os(ASKS).filter(|shell| !shell.is_empty()) else {
        return false;
    };
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&shell.to_string_lossy()) else {
        return true;
    };
    let mut answer = Vec::new();
    let here = std::env::current_dir().ok();
    let mut command = Cli::command();
    if complete(shell, &mut command, here, &mut answer).is_ok() {
        report::raw(&answer);
    }
    true
}

fn complete(
    shell: &dyn EnvCompleter,
    command: &mut clap::Command,
    here: Option<PathBuf>,
    answer: &mut Vec<u8>,
) -> std::io::Result<()> {
    shell.write_complete(command, words(), here.as_deref(), answer)
}

/// The words of the command line that is being written: what stands behind the first `--`.
fn words() -> Vec<OsString> {
    let mut words = std::env::args_os().skip_while(|word| word != "--");
    words.next();
    words.collect()
}

/// Hosts and groups that continue a pattern.
pub(super) fn patterns(current: &OsStr) -> Vec<CompletionCandidate> {
    last_of_list(current, &[',', ':', '&', '!'], |inventory| {
        let groups = inventory.groups().map(str::to_owned);
        let hosts = inventory.hosts().map(|host| host.as_str().to_owned());
        hosts.chain(groups).collect()
    })
}

/// Names of hosts.
pub(super) fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    last_of_list(current, &[], |inventory| {
        let hosts = inventory.hosts().map(|host| host.as_str().to_owned());
        hosts.collect()
    })
}

/// Names of groups.
pub(super) fn groups(current: &OsStr) -> Vec<CompletionCandidate> {
    last_of_list(current, &[], |inventory| {
        inventory.groups().map(str::to_owned).collect()
    })
}

/// Tags of the playbook.
pub(super) fn tags(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let (before, begun) = split(current, &[',']);
    let found = soon(|| playbook_tags(&words())).unwrap_or_default();
    candidates(before, begun, found)
}

/// Runs that were made from this machine, the newest first.
pub(super) fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = current.to_str() else {
        return Vec::new();
    };
    let found = soon(|| {
        let folder = record::folder(None).ok().flatten()?;
        let runs = Store::at(folder).runs().ok()?;
        let ids = runs
            .iter()
            .map(|run| run.entry.begun.id.as_str().to_owned());
        Some(ids.collect())
    });
    candidates("", begun, found.flatten().unwrap_or_default())
}

fn last_of_list(
    current: &OsStr,
    separators: &[char],
    names: impl FnOnce(&inventory::Inventory) -> Vec<String> + Send + 'static,
) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let (before, begun) = split(current, separators);
    let found = soon(move || {
        let sources = inventories(&words());
        let (inventory, _) = inventory::load(&sources, None, &[]);
        names(&inventory)
    });
    candidates(before, begun, found.unwrap_or_default())
}

/// What stands before the last part of a list, and the part.
fn split<'a>(text: &'a str, separators: &[char]) -> (&'a str, &'a str) {
    match text.rfind(separators) {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    }
}

fn candidates(before: &str, begun: &str, names: Vec<String>) -> Vec<CompletionCandidate> {
    let mut kept: Vec<CompletionCandidate> = Vec::new();
    for name in names {
        // A name that a terminal or a shell could act on is nobody's wish.
        if name.starts_with(begun) && !name.chars().any(char::is_control) {
            let order = Some(kept.len());
            let candidate = CompletionCandidate::new(format!("{before}{name}"));
            kept.push(candidate.display_order(order));
        }
    }
    kept
}

/// What a look at files comes to, if it comes soon; the thread is left behind.
fn soon<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(look());
    });
    let said = std::env::var(WAITS).ok();
    receiver.recv_timeout(patience(said.as_deref())).ok()
}

/// How long is waited, by what `WAITS` says; an hour at most.
fn patience(said: Option<&str>) -> Duration {
    let seconds = said.and_then(|text| text.parse::<u64>().ok());
    seconds.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.min(3600)))
}

/// The inventories that a command line names.
fn inventories(words: &[OsString]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let value = match word.as_ref() {
            "-i" | "--inventory" => words.next().map(std::borrow::Cow::into_owned),
            word => word
                .strip_prefix("--inventory=")
                .or_else(|| word.strip_prefix("-i").filter(|_| !word.starts_with("--")))
                .map(str::to_owned),
        };
        found.extend(value.filter(|value| !value.is_empty()).map(PathBuf::from));
    }
    found
}

/// The tags of the playbook that a command line names, or else of the main one.
fn playbook_tags(words: &[OsString]) -> Vec<String> {
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    let verb = words.next().unwrap_or_default();
    let named = words.find(|word| {
        let is_playbook = word.ends_with(".yml") || word.ends_with(".yaml");
        is_playbook && matches!(verb.as_ref(), "run" | "drift")
    });
    let text = match named {
        Some(path) => {
            let path = PathBuf::from(path.as_ref());
            match std::fs::metadata(&path) {
                Ok(about) if about.is_file() && about.len() <= MOST_PLAYBOOK => {
                    std::fs::read_to_string(&path).unwrap_or_default()
                }
                _ => return Vec::new(),
            }
        }
        None => Content::shipped()
            .playbook("gpu.yml")
            .map(|playbook| playbook.text.to_string())
            .unwrap_or_default(),
    };
    let (node, _) = yaml::load(&PathBuf::from("playbook"), &text);
    let mut found = Vec::new();
    if let Some(node) = node {
        collect_tags(&node.to_json(), &mut found);
    }
    found
}

fn collect_tags(value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| collect_tags(item, found)),
        Json::Object(map) => {
            let tags = match map.get("tags") {
                Some(Json::Array(tags)) => tags.iter().filter_map(Json::as_str).collect(),
                Some(Json::String(tags)) => tags.split(',').map(str::trim).collect(),
                _ => Vec::new(),
            };
            for tag in tags {
                if !tag.is_empty() && !found.iter().any(|known| known == tag) {
                    found.push(tag.to_owned());
                }
            }
            map.values().for_each(|value| collect_tags(value, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn inventories_are_found_in_all_their_forms() {
        let words = os(&[
            "deploy",
            "gpu",
            "-i",
            "a",
            "-ib",
            "--inventory=c",
            "--inventory",
            "d",
        ]);
        let found = inventories(&words);
        assert_eq!(found, ["a", "b", "c", "d"].map(PathBuf::from));
        assert!(inventories(&os(&["deploy", "gpu", "--ignored", "-i"])).is_empty());
    }

    #[test]
    fn the_last_part_of_a_pattern_is_what_is_written() {
        let separators = [',', ':', '&', '!'];
        assert_eq!(split("a,b:!h1", &separators), ("a,b:!", "h1"));
        assert_eq!(split("h1", &separators), ("", "h1"));
        let found = candidates("a,", "h", vec!["h1".into(), "x".into(), "h\u{1b}".into()]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].get_value(), "a,h1");
    }

    #[test]
    fn what_hangs_proposes_nothing() {
        let (_keep, never) = mpsc::channel::<()>();
        assert_eq!(soon(move || never.recv().is_ok()), None);
    }

    #[test]
    fn who_would_rather_wait_may_say_so() {
        assert_eq!(patience(None), PATIENCE);
        assert_eq!(patience(Some("soon")), PATIENCE);
        assert_eq!(patience(Some("60")), Duration::from_secs(60));
        let most = patience(Some("18446744073709551615"));
        assert_eq!(most, Duration::from_secs(3600));
    }

    #[test]
    fn tags_are_those_of_the_playbook() {
        let found = playbook_tags(&os(&["deploy", "gpu", "--tags"]));
        assert!(found.len() > 1, "{found:?}");
        assert!(playbook_tags(&os(&["deploy", "run", "nowhere.yml"])).is_empty());
    }
}

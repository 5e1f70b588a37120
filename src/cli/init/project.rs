//! The files of a new project, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::layout::{self, Cards};
use crate::catalog::Catalog;
use crate::text::printable_line;

/// Where the new inventory lies in the project.
const INVENTORY: &str = "inventories/gpus";

/// Most characters of a name that is told.
const LINE: usize = 200;

/// Where the hosts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// They were given as a list, and stand in the new inventory.
    List,
    /// They stand in inventories of the user's, which stay where they are.
    Inventories(Vec<String>),
}

/// A host of the project.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: Option<u16>,
    pub(super) found: Found,
}

/// What is known of a host.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// What it has.
    Seen(Cards),
    /// Its variables say already what is wanted of it.
    SaysItself,
    /// It was not reached.
    Unreached,
}

/// A project that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub(super) source: Source,
    /// The user to log in as, where one was given.
    pub(super) user: Option<String>,
    pub(super) becomes_root: bool,
    pub(super) hosts: Vec<Host>,
}

impl Project {
    /// Hosts of the same cards, by the name of their group.
    fn groups(&self) -> BTreeMap<String, Vec<(&Host, &Cards)>> {
        let mut groups: BTreeMap<String, Vec<(&Host, &Cards)>> = BTreeMap::new();
        for host in &self.hosts {
            if let Found::Seen(cards) = &host.found
                && !cards.models.is_empty()
            {
                let name = group_name(&cards.models);
                groups.entry(name).or_default().push((host, cards));
            }
        }
        groups
    }

    /// All files with their paths in the project.
    pub(super) fn files(&self, catalog: &Catalog) -> Vec<(String, String)> {
        let mut files = vec![
            (".gitignore".to_owned(), IGNORED.to_owned()),
            ("README.md".to_owned(), self.readme()),
            (format!("{INVENTORY}/hosts.yml"), self.inventory()),
            (format!("{INVENTORY}/group_vars/all.yml"), self.all_vars()),
        ];
        for (name, hosts) in self.groups() {
            let usual = usual(&hosts);
            let path = format!("{INVENTORY}/group_vars/{name}.yml");
            files.push((path, group_vars(&hosts, usual, catalog)));
            // A name that is no name of a file can have none of its own.
            let own_file = |host: &Host| !host.name.contains('/') && !host.name.starts_with('.');
            let others = hosts.iter().filter(|(_, cards)| cards.now != usual);
            for (host, cards) in others.filter(|(host, _)| own_file(host)) {
                let text = format!(
                    "# {}: another layout than the others of its group.\n{}",
                    one_line(&host.name),
                    variables(&cards.now, &cards.notes)
                );
                files.push((format!("{INVENTORY}/host_vars/{}.yml", host.name), text));
            }
        }
        files
    }

    fn inventory(&self) -> String {
        let mut text = String::from(
            "# Hosts by the cards that they have. What is wanted of a group stands in group_vars/,\n# what is special about one host in host_vars/.\nall:\n",
        );
        let is_listed = |host: &&Host| {
            let is_grouped = matches!(&host.found, Found::Seen(cards) if !cards.models.is_empty());
            self.source == Source::List && !is_grouped
        };
        let mut rest = self.hosts.iter().filter(is_listed).peekable();
        if rest.peek().is_some() {
            text += "  hosts:\n";
            for host in rest {
                let why = match host.found {
                    Found::Unreached => "  # not reached when this was made",
                    _ => "  # no GPU",
                };
                let _ = writeln!(text, "    {}{why}", entry(host, &self.source));
            }
        }
        let groups = self.groups();
        if groups.is_empty() {
            text += "  children: {}\n";
            return text;
        }
        text += "  children:\n";
        for (name, hosts) in groups {
            let _ = writeln!(text, "    {name}:\n      hosts:");
            for (host, _) in hosts {
                let _ = writeln!(text, "        {}", entry(host, &self.source));
            }
        }
        text
    }

    fn all_vars(&self) -> String {
        let mut text = String::from("# Variables of all hosts.\n");
        if self.source == Source::List {
            if let Some(user) = &self.user {
                let _ = writeln!(text, "ansible_user: {}", quoted(user));
            }
            if self.becomes_root {
                text += "ansible_become: true\n";
            }
        }
        text + ALL_VARS
    }

    /// The inventories of a command, as flags.
    fn flags(&self) -> String {
        let own = match &self.source {
            Source::List => &[][..],
            Source::Inventories(paths) => paths,
        };
        let own = own.iter().map(|path| format!("-i {}", word(path)));
        let all: Vec<String> = own.chain([format!("-i {INVENTORY}")]).collect();
        all.join(" ")
    }

    fn readme(&self) -> String {
        let flags = self.flags();
        format!(
            "# GPUs of this fleet\n\n\
             Which hosts there are stands in `{INVENTORY}/hosts.yml`, what is wanted of their cards in\n\
             `{INVENTORY}/group_vars/`: a file a group of hosts with the same cards. It says what was\n\
             there when this was made, with `enabled: false`, so that nothing is changed.\n\n\
             ```console\n\
             $ deploy discover {flags}        # what is there\n\
             $ deploy gpu {flags} --check     # what would be changed\n\
             $ deploy gpu {flags}             # show it, ask, apply\n\
             $ deploy drift {flags}           # what was changed since\n\
             ```\n"
        )
    }

    /// What a person is told beside the files.
    pub(super) fn said(&self, dir: &Path) -> String {
        let mut text = String::new();
        for (name, hosts) in self.groups() {
            let names: Vec<&str> = hosts.iter().map(|(host, _)| host.name.as_str()).collect();
            let _ = writeln!(text, "{name}: {}", printable_line(&names.join(", "), 2000));
        }
        let of = |is: fn(&Found) -> bool| {
            let hosts = self.hosts.iter().filter(move |host| is(&host.found));
            let names: Vec<&str> = hosts.map(|host| host.name.as_str()).collect();
            printable_line(&names.join(", "), 2000)
        };
        let own = of(|found| matches!(found, Found::SaysItself));
        if !own.is_empty() {
            let _ = writeln!(
                text,
                "left to the inventory, which says already what is wanted of them: {own}"
            );
        }
        let missing = of(|found| matches!(found, Found::Unreached));
        if !missing.is_empty() {
            let _ = writeln!(
                text,
                "not reached, so that nothing is known of their cards: {missing}"
            );
        }
        let _ = writeln!(
            text,
            "next: cd {} && deploy gpu {} --check",
            word(&dir.display().to_string()),
            self.flags()
        );
        text
    }
}

/// The layout that most hosts of a group have; of two as many, the first.
fn usual<'a>(hosts: &[(&Host, &'a Cards)]) -> &'a str {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for (_, cards) in hosts {
        match counts.iter_mut().find(|(now, _)| *now == cards.now) {
            Some((_, count)) => *count += 1,
            None => counts.push((&cards.now, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max();
    let found = counts.iter().find(|(_, count)| Some(*count) == most);
    found.map_or("", |(now, _)| now)
}

fn group_vars(hosts: &[(&Host, &Cards)], usual: &str, catalog: &Catalog) -> String {
    let models = hosts.first().map_or(&[][..], |(_, cards)| &cards.models);
    let notes: Vec<String> = hosts
        .iter()
        .filter(|(_, cards)| cards.now == usual)
        .flat_map(|(host, cards)| {
            cards
                .notes
                .iter()
                .map(|note| format!("{}: {note}", host.name))
        })
        .collect();
    let mut text = format!(
        "# Hosts with {}.\n{}",
        models.join(" and "),
        variables(usual, &notes)
    );
    for model in models.iter().filter_map(|key| catalog.by_key(key)) {
        let can: Vec<&str> = model.technologies.iter().map(|it| it.name()).collect();
        let _ = writeln!(text, "\n# {} can: {}.", model.key, can.join(", "));
        for (what, block) in layout::alternatives(model) {
            let _ = writeln!(text, "#\n# {what}:");
            text += &indented("#   ", &block);
        }
    }
    text
}

fn variables(now: &str, notes: &[String]) -> String {
    let mut text = String::from(
        "containers_gpu_slicing:\n  # Not managed yet, so that nothing is changed. What stands below is what was there: make it\n  # what you want, say `enabled: true`, and look with --check.\n  enabled: false\n",
    );
    for note in notes {
        let _ = writeln!(text, "  # {}", one_line(note));
    }
    text + &indented("  ", now)
}

/// Each line with something before it.
pub(super) fn indented(with: &str, text: &str) -> String {
    text.lines().map(|line| format!("{with}{line}\n")).collect()
}

fn entry(host: &Host, source: &Source) -> String {
    match (source, host.port) {
        (Source::List, Some(port)) => format!("{}: {{ansible_port: {port}}}", key(&host.name)),
        _ => format!("{}: {{}}", key(&host.name)),
    }
}

/// `gpu_h100_80gb` for `H100-80GB`.
fn group_name(models: &[String]) -> String {
    let all = models.join("_").to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("gpu_{}", all.chars().map(plain).collect::<String>())
}

/// A name as a key of YAML, which takes some short words for something else than text.
fn key(name: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(plain)
        && !WORDS.contains(&name.to_lowercase().as_str());
    match is_plain {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// JSON's strings are YAML's, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text as one word of a shell.
fn word(text: &str) -> String {
    crate::shell::quote(text)
}

/// Text of a host in a comment.
fn one_line(text: &str) -> String {
    printable_line(text, LINE)
}

const IGNORED: &str = "\
# Saved plans hold what stands on hosts.
*.plan
plan.bin
# Passwords for vaults stay out of a repository.
.vault*
vault-password*
*.retry
";

const ALL_VARS: &str = r#"
# What uses the slices: podman, docker, incus, kubernetes, cozystack, several in a list, or none.
# gpu_platform: podman

# How slices are given to containers.
# containers_gpu_container_integration:
#   runtime: crun
#   device_plugin: nvidia

# `force` stops services that hold a card and starts them again; `auto` refuses to touch a card
# that is in use, `skip` leaves it out.
# containers_gpu_state_management:
#   apply_strategy: auto

# How cards are found.
# containers_gpu_discovery:
#   method: auto

# Whether several instances may share a card that only software keeps apart.
# gpu_policy: exclusive

# What `deploy drift --remediate` may do, and when.
# gpu_drift:
#   most_hosts: 1
"#;

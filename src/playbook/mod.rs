//! Ansible-shaped playbooks: plays, tasks and handlers, each with its place.
//!
//! `load` reads a file and says everything that is wrong with its shape at once:
//! keywords that do not exist or that this program lacks, values of a wrong kind,
//! handlers that nobody defines. The names of modules are given to it; what their
//! parameters mean, `module` knows. Nothing is rendered here.

mod keywords;
mod load;
mod project;

use std::collections::BTreeSet;

use crate::error::{Diagnostic, Origin, Problems, nearest};
use crate::value::{Map, Node, Vars};

pub use load::{Files, load};
pub use project::{FileKind, Found, LeftFile, Project, UsedFile, UsedFiles, kept_text, lacking};

/// A playbook as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Playbook {
    /// Its plays, in order.
    pub plays: Vec<Play>,
}

/// Tasks for some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Play {
    /// `name`, or the hosts' pattern.
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// `hosts`: a host pattern; a list of patterns is joined by commas.
    pub hosts: String,
    /// Where `hosts` stands.
    pub hosts_origin: Origin,
    /// `serial`: how many hosts at a time; the last one repeats. Empty: all at once.
    pub serial: Vec<Batch>,
    /// `max_fail_percentage`.
    pub max_fail_percentage: Option<f64>,
    /// `vars_files`, the later beating the earlier, and `vars`, which both beat.
    pub vars: Vars,
    /// `become`.
    pub r#become: Option<bool>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `tasks`.
    pub tasks: Vec<Task>,
    /// `handlers`.
    pub handlers: Vec<Task>,
}

impl Play {
    /// Whether the play or one of its tasks asks to be run as root. There is one
    /// shell a host, so one such task makes it root for all.
    #[must_use]
    pub fn wants_become(&self) -> bool {
        let asked = |task: &Task| task.r#become == Some(true);
        self.r#become == Some(true)
            || self.tasks.iter().any(asked)
            || self.handlers.iter().any(asked)
    }
}

/// One number of `serial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// So many hosts.
    Hosts(u32),
    /// So many hosts of a hundred, at least one.
    Percent(u32),
}

/// One task or handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// `name`, or the module's.
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// The module's short name, such as `template`.
    pub module: String,
    /// Where the module's name stands.
    pub module_origin: Origin,
    /// What stands behind the module's name.
    pub args: Node,
    /// `when`; absent if it is always done.
    pub when: Option<Node>,
    /// `loop`.
    pub r#loop: Option<Loop>,
    /// `register`.
    pub register: Option<String>,
    /// `tags`, with those of the play.
    pub tags: Vec<String>,
    /// `notify`: names of handlers, or of what they listen to.
    pub notify: Vec<(String, Origin)>,
    /// `listen`, of handlers.
    pub listen: Vec<String>,
    /// `become`.
    pub r#become: Option<bool>,
    /// `vars`.
    pub vars: Vars,
    /// `no_log`: nothing that it writes is shown.
    pub no_log: bool,
    /// `check_mode`: false for a command that changes nothing and runs while planning.
    pub check_mode: Option<bool>,
    /// `changed_when`.
    pub changed_when: Option<Node>,
    /// `failed_when`.
    pub failed_when: Option<Node>,
}

impl Task {
    /// The parameters, if they are a mapping.
    #[must_use]
    pub fn params(&self) -> Option<&Map> {
        self.args.as_map()
    }

    /// Whether it is a handler of that name.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.listen.iter().any(|listened| listened == name)
    }
}

/// `loop` and `loop_control`.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// A list, or a template that gives one.
    pub items: Node,
    /// `loop_var`: how an item is called.
    pub variable: String,
    /// `index_var`: how its number is called.
    pub index: Option<String>,
}

/// Which tasks are wanted: `--tags` and `--skip-tags`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Only these; empty means all.
    pub only: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
}

impl Tags {
    /// Whether a task with these tags is done, by Ansible's rules: `always` is done
    /// unless skipped, `never` only where another of its tags is asked for.
    #[must_use]
    pub fn allow(&self, tags: &[String]) -> bool {
        let has = |name: &str| tags.iter().any(|tag| tag == name);
        let named = |list: &[String]| list.iter().any(|tag| has(tag));
        let wanted = if self.only.is_empty() || self.only.iter().any(|tag| tag == "all") {
            !has("never") || named(&self.only)
        } else {
            let tagged = self.only.iter().any(|tag| tag == "tagged") && !tags.is_empty();
            let untagged = self.only.iter().any(|tag| tag == "untagged") && tags.is_empty();
            has("always") || named(&self.only) || ((tagged || untagged) && !has("never"))
        };
        let skipped = named(&self.skip)
            || (self.skip.iter().any(|tag| tag == "tagged") && !tags.is_empty())
            || (self.skip.iter().any(|tag| tag == "untagged") && tags.is_empty())
            || (self.skip.iter().any(|tag| tag == "all") && !has("always"));
        wanted && !skipped
    }

    /// Names that no play or task of the playbook has: with one that is mistyped
    /// nothing would be done, and all would look well.
    #[must_use]
    pub fn unknown(&self, playbook: &Playbook) -> Problems {
        let known: BTreeSet<&str> = playbook
            .plays
            .iter()
            .flat_map(|play| {
                let tasks = play.tasks.iter().chain(&play.handlers);
                tasks.flat_map(|task| &task.tags).chain(&play.tags)
            })
            .map(String::as_str)
            .collect();
        let mut problems = Problems::default();
        // A template may become any name.
        if known.iter().any(|tag| tag.contains("{{")) {
            return problems;
        }
        for tag in self.only.iter().chain(&self.skip) {
            let special = ["all", "tagged", "untagged", "always", "never"];
            if special.contains(&tag.as_str()) || known.contains(tag.as_str()) {
                continue;
            }
            let all: Vec<&str> = known.iter().copied().collect();
            let message = format!("no task has the tag `{tag}`");
            problems.push(
                Diagnostic::error(message).hint(match nearest(tag, all.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if all.is_empty() => "the playbook has no tags".to_owned(),
                    None => format!("there are {}", all.join(", ")),
                }),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests;

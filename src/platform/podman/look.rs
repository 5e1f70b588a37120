//! What a host has for podman: asked in one command, whatever the variables say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::Diagnostic;
use crate::facts::Vendor;
use crate::platform::Host;
use crate::render::Rendered;
use crate::shell::Command;
use crate::strategy::CDI_SPEC_LIBRARY;
use crate::transport::{Output, Read};

/// Seconds after which the host counts as not answering; `podman` may wait for a lock.
const TIMEOUT_S: u64 = 60;
const MOST_BYTES: u64 = 256 * 1024;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// podman's version; none if it is not installed.
    pub(super) podman: Option<(u32, u32)>,
    /// Whether what makes units of its files is there.
    pub(super) quadlet: bool,
    /// Programs that are there: `crun`, `runc`, `catatonit`, `nvidia-ctk`, `amd-ctk`.
    pub(super) programs: BTreeSet<String>,
    /// Controllers of the root control group; none where there is no tree of version 2.
    pub(super) controllers: Option<Vec<String>>,
    /// Where SELinux is: whether containers may use devices.
    pub(super) selinux_devices: Option<bool>,
    /// Where AppArmor is: its profiles.
    pub(super) apparmor: Option<BTreeSet<String>>,
    /// Whether NVIDIA's toolkit has a unit that writes its specification.
    pub(super) refresh_unit: bool,
    /// Names that NVIDIA's tool lists, such as `nvidia.com/gpu=GPU-…`.
    pub(super) nvidia_names: BTreeSet<String>,
    /// What our own specification of a vendor's cards is: `same`, `differs`, `absent`.
    pub(super) specs: BTreeMap<String, String>,
    /// Nodes of each CDI name, by vendor, as the cards have them now.
    pub(super) nodes: BTreeMap<(String, String), Vec<String>>,
    /// Mode and group of device nodes.
    pub(super) modes: BTreeMap<String, (u32, String)>,
    /// Users by name.
    pub(super) users: BTreeMap<String, User>,
    /// Whether units run, by user (`-` for root) and name.
    pub(super) active: BTreeMap<(String, String), bool>,
}

/// A user whose containers are rootless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) groups: Vec<String>,
    pub(super) lingers: bool,
    /// Whether the user's own systemd runs.
    pub(super) manager: bool,
    /// Whether numbers are set aside for the users in its containers.
    pub(super) subuids: bool,
    pub(super) subgids: bool,
    /// Controllers that it may use; none where it has no tree yet.
    pub(super) delegated: Option<Vec<String>>,
}

impl Seen {
    /// Whether a unit runs now.
    pub(super) fn runs(&self, scope: &str, unit: &str) -> bool {
        let key = (scope.to_owned(), unit.to_owned());
        self.active.get(&key).copied().unwrap_or(false)
    }

    /// What our own specification of a vendor's cards is.
    pub(super) fn spec(&self, vendor: Vendor) -> &str {
        let found = self.specs.get(&vendor.to_string());
        found.map_or("absent", String::as_str)
    }
}

/// Asks for all of it. `units` are pairs of a scope (a user, or `-`) and a unit.
pub(super) fn look(
    host: &mut dyn Host,
    users: &BTreeSet<String>,
    units: &BTreeSet<(String, String)>,
) -> Rendered<Seen> {
    let text = format!("{CDI_SPEC_LIBRARY}\n{}", include_str!("look.sh"));
    let mut command = Command::new("sh").arg("-c").arg(text).arg("sh");
    command = command.args(users).arg("--");
    for (scope, unit) in units {
        command = command.arg(scope).arg(unit);
    }
    let output = host.ask(&Read::Command {
        command,
        timeout: Duration::from_secs(TIMEOUT_S),
        limit: MOST_BYTES,
    })?;
    whole(&output)?;
    Ok(read(&output.text()))
}

/// Whether all was answered. A unit that is missing in the answer would count as one that does
/// not run, and its files be taken away.
fn whole(output: &Output) -> Result<(), Diagnostic> {
    let text = output.text();
    if output.success() && !output.truncated && text.lines().last() == Some("end") {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = crate::text::printable_line(said.lines().last().unwrap_or("sh").trim(), 200);
    let message = match (output.timed_out, output.truncated) {
        (true, _) => format!("`{last}` did not end: it was waited for at most {TIMEOUT_S} s"),
        (_, true) => format!("the answer is longer than {} KiB", MOST_BYTES / 1024),
        _ => format!("`{last}` did not answer"),
    };
    let message = format!("what the host has for podman cannot be told: {message}");
    Err(Diagnostic::error(message).hint("try it on the host; nothing was changed"))
}

/// Reads the lines of `look.sh`; what is no such line is left out.
pub(super) fn read(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let owned = || words.iter().map(|word| (*word).to_owned());
        match (word, &words[..]) {
            ("podman", [.., version]) => seen.podman = version_of(version),
            ("quadlet", [_]) => seen.quadlet = true,
            ("crun" | "runc" | "catatonit" | "nvidia-ctk" | "amd-ctk", [_, ..]) => {
                seen.programs.insert(word.to_owned());
            }
            ("controllers", _) => seen.controllers = Some(owned().collect()),
            ("selinux", [state]) => seen.selinux_devices = Some(*state == "on"),
            ("apparmor", ["Y"]) => {
                seen.apparmor.get_or_insert_default();
            }
            ("profile", [name, ..]) => {
                if let Some(profiles) = &mut seen.apparmor {
                    profiles.insert((*name).to_owned());
                }
            }
            ("refresh", ["yes"]) => seen.refresh_unit = true,
            ("cdi", [name]) => {
                seen.nvidia_names.insert((*name).to_owned());
            }
            ("spec", [vendor, state]) => {
                seen.specs.insert((*vendor).to_owned(), (*state).to_owned());
            }
            ("node", [vendor, name, node]) => {
                let key = ((*vendor).to_owned(), (*name).to_owned());
                seen.nodes.entry(key).or_default().push((*node).to_owned());
            }
            ("mode", [node, mode, _, group]) => {
                if let Ok(mode) = u32::from_str_radix(mode, 8) {
                    let value = (mode, (*group).to_owned());
                    seen.modes.insert((*node).to_owned(), value);
                }
            }
            ("user", [name, uid, ..]) => {
                if let Ok(uid) = uid.parse() {
                    seen.users.entry((*name).to_owned()).or_default().uid = uid;
                }
            }
            ("unit", [scope, unit, state]) => {
                let running = matches!(*state, "active" | "activating" | "reloading");
                let key = ((*scope).to_owned(), (*unit).to_owned());
                seen.active.insert(key, running);
            }
            (_, [name, values @ ..]) => {
                if let Some(user) = seen.users.get_mut(*name) {
                    of_user(user, word, values);
                }
            }
            _ => {}
        }
    }
    seen
}

fn of_user(user: &mut User, word: &str, values: &[&str]) {
    let owned = || values.iter().map(|value| (*value).to_owned()).collect();
    match word {
        "groups" => user.groups = owned(),
        "linger" => user.lingers = true,
        "manager" => user.manager = true,
        "subuid" => user.subuids = true,
        "subgid" => user.subgids = true,
        "delegated" => user.delegated = Some(owned()),
        _ => {}
    }
}

/// Major and minor of `5.4.2`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_host_are_read() {
        let seen = read(
            "podman podman version 5.4.2\nquadlet /usr/libexec/podman/quadlet\ncrun crun version 1.21\n\
             controllers \nspec intel same\nnode intel 0000:4b:00.0 /dev/dri/renderD128\n\
             mode /dev/dri/renderD128 660 root render\nuser worker 1000 /home/worker\n\
             groups worker worker render\nlinger worker\nsubuid worker\ndelegated worker cpu memory pids\n\
             unit - work.service active\nunit worker train.service inactive\nnonsense\n",
        );
        assert_eq!(seen.podman, Some((5, 4)));
        assert!(seen.quadlet && seen.programs.contains("crun"));
        assert_eq!(seen.controllers, Some(Vec::new()));
        assert_eq!(seen.spec(Vendor::Intel), "same");
        assert_eq!(seen.spec(Vendor::Amd), "absent");
        let worker = &seen.users["worker"];
        assert_eq!(worker.groups, ["worker", "render"]);
        assert!(worker.lingers && worker.subuids && !worker.manager && !worker.subgids);
        assert_eq!(worker.delegated.as_deref().map(<[_]>::len), Some(3));
        assert!(seen.runs("-", "work.service"));
        assert!(!seen.runs("worker", "train.service"));
        assert_eq!(
            seen.modes["/dev/dri/renderD128"],
            (0o660, "render".to_owned())
        );
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none_and_says_what_did_not_answer() {
        let answer = |status: i32, stdout: &str| Output {
            status,
            timed_out: false,
            stdout: stdout.as_bytes().to_vec(),
            stderr: b"podman --version\nnvidia-ctk cdi list\n".to_vec(),
            truncated: false,
        };
        let good = answer(0, "podman podman version 5.4.2\nend\n");
        assert_eq!(whole(&good), Ok(()));
        let refused = |output: &Output, text: &str| {
            let error = whole(output).expect_err("it is not whole");
            assert!(error.message.contains(text), "{error:?}");
        };
        refused(&answer(0, "unit - a.service ac"), "list` did not answer");
        refused(&answer(1, "end\n"), "list` did not answer");
        let hung = Output {
            timed_out: true,
            ..answer(124, "podman podman version 5.4.2\n")
        };
        refused(&hung, "`nvidia-ctk cdi list` did not end");
        let cut = Output {
            truncated: true,
            ..good
        };
        refused(&cut, "longer than 256 KiB");
    }

    #[test]
    fn a_host_without_podman_has_nothing() {
        assert_eq!(read("spec amd absent\n").podman, None);
        assert_eq!(read("podman podman version devel\n").podman, None);
    }
}

//! containerd: it learns of the cards by NVIDIA's tool, which adds its runtime and the container
//! device interface to its configuration.
//!
//! What containerd makes of its files, `containerd config dump` says: it is asked before and
//! after, so that it does not matter into which file a version of the tool writes (from 1.18 on
//! one of its own below `conf.d`). Both are kept as they were. AMD's `amd-ctk` configures Docker
//! alone ("docker for now"), and Intel has no tool.

use std::time::Duration;

use crate::catalog::Catalog;
use crate::desired::{Desired, DevicePlugin};
use crate::error::{Diagnostic, Problems};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Step, StepId};
use crate::transport::{PathState, Read};

use super::daemon::{self, Wanted, as_it_was, sum_of};
use super::{Finding, Host, Platform, View, Wish};

/// The platform.
#[derive(Debug)]
pub(super) struct Containerd;

const VARIABLE: &str = "gpu_containerd";
const FILE: &str = "/etc/containerd/config.toml";
const FOLDER: &str = "/etc/containerd/conf.d";
const DROP_IN: &str = "/etc/containerd/conf.d/99-nvidia.toml";
const UNIT: &str = "containerd.service";
const TOOL: &str = "nvidia-ctk";
const MOST_BYTES: u64 = 64 * 1024;

impl Platform for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn variable(&self) -> &'static str {
        VARIABLE
    }

    fn needs_block(&self, _: &Desired) -> bool {
        false
    }

    fn check(&self, desired: &Desired, _: &Catalog, problems: &mut Problems) {
        daemon::read(desired, VARIABLE, problems);
        let plugin = &desired.integration.device_plugin;
        let message = match plugin.value {
            DevicePlugin::Amd => "AMD's amd-ctk configures Docker and not containerd",
            DevicePlugin::Intel => "Intel has no tool that configures containerd",
            _ => return,
        };
        let hint = "its cards need none: containerd 2 reads CDI specifications in /etc/cdi as it is, and 1.7 with `enable_cdi`";
        problems.push(plugin.blame(Diagnostic::error(message).hint(hint)));
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let found = look(view, host)?;
        let mut wishes = Vec::new();
        if found.has("cri off") {
            let note = format!(
                "containerd's part for Kubernetes is off (`disabled_plugins` in {FILE}), and nothing else uses the runtime"
            );
            wishes.push(Wish::Note(note));
        }
        let active = found.has("active");
        let restarts = found.wanted.restart.value && active;
        let is_so = found.is_so();
        if !is_so {
            wishes.push(super::podman::folder("/etc/containerd"));
            wishes.push(Wish::Step(Box::new(write(&found, restarts, host)?)));
        }
        if is_so && !found.has("behind") {
            return Ok(wishes);
        }
        if restarts {
            wishes.push(Wish::Step(Box::new(restart())));
        } else if active {
            let note = "containerd is not restarted (`restart: false`), and does not know the cards until it is";
            wishes.push(Wish::Note(note.to_owned()));
        }
        Ok(wishes)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        let found = look(view, host)?;
        if !found.is_so() {
            let what = "containerd is not told of the cards: `containerd config dump` has no runtime `nvidia` as it should be";
            let call = configure(&found.wanted).display();
            let mend = format!("{call} && systemctl restart {UNIT}");
            return Ok(vec![Finding::new(what, mend)]);
        }
        if !found.has("active") {
            let mend = format!("systemctl start {UNIT}");
            return Ok(vec![Finding::new("containerd does not run", mend)]);
        }
        if found.has("behind") {
            let what = "containerd has not read its files since they were written";
            let mend = format!("systemctl restart {UNIT}");
            return Ok(vec![Finding::new(what, mend)]);
        }
        Ok(Vec::new())
    }

    fn library(&self) -> &'static str {
        include_str!("containerd.sh")
    }

    fn removal(&self, _: &View<'_>, _: &mut dyn Host) -> Rendered<Vec<Wish>> {
        // The runtime harms nobody who does not ask for it, and may be another's.
        Ok(Vec::new())
    }
}

/// What was found on a host, and what is to be.
struct Found {
    wanted: Wanted,
    /// The answer to `LOOK`.
    there: String,
}

impl Found {
    fn has(&self, line: &str) -> bool {
        self.there.lines().any(|found| found == line)
    }

    /// The rest of the lines that begin with a word.
    fn all(&self, word: &str) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for line in self.there.lines() {
            let rest = line.strip_prefix(word);
            found.extend(rest.and_then(|rest| rest.strip_prefix(' ')));
        }
        found.sort_unstable();
        found
    }

    fn is_so(&self) -> bool {
        let is_ours = |rest: &&str| {
            rest.strip_prefix("nvidia ")
                .is_some_and(|program| program.ends_with("nvidia-container-runtime"))
        };
        self.all("binary").iter().any(is_ours)
            && !self.has("cdi false")
            && (!self.wanted.default_runtime.value || self.has("default nvidia"))
    }

    /// What containerd has, in a line.
    fn runtimes(&self) -> String {
        let default = self.all("default").first().map_or("", |name| *name);
        let name = |name: &&str| match *name == default {
            true => format!("{name} (default)"),
            false => (*name).to_owned(),
        };
        let names: Vec<String> = self.all("runtime").iter().map(name).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    }
}

/// What the host has, one a line: `containerd`, `tool`, `active`, what `containerd_says` or
/// `broken` where its files cannot be read, and `behind` where one of the files that are given
/// was written after it had started.
const LOOK: &str = "
if command -v containerd >/dev/null 2>&1 && containerd --version >/dev/null 2>&1; then
    echo containerd
    containerd_says 2>/dev/null || echo broken
fi
command -v nvidia-ctk >/dev/null 2>&1 && nvidia-ctk --version >/dev/null 2>&1 && echo tool
systemctl is-active --quiet containerd.service 2>/dev/null && echo active &&
    containerd_behind containerd.service \"$@\" && echo behind
exit 0";

fn look(view: &View<'_>, host: &mut dyn Host) -> Rendered<Found> {
    let wanted = daemon::read(view.desired, VARIABLE, &mut Problems::default());
    let script = format!("{}{LOOK}", include_str!("containerd.sh"));
    let output = host.ask(&Read::Command {
        command: Command::new("sh")
            .args(["-c", &script, "sh"])
            .path(FILE)
            .path(DROP_IN),
        timeout: Duration::from_secs(60),
        limit: MOST_BYTES,
    })?;
    if !output.success() || output.truncated {
        let message = "what containerd is configured to cannot be told: the host did not answer";
        return Err(Diagnostic::error(message).into());
    }
    let there = output.text();
    let found = Found { wanted, there };
    let problem = |message: &str, hint: &str| Err(Diagnostic::error(message).hint(hint).into());
    if !found.has("containerd") {
        let hint = "install it, or leave `containerd` out of `gpu_platform`";
        return problem("containerd is not installed on this host", hint);
    }
    if found.has("broken") {
        let hint = "`containerd config dump` on the host says why";
        return problem("containerd cannot read its own configuration", hint);
    }
    if !found.has("tool") {
        let hint = "install the package nvidia-container-toolkit";
        let message = format!(
            "{TOOL} is not installed on this host, by which containerd learns of the cards"
        );
        return problem(&message, hint);
    }
    Ok(found)
}

fn configure(wanted: &Wanted) -> Command {
    let call = Command::new(TOOL).args(["runtime", "configure", "--runtime=containerd"]);
    let call = call.arg("--cdi.enabled").arg("--config").path(FILE);
    match wanted.default_runtime.value {
        true => call.arg("--set-as-default"),
        false => call,
    }
}

/// Has the tool write it. Its undo brings back both files, and restarts containerd behind that
/// where the change did.
fn write(found: &Found, restarts: bool, host: &mut dyn Host) -> Rendered<Step> {
    let change = Change::Setting {
        subject: "containerd".to_owned(),
        name: "runtimes".to_owned(),
        before: found.runtimes(),
        after: match found.wanted.default_runtime.value {
            true => "with nvidia (default), and the container device interface",
            false => "with nvidia, and the container device interface",
        }
        .to_owned(),
    };
    let sum = sum_of(&host.look(FILE)?);
    let had_folder = host.look(FOLDER)? != PathState::Absent;
    let id = StepId("containerd:config.toml".to_owned());
    let title = format!("have {TOOL} tell containerd of the cards");
    let key = |file: &str| StepId(format!("{id}:{file}")).key();
    let (main, drop_in) = (key(FILE), key(DROP_IN));
    let mut step = Step::new(id.clone(), "", title, change);
    let keep = |key: &str, path: &str| Command::new("path_snapshot").arg(key).path(path);
    let restore = |key: &str, path: &str| Command::new("path_restore").arg(key).path(path);
    step.check = as_it_was(FILE, sum.as_deref());
    step.snapshot = Script::one(keep(&main, FILE)).then(keep(&drop_in, DROP_IN));
    step.apply = Script::one(configure(&found.wanted));
    let which = match found.wanted.default_runtime.value {
        true => "default",
        false => "any",
    };
    step.verify = Script::one(Command::new("containerd_knows").arg(which));
    step.undo = Script::one(restore(&drop_in, DROP_IN)).then(restore(&main, FILE));
    if !had_folder {
        let unused = Command::new("containerd_unused").path(FOLDER);
        step.undo = step.undo.then(unused);
    }
    if restarts {
        let again = Command::new("systemctl").args(["restart", "--", UNIT]);
        step.undo = step.undo.then(again);
    }
    Ok(step)
}

fn restart() -> Step {
    daemon::restart(
        UNIT,
        "its containers run on, unless its `KillMode=` says else",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Located;

    fn found(default_runtime: bool, there: &str) -> Found {
        let wanted = Wanted {
            default_runtime: Located::default_of(default_runtime),
            restart: Located::default_of(true),
        };
        Found {
            wanted,
            there: there.to_owned(),
        }
    }

    #[test]
    fn what_containerd_says_of_itself_is_what_counts() {
        let bare = "containerd\ndefault runc\nruntime runc\ncdi false\n";
        assert!(!found(false, bare).is_so());
        assert_eq!(found(false, bare).runtimes(), "runc (default)");
        let nvidia = "runtime runc\nruntime nvidia\ndefault runc\nbinary nvidia /usr/bin/nvidia-container-runtime\n";
        assert!(found(false, nvidia).is_so());
        assert!(!found(true, nvidia).is_so());
        assert!(!found(false, &format!("{nvidia}cdi false\n")).is_so());
        let default = nvidia.replace("default runc", "default nvidia");
        assert!(found(true, &format!("{default}cdi true\n")).is_so());
        let other = nvidia.replace("nvidia-container-runtime", "runc");
        assert!(!found(false, &other).is_so());
    }
}

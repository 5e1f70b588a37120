//! Docker: its daemon learns of the cards by the vendor's tool, which adds its runtime and the
//! container device interface to `/etc/docker/daemon.json`.
//!
//! Whose tool, `device_plugin` of `containers_gpu_container_integration` says. What NVIDIA's
//! would write is asked for first, so that it is seen; the file as it was is kept, since
//! AMD's tool takes away more than it added (all of `/etc/cdi`).

use std::time::Duration;

use serde_json::Value as Json;

use crate::catalog::Catalog;
use crate::desired::{Desired, DevicePlugin};
use crate::error::{Diagnostic, Problems};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Step, StepId};
use crate::transport::{PathState, Read};

use super::daemon::{self, Wanted, as_it_was, sha256, sum_of};
use super::{Finding, Host, Platform, View, Wish};

/// The platform.
#[derive(Debug)]
pub(super) struct Docker;

const VARIABLE: &str = "gpu_docker";
const FILE: &str = "/etc/docker/daemon.json";
const UNIT: &str = "docker.service";
const MOST_BYTES: u64 = 64 * 1024;

impl Platform for Docker {
    fn name(&self) -> &'static str {
        "docker"
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
        if plugin.value == DevicePlugin::Intel {
            let message = "Intel has no tool that configures Docker";
            let hint = "its cards need none: `docker run --device /dev/dri/renderD128`, or a CDI specification as `gpu_podman` writes it";
            problems.push(plugin.blame(Diagnostic::error(message).hint(hint)));
        }
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let found = look(view, host)?;
        let Found {
            wanted,
            tool,
            there,
            text,
            sum,
            after,
        } = &found;
        let has = |word: &str| found.has(word);
        if found.is_so() {
            let runtime = found.runtime();
            let behind = wanted.restart.value && is_behind(there, runtime, wanted);
            let mut again = restart();
            again.verify = again.verify.then(knows(runtime, wanted));
            let again = behind.then(|| Wish::Step(Box::new(again)));
            return Ok(again.into_iter().collect());
        }
        let mut step = write(tool, wanted, text, after.as_deref());
        step.check = as_it_was(FILE, sum.as_deref());
        let restarts = wanted.restart.value && has("active");
        if restarts {
            // Behind the file's own undo.
            let again = Command::new("systemctl").args(["restart", "--", UNIT]);
            step.undo = step.undo.then(again);
        }
        let mut wishes = vec![
            super::podman::folder("/etc/docker"),
            Wish::Step(Box::new(step)),
        ];
        if restarts {
            wishes.push(Wish::Step(Box::new(restart())));
        } else if has("active") {
            let note = "Docker is not restarted (`restart: false`), and does not know the cards until it is";
            wishes.push(Wish::Note(note.to_owned()));
        }
        Ok(wishes)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        let found = look(view, host)?;
        let again = format!("systemctl restart {UNIT}");
        if !found.is_so() {
            let what = format!("{FILE} does not tell Docker of the cards");
            let call = configure(found.tool, &found.wanted).display();
            return Ok(vec![Finding::new(what, format!("{call} && {again}"))]);
        }
        if !found.has("active") {
            let what = "Docker does not run";
            return Ok(vec![Finding::new(what, format!("systemctl start {UNIT}"))]);
        }
        let behind = is_behind(&found.there, found.runtime(), &found.wanted);
        let what = format!("Docker has not read {FILE} since it tells of the cards");
        Ok(behind
            .then(|| Finding::new(what, again))
            .into_iter()
            .collect())
    }

    fn library(&self) -> &'static str {
        include_str!("docker.sh")
    }

    fn removal(&self, _: &View<'_>, _: &mut dyn Host) -> Rendered<Vec<Wish>> {
        // The runtime harms nobody who does not ask for it, and may be another's.
        Ok(Vec::new())
    }
}

/// What was found on a host, and what is to be.
struct Found {
    wanted: Wanted,
    tool: &'static str,
    /// The answer to `LOOK`.
    there: String,
    /// The daemon's file now, and as the tool would make it; AMD's does not say before.
    text: String,
    /// What `as_it_was` takes.
    sum: Option<String>,
    after: Option<String>,
}

impl Found {
    fn has(&self, word: &str) -> bool {
        self.there.lines().any(|line| line == word)
    }

    fn runtime(&self) -> &'static str {
        match self.after {
            Some(_) => "nvidia",
            None => "amd",
        }
    }

    fn is_so(&self) -> bool {
        is_so(&self.text, self.after.as_deref(), &self.wanted)
    }
}

fn look(view: &View<'_>, host: &mut dyn Host) -> Rendered<Found> {
    let wanted = daemon::read(view.desired, VARIABLE, &mut Problems::default());
    let amd = view.desired.integration.device_plugin.value == DevicePlugin::Amd;
    let tool = if amd { "amd-ctk" } else { "nvidia-ctk" };
    let there = ask(host, Command::new("sh").args(["-c", LOOK, "sh", tool]))?;
    let has = |word: &str| there.lines().any(|line| line == word);
    if !has("docker") {
        let hint = "install it, or leave `docker` out of `gpu_platform`";
        return Err(Diagnostic::error("Docker is not installed on this host")
            .hint(hint)
            .into());
    }
    if !has("tool") {
        let message =
            format!("{tool} is not installed on this host, by which Docker learns of the cards");
        let hint = match amd {
            true => "install AMD's container toolkit",
            false => "install the package nvidia-container-toolkit",
        };
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    let state = host.look(FILE)?;
    let sum = sum_of(&state);
    let text = match state {
        PathState::File {
            content: Some(content),
            ..
        } => String::from_utf8_lossy(&content).into_owned(),
        _ => String::new(),
    };
    let after = match amd {
        true => None,
        false => Some(ask(host, configure(tool, &wanted).arg("--dry-run"))?),
    };
    Ok(Found {
        wanted,
        tool,
        there,
        text,
        sum,
        after,
    })
}

/// What the host has: `docker`, `tool`, `active`, one a line; of a daemon that runs and can be
/// asked also `runtime NAME` and `default NAME`.
const LOOK: &str = "command -v dockerd >/dev/null 2>&1 && dockerd --version >/dev/null 2>&1 && echo docker; \
     command -v \"$1\" >/dev/null 2>&1 && \"$1\" --version >/dev/null 2>&1 && echo tool; \
     systemctl is-active --quiet docker.service 2>/dev/null && echo active && command -v docker >/dev/null 2>&1 && \
     docker info --format '{{range $name, $_ := .Runtimes}}runtime {{$name}}{{\"\\n\"}}{{end}}default {{.DefaultRuntime}}' 2>/dev/null </dev/null; \
     exit 0";

/// Standard output of a command that changes nothing.
fn ask(host: &mut dyn Host, command: Command) -> Rendered<String> {
    let output = host.ask(&Read::Command {
        command,
        timeout: Duration::from_secs(60),
        limit: MOST_BYTES,
    })?;
    if !output.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = crate::text::printable_line(said.trim(), 300);
        let message = format!("what Docker is to be configured to cannot be told: {said}");
        return Err(Diagnostic::error(message).into());
    }
    Ok(output.text())
}

/// The tool's call; both take these words, and AMD's turns the interface on by itself.
fn configure(tool: &str, wanted: &Wanted) -> Command {
    let mut call = Command::new(tool).args(["runtime", "configure", "--runtime=docker"]);
    if tool == "nvidia-ctk" {
        call = call.arg("--cdi.enabled").arg("--config").path(FILE);
    } else {
        call = call.arg("--config-path").path(FILE);
    }
    match wanted.default_runtime.value {
        true => call.arg("--set-as-default"),
        false => call,
    }
}

/// Whether the daemon's file says already what the tool would make it say. As values: another
/// order or indentation is no difference.
fn is_so(text: &str, after: Option<&str>, wanted: &Wanted) -> bool {
    let Ok(now) = serde_json::from_str::<Json>(text) else {
        return false;
    };
    match after {
        Some(after) => serde_json::from_str::<Json>(after).is_ok_and(|after| after == now),
        None => {
            now["runtimes"]["amd"]["path"] == "amd-container-runtime"
                && now["features"]["cdi"] == true
                && (!wanted.default_runtime.value || now["default-runtime"] == "amd")
        }
    }
}

/// Whether the daemon that runs has not read its file since that says what it should: it was
/// written with `restart: false`. A daemon that does not answer is not restarted for it.
fn is_behind(there: &str, runtime: &str, wanted: &Wanted) -> bool {
    let mut defaults = there
        .lines()
        .filter_map(|line| line.strip_prefix("default "));
    let Some(default) = defaults.find(|name| !name.is_empty()) else {
        return false;
    };
    let mut names = there
        .lines()
        .filter_map(|line| line.strip_prefix("runtime "));
    !names.any(|name| name == runtime) || (wanted.default_runtime.value && default != runtime)
}

/// That the daemon knows it: one that reads another file would be restarted in every run.
fn knows(runtime: &str, wanted: &Wanted) -> Command {
    let default = match wanted.default_runtime.value {
        true => "default",
        false => "any",
    };
    Command::new("docker_knows").args([runtime, default])
}

/// What one text of the daemon's file says otherwise than another. What is the same in both is
/// nobody's business here, and may be a credential.
fn differing(text: &str, other: &str) -> String {
    if text.trim().is_empty() {
        return "no file".to_owned();
    }
    let keys = |text: &str| serde_json::from_str::<serde_json::Map<String, Json>>(text).ok();
    let Some(mut own) = keys(text) else {
        return "a file that is no JSON object".to_owned();
    };
    let other = keys(other).unwrap_or_default();
    own.retain(|key, value| {
        let is_ours = ["runtimes", "default-runtime", "features"].contains(&key.as_str());
        is_ours && other.get(key) != Some(value)
    });
    match own.is_empty() {
        true => "none of these".to_owned(),
        false => serde_json::to_string_pretty(&own).unwrap_or_default(),
    }
}

fn write(tool: &str, wanted: &Wanted, text: &str, after: Option<&str>) -> Step {
    let change = Change::Setting {
        subject: FILE.to_owned(),
        name: "content".to_owned(),
        before: differing(text, after.unwrap_or_default()),
        after: match after {
            Some(after) => differing(after, text),
            None => "with the runtime `amd` and the container device interface".to_owned(),
        },
    };
    let id = StepId("docker:daemon.json".to_owned());
    let key = id.key();
    let title = format!("have {tool} tell Docker of the cards");
    let mut step = Step::new(id, "", title, change);
    step.snapshot = Script::one(Command::new("path_snapshot").arg(&key).path(FILE));
    step.apply = Script::one(configure(tool, wanted));
    step.verify = Script::one(match after {
        Some(after) => Command::new("docker_file_is")
            .path(FILE)
            .arg(sha256(after.trim_end_matches('\n'))),
        None => Command::new("docker_file_names")
            .path(FILE)
            .arg("amd-container-runtime"),
    });
    step.undo = Script::one(Command::new("path_restore").arg(&key).path(FILE));
    step
}

fn restart() -> Step {
    daemon::restart(UNIT, "its containers stop, unless its `live-restore` is on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Located;

    #[test]
    fn no_credential_of_the_file_is_in_a_step() {
        let before = r#"{"proxies": {"http-proxy": "http://u:s3cr3t@p"}, "debug": true}"#;
        let after = r#"{"proxies": {"http-proxy": "http://u:s3cr3t@p"}, "debug": true, "runtimes": {"nvidia": {}}}"#;
        let wanted = Wanted {
            default_runtime: Located::default_of(false),
            restart: Located::default_of(true),
        };
        for after in [Some(after), None] {
            let mut step = write("a-ctk", &wanted, before, after);
            step.check = as_it_was(FILE, Some(&sha256(before)));
            let step = serde_json::to_string(&step).expect("it is written");
            assert!(
                !step.contains("s3cr3t") && !step.contains("debug"),
                "{step}"
            );
            assert_eq!(step.contains("nvidia"), after.is_some(), "{step}");
        }
    }

    #[test]
    fn a_daemon_that_has_not_read_its_file_is_behind() {
        let wanted = |default: bool| Wanted {
            default_runtime: Located::default_of(default),
            restart: Located::default_of(true),
        };
        let knows = "docker\ntool\nactive\nruntime nvidia\nruntime runc\ndefault runc\n";
        assert!(!is_behind(knows, "nvidia", &wanted(false)));
        assert!(is_behind(knows, "nvidia", &wanted(true)));
        assert!(is_behind(knows, "amd", &wanted(false)));
        assert!(!is_behind(
            "docker\nactive\ndefault \n",
            "nvidia",
            &wanted(true)
        ));
    }
}

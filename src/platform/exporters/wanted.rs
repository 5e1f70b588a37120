//! `gpu_exporters`: which exporters of metrics a host is to have, typed and checked.

use std::net::IpAddr;

use crate::desired::{Block, Desired, Located};
use crate::error::{Diagnostic, Problems};
use crate::secret::Secret;

use super::kinds::{KINDS, Kind};

/// The variable.
pub(super) const VARIABLE: &str = "gpu_exporters";

/// Seconds that an exporter may take until it answers: DCGM reads each field once before.
const PATIENCE_S: u32 = 90;

/// One exporter as it was written.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) kind: &'static Kind,
    /// `enabled`.
    pub(super) enabled: Located<bool>,
    /// `run`.
    pub(super) run: Located<Run>,
    /// `image`, of a container.
    pub(super) image: Located<String>,
    /// `pull`, of a container: podman's word.
    pub(super) pull: Located<&'static str>,
    /// `binary`, of a unit: absolute.
    pub(super) binary: Located<String>,
    /// `address` on which it listens; all if it is none.
    pub(super) address: Option<IpAddr>,
    /// `port`.
    pub(super) port: Located<u32>,
    /// `profiling`: metrics that take a capability.
    pub(super) profiling: Located<bool>,
    /// `privileged`, of a container.
    pub(super) privileged: Located<bool>,
    /// `wait_s`: seconds that it may take until it answers.
    pub(super) wait_s: Located<u32>,
    /// `collectors`, of NVIDIA's: the file that lists its metrics.
    pub(super) collectors: Option<Located<String>>,
    /// `username` and `password`, of Intel's: who may read the metrics; everybody if none.
    pub(super) login: Option<Login>,
}

/// Who may read metrics.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
}

/// What runs an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// podman, by a unit that Quadlet makes.
    Container,
    /// systemd, the program that is installed.
    Unit,
}

/// Reads the block.
pub(super) fn read(desired: &Desired, problems: &mut Problems) -> Vec<Wanted> {
    let mut block = crate::platform::block(desired, VARIABLE, problems);
    let wanted = KINDS.iter().map(|kind| {
        let mut child = block.child(kind.key);
        let wanted = one(kind, &mut child);
        child.finish();
        wanted
    });
    let wanted: Vec<Wanted> = wanted.collect();
    block.finish();
    distinct(&wanted, problems);
    wanted
}

fn one(kind: &'static Kind, block: &mut Block<'_, '_>) -> Wanted {
    let is_dcgm = kind.key == "dcgm";
    let is_intel = kind.key == "intel";
    Wanted {
        kind,
        enabled: block.flag("enabled", false),
        run: block.word(
            "run",
            Run::Container,
            &[("container", Run::Container), ("unit", Run::Unit)],
        ),
        image: crate::platform::podman::image_or(block, kind.image),
        pull: block.word(
            "pull",
            "missing",
            &[
                ("missing", "missing"),
                ("always", "always"),
                ("never", "never"),
                ("newer", "newer"),
            ],
        ),
        binary: path(block, "binary", kind.binary),
        address: address(block),
        port: block.count("port", kind.port, 1, 65535),
        profiling: block.flag("profiling", false),
        privileged: block.flag("privileged", false),
        wait_s: block.count("wait_s", PATIENCE_S, 1, 3600),
        collectors: (is_dcgm && block.node("collectors").is_some())
            .then(|| path(block, "collectors", "")),
        login: if is_intel { login(block) } else { None },
    }
}

/// An absolute path that a line of a unit takes as it is.
fn path(block: &mut Block<'_, '_>, key: &'static str, default: &str) -> Located<String> {
    let found = block.text(key, default);
    let fine = |c: char| c.is_ascii_alphanumeric() || "/_-.+".contains(c);
    if !found.value.starts_with('/') || !found.value.chars().all(fine) {
        let message = format!(
            "`{}` must be an absolute path of letters, digits and `/_-.+`, not `{}`",
            block.path_of(key),
            found.value.escape_debug()
        );
        let problem = found.blame(Diagnostic::error(message));
        block.problems.push(problem);
    }
    found
}

fn address(block: &mut Block<'_, '_>) -> Option<IpAddr> {
    let text = block.text("address", "");
    if text.value.is_empty() {
        return None;
    }
    let found = text.value.parse().ok();
    if found.is_none() {
        let message = format!(
            "`{}` must be an IP address of the host, not `{}`",
            block.path_of("address"),
            text.value.escape_debug()
        );
        let problem = text.blame(Diagnostic::error(message));
        block.problems.push(problem);
    }
    found
}

/// Intel's `rest.conf` has one user.
fn login(block: &mut Block<'_, '_>) -> Option<Login> {
    let username = block.text("username", "xpumadmin");
    let fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if username.value.is_empty() || !username.value.chars().all(fine) {
        let message = format!(
            "`{}` must be made of letters, digits and `_-.`",
            block.path_of("username")
        );
        let problem = username.blame(Diagnostic::error(message));
        block.problems.push(problem);
    }
    let password = block.secret("password");
    match password {
        Some(password) => {
            if !password.value.payload().is_ascii() {
                // XPU Manager reads it as ASCII, and answers everything else with an error.
                let message = format!("`{}` must be ASCII", block.path_of("password"));
                let problem = password.blame(Diagnostic::error(message));
                block.problems.push(problem);
            }
            Some(Login {
                username: username.value,
                password: password.value,
            })
        }
        None => {
            if username.is_written() {
                let message = format!(
                    "`{}` is written without `password`",
                    block.path_of("username")
                );
                let hint =
                    "write both, or none: then everybody who reaches the port may read the metrics";
                let problem = username.blame(Diagnostic::error(message).hint(hint));
                block.problems.push(problem);
            }
            None
        }
    }
}

/// What contradicts something else.
fn distinct(wanted: &[Wanted], problems: &mut Problems) {
    let on: Vec<&Wanted> = wanted.iter().filter(|one| one.enabled.value).collect();
    for (place, one) in on.iter().enumerate() {
        let other = on[..place]
            .iter()
            .find(|other| other.port.value == one.port.value);
        if let Some(other) = other {
            let message = format!(
                "`{VARIABLE}.{}` and `{VARIABLE}.{}` both listen on port {}",
                other.kind.key, one.kind.key, one.port.value
            );
            let blamed = if one.port.is_written() { one } else { other };
            problems.push(blamed.port.blame(Diagnostic::error(message)));
        }
        let key = one.kind.key;
        if one.run.value == Run::Unit && one.privileged.value {
            let message = format!("`{VARIABLE}.{key}.privileged` is for `run: container`");
            let hint = "a unit that needs more has `profiling: true`";
            problems.push(one.privileged.blame(Diagnostic::error(message).hint(hint)));
        }
    }
}

//! The shell of a simulated host: what it may write to, and its environment.
//!
//! Commands of a host run as real processes of this machine. Before the shell
//! starts, this binary (called as `SHELL_NAME`) takes from itself the right to
//! write anywhere but in the host's folder, which nothing started from it can
//! regain.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The name under which this binary becomes the shell of a simulated host.
pub const SHELL_NAME: &str = "deploy-sim-shell";

/// Whether commands of simulated hosts can be kept in their folder here. Where
/// they cannot, only what is known to stay there may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confinement {
    /// They can write nowhere else.
    Enforced,
    /// They could write elsewhere; why.
    Unavailable(String),
}

/// Environment of everything that runs on the host in `root`.
pub(super) fn environment(root: &Path) -> Vec<(&'static str, OsString)> {
    let mut path = OsString::new();
    for folder in ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"] {
        path.push(root.join(folder));
        path.push(":");
    }
    path.push("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    vec![
        ("PATH", path),
        ("HOME", root.join("root").into()),
        ("TMPDIR", root.join("tmp").into()),
        ("USER", "root".into()),
        ("LOGNAME", "root".into()),
        ("SHELL", "/bin/sh".into()),
        ("LANG", "C.UTF-8".into()),
        ("DEPLOY_ROOT", root.into()),
        ("R", root.into()),
        (super::tools::ROOT_VARIABLE, root.into()),
    ]
}

/// Becomes `sh` in the host's folder: `ROOT` for a shell that reads its
/// commands, `ROOT COMMAND` for one command. Gives back a status only if that
/// did not work.
pub(super) fn run(args: &[OsString]) -> i32 {
    let mut stderr = std::io::stderr();
    let Some((root, command)) = args.split_first() else {
        let _ = writeln!(stderr, "usage: {SHELL_NAME} ROOT [COMMAND]");
        return 64;
    };
    let root = Path::new(root);
    if let Err(error) = restrict(root) {
        let _ = writeln!(stderr, "cannot confine the simulated host: {error}");
        return 71;
    }
    let mut shell = Command::new("/bin/sh");
    match command.first() {
        Some(command) => shell.arg("-c").arg(command),
        None => &mut shell,
    };
    if let Some(limit) = super::fault::file_size_limit(root) {
        // A process that hits the limit is told by an error, not by a signal.
        shell = Command::new("/bin/sh");
        shell.args(["-c", "trap '' XFSZ; exec sh \"$@\"", "sh"]);
        if let Some(command) = command.first() {
            shell.arg("-c").arg(command);
        }
        if let Err(error) = super::fault::limit_file_size(limit) {
            let _ = writeln!(stderr, "cannot limit file sizes: {error}");
        }
    }
    let error = shell
        .env_clear()
        .envs(environment(root))
        .current_dir(root.join("root"))
        .exec();
    let _ = writeln!(stderr, "cannot start /bin/sh: {error}");
    127
}

#[cfg(target_os = "linux")]
fn restrict(root: &Path) -> Result<(), String> {
    use landlock::{ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};

    let all = AccessFs::from_write(ABI::V3);
    let only_data = AccessFs::WriteFile | AccessFs::Truncate;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut ruleset = Ruleset::default()
        .handle_access(all)
        .and_then(Ruleset::create)
        .map_err(|error| text(&error))?;
    let folder = PathFd::new(root).map_err(|error| text(&error))?;
    ruleset = ruleset
        .add_rule(PathBeneath::new(folder, all))
        .map_err(|error| text(&error))?;
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"] {
        if let Ok(device) = PathFd::new(device) {
            ruleset = ruleset
                .add_rule(PathBeneath::new(device, only_data))
                .map_err(|error| text(&error))?;
        }
    }
    // Best effort: an older kernel enforces what it knows, `confinement` tells.
    ruleset
        .restrict_self()
        .map(drop)
        .map_err(|error| text(&error))
}

#[cfg(not(target_os = "linux"))]
fn restrict(_: &Path) -> Result<(), String> {
    Ok(())
}

/// Whether this machine can confine simulated hosts.
#[must_use]
#[cfg(target_os = "linux")]
pub fn confinement() -> Confinement {
    use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V3))
        .and_then(Ruleset::create);
    match asked {
        Ok(_) => Confinement::Enforced,
        Err(_) => Confinement::Unavailable(
            "the kernel has no Landlock of version 3 (Linux 6.2)".to_owned(),
        ),
    }
}

/// Whether this machine can confine simulated hosts.
#[must_use]
#[cfg(not(target_os = "linux"))]
pub fn confinement() -> Confinement {
    Confinement::Unavailable("only Linux can".to_owned())
}

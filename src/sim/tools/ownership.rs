//! Who owns a file of a simulated machine.
//!
//! The files belong to whoever runs the simulation; the machine believes that
//! they are root's. Another owner is kept beside the file, in an extended
//! attribute, so that it moves and goes away with it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::{Call, Outcome};

const ATTRIBUTE: &str = "user.deploy.owner";

/// Owner and group as the machine sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) user: String,
    pub(super) group: String,
}

/// The owner of what stands at `path`.
pub(super) fn of(path: &Path) -> Ownership {
    let mut buffer = [0_u8; 256];
    let kept = lgetxattr(path, ATTRIBUTE, &mut buffer)
        .ok()
        .and_then(|length| {
            std::str::from_utf8(buffer.get(..length)?)
                .ok()
                .map(str::to_owned)
        });
    if let Some((user, group)) = kept.as_deref().and_then(|text| text.split_once(':')) {
        return Ownership {
            user: user.to_owned(),
            group: group.to_owned(),
        };
    }
    let ours = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.uid() != ours && metadata.uid() != 0 => Ownership {
            user: metadata.uid().to_string(),
            group: metadata.gid().to_string(),
        },
        _ => Ownership {
            user: "root".to_owned(),
            group: "root".to_owned(),
        },
    }
}

/// Number of a user or group; those of a Debian system by name.
pub(super) fn id(name: &str) -> u32 {
    match name {
        "root" => 0,
        "daemon" => 1,
        "bin" => 2,
        "nobody" | "nogroup" => 65534,
        name => name.parse().unwrap_or(1000),
    }
}

/// `chown [-R] [-h] OWNER[:GROUP] FILE…`
pub(super) fn chown(call: &Call<'_>) -> io::Result<Outcome> {
    change(call, |text| match text.split_once([':', '.']) {
        Some((user, group)) => (some(user), some(group)),
        None => (some(text), None),
    })
}

/// `chgrp [-R] [-h] GROUP FILE…`
pub(super) fn chgrp(call: &Call<'_>) -> io::Result<Outcome> {
    change(call, |text| (None, some(text)))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn change(
    call: &Call<'_>,
    read: impl Fn(&str) -> (Option<String>, Option<String>),
) -> io::Result<Outcome> {
    let mut recursive = false;
    let mut reference = None;
    let mut words = Vec::new();
    for arg in call.args {
        match arg.as_str() {
            "-R" | "--recursive" => recursive = true,
            "-h" | "--no-dereference" | "-f" | "-v" | "-c" | "--" => {}
            arg if arg.starts_with("--reference=") => {
                reference = Some(of(Path::new(&arg["--reference=".len()..])));
            }
            arg => words.push(arg),
        }
    }
    let (user, group) = match reference {
        Some(owner) => (Some(owner.user), Some(owner.group)),
        None if words.is_empty() => {
            return Ok(Outcome::err(format!("{}: missing operand\n", call.name), 1));
        }
        None => read(words.remove(0)),
    };
    let mut outcome = Outcome::default();
    for path in words {
        if let Err(error) = set(
            Path::new(path),
            user.as_deref(),
            group.as_deref(),
            recursive,
        ) {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or(&text);
            outcome.stderr.extend_from_slice(
                format!("{}: cannot access '{path}': {reason}\n", call.name).as_bytes(),
            );
            outcome.status = 1;
        }
    }
    Ok(outcome)
}

fn set(path: &Path, user: Option<&str>, group: Option<&str>, recursive: bool) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mut owner = of(path);
    let before = owner.clone();
    if let Some(user) = user {
        owner.user = user.to_owned();
    }
    if let Some(group) = group {
        owner.group = group.to_owned();
    }
    // Links cannot carry the attribute, and nobody looks at their owners.
    if owner != before && !metadata.is_symlink() {
        let text = format!("{}:{}", owner.user, owner.group);
        lsetxattr(path, ATTRIBUTE, text.as_bytes(), XattrFlags::empty())?;
    }
    if recursive && metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            set(&entry?.path(), user, group, true)?;
        }
    }
    Ok(())
}

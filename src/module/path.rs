//! Steps that put something at a path: shared by `template`, `copy`, `file` and
//! `modprobe`. Each keeps what stood there and brings exactly that back.

use sha2::{Digest, Sha256};

use super::args::Args;
use super::context::{Context, Landing, Seen, whoami};
use crate::error::Diagnostic;
use crate::facts::Init;
use crate::playbook::LeftFile;
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, PathLook, Payload, Step, StepId};
use crate::text::hex;
use crate::transport::{PathState, Read};

/// Mode of a new file and of a new directory, where the task gives none.
const NEW_FILE: u32 = 0o644;
const NEW_DIRECTORY: u32 = 0o755;
/// Seconds that writing a file may take before it counts as hung.
const TIMEOUT_S: u32 = 60;

/// A file that is wanted.
pub(super) struct WantedFile {
    pub(super) path: String,
    pub(super) content: Vec<u8>,
    /// Whether its content must not be shown.
    pub(super) secret: bool,
    /// Whether the content is what the host has: only mode and owner are wanted.
    pub(super) own: bool,
}

/// Lower-case hexadecimal SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The step that makes a file what is wanted; none if it is so.
pub(super) fn file(
    mut wanted: WantedFile,
    args: &Args,
    ctx: &mut Context<'_>,
) -> Rendered<Option<Step>> {
    let left = ctx.project.left_at(&wanted.path).cloned();
    // Of a content that was not kept and is not there only the hash is known.
    let hash_only = match &left {
        Some(left) if !as_left(&mut wanted, left, ctx)? => Some(left.sha256.clone()),
        _ => None,
    };
    let lost = hash_only.is_some();
    let sum = hash_only.unwrap_or_else(|| sha256(&wanted.content));
    // Then there is nothing that could be shown or recorded.
    wanted.secret |= lost;
    ctx.landings.push(Landing {
        source: args.text("src").unwrap_or_default(),
        path: wanted.path.clone(),
        content: wanted.content.clone(),
        secret: wanted.secret || ctx.task.no_log,
        own: wanted.own,
    });
    let seen = look_with_parent(&wanted.path, Some(&sum), args, ctx)?;
    let (before, mode, owner, group) = match &seen.state {
        PathState::File {
            mode, owner, group, ..
        } => (
            true,
            args.mode("mode", *mode, false)?.unwrap_or(*mode),
            named(args, "owner", owner),
            named(args, "group", group),
        ),
        PathState::Absent | PathState::Link { .. } => {
            let (owner, group) = owner_of_new(args, ctx)?;
            let mode = args.mode("mode", NEW_FILE, false)?.unwrap_or(NEW_FILE);
            (false, mode, owner, group)
        }
        other => return Err(in_the_way(&wanted.path, other, "a file", ctx).into()),
    };
    let (mode, owner, group) = match left.and_then(|left| Some((left.bits()?, left))) {
        Some((bits, left)) => (bits, left.owner, left.group),
        None => (mode, owner, group),
    };
    let after = PathState::File {
        mode,
        owner: owner.clone(),
        group: group.clone(),
        size: wanted.content.len() as u64,
        sha256: sum.clone(),
        content: (!lost).then(|| wanted.content.clone()),
    };
    if before && same_file(&seen.state, &after) {
        return Ok(None);
    }
    let id = ctx.id(format!("file:{}", wanted.path));
    let payload = id.key();
    let octal = format!("{mode:04o}");
    let put = Command::new("put_file")
        .run_path(format!("payload/{payload}"))
        .path(&wanted.path)
        .args([&octal, &owner, &group]);
    let is = Command::new("path_is_file")
        .path(&wanted.path)
        .args([&sum, &octal, &owner, &group]);
    let title = match &seen.state {
        PathState::File { sha256, .. } if *sha256 == sum => {
            format!("change mode or owner of {}", wanted.path)
        }
        PathState::File { .. } => format!("change {}", wanted.path),
        _ => format!("write {}", wanted.path),
    };
    let mut step = step(&id, &wanted.path, title, &seen, after, wanted.secret, ctx);
    step.verify = Script::one(is);
    if !lost {
        step.apply = Script::one(put);
        step.payload = vec![Payload {
            name: payload,
            content: wanted.content,
        }];
    }
    Ok(Some(step))
}

/// What an earlier plan left there is wanted as it was left, however it would be made now.
/// False where only the hash of that is known: the content was not kept, and what stands
/// there has another or is too large to be read.
fn as_left(wanted: &mut WantedFile, left: &LeftFile, ctx: &mut Context<'_>) -> Rendered<bool> {
    if wanted.own || sha256(&wanted.content) == left.sha256 {
        return Ok(true);
    }
    if let Some(text) = &left.text
        && sha256(text.as_bytes()) == left.sha256
    {
        wanted.content = text.clone().into_bytes();
        return Ok(true);
    }
    let sum = sha256(&wanted.content);
    if let PathState::File {
        sha256,
        content: Some(content),
        ..
    } = ctx.look(&wanted.path, Some(&sum))?.state
        && sha256 == left.sha256
    {
        wanted.content = content;
        return Ok(true);
    }
    wanted.content = Vec::new();
    Ok(false)
}

/// Steps that make a directory what is wanted, its parents before it.
pub(super) fn directory(path: &str, args: &Args, ctx: &mut Context<'_>) -> Rendered<Vec<Step>> {
    let seen = match ctx.look(path, None) {
        Ok(seen) => seen,
        Err(halt) => {
            for parent in parents(path) {
                ctx.expect(state_of(parent));
            }
            ctx.expect(whoami());
            return Err(halt);
        }
    };
    let mut steps = Vec::new();
    let (mode, owner, group) = match &seen.state {
        PathState::Directory { mode, owner, group } => (
            args.mode("mode", *mode, true)?.unwrap_or(*mode),
            named(args, "owner", owner),
            named(args, "group", group),
        ),
        PathState::Absent => {
            for parent in parents(path) {
                let above = ctx.look(parent, None)?;
                match above.state {
                    PathState::Directory { .. } | PathState::Link { .. } => {}
                    PathState::Absent => {
                        let (owner, group) = ctx.whoami()?;
                        let after = PathState::Directory {
                            mode: NEW_DIRECTORY,
                            owner,
                            group,
                        };
                        steps.push(make_directory(parent, &above, after, ctx));
                    }
                    other => return Err(in_the_way(parent, &other, "a directory", ctx).into()),
                }
            }
            let (owner, group) = owner_of_new(args, ctx)?;
            let mode = args.mode("mode", NEW_DIRECTORY, true)?;
            (mode.unwrap_or(NEW_DIRECTORY), owner, group)
        }
        other => return Err(in_the_way(path, other, "a directory", ctx).into()),
    };
    let after = PathState::Directory { mode, owner, group };
    if !same_directory(&seen.state, &after) {
        steps.push(make_directory(path, &seen, after, ctx));
    }
    Ok(steps)
}

fn make_directory(path: &str, seen: &Seen, after: PathState, ctx: &mut Context<'_>) -> Step {
    let PathState::Directory { mode, owner, group } = &after else {
        // Only directories are made here.
        return step(
            &StepId(path.to_owned()),
            path,
            String::new(),
            seen,
            after,
            false,
            ctx,
        );
    };
    let words = [format!("{mode:04o}"), owner.clone(), group.clone()];
    let id = ctx.id(format!("directory:{path}"));
    let title = match seen.state {
        PathState::Absent => format!("make directory {path}"),
        _ => format!("change mode or owner of {path}"),
    };
    let mut step = step(&id, path, title, seen, after, false, ctx);
    step.apply = Script::one(Command::new("put_dir").path(path).args(&words));
    step.verify = Script::one(Command::new("path_is_dir").path(path).args(&words));
    step
}

/// The step that makes a symbolic link.
pub(super) fn link(
    path: &str,
    target: &str,
    force: bool,
    args: &Args,
    ctx: &mut Context<'_>,
) -> Rendered<Option<Step>> {
    let seen = look_with_parent(path, None, args, ctx)?;
    match &seen.state {
        PathState::Link { target: now } if now == target => return Ok(None),
        PathState::Absent | PathState::Link { .. } => {}
        PathState::File { .. } if force => {}
        other => {
            let problem = in_the_way(path, other, "a link", ctx);
            let hint = "`force: true` replaces a file; a directory is never replaced";
            return Err(problem.hint(hint).into());
        }
    }
    let after = PathState::Link {
        target: target.to_owned(),
    };
    let id = ctx.id(format!("link:{path}"));
    let mut step = step(
        &id,
        path,
        format!("link {path} to {target}"),
        &seen,
        after,
        false,
        ctx,
    );
    step.apply = Script::one(Command::new("put_link").path(path).arg(target));
    step.verify = Script::one(Command::new("path_is_link").path(path).arg(target));
    Ok(Some(step))
}

/// The step that removes whatever stands at a path.
pub(super) fn absent(path: &str, ctx: &mut Context<'_>) -> Rendered<Option<Step>> {
    let seen = ctx.look(path, None)?;
    let remove = match &seen.state {
        PathState::Absent => return Ok(None),
        PathState::Directory { .. } => "remove_tree",
        PathState::File { .. } | PathState::Link { .. } => "remove_path",
        other => return Err(in_the_way(path, other, "removed", ctx).into()),
    };
    let id = ctx.id(format!("absent:{path}"));
    let title = format!("remove {path}");
    let mut step = step(&id, path, title, &seen, PathState::Absent, false, ctx);
    if remove == "remove_tree" {
        step.snapshot = Script::one(Command::new("tree_snapshot").arg(id.key()).path(path));
        step.class = Class::Disruptive;
    }
    step.apply = Script::one(Command::new(remove).path(path));
    step.verify = Script::one(Command::new("path_is_absent").path(path));
    Ok(Some(step))
}

/// The step that removes a folder of which this plan removes all that is in it; with anything
/// else in it, it stays.
pub(super) fn emptied(path: &str, ctx: &mut Context<'_>) -> Rendered<Option<Step>> {
    let seen = ctx.look(path, None)?;
    if !matches!(seen.state, PathState::Directory { .. }) {
        return Ok(None);
    }
    let below = format!("{path}/");
    let mut planned = ctx.world.paths.range(below.clone()..);
    let stays = |(inside, state): (&String, &PathState)| {
        inside.starts_with(&below) && *state != PathState::Absent
    };
    if planned.any(stays) {
        return Ok(None);
    }
    // What begins with a dot is in no `*`.
    for pattern in [format!("{path}/*"), format!("{path}/.[!.]*")] {
        let found = ctx.glob(&pattern)?;
        let gone = |inside: &String| ctx.world.paths.get(inside) == Some(&PathState::Absent);
        if !found.iter().all(gone) {
            return Ok(None);
        }
    }
    let id = ctx.id(format!("emptied:{path}"));
    let title = format!("remove the folder {path}, in which nothing is any more");
    let mut step = step(&id, path, title, &seen, PathState::Absent, false, ctx);
    step.apply = Script::one(Command::new("remove_path").path(path));
    step.verify = Script::one(Command::new("path_is_absent").path(path));
    Ok(Some(step))
}

/// The step that changes mode and owner of a file that must be there.
pub(super) fn attributes(path: &str, args: &Args, ctx: &mut Context<'_>) -> Rendered<Option<Step>> {
    let seen = ctx.look(path, None)?;
    match &seen.state {
        PathState::Directory { .. } => Ok(directory(path, args, ctx)?.into_iter().next()),
        PathState::File { content, size, .. } => {
            let Some(content) = content else {
                let message = format!("{path} is too large to be managed ({size} bytes)");
                return Err(args.problem("path", message).into());
            };
            let wanted = WantedFile {
                path: path.to_owned(),
                content: content.clone(),
                secret: true,
                own: true,
            };
            file(wanted, args, ctx)
        }
        PathState::Absent => Err(args
            .problem("path", format!("there is no file {path} on the host"))
            .hint("`state: directory` makes one; `copy` and `template` write files")
            .into()),
        other => Err(in_the_way(path, other, "a file", ctx).into()),
    }
}

fn step(
    id: &StepId,
    path: &str,
    title: String,
    seen: &Seen,
    after: PathState,
    secret: bool,
    ctx: &mut Context<'_>,
) -> Step {
    let secret = secret || ctx.task.no_log;
    let mut undo = Script::one(Command::new("path_restore").arg(id.key()).path(path));
    if is_unit_file(path) && ctx.facts.init == Init::Systemd {
        // Else systemd would go on with the file that is no longer there.
        undo = undo.then(Command::new("unit_reload"));
    }
    let change = Change::Path {
        path: path.to_owned(),
        before: look(&seen.state, secret),
        after: look(&after, secret),
    };
    let step = Step {
        class: match lets_in(path) {
            true => Class::Disruptive,
            false => Class::Safe,
        },
        check: if seen.planned {
            // An earlier step puts it there, and its own check speaks for both.
            Script::default()
        } else {
            check(path, &seen.state)
        },
        snapshot: Script::one(Command::new("path_snapshot").arg(id.key()).path(path)),
        undo,
        secret,
        timeout_s: TIMEOUT_S,
        ..Step::new(id.clone(), &ctx.task.name, title, change)
    };
    ctx.world.paths.insert(path.to_owned(), after);
    step
}

/// Succeeds only while the path is as it was seen.
fn check(path: &str, state: &PathState) -> Script {
    let octal = |mode: &u32| format!("{mode:04o}");
    Script::one(match state {
        PathState::File {
            mode,
            owner,
            group,
            sha256,
            ..
        } => Command::new("path_is_file")
            .path(path)
            .arg(sha256)
            .arg(octal(mode))
            .arg(owner)
            .arg(group),
        PathState::Directory { mode, owner, group } => Command::new("path_is_dir")
            .path(path)
            .arg(octal(mode))
            .arg(owner)
            .arg(group),
        PathState::Link { target } => Command::new("path_is_link").path(path).arg(target),
        _ => Command::new("path_is_absent").path(path),
    })
}

/// A state as a diff shows it.
fn look(state: &PathState, secret: bool) -> PathLook {
    match state {
        PathState::File {
            mode,
            owner,
            group,
            size,
            sha256,
            content,
        } => PathLook::File {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
            sha256: sha256.clone(),
            size: *size,
            text: content
                .as_ref()
                .filter(|_| !secret)
                .and_then(|bytes| String::from_utf8(bytes.clone()).ok()),
        },
        PathState::Directory { mode, owner, group } => PathLook::Directory {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
        },
        PathState::Link { target } => PathLook::Link {
            target: target.clone(),
        },
        _ => PathLook::Absent,
    }
}

/// What stands at a path, where the directory it is in must be there.
fn look_with_parent(
    path: &str,
    unless: Option<&str>,
    args: &Args,
    ctx: &mut Context<'_>,
) -> Rendered<Seen> {
    let parent = match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    };
    let seen = match ctx.look(path, unless) {
        Ok(seen) => seen,
        Err(halt) => {
            ctx.expect(state_of(parent));
            if args.text("owner").is_none() || args.text("group").is_none() {
                ctx.expect(whoami());
            }
            return Err(halt);
        }
    };
    if seen.state == PathState::Absent && parent != "/" {
        let above = ctx.look(parent, None)?;
        if !matches!(
            above.state,
            PathState::Directory { .. } | PathState::Link { .. }
        ) {
            return Err(args
                .problem(
                    "dest",
                    format!("there is no directory {parent} on the host"),
                )
                .hint("make it before with `file` and `state: directory`")
                .into());
        }
    }
    Ok(seen)
}

fn state_of(path: &str) -> Read {
    Read::State {
        path: path.to_owned(),
        unless: None,
        limit: 0,
    }
}

/// The directories above a path, outermost first, without the root.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(at, _)| &path[..at])
        .filter(|parent| !parent.is_empty())
}

/// What a task wants of `owner` or `group`, or what is there.
fn named(args: &Args, name: &str, now: &str) -> String {
    match args.text(name) {
        // The host tells names; root is the one whose number everybody knows.
        Some(number) if number == "0" && now == "root" => now.to_owned(),
        Some(wanted) => wanted,
        None => now.to_owned(),
    }
}

fn owner_of_new(args: &Args, ctx: &mut Context<'_>) -> Rendered<(String, String)> {
    match (args.text("owner"), args.text("group")) {
        (Some(owner), Some(group)) => Ok((owner, group)),
        (owner, group) => {
            let (user, users_group) = ctx.whoami()?;
            Ok((owner.unwrap_or(user), group.unwrap_or(users_group)))
        }
    }
}

fn same_file(a: &PathState, b: &PathState) -> bool {
    match (a, b) {
        (
            PathState::File {
                mode,
                owner,
                group,
                sha256,
                ..
            },
            PathState::File {
                mode: m,
                owner: o,
                group: g,
                sha256: s,
                ..
            },
        ) => mode == m && owner == o && group == g && sha256 == s,
        _ => false,
    }
}

fn same_directory(a: &PathState, b: &PathState) -> bool {
    matches!(
        (a, b),
        (PathState::Directory { .. }, PathState::Directory { .. })
    ) && a == b
}

fn in_the_way(path: &str, state: &PathState, wanted: &str, ctx: &Context<'_>) -> Diagnostic {
    let what = match state {
        PathState::File { .. } => "a file".to_owned(),
        PathState::Directory { .. } => "a directory".to_owned(),
        PathState::Link { .. } => "a link".to_owned(),
        PathState::Other(what) => what.clone(),
        PathState::Unreadable(why) => {
            return Diagnostic::error(format!("{path} cannot be looked at: {why}"))
                .at(&ctx.task.origin);
        }
        PathState::Absent => "nothing".to_owned(),
    };
    Diagnostic::error(format!(
        "{path} is {what} on the host and is not made {wanted}"
    ))
    .at(&ctx.task.origin)
}

/// Whether systemd reads a file at this path.
pub(super) fn is_unit_file(path: &str) -> bool {
    [
        "/etc/systemd/system/",
        "/usr/lib/systemd/system/",
        "/lib/systemd/system/",
        "/run/systemd/system/",
        "/usr/local/lib/systemd/system/",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

/// Whether a login or `sudo` reads what stands at this path, so that a mistake in it
/// locks us out with no restart of anything.
fn lets_in(path: &str) -> bool {
    const BELOW: [&str; 6] = [
        "/etc/ssh/",
        "/etc/pam.d/",
        "/etc/security/",
        "/etc/sudoers.d/",
        "/etc/sssd/",
        "/etc/profile.d/",
    ];
    const FILES: [&str; 15] = [
        "/",
        "/etc",
        "/etc/ssh",
        "/etc/sudoers",
        "/etc/passwd",
        "/etc/shadow",
        "/etc/group",
        "/etc/gshadow",
        "/etc/nsswitch.conf",
        "/etc/hosts.allow",
        "/etc/hosts.deny",
        "/etc/nologin",
        "/etc/shells",
        "/etc/profile",
        "/root",
    ];
    let home = path == "/home"
        || path
            .strip_prefix("/home/")
            .is_some_and(|rest| !rest.contains('/'));
    BELOW.iter().any(|folder| path.starts_with(folder))
        || FILES.contains(&path)
        || home
        || path.split('/').any(|part| part == ".ssh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_reads_can_lock_us_out() {
        for path in [
            "/etc/sudoers.d/ops",
            "/home/ops/.ssh/authorized_keys",
            "/root",
            "/home/ops",
            "/etc/ssh/sshd_config.d/x.conf",
            "/etc/hosts.deny",
        ] {
            assert!(lets_in(path), "{path}");
        }
        for path in [
            "/etc/deploy/gpu/mig.conf",
            "/home/ops/notes",
            "/homes",
            "/etc/motd",
        ] {
            assert!(!lets_in(path), "{path}");
        }
    }
}

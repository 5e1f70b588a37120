//! `command`: a program of the user's.
//!
//! One that changes nothing (`changed_when: false` and `check_mode: false`) is run
//! while planning, like any other read, and its result is there for conditions.
//! Any other is a step. It can be undone if the task says how (`undo`, which
//! Ansible does not have); else it comes after everything that can. What it does to
//! the host only its author knows, so it counts as able to cut the connection: the
//! run is confirmed through a new one.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::render::{self, Binding, Layer, Rendered};
use crate::shell::{self, Command, Script, Word};
use crate::step::{Change, Class, Step};
use crate::transport::{PathState, Read};
use crate::value::Value;

/// Ansible's `command`, and `undo`.
pub(super) static COMMAND: Module = Module {
    name: "command",
    params: &[
        Param::new("cmd", Kind::Text),
        Param::new("argv", Kind::Texts),
        Param::new("chdir", Kind::Path),
        Param::new("creates", Kind::Path),
        Param::new("removes", Kind::Path),
        Param::new("undo", Kind::Texts),
        Param::new("timeout", Kind::Text),
    ],
    free_form: Some("cmd"),
    open: false,
    plan,
};

/// Seconds after which a command counts as hung, where the task gives none.
const TIMEOUT_S: u32 = 300;
/// Fails with words where nothing is at a path.
const IS_THERE: &str = "[ -e \"$1\" ] || { printf '%s\\n' \"$2: is not there\" >&2; exit 1; }";
/// Most bytes of its output that are kept for conditions.
const MOST_OUTPUT: u64 = 64 * 1024;

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let words = words(args, "cmd")?;
    let command = in_directory(&words, args.path("chdir"));
    let timeout_s = match args.text("timeout") {
        Some(text) => text
            .parse()
            .map_err(|_| args.problem("timeout", "`timeout` is a number of seconds"))?,
        None => TIMEOUT_S,
    };
    if let Some(reason) = not_needed(args, ctx)? {
        let mut done = Done::default();
        done.values.insert("cmd".to_owned(), json!(words));
        done.values.insert("rc".to_owned(), json!(0));
        done.values.insert("stdout".to_owned(), json!(reason));
        done.values
            .insert("stdout_lines".to_owned(), json!([reason]));
        done.values.insert("stderr".to_owned(), json!(""));
        return Ok(done);
    }
    let says_no_change = ctx
        .task
        .changed_when
        .as_ref()
        .is_some_and(|node| node.value == Value::Bool(false));
    match (says_no_change, ctx.task.check_mode) {
        (true, Some(false)) => return probe(command, words, timeout_s, ctx),
        (true, _) => {
            return Err(Diagnostic::error(
                "a command with `changed_when: false` needs `check_mode: false` too",
            )
            .at(&ctx.task.origin)
            .hint("both together say that it changes nothing; it is then run while planning")
            .into());
        }
        (false, Some(false)) => {
            return Err(Diagnostic::error(
                "a command that runs while planning must say that it changes nothing",
            )
            .at(&ctx.task.origin)
            .hint("add `changed_when: false`")
            .into());
        }
        (false, _) => {}
    }
    if ctx.task.changed_when.is_some() || ctx.task.failed_when.is_some() {
        return Err(Diagnostic::error(
            "`changed_when` and `failed_when` are for commands that run while planning",
        )
        .at(&ctx.task.origin)
        .hint("let the command's exit status say whether it failed, and `creates` whether it is needed")
        .into());
    }
    step(args, command, &words, timeout_s, ctx)
}

fn step(
    args: &Args,
    command: Command,
    words: &[String],
    timeout_s: u32,
    ctx: &mut Context<'_>,
) -> Rendered<Done> {
    let secret = ctx.task.no_log;
    let shown = command.display();
    // An id stands in plans, reports and names of folders.
    let id = ctx.id(format!(
        "command:{}",
        if secret { &ctx.task.name } else { &shown }
    ));
    let mut done = Done::default();
    let undo = match args.node("undo") {
        Some(_) => Script::one(heard(
            in_directory(&self::words(args, "undo")?, args.path("chdir")),
            secret,
        )),
        None => {
            done.notes.push(format!(
                "`{}` has no `undo`: it runs as late as it can, and what it does stays",
                ctx.task.name
            ));
            Script::default()
        }
    };
    let mut check = Script::default();
    let mut verify = Script::default();
    if let Some(path) = args.path("creates").filter(|path| !is_pattern(path)) {
        check = check.then(Command::new("path_is_absent").path(&path));
        verify = there(&path);
    }
    if let Some(path) = args.path("removes").filter(|path| !is_pattern(path)) {
        check.0.extend(there(&path).0);
    }
    if secret {
        done.notes
            .push(format!("`{}`: the command is not shown", ctx.task.name));
    }
    let what = if secret {
        "a command".to_owned()
    } else {
        shown
    };
    let (title, apply) = (format!("run {what}"), Script::one(heard(command, secret)));
    done.steps.push(Step {
        class: if undo.is_empty() {
            Class::OneWay
        } else {
            Class::Disruptive
        },
        check,
        again: again(&apply),
        apply,
        verify,
        undo,
        timeout_s,
        ..Step::new(id, &ctx.task.name, title, Change::Action { what })
    });
    done.values.insert("cmd".to_owned(), json!(words));
    done.later = vec!["rc", "stdout", "stdout_lines", "stderr", "stderr_lines"];
    Ok(done)
}

/// A handler that calls `systemctl` itself owes the same as one of the module `systemd`:
/// it restarts a unit once more when the unit's files were put back.
fn again(apply: &Script) -> Script {
    let systemctl = Word::Text("systemctl".to_owned());
    match apply.0.last() {
        Some(last) if last.words.first() == Some(&systemctl) => Script::one(last.clone()),
        _ => Script::default(),
    }
}

/// Succeeds while something stands at a path.
fn there(path: &str) -> Script {
    let call = Command::new("sh").args(["-c", IS_THERE, "sh"]);
    Script::one(call.path(path).arg(path))
}

/// The command, kept from saying anything where that may be a secret.
fn heard(command: Command, secret: bool) -> Command {
    if !secret {
        return command;
    }
    let mut quiet = Command::new("unheard");
    quiet.words.extend(command.words);
    quiet
}

/// Runs it now, as a read.
fn probe(
    command: Command,
    words: Vec<String>,
    timeout_s: u32,
    ctx: &mut Context<'_>,
) -> Rendered<Done> {
    if ctx.world.rebooted {
        let message = "what this command says is asked for while planning, which is before the reboot of this plan";
        let hint = "move it before the `reboot` task, or into a playbook of its own";
        return Err(Diagnostic::error(message)
            .at(&ctx.task.origin)
            .hint(hint)
            .into());
    }
    let read = Read::Command {
        command,
        timeout: Duration::from_secs(u64::from(timeout_s.min(60))),
        limit: MOST_OUTPUT,
    };
    let output = ctx.ask(&read)?;
    if ctx.task.no_log {
        // It is left nowhere for a later run to be read early.
        ctx.used.shift_remove(&read);
    }
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim_end_matches(['\r', '\n']).to_owned()
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let mut done = Done {
        changed: Some(false),
        ..Done::default()
    };
    done.values.insert("cmd".to_owned(), json!(words));
    done.values.insert("rc".to_owned(), json!(output.status));
    done.values
        .insert("stdout_lines".to_owned(), json!(lines(&stdout)));
    done.values
        .insert("stderr_lines".to_owned(), json!(lines(&stderr)));
    done.values.insert("stdout".to_owned(), json!(stdout));
    done.values.insert("stderr".to_owned(), json!(stderr));
    let failed = match &ctx.task.failed_when {
        Some(condition) => {
            let name = ctx
                .task
                .register
                .clone()
                .unwrap_or_else(|| "result".to_owned());
            let result = Json::Object(done.values.clone());
            let scope = ctx
                .scope
                .clone()
                .with(Layer::Set, name, Binding::Known(result));
            render::condition(condition, &scope)?
        }
        None => !output.success(),
    };
    if failed || output.timed_out || output.truncated {
        let why = if output.timed_out {
            "did not end in time".to_owned()
        } else if output.truncated {
            // Half an answer would decide as if it were the whole one.
            format!("said more than {} KiB", MOST_OUTPUT / 1024)
        } else {
            format!("failed with status {}", output.status)
        };
        let message = if ctx.task.no_log {
            format!("the command {why}; it and what it said are not shown (`no_log`)")
        } else {
            format!("`{}` {why}: {stderr}", words.join(" "))
        };
        return Err(Diagnostic::error(message).at(&ctx.task.origin).into());
    }
    Ok(done)
}

/// Why the command need not run, if that is so.
fn not_needed(args: &Args, ctx: &mut Context<'_>) -> Rendered<Option<String>> {
    if let Some(path) = args.path("creates")
        && exists(&path, ctx)?
    {
        return Ok(Some(format!("skipped, since {path} exists")));
    }
    if let Some(path) = args.path("removes")
        && !exists(&path, ctx)?
    {
        return Ok(Some(format!("skipped, since {path} does not exist")));
    }
    Ok(None)
}

fn exists(path: &str, ctx: &mut Context<'_>) -> Rendered<bool> {
    if is_pattern(path) {
        return Ok(!ctx.glob(path)?.is_empty());
    }
    Ok(ctx.look(path, Some(""))?.state != PathState::Absent)
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn in_directory(words: &[String], chdir: Option<String>) -> Command {
    match chdir {
        // The one shell text here is constant; the rest are its arguments.
        Some(folder) => Command::new("sh")
            .args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"])
            .path(folder)
            .args(words),
        None => match words.split_first() {
            Some((program, rest)) => Command::new(program).args(rest),
            None => Command::new("true"),
        },
    }
}

/// The words of a command: a list as it is, a text split as a shell would, without
/// anything else that a shell does.
fn words(args: &Args, name: &str) -> Rendered<Vec<String>> {
    let argv = args.node("argv").filter(|_| name == "cmd");
    let words = match (argv, args.node(name)) {
        (Some(_), Some(_)) => {
            return Err(args
                .problem("argv", "a command has `cmd` or `argv`, not both")
                .into());
        }
        (Some(_), None) => args.texts("argv").unwrap_or_default(),
        (None, Some(node)) if node.as_seq().is_some() => args.texts(name).unwrap_or_default(),
        (None, Some(_)) => shell::split(&args.required(name))
            .ok_or_else(|| args.problem(name, "a quote is not closed in this command"))?,
        (None, None) => {
            return Err(args
                .problem(name, "the command is missing")
                .hint("give `cmd` or `argv`")
                .into());
        }
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(args.problem(name, "the command is empty").into());
    }
    Ok(words)
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

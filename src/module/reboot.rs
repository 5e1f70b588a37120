//! `reboot`: the host restarts, and the run goes on by itself afterwards.
//!
//! Only with leave: `--allow-reboot`, or `containers_gpu_state_management.reboot_required:
//! true` in the host's variables. A plan restarts a host once, however many tasks ask
//! for it. What comes after this task is planned for a host that has just booted.

use serde_json::json;

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::facts::Init;
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::strategy::{HOW_TO_ALLOW, REBOOT_TIMEOUT_S, reboot_step};

/// Ansible's `reboot`.
pub(super) static REBOOT: Module = Module {
    name: "reboot",
    params: &[
        Param::new("reboot_timeout", Kind::Text).or(&["reboot_timeout_sec"]),
        Param::new("msg", Kind::Text),
        Param::new("pre_reboot_delay", Kind::Text).or(&["pre_reboot_delay_sec"]),
        Param::new("post_reboot_delay", Kind::Text).or(&["post_reboot_delay_sec"]),
        Param::new("test_command", Kind::Text),
    ],
    free_form: None,
    open: false,
    plan,
};

/// Most seconds that a task may give for anything: a day.
const MOST_S: u32 = 24 * 60 * 60;
/// Seconds that a wait may take longer than it was asked to.
const SPARE_S: u32 = 30;
/// Tries a command line once a second until it succeeds; the step's limit ends it.
const TRY: &str = "until sh -c \"$1\"; do sleep 1; done";

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let limit = seconds(args, "reboot_timeout", 1)?.unwrap_or(REBOOT_TIMEOUT_S);
    let before = seconds(args, "pre_reboot_delay", 0)?.unwrap_or(0);
    let after = seconds(args, "post_reboot_delay", 0)?.unwrap_or(0);
    allowed(&format!("task `{}` restarts the host", ctx.task.name), ctx)?;
    let why = match args.text("msg") {
        Some(message) => format!("task `{}`: {message}", ctx.task.name),
        None => format!("task `{}` asks for it", ctx.task.name),
    };
    let mut done = Done::default();
    if before > 0 {
        let step = wait("reboot:wait-before", "before the reboot", before, ctx);
        done.steps.push(step);
    }
    let task = ctx.task.name.clone();
    done.steps.push(reboot_step(task, vec![why], limit));
    ctx.world.rebooted = true;
    ctx.world.since_boot.clear();
    if after > 0 {
        let step = wait("reboot:wait-after", "after the reboot", after, ctx);
        done.steps.push(step);
    }
    if let Some(test) = args.text("test_command").filter(|test| !test.is_empty()) {
        done.steps.push(tested(&test, limit, ctx));
    }
    done.values.insert("rebooted".to_owned(), json!(true));
    done.later = vec!["elapsed"];
    Ok(done)
}

/// A whole number of seconds.
fn seconds(args: &Args, name: &str, least: u32) -> Rendered<Option<u32>> {
    let Some(text) = args.text(name) else {
        return Ok(None);
    };
    match text.trim().parse::<u32>() {
        Ok(number) if (least..=MOST_S).contains(&number) => Ok(Some(number)),
        _ => {
            let message = format!("`{name}` is a whole number of seconds from {least} to {MOST_S}");
            Err(args.problem(name, message).into())
        }
    }
}

/// Halts where the host must not be restarted. `what` is what would restart it.
fn allowed(what: &str, ctx: &mut Context<'_>) -> Rendered<()> {
    if let Init::Other(init) = &ctx.facts.init {
        let problem = Diagnostic::error(format!(
            "{what}, but it does not run systemd but {init}: nothing would go on with the run after the reboot"
        ));
        let hint = "restart it yourself, and run the rest as a playbook of its own";
        return Err(problem.at(&ctx.task.origin).hint(hint).into());
    }
    if ctx.may_reboot()? {
        return Ok(());
    }
    let problem = Diagnostic::error(format!("{what}, and there is no leave to do that"));
    Err(problem.at(&ctx.task.origin).hint(HOW_TO_ALLOW).into())
}

fn bare(id: StepId, title: String, change: Change, timeout_s: u32, ctx: &Context<'_>) -> Step {
    Step {
        id,
        task: ctx.task.name.clone(),
        title,
        class: Class::Safe,
        change,
        check: Script::default(),
        snapshot: Script::default(),
        apply: Script::default(),
        verify: Script::default(),
        undo: Script::default(),
        idle: Script::default(),
        payload: Vec::new(),
        timeout_s,
    }
}

fn wait(id: &str, when: &str, seconds: u32, ctx: &mut Context<'_>) -> Step {
    let what = format!("wait {seconds} s {when}");
    let change = Change::Action { what: what.clone() };
    let id = ctx.id(id.to_owned());
    let mut step = bare(id, what, change, seconds.saturating_add(SPARE_S), ctx);
    step.apply = Script::one(Command::new("sleep").arg(seconds.to_string()));
    step.undo = Script::one(Command::new("true"));
    step
}

fn tested(test: &str, limit: u32, ctx: &mut Context<'_>) -> Step {
    let shown = if ctx.task.no_log { "the test" } else { test };
    let what = format!("`{shown}` succeeds after the reboot");
    let id = ctx.id("reboot:test".to_owned());
    let title = format!("check that {what}");
    let mut step = bare(id, title, Change::Check { what }, limit, ctx);
    let call = Command::new("sh").args(["-c", TRY, "sh", test]);
    step.verify = Script::one(call);
    step
}

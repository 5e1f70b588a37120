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
use crate::step::{Change, Phase, Step};
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
        done.steps.push(wait(Phase::BeforeReboot, before, ctx));
    }
    done.steps
        .push(reboot_step(&ctx.task.name, vec![why], limit));
    ctx.world.rebooted = true;
    ctx.world.since_boot.clear();
    if after > 0 {
        done.steps.push(wait(Phase::AfterReboot, after, ctx));
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

/// A wait of the task's own, on this side of the reboot.
fn wait(side: Phase, seconds: u32, ctx: &mut Context<'_>) -> Step {
    let (id, when) = match side {
        Phase::BeforeReboot => ("reboot:wait-before", "before the reboot"),
        _ => ("reboot:wait-after", "after the reboot"),
    };
    let what = format!("wait {seconds} s {when}");
    let change = Change::Action { what: what.clone() };
    let id = ctx.id(id.to_owned());
    let mut step = Step::new(id, &ctx.task.name, what, change);
    step.phase = side;
    step.timeout_s = seconds.saturating_add(SPARE_S);
    step.apply = Script::one(Command::new("sleep").arg(seconds.to_string()));
    step.undo = Script::one(Command::new("true"));
    step
}

fn tested(test: &str, limit: u32, ctx: &mut Context<'_>) -> Step {
    let shown = if ctx.task.no_log { "the test" } else { test };
    let what = format!("`{shown}` succeeds after the reboot");
    let id = ctx.id("reboot:test".to_owned());
    let title = format!("check that {what}");
    let mut step = Step::new(id, &ctx.task.name, title, Change::Check { what });
    step.phase = Phase::AfterReboot;
    step.timeout_s = limit;
    let call = Command::new("sh").args(["-c", TRY, "sh", test]);
    step.verify = Script::one(call);
    step
}

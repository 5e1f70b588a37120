//! `systemd`: whether a unit runs, and whether it is started at boot.

use std::time::Duration;

use serde_json::json;

use super::context::Context;
use super::path::is_unit_file;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::facts::Init;
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step};
use crate::transport::Read;

const PARAMS: &[Param] = &[
    Param::new("name", Kind::Text).or(&["service", "unit"]),
    Param::new(
        "state",
        Kind::Word(&["started", "stopped", "restarted", "reloaded"]),
    ),
    Param::new("enabled", Kind::Bool),
    Param::new("daemon_reload", Kind::Bool).or(&["daemon-reload"]),
];

/// Ansible's `systemd`.
pub(super) static SYSTEMD: Module = Module {
    name: "systemd",
    params: PARAMS,
    free_form: None,
    open: false,
    plan,
};

/// The same under its newer name.
pub(super) static SYSTEMD_SERVICE: Module = Module {
    name: "systemd_service",
    params: PARAMS,
    free_form: None,
    open: false,
    plan,
};

/// Succeeds while a unit's boot state is exactly this word.
const IS_FILE: &str = "now=$(systemctl is-enabled -- \"$1\" 2>/dev/null); [ \"$now\" = \"$2\" ] || \
     { printf '%s\\n' \"unit $1: is ${now:-not there}, not $2\" >&2; exit 1; }";
/// Seconds that a unit may take to start or stop.
const TIMEOUT_S: u32 = 180;

/// What systemd says of a unit.
struct Unit {
    there: bool,
    active: bool,
    enabled: bool,
    /// Its boot state in systemd's own word, such as `static`.
    file: String,
    masked: bool,
    stale: bool,
    /// Whether its state holds when a step of this task runs: before a reboot of the
    /// plan it was another.
    sure: bool,
}

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    if let Init::Other(init) = &ctx.facts.init {
        return Err(
            Diagnostic::error(format!("the host does not run systemd but {init}"))
                .at(&ctx.task.origin)
                .into(),
        );
    }
    let mut done = Done::default();
    let wants_reload = args.bool("daemon_reload").unwrap_or(false);
    let Some(name) = args.text("name") else {
        if args.node("state").is_some() || args.node("enabled").is_some() {
            return Err(args.problem("state", "`systemd` needs `name` here").into());
        }
        if wants_reload && (ctx.in_handler || units_changed(ctx)) {
            done.steps.push(reload(ctx));
        }
        return Ok(done);
    };
    let name = full_name(&name);
    let unit = look(&name, ctx)?;
    let (mut enabled, mut active) = (unit.enabled, unit.active);
    if !unit.there && (args.node("state").is_some() || args.bool("enabled") == Some(true)) {
        return Err(args
            .problem("name", format!("there is no unit {name} on the host"))
            .into());
    }
    if unit.masked && args.text("state").is_some_and(|state| state != "stopped") {
        return Err(args
            .problem("name", format!("unit {name} is masked on the host"))
            .hint("unmask it first: `systemctl unmask`")
            .into());
    }
    if let Some(wanted) = args.bool("enabled")
        && wanted != unit.enabled
    {
        if !wanted && !matches!(unit.file.as_str(), "enabled" | "enabled-runtime") {
            let message = format!("unit {name} is {}: it cannot be disabled", unit.file);
            let problem = args.problem("enabled", message);
            return Err(problem.hint("mask it, or disable what starts it").into());
        }
        done.steps.push(switch(&name, wanted, &unit, ctx));
        enabled = wanted;
    }
    match args.text("state").as_deref() {
        Some("started") if !unit.active || !unit.sure => {
            done.steps.push(run(&name, true, &unit, ctx));
            active = true;
        }
        Some("stopped") if unit.active || !unit.sure => {
            done.steps.push(run(&name, false, &unit, ctx));
            active = false;
        }
        Some("restarted") => {
            done.steps.push(again(&name, "restart", &unit, ctx));
            active = true;
        }
        Some("reloaded") => {
            done.steps.push(again(&name, "reload", &unit, ctx));
            active = true;
        }
        _ => {}
    }
    if wants_reload && (unit.stale || units_changed(ctx)) {
        match done.steps.first_mut() {
            Some(step) => step.apply.0.insert(0, Command::new("unit_reload")),
            None => done.steps.push(reload(ctx)),
        }
    }
    if ctx.world.rebooted && args.node("state").is_some() {
        ctx.world.since_boot.insert(name.clone());
    }
    ctx.world.units.insert(name.clone(), (enabled, active));
    done.values.insert("name".to_owned(), json!(name));
    done.values.insert("enabled".to_owned(), json!(enabled));
    Ok(done)
}

/// `nginx` is `nginx.service`.
fn full_name(name: &str) -> String {
    const KINDS: [&str; 11] = [
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    match name.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => name.to_owned(),
        _ => format!("{name}.service"),
    }
}

fn look(name: &str, ctx: &mut Context<'_>) -> Rendered<Unit> {
    let planned_file = ctx
        .world
        .paths
        .keys()
        .any(|path| is_unit_file(path) && path.ends_with(&format!("/{name}")));
    let read = Read::Command {
        command: Command::new("systemctl").args([
            "show",
            "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload",
            "--",
            name,
        ]),
        timeout: Duration::from_secs(20),
        limit: 4096,
    };
    let output = ctx.ask(&read)?;
    let text = output.text();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let load = value("LoadState");
    if load.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Diagnostic::error(format!(
            "systemd does not tell the state of {name}: {said}"
        ))
        .at(&ctx.task.origin)
        .into());
    }
    let file = value("UnitFileState");
    let mut unit = Unit {
        there: planned_file || load != "not-found",
        active: matches!(
            value("ActiveState").as_str(),
            "active" | "activating" | "reloading"
        ),
        enabled: matches!(
            file.as_str(),
            "enabled" | "enabled-runtime" | "static" | "indirect" | "alias" | "generated"
        ),
        file: file.clone(),
        masked: load == "masked",
        stale: value("NeedDaemonReload") == "yes",
        sure: ctx.world.is_sure(name),
    };
    if let Some((enabled, active)) = ctx.world.units.get(name) {
        unit.enabled = *enabled;
        unit.active = *active;
    }
    Ok(unit)
}

/// Whether an earlier step of this plan changes what systemd reads.
fn units_changed(ctx: &Context<'_>) -> bool {
    ctx.world.paths.keys().any(|path| is_unit_file(path))
}

fn bare(id: String, title: String, class: Class, change: Change, ctx: &mut Context<'_>) -> Step {
    Step {
        class,
        timeout_s: TIMEOUT_S,
        ..Step::new(ctx.id(id), &ctx.task.name, title, change)
    }
}

fn reload(ctx: &mut Context<'_>) -> Step {
    let what = "let systemd read its units again".to_owned();
    let change = Change::Action { what: what.clone() };
    let mut step = bare("systemd:reload".to_owned(), what, Class::Safe, change, ctx);
    step.apply = Script::one(Command::new("unit_reload"));
    step.undo = step.apply.clone();
    step
}

fn switch(name: &str, wanted: bool, unit: &Unit, ctx: &mut Context<'_>) -> Step {
    let word = |enabled: bool| if enabled { "enabled" } else { "disabled" };
    let verb = if wanted { "enable" } else { "disable" };
    let change = Change::Setting {
        subject: format!("unit {name}"),
        name: "at boot".to_owned(),
        before: word(unit.enabled).to_owned(),
        after: word(wanted).to_owned(),
    };
    let known = ctx.world.units.contains_key(name);
    let mut step = bare(
        format!("unit:{name}:enabled"),
        format!("{verb} unit {name}"),
        Class::Safe,
        change,
        ctx,
    );
    if !known && unit.file == "enabled-runtime" {
        step.check = Script::one(Command::new("sh").args(["-c", IS_FILE, "sh", name, &unit.file]));
    } else if !known {
        step.check = Script::one(
            Command::new("unit_enabled_is")
                .arg(name)
                .arg(word(unit.enabled)),
        );
    }
    step.snapshot = Script::one(Command::new("unit_snapshot").arg(step.id.key()).arg(name));
    step.apply = Script::one(Command::new("systemctl").args([verb, "--", name]));
    step.verify = Script::one(Command::new("unit_enabled_is").arg(name).arg(word(wanted)));
    step.undo = Script::one(Command::new("unit_restore").arg(step.id.key()).arg(name));
    step
}

fn run(name: &str, wanted: bool, unit: &Unit, ctx: &mut Context<'_>) -> Step {
    let word = |active: bool| if active { "active" } else { "inactive" };
    let verb = if wanted { "start" } else { "stop" };
    let change = Change::Setting {
        subject: format!("unit {name}"),
        name: "state".to_owned(),
        before: match unit.sure {
            true => word(unit.active).to_owned(),
            false => format!("{}, and not known after the reboot", word(unit.active)),
        },
        after: word(wanted).to_owned(),
    };
    let known = ctx.world.units.contains_key(name);
    let mut step = bare(
        format!("unit:{name}:state"),
        format!("{verb} unit {name}"),
        // A unit that starts may be a firewall or a network, or end others.
        Class::Disruptive,
        change,
        ctx,
    );
    if !known {
        step.check = Script::one(Command::new("unit_is").arg(name).arg(word(unit.active)));
    }
    step.snapshot = Script::one(Command::new("unit_snapshot").arg(step.id.key()).arg(name));
    step.apply = Script::one(Command::new("systemctl").args([verb, "--", name]));
    step.verify = Script::one(Command::new("unit_is").arg(name).arg(word(wanted)));
    step.undo = Script::one(Command::new("unit_restore").arg(step.id.key()).arg(name));
    step
}

/// A restart or reload. Its undo here only puts the unit's state back; that the unit
/// takes up what stood in its files before, the plan adds to the step that notified.
fn again(name: &str, verb: &str, unit: &Unit, ctx: &mut Context<'_>) -> Step {
    let mut step = bare(
        format!("unit:{name}:{verb}"),
        format!("{verb} unit {name}"),
        Class::Disruptive,
        Change::Action {
            what: format!("{verb} unit {name}"),
        },
        ctx,
    );
    if !ctx.world.units.contains_key(name) && unit.there {
        let now = if unit.active { "active" } else { "inactive" };
        step.check = Script::one(Command::new("unit_is").arg(name).arg(now));
    }
    let call = if verb == "reload" {
        "reload-or-restart"
    } else {
        verb
    };
    step.snapshot = Script::one(Command::new("unit_snapshot").arg(step.id.key()).arg(name));
    step.apply = Script::one(Command::new("systemctl").args([call, "--", name]));
    step.again = step.apply.clone();
    step.verify = Script::one(Command::new("unit_is").arg(name).arg("active"));
    step.undo = Script::one(Command::new("unit_restore").arg(step.id.key()).arg(name));
    step
}

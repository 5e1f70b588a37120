//! The modules for GPUs: discovery, strategy, slicing, validation, health. The work
//! is done in `discover` and `strategy`; here it gets its place in a playbook.

use serde_json::{Map, Value as Json, json};

use super::context::{Context, first_error};
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::facts::{Gpu, Init, Vendor};
use crate::render::{Binding, Rendered};
use crate::shell::{Command, Script};
use crate::step::{Change, Phase, Step};
use crate::strategy::{self, Decision};

/// `gpu_discovery`: what was seen, as variables.
pub(super) static DISCOVERY: Module = Module {
    name: "gpu_discovery",
    params: &[],
    free_form: None,
    open: false,
    plan: discovery,
};

/// `gpu_strategy`: what is to become of each card.
pub(super) static STRATEGY: Module = Module {
    name: "gpu_strategy",
    params: &[],
    free_form: None,
    open: false,
    plan: decide,
};

/// `gpu_slicing`: the steps there.
pub(super) static SLICING: Module = Module {
    name: "gpu_slicing",
    params: &[],
    free_form: None,
    open: false,
    plan: slice,
};

/// `gpu_validation`: every card reads back as wanted.
pub(super) static VALIDATION: Module = Module {
    name: "gpu_validation",
    params: &[Param::new("enabled", Kind::Bool)],
    free_form: None,
    open: false,
    plan: validate,
};

/// `gpu_health`: every card answers.
pub(super) static HEALTH: Module = Module {
    name: "gpu_health",
    params: &[Param::new("enabled", Kind::Bool)],
    free_form: None,
    open: false,
    plan: health,
};

fn discovery(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let facts = serde_json::to_value(ctx.facts).unwrap_or(Json::Null);
    let count = |vendor: Vendor| {
        ctx.facts
            .gpus
            .iter()
            .filter(|gpu| gpu.vendor == vendor)
            .count()
    };
    let mut done = Done::default();
    done.values
        .insert("gpus".to_owned(), json!(ctx.facts.gpus.len()));
    done.facts
        .push(("gpu_facts".to_owned(), Binding::Known(facts)));
    let host = json!({
        "gpu_count": ctx.facts.gpus.len(),
        "nvidia_count": count(Vendor::Nvidia),
        "amd_count": count(Vendor::Amd),
        "intel_count": count(Vendor::Intel),
        "systemd": ctx.facts.init == Init::Systemd,
        "driver": ctx.facts.nvidia_driver.known(),
        "kernel": ctx.facts.kernel.known(),
    });
    done.facts
        .push(("gpu_host".to_owned(), Binding::Known(host)));
    done.notes.clone_from(&ctx.facts.notes);
    Ok(done)
}

fn decide(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let desired = ctx.desired()?;
    let decisions = match strategy::decide(&desired, ctx.facts, ctx.catalog) {
        Ok(decisions) => decisions,
        Err(problems) => {
            first_error(problems)?;
            Vec::new()
        }
    };
    let mut done = Done {
        notes: strategy::unmatched(&desired, ctx.facts, ctx.catalog),
        ..Done::default()
    };
    for decision in &decisions {
        for note in &decision.notes {
            done.notes.push(format!("{}: {note}", decision.label));
        }
    }
    let chosen: Vec<Json> = decisions
        .iter()
        .map(|decision| {
            json!({
                "pci": decision.pci.to_string(),
                "gpu": decision.label,
                "strategy": decision.technology.name(),
                "why": decision.why,
            })
        })
        .collect();
    done.values
        .insert("decisions".to_owned(), Json::Array(chosen.clone()));
    done.facts.push((
        "gpu_decisions".to_owned(),
        Binding::Known(Json::Array(chosen)),
    ));
    if let Json::Object(vars) = strategy::template_vars(&decisions, ctx.facts) {
        done.facts.extend(
            vars.into_iter()
                .map(|(name, value)| (name, Binding::Known(value))),
        );
    }
    ctx.gpus.decisions = decisions;
    Ok(done)
}

/// Names of the variables that the modules for GPUs set.
#[must_use]
pub(super) fn variables() -> Vec<String> {
    let mut names: Vec<String> = ["gpu_facts", "gpu_host", "gpu_decisions"]
        .map(str::to_owned)
        .to_vec();
    let nothing = crate::facts::HostFacts::default();
    if let Json::Object(vars) = strategy::template_vars(&[], &nothing) {
        names.extend(vars.into_iter().map(|(name, _)| name));
    }
    names
}

fn slice(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let desired = ctx.desired()?;
    let mut done = Done::default();
    let boot = strategy::Boot {
        allowed: ctx.may_reboot()?,
        before: ctx.world.rebooted,
    };
    match strategy::steps(&ctx.gpus.decisions, ctx.facts, &desired, boot) {
        Ok(steps) => done.steps = steps,
        Err(problems) => first_error(problems)?,
    }
    if done.steps.iter().any(Step::is_reboot) {
        ctx.world.rebooted = true;
        ctx.world.since_boot.clear();
    }
    // `force` stops services in the same phase, and starts them again by itself.
    let drains = done.steps.iter().any(|step| step.phase == Phase::Drain)
        && !desired.state.drain_command.value.is_empty();
    if drains && desired.state.undrain_command.value.is_empty() {
        done.notes.push(
            "no `undrain_command` is given: the host stays drained, also if the run is undone"
                .to_owned(),
        );
    }
    for step in &mut done.steps {
        step.task.clone_from(&ctx.task.name);
        ctx.world.ids.insert(step.id.clone());
        if let Some(subject) = subject(&step.change) {
            ctx.gpus
                .verify
                .insert(subject.to_owned(), step.verify.clone());
        }
    }
    Ok(done)
}

/// The card that a change is about. Of several changes of one card the last reads back
/// what is wanted; those before it may have been on the way there.
fn subject(change: &Change) -> Option<&str> {
    match change {
        Change::Layout { subject, .. } | Change::Setting { subject, .. } => Some(subject),
        Change::Path { .. }
        | Change::Action { .. }
        | Change::Reboot { .. }
        | Change::Check { .. } => None,
    }
}

/// `enabled: false` turns a check off, as the user's state management does.
fn validate(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let wanted = ctx.desired()?.state.validation.value;
    let mut done = Done::default();
    if !args.bool("enabled").unwrap_or(wanted) {
        return Ok(done);
    }
    for decision in &ctx.gpus.decisions {
        let gpu = ctx.facts.gpus.iter().find(|gpu| gpu.pci == decision.pci);
        let gpu = gpu.filter(|gpu| decision.target.asks_driver(gpu));
        if let Some(why) = gpu.and_then(|gpu| gpu.nvidia.unknown()) {
            return Err(
                Diagnostic::error(format!("{} cannot be read: {why}", decision.label))
                    .at(&ctx.task.origin)
                    .hint("a card that cannot be read back cannot be sliced")
                    .into(),
            );
        }
    }
    if !ctx.gpus.verify.is_empty() {
        let calls = ctx.gpus.verify.values().flat_map(|script| script.0.clone());
        let verify = Script(calls.collect());
        done.steps.push(check(
            "gpu:validation",
            "every card reads back as wanted",
            verify,
            ctx,
        ));
    }
    Ok(done)
}

fn health(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let wanted = ctx.desired()?.state.health_check.value;
    let mut done = Done::default();
    if !args.bool("enabled").unwrap_or(wanted) {
        return Ok(done);
    }
    let unread = |gpu: &Gpu, decision: &Decision| {
        let why = gpu
            .nvidia
            .unknown()
            .filter(|_| decision.target.asks_driver(gpu));
        why.map(str::to_owned)
    };
    let managed: Vec<(&Gpu, Command, Option<String>)> = ctx
        .gpus
        .decisions
        .iter()
        .filter_map(|decision| {
            let gpu = ctx.facts.gpus.iter().find(|gpu| gpu.pci == decision.pci)?;
            Some((gpu, decision.target.answers(gpu), unread(gpu, decision)))
        })
        .collect();
    let calls: Vec<Command> = managed
        .iter()
        .filter(|(_, _, unread)| unread.is_none())
        .map(|(_, call, _)| call.clone())
        .collect();
    if !calls.is_empty() {
        done.steps.push(check(
            "gpu:health",
            "every card answers",
            Script(calls),
            ctx,
        ));
    }
    let mut seen = Map::new();
    for (gpu, _, unread) in managed {
        let healthy = unread.is_none();
        seen.insert(gpu.pci.to_string(), json!(healthy));
        if let Some(why) = unread {
            done.notes
                .push(format!("{} does not answer: {why}", gpu.label()));
        }
    }
    done.values.insert("healthy".to_owned(), Json::Object(seen));
    Ok(done)
}

fn check(id: &str, what: &str, verify: Script, ctx: &mut Context<'_>) -> Step {
    let title = format!("check that {what}");
    let change = Change::Check {
        what: what.to_owned(),
    };
    Step {
        phase: Phase::Check,
        verify,
        timeout_s: 120,
        ..Step::new(ctx.id(id.to_owned()), &ctx.task.name, title, change)
    }
}

//! The modules for platforms: what gets the slices. The work is done in `platform`; here its
//! wishes become steps.

use serde_json::{Value as Json, json};

use super::context::{Context, first_error};
use super::path::{self, WantedFile};
use super::{Args, Done, Module};
use crate::error::Diagnostic;
use crate::platform::{self, Host, Platform, PlatformFile, View, Wish};
use crate::render::{self, Binding, Halt, Layer, Rendered};
use crate::step::Step;
use crate::transport::{Output, PathState, Read};
use crate::value::Node;

/// `gpu_platform`: what is to be there, and what no longer.
pub(super) static PLATFORM: Module = Module {
    name: "gpu_platform",
    params: &[],
    free_form: None,
    open: false,
    plan: set_up,
};

/// `gpu_platform_health`: what runs there can use its slices.
pub(super) static HEALTH: Module = Module {
    name: "gpu_platform_health",
    params: &[],
    free_form: None,
    open: false,
    plan: health,
};

/// `gpu_exporters`: which exporters of metrics are to be there, and which no longer.
pub(super) static EXPORTERS: Module = Module {
    name: "gpu_exporters",
    params: &[],
    free_form: None,
    open: false,
    plan: exporters,
};

/// `gpu_exporters_health`: they give metrics.
pub(super) static EXPORTERS_HEALTH: Module = Module {
    name: "gpu_exporters_health",
    params: &[],
    free_form: None,
    open: false,
    plan: exporters_health,
};

impl Host for Context<'_> {
    fn ask(&mut self, read: &Read) -> Rendered<Output> {
        Context::ask(self, read)
    }

    fn look(&mut self, path: &str) -> Rendered<PathState> {
        Ok(Context::look(self, path, Some(""))?.state)
    }

    fn glob(&mut self, pattern: &str) -> Rendered<Vec<String>> {
        Context::glob(self, pattern)
    }

    fn expect(&mut self, read: Read) {
        Context::expect(self, read);
    }
}

fn set_up(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let mut done = Done::default();
    let desired = ctx.desired()?;
    let wanted = match platform::wanted(&desired) {
        Ok(wanted) => wanted,
        Err(problems) => return first_error(problems).map(|()| done),
    };
    let mut round = Round::default();
    for platform in platform::unwanted(wanted.as_deref()) {
        let wishes = asked(ctx, |view, host| platform.removal(view, host));
        round.pass(wishes.and_then(|wishes| grant(wishes, ctx, &mut done)))?;
    }
    for platform in wanted.iter().flatten() {
        let wishes = asked(ctx, |view, host| platform.wishes(view, host));
        round.pass(wishes.and_then(|wishes| grant(wishes, ctx, &mut done)))?;
    }
    round.end()?;
    done.values
        .insert("platforms".to_owned(), names(wanted.as_deref()));
    Ok(done)
}

fn health(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let mut done = Done::default();
    let desired = ctx.desired()?;
    if !desired.state.health_check.value {
        return Ok(done);
    }
    let wanted = match platform::wanted(&desired) {
        Ok(wanted) => wanted,
        Err(problems) => return first_error(problems).map(|()| done),
    };
    let mut round = Round::default();
    for platform in wanted.iter().flatten() {
        let wishes = asked(ctx, |view, host| platform.health(view, host));
        round.pass(wishes.and_then(|wishes| grant(wishes, ctx, &mut done)))?;
    }
    round.end()?;
    Ok(done)
}

fn exporters(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let mut done = Done::default();
    let wishes = asked(ctx, |view, host| platform::exporters(view, host))?;
    grant(wishes, ctx, &mut done)?;
    Ok(done)
}

fn exporters_health(_: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let mut done = Done::default();
    if ctx.desired()?.state.health_check.value {
        let wishes = asked(ctx, |view, host| platform::exporters_health(view, host))?;
        grant(wishes, ctx, &mut done)?;
    }
    Ok(done)
}

/// Goes on behind what waits for something that was not read yet, so that one round asks the
/// host for as much as it can.
#[derive(Debug, Default)]
struct Round {
    pending: bool,
}

impl Round {
    /// Passes over a part that waits. What is wrong behind it may be right once that is known.
    fn pass(&mut self, part: Rendered<()>) -> Rendered<()> {
        match part {
            Err(Halt::Pending) => self.pending = true,
            Err(Halt::Problem(_)) if self.pending => {}
            other => return other,
        }
        Ok(())
    }

    /// Halts where a part waits.
    fn end(self) -> Rendered<()> {
        if self.pending {
            Err(Halt::Pending)
        } else {
            Ok(())
        }
    }
}

fn names(wanted: Option<&[&'static dyn Platform]>) -> Json {
    let names = wanted.unwrap_or_default().iter();
    names.map(|platform| json!(platform.name())).collect()
}

fn asked(
    ctx: &mut Context<'_>,
    ask: impl Fn(&View<'_>, &mut dyn Host) -> Rendered<Vec<Wish>>,
) -> Rendered<Vec<Wish>> {
    let desired = ctx.desired()?;
    let decisions = ctx.gpus.decisions.clone();
    let view = View {
        desired: &desired,
        facts: ctx.facts,
        decisions: &decisions,
        catalog: ctx.catalog,
    };
    ask(&view, ctx)
}

/// Wishes become steps in their order, as if each were a task.
fn grant(wishes: Vec<Wish>, ctx: &mut Context<'_>, done: &mut Done) -> Rendered<()> {
    let mut round = Round::default();
    for wish in wishes {
        round.pass(grant_one(wish, ctx, done))?;
    }
    round.end()
}

fn grant_one(wish: Wish, ctx: &mut Context<'_>, done: &mut Done) -> Rendered<()> {
    match wish {
        Wish::Note(note) => done.notes.push(note),
        Wish::Step(step) => done.steps.push(own(*step, ctx)),
        Wish::IfChanged { paths, step } => {
            // What stands there only because an earlier step of the plan puts it there.
            if paths.iter().any(|path| ctx.world.paths.contains_key(path)) {
                done.steps.push(own(*step, ctx));
            }
        }
        Wish::File(file) => done.steps.extend(write(&file, false, ctx)?),
        Wish::FileThen {
            file,
            secret,
            undone,
        } => {
            if let Some(mut step) = write(&file, secret, ctx)? {
                step.undo.0.extend(undone.0);
                done.steps.push(step);
            }
        }
        Wish::Module { name, params } => {
            let args = args_of(&params, ctx);
            let Some(module) = super::find(name) else {
                let message = format!("there is no module `{name}`");
                return Err(Diagnostic::error(message).at(&ctx.task.origin).into());
            };
            let mut part = (module.plan)(&args, ctx)?;
            done.steps.append(&mut part.steps);
            done.notes.append(&mut part.notes);
        }
    }
    Ok(())
}

/// A platform's step as one of this task.
fn own(step: Step, ctx: &mut Context<'_>) -> Step {
    Step {
        task: ctx.task.name.clone(),
        id: ctx.id(step.id.0.clone()),
        ..step
    }
}

fn args_of(params: &Json, ctx: &Context<'_>) -> Args {
    Args::from_node(&Node::from_json(params, &ctx.task.origin), &ctx.task.origin)
}

fn write(file: &PlatformFile, secret: bool, ctx: &mut Context<'_>) -> Rendered<Option<Step>> {
    let Some(found) = ctx.project.template(file.template) else {
        if ctx.project.is_of_record() {
            let lacking = crate::playbook::lacking(file.template);
            return Err(lacking.at(&ctx.task.origin).into());
        }
        let message = format!("there is no template `{}`", file.template);
        return Err(Diagnostic::error(message).at(&ctx.task.origin).into());
    };
    let source = found
        .source()
        .map_err(|message| Diagnostic::error(message).at(&ctx.task.origin))?;
    let scope = (ctx.scope.clone()).with(Layer::Loop, "item", Binding::Known(file.vars.clone()));
    let text = render::template(&source, &scope)?;
    let mut params = json!({ "src": file.template, "mode": file.mode });
    if let Some((owner, group)) = &file.owner {
        params["owner"] = json!(owner);
        params["group"] = json!(group);
    }
    let args = args_of(&params, ctx);
    let wanted = WantedFile {
        path: file.dest.clone(),
        content: text.into_bytes(),
        secret,
        own: false,
    };
    path::file(wanted, &args, ctx)
}

//! `kernel_cmdline`: arguments that the kernel is booted with.
//!
//! The boot loader is told, whichever the host has; they are in force after a restart, which
//! is part of the plan where there is leave for one. Else the plan says what waits for it.

use serde_json::json;

use super::context::Context;
use super::{Args, Done, Kind, Module, Param};
use crate::error::Diagnostic;
use crate::facts::Init;
use crate::render::Rendered;
use crate::strategy::{
    HOW_TO_ALLOW, KernelArguments, REBOOT_TIMEOUT_S, kernel_arguments, reboot_step,
};

/// Ours; Ansible has none of its own.
pub(super) static KERNEL_CMDLINE: Module = Module {
    name: "kernel_cmdline",
    params: &[
        Param::new("present", Kind::Texts),
        Param::new("absent", Kind::Texts),
        Param::new("initramfs", Kind::Bool),
    ],
    free_form: None,
    open: false,
    plan,
};

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let wanted = KernelArguments {
        present: words(args, "present")?,
        absent: words(args, "absent")?,
        initramfs: args.bool("initramfs").unwrap_or(false),
    };
    if wanted.present.is_empty() && wanted.absent.is_empty() {
        let message = "`kernel_cmdline` needs `present` or `absent`";
        return Err(Diagnostic::error(message).at(&args.origin).into());
    }
    if let Some(word) = wanted
        .present
        .iter()
        .find(|word| wanted.absent.contains(word))
    {
        let message = format!("`{word}` is to be present and absent");
        return Err(args.problem("absent", message).into());
    }
    // What an earlier task of this plan wants stays.
    let all = ctx.world.kernel_arguments.and(&wanted);
    let change = kernel_arguments(ctx.facts, &all, &ctx.task.name)
        .map_err(|problem| problem.at(&ctx.task.origin))?;
    let mut done = Done::default();
    if let Some(mut step) = change.write.filter(|_| ctx.world.kernel_arguments != all) {
        step.id = ctx.id(step.id.0);
        done.steps.push(step);
    }
    ctx.world.kernel_arguments = all;
    done.values
        .insert("reboot_required".to_owned(), json!(change.waits.is_some()));
    if let Some(why) = change.waits {
        match (ctx.may_reboot()?, &ctx.facts.init) {
            (true, Init::Systemd) => {
                done.steps
                    .push(reboot_step(&ctx.task.name, vec![why], REBOOT_TIMEOUT_S));
                ctx.world.rebooted = true;
                ctx.world.since_boot.clear();
            }
            (true, Init::Other(init)) => done.notes.push(format!(
                "{why}; it does not run systemd but {init}, so that it is not restarted by this plan: restart it yourself"
            )),
            (false, _) => done.notes.push(format!(
                "{why}; nothing restarts it without leave: {HOW_TO_ALLOW}"
            )),
        }
    }
    Ok(done)
}

fn words(args: &Args, name: &str) -> Rendered<Vec<String>> {
    let words = args.texts(name).unwrap_or_default();
    match words.iter().find(|word| !KernelArguments::is_word(word)) {
        None => Ok(words),
        Some(word) => {
            let message = format!("`{word}` is no argument for a kernel");
            let hint = "write each as an entry of its own, as in `[intel_iommu=on, iommu=pt]`, with letters, digits and _ - . , : = + / @ %";
            Err(args.problem(name, message).hint(hint).into())
        }
    }
}

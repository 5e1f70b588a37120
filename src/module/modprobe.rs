//! `modprobe`: kernel modules, now and at boot.

use serde_json::json;

use super::context::Context;
use super::path::{self, WantedFile};
use super::{Args, Done, Kind, Module, Param};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step};
use crate::transport::PathState;

/// Ansible's `modprobe`.
pub(super) static MODPROBE: Module = Module {
    name: "modprobe",
    params: &[
        Param::new("name", Kind::Text).required(),
        Param::new("state", Kind::Word(&["present", "absent"])),
        Param::new("params", Kind::Text),
        Param::new("persistent", Kind::Word(&["disabled", "present", "absent"])),
    ],
    free_form: None,
    open: false,
    plan,
};

/// Fails with words where a module is not there.
const IS_LOADED: &str =
    "[ -d \"$1\" ] || { printf '%s\\n' \"kernel module $2: is not loaded\" >&2; exit 1; }";

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let name = args.required("name");
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(args
            .problem("name", format!("`{name}` is no kernel module's name"))
            .into());
    }
    let wanted = args.text("state").is_none_or(|state| state == "present");
    let params = args.text("params").unwrap_or_default();
    let mut done = Done::default();
    // The kernel writes `_` where file names have `-`. Built-in modules are there, too.
    let at = format!("/sys/module/{}", name.replace('-', "_"));
    let planned = ctx.world.paths.get(&at).cloned();
    // After a reboot nobody knows; then the step is made whatever is there now.
    let sure = ctx.world.is_sure(&at);
    let state = match &planned {
        Some(state) if sure => state.clone(),
        _ => ctx.look_now(&at, None)?.state,
    };
    let loaded = state != PathState::Absent;
    if loaded != wanted || !sure {
        let now = Now {
            loaded,
            sure,
            planned: planned.is_some(),
        };
        done.steps.push(step(&name, &at, wanted, now, &params, ctx));
        if ctx.world.rebooted {
            ctx.world.since_boot.insert(at.clone());
        }
        let state = if wanted {
            PathState::Directory {
                mode: 0o755,
                owner: "root".to_owned(),
                group: "root".to_owned(),
            }
        } else {
            PathState::Absent
        };
        ctx.world.paths.insert(at, state);
    }
    match args.text("persistent").as_deref() {
        Some("present") => persist(&name, &params, args, ctx, &mut done)?,
        Some("absent") => {
            for path in files(&name) {
                done.steps.extend(path::absent(&path, ctx)?);
            }
        }
        _ => {}
    }
    done.values.insert("name".to_owned(), json!(name));
    Ok(done)
}

fn files(name: &str) -> [String; 2] {
    [
        format!("/etc/modules-load.d/{name}.conf"),
        format!("/etc/modprobe.d/{name}.conf"),
    ]
}

fn persist(
    name: &str,
    params: &str,
    args: &Args,
    ctx: &mut Context<'_>,
    done: &mut Done,
) -> Rendered<()> {
    let [load, options] = files(name);
    let mut wanted = vec![(load, format!("{name}\n"))];
    if !params.is_empty() {
        wanted.push((options, format!("options {name} {params}\n")));
    }
    for (path, text) in wanted {
        let wanted = WantedFile {
            path,
            content: text.into_bytes(),
            secret: false,
            own: false,
        };
        done.steps.extend(path::file(wanted, args, ctx)?);
    }
    Ok(())
}

/// What is known of a module before its step.
#[derive(Clone, Copy)]
struct Now {
    loaded: bool,
    /// Whether that still holds when the step is made.
    sure: bool,
    /// Whether an earlier step of the plan brings it about.
    planned: bool,
}

fn step(name: &str, at: &str, load: bool, now: Now, params: &str, ctx: &mut Context<'_>) -> Step {
    let words: Vec<&str> = params.split_whitespace().collect();
    let present = || {
        Script::one(
            Command::new("sh")
                .args(["-c", IS_LOADED, "sh"])
                .path(at)
                .arg(name),
        )
    };
    let absent = || Script::one(Command::new("path_is_absent").path(at));
    let insert = || {
        Script::one(
            Command::new("modprobe")
                .arg("--")
                .arg(name)
                .args(words.iter().copied()),
        )
    };
    // Not every `modprobe` takes it well that there is nothing to remove.
    let remove = || {
        Script::one(
            Command::new("sh")
                .args(["-c", "[ ! -d \"$1\" ] || exec modprobe -r -- \"$2\"", "sh"])
                .path(at)
                .arg(name),
        )
    };
    let is = |loaded: bool| if loaded { present() } else { absent() };
    let make = |loaded: bool| if loaded { insert() } else { remove() };
    let word = |loaded: bool| if loaded { "loaded" } else { "not loaded" };
    let id = ctx.id(format!("module:{name}"));
    let verb = if load { "load" } else { "unload" };
    let title = format!("{verb} kernel module {name}");
    let change = Change::Setting {
        subject: format!("kernel module {name}"),
        name: "state".to_owned(),
        before: match now.sure {
            true => word(now.loaded).to_owned(),
            false => format!("{}, and not known after the reboot", word(now.loaded)),
        },
        after: word(load).to_owned(),
    };
    Step {
        // A module that is loaded may be a network's or a firewall's.
        class: Class::Disruptive,
        check: match now.planned {
            true => Script::default(),
            false => is(now.loaded),
        },
        apply: make(load),
        verify: is(load),
        undo: make(now.loaded),
        timeout_s: 60,
        ..Step::new(id, &ctx.task.name, title, change)
    }
}

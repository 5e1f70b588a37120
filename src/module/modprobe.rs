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
    let seen = ctx.look(&at, None)?;
    let loaded = seen.state != PathState::Absent;
    if loaded != wanted {
        done.steps.push(step(&name, &at, wanted, &params, ctx));
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
        };
        done.steps.extend(path::file(wanted, args, ctx)?);
    }
    Ok(())
}

fn step(name: &str, at: &str, load: bool, params: &str, ctx: &mut Context<'_>) -> Step {
    let words: Vec<&str> = params.split_whitespace().collect();
    let present = || Script::one(Command::new("test").arg("-d").path(at));
    let absent = || Script::one(Command::new("path_is_absent").path(at));
    let insert = || {
        Script::one(
            Command::new("modprobe")
                .arg("--")
                .arg(name)
                .args(words.iter().copied()),
        )
    };
    let remove = || Script::one(Command::new("modprobe").args(["-r", "--", name]));
    let word = |loaded: bool| if loaded { "loaded" } else { "not loaded" };
    Step {
        id: ctx.id(format!("module:{name}")),
        task: ctx.task.name.clone(),
        title: format!(
            "{} kernel module {name}",
            if load { "load" } else { "unload" }
        ),
        class: if load { Class::Safe } else { Class::Disruptive },
        change: Change::Setting {
            subject: format!("kernel module {name}"),
            name: "state".to_owned(),
            before: word(!load).to_owned(),
            after: word(load).to_owned(),
        },
        check: if load { absent() } else { present() },
        snapshot: Script::default(),
        apply: if load { insert() } else { remove() },
        verify: if load { present() } else { absent() },
        undo: if load { remove() } else { insert() },
        idle: Script::default(),
        payload: Vec::new(),
        timeout_s: 60,
    }
}

//! `file`: directories, links, permissions, and nothing at all.

use serde_json::json;

use super::context::Context;
use super::path;
use super::{Args, Done, Kind, Module, Param};
use crate::render::Rendered;

/// Ansible's `file`, without `touch` (which always changes) and hard links.
pub(super) static FILE: Module = Module {
    name: "file",
    params: &[
        Param::new("path", Kind::Path)
            .required()
            .or(&["dest", "name"]),
        Param::new(
            "state",
            Kind::Word(&["directory", "file", "link", "absent"]),
        ),
        Param::new("src", Kind::Text),
        Param::new("force", Kind::Bool),
        Param::new("mode", Kind::Mode),
        Param::new("owner", Kind::Text),
        Param::new("group", Kind::Text),
    ],
    free_form: None,
    open: false,
    plan,
};

/// `gpu_unused_folder`: a folder goes with the last of its files, and stays with any other.
pub(super) static UNUSED_FOLDER: Module = Module {
    name: "gpu_unused_folder",
    params: &[Param::new("path", Kind::Path).required()],
    free_form: None,
    open: false,
    plan: unused_folder,
};

fn unused_folder(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let at = args.path("path").unwrap_or_default();
    let mut done = Done::default();
    done.steps.extend(path::emptied(&at, ctx)?);
    Ok(done)
}

fn plan(args: &Args, ctx: &mut Context<'_>) -> Rendered<Done> {
    let at = args.path("path").unwrap_or_default();
    if at == "/" {
        return Err(args
            .problem("path", "the root directory is not managed")
            .into());
    }
    let state = args.text("state").unwrap_or_else(|| "file".to_owned());
    let mut done = Done::default();
    match state.as_str() {
        "directory" => done.steps = path::directory(&at, args, ctx)?,
        "link" => {
            let Some(target) = args.text("src") else {
                return Err(args.problem("state", "`state: link` needs `src`").into());
            };
            let force = args.bool("force").unwrap_or(false);
            done.steps
                .extend(path::link(&at, &target, force, args, ctx)?);
        }
        "absent" => done.steps.extend(path::absent(&at, ctx)?),
        _ => done.steps.extend(path::attributes(&at, args, ctx)?),
    }
    done.values.insert("path".to_owned(), json!(at));
    done.values.insert("state".to_owned(), json!(state));
    Ok(done)
}

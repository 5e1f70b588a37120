//! `deploy init`: a project for hosts that are there, with a first layout that is what they
//! have now. `layout` says what a host has and could have, `project` makes the files of it.
//!
//! Hosts are only looked at. No file that is there is written over, and nothing secret is
//! written: of the variables of a host its port alone, where the hosts were given as a list.

mod layout;
mod project;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::Failure;
use crate::cli::args::{Format, InitArgs};
use crate::cli::fleet_verbs::{ready, tell_ends};
use crate::cli::reach::reach;
use crate::error::Diagnostic;
use crate::event::{HostProblem, Outcome};
use crate::fleet;
use crate::report::exit::{CheckMode, Exit};
use crate::report::{self, Plans, Reporter};
use crate::value::Node;
use project::{Found, Host, Project, Source};

/// The variable that says what is wanted of a host's cards.
const WANTED: &str = "containers_gpu_slicing";

/// Makes the project.
///
/// # Errors
/// Findings in the inventory, or a file that cannot be written.
pub(super) async fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let (settings, hosts) = ready(&args.hosts, &args.connection, None).await?;
    let mut seen = Vec::new();
    let mut ends = Vec::new();
    fleet::each(
        settings.hosts.clone(),
        args.connection.forks.into(),
        |host| {
            let (hosts, catalog) = (Arc::clone(&hosts), Arc::clone(&settings.catalog));
            async move {
                let reached = reach(&hosts, &host, &catalog).await?;
                reached.session.close().await;
                Ok::<_, HostProblem>(reached.facts)
            }
        },
        |host, facts| match facts {
            Some(Ok(facts)) => seen.push((host, facts)),
            Some(Err(problem)) => ends.push((host, Outcome::Unreachable, Some(problem))),
            None => ends.push((host, Outcome::Failed, None)),
        },
    )
    .await;

    let source = source(&args.hosts.inventory, &args.dir);
    let found = settings.hosts.iter().map(|name| {
        let vars = settings.inventory.vars_of(name);
        let facts = seen.iter().find(|(of, _)| of == name);
        Host {
            name: name.as_str().to_owned(),
            port: vars.get("ansible_port").and_then(port),
            found: match facts {
                None => Found::Unreached,
                Some(_) if vars.contains_key(WANTED) => Found::SaysItself,
                Some((_, facts)) => Found::Seen(layout::of(facts, &settings.catalog)),
            },
        }
    });
    let project = Project {
        source,
        user: args.connection.user.clone(),
        becomes_root: args.connection.r#become,
        hosts: found.collect(),
    };
    let mut text = String::new();
    for (name, content) in project.files(&settings.catalog) {
        let path = args.dir.join(name);
        let path_shown = path.display();
        text += &match write_new(&path, &content)? {
            true => format!("wrote {path_shown}\n"),
            false => format!("kept  {path_shown} (it is there already)\n"),
        };
    }
    report::data(&text);
    report::talk(&project.said(&args.dir));
    ends.extend(seen.into_iter().map(|(host, _)| (host, Outcome::Ok, None)));
    let reporter = Reporter::human(CheckMode::Off, Plans::Together, false).beside_data();
    Ok(tell_ends(reporter, ends, Format::Human))
}

fn port(node: &Node) -> Option<u16> {
    let json = node.to_json();
    let number = json.as_u64().or_else(|| json.as_str()?.parse().ok())?;
    u16::try_from(number).ok()
}

/// Whether the hosts were given as a list, or which inventories have them: below the new
/// project by their way from there.
fn source(inventories: &[PathBuf], dir: &Path) -> Source {
    let is_list = |path: &PathBuf| path.to_string_lossy().contains(',') && !path.exists();
    if inventories.iter().all(is_list) {
        return Source::List;
    }
    let here = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let shown = |path: &PathBuf| {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let below = whole.strip_prefix(&here).map(Path::to_owned);
        below.unwrap_or(whole).display().to_string()
    };
    Source::Inventories(inventories.iter().map(shown).collect())
}

/// Writes a file that is not there yet; says whether it did. What is there stays, be it a link
/// that leads nowhere.
fn write_new(path: &Path, content: &str) -> Result<bool, Diagnostic> {
    let cannot = |error: std::io::Error| {
        Diagnostic::error(format!("cannot write `{}`: {error}", path.display()))
            .hint("`deploy init DIR` makes the project in another folder")
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(cannot)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(content.as_bytes()).map_err(cannot)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(cannot(error)),
    }
    Ok(true)
}

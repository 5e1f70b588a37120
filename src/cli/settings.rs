//! What the files that a command names come to: inventory, hosts, content, models.
//! Everything that can be wrong with them is found here, all at once, before the
//! first connection.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::cli::args::HostArgs;
use crate::content::Content;
use crate::error::{Diagnostic, Problems, Severity};
use crate::inventory::{self, Inventory};
use crate::report;
use crate::value::HostName;

/// What a command works on.
#[derive(Debug)]
pub struct Settings {
    /// The whole inventory.
    pub inventory: Arc<Inventory>,
    /// The hosts that `--limit` leaves, in the inventory's order.
    pub hosts: Vec<HostName>,
    /// Shipped files and the user's.
    pub content: Arc<Content>,
    /// Models of GPUs.
    pub catalog: Arc<Catalog>,
}

/// Reads everything. Warnings are told at once; errors come back together.
///
/// # Errors
/// Every finding in any of the files, if one of them is an error.
pub fn load(args: &HostArgs, playbook: Option<&Path>) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    let playbook_dir = playbook.and_then(Path::parent);
    let (inventory, found) = inventory::load(&args.inventory, playbook_dir, &args.extra_vars);
    let readable = !found.has_errors();
    problems.extend(found);
    let (content, found) = Content::find(args.project.as_deref(), &args.inventory);
    problems.extend(found);
    let catalog = take(Catalog::load(&content), &mut problems);
    // With a broken inventory a limit would be blamed for hosts that were not read.
    let hosts = if readable {
        take(
            inventory.select("all", args.limit.as_deref()),
            &mut problems,
        )
    } else {
        None
    };
    if hosts.as_ref().is_some_and(Vec::is_empty) && args.limit.is_some() {
        problems.push(
            Diagnostic::error("no host is left").hint(
                "the pattern of --limit is right, but its groups and exceptions leave no host",
            ),
        );
    }
    let warnings = tell_warnings(problems)?;
    report::problems(&warnings);
    let mut hosts = hosts.unwrap_or_default();
    if let Some(shard) = args.shard {
        // One without hosts has nothing to do, as it has where a fleet is small.
        hosts.retain(|host| shard.has(host));
    }
    Ok(Settings {
        inventory: Arc::new(inventory),
        hosts,
        content: Arc::new(content),
        catalog: Arc::new(catalog.unwrap_or_default()),
    })
}

/// The findings if they are warnings only.
///
/// # Errors
/// The findings, if one of them is an error.
pub fn tell_warnings(problems: Problems) -> Result<Problems, Problems> {
    if problems.0.iter().any(|d| d.severity == Severity::Error) {
        return Err(problems);
    }
    Ok(problems)
}

/// The value, or `None` with its findings added to the others.
pub fn take<T>(result: Result<T, Problems>, problems: &mut Problems) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

/// Findings without those that were found before: what stands in a group's file
/// is found once for each host of the group.
#[must_use]
pub fn once(problems: Problems) -> Problems {
    let mut kept: Vec<Diagnostic> = Vec::new();
    for diagnostic in problems.0 {
        if !kept.contains(&diagnostic) {
            kept.push(diagnostic);
        }
    }
    Problems(kept)
}

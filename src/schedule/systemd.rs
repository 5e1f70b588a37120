//! A timer and its service, hardened as far as a program can be that only opens connections.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Artifact, Schedule, Systemd, rendered, words};
use crate::content::Content;
use crate::error::Problems;

/// Where an administrator's units lie.
pub const UNITS: &str = "/etc/systemd/system";

/// Homes, which `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

pub(super) fn artifacts(
    schedule: &Schedule,
    more: &Systemd,
    content: &Content,
) -> Result<Vec<Artifact>, Problems> {
    let name = schedule.name.as_str();
    let mut exec: Vec<String> = vec![words::for_systemd(&schedule.program.to_string_lossy())];
    exec.extend(schedule.words.iter().map(|word| words::for_systemd(word)));
    if more.key.is_some() {
        // systemd fills it in, also between quotes.
        exec.push("--private-key ${CREDENTIALS_DIRECTORY}/ssh-key".to_owned());
    }
    let mut read: Vec<&PathBuf> = schedule.reads.iter().collect();
    read.push(&schedule.program);
    let in_home = |path: &&&PathBuf| HOMES.iter().any(|home| path.starts_with(home));
    let vars = json!({
        "name": name,
        "every": schedule.every.to_string(),
        "calendar": schedule.every.calendar(),
        "spread": (schedule.every.seconds() / 10).min(300),
        "user": more.user,
        "key": more.key.as_deref().map(words::path_for_systemd),
        "exec": exec.join(" "),
        "homes": read.iter().any(|path| in_home(&path)),
    });
    let unit = |kind: &str| -> Result<Artifact, Problems> {
        Ok(Artifact {
            path: Path::new(UNITS).join(format!("{name}.{kind}")),
            text: rendered(content, &format!("schedule_{kind}.j2"), &vars)?,
        })
    };
    Ok(vec![unit("service")?, unit("timer")?])
}

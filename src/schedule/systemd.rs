//! A timer and its service, hardened as far as a program can be that only opens connections.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Artifact, Schedule, Systemd, rendered, words};
use crate::content::Content;
use crate::error::{Diagnostic, Problems};

/// Where an administrator's units lie.
pub const UNITS: &str = "/etc/systemd/system";

/// Homes, which `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Folders of which `PrivateTmp=yes` gives the service its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

pub(super) fn artifacts(
    schedule: &Schedule,
    more: &Systemd,
    content: &Content,
) -> Result<Vec<Artifact>, Problems> {
    let name = schedule.name.as_str();
    if let Some(key) = &more.key
        && !words::is_plain(&key.to_string_lossy())
    {
        // LoadCredential= takes it as it stands, and expands `%`.
        let message = format!("the path `{}` cannot be told to systemd", key.display());
        let hint = "give the key a path of letters, digits, dots, dashes and underscores";
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    let mut exec: Vec<String> = vec![words::for_systemd(&schedule.program.to_string_lossy())];
    exec.extend(schedule.words.iter().map(|word| words::for_systemd(word)));
    if more.key.is_some() {
        // systemd fills it in, also between quotes.
        exec.push("--private-key ${CREDENTIALS_DIRECTORY}/ssh-key".to_owned());
    }
    let mut read: Vec<&PathBuf> = schedule.reads.iter().collect();
    read.push(&schedule.program);
    let in_home = |path: &&&PathBuf| HOMES.iter().any(|home| path.starts_with(home));
    let in_temporary = |path: &&&PathBuf| TEMPORARY.iter().any(|folder| path.starts_with(folder));
    let bound: Vec<String> = read
        .iter()
        .filter(in_temporary)
        .map(|path| words::for_systemd(&path.to_string_lossy()))
        .collect();
    let writes: Vec<String> = schedule
        .writes
        .iter()
        .map(|folder| words::for_systemd(&folder.to_string_lossy()))
        .collect();
    let vars = json!({
        "name": name,
        "every": schedule.every.to_string(),
        "calendar": schedule.every.calendar(),
        "spread": (schedule.every.seconds() / 10).min(300),
        "user": more.user,
        "key": more.key.as_ref().map(|key| key.to_string_lossy()),
        "exec": exec.join(" "),
        "homes": read.iter().any(|path| in_home(&path)),
        "bound": bound.join(" "),
        "writes": writes.join(" "),
    });
    let unit = |kind: &str| -> Result<Artifact, Problems> {
        Ok(Artifact {
            path: Path::new(UNITS).join(format!("{name}.{kind}")),
            text: rendered(content, &format!("schedule_{kind}.j2"), &vars)?,
        })
    };
    Ok(vec![unit("service")?, unit("timer")?])
}

//! `getsebool` and `setsebool`: the booleans of a machine with SELinux, as the kernel shows them
//! below `/sys/fs/selinux/booleans`, `NOW PENDING`. What `setsebool -P` sets outlives a boot
//! without further ado: nothing takes these files away.

use std::io;

use crate::sim::machine::Host;

use super::{Call, Outcome};

const FOLDER: &str = "/sys/fs/selinux/booleans";

/// What the policy of containers says before anybody changes it.
pub(in crate::sim) fn set_up(host: &Host) -> io::Result<()> {
    host.write("/sys/fs/selinux/enforce", "1")?;
    host.write(format!("{FOLDER}/container_use_devices").as_str(), "0 0")
}

/// `getsebool NAME`
pub(super) fn get(call: &Call<'_>) -> io::Result<Outcome> {
    if !call.host.path("/sys/fs/selinux/enforce").exists() {
        let text = "getsebool:  SELinux is disabled\n";
        return Ok(Outcome::err(text, 1));
    }
    let name = call.args.last().map_or("", String::as_str);
    let Some(is_on) = value(call.host, name) else {
        let text = format!("Error getting active value for {name}\n");
        return Ok(Outcome::err(text, 1));
    };
    let word = if is_on { "on" } else { "off" };
    Ok(Outcome::out(format!("{name} --> {word}\n"), 0))
}

/// `setsebool [-P] NAME VALUE`
pub(super) fn set(call: &Call<'_>) -> io::Result<Outcome> {
    let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let (name, value_of) = match &words[..] {
        ["-P", name, value] | [name, value] => (*name, *value),
        _ => {
            let text = "\nUsage:  setsebool [ -NPV ] boolean value\n\n";
            return Ok(Outcome::err(text, 1));
        }
    };
    if value(call.host, name).is_none() {
        let text = format!("Boolean {name} is not defined\n");
        return Ok(Outcome::err(text, 1));
    }
    let number = match value_of {
        "on" | "1" | "true" => 1,
        "off" | "0" | "false" => 0,
        other => {
            let text = format!("setsebool: illegal value {other} for boolean {name}\n");
            return Ok(Outcome::err(text, 1));
        }
    };
    let path = format!("{FOLDER}/{name}");
    call.host.write(&path, format!("{number} {number}"))?;
    Ok(Outcome::silent())
}

fn value(host: &Host, name: &str) -> Option<bool> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    match host.read(&format!("{FOLDER}/{name}")).as_bytes().first()? {
        b'0' => Some(false),
        _ => Some(true),
    }
}

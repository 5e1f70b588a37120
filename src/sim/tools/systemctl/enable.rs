//! Enabling, disabling and masking: the links of unit files.

use std::fs;
use std::io;
use std::path::Path;

use crate::sim::machine::Host;
use crate::sim::units::files::{find, install_links, is_generated, is_masked, is_transient};

use super::Outcome;

/// `enable` and `disable`.
pub(super) fn switch(host: &Host, unit: &str, on: bool) -> io::Result<Outcome> {
    let Some(file) = find(host, unit) else {
        let text = format!(
            "Failed to {} unit: Unit file {unit} does not exist.\n",
            if on { "enable" } else { "disable" }
        );
        return Ok(Outcome::err(text, 1));
    };
    if on && is_masked(host, unit) {
        return Ok(Outcome::err(
            format!("Failed to enable unit: Unit file {unit} is masked.\n"),
            1,
        ));
    }
    if on && (is_transient(host, unit) || is_generated(host, unit)) {
        return Ok(Outcome::err(
            format!(
                "Failed to enable unit: Unit /run/systemd/transient/{unit} is transient or generated.\n"
            ),
            1,
        ));
    }
    let links = install_links(host, unit);
    if on && links.is_empty() {
        return Ok(Outcome::err(
            "The unit files have no installation config (WantedBy=, RequiredBy=, UpheldBy=,\nAlso=, or Alias= settings in the [Install] section).\n",
            0,
        ));
    }
    let shown = |path: &Path| {
        format!(
            "/{}",
            path.strip_prefix(host.root()).unwrap_or(path).display()
        )
    };
    let mut text = String::new();
    for link in links {
        let exists = fs::symlink_metadata(&link).is_ok();
        if on && !exists {
            fs::create_dir_all(link.parent().unwrap_or(host.root()))?;
            std::os::unix::fs::symlink(shown(&file), &link)?;
            text.push_str(&format!(
                "Created symlink {} → {}.\n",
                shown(&link),
                shown(&file)
            ));
        } else if !on && exists {
            fs::remove_file(&link)?;
            text.push_str(&format!("Removed \"{}\".\n", shown(&link)));
        }
    }
    Ok(Outcome::err(text, 0))
}

/// `mask` and `unmask`.
pub(super) fn mask(host: &Host, unit: &str, on: bool) -> io::Result<Outcome> {
    let path = host.path(format!("/etc/systemd/system/{unit}"));
    if on && !is_masked(host, unit) {
        if path.exists() {
            return Ok(Outcome::err(
                format!("Failed to mask unit: File /etc/systemd/system/{unit} already exists.\n"),
                1,
            ));
        }
        std::os::unix::fs::symlink("/dev/null", path)?;
    } else if !on && is_masked(host, unit) {
        fs::remove_file(path)?;
    }
    Ok(Outcome::silent())
}

/// `is-enabled`: nothing if there is no such unit file.
pub(super) fn state(host: &Host, unit: &str) -> Option<&'static str> {
    if is_masked(host, unit) {
        return Some("masked");
    }
    find(host, unit)?;
    if is_transient(host, unit) {
        return Some("transient");
    }
    if is_generated(host, unit) {
        return Some("generated");
    }
    let links = install_links(host, unit);
    if links.iter().any(|link| fs::symlink_metadata(link).is_ok()) {
        return Some("enabled");
    }
    Some(if links.is_empty() {
        "static"
    } else {
        "disabled"
    })
}

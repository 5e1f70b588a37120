//! `journalctl -u UNIT`: what a unit's processes have written. There are no other
//! entries, no times and no boots: `-o cat` is all that can be shown.

use std::fs;
use std::io;

use crate::sim::units::program::journal;

use super::{Call, Outcome};

/// Options whose value may be the next word and is not heeded.
const IGNORED: [&str; 6] = ["-o", "-p", "-S", "-U", "--since", "--until"];

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let mut units = Vec::new();
    let mut lines = None;
    let mut rest = call.args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        let value = match arg.split_once('=') {
            Some((_, value)) => Some(value),
            None if arg.starts_with("--") => None,
            None => arg.get(2..).filter(|value| !value.is_empty()),
        };
        let mut value = || value.or_else(|| rest.next()).unwrap_or_default();
        if arg.starts_with("-u") || arg.starts_with("--unit") {
            units.push(value().to_owned());
        } else if arg.starts_with("-n") || arg.starts_with("--lines") {
            lines = value().parse::<usize>().ok();
        } else if IGNORED.contains(&arg) {
            value();
        }
    }
    if units.is_empty() {
        return Ok(Outcome::err(
            "journalctl: a simulated host has the journal of units only; say which: -u UNIT\n",
            1,
        ));
    }
    let mut text = String::new();
    for unit in units {
        let unit = super::systemctl::full_name(&unit);
        if unit.contains('/') {
            continue;
        }
        let bytes = fs::read(journal(call.host, &unit)).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    if text.is_empty() {
        return Ok(Outcome::out("-- No entries --\n", 0));
    }
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let skipped = lines.map_or(0, |lines| all.len().saturating_sub(lines));
    Ok(Outcome::out(all[skipped..].concat(), 0))
}

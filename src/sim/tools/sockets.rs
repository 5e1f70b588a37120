//! Who listens on a simulated machine. No port is opened, so that many machines have the same:
//! who serves stands in a file that the machine does not see, and its `/proc` shows the socket
//! as the kernel would, in `net/tcp`, and below the process that has it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sim::machine::{Host, replace};
use crate::sim::units::UNIT_VARIABLE;
use crate::sim::units::process::Process;

/// The heading of `/proc/net/tcp`.
const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// What begins the names of the files that say who serves.
const RECORD: &str = "port-";

/// Who serves on a port.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Served {
    process: Option<Process>,
    /// What it gives for `/metrics`.
    pub(super) metrics: String,
    /// `USERNAME SALT HASH` of who may read; everybody if none.
    pub(super) reader: Option<String>,
}

/// Whether the port was free, and now is this process's.
pub(super) fn listen(
    host: &Host,
    port: &str,
    metrics: String,
    reader: Option<String>,
) -> io::Result<bool> {
    let _lock = host.lock()?;
    if served(host, port).is_some() {
        return Ok(false);
    }
    let served = Served {
        process: Process::own(),
        metrics,
        reader,
    };
    let record = host.private(&format!("{RECORD}{port}"));
    replace(&record, &serde_json::to_vec(&served)?)?;
    let own = format!("/proc/{}", std::process::id());
    let group = match std::env::var(UNIT_VARIABLE) {
        Ok(unit) => format!("0::/system.slice/{unit}\n"),
        Err(_) => "0::/user.slice/user-0.slice/session-1.scope\n".to_owned(),
    };
    host.write(&format!("{own}/cgroup"), group)?;
    let name = std::env::args().next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    host.write(&format!("{own}/comm"), format!("{name:.15}\n"))?;
    fs::create_dir_all(host.path(format!("{own}/fd")))?;
    symlink(
        format!("socket:[{}]", inode(port)),
        host.path(format!("{own}/fd/3")),
    )?;
    write_table(host)?;
    Ok(true)
}

/// Who serves on a port now.
pub(super) fn served(host: &Host, port: &str) -> Option<Served> {
    let text = fs::read(host.private(&format!("{RECORD}{port}"))).ok()?;
    let found: Served = serde_json::from_slice(&text).ok()?;
    let lives = found.process.is_some_and(Process::is_alive);
    lives.then_some(found)
}

/// Takes out of `/proc` what was a process's that has ended.
pub(in crate::sim) fn forget_ended(host: &Host) -> io::Result<()> {
    let _lock = host.lock()?;
    forget_locked(host)
}

/// The same where the machine's lock is held already.
pub(in crate::sim) fn forget_locked(host: &Host) -> io::Result<()> {
    let mut any = false;
    for (port, path) in records(host)? {
        if served(host, &port).is_some() {
            continue;
        }
        let text = fs::read(&path)?;
        if let Ok(Served {
            process: Some(process),
            ..
        }) = serde_json::from_slice(&text)
        {
            let _ = fs::remove_dir_all(host.path(format!("/proc/{}", process.pid())));
        }
        fs::remove_file(path)?;
        any = true;
    }
    if any { write_table(host) } else { Ok(()) }
}

fn records(host: &Host) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(host.private(""))? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(port) = name.to_str().and_then(|name| name.strip_prefix(RECORD))
            && port.parse::<u16>().is_ok()
        {
            found.push((port.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn inode(port: &str) -> u32 {
    100_000 + port.parse::<u32>().unwrap_or(0)
}

fn write_table(host: &Host) -> io::Result<()> {
    let mut text = HEADING.to_owned();
    for (number, (port, _)) in records(host)?.iter().enumerate() {
        if served(host, port).is_some() {
            let hex = port.parse::<u16>().unwrap_or(0);
            text.push_str(&format!(
                "{number:4}: 00000000:{hex:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {} 1 0000000000000000 100 0 0 10 0\n",
                inode(port)
            ));
        }
    }
    host.write("/proc/net/tcp", text)
}

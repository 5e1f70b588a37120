//! Shares of virtual functions under xe: `sriov_admin/` since Linux 6.19, debugfs before.
//!
//! Memory can be given per function since Linux 7.0. The driver divides it evenly when functions
//! are enabled and nothing was given before, and forgets everything when they are disabled.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::{Card, function_link, functions, number, unsigned};
use crate::sim::host::device_directory;
use crate::sim::machine::Host;

/// Memory is given in pages of this size.
const PAGE: u64 = 2 << 20;

fn admin(address: &str) -> String {
    format!("{}/sriov_admin", device_directory(address))
}

fn debugfs(address: &str) -> String {
    format!("/sys/kernel/debug/dri/{address}/gt0")
}

fn version(kernel: &str) -> (u32, u32) {
    let mut parts = kernel
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

pub(super) fn make(
    host: &Host,
    card: &Card,
    kernel: &str,
    address: &str,
    count: u32,
) -> io::Result<()> {
    let version = version(kernel);
    let memory = card.memory > 0;
    if version < (6, 19) {
        let base = debugfs(address);
        for name in [
            "exec_quantum_ms",
            "preempt_timeout_us",
            "ggtt_spare",
            "lmem_spare",
        ] {
            host.write(&format!("{base}/pf/{name}"), "0\n")?;
        }
        for number in 1..=count {
            for name in [
                "exec_quantum_ms",
                "preempt_timeout_us",
                "ggtt_quota",
                "contexts_quota",
                "doorbells_quota",
            ] {
                host.write(&format!("{base}/vf{number}/{name}"), "0\n")?;
            }
            if memory {
                host.write(&format!("{base}/vf{number}/lmem_quota"), "0\n")?;
            }
        }
        return Ok(());
    }
    let base = admin(address);
    let profile = |function: &str| -> io::Result<()> {
        let folder = format!("{base}/{function}/profile");
        host.write(&format!("{folder}/exec_quantum_ms"), "0\n")?;
        host.write(&format!("{folder}/preempt_timeout_us"), "0\n")?;
        host.write(&format!("{folder}/sched_priority"), priorities("low"))
    };
    profile("pf")?;
    symlink("../..", host.path(format!("{base}/pf/device")))?;
    let mut bulk = vec!["exec_quantum_ms", "preempt_timeout_us", "sched_priority"];
    if memory && version >= (7, 0) {
        bulk.push("vram_quota");
    }
    for number in 1..=count {
        profile(&format!("vf{number}"))?;
        host.write(&format!("{base}/vf{number}/stop"), "")?;
        if bulk.contains(&"vram_quota") {
            host.write(&format!("{base}/vf{number}/profile/vram_quota"), "0\n")?;
        }
    }
    for name in bulk {
        host.write(&format!("{base}/.bulk_profile/{name}"), "")?;
    }
    Ok(())
}

/// The files of a function's memory, whichever there are.
fn memory_file(host: &Host, address: &str, function: u32) -> Option<String> {
    [
        format!("{}/vf{function}/profile/vram_quota", admin(address)),
        format!("{}/vf{function}/lmem_quota", debugfs(address)),
    ]
    .into_iter()
    .find(|path| host.path(path).exists())
}

/// What all functions have been given, without one of them.
fn given(host: &Host, address: &str, without: u32) -> u64 {
    (1..)
        .map_while(|function| Some((function, memory_file(host, address, function)?)))
        .filter(|(function, _)| *function != without)
        .map(|(_, path)| number(host, &path))
        .sum()
}

pub(super) fn enabled(host: &Host, card: &Card, address: &str, count: u32) -> io::Result<()> {
    if given(host, address, 0) == 0 && card.memory > 0 {
        let fair = card.memory / u64::from(count) / PAGE * PAGE;
        for function in 1..=count {
            if let Some(path) = memory_file(host, address, function) {
                host.write(&path, format!("{fair}\n"))?;
            }
        }
    }
    for function in 1..=count {
        let folder = format!("{}/vf{function}", admin(address));
        if let (true, Some(target)) = (
            host.path(&folder).exists(),
            function_link(host, address, function),
        ) {
            let name = target.rsplit('/').next().unwrap_or_default();
            symlink(
                format!("../../../{name}"),
                host.path(format!("{folder}/device")),
            )?;
        }
    }
    Ok(())
}

pub(super) fn disabled(host: &Host, address: &str) -> io::Result<()> {
    for (_, folder) in functions(host, &admin(address)) {
        let link = host.path(format!("{folder}/device"));
        if link.is_symlink() {
            fs::remove_file(link)?;
        }
        clear(host, &format!("{folder}/profile"))?;
    }
    for (_, folder) in functions(host, &debugfs(address)) {
        clear(host, &folder)?;
    }
    Ok(())
}

/// As the driver makes it when it is loaded.
pub(super) fn reset(host: &Host, address: &str) -> io::Result<()> {
    disabled(host, address)?;
    let own = format!("{}/pf/profile", admin(address));
    if host.path(&own).exists() {
        clear(host, &own)?;
    }
    Ok(())
}

fn clear(host: &Host, folder: &str) -> io::Result<()> {
    for entry in fs::read_dir(host.path(folder))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let text = if name == "sched_priority" {
            priorities("low")
        } else {
            "0\n".to_owned()
        };
        host.write(&format!("{folder}/{name}"), text)?;
    }
    Ok(())
}

fn priorities(chosen: &str) -> String {
    let words = ["low", "normal", "high"].map(|word| {
        if word == chosen {
            format!("[{word}]")
        } else {
            word.to_owned()
        }
    });
    format!("{}\n", words.join(" "))
}

pub(super) fn write(
    host: &Host,
    address: &str,
    function: &str,
    name: &str,
    text: &str,
) -> io::Result<()> {
    let path = format!("{}/{function}/profile/{name}", admin(address));
    if !host.path(&path).exists() {
        return Err(Errno::NOENT.into());
    }
    match name {
        "exec_quantum_ms" | "preempt_timeout_us" => {
            let value = unsigned(text)?;
            if value > u64::from(u32::MAX) {
                return Err(Errno::RANGE.into());
            }
            host.write(&path, format!("{value}\n"))
        }
        "sched_priority" => {
            let word = text.trim_end_matches('\n');
            if !["low", "normal", "high"].contains(&word) {
                return Err(Errno::INVAL.into());
            }
            // The firmware lets one change its own priority, or that of all at once.
            if function != "pf" {
                return Err(Errno::PERM.into());
            }
            host.write(&path, priorities(word))
        }
        "vram_quota" => give(host, address, function, &path, text),
        _ => Err(Errno::ACCESS.into()),
    }
}

/// Memory is rounded up to whole pages; more than there is left is refused.
fn give(host: &Host, address: &str, function: &str, path: &str, text: &str) -> io::Result<()> {
    let wanted = unsigned(text)?.div_ceil(PAGE).saturating_mul(PAGE);
    let Some(card) = super::card_at(host, address) else {
        return Err(Errno::NODEV.into());
    };
    let own = function.trim_start_matches("vf").parse().unwrap_or(0);
    if given(host, address, own).saturating_add(wanted) > card.memory {
        return Err(Errno::NOSPC.into());
    }
    host.write(path, format!("{wanted}\n"))
}

pub(super) fn write_bulk(host: &Host, address: &str, name: &str, text: &str) -> io::Result<()> {
    if !host
        .path(format!("{}/.bulk_profile/{name}", admin(address)))
        .exists()
    {
        return Err(Errno::NOENT.into());
    }
    if name == "sched_priority" {
        // Only the physical function can be put before all others.
        return match text.trim_end_matches('\n') {
            word @ ("low" | "normal") => set_priorities(host, address, word),
            "high" => Err(Errno::PERM.into()),
            _ => Err(Errno::INVAL.into()),
        };
    }
    for (number, _) in functions(host, &admin(address)) {
        write(host, address, &format!("vf{number}"), name, text)?;
    }
    Ok(())
}

fn set_priorities(host: &Host, address: &str, word: &str) -> io::Result<()> {
    let base = admin(address);
    host.write(
        &format!("{base}/pf/profile/sched_priority"),
        priorities(word),
    )?;
    for (_, folder) in functions(host, &base) {
        host.write(
            &format!("{folder}/profile/sched_priority"),
            priorities(word),
        )?;
    }
    Ok(())
}

pub(super) fn write_debugfs(
    host: &Host,
    address: &str,
    gt: &str,
    function: &str,
    name: &str,
    text: &str,
) -> io::Result<()> {
    let path = format!("/sys/kernel/debug/dri/{address}/{gt}/{function}/{name}");
    if !host.path(&path).exists() {
        return Err(Errno::NOENT.into());
    }
    if name == "lmem_quota" {
        return give(host, address, function, &path, text);
    }
    host.write(&path, format!("{}\n", unsigned(text)?))
}

/// The device memory of a function, in bytes.
pub(super) fn memory(host: &Host, address: &str, function: u32) -> u64 {
    memory_file(host, address, function).map_or(0, |path| number(host, &path))
}

/// Writes a function's share by its name in `sriov_admin`, wherever this kernel takes it.
pub(super) fn set(
    host: &Host,
    address: &str,
    function: &str,
    name: &str,
    text: &str,
) -> io::Result<()> {
    if host.path(admin(address)).exists() {
        return match write(host, address, function, name, text) {
            // Linux 6.19 divides memory by itself only.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "vram_quota" => Ok(()),
            written => written,
        };
    }
    let name = if name == "vram_quota" {
        "lmem_quota"
    } else {
        name
    };
    write_debugfs(host, address, "gt0", function, name, text)
}

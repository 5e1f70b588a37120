//! `reboot`, and what a boot makes of a machine.

use std::fs;
use std::io;

use crate::sim::host;
use crate::sim::machine::{Host, Machine};

use super::{Call, Outcome, hardware, systemctl};

/// Reboots the machine at once: what the hardware forgets is gone, then the
/// enabled units run.
pub(super) fn reboot(call: &Call<'_>) -> io::Result<Outcome> {
    if call.name == "shutdown" && !call.has("-r") && !call.has("--reboot") {
        return Ok(Outcome::err(
            "shutdown: a simulated machine can only be rebooted (-r)\n",
            1,
        ));
    }
    boot(call.host)?;
    Ok(Outcome::silent())
}

/// Ends every process of the machine but this one. They are known by their
/// environment, which names the machine's folder.
fn end_processes(host: &Host) {
    let mark = [
        super::ROOT_VARIABLE.as_bytes(),
        b"=",
        host.root().as_os_str().as_encoded_bytes(),
    ]
    .concat();
    let own = std::process::id();
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.filter_map(Result::ok) {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if u32::try_from(pid) == Ok(own) {
            continue;
        }
        // Processes of other users cannot be read, and are not the machine's.
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark);
        if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| marked) {
            // One that ended by itself meanwhile is as well.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// MIG instances, virtual functions and modes that only the driver kept are gone;
/// what stands in the InfoROM takes effect.
pub(super) fn unload_driver(machine: &mut Machine) {
    let sticky: Vec<bool> = machine
        .gpus
        .iter()
        .map(|gpu| {
            machine
                .product(gpu)
                .is_some_and(|product| product.has_mig() && product.mode_is_sticky())
        })
        .collect();
    for (gpu, sticky) in machine.gpus.iter_mut().zip(sticky) {
        gpu.instances.clear();
        if sticky {
            gpu.mig = gpu.mig_pending;
        } else {
            gpu.mig = false;
            gpu.mig_pending = false;
        }
        gpu.compute_mode = 0;
        gpu.timeslice = 0;
    }
}

/// Boots the machine anew.
pub(in crate::sim) fn boot(host: &Host) -> io::Result<()> {
    end_processes(host);
    let lock = host.lock()?;
    let mut machine = host.load()?;
    machine.boots += 1;
    // Whoever had a card open is gone, but for units that start by themselves.
    machine.holders = machine
        .spec
        .in_use
        .iter()
        .filter(|holder| holder.unit.is_some())
        .cloned()
        .collect();
    hardware::power_cycle(host, &mut machine)?;
    for directory in ["/run", "/tmp"] {
        empty(host, directory)?;
    }
    if machine.spec.systemd {
        fs::create_dir_all(host.path("/run/systemd/system"))?;
    }
    machine
        .active_units
        .retain(|unit| systemctl::starts_by_itself(host, unit));
    machine.failed_units.clear();
    host::boot_files(host, &machine)?;
    host::write_holders(host, &machine)?;
    host.save(&machine, &lock)?;
    drop(lock);
    systemctl::start_enabled(host)
}

fn empty(host: &Host, directory: &str) -> io::Result<()> {
    let path = host.path(directory);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(path),
    }
}

//! `reboot`, and what a boot makes of a machine.

use std::fs;
use std::io;

use crate::sim::host;
use crate::sim::machine::{Gpu, Host, Machine};
use crate::sim::units::{Duty, boot};

use super::{Call, Outcome, boot_loader, hardware};

/// Reboots the machine; with `-f` at once, with no orderly end.
pub(super) fn reboot(call: &Call<'_>) -> io::Result<Outcome> {
    if call.name == "shutdown" && !call.has("-r") && !call.has("--reboot") {
        return Ok(Outcome::err(
            "shutdown: a simulated machine can only be rebooted (-r)\n",
            1,
        ));
    }
    request(call)
}

/// Reboots as `reboot` and `systemctl reboot` do.
pub(super) fn request(call: &Call<'_>) -> io::Result<Outcome> {
    let forced = call.args.iter().any(|arg| {
        arg == "--force" || (arg.starts_with('-') && !arg.starts_with("--") && arg.contains('f'))
    });
    let duty = if forced {
        Duty::PowerLoss
    } else {
        Duty::Reboot
    };
    boot::request(call.host, duty)?;
    Ok(Outcome::silent())
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
        forget(gpu, sticky);
    }
}

/// The same of one card; `sticky` where MIG mode stands in the InfoROM.
pub(super) fn forget(gpu: &mut Gpu, sticky: bool) {
    gpu.instances.clear();
    gpu.vgpus.clear();
    gpu.heterogeneous = false;
    if sticky {
        gpu.mig = gpu.mig_pending;
    } else {
        gpu.mig = false;
        gpu.mig_pending = false;
    }
    gpu.compute_mode = 0;
    gpu.timeslice = 0;
}

/// What a boot makes of the machine before its first program runs.
pub(in crate::sim) fn boot_hardware(host: &Host) -> io::Result<()> {
    let lock = host.lock()?;
    let mut machine = host.load()?;
    machine.boots += 1;
    // Whoever had a card open is gone; units open theirs when they are started.
    machine.holders.clear();
    let cmdline = boot_loader::booted(host, &machine.spec);
    host.write("/proc/cmdline", format!("{cmdline}\n"))?;
    hardware::power_cycle(host, &mut machine)?;
    for directory in ["/run", "/tmp"] {
        empty(host, directory)?;
    }
    if machine.spec.systemd {
        fs::create_dir_all(host.path("/run/systemd/system"))?;
    }
    host::boot_files(host, &machine)?;
    host::write_holders(host, &machine)?;
    host.save(&machine, &lock)
}

fn empty(host: &Host, directory: &str) -> io::Result<()> {
    let path = host.path(directory);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(path),
    }
}

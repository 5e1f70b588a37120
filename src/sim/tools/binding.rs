//! The kernel's side of `driver_override`, `bind`, `unbind` and `drivers_probe`.
//!
//! Errors and their absence are those of `drivers/base/bus.c`, `drivers/base/dd.c` and
//! `drivers/pci/pci-driver.c`: a probe that fails is no error of the write, and who takes a
//! function from a driver waits until nobody has it open.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

use crate::facts::PciAddress;
use crate::sim::host::{self, device_directory};
use crate::sim::machine::{Host, Machine};
use crate::sim::{amd, intel, iommu};

use super::power;

const VFIO: &str = "vfio-pci";

/// A write to `driver_override`: an empty line takes it away.
pub(super) fn only(path: &Path, text: &str) -> io::Result<()> {
    let name = text.trim_end_matches('\n');
    let kept = if name.is_empty() { "(null)" } else { name };
    fs::write(path, format!("{kept}\n"))
}

fn directory_of(address: &str) -> io::Result<String> {
    match address.parse::<PciAddress>() {
        Ok(parsed) if parsed.to_string() == address => Ok(device_directory(address)),
        _ => Err(Errno::NODEV.into()),
    }
}

fn driver_of(host: &Host, directory: &str) -> Option<String> {
    let link = host.path(format!("{directory}/driver")).read_link().ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// The driver that may take a function: the only one that is named, or the kernel's own.
fn chosen(host: &Host, address: &str, directory: &str) -> Option<String> {
    match host.read(&format!("{directory}/driver_override")).as_str() {
        "(null)" => iommu::slot(host, address)?.driver.or_else(|| {
            // AMD's cards go to whichever of two modules the machine has.
            let machine = host.load().ok()?;
            machine.amd_card(address)?;
            Some(machine.spec.amd.driver)
        }),
        name => Some(name.to_owned()),
    }
}

fn is_registered(host: &Host, driver: &str) -> bool {
    host.path(format!("/sys/bus/pci/drivers/{driver}")).is_dir()
}

/// A write to a driver's `bind`.
pub(super) fn bind(host: &Host, driver: &str, address: &str) -> io::Result<()> {
    let directory = directory_of(address)?;
    if !host.path(&directory).exists() {
        return Err(Errno::NODEV.into());
    }
    if driver_of(host, &directory).is_some() {
        return Err(Errno::BUSY.into());
    }
    // A recording does not tell what the kernel would pick.
    let recorded = iommu::slot(host, address).is_none();
    match chosen(host, address, &directory) {
        Some(chosen) if chosen == driver => {}
        None if recorded => {}
        _ => return Err(Errno::NODEV.into()),
    }
    match take(host, address, driver)? {
        true => Ok(()),
        false => Err(Errno::INVAL.into()),
    }
}

/// A write to `drivers_probe`. That nobody took the function is no error.
pub(super) fn probe(host: &Host, address: &str) -> io::Result<()> {
    let directory = directory_of(address)?;
    if !host.path(&directory).exists() {
        return Err(Errno::NODEV.into());
    }
    if driver_of(host, &directory).is_none()
        && let Some(driver) = chosen(host, address, &directory)
        && is_registered(host, &driver)
    {
        take(host, address, &driver)?;
    }
    Ok(())
}

/// Gives a function to a driver; false if that refuses it.
fn take(host: &Host, address: &str, driver: &str) -> io::Result<bool> {
    let group = iommu::group_of(host, address);
    if driver == VFIO && group.is_none() {
        // `vfio-pci: probe of … failed with error -22`
        return Ok(false);
    }
    host::bind(host, address, driver)?;
    taken(host, address, driver)?;
    if driver == "nvidia" {
        let machine = host.load()?;
        if let Some(minor) = machine.gpus.iter().position(|gpu| gpu.pci == address) {
            host::nvidia_information(host, &machine, minor)?;
        }
    }
    show_amd(host, driver)?;
    Ok(true)
}

/// What a driver does with a function that it has got: device nodes.
pub(super) fn taken(host: &Host, address: &str, driver: &str) -> io::Result<()> {
    match driver {
        "xe" | "i915" => intel::taken(host, address),
        VFIO => match iommu::group_of(host, address) {
            Some(group) => host.write(&format!("/dev/vfio/{group}"), ""),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A write to a driver's `unbind`.
pub(super) fn unbind(host: &Host, driver: &str, address: &str) -> io::Result<()> {
    let directory = directory_of(address)?;
    if driver_of(host, &directory).as_deref() != Some(driver) {
        return Err(Errno::NODEV.into());
    }
    // Both drivers wait for whoever has the function open, for as long as it takes.
    while is_held(host, driver, address)? {
        sleep(Duration::from_millis(20));
    }
    let_go(host, driver, address)?;
    if driver == "nvidia" {
        forget_card(host, address)?;
    }
    show_amd(host, driver)
}

/// AMD's drivers show what all of their cards together are.
fn show_amd(host: &Host, driver: &str) -> io::Result<()> {
    match driver {
        "amdgpu" | "gim" => host.update(|machine| amd::show(host, machine)),
        _ => Ok(()),
    }
}

fn is_held(host: &Host, driver: &str, address: &str) -> io::Result<bool> {
    let machine = host.load()?;
    let has_node = |node: &str| {
        let mut holders = machine.holders.iter();
        holders.any(|holder| holder.node.as_deref() == Some(node))
    };
    Ok(match driver {
        "nvidia" => machine
            .gpus
            .iter()
            .position(|gpu| gpu.pci == address)
            .is_some_and(|index| {
                machine.holders_of(index).next().is_some()
                    || has_node(&format!("/dev/nvidia{index}"))
            }),
        VFIO => iommu::group_of(host, address)
            .is_some_and(|group| has_node(&format!("/dev/vfio/{group}"))),
        _ => false,
    })
}

/// Takes a function from its driver.
pub(super) fn let_go(host: &Host, driver: &str, address: &str) -> io::Result<()> {
    if matches!(driver, "xe" | "i915") {
        intel::remove_nodes(host, address)?;
    }
    fs::remove_file(host.path(format!("{}/driver", device_directory(address))))?;
    fs::remove_file(host.path(format!("/sys/bus/pci/drivers/{driver}/{address}")))?;
    if driver != VFIO {
        return Ok(());
    }
    let Some(group) = iommu::group_of(host, address) else {
        return Ok(());
    };
    let members = fs::read_dir(host.path(format!("/sys/kernel/iommu_groups/{group}/devices")))?;
    let more = members
        .filter_map(|member| member.ok()?.file_name().into_string().ok())
        .any(|member| driver_of(host, &device_directory(&member)).as_deref() == Some(VFIO));
    let node = host.path(format!("/dev/vfio/{group}"));
    if !more && node.exists() {
        fs::remove_file(node)?;
    }
    Ok(())
}

/// NVIDIA's driver keeps nothing of a card that is taken from it.
fn forget_card(host: &Host, address: &str) -> io::Result<()> {
    host.update(|machine| {
        let products = machine.products.clone();
        if let Some(gpu) = machine.gpus.iter_mut().find(|gpu| gpu.pci == address) {
            let sticky = products
                .get(&gpu.product)
                .is_some_and(|product| product.has_mig() && product.mode_is_sticky());
            power::forget(gpu, sticky);
            gpu.persistence = false;
        }
        host::write_capabilities(host, machine)
    })?;
    let folder = host.path(format!("/proc/driver/nvidia/gpus/{address}"));
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which NVIDIA cards their driver has.
pub(super) fn has_nvidia(host: &Host, address: &str) -> bool {
    iommu::slot(host, address).is_none()
        || driver_of(host, &device_directory(address)).as_deref() == Some("nvidia")
}

/// What a boot makes of all functions: each with the driver that the kernel picks.
pub(super) fn boot(host: &Host, machine: &Machine) -> io::Result<()> {
    for address in iommu::functions(host) {
        let directory = device_directory(&address);
        host.write(&format!("{directory}/driver_override"), "(null)\n")?;
        let (now, wanted) = (
            driver_of(host, &directory),
            iommu::slot(host, &address).and_then(|slot| slot.driver),
        );
        if now == wanted {
            continue;
        }
        if let Some(now) = now {
            let_go(host, &now, &address)?;
        }
        if let Some(wanted) = wanted {
            host::bind(host, &address, &wanted)?;
            taken(host, &address, &wanted)?;
        }
        if let Some(minor) = machine.gpus.iter().position(|gpu| gpu.pci == address) {
            host::nvidia_information(host, machine, minor)?;
        }
    }
    let nodes = host.path("/dev/vfio");
    if nodes.exists() {
        fs::remove_dir_all(nodes)?;
    }
    for path in ["/sys/bus/pci/drivers/vfio-pci", "/sys/module/vfio_pci"] {
        match fs::remove_dir_all(host.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the driver of a module that is unloaded, and whatever is bound to it from it.
pub(super) fn unregister_vfio(host: &Host) -> io::Result<()> {
    for address in iommu::functions(host) {
        if driver_of(host, &device_directory(&address)).as_deref() == Some(VFIO) {
            let_go(host, VFIO, &address)?;
        }
    }
    match fs::remove_dir_all(host.path(format!("/sys/bus/pci/drivers/{VFIO}"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

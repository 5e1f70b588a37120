//! PCI functions in a machine's sysfs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use crate::sim::iommu;
use crate::sim::machine::Host;

/// A PCI function as sysfs shows it.
pub(in crate::sim) struct Device<'a> {
    pub(in crate::sim) address: &'a str,
    pub(in crate::sim) ids: (u16, u16),
    pub(in crate::sim) subsystem: (u16, u16),
    pub(in crate::sim) class: u32,
    /// The driver that has it.
    pub(in crate::sim) driver: Option<&'a str>,
    /// The driver that the kernel picks for it.
    pub(in crate::sim) kernels: Option<&'a str>,
    pub(in crate::sim) numa_node: i32,
    pub(in crate::sim) iommu_group: u32,
    pub(in crate::sim) reset: bool,
}

/// The directory of a PCI function; its link in `/sys/bus/pci/devices` is what
/// everybody uses.
pub(in crate::sim) fn device_directory(address: &str) -> String {
    format!("/sys/devices/pci{}/{address}", &address[..7])
}

/// Makes the directory of a PCI function with what every function has.
pub(in crate::sim) fn add_device(host: &Host, device: &Device<'_>) -> io::Result<()> {
    let directory = device_directory(device.address);
    fs::create_dir_all(host.path(&directory))?;
    let file = |name: &str, content: String| host.write(&format!("{directory}/{name}"), content);
    file("vendor", format!("0x{:04x}\n", device.ids.0))?;
    file("device", format!("0x{:04x}\n", device.ids.1))?;
    file(
        "subsystem_vendor",
        format!("0x{:04x}\n", device.subsystem.0),
    )?;
    file(
        "subsystem_device",
        format!("0x{:04x}\n", device.subsystem.1),
    )?;
    file("class", format!("0x{:06x}\n", device.class))?;
    file("revision", "0xa1\n".to_owned())?;
    file("numa_node", format!("{}\n", device.numa_node))?;
    file("driver_override", "(null)\n".to_owned())?;
    if device.reset {
        file("reset", String::new())?;
    }
    iommu::remember(host, device.address, device.iommu_group, device.kernels)?;
    link(
        host,
        &format!("/sys/bus/pci/devices/{}", device.address),
        &format!(
            "../../../devices/pci{}/{}",
            &device.address[..7],
            device.address
        ),
    )?;
    if let Some(driver) = device.driver {
        bind(host, device.address, driver)?;
    }
    Ok(())
}

/// Binds a driver to a function.
pub(in crate::sim) fn bind(host: &Host, address: &str, driver: &str) -> io::Result<()> {
    let bus = &address[..7];
    link(
        host,
        &format!("/sys/devices/pci{bus}/{address}/driver"),
        &format!("../../../bus/pci/drivers/{driver}"),
    )?;
    link(
        host,
        &format!("/sys/bus/pci/drivers/{driver}/{address}"),
        &format!("../../../../devices/pci{bus}/{address}"),
    )?;
    for name in ["bind", "unbind", "new_id"] {
        let path = format!("/sys/bus/pci/drivers/{driver}/{name}");
        if !host.path(&path).exists() {
            host.write(&path, "")?;
        }
    }
    Ok(())
}

fn link(host: &Host, path: &str, target: &str) -> io::Result<()> {
    let path = host.path(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match symlink(target, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What else sits in a server: the display of its management controller (a VGA
/// card that is nobody's GPU), a disk and a network card.
pub(super) fn ordinary_devices(host: &Host) -> io::Result<()> {
    let devices = [
        (
            "0000:03:00.0",
            (0x1a03, 0x2000),
            (0x15d9, 0x1b95),
            0x03_00_00,
            Some("ast"),
            10,
        ),
        (
            "0000:05:00.0",
            (0x144d, 0xa80a),
            (0x144d, 0xa801),
            0x01_08_02,
            Some("nvme"),
            11,
        ),
        (
            "0000:09:00.0",
            (0x15b3, 0x1021),
            (0x15b3, 0x0023),
            0x02_00_00,
            Some("mlx5_core"),
            12,
        ),
    ];
    for (address, ids, subsystem, class, driver, iommu_group) in devices {
        add_device(
            host,
            &Device {
                address,
                ids,
                subsystem,
                class,
                driver,
                kernels: driver,
                numa_node: 0,
                iommu_group,
                reset: true,
            },
        )?;
    }
    Ok(())
}

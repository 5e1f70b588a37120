//! The kernel's side of a write to a sysfs file: SR-IOV; driver binding is beside.
//!
//! Errors are the kernel's errno values, taken from `drivers/pci/iov.c` and the
//! sysfs ABI documents.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::facts::PciAddress;
use crate::sim::amd;
use crate::sim::fault;
use crate::sim::host::{Device, add_device, device_directory};
use crate::sim::machine::{Function, Host, Machine};
use crate::sim::{intel, iommu};

use super::binding;
use crate::sim::vgpu;

/// Writes `text` to a sysfs attribute of the machine. `path` is where it stands
/// in the machine's folder, links resolved.
pub(super) fn write(host: &Host, path: &Path, text: &str) -> io::Result<()> {
    if let Some(written) = intel::write(host, path, text) {
        return written;
    }
    let attribute = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let parent = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(written) = vgpu::write(host, path, text) {
        return written;
    }
    match attribute {
        "sriov_numvfs" => {
            let wanted = number(text)?;
            host.update(|machine| set_num_vfs(host, machine, parent, wanted))
        }
        "current_compute_partition" => {
            host.update(|machine| amd::set_compute(host, machine, parent, text))
        }
        "current_memory_partition" => {
            host.update(|machine| amd::set_memory(host, machine, parent, text))
        }
        "sriov_drivers_autoprobe" => {
            let on = flag(text)?;
            fs::write(path, if on { "1\n" } else { "0\n" })
        }
        "driver_override" => binding::only(path, text),
        "unbind" => binding::unbind(host, parent, text.trim()),
        "bind" => binding::bind(host, parent, text.trim()),
        "drivers_probe" => binding::probe(host, text.trim()),
        "reset" | "remove" | "rescan" if text.trim() == "1" => Ok(()),
        "reset" | "remove" | "rescan" => Err(Errno::INVAL.into()),
        _ if path.exists() => Err(io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error())),
        _ => Err(Errno::NOENT.into()),
    }
}

/// `kstrtou16` with base 0.
fn number(text: &str) -> io::Result<u32> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(Errno::INVAL.into());
    }
    match u32::from_str_radix(digits, radix) {
        Ok(number) if number <= u32::from(u16::MAX) => Ok(number),
        _ => Err(Errno::RANGE.into()),
    }
}

/// `kstrtobool`.
fn flag(text: &str) -> io::Result<bool> {
    let mut letters = text.chars().map(|letter| letter.to_ascii_lowercase());
    match (letters.next(), letters.next()) {
        (Some('y' | 't' | '1'), _) | (Some('o'), Some('n')) => Ok(true),
        (Some('n' | 'f' | '0'), _) | (Some('o'), Some('f')) => Ok(false),
        _ => Err(Errno::INVAL.into()),
    }
}

/// What a write to `sriov_numvfs` of the function at `address` does.
pub(in crate::sim) fn set_num_vfs(
    host: &Host,
    machine: &mut Machine,
    address: &str,
    mut wanted: u32,
) -> io::Result<()> {
    let Some(function) = machine.functions.get(address).cloned() else {
        return Err(Errno::NOENT.into());
    };
    let directory = device_directory(address);
    let now: u32 = host
        .read(&format!("{directory}/sriov_numvfs"))
        .parse()
        .unwrap_or(0);
    if wanted > function.total_vfs {
        return Err(Errno::RANGE.into());
    }
    if wanted == now {
        return Ok(());
    }
    let broken = fault::faults(host);
    let bound = host.path(format!("{directory}/driver")).exists();
    if !bound || !function.configurable || broken.no_vf_callback {
        return Err(Errno::NOENT.into());
    }
    if (wanted > 0 && now > 0) || broken.numvfs_busy {
        return Err(Errno::BUSY.into());
    }
    if wanted == 0 && function.busy {
        return Err(Errno::PERM.into());
    }
    // A driver may make fewer than it was asked for, and says so in the kernel's log only.
    wanted = wanted.min(broken.vfs_at_most.unwrap_or(wanted));
    put_num_vfs(host, &function, address, wanted)?;
    match wanted {
        0 => intel::disabled(host, address, now),
        _ => intel::enabled(host, address, wanted),
    }
}

/// Makes or unmakes virtual functions; what a driver does once it is told, in whatever way.
pub(in crate::sim) fn put_num_vfs(
    host: &Host,
    function: &Function,
    address: &str,
    wanted: u32,
) -> io::Result<()> {
    let directory = device_directory(address);
    let now: u32 = host
        .read(&format!("{directory}/sriov_numvfs"))
        .parse()
        .unwrap_or(0);
    for number in wanted..now {
        remove_vf(host, address, function, number)?;
    }
    let probe = host.read(&format!("{directory}/sriov_drivers_autoprobe")) == "1";
    for number in now..wanted {
        add_vf(host, address, function, number, probe)?;
    }
    host.write(&format!("{directory}/sriov_numvfs"), format!("{wanted}\n"))
}

/// Address of virtual function `number`: the routing id counts on from the
/// physical function's, over devices and buses.
fn vf_address(address: &str, function: &Function, number: u32) -> io::Result<String> {
    let pf: PciAddress = address.parse().map_err(io::Error::other)?;
    let id = (u32::from(pf.bus) << 8) + (u32::from(pf.device) << 3) + u32::from(pf.function);
    let id = id + function.offset + number;
    let byte = |value: u32| u8::try_from(value & 0xff).unwrap_or(0);
    let vf = PciAddress {
        domain: pf.domain,
        bus: byte(id >> 8),
        device: byte(id >> 3 & 0x1f),
        function: byte(id & 7),
    };
    Ok(vf.to_string())
}

fn add_vf(
    host: &Host,
    address: &str,
    function: &Function,
    number: u32,
    probe: bool,
) -> io::Result<()> {
    let vf = vf_address(address, function, number)?;
    let slot = iommu::slot(host, address).map(|slot| slot.group);
    let group = slot.or(iommu::group_of(host, address)).unwrap_or(0);
    add_device(
        host,
        &Device {
            address: &vf,
            ids: (function.vendor, function.vf_device),
            subsystem: (function.vendor, function.vf_device),
            class: function.class,
            // Nobody takes those of a driver that leaves them to virtual machines.
            driver: (probe && !function.driver.is_empty()).then_some(function.driver.as_str()),
            kernels: (!function.driver.is_empty()).then_some(function.driver.as_str()),
            numa_node: host
                .read(&format!("{}/numa_node", device_directory(address)))
                .parse()
                .unwrap_or(0),
            iommu_group: group * 100 + number + 1,
            reset: true,
        },
    )?;
    let to = |other: &str| {
        if other[..7] == address[..7] {
            format!("../{other}")
        } else {
            format!("../../pci{}/{other}", &other[..7])
        }
    };
    std::os::unix::fs::symlink(
        to(&vf),
        host.path(format!("{}/virtfn{number}", device_directory(address))),
    )?;
    std::os::unix::fs::symlink(
        if vf[..7] == address[..7] {
            format!("../{address}")
        } else {
            format!("../../pci{}/{address}", &address[..7])
        },
        host.path(format!("{}/physfn", device_directory(&vf))),
    )?;
    if probe {
        binding::taken(host, &vf, &function.driver)?;
    }
    Ok(())
}

fn remove_vf(host: &Host, address: &str, function: &Function, number: u32) -> io::Result<()> {
    let vf = vf_address(address, function, number)?;
    let directory = host.path(device_directory(&vf));
    if let Ok(driver) = directory.join("driver").read_link() {
        let name = driver
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        binding::let_go(host, &name, &vf)?;
    }
    if let Ok(group) = directory.join("iommu_group").read_link() {
        let group = group
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        fs::remove_dir_all(host.path(format!("/sys/kernel/iommu_groups/{group}")))?;
    }
    fs::remove_file(host.path(format!("{}/virtfn{number}", device_directory(address))))?;
    fs::remove_file(host.path(format!("/sys/bus/pci/devices/{vf}")))?;
    iommu::forget(host, &vf);
    fs::remove_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        let errno = |text: &str| number(text).map_err(|error| error.raw_os_error());
        assert_eq!(errno("4\n"), Ok(4));
        assert_eq!(errno("0x10"), Ok(16));
        for text in ["", "\n", "four", "-1", " 4", "4 ", "4\n\n"] {
            assert_eq!(
                errno(text),
                Err(Some(Errno::INVAL.raw_os_error())),
                "{text:?}"
            );
        }
        assert_eq!(errno("70000"), Err(Some(Errno::RANGE.raw_os_error())));
    }

    #[test]
    fn virtual_functions_are_numbered_over_devices() {
        let function = Function {
            total_vfs: 31,
            offset: 1,
            vendor: 0x8086,
            vf_device: 0x56c0,
            class: 0,
            driver: String::new(),
            configurable: true,
            busy: false,
        };
        assert_eq!(
            vf_address("0000:4d:00.0", &function, 0).expect("an address"),
            "0000:4d:00.1"
        );
        assert_eq!(
            vf_address("0000:4d:00.0", &function, 7).expect("an address"),
            "0000:4d:01.0"
        );
    }
}

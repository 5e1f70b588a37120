//! Recordings of umockdev as machines: the device tree of a real host, in the sysfs of a
//! simulated one.
//!
//! Knows the text format of `umockdev-record` and what the kernel links to each device.
//! A replayed tree is what was recorded: nothing in it answers to writes.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::machine::Host;

/// Kinds of devices that the kernel lists below `/sys/bus`; all others are in `/sys/class`.
const BUSES: [&str; 6] = ["pci", "mdev", "usb", "platform", "i2c", "acpi"];

/// One recorded device.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// Its directory below `/sys`, such as `/devices/pci0000:00/0000:00:03.0`.
    path: String,
    subsystem: Option<String>,
    /// Its node below `/dev`.
    node: Option<String>,
    attributes: Vec<(String, Vec<u8>)>,
    links: Vec<(String, String)>,
}

/// Reads a recording.
///
/// # Errors
/// Says which line cannot be read, or would reach out of the machine's `/sys`.
pub(super) fn parse(text: &str) -> Result<Vec<Device>, String> {
    let mut devices: Vec<Device> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| Err(format!("line {}: {what}", number + 1));
        if line.trim().is_empty() {
            continue;
        }
        let Some((kind, value)) = line.split_once(": ") else {
            return wrong("it is no line of a recording of umockdev");
        };
        if kind == "P" {
            let Some(path) = value
                .strip_prefix("/devices/")
                .filter(|path| is_plain(path))
            else {
                return wrong("the path of a device must begin with /devices/");
            };
            devices.push(Device {
                path: format!("/devices/{path}"),
                ..Device::default()
            });
            continue;
        }
        let Some(device) = devices.last_mut() else {
            return wrong("it belongs to no device");
        };
        let pair = value.split_once('=').filter(|(name, _)| is_plain(name));
        match (kind, pair) {
            ("E", Some(("SUBSYSTEM", name))) if is_plain(name) => {
                device.subsystem = Some(name.to_owned());
            }
            ("A", Some((name, text))) => {
                device.attributes.push((name.to_owned(), unescape(text)));
            }
            ("H", Some((name, digits))) => match bytes(digits) {
                Some(bytes) => device.attributes.push((name.to_owned(), bytes)),
                None => return wrong("it is no text of hexadecimal digits"),
            },
            ("L", Some((name, target))) => {
                if resolve(&device.path, name, target).is_none() {
                    return wrong("the link leads out of /sys");
                }
                device.links.push((name.to_owned(), target.to_owned()));
            }
            ("N", _) => {
                let name = value.split('=').next().unwrap_or(value);
                if !is_plain(name) {
                    return wrong("it is no name of a device node");
                }
                device.node = Some(name.to_owned());
            }
            // Properties of udev, and names of its links, which sysfs does not show.
            ("E" | "S", _) => {}
            _ => return wrong("it is no line of a recording of umockdev"),
        }
    }
    if devices.is_empty() {
        return Err("there is no device in it".to_owned());
    }
    Ok(devices)
}

/// A relative path that goes nowhere but down.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Where a link of a device leads, below `/sys`; none if it leads out of it.
fn resolve(device: &str, name: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = device.split('/').filter(|part| !part.is_empty()).collect();
    let folders = name.split('/').collect::<Vec<_>>();
    parts.extend(&folders[..folders.len() - 1]);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// The C escapes of an attribute's text.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let [letter, more @ ..] = rest else { break };
        let digits = rest.iter().take(3).take_while(|d| (b'0'..b'8').contains(d));
        let octal = digits.fold((0_u32, 0), |(value, count), digit| {
            (value * 8 + u32::from(digit - b'0'), count + 1)
        });
        if octal.1 > 0 {
            bytes.push(u8::try_from(octal.0 & 0xff).unwrap_or(0));
            rest = &rest[octal.1..];
            continue;
        }
        rest = more;
        bytes.push(match letter {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            other => *other,
        });
    }
    bytes
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

/// Puts the recorded devices into the machine. Gives back the kernel drivers that have one.
pub(super) fn replay(host: &Host, devices: &[Device]) -> io::Result<Vec<String>> {
    let mut drivers = Vec::new();
    for device in devices {
        let directory = format!("/sys{}", device.path);
        fs::create_dir_all(host.path(&directory))?;
        for (name, content) in &device.attributes {
            host.write(&format!("{directory}/{name}"), content)?;
        }
        for (name, target) in &device.links {
            link(host, &format!("{directory}/{name}"), target)?;
            let Some(target) = resolve(&device.path, name, target) else {
                continue;
            };
            if let Some(driver) = lists_device(host, device, name, &target)? {
                drivers.push(driver);
            }
        }
        if let Some(subsystem) = &device.subsystem {
            let own = device.path.rsplit('/').next().unwrap_or_default();
            let folder = match BUSES.contains(&subsystem.as_str()) {
                true => format!("/sys/bus/{subsystem}/devices"),
                false => format!("/sys/class/{subsystem}"),
            };
            let up = "../".repeat(folder.matches('/').count() - 1);
            let target = format!("{up}{}", device.path.trim_start_matches('/'));
            link(host, &format!("{folder}/{own}"), &target)?;
        }
        if let Some(node) = &device.node {
            host.write(&format!("/dev/{node}"), "")?;
        }
    }
    drivers.sort();
    drivers.dedup();
    Ok(drivers)
}

/// What stands at the other end of a device's link: a driver and an IOMMU group list it, and
/// an IOMMU is one of a class. Gives back the name of a driver.
fn lists_device(
    host: &Host,
    device: &Device,
    name: &str,
    target: &str,
) -> io::Result<Option<String>> {
    let own = device.path.rsplit('/').next().unwrap_or_default();
    let entry = match name {
        "driver" => format!("/sys{target}/{own}"),
        "iommu_group" => format!("/sys{target}/devices/{own}"),
        "iommu" => {
            fs::create_dir_all(host.path(format!("/sys{target}")))?;
            let unit = target.rsplit('/').next().unwrap_or_default();
            let to = format!("../..{target}");
            link(host, &format!("/sys/class/iommu/{unit}"), &to)?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let up = "../".repeat(entry.matches('/').count() - 2);
    link(
        host,
        &entry,
        &format!("{up}{}", device.path.trim_start_matches('/')),
    )?;
    let driver = target.rsplit('/').next().unwrap_or_default();
    Ok((name == "driver").then(|| driver.replace('-', "_")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_with_their_escapes() {
        assert_eq!(unescape(r"a\nb\\c\101\t"), b"a\nb\\cA\t");
        assert_eq!(unescape(r"end\"), b"end");
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("zz"), None);
    }

    #[test]
    fn nothing_reaches_out_of_the_machine() {
        for line in [
            "P: /etc/passwd",
            "P: /devices/../etc",
            "P: /devices/a\nA: ../../x=1",
            "P: /devices/a\nL: driver=../../../../etc",
            "P: /devices/a\nL: driver=/etc",
            "P: /devices/a\nN: ../x",
            "A: x=1",
            "nothing",
            "",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("P: /devices/a\nL: driver=../../bus/pci/drivers/x").is_ok());
    }

    #[test]
    fn links_lead_to_what_the_kernel_has_there() {
        let device = "/devices/pci0000:00/0000:08:00.4";
        assert_eq!(
            resolve(device, "driver", "../../../bus/pci/drivers/nvidia").as_deref(),
            Some("/bus/pci/drivers/nvidia")
        );
        assert_eq!(resolve(device, "x", "../../../.."), None);
    }
}

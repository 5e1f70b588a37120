//! `lspci` over the machine's sysfs: `-n`, `-nn`, `-D`, `-k`, `-m`, `-mm`, `-d`, `-s`.

use std::fs;
use std::io;

use crate::sim::machine::Host;
use crate::sim::product::{BARE_CARDS, PRODUCTS};

use super::{Call, Outcome};

struct Function {
    address: String,
    vendor: u16,
    device: u16,
    subsystem: (u16, u16),
    class: u32,
    revision: u8,
    driver: Option<String>,
}

#[derive(Default)]
struct Options {
    numbers: u8,
    machine: bool,
    drivers: bool,
    domain: bool,
    ids: Option<String>,
    slot: Option<String>,
}

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let mut options = Options::default();
    let mut rest = call.args.iter();
    while let Some(arg) = rest.next() {
        let Some(letters) = arg.strip_prefix('-') else {
            return Ok(Outcome::err("Usage: lspci [<switches>]\n", 1));
        };
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            match letter {
                'n' => options.numbers += 1,
                'm' => options.machine = true,
                'k' => options.drivers = true,
                'D' => options.domain = true,
                'v' | 'q' => {}
                'd' | 's' => {
                    let attached: String = letters.by_ref().collect();
                    let value = if attached.is_empty() {
                        rest.next().cloned()
                    } else {
                        Some(attached)
                    };
                    if letter == 'd' {
                        options.ids = value;
                    } else {
                        options.slot = value;
                    }
                }
                _ => {
                    return Ok(Outcome::err(
                        format!("lspci: invalid option -- '{letter}'\n"),
                        1,
                    ));
                }
            }
        }
    }
    let mut text = String::new();
    for function in functions(call.host)? {
        if wanted(&function, &options) {
            print(&mut text, &function, &options);
        }
    }
    Ok(Outcome::out(text, 0))
}

fn functions(host: &Host) -> io::Result<Vec<Function>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(host.path("/sys/bus/pci/devices"))? {
        let Ok(address) = entry?.file_name().into_string() else {
            continue;
        };
        let read = |name: &str| {
            let text = host.read(&format!("/sys/bus/pci/devices/{address}/{name}"));
            u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
        };
        let short = |name: &str| u16::try_from(read(name)).unwrap_or(0);
        let driver = fs::read_link(host.path(format!("/sys/bus/pci/devices/{address}/driver")));
        found.push(Function {
            vendor: short("vendor"),
            device: short("device"),
            subsystem: (short("subsystem_vendor"), short("subsystem_device")),
            class: read("class"),
            revision: u8::try_from(read("revision")).unwrap_or(0),
            driver: driver
                .ok()
                .and_then(|link| Some(link.file_name()?.to_str()?.to_owned())),
            address,
        });
    }
    found.sort_by(|one, other| one.address.cmp(&other.address));
    Ok(found)
}

fn wanted(function: &Function, options: &Options) -> bool {
    let ids = options.ids.as_deref().is_none_or(|filter| {
        let mut parts = filter.split(':');
        let matches = |part: Option<&str>, value: u16| match part {
            None | Some("" | "*") => true,
            Some(text) => u16::from_str_radix(text, 16) == Ok(value),
        };
        matches(parts.next(), function.vendor) && matches(parts.next(), function.device)
    });
    let slot = options
        .slot
        .as_deref()
        .is_none_or(|slot| function.address.ends_with(slot));
    ids && slot
}

fn print(text: &mut String, function: &Function, options: &Options) {
    let domain = options.domain || !function.address.starts_with("0000:");
    let address = if domain {
        &function.address[..]
    } else {
        &function.address[5..]
    };
    let class = class_name(function.class);
    let class_id = function.class >> 8;
    let vendor = vendor_name(function.vendor);
    let device = device_name(function.vendor, function.device);
    let named = |name: &str, id: String| match options.numbers {
        0 => name.to_owned(),
        1 => id,
        _ => format!("{name} [{id}]"),
    };
    if options.machine {
        let sub = (
            vendor_name(function.subsystem.0),
            device_name(function.subsystem.0, function.subsystem.1),
        );
        let interface = function.class & 0xff;
        let interface = if interface == 0 {
            String::new()
        } else {
            format!(" -p{interface:02x}")
        };
        text.push_str(&format!(
            "{address} \"{}\" \"{}\" \"{}\" -r{:02x}{interface} \"{}\" \"{}\"\n",
            named(&class, format!("{class_id:04x}")),
            named(vendor, format!("{:04x}", function.vendor)),
            named(&device, format!("{:04x}", function.device)),
            function.revision,
            named(sub.0, format!("{:04x}", function.subsystem.0)),
            named(&sub.1, format!("{:04x}", function.subsystem.1)),
        ));
        return;
    }
    let (vendor_id, device_id) = (function.vendor, function.device);
    let what = match options.numbers {
        0 => format!("{class}: {vendor} {device}"),
        1 => format!("{class_id:04x}: {vendor_id:04x}:{device_id:04x}"),
        _ => {
            format!("{class} [{class_id:04x}]: {vendor} {device} [{vendor_id:04x}:{device_id:04x}]")
        }
    };
    text.push_str(&format!(
        "{address} {what} (rev {:02x})\n",
        function.revision
    ));
    if options.drivers {
        let (sub_vendor, sub_device) = function.subsystem;
        let name = format!(
            "{} {}",
            vendor_name(sub_vendor),
            device_name(sub_vendor, sub_device)
        );
        let number = if options.numbers == 0 {
            String::new()
        } else {
            format!(" [{sub_vendor:04x}:{sub_device:04x}]")
        };
        text.push_str(&format!("\tSubsystem: {name}{number}\n"));
        if let Some(driver) = &function.driver {
            text.push_str(&format!("\tKernel driver in use: {driver}\n"));
        }
        let modules = match function.vendor {
            0x10de if function.class >> 16 == 0x03 => "nvidiafb, nouveau, nvidia_drm, nvidia",
            0x1002 => "amdgpu",
            _ => function.driver.as_deref().unwrap_or_default(),
        };
        if !modules.is_empty() {
            text.push_str(&format!("\tKernel modules: {modules}\n"));
        }
    }
}

fn class_name(class: u32) -> String {
    match class >> 8 {
        0x0300 => "VGA compatible controller".to_owned(),
        0x0302 => "3D controller".to_owned(),
        0x0380 => "Display controller".to_owned(),
        0x1200 => "Processing accelerators".to_owned(),
        0x0108 => "Non-Volatile memory controller".to_owned(),
        0x0200 => "Ethernet controller".to_owned(),
        0x0403 => "Audio device".to_owned(),
        0x0c03 => "USB controller".to_owned(),
        0x0c80 => "Serial bus controller".to_owned(),
        other => format!("Class {other:04x}"),
    }
}

fn vendor_name(vendor: u16) -> &'static str {
    match vendor {
        0x10de => "NVIDIA Corporation",
        0x1002 => "Advanced Micro Devices, Inc. [AMD/ATI]",
        0x8086 => "Intel Corporation",
        0x1a03 => "ASPEED Technology, Inc.",
        0x144d => "Samsung Electronics Co Ltd",
        0x15b3 => "Mellanox Technologies",
        0x15d9 => "Super Micro Computer Inc",
        _ => "Unknown vendor",
    }
}

fn device_name(vendor: u16, device: u16) -> String {
    if vendor == 0x10de {
        for product in PRODUCTS.values() {
            let ids = product.device_ids.iter().zip(&product.pci_names);
            for (id, name) in ids {
                if u16::from_str_radix(id.trim_start_matches("0x"), 16) == Ok(device) {
                    return name.clone();
                }
            }
        }
    }
    let card = BARE_CARDS
        .iter()
        .find(|card| card.vendor == vendor && card.device == device);
    match (vendor, device, card) {
        (_, _, Some(card)) => card.name.to_owned(),
        (0x1a03, 0x2000, _) => "ASPEED Graphics Family".to_owned(),
        (0x144d, 0xa80a, _) => "NVMe SSD Controller PM9A1/PM9A3/980PRO".to_owned(),
        (0x15b3, 0x1021, _) => "MT2910 Family [ConnectX-7]".to_owned(),
        _ => format!("Device {device:04x}"),
    }
}

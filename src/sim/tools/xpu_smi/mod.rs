//! `xpu-smi`, versions 1 and 2, as captures and its sources show it.
//!
//! This file owns the command line, the choice of cards and the version; `discovery` and `vgpu`
//! are the subcommands of these names. It works on the same files of the drivers as anybody
//! else: what it makes of a card is what the simulated drivers make of its writes.

use std::io;

use crate::sim::intel::{self, Card};
use crate::sim::machine::Host;

use super::{Call, Outcome};

mod discovery;
#[cfg(test)]
mod golden;
mod table;
mod vgpu;

/// A card as the tool counts it.
struct Device {
    /// Its number.
    id: usize,
    /// Where it is.
    address: String,
    card: &'static Card,
    /// Whether it is a virtual function.
    is_virtual: bool,
}

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    let Some(version) = machine.spec.xpu_smi else {
        return Ok(Outcome::err("sh: 1: xpu-smi: not found\n", 127));
    };
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    match args.split_first() {
        Some((&("-v" | "--version"), _)) => Ok(Outcome::out(version_text(&version), 0)),
        Some((&"discovery", rest)) => discovery::run(call.host, &version, rest),
        Some((&"vgpu", rest)) => vgpu::run(call.host, &version, rest),
        Some((other, _)) => Ok(Outcome::err(
            format!(
                "The following argument was not expected: {other}\nRun with --help for more information.\n"
            ),
            109,
        )),
        None => Ok(Outcome::out("Intel XPU System Management Interface\n", 0)),
    }
}

/// As version 1.2.31 and 2.0.0 print it, seen on real hosts.
fn version_text(version: &str) -> String {
    let indent = if is_second(version) { "  " } else { "    " };
    let (build, level_zero) = if is_second(version) {
        ("8389eee7", "1.28.6")
    } else {
        ("00000000", "1.16.0")
    };
    format!(
        "CLI:\n{indent}Version: {version}\n{indent}Build ID: {build}\n\nService:\n{indent}Version: {version}\n\
         {indent}Build ID: {build}\n{indent}Level Zero Version: {level_zero}\n"
    )
}

fn is_second(version: &str) -> bool {
    version.starts_with("2.")
}

/// The cards that Intel's drivers have, virtual functions too, in the order of their addresses.
fn devices(host: &Host) -> io::Result<Vec<Device>> {
    let mut addresses = Vec::new();
    for entry in std::fs::read_dir(host.path("/sys/bus/pci/devices"))? {
        addresses.push(entry?.file_name().to_string_lossy().into_owned());
    }
    addresses.sort();
    let known = addresses.into_iter().filter_map(|address| {
        intel::driver_of(host, &address)?;
        let card = intel::card_at(host, &address)?;
        let physical = crate::sim::host::device_directory(&address);
        let is_virtual = host.path(format!("{physical}/physfn")).exists();
        Some((address, card, is_virtual))
    });
    let device = |(id, (address, card, is_virtual))| Device {
        id,
        address,
        card,
        is_virtual,
    };
    Ok(known.enumerate().map(device).collect())
}

/// The device that `-d` names by number or address.
fn named<'d>(devices: &'d [Device], name: &str) -> Option<&'d Device> {
    match name.parse::<usize>() {
        Ok(id) => devices.iter().find(|device| device.id == id),
        Err(_) => {
            let name = name.to_lowercase();
            devices.iter().find(|device| device.address == name)
        }
    }
}

/// The word after an option.
fn option<'a>(args: &[&'a str], names: &[&str]) -> Option<&'a str> {
    let at = args.iter().position(|arg| names.contains(arg))?;
    args.get(at + 1).copied()
}

fn has(args: &[&str], names: &[&str]) -> bool {
    args.iter().any(|arg| names.contains(arg))
}

fn refuse(message: &str) -> Outcome {
    Outcome::out(format!("Error: {message}\n"), 1)
}

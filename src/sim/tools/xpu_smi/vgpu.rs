//! `xpu-smi vgpu`: makes, lists and removes virtual functions.
//!
//! It writes the shares first, then `sriov_drivers_autoprobe`, then `sriov_numvfs`, and after it
//! has taken functions away it writes zeros over the shares, as its sources do.

use std::io::{self, BufRead};

use rustix::io::Errno;

use super::table::{line, rule, split_line, split_rule};
use super::{Device, Outcome, devices, has, is_second, named, option, refuse};
use crate::sim::host::device_directory;
use crate::sim::intel;
use crate::sim::machine::Host;
use crate::sim::tools::sysfs;

const MIB: u64 = 1 << 20;

/// The text of version 1.3.
const HELP: &str = include_str!("vgpu-help.txt");

pub(super) fn run(host: &Host, version: &str, args: &[&str]) -> io::Result<Outcome> {
    if args.is_empty() || has(args, &["-h", "--help"]) {
        return Ok(Outcome::out(HELP, 0));
    }
    if has(args, &["--precheck"]) {
        return precheck(host);
    }
    let devices = devices(host)?;
    let Some(device) = option(args, &["-d", "--device"]).and_then(|name| named(&devices, name))
    else {
        return Ok(refuse("device not found"));
    };
    if device.is_virtual {
        return Ok(refuse(
            "The operation is not supported on virtual functions",
        ));
    }
    if device.card.tool_limit == 0 {
        return Ok(refuse("unsupported device model"));
    }
    if has(args, &["-l", "--list"]) {
        return list(host, device);
    }
    if has(args, &["-r", "--remove"]) {
        return remove(host, device, has(args, &["-y", "--assumeyes"]));
    }
    if !has(args, &["-c", "--create"]) {
        return Ok(Outcome::out(HELP, 1));
    }
    let count = option(args, &["-n"]).and_then(|count| count.parse().ok());
    let memory = option(args, &["--lmem"]).map(str::parse::<u64>);
    match (count, memory) {
        (None, _) => Ok(refuse("-n is required")),
        (_, Some(Err(_))) => Ok(refuse("invalid memory size")),
        // Version 2 wants to be told.
        (_, None) if is_second(version) => Ok(refuse("--lmem is required")),
        (Some(count), memory) => create(
            host,
            device,
            count,
            memory.and_then(Result::ok).map(|mib| mib * MIB),
        ),
    }
}

fn numvfs(device: &Device) -> String {
    format!("{}/sriov_numvfs", device_directory(&device.address))
}

fn count(host: &Host, device: &Device) -> u32 {
    host.read(&numvfs(device)).parse().unwrap_or(0)
}

fn create(host: &Host, device: &Device, wanted: u32, memory: Option<u64>) -> io::Result<Outcome> {
    let card = device.card;
    if count(host, device) > 0 {
        return Ok(refuse(
            "fail to create VF because it is a dirty PF, please remove all VFs first",
        ));
    }
    if wanted == 0
        || wanted > card.tool_limit
        || (card.tiles > 1 && wanted > 1 && !wanted.is_multiple_of(2))
    {
        return Ok(refuse("invalid number of VFs"));
    }
    let all = card.memory * u64::from(card.tiles);
    // The profiles divide the memory evenly, less than all of it.
    let each = memory.unwrap_or_else(|| all / u64::from(wanted) / (64 * MIB) * (64 * MIB));
    if each * u64::from(wanted) > all {
        return Ok(refuse("invalid local memory size"));
    }
    let written = intel::share_by_tool(host, &device.address, wanted, Some(each)).and_then(|()| {
        let directory = device_directory(&device.address);
        write(host, &format!("{directory}/sriov_drivers_autoprobe"), "0")?;
        write(host, &numvfs(device), &wanted.to_string())
    });
    match written {
        Ok(()) => list(host, device),
        Err(_) => Ok(refuse("fail to create VF")),
    }
}

fn write(host: &Host, path: &str, text: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(host.path(path)).map_err(|_| io::Error::from(Errno::NOENT))?;
    sysfs::write(host, &path, text)
}

fn remove(host: &Host, device: &Device, sure: bool) -> io::Result<Outcome> {
    let mut text = format!(
        "CAUTION: we are removing all virtual GPUs on device {}, please make sure all vGPU-assigned virtual machines are shut down.\n",
        device.id
    );
    if !sure {
        text.push_str("Please confirm to proceed (y/n) ");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "y" {
            text.push_str("Aborted.\n");
            return Ok(Outcome::out(text, 0));
        }
    }
    remove_all(host, device)?;
    text.push_str(&format!(
        "All virtual GPUs on the device {} are removed.\n",
        device.id
    ));
    Ok(Outcome::out(text, 0))
}

pub(super) fn remove_all(host: &Host, device: &Device) -> io::Result<()> {
    let before = count(host, device);
    write(host, &numvfs(device), "0")?;
    intel::share_by_tool(host, &device.address, before, None)
}

pub(super) fn list(host: &Host, device: &Device) -> io::Result<Outcome> {
    let mut text = rule();
    text.push_str(&line("Device Information"));
    text.push_str(&rule());
    let mut function = |address: &str, kind: &str, bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "memory sizes are below 2^53")]
        let mib = bytes as f64 / f64::from(1 << 20);
        text.push_str(&line(&format!("PCI BDF Address: {address}")));
        text.push_str(&line(&format!("Function Type: {kind}")));
        text.push_str(&line(&format!("Memory Physical Size: {mib:.2} MiB")));
        text.push_str(&rule());
    };
    let shares = intel::shares(host, &device.address, count(host, device));
    let all = device.card.memory * u64::from(device.card.tiles);
    let given: u64 = shares.iter().map(|(_, bytes)| bytes).sum();
    function(&device.address, "physical", all.saturating_sub(given));
    for (address, bytes) in &shares {
        function(address, "virtual", *bytes);
    }
    Ok(Outcome::out(text, 0))
}

/// Looks at the flag that only Intel's processors have, so that it fails on AMD's.
fn precheck(host: &Host) -> io::Result<Outcome> {
    const FIRST: usize = 18;
    let vmx = host.read("/proc/cpuinfo").contains("vmx");
    let mut functions = false;
    for device in devices(host)? {
        let path = format!("{}/sriov_totalvfs", device_directory(&device.address));
        functions |= host.read(&path).parse().unwrap_or(0) > 0;
    }
    let iommu = std::fs::read_dir(host.path("/sys/class/iommu"))
        .is_ok_and(|mut entries| entries.next().is_some());
    let rows: [(&str, bool, &str, &[&str]); 3] = [
        (
            "VMX Flag",
            vmx,
            "Result",
            &["No VMX flag, Please ensure Intel VT enabled in BIOS"],
        ),
        (
            "SR-IOV",
            functions,
            "Status",
            &[
                "SR-IOV is disabled. Please set the related BIOS settings and",
                "  kernel command line options.",
            ],
        ),
        ("IOMMU", iommu, "Status", &["IOMMU is disabled"]),
    ];
    let mut text = split_rule(FIRST);
    for (name, good, word, message) in rows {
        let said = if good { "Pass" } else { "Fail" };
        text.push_str(&split_line(FIRST, name, &format!("{word}: {said}")));
        let message: &[&str] = if good { &[""] } else { message };
        for (at, part) in message.iter().enumerate() {
            let part = if at == 0 {
                format!("Message: {part}")
            } else {
                (*part).to_owned()
            };
            text.push_str(&split_line(FIRST, "", part.trim_end()));
        }
        text.push_str(&split_rule(FIRST));
    }
    Ok(Outcome::out(text, 0))
}

//! `modprobe`, `rmmod` and `lsmod` over the machine's `/proc/modules`.

use std::fs;
use std::io;

use crate::sim::amd;
use crate::sim::fault::{AmdFault, faults};
use crate::sim::machine::Host;

use super::{Call, Outcome};

/// Modules that can be loaded, with what they need.
const KNOWN: &[(&str, &[&str])] = &[
    ("nvidia", &[]),
    ("nvidia_uvm", &["nvidia"]),
    ("nvidia_modeset", &["nvidia"]),
    ("nvidia_drm", &["nvidia_modeset"]),
    ("nvidia_peermem", &["nvidia"]),
    ("vfio", &[]),
    ("vfio_iommu_type1", &["vfio"]),
    ("vfio_pci", &["vfio"]),
    ("i915", &[]),
    ("xe", &[]),
    ("amdgpu", &[]),
    ("gim", &[]),
    ("ast", &[]),
    ("nvme", &[]),
    ("mlx5_core", &[]),
    ("overlay", &[]),
    ("br_netfilter", &[]),
    ("kvm", &[]),
];

/// Makes `/proc/modules` and `/sys/module` say that these are loaded.
pub(in crate::sim) fn write_modules(host: &Host, loaded: &[&str]) -> io::Result<()> {
    let mut text = String::new();
    for name in loaded {
        let users: Vec<&str> = loaded
            .iter()
            .filter(|other| needs(other).contains(name))
            .copied()
            .collect();
        let list = if users.is_empty() {
            "-".to_owned()
        } else {
            users.join(",") + ","
        };
        text.push_str(&format!(
            "{name} {} {} {list} Live 0x0000000000000000\n",
            65536 * (name.len() + 1),
            users.len()
        ));
        fs::create_dir_all(host.path(format!("/sys/module/{name}")))?;
    }
    host.write("/proc/modules", text)
}

/// Loads a module with what it needs.
pub(in crate::sim) fn load_module(host: &Host, name: &str) -> io::Result<()> {
    let mut names = loaded(host);
    let needed = needs(name).iter().copied().chain([name]);
    for module in needed.collect::<Vec<_>>() {
        if !names.iter().any(|other| other == module) {
            names.push(module.to_owned());
        }
    }
    store(host, &names)
}

/// What `/etc/modules-load.d` has systemd load at boot.
pub(in crate::sim) fn modules_to_load(host: &Host) -> Vec<String> {
    let Ok(files) = fs::read_dir(host.path("/etc/modules-load.d")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| line.trim().replace('-', "_"))
        .filter(|name| KNOWN.iter().any(|known| known.0 == name))
        .collect();
    names.dedup();
    names
}

/// What vfio-pci shows once it is loaded.
pub(in crate::sim) fn register_vfio(host: &Host, loaded: &[&str]) -> io::Result<()> {
    if !loaded.contains(&"vfio_pci") {
        return Ok(());
    }
    for file in ["bind", "unbind", "new_id"] {
        host.write(&format!("/sys/bus/pci/drivers/vfio-pci/{file}"), "")?;
    }
    host.write("/dev/vfio/vfio", "")
}

fn needs(name: &str) -> &'static [&'static str] {
    KNOWN
        .iter()
        .find(|known| known.0 == name)
        .map_or(&[], |known| known.1)
}

fn loaded(host: &Host) -> Vec<String> {
    let text = host.read("/proc/modules");
    text.lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect()
}

fn store(host: &Host, names: &[String]) -> io::Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    write_modules(host, &names)
}

/// `modprobe [-r] [-q] NAME [PARAMETER…]`
pub(super) fn modprobe(call: &Call<'_>) -> io::Result<Outcome> {
    let words: Vec<&String> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let Some(name) = words.first() else {
        return Ok(Outcome::err(
            "modprobe: FATAL: Must specify at least one module\n",
            1,
        ));
    };
    let name = name.replace('-', "_");
    if call.has("-r") || call.has("--remove") {
        return remove(call, &name, "modprobe: FATAL: Module");
    }
    if call.has("-n") || call.has("--dry-run") {
        return Ok(Outcome::silent());
    }
    if !KNOWN.iter().any(|known| known.0 == name) {
        let kernel = call.host.read("/proc/sys/kernel/osrelease");
        let text = format!(
            "modprobe: FATAL: Module {name} not found in directory /lib/modules/{kernel}\n"
        );
        return Ok(if call.has("-q") {
            Outcome::err("", 1)
        } else {
            Outcome::err(text, 1)
        });
    }
    let lock = call.host.lock()?;
    let mut names = loaded(call.host);
    let mut wanted = vec![name.clone()];
    let mut next = 0;
    while let Some(module) = wanted.get(next).cloned() {
        wanted.extend(needs(&module).iter().map(|needed| (*needed).to_owned()));
        next += 1;
    }
    for module in wanted.into_iter().rev() {
        if !names.contains(&module) {
            names.push(module);
        }
    }
    let fresh = !loaded(call.host).contains(&name);
    store(call.host, &names)?;
    if fresh && (name == "amdgpu" || name == "gim") {
        let mut machine = call.host.load()?;
        amd::load(call.host, &mut machine, &name)?;
        if name == "gim" {
            let given: Vec<String> = words[1..].iter().map(|word| (*word).clone()).collect();
            let options = amd::options(call.host, "gim", &given);
            amd::set_functions(call.host, &mut machine, &options)?;
        }
        call.host.save(&machine, &lock)?;
    }
    if name == "vfio_pci" {
        register_vfio(call.host, &["vfio_pci"])?;
    }
    drop(lock);
    Ok(Outcome::silent())
}

/// `rmmod NAME`
pub(super) fn rmmod(call: &Call<'_>) -> io::Result<Outcome> {
    let Some(name) = call.args.iter().find(|arg| !arg.starts_with('-')) else {
        return Ok(Outcome::err("rmmod: ERROR: missing module name.\n", 1));
    };
    remove(call, &name.replace('-', "_"), "rmmod: ERROR: Module")
}

fn remove(call: &Call<'_>, name: &str, complaint: &str) -> io::Result<Outcome> {
    let lock = call.host.lock()?;
    let mut names = loaded(call.host);
    if !names.iter().any(|module| module == name) {
        return Ok(Outcome::err(
            format!("{complaint} {name} is not currently loaded\n"),
            1,
        ));
    }
    let users = names
        .iter()
        .filter(|other| needs(other).contains(&name))
        .cloned()
        .collect::<Vec<_>>();
    let mut machine = call.host.load()?;
    let of_amd = name == "amdgpu" || name == "gim";
    let blocked = of_amd && faults(call.host).amd.contains(&AmdFault::ReloadBlocked);
    let held = blocked
        || (name.starts_with("nvidia") && !machine.holders.is_empty() && !machine.gpus.is_empty())
        || (of_amd && machine.amd_in_use());
    if held || !users.is_empty() {
        let by = if users.is_empty() {
            String::new()
        } else {
            format!(" by: {}", users.join(" "))
        };
        return Ok(Outcome::err(
            format!("{complaint} {name} is in use{by}\n"),
            1,
        ));
    }
    names.retain(|module| module != name);
    store(call.host, &names)?;
    fs::remove_dir_all(call.host.path(format!("/sys/module/{name}")))?;
    if of_amd {
        for pci in machine.functions.keys().cloned().collect::<Vec<_>>() {
            if name == "gim" && machine.amd_card(&pci).is_some() {
                amd::put(call.host, &machine, &pci, 0)?;
            }
        }
        amd::unload(call.host, &mut machine, name)?;
        call.host.save(&machine, &lock)?;
    }
    if name == "vfio_pci" {
        super::binding::unregister_vfio(call.host)?;
    }
    if name == "nvidia" {
        super::power::unload_driver(&mut machine);
        call.host.save(&machine, &lock)?;
    }
    Ok(Outcome::silent())
}

/// `lsmod`
pub(super) fn lsmod(call: &Call<'_>) -> io::Result<Outcome> {
    let mut text = "Module                  Size  Used by\n".to_owned();
    for line in call.host.read("/proc/modules").lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(size), Some(users), Some(list)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let list = list.trim_end_matches(',').trim_matches('-');
        text.push_str(&format!(
            "{name:<19} {size:>8}  {users}{}{list}\n",
            if list.is_empty() { "" } else { " " }
        ));
    }
    Ok(Outcome::out(text, 0))
}

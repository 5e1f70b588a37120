//! Makes a machine's folder: what a fresh Linux server with these cards shows
//! in `/etc`, `/proc`, `/sys`, `/dev` and `/usr/bin`.

mod pci;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::amd;
use super::machine::{Function, Gpu, Host, Machine, uuid};
use super::product::{self, BARE_CARDS, PRODUCTS};
use super::spec::{CardSpec, ContainerTool, Cpu, FIRST_PID, MachineSpec, SYSTEMS, VgpuSide};
use super::{intel, iommu, kube};
use super::{tools, umockdev, units, vgpu};
use pci::ordinary_devices;
pub(super) use pci::{Device, add_device, bind, device_directory};

/// Buses of the eight sockets of an HGX board, as such servers have them.
const HGX_BUSES: [u8; 8] = [0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf];
/// AMD's PCI vendor id.
const AMD: u16 = 0x1002;
/// Buses of slots in other servers.
const SLOT_BUSES: [u8; 8] = [0x17, 0x31, 0x4b, 0x65, 0x98, 0xb1, 0xca, 0xe3];

/// Makes the machine unless it is there already and plays the same role.
/// `binary` is what the tools link to.
pub(super) fn ensure(host: &Host, name: &str, spec: &MachineSpec, binary: &Path) -> io::Result<()> {
    let lock = host.lock()?;
    match host.load() {
        Ok(machine) if machine.spec == *spec => return link_tools(host, spec, binary),
        Ok(_) => wipe(host)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => wipe(host)?,
        Err(error) => return Err(error),
    }
    let machine = make(host, name, spec)?;
    link_tools(host, spec, binary)?;
    host.save(&machine, &lock)
}

/// Removes everything but what holds the lock.
pub(super) fn wipe(host: &Host) -> io::Result<()> {
    for entry in fs::read_dir(host.root())? {
        let entry = entry?;
        if entry.file_name() == ".sim" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(host.private(""))? {
        let entry = entry?;
        if entry.file_name() == "lock" || entry.file_name() == "units.lock" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn link_tools(host: &Host, spec: &MachineSpec, binary: &Path) -> io::Result<()> {
    let of_all = tools::names().map(|name| format!("/usr/bin/{name}"));
    let paths: Vec<String> = of_all.chain(own_tools(spec).map(str::to_owned)).collect();
    let is_there = |path: &String| {
        let link = host.path(path);
        fs::read_link(link).is_ok_and(|target| target == binary)
    };
    if paths.iter().all(is_there) {
        return Ok(());
    }
    for path in &paths {
        let link = host.path(path);
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(binary, &link)?,
        }
    }
    Ok(())
}

/// Programs that come with software which only some machines have, and which the machine
/// that simulates them has not.
fn own_tools(spec: &MachineSpec) -> impl Iterator<Item = &'static str> {
    let vgpu = spec.vgpu.map(|side| match side {
        VgpuSide::Host => "/usr/lib/nvidia/sriov-manage",
        VgpuSide::Guest => "/usr/bin/nvidia-gridd",
    });
    let exporters = spec
        .exporters
        .iter()
        .map(|exporter| match exporter.as_str() {
            "dcgm" => "/usr/bin/dcgm-exporter",
            "amd" => "/usr/local/bin/amd-metrics-exporter",
            _ => "/usr/bin/gunicorn",
        });
    // podman's generator says nothing: `units` reads its files itself.
    let podman = spec.container_tools.contains(&ContainerTool::Podman);
    let quadlet = podman.then_some("/usr/lib/systemd/system-generators/podman-system-generator");
    vgpu.into_iter()
        .chain(quadlet)
        .chain(exporters)
        .chain(tools::boot_loader_tools(spec.boot_loader).iter().copied())
}

fn make(host: &Host, name: &str, spec: &MachineSpec) -> io::Result<Machine> {
    for directory in [
        "etc/modprobe.d",
        "etc/modules-load.d",
        "etc/systemd/system",
        "root",
        "tmp",
        "var/lib",
        "var/log",
        "run",
        "dev",
        "usr/local/bin",
        "usr/sbin",
    ] {
        fs::create_dir_all(host.root().join(directory))?;
    }
    if spec.exporters.iter().any(|exporter| exporter == "intel") {
        fs::create_dir_all(host.path("/usr/lib/xpum/rest"))?;
    }
    let mut machine = Machine {
        name: name.to_owned(),
        spec: spec.clone(),
        boots: 1,
        gpus: Vec::new(),
        products: std::collections::BTreeMap::new(),
        functions: std::collections::BTreeMap::new(),
        drivers: Vec::new(),
        licensed: false,
        amd: amd::AmdState::default(),
        holders: spec.in_use.clone(),
        held_by_driver: false,
        resets_all: false,
        mode_unreadable: false,
    };
    system_files(host, name, spec)?;
    if spec.container_tools.contains(&ContainerTool::Podman) {
        let controllers = "cpuset cpu io memory hugetlb pids rdma misc\n";
        host.write("/sys/fs/cgroup/cgroup.controllers", controllers)?;
    }
    if spec.selinux {
        tools::set_up_selinux(host)?;
    }
    // What is found on the bus joins its groups at once.
    iommu::set_up(host, &machine)?;
    let mut cards = Vec::new();
    for card in &spec.gpus {
        cards.extend((0..card.count as usize).map(|number| (card, card.pci.get(number))));
    }
    let buses = buses(cards.len());
    for (index, (card, address)) in cards.into_iter().enumerate() {
        let address = address
            .cloned()
            .unwrap_or_else(|| format!("0000:{:02x}:00.0", buses[index]));
        if card.is_nvidia() {
            nvidia_card(host, &mut machine, card, &address, index)?;
        } else {
            bare_card(host, &mut machine, card, &address, index)?;
        }
        companions(host, card, &address, group(card, index))?;
    }
    machine.gpus.sort_by(|one, other| one.pci.cmp(&other.pci));
    machine
        .amd
        .cards
        .sort_by(|one, other| one.pci.cmp(&other.pci));
    match &spec.umockdev {
        // It has all that its host had.
        Some(recording) => {
            let text = fs::read_to_string(&recording.file)?;
            let devices = umockdev::parse(&text).map_err(io::Error::other)?;
            machine.drivers = umockdev::replay(host, &devices)?;
        }
        None => ordinary_devices(host)?,
    }
    nvidia_files(host, &machine)?;
    modules(host, &machine)?;
    amd_driver(host, &mut machine)?;
    boot_files(host, &machine)?;
    units(host, &machine)?;
    write_holders(host, &machine)?;
    write_capabilities(host, &machine)?;
    vgpu::show(host, &machine)?;
    kube::set_up(host, &machine)?;
    Ok(machine)
}

fn buses(count: usize) -> Vec<u8> {
    let mut buses: Vec<u8> = if count == 8 {
        HGX_BUSES.to_vec()
    } else {
        SLOT_BUSES
            .iter()
            .chain(&HGX_BUSES)
            .copied()
            .take(count.min(16))
            .collect()
    };
    // Beyond what any server has: any other bus will do.
    buses.extend((0x20..=0xff).filter(|bus| !SLOT_BUSES.contains(bus) && !HGX_BUSES.contains(bus)));
    buses.truncate(count.max(1));
    buses.sort_unstable();
    buses
}

fn system_files(host: &Host, name: &str, spec: &MachineSpec) -> io::Result<()> {
    let system = SYSTEMS
        .iter()
        .find(|system| system.0 == spec.os)
        .unwrap_or(&SYSTEMS[0]);
    host.write(
        "/etc/os-release",
        format!(
            "PRETTY_NAME=\"{}\"\nNAME=\"{}\"\nVERSION_ID=\"{}\"\nID={}\n",
            system.3, system.3, system.2, system.1
        ),
    )?;
    host.write("/etc/hostname", format!("{name}\n"))?;
    host.write(
        "/etc/machine-id",
        format!("{}\n", uuid(name).replace('-', "")),
    )?;
    host.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
    host.write("/etc/group", "root:x:0:\n")?;
    let virtualization = match spec.cpu {
        Cpu::Intel => "vendor_id\t: GenuineIntel\nflags\t\t: fpu msr sse4_2 vmx ept\n",
        Cpu::Amd => "vendor_id\t: AuthenticAMD\nflags\t\t: fpu msr sse4_2 svm npt\n",
    };
    host.write(
        "/proc/cpuinfo",
        format!("processor\t: 0\n{virtualization}\n"),
    )?;
    host.write("/proc/cmdline", format!("{}\n", spec.cmdline))?;
    tools::set_up_boot_loader(host, spec)?;
    host.write(
        "/proc/version",
        format!("Linux version {} (simulated) #1 SMP\n", spec.kernel),
    )?;
    host.write("/proc/sys/kernel/osrelease", format!("{}\n", spec.kernel))?;
    host.write("/proc/sys/kernel/ostype", "Linux\n")?;
    host.write("/proc/sys/kernel/hostname", format!("{name}\n"))?;
    host.write(
        "/proc/1/comm",
        if spec.systemd { "systemd\n" } else { "init\n" },
    )?;
    if spec.systemd {
        fs::create_dir_all(host.path("/run/systemd/system"))?;
    }
    Ok(())
}

/// What changes with every boot.
pub(super) fn boot_files(host: &Host, machine: &Machine) -> io::Result<()> {
    let id = uuid(&format!("{} boot {}", machine.name, machine.boots));
    host.write("/proc/sys/kernel/random/boot_id", format!("{id}\n"))?;
    host.write("/proc/uptime", "120.50 940.12\n")?;
    tools::forget_sockets(host)
}

fn hex16(text: &str) -> u16 {
    u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
}

fn nvidia_card(
    host: &Host,
    machine: &mut Machine,
    card: &CardSpec,
    address: &str,
    index: usize,
) -> io::Result<()> {
    let further = machine.spec.products.as_deref();
    let further = further.and_then(|text| product::read(text).ok());
    let further = further.as_ref().and_then(|all| all.get(&card.product));
    let Some(product) = PRODUCTS.get(&card.product).or(further) else {
        return Err(io::Error::other(format!(
            "unknown product {}",
            card.product
        )));
    };
    let subsystem = product.subsystem.trim_start_matches("0x");
    let device = hex16(product.device_ids.first().map_or("0", String::as_str));
    let class = if product.vga { 0x03_00_00 } else { 0x03_02_00 };
    let driver = machine.spec.driver.as_ref().map(|_| "nvidia");
    add_device(
        host,
        &Device {
            address,
            ids: (0x10de, device),
            subsystem: (
                hex16(subsystem.get(4..).unwrap_or("10DE")),
                hex16(subsystem.get(..4).unwrap_or("0")),
            ),
            class,
            driver,
            kernels: driver,
            numa_node: numa_node(address),
            iommu_group: group(card, index),
            reset: card.reset != super::spec::Reset::Unsupported,
        },
    )?;
    if product.total_vfs > 0 && machine.spec.vgpu != Some(VgpuSide::Guest) {
        add_function(
            host,
            machine,
            address,
            Function {
                total_vfs: product.total_vfs,
                offset: 4,
                vendor: 0x10de,
                vf_device: device,
                class,
                driver: "nvidia".to_owned(),
                configurable: false,
                busy: false,
            },
        )?;
    }
    let seed = uuid(&format!("{} card {index}", machine.name));
    machine.gpus.push(Gpu {
        product: card.product.clone(),
        name: card.name.clone(),
        pci: address.to_owned(),
        uuid: format!("GPU-{seed}"),
        serial: format!("16{:011}", u64::from_str_radix(&seed[..8], 16).unwrap_or(0)),
        mig: card.mig && product.has_mig(),
        mig_pending: card.mig && product.has_mig(),
        persistence: card.persistence,
        compute_mode: 0,
        timeslice: 0,
        reset: card.reset,
        instances: Vec::new(),
        vgpus: Vec::new(),
        heterogeneous: false,
    });
    machine
        .products
        .entry(card.product.clone())
        .or_insert_with(|| product.clone());
    Ok(())
}

/// The IOMMU group of a card: one of its own, unless the inventory says another.
fn group(card: &CardSpec, index: usize) -> u32 {
    let own = 40 + u32::try_from(index).unwrap_or(0);
    card.iommu_group.unwrap_or(own)
}

/// Buses of the second half belong to the second socket.
fn numa_node(address: &str) -> i32 {
    i32::from(u8::from_str_radix(&address[5..7], 16).unwrap_or(0) >= 0x80)
}

fn bare_card(
    host: &Host,
    machine: &mut Machine,
    card: &CardSpec,
    address: &str,
    index: usize,
) -> io::Result<()> {
    let Some(kind) = BARE_CARDS.iter().find(|kind| kind.key == card.product) else {
        return Err(io::Error::other(format!("unknown card {}", card.product)));
    };
    add_device(
        host,
        &Device {
            address,
            ids: (kind.vendor, kind.device),
            subsystem: (kind.vendor, 0x4905),
            class: kind.class,
            // AMD's come with the module, which may be one of two.
            driver: (kind.vendor != AMD).then_some(kind.driver),
            kernels: (kind.vendor != AMD).then_some(kind.driver),
            numa_node: numa_node(address),
            iommu_group: group(card, index),
            reset: true,
        },
    )?;
    // Without its firmware's scheduler the driver is no physical function.
    let functions = if card.guc { kind.total_vfs } else { 0 };
    intel::make(host, machine, address, functions)?;
    if kind.vendor == AMD {
        machine.amd.cards.push(amd::Card::new(kind.key, address));
    }
    if kind.total_vfs == 0 {
        return Ok(());
    }
    let function = Function {
        total_vfs: functions,
        // GIM's are on another slot: 85:02.0 beside 85:00.0.
        offset: if kind.vendor == AMD { 0x10 } else { 1 },
        vendor: kind.vendor,
        vf_device: kind.vf_device,
        class: kind.class,
        driver: match kind.vendor {
            AMD => String::new(),
            _ => kind.driver.to_owned(),
        },
        configurable: kind.configurable,
        busy: false,
    };
    add_function(host, machine, address, function)
}

fn add_function(
    host: &Host,
    machine: &mut Machine,
    address: &str,
    function: Function,
) -> io::Result<()> {
    let directory = device_directory(address);
    let file = |name: &str, content: String| host.write(&format!("{directory}/{name}"), content);
    file("sriov_totalvfs", format!("{}\n", function.total_vfs))?;
    file("sriov_numvfs", "0\n".to_owned())?;
    file("sriov_offset", format!("{}\n", function.offset))?;
    file("sriov_stride", "1\n".to_owned())?;
    file("sriov_vf_device", format!("{:x}\n", function.vf_device))?;
    file("sriov_drivers_autoprobe", "1\n".to_owned())?;
    machine.functions.insert(address.to_owned(), function);
    Ok(())
}

fn nvidia_files(host: &Host, machine: &Machine) -> io::Result<()> {
    let Some(driver) = machine
        .spec
        .driver
        .as_ref()
        .filter(|_| !machine.gpus.is_empty())
    else {
        return Ok(());
    };
    host.write(
        "/proc/driver/nvidia/version",
        format!(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}  Release Build  (dvs-builder@U22)\n\
             GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"
        ),
    )?;
    for minor in 0..machine.gpus.len() {
        nvidia_information(host, machine, minor)?;
        host.write(&format!("/dev/nvidia{minor}"), "")?;
    }
    for node in [
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia-modeset",
    ] {
        host.write(&format!("/dev/{node}"), "")?;
    }
    Ok(())
}

/// What the driver shows of a card that it has.
pub(super) fn nvidia_information(host: &Host, machine: &Machine, minor: usize) -> io::Result<()> {
    let (Some(gpu), Some(driver)) = (machine.gpus.get(minor), &machine.spec.driver) else {
        return Ok(());
    };
    let product = machine.product(gpu);
    let name = gpu
        .name
        .as_deref()
        .or(product.map(|product| product.name.as_str()))
        .unwrap_or_default();
    let vbios = product.map_or("", |product| product.vbios.as_str());
    host.write(
        &format!("/proc/driver/nvidia/gpus/{}/information", gpu.pci),
        format!(
            "Model: \t\t {name}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t {vbios}\nBus Type: \t PCIe\n\
             DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {}\nDevice Minor: \t {minor}\n\
             GPU Firmware: \t {driver}\nGPU Excluded:\t No\n",
            130 + minor,
            gpu.uuid,
            gpu.pci
        ),
    )
}

/// The functions beside the GPU in a card's slot, which the inventory names.
fn companions(host: &Host, card: &CardSpec, address: &str, group: u32) -> io::Result<()> {
    // Ids of the Turing generation, which had all three.
    let kinds = [
        ("audio", 1, 0x10f7, 0x04_03_00, "snd_hda_intel"),
        ("usb", 2, 0x1ad8, 0x0c_03_30, "xhci_hcd"),
        ("ucsi", 3, 0x1ad9, 0x0c_80_00, "nvidia-gpu"),
    ];
    let Some((slot, _)) = address.rsplit_once('.') else {
        return Ok(());
    };
    for (word, function, device, class, driver) in kinds {
        if !card.functions.iter().any(|wanted| wanted == word) {
            continue;
        }
        add_device(
            host,
            &Device {
                address: &format!("{slot}.{function}"),
                ids: (0x10de, device),
                subsystem: (0x10de, device),
                class,
                driver: Some(driver),
                kernels: Some(driver),
                numa_node: numa_node(address),
                iommu_group: group,
                reset: false,
            },
        )?;
    }
    Ok(())
}

/// Loads the modules that the machine's cards bring with them.
pub(super) fn modules(host: &Host, machine: &Machine) -> io::Result<()> {
    let mut loaded = vec!["ast", "nvme", "mlx5_core", "vfio", "vfio_iommu_type1"];
    if machine.spec.driver.is_some() && !machine.gpus.is_empty() {
        loaded.extend(["nvidia", "nvidia_uvm", "nvidia_modeset"]);
        if machine.spec.vgpu == Some(VgpuSide::Host) {
            loaded.push("nvidia_vgpu_vfio");
        }
    }
    for function in machine.functions.values() {
        if function.vendor != 0x10de
            && function.vendor != AMD
            && !loaded.contains(&function.driver.as_str())
        {
            loaded.push(&function.driver);
        }
    }
    // A port's driver is part of the kernel.
    let recorded = machine.drivers.iter().map(String::as_str);
    for name in recorded.filter(|name| *name != "pcieport") {
        if !loaded.contains(&name) {
            loaded.push(name);
        }
    }
    if !machine.amd.cards.is_empty() {
        loaded.push(&machine.spec.amd.driver);
    }
    let named = tools::modules_to_load(host);
    for name in &named {
        if !loaded.contains(&name.as_str()) {
            loaded.push(name);
        }
    }
    tools::write_modules(host, &loaded)?;
    tools::register_vfio(host, &loaded)?;
    if let Some(driver) = machine
        .spec
        .driver
        .as_ref()
        .filter(|_| !machine.gpus.is_empty())
    {
        host.write("/sys/module/nvidia/version", format!("{driver}\n"))?;
    }
    Ok(())
}

/// AMD's driver takes its cards, with the options that stand in `/etc/modprobe.d`.
pub(super) fn amd_driver(host: &Host, machine: &mut Machine) -> io::Result<()> {
    if machine.amd.cards.is_empty() {
        return Ok(());
    }
    let driver = machine.spec.amd.driver.clone();
    amd::load(host, machine, &driver)?;
    match driver.as_str() {
        "gim" => amd::set_functions(host, machine, &amd::options(host, "gim", &[])),
        _ => Ok(()),
    }
}

fn units(host: &Host, machine: &Machine) -> io::Result<()> {
    if !machine.spec.systemd {
        return units::boot::first_boot(host);
    }
    let shipped = "/usr/lib/systemd/system";
    let wants = "/etc/systemd/system/multi-user.target.wants";
    fs::create_dir_all(host.path(wants))?;
    let service = |name: &str, description: &str, lines: &str| -> io::Result<()> {
        let text = format!(
            "[Unit]\nDescription={description}\n\n[Service]\n{lines}\n\n[Install]\nWantedBy=multi-user.target\n"
        );
        host.write(&format!("{shipped}/{name}"), text)?;
        symlink(
            format!("{shipped}/{name}"),
            host.path(format!("{wants}/{name}")),
        )
    };
    service(
        "ssh.service",
        "OpenBSD Secure Shell server",
        "Type=notify\nExecStart=/usr/sbin/sshd -D",
    )?;
    symlink(
        format!("{shipped}/ssh.service"),
        host.path(format!("{shipped}/sshd.service")),
    )?;
    host.write(
        &format!("{shipped}/multi-user.target"),
        "[Unit]\nDescription=Multi-User System\n",
    )?;
    if machine
        .spec
        .container_tools
        .contains(&ContainerTool::Containerd)
    {
        service(
            "containerd.service",
            "containerd container runtime",
            "Type=notify\nExecStart=/usr/bin/containerd\nKillMode=process",
        )?;
    }
    if machine.spec.driver.is_some() && !machine.gpus.is_empty() {
        service(
            "nvidia-persistenced.service",
            "NVIDIA Persistence Daemon",
            "Type=forking\nExecStart=/usr/bin/nvidia-persistenced --user nvidia-persistenced --verbose",
        )?;
    }
    if machine.spec.nvswitch {
        service(
            "nvidia-fabricmanager.service",
            "NVIDIA fabric manager service",
            "Type=forking\nExecStart=/usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg",
        )?;
    }
    if machine.spec.vgpu == Some(VgpuSide::Guest) {
        // Came with NVIDIA's installer, not with the distribution. The real one goes to the
        // background; what it does at its start is all there is here.
        let unit = "/etc/systemd/system/nvidia-gridd.service";
        let text = "[Unit]\nDescription=NVIDIA Grid Daemon\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                    ExecStart=/usr/bin/nvidia-gridd\n\n[Install]\nWantedBy=multi-user.target\n";
        host.write(unit, text)?;
        symlink(unit, host.path(format!("{wants}/nvidia-gridd.service")))?;
        host.write("/etc/nvidia/gridd.conf.template", "FeatureType=0\n")?;
    }
    let mut users: Vec<&str> = Vec::new();
    for holder in &machine.spec.in_use {
        if let Some(name) = holder.unit.as_deref().filter(|name| !users.contains(name)) {
            users.push(name);
            let lines = format!("ExecStart=/usr/bin/{}", holder.command);
            service(name, name, &lines)?;
        }
    }
    units::boot::first_boot(host)
}

/// Minor numbers of capability nodes that the driver keeps for each card.
const MINORS_OF_A_CARD: u32 = 135;

/// Brings the processes that have cards open into `/proc`.
pub(super) fn write_holders(host: &Host, machine: &Machine) -> io::Result<()> {
    for entry in fs::read_dir(host.path("/proc"))? {
        let entry = entry?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        if pid.is_some_and(|pid| pid >= FIRST_PID) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    for holder in &machine.holders {
        let directory = format!("/proc/{}", holder.pid);
        let file =
            |name: &str, content: String| host.write(&format!("{directory}/{name}"), content);
        file("comm", format!("{:.15}\n", holder.command))?;
        file("cmdline", format!("{}\0", holder.command))?;
        let group = match &holder.unit {
            Some(unit) => format!("0::/system.slice/{unit}\n"),
            None => "0::/user.slice/user-1000.slice/session-3.scope\n".to_owned(),
        };
        file("cgroup", group)?;
        file(
            "status",
            format!(
                "Name:\t{:.15}\nPid:\t{}\nPPid:\t1\nUid:\t0\t0\t0\t0\n",
                holder.command, holder.pid
            ),
        )?;
        fs::create_dir_all(host.path(format!("{directory}/fd")))?;
        symlink("/dev/null", host.path(format!("{directory}/fd/0")))?;
        let of_amd = (holder.gpu as usize).checked_sub(machine.gpus.len());
        let (control, node) = match (&holder.node, of_amd) {
            (Some(node), _) => (None, node.clone()),
            (None, Some(index)) if index < machine.amd.cards.len() => {
                (Some("/dev/kfd"), amd::node_of(host, machine, index))
            }
            (None, _) => (Some("/dev/nvidiactl"), format!("/dev/nvidia{}", holder.gpu)),
        };
        if let Some(control) = control {
            symlink(control, host.path(format!("{directory}/fd/3")))?;
        }
        // Whoever works on a GPU instance has its card open as well.
        let instance = node.strip_prefix("/dev/nvidia-caps/nvidia-cap");
        if let Some(minor) = instance.and_then(|minor| minor.parse::<u32>().ok()) {
            let card = format!("/dev/nvidia{}", minor.saturating_sub(3) / MINORS_OF_A_CARD);
            symlink("/dev/nvidiactl", host.path(format!("{directory}/fd/3")))?;
            symlink(card, host.path(format!("{directory}/fd/5")))?;
        }
        symlink(node, host.path(format!("{directory}/fd/4")))?;
    }
    Ok(())
}

/// Brings `/proc/driver/nvidia/capabilities` and `/dev/nvidia-caps` to what the
/// instances are.
pub(super) fn write_capabilities(host: &Host, machine: &Machine) -> io::Result<()> {
    if !machine
        .products
        .values()
        .any(super::product::Product::has_mig)
        || machine.spec.driver.is_none()
    {
        return Ok(());
    }
    let base = "/proc/driver/nvidia/capabilities";
    if host.path(base).exists() {
        fs::remove_dir_all(host.path(base))?;
    }
    let access = |path: &str, minor: u32, mode: u32| -> io::Result<()> {
        let text =
            format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n");
        host.write(&format!("{base}/{path}"), text)?;
        let permissions = fs::Permissions::from_mode(if mode == 256 { 0o400 } else { 0o444 });
        fs::set_permissions(host.path(format!("{base}/{path}")), permissions)?;
        let node = format!("/dev/nvidia-caps/nvidia-cap{minor}");
        if host.path(&node).exists() {
            Ok(())
        } else {
            host.write(&node, "")
        }
    };
    access("mig/config", 1, 256)?;
    access("mig/monitor", 2, 292)?;
    for (index, gpu) in machine.gpus.iter().enumerate() {
        let card = u32::try_from(index).unwrap_or(0) * MINORS_OF_A_CARD;
        for instance in &gpu.instances {
            let minor = card + 3 + instance.id * 9;
            access(
                &format!("gpu{index}/mig/gi{}/access", instance.id),
                minor,
                292,
            )?;
            for compute in &instance.compute {
                let path = format!("gpu{index}/mig/gi{}/ci{}/access", instance.id, compute.id);
                access(&path, minor + 1 + compute.id, 292)?;
            }
        }
    }
    Ok(())
}

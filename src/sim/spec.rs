//! The `sim:` variable of a host: which machine it plays.
//!
//! Everything is checked before a host is made; findings carry the place in the
//! inventory and the nearest right name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{Loaded, Map, Node, Value, Vars};

use super::amd::AmdSpec;
use super::kube::{self, ClusterSpec};
use super::machine::uuid;
use super::product::{self, BARE_CARDS};
use super::umockdev;

/// A machine as the user described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MachineSpec {
    /// Distribution, such as `ubuntu-24.04`.
    pub(super) os: String,
    /// `uname -r`.
    pub(super) kernel: String,
    /// `/proc/cmdline`.
    pub(super) cmdline: String,
    /// Version of NVIDIA's driver; nothing is loaded if absent.
    pub(super) driver: Option<String>,
    /// Version of Intel's `xpu-smi`; not installed if absent.
    pub(super) xpu_smi: Option<String>,
    /// What is installed for containers.
    #[serde(default)]
    pub(super) container_tools: Vec<ContainerTool>,
    /// Exporters of metrics whose packages are installed: `dcgm`, `amd`, `intel`.
    #[serde(default)]
    pub(super) exporters: Vec<String>,
    /// Whether SELinux holds its processes.
    #[serde(default)]
    pub(super) selinux: bool,
    /// What boots the kernel.
    #[serde(default)]
    pub(super) boot_loader: BootLoader,
    /// Whose processors the machine has.
    pub(super) cpu: Cpu,
    /// AMD's driver and tools.
    #[serde(default)]
    pub(super) amd: AmdSpec,
    /// Whether systemd runs the machine.
    pub(super) systemd: bool,
    /// Cards, in the order of their PCI addresses.
    pub(super) gpus: Vec<CardSpec>,
    /// Who uses them.
    pub(super) in_use: Vec<HolderSpec>,
    /// NVIDIA's vGPU software, where it is installed.
    #[serde(default)]
    pub(super) vgpu: Option<VgpuSide>,
    /// A recording whose devices the machine has.
    #[serde(default)]
    pub(super) umockdev: Option<Recording>,
    /// The cluster that its `kubectl` reaches; there is no `kubectl` if absent.
    #[serde(default)]
    pub(super) kubernetes: Option<ClusterSpec>,
    /// Whether NVIDIA's cards sit on a board with NVSwitches, which the fabric manager runs.
    #[serde(default)]
    pub(super) nvswitch: bool,
    /// NVIDIA products beside the known ones, as the user's file describes them.
    #[serde(default)]
    pub(super) products: Option<String>,
}

/// Which part of NVIDIA's vGPU software a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum VgpuSide {
    /// The host driver, which makes vGPUs.
    Host,
    /// The driver of a virtual machine whose cards are vGPUs.
    Guest,
}

/// A file that umockdev wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recording {
    /// Where it stands.
    pub(super) file: PathBuf,
    /// Stands for what is in it, so that another content makes another machine.
    pub(super) content: String,
}

/// Cards of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CardSpec {
    /// Key of the product.
    pub(super) product: String,
    /// How many.
    pub(super) count: u32,
    /// Name other than the product's usual one.
    pub(super) name: Option<String>,
    /// PCI addresses other than the machine's usual ones.
    pub(super) pci: Vec<String>,
    /// NVIDIA's persistence mode.
    pub(super) persistence: bool,
    /// What a reset does.
    pub(super) reset: Reset,
    /// Whether MIG mode is on to begin with.
    pub(super) mig: bool,
    /// Whether the firmware of an Intel card schedules it; there are no virtual functions else.
    pub(super) guc: bool,
    /// Functions beside the GPU: `audio`, `usb`, `ucsi`.
    #[serde(default)]
    pub(super) functions: Vec<String>,
    /// IOMMU group, where it is not one of the card's own.
    #[serde(default)]
    pub(super) iommu_group: Option<u32>,
}

/// Programs for containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ContainerTool {
    /// podman with its runtimes and its generator of units.
    Podman,
    /// Docker's daemon.
    Docker,
    /// containerd by itself.
    Containerd,
    /// NVIDIA's container toolkit.
    NvidiaCtk,
}

/// What boots the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BootLoader {
    /// Debian's GRUB.
    #[default]
    Grub,
    /// Red Hat's, which is told by `grubby`.
    Grubby,
    /// systemd-boot.
    SystemdBoot,
    /// Proxmox on systemd-boot.
    Proxmox,
}

/// Who made the processors; the tools that look at it ask for a flag of Intel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cpu {
    /// Intel: `vmx`.
    #[default]
    Intel,
    /// AMD: `svm`.
    Amd,
}

/// What `nvidia-smi --gpu-reset` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reset {
    /// Works unless the card is in use.
    #[default]
    Works,
    /// `In use by another client`, whoever that may be.
    Refused,
    /// Not supported: the machine is a guest that was handed the card.
    Unsupported,
}

/// Someone who has a card open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HolderSpec {
    /// Index of the card.
    pub(super) gpu: u32,
    /// Process id; above what the kernel gives to real processes, so that a
    /// `kill` of it can hit nobody.
    pub(super) pid: u32,
    /// Process name.
    pub(super) command: String,
    /// systemd unit it belongs to.
    pub(super) unit: Option<String>,
    /// Whether it has a CUDA context, so that `--query-compute-apps` lists it.
    pub(super) compute: bool,
    /// The device node that it has open, where it is not that of the NVIDIA card `gpu`.
    #[serde(default)]
    pub(super) node: Option<String>,
}

/// The first process id that no real process can have (`pid_max` is at most 4194304).
pub(super) const FIRST_PID: u32 = 4_200_001;

/// Whether the host's connection is the simulated one.
#[must_use]
pub fn is_simulated(vars: &Vars) -> bool {
    vars.get("ansible_connection").and_then(Node::as_str) == Some("sim")
}

/// Distributions that can be played: key, `ID`, `VERSION_ID`, `PRETTY_NAME`, kernel.
pub(super) const SYSTEMS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "ubuntu-24.04",
        "ubuntu",
        "24.04",
        "Ubuntu 24.04.3 LTS",
        "6.8.0-85-generic",
    ),
    (
        "ubuntu-22.04",
        "ubuntu",
        "22.04",
        "Ubuntu 22.04.5 LTS",
        "5.15.0-157-generic",
    ),
    (
        "debian-12",
        "debian",
        "12",
        "Debian GNU/Linux 12 (bookworm)",
        "6.1.0-40-amd64",
    ),
    (
        "debian-13",
        "debian",
        "13",
        "Debian GNU/Linux 13 (trixie)",
        "6.12.48+deb13-amd64",
    ),
    (
        "rocky-9",
        "rocky",
        "9.6",
        "Rocky Linux 9.6 (Blue Onyx)",
        "5.14.0-570.el9.x86_64",
    ),
];

/// Reads the `sim:` variable. A host without it is a plain server without GPUs.
pub(super) fn read(vars: &Vars) -> Loaded<MachineSpec> {
    let mut problems = Problems::default();
    let mut spec = MachineSpec {
        os: "ubuntu-24.04".to_owned(),
        kernel: String::new(),
        cmdline: "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet intel_iommu=on iommu=pt"
            .to_owned(),
        driver: None,
        container_tools: Vec::new(),
        exporters: Vec::new(),
        selinux: false,
        boot_loader: BootLoader::Grub,
        xpu_smi: None,
        cpu: Cpu::Intel,
        amd: AmdSpec::default(),
        systemd: true,
        gpus: Vec::new(),
        in_use: Vec::new(),
        vgpu: None,
        umockdev: None,
        kubernetes: None,
        nvswitch: false,
        products: None,
    };
    let mut tool_named = false;
    if let Some(node) = vars.get("sim") {
        let mut reader = Reader {
            problems: &mut problems,
            further: Vec::new(),
        };
        reader.machine(node, &mut spec);
        tool_named = node.as_map().is_some_and(|map| map.contains_key("xpu_smi"));
    }
    if !tool_named {
        // Version 2 is for the cards of xe alone, and version 1 not for them.
        let kind = |key: &str| BARE_CARDS.iter().find(|card| card.key == key);
        let mut cards = spec.gpus.iter().filter_map(|card| kind(&card.product));
        spec.xpu_smi = cards
            .find(|card| card.vendor == 0x8086)
            .map(|card| match card.driver {
                "xe" => "2.0.0.20250225".to_owned(),
                _ => "1.2.31.20240308".to_owned(),
            });
    }
    if spec.kernel.is_empty() {
        let system = SYSTEMS.iter().find(|system| system.0 == spec.os);
        spec.kernel = system
            .map_or("6.8.0-85-generic", |system| system.4)
            .to_owned();
    }
    let has_nvidia = spec
        .gpus
        .iter()
        .any(|card| product::bare_card(&card.product).is_none());
    if has_nvidia && spec.driver.is_none() {
        spec.driver = Some("590.48.01".to_owned());
    }
    (spec, problems)
}

/// Reads parts of the variable, and collects what is wrong with it.
pub(super) struct Reader<'a> {
    problems: &'a mut Problems,
    /// Keys of the products that the user's file describes.
    further: Vec<String>,
}

const MACHINE_KEYS: [&str; 19] = [
    "selinux",
    "exporters",
    "boot_loader",
    "container_tools",
    "os",
    "kernel",
    "cmdline",
    "driver",
    "xpu_smi",
    "amd",
    "processor",
    "systemd",
    "gpus",
    "in_use",
    "vgpu",
    "umockdev",
    "kubernetes",
    "nvswitch",
    "products",
];
const AMD_KEYS: [&str; 2] = ["driver", "rocm"];
const CARD_KEYS: [&str; 10] = [
    "functions",
    "iommu_group",
    "product",
    "count",
    "name",
    "pci",
    "persistence",
    "reset",
    "mig",
    "guc",
];
const HOLDER_KEYS: [&str; 6] = ["gpu", "pid", "command", "unit", "compute", "node"];

impl Reader<'_> {
    fn machine(&mut self, node: &Node, spec: &mut MachineSpec) {
        let Some(map) = self.map(node, "sim", &MACHINE_KEYS) else {
            return;
        };
        if let Some(node) = get(map, "os") {
            let keys = SYSTEMS.iter().map(|system| system.0);
            if let Some(key) = self.one_of(node, "distribution", keys) {
                spec.os = key;
            }
        }
        if spec.os.starts_with("rocky") {
            spec.boot_loader = BootLoader::Grubby;
        }
        if let Some(node) = get(map, "boot_loader") {
            let words = ["grub", "grubby", "systemd-boot", "proxmox"].into_iter();
            spec.boot_loader = match self.one_of(node, "boot loader", words).as_deref() {
                Some("grubby") => BootLoader::Grubby,
                Some("systemd-boot") => BootLoader::SystemdBoot,
                Some("proxmox") => BootLoader::Proxmox,
                _ => BootLoader::Grub,
            };
        }
        for node in get(map, "container_tools").map_or(&[][..], |node| self.list(node)) {
            let words = ["podman", "docker", "containerd", "nvidia-ctk"].into_iter();
            match self.one_of(node, "container tool", words).as_deref() {
                Some("podman") => spec.container_tools.push(ContainerTool::Podman),
                Some("docker") => spec.container_tools.push(ContainerTool::Docker),
                Some("containerd") => spec.container_tools.push(ContainerTool::Containerd),
                Some(_) => spec.container_tools.push(ContainerTool::NvidiaCtk),
                None => {}
            }
        }
        for node in get(map, "exporters").map_or(&[][..], |node| self.list(node)) {
            let words = ["dcgm", "amd", "intel"].into_iter();
            spec.exporters.extend(self.one_of(node, "exporter", words));
        }
        if let Some(text) = get(map, "kernel").and_then(|node| self.text(node)) {
            spec.kernel = text;
        }
        if let Some(text) = get(map, "cmdline").and_then(|node| self.text(node)) {
            spec.cmdline = text;
        }
        if let Some(node) = get(map, "driver") {
            spec.driver = self.driver(node);
        }
        if let Some(node) = get(map, "xpu_smi") {
            spec.xpu_smi = match node.value {
                Value::Null | Value::Bool(false) => None,
                _ => self.text(node),
            };
        }
        if let Some(node) = get(map, "processor") {
            let cpu = self.one_of(node, "processor", ["intel", "amd"].into_iter());
            if cpu.as_deref() == Some("amd") {
                spec.cpu = Cpu::Amd;
            }
        }
        if let Some(node) = get(map, "amd") {
            self.amd(node, &mut spec.amd);
        }
        if let Some(on) = get(map, "nvswitch").and_then(|node| self.flag(node)) {
            spec.nvswitch = on;
        }
        if let Some(on) = get(map, "selinux").and_then(|node| self.flag(node)) {
            spec.selinux = on;
        }
        if let Some(on) = get(map, "systemd").and_then(|node| self.flag(node)) {
            spec.systemd = on;
        }
        if let Some(node) = get(map, "products") {
            spec.products = self.products(node);
        }
        for node in get(map, "gpus").map_or(&[][..], |node| self.list(node)) {
            if let Some(card) = self.card(node) {
                spec.gpus.push(card);
            }
        }
        if let Some(node) = get(map, "vgpu") {
            let words = ["host", "guest"].into_iter();
            spec.vgpu = match self.one_of(node, "side of vGPU", words).as_deref() {
                Some("host") => Some(VgpuSide::Host),
                Some("guest") => Some(VgpuSide::Guest),
                _ => None,
            };
        }
        if let Some(node) = get(map, "umockdev") {
            spec.umockdev = self.recording(node);
        }
        if let Some(node) = get(map, "kubernetes") {
            spec.kubernetes = kube::spec::read(self, node);
        }
        let cards: u32 = spec.gpus.iter().map(|card| card.count).sum();
        for (index, node) in get(map, "in_use")
            .map_or(&[][..], |node| self.list(node))
            .iter()
            .enumerate()
        {
            if let Some(holder) = self.holder(node, index, cards) {
                spec.in_use.push(holder);
            }
        }
    }

    /// Products beside the known ones; the file is looked for beside the inventory.
    fn products(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node)?;
        let beside = node.origin.source.path.parent();
        let file = beside.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name));
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        match text.and_then(|text| Ok((product::read(&text)?, text))) {
            Ok((products, text)) => {
                self.further = products.into_keys().collect();
                Some(text)
            }
            Err(why) => {
                let message = format!("the products in {} cannot be read: {why}", file.display());
                self.error(&message, &node.origin);
                None
            }
        }
    }

    /// The file is looked for beside the inventory.
    fn recording(&mut self, node: &Node) -> Option<Recording> {
        let name = self.text(node)?;
        let beside = node.origin.source.path.parent();
        let file = beside.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name));
        let found = std::fs::read_to_string(&file)
            .map_err(|error| error.to_string())
            .and_then(|text| umockdev::parse(&text).map(|_| text));
        match found {
            Ok(text) => Some(Recording {
                // The machine is made again from another working folder.
                file: std::path::absolute(&file).unwrap_or(file),
                content: uuid(&text),
            }),
            Err(why) => {
                let message = format!("the recording {} cannot be replayed: {why}", file.display());
                self.error(&message, &node.origin);
                None
            }
        }
    }

    fn amd(&mut self, node: &Node, spec: &mut AmdSpec) {
        let Some(map) = self.map(node, "amd", &AMD_KEYS) else {
            return;
        };
        if let Some(node) = get(map, "driver")
            && let Some(driver) =
                self.one_of(node, "driver of AMD's", ["amdgpu", "gim"].into_iter())
        {
            spec.driver = driver;
        }
        if let Some(text) = get(map, "rocm").and_then(|node| self.text(node)) {
            spec.rocm = text;
        }
    }

    fn card(&mut self, node: &Node) -> Option<CardSpec> {
        if let Some(key) = node.as_str() {
            let product = self.product(key, &node.origin)?;
            return Some(CardSpec::of(product));
        }
        let map = self.map(node, "an entry of `gpus`", &CARD_KEYS)?;
        let Some(product) = get(map, "product") else {
            self.error("`product` is missing", &node.origin);
            return None;
        };
        let key = self.text(product)?;
        let mut card = CardSpec::of(self.product(&key, &product.origin)?);
        if let Some(node) = get(map, "count") {
            match node.value {
                Value::Int(count @ 1..=16) => card.count = u32::try_from(count).unwrap_or(1),
                _ => self.error("`count` must be an integer from 1 to 16", &node.origin),
            }
        }
        card.name = get(map, "name").and_then(|node| self.text(node));
        for node in get(map, "pci").map_or(&[][..], |node| self.list(node)) {
            let Some(text) = self.text(node) else {
                continue;
            };
            match text.parse::<crate::facts::PciAddress>() {
                Ok(address) => card.pci.push(address.to_string()),
                Err(message) => self.error(&message, &node.origin),
            }
        }
        if !card.pci.is_empty() && card.pci.len() != card.count as usize {
            self.error(
                "`pci` must have as many addresses as `count` says",
                &node.origin,
            );
        }
        if let Some(on) = get(map, "persistence").and_then(|node| self.flag(node)) {
            card.persistence = on;
        }
        if let Some(on) = get(map, "mig").and_then(|node| self.flag(node)) {
            card.mig = on;
        }
        for node in get(map, "functions").map_or(&[][..], |node| self.list(node)) {
            let words = ["audio", "usb", "ucsi"].into_iter();
            card.functions
                .extend(self.one_of(node, "function of a card", words));
        }
        if let Some(node) = get(map, "iommu_group") {
            match node.value {
                Value::Int(group @ 0..=9999) => card.iommu_group = u32::try_from(group).ok(),
                _ => self.error(
                    "`iommu_group` must be an integer from 0 to 9999",
                    &node.origin,
                ),
            }
        }
        if let Some(on) = get(map, "guc").and_then(|node| self.flag(node)) {
            card.guc = on;
        }
        if let Some(node) = get(map, "reset") {
            match self
                .one_of(
                    node,
                    "way to reset",
                    ["works", "refused", "unsupported"].into_iter(),
                )
                .as_deref()
            {
                Some("refused") => card.reset = Reset::Refused,
                Some("unsupported") => card.reset = Reset::Unsupported,
                _ => {}
            }
        }
        Some(card)
    }

    fn holder(&mut self, node: &Node, index: usize, cards: u32) -> Option<HolderSpec> {
        let map = self.map(node, "an entry of `in_use`", &HOLDER_KEYS)?;
        let mut holder = HolderSpec {
            gpu: 0,
            pid: FIRST_PID.saturating_add(u32::try_from(index).unwrap_or(0)),
            command: "python3".to_owned(),
            unit: None,
            compute: true,
            node: get(map, "node").and_then(|node| self.text(node)),
        };
        if let Some(node) = get(map, "gpu") {
            match node.value {
                Value::Int(gpu) if gpu >= 0 && gpu < i64::from(cards) => {
                    holder.gpu = u32::try_from(gpu).unwrap_or(0);
                }
                _ => self.error(
                    &format!("`gpu` must be the index of one of the {cards} cards"),
                    &node.origin,
                ),
            }
        }
        if let Some(node) = get(map, "pid") {
            match node.value {
                Value::Int(pid) if pid >= i64::from(FIRST_PID) && pid < i64::from(u32::MAX) => {
                    holder.pid = u32::try_from(pid).unwrap_or(holder.pid);
                }
                _ => self.error(
                    &format!("`pid` must be at least {FIRST_PID}, which no real process can have"),
                    &node.origin,
                ),
            }
        }
        if let Some(text) = get(map, "command").and_then(|node| self.text(node)) {
            holder.command = text;
        }
        holder.unit = get(map, "unit").and_then(|node| self.text(node));
        if let Some(on) = get(map, "compute").and_then(|node| self.flag(node)) {
            holder.compute = on;
        }
        Some(holder)
    }

    pub(super) fn product(&mut self, key: &str, origin: &Origin) -> Option<String> {
        let mut known = product::keys();
        let further = self.further.clone();
        known.extend(further.iter().map(String::as_str));
        if let Some(found) = known.iter().find(|known| known.eq_ignore_ascii_case(key)) {
            return Some((*found).to_owned());
        }
        let diagnostic = Diagnostic::error(format!("no card `{key}` can be simulated")).at(origin);
        let guessed = diagnostic.clone().did_you_mean(key, known.iter().copied());
        self.problems.push(if guessed.hint.is_some() {
            guessed
        } else {
            diagnostic.hint(format!("there are: {}", known.join(", ")))
        });
        None
    }

    fn driver(&mut self, node: &Node) -> Option<String> {
        if matches!(node.value, Value::Null | Value::Bool(false)) {
            return None;
        }
        // 595.80 without quotes is a number in YAML.
        let text = match &node.value {
            Value::Float(number) => number.to_string(),
            _ => self.text(node)?,
        };
        let branch = text
            .split('.')
            .next()
            .and_then(|part| part.parse::<u32>().ok());
        if !matches!(branch, Some(450..)) {
            self.error(
                "`driver` must be a version of 450 or later, such as \"590.48.01\"",
                &node.origin,
            );
        }
        Some(text)
    }

    fn one_of<'k>(
        &mut self,
        node: &Node,
        what: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Option<String> {
        let text = self.text(node)?;
        if known.clone().any(|key| key == text) {
            return Some(text);
        }
        let list: Vec<&str> = known.clone().collect();
        let diagnostic =
            Diagnostic::error(format!("no {what} `{text}` can be simulated")).at(&node.origin);
        let guessed = diagnostic.clone().did_you_mean(&text, known);
        self.problems.push(if guessed.hint.is_some() {
            guessed
        } else {
            diagnostic.hint(format!("there are: {}", list.join(", ")))
        });
        None
    }

    pub(super) fn map<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> Option<&'n Map> {
        let Some(map) = node.as_map() else {
            self.error(
                &format!("{what} must be a mapping, not {}", node.kind()),
                &node.origin,
            );
            return None;
        };
        for (key, entry) in map {
            if !known.contains(&key.as_str()) {
                let unknown = Diagnostic::error(format!("unknown key `{key}` in {what}"));
                self.problems.push(
                    unknown
                        .at(&entry.key)
                        .did_you_mean(key, known.iter().copied()),
                );
            }
        }
        Some(map)
    }

    fn list<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        node.as_seq().unwrap_or_else(|| {
            self.error(
                &format!("must be a list, not {}", node.kind()),
                &node.origin,
            );
            &[]
        })
    }

    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        let text = node.as_str().map(str::to_owned);
        if text.is_none() {
            self.error(
                &format!("must be a string, not {}", node.kind()),
                &node.origin,
            );
        }
        text
    }

    fn flag(&mut self, node: &Node) -> Option<bool> {
        if let Value::Bool(on) = node.value {
            return Some(on);
        }
        self.error(
            &format!("must be a boolean, not {}", node.kind()),
            &node.origin,
        );
        None
    }

    pub(super) fn error(&mut self, message: &str, origin: &Origin) {
        self.problems.push(Diagnostic::error(message).at(origin));
    }
}

impl CardSpec {
    fn of(product: String) -> Self {
        Self {
            product,
            count: 1,
            name: None,
            pci: Vec::new(),
            persistence: true,
            reset: Reset::Works,
            mig: false,
            guc: true,
            functions: Vec::new(),
            iommu_group: None,
        }
    }

    /// Whether the card is one of NVIDIA's.
    pub(super) fn is_nvidia(&self) -> bool {
        !BARE_CARDS.iter().any(|card| card.key == self.product)
    }
}

pub(super) fn get<'n>(map: &'n Map, key: &str) -> Option<&'n Node> {
    map.get(key).map(|entry| &entry.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vars(sim: serde_json::Value) -> Vars {
        let origin = Origin::whole("hosts.yml", "sim");
        let mut vars = Vars::new();
        vars.insert("sim".to_owned(), Node::from_json(&sim, &origin));
        vars
    }

    #[test]
    fn a_machine_is_read_with_defaults() {
        let (spec, problems) = read(&vars(
            json!({"gpus": [{"product": "H100-80GB", "count": 8}, "L40S"]}),
        ));
        assert_eq!(problems, Problems::default());
        assert_eq!(spec.driver.as_deref(), Some("590.48.01"));
        assert_eq!(spec.gpus[0].count, 8);
        assert_eq!(spec.gpus[1].product, "L40S");
    }

    #[test]
    fn typos_are_pointed_at_with_the_nearest_name() {
        let (_, problems) = read(&vars(json!({
            "gpu": [], "os": "ubuntu-24.40",
            "gpus": [{"product": "H100-80G"}, {"product": "L40S", "count": 0}],
            "in_use": [{"gpu": 9, "pid": 1}],
        })));
        let texts: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 6, "{texts:#?}");
        assert!(
            texts
                .iter()
                .any(|text| text.contains("`H100-80G`") && text.contains("`H100-80GB`")),
            "{texts:#?}"
        );
        assert!(
            texts
                .iter()
                .any(|text| text.contains("`gpu`") && text.contains("`gpus`")),
            "{texts:#?}"
        );
    }
}

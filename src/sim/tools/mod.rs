//! Stand-ins for the programs of a simulated machine.
//!
//! A machine's `usr/bin` holds links to this binary under the tools' names;
//! `dispatch` looks at the name it was called by. Every stand-in works on the
//! machine's folder alone and gives back text and an exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::machine::Host;
use super::{confine, units};

mod amd;
mod binding;
mod boot_loader;
mod containerd;
mod containers;
mod exporters;
mod gridd;
mod hardware;
mod journalctl;
mod kubectl;
mod lspci;
mod modules;
mod mps;
mod nvidia;
mod ownership;
mod power;
mod selinux;
mod small;
mod sockets;
mod sriov_manage;
mod stat;
mod sysfs;
mod systemctl;
mod systemd_run;
mod tee;
mod xpu_smi;

pub(super) use boot_loader::{own_tools as boot_loader_tools, set_up as set_up_boot_loader};
pub(super) use exporters::{has_quadlet, runs as container_runs};
pub(super) use modules::{load_module, modules_to_load, register_vfio, write_modules};
pub(super) use power::boot_hardware;
pub(super) use selinux::set_up as set_up_selinux;
pub(super) use sockets::{forget_ended as forget_ended_sockets, forget_locked as forget_sockets};
pub(super) use sysfs::put_num_vfs;

/// Environment variable that holds the folder of the machine a tool runs on.
pub(super) const ROOT_VARIABLE: &str = "DEPLOY_SIM_ROOT";

/// What a tool printed and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: i32,
}

impl Outcome {
    /// Standard output and status.
    pub(super) fn out(text: impl Into<Vec<u8>>, status: i32) -> Self {
        Self {
            stdout: text.into(),
            stderr: Vec::new(),
            status,
        }
    }

    /// Standard error and status.
    pub(super) fn err(text: impl Into<Vec<u8>>, status: i32) -> Self {
        Self {
            stdout: Vec::new(),
            stderr: text.into(),
            status,
        }
    }

    /// Nothing to say, all well.
    pub(super) fn silent() -> Self {
        Self::default()
    }
}

/// One call of a tool.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The machine.
    pub(super) host: &'a Host,
    /// The name it was called by.
    pub(super) name: &'a str,
    /// Arguments.
    pub(super) args: &'a [String],
}

impl Call<'_> {
    /// Whether one of the arguments is `word`.
    pub(super) fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }
}

type Tool = fn(&Call<'_>) -> io::Result<Outcome>;

/// Tools by name. Those of NVIDIA come with its driver.
const TOOLS: &[(&str, Tool)] = &[
    ("nvidia-smi", nvidia::run),
    (mps::NAME, mps::run),
    ("nvidia-ctk", nvidia::ctk::run),
    ("podman", containers::run),
    ("crun", containers::run),
    ("runc", containers::run),
    ("dockerd", containers::run),
    ("containerd", containerd::run),
    ("xpu-smi", xpu_smi::run),
    ("amd-smi", amd::amd_smi),
    ("rocm-smi", amd::rocm_smi),
    ("lspci", lspci::run),
    ("kubectl", kubectl::run),
    ("systemctl", systemctl::run),
    ("systemd-run", systemd_run::run),
    ("journalctl", journalctl::run),
    ("modprobe", modules::modprobe),
    ("rmmod", modules::rmmod),
    ("lsmod", modules::lsmod),
    ("tee", tee::run),
    ("stat", stat::run),
    ("chown", ownership::chown),
    ("chgrp", ownership::chgrp),
    ("id", small::id),
    ("whoami", small::whoami),
    ("uname", small::uname),
    ("hostname", small::hostname),
    ("sudo", small::sudo),
    ("reboot", power::reboot),
    ("shutdown", power::reboot),
    ("poweroff", small::refuse),
    ("halt", small::refuse),
    ("mount", small::refuse),
    ("umount", small::refuse),
    ("insmod", small::refuse),
    ("sysctl", small::sysctl),
    ("curl", exporters::curl),
    ("getsebool", selinux::get),
    ("setsebool", selinux::set),
];

/// Programs that only some machines have, by name; `host` says which and where.
const OWN_TOOLS: &[(&str, Tool)] = &[
    ("sriov-manage", sriov_manage::run),
    ("nvidia-gridd", gridd::run),
    ("dcgm-exporter", exporters::dcgm),
    ("amd-metrics-exporter", exporters::amd),
    ("gunicorn", exporters::gunicorn),
    ("update-grub", boot_loader::update_grub),
    ("grubby", boot_loader::grubby),
    ("kernel-install", boot_loader::kernel_install),
    ("proxmox-boot-tool", boot_loader::proxmox),
    ("update-initramfs", boot_loader::initramfs),
    ("dracut", boot_loader::initramfs),
];

/// The names under which a machine's `usr/bin` links to this binary. All
/// machines have all of them: one that is not installed says so itself, since
/// otherwise the control machine's own would be found further down the path.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|tool| tool.0)
}

/// Runs as a tool of a simulated machine if the name we were called by is one
/// of them, and gives back the exit status.
#[must_use]
pub fn dispatch(argv: &[OsString]) -> Option<i32> {
    let called = Path::new(argv.first()?).file_name()?.to_str()?;
    if called == confine::SHELL_NAME {
        return Some(confine::run(&argv[1..]));
    }
    if called == units::KEEPER_NAME {
        return Some(units::keep(&argv[1..]));
    }
    if called == units::PROGRAM_NAME {
        return Some(units::become_program(&argv[1..]));
    }
    let hardware: (&str, Tool) = (hardware::NAME, |call| hardware::run(call.host));
    let tool = TOOLS
        .iter()
        .chain(OWN_TOOLS)
        .chain([&hardware])
        .find(|tool| tool.0 == called)?;
    let root = PathBuf::from(std::env::var_os(ROOT_VARIABLE)?);
    let host = Host::new(root);
    if called != "tee" {
        // A full disk is the host's, not that of what plays the host.
        let _ = super::fault::lift_file_size_limit();
    }
    let args: Vec<String> = argv[1..]
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let call = Call {
        host: &host,
        name: called,
        args: &args,
    };
    let outcome =
        tool.1(&call).unwrap_or_else(|error| Outcome::err(format!("{called}: {error}\n"), 1));
    // A reader that went away is no failure of the tool's.
    let _ = io::stdout().write_all(&outcome.stdout);
    let _ = io::stdout().flush();
    let _ = io::stderr().write_all(&outcome.stderr);
    Some(outcome.status)
}

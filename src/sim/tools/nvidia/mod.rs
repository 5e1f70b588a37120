//! `nvidia-smi`, as captures of versions 450 to 610 show it.
//!
//! This file owns the command line, the choice of cards and the exit codes;
//! the files beside it own one topic each.

use std::io;

use crate::sim::fault;
use crate::sim::machine::{Gpu, Host, Machine};
use crate::sim::tools::{Call, Outcome, binding};

pub(super) mod ctk;
mod full;
#[cfg(test)]
mod golden;
mod list;
mod mig;
mod mode;
mod placement;
mod query;
mod rows;
mod summary;
mod trouble;
mod vgpu;

/// Exit codes of the tool's man page.
pub(super) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 2;
    pub(crate) const NOT_SUPPORTED: i32 = 3;
    pub(crate) const NOT_FOUND: i32 = 6;
    pub(crate) const NO_DRIVER: i32 = 9;
    pub(crate) const OTHER: i32 = 255;
}

/// What a call prints, and its exit code.
#[derive(Debug, Default)]
pub(super) struct Answer {
    text: String,
    status: i32,
}

impl Answer {
    fn new(text: impl Into<String>, status: i32) -> Self {
        Self {
            text: text.into(),
            status,
        }
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn fail(&mut self, status: i32) {
        if self.status == 0 {
            self.status = status;
        }
    }
}

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let mut machine = match call.host.load() {
        Ok(machine) if machine.spec.driver.is_some() => machine,
        // The package is not installed: what the shell would have said.
        _ => return Ok(Outcome::err("sh: 1: nvidia-smi: not found\n", 127)),
    };
    if !call.host.path("/sys/module/nvidia").exists() || machine.gpus.is_empty() {
        let text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. \
                    Make sure that the latest NVIDIA driver is installed and running.\n\n";
        return Ok(Outcome::out(text, code::NO_DRIVER));
    }
    let faults = fault::faults(call.host).nvidia;
    let args = trouble::understood(&faults, call.args);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(refused) = trouble::refused(&faults, &args) {
        return Ok(Outcome::out(refused.text, refused.status));
    }
    let answer = if changes(&args) {
        let lock = call.host.lock()?;
        // Read again: somebody may have changed it before we had the lock.
        machine = call.host.load()?;
        let answer = trouble::changed(call.host, &faults, &mut machine, &args)?;
        call.host.save(&machine, &lock)?;
        crate::sim::host::write_capabilities(call.host, &machine)?;
        crate::sim::vgpu::show(call.host, &machine)?;
        answer
    } else {
        trouble::looked_at(call.host, &faults, &mut machine, &args)
    };
    let text = trouble::said(&faults, answer.text);
    Ok(Outcome::out(text, answer.status))
}

/// What the tool says of those cards that the driver has: it sees no others, and numbers these.
fn answer_bound(host: &Host, machine: &mut Machine, args: &[&str]) -> Answer {
    let bound: Vec<bool> = machine
        .gpus
        .iter()
        .map(|gpu| binding::has_nvidia(host, &gpu.pci))
        .collect();
    if bound.iter().all(|bound| *bound) {
        return answer(machine, args);
    }
    if !bound.contains(&true) {
        return Answer::new("No devices were found\n", code::NOT_FOUND);
    }
    let holders = machine.holders.clone();
    for holder in &mut machine.holders {
        let index = holder.gpu as usize;
        let hidden = bound.iter().take(index).filter(|bound| !**bound).count();
        holder.gpu -= u32::try_from(hidden).unwrap_or(0);
    }
    let all = std::mem::take(&mut machine.gpus);
    let (seen, hidden): (Vec<_>, Vec<_>) =
        all.into_iter().zip(bound).partition(|(_, bound)| *bound);
    machine.gpus = seen.into_iter().map(|(gpu, _)| gpu).collect();
    let answer = answer(machine, args);
    machine.gpus.extend(hidden.into_iter().map(|(gpu, _)| gpu));
    machine.gpus.sort_by(|one, other| one.pci.cmp(&other.pci));
    machine.holders = holders;
    answer
}

/// Whether a call can change the cards.
fn changes(args: &[&str]) -> bool {
    const CHANGING: [&str; 16] = [
        "-shm",
        "--set-vgpu-heterogeneous-mode",
        "-mig",
        "--multi-instance-gpu",
        "-pm",
        "--persistence-mode",
        "-c",
        "--compute-mode",
        "-r",
        "--gpu-reset",
        "-cgi",
        "-cci",
        "-dci",
        "-dgi",
        "--set-timeslice",
        "--create-gpu-instance",
    ];
    args.iter().any(|arg| {
        let name = arg.split('=').next().unwrap_or(arg);
        CHANGING.contains(&name) || name.starts_with("--create-") || name.starts_with("--destroy-")
    })
}

/// What the tool says to `args` on `machine`, and what it does to it.
pub(super) fn answer(machine: &mut Machine, args: &[&str]) -> Answer {
    match args.split_first() {
        Some((&"mig", rest)) => mig::run(machine, rest),
        Some((&"vgpu", rest)) => vgpu::run(machine, rest),
        Some((&"compute-policy", rest)) => mode::compute_policy(machine, rest),
        Some((&"nvlink", rest)) => list::nvlink(machine, rest),
        _ => options(machine, args),
    }
}

/// The options of the plain form.
#[derive(Debug, Default)]
struct Options {
    id: Option<String>,
    action: Option<Action>,
    format: String,
    xml: bool,
    error_on_warning: bool,
}

#[derive(Debug)]
enum Action {
    List,
    Query,
    QueryGpu(String),
    QueryApps(String),
    HelpQueryGpu,
    Mig(String),
    Persistence(String),
    ComputeMode(String),
    Reset,
    Version,
    Help,
}

fn options(machine: &mut Machine, args: &[&str]) -> Answer {
    let Some(options) = parse(args) else {
        return invalid_combination();
    };
    let selected = match select(machine, options.id.as_deref()) {
        Ok(selected) => selected,
        Err(answer) => return answer,
    };
    match &options.action {
        None => Answer::new(summary::print(machine, &selected), 0),
        Some(Action::List) => Answer::new(list::print(machine, &selected), 0),
        Some(Action::Query) if options.xml => Answer::new(full::xml(machine, &selected), 0),
        Some(Action::Query) => Answer::new(full::text(machine, &selected), 0),
        Some(Action::QueryGpu(fields)) => query::gpus(machine, &selected, fields, &options.format),
        Some(Action::QueryApps(fields)) => query::apps(machine, &selected, fields, &options.format),
        Some(Action::HelpQueryGpu) => Answer::new(query::help(), 0),
        Some(Action::Mig(value)) => mode::mig(machine, &selected, value, options.error_on_warning),
        Some(Action::Persistence(value)) => mode::persistence(machine, &selected, value),
        Some(Action::ComputeMode(value)) => mode::compute_mode(machine, &selected, value),
        Some(Action::Reset) => mode::reset(machine, &selected),
        Some(Action::Version) => Answer::new(list::version(machine), 0),
        Some(Action::Help) => Answer::new(list::help(machine), 0),
    }
}

fn parse(args: &[&str]) -> Option<Options> {
    let mut options = Options::default();
    let mut rest = args.iter().copied();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = || inline.clone().or_else(|| rest.next().map(str::to_owned));
        let action = match name {
            "-i" | "--id" => {
                options.id = Some(value()?);
                continue;
            }
            "--format" => {
                options.format = value()?;
                continue;
            }
            "-d" | "--display" => {
                // Which sections: all are printed.
                value()?;
                continue;
            }
            "-x" | "--xml-format" => {
                options.xml = true;
                continue;
            }
            "-eow" | "--error-on-warning" => {
                options.error_on_warning = true;
                continue;
            }
            // `bus` after `-r` asks for another kind of reset with the same effect.
            "bus" if matches!(options.action, Some(Action::Reset)) => continue,
            "-L" | "--list-gpus" => Action::List,
            "-q" | "--query" => Action::Query,
            "--query-gpu" => Action::QueryGpu(value()?),
            "--query-compute-apps" => Action::QueryApps(value()?),
            "--help-query-gpu" => Action::HelpQueryGpu,
            "-mig" | "--multi-instance-gpu" => Action::Mig(value()?),
            "-pm" | "--persistence-mode" => Action::Persistence(value()?),
            "-c" | "--compute-mode" => Action::ComputeMode(value()?),
            "-r" | "--gpu-reset" => Action::Reset,
            "--version" => Action::Version,
            "-h" | "--help" => Action::Help,
            _ => return None,
        };
        if options.action.is_some() {
            return None;
        }
        options.action = Some(action);
    }
    Some(options)
}

fn invalid_combination() -> Answer {
    Answer::new(
        "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n",
        code::INVALID_ARGUMENT,
    )
}

/// The cards that `-i` means: a list of indexes, PCI bus ids or UUIDs; all without it.
fn select(machine: &Machine, id: Option<&str>) -> Result<Vec<usize>, Answer> {
    let Some(list) = id else {
        return Ok((0..machine.gpus.len()).collect());
    };
    let mut selected = Vec::new();
    for item in list.split(',') {
        let found = machine
            .gpus
            .iter()
            .enumerate()
            .position(|(index, gpu)| names(gpu, index, item));
        match found {
            Some(index) if !selected.contains(&index) => selected.push(index),
            Some(_) => {}
            None => return Err(Answer::new("No devices were found\n", code::NOT_FOUND)),
        }
    }
    selected.sort_unstable();
    Ok(selected)
}

fn names(gpu: &Gpu, index: usize, item: &str) -> bool {
    if item.parse() == Ok(index) || item.eq_ignore_ascii_case(&gpu.uuid) {
        return true;
    }
    let address = item.parse::<crate::facts::PciAddress>();
    address.is_ok() && address == gpu.pci.parse()
}

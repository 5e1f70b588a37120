//! What changes a whole card: MIG mode, reset, persistence, compute mode and
//! the time slice.

use crate::sim::machine::Machine;
use crate::sim::product::Product;
use crate::sim::spec::Reset;

use super::{Answer, code};

const IN_USE: &str = "In use by another client";

fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_uppercase().as_str() {
        "0" | "DISABLED" => Some(false),
        "1" | "ENABLED" => Some(true),
        _ => None,
    }
}

fn invalid(option: &str, value: &str) -> Answer {
    let text = format!(
        "Option {option} has invalid value \"{value}\". Please run 'nvidia-smi -h' for help.\n\n"
    );
    Answer::new(text, code::INVALID_ARGUMENT)
}

/// `-mig 0|1`. Cards of the GA100 family keep the mode in their InfoROM and
/// need a reset; the driver does it itself if nobody has the card open. Later
/// cards change at once or refuse.
pub(super) fn mig(
    machine: &mut Machine,
    selected: &[usize],
    value: &str,
    error_on_warning: bool,
) -> Answer {
    let Some(on) = switch(value) else {
        return invalid("-mig", value);
    };
    let word = if on { "enable" } else { "disable" };
    let mut answer = Answer::default();
    let mut changed = Vec::new();
    let mut warned = false;
    for &index in selected {
        let bus = machine.gpus[index].bus_id();
        let in_use = machine.is_held(index);
        let alone = machine.resets_all && machine.gpus.len() > 1;
        let product = machine.product(&machine.gpus[index]);
        let Some(sticky) = product
            .filter(|product| product.has_mig())
            .map(Product::mode_is_sticky)
        else {
            answer.line(format!(
                "Unable to {word} MIG Mode for GPU {bus}: Not Supported"
            ));
            answer.line("Treating as warning and moving on.");
            warned = true;
            continue;
        };
        let gpu = &mut machine.gpus[index];
        let same = gpu.mig == on;
        if sticky {
            gpu.mig_pending = on;
            let reason = match gpu.reset {
                Reset::Unsupported => Some("Not Supported"),
                // The driver resets the card by itself, if it may.
                _ if in_use || alone => Some(IN_USE),
                _ => None,
            };
            match reason.filter(|_| !same) {
                Some(reason) => {
                    warned = true;
                    answer.line(format!(
                        "Warning: MIG mode is in pending {word} state for GPU {bus}:{reason}"
                    ));
                    answer.line(if reason == IN_USE {
                        format!(
                            "{bus} is currently being used by one or more other processes (e.g. CUDA application or a \
                             monitoring application such as another instance of nvidia-smi). Please first kill all \
                             processes using the device and retry the command or reboot the system to make MIG mode effective."
                        )
                    } else {
                        format!("Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on GPU {bus}")
                    });
                    continue;
                }
                // The driver resets the card, and instances go with it.
                None if !same => gpu.instances.clear(),
                None => {}
            }
        } else if !same && (in_use || !gpu.instances.is_empty()) {
            answer.line(format!("Unable to {word} MIG Mode for GPU {bus}: {IN_USE}"));
            answer.line("Terminating early due to previous errors.");
            answer.fail(code::OTHER);
            return answer;
        }
        gpu.mig = on;
        gpu.mig_pending = on;
        answer.line(format!(
            "{}d MIG Mode for GPU {bus}",
            if on { "Enable" } else { "Disable" }
        ));
        changed.push((bus, gpu.persistence));
    }
    let without: Vec<&String> = changed
        .iter()
        .filter(|(_, persistent)| !persistent)
        .map(|(bus, _)| bus)
        .collect();
    if !without.is_empty() {
        answer.line("");
    }
    for bus in without {
        answer.line(format!(
            "Warning: persistence mode is disabled on device {bus}. See the Known Issues section of the nvidia-smi(1) \
             man page for more information. Run with [--help | -h] switch to get more information on how to enable \
             persistence mode."
        ));
    }
    answer.line("All done.");
    if warned && error_on_warning {
        answer.fail(code::OTHER);
    }
    answer
}

/// `-r`. All or nothing: one card that is in use keeps all of them from being reset.
pub(super) fn reset(machine: &mut Machine, selected: &[usize]) -> Answer {
    let mut answer = Answer::default();
    let guests: Vec<usize> = selected
        .iter()
        .copied()
        .filter(|index| machine.gpus[*index].reset == Reset::Unsupported)
        .collect();
    if !guests.is_empty() {
        for index in guests {
            answer.line(format!(
                "Resetting GPU {} is not supported.",
                machine.gpus[index].bus_id()
            ));
        }
        answer.fail(code::NOT_SUPPORTED);
        return answer;
    }
    // Without the fabric manager the cards of a board with NVSwitches go together or not at all,
    // up to Ampere.
    let sticky = |index: &usize| {
        let product = machine.product(&machine.gpus[*index]);
        product.is_some_and(Product::mode_is_sticky)
    };
    let alone = machine.resets_all && selected.len() < machine.gpus.len();
    let in_use: Vec<usize> = selected
        .iter()
        .copied()
        .filter(|index| {
            machine.is_held(*index)
                || machine.gpus[*index].reset == Reset::Refused
                || (alone && sticky(index))
        })
        .collect();
    if !in_use.is_empty() {
        answer.line("The following GPUs could not be reset:");
        for index in &in_use {
            answer.line(format!("  GPU {}: {IN_USE}", machine.gpus[*index].bus_id()));
        }
        answer.line("");
        let (are, these) = if in_use.len() == 1 {
            ("device is", "this device")
        } else {
            ("devices are", "these devices")
        };
        answer.line(format!(
            "{} {are} currently being used by one or more other processes (e.g., Fabric Manager, CUDA application, \
             graphics application such as an X server, or a monitoring application such as another instance of \
             nvidia-smi). Please first kill all processes using {these} and all compute applications running in the system.",
            in_use.len()
        ));
        answer.fail(code::OTHER);
        return answer;
    }
    for &index in selected {
        let gpu = &mut machine.gpus[index];
        gpu.instances.clear();
        gpu.mig = gpu.mig_pending;
        answer.line(format!("GPU {} was successfully reset.", gpu.bus_id()));
    }
    answer.line("All done.");
    answer
}

/// `-pm 0|1`.
pub(super) fn persistence(machine: &mut Machine, selected: &[usize], value: &str) -> Answer {
    let Some(on) = switch(value) else {
        return invalid("-pm", value);
    };
    let word = if on { "Enabled" } else { "Disabled" };
    let mut answer = Answer::default();
    for &index in selected {
        let gpu = &mut machine.gpus[index];
        let bus = gpu.bus_id();
        if gpu.persistence == on {
            answer.line(format!("Persistence mode is already {word} for GPU {bus}."));
        } else {
            gpu.persistence = on;
            answer.line(format!("{word} persistence mode for GPU {bus}."));
        }
    }
    answer.line("All done.");
    answer
}

/// Compute modes as `-q` and `--query-gpu` name them.
pub(super) const COMPUTE_MODES: [&str; 4] = [
    "Default",
    "Exclusive_Thread",
    "Prohibited",
    "Exclusive_Process",
];

/// `-c 0..3`.
pub(super) fn compute_mode(machine: &mut Machine, selected: &[usize], value: &str) -> Answer {
    let upper = value.to_ascii_uppercase();
    let known = COMPUTE_MODES
        .iter()
        .position(|mode| mode.to_ascii_uppercase() == upper);
    let Some(mode) = known.or_else(|| value.parse().ok().filter(|mode| *mode < 4)) else {
        return invalid("-c", value);
    };
    let word = COMPUTE_MODES[mode].to_ascii_uppercase();
    let mut answer = Answer::default();
    for &index in selected {
        let gpu = &mut machine.gpus[index];
        let bus = gpu.bus_id();
        if gpu.mig && mode != 0 {
            answer.line(format!(
                "Setting compute mode to {word} is not supported on a MIG-enabled device."
            ));
            answer.line(format!(
                "Unable to set the compute mode for GPU {bus}: Not Supported"
            ));
            answer.line("Treating as warning and moving on.");
            continue;
        }
        let mode = u8::try_from(mode).unwrap_or(0);
        if gpu.compute_mode == mode {
            answer.line(format!(
                "Compute mode is already set to {word} for GPU {bus}."
            ));
        } else {
            gpu.compute_mode = mode;
            answer.line(format!("Set compute mode to {word} for GPU {bus}."));
        }
    }
    answer.line("All done.");
    answer
}

/// Time slices by number.
const TIMESLICES: [&str; 4] = ["Default", "Short", "Medium", "Long"];

/// `compute-policy`. No capture of its listing or of its messages is known:
/// numbers and names are the documented ones, the layout is the one that the
/// tool's other two-column tables have.
pub(super) fn compute_policy(machine: &mut Machine, args: &[&str]) -> Answer {
    let mut id = None;
    let mut list = false;
    let mut wanted = None;
    let mut rest = args.iter().copied();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        match name {
            "-i" | "--id" => id = inline.or_else(|| rest.next()),
            "-l" | "--list" => list = true,
            "--set-timeslice" => wanted = inline.or_else(|| rest.next()),
            _ => {
                return Answer::new(
                    "Invalid combination of input arguments. Please run 'nvidia-smi compute-policy -h' for help.\n\n",
                    code::INVALID_ARGUMENT,
                );
            }
        }
    }
    let selected = match super::select(machine, id) {
        Ok(selected) => selected,
        Err(answer) => return answer,
    };
    let mut answer = Answer::default();
    if let Some(value) = wanted {
        let by_name = TIMESLICES
            .iter()
            .position(|name| name.eq_ignore_ascii_case(value));
        let Some(slice) = by_name.or_else(|| value.parse().ok().filter(|slice| *slice < 4)) else {
            return invalid("--set-timeslice", value);
        };
        for &index in &selected {
            let gpu = &mut machine.gpus[index];
            gpu.timeslice = u8::try_from(slice).unwrap_or(0);
            answer.line(format!(
                "Successfully set timeslice to {} for GPU {}.",
                TIMESLICES[slice].to_uppercase(),
                gpu.bus_id()
            ));
        }
        return answer;
    }
    if list {
        answer.line("+-------------------------------------+");
        answer.line("| GPU compute policies:               |");
        answer.line("| GPU     Name             Value      |");
        answer.line("|=====================================|");
        for &index in &selected {
            let slice = TIMESLICES[usize::from(machine.gpus[index].timeslice.min(3))];
            answer.line(format!("|{index:>4}     Timeslice        {slice:<11}|"));
            answer.line("+-------------------------------------+");
        }
        return answer;
    }
    Answer::new(
        "Option is missing. Please run 'nvidia-smi compute-policy -h' for help.\n\n",
        code::INVALID_ARGUMENT,
    )
}

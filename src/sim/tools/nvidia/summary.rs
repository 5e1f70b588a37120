//! The table that the tool prints without arguments. It changed its form with
//! the 530, 550 and 590 branches.

use crate::sim::machine::{Gpu, Machine};
use crate::sim::product::Product;

use super::full::{compute_sm, now};
use super::list::{Device, cuda, devices, gpu_name};
use super::query::{bar1_mib, instance_used, used_mib};

/// What differs between the forms.
struct Form {
    /// Inner widths of the three columns of the table of cards.
    columns: [usize; 3],
    /// Columns of the longest name.
    name: usize,
    /// Whether the head of the cards is ruled off with `+`.
    plus: bool,
    /// Inner width of the memory column of the table of MIG devices.
    memory: usize,
    /// Heads of the table of cards and of MIG devices, and of processes.
    heads: [&'static str; 7],
    /// What stands between the tables.
    gap: &'static str,
}

const OLD: Form = Form {
    columns: [31, 22, 22],
    name: 18,
    plus: false,
    memory: 22,
    heads: [
        " GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC ",
        " Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. ",
        " GPU  GI  CI  MIG |         Memory-Usage |        Vol|         Shared        ",
        "      ID  ID  Dev |           BAR1-Usage | SM     Unc| CE  ENC  DEC  OFA  JPG",
        "                  |                      |        ECC|                       ",
        "  GPU   GI   CI        PID   Type   Process name                  GPU Memory ",
        "        ID   ID                                                   Usage      ",
    ],
    gap: " ",
};

const MIDDLE: Form = Form {
    columns: [41, 22, 22],
    name: 27,
    plus: false,
    memory: 32,
    heads: [
        " GPU  Name                 Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC ",
        " Fan  Temp   Perf          Pwr:Usage/Cap |         Memory-Usage | GPU-Util  Compute M. ",
        " GPU  GI  CI  MIG |                   Memory-Usage |        Vol|      Shared           ",
        "      ID  ID  Dev |                     BAR1-Usage | SM     Unc| CE ENC DEC OFA JPG    ",
        "                  |                                |        ECC|                       ",
        "  GPU   GI   CI        PID   Type   Process name                            GPU Memory ",
        "        ID   ID                                                             Usage      ",
    ],
    gap: " ",
};

const NEW: Form = Form {
    columns: [41, 24, 22],
    name: 27,
    plus: false,
    memory: 34,
    heads: [
        " GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC ",
        " Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. ",
        " GPU  GI  CI  MIG |                     Memory-Usage |        Vol|        Shared         ",
        "      ID  ID  Dev |                       BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG ",
        "                  |                                  |        ECC|                       ",
        "  GPU   GI   CI        PID   Type   Process name                              GPU Memory ",
        "        ID   ID                                                               Usage      ",
    ],
    gap: "",
};

const NEWEST: Form = Form {
    plus: true,
    heads: [
        NEW.heads[0],
        NEW.heads[1],
        " GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         ",
        "      ID  ID  Dev |                Shared BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG ",
        NEW.heads[4],
        "  GPU   GI   CI              PID   Type   Process name                        GPU Memory ",
        NEW.heads[6],
    ],
    ..NEW
};

impl Form {
    fn of(branch: u32) -> &'static Self {
        match branch {
            ..530 => &OLD,
            530..550 => &MIDDLE,
            550..590 => &NEW,
            _ => &NEWEST,
        }
    }

    fn width(&self) -> usize {
        self.columns.iter().sum::<usize>() + 2
    }

    fn is_old(&self) -> bool {
        self.columns[0] == OLD.columns[0]
    }
}

/// The table for the chosen cards.
pub(super) fn print(machine: &Machine, selected: &[usize]) -> String {
    let form = Form::of(machine.branch());
    let driver = machine.spec.driver.as_deref().unwrap_or_default();
    let width = form.width();
    let mut text = format!("{}       \n+{}+\n", now(), "-".repeat(width));
    let cuda = cuda(machine.branch());
    let title = if form.is_old() {
        format!(" NVIDIA-SMI {driver:<13}Driver Version: {driver:<13}CUDA Version: {cuda}")
    } else if form.columns[1] == MIDDLE.columns[1] {
        format!(" NVIDIA-SMI {driver:<23}Driver Version: {driver:<13}CUDA Version: {cuda}")
    } else {
        format!(" NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {cuda}")
    };
    push(&mut text, form, &title);
    let rule = |fill: &str, edge: char| {
        let parts: Vec<String> = form
            .columns
            .iter()
            .map(|column| fill.repeat(*column))
            .collect();
        format!("{edge}{}{edge}\n", parts.join("+"))
    };
    let ruled = rule("-", '+');
    // Older forms begin this rule with a bar.
    text.push_str(&if form.plus {
        ruled
    } else {
        ruled.replacen('+', "|", 1)
    });
    push(&mut text, form, form.heads[0]);
    push(&mut text, form, form.heads[1]);
    let blank: Vec<String> = form.columns[..2]
        .iter()
        .map(|column| " ".repeat(*column))
        .collect();
    push(
        &mut text,
        form,
        &format!("{}|               MIG M. ", blank.join("|")),
    );
    text.push_str(&rule("=", '|'));
    for &index in selected {
        card(&mut text, form, machine, index);
        text.push_str(&rule("-", '+'));
    }
    mig_devices(&mut text, form, machine, selected);
    text.push_str(&form.gap.repeat(width + 2));
    text.push('\n');
    processes(&mut text, form, machine, selected);
    text
}

fn push(text: &mut String, form: &Form, line: &str) {
    text.push_str(&format!("|{line:<width$}|\n", width = form.width()));
}

fn card(text: &mut String, form: &Form, machine: &Machine, index: usize) {
    let gpu = &machine.gpus[index];
    let Some(product) = machine.product(gpu) else {
        return;
    };
    let bus = gpu.bus_id();
    let persistence = if gpu.persistence { "On " } else { "Off" };
    let ecc = match (gpu.mig, product.vga) {
        (true, _) => "On",
        (false, true) => "N/A",
        (false, false) => "0",
    };
    let mode = match (product.has_mig(), gpu.mig, gpu.mig_pending) {
        (false, _, _) => "N/A",
        (true, true, true) => "Enabled",
        (true, false, false) => "Disabled",
        // A mode that waits for a reset is shown as it will be, with a star.
        (true, false, true) => "Enabled*",
        (true, true, false) => "Disabled*",
    };
    let usage = if gpu.mig { "N/A" } else { "0%" };
    let memory = (used_mib(gpu), product.memory_mib);
    let power = product.power_w;
    let compute = match gpu.compute_mode {
        0 => "Default",
        1 => "E. Thread",
        2 => "Prohibited",
        _ => "E. Process",
    };
    let name = shortened(&gpu_name(machine, gpu), form.name);
    let watts = power / 10;
    if form.is_old() {
        push(
            text,
            form,
            &format!("{index:>4}  {name:<20}{persistence}  | {bus} Off | {ecc:>20} "),
        );
        let memory = format!("{:>7}MiB / {:>5}MiB ", memory.0, memory.1);
        push(
            text,
            form,
            &format!(
                " N/A   40C    P0  {watts:>4}W / {power:>3}W |{memory}| {usage:>7} {compute:>12} "
            ),
        );
    } else {
        let wide = form.columns[1] == NEW.columns[1];
        let indent = if wide { "  " } else { "" };
        push(
            text,
            form,
            &format!("{index:>4}  {name:<31}{persistence} | {indent}{bus} Off | {ecc:>20} "),
        );
        let memory = if wide {
            format!("{:>8}MiB / {:>6}MiB ", memory.0, memory.1)
        } else {
            format!("{:>7}MiB / {:>5}MiB ", memory.0, memory.1)
        };
        let limit = if wide {
            format!("{power:>4}W")
        } else {
            format!("{power:>3}W")
        };
        let drawn = format!("{watts}W / {limit}");
        push(
            text,
            form,
            &format!(" N/A   40C    P0  {drawn:>22} |{memory}| {usage:>7} {compute:>12} "),
        );
    }
    let blank: Vec<String> = form.columns[..2]
        .iter()
        .map(|column| " ".repeat(*column))
        .collect();
    push(text, form, &format!("{}| {mode:>20} ", blank.join("|")));
}

/// A name that is too long ends in an ellipsis.
fn shortened(name: &str, width: usize) -> String {
    if name.len() <= width {
        return name.to_owned();
    }
    let kept: String = name.chars().take(width - 3).collect();
    format!("{kept}...")
}

fn mig_devices(text: &mut String, form: &Form, machine: &Machine, selected: &[usize]) {
    let all: Vec<(usize, &Gpu, &Product)> = selected
        .iter()
        .filter_map(|index| {
            let gpu = &machine.gpus[*index];
            Some((*index, gpu, machine.product(gpu)?))
        })
        .filter(|(_, gpu, _)| gpu.mig)
        .collect();
    if all.is_empty() {
        return;
    }
    let columns = [18, form.memory, 11, 23];
    let rule = |fill: &str, edge: char| {
        let parts: Vec<String> = columns.iter().map(|column| fill.repeat(*column)).collect();
        format!("{edge}{}{edge}\n", parts.join("+"))
    };
    text.push_str(&format!("\n+{}+\n", "-".repeat(form.width())));
    push(text, form, " MIG devices:");
    text.push_str(&rule("-", '+'));
    for head in &form.heads[2..5] {
        push(text, form, head);
    }
    text.push_str(&rule("=", '|'));
    let mut any = false;
    for (index, gpu, product) in all {
        let list = devices(gpu, product);
        for (number, device) in list.iter().enumerate() {
            any = true;
            let same = |other: Option<&Device<'_>>| {
                other.is_some_and(|other| other.instance.id == device.instance.id)
            };
            // Before 590, compute instances of one GPU instance share one memory cell.
            let shares = !form.plus;
            let first = !(shares && number > 0 && same(list.get(number - 1)));
            let (upper, lower) = if first {
                memory_cells(form, product, device)
            } else {
                (" ".repeat(form.memory), " ".repeat(form.memory))
            };
            let [copy, decode, encode, jpeg, flow] = device.profile.engines;
            push(
                text,
                form,
                &format!(
                    "{index:>3}   {:>2}  {:>2}  {:>2}  |{upper}| {:<8}0 |{copy:>3}   {encode}    {decode}    {flow}    {jpeg} ",
                    device.instance.id,
                    device.compute.id,
                    device.index,
                    compute_sm(product, device),
                ),
            );
            push(
                text,
                form,
                &format!(
                    "{}|{lower}|{}|{}",
                    " ".repeat(18),
                    " ".repeat(11),
                    " ".repeat(23)
                ),
            );
            if shares && same(list.get(number + 1)) {
                let blank = " ".repeat(form.memory);
                text.push_str(&format!(
                    "+{}+{blank}+{}+{}+\n",
                    "-".repeat(18),
                    "-".repeat(11),
                    "-".repeat(23)
                ));
            } else {
                text.push_str(&rule("-", '+'));
            }
        }
    }
    if !any {
        push(text, form, "  No MIG devices found");
        text.push_str(&format!("+{}+\n", "-".repeat(form.width())));
    }
}

fn memory_cells(form: &Form, product: &Product, device: &Device<'_>) -> (String, String) {
    let (used, total) = (
        instance_used(device.profile.size),
        device.profile.memory_mib,
    );
    let share =
        bar1_mib(product) * u64::from(device.profile.size) / u64::from(product.slices.max(1));
    let old_share = share.saturating_sub(1);
    match form.memory {
        22 => (
            format!("{used:>7}MiB / {total:>5}MiB "),
            format!("{:>7}MiB / {old_share:>5}MiB ", 0),
        ),
        32 => (
            format!("{used:>16}MiB / {total:>5}MiB  "),
            format!("{:>16}MiB / {old_share:>5}MiB  ", 0),
        ),
        _ if form.plus => {
            let share = bar1_mib(product).saturating_sub(product.memory_mib)
                * u64::from(device.profile.size)
                / u64::from(product.slices.max(1));
            (
                format!("{used:>16}MiB / {total:>5}MiB    "),
                format!("{:>16}MiB / {share:>5}MiB    ", 0),
            )
        }
        _ => (
            format!("{used:>16}MiB / {total:>5}MiB    "),
            format!("{:>18}MiB / {old_share:>5}MiB  ", 0),
        ),
    }
}

fn processes(text: &mut String, form: &Form, machine: &Machine, selected: &[usize]) {
    let width = form.width();
    text.push_str(&format!("+{}+\n", "-".repeat(width)));
    push(text, form, " Processes:");
    push(text, form, form.heads[5]);
    push(text, form, form.heads[6]);
    text.push_str(&format!("|{}|\n", "=".repeat(width)));
    let mut any = false;
    for &index in selected {
        for holder in machine.holders_of(index).filter(|holder| holder.compute) {
            any = true;
            let pid = if form.plus { 17 } else { 11 };
            let name = width - pid - 42;
            let command: String = holder.command.chars().take(name).collect();
            push(
                text,
                form,
                &format!(
                    "{index:>5}   N/A  N/A{:>pid$}      C   {command:<name$}   512MiB ",
                    holder.pid
                ),
            );
        }
    }
    if !any {
        push(text, form, "  No running processes found");
    }
    text.push_str(&format!("+{}+\n", "-".repeat(width)));
}

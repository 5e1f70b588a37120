//! What users report of NVIDIA's driver and tool, where it was asked for: around each call, so
//! that the files beside this one only know how things should go.

use std::io;

use crate::sim::fault::{NvidiaFaults, use_up};
use crate::sim::machine::{Host, Machine};
use crate::sim::units::state;

use super::{Answer, answer_bound, code};

/// The call with the names that are published in place of those that the driver uses.
pub(super) fn understood(faults: &NvidiaFaults, args: &[String]) -> Vec<String> {
    let each = args.iter();
    match faults.renamed {
        true => each.map(|arg| moved(arg, -1)).collect(),
        false => each.cloned().collect(),
    }
}

/// What the tool says, with the driver's names.
pub(super) fn said(faults: &NvidiaFaults, text: String) -> String {
    match faults.renamed {
        true => moved(&text, 1),
        false => text,
    }
}

/// Every `Ng.Mgb` with another number of gigabytes, as drivers of other branches have it.
fn moved(text: &str, by: i64) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("g.") {
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let number = after[..digits].parse::<i64>();
        match number {
            Ok(number) if after[digits..].starts_with("gb") => {
                out.push_str(&(number + by).to_string());
            }
            _ => out.push_str(&after[..digits]),
        }
        rest = &after[digits..];
    }
    out.push_str(rest);
    out
}

/// What is refused, for want of rights or for no reason that the driver tells.
pub(super) fn refused(faults: &NvidiaFaults, args: &[&str]) -> Option<Answer> {
    const WITHOUT: [(&str, &str); 8] = [
        ("-lgi", "Failed to display GPU instances"),
        ("-lci", "Failed to display compute instances"),
        ("-cgi", "Failed to create GPU instances"),
        ("-cci", "Failed to create compute instances"),
        ("-dgi", "Failed to destroy GPU instances"),
        ("-dci", "Failed to destroy compute instances"),
        ("-mig", "Unable to set the MIG mode"),
        ("--set-timeslice", "Failed to set the timeslice"),
    ];
    const NO_PERMISSION: i32 = 4;
    if faults.unknown_error && (args.contains(&"-lgip") || args.contains(&"-lgipp")) {
        let text = "Failed to display GPU instance profiles: Unknown Error\n";
        return Some(Answer::new(text, code::OTHER));
    }
    if !faults.not_root {
        return None;
    }
    let name = |arg: &&str| arg.split('=').next().unwrap_or(arg).to_owned();
    let (_, what) = WITHOUT
        .iter()
        .find(|(option, _)| args.iter().any(|arg| name(arg) == *option))?;
    let text = format!("{what}: Insufficient Permissions\n");
    Some(Answer::new(text, NO_PERMISSION))
}

/// The answer to a call that changes nothing.
pub(super) fn looked_at(
    host: &Host,
    faults: &NvidiaFaults,
    machine: &mut Machine,
    args: &[&str],
) -> Answer {
    hide_mig(faults, machine);
    machine.mode_unreadable = faults.unknown_error;
    answer_bound(host, machine, args)
}

/// The answer to a call that changes something, and what it does. The host's lock is held.
pub(super) fn changed(
    host: &Host,
    faults: &NvidiaFaults,
    machine: &mut Machine,
    args: &[&str],
) -> io::Result<Answer> {
    machine.held_by_driver = faults.drm && host.path("/sys/module/nvidia_drm").exists();
    machine.resets_all = machine.spec.nvswitch && {
        let manager = state::peek(host, "nvidia-fabricmanager.service");
        !manager.is_up()
    };
    let before = machine.clone();
    hide_mig(faults, machine);
    let creates = args.contains(&"-cgi");
    if creates
        && args.iter().any(|arg| arg.contains(','))
        && use_up(host, |left| &mut left.no_room)?
    {
        return Ok(without_room(host, machine, args));
    }
    let answer = answer_bound(host, machine, args);
    let takes_effect = answer.status != 0 || !use_up(host, |left| &mut left.ignored)?;
    if takes_effect {
        machine.products = before.products;
    } else {
        *machine = before;
    }
    Ok(answer)
}

/// Makes the first GPU instance of the list, and finds no room for the next.
fn without_room(host: &Host, machine: &mut Machine, args: &[&str]) -> Answer {
    let firsts: Vec<&str> = args
        .iter()
        .map(|arg| match arg.split_once(',') {
            Some((first, _)) => first,
            None => arg,
        })
        .collect();
    let next = args
        .iter()
        .find_map(|arg| arg.split(',').nth(1))
        .unwrap_or_default();
    let mut answer = answer_bound(host, machine, &firsts);
    answer.line(format!(
        "Unable to create a GPU instance on GPU  0 using profile {next}: Insufficient Resources"
    ));
    answer.line("Failed to create GPU instances: Insufficient Resources");
    answer.fail(code::OTHER);
    answer
}

/// A driver that offers no MIG treats the cards as ones that have none.
fn hide_mig(faults: &NvidiaFaults, machine: &mut Machine) {
    if faults.no_mig {
        for product in machine.products.values_mut() {
            product.slices = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_move_and_nothing_else_does() {
        let text = "|   0  MIG 1g.10gb+me     20     1/1        9.75  | 7g.80gb 1c.3g.40gb g.x";
        let there = moved(text, 1);
        assert_eq!(
            there,
            "|   0  MIG 1g.11gb+me     20     1/1        9.75  | 7g.81gb 1c.3g.41gb g.x"
        );
        assert_eq!(moved(&there, -1), text);
    }
}

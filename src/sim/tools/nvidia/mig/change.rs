//! Makes and destroys GPU and compute instances. Items of a list are carried out
//! in order; what was made before a failure stays.

use crate::sim::machine::{ComputeInstance, Gpu, GpuInstance, Machine};
use crate::sim::product::{Product, Profile};
use crate::sim::vgpu;

use super::super::{Answer, code, placement};
use super::{Request, compute_profiles, compute_start, no_computes, no_instances, offered};

pub(super) fn create(
    machine: &mut Machine,
    selected: &[usize],
    list: &str,
    with_compute: bool,
) -> Answer {
    let mut answer = Answer::default();
    let branch = machine.branch();
    for &index in selected {
        let busy = blocks_instances(machine, index);
        let Some(product) = machine.product(&machine.gpus[index]).cloned() else {
            continue;
        };
        for item in list.split(',').map(str::trim) {
            let made = if busy {
                Err("In use by another client")
            } else {
                create_one(&mut machine.gpus[index], &product, item, branch)
            };
            match made {
                Err(reason) => {
                    // What was made before stays.
                    answer.line(format!("Unable to create a GPU instance on GPU {index:>2} using profile {item}: {reason}"));
                    answer.line(format!("Failed to create GPU instances: {reason}"));
                    answer.fail(if reason == "Invalid Argument" {
                        code::INVALID_ARGUMENT
                    } else {
                        code::OTHER
                    });
                    return answer;
                }
                Ok((id, profile)) => {
                    answer.line(format!(
                        "Successfully created GPU instance ID {id:>2} on GPU {index:>2} using profile MIG {} (ID {:>2})",
                        profile.name, profile.id
                    ));
                    if with_compute {
                        create_compute(&mut answer, machine, index, id, None);
                    }
                }
            }
        }
    }
    answer
}

/// Makes one GPU instance from an item of the list: id or name, with `:start` if wanted.
fn create_one<'p>(
    gpu: &mut Gpu,
    product: &'p Product,
    item: &str,
    branch: u32,
) -> Result<(u32, &'p Profile), &'static str> {
    let (kind, start) = match item.rsplit_once(':') {
        Some((kind, start)) => (
            kind,
            Some(start.parse::<u32>().map_err(|_| "Invalid Argument")?),
        ),
        None => (item, None),
    };
    let profile = product.profile(kind).ok_or("Invalid Argument")?;
    if !offered(product, branch).any(|other| other == profile) {
        return Err("Invalid Argument");
    }
    let start = match start {
        None => placement::choose(product, gpu, profile, branch).ok_or("Insufficient Resources")?,
        Some(start) if !profile.starts.contains(&start) => return Err("Invalid Argument"),
        Some(start) if placement::fits(product, gpu, profile, start) => start,
        Some(_) => return Err("Insufficient Resources"),
    };
    let id =
        placement::id_for(product, gpu, profile, start, branch).ok_or("Insufficient Resources")?;
    gpu.instances.push(GpuInstance {
        id,
        profile: profile.id,
        start,
        size: profile.size,
        compute: Vec::new(),
    });
    gpu.instances.sort_by_key(|instance| instance.id);
    Ok((id, profile))
}

/// A profiler on the whole card keeps instances from being made or destroyed;
/// a program with a plain context does not.
fn blocks_instances(machine: &Machine, index: usize) -> bool {
    const PROFILERS: [&str; 3] = ["nsys", "ncu", "nv-nsight-cu-cli"];
    machine
        .holders_of(index)
        .any(|holder| PROFILERS.contains(&holder.command.as_str()))
}

pub(super) fn create_computes(
    machine: &mut Machine,
    selected: &[usize],
    request: &Request<'_>,
    list: Option<&str>,
) -> Answer {
    let mut answer = Answer::default();
    let mut any = false;
    for &index in selected {
        let ids: Vec<u32> = machine.gpus[index]
            .instances
            .iter()
            .map(|instance| instance.id)
            .collect();
        for id in ids.into_iter().filter(|id| request.wants_instance(*id)) {
            any = true;
            match list {
                None => {
                    if !create_compute(&mut answer, machine, index, id, None) {
                        return answer;
                    }
                }
                Some(list) => {
                    for item in list.split(',').map(str::trim) {
                        if !create_compute(&mut answer, machine, index, id, Some(item)) {
                            return answer;
                        }
                    }
                }
            }
        }
    }
    if any { answer } else { no_instances() }
}

/// Makes one compute instance; says so, and whether it went well.
fn create_compute(
    answer: &mut Answer,
    machine: &mut Machine,
    index: usize,
    id: u32,
    item: Option<&str>,
) -> bool {
    let old_text = machine.branch() < 460;
    let Some(product) = machine.product(&machine.gpus[index]).cloned() else {
        return false;
    };
    let Some(instance) = machine.gpus[index]
        .instances
        .iter_mut()
        .find(|instance| instance.id == id)
    else {
        return false;
    };
    let Some(profile) = product.profile_by_id(instance.profile) else {
        return false;
    };
    let kinds = compute_profiles(&product, profile);
    let kind = match item {
        None => kinds.last(),
        Some(item) => {
            let (item, _) = item.split_once(':').unwrap_or((item, ""));
            let name = item.strip_prefix("MIG ").unwrap_or(item);
            kinds
                .iter()
                .find(|kind| kind.name == name || item.parse() == Ok(kind.id))
        }
    };
    let asked_start = item
        .and_then(|item| item.split_once(':'))
        .map(|(_, start)| start.parse::<u32>());
    let made = kind.ok_or("Invalid Argument").and_then(|kind| {
        let start = match asked_start {
            None => compute_start(instance, profile.compute, kind.slices),
            Some(Err(_)) => return Err("Invalid Argument"),
            Some(Ok(start)) => {
                let apart = |other: &ComputeInstance| {
                    start + kind.slices <= other.start || other.start + other.slices <= start
                };
                (start + kind.slices <= profile.compute && instance.compute.iter().all(apart))
                    .then_some(start)
            }
        };
        start
            .map(|start| (kind, start))
            .ok_or("Insufficient Resources")
    });
    match made {
        Ok((kind, start)) => {
            let new = (0..)
                .find(|id| !instance.compute.iter().any(|other| other.id == *id))
                .unwrap_or(0);
            instance.compute.push(ComputeInstance {
                id: new,
                slices: kind.slices,
                start,
            });
            instance.compute.sort_by_key(|compute| compute.id);
            let number = if old_text {
                String::new()
            } else {
                format!(" ID {new:>2}")
            };
            answer.line(format!(
                "Successfully created compute instance{number} on GPU {index:>2} GPU instance ID {id:>2} using profile MIG {} (ID {:>2})",
                kind.name, kind.id
            ));
            true
        }
        Err(reason) => {
            let typed =
                item.map_or_else(|| kind.map_or(0, |kind| kind.id).to_string(), str::to_owned);
            answer.line(format!(
                "Unable to create a compute instance on GPU {index:>2} GPU instance ID {id:>2} using profile {typed}: {reason}"
            ));
            answer.line(format!("Failed to create compute instances: {reason}"));
            answer.fail(if reason == "Invalid Argument" {
                code::INVALID_ARGUMENT
            } else {
                code::OTHER
            });
            false
        }
    }
}

pub(super) fn destroy_instances(
    machine: &mut Machine,
    selected: &[usize],
    request: &Request<'_>,
) -> Answer {
    let mut answer = Answer::default();
    let mut any = false;
    for &index in selected {
        let blocked = blocks_instances(machine, index);
        let gpu = &mut machine.gpus[index];
        let ids: Vec<u32> = gpu.instances.iter().map(|instance| instance.id).collect();
        for id in ids.into_iter().filter(|id| request.wants_instance(*id)) {
            any = true;
            let in_use = gpu
                .instances
                .iter()
                .any(|instance| instance.id == id && !instance.compute.is_empty());
            if in_use || blocked || vgpu::fill(gpu, id) {
                answer.line(format!("Unable to destroy GPU instance ID {id:>2} from GPU {index:>2}: In use by another client"));
                answer.line("Failed to destroy GPU instances: In use by another client");
                answer.fail(code::OTHER);
                return answer;
            }
            gpu.instances.retain(|instance| instance.id != id);
            answer.line(format!(
                "Successfully destroyed GPU instance ID {id:>2} from GPU {index:>2}"
            ));
        }
    }
    if any { answer } else { no_instances() }
}

pub(super) fn destroy_computes(
    machine: &mut Machine,
    selected: &[usize],
    request: &Request<'_>,
) -> Answer {
    let mut answer = Answer::default();
    let mut any = false;
    for &index in selected {
        // On a MIG card a program sits in a compute instance; which one is not modelled,
        // so all of the card's are taken to be in use.
        let in_use = machine.holders_of(index).next().is_some();
        for instance in &mut machine.gpus[index].instances {
            if !request.wants_instance(instance.id) {
                continue;
            }
            let ids: Vec<u32> = instance.compute.iter().map(|compute| compute.id).collect();
            for id in ids.into_iter().filter(|id| request.wants_compute(*id)) {
                any = true;
                if in_use {
                    answer.line(format!(
                        "Unable to destroy compute instance ID {id:>2} from GPU {index:>2} GPU instance ID {:>2}: In use by another client",
                        instance.id
                    ));
                    answer.line("Failed to destroy compute instances: In use by another client");
                    answer.fail(code::OTHER);
                    return answer;
                }
                instance.compute.retain(|compute| compute.id != id);
                answer.line(format!(
                    "Successfully destroyed compute instance ID {id:>2} from GPU {index:>2} GPU instance ID {:>2}",
                    instance.id
                ));
            }
        }
    }
    if any { answer } else { no_computes() }
}

//! `deploy discover`: facts as a table for people.
//!
//! `-` is "it is not there", `?` is "it could not be looked at", and each `?` has its reason
//! under the table. A card with MIG instances has its layout drawn below its row.

use std::fmt::Write as _;

use crate::catalog::{Catalog, draw};
use crate::facts::{Fact, Gpu, GpuInstance, Holder, HostFacts, MigMode, NvidiaGpu};
use crate::step::Slice;
use crate::text::printable_line;

/// The most holders that a cell names.
const HOLDERS_SHOWN: usize = 3;
/// The most characters of one cell; a host's text can be of any length.
const CELL: usize = 60;

/// All hosts with their cards, in the order given; `width` is the terminal's.
#[must_use]
pub fn table(hosts: &[(&str, &HostFacts)], catalog: &Catalog, width: usize) -> String {
    let mut rows = vec![
        [
            "HOST", "GPU", "PCI", "MODEL", "DRIVER", "MIG", "NUMA", "VFS", "HELD BY",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut bars = vec![None];
    let mut remarks = Vec::new();
    for (host, facts) in hosts {
        for gpu in &facts.gpus {
            let mut reasons = Reasons::default();
            let row = row(host, facts, gpu, &mut reasons);
            rows.push(row);
            bars.push(layout(gpu, catalog, width, &mut reasons));
            for (what, why) in reasons.0 {
                remarks.push(format!("? {host} {}: {what}: {why}", gpu.pci));
            }
        }
        if facts.gpus.is_empty() {
            let mut row = vec![String::new(); 9];
            row[0] = (*host).to_owned();
            row[1] = "-".to_owned();
            row[3] = "no GPU".to_owned();
            rows.push(row);
            bars.push(None);
        }
        for note in &facts.notes {
            remarks.push(format!("! {host} {note}"));
        }
    }
    let text = draw::columns(&rows);
    let mut out = String::new();
    for (line, bar) in text.lines().zip(bars) {
        out.push_str(line);
        out.push('\n');
        if let Some(bar) = bar {
            let _ = writeln!(out, "  {bar}");
        }
    }
    if !remarks.is_empty() {
        out.push('\n');
    }
    for remark in remarks {
        out.push_str(&printable_line(&remark, 400));
        out.push('\n');
    }
    out
}

/// What is unknown of one card, and why.
#[derive(Default)]
struct Reasons(Vec<(&'static str, String)>);

impl Reasons {
    fn cell<T>(
        &mut self,
        what: &'static str,
        fact: &Fact<T>,
        show: impl Fn(&T) -> String,
    ) -> String {
        match fact {
            Fact::Known(value) => printable_line(&show(value), CELL),
            Fact::Absent => "-".to_owned(),
            Fact::Unknown(why) => {
                // The same reason for several cells is told once.
                if !self.0.iter().any(|(_, told)| told == why) {
                    self.0.push((what, why.clone()));
                }
                "?".to_owned()
            }
        }
    }
}

fn row(host: &str, facts: &HostFacts, gpu: &Gpu, reasons: &mut Reasons) -> Vec<String> {
    let index = reasons.cell("index, MIG", &gpu.nvidia, |nvidia| nvidia.index.to_string());
    let model = match (&gpu.model, &gpu.nvidia) {
        (Fact::Known(key), _) => key.clone(),
        (_, Fact::Known(nvidia)) => printable_line(&nvidia.name, CELL),
        _ => format!("{} {:04x}", gpu.vendor, gpu.device_id),
    };
    let driver = reasons.cell("driver", &gpu.driver, |driver| {
        match facts.nvidia_driver.known().filter(|_| driver == "nvidia") {
            Some(version) => format!("{driver} {version}"),
            None => driver.clone(),
        }
    });
    let vfs = reasons.cell("SR-IOV", &gpu.sriov, |sriov| {
        format!("{}/{}", sriov.num_vfs, sriov.total_vfs)
    });
    let numa = reasons.cell("NUMA node", &gpu.numa_node, u32::to_string);
    let held = reasons.cell("holders", &gpu.holders, |holders| held_by(holders));
    let mig = mig(gpu, reasons);
    vec![
        host.to_owned(),
        index,
        gpu.pci.to_string(),
        model,
        driver,
        mig,
        numa,
        vfs,
        held,
    ]
}

fn mig(gpu: &Gpu, reasons: &mut Reasons) -> String {
    let word = |mode: MigMode| match mode {
        MigMode::Enabled => "on",
        MigMode::Disabled => "off",
    };
    match &gpu.nvidia {
        Fact::Known(NvidiaGpu { mig, .. }) => reasons.cell("MIG", mig, |mig| {
            if mig.current == mig.pending {
                word(mig.current).to_owned()
            } else {
                format!("{}, {} pending", word(mig.current), word(mig.pending))
            }
        }),
        Fact::Absent => "-".to_owned(),
        Fact::Unknown(_) => "?".to_owned(),
    }
}

fn held_by(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "-".to_owned();
    }
    let mut names: Vec<String> = holders
        .iter()
        .take(HOLDERS_SHOWN)
        .map(|holder| format!("{} ({})", holder.command, holder.pid))
        .collect();
    if holders.len() > HOLDERS_SHOWN {
        names.push(format!("{} more", holders.len() - HOLDERS_SHOWN));
    }
    names.join(", ")
}

/// The bar of a card whose MIG mode is on.
fn layout(gpu: &Gpu, catalog: &Catalog, width: usize, reasons: &mut Reasons) -> Option<String> {
    let mig = gpu.nvidia.known()?.mig.known()?;
    if mig.current == MigMode::Disabled {
        return None;
    }
    let instances = match &mig.instances {
        Fact::Known(instances) => instances,
        Fact::Absent => return None,
        Fact::Unknown(why) => {
            reasons.0.push(("MIG instances", why.clone()));
            return None;
        }
    };
    let slices: Vec<Slice> = instances.iter().map(slice).collect();
    let grid = grid(gpu, catalog, instances);
    Some(draw::bar(grid, &slices, width.saturating_sub(2)))
}

/// Units of the placement grid: what the driver's own places reach, or else the catalog's.
fn grid(gpu: &Gpu, catalog: &Catalog, instances: &[GpuInstance]) -> u32 {
    let listed = gpu
        .nvidia
        .known()
        .and_then(|nvidia| nvidia.mig.known())
        .and_then(|mig| mig.profiles.known())
        .into_iter()
        .flatten()
        .filter_map(|profile| profile.placements.known())
        .flatten()
        .map(|place| place.start.saturating_add(place.size))
        .max();
    let known = gpu
        .model
        .known()
        .and_then(|key| catalog.by_key(key)?.mig.as_ref()?.memory_slices);
    let reached = instances
        .iter()
        .map(|gi| gi.placement.start.saturating_add(gi.placement.size))
        .max();
    listed.or(known).or(reached).unwrap_or(0)
}

/// A GPU instance as it is drawn. Compute instances that could not be listed are not said to be
/// missing.
fn slice(instance: &GpuInstance) -> Slice {
    let compute = match &instance.compute {
        Fact::Known(compute) => compute.iter().map(|ci| ci.profile.clone()).collect(),
        Fact::Absent => Vec::new(),
        Fact::Unknown(_) => vec![instance.profile.clone()],
    };
    Slice {
        placement: instance.placement,
        profile: instance.profile.clone(),
        compute,
    }
}

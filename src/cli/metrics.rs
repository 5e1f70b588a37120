//! `deploy discover --metrics`: slices as Prometheus reads them, in its text format.
//!
//! What is not known has no sample: a zero always means that somebody looked and found
//! nothing. A host that was not reached has `deploy_host_up` alone.

use std::io::Write as _;
use std::path::Path;

use crate::error::Diagnostic;
use crate::facts::{Gpu, HostFacts};
use crate::report::exposition::{self, Labels, Metric};
use crate::strategy::{self, CardCensus, CensusRow};
use crate::whole_file;

/// What is known of one host.
pub(super) enum Host<'a> {
    /// It was not reached.
    Down,
    /// It was; the counts are missing where what is wanted of it could not be worked out.
    Up(&'a HostFacts, Option<Vec<CardCensus>>),
}

/// All hosts in the order given.
pub(super) fn text(hosts: &[(&str, Host<'_>)]) -> String {
    let mut up = Metric::new(
        "deploy_host_up",
        "Whether the host was reached and looked at.",
    );
    let mut planned = Metric::new(
        "deploy_host_wanted_known",
        "Whether what the variables want of the host's GPUs could be worked out.",
    );
    let mut info = Metric::new("deploy_gpu_info", "A GPU of a host; always 1.");
    let mut used = Metric::new(
        "deploy_gpu_in_use",
        "Whether a process has a device node of the GPU open.",
    );
    let mut drifted = Metric::new(
        "deploy_gpu_drifted",
        "Whether the GPU differs from what is wanted of it.",
    );
    let mut slices = Slices::new();
    for (name, host) in hosts {
        let labels = Labels::default().with("host", name);
        let Host::Up(facts, census) = host else {
            up.add(&labels, 0_u32);
            continue;
        };
        up.add(&labels, 1_u32);
        planned.add(&labels, u32::from(census.is_some()));
        for gpu in &facts.gpus {
            let labels = of_gpu(&labels, gpu);
            info.add(&labels, 1_u32);
            used.add_known(&labels, strategy::in_use(gpu).map(u32::from));
            let card = census.iter().flatten().find(|card| card.pci == gpu.pci);
            let Some(card) = card else { continue };
            if let (Some(technology), Some(differs)) = (card.technology, card.drifted) {
                let labels = labels.with("technology", technology.name());
                drifted.add(&labels, u32::from(differs));
            }
            for row in &card.rows {
                slices.add(&labels, row);
            }
        }
    }
    let first = [up, planned, info, used, drifted];
    exposition::text(first.iter().chain(&slices.all()))
}

fn of_gpu(host: &Labels, gpu: &Gpu) -> Labels {
    let tool = gpu.intel.known().and_then(|intel| intel.tool.known());
    let uuid = match gpu.nvidia.known() {
        Some(nvidia) => Some(&nvidia.uuid.0),
        None => tool.and_then(|tool| tool.uuid.known()),
    };
    let model = match (gpu.model.known(), gpu.nvidia.known()) {
        (Some(key), _) => key.as_str(),
        (None, Some(nvidia)) => nvidia.name.as_str(),
        (None, None) => "",
    };
    host.with("pci", &gpu.pci.to_string())
        .with("uuid", uuid.map_or("", String::as_str))
        .with("vendor", &gpu.vendor.to_string())
        .with("model", model)
}

/// The metrics that count slices.
struct Slices {
    wanted: Metric,
    found: Metric,
    free: Metric,
    in_use: Metric,
    drifted: Metric,
}

impl Slices {
    fn new() -> Self {
        Self {
            wanted: Metric::new(
                "deploy_gpu_slices_wanted",
                "Slices that the variables want.",
            ),
            found: Metric::new("deploy_gpu_slices_found", "Slices that exist."),
            free: Metric::new(
                "deploy_gpu_slices_free",
                "Slices that exist and nobody uses; no sample where that cannot be told.",
            ),
            in_use: Metric::new(
                "deploy_gpu_slices_in_use",
                "Slices that somebody uses; no sample where that cannot be told.",
            ),
            drifted: Metric::new(
                "deploy_gpu_slices_drifted",
                "Slices that are missing or too many.",
            ),
        }
    }

    fn add(&mut self, gpu: &Labels, row: &CensusRow) {
        let labels = gpu
            .with("technology", row.technology.name())
            .with("profile", &row.profile);
        let free = row.in_use.map(|used| row.found.saturating_sub(used));
        let drifted = row.wanted.map(|wanted| wanted.abs_diff(row.found));
        self.wanted.add_known(&labels, row.wanted);
        self.found.add(&labels, row.found);
        self.free.add_known(&labels, free);
        self.in_use.add_known(&labels, row.in_use);
        self.drifted.add_known(&labels, drifted);
    }

    fn all(self) -> [Metric; 5] {
        [
            self.wanted,
            self.found,
            self.free,
            self.in_use,
            self.drifted,
        ]
    }
}

/// Writes a file for node_exporter's textfile collector, or for another program: whole or not
/// at all, and readable by it.
///
/// # Errors
/// Says why it cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Diagnostic> {
    put(path, 0o644, text)
}

/// Writes a file that is for its owner only, whole or not at all.
///
/// # Errors
/// Says why it cannot be written.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Diagnostic> {
    put(path, 0o600, text)
}

fn put(path: &Path, mode: u32, text: &str) -> Result<(), Diagnostic> {
    whole_file::write(path, mode, |file| file.write_all(text.as_bytes())).map_err(|error| {
        Diagnostic::error(format!("{} cannot be written: {error}", path.display()))
            .hint("the folder must be there and writable; the file in it is replaced as a whole")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_host_that_was_not_reached_has_one_sample_and_no_other_metric_is_named() {
        assert_eq!(
            text(&[("dead", Host::Down)]),
            "# HELP deploy_host_up Whether the host was reached and looked at.\n\
             # TYPE deploy_host_up gauge\n\
             deploy_host_up{host=\"dead\"} 0\n"
        );
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_others_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deploy.prom");
        for said in ["one\n", "two\n"] {
            write(&path, said).expect("it is written");
            assert_eq!(std::fs::read_to_string(&path).expect("it is there"), said);
        }
        let mode = std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1
        );
        assert!(write(&folder.path().join("no/x.prom"), "").is_err());
        // What runs of the same number have left who were killed is in nobody's way.
        let left = format!("deploy.prom.tmp{}", std::process::id());
        std::fs::write(folder.path().join(left), "").expect("ours");
        write_private(&path, "three\n").expect("it is written");
        let meta = std::fs::metadata(&path).expect("it is there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
}

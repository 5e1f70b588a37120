//! What the cards of a host are, how they are sliced now, and how they could be: as variables.

use std::fmt::Write as _;

use crate::catalog::{Catalog, Model, Technology};
use crate::facts::{Fact, Gpu, HostFacts, MigMode, Vendor};
use crate::text::printable_line;

/// What is said of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cards {
    /// The keys of the models, each once; or what the host calls a card that is in no list.
    pub(super) models: Vec<String>,
    /// The variables below `containers_gpu_slicing` that say what is there now.
    pub(super) now: String,
    /// What is there and is not said by them.
    pub(super) notes: Vec<String>,
}

/// What a host has.
pub(super) fn of(facts: &HostFacts, catalog: &Catalog) -> Cards {
    let mut models: Vec<String> = Vec::new();
    for gpu in &facts.gpus {
        let known = catalog.by_pci(gpu.vendor, gpu.device_id);
        let name = known.map_or_else(
            || format!("{}-{:04x}", gpu.vendor, gpu.device_id),
            |model| model.key.clone(),
        );
        if !models.contains(&name) {
            models.push(name);
        }
    }
    models.sort();
    Cards {
        models,
        now: now(facts),
        notes: facts.gpus.iter().filter_map(note).collect(),
    }
}

/// How a card is sliced by MIG.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sliced {
    /// Not at all.
    Whole,
    /// Into these profiles.
    Mig(Vec<String>),
    /// That is not known, or cannot be said by variables; why.
    Unsaid(String),
}

fn sliced(gpu: &Gpu) -> Sliced {
    let unsaid = |why: &str| Sliced::Unsaid(format!("{}: {why}", gpu.label()));
    let nvidia = match &gpu.nvidia {
        Fact::Known(nvidia) => nvidia,
        Fact::Unknown(why) => return unsaid(why),
        Fact::Absent if gpu.vendor == Vendor::Nvidia => {
            return unsaid("NVIDIA's driver does not have it");
        }
        Fact::Absent => return Sliced::Whole,
    };
    let mig = match &nvidia.mig {
        Fact::Known(mig) => mig,
        Fact::Unknown(why) => return unsaid(why),
        Fact::Absent => return Sliced::Whole,
    };
    if mig.current != MigMode::Enabled {
        return Sliced::Whole;
    }
    let mut instances = match &mig.instances {
        Fact::Known(instances) => instances.clone(),
        Fact::Unknown(why) => return unsaid(&format!("MIG is on, and its instances: {why}")),
        Fact::Absent => Vec::new(),
    };
    if instances.is_empty() {
        return unsaid("MIG is on without instances, and `strategy: mig` needs profiles");
    }
    instances.sort_by_key(|instance| instance.placement.start);
    let names: Vec<String> = instances
        .into_iter()
        .map(|instance| instance.profile)
        .collect();
    match names.iter().all(|name| is_plain(name)) {
        true => Sliced::Mig(names),
        false => unsaid("MIG is on, with an instance whose profile has no name"),
    }
}

/// Whether the name of a profile, which the host says, can stand in a list as it is.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+_-".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

fn now(facts: &HostFacts) -> String {
    let layouts: Vec<Sliced> = facts.gpus.iter().map(sliced).collect();
    let unsaid: Vec<&String> = layouts
        .iter()
        .filter_map(|layout| match layout {
            Sliced::Unsaid(why) => Some(why),
            Sliced::Whole | Sliced::Mig(_) => None,
        })
        .collect();
    if !unsaid.is_empty() {
        let mut text = String::from(
            "# No strategy stands here, since what was there is not known; without one `enabled: true`\n# takes slices away. Say what you want first.\n",
        );
        for why in unsaid {
            let _ = writeln!(text, "# {}", printable_line(why, 300));
        }
        return text;
    }
    let first = layouts.first().unwrap_or(&Sliced::Whole);
    if layouts.iter().all(|layout| layout == first) {
        return match first {
            Sliced::Mig(profiles) => mig("", profiles),
            Sliced::Whole | Sliced::Unsaid(_) => "strategy: none\n".to_owned(),
        };
    }
    let mut text = String::from("strategy: none\ngpus:\n");
    for (gpu, layout) in facts.gpus.iter().zip(&layouts) {
        if let Sliced::Mig(profiles) = layout {
            let _ = writeln!(text, "  - match: {{pci: \"{}\"}}", gpu.pci);
            text += &mig("    ", profiles);
        }
    }
    text
}

fn mig(indent: &str, profiles: &[String]) -> String {
    format!(
        "{indent}strategy: mig\n{indent}mig: {{enabled: true, profiles: [{}]}}\n",
        profiles.join(", ")
    )
}

/// What a card has that the variables do not say.
fn note(gpu: &Gpu) -> Option<String> {
    let functions = gpu.sriov.known().map_or(0, |sriov| sriov.num_vfs);
    if functions > 0 {
        return Some(format!(
            "{} has {functions} virtual functions now",
            gpu.label()
        ));
    }
    let mode = gpu.amd.known()?.compute_mode()?;
    (mode != "SPX").then(|| format!("{} is in {mode} now", gpu.label()))
}

/// How cards of a model could be sliced: a sentence, and the variables.
pub(super) fn alternatives(model: &Model) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for technology in &model.technologies {
        match technology {
            Technology::Mig => found.extend(mig_layouts(model)),
            Technology::TimeSlicing => found.push((
                "four tenants that take turns, without isolation of memory".to_owned(),
                "strategy: time-slicing\ntime_slicing: {enabled: true, max_instance_count: 4}\n"
                    .to_owned(),
            )),
            Technology::Mps => found.push((
                "four clients side by side, each with its share".to_owned(),
                "strategy: mps\nmps: {enabled: true, max_clients: 4}\n".to_owned(),
            )),
            Technology::Sriov => {
                let count = model.vf_counts.first().copied().unwrap_or(2);
                found.push((
                    "virtual functions".to_owned(),
                    format!("strategy: sriov\nsriov: {{enabled: true, vf_count: {count}}}\n"),
                ));
            }
            Technology::Partition => {
                let modes = model.partitions.as_ref().map(|modes| modes.compute.last());
                if let Some(mode) = modes.flatten() {
                    found.push((
                        "as many devices as the card divides into".to_owned(),
                        format!(
                            "strategy: partition\npartition: {{enabled: true, compute: {mode}}}\n"
                        ),
                    ));
                }
            }
            Technology::Vgpu
            | Technology::LevelZero
            | Technology::Rocm
            | Technology::Passthrough
            | Technology::None => {}
        }
    }
    found
}

/// As many instances of each of the first profiles as a card holds.
fn mig_layouts(model: &Model) -> Vec<(String, String)> {
    let profiles = model.mig.iter().flat_map(|mig| &mig.profiles);
    let usual = profiles.filter(|profile| !profile.name.contains('+') && profile.max > 0);
    usual
        .take(4)
        .map(|profile| {
            let instances = vec![profile.name.clone(); profile.max as usize];
            let what = match profile.max {
                1 => format!("one instance {}", profile.name),
                max => format!("{max} instances {}", profile.name),
            };
            (what, mig("", &instances))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::desired;
    use crate::inventory;
    use crate::strategy;
    use crate::value::HostName;

    /// What is proposed is what our own checks accept, of each model.
    #[test]
    fn alternatives_can_be_had() {
        let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
        let mut count = 0;
        for model in catalog.models() {
            for (what, block) in alternatives(model) {
                let block = super::super::project::indented("  ", &block);
                let extra = format!("containers_gpu_slicing:\n  enabled: true\n{block}");
                let file = tempfile::NamedTempFile::new().expect("a file");
                std::fs::write(file.path(), &extra).expect("it is written");
                let from = format!("@{}", file.path().display());
                let (found, problems) = inventory::load(&["h,".into()], None, &[from]);
                assert!(!problems.has_errors(), "{extra}\n{problems}");
                let vars = found.vars_of(&HostName::from("h"));
                let vars = vars
                    .into_iter()
                    .filter(|(name, _)| desired::is_variable(name))
                    .collect();
                let (desired, problems) = desired::read(&vars, &|_, _| unreachable!());
                assert!(!problems.has_errors(), "{}: {what}\n{problems}", model.key);
                let problems = strategy::check_offline(&desired, &catalog);
                assert!(!problems.has_errors(), "{}: {what}\n{problems}", model.key);
                count += 1;
            }
        }
        assert!(count > 30, "{count}");
    }
}

//! What can be seen to be wrong before any host is connected to.
//!
//! The values above `gpus` may meet any model, those of an entry the models that
//! its `match` names. Only what fails on all of them is refused here; the rest,
//! the host tells.

use crate::catalog::{Catalog, Model, Technology};
use crate::desired::{Choice, Desired, DeviceRef, GpuEntry, Located, Match, Request, Wanted};
use crate::error::{Diagnostic, Problems, nearest};

use super::geometry::{Geometry, bare};
use super::solver::place;
use super::{advice, mig, parted, strategy_of};

/// Everything that no host could carry out.
#[must_use]
pub fn check(desired: &Desired, catalog: &Catalog) -> Problems {
    let mut problems = Problems::default();
    let slicing = &desired.slicing;
    if !slicing.enabled.value {
        return problems;
    }
    let all: Vec<&Model> = catalog.models().iter().collect();
    check_wanted(&slicing.default, desired, &all, &mut problems);
    for entry in &slicing.gpus {
        let models = matched(&entry.select, catalog, &mut problems);
        check_handed_over(entry, &mut problems);
        if !models.is_empty() {
            check_wanted(&entry.wanted, desired, &models, &mut problems);
        }
    }
    // Values that entries take over from above are found once only.
    let mut seen: Vec<Diagnostic> = Vec::new();
    for problem in problems.0 {
        let same =
            |other: &Diagnostic| other.origin == problem.origin && other.message == problem.message;
        if !seen.iter().any(same) {
            seen.push(problem);
        }
    }
    Problems(seen)
}

/// A card that was handed over tells its UUID to nobody: the next run would not find it again,
/// and take it back.
fn check_handed_over(entry: &GpuEntry, problems: &mut Problems) {
    if entry.wanted.strategy.value != Choice::Use(Technology::Passthrough) {
        return;
    }
    for device in &entry.select.devices {
        if matches!(device.value, DeviceRef::Uuid(_)) {
            let message = "a card that is handed over to virtual machines tells no UUID any more";
            let hint = "match it by its address: `match: {pci: 0000:17:00.0}`";
            problems.push(device.blame(Diagnostic::error(message).hint(hint)));
        }
    }
}

fn matched<'a>(select: &Match, catalog: &'a Catalog, problems: &mut Problems) -> Vec<&'a Model> {
    let mut models: Vec<&Model> = match &select.model {
        None => catalog.models().iter().collect(),
        Some(name) => {
            let found = catalog.by_name(&name.value);
            if found.is_empty()
                && let Err(diagnostic) = catalog.resolve(&name.value)
            {
                problems.push(name.blame(diagnostic));
            }
            found
        }
    };
    if let Some(vendor) = &select.vendor {
        models.retain(|model| model.vendor == vendor.value);
        if models.is_empty()
            && let Some(name) = &select.model
            && !catalog.by_name(&name.value).is_empty()
        {
            let message = format!("`{}` is no model of {}", name.value, vendor.value);
            problems.push(name.blame(Diagnostic::error(message)));
        }
    }
    models
}

fn check_wanted(wanted: &Wanted, desired: &Desired, models: &[&Model], problems: &mut Problems) {
    let technology = match wanted.strategy.value {
        Choice::Use(technology) => technology,
        Choice::Auto => {
            // `auto` may pick MIG wherever profiles are given; they must exist at least.
            match &wanted.mig.mig_parted {
                Some(parted) => parted::check(parted, wanted, models, problems),
                None => check_mig_names(wanted, models, problems),
            }
            return;
        }
    };
    let Some(strategy) = strategy_of(technology) else {
        return;
    };
    let able: Vec<&Model> = models
        .iter()
        .copied()
        .filter(|model| model.technologies.contains(&technology))
        .collect();
    if technology != Technology::None && able.is_empty() {
        if let [first, ..] = models {
            let names: Vec<&str> = models.iter().map(|model| model.key.as_str()).collect();
            let message = match names.len() {
                1 => format!("{} has no {technology}", first.key),
                _ => format!("none of {} has {technology}", names.join(", ")),
            };
            let hint = format!("{} has {}", first.key, listed(&first.technologies));
            let diagnostic = Diagnostic::error(message).hint(hint);
            problems.push(wanted.strategy.blame(diagnostic));
        }
        return;
    }
    let met = if able.is_empty() { models } else { &able[..] };
    strategy.check(wanted, desired, met, problems);
}

/// `mig, time-slicing and none`.
pub(super) fn listed(technologies: &[Technology]) -> String {
    let names: Vec<&str> = technologies.iter().map(|t| t.name()).collect();
    match &names[..] {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// The same without one of them.
pub(super) fn able_without(technologies: &[Technology], without: Technology) -> String {
    let rest: Vec<Technology> = technologies
        .iter()
        .copied()
        .filter(|t| *t != without)
        .collect();
    listed(&rest)
}

/// Profiles that nobody has, layouts that fit nowhere, splits that do not divide.
pub(super) fn check_mig(
    wanted: &Wanted,
    desired: &Desired,
    models: &[&Model],
    problems: &mut Problems,
) {
    if let Some(parted) = &wanted.mig.mig_parted {
        parted::check(parted, wanted, models, problems);
        return;
    }
    let from_above = std::ptr::eq(wanted, &desired.slicing.default);
    let request: &[Request] = if from_above {
        &desired.slicing.request
    } else {
        &[]
    };
    if wanted.mig.listed.is_empty() && request.is_empty() {
        // Entries may match every card; then nothing has to stand above them. Whether one is
        // left over, the host tells.
        if from_above && !desired.slicing.gpus.is_empty() {
            return;
        }
        problems.push(mig::nothing_asked(wanted));
        return;
    }
    check_layout_of(wanted, request, models, problems);
}

/// The same of one layout: its names, and whether it fits on a model that has them.
pub(super) fn check_layout_of(
    wanted: &Wanted,
    request: &[Request],
    models: &[&Model],
    problems: &mut Problems,
) {
    let names: Vec<&Located<String>> = request.iter().map(|line| &line.profile).collect();
    let unknown = problems.0.len();
    for name in names {
        check_name(name, models, problems);
    }
    check_mig_names(wanted, models, problems);
    if problems.0.len() > unknown {
        return;
    }
    let geometries: Vec<Geometry> = models
        .iter()
        .filter_map(|model| Geometry::of_model(model))
        .collect();
    // Of a model whose placements nobody published, only the host can tell.
    let untold = |model: &&&Model| {
        let listed = &wanted.mig.listed;
        Geometry::of_model(model).is_none() && listed.iter().all(|p| has_profile(model, &p.value))
    };
    if models.iter().any(|model| untold(&model)) {
        return;
    }
    check_layout(wanted, &geometries, problems);
}

fn check_mig_names(wanted: &Wanted, models: &[&Model], problems: &mut Problems) {
    for name in &wanted.mig.listed {
        check_name(name, models, problems);
    }
}

fn has_profile(model: &Model, name: &str) -> bool {
    let name = bare(name);
    model.mig.as_ref().is_some_and(|mig| {
        mig.profiles.iter().any(|profile| {
            let mut names = std::iter::once(&profile.name).chain(&profile.aliases);
            names.any(|known| known.eq_ignore_ascii_case(name))
                || profile.id.is_some_and(|id| name.parse() == Ok(id))
        })
    })
}

/// A finding if none of the models has the profile.
fn check_name(name: &Located<String>, models: &[&Model], problems: &mut Problems) {
    if models.iter().any(|model| has_profile(model, &name.value)) {
        return;
    }
    let rows = models.iter().filter_map(|model| model.mig.as_ref());
    let known: Vec<&str> = rows
        .flat_map(|mig| mig.profiles.iter().map(|profile| profile.name.as_str()))
        .collect();
    let wanted = bare(&name.value);
    let whose = match models {
        [model] => format!("{} has", model.key),
        _ => "no model has".to_owned(),
    };
    let message = match models {
        [_] => format!("{whose} no profile `{wanted}`"),
        _ => format!("{whose} a profile `{wanted}`"),
    };
    let near = similar(wanted, &known);
    let hint = match (models, near) {
        ([_], _) => format!("it has {}", known.join(", ")),
        (_, near) if !near.is_empty() => format!("there is {}", owners(&near, models).join(", ")),
        _ => "`deploy catalog` lists all profiles".to_owned(),
    };
    problems.push(name.blame(Diagnostic::error(message).hint(hint)));
}

/// Known names that may be meant: the nearest in spelling, and those of the same compute slices
/// or of the same memory.
fn similar<'a>(wanted: &str, known: &[&'a str]) -> Vec<&'a str> {
    let (compute, memory) = wanted.split_once('.').unwrap_or((wanted, ""));
    let mut found: Vec<&str> = nearest(wanted, known.iter().copied()).into_iter().collect();
    for name in known {
        let same = name
            .split_once('.')
            .is_some_and(|(c, m)| !memory.is_empty() && (m == memory || c == compute));
        if same && !name.contains('+') && !found.contains(name) {
            found.push(name);
        }
    }
    found
}

/// Each name with a model that has it, at most six.
fn owners(names: &[&str], models: &[&Model]) -> Vec<String> {
    let owned = names.iter().filter_map(|name| {
        let model = models.iter().find(|model| has_profile(model, name))?;
        Some(format!("{name} ({})", model.key))
    });
    owned.take(6).collect()
}

/// A finding if the layout fits on none of the models that have all its profiles, or if
/// there is no such model.
fn check_layout(wanted: &Wanted, geometries: &[Geometry], problems: &mut Problems) {
    let mut failed: Option<Diagnostic> = None;
    let mut owner_of_all = wanted.mig.listed.is_empty();
    // The cards that come nearest, for the message.
    let mut tight: Vec<(&Geometry, Vec<usize>)> = Vec::new();
    for geometry in geometries {
        let found: Option<Vec<usize>> = wanted
            .mig
            .profiles()
            .map(|name| geometry.find(&name.value))
            .collect();
        let Some(profiles) = found else { continue };
        owner_of_all = true;
        if place(geometry, &profiles, &[]).is_none() {
            tight.push((geometry, profiles));
            continue;
        }
        match mig::check_parts(geometry, profiles.into_iter(), &wanted.mig) {
            None => return,
            Some(wrong) => failed = failed.or(Some(wrong)),
        }
    }
    let near = |(geometry, profiles): &(&Geometry, Vec<usize>)| {
        advice::nearest_profiles(geometry, profiles).len()
    };
    if failed.is_none()
        && let Some(most) = tight.iter().map(near).max()
    {
        tight.retain(|candidate| near(candidate) == most);
        let names: Vec<&str> = tight
            .iter()
            .map(|(geometry, _)| geometry.model.as_str())
            .collect();
        let (geometry, profiles) = &tight[0];
        let whose = match &names[..] {
            [one, other] => format!("{one} or {other}"),
            [one, _, _, ..] => format!("{one} or any other model"),
            _ => geometry.model.clone(),
        };
        failed = Some(mig::does_not_fit(geometry, profiles, &wanted.mig, &whose));
    }
    if !owner_of_all && let [first, .., last] = &wanted.mig.listed[..] {
        failed = Some(first.blame(
            Diagnostic::error("no model has all of these profiles").hint(format!(
                "`{}` and `{}` are of different models; give each its own entry in `gpus`",
                bare(&first.value),
                bare(&last.value)
            )),
        ));
    }
    if let Some(failed) = failed {
        problems.push(failed);
    }
}

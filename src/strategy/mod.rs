//! From what is wanted and what was seen to what is done with each card.
//!
//! `check_offline` refuses before any connection what no card could do;
//! `decide` picks a target for each card of a host; `steps` says how to get
//! there; `template_vars` gives the templates what they print. A technology is
//! one file that implements `Strategy`, with its shell functions beside it, and
//! one line in `STRATEGIES`. Pure: no room here reads or changes anything.

mod advice;
mod around;
mod auto;
mod census;
mod cmdline;
mod files;
mod fit;
mod force;
mod geometry;
mod group;
mod health;
mod level_zero;
mod mig;
mod mig_mode;
mod mig_steps;
mod mps;
mod none;
mod offline;
mod parted;
mod partition;
mod passthrough;
mod power;
mod rocm;
mod solver;
mod spread;
mod sriov;
mod tenants;
mod time_slicing;
mod usage;
mod vgpu;

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::catalog::{Catalog, Model, Technology};
use crate::desired::{ApplyStrategy, Choice, Desired, Isolation, Match, Wanted, index_of};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu, Holder, HostFacts, Init, PciAddress, Vendor};
use crate::shell::Command;
use crate::step::{Phase, Step, StepId};

pub use census::{Card as CardCensus, Row as CensusRow, Slices, census};
pub use cmdline::{KernelArguments, KernelChange, kernel_arguments};
pub use files::KeptFile;
pub use fit::{Fit, FitInstance, Need, fit};
pub use group::{Member, Share, share};
pub use offline::check as check_offline;
pub use power::{Boot, HOW_TO_ALLOW, REBOOT_TIMEOUT_S, When, reboot_step};
pub use usage::in_use;

use tenants::{Served, Tenants};

/// The technologies that this version carries out. A new one is a file and a line here. Their
/// order is that in which slices come back at boot.
static STRATEGIES: [&dyn Strategy; 10] = [
    &none::NoSlices,
    &mig::Mig,
    &mps::Mps,
    &time_slicing::TimeSlicing,
    &sriov::Sriov,
    &level_zero::LevelZero,
    &vgpu::VgpuDevices,
    &partition::Partition,
    &rocm::Rocm,
    &passthrough::Passthrough,
];

/// Shell functions that no single strategy owns.
const SHARED_LIBRARY: [&str; 5] = [
    include_str!("use.sh"),
    include_str!("health.sh"),
    include_str!("cdi.sh"),
    CDI_SPEC_LIBRARY,
    include_str!("sysfs.sh"),
];

/// Shell functions that write container device specifications for cards whose vendor has no
/// tool for it: `cdi_spec VENDOR`, `cdi_write VENDOR`.
pub const CDI_SPEC_LIBRARY: &str = include_str!("cdi_spec.sh");

/// One technology.
trait Strategy: Sync {
    /// Which.
    fn technology(&self) -> Technology;

    /// Whether it is for cards of this vendor at all.
    fn is_for(&self, vendor: Vendor) -> bool;

    /// What can be seen to be wrong without a host. `models` are all that the values may
    /// meet; never empty.
    fn check(&self, wanted: &Wanted, desired: &Desired, models: &[&Model], problems: &mut Problems);

    /// A target for each card that is to be sliced this way.
    fn decide(&self, asks: &[Ask<'_>], desired: &Desired) -> Result<Vec<Decision>, Problems>;

    /// Whether the values mean the card at all, where they tell cards apart by themselves. One
    /// that is not meant is left alone.
    fn means(&self, _: &Ask<'_>) -> bool {
        true
    }

    /// What keeps the tenants of a card apart; none where nothing does, so that `auto` never
    /// picks it.
    fn isolation(&self) -> Option<Isolation> {
        None
    }

    /// Values by which it gives tenants what they need of a card, or why it cannot, in a part
    /// of a sentence. Only asked of one that isolates.
    fn serve(&self, _: &Tenants<'_>) -> Result<Served, String> {
        Err("`auto` does not reckon with it".to_owned())
    }

    /// Shell functions that its steps and the boot script call. For each line `WORD ARGUMENT…`
    /// of its boot file the script calls `boot_WORD` with the arguments.
    fn library(&self) -> &'static str;

    /// Name of the file below `/etc/deploy/gpu` that the boot script reads for it.
    fn boot_file(&self) -> Option<&'static str> {
        None
    }

    /// Files that it keeps on a host, of which `cards` are the cards that it slices there, as
    /// the templates see them; never empty.
    fn files(&self, _cards: &[Json]) -> Vec<KeptFile> {
        Vec::new()
    }

    /// Paths outside of `/etc/deploy/gpu` that nobody but it writes: what it does not keep
    /// there is removed.
    fn own_paths(&self) -> &'static [&'static str] {
        &[]
    }

    /// Its slices that a card has now, where there are any that can be counted.
    fn found(&self, _: &Gpu) -> Vec<Slices> {
        Vec::new()
    }

    /// The steps that take off a card what it made there, where another technology comes. They
    /// go before the other's steps, those of technologies that come back last at boot first;
    /// not asked where the new target says that it `keeps` this.
    ///
    /// # Errors
    /// What it made could not be told.
    fn removal(&self, _gpu: &Gpu, _when: When) -> Result<Vec<Step>, Problems> {
        Ok(Vec::new())
    }

    /// The same where it takes more to tell than one card: what each of these cards, which go
    /// to other technologies, is to be without its slices; none where there is nothing to say.
    fn unsliced(&self, asks: &[Ask<'_>]) -> Vec<Option<Arc<dyn Target>>> {
        vec![None; asks.len()]
    }

    /// Whether what it made keeps others from readying a card for a reboot, so that its
    /// `removal` comes before that too.
    fn holds_cards(&self) -> bool {
        false
    }

    /// Shell functions that only its steps call.
    fn steps_library(&self) -> &'static str {
        ""
    }
}

/// What is to become of one card, ready to be compared with what it is.
pub trait Target: Debug + Send + Sync {
    /// What differs, as steps in order; none if the card is as wanted.
    ///
    /// # Errors
    /// Says why the card must not or cannot be changed.
    fn steps(&self, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems>;

    /// Whether somebody who holds the card is in the way of these steps.
    fn in_the_way(&self, _: &Gpu, _: &Holder, _: &[Step]) -> bool {
        true
    }

    /// Why only a reboot brings the card there, if that is so.
    fn needs_boot(&self, _: &Gpu) -> Option<String> {
        None
    }

    /// What has to be done before a reboot, so that it brings the card there.
    ///
    /// # Errors
    /// As `steps`.
    fn before_boot(&self, _: &Gpu) -> Result<Vec<Step>, Problems> {
        Ok(Vec::new())
    }

    /// The slices that the card is to have, as `Strategy::found` counts them; none where
    /// nothing on the host could be counted.
    fn slices(&self) -> Option<Vec<Slices>> {
        None
    }

    /// A call that succeeds only if the card answers, sliced like this.
    fn answers(&self, gpu: &Gpu) -> Command {
        health::by_driver(gpu)
    }

    /// Changes the steps that take off the card what others made there, where what comes then
    /// matters to them.
    fn prepare_removal(&self, _: &Gpu, _: &mut [Step]) {}

    /// Whether it sees itself to what another technology made on the card.
    fn keeps(&self, _technology: Technology) -> bool {
        false
    }

    /// Whether the card's vendor's driver has it before and after, so that its tool reads it
    /// back.
    fn asks_driver(&self, _: &Gpu) -> bool {
        true
    }

    /// What the templates need to bring it back after a reboot; null if nothing.
    fn vars(&self, gpu: &Gpu) -> Json;
}

/// A card and what was decided for it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The card's address.
    pub pci: PciAddress,
    /// The card, as messages call it.
    pub label: String,
    /// How it is sliced.
    pub technology: Technology,
    /// Why so, in a sentence.
    pub why: String,
    /// What the user should know of it: hints, limits, lacking isolation.
    pub notes: Vec<String>,
    /// What is to become of it.
    pub target: Arc<dyn Target>,
    /// What it is to be without the slices of others, as far as those say so for all cards.
    unsliced: Vec<(Technology, Arc<dyn Target>)>,
}

/// One card with what is wanted of it.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    gpu: &'a Gpu,
    /// The host that it is in.
    host: &'a HostFacts,
    /// Its place among the host's cards by PCI address.
    position: usize,
    model: Option<&'a Model>,
    wanted: &'a Wanted,
    /// Whether the values above `gpus` apply, so that it takes its share of `request`.
    is_default: bool,
    /// Set where `auto` picked the technology.
    picked: Option<&'a auto::Pick>,
}

impl Ask<'_> {
    fn decision(&self, technology: Technology, target: impl Target + 'static) -> Decision {
        let why = match self.picked {
            Some(pick) => format!("`auto` picked {technology}: {}", pick.reason),
            None => format!("the variables ask for {technology}"),
        };
        Decision {
            pci: self.gpu.pci,
            label: self.gpu.label(),
            technology,
            notes: self.picked.map(|_| why.clone()).into_iter().collect(),
            why,
            target: Arc::new(target),
            unsliced: Vec::new(),
        }
    }
}

/// The strategy of a technology; a test holds that there is one for each.
fn strategy_of(technology: Technology) -> Option<&'static dyn Strategy> {
    STRATEGIES
        .into_iter()
        .find(|strategy| strategy.technology() == technology)
}

/// Picks a target for each card of a host. Nothing is decided where slices are not managed.
///
/// # Errors
/// Says which cards cannot be what is wanted, and what they could be.
pub fn decide(
    desired: &Desired,
    facts: &HostFacts,
    catalog: &Catalog,
) -> Result<Vec<Decision>, Problems> {
    if !desired.slicing.enabled.value {
        return Ok(Vec::new());
    }
    let mut problems = Problems::default();
    if facts.gpus.is_empty()
        && let Choice::Use(technology) = desired.slicing.default.strategy.value
        && technology != Technology::None
    {
        let strategy = &desired.slicing.default.strategy;
        let missing =
            format!("no GPU was found on this host, and the variables ask for {technology}");
        return Err(strategy
            .blame(Diagnostic::error(missing))
            .hint("`strategy: auto` and `strategy: none` take a host without a GPU; `deploy discover` shows what was seen")
            .into());
    }
    let (picks, found) = picks(desired, facts, catalog);
    problems.extend(found);
    let asks = asks(desired, facts, catalog, &picks);
    for (technology, ask) in &asks {
        let whole = [Technology::Passthrough, Technology::None];
        if !whole.contains(technology) && passthrough::return_of(ask.gpu, ask.host).is_some() {
            let message = format!(
                "{} is handed over to virtual machines, so that its own driver does not have it",
                ask.gpu.label()
            );
            let hint = "apply `strategy: none` first, which takes it back, and then this";
            let diagnostic = Diagnostic::error(message).hint(hint);
            problems.push(ask.wanted.strategy.blame(diagnostic));
        }
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let mut decisions = Vec::new();
    for strategy in STRATEGIES {
        let technology = strategy.technology();
        let chosen = asks.iter().filter(|(other, _)| *other == technology);
        let mut able = Vec::new();
        for (_, ask) in chosen {
            match lacks(strategy, ask, facts) {
                Lack::Nothing => able.push(*ask),
                Lack::NotMeant => {}
                Lack::Refused(diagnostic) => problems.push(diagnostic),
            }
        }
        if able.is_empty() {
            continue;
        }
        match strategy.decide(&able, desired) {
            Ok(decided) => decisions.extend(decided),
            Err(found) => problems.extend(found),
        }
    }
    let mut decisions = problems.or(decisions)?;
    decisions.sort_by_key(|decision| decision.pci);
    unslice(&mut decisions, &asks);
    if desired.state.apply_strategy.value == ApplyStrategy::Skip {
        report_only(&mut decisions, facts);
    }
    Ok(decisions)
}

/// Has each technology say what becomes of the cards that go to others.
fn unslice(decisions: &mut [Decision], asks: &[(Technology, Ask<'_>)]) {
    for strategy in STRATEGIES {
        let technology = strategy.technology();
        let others = asks.iter().filter(|(other, _)| *other != technology);
        let others: Vec<Ask<'_>> = others.map(|(_, ask)| *ask).collect();
        for (ask, target) in others.iter().zip(strategy.unsliced(&others)) {
            let decision = decisions.iter_mut().find(|d| d.pci == ask.gpu.pci);
            if let (Some(decision), Some(target)) = (decision, target) {
                decision.unsliced.push((technology, target));
            }
        }
    }
}

/// What `auto` picked for each card; none where a technology is named, or nothing does what is
/// asked for, which is among the findings.
fn picks(
    desired: &Desired,
    facts: &HostFacts,
    catalog: &Catalog,
) -> (Vec<Option<auto::Pick>>, Problems) {
    let mut problems = Problems::default();
    let mut pick = |(position, gpu): (usize, &Gpu)| {
        let (wanted, is_default) = wanted_for(desired, facts, position, catalog);
        if let Choice::Use(_) = wanted.strategy.value {
            return None;
        }
        let index = index_of(&facts.gpus, position);
        auto::pick(wanted, desired, is_default, (gpu, index), catalog)
            .map_err(|found| problems.push(found))
            .ok()
    };
    let picks = facts.gpus.iter().enumerate().map(&mut pick).collect();
    (picks, problems)
}

/// Each card with what is wanted of it, and by which technology. A card for which `auto` found
/// none is left out.
fn asks<'a>(
    desired: &'a Desired,
    facts: &'a HostFacts,
    catalog: &'a Catalog,
    picks: &'a [Option<auto::Pick>],
) -> Vec<(Technology, Ask<'a>)> {
    let cards = facts.gpus.iter().zip(picks).enumerate();
    let asks = cards.filter_map(|(position, (gpu, picked))| {
        let (wanted, is_default) = wanted_for(desired, facts, position, catalog);
        let technology = match wanted.strategy.value {
            Choice::Use(technology) => technology,
            Choice::Auto => picked.as_ref()?.technology,
        };
        let picked = picked.as_ref();
        let ask = Ask {
            gpu,
            host: facts,
            position,
            model: gpu.model.known().and_then(|key| catalog.by_key(key)),
            wanted: picked
                .and_then(|pick| pick.wanted.as_ref())
                .unwrap_or(wanted),
            is_default,
            picked,
        };
        Some((technology, ask))
    });
    asks.collect()
}

/// The steps that bring a host's cards to what was decided; none if all are so. Where
/// a card needs a reboot and there is leave, all that a boot takes away comes after it.
///
/// # Errors
/// Says which cards must not be changed (in use, mode pending) and why.
pub fn steps(
    decisions: &[Decision],
    facts: &HostFacts,
    desired: &Desired,
    boot: Boot,
) -> Result<Vec<Step>, Problems> {
    if desired.state.apply_strategy.value == ApplyStrategy::Skip {
        return Ok(Vec::new());
    }
    let cards: Vec<(&Decision, &Gpu)> = decisions
        .iter()
        .filter_map(|decision| {
            let gpu = facts.gpus.iter().find(|gpu| gpu.pci == decision.pci)?;
            Some((decision, gpu))
        })
        .collect();
    let waiting: Vec<String> = cards
        .iter()
        .filter(|_| boot.allowed)
        .filter_map(|(decision, gpu)| decision.target.needs_boot(gpu))
        .collect();
    let drained = !desired.state.drain_command.value.is_empty();
    let forced = !drained && desired.state.apply_strategy.value == ApplyStrategy::Force;
    let mut held = force::Held::default();
    let mut ask = |gpu: &Gpu, problems: &mut Problems| match (drained, forced) {
        (true, _) => {}
        (false, true) => held.add(gpu, problems),
        (false, false) => usage::refuse_if_used(gpu, problems),
    };
    let mut problems = Problems::default();
    let mut steps = Vec::new();
    let mut when = match boot.before {
        true => When::AfterBoot,
        false => When::Now,
    };
    if !waiting.is_empty() {
        when = When::AfterBoot;
        refuse_without_systemd(&waiting, facts, &mut problems);
        for (decision, gpu) in &cards {
            match before_boot(decision, gpu) {
                // Also what a boot takes away: here it goes because it stands in its way.
                Ok(found) => {
                    for step in found {
                        // Two cards may want the same of their host.
                        if steps.iter().any(|other: &Step| other.id == step.id) {
                            continue;
                        }
                        steps.push(Step {
                            phase: Phase::Prepare,
                            ..step
                        });
                    }
                }
                Err(found) => problems.extend(found),
            }
        }
        for gpu in &facts.gpus {
            ask(gpu, &mut problems);
        }
        steps.push(power::reboot_for(waiting, facts));
    }
    for (decision, gpu) in &cards {
        let found = match card_steps(decision, gpu, when) {
            Ok(found) => found,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        if when == When::Now && found.iter().any(usage::needs_idle) {
            let mut gpu = Gpu::clone(gpu);
            let all = gpu.clone();
            if let Fact::Known(holders) = &mut gpu.holders {
                holders.retain(|holder| decision.target.in_the_way(&all, holder, &found));
            }
            ask(&gpu, &mut problems);
        }
        steps.extend(found);
    }
    let mut steps = around::arranged(problems.or(steps)?);
    if drained {
        around::drain(&mut steps, &desired.state);
    }
    held.put_around(&mut steps);
    Ok(steps)
}

/// Steps of a card's target behind those that take off what other technologies made there.
fn card_steps(decision: &Decision, gpu: &Gpu, when: When) -> Result<Vec<Step>, Problems> {
    let mut steps = Vec::new();
    // What lives in the slices of another was made after those, and goes before them.
    for strategy in STRATEGIES.iter().rev() {
        let technology = strategy.technology();
        if technology == decision.technology || decision.target.keeps(technology) {
            continue;
        }
        steps.extend(strategy.removal(gpu, when)?);
        for (_, whole) in decision.unsliced.iter().filter(|(of, _)| *of == technology) {
            steps.extend(whole.steps(gpu, when)?);
        }
    }
    decision.target.prepare_removal(gpu, &mut steps);
    steps.extend(decision.target.steps(gpu, when)?);
    Ok(steps)
}

/// What is done on a card before a reboot. What the reboot ends anyway goes first, as it may
/// hold what is to be changed; what brings slices back at boot may make it once more.
fn before_boot(decision: &Decision, gpu: &Gpu) -> Result<Vec<Step>, Problems> {
    let mut steps = Vec::new();
    for strategy in STRATEGIES
        .iter()
        .rev()
        .filter(|strategy| strategy.holds_cards())
    {
        for mut step in strategy.removal(gpu, When::Now)? {
            step.id = StepId(format!("before-boot:{}", step.id));
            steps.push(step);
        }
    }
    steps.extend(decision.target.before_boot(gpu)?);
    Ok(steps)
}

/// A run goes on after a reboot by a unit of systemd.
fn refuse_without_systemd(waiting: &[String], facts: &HostFacts, problems: &mut Problems) {
    if let Init::Other(init) = &facts.init {
        let message = format!(
            "{}, and this host does not run systemd but {init}: nothing would go on with the run after the reboot",
            waiting.join("; ")
        );
        let hint = "restart it yourself after `nvidia-smi -mig`, and run again";
        problems.push(Diagnostic::error(message).hint(hint));
    }
}

/// What the templates print: one list a technology (`mig`, `time_slicing`, `sriov`), each
/// entry a card; `files`, what is kept on the host (`files::kept`); `boot_files`, those that the
/// boot script reads, in its order, and `library`, the shell functions that it calls.
#[must_use]
pub fn template_vars(decisions: &[Decision], facts: &HostFacts) -> Json {
    let mut lists = serde_json::Map::new();
    for strategy in STRATEGIES {
        let technology = strategy.technology();
        let cards: Vec<Json> = decisions
            .iter()
            .filter(|decision| decision.technology == technology)
            .filter_map(|decision| {
                let gpu = facts.gpus.iter().find(|gpu| gpu.pci == decision.pci)?;
                let vars = decision.target.vars(gpu);
                (!vars.is_null()).then_some(vars)
            })
            .collect();
        lists.insert(files::list_name(technology), Json::Array(cards));
    }
    let kept = files::kept(&lists, facts);
    lists.insert("files".to_owned(), kept);
    lists.insert("boot_files".to_owned(), json!(files::boot_files()));
    lists.insert("library".to_owned(), Json::String(boot_library()));
    json!({ "gpu_slices": lists })
}

/// POSIX shell functions that the steps' scripts call.
#[must_use]
pub fn host_library() -> String {
    let mut text = boot_library() + include_str!("cmdline.sh");
    for strategy in STRATEGIES {
        text.push_str(strategy.steps_library());
    }
    text
}

/// Those of them that the boot script calls as well.
#[must_use]
pub fn boot_library() -> String {
    let mut text = SHARED_LIBRARY.concat();
    for strategy in STRATEGIES {
        text.push_str(strategy.library());
    }
    text
}

/// The values that apply to the card at `position`, and whether they are those above `gpus`.
fn wanted_for<'a>(
    desired: &'a Desired,
    facts: &HostFacts,
    position: usize,
    catalog: &Catalog,
) -> (&'a Wanted, bool) {
    let entries = &desired.slicing.gpus;
    let found = entries
        .iter()
        .find(|entry| matches(&entry.select, facts, position, catalog));
    match found {
        Some(entry) => (&entry.wanted, false),
        None => (&desired.slicing.default, true),
    }
}

/// What to say of entries of `gpus` that match no card of the host. That is no error, as one
/// list may serve hosts that differ; but a card that was to stay whole may not be meant by it.
#[must_use]
pub fn unmatched(desired: &Desired, facts: &HostFacts, catalog: &Catalog) -> Vec<String> {
    if !desired.slicing.enabled.value || facts.gpus.is_empty() {
        return Vec::new();
    }
    let idle = desired.slicing.gpus.iter().filter(|entry| {
        let mut cards = 0..facts.gpus.len();
        !cards.any(|position| matches(&entry.select, facts, position, catalog))
    });
    idle.map(|entry| match &entry.select.origin {
        Some(origin) => {
            format!("no card of this host is matched by the entry of `gpus` at {origin}")
        }
        None => "no card of this host is matched by an entry of `gpus`".to_owned(),
    })
    .collect()
}

fn matches(select: &Match, facts: &HostFacts, position: usize, catalog: &Catalog) -> bool {
    let gpu = &facts.gpus[position];
    let index = index_of(&facts.gpus, position);
    let is_model = |name: &str| {
        let key = gpu.model.known();
        let named = catalog.by_name(name);
        named.iter().any(|model| Some(&model.key) == key)
            || gpu
                .nvidia
                .known()
                .is_some_and(|nvidia| nvidia.name.eq_ignore_ascii_case(name))
    };
    select
        .devices
        .iter()
        .all(|device| device.value.names(gpu, index))
        && select
            .vendor
            .as_ref()
            .is_none_or(|vendor| vendor.value == gpu.vendor)
        && select
            .model
            .as_ref()
            .is_none_or(|model| is_model(&model.value))
}

enum Lack {
    Nothing,
    /// The values above `gpus` are for cards of another vendor, of which the host has some; or
    /// they say themselves that they are not for this card.
    NotMeant,
    Refused(Diagnostic),
}

/// Whether the card's vendor and model have the technology.
fn lacks(strategy: &dyn Strategy, ask: &Ask<'_>, facts: &HostFacts) -> Lack {
    let technology = strategy.technology();
    let meant = facts.gpus.iter().any(|gpu| strategy.is_for(gpu.vendor));
    let other_vendor = !strategy.is_for(ask.gpu.vendor) && ask.is_default && meant;
    if other_vendor || !strategy.means(ask) {
        return Lack::NotMeant;
    }
    let has = match ask.model {
        _ if technology == Technology::None => return Lack::Nothing,
        Some(model) if model.technologies.contains(&technology) => return Lack::Nothing,
        Some(model) => offline::listed(&model.technologies),
        None if strategy.is_for(ask.gpu.vendor) => return Lack::Nothing,
        None => "nothing that this version knows".to_owned(),
    };
    Lack::Refused(
        ask.wanted.strategy.blame(
            Diagnostic::error(format!("{} has no {technology}", ask.gpu.label()))
                .hint(format!("it has {has}")),
        ),
    )
}

/// With `apply_strategy: skip` nothing is changed: each difference becomes a note.
fn report_only(decisions: &mut [Decision], facts: &HostFacts) {
    for decision in decisions {
        let Some(gpu) = facts.gpus.iter().find(|gpu| gpu.pci == decision.pci) else {
            continue;
        };
        let said = match card_steps(decision, gpu, When::Now) {
            Ok(steps) => steps.into_iter().map(|step| step.title).collect(),
            Err(found) => found.0.into_iter().map(|d| d.message).collect::<Vec<_>>(),
        };
        decision.notes.extend(
            said.into_iter()
                .map(|what| format!("not done, because `apply_strategy` is `skip`: {what}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_technology_has_a_strategy() {
        for technology in Technology::ALL {
            assert!(strategy_of(technology).is_some(), "{technology}");
        }
    }
}

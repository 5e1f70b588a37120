//! `containers_gpu_slicing`: which cards are sliced, and how.
//!
//! Each entry of `gpus` takes what it does not say from the values above it, so
//! that a `Wanted` is complete wherever it stands. A strategy and a sub-block
//! that were written at the same level and contradict each other are an error.

use crate::catalog::Technology;
use crate::error::{Diagnostic, Origin, Problems};
use crate::facts::Vendor;
use crate::value::Node;

use super::DeviceRef;
use super::auto::{self, AutoWanted};
use super::block::{Block, Located, wrong_kind};
use super::compute::{self, ComputeSplit};
use super::level_zero::{self, LevelZeroWanted};
use super::mig_parted::{self, MigParted};
use super::mps::{self, MpsWanted};
use super::partition::{self, PartitionWanted};
use super::request::{self, Request};
use super::rocm::{self, RocmWanted};
use super::vf_share::{self, VfShareWanted};
use super::vgpu::{self, VgpuWanted};

/// `containers_gpu_slicing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Slicing {
    /// `enabled`: whether slices are managed at all.
    pub enabled: Located<bool>,
    /// What is wanted of each card that no entry of `gpus` matches.
    pub default: Wanted,
    /// `gpus`: the first entry that matches a card wins.
    pub gpus: Vec<GpuEntry>,
    /// `request`: totals for the host, instead of `mig.profiles`; empty if not given.
    pub request: Vec<Request>,
    /// `request_group`: the group of the inventory over all of whose hosts the totals go,
    /// where they are not for the host alone.
    pub request_group: Option<Located<String>>,
    /// Where the whole stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// An entry of `gpus`.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuEntry {
    /// Which cards.
    pub select: Match,
    /// What is wanted of them.
    pub wanted: Wanted,
}

/// `match` of an entry: a card must have all that is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// `index`, `pci` and `uuid`, as far as given.
    pub devices: Vec<Located<DeviceRef>>,
    /// `model`: a catalog key, or a name that fits several, such as `H100`.
    pub model: Option<Located<String>>,
    /// `vendor`.
    pub vendor: Option<Located<Vendor>>,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// `strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// `auto`: picked for each card.
    Auto,
    /// A named one.
    Use(Technology),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Use(technology) => technology.fmt(f),
        }
    }
}

/// What is wanted of one card, made from one line a technology: key of its block, type, who
/// reads it, and the technology that its `enabled` switches on and off.
macro_rules! technologies {
    ($($key:ident: $wanted:ty, $read:path, $technology:ident;)*) => {
        /// What is wanted of one card.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Wanted {
            /// `strategy`.
            pub strategy: Located<Choice>,
            /// `auto`.
            pub auto: AutoWanted,
            $(
                #[doc = concat!("`", stringify!($key), "`.")]
                pub $key: $wanted,
            )*
        }

        impl Wanted {
            /// What stands in `block`, with defaults where nothing does.
            fn read(block: &mut Block<'_, '_>, strategy: Located<Choice>) -> Self {
                Self {
                    strategy,
                    auto: auto::read(block),
                    $($key: $read(block),)*
                }
            }

            /// The same with blocks that nobody wrote taken from `above`.
            fn or(self, above: &Self) -> Self {
                Self {
                    strategy: self.strategy,
                    auto: if self.auto.origin.is_some() { self.auto } else { above.auto.clone() },
                    $($key: if self.$key.origin.is_some() { self.$key } else { above.$key.clone() },)*
                }
            }

            /// Each technology that has a block, with its key and its switch.
            fn switches(&self) -> Vec<(Technology, &'static str, &Located<bool>)> {
                vec![$((Technology::$technology, stringify!($key), &self.$key.enabled),)*]
            }
        }
    };
}

technologies! {
    mig: MigWanted, read_mig, Mig;
    time_slicing: TimeSlicingWanted, read_time_slicing, TimeSlicing;
    mps: MpsWanted, mps::read, Mps;
    sriov: SriovWanted, read_sriov, Sriov;
    vgpu: VgpuWanted, vgpu::read, Vgpu;
    level_zero: LevelZeroWanted, level_zero::read, LevelZero;
    partition: PartitionWanted, partition::read, Partition;
    rocm: RocmWanted, rocm::read, Rocm;
}

/// `mig`.
#[derive(Debug, Clone, PartialEq)]
pub struct MigWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `profiles`, as written; `profiles()` repeats them.
    pub listed: Vec<Located<String>>,
    /// `gpu_instance_count`: how often the list of profiles is made on each card.
    pub gpu_instance_count: Located<u32>,
    /// `compute_instance_count`: into how many equal compute instances each GPU
    /// instance is split.
    pub compute_instance_count: Located<u32>,
    /// `compute_instances`: profiles that are split into parts of unequal size.
    pub compute_instances: Vec<ComputeSplit>,
    /// `mig_parted`: a configuration file of mig-parted to take the layout from.
    pub mig_parted: Option<MigParted>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

impl MigWanted {
    /// The profiles of one card: the list, `gpu_instance_count` times.
    pub fn profiles(&self) -> impl Iterator<Item = &Located<String>> {
        let times = self.gpu_instance_count.value as usize;
        std::iter::repeat_n(&self.listed, times).flatten()
    }

    /// The key that says which profiles each card gets, and where; none if nothing does.
    pub(super) fn layout(&self) -> Option<(&'static str, &Located<String>)> {
        let parted = self.mig_parted.as_ref();
        let parted = parted.map(|parted| ("mig_parted", &parted.file));
        let listed = self.listed.first().map(|first| ("profiles", first));
        listed.or(parted)
    }
}

/// `time_slicing`.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeSlicingWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `max_instance_count`: how many containers may share a card (replicas).
    pub max_instance_count: Located<u32>,
    /// `slice_duration`.
    pub slice_duration: Located<SliceDuration>,
    /// `share_policy`.
    pub share_policy: Located<SharePolicy>,
    /// Where the block stands.
    pub origin: Option<Origin>,
}

/// `time_slicing.slice_duration`: one of the driver's words, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceDuration {
    /// `default`, `short`, `medium` or `long`: 0 to 3, as `--set-timeslice` takes them.
    Level(u8),
    /// A time in microseconds, such as 100000 for `100ms`.
    Micros(u64),
}

/// `time_slicing.share_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharePolicy {
    /// Everybody gets the same turns.
    Equal,
    /// Some get more.
    Weighted,
}

/// `sriov`.
#[derive(Debug, Clone, PartialEq)]
pub struct SriovWanted {
    /// `enabled`.
    pub enabled: Located<bool>,
    /// `vf_count`: virtual functions of each card.
    pub vf_count: Located<u32>,
    /// `pf_device`: the only card that is sliced; all that can be if none is given.
    pub pf_device: Option<Located<DeviceRef>>,
    /// `vf_devices`: PCI addresses that must be among the virtual functions afterwards.
    pub vf_devices: Vec<Located<DeviceRef>>,
    /// `drivers_autoprobe`: whether the kernel binds drivers to new virtual functions at
    /// once; left alone if not given.
    pub drivers_autoprobe: Option<Located<bool>>,
    /// `driver`: whether virtual functions are bound to vfio-pci, for virtual machines; left to
    /// the kernel if not given.
    pub for_machines: Option<Located<()>>,
    /// What each virtual function gets.
    pub share: VfShareWanted,
    /// Where the block stands.
    pub origin: Option<Origin>,
}

/// More than any card or host has; keeps a slip of the finger from filling memory.
pub(super) const MOST_INSTANCES: u32 = 1024;

pub(super) fn read(node: Option<&Node>, problems: &mut Problems) -> Slicing {
    let mut block = Block::new("containers_gpu_slicing", node, problems);
    let origin = block.origin.clone();
    let enabled = block.flag("enabled", false);
    let base = Wanted::unsaid();
    let default = read_wanted(&mut block, &base, enabled.value);
    let gpus = read_entries(&mut block, &default, enabled.value);
    let request_group = request::read_group(&mut block);
    let request = request::read(&mut block, request_group.as_ref());
    if enabled.value {
        request::check(&mut block, &default, &request);
    }
    block.finish();
    Slicing {
        enabled,
        default,
        gpus,
        request,
        request_group,
        origin,
    }
}

impl Wanted {
    /// What an inventory that says nothing wants: the seed's defaults.
    fn unsaid() -> Self {
        let mut none = Problems::default();
        let mut block = Block::new("", None, &mut none);
        Self::read(
            &mut block,
            Located::default_of(Choice::Use(Technology::None)),
        )
    }
}

/// Reads `strategy` and the sub-blocks that stand in `block`; what does not stand
/// there is taken from `above`.
fn read_wanted(block: &mut Block<'_, '_>, above: &Wanted, managed: bool) -> Wanted {
    let named = Technology::ALL.map(|technology| (technology.name(), Choice::Use(technology)));
    let words: Vec<(&'static str, Choice)> =
        named.into_iter().chain([("auto", Choice::Auto)]).collect();
    let strategy = block.word("strategy", above.strategy.value, &words);
    let strategy = if strategy.is_written() {
        strategy
    } else {
        above.strategy.clone()
    };
    let own = Wanted::read(block, strategy);
    if managed {
        check_switches(block, &own.strategy, &own.switches());
        check_auto(block, &own.strategy, &own.auto, &own.mig);
    }
    own.or(above)
}

/// A block that is switched against the strategy is an error. With `auto` the
/// switches say what may be picked, so nothing contradicts it.
fn check_switches(
    block: &mut Block<'_, '_>,
    strategy: &Located<Choice>,
    switches: &[(Technology, &str, &Located<bool>)],
) {
    let Choice::Use(chosen) = strategy.value else {
        return;
    };
    for (technology, name, enabled) in switches {
        let Some(origin) = &enabled.origin else {
            continue;
        };
        // MPS also runs on the slices that MIG makes.
        if chosen == Technology::Mig && *technology == Technology::Mps {
            continue;
        }
        let (message, hint) = if *technology == chosen && !enabled.value {
            (
                format!("`strategy: {chosen}` contradicts `{name}.enabled: false`"),
                format!("set `{name}.enabled: true`, or remove it: the strategy implies it"),
            )
        } else if *technology != chosen && enabled.value {
            let said = if strategy.is_written() {
                format!("`strategy: {chosen}`")
            } else {
                format!("the strategy, which is `{chosen}` where none is given,")
            };
            (
                format!("{said} contradicts `{name}.enabled: true`"),
                format!("set `strategy: {technology}`, or `{name}.enabled: false`"),
            )
        } else {
            continue;
        };
        let mut diagnostic = Diagnostic::error(message).at(origin).hint(hint);
        if let Some(strategy) = &strategy.origin {
            diagnostic = diagnostic.related(strategy, "the strategy is chosen here");
        }
        block.problems.push(diagnostic);
    }
}

/// `auto` is for `strategy: auto` alone, and says what the profiles would say otherwise.
fn check_auto(
    block: &mut Block<'_, '_>,
    strategy: &Located<Choice>,
    auto: &AutoWanted,
    mig: &MigWanted,
) {
    let Some(origin) = &auto.origin else { return };
    if let Choice::Use(chosen) = strategy.value {
        let message =
            format!("`auto` is read by `strategy: auto` only, and the strategy is `{chosen}`");
        let diagnostic = Diagnostic::error(message)
            .at(origin)
            .hint("set `strategy: auto`, or leave the block out");
        block.problems.push(diagnostic);
    }
    if let Some((name, layout)) = mig.layout() {
        let message = format!("`auto` and `mig.{name}` contradict each other");
        let diagnostic = Diagnostic::error(message)
            .at(origin)
            .hint("say what tenants need, or which profiles there are to be");
        block.problems.push(match &layout.origin {
            Some(origin) => diagnostic.related(origin, "the profiles stand here"),
            None => diagnostic,
        });
    }
}

fn read_mig(parent: &mut Block<'_, '_>) -> MigWanted {
    let mut block = parent.child("mig");
    let origin = block.origin.clone();
    let wanted = MigWanted {
        enabled: block.flag("enabled", false),
        listed: block.texts("profiles").value,
        gpu_instance_count: block.count("gpu_instance_count", 1, 1, MOST_INSTANCES),
        compute_instance_count: block.count("compute_instance_count", 1, 1, MOST_INSTANCES),
        compute_instances: compute::read(&mut block),
        mig_parted: mig_parted::read(&mut block),
        origin,
    };
    mig_parted::check_alone(&wanted, block.problems);
    block.finish();
    wanted
}

fn read_time_slicing(parent: &mut Block<'_, '_>) -> TimeSlicingWanted {
    let mut block = parent.child("time_slicing");
    let origin = block.origin.clone();
    let wanted = TimeSlicingWanted {
        enabled: block.flag("enabled", false),
        // One replica is no sharing; the device plugin refuses it.
        max_instance_count: block.count("max_instance_count", 8, 2, MOST_INSTANCES),
        slice_duration: read_duration(&mut block),
        share_policy: block.word(
            "share_policy",
            SharePolicy::Equal,
            &[
                ("equal", SharePolicy::Equal),
                ("weighted", SharePolicy::Weighted),
            ],
        ),
        origin,
    };
    block.finish();
    wanted
}

fn read_duration(block: &mut Block<'_, '_>) -> Located<SliceDuration> {
    let Some(node) = block.node("slice_duration") else {
        return Located::default_of(SliceDuration::Micros(100_000));
    };
    let value = node.as_str().and_then(parse_duration);
    if value.is_none() {
        let path = block.path_of("slice_duration");
        block.problems.push(wrong_kind(
            &path,
            "a time with its unit such as `100ms`, or one of `default`, `short`, `medium`, `long`",
            node,
        ));
    }
    Located {
        value: value.unwrap_or(SliceDuration::Level(0)),
        origin: Some(node.origin.clone()),
    }
}

fn parse_duration(text: &str) -> Option<SliceDuration> {
    let level = ["default", "short", "medium", "long"]
        .iter()
        .position(|word| *word == text)
        .and_then(|level| u8::try_from(level).ok());
    if let Some(level) = level {
        return Some(SliceDuration::Level(level));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let micros = match unit.trim_start() {
        "us" => number,
        "ms" => number.checked_mul(1_000)?,
        "s" => number.checked_mul(1_000_000)?,
        _ => return None,
    };
    (micros > 0).then_some(SliceDuration::Micros(micros))
}

fn read_sriov(parent: &mut Block<'_, '_>) -> SriovWanted {
    let mut block = parent.child("sriov");
    let origin = block.origin.clone();
    let wanted = SriovWanted {
        enabled: block.flag("enabled", false),
        vf_count: block.count("vf_count", 4, 1, 65_535),
        pf_device: block.device("pf_device"),
        vf_devices: block.devices("vf_devices").value,
        drivers_autoprobe: block.flag_if_written("drivers_autoprobe"),
        for_machines: Some(block.word("driver", (), &[("vfio-pci", ())]))
            .filter(Located::is_written),
        share: vf_share::read(&mut block),
        origin,
    };
    for device in &wanted.vf_devices {
        if !matches!(device.value, DeviceRef::Pci(_)) {
            let diagnostic = Diagnostic::error(format!(
                "a virtual function is named by its PCI address, not by `{}`",
                device.value
            ));
            block.problems.push(device.blame(diagnostic));
        }
    }
    if wanted.vf_devices.len() > wanted.vf_count.value as usize {
        let diagnostic = Diagnostic::error(format!(
            "`sriov.vf_devices` names {} virtual functions, but `vf_count` is {}",
            wanted.vf_devices.len(),
            wanted.vf_count.value
        ));
        block.problems.push(wanted.vf_devices[0].blame(diagnostic));
    }
    block.finish();
    wanted
}

fn read_entries(block: &mut Block<'_, '_>, default: &Wanted, managed: bool) -> Vec<GpuEntry> {
    let Some(node) = block.node("gpus") else {
        return Vec::new();
    };
    let path = block.path_of("gpus");
    let Some(items) = node.as_seq() else {
        let diagnostic = wrong_kind(&path, "a list of entries with `match`", node);
        block.problems.push(diagnostic);
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let mut entry = Block::new(&format!("{path}[{index}]"), Some(item), block.problems);
        let select = read_match(&mut entry, item);
        let wanted = read_wanted(&mut entry, default, managed);
        entry.finish();
        entries.push(GpuEntry { select, wanted });
    }
    entries
}

fn read_match(parent: &mut Block<'_, '_>, entry: &Node) -> Match {
    let mut block = parent.child("match");
    let origin = block.origin.clone().or_else(|| Some(entry.origin.clone()));
    let devices: Vec<_> = ["index", "pci", "uuid"]
        .into_iter()
        .filter_map(|key| {
            let device = block.device(key)?;
            let fits = matches!(
                (key, &device.value),
                ("index", DeviceRef::Index(_))
                    | ("pci", DeviceRef::Pci(_))
                    | ("uuid", DeviceRef::Uuid(_))
            );
            if !fits {
                let diagnostic =
                    Diagnostic::error(format!("`{}` is no value for `match.{key}`", device.value));
                block.problems.push(device.blame(diagnostic));
            }
            Some(device)
        })
        .collect();
    let model = Some(block.text("model", "")).filter(|model| !model.value.is_empty());
    let vendor = Some(block.word(
        "vendor",
        Vendor::Nvidia,
        &[
            ("nvidia", Vendor::Nvidia),
            ("amd", Vendor::Amd),
            ("intel", Vendor::Intel),
        ],
    ))
    .filter(Located::is_written);
    let names_nothing = devices.is_empty() && model.is_none() && vendor.is_none();
    block.finish();
    if names_nothing && let Some(origin) = &origin {
        parent.problems.push(
            Diagnostic::error("the entry says with no `match` which cards it is for")
                .at(origin)
                .hint("give `match: {index: 0}`, or `pci`, `uuid`, `model`, `vendor`"),
        );
    }
    Match {
        devices,
        model,
        vendor,
        origin,
    }
}

//! `containers_gpu_container_integration`, `containers_gpu_state_management`
//! and `gpu_policy`.

use crate::error::Problems;
use crate::value::{Node, Value, Vars};

use super::block::{Block, Located, wrong_kind};

/// `containers_gpu_container_integration`: what runs the containers that get slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Integration {
    /// `runtime`.
    pub runtime: Located<ContainerRuntime>,
    /// `device_plugin`.
    pub device_plugin: Located<DevicePlugin>,
    /// `resource_limits`.
    pub resource_limits: ResourceLimits,
}

/// `containers_gpu_container_integration.runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerRuntime {
    /// `crun`.
    Crun,
    /// `runc`.
    Runc,
}

/// `containers_gpu_container_integration.device_plugin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevicePlugin {
    /// NVIDIA's.
    Nvidia,
    /// AMD's.
    Amd,
    /// Intel's.
    Intel,
}

/// `containers_gpu_container_integration.resource_limits`: for one container.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceLimits {
    /// `memory_gb`: GB of the host's memory that a container may use; fractions are allowed.
    pub memory_gb: Located<f64>,
    /// `compute_units`.
    pub compute_units: Located<u32>,
    /// `gpu_instances`.
    pub gpu_instances: Located<u32>,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory_gb: Located::default_of(8.0),
            compute_units: Located::default_of(4),
            gpu_instances: Located::default_of(1),
        }
    }
}

/// `containers_gpu_state_management`: how careful a change is.
#[derive(Debug, Clone, PartialEq)]
pub struct StateManagement {
    /// `apply_strategy`.
    pub apply_strategy: Located<ApplyStrategy>,
    /// `reboot_required`: leave to restart the host once, where a change needs that; as
    /// `--allow-reboot`, but for the hosts that have the variable.
    pub reboot_required: Located<bool>,
    /// `validation`.
    pub validation: Located<bool>,
    /// `health_check`.
    pub health_check: Located<bool>,
    /// `drain_command`: program and arguments that take the work off the host before a
    /// disruptive change; empty if none is given.
    pub drain_command: Located<Vec<String>>,
    /// `undrain_command`: program and arguments that let the work back; empty if none.
    pub undrain_command: Located<Vec<String>>,
}

/// `containers_gpu_state_management.apply_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyStrategy {
    /// Change what is idle; stop where a GPU is in use.
    Auto,
    /// Stop known units that hold a GPU and start them again.
    Force,
    /// Change nothing, only report.
    Skip,
}

/// `gpu_policy`: how many instances may get a whole GPU, or a software share of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuPolicy {
    /// One; a second is an error.
    Exclusive,
    /// Several, with a warning.
    Shared,
}

pub(super) fn read_integration(vars: &Vars, problems: &mut Problems) -> Integration {
    let name = "containers_gpu_container_integration";
    let mut block = Block::new(name, vars.get(name), problems);
    let runtime = block.word(
        "runtime",
        ContainerRuntime::Crun,
        &[
            ("crun", ContainerRuntime::Crun),
            ("runc", ContainerRuntime::Runc),
        ],
    );
    let device_plugin = block.word(
        "device_plugin",
        DevicePlugin::Nvidia,
        &[
            ("nvidia", DevicePlugin::Nvidia),
            ("amd", DevicePlugin::Amd),
            ("intel", DevicePlugin::Intel),
        ],
    );
    let mut limits = block.child("resource_limits");
    let resource_limits = ResourceLimits {
        memory_gb: gigabytes(&mut limits),
        compute_units: limits.count("compute_units", 4, 1, 1_000_000),
        gpu_instances: limits.count("gpu_instances", 1, 1, 1_000),
    };
    limits.finish();
    block.finish();
    Integration {
        runtime,
        device_plugin,
        resource_limits,
    }
}

fn gigabytes(limits: &mut Block<'_, '_>) -> Located<f64> {
    let Some(node) = limits.node("memory_gb") else {
        return Located::default_of(8.0);
    };
    let number = match &node.value {
        Value::Int(value) => u32::try_from(*value).ok().map(f64::from),
        Value::Float(value) => Some(*value),
        Value::Str(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    if number.is_none() {
        let path = limits.path_of("memory_gb");
        limits
            .problems
            .push(wrong_kind(&path, "a number of GB above 0", node));
    }
    Located {
        value: number.unwrap_or(8.0),
        origin: Some(node.origin.clone()),
    }
}

pub(super) fn read_state(vars: &Vars, problems: &mut Problems) -> StateManagement {
    let name = "containers_gpu_state_management";
    let mut block = Block::new(name, vars.get(name), problems);
    let state = StateManagement {
        apply_strategy: block.word(
            "apply_strategy",
            ApplyStrategy::Auto,
            &[
                ("auto", ApplyStrategy::Auto),
                ("force", ApplyStrategy::Force),
                ("skip", ApplyStrategy::Skip),
            ],
        ),
        reboot_required: block.flag("reboot_required", false),
        validation: block.flag("validation", true),
        health_check: block.flag("health_check", true),
        drain_command: command(&mut block, "drain_command"),
        undrain_command: command(&mut block, "undrain_command"),
    };
    block.finish();
    state
}

/// A command as Ansible takes it: a list of words, or a text for the shell.
fn command(block: &mut Block<'_, '_>, key: &'static str) -> Located<Vec<String>> {
    let Some(node) = block.node(key) else {
        return Located::default_of(Vec::new());
    };
    let words = match &node.value {
        Value::Str(text) if text.trim().is_empty() => Some(Vec::new()),
        Value::Str(text) => Some(vec!["sh".to_owned(), "-c".to_owned(), text.clone()]),
        Value::Seq(items) => items
            .iter()
            .map(|item: &Node| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    if words.is_none() {
        let path = block.path_of(key);
        block.problems.push(wrong_kind(
            &path,
            "a command: a string or a list of strings",
            node,
        ));
    }
    Located {
        value: words.unwrap_or_default(),
        origin: Some(node.origin.clone()),
    }
}

pub(super) fn read_policy(vars: &Vars, problems: &mut Problems) -> Located<GpuPolicy> {
    // A block without name over all variables, of which only this one is asked
    // for; `finish` is not called, the rest is not ours.
    let map = vars.get("gpu_policy").map(|node| {
        let entry = crate::value::Entry {
            key: node.origin.clone(),
            node: node.clone(),
        };
        let map = crate::value::Map::from([("gpu_policy".to_owned(), entry)]);
        Node::new(Value::Map(map), node.origin.clone())
    });
    let mut block = Block::new("", map.as_ref(), problems);
    block.word(
        "gpu_policy",
        GpuPolicy::Exclusive,
        &[
            ("exclusive", GpuPolicy::Exclusive),
            ("shared", GpuPolicy::Shared),
        ],
    )
}

//! What experience says of virtual machines with GPUs: sentences for the plan, never errors.
//!
//! The figures are those of Hikube's page on good practice: 8 to 16 virtual processors and at
//! least 32 GB of memory for each GPU, 64 to 128 for training; data that several machines or a
//! restart must find on replicated storage, scratch data on a local disk; a network with RDMA
//! where several GPUs work together.

use serde_json::Value as Json;

use crate::catalog::InstanceType;
use crate::desired::Block;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Training,
    Inference,
    Rendering,
}

/// What is known of one machine, or of each machine of a group.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// What sentences call it.
    pub(super) what: &'a str,
    pub(super) purpose: Option<Purpose>,
    pub(super) gpus: u32,
    pub(super) instance_type: Option<&'a InstanceType>,
    /// Its instance type, where the catalog does not know it.
    pub(super) unknown_type: Option<&'a str>,
    pub(super) system_disk: Option<&'a Json>,
    pub(super) disks: Option<&'a Json>,
    pub(super) network: Option<&'a Json>,
}

/// Virtual processors for each GPU.
const VCPUS: std::ops::RangeInclusive<u32> = 8..=16;
/// GiB of memory for each GPU, at least.
const MEMORY_GIB: u32 = 32;
/// The same where a model is trained.
const TRAINING_MEMORY_GIB: u32 = 64;

/// `use`: what a machine is for.
pub(super) fn purpose(block: &mut Block<'_, '_>) -> Option<Purpose> {
    block.node("use")?;
    let words = [
        ("training", Purpose::Training),
        ("inference", Purpose::Inference),
        ("rendering", Purpose::Rendering),
    ];
    Some(block.word("use", Purpose::Inference, &words).value)
}

/// All that can be said.
pub(super) fn of(facts: &Facts<'_>) -> Vec<String> {
    let mut said = Vec::new();
    let what = facts.what;
    if let Some(known) = facts.instance_type
        && facts.gpus > 0
    {
        let vcpus = known.vcpus / facts.gpus;
        if !VCPUS.contains(&vcpus) {
            said.push(format!(
                "{what}: {} has {vcpus} vCPU a GPU; {} to {} suit most work",
                known.name,
                VCPUS.start(),
                VCPUS.end()
            ));
        }
        let least = match facts.purpose {
            Some(Purpose::Training) => TRAINING_MEMORY_GIB,
            _ => MEMORY_GIB,
        };
        let memory = known.memory_gib / facts.gpus;
        if memory < least {
            said.push(format!(
                "{what}: {} has {memory} GiB of memory a GPU; at least {least} are advised",
                known.name
            ));
        }
    }
    if let Some(name) = facts.unknown_type {
        said.push(format!(
            "{what}: instance type `{name}` is not in the catalog, so that its number of GPUs was not checked"
        ));
    }
    let class = |disk: &Json| disk["storageClass"].as_str().map(str::to_owned);
    if facts.system_disk.and_then(class).as_deref() == Some("local") {
        said.push(format!(
            "{what}: its system disk is on local storage, and is lost with the node; `replicated` is not"
        ));
    }
    if facts.purpose == Some(Purpose::Training) {
        let disks = facts.disks.and_then(Json::as_array);
        let mut disks = disks.into_iter().flatten();
        if !disks.any(|disk| class(disk).as_deref() == Some("local")) {
            said.push(format!(
                "{what}: no disk with `storageClass: local` is there for scratch data"
            ));
        }
    }
    if facts.gpus > 1 && facts.network.is_some_and(|network| !has_multus(network)) {
        said.push(format!(
            "{what}: {} GPUs and no `multus` network; work that spans machines is slow without RDMA",
            facts.gpus
        ));
    }
    said
}

fn has_multus(network: &Json) -> bool {
    let interfaces = network["interfaces"].as_array();
    let mut interfaces = interfaces.into_iter().flatten();
    interfaces.any(|interface| interface.get("multus").is_some())
}

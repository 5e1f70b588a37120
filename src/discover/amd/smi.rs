//! `amd-smi`, both programs of that name: ROCm's (Python, for `amdgpu`) and that of the
//! SR-IOV host driver GIM (C++). Options, shapes and return codes differ; `version` tells which.

use serde_json::Value as Json;

use crate::facts::{AmdTool, AmdToolKind, GimMode, PciAddress};

use super::text::{cards, entries, list, rows, said, value_of};

/// Which program printed this, for `version`.
#[must_use]
pub fn version(text: &str) -> Option<AmdTool> {
    let after = |name: &str| {
        let at = text.find(name)? + name.len();
        let rest = text[at..].trim_start_matches([':', ' ']);
        let word = rest.split([' ', '|', '\n']).next()?;
        said(word).map(str::to_owned)
    };
    // ROCm's says `AMDSMI Tool: 25.2.0+f4ad5ee | AMDSMI Library version: …`.
    if text.contains("TOOL_NAME") {
        let version = after("TOOL_VERSION")?;
        return Some(AmdTool {
            kind: AmdToolKind::GimAmdSmi,
            version,
        });
    }
    let version = after("AMDSMI Tool")?;
    Some(AmdTool {
        kind: AmdToolKind::RocmAmdSmi,
        version,
    })
}

/// A card or a partition, as `list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Number for the tool; ROCm's counts partitions, GIM's cards.
    pub gpu: u32,
    /// Address; for a partition, the function is its number.
    pub bdf: PciAddress,
    /// The partition's number, as ROCm's says it.
    pub partition: Option<u32>,
    /// N of `/dev/dri/renderDN` (`list -e`).
    pub render_minor: Option<u32>,
    /// Addresses of the virtual functions, as GIM's says them.
    pub vfs: Vec<PciAddress>,
}

/// `list`, `list -e` and GIM's `discovery`, as text, as JSON or as CSV.
#[must_use]
pub fn listed(text: &str) -> Vec<Listed> {
    if let Ok(json) = serde_json::from_str::<Json>(text) {
        return listed_json(&json);
    }
    if text.starts_with("gpu,") {
        return listed_csv(text);
    }
    let entries = entries(text);
    let card = |gpu: u32| {
        let of_card = |path: &str| value_of(&entries, gpu, path);
        let vfs = entries.iter().filter(|entry| {
            entry.gpu == Some(gpu) && entry.path.starts_with("VF ") && entry.path.ends_with("/BDF")
        });
        Some(Listed {
            gpu,
            bdf: of_card("BDF")?.parse().ok()?,
            partition: of_card("PARTITION_ID").and_then(|id| id.parse().ok()),
            render_minor: of_card("RENDER")
                .and_then(|node| node.strip_prefix("renderD")?.parse().ok()),
            vfs: vfs.filter_map(|entry| entry.value.parse().ok()).collect(),
        })
    };
    cards(&entries).into_iter().filter_map(card).collect()
}

fn number(value: &Json) -> Option<u32> {
    match value {
        Json::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Json::String(text) => text.parse().ok(),
        // `{"value": 32768, "unit": "MB"}`
        Json::Object(map) => number(map.get("value")?),
        _ => None,
    }
}

/// The array of cards: the answer itself, or below a name (`gpu_data`, `current_partition`).
fn array(json: &Json) -> &[Json] {
    match json {
        Json::Array(items) => items,
        Json::Object(map) => map
            .values()
            .find_map(|value| value.as_array().map(Vec::as_slice))
            .unwrap_or(&[]),
        _ => &[],
    }
}

fn listed_json(json: &Json) -> Vec<Listed> {
    let bdf = |value: &Json| value.get("bdf")?.as_str()?.parse::<PciAddress>().ok();
    let card = |value: &Json| {
        let vfs = value.get("vfs").map_or(&[][..], array);
        Some(Listed {
            gpu: number(value.get("gpu")?)?,
            bdf: bdf(value)?,
            partition: value.get("partition_id").and_then(number),
            render_minor: None,
            vfs: vfs.iter().filter_map(bdf).collect(),
        })
    };
    array(json).iter().filter_map(card).collect()
}

/// A line a virtual function: `gpu,gpu_bdf,gpu_uuid,vf,vf_bdf,vf_uuid`.
fn listed_csv(text: &str) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [gpu, bdf, _, rest @ ..] = &cells[..] else {
            continue;
        };
        let (Ok(gpu), Ok(bdf)) = (gpu.parse(), bdf.parse()) else {
            continue;
        };
        let vf = rest.get(1).and_then(|vf| vf.parse().ok());
        match found.last_mut().filter(|last| last.gpu == gpu) {
            Some(last) => last.vfs.extend(vf),
            None => found.push(Listed {
                gpu,
                bdf,
                partition: None,
                render_minor: None,
                vfs: vf.into_iter().collect(),
            }),
        }
    }
    found
}

/// How a card is partitioned, as a tool says it. Partitions of a card are rows of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parted {
    /// Number for the tool.
    pub gpu: u32,
    /// Address, where the answer has it.
    pub bdf: Option<PciAddress>,
    /// `SPX` to `CPX`.
    pub compute: Option<String>,
    /// `NPS1` to `NPS8`.
    pub memory: Option<String>,
    /// Numbers of the partitions in this row: one, or all of them in the first row
    /// of a card and none in the others, as ROCm 6.4.0 had it.
    pub ids: Vec<u32>,
    /// Memory in MiB (`static`).
    pub memory_mib: Option<u64>,
}

/// `partition --current`, `partition` and `static`, as table, as indented text or as JSON.
#[must_use]
pub fn parted(text: &str) -> Vec<Parted> {
    if let Ok(json) = serde_json::from_str::<Json>(text) {
        return array(&json).iter().filter_map(parted_json).collect();
    }
    let table = rows(text, "GPU_ID");
    let row = |words: &Vec<&str>| {
        let [gpu, memory, compute, _, ids] = words[..] else {
            return None;
        };
        Some(Parted {
            gpu: gpu.parse().ok()?,
            compute: said(compute).map(str::to_owned),
            memory: said(memory).map(str::to_owned),
            ids: list(ids).iter().filter_map(|id| id.parse().ok()).collect(),
            ..Parted::default()
        })
    };
    let found: Vec<Parted> = table.iter().filter_map(row).collect();
    if !found.is_empty() {
        return found;
    }
    let entries = entries(text);
    let card = |gpu: u32| {
        let value = |name: &str| value_of(&entries, gpu, name);
        let ids = value("PARTITION_ID").map(list).unwrap_or_default();
        Parted {
            gpu,
            bdf: value("BUS/BDF").and_then(|bdf| bdf.parse().ok()),
            compute: value("COMPUTE_PARTITION")
                .or(value("ACCELERATOR_PARTITION"))
                .map(str::to_owned),
            memory: value("MEMORY_PARTITION").map(str::to_owned),
            ids: ids.iter().filter_map(|id| id.parse().ok()).collect(),
            memory_mib: value("VRAM/SIZE").and_then(mib),
        }
    };
    cards(&entries).into_iter().map(card).collect()
}

/// `196592 MB`; the tools mean MiB.
fn mib(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    (unit == "MB").then(|| number.parse().ok())?
}

fn parted_json(value: &Json) -> Option<Parted> {
    let gpu = number(value.get("gpu").or(value.get("gpu_id"))?)?;
    let partition = value.get("partition").unwrap_or(value);
    let word = |name: &str| {
        let word = partition.get(name)?.as_str()?;
        said(word).map(str::to_owned)
    };
    let ids = match partition.get("partition_id") {
        Some(Json::String(text)) => list(text).iter().filter_map(|id| id.parse().ok()).collect(),
        Some(other) => number(other).into_iter().collect(),
        None => Vec::new(),
    };
    let bdf = value.get("bus").and_then(|bus| bus.get("bdf"));
    let size = value.get("vram").and_then(|vram| vram.get("size"));
    Some(Parted {
        gpu,
        bdf: bdf.and_then(|bdf| bdf.as_str()?.parse().ok()),
        compute: word("compute_partition").or_else(|| word("accelerator_type")),
        memory: word("memory_partition").or_else(|| word("memory")),
        ids,
        memory_mib: size.and_then(number).map(u64::from),
    })
}

/// A row of `partition --accelerator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Card or partition it is said of.
    pub gpu: u32,
    /// What `set -C` takes in place of the mode's name.
    pub index: u32,
    /// The mode.
    pub mode: String,
    /// Memory modes that go with it.
    pub memory: Vec<String>,
    /// Whether it is in force.
    pub current: bool,
}

/// `partition --accelerator`. Without root every cell is `N/A` and the tool ends well.
#[must_use]
pub fn profiles(text: &str) -> Vec<Profile> {
    let mut gpu = None;
    let mut found = Vec::new();
    for words in rows(text, "GPU_ID") {
        // 11 words begin a card, 10 a profile of it, 4 are one more resource.
        let words = match words.len() {
            11 => {
                gpu = words[0].parse().ok();
                &words[1..]
            }
            10 => &words[..],
            _ => continue,
        };
        let (Some(gpu), Ok(index)) = (gpu, words[0].parse()) else {
            continue;
        };
        found.push(Profile {
            gpu,
            index,
            mode: words[2].trim_end_matches('*').to_owned(),
            memory: list(words[1]),
            current: words[2].ends_with('*'),
        });
    }
    found
}

/// GIM's `partition --global`: which numbers of virtual functions each compute mode allows, by
/// the number of the card.
#[must_use]
pub fn global(text: &str) -> Vec<(u32, GimMode)> {
    let mut gpu = None;
    let mut found = Vec::new();
    for words in rows(text, "GPU") {
        let words = match words.len() {
            4 => {
                gpu = words[0].parse().ok();
                &words[1..]
            }
            3 => &words[..],
            _ => continue,
        };
        let Some(gpu) = gpu else { continue };
        let counts = list(words[1]);
        found.push((
            gpu,
            GimMode {
                compute: words[0].to_owned(),
                vf_counts: counts
                    .iter()
                    .filter_map(|count| count.parse().ok())
                    .collect(),
                memory: list(words[2]),
            },
        ));
    }
    found
}

/// GIM's `static`: enabled and supported virtual functions of each card.
#[must_use]
pub fn vf_counts(text: &str) -> Vec<(u32, Option<u32>, Option<u32>)> {
    let entries = entries(text);
    let count = |gpu, name: &str| value_of(&entries, gpu, name)?.parse().ok();
    cards(&entries)
        .into_iter()
        .map(|gpu| {
            (
                gpu,
                count(gpu, "NUM_VF_ENABLED"),
                count(gpu, "NUM_VF_SUPPORTED"),
            )
        })
        .collect()
}

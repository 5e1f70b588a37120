//! `mig.compute_instances`: into which compute instances GPU instances of a profile are split,
//! where they are not all of one size.

use crate::value::Node;

use super::block::{Block, Located, wrong_kind};

/// One line of `mig.compute_instances`.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputeSplit {
    /// Name of the GPU instances' profile.
    pub profile: Located<String>,
    /// Compute slices of each compute instance, in the order in which they are made.
    pub slices: Vec<u32>,
}

pub(super) fn read(block: &mut Block<'_, '_>) -> Vec<ComputeSplit> {
    let Some(node) = block.node("compute_instances") else {
        return Vec::new();
    };
    let path = block.path_of("compute_instances");
    let Some(map) = node.as_map() else {
        let wanted = "a mapping of profiles to lists such as `3g.40gb: [2c, 1c]`";
        block.problems.push(wrong_kind(&path, wanted, node));
        return Vec::new();
    };
    let mut splits = Vec::new();
    for (profile, entry) in map {
        let Some(slices) = slices(&entry.node) else {
            let path = format!("{path}.{profile}");
            let wanted = "a list of compute instances such as `[2c, 1c]`";
            block.problems.push(wrong_kind(&path, wanted, &entry.node));
            continue;
        };
        splits.push(ComputeSplit {
            profile: Located {
                value: profile.clone(),
                origin: Some(entry.key.clone()),
            },
            slices,
        });
    }
    splits
}

/// `[2, 1]` of `[2c, 1c]`, in the sizes that NVIDIA's drivers offer.
fn slices(node: &Node) -> Option<Vec<u32>> {
    let items = node.as_seq().filter(|items| !items.is_empty())?;
    let one = |item: &Node| {
        let count: u32 = item.as_str()?.strip_suffix('c')?.parse().ok()?;
        [1, 2, 3, 4, 7].contains(&count).then_some(count)
    };
    items.iter().map(one).collect()
}

//! Which vGPU goes to which function of a card.

use sha1::{Digest, Sha1};

use crate::error::nearest;
use crate::facts::{Fact, Gpu, VgpuHost, VgpuInstance, VgpuType};

/// A vGPU at its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed {
    /// Number of the virtual function, from 0; none where the card itself carries it.
    pub(super) function: Option<u32>,
    /// Id of its type.
    pub(super) type_id: u32,
    /// The UUID that it has, or gets where it is a mediated device.
    pub(super) uuid: String,
}

impl Placed {
    /// The word that the host's functions take; see the head of `vgpu.sh`.
    pub(super) fn word(&self) -> String {
        format!("{}={}:{}", self.place(), self.type_id, self.uuid)
    }

    fn place(&self) -> String {
        self.function
            .map_or_else(|| "card".to_owned(), |number| number.to_string())
    }

    /// Whether both are the same vGPU: a function that carries its own needs no UUID.
    pub(super) fn is(&self, other: &Self) -> bool {
        let alike = self.uuid == other.uuid || self.uuid == "-" || other.uuid == "-";
        self.function == other.function && self.type_id == other.type_id && alike
    }
}

/// What exists, as placed; none if it is not known.
pub(super) fn existing(gpu: &Gpu, host: &VgpuHost) -> Option<Vec<Placed>> {
    let functions = gpu.sriov.known().map_or(&[][..], |sriov| &sriov.vfs);
    let placed = |vgpu: &VgpuInstance| {
        let number = functions.iter().position(|(pci, _)| *pci == vgpu.parent);
        Placed {
            function: number.and_then(|number| u32::try_from(number).ok()),
            type_id: vgpu.type_id,
            uuid: vgpu.uuid.known().cloned().unwrap_or_else(|| "-".to_owned()),
        }
    };
    match &host.existing {
        Fact::Known(existing) => Some(existing.iter().map(placed).collect()),
        Fact::Absent => Some(Vec::new()),
        Fact::Unknown(_) => None,
    }
}

/// A place for each wanted type. Those that exist stay where they are; the others go to the
/// first functions that are free. None if there are more than functions.
pub(super) fn place(
    card: &str,
    functions: Option<u32>,
    wanted: &[u32],
    existing: &[Placed],
) -> Option<Vec<Placed>> {
    let mut left: Vec<&Placed> = existing.iter().collect();
    let mut placed: Vec<Placed> = Vec::new();
    let mut new = Vec::new();
    for type_id in wanted {
        match left.iter().position(|vgpu| vgpu.type_id == *type_id) {
            Some(at) => {
                let mut there = left.remove(at).clone();
                if there.uuid == "-" {
                    there.uuid = uuid(card, there.function, *type_id, 0);
                }
                placed.push(there);
            }
            None => new.push(*type_id),
        }
    }
    for type_id in new {
        let function = match functions {
            None => None,
            Some(count) => {
                let taken = |number: &u32| placed.iter().any(|p| p.function == Some(*number));
                Some((0..count).find(|number| !taken(number))?)
            }
        };
        // On a card without virtual functions several of a type stand side by side.
        let uuid = (0..=placed.len())
            .map(|turn| uuid(card, function, type_id, turn))
            .find(|uuid| placed.iter().all(|other| other.uuid != *uuid))?;
        placed.push(Placed {
            function,
            type_id,
            uuid,
        });
    }
    placed.sort();
    Some(placed)
}

/// A UUID that the same place and type always give, so that plans of the same are the same.
fn uuid(card: &str, function: Option<u32>, type_id: u32, turn: usize) -> String {
    let place = function.map_or_else(|| "card".to_owned(), |number| number.to_string());
    let digest = Sha1::digest(format!("deploy vgpu {card} {place} {type_id} {turn}"));
    let mut bytes: Vec<u8> = digest.iter().copied().take(16).collect();
    // RFC 9562: version 5, variant 10.
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The type that a user's word means.
pub(super) fn find<'a>(types: &'a [VgpuType], name: &str) -> Option<&'a VgpuType> {
    types.iter().find(|kind| {
        kind.short().eq_ignore_ascii_case(name) || kind.name.eq_ignore_ascii_case(name)
    })
}

/// What there is instead of `name`: the nearest, and those of the same series.
pub(super) fn offer(name: &str, types: &[&str]) -> String {
    let series = name.chars().last();
    let alike: Vec<&str> = types
        .iter()
        .copied()
        .filter(|kind| kind.chars().last() == series)
        .collect();
    let listed = if alike.is_empty() {
        types.to_vec()
    } else {
        alike
    };
    let all = format!("it offers {}", listed.join(", "));
    match nearest(name, types.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_stays_and_the_rest_fills_the_first_places() {
        let there = Placed {
            function: Some(3),
            type_id: 7,
            uuid: "u".to_owned(),
        };
        let gone = Placed {
            function: Some(0),
            type_id: 9,
            uuid: "v".to_owned(),
        };
        let placed = place("GPU-1", Some(4), &[7, 7, 7], &[there.clone(), gone]).expect("room");
        let places: Vec<Option<u32>> = placed.iter().map(|p| p.function).collect();
        assert_eq!(places, [Some(0), Some(1), Some(3)]);
        let unnamed: Vec<Placed> = placed
            .iter()
            .map(|vgpu| Placed {
                uuid: "-".to_owned(),
                ..vgpu.clone()
            })
            .collect();
        let again = place("GPU-1", Some(4), &[7, 7, 7], &unnamed).expect("room");
        assert_eq!(again[..2], placed[..2], "a function that names no UUID");
        assert_eq!(placed[2], there);
        assert_eq!(
            place("GPU-1", Some(4), &[7, 7, 7], &placed),
            Some(placed.clone())
        );
        assert_eq!(place("GPU-1", Some(2), &[7, 7, 7], &[]), None);
        let uuids: std::collections::BTreeSet<&str> =
            placed.iter().map(|p| p.uuid.as_str()).collect();
        assert_eq!(uuids.len(), 3);
        assert_eq!(placed[0].uuid.len(), 36);
        assert_eq!(&placed[0].uuid[14..15], "5");
    }

    #[test]
    fn a_card_without_virtual_functions_carries_all_itself() {
        let placed = place("GPU-1", None, &[7, 7], &[]).expect("room");
        assert_ne!(placed[0].uuid, placed[1].uuid);
        assert!(placed[0].word().starts_with("card=7:"));
    }
}

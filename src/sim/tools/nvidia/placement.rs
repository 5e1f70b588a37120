//! Where the driver puts a GPU instance, and which id it gets.
//!
//! Orders and ids are those that captures of 8-unit cards (A100, H100, H200),
//! A30 and RTX PRO 6000 show: on 8-unit cards the driver keeps room for large
//! instances by starting at the end, and the id follows from kind and place.

use crate::sim::machine::{Gpu, GpuInstance};
use crate::sim::product::{Product, Profile};

/// Whether an instance of `profile` could stand at `start` now.
pub(super) fn fits(product: &Product, gpu: &Gpu, profile: &Profile, start: u32) -> bool {
    profile.starts.contains(&start)
        && units_free(gpu, start, profile.size)
        && compute_left(product, gpu) >= profile.compute
        && engines_left(product, gpu, profile)
        && count(gpu, profile) < profile.max
}

/// Where the driver would put one more instance of `profile`.
pub(super) fn choose(product: &Product, gpu: &Gpu, profile: &Profile, branch: u32) -> Option<u32> {
    preference(product, profile, branch)
        .into_iter()
        .find(|start| fits(product, gpu, profile, *start))
}

/// The id that an instance of `profile` at `start` gets: the usual one of that
/// place, or else the first free one of its kind.
pub(super) fn id_for(
    product: &Product,
    gpu: &Gpu,
    profile: &Profile,
    start: u32,
    branch: u32,
) -> Option<u32> {
    let (usual, pool) = ids(product, profile, start, branch);
    std::iter::once(usual)
        .chain(pool)
        .find(|id| !gpu.instances.iter().any(|instance| instance.id == *id))
}

/// How many more instances of `profile` could be made, all other things as they are.
pub(super) fn free(product: &Product, gpu: &Gpu, profile: &Profile) -> u32 {
    let mut gpu = gpu.clone();
    let mut made = 0;
    let mut starts = profile.starts.clone();
    starts.sort_unstable();
    for start in starts {
        if fits(product, &gpu, profile, start) {
            gpu.instances.push(GpuInstance {
                id: 100 + made,
                profile: profile.id,
                start,
                size: profile.size,
                compute: Vec::new(),
            });
            made += 1;
        }
    }
    made
}

fn units_free(gpu: &Gpu, start: u32, size: u32) -> bool {
    gpu.instances
        .iter()
        .all(|other| start + size <= other.start || other.start + other.size <= start)
}

fn compute_left(product: &Product, gpu: &Gpu) -> u32 {
    let used: u32 = profiles_in_use(product, gpu)
        .map(|profile| profile.compute)
        .sum();
    product.compute.saturating_sub(used)
}

fn engines_left(product: &Product, gpu: &Gpu, wanted: &Profile) -> bool {
    // Copy engines are shared out freely; media engines are not. The profile of
    // the whole card has them all.
    (1..5).all(|engine| {
        let total = product
            .profiles
            .iter()
            .map(|profile| profile.engines[engine])
            .max()
            .unwrap_or(0);
        let used: u32 = profiles_in_use(product, gpu)
            .map(|profile| profile.engines[engine])
            .sum();
        used + wanted.engines[engine] <= total
    })
}

fn profiles_in_use<'a>(product: &'a Product, gpu: &'a Gpu) -> impl Iterator<Item = &'a Profile> {
    gpu.instances
        .iter()
        .filter_map(|instance| product.profile_by_id(instance.profile))
}

fn count(gpu: &Gpu, profile: &Profile) -> u32 {
    let of_kind = gpu
        .instances
        .iter()
        .filter(|instance| instance.profile == profile.id);
    u32::try_from(of_kind.count()).unwrap_or(u32::MAX)
}

/// Starts in the order in which the driver tries them.
fn preference(product: &Product, profile: &Profile, branch: u32) -> Vec<u32> {
    if product.slices != 8 || product.compute != 7 {
        return profile.starts.clone();
    }
    match (profile.compute, profile.size) {
        (1, 1) => vec![6, 4, 5, 0, 1, 2, 3],
        (1, 2) => vec![4, 0, 2, 6],
        (2, 2) => vec![4, 0, 2],
        // Seen with 560.35.03: the first 3g leaves 4 to a 1g of double memory.
        (3, 4) if branch == 560 => vec![0, 4],
        (3, 4) => vec![4, 0],
        _ => profile.starts.clone(),
    }
}

/// The usual id of a kind and place, and the ids of that kind.
fn ids(
    product: &Product,
    profile: &Profile,
    start: u32,
    branch: u32,
) -> (u32, std::ops::RangeInclusive<u32>) {
    if product.slices == 8 && product.compute == 7 {
        return match (profile.compute, profile.size) {
            (1, 1) => (7 + start, 7..=14),
            (1 | 2, 2) => (3 + start / 2, 3..=6),
            // Which half is 1 and which is 2 differs between cards and drivers.
            (3, 4) if branch == 515 => (if start == 4 { 1 } else { 2 }, 1..=2),
            (3, 4) => (if start == 4 { 2 } else { 1 }, 1..=2),
            (4, 4) => (1, 1..=1),
            _ => (0, 0..=0),
        };
    }
    let place = start / profile.size.max(1);
    match profile.compute {
        1 => (3 + place, 3..=6),
        2 => (1 + place, 1..=2),
        _ => (0, 0..=0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::product::PRODUCTS;
    use crate::sim::spec::Reset;

    fn card(key: &str) -> Gpu {
        Gpu {
            product: key.to_owned(),
            name: None,
            pci: "0000:17:00.0".to_owned(),
            uuid: String::new(),
            serial: String::new(),
            mig: true,
            mig_pending: true,
            persistence: true,
            compute_mode: 0,
            timeslice: 0,
            reset: Reset::Works,
            instances: Vec::new(),
            vgpus: Vec::new(),
            heterogeneous: false,
        }
    }

    /// Ids and starts in order of creation; stops at the first that does not fit.
    fn create(key: &str, branch: u32, profiles: &[u32]) -> Vec<(u32, u32)> {
        let product = &PRODUCTS[key];
        let mut gpu = card(key);
        let mut made = Vec::new();
        for id in profiles {
            let profile = product.profile_by_id(*id).expect("the card has it");
            let Some(start) = choose(product, &gpu, profile, branch) else {
                break;
            };
            let id = id_for(product, &gpu, profile, start, branch).expect("ids suffice");
            made.push((id, start));
            gpu.instances.push(GpuInstance {
                id,
                profile: profile.id,
                start,
                size: profile.size,
                compute: Vec::new(),
            });
        }
        made
    }

    #[test]
    fn orders_and_ids_are_those_of_the_captures() {
        // a100-40gb r450 and h100-nvl 550: seven 1g.
        let seven = vec![(13, 6), (11, 4), (12, 5), (7, 0), (8, 1), (9, 2), (10, 3)];
        assert_eq!(create("A100-40GB", 450, &[19; 7]), seven);
        assert_eq!(create("H100-NVL-94GB", 550, &[19; 7]), seven);
        // The MIG guide's two mixed geometries.
        assert_eq!(
            create("A100-40GB", 470, &[9, 19, 14, 19]),
            [(2, 4), (7, 0), (4, 2), (8, 1)]
        );
        assert_eq!(
            create("A100-40GB", 470, &[14, 19, 19, 19, 19, 19]),
            [(5, 4), (13, 6), (7, 0), (8, 1), (9, 2), (10, 3)]
        );
        // The guide's wrong order: the 3g finds no half free.
        assert_eq!(
            create("A100-40GB", 470, &[19, 19, 14, 9]),
            [(13, 6), (11, 4), (3, 0)]
        );
        // a100-80gb 515: two 3g.
        assert_eq!(create("A100-80GB", 515, &[9, 9]), [(1, 4), (2, 0)]);
        // gh200: three 1g of double memory.
        assert_eq!(
            create("H100-96GB_GH200-96GB", 550, &[15; 3]),
            [(5, 4), (3, 0), (4, 2)]
        );
        // h100-nvl 560: 3g, 1g of double memory, 1g.
        assert_eq!(
            create("H100-NVL-94GB", 560, &[9, 15, 19]),
            [(1, 0), (5, 4), (13, 6)]
        );
        // h100 and h200 590: 3g, 2g, 1g, 1g.
        assert_eq!(
            create("H100-80GB", 590, &[9, 14, 19, 19]),
            [(2, 4), (3, 0), (9, 2), (10, 3)]
        );
        // a30 535 and rtx pro 6000.
        assert_eq!(
            create("A30-24GB", 535, &[14, 14, 5]),
            [(3, 0), (4, 1), (2, 2)]
        );
        assert_eq!(
            create("RTX-PRO-6000-96GB", 580, &[14; 4]),
            [(3, 0), (4, 3), (5, 6), (6, 9)]
        );
        assert_eq!(
            create("RTX-PRO-6000-96GB", 580, &[5, 14, 14]),
            [(1, 0), (5, 6), (6, 9)]
        );
    }

    #[test]
    fn only_one_instance_has_the_media_extension() {
        assert_eq!(create("H100-80GB", 590, &[20, 20]).len(), 1);
        assert_eq!(create("RTX-PRO-6000-96GB", 580, &[21, 65]).len(), 1);
    }

    #[test]
    fn what_is_left_shrinks_for_every_profile() {
        let product = &PRODUCTS["H100-80GB"];
        let mut gpu = card("H100-80GB");
        let left = |gpu: &Gpu| -> Vec<u32> {
            product
                .profiles
                .iter()
                .map(|profile| free(product, gpu, profile))
                .collect()
        };
        assert_eq!(left(&gpu), [7, 1, 4, 3, 2, 1, 1]);
        gpu.instances.push(GpuInstance {
            id: 2,
            profile: 9,
            start: 4,
            size: 4,
            compute: Vec::new(),
        });
        assert_eq!(left(&gpu), [4, 1, 2, 2, 1, 1, 0]);
    }
}

//! The tables of `nvidia-smi mig`: profiles, placements, instances.
//!
//! The tables grew wider with each driver branch (rules of 52 to 88 dashes) and gained columns,
//! so nothing here counts columns of text: a row is what stands between the bars, in words.

use crate::facts::Placement;

/// A row of `-lgip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstanceProfile {
    /// Index of the card.
    pub gpu: u32,
    /// Name without the `MIG ` before it.
    pub name: String,
    /// Profile id.
    pub id: u32,
    /// How many more can be created now.
    pub free: u32,
    /// How many fit on an empty card.
    pub total: u32,
    /// GiB times 100.
    pub memory_centi_gib: u32,
    /// Streaming multiprocessors.
    pub sm: u32,
}

/// A line of `-lgipp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilePlacements {
    /// Index of the card.
    pub gpu: u32,
    /// Profile id.
    pub profile_id: u32,
    /// Legal places.
    pub placements: Vec<Placement>,
}

/// A row of `-lgi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstanceRow {
    /// Index of the card.
    pub gpu: u32,
    /// Profile's name.
    pub name: String,
    /// Profile id.
    pub profile_id: u32,
    /// Id of the instance.
    pub gi_id: u32,
    /// Where it lies.
    pub placement: Placement,
}

/// A row of `-lci`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeInstanceRow {
    /// Index of the card.
    pub gpu: u32,
    /// GPU instance.
    pub gi_id: u32,
    /// Profile's name.
    pub name: String,
    /// Profile id.
    pub profile_id: u32,
    /// Id of the instance within the GPU instance.
    pub ci_id: u32,
}

/// A row of `-lcip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeInstanceProfile {
    /// Index of the card.
    pub gpu: u32,
    /// GPU instance.
    pub gi_id: u32,
    /// Profile's name.
    pub name: String,
    /// Profile id.
    pub id: u32,
    /// Whether it is the one that `-C` makes (`*`).
    pub default: bool,
    /// How many more can be created now.
    pub free: u32,
    /// How many fit into an empty GPU instance.
    pub total: u32,
    /// Streaming multiprocessors.
    pub sm: u32,
}

/// The profiles in a `-lgip` table. A row that is cut before its memory and multiprocessors is
/// none.
#[must_use]
pub fn gpu_instance_profiles(text: &str) -> Vec<GpuInstanceProfile> {
    rows(text).filter_map(|row| profile(&row)).collect()
}

/// `0 MIG 1g.10gb+me 20 1/1 9.75 No 16 1 0`
fn profile(row: &[&str]) -> Option<GpuInstanceProfile> {
    let [gpu, "MIG", name, id, count, memory, _p2p, sm, ..] = row else {
        return None;
    };
    let (free, total) = count.split_once('/')?;
    Some(GpuInstanceProfile {
        gpu: number(gpu)?,
        name: profile_name(name)?,
        id: number(id)?,
        free: number(free)?,
        total: number(total)?,
        memory_centi_gib: hundredfold(memory)?,
        sm: number(sm)?,
    })
}

/// The lines of `-lgipp`; `Placement : {0}:8` is the form for one place.
#[must_use]
pub fn placements(text: &str) -> Vec<ProfilePlacements> {
    text.lines().filter_map(placement_line).collect()
}

/// `GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1`
fn placement_line(line: &str) -> Option<ProfilePlacements> {
    let rest = line.trim().strip_prefix("GPU")?;
    let (gpu, rest) = rest.split_once("Profile ID")?;
    let (profile_id, rest) = rest.split_once("Placement")?;
    let (starts, size) = rest.split_once('{')?.1.split_once("}:")?;
    let size = number(size)?;
    let starts: Option<Vec<u32>> = starts.split(',').map(number).collect();
    Some(ProfilePlacements {
        gpu: number(gpu)?,
        profile_id: number(profile_id)?,
        placements: starts?
            .into_iter()
            .map(|start| Placement { start, size })
            .collect(),
    })
}

/// The instances in a `-lgi` table.
#[must_use]
pub fn gpu_instances(text: &str) -> Vec<GpuInstanceRow> {
    rows(text)
        .filter_map(|row| {
            let [gpu, "MIG", name, profile_id, gi_id, place] = row[..] else {
                return None;
            };
            Some(GpuInstanceRow {
                gpu: number(gpu)?,
                name: profile_name(name)?,
                profile_id: number(profile_id)?,
                gi_id: number(gi_id)?,
                placement: placement(place)?,
            })
        })
        .collect()
}

/// The instances in a `-lci` table, with and without the column for the place.
#[must_use]
pub fn compute_instances(text: &str) -> Vec<ComputeInstanceRow> {
    rows(text)
        .filter_map(|row| {
            let [gpu, gi_id, "MIG", name, profile_id, ci_id, ref rest @ ..] = row[..] else {
                return None;
            };
            // A row of -lcip has `free/total` where the id of the instance would be.
            (rest.len() <= 1).then_some(())?;
            Some(ComputeInstanceRow {
                gpu: number(gpu)?,
                gi_id: number(gi_id)?,
                name: profile_name(name)?,
                profile_id: number(profile_id.trim_end_matches('*'))?,
                ci_id: number(ci_id)?,
            })
        })
        .collect()
}

/// The profiles in a `-lcip` table.
#[must_use]
pub fn compute_instance_profiles(text: &str) -> Vec<ComputeInstanceProfile> {
    rows(text)
        .filter_map(|row| {
            let [gpu, gi_id, "MIG", name, id, count, sm, ..] = row[..] else {
                return None;
            };
            let (free, total) = count.split_once('/')?;
            Some(ComputeInstanceProfile {
                gpu: number(gpu)?,
                gi_id: number(gi_id)?,
                name: profile_name(name)?,
                id: number(id.trim_end_matches('*'))?,
                default: id.ends_with('*'),
                free: number(free)?,
                total: number(total)?,
                sm: number(sm)?,
            })
        })
        .collect()
}

/// The words of each line that stands between bars; the right bar may be cut off.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter_map(|line| {
        let inner = line.trim().strip_prefix('|')?;
        Some(inner.trim_end_matches('|').split_whitespace().collect())
    })
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// A profile's name goes into commands and messages, so nothing but its letters may be in it.
fn profile_name(text: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_digit());
    (starts && text.chars().all(legal)).then(|| text.to_owned())
}

/// `4:2`
fn placement(text: &str) -> Option<Placement> {
    let (start, size) = text.split_once(':')?;
    Some(Placement {
        start: number(start)?,
        size: number(size)?,
    })
}

/// `9.75` is 975.
fn hundredfold(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 2 {
        return None;
    }
    number(whole)?.checked_mul(100)?.checked_add(number(part)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_row_is_read_and_its_second_line_passed_over() {
        let text = "\
|   0  MIG 1g.24gb+me.all  65     1/1        23.62      No     46     4     4   |
|                                                               1     4     1   |
";
        let found = gpu_instance_profiles(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "1g.24gb+me.all");
        assert_eq!((found[0].id, found[0].free, found[0].total), (65, 1, 1));
        assert_eq!((found[0].memory_centi_gib, found[0].sm), (2362, 46));
    }

    #[test]
    fn one_place_is_written_differently() {
        let found = placements("GPU  0 Profile ID  0 Placement : {0}:12\n");
        assert_eq!(found[0].placements, [Placement { start: 0, size: 12 }]);
    }

    #[test]
    fn compute_rows_and_profile_rows_are_not_taken_for_each_other() {
        let instance = "|   0      1       MIG 1c.3g.40gb       0         1          1:1     |\n";
        let old = "|   0      1       MIG 1c.3g.20gb       0         2     |\n";
        let profile = "|   0      1       MIG 3g.40gb          2*     1/1           42        2     0     0   |\n";
        assert_eq!(compute_instances(instance)[0].ci_id, 1);
        assert_eq!(compute_instances(old)[0].ci_id, 2);
        assert!(compute_instances(profile).is_empty());
        assert!(compute_instance_profiles(instance).is_empty());
        let found = compute_instance_profiles(profile);
        assert!(found[0].default && found[0].id == 2 && found[0].sm == 42);
    }

    #[test]
    fn a_name_with_shell_letters_is_no_name() {
        let text = "|   0  MIG 1g;reboot  19     7/7        9.75       No     16     1     0   |\n";
        assert!(gpu_instance_profiles(text).is_empty());
    }
}

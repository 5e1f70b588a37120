//! MIG layouts and models as text for a terminal.
//!
//! A layout is one bar: a box of slots whose widths are true to the placement grid, free units
//! dotted. Nothing here knows colours or the terminal; the caller gives the width.

use std::fmt::Write as _;

use crate::step::Slice;

use super::model::{Architecture, Model, ProfileSpec};

/// The widest a grid unit is drawn, in columns; wider would only be empty.
const WIDEST_UNIT: usize = 12;
/// The width that help texts and plans are made for.
pub const USUAL_WIDTH: usize = 80;

/// One layout as a bar of at most `width` columns:
///
/// ```text
/// │3g.40gb                            │2g.20gb          │1g.10gb │········│
/// ```
///
/// Slots are as wide as their share of the `grid`; labels that do not fit are shortened to
/// `1g`. A slice with other compute instances than one of full size names them (`1c+2c`).
/// Where the width leaves no room for a box, the slices are listed as `3g.40gb@0`.
#[must_use]
pub fn bar(grid: u32, slices: &[Slice], width: usize) -> String {
    let mut slices: Vec<&Slice> = slices.iter().collect();
    slices.sort();
    let unit = unit_width(grid, width);
    let Some(unit) = unit.filter(|_| fits(grid, &slices)) else {
        let listed: Vec<String> = slices
            .iter()
            .map(|s| format!("{}@{}", s.profile, s.placement.start))
            .collect();
        return if listed.is_empty() {
            "(none)".to_owned()
        } else {
            listed.join(" ")
        };
    };
    let mut slots = Vec::new();
    for slice in slices {
        let (start, size) = (slice.placement.start, slice.placement.size);
        slots.push((start, size, labels(slice)));
    }
    boxed(grid, &slots, unit)
}

/// Columns of one grid unit with its left border.
fn unit_width(grid: u32, width: usize) -> Option<usize> {
    let grid = usize::try_from(grid).ok().filter(|grid| *grid > 0)?;
    let unit = (width.checked_sub(1)? / grid).min(WIDEST_UNIT);
    (unit >= 3).then_some(unit)
}

/// Whether the slices, sorted by place, lie in the grid and beside each other. Hardware cannot
/// do otherwise, but a wrong listing must not be drawn as if it were right.
fn fits(grid: u32, slices: &[&Slice]) -> bool {
    let mut free_from = 0;
    slices.iter().all(|slice| {
        let place = slice.placement;
        let Some(end) = place.start.checked_add(place.size) else {
            return false;
        };
        let fine = place.size > 0 && place.start >= free_from && end <= grid;
        free_from = end;
        fine
    })
}

/// A box of slots `(start, size, labels from long to short)`, which are sorted and disjoint.
fn boxed(grid: u32, slots: &[(u32, u32, Vec<String>)], unit: usize) -> String {
    let columns = |units: u32| usize::try_from(units).unwrap_or(0) * unit;
    let mut line = String::from("│");
    let mut at = 0;
    let free = |line: &mut String, units: u32| {
        if units > 0 {
            line.push_str(&"·".repeat(columns(units) - 1));
            line.push('│');
        }
    };
    for (start, size, labels) in slots {
        free(&mut line, start - at);
        let inner = columns(*size) - 1;
        let label = labels
            .iter()
            .find(|label| label.chars().count() <= inner)
            .cloned()
            .unwrap_or_else(|| "#".repeat(inner));
        let pad = inner - label.chars().count();
        line.push_str(&label);
        line.push_str(&" ".repeat(pad));
        line.push('│');
        at = start + size;
    }
    free(&mut line, grid - at);
    line
}

/// Ways to write a slice, from long to short.
fn labels(slice: &Slice) -> Vec<String> {
    let name = slice.profile.as_str();
    let compute = name.split('g').next().unwrap_or(name);
    let (plain, attribute) = match name.find(['+', '-']) {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    let without_unit = format!("{}{attribute}", plain.trim_end_matches("gb"));
    let short = format!("{compute}g");
    let mut forms = vec![
        name.to_owned(),
        without_unit,
        format!("{short}{attribute}"),
        short.clone(),
        compute.to_owned(),
    ];
    let full = slice.compute.len() == 1 && slice.compute[0] == slice.profile;
    if !full {
        let instances: Vec<&str> = slice
            .compute
            .iter()
            .map(|ci| ci.split('.').next().unwrap_or(ci))
            .collect();
        let instances = if instances.is_empty() {
            "empty".to_owned()
        } else {
            instances.join("+")
        };
        forms.insert(0, format!("{short} {instances}"));
        forms.insert(0, format!("{name} {instances}"));
    }
    forms
}

/// All models as a table: key, name, memory, technologies, number of MIG profiles.
#[must_use]
pub fn table(models: &[&Model]) -> String {
    let mut rows = vec![
        ["MODEL", "NAME", "MEMORY", "MIG", "TECHNOLOGIES"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for model in models {
        let profiles = match &model.mig {
            Some(mig) => mig.profiles.len().to_string(),
            None => "-".to_owned(),
        };
        rows.push(vec![
            model.key.clone(),
            model.name.clone(),
            memory(model.memory_mib),
            profiles,
            technologies(model),
        ]);
    }
    columns(&rows)
}

/// One model in full, with all places of each MIG profile drawn on the grid.
#[must_use]
pub fn details(model: &Model, width: usize) -> String {
    let mut text = format!("{}  {}\n", model.key, model.name);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<13} {value}");
    };
    if !model.aliases.is_empty() {
        line("also", &model.aliases.join(", "));
    }
    let maker = match model.architecture {
        Architecture::Other => model.vendor.to_string(),
        known => format!("{}, {}", model.vendor, format!("{known:?}").to_lowercase()),
    };
    line("made by", &maker);
    line("memory", &memory(model.memory_mib));
    for (index, id) in model.device_ids.iter().enumerate() {
        let name = if index == 0 { "PCI ids" } else { "" };
        line(name, &format!("{:#06x}  {}", id.device, id.name));
    }
    line("technologies", &technologies(model));
    if let Some(most) = model.max_vfs {
        line("SR-IOV", &format!("up to {most} virtual functions"));
    }
    if !model.vf_counts.is_empty() {
        let counts: Vec<String> = model.vf_counts.iter().map(u32::to_string).collect();
        line("VF counts", &counts.join(", "));
    }
    if model.vf_memory_mib.is_some() {
        line("VF memory", &memory(model.vf_memory_mib));
    }
    if let Some(partitions) = &model.partitions {
        line("compute", &partitions.compute.join(", "));
        line("memory modes", &partitions.memory.join(", "));
        line("validated", &partitions.combinations.join(", "));
    }
    if let Some(mig) = &model.mig {
        let grid = match mig.memory_slices {
            Some(grid) => format!("{grid} memory slices"),
            None => "placements not published".to_owned(),
        };
        line(
            "MIG",
            &format!("{} compute slices, {grid}", mig.compute_slices),
        );
        text.push('\n');
        text.push_str(&profiles(&mig.profiles, mig.memory_slices, width));
    }
    for (index, note) in model.notes.iter().enumerate() {
        if index == 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "  note: {note}");
    }
    // Trailing blanks of padded columns have no place in a copied text.
    text.lines().fold(String::new(), |mut out, line| {
        out.push_str(line.trim_end());
        out.push('\n');
        out
    })
}

fn profiles(profiles: &[ProfileSpec], grid: Option<u32>, width: usize) -> String {
    let mut rows = vec![
        ["  PROFILE", "ID", "MAX", "COMPUTE", "MEMORY", "SM", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    for spec in profiles {
        let number = |n: Option<u32>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        rows.push(vec![
            format!("  {}", spec.name),
            number(spec.id),
            spec.max.to_string(),
            spec.compute_slices.to_string(),
            memory(spec.memory_mib),
            number(spec.sm),
            String::new(),
        ]);
    }
    let left = columns(&rows);
    let used = left.lines().map(|l| l.chars().count()).max().unwrap_or(0) + 2;
    // One unit of room is enough for the start's number; never less than that.
    let grid = grid.unwrap_or(0);
    let least = usize::try_from(grid).unwrap_or(0) * 3 + 1;
    let room = width.saturating_sub(used).max(least);
    let mut text = String::new();
    for (index, line) in left.lines().enumerate() {
        let right = match index.checked_sub(1).and_then(|at| profiles.get(at)) {
            None if grid > 0 => "STARTS AT".to_owned(),
            Some(spec) if grid > 0 => places(grid, spec, room),
            _ => String::new(),
        };
        let _ = writeln!(text, "{line:<used$}{right}");
    }
    text
}

/// The legal places of one profile, each with its start.
fn places(grid: u32, spec: &ProfileSpec, width: usize) -> String {
    let mut slots: Vec<(u32, u32, Vec<String>)> = Vec::new();
    for place in &spec.placements {
        let after = slots.last().map_or(0, |(start, size, _)| start + size);
        if place.start < after || place.start + place.size > grid {
            // Places that overlap cannot stand in one bar.
            let starts: Vec<String> = spec
                .placements
                .iter()
                .map(|p| p.start.to_string())
                .collect();
            return starts.join(" ");
        }
        slots.push((place.start, place.size, vec![place.start.to_string()]));
    }
    match unit_width(grid, width) {
        Some(unit) => boxed(grid, &slots, unit),
        None => String::new(),
    }
}

fn technologies(model: &Model) -> String {
    let names: Vec<&str> = model
        .technologies
        .iter()
        .filter(|t| **t != super::Technology::None)
        .map(|t| t.name())
        .collect();
    names.join(", ")
}

fn memory(mib: Option<u64>) -> String {
    match mib {
        None => "?".to_owned(),
        Some(mib) => format!("{mib} MiB"),
    }
}

/// Rows as left-aligned columns, two blanks between; the last column is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Placement;

    fn slice(profile: &str, start: u32, size: u32) -> Slice {
        Slice {
            placement: Placement { start, size },
            profile: profile.to_owned(),
            compute: vec![profile.to_owned()],
        }
    }

    #[test]
    fn slots_are_true_to_the_grid_in_any_order_of_slices() {
        let slices = [
            slice("1g.10gb", 6, 1),
            slice("3g.40gb", 0, 4),
            slice("2g.20gb", 4, 2),
        ];
        assert_eq!(
            bar(8, &slices, 80),
            "│3g.40gb                            │2g.20gb          │1g.10gb │········│"
        );
    }

    #[test]
    fn seven_small_slices_are_shortened_where_the_room_is_small() {
        let slices: Vec<Slice> = (0..7).map(|at| slice("1g.10gb", at, 1)).collect();
        assert_eq!(
            bar(8, &slices, 80),
            "│1g.10gb │1g.10gb │1g.10gb │1g.10gb │1g.10gb │1g.10gb │1g.10gb │········│"
        );
        assert_eq!(
            bar(8, &slices, 40),
            "│1g  │1g  │1g  │1g  │1g  │1g  │1g  │····│"
                .replace("  ", " ")
                .replace("····", "···")
        );
        let long: Vec<Slice> = (0..2).map(|at| slice("1g.10gb+me", at, 1)).collect();
        assert!(bar(8, &long, 80).starts_with("│1g.10+me│1g.10+me│·"));
    }

    #[test]
    fn twelve_units_fit_eighty_columns() {
        let slices = [
            slice("2g.48gb", 0, 6),
            slice("1g.24gb", 6, 3),
            slice("1g.24gb+me.all", 9, 3),
        ];
        let drawn = bar(12, &slices, 80);
        assert_eq!(
            drawn,
            "│2g.48gb                            │1g.24gb          │1g.24gb+me.all   │"
        );
    }

    #[test]
    fn an_empty_card_is_all_free() {
        let drawn = bar(8, &[], 80);
        assert_eq!(drawn.chars().count(), 73);
        assert!(drawn.starts_with("│·") && drawn.ends_with("·│"));
    }

    #[test]
    fn other_compute_instances_are_named() {
        let mut shared = slice("3g.71gb", 0, 4);
        shared.compute = vec!["1c.3g.71gb".to_owned(), "2c.3g.71gb".to_owned()];
        let mut bare = slice("1g.18gb", 4, 1);
        bare.compute.clear();
        let drawn = bar(8, &[shared, bare], 80);
        assert!(drawn.contains("│3g.71gb 1c+2c "), "{drawn}");
        assert!(drawn.contains("│1g empty│"), "{drawn}");
    }

    #[test]
    fn what_cannot_be_drawn_is_listed() {
        let overlapping = [slice("3g.40gb", 0, 4), slice("2g.20gb", 2, 2)];
        assert_eq!(bar(8, &overlapping, 80), "3g.40gb@0 2g.20gb@2");
        assert_eq!(bar(8, &[slice("7g.80gb", 0, 8)], 10), "7g.80gb@0");
        assert_eq!(bar(0, &[], 80), "(none)");
        let huge = [slice("1g.1gb", u32::MAX, 2)];
        assert_eq!(bar(8, &huge, 80), format!("1g.1gb@{}", u32::MAX));
    }

    proptest::proptest! {
        /// Whatever a host lists, the bar is a line, never wider than asked for unless it is a
        /// list, and true to the grid.
        #[test]
        fn any_slices_are_drawn_in_one_line(
            grid in 0u32..40,
            width in 0usize..200,
            places in proptest::collection::vec((0u32..40, 0u32..12, 0u32..4), 0..10),
        ) {
            let slices: Vec<Slice> = places
                .iter()
                .map(|(start, size, compute)| Slice {
                    placement: Placement { start: *start, size: *size },
                    profile: format!("{size}g.{}gb", size * 10),
                    compute: (0..*compute).map(|_| format!("1c.{size}g.{}gb", size * 10)).collect(),
                })
                .collect();
            let drawn = bar(grid, &slices, width);
            proptest::prop_assert_eq!(drawn.lines().count(), 1);
            if drawn.starts_with('│') {
                let columns = drawn.chars().count();
                proptest::prop_assert!(columns <= width);
                let units = usize::try_from(grid).expect("small");
                proptest::prop_assert_eq!((columns - 1) % units, 0);
                let unit = (columns - 1) / units;
                for slice in &slices {
                    let at = usize::try_from(slice.placement.start).expect("small") * unit;
                    proptest::prop_assert_eq!(drawn.chars().nth(at), Some('│'));
                }
            }
        }
    }
}

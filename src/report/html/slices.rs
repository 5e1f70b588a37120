//! Cards as they are drawn on a page: a row of boxes whose widths are true to the placement
//! grid, before and after. What differs is said by words and borders, not by colour alone.

use super::escaped;
use crate::catalog::draw;
use crate::step::Slice;

/// The widest grid that there are styles for; others are listed.
const WIDEST_GRID: u32 = 16;

/// One card.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// What it is called.
    pub name: &'a str,
    /// How it stands, in a few words; shown where it has no slices.
    pub state: &'a str,
    /// Units of the grid, if its slices lie on one.
    pub grid: Option<u32>,
    /// The slices that are there.
    pub now: &'a [Slice],
    /// The slices that will be there, where that is something else.
    pub then: Option<&'a [Slice]>,
    /// What the two rows are called.
    pub rows: (&'a str, &'a str),
}

/// The card as HTML.
#[must_use]
pub fn draw(card: &Drawing<'_>) -> String {
    let mut text = format!(
        "<div class=\"card\"><div class=\"card-name\">{}</div>",
        escaped(card.name)
    );
    match (card.grid, card.then) {
        (Some(grid), None) if !card.now.is_empty() => {
            text.push_str(&row(card.rows.0, grid, card.now, |_| ""));
        }
        (Some(grid), Some(then)) => {
            let lacks = |all: &[Slice], slice: &Slice| !all.contains(slice);
            text.push_str(&row(card.rows.0, grid, card.now, |slice| {
                if lacks(then, slice) { "gone" } else { "" }
            }));
            text.push_str(&row(card.rows.1, grid, then, |slice| {
                if lacks(card.now, slice) { "new" } else { "" }
            }));
        }
        _ => text.push_str(&format!(
            "<div class=\"row\"><span>{}</span></div>",
            escaped(card.state)
        )),
    }
    text.push_str("</div>\n");
    text
}

fn row(when: &str, grid: u32, slices: &[Slice], class: impl Fn(&Slice) -> &'static str) -> String {
    let mut sorted: Vec<&Slice> = slices.iter().collect();
    sorted.sort();
    let boxes = match boxes(grid, &sorted, class) {
        Some(boxes) => format!("<div class=\"bar g{grid}\">{boxes}</div>"),
        // What cannot lie so on a grid is not drawn as if it could.
        None => format!("<span>{}</span>", escaped(&draw::bar(0, slices, 0))),
    };
    let row = format!("<div class=\"row\"><span class=\"when\">{when}</span>{boxes}</div>");
    if (1..=WIDEST_GRID).contains(&grid) && sorted.iter().any(|slice| shortened(grid, slice)) {
        return row + &format!("<div class=\"names\">{}</div>", escaped(&counted(&sorted)));
    }
    row
}

/// Whether a box of this width has no room for its slice's name. The narrowest card is about
/// 230 pixels wide, and a letter about 7.
fn shortened(grid: u32, slice: &Slice) -> bool {
    let room = 230 * u64::from(slice.placement.size) / u64::from(grid.max(1));
    let letters = room.saturating_sub(8) / 7;
    (slice.profile.len() as u64) > letters && slice.profile.contains('.')
}

/// The name as it stands in a box: `1g` for `1g.10gb` where there is room for no more.
fn shown(grid: u32, slice: &Slice) -> &str {
    match slice.profile.split_once('.') {
        Some((short, _)) if shortened(grid, slice) => short,
        _ => &slice.profile,
    }
}

/// Slices by name: `1g.10gb ×2, 3g.40gb`.
fn counted(slices: &[&Slice]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for slice in slices {
        match counts.iter_mut().find(|(name, _)| *name == slice.profile) {
            Some((_, count)) => *count += 1,
            None => counts.push((&slice.profile, 1)),
        }
    }
    let words = counts.iter().map(|(name, count)| match count {
        1 => (*name).to_owned(),
        many => format!("{name} ×{many}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn boxes(grid: u32, slices: &[&Slice], class: impl Fn(&Slice) -> &'static str) -> Option<String> {
    if !(1..=WIDEST_GRID).contains(&grid) {
        return None;
    }
    let mut text = String::new();
    let mut at = 0;
    let free = |text: &mut String, from: u32, to: u32| {
        if to > from {
            let width = to - from;
            text.push_str(&format!("<div class=\"free w{width}\">free</div>"));
        }
    };
    for slice in slices {
        let place = slice.placement;
        let end = place.start.checked_add(place.size)?;
        if place.size == 0 || place.start < at || end > grid {
            return None;
        }
        free(&mut text, at, place.start);
        let class = class(slice);
        let name = escaped(&slice.profile);
        let word = match class {
            "gone" => ", goes",
            "new" => ", is new",
            _ => "",
        };
        text.push_str(&format!(
            "<div class=\"slice w{} {class}\" title=\"{name} at {}{word}\">{}</div>",
            place.size,
            place.start,
            escaped(shown(grid, slice))
        ));
        at = end;
    }
    free(&mut text, at, grid);
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn boxes_are_true_to_the_grid_and_say_what_comes_and_goes() {
        let (now, then) = ([slice("3g.40gb", 0, 4)], [slice("2g.20gb", 4, 2)]);
        let html = draw(&Drawing {
            name: "GPU 0",
            state: "",
            grid: Some(8),
            now: &now,
            then: Some(&then),
            rows: ("now", "then"),
        });
        assert!(html.contains(
            "<div class=\"bar g8\"><div class=\"slice w4 gone\" title=\"3g.40gb at 0, goes\">3g.40gb</div><div class=\"free w4\">free</div></div>"
        ));
        assert!(html.contains(
            "<div class=\"free w4\">free</div><div class=\"slice w2 new\" title=\"2g.20gb at 4, is new\">2g.20gb</div><div class=\"free w2\">free</div>"
        ));
    }

    #[test]
    fn a_name_without_room_is_short_in_its_box_and_whole_below_it() {
        let now = [
            slice("1g.10gb", 0, 1),
            slice("1g.10gb", 1, 1),
            slice("3g.40gb", 4, 4),
        ];
        let html = draw(&Drawing {
            name: "GPU 0",
            state: "",
            grid: Some(8),
            now: &now,
            then: None,
            rows: ("now", "then"),
        });
        assert!(html.contains("title=\"1g.10gb at 1\">1g</div>"), "{html}");
        assert!(html.contains(">3g.40gb</div>"), "{html}");
        assert!(html.contains("<div class=\"names\">1g.10gb ×2, 3g.40gb</div>"));
    }

    proptest! {
        #[test]
        fn any_slices_are_drawn_whole_or_listed(
            grid in 0u32..40,
            places in prop::collection::vec((0u32..u32::MAX, 0u32..12), 0..6),
        ) {
            let slices: Vec<Slice> = places.iter().map(|(start, size)| slice("<x>", *start, *size)).collect();
            let html = draw(&Drawing { name: "<b>", state: "<i>", grid: Some(grid), now: &slices, then: Some(&[]), rows: ("now", "then") });
            prop_assert!(!html.contains("<x>") && !html.contains("<b>") && !html.contains("<i>"));
        }
    }
}

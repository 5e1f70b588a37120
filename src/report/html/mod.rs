//! Pages for a browser, each one file that needs nothing else: no network, no fonts, and
//! with scripts off nothing is missing but the filter.
//!
//! `frame` is the page around any content with its styles and its policy, `slices` draws
//! cards, `filter` narrows a list of hosts down. `plan_page` is the content of a plan,
//! `fleet_page` that of the fleet over time. All text goes through `escaped`.

mod filter;
mod fleet_page;
mod frame;
mod plan_page;
mod slices;

use crate::text::printable;

pub use filter::Filter;
pub use fleet_page::FleetPage;
pub use frame::Frame;
pub use plan_page::page as plan_page;
pub use slices::{Drawing, draw};

/// Longest text that a page takes in one piece, in characters.
const LONGEST: usize = 10_000;

/// Text as it may stand in an element or in a quoted attribute: control characters written
/// out, and nothing left that HTML acts on.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text, LONGEST).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    /// The tags of a page, with what stands in them but for quoted values.
    pub(super) fn tags(page: &str) -> Vec<String> {
        let (_, page) = page.split_once("<body>").expect("a body");
        let (page, _) = page.split_once("<script>").expect("a script");
        let mut tags = Vec::new();
        let mut rest = page;
        while let Some(start) = rest.find('<') {
            let end = rest[start..].find('>').expect("a tag has an end") + start;
            let parts = rest[start..=end].split('"').step_by(2);
            tags.push(parts.collect::<Vec<_>>().join("\"\""));
            rest = &rest[end + 1..];
        }
        tags
    }
}

//! The two shapes of text that AMD's tools print: indented keys, and tables.

/// One `KEY: value` with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the card that it is said of; none before the first.
    pub gpu: Option<u32>,
    /// The keys down to it, joined by `/`, such as `VF 0/BDF`.
    pub path: String,
    /// The value; empty for a key that only holds others.
    pub value: String,
}

/// All keys of an indented answer. Both `GPU: 0` and `GPU 0:` begin a card.
#[must_use]
pub fn entries(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut gpu = None;
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else {
            continue;
        };
        let value = value.trim();
        // `VF: 0` and `VF 0:` name the same thing.
        let numbered = ["GPU", "VF", "CACHE"].contains(&key) && value.parse::<u32>().is_ok();
        let name = match numbered {
            true => format!("{key} {value}"),
            false => key.to_owned(),
        };
        if let Some(number) = name.strip_prefix("GPU ").and_then(|n| n.parse().ok()) {
            gpu = Some(number);
            above.clear();
            continue;
        }
        while above.last().is_some_and(|(depth, _)| *depth >= indent) {
            above.pop();
        }
        let mut path: Vec<&str> = above.iter().map(|(_, key)| key.as_str()).collect();
        path.push(&name);
        found.push(Entry {
            gpu,
            path: path.join("/"),
            value: if numbered {
                String::new()
            } else {
                value.to_owned()
            },
        });
        above.push((indent, name));
    }
    found
}

/// The value of the first key of a card whose path ends so.
#[must_use]
pub fn value_of<'e>(entries: &'e [Entry], gpu: u32, path: &str) -> Option<&'e str> {
    let ends = |entry: &&Entry| {
        entry.path == path
            || entry
                .path
                .strip_suffix(path)
                .is_some_and(|p| p.ends_with('/'))
    };
    let of_card = entries.iter().filter(|entry| entry.gpu == Some(gpu));
    said(&of_card.filter(ends).map(|entry| &entry.value).next()?[..])
}

/// The numbers of the cards, in order.
#[must_use]
pub fn cards(entries: &[Entry]) -> Vec<u32> {
    let mut numbers: Vec<u32> = entries.iter().filter_map(|entry| entry.gpu).collect();
    numbers.dedup();
    numbers
}

/// A value that is no `N/A`.
#[must_use]
pub fn said(value: &str) -> Option<&str> {
    let value = value.trim();
    (!value.is_empty() && value != "N/A").then_some(value)
}

/// The rows of a table whose first column is `first`, each as its words. A row may leave
/// out columns on the left; the caller tells by the number of words.
#[must_use]
pub fn rows<'t>(text: &'t str, first: &str) -> Vec<Vec<&'t str>> {
    let mut lines = text
        .lines()
        .skip_while(|line| line.split_whitespace().next() != Some(first));
    lines.next();
    lines
        .take_while(|line| !line.trim().is_empty() && !line.starts_with('='))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 1)
        .collect()
}

/// `NPS1,NPS4` or `SPX, DPX`, as a list; an `N/A` is an empty one.
#[must_use]
pub fn list(text: &str) -> Vec<String> {
    text.split(',')
        .filter_map(said)
        .map(|word| word.trim_end_matches('*').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_know_their_card_and_their_parents() {
        let text = "GPU: 0\n    BDF: 0000:0c:00.0\n    VF: 0\n        BDF: 0000:0c:02.0\nGPU 1:\n    PARTITION:\n        PARTITION_ID: 3\n";
        let entries = entries(text);
        assert_eq!(value_of(&entries, 0, "BDF"), Some("0000:0c:00.0"));
        assert_eq!(value_of(&entries, 0, "VF 0/BDF"), Some("0000:0c:02.0"));
        assert_eq!(value_of(&entries, 1, "PARTITION_ID"), Some("3"));
        assert_eq!(cards(&entries), [0, 1]);
    }

    #[test]
    fn a_value_that_is_not_available_is_none() {
        let entries = entries("GPU: 0\n    CAPS: N/A\n");
        assert_eq!(value_of(&entries, 0, "CAPS"), None);
        assert_eq!(list("N/A"), Vec::<String>::new());
        assert_eq!(list("SPX, DPX*"), ["SPX", "DPX"]);
    }
}

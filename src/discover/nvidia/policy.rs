//! `nvidia-smi compute-policy -l`: the time slice of each card.
//!
//! No capture of this output is public, so nothing but its words is relied on: a line with
//! `GPU` and a number begins a card, and the word after `Timeslice` (or, in a table, the
//! cell beside it) is its value.

use std::collections::BTreeMap;

/// The words of the four settings, as `--set-timeslice` numbers them.
pub const WORDS: [&str; 4] = ["Default", "Short", "Medium", "Long"];

/// The time slice of each card that the text names, by index, in one of `WORDS`.
#[must_use]
pub fn parse(text: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    let mut card = None;
    for line in text.lines() {
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || "|:=,()".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        if let Some(index) = index(&words) {
            card = Some(index);
        }
        let value = words
            .iter()
            .find_map(|word| WORDS.iter().find(|known| known.eq_ignore_ascii_case(word)));
        // A heading such as "GPU  Compute Policy  Value" names no value.
        if let (Some(card), Some(value)) = (card, value) {
            found.entry(card).or_insert_with(|| (*value).to_owned());
        }
    }
    found
}

/// `GPU 0: …`, `GPU0`, or a table row that begins with a number.
fn index(words: &[&str]) -> Option<u32> {
    let first = words.first()?;
    if first.eq_ignore_ascii_case("gpu") {
        return words.get(1)?.parse().ok();
    }
    first.trim_start_matches("GPU").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_found_in_any_likely_form() {
        let lines =
            "GPU 0: NVIDIA A10 (UUID: GPU-1)\n  Timeslice : Short\nGPU 1:\n  Timeslice: Default\n";
        assert_eq!(
            parse(lines).into_iter().collect::<Vec<_>>(),
            [(0, "Short".to_owned()), (1, "Default".to_owned())]
        );
        let table = "+-----+\n| GPU compute policies: |\n| GPU   Name      Value   |\n|=====|\n|   0   Timeslice  Medium |\n";
        assert_eq!(parse(table).get(&0).map(String::as_str), Some("Medium"));
    }

    #[test]
    fn a_refusal_is_no_value() {
        assert!(parse("No devices were found\n").is_empty());
        assert!(
            parse("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n")
                .is_empty()
        );
    }
}

//! `nvidia-smi compute-policy -l`: the time slice of each card.
//!
//! No capture of this output is public, so nothing but its words is relied on: a line with
//! `GPU` and a number begins a card, and the word after `Timeslice` (or, in a table, the
//! cell beside it) is its value.

use crate::facts::PciAddress;

/// The words of the four settings, as `--set-timeslice` numbers them.
pub const WORDS: [&str; 4] = ["Default", "Short", "Medium", "Long"];

/// How the text names a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// By nvidia-smi's index.
    Index(u32),
    /// By its place on the bus.
    Pci(PciAddress),
}

/// The time slice of each card that the text names, in one of `WORDS`.
#[must_use]
pub fn parse(text: &str) -> Vec<(Card, String)> {
    let mut found: Vec<(Card, String)> = Vec::new();
    let mut current = None;
    for line in text.lines() {
        current = card(line).or(current);
        let word = |word: &str| {
            WORDS
                .into_iter()
                .find(|known| known.eq_ignore_ascii_case(word))
        };
        let value = line
            .split(|c: char| !c.is_ascii_alphabetic())
            .find_map(word);
        // A heading such as "GPU  Name  Value" names no value.
        if let (Some(card), Some(value)) = (current, value)
            && found.iter().all(|(known, _)| *known != card)
        {
            found.push((card, value.to_owned()));
        }
    }
    found
}

/// `GPU 0: …`, `GPU 00000000:0B:00.0 …`, or a table row that begins with a number.
fn card(line: &str) -> Option<Card> {
    let mut words = line
        .split(|c: char| c.is_whitespace() || "|=,()".contains(c))
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| !word.is_empty());
    let first = words.next()?;
    let name = if first.eq_ignore_ascii_case("gpu") {
        words.next()?
    } else {
        first
    };
    if let Ok(pci) = name.parse() {
        return Some(Card::Pci(pci));
    }
    name.parse().ok().map(Card::Index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_found_in_any_likely_form() {
        let lines =
            "GPU 0: NVIDIA A10 (UUID: GPU-1)\n  Timeslice : Short\nGPU 1:\n  Timeslice: Default\n";
        let short = |card, word: &str| (card, word.to_owned());
        assert_eq!(
            parse(lines),
            [
                short(Card::Index(0), "Short"),
                short(Card::Index(1), "Default")
            ]
        );
        let table = "+-----+\n| GPU compute policies: |\n| GPU   Name      Value   |\n|=====|\n|   0   Timeslice  Medium |\n";
        assert_eq!(parse(table), [short(Card::Index(0), "Medium")]);
        let by_bus = "GPU 00000000:0B:00.0\n    Timeslice    : LONG\n";
        let pci = "0b:00.0".parse().expect("an address");
        assert_eq!(parse(by_bus), [short(Card::Pci(pci), "Long")]);
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

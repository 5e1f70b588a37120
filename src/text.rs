//! Text from hosts and files made safe for a terminal, and bytes as text.

/// Most characters of one message from a host that are shown.
pub const MESSAGE_LIMIT: usize = 4000;

/// `text` without anything that a terminal would act on: control characters
/// but newline and tab are written out as escapes, so are the Unicode characters
/// that reorder or hide text. What is over `limit` characters is cut, and said to be.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (count, c) in text.chars().enumerate() {
        if count >= limit {
            let rest = text.chars().count() - limit;
            out.push_str(&format!("… ({rest} characters more)"));
            break;
        }
        push_safe(&mut out, c);
    }
    out
}

/// The same for one line: newlines are written out as well.
#[must_use]
pub fn printable_line(text: &str, limit: usize) -> String {
    printable(text, limit).replace('\n', "\\n")
}

/// Whether a character reorders or hides text.
#[must_use]
pub fn hides(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A span of time as people say it: `45s`, `3m 0s`, `1h 0m 30s`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m {rest}s"),
        _ => format!("{hours}h {minutes}m {rest}s"),
    }
}

/// A moment, in the one form in which people are told times: `2026-11-22 21:06:00 UTC`.
#[must_use]
pub fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Lower-case hexadecimal, as `sha256sum` prints a hash.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn push_safe(out: &mut String, c: char) {
    if c == '\n' || c == '\t' {
        out.push(c);
    } else if hides(c) {
        out.extend(c.escape_unicode());
    } else if c.is_control() {
        out.push_str(&format!("\\x{:02x}", u32::from(c)));
    } else {
        out.push(c);
    }
}

/// Units of memory, with their bytes. A bare `G` is what vendors' tools mean by it.
const UNITS: [(&str, u64); 6] = [
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("M", 1 << 20),
];

/// Bytes of a memory size such as `9GB` or `9.75 GiB`, rounded up; none if it is no such
/// size, or beyond a petabyte, which is more than any card has.
#[must_use]
pub fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = UNITS.iter().find_map(|(name, bytes)| {
        let at = text.len().checked_sub(name.len())?;
        let (number, unit) = text.is_char_boundary(at).then(|| text.split_at(at))?;
        unit.eq_ignore_ascii_case(name)
            .then_some((number.trim(), *bytes))
    })?;
    let number: f64 = number.parse().ok()?;
    let bytes = number * unit as f64;
    (bytes.is_finite() && (1.0..=1e15).contains(&bytes)).then_some(bytes.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_hours_minutes_and_seconds() {
        let said = [0, 59, 60, 180, 3599, 3600, 3630, 90_061].map(span);
        assert_eq!(
            said,
            [
                "0s",
                "59s",
                "1m 0s",
                "3m 0s",
                "59m 59s",
                "1h 0m 0s",
                "1h 0m 30s",
                "25h 1m 1s"
            ]
        );
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(
            printable("a\x1b[2Jb\r\u{202e}c\n", 99),
            "a\\x1b[2Jb\\x0d\\u{202e}c\n"
        );
        assert_eq!(printable("\u{9b}31m", 99), "\\x9b31m");
        assert_eq!(printable_line("a\nb", 99), "a\\nb");
    }

    #[test]
    fn long_text_is_cut_and_said_to_be() {
        assert_eq!(printable("abcdef", 4), "abcd… (2 characters more)");
    }
}

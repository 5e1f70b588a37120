//! Time spans as systemd.time(7) has them, in microseconds.

const UNITS: &[(&str, u64)] = &[
    ("usec", 1),
    ("us", 1),
    ("µs", 1),
    ("μs", 1),
    ("msec", 1_000),
    ("ms", 1_000),
    ("seconds", 1_000_000),
    ("second", 1_000_000),
    ("sec", 1_000_000),
    ("s", 1_000_000),
    ("minutes", 60_000_000),
    ("minute", 60_000_000),
    ("min", 60_000_000),
    ("months", 2_629_800_000_000),
    ("month", 2_629_800_000_000),
    ("M", 2_629_800_000_000),
    ("m", 60_000_000),
    ("hours", 3_600_000_000),
    ("hour", 3_600_000_000),
    ("hr", 3_600_000_000),
    ("h", 3_600_000_000),
    ("days", 86_400_000_000),
    ("day", 86_400_000_000),
    ("d", 86_400_000_000),
    ("weeks", 604_800_000_000),
    ("week", 604_800_000_000),
    ("w", 604_800_000_000),
    ("years", 31_557_600_000_000),
    ("year", 31_557_600_000_000),
    ("y", 31_557_600_000_000),
];

/// Reads a span; a bare number is seconds. Nothing if it is none.
pub(in crate::sim) fn parse(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(u64::MAX);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = rest[end..].trim_start();
        let end = rest
            .find(|letter: char| letter.is_ascii_digit() || letter.is_whitespace())
            .unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "" => 1_000_000,
            name => UNITS.iter().find(|unit| unit.0 == name)?.1,
        };
        rest = rest[end..].trim_start();
        #[allow(clippy::cast_precision_loss, reason = "scales are far below 2^52")]
        let part = super::process::micros(number * scale as f64 / 1e6);
        total = total.saturating_add(part);
    }
    Some(total)
}

/// Writes a span as systemd does: the largest units first.
pub(in crate::sim) fn show(micros: u64) -> String {
    const SHOWN: [(&str, u64); 9] = [
        ("y", 31_557_600_000_000),
        ("month", 2_629_800_000_000),
        ("w", 604_800_000_000),
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("min", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ];
    match micros {
        0 => return "0".to_owned(),
        u64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let mut rest = micros;
    let mut words = Vec::new();
    for (name, scale) in SHOWN {
        let count = rest / scale;
        rest %= scale;
        if name == "s" && rest > 0 && (count > 0 || !words.is_empty()) {
            let digits = format!("{rest:06}");
            words.push(format!("{count}.{}s", digits.trim_end_matches('0')));
            break;
        }
        if count > 0 {
            words.push(format!("{count}{name}"));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_time_says() {
        for (text, micros) in [
            ("50", 50_000_000),
            ("0.2", 200_000),
            ("5min 20s", 320_000_000),
            ("2h", 7_200_000_000),
            ("1500ms", 1_500_000),
            ("1us", 1),
            ("1min30", 90_000_000),
            ("infinity", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(micros), "{text}");
        }
        for text in ["", "xx", "5 apples", "-1", "1.2.3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_written_as_systemd_writes_them() {
        for (micros, text) in [
            (1_000_000, "1s"),
            (100_000, "100ms"),
            (90_000_000, "1min 30s"),
            (12_313_783_350, "3h 25min 13.78335s"),
            (0, "0"),
        ] {
            assert_eq!(show(micros), text);
        }
    }
}

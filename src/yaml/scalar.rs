//! What a plain scalar means: the implicit resolvers and constructors of
//! `PyYAML` 6.0 (`resolver.py`, `constructor.py`), which are YAML 1.1 with
//! habits of their own: `1e3` is a string, `010` is 8, `12:30:45` is 45045.

use std::sync::LazyLock;

use regex::Regex;

use crate::value::Value;

/// Which resolvers apply to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// YAML 1.1.
    Yaml,
    /// JSON, for texts that are JSON from end to end.
    Json,
}

/// What a plain scalar is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    /// Itself.
    Str,
    /// Something else than a text.
    Value(Value),
    /// An integer that does not fit; its decimal digits.
    Huge(String),
    /// A date or time, in ISO 8601 as Ansible shows it.
    Time(String),
    /// It looks like a date and is none.
    NoTime,
    /// The merge key `<<`.
    Merge,
}

/// What `text`, written plain, is under `rules`.
pub(super) fn resolve_by(rules: Rules, text: &str) -> Scalar {
    match rules {
        Rules::Yaml => resolve(text),
        Rules::Json => resolve_json(text),
    }
}

/// What `text`, written plain, is in YAML 1.1.
pub(super) fn resolve(text: &str) -> Scalar {
    match text.as_bytes().first() {
        None => Scalar::Value(Value::Null),
        Some(b'~' | b'n' | b'N' | b'y' | b'Y' | b't' | b'T' | b'f' | b'F' | b'o' | b'O') => {
            word(text).map_or(Scalar::Str, Scalar::Value)
        }
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => number(text),
        Some(b'<') if text == "<<" => Scalar::Merge,
        Some(_) => Scalar::Str,
    }
}

fn resolve_json(text: &str) -> Scalar {
    match text {
        "null" => Scalar::Value(Value::Null),
        "true" => Scalar::Value(Value::Bool(true)),
        "false" => Scalar::Value(Value::Bool(false)),
        _ if text.contains(['.', 'e', 'E']) => text
            .parse()
            .map_or(Scalar::Str, |number| Scalar::Value(Value::Float(number))),
        _ => text.parse().map_or_else(
            |_| Scalar::Huge(text.to_owned()),
            |number| Scalar::Value(Value::Int(number)),
        ),
    }
}

fn word(text: &str) -> Option<Value> {
    Some(match text {
        "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => return None,
    })
}

// The patterns are those of PyYAML's resolver.py, letter for letter.
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)$",
    )
});
static INT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$",
    )
});
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^([0-9]{4})-([0-9][0-9]?)-([0-9][0-9]?)(?:(?:[Tt]|[ \t]+)([0-9][0-9]?):([0-9][0-9]):([0-9][0-9])(?:\.([0-9]*))?(?:[ \t]*(Z|([-+])([0-9][0-9]?)(?::([0-9][0-9]))?))?)?$",
    )
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns of this file are valid")
}

fn number(text: &str) -> Scalar {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Value(Value::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Value(Value::Float(f64::NEG_INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Value(Value::Float(f64::NAN)),
        _ => {}
    }
    if FLOAT.is_match(text) {
        return float(text).map_or(Scalar::Str, |value| Scalar::Value(Value::Float(value)));
    }
    if INT.is_match(text) {
        return int(text);
    }
    time(text)
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "");
    let (sign, digits) = signed(&text);
    let mut value = 0.0;
    for part in digits.split(':') {
        value = value * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(if sign { -value } else { value })
}

fn int(text: &str) -> Scalar {
    let text = text.replace('_', "");
    let (negative, digits) = signed(&text);
    let parsed = if let Some(digits) = digits.strip_prefix("0b") {
        radix(digits, 2)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        radix(digits, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        radix(digits, 8)
    } else {
        sexagesimal(digits)
    };
    match parsed {
        Parsed::Number(number) => {
            let number = if negative { -number } else { number };
            i64::try_from(number).map_or_else(
                |_| Scalar::Huge(number.to_string()),
                |number| Scalar::Value(Value::Int(number)),
            )
        }
        Parsed::TooLong => Scalar::Huge(text),
        // `0b_`: PyYAML fails on it; a text is what was meant.
        Parsed::None => Scalar::Str,
    }
}

enum Parsed {
    Number(i128),
    TooLong,
    None,
}

fn radix(digits: &str, radix: u32) -> Parsed {
    if digits.is_empty() {
        return Parsed::None;
    }
    i128::from_str_radix(digits, radix).map_or(Parsed::TooLong, Parsed::Number)
}

fn sexagesimal(digits: &str) -> Parsed {
    let mut value: i128 = 0;
    for part in digits.split(':') {
        let Some(next) = part
            .parse::<i128>()
            .ok()
            .and_then(|part| value.checked_mul(60)?.checked_add(part))
        else {
            return Parsed::TooLong;
        };
        value = next;
    }
    Parsed::Number(value)
}

fn signed(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn time(text: &str) -> Scalar {
    let Some(found) = TIME.captures(text) else {
        return Scalar::Str;
    };
    let part = |index: usize| found.get(index).map(|part| part.as_str());
    let digits = |index: usize| part(index).and_then(|text| text.parse::<u32>().ok());
    let (Some(year), Some(month), Some(day)) = (digits(1), digits(2), digits(3)) else {
        return Scalar::Str;
    };
    // A bare date needs two digits everywhere; `2026-1-2` is a text.
    if part(4).is_none() && text.len() != "2026-01-02".len() {
        return Scalar::Str;
    }
    if !is_date(year, month, day) {
        return Scalar::NoTime;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    let (Some(hour), Some(minute), Some(second)) = (digits(4), digits(5), digits(6)) else {
        return Scalar::Time(date);
    };
    if hour > 23 || minute > 59 || second > 59 {
        return Scalar::NoTime;
    }
    let mut time = format!("{date}T{hour:02}:{minute:02}:{second:02}");
    let fraction: String = part(7).unwrap_or_default().chars().take(6).collect();
    if fraction.chars().any(|digit| digit != '0') {
        time.push_str(&format!(".{fraction:0<6}"));
    }
    if let Some(zone) = part(8) {
        let (hours, minutes) = (digits(10).unwrap_or(0), digits(11).unwrap_or(0));
        if hours * 60 + minutes >= 24 * 60 || minutes > 59 {
            return Scalar::NoTime;
        }
        let sign = match part(9) {
            Some("-") if hours + minutes > 0 => '-',
            _ => '+',
        };
        debug_assert!(zone.starts_with(['Z', '+', '-']));
        time.push_str(&format!("{sign}{hours:02}:{minutes:02}"));
    }
    Scalar::Time(time)
}

fn is_date(year: u32, month: u32, day: u32) -> bool {
    let (Ok(year), Ok(month), Ok(day)) =
        (i16::try_from(year), i8::try_from(month), i8::try_from(day))
    else {
        return false;
    };
    year > 0 && jiff::civil::Date::new(year, month, day).is_ok()
}

/// Whether a text that is written plain is read back as that text.
pub(super) fn is_plain_text(text: &str) -> bool {
    // `=` is the "value" of YAML 1.1, and `0b_` is an integer to the resolver alone.
    text != "=" && !text.is_empty() && resolve(text) == Scalar::Str && !INT.is_match(text)
}

//! What a field may hold: the words that tables are written in, and which values fit them.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// A scalar of one kind.
    Scalar(Scalar),
    /// A whole number between two, both included.
    Int(i64, i64),
    /// One of some words.
    OneOf(Vec<String>),
    /// A list.
    List(Box<Shape>),
    /// A mapping of any names.
    Names(Box<Shape>),
    /// A mapping of these.
    Fields(BTreeMap<String, Field>),
    /// A type of the same file.
    Named(String),
}

/// A field of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

/// Scalars, most of them texts of some form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Bool,
    Number,
    /// A quantity such as `200Gi`, `500m` or 4.
    Quantity,
    IntOrText,
    /// RFC 1123 subdomain.
    ObjectName,
    /// RFC 1123 label.
    Label,
    /// What stands behind a label's name.
    LabelValue,
    /// The name of a resource of a device plugin, `nvidia.com/L40S`.
    Resource,
    /// Vendor and device id, `10DE:26B9`.
    PciId,
    /// Five fields of crontab(5), or `@daily` and the like.
    Cron,
}

/// Each scalar with its word in tables, and in messages.
const SCALARS: &[(&str, Scalar, &str)] = &[
    ("str", Scalar::Text, "a string"),
    ("bool", Scalar::Bool, "`true` or `false`"),
    ("number", Scalar::Number, "a number"),
    ("quantity", Scalar::Quantity, "a quantity such as `200Gi`"),
    (
        "int-or-str",
        Scalar::IntOrText,
        "a whole number or a string",
    ),
    (
        "object-name",
        Scalar::ObjectName,
        "a name of lower-case letters, digits, `-` and `.`",
    ),
    (
        "label",
        Scalar::Label,
        "a name of at most 63 lower-case letters, digits and `-`",
    ),
    (
        "label-value",
        Scalar::LabelValue,
        "at most 63 letters, digits, `-`, `_` and `.`",
    ),
    (
        "resource",
        Scalar::Resource,
        "the name of a resource such as `nvidia.com/L40S`",
    ),
    (
        "pci-id",
        Scalar::PciId,
        "a vendor and a device id such as `10DE:26B9`",
    ),
    (
        "cron",
        Scalar::Cron,
        "five fields as in a crontab, or `@daily` and the like",
    ),
];

impl Scalar {
    /// What a table's word means.
    pub(super) fn of(word: &str) -> Option<Self> {
        let mut all = SCALARS.iter();
        let found = all.find(|(known, ..)| *known == word);
        found.map(|(_, scalar, _)| *scalar)
    }

    /// All words.
    pub(super) fn words() -> impl Iterator<Item = &'static str> {
        SCALARS.iter().map(|(word, ..)| *word)
    }

    /// What it is in messages.
    pub(super) fn wanted(self) -> &'static str {
        let mut all = SCALARS.iter();
        all.find(|(_, scalar, _)| *scalar == self)
            .map_or("a value", |(.., wanted)| wanted)
    }

    /// Whether a value is one.
    pub(super) fn fits(self, value: &Json) -> bool {
        let text = value.as_str();
        match self {
            Self::Text => text.is_some(),
            Self::Bool => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::IntOrText => text.is_some() || is_int(value),
            Self::Quantity => value.is_number() || text.is_some_and(is_quantity),
            Self::ObjectName => text.is_some_and(is_object_name),
            Self::Label => text.is_some_and(is_label),
            Self::LabelValue => text.is_some_and(is_label_value),
            Self::Resource => text.is_some_and(is_resource),
            Self::PciId => text.is_some_and(is_pci_id),
            Self::Cron => text.is_some_and(is_cron),
        }
    }
}

pub(super) fn is_int(value: &Json) -> bool {
    value.is_i64() || value.is_u64()
}

/// `SIGN NUMBER SUFFIX`, the suffix binary, decimal or an exponent (the API's serialization
/// format of quantities).
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some(suffix) = after_number(unsigned) else {
        return false;
    };
    let known = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        after_number(digits) == Some("")
    });
    known.contains(&suffix) || is_exponent
}

/// What stands behind a number with or without a fraction; nothing where there is no digit.
fn after_number(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let whole = text.len() - rest.len();
    let Some(fraction) = rest.strip_prefix('.') else {
        return (whole > 0).then_some(rest);
    };
    let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    (whole + fraction.len() - rest.len() > 0).then_some(rest)
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// May be empty.
fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

fn is_resource(text: &str) -> bool {
    let Some((domain, name)) = text.split_once('/') else {
        return false;
    };
    !name.is_empty() && is_object_name(domain) && is_label_value(name)
}

fn is_pci_id(text: &str) -> bool {
    let is_id = |part: &str| part.len() == 4 && part.chars().all(|c| c.is_ascii_hexdigit());
    text.split_once(':')
        .is_some_and(|(vendor, device)| is_id(vendor) && is_id(device))
}

fn is_cron(text: &str) -> bool {
    let named = [
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || "*/,-?".contains(c);
    let fields: Vec<&str> = text.split_whitespace().collect();
    let five = fields.len() == 5 && fields.iter().all(|field| field.chars().all(plain));
    five || named.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_scalar_takes_its_own_and_nothing_else() {
        let cases = [
            (
                Scalar::Quantity,
                vec![
                    json!("200Gi"),
                    json!("0.5"),
                    json!(".5"),
                    json!("1."),
                    json!("100m"),
                    json!("1e3"),
                    json!("-1"),
                    json!(4),
                ],
                vec![
                    json!(""),
                    json!("Gi"),
                    json!("1GB"),
                    json!("."),
                    json!("1e"),
                    json!("two"),
                    json!(true),
                ],
            ),
            (
                Scalar::Label,
                vec![json!("a-1")],
                vec![json!(""), json!("a.b"), json!("-a"), json!("A"), json!(1)],
            ),
            (
                Scalar::ObjectName,
                vec![json!("a.b-c")],
                vec![json!("a..b"), json!("A"), json!("a_b")],
            ),
            (
                Scalar::LabelValue,
                vec![json!(""), json!("all-1g.10gb")],
                vec![json!("-a"), json!("a b"), json!(true)],
            ),
            (
                Scalar::Resource,
                vec![json!("nvidia.com/AD102GL_L40S")],
                vec![json!("L40S"), json!("nvidia.com/"), json!("a/b/c")],
            ),
            (
                Scalar::PciId,
                vec![json!("10DE:26b9")],
                vec![json!("10DE"), json!("10DEX:26B9")],
            ),
            (
                Scalar::Cron,
                vec![json!("*/15 * * * *"), json!("@daily")],
                vec![json!("* * * *"), json!("@often"), json!("")],
            ),
            (
                Scalar::IntOrText,
                vec![json!(1), json!("10%")],
                vec![json!(1.5), json!(true)],
            ),
            (Scalar::Number, vec![json!(1.5)], vec![json!("1")]),
        ];
        for (scalar, good, bad) in cases {
            for value in good {
                assert!(scalar.fits(&value), "{scalar:?} {value}");
            }
            for value in bad {
                assert!(!scalar.fits(&value), "{scalar:?} {value}");
            }
        }
    }
}

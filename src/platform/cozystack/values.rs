//! Values that stand in a manifest as the user wrote them, each checked where it stands.

use serde_json::Value as Json;

use crate::desired::Block;
use crate::error::{Diagnostic, Problems};
use crate::value::{Node, Value};

use crate::platform::names::LONGEST_NAME;
pub(super) use crate::platform::names::{is_name, is_object_name};

/// Whether a text is a quantity of bytes such as `200Gi`.
pub(super) fn is_quantity(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - digits.len()];
    let suffix = [
        "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    number.parse::<f64>().is_ok_and(|number| number > 0.0) && suffix.contains(&digits)
}

/// Whether a text names a resource of a device plugin, such as `nvidia.com/AD102GL_L40S`.
pub(super) fn is_resource(text: &str) -> bool {
    let Some((domain, name)) = text.split_once('/') else {
        return false;
    };
    let domain_fits = domain.contains('.') && domain.split('.').all(is_name);
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    domain_fits
        && name.len() <= LONGEST_NAME
        && name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().last())
}

/// Pushes a finding at a node.
pub(super) fn blame(problems: &mut Problems, node: &Node, message: String, hint: &str) {
    problems.push(Diagnostic::error(message).at(&node.origin).hint(hint));
}

/// The name of an object, which it must have.
pub(super) fn name(block: &mut Block<'_, '_>, what: &str) -> Option<String> {
    let Some(node) = block.node("name") else {
        missing(block, "name", what);
        return None;
    };
    match node.as_str() {
        Some(text) if is_name(text) => Some(text.to_owned()),
        _ => {
            let message = format!("`name` of {what} is not one that Kubernetes takes");
            let hint = "lower-case letters, digits and `-`, at most 63, no `-` at an end";
            blame(block.problems, node, message, hint);
            None
        }
    }
}

/// Tells that a key which must be there is not.
pub(super) fn missing(block: &mut Block<'_, '_>, key: &str, what: &str) {
    let found = Diagnostic::error(format!("{what} needs `{key}`"));
    let found = match &block.origin {
        Some(origin) => found.at(origin),
        None => found,
    };
    block.problems.push(found);
}

/// A key's value as it goes into a manifest, if it is written and `fits`; a finding if not.
pub(super) fn checked(
    block: &mut Block<'_, '_>,
    key: &'static str,
    wanted: &str,
    fits: impl Fn(&Value) -> bool,
) -> Option<Json> {
    let node = block.node(key)?;
    if fits(&node.value) {
        return Some(node.to_json());
    }
    let message = format!(
        "`{}` must be {wanted}, not {}",
        block.path_of(key),
        node.kind()
    );
    block
        .problems
        .push(Diagnostic::error(message).at(&node.origin));
    None
}

/// Labels or annotations: texts by name.
pub(super) fn texts_by_name(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.values().all(|entry| entry.node.as_str().is_some()),
        _ => false,
    }
}

/// Whether a value is a text with something in it.
pub(super) fn is_text(value: &Value) -> bool {
    matches!(value, Value::Str(text) if !text.is_empty())
}

/// Whether a value is true or false.
pub(super) fn is_flag(value: &Value) -> bool {
    matches!(value, Value::Bool(_))
}

/// Whether a value is a quantity of bytes, as a text.
pub(super) fn is_size(value: &Value) -> bool {
    matches!(value, Value::Str(text) if is_quantity(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_quantities_and_resources_are_told_from_what_is_none() {
        for good in ["a", "gpu-vm-1", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
        for good in ["200Gi", "10000Gi", "1.5Ti", "1000000"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Gi", "200GB", "-1Gi", "0Gi", "1e3Gi", "two"] {
            assert!(!is_quantity(bad), "{bad}");
        }
        for good in ["nvidia.com/AD102GL_L40S", "nvidia.com/L40S", "amd.com/gpu"] {
            assert!(is_resource(good), "{good}");
        }
        for bad in [
            "L40S",
            "nvidia/L40S",
            "nvidia.com/",
            "nvidia.com/a b",
            "/x",
            "a.b/c/d",
        ] {
            assert!(!is_resource(bad), "{bad}");
        }
    }
}

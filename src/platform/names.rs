//! Names that Kubernetes takes.

/// Most characters of a name (RFC 1123 label).
pub(super) const LONGEST_NAME: usize = 63;

/// Most characters of the name of most objects (RFC 1123 subdomain).
const LONGEST_OBJECT_NAME: usize = 253;

/// Whether a text is a name that Kubernetes takes for an object (RFC 1123 label).
pub(super) fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= LONGEST_NAME
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// Whether a text is a name that Kubernetes takes for most objects (RFC 1123 subdomain).
pub(super) fn is_object_name(text: &str) -> bool {
    text.len() <= LONGEST_OBJECT_NAME && text.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_may_have_dots_and_labels_may_not() {
        for good in ["gpu-1", "ip-10-0-0-1.eu-west-1.compute.internal"] {
            assert!(is_object_name(good), "{good}");
        }
        assert!(!is_name("a.b") && is_name("a-b"));
        for bad in ["", "a..b", "GPU-1", "a_b", ".a", &"a.".repeat(127)] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }
}

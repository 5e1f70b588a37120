//! Settings that hold what a guest is told when it starts, passwords and keys among it: they go
//! to the client on its standard input, and no plan shows them.

use super::seen::Texts;

/// How such a setting is shown.
pub(super) const HIDDEN: &str = "(not shown)";

/// Whether a setting's value is shown to nobody: cloud-init's data under both of its names
/// (`user.user-data` is the older one) and variables of the processes.
pub(super) fn is_private(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or_default();
    let data = [
        "user.user-data",
        "user.vendor-data",
        "user.meta-data",
        "user.network-config",
    ];
    matches!(first, "cloud-init" | "environment") || data.contains(&key)
}

/// Settings that may stand in an argument, and those that may not.
pub(super) fn apart(settings: &Texts) -> (Texts, Texts) {
    let settings = settings
        .iter()
        .map(|(key, text)| (key.clone(), text.clone()));
    let (private, open) = settings.partition(|(key, _)| is_private(key));
    (open, private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_is_told_is_private_and_the_rest_is_not() {
        for key in [
            "user.user-data",
            "cloud-init.vendor-data",
            "environment.TOKEN",
        ] {
            assert!(is_private(key), "{key}");
        }
        for key in ["limits.cpu", "user.deploy", "user.note", "security.nesting"] {
            assert!(!is_private(key), "{key}");
        }
    }
}

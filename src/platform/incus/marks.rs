//! What of a profile or an instance is ours: a setting `user.deploy` there lists it, so that
//! what a user no longer wants is taken away, and nothing that another put there.

use std::collections::BTreeSet;
use std::fmt;

/// The setting.
pub(super) const KEY: &str = "user.deploy";

/// One thing that we put there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// The profile or instance itself.
    Made,
    /// A setting.
    Config(String),
    /// A device.
    Device(String),
    /// A profile of an instance.
    Profile(String),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made => f.write_str("made"),
            Self::Config(key) => write!(f, "config:{key}"),
            Self::Device(name) => write!(f, "device:{name}"),
            Self::Profile(name) => write!(f, "profile:{name}"),
        }
    }
}

/// All that is ours of one profile or instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks(pub(super) BTreeSet<Mark>);

impl Marks {
    /// What the setting says. A word that we do not know is kept by nobody: it is not ours.
    pub(super) fn read(text: &str) -> Self {
        let mark = |word: &str| {
            Some(match word.split_once(':') {
                None if word == "made" => Mark::Made,
                Some(("config", key)) => Mark::Config(key.to_owned()),
                Some(("device", name)) => Mark::Device(name.to_owned()),
                Some(("profile", name)) => Mark::Profile(name.to_owned()),
                _ => return None,
            })
        };
        Self(text.split_whitespace().filter_map(mark).collect())
    }

    /// Whether it is ours.
    pub(super) fn has(&self, mark: &Mark) -> bool {
        self.0.contains(mark)
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, mark) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { " " };
            write!(f, "{before}{mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let text = "made config:security.secureboot device:gpu profile:nvidia-compute";
        assert_eq!(Marks::read(text).to_string(), text);
        assert_eq!(
            Marks::read("device:gpu what else:x made").to_string(),
            "made device:gpu"
        );
        assert_eq!(Marks::default().to_string(), "");
    }
}

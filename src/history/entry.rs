//! What a run leaves: `run.json`, as it is written when the run begins and again when it ends.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::Mends;

/// Version of the files. Another one is not read.
pub(super) const FORMAT: u32 = 1;

/// What a run is called: its time and a number by chance, and with that the name of its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(String);

impl EntryId {
    /// Takes a name that stands in a folder or in a command. It becomes part of a path, so it
    /// is a time, a dash and letters or digits: `20261122T210500Z-3f9a1c`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, chance) = text.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (day, clock) = time.strip_suffix('Z')?.split_once('T')?;
        let is_time = day.len() == 8 && clock.len() == 6 && digits(day) && digits(clock);
        let is_chance =
            (1..=12).contains(&chance.len()) && chance.bytes().all(|b| b.is_ascii_alphanumeric());
        (is_time && is_chance).then(|| Self(text.to_owned()))
    }

    /// The name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run was asked to do. It holds no value of a variable: they may be secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `gpu`, `run`, `apply`, `drift`, `rollback`.
    pub verb: String,
    /// The playbook, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playbook: Option<String>,
    /// The saved plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The inventories, as absolute paths.
    pub inventory: Vec<String>,
    /// `--project`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// `--limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// `--shard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// `--tags`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `--skip-tags`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_tags: Vec<String>,
    /// Names of `--extra-vars`, and its files as `@FILE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_vars: Vec<String>,
    /// The other flags that say what is done, such as `--check` and `--remediate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

impl Asked {
    /// Whether both were asked for the same of the same hosts: runs of one schedule are.
    #[must_use]
    pub fn is_same_job(&self, other: &Self) -> bool {
        self == other
    }

    /// Whether both look at the same hosts for drift from the same, whatever they do about it:
    /// what one finds open the other may find gone.
    #[must_use]
    pub fn is_same_watch(&self, other: &Self) -> bool {
        let of = |asked: &Self| Self {
            flags: Vec::new(),
            ..asked.clone()
        };
        self.verb == "drift" && of(self) == of(other)
    }

    /// Whether it changes hosts where something differs; else they are looked at.
    #[must_use]
    pub fn changes(&self) -> bool {
        let has = |flag: &str| self.flags.iter().any(|given| given == flag);
        !has("--check") && (self.verb != "drift" || has("--remediate"))
    }

    /// What it mends of the drift that it finds.
    #[must_use]
    pub fn mends(&self) -> Mends {
        let has = |flag: &str| self.flags.iter().any(|given| given == flag);
        match self.verb == "drift" && self.changes() {
            false => Mends::Nothing,
            true if has("--to wanted") => Mends::Wanted,
            true => Mends::Applied,
        }
    }

    /// As a line of words, much as it was typed.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = vec!["deploy".to_owned(), self.verb.clone()];
        words.extend(self.playbook.iter().chain(&self.plan).cloned());
        for path in &self.inventory {
            words.extend(["-i".to_owned(), path.clone()]);
        }
        let with_value = [
            ("--project", &self.project),
            ("--limit", &self.limit),
            ("--shard", &self.shard),
        ];
        for (flag, value) in with_value {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.clone()]);
            }
        }
        for (flag, values) in [("--tags", &self.tags), ("--skip-tags", &self.skip_tags)] {
            if !values.is_empty() {
                words.extend([flag.to_owned(), values.join(",")]);
            }
        }
        for name in &self.extra_vars {
            let told = match name.starts_with('@') {
                true => name.clone(),
                false => format!("{name}=…"),
            };
            words.extend(["-e".to_owned(), told]);
        }
        words.extend(self.flags.iter().cloned());
        words.join(" ")
    }
}

/// What is known when a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its name.
    pub id: EntryId,
    /// Version of the tool.
    pub tool: String,
    /// What was asked for.
    pub asked: Asked,
    /// Who.
    pub who: String,
    /// From which machine.
    pub from: String,
    /// When.
    pub started: Timestamp,
    /// Seconds between two runs of the schedule that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
}

/// What is known when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// The sums, as the last line has them.
    pub summary: Json,
}

impl Ended {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Option<u8> {
        u8::try_from(self.summary.get("exit")?.as_u64()?).ok()
    }
}

/// A run as `run.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the file.
    pub(super) format: u32,
    /// What is known since it began.
    #[serde(flatten)]
    pub begun: Begun,
    /// What is known since it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl Entry {
    /// A run in the form of today.
    #[must_use]
    pub fn new(begun: Begun, ended: Option<Ended>) -> Self {
        Self {
            format: FORMAT,
            begun,
            ended,
        }
    }
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its process works.
    AtWork,
    /// It told its sums.
    Ended,
    /// Its process is gone, and it told no sums: it was killed, or its machine went down.
    Interrupted,
}

impl State {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AtWork => "at work",
            Self::Ended => "ended",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_time_and_a_number_and_no_path() {
        assert!(EntryId::parse("20261122T210500Z-3f9a1c").is_some());
        for wrong in [
            "",
            "..",
            "20261122T210500Z",
            "20261122T210500Z-",
            "20261122T210500Z-../x",
            "2026112T2105000Z-3f9a1c",
            "20261122T210500Z-0123456789abc",
            "20261122T21050xZ-3f9a1c",
        ] {
            assert_eq!(EntryId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_run_is_told_as_it_was_typed_without_values() {
        let asked = Asked {
            verb: "drift".to_owned(),
            inventory: vec!["/srv/fleet.yml".to_owned()],
            limit: Some("gpu".to_owned()),
            tags: vec!["a".to_owned(), "b".to_owned()],
            extra_vars: vec!["token".to_owned(), "@/srv/x.yml".to_owned()],
            flags: vec!["--remediate".to_owned()],
            ..Asked::default()
        };
        assert_eq!(
            asked.words(),
            "deploy drift -i /srv/fleet.yml --limit gpu --tags a,b -e token=… -e @/srv/x.yml --remediate"
        );
    }
}

//! A line of JSON output. Its kinds are a closed list, and each has a published schema: there
//! is no way to make a line of a kind that stands not here.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::text::hides;

/// Version of the objects; a change that could break a reader raises it.
pub const VERSION: u32 = 1;

/// What a line tells: its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a host has.
    HostFacts,
    /// How a card is sliced, and is to be.
    GpuSlices,
    /// A step that would be made.
    PlannedChange,
    /// What differs on a host from what was applied or is wanted.
    Drift,
    /// A step begins.
    StepStart,
    /// A step ended.
    StepEnd,
    /// A host is done.
    HostEnd,
    /// A run that a host keeps.
    HostRun,
    /// A finding, or a sentence for the user.
    Diagnostic,
    /// A model of GPU.
    GpuModel,
    /// A run that was made from this machine.
    HistoryEntry,
    /// A MIG layout that holds what tenants need.
    MigLayout,
    /// How many hosts ended how; always the last.
    Summary,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HostFacts,
        Self::GpuSlices,
        Self::PlannedChange,
        Self::Drift,
        Self::StepStart,
        Self::StepEnd,
        Self::HostEnd,
        Self::HostRun,
        Self::HistoryEntry,
        Self::Diagnostic,
        Self::GpuModel,
        Self::MigLayout,
        Self::Summary,
    ];

    /// The word that stands as `type`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::HostFacts => "host_facts",
            Self::GpuSlices => "gpu_slices",
            Self::PlannedChange => "planned_change",
            Self::Drift => "drift",
            Self::StepStart => "step_start",
            Self::StepEnd => "step_end",
            Self::HostEnd => "host_end",
            Self::HostRun => "host_run",
            Self::HistoryEntry => "history_entry",
            Self::Diagnostic => "diagnostic",
            Self::GpuModel => "gpu_model",
            Self::MigLayout => "mig_layout",
            Self::Summary => "summary",
        }
    }
}

/// An object of one of the kinds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Line(Value);

impl Line {
    /// A line of a kind with these fields; `body` is an object.
    #[must_use]
    pub fn new(kind: Kind, body: Value) -> Self {
        let mut map = Map::new();
        map.insert("type".to_owned(), json!(kind.word()));
        map.insert("version".to_owned(), json!(VERSION));
        if let Value::Object(body) = body {
            map.extend(body);
        }
        Self(Value::Object(map))
    }

    /// A line that was kept in a file; none if this version knows no such line.
    #[must_use]
    pub fn kept(value: Value) -> Option<Self> {
        let known = |kind: &Kind| value["type"] == kind.word();
        let is_ours = value["version"] == VERSION && Kind::ALL.iter().any(known);
        is_ours.then_some(Self(value))
    }

    /// The object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The object in one line of which a terminal acts on nothing: JSON itself lets DEL,
    /// the second set of control characters and what reorders text stand in strings. There
    /// is no newline behind it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut line = String::new();
        for c in self.0.to_string().chars() {
            if c.is_control() || hides(c) {
                // All of them are of the first 65536, so that one escape says them; they
                // stand in strings only.
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                line.push(c);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_no_escapes_to_a_terminal_and_means_the_same() {
        let text = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}ü\u{200b}\n";
        let line = Line::new(Kind::StepStart, json!({ "a": text }));
        assert_eq!(
            line.text(),
            r#"{"type":"step_start","version":1,"a":"\u001b[2J\u009b31m\u007f\u202eü\u200b\n"}"#
        );
        let back: Value = serde_json::from_str(&line.text()).expect("still JSON");
        assert_eq!(&back, line.value());
    }
}

//! What a monitoring system is told of a run when it has ended.
//!
//! One file a schedule: its name is a label, so that the files of several schedules can lie
//! in one folder. Labels have few values: no host and no address is one.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::exposition::{self, Labels, Metric};
use super::json::{OUTCOMES, outcome_word};

/// Kinds of drift, as they are counted.
pub const KINDS: [&str; 5] = ["drifted", "flapping", "pending", "held", "ignored"];

/// What is known of the run.
#[derive(Debug, Clone)]
pub struct Figures<'a> {
    /// The name of the file, without its ending.
    pub name: &'a str,
    /// The verb.
    pub verb: &'a str,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The sums.
    pub summary: &'a Json,
    /// Seconds between two runs of the schedule, and how many are missing before this one.
    pub schedule: Option<(u32, u32)>,
    /// Of a look at drift, how much of each of `KINDS`, and since when the oldest stands.
    pub drift: Option<Drift>,
}

/// What was found to differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// In the order of `KINDS`; a thing can be of several.
    pub counts: [u32; 5],
    /// Since when the oldest drift stands that nobody mended.
    pub oldest: Option<Timestamp>,
}

/// The metrics of a run.
#[must_use]
pub fn text(figures: &Figures<'_>) -> String {
    let labels = Labels::default()
        .with("name", figures.name)
        .with("verb", figures.verb);
    let mut metrics = Vec::new();
    let mut one = |name, help, value: Option<f64>| {
        let mut metric = Metric::new(name, help);
        metric.add_known(&labels, value);
        metrics.push(metric);
    };
    let (started, ended) = (seconds(figures.started), seconds(figures.ended));
    one(
        "deploy_run_start_timestamp_seconds",
        "When the last run began.",
        Some(started),
    );
    one(
        "deploy_run_end_timestamp_seconds",
        "When the last run ended.",
        Some(ended),
    );
    one(
        "deploy_run_duration_seconds",
        "How long the last run took.",
        Some((ended - started).max(0.0)),
    );
    one(
        "deploy_run_exit_code",
        "Exit code of the last run.",
        figures.summary["exit"].as_f64(),
    );
    one(
        "deploy_run_interval_seconds",
        "Seconds between two runs of the schedule.",
        figures.schedule.map(|(every, _)| every.into()),
    );
    one(
        "deploy_run_missed",
        "Runs of the schedule that are missing right before the last one.",
        figures.schedule.map(|(_, missed)| missed.into()),
    );
    let oldest = figures.drift.as_ref().and_then(|drift| drift.oldest);
    // A time, not an age: the file stands still between two runs.
    one(
        "deploy_run_drift_oldest_timestamp_seconds",
        "Since when the oldest drift is known that nobody mended; no sample where there is none.",
        oldest.map(seconds),
    );
    let mut hosts = Metric::new(
        "deploy_run_hosts",
        "Hosts of the last run by how they ended.",
    );
    for outcome in OUTCOMES {
        let word = outcome_word(outcome);
        let count = figures.summary[word].as_f64().unwrap_or_default();
        hosts.add(&labels.with("state", word), count);
    }
    let mut drift = Metric::new(
        "deploy_run_drift",
        "Things that differ, by kind; one can be of several.",
    );
    let mut drift_hosts = Metric::new(
        "deploy_run_drift_hosts",
        "Hosts with things that differ, by kind.",
    );
    if let Some(found) = &figures.drift {
        for (kind, count) in KINDS.into_iter().zip(found.counts) {
            drift.add(&labels.with("kind", kind), count);
        }
        for kind in ["drifted", "pending"] {
            let count = figures.summary[kind].as_f64().unwrap_or_default();
            drift_hosts.add(&labels.with("kind", kind), count);
        }
    }
    metrics.extend([hosts, drift, drift_hosts]);
    exposition::text(&metrics)
}

/// Seconds since 1970, with milliseconds.
fn seconds(at: Timestamp) -> f64 {
    let millis = i32::try_from(at.as_millisecond().rem_euclid(1000)).unwrap_or_default();
    // Far below 2^53, so that nothing is lost.
    at.as_millisecond().div_euclid(1000) as f64 + f64::from(millis) / 1000.0
}

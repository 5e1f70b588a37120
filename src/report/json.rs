//! One JSON object a line, with a closed list of types: `host_facts`,
//! `planned_change`, `drift`, `step_start`, `step_end`, `host_end`, `diagnostic` and, last,
//! `summary`, which `line` holds; `schemas/` says what each looks like.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::drift::{Finding, Side};
use crate::error::{Diagnostic, Problems, Severity};
use crate::event::{CardSlices, Event, HostProblem, Outcome, SliceCount, StepOutcome};
use crate::report::exit::Exit;
use crate::report::line::{Kind, Line};
use crate::report::{NotBegun, Tally};

/// The objects that tell an event; none for a sentence that is only talk.
#[must_use]
pub fn objects(event: &Event) -> Vec<Line> {
    match event {
        Event::Facts { host, facts } => {
            vec![Line::new(
                Kind::HostFacts,
                json!({ "host": host.as_str(), "facts": facts.as_ref() }),
            )]
        }
        Event::Planned { host, plan } => plan
            .steps
            .iter()
            .map(|step| {
                Line::new(
                    Kind::PlannedChange,
                    json!({
                        "host": host.as_str(),
                        "step": step.id,
                        "task": step.task,
                        "title": step.title,
                        "class": step.class,
                        "change": step.change,
                        "guard": plan.guard,
                    }),
                )
            })
            .collect(),
        Event::Slices { host, cards } => cards
            .iter()
            .map(|card| gpu_slices(host.as_str(), card))
            .collect(),
        Event::Plans(_) => Vec::new(),
        Event::Drift {
            host,
            last,
            findings,
        } => findings
            .iter()
            .map(|finding| drift(host.as_str(), last.as_deref(), finding))
            .collect(),
        Event::StepStart { host, step } => {
            vec![Line::new(
                Kind::StepStart,
                json!({ "host": host.as_str(), "step": step }),
            )]
        }
        Event::StepEnd {
            host,
            step,
            outcome,
            message,
        } => vec![Line::new(
            Kind::StepEnd,
            json!({
                "host": host.as_str(),
                "step": step,
                "outcome": step_outcome(*outcome),
                "message": message,
            }),
        )],
        Event::HostEnd {
            host,
            outcome,
            problem,
        } => {
            let mut body = json!({ "host": host.as_str(), "outcome": outcome_word(*outcome) });
            if let Some(problem) = problem {
                body["problem"] = problem_json(problem);
            }
            vec![Line::new(Kind::HostEnd, body)]
        }
        Event::Diagnostics(problems) => diagnostics(problems),
        Event::Note { host, text } => {
            let mut body = json!({ "severity": "note", "message": text });
            if let Some(host) = host {
                body["host"] = json!(host.as_str());
            }
            vec![Line::new(Kind::Diagnostic, body)]
        }
    }
}

/// An object a finding.
#[must_use]
pub fn diagnostics(problems: &Problems) -> Vec<Line> {
    problems
        .0
        .iter()
        .map(|diagnostic| Line::new(Kind::Diagnostic, diagnostic_json(diagnostic)))
        .collect()
}

/// The last object.
#[must_use]
pub fn summary(tally: &Tally, not_begun: &[NotBegun], exit: Exit) -> Line {
    Line::new(
        Kind::Summary,
        json!({
            "hosts": tally.hosts,
            "ok": tally.ok,
            "changed": tally.changed,
            "failed": tally.failed,
            "unreachable": tally.unreachable,
            "rolled_back": tally.rolled_back,
            "stuck": tally.stuck,
            "unconfirmed": tally.unconfirmed,
            "locked": tally.locked,
            "stale": tally.stale,
            "left": tally.left,
            "skipped": tally.skipped,
            "not_begun": not_begun.iter().map(|group| json!({
                "why": group.why,
                "hosts": group.hosts.len(),
            })).collect::<Vec<_>>(),
            "drifted": tally.drifted,
            "pending": tally.pending,
            "exit": exit.code(),
        }),
    )
}

/// The last line behind lines that are told again: the sums of what they tell.
#[must_use]
pub fn summary_of(lines: &[Value], not_begun: &Value, exit: Exit) -> Line {
    let of_kind = |kind: Kind| lines.iter().filter(move |line| line["type"] == kind.word());
    let host = |line: &Value| line["host"].as_str().map(str::to_owned);
    let mut ends = HashMap::new();
    for line in of_kind(Kind::HostEnd) {
        ends.insert(host(line), line["outcome"].as_str().and_then(outcome_of));
    }
    let with = |side: &str| {
        let counts = |line: &&Value| line["status"] != "ignored" && !line[side].is_null();
        let hosts = of_kind(Kind::Drift).filter(counts).map(host);
        hosts.collect::<HashSet<_>>().len()
    };
    let mut tally = Tally {
        drifted: with("to_applied"),
        pending: with("to_wanted"),
        ..Tally::default()
    };
    for outcome in ends.into_values().flatten() {
        tally.count(outcome);
    }
    let mut body = summary(&tally, &[], exit).value().clone();
    body["not_begun"] = not_begun.clone();
    Line::new(Kind::Summary, body)
}

fn gpu_slices(host: &str, card: &CardSlices) -> Line {
    let count = |row: &SliceCount| {
        json!({
            "technology": row.technology,
            "profile": row.profile,
            "wanted": row.wanted,
            "found": row.found,
        })
    };
    Line::new(
        Kind::GpuSlices,
        json!({
            "host": host,
            "gpu": card.name,
            "model": card.model,
            "state": card.state,
            "technology": card.technology,
            "differs": card.differs,
            "grid": card.grid,
            "slices": card.slices,
            "counts": card.counts.iter().map(count).collect::<Vec<_>>(),
        }),
    )
}

fn drift(host: &str, last: Option<&str>, finding: &Finding) -> Line {
    let lines: Vec<Value> = finding
        .lines
        .iter()
        .map(|line| {
            json!({
                "status": match line.side {
                    Side::Drifted => "drifted",
                    Side::Pending => "pending",
                },
                "what": if line.added { "added" } else { "removed" },
                "line": line.line,
                "text": line.text,
            })
        })
        .collect();
    Line::new(
        Kind::Drift,
        json!({
            "host": host,
            "address": format!("{host}/{}", finding.step),
            "step": finding.step,
            "status": finding.word().replace(' ', "_"),
            "title": finding.title,
            "class": finding.class,
            "last_run": last,
            "to_applied": finding.drift,
            "to_wanted": finding.pending,
            "lines": lines,
            "who": finding.who,
            "mended": finding.mended,
            "held": finding.held,
            "ignored": finding.ignored,
        }),
    )
}

fn diagnostic_json(diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut body = json!({ "severity": severity, "message": diagnostic.message });
    if let Some(origin) = &diagnostic.origin {
        body["path"] = json!(origin.path().display().to_string());
        body["line"] = json!(origin.line);
        body["column"] = json!(origin.column);
    }
    if let Some(hint) = &diagnostic.hint {
        body["hint"] = json!(hint);
    }
    body
}

fn problem_json(problem: &HostProblem) -> Value {
    match problem {
        HostProblem::NotBegun(why) => json!({ "reason": "not_begun", "message": why }),
        HostProblem::Unreachable(unreachable) => json!({
            "reason": unreachable.reason.to_string().replace(' ', "_"),
            "message": unreachable.message,
            "hint": unreachable.hint,
        }),
        HostProblem::Refused(problems) => json!({
            "reason": "refused",
            "findings": problems.0.iter().map(diagnostic_json).collect::<Vec<_>>(),
        }),
        HostProblem::Failed { step, chain, hint } => json!({
            "reason": "failed",
            "step": step,
            "message": chain.join(": "),
            "hint": hint,
        }),
    }
}

/// The status words, in the form that JSON and the summary use.
#[must_use]
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Changed => "changed",
        Outcome::Failed => "failed",
        Outcome::RolledBack => "rolled_back",
        Outcome::Unreachable => "unreachable",
        Outcome::Stuck => "stuck",
        Outcome::Unconfirmed => "unconfirmed",
        Outcome::Locked => "locked",
        Outcome::Stale => "stale",
        Outcome::Skipped => "skipped",
        Outcome::Left => "left",
    }
}

/// The outcome of a word.
#[must_use]
pub fn outcome_of(word: &str) -> Option<Outcome> {
    OUTCOMES
        .into_iter()
        .find(|outcome| outcome_word(*outcome) == word)
}

/// All outcomes of hosts, in the order of the sums.
pub const OUTCOMES: [Outcome; 11] = [
    Outcome::Ok,
    Outcome::Changed,
    Outcome::Failed,
    Outcome::Unreachable,
    Outcome::RolledBack,
    Outcome::Stuck,
    Outcome::Unconfirmed,
    Outcome::Locked,
    Outcome::Stale,
    Outcome::Left,
    Outcome::Skipped,
];

/// The outcome of a step of a word.
#[must_use]
pub fn step_outcome_of(word: &str) -> Option<StepOutcome> {
    let all = [
        StepOutcome::Changed,
        StepOutcome::Failed,
        StepOutcome::Undone,
        StepOutcome::UndoFailed,
    ];
    all.into_iter()
        .find(|outcome| step_outcome(*outcome) == word)
}

fn step_outcome(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Changed => "changed",
        StepOutcome::Failed => "failed",
        StepOutcome::Undone => "undone",
        StepOutcome::UndoFailed => "undo_failed",
    }
}

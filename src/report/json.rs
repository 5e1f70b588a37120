//! One JSON object a line, with a closed list of types: `host_facts`,
//! `planned_change`, `drift`, `step_start`, `step_end`, `host_end`, `diagnostic` and, last,
//! `summary`. Each carries `"version": 1`; a change that could break a reader
//! raises it.

use serde_json::{Value, json};

use crate::drift::{Finding, Side};
use crate::error::{Diagnostic, Problems, Severity};
use crate::event::{Event, HostProblem, Outcome, StepOutcome};
use crate::report::exit::Exit;
use crate::report::{NotBegun, Tally};

/// Version of the objects.
const VERSION: u32 = 1;

/// The objects that tell an event; none for a sentence that is only talk.
#[must_use]
pub fn objects(event: &Event) -> Vec<Value> {
    match event {
        Event::Facts { host, facts } => {
            vec![object(
                "host_facts",
                json!({ "host": host.as_str(), "facts": facts.as_ref() }),
            )]
        }
        Event::Planned { host, plan } => plan
            .steps
            .iter()
            .map(|step| {
                object(
                    "planned_change",
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
            vec![object(
                "step_start",
                json!({ "host": host.as_str(), "step": step }),
            )]
        }
        Event::StepEnd {
            host,
            step,
            outcome,
            message,
        } => vec![object(
            "step_end",
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
            vec![object("host_end", body)]
        }
        Event::Diagnostics(problems) => diagnostics(problems),
        Event::Note { host, text } => vec![object(
            "diagnostic",
            json!({
                "severity": "note",
                "host": host.as_ref().map(crate::value::HostName::as_str),
                "message": text,
            }),
        )],
    }
}

/// An object a finding.
#[must_use]
pub fn diagnostics(problems: &Problems) -> Vec<Value> {
    problems
        .0
        .iter()
        .map(|diagnostic| object("diagnostic", diagnostic_json(diagnostic)))
        .collect()
}

/// The last object.
#[must_use]
pub fn summary(tally: &Tally, not_begun: &[NotBegun], exit: Exit) -> Value {
    object(
        "summary",
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

fn drift(host: &str, last: Option<&str>, finding: &Finding) -> Value {
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
    object(
        "drift",
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

fn object(kind: &str, body: Value) -> Value {
    let mut map = serde_json::Map::new();
    map.insert("type".to_owned(), json!(kind));
    map.insert("version".to_owned(), json!(VERSION));
    if let Value::Object(body) = body {
        map.extend(body);
    }
    Value::Object(map)
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
            "reason": unreachable.reason.to_string(),
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

//! What a run told, told again: the objects of its lines become events, which any printer
//! takes. What an object does not carry, such as the line of a file that a finding is about,
//! is told in words.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::json::{outcome_of, step_outcome_of};
use crate::drift::{Finding, LineFinding, NOTHING_APPLIED, Side};
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::step::{Step, StepId};
use crate::value::HostName;

/// The events of these lines. What is no line of ours is passed over.
#[must_use]
pub fn events(lines: &[Json]) -> Vec<Event> {
    let of_kind = |kind: &str| lines.iter().any(|line| line["type"] == kind);
    let mut replay = Replay {
        events: Vec::new(),
        plans: Vec::new(),
        places: HashMap::new(),
        findings: Vec::new(),
        // A look at drift shows what it finds as a plan; where something is mended, the plan
        // itself was told.
        shows_findings: of_kind("drift") && !of_kind("planned_change"),
        order: order(lines),
    };
    if replay.shows_findings {
        replay.plans = found_plans(lines);
        let hosts = replay.plans.iter().map(|(host, _)| host.clone());
        replay.places = hosts.zip(0..).collect();
    }
    for line in lines {
        replay.line(line);
    }
    replay.drift();
    replay.plans();
    replay.events
}

struct Replay {
    events: Vec<Event>,
    /// Plans that were told and are not shown yet.
    plans: Vec<(HostName, HostPlan)>,
    /// Where the plan of each host is among them.
    places: HashMap<HostName, usize>,
    /// Findings of the host whose lines come now.
    findings: Vec<(HostName, Option<String>, Finding)>,
    shows_findings: bool,
    /// Where in the lines each host has ended: plans that are shown together are shown so.
    order: HashMap<HostName, usize>,
}

impl Replay {
    fn line(&mut self, line: &Json) {
        let kind = line["type"].as_str().unwrap_or_default();
        let host = line["host"].as_str().map(HostName::from);
        let other_host =
            |(name, ..): &(HostName, Option<String>, Finding)| Some(name) != host.as_ref();
        if kind != "drift" || self.findings.first().is_some_and(other_host) {
            self.drift();
        }
        match (kind, host) {
            ("planned_change", Some(host)) => self.planned(host, line),
            ("drift", Some(host)) => {
                if let Some(finding) = finding(line) {
                    let last = line["last_run"].as_str().map(str::to_owned);
                    self.findings.push((host, last, finding));
                }
            }
            ("step_start", Some(host)) => {
                self.plans();
                let step = step_id(line);
                self.events.push(Event::StepStart { host, step });
            }
            ("step_end", Some(host)) => {
                let word = line["outcome"].as_str().unwrap_or_default();
                if let Some(outcome) = step_outcome_of(word) {
                    self.events.push(Event::StepEnd {
                        host,
                        step: step_id(line),
                        outcome,
                        message: text(line, "message"),
                    });
                }
            }
            ("host_end", Some(host)) => {
                if self.places.contains_key(&host) {
                    self.plans();
                }
                let word = line["outcome"].as_str().unwrap_or_default();
                if let Some(outcome) = outcome_of(word) {
                    self.events.push(Event::HostEnd {
                        host,
                        outcome,
                        problem: problem(&line["problem"], outcome),
                    });
                }
            }
            ("diagnostic", host) => self.events.push(diagnostic(line, host)),
            _ => {}
        }
    }

    fn planned(&mut self, host: HostName, line: &Json) {
        let Some(step) = step(line) else { return };
        let guard = serde_json::from_value(line["guard"].clone()).ok().flatten();
        match self.places.get(&host) {
            Some(place) => self.plans[*place].1.steps.push(step),
            None => {
                let plan = HostPlan {
                    steps: vec![step],
                    guard,
                    ..HostPlan::default()
                };
                self.places.insert(host.clone(), self.plans.len());
                self.plans.push((host, plan));
            }
        }
    }

    /// Shows the plans that were told so far.
    fn plans(&mut self) {
        if self.plans.is_empty() {
            return;
        }
        self.places.clear();
        self.plans
            .sort_by_key(|(host, _)| self.order.get(host).copied().unwrap_or(usize::MAX));
        let plans: Vec<(HostName, Arc<HostPlan>)> = std::mem::take(&mut self.plans)
            .into_iter()
            .map(|(host, plan)| (host, Arc::new(plan)))
            .collect();
        if !self.shows_findings {
            for (host, plan) in &plans {
                self.events.push(Event::Planned {
                    host: host.clone(),
                    plan: Arc::clone(plan),
                });
            }
        }
        self.events.push(Event::Plans(plans));
    }

    /// Tells the findings of a host, once all its lines are there.
    fn drift(&mut self) {
        let Some((host, last, _)) = self.findings.first() else {
            return;
        };
        let (host, last) = (host.clone(), last.clone());
        let findings = std::mem::take(&mut self.findings);
        if self.shows_findings {
            self.plans();
        }
        self.events.push(Event::Drift {
            host,
            last,
            findings: Arc::new(findings.into_iter().map(|(.., finding)| finding).collect()),
        });
    }
}

fn order(lines: &[Json]) -> HashMap<HostName, usize> {
    let mut order = HashMap::new();
    for (place, line) in lines.iter().enumerate() {
        if let ("host_end", Some(host)) = (
            line["type"].as_str().unwrap_or_default(),
            line["host"].as_str(),
        ) {
            order.entry(HostName::from(host)).or_insert(place);
        }
    }
    order
}

/// What a look at drift showed of each host.
fn found_plans(lines: &[Json]) -> Vec<(HostName, HostPlan)> {
    let mut places: HashMap<HostName, usize> = HashMap::new();
    let mut plans: Vec<(HostName, HostPlan)> = Vec::new();
    for line in lines.iter().filter(|line| line["type"] == "drift") {
        let (Some(host), Some(finding)) = (line["host"].as_str(), finding(line)) else {
            continue;
        };
        let Some(change) = finding.change().cloned() else {
            continue;
        };
        let host = HostName::from(host);
        let place = *places.entry(host.clone()).or_insert_with(|| {
            let mut plan = HostPlan::default();
            if line["last_run"].is_null() {
                plan.notes.push(NOTHING_APPLIED.to_owned());
            }
            plans.push((host, plan));
            plans.len() - 1
        });
        let title = format!("{}: {}", finding.word(), finding.title);
        let step = Step::new(finding.step.clone(), "", title, change);
        plans[place].1.steps.push(Step {
            class: finding.class,
            ..step
        });
    }
    plans
}

fn text(line: &Json, key: &str) -> String {
    line[key].as_str().unwrap_or_default().to_owned()
}

fn step_id(line: &Json) -> StepId {
    StepId(text(line, "step"))
}

fn step(line: &Json) -> Option<Step> {
    let change = serde_json::from_value(line["change"].clone()).ok()?;
    let step = Step::new(
        step_id(line),
        &text(line, "task"),
        text(line, "title"),
        change,
    );
    let class = serde_json::from_value(line["class"].clone()).ok()?;
    Some(Step { class, ..step })
}

fn finding(line: &Json) -> Option<Finding> {
    let change = |key: &str| serde_json::from_value(line[key].clone()).ok().flatten();
    let lines = line["lines"].as_array().map(Vec::as_slice);
    let optional = |key: &str| line[key].as_str().map(str::to_owned);
    Some(Finding {
        step: step_id(line),
        title: text(line, "title"),
        class: serde_json::from_value(line["class"].clone()).ok()?,
        drift: change("to_applied"),
        pending: change("to_wanted"),
        lines: lines
            .unwrap_or_default()
            .iter()
            .map(|line| LineFinding {
                side: match line["status"].as_str() {
                    Some("pending") => Side::Pending,
                    _ => Side::Drifted,
                },
                added: line["what"] == "added",
                line: serde_json::from_value(line["line"].clone()).unwrap_or_default(),
                text: text(line, "text"),
            })
            .collect(),
        ignored: optional("ignored"),
        who: serde_json::from_value(line["who"].clone()).unwrap_or_default(),
        mended: serde_json::from_value(line["mended"].clone()).unwrap_or_default(),
        flapping: line["status"] == "flapping",
        held: optional("held"),
    })
}

fn diagnostic(line: &Json, host: Option<HostName>) -> Event {
    if line["severity"] == "note" {
        return Event::Note {
            host,
            text: text(line, "message"),
        };
    }
    Event::Diagnostics(finding_of(line).into())
}

/// A finding; of its place in a file what can be said in words.
fn finding_of(line: &Json) -> Diagnostic {
    let mut message = text(line, "message");
    if let Some(path) = line["path"].as_str() {
        message = format!("{path}:{}:{}: {message}", line["line"], line["column"]);
    }
    let found = match line["severity"].as_str() {
        Some("warning") => Diagnostic::warning(message),
        _ => Diagnostic::error(message),
    };
    match line["hint"].as_str() {
        Some(hint) => found.hint(hint),
        None => found,
    }
}

fn problem(problem: &Json, outcome: Outcome) -> Option<HostProblem> {
    if problem.is_null() {
        return None;
    }
    let (reason, message) = (text(problem, "reason"), text(problem, "message"));
    let hint = problem["hint"].as_str().map(str::to_owned);
    Some(match reason.as_str() {
        "not_begun" => HostProblem::NotBegun(message),
        "refused" => {
            let findings = problem["findings"].as_array().map(Vec::as_slice);
            let findings = findings.unwrap_or_default().iter().map(finding_of);
            HostProblem::Refused(Problems(findings.collect()))
        }
        _ => HostProblem::Failed {
            step: problem["step"].as_str().map(|id| StepId(id.to_owned())),
            chain: vec![match outcome {
                Outcome::Unreachable => format!("{}: {message}", reason.replace('_', " ")),
                _ => message,
            }],
            hint,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::json;

    /// The lines of these lines, told again.
    fn again(lines: &[Json]) -> Vec<Json> {
        let lines = events(lines)
            .iter()
            .flat_map(json::objects)
            .collect::<Vec<_>>();
        lines.iter().map(|line| line.value().clone()).collect()
    }

    #[test]
    fn what_was_told_is_told_again() {
        let lines = [
            json!({"type": "diagnostic", "version": 1, "severity": "note", "message": "hm"}),
            json!({"type": "planned_change", "version": 1, "host": "n1", "step": "a", "task": "t",
                "title": "do it", "class": "disruptive", "change": {"kind": "action", "what": "x"}, "guard": null}),
            json!({"type": "step_start", "version": 1, "host": "n1", "step": "a"}),
            json!({"type": "step_end", "version": 1, "host": "n1", "step": "a", "outcome": "failed", "message": "no"}),
            json!({"type": "host_end", "version": 1, "host": "n1", "outcome": "rolled_back", "problem": {
                "reason": "failed", "step": "a", "message": "no", "hint": null}}),
            json!({"type": "host_end", "version": 1, "host": "n2", "outcome": "skipped", "problem": {
                "reason": "not_begun", "message": "others failed"}}),
        ];
        assert_eq!(again(&lines), lines);
    }

    #[test]
    fn lines_of_a_later_tool_are_passed_over() {
        let lines = [
            json!({"type": "novelty", "host": "n1"}),
            json!({"type": "planned_change", "host": "n1", "change": {"kind": "novelty"}}),
            json!({"type": "host_end", "host": "n1", "outcome": "novel"}),
            json!({"type": "host_end"}),
            json!(["no object"]),
        ];
        assert!(events(&lines).is_empty());
    }
}

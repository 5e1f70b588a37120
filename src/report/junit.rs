//! A run as the XML document that build servers read: a test suite a host, a test case a step,
//! and one case, `host`, for how the host ended. Elements and attributes are those of the
//! schema that the consumers of JUnit's reports agree on, in its order.
//!
//! A step that was made is a case that passed, one that was not reached or would only be made
//! is skipped, one that failed is a failure, and so is drift. What a person has to look at is
//! an error. Makes text; `report` writes it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::drift::{Finding, Side};
use crate::error::{Diagnostic, Problems};
use crate::event::{Event, Outcome, StepOutcome};
use crate::report::diagnostic::{self, Style};
use crate::report::exit::{CheckMode, Exit};
use crate::report::json::outcome_word;
use crate::report::review::words;
use crate::step::StepId;
use crate::value::HostName;

/// Most characters of one text.
const LONGEST: usize = 10_000;

/// The document, as it is filled.
#[derive(Debug)]
pub struct Junit {
    check: CheckMode,
    /// The run that is made, where one is.
    run: Option<String>,
    suites: Vec<Suite>,
    /// Where the suite of each host is among them.
    places: HashMap<String, usize>,
}

#[derive(Debug)]
struct Suite {
    host: String,
    began: Timestamp,
    since: Instant,
    took: Duration,
    /// The run that was applied last, where that was asked for.
    last_run: Option<String>,
    cases: Vec<Case>,
    end: Option<Verdict>,
}

#[derive(Debug)]
struct Case {
    step: StepId,
    name: String,
    began: Option<Instant>,
    took: Duration,
    verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// Why.
    Skipped(String),
    Failure(Told),
    Error(Told),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kind: String,
    message: String,
    text: String,
}

impl Junit {
    /// Nothing told yet.
    #[must_use]
    pub fn new(check: CheckMode) -> Self {
        Self {
            check,
            run: None,
            suites: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Names the run that is made.
    pub(super) fn of_run(&mut self, run: &str) {
        self.run = Some(run.to_owned());
    }

    /// Takes in what an event tells.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Facts { host, .. } => {
                self.suite(host);
            }
            Event::Planned { host, plan } => {
                let why = match self.check {
                    CheckMode::On => "would be made",
                    CheckMode::Off => "not reached",
                };
                let suite = self.suite(host);
                for step in &plan.steps {
                    let case = suite.case(&step.id);
                    case.name.clone_from(&step.title);
                    if case.verdict == Verdict::Passed {
                        case.verdict = Verdict::Skipped(why.to_owned());
                    }
                }
            }
            Event::Drift {
                host,
                last,
                findings,
            } => {
                let suite = self.suite(host);
                suite.last_run.clone_from(last);
                for finding in findings.iter() {
                    let case = suite.case(&finding.step);
                    case.name.clone_from(&finding.title);
                    case.verdict = differs(finding);
                }
            }
            Event::StepStart { host, step } => {
                self.suite(host).case(step).began = Some(Instant::now());
            }
            Event::StepEnd {
                host,
                step,
                outcome,
                message,
            } => self.suite(host).step_end(step, *outcome, message),
            Event::HostEnd {
                host,
                outcome,
                problem,
            } => {
                let why = problem.as_ref().map(words).unwrap_or_default();
                let suite = self.suite(host);
                suite.took = suite.since.elapsed();
                suite.end = Some(ended(*outcome, &why));
            }
            Event::Diagnostics(problems) if problems.has_errors() => self.refuse(problems),
            Event::Plans(_) | Event::Slices { .. } | Event::Diagnostics(_) | Event::Note { .. } => {
            }
        }
    }

    fn suite(&mut self, host: &HostName) -> &mut Suite {
        let place = match self.places.get(host.as_str()) {
            Some(place) => *place,
            None => {
                self.suites.push(Suite::new(host.as_str()));
                let place = self.suites.len() - 1;
                self.places.insert(host.as_str().to_owned(), place);
                place
            }
        };
        &mut self.suites[place]
    }

    /// The end of a command. Where it is refused for what is no host's, that is told, too.
    pub(super) fn end(&mut self, exit: Exit) {
        let is_bad = |end: &Verdict| matches!(end, Verdict::Failure(_) | Verdict::Error(_));
        let told = self.suites.iter().filter_map(|suite| suite.end.as_ref());
        if exit == Exit::Refused && !told.into_iter().any(is_bad) {
            self.refuse(&Diagnostic::error("nothing was begun").into());
        }
    }

    /// What is wrong with no host.
    pub(super) fn refuse(&mut self, problems: &Problems) {
        let text = diagnostic::render(problems, Style::Plain);
        let first = problems.0.first();
        let mut suite = Suite::new("deploy");
        suite.end = Some(Verdict::Error(Told {
            kind: "refused".to_owned(),
            message: first.map_or_else(String::new, |found| found.message.clone()),
            text,
        }));
        self.suites.push(suite);
    }

    /// The document.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (id, suite) in self.suites.iter().enumerate() {
            suite.write(id, self.run.as_deref(), &mut out);
        }
        out.push_str("</testsuites>\n");
        out
    }
}

impl Suite {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            began: Timestamp::now(),
            since: Instant::now(),
            took: Duration::ZERO,
            last_run: None,
            cases: Vec::new(),
            end: None,
        }
    }

    fn case(&mut self, step: &StepId) -> &mut Case {
        let place = self.cases.iter().position(|case| case.step == *step);
        let place = place.unwrap_or_else(|| {
            self.cases.push(Case {
                step: step.clone(),
                name: step.0.clone(),
                began: None,
                took: Duration::ZERO,
                verdict: Verdict::Passed,
            });
            self.cases.len() - 1
        });
        &mut self.cases[place]
    }

    fn step_end(&mut self, step: &StepId, outcome: StepOutcome, message: &str) {
        let case = self.case(step);
        if let Some(began) = case.began.take() {
            case.took = began.elapsed();
        }
        let told = |kind: &str| Told {
            kind: kind.to_owned(),
            message: message.lines().next().unwrap_or_default().to_owned(),
            text: message.to_owned(),
        };
        case.verdict = match (outcome, &case.verdict) {
            (StepOutcome::Changed, _) => Verdict::Passed,
            (StepOutcome::Failed, _) => Verdict::Failure(told("failed")),
            (StepOutcome::UndoFailed, _) => Verdict::Error(told("undo_failed")),
            (StepOutcome::Undone, Verdict::Failure(told)) => Verdict::Failure(told.clone()),
            (StepOutcome::Undone, _) => Verdict::Skipped("undone".to_owned()),
        };
    }

    fn write(&self, id: usize, run: Option<&str>, out: &mut String) {
        let unknown = Verdict::Skipped("it is not known how the host ended".to_owned());
        let end = self.end.as_ref().unwrap_or(&unknown);
        let verdicts = || self.cases.iter().map(|case| &case.verdict).chain([end]);
        let count = |is: fn(&Verdict) -> bool| verdicts().filter(|verdict| is(verdict)).count();
        let host = attribute(&self.host);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{host}\" timestamp=\"{}\" hostname=\"{host}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\" package=\"deploy\" id=\"{id}\">",
            self.began.strftime("%Y-%m-%dT%H:%M:%S"),
            self.cases.len() + 1,
            count(|verdict| matches!(verdict, Verdict::Failure(_))),
            count(|verdict| matches!(verdict, Verdict::Error(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
            seconds(self.took),
        );
        out.push_str("    <properties>\n");
        for (name, value) in [("run", run), ("last_run", self.last_run.as_deref())] {
            if let Some(value) = value {
                let value = attribute(value);
                let _ = writeln!(out, "      <property name=\"{name}\" value=\"{value}\"/>");
            }
        }
        out.push_str("    </properties>\n");
        for case in &self.cases {
            write_case(&host, &case.name, case.took, &case.verdict, out);
        }
        let of_steps = self.cases.iter().map(|case| case.took).sum();
        let rest = self.took.saturating_sub(of_steps);
        write_case(&host, "host", rest, end, out);
        out.push_str("    <system-out/>\n    <system-err/>\n  </testsuite>\n");
    }
}

fn write_case(host: &str, name: &str, took: Duration, verdict: &Verdict, out: &mut String) {
    let (name, time) = (attribute(name), seconds(took));
    let _ = write!(
        out,
        "    <testcase name=\"{name}\" classname=\"{host}\" time=\"{time}\""
    );
    let (element, told) = match verdict {
        Verdict::Passed => {
            out.push_str("/>\n");
            return;
        }
        Verdict::Skipped(why) => {
            let why = attribute(why);
            let _ = writeln!(out, "><skipped message=\"{why}\"/></testcase>");
            return;
        }
        Verdict::Failure(told) => ("failure", told),
        Verdict::Error(told) => ("error", told),
    };
    let (kind, message) = (attribute(&told.kind), attribute(&told.message));
    let text = escaped(&told.text);
    let _ = writeln!(
        out,
        "><{element} type=\"{kind}\" message=\"{message}\">{text}</{element}></testcase>"
    );
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

/// What stands in an attribute: one line, since a parser makes spaces of the newlines.
fn attribute(text: &str) -> String {
    escaped(text.trim_end()).replace(['\n', '\t', '\r'], " ")
}

/// Text as it may stand in an element. XML 1.0 has no way to write most control characters, so
/// they are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for c in text.chars().filter(|c| is_xml(*c)).take(LONGEST) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// The characters of XML 1.0 (its production 2), but for those that are discouraged there.
fn is_xml(c: char) -> bool {
    let noncharacter = |c: char| u32::from(c) & 0xfffe == 0xfffe;
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{fdd0}'..='\u{fdef}' => false,
        c => !c.is_control() && !noncharacter(c),
    }
}

fn ended(outcome: Outcome, why: &str) -> Verdict {
    let told = || Told {
        kind: outcome_word(outcome).to_owned(),
        message: why.lines().next().unwrap_or_default().to_owned(),
        text: why.to_owned(),
    };
    match outcome {
        Outcome::Ok | Outcome::Changed => Verdict::Passed,
        Outcome::Skipped => Verdict::Skipped(why.to_owned()),
        Outcome::Failed | Outcome::RolledBack | Outcome::Locked | Outcome::Stale => {
            Verdict::Failure(told())
        }
        // What was left half done is known by nobody.
        Outcome::Unreachable | Outcome::Stuck | Outcome::Unconfirmed | Outcome::Left => {
            Verdict::Error(told())
        }
    }
}

fn differs(finding: &Finding) -> Verdict {
    if let Some(reason) = &finding.ignored {
        return Verdict::Skipped(format!("ignored: {reason}"));
    }
    let mut text = String::new();
    for line in &finding.lines {
        let side = match line.side {
            Side::Drifted => "drifted",
            Side::Pending => "pending",
        };
        let sign = if line.added { '+' } else { '-' };
        let _ = writeln!(text, "{side} {}: {sign} {}", line.line, line.text);
    }
    for said in finding.who.iter().chain(&finding.held) {
        let _ = writeln!(text, "{said}");
    }
    Verdict::Failure(Told {
        kind: finding.word().replace(' ', "_"),
        message: finding.title.clone(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HostProblem;

    #[test]
    fn text_of_hosts_cannot_break_the_document() {
        assert_eq!(
            escaped("a\u{1b}[31m<b>&\"\u{0}\u{ffff}\u{fdd0}\n"),
            "a[31m&lt;b&gt;&amp;&quot;\n"
        );
        assert_eq!(attribute("two\nlines\t\n"), "two lines");
        assert_eq!(escaped(&"x".repeat(LONGEST + 1)).len(), LONGEST);
    }

    #[test]
    fn a_failed_step_and_its_undo_are_told() {
        let mut junit = Junit::new(CheckMode::Off);
        let host = HostName::from("h1");
        let step = |name: &str| StepId(name.to_owned());
        for (name, outcome, message) in [
            ("a", StepOutcome::Changed, ""),
            ("b", StepOutcome::Failed, "no room]]>\u{7}"),
            ("a", StepOutcome::Undone, ""),
            ("b", StepOutcome::Undone, ""),
        ] {
            junit.event(&Event::StepEnd {
                host: host.clone(),
                step: step(name),
                outcome,
                message: message.to_owned(),
            });
        }
        junit.event(&Event::HostEnd {
            host,
            outcome: Outcome::RolledBack,
            problem: Some(HostProblem::NotBegun("x".to_owned())),
        });
        let text = junit.text();
        for part in [
            "tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"1\"",
            "<skipped message=\"undone\"/>",
            "<failure type=\"failed\" message=\"no room]]&gt;\">no room]]&gt;</failure>",
            "<failure type=\"rolled_back\" message=\"x\">x</failure>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_host_that_was_left_is_an_error_and_hosts_keep_their_order() {
        let mut junit = Junit::new(CheckMode::Off);
        for name in ["h2", "h1", "h2"] {
            junit.event(&Event::HostEnd {
                host: HostName::from(name),
                outcome: Outcome::Left,
                problem: Some(HostProblem::NotBegun("x".to_owned())),
            });
        }
        let text = junit.text();
        assert_eq!(text.matches("<testsuite ").count(), 2, "{text}");
        assert_eq!(text.matches("<error type=\"left\"").count(), 2, "{text}");
        assert!(
            text.find("name=\"h2\"") < text.find("name=\"h1\""),
            "{text}"
        );
    }
}

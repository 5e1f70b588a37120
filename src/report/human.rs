//! A run as text. Makes strings; `report` writes them.
//!
//! Only what changed or failed is told, unless asked for more. The same changes
//! on many hosts are told once, with the hosts' names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anstyle::{AnsiColor, Style as Paint};

use crate::diff::{self, Block, Group, Line, LineKind};
use crate::drift::Finding;
use crate::event::{Event, HostProblem, Outcome, StepOutcome};
use crate::plan::{Confirm, Guard, GuardKind, HostPlan};
use crate::report::diagnostic::{self, Style};
use crate::report::exit::{CheckMode, Exit};
use crate::report::{NotBegun, Plans, Said, Tally};
use crate::step::{Class, Step, StepId};
use crate::text::{MESSAGE_LIMIT, printable, printable_line, span};
use crate::value::HostName;

/// Tells a run to people.
#[derive(Debug)]
pub struct Human {
    style: Style,
    check: CheckMode,
    told: Plans,
    verbose: bool,
    /// What a host is called that was changed.
    changed: &'static str,
    /// What a host is called that would be.
    found: &'static str,
    /// What a failure has left of a host.
    failed: &'static str,
    /// Changes that were shown, with what guards them, and for which host first.
    shown: HashMap<(Vec<Block>, Option<String>), HostName>,
    /// How many steps each host's plan has.
    steps: HashMap<HostName, usize>,
    /// The titles of each host's steps, as its plan has them.
    titles: HashMap<HostName, HashMap<StepId, String>>,
    /// Hosts of which a step failed, so that what follows is its undo.
    undoing: HashSet<HostName>,
    /// What was said of steps that failed: title and message, by host.
    told_failures: HashMap<HostName, Vec<(String, String)>>,
    /// Hosts whose drift was told.
    drifted: HashSet<HostName>,
}

impl Human {
    /// Nothing told yet.
    #[must_use]
    pub fn new(style: Style, check: CheckMode, told: Plans, verbose: bool) -> Self {
        Self {
            style,
            check,
            told,
            verbose,
            changed: "changed",
            found: "would be changed",
            failed: "nothing was left changed",
            shown: HashMap::new(),
            steps: HashMap::new(),
            titles: HashMap::new(),
            undoing: HashSet::new(),
            told_failures: HashMap::new(),
            drifted: HashSet::new(),
        }
    }

    /// Another word for hosts that were changed.
    pub(super) fn call_changed(&mut self, word: &'static str) {
        self.changed = word;
    }

    /// Other words for hosts that would be changed.
    pub(super) fn call_found(&mut self, words: &'static str) {
        self.found = words;
    }

    /// Other words for what a failure has left of a host.
    pub(super) fn call_failed(&mut self, words: &'static str) {
        self.failed = words;
    }

    /// What to say of one event.
    pub fn event(&mut self, event: &Event) -> Said {
        let mut said = Said::default();
        match event {
            Event::Facts { host, facts } => {
                for note in &facts.notes {
                    said.talk += &format!("{host}: note: {}\n", printable(note, MESSAGE_LIMIT));
                }
            }
            Event::Planned { host, plan } => {
                self.steps.insert(host.clone(), plan.steps.len());
                let title = |step: &Step| (step.id.clone(), step.title.clone());
                let titles = plan.steps.iter().map(title).collect();
                self.titles.insert(host.clone(), titles);
                if self.told == Plans::AsTheyCome {
                    return self.plans(&[(host.clone(), Arc::clone(plan))]);
                }
            }
            Event::Plans(plans) => return self.plans(plans),
            Event::StepStart { .. } | Event::Slices { .. } => {}
            Event::Drift {
                host,
                findings,
                last,
            } => {
                self.steps.insert(host.clone(), 0);
                said.data += &self.drift(host, last.as_deref(), findings);
            }
            Event::StepEnd {
                host,
                step,
                outcome,
                message,
            } => {
                let word = match outcome {
                    StepOutcome::Changed if self.verbose => self.paint(GREEN, "changed"),
                    StepOutcome::Changed => return said,
                    StepOutcome::Failed => {
                        self.undoing.insert(host.clone());
                        self.paint(RED, "failed")
                    }
                    // An undo that was asked for is told by its plan; one after a failure is news.
                    StepOutcome::Undone if !self.verbose && !self.undoing.contains(host) => {
                        return said;
                    }
                    StepOutcome::Undone => self.paint(YELLOW, "undone"),
                    StepOutcome::UndoFailed => self.paint(RED, "undo failed"),
                };
                let title = self.title(host, step);
                if matches!(outcome, StepOutcome::Failed | StepOutcome::UndoFailed) {
                    let told = (title.to_owned(), message.trim_end().to_owned());
                    self.told_failures
                        .entry(host.clone())
                        .or_default()
                        .push(told);
                }
                let title = printable(self.title(host, step), 400);
                said.data += &format!("{host}: {word}: {title}\n");
                let message = printable(message.trim_end(), MESSAGE_LIMIT);
                for line in message.lines() {
                    said.data += &format!("    {line}\n");
                }
            }
            Event::HostEnd {
                host,
                outcome,
                problem,
            } => said.data += &self.host_end(host, *outcome, problem.as_ref()),
            Event::Diagnostics(problems) => said.talk += &diagnostic::render(problems, self.style),
            Event::Note { host, text } => {
                let text = printable(text, MESSAGE_LIMIT);
                said.talk += &match host {
                    Some(host) => format!("{host}: {text}\n"),
                    None => format!("{text}\n"),
                };
            }
        }
        said
    }

    /// A step as its plan calls it; a plan of undoing says so once, not of each step.
    fn title<'a>(&'a self, host: &HostName, step: &'a StepId) -> &'a str {
        let title = self.titles.get(host).and_then(|titles| titles.get(step));
        match title {
            Some(title) => title.strip_prefix("undo: ").unwrap_or(title),
            None => &step.0,
        }
    }

    /// Whether a sentence about a failure was told when its step failed.
    fn was_told(&self, host: &HostName, sentence: &str) -> bool {
        let told = self.told_failures.get(host).map(Vec::as_slice);
        told.unwrap_or_default().iter().any(|(title, message)| {
            sentence.starts_with(&format!("`{title}` ")) && sentence.trim_end().ends_with(message)
        })
    }

    /// The plans of several hosts; equal ones once.
    fn plans(&mut self, plans: &[(HostName, Arc<HostPlan>)]) -> Said {
        let with_changes: Vec<(HostName, &HostPlan)> = plans
            .iter()
            .filter(|(_, plan)| !plan.steps.is_empty() || !plan.notes.is_empty())
            .map(|(host, plan)| (host.clone(), plan.as_ref()))
            .collect();
        let mut said = Said::default();
        for group in diff::group(&with_changes) {
            said.data += &self.group(&group);
        }
        said
    }

    /// A line a host with its sums, and one for each thing of which there is more to say.
    fn drift(&mut self, host: &HostName, last: Option<&str>, findings: &[Finding]) -> String {
        self.drifted.insert(host.clone());
        let count = |word: &str| {
            let of_word = |finding: &&Finding| finding.word().split(" and ").any(|w| w == word);
            findings.iter().filter(of_word).count()
        };
        let sums: Vec<String> = ["drifted", "flapping", "pending", "ignored"]
            .into_iter()
            .filter(|word| count(word) > 0)
            .map(|word| format!("{} {word}", count(word)))
            .collect();
        if sums.is_empty() {
            return String::new();
        }
        let since = match last {
            Some(run) => format!(" since run {}", printable_line(run, MESSAGE_LIMIT)),
            None => String::new(),
        };
        let mut text = format!("{host}: {}{since}\n", self.paint(YELLOW, &sums.join(", ")));
        for finding in findings {
            let mut more: Vec<String> = finding.who.clone();
            if finding.mended > 0 {
                more.push(match finding.mended {
                    1 => "mending it was begun once before".to_owned(),
                    times => format!("mending it was begun {times} times before"),
                });
            }
            if finding.is_drifted() {
                more.extend(finding.held.clone());
            }
            if let Some(reason) = &finding.ignored {
                more.push(format!("ignored: {reason}"));
            }
            for said in more {
                let line = format!("{host}/{}: {said}", finding.step);
                text += &format!("  {}\n", printable_line(&line, MESSAGE_LIMIT));
            }
        }
        text
    }

    fn group(&mut self, group: &Group) -> String {
        let names: Vec<&str> = group.hosts.iter().map(HostName::as_str).collect();
        let mut text = format!("{}\n", self.paint(BOLD, &names.join(", ")));
        for note in &group.notes {
            text += &format!("  note: {}\n", printable(note, MESSAGE_LIMIT));
        }
        for path in &group.overridden {
            text += &format!(
                "  note: your project's {} replaces the shipped one\n",
                printable(path, 400)
            );
        }
        let guard = group.guard.as_ref().map(guard_line);
        if group.blocks.is_empty() {
            text.push('\n');
            return text;
        }
        let look = (group.blocks.clone(), guard.clone());
        if let Some(first) = self.shown.get(&look) {
            text += &format!("  the same changes as on {first}\n\n");
            return text;
        }
        if let Some(first) = group.hosts.first() {
            self.shown.insert(look, first.clone());
        }
        for block in &group.blocks {
            text += &self.block(block);
        }
        if let Some(guard) = guard {
            text += &format!("  {guard}\n");
        }
        text.push('\n');
        text
    }

    fn block(&self, block: &Block) -> String {
        let class = match block.class {
            Class::Safe => String::new(),
            Class::Disruptive => format!(" {}", self.paint(YELLOW, "(disruptive)")),
            Class::OneWay => format!(" {}", self.paint(RED, "(cannot be undone)")),
        };
        let mut text = format!("  {} {}{class}\n", self.paint(YELLOW, "~"), block.title);
        for Line { kind, text: line } in &block.lines {
            let line = match kind {
                LineKind::Context | LineKind::Info => line.clone(),
                LineKind::Added => self.paint(GREEN, line),
                LineKind::Removed => self.paint(RED, line),
                LineKind::Heading => self.paint(CYAN, line),
            };
            text += &format!("      {line}\n");
        }
        text
    }

    fn host_end(&self, host: &HostName, outcome: Outcome, problem: Option<&HostProblem>) -> String {
        let steps = self.steps.get(host).copied().unwrap_or_default();
        let count = match steps {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        let mut text = match outcome {
            Outcome::Ok if !self.verbose => String::new(),
            // Its drift was told.
            Outcome::Changed if self.drifted.contains(host) && self.check == CheckMode::On => {
                String::new()
            }
            Outcome::Ok => format!("{host}: {}\n", self.paint(GREEN, "ok")),
            Outcome::Changed if self.check == CheckMode::On && steps == 0 => {
                format!("{host}: {}\n", self.paint(YELLOW, self.found))
            }
            Outcome::Changed if self.check == CheckMode::On => {
                format!("{host}: {} by {count}\n", self.paint(YELLOW, self.found))
            }
            Outcome::Changed if steps == 0 => {
                format!("{host}: {}\n", self.paint(YELLOW, self.changed))
            }
            Outcome::Changed => {
                format!("{host}: {}, {count}\n", self.paint(YELLOW, self.changed))
            }
            Outcome::Failed => {
                format!("{host}: {}, {}\n", self.paint(RED, "failed"), self.failed)
            }
            Outcome::RolledBack => {
                format!(
                    "{host}: {} after a failure\n",
                    self.paint(RED, "rolled back")
                )
            }
            Outcome::Unreachable => format!("{host}: {}\n", self.paint(RED, "unreachable")),
            Outcome::Stuck => format!("{host}: {}\n", self.paint(RED, "a person is needed")),
            Outcome::Unconfirmed => format!("{host}: {}\n", self.paint(RED, "unconfirmed")),
            Outcome::Locked => format!(
                "{host}: {}, nothing was changed\n",
                self.paint(RED, "locked by another run")
            ),
            Outcome::Left => format!("{host}: {}\n", self.paint(RED, "left to itself")),
            Outcome::Stale => {
                format!(
                    "{host}: {}, nothing was changed\n",
                    self.paint(RED, "stale plan")
                )
            }
            // Told together, with the sums.
            Outcome::Skipped if matches!(problem, Some(HostProblem::NotBegun(_))) => {
                return String::new();
            }
            Outcome::Skipped => format!("{host}: {}\n", self.paint(CYAN, "skipped")),
        };
        if let Some(problem) = problem {
            text += &self.problem(host, problem);
        }
        text
    }

    fn problem(&self, host: &HostName, problem: &HostProblem) -> String {
        let indent = |text: &str| {
            printable(text, MESSAGE_LIMIT)
                .lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
        };
        let (message, hint) = match problem {
            HostProblem::NotBegun(why) => (format!("not begun: {why}"), None),
            HostProblem::Unreachable(unreachable) => {
                (unreachable.to_string(), unreachable.hint.as_deref())
            }
            HostProblem::Refused(problems) => {
                let text = diagnostic::render(problems, self.style);
                return text
                    .trim_end()
                    .lines()
                    .map(|line| format!("    {line}\n"))
                    .collect();
            }
            HostProblem::Failed { chain, hint, .. } => {
                let new = chain.iter().filter(|part| !self.was_told(host, part));
                let parts: Vec<&str> = new.map(String::as_str).collect();
                (parts.join(": "), hint.as_deref())
            }
        };
        let mut text = indent(&message);
        if let Some(hint) = hint {
            text += &indent(&format!("hint: {hint}"));
        }
        text
    }

    /// The sums.
    #[must_use]
    pub fn summary(&self, tally: &Tally, not_begun: &[NotBegun], exit: Exit) -> Said {
        let mut text = String::new();
        for group in not_begun {
            let names: Vec<&str> = group.hosts.iter().map(HostName::as_str).collect();
            let count = match names.len() {
                1 => "1 host was".to_owned(),
                count => format!("{count} hosts were"),
            };
            text += &format!(
                "{}: {count} not begun: {}: {}\n",
                self.paint(CYAN, "skipped"),
                printable(&group.why, MESSAGE_LIMIT),
                printable(&names.join(", "), MESSAGE_LIMIT),
            );
        }
        let mut line = format!(
            "hosts={} ok={} changed={} failed={} unreachable={} rolled-back={}",
            tally.hosts,
            tally.ok,
            tally.changed,
            tally.failed,
            tally.unreachable,
            tally.rolled_back
        );
        for (word, count) in [
            ("unconfirmed", tally.unconfirmed),
            ("person-needed", tally.stuck),
            ("locked", tally.locked),
            ("stale", tally.stale),
            ("left", tally.left),
            ("skipped", tally.skipped),
            ("drifted", tally.drifted),
            ("pending", tally.pending),
        ] {
            if count > 0 {
                line += &format!(" {word}={count}");
            }
        }
        let colour = match exit {
            Exit::Done => GREEN,
            Exit::ChangesFound => YELLOW,
            _ => RED,
        };
        text += &format!("{}\n", self.paint(colour, &line));
        Said {
            data: text,
            talk: String::new(),
        }
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        match self.style {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("{paint}{text}{paint:#}"),
        }
    }
}

/// What undoes a run unless it ends well, in one line.
#[must_use]
pub fn guard_line(guard: &Guard) -> String {
    let what = match guard.kind {
        GuardKind::Timer => "a timer",
        GuardKind::Process => "a process",
    };
    let unless = match guard.confirm {
        Confirm::Host => "all of it is made and read back".to_owned(),
        Confirm::NewConnection => format!(
            "it is confirmed over a new connection within {} of the last step",
            span(guard.window_s.into())
        ),
    };
    let weaker = match guard.kind {
        GuardKind::Timer => "",
        GuardKind::Process => "; weaker than a timer of systemd: it does not outlive a reboot",
    };
    format!("guard: {what} on the host undoes this unless {unless}{weaker}")
}

const GREEN: Paint = AnsiColor::Green.on_default();
const RED: Paint = AnsiColor::Red.on_default();
const YELLOW: Paint = AnsiColor::Yellow.on_default();
const CYAN: Paint = AnsiColor::Cyan.on_default();
const BOLD: Paint = Paint::new().bold();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_says_what_it_is_made_of_and_what_keeps_it_from_undoing() {
        let line = |kind, confirm| {
            guard_line(&Guard {
                kind,
                confirm,
                window_s: 180,
            })
        };
        assert_eq!(
            line(GuardKind::Timer, Confirm::NewConnection),
            "guard: a timer on the host undoes this unless it is confirmed over a new connection within 3m 0s of the last step"
        );
        assert_eq!(
            line(GuardKind::Process, Confirm::Host),
            "guard: a process on the host undoes this unless all of it is made and read back; weaker than a timer of systemd: it does not outlive a reboot"
        );
    }

    #[test]
    fn hosts_that_were_not_begun_are_told_together_with_the_reason() {
        let human = Human::new(Style::Plain, CheckMode::Off, Plans::Together, false);
        let host = HostName::from("h3");
        let why = HostProblem::NotBegun("2 of 4 hosts failed".to_owned());
        assert_eq!(human.host_end(&host, Outcome::Skipped, Some(&why)), "");
        let tally = Tally {
            hosts: 4,
            failed: 2,
            skipped: 2,
            ..Tally::default()
        };
        let not_begun = [NotBegun {
            why: "2 of 4 hosts failed".to_owned(),
            hosts: vec![host, HostName::from("h4")],
        }];
        let said = human.summary(&tally, &not_begun, Exit::SomeFailed);
        assert_eq!(
            said.data,
            "skipped: 2 hosts were not begun: 2 of 4 hosts failed: h3, h4\n\
             hosts=4 ok=0 changed=0 failed=2 unreachable=0 rolled-back=0 skipped=2\n"
        );
    }
}

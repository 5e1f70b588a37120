//! A run as text. Makes strings; `report` writes them.
//!
//! Only what changed or failed is told, unless asked for more. The same changes
//! on many hosts are told once, with the hosts' names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anstyle::{AnsiColor, Style as Paint};

use crate::diff::{self, Block, Group, Line, LineKind};
use crate::event::{Event, HostProblem, Outcome, StepOutcome};
use crate::plan::HostPlan;
use crate::report::diagnostic::{self, Style};
use crate::report::exit::{CheckMode, Exit};
use crate::report::{Plans, Said, Tally};
use crate::step::Class;
use crate::text::{MESSAGE_LIMIT, printable};
use crate::value::HostName;

/// Tells a run to people.
#[derive(Debug)]
pub struct Human {
    style: Style,
    check: CheckMode,
    told: Plans,
    verbose: bool,
    /// Changes that were shown, and for which host first.
    shown: HashMap<Vec<Block>, HostName>,
    /// How many steps each host's plan has.
    steps: HashMap<HostName, usize>,
    /// Hosts of which a step failed, so that what follows is its undo.
    undoing: HashSet<HostName>,
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
            shown: HashMap::new(),
            steps: HashMap::new(),
            undoing: HashSet::new(),
        }
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
                if self.told == Plans::AsTheyCome {
                    return self.plans(&[(host.clone(), Arc::clone(plan))]);
                }
            }
            Event::Plans(plans) => return self.plans(plans),
            Event::StepStart { .. } => {}
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
                let step = printable(&step.0, 400);
                said.data += &format!("{host}: {word} {step}\n");
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

    /// The plans of several hosts; equal ones once.
    fn plans(&mut self, plans: &[(HostName, Arc<HostPlan>)]) -> Said {
        let with_changes: Vec<(HostName, &HostPlan)> = plans
            .iter()
            .filter(|(_, plan)| !plan.steps.is_empty())
            .map(|(host, plan)| (host.clone(), plan.as_ref()))
            .collect();
        let mut said = Said::default();
        for group in diff::group(&with_changes) {
            said.data += &self.group(&group);
        }
        said
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
        if let Some(first) = self.shown.get(&group.blocks) {
            text += &format!("  the same changes as on {first}\n\n");
            return text;
        }
        if let Some(first) = group.hosts.first() {
            self.shown.insert(group.blocks.clone(), first.clone());
        }
        for block in &group.blocks {
            text += &self.block(block);
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
            Outcome::Ok => format!("{host}: {}\n", self.paint(GREEN, "ok")),
            Outcome::Changed if self.check == CheckMode::On => {
                format!(
                    "{host}: {} by {count}\n",
                    self.paint(YELLOW, "would be changed")
                )
            }
            Outcome::Changed => format!("{host}: {}, {count}\n", self.paint(YELLOW, "changed")),
            Outcome::Failed => format!(
                "{host}: {}, nothing was left changed\n",
                self.paint(RED, "failed")
            ),
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
                self.paint(RED, "failed")
            ),
            Outcome::Skipped => format!("{host}: {}\n", self.paint(CYAN, "skipped")),
        };
        if let Some(problem) = problem {
            text += &self.problem(problem);
        }
        text
    }

    fn problem(&self, problem: &HostProblem) -> String {
        let indent = |text: &str| {
            printable(text, MESSAGE_LIMIT)
                .lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
        };
        let (message, hint) = match problem {
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
            HostProblem::Failed { step, chain, hint } => {
                let chain = chain.join(": ");
                let message = match step {
                    Some(step) => format!("{step}: {chain}"),
                    None => chain,
                };
                (message, hint.as_deref())
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
    pub fn summary(&self, tally: &Tally, exit: Exit) -> Said {
        let mut line = format!(
            "hosts={} ok={} changed={} failed={} unreachable={} rolled-back={}",
            tally.hosts,
            tally.ok,
            tally.changed,
            tally.failed,
            tally.unreachable,
            tally.rolled_back
        );
        if tally.stuck > 0 {
            line += &format!(" person-needed={}", tally.stuck);
        }
        if tally.skipped > 0 {
            line += &format!(" skipped={}", tally.skipped);
        }
        let colour = match exit {
            Exit::Done => GREEN,
            Exit::ChangesFound => YELLOW,
            _ => RED,
        };
        Said {
            data: format!("{}\n", self.paint(colour, &line)),
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

const GREEN: Paint = AnsiColor::Green.on_default();
const RED: Paint = AnsiColor::Red.on_default();
const YELLOW: Paint = AnsiColor::Yellow.on_default();
const CYAN: Paint = AnsiColor::Cyan.on_default();
const BOLD: Paint = Paint::new().bold();

//! A plan as Markdown for a merge request: diffs collapsed, layouts drawn, hosts with equal
//! changes together, and never longer than a forge takes.
//!
//! What comes from hosts and files stands in code only, where no forge reads marks, mentions
//! or HTML: fences that are longer than any row of backticks in what they hold, code spans
//! likewise, and escaped text in `<code>` where a line is HTML.

use std::fmt::Write as _;

use crate::diff::{Block, Group, Line, LineKind};
use crate::report::human::guard_line;
use crate::report::review::{Review, Standing};
use crate::step::Class;
use crate::text::{printable, printable_line};
use crate::value::HostName;

/// Bytes that a comment on GitHub may have are 65,536 characters, on GitLab 1,000,000; this
/// leaves room for what is put around it.
pub const USUAL_SIZE: usize = 59_000;
/// Less than this has no room for the head and for what is said of what is left out.
pub const LEAST_SIZE: usize = 4_000;
/// Room that is kept for the sentence of what is left out.
const RESERVE: usize = 700;
/// Most names of hosts that are listed one by one.
const MOST_NAMES: usize = 30;
/// Longest name or title, in characters.
const LONGEST: usize = 200;
/// Longest reason why a host failed, in characters.
const LONGEST_REASON: usize = 1_000;

/// The page, of at most `size` bytes (`LEAST_SIZE` if that is less).
#[must_use]
pub fn page(review: &Review, size: usize) -> String {
    let mut page = Page {
        text: String::new(),
        room: size.max(LEAST_SIZE) - RESERVE,
        owed: 0,
        left_out: LeftOut::default(),
    };
    let groups = review.groups();
    page.owed = groups.iter().map(shortest).sum();
    page.head(review);
    for group in &groups {
        page.group(group);
    }
    page.problems(review);
    page.left_out();
    page.text
}

/// What did not fit.
#[derive(Default)]
struct LeftOut {
    diffs: usize,
    steps: usize,
    hosts: usize,
    problems: usize,
}

struct Page {
    text: String,
    room: usize,
    /// Bytes that all that is still to be told takes without its diffs.
    owed: usize,
    left_out: LeftOut,
}

/// Bytes of a group without any diff.
fn shortest(group: &Group) -> usize {
    let blocks: usize = group.blocks.iter().map(|block| alone(block).len()).sum();
    group_head(group).len() + blocks
}

impl Page {
    /// Adds a text if there is room for it.
    fn add(&mut self, text: &str) -> bool {
        let fits = self.text.len() + text.len() <= self.room;
        if fits {
            self.text.push_str(text);
        }
        fits
    }

    fn head(&mut self, review: &Review) {
        let mut head = format!("## deploy: {}\n\n", review.heading());
        if !review.source.is_empty() {
            let _ = writeln!(head, "{}\n", span(&review.source));
        }
        for standing in Standing::ALL {
            let hosts: Vec<&HostName> = review.of(standing).map(|host| &host.name).collect();
            if !hosts.is_empty() {
                let count = hosts.len();
                let _ = writeln!(head, "- {}: {count}: {}", standing.words(), names(&hosts));
            }
        }
        if !self.add(&head) {
            // Names are bounded, so that this is the source of a very long plan's name.
            self.add(&format!("## deploy: {}\n", review.heading()));
        }
        let findings = review.findings.trim_end();
        if !findings.is_empty() {
            let lines = findings.lines();
            let text = fence("text", lines.map(|line| printable_line(line, 500)));
            if !self.add(&format!("\n{text}")) {
                self.left_out.problems += 1;
            }
        }
    }

    fn group(&mut self, group: &Group) {
        self.owed -= shortest(group);
        if !self.add(&group_head(group)) {
            self.left_out.hosts += group.hosts.len();
            return;
        }
        // Titles come before diffs: what is to be done is told of as many as can be.
        let mut titles: usize = group.blocks.iter().map(|block| alone(block).len()).sum();
        for (number, block) in group.blocks.iter().enumerate() {
            let (whole, title) = (collapsed(block), alone(block));
            titles -= title.len();
            let taken = self.text.len() + self.owed + titles;
            if taken + whole.len() <= self.room && self.add(&whole) {
                continue;
            }
            if self.add(&title) {
                self.left_out.diffs += usize::from(!block.lines.is_empty());
                continue;
            }
            self.left_out.steps += group.blocks.len() - number;
            return;
        }
    }

    fn problems(&mut self, review: &Review) {
        for standing in [Standing::Failed, Standing::Unreachable] {
            for host in review.of(standing).filter(|host| !host.problem.is_empty()) {
                let reason = printable(&host.problem, LONGEST_REASON);
                let lines = reason.lines().map(str::to_owned);
                let text = format!(
                    "\n### {}: {}\n\n{}",
                    span(host.name.as_str()),
                    standing.words(),
                    fence("text", lines)
                );
                if !self.add(&text) {
                    self.left_out.problems += 1;
                }
            }
        }
    }

    fn left_out(&mut self) {
        let LeftOut {
            diffs,
            steps,
            hosts,
            problems,
        } = self.left_out;
        let parts: Vec<String> = [
            (diffs, "the diff of 1 step", "the diffs of {} steps"),
            (steps, "1 step", "{} steps"),
            (hosts, "all changes of 1 host", "all changes of {} hosts"),
            (problems, "why 1 host failed", "why {} hosts failed"),
        ]
        .into_iter()
        .filter(|(count, _, _)| *count > 0)
        .map(|(count, one, more)| match count {
            1 => one.to_owned(),
            _ => more.replace("{}", &count.to_string()),
        })
        .collect();
        if parts.is_empty() {
            return;
        }
        let _ = writeln!(
            self.text,
            "\n> **Left out**, because this would be too long: {}. `deploy plan show FILE` prints all of a saved plan.",
            parts.join(", ")
        );
    }
}

fn group_head(group: &Group) -> String {
    let hosts: Vec<&HostName> = group.hosts.iter().collect();
    let mut head = format!("\n### {}\n\n", names(&hosts));
    for note in &group.notes {
        let _ = writeln!(head, "- {}", span(note));
    }
    for path in &group.overridden {
        let path = span(path);
        let _ = writeln!(head, "- your project's {path} replaces the shipped one");
    }
    if let Some(guard) = group.guard.as_ref().filter(|_| !group.blocks.is_empty()) {
        let _ = writeln!(head, "- {}", guard_line(guard));
    }
    head
}

/// A step with its diff, which only a layout shows at once.
fn collapsed(block: &Block) -> String {
    if block.lines.is_empty() {
        return alone(block);
    }
    let is_drawn = block.lines.iter().any(|line| line.text.contains('│'));
    let open = if is_drawn { " open" } else { "" };
    // Behind the blank line Markdown begins again.
    format!(
        "\n<details{open}><summary><code>{}</code>{}</summary>\n\n{}\n</details>\n",
        html(&printable_line(&block.title, LONGEST)),
        class(block.class),
        fence("diff", block.lines.iter().map(marked))
    )
}

/// A step without its diff.
fn alone(block: &Block) -> String {
    format!("\n- {}{}\n", span(&block.title), class(block.class))
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Safe => "",
        Class::Disruptive => " (disruptive)",
        Class::OneWay => " (cannot be undone)",
    }
}

/// A line as forges colour it.
fn marked(line: &Line) -> String {
    let text = &line.text;
    match line.kind {
        LineKind::Removed if !text.starts_with('-') => format!("- {text}"),
        LineKind::Added if !text.starts_with('+') => format!("+ {text}"),
        LineKind::Info => format!("  {text}"),
        LineKind::Removed | LineKind::Added | LineKind::Context | LineKind::Heading => text.clone(),
    }
}

/// Lines between fences that none of them can close.
fn fence(language: &str, lines: impl Iterator<Item = String>) -> String {
    let mut body = String::new();
    for line in lines {
        body.push_str(&line);
        body.push('\n');
    }
    let ticks = "`".repeat(longest_row(&body).max(2) + 1);
    format!("{ticks}{language}\n{body}{ticks}\n")
}

/// A code span that its text cannot close.
fn span(text: &str) -> String {
    let text = printable_line(text, LONGEST_REASON);
    let text = match text.trim().is_empty() {
        true => "(empty)",
        false => text.as_str(),
    };
    let ticks = "`".repeat(longest_row(text) + 1);
    // Blanks keep backticks at the ends from joining the delimiters.
    let pad = if text.contains('`') || text.starts_with(' ') || text.ends_with(' ') {
        " "
    } else {
        ""
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// The longest row of backticks.
fn longest_row(text: &str) -> usize {
    let mut longest = 0;
    let mut row = 0;
    for c in text.chars() {
        row = if c == '`' { row + 1 } else { 0 };
        longest = longest.max(row);
    }
    longest
}

/// Text within an HTML element, also where a forge looks for code spans in it.
fn html(text: &str) -> String {
    super::html::escaped(text).replace('`', "&#96;")
}

fn names(hosts: &[&HostName]) -> String {
    let mut text: Vec<String> = hosts
        .iter()
        .take(MOST_NAMES)
        .map(|host| span(&printable_line(host.as_str(), LONGEST)))
        .collect();
    if let Some(more) = hosts.len().checked_sub(MOST_NAMES).filter(|more| *more > 0) {
        text.push(format!("and {more} more"));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Outcome;
    use crate::facts::Placement;
    use crate::plan::HostPlan;
    use crate::step::{Change, PathLook, Slice, Step, StepId};

    fn file(text: &str) -> PathLook {
        PathLook::File {
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            sha256: String::new(),
            size: text.len() as u64,
            text: Some(text.to_owned()),
        }
    }

    fn path_step(path: &str, text: &str) -> Step {
        let change = Change::Path {
            path: path.to_owned(),
            before: PathLook::Absent,
            after: file(text),
        };
        Step::new(
            StepId(path.to_owned()),
            "t",
            format!("write {path}"),
            change,
        )
    }

    fn review(hosts: &[&str], steps: &[Step]) -> Review {
        let mut review = Review::default();
        for name in hosts {
            let host = review.host(&HostName::from(name));
            host.outcome = Some(Outcome::Changed);
            host.plan = Some(Arc::new(HostPlan {
                steps: steps.to_vec(),
                ..HostPlan::default()
            }));
        }
        review
    }

    #[test]
    fn equal_changes_are_told_once_and_layouts_are_drawn_open() {
        let slice = Slice {
            placement: Placement { start: 0, size: 4 },
            profile: "3g.40gb".to_owned(),
            compute: vec!["3g.40gb".to_owned()],
        };
        let change = Change::Layout {
            subject: "GPU 0".to_owned(),
            grid: 8,
            before: Vec::new(),
            after: vec![slice],
        };
        let id = StepId("mig".to_owned());
        let mut layout = Step::new(id, "t", "create 1 MIG instance".to_owned(), change);
        layout.class = Class::Disruptive;
        let mut review = review(&["a", "b"], &[layout, path_step("/etc/x", "hello\n")]);
        let down = review.host(&HostName::from("c"));
        down.outcome = Some(Outcome::Unreachable);
        down.problem = "no route".to_owned();
        let text = page(&review, USUAL_SIZE);
        assert_eq!(
            text,
            "## deploy: 2 of 3 hosts would be changed\n\n\
             - would be changed: 2: `a`, `b`\n\
             - unreachable: 1: `c`\n\n\
             ### `a`, `b`\n\n\n\
             <details open><summary><code>create 1 MIG instance</code> (disruptive)</summary>\n\n\
             ```diff\n  GPU 0\n\
             - before │·······························································│\n\
             + after  │3g.40gb                        │·······························│\n\
             ```\n\n</details>\n\n\
             <details><summary><code>write /etc/x</code></summary>\n\n\
             ```diff\n--- /dev/null\n+++ /etc/x  0644 root root\n@@ -0,0 +1 @@\n+hello\n```\n\n\
             </details>\n\n\
             ### `c`: unreachable\n\n```text\nno route\n```\n"
        );
    }

    #[test]
    fn what_is_too_long_is_left_out_and_said_to_be() {
        let line = "x".repeat(400);
        let text: String = (0..20).map(|n| format!("{n} {line}\n")).collect();
        let steps: Vec<Step> = (0..100)
            .map(|n| path_step(&format!("/etc/{n}"), &text))
            .collect();
        let page = page(&review(&["a"], &steps), USUAL_SIZE);
        assert!(page.len() <= USUAL_SIZE, "{}", page.len());
        assert!(page.contains("- `write /etc/99`\n"));
        assert!(page.contains("> **Left out**, because this would be too long: the diffs of"));
    }

    /// What a forge reads as Markdown or HTML: everything but fenced code and code spans.
    fn live(page: &str) -> String {
        let mut live = String::new();
        let mut open: Option<String> = None;
        for line in page.lines() {
            let ticks: String = line.chars().take_while(|c| *c == '`').collect();
            match &open {
                Some(fence) if line == fence.as_str() => open = None,
                Some(_) => {}
                None if ticks.len() >= 3 && !line[ticks.len()..].contains('`') => {
                    open = Some(ticks);
                }
                None => {
                    live.push_str(&without_spans(line));
                    live.push('\n');
                }
            }
        }
        assert_eq!(open, None, "a fence is left open");
        live
    }

    fn without_spans(line: &str) -> String {
        let mut rest = line;
        let mut out = String::new();
        while let Some(at) = rest.find('`') {
            out.push_str(&rest[..at]);
            let ticks: String = rest[at..].chars().take_while(|c| *c == '`').collect();
            let inner = &rest[at + ticks.len()..];
            let mut from = 0;
            let end = loop {
                let Some(next) = inner[from..].find('`').map(|next| from + next) else {
                    break None;
                };
                let row = inner[next..].chars().take_while(|c| *c == '`').count();
                if row == ticks.len() {
                    break Some(next + row);
                }
                from = next + row;
            };
            match end {
                Some(end) => rest = &inner[end..],
                None => panic!("a code span has no end: {line:?}"),
            }
        }
        out + rest
    }

    proptest! {
        /// Names, titles, notes and contents that try to get out of their code.
        #[test]
        fn nothing_of_a_host_is_read_as_markdown(
            hostile in prop::collection::vec("[`@<>&\"'#\\[\\]()!|\\\\ \n*~x-]{0,40}|```|@all|<script>|</details>|~~~|</code>", 1..6),
            size in 0usize..9000,
        ) {
            let mut review = review(&[&format!("h@x{}", hostile[0])], &[]);
            let steps: Vec<Step> = hostile
                .iter()
                .map(|text| {
                    let mut step = path_step(&format!("/etc/@x{text}"), &format!("@x{text}\n"));
                    step.title = format!("@x{text}");
                    step
                })
                .collect();
            let host = review.host(&HostName::from(&format!("h@x{}", hostile[0])));
            host.plan = Some(Arc::new(HostPlan {
                steps,
                notes: hostile.iter().map(|text| format!("@x{text}")).collect(),
                ..HostPlan::default()
            }));
            let failed = review.host(&HostName::from("bad"));
            failed.outcome = Some(Outcome::Failed);
            failed.problem = hostile.join("\n@x");
            let page = page(&review, size);
            prop_assert!(page.len() <= size.max(LEAST_SIZE));
            let live = live(&page);
            for line in live.lines() {
                let line = match line.split_once("<summary><code>") {
                    Some((before, rest)) => {
                        let (code, after) = rest.split_once("</code>").expect("it is closed");
                        prop_assert!(!code.contains(['<', '>', '"', '\'']), "{code}");
                        format!("{before}{after}")
                    }
                    None => line.to_owned(),
                };
                prop_assert!(!line.contains('@'), "{line}");
                let known = ["<details>", "<details open>", "</details>", "</summary>"];
                let bare = known.iter().fold(line, |line, tag| line.replace(tag, ""));
                prop_assert!(!bare.contains('<'), "{bare}");
            }
        }
    }
}

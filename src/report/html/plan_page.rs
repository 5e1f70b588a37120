//! The content of a plan's page: sums, the fleet with its cards drawn, and below it what
//! would be changed, hosts with equal changes together.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Drawing, Filter, Frame, draw, escaped};
use crate::diff::{Block, Group, LineKind};
use crate::report::human::guard_line;
use crate::report::review::{Review, ReviewedHost, Standing};
use crate::step::{Change, Class, Slice};
use crate::value::HostName;

/// The whole page.
#[must_use]
pub fn page(review: &Review) -> String {
    let mut content = sums(review);
    if !review.findings.is_empty() {
        let _ = writeln!(
            content,
            "<pre class=\"reason\">{}</pre>",
            escaped(&review.findings)
        );
    }
    content.push_str(&fleet(review));
    let groups = review.groups();
    if !groups.is_empty() {
        content.push_str("<section>\n<h2>Changes</h2>\n");
        for group in &groups {
            content.push_str(&self::group(group));
        }
        content.push_str("</section>\n");
    }
    Frame {
        title: &format!("deploy: {}", review.heading()),
        source: &review.source,
        content: &content,
    }
    .page()
}

fn sums(review: &Review) -> String {
    let mut text = "<ul class=\"sums\">\n".to_owned();
    for standing in Standing::ALL {
        let count = review.of(standing).count();
        if count > 0 {
            let _ = writeln!(text, "<li><b>{count}</b> {}</li>", standing.words());
        }
    }
    text + "</ul>\n"
}

fn fleet(review: &Review) -> String {
    let cards = review.hosts.iter().flat_map(|host| &host.cards);
    let models: BTreeSet<String> = cards.map(|card| card.model.clone()).collect();
    let present = |standing: &Standing| review.of(*standing).next().is_some();
    let states = Standing::ALL.into_iter().filter(present);
    let filter = Filter {
        states: states
            .map(|standing| (standing.word().to_owned(), standing.words().to_owned()))
            .collect(),
        cards: models.into_iter().collect(),
    };
    let mut text = "<section>\n<h2>Fleet</h2>\n".to_owned();
    if review.hosts.len() > 1 {
        text.push_str(&filter.form());
    }
    text.push_str("<ul class=\"fleet\">\n");
    for host in &review.hosts {
        text.push_str(&self::host(host));
    }
    text + "</ul>\n</section>\n"
}

fn host(host: &ReviewedHost) -> String {
    let standing = host.standing();
    let models: Vec<&str> = host.cards.iter().map(|card| card.model.as_str()).collect();
    let mut text = format!(
        "<li class=\"host is-{}\" {}>\n<div class=\"host-head\"><h3>{}</h3><span class=\"state\">{}</span></div>\n",
        standing.word(),
        Filter::attributes(host.name.as_str(), standing.word(), &models),
        escaped(host.name.as_str()),
        standing.words()
    );
    if let Some(plan) = host.plan.as_deref().filter(|plan| !plan.steps.is_empty()) {
        let count = plan.steps.len();
        let steps = if count == 1 { "step" } else { "steps" };
        let _ = writeln!(text, "<p class=\"soft\">{count} {steps}</p>");
    }
    for card in &host.cards {
        let planned = layout(host, &card.name);
        text.push_str(&draw(&Drawing {
            name: &card.name,
            state: &card.state,
            grid: planned.map(|(grid, _)| grid).or(card.grid),
            now: &card.slices,
            then: planned.map(|(_, then)| then),
            rows: ("now", "then"),
        }));
    }
    if !host.problem.is_empty() {
        let _ = writeln!(
            text,
            "<pre class=\"reason\">{}</pre>",
            escaped(&host.problem)
        );
    }
    text + "</li>\n"
}

/// The layout that a card is to have at the end of the plan, and its grid.
fn layout<'a>(host: &'a ReviewedHost, card: &str) -> Option<(u32, &'a [Slice])> {
    let steps = host.plan.as_deref()?.steps.iter().rev();
    steps
        .filter_map(|step| match &step.change {
            Change::Layout {
                subject,
                grid,
                after,
                ..
            } if subject == card => Some((*grid, after.as_slice())),
            _ => None,
        })
        .next()
}

fn group(group: &Group) -> String {
    let names: Vec<&str> = group.hosts.iter().map(HostName::as_str).collect();
    let mut text = format!(
        "<article class=\"group\" data-group=\"{}\">\n<h3>{}</h3>\n",
        escaped(&names.join("\n")),
        escaped(&names.join(", "))
    );
    let mut notes: Vec<String> = group.notes.clone();
    let overridden = group.overridden.iter();
    notes.extend(overridden.map(|path| format!("your project's {path} replaces the shipped one")));
    notes.extend(
        (group.guard.as_ref())
            .filter(|_| !group.blocks.is_empty())
            .map(guard_line),
    );
    if !notes.is_empty() {
        text.push_str("<ul>\n");
        for note in &notes {
            let _ = writeln!(text, "<li>{}</li>", escaped(note));
        }
        text.push_str("</ul>\n");
    }
    for block in &group.blocks {
        text.push_str(&self::block(block));
    }
    text + "</article>\n"
}

fn block(block: &Block) -> String {
    let class = match block.class {
        Class::Safe => "",
        Class::Disruptive => " <span class=\"class\">disruptive</span>",
        Class::OneWay => " <span class=\"class\">cannot be undone</span>",
    };
    let title = escaped(&block.title);
    if block.lines.is_empty() {
        return format!("<p>{title}{class}</p>\n");
    }
    let mut text =
        format!("<details><summary>{title}{class}</summary>\n<pre class=\"diff\" tabindex=\"0\">");
    for line in &block.lines {
        let kind = match line.kind {
            LineKind::Context => "context",
            LineKind::Added => "added",
            LineKind::Removed => "removed",
            LineKind::Heading => "heading",
            LineKind::Info => "info",
        };
        // An empty line still takes its place.
        let line = match line.text.is_empty() {
            true => " ".to_owned(),
            false => escaped(&line.text),
        };
        let _ = write!(text, "<span class=\"{kind}\">{line}</span>");
    }
    text + "</pre></details>\n"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::tests::tags;
    use super::*;
    use crate::event::Outcome;
    use crate::plan::HostPlan;
    use crate::saved::Card;
    use crate::step::{PathLook, Step, StepId};

    fn review(text: &str) -> Review {
        let mut review = Review::default();
        review.source = text.to_owned();
        review.findings = text.to_owned();
        let change = Change::Path {
            path: text.to_owned(),
            before: PathLook::Absent,
            after: PathLook::File {
                mode: 0o644,
                owner: text.to_owned(),
                group: text.to_owned(),
                sha256: String::new(),
                size: 1,
                text: Some(text.to_owned()),
            },
        };
        let step = Step::new(StepId(text.to_owned()), text, text.to_owned(), change);
        let host = review.host(&HostName::from(&format!("a{text}")));
        host.outcome = Some(Outcome::Changed);
        host.plan = Some(Arc::new(HostPlan {
            steps: vec![step],
            notes: vec![text.to_owned()],
            overridden: vec![text.to_owned()],
            ..HostPlan::default()
        }));
        host.cards = vec![Card {
            name: text.to_owned(),
            model: text.to_owned(),
            grid: None,
            slices: Vec::new(),
            state: text.to_owned(),
        }];
        let host = review.host(&HostName::from(&format!("b{text}")));
        host.outcome = Some(Outcome::Failed);
        host.problem = text.to_owned();
        review
    }

    proptest! {
        /// Whatever stands in names, files and messages, the page has the same elements.
        #[test]
        fn no_text_becomes_an_element_or_an_attribute(
            text in "[<>&\"'/= a-z\\-\u{1b}\u{202e}]{1,60}|<script>alert\\(1\\)</script>|\" onload=\"x|--><img src=x>|</pre><style>",
        ) {
            let page = page(&review(&text));
            prop_assert_eq!(tags(&page), tags(&super::page(&review("x"))));
            let acts = ['\u{1b}', '\u{202e}'];
            prop_assert!(!page.contains(acts));
        }
    }

    #[test]
    fn without_a_script_all_is_there_and_the_filter_is_hidden() {
        let page = page(&review("x"));
        assert!(page.contains("<form id=\"filter\" class=\"filter\" hidden>"));
        assert!(page.contains("<li class=\"host is-changed\" data-host=\"ax\""));
        assert!(page.contains("<article class=\"group\" data-group=\"ax\">"));
        assert!(
            !page.contains(" style="),
            "the policy forbids styles of elements"
        );
    }
}

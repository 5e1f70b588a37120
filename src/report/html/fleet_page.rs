//! The content of the fleet's page: how hosts and cards stand and stood, what drifted and was
//! mended, and the runs that say so.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Drawing, Filter, Frame, draw, escaped};
use crate::history::{Card, Fleet, Host, Mark, News, Run};
use crate::text::{moment, span};

/// Into how many parts the span is cut for the row of bars.
const PARTS: i64 = 48;

/// Most runs and news that are listed, the newest.
const MOST_LISTED: usize = 100;

/// What the page is of.
#[derive(Debug, Clone, Copy)]
pub struct FleetPage<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
}

impl FleetPage<'_> {
    /// The whole page.
    #[must_use]
    pub fn page(&self) -> String {
        let content = [sums(self.fleet), self.hosts(), self.news(), self.runs()].concat();
        Frame {
            title: &format!("deploy: {}", heading(self.fleet)),
            source: &format!("{} to {}", moment(self.from), moment(self.to)),
            content: &content,
        }
        .page()
    }

    fn hosts(&self) -> String {
        let hosts = &self.fleet.hosts;
        let cards = hosts.values().flat_map(|host| &host.cards);
        let models: BTreeSet<String> = cards.map(|card| card.model.clone()).collect();
        let present = |mark: &Mark| hosts.values().any(|host| host.mark() == Some(*mark));
        let states = Mark::ALL.into_iter().filter(present);
        let filter = Filter {
            states: states
                .map(|mark| (mark.word().to_owned(), mark.word().to_owned()))
                .collect(),
            cards: models.into_iter().collect(),
        };
        let mut text = "<section>\n<h2>Hosts</h2>\n".to_owned();
        if hosts.is_empty() {
            return text + "<p>No run of this time was about any host.</p>\n</section>\n";
        }
        text.push_str(
            "<p class=\"soft\">The row of bars is time, the newest at the right: the higher a bar, \
             the worse the host stood (failed, unreachable, drifted, pending, changed, ok); a dot: \
             nobody looked.</p>\n",
        );
        if hosts.len() > 1 {
            text.push_str(&filter.form());
        }
        text.push_str("<ul class=\"fleet\">\n");
        // Those that somebody has to look at come first.
        let mut worst_first: Vec<_> = hosts.iter().collect();
        worst_first.sort_by_key(|(_, host)| std::cmp::Reverse(host.mark()));
        for (name, host) in worst_first {
            text.push_str(&self.host(name, host));
        }
        text + "</ul>\n</section>\n"
    }

    fn host(&self, name: &str, host: &Host) -> String {
        let word = host.mark().map_or("ok", Mark::word);
        let models: Vec<&str> = host.cards.iter().map(|card| card.model.as_str()).collect();
        let mut text = format!(
            "<li class=\"host is-{word}\" {}>\n<div class=\"host-head\"><h3>{}</h3><span class=\"state\">{word}</span></div>\n",
            Filter::attributes(name, word, &models),
            escaped(name),
        );
        text.push_str(&self.times(host));
        if let Some((at, _)) = host.marks.last() {
            let _ = writeln!(text, "<p class=\"soft\">looked at {}</p>", moment(*at));
        }
        for card in &host.cards {
            text.push_str(&self::card(card));
        }
        if !host.why.is_empty() {
            let _ = writeln!(text, "<pre class=\"reason\">{}</pre>", escaped(&host.why));
        }
        if !host.open.is_empty() {
            let count = host.open.len();
            let things = if count == 1 {
                "thing differs"
            } else {
                "things differ"
            };
            let _ = writeln!(
                text,
                "<details><summary>{count} {things} since {}</summary>\n<ul>",
                host.open
                    .values()
                    .map(|open| moment(open.since))
                    .min()
                    .unwrap_or_default()
            );
            for open in host.open.values() {
                let _ = writeln!(
                    text,
                    "<li>{}: {} <span class=\"soft\">since {}</span></li>",
                    escaped(&open.status.replace('_', " ")),
                    escaped(&open.title),
                    moment(open.since)
                );
            }
            text.push_str("</ul></details>\n");
        }
        text + "</li>\n"
    }

    /// The row of bars: the worst that a host stood in each part of the time.
    fn times(&self, host: &Host) -> String {
        let whole = (self.to.as_second() - self.from.as_second()).max(1);
        let mut parts: Vec<Option<Mark>> = vec![None; usize::try_from(PARTS).unwrap_or_default()];
        for (at, mark) in &host.marks {
            let since = at.as_second().saturating_sub(self.from.as_second());
            let part = since.saturating_mul(PARTS) / whole;
            let part = usize::try_from(part.clamp(0, PARTS - 1)).unwrap_or_default();
            parts[part] = parts[part].max(Some(*mark));
        }
        let counts: Vec<String> = Mark::ALL
            .into_iter()
            .filter_map(|mark| {
                let count = host.marks.iter().filter(|(_, one)| *one == mark).count();
                (count > 0).then(|| format!("{} {count} times", mark.word()))
            })
            .collect();
        let bars: String = parts
            .iter()
            .map(|part| format!("<i class=\"t-{}\"></i>", part.map_or("none", Mark::word)))
            .collect();
        format!(
            "<div class=\"times\" role=\"img\" aria-label=\"over time: {}\">{bars}</div>\n",
            escaped(&counts.join(", "))
        )
    }

    fn news(&self) -> String {
        let mut text = "<section>\n<h2>Drift that came and went</h2>\n".to_owned();
        if self.fleet.news.is_empty() {
            return text + "<p>None.</p>\n</section>\n";
        }
        text.push_str("<ul class=\"log\">\n");
        for news in self.fleet.news.iter().rev().take(MOST_LISTED) {
            text.push_str(&self::news(news));
        }
        text.push_str("</ul>\n");
        text + &more(self.fleet.news.len()) + "</section>\n"
    }

    fn runs(&self) -> String {
        let mut text = "<section>\n<h2>Runs</h2>\n<ul class=\"log\">\n".to_owned();
        for run in self.fleet.runs.iter().rev().take(MOST_LISTED) {
            text.push_str(&self::run(run));
        }
        text.push_str("</ul>\n");
        text + &more(self.fleet.runs.len()) + "</section>\n"
    }
}

fn heading(fleet: &Fleet) -> String {
    let all = fleet.hosts.len();
    let well = |host: &&Host| matches!(host.mark(), Some(Mark::Ok | Mark::Changed));
    let well = fleet.hosts.values().filter(well).count();
    match all {
        0 => "no host".to_owned(),
        _ => format!("{well} of {all} hosts are as they should be"),
    }
}

fn sums(fleet: &Fleet) -> String {
    let mut text = "<ul class=\"sums\">\n".to_owned();
    for mark in Mark::ALL {
        let hosts = fleet.hosts.values();
        let count = hosts.filter(|host| host.mark() == Some(mark)).count();
        if count > 0 {
            let _ = writeln!(text, "<li><b>{count}</b> {}</li>", mark.word());
        }
    }
    let count = fleet.runs.len();
    let runs = if count == 1 { "run" } else { "runs" };
    let _ = writeln!(text, "<li><b>{count}</b> {runs}</li>");
    text + "</ul>\n"
}

fn card(card: &Card) -> String {
    let mut text = draw(&Drawing {
        name: &card.name,
        state: &card.state,
        grid: card.grid,
        now: &card.found,
        then: card.wanted.as_deref(),
        rows: ("found", "wanted"),
    });
    for (kind, wanted, found) in &card.differing {
        let _ = writeln!(
            text,
            "<p class=\"soft\">{}: {wanted} wanted, {found} found</p>",
            escaped(kind)
        );
    }
    if !card.changes.is_empty() {
        text.push_str("<details><summary>other slices before</summary>\n<ul>\n");
        for (at, before) in card.changes.iter().rev().take(MOST_LISTED) {
            let _ = writeln!(text, "<li>until {}: {}</li>", moment(*at), escaped(before));
        }
        text.push_str("</ul></details>\n");
    }
    text
}

fn news(news: &News) -> String {
    let what = match news.closed {
        true => format!(
            "gone after {}",
            span(
                u64::try_from(news.at.as_second() - news.open.since.as_second())
                    .unwrap_or_default()
            )
        ),
        false => news.open.status.replace('_', " "),
    };
    format!(
        "<li><span class=\"soft\">{}</span> <b>{}</b> {}: {}</li>\n",
        moment(news.at),
        escaped(&what),
        escaped(&news.address),
        escaped(&news.open.title)
    )
}

fn run(run: &Run) -> String {
    let begun = &run.begun;
    let end = match run.ended {
        Some(ended) => {
            let seconds = ended.as_second() - begun.started.as_second();
            let took = span(u64::try_from(seconds).unwrap_or_default());
            format!("{took}, exit {}", run.summary["exit"])
        }
        None => run.state.word().to_owned(),
    };
    format!(
        "<li><span class=\"soft\">{}</span> <b>{}</b> {} <span class=\"soft\">by {} from {}, {}</span></li>\n",
        moment(begun.started),
        escaped(&end),
        escaped(&begun.asked.words()),
        escaped(&begun.who),
        escaped(&begun.from),
        escaped(begun.id.as_str()),
    )
}

/// That there is more than what is listed.
fn more(all: usize) -> String {
    match all.checked_sub(MOST_LISTED) {
        Some(more @ 1..) => format!("<p class=\"soft\">and {more} before</p>\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tags;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::history::{Asked, Begun, EntryId, Open, State};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn fleet(text: &str) -> Fleet {
        let own = || text.to_owned();
        let open = Open {
            since: at(10),
            status: own(),
            title: own(),
        };
        let host = Host {
            marks: vec![(at(10), Mark::Ok), (at(50), Mark::Drifted)],
            why: own(),
            cards: vec![Card {
                name: own(),
                model: own(),
                state: own(),
                differing: vec![(own(), 2, 1)],
                changes: vec![(at(20), own())],
                ..Card::default()
            }],
            open: [(own(), open.clone())].into(),
        };
        let begun = Begun {
            id: EntryId::parse("20261122T210500Z-3f9a1c").expect("a name"),
            tool: own(),
            asked: Asked {
                verb: own(),
                inventory: vec![own()],
                ..Asked::default()
            },
            who: own(),
            from: own(),
            started: at(5),
            every: None,
        };
        let mut fleet = Fleet::default();
        for name in ["a", "b"] {
            fleet.hosts.insert(format!("{name}{text}"), host.clone());
        }
        fleet.runs.push(Run {
            begun,
            ended: Some(at(7)),
            state: State::Ended,
            summary: json!({"exit": own()}),
        });
        fleet.news.push(News {
            at: at(10),
            address: own(),
            open,
            closed: false,
        });
        fleet
    }

    fn page(text: &str) -> String {
        let page = FleetPage {
            fleet: &fleet(text),
            from: at(0),
            to: at(100),
        };
        page.page()
    }

    proptest! {
        /// Whatever stands in names and messages, the page has the same elements.
        #[test]
        fn no_text_becomes_an_element_or_an_attribute(
            text in "[<>&\"'/= a-z\\-\u{1b}\u{202e}]{1,60}|<script>alert\\(1\\)</script>|\" onload=\"x|--><img src=x>|</pre><style>",
        ) {
            let page = page(&text);
            prop_assert_eq!(tags(&page), tags(&super::tests::page("x")));
            let acts = ['\u{1b}', '\u{202e}'];
            prop_assert!(!page.contains(acts));
        }
    }

    #[test]
    fn bars_stand_where_they_were_in_time_and_say_so_in_words() {
        let page = page("x");
        let (_, bars) = page.split_once("aria-label=\"over time: ").expect("a row");
        let (label, bars) = bars.split_once("\">").expect("its label");
        assert_eq!(label, "drifted 1 times, ok 1 times");
        let (bars, _) = bars.split_once("</div>").expect("its end");
        let classes: Vec<&str> = bars
            .split("t-")
            .skip(1)
            .map(|bar| bar.split('"').next().expect("a class"))
            .collect();
        assert_eq!(classes.len(), 48);
        assert_eq!(
            (classes[4], classes[24], classes[47]),
            ("ok", "drifted", "none")
        );
        assert!(
            !page.contains(" style="),
            "the policy forbids styles of elements"
        );
    }
}

//! The fleet over time: what the runs of a span say of each host, its cards and its drift.
//!
//! Runs are taken in one after the other, oldest first, so that the lines of only one of them
//! are in memory at a time.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value as Json;

use super::{Begun, Heard, Kept, Open, OpenDrift, State};
use crate::step::Slice;

/// Most openings and closings of drift that are kept, the newest.
const MOST_NEWS: usize = 300;

/// How a host stood after a run, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It was changed.
    Changed,
    /// Something else is wanted than was applied.
    Pending,
    /// Somebody changed something on it.
    Drifted,
    /// It could not be reached.
    Unreachable,
    /// Something went wrong.
    Failed,
}

impl Mark {
    /// All of them, the worst first.
    pub const ALL: [Self; 6] = [
        Self::Failed,
        Self::Unreachable,
        Self::Drifted,
        Self::Pending,
        Self::Changed,
        Self::Ok,
    ];

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Pending => "pending",
            Self::Drifted => "drifted",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

/// A run that is told.
#[derive(Debug, Clone)]
pub struct Run {
    /// What it was.
    pub begun: Begun,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it stands.
    pub state: State,
    /// Its sums.
    pub summary: Json,
}

/// A card as it was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// What it is called.
    pub name: String,
    /// Its model.
    pub model: String,
    /// How it stands, in a few words.
    pub state: String,
    /// Units of its grid.
    pub grid: Option<u32>,
    /// The slices that are there.
    pub found: Vec<Slice>,
    /// The slices that are wanted, where those are others.
    pub wanted: Option<Vec<Slice>>,
    /// Kinds of slices of which there are more or fewer than wanted: kind, wanted, found.
    pub differing: Vec<(String, u64, u64)>,
    /// When its slices were seen to be others than before, and how they were then.
    pub changes: Vec<(Timestamp, String)>,
}

/// A host.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// How it stood after each run that was about it, oldest first.
    pub marks: Vec<(Timestamp, Mark)>,
    /// Why it did not go well the last time.
    pub why: String,
    /// Its cards.
    pub cards: Vec<Card>,
    /// The drift that stands, by address.
    pub open: OpenDrift,
}

impl Host {
    /// How it stands.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.marks.last().map(|(_, mark)| *mark)
    }
}

/// Drift that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// When that was seen.
    pub at: Timestamp,
    /// Its address.
    pub address: String,
    /// What it is, or was.
    pub open: Open,
    /// Whether it is gone.
    pub closed: bool,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The hosts, by name.
    pub hosts: BTreeMap<String, Host>,
    /// The runs, oldest first.
    pub runs: Vec<Run>,
    /// Drift that came and went, oldest first.
    pub news: Vec<News>,
    /// Looks at drift: of each kind the last one, and what was open after it.
    watches: Vec<(Begun, OpenDrift)>,
}

impl Fleet {
    /// Takes in what was open after a run that is older than what is told.
    pub fn before(&mut self, run: &Kept, open: Option<OpenDrift>) {
        if let Some(open) = open {
            self.watched(&run.entry.begun, open);
        }
    }

    /// Whether something is reckoned of a line; of the others none need be in memory.
    #[must_use]
    pub fn wants(line: &Json) -> bool {
        let is_layout = |key: &str| line[key]["kind"] == "layout";
        match line["type"].as_str() {
            Some("host_end" | "gpu_slices") => true,
            Some("planned_change") => is_layout("change"),
            Some("drift") => is_layout("to_wanted") || is_layout("to_applied"),
            _ => false,
        }
    }

    /// Takes in a run, what it told, and what was open after it, of a look at drift.
    pub fn take(&mut self, run: &Kept, open: Option<OpenDrift>, lines: &[Json]) {
        let begun = &run.entry.begun;
        let ended = run.entry.ended.as_ref();
        let at = ended.map_or(begun.started, |ended| ended.at);
        self.runs.push(Run {
            begun: begun.clone(),
            ended: ended.map(|ended| ended.at),
            state: run.state,
            summary: ended.map(|ended| ended.summary.clone()).unwrap_or_default(),
        });
        let heard = Heard::of(lines);
        let none = OpenDrift::new();
        let known = open.as_ref();
        let open = known.unwrap_or(&none);
        for (name, (outcome, why)) in &heard.hosts {
            let prefix = format!("{name}/");
            let own: OpenDrift = open
                .range(prefix.clone()..)
                .take_while(|(address, _)| address.starts_with(&prefix))
                .map(|(address, open)| (address.clone(), open.clone()))
                .collect();
            let Some(mark) = mark(outcome, begun, &own) else {
                continue;
            };
            let host = self.hosts.entry(name.clone()).or_default();
            host.marks.push((at, mark));
            host.why.clone_from(why);
            if known.is_some() {
                host.open = own;
            }
        }
        if let Some(open) = known {
            self.tell_news(begun, at, open.clone());
        }
        self.cards(begun, at, lines);
    }

    fn tell_news(&mut self, begun: &Begun, at: Timestamp, open: OpenDrift) {
        let before = self.watched(begun, open.clone());
        let lacks = |all: &OpenDrift, one: &str, open: &Open| {
            let other = all.get(one);
            other.is_none_or(|other| other.is_drifted() != open.is_drifted())
        };
        for (of, without, closed) in [(&open, &before, false), (&before, &open, true)] {
            let news = of
                .iter()
                .filter(|(address, one)| lacks(without, address, one))
                .map(|(address, open)| News {
                    at,
                    address: address.clone(),
                    open: open.clone(),
                    closed,
                });
            self.news.extend(news);
        }
        let over = self.news.len().saturating_sub(MOST_NEWS);
        self.news.drain(..over);
    }

    /// Remembers what is open after a look, and gives what was before.
    fn watched(&mut self, begun: &Begun, open: OpenDrift) -> OpenDrift {
        let same = |(old, _): &&mut (Begun, OpenDrift)| old.asked.is_same_watch(&begun.asked);
        match self.watches.iter_mut().find(same) {
            Some((_, known)) => std::mem::replace(known, open),
            None => {
                self.watches.push((begun.clone(), open));
                OpenDrift::new()
            }
        }
    }

    /// Takes in how cards were sliced, and how they are after what was changed.
    fn cards(&mut self, begun: &Begun, at: Timestamp, lines: &[Json]) {
        let mut by_host: HashMap<&str, Vec<&Json>> = HashMap::new();
        for line in lines {
            if let Some(host) = line["host"].as_str() {
                by_host.entry(host).or_default().push(line);
            }
        }
        for (name, lines) in by_host {
            let is_card = |line: &&&Json| line["type"] == "gpu_slices";
            let told: Vec<&Json> = lines.iter().filter(is_card).copied().collect();
            // Where no card is told of, it may have been another playbook's run.
            if told.is_empty() {
                continue;
            }
            let end = lines.iter().rev().find(|line| line["type"] == "host_end");
            let changed =
                begun.asked.changes() && end.is_some_and(|end| end["outcome"] == "changed");
            let cards = told.into_iter().map(|line| seen(line, &lines, changed));
            let host = self.hosts.entry(name.to_owned()).or_default();
            let mut before = std::mem::take(&mut host.cards);
            for mut card in cards {
                if let Some(old) = before.iter_mut().find(|old| old.name == card.name) {
                    card.changes = std::mem::take(&mut old.changes);
                    if (&old.found, &old.state) != (&card.found, &card.state) {
                        card.changes.push((at, old.told()));
                    }
                }
                host.cards.push(card);
            }
        }
    }
}

/// A card as a line tells it, and as it is after what the other lines of its host say of it.
fn seen(line: &Json, lines: &[&Json], changed: bool) -> Card {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let name = text("gpu");
    let mut card = Card {
        model: text("model"),
        state: text("state"),
        grid: serde_json::from_value(line["grid"].clone()).unwrap_or_default(),
        found: slices(&line["slices"]),
        wanted: layout(lines, &name),
        differing: differing(&line["counts"]),
        name,
        changes: Vec::new(),
    };
    if changed {
        // What was wanted is what is there now.
        if let Some(made) = card.wanted.take() {
            card.found = made;
        }
        if !card.differing.is_empty() {
            card.state = made(&line["counts"]);
            card.differing.clear();
        }
    }
    card
}

impl Card {
    /// Its slices in a line: `1g.10gb, 3g.40gb`, or how it stands where they are not known.
    #[must_use]
    pub fn told(&self) -> String {
        if self.found.is_empty() {
            return self.state.clone();
        }
        let names: Vec<&str> = self.found.iter().map(|slice| &*slice.profile).collect();
        names.join(", ")
    }
}

fn mark(outcome: &str, begun: &Begun, open: &OpenDrift) -> Option<Mark> {
    Some(match outcome {
        "ok" | "changed" if open.values().any(Open::is_drifted) => Mark::Drifted,
        "ok" | "changed" if !open.is_empty() => Mark::Pending,
        "ok" => Mark::Ok,
        "changed" if begun.asked.changes() => Mark::Changed,
        "changed" => Mark::Pending,
        "unreachable" => Mark::Unreachable,
        "skipped" => return None,
        _ => Mark::Failed,
    })
}

fn slices(json: &Json) -> Vec<Slice> {
    serde_json::from_value(json.clone()).unwrap_or_default()
}

/// The layout that a card is to have, by what was planned or found to differ.
fn layout(lines: &[&Json], gpu: &str) -> Option<Vec<Slice>> {
    let newest = lines.iter().rev();
    let changes = newest.flat_map(|line| match line["type"].as_str() {
        Some("planned_change") => vec![&line["change"]],
        Some("drift") if line["status"] != "ignored" => {
            vec![&line["to_wanted"], &line["to_applied"]]
        }
        _ => Vec::new(),
    });
    changes
        .into_iter()
        .find(|change| change["kind"] == "layout" && change["subject"] == *gpu)
        .map(|change| slices(&change["after"]))
}

fn differing(counts: &Json) -> Vec<(String, u64, u64)> {
    let rows = counts.as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter()
        .filter_map(|row| {
            let (wanted, found) = (row["wanted"].as_u64()?, row["found"].as_u64()?);
            let kind = format!(
                "{} {}",
                row["technology"].as_str()?,
                row["profile"].as_str()?
            );
            (wanted != found).then_some((kind, wanted, found))
        })
        .collect()
}

/// The wanted slices by kind, which are those that there are after they were made.
fn made(counts: &Json) -> String {
    let rows = counts.as_array().map(Vec::as_slice).unwrap_or_default();
    let kinds = rows.iter().filter_map(|row| {
        let count = row["wanted"].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} × {}", row["profile"].as_str()?))
    });
    let kinds: Vec<String> = kinds.collect();
    match kinds.is_empty() {
        true => "whole".to_owned(),
        false => kinds.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::{Asked, Ended, Entry, EntryId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn run(
        second: i64,
        verb: &str,
        flags: &[&str],
        open: &[(&str, &str, i64)],
    ) -> (Kept, Option<OpenDrift>) {
        let open = open.iter().map(|(address, status, since)| {
            let open = Open {
                since: at(*since),
                status: (*status).to_owned(),
                title: "x".to_owned(),
            };
            ((*address).to_owned(), open)
        });
        let asked = Asked {
            verb: verb.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..Asked::default()
        };
        let begun = Begun {
            id: EntryId::parse("20261122T210500Z-3f9a1c").expect("a name"),
            tool: String::new(),
            asked,
            who: String::new(),
            from: String::new(),
            started: at(second),
            every: None,
        };
        let ended = Ended {
            at: at(second),
            summary: json!({"exit": 0}),
        };
        let open = (verb == "drift").then(|| open.collect());
        (Kept::of(Entry::new(begun, Some(ended))), open)
    }

    fn take(fleet: &mut Fleet, (run, open): (Kept, Option<OpenDrift>), lines: &[Json]) {
        fleet.take(&run, open, lines);
    }

    fn end(host: &str, outcome: &str) -> Json {
        json!({"type": "host_end", "host": host, "outcome": outcome})
    }

    fn card(state: &str, wanted: u32, found: u32) -> Json {
        json!({"type": "gpu_slices", "host": "a", "gpu": "GPU 0", "model": "Flex-170",
            "state": state, "grid": null, "slices": [],
            "counts": [{"technology": "sriov", "profile": "vf", "wanted": wanted, "found": found}]})
    }

    #[test]
    fn drift_comes_and_goes_and_hosts_stand_by_it() {
        let mut fleet = Fleet::default();
        let (first, open) = run(1, "drift", &[], &[("a/x", "drifted", 1)]);
        fleet.before(&first, open);
        let lines = [end("a", "changed"), end("b", "ok"), end("c", "unreachable")];
        take(
            &mut fleet,
            run(
                2,
                "drift",
                &[],
                &[("a/x", "drifted", 1), ("a/y", "pending", 2)],
            ),
            &lines,
        );
        let marks =
            |fleet: &Fleet| -> Vec<Mark> { fleet.hosts.values().filter_map(Host::mark).collect() };
        assert_eq!(marks(&fleet), [Mark::Drifted, Mark::Ok, Mark::Unreachable]);
        take(
            &mut fleet,
            run(3, "drift", &["--remediate"], &[("a/y", "pending", 2)]),
            &[end("a", "changed")],
        );
        assert_eq!(marks(&fleet)[0], Mark::Pending);
        take(
            &mut fleet,
            run(4, "gpu", &[], &[]),
            &[
                end("a", "changed"),
                end("b", "rolled_back"),
                end("c", "skipped"),
            ],
        );
        assert_eq!(
            marks(&fleet),
            [Mark::Changed, Mark::Failed, Mark::Unreachable]
        );
        let told: Vec<(&str, bool)> = fleet
            .news
            .iter()
            .map(|news| (news.address.as_str(), news.closed))
            .collect();
        assert_eq!(told, [("a/y", false), ("a/x", true)]);
    }

    #[test]
    fn cards_are_as_they_were_seen_or_made() {
        let mut fleet = Fleet::default();
        let check = [card("whole", 2, 0), end("a", "changed")];
        take(&mut fleet, run(1, "gpu", &["--check"], &[]), &check);
        let first = fleet.hosts["a"].cards[0].clone();
        assert_eq!(first.differing, [("sriov vf".to_owned(), 2, 0)]);
        take(&mut fleet, run(2, "gpu", &[], &[]), &check);
        let made = &fleet.hosts["a"].cards[0];
        assert_eq!((made.state.as_str(), made.differing.len()), ("2 × vf", 0));
        assert_eq!(made.changes, [(at(2), "whole".to_owned())]);
        // Another playbook's run says nothing of cards.
        take(&mut fleet, run(3, "run", &[], &[]), &[end("a", "ok")]);
        assert_eq!(fleet.hosts["a"].cards.len(), 1);
    }
}

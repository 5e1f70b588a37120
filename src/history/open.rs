//! Since when drift stands: what a look found, and what was open before it.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Most characters of a title that is kept.
const TITLE: usize = 300;

/// What a run mends of the drift that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mends {
    /// Nothing: it looks.
    Nothing,
    /// Hosts become as they were applied last; what is pending stays so.
    Applied,
    /// Hosts become as they are wanted, with what was pending.
    Wanted,
}

/// Whether a run went through all hosts that it was to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Each has had its end: one that has none is no longer asked for.
    Whole,
    /// It was refused, interrupted or stopped: of hosts without an end nothing is known.
    Cut,
}

/// A thing that differs and that nobody has mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Since when that is known.
    pub since: Timestamp,
    /// `drifted`, `flapping`, `pending`, `drifted_and_pending`.
    pub status: String,
    /// What would mend it, in a few words.
    pub title: String,
}

impl Open {
    /// Whether somebody changed it on the host.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.status != "pending"
    }
}

/// What is open, by address: `HOST/STEP-ID`.
pub type OpenDrift = BTreeMap<String, Open>;

/// A thing that a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The host.
    pub host: String,
    /// `HOST/STEP-ID`.
    pub address: String,
    /// In what way it differs; `ignored` does not count.
    pub status: String,
    /// What would mend it.
    pub title: String,
    /// Why it is not mended now.
    pub held: Option<String>,
}

impl Found {
    /// Whether it counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.status != "ignored"
    }

    /// Whether somebody changed it on the host, and that counts.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.counts() && self.status != "pending"
    }
}

/// What the lines of a run say of its hosts, as far as something is reckoned of it.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// How each host ended, and why if it did not go well; of two ends the last.
    pub hosts: BTreeMap<String, (String, String)>,
    /// What was found to differ.
    pub found: Vec<Found>,
}

impl Heard {
    /// What these lines say.
    #[must_use]
    pub fn of(lines: &[Json]) -> Self {
        let mut heard = Self::default();
        lines.iter().for_each(|line| heard.line(line));
        heard
    }

    /// Takes in a line.
    pub fn line(&mut self, line: &Json) {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        match line["type"].as_str() {
            Some("host_end") => {
                let problem = &line["problem"];
                let why = problem["message"]
                    .as_str()
                    .or_else(|| problem["findings"][0]["message"].as_str());
                let why = why.unwrap_or_default().to_owned();
                self.hosts.insert(text("host"), (text("outcome"), why));
            }
            Some("drift") => self.found.push(Found {
                host: text("host"),
                address: text("address"),
                status: text("status"),
                title: text("title"),
                held: line["held"].as_str().map(str::to_owned),
            }),
            _ => {}
        }
    }

    /// The hosts of which the run can say what differs.
    fn looked_at(&self) -> HashSet<&str> {
        let well = |outcome: &str| matches!(outcome, "ok" | "changed");
        let ended = self.hosts.iter().filter(|(_, end)| well(&end.0));
        let ended = ended.map(|(host, _)| host.as_str());
        let found = self.found.iter().map(|found| found.host.as_str());
        ended.chain(found).collect()
    }

    /// Whether a host that had no end has left the fleet.
    #[must_use]
    pub fn has_left(&self, host: &str, course: Course) -> bool {
        course == Course::Whole && !self.hosts.is_empty() && !self.hosts.contains_key(host)
    }

    /// What is open after a look at `now`, where `before` was open: what was open already keeps
    /// its time, and hosts that were not looked at keep what they had, unless they have left
    /// the fleet. What is mended is that what was not held back on the hosts that were changed.
    #[must_use]
    pub fn open(
        &self,
        before: &OpenDrift,
        now: Timestamp,
        (mends, course): (Mends, Course),
    ) -> OpenDrift {
        let looked_at = self.looked_at();
        let mut open: OpenDrift = before
            .iter()
            .filter(|(address, _)| {
                let host = address.split('/').next().unwrap_or_default();
                !looked_at.contains(host) && !self.has_left(host, course)
            })
            .map(|(address, open)| (address.clone(), open.clone()))
            .collect();
        for found in self.found.iter().filter(|found| found.counts()) {
            let changed = self.hosts.get(&found.host);
            let changed = changed.is_some_and(|(outcome, _)| outcome == "changed");
            let is_mended = changed && found.held.is_none();
            let status = match (mends, found.status.as_str()) {
                (Mends::Wanted, _) if is_mended => continue,
                (Mends::Applied, "drifted_and_pending") if is_mended => "pending".to_owned(),
                (Mends::Applied, status) if is_mended && status != "pending" => continue,
                (_, status) => status.to_owned(),
            };
            let same = |open: &&Open| open.is_drifted() == (status != "pending");
            let since = before.get(&found.address).filter(same);
            open.insert(
                found.address.clone(),
                Open {
                    since: since.map_or(now, |open| open.since),
                    status,
                    title: found.title.chars().take(TITLE).collect(),
                },
            );
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn end(host: &str, outcome: &str) -> Json {
        json!({"type": "host_end", "host": host, "outcome": outcome})
    }

    fn drift(host: &str, status: &str, held: Option<&str>) -> Json {
        let address = format!("{host}/file:/etc/x");
        json!({"type": "drift", "host": host, "address": address, "status": status,
            "title": "write /etc/x", "held": held})
    }

    fn told(open: &OpenDrift) -> Vec<String> {
        let one = |(address, open): (&String, &Open)| {
            format!("{address} {} {}", open.status, open.since.as_second())
        };
        open.iter().map(one).collect()
    }

    #[test]
    fn drift_keeps_its_time_until_it_is_gone() {
        let look = |second, before: &OpenDrift, lines: &[Json]| {
            Heard::of(lines).open(before, at(second), (Mends::Nothing, Course::Whole))
        };
        let first = look(
            10,
            &OpenDrift::new(),
            &[drift("a", "drifted", None), end("a", "changed")],
        );
        assert_eq!(told(&first), ["a/file:/etc/x drifted 10"]);
        let second = look(
            20,
            &first,
            &[
                drift("a", "flapping", None),
                end("a", "changed"),
                drift("b", "ignored", None),
            ],
        );
        assert_eq!(told(&second), ["a/file:/etc/x flapping 10"]);
        // Not reached: it is still there as far as anybody knows.
        let third = look(30, &second, &[end("a", "unreachable")]);
        assert_eq!(told(&third), ["a/file:/etc/x flapping 10"]);
        // What is pending now is news; the host that left the fleet takes its drift along.
        let fourth = look(
            40,
            &third,
            &[drift("a", "pending", None), end("a", "changed")],
        );
        assert_eq!(told(&fourth), ["a/file:/etc/x pending 40"]);
        assert!(look(50, &fourth, &[end("a", "ok")]).is_empty());
        assert!(look(50, &fourth, &[end("b", "ok")]).is_empty());
    }

    #[test]
    fn what_was_mended_is_closed_and_what_was_held_back_is_not() {
        let to = |mends, lines: &[Json]| {
            Heard::of(lines).open(&OpenDrift::new(), at(10), (mends, Course::Whole))
        };
        let mend = |lines: &[Json]| to(Mends::Applied, lines);
        assert!(mend(&[drift("a", "drifted", None), end("a", "changed")]).is_empty());
        let held = mend(&[drift("a", "drifted", Some("window")), end("a", "changed")]);
        assert_eq!(told(&held), ["a/file:/etc/x drifted 10"]);
        let undone = mend(&[drift("a", "drifted", None), end("a", "rolled_back")]);
        assert_eq!(told(&undone), ["a/file:/etc/x drifted 10"]);
        let both = mend(&[drift("a", "drifted_and_pending", None), end("a", "changed")]);
        assert_eq!(told(&both), ["a/file:/etc/x pending 10"]);
        let pending = [drift("a", "pending", None), end("a", "changed")];
        assert_eq!(told(&mend(&pending)), ["a/file:/etc/x pending 10"]);
        for status in ["drifted", "flapping", "drifted_and_pending", "pending"] {
            let lines = |held| [drift("a", status, held), end("a", "changed")];
            assert!(to(Mends::Wanted, &lines(None)).is_empty(), "{status}");
            assert_eq!(to(Mends::Wanted, &lines(Some("window"))).len(), 1);
            assert_eq!(to(Mends::Nothing, &lines(None)).len(), 1);
        }
    }

    #[test]
    fn a_look_that_did_not_get_to_a_host_forgets_nothing_of_it() {
        let first = [
            drift("a", "drifted", None),
            drift("b", "drifted", None),
            end("a", "changed"),
            end("b", "changed"),
        ];
        let look = |before: &OpenDrift, lines: &[Json], course| {
            Heard::of(lines).open(before, at(20), (Mends::Nothing, course))
        };
        let before =
            Heard::of(&first).open(&OpenDrift::new(), at(10), (Mends::Nothing, Course::Whole));
        for course in [Course::Whole, Course::Cut] {
            assert_eq!(look(&before, &[], course), before, "nothing was begun");
        }
        let cut = look(&before, &[end("a", "ok")], Course::Cut);
        assert_eq!(told(&cut), ["b/file:/etc/x drifted 10"]);
        assert!(look(&before, &[end("a", "ok")], Course::Whole).is_empty());
    }
}

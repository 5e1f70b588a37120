//! Since when drift stands: what a look found, and what was open before it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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

    fn was_looked_at(&self, host: &str) -> bool {
        let well = |(outcome, _): &(String, String)| matches!(outcome.as_str(), "ok" | "changed");
        self.hosts.get(host).is_some_and(well) || self.found.iter().any(|found| found.host == host)
    }

    /// What is open after a look at `now`, where `before` was open: what was open already keeps
    /// its time, and hosts that could not be looked at keep what they had. `mends` is whether
    /// the run mended what was not held back on the hosts that it changed.
    #[must_use]
    pub fn open(&self, before: &OpenDrift, now: Timestamp, mends: bool) -> OpenDrift {
        let host_of = |address: &str| {
            let (host, _) = address.split_once('/').unwrap_or((address, ""));
            host.to_owned()
        };
        let mut open: OpenDrift = before
            .iter()
            .filter(|(address, _)| {
                let host = host_of(address);
                self.hosts.contains_key(&host) && !self.was_looked_at(&host)
            })
            .map(|(address, open)| (address.clone(), open.clone()))
            .collect();
        for found in self.found.iter().filter(|found| found.counts()) {
            let changed = self.hosts.get(&found.host);
            let changed = changed.is_some_and(|(outcome, _)| outcome == "changed");
            let is_pending = found.status.contains("pending");
            let mended = mends && changed && found.held.is_none() && found.is_drifted();
            if mended && !is_pending {
                continue;
            }
            let status = match mended {
                true => "pending".to_owned(),
                false => found.status.clone(),
            };
            let same = |open: &&Open| open.is_drifted() == (status != "pending");
            let since = before.get(&found.address).filter(same);
            open.insert(
                found.address.clone(),
                Open {
                    since: since.map_or(now, |open| open.since),
                    status,
                    title: found.title.clone(),
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
            Heard::of(lines).open(before, at(second), false)
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
        let mend = |lines: &[Json]| Heard::of(lines).open(&OpenDrift::new(), at(10), true);
        assert!(mend(&[drift("a", "drifted", None), end("a", "changed")]).is_empty());
        let held = mend(&[drift("a", "drifted", Some("window")), end("a", "changed")]);
        assert_eq!(told(&held), ["a/file:/etc/x drifted 10"]);
        let undone = mend(&[drift("a", "drifted", None), end("a", "rolled_back")]);
        assert_eq!(told(&undone), ["a/file:/etc/x drifted 10"]);
        let both = mend(&[drift("a", "drifted_and_pending", None), end("a", "changed")]);
        assert_eq!(told(&both), ["a/file:/etc/x pending 10"]);
    }
}

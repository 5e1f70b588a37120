//! What there is to tell of a run, and what of it was told already.

use jiff::{SignedDuration, Timestamp};

use super::Kind;
use crate::history::{Course, Heard, Memory, OpenDrift, Told};

/// Most characters of a text that is remembered.
const REMEMBERED: usize = 300;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Of what kind.
    pub kind: Kind,
    /// The host, where it is about one.
    pub host: String,
    /// The address of drift, or the host, or empty where it is about the run.
    pub address: String,
    /// What it is, in a sentence.
    pub text: String,
    /// Since when it is known.
    pub since: Timestamp,
}

impl Item {
    fn key(&self) -> String {
        format!("{} {}", self.kind.word(), self.address)
    }
}

/// All that stands after a run, whether it was told or not. `open` is the drift that stands
/// after a look at it, `missed` what is said of missing runs, `refused` why nothing was begun.
#[must_use]
pub fn items(
    heard: &Heard,
    open: Option<&OpenDrift>,
    missed: Option<String>,
    refused: Option<String>,
    now: Timestamp,
) -> Vec<Item> {
    let mut items = Vec::new();
    for (address, open) in open.into_iter().flatten() {
        let kind = match open.status.as_str() {
            "flapping" => Kind::Flapping,
            "pending" => Kind::Pending,
            _ => Kind::Drifted,
        };
        let host = address.split('/').next().unwrap_or_default();
        items.push(Item {
            kind,
            host: host.to_owned(),
            address: address.clone(),
            text: open.title.clone(),
            since: open.since,
        });
    }
    for (host, (outcome, why)) in &heard.hosts {
        let kind = match outcome.as_str() {
            "unreachable" => Kind::Unreachable,
            "failed" | "rolled_back" | "stuck" | "unconfirmed" | "locked" | "stale" | "left" => {
                Kind::Failed
            }
            _ => continue,
        };
        let word = outcome.replace('_', " ");
        items.push(Item {
            kind,
            host: host.clone(),
            address: host.clone(),
            text: match why.is_empty() {
                true => word,
                false => format!("{word}: {why}"),
            },
            since: now,
        });
    }
    for (kind, text) in [(Kind::Missed, missed), (Kind::Failed, refused)] {
        items.extend(text.map(|text| Item {
            kind,
            host: String::new(),
            address: String::new(),
            text,
            since: now,
        }));
    }
    items
}

/// What is told now of all that stands, and what is remembered afterwards. News that was told
/// is told again after `repeat`; what no longer stands, and of which this run can say so, is
/// told as over. `is_look` is whether the run looked for drift, `course` whether it went
/// through all hosts.
#[must_use]
pub fn fresh(
    standing: &[Item],
    (heard, is_look, course): (&Heard, bool, Course),
    told: &Told,
    (on, repeat): (&[Kind], SignedDuration),
    now: Timestamp,
) -> (Vec<Item>, Told) {
    let mut after = Told::new();
    let mut news = Vec::new();
    for item in standing.iter().filter(|item| on.contains(&item.kind)) {
        let key = item.key();
        let known = told.get(&key);
        let since = known.map_or(item.since, |known| known.since);
        let is_due = known.is_none_or(|known| now.duration_since(known.told) >= repeat);
        if is_due {
            news.push(Item {
                since,
                ..item.clone()
            });
        }
        let last = known.filter(|_| !is_due).map_or(now, |known| known.told);
        after.insert(
            key,
            Memory {
                since,
                told: last,
                seen: Some(now),
                host: item.host.clone(),
                text: item.text.chars().take(REMEMBERED).collect(),
            },
        );
    }
    for (key, memory) in told {
        let other = match key.split_once(' ') {
            Some(("drifted", address)) => Some(format!("flapping {address}")),
            Some(("flapping", address)) => Some(format!("drifted {address}")),
            _ => None,
        };
        // Drift that comes back each time is not over.
        if after.contains_key(key) || other.is_some_and(|other| after.contains_key(&other)) {
            continue;
        }
        if !is_over(key, memory, (heard, is_look, course)) {
            let memory = Memory {
                seen: Some(now),
                ..memory.clone()
            };
            after.insert(key.clone(), memory);
            continue;
        }
        if on.contains(&Kind::Recovered) {
            let (kind, address) = key.split_once(' ').unwrap_or((key, ""));
            news.push(Item {
                kind: Kind::Recovered,
                host: memory.host.clone(),
                address: address.to_owned(),
                text: format!("no longer {kind}: {}", memory.text),
                since: memory.since,
            });
        }
    }
    (news, after)
}

/// Whether the run that was heard can say that something no longer stands: it looked at the
/// host, or the host is no longer one of the fleet's. That a run is missing each run can say,
/// that nothing could be begun is over when something was.
fn is_over(key: &str, memory: &Memory, (heard, is_look, course): (&Heard, bool, Course)) -> bool {
    if memory.host.is_empty() {
        let is_refusal = key.starts_with("failed ");
        return !is_refusal || course == Course::Whole || !heard.hosts.is_empty();
    }
    let is_drift = !key.starts_with("unreachable ") && !key.starts_with("failed ");
    if is_drift && !is_look {
        return false;
    }
    match heard.hosts.get(&memory.host) {
        None => heard.has_left(&memory.host, course),
        // One that cannot be reached now is told as such; what stood there may stand still.
        Some((outcome, _)) if outcome == "ok" || outcome == "changed" => true,
        Some(_) => key.starts_with("unreachable ") && heard.hosts[&memory.host].0 != "skipped",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Mends;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).expect("a time")
    }

    fn run(ends: &[(&str, &str)], drift: &[&str], before: &Told, hour: i64) -> (Vec<String>, Told) {
        run_that_went((ends, Course::Whole), drift, before, hour)
    }

    fn run_that_went(
        (ends, course): (&[(&str, &str)], Course),
        drift: &[&str],
        before: &Told,
        hour: i64,
    ) -> (Vec<String>, Told) {
        let mut lines: Vec<serde_json::Value> = drift
            .iter()
            .map(|host| {
                json!({"type": "drift", "host": host, "address": format!("{host}/x"),
                    "status": "drifted", "title": "t", "held": null})
            })
            .collect();
        lines.extend(
            ends.iter().map(
                |(host, outcome)| json!({"type": "host_end", "host": host, "outcome": outcome}),
            ),
        );
        let heard = Heard::of(&lines);
        let open = heard.open(&OpenDrift::new(), at(hour), (Mends::Nothing, course));
        let standing = items(&heard, Some(&open), None, None, at(hour));
        let terms = (&Kind::ALL[..], SignedDuration::from_hours(24));
        let (news, after) = fresh(&standing, (&heard, true, course), before, terms, at(hour));
        let told = news
            .iter()
            .map(|item| format!("{} {}", item.kind.word(), item.address));
        (told.collect(), after)
    }

    #[test]
    fn the_same_news_is_told_once_until_it_is_over_or_time_has_passed() {
        let ends = [("a", "changed"), ("b", "unreachable")];
        let (news, told) = run(&ends, &["a"], &Told::new(), 0);
        assert_eq!(news, ["drifted a/x", "unreachable b"]);
        let (news, told) = run(&ends, &["a"], &told, 1);
        assert!(news.is_empty(), "{news:?}");
        let (news, told) = run(&ends, &["a"], &told, 24);
        assert_eq!(news, ["drifted a/x", "unreachable b"]);
        let (news, told) = run(&ends, &["a"], &told, 25);
        assert!(news.is_empty(), "{news:?}");
        let (news, told) = run(&[("a", "ok"), ("b", "ok")], &[], &told, 26);
        assert_eq!(news, ["recovered a/x", "recovered b"]);
        assert!(told.is_empty());
    }

    #[test]
    fn what_nobody_looked_at_is_not_over() {
        let (_, told) = run(&[("a", "changed")], &["a"], &Told::new(), 0);
        let (news, told) = run(&[("a", "unreachable")], &[], &told, 1);
        assert_eq!(news, ["unreachable a"]);
        assert_eq!(told.len(), 2);
        let (news, told) = run(&[], &[], &told, 2);
        assert!(
            news.is_empty(),
            "a run that was refused says nothing of hosts"
        );
        let one = (&[("b", "ok")][..], Course::Cut);
        let (news, told) = run_that_went(one, &[], &told, 3);
        assert!(news.is_empty(), "it was interrupted before it came to `a`");
        let (news, _) = run(&[("b", "ok")], &[], &told, 4);
        assert_eq!(news, ["recovered a/x", "recovered a"], "it left the fleet");
    }

    #[test]
    fn a_run_that_does_not_look_for_drift_says_nothing_of_it() {
        let (_, told) = run(&[("a", "changed")], &["a"], &Told::new(), 0);
        let heard = Heard::of(&[json!({"type": "host_end", "host": "a", "outcome": "ok"})]);
        let terms = (&Kind::ALL[..], SignedDuration::from_hours(24));
        let run = (&heard, false, Course::Whole);
        let (news, after) = fresh(&[], run, &told, terms, at(1));
        assert!(news.is_empty());
        assert!(after.keys().eq(told.keys()), "{after:?}");
        assert_eq!(after["drifted a/x"].last(), at(1), "it is still looked at");
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let heard =
            Heard::of(&[json!({"type": "host_end", "host": "a", "outcome": "rolled_back"})]);
        let standing = items(
            &heard,
            None,
            Some("2 runs".to_owned()),
            Some("no".to_owned()),
            at(0),
        );
        let kinds: Vec<Kind> = standing.iter().map(|item| item.kind).collect();
        assert_eq!(kinds, [Kind::Failed, Kind::Missed, Kind::Failed]);
        let terms = (&[Kind::Missed][..], SignedDuration::from_hours(1));
        let run = (&heard, false, Course::Cut);
        let (news, _) = fresh(&standing, run, &Told::new(), terms, at(0));
        assert_eq!(news.len(), 1);
    }

    #[test]
    fn a_host_that_was_not_done_is_news_whatever_kept_it() {
        for outcome in ["locked", "stale", "left", "stuck", "unconfirmed"] {
            let (news, told) = run(&[("a", outcome)], &[], &Told::new(), 0);
            assert_eq!(news, ["failed a"], "{outcome}");
            let (news, _) = run(&[("a", "ok")], &[], &told, 1);
            assert_eq!(news, ["recovered a"], "{outcome}");
        }
    }

    #[test]
    fn a_refusal_is_over_when_something_was_begun() {
        let heard = Heard::default();
        let standing = items(&heard, None, None, Some("no".to_owned()), at(0));
        let terms = (&Kind::ALL[..], SignedDuration::from_hours(1));
        let cut = (&heard, false, Course::Cut);
        let (_, told) = fresh(&standing, cut, &Told::new(), terms, at(0));
        let (news, told) = fresh(&[], cut, &told, terms, at(1));
        assert!(news.is_empty(), "interrupted at once: {news:?}");
        let whole = (&heard, false, Course::Whole);
        let (news, _) = fresh(&[], whole, &told, terms, at(2));
        assert_eq!(news[0].kind, Kind::Recovered);
    }
}

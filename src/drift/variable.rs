//! `gpu_drift`: the variable in which a user writes the rules of drift.

use jiff::civil::{Date, Time, Weekday};

use super::rules::{Ignored, Rules, Window};
use crate::desired::{Block, Located};
use crate::error::{Diagnostic, Problems};
use crate::value::{Loaded, Node, Vars};

/// The variable.
pub const VARIABLE: &str = "gpu_drift";

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Reads the rules of one host. What is wrong is in the findings.
#[must_use]
pub fn read(vars: &Vars) -> Loaded<Rules> {
    let mut problems = Problems::default();
    let mut block = Block::new(VARIABLE, vars.get(VARIABLE), &mut problems);
    let default = Rules::default();
    let rules = Rules {
        // More runs than these no host keeps.
        attempts: block.count("attempts", default.attempts, 1, 9).value,
        backoff_minutes: block
            .count("backoff_minutes", default.backoff_minutes, 0, 24 * 60)
            .value,
        most_hosts: block
            .count("most_hosts", default.most_hosts, 1, 10_000)
            .value,
        most_drift: block
            .count("most_drift", default.most_drift, 1, 10_000)
            .value,
        windows: windows(&mut block),
        ignore: ignored(&mut block),
    };
    block.finish();
    (rules, problems)
}

fn entries<'v>(block: &mut Block<'v, '_>, key: &'static str) -> Vec<&'v Node> {
    let Some(node) = block.node(key) else {
        return Vec::new();
    };
    match node.as_seq() {
        Some(nodes) => nodes.iter().collect(),
        None => {
            let name = block.path_of(key);
            let message = format!("`{name}` wants a list, but this is {}", node.kind());
            block
                .problems
                .push(Diagnostic::error(message).at(&node.origin));
            Vec::new()
        }
    }
}

fn windows(block: &mut Block<'_, '_>) -> Vec<Window> {
    let path = block.path_of("windows");
    let mut windows = Vec::new();
    for (index, node) in entries(block, "windows").into_iter().enumerate() {
        let mut entry = Block::new(&format!("{path}[{index}]"), Some(node), block.problems);
        let mut days = Vec::new();
        let written = entry.texts("days");
        if written.is_written() && written.value.is_empty() {
            let message = format!("`{}` lists no day", entry.path_of("days"));
            let problem = written.blame(Diagnostic::error(message));
            entry
                .problems
                .push(problem.hint("leave it out for all days"));
        }
        for day in written.value {
            match DAYS.iter().find(|(name, _)| *name == day.value) {
                Some((_, weekday)) => days.push(*weekday),
                None => {
                    let message = format!("`{}` is no day of the week", day.value);
                    let problem = day.blame(Diagnostic::error(message));
                    let names = DAYS.map(|(name, _)| name).join(", ");
                    entry
                        .problems
                        .push(problem.hint(format!("there are {names}")));
                }
            }
        }
        let from = time(&mut entry, "from");
        let to = time(&mut entry, "to");
        // Neither written is the whole day.
        let at = [&to, &from].into_iter().find(|time| time.is_written());
        if let Some(at) = at.filter(|_| from.value == to.value) {
            let message = format!("`{path}[{index}]` ends when it begins");
            let problem = at.blame(Diagnostic::error(message));
            entry
                .problems
                .push(problem.hint("leave `from` and `to` out for the whole day"));
        }
        entry.finish();
        windows.push(Window {
            days,
            from: from.value,
            to: to.value,
        });
    }
    windows
}

fn time(entry: &mut Block<'_, '_>, key: &'static str) -> Located<Time> {
    let text = entry.text(key, "00:00");
    let read = text
        .value
        .split_once(':')
        .and_then(|(hour, minute)| Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok());
    let value = read.unwrap_or_else(|| {
        let message = format!("`{}` is no time of the day", text.value);
        let problem = text.blame(Diagnostic::error(message));
        entry
            .problems
            .push(problem.hint("write hours and minutes in UTC, in quotes: \"22:30\""));
        Time::midnight()
    });
    Located {
        value,
        origin: text.origin,
    }
}

fn ignored(block: &mut Block<'_, '_>) -> Vec<Ignored> {
    let path = block.path_of("ignore");
    let mut rules = Vec::new();
    for (index, node) in entries(block, "ignore").into_iter().enumerate() {
        let mut entry = Block::new(&format!("{path}[{index}]"), Some(node), block.problems);
        let address = needed(&mut entry, "address", node);
        let reason = needed(&mut entry, "reason", node);
        let until = entry.text("until", "");
        let day = until.value.parse::<Date>().ok();
        if day.is_none() && until.is_written() {
            let message = format!("`{}` is no day", until.value);
            let problem = until.blame(Diagnostic::error(message));
            entry.problems.push(problem.hint("write it as 2026-12-31"));
        }
        entry.finish();
        rules.push(Ignored {
            address: address.value,
            reason: reason.value,
            until: day,
            origin: Some(node.origin.clone()),
        });
    }
    rules
}

fn needed(entry: &mut Block<'_, '_>, key: &'static str, node: &Node) -> Located<String> {
    let text = entry.text(key, "");
    if text.value.is_empty() {
        let message = format!("`{}` is missing", entry.path_of(key));
        let hint = "a rule has `address` (HOST/STEP-ID, with * for anything), `reason`, and `until` if it ends";
        entry
            .problems
            .push(Diagnostic::error(message).at(&node.origin).hint(hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Loaded<Rules> {
        let (node, problems) = crate::yaml::load(std::path::Path::new("v.yml"), text);
        assert!(!problems.has_errors(), "{problems}");
        let map = node
            .and_then(|node| node.as_map().cloned())
            .unwrap_or_default();
        let vars = map
            .into_iter()
            .map(|(name, entry)| (name, entry.node))
            .collect();
        read(&vars)
    }

    #[test]
    fn rules_are_read_with_all_their_parts() {
        let (rules, problems) = rules(
            "gpu_drift:\n  attempts: 2\n  most_hosts: 7\n  windows:\n    - {days: [sat], from: '22:30', to: '04:00'}\n  ignore:\n    - {address: '*/file:/etc/x', reason: a try, until: '2026-12-31'}\n",
        );
        assert_eq!(problems.to_string(), "");
        assert_eq!(
            (rules.attempts, rules.most_hosts, rules.most_drift),
            (2, 7, 20)
        );
        assert_eq!(rules.windows[0].days, [Weekday::Saturday]);
        assert_eq!(rules.windows[0].from, Time::constant(22, 30, 0, 0));
        assert_eq!(rules.ignore[0].until, Some(Date::constant(2026, 12, 31)));
    }

    #[test]
    fn a_window_that_is_open_at_no_time_is_refused_where_it_stands() {
        let told = |window: &str| {
            let text = format!("gpu_drift:\n  windows:\n    - {window}\n");
            rules(&text).1.to_string()
        };
        assert_eq!(told("{days: [sat]}"), "");
        assert_eq!(told("{from: '22:00', to: '21:00'}"), "");
        for wrong in ["{from: '22:00', to: '22:00'}", "{from: '00:00'}"] {
            let told = told(wrong);
            assert!(
                told.contains("v.yml:3:") && told.contains("ends when it begins"),
                "{told}"
            );
        }
        let told = told("{days: []}");
        assert!(
            told.contains("v.yml:3:14") && told.contains("lists no day"),
            "{told}"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let (_, problems) = rules(
            "gpu_drift:\n  attemps: 2\n  most_drift: 0\n  windows:\n    - {days: [someday], from: 25:00}\n  ignore:\n    - {until: soon}\n",
        );
        let said: Vec<String> = problems
            .0
            .iter()
            .map(|found| found.message.clone())
            .collect();
        for wanted in [
            "attemps",
            "most_drift",
            "someday",
            "from",
            "soon",
            "address",
            "reason",
        ] {
            assert!(
                said.iter().any(|line| line.contains(wanted)),
                "{wanted}: {said:?}"
            );
        }
        assert!(problems.0.iter().all(|found| found.origin.is_some()));
    }
}

//! `deploy runs`: what a host keeps of its runs, as text and as JSON.
//!
//! Makes text only; the verb reads the hosts and hands the text to `report`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::apply::journal::{Entry, What};
use crate::apply::manifest::ManifestStep;
use crate::apply::runs::{HostRuns, RunRecord, Status};
use crate::report::guard_line;
use crate::report::line::{Kind, Line};
use crate::text::{moment, printable, printable_line};
use crate::value::HostName;

/// Most characters of one line from a host.
const LINE: usize = 200;
/// Most characters of one column.
const CELL: usize = 80;
/// Most characters of what a step said.
const MESSAGE: usize = 4000;

/// The runs of several hosts, a line each, newest first, in columns.
#[must_use]
pub fn list_text(hosts: &[(HostName, HostRuns)]) -> String {
    let rows: Vec<(usize, [String; 5], String)> = hosts
        .iter()
        .enumerate()
        .flat_map(|(at, (_, found))| found.runs.iter().map(move |run| (at, found, run)))
        .map(|(at, found, run)| (at, cells(run), remarks(found, run)))
        .collect();
    let width = |column: usize| {
        let widths = rows
            .iter()
            .map(|(_, cells, _)| cells[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for (at, (host, found)) in hosts.iter().enumerate() {
        let _ = writeln!(text, "{host}");
        if let Some(owner) = &found.lock {
            let _ = writeln!(text, "  locked: {}", printable_line(owner, LINE));
        }
        if found.read_only {
            let _ = writeln!(
                text,
                "  nothing can be written to {} now: no run can begin, and one that is open is undone only when that is possible again",
                crate::apply::STATE_DIR
            );
        }
        if found.runs.is_empty() {
            text.push_str("  no run is kept here\n");
        }
        for (_, cells, remarks) in rows.iter().filter(|(of, ..)| *of == at) {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let _ = write!(line, "  {cell:<width$}");
            }
            let _ = writeln!(text, "{}", format!("{line}{remarks}").trim_end());
        }
    }
    text
}

/// The columns of a run: id, status, start, who, how many steps.
fn cells(run: &RunRecord) -> [String; 5] {
    let manifest = &run.manifest;
    let who = format!("{} from {}", manifest.who, manifest.from);
    [
        manifest.run.clone(),
        run.status.word().to_owned(),
        moment(manifest.started),
        who,
        steps(manifest.steps.len()),
    ]
    .map(|cell| printable_line(&cell, CELL))
}

/// What stands behind the columns.
fn remarks(found: &HostRuns, run: &RunRecord) -> String {
    let is_current = found.current.is_some() && found.current == run.id();
    match &run.status {
        Status::Unconfirmed { undo_at: Some(at) } => {
            format!("  (undone at {} unless confirmed)", moment(*at))
        }
        _ if is_current => "  (last applied)".to_owned(),
        _ => String::new(),
    }
}

fn steps(count: usize) -> String {
    match count {
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    }
}

/// One run, explained from its journal.
#[must_use]
pub fn show_text(host: &HostName, run: &RunRecord) -> String {
    let manifest = &run.manifest;
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", printable(&line, MESSAGE));
    };
    line(format!("{host}: run {} {}", manifest.run, run.status));
    line(format!(
        "  started {} by {} from {}, {}",
        moment(manifest.started),
        manifest.who,
        manifest.from,
        steps(manifest.steps.len()),
    ));
    line(format!("  {}", meaning(&run.status, &manifest.run)));
    if let (true, Some(guard)) = (run.status.is_open(), &manifest.guard) {
        line(format!("  {}", guard_line(guard)));
    }
    for (at, entry) in run.journal.iter().enumerate() {
        if let Some(told) = told(run, at) {
            // What a step said goes below its line, indented like it.
            line(format!(
                "  {}  {}",
                time(entry),
                told.replace('\n', "\n    ")
            ));
        }
    }
    let left: Vec<&ManifestStep> = manifest
        .steps
        .iter()
        .filter(|step| !run.journal.iter().any(|entry| entry.step == step.directory))
        .collect();
    if !left.is_empty() && !run.journal.is_empty() {
        line(match run.status {
            Status::InProgress | Status::Rebooting => "  still to come:".to_owned(),
            _ => "  not reached:".to_owned(),
        });
        for step in left {
            line(format!("    {}", step.title));
        }
    }
    text
}

/// What a status says about the host.
fn meaning(status: &Status, run: &str) -> String {
    match status {
        Status::InProgress => "the host is at it now".to_owned(),
        Status::Rebooting => {
            "the host restarts and goes on with it by itself afterwards".to_owned()
        }
        Status::Unconfirmed { .. } => format!(
            "all of it was made, and the host undoes it unless it is confirmed: `deploy runs confirm {run}` keeps it, `deploy runs undo {run}` undoes it now, `deploy runs extend {run} --by 10m` gives more time"
        ),
        Status::Interrupted => format!(
            "its runner was ended from outside; the host may be between before and after: `deploy runs undo {run}` undoes what was begun"
        ),
        Status::NotBegun => "it ended before anything was changed".to_owned(),
        Status::Stale => "the host was no longer as planned; nothing was changed".to_owned(),
        Status::Failed => {
            "what is there could not be kept for an undo; nothing was changed".to_owned()
        }
        Status::Done => "all of it was made and read back".to_owned(),
        Status::Undone => "it was not kept; everything is as it was before".to_owned(),
        Status::UndoFailed => format!(
            "some of it could not be undone; what was before is kept in {}/runs/{run}/snapshot, and `deploy runs undo {run}` tries again",
            crate::apply::STATE_DIR
        ),
        Status::RolledBack => "it was undone on request; everything is as it was before".to_owned(),
        Status::Other(word) => format!("its status `{word}` is not known to this version"),
    }
}

/// When an entry was written; what is no time stays as the host has it.
fn time(entry: &Entry) -> String {
    match entry.time.parse() {
        Ok(at) => moment(at),
        Err(_) => entry.time.clone(),
    }
}

/// An entry as a sentence. The beginnings of steps are told by their ends, but for one
/// that has none.
fn told(run: &RunRecord, at: usize) -> Option<String> {
    let (manifest, entry) = (&run.manifest, &run.journal[at]);
    let has_end = || {
        let later = &run.journal[at + 1..];
        later.iter().any(|later| later.step == entry.step)
    };
    match entry.what {
        What::Apply | What::Undo if has_end() => None,
        What::Apply | What::Undo => Some(unended(run, entry)),
        What::Start => Some(format!("started: {}", entry.detail)),
        What::End => Some(format!("ended: {}", Status::ended(&entry.detail))),
        _ => Some(manifest.sentence(entry)),
    }
}

/// A step that was begun and has not ended.
fn unended(run: &RunRecord, entry: &Entry) -> String {
    let step = run.manifest.step(&entry.step);
    let title = step.map_or(entry.step.as_str(), |step| step.title.as_str());
    let what = match (&run.status, entry.what) {
        (Status::Rebooting, _) => "is at work: the host restarts",
        (Status::InProgress, What::Undo) => "is being undone now",
        (Status::InProgress, _) => "is at work now",
        (_, What::Undo) => "was being undone when the run was broken off",
        _ => "was at work when the run was broken off",
    };
    format!("`{title}` {what}")
}

/// The runs of one host as objects of type `host_run`, one a run.
#[must_use]
pub fn objects(host: &HostName, found: &HostRuns) -> Vec<Line> {
    let object = |run: &RunRecord| {
        let manifest = &run.manifest;
        let mut object = json!({
            "host": host.as_str(),
            "run": manifest.run,
            "status": status_word(&run.status),
            "current": found.current.is_some() && found.current == run.id(),
            "who": manifest.who,
            "from": manifest.from,
            "started": manifest.started,
            "steps": manifest.steps.iter().map(|step| json!({
                "step": step.id,
                "task": step.task,
                "title": step.title,
                "class": step.class,
                "change": step.change,
            })).collect::<Vec<_>>(),
        });
        match &run.status {
            Status::Unconfirmed { undo_at } => object["undo_at"] = json!(undo_at),
            Status::Other(word) => object["status_word"] = json!(word),
            _ => {}
        }
        if let Some(guard) = &manifest.guard {
            object["guard"] = json!(guard);
        }
        if !run.journal.is_empty() {
            let entry = |entry: &Entry| {
                json!({
                    "time": entry.time,
                    "event": word(&entry.what),
                    "step": manifest.step(&entry.step).map(|step| &step.id),
                    "detail": entry.detail,
                })
            };
            object["journal"] = run.journal.iter().map(entry).collect();
        }
        Line::new(Kind::HostRun, object)
    };
    found.runs.iter().map(object).collect()
}

/// A status as JSON has it: one word.
fn status_word(status: &Status) -> Value {
    match status {
        Status::Unconfirmed { .. } => json!("unconfirmed"),
        Status::Other(_) => json!("unknown"),
        status => word(status),
    }
}

/// A word of the host's as all words of JSON output are written.
fn word(of: &impl serde::Serialize) -> Value {
    let word = json!(of);
    word.as_str().unwrap_or_default().replace('-', "_").into()
}

/// A run of two files, for tests of this room.
#[cfg(test)]
pub(super) fn record(status: Status, journal: &str) -> RunRecord {
    use crate::apply::journal;
    use crate::apply::manifest::{self, Manifest};
    use crate::step::{Change, Class, StepId};

    RunRecord {
        manifest: Manifest {
            version: 1,
            run: "20261122T210000Z-000001".to_owned(),
            host: "gpu01".to_owned(),
            who: "ada".to_owned(),
            from: "desk".to_owned(),
            started: "2026-11-22T21:00:00Z".parse().expect("a time"),
            steps: ["a", "b"]
                .map(|name| ManifestStep {
                    directory: format!("001-{name}"),
                    id: StepId(name.to_owned()),
                    task: "t".to_owned(),
                    title: format!("write /etc/{name}"),
                    class: Class::Safe,
                    change: Change::Action {
                        what: "x".to_owned(),
                    },
                    timeout_s: 30,
                })
                .into(),
            guard: None,
            purpose: manifest::Purpose::Applying,
            notes: Vec::new(),
            overridden: Vec::new(),
        },
        status,
        journal: journal::parse(journal.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::RunId;
    #[test]
    fn a_failed_run_is_explained() {
        let run = record(
            Status::Undone,
            "2026-11-22T21:00:01Z start - run by ada\n\
             2026-11-22T21:00:02Z apply 001-a \n\
             2026-11-22T21:00:03Z apply-failed 001-a cp: no room\\n\u{1b}[31mred\n\
             2026-11-22T21:00:04Z undo 001-a \n\
             2026-11-22T21:00:05Z undone 001-a \n\
             2026-11-22T21:00:06Z end - undone\n",
        );
        insta::assert_snapshot!(show_text(&HostName::from("gpu01"), &run));
    }

    #[test]
    fn the_step_that_is_at_work_is_told() {
        let host = HostName::from("gpu01");
        let shown = |status, journal| show_text(&host, &record(status, journal));
        let begun = "2026-11-22T21:00:01Z start - run by ada\n\
             2026-11-22T21:00:02Z apply 001-a \n";
        let text = shown(Status::InProgress, begun);
        assert!(
            text.contains("2026-11-22 21:00:02 UTC  `write /etc/a` is at work now"),
            "{text}"
        );
        assert!(
            text.contains("  still to come:\n    write /etc/b\n"),
            "{text}"
        );
        let text = shown(Status::Interrupted, begun);
        assert!(text.contains("`write /etc/a` was at work when"), "{text}");
        let undoing = format!(
            "{begun}2026-11-22T21:00:03Z apply-failed 001-a no\n2026-11-22T21:00:04Z undo 001-a \n"
        );
        let text = shown(Status::InProgress, &undoing);
        assert!(
            text.contains("`write /etc/a` is being undone now"),
            "{text}"
        );
        assert!(!text.contains("is at work now"), "{text}");
    }

    #[test]
    fn runs_are_listed_a_line_each() {
        let runs = HostRuns {
            lock: Some("run x by bob".to_owned()),
            read_only: false,
            current: RunId::parse("20261122T210000Z-000001"),
            runs: vec![record(Status::Done, ""), record(Status::Interrupted, "")],
        };
        let host = HostName::from("gpu01");
        let unconfirmed = Status::Unconfirmed {
            undo_at: "2026-11-22T21:06:00Z".parse().ok(),
        };
        let others = HostRuns {
            lock: None,
            read_only: false,
            current: None,
            runs: vec![record(unconfirmed, ""), record(Status::Rebooting, "")],
        };
        let all = [
            (host.clone(), runs.clone()),
            (HostName::from("gpu02"), others),
        ];
        insta::assert_snapshot!(list_text(&all));
        let objects = objects(&host, &runs);
        assert_eq!(objects[0].value()["status"], "done");
        assert_eq!(objects[0].value()["steps"][1]["step"], "b");
        assert_eq!(objects[0].value().get("journal"), None);
    }

    #[test]
    fn an_unconfirmed_run_says_when_it_is_undone_and_what_to_do() {
        let undo_at = "2026-11-22T21:06:00Z".parse().ok();
        let run = record(Status::Unconfirmed { undo_at }, "");
        let host = HostName::from("gpu01");
        let text = show_text(&host, &run);
        for part in [
            "unconfirmed, undone at 2026-11-22 21:06:00 UTC",
            "`deploy runs confirm 20261122T210000Z-000001` keeps it",
            "`deploy runs undo 20261122T210000Z-000001`",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let runs = HostRuns {
            lock: None,
            read_only: false,
            current: None,
            runs: vec![run, record(Status::Rebooting, "")],
        };
        let objects = objects(&host, &runs);
        assert_eq!(objects[0].value()["status"], "unconfirmed");
        assert_eq!(objects[0].value()["undo_at"], "2026-11-22T21:06:00Z");
        assert_eq!(objects[1].value()["status"], "rebooting");
    }
}

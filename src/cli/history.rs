//! `deploy history`: the runs that were made from this machine, and what one of them told.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::cli::args::{Format, HistoryArgs, HistoryVerb, HistoryVerbArgs};
use crate::cli::{Failure, record};
use crate::error::{Diagnostic, Problems};
use crate::history::{Kept, State, Store};
use crate::report::exit::{CheckMode, Exit};
use crate::report::line::{Kind, Line};
use crate::report::{self, Plans, Reporter, json, replay};
use crate::text::{moment, printable_line, span};

/// Most characters of one line about a run.
const LINE: usize = 1000;

/// Runs `deploy history`.
///
/// # Errors
/// There is no history, or no such run in it.
pub(super) fn run(args: &HistoryVerbArgs) -> Result<Exit, Failure> {
    match &args.verb {
        None => list(&args.list),
        Some(HistoryVerb::List(args)) => list(args),
        Some(HistoryVerb::Show { id, args }) => show(id, args),
    }
}

/// The runs that are kept, newest first.
///
/// # Errors
/// There is no history, or it cannot be read.
pub(super) fn kept(given: Option<&Path>) -> Result<Vec<Kept>, Diagnostic> {
    let folder = record::folder(given)
        .map_err(|why| Diagnostic::error(format!("where the history lies is not known: {why}")))?;
    let Some(folder) = folder else {
        return Err(Diagnostic::error("no history is kept")
            .hint("it was said to be `none`: `--history DIR` says where one lies"));
    };
    let store = Store::at(folder);
    store.runs().map_err(|error| {
        let place = store.folder().display();
        Diagnostic::error(format!("the history in {place} cannot be read: {error}"))
    })
}

fn list(args: &HistoryArgs) -> Result<Exit, Failure> {
    let mut text = String::new();
    let mut objects = Vec::new();
    for run in kept(args.history.as_deref())? {
        let lines = match &args.host {
            None => Vec::new(),
            Some(host) => {
                let about = lines(&run, |line| line["host"] == host.as_str())?;
                match about.filter(|about| !about.is_empty()) {
                    Some(about) => about,
                    None => continue,
                }
            }
        };
        match args.output.output {
            Format::Human => {
                text += &row(&run);
                text += &happened(&lines);
            }
            Format::Json => objects.push(object(&run, args.host.as_deref(), &lines)),
        }
    }
    match args.output.output {
        Format::Json => {
            objects.extend(report::end_lines(&Problems::default(), Exit::Done));
            report::json_lines(&objects);
        }
        Format::Human if text.is_empty() => report::talk(match &args.host {
            Some(_) => "no run that is kept tells of this host\n",
            None => "no run is kept\n",
        }),
        Format::Human => report::data(&text),
    }
    Ok(Exit::Done)
}

/// What a run told, as far as it is asked for; none where another process has removed the run
/// since it was listed, as each run does with those that are too old.
///
/// # Errors
/// It cannot be read.
pub(super) fn lines(
    run: &Kept,
    is_asked_for: impl Fn(&Json) -> bool,
) -> Result<Option<Vec<Json>>, Diagnostic> {
    let mut lines = Vec::new();
    let read = run.lines(|line| {
        if is_asked_for(&line) {
            lines.push(line);
        }
    });
    match read {
        Ok(()) => Ok(Some(lines)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let id = &run.entry.begun.id;
            let message = format!("what run {id} told cannot be read: {error}");
            Err(Diagnostic::error(message))
        }
    }
}

/// A run in a line: name, time, how long, how it ended, what was asked for.
fn row(run: &Kept) -> String {
    let begun = &run.entry.begun;
    let end = match (&run.entry.ended, run.state) {
        (Some(ended), _) => {
            let seconds = ended.at.as_second() - begun.started.as_second();
            let seconds = u64::try_from(seconds).unwrap_or_default();
            format!("{}  {}", span(seconds), sums(&ended.summary))
        }
        (None, state) => state.word().to_owned(),
    };
    let line = format!(
        "{}  {}  {end}  {}",
        begun.id,
        moment(begun.started),
        begun.asked.words()
    );
    format!("{}\n", printable_line(&line, LINE))
}

/// `exit 2, hosts=20 drifted=3`: what is not zero.
fn sums(summary: &Json) -> String {
    let mut text = format!("exit {}", summary["exit"]);
    let counts = summary.as_object().into_iter().flatten();
    for (name, count) in counts {
        let count = count.as_u64().unwrap_or_default();
        if count > 0 && name != "exit" && name != "version" {
            let _ = write!(text, " {}={count}", name.replace('_', "-"));
        }
    }
    text
}

/// What happened to a host in a run: what drifted, what was done, how it ended.
fn happened(lines: &[Json]) -> String {
    let text = |line: &Json, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let word = |line: &Json, key: &str| text(line, key).replace('_', " ");
    let title_of = |step: &Json| {
        let of_step = |line: &&Json| line["type"] == "planned_change" && line["step"] == *step;
        let planned = lines.iter().find(of_step);
        planned.map_or_else(
            || step.as_str().unwrap_or_default().to_owned(),
            |line| text(line, "title"),
        )
    };
    let mut told = String::new();
    for line in lines {
        let said = match line["type"].as_str() {
            Some("drift") => format!("{}: {}", word(line, "status"), text(line, "title")),
            Some("step_end") => {
                format!("{}: {}", word(line, "outcome"), title_of(&line["step"]))
            }
            Some("host_end") => {
                let why = line["problem"]["message"].as_str();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                format!("{}{why}", word(line, "outcome"))
            }
            _ => continue,
        };
        let _ = writeln!(told, "    {}", printable_line(&said, LINE));
    }
    told
}

/// A run as a line of type `history_entry`.
fn object(run: &Kept, host: Option<&str>, lines: &[Json]) -> Line {
    let begun = &run.entry.begun;
    let ended = run.entry.ended.as_ref();
    let mut object = json!({
        "run": begun.id,
        "state": run.state.word().replace(' ', "_"),
        "verb": begun.asked.verb,
        "asked": begun.asked,
        "command": begun.asked.words(),
        "tool": begun.tool,
        "who": begun.who,
        "from": begun.from,
        "started": begun.started,
        "every": begun.every,
        "ended": ended.map(|ended| ended.at),
        "exit": ended.and_then(crate::history::Ended::exit),
    });
    if let Some(host) = host {
        let end = lines.iter().rev().find(|line| line["type"] == "host_end");
        object["host"] = json!(host);
        object["outcome"] = end.map_or(Json::Null, |end| end["outcome"].clone());
    }
    Line::new(Kind::HistoryEntry, object)
}

/// Tells one run again.
fn show(id: &str, args: &HistoryArgs) -> Result<Exit, Failure> {
    let runs = kept(args.history.as_deref())?;
    let run = pick(&runs, id)?;
    let of_host = args.host.as_deref();
    let is_asked_for =
        |line: &Json| line["host"].is_null() || of_host.is_none_or(|host| line["host"] == host);
    let Some(mut lines) = lines(run, is_asked_for)? else {
        return Err(unknown(id).into());
    };
    let sums_told = lines.pop_if(|line| line["type"] == "summary");
    if args.output.output == Format::Json {
        let mut objects = vec![object(run, args.host.as_deref(), &lines)];
        let not_begun = sums_told.map_or(json!([]), |sums| sums["not_begun"].clone());
        // It is shown, and that has gone well; how the run ended stands above.
        let sums = json::summary_of(&lines, &not_begun, Exit::Done);
        objects.extend(lines.into_iter().filter_map(Line::kept));
        objects.push(sums);
        report::json_lines(&objects);
        return Ok(Exit::Done);
    }
    let begun = &run.entry.begun;
    let mut head = row(run);
    let _ = writeln!(
        head,
        "by {} from {}, deploy {}",
        printable_line(&begun.who, LINE),
        printable_line(&begun.from, LINE),
        printable_line(&begun.tool, LINE)
    );
    if run.state == State::Interrupted {
        head += "its process was killed, or its machine went down: `deploy runs` tells what it has begun on hosts\n";
    }
    report::data(&(head + "\n"));
    let check = match begun.asked.changes() {
        true => CheckMode::Off,
        false => CheckMode::On,
    };
    let mut reporter = Reporter::human(check, Plans::Together, args.output.verbose > 0);
    for event in replay::events(&lines) {
        reporter.event(&event);
    }
    Ok(reporter.finish_shown())
}

/// The run of a name, or of the beginning of one.
fn pick<'a>(runs: &'a [Kept], id: &str) -> Result<&'a Kept, Diagnostic> {
    let named = |run: &&Kept| run.entry.begun.id.as_str() == id;
    if let Some(run) = runs.iter().find(named) {
        return Ok(run);
    }
    let begins = |run: &&Kept| !id.is_empty() && run.entry.begun.id.as_str().starts_with(id);
    let mut found = runs.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        (Some(_), Some(_)) => Err(Diagnostic::error(format!(
            "more than one run begins with `{id}`"
        ))
        .hint("`deploy history` lists them")),
        (None, _) => Err(unknown(id)),
    }
}

fn unknown(id: &str) -> Diagnostic {
    Diagnostic::error(format!("the history has no run `{id}`")).hint(
        "`deploy history` lists those that were made from here, `deploy runs` what hosts keep",
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::history::{Asked, Begun, EntryId};

    #[test]
    fn a_run_that_is_removed_after_it_was_listed_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let id = "20261122T210500Z-3f9a1c";
        let begun = Begun {
            id: EntryId::parse(id).expect("a name"),
            tool: String::new(),
            asked: Asked::default(),
            who: String::new(),
            from: String::new(),
            started: Timestamp::UNIX_EPOCH,
            every: None,
        };
        drop(store.begin(begun).expect("it begins"));
        let runs = store.runs().expect("it is readable");
        assert_eq!(lines(&runs[0], |_| true).expect("lines"), Some(Vec::new()));
        std::fs::remove_dir_all(folder.path().join(id)).expect("ours");
        assert_eq!(lines(&runs[0], |_| true).expect("no error"), None);
    }
}

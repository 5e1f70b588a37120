//! What is kept of a run while it is at work, and done about it when it has ended.
//!
//! The history is no part of the run: what cannot be written is a warning, once, and the run
//! goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::apply::RunId;
use crate::cli::args::{KeepArgs, Verb};
use crate::cli::asked::asked;
use crate::cli::metrics;
use crate::cli::notifying::{Notify, Over};
use crate::cli::play::chance;
use crate::cli::reach;
use crate::error::{Diagnostic, Problems, Severity};
use crate::event::Event;
use crate::history::{
    Begun, Course, Ended, EntryId, Found, Heard, Kept, Missed, OpenDrift, Store, Writer, missed,
};
use crate::report::exit::Exit;
use crate::report::run_metrics::{self, Drift, Figures};
use crate::report::{self, Keeper, Reporter};
use crate::schedule::Every;
use crate::text::{moment, span};

/// The word for no history.
const NONE: &str = "none";

/// For how long a message holds up somebody at most who has interrupted the run.
const INTERRUPTED: Duration = Duration::from_secs(5);

/// The record of one run.
#[derive(Debug, Clone)]
pub(super) struct Record(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    run: RunId,
    /// What is known of a run that is kept.
    begun: Option<Begun>,
    store: Option<Store>,
    writer: Option<Writer>,
    missed: Option<Missed>,
    /// The sums, once they were told; nothing is kept after them.
    summary: Option<Json>,
    /// What was said of hosts.
    heard: Heard,
    /// The first error that was told of no host.
    error: Option<String>,
    textfile: Option<PathBuf>,
    notify: Option<Notify>,
    /// What is wrong with the file of `--notify`.
    problems: Problems,
}

impl Record {
    /// Begins the record of what a verb does; of most verbs nothing is kept.
    pub(super) fn begin(verb: &Verb) -> Self {
        let started = Timestamp::now();
        let run = RunId::new(started, chance());
        let mut inner = Inner {
            run: run.clone(),
            begun: None,
            store: None,
            writer: None,
            missed: None,
            summary: None,
            heard: Heard::default(),
            error: None,
            textfile: None,
            notify: None,
            problems: Problems::default(),
        };
        if let Some((asked, keep)) = asked(verb)
            && let Some(id) = EntryId::parse(run.as_str())
        {
            let begun = Begun {
                id,
                tool: env!("CARGO_PKG_VERSION").to_owned(),
                asked,
                who: reach::who(),
                from: reach::from(),
                started,
                every: keep.every.map(Every::seconds),
            };
            inner.begin(begun, &keep);
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a run is called that this command makes on hosts: as its history is.
    pub(super) fn run_id(&self) -> RunId {
        self.lock().run.clone()
    }

    /// The reporter, of which all is kept; it tells first what is known before the run.
    pub(super) fn hears(&self, reporter: Reporter) -> Reporter {
        let mut reporter = reporter.heard_by(Box::new(self.clone()));
        let inner = self.lock();
        let every = inner.begun.as_ref().and_then(|begun| begun.every);
        if let (Some(missed), Some(every)) = (inner.missed, every) {
            drop(inner);
            reporter.event(&Event::Diagnostics(told(missed, every).into()));
        }
        reporter
    }

    /// Why the command must not begin.
    pub(super) fn refusal(&self) -> Option<Problems> {
        let problems = self.lock().problems.clone();
        problems.has_errors().then_some(problems)
    }

    /// The command ended before any host: keeps why.
    pub(super) fn refused(&self, problems: &Problems, exit: Exit) {
        for line in report::end_lines(problems, exit) {
            self.lock().keep(line.value(), &line.text());
        }
    }

    /// The command has ended.
    pub(super) fn close(&self, exit: Exit) {
        if self.lock().summary.is_none() {
            self.refused(&Problems::default(), exit);
        }
        self.lock().close();
    }
}

impl Keeper for Record {
    fn hear(&mut self, object: &Json, line: &str) {
        self.lock().keep(object, line);
    }
}

impl Inner {
    fn begin(&mut self, begun: Begun, keep: &KeepArgs) {
        self.begun = Some(begun.clone());
        self.textfile.clone_from(&keep.textfile);
        match keep.notify.as_deref().map(Notify::load).transpose() {
            Ok(notify) => self.notify = notify,
            Err(problems) => self.problems = problems,
        }
        let store = match folder(keep.history.as_deref()) {
            Ok(folder) => folder.map(Store::at),
            Err(why) => return warn(&why, None),
        };
        let Some(store) = store else { return };
        if let Some(every) = begun.every {
            let runs = store.runs().unwrap_or_default();
            let began = runs
                .iter()
                .map(|kept| &kept.entry.begun)
                .filter(|old| old.every.is_some() && old.asked.is_same_job(&begun.asked))
                .map(|old| old.started);
            self.missed = missed(begun.started, every, began);
        }
        match store.begin(begun) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => warn(&error.to_string(), Some(store.folder())),
        }
        self.store = Some(store);
    }

    fn keep(&mut self, object: &Json, line: &str) {
        if self.summary.is_some() {
            return;
        }
        if object["type"] == "summary" {
            self.summary = Some(object.clone());
        }
        self.heard.line(object);
        if object["type"] == "diagnostic" && object["severity"] == "error" && self.error.is_none() {
            self.error = object["message"].as_str().map(str::to_owned);
        }
        let Some(writer) = &mut self.writer else {
            return;
        };
        if let Err(error) = writer.line(line) {
            warn(&error.to_string(), self.store.as_ref().map(Store::folder));
            self.writer = None;
        }
    }

    fn close(&mut self) {
        let Some(begun) = self.begun.clone() else {
            return;
        };
        let now = Timestamp::now();
        let ended = Ended {
            at: now,
            summary: self.summary.clone().unwrap_or_default(),
        };
        let course = course(&ended);
        let open = (begun.asked.verb == "drift").then(|| self.open(&begun, course));
        let open = open.as_ref();
        if let Some(file) = &self.textfile
            && let Err(problem) = metrics::write(file, &self.metrics(&begun, &ended, open, file))
        {
            report::problems(&as_warning(problem).into());
        }
        let written = match self.writer.take() {
            Some(writer) => writer.end(ended.clone(), open),
            None => Ok(()),
        };
        let pruned = match &self.store {
            Some(store) => store.prune(now),
            None => Ok(()),
        };
        if let Err(error) = written.and(pruned) {
            warn(&error.to_string(), self.store.as_ref().map(Store::folder));
        }
        self.notify(&begun, &ended, (open, course));
    }

    fn notify(&self, begun: &Begun, ended: &Ended, (open, course): (Option<&OpenDrift>, Course)) {
        let Some(notify) = &self.notify else { return };
        let every = begun.every.unwrap_or_default();
        let missed = self.missed.map(|missed| told(missed, every).message);
        let well = [Exit::Done, Exit::ChangesFound, Exit::Interrupted].map(Exit::code);
        let is_well = ended.exit().is_none_or(|exit| well.contains(&exit));
        let refused = match (is_well, self.heard.hosts.is_empty()) {
            (false, true) => Some(self.error.as_deref().unwrap_or("nothing could be begun")),
            _ => None,
        };
        let run = Over {
            begun,
            ended,
            heard: &self.heard,
            course,
            open,
            most: match ended.exit() == Some(Exit::Interrupted.code()) {
                true => INTERRUPTED,
                false => Duration::MAX,
            },
            missed: missed.as_deref(),
            refused,
        };
        notify.tell(run, self.store.as_ref());
    }

    /// The drift that is open after this look.
    fn open(&self, begun: &Begun, course: Course) -> OpenDrift {
        let runs = self.store.as_ref().map(Store::runs);
        let runs = runs.and_then(Result::ok).unwrap_or_default();
        // A run that was killed before it said what is open says nothing of it.
        let before = runs
            .iter()
            .filter(|kept| kept.entry.begun.asked.is_same_watch(&begun.asked))
            .find_map(Kept::open);
        let before = before.unwrap_or_default();
        self.heard
            .open(&before, begun.started, (begun.asked.mends(), course))
    }

    fn metrics(
        &self,
        begun: &Begun,
        ended: &Ended,
        open: Option<&OpenDrift>,
        file: &Path,
    ) -> String {
        let found = &self.heard.found;
        let count = |is: &dyn Fn(&Found) -> bool| {
            let count = found.iter().filter(|found| is(found)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let is = |word: &'static str| move |found: &Found| found.status == word;
        let drift = Drift {
            counts: [
                count(&Found::is_drifted),
                count(&is("flapping")),
                count(&|found| found.counts() && found.status.contains("pending")),
                count(&|found| found.counts() && found.held.is_some()),
                count(&is("ignored")),
            ],
            oldest: (open.into_iter().flatten())
                .map(|(_, open)| open)
                .filter(|open| open.is_drifted())
                .map(|open| open.since)
                .min(),
        };
        let missed = self.missed.map_or(0, |missed| missed.count);
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        run_metrics::text(&Figures {
            name: &name,
            verb: &begun.asked.verb,
            started: begun.started,
            ended: ended.at,
            summary: &ended.summary,
            schedule: begun.every.map(|every| (every, missed)),
            drift: (begun.asked.verb == "drift").then_some(drift),
        })
    }
}

/// Whether a run went through all its hosts, by how it ended.
fn course(ended: &Ended) -> Course {
    let whole = [
        Exit::Done,
        Exit::ChangesFound,
        Exit::SomeFailed,
        Exit::SomeUnreachable,
    ];
    let whole = whole.map(Exit::code);
    let all_begun = ended.summary["not_begun"]
        .as_array()
        .is_none_or(Vec::is_empty);
    match ended.exit().is_some_and(|exit| whole.contains(&exit)) && all_begun {
        true => Course::Whole,
        false => Course::Cut,
    }
}

/// What went wrong beside the run is no error of it.
fn as_warning(mut problem: Diagnostic) -> Diagnostic {
    problem.severity = Severity::Warning;
    problem
}

/// What is said of runs that are missing.
fn told(missed: Missed, every: u32) -> Diagnostic {
    let runs = match missed.count {
        1 => "1 run of this schedule is missing".to_owned(),
        count => format!("{count} runs of this schedule are missing"),
    };
    Diagnostic::warning(format!(
        "{runs}: the last one began at {}, and one is due each {}",
        moment(missed.last),
        span(every.into())
    ))
    .hint("the machine or its timer was off, or the run before took longer than that")
}

/// Warns that the history lacks this run.
fn warn(why: &str, folder: Option<&Path>) {
    let place = folder.map(|folder| format!(" in {}", folder.display()));
    let message = format!(
        "the history of this run cannot be kept{}: {why}",
        place.unwrap_or_default()
    );
    let hint = "`--history DIR` keeps it elsewhere, `--history none` keeps none";
    report::problems(&Diagnostic::warning(message).hint(hint).into());
}

/// Where the history lies; none where none is wanted.
///
/// # Errors
/// Nothing says where.
pub(super) fn folder(given: Option<&Path>) -> Result<Option<PathBuf>, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let given = match given {
        Some(path) => Some(path.to_owned()),
        None => set("DEPLOY_HISTORY").map(PathBuf::from),
    };
    if let Some(path) = given {
        return Ok((path.as_os_str() != NONE).then_some(path));
    }
    if let Some(folders) = set("STATE_DIRECTORY") {
        // systemd names all of a unit, with colons between; ours has one.
        let folders = std::env::split_paths(&folders).next();
        return Ok(folders.map(|folder| folder.join("history")));
    }
    let state = match set("XDG_STATE_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => match set("HOME") {
            Some(home) => PathBuf::from(home).join(".local/state"),
            None => return Err("neither HOME nor XDG_STATE_HOME is set".to_owned()),
        },
    };
    Ok(Some(state.join("deploy/history")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::Finding;
    use crate::event::{HostProblem, Outcome};
    use crate::report::json;
    use crate::step::{Change, Class, StepId};
    use crate::value::HostName;

    /// The history takes keys of lines by their names: they are those that are printed.
    #[test]
    fn the_history_understands_the_lines_that_are_printed() {
        let host = HostName::from("a");
        let reboot = || Change::Reboot {
            why: vec!["it must".to_owned()],
        };
        let finding = |step: &str, ignored: Option<&str>, held: Option<&str>| Finding {
            step: StepId(step.to_owned()),
            title: "write it".to_owned(),
            class: Class::Safe,
            drift: Some(reboot()),
            pending: Some(reboot()),
            lines: Vec::new(),
            ignored: ignored.map(str::to_owned),
            who: Vec::new(),
            mended: 0,
            flapping: false,
            held: held.map(str::to_owned),
        };
        let findings = vec![
            finding("x", None, Some("window")),
            finding("y", Some("known"), None),
        ];
        let problem = HostProblem::Failed {
            step: None,
            chain: vec!["no".to_owned(), "way".to_owned()],
            hint: None,
        };
        let events = [
            Event::Drift {
                host: host.clone(),
                last: None,
                findings: Arc::new(findings),
            },
            Event::HostEnd {
                host,
                outcome: Outcome::Failed,
                problem: Some(problem),
            },
        ];
        let lines = events.iter().flat_map(json::objects);
        let lines: Vec<Json> = lines.map(|line| line.value().clone()).collect();
        let heard = Heard::of(&lines);
        let end = ("failed".to_owned(), "no: way".to_owned());
        assert_eq!(heard.hosts["a"], end);
        let seen: Vec<_> = heard
            .found
            .iter()
            .map(|found| {
                (
                    found.address.as_str(),
                    found.status.as_str(),
                    found.held.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a/x", "drifted_and_pending", Some("window")),
                ("a/y", "ignored", None)
            ]
        );
        assert_eq!(heard.found[0].title, "write it");
        for outcome in json::OUTCOMES {
            let event = Event::HostEnd {
                host: HostName::from("b"),
                outcome,
                problem: None,
            };
            let line = json::objects(&event)[0].value().clone();
            assert_eq!(Heard::of(&[line]).hosts["b"].0, json::outcome_word(outcome));
        }
    }

    #[test]
    fn a_run_that_was_cut_short_did_not_go_through_all_hosts() {
        let course = |exit: Exit, not_begun: Json| {
            course(&Ended {
                at: Timestamp::UNIX_EPOCH,
                summary: serde_json::json!({"exit": exit.code(), "not_begun": not_begun}),
            })
        };
        let none = || serde_json::json!([]);
        for exit in [Exit::Done, Exit::ChangesFound, Exit::SomeUnreachable] {
            assert_eq!(course(exit, none()), Course::Whole);
        }
        for exit in [Exit::Refused, Exit::Interrupted, Exit::PersonNeeded] {
            assert_eq!(course(exit, none()), Course::Cut);
        }
        let some = serde_json::json!([{"why": "x", "hosts": ["a"]}]);
        assert_eq!(course(Exit::SomeFailed, some), Course::Cut);
    }
}

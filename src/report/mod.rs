//! Listens to events and prints them; decides the exit code.
//!
//! The only room that writes to the terminal: data to standard output, talk to
//! standard error. `diagnostic` draws findings about files, `human` tells a run as
//! text, `json` as one object a line, `markdown` and `html` as a page once all is known
//! (which `review` collects), `exit` knows the numbers. A `Keeper` hears the same objects,
//! in whatever form people are told; `replay` makes events of them again.

pub mod diagnostic;
pub mod exit;
pub mod exposition;
pub mod html;
pub mod human;
pub mod json;
pub mod junit;
pub mod line;
pub mod markdown;
mod progress;
pub mod replay;
pub mod review;
pub mod run_metrics;
pub mod schema;

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};

use crate::drift::Finding;
use crate::error::Problems;
use crate::event::{Event, HostProblem, Outcome};
use crate::text::{MESSAGE_LIMIT, printable};
use crate::value::HostName;
use diagnostic::Style;
use exit::{CheckMode, Exit};
use human::Human;
pub use human::guard_line;
use junit::Junit;
use line::Line;
use progress::Progress;
use review::Review;

/// How many hosts ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub hosts: usize,
    /// As wanted already.
    pub ok: usize,
    /// Changed, or found to differ in check mode.
    pub changed: usize,
    /// Failed; nothing was left changed.
    pub failed: usize,
    /// Not reached.
    pub unreachable: usize,
    /// Failed and undone.
    pub rolled_back: usize,
    /// Left with a failed undo or an unknown end.
    pub stuck: usize,
    /// Applied, and undone by the host unless somebody confirms it.
    pub unconfirmed: usize,
    /// Another run has them; nothing was changed.
    pub locked: usize,
    /// No longer as they were when the plan was made; nothing was changed.
    pub stale: usize,
    /// Not begun.
    pub skipped: usize,
    /// Begun and not waited for.
    pub left: usize,
    /// Hosts on which somebody changed something since it was applied.
    pub drifted: usize,
    /// Hosts for which something else is wanted than was last applied.
    pub pending: usize,
}

/// Hosts that were not begun for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBegun {
    /// The reason, in a sentence.
    pub why: String,
    /// The hosts, in the order in which they were told.
    pub hosts: Vec<HostName>,
}

impl Tally {
    /// Counts one host.
    fn count(&mut self, outcome: Outcome) {
        self.hosts += 1;
        let field = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Changed => &mut self.changed,
            Outcome::Failed => &mut self.failed,
            Outcome::RolledBack => &mut self.rolled_back,
            Outcome::Unreachable => &mut self.unreachable,
            Outcome::Stuck => &mut self.stuck,
            Outcome::Unconfirmed => &mut self.unconfirmed,
            Outcome::Locked => &mut self.locked,
            Outcome::Stale => &mut self.stale,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Left => &mut self.left,
        };
        *field += 1;
    }
}

/// When plans are shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plans {
    /// Each as soon as it is made, before it is carried out.
    AsTheyCome,
    /// All at once, equal ones together.
    Together,
}

/// Hears what a run tells, as the objects that `--output json` prints, in whatever form it is
/// told.
pub trait Keeper: std::fmt::Debug + Send {
    /// An object, and the line that it is.
    fn hear(&mut self, object: &serde_json::Value, line: &str);
}

/// In which form a run is told.
#[derive(Debug)]
enum Form {
    Human(Box<Human>),
    Json,
    /// At the end, as a page; until then people are told on standard error what is talk.
    Page(Box<Human>, Box<Review>, PageForm),
    /// At the end, as a document for a build server; until then as for a page.
    Junit(Box<Human>, Box<Junit>),
}

/// A page that is made when all is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageForm {
    /// For a merge request, of at most so many bytes.
    Markdown(usize),
    /// For a browser.
    Html,
}

/// Tells a run.
#[derive(Debug)]
pub struct Reporter {
    form: Form,
    /// How each host ended; of a host that ended twice, because what was done was taken
    /// back, the last.
    outcomes: HashMap<HostName, Outcome>,
    not_begun: Vec<NotBegun>,
    /// Hosts with drift, and those for which something is pending.
    drifted: HashSet<HostName>,
    pending: HashSet<HostName>,
    /// Whether something was found to differ that is not mended.
    stays: bool,
    /// Whether what is pending is left as it is.
    pending_stays: bool,
    check: CheckMode,
    interrupted: bool,
    progress: Progress,
    /// Where what people are told goes.
    stream: Stream,
    keeper: Option<Box<dyn Keeper>>,
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Standard output, but for what is talk.
    Data,
    /// Standard error, all of it.
    Talk,
}

impl Reporter {
    /// For people. `verbose` also tells what is as wanted.
    #[must_use]
    pub fn human(check: CheckMode, plans: Plans, verbose: bool) -> Self {
        Self::new(
            Form::Human(Box::new(Human::new(out_style(), check, plans, verbose))),
            check,
        )
    }

    /// For programs.
    #[must_use]
    pub fn json(check: CheckMode) -> Self {
        Self::new(Form::Json, check)
    }

    /// As a page of what a check finds.
    #[must_use]
    pub fn page(form: PageForm, check: CheckMode) -> Self {
        let human = Human::new(talk_style(), check, Plans::Together, false);
        Self::new(Form::Page(Box::new(human), Box::default(), form), check)
    }

    /// As a document for a build server.
    #[must_use]
    pub fn junit(check: CheckMode) -> Self {
        let human = Human::new(talk_style(), check, Plans::Together, false);
        let junit = Junit::new(check);
        Self::new(Form::Junit(Box::new(human), Box::new(junit)), check)
    }

    /// The same reporter, which tells of this run.
    #[must_use]
    pub fn of_run(mut self, run: &str) -> Self {
        if let Form::Junit(_, junit) = &mut self.form {
            junit.of_run(run);
        }
        self
    }

    /// The same reporter, with what is known beforehand of what it will tell.
    #[must_use]
    pub fn reviewing(mut self, known: Review) -> Self {
        if let Form::Page(_, review, _) = &mut self.form {
            **review = known;
        }
        self
    }

    fn new(form: Form, check: CheckMode) -> Self {
        Self {
            form,
            outcomes: HashMap::new(),
            not_begun: Vec::new(),
            drifted: HashSet::new(),
            pending: HashSet::new(),
            stays: false,
            pending_stays: false,
            check,
            interrupted: false,
            progress: Progress::none(),
            stream: Stream::Data,
            keeper: None,
        }
    }

    /// The same reporter, with somebody who hears all that it tells.
    #[must_use]
    pub fn heard_by(mut self, keeper: Box<dyn Keeper>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// The same reporter for a verb that prints something else to standard output, which
    /// must stay free of what people are told.
    #[must_use]
    pub fn beside_data(mut self) -> Self {
        self.stream = Stream::Talk;
        self
    }

    /// The same reporter for a verb that mends drift and leaves what is pending: that is still
    /// found at the end then.
    #[must_use]
    pub fn leaving_pending(mut self) -> Self {
        self.pending_stays = true;
        self
    }

    /// The same reporter, with another word for a host that is not as wanted where nothing is
    /// changed.
    #[must_use]
    pub fn calling_found(mut self, words: &'static str) -> Self {
        if let Form::Human(human) = &mut self.form {
            human.call_found(words);
        }
        self
    }

    /// The same reporter, with another word for what was done to a host.
    #[must_use]
    pub fn calling_changed(mut self, word: &'static str) -> Self {
        if let Form::Human(human) = &mut self.form {
            human.call_changed(word);
        }
        self
    }

    /// The same reporter, with other words behind `failed`: what that means for the host
    /// where the verb is not about to change something of its own.
    #[must_use]
    pub fn calling_failed(mut self, words: &'static str) -> Self {
        if let Form::Human(human) = &mut self.form {
            human.call_failed(words);
        }
        self
    }

    /// The same reporter, which is about to hear of so many hosts.
    #[must_use]
    pub fn expecting(mut self, hosts: usize) -> Self {
        self.progress = match self.form {
            Form::Human(_) | Form::Page(..) | Form::Junit(..) => Progress::of(hosts),
            Form::Json => Progress::none(),
        };
        self
    }

    /// Tells one event.
    pub fn event(&mut self, event: &Event) {
        if let Event::HostEnd {
            host,
            outcome,
            problem,
        } = event
        {
            self.outcomes.insert(host.clone(), *outcome);
            if let Some(HostProblem::NotBegun(why)) = problem {
                self.keep_not_begun(host, why);
            }
        }
        if let Event::Drift { host, findings, .. } = event {
            if findings.iter().any(Finding::is_drifted) {
                self.drifted.insert(host.clone());
            }
            let stays = |finding: &Finding| {
                (finding.is_drifted() && finding.held.is_some())
                    || (self.pending_stays && finding.is_pending())
            };
            self.stays |= findings.iter().any(stays);
            if findings.iter().any(Finding::is_pending) {
                self.pending.insert(host.clone());
            }
        }
        self.progress.hear(event);
        if self.keeper.is_some() || matches!(self.form, Form::Json) {
            self.lines(&json::objects(event));
        }
        match &mut self.form {
            Form::Human(human) => {
                let said = human.event(event).on(self.stream);
                self.progress.beside(|| said.print());
            }
            Form::Json => {}
            Form::Page(human, review, _) => {
                review.event(event);
                let said = human.event(event);
                self.progress.beside(|| talk(&said.talk));
            }
            Form::Junit(human, junit) => {
                junit.event(event);
                let said = human.event(event);
                self.progress.beside(|| talk(&said.talk));
            }
        }
    }

    /// Keeps lines, and prints them where they are what is printed.
    fn lines(&mut self, lines: &[Line]) {
        let mut all = String::new();
        for line in lines {
            let text = line.text();
            if let Some(keeper) = &mut self.keeper {
                keeper.hear(line.value(), &text);
            }
            all.push_str(&text);
            all.push('\n');
        }
        if matches!(self.form, Form::Json) {
            data(&all);
        }
    }

    /// The user interrupted, which is how the command will end.
    #[must_use]
    pub fn interrupted(mut self) -> Self {
        self.interrupted = true;
        self
    }

    fn keep_not_begun(&mut self, host: &HostName, why: &str) {
        match self.not_begun.iter_mut().find(|group| group.why == why) {
            Some(group) => group.hosts.push(host.clone()),
            None => self.not_begun.push(NotBegun {
                why: why.to_owned(),
                hosts: vec![host.clone()],
            }),
        }
    }

    fn exit(&self) -> Exit {
        let exit = match Exit::of(self.outcomes.values().copied(), self.check) {
            Exit::Done if self.stays => Exit::ChangesFound,
            exit => exit,
        };
        match self.interrupted {
            true => exit.interrupted(),
            false => exit,
        }
    }

    /// Tells the sums and gives the exit.
    pub fn finish(self) -> Exit {
        let exit = self.exit();
        self.sums(exit)
    }

    /// As `finish`, where nothing was begun because nobody agreed, because what was asked
    /// for is on no host, or because a plan could not be saved: all well is not the end
    /// of that.
    pub fn finish_refused(self) -> Exit {
        let exit = match self.exit() {
            Exit::Done | Exit::ChangesFound => Exit::Refused,
            worse => worse,
        };
        self.sums(exit)
    }

    /// As `finish`, where what was told is a record of earlier: to show it has gone well.
    pub fn finish_shown(self) -> Exit {
        self.sums(Exit::Done)
    }

    fn sums(mut self, exit: Exit) -> Exit {
        self.progress = Progress::none();
        let mut tally = Tally {
            drifted: self.drifted.len(),
            pending: self.pending.len(),
            ..Tally::default()
        };
        for outcome in self.outcomes.values() {
            tally.count(*outcome);
        }
        self.lines(&[json::summary(&tally, &self.not_begun, exit)]);
        if let Form::Junit(_, junit) = &mut self.form {
            junit.end(exit);
        }
        match &self.form {
            Form::Human(human) => {
                let said = human.summary(&tally, &self.not_begun, exit);
                said.on(self.stream).print();
            }
            Form::Json => {}
            Form::Page(_, review, form) => data(&page(review, *form)),
            Form::Junit(_, junit) => data(&junit.text()),
        }
        exit
    }

    /// Ends before any host was touched: tells the findings, and in JSON the sums too.
    pub fn refuse(mut self, problems: &Problems) -> Exit {
        self.lines(&end_lines(problems, Exit::Refused));
        match self.form {
            Form::Human(_) => self::problems(problems),
            Form::Json => {}
            Form::Page(_, mut review, form) => {
                self::problems(problems);
                review.findings = diagnostic::render(problems, Style::Plain);
                data(&page(&review, form));
            }
            Form::Junit(_, mut junit) => {
                self::problems(problems);
                junit.refuse(problems);
                data(&junit.text());
            }
        }
        Exit::Refused
    }
}

fn page(review: &Review, form: PageForm) -> String {
    match form {
        PageForm::Markdown(size) => markdown::page(review, size),
        PageForm::Html => html::plan_page(review),
    }
}

/// Text for the two streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// For standard output.
    pub data: String,
    /// For standard error.
    pub talk: String,
}

impl Said {
    fn on(self, stream: Stream) -> Self {
        match stream {
            Stream::Data => self,
            Stream::Talk => Self {
                data: String::new(),
                talk: self.data + &self.talk,
            },
        }
    }

    fn print(&self) {
        data(&self.data);
        talk(&self.talk);
    }
}

/// Writes lines of JSON to standard output.
pub fn json_lines(lines: &[Line]) {
    let text: String = lines.iter().map(|line| line.text() + "\n").collect();
    data(&text);
}

/// Writes the answer of a verb that needs no host, and behind it the sums that end it well.
pub fn json_answer(mut lines: Vec<Line>) {
    lines.push(json::summary(&Tally::default(), &[], Exit::Done));
    json_lines(&lines);
}

/// The end of a command in JSON that came before any host: the findings and the sums.
pub fn json_end(problems: &Problems, exit: Exit) {
    json_lines(&end_lines(problems, exit));
}

/// The lines of an end that came before any host.
#[must_use]
pub fn end_lines(problems: &Problems, exit: Exit) -> Vec<Line> {
    let mut lines = json::diagnostics(problems);
    lines.push(json::summary(&Tally::default(), &[], exit));
    lines
}

/// Writes to standard output. A reader that went away is no error of ours.
pub fn data(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes to standard output as it is, for a program that takes control characters as such.
pub fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
}

/// Writes to standard error.
pub fn talk(text: &str) {
    let mut out = anstream::stderr().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a question; the cursor stays behind it.
pub fn ask(question: &str) {
    talk(question);
}

/// Tells findings about the user's files or command line.
pub fn problems(problems: &Problems) {
    talk(&diagnostic::render(problems, talk_style()));
}

/// Tells why the command ended early, outermost first, once.
pub fn error(chain: &[String], hint: Option<&str>) {
    let text = printable(&chain.join(": "), MESSAGE_LIMIT);
    let mut all = format!("error: {text}\n");
    if let Some(hint) = hint {
        all.push_str(&format!("hint: {}\n", printable(hint, MESSAGE_LIMIT)));
    }
    talk(&all);
}

/// Whether standard error is a terminal.
#[must_use]
pub fn talk_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Columns of the terminal that standard output is, or 80.
#[must_use]
pub fn width() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col >= 40 => size.ws_col.into(),
        _ => 80,
    }
}

fn out_style() -> Style {
    match anstream::AutoStream::choice(&io::stdout()) {
        anstream::ColorChoice::Never => Style::Plain,
        _ => Style::Colour,
    }
}

fn talk_style() -> Style {
    match anstream::AutoStream::choice(&io::stderr()) {
        anstream::ColorChoice::Never => Style::Plain,
        _ => Style::Colour,
    }
}

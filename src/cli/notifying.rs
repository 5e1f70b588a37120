//! `--notify FILE`: who is told of a run when it has ended. What does not get there is a
//! warning, and holds nothing up longer than the channel's own time.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Diagnostic, Problems};
use crate::history::{Asked, Begun, Course, Ended, Heard, OpenDrift, Store};
use crate::notify::{self, About, Channel, Told};
use crate::report;
use crate::yaml;

/// Most bytes of a template, and of the file itself.
const MOST: u64 = 1 << 20;

/// For how long what was told is remembered of fleets that nobody looks at any more, hours.
const REMEMBERED_HOURS: i64 = 90 * 24;

/// The file, read and checked.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// Each with the text of its template.
    channels: Vec<(Channel, Option<String>)>,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over<'a> {
    pub(super) begun: &'a Begun,
    pub(super) ended: &'a Ended,
    pub(super) heard: &'a Heard,
    /// Whether it went through all hosts.
    pub(super) course: Course,
    /// The drift that is open after it, of a look at drift.
    pub(super) open: Option<&'a OpenDrift>,
    /// For how long the user waits for a message at most.
    pub(super) most: Duration,
    /// What is said of runs that are missing before it.
    pub(super) missed: Option<&'a str>,
    /// Why nothing was begun.
    pub(super) refused: Option<&'a str>,
}

impl Notify {
    /// Reads the file and the templates that it names.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn load(path: &Path) -> Result<Self, Problems> {
        let text = read(path)?;
        let (document, mut problems) = yaml::load(path, &text);
        let folder = path.parent().unwrap_or(Path::new(""));
        let (channels, found) = notify::read(document.as_ref(), folder);
        problems.extend(found);
        let mut ready = Vec::new();
        for channel in channels {
            let template = channel.template.as_deref().map(read).transpose();
            match template {
                Ok(template) => ready.push((channel, template)),
                Err(problem) => problems.push(problem),
            }
        }
        match problems.has_errors() {
            true => Err(problems),
            false => {
                report::problems(&problems);
                Ok(Self { channels: ready })
            }
        }
    }

    /// Tells everybody what is new to them, side by side.
    pub(super) fn tell(&self, run: Over<'_>, store: Option<&Store>) {
        let known = store.map(Store::told).unwrap_or_default();
        let warnings: Vec<Diagnostic> = std::thread::scope(|scope| {
            let at_work: Vec<_> = self
                .channels
                .iter()
                .map(|(channel, template)| {
                    let key = key(channel, &run.begun.asked);
                    let told = known.get(&key).cloned().unwrap_or_default();
                    scope.spawn(move || {
                        let sent = one(channel, template.clone(), run, &told);
                        sent.map(|told| (key, told))
                            .map_err(|why| (channel.name.clone(), why))
                    })
                })
                .collect();
            let mut warnings = Vec::new();
            for sending in at_work {
                let kept = match sending.join() {
                    Ok(Ok((key, told))) => store.map(|store| store.tell(key, told, forget(run))),
                    Ok(Err((name, why))) => {
                        let message = format!("the notification `{name}` did not get there: {why}");
                        let hint = "what it was about is told with the next run";
                        warnings.push(Diagnostic::warning(message).hint(hint));
                        None
                    }
                    Err(_) => None,
                };
                if let Some(Err(error)) = kept {
                    let message = format!("that it was told cannot be remembered: {error}");
                    warnings.push(Diagnostic::warning(message));
                }
            }
            warnings
        });
        if !warnings.is_empty() {
            report::problems(&Problems(warnings));
        }
    }
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(|error| {
            let shown = path.display();
            Diagnostic::error(format!("{shown}, of `--notify`, cannot be read: {error}"))
        })?;
    Ok(text)
}

/// By what is remembered what was told: the channel and the fleet, whatever is done to it.
fn key(channel: &Channel, asked: &Asked) -> String {
    let fleet = Asked {
        verb: String::new(),
        flags: Vec::new(),
        extra_vars: Vec::new(),
        ..asked.clone()
    };
    format!("{}: {}", channel.name, fleet.words())
}

/// What was told last before this is forgotten.
fn forget(run: Over<'_>) -> Timestamp {
    let span = jiff::SignedDuration::from_hours(REMEMBERED_HOURS);
    run.ended.at.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// Tells one channel, and gives what it then was told.
fn one(
    channel: &Channel,
    template: Option<String>,
    run: Over<'_>,
    told: &Told,
) -> Result<Told, String> {
    let is_look = run.begun.asked.verb == "drift";
    let standing = notify::items(
        run.heard,
        run.open,
        run.missed.map(str::to_owned),
        run.refused.map(str::to_owned),
        run.ended.at,
    );
    let terms = (channel.on.as_slice(), channel.repeat);
    let heard = (run.heard, is_look, run.course);
    let (news, after) = notify::fresh(&standing, heard, told, terms, run.ended.at);
    if news.is_empty() {
        return Ok(after);
    }
    let about = About {
        begun: run.begun,
        summary: &run.ended.summary,
    };
    let message = notify::text(channel, template, about, &news);
    let message = message.map_err(|problem| Problems::from(problem).to_string())?;
    notify::send(channel, &message, run.most)?;
    Ok(after)
}

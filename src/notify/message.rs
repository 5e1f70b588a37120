//! The words of a message: the usual ones, or those of the user's template.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{Channel, Item, Kind, Way};
use crate::error::{Diagnostic, Source};
use crate::history::Begun;
use crate::render::{self, Binding, Halt, Layer, Scope};
use crate::text::{moment, printable_line};

/// Most news that the usual words name one by one.
const MOST_NAMED: usize = 40;

/// Most news that a template gets.
const MOST_NEWS: usize = 500;

/// Most characters of one piece of news.
const LINE: usize = 500;

/// Most bytes of a message.
const MOST_BYTES: usize = 256 << 10;

/// The run that a message is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// What it was.
    pub begun: &'a Begun,
    /// Its sums.
    pub summary: &'a Json,
}

/// The message of a channel: what its template makes, else JSON for a webhook and text for a
/// command.
///
/// # Errors
/// The template cannot be rendered, or makes too much.
pub fn text(
    channel: &Channel,
    template: Option<String>,
    about: About<'_>,
    news: &[Item],
) -> Result<String, Diagnostic> {
    let plain = plain(about, news);
    let mut object = context(about, news);
    object["text"] = json!(plain);
    let message = match (template, &channel.way) {
        (Some(text), _) => rendered(channel, text, &object)?,
        (None, Way::Webhook { .. }) => object.to_string(),
        (None, Way::Command(_)) => plain,
    };
    match message.len() <= MOST_BYTES {
        true => Ok(message),
        false => Err(Diagnostic::error(format!(
            "the message has {} bytes, and at most {MOST_BYTES} are sent",
            message.len()
        ))),
    }
}

fn plain(about: About<'_>, news: &[Item]) -> String {
    let counts: Vec<String> = Kind::ALL
        .into_iter()
        .filter_map(|kind| {
            let count = news.iter().filter(|item| item.kind == kind).count();
            (count > 0).then(|| format!("{count} {}", kind.word()))
        })
        .collect();
    let begun = about.begun;
    let mut text = format!(
        "deploy {} from {}: {}\n",
        begun.asked.verb,
        begun.from,
        counts.join(", ")
    );
    for item in news.iter().take(MOST_NAMED) {
        let place = match item.address.is_empty() {
            true => String::new(),
            false => format!("{}: ", item.address),
        };
        let line = format!(
            "- {}: {place}{} (since {})",
            item.kind.word(),
            item.text,
            moment(item.since)
        );
        text += &printable_line(&line, LINE);
        text.push('\n');
    }
    if let Some(more @ 1..) = news.len().checked_sub(MOST_NAMED) {
        text += &format!("- and {more} more\n");
    }
    text + &format!("`deploy history show {}` tells the whole run.\n", begun.id)
}

/// What a template can name.
fn context(about: About<'_>, news: &[Item]) -> Json {
    let item = |item: &Item| {
        json!({
            "kind": item.kind.word(),
            "host": printable_line(&item.host, LINE),
            "address": printable_line(&item.address, LINE),
            "text": printable_line(&item.text, LINE),
            "since": item.since,
        })
    };
    let begun = about.begun;
    json!({
        "run": begun.id,
        "verb": begun.asked.verb,
        "command": begun.asked.words(),
        "who": begun.who,
        "from": begun.from,
        "started": begun.started,
        "exit": about.summary["exit"],
        "summary": about.summary,
        "news": news.iter().take(MOST_NEWS).map(item).collect::<Vec<_>>(),
        "more": news.len().saturating_sub(MOST_NEWS),
    })
}

fn rendered(channel: &Channel, text: String, vars: &Json) -> Result<String, Diagnostic> {
    let source = Arc::new(Source {
        path: channel.template.clone().unwrap_or_default(),
        text,
    });
    let mut scope = Scope::default();
    for (name, value) in vars.as_object().into_iter().flatten() {
        scope.set(Layer::Set, name.clone(), Binding::Known(value.clone()));
    }
    render::template(&source, &scope).map_err(|halt| match halt {
        Halt::Problem(problem) => *problem,
        Halt::Pending => Diagnostic::error("the template asks for something of a host"),
    })
}

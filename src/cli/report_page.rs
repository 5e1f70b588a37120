//! `deploy report`: the fleet over time as one page, from the history.

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use crate::cli::args::ReportArgs;
use crate::cli::{Failure, history, metrics};
use crate::error::Diagnostic;
use crate::history::Fleet;
use crate::report;
use crate::report::exit::Exit;
use crate::report::html::FleetPage;

/// Runs `deploy report`.
///
/// # Errors
/// There is no history, or the file cannot be written.
pub(super) fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let to = Timestamp::now();
    let from = to
        .checked_sub(args.since)
        .map_err(|_| Diagnostic::error("`--since` is too long ago"))?;
    let mut runs = history::kept(args.history.as_deref())?;
    runs.reverse();
    let mut fleet = Fleet::default();
    for run in &runs {
        if run.entry.begun.started < from {
            fleet.before(run, run.open());
            continue;
        }
        if let Some(lines) = history::lines(run, Fleet::wants)? {
            fleet.take(run, run.open(), &lines);
        }
    }
    let page = FleetPage {
        fleet: &fleet,
        from,
        to,
    };
    match &args.out {
        Some(file) => metrics::write_private(file, &page.page())?,
        None => report::data(&page.page()),
    }
    Ok(Exit::Done)
}

/// A span of time as people write it: `30d`, `12h`, `2w`.
pub(super) fn since(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("`{text}` is no time such as 12h, 30d or 2w");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let span = span.to_duration(days).map_err(|_| wrong())?;
    match span.is_positive() {
        true => Ok(span),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_is_written_as_people_do() {
        let hours = |text| since(text).map(|span| span.as_hours());
        assert_eq!(hours("12h"), Ok(12));
        assert_eq!(hours("30d"), Ok(720));
        assert_eq!(hours("2w"), Ok(336));
        for wrong in ["", "30", "0d", "-3d", "yesterday", "1 month"] {
            assert!(since(wrong).is_err(), "{wrong:?}");
        }
    }
}

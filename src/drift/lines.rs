//! The lines of a file that differ, each with who it is that differs.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

use crate::step::{Change, PathLook};

/// Most lines that are told of one file.
const MOST_LINES: usize = 200;
/// For how long the smallest difference is looked for; then a larger one will do.
const DIFF_TIME: Duration = Duration::from_millis(500);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFinding {
    /// Who it is that differs.
    pub side: Side,
    /// Whether it stands there in addition; else it is gone.
    pub added: bool,
    /// Its number, from 1, in the text that has it.
    pub line: usize,
    /// The line, without its newline.
    pub text: String,
}

/// Which text differs from what was last applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is found on the host.
    Drifted,
    /// What is wanted today.
    Pending,
}

/// The lines of both sides. Where nothing was ever applied, what is found stands for it.
pub(super) fn of(drift: Option<&Change>, pending: Option<&Change>) -> Vec<LineFinding> {
    let mut lines = Vec::new();
    let (found, applied) = match drift {
        Some(change) => (text(change, before), text(change, after)),
        None => (None, pending.and_then(|change| text(change, before))),
    };
    if let (Some(applied), Some(found)) = (&applied, &found) {
        differing(Side::Drifted, applied, found, &mut lines);
    }
    let wanted = pending.and_then(|change| text(change, after));
    if let (Some(applied), Some(wanted)) = (&applied, &wanted) {
        differing(Side::Pending, applied, wanted, &mut lines);
    }
    lines
}

fn before<'a>(before: &'a PathLook, _: &'a PathLook) -> &'a PathLook {
    before
}

fn after<'a>(_: &'a PathLook, after: &'a PathLook) -> &'a PathLook {
    after
}

type Pick = for<'a> fn(&'a PathLook, &'a PathLook) -> &'a PathLook;

/// The text of one end of a change; none where there is no text or it must not be shown.
fn text(change: &Change, pick: Pick) -> Option<String> {
    let Change::Path { before, after, .. } = change else {
        return None;
    };
    match pick(before, after) {
        PathLook::File { text, .. } => text.clone(),
        PathLook::Absent => Some(String::new()),
        PathLook::Directory { .. } | PathLook::Link { .. } => None,
    }
}

fn differing(side: Side, from: &str, to: &str, lines: &mut Vec<LineFinding>) {
    let diff = TextDiff::configure()
        .timeout(DIFF_TIME)
        .diff_lines(from, to);
    let all = diff.iter_all_changes().filter_map(|change| {
        let (added, index) = match change.tag() {
            ChangeTag::Equal => return None,
            ChangeTag::Insert => (true, change.new_index()),
            ChangeTag::Delete => (false, change.old_index()),
        };
        Some(LineFinding {
            side,
            added,
            line: index? + 1,
            text: change.value().trim_end_matches(['\n', '\r']).to_owned(),
        })
    });
    lines.extend(all.take(MOST_LINES));
}

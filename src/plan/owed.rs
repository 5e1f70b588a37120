//! Handlers that an earlier run on the host owes: it was to run them and failed
//! before it could, and not all of it could be undone.
//!
//! The runner leaves their names on the host; here they are read. What the host
//! says is only compared with the names of the playbook's handlers.

use crate::module::ReadCache;
use crate::text::printable_line;
use crate::transport::{FileReply, Read};

/// Where the runner leaves the names, one a line.
const PATH: &str = "/var/lib/deploy/owed";
/// Most bytes of it that are read, and most names and characters of a name that are taken.
const MOST_BYTES: u64 = 16 * 1024;
const MOST_NAMES: usize = 64;
const MOST_CHARS: usize = 200;

/// What planning wants to have read in the first batch, so that it costs no round trip.
#[must_use]
pub fn reads() -> Vec<Read> {
    vec![read()]
}

fn read() -> Read {
    Read::File {
        path: PATH.to_owned(),
        limit: MOST_BYTES,
    }
}

/// Names of handlers that are owed, each once, and what to say of those that cannot
/// be read. Who did not read them is owed nothing.
pub(super) fn names(cache: &ReadCache) -> (Vec<String>, Option<String>) {
    let (bytes, truncated) = match cache.file(&read()) {
        Some(FileReply::Content { bytes, truncated }) => (bytes, *truncated),
        Some(FileReply::Unreadable(why)) => {
            let why = printable_line(why, MOST_CHARS);
            let note = format!("which handlers an earlier run owes cannot be read: {PATH}: {why}");
            return (Vec::new(), Some(note));
        }
        Some(FileReply::Absent) | None => return (Vec::new(), None),
    };
    let text = String::from_utf8_lossy(bytes);
    // A line that was cut is no name.
    let whole = match (truncated, text.rfind('\n')) {
        (true, Some(end)) => &text[..end],
        (true, None) => "",
        (false, _) => &text,
    };
    let mut names: Vec<String> = Vec::new();
    let mut left_out = truncated;
    for line in whole.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if names.iter().any(|name| name == line) {
            continue;
        }
        if names.len() == MOST_NAMES || line.chars().count() > MOST_CHARS {
            left_out = true;
            continue;
        }
        names.push(line.to_owned());
    }
    let note = left_out.then(|| format!("{PATH} holds more than is read; look at it"));
    (names, note)
}

/// What to say of a name that no handler of the host's plays has.
pub(super) fn unknown(name: &str) -> String {
    format!(
        "an earlier run that failed owed handler `{}`, which this playbook does not have for this host; it stays owed; who does not want it takes its line out of {PATH}",
        printable_line(name, MOST_CHARS)
    )
}

/// What to say of a handler that runs for this reason.
pub(super) fn runs(name: &str) -> String {
    format!("handler `{name}` runs: an earlier run that failed owed it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Reply;

    fn names_of(bytes: &[u8], truncated: bool) -> (Vec<String>, Option<String>) {
        let mut cache = ReadCache::default();
        let content = FileReply::Content {
            bytes: bytes.to_vec(),
            truncated,
        };
        cache.add(&reads(), vec![Reply::File(content)]);
        names(&cache)
    }

    #[test]
    fn names_are_lines_each_once_and_never_cut() {
        let (names, note) = names_of(b"Restart a\n\n  Restart b  \nRestart a\n", false);
        assert_eq!(
            (names.as_slice(), note),
            (&["Restart a".to_owned(), "Restart b".to_owned()][..], None)
        );
        let (names, note) = names_of(b"Restart a\nRest", true);
        assert_eq!(names, ["Restart a"]);
        assert!(note.is_some());
        assert_eq!(names_of(b"Rest", true).0, Vec::<String>::new());
    }

    #[test]
    fn what_a_host_says_is_bounded() {
        let many: String = (0..1000).map(|n| format!("handler {n}\n")).collect();
        let (names, note) = names_of(many.as_bytes(), false);
        assert_eq!((names.len(), note.is_some()), (MOST_NAMES, true));
        let long = "x".repeat(MOST_CHARS + 1);
        assert_eq!(names_of(long.as_bytes(), false).0, Vec::<String>::new());
        assert!(!unknown("a\u{1b}[2J\nb").contains(['\u{1b}', '\n']));
    }

    #[test]
    fn no_file_owes_nothing_and_an_unreadable_one_is_told() {
        assert_eq!(names(&ReadCache::default()), (Vec::new(), None));
        let mut cache = ReadCache::default();
        cache.add(&reads(), vec![Reply::File(FileReply::Absent)]);
        assert_eq!(names(&cache), (Vec::new(), None));
        let refused = FileReply::Unreadable("Permission denied".to_owned());
        cache.add(&reads(), vec![Reply::File(refused)]);
        let (_, note) = names(&cache);
        assert!(note.is_some_and(|note| note.contains("Permission denied")));
    }
}

//! The folders of the history: made, locked, read and removed.
//!
//! A run's folder is made beside and renamed when it is whole and locked, so that nobody sees
//! half of one. Its `run.json` stays locked while the run is at work; what is neither locked
//! nor ended was interrupted. All of it is for its owner only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde_json::Value as Json;

use super::entry::FORMAT;
use super::{Begun, Ended, Entry, EntryId, Memory, OpenDrift, State, Told};
use crate::whole_file;

/// Most runs that are kept.
const MOST_RUNS: usize = 500;

/// For how long runs are kept, hours: 90 days.
const LONGEST_HOURS: i64 = 90 * 24;

/// Most bytes of all runs together.
const MOST_BYTES: u64 = 2 << 30;

/// How many of the newest are kept whatever their age and size.
const AT_LEAST: usize = 10;

/// Most bytes of a `run.json`; those of older versions hold what is open, too.
const MOST_ENTRY: u64 = 256 << 20;

/// Most bytes of an `open.json`.
const MOST_OPEN: u64 = 256 << 20;

/// Most things that differ that are written there: with titles of 300 characters they fit.
const MOST_OPEN_ROWS: usize = 250_000;

/// Most bytes of the lines of one run that are read.
const MOST_LINES: u64 = 1 << 30;

/// Most bytes of one line; a longer one is passed over.
const MOST_LINE: u64 = 16 << 20;

/// Most bytes of a last line.
const MOST_LAST_LINE: u64 = MOST_LINE;

/// The file of a run that says what it is.
const RUN: &str = "run.json";

/// The file of a run with the drift that was open after it, of looks at drift.
const OPEN: &str = "open.json";

/// The file with what others were told.
const TOLD: &str = "told.json";

/// Most bytes of it.
const MOST_TOLD: u64 = 64 << 20;

/// The file of a run with what it told.
const EVENTS: &str = "events.jsonl";

/// The folder with all runs.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A run of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What is known of it.
    pub entry: Entry,
    /// How it stands.
    pub state: State,
    folder: PathBuf,
}

/// The run at work, as it is written.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    begun: Begun,
    events: File,
    /// Locked until the run has ended.
    lock: File,
}

impl Store {
    /// The history in a folder, which need not be there yet.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder of a run that begins.
    ///
    /// # Errors
    /// It cannot be made, or belongs to somebody else.
    pub fn begin(&self, begun: Begun) -> io::Result<Writer> {
        self.prepare()?;
        let beside = self.folder.join(format!(".{}.new", begun.id));
        DirBuilder::new().mode(0o700).create(&beside)?;
        let made = begin_in(&beside, &begun).and_then(|(lock, events)| {
            let folder = self.folder.join(begun.id.as_str());
            fs::rename(&beside, &folder)?;
            Ok((lock, events, folder))
        });
        match made {
            Ok((lock, events, folder)) => Ok(Writer {
                folder,
                begun,
                events,
                lock,
            }),
            Err(error) => {
                let _ = fs::remove_dir_all(&beside);
                Err(error)
            }
        }
    }

    /// All runs, newest first; a folder that is none of ours is passed over.
    ///
    /// # Errors
    /// The folder cannot be read; that it is not there is no error.
    pub fn runs(&self) -> io::Result<Vec<Kept>> {
        let mut runs: Vec<Kept> = self
            .names()?
            .into_iter()
            .filter_map(|id| read(&self.folder.join(id.as_str())))
            .collect();
        runs.sort_by(|a, b| {
            let when = |kept: &Kept| (kept.entry.begun.started, kept.entry.begun.id.clone());
            when(b).cmp(&when(a))
        });
        Ok(runs)
    }

    /// What others were told, by whom and of which fleet; nothing if it cannot be read.
    #[must_use]
    pub fn told(&self) -> BTreeMap<String, Told> {
        let text = whole_file::open(&self.folder.join(TOLD)).and_then(|file| {
            let mut text = Vec::new();
            file.take(MOST_TOLD).read_to_end(&mut text)?;
            Ok(text)
        });
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Remembers what somebody was told; what was told to others last before `oldest` is
    /// forgotten.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn tell(&self, to: String, told: Told, oldest: Timestamp) -> io::Result<()> {
        self.prepare()?;
        // A file of its own: the other one is replaced.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join(".told.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut all = self.told();
        all.retain(|_, told| told.values().any(|memory| memory.last() >= oldest));
        all.insert(to.clone(), told);
        let text = bounded(&mut all, &to, MOST_TOLD)?;
        whole_file::write(&self.folder.join(TOLD), 0o600, |file| {
            file.write_all(text.as_bytes())
        })
    }

    /// Removes what is over the bounds; what is at work stays.
    ///
    /// # Errors
    /// The folder cannot be read, or something in it not be removed.
    pub fn prune(&self, now: Timestamp) -> io::Result<()> {
        let oldest = now - SignedDuration::from_hours(LONGEST_HOURS);
        // As in names, which begin with the time; what is in a folder need not be readable.
        let oldest = oldest.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut names = self.names()?;
        names.sort_by(|a, b| b.cmp(a));
        let mut bytes = 0_u64;
        for (number, id) in names.into_iter().enumerate() {
            let folder = self.folder.join(id.as_str());
            bytes = bytes.saturating_add(bytes_of(&folder));
            let over = number >= MOST_RUNS || bytes > MOST_BYTES || *id.as_str() < *oldest;
            if number >= AT_LEAST && over && !is_at_work(&folder) {
                match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes the folder if it is not there, and refuses one in which others could write.
    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let meta = fs::metadata(&self.folder)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("the folder belongs to another user"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(io::Error::other("others can write into the folder"));
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<EntryId>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(EntryId::parse));
        }
        Ok(names)
    }
}

fn begin_in(folder: &Path, begun: &Begun) -> io::Result<(File, File)> {
    let mut lock = create(&folder.join(RUN))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    lock.write_all(text(begun, None).as_bytes())?;
    let events = create(&folder.join(EVENTS))?;
    Ok((lock, events))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn text(begun: &Begun, ended: Option<Ended>) -> String {
    let entry = Entry::new(begun.clone(), ended);
    // Texts, numbers and times only: they always have a form in JSON.
    let mut text = serde_json::to_string_pretty(&entry).unwrap_or_default();
    text.push('\n');
    text
}

impl Writer {
    /// The run's name.
    #[must_use]
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Keeps a line.
    ///
    /// # Errors
    /// The disk is full, and the like.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        // In one piece: whoever reads meanwhile sees whole lines.
        self.events.write_all(format!("{line}\n").as_bytes())
    }

    /// Says that the run has ended and what is open after it, of a look at drift, and lets go
    /// of the lock.
    ///
    /// # Errors
    /// The disk is full, and the like.
    pub fn end(self, ended: Ended, open: Option<&OpenDrift>) -> io::Result<()> {
        self.events.sync_all()?;
        if let Some(open) = open {
            // First, so that a run that has an end has this, too.
            let rows: BTreeMap<_, _> = open.iter().take(MOST_OPEN_ROWS).collect();
            whole_file::write(&self.folder.join(OPEN), 0o600, |file| {
                let mut out = BufWriter::new(file);
                serde_json::to_writer(&mut out, &rows)?;
                out.flush()
            })?;
        }
        whole_file::write(&self.folder.join(RUN), 0o600, |file| {
            file.write_all(text(&self.begun, Some(ended)).as_bytes())
        })?;
        drop(self.lock);
        Ok(())
    }
}

impl Kept {
    /// A run that lies nowhere.
    #[cfg(test)]
    pub(super) fn of(entry: Entry) -> Self {
        Self {
            entry,
            state: State::Ended,
            folder: PathBuf::new(),
        }
    }

    /// Gives the lines that the run told, in their order and one at a time. What is no line of
    /// ours, such as the half of one that a crash has left, is passed over.
    ///
    /// # Errors
    /// They cannot be read; `NotFound` where the run was removed meanwhile.
    pub fn lines(&self, mut take: impl FnMut(Json)) -> io::Result<()> {
        let file = whole_file::open(&self.folder.join(EVENTS))?;
        let mut lines = BufReader::new(file.take(MOST_LINES));
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut lines).take(MOST_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                // The last one, without its end, or one that is too long.
                lines.skip_until(b'\n')?;
            }
            if let Ok(line) = serde_json::from_slice(&line) {
                take(line);
            }
        }
    }

    /// The drift that was open after the run: none where it was no look at drift, or where it
    /// did not get to say so.
    #[must_use]
    pub fn open(&self) -> Option<OpenDrift> {
        if self.entry.begun.asked.verb != "drift" {
            return None;
        }
        match whole_file::open(&self.folder.join(OPEN)) {
            Ok(file) => serde_json::from_reader(BufReader::new(file.take(MOST_OPEN))).ok(),
            Err(_) => {
                let file = whole_file::open(&self.folder.join(RUN)).ok()?;
                let old: Old =
                    serde_json::from_reader(BufReader::new(file.take(MOST_ENTRY))).ok()?;
                old.ended.map(|ended| ended.open)
            }
        }
    }
}

/// A run as versions wrote it that kept what is open in `run.json`.
#[derive(Deserialize)]
struct Old {
    ended: Option<OldEnded>,
}

#[derive(Deserialize)]
struct OldEnded {
    #[serde(default)]
    open: OpenDrift,
}

fn bytes_of(folder: &Path) -> u64 {
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |meta| meta.len());
    [RUN, EVENTS, OPEN].map(size).iter().sum()
}

fn is_at_work(folder: &Path) -> bool {
    whole_file::open(&folder.join(RUN))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// What was told, as a text of at most `most` bytes: what is over that is forgotten, that of
/// the fleet nobody has looked at for the longest time first, and never that of `to`.
fn bounded(all: &mut BTreeMap<String, Told>, to: &str, most: u64) -> io::Result<String> {
    loop {
        let text = serde_json::to_string(&all)?;
        if u64::try_from(text.len()).is_ok_and(|len| len <= most) {
            return Ok(text);
        }
        let others = all.iter().filter(|(key, _)| *key != to);
        let oldest = others.min_by_key(|(_, told)| told.values().map(Memory::last).max());
        let Some((key, _)) = oldest else {
            return Err(io::Error::other("it is too much"));
        };
        let key = key.clone();
        all.remove(&key);
    }
}

/// The run in a folder; none where it holds no run that this tool can read.
fn read(folder: &Path) -> Option<Kept> {
    let file = whole_file::open(&folder.join(RUN)).ok()?;
    // Whoever holds it writes; without an end in it, somebody works or was interrupted.
    let at_work = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    // What is in it besides, such as all that was open, is passed over and not kept.
    let mut entry: Entry =
        serde_json::from_reader(BufReader::new((&file).take(MOST_ENTRY))).ok()?;
    if entry.format != FORMAT {
        return None;
    }
    if entry.ended.is_none() && !at_work {
        // Between its last line and its end, or in the moment in which we looked.
        entry.ended = last_words(&folder.join(EVENTS));
    }
    let state = match (&entry.ended, at_work) {
        (Some(_), _) => State::Ended,
        (None, true) => State::AtWork,
        (None, false) => State::Interrupted,
    };
    Some(Kept {
        entry,
        state,
        folder: folder.to_owned(),
    })
}

/// The end of a run whose last line is its sums.
fn last_words(path: &Path) -> Option<Ended> {
    let mut file = whole_file::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let from = meta.len().saturating_sub(MOST_LAST_LINE);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = Vec::new();
    file.take(MOST_LAST_LINE).read_to_end(&mut text).ok()?;
    let line = text
        .strip_suffix(b"\n")?
        .rsplit(|byte| *byte == b'\n')
        .next()?;
    let summary: Json = serde_json::from_slice(line).ok()?;
    let at = Timestamp::new(meta.mtime(), i32::try_from(meta.mtime_nsec()).ok()?).ok()?;
    (summary["type"] == "summary").then_some(Ended { at, summary })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::history::Asked;
    use crate::history::Open;

    fn begun(second: i64) -> Begun {
        let started = Timestamp::from_second(second).expect("a time");
        let id = format!("{}-abc123", started.strftime("%Y%m%dT%H%M%SZ"));
        Begun {
            id: EntryId::parse(&id).expect("a name"),
            tool: "1.0".to_owned(),
            asked: Asked::default(),
            who: "me".to_owned(),
            from: "here".to_owned(),
            started,
            every: None,
        }
    }

    fn ended() -> Ended {
        Ended {
            at: Timestamp::from_second(5).expect("a time"),
            summary: json!({"type": "summary", "exit": 2}),
        }
    }

    fn lines(run: &Kept) -> Vec<Json> {
        let mut lines = Vec::new();
        run.lines(|line| lines.push(line)).expect("lines");
        lines
    }

    fn look(second: i64) -> Begun {
        let mut begun = begun(second);
        begun.asked.verb = "drift".to_owned();
        begun
    }

    fn open(count: usize) -> OpenDrift {
        let one = |number| {
            let open = Open {
                since: Timestamp::from_second(1).expect("a time"),
                status: "drifted".to_owned(),
                title: "x".repeat(300),
            };
            (format!("h{number}/x"), open)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_run_with_much_open_drift_is_a_run_as_any_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let much = open(5000);
        let run = store.begin(look(1)).expect("it begins");
        run.end(ended(), Some(&much)).expect("its end");
        // One of an older version, which has it all in one file.
        let run = store.begin(look(2)).expect("it begins");
        let old = json!({"at": ended().at, "summary": {}, "open": much});
        let mut whole = serde_json::to_value(Entry::new(look(2), None)).expect("it has a form");
        whole["ended"] = old;
        fs::write(run.folder.join(RUN), format!("{whole:#}")).expect("ours");
        drop(run);
        let runs = store.runs().expect("it is readable");
        assert_eq!(runs.len(), 2);
        for run in &runs {
            assert_eq!(run.open().as_ref(), Some(&much));
        }
    }

    #[test]
    fn what_is_open_after_a_run_that_did_not_say_so_is_not_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let mut run = store.begin(look(1)).expect("it begins");
        run.line("{\"type\":\"summary\",\"exit\":2}")
            .expect("a line");
        drop(run);
        let run = store.begin(look(2)).expect("it begins");
        run.end(ended(), Some(&OpenDrift::new())).expect("its end");
        let run = store.begin(begun(3)).expect("it begins");
        run.end(ended(), None).expect("its end");
        let runs = store.runs().expect("it is readable");
        let open: Vec<_> = runs.iter().map(Kept::open).collect();
        assert_eq!(open, [None, Some(OpenDrift::new()), None]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let mut run = store.begin(begun(1)).expect("it begins");
        let long = usize::try_from(MOST_LINE).expect("it fits");
        run.line(&format!("\"{}\"", "x".repeat(long)))
            .expect("a line");
        run.line("1").expect("a line");
        drop(run);
        assert_eq!(lines(&store.runs().expect("it is readable")[0]), [json!(1)]);
    }

    #[test]
    fn a_run_that_cannot_be_read_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        for second in 1..=12 {
            let run = store.begin(begun(second)).expect("it begins");
            run.end(ended(), None).expect("its end");
        }
        let broken = folder.path().join(begun(1).id.as_str());
        fs::write(broken.join(RUN), "{").expect("ours");
        let now = Timestamp::from_second(91 * 86_400).expect("a time");
        store.prune(now).expect("it prunes");
        assert!(!broken.exists());
        assert_eq!(states(&store).len(), 10);
    }

    #[test]
    fn what_was_told_is_kept_within_bounds_and_while_somebody_looks() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let at = |second| Timestamp::from_second(second).expect("a time");
        let told = |seen| {
            let memory = Memory {
                since: at(1),
                told: at(1),
                seen: Some(at(seen)),
                host: "a".to_owned(),
                text: String::new(),
            };
            Told::from([("drifted a/x".to_owned(), memory)])
        };
        for (to, seen) in [("gone", 2), ("open", 50), ("new", 60)] {
            store
                .tell(to.to_owned(), told(seen), at(40))
                .expect("it is told");
        }
        let known = |all: &BTreeMap<String, Told>| all.keys().cloned().collect::<Vec<_>>();
        let mut all = store.told();
        assert_eq!(known(&all), ["new", "open"]);
        let most = serde_json::to_string(&all).expect("it has a form").len() - 1;
        let most = u64::try_from(most).expect("it fits");
        bounded(&mut all, "open", most).expect("it fits then");
        assert_eq!(known(&all), ["open"]);
        assert!(bounded(&mut all, "open", 10).is_err());
    }

    fn states(store: &Store) -> Vec<State> {
        let runs = store.runs().expect("it is readable");
        runs.iter().map(|run| run.state).collect()
    }

    #[test]
    fn a_run_is_at_work_until_it_ends_and_interrupted_if_it_never_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().join("a/history"));
        assert!(store.runs().expect("no folder is fine").is_empty());
        let mut one = store.begin(begun(1)).expect("it begins");
        let two = store.begin(begun(2)).expect("beside it");
        assert!(store.begin(begun(2)).is_err(), "the name is taken");
        assert_eq!(states(&store), [State::AtWork, State::AtWork]);
        one.line("{\"type\":\"host_end\"}").expect("a line");
        one.end(ended(), None).expect("its end");
        assert_eq!(states(&store), [State::AtWork, State::Ended]);
        drop(two);
        assert_eq!(states(&store), [State::Interrupted, State::Ended]);
        let runs = store.runs().expect("it is readable");
        let end = runs[1].entry.ended.as_ref().expect("it ended");
        assert_eq!(end.exit(), Some(2));
        assert_eq!(lines(&runs[1]), [json!({"type": "host_end"})]);
    }

    #[test]
    fn half_a_line_is_passed_over_and_a_last_line_with_sums_is_an_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let mut run = store.begin(begun(1)).expect("it begins");
        run.line("{\"type\":\"summary\",\"exit\":3}")
            .expect("a line");
        drop(run);
        assert_eq!(states(&store), [State::Ended]);
        let mut run = store.begin(begun(2)).expect("it begins");
        run.line("{\"type\":\"host_end\"}").expect("a line");
        run.events
            .write_all(b"{\"type\":\"summ")
            .expect("half of one");
        drop(run);
        assert_eq!(states(&store)[0], State::Interrupted);
        let runs = store.runs().expect("it is readable");
        assert_eq!(lines(&runs[0]).len(), 1);
    }

    #[test]
    fn all_of_it_is_for_its_owner_and_no_folder_of_others_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history");
        let store = Store::at(&path);
        let run = store.begin(begun(1)).expect("it begins");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&run.folder), 0o700);
        assert_eq!(mode(&run.folder.join(RUN)), 0o600);
        assert_eq!(mode(&run.folder.join(EVENTS)), 0o600);
        let folder = run.folder.clone();
        run.end(ended(), None).expect("its end");
        assert_eq!(mode(&folder.join(RUN)), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("ours");
        assert!(store.begin(begun(2)).is_err());
    }

    #[test]
    fn old_runs_go_but_the_newest_ten_and_those_at_work_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let at_work = store.begin(begun(1)).expect("it begins");
        for second in 2..=15 {
            let run = store.begin(begun(second)).expect("it begins");
            run.end(ended(), None).expect("its end");
        }
        fs::create_dir(folder.path().join("notes")).expect("somebody's folder");
        let day = |days: i64| Timestamp::from_second(days * 86_400).expect("a time");
        store.prune(day(89)).expect("nothing to do");
        assert_eq!(states(&store).len(), 15);
        store.prune(day(91)).expect("it prunes");
        let left = store.runs().expect("it is readable");
        assert_eq!(left.len(), 11);
        assert_eq!(left[10].entry.begun.id, at_work.begun().id);
        assert!(folder.path().join("notes").is_dir());
    }
}

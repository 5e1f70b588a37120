//! The folders of the history: made, locked, read and removed.
//!
//! A run's folder is made beside and renamed when it is whole and locked, so that nobody sees
//! half of one. Its `run.json` stays locked while the run is at work; what is neither locked
//! nor ended was interrupted. All of it is for its owner only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value as Json;

use super::entry::FORMAT;
use super::{Begun, Ended, Entry, EntryId, OpenDrift, State, Told};

/// Most runs that are kept.
const MOST_RUNS: usize = 500;

/// For how long runs are kept, hours: 90 days.
const LONGEST_HOURS: i64 = 90 * 24;

/// Most bytes of all runs together.
const MOST_BYTES: u64 = 2 << 30;

/// How many of the newest are kept whatever their age and size.
const AT_LEAST: usize = 10;

/// Most bytes of a `run.json`.
const MOST_ENTRY: u64 = 1 << 20;

/// Most bytes of the lines of one run that are read.
const MOST_LINES: u64 = 1 << 30;

/// Most bytes of a last line.
const MOST_LAST_LINE: u64 = 1 << 18;

/// The file of a run that says what it is.
const RUN: &str = "run.json";

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
        let text = File::open(self.folder.join(TOLD)).and_then(|file| {
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
        all.retain(|_, told| told.values().any(|memory| memory.told >= oldest));
        all.insert(to, told);
        let beside = self.folder.join(format!(".{TOLD}.new"));
        // What somebody has left who was killed here; nobody else is, for we have the lock.
        let _ = fs::remove_file(&beside);
        let mut file = create(&beside)?;
        file.write_all(serde_json::to_string(&all).unwrap_or_default().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, self.folder.join(TOLD))
    }

    /// Removes what is over the bounds; what is at work stays.
    ///
    /// # Errors
    /// The folder cannot be read, or something in it not be removed.
    pub fn prune(&self, now: Timestamp) -> io::Result<()> {
        let oldest = now - SignedDuration::from_hours(LONGEST_HOURS);
        let mut bytes = 0_u64;
        for (number, kept) in self.runs()?.into_iter().enumerate() {
            bytes = bytes.saturating_add(kept.bytes());
            let over =
                number >= MOST_RUNS || bytes > MOST_BYTES || kept.entry.begun.started < oldest;
            if number >= AT_LEAST && over && kept.state != State::AtWork {
                match fs::remove_dir_all(&kept.folder) {
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

    /// Says that the run has ended, and lets go of the lock.
    ///
    /// # Errors
    /// The disk is full, and the like.
    pub fn end(self, ended: Ended) -> io::Result<()> {
        self.events.sync_all()?;
        let beside = self.folder.join(format!(".{RUN}.new"));
        let mut file = create(&beside)?;
        file.write_all(text(&self.begun, Some(ended)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, self.folder.join(RUN))?;
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

    /// The lines that the run told, in their order. What is no line of ours, such as the half
    /// of one that a crash has left, is passed over.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn lines(&self) -> io::Result<Vec<Json>> {
        let mut text = Vec::new();
        let file = File::open(self.folder.join(EVENTS))?;
        file.take(MOST_LINES).read_to_end(&mut text)?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    fn bytes(&self) -> u64 {
        let size = |name: &str| fs::metadata(self.folder.join(name)).map_or(0, |meta| meta.len());
        size(RUN) + size(EVENTS)
    }
}

/// The run in a folder; none where it holds no run that this tool can read.
fn read(folder: &Path) -> Option<Kept> {
    let file = File::open(folder.join(RUN)).ok()?;
    // Whoever holds it writes; without an end in it, somebody works or was interrupted.
    let at_work = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    let mut text = Vec::new();
    (&file).take(MOST_ENTRY).read_to_end(&mut text).ok()?;
    let mut entry: Entry = serde_json::from_slice(&text).ok()?;
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
    let mut file = File::open(path).ok()?;
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
    (summary["type"] == "summary").then_some(Ended {
        at,
        summary,
        open: OpenDrift::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::history::Asked;

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
            open: OpenDrift::new(),
        }
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
        one.end(ended()).expect("its end");
        assert_eq!(states(&store), [State::AtWork, State::Ended]);
        drop(two);
        assert_eq!(states(&store), [State::Interrupted, State::Ended]);
        let runs = store.runs().expect("it is readable");
        let end = runs[1].entry.ended.as_ref().expect("it ended");
        assert_eq!(end.exit(), Some(2));
        assert_eq!(
            runs[1].lines().expect("lines"),
            [json!({"type": "host_end"})]
        );
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
        assert_eq!(runs[0].lines().expect("lines").len(), 1);
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
        run.end(ended()).expect("its end");
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
            run.end(ended()).expect("its end");
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

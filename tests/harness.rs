//! What tests of whole commands share: a scratch folder, the binary, and looking
//! at a tree of files. Every command's JSON output is held against the published schemas.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::lines;

/// A folder for one test, with its own home and its own simulated fleet.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// A command that has ended; -1 is one that a signal has. Where `deploy` has told it in
    /// lines of JSON, they are checked.
    #[track_caller]
    pub(crate) fn new(code: i32, out: String, err: String) -> Self {
        let ended = Self { code, out, err };
        if lines::are(&ended.out) {
            ended.is_in_lines();
        }
        ended
    }

    /// Fails the test unless what was told is as the schemas say, and fits the exit code.
    #[track_caller]
    fn is_in_lines(&self) {
        lines::check(&self.out, self.code).unwrap_or_else(|why| panic!("{why}\n{}", self.all()));
    }

    /// Both streams, for messages of failed tests.
    pub(crate) fn all(&self) -> String {
        format!(
            "exit {}\n--- out\n{}\n--- err\n{}",
            self.code, self.out, self.err
        )
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.all());
        self
    }

    /// Fails the test unless one of the streams has `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.out.contains(text) || self.err.contains(text),
            "`{text}` is missing in {}",
            self.all()
        );
        self
    }
}

/// What the commands of a test have kept of what they told is in form, too, whatever they
/// printed.
impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for run in fs::read_dir(self.history()).into_iter().flatten().flatten() {
            let told = fs::read_to_string(run.path().join("events.jsonl")).unwrap_or_default();
            lines::check_told(&told).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(dir.path().join("home/.ssh")).expect("a home");
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file below the scratch folder and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("it has a parent")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Where the runs of this test are kept.
    pub(crate) fn history(&self) -> PathBuf {
        self.path().join("history")
    }

    /// A command with the scratch folder as home and state, and no terminal.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.path().join("home"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("DEPLOY_HISTORY", self.history())
            .env_remove("SSH_AUTH_SOCK")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `deploy`.
    #[track_caller]
    pub(crate) fn deploy<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Ended {
        let mut command = self.command(env!("CARGO_BIN_EXE_deploy"));
        command.args(args);
        ran(&mut command)
    }
}

/// Runs `deploy` to its end, however it is wrapped.
#[track_caller]
pub(crate) fn ran(command: &mut Command) -> Ended {
    let output = command.output().expect("deploy starts");
    let ended = ended(output);
    let words: Vec<_> = command.get_args().collect();
    if lines::asked_for(&words) {
        ended.is_in_lines();
    }
    ended
}

#[track_caller]
pub(crate) fn ended(output: Output) -> Ended {
    Ended::new(
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// What stands at a path: kind, mode, owner, time of the last change and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified_ns: i128,
    content: Vec<u8>,
}

/// Everything below a folder, by relative path.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    tree_but(root, &|_| false)
}

/// The same without what stands at paths that are to be left out.
pub(crate) fn tree_but(root: &Path, left_out: &dyn Fn(&Path) -> bool) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    walk(root, root, left_out, &mut seen);
    seen
}

/// The same without times: what a host is, not when it became so.
pub(crate) fn tree_without_times(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let seen = tree(root).into_iter();
    seen.map(|(path, seen)| (path, seen.without_time()))
        .collect()
}

impl Seen {
    /// What it is, not when it became so.
    pub(crate) fn without_time(mut self) -> Self {
        self.modified_ns = 0;
        self
    }
}

fn walk(
    root: &Path,
    folder: &Path,
    left_out: &dyn Fn(&Path) -> bool,
    seen: &mut BTreeMap<PathBuf, Seen>,
) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if left_out(&path) {
            continue;
        }
        let content = if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_default();
            target.into_os_string().into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(&path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let relative = path.strip_prefix(root).expect("below the root").to_owned();
        seen.insert(
            relative,
            Seen {
                mode: meta.permissions().mode(),
                owner: (meta.uid(), meta.gid()),
                modified_ns: i128::from(meta.mtime()) * 1_000_000_000
                    + i128::from(meta.mtime_nsec()),
                content,
            },
        );
        if meta.is_dir() {
            walk(root, &path, left_out, seen);
        }
    }
}

/// The names that differ between two trees, for messages of failed tests.
pub(crate) fn differing(a: &BTreeMap<PathBuf, Seen>, b: &BTreeMap<PathBuf, Seen>) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = a
        .iter()
        .filter(|(path, seen)| b.get(*path) != Some(seen))
        .map(|(path, _)| path.clone())
        .collect();
    names.extend(b.keys().filter(|path| !a.contains_key(*path)).cloned());
    names
}

/// The file below a folder whose path ends so; fails the test if there is none.
#[track_caller]
pub(crate) fn below(folder: &Path, end: &str) -> PathBuf {
    let found = tree(folder).into_keys().find(|path| path.ends_with(end));
    let Some(found) = found else {
        panic!("nothing below {} ends with {end}", folder.display());
    };
    folder.join(found)
}

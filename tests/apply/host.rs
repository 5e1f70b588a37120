//! A host in a folder: a root prefix, a shell of choice first on its PATH, and
//! plans of plain file steps made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use deploy::apply::manifest::Purpose;
use deploy::apply::{self, HostResult, RunContext, RunId};
use deploy::event::Event;
use deploy::plan::{Applied, AppliedKey, HostPlan};
use deploy::shell::{Command, Script};
use deploy::step::{Change, PathLook, Payload, Step, StepId};
use deploy::transport::{
    Boxed, Exec, Output, Probe, Read, Reply, Session, TransportError, Unreachable,
};
use deploy::value::HostName;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// The shells that hosts have.
pub(super) const SHELLS: [&str; 3] = ["dash", "bash", "busybox"];

pub(super) struct Host {
    folder: TempDir,
    runs: u32,
    /// Programs that are hidden from it.
    pub(super) without: &'static [&'static str],
}

impl Host {
    /// A host whose `sh` is `shell`; on `busybox` all its programs are too.
    pub(super) fn new(shell: &str) -> Self {
        // In memory where that is possible: the runner flushes after each line.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary folder");
        let host = Self {
            folder,
            runs: 0,
            without: &[],
        };
        fs::create_dir(host.root()).expect("a fresh folder");
        fs::create_dir(host.root().join("etc")).expect("a fresh folder");
        fs::create_dir_all(host.root().join("var/lib")).expect("a fresh folder");
        fs::create_dir(host.bin()).expect("a fresh folder");
        let program = which(shell);
        if shell == "busybox" {
            let list = std::process::Command::new(&program)
                .arg("--list")
                .output()
                .expect("busybox runs");
            for name in String::from_utf8_lossy(&list.stdout).lines() {
                symlink(&program, host.bin().join(name)).expect("a fresh link");
            }
        } else {
            symlink(&program, host.bin().join("sh")).expect("a fresh link");
        }
        host
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(super) fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root().join("var/lib/deploy")
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(super) fn write(&self, path: &str, content: &[u8], mode: u32) {
        fs::write(self.at(path), content).expect("the folder is there");
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("our file");
    }

    pub(super) fn command(&self, command: &Command) -> tokio::process::Command {
        let mut process = if self.without.is_empty() {
            tokio::process::Command::new(self.bin().join("sh"))
        } else {
            // In a mount namespace of its own nothing can be executed at their paths.
            let mut hide = String::new();
            for program in self.without {
                let path = which(program);
                hide.push_str(&format!("mount --bind /dev/null {} && ", path.display()));
            }
            let mut process = tokio::process::Command::new("unshare");
            process
                .args(["-rm", "sh", "-c"])
                .arg(format!("{hide} exec \"$@\""))
                .arg("hide")
                .arg(self.bin().join("sh"));
            process
        };
        let path = std::env::var("PATH").unwrap_or_default();
        process
            .arg("-c")
            .arg(command.to_sh())
            .env_clear()
            .env("PATH", format!("{}:{path}", self.bin().display()))
            .env("R", self.root())
            .kill_on_drop(true);
        process
    }

    pub(super) fn session(&self) -> Folder<'_> {
        Folder(self)
    }

    pub(super) fn context(&mut self) -> RunContext {
        self.runs += 1;
        let started = "2026-11-22T21:00:00Z".parse().expect("a time");
        RunContext {
            host: HostName::from("h1"),
            run: RunId::new(started, self.runs),
            who: "ada".to_owned(),
            from: "desk".to_owned(),
            started,
            purpose: Purpose::Applying,
            host_library: String::new(),
            remembered: format!("reads of run {}\n", self.runs).into_bytes(),
        }
    }

    /// Applies a plan to its end.
    pub(super) async fn apply(&mut self, plan: &HostPlan) -> (HostResult, Vec<Event>) {
        let context = self.context();
        self.apply_as(plan, &context).await
    }

    pub(super) async fn apply_as(
        &self,
        plan: &HostPlan,
        context: &RunContext,
    ) -> (HostResult, Vec<Event>) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let result = apply::run(Box::new(self.session()), self, plan, context, &sender).await;
        drop(sender);
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        (result, events)
    }

    /// All paths but our own state and the times of directories.
    pub(super) fn look(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        look(&self.root(), &self.state(), &mut found);
        found
    }

    /// The same with our own state, and the times of everything.
    pub(super) fn look_at_all(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        look(&self.root(), Path::new("/nowhere"), &mut found);
        for (path, look) in &mut found {
            let stat = fs::symlink_metadata(path).expect("it was there");
            look.push_str(&format!(" {}.{}", stat.mtime(), stat.mtime_nsec()));
        }
        found
    }

    pub(super) fn status(&self, run: &RunId) -> String {
        fs::read_to_string(self.at(&run.directory()).join("status"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

fn look(path: &Path, without: &Path, found: &mut BTreeMap<PathBuf, String>) {
    if path == without {
        return;
    }
    let stat = fs::symlink_metadata(path).expect("a listed path");
    let owner = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
    let text = if stat.is_symlink() {
        let target = fs::read_link(path).expect("a link");
        format!("link {:?}", target.as_os_str().as_bytes())
    } else if stat.is_dir() {
        let mut inner: Vec<PathBuf> = fs::read_dir(path)
            .expect("a folder")
            .map(|entry| entry.expect("readable").path())
            .collect();
        inner.sort();
        for path in inner {
            look(&path, without, found);
        }
        format!("dir {owner}")
    } else if stat.is_file() {
        let hash = sha256(&fs::read(path).expect("a file"));
        // Whole seconds: busybox keeps no more of a file's time.
        format!("file {owner} {hash} {}", stat.mtime())
    } else {
        format!("other {owner}")
    };
    found.insert(path.to_owned(), text);
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(super) fn which(program: &str) -> PathBuf {
    std::env::split_paths("/usr/local/bin:/usr/bin:/bin")
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("`{program}` is not installed; tests/run installs it"))
}

impl apply::Connect for Host {
    fn connect(&self) -> Boxed<'_, Result<Box<dyn Session + '_>, Unreachable>> {
        Box::pin(async { Ok(Box::new(self.session()) as Box<dyn Session + '_>) })
    }
}

/// A session that runs everything in the host's shell; dropping its future kills
/// the shell, as a cut connection does.
pub(super) struct Folder<'a>(&'a Host);

impl Probe for Folder<'_> {
    fn batch<'a>(&'a mut self, reads: &'a [Read]) -> Boxed<'a, Result<Vec<Reply>, TransportError>> {
        Box::pin(async move {
            let mut replies = Vec::new();
            for read in reads {
                let Read::Command { command, .. } = read else {
                    panic!("only commands are read here");
                };
                let output = self.0.command(command).output().await.expect("a shell");
                replies.push(Reply::Command(Output {
                    status: output.status.code().unwrap_or(255),
                    stdout: output.stdout,
                    stderr: output.stderr,
                    ..Output::default()
                }));
            }
            Ok(replies)
        })
    }
}

impl Session for Folder<'_> {
    fn exec<'a>(
        &'a mut self,
        exec: &'a Exec,
        on_output: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Boxed<'a, Result<Output, TransportError>> {
        Box::pin(async move {
            let mut child = self
                .0
                .command(&exec.command)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("a shell");
            let mut stdin = child.stdin.take().expect("piped");
            let mut stdout = child.stdout.take().expect("piped");
            let mut stderr = child.stderr.take().expect("piped");
            let mut errors = Vec::new();
            let input = async {
                // The receiver may end first; what it says tells why.
                let _ = stdin.write_all(&exec.stdin).await;
                drop(stdin);
            };
            let output = async {
                let mut buffer = [0; 4096];
                while let Ok(size) = stdout.read(&mut buffer).await {
                    if size == 0 {
                        break;
                    }
                    on_output(&buffer[..size]);
                }
            };
            let (_, _, read) = tokio::join!(input, output, stderr.read_to_end(&mut errors));
            read.expect("a pipe");
            let status = child.wait().await.expect("our child");
            Ok(Output {
                status: status.code().unwrap_or(255),
                stderr: errors,
                ..Output::default()
            })
        })
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async {})
    }
}

/// What a path is to be.
#[derive(Clone)]
pub(super) enum Want {
    Absent,
    File(Vec<u8>, u32),
    Dir(u32),
    Link(String),
}

fn me() -> (String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stat = fs::metadata(folder.path()).expect("our folder");
    (stat.uid().to_string(), stat.gid().to_string())
}

/// A step that makes `path` what `want` says, checked against what is there now.
pub(super) fn step(host: &Host, index: usize, path: &str, want: &Want) -> Step {
    let (user, group) = me();
    let key = format!("k{index}");
    let payload = format!("p{index}");
    let at = host.at(path);
    let check = match fs::symlink_metadata(&at) {
        Err(_) => Command::new("path_is_absent").path(path),
        Ok(stat) if stat.is_symlink() => {
            let target = fs::read_link(&at).expect("a link");
            Command::new("path_is_link")
                .path(path)
                .arg(target.to_string_lossy())
        }
        Ok(stat) if stat.is_dir() => Command::new("path_is_dir").path(path).args([
            format!("{:o}", stat.mode() & 0o7777),
            stat.uid().to_string(),
            stat.gid().to_string(),
        ]),
        Ok(stat) => Command::new("path_is_file").path(path).args([
            sha256(&fs::read(&at).expect("a file")),
            format!("{:o}", stat.mode() & 0o7777),
            stat.uid().to_string(),
            stat.gid().to_string(),
        ]),
    };
    let attributes = |mode: u32| [format!("{mode:04o}"), user.clone(), group.clone()];
    let (apply, verify) = match want {
        Want::Absent => (
            Command::new("remove_path").path(path),
            Command::new("path_is_absent").path(path),
        ),
        Want::File(content, mode) => (
            Command::new("put_file")
                .run_path(format!("payload/{payload}"))
                .path(path)
                .args(attributes(*mode)),
            Command::new("path_is_file")
                .path(path)
                .arg(sha256(content))
                .args(attributes(*mode)),
        ),
        Want::Dir(mode) => (
            Command::new("put_dir").path(path).args(attributes(*mode)),
            Command::new("path_is_dir")
                .path(path)
                .args(attributes(*mode)),
        ),
        Want::Link(target) => (
            Command::new("put_link").path(path).arg(target),
            Command::new("path_is_link").path(path).arg(target),
        ),
    };
    let payload = match want {
        Want::File(content, _) => vec![Payload {
            name: payload,
            content: content.clone(),
        }],
        _ => Vec::new(),
    };
    let change = Change::Path {
        path: path.to_owned(),
        before: PathLook::Absent,
        after: PathLook::Absent,
    };
    let (id, title) = (StepId(format!("file:{path}")), format!("write {path}"));
    Step {
        check: Script::one(check),
        snapshot: Script::one(Command::new("path_snapshot").arg(&key).path(path)),
        apply: Script::one(apply),
        verify: Script::one(verify),
        undo: Script::one(Command::new("path_restore").arg(&key).path(path)),
        payload,
        timeout_s: 30,
        ..Step::new(id, "test", title, change)
    }
}

/// A plan that makes these paths, in this order.
pub(super) fn plan(host: &Host, wants: &[(&str, Want)]) -> HostPlan {
    let steps = wants
        .iter()
        .enumerate()
        .map(|(index, (path, want))| step(host, index, path, want))
        .collect();
    HostPlan {
        steps,
        desired: serde_json::json!({"a": 1}),
        applied: Some(Box::new(applied("gpu-0", wants.len()))),
        ..HostPlan::default()
    }
}

/// What is recorded for drift, with a text that not every shell's `read` would keep.
pub(super) fn applied(key: &str, count: usize) -> Applied {
    let key = AppliedKey::try_from(key.to_owned()).expect("letters, digits, dashes");
    let record = serde_json::json!({"count": count, "text": "ü\\\n".repeat(500)});
    Applied {
        record: record.as_object().cloned().unwrap_or_default(),
        key,
    }
}

/// Paths with names of every awkward kind, a directory, links, set-id bits.
pub(super) fn odd_wants() -> Vec<(&'static str, Want)> {
    vec![
        ("/etc/plain.conf", Want::File(b"new\n".to_vec(), 0o640)),
        (
            "/etc/a b 'c' \"d\" $x `y` \\z",
            Want::File(b"quotes".to_vec(), 0o4755),
        ),
        ("/etc/-rf", Want::File(b"\0\xff\n\n".to_vec(), 0o600)),
        ("/etc/new\nline\n", Want::File(Vec::new(), 0o644)),
        ("/etc/ünïcödé Á", Want::File("ü".as_bytes().to_vec(), 0o644)),
        ("/etc/dir", Want::Dir(0o2750)),
        ("/etc/dir/inner", Want::File(vec![7; 300_000], 0o400)),
        ("/etc/link", Want::Link("../a b\n'x'\n".to_owned())),
        ("/etc/was-link", Want::File(b"file now".to_vec(), 0o644)),
        ("/etc/gone", Want::Absent),
    ]
}

/// A host that has some of them already, with contents and modes of its own.
pub(super) fn odd_host(shell: &str) -> Host {
    let host = Host::new(shell);
    host.write("/etc/plain.conf", b"old\n", 0o4711);
    host.write("/etc/-rf", b"old", 0o604);
    host.write("/etc/gone", b"still here", 0o1644);
    fs::create_dir(host.at("/etc/target")).expect("a fresh folder");
    symlink("target", host.at("/etc/was-link")).expect("a fresh link");
    symlink("old\n", host.at("/etc/link")).expect("a fresh link");
    let old = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000));
    for path in ["/etc/plain.conf", "/etc/-rf", "/etc/gone"] {
        let file = fs::File::options()
            .write(true)
            .open(host.at(path))
            .expect("our file");
        file.set_times(old).expect("our file");
    }
    host
}

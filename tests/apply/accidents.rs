//! What befalls hosts: a killed runner, a full disk, tools that are not there.

use std::fs;
use std::path::Path;
use std::process::Command as Process;

use deploy::apply::rollback::{self, Moved};
use deploy::apply::runs::{self, Status};
use deploy::event::{Event, Outcome};
use deploy::shell::Command;
use deploy::transport::{Boxed, Exec, Output, Probe, Read, Reply, Session, TransportError};
use deploy::value::HostName;

use super::host::{Host, SHELLS, Want, odd_host, odd_wants, plan};
use super::transaction::problem;

/// Says that it is there, and waits.
pub(super) const WAIT: &str =
    ": >\"$R/here\"; until [ -e \"$R/go\" ]; do sleep 0.05; done; rm \"$R/here\"";

/// Waits until a step waits; the limit only ends a test that has failed.
pub(super) async fn until_there(host: &Host) {
    for _ in 0..6000 {
        if host.root().join("here").exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no step waits");
}

/// Signals the runner once its step waits; a second time it does nothing, as the
/// step's undo is told as a start too.
async fn signal(host: &Host, run: &deploy::apply::RunId, signal: &str, sent: &mut bool) {
    if std::mem::replace(sent, true) {
        return;
    }
    until_there(host).await;
    fs::remove_file(host.root().join("here")).expect("the step has made it");
    let pid = pid_of(&host.at(&run.directory()).join("runner.sh")).to_string();
    let status = Process::new("kill").args([signal, &pid]).status();
    assert!(status.expect("kill runs").success());
}

/// The process that runs this script of ours.
fn pid_of(script: &Path) -> u32 {
    let wanted = script.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .expect("a Linux system")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            // The shell itself, not one of its children that were just forked.
            let is = words.nth(1)? == wanted.as_bytes() && words.next() == Some(b"run");
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Field 6 is the session: it leads its own.
            let session = stat.rsplit(')').next()?.split_whitespace().nth(3)?.parse();
            (is && session == Ok(pid)).then_some(pid)
        })
        .next()
        .expect("the runner is at it")
}

#[tokio::test]
async fn what_a_killed_runner_had_begun_is_undone_by_the_guard() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[4]
            .apply
            .0
            .push(Command::new("sh").arg("-c").arg(WAIT));
        let context = host.context();
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let mut sent = false;
        let result = {
            let session = Box::new(host.session());
            let run = deploy::apply::run(session, &host, &wanted, &context, &sender);
            tokio::pin!(run);
            loop {
                tokio::select! {
                    result = &mut run => break result,
                    event = events.recv() => {
                        if let Some(Event::StepStart { step, .. }) = event
                            && step == wanted.steps[4].id
                        {
                            signal(&host, &context.run, "-KILL", &mut sent).await;
                        }
                    }
                }
            }
        };
        assert_eq!(
            result.outcome,
            Outcome::RolledBack,
            "{shell}: {}",
            problem(&result)
        );
        assert!(problem(&result).contains("its runner was ended from outside"));
        let list = runs::read(&mut host.session(), None)
            .await
            .expect("in form");
        assert_eq!(list.runs[0].status, Status::Undone, "{shell}");
        assert_eq!(list.lock, None, "{shell}");
        assert_eq!(host.look(), before, "{shell}");
        // The step that was left behind is gone: nothing changes the host any more.
        fs::write(host.root().join("go"), "").expect("our folder");
        let next = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        let (result, _) = host.apply(&next).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
    }
}

#[tokio::test]
async fn a_runner_that_is_asked_to_end_undoes_first() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[4]
            .apply
            .0
            .push(Command::new("sh").arg("-c").arg(WAIT));
        let context = host.context();
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let session = Box::new(host.session());
        let mut sent = false;
        let run = deploy::apply::run(session, &host, &wanted, &context, &sender);
        tokio::pin!(run);
        let result = loop {
            tokio::select! {
                result = &mut run => break result,
                event = events.recv() => {
                    if let Some(Event::StepStart { step, .. }) = event
                        && step == wanted.steps[4].id
                    {
                        signal(&host, &context.run, "-TERM", &mut sent).await;
                    }
                }
            }
        };
        assert_eq!(
            result.outcome,
            Outcome::RolledBack,
            "{shell}: {}",
            problem(&result)
        );
        assert_eq!(host.look(), before, "{shell}");
    }
}

#[tokio::test]
async fn a_host_without_flock_and_setsid_is_served_and_locked_too() {
    let can = Process::new("unshare").args(["-rm", "true"]).status();
    assert!(
        can.is_ok_and(|status| status.success()),
        "this test needs `unshare -rm`: user namespaces, or root"
    );
    for shell in ["dash", "bash"] {
        let mut host = odd_host(shell);
        host.without = &["flock", "setsid"];
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[3]
            .apply
            .0
            .push(Command::new("sh").arg("-c").arg(WAIT));
        let quick = plan(&host, &[("/etc/y", Want::File(b"2".to_vec(), 0o644))]);
        let (first, second) = (host.context(), host.context());
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        {
            let session = Box::new(host.session());
            let run = deploy::apply::run(session, &host, &wanted, &first, &sender);
            tokio::pin!(run);
            loop {
                tokio::select! {
                    result = &mut run => panic!("the step waits for us: {}", problem(&result)),
                    event = events.recv() => {
                        if let Some(Event::StepStart { step, .. }) = event
                            && step == wanted.steps[3].id
                        {
                            break;
                        }
                    }
                }
            }
            let (refused, _) = host.apply_as(&quick, &second).await;
            assert_eq!(
                refused.outcome,
                Outcome::Locked,
                "{shell}: {}",
                problem(&refused)
            );
            assert!(
                problem(&refused).contains("by ada from desk"),
                "{}",
                problem(&refused)
            );
            fs::write(host.root().join("go"), "").expect("our folder");
            let result = run.await;
            assert_eq!(
                result.outcome,
                Outcome::Changed,
                "{shell}: {}",
                problem(&result)
            );
        }
        fs::remove_file(host.root().join("go")).expect("our file");
        // A lock whose maker is gone is taken over.
        std::os::unix::fs::symlink("999999999", host.state().join("lock.pid")).expect("it is free");
        let list = runs::read(&mut host.session(), None)
            .await
            .expect("in form");
        let record = rollback::pick(&list, None).expect("nobody is at it");
        let record = record.expect("one is applied");
        let name = HostName::from("h1");
        let session = Box::new(host.session());
        let moved = Moved::Refuse;
        let undone = rollback::undo(session, &host, record, "ada", moved, &name, &sender).await;
        assert_eq!(
            undone.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&undone)
        );
        assert_eq!(host.look(), before, "{shell}");
    }
}

/// A small file system of its own at a folder of the host, for as long as it lives.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("our folder");
        let mounted = Process::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=755"),
                "tmpfs",
            ])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_all_as_before() {
    for shell in SHELLS {
        // The target's file system first, then the one with our own state.
        for (full, size) in [("/srv", "200k"), ("/var/lib/deploy", "200k")] {
            let mut host = Host::new(shell);
            let Some(_mounted) = Small::mount(&host.at(full), size) else {
                let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
                assert!(
                    without.split(',').any(|name| name == "root"),
                    "did not run: it takes the right to mount (root)"
                );
                return;
            };
            fs::create_dir_all(host.at("/srv")).expect("our folder");
            host.write("/srv/a", &[b'a'; 60_000], 0o640);
            let before = host.look();
            let wanted = plan(
                &host,
                &[
                    ("/srv/a", Want::File(vec![b'b'; 70_000], 0o600)),
                    ("/srv/b", Want::File(vec![b'c'; 150_000], 0o600)),
                ],
            );
            let (result, _) = host.apply(&wanted).await;
            assert!(
                matches!(result.outcome, Outcome::Failed | Outcome::RolledBack),
                "{shell}, {full}: {}",
                problem(&result)
            );
            assert!(
                problem(&result).contains("No space left"),
                "{}",
                problem(&result)
            );
            assert_eq!(host.look(), before, "{shell}, {full}");
        }
    }
}

/// A connection that is gone: what is sent on it arrives up to some byte, or not at all.
struct Gone<'a> {
    host: &'a Host,
    arrives: usize,
}

impl Probe for Gone<'_> {
    fn batch<'a>(&'a mut self, _: &'a [Read]) -> Boxed<'a, Result<Vec<Reply>, TransportError>> {
        Box::pin(async { Err(lost()) })
    }
}

impl Session for Gone<'_> {
    fn exec<'a>(
        &'a mut self,
        exec: &'a Exec,
        _: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Boxed<'a, Result<Output, TransportError>> {
        Box::pin(async move {
            if self.arrives > 0 {
                let part = Exec {
                    stdin: exec.stdin[..self.arrives].to_vec(),
                    ..exec.clone()
                };
                let mut session = self.host.session();
                let _ = session.exec(&part, &mut |_| {}).await;
            }
            Err(lost())
        })
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async {})
    }
}

fn lost() -> TransportError {
    TransportError::Lost("it is gone".to_owned())
}

#[tokio::test]
async fn a_run_that_did_not_arrive_is_sent_once_more_over_a_new_connection() {
    for shell in SHELLS {
        for arrives in [0, 1000] {
            let mut host = odd_host(shell);
            let wanted = plan(&host, &odd_wants());
            let context = host.context();
            let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
            let gone = Box::new(Gone {
                host: &host,
                arrives,
            });
            let result = deploy::apply::run(gone, &host, &wanted, &context, &sender).await;
            assert_eq!(
                result.outcome,
                Outcome::Changed,
                "{shell}, {arrives}: {}",
                problem(&result)
            );
            assert_eq!(host.status(&context.run), "done");
        }
    }
}

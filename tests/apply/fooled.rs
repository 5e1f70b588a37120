//! What could make a host, its guard or its controller believe what is not so.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use deploy::apply::rollback::{self, Moved};
use deploy::apply::{Connect, RunId, runs};
use deploy::event::{Event, Outcome};
use deploy::shell::Command;
use deploy::transport::{
    Boxed, Exec, Output, Probe, Read, Reply, Session, TransportError, Unreachable,
    UnreachableReason,
};
use deploy::value::HostName;

use super::accidents::{WAIT, until_there};
use super::host::{Host, SHELLS, Want, odd_host, odd_wants, plan};
use super::transaction::problem;

/// A connection on which the request is not heard before its host is given up.
struct Late(std::sync::Arc<std::sync::Mutex<Option<Exec>>>);

impl Probe for Late {
    fn batch<'a>(&'a mut self, _: &'a [Read]) -> Boxed<'a, Result<Vec<Reply>, TransportError>> {
        Box::pin(async { Err(TransportError::Lost("it is gone".to_owned())) })
    }
}

impl Session for Late {
    fn exec<'a>(
        &'a mut self,
        exec: &'a Exec,
        _: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Boxed<'a, Result<Output, TransportError>> {
        *self.0.lock().expect("one user") = Some(exec.clone());
        Box::pin(async { Err(TransportError::Lost("it is gone".to_owned())) })
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async {})
    }
}

/// A host that can be reached once more, and then no more.
struct Once<'a>(&'a Host, AtomicUsize);

impl Connect for Once<'_> {
    fn connect(&self) -> Boxed<'_, Result<Box<dyn Session + '_>, Unreachable>> {
        Box::pin(async {
            match self.1.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(Box::new(self.0.session()) as Box<dyn Session + '_>),
                _ => Err(Unreachable {
                    reason: UnreachableReason::Down,
                    message: "it is gone".to_owned(),
                    hint: None,
                }),
            }
        })
    }
}

#[tokio::test]
async fn what_arrives_after_it_was_given_up_is_not_begun() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let wanted = plan(&host, &odd_wants());
        let context = host.context();
        let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
        let sent = std::sync::Arc::default();
        let result = {
            let late = Box::new(Late(std::sync::Arc::clone(&sent)));
            let once = Once(&host, AtomicUsize::new(0));
            deploy::apply::run(late, &once, &wanted, &context, &sender).await
        };
        assert_eq!(result.outcome, Outcome::Failed, "{shell}");
        assert!(
            problem(&result).contains("nothing was changed"),
            "{shell}: {}",
            problem(&result)
        );
        let exec = sent.lock().expect("one user").take().expect("it was sent");
        let output = host.session().exec(&exec, &mut |_| {}).await;
        assert_ne!(output.expect("a shell").status, 0, "{shell}");
        assert_eq!(host.look(), before, "{shell}");
    }
}

/// Carries the plan out until its step waits at `WAIT`, does `then`, and gives the end.
async fn with_a_step_that_waits(
    host: &Host,
    wanted: &deploy::plan::HostPlan,
    context: &deploy::apply::RunContext,
    then: impl AsyncFnOnce(),
) -> deploy::apply::HostResult {
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel::<Event>();
    let run = deploy::apply::run(Box::new(host.session()), host, wanted, context, &sender);
    let meanwhile = async {
        until_there(host).await;
        then().await;
    };
    tokio::join!(run, meanwhile).0
}

fn waiting() -> Command {
    Command::new("sh").arg("-c").arg(WAIT)
}

fn file_of(host: &Host, run: &RunId, name: &str) -> std::path::PathBuf {
    host.at(&run.directory()).join(name)
}

/// Has the guard look once.
async fn tick(host: &Host, run: &RunId) {
    let guard = format!("{}/guard.sh", run.directory());
    let command = Command::new("sh").path(guard).arg("tick");
    host.command(&command).status().await.expect("a shell");
}

#[tokio::test]
async fn where_somebody_removes_the_lock_two_never_work_at_once() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[2].apply.0.push(waiting());
        let context = host.context();
        let result = with_a_step_that_waits(&host, &wanted, &context, async || {
            fs::remove_file(host.state().join("lock")).expect("it is held");
            tick(&host, &context.run).await;
        })
        .await;
        assert_eq!(result.outcome, Outcome::RolledBack, "{shell}");
        fs::remove_file(host.root().join("here")).expect("the step made it");
        assert_eq!(host.look(), before, "{shell}");
        let journal =
            fs::read_to_string(file_of(&host, &context.run, "journal")).expect("it is kept");
        let undone = journal.matches(" undo ").count();
        assert_eq!(undone, 3, "{shell}: {journal}");
    }
}

#[tokio::test]
async fn a_deadline_of_an_earlier_boot_ends_no_runner() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[2].apply.0.push(waiting());
        let context = host.context();
        let result = with_a_step_that_waits(&host, &wanted, &context, async || {
            let deadline = file_of(&host, &context.run, "deadline");
            fs::write(deadline, "another-boot 1\n").expect("ours");
            tick(&host, &context.run).await;
            fs::write(host.root().join("go"), "").expect("our folder");
        })
        .await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
    }
}

#[tokio::test]
async fn a_status_that_cannot_be_read_is_no_end() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let wanted = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        let context = host.context();
        let (result, _) = host.apply_as(&wanted, &context).await;
        assert_eq!(result.outcome, Outcome::Changed);
        let armed = file_of(&host, &context.run, "armed");
        fs::write(&armed, "process\n").expect("ours");
        let status = file_of(&host, &context.run, "status");
        fs::write(&status, "").expect("ours");
        tick(&host, &context.run).await;
        assert!(armed.exists(), "{shell}: the guard stays");
        fs::write(&status, "done\n").expect("ours");
        tick(&host, &context.run).await;
        assert!(!armed.exists(), "{shell}: the guard goes");
    }
}

#[tokio::test]
async fn an_earlier_run_is_not_undone_while_another_is_open() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let first = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        let (result, _) = host.apply(&first).await;
        assert_eq!(result.outcome, Outcome::Changed);
        let second = plan(&host, &[("/etc/y", Want::File(b"2".to_vec(), 0o644))]);
        let context = host.context();
        let (result, _) = host.apply_as(&second, &context).await;
        assert_eq!(result.outcome, Outcome::Changed);
        fs::write(file_of(&host, &context.run, "status"), "unconfirmed\n").expect("ours");
        let before = host.look();
        let list = runs::read(&mut host.session(), None)
            .await
            .expect("in form");
        let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
        let name = HostName::from("h1");
        let session = Box::new(host.session());
        let earlier = &list.runs[1];
        let moved = Moved::Refuse;
        let result = rollback::undo(session, &host, earlier, "ada", moved, &name, &sender).await;
        assert_eq!(
            result.outcome,
            Outcome::Locked,
            "{shell}: {}",
            problem(&result)
        );
        assert_eq!(host.look(), before, "{shell}");
    }
}

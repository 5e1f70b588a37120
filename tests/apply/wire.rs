//! The same over the real wire: the long-lived shell that hosts are reached by.

use deploy::apply::{self, rollback, runs};
use deploy::event::Outcome;
use deploy::transport::local;
use deploy::value::HostName;

use super::host::{odd_host, odd_wants, plan};

#[tokio::test]
async fn a_plan_is_applied_listed_and_undone_on_one_connection() {
    let mut host = odd_host("dash");
    let before = host.look();
    let wanted = plan(&host, &odd_wants());
    let context = host.context();
    let connected = local::open(&host.root(), &[]).await.expect("a shell");
    let session = connected.session;
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let result = apply::run(session, &host, &wanted, &context, &sender).await;
    assert_eq!(result.outcome, Outcome::Changed, "{:?}", result.problem);

    let connected = local::open(&host.root(), &[]).await.expect("a shell");
    let mut session = connected.session;
    let found = runs::read(session.as_mut(), None).await.expect("in form");
    assert_eq!(found.current, Some(context.run.clone()));
    let record = rollback::pick(&found, None).expect("nobody is at it");
    let record = record.expect("one is applied");
    assert_eq!(record.manifest.host, "h1");
    let name = HostName::from("h1");
    let moved = rollback::Moved::Refuse;
    let result = rollback::undo(session, &host, record, "ada", moved, &name, &sender).await;
    assert_eq!(result.outcome, Outcome::Changed, "{:?}", result.problem);
    assert_eq!(host.look(), before);
}

#[tokio::test]
async fn a_session_that_is_dropped_leaves_the_host_to_end_by_itself() {
    let mut host = odd_host("dash");
    let mut wanted = plan(&host, &odd_wants());
    let wait = "until [ -e \"$R/go\" ]; do sleep 0.05; done";
    wanted.steps[3]
        .apply
        .0
        .insert(0, deploy::shell::Command::new("sh").arg("-c").arg(wait));
    let context = host.context();
    let connected = local::open(&host.root(), &[]).await.expect("a shell");
    let session = connected.session;
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    {
        let run = apply::run(session, &host, &wanted, &context, &sender);
        tokio::pin!(run);
        loop {
            tokio::select! {
                result = &mut run => panic!("the step waits for us: {result:?}"),
                event = events.recv() => {
                    if let Some(deploy::event::Event::StepStart { step, .. }) = event
                        && step == wanted.steps[3].id
                    {
                        break;
                    }
                }
            }
        }
    }
    // The future is gone, and with it the session.
    std::fs::write(host.root().join("go"), "").expect("our folder");
    while host.status(&context.run) != "done" {
        let journal = std::fs::read_to_string(host.at(&context.run.directory()).join("journal"));
        assert_eq!(host.status(&context.run), "running", "{journal:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

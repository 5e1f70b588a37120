//! Undoing a run on request, and what hosts tell of their runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use deploy::apply::rollback::{self, Moved};
use deploy::apply::runs::{self, HostRuns, Status};
use deploy::apply::{HostResult, RunId};
use deploy::event::{HostProblem, Outcome};
use deploy::shell::{Command, Script};
use deploy::value::HostName;

use super::host::{Host, SHELLS, Want, applied, odd_host, odd_wants, plan};

async fn read(host: &Host, run: Option<&RunId>) -> HostRuns {
    runs::read(&mut host.session(), run)
        .await
        .expect("the list is in form")
}

async fn undo(host: &Host, run: Option<&RunId>, moved: Moved) -> HostResult {
    let runs = read(host, run).await;
    let record = rollback::pick(&runs, run).expect("nobody is at it");
    let record = record.expect("there is one to undo");
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let name = HostName::from("h1");
    rollback::undo(
        Box::new(host.session()),
        host,
        record,
        "bob from desk",
        moved,
        &name,
        &sender,
    )
    .await
}

#[tokio::test]
async fn a_rollback_brings_everything_back() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let wanted = plan(&host, &odd_wants());
        let context = host.context();
        host.apply_as(&wanted, &context).await;
        assert_ne!(host.look(), before);
        let result = undo(&host, None, Moved::Refuse).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {:?}",
            result.problem
        );
        assert_eq!(host.look(), before, "{shell}");
        assert_eq!(host.status(&context.run), "rolled-back");
        assert!(!host.state().join("current.json").exists());
        assert!(!host.state().join("remembered").exists());
        assert!(!host.state().join("applied-gpu-0.json").exists());

        let runs = read(&host, None).await;
        assert_eq!(runs.runs[0].status, Status::RolledBack);
        let left = rollback::pick(&runs, None).expect("that is no error");
        assert_eq!(left, None);
        let refusal = rollback::pick(&runs, Some(&context.run)).expect_err("it was undone");
        assert!(refusal.message.contains("rolled back"));
    }
}

#[tokio::test]
async fn the_last_applied_run_is_undone_first_and_the_record_follows() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let one = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        let first = host.context();
        host.apply_as(&one, &first).await;
        let after_first = host.look();
        let record = fs::read(host.state().join("current.json")).expect("recorded");
        let two = plan(&host, &[("/etc/x", Want::File(b"2".to_vec(), 0o600))]);
        let second = host.context();
        host.apply_as(&two, &second).await;
        assert_eq!(read(&host, None).await.current, Some(second.run.clone()));

        // The older one would take back more than itself: it is no longer as it was left.
        let refused = undo(&host, Some(&first.run), Moved::Refuse).await;
        assert_eq!(refused.outcome, Outcome::Failed, "{shell}");
        let Some(HostProblem::Failed { chain, .. }) = &refused.problem else {
            panic!("a reason is told");
        };
        assert!(chain[1].contains("/etc/x"), "{shell}: {chain:?}");
        assert_eq!(host.status(&first.run), "done");

        let result = undo(&host, None, Moved::Refuse).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {:?}",
            result.problem
        );
        assert_eq!(host.look(), after_first, "{shell}");
        assert_eq!(
            fs::read(host.state().join("current.json")).expect("back"),
            record
        );
        assert_eq!(read(&host, None).await.current, Some(first.run.clone()));
    }
}

/// One for each selection of tasks: a run replaces its own, and its undo brings that back.
#[tokio::test]
async fn what_was_last_applied_is_recorded_for_each_selection_and_follows_a_rollback() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let record = |host: &Host, key: &str| {
            let path = host.state().join(format!("applied-{key}.json"));
            let text = fs::read_to_string(&path).ok()?;
            let stat = fs::metadata(&path).expect("it was read");
            assert_eq!(stat.mode() & 0o7777, 0o600, "{shell}: {key}");
            let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let started = "2026-11-22T21:00:00Z";
            assert_eq!(
                (&json["who"], &json["started"]),
                (&"ada".into(), &started.into())
            );
            assert_eq!(json["text"], "ü\\\n".repeat(500));
            Some((json["run"].as_str()?.to_owned(), json["count"].as_u64()?))
        };
        let with = |host: &Host, key: &str, wants: &[(&str, Want)]| {
            let mut wanted = plan(host, wants);
            wanted.applied = Some(Box::new(applied(key, wants.len())));
            wanted
        };
        let file = |path, text: &str| (path, Want::File(text.as_bytes().to_vec(), 0o644));

        let one = with(&host, "gpu-0", &[file("/etc/x", "1")]);
        let first = host.context();
        host.apply_as(&one, &first).await;
        let of_first = Some((first.run.to_string(), 1));
        assert_eq!(record(&host, "gpu-0"), of_first, "{shell}");

        // One that comes to nothing leaves the record as it is.
        let mut broken = with(&host, "gpu-0", &[file("/etc/x", "2"), file("/etc/y", "2")]);
        broken.steps[1].verify = Script::one(Command::new("false"));
        let (result, _) = host.apply(&broken).await;
        assert_eq!(result.outcome, Outcome::RolledBack, "{shell}");
        assert_eq!(record(&host, "gpu-0"), of_first, "{shell}");

        let two = with(&host, "gpu-0", &[file("/etc/x", "3"), file("/etc/y", "3")]);
        let second = host.context();
        host.apply_as(&two, &second).await;
        assert_eq!(record(&host, "gpu-0"), Some((second.run.to_string(), 2)));
        let other = with(&host, "gpu-1", &[file("/etc/z", "4")]);
        let third = host.context();
        host.apply_as(&other, &third).await;
        assert_eq!(record(&host, "gpu-1"), Some((third.run.to_string(), 1)));

        for (run, here, there) in [
            (&third, Some((second.run.to_string(), 2)), None),
            (&second, of_first, None),
            (&first, None, None),
        ] {
            let result = undo(&host, Some(&run.run), Moved::Refuse).await;
            assert_eq!(
                result.outcome,
                Outcome::Changed,
                "{shell}: {:?}",
                result.problem
            );
            assert_eq!(record(&host, "gpu-0"), here, "{shell}");
            assert_eq!(record(&host, "gpu-1"), there, "{shell}");
        }
    }
}

#[tokio::test]
async fn a_moved_host_is_undone_only_when_told_so() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let wanted = plan(&host, &odd_wants());
        host.apply(&wanted).await;
        host.write("/etc/plain.conf", b"edited by hand", 0o644);
        let moved = host.look();
        let refused = undo(&host, None, Moved::Refuse).await;
        assert_eq!(refused.outcome, Outcome::Failed, "{shell}");
        assert_eq!(host.look(), moved, "{shell}");
        let result = undo(&host, None, Moved::UndoAnyway).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {:?}",
            result.problem
        );
        assert_eq!(host.look(), before, "{shell}");
    }
}

#[tokio::test]
async fn nothing_is_undone_while_what_goes_is_in_use() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        // The first step, so that the undo comes to it last.
        wanted.steps[0].idle = Script::one(Command::new("path_is_absent").path("/etc/holder"));
        host.apply(&wanted).await;
        host.write("/etc/holder", b"", 0o644);
        let applied = host.look();
        for moved in [Moved::Refuse, Moved::UndoAnyway] {
            let refused = undo(&host, None, moved).await;
            assert_eq!(refused.outcome, Outcome::Failed, "{shell}");
            let Some(HostProblem::Failed { chain, .. }) = &refused.problem else {
                panic!("a reason is told");
            };
            assert!(chain[0].contains("in use"), "{shell}: {chain:?}");
            assert!(chain[1].contains("/etc/holder"), "{shell}: {chain:?}");
            assert_eq!(host.look(), applied, "{shell}");
        }
        fs::remove_file(host.at("/etc/holder")).expect("ours");
        let result = undo(&host, None, Moved::Refuse).await;
        assert_eq!(result.outcome, Outcome::Changed, "{shell}");
        assert_eq!(host.look(), before, "{shell}");
    }
}

#[tokio::test]
async fn an_interrupted_run_is_undone_as_far_as_it_had_come() {
    for shell in SHELLS {
        let count = odd_wants().len();
        for reached in [0, 1, count / 2, count] {
            let mut host = odd_host(shell);
            let before = host.look();
            let wanted = plan(&host, &odd_wants());
            let context = host.context();
            host.apply_as(&wanted, &context).await;
            // As if the runner had been killed after so many steps: the later ones
            // are put back by hand, and their lines are taken out of the journal.
            let run = host.at(&context.run.directory());
            let result = undo(&host, None, Moved::Refuse).await;
            assert_eq!(result.outcome, Outcome::Changed, "{shell}");
            let journal = fs::read_to_string(run.join("journal")).expect("a journal");
            let mut kept = Vec::new();
            let mut begun = 0;
            for line in journal.lines() {
                begun += usize::from(line.contains(" apply "));
                if begun > reached {
                    break;
                }
                kept.push(line);
            }
            fs::write(run.join("journal"), kept.join("\n") + "\n").expect("ours");
            fs::write(run.join("status"), "running\n").expect("ours");
            for step in wanted.steps.iter().take(reached) {
                let redo = format!("RUN={:?}; . \"$RUN/lib.sh\"; {}", run, step.apply.to_sh());
                let done = std::process::Command::new(host.bin().join("sh"))
                    .arg("-c")
                    .arg(redo)
                    .status()
                    .expect("a shell");
                assert!(done.success());
            }
            let runs = read(&host, None).await;
            assert_eq!(runs.runs[0].status, Status::Interrupted);
            // Twice: what is undone already is left as it is.
            for _ in 0..2 {
                fs::write(run.join("status"), "running\n").expect("ours");
                let result = undo(&host, None, Moved::Refuse).await;
                assert_eq!(
                    result.outcome,
                    Outcome::Changed,
                    "{shell} {reached}: {:?}",
                    result.problem
                );
                assert_eq!(host.look(), before, "{shell}, {reached} steps");
            }
        }
    }
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_reading_changes_nothing() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        assert_eq!(read(&host, None).await.runs, []);
        let mut ids = Vec::new();
        for n in 0..3 {
            let wanted = plan(&host, &[("/etc/x", Want::File(vec![n], 0o644))]);
            let context = host.context();
            host.apply_as(&wanted, &context).await;
            ids.insert(0, context.run);
        }
        let before = host.look_at_all();
        let list = read(&host, None).await;
        let found: Vec<RunId> = list.runs.iter().filter_map(runs::RunRecord::id).collect();
        assert_eq!(found, ids, "{shell}");
        assert_eq!(list.lock, None);
        assert!(
            list.runs
                .iter()
                .all(|run| run.status == Status::Done && run.journal.is_empty())
        );
        let one = read(&host, Some(&ids[1])).await;
        assert_eq!(one.runs.len(), 1);
        let words: Vec<_> = one.runs[0].journal.iter().map(|entry| entry.what).collect();
        use deploy::apply::journal::What;
        assert_eq!(
            words,
            [What::Start, What::Armed, What::Apply, What::Done, What::End],
            "{shell}"
        );
        assert_eq!(host.look_at_all(), before, "{shell}");
    }
}

//! A run ends with everything applied, or with everything as it was before.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use deploy::apply::runs;
use deploy::apply::standing::{self, Settled};
use deploy::event::{Event, HostProblem, Outcome, StepOutcome};
use deploy::plan::HostPlan;
use deploy::shell::{Command, Script};
use deploy::step::{Change, Class};

use super::host::{Host, SHELLS, Want, odd_host, odd_wants, plan, step};

pub(super) fn problem(result: &deploy::apply::HostResult) -> String {
    match &result.problem {
        Some(HostProblem::Failed { chain, hint, .. }) => format!("{chain:?} {hint:?}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn everything_is_applied_and_a_second_plan_finds_it_so() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let wanted = plan(&host, &odd_wants());
        let context = host.context();
        let (result, events) = host.apply_as(&wanted, &context).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
        assert_eq!(host.status(&context.run), "done");
        let changed = events.iter().filter(|event| {
            matches!(
                event,
                Event::StepEnd {
                    outcome: StepOutcome::Changed,
                    ..
                }
            )
        });
        assert_eq!(changed.count(), wanted.steps.len(), "{shell}");
        let stat = fs::metadata(host.at("/etc/a b 'c' \"d\" $x `y` \\z")).expect("it was made");
        assert_eq!(stat.mode() & 0o7777, 0o4755, "{shell}");
        assert!(!host.at("/etc/gone").exists());
        assert!(
            host.at("/etc/target")
                .read_dir()
                .expect("untouched")
                .next()
                .is_none()
        );

        // The state directory is the administrator's alone, and records the run.
        assert_eq!(
            fs::metadata(host.state()).expect("made").mode() & 0o7777,
            0o700
        );
        let run = host.at(&context.run.directory());
        assert_eq!(fs::metadata(&run).expect("made").mode() & 0o7777, 0o700);
        let current = fs::read_to_string(host.state().join("current.json")).expect("recorded");
        assert!(current.contains(context.run.as_str()));
        let remembered = fs::read(host.state().join("remembered")).expect("recorded");
        assert_eq!(remembered, context.remembered);
        let lock = fs::read_to_string(host.state().join("lock")).expect("made");
        assert_eq!(lock, "", "{shell}: the lock is free");

        let again = plan(&host, &odd_wants());
        let (result, _) = host.apply(&again).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
    }
}

#[tokio::test]
async fn an_empty_plan_writes_nothing() {
    let mut host = odd_host("dash");
    let before = host.look_at_all();
    let (result, events) = host.apply(&HostPlan::default()).await;
    assert_eq!(result.outcome, Outcome::Ok);
    assert!(events.is_empty());
    assert_eq!(host.look_at_all(), before);
}

#[tokio::test]
async fn whichever_step_fails_all_is_as_before() {
    for shell in SHELLS {
        let count = odd_wants().len();
        for failing in 0..count {
            for how in ["apply", "verify"] {
                // That nothing of a step is taken for done is the same for each.
                if how == "verify" && failing % 4 != 1 {
                    continue;
                }
                let mut host = odd_host(shell);
                let before = host.look();
                let mut wanted = plan(&host, &odd_wants());
                let broken = Script::one(
                    Command::new("sh")
                        .arg("-c")
                        .arg("echo 'no \\ room'; echo \"it's\tfull\" >&2; exit 3"),
                );
                let step = &mut wanted.steps[failing];
                if how == "apply" {
                    step.apply.0.extend(broken.0);
                } else {
                    step.verify = broken;
                }
                let id = step.id.clone();
                let context = host.context();
                let (result, events) = host.apply_as(&wanted, &context).await;
                let place = format!("{shell}, {how} of step {failing}");
                assert_eq!(
                    result.outcome,
                    Outcome::RolledBack,
                    "{place}: {}",
                    problem(&result)
                );
                let Some(HostProblem::Failed { step, chain, .. }) = &result.problem else {
                    panic!("{place}: a problem is told");
                };
                assert_eq!(step.as_ref(), Some(&id), "{place}");
                assert!(
                    chain[0].contains("no \\ room\nit's full"),
                    "{place}: {chain:?}"
                );
                assert_eq!(host.look(), before, "{place}");
                assert_eq!(host.status(&context.run), "undone", "{place}");
                assert!(!host.state().join("current.json").exists(), "{place}");
                let undone = events.iter().filter(|event| {
                    matches!(
                        event,
                        Event::StepEnd {
                            outcome: StepOutcome::Undone,
                            ..
                        }
                    )
                });
                assert_eq!(undone.count(), failing + 1, "{place}");
            }
        }
    }
}

#[tokio::test]
async fn a_host_that_moved_is_not_touched() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let wanted = plan(&host, &odd_wants());
        host.write("/etc/gone", b"somebody was here", 0o644);
        let before = host.look();
        let context = host.context();
        let (result, events) = host.apply_as(&wanted, &context).await;
        assert_eq!(result.outcome, Outcome::Stale, "{shell}");
        assert!(
            problem(&result).contains("/etc/gone"),
            "{}",
            problem(&result)
        );
        assert!(
            !events
                .iter()
                .any(|event| matches!(event, Event::StepStart { .. }))
        );
        assert_eq!(host.look(), before);
        assert_eq!(host.status(&context.run), "stale");
    }
}

#[tokio::test]
async fn a_file_is_never_put_over_a_directory_nor_a_directory_over_a_file() {
    for shell in SHELLS {
        for (path, want) in [
            ("/etc/target", Want::File(b"x".to_vec(), 0o644)),
            ("/etc/target", Want::Link("x".to_owned())),
            ("/etc/gone", Want::Dir(0o755)),
        ] {
            let mut host = odd_host(shell);
            fs::write(host.at("/etc/target/kept"), "x").expect("our folder");
            let before = host.look();
            let wanted = plan(&host, &[(path, want)]);
            let (result, _) = host.apply(&wanted).await;
            assert_eq!(
                result.outcome,
                Outcome::RolledBack,
                "{shell}: {}",
                problem(&result)
            );
            assert!(
                problem(&result).contains("not replaced"),
                "{}",
                problem(&result)
            );
            assert_eq!(host.look(), before);
        }
    }
}

#[tokio::test]
async fn a_step_that_hangs_is_ended_with_all_that_it_started_and_undone() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        let marker = format!("86{:05}", std::process::id());
        wanted.steps[2].apply = Script::one(
            Command::new("sh")
                .arg("-c")
                .arg(format!("sleep {marker} & sleep {marker}; true")),
        );
        wanted.steps[2].timeout_s = 1;
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(
            result.outcome,
            Outcome::RolledBack,
            "{shell}: {}",
            problem(&result)
        );
        assert!(
            problem(&result).contains("not done after 1 s"),
            "{}",
            problem(&result)
        );
        assert_eq!(host.look(), before);
        assert_eq!(running(&marker), 0, "{shell}: nothing of it is left");
    }
}

/// How many processes have this word among their arguments.
fn running(word: &str) -> usize {
    fs::read_dir("/proc")
        .expect("a Linux system")
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|arg| arg == word.as_bytes())
        })
        .count()
}

#[tokio::test]
async fn what_is_taken_into_use_meanwhile_does_not_make_an_undo_fail() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let mut wanted = plan(&host, &odd_wants());
        let holder = host.at("/etc/holder").display().to_string();
        let idle = Command::new("sh")
            .args([
                "-c",
                "test -n \"${DEPLOY_AFTER_UNDO-}\" || test ! -e \"$1\"",
                "sh",
            ])
            .arg(&holder);
        wanted.steps[0].check = wanted.steps[0].check.clone().then(idle);
        wanted.steps[4].apply =
            Script::one(Command::new("touch").arg(&holder)).then(Command::new("false"));
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(result.outcome, Outcome::RolledBack, "{shell}: {result:?}");
        assert!(host.at("/etc/holder").exists());
        // Before a run it does matter.
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(result.outcome, Outcome::Stale, "{shell}: {result:?}");
    }
}

#[tokio::test]
async fn an_undo_that_fails_is_told_and_the_others_are_undone() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let before = host.look();
        let mut wanted = plan(&host, &odd_wants());
        wanted.steps[1].undo = Script::one(Command::new("false"));
        wanted.steps[4].apply = Script::one(Command::new("false"));
        let context = host.context();
        let (result, _) = host.apply_as(&wanted, &context).await;
        assert_eq!(result.outcome, Outcome::Stuck, "{shell}");
        assert!(
            problem(&result).contains("could not be undone"),
            "{}",
            problem(&result)
        );
        assert_eq!(host.status(&context.run), "undo-failed");
        let left: Vec<_> = host
            .look()
            .into_iter()
            .filter(|(path, look)| before.get(path) != Some(look))
            .collect();
        assert_eq!(left.len(), 1, "{shell}: {left:?}");
        assert!(
            host.at(&context.run.directory())
                .join("snapshot/k1")
                .exists()
        );
    }
}

#[tokio::test]
async fn a_controller_that_goes_away_changes_nothing_about_the_end() {
    for shell in SHELLS {
        for fails in [false, true] {
            let mut host = odd_host(shell);
            let before = host.look();
            let mut wanted = plan(&host, &odd_wants());
            // The step waits until the controller is gone, and that is when its session is dropped.
            wanted.steps[3].apply.0.insert(
                0,
                Command::new("sh")
                    .arg("-c")
                    .arg("until [ -e \"$R/go\" ]; do sleep 0.05; done"),
            );
            if fails {
                wanted.steps[5].verify = Script::one(Command::new("false"));
            }
            let context = host.context();
            let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
            {
                let session = Box::new(host.session());
                let run = deploy::apply::run(session, &host, &wanted, &context, &sender);
                tokio::pin!(run);
                loop {
                    tokio::select! {
                        _ = &mut run => panic!("the step waits for us"),
                        event = events.recv() => {
                            if let Some(Event::StepStart { step, .. }) = event
                                && step == wanted.steps[3].id
                            {
                                break;
                            }
                        }
                    }
                }
            }
            fs::write(host.root().join("go"), "").expect("our folder");
            let end = if fails { "undone" } else { "done" };
            while host.status(&context.run) != end {
                assert!(
                    ["running", "undoing", ""].contains(&host.status(&context.run).as_str()),
                    "{shell}: {}",
                    host.status(&context.run)
                );
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            fs::remove_file(host.root().join("go")).expect("our file");
            if fails {
                assert_eq!(host.look(), before, "{shell}");
            } else {
                assert!(!host.at("/etc/gone").exists(), "{shell}");
            }
        }
    }
}

#[tokio::test]
async fn a_second_run_is_told_who_holds_the_lock() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let mut slow = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        slow.steps[0].apply.0.insert(
            0,
            Command::new("sh")
                .arg("-c")
                .arg("until [ -e \"$R/go\" ]; do sleep 0.05; done"),
        );
        let quick = plan(&host, &[("/etc/y", Want::File(b"2".to_vec(), 0o644))]);
        let (first, second) = (host.context(), host.context());
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let session = Box::new(host.session());
        let run = deploy::apply::run(session, &host, &slow, &first, &sender);
        tokio::pin!(run);
        tokio::select! {
            _ = &mut run => panic!("the step waits for us"),
            event = events.recv() => assert!(matches!(event, Some(Event::StepStart { .. }))),
        }
        let (result, _) = host.apply_as(&quick, &second).await;
        assert_eq!(result.outcome, Outcome::Locked, "{shell}");
        let owner = format!("run {} by ada from desk since", first.run);
        assert!(
            problem(&result).contains(&owner),
            "{shell}: {}",
            problem(&result)
        );
        assert!(!host.at("/etc/y").exists());
        assert!(
            !host.at(&second.run.directory()).exists(),
            "nothing of it is kept"
        );
        fs::write(host.root().join("go"), "").expect("our folder");
        assert_eq!(run.await.outcome, Outcome::Changed, "{shell}");
    }
}

#[tokio::test]
async fn an_interrupted_run_stands_in_the_way_until_it_is_undone() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        let first = plan(&host, &[("/etc/x", Want::File(b"1".to_vec(), 0o644))]);
        let context = host.context();
        let (result, _) = host.apply_as(&first, &context).await;
        assert_eq!(result.outcome, Outcome::Changed);
        fs::write(
            host.at(&context.run.directory()).join("status"),
            "running\n",
        )
        .expect("ours");
        let next = plan(&host, &[("/etc/y", Want::File(b"2".to_vec(), 0o644))]);
        let (result, _) = host.apply(&next).await;
        assert_eq!(result.outcome, Outcome::Locked, "{shell}");
        assert!(
            problem(&result).contains("by ada from desk"),
            "{}",
            problem(&result)
        );
        assert!(!host.at("/etc/y").exists());

        // No guard is left to undo it either: whoever comes next does.
        let list = runs::read(&mut host.session(), None)
            .await
            .expect("in form");
        let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
        let name = deploy::value::HostName::from("h1");
        let mut session = host.session();
        let run = &context.run;
        let settled =
            standing::settle(&mut session, &host, &list, run, "bob", &name, &sender).await;
        assert!(
            matches!(&settled, Settled::Undone(run) if *run == context.run),
            "{settled:?}"
        );
        assert!(!host.at("/etc/x").exists(), "{shell}");
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
async fn the_last_ten_runs_are_kept() {
    let mut host = Host::new("dash");
    for n in 0..13 {
        let wanted = plan(&host, &[("/etc/x", Want::File(vec![n], 0o644))]);
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(result.outcome, Outcome::Changed, "{}", problem(&result));
    }
    let kept = fs::read_dir(host.state().join("runs"))
        .expect("made")
        .count();
    assert_eq!(kept, 10);
}

#[tokio::test]
async fn a_huge_file_arrives_whole() {
    for shell in SHELLS {
        let mut host = Host::new(shell);
        let content: Vec<u8> = (0..40_000_000_u32).map(|n| (n ^ (n >> 11)) as u8).collect();
        let wanted = plan(&host, &[("/etc/huge", Want::File(content, 0o600))]);
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
    }
}

#[tokio::test]
async fn a_check_alone_is_no_reason_to_write() {
    let mut host = Host::new("dash");
    let before = host.look_at_all();
    let mut wanted = plan(&host, &[("/etc/x", Want::Absent)]);
    wanted.steps[0].change = Change::Check {
        what: "all is well".to_owned(),
    };
    wanted.steps[0].class = Class::Safe;
    let (result, _) = host.apply(&wanted).await;
    assert_eq!(result.outcome, Outcome::Ok);
    assert_eq!(host.look_at_all(), before);
}

#[tokio::test]
async fn what_a_step_writes_may_be_read_by_all_and_a_payload_only_by_its_owner() {
    for shell in SHELLS {
        let mut host = Host::new(shell);
        let mut wanted = plan(&host, &[("/etc/secret", Want::File(b"s".to_vec(), 0o644))]);
        let mut extra = step(&host, 1, "/etc/log", &Want::File(Vec::new(), 0o644));
        extra.apply = Script::one(Command::new("sh").arg("-c").arg(": >\"$R/etc/log\""));
        wanted.steps.push(extra);
        let context = host.context();
        let (result, _) = host.apply_as(&wanted, &context).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
        let payload = host.at(&context.run.directory()).join("payload/p0");
        let mode = fs::metadata(payload).expect("sent").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{shell}");
    }
}

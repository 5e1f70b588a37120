//! What a host's own scripts must not be held up, filled up or fooled by.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command as Process;
use std::time::{Duration, SystemTime};

use deploy::apply::rollback::{self, Moved};
use deploy::apply::runs;
use deploy::event::Outcome;
use deploy::value::HostName;

use super::host::{Host, SHELLS, Want, odd_host, odd_wants, plan};
use super::transaction::problem;

/// A program of the host's that is ours.
fn program(host: &Host, name: &str, text: &str) {
    let path = host.bin().join(name);
    // On some hosts it is a link to all programs in one.
    let _ = fs::remove_file(&path);
    fs::write(&path, text).expect("our folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our file");
}

#[tokio::test]
async fn what_cannot_be_written_to_disk_ends_the_run_before_anything_is_changed() {
    // In busybox `sync` is the shell's own.
    for shell in ["dash", "bash"] {
        let mut host = odd_host(shell);
        program(
            &host,
            "sync",
            "#!/bin/sh\nfor name; do case $name in */snapshot/*) echo \"sync: error syncing '$name': Input/output error\" >&2; exit 1;; esac; done\n",
        );
        let before = host.look();
        let wanted = plan(&host, &odd_wants());
        let context = host.context();
        let (result, _) = host.apply_as(&wanted, &context).await;
        assert_eq!(
            result.outcome,
            Outcome::Failed,
            "{shell}: {}",
            problem(&result)
        );
        assert_eq!(host.status(&context.run), "failed", "{shell}");
        assert_eq!(host.look(), before, "{shell}");
    }
}

#[tokio::test]
async fn without_flock_no_killed_runner_keeps_the_lock() {
    for shell in SHELLS {
        let mut host = odd_host(shell);
        host.without = &["flock"];
        fs::create_dir_all(host.state().join("runs")).expect("our folder");
        // Its maker is gone, and somebody was killed while taking it over.
        symlink("999999999", host.state().join("lock.pid")).expect("our folder");
        let takeover = host.state().join("lock.takeover");
        fs::create_dir(&takeover).expect("our folder");
        let long_ago = SystemTime::now() - Duration::from_secs(600);
        let times = fs::FileTimes::new().set_modified(long_ago);
        let folder = fs::File::open(&takeover).expect("our folder");
        folder.set_times(times).expect("our folder");
        let wanted = plan(&host, &odd_wants());
        let (result, _) = host.apply(&wanted).await;
        assert_eq!(
            result.outcome,
            Outcome::Changed,
            "{shell}: {}",
            problem(&result)
        );
        for name in ["lock.pid", "lock.takeover"] {
            assert!(
                fs::symlink_metadata(host.state().join(name)).is_err(),
                "{shell}: {name}"
            );
        }
    }
}

#[tokio::test]
async fn a_service_manager_that_hangs_ends_the_run_before_anything_is_changed() {
    let mut host = odd_host("dash");
    fs::create_dir_all(host.at("/run/systemd/system")).expect("our folder");
    fs::create_dir_all(host.at("/etc/systemd/system")).expect("our folder");
    let before = host.look();
    program(
        &host,
        "systemctl",
        "#!/bin/sh\ncase $* in *is-active*) echo inactive; exit 3;; esac\n",
    );
    program(
        &host,
        "systemd-run",
        "#!/bin/sh\ncase $1 in --version) echo systemd 200;; --help) ;; *) exec sleep 1000;; esac\n",
    );
    let wanted = plan(&host, &odd_wants());
    let (result, _) = host.apply(&wanted).await;
    let told = problem(&result);
    assert_eq!(result.outcome, Outcome::Failed, "{told}");
    assert!(told.contains("not done after 60 s"), "{told}");
    assert_eq!(host.look(), before);
}

#[tokio::test]
async fn a_run_whose_guard_does_not_go_is_kept_until_it_does() {
    let mut host = Host::new("dash");
    let first = host.context();
    for n in 0..13 {
        let wanted = plan(&host, &[("/etc/x", Want::File(vec![n], 0o644))]);
        let context = if n == 0 {
            first.clone()
        } else {
            host.context()
        };
        let (result, _) = host.apply_as(&wanted, &context).await;
        assert_eq!(result.outcome, Outcome::Changed, "{}", problem(&result));
        let folder = host.at(&first.run.directory());
        match n {
            0 => fs::write(folder.join("guard.sh"), "exit 1\n").expect("our file"),
            11 => {
                assert!(folder.exists(), "its boot unit would call nothing");
                fs::write(folder.join("guard.sh"), "exit 0\n").expect("our file");
            }
            12 => assert!(!folder.exists()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_written_to_says_so() {
    let mut host = Host::new("dash");
    let wanted = plan(&host, &[("/etc/x", Want::File(b"x".to_vec(), 0o644))]);
    let (result, _) = host.apply(&wanted).await;
    assert_eq!(result.outcome, Outcome::Changed, "{}", problem(&result));
    let state = host.state();
    let mount = |words: &[&str]| {
        let status = Process::new("mount").args(words).arg(&state).status();
        status.is_ok_and(|status| status.success())
    };
    let state_text = state.to_string_lossy().into_owned();
    if !mount(&["--bind", &state_text]) {
        let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
        assert!(
            without.split(',').any(|name| name == "root"),
            "did not run: it takes the right to mount (root)"
        );
        return;
    }
    let before = runs::read(&mut host.session(), None).await;
    let remounted = mount(&["-o", "remount,bind,ro"]);
    let after = runs::read(&mut host.session(), None).await;
    let record = &before.as_ref().expect("in form").runs[0];
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let undone = rollback::undo(
        Box::new(host.session()),
        &host,
        record,
        "ada",
        Moved::Refuse,
        &HostName::from("h1"),
        &sender,
    )
    .await;
    let unmounted = Process::new("umount").arg(&state).status();
    assert!(remounted && unmounted.is_ok_and(|status| status.success()));
    assert!(!before.expect("in form").read_only);
    assert!(after.expect("in form").read_only);
    let told = problem(&undone);
    assert_eq!(undone.outcome, Outcome::Failed, "{told}");
    let sentence = "nothing can be written below /var/lib/deploy now, so nothing was begun";
    assert!(told.contains(sentence), "{told}");
}

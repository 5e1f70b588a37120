//! The loop against every shell it claims to run on, as local children.

use std::path::Path;
use std::time::Duration;

use super::launch::As;
use super::*;

/// The shells of this machine that the loop must run on. One that is missing
/// fails the test, unless `DEPLOY_TESTS_WITHOUT` names it.
fn shells() -> Vec<&'static str> {
    let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
    let wanted = ["sh", "dash", "bash", "busybox sh", "mksh"];
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |shell: &&str| {
        let program = shell.split(' ').next().unwrap_or(shell);
        let found = path
            .split(':')
            .any(|folder| Path::new(folder).join(program).exists());
        assert!(
            found || without.split(',').any(|name| name == program),
            "did not run: {program} missing"
        );
        found
    };
    wanted.into_iter().filter(there).collect()
}

async fn open_with(shell: &str, root: &Path, first: &[Read]) -> Connected {
    // `exec sh` in the line would lead to this machine's `sh`: put the shell in its place.
    let folder = tempfile::tempdir().expect("a folder");
    let program = shell.split(' ').next().expect("a word");
    let found = std::env::var("PATH").expect("a path");
    let found = found
        .split(':')
        .map(|f| Path::new(f).join(program))
        .find(|p| p.exists())
        .expect("a shell");
    std::os::unix::fs::symlink(found, folder.path().join("sh")).expect("a link");
    let path = format!(
        "PATH={}:/usr/bin:/bin:/usr/sbin:/sbin",
        folder.path().display()
    );
    let starter = format!("env {path} sh");
    let connected = local::open_as(&As::Login, &root.to_string_lossy(), first, &starter).await;
    connected.unwrap_or_else(|error| panic!("{shell}: {error}"))
}

fn file(path: &str, limit: u64) -> Read {
    Read::File {
        path: path.into(),
        limit,
    }
}

fn state(path: &str, unless: Option<&str>, limit: u64) -> Read {
    Read::State {
        path: path.into(),
        unless: unless.map(str::to_owned),
        limit,
    }
}

fn command(words: &[&str]) -> Read {
    let command = Command::new(words[0]).args(words[1..].iter().copied());
    Read::Command {
        command,
        timeout: Duration::from_secs(20),
        limit: 1 << 20,
    }
}

fn output(reply: &Reply) -> &Output {
    match reply {
        Reply::Command(output) => output,
        other => panic!("not a command's reply: {other:?}"),
    }
}

/// SHA-256 of `hello\n`.
const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

fn fixture() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::Builder::new()
        .prefix("it's a $(root) ")
        .tempdir()
        .expect("a folder");
    let at = |path: &str| root.path().join(path);
    std::fs::create_dir_all(at("etc/sub dir")).expect("folders");
    std::fs::write(at("etc/hello"), "hello\n").expect("a file");
    std::fs::write(at("etc/empty"), "").expect("a file");
    std::fs::write(at("etc/no newline"), "x").expect("a file");
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    std::fs::write(at("etc/binary"), all).expect("a file");
    std::fs::write(at("etc/we$i'rd\"\\x2d*"), "w").expect("a file");
    std::fs::write(at("etc/tricky"), "==> /etc/hello <==\n\n@@x end\n==> ").expect("a file");
    std::fs::set_permissions(at("etc/hello"), std::fs::Permissions::from_mode(0o4751))
        .expect("a mode");
    std::fs::set_permissions(at("etc/sub dir"), std::fs::Permissions::from_mode(0o1770))
        .expect("a mode");
    std::os::unix::fs::symlink("../etc/hello", at("etc/link")).expect("a link");
    std::os::unix::fs::symlink("nowhere", at("etc/dangling")).expect("a link");
    let status = std::process::Command::new("mkfifo")
        .arg(at("etc/pipe"))
        .status()
        .expect("mkfifo runs");
    assert!(status.success());
    root
}

#[tokio::test]
async fn files_come_as_they_are_on_every_shell() {
    let root = fixture();
    for shell in shells() {
        let reads = [
            file("/etc/hello", 100),
            file("/etc/hello", 3),
            file("/etc/none", 100),
            file("/etc/binary", 1 << 20),
            file("/etc/empty", 100),
            file("/etc/we$i'rd\"\\x2d*", 100),
            file("/etc/tricky", 100),
            file("/etc", 100),
            file("/etc/pipe", 100),
            file("/etc/link", 100),
            file("/etc/dangling", 100),
            file("relative", 100),
        ];
        let mut connected = open_with(shell, root.path(), &reads).await;
        let again = connected.session.batch(&reads).await.expect("an answer");
        assert_eq!(connected.first, again, "{shell}");
        let content = |index: usize| match &again[index] {
            Reply::File(FileReply::Content { bytes, truncated }) => (bytes.as_slice(), *truncated),
            other => panic!("{shell}: {index}: {other:?}"),
        };
        assert_eq!(content(0), (b"hello\n".as_slice(), false));
        assert_eq!(content(1), (b"hel".as_slice(), true));
        assert_eq!(again[2], Reply::File(FileReply::Absent));
        assert_eq!(
            content(3).0,
            std::fs::read(root.path().join("etc/binary")).expect("a file")
        );
        assert_eq!(content(4), (b"".as_slice(), false));
        assert_eq!(content(5), (b"w".as_slice(), false));
        assert_eq!(
            content(6),
            (b"==> /etc/hello <==\n\n@@x end\n==> ".as_slice(), false)
        );
        assert_eq!(
            again[7],
            Reply::File(FileReply::Unreadable("it is a directory".into()))
        );
        assert_eq!(
            again[8],
            Reply::File(FileReply::Unreadable("it is a pipe".into()))
        );
        assert_eq!(content(9), (b"hello\n".as_slice(), false));
        assert_eq!(again[10], Reply::File(FileReply::Absent));
        assert_eq!(
            again[11],
            Reply::File(FileReply::Unreadable("the path is not absolute".into()))
        );
        connected.session.close().await;
    }
}

#[tokio::test]
async fn pseudo_files_are_read_although_their_size_is_zero() {
    for shell in shells() {
        let connected = open_with(
            shell,
            Path::new(""),
            &[file("/proc/version", 4096), file("/proc/self/mem", 10)],
        )
        .await;
        match &connected.first[0] {
            Reply::File(FileReply::Content {
                bytes,
                truncated: false,
            }) => assert!(bytes.starts_with(b"Linux version")),
            other => panic!("{shell}: {other:?}"),
        }
        assert!(
            matches!(&connected.first[1], Reply::File(FileReply::Unreadable(_))),
            "{:?}",
            connected.first[1]
        );
    }
}

#[tokio::test]
async fn states_say_kind_mode_owner_and_hash_on_every_shell() {
    let root = fixture();
    for shell in shells() {
        let reads = [
            state("/etc/hello", None, 100),
            state("/etc/hello", Some(HELLO), 100),
            state("/etc/binary", None, 100),
            state("/etc/binary", Some(HELLO), 100_000),
            state("/etc/none/deep", None, 100),
            state("/etc/sub dir", None, 100),
            state("/etc/link", None, 100),
            state("/etc/dangling", None, 100),
            state("/etc/pipe", None, 100),
            state("/etc/we$i'rd\"\\x2d*", None, 100),
            state("/etc/empty", Some(HELLO), 0),
        ];
        let connected = open_with(shell, root.path(), &reads).await;
        let states: Vec<&PathState> = connected
            .first
            .iter()
            .map(|reply| match reply {
                Reply::State(state) => state,
                other => panic!("{other:?}"),
            })
            .collect();
        let PathState::File {
            mode,
            owner,
            size,
            sha256,
            content,
            ..
        } = states[0]
        else {
            panic!("{:?}", states[0])
        };
        assert_eq!(
            (*mode, *size, sha256.as_str()),
            (0o4751, 6, HELLO),
            "{shell}"
        );
        assert_eq!(content.as_deref(), Some(b"hello\n".as_slice()), "{shell}");
        assert!(!owner.is_empty());
        assert!(
            matches!(states[1], PathState::File { content: None, .. }),
            "{shell}: {:?}",
            states[1]
        );
        assert!(
            matches!(
                states[2],
                PathState::File {
                    content: None,
                    size: 100_000,
                    ..
                }
            ),
            "{shell}"
        );
        let PathState::File {
            content: Some(content),
            ..
        } = states[3]
        else {
            panic!("{shell}: no content")
        };
        assert_eq!(
            *content,
            std::fs::read(root.path().join("etc/binary")).expect("a file"),
            "{shell}"
        );
        assert_eq!(*states[4], PathState::Absent, "{shell}");
        assert!(
            matches!(states[5], PathState::Directory { mode: 0o1770, .. }),
            "{shell}: {:?}",
            states[5]
        );
        assert_eq!(
            *states[6],
            PathState::Link {
                target: "../etc/hello".into()
            },
            "{shell}"
        );
        assert_eq!(
            *states[7],
            PathState::Link {
                target: "nowhere".into()
            },
            "{shell}"
        );
        assert_eq!(*states[8], PathState::Other("pipe".into()), "{shell}");
        let PathState::File {
            content: Some(content),
            ..
        } = states[9]
        else {
            panic!("{shell}: {:?}", states[9])
        };
        assert_eq!(content, b"w", "{shell}");
        assert!(
            matches!(states[10], PathState::File { content: Some(c), .. } if c.is_empty()),
            "{shell}: {:?}",
            states[10]
        );
    }
}

#[tokio::test]
async fn globs_are_sorted_and_lie_below_the_prefix() {
    let root = fixture();
    for shell in shells() {
        let globs = [
            "/etc/*e*",
            "/etc/[a-c]*",
            "/etc/nothing*",
            "/etc/sub d?r",
            "/etc/$(false)*",
        ];
        let reads: Vec<Read> = globs
            .iter()
            .map(|pattern| Read::Glob {
                pattern: (*pattern).into(),
            })
            .collect();
        let connected = open_with(shell, root.path(), &reads).await;
        let glob = |index: usize| match &connected.first[index] {
            Reply::Glob(paths) => paths.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            glob(0),
            [
                "/etc/empty",
                "/etc/hello",
                "/etc/no newline",
                "/etc/pipe",
                "/etc/we$i'rd\"\\x2d*"
            ],
            "{shell}"
        );
        assert_eq!(glob(1), ["/etc/binary"], "{shell}");
        assert!(glob(2).is_empty(), "{shell}");
        assert_eq!(glob(3), ["/etc/sub dir"], "{shell}");
        assert!(glob(4).is_empty(), "{shell}");
    }
}

#[tokio::test]
async fn commands_have_no_input_and_give_status_output_and_errors_apart() {
    let root = fixture();
    for shell in shells() {
        let mut reads = vec![
            command(&[
                "sh",
                "-c",
                "printf 'o\\000\\377ut'; printf 'er\\nr' >&2; exit 7",
            ]),
            command(&["cat"]),
            command(&["printf", "%s|", "it's", "$HOME", "a\nb", "*", "\\", ""]),
            command(&["no-such-program-here"]),
            command(&["sh", "-c", "kill -9 $$"]),
        ];
        reads.push(Read::Command {
            command: Command::new("env"),
            timeout: Duration::from_millis(500),
            limit: 1,
        });
        reads.push(Read::Command {
            command: Command::new("cat").path("/etc/hello").env("A", "b c"),
            timeout: Duration::from_secs(5),
            limit: 6,
        });
        let mut connected = open_with(shell, root.path(), &[]).await;
        let replies = connected.session.batch(&reads).await.expect("an answer");
        let first = output(&replies[0]);
        assert_eq!(
            (first.status, first.stdout.as_slice(), first.timed_out),
            (7, b"o\0\xffut".as_slice(), false),
            "{shell}"
        );
        assert_eq!(first.stderr, b"er\nr", "{shell}");
        assert_eq!(output(&replies[1]).stdout, b"", "{shell}");
        assert_eq!(
            output(&replies[2]).stdout,
            b"it's|$HOME|a\nb|*|\\||",
            "{shell}"
        );
        assert_eq!(output(&replies[3]).status, 127, "{shell}");
        assert!(
            !output(&replies[4]).success() && !output(&replies[4]).timed_out,
            "{shell}"
        );
        assert!(
            output(&replies[5]).truncated && output(&replies[5]).stdout.len() == 1,
            "{shell}"
        );
        assert!(
            output(&replies[6]).success() && !output(&replies[6]).truncated,
            "{shell}: {:?}",
            replies[6]
        );
    }
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_and_the_others_are_answered() {
    for shell in shells() {
        let hang = Read::Command {
            command: Command::new("sleep").arg("300"),
            timeout: Duration::from_secs(1),
            limit: 100,
        };
        let quick = |word: &str| Read::Command {
            command: Command::new("echo").arg(word),
            timeout: Duration::from_secs(2),
            limit: 100,
        };
        let connected = open_with(shell, Path::new(""), &[quick("a"), hang, quick("b")]).await;
        assert_eq!(output(&connected.first[0]).stdout, b"a\n", "{shell}");
        assert!(
            output(&connected.first[1]).timed_out,
            "{shell}: {:?}",
            connected.first[1]
        );
        assert_eq!(output(&connected.first[2]).stdout, b"b\n", "{shell}");
    }
}

#[tokio::test]
async fn a_command_that_floods_is_cut_and_the_others_are_answered() {
    let root = fixture();
    for shell in shells() {
        let flood = Read::Command {
            command: Command::new("sh").arg("-c").arg("yes; exit 1"),
            timeout: Duration::from_secs(20),
            limit: 1000,
        };
        let path = Read::Command {
            command: Command::new("cat").path("/etc/hello"),
            timeout: Duration::from_secs(5),
            limit: 100,
        };
        let reads = [path.clone(), flood, command(&["cat"]), path];
        let connected = open_with(shell, root.path(), &reads).await;
        assert_eq!(output(&connected.first[0]).stdout, b"hello\n", "{shell}");
        let flooded = output(&connected.first[1]);
        assert_eq!(
            (flooded.stdout.len(), flooded.truncated, flooded.timed_out),
            (1000, true, false),
            "{shell}"
        );
        assert_eq!(output(&connected.first[2]).stdout, b"", "{shell}");
        assert_eq!(output(&connected.first[3]).stdout, b"hello\n", "{shell}");
    }
}

#[tokio::test]
async fn exec_streams_both_ways_at_once_and_leaves_the_loop_in_step() {
    let big: Vec<u8> = (0..20_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for shell in shells() {
        let mut connected = open_with(shell, Path::new(""), &[]).await;
        let session = &mut connected.session;
        let exec = |words: &[&str], stdin: &[u8]| Exec {
            command: Command::new(words[0]).args(words[1..].iter().copied()),
            stdin: stdin.to_vec(),
            timeout: Duration::from_secs(60),
            limit: 1 << 30,
        };
        let mut seen = 0;
        let out = session
            .exec(&exec(&["cat"], &big), &mut |bytes| seen += bytes.len())
            .await
            .expect("output");
        assert_eq!((seen, out.status), (big.len(), 0), "{shell}");
        assert!(out.stdout == big, "{shell}: what came back differs");
        // What a command leaves unread does not become the next request.
        let out = session
            .exec(&exec(&["sh", "-c", "exit 3"], &big), &mut |_| ())
            .await
            .expect("output");
        assert_eq!(out.status, 3, "{shell}");
        let out = session
            .exec(&exec(&["head", "-c", "3"], b"abc\ndef"), &mut |_| ())
            .await
            .expect("output");
        assert_eq!(out.stdout, b"abc", "{shell}");
        let script = "printf '%s' \"$1\"; cat; printf e >&2";
        let out = session
            .exec(
                &exec(&["sh", "-c", script, "x", "two\nlines"], b"\n"),
                &mut |_| (),
            )
            .await
            .expect("output");
        assert_eq!(
            (out.stdout.as_slice(), out.stderr.as_slice()),
            (b"two\nlines\n".as_slice(), b"e".as_slice()),
            "{shell}"
        );
        let out = session
            .exec(&exec(&["cat"], b""), &mut |_| ())
            .await
            .expect("output");
        assert_eq!(out.stdout, b"", "{shell}");
        let mut limited = exec(&["cat"], b"0123456789");
        limited.limit = 4;
        let out = session.exec(&limited, &mut |_| ()).await.expect("output");
        assert_eq!(
            (out.stdout.as_slice(), out.truncated, out.status),
            (b"0123".as_slice(), true, 0),
            "{shell}"
        );
        let flood = exec(
            &["sh", "-c", "head -c 1000000 /dev/zero >&2; echo done"],
            b"",
        );
        let out = session.exec(&flood, &mut |_| ()).await.expect("output");
        assert_eq!(
            (out.stderr.len(), out.stdout.as_slice()),
            (64 << 10, b"done\n".as_slice()),
            "{shell}"
        );
        let replies = session
            .batch(&[command(&["echo", "in step"])])
            .await
            .expect("an answer");
        assert_eq!(output(&replies[0]).stdout, b"in step\n", "{shell}");
    }
}

#[tokio::test]
async fn what_the_last_run_left_is_answered_with_the_first_batch() {
    use std::os::unix::fs::PermissionsExt;
    let root = fixture();
    let reads = [
        state("/etc/hello", Some(HELLO), 100),
        file("/etc/no newline", 100),
        command(&["printf", "it's\n%s", "\\"]),
        Read::Glob {
            pattern: "/etc/h*".into(),
        },
    ];
    let place = root.path().join(REMEMBERED.trim_start_matches('/'));
    let folder = place.parent().expect("a folder").to_owned();
    std::fs::create_dir_all(&folder).expect("folders");
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for shell in shells() {
        let asked = [
            command(&["echo", "first"]),
            Read::Remembered,
            command(&["echo", "last"]),
        ];
        let _ = std::fs::remove_file(&place);
        let without = open_with(shell, root.path(), &asked).await;
        assert_eq!(without.first[1], Reply::Remembered(Vec::new()), "{shell}");
        std::fs::write(&place, remember(&reads)).expect("a file");
        mode(&place, 0o600);
        mode(&folder, 0o700);
        let mut connected = open_with(shell, root.path(), &asked).await;
        let Reply::Remembered(answered) = &connected.first[1] else {
            panic!("{:?}", connected.first[1])
        };
        let (found, replies): (Vec<Read>, Vec<Reply>) = answered.iter().cloned().unzip();
        assert_eq!(found, reads, "{shell}");
        assert_eq!(
            replies,
            connected.session.batch(&reads).await.expect("an answer"),
            "{shell}"
        );
        assert_eq!(output(&connected.first[2]).stdout, b"last\n", "{shell}");
        // Written by others, or writable for them: not evaluated.
        for (file_mode, folder_mode) in [
            (0o620, 0o700),
            (0o602, 0o700),
            (0o600, 0o770),
            (0o600, 0o1777),
        ] {
            mode(&place, file_mode);
            mode(&folder, folder_mode);
            let connected = open_with(shell, root.path(), &asked).await;
            assert_eq!(
                connected.first[1],
                Reply::Remembered(Vec::new()),
                "{shell} {file_mode:o} {folder_mode:o}"
            );
        }
        mode(&folder, 0o700);
        // Damaged in any place: nothing remembered, and everything else answered.
        let whole = remember(&reads);
        for cut in [10, whole.len() / 3, whole.len() / 2, whole.len() - 5] {
            std::fs::write(&place, &whole[..cut]).expect("a file");
            mode(&place, 0o600);
            let connected = open_with(shell, root.path(), &asked).await;
            assert!(
                matches!(&connected.first[1], Reply::Remembered(_)),
                "{shell} {cut}"
            );
            assert_eq!(
                output(&connected.first[2]).stdout,
                b"last\n",
                "{shell} {cut}"
            );
        }
    }
}

#[tokio::test]
async fn a_batch_too_long_for_the_command_line_follows_on_input() {
    let long = "x".repeat(40_000);
    for shell in shells() {
        let connected = open_with(shell, Path::new(""), &[command(&["printf", "%s", &long])]).await;
        assert_eq!(
            output(&connected.first[0]).stdout.len(),
            long.len(),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn a_session_that_timed_out_is_not_used_again() {
    let mut connected = local::open(Path::new(""), &[]).await.expect("a shell");
    let exec = Exec {
        command: Command::new("sleep").arg("60"),
        stdin: Vec::new(),
        timeout: Duration::from_secs(60),
        limit: 10,
    };
    let mut ignore = |_: &[u8]| ();
    let interrupted = tokio::time::timeout(
        Duration::from_millis(200),
        connected.session.exec(&exec, &mut ignore),
    )
    .await;
    assert!(interrupted.is_err());
    let error = connected
        .session
        .batch(&[command(&["true"])])
        .await
        .expect_err("the loop is elsewhere");
    assert!(matches!(error, TransportError::Lost(_)), "{error}");
}

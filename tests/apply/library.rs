//! The functions that steps call, alone: names of every kind, on every shell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;

use super::host::{Host, SHELLS, sha256, which};
use deploy::shell;

/// With what they source; `-a` looks at that as well.
const SCRIPTS: [&str; 8] = [
    "lib.sh",
    "runner.sh",
    "guard.sh",
    "receive.sh",
    "record.sh",
    "follow.sh",
    "attach.sh",
    "list.sh",
];

#[test]
fn the_scripts_are_clean_by_shellcheck() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apply/host");
    let output = Command::new(which("shellcheck"))
        .args(["-s", "sh", "-x", "-a"])
        .args(SCRIPTS)
        .current_dir(folder)
        .output()
        .expect("shellcheck runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Runs calls of the library in a run directory of its own.
fn call(host: &Host, script: &shell::Script) -> Output {
    let run = host.state().join("runs/r");
    for folder in ["payload", "snapshot"] {
        fs::create_dir_all(run.join(folder)).expect("a folder");
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apply/host");
    let library: String = ["lib/flush.sh", "lib.sh"]
        .map(|name| fs::read_to_string(scripts.join(name)).expect("it is there"))
        .concat();
    fs::write(run.join("lib.sh"), library).expect("our folder");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(host.bin().join("sh"))
        .arg("-c")
        .arg(format!(". \"$RUN/lib.sh\"\n{}", script.to_sh()))
        .env("PATH", format!("{}:{path}", host.bin().display()))
        .env("RUN", run)
        .output()
        .expect("a shell")
}

fn must(host: &Host, command: shell::Command) {
    let output = call(host, &shell::Script::one(command.clone()));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}: {}",
        command.to_sh(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Names that a file may have: anything but `/` and NUL, and not `.` or `..`.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^/\u{0}]{1,40}",
        "[ '\"$`\\\\\n\t*?\\[\\]~!#&;|<>(){}-]{1,20}",
        "-[a-z]{1,3}",
    ]
    .prop_filter("names of folders", |name| name != "." && name != "..")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_name_any_content_any_mode(
        name in name(),
        content in prop::collection::vec(any::<u8>(), 0..200),
        mode in 0o000_u32..0o10000,
        target in name(),
    ) {
        for shell in SHELLS {
            let host = Host::new(shell);
            let path = format!("/etc/{name}");
            let key = "k";
            let modes = format!("{:o}", mode | 0o400);
            must(&host, shell::Command::new("path_is_absent").path(&path));
            must(&host, shell::Command::new("path_snapshot").arg(key).path(&path));
            fs::write(host.state().join("runs/r/payload/p"), &content).expect("ours");
            let stat = fs::metadata(host.root()).expect("ours");
            let (user, group) = {
                use std::os::unix::fs::MetadataExt;
                (stat.uid().to_string(), stat.gid().to_string())
            };
            must(&host, shell::Command::new("put_file").run_path("payload/p").path(&path).args([&modes, &user, &group]));
            must(&host, shell::Command::new("path_is_file").path(&path).arg(sha256(&content)).args([&modes, &user, &group]));
            let at = host.at(&path);
            prop_assert_eq!(&fs::read(&at).expect("it was put"), &content);
            prop_assert_eq!(fs::metadata(&at).expect("it was put").permissions().mode() & 0o7777, mode | 0o400);
            must(&host, shell::Command::new("path_snapshot").arg("k2").path(&path));
            must(&host, shell::Command::new("put_link").path(&path).arg(&target));
            must(&host, shell::Command::new("path_is_link").path(&path).arg(&target));
            must(&host, shell::Command::new("path_restore").arg("k2").path(&path));
            must(&host, shell::Command::new("path_is_file").path(&path).arg(sha256(&content)).args([&modes, &user, &group]));
            must(&host, shell::Command::new("path_restore").arg(key).path(&path));
            prop_assert!(fs::read_dir(host.at("/etc")).expect("ours").next().is_none(), "nothing is left");
        }
    }
}

#[test]
fn a_tree_is_kept_removed_and_brought_back() {
    for shell in SHELLS {
        let host = Host::new(shell);
        fs::create_dir_all(host.at("/etc/tree/a b/c")).expect("ours");
        host.write("/etc/tree/a b/f", b"x", 0o4640);
        std::os::unix::fs::symlink("nowhere", host.at("/etc/tree/l")).expect("ours");
        let before = host.look();
        must(
            &host,
            shell::Command::new("tree_snapshot")
                .arg("t")
                .path("/etc/tree"),
        );
        must(&host, shell::Command::new("remove_tree").path("/etc/tree"));
        must(&host, shell::Command::new("remove_tree").path("/etc/tree"));
        assert!(!host.at("/etc/tree").exists());
        for _ in 0..2 {
            must(
                &host,
                shell::Command::new("path_restore")
                    .arg("t")
                    .path("/etc/tree"),
            );
            assert_eq!(host.look(), before, "{shell}");
        }
        host.write("/etc/tree/a b/f", b"other", 0o600);
        must(
            &host,
            shell::Command::new("path_restore")
                .arg("t")
                .path("/etc/tree"),
        );
        assert_eq!(host.look(), before, "{shell}");
        let refused = call(
            &host,
            &shell::Script::one(shell::Command::new("remove_tree").path("/")),
        );
        assert!(!refused.status.success());
        assert_eq!(host.look(), before, "{shell}");
    }
}

#[test]
fn a_difference_is_told() {
    for shell in SHELLS {
        let host = Host::new(shell);
        host.write("/etc/f", b"x", 0o640);
        for (command, words) in [
            (
                shell::Command::new("path_is_absent").path("/etc/f"),
                "/etc/f: is there (file)",
            ),
            (
                shell::Command::new("path_is_dir")
                    .path("/etc/f")
                    .args(["755", "0", "0"]),
                "/etc/f: is no directory but file",
            ),
            (
                shell::Command::new("path_is_link").path("/etc/f").arg("x"),
                "/etc/f: is no link but file",
            ),
            (
                shell::Command::new("path_is_file")
                    .path("/etc/f")
                    .args(["0", "640", "0", "0"]),
                "/etc/f: its content is another",
            ),
            (
                shell::Command::new("path_is_file").path("/etc/f").args([
                    sha256(b"x").as_str(),
                    "0644",
                    "0",
                    "0",
                ]),
                "/etc/f: mode is 640, not 644",
            ),
            (
                shell::Command::new("path_is_file").path("/etc/f").args([
                    sha256(b"x").as_str(),
                    "0640",
                    "nobody-here",
                    "0",
                ]),
                "not nobody-here",
            ),
        ] {
            let output = call(&host, &shell::Script::one(command));
            assert_eq!(output.status.code(), Some(1), "{shell}: {words}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(words), "{shell}: {said}");
        }
    }
}

/// A `systemctl` that keeps its state in files.
const SYSTEMCTL: &str = r#"#!/bin/sh
state=${0%/*}/units; verb=$1; shift
if [ "$1" = -- ]; then shift; fi
mkdir -p "$state"
get() { cat "$state/$1.$2" 2>/dev/null || echo "$3"; }
case $verb in
    is-enabled) get "$1" boot disabled ;;
    is-active) get "$1" run inactive ;;
    enable) echo enabled >"$state/$1.boot" ;;
    disable | unmask) echo disabled >"$state/$1.boot" ;;
    mask) echo masked >"$state/$1.boot" ;;
    start) [ "$(get "$1" boot disabled)" != masked ] && echo active >"$state/$1.run" ;;
    stop) echo inactive >"$state/$1.run" ;;
esac
"#;

#[test]
fn units_come_back_as_they_were() {
    for shell in SHELLS {
        for boot in ["enabled", "disabled", "masked"] {
            for run in ["active", "inactive"] {
                for (verb, then) in [("enable", "start"), ("disable", "stop"), ("stop", "mask")] {
                    let host = Host::new(shell);
                    let tool = host.bin().join("systemctl");
                    fs::write(&tool, SYSTEMCTL).expect("ours");
                    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("ours");
                    let units = host.bin().join("units");
                    fs::create_dir(&units).expect("ours");
                    fs::write(units.join("u.service.boot"), format!("{boot}\n")).expect("ours");
                    fs::write(units.join("u.service.run"), format!("{run}\n")).expect("ours");
                    must(
                        &host,
                        shell::Command::new("unit_snapshot")
                            .arg("u")
                            .arg("u.service"),
                    );
                    for verb in [verb, then] {
                        call(
                            &host,
                            &shell::Script::one(
                                shell::Command::new("systemctl").arg(verb).arg("u.service"),
                            ),
                        );
                    }
                    for _ in 0..2 {
                        let restore = shell::Command::new("unit_restore")
                            .arg("u")
                            .arg("u.service");
                        let output = call(&host, &shell::Script::one(restore));
                        // A masked unit cannot be started, so this state has no way back but the unit's own.
                        if (boot, run) != ("masked", "active") {
                            assert!(output.status.success(), "{shell} {boot} {run} {verb}");
                            must(
                                &host,
                                shell::Command::new("unit_is").args(["u.service", run]),
                            );
                        }
                        must(
                            &host,
                            shell::Command::new("unit_enabled_is").args(["u.service", boot]),
                        );
                    }
                }
            }
        }
    }
}

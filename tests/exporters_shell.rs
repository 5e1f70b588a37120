//! How the check of an exporter reads answers, in every shell, on hosts that have wget and no
//! curl: GNU's and busybox's words for a port that asks for a password, and what is no metrics.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::Scratch;

const SHELLS: [&[&str]; 4] = [&["sh"], &["dash"], &["bash"], &["busybox", "sh"]];

/// What a `wget` does, whether a password is expected, and what is said; nothing where all is well.
const CASES: [(&str, &str, &str); 7] = [
    ("printf '# TYPE a gauge\\na 1\\n'", "open", ""),
    (
        "printf '# TYPE a gauge\\na 1\\n'",
        "asks",
        "gives /metrics without asking for a password",
    ),
    ("echo '<html>'", "open", "what it gives are no metrics"),
    ("exit 6", "asks", ""),
    (
        "echo 'wget: server returned error: HTTP/1.1 401 Unauthorized' >&2; exit 1",
        "asks",
        "",
    ),
    ("exit 6", "open", "something else than ours listens there"),
    ("exit 4", "open", "nothing answers there"),
];

/// Where a program is on this machine.
fn found(program: &str) -> Option<String> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    let mut paths = folders.iter().map(|folder| format!("{folder}/{program}"));
    paths.find(|path| Path::new(path).exists())
}

#[test]
fn answers_are_read_by_every_shell_without_curl() {
    let scratch = Scratch::new();
    let bin = scratch.path().join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    for tool in ["awk", "grep", "sleep"] {
        let path = found(tool).expect("a tool of every host");
        symlink(path, bin.join(tool)).expect("a link");
    }
    let wget = bin.join("wget");
    let library = include_str!("../src/platform/exporters/exporters.sh");
    for (answer, expected, said) in CASES {
        fs::write(&wget, format!("#!/bin/sh\n{answer}\n")).expect("a program");
        fs::set_permissions(&wget, fs::Permissions::from_mode(0o755)).expect("a mode");
        for shell in SHELLS {
            let program = found(shell[0]).expect("the shells are installed: tests/run");
            let script = format!(
                "podman_unit_is() {{ return 0; }}\n{library}\nexporter_answers u 127.0.0.1 1 {expected} 1"
            );
            let ended = Command::new(program)
                .args(&shell[1..])
                .arg("-c")
                .arg(script)
                .env("PATH", &bin)
                .output()
                .expect("a shell");
            let words = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(
                ended.status.success(),
                said.is_empty(),
                "{shell:?} {answer}: {words}"
            );
            assert!(words.contains(said), "{shell:?} {answer}: {words}");
        }
    }
}

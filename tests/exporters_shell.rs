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
    for tool in ["awk", "grep", "ls", "sleep"] {
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

/// The kernel's table with one listening socket on port 9400 (24B8), of this inode.
const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0000000000000000 100 0 0 10 0
   1: 0100007F:24B8 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 8 1 0000000000000000 100 0 0 10 0
   2: 00000000:24B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0
";

#[test]
fn whose_port_it_is_is_told_by_the_socket_in_every_shell() {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    // The process that listens, and one of another unit with another socket.
    for (pid, group, inode) in [
        ("10", "dcgm.service/inner", 4242),
        ("11", "other.service", 4243),
    ] {
        let process = format!("root/proc/{pid}");
        scratch.write(
            &format!("{process}/cgroup"),
            &format!("0::/system.slice/{group}\n"),
        );
        scratch.write(&format!("{process}/comm"), &format!("prog{pid}\n"));
        fs::create_dir_all(scratch.path().join(&process).join("fd")).expect("a folder");
        let link = scratch.path().join(&process).join("fd/3");
        symlink(format!("socket:[{inode}]"), link).expect("a link");
    }
    scratch.write("root/proc/net/tcp", TABLE);
    let library = include_str!("../src/platform/exporters/exporters.sh");
    let given = "podman_unit_is() { return 0; }\n\
         exporter_said() { code=200 metrics=1; }\n\
         systemctl() { for unit; do :; done; echo \"ControlGroup=/system.slice/$unit\"; }\n";
    for (unit, port, said) in [
        ("dcgm.service", 9400, ""),
        (
            "other.service",
            9400,
            "port 9400 answers, and it is not other.service that listens there but process 10 (prog10)",
        ),
        // A group's name that another's begins with is not the other's.
        (
            "dcgm.serv",
            9400,
            "port 9400 answers, and it is not dcgm.serv that listens there but process 10 (prog10)",
        ),
        // Nobody has that port: whatever answers, packets go there without a socket here.
        ("other.service", 5000, ""),
    ] {
        for shell in SHELLS {
            let program = found(shell[0]).expect("the shells are installed: tests/run");
            let script = format!("{library}\n{given}exporter_answers {unit} ::1 {port} open 0");
            let ended = Command::new(program)
                .args(&shell[1..])
                .args(["-c", &script])
                .env("R", &root)
                .output()
                .expect("a shell");
            let words = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(words.trim_end(), said, "{shell:?} {unit} {port}");
            assert_eq!(ended.status.success(), said.is_empty(), "{shell:?} {unit}");
        }
    }
}

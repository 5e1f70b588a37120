//! The transport against real `sudo`, real password logins and dropbear with
//! accounts of their own, in a private mount namespace: `/etc/passwd` and its
//! like are covered there by copies, so that this machine's stay as they are.
//!
//! It takes root and `unshare`; without root the tests say that they did not
//! run, and fail unless `DEPLOY_TESTS_WITHOUT` names `root`.

use std::process::{Command as Process, Stdio};
use std::time::Duration;

use deploy::transport::{ConnectionFlags, Context, UnreachableReason};
use deploy::value::Vars;

use crate::ssh::{
    Server, echo, free_port, have, keygen, reach, refused, run, said, set, vars, wait_for,
};

/// What `crypt(3)` makes of `s3cret pass`.
const HASH: &str = "$6$deploytest$AJeXT0AepyzuZhSSrGf3H0WcRwI7uh4MrT14fCSNk.dpK8K.YuXTf3Tmzlvs1RBlkOrkSfkbD5CvMn8LxZFWx.";
pub(crate) const PASSWORD: &str = "s3cret pass";

/// Covers the accounts, then becomes the server.
const COVER: &str = r#"
set -e
d=$1
shift
for name in passwd shadow group; do cp /etc/$name "$d/$name"; done
n=4710
for user in free ask none; do
    n=$((n + 1))
    mkdir -p "$d/home/$user/.ssh"
    cp "$d/id.pub" "$d/home/$user/.ssh/authorized_keys"
    chmod 700 "$d/home/$user/.ssh"
    chown -R $n:$n "$d/home/$user"
    echo "t$user:x:$n:$n::$d/home/$user:/bin/bash" >>"$d/passwd"
    echo "t$user:$HASH:19000:0:99999:7:::" >>"$d/shadow"
    echo "t$user:x:$n:" >>"$d/group"
done
mkdir -p /run/sudo
mount -t tmpfs none /run/sudo
if [ -e /etc/sudoers ]; then
    printf '%s\n' 'Defaults env_keep += "DEPLOY_SIM_ROOT"' 'root ALL=(ALL) ALL' 'tfree ALL=(ALL) NOPASSWD: ALL' 'task ALL=(ALL) ALL' >"$d/sudoers"
    chmod 440 "$d/sudoers"
    mount --bind "$d/sudoers" /etc/sudoers
fi
for name in passwd shadow group; do mount --bind "$d/$name" /etc/$name; done
exec "$@"
"#;

/// Whether tests that take root can run; fails the test unless that is allowed.
pub(crate) fn root() -> bool {
    let root = run("id", &["-u"]).trim() == "0";
    let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
    assert!(
        root || without.split(',').any(|name| name == "root"),
        "did not run: it takes root"
    );
    root && have("unshare")
}

/// A server among accounts of its own: `tfree`, `task` and `tnone`, of which
/// the first needs no password for `sudo`, the second does, the third may not.
pub(crate) fn private(last: u8, extra: &str, program: &[&str]) -> Option<Server> {
    if !root() || !have(program[0]) {
        return None;
    }
    let mut server = Server::start(last, extra)?;
    server.stop();
    server.port = free_port(&server.address);
    let folder = server
        .at("")
        .to_str()
        .expect("a path")
        .trim_end_matches('/')
        .to_owned();
    let config = std::fs::read_to_string(server.at("config")).expect("a file");
    let config: Vec<String> = config
        .lines()
        .map(|line| match line.split_once(' ') {
            Some(("Port", _)) => format!("Port {}", server.port),
            Some(("AuthorizedKeysFile", _)) => "AuthorizedKeysFile .ssh/authorized_keys".to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    std::fs::write(server.at("config"), config.join("\n") + "\n").expect("a file");
    let port = server.port.to_string();
    let words = program
        .iter()
        .map(|word| word.replace("{d}", &folder).replace("{port}", &port));
    let words: Vec<String> = words.collect();
    let mut process = Process::new("unshare");
    process
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            COVER,
            "cover",
            &folder,
        ])
        .args(&words)
        .env("HASH", HASH);
    process
        .env(
            "PATH",
            std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    process.stderr(std::fs::File::create(server.at("log")).expect("a file"));
    server.child = process.spawn().expect("unshare starts");
    wait_for(&server.address, server.port);
    server.know("known", "host.pub");
    Some(server)
}

pub(crate) const SSHD: &[&str] = &["/usr/sbin/sshd", "-D", "-e", "-f", "{d}/config"];

fn as_user(server: &Server, user: &str) -> Vars {
    let mut vars = server.vars();
    set(&mut vars, "ansible_user", user);
    vars
}

fn whoami() -> deploy::transport::Read {
    deploy::transport::Read::Command {
        command: deploy::shell::Command::new("id").arg("-un"),
        timeout: Duration::from_secs(20),
        limit: 100,
    }
}

#[tokio::test]
async fn real_sudo_lets_in_asks_and_refuses() {
    let Some(server) = private(31, "", SSHD) else {
        return;
    };
    if !have("sudo") {
        return;
    }
    let reads = [whoami(), echo("x")];
    let attempt = async |user: &str, password: Option<&str>| {
        let mut vars = as_user(&server, user);
        set(&mut vars, "ansible_become", "true");
        if let Some(password) = password {
            set(&mut vars, "ansible_become_password", password);
        }
        reach(&vars, &server.flags(), &Context::default(), &reads).await
    };
    for (user, password) in [
        ("tfree", None),
        ("tfree", Some("not needed")),
        ("task", Some(PASSWORD)),
    ] {
        let connected = attempt(user, password)
            .await
            .unwrap_or_else(|error| panic!("{user}: {error}"));
        assert_eq!(said(&connected.first[0]), "root\n", "{user}");
        assert_eq!(said(&connected.first[1]), "x\n", "{user}");
    }
    for (user, password, text) in [
        ("task", Some("wrong"), "did not accept"),
        ("task", None, "wants a password"),
        ("tnone", Some(PASSWORD), "does not allow"),
    ] {
        let error = refused(attempt(user, password).await, UnreachableReason::Become);
        assert!(error.message.contains(text), "{user}: {error}");
    }
    let plain = reach(
        &as_user(&server, "task"),
        &server.flags(),
        &Context::default(),
        &reads,
    )
    .await
    .expect("no sudo");
    assert_eq!(said(&plain.first[0]), "task\n");
}

#[tokio::test]
async fn who_may_not_look_is_told_so_and_not_that_nothing_is_there() {
    use deploy::transport::{FileReply, PathState, Read, Reply};
    let Some(server) = private(32, "", SSHD) else {
        return;
    };
    std::fs::create_dir(server.at("closed")).expect("a folder");
    std::fs::write(server.at("closed/file"), "x").expect("a file");
    std::fs::write(server.at("locked"), "x").expect("a file");
    for name in ["closed", "locked"] {
        std::fs::set_permissions(
            server.at(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("a mode");
    }
    let path = |name: &str| server.at(name).to_str().expect("a path").to_owned();
    let mut reads = Vec::new();
    for name in ["closed/file", "closed/deep/file", "locked", "nothing"] {
        reads.push(Read::File {
            path: path(name),
            limit: 10,
        });
        reads.push(Read::State {
            path: path(name),
            unless: None,
            limit: 10,
        });
    }
    let connected = reach(
        &as_user(&server, "task"),
        &server.flags(),
        &Context::default(),
        &reads,
    )
    .await
    .expect("a session");
    for (index, reply) in connected.first.iter().enumerate() {
        let denied = match reply {
            Reply::File(FileReply::Unreadable(why)) | Reply::State(PathState::Unreadable(why)) => {
                why.contains("permission denied")
            }
            _ => false,
        };
        assert_eq!(denied, index < 6, "{index}: {reply:?}");
    }
    assert_eq!(
        connected.first[6..],
        [
            Reply::File(FileReply::Absent),
            Reply::State(PathState::Absent)
        ]
    );
}

#[tokio::test]
async fn passwords_log_in_plainly_and_by_keyboard() {
    for (last, extra) in [
        (33, "PasswordAuthentication yes\nPubkeyAuthentication no"),
        (
            34,
            "UsePAM yes\nKbdInteractiveAuthentication yes\nPubkeyAuthentication no",
        ),
    ] {
        let Some(server) = private(last, extra, SSHD) else {
            return;
        };
        let mut vars = vars(&[
            ("ansible_host", &server.address),
            ("ansible_port", &server.port.to_string()),
            ("ansible_user", "task"),
        ]);
        set(
            &mut vars,
            "ansible_ssh_common_args",
            "-o IdentityAgent=none -i /nonexistent",
        );
        let flags = |password: &str| ConnectionFlags {
            password: Some(deploy::secret::Secret::new(password)),
            ..server.flags()
        };
        let reads = [whoami()];
        let connected = reach(&vars, &flags(PASSWORD), &Context::default(), &reads)
            .await
            .unwrap_or_else(|error| panic!("{extra}: {error}"));
        assert_eq!(said(&connected.first[0]), "task\n");
        let error = refused(
            reach(&vars, &flags("wrong"), &Context::default(), &reads).await,
            UnreachableReason::Authentication,
        );
        assert!(error.message.contains("the password"), "{error}");
        let error = refused(
            reach(&vars, &server.flags(), &Context::default(), &reads).await,
            UnreachableReason::Authentication,
        );
        assert!(error.message.contains("no key or password"), "{error}");
    }
}

#[tokio::test]
async fn dropbear_runs_the_same_loop() {
    if !have("dropbear") {
        return;
    }
    let program = [
        "/usr/sbin/dropbear",
        "-F",
        "-E",
        "-r",
        "{d}/dropbear",
        "-p",
        "127.0.1.35:{port}",
        "-P",
        "{d}/pid",
    ];
    // The key must be there before the server is.
    let key = tempfile::tempdir().expect("a folder");
    let made = key.path().join("key");
    run(
        "dropbearkey",
        &["-t", "ed25519", "-f", made.to_str().expect("a path")],
    );
    let program: Vec<String> = program
        .iter()
        .map(|word| word.replace("{d}/dropbear", made.to_str().expect("a path")))
        .collect();
    let program: Vec<&str> = program.iter().map(String::as_str).collect();
    let Some(server) = private(35, "", &program) else {
        return;
    };
    let listed = run("dropbearkey", &["-y", "-f", made.to_str().expect("a path")]);
    let public = listed
        .lines()
        .find(|line| line.starts_with("ssh-ed25519"))
        .expect("a key");
    std::fs::write(server.at("dropbear.pub"), public).expect("a file");
    server.know("known", "dropbear.pub");
    let mut connected = reach(
        &as_user(&server, "task"),
        &server.flags(),
        &Context::default(),
        &[whoami()],
    )
    .await
    .expect("a session");
    assert_eq!(said(&connected.first[0]), "task\n");
    let exec = deploy::transport::Exec {
        command: deploy::shell::Command::new("cat"),
        stdin: vec![7; 5_000_000],
        timeout: Duration::from_secs(60),
        limit: 1 << 30,
    };
    let output = connected
        .session
        .exec(&exec, &mut |_| ())
        .await
        .expect("output");
    assert_eq!((output.status, output.stdout.len()), (0, 5_000_000));
    // RSA keys too: dropbear takes them with SHA-256.
    keygen(&server.at("rsa"), &["-t", "rsa", "-b", "2048"]);
    std::fs::copy(
        server.at("rsa.pub"),
        server.at("home/ask/.ssh/authorized_keys"),
    )
    .expect("a copy");
    let mut vars = as_user(&server, "task");
    set(
        &mut vars,
        "ansible_ssh_private_key_file",
        server.at("rsa").to_str().expect("a path"),
    );
    reach(&vars, &server.flags(), &Context::default(), &[whoami()])
        .await
        .expect("by RSA");
}

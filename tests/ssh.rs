//! The transport against real servers on loopback: OpenSSH and dropbear, with
//! real keys, agents, jump hosts and `sudo`.
//!
//! A program that is missing fails the tests, unless `DEPLOY_TESTS_WITHOUT`
//! names it; then they say that they did not run.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deploy::error::Origin;
use deploy::event::HostName;
use deploy::secret::Secret;
use deploy::shell::Command;
use deploy::transport::known_hosts::HostKeyPolicy;
use deploy::transport::{
    Connected, ConnectionFlags, Context, Exec, Output, Prompt, Read, Reply, Target, Unreachable,
    UnreachableReason, connect,
};
use deploy::value::{Node, Value, Vars};

/// Whether a program is there. Missing is a failure unless the environment allows it.
pub(crate) fn have(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path
        .split(':')
        .any(|folder| Path::new(folder).join(program).exists());
    let without = std::env::var("DEPLOY_TESTS_WITHOUT").unwrap_or_default();
    if !found {
        assert!(
            without.split(',').any(|name| name == program),
            "did not run: {program} missing"
        );
        let _ = writeln!(std::io::stderr(), "did not run: {program} missing");
    }
    found
}

pub(crate) fn run(program: &str, words: &[&str]) -> String {
    let output = Process::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn keygen(path: &Path, words: &[&str]) {
    let path = path.to_str().expect("a plain path");
    let mut all = vec!["-q", "-f", path, "-C", "test"];
    if !words.contains(&"-N") {
        all.extend(["-N", ""]);
    }
    if !words.contains(&"-t") {
        all.extend(["-t", "ed25519"]);
    }
    all.extend(words);
    run("ssh-keygen", &all);
}

pub(crate) fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0))
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port()
}

/// A server and everything it was made with; stopped when dropped.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn wait_for(address: &str, port: u16) {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((address, port)).is_err() {
        assert!(
            Instant::now() < end,
            "the server at {address}:{port} does not come up"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Server {
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An sshd at 127.0.1.`last` that lets the user key `id` in.
    pub(crate) fn start(last: u8, extra: &str) -> Option<Self> {
        if !have("sshd") {
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("sshd")
            .tempdir()
            .expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host"), &[]);
        keygen(&at("id"), &[]);
        std::fs::copy(at("id.pub"), at("authorized")).expect("a copy");
        let address = format!("127.0.1.{last}");
        let port = free_port(&address);
        let config = format!(
            "{extra}\nListenAddress {address}\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\n\
             PidFile none\nPermitRootLogin yes\nUsePAM no\nUseDNS no\nStrictModes no\nPrintMotd no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            host = at("host").display(),
            authorized = at("authorized").display(),
        );
        std::fs::write(at("config"), config).expect("a file");
        // sshd wants its folder for privilege separation, when it runs as root.
        let _ = std::fs::create_dir_all("/run/sshd");
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let child = Process::new(sshd.expect("sshd at its place"))
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stderr(std::fs::File::create(at("log")).expect("a file"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let server = Self {
            address: address.clone(),
            port,
            child: child.expect("sshd starts"),
            folder,
        };
        wait_for(&address, port);
        server.know("known", "host.pub");
        Some(server)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_line(&self, key: &str) -> String {
        let key = std::fs::read_to_string(self.at(key)).expect("a key");
        key.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn know(&self, file: &str, key: &str) {
        let line = format!("[{}]:{} {}\n", self.address, self.port, self.key_line(key));
        std::fs::write(self.at(file), line).expect("a file");
    }

    pub(crate) fn vars(&self) -> Vars {
        vars(&[
            ("ansible_host", &self.address),
            ("ansible_port", &self.port.to_string()),
            ("ansible_user", &user()),
            (
                "ansible_ssh_private_key_file",
                self.at("id").to_str().expect("a path"),
            ),
        ])
    }

    pub(crate) fn flags(&self) -> ConnectionFlags {
        ConnectionFlags {
            known_hosts: Some(self.at("known")),
            ssh_config: Some("none".into()),
            timeout: Some(Duration::from_secs(20)),
            ..ConnectionFlags::default()
        }
    }

    async fn connect(&self) -> Result<Connected, Unreachable> {
        reach(
            &self.vars(),
            &self.flags(),
            &Context::default(),
            &[echo("first")],
        )
        .await
    }
}

fn user() -> String {
    run("id", &["-un"]).trim().to_owned()
}

pub(crate) fn vars(pairs: &[(&str, &str)]) -> Vars {
    let origin = Origin::whole("inventory.yml", "x");
    pairs
        .iter()
        .map(|(name, value)| {
            (
                (*name).to_owned(),
                Node::new(Value::Str((*value).to_owned()), origin.clone()),
            )
        })
        .collect()
}

pub(crate) fn set(vars: &mut Vars, name: &str, value: &str) {
    vars.extend(self::vars(&[(name, value)]));
}

pub(crate) async fn reach(
    vars: &Vars,
    flags: &ConnectionFlags,
    context: &Context,
    first: &[Read],
) -> Result<Connected, Unreachable> {
    let target = Target::from_vars(&HostName::from("h1"), vars, flags)
        .unwrap_or_else(|problems| panic!("{problems}"));
    connect(&target, context, first).await
}

fn shell(script: &str) -> Read {
    Read::Command {
        command: Command::new("sh").arg("-c").arg(script),
        timeout: Duration::from_secs(30),
        limit: 64 << 20,
    }
}

pub(crate) fn echo(text: &str) -> Read {
    Read::Command {
        command: Command::new("echo").arg(text),
        timeout: Duration::from_secs(30),
        limit: 1000,
    }
}

pub(crate) fn said(reply: &Reply) -> String {
    match reply {
        Reply::Command(output) => output.text(),
        other => panic!("not a command's reply: {other:?}"),
    }
}

pub(crate) fn refused(
    result: Result<Connected, Unreachable>,
    reason: UnreachableReason,
) -> Unreachable {
    let error = result.expect_err("it must be refused");
    assert_eq!(error.reason, reason, "{error}");
    error
}

#[tokio::test]
async fn one_connection_reads_writes_and_streams() {
    let Some(server) = Server::start(1, "") else {
        return;
    };
    let mut connected = server.connect().await.expect("a session");
    assert_eq!(said(&connected.first[0]), "first\n");
    let big: Vec<u8> = (0..20_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let exec = Exec {
        command: Command::new("cat"),
        stdin: big.clone(),
        timeout: Duration::from_secs(120),
        limit: 1 << 30,
    };
    let mut seen = 0;
    let output = connected
        .session
        .exec(&exec, &mut |bytes| seen += bytes.len())
        .await
        .expect("output");
    assert_eq!((output.status, seen), (0, big.len()));
    assert!(output.stdout == big, "what came back differs");
    let many: Vec<Read> = (0..300)
        .map(|_| Read::File {
            path: "/proc/version".into(),
            limit: 4096,
        })
        .collect();
    assert_eq!(
        connected.session.batch(&many).await.expect("replies").len(),
        300
    );
    let flood = shell("head -c 30000000 /dev/urandom; head -c 3000000 /dev/zero >&2");
    let replies = connected
        .session
        .batch(&[flood, echo("after")])
        .await
        .expect("replies");
    let Reply::Command(Output { stdout, stderr, .. }) = &replies[0] else {
        panic!("{replies:?}")
    };
    assert_eq!((stdout.len(), stderr.len()), (30_000_000, 64 << 10));
    assert_eq!(said(&replies[1]), "after\n");
    connected.session.close().await;
}

#[tokio::test]
async fn an_unknown_key_stops_with_its_fingerprint_and_accept_new_writes_it_down() {
    let Some(server) = Server::start(2, "") else {
        return;
    };
    std::fs::write(server.at("known"), "").expect("a file");
    let error = refused(server.connect().await, UnreachableReason::UnknownHostKey);
    let listed = run(
        "ssh-keygen",
        &["-lf", server.at("host.pub").to_str().expect("a path")],
    );
    let fingerprint = listed.split(' ').nth(1).expect("a fingerprint");
    assert!(error.message.contains(fingerprint), "{error}");
    assert!(
        error.hint.as_deref().is_some_and(
            |hint| hint.contains("--accept-new-host-keys") && hint.contains("ssh-keyscan")
        ),
        "{error:?}"
    );
    assert_eq!(
        std::fs::read_to_string(server.at("known")).expect("a file"),
        ""
    );
    let flags = ConnectionFlags {
        host_key_policy: Some(HostKeyPolicy::AcceptNew),
        ..server.flags()
    };
    reach(&server.vars(), &flags, &Context::default(), &[])
        .await
        .expect("accepted");
    server.connect().await.expect("known by now");
    let oracle = format!("[{}]:{}", server.address, server.port);
    run(
        "ssh-keygen",
        &[
            "-F",
            &oracle,
            "-f",
            server.at("known").to_str().expect("a path"),
        ],
    );
}

#[tokio::test]
async fn a_changed_or_revoked_key_is_refused_even_with_accept_new() {
    let Some(server) = Server::start(3, "") else {
        return;
    };
    keygen(&server.at("other"), &[]);
    server.know("known", "other.pub");
    let flags = ConnectionFlags {
        host_key_policy: Some(HostKeyPolicy::AcceptNew),
        ..server.flags()
    };
    let error = refused(
        reach(&server.vars(), &flags, &Context::default(), &[]).await,
        UnreachableReason::ChangedHostKey,
    );
    assert_eq!(error.message.matches("SHA256:").count(), 2, "{error}");
    assert!(error.message.contains("known:1"), "{error}");
    server.know("known", "host.pub");
    let known = std::fs::read_to_string(server.at("known")).expect("a file");
    std::fs::write(
        server.at("known"),
        format!("{known}@revoked * {}\n", server.key_line("host.pub")),
    )
    .expect("a file");
    let error = refused(server.connect().await, UnreachableReason::ChangedHostKey);
    assert!(error.message.contains("revoked"), "{error}");
    let before = std::fs::metadata(server.at("known")).expect("a file");
    assert!(before.len() > 0);
}

#[tokio::test]
async fn the_key_type_that_is_known_is_asked_for() {
    let Some(server) = Server::start(4, "") else {
        return;
    };
    // The server has ed25519 too, which would be taken first.
    keygen(&server.at("rsa"), &["-t", "rsa", "-b", "2048"]);
    let config = std::fs::read_to_string(server.at("config")).expect("a file");
    let both = config.replace(
        "HostKey ",
        &format!("HostKey {}\nHostKey ", server.at("rsa").display()),
    );
    let port = free_port(&server.address);
    std::fs::write(
        server.at("config2"),
        both.replace(&format!("Port {}", server.port), &format!("Port {port}")),
    )
    .expect("a file");
    let child = Process::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(server.at("config2"))
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts");
    let second = Server {
        folder: tempfile::tempdir().expect("a folder"),
        address: server.address.clone(),
        port,
        child,
    };
    wait_for(&second.address, port);
    let line = format!(
        "[{}]:{port} {}\n",
        server.address,
        server.key_line("rsa.pub")
    );
    std::fs::write(server.at("known"), line).expect("a file");
    let mut vars = server.vars();
    set(&mut vars, "ansible_port", &port.to_string());
    reach(&vars, &server.flags(), &Context::default(), &[])
        .await
        .expect("the RSA key is known");
}

#[tokio::test]
async fn a_host_certificate_counts_for_its_name_only() {
    let Some(server) = Server::start(5, "HostCertificate /nonexistent") else {
        return;
    };
    // `HostCertificate` is read at start, so that server is made anew below.
    keygen(&server.at("ca"), &[]);
    let at = |name: &str| server.at(name).to_str().expect("a path").to_owned();
    run(
        "ssh-keygen",
        &[
            "-q",
            "-s",
            &at("ca"),
            "-I",
            "h",
            "-h",
            "-n",
            "127.0.1.5",
            "-V",
            "-1d:+1d",
            &at("host.pub"),
        ],
    );
    let port = free_port(&server.address);
    let config = std::fs::read_to_string(server.at("config")).expect("a file");
    let config = config
        .replace("/nonexistent", &at("host-cert.pub"))
        .replace(&format!("Port {}", server.port), &format!("Port {port}"));
    std::fs::write(server.at("config2"), config).expect("a file");
    let child = Process::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(server.at("config2"))
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts");
    let _second = Server {
        folder: tempfile::tempdir().expect("a folder"),
        address: server.address.clone(),
        port,
        child,
    };
    wait_for(&server.address, port);
    let mut vars = server.vars();
    set(&mut vars, "ansible_port", &port.to_string());
    let authority = format!(
        "@cert-authority 127.0.1.*,[127.0.1.*]:* {}\n",
        server.key_line("ca.pub")
    );
    std::fs::write(server.at("known"), &authority).expect("a file");
    reach(&vars, &server.flags(), &Context::default(), &[])
        .await
        .expect("the certificate is trusted");
    std::fs::write(
        server.at("known"),
        format!("{authority}@revoked * {}\n", server.key_line("ca.pub")),
    )
    .expect("a file");
    refused(
        reach(&vars, &server.flags(), &Context::default(), &[]).await,
        UnreachableReason::UnknownHostKey,
    );
    set(
        &mut vars,
        "ansible_ssh_common_args",
        "-o HostKeyAlias=other",
    );
    std::fs::write(
        server.at("known"),
        format!("@cert-authority * {}\n", server.key_line("ca.pub")),
    )
    .expect("a file");
    let error = refused(
        reach(&vars, &server.flags(), &Context::default(), &[]).await,
        UnreachableReason::UnknownHostKey,
    );
    assert!(error.message.contains("not for this name"), "{error}");
}

struct Answers(Mutex<Vec<PathBuf>>, &'static str);

impl Prompt for Answers {
    fn passphrase(&self, key: &Path) -> Option<Secret> {
        self.0.lock().expect("no panic").push(key.to_owned());
        Some(Secret::new(self.1))
    }
}

#[tokio::test]
async fn an_encrypted_key_is_asked_for_once_and_old_formats_are_explained() {
    let Some(server) = Server::start(6, "") else {
        return;
    };
    keygen(&server.at("locked"), &["-N", "open sesame"]);
    let authorized = [server.key_line("id.pub"), server.key_line("locked.pub")].join("\n");
    std::fs::write(server.at("authorized"), authorized).expect("a file");
    let mut vars = server.vars();
    set(
        &mut vars,
        "ansible_ssh_private_key_file",
        server.at("locked").to_str().expect("a path"),
    );
    let mut flags = server.flags();
    set(
        &mut vars,
        "ansible_ssh_common_args",
        "-o IdentitiesOnly=yes -o IdentityAgent=none",
    );
    flags.timeout = Some(Duration::from_secs(60));
    let prompt = Arc::new(Answers(Mutex::default(), "open sesame"));
    let context = Context::new(Arc::clone(&prompt) as Arc<dyn Prompt>);
    let (one, two) = tokio::join!(
        reach(&vars, &flags, &context, &[]),
        reach(&vars, &flags, &context, &[])
    );
    one.expect("logged in");
    two.expect("logged in");
    assert_eq!(*prompt.0.lock().expect("no panic"), [server.at("locked")]);
    let context = Context::new(Arc::new(Answers(Mutex::default(), "wrong")));
    let error = refused(
        reach(&vars, &flags, &context, &[]).await,
        UnreachableReason::Authentication,
    );
    assert!(
        error.message.contains("passphrase") && error.message.contains("wrong"),
        "{error}"
    );
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Authentication,
    );
    assert!(error.message.contains("needs a passphrase"), "{error}");
    std::fs::write(server.at("old"), "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n").expect("a file");
    set(
        &mut vars,
        "ansible_ssh_private_key_file",
        server.at("old").to_str().expect("a path"),
    );
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Authentication,
    );
    assert!(error.message.contains("ssh-keygen -p -f"), "{error}");
}

#[tokio::test]
async fn rsa_keys_sign_with_sha2_and_a_wrong_key_is_named() {
    let Some(server) = Server::start(7, "") else {
        return;
    };
    keygen(&server.at("rsa"), &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
    let mut vars = server.vars();
    set(
        &mut vars,
        "ansible_ssh_private_key_file",
        server.at("rsa").to_str().expect("a path"),
    );
    set(
        &mut vars,
        "ansible_ssh_common_args",
        "-o IdentitiesOnly=yes",
    );
    let error = refused(
        reach(&vars, &server.flags(), &Context::default(), &[]).await,
        UnreachableReason::Authentication,
    );
    assert!(
        error.message.contains("/rsa`") && error.message.contains("publickey"),
        "{error}"
    );
    std::fs::copy(server.at("rsa.pub"), server.at("authorized")).expect("a copy");
    reach(&vars, &server.flags(), &Context::default(), &[])
        .await
        .expect("logged in");
}

#[tokio::test]
async fn an_agent_signs_and_identities_only_leaves_its_other_keys_alone() {
    let Some(server) = Server::start(8, "MaxAuthTries 3") else {
        return;
    };
    let socket = server.at("agent");
    let mut agent = Process::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("did not run: ssh-agent missing");
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < end, "the agent does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
    let add = |key: &str| {
        let status = Process::new("ssh-add")
            .arg("-q")
            .arg(server.at(key))
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .expect("ssh-add runs");
        assert!(status.success());
    };
    for number in 0..4 {
        keygen(&server.at(&format!("k{number}")), &[]);
        add(&format!("k{number}"));
    }
    add("id");
    // The private half is in the agent only.
    std::fs::remove_file(server.at("id")).expect("removed");
    let mut vars = server.vars();
    let args = format!("-o IdentityAgent={}", socket.display());
    set(&mut vars, "ansible_ssh_common_args", &args);
    let named = reach(&vars, &server.flags(), &Context::default(), &[]).await;
    vars.shift_remove("ansible_ssh_private_key_file");
    set(
        &mut vars,
        "ansible_ssh_common_args",
        &format!(
            "{args} -o IdentitiesOnly=yes -i {}",
            server.at("id").display()
        ),
    );
    let only = reach(&vars, &server.flags(), &Context::default(), &[]).await;
    set(
        &mut vars,
        "ansible_ssh_common_args",
        &format!("{args} -o IdentitiesOnly=no -i /nonexistent/key"),
    );
    let too_many = reach(&vars, &server.flags(), &Context::default(), &[]).await;
    let _ = agent.kill();
    let _ = agent.wait();
    named.expect("the agent signs for the named key");
    only.expect("the agent signs for the only key");
    // Five keys of the agent are more than the server lets us try.
    let error = too_many.expect_err("too many tries");
    assert!(error.message.contains("from the agent"), "{error}");
}

#[tokio::test]
async fn hosts_behind_a_jump_host_share_its_connection() {
    let (Some(bastion), Some(inner)) = (Server::start(9, ""), Server::start(10, "")) else {
        return;
    };
    let config = format!(
        "Host jump\n HostName {}\n Port {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\nHost two\n HostName {}\n Port {}\n User {3}x\n ProxyJump jump\n",
        bastion.address, bastion.port, user(), bastion.at("id").display(), bastion.address, bastion.port,
    ).replace(&format!("User {}x", bastion.at("id").display()), &format!("User {}\n IdentityFile {}", user(), bastion.at("id").display()));
    std::fs::write(inner.at("ssh_config"), config).expect("a file");
    let known = [&bastion, &inner]
        .map(|server| std::fs::read_to_string(server.at("known")).expect("a file"))
        .join("");
    std::fs::write(inner.at("both"), known).expect("a file");
    let mut flags = inner.flags();
    flags.ssh_config = Some(inner.at("ssh_config"));
    flags.known_hosts = Some(inner.at("both"));
    let mut vars = inner.vars();
    set(&mut vars, "ansible_ssh_common_args", "-o ProxyJump=jump");
    let context = Context::default();
    let asked = ["a", "b", "c"].map(|text| [echo(text)]);
    let (a, b, c) = tokio::join!(
        reach(&vars, &flags, &context, &asked[0]),
        reach(&vars, &flags, &context, &asked[1]),
        reach(&vars, &flags, &context, &asked[2])
    );
    for (connected, text) in [(a, "a\n"), (b, "b\n"), (c, "c\n")] {
        assert_eq!(
            said(&connected.expect("through the jump host").first[0]),
            text
        );
    }
    let log = std::fs::read_to_string(bastion.at("log")).expect("a log");
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    // Two hops: through `jump` to `two` (the same server again), and on.
    set(&mut vars, "ansible_ssh_common_args", "-J two");
    reach(&vars, &flags, &Context::default(), &[])
        .await
        .expect("through two hops");
    // The key of a jump host is checked as well.
    flags.known_hosts = Some(inner.at("known"));
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Jump,
    );
    assert!(
        error.message.contains("jump host `jump`") && error.message.contains("not known"),
        "{error}"
    );
}

#[tokio::test]
async fn what_start_up_files_say_is_passed_over_and_other_shells_are_named() {
    let Some(server) = Server::start(11, "") else {
        return;
    };
    let config = std::fs::read_to_string(server.at("config")).expect("a file");
    let mut left = Vec::new();
    for (index, (force, reason)) in [
        ("sh -c 'echo Welcome; echo to @@ the host; echo noise >&2; eval \"$SSH_ORIGINAL_COMMAND\"'", None),
        ("/bin/cat", Some(UnreachableReason::Timeout)),
        ("/bin/false", Some(UnreachableReason::Shell)),
        ("echo This account is not available; exit 1", Some(UnreachableReason::Shell)),
        ("yes", Some(UnreachableReason::Shell)),
        ("fish -c \"$SSH_ORIGINAL_COMMAND\"", None),
    ].into_iter().enumerate() {
        if force.starts_with("fish") && !have("fish") {
            continue;
        }
        let port = free_port(&server.address);
        let file = server.at(&format!("config{index}"));
        let config = config.replace(&format!("Port {}", server.port), &format!("Port {port}\nForceCommand {force}"));
        std::fs::write(&file, config).expect("a file");
        let child = Process::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(&file).stderr(Stdio::null()).spawn().expect("sshd starts");
        left.push(Server { folder: tempfile::tempdir().expect("a folder"), address: server.address.clone(), port, child });
        wait_for(&server.address, port);
        let line = format!("[{}]:{port} {}\n", server.address, server.key_line("host.pub"));
        std::fs::write(server.at("known"), line).expect("a file");
        let mut vars = server.vars();
        set(&mut vars, "ansible_port", &port.to_string());
        let flags = ConnectionFlags { timeout: Some(Duration::from_secs(4)), ..server.flags() };
        let result = reach(&vars, &flags, &Context::default(), &[echo("hello"), shell("printf '%s' 'a\\b'\\''c'")]).await;
        match reason {
            None => {
                let connected = result.unwrap_or_else(|error| panic!("{force}: {error}"));
                assert_eq!(said(&connected.first[0]), "hello\n", "{force}");
                assert_eq!(said(&connected.first[1]), "a\\b'c", "{force}");
            }
            Some(reason) => {
                let error = refused(result, reason);
                if force.starts_with("echo") {
                    assert!(error.message.contains("This account is not available"), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_and_one_that_is_no_ssh_server() {
    let listener = TcpListener::bind("127.0.1.12:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let talk = |text: &'static str, times: usize| {
        let listener = listener.try_clone().expect("a clone");
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for _ in 0..times {
                let (mut stream, _) = listener.accept().expect("a connection");
                let _ = stream.write_all(text.as_bytes());
                if !text.is_empty() {
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                    let _ = stream.read(&mut [0; 64]);
                    continue;
                }
                held.push(stream);
            }
            std::thread::sleep(Duration::from_secs(3));
        })
    };
    let vars = vars(&[
        ("ansible_host", "127.0.1.12"),
        ("ansible_port", &port.to_string()),
    ]);
    let flags = ConnectionFlags {
        ssh_config: Some("none".into()),
        timeout: Some(Duration::from_secs(1)),
        ..ConnectionFlags::default()
    };
    let silent = talk("", 1);
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Timeout,
    );
    assert!(error.message.contains("said nothing"), "{error}");
    silent.join().expect("no panic");
    let web = talk("HTTP/1.1 400 Bad Request\r\n\r\n", 1);
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Down,
    );
    assert!(error.message.contains("HTTP/1.1 400"), "{error}");
    web.join().expect("no panic");
    drop(listener);
    let error = refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Down,
    );
    assert!(error.message.contains("refused"), "{error}");
    let vars = self::vars(&[("ansible_host", "no-such-host.invalid")]);
    refused(
        reach(&vars, &flags, &Context::default(), &[]).await,
        UnreachableReason::Down,
    );
}

#[tokio::test]
async fn a_server_that_sheds_load_is_tried_again() {
    let Some(server) = Server::start(13, "MaxStartups 2:90:4") else {
        return;
    };
    let context = Arc::new(Context::default());
    let server = Arc::new(server);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (server, context) = (Arc::clone(&server), Arc::clone(&context));
            tokio::spawn(async move { reach(&server.vars(), &server.flags(), &context, &[]).await })
        })
        .collect();
    for task in tasks {
        task.await
            .expect("no panic")
            .expect("in the end all are let in");
    }
}

#[tokio::test]
async fn a_host_that_hangs_mid_batch_costs_only_that_command() {
    let Some(server) = Server::start(14, "") else {
        return;
    };
    let hang = Read::Command {
        command: Command::new("sleep").arg("600"),
        timeout: Duration::from_secs(1),
        limit: 10,
    };
    let connected = reach(
        &server.vars(),
        &server.flags(),
        &Context::default(),
        &[hang, echo("on")],
    )
    .await
    .expect("a session");
    assert!(
        matches!(
            &connected.first[0],
            Reply::Command(Output {
                timed_out: true,
                ..
            })
        ),
        "{:?}",
        connected.first[0]
    );
    assert_eq!(said(&connected.first[1]), "on\n");
}

/// A `sudo` that asks as the real one does, for tests that cannot add users.
/// The password never shows in an argument, or the test fails.
const SUDO: &str = r#"#!/bin/sh
ask= prompt= quiet=
echo "$*" >>"$0.seen"
while [ $# -gt 0 ]; do
    case $1 in
    -S) ask=yes; shift ;;
    -n) quiet=yes; shift ;;
    -p) prompt=$2; shift 2 ;;
    -u) [ "$2" = root ] || { echo "sudo: unknown user $2" >&2; exit 1; }; shift 2 ;;
    -H) shift ;;
    --) shift; break ;;
    *) echo "sudo: what is $1" >&2; exit 1 ;;
    esac
done
case $(cat "$0.mode") in
free) exec "$@" ;;
tty) echo "sudo: sorry, you must have a tty to run sudo" >&2; exit 1 ;;
hang) sleep 600; exit 1 ;;
stranger) echo "u is not in the sudoers file." >&2; exit 1 ;;
esac
[ -z "$quiet" ] || { echo "sudo: a password is required" >&2; exit 1; }
[ -n "$ask" ] || { echo "sudo: a terminal is required to read the password" >&2; exit 1; }
for try in 1 2 3; do
    printf '%s' "$prompt" >&2
    IFS= read -r password || exit 1
    [ "$password" = "pa ss'word\\" ] && exec "$@"
    echo "Sorry, try again." >&2
done
echo "sudo: 3 incorrect password attempts" >&2
exit 1
"#;

#[tokio::test]
async fn sudo_with_and_without_password_and_all_its_refusals() {
    let Some(server) = Server::start(15, "") else {
        return;
    };
    let sudo = server.at("sudo");
    std::fs::write(&sudo, SUDO).expect("a file");
    std::fs::set_permissions(&sudo, PermissionsExt::from_mode(0o755)).expect("a mode");
    let mode = |mode: &str| std::fs::write(server.at("sudo.mode"), mode).expect("a file");
    let mut vars = server.vars();
    // We may be root here, and root needs no sudo: another name of the same user asks for it.
    set(&mut vars, "ansible_become", "true");
    set(
        &mut vars,
        "ansible_become_exe",
        sudo.to_str().expect("a path"),
    );
    let flags = ConnectionFlags {
        timeout: Some(Duration::from_secs(3)),
        ..server.flags()
    };
    let attempt = async |password: Option<&str>| {
        let mut vars = vars.clone();
        if user() == "root" {
            set(&mut vars, "ansible_ssh_common_args", "");
        }
        if let Some(password) = password {
            set(&mut vars, "ansible_become_password", password);
        }
        let mut target = Target::from_vars(&HostName::from("h1"), &vars, &flags).expect("a target");
        target.force_sudo(
            "root",
            sudo.to_str().expect("a path"),
            password.map(Secret::new),
        );
        connect(&target, &Context::default(), &[echo("as root")]).await
    };
    let right = "pa ss'word\\";
    for password in [None, Some(right)] {
        mode("free");
        assert_eq!(
            said(&attempt(password).await.expect("no question").first[0]),
            "as root\n"
        );
    }
    mode("ask");
    let mut connected = attempt(Some(right)).await.expect("the password is right");
    assert_eq!(said(&connected.first[0]), "as root\n");
    let replies = connected
        .session
        .batch(&[echo("later")])
        .await
        .expect("replies");
    assert_eq!(said(&replies[0]), "later\n");
    let seen = std::fs::read_to_string(server.at("sudo.seen")).expect("a file");
    assert!(!seen.contains("word"), "the password was in an argument");
    for (how, password, text) in [
        ("ask", Some("wrong"), "did not accept"),
        ("ask", None, "wants a password"),
        ("tty", Some(right), "terminal"),
        ("stranger", None, "does not allow"),
        ("hang", None, "sudo"),
    ] {
        mode(how);
        let error = refused(attempt(password).await, UnreachableReason::Become);
        assert!(error.message.contains(text), "{how}: {error}");
        assert!(
            !format!("{error} {error:?}").contains("pa ss"),
            "{how}: {error}"
        );
    }
}

use super::super::known_hosts::HostKeyPolicy;
use super::*;

fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    std::fs::write(&path, text).expect("a file");
    (folder, path)
}

fn settings(text: &str, host: &str) -> (HostSettings, Problems) {
    let (_folder, path) = config(text);
    SshConfig::of_file(&path).settings(host, &[])
}

/// What `ssh -G` says for the same file: the values of each keyword.
fn oracle(path: &Path, host: &str) -> Vec<(String, String)> {
    let output = std::process::Command::new("ssh")
        .arg("-F")
        .arg(path)
        .args(["-G", host])
        .output();
    let output = output.expect("did not run: ssh missing");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn the_same_settings_as_ssh() {
    let (folder, path) = config(concat!(
        "# first value wins\n",
        "Host web* !web9\n  HostName %h.example.com\n  Port = 2200\n  IdentityFile ~/.ssh/%r_%h_%p\n",
        "Host=\"db one\" db\n\tUser \"dba\" # trailing\n\tProxyJump none\n",
        "Match host *.example.com\n  User matched\n  IdentityFile /k/%n\n",
        "Match originalhost web2\n  Port 1\n  ServerAliveInterval 7\n",
        "Match all\n  ConnectTimeout 4\n",
        "Include inc/*.conf\n",
        "Host *\n  User last\n  Port 99\n  ProxyJump a@b:7,c\n  UserKnownHostsFile ~/kh1 \"/tmp/k h 2\"\n",
        "  IdentitiesOnly yes\n  StrictHostKeyChecking accept-new\n  HostKeyAlias al-%h\n  ForwardAgent yes\n",
    ));
    std::fs::create_dir(folder.path().join("inc")).expect("a folder");
    std::fs::write(
        folder.path().join("inc/b.conf"),
        "Port 3\nHost web3\n  User inc3\n",
    )
    .expect("a file");
    std::fs::write(
        folder.path().join("inc/a.conf"),
        "Host web9\n  HostName nine\n",
    )
    .expect("a file");
    let text = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(
        &path,
        text.replace("inc/*", &format!("{}/inc/*", folder.path().display())),
    )
    .expect("a file");
    for host in ["web1", "web2", "web3", "web9", "db", "other", "WEB1"] {
        let (ours, problems) = SshConfig::of_file(&path).settings(host, &[]);
        assert_eq!(problems, Problems::default(), "{host}");
        let theirs = oracle(&path, host);
        let one = |key: &str| {
            theirs
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(
            Some(ours.hostname.to_lowercase().as_str()),
            one("hostname"),
            "{host}"
        );
        assert_eq!(ours.user.as_deref(), one("user"), "{host}");
        assert_eq!(
            ours.port.unwrap_or(22).to_string(),
            one("port").expect("a port"),
            "{host}"
        );
        assert_eq!(ours.proxy_jump.as_deref(), one("proxyjump"), "{host}");
        assert_eq!(
            ours.connect_timeout
                .map(|t| t.as_secs().to_string())
                .as_deref(),
            one("connecttimeout"),
            "{host}"
        );
        assert_eq!(
            ours.alive_interval
                .unwrap_or_default()
                .as_secs()
                .to_string(),
            one("serveraliveinterval").expect("one"),
            "{host}"
        );
        assert_eq!(
            ours.identities_only,
            one("identitiesonly") == Some("yes"),
            "{host}"
        );
        let expanded: Vec<String> = theirs
            .iter()
            .filter(|(k, _)| k == "identityfile")
            .map(|(_, v)| v.clone())
            .collect();
        if !ours.identity_files.is_empty() {
            assert_eq!(
                ours.identity_files.len(),
                expanded.len(),
                "{host}: {expanded:?}"
            );
        }
    }
    let (web1, _) = SshConfig::of_file(&path).settings("web1", &[]);
    assert_eq!(
        web1.identity_files,
        [
            home().join(".ssh/matched_web1.example.com_2200"),
            PathBuf::from("/k/web1")
        ]
    );
    assert_eq!(
        web1.user_known_hosts,
        Some(vec![home().join("kh1"), PathBuf::from("/tmp/k h 2")])
    );
    assert_eq!(web1.host_key_alias.as_deref(), Some("al-web1.example.com"));
    assert_eq!(web1.policy, Some(HostKeyPolicy::AcceptNew));
}

#[test]
fn what_is_not_read_is_an_error_only_where_it_applies() {
    let text = "Host bad\n  BindAddress 10.0.0.1\n  ProxyCommand nc %h %p\nHost odd\n  Prot 1\n\
                Host mat*\nMatch exec \"true\"\n  User leak\n  Compression yes\n";
    let (_, problems) = settings(text, "bad");
    // The `Match exec` may apply to any host.
    let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].contains("config:2:1") && told[0].contains("bindaddress"),
        "{told:?}"
    );
    assert!(
        told[1].contains("config:8:1") && told[1].contains("Match"),
        "{told:?}"
    );
    assert!(
        told[2].contains("config:3:1") && told[2].contains("ProxyCommand"),
        "{told:?}"
    );
    let (odd, problems) = settings("Host odd\n  Prot 1\nHost *\n  Match\n", "odd");
    assert!(odd.port.is_none());
    assert!(
        problems.to_string().contains("did you mean `port`?"),
        "{problems}"
    );
    let (_, problems) = settings("Host other\n  BindAddress 1\n  Prot 1\n", "web1");
    assert_eq!(problems, Problems::default());
}

#[test]
fn a_match_for_another_host_does_not_leak() {
    let (web1, problems) = settings(
        "Match host other user x\n  User LEAK\n  ProxyJump evil\n",
        "web1",
    );
    assert_eq!(
        (web1.user, web1.proxy_jump, problems),
        (None, None, Problems::default())
    );
}

#[test]
fn includes_that_go_round_end() {
    let (_folder, path) = config("");
    std::fs::write(&path, format!("Include {}\n", path.display())).expect("a file");
    let (_, problems) = SshConfig::of_file(&path).settings("h", &[]);
    assert!(problems.to_string().contains("deep"), "{problems}");
}

#[test]
fn a_command_that_is_a_jump_is_read_as_one() {
    let (host, problems) = settings(
        "Host h\n ProxyCommand ssh -q -l u -p 7 -W %h:%p bastion\n",
        "h",
    );
    assert_eq!(
        (host.proxy_jump.as_deref(), problems),
        (Some("u@bastion:7"), Problems::default())
    );
    let (_, problems) = settings("Host h\n ProxyCommand ssh -F x -W %h:%p bastion\n", "h");
    assert!(problems.has_errors());
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let (_, problems) = settings("User \"x\nPort\nPort x\n", "h");
    let told = problems.to_string();
    assert!(
        told.contains("config:1:1") && told.contains("config:2:1") && told.contains("config:3:1"),
        "{told}"
    );
    let (_, problems) = SshConfig::of_file(Path::new("/nonexistent/config")).settings("h", &[]);
    assert!(problems.has_errors());
}

#[test]
fn settings_in_front_win() {
    let (_folder, path) = config("User file\nPort 5\n");
    let front = Setting {
        keyword: "user".into(),
        words: vec!["front".into()],
        origin: None,
    };
    let (host, _) = SshConfig::of_file(&path).settings("h", &[front]);
    assert_eq!((host.user.as_deref(), host.port), (Some("front"), Some(5)));
}

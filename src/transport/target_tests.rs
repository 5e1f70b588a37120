use super::*;
use crate::error::Origin;
use crate::error::Severity;

fn vars(pairs: &[(&str, &str)]) -> Vars {
    let origin = Origin::whole("inventory.yml", "x");
    let node = |value: &str| Node::new(Value::Str(value.to_owned()), origin.clone());
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), node(value)))
        .collect()
}

fn no_config() -> ConnectionFlags {
    ConnectionFlags {
        ssh_config: Some("none".into()),
        ..ConnectionFlags::default()
    }
}

fn target(pairs: &[(&str, &str)], flags: &ConnectionFlags) -> Result<Target, String> {
    let target = Target::from_vars(&HostName::from("h1"), &vars(pairs), flags);
    target.map_err(|problems| problems.to_string())
}

fn endpoint(pairs: &[(&str, &str)], flags: &ConnectionFlags) -> Endpoint {
    match target(pairs, flags).expect("a target").connection {
        Connection::Ssh(endpoint) => *endpoint,
        other => panic!("{other:?}"),
    }
}

fn files(endpoint: &Endpoint) -> Vec<PathBuf> {
    let file = |identity: &Identity| match identity {
        Identity::File(path) => Some(path.clone()),
        _ => None,
    };
    endpoint.identities.iter().filter_map(file).collect()
}

#[test]
fn without_variables_it_is_ssh_to_the_inventory_name() {
    let plain = endpoint(&[], &no_config());
    assert_eq!((plain.address.as_str(), plain.port), ("h1", 22));
    assert_eq!(plain.user, ssh_config::local_user());
    assert_eq!(plain.timeout, Duration::from_secs(10));
    assert_eq!(plain.policy, HostKeyPolicy::Strict);
    assert!(files(&plain).is_empty() && !plain.identities.is_empty());
}

#[test]
fn the_ssh_names_win_over_the_short_ones() {
    let all = endpoint(
        &[
            ("ansible_host", "short"),
            ("ansible_ssh_host", "long"),
            ("ansible_port", "1"),
            ("ansible_ssh_port", "2"),
            ("ansible_user", "short"),
            ("ansible_ssh_user", "long"),
            ("ansible_password", "short"),
            ("ansible_ssh_pass", "middle"),
            ("ansible_private_key_file", "/short"),
            ("ansible_ssh_private_key_file", "~/long"),
            ("ansible_ssh_timeout", "3"),
        ],
        &no_config(),
    );
    assert_eq!(
        (all.address.as_str(), all.port, all.user.as_str()),
        ("long", 2, "long")
    );
    assert_eq!(all.password, Some(Secret::new("middle")));
    assert_eq!(files(&all), [ssh_config::home().join("long")]);
    assert_eq!(all.timeout, Duration::from_secs(3));
}

#[test]
fn a_variable_wins_over_the_command_line_and_that_over_ssh_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    std::fs::write(
        &path,
        "Host h1\n User config\n Port 4\n IdentityFile /config\n ProxyJump u@j:5\n",
    )
    .expect("a file");
    let mut flags = ConnectionFlags {
        ssh_config: Some(path),
        ..ConnectionFlags::default()
    };
    let from_file = endpoint(&[], &flags);
    assert_eq!((from_file.user.as_str(), from_file.port), ("config", 4));
    assert_eq!(
        (from_file.jumps[0].user.as_str(), from_file.jumps[0].port),
        ("u", 5)
    );
    flags.user = Some("flag".to_owned());
    flags.private_key = Some("/flag".into());
    let flagged = endpoint(&[], &flags);
    assert_eq!(flagged.user, "flag");
    assert_eq!(
        files(&flagged),
        [PathBuf::from("/flag"), PathBuf::from("/config")]
    );
    assert_eq!(endpoint(&[("ansible_user", "var")], &flags).user, "var");
}

#[test]
fn arguments_of_ssh_are_read_and_the_rest_is_refused_by_name() {
    let read = endpoint(
        &[(
            "ansible_ssh_common_args",
            "-C -o ProxyJump=a,b -o 'UserKnownHostsFile=/k1 /k2' -oUser=o -i ~/key -p 7 -o \"ConnectTimeout 4\" -q",
        )],
        &no_config(),
    );
    let jumps: Vec<&str> = read
        .jumps
        .iter()
        .map(|jump| jump.address.as_str())
        .collect();
    assert_eq!(jumps, ["a", "b"]);
    assert_eq!(
        (read.user.as_str(), read.port, read.timeout),
        ("o", 7, Duration::from_secs(4))
    );
    assert_eq!(
        read.known_hosts[..2],
        [PathBuf::from("/k1"), PathBuf::from("/k2")]
    );
    for (args, named) in [
        ("-R 1:h:2", "`-R`"),
        ("-o BindAddress=1", "bindaddress"),
        ("-o Usr=x", "did you mean `user`?"),
        ("-o ProxyCommand='nc %h %p'", "ProxyCommand"),
        ("-o", "no value"),
        ("host", "`host`"),
        ("-o 'User=x", "quote"),
        ("{{ x }}", "template"),
    ] {
        let error = target(&[("ansible_ssh_extra_args", args)], &no_config()).expect_err(args);
        assert!(
            error.contains(named) && error.contains("inventory.yml:1:1"),
            "{args}: {error}"
        );
    }
    let nothing = endpoint(
        &[(
            "ansible_ssh_args",
            "-o ControlMaster=auto -o ControlPersist=60s -o ForwardAgent=yes",
        )],
        &no_config(),
    );
    assert!(nothing.jumps.is_empty());
    let tunnel = endpoint(
        &[(
            "ansible_ssh_common_args",
            "-o ProxyCommand=\"ssh -W %h:%p -q u@bastion\"",
        )],
        &no_config(),
    );
    assert_eq!(
        (
            tunnel.jumps[0].address.as_str(),
            tunnel.jumps[0].user.as_str()
        ),
        ("bastion", "u")
    );
}

#[test]
fn checking_host_keys_cannot_be_switched_off() {
    for pair in [
        ("ansible_host_key_checking", "false"),
        ("ansible_ssh_common_args", "-o StrictHostKeyChecking=no"),
    ] {
        assert_eq!(
            endpoint(&[pair], &no_config()).policy,
            HostKeyPolicy::AcceptNew,
            "{pair:?}"
        );
    }
    let target = target(
        &[("ansible_ssh_common_args", "-o StrictHostKeyChecking=no")],
        &no_config(),
    )
    .expect("a target");
    assert!(
        target
            .warnings
            .0
            .iter()
            .all(|warning| warning.severity == Severity::Warning)
    );
    assert!(
        target.warnings.to_string().contains("still refused"),
        "{}",
        target.warnings
    );
}

#[test]
fn becoming_root_needs_sudo_unless_root_logs_in() {
    let who = |pairs: &[(&str, &str)]| target(pairs, &no_config()).expect("a target").who;
    let sudo = |user: &str| As::Sudo {
        user: user.to_owned(),
        program: "sudo".to_owned(),
        password: None,
    };
    assert_eq!(who(&[("ansible_user", "u")]), As::Login);
    assert_eq!(
        who(&[("ansible_user", "u"), ("ansible_become", "yes")]),
        sudo("root")
    );
    assert_eq!(
        who(&[("ansible_user", "root"), ("ansible_become", "true")]),
        As::Login
    );
    assert_eq!(
        who(&[
            ("ansible_user", "root"),
            ("ansible_become", "1"),
            ("ansible_become_user", "db")
        ]),
        sudo("db")
    );
    let flags = ConnectionFlags {
        escalate: true,
        become_password: Some(Secret::new("f")),
        ..no_config()
    };
    let flagged = target(
        &[("ansible_user", "u"), ("ansible_become_password", "v")],
        &flags,
    )
    .expect("a target");
    assert!(
        matches!(flagged.who, As::Sudo { password: Some(password), .. } if password == Secret::new("v"))
    );
    assert_eq!(
        target(&[("ansible_user", "u"), ("ansible_become", "no")], &flags)
            .expect("a target")
            .who,
        As::Login
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let error = target(
        &[
            ("ansible_port", "ssh"),
            ("ansible_user", "{{ admin }}"),
            ("ansible_become", "perhaps"),
            ("deploy_root", "relative"),
            ("ansible_ssh_executable", "/usr/bin/ssh"),
        ],
        &no_config(),
    )
    .expect_err("all wrong");
    for part in [
        "`ssh` of `port`",
        "still a template",
        "`perhaps`",
        "`deploy_root`",
        "ansible_ssh_executable",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = target(
        &[("ansible_become", "yes"), ("ansible_become_method", "su")],
        &no_config(),
    )
    .expect_err("su");
    assert!(error.contains("only `sudo` is"), "{error}");
    let error = target(&[("ansible_connection", "loacl")], &no_config()).expect_err("a typo");
    assert!(error.contains("did you mean `local`?"), "{error}");
    let error = target(&[("ansible_connection", "winrm")], &no_config()).expect_err("not ours");
    assert!(error.contains("`ssh`, `local` and `sim`"), "{error}");
}

#[test]
fn hops_are_cut_right_and_circles_end() {
    assert_eq!(split_hop("u@h:22"), Some((Some("u"), "h", Some("22"))));
    assert_eq!(
        split_hop("ssh://u@[fe80::1]:22/"),
        Some((Some("u"), "fe80::1", Some("22")))
    );
    assert_eq!(split_hop("fe80::1"), Some((None, "fe80::1", None)));
    assert_eq!(split_hop("u@"), None);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config");
    std::fs::write(&path, "Host *\n ProxyJump a\n").expect("a file");
    let flags = ConnectionFlags {
        ssh_config: Some(path),
        ..ConnectionFlags::default()
    };
    let error = target(&[], &flags).expect_err("a circle");
    assert!(error.contains("circle"), "{error}");
}

#[test]
fn an_endpoint_of_our_own_is_pinned() {
    let host = HostName::from("sim1");
    let address = "127.0.0.1:2222".parse().expect("an address");
    let wrong = Target::for_endpoint(&host, address, "root", "no key", "no key", Path::new("/x"));
    assert!(wrong.is_err());
}

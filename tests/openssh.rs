//! Whole commands over real OpenSSH: several listeners on loopback, each with a
//! machine of its own below a folder and a stand-in `nvidia-smi` first on its PATH,
//! and the keys and `known_hosts` of a normal user.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, Scratch, differing, tree};
use crate::ssh::{Server, run};
use crate::ssh_private::{PASSWORD, SSHD, private};

/// Machines with one H100 each, and how they are reached.
struct Machines {
    scratch: Scratch,
    lines: Vec<String>,
    known: String,
}

impl Machines {
    /// Makes the folders of `count` machines, `m1` and so on.
    fn new(count: usize) -> Self {
        let scratch = Scratch::new();
        let hosts: String = (1..=count).map(|n| format!("    m{n}:\n")).collect();
        let seed = format!(
            "all:\n  hosts:\n{hosts}  vars:\n    ansible_connection: sim\n    sim: {{gpus: [{{product: H100-80GB}}]}}\n"
        );
        let path = scratch.write("seed/hosts.yml", &seed);
        let mut command = scratch.command(env!("CARGO_BIN_EXE_deploy"));
        command
            .env("DEPLOY_SIM_STATE", scratch.path().join("machines"))
            .args(["discover", "-i"])
            .arg(path);
        crate::harness::ran(&mut command).expect(0);
        // A plain user must reach the tools below; their folders are made for one owner.
        run(
            "chmod",
            &["-R", "a+rX", scratch.path().to_str().expect("a path")],
        );
        Self {
            scratch,
            lines: Vec::new(),
            known: String::new(),
        }
    }

    fn root(&self, name: &str) -> PathBuf {
        self.scratch.path().join("machines/hosts").join(name)
    }

    /// Lines of sshd's configuration that put the machine's tools first.
    fn environment(&self, name: &str) -> String {
        let root = self.root(name);
        let root = root.display();
        format!("SetEnv PATH={root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin DEPLOY_SIM_ROOT={root}")
    }

    /// Puts a host into the inventory; `more` are further variables.
    fn host(&mut self, name: &str, address: &str, port: u16, key: &Path, more: &str) {
        let user = run("id", &["-un"]);
        let user = user.trim();
        let user = if more.contains("ansible_user") {
            String::new()
        } else {
            format!("ansible_user: {user}, ")
        };
        self.lines.push(format!(
            "    {name}: {{ansible_host: {address}, ansible_port: {port}, {user}\
             ansible_ssh_private_key_file: {}, deploy_root: {}{more}}}\n",
            key.display(),
            self.root(name).display(),
        ));
    }

    fn add(&mut self, name: &str, server: &Server, more: &str) {
        self.host(name, &server.address, server.port, &server.at("id"), more);
        self.known += &fs::read_to_string(server.at("known")).expect("a known_hosts file");
    }

    /// Runs `deploy` on the inventory, as a user with this `known_hosts`.
    fn deploy(&self, verb: &str, more: &[&str]) -> Ended {
        let text = format!(
            "all:\n  hosts:\n{}  vars:\n    containers_gpu_slicing:\n      enabled: true\n      strategy: mig\n      \
             mig: {{enabled: true, profiles: [3g.40gb, 2g.20gb, 1g.10gb]}}\n",
            self.lines.concat()
        );
        let inventory = self.scratch.write("inv/hosts.yml", &text);
        let known = self.scratch.write("home/.ssh/known_hosts", &self.known);
        let config = format!(
            "UserKnownHostsFile {}\nIdentitiesOnly yes\n",
            known.display()
        );
        let config = self.scratch.write("home/.ssh/config", &config);
        let mut args = vec![
            verb.to_owned(),
            "-i".to_owned(),
            inventory.display().to_string(),
        ];
        args.extend(["-F".to_owned(), config.display().to_string()]);
        args.extend(["-T".to_owned(), "4".to_owned()]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        self.scratch.deploy(&args)
    }

    /// What the machine's own `nvidia-smi -L` prints.
    fn slices(&self, name: &str) -> String {
        let root = self.root(name);
        let mut command = self.scratch.command(root.join("usr/bin/nvidia-smi"));
        command.arg("-L").env("DEPLOY_SIM_ROOT", &root);
        crate::harness::ended(command.output().expect("it starts")).out
    }
}

#[test]
fn several_listeners_are_sliced_then_left_alone_then_undone() {
    let mut machines = Machines::new(3);
    let mut servers = Vec::new();
    for n in 1..=3u8 {
        let name = format!("m{n}");
        let Some(server) = Server::start(100 + n, &machines.environment(&name)) else {
            return;
        };
        machines.add(&name, &server, "");
        servers.push(server);
    }
    let fresh: Vec<String> = (1..=3).map(|n| machines.slices(&format!("m{n}"))).collect();
    machines.deploy("gpu", &["--check"]).expect(2);
    machines
        .deploy("gpu", &["--yes"])
        .expect(0)
        .says("ok=0 changed=3 failed=0");
    for n in 1..=3 {
        let slices = machines.slices(&format!("m{n}"));
        for profile in ["MIG 3g.40gb", "MIG 2g.20gb", "MIG 1g.10gb"] {
            assert!(slices.contains(profile), "{slices}");
        }
    }
    let before = tree(&machines.root("m1"));
    machines
        .deploy("gpu", &["--yes"])
        .expect(0)
        .says("ok=3 changed=0 failed=0");
    let after = tree(&machines.root("m1"));
    assert_eq!(differing(&before, &after), Vec::<PathBuf>::new());

    machines.deploy("rollback", &["--yes"]).expect(0);
    let back: Vec<String> = (1..=3).map(|n| machines.slices(&format!("m{n}"))).collect();
    assert_eq!(fresh, back);
}

#[test]
fn sudo_works_without_and_with_a_password() {
    let mut machines = Machines::new(2);
    for name in ["m1", "m2"] {
        // The simulated machine brings a `sudo` that asks nothing; this test wants the real one.
        fs::remove_file(machines.root(name).join("usr/bin/sudo")).expect("it is there");
    }
    let env = machines.environment("m1");
    let (Some(free), Some(asks)) = (
        private(111, &env, SSHD),
        private(112, &machines.environment("m2"), SSHD),
    ) else {
        return;
    };
    let sudo = ", ansible_become: true, ansible_user: tfree";
    machines.add("m1", &free, sudo);
    let sudo = format!(
        ", ansible_become: true, ansible_user: task, ansible_become_password: '{PASSWORD}'"
    );
    machines.add("m2", &asks, &sudo);
    let ended = machines
        .deploy("gpu", &["--yes"])
        .expect(0)
        .says("changed=2");
    assert!(!ended.all().contains(PASSWORD), "the password is shown");
    assert!(machines.slices("m2").contains("MIG 3g.40gb"));
    machines
        .deploy("gpu", &["--yes"])
        .expect(0)
        .says("ok=2 changed=0");

    let wrong = ", ansible_become: true, ansible_user: task, ansible_become_password: 'not it'";
    machines.lines.clear();
    machines.add("m1", &free, sudo_free());
    machines.add("m2", &asks, wrong);
    machines
        .deploy("gpu", &["--yes"])
        .expect(4)
        .says("m2: unreachable")
        .says("sudo:");
}

fn sudo_free() -> &'static str {
    ", ansible_become: true, ansible_user: tfree"
}

#[test]
fn an_unknown_key_stops_with_its_fingerprint_and_a_changed_one_fails_its_host_only() {
    let mut machines = Machines::new(2);
    let (Some(one), Some(two)) = (
        Server::start(121, &machines.environment("m1")),
        Server::start(122, &machines.environment("m2")),
    ) else {
        return;
    };
    machines.add("m1", &one, "");
    machines.add("m2", &two, "");
    let known = std::mem::take(&mut machines.known);
    let fingerprint = run(
        "ssh-keygen",
        &["-lf", two.at("host.pub").to_str().expect("a path")],
    );
    let fingerprint = fingerprint
        .split(' ')
        .nth(1)
        .expect("a fingerprint")
        .to_owned();
    machines
        .deploy("gpu", &["--yes"])
        .expect(4)
        .says("m2: unreachable")
        .says("unknown host key")
        .says(&fingerprint)
        .says("--accept-new-host-keys");
    assert!(
        !machines.slices("m1").contains("MIG"),
        "it was sliced unseen"
    );

    // The key of the first in the place of the second's.
    let first = known.lines().next().expect("a line").to_owned();
    let key = first.split_once(' ').expect("a key").1.to_owned();
    machines.known = format!("{first}\n[{}]:{} {key}\n", two.address, two.port);
    machines
        .deploy("gpu", &["--yes", "--accept-new-host-keys"])
        .expect(4)
        .says("host key changed")
        .says(&fingerprint)
        .says("changed=1");
    assert!(machines.slices("m1").contains("MIG 3g.40gb"));
    assert!(!machines.slices("m2").contains("MIG"));
}

#[test]
fn hosts_that_are_down_silent_or_without_a_shell_fail_alone_with_a_clear_word() {
    let mut machines = Machines::new(1);
    let silent = TcpListener::bind("127.0.1.131:0").expect("a port");
    let (Some(good), Some(odd)) = (
        Server::start(132, &machines.environment("m1")),
        Server::start(133, "ForceCommand /bin/false"),
    ) else {
        return;
    };
    machines.add("m1", &good, "");
    machines.add("odd", &odd, "");
    let key = good.at("id");
    let port = silent.local_addr().expect("an address").port();
    machines.host("silent", "127.0.1.131", port, &key, "");
    machines.host(
        "down",
        "127.0.1.134",
        crate::ssh::free_port("127.0.1.134"),
        &key,
        "",
    );
    machines
        .deploy("gpu", &["--yes"])
        .expect(4)
        .says("m1: changed")
        .says("odd: unreachable")
        .says("shell:")
        .says("silent: unreachable")
        .says("timeout:")
        .says("down: unreachable")
        .says("down:")
        .says("ok=0 changed=1 failed=0 unreachable=3");
}

//! What the tests of technologies share: one simulated host, the whole command, plain ssh to
//! look at what it did, and reboots.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value as Json;

use crate::harness::{Ended, Scratch, ended};

/// A simulated host with an inventory of its own.
pub(crate) struct Bench {
    scratch: Scratch,
    sim: String,
}

const HOST: &str = "node1";

impl Bench {
    /// A host that plays `sim`, in YAML on one line; `None` where this machine has no ssh, which
    /// is said.
    pub(crate) fn new(sim: &str) -> Option<Self> {
        crate::ssh::have("ssh").then(|| Self {
            scratch: Scratch::new(),
            sim: sim.to_owned(),
        })
    }

    fn inventory(&self) -> String {
        let path = self.scratch.path().join("inv/hosts.yml");
        path.display().to_string()
    }

    /// Writes a file beside the inventory's folder, which is `inv`.
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.scratch.write(name, text);
    }

    /// Runs `deploy` with the inventory.
    pub(crate) fn deploy(&self, args: &[&str]) -> Ended {
        let inventory = self.inventory();
        let mut words = args.to_vec();
        words.extend(["-i", inventory.as_str()]);
        self.scratch.deploy(&words)
    }

    /// Makes this the wanted state; YAML on one line, without `enabled`.
    pub(crate) fn want(&self, slicing: &str) {
        let text = format!(
            "all:\n  hosts:\n    {HOST}:\n  vars:\n    ansible_connection: sim\n    sim: {}\n    \
             containers_gpu_slicing: {{enabled: true, {slicing}}}\n",
            self.sim
        );
        self.scratch.write("inv/hosts.yml", &text);
    }

    /// Makes these the host's variables.
    pub(crate) fn vars(&self, vars: &Json) {
        let mut vars = vars.clone();
        vars["ansible_connection"] = "sim".into();
        let mut text = format!(
            "all:\n  hosts:\n    {HOST}:\n  vars:\n    sim: {}\n",
            self.sim
        );
        for (name, value) in vars.as_object().into_iter().flatten() {
            text.push_str(&format!("    {name}: {value}\n"));
        }
        self.scratch.write("inv/hosts.yml", &text);
    }

    /// Writes a file that the wanted state names, beside the inventory.
    pub(crate) fn beside(&self, name: &str, text: &str) -> PathBuf {
        self.scratch.write(&format!("inv/{name}"), text)
    }

    /// Applies a wanted state.
    #[track_caller]
    pub(crate) fn apply(&self, slicing: &str) -> Ended {
        self.want(slicing);
        self.deploy(&["gpu", "--yes"]).expect(0)
    }

    /// Applies what is wanted already, and finds nothing to do.
    #[track_caller]
    pub(crate) fn settled(&self) {
        let again = self.deploy(&["gpu", "--yes"]).expect(0);
        again.says("changed=0 failed=0");
    }

    /// Wants this, and finds nothing to do.
    #[track_caller]
    pub(crate) fn settled_for(&self, slicing: &str) {
        self.want(slicing);
        self.settled();
    }

    /// Tries a wanted state that must be refused by the host, and nothing be changed.
    #[track_caller]
    pub(crate) fn refused(&self, slicing: &str) -> Ended {
        self.want(slicing);
        self.deploy(&["gpu", "--yes"]).expect(3)
    }

    /// Breaks the host: the words of `deploy sim break`.
    #[track_caller]
    pub(crate) fn broken(&self, fault: &[&str]) {
        let inventory = self.inventory();
        let words = [&["sim", "break", "-i", &inventory, HOST], fault].concat();
        self.scratch.deploy(&words).expect(0);
    }

    /// Takes back what was broken.
    #[track_caller]
    pub(crate) fn mended(&self) {
        let inventory = self.inventory();
        let words = ["sim", "mend", "-i", &inventory];
        self.scratch.deploy(&words).expect(0);
    }

    /// Takes the last run back.
    #[track_caller]
    pub(crate) fn rolled_back(&self) {
        self.deploy(&["rollback", "--yes"]).expect(0);
    }

    /// Boots the host again in an orderly way.
    #[track_caller]
    pub(crate) fn reboot(&self) {
        self.broken(&["reboot"]);
    }

    /// Standard output of a command over plain ssh, which must go well.
    #[track_caller]
    pub(crate) fn ssh(&self, command: &str) -> String {
        self.over_ssh(command).expect(0).out
    }

    /// What a command over plain ssh printed and how it ended.
    #[track_caller]
    pub(crate) fn over_ssh(&self, command: &str) -> Ended {
        let mut served = (self.scratch.command(env!("CARGO_BIN_EXE_deploy")))
            .args(["sim", "serve", "--port", "0", "-i"])
            .arg(self.scratch.path().join("inv/hosts.yml"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let said = BufReader::new(served.stdout.take().expect("a pipe"));
        let line = said
            .lines()
            .map_while(Result::ok)
            .find(|line| line.trim_start().starts_with("ssh -F"))
            .expect("it says how to reach the host");
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut ssh = self.scratch.command(words[0]);
        ssh.args(&words[1..]).arg(command);
        let shown = ended(ssh.output().expect("ssh starts"));
        let _ = served.kill();
        let _ = served.wait();
        shown
    }

    /// A file of the host; empty if it is not there.
    pub(crate) fn file(&self, path: &str) -> String {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Whether something stands at a path of the host.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root().join(path.trim_start_matches('/')).exists()
    }

    /// Whether the host was reached at all: a simulated one is made when it is.
    pub(crate) fn was_reached(&self) -> bool {
        find_the_host(&self.scratch).is_some()
    }

    /// The host's folder.
    pub(crate) fn root(&self) -> PathBuf {
        folder_of_the_host(&self.scratch)
    }
}

/// The folder of the one simulated host that was made in a scratch folder.
pub(crate) fn folder_of_the_host(scratch: &Scratch) -> PathBuf {
    find_the_host(scratch).expect("the host was made")
}

fn find_the_host(scratch: &Scratch) -> Option<PathBuf> {
    let mut folders = vec![scratch.path().join("state/deploy/sim")];
    while let Some(folder) = folders.pop() {
        if folder.join(".sim/state.json").exists() {
            return Some(folder);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    None
}

/// A host that plays `sim`. What needs ssh fails loudly where there is none: `tests/run`
/// installs it.
pub(crate) fn bench(sim: &Json) -> Bench {
    Bench::new(&sim.to_string()).expect("ssh is installed")
}

/// Makes this the wanted state: what stands below `containers_gpu_slicing`, without `enabled`.
pub(crate) fn want(bench: &Bench, slicing: Json) {
    let text = slicing.to_string();
    bench.want(
        text.trim_start_matches('{')
            .strip_suffix('}')
            .unwrap_or(&text),
    );
}

/// Applies what is wanted; the run must end well and change the host.
#[track_caller]
pub(crate) fn apply(bench: &Bench) -> Ended {
    bench.deploy(&["gpu", "--yes"]).expect(0).says("changed=1")
}

//! Many hosts at once as whole commands: signals, failures and their limits.
//!
//! Hosts are simulated ones whose one command waits for a file, so that a test knows
//! what is at work when it acts: it waits for files and sentences, never for time.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Ended, Scratch};

mod told;

/// Writes a file, then fails if `var/bad` is there.
const FAILING: &str = r#"
    - name: file
      copy: {content: "x\n", dest: /etc/x}
    - name: fail
      command: {argv: [sh, -c, '[ ! -e "$R/var/bad" ]'], undo: 'true'}
"#;

/// Writes a file, then waits until `var/go` is there, and fails if `var/bad` is too.
const WAITING: &str = r#"
    - name: file
      copy: {content: "x\n", dest: /etc/x}
    - name: wait
      command:
        argv: [sh, -c, 'touch "$R/var/began"; until [ -e "$R/var/go" ]; do sleep 0.1; done; [ ! -e "$R/var/bad" ]']
        undo: 'true'
"#;

/// A fleet of simulated hosts without GPUs, and a playbook for them.
struct Fleet {
    scratch: Scratch,
    inventory: String,
    playbook: String,
}

impl Fleet {
    /// `keywords` stand in the play, `tasks` below `tasks:`.
    fn new(hosts: &[&str], keywords: &str, tasks: &str) -> Self {
        Self::with_init(true, hosts, keywords, tasks)
    }

    /// The same with or without systemd, so with one guard or the other.
    fn with_init(systemd: bool, hosts: &[&str], keywords: &str, tasks: &str) -> Self {
        let scratch = Scratch::new();
        let mut text = String::from("all:\n  hosts:\n");
        for host in hosts {
            text += &format!("    {host}:\n");
        }
        text += "  vars:\n    ansible_connection: sim\n";
        text += &format!("    sim: {{gpus: [], systemd: {systemd}}}\n");
        let inventory = scratch.write("inv/hosts.yml", &text).display().to_string();
        let play = format!("- hosts: all\n  gather_facts: false\n{keywords}  tasks:\n{tasks}");
        let playbook = scratch.write("play.yml", &play).display().to_string();
        let fleet = Self {
            scratch,
            inventory,
            playbook,
        };
        // The hosts' folders come into being when they are first reached.
        fleet.deploy(&["discover"]).expect(0);
        fleet
    }

    /// Runs `deploy VERB… -i INVENTORY`.
    fn deploy(&self, words: &[&str]) -> Ended {
        let mut args = words.to_vec();
        // `sim break` takes it before the fault, `runs` behind its own verb.
        let place = if words[0] == "sim" { 2 } else { args.len() };
        args.splice(place..place, ["-i", self.inventory.as_str()]);
        self.scratch.deploy(&args)
    }

    /// The words that run the playbook.
    fn run<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec!["run", self.playbook.as_str(), "--yes"];
        words.extend(more);
        words
    }

    /// The folder of a host.
    fn root(&self, host: &str) -> PathBuf {
        let fleets = self.scratch.path().join("state/deploy/sim");
        let fleet = fs::read_dir(fleets)
            .expect("the fleet's folder")
            .next()
            .expect("one fleet")
            .expect("it is readable");
        fleet.path().join("hosts").join(host)
    }

    fn has(&self, host: &str, path: &str) -> bool {
        self.root(host).join(path).exists()
    }

    fn put(&self, host: &str, path: &str) {
        fs::write(self.root(host).join(path), "").expect("a file on the host");
    }

    /// The only run that a host keeps.
    fn only_run(&self, host: &str) -> String {
        let runs = self.root(host).join("var/lib/deploy/runs");
        let names: Vec<String> = fs::read_dir(runs)
            .expect("runs")
            .flatten()
            .map(|run| run.file_name().to_string_lossy().into_owned())
            .collect();
        match &names[..] {
            [one] => one.clone(),
            others => panic!("{host} keeps {others:?}"),
        }
    }

    /// `deploy` has begun h1 and was told twice to leave; gives the run.
    fn left_at_h1(&self) -> String {
        let running = self.start(&self.run(&[]));
        until("h1 is at work", || self.has("h1", "var/began"));
        running.signal(Signal::INT);
        running.until_said("1 host is at work");
        running.signal(Signal::INT);
        running.end().expect(130).says("h1: left to itself");
        self.only_run("h1")
    }

    /// The same, and h1 has come to where it waits for its confirmation.
    fn unconfirmed_at_h1(&self) -> String {
        let run = self.left_at_h1();
        self.go(&["h1"]);
        until("h1 waits for its confirmation", || {
            self.statuses("h1") == ["unconfirmed"]
        });
        run
    }

    /// The object of the run on h1.
    fn shown(&self, run: &str) -> serde_json::Value {
        let shown = self.deploy(&["runs", "show", run, "--limit", "h1", "--output", "json"]);
        let shown = shown.expect(0);
        let line = shown.out.lines().next().expect("an object");
        serde_json::from_str(line).expect("JSON")
    }

    /// Lets all hosts go on.
    fn go(&self, hosts: &[&str]) {
        for host in hosts {
            self.put(host, "var/go");
        }
    }

    /// The statuses of the host's runs.
    fn statuses(&self, host: &str) -> Vec<String> {
        let Ok(runs) = fs::read_dir(self.root(host).join("var/lib/deploy/runs")) else {
            return Vec::new();
        };
        let mut found: Vec<String> = runs
            .flatten()
            .filter_map(|run| fs::read_to_string(run.path().join("status")).ok())
            .map(|status| status.trim().to_owned())
            .collect();
        found.sort();
        found
    }

    /// Starts `deploy` at a terminal and waits until it has asked. Both of its streams
    /// are in `out`.
    fn asked(&self, words: &[&str]) -> Asked {
        let mut line = String::from("exec");
        let more = ["-i", self.inventory.as_str()];
        for word in [env!("CARGO_BIN_EXE_deploy")]
            .iter()
            .chain(words)
            .chain(&more)
        {
            line += &format!(" '{word}'");
        }
        let mut child = self
            .scratch
            .command("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux starts");
        let out = heard(child.stdout.take().expect("a pipe"));
        let err = heard(child.stderr.take().expect("a pipe"));
        let keys = child.stdin.take().expect("a pipe");
        until("deploy asks", || {
            text_of(&out).contains("Only `yes` is accepted: ")
        });
        Asked {
            running: Running { child, out, err },
            keys,
        }
    }

    /// Starts `deploy` and leaves it running.
    fn start(&self, words: &[&str]) -> Running {
        let mut child = self
            .scratch
            .command(env!("CARGO_BIN_EXE_deploy"))
            .args(words)
            .args(["-i", self.inventory.as_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let out = heard(child.stdout.take().expect("a pipe"));
        let err = heard(child.stderr.take().expect("a pipe"));
        Running { child, out, err }
    }
}

/// A `deploy` at work.
struct Running {
    child: Child,
    out: Heard,
    err: Heard,
}

/// A `deploy` that waits for its answer.
struct Asked {
    running: Running,
    keys: ChildStdin,
}

impl Asked {
    fn answer(mut self, keys: &[u8]) -> Ended {
        self.keys.write_all(keys).expect("it is typed");
        // The keys are kept: the end of their stream would be typed as well.
        self.running.end()
    }
}

/// What a stream has said so far, and the thread that listens.
type Heard = (Arc<Mutex<Vec<u8>>>, std::thread::JoinHandle<()>);

fn heard(mut stream: impl Read + Send + 'static) -> Heard {
    let said = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&said);
    let listener = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(size @ 1..) = stream.read(&mut piece) {
            keeps
                .lock()
                .expect("not poisoned")
                .extend_from_slice(&piece[..size]);
        }
    });
    (said, listener)
}

fn text_of(heard: &Heard) -> String {
    String::from_utf8_lossy(&heard.0.lock().expect("not poisoned")).into_owned()
}

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(pid).expect("not 0");
        kill_process(pid, signal).expect("it is still there");
    }

    /// Waits until standard error says this.
    fn until_said(&self, text: &str) {
        until(&format!("`{text}` is said"), || {
            text_of(&self.err).contains(text)
        });
    }

    fn end(mut self) -> Ended {
        let mut status = None;
        until("deploy ends", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        let text = |(said, listener): Heard| {
            listener.join().expect("it only listens");
            String::from_utf8_lossy(&said.lock().expect("not poisoned")).into_owned()
        };
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        Ended::new(code, text(self.out), text(self.err))
    }
}

/// Waits for a state; the limit only ends a test that has failed.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !there() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last object of a JSON report.
fn summary(ended: &Ended) -> serde_json::Value {
    let last = ended.out.lines().last().expect("a summary");
    serde_json::from_str(last).expect("JSON")
}

#[test]
fn the_first_ctrl_c_begins_no_host_and_waits_for_those_at_work() {
    let hosts = ["h1", "h2", "h3"];
    let fleet = Fleet::new(&hosts, "  serial: 1\n", WAITING);
    let running = fleet.start(&fleet.run(&[]));
    until("h1 is at work", || fleet.has("h1", "var/began"));
    running.signal(Signal::INT);
    running.until_said("1 host is at work and is waited for; interrupt again to leave");
    fleet.go(&hosts);
    running
        .end()
        .expect(130)
        .says("h1: changed")
        .says("skipped: 2 hosts were not begun: the run was interrupted: h2, h3")
        .says("changed=1 failed=0 unreachable=0 rolled-back=0 skipped=2");
    assert!(fleet.has("h1", "etc/x"));
    for host in ["h2", "h3"] {
        assert!(!fleet.has(host, "etc/x") && !fleet.has(host, "var/lib/deploy/runs"));
    }
}

#[test]
fn the_second_signal_leaves_hosts_at_work_to_themselves() {
    let hosts = ["h1", "h2"];
    let fleet = Fleet::new(&hosts, "  serial: 1\n", WAITING);
    let running = fleet.start(&fleet.run(&["--output", "json"]));
    until("h1 is at work", || fleet.has("h1", "var/began"));
    running.signal(Signal::INT);
    until("the first is answered", || {
        text_of(&running.out).contains("1 host is at work")
    });
    running.signal(Signal::TERM);
    let ended = running
        .end()
        .expect(130)
        .says("unless it is confirmed within")
        .says("`deploy runs confirm ");
    let sums = summary(&ended);
    let sum = |name: &str| sums[name].as_u64();
    assert_eq!(
        (sum("hosts"), sum("left"), sum("skipped"), sum("exit")),
        (Some(2), Some(1), Some(1), Some(130))
    );
    assert_eq!(sums["not_begun"][0]["why"], "the run was interrupted");
    assert_eq!(sums["not_begun"][0]["hosts"], 1);

    // It was not ended with us.
    assert_eq!(fleet.statuses("h1"), ["running"]);
    let run = fleet.only_run("h1");
    fleet.go(&hosts);
    until("h1 has made it by itself", || {
        fleet.statuses("h1") == ["unconfirmed"]
    });
    fleet.deploy(&["runs", "confirm", &run]).expect(0);
    assert!(fleet.has("h1", "etc/x"));
    assert!(!fleet.has("h2", "etc/x"));
}

#[test]
fn an_unconfirmed_run_can_be_given_time_and_is_kept_once_confirmed() {
    for systemd in [true, false] {
        let fleet = Fleet::with_init(systemd, &["h1", "h2"], "  serial: 1\n", WAITING);
        let run = fleet.unconfirmed_at_h1();
        fleet
            .deploy(&["runs"])
            .expect(0)
            .says(&run)
            .says("unconfirmed")
            .says("(undone at ");
        fleet
            .deploy(&["runs", "show", &run])
            .expect(0)
            .says("keeps it");
        let undo_at = |shown: &serde_json::Value| -> i64 {
            assert_eq!(shown["status"], "unconfirmed");
            let text = shown["undo_at"].as_str().expect("a time");
            text.parse::<jiff::Timestamp>().expect("a time").as_second()
        };
        let before = undo_at(&fleet.shown(&run));
        fleet
            .deploy(&["runs", "extend", &run, "--by", "1h"])
            .expect(0)
            .says(&format!("h1: run {run} is undone at "))
            .says("h2: keeps no run ")
            .says("hosts=2 ok=2");
        // Both are counted from clocks with whole seconds.
        let moved = undo_at(&fleet.shown(&run)) - before;
        assert!((3598..=3602).contains(&moved), "moved by {moved} s");

        fleet
            .deploy(&["runs", "confirm", "20200101T000000Z-000000"])
            .expect(1)
            .says("no host keeps a run `20200101T000000Z-000000`");
        fleet
            .deploy(&["runs", "confirm", &run])
            .expect(0)
            .says("h1: confirmed")
            .says("hosts=2 ok=1 changed=1");
        assert_eq!(fleet.statuses("h1"), ["done"]);
        assert!(fleet.has("h1", "etc/x"));
        // Nothing is left to confirm, nor to wait for.
        fleet
            .deploy(&["runs", "confirm", &run])
            .expect(0)
            .says(&format!(
                "h1: run {run} is applied: there is nothing to confirm"
            ))
            .says(&format!("h2: keeps no run {run}: nothing to do"))
            .says("ok=2");
        fleet
            .deploy(&["runs", "extend", &run, "--by", "10m"])
            .expect(3)
            .says("h1: failed, the run is left as it was")
            .says("waits for nothing");
        fleet
            .deploy(&["runs", "unlock", &run, "--yes"])
            .expect(3)
            .says("h1: failed, the run is left as it was")
            .says("it keeps nobody out")
            .says(&format!("h2: keeps no run {run}: nothing to do"));
    }
}

#[test]
fn an_unconfirmed_run_is_undone_after_the_question_only() {
    for systemd in [true, false] {
        let fleet = Fleet::with_init(systemd, &["h1", "h2"], "  serial: 1\n", WAITING);
        let run = fleet.unconfirmed_at_h1();
        fleet
            .deploy(&["runs", "undo", &run])
            .expect(1)
            .says("undo: write /etc/x")
            .says("nobody was there to be asked");
        assert_eq!(fleet.statuses("h1"), ["unconfirmed"]);
        fleet
            .deploy(&["runs", "undo", &run, "--check"])
            .expect(2)
            .says("would be changed");
        fleet.deploy(&["runs", "undo", &run, "--yes"]).expect(0);
        assert!(!fleet.has("h1", "etc/x"));
        fleet
            .deploy(&["runs", "confirm", &run])
            .expect(3)
            .says(&format!("run {run} is rolled back"));
    }
}

#[test]
fn a_host_at_work_is_locked_and_tells_who_has_it_until_the_run_is_unlocked() {
    for systemd in [true, false] {
        let fleet = Fleet::with_init(systemd, &["h1"], "", WAITING);
        let run = fleet.left_at_h1();
        let ended = fleet.deploy(&fleet.run(&["--output", "json"]));
        let ended = ended.expect(1).says(&format!("run {run} by "));
        let sums = summary(&ended);
        assert_eq!((&sums["locked"], &sums["exit"]), (&1.into(), &1.into()));
        // The same where the user is to be asked first.
        fleet
            .deploy(&["run", &fleet.playbook])
            .expect(1)
            .says("h1: locked by another run, nothing was changed")
            .says(&format!("run {run} by "));
        assert_eq!(fleet.statuses("h1"), ["running"]);

        // The step that waits is told, and what an undo is not for.
        fleet
            .deploy(&["runs", "show", &run])
            .expect(0)
            .says("var/began")
            .says(" is at work now");
        fleet
            .deploy(&["runs", "undo", &run, "--yes"])
            .expect(3)
            .says("h1: failed, nothing was undone")
            .says(&format!(
                "`deploy runs unlock {run}` ends it now and undoes it"
            ));
        fleet
            .deploy(&["rollback", "--yes"])
            .expect(3)
            .says(&format!("`deploy runs unlock {run}`"));
        fleet
            .deploy(&["runs", "extend", &run, "--by", "1h"])
            .expect(0)
            .says(&format!(
                "h1: run {run} is at work. The guard lets it work until "
            ))
            .says("Once its last step is made there are 1h 0m 0s more to confirm it");

        fleet
            .deploy(&["runs", "unlock", &run])
            .expect(1)
            .says("ends run ")
            .says("what it begins until then is undone as well")
            .says("undo: write /etc/x");
        fleet.deploy(&["runs", "unlock", &run, "--yes"]).expect(0);
        assert!(!fleet.has("h1", "etc/x"));
        fleet.go(&["h1"]);
        fleet.deploy(&fleet.run(&[])).expect(0).says("h1: changed");
    }
}

#[test]
fn of_two_who_have_planned_the_same_host_one_wins_and_the_other_is_told_who() {
    let fleet = Fleet::new(&["h1"], "", WAITING);
    let loser = fleet.asked(&["run", &fleet.playbook]);
    let winner = fleet.start(&fleet.run(&[]));
    until("h1 is at work", || fleet.has("h1", "var/began"));
    let run = fleet.only_run("h1");
    loser
        .answer(b"yes\r")
        .expect(1)
        .says("h1: locked by another run, nothing was changed")
        .says(&run)
        .says("locked=1");
    assert_eq!(fleet.only_run("h1"), run);
    fleet.go(&["h1"]);
    winner.end().expect(0).says("h1: changed");
    assert_eq!(fleet.statuses("h1"), ["done"]);
}

#[test]
fn a_run_is_resumed_where_it_stands() {
    let hosts = ["h1", "h2", "h3"];
    let fleet = Fleet::new(&hosts, "  serial: 1\n", WAITING);
    let run = fleet.left_at_h1();
    fleet
        .deploy(&fleet.run(&["--resume", "20200101T000000Z-000000"]))
        .expect(1)
        .says("no host keeps a run");
    assert_eq!(fleet.statuses("h2"), [""; 0]);
    // A host that does not answer may be the one that keeps it.
    let dead = fleet.scratch.write(
        "dead.yml",
        "all:\n  hosts:\n    dead: {ansible_host: 127.0.0.1, ansible_port: 1}\n",
    );
    let dead = dead.display().to_string();
    let words = [
        "run",
        &fleet.playbook,
        "--yes",
        "--resume",
        &run,
        "-i",
        &dead,
    ];
    fleet
        .scratch
        .deploy(&words)
        .expect(1)
        .says("and 1 could not be asked");

    let resumed = fleet.start(&fleet.run(&["--resume", &run]));
    until("h1 is followed", || {
        text_of(&resumed.out).contains(&format!("follows run {run} (in progress)"))
    });
    fleet.go(&hosts);
    resumed
        .end()
        .expect(0)
        .says("h1: changed")
        .says("h3: changed");
    assert_eq!(hosts.map(|host| fleet.has(host, "etc/x")), [true; 3]);
    // What was followed is the first run, and it is kept.
    assert_eq!(fleet.only_run("h1"), run);
    assert_eq!(fleet.statuses("h1"), ["done"]);

    fleet
        .deploy(&fleet.run(&["--resume", &run, "--limit", "h1", "-v"]))
        .expect(0)
        .says("h1: ok");
}

#[test]
fn ctrl_c_does_not_wait_for_a_host_that_is_only_looked_at() {
    let fleet = Fleet::new(&["h1", "h2"], "  serial: 1\n", WAITING);
    fleet.deploy(&["sim", "break", "h1", "hang"]).expect(0);
    let running = fleet.start(&fleet.run(&[]));
    until("signals are listened for", || {
        listens(running.child.id(), Signal::INT)
    });
    running.signal(Signal::INT);
    running.end().expect(130);
    assert!(!fleet.has("h1", "var/began") && !fleet.has("h2", "var/began"));
}

/// Whether a process has a handler of its own for a signal.
fn listens(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    caught & (1 << (signal.as_raw() - 1)) != 0
}

#[test]
fn what_was_gone_on_with_is_rolled_back_with_the_others() {
    let fleet = Fleet::new(&["h1", "h2"], "  serial: 1\n", WAITING);
    let run = fleet.unconfirmed_at_h1();
    fleet.go(&["h2"]);
    fleet.put("h2", "var/bad");
    fleet
        .deploy(&fleet.run(&["--resume", &run, "--on-failure", "rollback-run"]))
        .expect(3)
        .says(&format!("confirms run {run}"))
        .says("h1: changed")
        .says("h2 failed: rolling back h1")
        .says("rolled-back=2");
    assert_eq!(fleet.statuses("h1"), ["rolled-back"]);
    assert!(!fleet.has("h1", "etc/x") && !fleet.has("h2", "etc/x"));
}

#[test]
fn only_yes_at_the_terminal_changes_hosts() {
    let hosts = ["h1", "h2"];
    let fleet = Fleet::new(&hosts, "", FAILING);
    let run = ["run", fleet.playbook.as_str()];
    for (answer, code, why) in [
        (
            &b"no\r"[..],
            1,
            "2 hosts were not begun: the answer was not `yes`",
        ),
        (b"y\r", 1, "the answer was not `yes`"),
        // What the key Ctrl-C sends.
        (
            b"\x03",
            130,
            "2 hosts were not begun: the run was interrupted",
        ),
    ] {
        let ended = fleet.asked(&run).answer(answer).expect(code).says(why);
        ended.says("Apply these changes to 2 hosts?");
        assert_eq!(hosts.map(|host| fleet.has(host, "etc/x")), [false; 2]);
    }
    fleet
        .asked(&run)
        .answer(b"yes\r")
        .expect(0)
        .says("changed=2");
    assert_eq!(hosts.map(|host| fleet.has(host, "etc/x")), [true; 2]);
}

#[test]
fn after_a_failure_no_further_host_is_begun_where_that_is_wanted() {
    let hosts = ["h1", "h2", "h3"];
    for (more, changed, why) in [
        (
            &["--on-failure", "stop"][..],
            [false, false, false],
            "h1 failed, and --on-failure is stop",
        ),
        (&[], [false, true, true], ""),
    ] {
        let fleet = Fleet::new(&hosts, "  serial: 1\n", FAILING);
        fleet.put("h1", "var/bad");
        let ended = fleet
            .deploy(&fleet.run(more))
            .expect(3)
            .says("h1: rolled back after a failure")
            .says(why);
        assert_eq!(
            hosts.map(|host| fleet.has(host, "etc/x")),
            changed,
            "{}",
            ended.all()
        );
    }
}

#[test]
fn a_whole_run_is_rolled_back_where_that_is_wanted() {
    let hosts = ["h1", "h2", "h3"];
    let fleet = Fleet::new(&hosts, "  serial: 1\n", FAILING);
    fleet.put("h2", "var/bad");
    fleet
        .deploy(&fleet.run(&["--on-failure", "rollback-run"]))
        .expect(3)
        .says("h1: changed")
        .says("h2 failed: rolling back h1")
        .says("h1: rolled back")
        .says("skipped: 1 host was not begun: h2 failed, and --on-failure is rollback-run: h3")
        .says("hosts=3 ok=0 changed=0 failed=0 unreachable=0 rolled-back=2 skipped=1");
    assert_eq!(hosts.map(|host| fleet.has(host, "etc/x")), [false; 3]);
    assert_eq!(fleet.statuses("h1"), ["rolled-back"]);
}

#[test]
fn the_limit_of_failures_holds_within_a_batch_and_counts_the_unreachable() {
    let hosts = ["h1", "h2", "h3", "h4"];
    let fleet = Fleet::new(&hosts, "  max_fail_percentage: 25\n", FAILING);
    for host in hosts {
        fleet.put(host, "var/bad");
    }
    fleet
        .deploy(&fleet.run(&["--forks", "1"]))
        .expect(3)
        .says("2 hosts were not begun: 2 of 4 hosts failed, and max_fail_percentage allows 25 %")
        .says("rolled-back=2 skipped=2");

    let fleet = Fleet::new(
        &["h1", "h2"],
        "  serial: 1\n  max_fail_percentage: 0\n",
        FAILING,
    );
    let text = fs::read_to_string(&fleet.inventory).expect("an inventory");
    // Nobody listens on the first port.
    let text = text.replace(
        "    h1:\n",
        "    h1: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}\n",
    );
    fs::write(&fleet.inventory, text).expect("an inventory");
    fleet
        .deploy(&fleet.run(&[]))
        .expect(4)
        .says("h1: unreachable")
        .says("1 host was not begun: 1 of 2 hosts failed, and max_fail_percentage allows 0 %: h2");

    // Nobody is asked whether to change hosts that will not be begun anyway.
    let ended = fleet.deploy(&["run", &fleet.playbook]).expect(4);
    let ended = ended.says("1 host was not begun: 1 of 2 hosts failed");
    assert!(
        !ended.err.contains("nobody is there to be asked"),
        "{}",
        ended.all()
    );
}

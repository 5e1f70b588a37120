//! The history, by whole commands: what runs leave, how they are told again, and that nobody
//! else can read it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value as Json, json};

use crate::harness::{Ended, Scratch, ended};

/// Two hosts on which a file is written.
struct Fleet {
    scratch: Scratch,
}

impl Fleet {
    fn new() -> Self {
        let fleet = Self {
            scratch: Scratch::new(),
        };
        fleet.scratch.write(
            "hosts.yml",
            "all:\n  hosts: {n1: {}, n2: {}}\n  vars:\n    ansible_connection: sim\n    sim: {}\n",
        );
        fleet.scratch.write(
            "site.yml",
            "- hosts: all\n  tasks:\n    - name: Say it\n      copy:\n        content: \"{{ word | default('hello') }}\\n\"\n        dest: /etc/my_word\n        mode: \"0644\"\n",
        );
        fleet
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    fn deploy(&self, verb: &str, more: &[&str]) -> Ended {
        let (site, hosts) = (self.path("site.yml"), self.path("hosts.yml"));
        self.scratch
            .deploy(&[&[verb, &site, "-i", &hosts], more].concat())
    }

    fn history(&self, words: &[&str]) -> Ended {
        self.scratch.deploy(&[&["history"], words].concat())
    }

    /// The folders of the runs, oldest first.
    fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.scratch.history()).expect("a history");
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.expect("it").path()).collect();
        runs.sort_by_key(|run| {
            fs::metadata(run.join("run.json"))
                .expect("it")
                .modified()
                .expect("a time")
        });
        runs
    }

    fn entries(&self) -> Vec<Json> {
        let listed = self.history(&["--output", "json"]).expect(0);
        let mut lines = objects(&listed.out);
        assert_eq!(lines.pop().expect("sums")["type"], "summary");
        lines
    }
}

fn objects(text: &str) -> Vec<Json> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

/// Every run leaves a folder with exactly the lines that `--output json` prints, whatever was
/// asked for, and only its owner can read it.
#[test]
fn runs_leave_the_lines_that_json_prints() {
    let fleet = Fleet::new();
    let told = fleet
        .deploy("run", &["--check", "--output", "json"])
        .expect(2);
    let run = &fleet.runs()[0];
    let kept = fs::read_to_string(run.join("events.jsonl")).expect("lines");
    assert_eq!(kept, told.out);
    fleet.deploy("run", &["--yes"]).expect(0);
    let runs = fleet.runs();
    let kept = fs::read_to_string(runs[1].join("events.jsonl")).expect("lines");
    let last = objects(&kept).pop().expect("sums");
    assert_eq!(
        (&last["type"], &last["changed"]),
        (&json!("summary"), &json!(2))
    );
    assert_eq!(mode(&fleet.scratch.history()), 0o700);
    for run in &runs {
        assert_eq!(mode(run), 0o700);
        for name in ["run.json", "events.jsonl"] {
            assert_eq!(mode(&run.join(name)), 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(run).expect("a folder").count(), 2);
    }
    // The run is called the same here and on its hosts.
    let id = runs[1].file_name().expect("a name").to_string_lossy();
    let on_hosts = fleet
        .scratch
        .deploy(&["runs", "-i", &fleet.path("hosts.yml")]);
    on_hosts.expect(0).says(&id);
}

#[test]
fn a_run_is_listed_and_told_again() {
    let fleet = Fleet::new();
    let check = fleet.deploy("run", &["--check"]).expect(2);
    fleet.deploy("run", &["--yes", "-l", "n1"]).expect(0);
    let drift = fleet.deploy("drift", &[]).expect(2);
    let entries = fleet.entries();
    let verbs: Vec<&str> = entries
        .iter()
        .map(|entry| entry["verb"].as_str().expect("a verb"))
        .collect();
    assert_eq!(verbs, ["drift", "run", "run"]);
    let exits: Vec<&Json> = entries.iter().map(|entry| &entry["exit"]).collect();
    assert_eq!(exits, [2, 0, 2]);
    let listed = fleet.history(&[]).expect(0);
    let rows: Vec<&str> = listed.out.lines().collect();
    assert_eq!(rows.len(), 3, "{}", listed.out);
    assert!(
        rows[0].contains("exit 2 hosts=2 ok=1 changed=1 pending=1"),
        "{}",
        rows[0]
    );
    assert!(rows[1].contains("--limit n1 --yes"), "{}", rows[1]);
    // Through the same printer, word by word.
    let body = |text: &str| text.split_once("\n\n").map(|(_, body)| body.to_owned());
    for (entry, said) in [(&entries[2], &check), (&entries[0], &drift)] {
        let id = entry["run"].as_str().expect("a name");
        let shown = fleet.history(&["show", id]).expect(0);
        assert_eq!(
            body(&shown.out).as_deref(),
            Some(said.out.as_str()),
            "{}",
            shown.all()
        );
    }
    let id = entries[1]["run"].as_str().expect("a name");
    let shown = fleet.history(&["show", id, "--output", "json"]).expect(0);
    let shown = objects(&shown.out);
    assert_eq!(shown[0]["type"], "history_entry");
    assert_eq!(shown[0]["exit"], 0);
    let sums = shown.last().expect("sums");
    assert_eq!((&sums["changed"], &sums["exit"]), (&json!(1), &json!(0)));
    fleet
        .history(&["show", "2"])
        .expect(1)
        .says("more than one run begins with");
    fleet
        .history(&["show", "nix"])
        .expect(1)
        .says("the history has no run `nix`");
}

#[test]
fn what_happened_to_one_host() {
    let fleet = Fleet::new();
    fleet.deploy("run", &["--yes", "-l", "n1"]).expect(0);
    fleet.deploy("run", &["--yes"]).expect(0);
    let told = fleet.history(&["list", "--host", "n2"]).expect(0);
    assert_eq!(
        told.out
            .lines()
            .filter(|line| line.contains("deploy run"))
            .count(),
        1
    );
    told.says("    changed: write /etc/my_word")
        .says("    changed\n");
    let lines = fleet
        .history(&["--host", "n1", "--output", "json"])
        .expect(0);
    let outcomes: Vec<Json> = objects(&lines.out)
        .into_iter()
        .filter(|line| line["type"] == "history_entry")
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["ok", "changed"]);
}

/// What ends before any host, and what has no value of a variable.
#[test]
fn a_run_that_is_refused_is_kept_with_its_reason_and_without_secrets() {
    let fleet = Fleet::new();
    fleet
        .scratch
        .write("site.yml", "- hosts: all\n  tasks:\n    - nonsense: {}\n");
    fleet
        .deploy(
            "run",
            &["--yes", "-e", "token=s3cr3t", "-e", "{\"key\": \"s3cr3t\"}"],
        )
        .expect(1);
    let entry = &fleet.entries()[0];
    assert_eq!(
        (&entry["exit"], &entry["state"]),
        (&json!(1), &json!("ended"))
    );
    assert_eq!(entry["asked"]["extra_vars"], json!(["token", "key"]));
    let run = &fleet.runs()[0];
    for name in ["run.json", "events.jsonl"] {
        let text = fs::read_to_string(run.join(name)).expect("text");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    let id = entry["run"].as_str().expect("a name");
    fleet.history(&["show", id]).expect(0).says("nonsense");
}

#[test]
fn secrets_of_files_do_not_get_into_the_history() {
    let fleet = Fleet::new();
    fleet.scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - name: Secret\n      no_log: true\n      copy: {content: 'pass-w0rd', dest: /etc/secret, mode: '0600'}\n",
    );
    fleet.deploy("run", &["--yes"]).expect(0);
    let lines = fs::read_to_string(fleet.runs()[0].join("events.jsonl")).expect("lines");
    assert!(
        lines.contains("/etc/secret") && !lines.contains("pass-w0rd"),
        "{lines}"
    );
}

#[test]
fn a_run_that_was_killed_is_told_as_interrupted() {
    let fleet = Fleet::new();
    let mut child = fleet
        .scratch
        .command("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!(
            "{} run '{}' -i '{}'",
            env!("CARGO_BIN_EXE_deploy"),
            fleet.path("site.yml"),
            fleet.path("hosts.yml")
        ))
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`script` of util-linux starts");
    // It waits for an answer, or is on the way there.
    let at_work = || {
        let folder = fleet.scratch.history();
        folder.is_dir()
            && fleet
                .entries()
                .first()
                .is_some_and(|entry| entry["state"] == "at_work")
    };
    while !at_work() {
        assert!(child.try_wait().expect("a child").is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A second run beside it disturbs neither.
    fleet.deploy("run", &["--check"]).expect(2);
    let states: Vec<Json> = fleet
        .entries()
        .iter()
        .map(|entry| entry["state"].clone())
        .collect();
    assert_eq!(states, ["ended", "at_work"]);
    kill_below(child.id());
    let _ = child.wait();
    let entries = fleet.entries();
    let states: Vec<Json> = entries.iter().map(|entry| entry["state"].clone()).collect();
    assert_eq!(states, ["ended", "interrupted"]);
    let id = entries[1]["run"].as_str().expect("a name");
    fleet
        .history(&["show", id])
        .expect(0)
        .says("its process was killed");
}

/// Kills the `deploy` that `script` has started, and nothing else.
fn kill_below(parent: u32) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    for child in children.expect("Linux tells").split_whitespace() {
        let child: u32 = child.parse().expect("a number");
        kill_below(child);
        let mut kill = std::process::Command::new("kill");
        ended(
            kill.args(["-9", &child.to_string()])
                .output()
                .expect("kill starts"),
        );
    }
}

#[test]
fn a_history_that_cannot_be_written_fails_no_run() {
    let fleet = Fleet::new();
    let file = fleet.scratch.write("file", "no folder");
    let file = file.display().to_string();
    fleet
        .deploy("run", &["--yes", "--history", &file])
        .expect(0)
        .says("the history of this run cannot be kept");
    assert!(!fleet.scratch.history().exists());
    fleet
        .deploy("run", &["--check", "--history", "none"])
        .expect(0);
    assert!(!fleet.scratch.history().exists());
    fleet
        .history(&["--history", "none"])
        .expect(1)
        .says("no history is kept");
    fleet.history(&[]).expect(0).says("no run is kept");
}

/// Where runs are kept that nobody says a place for.
/// A pipe that nobody writes to, and links: neither holds anybody up nor is read.
#[test]
fn what_is_no_file_in_the_history_is_passed_over() {
    let fleet = Fleet::new();
    fleet.deploy("run", &["--yes"]).expect(0);
    let run = fleet.runs().pop().expect("a run");
    let pipe = fleet.scratch.history().join("20261123T151536Z-aaaaaa");
    fs::create_dir(&pipe).expect("a folder");
    let node = rustix::fs::CWD;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let made = rustix::fs::mknodat(
        node,
        pipe.join("run.json"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    );
    made.expect("a pipe");
    let linked = fleet.scratch.history().join("20261123T151537Z-bbbbbb");
    fs::create_dir(&linked).expect("a folder");
    std::os::unix::fs::symlink(run.join("run.json"), linked.join("run.json")).expect("a link");
    assert_eq!(fleet.entries().len(), 1);
    fleet
        .deploy("run", &["--yes", "--every", "5m"])
        .expect(0)
        .says("changed=0");
    assert_eq!(fleet.entries().len(), 2);
}

#[test]
fn the_state_folder_of_a_service_comes_before_that_of_the_user() {
    let fleet = Fleet::new();
    let (site, hosts) = (fleet.path("site.yml"), fleet.path("hosts.yml"));
    let run = |vars: &[(&str, &str)]| {
        let mut command = fleet.scratch.command(env!("CARGO_BIN_EXE_deploy"));
        command
            .env_remove("DEPLOY_HISTORY")
            .env_remove("XDG_STATE_HOME");
        command.args(["run", &site, "-i", &hosts, "--check"]);
        command.envs(vars.iter().copied());
        ended(command.output().expect("deploy starts")).expect(2);
    };
    let (service, state) = (fleet.path("service"), fleet.path("xdg"));
    run(&[("STATE_DIRECTORY", &service), ("XDG_STATE_HOME", &state)]);
    run(&[("XDG_STATE_HOME", &state)]);
    run(&[]);
    for folder in [
        "service/history",
        "xdg/deploy/history",
        "home/.local/state/deploy/history",
    ] {
        let found = fs::read_dir(fleet.path(folder)).expect(folder).count();
        assert_eq!(found, 1, "{folder}");
    }
}

/// Runs of a schedule that are missing before this one, reckoned from what the history has.
#[test]
fn runs_of_a_schedule_that_never_began_are_told() {
    let fleet = Fleet::new();
    let words = ["--check", "--every", "1h", "--output", "json"];
    let first = fleet.deploy("run", &words).expect(2);
    assert!(!first.out.contains("missing"), "{}", first.out);
    // The same run, as if it had begun half a day and a bit ago.
    let file = fleet.runs()[0].join("run.json");
    let mut run: Json = serde_json::from_slice(&fs::read(&file).expect("it")).expect("JSON");
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(12 * 60 + 10);
    run["started"] = json!(long_ago);
    fs::write(&file, run.to_string()).expect("ours");
    // Another job, and one by hand, miss nothing.
    for other in [
        &["--check", "--output", "json"][..],
        &[&words[..], &["-l", "n1"]].concat(),
    ] {
        let other = fleet.deploy("run", other).expect(2);
        assert!(!other.out.contains("missing"), "{}", other.out);
    }
    let second = fleet.deploy("run", &words).expect(2);
    let line = &objects(&second.out)[0];
    assert_eq!(
        (&line["type"], &line["severity"]),
        (&json!("diagnostic"), &json!("warning"))
    );
    let message = line["message"].as_str().expect("a text");
    assert!(
        message.starts_with("11 runs of this schedule are missing"),
        "{message}"
    );
    let third = fleet.deploy("run", &words).expect(2);
    assert!(!third.out.contains("missing"), "{}", third.out);
}

/// The fleet over time: slices as they are and are to be, drift that came and went.
#[test]
fn the_fleet_is_told_as_a_page() {
    let scratch = Scratch::new();
    let hosts = scratch.write(
        "hosts.yml",
        "all:\n  hosts: {h1: {sim: {gpus: [H100-80GB], driver: 590.48.01}}, f1: {sim: {gpus: [Flex-170]}, containers_gpu_slicing: {enabled: true, strategy: sriov, sriov: {vf_count: 2}}}}\n  vars:\n    \
         ansible_connection: sim\n    containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [3g.40gb, 1g.10gb]}}\n",
    );
    let hosts = hosts.display().to_string();
    let page = || {
        let file = scratch.path().join("fleet.html").display().to_string();
        scratch
            .deploy(&["report", "--html", "--out", &file, "--since", "2d"])
            .expect(0);
        fs::read_to_string(file).expect("a page")
    };
    assert!(page().contains("No run of this time was about any host."));
    let check = scratch
        .deploy(&["gpu", "-i", &hosts, "--check", "--output", "json"])
        .expect(2);
    let cards: Vec<Json> = objects(&check.out)
        .into_iter()
        .filter(|line| line["type"] == "gpu_slices")
        .collect();
    assert_eq!(cards.len(), 2);
    let of = |host: &str| {
        cards
            .iter()
            .find(|card| card["host"] == host)
            .expect("a card")
    };
    assert_eq!(
        (&of("f1")["technology"], &of("f1")["differs"]),
        (&json!("sriov"), &json!(true))
    );
    assert_eq!(of("f1")["counts"][0]["wanted"], 2);
    let before = page();
    assert!(before.contains("sriov vf: 2 wanted, 0 found"), "{before}");
    assert!(
        before.contains("<li class=\"host is-pending\" data-host=\"h1\""),
        "{before}"
    );
    assert!(
        before.contains("class=\"slice w4 new\" title=\"3g.40gb at"),
        "{before}"
    );

    scratch.deploy(&["gpu", "-i", &hosts, "--yes"]).expect(0);
    let applied = page();
    assert!(
        applied.contains("2 of 2 hosts are as they should be"),
        "{applied}"
    );
    assert!(
        applied.contains("class=\"slice w4 \" title=\"3g.40gb at"),
        "{applied}"
    );
    assert!(applied.contains("other slices before"), "{applied}");

    let conf = crate::harness::below(
        &scratch.path().join("state/deploy/sim"),
        "h1/etc/deploy/gpu/mig.conf",
    );
    let text = fs::read_to_string(&conf).expect("it was written");
    fs::write(&conf, text + "# <script>\n").expect("ours");
    scratch.deploy(&["drift", "-i", &hosts]).expect(2);
    let drifted = page();
    assert!(
        drifted.contains("<li class=\"host is-drifted\" data-host=\"h1\""),
        "{drifted}"
    );
    assert!(drifted.contains("<b>drifted</b> h1/"), "{drifted}");
    scratch
        .deploy(&["drift", "-i", &hosts, "--remediate", "--yes"])
        .expect(0);
    let mended = page();
    assert!(mended.contains("<b>gone after "), "{mended}");
    assert!(
        mended.contains("2 of 2 hosts are as they should be"),
        "{mended}"
    );
    scratch.deploy(&["report"]).expect(64);
    scratch
        .deploy(&["report", "--html", "--since", "ever"])
        .expect(64)
        .says("12h, 30d or 2w");
}

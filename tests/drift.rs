//! Drift, by whole commands on simulated fleets: what somebody changes by hand is found and
//! mended, what is newly wanted is told apart from it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value as Json;

use crate::harness::{Ended, Scratch, ended};

/// Beside the shipped tasks a unit that runs.
const MORE_TASKS: &str = r#"
    - name: Install what counts
      copy:
        content: |
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/bin/true
          [Install]
          WantedBy=multi-user.target
        dest: /etc/systemd/system/gpu-count.service
        mode: "0644"
    - name: Keep it running
      systemd:
        name: gpu-count.service
        state: started
        enabled: true
        daemon_reload: true
"#;

struct Fleet {
    scratch: Scratch,
    count: usize,
}

impl Fleet {
    /// `None` where this machine has no ssh, which is said.
    fn new(count: usize) -> Option<Self> {
        if !crate::ssh::have("ssh") {
            return None;
        }
        let fleet = Self {
            scratch: Scratch::new(),
            count,
        };
        let shipped = fs::read_to_string("playbooks/gpu.yml").expect("it is shipped");
        // Before the handlers, which stand last.
        let at = shipped.find("\n  handlers:").unwrap_or(shipped.len());
        let (tasks, rest) = shipped.split_at(at);
        let text = format!("{}\n{MORE_TASKS}{rest}", tasks.trim_end());
        fleet.scratch.write("site.yml", &text);
        fleet.want("[3g.40gb, 2g.20gb, 1g.10gb]", "");
        Some(fleet)
    }

    /// What is wanted of all, and more lines of variables.
    fn want(&self, profiles: &str, more: &str) {
        let last = self.count;
        let text = format!(
            "all:\n  hosts:\n    n[01:{last:02}]:\n  vars:\n    ansible_connection: sim\n    \
             sim: {{gpus: [H100-80GB], driver: 590.48.01}}\n    \
             containers_gpu_slicing: {{enabled: true, strategy: mig, mig: {{profiles: {profiles}}}}}\n{more}"
        );
        self.scratch.write("inv/hosts.yml", &text);
    }

    fn inventory(&self) -> String {
        let path = self.scratch.path().join("inv/hosts.yml");
        path.display().to_string()
    }

    fn playbook(&self) -> String {
        self.scratch.path().join("site.yml").display().to_string()
    }

    fn deploy(&self, verb: &str, args: &[&str]) -> Ended {
        let (playbook, inventory) = (self.playbook(), self.inventory());
        let words = [&[verb, &playbook, "-i", &inventory], args].concat();
        self.scratch.deploy(&words)
    }

    /// What `deploy drift` finds, as `ADDRESS STATUS`.
    #[track_caller]
    fn drift(&self, code: i32, args: &[&str]) -> (BTreeSet<String>, Json) {
        let args = [&["--output", "json"], args].concat();
        let ended = self.deploy("drift", &args).expect(code);
        let lines = ended.out.lines();
        let objects: Vec<Json> = lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let found = objects.iter().filter(|object| object["type"] == "drift");
        let found = found.map(|object| {
            let word = |key: &str| object[key].as_str().expect("a text").to_owned();
            format!("{} {}", word("address"), word("status"))
        });
        let summary = objects.last().expect("a summary").clone();
        assert_eq!(summary["type"], "summary");
        assert_eq!(summary["exit"], code);
        (found.collect(), summary)
    }

    /// Somebody does something by hand: `(host, command)`, over plain ssh.
    #[track_caller]
    fn by_hand(&self, commands: &[(&str, &str)]) {
        let mut served = (self.scratch.command(env!("CARGO_BIN_EXE_deploy")))
            .args(["sim", "serve", "--port", "0", "-i", &self.inventory()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy starts");
        let said = BufReader::new(served.stdout.take().expect("a pipe"));
        let line = said
            .lines()
            .map_while(Result::ok)
            .find(|line| line.trim_start().starts_with("ssh -F"))
            .expect("it says how to reach a host");
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut results = Vec::new();
        for (host, command) in commands {
            let mut ssh = self.scratch.command(words[0]);
            ssh.args(&words[1..words.len() - 1]).arg(host).arg(command);
            results.push(ended(ssh.output().expect("ssh starts")));
        }
        let _ = served.kill();
        let _ = served.wait();
        for result in results {
            result.expect(0);
        }
    }

    /// Somebody adds a line to a file.
    fn edit(&self, host: &str, path: &str) {
        let path = self.root(host).join(path.trim_start_matches('/'));
        let text = fs::read_to_string(&path).expect("it was written");
        fs::write(&path, format!("{text}# by hand\n")).expect("our folder");
    }

    /// Somebody changes a mode.
    fn chmod(&self, host: &str, path: &str, mode: u32) {
        let path = self.root(host).join(path.trim_start_matches('/'));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our folder");
    }

    fn reboot(&self, host: &str) {
        let inventory = self.inventory();
        let words = ["sim", "break", "-i", &inventory, host, "reboot"];
        self.scratch.deploy(&words).expect(0);
    }

    /// The folder of a simulated host.
    fn root(&self, host: &str) -> PathBuf {
        let mut folders = vec![self.scratch.path().join("state/deploy/sim")];
        while let Some(folder) = folders.pop() {
            if folder.ends_with(host) && folder.join(".sim/state.json").exists() {
                return folder;
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = entries.map(|entry| entry.path());
            folders.extend(inner.filter(|path| path.is_dir() && !path.is_symlink()));
        }
        panic!("{host} was never made");
    }

    /// The record of what was last applied.
    fn record(&self, host: &str) -> PathBuf {
        let state = self.root(host).join("var/lib/deploy");
        let entries = fs::read_dir(state)
            .expect("something was applied")
            .flatten();
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_os_string();
        let is_record = |path: &PathBuf| {
            name(path).to_string_lossy().ends_with(".json")
                && name(path).to_string_lossy().starts_with("applied-")
        };
        let mut records = entries.map(|entry| entry.path()).filter(is_record);
        records.next().expect("there is one")
    }
}

/// Takes one instance away.
const DELETE_AN_INSTANCE: &str = "set -e; id=$(nvidia-smi mig -lgi | awk '/1g.10gb/ {print $6; exit}'); \
     nvidia-smi mig -dci -i 0 -gi \"$id\"; nvidia-smi mig -dgi -i 0 -gi \"$id\"";

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn what_somebody_changes_on_a_fleet_is_found_by_its_address_and_mended() {
    let Some(fleet) = Fleet::new(20) else { return };
    fleet.deploy("run", &["--yes"]).expect(0).says("changed=20");
    let (found, summary) = fleet.drift(0, &[]);
    assert_eq!(found, set(&[]));
    assert_eq!(
        (&summary["drifted"], &summary["pending"]),
        (&0.into(), &0.into())
    );

    fleet.by_hand(&[
        ("n03", DELETE_AN_INSTANCE),
        ("n09", "systemctl stop gpu-count.service"),
        ("n11", "systemctl disable deploy-gpu.service"),
    ]);
    fleet.edit("n05", "/etc/deploy/gpu/mig.conf");
    fleet.chmod("n07", "/etc/systemd/system/deploy-gpu.service", 0o600);
    // Nothing of the boot unit is started there, so that the instances are gone.
    fleet.reboot("n11");
    fleet.reboot("n12");
    // A commit to the variables of one host.
    fleet.scratch.write(
        "inv/host_vars/n13.yml",
        "containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [7g.80gb]}}\n",
    );
    let drifted = [
        "n03/mig:0000:17:00.0:layout drifted",
        "n05/file:/etc/deploy/gpu/mig.conf drifted",
        "n07/file:/etc/systemd/system/deploy-gpu.service drifted",
        "n09/unit:gpu-count.service:state drifted",
        "n11/mig:0000:17:00.0:layout drifted",
        "n11/mig:0000:17:00.0:mode drifted",
        "n11/unit:deploy-gpu.service:enabled drifted",
    ];
    let pending = [
        "n13/file:/etc/deploy/gpu/mig.conf pending",
        "n13/mig:0000:17:00.0:layout pending",
    ];
    let (found, summary) = fleet.drift(2, &[]);
    assert_eq!(found, set(&[&drifted[..], &pending].concat()));
    assert_eq!(
        (&summary["drifted"], &summary["pending"]),
        (&5.into(), &1.into())
    );
    let told = fleet.deploy("drift", &["--limit", "n05"]).expect(2);
    let told = told.says("drifted: change /etc/deploy/gpu/mig.conf");
    told.says("drifted=1");

    // Looking has changed nothing: all is found once more, and then mended.
    // What is pending stays, and is found still.
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("drifted=5 pending=1");
    let (found, _) = fleet.drift(2, &[]);
    assert_eq!(found, set(&pending));
    // What was newly wanted is applied by whoever wants it.
    fleet
        .deploy("drift", &["--remediate", "--to", "wanted", "--yes"])
        .expect(0);
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
}

#[test]
fn what_comes_back_each_time_is_left_to_a_person() {
    let Some(fleet) = Fleet::new(1) else { return };
    let rules = "    gpu_drift: {attempts: 2, backoff_minutes: 0}\n";
    fleet.want("[3g.40gb, 1g.10gb]", rules);
    fleet.deploy("run", &["--yes"]).expect(0);
    let address = "n01/file:/etc/deploy/gpu/mig.conf";
    let file = "/etc/deploy/gpu/mig.conf";
    for _ in 0..2 {
        fleet.edit("n01", file);
        fleet
            .deploy("drift", &["--remediate", "--yes"])
            .expect(0)
            .says("mended");
    }
    fleet.edit("n01", file);
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("needs a person")
        .says("ok=0")
        .says("skipped=1 drifted=1");
    assert_eq!(
        fleet.drift(2, &[]).0,
        set(&[&format!("{address} flapping")])
    );

    // One at a time: the next try is not before its time.
    fleet.want(
        "[3g.40gb, 1g.10gb]",
        "    gpu_drift: {backoff_minutes: 60}\n",
    );
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("not mended again before");

    // Whoever applies has looked at it, and the count begins anew.
    fleet.deploy("run", &["--yes"]).expect(0).says("changed=1");
    fleet.edit("n01", file);
    assert_eq!(fleet.drift(2, &[]).0, set(&[&format!("{address} drifted")]));
}

#[test]
fn rules_say_what_does_not_count_and_when_nothing_is_mended() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.deploy("run", &["--yes"]).expect(0);
    fleet.edit("n01", "/etc/deploy/gpu/mig.conf");
    let rule = |until: &str| {
        format!(
            "    gpu_drift: {{ignore: [{{address: '*/file:/etc/deploy/gpu/*', reason: tried out, until: '{until}'}}]}}\n"
        )
    };
    let profiles = "[3g.40gb, 2g.20gb, 1g.10gb]";
    let ignored = "n01/file:/etc/deploy/gpu/mig.conf ignored";
    fleet.want(profiles, &rule("2999-12-31"));
    assert_eq!(fleet.drift(0, &[]).0, set(&[ignored]));
    fleet.want(profiles, &rule("2020-12-31"));
    fleet
        .deploy("drift", &[])
        .expect(2)
        .says("was for until 2020-12-31");
    fleet.want(profiles, "    gpu_drift: {most_drift: 1}\n");
    fleet.chmod("n01", "/etc/systemd/system/deploy-gpu.service", 0o600);
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("more than `most_drift: 1`");
    // A window that is open for no minute.
    let never =
        "    gpu_drift: {windows: [{days: [], from: '00:00', to: '00:01'}], most_hosts: many}\n";
    fleet.want(profiles, never);
    fleet.deploy("drift", &[]).expect(1).says("most_hosts");
}

#[test]
fn nothing_is_found_where_nobody_changed_anything() {
    let Some(fleet) = Fleet::new(1) else { return };
    // What was never applied can only be pending.
    let told = fleet.deploy("drift", &[]).expect(2);
    told.says("nothing was applied here").says("pending=1");
    fleet.deploy("run", &["--yes"]).expect(0);
    let all = crate::harness::tree(&fleet.root("n01").join("var/lib/deploy"));
    for run in 0..100 {
        let (found, _) = fleet.drift(0, &[]);
        assert_eq!(found, set(&[]), "run {run}");
    }
    let after = crate::harness::tree(&fleet.root("n01").join("var/lib/deploy"));
    assert_eq!(crate::harness::differing(&all, &after), [] as [PathBuf; 0]);
}

#[test]
fn what_a_newer_version_renders_otherwise_is_not_drift() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.deploy("run", &["--yes"]).expect(0);
    // As if the templates of the version that applied it had made another text of them.
    let path = fleet.record("n01");
    let mut record: Json =
        serde_json::from_slice(&fs::read(&path).expect("a record")).expect("JSON");
    let mut changed = 0;
    for file in record["inputs"]["files"].as_array_mut().expect("a list") {
        if file[0] == "template" {
            let text = file[3]["text"].as_str().expect("a text").to_owned();
            file[3]["text"] = format!("{text}# otherwise\n").into();
            changed += 1;
        }
    }
    assert!(changed > 0);
    fs::write(&path, record.to_string()).expect("our file");
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
    // And a shipped template that the user replaces since.
    fs::create_dir_all(fleet.scratch.path().join("templates")).expect("a folder");
    let shipped = fs::read_to_string("templates/mig_config.j2").expect("shipped");
    let own = format!("{shipped}# ours\n");
    fleet.scratch.write("templates/mig_config.j2", &own);
    let file = "n01/file:/etc/deploy/gpu/mig.conf";
    let (found, _) = fleet.drift(2, &[]);
    assert_eq!(found, set(&[&format!("{file} pending")]));
    fleet.edit("n01", "/etc/deploy/gpu/mig.conf");
    let (found, _) = fleet.drift(2, &[]);
    assert_eq!(found, set(&[&format!("{file} drifted_and_pending")]));
    fleet.deploy("drift", &["--remediate", "--yes"]).expect(2);
    assert_eq!(fleet.drift(2, &[]).0, set(&[&format!("{file} pending")]));
}

#[test]
fn the_record_holds_what_was_used_and_no_secret() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.want(
        "[3g.40gb]",
        "    ansible_become_pass: hush1\n    api_token: hush2\n    db: {password: hush3, name: base}\n    \
         unused: hush4\n    quiet: hush5\n",
    );
    fleet.scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - copy: {content: \"{{ db.name }} {{ greeting | default('hello') }}\\n\", dest: /etc/db.conf}\n    \
         - copy: {content: \"{{ quiet }}{{ db.password }}\", dest: /etc/quiet, mode: '0600'}\n      no_log: true\n",
    );
    fleet.deploy("run", &["--yes"]).expect(0);
    let record = fs::read_to_string(fleet.record("n01")).expect("a record");
    assert!(!record.contains("hush"), "{record}");
    assert!(record.contains("base hello"), "{record}");
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
    fleet.edit("n01", "/etc/quiet");
    fleet.edit("n01", "/etc/db.conf");
    let drifted = [
        "n01/file:/etc/quiet drifted",
        "n01/file:/etc/db.conf drifted",
    ];
    assert_eq!(fleet.drift(2, &[]).0, set(&drifted));
    let shown = fleet.deploy("drift", &[]).expect(2).all();
    assert!(!shown.contains("hush"), "{shown}");
    fleet.deploy("drift", &["--remediate", "--yes"]).expect(0);
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
}

/// Two files, and perhaps a handler that answers to both.
fn two_files(fleet: &Fleet, handler: bool) {
    let (notify, handlers) = match handler {
        true => (
            ", notify: look",
            "  handlers:\n    - name: look\n      command: 'true'\n",
        ),
        false => ("", ""),
    };
    let copy = |name: &str| {
        let dest = format!("/etc/{name}.conf");
        let content = format!("\"{name}\\n\"");
        let args = format!("copy: {{content: {content}, dest: {dest}, mode: '0644'}}");
        let notify = notify.replace(", ", "\n      ");
        format!("    - name: write {name}\n      {args}{notify}\n")
    };
    let (one, two) = (copy("one"), copy("two"));
    let text = format!("- hosts: all\n  tasks:\n{one}{two}{handlers}");
    fleet.scratch.write("site.yml", &text);
}

#[test]
fn what_cannot_be_told_apart_from_what_is_ignored_is_held_and_else_mended_in_part() {
    let Some(fleet) = Fleet::new(1) else { return };
    let rule = "    gpu_drift: {ignore: [{address: '*/file:/etc/two.conf', reason: tried out, until: '2999-12-31'}]}\n";
    fleet.want("[3g.40gb]", rule);
    two_files(&fleet, true);
    fleet.deploy("run", &["--yes"]).expect(0);
    fleet.edit("n01", "/etc/one.conf");
    fleet.edit("n01", "/etc/two.conf");
    let text = |name: &str| {
        let path = fleet.root("n01").join("etc").join(name);
        fs::read_to_string(path).expect("it was written")
    };
    let record = fs::read(fleet.record("n01")).expect("a record");
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("cannot be told apart from file:/etc/two.conf");
    assert_eq!(text("one.conf"), "one\n# by hand\n");
    // Plain files can be told apart, and less than all is no new record.
    two_files(&fleet, false);
    fleet
        .deploy("drift", &["--remediate", "--to", "wanted", "--yes"])
        .expect(0);
    assert_eq!(text("one.conf"), "one\n");
    assert_eq!(text("two.conf"), "two\n# by hand\n");
    let after = fs::read(fleet.record("n01")).expect("a record");
    assert!(record == after, "the record is another");

    // The host's own word for a run is told only where it is one.
    fleet.edit("n01", "/etc/one.conf");
    fleet.deploy("drift", &[]).expect(2).says("since run 20");
    let text = String::from_utf8(record).expect("JSON");
    let mut evil: Json = serde_json::from_str(&text).expect("JSON");
    evil["run"] = "\u{1b}[2Jrun".into();
    fs::write(fleet.record("n01"), evil.to_string()).expect("our file");
    let told = fleet.deploy("drift", &[]).expect(2).all();
    assert!(!told.contains("since run"), "{told}");
    assert!(!told.contains("\u{1b}[2J"), "{told}");
}

#[test]
fn what_fails_to_be_mended_keeps_others_from_being_begun_and_waits() {
    let Some(fleet) = Fleet::new(2) else { return };
    let rules = "    gpu_drift: {most_hosts: 1, backoff_minutes: 60}\n";
    fleet.want("[3g.40gb, 2g.20gb, 1g.10gb]", rules);
    fleet.deploy("run", &["--yes"]).expect(0);
    fleet.by_hand(&[("n01", DELETE_AN_INSTANCE), ("n02", DELETE_AN_INSTANCE)]);
    let inventory = fleet.inventory();
    let fault = ["sim", "break", "-i", &inventory, "n01", "nvidia", "ignored"];
    fleet.scratch.deploy(&fault).expect(0);
    let ended = fleet.deploy("drift", &["--remediate", "--yes"]);
    let told = ended.all();
    assert!(told.contains("n01 failed while it was mended"), "{told}");
    let (found, _) = fleet.drift(2, &["--limit", "n02"]);
    assert_eq!(found, set(&["n02/mig:0000:17:00.0:layout drifted"]));
    // What failed was begun, so that it waits; the other is mended.
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .says("not mended again before");
    assert_eq!(fleet.drift(0, &["--limit", "n02"]).0, set(&[]));
}

#[test]
fn a_record_that_root_on_the_host_made_up_gets_nothing_off_this_machine() {
    let Some(fleet) = Fleet::new(1) else { return };
    let more = "    ansible_become_pass: hush1\n    other: {password: hush2}\n    said: {password: hush3}\n";
    fleet.want("[3g.40gb]", more);
    let site = "- hosts: all\n  tasks:\n    - copy: {src: own, dest: /etc/own}\n    - copy: {content: \"{{ said.password }}\", dest: /etc/said, mode: '0600'}\n      no_log: true\n";
    fleet.scratch.write("site.yml", site);
    fleet.scratch.write("files/own", "ours\n");
    let stolen = fleet.scratch.write("id_ed25519", "hush4\n");
    let stolen = stolen.display().to_string();
    fleet.deploy("run", &["--yes"]).expect(0);
    let path = fleet.record("n01");
    let sound: Json = serde_json::from_slice(&fs::read(&path).expect("a record")).expect("JSON");
    let with = |task: &str, change: &dyn Fn(&mut Json)| {
        let mut record = sound.clone();
        let text = format!("{site}    - {task}\n");
        record["inputs"]["playbook"]["text"] = text.into();
        change(&mut record);
        fs::write(&path, record.to_string()).expect("our file");
        let looked = fleet.deploy("drift", &[]).all();
        let mended = fleet.deploy("drift", &["--remediate", "--yes"]).all();
        for said in [&looked, &mended] {
            assert!(!said.contains("hush"), "{task}: {said}");
            assert!(said.contains("cannot be planned again"), "{task}: {said}");
        }
        assert!(!fleet.root("n01").join("etc/stolen").exists(), "{task}");
        looked
    };
    let copy = format!("copy: {{src: '{stolen}', dest: /etc/stolen}}");
    let said = with(&copy, &|_| ());
    assert!(said.contains("lacks the file"), "{said}");
    // Nor with its hash, which may be known.
    let sum = "5a71d5461eccde07c0261750bcd8787519cb41e933f8ad193df3840ed01a2a02";
    let known = |record: &mut Json| {
        let entry = serde_json::json!(["file", stolen, "", {"path": stolen, "sha256": sum}]);
        let files = record["inputs"]["files"].as_array_mut().expect("a list");
        files.push(entry);
    };
    with(&copy, &known);
    let template = format!("template: {{src: '{stolen}', dest: /etc/stolen}}");
    with(&template, &known);
    let become_pass = "copy: {content: '{{ ansible_become_pass }}', dest: /etc/stolen}";
    let not_kept = |record: &mut Json| {
        let var = serde_json::json!({"at": "x", "value": {"__deploy_not_kept": true}});
        record["inputs"]["host"]["other"] = var;
    };
    with(become_pass, &not_kept);
    with(
        "copy: {content: '{{ other.password }}', dest: /etc/stolen}",
        &not_kept,
    );
    // What it uses anyway is planned from as before.
    fs::write(&path, sound.to_string()).expect("our file");
    fleet.edit("n01", "/etc/own");
    let drifted = set(&["n01/file:/etc/own drifted"]);
    assert_eq!(fleet.drift(2, &[]).0, drifted);
}

#[test]
fn a_content_that_was_not_kept_is_mended_only_towards_what_is_wanted() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.want("[3g.40gb]", "    quiet: hush5\n");
    fleet.scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - copy: {content: \"{{ quiet }}\", dest: /etc/quiet, mode: '0600'}\n      no_log: true\n",
    );
    fleet.deploy("run", &["--yes"]).expect(0);
    fleet.want("[3g.40gb]", "    quiet: hush6\n");
    let pending = set(&["n01/file:/etc/quiet pending"]);
    assert_eq!(fleet.drift(2, &[]).0, pending);
    fleet.edit("n01", "/etc/quiet");
    let both = set(&["n01/file:/etc/quiet drifted_and_pending"]);
    assert_eq!(fleet.drift(2, &[]).0, both);
    fleet
        .deploy("drift", &["--remediate", "--yes"])
        .expect(2)
        .says("`--to wanted` writes what is wanted");
    let file = fleet.root("n01").join("etc/quiet");
    let text = || fs::read_to_string(&file).expect("it is there");
    assert_eq!(text(), "hush5# by hand\n");
    fleet
        .deploy("drift", &["--remediate", "--to", "wanted", "--yes"])
        .expect(0);
    assert_eq!(text(), "hush6");
}

#[test]
fn a_playbook_with_a_secret_in_its_text_is_not_recorded_and_that_is_said() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - copy: {content: hush7, dest: /etc/quiet, mode: '0600'}\n      no_log: true\n",
    );
    fleet.deploy("run", &["--yes"]).expect(0);
    let record = fs::read_to_string(fleet.record("n01")).expect("a record");
    assert!(!record.contains("hush"), "{record}");
    fleet.edit("n01", "/etc/quiet");
    let pending = set(&["n01/file:/etc/quiet pending"]);
    assert_eq!(fleet.drift(2, &[]).0, pending);
    fleet
        .deploy("drift", &[])
        .expect(2)
        .says("what was last applied is not recorded: what must not be shown of the task");
}

#[test]
fn what_is_wanted_no_longer_is_still_watched_as_it_was_applied() {
    let Some(fleet) = Fleet::new(1) else { return };
    two_files(&fleet, false);
    fleet.deploy("run", &["--yes"]).expect(0);
    // A task is taken out: as long as nobody touches what it left there is nothing to tell.
    let site = fs::read_to_string(fleet.playbook()).expect("it is there");
    let (first, _) = site.split_once("    - name: write two").expect("two tasks");
    fleet.scratch.write("site.yml", first);
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
    fleet.edit("n01", "/etc/two.conf");
    let drifted = set(&["n01/file:/etc/two.conf drifted"]);
    assert_eq!(fleet.drift(2, &[]).0, drifted);
    fleet.deploy("drift", &["--remediate", "--yes"]).expect(0);
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
}

#[test]
fn slices_that_are_managed_no_longer_are_still_watched() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.deploy("run", &["--yes"]).expect(0);
    let text = fs::read_to_string(fleet.inventory()).expect("it is there");
    fleet.scratch.write(
        "inv/hosts.yml",
        &text.replace("enabled: true", "enabled: false"),
    );
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
    fleet.by_hand(&[("n01", DELETE_AN_INSTANCE)]);
    let drifted = set(&["n01/mig:0000:17:00.0:layout drifted"]);
    assert_eq!(fleet.drift(2, &[]).0, drifted);
}

#[test]
fn a_wanted_state_that_cannot_be_planned_keeps_no_drift_from_being_told() {
    let Some(fleet) = Fleet::new(1) else { return };
    two_files(&fleet, false);
    fleet.deploy("run", &["--yes"]).expect(0);
    fleet.edit("n01", "/etc/one.conf");
    // Only on the host it is seen that this cannot be: a folder stands there.
    let site = fs::read_to_string(fleet.playbook()).expect("it is there");
    let more = "    - copy: {content: x, dest: /etc/three.conf, mode: '0644'}\n";
    fleet.scratch.write("site.yml", &format!("{site}{more}"));
    fs::create_dir(fleet.root("n01").join("etc/three.conf")).expect("our folder");
    let told = fleet.deploy("drift", &[]).expect(3);
    let told = told.says("drifted: change /etc/one.conf");
    told.says("/etc/three.conf");
    // Nor is anything mended as long as that is so.
    let told = fleet.deploy("drift", &["--remediate", "--yes"]).expect(3);
    told.says("/etc/three.conf").says("drifted=1");
    let file = fleet.root("n01").join("etc/one.conf");
    let text = fs::read_to_string(file).expect("it is there");
    assert_eq!(text, "one\n# by hand\n");
}

#[test]
fn a_folder_in_a_files_place_is_drift_and_left_to_a_person() {
    let Some(fleet) = Fleet::new(1) else { return };
    two_files(&fleet, false);
    fleet.deploy("run", &["--yes"]).expect(0);
    let path = fleet.root("n01").join("etc/one.conf");
    fs::remove_file(&path).expect("it was written");
    fs::create_dir(&path).expect("our folder");
    fs::write(path.join("inside"), "kept\n").expect("our folder");
    fleet.edit("n01", "/etc/two.conf");
    let one = "n01/file:/etc/one.conf drifted";
    let both = set(&[one, "n01/file:/etc/two.conf drifted"]);
    assert_eq!(fleet.drift(2, &[]).0, both);
    let told = fleet.deploy("drift", &["--remediate", "--yes"]).expect(2);
    told.says("a folder stands at /etc/one.conf");
    assert_eq!(fleet.drift(2, &[]).0, set(&[one]));
    assert!(path.join("inside").exists());
}

#[test]
fn a_host_that_was_as_wanted_already_is_recorded_and_not_changed() {
    let Some(fleet) = Fleet::new(1) else { return };
    two_files(&fleet, false);
    fleet.deploy("run", &["--yes"]).expect(0).says("changed=1");
    // As if somebody had made all of it by hand.
    let state = fleet.root("n01").join("var/lib/deploy");
    fs::remove_dir_all(&state).expect("it is there");
    fleet.deploy("run", &["--check"]).expect(0);
    assert!(!state.exists(), "looking records nothing");
    let ended = fleet.deploy("run", &["--yes"]).expect(0);
    ended.says("ok=1 changed=0");
    assert!(!state.join("runs").exists(), "there was no run");
    let record = fleet.record("n01");
    let text = fs::read_to_string(&record).expect("a record");
    assert_eq!(fleet.drift(0, &[]).0, set(&[]));
    fleet.edit("n01", "/etc/one.conf");
    let drifted = set(&["n01/file:/etc/one.conf drifted"]);
    assert_eq!(fleet.drift(2, &[]).0, drifted);
    fleet.deploy("drift", &["--remediate", "--yes"]).expect(0);
    // It is put there once, and again only where something else is there or wanted.
    let again = |what: &str, same: bool| {
        let before = fs::read_to_string(&record).unwrap_or_default();
        fleet.deploy("run", &["--yes"]).expect(0).says("changed=0");
        let after = fs::read_to_string(&record).expect("a record");
        assert_eq!(before == after, same, "{what}");
    };
    again("nothing is new", true);
    fs::write(&record, &text[..text.len() / 2]).expect("our file");
    again("it was damaged", false);
    let site = fs::read_to_string(fleet.playbook()).expect("it is there");
    fleet
        .scratch
        .write("site.yml", &format!("# said otherwise\n{site}"));
    again("the playbook is another", false);
    again("and no more", true);
}

#[test]
fn a_run_leaves_the_record_that_the_next_one_would() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.deploy("run", &["--yes"]).expect(0).says("changed=1");
    let record = fs::read_to_string(fleet.record("n01")).expect("a record");
    fleet.deploy("run", &["--yes"]).expect(0).says("changed=0");
    let after = fs::read_to_string(fleet.record("n01")).expect("a record");
    assert_eq!(record, after);
}

#[test]
fn playbooks_of_one_name_have_records_of_their_own_and_older_ones_are_read() {
    let Some(fleet) = Fleet::new(1) else { return };
    two_files(&fleet, false);
    let site = fs::read_to_string(fleet.playbook()).expect("it is there");
    let play = |folder: &str, name: &str| {
        let text = site.replace("/etc/", &format!("/etc/{name}-"));
        let path = fleet.scratch.write(&format!("{folder}/site.yml"), &text);
        path.display().to_string()
    };
    let (one, other) = (play("fleet", "a"), play("lab", "b"));
    let inventory = fleet.inventory();
    let deploy = |verb: &str, playbook: &str, more: &[&str]| {
        let words = [&[verb, playbook, "-i", &inventory], more].concat();
        fleet.scratch.deploy(&words)
    };
    deploy("run", &one, &["--yes"]).expect(0).says("changed=1");
    deploy("run", &other, &["--yes"])
        .expect(0)
        .says("changed=1");
    fleet.edit("n01", "/etc/a-one.conf");
    let told = deploy("drift", &one, &[]).expect(2);
    told.says("drifted: change /etc/a-one.conf");
    deploy("drift", &other, &[]).expect(0);
    // The same in a project that was copied elsewhere.
    let moved = play("elsewhere/fleet", "a");
    let told = deploy("drift", &moved, &[]).expect(2);
    told.says("drifted: change /etc/a-one.conf");
    for copy in ["fleet-a", "home/fleet-b"] {
        let inner = play(&format!("{copy}/playbooks"), "c");
        let first = copy == "fleet-a";
        if first {
            let applied = deploy("run", &inner, &["--yes"]).expect(0);
            applied.says("changed=1");
            fleet.edit("n01", "/etc/c-one.conf");
            // Neither one's repository nor the folder's name is part of the name.
            fleet.scratch.write("fleet-a/.git/HEAD", "");
        }
        let told = deploy("drift", &inner, &[]).expect(2);
        told.says("drifted: change /etc/c-one.conf");
    }

    // What an earlier version left goes by the file's name and the tags alone.
    let state = fleet.root("n01").join("var/lib/deploy");
    let entries = fs::read_dir(&state).expect("it is there").flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.starts_with("applied-") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("our file");
        fs::remove_file(&path).expect("our file");
        if name.ends_with(".json") && text.contains("/lab/site.yml") {
            let old = state.join(format!("applied-site-{OLD_SUM}.json"));
            fs::write(old, text).expect("our file");
        }
    }
    fleet.edit("n01", "/etc/b-one.conf");
    let told = deploy("drift", &other, &[]).expect(2);
    told.says("drifted: change /etc/b-one.conf");
    // Nothing goes back to it: it may be from before the run that counts.
    let edited = fs::read_to_string(fleet.root("n01").join("etc/b-one.conf")).expect("our file");
    deploy("drift", &other, &["--remediate", "--yes"])
        .says("recorded by an earlier version of deploy")
        .says("--to wanted");
    let after = fs::read_to_string(fleet.root("n01").join("etc/b-one.conf")).expect("our file");
    assert_eq!(after, edited);
    // The record is of the other playbook.
    deploy("drift", &one, &[])
        .expect(2)
        .says("nothing was applied here");
    deploy("drift", &other, &["--remediate", "--yes", "--to", "wanted"]).expect(0);
    deploy("run", &other, &["--yes"]).expect(0);
    fleet.edit("n01", "/etc/b-two.conf");
    deploy("drift", &other, &["--remediate", "--yes"])
        .expect(0)
        .says("mended");
    // One that cannot be read is told as that, own or older.
    let own = fs::read_dir(&state).expect("it is there").flatten();
    let own = own.map(|entry| entry.path()).find(|path| {
        let name = path.display().to_string();
        name.ends_with(".json") && name.contains("/applied-site-") && !name.contains(OLD_SUM)
    });
    let own = own.expect("its record");
    let older = state.join(format!("applied-site-{OLD_SUM}.json"));
    for path in [own, older] {
        fs::remove_file(&path).expect("our file");
        fs::create_dir(&path).expect("our folder");
        let told = deploy("drift", &other, &[]);
        let told = told.says("what was last applied here cannot be read");
        assert!(
            !told.all().contains("nothing was applied"),
            "{}",
            told.all()
        );
        fs::remove_dir(&path).expect("our folder");
    }
}

/// How records of `site.yml` without tags were called.
const OLD_SUM: &str = "8672b8a7";

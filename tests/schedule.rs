//! `deploy schedule`: what systemd, cron and Kubernetes make of what it prints, and shares
//! of the hosts for controllers that work side by side.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Ended, Scratch, ended, ran};
use crate::hosts::{Hosts, available};

/// An inventory with a few hosts, in a folder that is not in a home.
fn inventory(scratch: &Scratch) -> PathBuf {
    scratch.write(
        "fleet.yml",
        "all:\n  hosts:\n    n[01:40]:\n      ansible_connection: sim\n",
    )
}

fn schedule(scratch: &Scratch, words: &[&str]) -> Ended {
    let mut command = scratch.command(env!("CARGO_BIN_EXE_deploy"));
    command.arg("schedule").args(words);
    ran(&mut command)
}

/// The files that were printed, each in its place below a folder.
fn unpacked(text: &str, folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("# /etc/systemd/system/") {
            files.push(folder.join(path));
            continue;
        }
        let file = files.last().expect("a path comes first");
        let mut content = fs::read_to_string(file).unwrap_or_default();
        content.push_str(line);
        content.push('\n');
        fs::write(file, content).expect("a file");
    }
    files
}

fn analyze(words: &[&str], units: &[PathBuf]) -> Ended {
    let mut command = Command::new("systemd-analyze");
    command.args(words).args(units).env("SYSTEMD_COLORS", "0");
    ended(
        command
            .output()
            .expect("tests/run installs systemd-container, and with it systemd"),
    )
}

#[test]
fn systemd_takes_the_units_and_finds_little_that_they_may_do() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let file = file.to_str().expect("a plain path");
    let words = [
        "systemd",
        "-i",
        file,
        "--every",
        "15m",
        "--private-key",
        "/etc/deploy/key",
    ];
    let printed = schedule(&scratch, &words).expect(0);
    let units = unpacked(&printed.out, scratch.path());
    assert_eq!(units.len(), 2, "{}", printed.out);
    analyze(&["verify"], &units).expect(0);
    // Tenths: what the comment in the unit states.
    let service = &units[..1];
    assert!(
        fs::read_to_string(&units[0])
            .expect("a file")
            .contains("1.4 OK")
    );
    analyze(&["security", "--offline=true", "--threshold=14"], service)
        .expect(0)
        .says("1.4 OK");
    analyze(&["security", "--offline=true", "--threshold=13"], service).expect(1);
}

#[test]
fn one_run_of_cron_at_a_time() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let file = file.to_str().expect("a plain path");
    let words = [
        "cron",
        "-i",
        file,
        "-l",
        "n0*:!n01 5%$HOME'",
        "--every",
        "6h",
    ];
    let printed = schedule(&scratch, &words).expect(0);
    let line = printed.out.lines().find(|line| !line.starts_with('#'));
    let line = line
        .expect("a line")
        .strip_prefix("0 */6 * * * ")
        .expect("its fields");
    // As cron(8) does: in the home, `\%` is a percent sign and `%` a newline.
    assert!(!line.replace("\\%", "").contains('%'), "{line}");
    let line = line.replace("\\%", "%");
    let run = |text: &str| {
        let mut command = scratch.command("sh");
        let home = scratch.path().join("home");
        command.args(["-c", text]).current_dir(home);
        ended(command.output().expect("sh starts"))
    };
    let mine = run(&line);
    assert_eq!(mine.code, 1, "{}", mine.all());
    assert!(
        mine.all().contains("5%$HOME'"),
        "the pattern arrives: {}",
        mine.all()
    );
    let while_at_work = format!("exec 9>.deploy-drift.lock; flock -n 9 || exit 1; {line}");
    assert_eq!(run(&while_at_work).code, 75);
}

#[test]
fn a_cluster_gives_each_index_of_the_job_its_share() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let file = file.to_str().expect("a plain path");
    let words = [
        "kubernetes",
        "-i",
        file,
        "--image",
        "deploy:1",
        "--shards",
        "8",
    ];
    let printed = schedule(&scratch, &[&words[..], &["--", "-e", "x=$(id)"]].concat()).expect(0);
    printed
        .says("completions: 8")
        .says("concurrencyPolicy: Forbid")
        .says(r#""--shard", "$(JOB_COMPLETION_INDEX)/8""#)
        .says(r#""-i", "/project/fleet.yml""#)
        .says(r#""--every", "1h""#)
        .says("emptyDir: {}")
        .says(r#""x=$$(id)""#);
    let claimed = schedule(&scratch, &[&words[..], &["--state-claim", "runs"]].concat()).expect(0);
    claimed.says("claimName: runs");
    let in_image = [
        "kubernetes",
        "-i",
        "/srv/fleet",
        "--image",
        "deploy:1",
        "--in-image",
    ];
    let printed = schedule(&scratch, &in_image).expect(0);
    assert!(
        !printed.out.contains("configmap deploy-drift-project"),
        "{}",
        printed.out
    );
    printed.says(r#""-i", "/srv/fleet""#);
}

#[test]
fn shares_have_each_host_once() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let of = |shard: &str| -> BTreeSet<String> {
        let mut command = scratch.command(env!("CARGO_BIN_EXE_deploy"));
        command.args([
            "inventory",
            "list",
            "--output",
            "json",
            "--shard",
            shard,
            "-i",
        ]);
        let listed = ran(command.arg(&file)).expect(0);
        let json: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
        let hosts = json["_meta"]["hostvars"].as_object().expect("hosts");
        hosts.keys().cloned().collect()
    };
    let all = of("0/1");
    assert_eq!(all.len(), 40);
    let shares: Vec<BTreeSet<String>> = (0..3).map(|n| of(&format!("{n}/3"))).collect();
    assert_eq!(shares.iter().map(BTreeSet::len).sum::<usize>(), 40);
    assert_eq!(
        shares.iter().flatten().cloned().collect::<BTreeSet<_>>(),
        all
    );
}

#[test]
fn what_cannot_be_scheduled_is_told() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let file = file.to_str().expect("a plain path");
    schedule(&scratch, &["cron", "-i", "gone.yml"])
        .expect(1)
        .says("there is no inventory `gone.yml`");
    schedule(&scratch, &["cron", "-i", file, "--every", "7m"])
        .expect(64)
        .says("minutes that divide an hour");
    schedule(&scratch, &["systemd", "-i", file, "--name", "Drift!"])
        .expect(64)
        .says("small letters, digits and inner dashes");
    let key = ["systemd", "-i", file, "--private-key", "/etc/a key%"];
    schedule(&scratch, &key)
        .expect(1)
        .says("cannot be told to systemd");
    scratch.write("group_vars/all.yml", "x: 1\n");
    for run_as in ["root\nExecStartPre=/bin/evil", "root;x", ""] {
        schedule(&scratch, &["systemd", "-i", file, "--run-as", run_as])
            .expect(64)
            .says("a user's name has letters");
    }
    schedule(&scratch, &["cron", "-i", file, "-l", "a\n* * * * * evil"])
        .expect(1)
        .says("no line of a schedule can hold");
    let of_a_cluster = ["kubernetes", "-i", file, "--image", "deploy:1"];
    schedule(&scratch, &of_a_cluster)
        .expect(1)
        .says("does not fit into a ConfigMap: `group_vars` lies beside it")
        .says("--in-image");
    schedule(&scratch, &["kubernetes", "-i", file])
        .expect(64)
        .says("--image");
}

/// A fleet of one simulated host on a real one, which looks for drift each week.
const FLEET: &str = "set -e
    ln -s /usr/local/libexec/deploy-sim/deploy /usr/local/bin/deploy
    mkdir -p /srv/fleet /etc/deploy
    echo not-a-key >/etc/deploy/key
    chmod 600 /etc/deploy/key
    cat >/srv/fleet/hosts.yml <<'END'
all:
  hosts:
    card:
      ansible_connection: sim
      sim: {gpus: [A30-24GB]}
      containers_gpu_slicing: {enabled: true, strategy: mig, mig: {enabled: true, profiles: [2g.12gb]}}
END
    mkdir -p /etc/systemd/system/deploy-drift.timer.d /etc/systemd/system/deploy-drift.service.d
    printf '[Timer]\\nRandomizedDelaySec=0\\n' >/etc/systemd/system/deploy-drift.timer.d/now.conf
    printf '[Service]\\nExecStartPre=+/bin/sh -c \"read -r _ </run/gate || :\"\\n' >/etc/systemd/system/deploy-drift.service.d/gate.conf
    mkfifo /run/gate
    deploy schedule systemd -i /srv/fleet/hosts.yml --every weekly --private-key /etc/deploy/key --install";

/// Lets a run that waits go on, and waits for its end.
const GO: &str = "echo go >/run/gate
    until [ \"$(systemctl is-active deploy-drift.service)\" != activating ]; do sleep 0.1; done";

/// How often the service was begun.
const BEGUN: &str =
    "journalctl -q -o cat -u deploy-drift.service | grep -c '^Starting deploy-drift.service'";

#[test]
fn the_timer_works_under_a_real_systemd() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(1);
    let on = |text: &str| hosts.on("h1", text);
    on(FLEET)
        .expect(0)
        .says("written /etc/systemd/system/deploy-drift.service")
        .says("started deploy-drift.timer");
    on("systemctl is-enabled deploy-drift.timer").expect(0);
    // A second run cannot begin while one is at work, whoever asks.
    on(
        "systemctl start --no-block deploy-drift.service && sleep 0.2 && \\
        systemctl start --no-block deploy-drift.service",
    )
    .expect(0);
    on(GO).expect(0);
    assert_eq!(
        on(BEGUN).out.trim(),
        "1",
        "{}",
        on("journalctl -u deploy-drift").all()
    );
    // It found what was never applied, which is no failure of the service.
    let shown = on("systemctl show -p Result -p ExecMainStatus deploy-drift.service");
    assert_eq!(
        shown.out,
        "Result=success\nExecMainStatus=2\n",
        "{}",
        on("journalctl -u deploy-drift").all()
    );
    on("journalctl -q -o cat -u deploy-drift.service")
        .expect(0)
        .says("pending");
    // The machine was off when the timer was due, for two weeks, as its history tells.
    on("grep -q '\"every\": 604800' /var/lib/deploy-drift/history/*/run.json && \\
        sed -i \"s/\\\"started\\\": \\\"[^\\\"]*/\\\"started\\\": \\\"$(date -u -d '15 days ago' +%FT%TZ)/\" \\
            /var/lib/deploy-drift/history/*/run.json && \\
        systemctl stop deploy-drift.timer && \\
        touch -d '9 days ago' /var/lib/systemd/timers/stamp-deploy-drift.timer && \\
        systemctl start deploy-drift.timer")
    .expect(0);
    on(GO).expect(0);
    assert_eq!(
        on(BEGUN).out.trim(),
        "2",
        "{}",
        on("journalctl -u deploy-drift").all()
    );
    on("journalctl -q -o cat -u deploy-drift.service")
        .expect(0)
        .says("1 run of this schedule is missing");
    // The same again changes nothing.
    on("deploy schedule systemd -i /srv/fleet/hosts.yml --every weekly --private-key /etc/deploy/key --install")
        .expect(0)
        .says("kept    /etc/systemd/system/deploy-drift.service")
        .says("kept    /etc/systemd/system/deploy-drift.timer");
}

#[test]
fn words_for_drift_that_it_does_not_take_and_relative_paths_are_refused() {
    let scratch = Scratch::new();
    let file = inventory(&scratch);
    let file = file.to_str().expect("a plain path");
    for (words, said) in [
        (
            &["--private-key", "keys/id"][..],
            "`keys/id` is no absolute path",
        ),
        (&["--private-key=keys/id"], "`keys/id` is no absolute path"),
        (&["-e", "@more.yml"], "`more.yml` is no absolute path"),
        (&["site.yml"], "`site.yml` is no absolute path"),
        (&["--fork", "2"], "does not take these words"),
        (&["--forks", "many"], "does not take these words"),
    ] {
        let all = [&["cron", "-i", file, "--"], words].concat();
        schedule(&scratch, &all).expect(1).says(said);
    }
    let words = [
        "cron",
        "-i",
        file,
        "--",
        "/srv/site.yml",
        "-e",
        "@/srv/more.yml",
        "--forks",
        "2",
    ];
    schedule(&scratch, &words).expect(0).says("/srv/site.yml");
}

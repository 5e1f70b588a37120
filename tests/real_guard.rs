//! What becomes of runs on real hosts when something befalls them: real power cuts, real
//! timers and boot units of systemd, a real sshd that is stopped, a network that is gone.
//! Each story is stopped at a known place in its middle, so that no test depends on time.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{Ended, ended};
use crate::hosts::{Hosts, State, available};

/// Cards, a file, a place to wait, another file.
const STORY: &str = "- name: Change cards and files
  hosts: all
  tasks:
    - gpu_discovery:
    - gpu_strategy:
    - gpu_slicing:
    - copy: {content: before, dest: /etc/before.conf, mode: '0640'}
    - command: {argv: [/usr/local/bin/wait-here], undo: ['true']}
    - copy: {content: after, dest: /etc/after.conf, mode: '0600'}
";

/// Tells that it is there, and waits; at a place that is on no disk.
const WAIT: &str = "#!/bin/sh
: >/sim/here
until [ -e /sim/go ]; do sleep 0.05; done
";

/// A host with the script to wait in, as it is before a run.
fn prepared(hosts: &Hosts) -> State {
    let script = hosts.root("h1").join("usr/local/bin/wait-here");
    fs::write(&script, WAIT).expect("a file of the host's");
    hosts
        .on("h1", "chmod 755 /usr/local/bin/wait-here")
        .expect(0);
    hosts.state("h1")
}

fn playbook(hosts: &Hosts, text: &str) -> PathBuf {
    hosts.scratch.write("project/playbooks/story.yml", text)
}

fn start(hosts: &Hosts, text: &str, flags: &[&str]) -> Child {
    let playbook = playbook(hosts, text);
    let mut words = vec!["run", playbook.to_str().expect("a plain path"), "--yes"];
    words.extend(flags);
    let mut command = hosts.deploy_command(&words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("deploy starts")
}

/// A run that is in its middle.
fn begun(hosts: &Hosts) -> Child {
    for name in ["go", "here"] {
        // It may be there from an earlier story.
        let _ = fs::remove_file(hosts.machine("h1").join(name));
    }
    let mut run = start(hosts, STORY, &[]);
    let here = hosts.machine("h1").join("here");
    until("the run is in its middle", || {
        let over = run.try_wait().expect("our child");
        assert!(over.is_none(), "it ended before its middle");
        here.exists()
    });
    run
}

fn go(hosts: &Hosts) {
    fs::write(hosts.machine("h1").join("go"), "").expect("a file");
}

#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2400 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not in two minutes: {what}");
}

/// The folder of the host's last run.
fn run_folder(hosts: &Hosts) -> PathBuf {
    let runs = hosts.root("h1").join("var/lib/deploy/runs");
    let runs = fs::read_dir(runs).expect("there was a run");
    let mut runs: Vec<PathBuf> = runs.flatten().map(|run| run.path()).collect();
    runs.sort();
    runs.pop().expect("there was a run")
}

#[track_caller]
fn until_status(hosts: &Hosts, wanted: &str) {
    until(&format!("the run is {wanted}"), || {
        let status = fs::read_to_string(run_folder(hosts).join("status")).unwrap_or_default();
        status.trim() == wanted
    });
}

/// As if the time to confirm were over: the deadline is a time since boot.
fn let_time_pass(hosts: &Hosts) {
    let path = run_folder(hosts).join("deadline");
    let text = fs::read_to_string(&path).expect("a guarded run has a deadline");
    let boot = text.split(' ').next().expect("a boot id");
    fs::write(&path, format!("{boot} 1\n")).expect("a file of the host's");
}

fn end(run: Child) -> Ended {
    ended(run.wait_with_output().expect("our child"))
}

/// The host is as it was, nothing of the guard is left, and the next run succeeds.
#[track_caller]
fn as_before(hosts: &Hosts, before: &State) {
    until("the guard is away", || {
        hosts.on("h1", "pgrep -f '[g]uard.sh'").out.is_empty()
            && !hosts.state("h1").units.contains("deploy-guard")
    });
    assert_eq!(hosts.state("h1").differing(before), [""; 0]);
    go(hosts);
    let next = end(start(hosts, STORY, &[]));
    assert_eq!(next.code, 0, "{}", next.all());
    let made = hosts.state("h1").differing(before);
    for name in ["etc/before.conf", "etc/after.conf"] {
        assert!(made.iter().any(|path| path == name), "{made:?}");
    }
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.state("h1").differing(before), [""; 0]);
}

#[test]
fn a_power_cut_in_the_middle_is_undone_at_boot() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(1);
    let before = prepared(&hosts);
    let run = begun(&hosts);
    hosts.power_cut("h1");
    hosts.boot("h1");
    until_status(&hosts, "undone");
    end(run).expect(3).says("rolled-back=1");
    as_before(&hosts, &before);

    // Somebody else's reboot, in good order, is no reboot of the run's.
    let run = begun(&hosts);
    let boot = hosts.boot_id("h1");
    hosts.on("h1", "systemctl reboot");
    hosts.wait_for_reboot("h1", &boot);
    until_status(&hosts, "undone");
    end(run).expect(3).says("rolled-back=1");
    as_before(&hosts, &before);
}

#[test]
fn a_reboot_is_a_part_of_a_run_that_has_leave() {
    if !available() {
        return;
    }
    const REBOOT: &str = "- name: Restart between two files
  hosts: all
  tasks:
    - copy: {content: before, dest: /etc/before.conf, mode: '0640'}
    - reboot:
    - copy: {content: after, dest: /etc/after.conf, mode: '0600'}
";
    let hosts = Hosts::systemd(1);
    let boot = hosts.boot_id("h1");
    let refused = end(start(&hosts, REBOOT, &[]));
    assert_ne!(refused.code, 0, "{}", refused.all());
    assert_eq!(hosts.boot_id("h1"), boot);
    let run = end(start(&hosts, REBOOT, &["--allow-reboot"])).expect(0);
    assert_ne!(hosts.boot_id("h1"), boot, "{}", run.all());
    let files = "cat /etc/before.conf /etc/after.conf; ls /etc/systemd/system";
    let files = hosts.on("h1", files).expect(0).out;
    assert!(
        files.starts_with("beforeafter") && !files.contains("deploy-boot"),
        "{files}"
    );
}

#[test]
fn a_killed_runner_and_a_stopped_sshd_are_undone_by_the_timer() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(1);
    let before = prepared(&hosts);
    let run = begun(&hosts);
    hosts.on("h1", "pkill -KILL -f '[r]unner.sh run'").expect(0);
    until_status(&hosts, "undone");
    end(run).expect(3).says("rolled-back=1");
    as_before(&hosts, &before);

    // The change itself cuts the way to the host: nobody can confirm it.
    let stop = "- name: Stop sshd
  hosts: all
  tasks:
    - systemd: {name: ssh.service, state: stopped}
";
    let run = start(&hosts, stop, &[]);
    until_status(&hosts, "unconfirmed");
    assert_eq!(hosts.ssh("h1", "true").code, 255);
    let_time_pass(&hosts);
    until_status(&hosts, "undone");
    let run = end(run);
    assert!([3, 5].contains(&run.code), "{}", run.all());
    hosts.ssh("h1", "true").expect(0);
    as_before(&hosts, &before);
}

#[test]
fn a_host_without_systemd_undoes_what_nobody_confirms() {
    if !available() {
        return;
    }
    let hosts = Hosts::overlay(1, 0);
    let before = prepared(&hosts);
    // The controller dies and the network is gone: the host goes on by itself.
    let mut run = begun(&hosts);
    hosts.unplug("h1");
    run.kill().expect("our child");
    run.wait().expect("our child");
    go(&hosts);
    until_status(&hosts, "unconfirmed");
    let_time_pass(&hosts);
    until_status(&hosts, "undone");
    hosts.plug("h1");
    as_before(&hosts, &before);

    let run = begun(&hosts);
    hosts.on("h1", "pkill -KILL -f '[r]unner.sh run'").expect(0);
    until_status(&hosts, "undone");
    end(run).expect(3).says("rolled-back=1");
    as_before(&hosts, &before);

    // A change that stops sshd, and is over when that is gone.
    let stop = "- name: Stop sshd
  hosts: all
  tasks:
    - command:
        argv: [sh, -c, 'touch /etc/ssh/off; while test -e /run/sshd.pid; do sleep 0.1; done']
        undo: [rm, -f, /etc/ssh/off]
";
    let run = start(&hosts, stop, &[]);
    until_status(&hosts, "unconfirmed");
    let_time_pass(&hosts);
    until_status(&hosts, "undone");
    let run = end(run);
    assert!([3, 5].contains(&run.code), "{}", run.all());
    as_before(&hosts, &before);
}

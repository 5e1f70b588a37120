//! Plans with a reboot on a real host: a card whose MIG mode only a reboot changes, what
//! another reboot undoes, and slices that a reboot of the same plan takes away.

use std::fs;

use crate::hosts::{Hosts, available};

/// A card as a virtual machine gets it: it cannot be reset, and keeps its mode.
const HANDED_OVER: &str =
    "{os: debian-13, driver: '535.183.01', gpus: [{product: A100-40GB, reset: unsupported}]}";

fn variables(hosts: &Hosts, text: &str) {
    let folder = hosts.inventory().join("host_vars");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("h1.yml"), text).expect("a file");
}

fn restart(hosts: &Hosts) {
    let boot = hosts.boot_id("h1");
    hosts.on("h1", "systemctl reboot");
    hosts.wait_for_reboot("h1", &boot);
}

#[test]
fn a_mode_that_no_reset_changes_is_changed_by_a_reboot_and_back_by_another() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd_with(HANDED_OVER);
    variables(
        &hosts,
        "containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [3g.20gb, 1g.5gb]}}\n",
    );
    let (before, boot) = (hosts.state("h1"), hosts.boot_id("h1"));

    // Without leave the plan says what waits, and changes nothing.
    hosts
        .deploy(&["gpu", "--yes"])
        .expect(3)
        .says("MIG mode can be enabled only by a reboot")
        .says("--allow-reboot");
    assert_eq!(hosts.boot_id("h1"), boot);
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);

    // With leave it is one run with one reboot in it.
    hosts.deploy(&["gpu", "--yes", "--allow-reboot"]).expect(0);
    assert_ne!(hosts.boot_id("h1"), boot);
    let cards = hosts.state("h1").cards.to_string();
    assert!(
        cards.contains("\"mig\":[true,true]") && cards.contains("9:4:4/"),
        "{cards}"
    );
    hosts.deploy(&["gpu", "--check"]).expect(0);
    // The boot unit brings the same back.
    restart(&hosts);
    hosts.on("h1", "systemctl is-system-running --wait");
    assert_eq!(hosts.state("h1").cards.to_string(), cards);

    // Undone, the mode waits for one more reboot: that is told, and then all is as before.
    let undone = hosts.deploy(&["rollback", "--yes"]).expect(5);
    let undone = undone.says("becomes Disabled at the next reboot: restart the host");
    restart(&hosts);
    let runs = hosts.deploy(&["runs"]).expect(0).out;
    let run = runs
        .split_whitespace()
        .find(|word| word.starts_with("20") && word.contains('-') && word.len() > 16);
    let run = run.unwrap_or_else(|| panic!("no run in {runs}{}", undone.all()));
    hosts.deploy(&["runs", "undo", run, "--yes"]).expect(0);
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
}

#[test]
fn slices_behind_a_reboot_task_are_there_after_it() {
    if !available() {
        return;
    }
    let hosts = Hosts::systemd(1);
    let before = hosts.state("h1");
    let story = "- name: Restart, then slice
  hosts: all
  tasks:
    - copy: {content: 'options x y=1', dest: /etc/modprobe.d/story.conf, mode: '0644'}
      register: options
    - reboot: {post_reboot_delay: 1, test_command: 'test -d /run/systemd/system'}
      when: options is changed
    - gpu_discovery:
    - gpu_strategy:
    - gpu_slicing:
    - gpu_validation:
";
    let playbook = hosts.scratch.write("project/playbooks/story.yml", story);
    let playbook = playbook.to_str().expect("a plain path");
    // So that they are as wanted before the reboot, and gone after it.
    let slice =
        "- hosts: all\n  tasks:\n    - gpu_discovery:\n    - gpu_strategy:\n    - gpu_slicing:\n";
    let first = hosts.scratch.write("project/playbooks/slice.yml", slice);
    let first = first.to_str().expect("a plain path");
    hosts.deploy(&["run", first, "--yes"]).expect(0);
    let sliced = hosts.state("h1");
    assert_ne!(sliced.cards, before.cards);
    let boot = hosts.boot_id("h1");
    hosts
        .deploy(&["run", playbook, "--yes", "--allow-reboot"])
        .expect(0)
        .says("again, which a reboot takes away");
    assert_ne!(hosts.boot_id("h1"), boot);
    let now = hosts.state("h1");
    assert_eq!((&now.cards, &now.bus), (&sliced.cards, &sliced.bus));
    // Nothing else is left to do, so that no other reboot is asked for.
    hosts.deploy(&["run", playbook, "--yes"]).expect(0);
}

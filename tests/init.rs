//! `deploy init`, by whole commands: a project for simulated hosts whose first `--check` has
//! nothing to do, that writes over nothing, and that says whom it has not reached.

use std::fs;

use crate::harness::{Scratch, ran, tree};

/// Hosts of several vendors that say nothing of what is wanted.
fn fleet(scratch: &Scratch) -> String {
    let text = "all:\n  vars: {ansible_connection: sim}\n  hosts:\n\
        \x20   h100-01: {sim: {gpus: [{product: H100-80GB, count: 2}]}}\n\
        \x20   h100-02: {sim: {gpus: [{product: H100-80GB, count: 2}]}}\n\
        \x20   mixed: {sim: {gpus: [{product: A30-24GB, count: 1}, {product: L40S, count: 1}]}}\n\
        \x20   flex-01: {sim: {os: debian-13, gpus: [{product: Flex-170, count: 2}]}}\n\
        \x20   mi300: {sim: {gpus: [{product: MI300X, count: 1}]}}\n\
        \x20   web-01: {sim: {os: debian-13}}\n";
    scratch.write("own/hosts.yml", text).display().to_string()
}

/// Runs `deploy` to a good end on the same machines, whichever inventories name them.
#[track_caller]
fn deploy(scratch: &Scratch, words: &[&str]) {
    let mut command = scratch.command(env!("CARGO_BIN_EXE_deploy"));
    command.env("DEPLOY_SIM_STATE", scratch.path().join("machines"));
    ran(command.args(words)).expect(0);
}

fn path(scratch: &Scratch, name: &str) -> String {
    scratch.path().join(name).display().to_string()
}

fn read(scratch: &Scratch, name: &str) -> String {
    let file = scratch.path().join("project/inventories/gpus").join(name);
    fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

#[test]
fn a_new_project_has_what_is_there_and_nothing_to_do() {
    let scratch = Scratch::new();
    let (own, project) = (fleet(&scratch), path(&scratch, "project"));
    let made = scratch.deploy(&["init", &project, "-i", &own]).expect(0);
    let gpus = path(&scratch, "project/inventories/gpus");
    let said = format!("deploy gpu -i {own} -i inventories/gpus --check");
    let made = made.says(&said).says("gpu_h100_80gb: h100-01, h100-02");
    assert_eq!(made.out.lines().count(), 8, "{}", made.all());

    let vars = read(&scratch, "group_vars/gpu_h100_80gb.yml");
    assert!(
        vars.contains("\n  enabled: false\n  strategy: none\n"),
        "{vars}"
    );
    assert!(
        vars.contains("#   mig: {enabled: true, profiles: [1g.10gb, 1g.10gb,"),
        "{vars}"
    );
    assert!(
        read(&scratch, "hosts.yml").contains("    gpu_a30_24gb_l40s:\n      hosts:\n        mixed")
    );

    let check = ["gpu", "-i", &own, "-i", &gpus, "--check"];
    scratch.deploy(&check).expect(0).says("ok=6 changed=0");
}

#[test]
fn a_layout_that_is_there_is_written_down_and_is_what_is_wanted() {
    let scratch = Scratch::new();
    let (own, project) = (fleet(&scratch), path(&scratch, "project"));
    let slice = "{containers_gpu_slicing: {enabled: true, strategy: mig, mig: {enabled: true, profiles: [3g.40gb, 1g.10gb]}}}";
    let sliced = ["gpu", "-i", &own, "-l", "h100-02", "--yes", "-e", slice];
    deploy(&scratch, &sliced);
    deploy(&scratch, &["init", &project, "-i", &own, "-l", "h100-0*"]);
    let now = read(&scratch, "host_vars/h100-02.yml");
    let usual = read(&scratch, "group_vars/gpu_h100_80gb.yml");
    let (sliced, whole) = match now.contains("strategy: mig") {
        true => (&now, &usual),
        false => (&usual, &now),
    };
    assert!(whole.contains("\n  strategy: none\n"), "{whole}");
    assert!(
        sliced.contains("  strategy: mig\n  mig: {enabled: true, profiles: ["),
        "{sliced}"
    );
    let gpus = path(&scratch, "project/inventories/gpus");
    // Managed from now on, with nothing to change.
    let file = scratch
        .path()
        .join("project/inventories/gpus/host_vars/h100-02.yml");
    fs::write(&file, now.replace("enabled: false", "enabled: true")).expect("a file");
    let check = ["gpu", "-i", &own, "-i", &gpus, "-l", "h100-02", "--check"];
    deploy(&scratch, &check);
}

#[test]
fn what_is_not_known_of_slices_is_not_written_as_none() {
    let scratch = Scratch::new();
    let text = "all:\n  vars: {ansible_connection: sim}\n  hosts:\n\
        \x20   h100-01: {sim: {gpus: [{product: H100-80GB, mig: true}]}}\n";
    let own = scratch.write("own/hosts.yml", text).display().to_string();
    let project = path(&scratch, "project");
    deploy(&scratch, &["init", &project, "-i", &own]);
    let vars = read(&scratch, "group_vars/gpu_h100_80gb.yml");
    let reason = vars.lines().find(|line| line.starts_with("  # GPU"));
    let why = "MIG is on without instances";
    assert!(reason.is_some_and(|line| line.contains(why)), "{vars}");
    assert!(!vars.contains("\n  strategy"), "{vars}");
}

#[test]
fn nothing_is_written_over_and_those_who_say_what_they_want_are_left_alone() {
    let scratch = Scratch::new();
    let (own, project) = (fleet(&scratch), path(&scratch, "project"));
    scratch.write("project/README.md", "mine\n");
    let hosts = scratch.path().join("project/inventories/gpus/hosts.yml");
    fs::create_dir_all(hosts.parent().expect("a folder")).expect("folders");
    std::os::unix::fs::symlink("/nowhere/at/all", &hosts).expect("a link");
    scratch.write(
        "own/host_vars/mi300.yml",
        "containers_gpu_slicing: {enabled: false}\n",
    );
    let made = scratch.deploy(&["init", &project, "-i", &own]).expect(0);
    made.says("kept  ")
        .says("README.md (it is there already)")
        .says("which says already what is wanted of them: mi300");
    assert_eq!(
        fs::read_to_string(scratch.path().join("project/README.md")).expect("it"),
        "mine\n"
    );
    assert!(fs::symlink_metadata(&hosts).expect("it").is_symlink());
    let before = tree(&scratch.path().join("project"));
    scratch.deploy(&["init", &project, "-i", &own]).expect(0);
    assert_eq!(tree(&scratch.path().join("project")), before);
}

#[test]
fn hosts_that_are_not_reached_stay_in_a_new_inventory() {
    let scratch = Scratch::new();
    let project = path(&scratch, "project");
    let made = scratch.deploy(&["init", &project, "-i", "127.0.0.1:1,", "-u", "ops", "-b"]);
    made.expect(4)
        .says("nothing is known of their cards: 127.0.0.1");
    let hosts = read(&scratch, "hosts.yml");
    assert!(
        hosts.contains("127.0.0.1\": {ansible_port: 1}  # not reached")
            || hosts.contains("127.0.0.1: {ansible_port: 1}  # not reached"),
        "{hosts}"
    );
    let vars = read(&scratch, "group_vars/all.yml");
    assert!(
        vars.contains("ansible_user: \"ops\"\nansible_become: true\n"),
        "{vars}"
    );
    let listed = [
        "inventory",
        "list",
        "-i",
        &path(&scratch, "project/inventories/gpus"),
    ];
    scratch.deploy(&listed).expect(0).says("127.0.0.1");
}

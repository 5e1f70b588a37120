//! Whole commands against the simulated fleet: real SSH on loopback, a real `sh`,
//! simulated vendor tools.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Scratch, differing, tree, tree_without_times};

const DEMO: &str = "inventories/demo";

/// The folders of the simulated hosts of a test.
fn fleet(scratch: &Scratch) -> PathBuf {
    scratch.path().join("state/deploy/sim")
}

#[test]
fn the_demo_is_applied_once_and_then_left_alone() {
    let scratch = Scratch::new();
    scratch
        .deploy(&["gpu", "--inventory", DEMO, "--yes"])
        .expect(0)
        .says("│3g.40gb")
        .says("failed=0 unreachable=0");

    let before = tree(&fleet(&scratch));
    assert!(before.len() > 100, "the fleet's folders were not found");
    scratch
        .deploy(&["gpu", "--inventory", DEMO, "--yes"])
        .expect(0)
        .says("changed=0 failed=0 unreachable=0");
    let after = tree(&fleet(&scratch));
    assert_eq!(differing(&before, &after), Vec::<PathBuf>::new());
}

#[test]
fn check_mode_finds_changes_and_makes_none() {
    let scratch = Scratch::new();
    // The hosts come into being when they are first reached.
    scratch.deploy(&["discover", "--inventory", DEMO]).expect(0);
    let before = tree(&fleet(&scratch));
    scratch
        .deploy(&["gpu", "--inventory", DEMO, "--check", "--diff"])
        .expect(2)
        .says("would be changed");
    let after = tree(&fleet(&scratch));
    assert_eq!(differing(&before, &after), Vec::<PathBuf>::new());
}

#[test]
fn off_a_terminal_nothing_is_changed_without_yes() {
    let scratch = Scratch::new();
    scratch.deploy(&["discover", "--inventory", DEMO]).expect(0);
    let before = tree(&fleet(&scratch));
    scratch
        .deploy(&["gpu", "--inventory", DEMO])
        .expect(1)
        .says("--yes");
    assert_eq!(
        differing(&before, &tree(&fleet(&scratch))),
        Vec::<PathBuf>::new()
    );
}

/// One H100 host; `slicing` stands below `containers_gpu_slicing`.
fn one_h100(scratch: &Scratch, slicing: &str) -> String {
    let text = format!(
        "all:\n  hosts:\n    node1:\n  vars:\n    ansible_connection: sim\n    sim:\n      \
         gpus: [{{product: H100-80GB, count: 1}}]\n    containers_gpu_slicing:\n      {}\n",
        slicing.replace('\n', "\n      ")
    );
    scratch.write("inv/hosts.yml", &text).display().to_string()
}

fn mig(profiles: &str) -> String {
    format!("enabled: true\nstrategy: mig\nmig: {{enabled: true, profiles: [{profiles}]}}")
}

#[test]
fn rollback_brings_layout_and_files_back() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb, 3g.40gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0);
    let etc = |scratch: &Scratch| {
        let root = find(&fleet(scratch), "etc").expect("the host has an etc");
        tree_without_times(&root)
    };
    let files = etc(&scratch);
    let facts = scratch
        .deploy(&["discover", "-i", &inventory, "--output", "json"])
        .expect(0)
        .out;

    one_h100(&scratch, &mig("1g.10gb, 1g.10gb, 4g.40gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0)
        .says("changed=1");
    assert_ne!(differing(&files, &etc(&scratch)), Vec::<PathBuf>::new());

    scratch
        .deploy(&["rollback", "-i", &inventory, "--yes"])
        .expect(0)
        .says("3g.40gb");
    assert_eq!(differing(&files, &etc(&scratch)), Vec::<PathBuf>::new());
    let back = scratch
        .deploy(&["discover", "-i", &inventory, "--output", "json"])
        .expect(0)
        .out;
    assert_eq!(gpus(&facts), gpus(&back));
}

#[test]
fn what_cannot_be_undone_because_it_is_not_there_is_said() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb"));
    let rollback = |more: &[&str]| {
        let mut args = vec!["rollback", "-i", &inventory, "--yes"];
        args.extend(more);
        scratch.deploy(&args)
    };
    rollback(&[]).expect(0).says("nothing to undo");
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0);
    rollback(&["--run", "20200101T000000Z-000000"])
        .expect(1)
        .says("no host keeps a run `20200101T000000Z-000000`");
    rollback(&[]).expect(0).says("changed=1");
    rollback(&[]).expect(0).says("nothing to undo");
}

/// The GPUs of the first host in `discover`'s JSON.
fn gpus(json: &str) -> serde_json::Value {
    json.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|object| object["type"] == "host_facts")
        .expect("a line of facts")["facts"]["gpus"]
        .clone()
}

/// The first folder or file of this name below a folder.
fn find(folder: &std::path::Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        for entry in entries {
            if entry.file_name().is_some_and(|n| n == name) {
                return Some(entry);
            }
            if entry.is_dir() && !entry.is_symlink() {
                folders.push(entry);
            }
        }
    }
    None
}

#[test]
fn a_layout_that_cannot_exist_is_refused_before_any_connection() {
    let scratch = Scratch::new();
    for (profiles, word) in [
        ("4g.40gb, 4g.40gb", "4g.40gb"),
        ("4g.80gb", "4g.80gb"),
        (
            "1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb, 1g.10gb",
            "1g.10gb",
        ),
    ] {
        let inventory = one_h100(&scratch, &mig(profiles));
        scratch
            .deploy(&["gpu", "-i", &inventory, "--yes"])
            .expect(1)
            .says(word)
            .says("hosts.yml:");
        assert!(
            !fleet(&scratch).exists(),
            "a host was reached for {profiles}"
        );
    }
}

#[test]
fn a_profile_of_another_card_is_refused_before_any_change() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("1g.5gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(3)
        .says("1g.5gb")
        .says("1g.10gb")
        .says("nothing was left changed");
}

#[test]
fn all_typos_are_told_at_once_and_nothing_is_connected() {
    let scratch = Scratch::new();
    let inventory = scratch.write(
        "inv/hosts.yml",
        "all:\n  hsots:\n    node1:\n  vars:\n    ansible_connection: sim\n",
    );
    scratch.write(
        "inv/group_vars/all.yml",
        "containers_gpu_slicing:\n  enabled: true\n  stratgy: mig\n",
    );
    let inventory = inventory.display().to_string();
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(1)
        .says("hosts.yml:2:3")
        .says("`hosts`");
    assert!(!fleet(&scratch).exists());
}

#[test]
fn slices_asked_for_by_name_are_not_missed_in_silence_where_no_card_is() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb"));
    let text = fs::read_to_string(&inventory).expect("an inventory");
    let text = text.replace("gpus: [{product: H100-80GB, count: 1}]", "gpus: []");
    fs::write(&inventory, text).expect("an inventory");
    scratch
        .deploy(&["gpu", "-i", &inventory, "--check"])
        .expect(3)
        .says("no GPU was found on this host, and the variables ask for mig")
        .says("hosts.yml:");
}

#[test]
fn a_gpu_in_use_is_not_touched_and_its_holder_is_named() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb, 3g.40gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0);
    scratch
        .deploy(&[
            "sim",
            "break",
            "-i",
            &inventory,
            "node1",
            "in-use",
            "--gpu",
            "0",
            "--command",
            "train.py",
            "--unit",
            "train.service",
        ])
        .expect(0);
    let before = tree_without_times(&fleet(&scratch));
    one_h100(&scratch, &mig("7g.80gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(3)
        .says("train.py")
        .says("train.service")
        .says("nothing was left changed");
    assert_eq!(
        differing(&before, &tree_without_times(&fleet(&scratch))),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn force_stops_a_service_that_holds_the_card_and_starts_it_again() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb, 3g.40gb"));
    let text = fs::read_to_string(&inventory).expect("an inventory");
    let held = "in_use: [{gpu: 0, command: nv-hostengine, unit: nvidia-dcgm.service}]";
    let text = text.replace("      gpus: [{", &format!("      {held}\n      gpus: [{{"));
    assert!(text.contains(held), "{text}");
    fs::write(&inventory, text).expect("an inventory");
    let held = |scratch: &Scratch| {
        let proc = find(&fleet(scratch), "proc").expect("the host has processes");
        let names = fs::read_dir(proc).expect("a folder").filter_map(|entry| {
            fs::read_to_string(entry.expect("an entry").path().join("comm")).ok()
        });
        names.filter(|name| name == "nv-hostengine\n").count()
    };
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(3)
        .says("unit nvidia-dcgm.service")
        .says("`apply_strategy: force`");
    let force = r#"{"containers_gpu_state_management": {"apply_strategy": "force"}}"#;
    let planned = scratch
        .deploy(&["gpu", "-i", &inventory, "-e", force, "--check"])
        .expect(2)
        .says("stop nvidia-dcgm.service, which uses GPU 0")
        .says("start nvidia-dcgm.service again");
    assert!(
        !planned.all().contains("stays drained"),
        "{}",
        planned.all()
    );
    assert_eq!(held(&scratch), 1);
    scratch
        .deploy(&["gpu", "-i", &inventory, "-e", force, "--yes"])
        .expect(0);
    assert_eq!(held(&scratch), 1, "the service was started again");
    scratch
        .deploy(&["gpu", "-i", &inventory, "-e", force, "--yes"])
        .expect(0)
        .says("changed=0");
    scratch
        .deploy(&["rollback", "-i", &inventory, "--yes"])
        .expect(0);
    assert_eq!(held(&scratch), 1);
    // Somebody whom nobody would start again is left alone.
    scratch
        .deploy(&[
            "sim",
            "break",
            "-i",
            &inventory,
            "node1",
            "in-use",
            "--gpu",
            "0",
            "--command",
            "train.py",
        ])
        .expect(0);
    scratch
        .deploy(&["gpu", "-i", &inventory, "-e", force, "--yes"])
        .expect(3)
        .says("train.py")
        .says("stops services alone");
    assert_eq!(held(&scratch), 1);
}

#[test]
fn skip_only_reports_and_installs_nothing_that_the_next_boot_would_run() {
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb, 3g.40gb"));
    let text = fs::read_to_string(&inventory).expect("an inventory");
    let text = text.replace(
        "  vars:\n",
        "  vars:\n    containers_gpu_state_management: {apply_strategy: skip}\n",
    );
    fs::write(&inventory, text).expect("an inventory");
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0)
        .says("create 2 MIG instances")
        .says("changed=0");
    let etc = find(&fleet(&scratch), "etc").expect("the host has an etc");
    assert!(!etc.join("deploy").exists(), "files were installed");
}

#[test]
fn an_entry_for_a_card_that_is_not_there_is_told() {
    let scratch = Scratch::new();
    let slicing = format!(
        "{}\ngpus: [{{match: {{index: 0}}, strategy: none}}, {{match: {{index: 9}}, strategy: none}}]",
        mig("3g.40gb")
    );
    let inventory = one_h100(&scratch, &slicing);
    let run = scratch.deploy(&["gpu", "-i", &inventory, "--check"]);
    let run = run.says("no card of this host is matched by the entry of `gpus` at ");
    assert_eq!(run.out.matches("no card of this host").count(), 1);
}

#[test]
fn a_mistyped_tag_or_connection_variable_is_refused() {
    let scratch = Scratch::new();
    scratch
        .deploy(&["gpu", "-i", DEMO, "--check", "--tags", "slicin"])
        .expect(1)
        .says("did you mean `slicing`?");
    let inventory = one_h100(&scratch, &mig("3g.40gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--check", "-e", "ansible_prot=22"])
        .expect(1)
        .says("did you mean `ansible_port`?");
    assert!(!fleet(&scratch).exists());
}

#[test]
fn the_last_object_names_the_code_that_the_command_ends_with() {
    let scratch = Scratch::new();
    let run = scratch.deploy(&["gpu", "-i", DEMO, "--output", "json"]);
    let run = run.expect(1);
    let last = run.out.lines().last().expect("a summary");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        (&last["type"], &last["exit"]),
        (&"summary".into(), &1.into())
    );
}

#[test]
fn files_are_rendered_for_one_host_and_not_for_a_group() {
    let scratch = Scratch::new();
    scratch
        .deploy(&["render", "-i", DEMO, "--host", "training"])
        .expect(1)
        .says("there is no host `training`");
}

#[test]
fn wrong_usage_is_64() {
    let scratch = Scratch::new();
    scratch.deploy(&["gpu"]).expect(64).says("--inventory");
    scratch.deploy(&["gpuu"]).expect(64);
    scratch
        .deploy(&["gpu", "-i", "x", "--forks", "0"])
        .expect(64);
}

#[test]
fn help_and_manual_come_from_the_same_definitions() {
    let scratch = Scratch::new();
    scratch.deploy(&["--help"]).expect(0).says("Exit codes:");
    scratch.deploy(&["man"]).expect(0).says(".TH deploy");
    scratch
        .deploy(&["completions", "bash"])
        .expect(0)
        .says("_deploy");
}

#[test]
fn plain_ssh_shows_the_slices_of_a_served_host() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    if !crate::ssh::have("ssh") {
        return;
    }
    let scratch = Scratch::new();
    let inventory = one_h100(&scratch, &mig("3g.40gb, 1g.10gb"));
    scratch
        .deploy(&["gpu", "-i", &inventory, "--yes"])
        .expect(0);
    let mut served = scratch
        .command(env!("CARGO_BIN_EXE_deploy"))
        .args(["sim", "serve", "-i", &inventory, "--port", "0"])
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
    let mut ssh = scratch.command(words[0]);
    ssh.args(&words[1..]).args(["nvidia-smi", "-L"]);
    let shown = crate::harness::ended(ssh.output().expect("ssh starts"));
    let _ = served.kill();
    let _ = served.wait();
    let shown = shown.expect(0);
    assert!(
        shown.out.contains("MIG 3g.40gb") && shown.out.contains("MIG 1g.10gb"),
        "{}",
        shown.all()
    );
}

#[test]
fn a_run_goes_on_after_a_restart_of_a_simulated_host() {
    let scratch = Scratch::new();
    let hosts = "all:\n  hosts:\n    one:\n      ansible_connection: sim\n      sim: {gpus: [{product: H100-80GB}]}\n";
    let inventory = scratch.write("hosts.yml", hosts);
    let play = "- hosts: all\n  tasks:\n    - copy: {content: \"1\\n\", dest: /etc/one.conf}\n    \
                - reboot: {}\n    - copy: {content: \"2\\n\", dest: /etc/two.conf}\n";
    let play = scratch.write("play.yml", play);
    let (play, inventory) = (play.display().to_string(), inventory.display().to_string());
    let words = ["run", &play, "-i", &inventory, "--yes"];
    // Without leave nothing is begun; whoever looks sees all of the plan.
    scratch.deploy(&words).expect(3).says("changed=0");
    let look = ["run", &play, "-i", &inventory, "--check"];
    scratch
        .deploy(&look)
        .expect(3)
        .says("note: this is the plan with leave for a reboot; without it nothing is done")
        .says("write /etc/two.conf")
        .says("there is no leave to do that")
        .says("--allow-reboot");
    let with_leave = [&words[..], &["--allow-reboot"]].concat();
    scratch.deploy(&with_leave).expect(0).says("changed=1");
}

#[test]
fn a_mode_that_no_reset_brings_about_says_what_to_do_next() {
    let scratch = Scratch::new();
    let inventory = DEMO.to_owned();
    let host = ["-i", inventory.as_str()];
    let broken = [
        &["sim", "break", "a30-*"][..],
        &host,
        &["reset-unsupported"],
    ]
    .concat();
    scratch
        .deploy(&broken)
        .expect(0)
        .says("`deploy sim mend a30-01` mends it");
    let words = ["gpu", "--yes", "--allow-reboot", "--limit", "a30-01"];
    scratch
        .deploy(&[&words[..], &host].concat())
        .expect(3)
        .says("a30-01: rolled back after a failure")
        .says("Reboot the system")
        .says("only a restart of the host puts it in force: on the host run 'nvidia-smi -i ")
        .says("restart it, then run deploy again");
    // Hosts are named alike where they are mended.
    let mended = [&["sim", "mend", "a30-*"][..], &host].concat();
    scratch.deploy(&mended).expect(0).says("1 host mended");
    scratch
        .deploy(&[&words[..], &host].concat())
        .expect(0)
        .says("a30-01: changed");
}

#[test]
fn a_fault_on_a_card_that_is_not_there_says_which_there_are() {
    let scratch = Scratch::new();
    let inventory = DEMO.to_owned();
    let on = |host, gpu| {
        [
            "sim", "break", host, "-i", &inventory, "in-use", "--gpu", gpu,
        ]
        .map(str::to_owned)
    };
    scratch
        .deploy(&on("a30-01", "7"))
        .expect(1)
        .says("the host's NVIDIA cards are 0 to 1");
    scratch
        .deploy(&on("web-01", "0"))
        .expect(1)
        .says("the host has no NVIDIA card");
}

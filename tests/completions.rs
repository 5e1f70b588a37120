//! Completions in real shells: what they propose comes from the inventory's files, and nothing
//! is run or connected to for it.

use std::fs;
use std::path::Path;

use crate::harness::{Scratch, ended};

/// An inventory with two groups, and hosts that nobody can reach.
fn fleet(scratch: &Scratch) -> String {
    let text = "all:\n  children:\n    training:\n      hosts: {h100-01: {}, h100-02: {}}\n    serving:\n      hosts: {l40s-01: {}}\n";
    let path = scratch.write("inv/hosts.yml", text);
    path.parent().expect("a folder").display().to_string()
}

/// What bash proposes for the last of these words.
fn bash(scratch: &Scratch, words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let text = format!(
        "source <(deploy completions bash)\nCOMP_WORDS=({})\nCOMP_CWORD={}\nCOMP_TYPE=9\n_clap_complete_deploy deploy \"${{COMP_WORDS[COMP_CWORD]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        quoted.join(" "),
        words.len() - 1,
    );
    shell(scratch, "bash", &["--norc", "-c", &text])
}

/// What fish proposes for a line.
fn fish(scratch: &Scratch, line: &str) -> Vec<String> {
    let text = format!("deploy completions fish | source; complete -C '{line}'");
    shell(scratch, "fish", &["--no-config", "-c", &text])
}

fn shell(scratch: &Scratch, program: &str, words: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_BIN_EXE_deploy"))
        .parent()
        .expect("a folder");
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").expect("a path")
    );
    let mut command = scratch.command(program);
    command
        .env("PATH", path)
        // How busy this machine is decides nothing here.
        .env("DEPLOY_COMPLETE_SECONDS", "600")
        .args(words)
        .current_dir(scratch.path());
    let said = ended(command.output().expect("the shell starts"));
    assert!(said.err.is_empty(), "{}", said.all());
    let lines = said.out.lines().map(|line| line.split('\t').next());
    lines
        .flatten()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_knows_hosts_groups_tags_and_runs() {
    let scratch = Scratch::new();
    let inventory = fleet(&scratch);
    let of = |words: &[&str]| bash(&scratch, &[&["deploy"], words].concat());
    assert_eq!(
        of(&["gpu", "-i", &inventory, "--limit", "h1"]),
        ["h100-01", "h100-02"]
    );
    assert_eq!(
        of(&["gpu", "-i", &inventory, "-l", "h100-01,!tr"]),
        ["h100-01,!training"]
    );
    assert_eq!(
        of(&["render", "-i", &inventory, "--host", "l"]),
        ["l40s-01"]
    );
    assert_eq!(
        of(&["inventory", "graph", "-i", &inventory, "se"]),
        ["serving"]
    );
    assert!(of(&["gpu", "--tags", ""]).len() > 1);
    assert_eq!(of(&["doc"]), ["doctor"]);
    // Files as ever.
    assert_eq!(of(&["gpu", "-i", "in"]), ["inv/"]);
    // What cannot be read proposes nothing, and says nothing.
    assert!(of(&["gpu", "-i", "nowhere", "--limit", "h"]).is_empty());
    scratch.write("inv/hosts.yml", "all: [broken\n");
    assert!(of(&["gpu", "-i", &inventory, "--limit", "h"]).is_empty());
}

#[test]
fn an_inventory_is_only_read() {
    let scratch = Scratch::new();
    let script = scratch.write("inv", "#!/bin/sh\ntouch ran\n");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    assert!(bash(&scratch, &["deploy", "gpu", "-i", "./inv", "--limit", "h"]).is_empty());
    assert!(!scratch.path().join("ran").exists());
}

#[test]
fn runs_of_the_history_are_proposed() {
    let scratch = Scratch::new();
    scratch.write(
        "hosts.yml",
        "all:\n  hosts: {n1: {ansible_connection: sim, sim: {}}}\n",
    );
    scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - copy: {content: x, dest: /etc/word}\n",
    );
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let run = [
        "run",
        &path("site.yml"),
        "-i",
        &path("hosts.yml"),
        "--check",
    ];
    scratch.deploy(&run).expect(2);
    let found = bash(&scratch, &["deploy", "history", "show", "2"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(scratch.history().join(&found[0]).is_dir());
}

#[test]
fn fish_knows_them_too() {
    if !crate::ssh::have("fish") {
        return;
    }
    let scratch = Scratch::new();
    let inventory = fleet(&scratch);
    let found = fish(&scratch, &format!("deploy gpu -i {inventory} --limit h1"));
    assert_eq!(found, ["h100-01", "h100-02"]);
}

#[test]
fn each_shell_has_a_script() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = scratch.deploy(&["completions", shell]).expect(0).out;
        assert!(script.contains("DEPLOY_COMPLETE"), "{shell}\n{script}");
    }
}

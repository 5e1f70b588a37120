//! The shipped examples for build servers: they are YAML, their scripts are in form, each
//! `deploy` in them is a command line that is accepted, and a second push brings the comment up
//! to date instead of writing another one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use deploy::cli::args::Cli;
use serde_json::Value as Json;

use crate::harness::{Ended, Scratch, ended};

const GITHUB: &str = include_str!("../templates/ci/github.yml");
const GITLAB: &str = include_str!("../templates/ci/gitlab.yml");

fn scripts(value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("run", Json::String(text)) => found.push(text.clone()),
                    ("script" | "before_script", Json::Array(lines)) => {
                        let lines: Vec<&str> = lines.iter().filter_map(Json::as_str).collect();
                        found.push(lines.join("\n"));
                    }
                    _ => scripts(value, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| scripts(item, found)),
        _ => {}
    }
}

/// All shell text of an example.
fn scripts_of(text: &str) -> Vec<String> {
    let (node, problems) = deploy::yaml::load(std::path::Path::new("ci.yml"), text);
    assert!(!problems.has_errors(), "{problems}");
    let mut found = Vec::new();
    scripts(&node.expect("a document").to_json(), &mut found);
    assert!(!found.is_empty());
    found
}

/// The words of a command up to what the shell does with its output.
fn words(line: &str) -> Vec<String> {
    let words = line.split_whitespace();
    let words = words.take_while(|word| !word.starts_with(['>', '|', ';']));
    words.map(|word| word.replace('"', "")).collect()
}

#[test]
fn every_command_line_in_them_is_accepted() {
    let mut count = 0;
    for script in [GITHUB, GITLAB].into_iter().flat_map(scripts_of) {
        assert!(
            !script.contains("${{"),
            "what others write is no shell text: {script}"
        );
        for line in script.lines().map(str::trim) {
            if line.starts_with("deploy ") {
                let read = Cli::try_parse_from(words(line));
                assert!(read.is_ok(), "{line}\n{}", read.expect_err("it"));
                count += 1;
            }
        }
    }
    assert_eq!(count, 3);
    assert!(Cli::try_parse_from(words("deploy gpu -i x --chekc > y")).is_err());
}

#[test]
fn the_scripts_are_in_form() {
    let scratch = Scratch::new();
    for script in [GITHUB, GITLAB].into_iter().flat_map(scripts_of) {
        for shell in ["sh", "bash"] {
            let mut command = scratch.command(shell);
            let said = ended(command.args(["-n", "-c", &script]).output().expect(shell));
            said.expect(0);
        }
    }
}

#[test]
fn they_are_shipped() {
    let scratch = Scratch::new();
    let listed = scratch.deploy(&["content", "list"]).expect(0).out;
    for name in ["templates/ci/github.yml", "templates/ci/gitlab.yml"] {
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
}

/// A server of comments of one request, as the program of that name asks it.
fn server(scratch: &Scratch, program: &str, text: &str) {
    let path = scratch.write(&format!("bin/{program}"), text);
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("ours");
}

fn run(scratch: &Scratch, script: &str, more: &[(&str, &str)]) -> Ended {
    let path = std::env::var("PATH").expect("a path");
    let mut command = scratch.command("bash");
    command
        .env(
            "PATH",
            format!("{}:{path}", scratch.path().join("bin").display()),
        )
        .envs(more.iter().copied())
        .current_dir(scratch.path())
        .args(["-e", "-c", script]);
    ended(command.output().expect("bash starts"))
}

#[test]
fn a_comment_is_written_once_and_then_brought_up_to_date() {
    let scratch = Scratch::new();
    scratch.write("plan.md", "the plan\n");
    server(
        &scratch,
        "gh",
        "#!/bin/sh\ncase \" $* \" in\n*' --paginate '*) [ ! -e body ] || echo 7 ;;\n*' POST repos/o/r/issues/5/comments '* | *' PATCH repos/o/r/issues/comments/7 '*)\n  echo \"$4\" >>calls; cp comment.md body ;;\n*) echo \"unexpected: $*\" >&2; exit 1 ;;\nesac\n",
    );
    let post = scripts_of(GITHUB)
        .into_iter()
        .find(|script| script.contains("gh api"));
    let post = post.expect("the script that posts");
    let known = [("GITHUB_REPOSITORY", "o/r"), ("NUMBER", "5")];
    for _ in 0..2 {
        run(&scratch, &post, &known).expect(0);
    }
    let calls = fs::read_to_string(scratch.path().join("calls")).expect("calls");
    assert_eq!(calls, "POST\nPATCH\n");
    let body = fs::read_to_string(scratch.path().join("body")).expect("a comment");
    assert_eq!(body, "<!-- deploy: GPU plan -->\nthe plan\n");
}

#[test]
fn a_plan_with_changes_is_no_failure_and_an_error_is() {
    let scratch = Scratch::new();
    let result = scripts_of(GITHUB)
        .into_iter()
        .find(|script| script.contains("case $CODE"));
    let result = result.expect("the script of the result");
    for (code, ends) in [("0", 0), ("2", 0), ("1", 1), ("5", 5)] {
        run(&scratch, &result, &[("CODE", code)]).expect(ends);
    }
}

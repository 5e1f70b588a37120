//! `--output junit`, by whole commands, against what the consumers of JUnit's reports demand of
//! a document: which elements and attributes, in which order, and that its sums agree.

use roxmltree::{Document, Node};

use crate::harness::{Ended, Scratch};

/// Attributes that an element must have, and those that it may have.
fn attributes_of(element: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match element {
        "testsuite" => (
            &[
                "name",
                "timestamp",
                "hostname",
                "tests",
                "failures",
                "errors",
                "time",
                "package",
                "id",
            ],
            &["skipped"],
        ),
        "property" => (&["name", "value"], &[]),
        "testcase" => (&["name", "classname", "time"], &[]),
        "skipped" => (&[], &["message"]),
        "failure" | "error" => (&["type"], &["message"]),
        _ => (&[], &[]),
    }
}

/// Whether a number has no more than digits and one dot.
fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Whether it is a time as the schema has it: without a zone.
fn is_time(text: &str) -> bool {
    text.parse::<jiff::civil::DateTime>().is_ok() && text.len() == "2026-11-23T12:00:00".len()
}

#[track_caller]
fn check_attributes(node: &Node<'_, '_>) {
    let name = node.tag_name().name();
    let (must, may) = attributes_of(name);
    for attribute in must {
        let value = node.attribute(*attribute);
        assert!(value.is_some(), "<{name}> has no {attribute}");
        let value = value.unwrap_or_default();
        match *attribute {
            "tests" | "failures" | "errors" | "id" => {
                assert!(value.parse::<u32>().is_ok(), "{attribute}={value}");
            }
            "time" => assert!(is_decimal(value), "{attribute}={value}"),
            "timestamp" => assert!(is_time(value), "{attribute}={value}"),
            "name" | "hostname" | "classname" | "type" => {
                assert!(!value.is_empty(), "<{name}> has an empty {attribute}");
            }
            _ => {}
        }
    }
    for found in node.attributes() {
        let known = must.iter().chain(may).any(|name| *name == found.name());
        assert!(known, "<{name}> has {}", found.name());
    }
}

fn elements<'a, 'd>(node: &Node<'a, 'd>) -> Vec<Node<'a, 'd>> {
    node.children().filter(Node::is_element).collect()
}

fn number(node: &Node<'_, '_>, attribute: &str) -> usize {
    let value = node.attribute(attribute).unwrap_or_default();
    value.parse().expect("a number")
}

/// Reads a document; fails the test unless it is one, and as it has to be.
#[track_caller]
fn read(text: &str) -> Document<'_> {
    let document = Document::parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "testsuites");
    for (id, suite) in elements(&root).iter().enumerate() {
        assert_eq!(suite.tag_name().name(), "testsuite");
        assert_eq!(number(suite, "id"), id);
        let inside = elements(suite);
        let names: Vec<&str> = inside.iter().map(|node| node.tag_name().name()).collect();
        let cases = names.iter().filter(|name| **name == "testcase").count();
        let mut order = vec!["properties"];
        order.extend(vec!["testcase"; cases]);
        order.extend(["system-out", "system-err"]);
        assert_eq!(names, order, "{text}");
        assert_eq!(number(suite, "tests"), cases);
        for (sum, element) in [
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ] {
            let found = suite
                .descendants()
                .filter(|node| node.has_tag_name(element))
                .count();
            assert_eq!(number(suite, sum), found, "{sum}");
        }
        for case in inside.iter().filter(|node| node.has_tag_name("testcase")) {
            assert_eq!(case.attribute("classname"), suite.attribute("hostname"));
            assert!(elements(case).len() <= 1, "{text}");
        }
    }
    for node in root.descendants().filter(Node::is_element) {
        check_attributes(&node);
    }
    document
}

/// Each case of a host: its name, and what it holds with its type or message.
fn cases(document: &Document<'_>, host: &str) -> Vec<(String, String)> {
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite") && node.attribute("name") == Some(host))
        .expect("the host has a suite");
    let cases = elements(&suite).into_iter();
    let cases = cases.filter(|node| node.has_tag_name("testcase"));
    cases
        .map(|case| {
            let held = elements(&case).first().map_or(String::new(), |held| {
                let more = held.attribute("type").or(held.attribute("message"));
                let more = more.unwrap_or_default();
                format!("{} {more}", held.tag_name().name())
            });
            (case.attribute("name").unwrap_or_default().to_owned(), held)
        })
        .collect()
}

struct Fleet {
    scratch: Scratch,
}

impl Fleet {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.write(
            "hosts.yml",
            "all:\n  hosts:\n    n1: {ansible_connection: sim, sim: {}}\n    gone: {ansible_host: 127.0.0.1, ansible_port: 1}\n",
        );
        let fleet = Self { scratch };
        fleet.play("{argv: ['true'], undo: 'true'}");
        fleet
    }

    /// A playbook with a file and a command behind it.
    fn play(&self, command: &str) {
        self.scratch.write(
            "site.yml",
            &format!("- hosts: all\n  tasks:\n    - copy: {{content: \"one\\n\", dest: /etc/word}}\n    - command: {command}\n"),
        );
    }

    fn deploy(&self, verb: &[&str], more: &[&str]) -> Ended {
        let hosts = self.path("hosts.yml");
        let words = [verb, &["-i", &hosts, "--output", "junit"], more].concat();
        self.scratch.deploy(&words)
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }
}

#[test]
fn a_run_is_a_document_for_a_build_server() {
    let fleet = Fleet::new();
    let site = fleet.path("site.yml");
    let run = ["run", site.as_str()];

    let checked = fleet.deploy(&run, &["--check"]).expect(4);
    let document = read(&checked.out);
    let of_host = cases(&document, "n1");
    assert_eq!(
        of_host[0],
        (
            "write /etc/word".to_owned(),
            "skipped would be made".to_owned()
        )
    );
    assert_eq!(of_host.last(), Some(&("host".to_owned(), String::new())));
    let gone = [("host".to_owned(), "error unreachable".to_owned())];
    assert_eq!(cases(&document, "gone"), gone);

    let done = fleet.deploy(&run, &["--yes", "-l", "n1"]).expect(0);
    let document = read(&done.out);
    assert!(
        cases(&document, "n1")
            .iter()
            .all(|(_, held)| held.is_empty())
    );
    let runs = fleet
        .scratch
        .deploy(&["runs", "-l", "n1", "-i", &fleet.path("hosts.yml")]);
    let property = document
        .descendants()
        .find(|node| node.attribute("name") == Some("run"));
    let id = property
        .and_then(|node| node.attribute("value"))
        .expect("a run");
    assert!(runs.out.contains(id), "{}", runs.all());
}

#[test]
fn what_a_failed_step_says_is_kept_and_breaks_nothing() {
    let fleet = Fleet::new();
    fleet.play(r#"sh -c "printf '\033[31m<no>&room]]>\n' >&2; exit 3""#);
    let site = fleet.path("site.yml");
    let failed = fleet
        .deploy(&["run", &site], &["--yes", "-l", "n1"])
        .expect(3);
    let document = read(&failed.out);
    let of_host = cases(&document, "n1");
    assert_eq!(of_host[0].1, "skipped undone", "{}", failed.all());
    assert_eq!(of_host[1].1, "failure failed", "{}", failed.all());
    assert_eq!(of_host[2].1, "failure rolled_back", "{}", failed.all());
    assert!(
        failed.out.contains("[31m&lt;no&gt;&amp;room]]&gt;"),
        "{}",
        failed.out
    );
}

#[test]
fn drift_and_saved_plans_are_told_so_too() {
    let fleet = Fleet::new();
    let (site, hosts) = (fleet.path("site.yml"), fleet.path("hosts.yml"));
    let plan = fleet.path("plan");
    let of_host = ["run", site.as_str(), "-i", &hosts, "-l", "n1"];
    let saved = [&of_host[..], &["--check", "--out", &plan]].concat();
    fleet.scratch.deploy(&saved).expect(2);
    let applied = fleet.scratch.deploy(&["apply", &plan, "--output", "junit"]);
    read(&applied.expect(0).out);
    let again = fleet.scratch.deploy(&["apply", &plan, "--output", "junit"]);
    let again = again.expect(1);
    let document = read(&again.out);
    assert_eq!(cases(&document, "deploy")[0].1, "error refused");

    let drift = ["drift", site.as_str()];
    let quiet = fleet.deploy(&drift, &["-l", "n1"]).expect(0);
    assert!(!quiet.out.contains("<failure"), "{}", quiet.all());
    fleet.scratch.write(
        "site.yml",
        "- hosts: all\n  tasks:\n    - copy: {content: \"two\\n\", dest: /etc/word}\n",
    );
    let found = fleet.deploy(&drift, &["-l", "n1"]);
    let document = read(&found.out);
    assert_eq!(
        cases(&document, "n1")[0].1,
        "failure pending",
        "{}",
        found.all()
    );
}

#[test]
fn what_is_wrong_before_any_host_is_a_document_too() {
    let fleet = Fleet::new();
    fleet
        .scratch
        .write("site.yml", "- hosts: all\n  tasks:\n    - nonsense: {}\n");
    let site = fleet.path("site.yml");
    let run = fleet.deploy(&["run", &site], &["--check"]).expect(1);
    let apply = fleet
        .scratch
        .deploy(&["apply", &site, "--output=junit"])
        .expect(1);
    for refused in [run, apply] {
        let document = read(&refused.out);
        let held = [("host".to_owned(), "error refused".to_owned())];
        assert_eq!(cases(&document, "deploy"), held, "{}", refused.all());
    }
}

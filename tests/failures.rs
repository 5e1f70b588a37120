//! Lists of what goes wrong: each row a report or a case of the domain's pages, what brings it
//! about on a simulated host, and the tests that show what `deploy` says then and that nothing
//! was lost. A number without a row, a cause that cannot be brought about or a test that is not
//! there fails.

use std::fs;

use crate::harness::Scratch;

/// How a failure is brought about.
pub(crate) enum Cause {
    /// The words of `deploy sim break`.
    Fault(&'static [&'static str]),
    /// What the host is: a key and value of `sim`.
    Host(&'static str),
    /// What a user wrote, or what its tests bring about on slices that they make first.
    Written(&'static str),
}

/// Number, report, cause, and the tests as `file::function`.
pub(crate) type Row = (u8, &'static str, Cause, &'static [&'static str]);

/// Holds the numbers of a list against `1..=last`, each cause against a simulated host with
/// `cards`, and each test against the files.
#[track_caller]
pub(crate) fn hold(rows: &[Row], last: u8, cards: &str) {
    let mut numbers: Vec<u8> = rows.iter().map(|(number, ..)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=last).collect::<Vec<u8>>());
    let scratch = Scratch::new();
    for (number, report, cause, tests) in rows {
        assert!(!tests.is_empty(), "{number} {report}");
        let (keys, words): (&str, &[&str]) = match cause {
            Cause::Fault(words) => ("os: debian-12", words),
            Cause::Host(keys) => (keys, &["slow", "0"]),
            Cause::Written(what) => {
                assert!(!what.is_empty(), "{number} {report}");
                continue;
            }
        };
        let hosts = format!(
            "all: {{hosts: {{node1: {{ansible_connection: sim, sim: {{{cards}, {keys}}}}}}}}}\n"
        );
        let path = scratch.write("inv/hosts.yml", &hosts).display().to_string();
        let mut call = vec!["sim", "break", "-i", path.as_str(), "node1"];
        call.extend_from_slice(words);
        scratch.deploy(&call).expect(0);
    }
    for test in rows.iter().flat_map(|(.., tests)| *tests) {
        is_a_test(test);
    }
}

/// Fails unless there is a test of this name: `file::function` of this folder, or the path of a
/// file of the sources before `::`.
#[track_caller]
pub(crate) fn is_a_test(name: &str) {
    let (file, function) = name.split_once("::").expect("file::function");
    let path = match file.strip_suffix(".rs") {
        Some(_) => file.to_owned(),
        None => format!("tests/{file}.rs"),
    };
    let text = fs::read_to_string(path).expect("a file of tests");
    let line = format!("fn {function}(");
    let at = text
        .find(&line)
        .unwrap_or_else(|| panic!("{name} is not there"));
    let before: Vec<&str> = text[..at].lines().rev().take(3).collect();
    let is_test = |line: &&str| line.contains("test]") || line.contains("::test(");
    assert!(before.iter().any(is_test), "{name} is no test");
}

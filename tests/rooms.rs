//! Which room may use which: the direction of the design, held by reading the
//! sources. A new arrow is a decision; it is made here, in sight of a reviewer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everybody may use these; they use none of ours but each other where it stands below.
const FOUNDATION: [&str; 5] = ["error", "secret", "shell", "text", "value"];

/// Room, and the rooms that it may use besides the foundation.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("secret", &[]),
    ("shell", &[]),
    ("text", &[]),
    ("value", &[]),
    ("whole_file", &[]),
    ("yaml", &[]),
    ("content", &[]),
    ("facts", &[]),
    ("step", &["facts"]),
    ("inventory", &["yaml"]),
    ("transport", &[]),
    ("manifest", &["yaml", "content"]),
    ("catalog", &["yaml", "content", "facts", "step", "manifest"]),
    ("desired", &["catalog", "facts"]),
    ("discover", &["transport", "facts", "catalog", "desired"]),
    ("strategy", &["catalog", "facts", "desired", "step"]),
    ("render", &["yaml"]),
    ("playbook", &["yaml", "render", "content"]),
    (
        "platform",
        &[
            "yaml",
            "strategy",
            "desired",
            "facts",
            "catalog",
            "render",
            "step",
            "transport",
        ],
    ),
    (
        "module",
        &[
            "platform",
            "strategy",
            "desired",
            "facts",
            "catalog",
            "render",
            "step",
            "transport",
            "content",
            "playbook",
        ],
    ),
    (
        "plan",
        &[
            "playbook",
            "module",
            "platform",
            "render",
            "strategy",
            "desired",
            "facts",
            "catalog",
            "step",
            "transport",
            "content",
        ],
    ),
    ("diff", &["plan", "step", "catalog"]),
    ("saved", &["plan", "step", "facts", "desired", "transport"]),
    ("drift", &["desired", "plan", "step"]),
    ("apply", &["plan", "step", "transport", "event"]),
    ("event", &["drift", "facts", "plan", "step", "transport"]),
    ("fleet", &[]),
    ("history", &["step", "whole_file"]),
    ("notify", &["desired", "history", "render"]),
    (
        "report",
        &[
            "event", "diff", "drift", "step", "plan", "saved", "history", "catalog",
        ],
    ),
    ("sim", &["facts"]),
    ("schedule", &["content", "render", "manifest", "yaml"]),
    // The top: may use everything.
    ("cli", &["*"]),
];

#[test]
fn rooms_use_each_other_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources(Path::new("src")) {
        let room = room_of(&file);
        if room == "lib" || room == "main" {
            continue;
        }
        let Some(may_use) = allowed.get(room.as_str()) else {
            wrong.push(format!(
                "{}: room `{room}` is in no row of ARROWS",
                file.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file is readable text");
        for (line, used) in uses(&text) {
            let fine = used == room
                || FOUNDATION.contains(&used.as_str())
                || may_use.contains(&used.as_str())
                || may_use.contains(&"*");
            if !fine {
                wrong.push(format!("{}:{line}: `{room}` uses `{used}`", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows against the design:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_arrow_is_used() {
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).expect("a source file is readable text");
        used.extend(uses(&text).into_iter().map(|(_, to)| (room_of(&file), to)));
    }
    for (room, may_use) in ARROWS {
        for to in may_use.iter().filter(|to| **to != "*") {
            let arrow = ((*room).to_owned(), (*to).to_owned());
            assert!(used.contains(&arrow), "`{room}` does not use `{to}`");
        }
    }
}

#[test]
fn the_arrows_form_no_circle() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for start in allowed.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = allowed[start].to_vec();
        while let Some(room) = next.pop() {
            if reached.insert(room) {
                next.extend(allowed.get(room).copied().unwrap_or_default());
            }
        }
        assert!(!reached.contains(start), "`{start}` reaches itself");
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let main = fs::read_to_string("tests/main.rs").expect("tests/main.rs is readable");
    for entry in fs::read_dir("tests").expect("tests/ is readable") {
        let path = entry.expect("a readable folder").path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|e| e == "rs") && stem != "main" {
            let line = format!("mod {stem};");
            assert!(main.contains(&line), "tests/main.rs lacks `{line}`");
        }
    }
}

#[test]
fn only_report_and_the_simulator_write_to_the_terminal() {
    let mut wrong = Vec::new();
    for file in sources(Path::new("src")) {
        if matches!(room_of(&file).as_str(), "report" | "sim") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file is readable text");
        for (number, line) in production(&text) {
            if [
                "println!",
                "eprintln!",
                "print!(",
                "eprint!(",
                "io::stdout()",
                "io::stderr()",
            ]
            .iter()
            .any(|word| line.contains(word))
            {
                wrong.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "printing outside report:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn secrets_are_revealed_only_on_the_way_to_a_host_or_a_webhook() {
    let rooms: BTreeSet<String> = sources(Path::new("src"))
        .into_iter()
        .filter(|file| {
            let text = fs::read_to_string(file).expect("a source file is readable text");
            production(&text).any(|(_, line)| line.contains(".reveal()"))
        })
        .map(|file| room_of(&file))
        .collect();
    let expected: BTreeSet<String> = ["notify", "secret", "transport"].map(str::to_owned).into();
    assert!(
        rooms.is_subset(&expected),
        "secrets are revealed in {rooms:?}, expected at most {expected:?}"
    );
}

/// All `.rs` files below a folder, without those that only hold tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("tests run in the crate's folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "tests") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if stem != "tests" && !stem.ends_with("_tests") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// `src/plan/file.rs` and `src/plan.rs` are both room `plan`.
fn room_of(file: &Path) -> String {
    let inner = file.strip_prefix("src").expect("the file is below src");
    let first = inner.components().next().expect("a file has a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

/// The lines that are no comment, numbered from 1, up to a test module that is written
/// out; one that lies in a file of its own (`mod tests;`) ends nothing.
fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| {
        pair[0].trim_start().starts_with("#[cfg(test)]") && pair[1].trim_end().ends_with('{')
    };
    let end = lines.windows(2).position(opens_tests);
    let end = end.unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Rooms named by `crate::…` paths in the production half of a file.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in production(text) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if rest.starts_with('{') {
                found.push((
                    number,
                    "a brace list: write one `use crate::room` a line".to_owned(),
                ));
                continue;
            }
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            found.push((number, name));
        }
    }
    found
}

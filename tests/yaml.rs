//! YAML as PyYAML 6.0.3 reads and writes it: the fixtures were written by
//! `fixtures/yaml/make.py`.

use std::fs;
use std::path::Path;

use deploy::value::{Node, Value};
use deploy::yaml;
use deploy::yaml::emit::{self, Layout};
use serde_json::{Value as Json, json};

fn fixture(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/yaml")
        .join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("the fixture is there")).expect("JSON")
}

fn load(text: &str) -> (Option<Node>, String) {
    let (node, problems) = yaml::load(Path::new("t.yml"), text);
    (node, problems.to_string())
}

/// A value with the kind of each scalar, as the fixtures write it.
fn shown(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!({ "int": value.to_string() }),
        Value::Float(value) => json!({ "float": emit::python_float(*value) }),
        Value::Str(text) => json!({ "str": text }),
        Value::Tagged(tag, text) => json!({ format!("{tag:?}"): text }),
        Value::Seq(nodes) => nodes.iter().map(shown).collect(),
        Value::Map(map) => {
            let entries: Vec<Json> = map
                .iter()
                .map(|(key, entry)| json!([{ "str": key }, shown(&entry.node)]))
                .collect();
            json!({ "map": entries })
        }
    }
}

#[test]
fn every_scalar_is_what_pyyaml_makes_of_it() {
    let table = fixture("scalars.json");
    assert!(table.len() > 4000);
    let mut wrong = Vec::new();
    for row in &table {
        let text = row[0].as_str().expect("a text");
        let (node, problems) = load(&format!("k: {text}\n"));
        let Some(node) = node else {
            wrong.push(format!("{text}: {problems}"));
            continue;
        };
        let node = &node.as_map().expect("a mapping")["k"].node;
        let found = shown(node);
        let same = match (&found, &row[1]) {
            // A time is a text for us, the one that Ansible prints.
            (found, wanted) if wanted.get("time").is_some() => found["str"] == wanted["time"],
            // What does not fit is a text of the same digits.
            (found, wanted) if wanted.get("int").is_some() && found.get("str").is_some() => {
                found["str"] == wanted["int"]
            }
            (found, wanted) => found == wanted,
        };
        if !same {
            wrong.push(format!("{text}: {found}, not {}", row[1]));
        }
        let written = &node.origin.source.text[node.origin.span.clone()];
        assert_eq!(written, text, "the place of the value");
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        table.len(),
        wrong.join("\n")
    );
}

/// Keys of mappings become texts here, and merge keys put theirs first.
fn comparable(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(comparable).collect(),
        Json::Object(map) if map.contains_key("map") => {
            let entries = map["map"].as_array().into_iter().flatten();
            entries
                .map(|entry| json!([entry[0], comparable(&entry[1])]))
                .collect()
        }
        other => other.clone(),
    }
}

#[test]
fn every_document_is_what_pyyaml_makes_of_it() {
    for row in fixture("documents.json") {
        let text = row[0].as_str().expect("a text");
        let (node, problems) = load(text);
        // The parser lets tabs stand before the first key.
        if row[1].get("error").is_some() && text != "\ta: 1\n" {
            assert!(node.is_none(), "PyYAML refuses {text:?}, we read {node:?}");
            assert!(
                problems.starts_with("t.yml:"),
                "{text:?}: no place in {problems:?}"
            );
            continue;
        }
        let found = node.as_ref().map_or(Json::Null, shown);
        if text == "\ta: 1\n" {
            assert_eq!(found, json!({ "map": [[{ "str": "a" }, { "int": "1" }]] }));
            continue;
        }
        // Not read, and said so: a list that contains itself, keys that are lists, a tab behind `:`.
        if text.contains("&x [*x]")
            || text.contains("? [c]")
            || text.starts_with("[a]:")
            || text == "a:\tb\n"
        {
            assert!(node.is_none(), "{text:?}");
            continue;
        }
        assert_eq!(
            comparable(&found),
            comparable(&row[1]),
            "{text:?}: {problems}"
        );
    }
}

#[test]
fn every_value_is_written_as_pyyaml_writes_it() {
    let table = fixture("emit.json");
    assert!(table.len() > 900);
    let mut wrong = Vec::new();
    for row in &table {
        for (layout, wanted) in [(Layout::Terse, &row[1]), (Layout::Nice, &row[2])] {
            let text = emit::to_yaml(&row[0], layout);
            if Some(text.as_str()) != wanted.as_str() {
                wrong.push(format!(
                    "{layout:?} {}\n  ours {text:?}\n  wanted {wanted}",
                    row[0]
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}

#[test]
fn what_is_written_is_read_back() {
    for row in fixture("emit.json") {
        for layout in [Layout::Terse, Layout::Nice] {
            let text = emit::to_yaml(&row[0], layout);
            // A line break to YAML 1.1 that libyaml leaves unescaped, and a letter to the parser.
            if text.contains('\u{2028}') {
                continue;
            }
            let (node, problems) = load(&text);
            let read = node.map_or(Json::Null, |node| node.to_json());
            assert_eq!(sorted(&read), sorted(&row[0]), "{text:?}: {problems}");
        }
    }
}

fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(map) => {
            let mut entries: Vec<_> = map
                .iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(entries.into_iter().collect())
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn syntax_errors_have_a_place_and_advice() {
    let cases = [
        ("a: {{ b }}\n", "t.yml:1:4", "must be quoted"),
        ("a:\n  - name: x\n\tb: 1\n", "t.yml:3:", "spaces"),
        ("a: b: c\n", "t.yml:1:5", "must be quoted"),
        ("a: \"x\" y\n", "t.yml:1:", "quote the whole value"),
        ("a: @x\n", "t.yml:1:4", "must be quoted"),
        ("a: 1\n---\nb: 2\n", "t.yml:2:1", "a second document"),
        ("a: 1\n b: 2\n", "t.yml:2:", "indentation"),
        ("a: *no\n", "t.yml:1:4", "no anchor"),
        ("a: !valut x\n", "t.yml:1:", "did you mean `!vault`?"),
        ("é: ü\nx: !nope ü\n", "t.yml:2:", "`!nope`"),
    ];
    for (text, place, advice) in cases {
        let (node, problems) = load(text);
        assert!(node.is_none(), "{text:?}");
        assert!(
            problems.starts_with(place) && problems.contains(advice),
            "{text:?}: {problems}"
        );
    }
}

#[test]
fn a_key_that_is_written_twice_is_a_warning_with_both_places() {
    let (node, problems) = yaml::load(Path::new("t.yml"), "a: 1\nb: 2\na: 3\n");
    let node = node.expect("a warning only");
    assert_eq!(node.as_map().expect("a mapping")["a"].node.to_json(), 3);
    assert_eq!(problems.0.len(), 1);
    assert_eq!(problems.0[0].origin.as_ref().expect("a place").line, 3);
    assert_eq!(problems.0[0].related[0].0.line, 1);
}

#[test]
fn bombs_and_depths_end_early() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"));
    }
    let (node, problems) = load(&bomb);
    assert!(
        node.is_none() && problems.contains("expand to more than"),
        "{problems}"
    );
    for deep in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(5000),
        "a:\n".to_owned() + &"? ".repeat(50_000),
    ] {
        let (node, problems) = load(&deep);
        assert!(node.is_none() && !problems.is_empty());
    }
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..300 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let (node, problems) = load(&chain);
    assert!(node.is_none() && problems.contains("deep"), "{problems}");
}

#[test]
fn large_files_are_refused() {
    let text = "#".repeat(yaml::MAX_BYTES + 1);
    let (node, problems) = load(&text);
    assert!(node.is_none() && problems.contains("too large"));
}

#[test]
fn places_are_right_behind_other_characters() {
    // Longer than the stride in which character offsets are remembered.
    let comment = "# ünïcödé\r\n".repeat(20);
    let text = format!("{comment}schlüssel: \"wért\"\r\n日本: 語\nlast: ende\n");
    let (node, problems) = load(&text);
    let node = node.expect(&problems);
    for (key, entry) in node.as_map().expect("a mapping") {
        let source = &entry.key.source.text;
        assert_eq!(&source[entry.key.span.clone()], key);
        let value = &source[entry.node.origin.span.clone()];
        assert_eq!(
            value.trim_matches('"'),
            entry.node.as_str().expect("a text")
        );
    }
}

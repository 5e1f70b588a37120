//! Lines of JSON output against the published schemas, the sums against what was told before
//! them, and the exit code of the process against the sums.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::sync::OnceLock;

use deploy::report::line::Kind;
use deploy::report::schema;
use jsonschema::Validator;
use serde_json::Value;

use crate::harness::Scratch;

/// The words under which a summary counts hosts; each is the outcome of a host, too.
const OUTCOMES: [&str; 11] = [
    "ok",
    "changed",
    "failed",
    "unreachable",
    "rolled_back",
    "stuck",
    "unconfirmed",
    "locked",
    "stale",
    "left",
    "skipped",
];

/// Whether a command line asks for lines: `inventory` prints what Ansible does instead.
pub(crate) fn asked_for(words: &[&OsStr]) -> bool {
    let is_json = |two: &[&OsStr]| two[0] == "--output" && two[1] == "json";
    let asked = words.windows(2).any(is_json) || words.iter().any(|word| *word == "--output=json");
    asked && !words.iter().any(|word| *word == "inventory")
}

/// Whether output is in lines.
pub(crate) fn are(out: &str) -> bool {
    out.starts_with("{\"type\":")
}

/// Whether all lines are in form, and what they tell fits the code with which the process
/// ended; -1 is one that was killed, and may have told less.
pub(crate) fn check(out: &str, code: i32) -> Result<(), String> {
    let whole = match (code, out.rfind('\n')) {
        (-1, Some(end)) => &out[..=end],
        (-1, None) => "",
        _ => out,
    };
    let lines: Vec<Value> = whole.lines().map(in_form).collect::<Result<_, _>>()?;
    if code == -1 {
        return Ok(());
    }
    let Some((summary, told)) = lines.split_last() else {
        return Err("there is no line".to_owned());
    };
    if summary["type"] != "summary" || told.iter().any(|line| line["type"] == "summary") {
        return Err("the last line, and only that, is a summary".to_owned());
    }
    if summary["exit"] != code {
        return Err(format!("the process ended with {code}: {summary}"));
    }
    sums(summary, told)
}

/// The same of lines that were kept, which say themselves how the process ended.
pub(crate) fn check_told(told: &str) -> Result<(), String> {
    let last: Value = told
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_default();
    let code = last["exit"]
        .as_i64()
        .and_then(|code| i32::try_from(code).ok());
    check(told, code.unwrap_or(-1))
}

/// One line that its schema allows.
fn in_form(text: &str) -> Result<Value, String> {
    let line: Value = serde_json::from_str(text).map_err(|why| format!("{why}: {text}"))?;
    let word = line["type"].as_str().unwrap_or_default();
    let Some(kind) = Kind::named(word) else {
        return Err(format!("no schema for the type `{word}`: {text}"));
    };
    let wrong: Vec<String> = validators()[&kind]
        .iter_errors(&line)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    match wrong.is_empty() {
        true => Ok(line),
        false => Err(format!("{text}\nis not as its schema says: {wrong:#?}")),
    }
}

fn validators() -> &'static HashMap<Kind, Validator> {
    static ALL: OnceLock<HashMap<Kind, Validator>> = OnceLock::new();
    ALL.get_or_init(|| {
        let validator = |kind| {
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            let made = options.build(&schema::of(kind));
            (kind, made.expect("a schema in form"))
        };
        Kind::ALL.into_iter().map(validator).collect()
    })
}

/// Whether the sums are those of what was told.
fn sums(summary: &Value, told: &[Value]) -> Result<(), String> {
    let count = |word: &str| summary[word].as_u64().unwrap_or_default();
    let of = |line: &Value| line["host"].as_str().map(str::to_owned);
    let ends = told.iter().filter(|line| line["type"] == "host_end");
    // Of a host that ended twice, because what was done was taken back, the last counts.
    let ends: HashMap<_, _> = ends.map(|line| (of(line), &line["outcome"])).collect();
    let mut sum = 0;
    for word in OUTCOMES {
        let hosts = ends.values().filter(|outcome| **outcome == word).count() as u64;
        sum += count(word);
        if hosts != count(word) {
            return Err(format!("{hosts} hosts ended as {word}: {summary}"));
        }
    }
    if sum != count("hosts") {
        return Err(format!("the sum is {sum}: {summary}"));
    }
    for (word, side) in [("drifted", "to_applied"), ("pending", "to_wanted")] {
        let drift = told.iter().filter(|line| line["type"] == "drift");
        let counted = drift.filter(|line| line["status"] != "ignored" && !line[side].is_null());
        let hosts = counted.map(of).collect::<HashSet<_>>().len() as u64;
        if hosts != count(word) {
            return Err(format!("{hosts} hosts are {word}: {summary}"));
        }
    }
    Ok(())
}

const SUMMARY: &str = r#"{"type":"summary","version":1,"hosts":1,"ok":1,"changed":0,"failed":0,"unreachable":0,"rolled_back":0,"stuck":0,"unconfirmed":0,"locked":0,"stale":0,"left":0,"skipped":0,"not_begun":[],"drifted":0,"pending":0,"exit":0}"#;
const END: &str = r#"{"type":"host_end","version":1,"host":"a","outcome":"ok"}"#;

#[test]
fn what_is_not_as_published_is_seen() {
    let good = format!("{END}\n{SUMMARY}\n");
    assert_eq!(check(&good, 0), Ok(()));
    let refused = |out: &str, code, why: &str| {
        let found = check(out, code).expect_err(why);
        assert!(found.contains(why), "{found}");
    };
    refused(&good, 3, "the process ended with 3");
    refused(SUMMARY, 0, "0 hosts ended as ok");
    refused(END, 0, "the last line");
    refused("", 0, "there is no line");
    refused(&format!("{SUMMARY}\n{good}"), 0, "and only that");
    for (from, to, why) in [
        ("host_end", "host_gone", "no schema for the type"),
        ("\"ok\"}", "\"ok\",\"more\":1}", "more"),
        ("\"outcome\":\"ok\"", "\"outcome\":\"fine\"", "fine"),
        (",\"outcome\":\"ok\"", "", "outcome"),
        ("\"version\":1", "\"version\":2", "version"),
        ("\"hosts\":1", "\"hosts\":2", "the sum is 1"),
        ("\"drifted\":0", "\"drifted\":1", "0 hosts are drifted"),
        ("\"a\"", "\"a", "column"),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good);
        refused(&wrong, 0, why);
    }
    // One that was killed is believed as far as it came.
    assert_eq!(check(&format!("{END}\n{{\"ty"), -1), Ok(()));
    refused(&format!("{}\n", END.replace("\"ok\"", "1")), -1, "outcome");
}

#[test]
fn schemas_are_printed_one_by_one_and_as_one() {
    let scratch = Scratch::new();
    let listed = scratch.deploy(&["schema"]).expect(0).out;
    let words: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(words, Kind::ALL.map(Kind::word));
    let line: Value = serde_json::from_str(END).expect("JSON");
    for word in words {
        let printed = scratch.deploy(&["schema", word]).expect(0).out;
        let schema: Value = serde_json::from_str(&printed).expect("JSON");
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{word}");
        let one = jsonschema::draft202012::new(&schema).expect("a schema");
        assert_eq!(one.is_valid(&line), word == "host_end", "{word}");
    }
    let all = scratch.deploy(&["schema", "--all"]).expect(0).out;
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert!(jsonschema::draft202012::meta::is_valid(&all));
    let all = jsonschema::draft202012::new(&all).expect("a schema");
    assert!(all.is_valid(&line));
    assert!(!all.is_valid(&serde_json::json!({"type": "host_end"})));
    let wrong = scratch.deploy(&["schema", "host_fact"]).expect(1);
    wrong.says("did you mean `host_facts`?");
}

#[test]
fn answers_without_hosts_are_lines_too() {
    let scratch = Scratch::new();
    let models = scratch.deploy(&["catalog", "--output", "json"]).expect(0);
    assert!(models.out.lines().count() > 20, "{}", models.all());
    let fit = [
        "catalog",
        "fit",
        "--gpu",
        "H100-80GB",
        "--need",
        "4x9GB,1x35GB",
    ];
    let fit = scratch
        .deploy(&[&fit[..], &["--output=json"]].concat())
        .expect(0);
    let first: Value = serde_json::from_str(fit.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["type"], "mig_layout");
    assert_eq!(first["profiles"]["1g.10gb"], 4);
    for wrong in [
        &["catalog", "H1000", "--output", "json"][..],
        &["gpu", "--output", "json", "--nonsense"],
        &["drift", "--output=json", "-i", "nowhere.yml"],
    ] {
        let ended = scratch.deploy(wrong);
        assert_ne!(ended.code, 0, "{}", ended.all());
    }
}

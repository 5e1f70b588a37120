//! `deploy discover --metrics` and `--textfile` against simulated hosts: what a monitoring
//! system reads, by a reader that takes nothing that Prometheus' format does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value as Json;

use crate::harness::Scratch;

const HOSTS: &str = "\
all:
  hosts:
    h100:
      sim: {driver: '590.48.01', gpus: [{product: H100-80GB, count: 2}]}
      containers_gpu_slicing:
        enabled: true
        strategy: mig
        mig: {profiles: [3g.40gb, 1g.10gb, 1g.10gb]}
    flex:
      sim: {gpus: [{product: Flex-170}]}
      containers_gpu_slicing: {enabled: true, strategy: sriov, sriov: {vf_count: 2}}
    web: {sim: {}}
  vars:
    ansible_connection: sim
";

/// Nobody listens on port 1.
const DEAD: &str = "\
down:
  hosts:
    dead: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
";

#[test]
fn slices_are_counted_before_and_after_an_apply() {
    let scratch = Scratch::new();
    let hosts = scratch.write("inv/hosts.yml", HOSTS).display().to_string();
    let metrics = || scratch.deploy(&["discover", "-i", &hosts, "--metrics"]);
    let before = metrics().expect(0);
    assert_eq!(before.err, "");
    for line in [
        "deploy_gpu_slices_wanted{host=\"flex\",pci=",
        "technology=\"sriov\",profile=\"vf\"} 2\n",
        "technology=\"mig\",profile=\"1g.10gb\"} 2\n",
    ] {
        assert!(before.out.contains(line), "`{line}` in {}", before.out);
    }
    let drifted = |text: &str, value: char| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("deploy_gpu_drifted{"));
        lines.filter(|line| line.ends_with(value)).count()
    };
    assert_eq!(
        (drifted(&before.out, '1'), drifted(&before.out, '0')),
        (3, 0)
    );
    scratch.deploy(&["gpu", "-i", &hosts, "--yes"]).expect(0);
    let after = metrics().expect(0).out;
    read(&after);
    assert_eq!((drifted(&after, '1'), drifted(&after, '0')), (0, 3));
    insta::assert_snapshot!(after);
}

#[test]
fn a_host_that_is_not_reached_is_down_and_one_that_is_asked_too_much_has_no_counts() {
    let scratch = Scratch::new();
    let hosts = scratch
        .write("inv/hosts.yml", &format!("{HOSTS}{DEAD}"))
        .display()
        .to_string();
    let only = scratch
        .deploy(&["discover", "-i", &hosts, "--metrics", "--limit", "web:dead"])
        .expect(4);
    assert!(only.err.contains("dead: unreachable"), "{}", only.err);
    assert!(
        only.out.contains("deploy_host_up{host=\"dead\"} 0\n")
            && only.out.contains("deploy_host_up{host=\"web\"} 1\n"),
        "{}",
        only.out
    );
    assert!(!only.out.contains("unreachable"), "{}", only.out);

    // web has no card that could have a slice.
    let asked =
        "{containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [1g.10gb]}}}";
    let file = scratch.path().join("deploy.prom");
    let to_file = format!("--metrics={}", file.display());
    let failed = scratch
        .deploy(&[
            "discover", "-i", &hosts, &to_file, "--limit", "web", "-e", asked,
        ])
        .expect(3);
    assert!(failed.err.contains("no GPU was found"), "{}", failed.err);
    assert_eq!(failed.out, "");
    let written = fs::read_to_string(&file).expect("it was written");
    assert!(
        written.contains("deploy_host_wanted_known{host=\"web\"} 0\n"),
        "{written}"
    );
}

#[test]
fn what_is_wrong_before_the_first_connection_prints_no_metrics() {
    let scratch = Scratch::new();
    let hosts = scratch.write("inv/hosts.yml", HOSTS).display().to_string();
    let wrong =
        "{containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [9g.1gb]}}}";
    let refused = scratch
        .deploy(&[
            "discover",
            "-i",
            &hosts,
            "--metrics",
            "--limit",
            "h100",
            "-e",
            wrong,
        ])
        .expect(1)
        .says("has a profile `9g.1gb`");
    assert_eq!(refused.out, "");
    scratch
        .deploy(&["discover", "-i", &hosts, "--metrics", "--output", "json"])
        .expect(1)
        .says("two forms of output");
}

/// The samples of a text in Prometheus' exposition format, by name and labels. Stricter than
/// Prometheus: each metric has its help, its type and its samples in one place, in this order.
#[track_caller]
fn read(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and a help");
            assert!(is_name(name, ":"), "{line}");
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            assert!(done.insert(name.to_owned()), "{name} comes twice");
            assert_eq!(lines.next(), Some(&*format!("# TYPE {name} gauge")));
            current = name.to_owned();
            continue;
        }
        let (series, value) = sample(line);
        let name = series.split('{').next().expect("a name");
        assert_eq!(name, current, "{line}");
        assert!(samples.insert(series, value).is_none(), "twice: {line}");
    }
    samples
}

fn is_name(text: &str, more: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    !text.is_empty() && text.chars().all(inner) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// `name{label="value",…} 1.5`
#[track_caller]
fn sample(line: &str) -> (String, f64) {
    let (name, mut rest) = line.split_once('{').expect("our samples have labels");
    assert!(is_name(name, ":"), "{line}");
    let mut labels = BTreeMap::new();
    loop {
        let (label, value) = rest.split_once("=\"").expect("a label");
        assert!(is_name(label, "") && !label.starts_with("__"), "{line}");
        let mut text = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().expect("the value has an end") {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => text.push('\n'),
                    c @ ('\\' | '"') => text.push(c),
                    other => panic!("`\\{other}` is no escape: {line}"),
                },
                (_, c) => text.push(c),
            }
        };
        assert!(labels.insert(label.to_owned(), text).is_none(), "{line}");
        rest = &value[end..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").expect("a value follows");
    let series: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let value = value.parse().expect("a number and nothing behind it");
    (format!("{name}{{{}}}", series.join(",")), value)
}

/// Two hosts with a file each, one host that nobody reaches.
fn files(scratch: &Scratch) -> [String; 2] {
    let hosts = "all:\n  hosts:\n    n1: {ansible_connection: sim, sim: {}}\n    n2: {ansible_connection: sim, sim: {}}\n";
    scratch.write("runs/hosts.yml", hosts);
    scratch.write("runs/dead.yml", DEAD);
    let play = "- hosts: all\n  tasks:\n    - {name: Say it, copy: {content: \"x\\n\", dest: /etc/word, mode: '0644'}}\n";
    let site = scratch.write("site.yml", play).display().to_string();
    [site, scratch.path().join("runs").display().to_string()]
}

#[test]
fn a_run_leaves_its_figures_in_a_file() {
    let scratch = Scratch::new();
    let [site, hosts] = files(&scratch);
    let file = scratch.path().join("deploy-fleet.prom");
    let name = file.to_str().expect("a plain path");
    let figures = |verb: &str, code: i32, more: &[&str]| {
        let words = [&[verb, &site, "-i", &hosts, "--textfile", name], more].concat();
        scratch.deploy(&words).expect(code);
        read(&fs::read_to_string(&file).expect("it was written"))
    };
    let applied = figures("run", 4, &["--yes"]);
    let of = |figures: &BTreeMap<String, f64>, verb: &str, metric: &str, more: &str| {
        let labels = format!("{more}name=deploy-fleet");
        figures
            .get(&format!("{metric}{{{labels},verb={verb}}}"))
            .or_else(|| figures.get(&format!("{metric}{{name=deploy-fleet,{more}verb={verb}}}")))
            .copied()
    };
    assert_eq!(of(&applied, "run", "deploy_run_exit_code", ""), Some(4.0));
    for (state, count) in [("changed", 2.0), ("unreachable", 1.0), ("ok", 0.0)] {
        let found = of(
            &applied,
            "run",
            "deploy_run_hosts",
            &format!("state={state},"),
        );
        assert_eq!(found, Some(count), "{state}");
    }
    assert!(
        !applied.keys().any(|series| series.contains("drift")),
        "{applied:?}"
    );
    let began = of(&applied, "run", "deploy_run_start_timestamp_seconds", "").expect("a time");
    let ended = of(&applied, "run", "deploy_run_end_timestamp_seconds", "").expect("a time");
    assert!(began > 1.7e9 && ended >= began);

    // Somebody changes a file; the second look knows since when.
    let word = crate::harness::below(&scratch.path().join("state/deploy/sim"), "n1/etc/word");
    fs::write(word, "y\n").expect("ours");
    let words = ["--every", "1h", "-l", "n1,n2"];
    let first = figures("drift", 2, &words);
    let oldest = "deploy_run_drift_oldest_timestamp_seconds";
    let since = of(&first, "drift", oldest, "").expect("it drifted");
    let second = figures("drift", 2, &words);
    assert_eq!(of(&second, "drift", oldest, ""), Some(since));
    for (kind, count) in [("drifted", 1.0), ("pending", 0.0), ("held", 0.0)] {
        let found = of(
            &second,
            "drift",
            "deploy_run_drift",
            &format!("kind={kind},"),
        );
        assert_eq!(found, Some(count), "{kind}");
    }
    assert_eq!(of(&second, "drift", "deploy_run_missed", ""), Some(0.0));
    assert_eq!(
        of(&second, "drift", "deploy_run_interval_seconds", ""),
        Some(3600.0)
    );
    let mended = figures(
        "drift",
        0,
        &[&words[..], &["--remediate", "--yes"]].concat(),
    );
    assert_eq!(of(&mended, "drift", oldest, ""), None);
    let after = figures("drift", 0, &words);
    assert_eq!(of(&after, "drift", oldest, ""), None);

    // What is refused before any host is a run as well.
    let refused = figures("run", 1, &["--yes", "-e", "[1]"]);
    assert_eq!(of(&refused, "run", "deploy_run_exit_code", ""), Some(1.0));
    let nowhere = [
        "run",
        &site,
        "-i",
        &hosts,
        "--check",
        "-l",
        "n1",
        "--textfile",
        "/nowhere/x.prom",
    ];
    scratch
        .deploy(&nowhere)
        .expect(0)
        .says("/nowhere/x.prom cannot be written");
}

/// The queries of the shipped dashboard ask for nothing that nobody tells.
#[test]
fn the_dashboard_names_metrics_that_there_are() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("content");
    let words = ["content", "export", folder.to_str().expect("a plain path")];
    scratch.deploy(&words).expect(0);
    let text = fs::read_to_string(folder.join("templates/grafana_fleet.json")).expect("shipped");
    let dashboard: Json = serde_json::from_str(&text).expect("JSON");
    let mut queries = vec![dashboard["templating"]["list"][1]["query"]["query"].clone()];
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels {
        let targets = panel["targets"].as_array().expect("queries");
        queries.extend(targets.iter().map(|target| target["expr"].clone()));
    }
    let asked: BTreeSet<String> = queries
        .iter()
        .flat_map(|query| {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let words = query.as_str().expect("a query").split(word);
            words
                .filter(|word| word.starts_with("deploy_"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(asked.len() > 10, "{asked:?}");

    let [site, hosts] = files(&scratch);
    let file = scratch.path().join("x.prom");
    let name = file.to_str().expect("a plain path");
    scratch
        .deploy(&["run", &site, "-i", &hosts, "--yes"])
        .expect(4);
    let word = crate::harness::below(&scratch.path().join("state/deploy/sim"), "n1/etc/word");
    fs::write(word, "y\n").expect("ours");
    let look = [
        "drift",
        &site,
        "-i",
        &hosts,
        "--every",
        "1h",
        "--textfile",
        name,
    ];
    scratch.deploy(&look).expect(4);
    let cards = scratch
        .write("cards/hosts.yml", HOSTS)
        .display()
        .to_string();
    scratch.deploy(&["gpu", "-i", &cards, "--yes"]).expect(0);
    let discovered = scratch
        .deploy(&["discover", "-i", &cards, "--metrics"])
        .expect(0);
    let told = fs::read_to_string(&file).expect("it was written") + &discovered.out;
    let told: BTreeSet<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    let nobody: Vec<&String> = asked.difference(&told).collect();
    assert!(nobody.is_empty(), "nobody tells {nobody:?}");
}

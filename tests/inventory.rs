//! Inventories as ansible-core 2.21.5 reads them: the fixtures were written by
//! `fixtures/inventory/make.py`, and every one is compared whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deploy::cli::inventory::{GraphVars, graph, host_json, host_text, list_json, list_text};
use deploy::inventory::{self, Inventory};
use deploy::value::HostName;
use serde_json::Value as Json;

/// Fixtures that must be there: one that was lost would otherwise pass unseen.
const CASES: usize = 55;

fn cases() -> Vec<(String, PathBuf, Json)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inventory/cases");
    let mut cases: Vec<_> = fs::read_dir(root)
        .expect("the fixtures are there")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(path.join("expected.json")).expect("expected.json");
            let expected = serde_json::from_str(&text).expect("JSON");
            (
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                path,
                expected,
            )
        })
        .collect();
    cases.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    cases
}

fn texts(json: &Json) -> Vec<String> {
    json.as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn below(folder: &Path, text: &str) -> String {
    match text.strip_prefix('@') {
        Some(file) => format!("@{}", folder.join(file).display()),
        None => text.to_owned(),
    }
}

fn load_case(folder: &Path, expected: &Json) -> Inventory {
    let sources: Vec<PathBuf> = texts(&expected["sources"])
        .iter()
        .map(|source| {
            if source.contains(',') {
                source.into()
            } else {
                folder.join(source)
            }
        })
        .collect();
    let playbook_dir = expected["playbook_dir"]
        .as_str()
        .map(|dir| folder.join(dir));
    let extra: Vec<String> = texts(&expected["extra"])
        .iter()
        .map(|extra| below(folder, extra))
        .collect();
    let (inventory, problems) = inventory::load(&sources, playbook_dir.as_deref(), &extra);
    assert!(!problems.has_errors(), "{}: {problems}", folder.display());
    inventory
}

#[test]
fn every_list_is_what_ansible_inventory_lists() {
    let cases = cases();
    assert_eq!(cases.len(), CASES);
    for (name, folder, expected) in cases {
        let inventory = load_case(&folder, &expected);
        let limit = expected["limit"]
            .as_str()
            .map(|limit| below(&folder, limit));
        let hosts = inventory
            .select("all", limit.as_deref())
            .expect("the limit is good");
        let listed = list_json(&inventory, &hosts);
        assert_eq!(listed, expected["list"], "{name}: {listed:#}");
    }
}

#[test]
fn every_graph_is_what_ansible_inventory_draws() {
    for (name, folder, expected) in cases() {
        let inventory = load_case(&folder, &expected);
        let bare = graph(&inventory, "all", GraphVars::Hidden).expect("all is there");
        assert_eq!(
            Some(bare.as_str()),
            expected["graph"].as_str(),
            "{name}\n{bare}"
        );
        let full = graph(&inventory, "all", GraphVars::Shown).expect("all is there");
        match expected["graph_vars"].as_str() {
            Some(wanted) => assert_eq!(full, wanted, "{name}\n{full}"),
            None => assert!(
                ["keys", "times", "vault-and-unsafe"].contains(&name.as_str()),
                "{name} has no graph with variables"
            ),
        }
    }
}

#[test]
fn every_pattern_selects_what_ansible_selects() {
    let mut compared = 0;
    for (name, folder, expected) in cases() {
        let Some(patterns) = expected["patterns"].as_object() else {
            continue;
        };
        let inventory = load_case(&folder, &expected);
        for (pattern, wanted) in patterns {
            let selected = inventory
                .select(pattern, None)
                .unwrap_or_else(|problems| panic!("{name} {pattern}: {problems}"));
            let mut selected: Vec<String> = selected.iter().map(ToString::to_string).collect();
            let ordered = wanted.is_array();
            if !ordered {
                selected.sort();
            }
            let wanted = texts(if ordered {
                wanted
            } else {
                &wanted["any_order"]
            });
            assert_eq!(selected, wanted, "{name} {pattern}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared} patterns");
}

/// Files in a folder of its own, for one test.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, source: &str) -> (Inventory, String) {
        let (inventory, problems) = inventory::load(&[self.path(source)], None, &[]);
        let root = format!("{}/", self.0.path().display());
        (inventory, problems.to_string().replace(&root, ""))
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_its_place() {
    let tree = Tree::new(&[
        (
            "hosts.yml",
            "all:\n  chidren:\n    a:\n  hosts:\n    1:\n    n[3:1]:\n    ok: text\n  vars: [1]\ng: text\nh:\n  hosts: [x]\n  web1:\n",
        ),
        ("group_vars/all.yml", "- 1\n"),
        ("host_vars/n1.yml", "a: [\n"),
    ]);
    let (_, problems) = tree.load("hosts.yml");
    insta::assert_snapshot!(problems);
}

#[test]
fn a_cycle_of_groups_is_an_error_at_the_child_that_closes_it() {
    let tree = Tree::new(&[(
        "h.yml",
        "a:\n  children:\n    b:\nb:\n  children:\n    c:\nc:\n  children:\n    a:\n",
    )]);
    let (_, problems) = tree.load("h.yml");
    assert_eq!(
        problems.lines().next(),
        Some("h.yml:9:5: the group `a` cannot be a child of `c`, because it contains it")
    );
    let tree = Tree::new(&[(
        "h.yml",
        "a:\n  children:\n    all:\n    a:\n  hosts: {x: }\n",
    )]);
    let (_, problems) = tree.load("h.yml");
    assert!(problems.contains("h.yml:4:5"), "{problems}");
}

#[test]
fn sources_that_are_not_read_yet_say_what_to_do() {
    let tree = Tree::new(&[
        ("hosts.ini", "[g]\na\n"),
        ("hosts", "# x\n[g]\na x=1\n"),
        ("plain", "a ansible_host=1\nb\n"),
        ("dyn.py", "#!/usr/bin/python3\n"),
        ("aws.yml", "plugin: amazon.aws.aws_ec2\n"),
        ("x.toml", "[g]\n"),
        ("secret.yml", "$ANSIBLE_VAULT;1.1;AES256\n61\n"),
    ]);
    for (file, wanted) in [
        ("hosts.ini", "INI"),
        ("hosts", "INI"),
        ("plain", "INI"),
        ("dyn.py", "script"),
        ("aws.yml", "plugin"),
        ("x.toml", "TOML"),
        ("secret.yml", "encrypted"),
    ] {
        let (inventory, problems) = tree.load(file);
        assert!(inventory.is_empty());
        assert!(
            problems.contains(wanted) && problems.contains(file),
            "{file}: {problems}"
        );
        assert!(
            problems.contains("--list --yaml") || file == "secret.yml",
            "{file}: {problems}"
        );
    }
    let (_, problems) = tree.load("missing");
    assert!(problems.contains("does not exist"), "{problems}");
}

#[test]
fn names_that_match_nothing_are_errors_with_the_nearest_name() {
    let tree = Tree::new(&[(
        "h.yml",
        "web:\n  hosts:\n    web[1:3]:\n    db-main:\nnone:\n",
    )]);
    let (inventory, _) = tree.load("h.yml");
    let error = |pattern: &str, limit: Option<&str>| match inventory.select(pattern, limit) {
        Ok(hosts) => format!("{hosts:?}"),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(
        error("all", Some("db-mian,web,wbe,!db-mainn")),
        "--limit:1:1: no host and no group matches `db-mian` (did you mean `db-main`?)\n\
         --limit:1:13: no host and no group matches `wbe` (did you mean `web`?)\n\
         --limit:1:17: no host and no group matches `db-mainn` (did you mean `db-main`?)"
    );
    assert!(error("all", Some("web9*")).contains("`web9*`"));
    assert!(error("web1:2", None).contains("port"));
    assert!(error("web[9]", None).contains("has 4"));
    assert!(error("web[7:8]", None).contains("has 4"));
    assert!(error("", None).contains("empty"));
    assert!(error("~(", None).contains("no pattern"));
    assert!(error("all", Some("@nowhere.txt")).contains("nowhere.txt"));
    assert!(error("web,&", None).contains("nothing stands behind"));
    // Known and empty is no mistake.
    assert_eq!(error("none", None), "[]");
    assert_eq!(error("web", Some("none")), "[]");
}

#[test]
fn every_value_knows_its_place_and_what_it_won_over() {
    let tree = Tree::new(&[
        (
            "hosts.yml",
            "g:\n  hosts:\n    a:\n      v: host\n      ansible_password: hunter2\n  vars:\n    v: group\n",
        ),
        ("group_vars/all.yml", "v: all\nk: {x: !vault abc}\n"),
    ]);
    let (inventory, problems) = tree.load("hosts.yml");
    assert_eq!(problems, "");
    let host = HostName::from("a");
    let text = host_text(&inventory, &host).replace(&format!("{}/", tree.0.path().display()), "");
    insta::assert_snapshot!(text);
    let json = host_json(&inventory, &host);
    assert_eq!(json["v"], "host");
    assert_eq!(json["_meta"]["origins"]["v"]["line"], 4);
    assert_eq!(
        json["_meta"]["origins"]["v"]["overrides"][0]["from"],
        "group_vars of all"
    );
    let list = list_text(&inventory, std::slice::from_ref(&host));
    assert_eq!(list, "HOST  GROUPS  ADDRESS\na     g       a\n");
}

#[test]
fn files_of_variables_with_nearly_a_name_are_doubted() {
    let tree = Tree::new(&[
        ("hosts.yml", "gpus: {hosts: {web1: }}\n"),
        ("group_vars/gpu.yml", "a: 1\n"),
        ("group_vars/gpus.yml", "a: 1\n"),
        ("group_vars/gpus.yaml", "a: 2\n"),
        ("host_vars/web2.yml", "a: 1\n"),
    ]);
    let (_, problems) = tree.load("hosts.yml");
    assert_eq!(
        problems,
        "`group_vars/gpu.yml` is not read, because no group has this name (did you mean `gpus`?)\n\
         `group_vars/gpus.yaml` is not read, because `gpus.yml` stands beside it"
    );
}

#[test]
fn localhost_needs_no_inventory_and_is_no_part_of_all() {
    let tree = Tree::new(&[("h.yml", "all: {vars: {v: 1}, hosts: {a: }}\n")]);
    let (inventory, _) = tree.load("h.yml");
    let hosts = inventory.select("localhost", None).expect("implicit");
    let vars = inventory.vars_of(&hosts[0]);
    assert_eq!(vars["ansible_connection"].as_str(), Some("local"));
    assert_eq!(vars["v"].to_json(), 1);
    let all: BTreeMap<_, _> = inventory
        .hosts()
        .map(|host| (host.to_string(), ()))
        .collect();
    assert_eq!(all.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn twenty_thousand_hosts_share_what_their_groups_give() {
    let mut text = String::from("all:\n  vars:\n    common: {a: 1}\n  children:\n");
    for group in 0..20 {
        text.push_str(&format!(
            "    g{group}:\n      vars: {{v: {group}}}\n      hosts:\n"
        ));
        for host in 0..1000 {
            text.push_str(&format!(
                "        host-{group}-{host}: {{ansible_host: 10.0.{group}.{}}}\n",
                host % 256
            ));
        }
    }
    let tree = Tree::new(&[("h.yml", &text)]);
    let (inventory, problems) = tree.load("h.yml");
    assert_eq!(problems, "");
    assert_eq!(inventory.len(), 20_000);
    let hosts = inventory.select("g7:g8", None).expect("both are there");
    assert_eq!(hosts.len(), 2000);
    let listed = list_json(&inventory, &inventory.hosts().cloned().collect::<Vec<_>>());
    assert_eq!(listed["_meta"]["hostvars"]["host-19-999"]["v"], 19);
}

mod arbitrary {
    use super::Tree;
    use deploy::inventory;
    use proptest::prelude::*;

    fn load_bytes(bytes: &[u8]) {
        let tree = Tree::new(&[]);
        for name in ["h.yml", "hosts"] {
            let path = tree.path(name);
            std::fs::write(&path, bytes).expect("a file");
            let (inventory, problems) = inventory::load(&[path], None, &[]);
            for host in inventory.hosts() {
                let _ = inventory.vars_of(host);
            }
            let _ = problems.to_string();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            load_bytes(&bytes);
        }

        #[test]
        fn pieces_of_yaml_never_panic(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "all", "hosts", "children", "vars", ":", ": ", "\n", "\n  ", "\n    ", "- ", "&a ", "*a", "<<: ", "{", "}",
                "[", "]", ",", "!vault ", "!unsafe ", "!!int ", "|", ">", "'", "\"", "#", "---\n", "...\n", "%YAML 1.1\n",
                "\t", "n[1:3]", "n[", ":22", "é", "\u{feff}", "? ", "12", "2026-01-01", "~", "@", "`", "\\", "\r\n", "\u{0}",
            ]), 0..60)) {
            load_bytes(pieces.concat().as_bytes());
        }

        #[test]
        fn patterns_and_extra_vars_never_panic(text in "[a-z0-9!&~:,\\[\\]*?@=\\\\'\"{}% é-]{0,30}") {
            let (inventory, _) = inventory::load(&["a,b,c,".into()], None, std::slice::from_ref(&text));
            let _ = inventory.select(&text, Some(&text));
        }
    }
}

#[test]
fn what_never_ends_and_what_is_no_text_are_refused_with_the_reason() {
    let scratch = crate::harness::Scratch::new();
    let refused = |path: &str, text: &str| {
        let ended = scratch.deploy(&["inventory", "list", "-i", path]);
        ended.expect(1).says(text);
    };
    refused("/dev/zero", "`/dev/zero` is too large: at most");
    let nul = scratch.write("nul.yml", "all:\n  hosts:\n    n1: {x: \"a\0b\"}\n");
    refused(&nul.display().to_string(), "this is a NUL character");
}

#[test]
fn a_function_that_there_is_none_of_is_told_by_its_name() {
    let scratch = crate::harness::Scratch::new();
    for (call, text) in [
        ("lookup('pipe', 'x')", "there is no function `lookup`"),
        ("lookpu('pipe', 'x')", "there is no function `lookpu`"),
        ("rnage(3)", "did you mean `range`?"),
    ] {
        let hosts = format!(
            "all: {{hosts: {{n1: {{ansible_connection: sim, gpu_policy: \"{{{{ {call} }}}}\"}}}}}}\n"
        );
        let path = scratch.write("hosts.yml", &hosts).display().to_string();
        let refused = scratch
            .deploy(&["gpu", "--check", "-i", &path])
            .expect(1)
            .says(text);
        assert_eq!(
            refused.err.contains("plugins are not available"),
            call.starts_with("look"),
            "{}",
            refused.all()
        );
    }
}

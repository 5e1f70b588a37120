//! Configuration files of NVIDIA's mig-parted: read as they are, planned like profiles, written
//! from what hosts have.

use std::fs;
use std::path::Path;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::{self, Desired};
use deploy::error::{Origin, Problems};
use deploy::strategy;
use deploy::value::Node;
use deploy::yaml;
use serde_json::json;

use crate::technology::Bench;

const TWO_A100: &str = "{gpus: [{product: A100-80GB, count: 2}], driver: 535.183.01}";

/// Two cards told apart by index, and all alike.
const LAYOUTS: &str = r#"version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-balanced:
    # Other products of the same family have other names.
    - device-filter: ["0x20B010DE", "0x20B110DE"]
      devices: all
      mig-enabled: true
      mig-devices: {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}
    - device-filter: ["0x20B210DE", "0x20B510DE"]
      devices: all
      mig-enabled: true
      mig-devices:
        "1g.10gb": 2
        "2g.20gb": 1
        "3g.40gb": 1
  one-whole:
    - devices: [0]
      mig-enabled: false
    - devices: [1]
      mig-enabled: true
      mig-devices:
        "1c.3g.40gb": 3
        "1g.10gb+me": 1
  all-enabled:
    - devices: all
      mig-enabled: true
      mig-devices: {}
  only-first:
    - devices: [0]
      mig-enabled: true
      mig-devices: {"7g.80gb": 1}
  twice:
    - devices: all
      mig-enabled: true
      mig-devices: {"7g.80gb": 1}
    - device-filter: "0x20B210DE"
      devices: [1]
      mig-enabled: false
"#;

fn parted(config: &str) -> String {
    format!("strategy: mig, mig: {{mig_parted: {{file: layouts.yaml, config: {config}}}}}")
}

fn bench(sim: &str) -> Option<Bench> {
    let bench = Bench::new(sim)?;
    bench.beside("layouts.yaml", LAYOUTS);
    Some(bench)
}

/// Devices of `nvidia-smi -L`, in its order; `-` for a card with none.
fn devices(bench: &Bench) -> Vec<String> {
    let mut found = Vec::new();
    let list = bench.ssh("nvidia-smi -L");
    for line in list.lines() {
        match line.trim_start().strip_prefix("MIG ") {
            None => found.push("-".to_owned()),
            Some(rest) => {
                if found.last().is_some_and(|last| last == "-") {
                    found.pop();
                }
                let name = rest.split("Device").next().unwrap_or_default();
                found.push(name.trim().to_owned());
            }
        }
    }
    found
}

#[test]
fn a_configuration_is_applied_settled_booted_changed_and_rolled_back() {
    let Some(bench) = bench(TWO_A100) else { return };
    bench.apply(&parted("one-whole"));
    let first = devices(&bench);
    assert_eq!(
        first,
        ["-", "1c.3g.40gb", "1c.3g.40gb", "1c.3g.40gb", "1g.10gb+me"]
    );
    let list = bench.ssh("nvidia-smi -L");
    bench.settled();
    bench.reboot();
    assert_eq!(bench.ssh("nvidia-smi -L"), list, "the same UUIDs");
    bench.settled();

    bench.apply(&parted("all-balanced"));
    let balanced = ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"];
    assert_eq!(devices(&bench), [balanced, balanced].concat());
    bench.settled();
    bench.rolled_back();
    assert_eq!(bench.ssh("nvidia-smi -L"), list);

    bench.apply(&parted("all-disabled"));
    assert_eq!(devices(&bench), ["-", "-"]);
    bench.settled();
}

#[test]
fn the_mode_is_on_without_instances_where_the_file_says_so() {
    let Some(bench) = bench("{gpus: [A100-80GB], driver: 535.183.01}") else {
        return;
    };
    let said = bench.apply(&parted("all-enabled"));
    said.says("MIG mode is on without any instance");
    let mode = bench.ssh("nvidia-smi --query-gpu=mig.mode.current --format=csv,noheader");
    assert_eq!(mode.trim(), "Enabled");
    assert_eq!(devices(&bench), ["-"]);
    bench.settled();
    bench.reboot();
    bench.settled();
}

#[test]
fn cards_without_mig_are_passed_over_unless_they_are_named() {
    let Some(bench) = bench("{gpus: [L40S, A100-80GB], driver: 535.183.01}") else {
        return;
    };
    bench.apply(&parted("all-balanced"));
    assert_eq!(devices(&bench).len(), 5, "{:?}", devices(&bench));
    bench.settled();
    bench
        .refused(&parted("only-first"))
        .says("L40S) has no mig");
}

#[test]
fn a_card_without_an_entry_and_one_with_two_are_refused() {
    let Some(bench) = bench(TWO_A100) else { return };
    bench
        .refused(&parted("only-first"))
        .says("`only-first` of `layouts.yaml` has no entry for GPU 1");
    bench
        .refused(&parted("twice"))
        .says("two entries of `twice` are for GPU 1")
        .says("layouts.yaml:39:7");
    assert_eq!(devices(&bench), ["-", "-"], "nothing was changed");
}

#[test]
fn what_hosts_have_is_written_and_read_back_without_a_change() {
    let sim = "{gpus: [{product: A100-80GB, count: 2}, L40S], driver: 535.183.01}";
    let Some(bench) = bench(sim) else { return };
    let each = "gpus: [{match: {index: 1}, strategy: mig, mig: {profiles: [3g.40gb, 1g.10gb, 1g.10gb], compute_instances: {3g.40gb: [2c, 1c]}}}]";
    bench.apply(each);
    let list = bench.ssh("nvidia-smi -L");

    let printed = bench.deploy(&["discover", "--mig-parted"]).expect(0).out;
    assert_eq!(
        printed,
        r#"version: v1
mig-configs:
  "node1":
    - device-filter: "0x20B210DE"
      devices: [0]
      mig-enabled: false
      mig-devices: {}
    - device-filter: "0x20B210DE"
      devices: [1]
      mig-enabled: true
      mig-devices:
        "1c.3g.40gb": 1
        "1g.10gb": 2
        "2c.3g.40gb": 1
    - device-filter: "0x26B910DE"
      devices: all
      mig-enabled: false
      mig-devices: {}
"#
    );
    let file = bench.beside("kept.yaml", "");
    let flag = format!("--mig-parted={}", file.display());
    bench.deploy(&["discover", &flag]).expect(0);
    assert_eq!(fs::read_to_string(&file).expect("it is written"), printed);

    let kept =
        "strategy: mig, mig: {mig_parted: {file: kept.yaml, config: '{{ inventory_hostname }}'}}";
    bench.want(kept);
    bench.settled();
    assert_eq!(bench.ssh("nvidia-smi -L"), list);
    // And what was taken away comes back from it.
    bench.apply("strategy: none");
    assert_eq!(devices(&bench), ["-", "-", "-"]);
    bench.apply(kept);
    assert_eq!(bench.ssh("nvidia-smi -L"), list);
}

#[test]
fn a_host_without_a_card_is_left_out_and_is_no_failure() {
    let Some(bench) = Bench::new("{gpus: []}") else {
        return;
    };
    bench.want("strategy: none");
    bench
        .deploy(&["discover", "--mig-parted"])
        .expect(0)
        .says("mig-configs: {}")
        .says("no card of NVIDIA's, so that the file says nothing of it: node1");
}

/// Each mistake is told with its place in mig-parted's file, before any connection.
#[test]
fn mistakes_are_told_before_connecting() {
    let Some(bench) = bench(TWO_A100) else { return };
    let refused = |config: &str| {
        bench.want(&parted(config));
        bench.deploy(&["gpu", "--yes"]).expect(1)
    };
    refused("all-blanced")
        .says("`layouts.yaml` has no configuration `all-blanced`")
        .says("did you mean `all-balanced`?")
        .says("hosts.yml:");
    bench.want("strategy: mig, mig: {mig_parted: {file: nowhere.yaml, config: x}}");
    bench
        .deploy(&["gpu", "--yes"])
        .expect(1)
        .says("there is no file `nowhere.yaml`");
    bench.want("strategy: mig, mig: {profiles: [7g.80gb], mig_parted: {file: layouts.yaml, config: all-disabled}}");
    bench
        .deploy(&["gpu", "--yes"])
        .expect(1)
        .says("`mig.mig_parted` and `mig.profiles` contradict each other");
    for (from, to, said, place) in [
        (
            "version: v1",
            "version: v2",
            "`version` must be `v1`",
            ":1:10",
        ),
        (
            "- devices: all\n      mig-enabled: false\n  all-b",
            "- devices: every\n      mig-enabled: false\n  all-b",
            "must be `all` or a list of indexes",
            ":4:16",
        ),
        (
            "\"2g.20gb\": 1",
            "\"2g.21gb\": 1",
            "profile `2g.21gb`",
            ":17:9",
        ),
        (
            "\"2g.20gb\": 1",
            "\"2g-20gb\": 1",
            "`2g-20gb` is not a MIG profile",
            ":17:9",
        ),
        (
            "\"2g.20gb\": 1",
            "\"2g.20gb\": some",
            "must be a whole number",
            ":17:20",
        ),
        (
            "\"3g.40gb\": 1\n  one",
            "\"3g.40gb\": 2\n  one",
            "cannot be placed",
            ":16:9",
        ),
        (
            "\"1c.3g.40gb\": 3",
            "\"1c.3g.40gb\": 4",
            "in different ways",
            ":25:9",
        ),
        (
            "mig-devices: {}",
            "mig-device: {}",
            "unknown key `mig-device`",
            ":30:7",
        ),
        (
            "\"0x20B210DE\"",
            "\"0x20B21002\"",
            "PCI device id of NVIDIA's",
            ":12:23",
        ),
    ] {
        assert!(LAYOUTS.contains(from), "{from}");
        bench.beside("layouts.yaml", &LAYOUTS.replacen(from, to, 1));
        refused("all-balanced")
            .says(said)
            .says(&format!("layouts.yaml{place}"));
    }
    let object = "apiVersion: v1\nkind: ConfigMap\ndata: {}\n";
    bench.beside("layouts.yaml", object);
    refused("all-balanced").says("this is an object of Kubernetes");
    assert!(!bench.was_reached());
}

fn wanted(text: &str, config: &str) -> (Desired, Problems) {
    let vars = json!({"containers_gpu_slicing": {
        "enabled": true, "strategy": "mig",
        "mig": {"mig_parted": {"file": "x.yaml", "config": config}},
    }});
    let origin = Origin::whole("vars.yml", vars.to_string());
    let map = Node::from_json(&vars, &origin);
    let vars = map.as_map().expect("a mapping").iter();
    let vars = vars.map(|(name, entry)| (name.clone(), entry.node.clone()));
    desired::read(&vars.collect(), &|name, _| {
        yaml::load(Path::new(name), text)
    })
}

/// NVIDIA's own files: each configuration is read, and none is refused offline.
#[test]
fn every_configuration_that_nvidia_ships_is_read() {
    let catalog = Catalog::load(&Content::shipped()).expect("the shipped catalog");
    for (file, least) in [
        ("mig-parted_config-default.yaml", 60),
        ("mig-parted_config-example.yaml", 9),
        ("mig-parted_config-deepops-example.yml", 20),
    ] {
        let path = format!("tests/fixtures/captures/nvidia/{file}");
        let text = fs::read_to_string(&path).expect("a capture");
        let (document, _) = yaml::load(Path::new(file), &text);
        let document = document.expect("it is YAML");
        let configs = document.as_map().expect("a mapping")["mig-configs"]
            .node
            .clone();
        let configs = configs.as_map().expect("a mapping");
        assert!(configs.len() >= least, "{file}: {}", configs.len());
        for (config, entry) in configs {
            let (desired, problems) = wanted(&text, config);
            assert!(!problems.has_errors(), "{file} {config}: {problems}");
            let parted = desired.slicing.default.mig.mig_parted.as_ref();
            let entries = parted.map_or(0, |parted| parted.entries.len());
            let written = entry.node.as_seq().map_or(0, <[Node]>::len);
            assert_eq!((entries, entries > 0), (written, true), "{file} {config}");
            let refused = strategy::check_offline(&desired, &catalog);
            // DeepOps' example asks for two instances of the whole card.
            let wrong =
                (file, config.as_str()) == ("mig-parted_config-deepops-example.yml", "all-7g.80gb");
            assert_eq!(refused.has_errors(), wrong, "{file} {config}: {refused}");
        }
    }
}

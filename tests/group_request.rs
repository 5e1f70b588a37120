//! `request_group`: totals of a group over all cards of all its hosts, by whole commands on
//! simulated hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::harness::{Ended, Scratch};

/// Three hosts with two cards each; a card holds four of the smallest instance.
struct Fleet {
    scratch: Scratch,
}

const CARDS: u32 = 2;

impl Fleet {
    fn new() -> Self {
        Self {
            scratch: Scratch::new(),
        }
    }

    /// Makes these the totals; YAML on one line.
    fn want(&self, request: &str) {
        self.write(&format!("request_group: a30, request: {{{request}}}"), "");
    }

    /// Makes these the group's values; `more` are further lines of the first host.
    fn write(&self, slicing: &str, more: &str) {
        let text = format!(
            "a30:\n  hosts:\n    n1: {{{more}}}\n    n2:\n    n3:\n  vars:\n    \
             ansible_connection: sim\n    \
             sim: {{driver: 535.183.01, gpus: [{{product: A30-24GB, count: {CARDS}}}]}}\n    \
             containers_gpu_slicing: {{enabled: true, strategy: mig, {slicing}}}\n\
             spare:\n  hosts:\n    other: {{ansible_connection: sim, sim: {{}}}}\n"
        );
        self.scratch.write("inv/hosts.yml", &text);
    }

    fn deploy(&self, args: &[&str]) -> Ended {
        let hosts = self.scratch.path().join("inv/hosts.yml");
        let hosts = hosts.display().to_string();
        self.scratch.deploy(&[args, &["-i", &hosts]].concat())
    }

    #[track_caller]
    fn apply(&self) -> Ended {
        self.deploy(&["gpu", "--yes"]).expect(0)
    }

    /// The instances of each host as discovery sees them: profile and UUID.
    fn found(&self) -> BTreeMap<String, Vec<(String, String)>> {
        let seen = self.deploy(&["discover", "--output", "json"]).expect(0).out;
        let mut found = BTreeMap::new();
        for line in seen.lines() {
            let object: Json = serde_json::from_str(line).expect("an object a line");
            let Some(gpus) = object["facts"]["gpus"].as_array() else {
                continue;
            };
            let mut instances = Vec::new();
            for gpu in gpus {
                let mig = &gpu["nvidia"]["known"]["mig"]["known"];
                for instance in mig["instances"]["known"].as_array().into_iter().flatten() {
                    let profile = instance["profile"].as_str().expect("a name").to_owned();
                    let device = &instance["compute"]["known"][0]["uuid"]["known"];
                    instances.push((profile, device.as_str().expect("a UUID").to_owned()));
                }
            }
            let host = object["host"].as_str().expect("a host").to_owned();
            found.insert(host, instances);
        }
        found
    }

    /// How many there are of a profile on all hosts.
    fn count(&self, profile: &str) -> usize {
        let found = self.found();
        let all = found.values().flatten();
        all.filter(|(name, _)| name == profile).count()
    }

    fn uuids(&self) -> BTreeSet<String> {
        let found = self.found().into_values().flatten();
        found.map(|(_, uuid)| uuid).collect()
    }
}

#[test]
fn totals_are_spread_over_all_hosts_and_a_small_change_moves_little() {
    let fleet = Fleet::new();
    fleet.want("1g.6gb: 9, 2g.12gb: 5");
    fleet
        .deploy(&["gpu", "--check"])
        .expect(2)
        .says("request of group `a30`, where most can stay as it is:\n  n1 gets ")
        .says("note: group `a30` spreads its request over its 3 hosts");
    assert_eq!(fleet.uuids().len(), 0, "only looked at");
    fleet.apply().says("changed=3 failed=0");
    assert_eq!((fleet.count("1g.6gb"), fleet.count("2g.12gb")), (9, 5));
    let before = fleet.uuids();
    let again = fleet.apply().says("changed=0 failed=0");
    assert!(!again.err.contains("request of group"), "{}", again.all());

    // One more: it comes beside the others, and one host hears of it.
    fleet.want("1g.6gb: 10, 2g.12gb: 5");
    fleet
        .apply()
        .says("changed=1 failed=0")
        .says("2 hosts stay as they are");
    assert_eq!((fleet.count("1g.6gb"), fleet.count("2g.12gb")), (10, 5));
    assert!(before.is_subset(&fleet.uuids()), "nobody had to move");

    // One fewer of the others: it goes, and nobody else does.
    let before = fleet.uuids();
    fleet.want("1g.6gb: 10, 2g.12gb: 4");
    fleet.apply().says("changed=1 failed=0");
    assert_eq!((fleet.count("1g.6gb"), fleet.count("2g.12gb")), (10, 4));
    assert_eq!(before.difference(&fleet.uuids()).count(), 1);
    fleet.apply().says("changed=0 failed=0");
}

#[test]
fn a_host_that_is_down_keeps_the_totals_from_being_spread() {
    let fleet = Fleet::new();
    let slicing = "request_group: a30, request: {1g.6gb: 9}";
    // Nobody listens on port 1.
    fleet.write(
        slicing,
        "ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1",
    );
    let ended = fleet.deploy(&["gpu", "--yes"]).expect(3);
    assert!(
        ended
            .out
            .contains("ok=1 changed=0 failed=2 unreachable=1 rolled-back=0"),
        "{}",
        ended.all()
    );
    let ended = ended
        .says("the `request` of group `a30` cannot be spread: what slices these of its hosts have now is not known: n1 (it is unreachable: ")
        .says("bring them back and run again")
        .says("`containers_gpu_slicing: {enabled: false}`");
    assert!(!ended.out.contains("~ "), "{}", ended.all());
    // The way out that the message names.
    fleet.write(
        slicing,
        "ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1, \
         containers_gpu_slicing: {enabled: false}",
    );
    fleet
        .deploy(&["gpu", "--yes"])
        .expect(4)
        .says("ok=1 changed=2 failed=0 unreachable=1");
}

#[test]
fn a_limit_applies_some_shares_and_says_what_is_missing() {
    let fleet = Fleet::new();
    fleet.want("1g.6gb: 20");
    let limited = fleet.deploy(&["gpu", "--yes", "--limit", "n2"]).expect(0);
    let limited = limited
        .says("hosts=1 ok=0 changed=1")
        .says(", and is left out by --limit")
        .says(
            "the group has its totals only when n1, n3 are applied too, which --limit leaves out",
        );
    let found = fleet.found();
    let of = |host: &str| found[host].len();
    assert_eq!((of("n1"), of("n3")), (0, 0), "{}", limited.all());
    let share = of("n2");
    assert!((4..=8).contains(&share), "{share}");
    // The others get theirs, and the first is left alone.
    fleet
        .apply()
        .says("n1: changed")
        .says("n3: changed")
        .says("ok=2 changed=2");
    assert_eq!(fleet.count("1g.6gb"), 20);
    assert_eq!(fleet.found()["n2"].len(), share);
    fleet
        .deploy(&["gpu", "--yes", "--limit", "n2"])
        .expect(0)
        .says("changed=0");
}

#[test]
fn totals_that_cannot_be_are_refused() {
    let fleet = Fleet::new();
    let said = |slicing: &str, more: &str, code: i32, words: &[&str]| {
        fleet.write(slicing, more);
        let mut ended = fleet.deploy(&["gpu", "--yes"]).expect(code);
        for word in words {
            ended = ended.says(word);
        }
    };
    said(
        "request_group: a300, request: {1g.6gb: 9}",
        "",
        1,
        &["there is no group `a300`", "did you mean `a30`?"],
    );
    said(
        "request_group: spare, request: {1g.6gb: 9}",
        "",
        1,
        &["`n1` is not in the group `spare`"],
    );
    said(
        "request_group: a30",
        "",
        1,
        &["`request_group` without `request` spreads nothing"],
    );
    said(
        "request_group: a30, request: {1g.6gb: 9}",
        "containers_gpu_slicing: {enabled: true, strategy: mig, request_group: a30, request: {1g.6gb: 8}}",
        1,
        &[
            "`n1` and `n2` want different totals of the group `a30`",
            "these are the totals of `n2`",
        ],
    );
    said(
        "request_group: a30, request: {1g.6gb: 17, 2g.12gb: 4}",
        "",
        3,
        &[
            "17 × 1g.6gb + 4 × 2g.12gb do not fit on the 6 cards of group `a30`",
            "at most 16 × 1g.6gb, or 3 × 2g.12gb fit",
        ],
    );
    assert_eq!(fleet.uuids().len(), 0, "nothing was done");
}

#[test]
fn a_single_host_is_rendered_and_counted_with_its_share() {
    let fleet = Fleet::new();
    fleet.want("1g.6gb: 20");
    let words = ["render", "--host", "n2", "--template", "mig_config.j2"];
    let rendered = fleet.deploy(&words).expect(0).out;
    let wanted = rendered.matches(" 14:").count();
    let metrics = fleet.deploy(&["discover", "--metrics"]).expect(0).out;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("deploy_gpu_slices_wanted{"));
    let counts: Vec<(bool, usize)> = lines
        .map(|line| {
            let (labels, count) = line.rsplit_once(' ').expect("a sample");
            (
                labels.contains("host=\"n2\""),
                count.parse().expect("a number"),
            )
        })
        .collect();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 20);
    let here = counts.iter().filter(|(here, _)| *here);
    assert_eq!(here.map(|(_, count)| count).sum::<usize>(), wanted);
    // Of a part of the group nothing can be told.
    let part = fleet.deploy(&["discover", "--metrics", "--limit", "n2"]);
    part.expect(3)
        .says("deploy_host_wanted_known{host=\"n2\"} 0")
        .says("n1 (it was not looked at), n3 (it was not looked at)");
}

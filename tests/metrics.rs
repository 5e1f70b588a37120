//! `deploy discover --metrics` against simulated hosts: what a monitoring system reads.

use std::fs;

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

//! What users are told of runs: each failure once, what there is to undo, an end in JSON,
//! and the time at which a host that stays away undoes a run.

use super::{FAILING, Fleet, summary};
use crate::harness::Ended;

#[test]
fn a_step_that_was_never_made_is_not_shown_as_one_to_undo() {
    let tasks = r#"
    - name: wait
      command:
        argv: [sh, -c, 'touch "$R/var/began"; until [ -e "$R/var/go" ]; do sleep 0.1; done']
        undo: 'true'
    - name: then
      command: {argv: ['true'], undo: 'true'}
"#;
    let fleet = Fleet::new(&["h1"], "", tasks);
    let run = fleet.left_at_h1();
    let ended = fleet.deploy(&["runs", "unlock", &run, "--check"]);
    let ended = ended.expect(2).says("var/began");
    assert!(!ended.out.contains("undo: run true"), "{}", ended.all());
    assert!(ended.out.contains("by 1 step"), "{}", ended.all());
    fleet.deploy(&["runs", "unlock", &run, "--yes"]).expect(0);
    // The guard may be the first to find that the runner is gone.
    let ended = fleet.statuses("h1");
    assert!(ended == ["rolled-back"] || ended == ["undone"], "{ended:?}");
    fleet.go(&["h1"]);
}

#[test]
fn a_rollback_where_nothing_is_applied_has_nothing_to_do() {
    let fleet = Fleet::new(&["h1"], "", FAILING);
    let nothing = |ended: Ended| ended.expect(0).says("there is nothing to undo").code;
    nothing(fleet.deploy(&["rollback", "--yes"]));
    fleet.put("h1", "var/bad");
    fleet.deploy(&fleet.run(&[])).expect(3);
    assert_eq!(fleet.statuses("h1"), ["undone"]);
    nothing(fleet.deploy(&["rollback", "--yes"]));
}

#[test]
fn a_failure_is_told_once_by_the_name_of_its_step() {
    let tasks = r#"
    - name: file
      copy: {content: "x\n", dest: /etc/x}
    - name: fail
      command: {argv: [sh, -c, 'echo no such luck; exit 1'], undo: 'true'}
"#;
    let fleet = Fleet::new(&["h1"], "", tasks);
    let ended = fleet.deploy(&fleet.run(&[])).expect(3);
    let ended = ended
        .says("h1: failed: run sh -c")
        .says("h1: undone: write /etc/x")
        .says("h1: rolled back after a failure")
        .says("hint: `deploy runs show ");
    let said = ended.out.matches("\n    no such luck\n").count();
    assert_eq!(said, 1, "{}", ended.all());
    let (_, end) = ended.out.split_once("rolled back after").expect("the end");
    assert!(!end.contains("no such luck"), "{}", ended.all());
    assert!(!ended.out.contains("command:"), "{}", ended.all());
}

#[test]
fn what_is_asked_for_in_json_always_ends_with_the_sums() {
    let fleet = Fleet::new(&["h1"], "", FAILING);
    let id = "20200101T000000Z-000000";
    for (words, code) in [
        (&["runs", "show", id][..], 1),
        (&["runs", "show", "../x"], 1),
        (&["runs", "extend", id, "--by", "1m"], 1),
        (&["runs", "confirm", id], 1),
        (&["runs", "unlock", id], 1),
        (&["runs", "undo", id], 1),
        (&["runs"], 0),
        (&["rollback"], 0),
        (&["rollback", "--run", "../x"], 1),
        (&["runs", "extend", id], 64),
        (&["runs", "-i", "no such file"], 1),
        (&["discover", "-i", "no such file"], 1),
    ] {
        let words = [words, &["--output", "json"]].concat();
        let ended = fleet.deploy(&words).expect(code);
        let sums = summary(&ended);
        assert_eq!(sums["type"], "summary", "{}", ended.all());
        assert_eq!(sums["exit"], code, "{}", ended.all());
        let told = ended.out.contains(r#""type":"diagnostic""#);
        assert!(told || code == 0, "{}", ended.all());
    }
}

/// Takes over four minutes of waiting: for twice the time that the host gives its
/// confirmation, and two minutes, it is tried to reach the host again.
#[test]
fn a_host_that_stays_away_is_unconfirmed_and_the_time_of_its_undo_is_told() {
    let tasks = r#"
    - name: hang
      command:
        argv: [sh, -c, 'touch "$R/etc/x"; printf "{\"hang\": true}" >"$R/.sim/faults.json"']
        undo: [sh, -c, 'rm -f "$R/etc/x"']
        timeout: 10
"#;
    let fleet = Fleet::new(&["h1"], "", tasks);
    let words = [
        fleet.run(&["-T", "1"]),
        vec!["-i", fleet.inventory.as_str()],
    ]
    .concat();
    let before = jiff::Timestamp::now();
    let ended = fleet.scratch.deploy(&words).expect(5);
    let ended = ended
        .says("unless it is confirmed over a new connection within 1m 10s of the last step")
        .says("h1: unconfirmed")
        .says("was not confirmed: the host was to undo it at ")
        .says("tells how it stands, once the host answers")
        .says("unconfirmed=1");
    let (_, told) = ended.out.split_once("was to undo it at ").expect("a time");
    let told: String = told.chars().take("2026-11-22 21:06:00".len()).collect();
    let told: jiff::Timestamp = format!("{told}Z").parse().expect("a time");
    assert!(
        told > before && told < jiff::Timestamp::now(),
        "{}",
        ended.all()
    );
    // Which it has: it needs nobody for that.
    assert_eq!(fleet.statuses("h1"), ["undone"]);
    assert!(!fleet.has("h1", "etc/x"));
}

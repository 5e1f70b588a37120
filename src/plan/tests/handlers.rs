//! Handlers: what notified them, those that are owed, and those without an end.

use super::*;
use crate::transport::FileReply;

const PLAY: &str = "
- hosts: all
  tasks:
    - copy: {dest: '/etc/{{ item }}', content: x}
      loop: [a, b]
      notify: Restart app
    - copy: {dest: /etc/c, content: x}
      notify: everything
  handlers:
    - name: Restart app
      systemd: {name: app, state: restarted}
      listen: everything
    - name: Restart other
      systemd: {name: other, state: restarted}
      listen: everything
    - name: Never asked
      systemd: {name: never, state: restarted}
";

fn running(read: &Read) -> Reply {
    match read {
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n",
        ),
        other => bare_host(other),
    }
}

fn ids(ids: &[StepId]) -> Vec<&str> {
    ids.iter().map(|id| id.0.as_str()).collect()
}

/// Plans where an earlier run owed these handlers.
fn owing(bench: &Bench, text: &str, answer: impl Fn(&Read) -> Reply) -> (HostPlan, usize) {
    let mut cache = ReadCache::default();
    let content = FileReply::Content {
        bytes: text.as_bytes().to_vec(),
        truncated: false,
    };
    cache.add(&reads(), vec![Reply::File(content)]);
    for batches in 0..5 {
        match bench.once(&cache).expect("a plan") {
            Planned::Complete(found) => return (found.plan, batches),
            Planned::Needs(needs) => {
                let replies = needs.iter().map(&answer).collect();
                cache.add(&needs, replies);
            }
        }
    }
    panic!("the plan never has enough");
}

#[test]
fn a_handler_knows_all_steps_that_notified_it() {
    let plan = Bench::new(PLAY, "").plan_with(running).expect("a plan").0;
    let found: Vec<_> = plan
        .handlers
        .iter()
        .map(|handler| {
            (
                handler.name.as_str(),
                ids(&handler.notified_by),
                ids(&handler.steps),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "Restart app",
                vec!["file:/etc/a", "file:/etc/b", "file:/etc/c"],
                vec!["unit:app.service:restart"]
            ),
            (
                "Restart other",
                vec!["file:/etc/c"],
                vec!["unit:other.service:restart"]
            ),
        ]
    );
}

#[test]
fn a_handler_that_is_owed_runs_though_nothing_else_changes() {
    let bench = Bench::new(PLAY, "");
    let as_wanted = |read: &Read| match read {
        Read::State { path, .. } if path.starts_with("/etc/") => Reply::State(PathState::File {
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            size: 1,
            sha256: module::sha256(b"x"),
            content: Some(b"x".to_vec()),
        }),
        other => running(other),
    };
    let (plan, _) = owing(&bench, "", as_wanted);
    assert_eq!((plan.steps.len(), plan.handlers.len()), (0, 0));
    let (plan, _) = owing(&bench, "Restart other\nGone \u{1b}[2J\n", as_wanted);
    assert_eq!(titles(&plan), ["restart unit other.service"]);
    assert_eq!(plan.handlers[0].name, "Restart other");
    assert_eq!(plan.handlers[0].notified_by, []);
    assert_eq!(
        plan.notes,
        [
            "handler `Restart other` runs: an earlier run that failed owed it",
            "an earlier run that failed owed handler `Gone \\x1b[2J`, which this playbook does not have for this host; it stays owed; who does not want it takes its line out of /var/lib/deploy/owed",
        ]
    );
    // What a topic names is owed to all that listen to it.
    let (plan, _) = owing(&bench, "everything\n", as_wanted);
    assert_eq!(plan.handlers.len(), 2);
}

#[test]
fn an_owed_handler_that_is_notified_too_runs_once() {
    let bench = Bench::new(PLAY, "");
    let (plan, batches) = owing(&bench, "Restart app\n", running);
    let restarts = titles(&plan)
        .iter()
        .filter(|title| **title == "restart unit app.service")
        .count();
    assert_eq!(restarts, 1);
    let (_, _, without) = bench.plan_with(running).expect("a plan");
    assert_eq!(batches, without, "it costs no round trip");
}

#[test]
fn handlers_that_notify_one_another_without_end_are_a_mistake() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - copy: {dest: /etc/a, content: x}
      notify: Ping
  handlers:
    - name: Ping
      systemd: {name: ping, state: restarted}
      notify: Pong
    - name: Pong
      systemd: {name: pong, state: restarted}
      notify: Ping
",
        "",
    );
    let problems = bench.plan_with(running).expect_err("no end");
    insta::assert_snapshot!(problems.to_string(), @"play.yml:7:7: handlers notify one another without end: `Ping`");
}

#[test]
fn an_undone_handler_restarts_what_can_be_undone_and_nothing_else() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - command: first
      notify: Restart
    - copy: {dest: /etc/a, content: x}
      notify: Restart
  handlers:
    - name: Restart
      systemd: {name: app, state: restarted}
",
        "",
    );
    let plan = bench.plan_with(running).expect("a plan").0;
    assert_eq!(
        titles(&plan),
        ["write /etc/a", "restart unit app.service", "run first"]
    );
    assert!(
        plan.steps[0]
            .undo
            .to_sh()
            .contains("restart -- app.service")
    );
    assert!(
        plan.steps[2].undo.is_empty(),
        "what cannot be undone has no undo"
    );
}

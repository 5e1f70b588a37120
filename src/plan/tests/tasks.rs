//! Conditions, loops, results, order.

use super::*;

#[test]
fn results_conditions_loops_and_handlers_work_together() {
    let bench = Bench::new(
        "
- hosts: all
  vars: {base: /opt, names: [a, b]}
  tasks:
    - name: Ask
      command: ask
      changed_when: false
      check_mode: false
      register: asked
    - name: Files
      copy: {dest: '{{ base }}/{{ item }}', content: '{{ item }}={{ asked.stdout }}'}
      loop: '{{ names }}'
      when: item != 'b' or asked.stdout == 'said'
      register: files
      notify: Restart
    - debug: {msg: '{{ files.results | length }} files, changed {{ files is changed }}'}
    - name: Never
      fail: {msg: no}
      when: asked.rc != 0
  handlers:
    - name: Restart
      systemd: {name: app, state: restarted}
",
        "",
    );
    assert_eq!(bench.check(), "");
    let loaded = |read: &Read| match read {
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n",
        ),
        other => bare_host(other),
    };
    let (plan, _, batches) = bench.plan_with(loaded).expect("a plan");
    assert_eq!(
        titles(&plan),
        ["write /opt/a", "write /opt/b", "restart unit app.service"]
    );
    assert_eq!(plan.notes, ["2 files, changed True"]);
    assert_eq!(batches, 3);
    assert_eq!(plan.steps[0].payload[0].content, b"a=said");
    // Undone last, the first file restarts the unit once more.
    let undo = plan.steps[0].undo.to_sh();
    assert!(
        undo.contains("path_restore") && undo.contains("systemctl restart -- app.service"),
        "{undo}"
    );
    assert!(!plan.steps[1].undo.to_sh().contains("systemctl"));
}

#[test]
fn commands_are_one_way_unless_they_say_how_to_undo() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - command: first
    - command: {cmd: second, undo: back}
    - command: {cmd: third, creates: /etc}
    - copy: {dest: /etc/x, content: y}
",
        "",
    );
    let plan = bench.plan();
    assert_eq!(titles(&plan), ["run second", "write /etc/x", "run first"]);
    assert_eq!(plan.steps[2].class, Class::OneWay);
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("cannot be undone")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn later_tasks_see_what_earlier_steps_will_have_made() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - file: {path: /opt/a/b, state: directory}
    - copy: {dest: /opt/a/b/c, content: one}
    - copy: {dest: /opt/a/b/c, content: two}
    - command: {cmd: never, creates: /opt/a/b/c}
",
        "",
    );
    let plan = bench.plan();
    assert_eq!(
        titles(&plan),
        [
            "make directory /opt/a",
            "make directory /opt/a/b",
            "write /opt/a/b/c",
            "change /opt/a/b/c"
        ]
    );
    let ids: std::collections::HashSet<_> = plan.steps.iter().map(|step| &step.id).collect();
    assert_eq!(ids.len(), 4);
    assert!(plan.steps[3].check.is_empty());
}

#[test]
fn extra_vars_beat_registered_ones_and_tags_choose() {
    let mut bench = Bench::new(
        "
- hosts: all
  tasks:
    - set_fact: {name: fact}
      tags: a
    - copy: {dest: '/etc/{{ name }}', content: x}
      tags: b
",
        "name: host",
    );
    assert_eq!(titles(&bench.plan()), ["write /etc/fact"]);
    bench.tags.only = vec!["b".to_owned()];
    assert_eq!(titles(&bench.plan()), ["write /etc/host"]);
    let node = crate::value::Node::new(Value::Str("extra".to_owned()), Origin::whole("-e", ""));
    bench.extra.insert("name".to_owned(), node);
    bench.tags.only.clear();
    assert_eq!(titles(&bench.plan()), ["write /etc/extra"]);
}

#[test]
fn a_host_without_systemd_is_guarded_by_a_process() {
    let playbook = "\n- hosts: all\n  tasks:\n    - copy: {dest: /etc/x, content: y}\n";
    let mut bench = Bench::new(playbook, "");
    let kind = |bench: &Bench| bench.plan().guard.map(|guard| guard.kind);
    assert_eq!(kind(&bench), Some(crate::plan::GuardKind::Timer));
    bench.facts.init = Init::Other("busybox".to_owned());
    assert_eq!(kind(&bench), Some(crate::plan::GuardKind::Process));
    // What changes nothing is not guarded.
    let bench = Bench {
        facts: bench.facts,
        ..Bench::new("\n- hosts: all\n  tasks: []\n", "")
    };
    assert_eq!(kind(&bench), None);
}

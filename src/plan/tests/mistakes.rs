//! What is refused, and what must not be shown.

use super::*;

#[test]
fn every_mistake_in_the_files_is_told_before_connecting() {
    let (bench, mut problems) = Bench::try_new(
        "
- hosts: all
  tasks:
    - template: {src: mig_confg.j2, dset: /etc/a, mode: 644}
    - tempalte: {src: x}
    - copy: {dest: etc/x, content: '{{ prfiles | to_jsn }}'}
    - copy: {dest: /etc/x, content: '{{ profles }}'}
      when: enabeld
    - file: {path: /etc/../x, state: dirctory}
    - systemd: {name: x, state: startd, enabled: maybe}
    - copy: {dest: /etc/y, content: '{{ maybe | default(1) }}'}
    - copy: {dest: /etc/z, content: '{{ other }}'}
      when: other is defined
    - copy: {dest: /etc/w, content: '{{ derived }}'}
",
        "
profiles: [a]
enabled: true
derived: '{{ profiles[0] }} {{ enabledd }}'
containers_gpu_slicing: {strateyg: mig}
",
    );
    problems.extend(
        check(
            &bench.playbook,
            &[bench.input()],
            &bench.project,
            &bench.catalog,
        )
        .problems,
    );
    insta::assert_snapshot!(problems.to_string(), @r"
    play.yml:5:7: `tempalte` is neither a module nor a word of a task (did you mean `template`?)
    play.yml:4:37: `template` has no parameter `dset` (did you mean `dest`?)
    play.yml:4:57: mode 644 is a decimal number (octal 1204) (write it as '0644' with quotes)
    play.yml:4:7: `template` needs `dest`
    play.yml:6:20: `dest` is an absolute path, not a string
    play.yml:9:20: a path on the host cannot have `..` in it
    play.yml:9:38: `state` is one of directory, file, link, absent (did you mean `directory`?)
    play.yml:10:33: `state` is one of started, stopped, restarted, reloaded (did you mean `started`?)
    play.yml:10:50: `enabled` is true or false, not a string
    play.yml:4:23: there is no template `mig_confg.j2` (did you mean `mig_config.j2`?)
    play.yml:6:50: there is no filter `to_jsn` (did you mean `to_json`?)
    play.yml:8:13: `enabeld` is undefined (did you mean `enabled`?)
    play.yml:7:41: `profles` is undefined (did you mean `profiles`?)
    vars.yml:5:26: unknown key `strateyg` in `containers_gpu_slicing` (did you mean `strategy`?)
    vars.yml:4:32: `enabledd` is undefined (did you mean `enabled`?)
    ");
}
#[test]
fn a_missing_directory_and_an_assertion_stop_the_host() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - copy: {dest: /srv/none/x, content: y}
    - assert: {that: [1 == 1, gpu_count > 4], fail_msg: 'too few'}
    - copy: {dest: /srv/other/x, content: y}
",
        "gpu_count: 2",
    );
    let refusal = bench.refusal();
    insta::assert_snapshot!(refusal, @r"
    play.yml:4:20: there is no directory /srv/none on the host (make it before with `file` and `state: directory`)
    play.yml:5:31: too few (asserted by task `assert`)
    ");
}

#[test]
fn half_an_answer_is_none() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - command: {cmd: chatter}
      changed_when: false
      check_mode: false
      register: said
    - copy: {dest: /etc/x, content: '{{ said.stdout }}'}
",
        "",
    );
    let cut = |read: &Read| match read {
        Read::Command { .. } => Reply::Command(Output {
            stdout: b"the first half".to_vec(),
            truncated: true,
            ..Output::default()
        }),
        other => bare_host(other),
    };
    let said = match bench.plan_with(cut) {
        Err(problems) => problems.to_string(),
        Ok((plan, ..)) => panic!("a plan of it: {:?}", titles(&plan)),
    };
    assert!(said.contains("said more than 64 KiB"), "{said}");
}

#[test]
fn what_only_a_run_can_tell_is_an_error_that_names_the_task() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - name: Make it
      command: make
      register: made
    - copy: {dest: /etc/x, content: '{{ made.stdout }}'}
",
        "",
    );
    assert_eq!(bench.check(), "");
    let refusal = bench.refusal();
    assert!(
        refusal.contains("`made.stdout` is known only after task `Make it` has run"),
        "{refusal}"
    );
}

#[test]
fn secret_files_are_not_shown() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - copy: {dest: /etc/key, content: hunter2, mode: '0600'}
      no_log: true
",
        "",
    );
    let plan = bench.plan();
    let shown = format!("{:?}", plan.steps[0].change);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn nothing_of_a_secret_task_is_shown() {
    let bench = Bench::new(
        "
- hosts: all
  tasks:
    - name: log in
      command: {cmd: login --token hunter2, undo: logout hunter2}
      no_log: true
    - debug: {msg: '{{ token }}'}
      no_log: true
    - assert: {that: true, success_msg: '{{ token }}'}
      no_log: true
",
        "token: hunter2",
    );
    let plan = bench.plan();
    let step = &plan.steps[0];
    let shown = format!(
        "{:?} {} {:?} {:?}",
        step.id, step.title, step.change, plan.notes
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    // What it says is heard by nobody, on the way back neither.
    for script in [&step.apply, &step.undo] {
        assert!(script.to_sh().starts_with("unheard log"), "{script:?}");
    }
    for task in [
        "assert: {that: false, fail_msg: '{{ token }}'}",
        "fail: {msg: '{{ token }}'}",
    ] {
        let playbook = format!("\n- hosts: all\n  tasks:\n    - {task}\n      no_log: true\n");
        let said = Bench::new(&playbook, "token: hunter2").refusal();
        assert!(!said.is_empty() && !said.contains("hunter2"), "{said}");
    }
}

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

struct NoFiles;

impl Files for NoFiles {
    fn vars_file(&self, name: &str) -> Option<(PathBuf, String)> {
        (name == "more.yml").then(|| (PathBuf::from("more.yml"), "a: 1\nb: 1\n".to_owned()))
    }
}

fn read(text: &str) -> (Playbook, String) {
    let modules = ["template", "copy", "command", "systemd"];
    let (playbook, problems) = load(Path::new("p.yml"), text, &modules, &NoFiles);
    let mut told = String::new();
    for problem in &problems.0 {
        let _ = writeln!(told, "{problem}");
    }
    (playbook, told)
}

#[test]
fn a_play_is_read_with_all_its_words() {
    let (playbook, told) = read(
        "
- name: GPUs
  hosts: [gpu, '!old']
  serial: [1, 30%]
  max_fail_percentage: 10
  become: true
  gather_facts: no
  vars_files: more.yml
  vars: {b: 2}
  tags: base
  tasks:
    - name: One
      ansible.builtin.template: {src: a.j2, dest: /etc/a}
      when: [x, y]
      notify: Restart
      tags: [files, more]
    - copy: {content: x, dest: '/etc/{{ name }}'}
      loop: [1, 2]
      loop_control: {loop_var: name}
      register: out
  handlers:
    - name: Restart
      systemd: {name: a.service, state: restarted}
",
    );
    assert_eq!(told, "");
    let play = &playbook.plays[0];
    assert_eq!(play.hosts, "gpu,!old");
    assert_eq!(play.serial, [Batch::Hosts(1), Batch::Percent(30)]);
    assert_eq!(play.max_fail_percentage, Some(10.0));
    assert!(play.wants_become());
    assert_eq!(play.vars["b"].to_json(), serde_json::json!(2));
    assert_eq!(play.vars["a"].to_json(), serde_json::json!(1));
    let task = &play.tasks[0];
    assert_eq!(
        (task.module.as_str(), task.name.as_str()),
        ("template", "One")
    );
    assert_eq!(task.tags, ["base", "files", "more"]);
    assert_eq!(play.tasks[1].name, "copy");
    assert_eq!(
        play.tasks[1].r#loop.as_ref().map(|l| l.variable.as_str()),
        Some("name")
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let (_, told) = read(
        "
- hots: all
  taks: []
  roles: [x]
  tasks:
    - tempalte: {src: a}
    - wehn: x
      copy: {}
    - block: []
    - shell: echo
    - name: nothing
    - copy: {}
      command: {}
    - copy: {}
      notify: restrat
      become: maybe
      register: a-b
    - text
  handlers:
    - name: restart
      systemd: {}
",
    );
    insta::assert_snapshot!(told, @r"
    p.yml:2:3: `hots` is no word of a play (did you mean `hosts`?)
    p.yml:3:3: `taks` is no word of a play (did you mean `tags`?)
    p.yml:4:3: plays cannot have `roles` here (put the role's tasks into `tasks`)
    p.yml:2:3: the play does not say for which `hosts` it is
    p.yml:6:7: `tempalte` is neither a module nor a word of a task (did you mean `template`?)
    p.yml:7:7: `wehn` is neither a module nor a word of a task (did you mean `when`?)
    p.yml:9:7: tasks cannot have `block` here (write the tasks one below the other, each with its `when`)
    p.yml:10:7: there is no module `shell` here (use `command` with `argv: [sh, -c, …]`)
    p.yml:11:7: the task has no module
    p.yml:13:7: a task has one module, not `copy` and `command`
    p.yml:16:15: `become` is true or false, not a string
    p.yml:17:17: `a-b` cannot be the name of a variable (names are letters, digits and `_`, and begin with a letter)
    p.yml:18:7: a task is a mapping, not a string
    p.yml:15:15: there is no handler `restrat` in this play (did you mean `restart`?)
    ");
}

#[test]
fn tags_follow_ansibles_rules() {
    let tags = |only: &[&str], skip: &[&str]| Tags {
        only: only.iter().map(|tag| (*tag).to_owned()).collect(),
        skip: skip.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    let of = |list: &[&str]| -> Vec<String> { list.iter().map(|tag| (*tag).to_owned()).collect() };
    assert!(tags(&[], &[]).allow(&of(&[])));
    assert!(!tags(&[], &[]).allow(&of(&["never"])));
    assert!(tags(&["x"], &[]).allow(&of(&["never", "x"])));
    assert!(tags(&["x"], &[]).allow(&of(&["always"])));
    assert!(!tags(&["x"], &[]).allow(&of(&["y"])));
    assert!(!tags(&[], &["x"]).allow(&of(&["x", "y"])));
    assert!(!tags(&["y"], &["x"]).allow(&of(&["x", "y"])));
    assert!(!tags(&[], &["always"]).allow(&of(&["always"])));
    assert!(tags(&["tagged"], &[]).allow(&of(&["y"])));
    assert!(!tags(&["untagged"], &[]).allow(&of(&["y"])));
}

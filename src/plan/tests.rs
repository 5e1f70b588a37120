use std::path::{Path, PathBuf};

use super::*;
use crate::content::Content;
use crate::error::Origin;
use crate::facts::{Fact, Gpu, GpuUuid, Init, MigMode, MigState, NvidiaGpu, PciAddress, Vendor};
use crate::module;
use crate::step::{Change, Class};
use crate::transport::{Output, PathState, Reply};
use crate::value::Value;

fn facts(gpus: Vec<Gpu>) -> HostFacts {
    HostFacts {
        kernel: Fact::Known("6.12.0".to_owned()),
        arch: Fact::Known("x86_64".to_owned()),
        os: Fact::Absent,
        boot_id: Fact::Known("boot".to_owned()),
        init: Init::Systemd,
        cmdline: Fact::Absent,
        nvidia_driver: Fact::Known("590.48.01".to_owned()),
        modules: Fact::Absent,
        gpus,
        notes: Vec::new(),
    }
}

fn h100(index: u32) -> Gpu {
    Gpu {
        pci: PciAddress {
            domain: 0,
            bus: 0x17 + u8::try_from(index).unwrap_or(0),
            device: 0,
            function: 0,
        },
        vendor: Vendor::Nvidia,
        device_id: 0x2330,
        subsystem: Fact::Absent,
        class: 0x03_02_00,
        model: Fact::Known("H100-80GB".to_owned()),
        driver: Fact::Known("nvidia".to_owned()),
        iommu_group: Fact::Absent,
        numa_node: Fact::Absent,
        reset: Fact::Absent,
        sriov: Fact::Absent,
        nvidia: Fact::Known(NvidiaGpu {
            index,
            uuid: GpuUuid(format!("GPU-{index}")),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_mib: Fact::Known(81_559),
            compute_capability: Fact::Known(90),
            persistence: Fact::Known(true),
            compute_mode: Fact::Absent,
            timeslice: Fact::Absent,
            mig: Fact::Known(MigState {
                current: MigMode::Disabled,
                pending: MigMode::Disabled,
                profiles: Fact::Unknown("the mode is off".to_owned()),
                instances: Fact::Known(Vec::new()),
            }),
        }),
        holders: Fact::Known(Vec::new()),
    }
}

/// A playbook with everything that it takes to plan it for one host.
struct Bench {
    playbook: Playbook,
    vars: Vars,
    extra: Vars,
    facts: HostFacts,
    catalog: Catalog,
    project: Project,
    tags: Tags,
    allow_reboot: bool,
    host: HostName,
}

impl Bench {
    fn new(playbook: &str, vars: &str) -> Self {
        let (bench, problems) = Self::try_new(playbook, vars);
        assert_eq!(problems, Problems::default());
        bench
    }

    fn try_new(playbook: &str, vars: &str) -> (Self, Problems) {
        let content = Content::shipped();
        let catalog = Catalog::load(&content).expect("the shipped catalog is sound");
        let project = Project::new(content, None);
        let (playbook, mut problems) =
            crate::playbook::load(Path::new("play.yml"), playbook, &module::names(), &project);
        let (node, found) = crate::yaml::load(Path::new("vars.yml"), vars);
        problems.extend(found);
        let mut all = Vars::new();
        if let Some(Value::Map(map)) = node.map(|node| node.value) {
            all.extend(map.into_iter().map(|(name, entry)| (name, entry.node)));
        }
        let bench = Self {
            playbook,
            vars: all,
            extra: Vars::new(),
            facts: facts(Vec::new()),
            catalog,
            project,
            tags: Tags::default(),
            allow_reboot: false,
            host: HostName::from("h1"),
        };
        (bench, problems)
    }

    fn input(&self) -> HostInput<'_> {
        HostInput {
            playbook: &self.playbook,
            plays: &[0],
            host: &self.host,
            vars: &self.vars,
            extra: &self.extra,
            groups: None,
        }
    }

    fn once(&self, cache: &ReadCache) -> Result<Planned, Problems> {
        host(
            &PlanInput {
                host: self.input(),
                facts: &self.facts,
                catalog: &self.catalog,
                project: &self.project,
                tags: &self.tags,
                allow_reboot: self.allow_reboot,
            },
            cache,
        )
    }

    /// Plans against a host that answers by `answer`; also the number of batches.
    fn plan_with(
        &self,
        answer: impl Fn(&Read) -> Reply,
    ) -> Result<(HostPlan, Vec<Read>, usize), Problems> {
        let mut cache = ReadCache::default();
        for batches in 0..5 {
            match self.once(&cache)? {
                Planned::Complete(found) => return Ok((found.plan, found.reads, batches)),
                Planned::Needs(reads) => {
                    let replies = reads.iter().map(&answer).collect();
                    cache.add(&reads, replies);
                }
            }
        }
        panic!("the plan never has enough");
    }

    fn plan(&self) -> HostPlan {
        self.plan_with(bare_host).expect("a plan").0
    }

    fn refusal(&self) -> String {
        match self.plan_with(bare_host) {
            Err(problems) => problems.to_string(),
            Ok((plan, ..)) => panic!("expected a refusal, got {:?}", titles(&plan)),
        }
    }

    fn check(&self) -> String {
        let checked = check(
            &self.playbook,
            &[self.input()],
            &self.project,
            &self.catalog,
        );
        checked.problems.to_string()
    }
}

fn titles(plan: &HostPlan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.title.as_str()).collect()
}

fn directory() -> Reply {
    Reply::State(PathState::Directory {
        mode: 0o755,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    })
}

fn output(text: &str) -> Reply {
    Reply::Command(Output {
        stdout: text.as_bytes().to_vec(),
        ..Output::default()
    })
}

/// A host with the usual directories and none of our files.
fn bare_host(read: &Read) -> Reply {
    match read {
        Read::State { path, .. }
            if ["/etc", "/opt", "/etc/systemd", "/etc/systemd/system"].contains(&path.as_str()) =>
        {
            directory()
        }
        Read::State { .. } => Reply::State(PathState::Absent),
        Read::Command { command, .. } if command.display().contains("id -un") => {
            output("root\nroot\n")
        }
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nNeedDaemonReload=no\n",
        ),
        Read::Command { .. } => output("said\n"),
        Read::Glob { .. } => Reply::Glob(Vec::new()),
        other => panic!("unexpected read {other:?}"),
    }
}

fn shipped_gpu_play() -> String {
    let content = Content::shipped();
    content.playbook("gpu.yml").expect("it is shipped").text
}

const MIG: &str = "
containers_gpu_slicing:
  enabled: true
  strategy: mig
  mig: {enabled: true, profiles: [3g.40gb, 2g.20gb, 1g.10gb, 1g.10gb]}
";

#[test]
fn the_main_job_slices_then_persists_then_checks() {
    let mut bench = Bench::new(&shipped_gpu_play(), MIG);
    bench.facts = facts(vec![h100(0)]);
    assert_eq!(bench.check(), "");
    let (plan, reads, batches) = bench.plan_with(bare_host).expect("a plan");
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    enable MIG mode on GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3)
    create 4 MIG instances on GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3)
    make directory /etc/deploy
    make directory /etc/deploy/gpu
    write /etc/deploy/gpu/mig.conf
    write /etc/deploy/gpu/time_slicing.yaml
    write /etc/deploy/gpu/gpu_slices.sh
    write /etc/systemd/system/deploy-gpu.service
    enable unit deploy-gpu.service
    check that every card reads back as wanted
    check that every card answers
    ");
    assert_eq!(batches, 1, "{reads:?}");
    assert!(plan.steps.iter().all(|step| step.class == Class::OneWay
        || !step.undo.is_empty()
        || matches!(step.change, Change::Check { .. })));
}

#[test]
fn the_second_run_finds_nothing_to_do_and_asks_in_one_batch() {
    let mut bench = Bench::new(
        &shipped_gpu_play(),
        "containers_gpu_slicing: {enabled: true}",
    );
    bench.facts = facts(vec![h100(0)]);
    let (plan, reads, _) = bench.plan_with(bare_host).expect("a plan");
    assert!(!plan.steps.is_empty());
    // The host after that plan: what each step says will stand there.
    let after: std::collections::HashMap<String, Reply> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.change {
            Change::Path { path, after, .. } => Some((path.clone(), as_reply(after))),
            _ => None,
        })
        .collect();
    let sliced = |read: &Read| match read {
        Read::State { path, .. } => after.get(path).cloned().unwrap_or_else(|| bare_host(read)),
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nNeedDaemonReload=no\n",
        ),
        other => bare_host(other),
    };
    // What was remembered comes with the first batch.
    let remembered = reads
        .iter()
        .map(|read| (read.clone(), sliced(read)))
        .collect();
    let mut cache = ReadCache::default();
    cache.add(&[Read::Remembered], vec![Reply::Remembered(remembered)]);
    let Ok(Planned::Complete(Complete { plan, .. })) = bench.once(&cache) else {
        panic!("one batch is not enough");
    };
    assert_eq!(titles(&plan), Vec::<&str>::new());
    // A file that somebody changed is asked for again, with its content.
    let changed = PathBuf::from("/etc/deploy/gpu/gpu_slices.sh");
    let drifted = |read: &Read| match read {
        Read::State { path, .. } if Path::new(path) == changed => Reply::State(PathState::File {
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            size: 4,
            sha256: module::sha256(b"old\n"),
            content: Some(b"old\n".to_vec()),
        }),
        other => sliced(other),
    };
    let (plan, _, _) = bench.plan_with(drifted).expect("a plan");
    assert_eq!(
        titles(&plan),
        [
            "change /etc/deploy/gpu/gpu_slices.sh",
            "check that every card answers"
        ]
    );
}

fn as_reply(look: &crate::step::PathLook) -> Reply {
    use crate::step::PathLook;
    Reply::State(match look {
        PathLook::File {
            mode,
            owner,
            group,
            sha256,
            size,
            ..
        } => PathState::File {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
            size: *size,
            sha256: sha256.clone(),
            content: None,
        },
        PathLook::Directory { mode, owner, group } => PathState::Directory {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
        },
        PathLook::Link { target } => PathState::Link {
            target: target.clone(),
        },
        PathLook::Absent => PathState::Absent,
    })
}

#[test]
fn what_is_not_managed_and_what_has_no_gpu_is_left_alone() {
    let mut bench = Bench::new(&shipped_gpu_play(), "x: 1");
    bench.facts = facts(vec![h100(0)]);
    assert_eq!(titles(&bench.plan()), Vec::<&str>::new());
    let auto = "containers_gpu_slicing: {enabled: true, strategy: auto}";
    let bench = Bench::new(&shipped_gpu_play(), auto);
    assert_eq!(titles(&bench.plan()), Vec::<&str>::new());
}

#[test]
fn slices_asked_for_by_name_are_refused_where_no_gpu_is() {
    let bench = Bench::new(&shipped_gpu_play(), MIG);
    let refusal = bench.refusal();
    assert!(refusal.contains("no GPU was found"), "{refusal}");
}

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

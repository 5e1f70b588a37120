//! Reboots: leave, the one place, and what is planned for a host that has just booted.

use super::*;

/// A host where unit `app` runs and is not enabled.
fn with_app(read: &Read) -> Reply {
    match read {
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\nNeedDaemonReload=no\n",
        ),
        other => bare_host(other),
    }
}

fn allowed(playbook: &str, vars: &str) -> Bench {
    let mut bench = Bench::new(playbook, vars);
    bench.allow_reboot = true;
    bench
}

fn plan_of(bench: &Bench) -> HostPlan {
    bench.plan_with(with_app).expect("a plan").0
}

fn a100() -> Gpu {
    let mut gpu = h100(0);
    gpu.device_id = 0x20b0;
    gpu.model = Fact::Known("A100-40GB".to_owned());
    gpu.reset = Fact::Known(false);
    if let Fact::Known(nvidia) = &mut gpu.nvidia {
        nvidia.name = "NVIDIA A100-SXM4-40GB".to_owned();
        nvidia.compute_capability = Fact::Known(80);
    }
    gpu
}

fn mig(gpu: &mut Gpu) -> &mut MigState {
    match &mut gpu.nvidia {
        Fact::Known(NvidiaGpu {
            mig: Fact::Known(mig),
            ..
        }) => mig,
        other => panic!("no MIG: {other:?}"),
    }
}

const A100: &str = "
containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [3g.20gb]}}
";

const RESTART: &str = "
- hosts: all
  tasks:
    - copy: {dest: /etc/x, content: y}
    - name: Restart
      reboot:
";

#[test]
fn a_reboot_needs_leave_and_says_how_it_is_given() {
    let refusal = Bench::new(RESTART, "").refusal();
    insta::assert_snapshot!(refusal, @"play.yml:5:7: task `Restart` restarts the host, and there is no leave to do that (give leave with `--allow-reboot`, or with `containers_gpu_state_management: {reboot_required: true}`; the plan then restarts the host once and goes on by itself)");
    assert_eq!(
        titles(&plan_of(&allowed(RESTART, ""))),
        ["write /etc/x", "restart the host"]
    );
    let by_vars = "containers_gpu_state_management: {reboot_required: true}";
    let plan = plan_of(&Bench::new(RESTART, by_vars));
    assert_eq!(titles(&plan), ["write /etc/x", "restart the host"]);
    let step = &plan.steps[1];
    assert_eq!(
        (step.class, step.timeout_s, step.apply.is_empty()),
        (Class::Disruptive, 600, true)
    );
}

#[test]
fn nothing_would_go_on_after_a_reboot_without_systemd() {
    let mut bench = allowed(RESTART, "");
    bench.facts.init = Init::Other("busybox".to_owned());
    let refusal = bench.refusal();
    assert!(
        refusal.contains("does not run systemd but busybox: nothing would go on"),
        "{refusal}"
    );
    let mut bench = allowed(&shipped_gpu_play(), A100);
    bench.facts = facts(vec![a100()]);
    bench.facts.init = Init::Other("busybox".to_owned());
    let refusal = bench.refusal();
    assert!(refusal.contains("nothing would go on"), "{refusal}");
}

#[test]
fn parameters_are_ansibles_and_become_steps_around_the_reboot() {
    let bench = allowed(
        "
- hosts: all
  tasks:
    - reboot:
        reboot_timeout: 900
        msg: new kernel
        pre_reboot_delay: 5
        post_reboot_delay_sec: 7
        test_command: systemctl is-system-running
    - copy: {dest: /etc/x, content: y}
",
        "",
    );
    assert_eq!(bench.check(), "");
    let plan = plan_of(&bench);
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    wait 5 s before the reboot
    restart the host
    wait 7 s after the reboot
    check that `systemctl is-system-running` succeeds after the reboot
    write /etc/x
    ");
    let Change::Reboot { why } = &plan.steps[1].change else {
        panic!("{:?}", plan.steps[1]);
    };
    assert_eq!(why, &["task `reboot`: new kernel"]);
    assert_eq!(plan.steps[1].timeout_s, 900);
    for wrong in [
        "{reboot_timeout: 0}",
        "{reboot_timeout: soon}",
        "{post_reboot_delay: 100000000}",
        "{pre_reboot_delay: -1}",
    ] {
        let playbook = format!("\n- hosts: all\n  tasks:\n    - reboot: {wrong}\n");
        let refusal = allowed(&playbook, "").refusal();
        assert!(
            refusal.contains("is a whole number of seconds"),
            "{refusal}"
        );
    }
    let bench = allowed(
        "\n- hosts: all\n  tasks:\n    - reboot: {reboot_command: kexec}\n",
        "",
    );
    let said = bench.check();
    assert!(said.contains("restarted by `systemctl reboot`"), "{said}");
}

#[test]
fn what_cannot_be_undone_stays_on_its_side_of_the_reboot() {
    let bench = allowed(
        "
- hosts: all
  tasks:
    - command: update-grub
    - copy: {dest: /etc/a, content: y}
    - reboot:
    - command: after it
    - copy: {dest: /etc/b, content: y}
",
        "",
    );
    let plan = plan_of(&bench);
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    write /etc/a
    run update-grub
    restart the host
    write /etc/b
    run after it
    ");
    assert!(
        plan.notes.iter().any(
            |note| note.starts_with("made before the reboot, so that it stays")
                && note.contains("`run update-grub`")
        ),
        "{:?}",
        plan.notes
    );
}

#[test]
fn several_reboots_are_one_in_the_place_of_the_last() {
    let bench = allowed(
        "
- hosts: all
  tasks:
    - copy: {dest: /etc/a, content: y}
    - name: One
      reboot: {reboot_timeout: 100, test_command: 'true', pre_reboot_delay: 1}
    - copy: {dest: /etc/b, content: y}
      notify: Two
    - copy: {dest: /etc/c, content: y}
  handlers:
    - name: Two
      reboot: {reboot_timeout: 50}
",
        "",
    );
    let plan = plan_of(&bench);
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    write /etc/a
    write /etc/b
    write /etc/c
    wait 1 s before the reboot
    restart the host
    check that `true` succeeds after the reboot
    ");
    let step = &plan.steps[4];
    let Change::Reboot { why } = &step.change else {
        panic!("{step:?}");
    };
    assert_eq!(why, &["task `One` asks for it", "task `Two` asks for it"]);
    assert_eq!(step.timeout_s, 100);
    assert_eq!(plan.handlers[0].steps, [StepId("reboot".to_owned())]);
    assert_eq!(
        plan.handlers[0].notified_by,
        [StepId("file:/etc/b".to_owned())]
    );
    let note = "several tasks ask for a reboot: there is one, in the place of the last";
    assert!(
        plan.notes.iter().any(|said| said == note),
        "{:?}",
        plan.notes
    );
}

#[test]
fn what_runs_after_the_reboot_is_not_taken_from_before_it() {
    // Both are so now; after a boot the unit, which is not enabled, is stopped.
    let bench = allowed(
        "
- hosts: all
  tasks:
    - reboot:
    - systemd: {name: app, state: started}
    - modprobe: {name: dummy, state: absent}
    - systemd: {name: app, state: started}
",
        "",
    );
    let plan = plan_of(&bench);
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    restart the host
    start unit app.service
    unload kernel module dummy
    ");
    // What is checked before the first change is the state of now.
    assert!(
        plan.steps[1]
            .check
            .to_sh()
            .contains("unit_is app.service active")
    );
    assert!(plan.steps[2].check.to_sh().contains("path_is_absent"));
    for (task, said) in [
        (
            "command: {cmd: uname -r}\n      changed_when: false\n      check_mode: false",
            "which is before the reboot",
        ),
        (
            "copy: {dest: /run/x, content: y}",
            "after the reboot is not known while planning",
        ),
    ] {
        let playbook = format!("\n- hosts: all\n  tasks:\n    - reboot:\n    - {task}\n");
        let refusal = allowed(&playbook, "").refusal();
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[test]
fn a_mode_that_only_a_reboot_changes_is_refused_without_leave() {
    let mut bench = Bench::new(&shipped_gpu_play(), A100);
    bench.facts = facts(vec![a100()]);
    insta::assert_snapshot!(bench.refusal(), @"GPU 0 (0000:17:00.0, NVIDIA A100-SXM4-40GB): MIG mode can be enabled only by a reboot, as the kernel offers no reset of this card; there is no leave for a reboot, so nothing is changed (give leave with `--allow-reboot`, or with `containers_gpu_state_management: {reboot_required: true}`; the plan then restarts the host once and goes on by itself)");
    // One that waits from before is told as such.
    let mut gpu = a100();
    mig(&mut gpu).pending = MigMode::Enabled;
    bench.facts = facts(vec![gpu]);
    let refusal = bench.refusal();
    assert!(
        refusal.contains("the host already waits for a reboot"),
        "{refusal}"
    );
}

#[test]
fn with_leave_the_mode_is_prepared_and_all_else_comes_after_the_reboot() {
    let mut other = h100(1);
    mig(&mut other).current = MigMode::Enabled;
    mig(&mut other).pending = MigMode::Enabled;
    let vars = "
containers_gpu_slicing:
  enabled: true
  strategy: mig
  mig: {profiles: [3g.20gb]}
  gpus:
    - match: {index: 1}
      strategy: none
";
    let mut bench = allowed(&shipped_gpu_play(), vars);
    bench.facts = facts(vec![a100(), other.clone()]);
    let plan = bench.plan();
    insta::assert_snapshot!(titles(&plan)[..6].join("\n"), @r"
    have the reboot enable MIG mode on GPU 0 (0000:17:00.0, NVIDIA A100-SXM4-40GB)
    restart the host
    check that MIG mode of GPU 0 (0000:17:00.0, NVIDIA A100-SXM4-40GB) is enabled by the reboot
    create 1 MIG instance on GPU 0 (0000:17:00.0, NVIDIA A100-SXM4-40GB)
    disable MIG mode on GPU 1 (0000:18:00.0, NVIDIA H100 80GB HBM3)
    make directory /etc/deploy
    ");
    let reboot = &plan.steps[1];
    // It ends what runs on any card, so that all must be idle.
    let check = reboot.check.to_sh();
    assert!(
        check.contains("gpu_idle 0000:17:00.0") && check.contains("gpu_idle 0000:18:00.0"),
        "{check}"
    );
    let Change::Reboot { why } = &reboot.change else {
        panic!("{reboot:?}");
    };
    insta::assert_snapshot!(why.join("\n"), @"MIG mode of GPU 0 (0000:17:00.0, NVIDIA A100-SXM4-40GB) is disabled and can be enabled only after a reboot");
    assert!(plan.steps[0].undo.to_sh().contains("mig_mode_back GPU-0 0"));
    assert_eq!(
        plan.guard.map(|guard| (guard.confirm, guard.window_s)),
        Some((Confirm::NewConnection, 600 + RECONNECT_S))
    );
    // A user of the other card keeps the host from being restarted.
    other.holders = Fact::Known(vec![crate::facts::Holder {
        instances: Vec::new(),
        pid: 7,
        command: "python3".to_owned(),
        unit: Fact::Absent,
        container: Fact::Absent,
    }]);
    bench.facts = facts(vec![a100(), other]);
    let refusal = bench.refusal();
    assert!(refusal.contains("in use by pid 7 (python3"), "{refusal}");
}

#[test]
fn a_mode_that_waits_from_before_needs_no_preparation() {
    let mut bench = allowed(&shipped_gpu_play(), A100);
    let mut gpu = a100();
    mig(&mut gpu).pending = MigMode::Enabled;
    bench.facts = facts(vec![gpu]);
    let plan = bench.plan();
    assert_eq!(plan.steps[0].title, "restart the host");
    let Change::Reboot { why } = &plan.steps[0].change else {
        panic!("{:?}", plan.steps[0]);
    };
    assert!(
        why[0].contains("has been waiting for a reset or a reboot"),
        "{why:?}"
    );
}

#[test]
fn slices_after_a_reboot_task_are_made_again_even_where_they_are_as_wanted() {
    let playbook = format!(
        "{}\n",
        "
- hosts: all
  tasks:
    - gpu_strategy:
    - reboot:
    - gpu_slicing:
    - gpu_validation:
    - copy: {dest: /etc/x, content: y}
      notify: Again
  handlers:
    - name: Again
      reboot:
"
    );
    let vars = "containers_gpu_slicing: {enabled: true, strategy: mig, mig: {profiles: [7g.80gb]}}";
    let mut bench = allowed(&playbook, vars);
    let mut gpu = h100(0);
    *mig(&mut gpu) = MigState {
        current: MigMode::Enabled,
        pending: MigMode::Enabled,
        profiles: Fact::Unknown("no matter".to_owned()),
        instances: Fact::Known(vec![crate::facts::GpuInstance {
            gi_id: 0,
            profile_id: 0,
            profile: "7g.80gb".to_owned(),
            placement: crate::facts::Placement { start: 0, size: 8 },
            compute: Fact::Known(vec![crate::facts::ComputeInstance {
                ci_id: 0,
                profile_id: 0,
                profile: "7g.80gb".to_owned(),
                uuid: Fact::Absent,
            }]),
        }]),
    };
    bench.facts = facts(vec![gpu]);
    let plan = bench.plan();
    insta::assert_snapshot!(titles(&plan).join("\n"), @r"
    write /etc/x
    restart the host
    enable MIG mode on GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3) again, which forgets it at a reboot
    make the 1 MIG instance of GPU 0 (0000:17:00.0, NVIDIA H100 80GB HBM3) again, which a reboot takes away
    check that every card reads back as wanted
    ");
    let check = plan.steps[3].check.to_sh();
    assert!(check.contains("mig_is GPU-0 0:0:8/full"), "{check}");
}

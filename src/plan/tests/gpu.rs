//! The shipped playbook.

use std::path::PathBuf;

use super::*;

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
    let Ok(Planned::Complete(found)) = bench.once(&cache) else {
        panic!("one batch is not enough");
    };
    assert_eq!(titles(&found.plan), Vec::<&str>::new());
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
fn a_host_that_stays_drained_is_told_so() {
    let vars = |undrain: &str| {
        format!("{MIG}\ncontainers_gpu_state_management: {{drain_command: [drain]{undrain}}}\n")
    };
    let stays = |vars: &str| {
        let mut bench = Bench::new(&shipped_gpu_play(), vars);
        bench.facts = facts(vec![h100(0)]);
        let notes = bench.plan().notes;
        notes.iter().any(|note| note.contains("stays drained"))
    };
    assert!(stays(&vars("")));
    assert!(!stays(&vars(", undrain_command: [undrain]")));
}

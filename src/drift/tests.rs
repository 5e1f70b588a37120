use super::*;
use crate::step::PathLook;

pub(super) fn drifted(id: &str) -> Finding {
    let change = Change::Setting {
        subject: id.to_owned(),
        name: "state".to_owned(),
        before: "stopped".to_owned(),
        after: "started".to_owned(),
    };
    let step = Step::new(StepId(id.to_owned()), "t", id.to_owned(), change.clone());
    finding(&step, Some(change), None)
}

fn plan(steps: &[Step]) -> HostPlan {
    HostPlan {
        steps: steps.to_vec(),
        ..HostPlan::default()
    }
}

/// A plan that also looked at `/etc/settled`, which is as wanted.
fn complete(plan: HostPlan) -> Complete {
    let settled = crate::transport::Read::State {
        path: "/etc/settled".to_owned(),
        unless: None,
        limit: 0,
    };
    Complete {
        plan,
        reads: vec![settled],
        files: Vec::new(),
        used: crate::plan::Used::default(),
    }
}

fn file(path: &str, found: &str, after: &str) -> Step {
    let look = |text: &str| PathLook::File {
        mode: 0o644,
        owner: "root".to_owned(),
        group: "root".to_owned(),
        sha256: text.to_owned(),
        size: text.len() as u64,
        text: Some(text.to_owned()),
    };
    let change = Change::Path {
        path: path.to_owned(),
        before: look(found),
        after: look(after),
    };
    let id = StepId(format!("file:{path}"));
    Step::new(id, "t", format!("change {path}"), change)
}

#[test]
fn what_somebody_changed_and_what_is_newly_wanted_are_kept_apart() {
    let edited = file("/etc/edited", "x\n", "a\n");
    let both = file("/etc/both", "1\nX\n3\n", "1\n2\n3\n");
    let newly = file("/etc/both", "1\nX\n3\n", "1\n2\n4\n");
    let new = file("/etc/new", "old\n", "new\n");
    let restart = Step::new(
        StepId("command:x".to_owned()),
        "t",
        "restart".to_owned(),
        Change::Action {
            what: "restart".to_owned(),
        },
    );
    // Found as wanted, though something else was applied: nothing to do.
    let settled = file("/etc/settled", "b\n", "a\n");
    let back = plan(&[edited.clone(), both, settled, restart.clone()]);
    let wanted = plan(&[edited, newly, new.clone(), restart]);
    let found = compare(Some(&back), Some(&complete(wanted)));
    let words: Vec<(&str, &str)> = found
        .iter()
        .map(|finding| (finding.step.0.as_str(), finding.word()))
        .collect();
    assert_eq!(
        words,
        [
            ("file:/etc/edited", "drifted"),
            ("file:/etc/both", "drifted and pending"),
            ("file:/etc/new", "pending"),
        ]
    );
    let lines: Vec<(Side, bool, usize, &str)> = found[1]
        .lines
        .iter()
        .map(|line| (line.side, line.added, line.line, line.text.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            (Side::Drifted, false, 2, "2"),
            (Side::Drifted, true, 2, "X"),
            (Side::Pending, false, 3, "3"),
            (Side::Pending, true, 3, "4"),
        ]
    );

    // Where nothing was ever applied, nothing can have drifted.
    let found = compare(None, Some(&complete(plan(&[new]))));
    assert_eq!(found[0].word(), "pending");
}

#[test]
fn only_what_drifted_is_mended() {
    let edited = file("/etc/edited", "x\n", "a\n");
    let ignored = file("/etc/ignored", "x\n", "a\n");
    let settled = file("/etc/settled", "b\n", "a\n");
    let back = plan(&[edited.clone(), ignored.clone(), settled]);
    let wanted = plan(&[edited, ignored]);
    let mut found = compare(Some(&back), Some(&complete(wanted)));
    found[1].ignored = Some("why not".to_owned());
    let Mending::Part(part) = mending(back.clone(), &back, &found, Finding::is_drifted) else {
        panic!("it can be told apart");
    };
    let ids: Vec<String> = part.steps.iter().map(|step| step.id.to_string()).collect();
    assert_eq!(ids, ["file:/etc/edited"]);
}

#[test]
fn a_plan_with_what_may_belong_to_all_of_it_is_mended_whole_or_not_at_all() {
    let edited = file("/etc/edited", "x\n", "a\n");
    let ignored = file("/etc/ignored", "x\n", "a\n");
    let at_rest = plan(&[edited.clone(), ignored.clone()]);
    let mut found = compare(Some(&at_rest), Some(&complete(at_rest.clone())));
    let unit = |verb: &str, phase: Phase| {
        let change = Change::Setting {
            subject: "unit train".to_owned(),
            name: "state".to_owned(),
            before: "x".to_owned(),
            after: verb.to_owned(),
        };
        let id = StepId(format!("gpu:force:{verb}:train"));
        Step {
            phase,
            ..Step::new(id, "t", format!("{verb} train"), change)
        }
    };
    let act = |change: Change| Step::new(StepId("x".to_owned()), "t", "x".to_owned(), change);
    let what = "run x".to_owned();
    // What is in no plan at rest: the unit that is stopped for as long as it takes, with the
    // looks at what uses the cards, and a setting that only the plan in earnest has.
    let companions = [
        unit("stop", Phase::Drain),
        unit("start", Phase::Undrain),
        unit("else", Phase::InPlace),
        act(Change::Action { what }),
        act(Change::Reboot { why: Vec::new() }),
    ];
    for companion in companions {
        let in_earnest = plan(&[edited.clone(), ignored.clone(), companion]);
        found[1].ignored = None;
        let mend =
            |found: &[Finding]| mending(in_earnest.clone(), &at_rest, found, Finding::is_drifted);
        assert_eq!(mend(&found), Mending::Whole(in_earnest.clone()));
        found[1].ignored = Some("why not".to_owned());
        let Mending::Held(why) = mend(&found) else {
            panic!("{in_earnest:?}");
        };
        assert!(why.contains("needs a person"), "{why}");
        assert!(why.contains("told apart from file:/etc/ignored"), "{why}");
    }
    // A handler that ran may have had no step to do.
    let mut in_earnest = at_rest.clone();
    in_earnest.handlers.push(crate::plan::PlannedHandler {
        name: "restart it".to_owned(),
        notified_by: Vec::new(),
        steps: Vec::new(),
    });
    let mended = mending(in_earnest, &at_rest, &found, Finding::is_drifted);
    assert!(matches!(mended, Mending::Held(why) if why.contains("restart it")));
}

#[test]
fn what_is_wanted_no_longer_and_what_cannot_be_planned_is_told_as_drift() {
    let setting = |id: &str| {
        let change = Change::Setting {
            subject: id.to_owned(),
            name: "state".to_owned(),
            before: "stopped".to_owned(),
            after: "started".to_owned(),
        };
        Step::new(StepId(id.to_owned()), "t", id.to_owned(), change)
    };
    let dropped = file("/etc/dropped", "x\n", "a\n");
    let settled = file("/etc/settled", "b\n", "a\n");
    let unit = setting("unit:gone.service:state");
    let layout = setting("mig:0000:17:00.0:layout");
    let back = plan(&[dropped, settled, unit, layout]);
    let ids = |found: &[Finding]| -> Vec<String> {
        assert!(found.iter().all(|finding| finding.word() == "drifted"));
        found.iter().map(|finding| finding.step.0.clone()).collect()
    };
    let mut wanted = complete(plan(&[]));
    wanted.plan.desired = serde_json::json!({ "slices": [{ "pci": "0000:17:00.0" }] });
    let found = compare(Some(&back), Some(&wanted));
    assert_eq!(
        ids(&found),
        ["file:/etc/dropped", "unit:gone.service:state"]
    );
    let found = compare(Some(&back), None);
    assert_eq!(ids(&found).len(), 4);
}

#[test]
fn what_stands_in_a_files_place_is_shown_and_left_to_a_person() {
    let edited = file("/etc/edited", "x\n", "a\n");
    let back = plan(std::slice::from_ref(&edited));
    let mut found = compare(Some(&back), Some(&complete(plan(&[edited]))));
    let look = PathLook::Directory {
        mode: 0o755,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    };
    stands_instead(&mut found, "/etc/edited", &look);
    assert!(
        found[0]
            .held
            .as_deref()
            .is_some_and(|why| why.contains("a folder stands"))
    );
    assert!(matches!(&found[0].drift, Some(Change::Path { before, .. }) if *before == look));
}

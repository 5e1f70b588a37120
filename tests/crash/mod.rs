//! The crash matrix: every fault at every point of a run. Afterwards the host is as
//! it was before or as it was to be, the lock is free, what the controller said is
//! so, and the next run succeeds.
//!
//! A point is a call of an external program by the run's scripts on the host: all that
//! they do to a host, they do by one. A wrapper before the program stops the run
//! there while the fault is committed, so that no case depends on time.
//!
//! `DEPLOY_CRASH_CASE=FAULT/PHASE/N/MOMENT` runs one case, `DEPLOY_CRASH_FAULT=FAULT,…` those
//! of some faults, `DEPLOY_CRASH=all` each fault in each phase of each step. With
//! `DEPLOY_CRASH_POINTS` all points are told.

mod case;
mod fault;
mod lab;
mod look;
mod points;
mod relay;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use case::{Case, Ends};
use fault::{FAULTS, Fault, MOMENTS, Moment};
use lab::{Kind, Lab};
use points::Point;

/// Hosts at work at the same time. More than processors: they often wait.
const SLOTS: usize = 8;

/// Tells the terminal even where the test's own output is kept back.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[test]
fn the_crash_matrix_on_simulated_hosts_without_systemd() {
    let _alone = ALONE.lock();
    if lab::inside("crash::the_crash_matrix_on_simulated_hosts_without_systemd") {
        matrix(Kind::Process);
    }
}

#[test]
fn the_crash_matrix_on_simulated_hosts() {
    let _alone = ALONE.lock();
    if lab::inside("crash::the_crash_matrix_on_simulated_hosts") {
        matrix(Kind::Systemd);
    }
}

/// One matrix at a time: each has work for all processors.
static ALONE: Mutex<()> = Mutex::new(());

fn matrix(kind: Kind) {
    let slots = asked("DEPLOY_CRASH_SLOTS").map_or(SLOTS, |text| text.parse().expect("a number"));
    let mut lab = Lab::start(kind, slots);
    let (points, left) = points::points(&lab.slots[0]);
    let ends = Ends {
        after: look::look(&lab.slots[0].root),
        before: lab.before.clone(),
    };
    assert_ne!(ends.before, ends.after);
    tell(&format!(
        "crash matrix: {} points in {} phases; {left} calls of processes that only wait are none",
        points.len(),
        phases(&points).len()
    ));
    if asked("DEPLOY_CRASH_POINTS").is_some() {
        for (phase, point) in points.iter().map(|point| (&point.phase, point)) {
            tell(&format!("{phase:<14} {} #{}", point.pattern, point.nth));
        }
    }
    let cases = cases(kind, &points);
    let failed = run_all(&lab, &ends, &cases);
    assert!(
        lab.is_whole(),
        "a script of a host ended the server of the fleet"
    );
    assert!(
        failed.is_empty(),
        "{} cases failed: {failed:#?}",
        failed.len()
    );
}

/// The phases in their order, and the points of each.
fn phases(points: &[Point]) -> Vec<(String, Vec<Point>)> {
    let mut phases: Vec<(String, Vec<Point>)> = Vec::new();
    for point in points {
        match phases.iter_mut().find(|(name, _)| *name == point.phase) {
            Some((_, points)) => points.push(point.clone()),
            None => phases.push((point.phase.clone(), vec![point.clone()])),
        }
    }
    phases
}

/// The cases that are asked for. By default each fault once in each kind of phase (the
/// steps are of one kind), with `DEPLOY_CRASH=all` in each phase: at its first call, at its
/// last, or between, in turns.
fn cases(kind: Kind, points: &[Point]) -> Vec<Case> {
    let one = asked("DEPLOY_CRASH_CASE");
    let only = asked("DEPLOY_CRASH_FAULT");
    let all = one.is_some() || asked("DEPLOY_CRASH").is_some_and(|text| text == "all");
    let mut cases = Vec::new();
    for (number, fault) in FAULTS.into_iter().enumerate() {
        // A guard that is a process does not outlive a restart, and its plan says so.
        if kind == Kind::Process && fault == Fault::PowerCut {
            continue;
        }
        if only
            .as_ref()
            .is_some_and(|only| only.split(',').all(|name| name != fault.to_string()))
        {
            continue;
        }
        let mut phases = phases(points);
        if !all {
            phases = one_of_each_kind(phases, number);
        }
        for (turn, (_, points)) in phases.into_iter().enumerate() {
            let turn = turn + number;
            let places: Vec<usize> = match one {
                Some(_) => (0..points.len()).collect(),
                None => vec![match turn % 3 {
                    0 => 0,
                    1 => points.len() - 1,
                    _ => turn * 7 % points.len(),
                }],
            };
            for place in places {
                for moment in moments(fault, turn, one.is_some()) {
                    cases.push(Case {
                        fault,
                        moment,
                        point: points[place].clone(),
                        place: place + 1,
                    });
                }
            }
        }
    }
    if let Some(one) = one {
        cases.retain(|case| case.to_string() == one);
        assert!(!cases.is_empty(), "there is no case {one}");
    }
    cases
}

/// Of the phases of each kind one, another for each fault.
fn one_of_each_kind(phases: Vec<(String, Vec<Point>)>, number: usize) -> Vec<(String, Vec<Point>)> {
    let mut kinds: Vec<(String, Vec<(String, Vec<Point>)>)> = Vec::new();
    for phase in phases {
        let kind = kind_of(&phase.0).to_owned();
        match kinds.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, phases)) => phases.push(phase),
            None => kinds.push((kind, vec![phase])),
        }
    }
    kinds
        .into_iter()
        .map(|(_, mut phases)| phases.swap_remove(number * 5 % phases.len()))
        .collect()
}

/// `apply`, `verify` and `after` have the number of their step behind them.
fn kind_of(phase: &str) -> &str {
    phase.split(' ').next().unwrap_or_default()
}

fn moments(fault: Fault, turn: usize, all: bool) -> Vec<Moment> {
    match (fault.has_moments(), all) {
        (false, _) => vec![Moment::Before],
        (true, true) => MOMENTS.to_vec(),
        (true, false) => vec![MOMENTS[turn / 2 % 3]],
    }
}

/// Runs all, tells how each phase went, and gives back those that failed.
fn run_all(lab: &Lab, ends: &Ends, cases: &[Case]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let counts: Mutex<BTreeMap<(Fault, String), usize>> = Mutex::default();
    thread::scope(|scope| {
        for slot in &lab.slots {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let result = case.run(slot, ends);
                    let group = kind_of(&case.point.phase);
                    *counts
                        .lock()
                        .expect("nobody panics with it")
                        .entry((case.fault, group.to_owned()))
                        .or_default() += 1;
                    if let Err(problem) = result {
                        tell(&format!(
                            "FAILED {case} ({} #{}): {problem}\n",
                            case.point.pattern, case.point.nth
                        ));
                        failed
                            .lock()
                            .expect("nobody panics with it")
                            .push(case.to_string());
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().expect("nobody panicked");
    tell(&table(&counts));
    let failed = failed.into_inner().expect("nobody panicked");
    tell(&format!(
        "crash matrix: {} cases, {} failed",
        cases.len(),
        failed.len()
    ));
    failed
}

/// How many cases ran, by fault and kind of phase.
fn table(counts: &BTreeMap<(Fault, String), usize>) -> String {
    let mut groups: Vec<&String> = counts.keys().map(|(_, group)| group).collect();
    groups.sort();
    groups.dedup();
    let mut text = format!("{:<16}", "cases");
    for group in &groups {
        let _ = write!(text, "{group:>12}");
    }
    for fault in FAULTS {
        let _ = write!(text, "\n{:<16}", fault.to_string());
        for group in &groups {
            let count = counts.get(&(fault, (*group).clone())).unwrap_or(&0);
            let _ = write!(text, "{count:>12}");
        }
    }
    text
}

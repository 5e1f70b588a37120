//! The crash matrix: every fault at every point of a run. Afterwards the host is as
//! it was before or as it was to be, the lock is free, what the controller said is
//! so, and the next run succeeds.
//!
//! A point is a call of an external program by the run's scripts on the host: all that
//! they do to a host, they do by one. A wrapper before the program stops the run
//! there while the fault is committed, so that no case depends on time.
//!
//! Two runs are hit: one that would end well, and one whose last step fails, while it
//! is undone.
//!
//! What is tried is chosen by variables of the environment (`choice`):
//!
//! - by default each fault once in each kind of phase, and in each step the loss of the
//!   runner, of the controller and of the line between them; without systemd a fourth of
//!   the former, and the loss of the runner in each step. Always the same cases;
//! - `DEPLOY_CRASH=all`: each fault in each phase of each step;
//! - `DEPLOY_CRASH_FOR=30m` (`s`, `m`, `h`; for each of the two guards): random faults at
//!   random points. The seed is told at the start and with each failure, and
//!   `DEPLOY_CRASH_SEED=N` tries the same again;
//! - `DEPLOY_CRASH_CASE=FAULT/PHASE/N/MOMENT`, as a failure names it: that one, with
//!   `DEPLOY_CRASH_FOR` again and again;
//! - `DEPLOY_CRASH_FAULT=FAULT,…` with any of these but the last: only these faults.
//!
//! `DEPLOY_CRASH_POINTS` tells all points, `DEPLOY_CRASH_SLOTS` says how many hosts are at
//! work at a time, `DEPLOY_CRASH_PATIENCE` after how many seconds a host is said to hang.

mod case;
mod choice;
mod fault;
mod lab;
mod look;
mod points;
mod relay;
mod sshd;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use case::Ends;
use choice::{Choice, kind_of, phases};
use fault::{FAULTS, Fault};
use lab::{Kind, Lab};

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
    let (mut points, mut left) = points::points(&lab.slots[0], None);
    let ends = Ends {
        after: look::look(&lab.slots[0].root),
        before: lab.before.clone(),
    };
    assert_ne!(ends.before, ends.after);
    let (of_undo, left_of_undo) = points::of_undo(&lab.slots[0], &points);
    points.extend(of_undo);
    left += left_of_undo;
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
    let failed = run_all(&lab, &ends, choice::choice(kind, &points));
    assert!(
        lab.is_whole(),
        "a script of a host ended the server of the fleet"
    );
    assert!(
        failed.is_empty(),
        "{} cases failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// Characters of a failed case's story that stand at the end, where they are found.
const STORY: usize = 4000;

/// Runs all, tells how each phase went, and gives back those that failed.
fn run_all(lab: &Lab, ends: &Ends, choice: Choice) -> Vec<String> {
    let again = choice.again();
    tell(&again);
    let next = Mutex::new(choice);
    let next = || next.lock().expect("nobody panics with it").next();
    let start = Instant::now();
    let failed = Mutex::new(Vec::<String>::new());
    let counts: Mutex<BTreeMap<(Fault, String), usize>> = Mutex::default();
    thread::scope(|scope| {
        for slot in &lab.slots {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let result = case.run(slot, ends);
                    let group = kind_of(&case.point.phase);
                    let ran = {
                        let mut counts = counts.lock().expect("nobody panics with it");
                        *counts.entry((case.fault, group.to_owned())).or_default() += 1;
                        counts.values().sum::<usize>()
                    };
                    if ran.is_multiple_of(50) {
                        let time = start.elapsed().as_secs();
                        tell(&format!("crash matrix: {ran} cases after {time} s"));
                    }
                    if let Err(problem) = result {
                        let story = format!(
                            "FAILED {case} ({} #{}; {again}): {problem}\n",
                            case.point.pattern, case.point.nth
                        );
                        tell(&story);
                        failed
                            .lock()
                            .expect("nobody panics with it")
                            .push(story.chars().take(STORY).collect());
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().expect("nobody panicked");
    tell(&table(&counts));
    let failed = failed.into_inner().expect("nobody panicked");
    tell(&format!(
        "crash matrix: {} cases in {} s, {} failed",
        counts.values().sum::<usize>(),
        start.elapsed().as_secs(),
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

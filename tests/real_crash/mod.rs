//! The crash matrix on real hosts: something befalls a run of the fixture's plan (MIG,
//! time slices, virtual functions, files, units) at a known call of a program. Afterwards
//! the host is as before or as it was to be, nobody is at work, the exit code says which
//! it is, and the next run succeeds.
//!
//! Programs that change or flush something have a wrapper before them that stops the run
//! at the call a case is about, so that no case depends on time. By default each fault
//! comes once, at calls that are spread over the run. `DEPLOY_CRASH=all` has each fault in
//! each step, and before, between and after them. More is asked for by `DEPLOY_CRASH_REAL` (cases on each kind of host, at random calls); their seed is
//! printed, and `DEPLOY_CRASH_SEED` repeats it. `DEPLOY_CRASH_FAULT` names the one fault
//! to be tried.

mod case;

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hosts::{Hosts, Kind, available};
use case::{Call, Case, FAULTS, Fault, Slot};

/// Hosts at work at the same time: they often wait.
const SLOTS: usize = 4;

#[test]
fn the_crash_matrix_on_hosts_without_systemd() {
    matrix(Kind::Overlay);
}

#[test]
fn the_crash_matrix_on_hosts_with_systemd() {
    matrix(Kind::Systemd);
}

fn matrix(kind: Kind) {
    if !available() {
        return;
    }
    let hosts = Hosts::up(kind, SLOTS, 0);
    let slots: Vec<Slot> = std::thread::scope(|scope| {
        let names: Vec<String> = (1..=SLOTS).map(|n| format!("h{n}")).collect();
        let hosts = &hosts;
        let slots: Vec<_> = names
            .into_iter()
            .map(|name| scope.spawn(move || Slot::new(hosts, name)))
            .collect();
        slots
            .into_iter()
            .map(|slot| slot.join().expect("an undisturbed run"))
            .collect()
    });
    let cases = cases(kind, &slots[0].calls);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for slot in &slots {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = slot.run(case);
                    let word = if result.is_ok() { "ok" } else { "FAILED" };
                    tell(&format!("{kind:?} host: {case}: {word}"));
                    if let Err(problem) = result {
                        let text = format!("{case}: {problem}");
                        failed.lock().expect("no panic holds it").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic holds it");
    tell(&format!(
        "crash matrix on real hosts ({kind:?}): {} cases over {} calls, {} failed",
        cases.len(),
        slots[0].calls.len(),
        failed.len()
    ));
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Each fault once, each in another part of the run; or as many as are asked for.
fn cases(kind: Kind, calls: &[Call]) -> Vec<Case> {
    let only = std::env::var("DEPLOY_CRASH_FAULT").ok();
    let faults: Vec<(usize, Fault)> = FAULTS
        .into_iter()
        .enumerate()
        .filter(|(_, fault)| fault.happens_to(kind))
        .filter(|(_, fault)| {
            only.as_ref()
                .is_none_or(|only| *only == format!("{fault:?}"))
        })
        .collect();
    assert!(!faults.is_empty(), "there is no such fault");
    // What the plan was made from comes before the first change to the host.
    let first = calls
        .iter()
        .position(|call| call.words.starts_with("sync "));
    let first = first.expect("a run is flushed to disk");
    let span = calls.len() - first;
    if std::env::var("DEPLOY_CRASH").is_ok_and(|text| text == "all") {
        return in_each_stage(&faults, calls, first);
    }
    let asked = std::env::var("DEPLOY_CRASH_REAL").ok();
    let Some(count) = asked.filter(|text| !text.is_empty()) else {
        let place = |turn: usize| first + 1 + (turn * span * 5 / 13) % span;
        let case = |(turn, fault)| Case::new(fault, place(turn), turn % 2 == 0, calls);
        return faults.into_iter().map(case).collect();
    };
    let seed = std::env::var("DEPLOY_CRASH_SEED").map_or_else(
        |_| u64::from(std::process::id()) << 20 | 7,
        |text| text.parse().expect("the seed is a number"),
    );
    tell(&format!("DEPLOY_CRASH_SEED={seed}"));
    let mut random = Random(seed);
    (0..count.parse().expect("a number of cases"))
        .map(|_| {
            let (_, fault) = faults[random.below(faults.len())];
            let place = first + 1 + random.below(span);
            Case::new(fault, place, random.below(2) == 0, calls)
        })
        .collect()
}

/// Each fault in each stage behind the `first` calls, each at another call of it.
fn in_each_stage(faults: &[(usize, Fault)], calls: &[Call], first: usize) -> Vec<Case> {
    let mut stages: Vec<(&str, Vec<usize>)> = Vec::new();
    for (place, call) in calls.iter().enumerate().skip(first) {
        match stages.iter_mut().find(|(stage, _)| *stage == call.stage) {
            Some((_, places)) => places.push(place + 1),
            None => stages.push((&call.stage, vec![place + 1])),
        }
    }
    tell(&format!(
        "{} stages of the run: {}",
        stages.len(),
        stages
            .iter()
            .map(|(stage, places)| format!("{stage} ({})", places.len()))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    let case = |(number, fault): &(usize, Fault), turn: usize, places: &[usize]| {
        let place = places[(number + turn) * places.len() / (FAULTS.len() + 1) % places.len()];
        Case::new(*fault, place, (number + turn).is_multiple_of(2), calls)
    };
    stages
        .iter()
        .enumerate()
        .flat_map(|(turn, (_, places))| faults.iter().map(move |fault| case(fault, turn, places)))
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("it is smaller than a bound")
    }
}

/// Tells the terminal even where the test's own output is kept back.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

//! Which cases are tried: by default the same ones each time, or all, or one, or random
//! ones for as long as one is willing to let them run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::case::Case;
use super::fault::{FAULTS, Fault, MOMENTS, Moment};
use super::lab::Kind;
use super::points::Point;
use super::{asked, tell};

/// Phases in their order, and the points of each.
pub(super) type Phases = Vec<(String, Vec<Point>)>;

/// The cases to try, one after the other.
pub(super) enum Choice {
    /// These.
    Listed(std::vec::IntoIter<Case>),
    /// One, again and again.
    Again {
        case: Box<Case>,
        /// When to stop.
        until: Instant,
    },
    /// Random ones.
    Random {
        /// What they follow from.
        seed: u64,
        /// The generator's state.
        state: u64,
        /// When to stop.
        until: Instant,
        faults: Vec<Fault>,
        phases: Phases,
    },
}

impl Choice {
    /// How to have the same cases again.
    pub(super) fn again(&self) -> String {
        match self {
            Self::Listed(cases) => format!("crash matrix: {} cases", cases.len()),
            Self::Again { case, .. } => format!("DEPLOY_CRASH_CASE={case}"),
            Self::Random { seed, .. } => format!("DEPLOY_CRASH_SEED={seed}"),
        }
    }
}

impl Iterator for Choice {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        match self {
            Self::Listed(cases) => cases.next(),
            Self::Again { case, until } => (Instant::now() < *until).then(|| Case::clone(case)),
            Self::Random {
                state,
                until,
                faults,
                phases,
                ..
            } => {
                if Instant::now() >= *until {
                    return None;
                }
                let fault = faults[below(state, faults.len())];
                let points = &phases[below(state, phases.len())].1;
                let place = below(state, points.len());
                let moment = MOMENTS[below(state, MOMENTS.len())];
                Some(Case {
                    fault,
                    moment,
                    point: points[place].clone(),
                    place: place + 1,
                })
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed everywhere.
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % bound as u64).expect("it is smaller than a bound")
}

/// What the environment asks for.
pub(super) fn choice(kind: Kind, points: &[Point]) -> Choice {
    let faults = faults(kind);
    let time = asked("DEPLOY_CRASH_FOR").map(|text| duration(&text));
    if let Some(name) = asked("DEPLOY_CRASH_CASE") {
        let mut cases = every(&faults, points);
        cases.retain(|case| case.to_string() == name);
        let case = cases.pop();
        let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
        return match time {
            Some(time) => Choice::Again {
                case: Box::new(case),
                until: Instant::now() + time,
            },
            None => Choice::Listed(vec![case].into_iter()),
        };
    }
    let seed = asked("DEPLOY_CRASH_SEED").map(|text| text.parse().expect("the seed is a number"));
    if seed.is_some() || time.is_some() {
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("it is after 1970").as_secs()
        });
        return Choice::Random {
            seed,
            state: seed,
            until: Instant::now() + time.unwrap_or(Duration::from_secs(300)),
            faults,
            phases: phases(points),
        };
    }
    let all = asked("DEPLOY_CRASH").is_some_and(|text| text == "all");
    // Without systemd the runner is the same one: a fourth of the cases tells what the other
    // guard makes of it.
    let one_of = match kind {
        Kind::Process if !all => 4,
        _ => 1,
    };
    let mut cases = sample(&faults, points, all, one_of);
    if !all {
        let mut losses = vec![Fault::KillRunner, Fault::KillController, Fault::Cut];
        if kind == Kind::Process {
            losses.truncate(1);
        }
        losses.retain(|fault| faults.contains(fault));
        let mut more = of_each_step(&losses, points);
        if kind == Kind::Systemd {
            let mut faults = faults.clone();
            faults.retain(|fault| matches!(fault, Fault::ReadOnlyEtc | Fault::PowerLoss));
            more.extend(at_each_call_of_arming(&faults, points));
        }
        for case in more {
            if !cases
                .iter()
                .any(|other| other.to_string() == case.to_string())
            {
                cases.push(case);
            }
        }
    }
    Choice::Listed(cases.into_iter())
}

/// `90s`, `30m` or `2h`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("DEPLOY_CRASH_FOR is a number of `s`, `m` or `h`, not {text}"),
    };
    Duration::from_secs(seconds * number.parse::<u64>().expect("a number before the unit"))
}

/// Those that are asked for, and that such a host can have.
fn faults(kind: Kind) -> Vec<Fault> {
    let only = asked("DEPLOY_CRASH_FAULT");
    let wanted = |fault: &Fault| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|name| name == fault.to_string()))
    };
    let mut faults: Vec<Fault> = FAULTS.into_iter().filter(wanted).collect();
    if kind == Kind::Process && faults.iter().any(|fault| fault.boots()) {
        tell(
            "crash matrix: no restart and no power loss without systemd: there the guard is a \
             process, which does not outlive them, as the plan says",
        );
        faults.retain(|fault| !fault.boots());
    }
    assert!(!faults.is_empty(), "there is nothing to try");
    faults
}

/// Each fault at each point at each moment.
fn every(faults: &[Fault], points: &[Point]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (_, points) in phases(points) {
        for (place, point) in points.into_iter().enumerate() {
            for fault in faults {
                let moments: &[Moment] = match fault.has_moments() {
                    true => &MOMENTS,
                    false => &[Moment::Before],
                };
                cases.extend(moments.iter().map(|moment| Case {
                    fault: *fault,
                    moment: *moment,
                    point: point.clone(),
                    place: place + 1,
                }));
            }
        }
    }
    cases
}

/// Each fault once in each kind of phase (the steps are of one kind), or in each phase: at
/// its first call, at its last, or between, in turns. Of these `one_of` so many, such that
/// no fault and no phase is left out.
fn sample(faults: &[Fault], points: &[Point], all: bool, one_of: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for fault in faults {
        // The same whichever others are asked for.
        let number = FAULTS.iter().position(|other| other == fault);
        let number = number.expect("it is one of them");
        let mut phases = phases(points);
        if !all {
            phases = one_of_each_kind(phases, number);
        }
        for (turn, (_, points)) in phases.into_iter().enumerate() {
            let turn = turn + number;
            if turn % one_of != 0 {
                continue;
            }
            let place = match turn % 3 {
                0 => 0,
                1 => points.len() - 1,
                _ => turn * 7 % points.len(),
            };
            cases.push(Case {
                fault: *fault,
                moment: MOMENTS[turn / 2 % 3],
                point: points[place].clone(),
                place: place + 1,
            });
        }
    }
    cases
}

/// Whoever is at work is lost while each step is made: the runner, the controller, or the
/// line between them.
fn of_each_step(losses: &[Fault], points: &[Point]) -> Vec<Case> {
    let mut phases = phases(points);
    phases.retain(|(phase, _)| kind_of(phase) == "apply");
    let mut cases = Vec::new();
    for (step, (_, points)) in phases.iter().enumerate() {
        for (number, fault) in losses.iter().enumerate() {
            let place = (step * 5 + number * 3) % points.len();
            cases.push(Case {
                fault: *fault,
                moment: MOMENTS[(step + number) % 3],
                point: points[place].clone(),
                place: place + 1,
            });
        }
    }
    cases
}

/// The folder of the guard's boot unit gets read-only, or the power is lost, between any two
/// things that arming does there: once, half of the unit stayed, and nothing was left to take
/// it away.
fn at_each_call_of_arming(faults: &[Fault], points: &[Point]) -> Vec<Case> {
    let mut phases = phases(points);
    phases.retain(|(phase, _)| phase == "arming");
    let points: Vec<Point> = phases.into_iter().flat_map(|(_, points)| points).collect();
    let at = |fault: Fault| {
        let points = points.iter().cloned().enumerate();
        points.map(move |(place, point)| Case {
            fault,
            moment: Moment::Before,
            point,
            place: place + 1,
        })
    };
    faults.iter().flat_map(|fault| at(*fault)).collect()
}

/// The phases in their order, and the points of each.
pub(super) fn phases(points: &[Point]) -> Phases {
    let mut phases: Phases = Vec::new();
    for point in points {
        match phases.iter_mut().find(|(name, _)| *name == point.phase) {
            Some((_, points)) => points.push(point.clone()),
            None => phases.push((point.phase.clone(), vec![point.clone()])),
        }
    }
    phases
}

/// Of the phases of each kind one, another for each fault.
fn one_of_each_kind(phases: Phases, number: usize) -> Vec<(String, Vec<Point>)> {
    let mut kinds: Vec<(String, Phases)> = Vec::new();
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

/// `apply`, `verify`, `after` and `undo` have the number of their step behind them.
pub(super) fn kind_of(phase: &str) -> &str {
    phase.split(' ').next().unwrap_or_default()
}

//! The keeper of a timer: when it elapses next, as systemd's own computation has
//! it, and starting the unit then.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::sim::machine::Host;

use super::files::{self, Settings};
use super::process::uptime;
use super::state::{Record, State, Units, peek, stop_request};
use super::{exists, job, span};

/// How often a timer looks at its unit and at requests, at least.
const LOOK: Duration = Duration::from_millis(50);

/// What a time counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Active,
    Boot,
    UnitActive,
    UnitInactive,
}

const BASES: [(&str, Base); 5] = [
    ("OnActiveSec", Base::Active),
    ("OnBootSec", Base::Boot),
    ("OnStartupSec", Base::Boot),
    ("OnUnitActiveSec", Base::UnitActive),
    ("OnUnitInactiveSec", Base::UnitInactive),
];

/// One of a timer's times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Elapse {
    base: Base,
    after: u64,
    /// A one-time trigger that was had.
    spent: bool,
}

fn elapses(settings: &Settings) -> Vec<Elapse> {
    let mut all = Vec::new();
    for (key, base) in BASES {
        let values = settings.get(&("Timer".to_owned(), key.to_owned()));
        all.extend(
            values
                .into_iter()
                .flatten()
                .filter_map(|value| span::parse(value))
                .map(|after| Elapse {
                    base,
                    after,
                    spent: false,
                }),
        );
    }
    all
}

/// What the next time depends on, all in microseconds of the uptime.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    now: u64,
    activated: u64,
    booted: u64,
    last_trigger: u64,
    unit_active: u64,
    unit_inactive: u64,
}

/// When the timer elapses next. A one-time trigger that is over is spent.
fn next(elapses: &mut [Elapse], at: Moments) -> Option<u64> {
    let mut next: Option<u64> = None;
    for elapse in elapses {
        let base = match elapse.base {
            _ if elapse.spent => continue,
            Base::Active => at.activated,
            Base::Boot => at.booted,
            Base::UnitActive | Base::UnitInactive => {
                let last = match elapse.base {
                    Base::UnitActive => at.unit_active,
                    _ => at.unit_inactive,
                };
                // A unit that never ran gives no time to count from.
                match last.max(at.last_trigger) {
                    0 => continue,
                    base => base,
                }
            }
        };
        let time = base.saturating_add(elapse.after);
        let once = matches!(elapse.base, Base::Active | Base::Boot);
        if once && at.last_trigger > 0 && time < at.now {
            elapse.spent = true;
            continue;
        }
        next = Some(next.map_or(time, |other| other.min(time)));
    }
    next
}

/// Starts a timer and keeps it until it is stopped or over.
pub(super) fn keep(host: &Host, unit: &str) -> io::Result<()> {
    if !job::wait_for_turn(host, unit)? {
        return job::give_up(host, unit);
    }
    let settings = files::settings(host, unit);
    if job::is_unwanted(host, &settings) {
        return job::skip(host, unit);
    }
    let mut elapses = elapses(&settings);
    let started = files::unit_of_timer(host, unit);
    let calendar = settings.contains_key(&("Timer".to_owned(), "OnCalendar".to_owned()));
    let follows = calendar
        || elapses
            .iter()
            .any(|elapse| matches!(elapse.base, Base::UnitActive | Base::UnitInactive));
    let remains = files::one(&settings, "Timer", "RemainAfterElapse");
    let remains = follows || !matches!(remains.as_deref(), Some("no" | "false" | "0" | "off"));
    let mut at = Moments {
        activated: uptime(),
        booted: super::boot::booted_at(host),
        ..Moments::default()
    };
    change(host, unit, |record| {
        record.active = State::Active;
        "waiting".clone_into(&mut record.sub);
        record.result.clear();
        record.active_enter = at.activated;
        record.inactive_exit = at.activated;
        record.starting = false;
    })?;
    let mut shown = None;
    let request = stop_request(host, unit);
    loop {
        if !exists(host) {
            return Ok(());
        }
        if request.exists() {
            return end(host, unit, "");
        }
        let record = peek(host, &started);
        at.now = uptime();
        at.unit_active = record.inactive_exit;
        at.unit_inactive = record.inactive_enter;
        let running = record.is_up() || record.starting;
        let (sub, time) = if running && at.last_trigger > 0 {
            ("running", None)
        } else {
            match next(&mut elapses, at) {
                Some(time) => ("waiting", Some(time)),
                None if remains => ("elapsed", None),
                None => return end(host, unit, ""),
            }
        };
        if time.is_some_and(|time| time <= at.now) {
            at.last_trigger = at.now;
            change(host, unit, |record| {
                "running".clone_into(&mut record.sub);
                record.next_elapse = None;
                record.last_trigger = at.now;
            })?;
            let trigger = [
                ("TRIGGER_UNIT".to_owned(), unit.to_owned()),
                (
                    "TRIGGER_TIMER_MONOTONIC_USEC".to_owned(),
                    at.now.to_string(),
                ),
            ];
            match job::start(host, &started, job::Order::Kept, &trigger)? {
                job::Answer::Accepted => {}
                _ => return end(host, unit, "resources"),
            }
            continue;
        }
        if shown != Some((sub, time)) {
            change(host, unit, |record| {
                sub.clone_into(&mut record.sub);
                record.next_elapse = time;
            })?;
            shown = Some((sub, time));
        }
        let left = time.map_or(u64::MAX, |time| time.saturating_sub(uptime()));
        sleep(LOOK.min(Duration::from_micros(left)));
    }
}

fn change(host: &Host, unit: &str, change: impl FnOnce(&mut Record)) -> io::Result<()> {
    Units::open(host)?.change(unit, change)
}

fn end(host: &Host, unit: &str, result: &str) -> io::Result<()> {
    let mut units = Units::open(host)?;
    let _ = std::fs::remove_file(stop_request(host, unit));
    units.change(unit, |record| {
        record.active = if result.is_empty() {
            State::Inactive
        } else {
            State::Failed
        };
        record.sub.clear();
        result.clone_into(&mut record.result);
        record.starting = false;
        record.keeper = None;
        record.next_elapse = None;
        record.inactive_enter = uptime();
    })?;
    units.sweep()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elapse(base: Base, after: u64) -> Elapse {
        Elapse {
            base,
            after,
            spent: false,
        }
    }

    // The guard's own: `--on-active=10 --on-unit-inactive=10`.
    #[test]
    fn a_timer_goes_on_from_the_end_of_its_unit() {
        let mut times = [elapse(Base::UnitInactive, 10), elapse(Base::Active, 10)];
        let mut at = Moments {
            now: 100,
            activated: 100,
            ..Moments::default()
        };
        assert_eq!(next(&mut times, at), Some(110));
        at.now = 111;
        at.last_trigger = 110;
        at.unit_inactive = 115;
        assert_eq!(next(&mut times, at), Some(125));
        assert!(times[1].spent, "the time after the activation comes once");
    }

    #[test]
    fn a_timer_without_repetition_is_over_after_its_time() {
        let mut times = [elapse(Base::Active, 5)];
        let at = Moments {
            now: 110,
            activated: 100,
            last_trigger: 106,
            unit_inactive: 108,
            ..Moments::default()
        };
        assert_eq!(next(&mut times, at), None);
    }

    #[test]
    fn a_unit_that_never_ran_gives_no_time() {
        let mut times = [elapse(Base::UnitActive, 5)];
        assert_eq!(next(&mut times, Moments::default()), None);
    }

    #[test]
    fn a_boot_long_ago_elapses_at_once() {
        let mut times = [elapse(Base::Boot, 5)];
        let at = Moments {
            now: 100,
            activated: 100,
            booted: 1,
            ..Moments::default()
        };
        assert_eq!(next(&mut times, at), Some(6));
    }
}

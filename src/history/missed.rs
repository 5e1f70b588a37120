//! Which runs of a schedule never began, reckoned from those that did.

use jiff::Timestamp;

/// Runs that are missing before one that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// How many.
    pub count: u32,
    /// When the last one before began.
    pub last: Timestamp,
}

/// The runs that are missing between the last of `began` and now, of a schedule with a run
/// each `every` seconds; none where no run is known: a first one misses nothing.
///
/// A timer spreads its runs by a tenth of the span and they wait for the network, so that a
/// run counts as missing only when half a span more has gone by than should have.
#[must_use]
pub fn missed(
    now: Timestamp,
    every: u32,
    began: impl IntoIterator<Item = Timestamp>,
) -> Option<Missed> {
    let last = began.into_iter().filter(|at| *at <= now).max()?;
    let every = i64::from(every.max(1));
    let gone = now.as_second() - last.as_second();
    let spans = (gone + every / 2) / every;
    let count = u32::try_from(spans - 1).unwrap_or_default();
    (count > 0).then_some(Missed { count, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn count(now: i64, began: &[i64]) -> u32 {
        let began = began.iter().map(|second| at(*second));
        missed(at(now), 3600, began).map_or(0, |missed| missed.count)
    }

    #[test]
    fn a_run_is_missing_when_half_a_span_more_has_gone_by() {
        assert_eq!(count(3600, &[]), 0);
        assert_eq!(count(3600, &[0]), 0);
        assert_eq!(count(5399, &[0]), 0);
        assert_eq!(count(5400, &[0]), 1);
        assert_eq!(count(7200, &[0]), 1);
        assert_eq!(count(7 * 3600 + 300, &[0, 60]), 6);
    }

    #[test]
    fn what_began_later_or_at_once_is_no_reason() {
        assert_eq!(count(0, &[0]), 0);
        assert_eq!(count(10, &[7200]), 0, "a clock that was put back");
        assert_eq!(count(7200, &[0, 6000, 9000]), 0);
        let zero = missed(at(100), 0, [at(0)]).map(|missed| missed.count);
        assert_eq!(zero, Some(99), "no division by zero");
    }
}

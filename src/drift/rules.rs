//! What a user says of drift: what does not count and until when, when hosts may be mended,
//! how many at once, and how much of it needs a person.

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};

use super::Finding;
use crate::error::{Diagnostic, Origin};
use crate::text::moment;
use crate::value::HostName;

/// A rule that some drift does not count.
#[derive(Debug, Clone, PartialEq)]
pub struct Ignored {
    /// Which addresses, `HOST/STEP-ID`, with `*` for anything.
    pub address: String,
    /// Why.
    pub reason: String,
    /// The last day on which it holds, in UTC; from the next on it warns instead.
    pub until: Option<Date>,
    /// Where it is written.
    pub origin: Option<Origin>,
}

impl Ignored {
    /// Whether it holds at this time.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        self.until.is_none_or(|until| today <= until)
    }

    /// Whether it is about this address.
    #[must_use]
    pub fn is_about(&self, address: &str) -> bool {
        matches(self.address.as_bytes(), address.as_bytes())
    }
}

/// A time of the week at which hosts may be mended, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// On these days; empty means on all.
    pub days: Vec<Weekday>,
    /// From this time of the day on.
    pub from: Time,
    /// Until before this time; one that is not later is of the next day.
    pub to: Time,
}

impl Window {
    /// Whether it is open at this time.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let on = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        let (today, time) = (now.weekday(), now.time());
        if self.from < self.to {
            return on(today) && self.from <= time && time < self.to;
        }
        (on(today) && self.from <= time) || (on(today.previous()) && time < self.to)
    }
}

/// The rules of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What does not count.
    pub ignore: Vec<Ignored>,
    /// When hosts may be mended; empty means always.
    pub windows: Vec<Window>,
    /// How many hosts are mended at once.
    pub most_hosts: u32,
    /// With more drifted things than this on a host it is left to a person.
    pub most_drift: u32,
    /// How often a thing is mended before it counts as flapping.
    pub attempts: u32,
    /// Minutes to wait after the first attempt; each further one doubles it.
    pub backoff_minutes: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ignore: Vec::new(),
            windows: Vec::new(),
            most_hosts: 5,
            most_drift: 20,
            attempts: 3,
            backoff_minutes: 10,
        }
    }
}

impl Rules {
    /// Marks what does not count. What only a rule that has expired is about counts, and a
    /// warning says so.
    pub fn ignore(
        &self,
        host: &HostName,
        findings: &mut [Finding],
        now: Timestamp,
    ) -> Vec<Diagnostic> {
        let mut warnings: Vec<Diagnostic> = Vec::new();
        for finding in findings {
            let address = format!("{host}/{}", finding.step);
            for rule in self.ignore.iter().filter(|rule| rule.is_about(&address)) {
                if rule.holds(now) {
                    finding.ignored = Some(rule.reason.clone());
                    continue;
                }
                let until = rule.until.map(|day| day.to_string()).unwrap_or_default();
                let warning = Diagnostic::warning(format!(
                    "the rule that ignores `{}` was for until {until}: {address} counts again",
                    rule.address
                ))
                .hint("mend it, or give the rule a later `until`");
                warnings.push(match &rule.origin {
                    Some(origin) => warning.at(origin),
                    None => warning,
                });
            }
        }
        warnings
    }

    /// Whether hosts may be mended at this time.
    #[must_use]
    pub fn may_mend(&self, now: Timestamp) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|window| window.is_open(now))
    }

    /// Marks what came back too often, and what was mended a short while ago: `mended` are the
    /// times at which mending its step was begun before, of the runs that the host keeps.
    pub fn hold_back(&self, finding: &mut Finding, mended: &[Timestamp], now: Timestamp) {
        finding.mended = u32::try_from(mended.len()).unwrap_or(u32::MAX);
        if finding.mended >= self.attempts {
            finding.flapping = true;
            finding.held =
                Some("it needs a person: it comes back each time, or cannot be mended".to_owned());
            return;
        }
        let Some(last) = mended.iter().max() else {
            return;
        };
        let doubled = 1_i64 << finding.mended.saturating_sub(1).min(16);
        let wait = i64::from(self.backoff_minutes) * 60 * doubled;
        let next = last.as_second().saturating_add(wait);
        if now.as_second() < next {
            let next = Timestamp::from_second(next).unwrap_or(now);
            finding.held = Some(format!("it is not mended again before {}", moment(next)));
        }
    }
}

/// Whether a text is as the pattern says; `*` stands for anything.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, in_text));
            at += 1;
        } else if pattern.get(at) == Some(&text[in_text]) {
            (at, in_text) = (at + 1, in_text + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (at, in_text) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn an_address_pattern_matches_the_whole_address() {
        for (pattern, text, is) in [
            ("n1/file:/etc/x", "n1/file:/etc/x", true),
            ("*/file:/etc/*", "n1/file:/etc/x", true),
            ("*/file:/etc/*", "n1/unit:x", false),
            ("n1/*", "n10/unit:x", false),
            ("**x", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                is,
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let window = Window {
            days: vec![Weekday::Friday],
            from: Time::constant(22, 0, 0, 0),
            to: Time::constant(4, 0, 0, 0),
        };
        // 2026-11-20 is a Friday.
        for (time, open) in [
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T03:59:00Z", true),
            ("2026-11-21T04:00:00Z", false),
            ("2026-11-20T03:00:00Z", false),
        ] {
            assert_eq!(window.is_open(at(time)), open, "{time}");
        }
    }

    #[test]
    fn what_comes_back_waits_longer_each_time_and_then_flaps() {
        let rules = Rules::default();
        let mut finding = super::super::tests::drifted("file:/etc/x");
        let now = at("2026-11-23T12:00:00Z");
        let mut held = |mended: &[Timestamp]| {
            finding.held = None;
            rules.hold_back(&mut finding, mended, now);
            finding.held.clone().unwrap_or_default()
        };
        assert_eq!(held(&[]), "");
        let first = at("2026-11-23T11:51:00Z");
        let second = at("2026-11-23T11:41:00Z");
        for (mended, until) in [
            (&[first][..], at("2026-11-23T12:01:00Z")),
            (&[first, second], at("2026-11-23T12:11:00Z")),
        ] {
            assert!(held(mended).contains(&moment(until)), "{until}");
        }
        let long_ago = [at("2026-11-22T00:00:00Z"), at("2026-11-22T01:00:00Z")];
        assert_eq!(held(&long_ago), "");
        assert!(held(&[first, second, second]).contains("person"));
        assert!(finding.flapping);
        assert_eq!(finding.word(), "flapping");
    }

    #[test]
    fn a_rule_ends_with_its_day_and_then_warns() {
        let rules = Rules {
            ignore: vec![Ignored {
                address: "*/file:/etc/x".to_owned(),
                reason: "being tried out".to_owned(),
                until: Some(Date::constant(2026, 11, 23)),
                origin: None,
            }],
            ..Rules::default()
        };
        let host = HostName::from("n1");
        let mut findings = [super::super::tests::drifted("file:/etc/x")];
        let warned = rules.ignore(&host, &mut findings, at("2026-11-23T23:59:59Z"));
        assert_eq!(warned.len(), 0);
        assert_eq!(findings[0].word(), "ignored");
        assert!(!findings[0].is_drifted());
        findings[0].ignored = None;
        let warned = rules.ignore(&host, &mut findings, at("2026-11-24T00:00:00Z"));
        assert_eq!(warned.len(), 1);
        assert!(findings[0].is_drifted());
    }
}

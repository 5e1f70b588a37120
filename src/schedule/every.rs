//! How often: a span that divides an hour or a day, in the words of each scheduler.
//!
//! Only such spans come at the same times everywhere: a crontab knows minutes of an hour and
//! hours of a day, and `*/25` would come at :50 and again at :00.

use std::fmt;
use std::str::FromStr;

/// A span between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// So many minutes; they divide an hour.
    Minutes(u32),
    /// So many hours; they divide a day.
    Hours(u32),
    /// Once a day, at midnight.
    Day,
    /// Once a week, on Monday at midnight.
    Week,
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no span that a crontab has: minutes that divide an hour (5m, 15m, \
                 30m), hours that divide a day (1h, 6h, 12h), hourly, daily or weekly"
            )
        };
        match text {
            "hourly" => return Ok(Self::Hours(1)),
            "daily" | "24h" | "1d" => return Ok(Self::Day),
            "weekly" => return Ok(Self::Week),
            _ => {}
        }
        let unit = text.chars().last().ok_or_else(wrong)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        let number: u32 = match plain {
            true => digits.parse().map_err(|_| wrong())?,
            false => return Err(wrong()),
        };
        match (unit, number) {
            ('m', 60) => Ok(Self::Hours(1)),
            ('m', 1..60) if 60 % number == 0 => Ok(Self::Minutes(number)),
            ('h', 1..24) if 24 % number == 0 => Ok(Self::Hours(number)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minutes(1) => f.write_str("every minute"),
            Self::Minutes(minutes) => write!(f, "every {minutes} minutes"),
            Self::Hours(1) => f.write_str("every hour"),
            Self::Hours(hours) => write!(f, "every {hours} hours"),
            Self::Day => f.write_str("every day"),
            Self::Week => f.write_str("every week"),
        }
    }
}

impl Every {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::Minutes(minutes) => format!("{minutes}m"),
            Self::Hours(hours) => format!("{hours}h"),
            Self::Day => "daily".to_owned(),
            Self::Week => "weekly".to_owned(),
        }
    }

    /// Seconds between two runs.
    #[must_use]
    pub fn seconds(self) -> u32 {
        match self {
            Self::Minutes(minutes) => minutes * 60,
            Self::Hours(hours) => hours * 3600,
            Self::Day => 24 * 3600,
            Self::Week => 7 * 24 * 3600,
        }
    }

    /// For `OnCalendar=`, as systemd.time(7) has it.
    #[must_use]
    pub fn calendar(self) -> String {
        match self {
            Self::Minutes(minutes) => format!("*:0/{minutes}"),
            Self::Hours(1) => "hourly".to_owned(),
            Self::Hours(hours) => format!("0/{hours}:00"),
            Self::Day => "daily".to_owned(),
            Self::Week => "weekly".to_owned(),
        }
    }

    /// The five fields of a crontab, as crontab(5) has them.
    #[must_use]
    pub fn crontab(self) -> String {
        match self {
            Self::Minutes(minutes) => format!("*/{minutes} * * * *"),
            Self::Hours(1) => "0 * * * *".to_owned(),
            Self::Hours(hours) => format!("0 */{hours} * * *"),
            Self::Day => "0 0 * * *".to_owned(),
            Self::Week => "0 0 * * 1".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_the_same_for_every_scheduler() {
        let both = |text: &str| {
            let every: Every = text.parse().expect("a span");
            assert_eq!(every.word().parse(), Ok(every));
            format!(
                "{} | {} | {}",
                every.calendar(),
                every.crontab(),
                every.seconds()
            )
        };
        assert_eq!(both("15m"), "*:0/15 | */15 * * * * | 900");
        assert_eq!(both("60m"), "hourly | 0 * * * * | 3600");
        assert_eq!(both("6h"), "0/6:00 | 0 */6 * * * | 21600");
        assert_eq!(both("daily"), "daily | 0 0 * * * | 86400");
        assert_eq!(both("weekly"), "weekly | 0 0 * * 1 | 604800");
    }

    #[test]
    fn what_a_crontab_cannot_say_is_told() {
        for wrong in [
            "", "m", "7m", "0m", "25m", "5h", "90m", "-5m", "5", "5s", "+5m", "15 m", "1ü",
        ] {
            assert!(wrong.parse::<Every>().is_err(), "{wrong}");
        }
    }
}

//! MPS daemons, as `nvidia.sh` reports them: what each was started with (`daemon CARD DEVICE
//! PERCENTAGE MIB`, MIB 0 for no limit) and what it says of itself (`says …`, the percentage
//! first and then the limit). One that says nothing does not run.

use crate::facts::{Fact, MpsDaemon};

/// The daemons of the card `card`, by device.
#[must_use]
pub fn parse(text: &str, card: &str) -> Fact<Vec<MpsDaemon>> {
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(started) = line.strip_prefix("daemon ") else {
            continue;
        };
        let mut said = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("daemon ")) {
            said.push(line.strip_prefix("says ").unwrap_or(line));
        }
        let words: Vec<&str> = started.split_whitespace().collect();
        let [of, device, _, wanted] = words[..] else {
            return Fact::Unknown(format!("its settings cannot be read: {started}"));
        };
        let Some(percentage) = said.first().filter(|_| of == card) else {
            continue;
        };
        let Some(percentage) = percentage_of(percentage) else {
            return Fact::Unknown(format!("the daemon of {device} says: {percentage}"));
        };
        let limit = match wanted.parse() {
            Ok(0) => None,
            Ok(wanted) => match limit_of(said.get(1).copied().unwrap_or_default(), wanted) {
                Some(limit) => Some(limit),
                None => {
                    return Fact::Unknown(format!(
                        "the daemon of {device} does not tell its memory limit"
                    ));
                }
            },
            Err(_) => return Fact::Unknown(format!("its settings cannot be read: {started}")),
        };
        found.push(MpsDaemon {
            device: device.to_owned(),
            active_thread_percentage: percentage,
            memory_limit_mib: limit,
        });
    }
    found.sort();
    Fact::Known(found)
}

/// `25.0` or `25`.
fn percentage_of(text: &str) -> Option<u32> {
    let whole = text.split('.').next()?;
    whole.parse().ok().filter(|percentage| *percentage <= 100)
}

/// MiB of `900M` or `8G`. From one GiB on the daemon tells whole ones, so that what was
/// `wanted` counts where the answer does not contradict it.
fn limit_of(text: &str, wanted: u64) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "G" if wanted / 1024 == number => Some(wanted),
        "G" => number.checked_mul(1024),
        "M" => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "daemon GPU-1 GPU-1 25 9000\nsays 25.0\nsays 8G\n\
                        daemon GPU-2 MIG-b 100 0\nsays 100.0\nsays 0G\n\
                        daemon GPU-2 MIG-a 50 900\nsays 40.0\nsays 900M\n\
                        daemon GPU-1 GPU-9 25 0\n";

    fn daemon(device: &str, percentage: u32, limit: Option<u64>) -> MpsDaemon {
        MpsDaemon {
            device: device.to_owned(),
            active_thread_percentage: percentage,
            memory_limit_mib: limit,
        }
    }

    #[test]
    fn daemons_that_answer_are_told_with_what_they_say() {
        assert_eq!(
            parse(SAID, "GPU-1"),
            Fact::Known(vec![daemon("GPU-1", 25, Some(9000))])
        );
        assert_eq!(
            parse(SAID, "GPU-2"),
            Fact::Known(vec![
                daemon("MIG-a", 40, Some(900)),
                daemon("MIG-b", 100, None)
            ])
        );
        assert_eq!(parse(SAID, "GPU-3"), Fact::Known(Vec::new()));
    }

    #[test]
    fn a_limit_that_was_changed_behind_our_back_is_seen() {
        assert_eq!(limit_of("8G", 8500), Some(8500));
        assert_eq!(limit_of("9G", 8500), Some(9 * 1024));
        assert_eq!(limit_of("", 8500), None);
        assert_eq!(limit_of("unlimited", 8500), None);
    }

    #[test]
    fn an_answer_that_is_none_is_not_guessed() {
        for text in [
            "daemon GPU-1 GPU-1 25\n",
            "daemon GPU-1 GPU-1 25 0\nsays what\n",
            "daemon GPU-1 GPU-1 25 9\nsays 25.0\n",
            "daemon GPU-1 GPU-1 25 x\nsays 25.0\n",
        ] {
            assert!(parse(text, "GPU-1").unknown().is_some(), "{text}");
        }
    }
}

//! A stable share of the hosts, for controllers that work side by side.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::value::HostName;

/// The share number `index` of `count`: which hosts it has depends on their names alone, so
/// that a host that comes or goes moves no other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Whether the host is of this share.
    #[must_use]
    pub fn has(self, host: &HostName) -> bool {
        let hash = Sha256::digest(host.as_str().as_bytes());
        let first = hash
            .iter()
            .take(8)
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        first % u64::from(self.count) == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `K/N`, with K from 0, as `JOB_COMPLETION_INDEX` of an Indexed Job counts.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no share such as 0/4: K/N with K from 0 to N-1");
        let number = |text: &str| {
            let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            plain
                .then(|| text.parse::<u32>().ok())
                .flatten()
                .ok_or_else(wrong)
        };
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let (index, count) = (number(index)?, number(count)?);
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_of_one_share_and_stays_in_it() {
        let hosts: Vec<HostName> = (0..1000)
            .map(|n| HostName::from(format!("gpu{n:04}")))
            .collect();
        let mut sizes = Vec::new();
        for index in 0..4 {
            let shard: Shard = format!("{index}/4").parse().expect("a share");
            sizes.push(hosts.iter().filter(|host| shard.has(host)).count());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 1000);
        assert!(
            sizes.iter().all(|size| (200..300).contains(size)),
            "{sizes:?}"
        );
        // Another version of this program must find the same; reckoned by Python's hashlib.
        let shard: Shard = "1/3".parse().expect("a share");
        let of = ["a", "b", "c", "gpu01"].map(|name| shard.has(&HostName::from(name)));
        assert_eq!(of, [true, true, false, true]);
    }

    #[test]
    fn what_is_no_share_is_told() {
        for wrong in [
            "", "1", "4/4", "-1/4", "1/0", "0/0", "a/b", "1/2/3", "+1/2", " 1/2",
        ] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}

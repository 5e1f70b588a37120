//! What a host key of an inventory stands for: `gpu[01:16]`, `db1:2222`,
//! `[2001:db8::1]:22`.
//!
//! The patterns are those of ansible-core (`parsing/utils/addresses.py`,
//! `plugins/inventory/__init__.py`), quirks included, because inventories rely
//! on them. Two of its silences are errors here: a range that runs backwards
//! and a step of nothing.

use std::sync::LazyLock;

use regex::Regex;

/// Most hosts that one key may stand for.
const MAX_HOSTS: usize = 1_000_000;

/// The host names and the port that a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) names: Vec<String>,
    pub(super) port: Option<u32>,
}

/// Expands a host key; the error is what is wrong with it.
pub(super) fn expand(key: &str) -> Result<Expanded, String> {
    if !key.contains(['[', ':']) {
        return Ok(Expanded {
            names: vec![key.to_owned()],
            port: None,
        });
    }
    // What is no address is taken as it is, and may still hold ranges.
    let (pattern, port) = match split_port(key) {
        Some((pattern, port)) if is_address(pattern) => (pattern, port),
        _ => (key, None),
    };
    let mut names = Vec::new();
    ranges(pattern, &mut names)?;
    Ok(Expanded { names, port })
}

/// The host and port of a text as `ansible.parsing.utils.addresses.parse_address`
/// reads it, if it is a network address or host name.
pub(super) fn parse_address(text: &str) -> Option<(&str, Option<u32>)> {
    split_port(text).filter(|(host, _)| is_address(host))
}

/// Whether the text is an IPv4 or IPv6 address: such names have no short form.
pub(super) fn is_ip(text: &str) -> bool {
    IPV4.is_match(text) || IPV6.is_match(text)
}

fn is_address(text: &str) -> bool {
    is_ip(text) || HOSTNAME.is_match(text)
}

fn split_port(text: &str) -> Option<(&str, Option<u32>)> {
    let mut host = text;
    let mut port = None;
    for pattern in [&BRACKETED, &HOST_PORT] {
        if let Some(found) = pattern.captures(host) {
            port = Some(found.get(2)?.as_str().parse().ok()?);
            host = found.get(1)?.as_str();
        }
    }
    Some((host, port))
}

static BRACKETED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\[(.+)\]:([0-9]+)$"));
static HOST_PORT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)$"));
static IPV4: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5]|\[(?:[0-9]+:[0-9]+)(?::[0-9]+)?\])";
    pattern(&format!(r"(?i)^(?:{part}\.){{3}}{part}$"))
});
static IPV6: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"(?:[0-9a-f]{1,4}|\[(?:[0-9a-f]+:[0-9a-f]+)(?::[0-9]+)?\])";
    let forms = [
        r"(?:P:){7}P",
        r"(?:P:){1,6}:",
        r"(?:P:)(?::P){1,6}",
        r"(?:P:){2}(?::P){1,5}",
        r"(?:P:){3}(?::P){1,4}",
        r"(?:P:){4}(?::P){1,3}",
        r"(?:P:){5}(?::P){1,2}",
        r"(?:P:){6}(?::P)",
        r":(?::P){1,6}",
        r"P?::",
        r"(?:0:){6}(?:P\.){3}P",
        r"::(?:ffff:)?(?:P\.){3}P",
        r"(?:0:){5}ffff:(?:P\.){3}P",
    ];
    pattern(&format!("(?i)^(?:{})$", forms.join("|").replace('P', part)))
});
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    let range = r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]";
    // Ansible's "not ended by _ or -" is a look-behind; spelled out here.
    let label =
        format!(r"(?:(?:\w|{range})(?:[\w-]|{range})*(?:[^\W_]|{range})|(?:[^\W_]|{range}))");
    pattern(&format!(r"(?i)^{label}(?:\.{label})*$"))
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the patterns of this file are valid")
}

fn ranges(text: &str, names: &mut Vec<String>) -> Result<(), String> {
    let Some((head, rest)) = text.split_once('[') else {
        if names.len() >= MAX_HOSTS {
            return Err(format!("this stands for more than {MAX_HOSTS} hosts"));
        }
        names.push(text.to_owned());
        return Ok(());
    };
    let Some((range, tail)) = rest.split_once(']') else {
        return Err("the range has no `]`".to_owned());
    };
    for item in items(range)? {
        ranges(&format!("{head}{item}{tail}"), names)?;
    }
    Ok(())
}

fn items(range: &str) -> Result<Vec<String>, String> {
    let bounds: Vec<&str> = range.split(':').collect();
    let (begin, end, step) = match bounds[..] {
        [begin, end] => (begin, end, "1"),
        [begin, end, step] => (begin, end, step),
        _ => {
            return Err(format!(
                "`[{range}]` is no range: write `[begin:end]` or `[begin:end:step]`"
            ));
        }
    };
    let begin = if begin.is_empty() { "0" } else { begin };
    if end.is_empty() {
        return Err(format!("the range `[{range}]` has no end"));
    }
    let step: usize = match step.parse() {
        Ok(step) if step > 0 => step,
        _ => {
            return Err(format!(
                "the step of the range `[{range}]` is not a number above 0"
            ));
        }
    };
    let padded = begin.len() > 1 && begin.starts_with('0');
    if padded && begin.len() != end.len() {
        return Err(format!(
            "begin and end of the range `[{range}]` must be of equal length"
        ));
    }
    if let (Some(first), Some(last)) = (letter(begin), letter(end)) {
        if first > last {
            return Err(format!("the range `[{range}]` runs backwards"));
        }
        let letters = (first..=last)
            .step_by(step)
            .map(|at| LETTERS[at..=at].to_owned());
        return Ok(letters.collect());
    }
    let (Ok(first), Ok(last)) = (begin.parse::<usize>(), end.parse::<usize>()) else {
        return Err(format!(
            "the range `[{range}]` is neither of numbers nor of single letters"
        ));
    };
    if first > last {
        return Err(format!("the range `[{range}]` runs backwards"));
    }
    if (last - first) / step >= MAX_HOSTS {
        return Err(format!(
            "the range `[{range}]` stands for more than {MAX_HOSTS} hosts"
        ));
    }
    let width = if padded { begin.len() } else { 0 };
    Ok((first..=last)
        .step_by(step)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

// One table, so that `[a:C]` runs through the small letters first.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn letter(text: &str) -> Option<usize> {
    if text.len() == 1 {
        LETTERS.find(text)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(key: &str) -> String {
        match expand(key) {
            Ok(expanded) => match expanded.port {
                Some(port) => format!("{} port {port}", expanded.names.join(" ")),
                None => expanded.names.join(" "),
            },
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn ranges_as_ansible_expands_them() {
        assert_eq!(names("n[01:05:2]"), "n01 n03 n05");
        assert_eq!(names("n[8:11]"), "n8 n9 n10 n11");
        assert_eq!(names("n[08:11]"), "n08 n09 n10 n11");
        assert_eq!(names("n[1:03]"), "n1 n2 n3");
        assert_eq!(names("n[:3]"), "n0 n1 n2 n3");
        assert_eq!(names("n[a:c]x"), "nax nbx ncx");
        assert_eq!(names("n[y:B]"), "ny nz nA nB");
        assert_eq!(names("n[1:2]-r[a:b]"), "n1-ra n1-rb n2-ra n2-rb");
    }

    #[test]
    fn what_is_no_range_is_an_error() {
        for key in [
            "n[01:3]", "n[1,3]", "n[01-03]", "n[1:]", "n[3:1]", "n[c:a]", "n[1:3:0]", "n[1:3",
            "n[aa:bb]",
        ] {
            assert!(names(key).starts_with("error"), "{key}: {}", names(key));
        }
        assert!(names("n[1:9999999999]").contains("more than"));
        assert!(names("n[1:2000][1:2000]").contains("more than"));
    }

    #[test]
    fn ports_are_split_off_where_ansible_does() {
        assert_eq!(names("db1:2222"), "db1 port 2222");
        assert_eq!(names("db[1:2]:22"), "db1 db2 port 22");
        assert_eq!(names("10.0.0.1:22"), "10.0.0.1 port 22");
        assert_eq!(names("[2001:db8::1]:2222"), "2001:db8::1 port 2222");
        assert_eq!(names("2001:db8::1"), "2001:db8::1");
        assert_eq!(names("a_:22"), "a_:22");
    }
}

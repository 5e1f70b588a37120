//! Which hosts a pattern means: the `hosts` of a play, and `--limit`.
//!
//! The rules are ansible-core's (`inventory/manager.py`): plain terms first,
//! then all `&`, then all `!`, in whatever order they are written. Unlike
//! Ansible, a term that matches nothing is an error, because a slip of the pen
//! must neither widen nor empty a run.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use indexmap::IndexSet;
use regex::Regex;

use super::{Inventory, LOCALHOST, range, source};
use crate::error::{Diagnostic, Origin, Problems, Source};
use crate::value::HostName;

impl Inventory {
    /// The hosts that `pattern` means, in the inventory's order of its terms,
    /// less those that `limit` leaves out. Nothing is left if the two have no
    /// host in common, or a group has none; whether that matters is for the
    /// caller to say. A limit of the form `@file` is read here.
    ///
    /// # Errors
    /// Every term that matches no group and no host, with the nearest name.
    pub fn select(&self, pattern: &str, limit: Option<&str>) -> Result<Vec<HostName>, Problems> {
        let mut problems = Problems::default();
        let terms = split(&Origin::whole("hosts", pattern), &mut problems);
        let mut hosts = self.evaluate(&terms, &mut problems);
        if let Some(limit) = limit {
            let terms = limit_terms(limit, &mut problems);
            let allowed = self.evaluate(&terms, &mut problems);
            hosts.retain(|host| allowed.contains(host));
        }
        problems.or(hosts.into_iter().collect())
    }

    fn evaluate(&self, terms: &[Term], problems: &mut Problems) -> IndexSet<HostName> {
        let of = |sign: Sign| terms.iter().filter(move |term| term.sign == sign);
        let mut hosts: IndexSet<HostName> = IndexSet::new();
        if of(Sign::Plain).next().is_none() {
            hosts.extend(self.hosts().cloned());
        }
        for term in of(Sign::Plain) {
            hosts.extend(self.matches(term, problems));
        }
        for term in of(Sign::And) {
            let found: HashSet<HostName> = self.matches(term, problems).into_iter().collect();
            hosts.retain(|host| found.contains(host));
        }
        for term in of(Sign::Not) {
            let found: HashSet<HostName> = self.matches(term, problems).into_iter().collect();
            hosts.retain(|host| !found.contains(host));
        }
        hosts
    }

    // The hosts of one term, its sign aside; a host may come twice.
    fn matches(&self, term: &Term, problems: &mut Problems) -> Vec<HostName> {
        let text = term.text.as_str();
        if let Some((name, _)) = self.hosts.get_key_value(&HostName::from(text)) {
            return vec![name.clone()];
        }
        let (expression, slice) = split_slice(text);
        let matcher = match Matcher::new(expression) {
            Ok(matcher) => matcher,
            Err(error) => {
                problems.push(Diagnostic::error(error).at(&term.origin));
                return Vec::new();
            }
        };
        let groups: Vec<&str> = self
            .groups()
            .filter(|group| matcher.matches(group))
            .collect();
        let mut hosts: Vec<HostName> = groups
            .iter()
            .flat_map(|group| self.hosts_of(group))
            .cloned()
            .collect();
        let also_hosts = expression.starts_with('~') || expression.contains(['.', '?', '*', '[']);
        if groups.is_empty() || also_hosts {
            hosts.extend(
                self.hosts
                    .keys()
                    .filter(|host| matcher.matches(host.as_str()))
                    .cloned(),
            );
        }
        if hosts.is_empty() && LOCALHOST.contains(&expression) {
            hosts.push(HostName::from(expression));
        }
        if hosts.is_empty() && groups.is_empty() && expression != "all" {
            problems.push(self.no_match(term, expression));
            return hosts;
        }
        let Some(slice) = slice else {
            return hosts;
        };
        let count = hosts.len();
        let chosen = slice.of(hosts);
        if chosen.is_empty() {
            let problem = format!("`{text}` leaves no host, because `{expression}` has {count}");
            problems.push(
                Diagnostic::error(problem)
                    .at(&term.origin)
                    .hint("the first host is `[0]`, the last `[-1]`"),
            );
        }
        chosen
    }

    fn no_match(&self, term: &Term, expression: &str) -> Diagnostic {
        let problem = Diagnostic::error(format!("no host and no group matches `{expression}`"))
            .at(&term.origin);
        if range::parse_address(expression).is_some_and(|(_, port)| port.is_some()) {
            return problem.hint("a port is no part of a pattern; names are separated by `,`");
        }
        let names = self.groups().chain(self.hosts.keys().map(HostName::as_str));
        problem
            .did_you_mean(expression, names)
            .or_hint("`deploy inventory graph` shows all groups with their hosts")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plain,
    And,
    Not,
}

/// One pattern between separators.
#[derive(Debug)]
struct Term {
    sign: Sign,
    text: String,
    origin: Origin,
}

impl Term {
    fn new(text: &str, origin: Origin) -> Option<Self> {
        let (sign, rest) = match text.as_bytes().first()? {
            b'&' => (Sign::And, &text[1..]),
            b'!' => (Sign::Not, &text[1..]),
            _ => (Sign::Plain, text),
        };
        Some(Self {
            sign,
            text: rest.to_owned(),
            origin,
        })
    }
}

static BETWEEN_COLONS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?:[^\s:\[\]]|\[[^\]]*\])+").expect("the pattern is valid"));

// At commas; without any, at colons, unless the whole is an address or a host
// with a port.
fn split(whole: &Origin, problems: &mut Problems) -> Vec<Term> {
    let text = &whole.source.text;
    let mut pieces: Vec<(usize, &str)> = Vec::new();
    if text.contains(',') {
        let mut at = 0;
        for piece in text.split(',') {
            pieces.push((at, piece));
            at += piece.len() + 1;
        }
    } else if range::parse_address(text).is_some() {
        pieces.push((0, text));
    } else {
        pieces.extend(
            BETWEEN_COLONS
                .find_iter(text)
                .map(|found| (found.start(), found.as_str())),
        );
    }
    let terms: Vec<Term> = pieces
        .into_iter()
        .filter_map(|(at, piece)| {
            let start = at + (piece.len() - piece.trim_start().len());
            let piece = piece.trim();
            Term::new(
                piece,
                Origin::new(&whole.source, start..start + piece.len()),
            )
        })
        .collect();
    check(&terms, whole, problems);
    terms
}

// Ansible takes an empty pattern for all hosts.
fn check(terms: &[Term], whole: &Origin, problems: &mut Problems) {
    if terms.is_empty() {
        problems.push(
            Diagnostic::error("the host pattern is empty")
                .at(whole)
                .hint("`all` means every host"),
        );
    }
    for term in terms.iter().filter(|term| term.text.is_empty()) {
        let problem = "nothing stands behind this `&` or `!`";
        problems.push(Diagnostic::error(problem).at(&term.origin));
    }
}

fn limit_terms(limit: &str, problems: &mut Problems) -> Vec<Term> {
    let whole = Origin::whole("--limit", limit);
    let mut terms = Vec::new();
    for term in split(&whole, problems) {
        match term
            .text
            .strip_prefix('@')
            .filter(|_| term.sign == Sign::Plain)
        {
            Some(path) => terms.extend(file_terms(Path::new(path), problems)),
            None => terms.push(term),
        }
    }
    terms
}

// One pattern a line, as in a retry file; commas and colons do not separate here.
fn file_terms(path: &Path, problems: &mut Problems) -> Vec<Term> {
    let Some(text) = source::read_text(path, problems) else {
        return Vec::new();
    };
    let source = Arc::new(Source {
        path: path.to_path_buf(),
        text,
    });
    let mut terms = Vec::new();
    let mut at = 0;
    for line in source.text.split('\n') {
        let start = at + (line.len() - line.trim_start().len());
        at += line.len() + 1;
        let line = line.trim();
        if !line.starts_with('#') {
            terms.extend(Term::new(
                line,
                Origin::new(&source, start..start + line.len()),
            ));
        }
    }
    check(&terms, &Origin::new(&source, 0..0), problems);
    terms
}

/// What a name is compared with.
enum Matcher {
    Exact(String),
    Regex(Regex),
}

impl Matcher {
    fn new(expression: &str) -> Result<Self, String> {
        let pattern = match expression.strip_prefix('~') {
            // From the start of the name, not to its end.
            Some(regex) => format!("^(?:{regex})"),
            None if expression.contains(['*', '?', '[']) => glob(expression),
            None => return Ok(Self::Exact(expression.to_owned())),
        };
        Regex::new(&pattern).map(Self::Regex).map_err(|_| {
            format!("`{expression}` is no pattern that can be read (there is no look-around)")
        })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => text == name,
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

// Python's fnmatch.translate: `*`, `?`, `[abc]`, `[!abc]`; a `[` without end is itself.
fn glob(text: &str) -> String {
    let mut pattern = String::from("(?s)^");
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '[' => {
                // A `]` right behind `[` or `[!` belongs to the class.
                let first = at + usize::from(chars.get(at) == Some(&'!'));
                let close = (first + 1..chars.len()).find(|end| chars[*end] == ']');
                match close {
                    Some(close) => {
                        pattern.push_str(&class(&chars[at..close]));
                        at = close + 1;
                    }
                    None => pattern.push_str(r"\["),
                }
            }
            c => pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push('$');
    pattern
}

fn class(inside: &[char]) -> String {
    let (negated, inside) = match inside.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, inside),
    };
    let mut members = String::new();
    let mut at = 0;
    while at < inside.len() {
        let first = inside[at];
        match (inside.get(at + 1), inside.get(at + 2)) {
            (Some('-'), Some(last)) => {
                if first <= *last {
                    members.push_str(&format!("{}-{}", member(first), member(*last)));
                }
                at += 3;
            }
            _ => {
                members.push_str(&member(first));
                at += 1;
            }
        }
    }
    match (members.is_empty(), negated) {
        // A class of nothing matches nothing, its opposite anything.
        (true, false) => r"[^\s\S]".to_owned(),
        (true, true) => ".".to_owned(),
        (false, false) => format!("[{members}]"),
        (false, true) => format!("[^{members}]"),
    }
}

fn member(c: char) -> String {
    if c.is_alphanumeric() {
        c.to_string()
    } else {
        format!(r"\x{{{:x}}}", u32::from(c))
    }
}

/// What stands in brackets behind a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    At(i64),
    From(usize, Option<usize>),
}

static SLICE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(.+)\[(?:(-?[0-9]+)|([0-9]+)[:-]([0-9]*))\]$").expect("the pattern is valid")
});

fn split_slice(text: &str) -> (&str, Option<Slice>) {
    let Some(found) = SLICE.captures(text).filter(|_| !text.starts_with('~')) else {
        return (text, None);
    };
    let group = |index: usize| found.get(index).map(|found| found.as_str());
    let expression = group(1).unwrap_or(text);
    let slice = match (group(2), group(3), group(4)) {
        (Some(at), ..) => at.parse().ok().map(Slice::At),
        (None, Some(from), Some("")) => from.parse().ok().map(|from| Slice::From(from, None)),
        (None, Some(from), Some(to)) => match (from.parse(), to.parse()) {
            // Ansible takes an end of 0 for no end at all.
            (Ok(from), Ok(0)) => Some(Slice::From(from, Some(from))),
            (Ok(from), Ok(to)) => Some(Slice::From(from, Some(to))),
            _ => None,
        },
        _ => None,
    };
    (expression, slice)
}

impl Slice {
    fn of(self, hosts: Vec<HostName>) -> Vec<HostName> {
        match self {
            Self::At(at) => {
                let back = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
                let at = if at < 0 {
                    hosts.len().checked_sub(back)
                } else {
                    Some(back)
                };
                at.and_then(|at| hosts.get(at).cloned())
                    .into_iter()
                    .collect()
            }
            Self::From(from, to) => {
                let to = to.map_or(hosts.len(), |to| to.saturating_add(1).min(hosts.len()));
                hosts
                    .get(from..to)
                    .map(<[HostName]>::to_vec)
                    .unwrap_or_default()
            }
        }
    }
}

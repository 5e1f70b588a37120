//! What a host has no longer of the state that a plan was made for, in sentences that name
//! the place: the boot, a driver, a line of a file, a slice.
//!
//! Only what was read is compared; the host itself checks every step again before the
//! first change, so that what is not found here is found there.

use std::collections::BTreeMap;

use similar::{DiffOp, TextDiff};

use super::{Bound, Work, cards};
use crate::facts::HostFacts;
use crate::step::{Change, PathLook, Slice};
use crate::text::printable_line;
use crate::transport::{PathState, Read};

/// Content of larger files is not compared line by line.
const MOST_CONTENT: u64 = 256 * 1024;
/// Most lines of one file that are named.
const MOST_LINES: usize = 20;
/// Longest quoted line, in characters.
const LONGEST_LINE: usize = 120;

/// What must be read of a host before it can be compared.
#[must_use]
pub fn reads(work: &Work) -> Vec<Read> {
    let paths = first_looks(work).into_iter();
    paths
        .map(|(path, before)| Read::State {
            path: path.to_owned(),
            unless: match before {
                PathLook::File { sha256, .. } => Some(sha256.clone()),
                _ => None,
            },
            limit: match before {
                PathLook::File { text: Some(_), .. } => MOST_CONTENT,
                _ => 0,
            },
        })
        .collect()
}

/// Everything that differs between what the plan was made for and what is there now;
/// `states` has what was read of paths. Nothing if the plan still holds.
#[must_use]
pub fn moved(
    work: &Work,
    facts: &HostFacts,
    states: &BTreeMap<String, PathState>,
    last_run: Option<&str>,
) -> Vec<String> {
    let mut found = machine(&work.bound, facts, last_run);
    for (path, before) in first_looks(work) {
        match states.get(path) {
            Some(now) => found.extend(path_moved(path, before, now)),
            None => found.push(format!("{path}: it could not be read again")),
        }
    }
    found.extend(layouts(work, facts));
    found
}

/// Of each path what stood there before the plan's first change of it.
fn first_looks(work: &Work) -> BTreeMap<&str, &PathLook> {
    let mut looks = BTreeMap::new();
    for step in &work.plan.steps {
        if let Change::Path { path, before, .. } = &step.change {
            looks.entry(path.as_str()).or_insert(before);
        }
    }
    looks
}

fn machine(bound: &Bound, facts: &HostFacts, last_run: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let now = Bound::of(facts, last_run.map(str::to_owned));
    // Two that could not be read say nothing of each other.
    if bound.boot_id.is_none() || bound.boot_id != now.boot_id {
        found.push(match (&bound.boot_id, &now.boot_id) {
            (Some(was), Some(is)) => {
                format!("the host was restarted since: its boot id was {was}, is {is}")
            }
            _ => "whether the host was restarted since cannot be told: its boot id cannot be read"
                .to_owned(),
        });
    }
    let names = bound.drivers.keys().chain(now.drivers.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let (was, is) = (bound.drivers.get(name), now.drivers.get(name));
        if was != is {
            let word = |driver: Option<&String>| match driver {
                Some(driver) => printable_line(driver, LONGEST_LINE),
                None => "none".to_owned(),
            };
            found.push(format!("{name} was {}, is {}", word(was), word(is)));
        }
    }
    if bound.last_run != now.last_run {
        found.push(match &now.last_run {
            Some(run) => format!("run {run} was applied on the host since"),
            None => "the run that was last applied is no longer recorded on the host".to_owned(),
        });
    }
    found
}

fn path_moved(path: &str, before: &PathLook, now: &PathState) -> Vec<String> {
    let one = |text: String| vec![format!("{path}: {text}")];
    match (before, now) {
        (PathLook::Absent, PathState::Absent) => Vec::new(),
        (
            PathLook::File {
                mode,
                owner,
                group,
                sha256,
                text,
                ..
            },
            PathState::File {
                mode: mode_now,
                owner: owner_now,
                group: group_now,
                sha256: sum_now,
                content,
                ..
            },
        ) => {
            let mut found = attributes(
                path,
                (*mode, owner, group),
                (*mode_now, owner_now, group_now),
            );
            if sha256 != sum_now {
                let now = content.as_deref().map(std::str::from_utf8);
                match (text, now) {
                    (Some(was), Some(Ok(is))) => found.extend(lines_moved(path, was, is)),
                    _ => found.push(format!("{path}: the content is another, and is not shown")),
                }
            }
            found
        }
        (
            PathLook::Directory { mode, owner, group },
            PathState::Directory {
                mode: mode_now,
                owner: owner_now,
                group: group_now,
            },
        ) => attributes(
            path,
            (*mode, owner, group),
            (*mode_now, owner_now, group_now),
        ),
        (PathLook::Link { target }, PathState::Link { target: now }) if target == now => Vec::new(),
        (PathLook::Link { target }, PathState::Link { target: now }) => one(format!(
            "was a link to {}, is one to {}",
            printable_line(target, LONGEST_LINE),
            printable_line(now, LONGEST_LINE)
        )),
        (before, now) => one(format!("{}, {}", was(before), is(now))),
    }
}

fn was(look: &PathLook) -> &'static str {
    match look {
        PathLook::Absent => "was not there",
        PathLook::File { .. } => "was a file",
        PathLook::Directory { .. } => "was a directory",
        PathLook::Link { .. } => "was a link",
    }
}

fn is(state: &PathState) -> String {
    match state {
        PathState::Absent => "is not there".to_owned(),
        PathState::File { .. } => "is a file".to_owned(),
        PathState::Directory { .. } => "is a directory".to_owned(),
        PathState::Link { .. } => "is a link".to_owned(),
        PathState::Other(kind) => format!("is a {}", printable_line(kind, LONGEST_LINE)),
        PathState::Unreadable(why) => {
            format!("cannot be looked at: {}", printable_line(why, LONGEST_LINE))
        }
    }
}

fn attributes(path: &str, was: (u32, &str, &str), is: (u32, &str, &str)) -> Vec<String> {
    let mut found = Vec::new();
    if was.0 != is.0 {
        found.push(format!("{path}: mode was {:04o}, is {:04o}", was.0, is.0));
    }
    for (name, was, is) in [("owner", was.1, is.1), ("group", was.2, is.2)] {
        if was != is {
            found.push(format!("{path}: {name} was {was}, is {is}"));
        }
    }
    found
}

/// Each line that is another, by its number in the file as it is now; of one that is gone,
/// as it was.
fn lines_moved(path: &str, was: &str, is: &str) -> Vec<String> {
    let diff = TextDiff::configure()
        .timeout(std::time::Duration::from_millis(500))
        .diff_lines(was, is);
    let (old, new): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    let quoted = |lines: &[&str], at: usize| {
        let line = lines.get(at).copied().unwrap_or_default();
        format!(
            "`{}`",
            printable_line(line.trim_end_matches('\r'), LONGEST_LINE)
        )
    };
    let mut found = Vec::new();
    for op in diff.ops() {
        let (old_at, old_len, new_at, new_len) = match *op {
            DiffOp::Equal { .. } => continue,
            DiffOp::Delete {
                old_index,
                old_len,
                new_index,
            } => (old_index, old_len, new_index, 0),
            DiffOp::Insert {
                old_index,
                new_index,
                new_len,
            } => (old_index, 0, new_index, new_len),
            DiffOp::Replace {
                old_index,
                old_len,
                new_index,
                new_len,
            } => (old_index, old_len, new_index, new_len),
        };
        for at in 0..old_len.max(new_len) {
            let number = match at < new_len {
                true => new_at + at + 1,
                false => old_at + at + 1,
            };
            let (gone, come) = (old.get(old_at + at), new.get(new_at + at));
            found.push(match (at < old_len, at < new_len) {
                (true, true) if gone == come => format!("{path}:{number}: its line end is another"),
                (true, true) => format!(
                    "{path}:{number}: was {}, is {}",
                    quoted(&old, old_at + at),
                    quoted(&new, new_at + at)
                ),
                (true, false) => format!("{path}:{number}: {} is gone", quoted(&old, old_at + at)),
                _ => format!("{path}:{number}: {} is new", quoted(&new, new_at + at)),
            });
        }
    }
    if found.len() > MOST_LINES {
        let more = found.len() - MOST_LINES;
        found.truncate(MOST_LINES);
        found.push(format!("{path}: {more} lines more"));
    }
    found
}

/// Slices that came or went, of cards whose layout is changed.
fn layouts(work: &Work, facts: &HostFacts) -> Vec<String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for step in &work.plan.steps {
        let Change::Layout {
            subject, before, ..
        } = &step.change
        else {
            continue;
        };
        if seen.contains(&subject.as_str()) {
            continue;
        }
        seen.push(subject);
        let Some(gpu) = facts.gpus.iter().find(|gpu| gpu.label() == *subject) else {
            found.push(format!("{subject} is not there"));
            continue;
        };
        let Some(now) = cards::slices(gpu) else {
            // Then its check on the host says what is wrong.
            continue;
        };
        let lacking = |all: &[Slice], slice: &Slice| !all.iter().any(|other| same(other, slice));
        for slice in before.iter().filter(|slice| lacking(&now, slice)) {
            found.push(format!("{subject}: {} is gone", place(slice)));
        }
        for slice in now.iter().filter(|slice| lacking(before, slice)) {
            found.push(format!("{subject}: {} is new", place(slice)));
        }
    }
    found
}

fn same(a: &Slice, b: &Slice) -> bool {
    let sorted = |slice: &Slice| {
        let mut compute = slice.compute.clone();
        compute.sort();
        compute
    };
    a.placement == b.placement && a.profile == b.profile && sorted(a) == sorted(b)
}

fn place(slice: &Slice) -> String {
    let compute = match &slice.compute[..] {
        [one] if *one == slice.profile => String::new(),
        [] => " without compute instances".to_owned(),
        some => format!(" ({})", some.join(", ")),
    };
    format!(
        "{}{compute} at {}",
        printable_line(&slice.profile, LONGEST_LINE),
        slice.placement.start
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, text: &str) -> PathLook {
        PathLook::File {
            mode,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            sha256: text.to_owned(),
            size: text.len() as u64,
            text: Some(text.to_owned()),
        }
    }

    fn now(mode: u32, owner: &str, text: &str) -> PathState {
        PathState::File {
            mode,
            owner: owner.to_owned(),
            group: "root".to_owned(),
            size: text.len() as u64,
            sha256: text.to_owned(),
            content: Some(text.into()),
        }
    }

    #[test]
    fn a_line_that_is_another_is_named_by_its_number() {
        let before = file(0o644, "a\nb\nc\nd\n");
        let said = |text: &str| path_moved("/etc/x", &before, &now(0o644, "root", text));
        assert_eq!(said("a\nb\nc\nd\n"), [] as [&str; 0]);
        assert_eq!(said("a\nb\nX\nd\n"), ["/etc/x:3: was `c`, is `X`"]);
        assert_eq!(said("a\nc\nd\n"), ["/etc/x:2: `b` is gone"]);
        assert_eq!(said("a\nb\nc\nd\ne\n"), ["/etc/x:5: `e` is new"]);
        assert_eq!(said("a\nb\nc\nd"), ["/etc/x:4: its line end is another"]);
        assert!(said(&"z\n".repeat(90)).len() == MOST_LINES + 1);
        assert_eq!(
            said("a\nb\n\u{1b}[2J\nd\n"),
            ["/etc/x:3: was `c`, is `\\x1b[2J`"]
        );
    }

    #[test]
    fn modes_owners_and_kinds_are_compared() {
        let before = file(0o644, "a");
        assert_eq!(
            path_moved("/x", &before, &now(0o600, "ada", "a")),
            ["/x: mode was 0644, is 0600", "/x: owner was root, is ada"]
        );
        assert_eq!(
            path_moved("/x", &before, &PathState::Absent),
            ["/x: was a file, is not there"]
        );
        assert_eq!(
            path_moved("/x", &PathLook::Absent, &now(0o644, "root", "a")),
            ["/x: was not there, is a file"]
        );
        let link = |target: &str| PathState::Link {
            target: target.to_owned(),
        };
        let was = PathLook::Link {
            target: "/a".to_owned(),
        };
        assert_eq!(path_moved("/x", &was, &link("/a")), [] as [&str; 0]);
        assert_eq!(
            path_moved("/x", &was, &link("/b")),
            ["/x: was a link to /a, is one to /b"]
        );
    }

    #[test]
    fn a_restart_a_driver_and_another_run_are_named() {
        use crate::facts::Fact;
        let facts = |boot: &str, driver: &str| HostFacts {
            boot_id: Fact::Known(boot.to_owned()),
            nvidia_driver: Fact::Known(driver.to_owned()),
            ..HostFacts::default()
        };
        let bound = Bound::of(&facts("b1", "590"), None);
        assert_eq!(
            machine(&bound, &facts("b1", "590"), None),
            [] as [String; 0]
        );
        assert_eq!(
            machine(&bound, &facts("b2", "595"), Some("r2")),
            [
                "the host was restarted since: its boot id was b1, is b2",
                "the NVIDIA driver was 590, is 595",
                "run r2 was applied on the host since"
            ]
        );
        let unread = HostFacts::default();
        let said = machine(&Bound::of(&unread, None), &unread, None);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("its boot id cannot be read"), "{said:?}");
    }
}
